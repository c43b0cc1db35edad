package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/status"
	"starling/master/mesos"
)

const (
	// controlTimeout bounds a signal, a removal, and one try to destroy a container.
	controlTimeout = 30 * time.Second
	// retryDestroy is the pause before the next try.
	retryDestroy = 5 * time.Second
)

// noGrace is the policy of an end at once.
var noGrace = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(0)}}

// kill ends a task by order. One that is unknown is told as such, once: there is nothing to keep the update with.
func (a *Agent) kill(key status.Key, policy *mesos.KillPolicy) {
	t := a.tasks[key]
	if t == nil {
		if a.ended.Has(key.Framework, key.Task) {
			// It ended, and its framework has acknowledged that.
			return
		}
		state := mesos.TaskState_TASK_LOST
		if f := a.frameworks[key.Framework]; f != nil {
			state = f.dropped()
		}
		a.once(key.Framework, (&executor.Refusal{
			State: state, Reason: mesos.TaskStatus_REASON_EXECUTOR_TERMINATED, Message: "Cannot find executor",
		}).Status(&mesos.TaskID{Value: &key.Task}))
		return
	}
	a.perform(t, t.cmd.Kill(time.Now(), policy))
}

// shutdownFramework ends all tasks of a framework, and forgets what it was to be told.
func (a *Agent) shutdownFramework(id string) {
	a.forgetOperations(func(op *mesos.Operation) bool { return op.GetFrameworkId().GetValue() == id })
	for _, t := range a.tasks {
		if t.key.Framework == id {
			a.discharge(t, func() executor.Step { return t.cmd.Kill(time.Now(), nil) })
		}
	}
	for _, r := range a.runIDs {
		if r.key.framework == id {
			a.dischargeRun(r, nil)
		}
	}
}

// signal sends a signal to a task's container.
func (a *Agent) signal(t *task, signal int) {
	a.control.run(func() {
		ctx, cancel := a.workContext(controlTimeout)
		defer cancel()
		err := a.cfg.Containerizer.Signal(ctx, t.container, signal)
		if err == nil {
			return
		}
		a.post(func() { a.signalFailed(t, err) })
	})
}

// signalFailed leaves the rest to the end of the grace period, except for a container that is not there.
func (a *Agent) signalFailed(t *task, err error) {
	if errors.Is(err, containerizer.ErrUnknownContainer) {
		a.exitedTask(t, containerizer.Exit{ID: t.container, At: a.cfg.Now()})
		return
	}
	a.cfg.Log.Warn("cannot signal container", "framework_id", t.key.Framework, "task_id", t.key.Task,
		"container_id", t.container, "err", err)
}

// destroy ends whatever runs in the task's container, and frees its resources once the task has ended too. It is tried
// until it works.
func (a *Agent) destroy(t *task) {
	if t.destroying || t.clean {
		return
	}
	t.destroying = true
	a.control.run(func() {
		ctx, cancel := a.workContext(controlTimeout)
		defer cancel()
		err := a.cfg.Containerizer.Destroy(ctx, t.container)
		a.post(func() { a.destroyed(t, err) })
	})
}

func (a *Agent) destroyed(t *task, err error) {
	t.destroying = false
	problem := "container " + t.container
	unknown := errors.Is(err, containerizer.ErrUnknownContainer)
	if err != nil && !unknown {
		a.counters.DestroyErrors++
		if !errors.Is(err, context.Canceled) {
			a.cfg.Log.Warn("cannot destroy container", "framework_id", t.key.Framework, "task_id", t.key.Task,
				"container_id", t.container, "err", err)
		}
		a.problem(problem, fmt.Sprintf("cannot end task %q, its resources stay taken: %v", t.key.Task, err))
		a.timers.at(time.Now().Add(retryDestroy), func() { a.destroy(t) })
		a.letGo(t)
		return
	}
	a.problem(problem, "")
	switch {
	case t.cmd.Ended():
		a.cleaned(t)
	case unknown:
		a.exitedTask(t, containerizer.Exit{ID: t.container, At: a.cfg.Now()})
	default:
		// The exit comes through the channel like any other.
	}
}

// cleaned frees what the task held.
func (a *Agent) cleaned(t *task) {
	if t.clean {
		return
	}
	a.free(t)
	a.changed.tasks[t.key] = t
	a.unboundTask(t)
	a.control.run(func() { a.collector.Release(t.sandbox, t.container) })
	a.letGo(t)
	a.tidy(t)
}

// exited takes an exit from the containerizer.
func (a *Agent) exited(exit containerizer.Exit) {
	if a.exitedNested(exit) {
		return
	}
	a.tellEnd(exit.ID, exit)
	a.endNested(exit.ID)
	if r := a.runIDs[exit.ID]; r != nil {
		a.exitedRun(r, exit)
		return
	}
	t := a.containers[exit.ID]
	if t == nil {
		// A container without a task, left alone until now, ended by itself: nobody will ask for it.
		a.problem("container "+exit.ID, "")
		delete(a.orphans, exit.ID)
		a.control.run(func() { a.removeOrphan(exit.ID) })
		return
	}
	a.exitedTask(t, exit)
}

func (a *Agent) exitedTask(t *task, exit containerizer.Exit) {
	if t.starting {
		t.early = &exit
		return
	}
	if t.cmd.Ended() {
		return
	}
	a.stopChecks(t)
	a.perform(t, t.cmd.Exited(exit))
	// The first process ended; what it left behind goes now.
	a.destroy(t)
}

func (a *Agent) removeOrphan(id string) {
	ctx, cancel := a.workContext(controlTimeout)
	defer cancel()
	if err := a.cfg.Containerizer.Remove(ctx, id); err != nil && !errors.Is(err, containerizer.ErrUnknownContainer) {
		a.cfg.Log.Warn("cannot remove container", "container_id", id, "err", err)
	}
}

// acknowledge takes the word that a framework has seen an update.
func (a *Agent) acknowledge(key status.Key, id status.UUID) {
	outcome := a.streams.Acknowledge(time.Now(), key, id)
	t := a.tasks[key]
	if outcome == status.Ignored || t == nil {
		a.counters.InvalidAcknowledgements++
		return
	}
	a.counters.Acknowledgements++
	t.acked++
	if outcome == status.Closed {
		t.closed = true
		a.tidy(t)
		if a.tasks[key] == nil {
			return
		}
	}
	// An acknowledgement that is lost costs one repetition: several are written together.
	a.unsaved[t] = struct{}{}
	if a.unsavedTimer == nil {
		a.unsavedTimer = a.timers.at(time.Now().Add(saveAcknowledged), func() {
			a.unsavedTimer = nil
			for t := range a.unsaved {
				a.save(t, nil)
			}
		})
	}
}

// saveAcknowledged is how long an acknowledgement may stay in memory alone.
const saveAcknowledged = 200 * time.Millisecond
