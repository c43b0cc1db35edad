package api

import (
	"errors"

	"github.com/gofiber/fiber/v2"

	"starling/gossip/catalog"
)

// RTT is how far two nodes are from each other.
type RTT struct {
	// A and B are their names.
	A string `json:"a"`
	B string `json:"b"`
	// Seconds is the round trip between them, as their coordinates have it.
	Seconds float64 `json:"seconds"`
}

func (a *api) rtt(c *fiber.Ctx) error {
	from, to := c.Query("a", a.mesh.Self()), c.Query("b", a.mesh.Self())
	one, _, err := a.find(from)
	if err != nil {
		return fiber.NewError(fiber.StatusNotFound, err.Error())
	}
	other, _, err := a.find(to)
	if err != nil {
		return fiber.NewError(fiber.StatusNotFound, err.Error())
	}
	rtt, err := a.mesh.RTT(one.Name, other.Name)
	if errors.Is(err, catalog.ErrNoCoordinate) {
		return fiber.NewError(fiber.StatusNotFound, err.Error())
	}
	if err != nil {
		return err
	}
	return write(c, RTT{one.Name, other.Name, rtt.Seconds()})
}
