package master

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// removal is why an agent is removed, other than that it cannot be reached.
type removal uint8

const (
	// goneByOperator: it will never be back.
	goneByOperator removal = iota
	// machineDown: its machine is down for maintenance.
	machineDown
)

// removeAgent takes an agent off all lists and tells frameworks the end of its tasks. What it says of itself counts for nothing
// from now on; see outcast.
func (m *Master) removeAgent(a *agent, why removal) {
	m.log.Warn("agent removed", "agent_id", a.id, "hostname", a.node.GetHostname(), "tasks", len(a.tasks))
	a.marked = true
	m.rescindAgent(a)
	m.rescindInverse(a)
	a.ordered.clear()
	a.unordered.clear()
	for l := range a.launches {
		m.abandon(l)
	}
	for _, t := range a.tasks {
		m.taskRemoved(t, why)
	}
	if why == goneByOperator {
		m.removeTasks(a.id)
	}
	m.removeOperations(a, why)
	a.reset()
	a.window, a.restriction = nil, nil
	delete(m.agents, a.id)
	m.told.hosts = nil
	for _, f := range m.frameworks {
		f.forgetInverse(a.id)
	}
	m.countAway(a.liveness, -1)
	m.watchDeaths()
	if m.alloc != nil {
		m.alloc.RemoveAgent(a.id)
	}
	m.counters.add("master/slave_removals", 1)
	m.counters.add("master/slave_removals/reason_unregistered", 1)
	m.releaseKills(a.id)
	m.retractAgent(a)
	m.tellFailure(&scheduler.Event_Failure{AgentId: agentID(a.id)})
}

// taskRemoved ends a task with its agent.
func (m *Master) taskRemoved(t *task, why removal) {
	f := m.frameworks[t.key.framework]
	if t.acknowledged || f == nil {
		m.remove(t)
		return
	}
	state, reason := mesos.TaskState_TASK_LOST, mesos.TaskStatus_REASON_AGENT_REMOVED
	message := "Agent removed: its machine is down for maintenance"
	if why == goneByOperator {
		state, reason = f.goneState()
		message = "Agent removed: it was marked gone by an operator"
	}
	if terminal(t.state) {
		t.unreachable = time.Time{}
		if t.forwarded == nil || !terminal(t.forwarded.state) {
			// The end came by over the mesh alone, and the agent that would tell it is not listened to any more.
			m.sendUpdate(f, m.currentStatus(t, f.degrade(t.state), reason, message))
		}
		m.complete(t)
		return
	}
	// A framework that was told that the task is lost when its agent could not be reached has nothing more to learn.
	known := !t.unreachable.IsZero() && f.degrade(mesos.TaskState_TASK_UNREACHABLE) == state
	t.unreachable = time.Time{}
	t.state = state
	if !known {
		status := m.masterStatus(t.key.task, state, reason, message)
		status.AgentId = agentID(t.agent)
		if t.executor != "" {
			status.ExecutorId = &mesos.ExecutorID{Value: proto.String(t.executor)}
		}
		m.noteStatus(t, status)
		m.sendUpdate(f, status)
	}
	t.shown = nil
	m.complete(t)
}

// outcast is an agent that is in the mesh and not admitted: it is gone for good, or its machine is down. All that this master
// has to say to it is that it should end what it runs.
type outcast struct {
	id         string
	node       *catalog.Node
	generation uint64
	alive      bool
	// busy is set while its record shows tasks.
	busy bool
	// told is set once one that is gone has obeyed, in its present generation. Nobody waits for a record to say so.
	told     bool
	calling  bool
	attempts int
}

const (
	// outcastPause and maxOutcastPause are the first and the longest pause between two calls to an outcast.
	outcastPause    = 200 * time.Millisecond
	maxOutcastPause = 5 * time.Second
)

// banned tells whether an agent is not admitted.
func (m *Master) banned(id string, node *catalog.Node) bool {
	return m.gone.has(id) || m.upkeep.inForce != nil && m.upkeep.inForce.isDown(machineOf(node))
}

// readOutcast reads the record of an agent that is not admitted.
func (m *Master) readOutcast(s *record.Snapshot, node *catalog.Node) {
	o := m.outcasts[s.Node()]
	if o == nil {
		o = &outcast{id: s.Node()}
		m.outcasts[o.id] = o
		m.log.Info("agent is not admitted", "agent_id", o.id, "hostname", node.GetHostname())
	}
	if o.generation != s.Generation() {
		o.generation, o.told = s.Generation(), false
	}
	o.node = node
	o.alive = s.Liveness() == record.Alive || s.Liveness() == record.Suspect
	o.busy = busy(s)
	m.expel(o)
}

// busy tells whether a record shows tasks.
func busy(s *record.Snapshot) bool {
	for range s.Prefix(catalog.PrefixTask) {
		return true
	}
	return false
}

// readOutcasts reads those anew who may be admitted by now, or not any more.
func (m *Master) readOutcasts() {
	for id := range m.outcasts {
		if s := m.cfg.Mesh.Snapshot(id); s != nil {
			m.readNode(s)
		} else {
			delete(m.outcasts, id)
		}
	}
}

// seatDecisions treats the agents that a new leader finds by what operators decided under earlier ones.
func (m *Master) seatDecisions() {
	for _, a := range m.agents {
		if !m.banned(a.id, a.node) {
			m.seatWindow(a)
			m.syncDrain(a)
			continue
		}
		why := machineDown
		if m.gone.has(a.id) {
			why = goneByOperator
		}
		m.removeAgent(a, why)
		if s := m.cfg.Mesh.Snapshot(a.id); s != nil {
			m.readNode(s)
		}
	}
	m.readOutcasts()
}

// expel has an outcast end what it runs, and again until it has.
func (m *Master) expel(o *outcast) {
	gone := m.gone.has(o.id)
	if m.term == nil || m.outcasts[o.id] != o || o.calling || !o.alive || gone && o.told || !gone && !o.busy {
		return
	}
	o.calling = true
	t, generation := m.term, o.generation
	call := &nodeapi.Call{
		Epoch: t.epoch, Leader: m.cfg.hostport(), AgentId: o.id,
		Call: &nodeapi.Call_Shutdown{Shutdown: &nodeapi.Shutdown{Gone: gone}},
	}
	addr := (&agent{node: o.node}).addr()
	m.counters.add("master/slave_shutdowns_scheduled", 1)
	t.start(func(ctx context.Context) {
		_, err := m.callAgent(ctx, t, addr, call)
		m.post(func() {
			if m.term != t {
				return
			}
			o.calling = false
			m.expelled(o, gone && o.generation == generation, err)
		})
	})
}

// expelled goes on after an outcast was called.
func (m *Master) expelled(o *outcast, gone bool, err error) {
	var stale *nodeapi.StaleEpochError
	switch {
	case errors.As(err, &stale):
		m.stepDown(stale.Known)
		return
	case err == nil:
		m.counters.add("master/slave_shutdowns_completed", 1)
		m.log.Info("agent that is not admitted ends what it runs", "agent_id", o.id)
		o.told, o.attempts = o.told || gone, 0
		if s := m.cfg.Mesh.Snapshot(o.id); s != nil {
			o.busy = busy(s)
		}
		m.after(maxOutcastPause, func() { m.expel(o) })
		return
	case o.attempts == 0:
		m.log.Warn("agent that is not admitted does not answer, trying again", "agent_id", o.id, "addr", (&agent{node: o.node}).addr(), "err", err)
	}
	pause := min(outcastPause<<min(o.attempts, 10), maxOutcastPause)
	o.attempts++
	m.after(pause, func() { m.expel(o) })
}
