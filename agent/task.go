package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/ledger"
	"starling/agent/status"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// task is one that is not closed: its last update is not acknowledged, or its container is not gone.
type task struct {
	key       status.Key
	framework *framework
	info      *mesos.TaskInfo
	// container is the container id: chosen here, and the name of the task's files.
	container string
	sandbox   string
	// res is what the task was launched with, with its allocation role.
	res resources.Resources
	cmd *executor.Command

	pid               int
	launched, started time.Time
	state             mesos.TaskState
	// updates are the statuses told, oldest first; the first acked of them are acknowledged, dropped went before them.
	updates        []*mesos.TaskStatus
	acked, dropped int

	// durable is set once the intent is on disk; starting while a worker starts the container.
	durable, starting bool
	// early is an exit that came before the result of the launch.
	early *containerizer.Exit
	// clean is set once no process of it is left and its resources are free; saved once its terminal status is on disk;
	// closed once that was acknowledged, or nobody wants it; removed once the containerizer was told to forget it.
	clean, saved, closed, removed bool
	// held is the terminal update that waits for clean, so that the report that tells it shows the resources free.
	held *status.UUID
	// forgotten is set when nobody is to be told of the task any more.
	forgotten bool
	// unsavable is set after a failed write, until one succeeds.
	unsavable bool

	wake       *timer
	checks     *checks
	destroying bool
}

func (t *task) holder() ledger.Holder {
	return ledger.Holder{Framework: t.key.Framework, Executor: t.key.Task, Task: t.key.Task}
}

// updateMax is how many statuses of a task are kept; acknowledged ones go first.
const updateMax = 32

// terminal tells whether a state is a task's last.
func terminal(state mesos.TaskState) bool {
	switch state {
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING,
		mesos.TaskState_TASK_KILLING, mesos.TaskState_TASK_UNREACHABLE:
		return false
	}
	return true
}

