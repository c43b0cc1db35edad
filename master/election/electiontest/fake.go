package electiontest

import (
	"context"
	"slices"
	"sync"

	"starling/master/election"
)

// Fake is an election in memory. The zero value has no contenders; Contender adds one.
type Fake struct {
	mu sync.Mutex
	// Heard is a floor for the next epoch; set it before Run.
	Heard uint64

	epoch   uint64
	queue   []*FakeContender // who stands, the oldest first
	leader  *FakeContender
	changed chan struct{} // closed, and replaced, when queue or leader changes; nil until somebody waits
}

// FakeContender is one contender of a Fake. It keeps the promises of a real one; whoever has waited longest leads next.
type FakeContender struct {
	fake      *Fake
	candidate election.Candidate
	end       context.CancelCauseFunc // of the term it leads
}

var (
	_ election.Contender = (*FakeContender)(nil)
	_ election.Detector  = (*FakeContender)(nil)
)

// Contender adds a contender, which stands once its Run is called.
func (f *Fake) Contender() *FakeContender { return &FakeContender{fake: f} }

// Rival adds a contender to the election of this one.
func (c *FakeContender) Rival() *FakeContender { return c.fake.Contender() }

// Stands tells whether the contender leads, or is in the row of those who will.
func (c *FakeContender) Stands() bool {
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	return c.fake.leader == c || slices.Contains(c.fake.queue, c)
}

// wait returns a channel that is closed at the next change; f.mu is held.
func (f *Fake) wait() <-chan struct{} {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// notify wakes all who wait; f.mu is held.
func (f *Fake) notify() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Expire ends the lease of the contender, if it leads, as a lost session does: the term ends with ErrLeaseLost, and the
// next may lead before this one's lead has returned.
func (c *FakeContender) Expire() {
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	c.release(election.ErrLeaseLost)
}

// release gives up the lead; the fake is locked.
func (c *FakeContender) release(cause error) {
	if c.fake.leader == c {
		c.end(cause)
		c.fake.leader = nil
		c.fake.notify()
	}
}

// Run implements election.Contender.
func (c *FakeContender) Run(ctx context.Context, candidate election.Candidate, lead func(context.Context, election.Term) error) error {
	c.candidate = candidate
	for ctx.Err() == nil {
		term, ended := c.stand(ctx)
		if ended {
			break
		}
		err := lead(term.ctx, election.Term{Epoch: term.epoch})
		held := term.ctx.Err() == nil
		c.fake.mu.Lock()
		c.release(nil)
		c.fake.mu.Unlock()
		if err != nil && held {
			return err
		}
	}
	return nil
}

type fakeTerm struct {
	ctx   context.Context
	epoch uint64
}

// stand waits until the contender leads, or ctx ends.
func (c *FakeContender) stand(ctx context.Context) (term fakeTerm, ended bool) {
	f := c.fake
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, c)
	defer func() {
		f.queue = slices.DeleteFunc(f.queue, func(o *FakeContender) bool { return o == c })
		f.notify()
	}()
	for f.leader != nil || f.queue[0] != c {
		changed := f.wait()
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if ctx.Err() != nil {
			return term, true
		}
	}
	f.leader = c
	f.epoch = max(f.epoch, f.Heard) + 1
	term.epoch = f.epoch
	term.ctx, c.end = context.WithCancelCause(ctx)
	return term, false
}

// Leader implements election.Detector.
func (c *FakeContender) Leader(ctx context.Context, known *election.Candidate) (*election.Candidate, error) {
	f := c.fake
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		var leader *election.Candidate
		if f.leader != nil {
			own := f.leader.candidate
			leader = &own
		}
		if (leader == nil) != (known == nil) || leader != nil && *leader != *known {
			return leader, nil
		}
		changed := f.wait()
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}
