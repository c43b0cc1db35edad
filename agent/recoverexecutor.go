package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Executors outlive the agent, whether their framework asked for checkpoints or not: that the agent dies is no reason for a
// task to end. One whose framework did not ask was told so (MESOS_CHECKPOINT) and ends by itself when its connection breaks,
// if it keeps to the rules of Mesos; one that comes back is taken back.

// restoreRuns makes the runs of executors of an earlier life from what was on disk.
func (a *Agent) restoreRuns(l *checkpoint.Loaded) {
	for _, item := range l.Executors {
		if item.Executor == nil {
			continue // its tasks, or its container, tell who it is: rejoin, regainRun
		}
		e := item.Executor
		if e.GetFramework().GetId().GetValue() == "" || e.GetExecutor().GetExecutorId().GetValue() == "" {
			a.problem("executor "+item.ContainerID, fmt.Sprintf("the checkpoint of container %s names no executor", item.ContainerID))
			continue
		}
		r := a.rebuildRun(item.ContainerID, a.framework(e.GetFramework()), e.GetExecutor())
		r.launched = time.Unix(0, e.GetLaunched())
		a.resumeRun(r, item.Run)
	}
}

// rebuildRun makes a run of what is known of it.
func (a *Agent) rebuildRun(container string, f *framework, info *mesos.ExecutorInfo) *run {
	r := &run{
		key: runKey{f.id, info.GetExecutorId().GetValue()}, framework: f, info: info, container: container, durable: true,
		builtin: info.GetType() == mesos.ExecutorInfo_DEFAULT, tasks: map[*task]struct{}{}, phase: runRegistering, used: true,
	}
	if r.builtin {
		r.phase = runActive
	}
	r.sandbox = a.layout.Dir(r.key.framework, r.key.executor, container)
	// It was accepted once, so it is valid; and where it is not any more, it runs all the same.
	r.res, _ = resources.FromProto(info.GetResources())
	return r
}

// resumeRun puts a run where it was, and into the books.
func (a *Agent) resumeRun(r *run, state *checkpoint.Run) {
	if state != nil {
		r.pid, r.subscribed, r.used, r.forgotten = int(state.GetPid()), state.GetSubscribed(), state.GetUsed(), state.GetForgotten()
		if s := state.GetStarted(); s != 0 {
			r.started = time.Unix(0, s)
		}
		if k := state.GetShutdown(); k != nil {
			// The grace period begins anew, as a task's does.
			r.shutdown = &executor.Order{Cause: executor.Cause(k.GetCause()), Grace: time.Duration(k.GetGrace()), At: time.Now()}
		}
	}
	a.runIDs[r.container] = r
	r.framework.tasks++
	if state.GetEnded() {
		r.phase, r.clean = runEnded, true
		return
	}
	if other := a.runs[r.key]; other == nil || other.launched.Before(r.launched) {
		a.runs[r.key] = r
		a.ledger.Adopt(r.holder(), r.res)
	}
}

// rejoin gives a task that was rebuilt its executor and its group. A run that lost its files is known by its tasks.
func (a *Agent) rejoin(t *task, item checkpoint.Item, summary *catalog.Task) {
	id, together := item.Task.GetExecutorRun(), item.Task.GetGroup()
	if id == "" {
		id, together = item.State.GetExecutorRun(), item.State.GetGroup()
	}
	if id == "" {
		return
	}
	r := a.runIDs[id]
	if r == nil {
		info := t.info.GetExecutor()
		if info == nil {
			info = &mesos.ExecutorInfo{
				ExecutorId: &mesos.ExecutorID{Value: proto.String(summary.GetExecutorId())}, FrameworkId: t.framework.info.GetId(),
				Type: mesos.ExecutorInfo_CUSTOM.Enum(),
			}
			if strings.HasPrefix(t.container, id+".") {
				info.Type = mesos.ExecutorInfo_DEFAULT.Enum()
			}
		}
		r = a.rebuildRun(id, t.framework, info)
		r.launched = t.launched
		a.resumeRun(r, nil)
	}
	t.run = r
	if together == "" {
		return
	}
	for o := range r.tasks {
		if o.groupID() == together {
			t.group = o.group
		}
	}
	if t.group == nil {
		t.group = &group{id: together}
	}
}

