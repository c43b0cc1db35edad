package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// The weights of roles, by operator calls and at the older endpoint. Spec: mesos-operator-api.md section A.1,
// mesos-http-endpoints.md section 2.

// weightsOf lists the weights that are set, in order of roles.
func (a *api) weightsOf(ctx context.Context) ([]*mesos.WeightInfo, error) {
	v, err := a.master.View(ctx)
	if err != nil {
		return nil, err
	}
	if v.WeightsFault != nil {
		return nil, v.WeightsFault
	}
	return weightInfos(v), nil
}

func weightInfos(v *master.View) []*mesos.WeightInfo {
	var infos []*mesos.WeightInfo
	for _, role := range slices.Sorted(maps.Keys(v.Weights)) {
		infos = append(infos, &mesos.WeightInfo{Role: proto.String(role), Weight: proto.Float64(v.Weights[role])})
	}
	return infos
}

func (a *api) getWeights(ctx context.Context, _ *operator.Call) (*operator.Response, error) {
	infos, err := a.weightsOf(ctx)
	if err != nil {
		return nil, err
	}
	return &operator.Response{GetWeights: &operator.Response_GetWeights{WeightInfos: infos}}, nil
}

func (a *api) updateWeights(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.UpdateWeights(ctx, call.GetUpdateWeights().GetWeightInfos())
}

// weights serves /weights: GET shows them, PUT changes those that its body lists.
func (a *api) weights(c *fiber.Ctx) error {
	ctx, cancel := a.context(c)
	defer cancel()
	switch c.Method() {
	case fiber.MethodGet, fiber.MethodHead:
		infos, err := a.weightsOf(ctx)
		if err != nil {
			return a.fail(c, err)
		}
		w := newJSON()
		w.array(func() {
			for _, info := range infos {
				w.element()
				w.messageValue(info)
			}
		})
		if w.err != nil {
			return w.err
		}
		return server.WriteJSON(c, w.b)
	case fiber.MethodPut:
		infos, err := readWeights(c.Body())
		if err != nil {
			return err
		}
		if err := a.master.UpdateWeights(ctx, infos); err != nil {
			return a.fail(c, err)
		}
		return c.Status(fiber.StatusOK).Send(nil)
	}
	return notAllowed(c, "GET, PUT")
}

func readWeights(body []byte) ([]*mesos.WeightInfo, error) {
	var elements []json.RawMessage
	err := json.Unmarshal(body, &elements)
	if _, syntax := errors.AsType[*json.SyntaxError](err); syntax {
		return nil, server.Errorf(fiber.StatusBadRequest, "Failed to parse update weights request JSON: %v", err)
	} else if err != nil || elements == nil {
		return nil, server.Errorf(fiber.StatusBadRequest, "Failed to parse update weights request JSON: expecting an array")
	}
	infos := make([]*mesos.WeightInfo, len(elements))
	for i, e := range elements {
		infos[i] = new(mesos.WeightInfo)
		if err := codec.JSONv0.Unmarshal(e, infos[i]); err != nil {
			return nil, server.Errorf(fiber.StatusBadRequest, "Failed to convert update weights request JSON array to weights: %v", err)
		}
	}
	return infos, nil
}

// notAllowed refuses a method, and names those that are served.
func notAllowed(c *fiber.Ctx, allowed string) error {
	c.Set(fiber.HeaderAllow, allowed)
	return fiber.ErrMethodNotAllowed
}
