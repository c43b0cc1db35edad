package validation

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

// launching is a task as the master completes it, with what it is checked against.
func launching(t testing.TB) (*mesos.TaskInfo, Context) {
	task := &mesos.TaskInfo{
		Name: proto.String("t"), TaskId: &mesos.TaskID{Value: proto.String("t-1")}, AgentId: &mesos.AgentID{Value: proto.String("m-S0")},
		Resources: allocated(t, "cpus:1;mem:128;ports:[31000-31001]"), Command: &mesos.CommandInfo{Value: proto.String("sleep 100")},
	}
	return task, Context{
		Framework: webFramework(), AgentID: "m-S0",
		Pool:        parseText(t, "cpus:4;mem:1024;disk:100;ports:[31000-31005];gpus:1;cpus(web):1").AllocatedTo("web"),
		Active:      func(id string) bool { return id == "active" },
		Unreachable: func(id string) bool { return id == "lost" },
		Executor: func(id string) *mesos.ExecutorInfo {
			if id != "running" {
				return nil
			}
			e := customExecutor(t)
			e.ExecutorId.Value = proto.String("running")
			return e
		},
	}
}

func customExecutor(t testing.TB) *mesos.ExecutorInfo {
	return &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: proto.String("e-1")}, FrameworkId: frameworkID("m-0000"),
		Command: &mesos.CommandInfo{Value: proto.String("./run")}, Resources: allocated(t, "cpus:0.1;mem:32"),
	}
}

// withExecutor gives a task an executor in the place of its command.
func withExecutor(t testing.TB, change func(*mesos.ExecutorInfo)) func(*mesos.TaskInfo) {
	return func(task *mesos.TaskInfo) {
		task.Command, task.Executor = nil, customExecutor(t)
		change(task.Executor)
	}
}

func variable(change func(*mesos.Environment_Variable)) *mesos.CommandInfo {
	v := &mesos.Environment_Variable{Name: proto.String("V")}
	change(v)
	return &mesos.CommandInfo{Value: proto.String("x"), Environment: &mesos.Environment{Variables: []*mesos.Environment_Variable{v}}}
}

func hostVolume(change func(*mesos.Volume)) *mesos.ContainerInfo {
	v := &mesos.Volume{Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("data")}
	change(v)
	return &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: []*mesos.Volume{v}}
}

func source(change func(*mesos.Volume_Source)) *mesos.ContainerInfo {
	return hostVolume(func(v *mesos.Volume) {
		v.Source = new(mesos.Volume_Source)
		change(v.Source)
	})
}

const twoVolumes = `[
 {"name":"disk","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"web"}],
  "disk":{"persistence":{"id":"v"},"volume":{"mode":"RW","container_path":"a"}}},
 {"name":"disk","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"web"}],
  "disk":{"persistence":{"id":"v"},"volume":{"mode":"RW","container_path":"b"}}}]`

const bothCPUs = `[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"revocable":{}},{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]`

