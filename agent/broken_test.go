package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

func TestAContainerThatDoesNotDieKeepsItsResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.stubborn, m.undying = true, true
		w := m.start(nil)
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
		w.waitState("t1", mesos.TaskState_TASK_RUNNING)
		w.mustCall(killCall("t1"))
		time.Sleep(time.Minute)
		if p := w.published("t1"); p.GetState() != int32(mesos.TaskState_TASK_RUNNING) || w.free().Equal(w.agent.cfg.Resources) {
			t.Errorf("got %v with %s free", p, w.free())
		}
		if got := strings.Join(w.problems(), "; "); !strings.Contains(got, `cannot end task "t1"`) {
			t.Errorf("problems: got %q", got)
		}
		m.mu.Lock()
		m.undying = false
		m.mu.Unlock()
		w.waitGone("t1")
		if len(w.problems()) != 0 || !w.free().Equal(w.agent.cfg.Resources) {
			t.Errorf("in the end: problems %q, free %s", w.problems(), w.free())
		}
		w.end()
	})
}

func TestABrokenContainerizerIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		var said strings.Builder
		w := m.start(nil, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&said, nil)) })
		say := func(err error, want int) {
			m.mu.Lock()
			m.broken = err
			m.mu.Unlock()
			time.Sleep(5 * time.Second)
			if got := w.problems(); len(got) != want {
				t.Errorf("problems: got %q, want %d", got, want)
			}
			if h := w.health(); h.GetDegraded() != (want > 0) {
				t.Errorf("the node is to be offered: %v, with %v", !h.GetDegraded(), err)
			}
			if s, err := w.agent.State(t.Context()); err != nil || (s.Degraded != "") != (want > 0) {
				t.Errorf("state: %v, degraded %q", err, s.Degraded)
			}
		}
		say(errors.New("the supervisor hangs"), 1)
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "late", "cpus:1;mem:32")))
		w.waitGone("late")
		const want = "Failed to launch container: containers cannot be started or ended properly: the supervisor hangs"
		if last := w.last("late"); last.GetMessage() != want || last.GetState() != mesos.TaskState_TASK_FAILED {
			t.Errorf("told %v, want %q", last, want)
		}
		say(nil, 0)
		w.end()
		for _, text := range []string{"containerizer does not answer", "all containerizers answer again"} {
			if n := strings.Count(said.String(), text); n != 1 {
				t.Errorf("the log says %q %d times, want once", text, n)
			}
		}
	})
}

// A container whose launch was given up may run all the same: it is ended, however long that takes.
func TestALaunchThatWasGivenUpIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.undying = true
		w := m.start(nil, func(c *Config) { c.Containerizer = lateLaunch{c.Containerizer.(*life)} })
		err := w.agent.LaunchContainer(t.Context(), ContainerRequest{ID: ContainerIDOf("late"), Command: &mesos.CommandInfo{Value: proto.String("x")}})
		if err == nil {
			t.Error("launched")
		}
		time.Sleep(time.Minute)
		if m.running() != 1 {
			t.Fatal("there is nothing to be ended")
		}
		m.mu.Lock()
		m.undying = false
		m.mu.Unlock()
		time.Sleep(time.Minute)
		if n := m.running(); n != 0 {
			t.Errorf("%d containers run", n)
		}
		if _, err := w.agent.Container(t.Context(), ContainerIDOf("late")); !errors.Is(err, ErrContainerUnknown) {
			t.Errorf("in the end: %v", err)
		}
		w.end()
	})
}

// lateLaunch starts containers, and does not say so in time.
type lateLaunch struct{ *life }

func (l lateLaunch) Launch(ctx context.Context, spec containerizer.Spec) (containerizer.Container, error) {
	if _, err := l.life.Launch(ctx, spec); err != nil {
		return containerizer.Container{}, err
	}
	<-ctx.Done()
	return containerizer.Container{}, ctx.Err()
}

// TestOneOfTwoContainerizersIsBroken has the API start what the other one can do.
func TestOneOfTwoContainerizersIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.docker, m.dockerBroken = true, errors.New("the engine is away")
		w := m.start(nil)
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
		w.waitState("t1", mesos.TaskState_TASK_RUNNING)
		time.Sleep(5 * time.Second)
		if s, err := w.agent.State(t.Context()); err != nil || s.Degraded == "" {
			t.Fatalf("state: %v, degraded is not said", err)
		}
		command := &mesos.CommandInfo{Value: proto.String("true"), Shell: proto.Bool(true)}
		if err := w.agent.LaunchContainer(t.Context(), ContainerRequest{ID: &mesos.ContainerID{Value: proto.String("alone")}, Command: command}); err != nil {
			t.Errorf("a container without the engine: %v", err)
		}
		docker := ContainerRequest{
			ID: &mesos.ContainerID{Value: proto.String("docker")}, Command: command,
			Container: &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()},
		}
		if err := w.agent.LaunchContainer(t.Context(), docker); err == nil || !strings.Contains(err.Error(), "the engine is away") {
			t.Errorf("a container of the engine: got %v", err)
		}
		// The containerizer at hand has no sessions, and was asked.
		session := ContainerRequest{ID: &mesos.ContainerID{Value: proto.String("s"), Parent: &mesos.ContainerID{Value: proto.String("alone")}}, Command: command}
		if _, err := w.agent.OpenSession(t.Context(), session); err == nil || strings.Contains(err.Error(), "the engine is away") {
			t.Errorf("a session: got %v", err)
		}
		w.end()
	})
}
