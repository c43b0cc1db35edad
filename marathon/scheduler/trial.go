package scheduler

import (
	"math"
	"time"
)

const (
	// trialTasks is how many tasks of an app whose tasks crash again may be on trial at the same time, beside as many as have
	// lasted. An app that is smaller never notices.
	trialTasks = 5
	// trialTime is for how long a task must run to have lasted, where the delay of the backoff is not shorter.
	trialTime = 3 * time.Second
)

// trial is how many tasks of an app may be launched after some of its tasks ended badly, and those that replaced them as well;
// and when it may be more though nothing has happened, zero for never.
//
// All that wait may go when the delay is over, and of hundreds that crash as soon as they begin each round would cost every
// agent the launch of them all. So from the second round on a few are tried first, and for each that lasts one more: those that
// are well again come back in a few steps, each twice the last, and those that are not cost little.
func (s *Scheduler) trial(now time.Time, sp *spec) (room int, next time.Time) {
	b := &sp.backoff
	if !b.again || b.config != sp.def.VersionInfo.LastConfigChangeAt {
		return math.MaxInt, time.Time{}
	}
	room = trialTasks
	for _, i := range sp.instances {
		if !i.Condition.Active() || i.Condition.unreachable() || i.Version < b.config {
			continue
		}
		lasted := i.StartedAt.Add(min(b.delay, trialTime))
		switch {
		case i.StartedAt.IsZero():
			room--
		case lasted.After(now):
			room--
			if next.IsZero() || lasted.Before(next) {
				next = lasted
			}
		default:
			room++
		}
	}
	return room, next
}

// wakeForTrial has Ready called when more of an app may be tried.
func (s *Scheduler) wakeForTrial(now time.Time, sp *spec) {
	if room, next := s.trial(now, sp); room <= 0 && !next.IsZero() && !sp.wake.Equal(next) {
		sp.wake = next
		s.timers.set(timer{at: next, kind: timerBackoff, app: sp.id})
	}
}
