package master

import (
	"context"
	"maps"
	"slices"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos/resources"
)

// checkOffers finds offers and launches that have leaked: of which one list knows and another does not.
func (m *Master) checkOffers(fault func(format string, args ...any)) {
	for _, f := range m.frameworks {
		for id := range f.offers {
			if m.offers[id] == nil {
				fault("framework %q: offer %q is over, and still on its list", f.id, id)
			}
		}
	}
	for agent, list := range m.orphans {
		for key, t := range list {
			if m.agents[agent] != nil || m.tasks[key] != t || t.agent != agent || t.unreachable.IsZero() {
				fault("task %v of agent %q is no orphan", key, agent)
			}
		}
	}
	for key, t := range m.tasks {
		if !t.unreachable.IsZero() && !t.held.Empty() {
			fault("task %v was given up with agent %q, and holds %v", key, t.agent, t.held)
		}
	}
	onTheirWay := make(map[string]resources.Resources)
	hold := func(agent string, h held) {
		for _, res := range h {
			onTheirWay[agent] = onTheirWay[agent].Add(res.Unallocated())
		}
	}
	launches := make(map[*launch]bool)
	for _, t := range m.tasks {
		if t.launch != nil {
			launches[t.launch] = true
		}
	}
	for _, a := range m.agents {
		maps.Insert(launches, maps.All(a.launches))
	}
	for l := range launches {
		hold(l.agent.id, l.held)
	}
	for _, o := range m.operations {
		hold(o.agent, o.held)
	}
	for _, a := range m.agents {
		var offered, used resources.Resources
		for id, o := range a.offers {
			if m.offers[id] == nil {
				fault("agent %q: offer %q is over, and still on its list", a.id, id)
			}
			offered = offered.Add(o.resources.Unallocated())
		}
		if len(a.offers) > 0 && !a.active() {
			fault("agent %q is away or not to be used, and offered", a.id)
		}
		for _, r := range a.used {
			used = used.Add(r.Unallocated())
		}
		if m.alloc == nil {
			continue
		}
		if got := m.alloc.Offered(a.id); !got.Equal(offered) {
			fault("agent %q: %v are offered, the allocator knows of %v", a.id, offered, got)
		}
		if got := m.alloc.Pending(a.id); !got.Equal(onTheirWay[a.id]) {
			fault("agent %q: %v are on their way, the allocator holds %v", a.id, onTheirWay[a.id], got)
		}
		// What is offered, on its way and available is what is free: the allocator's own check. Free and used are all that there
		// is, unless the agent was given up, has become smaller than what its tasks use, or has tasks of removed frameworks, or is
		// asked for tasks that have left its record, or is one that the mesh had forgotten and has not seen alive again: its tasks
		// can't be reached until it is.
		if a.unreachable.IsZero() && a.liveness != record.Unknown && a.total.Contains(used) && !m.strangers(a) && !a.free.Add(used).Equal(a.total) {
			fault("agent %q: %v are free and %v used, of %v", a.id, a.free, used, a.total)
		}
	}
}

// strangers tells whether the agent's record shows tasks that are not listed, or lacks some that are.
func (m *Master) strangers(a *agent) bool {
	for _, t := range a.tasks {
		if t.missing {
			return true
		}
	}
	if s := m.cfg.Mesh.Snapshot(a.id); s != nil {
		for key := range s.Prefix(catalog.PrefixTask) {
			if k, ok := parseTaskKey(key); ok && a.tasks[k] == nil {
				return true
			}
		}
	}
	return false
}

// OfferIDs returns the ids of all outstanding offers of each framework, sorted.
func (m *Master) OfferIDs(ctx context.Context) (map[string][]string, error) {
	ids := make(map[string][]string)
	err := m.look(ctx, func() {
		for id, o := range m.offers {
			ids[o.framework.id] = append(ids[o.framework.id], id)
		}
	})
	for _, list := range ids {
		slices.Sort(list)
	}
	return ids, err
}
