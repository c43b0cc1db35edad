package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/master/mesos"
	"starling/master/nodeapi"
)

func drainCall(longest *int64, gone bool) *nodeapi.Call {
	return &nodeapi.Call{Call: &nodeapi.Call_Drain{Drain: &nodeapi.Drain{MaxGracePeriod: longest, MarkGone: gone}}}
}

func goneCall() *nodeapi.Call {
	return &nodeapi.Call{Call: &nodeapi.Call_Shutdown{Shutdown: &nodeapi.Shutdown{Gone: true}}}
}

// draining tells what the record says.
func (w *world) draining() bool { return w.health().GetDraining() }

// A drain ends tasks in the way that each framework can take, refuses new ones, and holds until it is taken back.
func TestDrain(t *testing.T) {
	const (
		killing = mesos.FrameworkInfo_Capability_TASK_KILLING_STATE
		aware   = mesos.FrameworkInfo_Capability_PARTITION_AWARE
	)
	for _, tc := range []struct {
		name    string
		caps    []mesos.FrameworkInfo_Capability_Type
		gone    bool
		told    []string
		refused mesos.TaskState
	}{
		{"plain", nil, false, []string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"}, mesos.TaskState_TASK_LOST},
		{
			"a framework that knows TASK_KILLING",
			[]mesos.FrameworkInfo_Capability_Type{killing},
			false,
			[]string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"},
			mesos.TaskState_TASK_LOST,
		},
		{
			"a partition-aware one, gone afterwards",
			[]mesos.FrameworkInfo_Capability_Type{aware},
			true,
			[]string{"TASK_STARTING", "TASK_RUNNING", "TASK_GONE_BY_OPERATOR"},
			mesos.TaskState_TASK_DROPPED,
		},
		{"another one, gone afterwards", nil, true, []string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"}, mesos.TaskState_TASK_LOST},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newMachine(t).start(nil)
			defer w.end()
			w.mustCall(launchCall(frameworkInfo(tc.caps...), taskInfo(t, "t", "cpus:1;mem:32")))
			w.waitState("t", mesos.TaskState_TASK_RUNNING)
			w.mustCall(drainCall(nil, tc.gone))
			if !w.draining() {
				t.Error("the record does not say that it drains")
			}
			w.waitGone("t")
			if got := w.told("t"); !slices.Equal(got, tc.told) {
				t.Errorf("told %v, want %v", got, tc.told)
			}
			if got := w.last("t").GetReason(); got != mesos.TaskStatus_REASON_AGENT_DRAINING {
				t.Errorf("reason %s", got)
			}
			w.mustCall(drainCall(nil, tc.gone)) // again does no harm
			w.mustCall(launchCall(frameworkInfo(tc.caps...), taskInfo(t, "late", "cpus:1;mem:32")))
			w.waitGone("late")
			if got := w.last("late"); got.GetState() != tc.refused || got.GetReason() != mesos.TaskStatus_REASON_AGENT_DRAINING {
				t.Errorf("a task for a draining agent: got %v", got)
			}
			w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Reactivate{Reactivate: &nodeapi.Reactivate{}}})
			if w.draining() {
				t.Error("the record says that it drains after it was reactivated")
			}
			w.mustCall(launchCall(frameworkInfo(tc.caps...), taskInfo(t, "next", "cpus:1;mem:32")))
			w.waitState("next", mesos.TaskState_TASK_RUNNING)
		})
	}
}

// A task that is not started yet is not started.
func TestDrainDuringLaunch(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	w.wait("ready", w.agent.Ready)
	// One after the other in one turn of the loop, so that the intent is not on disk when the drain comes.
	var calls []*call
	for _, c := range []*nodeapi.Call{launchCall(frameworkInfo(), taskInfo(t, "t", "cpus:1;mem:32")), drainCall(nil, false)} {
		c.AgentId, c.Leader, c.Epoch = testAgent, "127.0.0.1:5050", w.epoch
		calls = append(calls, &call{Call: c, answer: make(chan answer, 1)})
	}
	if err := w.agent.do(t.Context(), func() {
		for _, c := range calls {
			w.agent.called(c)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		if got := <-c.answer; got.err != nil {
			t.Fatal(got.err)
		}
	}
	w.waitGone("t")
	if got := w.last("t"); got.GetState() != mesos.TaskState_TASK_KILLED || got.GetReason() != mesos.TaskStatus_REASON_AGENT_DRAINING {
		t.Errorf("got %v", got)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.launches["t"]; n != 0 {
		t.Errorf("started %d times", n)
	}
}

// An agent that is killed while it drains goes on with it, with the grace period that the drain allows.
func TestDrainGoesOnAfterRestart(t *testing.T) {
	m := newMachine(t)
	m.stubborn = true
	w := m.start(nil)
	slow := taskInfo(t, "t", "cpus:1;mem:32")
	slow.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(time.Hour))}}
	w.mustCall(launchCall(frameworkInfo(mesos.FrameworkInfo_Capability_PARTITION_AWARE), slow))
	w.waitState("t", mesos.TaskState_TASK_RUNNING)
	w.mustCall(drainCall(proto.Int64(int64(time.Hour)), true))
	w.kill()
	w = m.start(w.leaderSide)
	defer w.end()
	w.wait("ready", w.agent.Ready)
	if !w.draining() {
		t.Error("the record does not say that it drains")
	}
	if s, err := w.agent.State(t.Context()); err != nil || s.Drain.GetMaxGracePeriod().GetNanoseconds() != int64(time.Hour) || !s.Drain.GetMarkGone() {
		t.Errorf("got %v, %v", s.Drain, err)
	}
	// A second order may be more impatient.
	w.mustCall(drainCall(proto.Int64(0), true))
	w.waitGone("t")
	if got := w.last("t"); got.GetState() != mesos.TaskState_TASK_GONE_BY_OPERATOR || got.GetReason() != mesos.TaskStatus_REASON_AGENT_DRAINING {
		t.Errorf("got %v", got)
	}
}

