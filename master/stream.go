package master

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos/scheduler"
)

// ErrSlowReader is returned by Stream.Next once the stream was cut because its reader fell too far behind.
var ErrSlowReader = errors.New("the framework reads its events too slowly")

// Stream is the queue of events of one subscription: the loop fills it, one reader, the connection, empties it.
//
// It is bounded in events, bytes and age; a stream that overflows is cut, since a framework that misses an event must
// know it, and learns it by having to subscribe again.
type Stream struct {
	id        string
	framework string
	heartbeat time.Duration
	maxEvents int
	maxBytes  int
	maxAge    time.Duration
	gone      func(*Stream)

	// wake holds one token while the reader should look again. It is never closed.
	wake chan struct{}

	mu     sync.Mutex
	queue  []queued
	bytes  int
	ended  bool
	cut    bool
	closed bool

	// The fields below belong to the reader.
	beating  bool
	nextBeat time.Time
}

type queued struct {
	event *scheduler.Event
	size  int
	at    time.Time
}

func newStream(id string, c *Config, gone func(*Stream)) *Stream {
	return &Stream{
		id:        id,
		heartbeat: c.HeartbeatInterval,
		maxEvents: c.MaxStreamEvents,
		maxBytes:  c.MaxStreamBytes,
		maxAge:    c.MaxStreamAge,
		gone:      gone,
		wake:      make(chan struct{}, 1),
	}
}

// ID is the value of the header Mesos-Stream-Id.
func (s *Stream) ID() string { return s.id }

// Next returns the next event, and waits for it. Heartbeats come from here too: one right after SUBSCRIBED, then one an
// interval whatever else is sent. It returns io.EOF at the end of the subscription, ErrSlowReader when the stream was
// cut, and ctx's error when that ends. The event is shared with other streams and must not be modified. Only one
// goroutine may call Next.
func (s *Stream) Next(ctx context.Context) (*scheduler.Event, error) {
	for {
		if s.beating && !time.Now().Before(s.nextBeat) {
			s.nextBeat = s.nextBeat.Add(s.heartbeat)
			if now := time.Now(); s.nextBeat.Before(now) {
				s.nextBeat = now.Add(s.heartbeat)
			}
			return &scheduler.Event{Type: scheduler.Event_HEARTBEAT.Enum()}, nil
		}
		event, err := s.pop()
		if err != nil {
			return nil, err
		}
		if event != nil {
			if event.GetType() == scheduler.Event_SUBSCRIBED && !s.beating {
				s.beating, s.nextBeat = true, time.Now()
			}
			return event, nil
		}
		if err := s.wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (s *Stream) wait(ctx context.Context) error {
	var beat <-chan time.Time
	if s.beating {
		t := time.NewTimer(time.Until(s.nextBeat))
		defer t.Stop()
		beat = t.C
	}
	select {
	case <-s.wake:
	case <-beat:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (s *Stream) pop() (*scheduler.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cut:
		return nil, ErrSlowReader
	case len(s.queue) == 0 && s.ended:
		return nil, io.EOF
	case len(s.queue) == 0:
		return nil, nil
	}
	head := s.queue[0]
	s.queue[0] = queued{}
	s.queue = s.queue[1:]
	s.bytes -= head.size
	if len(s.queue) == 0 {
		s.queue = nil // lets go of an array that a burst has grown
	}
	return head.event, nil
}

// Close tells that the connection is gone; the framework counts as disconnected from then on. It may be called several
// times, and after the end of the subscription.
func (s *Stream) Close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.queue, s.bytes = nil, 0
	s.ended = true
	s.mu.Unlock()
	if first {
		s.gone(s)
	}
}

// push appends an event, unless the stream is over. It returns false when the reader is too slow: the stream is cut then.
func (s *Stream) push(event *scheduler.Event) bool {
	size := proto.Size(event)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return !s.cut
	}
	if n := len(s.queue); n > 0 {
		if n >= s.maxEvents || s.bytes+size > s.maxBytes || now.Sub(s.queue[0].at) > s.maxAge {
			s.cut, s.ended = true, true
			s.queue, s.bytes = nil, 0
			s.signal()
			return false
		}
	}
	s.queue = append(s.queue, queued{event: event, size: size, at: now})
	s.bytes += size
	s.signal()
	return true
}

// end lets the reader have what is queued, and then the end of the stream.
func (s *Stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
