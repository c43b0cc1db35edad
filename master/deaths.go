package master

import (
	"time"

	"starling/gossip/record"
	"starling/master/mesos/scheduler"
)

const (
	// minFreeze is the size of a site from which the loss of more than half of it at once is not believed.
	minFreeze = 4
	// oldLoss is how long ago an agent must have been given up not to count as part of a loss at once.
	oldLoss = time.Hour
)

// watchDeaths stops giving up agents while most of the site is away: it is more likely that this master is cut off.
// Destroy nothing then.
func (m *Master) watchDeaths() {
	frozen := m.mostAway(m.away)
	if frozen == m.frozen {
		return
	}
	m.frozen = frozen
	if frozen {
		m.log.Error("most agents are away: none is given up until that changes", "away", m.away, "agents", len(m.agents))
	} else {
		m.log.Info("agents are given up again", "away", m.away, "agents", len(m.agents))
	}
	for _, a := range m.agents {
		m.watch(a)
	}
}

// mostAway tells whether so many agents away are too many to be believed. Those given up long ago don't count.
func (m *Master) mostAway(away int) bool {
	all := len(m.agents)
	if all >= minFreeze && 2*away > all {
		for _, a := range m.agents {
			if !a.unreachable.IsZero() && m.now().Sub(a.unreachable) > oldLoss {
				away--
				all--
			}
		}
	}
	return all >= minFreeze && 2*away > all
}

// watch starts the clock of an agent that is not there, and stops that of one that is.
func (m *Master) watch(a *agent) {
	var patience time.Duration
	gone := m.term != nil && m.settled && !m.frozen && a.unreachable.IsZero()
	switch a.liveness {
	case record.Dead:
		patience = m.cfg.UnreachableAfter
	case record.Left, record.Unknown:
		patience = m.cfg.LeaveTimeout
	default:
		gone = false
	}
	switch {
	case gone && a.giveUp == nil:
		m.counters.add("master/slave_unreachable_scheduled", 1)
		a.giveUp = m.after(patience, func() { m.lose(a) })
	case !gone && a.giveUp != nil:
		m.counters.add("master/slave_unreachable_canceled", 1)
		a.giveUp.Stop()
		a.giveUp = nil
	}
}

// lose gives up an agent that has been away for too long, on a site that is large enough after a look at the others.
func (m *Master) lose(a *agent) {
	switch {
	case !m.mayLose(a):
	case len(m.agents) < minFreeze:
		m.giveUp(a)
	default:
		m.probeOthers(a)
	}
}

func (m *Master) mayLose(a *agent) bool {
	return m.term != nil && m.agents[a.id] == a && a.giveUp != nil && !a.alive() && !m.frozen
}

// giveUp gives up the tasks of an agent.
func (m *Master) giveUp(a *agent) {
	a.giveUp = nil
	a.unreachable = m.now()
	m.seatAgent(a)
	m.counters.add("master/slave_unreachable_completed", 1)
	m.counters.add("master/slave_removals", 1)
	if a.liveness == record.Left {
		m.counters.add("master/slave_removals/reason_unregistered", 1)
	} else {
		m.counters.add("master/slave_removals/reason_unhealthy", 1)
	}
	if !a.heard {
		m.counters.add("master/recovery_slave_removals", 1)
	}
	m.log.Warn("agent unreachable", "agent_id", a.id, "hostname", a.node.GetHostname(), "tasks", len(a.tasks))
	a.ordered.clear()
	a.unordered.clear()
	for l := range a.launches {
		m.abandon(l) // its call went with the lane
	}
	m.abandonOperations(a)
	m.giveUpTasks(a)
	m.loseExecutors(a)
	m.retractAgent(a)
}

// giveUpTasks tells frameworks that the tasks of an agent, and the agent, cannot be reached.
func (m *Master) giveUpTasks(a *agent) {
	concerned := make(map[*framework]bool)
	for _, t := range a.tasks {
		m.taskUnreachable(a, t)
		if f := m.frameworks[t.key.framework]; f != nil {
			concerned[f] = true
		}
	}
	m.releaseKills(a.id)
	for f := range concerned { // looks at all of its tasks
		f.pruneUnreachable(m)
	}
	m.tellFailure(&scheduler.Event_Failure{AgentId: agentID(a.id)})
}

// tellFailure sends a FAILURE to all connected frameworks.
func (m *Master) tellFailure(failure *scheduler.Event_Failure) {
	event := &scheduler.Event{Type: scheduler.Event_FAILURE.Enum(), Failure: failure}
	for _, f := range m.frameworks {
		m.send(f, event)
	}
}
