package api

import (
	"context"
	"errors"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/marathon/event"
)

func (a *api) getSubscriptions(c *fiber.Ctx) error {
	urls, err := a.m.Callbacks()
	if err != nil {
		return subscriptionError(err)
	}
	if urls == nil {
		urls = []string{}
	}
	return writeJSON(c, fiber.StatusOK, map[string][]string{"callbackUrls": urls})
}

func (a *api) postSubscription(c *fiber.Ctx) error { return a.subscription(c, a.m.Subscribe) }

func (a *api) deleteSubscription(c *fiber.Ctx) error { return a.subscription(c, a.m.Unsubscribe) }

// subscription answers with the event that tells of the change.
func (a *api) subscription(c *fiber.Ctx, change func(ctx context.Context, url, clientIP string) (event.Frame, error)) error {
	ctx, cancel := a.context(c)
	defer cancel()
	frame, err := change(ctx, query(c, "callbackUrl"), c.Context().RemoteIP().String())
	if err != nil {
		return subscriptionError(err)
	}
	c.Status(fiber.StatusOK)
	c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.Send(frame.Data)
}

func subscriptionError(err error) error {
	switch {
	case errors.Is(err, marathon.ErrNoCallbacks):
		return refusal(fiber.StatusNotFound, "Event callbacks are switched off: they need --event_subscriber http_callback")
	case errors.Is(err, marathon.ErrCallback):
		return refusal(fiber.StatusUnprocessableEntity, "%s", err)
	default:
		return err
	}
}
