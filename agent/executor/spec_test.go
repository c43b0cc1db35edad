package executor

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

func testConfig() Config {
	return Config{
		AgentID: "a-S0", Address: "10.0.0.11", Port: 5051, ShutdownGrace: 5 * time.Second, RecoveryTimeout: 15 * time.Minute,
		SubscriptionBackoff: 2 * time.Second, Environment: map[string]string{"SITE": "roof", "PATH": "/opt/bin"}, SwitchUser: true,
		SandboxDirectory: "/mnt/mesos/sandbox",
	}
}

func TestSpec(t *testing.T) {
	res, err := resources.Parse("cpus:0.5;mem:64", "*")
	if err != nil {
		t.Fatal(err)
	}
	res = res.AllocatedTo("web")
	f := framework()
	f.Checkpoint = proto.Bool(true)
	info := task(func(i *mesos.TaskInfo) {
		i.Command = &mesos.CommandInfo{
			Value: proto.String("exec ./web $PORT0"), Arguments: []string{"ignored"},
			Environment: &mesos.Environment{Variables: []*mesos.Environment_Variable{
				{Name: proto.String("PORT0"), Value: proto.String("31000")}, {Name: proto.String("SITE"), Value: proto.String("cellar")},
			}},
		}
	})
	spec := testConfig().Spec(f, info, res, "c1", "/w/runs/c1")
	if spec.Path != "/bin/sh" || !slices.Equal(spec.Args, []string{"sh", "-c", "exec ./web $PORT0"}) {
		t.Errorf("command: got %q %q", spec.Path, spec.Args)
	}
	if spec.User != "svc" || spec.Dir != "/w/runs/c1" || spec.Stdout != "/w/runs/c1/stdout" || spec.Stderr != "/w/runs/c1/stderr" {
		t.Errorf("got %+v", spec)
	}
	if spec.Limits.CPUs != 0.6 || spec.Limits.MemBytes != 96<<20 {
		t.Errorf("limits: got %v cpus and %d bytes", spec.Limits.CPUs, spec.Limits.MemBytes)
	}
	want := []string{
		"LIBPROCESS_PORT=0", "MESOS_AGENT_ENDPOINT=10.0.0.11:5051", "MESOS_ALLOCATION_ROLE=web", "MESOS_CHECKPOINT=1",
		"MESOS_DIRECTORY=/w/runs/c1", "MESOS_EXECUTOR_ID=t", "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD=5secs", "MESOS_FRAMEWORK_ID=f",
		"MESOS_HTTP_COMMAND_EXECUTOR=0", "MESOS_RECOVERY_TIMEOUT=15mins", "MESOS_SANDBOX=/w/runs/c1", "MESOS_SLAVE_ID=a-S0",
		"MESOS_SLAVE_PID=slave(1)@10.0.0.11:5051", "MESOS_SUBSCRIPTION_BACKOFF_MAX=2secs", "PATH=/opt/bin", "PORT0=31000", "SITE=cellar",
	}
	if !slices.Equal(spec.Env, want) {
		t.Errorf("environment:\ngot  %q\nwant %q", spec.Env, want)
	}

	info.Command.Shell, info.Command.User = proto.Bool(false), proto.String("web")
	info.Command.Value, info.Command.Arguments = proto.String("./web"), []string{"web", "-p"}
	spec = testConfig().Spec(framework(), info, res, "c1", "/w")
	if spec.Path != "./web" || !slices.Equal(spec.Args, []string{"web", "-p"}) || spec.User != "web" {
		t.Errorf("without a shell: got %+v", spec)
	}
	if slices.ContainsFunc(spec.Env, func(v string) bool { return strings.HasPrefix(v, "MESOS_RECOVERY_TIMEOUT") }) {
		t.Error("a framework without checkpoints gets the recovery timeout")
	}
	info.Command.Arguments = nil
	if spec = (Config{}).Spec(framework(), info, res, "c1", "/w"); !slices.Equal(spec.Args, []string{"./web"}) || spec.User != "" {
		t.Errorf("without arguments and users: got %+v", spec)
	}
}

