package master

import (
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// question is a task that a framework wants to hear of. One of an implicit reconciliation is not answered any more when the
// task has ended meanwhile.
type question struct {
	task, agent string
	implicit    bool
}

// maxQuestions is how many answers one framework may be waiting for. What does not fit is dropped, as frameworks ask again; so
// are ids longer than those of any task.
const maxQuestions = 1 << 18

// reconcile answers with the states of tasks: of all active ones, or of those asked for. There may be more of them than a
// stream holds, so the answers come as fast as they are read.
func (m *Master) reconcile(f *framework, r *scheduler.Call_Reconcile) {
	ask := func(q question) {
		switch {
		case f.asked[q]:
		case len(f.questions) >= maxQuestions, len(q.task)+len(q.agent) > maxHeldKill:
			m.counters.add("master/dropped_messages", 1)
		default:
			f.asked[q] = true
			f.questions = append(f.questions, q)
		}
	}
	for _, asked := range r.GetTasks() {
		ask(question{task: asked.GetTaskId().GetValue(), agent: asked.GetAgentId().GetValue()})
	}
	if len(r.GetTasks()) == 0 {
		for id, t := range f.tasks.byID {
			if !t.gone() {
				ask(question{task: id, implicit: true})
			}
		}
	}
	m.answerQuestions(f)
}

// answerQuestions answers as many as the stream has room for.
func (m *Master) answerQuestions(f *framework) {
	for len(f.questions) > 0 && f.connected {
		s := f.stream
		if !s.room(func() {
			m.post(func() {
				if m.frameworks[f.id] == f && f.stream == s {
					m.answerQuestions(f)
				}
			})
		}) {
			return
		}
		q := f.questions[0]
		f.questions = f.questions[1:]
		delete(f.asked, q)
		if t := f.tasks.byID[q.task]; !q.implicit || t != nil && !t.gone() {
			m.answer(f, q.task, q.agent)
		}
	}
	f.questions = nil
}

// reconciled is the answer for a task that is active: what was last forwarded, or else what is known.
func (m *Master) reconciled(t *task) *mesos.TaskStatus {
	state := t.state
	if t.forwarded != nil {
		state = t.forwarded.state
	}
	return m.currentStatus(t, state, mesos.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Latest task state")
}

// answer is the explicit answer for one task, or silence, and false, while it cannot be known. Spec: mesos-semantics.md
// section 6.
func (m *Master) answer(f *framework, taskID, agentID string) bool {
	t := f.tasks.byID[taskID]
	if t != nil && !t.gone() {
		m.sendUpdate(f, m.reconciled(t))
		return true
	}
	if t != nil && agentID == "" && !t.unreachable.IsZero() {
		agentID = t.agent
	}
	a := m.agents[agentID]
	var status *mesos.TaskStatus
	switch {
	case agentID != "" && m.gone.has(agentID):
		state, _ := f.goneState()
		status = m.masterStatus(taskID, state, mesos.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Task is gone")
	case agentID == "" && !m.heardAll(), agentID != "" && a == nil && !m.settled:
		return false
	case a != nil && a.unreachable.IsZero() && (!a.alive() || !a.described):
		return false // it may know the task and not have said so yet
	case a != nil && a.unreachable.IsZero():
		status = m.masterStatus(taskID, f.degrade(mesos.TaskState_TASK_GONE), mesos.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Task is unknown to the agent")
	case a != nil:
		status = m.masterStatus(taskID, f.degrade(mesos.TaskState_TASK_UNREACHABLE), mesos.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Task is unreachable")
		status.UnreachableTime = &mesos.TimeInfo{Nanoseconds: proto.Int64(a.unreachable.UnixNano())}
	case t != nil && !t.unreachable.IsZero():
		status = m.masterStatus(taskID, f.degrade(mesos.TaskState_TASK_UNREACHABLE), mesos.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Task is unreachable")
		status.UnreachableTime = &mesos.TimeInfo{Nanoseconds: proto.Int64(t.unreachable.UnixNano())}
	default:
		status = m.masterStatus(taskID, f.degrade(mesos.TaskState_TASK_UNKNOWN), mesos.TaskStatus_REASON_RECONCILIATION, "Reconciliation: Task is unknown")
	}
	if agentID != "" {
		status.AgentId = &mesos.AgentID{Value: proto.String(agentID)}
	}
	delete(f.kills, taskID)
	m.sendUpdate(f, status)
	return true
}

// heardAll tells whether every agent that is not given up has told this leader all of its tasks.
func (m *Master) heardAll() bool {
	if !m.settled {
		return false
	}
	for _, a := range m.agents {
		if a.unreachable.IsZero() && !a.described {
			return false
		}
	}
	return true
}
