package marathon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/marathon/scheduler"
	"starling/master/mesos"
	"starling/master/mesos/client"
	call "starling/master/mesos/scheduler"
)

const (
	// maxCalls is how many calls may wait to be sent; a master that is so far behind is given up.
	maxCalls = 100_000
	// goodSession is how long a session must have lasted for the next to be opened without a pause.
	goodSession = 10 * time.Second
)

// session is one subscription at a master. Calls are made one after the other, in the order of the decisions.
type session struct {
	stream *client.Stream
	holds  func() error // tells whether the term lasts, by the clock
	roles  []string     // that it was asked for with

	mu    sync.Mutex
	calls []*call.Call  // guarded by mu; waiting to be sent
	wake  chan struct{} // holds a token when there may be calls; never closed
}

// send queues a call. It never blocks.
func (s *session) send(c *call.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) >= maxCalls {
		s.stream.Close()
		return
	}
	s.calls = append(s.calls, c)
	select {
	case s.wake <- struct{}{}:
	default: // a token is there already
	}
}

func (s *session) take() []*call.Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// run sends calls until ctx ends or one fails. A call that failed may or may not have had an effect; the way to know is a
// new session, which begins with questions. So the stream is closed.
func (s *session) run(ctx context.Context) error {
	for {
		for _, c := range s.take() {
			if err := s.holds(); err != nil {
				s.stream.Close()
				return err
			}
			if err := s.stream.Call(ctx, c); err != nil {
				s.stream.Close()
				return err
			}
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// subscribe keeps a session open until ctx ends, or the master has ended one for good.
func (m *Marathon) subscribe(ctx context.Context) {
	pause := newPause(m.cfg)
	for ctx.Err() == nil {
		begun := time.Now()
		err := m.hold(ctx)
		if ctx.Err() != nil || errors.Is(err, ErrFrameworkRemoved) || errors.Is(err, ErrSuperseded) {
			return // the term ends once the loop comes to that, which may take as long as a write
		}
		m.log.Warn("session with the master ended", "err", err)
		if time.Since(begun) > goodSession {
			pause.reset()
		}
		if !pause.wait(ctx) {
			return
		}
	}
}

// hold opens a session and stays in it until it ends; the error says why.
func (m *Marathon) hold(ctx context.Context) error {
	m.mu.RLock()
	view := m.core.View()
	id, roles, holds := view.FrameworkID(), view.Roles(), m.holds
	m.mu.RUnlock()
	subscribe := &call.Call{
		Type: call.Call_SUBSCRIBE.Enum(), Subscribe: &call.Call_Subscribe{FrameworkInfo: m.frameworkInfo(id, roles)},
	}
	if id != "" {
		subscribe.FrameworkId = &mesos.FrameworkID{Value: proto.String(id)}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := m.client.Subscribe(ctx, subscribe)
	if err != nil {
		return err
	}
	defer stream.Close()
	s := &session{stream: stream, holds: holds, roles: roles, wake: make(chan struct{}, 1)}
	sent := make(chan error, 1) // one value, when the sender has ended
	go func() { sent <- s.run(ctx) }()
	m.enter(ctx, func(time.Time) { m.session = s })
	var wg sync.WaitGroup
	if m.cfg.Distances != nil {
		wg.Go(func() { m.measure(ctx, stream.Master()) })
	}
	if m.leaders != nil {
		wg.Go(func() {
			if other := m.leaders.left(ctx, stream.Master()); other != "" {
				m.log.Info("another master leads", "addr", other)
				stream.Close()
			}
		})
	}
	err = m.listen(ctx, s)
	stream.Close()
	cancel()
	wg.Wait()
	if failed := <-sent; failed != nil && errors.Is(err, client.ErrClosed) {
		err = failed
	}
	return err
}

// listen feeds the events of a session to the loop until it ends.
func (m *Marathon) listen(ctx context.Context, s *session) error {
	defer m.enter(ctx, func(now time.Time) {
		if m.session == s {
			m.session = nil
			m.core.Handle(now, scheduler.Disconnected{})
		}
	})
	for {
		e, err := s.stream.Next()
		if err != nil {
			return err
		}
		in, err := m.inputOf(ctx, e)
		if err != nil {
			return err
		}
		if in == nil {
			continue
		}
		m.countInput(in)
		if !m.enter(ctx, func(now time.Time) {
			if m.session != s {
				return
			}
			if subscribed, ok := in.(scheduler.Subscribed); ok {
				subscribed.Roles = s.roles
				in = subscribed
				info := e.GetSubscribed().GetMasterInfo()
				m.master = masterInfo{hostname: info.GetHostname(), port: int(info.GetPort())}
				m.log.Info("subscribed", "framework_id", subscribed.FrameworkID, "addr", s.stream.Master())
			}
			begun, unknown := time.Now(), m.isUnknown(in)
			m.core.Handle(now, in)
			if unknown {
				m.registry.Timer(timerUnknown).Observe(time.Since(begun))
			}
		}) {
			return context.Cause(ctx)
		}
	}
}

// isUnknown tells of a status of a task that no instance has. It is asked under the lock.
func (m *Marathon) isUnknown(in scheduler.Input) bool {
	status, ok := in.(scheduler.Status)
	if !ok {
		return false
	}
	taskID := status.Status.GetTaskId().GetValue()
	id, err := app.ParseTaskID(taskID)
	if err != nil {
		return false
	}
	i := m.core.View().Instance(id.Instance)
	return i == nil || !i.Has(taskID)
}

// inputOf makes the input of an event, nil for those that mean nothing here.
func (m *Marathon) inputOf(ctx context.Context, e *call.Event) (scheduler.Input, error) {
	switch e.GetType() {
	case call.Event_SUBSCRIBED:
		sub := e.GetSubscribed()
		return scheduler.Subscribed{
			FrameworkID: sub.GetFrameworkId().GetValue(), Master: sub.GetMasterInfo().GetHostname(),
			Region: sub.GetMasterInfo().GetDomain().GetFaultDomain().GetRegion().GetName(),
		}, nil
	case call.Event_OFFERS:
		return scheduler.Offers{Offers: e.GetOffers().GetOffers()}, nil
	case call.Event_RESCIND:
		return scheduler.Rescinded{OfferID: e.GetRescind().GetOfferId().GetValue()}, nil
	case call.Event_UPDATE:
		return scheduler.Status{Status: e.GetUpdate().GetStatus()}, nil
	case call.Event_MESSAGE:
		msg := e.GetMessage()
		return scheduler.Message{AgentID: msg.GetAgentId().GetValue(), ExecutorID: msg.GetExecutorId().GetValue(), Data: msg.GetData()}, nil
	case call.Event_ERROR:
		return nil, m.masterError(ctx, e.GetError().GetMessage())
	default:
		return nil, nil
	}
}

// masterError takes an error by which the master ends a session. Two of them end more than that: to subscribe again would
// fail for ever, or begin a war.
func (m *Marathon) masterError(ctx context.Context, message string) error {
	var fatal error
	switch {
	case strings.Contains(message, "Framework has been removed"):
		fatal = ErrFrameworkRemoved
	case strings.Contains(message, "Framework failed over"):
		fatal = ErrSuperseded
	default:
		return fmt.Errorf("the master says: %s", message)
	}
	m.log.Error("the master has ended the session for good; tasks are left as they are", "err", fatal)
	m.enter(ctx, func(time.Time) { m.failed = fatal })
	return fatal
}
