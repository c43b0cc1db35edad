package master

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// whitelisted tells whether a role may be used at all.
func (c *Config) whitelisted(role string) bool {
	return len(c.Roles) == 0 || role == resources.AnyRole || slices.Contains(c.Roles, role)
}

// ancestors gives a role and all above it, "eng/web" and "eng".
func ancestors(role string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			if !yield(role) {
				return
			}
			i := strings.LastIndexByte(role, '/')
			if i < 0 {
				return
			}
			role = role[:i]
		}
	}
}

// addUpwards adds resources to the sums of a role and of all above it.
func addUpwards(sums map[string]resources.Resources, role string, r resources.Resources) {
	for top := range ancestors(role) {
		sums[top] = sums[top].Add(r)
	}
}

// addByAllocation adds resources to the sums of the roles that they are allocated to, and of all above these.
func addByAllocation(sums map[string]resources.Resources, r resources.Resources) {
	for _, role := range r.Allocations() {
		own := r.Filter(func(p *mesos.Resource) bool { return p.GetAllocationInfo().GetRole() == role })
		addUpwards(sums, role, own.Unallocated())
	}
}

// RoleView shows a role. All amounts include those of the roles below it.
type RoleView struct {
	Name   string
	Weight float64
	Quota  allocator.Quota
	// Frameworks are the ids of those that subscribe to just this role, or hold resources in it, in order.
	Frameworks []string
	// Allocated is what tasks hold, Offered what is in offers, Reserved what is reserved, used or not.
	Allocated, Offered, Reserved resources.Resources
	// Consumed is what counts against the quota: the reserved, and the unreserved that tasks hold.
	Consumed allocator.Quantities
}

// RoleViews lists the roles that are known, in order of names: those of the configuration where it has a list; otherwise those
// that a framework subscribes to or holds resources in, or that have a reservation, a weight or a quota, and all above them.
// Spec: mesos-operator-api.md, section A.1.
func (v *View) RoleViews() []RoleView {
	use := newRoleUse()
	for i := range v.Agents {
		use.addAgent(v.Agents[i].Total)
		use.addAllocated(v.Agents[i].Used)
	}
	offered := make(map[string]resources.Resources)
	members := make(map[string][]string)
	for i := range v.Frameworks {
		f := &v.Frameworks[i]
		addByAllocation(offered, f.Offered)
		roles := slices.Concat(f.Roles, f.Used.Allocations(), f.Offered.Allocations())
		slices.Sort(roles)
		for _, role := range slices.Compact(roles) {
			members[role] = append(members[role], f.Info.GetId().GetValue())
		}
	}
	known := make(map[string]bool)
	if len(v.Roles) > 0 {
		known[resources.AnyRole] = true
		for _, role := range v.Roles {
			known[role] = true
		}
	} else {
		for _, names := range []iter.Seq[string]{
			maps.Keys(members), maps.Keys(use.reserved), maps.Keys(use.allocated), maps.Keys(v.Weights), maps.Keys(v.Quotas),
		} {
			for name := range names {
				for role := range ancestors(name) {
					known[role] = true
				}
			}
		}
	}
	out := make([]RoleView, 0, len(known))
	for _, role := range slices.Sorted(maps.Keys(known)) {
		r := RoleView{
			Name: role, Weight: 1, Quota: v.Quotas[role], Frameworks: members[role], Allocated: use.allocated[role],
			Offered: offered[role], Reserved: use.reserved[role], Consumed: use.consumed(role),
		}
		if weight, has := v.Weights[role]; has {
			r.Weight = weight
		}
		out = append(out, r)
	}
	return out
}
