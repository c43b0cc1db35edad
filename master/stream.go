package master

import (
	"context"
	"errors"
	"io"
	"net/netip"
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
	peer      netip.Addr // where the connection comes from; not valid where that is not known
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
func (s *Stream) push(event *scheduler.Event) bool { return s.add(event, proto.Size(event)) }

// events is the queue behind a stream of events of any kind.
//
// It is bounded in events, bytes and age; a stream that overflows is cut, since a reader that misses an event must know
// it, and learns it by having to subscribe again. A burst, as when all offers of a framework are rescinded at once, is no fault
// of its reader: the number of events counts only once the first of them has waited for burstAge.
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
	hungry func() // called once, without the lock, when the queue has shrunk to half of maxEvents; nil when nobody waits for that
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
}

// burstAge is for how long more events than maxEvents may wait for a reader.
const burstAge = 2 * time.Second

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
	switch {
	case s.cut:
		s.mu.Unlock()
		return event, false, ErrSlowReader
	case len(s.queue) == 0:
		over := s.ended
		s.mu.Unlock()
		if over {
			return event, false, io.EOF
		}
		return event, false, nil
	}
	head := s.queue[0]
	s.queue[0] = queued[E]{}
	s.queue = s.queue[1:]
	s.bytes -= head.size
	if len(s.queue) == 0 {
		s.queue = nil // lets go of an array that a burst has grown
	}
	var fed func()
	if s.hungry != nil && !s.full() {
		fed, s.hungry = s.hungry, nil
	}
	s.mu.Unlock()
	if fed != nil {
		fed()
	}
	return head.event, true, nil
}

// full tells whether what is queued comes near the bounds; s.mu is held.
func (s *events[E]) full() bool { return len(s.queue) > s.maxEvents/2 || s.bytes > s.maxBytes/2 }

// room tells whether more may be added that could wait as well. If not, fed is called once when there is room again, on the
// reader's goroutine.
func (s *events[E]) room(fed func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended && s.full() {
		s.hungry = fed
		return false
	}
	return true
}

// Close tells that the connection is gone: a framework counts as disconnected from then on. It may be called several
// times, and after the end of the subscription.
func (s *events[E]) Close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.queue, s.bytes, s.hungry = nil, 0, nil
	s.ended = true
	s.mu.Unlock()
	if first {
		s.gone()
	}
}

// add appends an event of a size in bytes, unless the stream is over. It returns false when the reader is too slow: the
// stream is cut then.
func (s *events[E]) add(event E, size int) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return !s.cut
	}
	if len(s.queue) > 0 {
		waited := now.Sub(s.queue[0].at)
		if len(s.queue) >= s.maxEvents && waited > burstAge || s.bytes+size > s.maxBytes || waited > s.maxAge {
			s.cut, s.ended = true, true
			s.queue, s.bytes, s.hungry = nil, 0, nil
			s.signal()
			return false
		}
	}
	s.queue = append(s.queue, queued[E]{event, size, now})
	s.bytes += size
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
