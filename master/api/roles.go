package api

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/quota"
	"starling/master/mesos/resources"
)

// roleView is what is known of one role.
type roleView struct {
	name       string
	frameworks []string
	// allocated, offered and reserved are of this role alone.
	allocated, offered, reserved resources.Resources
	quota                        *quota.QuotaConfig // nil when there is none
	// consumed is what counts against the quota, of all roles below too.
	consumed resources.Resources
}

// rolesOf lists the roles that are known, in order: those that --roles allows, or else each that frameworks, reservations,
// weights or quotas name, with the roles above it.
func rolesOf(v *master.View) []*roleView {
	found := make(map[string]*roleView)
	role := func(name string) *roleView {
		if found[name] == nil {
			found[name] = &roleView{name: name}
		}
		return found[name]
	}
	for i := range v.Frameworks {
		f := &v.Frameworks[i]
		for _, name := range f.Roles {
			r := role(name)
			r.frameworks = append(r.frameworks, f.Info.GetId().GetValue())
		}
		for _, name := range f.Used.Allocations() {
			r := role(name)
			r.allocated = r.allocated.Add(allocatedTo(f.Used, name))
		}
		for _, name := range f.Offered.Allocations() {
			r := role(name)
			r.offered = r.offered.Add(allocatedTo(f.Offered, name))
		}
	}
	for i := range v.Agents {
		for _, name := range reservedRoles(v.Agents[i].Total) {
			r := role(name)
			r.reserved = r.reserved.Add(v.Agents[i].Total.ReservedFor(name))
		}
	}
	for name := range v.Weights {
		role(name)
	}
	for _, q := range v.Quotas {
		role(q.GetRole()).quota = q
	}
	addAncestors(found, role)
	consume(found)
	if len(v.Roles) > 0 {
		allowed := make(map[string]*roleView)
		for _, name := range append([]string{resources.AnyRole}, v.Roles...) {
			allowed[name] = role(name)
		}
		found = allowed
	}
	out := make([]*roleView, 0, len(found))
	for _, r := range found {
		out = append(out, r)
	}
	slices.SortFunc(out, func(x, y *roleView) int { return cmp.Compare(x.name, y.name) })
	return out
}

// addAncestors adds "a" and "a/b" where "a/b/c" is known.
func addAncestors(found map[string]*roleView, role func(string) *roleView) {
	var names []string
	for name := range found {
		names = append(names, name)
	}
	for _, name := range names {
		for at := strings.LastIndexByte(name, '/'); at > 0; at = strings.LastIndexByte(name[:at], '/') {
			role(name[:at])
		}
	}
}

// consume sums up what counts against each role's quota: all reservations, used or not, and what it has of the rest.
func consume(found map[string]*roleView) {
	for _, r := range found {
		own := r.reserved.Unallocated().Add(r.allocated.Unreserved().Unallocated()).NonRevocable()
		for name := r.name; ; name = name[:strings.LastIndexByte(name, '/')] {
			if above := found[name]; above != nil {
				above.consumed = above.consumed.Add(own)
			}
			if !strings.Contains(name, "/") {
				break
			}
		}
	}
}

func allocatedTo(r resources.Resources, role string) resources.Resources {
	return r.Filter(func(p *mesos.Resource) bool { return p.GetAllocationInfo().GetRole() == role })
}

func (a *api) roles(c *fiber.Ctx) error {
	return a.show(c, "/roles", writeRoles)
}

func writeRoles(w *jsonWriter, v *master.View) {
	w.key("roles")
	w.array(func() {
		for _, r := range rolesOf(v) {
			w.element()
			w.object(func() {
				w.string("name", r.name)
				w.float("weight", weightOf(v, r.name))
				w.key("quota")
				w.object(func() {
					w.string("role", r.name)
					writeAmounts(w, "guarantee", r.quota.GetGuarantees())
					writeAmounts(w, "limit", r.quota.GetLimits())
					writeScalars(w, "consumed", r.consumed)
				})
				writeScalars(w, "resources", r.allocated.Add(r.offered))
				writeScalars(w, "allocated", r.allocated)
				writeScalars(w, "offered", r.offered)
				writeScalars(w, "reserved", r.reserved)
				w.strings("frameworks", r.frameworks)
			})
		}
	})
}

func weightOf(v *master.View, role string) float64 {
	if weight, ok := v.Weights[role]; ok {
		return weight
	}
	return 1
}

// writeScalars writes the sums of scalars alone, by name.
func writeScalars(w *jsonWriter, name string, r resources.Resources) {
	w.key(name)
	w.object(func() {
		for scalar, amount := range r.Scalars() {
			w.float(scalar, amount.Float())
		}
	})
}

func writeAmounts(w *jsonWriter, name string, amounts map[string]*mesos.Value_Scalar) {
	w.key(name)
	w.object(func() {
		for _, scalar := range slices.Sorted(maps.Keys(amounts)) {
			w.float(scalar, amounts[scalar].GetValue())
		}
	})
}

func getRoles(v *master.View) *operator.Response {
	out := &operator.Response_GetRoles{}
	for _, r := range rolesOf(v) {
		shown := &mesos.Role{
			Name: proto.String(r.name), Weight: proto.Float64(weightOf(v, r.name)),
			Resources: r.allocated.Add(r.offered).ProtoEndpoint(),
		}
		for _, id := range r.frameworks {
			shown.Frameworks = append(shown.Frameworks, &mesos.FrameworkID{Value: proto.String(id)})
		}
		out.Roles = append(out.Roles, shown)
	}
	return &operator.Response{GetRoles: out}
}
