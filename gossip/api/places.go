package api

import (
	"encoding/json"
	"slices"

	"github.com/gofiber/fiber/v2"

	"starling/gossip/catalog"
	"starling/master/mesos/codec"
)

// Place is where a node is in the network: enough to work out how far any two nodes are from each other.
type Place struct {
	Name     string `json:"name"`
	Hostname string `json:"hostname,omitempty"`
	AgentID  string `json:"agent_id,omitempty"`
	// Coordinate is a catalog.Coordinate as JSON. Nodes without one that can be true are left out.
	Coordinate json.RawMessage `json:"coordinate"`
}

func (a *api) places(c *fiber.Ctx) error {
	out := []Place{}
	for _, m := range a.mesh.Members() {
		s := a.mesh.Snapshot(m.Name)
		if s == nil {
			continue
		}
		coordinate, err := catalog.CoordinateOf(s)
		if err != nil {
			continue
		}
		text, err := codec.JSON.Marshal(coordinate)
		if err != nil {
			return err
		}
		p := Place{Name: m.Name, Coordinate: slices.Clone(text)}
		if n := (&catalog.Node{}); decode(s, catalog.KeyNode, n) {
			p.Hostname, p.AgentID = n.GetHostname(), n.GetAgentId()
		}
		out = append(out, p)
	}
	return write(c, out)
}
