package api

import (
	"errors"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/scheduler"
)

// brakeInfo is the state of the brake on mass replacement; the endpoint is one of our own.
type brakeInfo struct {
	Engaged  bool          `json:"engaged"`
	Since    app.Timestamp `json:"since,omitzero"`
	Agents   int           `json:"agents,omitempty"`
	Lost     []string      `json:"lostAgents,omitempty"`
	HeldBack int           `json:"heldBack"`
	Reason   string        `json:"reason,omitempty"`
}

func (a *api) getBrake(c *fiber.Ctx) error {
	var b scheduler.Brake
	if err := a.m.Read(func(v scheduler.View, now time.Time) { b = v.Brake(now) }); err != nil {
		return err
	}
	info := brakeInfo{Engaged: b.On, Agents: b.Agents, Lost: b.Lost, HeldBack: b.HeldBack, Reason: b.Reason()}
	if b.On {
		info.Since = app.At(b.Since)
	}
	return writeJSON(c, fiber.StatusOK, info)
}

// deleteBrake is an operator who knows that the nodes are dead.
func (a *api) deleteBrake(c *fiber.Ctx) error {
	ctx, cancel := a.context(c)
	defer cancel()
	err := a.m.LiftBrake(ctx)
	if errors.Is(err, marathon.ErrNoBrake) {
		return refusal(fiber.StatusNotFound, "The brake on mass replacement is not on.")
	}
	if err != nil {
		return err
	}
	return c.SendStatus(fiber.StatusNoContent)
}
