package api

import (
	"net/netip"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"

	"starling/master/mesos/scheduler"
	"starling/master/mesos/server"
	"starling/master/validation"
)

// headerStream ties calls to the subscription that they belong to.
const headerStream = "Mesos-Stream-Id"

// scheduler serves the v1 scheduler API. Spec: mesos-api.md section 2 for the order of checks, mesos-scheduler-api.md.
func (a *api) scheduler(c *fiber.Ctx) error {
	call := new(scheduler.Call)
	if _, err := server.ReadCall(c, call); err != nil {
		return err
	}
	if err := validation.Call(call); err != nil {
		return server.Errorf(fiber.StatusBadRequest, "Failed to validate scheduler::Call: %v", err)
	}
	if call.GetType() == scheduler.Call_SUBSCRIBE {
		return a.subscribe(c, call)
	}
	ctx, cancel := a.context(c)
	defer cancel()
	if err := a.master.Call(ctx, call, utils.CopyString(c.Get(headerStream)), ""); err != nil {
		return a.fail(c, err)
	}
	if call.GetType() == scheduler.Call_UPDATE_FRAMEWORK {
		return c.Status(fiber.StatusOK).Send(nil)
	}
	return server.Accepted(c)
}

// subscribe opens an event stream, which lasts until one side ends it.
func (a *api) subscribe(c *fiber.Ctx, call *scheduler.Call) error {
	cd, err := server.AcceptCodec(c)
	if err != nil {
		return err
	}
	if c.Get(headerStream) != "" {
		return server.Errorf(fiber.StatusBadRequest, "Subscribe calls should not include the 'Mesos-Stream-Id' header")
	}
	ctx, cancel := a.context(c)
	defer cancel()
	peer, _ := netip.AddrFromSlice(c.Context().RemoteIP())
	stream, err := a.master.Subscribe(ctx, call, "", peer)
	if err != nil {
		return a.fail(c, err)
	}
	return server.StreamEvents(c, map[string]string{headerStream: stream.ID()}, cd, stream)
}
