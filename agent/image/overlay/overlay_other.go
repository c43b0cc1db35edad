//go:build !linux

package overlay

import (
	"errors"
	"io/fs"
)

var errOther = errors.New("overlays are of Linux alone")

// Mount returns an error: there is no overlayfs.
func Mount(string, string, string, []string) error { return errOther }

// Check returns an error: there is no overlayfs.
func Check(string) error { return errOther }

type inode struct{}

func linked(fs.FileInfo) (inode, bool) { return inode{}, false }

func isWhiteout(fs.FileInfo) bool { return false }

func isOpaque(string) bool { return false }

func makeDevice(string, fs.FileInfo) error { return errOther }

func like(string, string, fs.FileInfo) error { return errOther }
