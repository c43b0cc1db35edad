package api

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/agent"
	"starling/agent/containerizer"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/agent"
	"starling/master/mesos/server"
)

// The operator calls on containers that people and programs launch; calls.go has the table of all.

func (s *Server) launchContainer(ctx context.Context, call *operator.Call) error {
	l := call.GetLaunchContainer()
	return s.agent.LaunchContainer(ctx, agent.ContainerRequest{
		ID: l.GetContainerId(), Command: l.GetCommand(), Container: l.GetContainer(), Resources: l.GetResources(), Limits: l.GetLimits(),
	})
}

// launchNested is the older form, of which a parent is expected.
func (s *Server) launchNested(ctx context.Context, call *operator.Call) error {
	l := call.GetLaunchNestedContainer()
	if l.GetContainerId().GetParent() == nil {
		return server.Errorf(fiber.StatusBadRequest, "Failed to validate agent::Call: Expecting 'launch_nested_container.container_id.parent' to be present")
	}
	return s.agent.LaunchContainer(ctx, agent.ContainerRequest{ID: l.GetContainerId(), Command: l.GetCommand(), Container: l.GetContainer()})
}

func (s *Server) killContainer(ctx context.Context, call *operator.Call) error {
	var id *mesos.ContainerID
	var signal *int32
	if k := call.GetKillNestedContainer(); call.GetType() == operator.Call_KILL_NESTED_CONTAINER {
		id, signal = k.GetContainerId(), k.Signal
	} else {
		id, signal = call.GetKillContainer().GetContainerId(), call.GetKillContainer().Signal
	}
	if signal == nil {
		signal = proto.Int32(int32(syscall.SIGKILL))
	}
	return s.agent.KillContainer(ctx, id, int(*signal))
}

func (s *Server) removeContainer(ctx context.Context, call *operator.Call) error {
	id := call.GetRemoveContainer().GetContainerId()
	if call.GetType() == operator.Call_REMOVE_NESTED_CONTAINER {
		id = call.GetRemoveNestedContainer().GetContainerId()
	}
	return s.agent.RemoveContainer(ctx, id)
}

// waitContainer answers once a container has ended. The head of the answer goes out at once, so that it is seen when the client
// leaves: nobody waits on behalf of nobody.
func (s *Server) waitContainer(c *fiber.Ctx, call *operator.Call, a accepted) error {
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	id := call.GetWaitContainer().GetContainerId()
	older := call.GetType() == operator.Call_WAIT_NESTED_CONTAINER
	if older {
		id = call.GetWaitNestedContainer().GetContainerId()
	}
	end, leave, err := s.agent.AwaitContainer(ctx, id)
	if err != nil {
		return fail(err)
	}
	select {
	case exit := <-end:
		return server.WriteMessage(c, a.codec, waited(exit, older))
	default:
	}
	err = server.Stream(c, a.header(), func(ctx context.Context, w *server.StreamWriter) error {
		defer leave()
		select {
		case exit := <-end:
			body, err := a.codec.Marshal(waited(exit, older))
			if err != nil {
				return err
			}
			_, err = w.Write(body)
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if err != nil {
		leave()
	}
	return err
}

// waited tells how a container has ended.
func waited(exit containerizer.Exit, older bool) *operator.Response {
	w := &operator.Response_WaitContainer{}
	if exit.Known {
		w.ExitStatus = proto.Int32(int32(exit.Status))
	} else {
		w.Message = proto.String("the exit status could not be learned")
	}
	if exit.Message != "" {
		w.Message = proto.String(exit.Message)
	}
	if exit.OOM {
		w.State, w.Reason = mesos.TaskState_TASK_FAILED.Enum(), mesos.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY.Enum()
		w.Message = proto.String("Memory limit exceeded")
		if exit.MemLimit > 0 {
			w.Message = proto.String(fmt.Sprintf("Memory limit exceeded: %d MB were allowed", exit.MemLimit>>20))
			w.Limitation = &mesos.TaskResourceLimitation{Resources: []*mesos.Resource{{
				Name: proto.String("mem"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(float64(exit.MemLimit) / (1 << 20))},
			}}}
		}
	}
	if !older {
		return &operator.Response{Type: operator.Response_WAIT_CONTAINER.Enum(), WaitContainer: w}
	}
	return &operator.Response{Type: operator.Response_WAIT_NESTED_CONTAINER.Enum(), WaitNestedContainer: &operator.Response_WaitNestedContainer{
		ExitStatus: w.ExitStatus, State: w.State, Reason: w.Reason, Limitation: w.Limitation, Message: w.Message,
	}}
}

func (s *Server) pruneImages(ctx context.Context, call *operator.Call) error {
	if s.prune == nil {
		return nil
	}
	return s.prune(ctx, call.GetPruneImages().GetExcludedImages())
}

// getContainers lists the containers that run, with what they use.
func (s *Server) getContainers(ctx context.Context, call *operator.Call) (*operator.Response, error) {
	st, err := s.agent.State(ctx)
	if err != nil {
		return nil, err
	}
	g := call.GetGetContainers()
	out := &operator.Response_GetContainers{}
	for _, r := range s.running(ctx, st, shown{nested: g.GetShowNested(), standalone: g.GetShowStandalone()}) {
		one := &operator.Response_GetContainers_Container{ContainerId: r.id, ContainerStatus: r.status, ResourceStatistics: r.statistics}
		if r.framework != "" {
			one.FrameworkId, one.ExecutorId = &mesos.FrameworkID{Value: &r.framework}, &mesos.ExecutorID{Value: &r.executor}
			one.ExecutorName = &r.name
		}
		out.Containers = append(out.Containers, one)
	}
	return &operator.Response{GetContainers: out}, nil
}

// heartbeatEvery is how often a stream of outputs says that it is alive.
const heartbeatEvery = 30 * time.Second
