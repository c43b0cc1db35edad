package master

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/nodeapi"
	"starling/master/store"
)

// A document "agents/<agent id>" is a restrictionDoc: an agent that an operator keeps from being offered. There is none for an
// agent that is not.
//
// History of the format: 1, 2026-11, first version.
const prefixAgents = "agents/"

type restrictionDoc struct {
	Format int `json:"format"`
	// Drain is left out for an agent that was deactivated and no more.
	Drain *drainDoc `json:"drain,omitempty"`
}

type drainDoc struct {
	// MaxGracePeriod is in nanoseconds; left out it leaves each task its own.
	MaxGracePeriod *int64 `json:"max_grace_period,omitempty"`
	MarkGone       bool   `json:"mark_gone,omitempty"`
	// Started is in Unix nanoseconds.
	Started int64 `json:"started"`
	Drained bool  `json:"drained,omitempty"`
}

// restriction keeps an agent from being offered, and may have it drained. Its document is replaced, never modified.
type restriction struct {
	doc *restrictionDoc
	// safe is set once the document is stored: before, nothing is ended because of it.
	safe bool
	// fault is why it cannot be changed: the document does not read. nil while it can.
	fault error
	// told is set once the agent, in its present life as far as that is known, has obeyed; telling while a call is under way.
	told, telling bool
	// finishing is set while the end of the drain is being stored.
	finishing bool
}

// draining tells whether the agent is to end its tasks, or has.
func (r *restriction) draining() bool { return r != nil && r.doc.Drain != nil }

// recoverRestrictions takes those that an earlier leader kept.
func (m *Master) recoverRestrictions(others map[string][]byte) {
	m.restrictions = make(map[string]*restriction)
	for key, data := range others {
		id, ok := strings.CutPrefix(key, prefixAgents)
		if !ok {
			continue
		}
		r := &restriction{doc: new(restrictionDoc), safe: true}
		err := json.Unmarshal(data, r.doc)
		if err == nil && r.doc.Format != docFormat {
			err = fmt.Errorf("format %d is not known", r.doc.Format)
		}
		if err != nil {
			r.doc, r.fault = &restrictionDoc{}, unreadable(key, err)
			m.log.Error("document is unreadable, agent stays deactivated", "key", key, "agent_id", id, "err", err)
		}
		m.restrictions[id] = r
	}
}

// restrictable finds an agent that an operator wants to restrict, or to free.
func (m *Master) restrictable(id string) (*agent, error) {
	a := m.agents[id]
	switch {
	case m.gone.marking[id]:
		return nil, refuse(Conflict, "Agent is currently being marked gone")
	case a == nil, store.CheckKey(prefixAgents+id) != nil:
		return nil, refuse(Invalid, "Unknown agent")
	case a.restriction != nil && a.restriction.fault != nil:
		return nil, a.restriction.fault
	}
	return a, nil
}

// restrict stores what an agent is to be treated by from now on, nil to treat it like others.
func (m *Master) restrict(a *agent, doc *restrictionDoc) ([]keptDoc, func(), error) {
	kept := keptDoc{key: prefixAgents + a.id}
	var next *restriction
	if doc != nil {
		var err error
		if kept, err = encodeDoc(kept.key, doc); err != nil {
			return nil, nil, err
		}
		next = &restriction{doc: doc}
		m.restrictions[a.id] = next
		m.rescindAgent(a)
	} else {
		delete(m.restrictions, a.id)
	}
	a.restriction = next
	if next != nil {
		m.seatAgent(a) // one that is freed is offered again once that is safe
	}
	return []keptDoc{kept}, func() {
		if next != nil {
			next.safe = true
		}
		if now := m.agents[a.id]; now != nil && now.restriction == next {
			m.seatAgent(now)
			m.syncDrain(now)
		}
	}, nil
}

// DrainAgent ends all tasks of an agent, with grace periods of maxGrace at most (nil: their own), and keeps it from being
// offered until ReactivateAgent. With markGone it is marked gone once it is drained. The error may be a Refusal.
func (m *Master) DrainAgent(ctx context.Context, id string, maxGrace *time.Duration, markGone bool) error {
	return m.commitThen(ctx, func() ([]keptDoc, func(), error) {
		a, err := m.restrictable(id)
		switch {
		case err != nil:
			return nil, nil, err
		case m.upkeep.planned.machines[machineOf(a.node)] != nil:
			return nil, nil, refuse(Invalid, "Agent is part of a maintenance schedule")
		case !a.can(mesos.AgentInfo_Capability_AGENT_DRAINING):
			return nil, nil, refuse(Invalid, "Agent is not capable of draining")
		case maxGrace != nil && *maxGrace < 0:
			return nil, nil, refuse(Invalid, "'max_grace_period' is negative")
		}
		drain := &drainDoc{MarkGone: markGone, Started: m.now().UnixNano()}
		if maxGrace != nil {
			drain.MaxGracePeriod = proto.Int64(int64(*maxGrace))
		}
		if r := a.restriction; r.draining() && !r.doc.Drain.Drained {
			drain.Started = r.doc.Drain.Started
		}
		m.log.Info("draining agent", "agent_id", id, "hostname", a.node.GetHostname(), "tasks", len(a.tasks))
		return m.restrict(a, &restrictionDoc{Format: docFormat, Drain: drain})
	})
}

// DeactivateAgent keeps an agent from being offered until ReactivateAgent; its tasks stay. The error may be a Refusal.
func (m *Master) DeactivateAgent(ctx context.Context, id string) error {
	return m.commitThen(ctx, func() ([]keptDoc, func(), error) {
		a, err := m.restrictable(id)
		if err != nil {
			return nil, nil, err
		}
		doc := &restrictionDoc{Format: docFormat}
		if a.restriction != nil {
			if a.restriction.safe {
				return nil, nil, nil
			}
			doc = a.restriction.doc // written again, so that this caller too hears when it is safe
		}
		m.log.Info("deactivating agent", "agent_id", id, "hostname", a.node.GetHostname())
		return m.restrict(a, doc)
	})
}