// A drain whose file is spoiled is forgotten, told as a problem, and not invented.
func TestDrainFileSpoiled(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.mustCall(drainCall(nil, false))
	w.end()
	if err := os.WriteFile(m.dir+"/meta/drain", []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	w = m.start(w.leaderSide)
	defer w.end()
	w.wait("ready", w.agent.Ready)
	if w.draining() {
		t.Error("draining by a file that does not read")
	}
	if got := strings.Join(w.problems(), "\n"); !strings.Contains(got, "drain") {
		t.Errorf("problems: %q", got)
	}
}

// ended waits for the end of Run.
func (w *world) awaitEnd() error {
	w.t.Helper()
	select {
	case err := <-w.ended:
		w.stop()
		w.bury()
		return err
	case <-time.After(patience):
		w.t.Fatal("the agent does not end")
		return nil
	}
}

// An agent that is gone ends everything without a word, those containers too that are no tasks, and leaves a folder with a
// new id, the epoch, and the ids that are used up.
func TestGone(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t", "cpus:1;mem:32")))
	w.waitState("t", mesos.TaskState_TASK_RUNNING)
	w.mustCall(drainCall(nil, false))
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "u", "cpus:1;mem:32")))
	alone := ContainerRequest{ID: ContainerIDOf("alone"), Command: &mesos.CommandInfo{Value: proto.String("sleep 9")}}
	if err := w.agent.LaunchContainer(t.Context(), alone); err != nil {
		t.Fatal(err)
	}
	stray := containerizer.Spec{ID: "stray"}
	w.end()
	m.mu.Lock()
	m.containers[stray.ID] = &fakeContainer{spec: stray, pid: 7, started: time.Now()}
	m.mu.Unlock()
	w = m.start(w.leaderSide)
	w.wait("ready", w.agent.Ready)
	if _, err := w.call(&nodeapi.Call{Epoch: 1, Call: &nodeapi.Call_Shutdown{Shutdown: &nodeapi.Shutdown{}}}); err != nil {
		t.Fatal(err)
	}
	w.mustCall(goneCall())
	if err := w.awaitEnd(); !errors.Is(err, ErrGone) {
		t.Fatalf("run ended with %v", err)
	}
	if n := m.running(); n != 0 {
		t.Errorf("%d containers run", n)
	}
	id, ok := checkpoint.AgentID(m.dir + "/meta")
	if !ok || id != laterAgent {
		t.Errorf("the folder is of %q", id)
	}
	store, loaded, err := checkpoint.Open(m.dir+"/meta", checkpoint.Options{AgentID: laterAgent, BootID: bootID()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if loaded.Epoch != 1 || loaded.Drain != nil || loaded.Gone || len(loaded.Items) > 0 || !loaded.Ended.Has(testFramework, "t") || len(loaded.Problems) > 0 {
		t.Errorf("found %+v", loaded)
	}
}

// Only an order of a leader makes an agent go, and one that was killed meanwhile goes on with it.
func TestGoneGoesOnAfterRestart(t *testing.T) {
	m := newMachine(t)
	m.undying = true
	m.stubborn = true
	w := m.start(nil)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t", "cpus:1;mem:32")))
	w.waitState("t", mesos.TaskState_TASK_RUNNING)
	w.leads(2)
	w.mustCall(killCall("none"))
	stale := goneCall()
	stale.Epoch = 1
	if _, err := w.call(stale); !errors.Is(err, nodeapi.ErrStaleEpoch) {
		t.Fatalf("an old leader: got %v", err)
	}
	w.mustCall(goneCall())
	w.mustCall(goneCall())
	w.kill()
	m.mu.Lock()
	m.undying = false
	m.mu.Unlock()
	w = m.start(w.leaderSide)
	if err := w.awaitEnd(); !errors.Is(err, ErrGone) {
		t.Fatalf("run ended with %v", err)
	}
	if n := m.running(); n != 0 {
		t.Errorf("%d containers run", n)
	}
	if got := w.told("t"); slices.Contains(got, "TASK_KILLED") || slices.Contains(got, "TASK_GONE_BY_OPERATOR") {
		t.Errorf("told %v", got)
	}
}

// An agent that was told to end everything, as one on a machine that is taken down is, stays what it is.
func TestShutdown(t *testing.T) {
	w := newMachine(t).start(nil)
	defer w.end()
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t", "cpus:1;mem:32"), taskInfo(t, "u", "cpus:1;mem:32")))
	w.waitState("u", mesos.TaskState_TASK_RUNNING)
	w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Shutdown{Shutdown: &nodeapi.Shutdown{}}})
	w.waitGone("t")
	w.waitGone("u")
	w.wait("free", func() bool { return w.free().Equal(w.agent.cfg.Resources) })
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "next", "cpus:1;mem:32")))
	w.waitState("next", mesos.TaskState_TASK_RUNNING)
}

