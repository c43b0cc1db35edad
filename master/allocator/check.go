package allocator

import (
	"errors"
	"fmt"

	"starling/master/mesos/resources"
)

// Check proves the books, for tests: it returns all that does not add up. It costs a look at everything.
//
//   - on each agent, offered is the sum of the offers and pending that of the holds; together with what is available they are
//     what is free, unless the record shrank under them (Overdrawn), and then nothing that is gone is available
//   - a client's and a role's charge is the sum of what it is offered, holds and uses
//   - each filter is in the heap once, and with its client once
//   - between two calls of Allocate, whoever could be offered something is noted to be looked at
func (a *Allocator) Check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	charges := make(map[*client]resources.Resources)
	refs := make(map[*client]int)
	for _, ag := range a.list {
		var offered, pending resources.Resources
		for c, rs := range ag.offers {
			offered = offered.Add(rs)
			charges[c] = charges[c].Add(rs)
			refs[c]++
			if rs.Empty() {
				fault("agent %q: an empty offer to %q", ag.id, c.fw.id)
			}
		}
		for _, h := range ag.holds {
			pending = pending.Add(h.held)
			if h.client != nil {
				charges[h.client] = charges[h.client].Add(h.held)
				refs[h.client]++
			}
		}
		for c, rs := range ag.used {
			charges[c] = charges[c].Add(rs)
			refs[c]++
		}
		if !offered.Equal(ag.offered) {
			fault("agent %q: offers are %v, booked %v", ag.id, offered, ag.offered)
		}
		if !pending.Equal(ag.pending) {
			fault("agent %q: holds are %v, booked %v", ag.id, pending, ag.pending)
		}
		out := offered.Add(pending)
		if want := ag.free.Sub(out); !ag.avail.Equal(want) {
			fault("agent %q: available are %v, booked %v", ag.id, want, ag.avail)
		}
		if a.Overdrawn(ag.id) {
			continue
		}
		if sum := out.Add(ag.avail); !sum.Equal(ag.free) {
			fault("agent %q: offered, pending and available are %v, free is %v", ag.id, sum, ag.free)
		}
	}
	listed := 0
	leaves := make(map[*node]vec)
	for id, fw := range a.frameworks {
		if !fw.known && len(fw.clients) == 0 {
			fault("framework %q: nothing needs it", id)
		}
		for _, c := range fw.clients {
			listed++
			a.checkClient(c, charges[c], refs[c], fault)
			sum := leaves[c.leaf]
			sum.add(c.all, 1)
			leaves[c.leaf] = sum
		}
	}
	if a.root.refs != listed {
		fault("the tree counts %d clients, there are %d", a.root.refs, listed)
	}
	a.checkFilters(fault)
	a.checkTree(a.root, leaves, fault)
	return errors.Join(faults...)
}

func (a *Allocator) checkClient(c *client, has resources.Resources, refs int, fault func(string, ...any)) {
	name := c.fw.id + " in " + c.role
	if !equal(a.quantities(has), c.all) {
		fault("client %q: has %v, booked %v", name, has, c.all)
	}
	if refs != c.refs {
		fault("client %q: named %d times, booked %d", name, refs, c.refs)
	}
	if refs == 0 && !c.subscribed {
		fault("client %q: nothing needs it", name)
	}
	if want := c.fw.active && c.subscribed && !c.suppressed; want != c.listed {
		fault("client %q: may get offers: %v, listed: %v", name, want, c.listed)
	}
	if !c.listed || c.eager || a.all || a.looser() {
		return
	}
	for _, ag := range a.list {
		if ag.queued {
			continue
		}
		if cand, v := a.peek(c, ag); v.reason == offerable {
			fault("client %q: could be offered %v of agent %q, and nobody looks", name, cand.res, ag.id)
		}
	}
}

func (a *Allocator) checkFilters(fault func(string, ...any)) {
	held := 0
	for id, fw := range a.frameworks {
		for _, c := range fw.clients {
			for ag, list := range c.filters {
				held += len(list)
				if a.agents[ag.id] != ag {
					fault("framework %q: a filter on agent %q, which is gone", id, ag.id)
				}
				if len(list) == 0 || len(list) > maxFilters {
					fault("framework %q: %d filters on agent %q", id, len(list), ag.id)
				}
			}
		}
	}
	if held != len(a.filters) {
		fault("%d filters are held, %d wait for their end", held, len(a.filters))
	}
	for i, f := range a.filters {
		if f.place != i {
			fault("filter %d believes to be filter %d", i, f.place)
		}
	}
}

func (a *Allocator) checkTree(n *node, leaves map[*node]vec, fault func(string, ...any)) {
	var all, plain vec
	refs := 0
	if n.isLeaf {
		if !equal(leaves[n], n.all) {
			fault("leaf %q: its clients have %v, booked %v", n.path, leaves[n], n.all)
		}
		return
	}
	for _, child := range n.children {
		a.checkTree(child, leaves, fault)
		all.add(child.all, 1)
		plain.add(child.plain, 1)
		refs += child.refs
	}
	if n == a.root {
		return
	}
	if !equal(all, n.all) || !equal(plain, n.plain) || refs != n.refs {
		fault("role %q: has %v and %d clients, booked %v and %d", n.path, all, refs, n.all, n.refs)
	}
}

// equal compares amounts, whatever the lengths.
func equal(x, y vec) bool {
	for i := range max(len(x), len(y)) {
		if x.at(i) != y.at(i) {
			return false
		}
	}
	return true
}