// ReactivateAgent ends what DeactivateAgent or a finished DrainAgent did. The error may be a Refusal.
func (m *Master) ReactivateAgent(ctx context.Context, id string) error {
	return m.commitThen(ctx, func() ([]keptDoc, func(), error) {
		a, err := m.restrictable(id)
		switch {
		case err != nil:
			return nil, nil, err
		case a.restriction == nil:
			return nil, nil, refuse(Invalid, "Agent is not deactivated")
		case a.restriction.draining() && !a.restriction.doc.Drain.Drained:
			return nil, nil, refuse(Invalid, "Agent is still in the DRAINING state")
		case a.restriction.finishing:
			return nil, nil, refuse(Conflict, "Agent is currently being marked gone")
		}
		m.log.Info("reactivating agent", "agent_id", id, "hostname", a.node.GetHostname())
		return m.restrict(a, nil)
	})
}

// can tells whether an agent has a capability beyond those that all have.
func (a *agent) can(c mesos.AgentInfo_Capability_Type) bool {
	return slices.Contains(a.node.GetCapabilities(), c.String())
}

// syncDrain brings an agent to drain, or to end that, where its record says that it does the other thing; and looks whether a
// drain has come to its end. It is called whenever one of these may have changed.
func (m *Master) syncDrain(a *agent) {
	r := a.restriction
	switch {
	case m.term == nil || m.agents[a.id] != a || !a.alive() || a.marked:
	case r.draining():
		switch {
		case !r.safe:
		case !a.draining || !r.told:
			m.tellDrain(a, r)
		default:
			m.finishDrain(a, r)
		}
	case r != nil && r.fault != nil:
		// What was decided is not known: it goes on with what it does.
	case a.draining && !a.reactivating:
		a.reactivating = true
		m.order(a, &nodeapi.Call{Call: &nodeapi.Call_Reactivate{Reactivate: &nodeapi.Reactivate{}}}, func(err error) {
			a.reactivating = false
			m.drainTold(a, err)
		})
	}
}

// tellDrain has an agent drain.
func (m *Master) tellDrain(a *agent, r *restriction) {
	if r.telling {
		return
	}
	r.telling = true
	order := &nodeapi.Drain{MaxGracePeriod: r.doc.Drain.MaxGracePeriod, MarkGone: r.doc.Drain.MarkGone}
	m.order(a, &nodeapi.Call{Call: &nodeapi.Call_Drain{Drain: order}}, func(err error) {
		r.telling, r.told = false, err == nil
		m.drainTold(a, err)
	})
}

// drainTold goes on after a call about draining: the answer brought the record. Where it does not say what was asked for, the
// call is repeated.
func (m *Master) drainTold(a *agent, err error) {
	if err != nil {
		m.log.Warn("agent cannot be told whether to drain, trying again", "agent_id", a.id, "err", err)
	}
	if s := m.cfg.Mesh.Snapshot(a.id); s != nil && m.agents[a.id] == a {
		m.readKey(a, s, catalog.KeyHealth)
	}
	r := a.restriction
	if err == nil && a.draining == r.draining() {
		m.syncDrain(a) // it may have had no task to begin with
		return
	}
	m.after(maxOrderPause, func() { m.syncDrain(a) })
}

// finishDrain notes that an agent is drained: nothing of it runs, and all ends of tasks are acknowledged.
func (m *Master) finishDrain(a *agent, r *restriction) {
	if r.finishing || r.doc.Drain.Drained && !r.doc.Drain.MarkGone || !a.described ||
		len(a.tasks) > 0 || len(a.launches) > 0 || len(a.operations) > 0 {
		return
	}
	r.finishing = true
	if r.doc.Drain.MarkGone {
		docs, then, err := m.markGone(a.id)
		if err != nil {
			m.log.Error("agent is drained and cannot be marked gone", "agent_id", a.id, "err", err)
			return
		}
		m.keepThen(docs, then)
		return
	}
	drained := *r.doc.Drain
	drained.Drained = true
	doc, err := encodeDoc(prefixAgents+a.id, &restrictionDoc{Format: docFormat, Drain: &drained})
	if err != nil {
		m.log.Error("cannot encode document", "agent_id", a.id, "err", err)
		return
	}
	m.keepThen([]keptDoc{doc}, func() {
		r.finishing = false
		if m.restrictions[a.id] == r {
			r.doc = &restrictionDoc{Format: docFormat, Drain: &drained}
			m.log.Info("agent drained", "agent_id", a.id, "hostname", a.node.GetHostname())
		}
	})
}

// started is when the drain began; zero where there is none.
func (r *restriction) started() time.Time {
	if !r.draining() {
		return time.Time{}
	}
	return timeFromNano(r.doc.Drain.Started)
}

// info shows a drain; nil where there is none.
func (r *restriction) info() *mesos.DrainInfo {
	if !r.draining() {
		return nil
	}
	d := r.doc.Drain
	info := &mesos.DrainInfo{State: mesos.DrainState_DRAINING.Enum(), Config: &mesos.DrainConfig{MarkGone: proto.Bool(d.MarkGone)}}
	if d.Drained {
		info.State = mesos.DrainState_DRAINED.Enum()
	}
	if d.MaxGracePeriod != nil {
		info.Config.MaxGracePeriod = &mesos.DurationInfo{Nanoseconds: d.MaxGracePeriod}
	}
	return info
}
