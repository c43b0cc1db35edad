package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// own is the namespace of the calling thread.
const own = "/proc/thread-self/ns/net"

// Do calls f in the namespace that a file names: one of /proc, or one that was bind-mounted. All that f does on its own
// goroutine happens there; goroutines that it starts are outside. An empty path is where the process is.
func Do(path string, f func() error) error {
	if path == "" {
		return f()
	}
	target, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w %q: %w", ErrEnter, path, err)
	}
	defer unix.Close(target)
	return away(func() error {
		if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%w %q: %w", ErrEnter, path, err)
		}
		return f()
	})
}

// New makes a namespace, calls f in it, and returns once f has: f makes it stay, by a mount or an open file.
func New(f func() error) error {
	return away(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot make a network namespace: %w", err)
		}
		return f()
	})
}

// away runs f on a thread of its own, which is back where it was afterwards, or gone.
func away(f func() error) error {
	done := make(chan error, 1) // buffered, so that the thread need not wait for who asked
	go func() { done <- onThread(f) }()
	return <-done
}

func onThread(f func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// While this goroutine holds the first thread, the next one gets another.
		defer runtime.UnlockOSThread()
		return away(f)
	}
	home, err := unix.Open(own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot open the own network namespace: %w", err)
	}
	defer unix.Close(home)
	err = f()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		// The thread stays locked and ends with this goroutine.
		return errors.Join(err, fmt.Errorf("cannot come back from a network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// Same tells whether a file names the namespace of this process. It is false where the file can't be read.
func Same(path string) bool {
	var there, here unix.Stat_t
	if unix.Stat(path, &there) != nil || unix.Stat("/proc/self/ns/net", &here) != nil {
		return false
	}
	return there.Dev == here.Dev && there.Ino == here.Ino
}

// DialContext connects over TCP from within the namespace that a file names. The address is an IP with a port. Only the
// making of the socket needs a thread: waiting for the connection is as cheap as anywhere.
func DialContext(ctx context.Context, path, address string) (net.Conn, error) {
	if path == "" || Same(path) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("cannot dial %q in a network namespace: %w", address, err)
	}
	family := unix.AF_INET6
	var remote unix.Sockaddr = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	if to.Addr().Is4() {
		family, remote = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	fd := -1
	err = Do(path, func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot make a socket: %w", err)
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	return connect(ctx, fd, remote, address)
}

// connect connects a socket, which it owns, and hands it to the runtime.
func connect(ctx context.Context, fd int, remote unix.Sockaddr, address string) (net.Conn, error) {
	err := unix.Connect(fd, remote)
	pending := errors.Is(err, unix.EINPROGRESS)
	f := os.NewFile(uintptr(fd), address)
	defer f.Close() // net.FileConn takes a copy
	if err != nil && !pending {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	if pending {
		if err := connected(ctx, f); err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
	}
	return net.FileConn(f)
}

// connected waits until a connection that is under way is made, or has failed.
func connected(ctx context.Context, f *os.File) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := f.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	// Asked first, then waited for: the runtime forgets what it has seen of the socket before.
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failed = os.NewSyscallError("getsockopt", err)
		case code != 0:
			failed = os.NewSyscallError("connect", unix.Errno(code))
		default:
			// A socket without a peer is not connected yet.
			if _, err := unix.Getpeername(int(fd)); err != nil {
				return false
			}
		}
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(err, failed)
}
