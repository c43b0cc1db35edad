package docker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"starling/master/mesos/metrics"
)

// pulls shares the pull of an image among those who want it with the same credentials.
type pulls struct {
	mu      sync.Mutex
	current map[pullKey]*pull
	// took is how long those took that went well.
	took metrics.Timing
}

type pullKey struct {
	image string
	login Login
}

// pull is one that is under way. It ends early when nobody waits for it any more.
type pull struct {
	waiting int
	cancel  context.CancelCauseFunc
	done    chan struct{}
	err     error
}

var (
	errStalled  = errors.New("the registry, or the engine, said nothing")
	errOverdue  = errors.New("it takes too long")
	errUnwanted = errors.New("nobody waits for it")
)

// ensure makes sure that the engine holds an image. A tag that it holds already is not looked up again unless force is
// set.
func (c *Containerizer) ensure(ctx context.Context, image string, force bool) error {
	if !force {
		have, err := c.engine.HasImage(ctx, image)
		if err != nil || have {
			return err
		}
	}
	key := pullKey{withTag(image), c.cfg.Auth.For(image)}
	c.pulls.mu.Lock()
	p := c.pulls.current[key]
	if p == nil {
		p = &pull{done: make(chan struct{})}
		var work context.Context
		work, p.cancel = context.WithCancelCause(c.life)
		if c.pulls.current == nil {
			c.pulls.current = make(map[pullKey]*pull)
		}
		c.pulls.current[key] = p
		c.wg.Go(func() { c.pull(work, key, p) })
	}
	p.waiting++
	c.pulls.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
	}
	c.pulls.mu.Lock()
	defer c.pulls.mu.Unlock()
	if p.waiting--; p.waiting == 0 {
		p.cancel(errUnwanted)
		c.pulls.drop(key, p)
	}
	return ctx.Err()
}

// drop makes the next one who wants the image begin anew. Called with mu held.
func (s *pulls) drop(key pullKey, p *pull) {
	if s.current[key] == p {
		delete(s.current, key)
	}
}

func (c *Containerizer) pull(ctx context.Context, key pullKey, p *pull) {
	stall := time.AfterFunc(c.cfg.PullStall, func() { p.cancel(errStalled) })
	overdue := time.AfterFunc(c.cfg.PullTimeout, func() { p.cancel(errOverdue) })
	begun := time.Now()
	err := c.engine.Pull(ctx, key.image, key.login, func() { stall.Reset(c.cfg.PullStall) })
	stall.Stop()
	overdue.Stop()
	switch cause := context.Cause(ctx); {
	case err == nil:
		took := time.Since(begun)
		c.pulls.took.Observe(took)
		c.log.Info("image pulled", "image", key.image, "dur", took)
	case errors.Is(cause, errStalled):
		err = fmt.Errorf("cannot pull image %q: %w for %v", key.image, errStalled, c.cfg.PullStall)
	case errors.Is(cause, errOverdue):
		err = fmt.Errorf("cannot pull image %q: %w, more than %v", key.image, errOverdue, c.cfg.PullTimeout)
	default:
		err = fmt.Errorf("cannot pull image %q: %w", key.image, err)
	}
	c.pulls.mu.Lock()
	c.pulls.drop(key, p)
	c.pulls.mu.Unlock()
	p.err = err
	close(p.done)
	p.cancel(nil)
}

// Measure adds the numbers of this containerizer, by the names of Mesos.
func (c *Containerizer) Measure(out map[string]float64) {
	c.pulls.took.Measure("containerizer/docker/image_pull_ms", out)
}
