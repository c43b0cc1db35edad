package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	socketName = "supervisor.sock"
	lockName   = "lock"
	logName    = "supervisor.log"
	// containersName is the folder of the records.
	containersName = "containers"
	// maxLog is the size from which on a log is put aside when a supervisor starts.
	maxLog = 1 << 20
)

// prepareDir makes the folder, or makes sure that it is ours alone, and returns its absolute path.
func prepareDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the supervisor's folder: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok {
		return "", fmt.Errorf("%q is not a folder", dir)
	}
	if int(stat.Uid) != os.Geteuid() {
		return "", fmt.Errorf("folder %q belongs to user %d, not to us, user %d", dir, stat.Uid, os.Geteuid())
	}
	if info.Mode().Perm() != 0o700 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// takeLock holds the folder for the life of the process and of all that it becomes.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errBusy
		}
		return nil, fmt.Errorf("cannot lock %q: %w", dir, err)
	}
	return f, nil
}

// socketAddr gives f an address of the socket in dir that fits into a sockaddr, which holds 108 bytes: a longer path is
// shortened by way of a descriptor of the folder.
func socketAddr(dir string, f func(addr string) error) error {
	path := filepath.Join(dir, socketName)
	if len(path) < 100 {
		return f(path)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName))
}

// listen makes the socket. The caller holds the lock, so that whatever is there under its name is dead.
func listen(dir string) (*net.UnixListener, error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var l *net.UnixListener
	err := socketAddr(dir, func(addr string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: addr, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// dial connects to the socket in dir and makes sure that its owner is the one we expect there.
func dial(ctx context.Context, dir string) (*net.UnixConn, error) {
	var c net.Conn
	err := socketAddr(dir, func(addr string) (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "unix", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a unix socket")
	}
	if err := checkPeer(uc); err != nil {
		c.Close()
		return nil, err
	}
	return uc, nil
}

// openLog opens the log for appending, and puts a long one aside.
func openLog(dir string) (*os.File, error) {
	path := filepath.Join(dir, logName)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		_ = os.Rename(path, path+".1")
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}
