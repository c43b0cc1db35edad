package master

import (
	"context"
	"errors"
	"fmt"

	"starling/master/mesos/resources"
	"starling/master/store"
)

// CheckBooks returns what does not add up in the master's lists, and in the allocator's books.
func (m *Master) CheckBooks(ctx context.Context) error {
	var faults []error
	err := m.look(ctx, func() {
		fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
		if n := m.counters.values["master/panics"]; n > 0 {
			fault("the loop has panicked %v times", n)
		}
		if m.alloc != nil {
			if err := m.alloc.Check(); err != nil {
				faults = append(faults, err)
			}
		}
		m.checkOffers(fault)
		if m.version.Load()%4 == 0 { // it takes longer than the rest together
			m.checkView(fault)
		}
		for id, o := range m.offers {
			if o.framework.offers[id] != o || o.agent.offers[id] != o || m.frameworks[o.framework.id] != o.framework || m.agents[o.agent.id] != o.agent {
				fault("offer %q is not on all lists", id)
			}
		}
		for id, o := range m.inverse {
			if o.framework.inverse[id] != o || o.agent.inverse[o.framework.id] != o || o.agent.window == nil || m.agents[o.agent.id] != o.agent || !o.framework.connected {
				fault("inverse offer %q is not on all lists", id)
			}
		}
		for id, a := range m.agents {
			if len(a.offers) > 0 && (a.restriction != nil || a.marked || a.draining) {
				fault("agent %q is not to be offered, and is", id)
			}
			if m.outcasts[id] != nil || m.term != nil && (m.gone.has(id) || a.restriction != m.restrictions[id]) {
				fault("agent %q is not treated as was decided", id)
			}
		}
		for _, f := range m.frameworks {
			if len(f.offers) > 0 && !f.connected {
				fault("framework %q is not connected and holds offers", f.id)
			}
			if len(f.kills) > maxHeldKills || m.term == nil && len(f.kills) > 0 {
				fault("framework %q: %d kills are held", f.id, len(f.kills))
			}
			for id, t := range f.tasks.byID {
				if m.tasks[t.key] != t || t.key.task != id {
					fault("task %q of framework %q is not the listed one", id, f.id)
				}
			}
		}
		for key, t := range m.tasks {
			f := m.frameworks[key.framework]
			if m.term != nil && m.agents[t.agent] == nil && (f == nil || f.tasks.byID[key.task] != t) {
				fault("task %v of agent %q, which is forgotten, is on no other list", key, t.agent)
			}
		}
		for id, o := range m.operations {
			if a := m.agents[o.agent]; a == nil || a.operations[id] != o || o.uuid != id {
				fault("operation %x of agent %q is not on all lists", id, o.agent)
			}
		}
		for _, a := range m.agents {
			var offered resources.Resources
			for _, o := range a.offers {
				if part := o.resources.Unallocated(); !offered.Add(part).Sub(part).Equal(offered) {
					fault("agent %q: a part of %v is offered twice", a.id, part)
				}
				offered = offered.Add(o.resources.Unallocated())
			}
			if !a.free.Contains(offered) {
				fault("agent %q: %v is offered, only %v is free", a.id, offered, a.free)
			}
			if m.term != nil && !a.total.Contains(a.free) {
				fault("agent %q: %v is free of %v", a.id, a.free, a.total)
			}
			used := make(map[share]resources.Resources)
			for key, t := range a.tasks {
				if m.tasks[key] != t || t.agent != a.id {
					fault("task %v on agent %q is not the listed one", key, a.id)
				}
				k := share{key.framework, t.role}
				used[k] = used[k].Add(t.held)
			}
			for key, e := range a.executors {
				if e.rec == nil && !e.held.Empty() {
					fault("agent %q: executor %v, which the record does not show, holds %v", a.id, key, e.held)
				}
				k := share{key.framework, e.role}
				used[k] = used[k].Add(e.held)
			}
			for k, r := range used {
				if !r.Equal(a.used[k]) {
					fault("agent %q: %v uses %v, booked %v", a.id, k, r, a.used[k])
				}
			}
			for k, r := range a.used {
				if used[k].Empty() {
					fault("agent %q: %v uses nothing, booked %v", a.id, k, r)
				}
			}
		}
	})
	return errors.Join(append(faults, err)...)
}

// MaxHeldKills is the bound of HeldKills.
const MaxHeldKills = maxHeldKills

// MaxLaneSize bounds the calls that wait for one agent, in bytes.
const MaxLaneSize = maxLaneSize

// HeldKills returns how many KILLs of tasks not yet heard of are held.
func (m *Master) HeldKills(ctx context.Context) (n int, err error) {
	err = m.look(ctx, func() {
		for _, f := range m.frameworks {
			n += len(f.kills)
		}
	})
	return n, err
}

// SetMaxGone changes how many agents are remembered that are gone for good.
func (m *Master) SetMaxGone(ctx context.Context, most int) {
	_ = m.do(ctx, func() { m.gone.most = most })
}

// FillGone fills the document that would hold an agent that is gone for good, until it is too large with it; ids are as many.
func (m *Master) FillGone(ctx context.Context, id string) (ids int) {
	_ = m.do(ctx, func() {
		for n := 0; ; n++ {
			other := fmt.Sprintf("%01000d", n)
			if goneBucket(other) != goneBucket(id) {
				continue
			}
			m.gone.add(other, int64(n))
			if ids++; ids*1000 > store.MaxSize {
				return
			}
		}
	})
	return ids
}

// EmptyGone forgets all that FillGone has listed.
func (m *Master) EmptyGone(ctx context.Context, id string) {
	_ = m.do(ctx, func() {
		m.gone.count -= len(m.gone.buckets[goneBucket(id)])
		m.gone.buckets[goneBucket(id)] = nil
	})
}

// GoneCount counts the agents that are gone for good, as they are listed and as they are counted.
func (m *Master) GoneCount(ctx context.Context) (listed, counted int) {
	_ = m.do(ctx, func() {
		for _, bucket := range m.gone.buckets {
			listed += len(bucket)
		}
		counted = m.gone.count
	})
	return listed, counted
}

// GoneDocuments returns how large the largest document of agents is that are gone, and all of them, once they are full.
func GoneDocuments(id func(int) string) (largest, total int) {
	g := goneAgents{marking: make(map[string]bool), most: maxGone}
	for i := range maxGone {
		g.add(id(i), 1_700_000_000)
	}
	for _, bucket := range g.buckets {
		doc, err := encodeDoc("gone", goneDoc{Format: docFormat, Agents: bucket})
		if err != nil {
			panic(err)
		}
		largest, total = max(largest, len(doc.data)), total+len(doc.data)
	}
	return largest, total
}

// Occupy keeps the loop busy until release is called.
func (m *Master) Occupy() (release func()) {
	busy := make(chan struct{})
	m.post(func() { <-busy })
	return func() { close(busy) }
}

// Change has the loop change the state's version, once it comes to that.
func (m *Master) Change() { m.post(func() {}) }
