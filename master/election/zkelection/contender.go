// Package zkelection elects masters in ZooKeeper as Mesos does, so that whatever finds a Mesos master finds ours: each
// contender has an ephemeral, sequential child of the URL's path, with its MasterInfo as JSON, and the lowest leads.
//
// A contender works under a lease of its session (package zookeeper) from the moment it looks for its node. When the lease
// ends, the term does, before the servers could have let another one lead. The session may live on, as after a short cut or a
// lost quorum: the node is then found again by its owner, and the contender keeps its place, or leads anew with a higher
// epoch. While a lead that lost its lease still tidies up, its node is taken away, so that it is in nobody's way.
//
// Nothing that ZooKeeper does ends Run: it stands again for as long as its context lasts.
package zkelection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"starling/master/election"
	"starling/master/store"
	"starling/master/zookeeper"
)

const (
	// firstPause and lastPause are between attempts to stand for election.
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
	// raisePatience is how long raising the epoch may take. Who can't do it for so long lets another try.
	raisePatience = 10 * time.Second
	// farewell is how long a contender that stops tries to take its node away. Its session goes a little later anyway, and who
	// stops a master does not wait for much longer.
	farewell = 2 * time.Second
)

// errGone is the end of a candidacy whose node somebody took away.
var errGone = errors.New("the node of this contender is gone")

// Config is what a contender is made of.
type Config struct {
	// Client runs for longer than the contender. Its session belongs to one contender at a time.
	Client *zookeeper.Client
	// Store holds the document that counts the terms.
	Store store.Store
	// Heard returns the highest epoch that anyone is known to have heard of; nil has heard of none.
	Heard func() uint64
	// Log is told who was elected, and what failed; nil tells nobody.
	Log *slog.Logger
}

// Contender stands for election in ZooKeeper.
type Contender struct {
	cfg     Config
	log     *slog.Logger
	running atomic.Bool
}

var _ election.Contender = (*Contender)(nil)

// New returns a contender.
func New(cfg Config) *Contender {
	if cfg.Heard == nil {
		cfg.Heard = func() uint64 { return 0 }
	}
	return &Contender{cfg: cfg, log: logger(cfg.Log)}
}

func logger(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log.With("component", "election")
}

// leadError is the error of a lead whose term held.
type leadError struct{ error }

func (e leadError) Unwrap() error { return e.error }

// Run implements election.Contender. It fails when the epoch's document is unusable, and when the client or the store was
// closed.
func (c *Contender) Run(ctx context.Context, candidate election.Candidate, lead func(context.Context, election.Term) error) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("election is running already")
	}
	defer c.running.Store(false)
	data, err := encode(candidate)
	if err != nil {
		return err
	}
	pause := firstPause
	for {
		began := time.Now()
		err := c.stand(ctx, data, lead)
		var failed leadError
		switch {
		case errors.As(err, &failed):
			return failed.error
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, election.ErrEpoch), errors.Is(err, zookeeper.ErrClosed), errors.Is(err, store.ErrClosed):
			return err
		case err == nil || time.Since(began) > lastPause:
			pause = firstPause
		}
		wait := pause/2 + rand.N(pause)
		if errors.Is(err, zookeeper.ErrNoAuth) {
			err = fmt.Errorf("user and password of the ZooKeeper URL, or the lack of them, do not fit: %w", err)
		}
		if err != nil {
			c.log.Warn("standing for election again", "err", err, "dur", wait)
		}
		pause = min(2*pause, lastPause)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// stand is one candidacy, under one lease of a session. It returns nil when a term was given up.
func (c *Contender) stand(ctx context.Context, data []byte, lead func(context.Context, election.Term) error) error {
	lease, err := c.cfg.Client.Hold(ctx)
	if err != nil {
		return err
	}
	defer lease.Release()
	work, cancel := lease.Bind(ctx, election.ErrLeaseLost)
	defer cancel(nil)

	if err := c.cfg.Client.MakePath(work, zookeeper.Public); err != nil {
		return err
	}
	node, err := c.enter(work, lease.Session(), data)
	if err != nil {
		return err
	}
	err = c.await(work, lease.Session(), node)
	if err == nil {
		err = c.term(work, cancel, lease, node, lead)
	}
	// The session may outlive the lease; then the node is kept for the next candidacy, which comes at once.
	if lease.Valid() || ctx.Err() != nil {
		leave, stop := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer stop()
		c.remove(leave, lease.Session(), node)
	}
	return err
}

// enter returns this session's node, and makes it where there is none. It leaves one.
func (c *Contender) enter(ctx context.Context, session int64, data []byte) (string, error) {
	for {
		children, err := c.cfg.Client.Children(ctx, "")
		if err != nil {
			return "", err
		}
		own, err := c.own(ctx, session, members(children))
		if err != nil {
			return "", err
		}
		for i, node := range own {
			held, _, err := c.cfg.Client.Get(ctx, node)
			switch {
			case errors.Is(err, zookeeper.ErrNoNode):
				continue
			case err != nil:
				return "", err
			case bytes.Equal(held, data):
				c.sweep(ctx, session, own[i+1:])
				return node, nil
			}
			c.remove(ctx, session, node) // of another candidate
		}
		node, err := c.cfg.Client.Create(ctx, labelJSON+"_", data, zookeeper.EphemeralSequential, zookeeper.Public)
		// The answer may be lost where the node was made: then it is found by its owner.
		if !errors.Is(err, zookeeper.ErrUncertain) {
			return node, err
		}
	}
}

