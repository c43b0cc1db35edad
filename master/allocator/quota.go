package allocator

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Quota bounds what a role has, all below it included. What counts is all that is reserved for the role, used or not, and
// what it has of the rest, revocable resources aside.
type Quota struct {
	// Guarantee is kept free for the role until it has as much: others don't get what would be missing.
	Guarantee Quantities
	// Limit is the most it gets; a name that is not in it is not limited.
	Limit Quantities
}

// quotas is what concerns all roles with one.
type quotas struct {
	// nodes are the roles with a quota, in order of paths.
	nodes []*node
	// reserved is what is reserved on all agents, by role.
	reserved map[Role]vec
	// available is what is available to everybody, on all active agents.
	available vec
	// held is set when something was not offered because it is kept for guarantees; spare is what could be spared at the end
	// of that run.
	held  bool
	spare vec

	// epoch counts the changes to whatever a ceiling depends on: what was reckoned in an earlier one is reckoned anew.
	epoch uint64
	kept  vec
	// keptAt is the epoch of kept.
	keptAt uint64
	// open are the ceilings of clients without a quota, by stage; those with one have theirs with it.
	open [2]ceilings
}

// quota is that of one role, with what follows from it.
type quota struct {
	Quota
	guarantee, limit []amount
	// reached is set when something was not offered because of the limit.
	reached bool
	// reserved is what is reserved for the role and those below it.
	reserved vec
	// unmet is what the role lacks of its guarantee, as of the epoch unmetAt.
	unmet   vec
	unmetAt uint64
	// ceilings are those of the clients of which this is the lowest quota, by stage.
	ceilings [2]ceilings
}

// amount is one of Quantities, its name by number.
type amount struct {
	name int
	of   resources.Milli
}

func (a *Allocator) amounts(q Quantities) []amount {
	out := make([]amount, 0, len(q))
	for name, m := range q {
		out = append(out, amount{a.names.of(name), m})
	}
	slices.SortFunc(out, func(x, y amount) int { return x.name - y.name })
	return out
}

// SetQuota sets the quota of a role; an empty one removes it. Above and below a role with one no other may have one: what both
// are guaranteed would be kept free twice.
func (a *Allocator) SetQuota(role Role, q Quota) {
	n := a.node(role)
	if len(q.Guarantee) == 0 && len(q.Limit) == 0 {
		n.quota = nil
	} else {
		n.quota = &quota{Quota: q, guarantee: a.amounts(q.Guarantee), limit: a.amounts(q.Limit), reserved: a.reservedBelow(role)}
	}
	a.quotas.nodes = slices.DeleteFunc(a.quotas.nodes, func(o *node) bool { return o == n })
	if n.quota != nil {
		a.quotas.nodes = append(a.quotas.nodes, n)
		slices.SortFunc(a.quotas.nodes, func(x, y *node) int { return strings.Compare(x.path, y.path) })
	}
	a.prune(n)
	a.all = true
	a.quotas.epoch++
}

// reservedBelow sums up what is reserved for a role and those below it.
func (a *Allocator) reservedBelow(role Role) vec {
	var sum vec
	for other, v := range a.quotas.reserved {
		if other == role || resources.IsSubRole(other, role) {
			sum.add(v, 1)
		}
	}
	return sum
}

// setReserved counts an agent's reservations.
func (a *Allocator) setReserved(ag *agent, total resources.Resources) {
	roles := total.ReservedRoles()
	if len(ag.reserved)+len(roles) == 0 {
		return
	}
	if a.quotas.reserved == nil {
		a.quotas.reserved = make(map[Role]vec)
	}
	for role, v := range ag.reserved {
		a.addReserved(role, v, -1)
	}
	ag.reserved = make(map[Role]vec)
	for _, role := range roles {
		v := a.quantities(total.ReservedFor(role).NonRevocable())
		ag.reserved[role] = v
		a.addReserved(role, v, 1)
	}
	a.quotas.epoch++
	if len(a.quotas.nodes) > 0 {
		a.all = true
	}
}

func (a *Allocator) addReserved(role Role, v vec, sign resources.Milli) {
	sum := a.quotas.reserved[role]
	sum.add(v, sign)
	if sum.zero() {
		delete(a.quotas.reserved, role)
	} else {
		a.quotas.reserved[role] = sum
	}
	for _, n := range a.quotas.nodes {
		if role == n.path || resources.IsSubRole(role, n.path) {
			n.quota.reserved.add(v, sign)
		}
	}
}

