package api

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/agent"
)

// The operator calls that read; calls.go has the table of all.

func (s *Server) getHealth(context.Context, *operator.Call) (*operator.Response, error) {
	return &operator.Response{GetHealth: &operator.Response_GetHealth{Healthy: proto.Bool(true)}}, nil
}

func (s *Server) getFlags(context.Context, *operator.Call) (*operator.Response, error) {
	list, flags := &operator.Response_GetFlags{}, s.flagMap()
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		list.Flags = append(list.Flags, &mesos.Flag{Name: proto.String(name), Value: proto.String(flags[name])})
	}
	return &operator.Response{GetFlags: list}, nil
}

func (s *Server) getVersion(context.Context, *operator.Call) (*operator.Response, error) {
	b := s.build()
	return &operator.Response{GetVersion: &operator.Response_GetVersion{VersionInfo: &mesos.VersionInfo{
		Version: &b.Version, BuildDate: &b.Date, BuildTime: proto.Float64(float64(b.Time)), BuildUser: &b.User, GitTag: &b.Own,
	}}}, nil
}

func (s *Server) getMetrics(ctx context.Context, call *operator.Call) (*operator.Response, error) {
	values, err := s.measure(ctx, time.Duration(call.GetGetMetrics().GetTimeout().GetNanoseconds()))
	if err != nil {
		return nil, err
	}
	list := &operator.Response_GetMetrics{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		list.Metrics = append(list.Metrics, &mesos.Metric{Name: proto.String(name), Value: proto.Float64(values[name])})
	}
	return &operator.Response{GetMetrics: list}, nil
}

func (s *Server) getLoggingLevel(context.Context, *operator.Call) (*operator.Response, error) {
	return &operator.Response{GetLoggingLevel: &operator.Response_GetLoggingLevel{Level: proto.Uint32(s.verbosity.Get())}}, nil
}

func (s *Server) setLoggingLevel(_ context.Context, call *operator.Call) error {
	l := call.GetSetLoggingLevel()
	return s.verbosity.Set(l.GetLevel(), time.Duration(l.GetDuration().GetNanoseconds()))
}

func (s *Server) getFileList(ctx context.Context, call *operator.Call) (*operator.Response, error) {
	st, err := s.agent.State(ctx)
	if err != nil {
		return nil, err
	}
	infos, err := s.listFiles(st, call.GetListFiles().GetPath())
	if err != nil {
		return nil, err
	}
	return &operator.Response{ListFiles: &operator.Response_ListFiles{FileInfos: infos}}, nil
}

func (s *Server) getFile(ctx context.Context, call *operator.Call) (*operator.Response, error) {
	st, err := s.agent.State(ctx)
	if err != nil {
		return nil, err
	}
	r := call.GetReadFile()
	length := int64(-1)
	if r.Length != nil {
		length = int64(min(r.GetLength(), readMax))
	}
	data, size, err := s.readFile(st, r.GetPath(), int64(min(r.GetOffset(), 1<<62)), length)
	if err != nil {
		return nil, err
	}
	return &operator.Response{ReadFile: &operator.Response_ReadFile{Size: proto.Uint64(uint64(size)), Data: data}}, nil
}

func (s *Server) getState(st *agent.State) *operator.Response {
	return &operator.Response{GetState: &operator.Response_GetState{
		GetTasks: s.getTasks(st).GetGetTasks(), GetExecutors: s.getExecutors(st).GetGetExecutors(), GetFrameworks: s.getFrameworks(st).GetGetFrameworks(),
	}}
}

func (s *Server) getFrameworks(st *agent.State) *operator.Response {
	list := func(all []agent.FrameworkState) []*operator.Response_GetFrameworks_Framework {
		var out []*operator.Response_GetFrameworks_Framework
		for _, f := range all {
			out = append(out, &operator.Response_GetFrameworks_Framework{FrameworkInfo: f.Info})
		}
		return out
	}
	return &operator.Response{GetFrameworks: &operator.Response_GetFrameworks{
		Frameworks: list(st.Frameworks), CompletedFrameworks: list(st.Completed),
	}}
}

