package master

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos/scheduler"
)

// ErrSlowReader is returned by Next of a stream that was cut because its reader fell too far behind.
var ErrSlowReader = errors.New("the events are read too slowly")

// Stream is the event stream of a framework's subscription: the loop fills it, one reader, the connection, empties it.
type Stream struct {
	events[*scheduler.Event]
	id        string
	framework string
}

func newStream(id string, c *Config, gone func(*Stream)) *Stream {
	s := &Stream{id: id}
	s.init(c, &scheduler.Event{Type: scheduler.Event_HEARTBEAT.Enum()}, func() { gone(s) })
	s.begins = func(e *scheduler.Event) bool { return e.GetType() == scheduler.Event_SUBSCRIBED }
	return s
}

// ID is the value of the header Mesos-Stream-Id.
func (s *Stream) ID() string { return s.id }

// push appends an event, unless the stream is over. It returns false when the reader is too slow: the stream is cut then.
func (s *Stream) push(event *scheduler.Event) bool {
	// All offers of a framework may be rescinded at once, and that is no fault of its. There are no more of these than offers, and
	// they are small: their size and age are bound enough.
	return s.add(event, proto.Size(event), event.GetType() != scheduler.Event_RESCIND)
}

// events is the queue behind a stream of events of any kind.
//
// It is bounded in events, bytes and age; a stream that overflows is cut, since a reader that misses an event must know
// it, and learns it by having to subscribe again.
type events[E any] struct {
	heartbeat time.Duration
	beat      E
	maxEvents int
	maxBytes  int
	maxAge    time.Duration
	gone      func()
	beats     *atomic.Int64 // how many heartbeats were sent; set before the reader begins

	// wake holds one token while the reader should look again. It is never closed.
	wake chan struct{}

	mu     sync.Mutex
	queue  []queued[E]
	bytes  int
	count  int // of those in queue that count
	ended  bool
	cut    bool
	closed bool

	// The fields below belong to the reader. begins tells the event after which heartbeats are due; beating is set then.
	begins   func(E) bool
	beating  bool
	nextBeat time.Time
}

type queued[E any] struct {
	event E
	size  int // bytes
	at    time.Time
	// counts is set for what the bound of events is for.
	counts bool
}

// init prepares a queue; beat is the heartbeat, gone is called once when the connection has ended.
func (s *events[E]) init(c *Config, beat E, gone func()) {
	s.heartbeat, s.beat, s.gone, s.beats = c.HeartbeatInterval, beat, gone, new(atomic.Int64)
	s.maxEvents, s.maxBytes, s.maxAge = c.MaxStreamEvents, c.MaxStreamBytes, c.MaxStreamAge
	s.wake = make(chan struct{}, 1)
}

// Next returns the next event, and waits for it. Heartbeats come from here too: one right after the event that opens the
// subscription, then one an interval whatever else is sent. It returns io.EOF at the end of the subscription,
// ErrSlowReader when the stream was cut, and ctx's error when that ends. The event is shared with other streams and must
// not be modified. Only one goroutine may call Next.
func (s *events[E]) Next(ctx context.Context) (E, error) {
	var none E
	for {
		if s.beating && !time.Now().Before(s.nextBeat) {
			s.nextBeat = s.nextBeat.Add(s.heartbeat)
			if now := time.Now(); s.nextBeat.Before(now) {
				s.nextBeat = now.Add(s.heartbeat)
			}
			s.beats.Add(1)
			return s.beat, nil
		}
		event, ok, err := s.pop()
		if err != nil {
			return none, err
		}
		if ok {
			if !s.beating && s.begins(event) {
				s.beating, s.nextBeat = true, time.Now()
			}
			return event, nil
		}
		if err := s.wait(ctx); err != nil {
			return none, err
		}
	}
}

func (s *events[E]) wait(ctx context.Context) error {
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

// pop is false while there is nothing to be had.
func (s *events[E]) pop() (event E, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cut:
		return event, false, ErrSlowReader
	case len(s.queue) == 0 && s.ended:
		return event, false, io.EOF
	case len(s.queue) == 0:
		return event, false, nil
	}
	head := s.queue[0]
	s.queue[0] = queued[E]{}
	s.queue = s.queue[1:]
	s.bytes -= head.size
	if head.counts {
		s.count--
	}
	if len(s.queue) == 0 {
		s.queue = nil // lets go of an array that a burst has grown
	}
	return head.event, true, nil
}

// Close tells that the connection is gone: a framework counts as disconnected from then on. It may be called several
// times, and after the end of the subscription.
func (s *events[E]) Close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.queue, s.bytes, s.count = nil, 0, 0
	s.ended = true
	s.mu.Unlock()
	if first {
		s.gone()
	}
}

// add appends an event of a size in bytes, unless the stream is over. It returns false when the reader is too slow: the
// stream is cut then. counts tells whether it counts as one of the events whose number is bounded.
func (s *events[E]) add(event E, size int, counts bool) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return !s.cut
	}
	if len(s.queue) > 0 {
		if counts && s.count >= s.maxEvents || s.bytes+size > s.maxBytes || now.Sub(s.queue[0].at) > s.maxAge {
			s.cut, s.ended = true, true
			s.queue, s.bytes, s.count = nil, 0, 0
			s.signal()
			return false
		}
	}
	s.queue = append(s.queue, queued[E]{event, size, now, counts})
	s.bytes += size
	if counts {
		s.count++
	}
	s.signal()
	return true
}

// end lets the reader have what is queued, and then the end of the stream.
func (s *events[E]) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

func (s *events[E]) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
