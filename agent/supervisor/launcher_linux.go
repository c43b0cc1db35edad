package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A launcher speaks JSON, a line each, over a socket that it finds as descriptor 3, and is answered by one line.

const (
	launcherFD = 3
	// maxReport bounds a line.
	maxReport = 64 << 10
	goWord    = "go\n"
)

type report struct {
	PID   int    `json:"pid,omitempty"`
	Error string `json:"error,omitempty"`
}

// Launcher is what a program that was started as a launcher (see [Spec.LaunchWithin]) talks to the supervisor with. It
// starts the first process of the container as its own child, in the cgroups of the Spec, and so that it does not run
// yet; tells it by Started; lets it run; and ends with 0, without having waited for it: the supervisor, which is the
// reaper of its orphans, becomes the parent. A launcher that can't do that tells why by Failed, leaves nothing, and ends
// with another code. So it does when Started fails: nobody knows of the process then.
type Launcher struct {
	conn net.Conn
}

// OpenLauncher finds the supervisor that started this program.
func OpenLauncher() (*Launcher, error) {
	f := os.NewFile(launcherFD, "supervisor")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("not started by a supervisor: %w", err)
	}
	return &Launcher{conn: conn}, nil
}

// Started tells the pid of the first process and returns once the supervisor has written it down.
func (l *Launcher) Started(pid int) error {
	if err := l.send(report{PID: pid}); err != nil {
		return err
	}
	var answer [len(goWord)]byte
	if _, err := io.ReadFull(l.conn, answer[:]); err != nil {
		return fmt.Errorf("supervisor does not want the container: %w", err)
	}
	return nil
}

// Failed tells why the container could not be started, in a sentence for people.
func (l *Launcher) Failed(err error) { _ = l.send(report{Error: err.Error()}) }

func (l *Launcher) send(r report) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = l.conn.Write(append(line, '\n'))
	return err
}

// launchBy has a launcher start the first process of c.
func (s *server) launchBy(c *container, spec *Spec, intent record) (Container, error) {
	deadline := time.Now().Add(spec.LaunchWithin)
	ours, theirs, err := socketPair()
	if err != nil {
		_ = s.records.remove(spec.ID)
		return Container{}, refuse("cannot_run", "cannot run %q: %v", spec.Path, err)
	}
	defer ours.Close()
	_ = ours.SetDeadline(deadline)
	s.spawning.RLock()
	launcher, err := s.spawner.spawn(spec, theirs)
	if err == nil {
		s.reserve(launcher.pid)
	}
	s.spawning.RUnlock()
	unix.Close(theirs)
	if err != nil {
		_ = s.records.remove(spec.ID)
		return Container{}, err
	}
	defer unix.Close(launcher.pidfd)
	first, got, err := s.converse(c, spec, intent, launcher, ours, deadline)
	// The launcher, which has ended if all is well, and what it leaves are orphans from here on.
	defer s.release(launcher.pid, first.pid)
	if err == nil {
		_ = reap(launcher.pidfd)
		return got, nil
	}
	if first.pidfd > 0 {
		unix.Close(first.pidfd)
	}
	// It was not reaped, so that these are its numbers still.
	_ = unix.Kill(-launcher.pid, unix.SIGKILL)
	_ = unix.PidfdSendSignal(launcher.pidfd, unix.SIGKILL, nil, 0)
	if _, awaitErr := await(launcher.pidfd, time.Now().Add(undoLimit)); awaitErr != nil {
		s.log.Error("a launcher does not end", "container_id", spec.ID, "err", awaitErr)
	}
	_ = reap(launcher.pidfd)
	s.undo(&intent.Container, true)
	return Container{}, err
}

// lastWords is how long a launcher has to say why it failed.
const lastWords = 2 * time.Second

// converse follows the launcher to its end. It returns what it has got hold of, even when it fails.
func (s *server) converse(c *container, spec *Spec, intent record, launcher spawned, conn net.Conn, deadline time.Time) (spawned, Container, error) {
	lines := bufio.NewReader(io.LimitReader(conn, maxReport))
	fail := func(err error) error {
		// Not of all failures the launcher knows: one that waits for us says no more.
		if soon := time.Now().Add(lastWords); soon.Before(deadline) {
			_ = conn.SetReadDeadline(soon)
		}
		return launcherFailed(spec, err, lines)
	}
	r, err := readReport(lines)
	if err != nil {
		return spawned{}, Container{}, fail(err)
	}
	first, err := s.identify(spec, launcher.pid, r.PID)
	if err != nil {
		return first, Container{}, fail(err)
	}
	full := intent
	full.Launcher = false
	full.PID, full.Ticks, full.Started = first.pid, first.ticks, time.Now()
	if err := s.records.write(&full, false); err != nil {
		return first, Container{}, fmt.Errorf("cannot write the record of container %q: %w", spec.ID, err)
	}
	if _, err := io.WriteString(conn, goWord); err != nil {
		return first, Container{}, fail(err)
	}
	status, err := await(launcher.pidfd, deadline)
	if err != nil {
		return first, Container{}, fail(err)
	}
	if status != 0 {
		return first, Container{}, fail(fmt.Errorf("launcher ended with wait status %d", status))
	}
	if _, _, err := childStatus(first.pidfd); err != nil {
		return first, Container{}, fail(fmt.Errorf("process %d is not ours after its launcher ended: %w", first.pid, err))
	}
	if err := s.hold(c, &full, first.pidfd); err != nil {
		return first, Container{}, err
	}
	return first, full.Container, nil
}

