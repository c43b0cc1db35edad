package master

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// heldKill is a KILL of a task of which nothing is known yet, and that may yet turn up: a leader that has just started may
// not have heard of its agent, or not all of it.
type heldKill struct {
	kill *scheduler.Call_Kill
	at   time.Time
	// answered is set once the framework was told that the task is unknown. It is ended all the same should it turn up with an
	// agent that is heard of late.
	answered bool
}

const (
	// maxHeldKills is how many KILLs are held for one framework. What does not fit is dropped, as the framework will
	// repeat it, or ask.
	maxHeldKills = 4096
	// maxHeldKill is how large a KILL that is held may be, in bytes: two ids and a little more.
	maxHeldKill = 1 << 10
	// oldKill is how long a KILL is held.
	oldKill = 10 * time.Minute
)

// kill forwards a KILL, or remembers it until the agent is back, or is heard of at all.
func (m *Master) kill(f *framework, kill *scheduler.Call_Kill) {
	m.killOf(f, heldKill{kill: kill, at: m.now()})
}

func (m *Master) killOf(f *framework, held heldKill) {
	kill := held.kill
	t := f.tasks.byID[kill.GetTaskId().GetValue()]
	if t == nil || t.gone() {
		held.answered = held.answered || m.answer(f, kill.GetTaskId().GetValue(), kill.GetAgentId().GetValue())
		if proto.Size(kill) <= maxHeldKill && (!held.answered || t == nil && m.mayTurnUp(kill.GetAgentId().GetValue())) {
			m.holdKill(f, held)
		}
		return
	}
	a := m.agents[t.agent]
	if want := kill.GetAgentId().GetValue(); a == nil || want != "" && want != t.agent {
		m.log.Warn("kill names another agent than the task's, ignored", "framework_id", f.id, "task_id", t.key.task, "agent_id", want)
		return
	}
	order := &nodeapi.Kill{
		FrameworkId: f.info.GetId(), TaskId: kill.GetTaskId(), KillPolicy: kill.GetKillPolicy(),
	}
	t.kill = order
	if a.alive() {
		m.sendKill(a, t, order)
	}
}

// mayTurnUp tells whether tasks may still be heard of that nobody knows now: those of an agent that is not known either.
func (m *Master) mayTurnUp(agentID string) bool {
	return agentID == "" || m.agents[agentID] == nil && !m.gone.has(agentID)
}

func (m *Master) sendKill(a *agent, t *task, order *nodeapi.Kill) {
	m.order(a, &nodeapi.Call{Call: &nodeapi.Call_Kill{Kill: order}}, func(err error) {
		if err == nil && t.kill == order {
			t.kill = nil
		}
	})
}

// holdKill keeps a KILL that can be neither forwarded nor answered.
func (m *Master) holdKill(f *framework, held heldKill) {
	id := held.kill.GetTaskId().GetValue()
	if _, known := f.kills[id]; !known && len(f.kills) >= maxHeldKills {
		for id, old := range f.kills {
			// Those that nobody waits for make room for one that somebody does.
			if m.now().Sub(old.at) > oldKill || old.answered && !held.answered {
				delete(f.kills, id)
			}
		}
		if len(f.kills) >= maxHeldKills {
			m.counters.add("master/dropped_messages", 1)
			return
		}
	}
	f.kills[id] = held
}

// releaseKill tries a KILL again that is held for a task, if there is one.
func (m *Master) releaseKill(f *framework, taskID string) {
	held, ok := f.kills[taskID]
	if !ok {
		return
	}
	delete(f.kills, taskID)
	if m.now().Sub(held.at) <= oldKill {
		m.killOf(f, held)
	}
}

// releaseKills tries those KILLs again that wait for an agent: its tasks are known now, or it was given up. Those that name
// no agent wait for all of them.
func (m *Master) releaseKills(agentID string) {
	for _, f := range m.frameworks {
		if len(f.kills) == 0 {
			continue
		}
		all := m.heardAll()
		for _, id := range slices.Collect(maps.Keys(f.kills)) {
			if want := f.kills[id].kill.GetAgentId().GetValue(); want == agentID || want == "" && all {
				m.releaseKill(f, id)
			}
		}
	}
}