// regroup finds the groups of the default executors again.
func (a *Agent) regroup(ctx context.Context, groups []string) {
	for _, r := range a.sortedRuns() {
		if r.grouped = r.builtin && slices.Contains(groups, r.container); !r.grouped || len(r.info.GetContainer().GetNetworkInfos()) == 0 {
			continue
		}
		networks, err := a.cfg.Containerizer.OpenGroup(ctx, containerizer.Group{
			ID: r.container, Container: r.info.GetContainer(), Dir: r.sandbox, Limits: a.limitsOf(r),
		})
		if err != nil {
			a.cfg.Log.Warn("cannot learn the networks of an executor", "container_id", r.container, "err", err)
			continue
		}
		r.networks = networks
	}
}

// reuniteRun goes on with a run whose container is c, if it is there at all.
func (a *Agent) reuniteRun(r *run, c containerizer.Container, there bool) {
	a.collector.Keep(r.container)
	switch {
	case r.clean:
		r.exit = &containerizer.Exit{ID: r.container, At: a.cfg.Now()}
		for _, t := range r.sorted() {
			if !t.cmd.Ended() && !r.builtin {
				a.endWith(t)
			}
		}
		if there && c.Exit == nil {
			a.endOrphan(r.container)
		}
		a.collector.Release(r.sandbox, r.container)
		a.tidyRun(r)
	case r.builtin:
		if r.shutdown != nil {
			a.wakeRun(r, time.Now().Add(r.shutdown.Grace), func() { a.endRun(r, nil) })
		}
		a.tidyRun(r)
	case there && c.Exit != nil:
		a.exitedRun(r, *c.Exit)
	case there:
		if c.PID > 0 {
			r.pid = c.PID
		}
		if !c.Started.IsZero() {
			r.started = c.Started
		}
		r.networks, r.disk = c.Networks, c.Disk
		a.boundRun(r)
		if r.shutdown != nil {
			r.phase = runEnding
			a.wakeRun(r, time.Now().Add(r.shutdown.Grace), func() { a.endRun(r, nil) })
		}
	case r.pid > 0:
		// It ran, and nobody knows how it ended.
		a.exitedRun(r, containerizer.Exit{ID: r.container, At: a.cfg.Now()})
	default:
		// The intent is on disk and nothing was started, which it is not now either.
		r.forgotten = r.forgotten || len(r.tasks) == 0
		for _, t := range r.sorted() {
			if !t.cmd.Ended() && t.cmd.Order() != nil {
				a.free(t)
				a.perform(t, t.cmd.CancelLaunch())
			}
		}
		r.verdict = &executor.Refusal{
			State: r.framework.dropped(), Reason: mesos.TaskStatus_REASON_AGENT_RESTARTED, Message: "Task launched during agent restart",
		}
		if r.phase != runEnded {
			a.over(r)
		}
	}
}

// regainRun makes an executor again of a container that lost its checkpoints, by the note that went along with it: it goes on,
// and what it says of its tasks is heard. nil is for a container of something else.
func (a *Agent) regainRun(c containerizer.Container) *run {
	note := &catalog.Task{}
	if proto.Unmarshal(c.Note, note) != nil || note.GetTaskId() != "" || note.GetExecutorId() == "" || note.GetFrameworkId() == "" ||
		a.runs[runKey{note.GetFrameworkId(), note.GetExecutorId()}] != nil {
		return nil
	}
	f := a.frameworks[note.GetFrameworkId()]
	if f == nil {
		framework, _ := reconstruct(note, a.cfg.ID)
		f = a.framework(framework)
	}
	r := a.rebuildRun(c.ID, f, &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: proto.String(note.GetExecutorId())}, FrameworkId: f.info.GetId(),
		Type: mesos.ExecutorInfo_CUSTOM.Enum(), Command: &mesos.CommandInfo{},
	})
	r.launched = c.Started
	a.resumeRun(r, nil)
	a.changed.all = true
	a.counters.RecoveryErrors++
	a.cfg.Log.Error("executor lost its checkpoints and is known by its container alone", "framework_id", r.key.framework,
		"executor_id", r.key.executor, "container_id", c.ID, "pid", c.PID)
	return r
}

// closeGroups closes the groups that are of no run and in which nothing runs: a crash left them.
func (a *Agent) closeGroups(groups []string, left map[string]containerizer.Container) {
	for _, id := range groups {
		used := a.runIDs[id] != nil
		for _, c := range left {
			used = used || strings.HasPrefix(c.ID, id+".")
		}
		if used {
			continue
		}
		a.control.run(func() {
			ctx, cancel := a.workContext(controlTimeout)
			defer cancel()
			if err := a.cfg.Containerizer.CloseGroup(ctx, id); err != nil {
				a.cfg.Log.Warn("cannot close a group that is nobody's", "container_id", id, "err", err)
			}
		})
	}
}
