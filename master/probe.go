package master

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/nodeapi"
)

// probe is a look at the agents that seem alive, before one that is dead is given up. The mesh finds out about deaths one
// by one: where many agents fall at once, or a network is cut, the last may be suspected seconds after the first was
// declared dead, and till then it looks like a few deaths.
type probe struct {
	running bool
	// waiting are the agents to be given up, each with the clock that has run out.
	waiting map[*agent]*time.Timer
	// held is set while its outcome is that too many are silent.
	held bool
}

const (
	// probeTimeout is how long a live agent may take to answer; it adds to the time in which tasks of a dead one are
	// replaced wherever another agent is silent.
	probeTimeout = time.Second
	// probePause is when to look again after too many were silent. By then the mesh may know.
	probePause = 2 * time.Second
	// maxProbes is how many agents are asked; of more a sample speaks for all.
	maxProbes = 100
)

// probeOthers asks the agents that seem alive for a sign of life, and gives up an agent unless too many are silent.
func (m *Master) probeOthers(dead *agent) {
	if m.probe.waiting == nil {
		m.probe.waiting = make(map[*agent]*time.Timer)
	}
	m.probe.waiting[dead] = dead.giveUp
	if m.probe.running {
		return // its outcome is new enough
	}
	m.probe.running = true
	targets := m.seemingAlive()
	slices.SortFunc(targets, func(a, b *agent) int { return cmp.Compare(a.id, b.id) })
	if len(targets) > maxProbes {
		m.rng.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		targets = targets[:maxProbes]
	}
	t := m.term
	addrs, calls := make([]string, len(targets)), make([]*nodeapi.Call, len(targets))
	for i, a := range targets {
		addrs[i] = a.addr()
		// The least that can be asked: what there is of a framework that does not exist.
		calls[i] = &nodeapi.Call{
			Epoch: t.epoch, Leader: m.cfg.hostport(), AgentId: a.id,
			Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{FrameworkIds: []*mesos.FrameworkID{{Value: new("none")}}}},
		}
	}
	t.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		silent := make([]bool, len(targets))
		var known atomic.Uint64 // the highest epoch that an agent threw in our face
		var g sync.WaitGroup
		for i := range targets {
			g.Go(func() {
				// Not one of the calls that are counted: those may all be waiting for agents that are dead.
				_, err := m.exchange(ctx, addrs[i], calls[i])
				var stale *nodeapi.StaleEpochError
				var refusal *nodeapi.Refusal
				switch {
				case errors.As(err, &stale):
					known.Store(stale.Known)
				case err != nil && !errors.As(err, &refusal) && !isRefusal(err):
					silent[i] = true
				}
			})
		}
		g.Wait()
		m.post(func() {
			switch {
			case m.term != t:
			case known.Load() > 0:
				m.stepDown(known.Load())
			default:
				m.probed(targets, silent)
			}
		})
	})
}

// seemingAlive are the agents that the mesh has no doubt about.
func (m *Master) seemingAlive() []*agent {
	var alive []*agent
	for _, a := range m.agents {
		if a.node != nil && a.liveness == record.Alive {
			alive = append(alive, a)
		}
	}
	return alive
}

// probed decides on the agents that wait to be given up.
func (m *Master) probed(asked []*agent, silent []bool) {
	waiting := m.probe.waiting
	m.probe.running, m.probe.waiting = false, nil
	away := 0
	for i, a := range asked {
		if silent[i] && m.agents[a.id] == a && a.liveness == record.Alive { // else it is counted as away by now
			away++
		}
	}
	if len(asked) > 0 {
		away = away * max(len(m.seemingAlive()), len(asked)) / len(asked)
	}
	held := m.mostAway(m.away + away)
	if held && !m.probe.held {
		m.log.Error("most agents are away or do not answer: none is given up until that changes", "away", m.away, "silent", away, "agents", len(m.agents))
	}
	m.probe.held = held
	for a, clock := range waiting {
		switch {
		case a.giveUp != clock || !m.mayLose(a):
		case held:
			a.giveUp = m.after(probePause, func() { m.lose(a) })
		default:
			m.giveUp(a)
		}
	}
}
