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
}

// quota is that of one role.
type quota struct {
	Quota
	// reached is set when something was not offered because of the limit.
	reached bool
}

// SetQuota sets the quota of a role; an empty one removes it.
func (a *Allocator) SetQuota(role Role, q Quota) {
	n := a.node(role)
	if len(q.Guarantee) == 0 && len(q.Limit) == 0 {
		n.quota = nil
	} else {
		n.quota = &quota{Quota: q}
	}
	a.quotas.nodes = slices.DeleteFunc(a.quotas.nodes, func(o *node) bool { return o == n })
	if n.quota != nil {
		a.quotas.nodes = append(a.quotas.nodes, n)
		slices.SortFunc(a.quotas.nodes, func(x, y *node) int { return strings.Compare(x.path, y.path) })
	}
	a.prune(n)
	a.all = true
}

// setReserved counts an agent's reservations.
func (a *Allocator) setReserved(ag *agent, total resources.Resources) {
	if a.quotas.reserved == nil {
		a.quotas.reserved = make(map[Role]vec)
	}
	for role, v := range ag.reserved {
		sum := a.quotas.reserved[role]
		sum.add(v, -1)
		if sum.zero() {
			delete(a.quotas.reserved, role)
		} else {
			a.quotas.reserved[role] = sum
		}
	}
	roles := total.ReservedRoles()
	if len(a.quotas.nodes) > 0 && len(ag.reserved)+len(roles) > 0 {
		a.all = true
	}
	ag.reserved = nil
	if len(roles) == 0 {
		return
	}
	ag.reserved = make(map[Role]vec)
	for _, role := range roles {
		v := a.quantities(total.ReservedFor(role).NonRevocable())
		ag.reserved[role] = v
		sum := slices.Clone(a.quotas.reserved[role])
		sum.add(v, 1)
		a.quotas.reserved[role] = sum
	}
}

// consumed is what counts against a role's quota.
func (a *Allocator) consumed(n *node, i int) resources.Milli {
	sum := n.plain.at(i)
	for role, v := range a.quotas.reserved {
		if role == n.path || resources.IsSubRole(role, n.path) {
			sum += v.at(i)
		}
	}
	return sum
}

// Charged returns what counts against the quota of a role: all that is reserved for it, used or not, and all that it has of
// the rest, offers included.
func (a *Allocator) Charged(role Role) Quantities {
	q := make(Quantities)
	n := a.nodes[role]
	if n == nil {
		n = &node{path: role}
	}
	for i, name := range a.names.list {
		if sum := a.consumed(n, i); sum > 0 {
			q[name] = sum
		}
	}
	return q
}

// Short returns what roles lack of their guarantees beyond what is available: as long as it is not empty, somebody has what
// they were promised.
func (a *Allocator) Short() Quantities {
	q := make(Quantities)
	for i, m := range a.kept() {
		if short := m - a.quotas.available.at(i); m > 0 && short > 0 {
			q[a.names.list[i]] = min(short, m)
		}
	}
	return q
}

// unmet is what a role lacks of its guarantee.
func (a *Allocator) unmet(n *node) vec {
	var v vec
	if n.quota == nil {
		return v
	}
	for name, m := range n.quota.Guarantee {
		i := a.names.of(name)
		if lack := m - a.consumed(n, i); lack > 0 {
			for len(v) <= i {
				v = append(v, 0)
			}
			v[i] = lack
		}
	}
	return v
}

// kept is what all roles together lack of their guarantees.
func (a *Allocator) kept() vec {
	var v vec
	for _, n := range a.quotas.nodes {
		v.add(a.unmet(n), 1)
	}
	return v
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
	most resources.Milli
	by   *quota
}

// ceilings are the bounds of what a client may be offered of the unreserved, by number of name. With guaranteed, it may have
// what its role lacks of its guarantee, whatever is kept for others, and reports false if that is nothing.
func (a *Allocator) ceilings(c *client, guaranteed bool) (map[int]ceiling, bool) {
	if len(a.quotas.nodes) == 0 {
		return nil, !guaranteed
	}
	out := make(map[int]ceiling)
	lower := func(i int, most resources.Milli, by *quota) {
		if old, ok := out[i]; !ok || most < old.most {
			out[i] = ceiling{max(most, 0), by}
		}
	}
	var own vec
	for n := c.leaf.parent; n != nil; n = n.parent {
		if n.quota == nil {
			continue
		}
		for name, limit := range n.quota.Limit {
			i := a.names.of(name)
			lower(i, limit-a.consumed(n, i), n.quota)
		}
		if own == nil {
			own = a.unmet(n)
		}
	}
	if guaranteed && own.zero() {
		return nil, false
	}
	for i, m := range a.kept() {
		switch {
		case guaranteed && own.at(i) > 0:
			lower(i, own.at(i), nil)
		case m > 0:
			lower(i, a.quotas.available.at(i)-m, nil)
		}
	}
	return out, true
}

// peek is judge for those who only ask: in both stages, and without noting what was refused.
func (a *Allocator) peek(c *client, ag *agent) (candidate, verdict) {
	held, reached := a.quotas.held, make([]bool, len(a.quotas.nodes))
	for i, n := range a.quotas.nodes {
		reached[i] = n.quota.reached
	}
	defer func() {
		a.quotas.held = held
		for i, n := range a.quotas.nodes {
			n.quota.reached = reached[i]
		}
	}()
	if len(a.quotas.nodes) > 0 {
		if ceilings, ok := a.ceilings(c, true); ok {
			if cand, v := a.judge(c, ag, ceilings); v.reason == offerable {
				return cand, v
			}
		}
	}
	ceilings, _ := a.ceilings(c, false)
	return a.judge(c, ag, ceilings)
}

// shrink takes so much off the unreserved part of a candidate that it keeps within the ceilings; it notes what bound it.
func (a *Allocator) shrink(cand candidate, ceilings map[int]ceiling) candidate {
	plain := plainPart(cand.res)
	over := make(map[string]resources.Milli)
	for name, amount := range plain.Scalars() {
		i := a.names.of(name)
		top, ok := ceilings[i]
		if !ok || amount <= top.most {
			continue
		}
		over[name] = top.most
		if top.by != nil {
			top.by.reached = true
		} else {
			a.quotas.held = true
		}
	}
	if len(over) == 0 {
		return cand
	}
	kept := make([]*mesos.Resource, 0, 8)
	scalars := false
	for _, r := range plain.Proto() {
		room, bounded := over[r.GetName()]
		if !bounded {
			kept = append(kept, r)
			scalars = scalars || r.Scalar != nil
			continue
		}
		amount, err := resources.FromFloat(r.GetScalar().GetValue())
		if err != nil {
			continue // came out of books, so it can't
		}
		if amount > room {
			// A disk of its own can't be divided.
			if r.GetDisk().GetSource() != nil || room == 0 {
				continue
			}
			amount = room
			r.Scalar.Value = proto.Float64(amount.Float())
		}
		over[r.GetName()] = room - amount
		kept = append(kept, r)
		scalars = true
	}
	res := cand.res.Sub(plain)
	if scalars {
		// Ports and the like go along with scalars, never alone.
		if less, err := resources.FromProto(kept); err == nil {
			res = res.Add(less)
		}
	}
	return candidate{res, a.quantities(res)}
}
