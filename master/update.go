package master

import (
	"bytes"
	"context"
	"net"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// Report takes what an agent reports. The error is nodeapi.ErrNotLeading for a master that the agent does not mean, or
// nodeapi.ErrMalformed. Once it returns nil the leader has taken the report; updates are the agent's to repeat until they
// are acknowledged all the same.
func (m *Master) Report(ctx context.Context, report *nodeapi.Report) error {
	s := m.Standing()
	if !s.Leading || report.GetEpoch() > s.Epoch {
		if report.GetEpoch() > s.Epoch && s.Leading {
			m.post(func() {
				if m.term == nil || m.term.epoch < report.GetEpoch() { // by now it may be another term
					m.stepDown(report.GetEpoch())
				}
			})
		}
		return nodeapi.ErrNotLeading
	}
	// Merged before the loop hears of the report, so that what an update freed is free by then.
	m.merge(report.GetAgentId(), report.GetDelta())
	err := nodeapi.ErrNotLeading
	if e := m.do(ctx, func() {
		if m.term != nil && m.report(report) {
			err = nil
		}
	}); e != nil {
		return e
	}
	return err
}

// report is false when the agent is not known yet: its record has not come by, and it will report again.
func (m *Master) report(report *nodeapi.Report) bool {
	a := m.agents[report.GetAgentId()]
	if s := m.cfg.Mesh.Snapshot(report.GetAgentId()); a == nil && s != nil {
		m.readNode(s) // news that the feed has not brought yet
		a = m.agents[report.GetAgentId()]
	}
	if a == nil {
		m.counters.add("master/dropped_messages", 1)
		return false
	}
	var keys []taskKey
	for _, u := range report.GetUpdates() {
		keys = append(keys, taskKey{u.GetFrameworkId().GetValue(), u.GetStatus().GetTaskId().GetValue()})
	}
	m.refresh(a, keys...)
	for _, u := range report.GetUpdates() {
		m.statusUpdate(a, u)
	}
	for _, op := range report.GetOperations() {
		m.operationReported(a, op)
	}
	for _, msg := range report.GetMessages() {
		m.executorMessage(a, msg)
	}
	for _, exit := range report.GetExits() {
		m.executorExit(a, exit)
	}
	return true
}

// statusUpdate takes an update of an agent and forwards it.
func (m *Master) statusUpdate(a *agent, u *nodeapi.StatusUpdate) {
	m.counters.add("master/messages_status_update", 1)
	status := u.GetStatus()
	key := taskKey{u.GetFrameworkId().GetValue(), status.GetTaskId().GetValue()}
	if key.task == "" || status.State == nil || status.GetAgentId().GetValue() != "" && status.GetAgentId().GetValue() != a.id {
		m.counters.add("master/invalid_status_updates", 1)
		m.log.Warn("status update refused", "agent_id", a.id, "framework_id", key.framework, "task_id", key.task)
		return
	}
	if m.isCompleted(key.framework) {
		m.endFramework(a, key.framework)
		return
	}
	if status.AgentId == nil {
		status = proto.CloneOf(status)
		status.AgentId = agentID(a.id)
	}
	t := m.tasks[key]
	if t != nil && t.agent != a.id {
		m.counters.add("master/invalid_status_updates", 1)
		m.log.Warn("status update for a task of another agent", "agent_id", a.id, "peer", t.agent, "framework_id", key.framework, "task_id", key.task)
		return
	}
	m.counters.add("master/valid_status_updates", 1)
	f := m.frameworks[key.framework]
	if t != nil {
		m.seen(t)
		latest := mesos.TaskState(u.GetLatestState())
		if _, ok := mesos.TaskState_name[u.GetLatestState()]; !ok {
			latest = status.GetState()
		}
		if t.rec == nil && !terminal(t.state) {
			t.state = latest
		}
		repeated := t.forwarded != nil && bytes.Equal(t.forwarded.uuid, status.GetUuid()) && len(status.GetUuid()) > 0
		if !repeated {
			m.noteStatus(t, status)
			m.countStatus(status)
		}
		if t.acknowledged {
			// The agent has not heard of the acknowledgement.
			m.forwardEndAck(a, t, status.GetUuid())
			return
		}
		if len(status.GetUuid()) > 0 {
			t.unacked = status
		}
	}
	if f == nil {
		return // the agent repeats it until the framework is back
	}
	if m.sendUpdate(f, status) && t != nil {
		t.forwarded = forwardedAs(status)
		m.changed(t)
	}
	if t != nil && len(status.GetUuid()) == 0 && terminal(status.GetState()) && t.rec == nil {
		m.complete(t) // nobody will acknowledge it
	}
}

// sendUpdate sends an UPDATE; false when the framework is not connected.
func (m *Master) sendUpdate(f *framework, status *mesos.TaskStatus) bool {
	if !f.connected {
		return false
	}
	if status.GetSource() == mesos.TaskStatus_SOURCE_MASTER {
		m.countStatus(status)
	}
	f.metrics.update(status.GetState())
	m.send(f, &scheduler.Event{
		Type:   scheduler.Event_UPDATE.Enum(),
		Update: &scheduler.Event_Update{Status: status},
	})
	return true
}

// acknowledge passes an acknowledgement on to the agent that waits for it.
func (m *Master) acknowledge(f *framework, ack *scheduler.Call_Acknowledge) {
	key := taskKey{f.id, ack.GetTaskId().GetValue()}
	a := m.agents[ack.GetAgentId().GetValue()]
	t := m.tasks[key]
	if a == nil || !a.alive() || t != nil && t.agent != a.id {
		m.counters.add("master/invalid_status_update_acknowledgements", 1)
		m.log.Debug("acknowledgement ignored", "framework_id", f.id, "task_id", key.task, "agent_id", ack.GetAgentId().GetValue())
		return
	}
	// An update that an earlier leader forwarded may be acknowledged to this one: the agent knows what it waits for.
	m.counters.add("master/valid_status_update_acknowledgements", 1)
	if t != nil && t.unacked != nil && bytes.Equal(t.unacked.GetUuid(), ack.GetUuid()) {
		over := terminal(t.unacked.GetState())
		if over {
			m.hold(a, t, resources.Resources{})
			t.state = t.unacked.GetState()
			m.changed(t)
			f.completed.add(m.show(t), m.cfg.MaxCompletedTasks)
			t.acknowledged = true
			f.tasks.remove(key.task)
			if t.rec == nil {
				m.remove(t)
			}
		}
		t.unacked = nil
		if over {
			m.forwardEndAck(a, t, ack.GetUuid())
			return
		}
	}
	if t != nil && t.acknowledged {
		m.forwardEndAck(a, t, ack.GetUuid()) // once more
		return
	}
	m.forwardAck(a, key, ack.GetUuid())
}

// forwardEndAck forwards the acknowledgement of a task's end, but not before its launch is over.
func (m *Master) forwardEndAck(a *agent, t *task, uuid []byte) {
	if t.batch != nil && !t.batch.over {
		t.batch.acks[t.key] = uuid
		return
	}
	m.forwardAck(a, t.key, uuid)
}

func (m *Master) forwardAck(a *agent, key taskKey, uuid []byte) {
	m.acknowledgeTo(a, &nodeapi.Call{Call: &nodeapi.Call_Acknowledge{Acknowledge: &nodeapi.Acknowledge{
		FrameworkId: &mesos.FrameworkID{Value: proto.String(key.framework)},
		TaskId:      &mesos.TaskID{Value: proto.String(key.task)},
		Uuid:        uuid,
	}}})
}

func (m *Master) executorMessage(a *agent, msg *nodeapi.ExecutorMessage) {
	m.counters.add("master/messages_executor_to_framework", 1)
	f := m.frameworks[msg.GetFrameworkId().GetValue()]
	if f == nil || !f.connected {
		m.counters.add("master/invalid_executor_to_framework_messages", 1)
		return
	}
	m.counters.add("master/valid_executor_to_framework_messages", 1)
	m.send(f, &scheduler.Event{
		Type: scheduler.Event_MESSAGE.Enum(),
		Message: &scheduler.Event_Message{
			AgentId: agentID(a.id), ExecutorId: msg.GetExecutorId(), Data: nonNil(msg.GetData()),
		},
	})
}

func (m *Master) executorExit(a *agent, exit *nodeapi.ExecutorExit) {
	m.counters.add("master/messages_exited_executor", 1)
	if s := m.cfg.Mesh.Snapshot(a.id); s != nil {
		// The record, which the report brought along, says whether there is another one of that id already.
		m.readExecutor(a, s, executorKey{exit.GetFrameworkId().GetValue(), exit.GetExecutorId().GetValue()})
	}
	if f := m.frameworks[exit.GetFrameworkId().GetValue()]; f != nil {
		m.send(f, &scheduler.Event{
			Type: scheduler.Event_FAILURE.Enum(),
			Failure: &scheduler.Event_Failure{
				AgentId: agentID(a.id), ExecutorId: exit.GetExecutorId(), Status: proto.Int32(exit.GetStatus()),
			},
		})
	}
}

// nonNil makes a required field of bytes present.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func protocolOf(address string) mesos.NetworkInfo_Protocol {
	if ip := net.ParseIP(address); ip != nil && ip.To4() == nil {
		return mesos.NetworkInfo_IPv6
	}
	return mesos.NetworkInfo_IPv4
}
