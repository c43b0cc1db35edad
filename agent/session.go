package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/master/mesos"
)

// ErrInputTaken is returned for a second attachment to the input of a container.
var ErrInputTaken = errors.New("another client is attached to the input of the container")

// sessionsMax bounds the sessions that are open, keptSessions those that have ended and are kept for whoever asks how.
const (
	sessionsMax  = 64
	keptSessions = 64
)

// Session is a process that a client talks to: one that runs in a container for the sake of it, or the terminal of a container.
type Session struct {
	containerizer.Session

	agent *Agent
	// name is that of the nested container that stands for the process; empty for the terminal of another container.
	name string
	// cancel ends the context that the session was opened with.
	cancel context.CancelFunc
	// ended is closed once the process has ended, or the terminal is gone.
	ended  chan struct{}
	finish sync.Once
}

// Close implements containerizer.Session.
func (s *Session) Close() error {
	defer s.cancel()
	return s.Session.Close()
}

// openTimeout bounds the start of the process of a session, and the connection to a terminal.
const openTimeout = 30 * time.Second

// open opens a session of the containerizer. Its context lives as long as the session, so that it does not matter whether that
// bounds the start alone.
func (s *Session) open(start func(context.Context) (containerizer.Session, error)) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	impatience := time.AfterFunc(openTimeout, cancel)
	s.Session, err = start(ctx)
	if !impatience.Stop() && err == nil {
		// The last moment was too late: whoever is bound by the context has ended already.
		err = errors.Join(context.DeadlineExceeded, s.Session.Close())
	}
	if err != nil {
		cancel()
	}
	return err
}

// OpenSession starts a process in the container that an id is nested in, under that id. The caller pumps its outputs and then
// calls Finish; it closes the session when whoever asked for it has left.
func (a *Agent) OpenSession(ctx context.Context, req ContainerRequest) (*Session, error) {
	name, err := chain(req.ID)
	if err != nil {
		return nil, err
	}
	process, err := sessionProcess(req, a.cfg.SwitchUser)
	if err != nil {
		return nil, err
	}
	s := &Session{agent: a, name: name, ended: make(chan struct{})}
	var parent host
	var refused error
	if err := a.do(ctx, func() { parent, refused = a.enterSession(s, req, process.User) }); err != nil || refused != nil {
		return nil, errors.Join(err, refused)
	}
	// The sandbox of the session is its parent's: there is nothing of its own to keep.
	err = s.open(func(ctx context.Context) (containerizer.Session, error) {
		return a.cfg.Containerizer.Exec(ctx, parent.name, process)
	})
	a.post(func() { a.startedSession(s, err) })
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, containerizer.ErrUnknownContainer):
		return nil, ErrContainerUnknown
	}
	return nil, refusef("failed to launch container: %v", err)
}

// sessionProcess is what a session runs. What it cannot have, being a process in a container that is there, is refused.
func sessionProcess(req ContainerRequest, switchUser bool) (containerizer.Process, error) {
	if req.ID.GetParent() == nil {
		return containerizer.Process{}, refusef("a session needs a container to be nested in: 'container_id.parent' must be set")
	}
	if c := req.Container; c != nil {
		other := proto.CloneOf(c)
		other.Type, other.TtyInfo = nil, nil
		if c.GetType() != mesos.ContainerInfo_MESOS || proto.Size(other) > 0 {
			return containerizer.Process{}, refusef("a session runs in the container that it is nested in, as it is: of 'container' only 'tty_info' can be given")
		}
	}
	if len(req.Command.GetUris()) > 0 {
		return containerizer.Process{}, refusef("sessions fetch no URIs")
	}
	if err := executor.Check(&mesos.TaskInfo{Command: req.Command}); err != nil {
		return containerizer.Process{}, refusef("%s", err)
	}
	p := containerizer.Process{Terminal: req.Container.GetTtyInfo() != nil}
	p.Path, p.Args = commandLine(req.Command)
	for _, v := range req.Command.GetEnvironment().GetVariables() {
		p.Env = append(p.Env, v.GetName()+"="+v.GetValue())
	}
	if switchUser {
		p.User = req.Command.GetUser()
	}
	if size := req.Container.GetTtyInfo().GetWindowSize(); size != nil {
		p.Columns, p.Rows = windowSize(size)
	}
	return p, nil
}

// windowSize is a size as terminals take it.
func windowSize(size *mesos.TTYInfo_WindowSize) (columns, rows uint16) {
	return uint16(min(size.GetColumns(), 1<<16-1)), uint16(min(size.GetRows(), 1<<16-1))
}