// identify takes hold of what a launcher has started, after a look whether it is what it should be.
func (s *server) identify(spec *Spec, launcher, pid int) (spawned, error) {
	p, err := readProc(pid)
	if err != nil {
		return spawned{}, fmt.Errorf("launcher reported process %d: %w", pid, err)
	}
	if p.ppid != launcher {
		return spawned{}, fmt.Errorf("launcher reported process %d, which is not its child", pid)
	}
	// It cannot be reaped but by its parent, and that waits for us.
	s.reserve(pid)
	first := spawned{pid: pid, ticks: p.ticks}
	if first.pidfd, err = openPidfd(pid, p.ticks); err != nil {
		return first, err
	}
	if dir := trackingCgroup(spec.Cgroups); dir != "" {
		if pids, err := cgroupPIDs(dir); err != nil || !slices.Contains(pids, pid) {
			return first, errors.Join(fmt.Errorf("process %d is not in its cgroup %q", pid, dir), err)
		}
	}
	return first, nil
}

// launcherFailed makes a sentence of why a launch failed; the launcher's own comes first.
func launcherFailed(spec *Spec, err error, lines *bufio.Reader) error {
	var told *launcherError
	if !errors.As(err, &told) && !errors.Is(err, os.ErrDeadlineExceeded) {
		if _, last := readReport(lines); errors.As(last, &told) {
			err = told
		}
	}
	switch {
	case told != nil:
		return refuse("cannot_run", "%s", told.sentence)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse("cannot_run", "cannot start the container: its launcher took longer than %v", spec.LaunchWithin)
	case errors.Is(err, io.EOF):
		return refuse("cannot_run", "cannot start the container: its launcher ended without a word")
	}
	return refuse("cannot_run", "cannot start the container: %v", err)
}

// launcherError is what a launcher said.
type launcherError struct{ sentence string }

func (e *launcherError) Error() string { return e.sentence }

func readReport(lines *bufio.Reader) (report, error) {
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return report{}, err
	}
	var r report
	if err := json.Unmarshal(line, &r); err != nil {
		return report{}, fmt.Errorf("launcher does not speak our language: %w", err)
	}
	if r.Error != "" {
		return report{}, &launcherError{r.Error}
	}
	if r.PID <= 0 {
		return report{}, errors.New("launcher reported no process")
	}
	return r, nil
}

// await waits for the end of our child, and leaves it to be reaped.
func await(pidfd int, deadline time.Time) (status int, err error) {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		n, err := unix.Poll(poll, int(left/time.Millisecond)+1)
		if err != nil && err != unix.EINTR {
			return 0, os.NewSyscallError("poll", err)
		}
		if n > 0 {
			break
		}
	}
	status, _, err = childStatus(pidfd)
	return status, err
}

func (s *server) reserve(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved[pid] = true
}

// release gives up reservations, and has the reaper look for orphans that they hid.
func (s *server) release(pids ...int) {
	s.mu.Lock()
	for _, pid := range pids {
		delete(s.reserved, pid)
	}
	s.mu.Unlock()
	s.wake()
}

// undoLimit is how long the processes of a launch that failed may take to die.
const undoLimit = 5 * time.Second

// undo ends all that a launch has left, if it was since the machine is up, and forgets it.
func (s *server) undo(c *Container, here bool) {
	ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
	defer cancel()
	before := make(struck)
	found := false // by the last look
	for pause := time.Millisecond; here; pause = min(2*pause, 100*time.Millisecond) {
		alive := s.killMarked(c.ID)
		if trackingCgroup(c.Cgroups) != "" {
			n, err := killOnce(c, s.spawner.mark, nil, before)
			if err != nil {
				s.log.Warn("cannot kill what a launch left", "container_id", c.ID, "err", err)
			}
			alive += n
		}
		if alive == 0 && !found {
			break
		}
		// A child of one that was killed shows no mark while it becomes another program: it is looked for once more.
		if found = alive > 0; !found {
			pause = max(pause, 10*time.Millisecond)
		}
		if alive > 0 && ctx.Err() != nil {
			s.log.Error("what a launch left does not end", "container_id", c.ID, "processes", alive)
			break
		}
		time.Sleep(pause)
	}
	if err := s.records.remove(c.ID); err != nil {
		s.log.Error("cannot remove a record", "container_id", c.ID, "err", err)
	}
}

// killMarked kills the processes that have the mark of a container in their environment, wherever they are, and returns
// how many they were.
func (s *server) killMarked(id string) int {
	procs, err := listProcs()
	if err != nil {
		return 0
	}
	n := 0
	for _, p := range procs {
		if p.zombie() || p.pid == os.Getpid() || !hasMark(p.pid, s.spawner.mark, id) {
			continue
		}
		n++
		if fd, err := openPidfd(p.pid, p.ticks); err == nil {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			unix.Close(fd)
		}
	}
	return n
}

// socketPair makes a connection of which one end is for a child.
func socketPair() (net.Conn, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[0]), "launcher")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		unix.Close(fds[1])
		return nil, -1, err
	}
	return conn, fds[1], nil
}
