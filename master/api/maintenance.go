package api

import (
	"context"
	"encoding/json"

	"github.com/gofiber/fiber/v2"

	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/maintenance"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// The maintenance of machines, by operator calls and at the older endpoints. Spec: mesos-operator-api.md section A.1,
// mesos-http-endpoints.md section 2.

func (a *api) getMaintenanceStatus(ctx context.Context, _ *operator.Call) (*operator.Response, error) {
	status, err := a.master.MaintenanceStatus(ctx)
	if err != nil {
		return nil, err
	}
	return &operator.Response{GetMaintenanceStatus: &operator.Response_GetMaintenanceStatus{Status: status}}, nil
}

func (a *api) getMaintenanceSchedule(ctx context.Context, _ *operator.Call) (*operator.Response, error) {
	schedule, err := a.master.MaintenanceSchedule(ctx)
	if err != nil {
		return nil, err
	}
	return &operator.Response{GetMaintenanceSchedule: &operator.Response_GetMaintenanceSchedule{Schedule: schedule}}, nil
}

func (a *api) updateMaintenance(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.UpdateMaintenance(ctx, call.GetUpdateMaintenanceSchedule().GetSchedule())
}

func (a *api) startMaintenance(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.StartMaintenance(ctx, call.GetStartMaintenance().GetMachines())
}

func (a *api) stopMaintenance(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.StopMaintenance(ctx, call.GetStopMaintenance().GetMachines())
}

// maintenanceSchedule serves /maintenance/schedule: GET shows it, POST replaces it.
func (a *api) maintenanceSchedule(c *fiber.Ctx) error {
	ctx, cancel := a.context(c)
	defer cancel()
	switch c.Method() {
	case fiber.MethodGet, fiber.MethodHead:
		schedule, err := a.master.MaintenanceSchedule(ctx)
		if err != nil {
			return a.fail(c, err)
		}
		body, err := codec.JSONv0.Marshal(schedule)
		if err != nil {
			return err
		}
		return server.WriteJSON(c, body)
	case fiber.MethodPost:
		schedule := new(maintenance.Schedule)
		if err := codec.JSONv0.Unmarshal(c.Body(), schedule); err != nil {
			return server.Errorf(fiber.StatusBadRequest, "Failed to parse the maintenance schedule: %v", err)
		}
		if err := a.master.UpdateMaintenance(ctx, schedule); err != nil {
			return a.fail(c, err)
		}
		return c.Status(fiber.StatusOK).Send(nil)
	}
	return notAllowed(c, "GET, POST")
}

// maintenanceStatus serves /maintenance/status.
func (a *api) maintenanceStatus(c *fiber.Ctx) error {
	if c.Method() != fiber.MethodGet && c.Method() != fiber.MethodHead {
		return notAllowed(c, "GET")
	}
	ctx, cancel := a.context(c)
	defer cancel()
	status, err := a.master.MaintenanceStatus(ctx)
	if err != nil {
		return a.fail(c, err)
	}
	body, err := codec.JSONv0.Marshal(status)
	if err != nil {
		return err
	}
	return server.WriteJSON(c, body)
}

// machines serves /machine/down and /machine/up: POST turns the machines that the body lists.
func (a *api) machines(turn func(context.Context, []*mesos.MachineID) error) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if c.Method() != fiber.MethodPost {
			return notAllowed(c, "POST")
		}
		var elements []json.RawMessage
		if err := json.Unmarshal(c.Body(), &elements); err != nil {
			return server.Errorf(fiber.StatusBadRequest, "Failed to parse the list of machines: it is no JSON array")
		}
		ids := make([]*mesos.MachineID, len(elements))
		for i, e := range elements {
			ids[i] = new(mesos.MachineID)
			if err := codec.JSONv0.Unmarshal(e, ids[i]); err != nil {
				return server.Errorf(fiber.StatusBadRequest, "Failed to parse the list of machines: %v", err)
			}
		}
		ctx, cancel := a.context(c)
		defer cancel()
		if err := turn(ctx, ids); err != nil {
			return a.fail(c, err)
		}
		return c.Status(fiber.StatusOK).Send(nil)
	}
}
