package marathon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"starling/master/election"
)

// leaderPatience is how long an attempt to subscribe waits for a leader to be elected.
const leaderPatience = 10 * time.Second

// leaders knows who leads, masters or others, from a detector.
type leaders struct {
	detector election.Detector
	log      *slog.Logger
	// changes, if not nil, is told of each leader that is found, nil for none. It is set before run.
	changes func(leader *election.Candidate)

	mu      sync.Mutex          // guards what follows
	known   *election.Candidate // the leader as far as known; nil at first, and while there is none; never modified
	changed chan struct{}
}

func newLeaders(d election.Detector, log *slog.Logger) *leaders {
	return &leaders{detector: d, log: log, changed: make(chan struct{})}
}

// run follows the detector until ctx ends.
func (l *leaders) run(ctx context.Context, pause *pause) {
	var known *election.Candidate
	for {
		leader, err := l.detector.Leader(ctx, known)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.log.Warn("cannot tell who leads, trying again", "err", err)
			if !pause.wait(ctx) {
				return
			}
			continue
		}
		pause.reset()
		known = leader
		if l.changes != nil {
			l.changes(leader)
		}
		l.mu.Lock()
		l.known = leader
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
	}
}

// look returns where the leader is, nothing where none is known, and what tells that this has changed.
func (l *leaders) look() (address string, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known != nil {
		address = net.JoinHostPort(l.known.Address, strconv.Itoa(l.known.Port))
	}
	return address, l.changed
}

// leader returns who leads as far as is known, nil where nobody is. It must not be modified.
func (l *leaders) leader() *election.Candidate {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// resolve waits until a leader is known, though not for ever.
func (l *leaders) resolve(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, leaderPatience, errors.New("no master is known to lead"))
	defer cancel()
	for {
		address, changed := l.look()
		if address != "" {
			return []string{address}, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// left waits until another master than the one given leads, and returns its address; empty when ctx ended before. That no
// leader is known means nothing: it may lead on where only this machine does not hear of it.
func (l *leaders) left(ctx context.Context, master string) string {
	for {
		address, changed := l.look()
		if address != "" && address != master {
			return address
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ""
		}
	}
}
