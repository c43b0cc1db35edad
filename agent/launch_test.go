package agent

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// withImage makes a task one of a container with an image.
func withImage(info *mesos.TaskInfo, kind mesos.ContainerInfo_Type) *mesos.TaskInfo {
	info.Container = &mesos.ContainerInfo{Type: kind.Enum()}
	if kind == mesos.ContainerInfo_DOCKER {
		info.Container.Docker = &mesos.ContainerInfo_DockerInfo{Image: proto.String("web")}
	} else {
		info.Container.Mesos = &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{Type: mesos.Image_DOCKER.Enum()}}
	}
	return info
}

func TestAContainerIsToldAsItIs(t *testing.T) {
	m := newMachine(t)
	m.docker, m.data = true, []byte(`[{"Id":"x"}]`)
	m.networks = []*mesos.NetworkInfo{{
		Name: proto.String("bridge"), IpAddresses: []*mesos.NetworkInfo_IPAddress{{IpAddress: proto.String("172.17.0.2")}},
	}}
	w := m.start(nil)
	w.mustCall(launchCall(frameworkInfo(), withImage(taskInfo(t, "t1", "cpus:1;mem:32"), mesos.ContainerInfo_DOCKER)))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	w.wait("told", func() bool { return len(w.told("t1")) == 2 })
	running := w.last("t1")
	if string(running.GetData()) != `[{"Id":"x"}]` || running.GetContainerStatus().GetNetworkInfos()[0].GetName() != "bridge" {
		t.Errorf("got %v", running)
	}
	w.kill()

	w = m.start(w.leaderSide)
	defer w.end()
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	m.exit("t1", 1<<8)
	w.waitGone("t1")
	last := w.last("t1")
	if last.GetMessage() != "Container exited with status 1" || last.GetData() != nil {
		t.Errorf("got %v", last)
	}
	if got := last.GetContainerStatus().GetNetworkInfos()[0].GetIpAddresses()[0].GetIpAddress(); got != "172.17.0.2" {
		t.Errorf("address after a restart of the agent: got %s", got)
	}
}

func TestPullsHoldUpNobodyAndEndWithAKill(t *testing.T) {
	m := newMachine(t)
	m.docker, m.pulling = true, make(chan struct{})
	w := m.start(nil)
	defer w.end()
	// Many more than launches that take no time may be under way.
	const pulls = 40
	for i := range pulls {
		kind := []mesos.ContainerInfo_Type{mesos.ContainerInfo_DOCKER, mesos.ContainerInfo_MESOS}[i%2]
		w.mustCall(launchCall(frameworkInfo(), withImage(taskInfo(t, fmt.Sprintf("pull-%d", i), "cpus:0.01;mem:32"), kind)))
	}
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "plain", "cpus:0.01;mem:32")))
	w.waitState("plain", mesos.TaskState_TASK_RUNNING)
	for i := range pulls / 2 {
		w.mustCall(killCall(fmt.Sprintf("pull-%d", i)))
	}
	for i := range pulls / 2 {
		id := fmt.Sprintf("pull-%d", i)
		w.waitGone(id)
		last := w.last(id)
		if last.GetState() != mesos.TaskState_TASK_KILLED || last.GetReason() != mesos.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH {
			t.Errorf("%s: got %s %s", id, last.GetState(), last.GetReason())
		}
	}
	close(m.pulling) // until here no pull has ended by itself
	id := fmt.Sprintf("pull-%d", pulls-1)
	w.waitState(id, mesos.TaskState_TASK_RUNNING)
	if got := m.started("pull-0"); got != 0 {
		t.Errorf("a launch that was given up is done all the same")
	}
}

