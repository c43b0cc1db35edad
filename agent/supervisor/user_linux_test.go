package supervisor

import (
	"net"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asUser runs f on a thread that belongs to another user and is thrown away.
func asUser(t *testing.T, uid int, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			done <- e
			return
		}
		done <- f()
	}()
	return <-done
}

// dialPlain connects from the very thread that calls it, as whoever that is.
func dialPlain(dir string) (net.Conn, error) {
	return net.Dial("unix", filepath.Join(dir, socketName))
}
