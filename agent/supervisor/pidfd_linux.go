package supervisor

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Handle is a hold on one process that may or may not be a child: its number can be reused, the handle cannot be
// mistaken. A Handle opened while the process runs also tells its exit status later, where the kernel does (Linux 6.15
// and later). It is not safe for concurrent use with Close.
type Handle struct {
	fd    int
	pid   int
	ticks uint64
}

// OpenHandle returns a handle on the process pid that started at ticks (see [Container]).
func OpenHandle(pid int, ticks uint64) (*Handle, error) {
	fd, err := openPidfd(pid, ticks)
	if err != nil {
		return nil, err
	}
	return &Handle{fd: fd, pid: pid, ticks: ticks}, nil
}

// openPidfd opens the pidfd first and compares the start time then: the other way round the number could change hands
// in between.
func openPidfd(pid int, ticks uint64) (int, error) {
	if pid <= 0 {
		return -1, ErrGone
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			return -1, ErrGone
		}
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	if p, err := readProc(pid); err != nil || p.ticks != ticks {
		unix.Close(fd)
		return -1, ErrGone
	}
	return fd, nil
}

// Signal sends a signal to the process; a process that ended ignores it.
func (h *Handle) Signal(signal syscall.Signal) error {
	err := unix.PidfdSendSignal(h.fd, unix.Signal(signal), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// SignalGroup sends a signal to the process group that the process leads. It does nothing once the process has ended. The
// first process of a pid namespace ends by SIGKILL where the signal would have ended another one.
func (h *Handle) SignalGroup(signal syscall.Signal) error {
	for look := 0; look < judgeLooks; look++ {
		found := judge(h.pid, signal)
		if found == needsKill {
			return h.Signal(unix.SIGKILL)
		}
		if found == delivered && look <= judgeSend || found == undecided && look == judgeSend {
			if err := signalGroup(h.fd, h.pid, signal); err != nil {
				return err
			}
		}
		if found == delivered {
			return nil
		}
		time.Sleep(judgePause)
	}
	return nil
}

// Exit tells whether the process has ended, and with what wait status where that can be known. An answer with ended
// but not known may become known when the process has been reaped by its parent.
func (h *Handle) Exit() (status int, known, ended bool) {
	if !readable(h.fd) {
		return 0, false, false
	}
	status, known, final := reapedStatus(h.fd)
	if !known {
		status, known = zombieStatus(h.pid, h.ticks)
	}
	if !known && !final {
		// It may have been reaped between the two questions.
		status, known, _ = reapedStatus(h.fd)
	}
	return status, known, true
}

// Close gives the handle back.
func (h *Handle) Close() { unix.Close(h.fd) }

// signalGroup sends to a group by the pidfd of its leader. Before Linux 6.9 that takes a number: the pidfd is asked
// last, so that the leader is there, at least as a zombie, a moment before.
func signalGroup(fd, pid int, signal syscall.Signal) error {
	err := unix.PidfdSendSignal(fd, unix.Signal(signal), nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if errors.Is(err, unix.EINVAL) {
		if err = unix.PidfdSendSignal(fd, 0, nil, 0); err == nil || errors.Is(err, unix.EPERM) {
			err = unix.Kill(-pid, unix.Signal(signal))
		}
	}
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// readable reports whether the process of the pidfd has ended.
func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err == nil && n > 0
	}
}

// reapedStatus asks the kernel how the process of the pidfd ended. final is false when a later question may get a
// better answer: the process is not reaped yet.
func reapedStatus(fd int) (status int, known, final bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil {
		// ENOTTY: older than 6.13. ESRCH: reaped, and nothing was kept.
		return 0, false, true
	}
	if info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false, false
	}
	return int(info.Exit_code), true, true
}

// zombieStatus reads the status of a process that its parent has not reaped. The kernel shows 0 to those who may not
// know it, so that 0 is not believed.
func zombieStatus(pid int, ticks uint64) (status int, known bool) {
	p, err := readProc(pid)
	if err != nil || p.ticks != ticks || !p.zombie() || p.exit == 0 {
		return 0, false
	}
	return p.exit, true
}

// childStatus asks for the status of our own child without reaping it, so that the status can be on disk first.
func childStatus(fd int) (status int, ended bool, err error) {
	code, status, _, err := waitid(unix.P_PIDFD, fd, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG)
	if err != nil || code == 0 {
		return 0, false, err
	}
	return waitStatus(code, status), true, nil
}

// waitid returns the code (one of CLD_*), status and pid of a child that changed; code is 0 when none did.
func waitid(idType, id, options int) (code, status, pid int, err error) {
	// The fields of struct siginfo that matter to SIGCHLD are not named by the unix package: after three ints (and
	// padding to the size of a pointer) come pid, uid and status.
	var info unix.Siginfo
	for {
		err = unix.Waitid(idType, id, &info, options, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, 0, 0, os.NewSyscallError("waitid", err)
	}
	ints := (*[16]int32)(unsafe.Pointer(&info))
	at := 3
	if unsafe.Sizeof(uintptr(0)) == 8 {
		at = 4
	}
	pid, status = int(ints[at]), int(ints[at+2])
	if pid == 0 {
		return 0, 0, 0, nil
	}
	return int(info.Code), status, pid, nil
}

// The codes of SIGCHLD, from <signal.h>.
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// waitStatus puts together what wait4 would have told.
func waitStatus(code, status int) int {
	switch code {
	case cldExited:
		return status & 0xff << 8
	case cldDumped:
		return status&0x7f | 0x80
	default:
		return status & 0x7f
	}
}

// reap takes our ended child out of the process table.
func reap(fd int) error {
	_, _, _, err := waitid(unix.P_PIDFD, fd, unix.WEXITED|unix.WNOHANG)
	if errors.Is(err, unix.ECHILD) {
		return nil
	}
	return err
}

// checkKernel refuses to work where a process can't be held on to.
func checkKernel() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("cannot open a pidfd (Linux 5.4 or later is needed): %w", err)
	}
	return unix.Close(fd)
}
