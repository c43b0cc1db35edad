package checkpoint

import (
	"context"
	"errors"
	"sync"
)

// ErrStopped is told to those whose change came when the committer had ended.
var ErrStopped = errors.New("the checkpoint is closed")

// Committer puts changes that come from one goroutine to disk on another one, in groups: whatever was submitted while the
// disk was busy goes with the next group.
type Committer struct {
	store *Store
	// wake holds one token: there is something to do.
	wake chan struct{}

	mu      sync.Mutex
	waiting []Change
	// index finds a waiting change by what it changes.
	index   map[string]int
	done    [][]func(error)
	stopped bool
	// abandoned drops what waits.
	abandoned bool
}

// NewCommitter returns a committer that does nothing before Run.
func NewCommitter(s *Store) *Committer {
	return &Committer{store: s, wake: make(chan struct{}, 1), index: map[string]int{}}
}

// Submit hands over a change and returns at once. done (nil is allowed) is called on the committer's goroutine once the
// change, or one of the same thing that was submitted later, is on disk or has failed. The queue holds no more than one
// change for each thing.
func (c *Committer) Submit(change Change, done func(error)) {
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		if done != nil {
			done(ErrStopped)
		}
		return
	}
	i, ok := c.index[change.what]
	if !ok {
		i = len(c.waiting)
		c.index[change.what] = i
		c.waiting, c.done = append(c.waiting, change), append(c.done, nil)
	}
	c.waiting[i] = change
	if done != nil {
		c.done[i] = append(c.done[i], done)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run commits until ctx ends, and then what was submitted before that.
func (c *Committer) Run(ctx context.Context) {
	for {
		select {
		case <-c.wake:
			c.flush()
		case <-ctx.Done():
			c.mu.Lock()
			c.stopped = true
			c.mu.Unlock()
			c.flush()
			return
		}
	}
}

func (c *Committer) flush() {
	c.mu.Lock()
	changes, done := c.waiting, c.done
	c.waiting, c.done = nil, nil
	clear(c.index)
	abandoned := c.abandoned
	c.mu.Unlock()
	if len(changes) == 0 || abandoned {
		return
	}
	for i, err := range c.store.Commit(changes) {
		for _, f := range done[i] {
			f(err)
		}
	}
}

// Abandon makes the committer drop what waits and whatever is still submitted, as the death of the process would.
func (c *Committer) Abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned = true
}
