package scheduler

import (
	"time"

	"starling/marathon/app"
)

// backoff holds the launches of one app back after its tasks have ended badly. It counts for one configuration of the app:
// another one begins afresh. It is not stored.
type backoff struct {
	config   app.Timestamp // the lastConfigChangeAt that it belongs to
	delay    time.Duration
	deadline time.Time // no launch before
	last     time.Time // of the last change, for forgetting it
}

// next is the delay after one more failure.
func (b *backoff) fail(now time.Time, a *app.App) {
	limit := time.Duration(a.MaxLaunchDelaySeconds) * time.Second
	if b.delay == 0 || b.config != a.VersionInfo.LastConfigChangeAt {
		b.delay = min(time.Duration(a.BackoffSeconds)*time.Second, limit)
	} else {
		b.delay = min(time.Duration(float64(b.delay)*a.BackoffFactor), limit)
	}
	b.config = a.VersionInfo.LastConfigChangeAt
	b.deadline, b.last = now.Add(b.delay), now
}

// advance moves the deadline without changing the delay: a task has just taken a step towards running, and whether that
// helped is not known yet.
func (b *backoff) advance(now time.Time) {
	if b.delay > 0 {
		b.deadline, b.last = now.Add(b.delay), now
	}
}

// until is when launches may go on; a time in the past, or none, means now.
func (b *backoff) until(now time.Time, a *app.App) time.Time {
	if b.delay == 0 || b.config != a.VersionInfo.LastConfigChangeAt {
		return time.Time{}
	}
	if now.Sub(b.last) > time.Duration(a.MaxLaunchDelaySeconds)*time.Second && !now.Before(b.deadline) {
		b.reset()
		return time.Time{}
	}
	return b.deadline
}

// pending tells whether launches are held back now.
func (b *backoff) pending(now time.Time, a *app.App) bool { return b.until(now, a).After(now) }

func (b *backoff) reset() { *b = backoff{} }
