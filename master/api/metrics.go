package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// measure returns the numbers. What is not there within a timeout that the client named is left out; 0 is no timeout.
func (a *api) measure(ctx context.Context, timeout time.Duration) (map[string]float64, error) {
	if timeout <= 0 {
		return a.master.Metrics(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	values, err := a.master.Metrics(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return values, err
}

func (a *api) metrics(c *fiber.Ctx) error {
	ctx, cancel := a.context(c)
	defer cancel()
	var timeout time.Duration
	if text := queryCopy(c, "timeout"); text != "" {
		var err error
		if timeout, err = parseDuration(text); err != nil {
			return server.Errorf(fiber.StatusBadRequest, "Invalid timeout '%s': %v", text, err)
		}
	}
	values, err := a.measure(ctx, timeout)
	if err != nil {
		return a.fail(c, err)
	}
	w := newJSON()
	w.object(func() {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			w.float(name, values[name])
		}
	})
	return server.WriteJSON(c, w.b)
}

func (a *api) getMetrics(ctx context.Context, call *operator.Call) (*operator.Response, error) {
	values, err := a.measure(ctx, time.Duration(call.GetGetMetrics().GetTimeout().GetNanoseconds()))
	if err != nil {
		return nil, err
	}
	list := &operator.Response_GetMetrics{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		list.Metrics = append(list.Metrics, &mesos.Metric{Name: proto.String(name), Value: proto.Float64(values[name])})
	}
	return &operator.Response{GetMetrics: list}, nil
}

// systemStats shows the machine, by the names that this endpoint has had since before there were metrics.
func (a *api) systemStats(c *fiber.Ctx) error {
	values := master.SystemMetrics()
	w := newJSON()
	w.object(func() {
		w.float("avg_load_1min", values["system/load_1min"])
		w.float("avg_load_5min", values["system/load_5min"])
		w.float("avg_load_15min", values["system/load_15min"])
		w.int("cpus_total", int(values["system/cpus_total"]))
		w.int("mem_total_bytes", int(values["system/mem_total_bytes"]))
		w.int("mem_free_bytes", int(values["system/mem_free_bytes"]))
	})
	return server.WriteJSON(c, w.b)
}

// units are those of Mesos' durations.
var units = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "ms": time.Millisecond, "secs": time.Second, "mins": time.Minute,
	"hrs": time.Hour, "days": 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
}

// parseDuration reads a duration as Mesos writes it, such as "1.5secs".
func parseDuration(text string) (time.Duration, error) {
	digits := strings.TrimLeft(text, "-.0123456789")
	unit, known := units[digits]
	if !known {
		return 0, errors.New("expecting a number and one of ns, us, ms, secs, mins, hrs, days, weeks")
	}
	n, err := strconv.ParseFloat(text[:len(text)-len(digits)], 64)
	if err != nil {
		return 0, errors.New("expecting a number before the unit")
	}
	if d := n * float64(unit); d >= 0 && d < 1<<62 {
		return time.Duration(d), nil
	}
	return 0, errors.New("it is out of range")
}