func TestSpecOfAContainerWithItsOwnRoot(t *testing.T) {
	res, err := resources.Parse("cpus:0.5;mem:64", "*")
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig()
	delete(c.Environment, "PATH")
	image := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Mesos: &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{}}}
	for _, tc := range []struct {
		name      string
		container *mesos.ContainerInfo
		own       bool
		mem       int64
		called    string // MESOS_CONTAINER_NAME
	}{
		{"none", nil, false, 96 << 20, ""},
		{"mesos without image", &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}, false, 96 << 20, ""},
		{"mesos", image, true, 96 << 20, ""},
		{"docker", &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}, true, 64 << 20, "mesos-c1"},
	} {
		info := task(func(i *mesos.TaskInfo) { i.Container = tc.container })
		spec := c.Spec(framework(), info, res, "c1", "/w")
		env := map[string]string{}
		for _, v := range spec.Env {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
		sandbox := "/w"
		if tc.own {
			sandbox = "/mnt/mesos/sandbox"
		}
		if _, path := env["PATH"]; path == tc.own || env["MESOS_SANDBOX"] != sandbox || env["MESOS_DIRECTORY"] != "/w" || env["MESOS_CONTAINER_NAME"] != tc.called {
			t.Errorf("%s: environment %q", tc.name, spec.Env)
		}
		if (spec.Command != nil) != tc.own || spec.Container != tc.container || spec.Limits.MemBytes != tc.mem {
			t.Errorf("%s: got %+v", tc.name, spec)
		}
	}
}

func TestLimits(t *testing.T) {
	res, err := resources.Parse("cpus:0.5;mem:64", "*")
	if err != nil {
		t.Fatal(err)
	}
	scalar := func(v float64) *mesos.Value_Scalar { return &mesos.Value_Scalar{Value: &v} }
	for _, tc := range []struct {
		limits map[string]*mesos.Value_Scalar
		want   containerizer.Limits
	}{
		{nil, containerizer.Limits{CPUs: 0.6, MemBytes: 96 << 20}},
		{
			map[string]*mesos.Value_Scalar{"cpus": scalar(2), "mem": scalar(128)},
			containerizer.Limits{CPUs: 0.6, CPULimit: 2.1, MemBytes: 96 << 20, MemLimit: 160 << 20},
		},
		{
			map[string]*mesos.Value_Scalar{"cpus": scalar(math.Inf(1)), "mem": scalar(math.Inf(1))},
			containerizer.Limits{CPUs: 0.6, CPULimit: containerizer.Unlimited, MemBytes: 96 << 20, MemLimit: containerizer.Unlimited},
		},
	} {
		if got := Limits(task(func(i *mesos.TaskInfo) { i.Limits = tc.limits }), res); got != tc.want {
			t.Errorf("%v: got %+v, want %+v", tc.limits, got, tc.want)
		}
	}
}

