package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handle answers one request.
func (s *server) handle(ctx context.Context, c *conn, req *request) response {
	var r response
	var err error
	switch req.Op {
	case opHello:
		r.Hello = s.hello()
	case opStart:
		r.Container, err = s.start(ctx, req)
	case opSignal:
		err = s.signal(req)
	case opKill:
		r.Container, err = s.kill(ctx, req)
	case opRemove:
		err = s.remove(req.ID)
	case opAmend:
		r.Container, err = s.amend(req)
	case opWatch:
		r.Containers = s.watch(c)
	case opUpgrade:
		err = s.upgrade(req.Argv)
	case opStop:
		err = s.end()
	default:
		err = refuse("invalid", "unknown operation %q", req.Op)
	}
	if err != nil {
		var refusal *Error
		if !errors.As(err, &refusal) {
			refusal = refuse("internal", "%v", err)
		}
		r.Error = refusal
	}
	return r
}

func (s *server) hello() *Hello {
	s.mu.Lock()
	defer s.mu.Unlock()
	running := s.runningLocked()
	return &Hello{
		Build:    s.build,
		Protocol: protocolVersion, PID: os.Getpid(), Generation: s.generation,
		Running: running, Ended: len(s.containers) - running,
	}
}

// start starts a container, or returns the one that has the id already.
func (s *server) start(ctx context.Context, req *request) (*Container, error) {
	if req.Start == nil {
		return nil, refuse("invalid", "start without a spec")
	}
	spec := req.Start.spec(req.ID)
	if err := spec.validate(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil, errEnding
	}
	if c, ok := s.containers[spec.ID]; ok {
		started := c.started
		s.mu.Unlock()
		return s.joinStart(ctx, c, started)
	}
	c := &container{pidfd: -1, child: true, started: make(chan struct{})}
	c.record = record{Container: Container{ID: spec.ID, Cgroups: spec.Cgroups, Note: spec.Note}, Boot: s.boot}
	s.containers[spec.ID] = c
	s.starting++
	s.watchIdle()
	intent := c.record
	s.mu.Unlock()

	got, err := s.launch(c, &spec, intent)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		c.failed = err
		delete(s.containers, spec.ID)
		s.starting--
		s.watchIdle()
	}
	close(c.started)
	c.started = nil
	if err != nil {
		return nil, err
	}
	return &got, nil
}

var errEnding = refuse("internal", "supervisor is about to end")

// joinStart waits for the start of c that somebody else asked for.
func (s *server) joinStart(ctx context.Context, c *container, started chan struct{}) (*Container, error) {
	if started != nil {
		select {
		case <-started:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.failed != nil {
		return nil, c.failed
	}
	got := c.Container
	return &got, nil
}

// launch does the work of a start. The intent comes first, so that a supervisor that dies halfway leaves a trace for
// the next one to follow; neither write is synced, see the package comment.
func (s *server) launch(c *container, spec *Spec, intent record) (Container, error) {
	s.launches.RLock()
	defer s.launches.RUnlock()
	intent.Launcher = spec.LaunchWithin > 0
	if !roomForMore() {
		return Container{}, refuse("cannot_run", "cannot run %q: %v", spec.Path, unix.EAGAIN)
	}
	if err := s.records.write(&intent, false); err != nil {
		return Container{}, refuse("internal", "cannot write the record of container %q: %v", spec.ID, err)
	}
	if intent.Launcher {
		return s.launchBy(c, spec, intent)
	}
	s.spawning.RLock()
	defer s.spawning.RUnlock()
	p, err := s.spawner.spawn(spec)
	if err != nil {
		_ = s.records.remove(spec.ID)
		return Container{}, err
	}
	full := intent
	full.PID, full.Ticks, full.Started = p.pid, p.ticks, time.Now()
	err = s.records.write(&full, false)
	if err != nil {
		err = fmt.Errorf("cannot write the record of container %q: %w", spec.ID, err)
	} else if err = s.hold(c, &full, p.pidfd); err == nil {
		return full.Container, nil
	}
	_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	_, _ = killOnce(&full.Container, s.spawner.mark, nil, make(struck))
	abandon(p.pid)
	unix.Close(p.pidfd)
	_ = s.records.remove(spec.ID)
	return Container{}, err
}

// hold gives the process of c to the reaper.
func (s *server) hold(c *container, r *record, pidfd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pidfd)}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, pidfd, &event); err != nil {
		return fmt.Errorf("cannot watch the process of container %q: %w", r.ID, err)
	}
	c.record, c.pidfd = *r, pidfd
	s.byPidfd[pidfd] = c
	s.byPID[c.PID] = c
	if c.started != nil {
		s.starting--
	}
	return nil
}

// find returns the container, and a copy of what is known of it. Called without mu.
func (s *server) find(id string) (*container, Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if !ok {
		return nil, Container{}, refuse("unknown", "unknown container %q", id)
	}
	return c, c.Container, nil
}

// signal reaches the first process group. Under mu the pidfd can't be closed, and a child not be reaped, meanwhile.
func (s *server) signal(req *request) error {
	if req.Signal <= 0 || req.Signal > 64 {
		return refuse("invalid", "signal %d is not between 1 and 64", req.Signal)
	}
	signal := syscall.Signal(req.Signal)
	for look := 0; look < judgeLooks; look++ {
		if look > 0 {
			time.Sleep(judgePause)
		}
		if again, err := s.signalOnce(req.ID, signal, look); !again || err != nil {
			return err
		}
	}
	return nil
}

