package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"starling/cmd/internal/flags"
)

// appBrake is "app brake".
type appBrake struct{ lift bool }

func (b *appBrake) register(s *flags.Set) {
	s.BoolVar(&b.lift, "lift", false, "replace what seems dead, though it is most: for an operator who knows that it is dead")
}

// brakeState is the answer of Marathon; one of others has no such endpoint.
type brakeState struct {
	Engaged  bool      `json:"engaged"`
	Since    time.Time `json:"since"`
	Agents   int       `json:"agents"`
	Lost     []string  `json:"lostAgents"`
	HeldBack int       `json:"heldBack"`
	Reason   string    `json:"reason"`
}

func (b *appBrake) run(ctx context.Context, c *call) error {
	var state brakeState
	body, err := c.marathon.get(ctx, "/v2/brake", &state)
	if err != nil {
		return err
	}
	if b.lift && state.Engaged {
		_, err := c.marathon.ask(ctx, http.MethodDelete, "/v2/brake", nil, nil)
		// One that lifted itself meanwhile is as good.
		if err != nil && !isMarathonStatus(err, http.StatusNotFound) {
			return err
		}
		if body, err = c.marathon.get(ctx, "/v2/brake", nil); err != nil {
			return err
		}
		if !c.print.json {
			return c.print.text(fmt.Sprintf("the brake is lifted: %d instances are replaced", state.HeldBack))
		}
	}
	switch {
	case c.print.json:
		return c.print.raw(body)
	case !state.Engaged:
		return c.print.text("the brake is off: what can't be reached is replaced when its app says so")
	}
	return c.print.pairs([][2]string{
		{"BRAKE", "on, for " + ago(max(0, time.Since(state.Since).Seconds()))},
		{"WHY", state.Reason},
		{"HELD BACK", fmt.Sprintf("%d instances", state.HeldBack)},
		{"SEEM DEAD", strings.Join(state.Lost, ", ")},
	})
}
