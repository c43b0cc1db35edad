package docker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"starling/agent/containerizer"
)

// patience is how long the engine may take for a signal before it is sent without it.
const patience = 2 * time.Second

// lookup returns the entry of a container whose launch is over.
func (c *Containerizer) lookup(ctx context.Context, id string) (*entry, error) {
	for {
		c.mu.Lock()
		e, ok := c.entries[id]
		c.mu.Unlock()
		if !ok {
			return nil, fmt.Errorf("container %q: %w", id, containerizer.ErrUnknownContainer)
		}
		if isClosed(e.ready) {
			return e, nil
		}
		select {
		case <-e.ready: // the launch may have failed: look again
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Signal sends a signal to the first process. While the engine does not answer, it goes there directly.
func (c *Containerizer) Signal(ctx context.Context, id string, signal int) error {
	if signal <= 0 || signal > 64 {
		return fmt.Errorf("signal %d is not between 1 and 64", signal)
	}
	e, err := c.lookup(ctx, id)
	if err != nil {
		return err
	}
	return c.signal(ctx, e, syscall.Signal(signal))
}

// signal sends a signal; an error that is errAway is for want of an answer.
func (c *Containerizer) signal(ctx context.Context, e *entry, signal syscall.Signal) error {
	c.mu.Lock()
	if isClosed(e.told) {
		c.mu.Unlock()
		return nil
	}
	first, r, err := e.sent(int(signal)), e.record, c.away
	c.mu.Unlock()
	if first {
		// Before it is sent: an end that the next life of the agent finds must be told from an exit with the same number.
		c.save(r)
	}
	if err == nil {
		soon, cancel := context.WithTimeout(ctx, patience)
		err = c.engine.Kill(soon, r.Engine, strconv.Itoa(int(signal)))
		cancel()
	}
	switch {
	case err == nil, errors.Is(err, errConflict), errors.Is(err, errNotFound):
		// A conflict is with the container not running.
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !errors.Is(err, errAway) && !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("cannot signal container %q: %w", e.id, err)
	}
	nudge(c.wake)
	c.mu.Lock()
	defer c.mu.Unlock()
	if isClosed(e.told) {
		return nil
	}
	if e.handle == nil {
		return fmt.Errorf("cannot signal container %q: %w: %w", e.id, errAway, err)
	}
	return e.handle.Signal(signal)
}

// Destroy ends a container. It gives up a launch that is under way. While the engine is away, the first process is killed
// without it, and the rest of the container with that; where that is not possible, it is done when the engine is back,
// whether somebody waits for it or not.
func (c *Containerizer) Destroy(ctx context.Context, id string) error {
	c.mu.Lock()
	if e := c.entries[id]; e != nil && !isClosed(e.ready) {
		e.cancel()
	}
	c.mu.Unlock()
	e, err := c.lookup(ctx, id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	stop := c.cfg.StopTimeout > 0 && !e.doomed && c.away == nil && !isClosed(e.told)
	e.doomed = true
	engine := e.record.Engine
	if stop {
		e.sent(int(syscall.SIGTERM))
		e.sent(int(syscall.SIGKILL))
	}
	c.mu.Unlock()
	if stop {
		if err := c.engine.Stop(ctx, engine, c.cfg.StopTimeout); err == nil {
			c.settle(e)
		}
	}
	for {
		err := c.signal(ctx, e, syscall.SIGKILL)
		if errors.Is(err, errAway) {
			// The caller can do something else meanwhile: it is doomed.
			return fmt.Errorf("cannot end container %q: %w", id, err)
		}
		for range 20 {
			select {
			case <-e.told:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("cannot end container %q: %w", id, errors.Join(ctx.Err(), err))
			case <-time.After(50 * time.Millisecond):
				c.lookWithout(e)
			}
		}
		nudge(c.wake)
	}
}

// Remove forgets an ended container. The engine keeps it for Config.RemoveDelay.
func (c *Containerizer) Remove(ctx context.Context, id string) error {
	e, err := c.lookup(ctx, id)
	if errors.Is(err, containerizer.ErrUnknownContainer) {
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	if !isClosed(e.told) {
		c.mu.Unlock()
		return fmt.Errorf("container %q: %w", id, containerizer.ErrRunning)
	}
	now := time.Now()
	e.record.Removed = &now
	r := e.record
	c.mu.Unlock()
	c.save(r)
	c.mu.Lock()
	delete(c.entries, id)
	c.removals[id] = removal{r.Engine, now.Add(c.cfg.RemoveDelay)}
	c.mu.Unlock()
	if c.cfg.RemoveDelay == 0 {
		nudge(c.wake)
	}
	return nil
}

// Resize gives a running container other limits. What is not limited stays as it is: the engine cannot take a limit away.
func (c *Containerizer) Resize(ctx context.Context, id string, l containerizer.Limits) error {
	e, err := c.lookup(ctx, id)
	if err != nil {
		return err
	}
	if err := c.usable(); err != nil {
		return err
	}
	engine := e.engine(c)
	i, err := c.engine.Inspect(ctx, engine)
	if err != nil {
		return fmt.Errorf("cannot change the limits of container %q: %w", id, err)
	}
	if i.ended() {
		return nil
	}
	to := c.limits(l)
	switch {
	case to.Memory == 0, to.Swap != 0:
	case i.Swap < 0:
		to.Swap = -1
	case i.Swap > 0 && i.Memory > 0:
		// The engine wants to hear of both. Swap stays what it was beside the memory.
		to.Swap = to.Memory + max(0, i.Swap-i.Memory)
		if i.Swap == 2*i.Memory {
			to.Swap = 2 * to.Memory // its default
		}
	}
	if err := c.engine.Update(ctx, engine, to); err != nil {
		return fmt.Errorf("cannot change the limits of container %q: %w", id, err)
	}
	c.mu.Lock()
	if to.Memory > 0 {
		e.record.Memory = to.Memory
	}
	r := e.record
	c.mu.Unlock()
	c.save(r)
	return nil
}
