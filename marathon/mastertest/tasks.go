package mastertest

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

func update(status *mesos.TaskStatus) *scheduler.Event {
	return &scheduler.Event{Type: scheduler.Event_UPDATE.Enum(), Update: &scheduler.Event_Update{Status: status}}
}

func (c *Cluster) timestamp() *float64 { return proto.Float64(float64(c.now().UnixNano()) / 1e9) }

func (c *Cluster) sortedTasks(a *agent) []*task {
	tasks := make([]*task, 0, len(a.tasks))
	for _, id := range sortedKeys(a.tasks) {
		tasks = append(tasks, a.tasks[id])
	}
	return tasks
}

// start lets a task go on from STAGING to RUNNING.
func (c *Cluster) start(t *task) {
	c.report(t, mesos.TaskState_TASK_STARTING, "")
	if c.well && t.info.GetHealthCheck() != nil {
		t.healthy = proto.Bool(true)
	}
	c.report(t, mesos.TaskState_TASK_RUNNING, "")
}

// report queues a status update of a task; the next one goes out when the last was acknowledged.
func (c *Cluster) report(t *task, state mesos.TaskState, message string) {
	t.state = state
	status := &mesos.TaskStatus{
		TaskId: t.info.GetTaskId(), AgentId: t.info.GetAgentId(), State: state.Enum(), Uuid: c.uuid(),
		Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(), Timestamp: c.timestamp(), Healthy: t.healthy,
	}
	if message != "" {
		status.Message = proto.String(message)
	}
	if state == mesos.TaskState_TASK_RUNNING {
		status.ContainerStatus = &mesos.ContainerStatus{NetworkInfos: []*mesos.NetworkInfo{{IpAddresses: []*mesos.NetworkInfo_IPAddress{{
			Protocol: mesos.NetworkInfo_IPv4.Enum(), IpAddress: proto.String("127.0.0.1"),
		}}}}}
	}
	if state != mesos.TaskState_TASK_FINISHED && terminal(state) {
		defer c.endGroup(t)
	}
	t.updates = append(t.updates, status)
	if len(t.updates) == 1 && c.connected && !t.agent.lost {
		c.send(update(status))
	}
}

// endGroup ends the others of a group, one of which has ended other than well.
func (c *Cluster) endGroup(of *task) {
	if of.executor == nil {
		return
	}
	for _, t := range c.sortedTasks(of.agent) {
		if t != of && !terminal(t.state) && t.executor.GetExecutorId().GetValue() == of.executor.GetExecutorId().GetValue() {
			c.report(t, mesos.TaskState_TASK_KILLED, "")
		}
	}
}

// Resend sends the oldest unacknowledged update of each task again, as agents do now and then.
func (c *Cluster) Resend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resend()
}

func (c *Cluster) resend() {
	if !c.connected {
		return
	}
	for _, id := range c.order {
		a := c.agents[id]
		if a.lost {
			continue
		}
		for _, t := range c.sortedTasks(a) {
			if len(t.updates) > 0 {
				c.send(update(t.updates[0]))
			}
		}
	}
}

func (c *Cluster) find(id string) *task {
	for _, a := range c.agents {
		if t := a.tasks[id]; t != nil {
			return t
		}
	}
	return nil
}

func (c *Cluster) acknowledge(ack *scheduler.Call_Acknowledge) {
	t := c.find(ack.GetTaskId().GetValue())
	if t == nil || len(t.updates) == 0 || string(t.updates[0].GetUuid()) != string(ack.GetUuid()) {
		return
	}
	done := t.updates[0]
	t.updates = t.updates[1:]
	if len(t.updates) > 0 {
		if !t.agent.lost {
			c.send(update(t.updates[0]))
		}
		return
	}
	if terminal(done.GetState()) {
		delete(t.agent.tasks, t.info.GetTaskId().GetValue())
		c.offerAll()
	}
}

func terminal(s mesos.TaskState) bool {
	switch s {
	case mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_FAILED, mesos.TaskState_TASK_KILLED, mesos.TaskState_TASK_ERROR,
		mesos.TaskState_TASK_DROPPED, mesos.TaskState_TASK_GONE, mesos.TaskState_TASK_LOST:
		return true
	default:
		return false
	}
}

func (c *Cluster) kill(kill *scheduler.Call_Kill) {
	id := kill.GetTaskId().GetValue()
	t := c.find(id)
	switch {
	case t == nil:
		c.answer(id, kill.GetAgentId().GetValue())
	case t.agent.lost || terminal(t.state):
	default:
		c.report(t, mesos.TaskState_TASK_KILLED, "Command terminated with signal Terminated")
	}
}

func (c *Cluster) reconcile(tasks []*scheduler.Call_Reconcile_Task) {
	if len(tasks) == 0 {
		for _, id := range c.order {
			if a := c.agents[id]; !a.lost {
				for _, t := range c.sortedTasks(a) {
					c.answer(t.info.GetTaskId().GetValue(), a.ID)
				}
			}
		}
		return
	}
	for _, asked := range tasks {
		c.answer(asked.GetTaskId().GetValue(), asked.GetAgentId().GetValue())
	}
}

