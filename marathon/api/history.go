package api

import (
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon/scheduler"
)

// getHistory lists the deployments that have ended, the newest first. It is not of Marathon.
func (a *api) getHistory(c *fiber.Ctx) error {
	history := []*scheduler.Ended{}
	if err := a.m.Read(func(v scheduler.View, _ time.Time) { history = append(history, v.History()...) }); err != nil {
		return err
	}
	return writeJSON(c, fiber.StatusOK, history)
}

// askedBy says who makes a request, for people: the user, where one has to be named, and where the request comes from. What others
// have passed on names them behind whom they speak for; that is believed as far as they are.
func (a *api) askedBy(c *fiber.Ctx) string {
	from := c.Context().RemoteIP().String()
	if first, _, _ := strings.Cut(c.Get(headerForwarded), ","); first != "" {
		from = strings.TrimSpace(strings.Map(printable, first)) + " by way of " + from
	}
	if a.http.User != "" {
		return a.http.User + " at " + from
	}
	return from
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}