// own returns the session's nodes among the members, in their order.
func (c *Contender) own(ctx context.Context, session int64, all []member) ([]string, error) {
	var own []string
	for _, m := range all {
		if m.label != labelJSON {
			continue
		}
		stat, there, err := c.cfg.Client.Stat(ctx, m.name)
		if err != nil {
			return nil, err
		}
		if there && stat.EphemeralOwner == session {
			own = append(own, m.name)
		}
	}
	return own, nil
}

func (c *Contender) sweep(ctx context.Context, session int64, nodes []string) {
	for _, node := range nodes {
		c.remove(ctx, session, node)
	}
}

// await waits until the node is the lowest. A create whose answer was lost may be done late: of several nodes the session
// keeps the given one.
func (c *Contender) await(ctx context.Context, session int64, node string) error {
	seen := make(map[string]bool) // members whose owner was looked at
	for {
		children, changed, err := c.cfg.Client.WatchChildren(ctx, "")
		if err != nil {
			return err
		}
		all := members(children)
		var unseen []member
		present := false
		for _, m := range all {
			if present = present || m.name == node; m.name != node && !seen[m.name] {
				unseen = append(unseen, m)
			}
		}
		if !present {
			return errGone
		}
		twins, err := c.own(ctx, session, unseen)
		if err != nil {
			return err
		}
		c.sweep(ctx, session, twins)
		for _, m := range unseen {
			seen[m.name] = true
		}
		if all[0].name == node {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// term leads, once the node is the lowest.
func (c *Contender) term(ctx context.Context, cancel context.CancelCauseFunc, lease *zookeeper.Lease, node string, lead func(context.Context, election.Term) error) error {
	raise, stop := context.WithTimeout(ctx, raisePatience)
	epoch, err := election.Raise(raise, c.cfg.Store, c.cfg.Heard(), c.log)
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("cannot raise the epoch: %w", err)
	}
	guarded := make(chan struct{})
	go func() {
		defer close(guarded)
		c.guard(ctx, cancel, lease, node)
	}()
	over := make(chan struct{})
	cleared := make(chan struct{})
	go func() {
		defer close(cleared)
		c.clear(ctx, lease, node, over)
	}()
	c.log.Info("elected", "epoch", epoch, "node", node)
	err = lead(ctx, election.Term{Epoch: epoch, Lease: func() error {
		if lease.Valid() && ctx.Err() == nil {
			return nil
		}
		return election.ErrLeaseLost
	}})
	held := lease.Valid() && ctx.Err() == nil
	lost := context.Cause(ctx)
	close(over)
	cancel(nil)
	<-guarded
	<-cleared
	switch {
	case held && err != nil:
		return leadError{err}
	case held:
		return nil
	case !lease.Valid():
		return election.ErrLeaseLost
	}
	return lost
}

// guard ends the term when somebody takes the node away: another one leads then.
func (c *Contender) guard(ctx context.Context, cancel context.CancelCauseFunc, lease *zookeeper.Lease, node string) {
	for ctx.Err() == nil {
		stat, there, changed, err := c.cfg.Client.Watch(ctx, node)
		switch {
		case err != nil:
			// The connection is lost, and the lease runs out by itself; the client waits for the next one.
			if !errors.Is(err, zookeeper.ErrUncertain) {
				return
			}
			continue
		case !there || stat.EphemeralOwner != lease.Session():
			c.log.Error("the node of this leader was taken away", "node", node)
			cancel(election.ErrLeaseLost)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// clear takes the node away when the lease is lost, until lead has returned: it would keep others from leading, where the
// session lives.
func (c *Contender) clear(ctx context.Context, lease *zookeeper.Lease, node string, over <-chan struct{}) {
	select {
	case <-over:
		return
	case <-lease.Done():
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		select {
		case <-over:
		case <-work.Done():
		}
		stop()
	}()
	c.remove(work, lease.Session(), node)
}

// remove takes a node of the session away, as long as ctx lasts. What it can't do the end of the session does.
func (c *Contender) remove(ctx context.Context, session int64, node string) {
	for ctx.Err() == nil {
		stat, there, err := c.cfg.Client.Stat(ctx, node)
		if err == nil && (!there || stat.EphemeralOwner != session) {
			return // servers that were wiped give names anew
		}
		if err == nil {
			err = c.cfg.Client.Delete(ctx, node, zookeeper.Any)
		}
		if err == nil || errors.Is(err, zookeeper.ErrNoNode) {
			return
		}
		if !errors.Is(err, zookeeper.ErrUncertain) {
			if ctx.Err() == nil {
				c.log.Warn("cannot take the node away", "node", node, "err", err)
			}
			return
		}
	}
}
