package scheduler

import (
	"time"

	"starling/marathon/app"
	"starling/master/mesos"
)

// backoff holds the launches of one app back after its tasks have ended badly. It counts for one configuration of the app:
// another one begins afresh. It is not stored.
//
// The delays are those of the original, 1, 1.15, 1.32 ... 300 seconds by default, and a loop of crashes climbs them in the
// same way. Three things differ, because one lost machine must not cost an app with many instances half an hour:
//
//   - Failures of one burst count once. The original raises the delay for each task, so that twenty tasks which die
//     together wait for fourteen seconds. Here only a task that was launched after the delay was last raised raises it
//     again: those from before say nothing about whether waiting has helped.
//   - A launch does not move the deadline. In the original each does, and so after one failure all instances that wait,
//     those of a later scaling included, are launched one a delay. Here all of them may go when the deadline has passed. Where
//     they are many, and the next ones have crashed as well, some go at first and more as these last; see trial.
//   - What the platform did to a task is no failure of its app; see platformFault.
type backoff struct {
	config   app.Timestamp // the lastConfigChangeAt that it belongs to
	delay    time.Duration
	deadline time.Time // no launch before
	raised   time.Time // when delay became what it is
	again    bool      // a task that was launched after a delay has ended badly, too
	last     time.Time // of the last failure or step towards running, for forgetting it
}

// fail takes note of the bad end of a task that was launched at that time.
func (b *backoff) fail(now, launched time.Time, a *app.App) {
	limit := time.Duration(a.MaxLaunchDelaySeconds) * time.Second
	b.last = now
	switch {
	case b.delay == 0 || b.config != a.VersionInfo.LastConfigChangeAt:
		b.config = a.VersionInfo.LastConfigChangeAt
		b.delay = min(time.Duration(a.BackoffSeconds)*time.Second, limit)
		b.raised, b.again = now, false
	case launched.After(b.raised):
		b.delay = min(time.Duration(float64(b.delay)*a.BackoffFactor), limit)
		b.raised, b.again = now, true
	case b.deadline.After(now):
		return // it waits along with the others of its burst
	}
	b.deadline = now.Add(b.delay)
}

// progress takes note that a task has just taken a step towards running. Whether that helps is not known yet, so the delay
// is not forgotten.
func (b *backoff) progress(now time.Time) {
	if b.delay > 0 {
		b.last = now
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

// platformFault tells of the end of a task that its app has nothing to do with: the launch never got through, or the agent
// was lost, restarted or drained. The original counts most of these as failures. TASK_LOST is judged by the same reasons,
// as it stands for all of these states towards frameworks that are not aware of partitions; executors, too, may send it,
// and that counts.
func platformFault(status *mesos.TaskStatus) bool {
	switch status.GetState() {
	case mesos.TaskState_TASK_GONE, mesos.TaskState_TASK_GONE_BY_OPERATOR:
		return true
	case mesos.TaskState_TASK_DROPPED, mesos.TaskState_TASK_LOST:
	default:
		return false
	}
	if status.Reason == nil {
		return false
	}
	switch status.GetReason() {
	case mesos.TaskStatus_REASON_AGENT_RESTARTED, mesos.TaskStatus_REASON_AGENT_DISCONNECTED,
		mesos.TaskStatus_REASON_AGENT_REMOVED, mesos.TaskStatus_REASON_AGENT_REMOVED_BY_OPERATOR,
		mesos.TaskStatus_REASON_AGENT_UNKNOWN, mesos.TaskStatus_REASON_MASTER_DISCONNECTED,
		mesos.TaskStatus_REASON_INVALID_OFFERS, mesos.TaskStatus_REASON_RECONCILIATION:
		return true
	}
	return false
}