// signalOnce sends a signal, or SIGKILL where that has to do; not at once while it is blocked. It reports whether to look
// again.
func (s *server) signalOnce(id string, signal syscall.Signal, look int) (again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if !ok {
		return false, refuse("unknown", "unknown container %q", id)
	}
	if c.Exit != nil || c.pidfd < 0 {
		return false, nil
	}
	// All in its namespace go with it: whoever got the signal before could make it end in another way.
	found := judge(c.PID, signal)
	if found == delivered && look <= judgeSend || found == undecided && look == judgeSend {
		if err := signalGroup(c.pidfd, c.PID, signal); err != nil {
			return false, fmt.Errorf("cannot signal container %q: %w", id, err)
		}
	}
	switch found {
	case undecided:
		return true, nil
	case needsKill:
		if unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0) == nil {
			c.meant = signal
		}
	}
	return false, nil
}

// kill ends all processes of a container and waits for its exit to be on disk.
func (s *server) kill(ctx context.Context, req *request) (*Container, error) {
	limit := time.Duration(req.Millis) * time.Millisecond
	if limit <= 0 || limit > time.Hour {
		return nil, refuse("invalid", "a kill takes between 1 ms and an hour, not %d ms", req.Millis)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, _, err := s.find(req.ID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	started := c.started
	s.mu.Unlock()
	got, err := s.joinStart(ctx, c, started)
	if err != nil {
		return nil, refuse("timeout", "container %q has not started yet", req.ID)
	}
	s.mu.Lock()
	ended := c.endedLocked()
	if c.Exit == nil && c.pidfd >= 0 {
		_ = signalGroup(c.pidfd, c.PID, syscall.SIGKILL)
	}
	s.mu.Unlock()
	// The end of the first process has the rest swept away. Only when it is late, or something is left, do we look
	// ourselves: that is dear without a cgroup.
	select {
	case <-ended:
	case <-ctx.Done():
	case <-time.After(50 * time.Millisecond):
	}
	if err := s.killRest(ctx, c, got); err != nil {
		return nil, err
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return nil, refuse("timeout", "container %q is dead, but its exit is not on disk yet", req.ID)
	}
	// What the sweep has killed meanwhile may be dying still.
	if err := s.killRest(ctx, c, got); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := c.Container
	return &last, nil
}

// killRest ends all processes of a container, unless its end has shown that none is left.
func (s *server) killRest(ctx context.Context, c *container, got *Container) error {
	s.mu.Lock()
	swept, sessions := c.swept, s.sessionsLocked(c.PID)
	before := make(struck)
	maps.Copy(before, c.struck)
	s.mu.Unlock()
	if swept {
		return nil
	}
	err := killUntilGone(ctx, got, s.spawner.mark, sessions, before)
	if errors.Is(err, ErrTimeout) {
		return refuse("timeout", "%v", err)
	}
	return err
}

// endedLocked returns a channel that is closed when the exit of c is told. Called with mu held.
func (c *container) endedLocked() chan struct{} {
	if c.ended == nil {
		c.ended = make(chan struct{})
		if c.Exit != nil {
			close(c.ended)
		}
	}
	return c.ended
}

// sessionsLocked lists the first processes that run, other than pid. Called with mu held.
func (s *server) sessionsLocked(pid int) map[int]bool {
	sessions := make(map[int]bool, len(s.byPID))
	for other := range s.byPID {
		if other != pid {
			sessions[other] = true
		}
	}
	return sessions
}

// remove forgets an ended container; one that is not there is forgotten already.
func (s *server) remove(id string) error {
	s.mu.Lock()
	c, ok := s.containers[id]
	if ok && c.running() {
		s.mu.Unlock()
		return refuse("running", "container %q is running", id)
	}
	s.mu.Unlock()
	if err := validateID(id); err != nil {
		return err
	}
	if !ok {
		return nil
	}
	// The file goes first: were it the other way round, a start of the same id in between would lose its record.
	if err := s.records.remove(id); err != nil {
		return fmt.Errorf("cannot remove the record of container %q: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[id] == c {
		delete(s.containers, id)
	}
	return nil
}

// amend completes the exit of a container whose status we could not learn.
func (s *server) amend(req *request) (*Container, error) {
	if req.Exit == nil || !req.Exit.Known {
		return nil, refuse("invalid", "amend without a known exit")
	}
	c, got, err := s.find(req.ID)
	if err != nil {
		return nil, err
	}
	if got.Exit == nil {
		return nil, refuse("running", "container %q is running", req.ID)
	}
	if got.Exit.Known {
		return &got, nil
	}
	exit := *req.Exit
	s.mu.Lock()
	r := c.record
	s.mu.Unlock()
	r.Exit = &exit
	if err := s.persist(&r); err != nil {
		return nil, fmt.Errorf("cannot write the record of container %q: %w", req.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Exit = &exit
	got = c.Container
	return &got, nil
}

// persist writes a record for good.
func (s *server) persist(r *record) error {
	if err := s.records.write(r, true); err != nil {
		return err
	}
	return s.records.syncDir()
}

// watch makes c hear of every exit from now on, and returns all containers as of now; those that are being started have
// no PID.
func (s *server) watch(c *conn) []Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.watching = true
	all := make([]Container, 0, len(s.containers))
	for _, id := range slices.Sorted(maps.Keys(s.containers)) {
		all = append(all, s.containers[id].Container)
	}
	return all
}

// end ends the supervisor when nothing runs.
func (s *server) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.runningLocked(); n > 0 {
		return refuse("running", "%d containers are running", n)
	}
	s.log.Info("supervisor ends, as told")
	s.endLocked()
	return nil
}
