package api

import (
	"context"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/reflect/protoreflect"

	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// operatorCall is one row of the specification's table of operator calls: what the call must carry, and one of three ways
// to serve it.
type operatorCall struct {
	// needs is the sub-message that must be present; empty where none is. of is a field that this must have in turn, and
	// is checked here because the definition calls it optional.
	needs, of protoreflect.Name
	// show answers a call that reads. The type of the response is filled in for it.
	show func(a *api, ctx context.Context, call *operator.Call) (*operator.Response, error)
	// act obeys a call that changes something. It is answered without a body: 200, or 202 where the work goes on
	// afterwards (later). principal is the authenticated one, empty without authentication.
	act   func(a *api, ctx context.Context, call *operator.Call, principal string) error
	later bool
	// stream answers with events.
	stream func(a *api, c *fiber.Ctx, cd codec.Codec) error
}

// operatorCalls has a row for every call. Spec: mesos-operator-api.md section A.1.
var operatorCalls = map[operator.Call_Type]operatorCall{
	operator.Call_UNKNOWN:           {},
	operator.Call_GET_HEALTH:        {show: (*api).getHealth},
	operator.Call_GET_FLAGS:         {show: (*api).getFlags},
	operator.Call_GET_VERSION:       {show: (*api).getVersion},
	operator.Call_GET_METRICS:       {needs: "get_metrics", show: (*api).getMetrics},
	operator.Call_GET_LOGGING_LEVEL: {show: (*api).getLoggingLevel},
	operator.Call_SET_LOGGING_LEVEL: {needs: "set_logging_level", act: (*api).setLoggingLevel},
	operator.Call_LIST_FILES:        {needs: "list_files", show: (*api).listFiles},
	operator.Call_READ_FILE:         {needs: "read_file", show: (*api).readFile},
	operator.Call_GET_STATE:         {show: ofView(getState)},
	operator.Call_GET_AGENTS:        {show: ofView(getAgents)},
	operator.Call_GET_FRAMEWORKS:    {show: ofView(getFrameworks)},
	operator.Call_GET_EXECUTORS:     {show: ofView(getExecutors)},
	operator.Call_GET_OPERATIONS:    {show: ofView(getOperations)},
	operator.Call_GET_TASKS:         {show: ofView(getTasks)},
	operator.Call_GET_ROLES:         {show: ofView(getRoles)},
	operator.Call_GET_WEIGHTS:       {show: (*api).getWeights},
	operator.Call_UPDATE_WEIGHTS:    {needs: "update_weights", act: (*api).updateWeights},
	operator.Call_GET_MASTER:        {show: ofView(getMaster)},
	operator.Call_SUBSCRIBE:         {stream: (*api).watch},

	operator.Call_RESERVE_RESOURCES:   {needs: "reserve_resources", act: (*api).operate, later: true},
	operator.Call_UNRESERVE_RESOURCES: {needs: "unreserve_resources", act: (*api).operate, later: true},
	operator.Call_CREATE_VOLUMES:      {needs: "create_volumes", act: (*api).operate, later: true},
	operator.Call_DESTROY_VOLUMES:     {needs: "destroy_volumes", act: (*api).operate, later: true},
	operator.Call_GROW_VOLUME:         {needs: "grow_volume", of: "agent_id", act: (*api).operate, later: true},
	operator.Call_SHRINK_VOLUME:       {needs: "shrink_volume", of: "agent_id", act: (*api).operate, later: true},

	operator.Call_GET_MAINTENANCE_STATUS:      {show: (*api).getMaintenanceStatus},
	operator.Call_GET_MAINTENANCE_SCHEDULE:    {show: (*api).getMaintenanceSchedule},
	operator.Call_UPDATE_MAINTENANCE_SCHEDULE: {needs: "update_maintenance_schedule", act: (*api).updateMaintenance},
	operator.Call_START_MAINTENANCE:           {needs: "start_maintenance", act: (*api).startMaintenance},
	operator.Call_STOP_MAINTENANCE:            {needs: "stop_maintenance", act: (*api).stopMaintenance},

	operator.Call_DRAIN_AGENT:      {needs: "drain_agent", act: (*api).drainAgent},
	operator.Call_DEACTIVATE_AGENT: {needs: "deactivate_agent", act: (*api).deactivateAgent},
	operator.Call_REACTIVATE_AGENT: {needs: "reactivate_agent", act: (*api).reactivateAgent},
	operator.Call_MARK_AGENT_GONE:  {needs: "mark_agent_gone", act: (*api).markAgentGone},

	operator.Call_GET_QUOTA:    {show: (*api).getQuota},
	operator.Call_UPDATE_QUOTA: {needs: "update_quota", act: (*api).updateQuota},
	operator.Call_SET_QUOTA:    {needs: "set_quota", act: (*api).setQuota},
	operator.Call_REMOVE_QUOTA: {needs: "remove_quota", act: (*api).removeQuota},

	operator.Call_TEARDOWN: {needs: "teardown", act: (*api).tearDown},
}

// operator serves the v1 operator API.
func (a *api) operator(c *fiber.Ctx) error {
	call := new(operator.Call)
	if _, err := server.ReadCall(c, call); err != nil {
		return err
	}
	if err := validateOperator(call); err != nil {
		return err
	}
	cd, err := server.AcceptCodec(c)
	if err != nil {
		return err
	}
	ctx, cancel := a.context(c)
	defer cancel()
	row := operatorCalls[call.GetType()]
	switch {
	case row.show != nil:
		answer, err := row.show(a, ctx, call)
		if err != nil {
			return a.fail(c, err)
		}
		// The names of the two enums are the same, the numbers are not.
		answer.Type = operator.Response_Type(operator.Response_Type_value[call.GetType().String()]).Enum()
		return server.WriteMessage(c, cd, answer)
	case row.act != nil:
		if err := row.act(a, ctx, call, ""); err != nil {
			return a.fail(c, err)
		}
		if row.later {
			return server.Accepted(c)
		}
		return c.Status(fiber.StatusOK).Send(nil)
	case row.stream != nil:
		return row.stream(a, c, cd)
	}
	return server.Errorf(fiber.StatusNotImplemented, "501 Not Implemented.")
}

// validateOperator checks that a call carries what its row asks for.
func validateOperator(call *operator.Call) error {
	row, known := operatorCalls[call.GetType()]
	if call.Type == nil || !known {
		// A number that has no name counts as absent, as it does for readers that keep to the definition.
		return missing("'type' to be present")
	}
	if row.needs == "" {
		return nil
	}
	m := call.ProtoReflect()
	field := m.Descriptor().Fields().ByName(row.needs)
	if !m.Has(field) {
		return missing("'" + string(row.needs) + "' to be present")
	}
	if row.of == "" {
		return nil
	}
	sub := m.Get(field).Message()
	if !sub.Has(sub.Descriptor().Fields().ByName(row.of)) {
		return missing("'" + string(row.of) + "' to be present; only agent default resources are supported right now")
	}
	return nil
}

func missing(what string) error {
	return server.Errorf(fiber.StatusBadRequest, "Failed to validate master::Call: Expecting %s", what)
}
