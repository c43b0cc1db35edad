package api

import (
	"maps"
	"slices"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/allocator"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/resources"
)

// The roles, by operator call and at the older endpoint. Spec: mesos-operator-api.md section A.1, mesos-http-endpoints.md
// section 2.

func getRoles(v *master.View) *operator.Response {
	out := &operator.Response_GetRoles{}
	for _, r := range v.RoleViews() {
		shown := &mesos.Role{
			Name: proto.String(r.Name), Weight: proto.Float64(r.Weight), Resources: r.Allocated.Add(r.Offered).ProtoEndpoint(),
		}
		for _, id := range r.Frameworks {
			shown.Frameworks = append(shown.Frameworks, &mesos.FrameworkID{Value: proto.String(id)})
		}
		out.Roles = append(out.Roles, shown)
	}
	return &operator.Response{GetRoles: out}
}

func (a *api) roles(c *fiber.Ctx) error { return a.show(c, "/roles", writeRoles) }

func writeRoles(w *jsonWriter, v *master.View) {
	w.key("roles")
	w.array(func() {
		for _, r := range v.RoleViews() {
			w.element()
			w.object(func() { writeRole(w, &r) })
		}
	})
}

func writeRole(w *jsonWriter, r *master.RoleView) {
	w.string("name", r.Name)
	w.float("weight", r.Weight)
	w.key("quota")
	w.object(func() {
		w.string("role", r.Name)
		writeQuantities(w, "guarantee", r.Quota.Guarantee)
		writeQuantities(w, "limit", r.Quota.Limit)
		writeQuantities(w, "consumed", r.Consumed)
	})
	writeScalars(w, "resources", r.Allocated.Add(r.Offered))
	writeScalars(w, "allocated", r.Allocated)
	writeScalars(w, "offered", r.Offered)
	writeScalars(w, "reserved", r.Reserved)
	w.strings("frameworks", r.Frameworks)
}

func writeScalars(w *jsonWriter, name string, r resources.Resources) {
	q := make(allocator.Quantities)
	maps.Insert(q, r.Scalars())
	writeQuantities(w, name, q)
}

func writeQuantities(w *jsonWriter, name string, q allocator.Quantities) {
	w.key(name)
	w.object(func() {
		for _, scalar := range slices.Sorted(maps.Keys(q)) {
			w.float(scalar, q[scalar].Float())
		}
	})
}
