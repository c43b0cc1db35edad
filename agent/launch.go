package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/fetcher"
	"starling/agent/status"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// launch takes tasks, and calls done once all of them are on disk: what the leader was answered is not forgotten. known tells
// that some of them had been taken before.
func (a *Agent) launch(l *nodeapi.Launch, done func(known bool)) {
	f := a.framework(l.GetFramework())
	var fresh []*mesos.TaskInfo
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
		fresh = append(fresh, info)
	}
	waiting += len(fresh)
	switch grouped := l.GetGroupExecutor() != nil; {
	case grouped && len(fresh) > 0:
		a.accept(f, fresh, l.GetGroupExecutor(), len(fresh) < len(l.GetTasks()), one)
	default:
		for i := range fresh {
			a.accept(f, fresh[i:i+1], nil, false, one)
		}
	}
	if f.tasks == 0 && len(f.completed)+len(f.completedRuns) == 0 {
		delete(a.frameworks, f.id)
	}
	one()
}

// accept enters tasks that are new into the books, or refuses them: one by itself, or, with the executor, all of a group.
// Either way each becomes a task with an intent on disk: a refused one has its terminal status from the start, and its id is
// used up like any other. partial is set for a group of which some can't be tasks, so that none is. done is called for each.
func (a *Agent) accept(f *framework, infos []*mesos.TaskInfo, executorOfGroup *mesos.ExecutorInfo, partial bool, done func()) {
	r, refusal := a.executorOf(f, infos[0], executorOfGroup)
	var g *group
	if executorOfGroup != nil {
		g = &group{id: uuid.NewString()}
	}
	tasks := make([]*task, len(infos))
	for i, info := range infos {
		tasks[i] = a.newTask(f, info, r, g)
	}
	if g != nil {
		g.tasks = tasks
	}
	if partial && refusal == nil {
		refusal = &executor.Refusal{
			State: mesos.TaskState_TASK_ERROR, Reason: mesos.TaskStatus_REASON_TASK_GROUP_INVALID, Message: "Another task of the group is invalid",
		}
	}
	for i, t := range tasks {
		if refusal == nil {
			refusal = a.admit(t)
		}
		if refusal != nil && g != nil {
			for _, o := range tasks[:i] {
				a.ledger.Release(o.holder())
				o.res = resources.Resources{}
			}
			if refusal.Reason == mesos.TaskStatus_REASON_TASK_INVALID {
				refusal.Reason = mesos.TaskStatus_REASON_TASK_GROUP_INVALID
				refusal.Message = fmt.Sprintf("Task '%s' is invalid: %s", t.key.Task, refusal.Message)
			}
		}
		if refusal != nil {
			break
		}
	}
	switch {
	case r == nil:
	case refusal != nil:
		if a.runs[r.key] == nil {
			a.ledger.Release(r.holder()) // it was to be started for this
		}
	case a.runs[r.key] == nil:
		a.enterRun(r)
	}
	for _, t := range tasks {
		a.tasks[t.key] = t
		if t.contained() {
			a.containers[t.container] = t
		}
		f.tasks++
		if refusal != nil {
			t.run, t.group, t.clean = nil, nil, true
			t.cmd.Conclude()
			a.tell(t, refusal.Status(t.info.GetTaskId()))
			a.counters.Refused++
			a.cfg.Log.Warn("task refused", "framework_id", t.key.Framework, "task_id", t.key.Task, "reason", refusal.Message)
		} else {
			if r != nil {
				r.tasks[t] = struct{}{}
			}
			a.changed.resources, a.changed.tasks[t.key] = true, t
			for _, st := range t.cmd.Starting().Statuses {
				a.tell(t, st)
			}
		}
	}
	for _, t := range tasks {
		intent := &checkpoint.Task{
			ContainerId: t.container, Framework: f.info, Task: t.info, State: a.stateOf(t), ExecutorRun: t.runID(), Group: t.groupID(),
		}
		a.committer.Submit(checkpoint.PutTask(intent), func(err error) {
			a.post(func() { a.intended(t, err); done() })
		})
	}
}

