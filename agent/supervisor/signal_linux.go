package supervisor

import (
	"bytes"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The first process of a pid namespace ignores what it has no handler for, though outside of a namespace most signals
// would end it. Then SIGKILL has to, in the name of the signal.

// verdict is what becomes of a signal.
type verdict int

const (
	delivered verdict = iota // as to any process
	// needsKill: the process ignores it only because it is the first of its namespace.
	needsKill
	// undecided: it is blocked. That may be for a moment, as shells do around a fork, or because it is waited for.
	undecided
)

// judge looks what becomes of a signal to the process.
func judge(pid int, signal syscall.Signal) verdict {
	if !ends(signal) {
		return delivered
	}
	s, err := readSignals(pid)
	bit := uint64(1) << (uint(signal) - 1)
	switch {
	case err != nil, !s.first, s.handled&bit != 0:
		return delivered
	case s.blocked&bit != 0:
		return undecided
	}
	return needsKill
}

// judgeLooks is how often a process that blocks a signal is looked at, judgePause how long lies in between, and judgeSend
// at which look it is sent all the same.
const (
	judgeSend  = 4
	judgeLooks = 20
	judgePause = 5 * time.Millisecond
)

// ends tells whether a signal ends a process that does nothing about it, other than SIGKILL, which always does.
func ends(signal syscall.Signal) bool {
	switch signal {
	case unix.SIGKILL, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT, unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH:
		return false
	}
	return true
}

// signals is what a process does about signals.
type signals struct {
	// first is set for the first process of a pid namespace other than ours.
	first bool
	// handled has a bit for each signal that it catches or ignores, blocked for each that it blocks.
	handled, blocked uint64
}

// readSignals reads /proc/<pid>/status, see proc(5).
func readSignals(pid int) (signals, error) {
	text, err := readFile("/proc/"+strconv.Itoa(pid)+"/status", make([]byte, 2048))
	if err != nil {
		return signals{}, err
	}
	var s signals
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		switch string(name) {
		case "NSpid":
			pids := bytes.Fields(value)
			s.first = len(pids) > 1 && string(pids[len(pids)-1]) == "1"
		case "SigBlk", "SigIgn", "SigCgt":
			set, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
			if err != nil {
				return signals{}, err
			}
			if string(name) == "SigBlk" {
				s.blocked = set
			} else {
				s.handled |= set
			}
		}
	}
	return s, nil
}
