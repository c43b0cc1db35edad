package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/master/mesos"
	protocol "starling/master/mesos/executor"
	"starling/master/nodeapi"
)

// shutdownRun asks an executor to end, and ends it when its grace period is over. longest is the longest that may be; nil
// leaves it to the executor's own.
func (a *Agent) shutdownRun(r *run, longest *time.Duration) {
	now := time.Now()
	grace := a.cfg.ShutdownGrace
	if d := r.info.GetShutdownGracePeriod(); d != nil {
		grace = max(0, time.Duration(d.GetNanoseconds()))
	}
	if longest != nil {
		grace = min(grace, *longest)
	}
	if r.phase == runEnded || r.shutdown != nil && !now.Add(grace).Before(r.shutdown.At.Add(r.shutdown.Grace)) {
		return
	}
	first := r.shutdown == nil
	r.shutdown = &executor.Order{Grace: grace, At: now}
	a.saveRun(r)
	if first {
		for _, t := range r.sorted() {
			if t.queued {
				a.unqueue(t)
			} else if r.builtin {
				a.perform(t, t.cmd.Kill(now, nil))
			}
		}
	}
	if r.phase == runEnded { // of its tasks, none was left
		return
	}
	if r.builtin {
		a.wakeRun(r, now.Add(grace), func() {
			for _, t := range r.sorted() {
				a.perform(t, t.cmd.Kill(time.Now(), noGrace))
			}
		})
		a.tidyRun(r)
		return
	}
	switch {
	case r.phase == runIntended:
		a.over(r)
	case r.phase == runStarting:
		// It goes on in startedRun.
		if r.abandon != nil {
			r.abandon()
		}
	case r.phase == runRegistering && !r.subscribed:
		a.endRun(r, nil)
	default:
		// One that is not connected may come back, and hears of it then.
		r.phase = runEnding
		if r.stream != nil {
			a.push(r, &protocol.Event{Type: protocol.Event_SHUTDOWN.Enum()})
		}
		a.wakeRun(r, now.Add(grace), func() { a.endRun(r, nil) })
	}
}

// wakeRun sets the one timer of a run.
func (a *Agent) wakeRun(r *run, at time.Time, f func()) {
	a.timers.stop(r.wake)
	r.wake = a.timers.at(at, f)
}

// endRun ends an executor now. Its tasks are told to have ended of the verdict, or else of its exit.
func (a *Agent) endRun(r *run, verdict *executor.Refusal) {
	if r.phase == runEnded {
		return
	}
	r.phase = runEnding
	if r.verdict == nil {
		r.verdict = verdict
	}
	a.timers.stop(r.wake)
	if r.stream != nil {
		a.push(r, &protocol.Event{Type: protocol.Event_SHUTDOWN.Enum()})
	}
	if r.builtin {
		for _, t := range r.sorted() {
			a.perform(t, t.cmd.Kill(time.Now(), noGrace))
		}
		return
	}
	a.destroyRun(r)
}

// exitedRun takes the end of an executor's process, and that of its tasks with it.
func (a *Agent) exitedRun(r *run, exit containerizer.Exit) {
	switch {
	case r.starting:
		r.early = &exit
	case r.phase != runEnded:
		r.exit = &exit
		a.over(r)
	}
}

// over ends a run of which no process runs any more, and its tasks with it.
func (a *Agent) over(r *run) {
	r.phase = runEnded
	a.timers.stop(r.wake)
	if r.stream != nil {
		r.stream.end()
		r.stream = nil
	}
	for _, t := range r.sorted() {
		if !t.cmd.Ended() && (t.queued || t.durable && !r.builtin) {
			a.endWith(t)
		} // the rest follows once its intent is on disk (enqueue), or ends with its own container
	}
	r.queue = nil
	a.destroyRun(r)
}

// endWith ends a task because its executor has ended.
func (a *Agent) endWith(t *task) {
	t.queued = false
	a.free(t)
	r := t.run
	remote, ok := t.cmd.(*executor.Remote)
	switch {
	case r.failed != nil:
		a.perform(t, t.cmd.LaunchFailed(r.failed))
	case !ok || r.exit == nil && r.verdict == nil:
		a.perform(t, t.cmd.CancelLaunch())
	case r.verdict != nil:
		a.perform(t, remote.Lost(r.verdict))
	default:
		a.perform(t, remote.Exited(*r.exit))
	}
}

