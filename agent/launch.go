package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/status"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// launch takes tasks, and calls done once all of them are on disk: what the leader was answered is not forgotten. known tells
// that some of them had been taken before.
func (a *Agent) launch(l *nodeapi.Launch, done func(known bool)) {
	f := a.framework(l.GetFramework())
	waiting, known := 1, false
	one := func() {
		if waiting--; waiting == 0 {
			done(known)
		}
	}
	for _, info := range l.GetTasks() {
		key := status.Key{Framework: f.id, Task: info.GetTaskId().GetValue()}
		if a.tasks[key] != nil {
			// The call was repeated.
			known = true
			continue
		}
		if !utf8.ValidString(key.Framework + key.Task) {
			a.once(f.id, (&executor.Refusal{
				State: mesos.TaskState_TASK_ERROR, Reason: mesos.TaskStatus_REASON_TASK_INVALID,
				Message: fmt.Sprintf("%q contains invalid characters", key.Task),
			}).Status(info.GetTaskId()))
			continue
		}
		if a.ended.Has(key.Framework, key.Task) {
			known = true
			a.once(f.id, (&executor.Refusal{
				State: mesos.TaskState_TASK_ERROR, Reason: mesos.TaskStatus_REASON_TASK_INVALID,
				Message: "Task has duplicate ID: " + key.Task,
			}).Status(info.GetTaskId()))
			continue
		}
		waiting++
		a.accept(f, key, info, l.GetGroupExecutor() != nil, one)
	}
	if f.tasks == 0 && len(f.completed) == 0 {
		delete(a.frameworks, f.id)
	}
	one()
}

// accept enters a task that is new into the books, or refuses it. Either way it becomes a task with an intent on disk: a
// refused one has its terminal status from the start, and its id is used up like any other.
func (a *Agent) accept(f *framework, key status.Key, info *mesos.TaskInfo, group bool, done func()) {
	t := &task{
		key: key, framework: f, info: info, container: uuid.NewString(), launched: a.cfg.Now(),
		state: mesos.TaskState_TASK_STAGING, cmd: executor.NewCommand(f.info, info),
	}
	t.sandbox = a.layout.Dir(key.Framework, key.Task, t.container)
	f.tasks++
	a.tasks[key], a.containers[t.container] = t, t
	if refusal := a.admit(t, group); refusal != nil {
		t.clean = true
		t.cmd.Conclude()
		a.tell(t, refusal.Status(info.GetTaskId()))
		a.counters.Refused++
		a.cfg.Log.Warn("task refused", "framework_id", key.Framework, "task_id", key.Task, "reason", refusal.Message)
	} else {
		a.changed.resources = true
		for _, st := range t.cmd.Starting().Statuses {
			a.tell(t, st)
		}
	}
	intent := &checkpoint.Task{ContainerId: t.container, Framework: f.info, Task: t.info, State: a.stateOf(t)}
	a.committer.Submit(checkpoint.PutTask(intent), func(err error) {
		a.post(func() { a.intended(t, err); done() })
	})
}

// admit looks whether this node can run a task, and takes its resources if so.
func (a *Agent) admit(t *task, group bool) *executor.Refusal {
	invalid := func(format string, args ...any) *executor.Refusal {
		return &executor.Refusal{
			State: mesos.TaskState_TASK_ERROR, Reason: mesos.TaskStatus_REASON_TASK_INVALID,
			Message: fmt.Sprintf(format, args...),
		}
	}
	if got := t.info.GetAgentId().GetValue(); got != a.cfg.ID {
		return invalid("Task uses invalid agent %s while agent %s is expected", got, a.cfg.ID)
	}
	if a.leaving {
		return &executor.Refusal{
			State: t.framework.dropped(), Reason: mesos.TaskStatus_REASON_AGENT_REMOVED, Message: "Agent is gone",
		}
	}
	if a.draining != nil {
		return &executor.Refusal{
			State: t.framework.dropped(), Reason: mesos.TaskStatus_REASON_AGENT_DRAINING, Message: "Agent is draining",
		}
	}
	if group {
		return &executor.Refusal{
			State: mesos.TaskState_TASK_FAILED, Reason: mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED,
			Message: "Failed to launch container: task groups are not supported by this agent",
		}
	}
	res, err := resources.FromProto(t.info.GetResources())
	if err != nil {
		return invalid("Task uses invalid resources: %v", err)
	}
	if res.Empty() {
		return invalid("Task uses no resources")
	}
	if err := executor.Check(t.info); err != nil {
		if refusal, ok := errors.AsType[*executor.Refusal](err); ok {
			return refusal
		}
		return invalid("%v", err)
	}
	if faults := checkChecks(t.info); faults != "" {
		return invalid("%s", faults)
	}
	if a.degraded != "" {
		// To wait for the supervisor, however long it takes, would keep the framework from looking elsewhere.
		return &executor.Refusal{
			State: mesos.TaskState_TASK_FAILED, Reason: mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED,
			Message: "Failed to launch container: " + a.degraded,
		}
	}
	if _, err := a.mounts(res); err != nil {
		return &executor.Refusal{
			State: mesos.TaskState_TASK_FAILED, Reason: mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED,
			Message: "Failed to launch container: " + err.Error(),
		}
	}
	if err := a.ledger.Take(t.holder(), res); err != nil {
		return &executor.Refusal{
			State: t.framework.dropped(), Reason: mesos.TaskStatus_REASON_INVALID_OFFERS,
			Message: fmt.Sprintf("Task does not fit on this agent: %v", err),
		}
	}
	t.res = res
	if _, err := proto.Marshal(a.summary(t)); err != nil {
		// The record of the node holds text, and text is UTF-8. What is left of the task can be told.
		a.ledger.Release(t.holder())
		t.res = resources.Resources{}
		name := strings.ToValidUTF8(t.info.GetName(), "\uFFFD")
		t.info = &mesos.TaskInfo{Name: &name, TaskId: t.info.GetTaskId(), AgentId: t.info.GetAgentId()}
		return invalid("Task contains text that is not UTF-8")
	}
	return nil
}