func TestCheck(t *testing.T) {
	variable := func(v *mesos.Environment_Variable) func(*mesos.TaskInfo) {
		return func(i *mesos.TaskInfo) {
			i.Command.Environment = &mesos.Environment{Variables: []*mesos.Environment_Variable{v}}
		}
	}
	container := func(c *mesos.ContainerInfo) func(*mesos.TaskInfo) {
		c.Type = mesos.ContainerInfo_MESOS.Enum()
		return func(i *mesos.TaskInfo) { i.Container = c }
	}
	for _, tc := range []struct {
		name   string
		change func(*mesos.TaskInfo)
		state  mesos.TaskState // of the refusal; TASK_RUNNING for none
		texts  []string
	}{
		{"a command", func(*mesos.TaskInfo) {}, mesos.TaskState_TASK_RUNNING, nil},
		{"a plain container", container(&mesos.ContainerInfo{NetworkInfos: []*mesos.NetworkInfo{{}}}), mesos.TaskState_TASK_RUNNING, nil},
		{"no command", func(i *mesos.TaskInfo) { i.Command = nil }, mesos.TaskState_TASK_ERROR, []string{"CommandInfo"}},
		{"an empty command", func(i *mesos.TaskInfo) { i.Command.Value = nil }, mesos.TaskState_TASK_ERROR, []string{"'value' must be set"}},
		{"a bad name", variable(&mesos.Environment_Variable{Name: proto.String("A=B")}), mesos.TaskState_TASK_ERROR, []string{`"A=B"`}},
		{"NUL", variable(&mesos.Environment_Variable{Name: proto.String("A"), Value: proto.String("\x00")}), mesos.TaskState_TASK_ERROR, []string{"NUL"}},
		{
			"a secret", variable(&mesos.Environment_Variable{Name: proto.String("A"), Type: mesos.Environment_Variable_SECRET.Enum()}),
			mesos.TaskState_TASK_FAILED,
			[]string{"secrets are not supported"},
		},
		{
			"much that needs a container", container(&mesos.ContainerInfo{
				Mesos: &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{}}, Volumes: []*mesos.Volume{{}}, Hostname: proto.String("x"),
				NetworkInfos: []*mesos.NetworkInfo{{Name: proto.String("bridge")}}, LinuxInfo: &mesos.LinuxInfo{},
				RlimitInfo: &mesos.RLimitInfo{}, TtyInfo: &mesos.TTYInfo{},
			}), mesos.TaskState_TASK_RUNNING, nil,
		},
		{
			"volumes that nobody has", container(&mesos.ContainerInfo{Volumes: []*mesos.Volume{
				{ContainerPath: proto.String("a"), Image: &mesos.Image{}},
				{ContainerPath: proto.String("b"), Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SECRET.Enum()}},
				{ContainerPath: proto.String("c"), Source: &mesos.Volume_Source{Type: mesos.Volume_Source_CSI_VOLUME.Enum()}},
			}}), mesos.TaskState_TASK_FAILED, []string{`"a" is an image`, `"b" is a secret`, `"c" is of CSI`},
		},
		{"an image that says what to run", func(i *mesos.TaskInfo) {
			i.Command = &mesos.CommandInfo{Shell: proto.Bool(false)}
			i.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Mesos: &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{}}}
		}, mesos.TaskState_TASK_RUNNING, nil},
		{"a docker container without a command", func(i *mesos.TaskInfo) {
			i.Command = &mesos.CommandInfo{Shell: proto.Bool(false)}
			i.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}
		}, mesos.TaskState_TASK_RUNNING, nil},
	} {
		err := Check(task(tc.change))
		refusal, refused := errors.AsType[*Refusal](err)
		if refused != (tc.state != mesos.TaskState_TASK_RUNNING) {
			t.Errorf("%s: got %v", tc.name, err)
			continue
		}
		if refused && refusal.State != tc.state {
			t.Errorf("%s: got %s, want %s", tc.name, refusal.State, tc.state)
		}
		for _, text := range tc.texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %q, want it to name %q", tc.name, err, text)
			}
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ns", 5 * time.Second: "5secs", time.Minute: "1mins", 90 * time.Second: "90secs", 500 * time.Millisecond: "500ms",
		14 * 24 * time.Hour: "2weeks", 36 * time.Hour: "36hrs", 1500 * time.Nanosecond: "1500ns", 3 * time.Microsecond: "3us", 48 * time.Hour: "2days",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestName(t *testing.T) {
	for command, want := range map[string]string{
		"sleep 100":               "Command Executor (Task: t) (Command: sh -c 'sleep 100')",
		"exec ./web --port=$PORT": "Command Executor (Task: t) (Command: sh -c 'exec ./web -...')",
		"echo ääääääääää":         "Command Executor (Task: t) (Command: sh -c 'echo äää...')",
	} {
		if got := Name(task(func(i *mesos.TaskInfo) { i.Command.Value = &command })); got != want {
			t.Errorf("%q: got %q, want %q", command, got, want)
		}
	}
}