// answer sends the master's word on a task, which needs no acknowledgement.
func (c *Cluster) answer(id, agentID string) {
	status := &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: proto.String(id)}, Source: mesos.TaskStatus_SOURCE_MASTER.Enum(),
		Reason: mesos.TaskStatus_REASON_RECONCILIATION.Enum(), Timestamp: c.timestamp(),
	}
	if agentID != "" {
		status.AgentId = &mesos.AgentID{Value: proto.String(agentID)}
	}
	t := c.find(id)
	on := c.agents[agentID]
	switch {
	case t != nil && t.agent.lost, t == nil && on != nil && on.lost:
		status.State = mesos.TaskState_TASK_UNREACHABLE.Enum()
	case t != nil:
		// The last state that was forwarded: that of the oldest update that waits, or the present one.
		state := t.state
		if len(t.updates) > 0 {
			state = t.updates[0].GetState()
		}
		status.State, status.Healthy = state.Enum(), t.healthy
		status.Message = proto.String("Reconciliation: Latest task state")
	case on != nil:
		status.State = mesos.TaskState_TASK_GONE.Enum()
		status.Message = proto.String("Reconciliation: Task is unknown to the agent")
	default:
		status.State = mesos.TaskState_TASK_UNKNOWN.Enum()
		status.Message = proto.String("Reconciliation: Task is unknown")
	}
	c.send(update(status))
}

// End lets a running task end by itself.
func (c *Cluster) End(id string, state mesos.TaskState, message string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.find(id)
	if t == nil || terminal(t.state) {
		return fmt.Errorf("no task %q is alive", id)
	}
	c.report(t, state, message)
	return nil
}

// Healthy reports the result of a check that the agent runs.
func (c *Cluster) Healthy(id string, healthy bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.find(id)
	if t == nil || terminal(t.state) {
		return fmt.Errorf("no task %q is alive", id)
	}
	t.healthy = proto.Bool(healthy)
	c.report(t, t.state, "")
	return nil
}

// Inject sends an update as it stands.
func (c *Cluster) Inject(status *mesos.TaskStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(update(status))
}

// Lose cuts an agent off: its tasks go on, and the framework hears that they can't be reached.
func (c *Cluster) Lose(agentID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[agentID]
	if a == nil || a.lost {
		return
	}
	a.lost = true
	if a.offer != nil {
		if c.connected {
			c.send(&scheduler.Event{Type: scheduler.Event_RESCIND.Enum(), Rescind: &scheduler.Event_Rescind{OfferId: a.offer.GetId()}})
		}
		a.offer = nil
	}
	if !c.connected {
		return
	}
	for _, t := range c.sortedTasks(a) {
		c.send(update(&mesos.TaskStatus{
			TaskId: t.info.GetTaskId(), AgentId: t.info.GetAgentId(), State: mesos.TaskState_TASK_UNREACHABLE.Enum(),
			Source: mesos.TaskStatus_SOURCE_MASTER.Enum(), Reason: mesos.TaskStatus_REASON_AGENT_REMOVED.Enum(),
			Message: proto.String("Agent is unreachable"), Timestamp: c.timestamp(),
			UnreachableTime: &mesos.TimeInfo{Nanoseconds: proto.Int64(c.now().UnixNano())},
		}))
	}
	c.send(&scheduler.Event{
		Type:    scheduler.Event_FAILURE.Enum(),
		Failure: &scheduler.Event_Failure{AgentId: &mesos.AgentID{Value: proto.String(agentID)}},
	})
}

// Return brings a lost agent back with its tasks, whose states it reports.
func (c *Cluster) Return(agentID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[agentID]
	if a == nil || !a.lost {
		return
	}
	a.lost = false
	for _, t := range c.sortedTasks(a) {
		switch {
		case !c.connected:
		case len(t.updates) > 0:
			c.send(update(t.updates[0]))
		default:
			c.send(update(&mesos.TaskStatus{
				TaskId: t.info.GetTaskId(), AgentId: t.info.GetAgentId(), State: t.state.Enum(), Healthy: t.healthy,
				Source: mesos.TaskStatus_SOURCE_MASTER.Enum(), Reason: mesos.TaskStatus_REASON_AGENT_REREGISTERED.Enum(),
				Timestamp: c.timestamp(),
			}))
		}
	}
	c.offerAll()
}

// Tasks returns the tasks that exist on the agents, lost ones included, in the order of ids.
func (c *Cluster) Tasks() []Task {
	c.mu.Lock()
	defer c.mu.Unlock()
	var tasks []Task
	for _, id := range c.order {
		for _, t := range c.sortedTasks(c.agents[id]) {
			tasks = append(tasks, Task{
				Info: t.info, State: t.state, Pending: len(t.updates), Alive: !t.agent.lost && !terminal(t.state),
			})
		}
	}
	slices.SortFunc(tasks, func(a, b Task) int {
		return cmpString(a.Info.GetTaskId().GetValue(), b.Info.GetTaskId().GetValue())
	})
	return tasks
}

// Alive counts, by task name, the tasks that are neither over nor on a lost agent.
func (c *Cluster) Alive() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	alive := make(map[string]int)
	for _, a := range c.agents {
		if a.lost {
			continue
		}
		for _, t := range a.tasks {
			if !terminal(t.state) {
				alive[t.info.GetName()]++
			}
		}
	}
	return alive
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}