// Charged returns what counts against the quota of a role: all that is reserved for it, used or not, and all that it has of
// the rest, offers included.
func (a *Allocator) Charged(role Role) Quantities {
	sum := a.reservedBelow(role)
	if n := a.nodes[role]; n != nil {
		sum.add(n.plain, 1)
	}
	q := make(Quantities)
	for i, m := range sum {
		if m > 0 {
			q[a.names.list[i]] = m
		}
	}
	return q
}

// Short returns what roles lack of their guarantees beyond what is available: as long as it is not empty, somebody has what
// they were promised.
func (a *Allocator) Short() Quantities {
	q := make(Quantities)
	for i, m := range a.kept() {
		if short := m - max(a.quotas.available.at(i), 0); m > 0 && short > 0 {
			q[a.names.list[i]] = short
		}
	}
	return q
}

// consumed is what counts against a role's quota.
func (n *node) consumed(i int) resources.Milli { return n.plain.at(i) + n.quota.reserved.at(i) }

// unmet is what a role with a quota lacks of its guarantee.
func (a *Allocator) unmet(n *node) vec {
	q := n.quota
	if q.unmetAt == a.quotas.epoch {
		return q.unmet
	}
	clear(q.unmet)
	for _, g := range q.guarantee {
		if lack := g.of - n.consumed(g.name); lack > 0 {
			q.unmet.set(g.name, lack)
		}
	}
	q.unmetAt = a.quotas.epoch
	return q.unmet
}

// kept is what all roles together lack of their guarantees.
func (a *Allocator) kept() vec {
	if a.quotas.keptAt != a.quotas.epoch {
		clear(a.quotas.kept)
		for _, n := range a.quotas.nodes {
			a.quotas.kept.add(a.unmet(n), 1)
		}
		a.quotas.keptAt = a.quotas.epoch
	}
	return a.quotas.kept
}

// relieved notes that a role with a quota has less than before: it is further below its limit, or below its guarantee.
func (a *Allocator) relieved(n *node) {
	if n.quota.reached || !a.unmet(n).zero() {
		n.quota.reached = false
		a.wakeBelow(n)
	}
}

func (a *Allocator) wakeBelow(n *node) {
	for _, c := range n.clients {
		a.wake(c)
	}
	for _, child := range n.children {
		a.wakeBelow(child)
	}
}

// loosened has everything looked at again when something was kept for guarantees, and more can be spared now.
func (a *Allocator) loosened() {
	if a.looser() {
		a.all, a.quotas.held = true, false
	}
}

func (a *Allocator) looser() bool {
	if !a.quotas.held {
		return false
	}
	for i, m := range a.spare() {
		if m > a.quotas.spare.at(i) {
			return true
		}
	}
	return false
}

// noteSpare remembers what loosened compares with.
func (a *Allocator) noteSpare() {
	if a.quotas.held {
		a.quotas.spare = a.spare()
	}
}

// spare is what is available beyond what is kept for guarantees; below 0 where that is not enough.
func (a *Allocator) spare() vec {
	v := slices.Clone(a.quotas.available)
	v.add(a.kept(), -1)
	return v
}

// ceiling is the most of a name that may be offered, and why: a quota's limit, or nil where it is kept for guarantees.
type ceiling struct {
	name int
	most resources.Milli
	by   *quota
}

// ceilings are the bounds of what a client may be offered of the unreserved, each name once, as of the epoch at. none is set
// in the first stage for a client that lacks nothing of a guarantee.
type ceilings struct {
	list []ceiling
	none bool
	at   uint64
}

func (c *ceilings) lower(name int, most resources.Milli, by *quota) {
	most = max(most, 0)
	for i := range c.list {
		if c.list[i].name == name {
			if most < c.list[i].most {
				c.list[i].most, c.list[i].by = most, by
			}
			return
		}
	}
	c.list = append(c.list, ceiling{name, most, by})
}

// stage is one of the two that Allocate goes through.
type stage int

const (
	// guarantees: roles get what they lack of theirs, whatever is kept for others.
	guarantees stage = iota
	// fairShares: all roles get what is not kept for guarantees.
	fairShares
)

