package event

import (
	"context"
	"errors"
	"strings"
	"sync"
)

var (
	// ErrSlow ends a subscription whose queue ran full.
	ErrSlow = errors.New("event stream reads too slowly")
	// ErrClosed ends a subscription that was closed, or whose bus was.
	ErrClosed = errors.New("event stream is closed")
)

// DefaultQueue is how many events wait for a slow reader before it is cut off.
const DefaultQueue = 1024

// Bus hands published frames to all subscriptions. The zero value is ready for use.
type Bus struct {
	mu     sync.Mutex
	subs   map[*Subscription]struct{} // guarded by mu
	closed bool                       // guarded by mu
}

// Subscription is one listener. Its methods may be called from any goroutine, Next from one at a time.
type Subscription struct {
	bus   *Bus
	types map[string]struct{} // nil: all types of Marathon's; never changes
	max   int

	// wake holds one token when there may be something new in queue or err. It is never closed.
	wake  chan struct{}
	mu    sync.Mutex
	queue []Frame // guarded by mu
	err   error   // guarded by mu; why it ended
}

// Subscribe adds a listener for the named types, or for all that Marathon has when none is named: there are clients that give
// up at a type that they do not know, so ours are for those who ask for them. A queue of 0 is DefaultQueue.
func (b *Bus) Subscribe(queue int, types ...string) *Subscription {
	if queue <= 0 {
		queue = DefaultQueue
	}
	s := &Subscription{bus: b, max: queue, wake: make(chan struct{}, 1)}
	if len(types) > 0 {
		s.types = make(map[string]struct{}, len(types))
		for _, t := range types {
			s.types[t] = struct{}{}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		s.err = ErrClosed
		return s
	}
	if b.subs == nil {
		b.subs = make(map[*Subscription]struct{})
	}
	b.subs[s] = struct{}{}
	return s
}

// Publish hands a frame to all who listen for its type. It never blocks.
func (b *Bus) Publish(f Frame) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		if !s.push(f) {
			delete(b.subs, s)
		}
	}
}

// Listeners is the number of open subscriptions.
func (b *Bus) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}

// Close ends all subscriptions with ErrClosed, once they have read what waits for them, and those that are still to come.
func (b *Bus) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.Drop()
}

// Drop ends all subscriptions with ErrClosed, once they have read what waits for them. There may be others later.
func (b *Bus) Drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.end(ErrClosed)
	}
	b.subs = nil
}

// Wants tells whether the subscription listens for a type.
func (s *Subscription) Wants(eventType string) bool {
	if s.types == nil {
		return !strings.HasPrefix(eventType, ownPrefix)
	}
	_, ok := s.types[eventType]
	return ok
}

func (s *Subscription) push(f Frame) bool {
	if !s.Wants(f.Type) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	if len(s.queue) >= s.max {
		s.queue, s.err = nil, ErrSlow
	} else {
		s.queue = append(s.queue, f)
	}
	s.signal()
	return s.err == nil
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default: // a token is there already
	}
}

// Next returns the next frames, at least one, waiting until there is one. It returns ErrSlow, ErrClosed or the cause of
// ctx. The slice belongs to the caller.
func (s *Subscription) Next(ctx context.Context) ([]Frame, error) {
	for {
		s.mu.Lock()
		frames, err := s.queue, s.err
		s.queue = nil
		s.mu.Unlock()
		if len(frames) > 0 {
			return frames, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	delete(s.bus.subs, s)
	s.bus.mu.Unlock()
	s.end(ErrClosed)
}
