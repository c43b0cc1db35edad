package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/status"
	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// recoverTimeout bounds how long the containerizer may take to find its containers.
const recoverTimeout = time.Minute

// restore makes the tasks of an earlier life from what was on disk, as they were last known.
func (a *Agent) restore(l *checkpoint.Loaded) {
	a.restoreRuns(l)
	damaged := map[string]bool{} // containers whose state did not read
	for _, p := range l.Problems {
		damaged[strings.TrimSuffix(filepath.Base(p.Path), ".state")] = true
	}
	for _, item := range l.Items {
		t := a.rebuild(item)
		if t == nil || a.tasks[t.key] != nil || l.Ended.Has(t.key.Framework, t.key.Task) {
			// Used up, and only its files outlived a crash; or a file that names nothing.
			a.discard(item, t)
			continue
		}
		a.enter(t)
		if item.State == nil && !t.contained() && damaged[item.ContainerID] {
			// Its executor may have told more of it than is left: it is not taken for one that was never given.
			t.state = mesos.TaskState_TASK_STARTING
			a.save(t, nil)
		}
		if terminal(t.state) {
			t.cmd.Conclude()
			t.saved = true
		}
		if t.forgotten {
			continue
		}
		now := time.Now()
		for _, st := range t.updates[t.acked:] {
			id := status.UUID(st.GetUuid())
			a.streams.Push(t.key, status.Update{UUID: id, Terminal: terminal(st.GetState()), Payload: st})
			a.streams.Durable(now, t.key, id)
		}
	}
}

// enter puts a task that was rebuilt into the books.
func (a *Agent) enter(t *task) {
	t.framework.tasks++
	a.tasks[t.key] = t
	if t.contained() {
		a.containers[t.container] = t
	}
	if t.run != nil {
		t.run.tasks[t] = struct{}{}
		if t.group != nil {
			t.group.tasks = append(t.group.tasks, t)
		}
		t.counted = terminal(t.state)
	}
	if !terminal(t.state) {
		a.ledger.Adopt(t.holder(), t.res)
	}
}

// discard forgets files that stand for no task.
func (a *Agent) discard(item checkpoint.Item, t *task) {
	if t == nil {
		a.problem("task "+item.ContainerID, fmt.Sprintf("the checkpoint of container %s names no task", item.ContainerID))
		return
	}
	a.committer.Submit(checkpoint.End(item.ContainerID, t.key.Framework, t.key.Task), nil)
}

// rebuild makes a task of its files: the intent where it reads, otherwise what the state says of it.
func (a *Agent) rebuild(item checkpoint.Item) *task {
	state := item.State
	if state == nil {
		state = item.Task.GetState()
	}
	summary := state.GetSummary()
	framework, info := item.Task.GetFramework(), item.Task.GetTask()
	if info == nil {
		framework, info = reconstruct(summary, a.cfg.ID)
	}
	key := status.Key{Framework: framework.GetId().GetValue(), Task: info.GetTaskId().GetValue()}
	if key.Framework == "" || key.Task == "" {
		return nil
	}
	f := a.frameworks[key.Framework]
	if f == nil || item.Task != nil {
		f = a.framework(framework)
	}
	t := &task{
		key: key, framework: f, info: info, container: item.ContainerID, durable: true,
		pid: int(state.GetPid()), launched: time.Unix(0, summary.GetLaunched()),
		state: mesos.TaskState(summary.GetState()), acked: int(state.GetAcknowledged()), dropped: int(state.GetDropped()),
		forgotten: state.GetForgotten(), facts: factsOf(summary),
	}
	a.rejoin(t, item, summary)
	a.place(t)
	if s := state.GetStarted(); s != 0 {
		t.started = time.Unix(0, s)
	}
	for _, st := range state.GetUpdates() {
		if len(st.GetUuid()) == len(status.UUID{}) {
			t.updates = append(t.updates, st)
			t.learn(st)
		}
	}
	t.acked = min(t.acked, len(t.updates))
	if n := len(t.updates); n > 0 {
		t.state = t.updates[n-1].GetState()
	}
	// It was accepted once, so it is valid; and where it is not any more, it runs all the same.
	t.res, _ = resources.FromProto(info.GetResources())
	var order *executor.Order
	if k := state.GetKill(); k != nil {
		// The grace period begins anew: for how long nobody was there to end it is not to be known from clocks.
		order = &executor.Order{Cause: executor.Cause(k.GetCause()), Grace: time.Duration(k.GetGrace()), At: time.Now()}
	}
	t.cmd.Resume(t.updates, order)
	return t
}

