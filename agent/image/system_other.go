//go:build !linux

package image

import (
	"errors"
	"os"
)

var (
	errLocked = errors.New("locked by another process")
	errOther  = errors.New("images can be had on Linux alone")
)

func flock(*os.File, bool) error { return errOther }

func syncFS(*os.File) error { return errOther }

func space(string) (free, total int64, err error) { return 0, 0, errOther }

func device(string) (uint64, bool) { return 0, false }
