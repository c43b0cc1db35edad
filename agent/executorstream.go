package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos/executor"
)

// What waits for an executor that does not read is bounded: it is cut off then, and may subscribe again.
const (
	streamMax   = 1024
	streamBytes = 16 << 20
)

// executorHeartbeat is the pause after which an executor that nothing was sent to is sent a heartbeat.
const executorHeartbeat = 30 * time.Minute

// ErrSlowExecutor ends the stream of an executor that did not read what it was sent.
var ErrSlowExecutor = errors.New("executor does not read its events")

// ExecutorStream is what an executor is sent, in order, from its subscription on.
type ExecutorStream struct {
	// closed tells the agent that the executor has left.
	closed func()

	mu    sync.Mutex
	queue []*executor.Event
	bytes int
	// wake holds one token: there is something to send, or an end.
	wake chan struct{}
	// ended is set once nothing more is added; cut is why nothing more is sent.
	ended bool
	cut   error
}

func newExecutorStream() *ExecutorStream { return &ExecutorStream{wake: make(chan struct{}, 1)} }

// push adds an event. False means that it was not taken: the stream is over, or is now.
func (s *ExecutorStream) push(e *executor.Event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.signal()
	if s.ended {
		return false
	}
	size := proto.Size(e)
	if len(s.queue) == streamMax || len(s.queue) > 0 && s.bytes+size > streamBytes {
		s.ended, s.cut = true, ErrSlowExecutor
		return false
	}
	s.queue, s.bytes = append(s.queue, e), s.bytes+size
	return true
}

func (s *ExecutorStream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end has the stream end once what waits was sent.
func (s *ExecutorStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

// takeBack ends the stream, and returns what was not sent.
func (s *ExecutorStream) takeBack() []*executor.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	queue := s.queue
	s.queue, s.bytes, s.ended = nil, 0, true
	s.signal()
	return queue
}

// Next waits for the next event. At the end of the stream it is io.EOF.
func (s *ExecutorStream) Next(ctx context.Context) (*executor.Event, error) {
	beat := time.NewTimer(executorHeartbeat)
	defer beat.Stop()
	for {
		s.mu.Lock()
		switch {
		case s.cut != nil:
			s.mu.Unlock()
			return nil, s.cut
		case len(s.queue) > 0:
			e := s.queue[0]
			s.queue, s.bytes = s.queue[1:], s.bytes-proto.Size(e)
			s.mu.Unlock()
			return e, nil
		case s.ended:
			s.mu.Unlock()
			return nil, io.EOF
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-beat.C:
			return &executor.Event{Type: executor.Event_HEARTBEAT.Enum()}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Close tells that nobody reads the stream any more.
func (s *ExecutorStream) Close() { s.closed() }
