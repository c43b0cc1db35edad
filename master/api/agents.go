package api

import (
	"context"
	"time"

	"github.com/gofiber/fiber/v2"

	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// The operator calls about one agent. Spec: mesos-operator-api.md section A.1.

func (a *api) drainAgent(ctx context.Context, call *operator.Call, _ string) error {
	drain := call.GetDrainAgent()
	var longest *time.Duration
	if d := drain.GetMaxGracePeriod(); d != nil {
		if err := d.CheckValid(); err != nil {
			return server.Errorf(fiber.StatusBadRequest, "Failed to validate master::Call: 'max_grace_period' is invalid: %d seconds and %d nanoseconds", d.GetSeconds(), d.GetNanos())
		}
		longest = new(d.AsDuration())
	}
	return a.master.DrainAgent(ctx, drain.GetAgentId().GetValue(), longest, drain.GetMarkGone())
}

func (a *api) deactivateAgent(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.DeactivateAgent(ctx, call.GetDeactivateAgent().GetAgentId().GetValue())
}

func (a *api) reactivateAgent(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.ReactivateAgent(ctx, call.GetReactivateAgent().GetAgentId().GetValue())
}

func (a *api) markAgentGone(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.MarkAgentGone(ctx, call.GetMarkAgentGone().GetAgentId().GetValue())
}
