// Package api shows a node's view of the mesh over HTTP, as JSON: what the commands "starling mesh ..." print. It hangs
// its routes on the server of whatever role the node has.
//
//	GET /mesh/members       every node that is known here: []Member, in order of names
//	GET /mesh/nodes/NAME    one node's whole record: Node. NAME is a name, a host name that one node alone has, or
//	                        what one name alone begins with
//	GET /mesh/tasks         the tasks of all nodes, as their records tell of them: []Task
//	GET /mesh/watch         what changes from now on, as it does: a stream of Event, each a line of JSON. A heartbeat comes
//	                        when nothing changes; a reader that is too slow is told that it missed something, and one
//	                        that does not read at all is cut off
//	GET /mesh/rtt?a=A&b=B   how far two nodes are from each other: RTT. They are named as above; without one of them,
//	                        the node that answers is meant
//	GET /mesh/places        where every node is in the network: []Place
//	GET /mesh/keys          which keys the nodes have, by fingerprint, and how a rotation goes that was begun here: Keys
//	POST /mesh/keys         begins a rotation: a RotationRequest, which answers the challenge of the GET and is sealed with
//	                        the present key; the answer is 202 with the Rotation
//
// What is told is this node's copy and this node's opinion: others may know more. Refusals are sentences in plain text:
//
//	400  for a rotation to a key that cannot be one, and for what does not decode
//	403  for a request for a rotation that does not open
//	404  for a node or a distance that is not known
//	405  for another method
//	409  for a rotation while another one goes on, or where there is no key
//	413  for a request that is too large
//	415  for one that is not JSON
//	503  where too many watch, or the mesh does not run
//
// Handlers work on immutable snapshots, and hold no lock of the mesh while they encode. They show no key, and nothing else that is not
// in the mesh already.
package api

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/gossip"
	"starling/gossip/record"
)

// Mesh is what is shown; *gossip.Mesh implements it.
type Mesh interface {
	record.Reader
	Rotator
	// Self returns the name of this node.
	Self() string
	// Members returns all nodes of which something is held, this one included, in order of names.
	Members() []gossip.Member
	// RTT estimates the round trip between two nodes. The error wraps catalog.ErrNoCoordinate where one of them has not
	// said where it is.
	RTT(a, b string) (time.Duration, error)
}

var _ Mesh = (*gossip.Mesh)(nil)

// The paths.
const (
	PathMembers = "/mesh/members"
	PathNodes   = "/mesh/nodes/" // followed by a name
	PathTasks   = "/mesh/tasks"
	PathWatch   = "/mesh/watch"
	PathRTT     = "/mesh/rtt"
	PathPlaces  = "/mesh/places"
	PathKeys    = "/mesh/keys"
)

// api is the handlers of one node.
type api struct {
	mesh     Mesh
	watchers atomic.Int32 // streams that are open
	cache    cache        // of members
}

// Mount returns the function that adds the routes to an application made by server.NewApp, ahead of the answer to unknown
// paths.
func Mount(m Mesh) func(*fiber.App) {
	a := &api{mesh: m}
	return func(app *fiber.App) {
		app.All(PathMembers, only(a.members, fiber.MethodGet, fiber.MethodHead))
		app.All(PathNodes+":name", only(a.node, fiber.MethodGet, fiber.MethodHead))
		app.All(PathTasks, only(a.tasks, fiber.MethodGet, fiber.MethodHead))
		app.All(PathRTT, only(a.rtt, fiber.MethodGet, fiber.MethodHead))
		app.All(PathPlaces, only(a.places, fiber.MethodGet, fiber.MethodHead))
		app.All(PathKeys, only(a.keys, fiber.MethodGet, fiber.MethodHead, fiber.MethodPost))
		app.All(PathWatch, only(a.watch, fiber.MethodGet))
	}
}

// only refuses other methods than those named.
func only(h fiber.Handler, methods ...string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if !slices.Contains(methods, c.Method()) {
			c.Set(fiber.HeaderAllow, strings.Join(methods, ", "))
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
	return send(c, body)
}

// send answers with JSON that is encoded already, and not modified any more.
func send(c *fiber.Ctx, body []byte) error {
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
