package api

import (
	"context"
	"errors"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/reflect/protoreflect"

	"starling/agent"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/agent"
	"starling/master/mesos/server"
)

// operatorCall is one row of the specification's table of operator calls: what the call must carry, and one of several ways
// to serve it.
type operatorCall struct {
	// needs is the sub-message that must be present; empty where none is.
	needs protoreflect.Name
	// show answers a call that reads. The type of the response is filled in for it.
	show func(s *Server, ctx context.Context, call *operator.Call) (*operator.Response, error)
	// ofState is show for a call that reads the agent's state alone.
	ofState func(s *Server, st *agent.State) *operator.Response
	// act obeys a call that changes something. It is answered without a body.
	act func(s *Server, ctx context.Context, call *operator.Call) error
	// stream answers for as long as something goes on. Records tells that the answer is a stream of them.
	stream  func(s *Server, c *fiber.Ctx, call *operator.Call, a accepted) error
	records bool
	// refusal is the reason for what this agent does not have.
	refusal string
}

const noProviders = "Resource providers are not supported by this agent"

// operatorCalls has a row for every call. Spec: mesos-operator-api.md section B.1.
var operatorCalls = map[operator.Call_Type]operatorCall{
	operator.Call_UNKNOWN:                {},
	operator.Call_GET_HEALTH:             {show: (*Server).getHealth},
	operator.Call_GET_FLAGS:              {show: (*Server).getFlags},
	operator.Call_GET_VERSION:            {show: (*Server).getVersion},
	operator.Call_GET_METRICS:            {needs: "get_metrics", show: (*Server).getMetrics},
	operator.Call_GET_LOGGING_LEVEL:      {show: (*Server).getLoggingLevel},
	operator.Call_SET_LOGGING_LEVEL:      {needs: "set_logging_level", act: (*Server).setLoggingLevel},
	operator.Call_LIST_FILES:             {needs: "list_files", show: (*Server).getFileList},
	operator.Call_READ_FILE:              {needs: "read_file", show: (*Server).getFile},
	operator.Call_GET_STATE:              {ofState: (*Server).getState},
	operator.Call_GET_CONTAINERS:         {show: (*Server).getContainers},
	operator.Call_GET_FRAMEWORKS:         {ofState: (*Server).getFrameworks},
	operator.Call_GET_EXECUTORS:          {ofState: (*Server).getExecutors},
	operator.Call_GET_OPERATIONS:         {ofState: (*Server).getOperations},
	operator.Call_GET_TASKS:              {ofState: (*Server).getTasks},
	operator.Call_GET_AGENT:              {ofState: (*Server).getAgent},
	operator.Call_GET_RESOURCE_PROVIDERS: {ofState: (*Server).getResourceProviders},

	operator.Call_LAUNCH_NESTED_CONTAINER: {needs: "launch_nested_container", act: (*Server).launchNested},
	operator.Call_WAIT_NESTED_CONTAINER:   {needs: "wait_nested_container", stream: (*Server).waitContainer},
	operator.Call_KILL_NESTED_CONTAINER:   {needs: "kill_nested_container", act: (*Server).killContainer},
	operator.Call_REMOVE_NESTED_CONTAINER: {needs: "remove_nested_container", act: (*Server).removeContainer},
	operator.Call_LAUNCH_CONTAINER:        {needs: "launch_container", act: (*Server).launchContainer},
	operator.Call_WAIT_CONTAINER:          {needs: "wait_container", stream: (*Server).waitContainer},
	operator.Call_KILL_CONTAINER:          {needs: "kill_container", act: (*Server).killContainer},
	operator.Call_REMOVE_CONTAINER:        {needs: "remove_container", act: (*Server).removeContainer},

	operator.Call_LAUNCH_NESTED_CONTAINER_SESSION: {needs: "launch_nested_container_session", stream: (*Server).launchSession, records: true},
	operator.Call_ATTACH_CONTAINER_OUTPUT:         {needs: "attach_container_output", stream: (*Server).attachOutput, records: true},
	// Its requests are streams and take another way, see attachInput: one that gets here is none.
	operator.Call_ATTACH_CONTAINER_INPUT: {needs: "attach_container_input"},

	operator.Call_PRUNE_IMAGES: {act: (*Server).pruneImages},

	operator.Call_ADD_RESOURCE_PROVIDER_CONFIG:    {needs: "add_resource_provider_config", refusal: noProviders},
	operator.Call_UPDATE_RESOURCE_PROVIDER_CONFIG: {needs: "update_resource_provider_config", refusal: noProviders},
	operator.Call_REMOVE_RESOURCE_PROVIDER_CONFIG: {needs: "remove_resource_provider_config", refusal: noProviders},
	operator.Call_MARK_RESOURCE_PROVIDER_GONE:     {needs: "mark_resource_provider_gone", refusal: noProviders},
}

