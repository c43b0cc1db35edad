package agent

import (
	"errors"
	"fmt"
	"slices"
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
	cmd taskLife
	// run is the run of the executor that it is part of, group what it was launched with; both nil for a command task.
	run   *run
	group *group

	pid int
	// networks are the container's own, data what its engine says of it until TASK_RUNNING has told that.
	networks []*mesos.NetworkInfo
	data     []byte
	// disk are the folders beside its sandbox that hold what it writes.
	disk              []string
	launched, started time.Time
	state             mesos.TaskState
	// facts are what the mesh is told of them beyond the newest.
	facts facts
	// updates are the statuses told, oldest first; the first acked of them are acknowledged, dropped went before them.
	updates        []*mesos.TaskStatus
	acked, dropped int

	// durable is set once the intent is on disk; starting while a worker starts the container.
	durable, starting bool
	// abandon gives a launch up; nil where none is under way.
	abandon func()
	// early is an exit that came before the result of the launch.
	early *containerizer.Exit
	// clean is set once no process of it is left and its resources are free; saved once its terminal status is on disk;
	// closed once that was acknowledged, or nobody wants it; removed once the containerizer was told to forget it.
	clean, saved, closed, removed bool
	// held is the terminal update that waits for clean, so that the report that tells it shows the resources free.
	held *status.UUID
	// forgotten is set when nobody is to be told of the task any more.
	forgotten bool
	// queued is set while the run has not got the task, counted once its end was seen to there.
	queued, counted bool
	// owed are the updates that the task's executor waits to have acknowledged by the agent.
	owed []status.UUID
	// unsavable is set after a failed write, until one succeeds.
	unsavable bool

	wake       *timer
	checks     *checks
	destroying bool
}

// taskLife is what becomes of a task: an *executor.Command where the agent runs it, an *executor.Remote where an executor of
// others does.
type taskLife interface {
	Starting() executor.Step
	Resume(told []*mesos.TaskStatus, order *executor.Order)
	Conclude()
	Launched(now, started time.Time) executor.Step
	LaunchFailed(err error) executor.Step
	CancelLaunch() executor.Step
	Kill(now time.Time, policy *mesos.KillPolicy) executor.Step
	Drain(now time.Time, longest *time.Duration, gone bool) executor.Step
	Fail(now time.Time) executor.Step
	Exited(exit containerizer.Exit) executor.Step
	Checked(healthy bool) executor.Step
	CheckResult(result *mesos.CheckStatusInfo) executor.Step
	NextWake() (at time.Time, ok bool)
	Wake(now time.Time) executor.Step
	Order() *executor.Order
	Health() *bool
	Running() bool
	Ended() bool
}

func (t *task) holder() ledger.Holder {
	return ledger.Holder{Framework: t.key.Framework, Executor: t.executorID(), Task: t.key.Task}
}

// executorID is the id of the task's executor: its own where it is a command.
func (t *task) executorID() string {
	switch {
	case t.run != nil:
		return t.run.key.executor
	case t.info.GetExecutor() != nil:
		return t.info.GetExecutor().GetExecutorId().GetValue()
	}
	return t.key.Task
}

// contained tells whether the task has a container of its own.
func (t *task) contained() bool { return t.run == nil || t.run.builtin }

// within is the id of the container that the task runs in: its own, or that of its executor.
func (t *task) within() string {
	if t.contained() {
		return t.container
	}
	return t.run.container
}

// updateMax is how many statuses of a task are kept; acknowledged ones go first.
const updateMax = 32

// terminal tells whether a state is a task's last.
func terminal(state mesos.TaskState) bool { return executor.Terminal(state) }

// updateID makes the uuid of an update. It follows from the container and the place in the row, so that an update that is
// made again after a crash is the same one to everybody who has seen it.
func updateID(container string, index int, state mesos.TaskState) status.UUID {
	return status.UUID(uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s/%d/%s", container, index, state)))
}

// tell enters a status into the task's row and its update stream. It is sent once it is on disk: save or the launch see
// to that.
func (a *Agent) tell(t *task, st *mesos.TaskStatus) status.UUID {
	a.fill(t, st)
	a.learnNetworks(t, st.GetContainerStatus().GetNetworkInfos())
	t.learn(st)
	id := updateID(t.container, t.dropped+len(t.updates), st.GetState())
	if len(st.GetUuid()) == len(id) {
		id = status.UUID(st.GetUuid()) // an executor of others has given it one
	} else {
		st.Uuid = id[:]
	}
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
	st.ExecutorId = &mesos.ExecutorID{Value: proto.String(t.executorID())}
	if st.Timestamp == nil {
		st.Timestamp = proto.Float64(seconds(a.cfg.Now()))
	}
	switch {
	case t.contained():
		st.ContainerStatus = a.containerStatus(t.container, t.pid, t.networks)
	default:
		known := a.containerStatus(t.run.container, t.run.pid, t.run.networks)
		if said := st.GetContainerStatus(); len(said.GetNetworkInfos()) > 0 {
			// What the executor knows of its network comes first, and the node's address is one for lack of a better.
			known.NetworkInfos = append(slices.Clone(said.GetNetworkInfos()), t.run.networks...)
		}
		st.ContainerStatus = known
	}
	if st.GetState() == mesos.TaskState_TASK_RUNNING && t.data != nil {
		st.Data, t.data = t.data, nil
	}
}

// containerStatus tells of a container; one without a network of its own has the address of the node.
func (a *Agent) containerStatus(id string, pid int, networks []*mesos.NetworkInfo) *mesos.ContainerStatus {
	if len(networks) == 0 {
		networks = []*mesos.NetworkInfo{{IpAddresses: []*mesos.NetworkInfo_IPAddress{{
			Protocol: protocolOf(a.cfg.Address).Enum(), IpAddress: &a.cfg.Address,
		}}}}
	}
	status := &mesos.ContainerStatus{ContainerId: ContainerIDOf(id), NetworkInfos: networks}
	if pid > 0 {
		status.ExecutorPid = proto.Uint32(uint32(pid))
	}
	return status
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
		if t.abandon != nil {
			t.abandon()
		}
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
	if t.run != nil {
		a.inRun(t, step)
	}
}

// save submits the state of a task to disk. With an update it is sent once that is done.
func (a *Agent) save(t *task, id *status.UUID) {
	if !t.durable {
		// The intent is not on disk yet and carries all statuses of a launch; see intended.
		return
	}
	last, owed := terminal(t.state), slices.Clone(t.owed)
	delete(a.unsaved, t)
	a.committer.Submit(checkpoint.PutState(a.stateOf(t)), func(err error) {
		a.post(func() {
			a.savedState(t, id, last, err)
			if err == nil {
				a.settle(t, owed)
			}
		})
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

// runID names the run that the task is part of on disk, groupID its group.
func (t *task) runID() string {
	if t.run == nil {
		return ""
	}
	return t.run.container
}

func (t *task) groupID() string {
	if t.group == nil {
		return ""
	}
	return t.group.id
}

// stateOf makes what is written of a task. Statuses are shared: they do not change once they are told.
func (a *Agent) stateOf(t *task) *checkpoint.State {
	s := &checkpoint.State{
		ContainerId: t.container, Summary: a.summary(t), Pid: int64(t.pid),
		Updates: append([]*mesos.TaskStatus(nil), t.updates...), Acknowledged: uint32(t.acked), Dropped: uint32(t.dropped),
		Forgotten: t.forgotten, ExecutorRun: t.runID(), Group: t.groupID(),
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
	t.removed = t.removed || !t.contained()
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
	if t.run != nil {
		a.tidyRun(t.run)
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