// reconstruct makes of a summary what has to stand in for an intent that does not read: enough to keep the books, to
// report and to end the task; not enough to start it.
func reconstruct(s *catalog.Task, agent string) (*mesos.FrameworkInfo, *mesos.TaskInfo) {
	framework := &mesos.FrameworkInfo{
		Id: &mesos.FrameworkID{Value: proto.String(s.GetFrameworkId())}, Name: proto.String(s.GetFrameworkName()),
		User: proto.String(""),
	}
	info := &mesos.TaskInfo{
		TaskId: &mesos.TaskID{Value: proto.String(s.GetTaskId())}, Name: proto.String(s.GetName()),
		AgentId:   &mesos.AgentID{Value: &agent},
		Resources: nodeapi.ResourcesFromCatalog(s.GetResources()).AllocatedTo(s.GetRole()).Proto(),
		Discovery: nodeapi.DiscoveryFromCatalog(s.GetDiscovery()),
	}
	return framework, info
}

// recover finds the containers of an earlier life, and brings tasks and containers together.
func (a *Agent) recover(ctx context.Context) error {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	found, err := a.cfg.Containerizer.Recover(ctx)
	if errors.Is(err, containerizer.ErrDegraded) {
		a.degrade(degradedText(err))
	} else if err != nil {
		return fmt.Errorf("cannot recover containers: %w", err)
	}
	left := map[string]containerizer.Container{}
	for _, c := range found {
		left[c.ID] = c
	}
	groups, err := a.cfg.Containerizer.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("cannot recover groups of containers: %w", err)
	}
	a.regroup(ctx, groups)
	for _, t := range a.sorted() {
		c, ok := left[t.container]
		delete(left, t.container)
		a.reunite(t, c, ok)
	}
	for _, r := range a.sortedRuns() {
		c, ok := left[r.container]
		delete(left, r.container)
		a.reuniteRun(r, c, ok)
	}
	a.recoverNested(left)
	for _, c := range left {
		if r := a.regainRun(c); r != nil {
			a.reuniteRun(r, c, true)
		} else if t := a.regain(c); t != nil {
			a.reunite(t, c, true)
		} else {
			a.orphan(c)
		}
	}
	a.closeGroups(groups, left)
	switch {
	case a.leaving:
		a.leave()
	case a.draining != nil:
		a.drainTasks()
	}
	a.counters.RecoverySeconds = time.Since(begun).Seconds()
	a.publish()
	return nil
}

// reunite goes on with a task whose container is c, if it is there at all.
func (a *Agent) reunite(t *task, c containerizer.Container, there bool) {
	now := time.Now()
	if t.contained() {
		a.collector.Keep(t.container)
	}
	t.networks = networksOf(t, c)
	if t.contained() {
		a.learnNetworks(t, t.networks)
	}
	switch {
	case !t.contained() && t.cmd.Ended():
		t.clean = true
		a.tidy(t)
	case !t.contained():
		// How it is, its executor says, or what became of that.
	case t.cmd.Ended() && there:
		// The task is over, so whatever still runs in its container is not it.
		a.ledger.Adopt(t.holder(), t.res)
		a.destroy(t)
	case t.cmd.Ended():
		t.clean, t.removed = true, true
		a.collector.Release(t.sandbox, t.container)
		a.tidy(t)
	case there && c.Exit != nil:
		a.exitedTask(t, *c.Exit)
	case there:
		if c.PID > 0 {
			t.pid = c.PID
		}
		t.data, t.disk = c.Data, c.Disk
		if !c.Started.IsZero() {
			t.started = c.Started
		}
		a.boundTask(t)
		a.perform(t, t.cmd.Launched(now, t.started))
		t.data = nil // told by now, in this life or an earlier one
		a.startChecks(t)
	case t.pid > 0:
		// It ran, and nobody knows how it ended.
		a.exitedTask(t, containerizer.Exit{ID: t.container, At: a.cfg.Now()})
	case t.cmd.Order() != nil:
		a.free(t)
		a.perform(t, t.cmd.CancelLaunch())
	default:
		// The intent is on disk and nothing was started. It is not started now: the framework may long have another one.
		a.free(t)
		t.cmd.Conclude()
		a.perform(t, executor.Step{Statuses: []*mesos.TaskStatus{(&executor.Refusal{
			State: t.framework.dropped(), Reason: mesos.TaskStatus_REASON_AGENT_RESTARTED, Message: "Task launched during agent restart",
		}).Status(t.info.GetTaskId())}})
	}
}

