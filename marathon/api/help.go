package api

import (
	_ "embed"
	"time"

	"github.com/gofiber/fiber/v2"
)

// Logging is how much is logged, by component; "ROOT" is what all others inherit from.
type Logging interface {
	// Levels returns all levels by name.
	Levels() map[string]string
	// SetLevel sets one, for a time or, with 0, for good. Errors are for whoever asked.
	SetLevel(name, level string, d time.Duration) error
}

// console is the page that describes the API.
//
//go:embed console.html
var console []byte

func (a *api) toConsole(c *fiber.Ctx) error {
	c.Set(fiber.HeaderLocation, "api-console/index.html")
	c.Status(fiber.StatusFound)
	c.Context().Response.ResetBody()
	return nil
}

func (a *api) getConsole(c *fiber.Ctx) error {
	c.Set(fiber.HeaderContentType, fiber.MIMETextHTMLCharsetUTF8)
	return c.Status(fiber.StatusOK).Send(console)
}

// getConfig shows the flags that are set, without secrets.
func (a *api) getConfig(c *fiber.Ctx) error {
	return writeJSON(c, fiber.StatusOK, map[string]any{"version": a.m.Config().Version, "flags": a.flags})
}

func (a *api) getLogging(c *fiber.Ctx) error { return writeJSON(c, fiber.StatusOK, a.logging.Levels()) }

// mostSeconds is how long a level may be asked for: a year.
const mostSeconds = 365 * 24 * 3600

func (a *api) postLogging(c *fiber.Ctx) error {
	var body struct {
		Logger   string `json:"logger"`
		Level    string `json:"level"`
		Duration *int   `json:"durationSeconds,omitempty"`
	}
	if err := readBody(c, &body); err != nil {
		return err
	}
	seconds := 0
	if body.Duration != nil {
		seconds = *body.Duration
	}
	if seconds < 0 || seconds > mostSeconds {
		return refusal(fiber.StatusUnprocessableEntity, "durationSeconds must lie between 0 and %d", mostSeconds)
	}
	if err := a.logging.SetLevel(body.Logger, body.Level, time.Duration(seconds)*time.Second); err != nil {
		return refusal(fiber.StatusUnprocessableEntity, "%s", err)
	}
	a.log.Info("level of logging set by a request", "logger", body.Logger, "level", body.Level, "seconds", seconds)
	return writeJSON(c, fiber.StatusOK, body)
}
