// Package api shows a node's view of the mesh over HTTP, as JSON: what the commands "starling mesh ..." print. It hangs
// its routes on the server of whatever role the node has.
//
//	GET /mesh/members       every node that is known here: []Member, in order of names
//	GET /mesh/nodes/NAME    one node's whole record: Node. NAME is a name, a host name that one node alone has, or
//	                        what one name alone begins with
//
// What is told is this node's copy and this node's opinion: others may know more. Refusals are sentences in plain text:
// 404 for a node that is not known, 405 for another method. Handlers work on immutable snapshots, and hold no lock while they
// encode. Nothing here is secret that is not in the mesh already, and no key ever is.
package api

import (
	"bytes"
	"encoding/json"

	"github.com/gofiber/fiber/v2"

	"starling/gossip"
	"starling/gossip/record"
)

// Mesh is what is shown; *gossip.Mesh implements it.
type Mesh interface {
	record.Reader
	// Self returns the name of this node.
	Self() string
	// Members returns all nodes of which something is held, this one included, in order of names.
	Members() []gossip.Member
}

var _ Mesh = (*gossip.Mesh)(nil)

// The paths.
const (
	PathMembers = "/mesh/members"
	PathNodes   = "/mesh/nodes/" // followed by a name
)

// api is the handlers of one node.
type api struct {
	mesh Mesh
}

// Mount returns the function that adds the routes to an application made by server.NewApp, ahead of the answer to unknown
// paths.
func Mount(m Mesh) func(*fiber.App) {
	a := &api{mesh: m}
	return func(app *fiber.App) {
		app.All(PathMembers, reads(a.members))
		app.All(PathNodes+":name", reads(a.node))
	}
}

// reads refuses methods that do more than read.
func reads(h fiber.Handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if m := c.Method(); m != fiber.MethodGet && m != fiber.MethodHead {
			c.Set(fiber.HeaderAllow, "GET, HEAD")
			return fiber.ErrMethodNotAllowed
		}
		return h(c)
	}
}

// write answers with JSON.
func write(c *fiber.Ctx, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	c.Set(fiber.HeaderCacheControl, "no-store")
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Context().Response.SetBodyRaw(body)
	return nil
}

// encode writes a line of JSON.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
