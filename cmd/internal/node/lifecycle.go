package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"starling/agent"
)

// component is a part of a role that runs until its context ends.
type component struct {
	name string
	run  func(ctx context.Context) error
	// stop is how long it may take to stop before the next one is told to.
	stop time.Duration
}

// stopTimeout is what most components may take to stop. All of a role end within 10 s.
const stopTimeout = 2500 * time.Millisecond

// StartsAnew tells whether a role ended so that it can begin anew, as something else than it was: at another address, or under
// another id. The caller runs the program again.
func StartsAnew(err error) bool { return errors.Is(err, ErrMoved) || errors.Is(err, agent.ErrGone) }

// runAll runs the components until ctx ends or one of them does, and stops them in reverse order; their contexts tell the error of
// the one that ended as the cause. It returns the error of
// the one that ended first by itself, nil when ctx ended.
func runAll(ctx context.Context, log *slog.Logger, components []component) error {
	type running struct {
		name   string
		stop   time.Duration
		cancel context.CancelCauseFunc
		done   chan error // gets one value; its size lets the goroutine end when nobody waits
	}
	var started []running
	ended := make(chan error, len(components))
	for _, c := range components {
		// Not ctx's child: what was started last has to stop first.
		own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		r := running{c.name, c.stop, cancel, make(chan error, 1)}
		started = append(started, r)
		go func() {
			err := c.run(own)
			if own.Err() != nil && errors.Is(err, context.Canceled) {
				err = nil
			}
			r.done <- err
			if own.Err() == nil {
				if err == nil {
					err = errors.New("ended by itself")
				}
				ended <- fmt.Errorf("%s: %w", c.name, err)
			}
		}()
	}
	var failure error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case failure = <-ended:
		if StartsAnew(failure) {
			log.Warn("starting anew", "reason", failure)
			break
		}
		log.Error("component failed, stopping", "err", failure)
	}
	for i := len(started) - 1; i >= 0; i-- {
		r := started[i]
		r.cancel(failure)
		select {
		case err := <-r.done:
			if err != nil && failure == nil {
				log.Warn("component did not stop cleanly", "name", r.name, "err", err)
			}
		case <-time.After(r.stop):
			log.Warn("component does not stop, going on without it", "name", r.name)
		}
	}
	return failure
}