// executorOf returns the run that a task is for; nil for a command task, and for one that will be refused anyhow.
func (a *Agent) executorOf(f *framework, info *mesos.TaskInfo, ofGroup *mesos.ExecutorInfo) (*run, *executor.Refusal) {
	e := ofGroup
	if e == nil {
		e = info.GetExecutor()
	}
	if e == nil || a.leaving || a.draining != nil || info.GetAgentId().GetValue() != a.cfg.ID {
		return nil, nil
	}
	return a.runFor(f, e, ofGroup != nil)
}

// newTask makes a task that is in no book yet.
func (a *Agent) newTask(f *framework, info *mesos.TaskInfo, r *run, g *group) *task {
	if info.GetContainer() == nil && info.GetExecutor() == nil && a.cfg.DefaultContainer != nil {
		info = proto.CloneOf(info)
		info.Container = a.cfg.DefaultContainer
	}
	t := &task{
		key: status.Key{Framework: f.id, Task: info.GetTaskId().GetValue()}, framework: f, info: info, container: uuid.NewString(),
		launched: a.cfg.Now(), state: mesos.TaskState_TASK_STAGING, run: r, group: g,
	}
	a.place(t)
	return t
}

// place says where a task lives, and how: in a container of its own, in one within its executor's, or in the executor's.
func (a *Agent) place(t *task) {
	switch r := t.run; {
	case r == nil:
		t.cmd, t.sandbox = a.executor.Command(t.framework.info, t.info), a.layout.Dir(t.key.Framework, t.executorID(), t.container)
	case r.builtin:
		child := t.container
		if _, nested, ok := strings.Cut(child, "."); ok {
			child = nested // as it was before
		}
		t.container = r.container + "." + child
		t.cmd, t.sandbox = a.executor.Command(t.framework.info, t.info), a.layout.Nested(r.sandbox, child)
	default:
		t.cmd, t.sandbox = executor.NewRemote(t.framework.info, t.info), r.sandbox
	}
}

// admit looks whether this node can run a task, and takes its resources if so.
func (a *Agent) admit(t *task) *executor.Refusal {
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
	res, err := resources.FromProto(t.info.GetResources())
	if err != nil {
		return invalid("Task uses invalid resources: %v", err)
	}
	if res.Empty() {
		return invalid("Task uses no resources")
	}
	if t.contained() { // otherwise its executor knows what to do with the rest of it
		if err := executor.Check(t.info); err != nil {
			if refusal, ok := errors.AsType[*executor.Refusal](err); ok {
				return refusal
			}
			return invalid("%v", err)
		}
		if faults := checkChecks(t.info); faults != "" {
			return invalid("%s", faults)
		}
		if err := a.fetchable(t.info.GetCommand().GetUris()); err != nil {
			return executor.NotLaunched(err)
		}
		if t.run == nil {
			if err := checkMappings(t.info.GetContainer(), res); err != nil {
				return executor.NotLaunched(err)
			}
		}
		if err := a.runsAs(t.info.GetCommand(), t.info.GetContainer()); err != nil {
			return executor.NotLaunched(err)
		}
		if err := a.usable(withoutShared(t.info.GetContainer())); err != nil {
			// To wait for a containerizer, however long it takes, would keep the framework from looking elsewhere.
			return executor.NotLaunched(err)
		}
	}
	if _, err := a.mounts(res); err != nil {
		return executor.NotLaunched(err)
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
	case t.run != nil:
		a.enqueue(t)
	default:
		a.start(t)
	}
}

// launching is what a worker needs to start a container.
type launching struct {
	spec containerizer.Spec
	// create makes the sandbox, which is the owner's; an empty owner is the agent's user.
	create func(owner string) (dir string, err error)
	owner  string
	// volumes are the persistent volumes that the container is to find.
	volumes []mount
	// before, if set, has to succeed before anything is made.
	before func() error
	// uris are brought into the sandbox before the container starts.
	uris []*mesos.CommandInfo_URI
}

