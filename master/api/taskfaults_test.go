package api_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// rowTask is a task that is valid on an agent with 4 CPUs and 4 GB.
func rowTask(change func(*mesos.TaskInfo)) *mesos.TaskInfo {
	task := mastertest.Task("row", "cpus:1;mem:64")
	if change != nil {
		change(task)
	}
	return task
}

func parsed(text string) []*mesos.Resource {
	rs, err := resources.Parse(text, resources.AnyRole)
	if err != nil {
		panic(err) // a mistake in the test
	}
	return rs.ProtoPreRefinement()
}

func rowExecutor(id, res string) *mesos.ExecutorInfo {
	return &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: &id}, Command: &mesos.CommandInfo{Value: proto.String("executor")}, Resources: parsed(res),
	}
}

// byExecutor makes a task one of an executor.
func byExecutor(task *mesos.TaskInfo, e *mesos.ExecutorInfo) { task.Command, task.Executor = nil, e }

// rows runs bad tasks, one after the other, through ACCEPT, and wants each told as invalid.
func (f *framework) rows(what string, reason mesos.TaskStatus_Reason, list map[string]row, op func(tasks []*mesos.TaskInfo, e *mesos.ExecutorInfo) *mesos.Offer_Operation) {
	f.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(list)) {
		r := list[name]
		offer := f.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
		for _, task := range r.tasks {
			if task.AgentId == nil {
				task.AgentId = offer.GetAgentId()
			}
		}
		f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
			OfferIds: []*mesos.OfferID{offer.GetId()}, Operations: []*mesos.Offer_Operation{op(r.tasks, r.executor)},
			Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
		}})
		for _, task := range r.tasks {
			status := f.expect(scheduler.Event_UPDATE).GetUpdate().GetStatus()
			if status.GetState() != mesos.TaskState_TASK_ERROR || status.GetReason() != reason || status.GetSource() != mesos.TaskStatus_SOURCE_MASTER ||
				len(status.GetUuid()) != 0 || status.GetTaskId().GetValue() != task.GetTaskId().GetValue() ||
				status.GetAgentId().GetValue() != offer.GetAgentId().GetValue() || !strings.Contains(status.GetMessage(), r.want) {
				f.t.Errorf("%s, %s: got %s, want %q", what, name, prototext.Format(status), r.want)
			}
		}
	}
}

type row struct {
	tasks    []*mesos.TaskInfo
	executor *mesos.ExecutorInfo
	want     string
}

// one is a row of one task.
func one(want string, change func(*mesos.TaskInfo)) row {
	return row{tasks: []*mesos.TaskInfo{rowTask(change)}, want: want}
}

func launchOp(tasks []*mesos.TaskInfo, _ *mesos.ExecutorInfo) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks}}
}

func nanos(n int64) *mesos.DurationInfo { return &mesos.DurationInfo{Nanoseconds: &n} }

// Every row of the table of task checks.
func TestTaskRows(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, cd codec.Codec) {
		t.Parallel() // what is refused without a filter comes again after a tenth of a second
		s := start(t, func(cfg *master.Config) { cfg.UnreachableAfter = 10 * time.Millisecond })
		s.agent(1, "cpus:4;mem:4096;disk:1000;ports:[31000-31009]")
		s.lead()
		f := s.subscribe(cd, mastertest.Info("f", nil, mesos.FrameworkInfo_Capability_PARTITION_AWARE))

		// What is there before: a task, an executor with a task, and a task of an agent that was lost.
		offer := f.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
		active, led := mastertest.Task("active", "cpus:0.1;mem:32"), mastertest.Task("led", "cpus:0.1;mem:32")
		byExecutor(led, rowExecutor("e", "cpus:0.1;mem:32"))
		active.AgentId, led.AgentId = offer.GetAgentId(), offer.GetAgentId()
		f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
			OfferIds: []*mesos.OfferID{offer.GetId()}, Operations: []*mesos.Offer_Operation{launchOp([]*mesos.TaskInfo{active, led}, nil)},
			Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
		}})
		here := offer.GetAgentId().GetValue()
		var held []*mesos.OfferID // all that is left of this agent, in one offer or more
		sort := func(offers []*mesos.Offer) (other *mesos.Offer) {
			for _, o := range offers {
				if o.GetAgentId().GetValue() == here {
					held = append(held, o.GetId())
				} else {
					other = o
				}
			}
			return other
		}
		sort(f.running(2))
		lostAgent := s.agent(2, "cpus:1;mem:128")
		f.until("the other agent is offered", func(e *scheduler.Event) bool {
			offer = sort(e.GetOffers().GetOffers())
			return offer != nil
		})
		lost := mastertest.Task("lost", "cpus:1;mem:128")
		lost.AgentId = offer.GetAgentId()
		f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
			OfferIds: []*mesos.OfferID{offer.GetId()}, Operations: []*mesos.Offer_Operation{launchOp([]*mesos.TaskInfo{lost}, nil)},
		}})
		sort(f.running(1))
		s.Mesh.SetLiveness(time.Now(), lostAgent.ID, record.Dead)
		unreachable, failed := false, false
		f.until("the agent and its task are lost", func(e *scheduler.Event) bool {
			unreachable = unreachable || e.GetUpdate().GetStatus().GetState() == mesos.TaskState_TASK_UNREACHABLE
			failed = failed || e.GetType() == scheduler.Event_FAILURE
			sort(e.GetOffers().GetOffers())
			return unreachable && failed
		})
		f.call(&scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: &scheduler.Call_Decline{
			OfferIds: held, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
		}})

		f.rows("task", mesos.TaskStatus_REASON_TASK_INVALID, taskRows(here), launchOp)
		withID := func(tasks []*mesos.TaskInfo, _ *mesos.ExecutorInfo) *mesos.Offer_Operation {
			op := launchOp(tasks, nil)
			op.Id = &mesos.OperationID{Value: proto.String("o")}
			return op
		}
		f.rows("operation", mesos.TaskStatus_REASON_TASK_INVALID, map[string]row{"with an id": one("Operation 'id'", nil)}, withID)
	})
}

