package master

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
	"starling/master/validation"
)

// launch is one batch of tasks on its way to an agent.
type launch struct {
	agent     *agent
	framework string
	role      string
	// tasks are those that neither the record nor an update has shown yet.
	tasks map[taskKey]*task
	// taken is what of the ACCEPT's pool goes into the batch, and held what the allocator holds for it until its fate is
	// known; empty once that was settled.
	taken pool
	held  held
	// group is the executor of a task group; nil for tasks by themselves.
	group *mesos.ExecutorInfo
	// executors are the ids of those that its tasks are for, where these are no command tasks.
	executors map[string]bool
	// over is set once no further attempt will be made. Until then acks holds the acknowledgements of ends: an agent that
	// had been told that it may forget a task would take the same launch again for a new one.
	over bool
	acks map[taskKey][]byte // uuids
}

// accept uses offers. All that are named are used up, whatever becomes of the operations.
func (m *Master) accept(f *framework, accept *scheduler.Call_Accept) {
	offers, err := m.claim(f, accept.GetOfferIds())
	if err != nil {
		m.refuseOperations(f, accept.GetOperations(), err)
		return
	}
	first := offers[0]
	a, role := first.agent, first.role
	var p pool
	for _, o := range offers {
		m.drop(o)
		f.metrics.offersAccepted++
		p.granted = p.granted.Add(o.resources)
	}
	for _, op := range accept.GetOperations() {
		switch op.GetType() {
		case mesos.Offer_Operation_LAUNCH:
			m.launch(f, a, role, &p, op)
		case mesos.Offer_Operation_LAUNCH_GROUP:
			m.launchGroup(f, a, role, &p, op)
		default:
			m.operate(f, a, role, &p, op)
		}
	}
	// What operations made and nothing used is offered once the agent's record shows it.
	m.giveBack(first, p.granted, allocator.RefuseFor(accept.GetFilters()))
}

// claim looks up the offers of an ACCEPT. When one of them is not valid, the others go back without a filter.
func (m *Master) claim(f *framework, ids []*mesos.OfferID) ([]*offer, error) {
	var offers []*offer
	err := func() error {
		if len(ids) == 0 {
			return errors.New("No offers specified")
		}
		seen := make(map[string]bool)
		for _, id := range ids {
			o := m.offers[id.GetValue()]
			if o == nil {
				return fmt.Errorf("Offer %s is no longer valid", id.GetValue())
			}
			if seen[o.id] {
				return fmt.Errorf("Duplicate offer %s in offer list", o.id)
			}
			seen[o.id] = true
			if o.framework != f {
				return fmt.Errorf("Offer %s has invalid framework %s while framework %s is expected", o.id, o.framework.id, f.id)
			}
			if len(offers) > 0 && o.agent != offers[0].agent {
				return fmt.Errorf("Aggregated offers must belong to one single agent. Offer %s uses agent %s and agent %s is expected", o.id, o.agent.id, offers[0].agent.id)
			}
			if len(offers) > 0 && o.role != offers[0].role {
				return fmt.Errorf("Aggregated offers must be allocated to the same role. Offer %s uses role %s but another is using role %s", o.id, o.role, offers[0].role)
			}
			offers = append(offers, o)
		}
		return nil
	}()
	if err == nil {
		return offers, nil
	}
	for _, id := range ids {
		if o := m.offers[id.GetValue()]; o != nil && o.framework == f {
			m.withdraw(o)
		}
	}
	return nil, err
}

// refuseOperations answers for all operations of an ACCEPT whose offers were not valid.
func (m *Master) refuseOperations(f *framework, ops []*mesos.Offer_Operation, err error) {
	message := "Task launched with invalid offers: " + err.Error()
	for _, op := range ops {
		tasks := op.GetLaunch().GetTaskInfos()
		tasks = append(tasks[:len(tasks):len(tasks)], op.GetLaunchGroup().GetTaskGroup().GetTasks()...)
		for _, info := range tasks {
			status := m.masterStatus(info.GetTaskId().GetValue(), f.degrade(mesos.TaskState_TASK_DROPPED), mesos.TaskStatus_REASON_INVALID_OFFERS, message)
			status.AgentId = info.GetAgentId()
			m.sendUpdate(f, status)
		}
		if op.Launch == nil && op.LaunchGroup == nil {
			m.refuseOperation(f, nil, op, "Operation attempted with invalid offers: "+err.Error())
		}
	}
	m.log.Info("offers are not valid", "framework_id", f.id, "err", err)
}

// refuseOperation tells of a failed operation, if the framework wants to know.
func (m *Master) refuseOperation(f *framework, a *agent, op *mesos.Offer_Operation, message string) {
	m.log.Info("operation refused", "framework_id", f.id, "operation", op.GetType().String(), "reason", message)
	m.countOperation(op, mesos.OperationState_OPERATION_ERROR)
	if op.Id == nil {
		return
	}
	status := &mesos.OperationStatus{
		OperationId: op.GetId(), State: mesos.OperationState_OPERATION_ERROR.Enum(), Message: proto.String(message),
	}
	if a != nil {
		status.AgentId = agentID(a.id)
	}
	m.sendOperationStatus(f, status)
}