func (s *Server) getExecutors(st *agent.State) *operator.Response {
	out := &operator.Response_GetExecutors{}
	eachExecutor(st, func(f *mesos.FrameworkInfo, e agent.ExecutorState, completed bool) {
		one := &operator.Response_GetExecutors_Executor{ExecutorInfo: executorInfo(f, e)}
		if completed {
			out.CompletedExecutors = append(out.CompletedExecutors, one)
		} else {
			out.Executors = append(out.Executors, one)
		}
	})
	return &operator.Response{GetExecutors: out}
}

func (s *Server) getOperations(st *agent.State) *operator.Response {
	return &operator.Response{GetOperations: &operator.Response_GetOperations{Operations: st.Operations}}
}

func (s *Server) getTasks(st *agent.State) *operator.Response {
	out := &operator.Response_GetTasks{}
	eachExecutor(st, func(_ *mesos.FrameworkInfo, e agent.ExecutorState, completed bool) {
		g := tasksOf(e, completed)
		out.QueuedTasks = append(out.QueuedTasks, g.queued...)
		out.LaunchedTasks = append(out.LaunchedTasks, g.launched...)
		out.TerminatedTasks = append(out.TerminatedTasks, g.terminated...)
		out.CompletedTasks = append(out.CompletedTasks, g.completed...)
	})
	return &operator.Response{GetTasks: out}
}

func (s *Server) getAgent(st *agent.State) *operator.Response {
	info := &mesos.AgentInfo{
		Hostname: &s.cfg.Hostname, Port: proto.Int32(int32(s.cfg.Port)), Id: &mesos.AgentID{Value: &s.cfg.ID},
		Attributes: s.cfg.Attributes, Domain: s.domain(), Resources: st.Total.ProtoEndpoint(),
	}
	out := &operator.Response_GetAgent{AgentInfo: info, DrainConfig: st.Drain}
	if st.Drain != nil {
		out.EstimatedDrainStartTime = &mesos.TimeInfo{Nanoseconds: proto.Int64(st.DrainStarted.UnixNano())}
	}
	return &operator.Response{GetAgent: out}
}

func (s *Server) getResourceProviders(*agent.State) *operator.Response {
	return &operator.Response{GetResourceProviders: &operator.Response_GetResourceProviders{}}
}

// eachExecutor visits all executors, those that nobody needs any more (completed) after the others of their framework.
func eachExecutor(st *agent.State, visit func(f *mesos.FrameworkInfo, e agent.ExecutorState, completed bool)) {
	for _, frameworks := range [][]agent.FrameworkState{st.Frameworks, st.Completed} {
		for _, f := range frameworks {
			for _, e := range f.Executors {
				visit(f.Info, e, false)
			}
			for _, e := range f.Completed {
				visit(f.Info, e, true)
			}
		}
	}
}

// taskGroups are the tasks of an executor by how far they are: not given to it, given to it, ended, and ended with that
// acknowledged.
type taskGroups struct{ queued, launched, terminated, completed []*mesos.Task }

// tasksOf sorts the tasks of an executor; completed tells that nobody needs the executor any more.
func tasksOf(e agent.ExecutorState, completed bool) taskGroups {
	if e.Task == nil {
		return taskGroups{e.Queued, e.Tasks, e.Terminated, e.Completed}
	}
	one := []*mesos.Task{e.Task}
	switch {
	case completed:
		return taskGroups{completed: one}
	case ended(e.Task.GetState()):
		return taskGroups{terminated: one}
	case e.Running:
		return taskGroups{launched: one}
	}
	return taskGroups{queued: one}
}

// executorInfo describes an executor; that of a command task is made up as agents of Mesos do.
func executorInfo(f *mesos.FrameworkInfo, e agent.ExecutorState) *mesos.ExecutorInfo {
	if e.Info != nil {
		return e.Info
	}
	return &mesos.ExecutorInfo{
		Type: mesos.ExecutorInfo_CUSTOM.Enum(), ExecutorId: &mesos.ExecutorID{Value: proto.String(e.ID)}, FrameworkId: f.GetId(),
		Name: proto.String(e.Name), Source: proto.String(e.Source), Command: e.Command, Container: e.Task.GetContainer(),
	}
}
