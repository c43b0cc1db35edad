package allocator

import (
	"slices"
	"time"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// AgentSpec is what an agent is. The allocator keeps it; it must not be changed afterwards.
type AgentSpec struct {
	// Total is all that the agent has, reservations included.
	Total      resources.Resources
	Attributes []*mesos.Attribute
	Hostname   string
	// Region and Zone are its fault domain; empty where it has none.
	Region, Zone string
	// Active is unset for an agent that gets no new offers: deactivated, draining, or away.
	Active bool
}

// agent is the books of one agent. Resources in it are never allocated.
type agent struct {
	id   AgentID
	spec AgentSpec
	gpus bool
	// index is the place in Allocator.list.
	index int

	// free is what the record says. offered and pending are the sums of what follows. avail is the rest.
	free, offered, pending, avail resources.Resources
	offers                        map[*client]resources.Resources
	holds                         []hold
	unclaimed                     int // how many of them have no client
	used                          map[*client]resources.Resources
	// reserved counts all reserved resources by role, for quotas.
	reserved map[Role]vec

	// common is what of avail is for everybody, amount counts avail and plain the common; special is set when that is not all.
	common        resources.Resources
	amount, plain vec
	special       bool
	// forRole keeps what a kind of client may have of a special agent's avail.
	forRole map[kind]candidate

	// What Allocate has to look at: all clients, or those in some.
	queued, all bool
	some        []*client
}

// hold is a launch or an operation that is on its way.
type hold struct {
	client *client // nil for what nobody was granted
	held   resources.Resources
}

// kind is all of a client that decides what it may have.
type kind struct {
	role                        Role
	revocable, shared, refining bool
}

// candidate is what could be offered.
type candidate struct {
	res    resources.Resources
	amount vec
}

// SetAgent adds an agent, or replaces what it is. A new one has nothing free until SetFree. When the total or the attributes
// change, the filters on it go; outstanding offers are the caller's to rescind.
func (a *Allocator) SetAgent(id AgentID, spec AgentSpec) {
	spec.Total = spec.Total.Unallocated()
	ag := a.agents[id]
	if ag == nil {
		ag = &agent{
			id: id, index: len(a.list), offers: make(map[*client]resources.Resources), used: make(map[*client]resources.Resources),
		}
		a.agents[id] = ag
		a.list = append(a.list, ag)
	}
	old := ag.spec
	sameTotal, sameAttrs := old.Total.Equal(spec.Total), sameAttributes(old.Attributes, spec.Attributes)
	if sameTotal && sameAttrs && old.Hostname == spec.Hostname && old.Region == spec.Region && old.Zone == spec.Zone &&
		old.Active == spec.Active {
		return
	}
	a.countAvailable(ag, -1)
	ag.spec = spec
	a.countAvailable(ag, 1)
	if !sameTotal {
		ag.gpus = spec.Total.Scalar(resources.GPUs) > 0
		a.totals.add(a.quantities(old.Total), -1)
		a.totals.add(a.quantities(spec.Total), 1)
		a.generation++
		a.setReserved(ag, spec.Total)
	}
	if !sameTotal || !sameAttrs {
		a.clearAgent(ag)
	}
	a.touch(ag)
}

// SetFree says what the agent's record has free now: offers and pending launches come off that. Where the record already
// shows a launch, call Settle for it before the next Allocate.
func (a *Allocator) SetFree(id AgentID, free resources.Resources) {
	ag := a.agents[id]
	if ag == nil {
		return
	}
	free = free.Unallocated()
	if free.Equal(ag.free) {
		return
	}
	ag.free = free
	a.refresh(ag)
}

// RemoveAgent forgets an agent with all that is offered, held and used on it.
func (a *Allocator) RemoveAgent(id AgentID) {
	ag := a.agents[id]
	if ag == nil {
		return
	}
	a.setAvail(ag, resources.Resources{})
	a.clearAgent(ag)
	for _, fw := range a.inOrder() {
		for _, c := range slices.Clone(fw.clients) {
			if out, ok := ag.offers[c]; ok {
				delete(ag.offers, c)
				a.unref(c, out)
			}
			if used, ok := ag.used[c]; ok {
				delete(ag.used, c)
				a.unref(c, used)
			}
		}
	}
	for _, h := range ag.holds {
		if h.client != nil {
			a.unref(h.client, h.held)
		}
	}
	a.totals.add(a.quantities(ag.spec.Total), -1)
	a.generation++
	a.setReserved(ag, resources.Resources{})
	last := a.list[len(a.list)-1]
	a.list[ag.index], last.index = last, ag.index
	a.list = a.list[:len(a.list)-1]
	delete(a.agents, id)
	ag.spec.Active = false // it may still be in the queue
}

// unref takes an entry of an agent off a client.
func (a *Allocator) unref(c *client, rs resources.Resources) {
	a.debit(c, rs, -1)
	c.refs--
	a.drop(c)
}

// SetUsed says what a framework's tasks and executors of a role use on an agent, all together: it counts for shares and
// quotas. The framework need not be known. Nothing used ends the entry.
func (a *Allocator) SetUsed(id FrameworkID, role Role, on AgentID, used resources.Resources) {
	ag := a.agents[on]
	if ag == nil {
		return
	}
	used = used.Unallocated()
	c := a.lookup(id, role)
	if c == nil {
		if used.Empty() {
			return
		}
		c = a.client(a.framework(id), role)
	}
	old, had := ag.used[c]
	if old.Equal(used) {
		return
	}
	if !used.Empty() {
		ag.used[c] = used
		a.debit(c, used, 1)
		if !had {
			c.refs++
		}
	} else {
		delete(ag.used, c)
		c.refs--
	}
	if had {
		a.debit(c, old, -1)
	}
	a.drop(c)
}

// Return takes back what was declined, rescinded or left over of an offer: it is available again. For the time of the
// filter the client is not offered the same, or a part of it, on that agent; see RefuseFor and Config. What is not offered
// to the client is passed over.
func (a *Allocator) Return(g Grant, filter time.Duration, now time.Time) {
	ag, c := a.agents[g.Agent], a.lookup(g.Framework, g.Role)
	if ag == nil || c == nil {
		return
	}
	back := a.release(ag, c, g.Resources.Unallocated())
	if c.fw.active && c.subscribed {
		if filter > 0 {
			a.refuse(c, ag, back, min(max(filter, a.cfg.Interval), MaxFilter), now)
		} else {
			a.rest(c, ag, back, now)
		}
	}
	a.drop(c)
}

// release makes offered resources available, and returns them.
func (a *Allocator) release(ag *agent, c *client, rs resources.Resources) resources.Resources {
	back := a.unoffer(ag, c, rs)
	a.debit(c, back, -1)
	a.refresh(ag)
	return back
}

// unoffer takes as much of rs as is offered to the client out of its offers, and returns it.
func (a *Allocator) unoffer(ag *agent, c *client, rs resources.Resources) resources.Resources {
	out, ok := ag.offers[c]
	if !ok {
		return resources.Resources{}
	}
	rest := out.Sub(rs)
	back := out.Sub(rest)
	if rest.Empty() {
		delete(ag.offers, c)
		c.refs--
	} else {
		ag.offers[c] = rest
	}
	ag.offered = ag.offered.Sub(back)
	return back
}

// Consume says that resources of an offer go into a launch: they are held until Settle.
func (a *Allocator) Consume(id FrameworkID, role Role, on AgentID, res resources.Resources) {
	ag, c := a.agents[on], a.lookup(id, role)
	if ag == nil || c == nil {
		return
	}
	res = a.unoffer(ag, c, res.Unallocated())
	if !res.Empty() {
		ag.holds = append(ag.holds, hold{c, res})
		ag.pending = ag.pending.Add(res)
		c.refs++
	}
	a.drop(c)
}

// Hold keeps resources that nobody was granted from being offered until Settle, whether they are free or will be only then:
// what an operation that is on its way will take and make. They count for nobody's share.
func (a *Allocator) Hold(on AgentID, res resources.Resources) {
	ag := a.agents[on]
	if ag == nil || res.Empty() {
		return
	}
	res = res.Unallocated()
	ag.holds = append(ag.holds, hold{held: res})
	ag.unclaimed++
	ag.pending = ag.pending.Add(res)
	a.refresh(ag)
}

// Settle says that the agent's record shows a launch of these resources now, or that it never will: they are held no
// longer. Call SetFree and SetUsed with the same record, in any order, before the next Allocate. What is not held is
// passed over.
func (a *Allocator) Settle(on AgentID, res resources.Resources) {
	ag := a.agents[on]
	if ag == nil {
		return
	}
	res = res.Unallocated()
	if i := slices.IndexFunc(ag.holds, func(h hold) bool { return h.held.Equal(res) }); i >= 0 {
		a.settle(ag, i, res)
		res = resources.Resources{}
	}
	for i := 0; i < len(ag.holds) && !res.Empty(); {
		h := ag.holds[i]
		part := h.held.Sub(h.held.Sub(res))
		if part.Empty() {
			i++
			continue
		}
		res = res.Sub(part)
		if !a.settle(ag, i, part) {
			i++
		}
	}
	a.refresh(ag)
}

// settle takes a part off a hold, and tells whether that ended it.
func (a *Allocator) settle(ag *agent, i int, part resources.Resources) bool {
	h := &ag.holds[i]
	c := h.client
	h.held = h.held.Sub(part)
	over := h.held.Empty()
	if over {
		ag.holds = slices.Delete(ag.holds, i, i+1)
	}
	if ag.unclaimed > 0 {
		// The same port may be held several times then, and it is held until the last of them is settled.
		ag.pending = resources.Resources{}
		for _, h := range ag.holds {
			ag.pending = ag.pending.Add(h.held)
		}
	} else {
		ag.pending = ag.pending.Sub(part)
	}
	if c == nil && over {
		ag.unclaimed--
	}
	if c != nil {
		a.debit(c, part, -1)
		if over {
			c.refs--
			a.drop(c)
		}
	}
	return over
}

// refresh reckons what is available, and has the agent looked at when something came back.
func (a *Allocator) refresh(ag *agent) {
	old := ag.avail
	a.setAvail(ag, ag.free.Sub(ag.offered.Add(ag.pending)))
	// Less than before is less to offer: whoever was refused before is refused still.
	if !old.Contains(ag.avail) {
		a.touch(ag)
	}
}

func (a *Allocator) setAvail(ag *agent, avail resources.Resources) {
	if avail.Equal(ag.avail) {
		return
	}
	a.countAvailable(ag, -1)
	ag.avail = avail
	ag.amount = a.quantities(avail)
	ag.plain = ag.amount
	ag.common = plainPart(avail)
	if ag.special = !ag.common.Equal(avail); ag.special {
		ag.plain = a.quantities(ag.common)
	}
	ag.forRole = nil
	a.countAvailable(ag, 1)
}

// countAvailable adds what an agent has for everybody to the cluster's sum, or takes it off.
func (a *Allocator) countAvailable(ag *agent, sign resources.Milli) {
	if ag.spec.Active {
		a.quotas.available.add(ag.plain, sign)
		a.quotas.epoch++
	}
}

// touch has all clients looked at on an agent.
func (a *Allocator) touch(ag *agent) {
	a.enqueue(ag)
	ag.all = true
}

func (a *Allocator) enqueue(ag *agent) {
	if !ag.queued {
		ag.queued = true
		a.queue = append(a.queue, ag)
	}
}

// inOrder lists the frameworks in order of their ids, for the few walks over all of them that must not depend on chance.
func (a *Allocator) inOrder() []*framework {
	out := make([]*framework, 0, len(a.frameworks))
	for _, fw := range a.frameworks {
		out = append(out, fw)
	}
	slices.SortFunc(out, func(x, y *framework) int {
		if x.id < y.id {
			return -1
		}
		return 1
	})
	return out
}

// Offered returns what of an agent is in outstanding offers, not allocated.
func (a *Allocator) Offered(id AgentID) resources.Resources {
	if ag := a.agents[id]; ag != nil {
		return ag.offered
	}
	return resources.Resources{}
}

// Pending returns what of an agent is held for launches on their way, not allocated.
func (a *Allocator) Pending(id AgentID) resources.Resources {
	if ag := a.agents[id]; ag != nil {
		return ag.pending
	}
	return resources.Resources{}
}

// Available returns what of an agent is neither used, nor offered, nor held.
func (a *Allocator) Available(id AgentID) resources.Resources {
	if ag := a.agents[id]; ag != nil {
		return ag.avail
	}
	return resources.Resources{}
}

// Overdrawn tells whether more of an agent is offered and held than is free: its record shrank under an offer, which is to
// be rescinded, or shows a launch that is not settled yet.
func (a *Allocator) Overdrawn(id AgentID) bool {
	ag := a.agents[id]
	return ag != nil && !ag.free.Contains(ag.offered.Add(ag.pending))
}

// Share returns the dominant share of a role with all below it, not weighed: 0 to 1.
func (a *Allocator) Share(role Role) float64 {
	if n := a.nodes[role]; n != nil {
		return n.share(a)
	}
	return 0
}