func TestTask(t *testing.T) {
	limit := func(name string, v float64) func(*mesos.TaskInfo) {
		return func(task *mesos.TaskInfo) { task.Limits = map[string]*mesos.Value_Scalar{name: {Value: &v}} }
	}
	health := func(h *mesos.HealthCheck) func(*mesos.TaskInfo) {
		return func(task *mesos.TaskInfo) { task.HealthCheck = h }
	}
	check := func(c *mesos.CheckInfo) func(*mesos.TaskInfo) {
		return func(task *mesos.TaskInfo) { task.Check = c }
	}
	command := func(c *mesos.CommandInfo) func(*mesos.TaskInfo) {
		return func(task *mesos.TaskInfo) { task.Command = c }
	}
	container := func(c *mesos.ContainerInfo) func(*mesos.TaskInfo) {
		return func(task *mesos.TaskInfo) { task.Container = c }
	}
	res := func(text string) func(*mesos.TaskInfo) {
		return func(task *mesos.TaskInfo) { task.Resources = allocated(t, text) }
	}
	kind, shell := mesos.HealthCheck_COMMAND.Enum(), &mesos.CommandInfo{Value: proto.String("true")}
	for _, tt := range []struct {
		name   string
		change func(*mesos.TaskInfo)
		want   string
		// takes is what the task takes out of the pool, if not its own resources.
		takes string
	}{
		{"a command", func(*mesos.TaskInfo) {}, "", ""},

		{"an empty id", func(task *mesos.TaskInfo) { task.TaskId.Value = proto.String("") }, "ID must not be empty", ""},
		{"a long id", func(task *mesos.TaskInfo) { task.TaskId.Value = proto.String(strings.Repeat("a", 256)) }, "ID must not be greater than 255 characters", ""},
		{"an id that climbs", func(task *mesos.TaskInfo) { task.TaskId.Value = proto.String("..") }, "'..' is disallowed", ""},
		{"an id with a slash", func(task *mesos.TaskInfo) { task.TaskId.Value = proto.String("a/b") }, "'a/b' contains invalid characters", ""},
		{"an id in use", func(task *mesos.TaskInfo) { task.TaskId.Value = proto.String("active") }, "Task has duplicate ID: active", ""},
		{"an id of an unreachable task", func(task *mesos.TaskInfo) { task.TaskId.Value = proto.String("lost") }, "Task reuses the ID of an unreachable task: lost", ""},
		{"another agent", func(task *mesos.TaskInfo) { task.AgentId.Value = proto.String("m-S9") }, "Task uses invalid agent m-S9 while agent m-S0 is expected", ""},
		{"a negative grace period", func(task *mesos.TaskInfo) { task.KillPolicy = &mesos.KillPolicy{GracePeriod: nanos(-1)} }, "Task's 'kill_policy.grace_period' must be non-negative", ""},
		{"a negative completion time", func(task *mesos.TaskInfo) { task.MaxCompletionTime = nanos(-1) }, "Task's `max_completion_time` must be non-negative", ""},

		{"a check of no type", check(&mesos.CheckInfo{}), "Task uses invalid check: CheckInfo must specify 'type'", ""},
		{"a check of an unknown type", check(&mesos.CheckInfo{Type: mesos.CheckInfo_UNKNOWN.Enum()}), "'UNKNOWN' is not a valid check type", ""},
		{"a command check without it", check(&mesos.CheckInfo{Type: mesos.CheckInfo_COMMAND.Enum()}), "Expecting 'command' to be set for COMMAND check", ""},
		{"a command check without a value", check(&mesos.CheckInfo{Type: mesos.CheckInfo_COMMAND.Enum(), Command: &mesos.CheckInfo_Command{Command: &mesos.CommandInfo{}}}), "Command check must contain 'shell command'", ""},
		{"a command check with a bad environment", check(&mesos.CheckInfo{Type: mesos.CheckInfo_COMMAND.Enum(), Command: &mesos.CheckInfo_Command{Command: variable(func(*mesos.Environment_Variable) {})}}), "Check's `CommandInfo` is invalid: Environment variable 'V'", ""},
		{"an HTTP check without it", check(&mesos.CheckInfo{Type: mesos.CheckInfo_HTTP.Enum()}), "Expecting 'http' to be set for HTTP check", ""},
		{"an HTTP check of a bad path", check(&mesos.CheckInfo{Type: mesos.CheckInfo_HTTP.Enum(), Http: &mesos.CheckInfo_Http{Port: proto.Uint32(80), Path: proto.String("x")}}), "The path 'x' of HTTP check must start with '/'", ""},
		{"a TCP check without it", check(&mesos.CheckInfo{Type: mesos.CheckInfo_TCP.Enum()}), "Expecting 'tcp' to be set for TCP check", ""},
		{"a check with a negative time", check(&mesos.CheckInfo{Type: mesos.CheckInfo_TCP.Enum(), Tcp: &mesos.CheckInfo_Tcp{Port: proto.Uint32(80)}, TimeoutSeconds: proto.Float64(-1)}), "Expecting 'timeout_seconds' to be non-negative", ""},
		{"a good check", check(&mesos.CheckInfo{Type: mesos.CheckInfo_TCP.Enum(), Tcp: &mesos.CheckInfo_Tcp{Port: proto.Uint32(80)}, DelaySeconds: proto.Float64(0)}), "", ""},

		{"a health check of no type", health(&mesos.HealthCheck{}), "Task uses invalid health check: HealthCheck must specify 'type'", ""},
		{"a health check of an unknown type", health(&mesos.HealthCheck{Type: mesos.HealthCheck_UNKNOWN.Enum()}), "'UNKNOWN' is not a valid health check type", ""},
		{"a command health check without it", health(&mesos.HealthCheck{Type: kind}), "Expecting 'command' to be set for COMMAND health check", ""},
		{"a command health check without a program", health(&mesos.HealthCheck{Type: kind, Command: &mesos.CommandInfo{Shell: proto.Bool(false)}}), "Command health check must contain 'executable path'", ""},
		{"a command health check with a bad environment", health(&mesos.HealthCheck{Type: kind, Command: variable(func(*mesos.Environment_Variable) {})}), "Health check's `CommandInfo` is invalid: ", ""},
		{"an HTTP health check without it", health(&mesos.HealthCheck{Type: mesos.HealthCheck_HTTP.Enum()}), "Expecting 'http' to be set for HTTP health check", ""},
		{"an HTTP health check by another scheme", health(&mesos.HealthCheck{Type: mesos.HealthCheck_HTTP.Enum(), Http: &mesos.HealthCheck_HTTPCheckInfo{Scheme: proto.String("ftp")}}), "Unsupported HTTP health check scheme: 'ftp'", ""},
		{"an HTTP health check of a bad path", health(&mesos.HealthCheck{Type: mesos.HealthCheck_HTTP.Enum(), Http: &mesos.HealthCheck_HTTPCheckInfo{Path: proto.String("")}}), "The path '' of HTTP health check must start with '/'", ""},
		{"a TCP health check without it", health(&mesos.HealthCheck{Type: mesos.HealthCheck_TCP.Enum()}), "Expecting 'tcp' to be set for TCP health check", ""},
		{"a negative delay", health(&mesos.HealthCheck{Type: kind, Command: shell, DelaySeconds: proto.Float64(-1)}), "Expecting 'delay_seconds' to be non-negative", ""},
		{"a negative grace", health(&mesos.HealthCheck{Type: kind, Command: shell, GracePeriodSeconds: proto.Float64(-1)}), "Expecting 'grace_period_seconds' to be non-negative", ""},
		{"an interval that is no number", health(&mesos.HealthCheck{Type: kind, Command: shell, IntervalSeconds: proto.Float64(math.NaN())}), "Expecting 'interval_seconds' to be non-negative", ""},
		{"a negative timeout", health(&mesos.HealthCheck{Type: kind, Command: shell, TimeoutSeconds: proto.Float64(-1)}), "Expecting 'timeout_seconds' to be non-negative", ""},
		{"a good health check", health(&mesos.HealthCheck{Type: mesos.HealthCheck_HTTP.Enum(), Http: &mesos.HealthCheck_HTTPCheckInfo{Port: proto.Uint32(80), Path: proto.String("/"), Scheme: proto.String("https")}}), "", ""},

		{"no resources", func(task *mesos.TaskInfo) { task.Resources = nil }, "Task uses no resources", ""},
		{"resources of 0", func(task *mesos.TaskInfo) {
			task.Resources = task.Resources[:1]
			task.Resources[0].Scalar.Value = proto.Float64(0)
		}, "Task uses no resources", ""},
		{"negative resources", func(task *mesos.TaskInfo) { task.Resources[0].Scalar.Value = proto.Float64(-1) }, "Task uses invalid resources: ", ""},
		{"a part of a GPU", func(task *mesos.TaskInfo) {
			task.Resources = append(task.Resources, &mesos.Resource{Name: proto.String("gpus"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(0.5)}})
		}, "Task uses invalid resources: ", ""},
		{"a volume id twice", res(twoVolumes), "Task uses duplicate persistence ID: Persistence ID 'v' is not unique", ""},
		{"resources of nobody", func(task *mesos.TaskInfo) { task.Resources = parseText(t, "cpus:1").Proto() }, "Invalid task resources: The resources are not allocated to a role", ""},
		{"resources of two roles", func(task *mesos.TaskInfo) {
			task.Resources = append(task.Resources, parseText(t, "cpus:1").AllocatedTo("batch").Proto()...)
		}, "Invalid task resources: The resources have multiple allocation roles ('web' and 'batch') but only one allocation role is allowed", ""},
		{"resources that may be taken back and such that may not", res(bothCPUs), "Task mixes revocable and non-revocable resources: Cannot use both revocable and non-revocable 'cpus' at the same time", ""},

		{"a variable without a value", command(variable(func(*mesos.Environment_Variable) {})), "Task's `CommandInfo` is invalid: Environment variable 'V' of type 'VALUE' must have a value set", ""},
		{"a variable with a secret too", command(variable(func(v *mesos.Environment_Variable) { v.Value, v.Secret = proto.String("x"), &mesos.Secret{} })), "of type 'VALUE' must not have a secret set", ""},
		{"a variable of an unknown type", command(variable(func(v *mesos.Environment_Variable) { v.Type = mesos.Environment_Variable_UNKNOWN.Enum() })), "Environment variable of type 'UNKNOWN' is not allowed", ""},
		{"a secret variable without it", command(variable(func(v *mesos.Environment_Variable) { v.Type = mesos.Environment_Variable_SECRET.Enum() })), "Environment variable 'V' of type 'SECRET' must have a secret set", ""},
		{"a secret variable with a value too", command(variable(func(v *mesos.Environment_Variable) {
			v.Type, v.Value, v.Secret = mesos.Environment_Variable_SECRET.Enum(), proto.String("x"), &mesos.Secret{}
		})), "of type 'SECRET' must not have a value set", ""},
		{"a secret by name without one", command(variable(func(v *mesos.Environment_Variable) {
			v.Type, v.Secret = mesos.Environment_Variable_SECRET.Enum(), &mesos.Secret{Type: mesos.Secret_REFERENCE.Enum()}
		})), "specifies an invalid secret: Secret of type REFERENCE must have the 'reference' field set", ""},
		{"a secret by name and by value", command(variable(func(v *mesos.Environment_Variable) {
			v.Type, v.Secret = mesos.Environment_Variable_SECRET.Enum(), &mesos.Secret{Type: mesos.Secret_REFERENCE.Enum(), Reference: &mesos.Secret_Reference{Name: proto.String("n")}, Value: &mesos.Secret_Value{}}
		})), "Secret 'n' of type REFERENCE must not have the 'value' field set", ""},
		{"a secret by value without one", command(variable(func(v *mesos.Environment_Variable) {
			v.Type, v.Secret = mesos.Environment_Variable_SECRET.Enum(), &mesos.Secret{Type: mesos.Secret_VALUE.Enum()}
		})), "Secret of type VALUE must have the 'value' field set", ""},
		{"a secret by value and by name", command(variable(func(v *mesos.Environment_Variable) {
			v.Type, v.Secret = mesos.Environment_Variable_SECRET.Enum(), &mesos.Secret{Type: mesos.Secret_VALUE.Enum(), Reference: &mesos.Secret_Reference{}, Value: &mesos.Secret_Value{}}
		})), "Secret of type VALUE must not have the 'reference' field set", ""},
		{"a secret with a null byte", command(variable(func(v *mesos.Environment_Variable) {
			v.Type, v.Secret = mesos.Environment_Variable_SECRET.Enum(), &mesos.Secret{Type: mesos.Secret_VALUE.Enum(), Value: &mesos.Secret_Value{Data: []byte("a\x00b")}}
		})), "a secret containing null bytes", ""},

		{"a volume of nothing", container(hostVolume(func(*mesos.Volume) {})), "Task's `ContainerInfo` is invalid: Invalid volume: Only one of them should be set: 'host_path', 'image' and 'source'", ""},
		{"a volume of two things", container(hostVolume(func(v *mesos.Volume) { v.HostPath, v.Image = proto.String("/x"), &mesos.Image{} })), "Only one of them should be set", ""},
		{"a volume of the host", container(hostVolume(func(v *mesos.Volume) { v.HostPath = proto.String("/x") })), "", ""},
		{"a source of no type", container(source(func(*mesos.Volume_Source) {})), "'source.type' is unknown", ""},
		{"a docker volume without it", container(source(func(s *mesos.Volume_Source) { s.Type = mesos.Volume_Source_DOCKER_VOLUME.Enum() })), "'source.docker_volume' is not set for DOCKER_VOLUME volume", ""},
		{"a host path without it", container(source(func(s *mesos.Volume_Source) { s.Type = mesos.Volume_Source_HOST_PATH.Enum() })), "'source.host_path' is not set for HOST_PATH volume", ""},
		{"a sandbox path without it", container(source(func(s *mesos.Volume_Source) { s.Type = mesos.Volume_Source_SANDBOX_PATH.Enum() })), "'source.sandbox_path' is not set for SANDBOX_PATH volume", ""},
		{"a secret volume without it", container(source(func(s *mesos.Volume_Source) { s.Type = mesos.Volume_Source_SECRET.Enum() })), "'source.secret' is not set for SECRET volume", ""},
		{"a CSI volume without it", container(source(func(s *mesos.Volume_Source) { s.Type = mesos.Volume_Source_CSI_VOLUME.Enum() })), "'source.csi_volume' is not set for CSI volume", ""},
		{"a CSI volume without provisioning", container(source(func(s *mesos.Volume_Source) {
			s.Type, s.CsiVolume = mesos.Volume_Source_CSI_VOLUME.Enum(), &mesos.Volume_Source_CSIVolume{}
		})), "'source.csi_volume.static_provisioning' is not set for CSI volume", ""},
		{"docker without it", container(&mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}), "DockerInfo 'docker' is not set for DOCKER typed ContainerInfo", ""},
		{"docker with a name", container(&mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{
			Parameters: []*mesos.Parameter{{Key: proto.String("name"), Value: proto.String("x")}},
		}}), "Parameter in DockerInfo must not be 'name'", ""},
		{"docker", container(&mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: proto.String("x")}}), "", ""},

		{"a limit of something else", limit("disk", 100), "Only cpus and mem may be included in a task's resource limits", ""},
		{"a limit of CPUs below the request", limit("cpus", 0.5), "The cpu limit must be greater than or equal to the cpu request", ""},
		{"a limit of memory below the request", limit("mem", 64), "The memory limit must be greater than or equal to the memory request", ""},
		{"a limit that is no number", limit("mem", math.NaN()), "The memory limit must be greater than or equal to the memory request", ""},
		{"no limit at all", limit("mem", math.Inf(1)), "", ""},
		{"a limit without a request", func(task *mesos.TaskInfo) {
			task.Resources = allocated(t, "mem:64")
			limit("cpus", 1)(task)
		}, "When a CPU limit is specified, a CPU request must also be specified", ""},

		{"neither command nor executor", func(task *mesos.TaskInfo) { task.Command = nil }, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present", ""},
		{"both command and executor", func(task *mesos.TaskInfo) { task.Executor = customExecutor(t) }, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present", ""},

		{"an executor", withExecutor(t, func(*mesos.ExecutorInfo) {}), "", "cpus:1.1;mem:160;ports:[31000-31001]"},
		{"a custom executor", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Type = mesos.ExecutorInfo_CUSTOM.Enum() }), "", "cpus:1.1;mem:160;ports:[31000-31001]"},
		{"a running executor", withExecutor(t, func(e *mesos.ExecutorInfo) { e.ExecutorId.Value = proto.String("running") }), "", ""},
		{"a small executor", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Resources = nil }), "", ""},
		{"a running executor that is another", withExecutor(t, func(e *mesos.ExecutorInfo) { e.ExecutorId.Value, e.Name = proto.String("running"), proto.String("x") }), "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID", ""},
		{"a default executor", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Type, e.Command = mesos.ExecutorInfo_DEFAULT.Enum(), nil }), "'ExecutorInfo.type' must be 'CUSTOM'", ""},
		{"a default executor with a command", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Type = mesos.ExecutorInfo_DEFAULT.Enum() }), "'ExecutorInfo.command' must not be set for 'DEFAULT' executor", ""},
		{"a default executor in docker", withExecutor(t, func(e *mesos.ExecutorInfo) {
			e.Type, e.Command, e.Container = mesos.ExecutorInfo_DEFAULT.Enum(), nil, &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}
		}), "'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor", ""},
		{"a default executor with an image", withExecutor(t, func(e *mesos.ExecutorInfo) {
			e.Type, e.Command = mesos.ExecutorInfo_DEFAULT.Enum(), nil
			e.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Mesos: &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{}}}
		}), "'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor", ""},
		{"a custom executor without a command", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Type, e.Command = mesos.ExecutorInfo_CUSTOM.Enum(), nil }), "'ExecutorInfo.command' must be set for 'CUSTOM' executor", ""},
		{"an executor without a command", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Command = nil }), "'ExecutorInfo.command' must be set", ""},
		{"an executor with a bad id", withExecutor(t, func(e *mesos.ExecutorInfo) { e.ExecutorId.Value = proto.String("a/b") }), "'a/b' contains invalid characters", ""},
		{"an executor with a negative grace period", withExecutor(t, func(e *mesos.ExecutorInfo) { e.ShutdownGracePeriod = nanos(-1) }), "ExecutorInfo's 'shutdown_grace_period' must be non-negative", ""},
		{"an executor with a bad environment", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Command = variable(func(*mesos.Environment_Variable) {}) }), "Executor's `CommandInfo` is invalid: ", ""},
		{"an executor with a bad container", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Container = hostVolume(func(*mesos.Volume) {}) }), "Executor's `ContainerInfo` is invalid: ", ""},
		{"an executor of no framework", withExecutor(t, func(e *mesos.ExecutorInfo) { e.FrameworkId = nil }), "'ExecutorInfo.framework_id' must be set", ""},
		{"an executor of another framework", withExecutor(t, func(e *mesos.ExecutorInfo) { e.FrameworkId = frameworkID("x") }), "ExecutorInfo has an invalid FrameworkID (Actual: x vs Expected: m-0000)", ""},
		{"an executor with negative resources", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Resources[0].Scalar.Value = proto.Float64(-1) }), "Executor uses invalid resources: ", ""},
		{"an executor with a volume id twice", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Resources = allocated(t, twoVolumes) }), "Executor uses duplicate persistence ID: ", ""},
		{"an executor with resources of nobody", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Resources = parseText(t, "cpus:1").Proto() }), "Invalid executor resources: The resources are not allocated to a role", ""},
		{"an executor with mixed resources", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Resources = allocated(t, bothCPUs) }), "Executor mixes revocable and non-revocable resources: ", ""},
		{"an executor with shared resources", withExecutor(t, func(e *mesos.ExecutorInfo) {
			e.Resources = allocated(t, `[{"name":"disk","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"web"}],
			 "disk":{"persistence":{"id":"v"},"volume":{"mode":"RW","container_path":"a"}},"shared":{}}]`)
		}), "should not contain any shared resources", ""},
		{"an executor that shares cgroups", withExecutor(t, func(e *mesos.ExecutorInfo) {
			e.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: &mesos.LinuxInfo{ShareCgroups: proto.Bool(true)}}
		}), "The 'share_cgroups' field cannot be set to 'true' on executor containers", ""},
		{"an executor with the task's port", withExecutor(t, func(e *mesos.ExecutorInfo) { e.Resources = allocated(t, "cpus:1;ports:[31001-31002]") }), "There are overlapping resources in the task resources ", ""},
		{"an executor that mixes with its task", withExecutor(t, func(e *mesos.ExecutorInfo) {
			e.Resources = allocated(t, `[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"revocable":{}}]`)
		}), "Task and its executor mix revocable and non-revocable resources: ", ""},
		{"an executor with its task's volume id", func(task *mesos.TaskInfo) {
			withExecutor(t, func(e *mesos.ExecutorInfo) { e.Resources = allocated(t, twoVolumes)[:1] })(task)
			task.Resources = allocated(t, twoVolumes)[1:]
		}, "Task and its executor use duplicate persistence ID: ", ""},

		{"more than is offered", res("cpus:5"), "Total resources cpus(allocated: web):5 required by task and its executor is more than available ", ""},
		{"too much with its executor", func(task *mesos.TaskInfo) {
			withExecutor(t, func(*mesos.ExecutorInfo) {})(task)
			task.Resources = allocated(t, "cpus:4")
		}, "required by task and its executor is more than available ", ""},
		{"a port that is not offered", res("cpus:1;ports:[31005-31006]"), "is more than available ", ""},
		{"cgroups of its own", container(&mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: &mesos.LinuxInfo{ShareCgroups: proto.Bool(false)}}), "Only tasks in a task group may have 'share_cgroups' set to 'false'", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task, ctx := launching(t)
			tt.change(task)
			before := proto.CloneOf(task)
			got, err := Task(task, ctx)
			expect(t, err, tt.want)
			if !proto.Equal(task, before) {
				t.Error("the task was changed")
			}
			want := parseText(t, tt.takes).AllocatedTo("web")
			if tt.takes == "" {
				if want, err = parse(task.GetResources()); tt.want != "" || err != nil {
					want = parseText(t, "")
				}
			}
			if !got.Equal(want) {
				t.Errorf("want it to take %v, got %v", want, got)
			}
		})
	}
}

func TestTaskInAnEmptyContext(t *testing.T) {
	task, full := launching(t)
	withExecutor(t, func(*mesos.ExecutorInfo) {})(task)
	_, err := Task(task, Context{Framework: full.Framework, AgentID: full.AgentID, Pool: full.Pool})
	expect(t, err, "")
}