// ceilings returns the bounds of a client in a stage.
func (a *Allocator) ceilings(c *client, s stage) *ceilings {
	var lowest *node
	for n := c.leaf.parent; n != nil && lowest == nil; n = n.parent {
		if n.quota != nil {
			lowest = n
		}
	}
	out := &a.quotas.open[s]
	if lowest != nil {
		out = &lowest.quota.ceilings[s]
	}
	if out.at != a.quotas.epoch {
		a.reckon(out, lowest, s)
	}
	return out
}

// reckon fills in the ceilings of the clients whose lowest quota is that of a node; nil for those without any.
func (a *Allocator) reckon(out *ceilings, lowest *node, s stage) {
	out.at, out.list, out.none = a.quotas.epoch, out.list[:0], false
	for n := lowest; n != nil; n = n.parent {
		if n.quota == nil {
			continue
		}
		for _, limit := range n.quota.limit {
			out.lower(limit.name, limit.of-n.consumed(limit.name), n.quota)
		}
	}
	var own vec
	if s == guarantees {
		if lowest != nil {
			own = a.unmet(lowest)
		}
		if own.zero() {
			out.none = true
			return
		}
	}
	for i, m := range a.kept() {
		switch {
		case own.at(i) > 0:
			out.lower(i, own.at(i), nil)
		case m > 0:
			out.lower(i, a.quotas.available.at(i)-m, nil)
		}
	}
}

// peek is judge for those who only ask: in both stages, and without noting what was refused. The verdict tells whether a
// limit, or what is kept for guarantees, made less of it.
func (a *Allocator) peek(c *client, ag *agent) (candidate, verdict) {
	held, reached := a.quotas.held, make([]bool, len(a.quotas.nodes))
	a.quotas.held = false
	for i, n := range a.quotas.nodes {
		reached[i], n.quota.reached = n.quota.reached, false
	}
	cand, v := candidate{}, verdict{reason: nothing}
	if first := a.ceilings(c, guarantees); !first.none {
		cand, v = a.judge(c, ag, first.list)
	}
	if v.reason != offerable {
		second := a.ceilings(c, fairShares)
		cand, v = a.judge(c, ag, second.list)
		// The end of a filter would not help where too little would be left.
		if v.reason == refused && !a.worth(a.shrink(ag, ag.candidate(a, c), second.list), c.min) {
			v = verdict{reason: tooLittle}
		}
	}
	v.kept, a.quotas.held = a.quotas.held, held
	for i, n := range a.quotas.nodes {
		v.limited = v.limited || n.quota.reached
		n.quota.reached = reached[i]
	}
	return cand, v
}

// shrink takes so much off the unreserved part of a candidate that it keeps within the ceilings; it notes what bound it.
func (a *Allocator) shrink(ag *agent, cand candidate, ceilings []ceiling) candidate {
	over, barred := 0, 0
	for _, top := range ceilings {
		if ag.plain.at(top.name) <= top.most {
			continue
		}
		over++
		if top.most == 0 {
			barred++
		}
		if top.by != nil {
			top.by.reached = true
		} else {
			a.quotas.held = true
		}
	}
	switch {
	case over == 0:
		return cand
	case barred == ag.plain.count():
		// Nothing of it is left, and what is no scalar never goes alone.
		if !ag.special {
			return candidate{}
		}
		res := cand.res.Sub(ag.common)
		return candidate{res, a.quantities(res)}
	}
	room := make(map[string]resources.Milli, over)
	for _, top := range ceilings {
		if ag.plain.at(top.name) > top.most {
			room[a.names.list[top.name]] = top.most
		}
	}
	kept := make([]*mesos.Resource, 0, 8)
	scalars := false
	for _, r := range ag.common.Proto() {
		left, bounded := room[r.GetName()]
		if !bounded {
			kept = append(kept, r)
			scalars = scalars || r.Scalar != nil
			continue
		}
		amount, err := resources.FromFloat(r.GetScalar().GetValue())
		if err != nil {
			continue // came out of books, so it can't
		}
		if amount > left {
			// A disk of its own can't be divided.
			if r.GetDisk().GetSource() != nil || left == 0 {
				continue
			}
			amount = left
			r.Scalar.Value = proto.Float64(amount.Float())
		}
		room[r.GetName()] = left - amount
		kept = append(kept, r)
		scalars = true
	}
	res := cand.res.Sub(ag.common)
	if scalars {
		if less, err := resources.FromProto(kept); err == nil {
			res = res.Add(less)
		}
	}
	return candidate{res, a.quantities(res)}
}
