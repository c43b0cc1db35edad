package api

import (
	"errors"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/marathon/scheduler"
)

// orphanInfo is a task that belongs to no instance, as /v2/orphans shows it; Marathon has no such path.
type orphanInfo struct {
	ID      string    `json:"id"`
	AppID   string    `json:"appId"`
	AgentID string    `json:"slaveId"`
	State   string    `json:"state"`
	Since   time.Time `json:"since"`
	// Defined tells that there is an app to adopt it.
	Defined bool `json:"appDefined"`
}

func (a *api) routeOrphans(rest []string) methods {
	switch {
	case len(rest) == 0:
		return methods{fiber.MethodGet: a.getOrphans}
	case len(rest) == 1 && rest[0] == "adopt":
		return methods{fiber.MethodPost: a.adoptOrphans}
	case len(rest) == 1 && rest[0] == "dismiss":
		return methods{fiber.MethodPost: a.dismissOrphans}
	default:
		return nil
	}
}

func (a *api) getOrphans(c *fiber.Ctx) error {
	body := struct {
		Orphans []orphanInfo `json:"orphans"`
		// RestoredAt is when the state was restored from a backup; absent where it was not, or that is settled.
		RestoredAt *time.Time `json:"restoredAt,omitempty"`
	}{Orphans: []orphanInfo{}}
	if err := a.m.Read(func(v scheduler.View, _ time.Time) {
		if at := v.RestoredAt(); !at.IsZero() {
			body.RestoredAt = &at
		}
		for _, o := range v.Orphans() {
			body.Orphans = append(body.Orphans, orphanInfo{
				ID: o.TaskID, AppID: string(o.App), AgentID: o.AgentID, State: o.State, Since: o.Since, Defined: v.Root().App(o.App) != nil,
			})
		}
	}); err != nil {
		return err
	}
	return writeJSON(c, fiber.StatusOK, body)
}

// orphanIDs reads {"ids":[...]}, or {"all":true}, for which it returns nil.
func orphanIDs(c *fiber.Ctx) ([]string, error) {
	var body struct {
		IDs []string `json:"ids"`
		All bool     `json:"all"`
	}
	if err := readBody(c, &body); err != nil {
		return nil, err
	}
	if body.All == (len(body.IDs) > 0) {
		return nil, refusal(fiber.StatusUnprocessableEntity, `either "ids" or "all" must say which tasks`)
	}
	if body.All {
		return nil, nil
	}
	return body.IDs, nil
}

func (a *api) adoptOrphans(c *fiber.Ctx) error {
	ids, err := orphanIDs(c)
	if err != nil {
		return err
	}
	ctx, cancel := a.context(c)
	defer cancel()
	result, err := a.m.AdoptOrphans(ctx, ids)
	if errors.Is(err, marathon.ErrLookup) {
		return refusal(fiber.StatusServiceUnavailable, "%v", err)
	}
	if err != nil {
		return err
	}
	if result.Adopted == nil {
		result.Adopted = []string{}
	}
	return writeJSON(c, fiber.StatusOK, map[string]any{"adopted": result.Adopted, "refused": result.Refused})
}

func (a *api) dismissOrphans(c *fiber.Ctx) error {
	ids, err := orphanIDs(c)
	if err != nil {
		return err
	}
	ctx, cancel := a.context(c)
	defer cancel()
	unknown, err := a.m.DismissOrphans(ctx, ids)
	if err != nil {
		return err
	}
	if unknown == nil {
		unknown = []string{}
	}
	return writeJSON(c, fiber.StatusOK, map[string]any{"unknown": unknown})
}
