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

// A document "agents/<agent id>" is a restrictionDoc: an agent that an operator keeps from being offered, or one that was told to
// be offered again and goes on draining until it hears of that. There is none for others.
//
// An agent that drains by its own record, and of which no document says anything, drains: the documents may be lost, or from
// before that decision. It is not offered until an operator reactivates it. But nothing is ended because of a record alone, so that
// an order to drain follows from a document only.
//
// History of the format: 1, 2026-11, first version.
const prefixAgents = "agents/"

type restrictionDoc struct {
	Format int `json:"format"`
	// Drain is left out for an agent that was deactivated and no more.
	Drain *drainDoc `json:"drain,omitempty"`
	// Reactivated is set, and Drain is not, until an agent that drained has heard that it is to take tasks again.
	Reactivated bool `json:"reactivated,omitempty"`
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
	// finishing is set while the end of the drain is being stored, or waits to be.
	finishing bool
	// doubted is set once it was said that the agent runs tasks that it cannot have if the document is true.
	doubted bool
}

// draining tells whether the agent is to end its tasks, or has.
func (r *restriction) draining() bool { return r != nil && r.doc.Drain != nil }

// recoverRestrictions takes those that an earlier leader kept.
func (m *Master) recoverRestrictions(others map[string][]byte) {
	m.restrictions, m.freed = make(map[string]*restriction), make(map[string]bool)
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
		if r.doc.Reactivated {
			m.freed[id] = true
			continue
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

// restrict stores what an agent is to be treated by from now on, nil to treat it like others. One that drains, or may, is told.
func (m *Master) restrict(a *agent, doc *restrictionDoc) ([]keptDoc, func(), error) {
	kept, stored := keptDoc{key: prefixAgents + a.id}, doc
	freed := doc == nil && (a.draining || a.restriction.draining())
	if freed {
		stored = &restrictionDoc{Format: docFormat, Reactivated: true}
	}
	if stored != nil {
		var err error
		if kept, err = encodeDoc(kept.key, stored); err != nil {
			return nil, nil, err
		}
	}
	var next *restriction
	delete(m.freed, a.id)
	if doc != nil {
		next = &restriction{doc: doc}
		m.restrictions[a.id] = next
		m.rescindAgent(a)
	} else {
		delete(m.restrictions, a.id)
		if freed {
			m.freed[a.id] = false
		}
	}
	a.restriction = next
	if next != nil {
		m.seatAgent(a) // one that is freed is offered again once that is safe
	}
	return []keptDoc{kept}, func() {
		if next != nil {
			next.safe = true
		}
		if _, still := m.freed[a.id]; still && freed {
			m.freed[a.id] = true
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
		case a.restriction == nil && !m.drainsByItself(a):
			return nil, nil, refuse(Invalid, "Agent is not deactivated")
		case a.restriction.draining() && !a.restriction.doc.Drain.Drained, m.drainsByItself(a) && !a.idle():
			return nil, nil, refuse(Invalid, "Agent is still in the DRAINING state")
		case a.restriction != nil && a.restriction.finishing:
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
	safe, freed := m.freed[a.id]
	switch {
	case m.term == nil || m.agents[a.id] != a || !a.alive() || a.marked:
	case r.draining():
		switch {
		case !r.safe:
		case !a.draining && r.doc.Drain.Drained && len(a.tasks) > 0:
			// It takes none while it drains: it was reactivated since, by whoever wrote what is not there any more.
			if !r.doubted {
				r.doubted = true
				m.log.Error("agent runs tasks though the store has it drained, leaving it deactivated", "agent_id", a.id, "tasks", len(a.tasks))
			}
		case !a.draining || !r.told:
			m.tellDrain(a, r)
		default:
			m.finishDrain(a, r)
		}
	case r != nil && r.fault != nil:
		// What was decided is not known: it goes on with what it does.
	case freed && safe && !a.draining:
		delete(m.freed, a.id)
		m.keepThen([]keptDoc{{key: prefixAgents + a.id}}, func() {})
	case freed && safe && !a.reactivating:
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
	if err == nil && a.draining == a.restriction.draining() {
		m.syncDrain(a) // it may have had no task to begin with
		return
	}
	m.after(maxOrderPause, func() { m.syncDrain(a) })
}

// finishDrain notes that an agent is drained: nothing of it runs, and all ends of tasks are acknowledged.
func (m *Master) finishDrain(a *agent, r *restriction) {
	if r.finishing || r.doc.Drain.Drained && !r.doc.Drain.MarkGone || !a.idle() {
		return
	}
	r.finishing = true
	if r.doc.Drain.MarkGone {
		docs, then, err := m.markGone(a.id)
		if err != nil {
			m.log.Error("agent is drained and cannot be marked gone, trying again", "agent_id", a.id, "err", err, "dur", finishPause)
			m.finishLater(a, r)
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
		m.finishLater(a, r)
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

// finishPause is when the end of a drain that could not be stored is tried again.
const finishPause = time.Minute

// finishLater has the end of a drain tried again, unless an operator has decided something else by then.
func (m *Master) finishLater(a *agent, r *restriction) {
	t := m.term
	m.after(finishPause, func() {
		if m.term != t || m.restrictions[a.id] != r {
			return
		}
		r.finishing = false
		if now := m.agents[a.id]; now != nil {
			m.syncDrain(now)
		}
	})
}

// idle tells whether nothing of an agent runs, or is about to, and all ends of tasks are acknowledged.
func (a *agent) idle() bool {
	return a.described && len(a.tasks) == 0 && len(a.launches) == 0 && len(a.operations) == 0
}

// drainsByItself tells whether an agent drains by its own record alone, and nobody has ended that.
func (m *Master) drainsByItself(a *agent) bool {
	_, freed := m.freed[a.id]
	return m.term != nil && a.draining && a.restriction == nil && !freed
}

// drainShown shows a drain, and when it began: zero where that is not known. Both are empty where there is none.
func (m *Master) drainShown(a *agent) (*mesos.DrainInfo, time.Time) {
	r := a.restriction
	switch {
	case r.draining():
		return r.info(), timeFromNano(r.doc.Drain.Started)
	case m.drainsByItself(a):
		info := &mesos.DrainInfo{State: mesos.DrainState_DRAINING.Enum(), Config: &mesos.DrainConfig{}}
		if a.idle() {
			info.State = mesos.DrainState_DRAINED.Enum()
		}
		return info, time.Time{}
	}
	return nil, time.Time{}
}

// info shows the drain that an operator wants.
func (r *restriction) info() *mesos.DrainInfo {
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
