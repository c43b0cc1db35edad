package zookeeper

import (
	"context"
	"errors"
	"time"
)

// ErrSessionLost is the cause of a lease that ended because its session expired, or could have by now.
var ErrSessionLost = errors.New("ZooKeeper session lost")

// A session lives for its timeout after the last moment at which the ensemble's leader was told of it. A heartbeat is a sync,
// which that leader answers itself: a mere ping is answered by a server that may have been cut off from it already. But
// followers tell the leader of their sessions only every half tick, so that its clock may have begun that much, and the time
// between two heartbeats, earlier than what we saw: that is what the last third is for, and for the work that was begun
// while the lease held.
//
// A session that a new connection was given back is as good: the server that we greet asks that same leader for it, whose clock for
// the session begins anew (ZooKeeper: LearnerHandler's REVALIDATE, LeaderZooKeeperServer.revalidateSession). Neither waits for a
// disk, while a sync waits for the writes before it: where the disks are slow, the lease holds by the connections that follow on
// each sync that was not answered in time. The price is that writes under way lose their answers, which have to be looked for.
const (
	leaseNumerator, leaseDenominator = 2, 3
	// beatsPerTimeout is how many heartbeats fall into a timeout.
	beatsPerTimeout = 8
	// answersPerTimeout is how soon a heartbeat has to be answered; otherwise another server is tried.
	answersPerTimeout = 4
)

// Lease is the certainty that a session lives. It ends by itself; once lost, it stays lost.
type Lease struct {
	c       *Client
	session int64

	// cancel functions are called with c.mu held: they only close channels of contexts.
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	end    time.Time // guarded by c.mu
}

// Hold waits for a session that the ensemble's leader confirms, and returns a lease of it. The caller releases it.
func (c *Client) Hold(ctx context.Context) (*Lease, error) {
	for {
		if _, err := c.await(ctx); err != nil {
			return nil, err
		}
		c.mu.Lock()
		session, timeout := c.session, c.timeout
		c.mu.Unlock()
		asked := time.Now()
		err := c.Sync(ctx)
		switch {
		case err == nil:
		case errors.Is(err, ErrUncertain) && ctx.Err() == nil:
			continue // await waits until there is a connection again
		default:
			return nil, err
		}
		if l := c.lease(session, asked.Add(leaseOf(timeout))); l != nil {
			return l, nil
		}
	}
}

func leaseOf(timeout time.Duration) time.Duration {
	return timeout * leaseNumerator / leaseDenominator
}

// lease makes a lease of the session, if that is still the one.
func (c *Client) lease(session int64, end time.Time) *Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || session == 0 || c.session != session || !time.Now().Before(end) {
		return nil
	}
	l := &Lease{c: c, session: session, end: end}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.timer = time.AfterFunc(time.Until(end), func() { l.Valid() })
	c.leases[l] = struct{}{}
	c.kick()
	return l
}

// Session is the session that is leased, as Stat.EphemeralOwner shows it.
func (l *Lease) Session() int64 { return l.session }

// Valid tells whether the lease holds at this very moment. Work that must not outlive it asks just before it does what can't
// be undone: a process that was frozen runs on for a moment before its timers do, and its contexts end only by those.
func (l *Lease) Valid() bool {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	return l.valid()
}

// valid is Valid with c.mu held.
func (l *Lease) valid() bool {
	if l.ctx.Err() == nil && !time.Now().Before(l.end) {
		l.lose(ErrSessionLost)
	}
	return l.ctx.Err() == nil
}

// Bind returns a context that ends when ctx does, when the lease does, with that cause, or by the function returned.
func (l *Lease) Bind(ctx context.Context, cause error) (context.Context, context.CancelCauseFunc) {
	bound, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.ctx, func() { cancel(cause) })
	context.AfterFunc(bound, func() { stop() })
	return bound, cancel
}

// Done is closed when the lease is lost or released.
func (l *Lease) Done() <-chan struct{} { return l.ctx.Done() }

// Err is why the lease is over, nil while it holds.
func (l *Lease) Err() error {
	if l.Valid() {
		return nil
	}
	return context.Cause(l.ctx)
}

// Release gives a lease back; the session goes on.
func (l *Lease) Release() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.lose(context.Canceled)
}

// lose ends a lease; c.mu is held.
func (l *Lease) lose(cause error) {
	l.cancel(cause)
	l.timer.Stop()
	delete(l.c.leases, l)
}

// kick makes the heart beat at once; c.mu may be held.
func (c *Client) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// beat renews leases until ctx ends. Without any it is silent: the connection pings by itself.
func (c *Client) beat(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		c.mu.Lock()
		session, timeout, b := c.session, c.timeout, c.backend
		due := c.connected && len(c.leases) > 0
		c.mu.Unlock()
		wait := time.Hour
		if due {
			wait = timeout / beatsPerTimeout
			asked := time.Now()
			give, cancel := context.WithTimeout(ctx, timeout/answersPerTimeout)
			err := c.Sync(give)
			silent := give.Err() != nil && ctx.Err() == nil
			cancel()
			switch {
			case err == nil:
				c.mu.Lock()
				c.renew(session, asked.Add(leaseOf(timeout)))
				c.mu.Unlock()
			case silent:
				// This server may be frozen or cut off, where another would answer.
				b.drop()
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-c.wake:
		case <-ctx.Done():
			return
		}
	}
}

// renew lengthens the leases of a session that was confirmed; c.mu is held.
func (c *Client) renew(session int64, end time.Time) {
	if c.session != session {
		return
	}
	for l := range c.leases {
		// One that ran out meanwhile is lost, whatever the servers think.
		if l.session == session && l.valid() && end.After(l.end) {
			l.end = end
			l.timer.Reset(time.Until(end))
		}
	}
}