// running reads until so many tasks run, which it acknowledges, and returns the offers that come in between.
func (f *framework) running(tasks int) []*mesos.Offer {
	f.t.Helper()
	var came []*mesos.Offer
	f.until("tasks run", func(e *scheduler.Event) bool {
		came = append(came, e.GetOffers().GetOffers()...)
		if status := e.GetUpdate().GetStatus(); status != nil {
			tasks--
			if status.GetState() != mesos.TaskState_TASK_RUNNING {
				f.t.Fatalf("want TASK_RUNNING, got %s", prototext.Format(status))
			}
			f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{
				AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
			}})
		}
		return tasks == 0
	})
	return came
}

// until reads events up to one that is wanted.
func (f *framework) until(what string, is func(*scheduler.Event) bool) *scheduler.Event {
	f.t.Helper()
	stop := time.AfterFunc(patience, f.Close)
	defer stop.Stop()
	for {
		event, err := f.Next()
		if err != nil {
			f.t.Fatalf("%s: %v", what, err)
		}
		if is(event) {
			return event
		}
	}
}

func taskRows(agent string) map[string]row {
	env := func(v *mesos.Environment_Variable) *mesos.Environment {
		return &mesos.Environment{Variables: []*mesos.Environment_Variable{v}}
	}
	container := func(kind mesos.ContainerInfo_Type) *mesos.ContainerInfo {
		return &mesos.ContainerInfo{Type: kind.Enum()}
	}
	scalar := func(v float64) *mesos.Value_Scalar { return &mesos.Value_Scalar{Value: &v} }
	id := func(id string) func(*mesos.TaskInfo) {
		return func(t *mesos.TaskInfo) { t.TaskId = &mesos.TaskID{Value: &id} }
	}
	volume := func(id string) *mesos.Resource {
		return &mesos.Resource{
			Name: proto.String("disk"), Type: mesos.Value_SCALAR.Enum(), Scalar: scalar(1), Role: proto.String("web"),
			Disk: &mesos.Resource_DiskInfo{
				Persistence: &mesos.Resource_DiskInfo_Persistence{Id: &id},
				Volume:      &mesos.Volume{ContainerPath: proto.String("d"), Mode: mesos.Volume_RW.Enum()},
			},
		}
	}
	return map[string]row{
		"01 empty id":                one("ID must not be empty", id("")),
		"01 id of 256 bytes":         one("ID must not be greater than 255 characters", id(strings.Repeat("x", 256))),
		"01 id that goes up":         one("'..' is disallowed", id("..")),
		"01 id with a slash":         one("'a/b' contains invalid characters", id("a/b")),
		"02 id in use":               one("Task has duplicate ID: active", id("active")),
		"03 id of an unreachable":    one("Task reuses the ID of an unreachable task: lost", id("lost")),
		"04 another agent":           one("Task uses invalid agent x while agent "+agent+" is expected", func(t *mesos.TaskInfo) { t.AgentId = &mesos.AgentID{Value: proto.String("x")} }),
		"05 negative grace period":   one("Task's 'kill_policy.grace_period' must be non-negative", func(t *mesos.TaskInfo) { t.KillPolicy = &mesos.KillPolicy{GracePeriod: nanos(-1)} }),
		"06 negative time to finish": one("Task's `max_completion_time` must be non-negative", func(t *mesos.TaskInfo) { t.MaxCompletionTime = nanos(-1) }),
		"07 check without a command": one("Task uses invalid check: Expecting 'command' to be set for COMMAND check", func(t *mesos.TaskInfo) { t.Check = &mesos.CheckInfo{Type: mesos.CheckInfo_COMMAND.Enum()} }),
		"07 check, path": one("Task uses invalid check: The path 'x' of HTTP check must start with '/'", func(t *mesos.TaskInfo) {
			t.Check = &mesos.CheckInfo{Type: mesos.CheckInfo_HTTP.Enum(), Http: &mesos.CheckInfo_Http{Port: proto.Uint32(1), Path: proto.String("x")}}
		}),
		"07 check, times": one("Task uses invalid check: Expecting 'interval_seconds' to be non-negative", func(t *mesos.TaskInfo) {
			t.Check = &mesos.CheckInfo{Type: mesos.CheckInfo_TCP.Enum(), Tcp: &mesos.CheckInfo_Tcp{Port: proto.Uint32(1)}, IntervalSeconds: proto.Float64(-1)}
		}),
		"08 health check without a type": one("Task uses invalid health check: HealthCheck must specify 'type'", func(t *mesos.TaskInfo) { t.HealthCheck = &mesos.HealthCheck{} }),
		"08 health check, no command": one("Task uses invalid health check: Command health check must contain 'shell command'", func(t *mesos.TaskInfo) {
			t.HealthCheck = &mesos.HealthCheck{Command: &mesos.CommandInfo{}}
		}),
		"08 health check, scheme": one("Task uses invalid health check: Unsupported HTTP health check scheme: 'ftp'", func(t *mesos.TaskInfo) {
			t.HealthCheck = &mesos.HealthCheck{Http: &mesos.HealthCheck_HTTPCheckInfo{Port: proto.Uint32(1), Scheme: proto.String("ftp")}}
		}),
		"08 health check, path": one("must start with '/'", func(t *mesos.TaskInfo) {
			t.HealthCheck = &mesos.HealthCheck{Http: &mesos.HealthCheck_HTTPCheckInfo{Port: proto.Uint32(1), Path: proto.String("x")}}
		}),
		"08 health check, times": one("Expecting 'delay_seconds' to be non-negative", func(t *mesos.TaskInfo) {
			t.HealthCheck = &mesos.HealthCheck{Tcp: &mesos.HealthCheck_TCPCheckInfo{Port: proto.Uint32(1)}, DelaySeconds: proto.Float64(-1)}
		}),
		"09 no resources":       one("Task uses no resources", func(t *mesos.TaskInfo) { t.Resources = nil }),
		"10 negative resources": one("Task uses invalid resources: ", func(t *mesos.TaskInfo) { t.Resources[0].Scalar.Value = proto.Float64(-1) }),
		"10 half a GPU": one("Task uses invalid resources: ", func(t *mesos.TaskInfo) {
			t.Resources = append(t.Resources, &mesos.Resource{Name: proto.String("gpus"), Type: mesos.Value_SCALAR.Enum(), Scalar: scalar(0.5)})
		}),
		"10 a range backwards": one("Task uses invalid resources: ", func(t *mesos.TaskInfo) {
			t.Resources = append(t.Resources, &mesos.Resource{Name: proto.String("ports"), Type: mesos.Value_RANGES.Enum(), Ranges: &mesos.Value_Ranges{
				Range: []*mesos.Value_Range{{Begin: proto.Uint64(5), End: proto.Uint64(4)}},
			}})
		}),
		"11 a volume twice": one("Task uses duplicate persistence ID: ", func(t *mesos.TaskInfo) { t.Resources = append(t.Resources, volume("v"), volume("v")) }),
		"12 two allocation roles": one("Invalid task resources: The resources have multiple allocation roles", func(t *mesos.TaskInfo) {
			t.Resources[0].AllocationInfo = &mesos.Resource_AllocationInfo{Role: proto.String("other")}
		}),
		"13 revocable and not": one("Task mixes revocable and non-revocable resources: Cannot use both revocable and non-revocable 'cpus' at the same time", func(t *mesos.TaskInfo) {
			t.Resources = append(t.Resources, &mesos.Resource{Name: proto.String("cpus"), Type: mesos.Value_SCALAR.Enum(), Scalar: scalar(1), Revocable: &mesos.Resource_RevocableInfo{}})
		}),
		"14 a variable without a value": one("Task's `CommandInfo` is invalid: Environment variable 'K' of type 'VALUE' must have a value set", func(t *mesos.TaskInfo) {
			t.Command.Environment = env(&mesos.Environment_Variable{Name: proto.String("K")})
		}),
		"14 a secret without one": one("Task's `CommandInfo` is invalid: Environment variable 'K' of type 'SECRET' must have a secret set", func(t *mesos.TaskInfo) {
			t.Command.Environment = env(&mesos.Environment_Variable{Name: proto.String("K"), Type: mesos.Environment_Variable_SECRET.Enum()})
		}),
		"15 a volume without a source": one("Task's `ContainerInfo` is invalid: Invalid volume: Only one of them should be set", func(t *mesos.TaskInfo) {
			t.Container = container(mesos.ContainerInfo_MESOS)
			t.Container.Volumes = []*mesos.Volume{{ContainerPath: proto.String("p"), Mode: mesos.Volume_RW.Enum()}}
		}),
		"15 DOCKER without docker": one("Task's `ContainerInfo` is invalid: DockerInfo 'docker' is not set for DOCKER typed ContainerInfo", func(t *mesos.TaskInfo) { t.Container = container(mesos.ContainerInfo_DOCKER) }),
		"15 a docker parameter": one("Task's `ContainerInfo` is invalid: Parameter in DockerInfo must not be 'name'", func(t *mesos.TaskInfo) {
			t.Container = container(mesos.ContainerInfo_DOCKER)
			t.Container.Docker = &mesos.ContainerInfo_DockerInfo{Image: proto.String("i"), Parameters: []*mesos.Parameter{{Key: proto.String("name"), Value: proto.String("n")}}}
		}),
		"16 a limit of the disk": one("Only cpus and mem may be included in a task's resource limits", func(t *mesos.TaskInfo) { t.Limits = map[string]*mesos.Value_Scalar{"disk": scalar(1)} }),
		"16 a limit below":       one("The memory limit must be greater than or equal to the memory request", func(t *mesos.TaskInfo) { t.Limits = map[string]*mesos.Value_Scalar{"mem": scalar(1)} }),
		"17 nothing to run":      one("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present", func(t *mesos.TaskInfo) { t.Command = nil }),
		"17 two to run":          one("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present", func(t *mesos.TaskInfo) { t.Executor = rowExecutor("x", "cpus:0.1;mem:32") }),
		"18 executor without a command": one("'ExecutorInfo.command' must be set", func(t *mesos.TaskInfo) {
			byExecutor(t, rowExecutor("x", "cpus:0.1;mem:32"))
			t.Executor.Command = nil
		}),
		"18 executor of type DEFAULT": one("'ExecutorInfo.type' must be 'CUSTOM'", func(t *mesos.TaskInfo) {
			byExecutor(t, rowExecutor("x", "cpus:0.1;mem:32"))
			t.Executor.Type, t.Executor.Command = mesos.ExecutorInfo_DEFAULT.Enum(), nil
		}),
		"18 executor with an invalid id": one("'e/x' contains invalid characters", func(t *mesos.TaskInfo) { byExecutor(t, rowExecutor("e/x", "cpus:0.1;mem:32")) }),
		"18 executor of another": one("ExecutorInfo has an invalid FrameworkID (Actual: x vs Expected: ", func(t *mesos.TaskInfo) {
			byExecutor(t, rowExecutor("x", "cpus:0.1;mem:32"))
			t.Executor.FrameworkId = &mesos.FrameworkID{Value: proto.String("x")}
		}),
		"19 another executor of this id": one("ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID", func(t *mesos.TaskInfo) { byExecutor(t, rowExecutor("e", "cpus:0.2;mem:32")) }),
		"20 shared resources of an executor": one("should not contain any shared resources", func(t *mesos.TaskInfo) {
			byExecutor(t, rowExecutor("x", "cpus:0.1;mem:32"))
			v := volume("v")
			v.Shared = &mesos.Resource_SharedInfo{}
			t.Executor.Resources = append(t.Executor.Resources, v)
		}),
		"21 the same port twice": one("There are overlapping resources in the task resources ", func(t *mesos.TaskInfo) {
			t.Resources = parsed("cpus:1;mem:64;ports:[31000-31002]")
			byExecutor(t, rowExecutor("x", "cpus:0.1;mem:32;ports:[31002-31003]"))
		}),
		"22 more than there is": one("required by task and its executor is more than available ", func(t *mesos.TaskInfo) { t.Resources = parsed("cpus:400;mem:64") }),
		"22 more with its executor": one("required by task and its executor is more than available ", func(t *mesos.TaskInfo) {
			t.Resources = parsed("cpus:3;mem:64")
			byExecutor(t, rowExecutor("x", "cpus:1;mem:32"))
		}),
		"23 cgroups of its own": one("Only tasks in a task group may have 'share_cgroups' set to 'false'", func(t *mesos.TaskInfo) {
			t.Container = container(mesos.ContainerInfo_MESOS)
			t.Container.LinuxInfo = &mesos.LinuxInfo{ShareCgroups: proto.Bool(false)}
		}),
	}
}