// refuseTask answers TASK_ERROR for a task that is not launched.
func (m *Master) refuseTask(f *framework, a *agent, info *mesos.TaskInfo, reason mesos.TaskStatus_Reason, message string) {
	status := m.masterStatus(info.GetTaskId().GetValue(), mesos.TaskState_TASK_ERROR, reason, message)
	status.AgentId = agentID(a.id)
	m.sendUpdate(f, status)
	m.log.Debug("task refused", "framework_id", f.id, "task_id", info.GetTaskId().GetValue(), "reason", message)
}

// launch starts the tasks of a LAUNCH, each by itself, out of the pool.
func (m *Master) launch(f *framework, a *agent, role string, p *pool, op *mesos.Offer_Operation) {
	l := &launch{agent: a, framework: f.id, role: role, tasks: make(map[taskKey]*task), acks: make(map[taskKey][]byte)}
	var infos []*mesos.TaskInfo
	for _, given := range op.GetLaunch().GetTaskInfos() {
		info := proto.CloneOf(given)
		complete(info, f, role)
		if op.Id != nil {
			m.refuseTask(f, a, info, mesos.TaskStatus_REASON_TASK_INVALID, "Operation 'id' is not allowed for LAUNCH")
			continue
		}
		need, err := validation.Task(info, m.context(f, a, p.all()))
		if err != nil {
			m.refuseTask(f, a, info, mesos.TaskStatus_REASON_TASK_INVALID, err.Error())
			continue
		}
		taken := p.take(need)
		l.taken.granted, l.taken.made = l.taken.granted.Add(taken.granted), l.taken.made.Add(taken.made)
		m.addLaunched(f, a, l, info, info.GetExecutor())
		infos = append(infos, info)
	}
	if len(infos) > 0 {
		m.sendLaunch(f, a, l, &nodeapi.Launch{Framework: f.info, Tasks: infos})
	}
}

// launchGroup starts the tasks of a LAUNCH_GROUP, all of them or none, out of the pool.
func (m *Master) launchGroup(f *framework, a *agent, role string, p *pool, op *mesos.Offer_Operation) {
	group := proto.CloneOf(op.GetLaunchGroup())
	executor := group.GetExecutor()
	completeExecutor(executor, f, role)
	infos := group.GetTaskGroup().GetTasks()
	for _, info := range infos {
		complete(info, f, role)
		if info.Executor == nil {
			info.Executor = executor
		}
	}
	var need resources.Resources
	err := errors.New("Operation 'id' is not allowed for LAUNCH_GROUP")
	if op.Id == nil {
		need, err = validation.Group(executor, infos, m.context(f, a, p.all()))
	}
	if err != nil {
		for _, info := range infos {
			m.refuseTask(f, a, info, mesos.TaskStatus_REASON_TASK_GROUP_INVALID, err.Error())
		}
		return
	}
	l := &launch{
		agent: a, framework: f.id, role: role, tasks: make(map[taskKey]*task), acks: make(map[taskKey][]byte), taken: p.take(need),
		group: executor,
	}
	for _, info := range infos {
		m.addLaunched(f, a, l, info, executor)
	}
	m.sendLaunch(f, a, l, &nodeapi.Launch{Framework: f.info, Tasks: infos, GroupExecutor: executor})
}

// complete fills in what a framework may leave out of a task.
func complete(info *mesos.TaskInfo, f *framework, role string) {
	allocate(info.Resources, role)
	if info.Executor != nil {
		completeExecutor(info.Executor, f, role)
	}
	if h := info.HealthCheck; h != nil && h.Type == nil {
		switch {
		case h.Command != nil:
			h.Type = mesos.HealthCheck_COMMAND.Enum()
		case h.Http != nil:
			h.Type = mesos.HealthCheck_HTTP.Enum()
		case h.Tcp != nil:
			h.Type = mesos.HealthCheck_TCP.Enum()
		}
	}
}

func completeExecutor(e *mesos.ExecutorInfo, f *framework, role string) {
	if e.FrameworkId == nil {
		e.FrameworkId = f.info.GetId()
	}
	allocate(e.Resources, role)
}

// allocate marks resources as allocated to a role where they are not marked yet.
func allocate(rs []*mesos.Resource, role string) {
	for _, r := range rs {
		if r.AllocationInfo == nil {
			r.AllocationInfo = &mesos.Resource_AllocationInfo{Role: proto.String(role)}
		}
	}
}