// Launches that wait for a slow one to end are given up at once, and those over the API are none that are quick either.
func TestSlowLaunchesWaitForThemselvesAlone(t *testing.T) {
	m := newMachine(t)
	m.docker, m.pulling = true, make(chan struct{})
	w := m.start(nil)
	defer w.end()
	const calls = 10
	launched := make(chan error, calls)
	for i := range calls {
		go func() {
			launched <- w.agent.LaunchContainer(t.Context(), ContainerRequest{
				ID: ContainerIDOf(fmt.Sprint("api-", i)), Command: &mesos.CommandInfo{Value: proto.String("x")},
				Container: withImage(&mesos.TaskInfo{}, mesos.ContainerInfo_MESOS).Container,
			})
		}()
	}
	w.wait("all to wait for their images", func() bool {
		w.agent.slowLaunches.mu.Lock()
		defer w.agent.slowLaunches.mu.Unlock()
		return w.agent.slowLaunches.running == calls
	})
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "plain", "cpus:0.01;mem:32")))
	w.waitState("plain", mesos.TaskState_TASK_RUNNING)
	var pulls []*mesos.TaskInfo
	for i := range 64 - calls {
		pulls = append(pulls, withImage(taskInfo(t, fmt.Sprint("pull-", i), "cpus:0.01;mem:32"), mesos.ContainerInfo_DOCKER))
	}
	w.mustCall(launchCall(frameworkInfo(), pulls...))
	w.wait("no place to be left", func() bool {
		w.agent.slowLaunches.mu.Lock()
		defer w.agent.slowLaunches.mu.Unlock()
		return w.agent.slowLaunches.running == w.agent.slowLaunches.max
	})
	w.mustCall(launchCall(frameworkInfo(), withImage(taskInfo(t, "late", "cpus:0.01;mem:32"), mesos.ContainerInfo_DOCKER)))
	w.wait("the late one to wait", func() bool {
		w.agent.slowLaunches.mu.Lock()
		defer w.agent.slowLaunches.mu.Unlock()
		return len(w.agent.slowLaunches.queue) == 1
	})
	w.mustCall(killCall("late"))
	w.waitGone("late")
	if last := w.last("late"); last.GetState() != mesos.TaskState_TASK_KILLED {
		t.Errorf("got %v", last)
	}
	close(m.pulling)
	for range calls {
		if err := <-launched; err != nil {
			t.Error(err)
		}
	}
}

func TestATroubledContainerizerRefusesItsOwnTasksAlone(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	w.mustCall(launchCall(frameworkInfo(), withImage(taskInfo(t, "docker", "cpus:1;mem:32"), mesos.ContainerInfo_DOCKER), taskInfo(t, "plain", "cpus:1;mem:32")))
	w.waitState("plain", mesos.TaskState_TASK_RUNNING)
	w.waitGone("docker")
	last := w.last("docker")
	if last.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(last.GetMessage(), "container type not supported: DOCKER") {
		t.Errorf("got %v", last)
	}
	if got := w.told("docker"); !slices.Equal(got, []string{"TASK_FAILED"}) {
		t.Errorf("told: %v", got)
	}
}

func TestAPanicInALaunchCostsOneTask(t *testing.T) {
	m := newMachine(t)
	m.onLaunch = func(spec containerizer.Spec) error {
		if envOf(spec, "MESOS_EXECUTOR_ID") == "poison" {
			var info *mesos.TaskInfo
			_ = *info.Name
		}
		return nil
	}
	w := m.start(nil, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	defer w.end()
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "poison", "cpus:1;mem:32")))
	w.waitGone("poison")
	if last := w.last("poison"); last.GetState() != mesos.TaskState_TASK_FAILED || !strings.Contains(last.GetMessage(), "internal error") {
		t.Errorf("got %v", last)
	}
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "next", "cpus:1;mem:32")))
	w.waitState("next", mesos.TaskState_TASK_RUNNING)
}

// The order to start a task may be obeyed after it was told to be dropped, and the agent die again before it has ended that.
func TestAContainerOfATaskThatIsOverIsEnded(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	m.mu.Lock()
	var late fakeContainer
	for _, c := range m.containers {
		late = *c
	}
	m.mu.Unlock()
	m.exit("t1", 0)
	w.waitGone("t1")
	w.end()
	late.spec.ID, late.pid, late.exit = "late", 4711, nil
	m.mu.Lock()
	m.containers["late"] = &late
	m.mu.Unlock()

	w = m.start(w.leaderSide)
	defer w.end()
	w.wait("it is ended and forgotten", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.containers) == 0 })
	if got := w.told("t1"); !slices.Equal(got, []string{"TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"}) {
		t.Errorf("told: %v", got)
	}
	w.wait("no problem is left", func() bool { return len(w.problems()) == 0 })
}
