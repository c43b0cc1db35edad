package api

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/agent"
	"starling/master/mesos"
	"starling/master/mesos/server"
)

type containerView struct {
	ContainerID  string          `json:"container_id,omitempty"`
	FrameworkID  string          `json:"framework_id"`
	ExecutorID   string          `json:"executor_id"`
	ExecutorName string          `json:"executor_name"`
	Source       string          `json:"source"`
	Status       json.RawMessage `json:"status,omitempty"`
	Statistics   json.RawMessage `json:"statistics,omitempty"`
}

// containers lists what runs; the query may name a container, a framework or an executor.
func (s *Server) containers(c *fiber.Ctx, st *agent.State) error {
	out := s.running(c, st, func(f *mesos.FrameworkInfo, e agent.ExecutorState) bool {
		is := func(param, value string) bool { want := c.Query(param); return want == "" || want == value }
		return is("container_id", e.ContainerID) && is("framework_id", f.GetId().GetValue()) && is("executor_id", e.ID)
	})
	return write(c, out)
}

// statistics lists the executors of which there are statistics.
func (s *Server) statistics(c *fiber.Ctx, st *agent.State) error {
	out := []containerView{}
	for _, v := range s.running(c, st, func(*mesos.FrameworkInfo, agent.ExecutorState) bool { return true }) {
		if v.Statistics != nil {
			v.ContainerID, v.Status = "", nil
			out = append(out, v)
		}
	}
	return write(c, out)
}

// usageTimeout bounds how long statistics may take; what is not measured by then is left out.
const usageTimeout = 5 * time.Second

// running collects the running executors that keep wants, with what they use, measured side by side.
func (s *Server) running(c *fiber.Ctx, st *agent.State, keep func(*mesos.FrameworkInfo, agent.ExecutorState) bool) []containerView {
	ctx, cancel := context.WithTimeout(server.Context(c), usageTimeout)
	defer cancel()
	out := []containerView{}
	var executors []agent.ExecutorState
	for _, f := range st.Frameworks {
		for _, e := range f.Executors {
			if !e.Running || !keep(f.Info, e) {
				continue
			}
			v := containerView{
				ContainerID: e.ContainerID, FrameworkID: f.Info.GetId().GetValue(), ExecutorID: e.ID, ExecutorName: e.Name, Source: e.Source,
			}
			if n := len(e.Task.GetStatuses()); n > 0 {
				v.Status = message(e.Task.GetStatuses()[n-1].GetContainerStatus())
			}
			out, executors = append(out, v), append(executors, e)
		}
	}
	var measuring sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range out {
		measuring.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i].Statistics = s.usage(ctx, executors[i])
		})
	}
	measuring.Wait()
	return out
}

func (s *Server) usage(ctx context.Context, e agent.ExecutorState) json.RawMessage {
	u, err := s.cfg.Containerizer.Usage(ctx, e.ContainerID)
	if err != nil {
		// It may have ended meanwhile.
		s.log.Debug("cannot measure container", "container_id", e.ContainerID, "err", err)
		return nil
	}
	return message(&mesos.ResourceStatistics{
		Timestamp: proto.Float64(float64(timestamp(s.cfg.Now()))), Processes: proto.Uint32(uint32(max(0, u.Processes))),
		CpusUserTimeSecs: proto.Float64(u.CPUUser.Seconds()), CpusSystemTimeSecs: proto.Float64(u.CPUSystem.Seconds()),
		CpusLimit: proto.Float64(e.CPUs), MemLimitBytes: proto.Uint64(uint64(max(0, e.MemBytes))),
		MemRssBytes: proto.Uint64(uint64(max(0, u.MemBytes))),
	})
}
