package validation

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

type group struct {
	executor *mesos.ExecutorInfo
	tasks    []*mesos.TaskInfo
}

// launchingGroup is a group of two as the master completes it: each task has the executor.
func launchingGroup(t testing.TB) (*group, Context) {
	_, ctx := launching(t)
	g := &group{executor: &mesos.ExecutorInfo{
		Type: mesos.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mesos.ExecutorID{Value: proto.String("e-1")},
		FrameworkId: frameworkID("m-0000"), Resources: allocated(t, "cpus:0.1;mem:32;disk:10"),
	}}
	for _, id := range []string{"t-1", "t-2"} {
		task, _ := launching(t)
		task.TaskId.Value = proto.String(id)
		task.Resources = allocated(t, "cpus:1;mem:128")
		g.tasks = append(g.tasks, task)
	}
	return g, ctx
}

// complete gives the tasks that have none the executor.
func (g *group) complete() {
	for _, task := range g.tasks {
		if task.Executor == nil {
			task.Executor = g.executor
		}
	}
}

func linux(share bool) *mesos.ContainerInfo {
	return &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: &mesos.LinuxInfo{ShareCgroups: &share}}
}

func TestGroup(t *testing.T) {
	docker := &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{}}
	for _, tt := range []struct {
		name   string
		change func(*group)
		want   string
		takes  string
	}{
		{"two tasks", func(*group) {}, "", "cpus:2.1;mem:288;disk:10"},
		{"a running executor", func(g *group) {
			g.executor = customExecutor(t)
			g.executor.ExecutorId.Value = proto.String("running")
		}, "'ExecutorInfo.type' must be set", ""},
		{"no tasks", func(g *group) { g.tasks = nil }, "Task group contains no tasks", ""},
		{"a bad task", func(g *group) { g.tasks[1].AgentId.Value = proto.String("x") }, "Task 't-2' is invalid: Task uses invalid agent x while agent m-S0 is expected", ""},
		{"an id twice", func(g *group) { g.tasks[1].TaskId.Value = proto.String("t-1") }, "Task 't-1' is invalid: Task has duplicate ID: t-1", ""},
		{"a task in docker", func(g *group) { g.tasks[0].Container = docker }, "Task 't-1' is invalid: Docker ContainerInfo is not supported on the task", ""},
		{"a probe into another network", func(g *group) {
			g.tasks[0].Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesos.NetworkInfo{{}}}
			g.tasks[0].HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_TCP.Enum(), Tcp: &mesos.HealthCheck_TCPCheckInfo{Port: proto.Uint32(80)}}
		}, "HTTP and TCP health checks are not supported for nested containers not joining parent's network", ""},
		{"a command in another network", func(g *group) {
			g.tasks[0].Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesos.NetworkInfo{{}}}
			g.tasks[0].HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_COMMAND.Enum(), Command: &mesos.CommandInfo{Value: proto.String("true")}}
		}, "", "cpus:2.1;mem:288;disk:10"},
		{"a limit in a shared cgroup", func(g *group) {
			g.tasks[0].Limits = map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(2)}}
		}, "Resource limits may only be set for tasks within a task group when the 'share_cgroups' field is set to 'false'.", ""},
		{"a limit in a cgroup of its own", func(g *group) {
			g.tasks[0].Limits = map[string]*mesos.Value_Scalar{"cpus": {Value: proto.Float64(2)}}
			g.tasks[0].Container, g.tasks[1].Container = linux(false), linux(false)
		}, "", "cpus:2.1;mem:288;disk:10"},
		{"one with a cgroup of its own, one without", func(g *group) { g.tasks[1].Container = linux(false) }, "If set, the value of 'share_cgroups' must be the same for all tasks", ""},
		{"an executor in a shared cgroup", func(g *group) { g.executor.Container = linux(true) }, "The 'share_cgroups' field cannot be set to 'true' on executor containers", ""},
		{"an executor of no type", func(g *group) { g.executor.Type = nil }, "'ExecutorInfo.type' must be set", ""},
		{"an executor of an unknown type", func(g *group) { g.executor.Type = mesos.ExecutorInfo_UNKNOWN.Enum() }, "Unknown executor type", ""},
		{"a bad executor", func(g *group) { g.executor.FrameworkId = nil }, "'ExecutorInfo.framework_id' must be set", ""},
		{"a custom executor in docker", func(g *group) {
			g.executor.Type, g.executor.Command, g.executor.Container = mesos.ExecutorInfo_CUSTOM.Enum(), &mesos.CommandInfo{Value: proto.String("x")}, docker
		}, "Docker ContainerInfo is not supported on the executor", ""},
		{"a task with another executor", func(g *group) { g.tasks[1].Executor = customExecutor(t) }, "The `ExecutorInfo` of task 't-2' is different from executor 'e-1'", ""},
		{"an executor of few CPUs", func(g *group) { g.executor.Resources = allocated(t, "cpus:0.005;mem:32;disk:1") }, "Executor 'e-1' uses less CPUs (0.005) than the minimum required (0.01)", ""},
		{"an executor of no CPUs", func(g *group) { g.executor.Resources = allocated(t, "mem:32;disk:1") }, "Executor 'e-1' uses less CPUs (None) than the minimum required (0.01)", ""},
		{"an executor of little memory", func(g *group) { g.executor.Resources = allocated(t, "cpus:0.1;mem:16;disk:1") }, "Executor 'e-1' uses less memory (16MB) than the minimum required (32MB)", ""},
		{"an executor of no disk", func(g *group) { g.executor.Resources = allocated(t, "cpus:0.1;mem:32") }, "Executor 'e-1' uses no disk", ""},
		{"a volume id twice", func(g *group) {
			vs := allocated(t, twoVolumes)
			g.tasks[0].Resources, g.tasks[1].Resources = vs[:1], vs[1:]
		}, "Task group and executor use duplicate persistence ID: ", ""},
		{"mixed resources", func(g *group) {
			g.tasks[0].Resources = allocated(t, `[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"revocable":{}}]`)
		}, "Task group and executor mix revocable and non-revocable resources: ", ""},
		{"a port twice", func(g *group) {
			g.tasks[0].Resources, g.tasks[1].Resources = allocated(t, "cpus:1;ports:[31000-31001]"), allocated(t, "cpus:1;ports:[31001-31002]")
		}, "There are overlapping resources in the task group's task resources ", ""},
		{"more than is offered", func(g *group) { g.tasks[0].Resources = allocated(t, "cpus:3") }, "required by task group and its executor are more than available ", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, ctx := launchingGroup(t)
			tt.change(g)
			g.complete()
			got, err := Group(g.executor, g.tasks, ctx)
			expect(t, err, tt.want)
			if want := parseText(t, tt.takes).AllocatedTo("web"); !got.Equal(want) {
				t.Errorf("want it to take %v, got %v", want, got)
			}
		})
	}
}

func TestGroupWithoutAnExecutorInATask(t *testing.T) {
	g, ctx := launchingGroup(t)
	_, err := Group(g.executor, g.tasks, ctx)
	expect(t, err, "Task 't-1' is invalid: 'TaskInfo.executor' must be set")
}

func TestGroupOnARunningExecutorTakesNoMoreForIt(t *testing.T) {
	g, ctx := launchingGroup(t)
	g.complete()
	ctx.Executor = func(string) *mesos.ExecutorInfo { return g.executor }
	got, err := Group(g.executor, g.tasks, ctx)
	expect(t, err, "")
	if want := parseText(t, "cpus:2;mem:256").AllocatedTo("web"); !got.Equal(want) {
		t.Errorf("want it to take %v, got %v", want, got)
	}
}
