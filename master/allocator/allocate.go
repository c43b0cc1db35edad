package allocator

import (
	"slices"
	"time"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Allocate looks at what changed since the last time and offers what it can. The grants count as offered from now on. At
// most one goes to a framework for each role and agent.
func (a *Allocator) Allocate(now time.Time) []Grant {
	a.expire(now)
	a.loosened()
	a.spread()
	if len(a.queue) == 0 {
		return nil
	}
	queue := a.queue
	a.queue = nil
	a.rng.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	r := run{a: a}
	for _, ag := range queue {
		if a.kept().zero() {
			break
		}
		r.agent(ag, guarantees)
	}
	for _, ag := range queue {
		r.agent(ag, fairShares)
		ag.queued, ag.all = false, false
		clear(ag.some)
		ag.some = ag.some[:0]
	}
	a.noteSpare()
	return r.grants
}

// spread puts clients that are to be looked at on all agents into the agents' lists.
func (a *Allocator) spread() {
	if a.all {
		for _, ag := range a.list {
			a.touch(ag)
		}
	} else if len(a.eager) > 0 {
		for _, ag := range a.list {
			if ag.avail.Empty() || !ag.spec.Active {
				continue
			}
			for _, c := range a.eager {
				a.touchPair(ag, c)
			}
		}
	}
	for _, c := range a.eager {
		c.eager = false
	}
	clear(a.eager)
	a.eager, a.all = a.eager[:0], false
}

// touchPair has one client looked at on one agent.
func (a *Allocator) touchPair(ag *agent, c *client) {
	a.enqueue(ag)
	if !ag.all {
		ag.some = append(ag.some, c)
	}
}

// run is one call of Allocate.
type run struct {
	a      *Allocator
	grants []Grant
	// made finds the grant of a client and an agent, where the guarantees made one already.
	made map[pair]int
}

type pair struct {
	client *client
	agent  *agent
}

// few is how many clients are sorted by themselves; more are picked out of a walk over all.
const few = 8

// agent offers what an agent has, in one of the two stages.
func (r *run) agent(ag *agent, s stage) {
	if ag.avail.Empty() || !ag.spec.Active {
		return
	}
	try := func(c *client) bool {
		r.try(c, ag, s)
		return !ag.avail.Empty()
	}
	switch {
	case ag.all:
		r.a.walk(r.a.root, try)
	case len(ag.some) > few:
		wanted := make(map[*client]bool, len(ag.some))
		for _, c := range ag.some {
			wanted[c] = true
		}
		r.a.walk(r.a.root, func(c *client) bool { return !wanted[c] || try(c) })
	default:
		some := slices.DeleteFunc(slices.Clone(ag.some), func(c *client) bool { return !c.listed })
		slices.SortFunc(some, r.a.compare)
		for _, c := range slices.Compact(some) {
			if !try(c) {
				return
			}
		}
	}
}

// try offers a client what it may have of an agent, if that is anything.
func (r *run) try(c *client, ag *agent, s stage) {
	a := r.a
	var bounds []ceiling
	if len(a.quotas.nodes) > 0 {
		ceilings := a.ceilings(c, s)
		if ceilings.none {
			return
		}
		bounds = ceilings.list
	}
	cand, v := a.judge(c, ag, bounds)
	if v.reason != offerable {
		return
	}
	out, had := ag.offers[c]
	if !had {
		c.refs++
	}
	ag.offers[c] = out.Add(cand.res)
	ag.offered = ag.offered.Add(cand.res)
	a.debit(c, cand.res, 1)
	c.given()
	a.setAvail(ag, ag.avail.Sub(cand.res))

	res := cand.res.AllocatedTo(c.role)
	if i, ok := r.made[pair{c, ag}]; ok {
		r.grants[i].Resources = r.grants[i].Resources.Add(res)
		return
	}
	if s == guarantees {
		if r.made == nil {
			r.made = make(map[pair]int)
		}
		r.made[pair{c, ag}] = len(r.grants)
	}
	r.grants = append(r.grants, Grant{Framework: c.fw.id, Role: c.role, Agent: ag.id, Resources: res})
}

// reason is why a client is not offered an agent. The order is that of the checks.
type reason uint8

const (
	offerable reason = iota
	inactive
	farRegion
	gpuWanted
	notAdmitted
	nothing
	notForRole
	quotaReached
	tooLittle
	refused
)

// verdict is a reason with what belongs to it.
type verdict struct {
	reason reason
	filter *filter // with refused
	// limited and kept tell, where peek asked, that a quota's limit or what is kept for guarantees made less of it.
	limited, kept bool
}

// judge says what a client may be offered of an agent, or why nothing.
func (a *Allocator) judge(c *client, ag *agent, ceilings []ceiling) (candidate, verdict) {
	caps := &c.fw.spec.Capabilities
	switch {
	case !ag.spec.Active:
		return candidate{}, verdict{reason: inactive}
	case a.cfg.Region != "" && ag.spec.Region != "" && ag.spec.Region != a.cfg.Region && !caps.RegionAware:
		return candidate{}, verdict{reason: farRegion}
	case ag.gpus && !caps.GPU && !a.cfg.GPUsToAll:
		return candidate{}, verdict{reason: gpuWanted}
	case ag.avail.Empty():
		return candidate{}, verdict{reason: nothing}
	}
	cand := ag.candidate(a, c)
	if cand.res.Empty() {
		return cand, verdict{reason: notForRole}
	}
	// A filter on more than this refuses what is left of it too, so it may be asked before any shrinking.
	if f := c.filtered(ag, cand.res); f != nil {
		return candidate{}, verdict{reason: refused, filter: f}
	}
	if len(ceilings) > 0 {
		if cand = a.shrink(ag, cand, ceilings); cand.res.Empty() {
			return cand, verdict{reason: quotaReached}
		}
	}
	if !a.worth(cand, c.min) {
		return cand, verdict{reason: tooLittle}
	}
	if len(ceilings) > 0 {
		if f := c.filtered(ag, cand.res); f != nil {
			return candidate{}, verdict{reason: refused, filter: f}
		}
	}
	if admits := c.fw.spec.Admits; admits != nil && !admits(c.role, &ag.spec) {
		return candidate{}, verdict{reason: notAdmitted}
	}
	return cand, verdict{}
}

// candidate is what of an agent's available resources a client may have at all.
func (ag *agent) candidate(a *Allocator, c *client) candidate {
	if !ag.special {
		return candidate{ag.avail, ag.amount}
	}
	caps := &c.fw.spec.Capabilities
	k := kind{c.role, caps.Revocable, caps.Shared, caps.Refinement}
	if cand, ok := ag.forRole[k]; ok {
		return cand
	}
	res := ag.avail.AvailableTo(c.role)
	if !k.revocable {
		res = res.NonRevocable()
	}
	if !k.shared || !k.refining {
		res = res.Filter(func(r *mesos.Resource) bool {
			return (k.shared || r.Shared == nil) && (k.refining || len(r.Reservations) <= 1)
		})
	}
	cand := candidate{res, a.quantities(res)}
	if ag.forRole == nil {
		ag.forRole = make(map[kind]candidate)
	}
	ag.forRole[k] = cand
	return cand
}

// worth tells whether a candidate holds one of the alternatives whole.
func (a *Allocator) worth(cand candidate, alternatives []Quantities) bool {
	if len(alternatives) == 0 {
		return !cand.res.Empty()
	}
	return slices.ContainsFunc(alternatives, func(q Quantities) bool {
		for name, least := range q {
			i, known := a.names.index[name]
			var has resources.Milli
			if known {
				has = cand.amount.at(i)
			}
			if has < least {
				return false
			}
		}
		return true
	})
}