// addLaunched lists a task that is about to be launched.
func (m *Master) addLaunched(f *framework, a *agent, l *launch, info *mesos.TaskInfo, executor *mesos.ExecutorInfo) {
	key := taskKey{f.id, info.GetTaskId().GetValue()}
	t := &task{
		key: key, agent: a.id, definition: launched(info), state: mesos.TaskState_TASK_STAGING, launch: l, batch: l, role: l.role,
		executor: executor.GetExecutorId().GetValue(), ownExecutor: executor != nil,
	}
	if old := m.tasks[key]; old != nil {
		// One that ended and was acknowledged, and is still in the record: its entry is not this task's.
		t.after = old.launched
		m.remove(old)
	}
	m.tasks[key], a.tasks[key] = t, t
	f.tasks.put(t)
	delete(f.kills, key.task) // that was for an earlier task of this id
	l.tasks[key] = t
	if executor != nil {
		m.setExecutor(a, executorKey{f.id, t.executor}, executor)
		if l.executors == nil {
			l.executors = make(map[string]bool)
		}
		l.executors[t.executor] = true
	}
	m.announceTask(t)
}

// sendLaunch sends a batch. What the allocator granted for it stays taken until the record shows it.
func (m *Master) sendLaunch(f *framework, a *agent, l *launch, order *nodeapi.Launch) {
	l.held = m.setAside(f, l.role, a, l.taken)
	e := &errand{
		call:     &nodeapi.Call{Call: &nodeapi.Call_Launch{Launch: order}},
		patience: m.cfg.LaunchPatience,
	}
	e.wanted = func() bool {
		if len(l.tasks) == len(order.GetTasks()) {
			return true
		}
		// What has been seen was taken, and may have ended and been forgotten since: it must not be launched again. A group
		// is taken as a whole.
		left := &nodeapi.Launch{Framework: order.GetFramework()}
		for _, info := range order.GetTasks() {
			if l.tasks[taskKey{f.id, info.GetTaskId().GetValue()}] != nil {
				left.Tasks = append(left.Tasks, info)
			}
		}
		order = left
		e.call = &nodeapi.Call{Call: &nodeapi.Call_Launch{Launch: left}}
		return len(left.Tasks) > 0 && l.group == nil
	}
	e.done = func(err error) { m.launched(a, l, err) }
	a.launches[l] = true
	m.enqueue(a, &a.ordered, e)
}

// launched deals with the outcome of a batch.
func (m *Master) launched(a *agent, l *launch, err error) {
	l.over = true
	delete(a.launches, l)
	defer m.syncDrain(a)
	defer func() {
		for key, uuid := range l.acks {
			m.forwardAck(a, key, uuid)
		}
		l.acks = nil
	}()
	switch {
	case err == nil:
		// The answer brought the record: what it shows as free now is free.
		keys := make([]taskKey, 0, len(l.tasks))
		for key := range l.tasks {
			keys = append(keys, key)
		}
		m.refresh(a, keys...)
		m.refreshExecutors(a, l)
		m.letGo(l.agent, &l.held)
	case errors.Is(err, errUndelivered):
		for _, t := range l.tasks {
			if f := m.frameworks[t.key.framework]; f != nil {
				status := m.masterStatus(t.key.task, f.degrade(mesos.TaskState_TASK_DROPPED), mesos.TaskStatus_REASON_AGENT_DISCONNECTED, "Agent disconnected")
				status.AgentId = agentID(a.id)
				m.noteStatus(t, status)
				t.state = status.GetState()
				m.sendUpdate(f, status)
			}
			t.launch = nil
			m.complete(t)
		}
		clear(l.tasks)
		m.letGo(l.agent, &l.held)
		m.sweepExecutors(a)
	case len(l.tasks) == 0:
		// All were seen, and no answer has brought the rest of the record: the description does.
		a.launches[l] = true
		a.described = false
		m.wantDescription(a)
	default:
		// Only the agent knows. Its record or its description will tell.
		a.described = false
		m.wantDescription(a)
	}
}

// abandon ends a batch of which no more will be heard by way of its call.
func (m *Master) abandon(l *launch) {
	l.over, l.acks = true, nil
	delete(l.agent.launches, l)
	if len(l.tasks) == 0 {
		m.letGo(l.agent, &l.held)
	}
}

// letGoSeen ends what is held for batches that were seen, once the agent has told the whole of its record.
func (m *Master) letGoSeen(a *agent) {
	m.refresh(a)
	for l := range a.launches {
		if l.over {
			delete(a.launches, l)
			m.letGo(a, &l.held)
		}
	}
}

// seen notes that a launched task has arrived. What is held for its batch stays held until the answer to the call has
// brought the rest of the record: news of a task may overtake that of the resources it took.
func (m *Master) seen(t *task) {
	l := t.launch
	if l == nil {
		return
	}
	t.launch = nil
	delete(l.tasks, t.key)
	if len(l.tasks) == 0 && l.over {
		m.letGo(l.agent, &l.held)
	}
}