// start has a worker make the sandbox of a task and start its container.
func (a *Agent) start(t *task) {
	t.starting = true
	l := launching{spec: a.specOf(t), uris: t.info.GetCommand().GetUris()}
	if t.run == nil {
		l.create = func(owner string) (string, error) {
			return a.layout.Create(t.key.Framework, t.key.Task, t.container, owner)
		}
	} else {
		l.create = a.nest(t, &l.spec)
	}
	a.collector.Keep(t.container)
	if a.cfg.SwitchUser {
		l.owner = executor.User(t.framework.info, t.info)
	}
	l.spec.Note = a.note(t)
	if err := a.furnish(&l, t.res); err != nil {
		a.startedContainer(t, containerizer.Container{}, err)
		return
	}
	t.abandon = a.startContainer(l, func(c containerizer.Container, err error) { a.startedContainer(t, c, err) })
}

// furnish gives a launch the volumes and GPUs that are among its resources.
func (a *Agent) furnish(l *launching, res resources.Resources) (err error) {
	if l.volumes, err = a.mounts(res); err != nil {
		return err
	}
	return a.giveGPUs(l, res)
}

// startContainer has a worker make a sandbox and start a container, and calls done on the loop. What it returns gives the
// launch up as soon as that is possible without harm, which done is told by an error as any other; it may be called at any
// time.
func (a *Agent) startContainer(l launching, done func(containerizer.Container, error)) (abandon func()) {
	wanted, abandon := context.WithCancel(a.work)
	result := func(c containerizer.Container, err error) {
		a.post(func() { abandon(); done(c, err) })
	}
	a.launches.run(func() {
		err := a.makeSandbox(&l)
		switch {
		case err != nil:
			result(containerizer.Container{}, err)
		case l.slow():
			// What waits for a network must not hold up what does not. One that is given up before its turn need not wait for it.
			var taken atomic.Bool
			stop := context.AfterFunc(wanted, func() {
				if a.work.Err() == nil && taken.CompareAndSwap(false, true) {
					result(containerizer.Container{}, wanted.Err())
				}
			})
			a.slowLaunches.run(func() {
				if !taken.CompareAndSwap(false, true) {
					return
				}
				stop()
				if err := a.fetch(wanted, l); err != nil {
					result(containerizer.Container{}, err)
					return
				}
				result(a.launchContainer(wanted, l))
			})
		default:
			result(a.launchContainer(wanted, l))
		}
	})
	return abandon
}

// slow tells whether a launch may have to wait for others than this node.
func (l *launching) slow() bool { return slowContainer(l.spec.Container) || len(l.uris) > 0 }

// slowContainer tells whether an image may have to be pulled for a container, or its network be made by programs of others.
func slowContainer(c *mesos.ContainerInfo) bool {
	return containerizer.OwnRoot(c) || slices.ContainsFunc(c.GetNetworkInfos(), func(n *mesos.NetworkInfo) bool { return n.GetName() != "" })
}

// fetch brings what a command needs into its sandbox.
func (a *Agent) fetch(wanted context.Context, l launching) error {
	if err := a.fetchable(l.uris); err != nil || len(l.uris) == 0 {
		return err
	}
	return a.cfg.Fetcher.Fetch(wanted, fetcher.Request{User: l.owner, Sandbox: l.spec.Dir, URIs: l.uris})
}

// fetchable returns why URIs can't be fetched; nil if they can for all that is known.
func (a *Agent) fetchable(uris []*mesos.CommandInfo_URI) error {
	if n := len(uris); n > 0 && a.cfg.Fetcher == nil {
		return fmt.Errorf("there are %d URIs to fetch: this agent has nothing to fetch with", n)
	}
	return fetcher.Check(uris)
}

