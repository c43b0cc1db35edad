package executor

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

var begun = time.Unix(1_700_000_000, 0)

func framework(capabilities ...mesos.FrameworkInfo_Capability_Type) *mesos.FrameworkInfo {
	f := &mesos.FrameworkInfo{Id: &mesos.FrameworkID{Value: proto.String("f")}, User: proto.String("svc")}
	for _, c := range capabilities {
		f.Capabilities = append(f.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return f
}

func task(change ...func(*mesos.TaskInfo)) *mesos.TaskInfo {
	info := &mesos.TaskInfo{TaskId: &mesos.TaskID{Value: proto.String("t")}, Command: &mesos.CommandInfo{Value: proto.String("true")}}
	for _, f := range change {
		f(info)
	}
	return info
}

func grace(d time.Duration) *mesos.KillPolicy {
	return &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(d))}}
}

// show writes a step down in one line.
func show(s Step) string {
	var out []string
	for _, st := range s.Statuses {
		text := strings.TrimPrefix(st.GetState().String(), "TASK_")
		if st.Reason != nil {
			text += ":" + strings.TrimPrefix(st.GetReason().String(), "REASON_")
		}
		if st.Healthy != nil {
			text += map[bool]string{true: " healthy", false: " unhealthy"}[st.GetHealthy()]
		}
		out = append(out, text)
	}
	if s.Signal != 0 {
		out = append(out, s.Signal.String())
	}
	if s.Destroy {
		out = append(out, "destroy")
	}
	return strings.Join(out, ", ")
}

func exited(status int) containerizer.Exit { return containerizer.Exit{Known: true, Status: status} }

