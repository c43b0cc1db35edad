package api

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
)

// The operator calls that read, and TEARDOWN; calls.go has the table of all.

// ofView makes an answer out of a view alone.
func ofView(show func(*master.View) *operator.Response) func(*api, context.Context, *operator.Call) (*operator.Response, error) {
	return func(a *api, ctx context.Context, _ *operator.Call) (*operator.Response, error) {
		v, err := a.master.View(ctx)
		if err != nil {
			return nil, err
		}
		return show(v), nil
	}
}

func (a *api) getHealth(context.Context, *operator.Call) (*operator.Response, error) {
	return &operator.Response{GetHealth: &operator.Response_GetHealth{Healthy: proto.Bool(true)}}, nil
}

func (a *api) getFlags(ctx context.Context, _ *operator.Call) (*operator.Response, error) {
	v, err := a.master.View(ctx)
	if err != nil {
		return nil, err
	}
	list := &operator.Response_GetFlags{}
	for _, name := range slices.Sorted(maps.Keys(v.Flags)) {
		list.Flags = append(list.Flags, &mesos.Flag{Name: proto.String(name), Value: proto.String(v.Flags[name])})
	}
	return &operator.Response{GetFlags: list}, nil
}

func (a *api) tearDown(ctx context.Context, call *operator.Call, _ string) error {
	return a.master.Teardown(ctx, call.GetTeardown().GetFrameworkId().GetValue())
}

func getMaster(v *master.View) *operator.Response {
	return &operator.Response{GetMaster: &operator.Response_GetMaster{
		MasterInfo: v.Info, StartTime: proto.Float64(seconds(v.Started)), ElectedTime: proto.Float64(seconds(v.Elected)),
	}}
}

func getState(v *master.View) *operator.Response {
	return &operator.Response{GetState: stateOf(v)}
}

func getAgents(v *master.View) *operator.Response {
	return &operator.Response{GetAgents: agentsOf(v)}
}

func getFrameworks(v *master.View) *operator.Response {
	return &operator.Response{GetFrameworks: frameworksOf(v)}
}

func getExecutors(v *master.View) *operator.Response {
	return &operator.Response{GetExecutors: executorsOf(v)}
}

func getTasks(v *master.View) *operator.Response {
	return &operator.Response{GetTasks: tasksOf(v)}
}

func getOperations(v *master.View) *operator.Response {
	return &operator.Response{GetOperations: &operator.Response_GetOperations{Operations: v.Operations}}
}

func stateOf(v *master.View) *operator.Response_GetState {
	return &operator.Response_GetState{
		GetTasks: tasksOf(v), GetExecutors: executorsOf(v), GetFrameworks: frameworksOf(v), GetAgents: agentsOf(v),
	}
}

func agentsOf(v *master.View) *operator.Response_GetAgents {
	out := &operator.Response_GetAgents{}
	for i := range v.Agents {
		out.Agents = append(out.Agents, v.Agents[i].Message())
	}
	for i := range v.Recovered {
		out.RecoveredAgents = append(out.RecoveredAgents, v.Recovered[i].Info)
	}
	return out
}

func frameworksOf(v *master.View) *operator.Response_GetFrameworks {
	list := func(frameworks []master.FrameworkView) []*operator.Response_GetFrameworks_Framework {
		var out []*operator.Response_GetFrameworks_Framework
		for i := range frameworks {
			out = append(out, frameworks[i].Message())
		}
		return out
	}
	return &operator.Response_GetFrameworks{Frameworks: list(v.Frameworks), CompletedFrameworks: list(v.Completed)}
}

func executorsOf(v *master.View) *operator.Response_GetExecutors {
	out := &operator.Response_GetExecutors{}
	for i := range v.Frameworks {
		for _, e := range v.Frameworks[i].Executors {
			out.Executors = append(out.Executors, &operator.Response_GetExecutors_Executor{
				ExecutorInfo: e.Info, AgentId: &mesos.AgentID{Value: proto.String(e.AgentID)},
			})
		}
	}
	return out
}

func tasksOf(v *master.View) *operator.Response_GetTasks {
	out := &operator.Response_GetTasks{}
	for _, frameworks := range [][]master.FrameworkView{v.Frameworks, v.Completed} {
		for i := range frameworks {
			f := &frameworks[i]
			out.Tasks = appendTasks(out.Tasks, f.Tasks)
			out.UnreachableTasks = appendTasks(out.UnreachableTasks, f.Unreachable)
			out.CompletedTasks = appendTasks(out.CompletedTasks, f.Completed)
		}
	}
	return out
}

func appendTasks(out []*mesos.Task, tasks master.TaskList) []*mesos.Task {
	for t := range tasks.All() {
		out = append(out, t.Message())
	}
	return out
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
