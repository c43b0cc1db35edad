package api

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// verbosity is how much is logged, in the numbers of Mesos: 0 is what the configuration says, anything above is all there
// is, for a time.
type verbosity struct {
	level *slog.LevelVar // nil where it is fixed
	usual slog.Level

	mu    sync.Mutex
	now   uint32
	timer *time.Timer // leads back; nil while the level is the usual one
}

func newVerbosity(level *slog.LevelVar) *verbosity {
	v := &verbosity{level: level}
	if level != nil {
		v.usual = level.Level()
	}
	return v
}

func (v *verbosity) get() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now
}

// set raises the level for a duration, or lowers it at once.
func (v *verbosity) set(n uint32, d time.Duration) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.level == nil {
		return server.Errorf(fiber.StatusNotImplemented, "The level of logging is fixed")
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

func (a *api) getLoggingLevel(context.Context, *operator.Call) (*operator.Response, error) {
	return &operator.Response{GetLoggingLevel: &operator.Response_GetLoggingLevel{Level: proto.Uint32(a.verbosity.get())}}, nil
}

func (a *api) setLoggingLevel(_ context.Context, call *operator.Call, _ string) error {
	s := call.GetSetLoggingLevel()
	if s.GetDuration().GetNanoseconds() < 0 {
		return server.Errorf(fiber.StatusBadRequest, "Invalid duration: it is negative")
	}
	return a.verbosity.set(s.GetLevel(), time.Duration(s.GetDuration().GetNanoseconds()))
}

// toggle is the older form: without parameters it tells the level.
func (a *api) toggle(c *fiber.Ctx) error {
	level, duration := queryCopy(c, "level"), queryCopy(c, "duration")
	switch {
	case level == "" && duration == "":
		return c.Status(fiber.StatusOK).SendString(strconv.Itoa(int(a.verbosity.get())) + "\n")
	case duration == "":
		return server.Errorf(fiber.StatusBadRequest, "Expecting 'duration=value' in query.")
	case level == "":
		return server.Errorf(fiber.StatusBadRequest, "Expecting 'level=value' in query.")
	}
	n, err := strconv.Atoi(level)
	if err != nil || n < 0 || n > 3 {
		return server.Errorf(fiber.StatusBadRequest, "Invalid level '%s'.", level)
	}
	d, err := parseDuration(duration)
	if err != nil {
		return server.Errorf(fiber.StatusBadRequest, "Invalid duration '%s': %v.", duration, err)
	}
	if err := a.verbosity.set(uint32(n), d); err != nil {
		return err
	}
	return c.Status(fiber.StatusOK).Send(nil)
}
