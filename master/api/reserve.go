package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// operation is what an operator's call asks an agent to do.
func operation(call *operator.Call) (agent *mesos.AgentID, op *mesos.Offer_Operation) {
	switch call.GetType() {
	case operator.Call_RESERVE_RESOURCES:
		c := call.GetReserveResources()
		return c.GetAgentId(), reserve(c.GetSource(), c.GetResources())
	case operator.Call_UNRESERVE_RESOURCES:
		c := call.GetUnreserveResources()
		return c.GetAgentId(), unreserve(c.GetResources())
	case operator.Call_CREATE_VOLUMES:
		c := call.GetCreateVolumes()
		return c.GetAgentId(), createVolumes(c.GetVolumes())
	case operator.Call_DESTROY_VOLUMES:
		c := call.GetDestroyVolumes()
		return c.GetAgentId(), destroyVolumes(c.GetVolumes())
	case operator.Call_GROW_VOLUME:
		c := call.GetGrowVolume()
		return c.GetAgentId(), &mesos.Offer_Operation{
			Type:       mesos.Offer_Operation_GROW_VOLUME.Enum(),
			GrowVolume: &mesos.Offer_Operation_GrowVolume{Volume: c.GetVolume(), Addition: c.GetAddition()},
		}
	default: // the table names no other
		c := call.GetShrinkVolume()
		return c.GetAgentId(), &mesos.Offer_Operation{
			Type:         mesos.Offer_Operation_SHRINK_VOLUME.Enum(),
			ShrinkVolume: &mesos.Offer_Operation_ShrinkVolume{Volume: c.GetVolume(), Subtract: c.GetSubtract()},
		}
	}
}

func reserve(source, rs []*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{
		Type:    mesos.Offer_Operation_RESERVE.Enum(),
		Reserve: &mesos.Offer_Operation_Reserve{Source: source, Resources: rs},
	}
}

func unreserve(rs []*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: rs},
	}
}

func createVolumes(rs []*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: rs},
	}
}

func destroyVolumes(rs []*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: rs},
	}
}

// operate serves the operator calls on reservations and volumes.
func (a *api) operate(ctx context.Context, call *operator.Call, principal string) error {
	agent, op := operation(call)
	return a.master.Operate(ctx, agent.GetValue(), op, principal)
}

// operateForm serves the older form of such a call: resources are in the field of that name.
func (a *api) operateForm(field string, op func(form *resourceForm) *mesos.Offer_Operation) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if c.Method() != fiber.MethodPost {
			return notAllowed(c, fiber.MethodPost)
		}
		values, err := url.ParseQuery(string(c.Body()))
		if err != nil {
			return server.Errorf(fiber.StatusBadRequest, "Unable to decode query string: %v", err)
		}
		form := &resourceForm{agent: values.Get("slaveId")}
		if form.agent == "" {
			return server.Errorf(fiber.StatusBadRequest, "Missing 'slaveId' query parameter in the request body")
		}
		if values.Get(field) == "" {
			return server.Errorf(fiber.StatusBadRequest, "Missing '%s' query parameter in the request body", field)
		}
		if form.resources, err = resourceList(field, values.Get(field)); err != nil {
			return err
		}
		if source := values.Get("source"); source != "" {
			if form.source, err = resourceList("source", source); err != nil {
				return err
			}
		}
		ctx, cancel := a.context(c)
		defer cancel()
		if err := a.master.Operate(ctx, form.agent, op(form), ""); err != nil {
			return a.fail(c, err)
		}
		return server.Accepted(c)
	}
}

// resourceForm is the body of an older call.
type resourceForm struct {
	agent             string
	source, resources []*mesos.Resource
}

// resourceList reads a JSON array of resources.
func resourceList(field, text string) ([]*mesos.Resource, error) {
	array := bytes.TrimSpace([]byte(text))
	if !json.Valid(array) || array[0] != '[' {
		return nil, server.Errorf(fiber.StatusBadRequest, "Error in parsing '%s' query parameter in the request body: it is no JSON array", field)
	}
	// As the one field of a message, since messages are what the codec reads.
	list := new(mesos.Offer_Operation_Unreserve)
	body := append(append([]byte(`{"resources":`), array...), '}')
	if err := codec.JSON.Unmarshal(body, list); err != nil {
		return nil, server.Errorf(fiber.StatusBadRequest, "Error in parsing '%s' query parameter in the request body: %v", field, err)
	}
	if err := proto.CheckInitialized(list); err != nil {
		return nil, server.Errorf(fiber.StatusBadRequest, "Error in parsing '%s' query parameter in the request body: %v", field, err)
	}
	return list.GetResources(), nil
}

// mountReservations adds the older endpoints for reservations and volumes.
func (a *api) mountReservations(app *fiber.App) {
	app.All("/reserve", a.leader(a.operateForm("resources", func(f *resourceForm) *mesos.Offer_Operation {
		return reserve(f.source, f.resources)
	})))
	app.All("/unreserve", a.leader(a.operateForm("resources", func(f *resourceForm) *mesos.Offer_Operation {
		return unreserve(f.resources)
	})))
	app.All("/create-volumes", a.leader(a.operateForm("volumes", func(f *resourceForm) *mesos.Offer_Operation {
		return createVolumes(f.resources)
	})))
	app.All("/destroy-volumes", a.leader(a.operateForm("volumes", func(f *resourceForm) *mesos.Offer_Operation {
		return destroyVolumes(f.resources)
	})))
}