// updateID makes the uuid of an update. It follows from the container and the place in the row, so that an update that is
// made again after a crash is the same one to everybody who has seen it.
func updateID(container string, index int, state mesos.TaskState) status.UUID {
	return status.UUID(uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s/%d/%s", container, index, state)))
}

// tell enters a status into the task's row and its update stream. It is sent once it is on disk: save or the launch see
// to that.
func (a *Agent) tell(t *task, st *mesos.TaskStatus) status.UUID {
	a.fill(t, st)
	id := updateID(t.container, t.dropped+len(t.updates), st.GetState())
	st.Uuid = id[:]
	t.updates = append(t.updates, st)
	if len(t.updates) > updateMax && t.acked > 1 {
		// The newest acknowledged one stays: it is what the framework knows.
		n := t.acked - 1
		t.updates = append([]*mesos.TaskStatus(nil), t.updates[n:]...)
		t.acked, t.dropped = 1, t.dropped+n
	}
	t.state = st.GetState()
	a.counters.count(t.state)
	if !t.forgotten {
		a.streams.Push(t.key, status.Update{UUID: id, Terminal: terminal(t.state), Payload: st})
	}
	a.changed.tasks[t.key] = t
	return id
}

// fill adds what the agent knows to a status.
func (a *Agent) fill(t *task, st *mesos.TaskStatus) {
	st.AgentId = &mesos.AgentID{Value: &a.cfg.ID}
	st.ExecutorId = &mesos.ExecutorID{Value: &t.key.Task}
	st.Timestamp = proto.Float64(seconds(a.cfg.Now()))
	st.ContainerStatus = &mesos.ContainerStatus{
		ContainerId: &mesos.ContainerID{Value: &t.container},
		NetworkInfos: []*mesos.NetworkInfo{{IpAddresses: []*mesos.NetworkInfo_IPAddress{{
			Protocol: protocolOf(a.cfg.Address).Enum(), IpAddress: &a.cfg.Address,
		}}}},
	}
	if t.pid > 0 {
		st.ContainerStatus.ExecutorPid = proto.Uint32(uint32(t.pid))
	}
}

// perform carries out a step of the executor.
func (a *Agent) perform(t *task, step executor.Step) {
	for _, st := range step.Statuses {
		id := a.tell(t, st)
		a.save(t, &id)
	}
	if len(step.Statuses) == 0 && step.Ordered {
		a.save(t, nil)
	}
	if step.Ordered {
		a.stopChecks(t)
	}
	if step.Signal != 0 {
		a.signal(t, int(step.Signal))
	}
	if step.Destroy {
		a.destroy(t)
	}
	a.timers.stop(t.wake)
	t.wake = nil
	if at, ok := t.cmd.NextWake(); ok {
		t.wake = a.timers.at(at, func() { a.perform(t, t.cmd.Wake(time.Now())) })
	}
}

// save submits the state of a task to disk. With an update it is sent once that is done.
func (a *Agent) save(t *task, id *status.UUID) {
	if !t.durable {
		// The intent is not on disk yet and carries all statuses of a launch; see intended.
		return
	}
	last := terminal(t.state)
	delete(a.unsaved, t)
	a.committer.Submit(checkpoint.PutState(a.stateOf(t)), func(err error) {
		a.post(func() { a.savedState(t, id, last, err) })
	})
}

// savedState goes on after a write of the state. One that failed does not keep the update back: to tell a framework what
// might be forgotten is better than to tell it nothing.
func (a *Agent) savedState(t *task, id *status.UUID, last bool, err error) {
	if err != nil {
		a.diskFails(err)
		if !t.unsavable {
			t.unsavable = true
			a.cfg.Log.Error("cannot write checkpoint", "framework_id", t.key.Framework, "task_id", t.key.Task, "err", err)
			a.timers.at(time.Now().Add(retrySave), func() { t.unsavable = false; a.resave(t) })
		}
	} else {
		a.diskWorks()
		t.saved = t.saved || last
	}
	if id != nil {
		a.release(t, *id)
	}
	a.tidy(t)
}

// retrySave is the pause before a failed write is tried again.
const retrySave = 5 * time.Second

// resave writes the state of a task again, if it still has one.
func (a *Agent) resave(t *task) {
	if a.tasks[t.key] == t && t.durable && !t.closed {
		a.save(t, nil)
	}
}

// diskWorks notes that a write went well: it takes back the problem with the disk, unless it was the reserve that it went
// to.
func (a *Agent) diskWorks() {
	if a.store.Low() {
		a.problem("disk", "the disk of the work directory is full: no new tasks are taken")
		a.watchDisk()
		return
	}
	a.problem("disk", "")
}

// diskFails notes a write that failed.
func (a *Agent) diskFails(err error) {
	a.counters.DiskErrors++
	a.problem("disk", fmt.Sprintf("cannot write checkpoints: %v", err))
	a.watchDisk()
}

// watchDisk looks from time to time whether a disk that was full has space again.
func (a *Agent) watchDisk() {
	if a.watching {
		return
	}
	a.watching = true
	a.timers.at(time.Now().Add(retrySave), func() {
		a.committer.Submit(checkpoint.Probe(), func(error) {
			a.post(func() { a.watching = false; a.diskWorks() })
		})
	})
}

// release lets an update go. A terminal one waits for the resources to be free, but not for long.
func (a *Agent) release(t *task, id status.UUID) {
	if !terminal(t.state) || t.clean || string(t.updates[len(t.updates)-1].GetUuid()) != string(id[:]) {
		a.streams.Durable(time.Now(), t.key, id)
		return
	}
	t.held = &id
	a.timers.at(time.Now().Add(time.Second), func() { a.letGo(t) })
}

func (a *Agent) letGo(t *task) {
	if t.held != nil {
		a.streams.Durable(time.Now(), t.key, *t.held)
		t.held = nil
	}
}

// stateOf makes what is written of a task. Statuses are shared: they do not change once they are told.
func (a *Agent) stateOf(t *task) *checkpoint.State {
	s := &checkpoint.State{
		ContainerId: t.container, Summary: a.summary(t), Pid: int64(t.pid),
		Updates: append([]*mesos.TaskStatus(nil), t.updates...), Acknowledged: uint32(t.acked), Dropped: uint32(t.dropped),
		Forgotten: t.forgotten,
	}
	if !t.started.IsZero() {
		s.Started = t.started.UnixNano()
	}
	if o := t.cmd.Order(); o != nil {
		s.Kill = &checkpoint.Kill{Grace: int64(o.Grace), At: o.At.UnixNano(), Cause: checkpoint.Cause(o.Cause)}
	}
	return s
}

// tidy does what became possible: forgets the container, and the task.
func (a *Agent) tidy(t *task) {
	if !terminal(t.state) || !t.clean {
		return
	}
	t.closed = t.closed || t.forgotten
	if t.saved && !t.removed {
		t.removed = true
		a.control.run(func() {
			ctx, cancel := a.workContext(controlTimeout)
			defer cancel()
			if err := a.cfg.Containerizer.Remove(ctx, t.container); err != nil && !errors.Is(err, containerizer.ErrUnknownContainer) {
				a.cfg.Log.Warn("cannot remove container", "container_id", t.container, "err", err)
			}
		})
	}
	if t.closed && a.tasks[t.key] == t {
		a.committer.Submit(checkpoint.End(t.container, t.key.Framework, t.key.Task), func(err error) {
			a.post(func() { a.forgot(t, err) })
		})
		a.ended.Add(t.key.Framework, t.key.Task)
		delete(a.tasks, t.key)
		delete(a.containers, t.container)
		delete(a.unsaved, t)
		a.timers.stop(t.wake)
		a.streams.Remove(t.key)
		a.retire(t.framework, t)
		a.changed.tasks[t.key] = nil
	}
}

// forgot goes on after a task was forgotten on disk. Where that failed, its files stay for the next life, which finds a
// task with nothing left to do and tries again.
func (a *Agent) forgot(t *task, err error) {
	if err != nil {
		a.counters.DiskErrors++
		a.cfg.Log.Warn("cannot forget task on disk", "framework_id", t.key.Framework, "task_id", t.key.Task, "err", err)
		return
	}
	a.diskWorks()
}

// seconds is a time as Mesos writes it.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
