package api

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// operator serves the v1 operator API as far as it reads, and TEARDOWN. Spec: mesos-operator-api.md part A.
func (a *api) operator(c *fiber.Ctx) error {
	call := new(operator.Call)
	if _, err := server.ReadCall(c, call); err != nil {
		return err
	}
	if missing := missingIn(call); missing != "" {
		return server.Errorf(fiber.StatusBadRequest, "Failed to validate master::Call: Expecting '%s' to be present", missing)
	}
	cd, err := server.AcceptCodec(c)
	if err != nil {
		return err
	}
	ctx, cancel := a.context(c)
	defer cancel()
	if call.GetType() == operator.Call_TEARDOWN {
		if err := a.master.Teardown(ctx, call.GetTeardown().GetFrameworkId().GetValue()); err != nil {
			return a.fail(c, err)
		}
		return c.SendStatus(fiber.StatusOK)
	}
	answer, err := a.read(ctx, call)
	if err != nil {
		return a.fail(c, err)
	}
	if answer == nil {
		return server.Errorf(fiber.StatusNotImplemented, "501 Not Implemented.")
	}
	return server.WriteMessage(c, cd, answer)
}

// missingIn names what a call must have and has not.
func missingIn(call *operator.Call) string {
	switch {
	case call.Type == nil:
		return "type"
	case call.GetType() == operator.Call_GET_METRICS && call.GetMetrics == nil:
		return "get_metrics"
	case call.GetType() == operator.Call_TEARDOWN && call.Teardown == nil:
		return "teardown"
	}
	return ""
}

// read answers the calls that read; nil for the others.
func (a *api) read(ctx context.Context, call *operator.Call) (*operator.Response, error) {
	if call.GetType() == operator.Call_GET_METRICS {
		return a.getMetrics(ctx)
	}
	v, err := a.master.View(ctx)
	if err != nil {
		return nil, err
	}
	r := &operator.Response{}
	switch call.GetType() {
	case operator.Call_GET_HEALTH:
		r.Type = operator.Response_GET_HEALTH.Enum()
		r.GetHealth = &operator.Response_GetHealth{Healthy: proto.Bool(true)}
	case operator.Call_GET_VERSION:
		r.Type = operator.Response_GET_VERSION.Enum()
		r.GetVersion = &operator.Response_GetVersion{VersionInfo: &mesos.VersionInfo{
			Version: proto.String(master.MesosVersion), GitTag: proto.String(v.Software),
		}}
	case operator.Call_GET_FLAGS:
		r.Type = operator.Response_GET_FLAGS.Enum()
		r.GetFlags = &operator.Response_GetFlags{}
		for _, name := range slices.Sorted(maps.Keys(v.Flags)) {
			r.GetFlags.Flags = append(r.GetFlags.Flags, &mesos.Flag{Name: proto.String(name), Value: proto.String(v.Flags[name])})
		}
	case operator.Call_GET_MASTER:
		r.Type = operator.Response_GET_MASTER.Enum()
		r.GetMaster = &operator.Response_GetMaster{
			MasterInfo: v.Info, StartTime: proto.Float64(seconds(v.Started)), ElectedTime: proto.Float64(seconds(v.Elected)),
		}
	case operator.Call_GET_STATE:
		r.Type = operator.Response_GET_STATE.Enum()
		r.GetState = &operator.Response_GetState{
			GetTasks: getTasks(v), GetExecutors: getExecutors(v), GetFrameworks: getFrameworks(v), GetAgents: getAgents(v),
		}
	case operator.Call_GET_AGENTS:
		r.Type, r.GetAgents = operator.Response_GET_AGENTS.Enum(), getAgents(v)
	case operator.Call_GET_FRAMEWORKS:
		r.Type, r.GetFrameworks = operator.Response_GET_FRAMEWORKS.Enum(), getFrameworks(v)
	case operator.Call_GET_EXECUTORS:
		r.Type, r.GetExecutors = operator.Response_GET_EXECUTORS.Enum(), getExecutors(v)
	case operator.Call_GET_TASKS:
		r.Type, r.GetTasks = operator.Response_GET_TASKS.Enum(), getTasks(v)
	case operator.Call_GET_ROLES:
		r.Type, r.GetRoles = operator.Response_GET_ROLES.Enum(), getRoles(v)
	case operator.Call_GET_WEIGHTS:
		r.Type, r.GetWeights = operator.Response_GET_WEIGHTS.Enum(), &operator.Response_GetWeights{}
		for _, role := range slices.Sorted(maps.Keys(v.Weights)) {
			r.GetWeights.WeightInfos = append(r.GetWeights.WeightInfos, &mesos.WeightInfo{
				Role: proto.String(role), Weight: proto.Float64(v.Weights[role]),
			})
		}
	default:
		return nil, nil
	}
	return r, nil
}