// operator serves the v1 operator API.
func (s *Server) operator(c *fiber.Ctx) error {
	if err := s.ready(); err != nil {
		return err
	}
	if streamed(&c.Request().Header) && c.Method() == fiber.MethodPost {
		return s.attachInput(c)
	}
	call := new(operator.Call)
	if _, err := server.ReadCall(c, call); err != nil {
		return err
	}
	if c.Get(headerMessageContentType) != "" {
		return server.Errorf(fiber.StatusUnsupportedMediaType, "Expecting 'Content-Type' to be %s when '%s' is set", codec.TypeRecordIO, headerMessageContentType)
	}
	if err := validateOperator(call); err != nil {
		return err
	}
	row := operatorCalls[call.GetType()]
	a, err := accept(c, row.records)
	if err != nil {
		return err
	}
	if row.stream != nil {
		return row.stream(s, c, call, a)
	}
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	switch {
	case row.show != nil, row.ofState != nil:
		answer, err := s.answer(ctx, row, call)
		if err != nil {
			return fail(err)
		}
		// The names of the two enums are the same, the numbers are not.
		answer.Type = operator.Response_Type(operator.Response_Type_value[call.GetType().String()]).Enum()
		return server.WriteMessage(c, a.codec, answer)
	case row.act != nil:
		if err := row.act(s, ctx, call); errors.Is(err, agent.ErrContainerExists) {
			return server.Accepted(c)
		} else if err != nil {
			return fail(err)
		}
		return c.Status(fiber.StatusOK).Send(nil)
	case row.refusal != "":
		return server.Errorf(fiber.StatusBadRequest, "%s", row.refusal)
	case call.GetType() == operator.Call_ATTACH_CONTAINER_INPUT:
		return server.Errorf(fiber.StatusUnsupportedMediaType, "Expecting 'Content-Type' of %s for ATTACH_CONTAINER_INPUT", codec.TypeRecordIO)
	}
	return server.Errorf(fiber.StatusNotImplemented, "501 Not Implemented.")
}

func (s *Server) answer(ctx context.Context, row operatorCall, call *operator.Call) (*operator.Response, error) {
	if row.show != nil {
		return row.show(s, ctx, call)
	}
	st, err := s.agent.State(ctx)
	if err != nil {
		return nil, err
	}
	return row.ofState(s, st), nil
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
	if !m.Has(m.Descriptor().Fields().ByName(row.needs)) {
		return missing("'" + string(row.needs) + "' to be present")
	}
	return nil
}

func missing(what string) error {
	return server.Errorf(fiber.StatusBadRequest, "Failed to validate agent::Call: Expecting %s", what)
}

// fail turns an error of the agent into an answer.
func fail(err error) error {
	if refusal, ok := errors.AsType[*agent.ContainerError](err); ok {
		return server.Errorf(fiber.StatusBadRequest, "%s", refusal.Text)
	}
	switch {
	case errors.Is(err, agent.ErrContainerUnknown):
		return server.Errorf(fiber.StatusNotFound, "Container cannot be found")
	case errors.Is(err, agent.ErrContainerRunning):
		return server.Errorf(fiber.StatusInternalServerError, "Container has not ended yet")
	case errors.Is(err, agent.ErrInputTaken):
		return server.Errorf(fiber.StatusConflict, "Multiple input connections are not allowed: %v", err)
	case errors.Is(err, agent.ErrTooMany):
		return server.Errorf(fiber.StatusServiceUnavailable, "%v", err)
	case errors.Is(err, agent.ErrStopped), errors.Is(err, context.DeadlineExceeded), errors.Is(err, server.ErrStopping):
		return unavailable(err)
	}
	return err
}