func TestLives(t *testing.T) {
	at := func(d time.Duration) time.Time { return begun.Add(d) }
	type event func(*Command) Step
	launched := func(c *Command) Step { return c.Launched(begun, begun) }
	exit := func(status int) event { return func(c *Command) Step { return c.Exited(exited(status)) } }
	kill := func(d time.Duration, policy *mesos.KillPolicy) event {
		return func(c *Command) Step { return c.Kill(at(d), policy) }
	}
	wake := func(d time.Duration) event { return func(c *Command) Step { return c.Wake(at(d)) } }
	killing := mesos.FrameworkInfo_Capability_TASK_KILLING_STATE
	for _, tc := range []struct {
		name      string
		framework *mesos.FrameworkInfo
		task      *mesos.TaskInfo
		events    []event
		want      []string
	}{
		{"finishes", framework(), task(), []event{launched, exit(0)}, []string{"RUNNING", "FINISHED"}},
		{"fails", framework(), task(), []event{launched, exit(3 << 8)}, []string{"RUNNING", "FAILED"}},
		{"dies of a signal", framework(), task(), []event{launched, exit(9)}, []string{"RUNNING", "FAILED"}},
		{
			"the memory limit ends it", framework(), task(),
			[]event{launched, func(c *Command) Step { return c.Exited(containerizer.Exit{Known: true, Status: 9, OOM: true}) }},
			[]string{"RUNNING", "FAILED:CONTAINER_LIMITATION_MEMORY"},
		},
		{
			"nobody knows how it ended", framework(), task(),
			[]event{launched, func(c *Command) Step { return c.Exited(containerizer.Exit{}) }},
			[]string{"RUNNING", "FAILED:EXECUTOR_TERMINATED"},
		},
		{
			"cannot be launched", framework(), task(),
			[]event{func(c *Command) Step { return c.LaunchFailed(errors.New("x")) }, exit(0)},
			[]string{"FAILED:CONTAINER_LAUNCH_FAILED", ""},
		},
		{"killed", framework(), task(), []event{launched, kill(0, nil), exit(15)}, []string{"RUNNING", "terminated", "KILLED"}},
		{
			"killed, and ends well on the signal", framework(killing), task(),
			[]event{launched, kill(0, nil), exit(0)},
			[]string{"RUNNING", "KILLING, terminated", "KILLED"},
		},
		{
			"ignores the signal", framework(), task(),
			[]event{launched, kill(0, nil), wake(2999 * time.Millisecond), wake(3 * time.Second), wake(time.Minute), exit(9)},
			[]string{"RUNNING", "terminated", "", "destroy", "", "KILLED"},
		},
		{
			"its own policy holds", framework(), task(func(i *mesos.TaskInfo) { i.KillPolicy = grace(time.Minute) }),
			[]event{launched, kill(0, nil), wake(59 * time.Second), wake(time.Minute)},
			[]string{"RUNNING", "terminated", "", "destroy"},
		},
		{
			"the call's policy beats its own", framework(), task(func(i *mesos.TaskInfo) { i.KillPolicy = grace(time.Minute) }),
			[]event{launched, kill(0, grace(time.Second)), wake(time.Second)},
			[]string{"RUNNING", "terminated", "destroy"},
		},
		{"no grace", framework(), task(), []event{launched, kill(0, grace(0)), exit(9)}, []string{"RUNNING", "destroy", "KILLED"}},
		{
			"a second kill shortens", framework(), task(),
			[]event{launched, kill(0, grace(time.Minute)), kill(time.Second, grace(time.Second)), wake(2 * time.Second)},
			[]string{"RUNNING", "terminated", "", "destroy"},
		},
		{
			"a second kill does not lengthen", framework(), task(),
			[]event{launched, kill(0, nil), kill(time.Second, grace(time.Hour)), wake(3 * time.Second)},
			[]string{"RUNNING", "terminated", "", "destroy"},
		},
		{"killed before it is launched", framework(), task(), []event{kill(0, nil), (*Command).CancelLaunch}, []string{"", "KILLED:TASK_KILLED_DURING_LAUNCH"}},
		{"killed while it is launched", framework(), task(), []event{kill(0, nil), launched, exit(15)}, []string{"", "RUNNING, terminated", "KILLED"}},
		{
			"takes too long", framework(killing), task(func(i *mesos.TaskInfo) {
				i.MaxCompletionTime = &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(time.Minute))}
			}),
			[]event{launched, wake(59 * time.Second), wake(time.Minute), exit(9)},
			[]string{"RUNNING", "", "KILLING:MAX_COMPLETION_TIME_REACHED, destroy", "FAILED:MAX_COMPLETION_TIME_REACHED"},
		},
		{
			"is unhealthy", framework(), task(),
			[]event{
				launched, func(c *Command) Step { return c.Checked(true) }, func(c *Command) Step { return c.Checked(false) },
				func(c *Command) Step { return c.Fail(begun) }, func(c *Command) Step { return c.Checked(true) }, exit(15),
			},
			[]string{
				"RUNNING", "RUNNING:TASK_HEALTH_CHECK_STATUS_UPDATED healthy", "RUNNING:TASK_HEALTH_CHECK_STATUS_UPDATED unhealthy",
				"terminated", "", "KILLED unhealthy",
			},
		},
		{"a kill after the end changes nothing", framework(), task(), []event{launched, exit(0), kill(0, nil)}, []string{"RUNNING", "FINISHED", ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := NewCommand(tc.framework, tc.task)
			var got []string
			for _, e := range tc.events {
				got = append(got, show(e(c)))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestResume(t *testing.T) {
	c := NewCommand(framework(mesos.FrameworkInfo_Capability_TASK_KILLING_STATE), task())
	c.Resume([]*mesos.TaskStatus{
		{State: mesos.TaskState_TASK_RUNNING.Enum(), Healthy: proto.Bool(true)}, {State: mesos.TaskState_TASK_KILLING.Enum()},
	}, &Order{Grace: time.Second, At: begun})
	if got, want := show(c.Launched(begun, begun.Add(-time.Hour))), "terminated"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := show(c.Exited(exited(15))), "KILLED healthy"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMessages(t *testing.T) {
	docker := func(i *mesos.TaskInfo) {
		i.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}
	}
	for _, tc := range []struct {
		task *mesos.TaskInfo
		exit containerizer.Exit
		want string
		used float64
	}{
		{task(), exited(0), "Command exited with status 0", 0},
		{task(docker), exited(3 << 8), "Container exited with status 3", 0},
		{task(docker), containerizer.Exit{Message: "engine is gone"}, "The container ended, and its exit status could not be learned: engine is gone", 0},
		{task(), containerizer.Exit{Known: true, Status: 9, OOM: true}, "Memory limit exceeded; Command terminated with signal Killed", 0},
		{
			task(),
			containerizer.Exit{Known: true, Status: 9, OOM: true, MemLimit: 64 << 20, MemPeak: 64<<20 - 4096},
			"Memory limit exceeded: Requested: 64MB Maximum Used: 65532KB; Command terminated with signal Killed", 64,
		},
		{task(docker), containerizer.Exit{Known: true, Status: 137 << 8, OOM: true, MemLimit: 32 << 20}, "Memory limit exceeded: Requested: 32MB; Container exited with status 137", 32},
	} {
		c := testConfig().Command(framework(), tc.task)
		c.Launched(begun, begun)
		status := c.Exited(tc.exit).Statuses[0]
		if got := status.GetMessage(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
		used := status.GetLimitation().GetResources()
		if (len(used) == 1) != (tc.used > 0) || len(used) == 1 && (used[0].GetName() != "mem" || used[0].GetScalar().GetValue() != tc.used) {
			t.Errorf("limitation: got %v, want %v", used, tc.used)
		}
	}
}

func TestGraceOfDockerContainersIsThatOfExecutors(t *testing.T) {
	for kind, want := range map[mesos.ContainerInfo_Type]time.Duration{
		mesos.ContainerInfo_MESOS: DefaultGrace, mesos.ContainerInfo_DOCKER: 5 * time.Second,
	} {
		c := testConfig().Command(framework(), task(func(i *mesos.TaskInfo) { i.Container = &mesos.ContainerInfo{Type: kind.Enum()} }))
		c.Launched(begun, begun)
		c.Kill(begun, nil)
		if at, ok := c.NextWake(); !ok || at.Sub(begun) != want {
			t.Errorf("%s: got %v, want %v", kind, at.Sub(begun), want)
		}
	}
}

func TestDescribe(t *testing.T) {
	for status, want := range map[int]string{
		0: "Command exited with status 0", 127 << 8: "Command exited with status 127", 9: "Command terminated with signal Killed",
		15: "Command terminated with signal Terminated", 6 | 0x80: "Command terminated with signal Aborted (core dumped)",
	} {
		if got := Describe("Command", syscall.WaitStatus(status)); got != want {
			t.Errorf("%#x: got %q, want %q", status, got, want)
		}
	}
}