func (a *api) getMetrics(ctx context.Context) (*operator.Response, error) {
	values, err := a.master.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	r := &operator.Response{Type: operator.Response_GET_METRICS.Enum(), GetMetrics: &operator.Response_GetMetrics{}}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		r.GetMetrics.Metrics = append(r.GetMetrics.Metrics, &mesos.Metric{Name: proto.String(name), Value: proto.Float64(values[name])})
	}
	return r, nil
}

func getAgents(v *master.View) *operator.Response_GetAgents {
	out := &operator.Response_GetAgents{}
	for i := range v.Agents {
		a := &v.Agents[i]
		out.Agents = append(out.Agents, &operator.Response_GetAgents_Agent{
			AgentInfo: a.Info, Active: proto.Bool(a.Active), Deactivated: proto.Bool(a.Draining),
			Version: proto.String(a.Version), Pid: proto.String(a.PID),
			RegisteredTime: timeInfo(a.Registered), ReregisteredTime: timeInfo(a.Reregistered),
			TotalResources: a.Total.ProtoEndpoint(), AllocatedResources: a.Used.ProtoEndpoint(),
			OfferedResources: a.Offered.ProtoEndpoint(), Capabilities: a.Capabilities,
		})
	}
	return out
}

func getFrameworks(v *master.View) *operator.Response_GetFrameworks {
	list := func(frameworks []master.FrameworkView) []*operator.Response_GetFrameworks_Framework {
		var out []*operator.Response_GetFrameworks_Framework
		for i := range frameworks {
			f := &frameworks[i]
			shown := &operator.Response_GetFrameworks_Framework{
				FrameworkInfo: f.Info, Active: proto.Bool(f.Active), Connected: proto.Bool(f.Connected),
				Recovered: proto.Bool(f.Recovered), RegisteredTime: timeInfo(f.Registered),
				ReregisteredTime: timeInfo(f.Reregistered), UnregisteredTime: timeInfo(f.Unregistered),
				AllocatedResources: f.Used.ProtoEndpoint(), OfferedResources: f.Offered.ProtoEndpoint(),
				OfferConstraints: f.Constraints,
			}
			for _, o := range f.Offers {
				shown.Offers = append(shown.Offers, o.Message)
			}
			out = append(out, shown)
		}
		return out
	}
	return &operator.Response_GetFrameworks{Frameworks: list(v.Frameworks), CompletedFrameworks: list(v.Completed)}
}

func getExecutors(v *master.View) *operator.Response_GetExecutors {
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

func getTasks(v *master.View) *operator.Response_GetTasks {
	out := &operator.Response_GetTasks{}
	for _, frameworks := range [][]master.FrameworkView{v.Frameworks, v.Completed} {
		for i := range frameworks {
			f := &frameworks[i]
			out.Tasks = append(out.Tasks, f.Tasks...)
			out.UnreachableTasks = append(out.UnreachableTasks, f.Unreachable...)
			out.CompletedTasks = append(out.CompletedTasks, f.Completed...)
		}
	}
	return out
}

func getRoles(v *master.View) *operator.Response_GetRoles {
	out := &operator.Response_GetRoles{}
	for _, r := range rolesOf(v) {
		shown := &mesos.Role{
			Name: proto.String(r.name), Weight: proto.Float64(weightOf(v, r.name)), Resources: r.allocated.ProtoEndpoint(),
		}
		for _, id := range r.frameworks {
			shown.Frameworks = append(shown.Frameworks, &mesos.FrameworkID{Value: proto.String(id)})
		}
		out.Roles = append(out.Roles, shown)
	}
	return out
}

// timeInfo is nil for the zero time.
func timeInfo(t time.Time) *mesos.TimeInfo {
	if t.IsZero() {
		return nil
	}
	return &mesos.TimeInfo{Nanoseconds: proto.Int64(t.UnixNano())}
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
