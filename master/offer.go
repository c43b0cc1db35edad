package master

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// offer is a promise to a framework that nobody else is offered the same.
type offer struct {
	id        string
	framework *framework
	agent     *agent
	role      string
	resources resources.Resources // allocated to role
	made      time.Time           // monotonic
	sent      *mesos.Offer
}

// The allocator keeps the books of who may be offered what. It knows of the resources of an agent as free (from the
// agent's record), granted (in an offer), or pending (launched and not in the record yet), and never grants one twice.

func (m *Master) newAllocator() *allocator.Allocator {
	cfg := allocator.DefaultConfig()
	cfg.Region = m.cfg.Region
	cfg.GPUsToAll = !m.cfg.FilterGPUResources
	cfg.Excluded = m.cfg.ExcludedResources
	if m.cfg.MinAllocatable != nil {
		cfg.MinAllocatable = m.cfg.MinAllocatable
	}
	alloc := allocator.New(cfg, m.rng)
	for role, weight := range m.weights {
		alloc.SetWeight(role, weight)
	}
	for role, q := range m.quotas {
		alloc.SetQuota(role, q)
	}
	return alloc
}

// seatAgent tells the allocator how an agent is.
func (m *Master) seatAgent(a *agent) {
	if m.alloc == nil || a.node == nil {
		return
	}
	total := a.total
	if !a.unreachable.IsZero() {
		total = resources.Resources{} // what it has, and what of it is reserved, is nothing to count on
	}
	m.alloc.SetAgent(a.id, allocator.AgentSpec{
		Total: total, Attributes: a.attributes, Hostname: a.node.GetHostname(),
		Region: a.node.GetRegion(), Zone: a.node.GetZone(), Active: a.active(),
	})
	m.alloc.SetFree(a.id, a.free)
	for key, used := range a.used {
		m.alloc.SetUsed(key.framework, key.role, a.id, used)
	}
	m.wantAllocation()
}

// seatFramework tells the allocator, and the mesh, how a framework is.
func (m *Master) seatFramework(f *framework) {
	m.retell(f.id)
	if m.alloc == nil {
		return
	}
	spec := allocator.SpecOf(f.info, f.suppressedRoles())
	spec.Admits = f.admits
	m.alloc.AddFramework(f.id, spec)
	if f.active {
		m.alloc.ActivateFramework(f.id)
		m.wantAllocation()
	} else {
		m.alloc.DeactivateFramework(f.id)
	}
}

// wantAllocation has the allocator run soon, once for all that changes until then.
func (m *Master) wantAllocation() {
	if m.term == nil || m.allocArmed {
		return
	}
	m.allocArmed, m.allocAsked = true, time.Now()
	m.allocTimer.Reset(m.cfg.AllocationDelay)
}

// allocate turns what the allocator grants into offers, one event for each framework.
func (m *Master) allocate() {
	if m.term == nil {
		return
	}
	begun := time.Now()
	grants := m.alloc.Allocate(begun)
	m.counters.add("allocator/mesos/allocation_runs", 1)
	m.counters.observe(allocationLatency, begun.Sub(m.allocAsked))
	m.counters.observe(allocationRun, time.Since(begun))
	events := make(map[*framework][]*mesos.Offer)
	var order []*framework
	for _, g := range grants {
		f, a := m.frameworks[g.Framework], m.agents[g.Agent]
		if f == nil || a == nil || !f.active || !a.active() {
			// Cannot be, as the allocator is told of every such change; but what is granted must never leak.
			m.alloc.Return(g, 0, begun)
			continue
		}
		m.term.offerSeq++
		o := &offer{
			id:        fmt.Sprintf("%s-O%d", m.cfg.ID, m.term.offerSeq),
			framework: f, agent: a, role: g.Role, resources: g.Resources.AllocatedTo(g.Role), made: begun,
		}
		o.sent = o.message()
		m.offers[o.id], f.offers[o.id], a.offers[o.id] = o, o, o
		m.wantInverse(a)
		o.looksChanged()
		f.metrics.offersSent++
		if events[f] == nil {
			order = append(order, f)
		}
		events[f] = append(events[f], o.sent)
	}
	for _, f := range order {
		m.send(f, &scheduler.Event{
			Type:   scheduler.Event_OFFERS.Enum(),
			Offers: &scheduler.Event_Offers{Offers: events[f]},
		})
	}
	m.askFrameworks()
	if wake, ok := m.alloc.NextWake(); ok {
		m.wakeTimer.Reset(max(time.Until(wake), time.Millisecond))
	} else {
		m.wakeTimer.Stop()
	}
	m.armOfferTimer()
}

