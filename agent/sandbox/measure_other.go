//go:build !linux

package sandbox

import (
	"context"
	"errors"
)

func measure(context.Context, string) (int64, error) { return 0, errors.ErrUnsupported }
