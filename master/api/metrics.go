package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

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
		if timeout, err = server.ParseDuration(text); err != nil {
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