// An agent that ends its tasks when it stops leaves them alone where it is to be back at once, because another agent in its
// process takes a new id.
func TestTasksStayWhereAnotherAgentIsGone(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil, func(c *Config) { c.EndTasksAtStop = true })
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t", "cpus:1;mem:32")))
	w.waitState("t", mesos.TaskState_TASK_RUNNING)
	if err := w.agent.do(t.Context(), func() { w.agent.stop(fmt.Errorf("agent 2: %w", ErrGone)) }); err != nil && !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	if err := w.awaitEnd(); err != nil {
		t.Fatalf("run ended with %v", err)
	}
	if n := m.running(); n != 1 {
		t.Errorf("%d containers run, want 1", n)
	}
}

// A task that does not listen is gone once the drain's grace period is over, whatever its own is; all with real processes, and
// an agent that is started anew in between.
func TestRealDrainAndGone(t *testing.T) {
	n := newRealNode(t)
	w, end := n.start()
	stubborn := func(id string) *mesos.TaskInfo {
		info := taskInfo(t, id, "cpus:0.1;mem:32")
		info.Command.Value = proto.String("trap '' TERM; echo up; while true; do sleep 1000; done")
		info.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(time.Hour))}}
		return info
	}
	run := func(id string) int {
		t.Helper()
		w.mustCall(launchCall(frameworkInfo(mesos.FrameworkInfo_Capability_TASK_KILLING_STATE), stubborn(id)))
		w.waitState(id, mesos.TaskState_TASK_RUNNING)
		sandbox := w.agent.layout.Dir(testFramework, id, w.published(id).GetContainerId())
		w.wait("output", func() bool {
			data, err := os.ReadFile(sandbox + "/stdout")
			return err == nil && strings.Contains(string(data), "up")
		})
		return n.pid(w, id)
	}
	pid := run("stubborn")
	// Long enough for the agent to end within it, on a busy machine too.
	w.mustCall(drainCall(proto.Int64(int64(5*time.Second)), false))
	w.waitState("stubborn", mesos.TaskState_TASK_KILLING)
	end()
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the task ended with the agent: %v", err)
	}
	w, end = n.start()
	w.waitGone("stubborn")
	if got := w.last("stubborn"); got.GetState() != mesos.TaskState_TASK_KILLED || got.GetReason() != mesos.TaskStatus_REASON_AGENT_DRAINING {
		t.Errorf("got %v", got)
	}
	w.wait("the process gone", func() bool { return syscall.Kill(-pid, 0) != nil })
	w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Reactivate{Reactivate: &nodeapi.Reactivate{}}})
	pid = run("again")
	sandbox := w.agent.layout.Dir(testFramework, "again", w.published("again").GetContainerId())
	w.mustCall(goneCall())
	if err := <-w.ended; !errors.Is(err, ErrGone) {
		t.Fatalf("run ended with %v", err)
	}
	w.ended <- nil
	end()
	// What the first process has left is dead, and may not be buried yet.
	w.wait("the task of the agent that is gone to be gone", func() bool { return syscall.Kill(-pid, 0) != nil })
	if _, err := os.Stat(sandbox); err != nil {
		t.Errorf("the old sandbox: %v", err)
	}
	if id, _ := checkpoint.AgentID(n.dir + "/meta"); id != laterAgent {
		t.Errorf("the folder is of %q", id)
	}
}