// enterSession enters the nested container that stands for a session.
func (a *Agent) enterSession(s *Session, req ContainerRequest, user string) (host, error) {
	open, oldest := 0, (*nested)(nil)
	kept := 0
	for _, n := range a.nested {
		switch {
		case n.session == nil:
		case n.exit == nil:
			open++
		default:
			if kept++; oldest == nil || n.sequence < oldest.sequence {
				oldest = n
			}
		}
	}
	if open >= sessionsMax {
		return host{}, fmt.Errorf("%w sessions are open: %d", ErrTooMany, sessionsMax)
	}
	if kept >= keptSessions {
		a.forgetNested(oldest)
	}
	parent, err := a.admitNested(s.name)
	if err != nil {
		return host{}, err
	}
	a.nestedSequence++
	a.nested[s.name] = &nested{
		sequence: a.nestedSequence, id: proto.CloneOf(req.ID), name: s.name, sandbox: parent.sandbox, session: s, starting: true,
		terminal: req.Container.GetTtyInfo() != nil, user: cmp.Or(user, parent.user),
	}
	return parent, nil
}

func (a *Agent) startedSession(s *Session, err error) {
	n := a.nested[s.name]
	if n == nil || n.session != s {
		return
	}
	n.starting, n.started = false, a.cfg.Now()
	switch {
	case err != nil:
		a.counters.LaunchErrors++
		a.forgetNested(n)
	case n.early != nil:
		a.endedNested(n, *n.early)
	case n.orphaned:
		a.destroyNested(n)
	}
}

// Finish waits for the process, whose outputs have been read, and notes how it ended for those who wait.
func (s *Session) Finish(ctx context.Context) {
	exit, err := s.Wait(ctx)
	if err != nil {
		exit = containerizer.Exit{At: s.agent.cfg.Now()}
	}
	s.over(exit)
	_ = s.Close() // it has ended
}

// over notes the end of a process once.
func (s *Session) over(exit containerizer.Exit) {
	s.finish.Do(func() {
		close(s.ended)
		if s.name == "" {
			return
		}
		exit.ID = s.name
		s.agent.post(func() {
			if n := s.agent.nested[s.name]; n != nil && n.session == s {
				s.agent.exitedNested(exit)
			}
		})
	})
}

// Ended is closed once nothing can be written to the session any more.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// AttachTerminal connects to the terminal of a container. The error is containerizer.ErrNoTerminal or ErrUnsupported for one
// that has none to offer.
func (a *Agent) AttachTerminal(name string) (*Session, error) {
	s := &Session{agent: a, ended: make(chan struct{})}
	err := s.open(func(ctx context.Context) (containerizer.Session, error) { return a.cfg.Containerizer.Attach(ctx, name) })
	switch {
	case errors.Is(err, containerizer.ErrUnknownContainer):
		return nil, ErrContainerUnknown
	case err != nil:
		return nil, err
	}
	return s, nil
}

// AttachInput takes the input of a container: that of a session, or that of a terminal. There is one such attachment at a time;
// the caller releases it.
func (a *Agent) AttachInput(ctx context.Context, id *mesos.ContainerID) (session *Session, release func(), err error) {
	name, err := chain(id)
	if err != nil {
		return nil, nil, err
	}
	var s *Session
	var refused error
	if err := a.do(ctx, func() {
		h, ok := a.find(name)
		n := a.nested[name]
		switch {
		case !ok || !h.running:
			refused = ErrContainerUnknown
		case a.inputs[name]:
			refused = ErrInputTaken
		default:
			a.inputs[name] = true
			if n != nil {
				s = n.session
			}
		}
	}); err != nil || refused != nil {
		return nil, nil, errors.Join(err, refused)
	}
	free := func() { a.post(func() { delete(a.inputs, name) }) }
	if s != nil {
		return s, free, nil
	}
	if s, err = a.AttachTerminal(name); err != nil {
		free()
		return nil, nil, err
	}
	// What the terminal shows goes to those who are attached to its output.
	var draining sync.WaitGroup
	draining.Go(func() {
		_, _ = io.Copy(io.Discard, s.Output())
		s.over(containerizer.Exit{})
	})
	return s, func() { _ = s.Close(); draining.Wait(); free() }, nil
}

// closeSessions ends all sessions, when the agent stops: nobody is left to talk to them.
func (a *Agent) closeSessions() {
	var closing sync.WaitGroup
	for _, n := range a.nested {
		if n.session != nil && n.exit == nil && !n.starting {
			// Each may take a while to end.
			closing.Go(func() { _ = n.session.Close() })
		}
	}
	closing.Wait()
}
