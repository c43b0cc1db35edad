package server

import (
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
)

// Verbosity is how much is logged, in the numbers of Mesos: 0 is what the configuration says, anything above is all there
// is, for a time.
type Verbosity struct {
	level *slog.LevelVar // nil where it is fixed
	usual slog.Level

	mu    sync.Mutex
	now   uint32
	timer *time.Timer // leads back; nil while the level is the usual one
}

// NewVerbosity returns the verbosity of a log; nil fixes the level.
func NewVerbosity(level *slog.LevelVar) *Verbosity {
	v := &Verbosity{level: level}
	if level != nil {
		v.usual = level.Level()
	}
	return v
}

// Get returns the number that holds now.
func (v *Verbosity) Get() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now
}

// Set raises the level for a duration, or lowers it at once. The error is one for the client: 501 where the level is fixed.
func (v *Verbosity) Set(n uint32, d time.Duration) error {
	if d < 0 {
		return Errorf(fiber.StatusBadRequest, "Invalid duration: it is negative")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.level == nil {
		return Errorf(fiber.StatusNotImplemented, "The level of logging is fixed")
	}
	if v.timer != nil {
		v.timer.Stop()
		v.timer = nil
	}
	v.now = n
	if n == 0 {
		v.level.Set(v.usual)
		return nil
	}
	v.level.Set(min(v.usual, slog.LevelDebug))
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.timer == timer {
			v.now, v.timer = 0, nil
			v.level.Set(v.usual)
		}
	})
	v.timer = timer
	return nil
}

// Toggle is the endpoint /logging/toggle: without parameters it tells the level.
func (v *Verbosity) Toggle(c *fiber.Ctx) error {
	level, duration := c.Query("level"), c.Query("duration")
	switch {
	case level == "" && duration == "":
		return c.Status(fiber.StatusOK).SendString(strconv.Itoa(int(v.Get())) + "\n")
	case duration == "":
		return Errorf(fiber.StatusBadRequest, "Expecting 'duration=value' in query.")
	case level == "":
		return Errorf(fiber.StatusBadRequest, "Expecting 'level=value' in query.")
	}
	n, err := strconv.Atoi(level)
	if err != nil || n < 0 || n > 3 {
		return Errorf(fiber.StatusBadRequest, "Invalid level '%s'.", level)
	}
	d, err := ParseDuration(duration)
	if err != nil {
		return Errorf(fiber.StatusBadRequest, "Invalid duration '%s': %v.", duration, err)
	}
	if err := v.Set(uint32(n), d); err != nil {
		return err
	}
	return c.Status(fiber.StatusOK).Send(nil)
}