// intended goes on once the intent to run a task is on disk, or could not be written.
func (a *Agent) intended(t *task, err error) {
	t.durable = true
	now := time.Now()
	if err != nil {
		a.diskFails(err)
		if !t.cmd.Ended() {
			a.free(t)
			a.perform(t, t.cmd.LaunchFailed(fmt.Errorf("cannot checkpoint the task: %w", err)))
		}
	} else {
		a.diskWorks()
		t.saved = terminal(t.state)
	}
	// All that was told so far went with the intent.
	for _, st := range t.updates {
		a.streams.Durable(now, t.key, status.UUID(st.GetUuid()))
	}
	switch {
	case t.cmd.Ended():
		a.tidy(t)
	case t.cmd.Order() != nil:
		a.free(t)
		a.perform(t, t.cmd.CancelLaunch())
	default:
		a.start(t)
	}
}

// start has a worker make the sandbox and start the container.
func (a *Agent) start(t *task) {
	t.starting = true
	owner := ""
	if a.cfg.SwitchUser {
		owner = executor.User(t.framework.info, t.info)
	}
	spec := a.executor.Spec(t.framework.info, t.info, t.res, t.container, t.sandbox)
	spec.Note = a.note(t)
	a.collector.Keep(t.container)
	a.launches.run(func() {
		container, err := a.startContainer(t, spec, owner)
		a.post(func() { a.startedContainer(t, container, err) })
	})
}

// startContainer runs on a worker.
func (a *Agent) startContainer(t *task, spec containerizer.Spec, owner string) (containerizer.Container, error) {
	ctx, cancel := a.workContext(a.cfg.LaunchTimeout)
	defer cancel()
	dir, err := a.layout.Create(t.key.Framework, t.key.Task, t.container, owner)
	if err != nil {
		return containerizer.Container{}, err
	}
	mounts, err := a.mounts(t.res)
	if err != nil {
		return containerizer.Container{}, err
	}
	for _, v := range mounts {
		if err := v.Link(dir, v.path, owner); err != nil {
			return containerizer.Container{}, err
		}
	}
	container, err := a.cfg.Containerizer.Launch(ctx, spec)
	if err != nil && ctx.Err() != nil {
		// Nobody knows whether it runs: make sure that it does not, for the task is told to have failed.
		undo, cancel := a.workContext(controlTimeout)
		defer cancel()
		if undoErr := a.cfg.Containerizer.Destroy(undo, t.container); undoErr != nil && !errors.Is(undoErr, containerizer.ErrUnknownContainer) {
			return container, fmt.Errorf("%w; cannot undo: %w", err, undoErr)
		}
	}
	return container, err
}

// startedContainer goes on after a launch.
func (a *Agent) startedContainer(t *task, c containerizer.Container, err error) {
	t.starting = false
	if err != nil {
		a.counters.LaunchErrors++
		a.perform(t, t.cmd.LaunchFailed(err))
		a.destroy(t)
		return
	}
	t.pid, t.started = c.PID, c.Started
	if t.started.IsZero() {
		t.started = a.cfg.Now()
	}
	a.perform(t, t.cmd.Launched(time.Now(), t.started))
	a.startChecks(t)
	if t.early != nil {
		a.exitedTask(t, *t.early)
	}
}

// workContext is the context of one piece of work.
func (a *Agent) workContext(timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(a.work, timeout)
}

// free gives back what a task holds without anything having been started.
func (a *Agent) free(t *task) {
	t.clean = true
	a.ledger.Release(t.holder())
	a.changed.resources = true
}