// makeSandbox makes the sandbox with the volumes in it.
func (a *Agent) makeSandbox(l *launching) error {
	if l.before != nil {
		if err := l.before(); err != nil {
			return err
		}
	}
	dir, err := l.create(l.owner)
	if err != nil {
		return err
	}
	for _, v := range l.volumes {
		if containerizer.OwnRoot(l.spec.Container) {
			// A link would lead to where the node has the volume, and nowhere in the container.
			if err := v.Give(l.owner); err != nil {
				return err
			}
			source, err := filepath.EvalSymlinks(v.Dir())
			if err != nil {
				return fmt.Errorf("cannot use volume %q: %w", v.ID, err)
			}
			l.spec.Mounts = append(l.spec.Mounts, containerizer.Mount{Source: source, Target: v.path, ReadOnly: v.readOnly})
			continue
		}
		if err := v.Link(dir, v.path, l.owner); err != nil {
			return err
		}
	}
	return nil
}

// imageTimeout bounds the launch of a container that an image may have to be pulled for: whoever pulls has shorter bounds.
const imageTimeout = time.Hour

// launchContainer runs on a worker. A launch that takes no time is not given up when nobody wants it any more: it is ended
// by the usual way once it runs.
func (a *Agent) launchContainer(wanted context.Context, l launching) (_ containerizer.Container, err error) {
	defer func() {
		// A task that brings a bug to light must not end the agent: it would do so again wherever it is placed next.
		if p := recover(); p != nil {
			a.cfg.Log.Error("panic in a launch", "container_id", l.spec.ID, "err", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	if err := wanted.Err(); err != nil {
		return containerizer.Container{}, err
	}
	ctx, cancel := a.workContext(a.cfg.LaunchTimeout)
	if containerizer.OwnRoot(l.spec.Container) {
		cancel()
		ctx, cancel = context.WithTimeout(wanted, imageTimeout)
	}
	defer cancel()
	container, err := a.cfg.Containerizer.Launch(ctx, l.spec)
	if err != nil && ctx.Err() != nil {
		// Nobody knows whether it runs: make sure that it does not, for the task is told to have failed.
		undo, cancel := a.workContext(controlTimeout)
		defer cancel()
		if undoErr := a.cfg.Containerizer.Destroy(undo, l.spec.ID); undoErr != nil && !errors.Is(undoErr, containerizer.ErrUnknownContainer) {
			return container, fmt.Errorf("%w; cannot undo: %w", err, undoErr)
		}
	}
	return container, err
}

// startedContainer goes on after a launch.
func (a *Agent) startedContainer(t *task, c containerizer.Container, err error) {
	t.starting, t.abandon = false, nil
	if err != nil {
		a.counters.LaunchErrors++
		a.perform(t, t.cmd.LaunchFailed(err))
		a.destroy(t)
		return
	}
	t.pid, t.started, t.networks, t.data, t.disk = c.PID, c.Started, networksOf(t, c), c.Data, c.Disk
	if t.started.IsZero() {
		t.started = a.cfg.Now()
	}
	a.boundTask(t)
	a.perform(t, t.cmd.Launched(time.Now(), t.started))
	a.startChecks(t)
	if t.early != nil {
		a.exitedTask(t, *t.early)
	}
}

// usable returns why a container of a kind can't be had now, and nil if it can for all that is known.
func (a *Agent) usable(c *mesos.ContainerInfo) error {
	if judge, ok := a.cfg.Containerizer.(interface {
		Usable(c *mesos.ContainerInfo) error
	}); ok {
		return judge.Usable(c)
	}
	if a.degraded != "" {
		return errors.New(a.degraded)
	}
	return nil
}

// runsAs returns why a command cannot be run as the user that it names; see Config.OnlyUser.
func (a *Agent) runsAs(c *mesos.CommandInfo, container *mesos.ContainerInfo) error {
	user := c.GetUser()
	if a.cfg.OnlyUser == "" || user == "" || user == a.cfg.OnlyUser || containerizer.IsDocker(container) {
		return nil
	}
	return fmt.Errorf("cannot run as user %q: only root may change the user, the agent is %q", user, a.cfg.OnlyUser)
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
