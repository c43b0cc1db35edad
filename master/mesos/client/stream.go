package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"starling/master/mesos/recordio"
	"starling/master/mesos/scheduler"
)

// defaultHeartbeat is the interval until the master has told its own.
const defaultHeartbeat = 15 * time.Second

// missedHeartbeats is after how many intervals of silence a stream counts as dead.
const missedHeartbeats = 5

// Stream is a subscription at one master. Next is for one goroutine; Call and Close may be called from any.
type Stream struct {
	client *Client
	master string
	id     string
	cancel context.CancelCauseFunc
	ctx    context.Context // of the subscription; its cause says why the stream ended
	body   io.ReadCloser
	reader *recordio.Reader
	closed sync.Once

	interval time.Duration // between heartbeats; only Next touches it
	err      error         // what ended the stream; only Next touches it
}

// Master is the host:port of the master that the stream belongs to.
func (s *Stream) Master() string { return s.master }

// ID is the id of the stream, which each call carries.
func (s *Stream) ID() string { return s.id }

// Next waits for the next event, which is the caller's. The first is SUBSCRIBED, or ERROR. Heartbeats are events like
// others. After an error the stream has ended, and each further call gives the same error: ErrStreamEnded,
// ErrHeartbeatsMissed, ErrClosed, the cause of the context that the stream was made with, or what was wrong with an event.
// Silence is measured while Next waits, so a caller that is slow between calls misses no heartbeat by that.
func (s *Stream) Next() (*scheduler.Event, error) {
	if s.err != nil {
		return nil, s.err
	}
	event, err := s.next()
	if err != nil {
		s.err = err
		s.end(err)
		return nil, err
	}
	return event, nil
}

func (s *Stream) next() (*scheduler.Event, error) {
	silence := time.AfterFunc(missedHeartbeats*s.interval, func() { s.cancel(ErrHeartbeatsMissed) })
	rec, err := s.reader.Next()
	silence.Stop()
	if cause := context.Cause(s.ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		if errors.Is(err, recordio.ErrMalformed) {
			return nil, fmt.Errorf("cannot read events from %s: %w", s.master, err)
		}
		if _, ok := errors.AsType[*recordio.TooLargeError](err); ok {
			return nil, fmt.Errorf("cannot read events from %s: %w", s.master, err)
		}
		return nil, fmt.Errorf("%w: master %s: %w", ErrStreamEnded, s.master, err)
	}
	event := &scheduler.Event{}
	if err := s.client.Codec.Unmarshal(rec, event); err != nil {
		return nil, fmt.Errorf("cannot decode event from %s: %w", s.master, err)
	}
	if sub := event.GetSubscribed(); sub.GetHeartbeatIntervalSeconds() > 0 {
		// Beyond an hour the number is nonsense, and might overflow.
		s.interval = time.Duration(min(sub.GetHeartbeatIntervalSeconds(), 3600) * float64(time.Second))
	}
	return event, nil
}

// Call makes a call at the master of the stream, within Config.CallTimeout. It returns when the master has accepted it,
// which promises nothing: results are events. A *StatusError says what the master has against it. The call must name the
// framework.
func (s *Stream) Call(ctx context.Context, call *scheduler.Call) error {
	body, err := s.client.Codec.Marshal(call)
	if err != nil {
		return fmt.Errorf("cannot call %s: %w", call.GetType(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.client.CallTimeout)
	defer cancel()
	resp, err := s.client.post(ctx, s.master, body, s.id)
	if err != nil {
		return fmt.Errorf("cannot call %s: %w", call.GetType(), err)
	}
	// To its end, so that the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorText))
	_ = resp.Body.Close()
	return nil
}

// Close ends the stream; the master then counts the framework as disconnected. A Next that waits returns ErrClosed.
func (s *Stream) Close() { s.end(ErrClosed) }

func (s *Stream) end(cause error) {
	s.cancel(cause)
	s.closed.Do(func() { _ = s.body.Close() })
}
