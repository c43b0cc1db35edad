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

// container is one that runs, as all endpoints show it in their own shapes.
type container struct {
	id *mesos.ContainerID
	// framework, executor, name and source are of executors' containers alone.
	framework, executor, name, source string
	status                            *mesos.ContainerStatus
	// statistics are nil where they cannot be had.
	statistics *mesos.ResourceStatistics

	// containerizer is the id that it is measured by; cpus and mem are its limits, zero for none.
	containerizer string
	cpus          float64
	mem           int64
}

// shown is which containers are shown; empty ids stand for all.
type shown struct {
	nested, standalone             bool
	container, framework, executor string
}

func (w shown) executors(framework string, e agent.ExecutorState) bool {
	is := func(want, value string) bool { return want == "" || want == value }
	return is(w.container, e.ContainerID) && is(w.framework, framework) && is(w.executor, e.ID)
}

// usageTimeout bounds how long statistics may take; what is not measured by then is left out.
const usageTimeout = 5 * time.Second

// running collects the containers that run, with what they use, measured side by side.
func (s *Server) running(ctx context.Context, st *agent.State, which shown) []container {
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	var out []container
	for _, f := range st.Frameworks {
		for _, e := range f.Executors {
			if !e.Running && e.Phase != agent.PhaseRunning && e.Phase != agent.PhaseTerminating {
				continue
			}
			if which.executors(f.Info.GetId().GetValue(), e) {
				out = append(out, ofExecutor(f.Info, e))
			}
			if which.nested && which.framework == "" && which.executor == "" {
				out = append(out, ofTasks(e, which)...)
			}
		}
	}
	for _, n := range st.Nested {
		if !n.Running || which.framework != "" || which.executor != "" || which.container != "" && which.container != n.ID.GetValue() {
			continue
		}
		if n.Standalone() && which.standalone || !n.Standalone() && which.nested {
			one := container{id: n.ID, containerizer: n.Name, status: statusOf(n.ID, n.PID)}
			if n.Session {
				one.containerizer = "" // it is a part of what its parent uses
			}
			out = append(out, one)
		}
	}
	var measuring sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range out {
		measuring.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i].statistics = s.usage(ctx, &out[i])
		})
	}
	measuring.Wait()
	return out
}

// ofExecutor is the container of an executor.
func ofExecutor(f *mesos.FrameworkInfo, e agent.ExecutorState) container {
	out := container{
		id: &mesos.ContainerID{Value: proto.String(e.ContainerID)}, framework: f.GetId().GetValue(), executor: e.ID, name: e.Name, source: e.Source,
		containerizer: e.ContainerID, cpus: e.CPUs, mem: e.MemBytes,
	}
	if n := len(e.Task.GetStatuses()); n > 0 {
		out.status = e.Task.GetStatuses()[n-1].GetContainerStatus()
	} else if e.Task == nil {
		out.status = statusOf(out.id, e.PID)
	}
	return out
}

// ofTasks are the containers of the tasks of a default executor.
func ofTasks(e agent.ExecutorState, which shown) []container {
	var out []container
	for _, n := range e.Nested {
		id := agent.ContainerIDOf(n.ContainerID)
		if which.container == "" || which.container == id.GetValue() {
			out = append(out, container{id: id, status: statusOf(id, n.PID), containerizer: n.ContainerID, cpus: n.CPUs, mem: n.MemBytes})
		}
	}
	return out
}

// statusOf is what is known of a container whose tasks do not tell.
func statusOf(id *mesos.ContainerID, pid int) *mesos.ContainerStatus {
	out := &mesos.ContainerStatus{ContainerId: id}
	if pid > 0 {
		out.ExecutorPid = proto.Uint32(uint32(pid))
	}
	return out
}

func (s *Server) usage(ctx context.Context, c *container) *mesos.ResourceStatistics {
	if c.containerizer == "" {
		return nil
	}
	u, err := s.cfg.Containerizer.Usage(ctx, c.containerizer)
	if err != nil {
		// It may have ended meanwhile.
		s.log.Debug("cannot measure container", "container_id", c.containerizer, "err", err)
		return nil
	}
	out := &mesos.ResourceStatistics{
		Timestamp: proto.Float64(float64(timestamp(s.cfg.Now()))), Processes: proto.Uint32(uint32(max(0, u.Processes))),
		CpusUserTimeSecs: proto.Float64(u.CPUUser.Seconds()), CpusSystemTimeSecs: proto.Float64(u.CPUSystem.Seconds()),
		MemRssBytes: proto.Uint64(uint64(max(0, u.MemBytes))),
	}
	if c.cpus > 0 {
		out.CpusLimit = proto.Float64(c.cpus)
	}
	if c.mem > 0 {
		out.MemLimitBytes = proto.Uint64(uint64(c.mem))
	}
	if used, limit, ok := s.agent.DiskUsed(c.containerizer); ok {
		out.DiskUsedBytes, out.DiskLimitBytes = proto.Uint64(uint64(used)), proto.Uint64(uint64(limit))
	}
	return out
}

type containerView struct {
	ContainerID  string          `json:"container_id,omitempty"`
	FrameworkID  *string         `json:"framework_id,omitempty"`
	ExecutorID   *string         `json:"executor_id,omitempty"`
	ExecutorName *string         `json:"executor_name,omitempty"`
	Source       *string         `json:"source,omitempty"`
	Status       json.RawMessage `json:"status,omitempty"`
	Statistics   json.RawMessage `json:"statistics,omitempty"`
}

func (c *container) view() containerView {
	v := containerView{ContainerID: c.id.GetValue(), Status: message(c.status), Statistics: message(c.statistics)}
	if c.framework != "" {
		v.FrameworkID, v.ExecutorID, v.ExecutorName, v.Source = &c.framework, &c.executor, &c.name, &c.source
	}
	return v
}

// containers lists what runs; the query may name a container, a framework or an executor.
func (s *Server) containers(c *fiber.Ctx, st *agent.State) error {
	out := []containerView{}
	for _, one := range s.running(server.Context(c), st, shown{
		nested: c.Query("show_nested") == "true", standalone: c.Query("show_standalone") == "true",
		container: c.Query("container_id"), framework: c.Query("framework_id"), executor: c.Query("executor_id"),
	}) {
		out = append(out, one.view())
	}
	return write(c, out)
}

// statistics lists the executors of which there are statistics.
func (s *Server) statistics(c *fiber.Ctx, st *agent.State) error {
	out := []containerView{}
	for _, one := range s.running(server.Context(c), st, shown{}) {
		if one.statistics != nil {
			v := one.view()
			v.ContainerID, v.Status = "", nil
			out = append(out, v)
		}
	}
	return write(c, out)
}