// note is what goes along with the container of a task, for regain: what the mesh is told of it, as far as there is room.
func (a *Agent) note(t *task) []byte {
	s := a.summary(t)
	for range 2 {
		if data, err := proto.Marshal(s); err == nil && len(data) <= containerizer.NoteMax {
			return data
		}
		s.Discovery = nil
	}
	return nil
}

// regain makes a task again of a container that lost its checkpoints: by the note that went along with it, or else by
// where its sandbox lies. Every container has an intent on disk from before its start, so it was somebody's task. As one
// it is told to its framework, which decides about it, knows of its end, and holds what it holds. nil is for one that
// names nothing, and for one whose id is another task's or used up.
func (a *Agent) regain(c containerizer.Container) *task {
	summary := &catalog.Task{}
	noted := proto.Unmarshal(c.Note, summary) == nil && summary.GetTaskId() != ""
	if !noted {
		framework, id, ok := a.layout.Owner(c.ID)
		if !ok {
			return nil
		}
		summary = &catalog.Task{FrameworkId: framework, TaskId: id, ExecutorId: id, Name: id, Launched: c.Started.UnixNano()}
	}
	parent, _, _ := strings.Cut(c.ID, ".")
	if parent == c.ID {
		parent = ""
	}
	summary.State, summary.Healthy = int32(mesos.TaskState_TASK_STARTING), nil
	if a.tasks[status.Key{Framework: summary.GetFrameworkId(), Task: summary.GetTaskId()}] != nil ||
		a.ended.Has(summary.GetFrameworkId(), summary.GetTaskId()) {
		return nil
	}
	t := a.rebuild(checkpoint.Item{ContainerID: c.ID, State: &checkpoint.State{
		ContainerId: c.ID, Summary: summary, Pid: int64(c.PID), ExecutorRun: parent,
	}})
	if t == nil {
		return nil
	}
	a.enter(t)
	a.changed.all = true
	a.counters.RecoveryErrors++
	if !noted && c.Exit == nil {
		a.problem("container "+c.ID, fmt.Sprintf(
			"task %q lost its checkpoints and is known by its sandbox alone: the resources that it uses may be offered again", t.key.Task))
	}
	a.cfg.Log.Error("task lost its checkpoints and is known by its container alone", "framework_id", t.key.Framework,
		"task_id", t.key.Task, "container_id", c.ID, "pid", c.PID, "resources", t.res.String())
	return t
}

// orphan judges a container that is no task. One that has ended is forgotten. One that runs is left alone, and told.
func (a *Agent) orphan(c containerizer.Container) {
	if c.Exit != nil {
		a.control.run(func() { a.removeOrphan(c.ID) })
		return
	}
	a.collector.Keep(c.ID)
	a.orphans[c.ID] = struct{}{}
	a.counters.RecoveryErrors++
	noted := &catalog.Task{}
	if proto.Unmarshal(c.Note, noted) == nil && noted.GetTaskId() != "" && a.ended.Has(noted.GetFrameworkId(), noted.GetTaskId()) {
		// It was told to have ended, and that was acknowledged: an earlier life died while it ended what it had not seen begin.
		a.cfg.Log.Warn("container of a task that is over is ended", "framework_id", noted.GetFrameworkId(), "task_id", noted.GetTaskId(),
			"container_id", c.ID, "pid", c.PID)
		a.endOrphan(c.ID)
		return
	}
	why := "has no checkpoint"
	for _, id := range a.lost {
		if id == c.ID {
			why = "lost its checkpoints to quarantine"
		}
	}
	a.problem("container "+c.ID, fmt.Sprintf("container %s (process %d) runs and %s: it is left alone; end it by hand", c.ID, c.PID, why))
	a.cfg.Log.Error("container without a task is left alone", "container_id", c.ID, "pid", c.PID, "reason", why)
}

// bootID tells one start of the machine from another; empty where the system does not say.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