// message is the offer in the format that the framework asked for by its capabilities.
func (o *offer) message() *mesos.Offer {
	p := &mesos.Offer{
		Id:          &mesos.OfferID{Value: proto.String(o.id)},
		FrameworkId: o.framework.info.GetId(),
		AgentId:     agentID(o.agent.id),
		Hostname:    proto.String(o.agent.node.GetHostname()),
		Url:         o.agent.url(),
		Domain:      o.agent.domain(),
		Attributes:  o.agent.attributes,
		Resources:   o.framework.format(o.resources),

		Unavailability: o.agent.window,
	}
	if o.framework.multiRole() {
		p.AllocationInfo = &mesos.Resource_AllocationInfo{Role: proto.String(o.role)}
	}
	var executors []string
	for key := range o.agent.executors {
		if key.framework == o.framework.id {
			executors = append(executors, key.executor)
		}
	}
	slices.Sort(executors)
	for _, id := range executors {
		p.ExecutorIds = append(p.ExecutorIds, &mesos.ExecutorID{Value: proto.String(id)})
	}
	return p
}

// format writes resources as the framework reads them.
func (f *framework) format(r resources.Resources) []*mesos.Resource {
	if !f.multiRole() {
		r = r.Unallocated()
	}
	if f.caps[mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT] {
		return r.Proto()
	}
	return r.ProtoPreRefinement()
}

// drop takes an offer off the lists; what becomes of its resources is the caller's to say.
func (m *Master) drop(o *offer) {
	delete(m.offers, o.id)
	delete(o.framework.offers, o.id)
	delete(o.agent.offers, o.id)
	m.wantInverse(o.agent)
	o.looksChanged()
}

// looksChanged has the framework and the agent of an offer shown anew.
func (o *offer) looksChanged() {
	o.framework.look, o.agent.look.offered = nil, false
}

// withdraw ends an offer of which the framework need not hear, and gives its resources back without a filter.
func (m *Master) withdraw(o *offer) {
	if m.offers[o.id] != o {
		return
	}
	m.drop(o)
	m.giveBack(o, o.resources, 0)
}

// rescind withdraws an offer and tells the framework.
func (m *Master) rescind(o *offer) {
	if m.offers[o.id] != o {
		return
	}
	m.withdraw(o)
	o.framework.metrics.offersRescinded++
	m.send(o.framework, &scheduler.Event{
		Type:    scheduler.Event_RESCIND.Enum(),
		Rescind: &scheduler.Event_Rescind{OfferId: &mesos.OfferID{Value: proto.String(o.id)}},
	})
}

// rescindAgent rescinds all offers of an agent.
func (m *Master) rescindAgent(a *agent) {
	for _, o := range a.offers {
		m.rescind(o)
	}
}

// rescindAll rescinds offers, the oldest first.
func (m *Master) rescindAll(offers iter.Seq[*offer]) {
	for _, o := range slices.SortedFunc(offers, compareOffers) {
		m.rescind(o)
	}
}

// compareOffers orders offers by age, the oldest first.
func compareOffers(a, b *offer) int {
	return cmp.Or(a.made.Compare(b.made), cmp.Compare(len(a.id), len(b.id)), cmp.Compare(a.id, b.id))
}

// rescindExcess rescinds the offers of an agent that are no longer free: it has less than it had, or what had been launched
// before took of the less. The oldest stay.
func (m *Master) rescindExcess(a *agent) {
	left := a.free
	for _, o := range slices.SortedFunc(maps.Values(a.offers), compareOffers) {
		need := o.resources.Unallocated()
		if !left.Contains(need) {
			m.rescind(o)
			continue
		}
		left = left.Sub(need)
	}
}

func (m *Master) giveBack(o *offer, r resources.Resources, filter time.Duration) {
	if m.alloc == nil || r.Empty() {
		return
	}
	m.alloc.Return(allocator.Grant{Framework: o.framework.id, Role: o.role, Agent: o.agent.id, Resources: r}, filter, time.Now())
	m.wantAllocation()
}

// decline gives offers back; those that are no longer valid are ignored.
func (m *Master) decline(f *framework, decline *scheduler.Call_Decline) {
	filter := allocator.RefuseFor(decline.GetFilters())
	for _, id := range decline.GetOfferIds() {
		o := m.offers[id.GetValue()]
		if o == nil || o.framework != f {
			continue
		}
		m.drop(o)
		f.metrics.offersDeclined++
		m.giveBack(o, o.resources, filter)
	}
}

// armOfferTimer sets the clock to the first offer that times out.
func (m *Master) armOfferTimer() {
	if m.cfg.OfferTimeout == 0 || len(m.offers) == 0 {
		return
	}
	first := time.Time{}
	for _, o := range m.offers {
		if first.IsZero() || o.made.Before(first) {
			first = o.made
		}
	}
	m.offerTimer.Reset(max(time.Until(first.Add(m.cfg.OfferTimeout)), time.Millisecond))
}

// expireOffers rescinds what was held for too long.
func (m *Master) expireOffers() {
	now := time.Now()
	var over []*offer
	for _, o := range m.offers {
		if now.Sub(o.made) >= m.cfg.OfferTimeout {
			over = append(over, o)
		}
	}
	m.rescindAll(slices.Values(over))
	m.armOfferTimer()
}
