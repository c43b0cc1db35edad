package master

import (
	"bytes"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// taskKey names a task: a task id is unique within its framework only.
type taskKey struct{ framework, task string }

func parseTaskKey(key string) (taskKey, bool) {
	f, t, ok := catalog.ParseTaskKey(key)
	return taskKey{f, t}, ok
}

// task is what the master knows of one task. The agent's record is the truth about it; what a launch or a description
// brought only adds to that.
type task struct {
	key   taskKey
	agent string

	// rec is the newest entry of the agent's record; nil while only a launch tells of the task. launched is the launch time
	// in it.
	rec        entry
	launched   int64
	definition definition
	// executor is the id of the executor, empty for a command task that was just launched. ownExecutor is set when the
	// task is known to have come with an executor of its own.
	executor    string
	ownExecutor bool
	role        string

	// state is the newest state known; held what the task holds now, nothing once it has ended.
	state mesos.TaskState
	held  resources.Resources
	// launch is the batch that has not been seen to arrive yet; nil otherwise.
	launch *launch
	// batch is what the task was launched with by this leader; nil for one that was there before.
	batch *launch

	// forwarded tells of the last update that was sent to the framework; nil before the first. unacked is the whole update
	// while it waits for an acknowledgement.
	statuses  statuses
	forwarded *forwarded
	unacked   *mesos.TaskStatus
	// acknowledged is set once the framework has acknowledged the end: the task is over, and only its entry in the record
	// has to go yet.
	acknowledged bool
	// missing is set while the record no longer shows the task although it has not ended.
	missing bool
	// kill is a KILL that could not be delivered; sent again when the agent returns.
	kill *nodeapi.Kill
	// unreachable is when the task was given up with its agent; zero while it was not.
	unreachable time.Time
	// after is the launch time of an earlier task of that id, whose entry may still be in the record.
	after int64

	// announced is set while streams of operators know of it, and told the state that they were told last.
	announced bool
	told      mesos.TaskState

	// shown is the task as it is shown to tools; nil when it has to be made anew.
	shown *TaskView
}

// gone tells whether the task is not listed as active: given up with its agent, or over.
func (t *task) gone() bool { return !t.unreachable.IsZero() || t.acknowledged }

// terminal tells whether a task in this state has ended for good.
func terminal(s mesos.TaskState) bool {
	switch s {
	case mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_FAILED, mesos.TaskState_TASK_KILLED,
		mesos.TaskState_TASK_ERROR, mesos.TaskState_TASK_LOST, mesos.TaskState_TASK_DROPPED,
		mesos.TaskState_TASK_GONE, mesos.TaskState_TASK_GONE_BY_OPERATOR:
		return true
	}
	return false
}

// readTask reads one task's entry of an agent's record again.
func (m *Master) readTask(a *agent, s *record.Snapshot, key taskKey) {
	value, ok := s.Get(catalog.TaskKey(key.framework, key.task))
	t := m.tasks[key]
	if ok && t != nil && t.same(a, value) && a.tasks[key] == t && (m.term == nil || !m.isCompleted(key.framework)) {
		return
	}
	rec := new(catalog.Task)
	if ok {
		if err := proto.Unmarshal(value, rec); err != nil {
			m.unreadable(a, catalog.TaskKey(key.framework, key.task), err)
			ok = false
		}
	}
	if ok && t != nil && t.after != 0 && rec.GetLaunched() <= t.after {
		ok = false
	}
	if t != nil && t.agent != a.id {
		if !ok || t.rec == nil || t.launched >= rec.GetLaunched() {
			return // the entry of another agent is the newer task of that name
		}
		m.log.Warn("task id is in use on two agents", "framework_id", key.framework, "task_id", key.task, "agent_id", a.id, "peer", t.agent)
		m.remove(t)
		t = nil
	}
	if !ok {
		if t != nil {
			m.vanished(a, t)
		}
		return
	}
	if m.term != nil && m.isCompleted(key.framework) {
		m.endFramework(a, key.framework)
		return
	}
	fresh := t == nil
	if fresh {
		t = &task{key: key, agent: a.id, state: mesos.TaskState_TASK_STAGING, unreachable: a.unreachable}
		m.tasks[key] = t
		a.tasks[key] = t
		m.adopt(t)
	}
	a.tasks[key] = t // one that was given up may have been left by an agent that the mesh forgot
	if t.acknowledged {
		m.hold(a, t, resources.Resources{})
		return
	}
	m.seen(t)
	t.rec, t.launched, t.missing = value, rec.GetLaunched(), false
	t.executor, t.role = shared(rec.GetExecutorId(), t.executor, key.task), shared(rec.GetRole(), append(m.rolesOf(key.framework), t.role)...)
	t.state = mesos.TaskState(rec.GetState())
	switch {
	case t.unreachable.IsZero():
		m.hold(a, t, nodeapi.ResourcesFromCatalog(rec.GetResources()))
	case m.term != nil && a.unreachable.IsZero() && a.alive():
		m.taskReturned(a, t) // later than its agent
	}
	m.changed(t)
	m.announceTask(t)
	m.noteState(t)
	if f := m.frameworks[key.framework]; fresh && f != nil && m.term != nil {
		m.releaseKill(f, key.task)
	}
}

// same tells whether an agent's record says of a task just what it said before, and that was taken up.
func (t *task) same(a *agent, value []byte) bool {
	return t.rec != nil && t.agent == a.id && t.launch == nil && !t.missing && !t.acknowledged && t.unreachable.IsZero() && bytes.Equal(t.rec, value)
}

// shared returns s as one of the strings that are kept anyhow, where it equals one.
func shared(s string, kept ...string) string {
	for _, k := range kept {
		if k == s {
			return k
		}
	}
	return s
}

func (m *Master) rolesOf(framework string) []string {
	if f := m.frameworks[framework]; f != nil {
		return f.roles[:len(f.roles):len(f.roles)]
	}
	return nil
}

// hold notes what a task holds now.
func (m *Master) hold(a *agent, t *task, held resources.Resources) {
	held = held.AllocatedTo(t.role)
	if held.Equal(t.held) {
		return
	}
	was := t.held
	t.held = held
	m.changed(t)
	m.use(a, share{t.key.framework, t.role}, was, held)
}

// use notes that something of an agent holds other resources than it did.
func (m *Master) use(a *agent, key share, was, held resources.Resources) {
	if was.Equal(held) {
		return
	}
	used := a.used[key].Sub(was).Add(held)
	a.look.used = false
	if used.Empty() {
		delete(a.used, key)
	} else {
		a.used[key] = used
	}
	m.wantInverse(a)
	if m.alloc != nil {
		m.alloc.SetUsed(key.framework, key.role, a.id, used)
		m.wantAllocation()
	}
}

// adopt gives a task to its framework, where that is known.
func (m *Master) adopt(t *task) {
	if f := m.frameworks[t.key.framework]; f != nil {
		f.tasks.put(t)
	}
	if m.term != nil && m.isCompleted(t.key.framework) {
		if a := m.agents[t.agent]; a != nil {
			m.remove(t)
			m.endFramework(a, t.key.framework)
		}
	}
}

// forget takes a task out of its framework and its agent.
func (m *Master) forget(t *task) {
	if a := m.agents[t.agent]; a != nil {
		m.hold(a, t, resources.Resources{})
		delete(a.tasks, t.key)
		m.syncDrain(a)
	}
	if f := m.frameworks[t.key.framework]; f != nil && f.tasks.byID[t.key.task] == t {
		f.tasks.remove(t.key.task)
	}
}

// remove forgets a task altogether.
func (m *Master) remove(t *task) {
	m.seen(t) // nobody waits for it any more
	m.forget(t)
	if m.tasks[t.key] == t {
		delete(m.tasks, t.key)
	}
	if list := m.orphans[t.agent]; list[t.key] == t {
		if delete(list, t.key); len(list) == 0 {
			delete(m.orphans, t.agent)
		}
	}
}

// orphan keeps a task whose agent is forgotten.
func (m *Master) orphan(t *task) {
	if m.orphans[t.agent] == nil {
		m.orphans[t.agent] = make(map[taskKey]*task)
	}
	m.orphans[t.agent][t.key] = t
}

// reclaim gives an agent that is known again the tasks that it had. Its record tells which of them it still has, and it is
// asked for the others.
func (m *Master) reclaim(a *agent) {
	for key, t := range m.orphans[a.id] {
		a.tasks[key] = t
	}
	delete(m.orphans, a.id)
}

// complete moves a task that has ended to the history of its framework.
func (m *Master) complete(t *task) {
	m.tellRecorded(t)
	f := m.frameworks[t.key.framework]
	m.remove(t)
	if f != nil && !t.acknowledged {
		f.completed.add(m.show(t), m.cfg.MaxCompletedTasks)
	}
}

// vanished deals with a task whose entry has left the record.
func (m *Master) vanished(a *agent, t *task) {
	switch {
	case t.launch != nil:
		// Never was there yet.
	case m.term == nil || terminal(t.state) || t.acknowledged:
		m.complete(t)
	case !t.missing:
		// The record left out the end: either somebody else acknowledged it, or the agent lost the task. Ask.
		t.missing = true
		a.described = false
		m.wantDescription(a)
	}
}

// taskUnreachable gives up a task with its agent.
func (m *Master) taskUnreachable(a *agent, t *task) {
	if t.gone() || terminal(t.state) {
		return
	}
	t.unreachable = a.unreachable
	m.changed(t)
	m.hold(a, t, resources.Resources{})
	f := m.frameworks[t.key.framework]
	if f == nil {
		return
	}
	state := f.degrade(mesos.TaskState_TASK_UNREACHABLE)
	status := m.masterStatus(t.key.task, state, mesos.TaskStatus_REASON_AGENT_REMOVED, "Agent "+a.node.GetHostname()+" is unreachable")
	status.AgentId = &mesos.AgentID{Value: proto.String(a.id)}
	status.UnreachableTime = &mesos.TimeInfo{Nanoseconds: proto.Int64(t.unreachable.UnixNano())}
	if t.executor != "" {
		status.ExecutorId = &mesos.ExecutorID{Value: proto.String(t.executor)}
	}
	m.noteStatus(t, status)
	m.sendUpdate(f, status)
}

// taskReturned takes a task back with its agent, and tells the framework how it is.
func (m *Master) taskReturned(a *agent, t *task) {
	if t.unreachable.IsZero() || t.missing {
		return // one that its record lacks it is asked for first
	}
	t.unreachable = time.Time{}
	m.adopt(t) // it may have been forgotten there, as one unreachable task too many
	m.changed(t)
	if t.rec != nil {
		m.hold(a, t, nodeapi.ResourcesFromCatalog(t.rec.decode().GetResources()))
	}
	f := m.frameworks[t.key.framework]
	if f == nil || t.rec == nil {
		return
	}
	status := m.currentStatus(t, t.state, mesos.TaskStatus_REASON_AGENT_REREGISTERED, "Agent "+a.node.GetHostname()+" is back")
	m.noteStatus(t, status)
	m.sendUpdate(f, status)
}

// masterStatus is a status that the master makes up: without a uuid, so that nobody acknowledges it.
func (m *Master) masterStatus(taskID string, state mesos.TaskState, reason mesos.TaskStatus_Reason, message string) *mesos.TaskStatus {
	return &mesos.TaskStatus{
		TaskId:    &mesos.TaskID{Value: proto.String(taskID)},
		State:     state.Enum(),
		Message:   proto.String(message),
		Source:    mesos.TaskStatus_SOURCE_MASTER.Enum(),
		Reason:    reason.Enum(),
		Timestamp: proto.Float64(seconds(m.now())),
	}
}

// currentStatus is a masterStatus that tells all that is known of the task.
func (m *Master) currentStatus(t *task, state mesos.TaskState, reason mesos.TaskStatus_Reason, message string) *mesos.TaskStatus {
	s := m.masterStatus(t.key.task, state, reason, message)
	s.AgentId = &mesos.AgentID{Value: proto.String(t.agent)}
	if t.executor != "" {
		s.ExecutorId = &mesos.ExecutorID{Value: proto.String(t.executor)}
	}
	if newest := t.statuses.newest(); newest != nil {
		s.Healthy, s.CheckStatus, s.ContainerStatus = newest.Healthy, newest.CheckStatus, newest.ContainerStatus
	} else if t.rec != nil {
		rec := t.rec.decode()
		s.Healthy, s.ContainerStatus = rec.Healthy, containerStatus(rec, m.agents[t.agent].address())
	}
	return s
}

// containerStatus is made from the record, for a task of which no update has come by. node is the agent's address.
func containerStatus(rec *catalog.Task, node string) *mesos.ContainerStatus {
	if rec.GetContainerId() == "" {
		return nil
	}
	addresses := rec.GetAddresses()
	if len(addresses) == 0 && node != "" {
		addresses = []string{node}
	}
	cs := &mesos.ContainerStatus{ContainerId: &mesos.ContainerID{Value: proto.String(rec.GetContainerId())}}
	for _, address := range addresses {
		cs.NetworkInfos = append(cs.NetworkInfos, &mesos.NetworkInfo{IpAddresses: []*mesos.NetworkInfo_IPAddress{
			{Protocol: protocolOf(address).Enum(), IpAddress: proto.String(address)},
		}})
	}
	return cs
}

// noteStatus stores a status.
func (m *Master) noteStatus(t *task, status *mesos.TaskStatus) {
	var fresh bool
	t.statuses, fresh = t.statuses.with(status)
	m.changed(t)
	m.tellStatus(t, status, fresh)
}

func seconds(t time.Time) float64 {
	return float64(t.UnixMicro()) / 1e6
}
