package api

import (
	"errors"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
)

// leaderURL is the base URL of the leader; empty while none is known.
func (a *api) leaderURL() string {
	if standing := a.m.Standing(); standing.Leader != "" {
		return a.follow.scheme + "://" + standing.Leader
	} else if !standing.Alone {
		return ""
	}
	cfg := a.m.Config()
	return cfg.URL()
}

func (a *api) getLeader(c *fiber.Ctx) error {
	leader := a.m.Leader()
	if leader == "" {
		return refusal(fiber.StatusNotFound, "There is no leader")
	}
	return writeJSON(c, fiber.StatusOK, map[string]string{"leader": leader})
}

// deleteLeader makes the leader give up; the next one first does what the query asks for.
func (a *api) deleteLeader(c *fiber.Ctx) error {
	ctx, cancel := a.context(c)
	defer cancel()
	h := marathon.Handover{
		Backup: query(c, "backup"), Restore: query(c, "restore"), Settle: flagOf(c, "settle", false),
		AnotherFramework: flagOf(c, "anotherFramework", false),
	}
	err := a.m.Abdicate(ctx, h)
	if errors.Is(err, marathon.ErrHandover) {
		return refusal(fiber.StatusUnprocessableEntity, "%v", err)
	}
	if err != nil {
		return err
	}
	if h.Backup == "" && h.Restore == "" {
		return writeJSON(c, fiber.StatusOK, message{"Leadership abdicated"})
	}
	// It is the next leader who does that, and whether it can is not known yet.
	return writeJSON(c, fiber.StatusOK, struct {
		message
		Handover string `json:"handover"`
	}{message{"Leadership abdicated"}, "/v2/handover"})
}

// getHandover shows what came of the last backup or restore; null where there was none.
func (a *api) getHandover(c *fiber.Ctx) error {
	if !a.m.Loaded() {
		return marathon.ErrNotReady
	}
	return writeJSON(c, fiber.StatusOK, map[string]any{"last": a.m.LastCarried()})
}
