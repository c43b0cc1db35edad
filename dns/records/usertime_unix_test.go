//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package records

import (
	"syscall"
	"time"
)

// userTime is how long the process computed, not the system on its behalf.
func userTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano())
}