// destroyRun ends whatever runs in a run's container or group, and frees its resources once it is over. It is tried until
// it works.
func (a *Agent) destroyRun(r *run) {
	if r.destroying || r.clean {
		return
	}
	r.destroying = true
	a.endNested(r.container)
	a.control.run(func() {
		ctx, cancel := a.workContext(controlTimeout)
		defer cancel()
		var err error
		if r.builtin {
			err = a.cfg.Containerizer.CloseGroup(ctx, r.container)
		} else {
			err = a.cfg.Containerizer.Destroy(ctx, r.container)
		}
		a.post(func() { a.destroyedRun(r, err) })
	})
}

func (a *Agent) destroyedRun(r *run, err error) {
	r.destroying = false
	problem := "container " + r.container
	unknown := errors.Is(err, containerizer.ErrUnknownContainer)
	if err != nil && !unknown {
		a.counters.DestroyErrors++
		if !errors.Is(err, context.Canceled) {
			a.cfg.Log.Warn("cannot end executor", "framework_id", r.key.framework, "executor_id", r.key.executor,
				"container_id", r.container, "err", err)
		}
		a.problem(problem, fmt.Sprintf("cannot end executor %q, its resources stay taken: %v", r.key.executor, err))
		a.timers.at(time.Now().Add(retryDestroy), func() { a.destroyRun(r) })
		return
	}
	a.problem(problem, "")
	switch {
	case r.phase == runEnded:
		a.cleanedRun(r)
	case r.builtin:
		r.phase = runEnded
		a.cleanedRun(r)
	case unknown:
		a.exitedRun(r, containerizer.Exit{ID: r.container, At: a.cfg.Now()})
	default:
		// The exit comes through the channel like any other.
	}
}

// cleanedRun frees what a run held, and tells of its end.
func (a *Agent) cleanedRun(r *run) {
	if r.clean {
		return
	}
	r.clean = true
	a.unboundRun(r)
	if a.runs[r.key] == r {
		a.ledger.Release(r.holder())
		a.changed.resources = true
		delete(a.runs, r.key)
		a.changed.runs[r.key] = nil
	}
	if !r.forgotten {
		a.executorExited(r)
	}
	a.control.run(func() { a.collector.Release(r.sandbox, r.container) })
	a.saveRun(r)
	a.tidyRun(r)
}

// executorExited tells the framework of the end of an executor, once.
func (a *Agent) executorExited(r *run) {
	wait := int32(-1) // where there is no status, as in Mesos
	switch {
	case r.exit != nil && r.exit.Known:
		wait = int32(r.exit.Status)
	case r.builtin && r.failed == nil:
		wait = 0
	}
	a.reports.exit(&nodeapi.ExecutorExit{
		FrameworkId: r.framework.info.GetId(), ExecutorId: r.info.GetExecutorId(), Status: wait,
	})
}

// tidyRun does what became possible: ends a default executor that has nothing to do, forgets the container, the files, and
// the run.
func (a *Agent) tidyRun(r *run) {
	if r.builtin && len(r.tasks) == 0 && r.phase != runStarting && r.phase != runEnded {
		// Its last task is done, and acknowledged.
		r.phase = runEnding
		a.timers.stop(r.wake)
		a.destroyRun(r)
	}
	if !r.clean {
		return
	}
	if !r.removed {
		for t := range r.tasks {
			if !t.saved {
				return
			}
		}
		r.removed = true
		a.committer.Submit(checkpoint.EndExecutor(r.container), func(err error) {
			a.post(func() {
				if err != nil {
					a.counters.DiskErrors++
					a.cfg.Log.Warn("cannot forget executor on disk", "container_id", r.container, "err", err)
				}
			})
		})
		if !r.builtin {
			a.control.run(func() { a.removeOrphan(r.container) })
		}
	}
	if len(r.tasks) == 0 && !r.retired {
		r.retired = true
		delete(a.runIDs, r.container)
		a.retireRun(r)
	}
}

// dischargeRun ends an executor of which nobody is to be told any more.
func (a *Agent) dischargeRun(r *run, longest *time.Duration) {
	r.forgotten = true
	a.saveRun(r)
	a.shutdownRun(r, longest)
}

// gone is the state of a task that was ended because the agent could do nothing else with it: frameworks that don't know the
// newer states get the old one.
func (f *framework) gone() mesos.TaskState {
	if f.has(mesos.FrameworkInfo_Capability_PARTITION_AWARE) {
		return mesos.TaskState_TASK_GONE
	}
	return mesos.TaskState_TASK_LOST
}
