package api

import (
	"context"
	"errors"

	"github.com/gofiber/fiber/v2"

	"starling/agent"
	"starling/agent/executor"
	protocol "starling/master/mesos/executor"
	"starling/master/mesos/server"
)

// pathExecutor is the v1 executor API.
const pathExecutor = "/api/v1/executor"

// executor serves the v1 executor API. Spec: mesos-executor-api.md section 1, which has the order of checks.
func (s *Server) executor(c *fiber.Ctx) error {
	if err := s.ready(); err != nil {
		return err
	}
	call := new(protocol.Call)
	if _, err := server.ReadCall(c, call); err != nil {
		return err
	}
	if err := executor.CheckCall(call); err != nil {
		return server.Errorf(fiber.StatusBadRequest, "Failed to validate Executor::Call: %v", err)
	}
	switch call.GetType() {
	case protocol.Call_SUBSCRIBE:
		return s.subscribe(c, call)
	case protocol.Call_HEARTBEAT:
		return server.Accepted(c)
	case protocol.Call_UPDATE, protocol.Call_MESSAGE:
	case protocol.Call_UNKNOWN:
		return server.Errorf(fiber.StatusNotImplemented, "Received 'UNKNOWN' call")
	default:
		return server.Errorf(fiber.StatusNotImplemented, "Received a call of an unknown type")
	}
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	if err := s.agent.ExecutorCall(ctx, call); err != nil {
		return executorRefused(err)
	}
	return server.Accepted(c)
}

// subscribe opens the stream of an executor, which lasts until one side ends it.
func (s *Server) subscribe(c *fiber.Ctx, call *protocol.Call) error {
	cd, err := server.AcceptCodec(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	stream, err := s.agent.SubscribeExecutor(ctx, call)
	if err != nil {
		return executorRefused(err)
	}
	return server.StreamEvents(c, nil, cd, stream)
}

// executorRefused is the answer to a call that nothing came of.
func executorRefused(err error) error {
	switch {
	case errors.Is(err, agent.ErrUnknownFramework), errors.Is(err, agent.ErrUnknownExecutor):
		return server.Errorf(fiber.StatusBadRequest, "%v", err)
	case errors.Is(err, agent.ErrNotSubscribed):
		return server.Errorf(fiber.StatusForbidden, "%v", err)
	case errors.Is(err, agent.ErrBusy):
		return server.Errorf(fiber.StatusServiceUnavailable, "%v", err)
	}
	return unavailable(err)
}
