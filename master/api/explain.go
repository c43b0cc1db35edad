package api

import (
	"github.com/gofiber/fiber/v2"

	"starling/master/mesos/server"
)

// explain answers why a framework gets no offers, or no more of them: GET /allocator/explain?framework_id=ID[&role=ROLE]. It is
// no endpoint of Mesos.
func (a *api) explain(c *fiber.Ctx) error {
	id := queryCopy(c, "framework_id")
	if id == "" {
		return server.Errorf(fiber.StatusBadRequest, "Missing 'framework_id' query parameter")
	}
	ctx, cancel := a.context(c)
	defer cancel()
	roles, err := a.master.Explain(ctx, id, queryCopy(c, "role"))
	if err != nil {
		return a.fail(c, err)
	}
	w := newJSON()
	w.object(func() {
		w.string("framework_id", id)
		w.key("roles")
		w.array(func() {
			for _, r := range roles {
				w.element()
				w.object(func() {
					w.string("role", r.Role)
					w.key("reasons")
					w.array(func() {
						for _, reason := range r.Reasons {
							w.element()
							w.object(func() {
								w.int("agents", reason.Agents)
								w.string("reason", reason.Text)
							})
						}
					})
				})
			}
		})
	})
	return server.WriteJSON(c, w.b)
}
