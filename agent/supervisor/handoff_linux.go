package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// handedPidfd is a pidfd that outlives an exec of ours.
type handedPidfd struct {
	FD    int  `json:"fd"`
	Child bool `json:"child"`
}

// handoff is what a supervisor hands to the program that it becomes. It travels as JSON in a file without a name, whose
// descriptor the environment tells. Fields are added, never given another meaning.
type handoff struct {
	Listener   int                    `json:"listener"`
	Lock       int                    `json:"lock"`
	Generation int                    `json:"generation"`
	Pidfds     map[string]handedPidfd `json:"pidfds"`
}

const handoffEnv = "STARLING_SUPERVISOR_HANDOFF"

var errNoHandoff = errors.New("nothing was handed over")

// upgrade re-executes the process as argv with our own flags. It returns only when that failed, and then everything is
// as before.
func (s *server) upgrade(argv []string) error {
	if len(argv) == 0 {
		return refuse("invalid", "upgrade without a command")
	}
	if err := unix.Access(argv[0], unix.X_OK); err != nil {
		return refuse("cannot_run", "cannot run %q: %v", argv[0], err)
	}
	// No start is under way from here on, and none begins: a launcher may be waiting for us.
	s.launches.Lock()
	defer s.launches.Unlock()
	// The reaper comes next: it takes the lock of the forks now and then.
	p := pauseRequest{rested: make(chan struct{}), resume: make(chan struct{})}
	select {
	case s.pause <- p:
	default:
		return refuse("internal", "an upgrade is under way")
	}
	defer close(p.resume)
	s.wake()
	select {
	case <-p.rested:
	case <-s.stop:
		return errEnding
	case <-time.After(upgradeWait):
		return refuse("timeout", "exits are still being written")
	}
	s.spawning.Lock()
	defer s.spawning.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.become(argv)
}

// upgradeWait is how long a re-execution waits for the disk.
const upgradeWait = 30 * time.Second

// become hands over and execs. Called with the reaper at rest, no fork under way and mu held.
func (s *server) become(argv []string) error {
	raw, err := s.listener.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot hand over the listener: %w", err)
	}
	listener := -1
	if err := raw.Control(func(fd uintptr) { listener = int(fd) }); err != nil {
		return fmt.Errorf("cannot hand over the listener: %w", err)
	}
	h := handoff{
		Listener: listener, Lock: int(s.lock.Fd()), Generation: s.generation + 1,
		Pidfds: make(map[string]handedPidfd, len(s.byPidfd)),
	}
	for fd, c := range s.byPidfd {
		h.Pidfds[c.ID] = handedPidfd{FD: fd, Child: c.child}
	}
	memo, err := h.file()
	if err != nil {
		return fmt.Errorf("cannot hand over: %w", err)
	}
	defer memo.Close()
	keep := []int{h.Listener, h.Lock, int(memo.Fd())}
	for fd := range s.byPidfd {
		keep = append(keep, fd)
	}
	for _, fd := range keep {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	s.log.Info("supervisor re-executes itself", "program", argv[0], "running", len(s.byPidfd))
	env := append(withoutEnv(os.Environ(), handoffEnv), fmt.Sprintf("%s=%d", handoffEnv, memo.Fd()))
	err = unix.Exec(argv[0], append(argv[:len(argv):len(argv)], s.flags()...), env)
	for _, fd := range keep {
		unix.CloseOnExec(fd)
	}
	return refuse("cannot_run", "cannot run %q: %v", argv[0], err)
}

// file writes the handoff to a file without a name, ready to be read.
func (h *handoff) file() (*os.File, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("starling-handoff", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "handoff")
	if _, err = f.Write(text); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// takeHandoff reads what our former self left. errNoHandoff means that there was none.
func takeHandoff() (*handoff, error) {
	value, ok := os.LookupEnv(handoffEnv)
	if !ok {
		return nil, errNoHandoff
	}
	os.Unsetenv(handoffEnv)
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q is not a file descriptor", handoffEnv, value)
	}
	f := os.NewFile(uintptr(fd), "handoff")
	defer f.Close()
	h := new(handoff)
	if err := json.NewDecoder(f).Decode(h); err != nil {
		return nil, fmt.Errorf("cannot read what was handed over: %w", err)
	}
	return h, nil
}

func withoutEnv(env []string, name string) []string {
	var kept []string
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			kept = append(kept, v)
		}
	}
	return kept
}
