package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/status"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/nodeapi"
)

func TestATaskRunsAndEnds(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	reply := w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:128;ports:[31000-31001]")))

	// The answer alone tells the leader of the task and of what is taken.
	copied := record.NewMap("master", 1)
	if _, err := copied.Apply(time.Now(), w.mesh.Delta(0)); err != nil {
		t.Fatal(err)
	}
	if len(reply.GetDelta()) == 0 {
		t.Error("reply has no delta")
	}
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	if got, want := w.free().String(), testResources(t, "cpus:3;mem:3968;disk:10240;ports:[31002-32000]").String(); got != want {
		t.Errorf("free while it runs: got %s, want %s", got, want)
	}
	p := w.published("t1")
	if p.GetName() != "name-t1" || p.GetFrameworkName() != "demo" || p.GetContainerId() == "" || p.GetRole() != "*" {
		t.Errorf("published: got %v", p)
	}
	m.exit("t1", 0)
	w.waitGone("t1")
	if got, want := w.told("t1"), []string{"TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"}; !slices.Equal(got, want) {
		t.Errorf("told: got %v, want %v", got, want)
	}
	if got, want := w.last("t1").GetMessage(), "Command exited with status 0"; got != want {
		t.Errorf("message: got %q, want %q", got, want)
	}
	if got, want := w.free().String(), w.agent.cfg.Resources.String(); got != want {
		t.Errorf("free at the end: got %s, want %s", got, want)
	}
	w.wait("container removed", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.containers) == 0 })
}

func TestExitsAreToldAsTheyAre(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	for _, tc := range []struct {
		id      string
		status  int
		state   mesos.TaskState
		message string
	}{
		{"zero", 0, mesos.TaskState_TASK_FINISHED, "Command exited with status 0"},
		{"seven", 7 << 8, mesos.TaskState_TASK_FAILED, "Command exited with status 7"},
		{"killed", 9, mesos.TaskState_TASK_FAILED, "Command terminated with signal Killed"},
		{"core", 11 | 0x80, mesos.TaskState_TASK_FAILED, "Command terminated with signal Segmentation fault (core dumped)"},
	} {
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, tc.id, "cpus:1;mem:32")))
		w.waitState(tc.id, mesos.TaskState_TASK_RUNNING)
		m.exit(tc.id, tc.status)
		w.waitGone(tc.id)
		last := w.last(tc.id)
		if last.GetState() != tc.state || last.GetMessage() != tc.message {
			t.Errorf("%s: got %s %q, want %s %q", tc.id, last.GetState(), last.GetMessage(), tc.state, tc.message)
		}
	}
}

func TestRefusals(t *testing.T) {
	mib := "cpus:1;mem:32"
	for _, tc := range []struct {
		name   string
		change func(*mesos.TaskInfo)
		group  bool
		state  mesos.TaskState
		reason mesos.TaskStatus_Reason
		text   string
	}{
		{
			"more than there is", func(i *mesos.TaskInfo) { i.Resources = testResources(t, "cpus:64;mem:32").AllocatedTo("*").Proto() }, false,
			mesos.TaskState_TASK_LOST, mesos.TaskStatus_REASON_INVALID_OFFERS, "cpus",
		},
		{
			"no resources", func(i *mesos.TaskInfo) { i.Resources = nil }, false,
			mesos.TaskState_TASK_ERROR, mesos.TaskStatus_REASON_TASK_INVALID, "no resources",
		},
		{
			"another agent", func(i *mesos.TaskInfo) { i.AgentId.Value = proto.String("other") }, false,
			mesos.TaskState_TASK_ERROR, mesos.TaskStatus_REASON_TASK_INVALID, "invalid agent other",
		},
		{
			"no command", func(i *mesos.TaskInfo) { i.Command = nil }, false,
			mesos.TaskState_TASK_ERROR, mesos.TaskStatus_REASON_TASK_INVALID, "CommandInfo",
		},
		{
			"a name that is no text", func(i *mesos.TaskInfo) { i.Name = proto.String("a\xff") }, false,
			mesos.TaskState_TASK_ERROR, mesos.TaskStatus_REASON_TASK_INVALID, "not UTF-8",
		},
		{
			"URIs", func(i *mesos.TaskInfo) {
				i.Command.Uris = []*mesos.CommandInfo_URI{{Value: proto.String("http://example.com/x.tgz")}}
			}, false,
			mesos.TaskState_TASK_FAILED, mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED, "this agent has nothing to fetch with",
		},
		{
			"docker", func(i *mesos.TaskInfo) {
				i.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: proto.String("alpine")}}
			}, false,
			mesos.TaskState_TASK_FAILED, mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED, "container type not supported",
		},
		{
			"a group of an executor that has no command", func(*mesos.TaskInfo) {}, true,
			mesos.TaskState_TASK_ERROR, mesos.TaskStatus_REASON_TASK_GROUP_INVALID, "'ExecutorInfo.command' must be set",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			w := m.start(nil)
			defer w.end()
			info := taskInfo(t, "t1", mib)
			tc.change(info)
			call := launchCall(frameworkInfo(), info)
			if tc.group {
				call.GetLaunch().GroupExecutor = &mesos.ExecutorInfo{ExecutorId: &mesos.ExecutorID{Value: proto.String("e")}}
			}
			w.mustCall(call)
			w.waitGone("t1")
			w.wait("told", func() bool { return w.last("t1") != nil })
			last := w.last("t1")
			if last.GetState() != tc.state || last.GetReason() != tc.reason || !strings.Contains(last.GetMessage(), tc.text) {
				t.Errorf("got %s %s %q, want %s %s with %q", last.GetState(), last.GetReason(), last.GetMessage(), tc.state, tc.reason, tc.text)
			}
			if last.GetSource() != mesos.TaskStatus_SOURCE_AGENT {
				t.Errorf("source: got %s", last.GetSource())
			}
			if n := m.started("t1"); n != 0 {
				t.Errorf("started %d times", n)
			}
			if got, want := w.free().String(), w.agent.cfg.Resources.String(); got != want {
				t.Errorf("free: got %s, want %s", got, want)
			}
		})
	}
}

func TestALaunchThatFailsIsTold(t *testing.T) {
	m := newMachine(t)
	m.onLaunch = func(containerizer.Spec) error { return errors.New("no such file") }
	w := m.start(nil)
	defer w.end()
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitGone("t1")
	last := w.last("t1")
	if last.GetState() != mesos.TaskState_TASK_FAILED || last.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED ||
		!strings.Contains(last.GetMessage(), "no such file") {
		t.Errorf("got %v", last)
	}
	w.wait("free", func() bool { return w.free().Equal(w.agent.cfg.Resources) })
}

// wantWholeRecord fails unless an answer tells all of the record: the answer to the same call that told of the news may have
// been lost, and the leader takes its copy for new.
func wantWholeRecord(t *testing.T, reply *nodeapi.Reply) {
	t.Helper()
	fresh := record.NewMap("reader", 1)
	if _, err := fresh.Apply(time.Now(), reply.GetDelta()); err != nil {
		t.Fatal(err)
	}
	if s := fresh.Snapshot(testAgent); s == nil {
		t.Error("the answer tells nothing of the record")
	} else if _, ok := s.Get(catalog.KeyNode); !ok {
		t.Errorf("the answer tells a part of the record, up to version %d", s.Version())
	}
}

func TestATaskIsStartedOnce(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	launch := launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32"))
	w.mustCall(launch)
	wantWholeRecord(t, w.mustCall(proto.CloneOf(launch))) // repeated while it starts
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	wantWholeRecord(t, w.mustCall(proto.CloneOf(launch))) // while it runs
	w.end()

	w = m.start(w.leaderSide)
	w.mustCall(proto.CloneOf(launch)) // after a restart
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	m.exit("t1", 0)
	w.waitGone("t1")
	wantWholeRecord(t, w.mustCall(proto.CloneOf(launch))) // when it has ended
	w.end()

	w = m.start(w.leaderSide)
	defer w.end()
	w.mustCall(proto.CloneOf(launch)) // when it ended in another life
	w.wait("a word about the repetition", func() bool { return w.last("t1").GetState() == mesos.TaskState_TASK_ERROR })
	if got := m.started("t1"); got != 1 {
		t.Errorf("started %d times", got)
	}
}

func TestEpochs(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	describe := func(epoch uint64) error {
		_, err := w.call(&nodeapi.Call{Epoch: epoch, Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}})
		return err
	}
	if err := describe(7); err != nil {
		t.Fatal(err)
	}
	if err := describe(7); err != nil {
		t.Errorf("the same epoch again: %v", err)
	}
	if err := describe(6); !errors.Is(err, nodeapi.ErrStaleEpoch) {
		t.Errorf("a lower epoch: got %v, want ErrStaleEpoch", err)
	}
	if _, err := w.agent.Call(t.Context(), &nodeapi.Call{Epoch: 9, AgentId: "other"}); !errors.Is(err, nodeapi.ErrWrongAgent) {
		t.Errorf("another agent's call: got %v, want ErrWrongAgent", err)
	}
	w.kill()
	w = m.start(w.leaderSide)
	defer w.end()
	err := describe(6)
	if stale, ok := errors.AsType[*nodeapi.StaleEpochError](err); !ok || stale.Known != 7 {
		t.Errorf("a lower epoch after a crash: got %v, want known 7", err)
	}
	if err := describe(8); err != nil {
		t.Errorf("a higher epoch: %v", err)
	}
}

func TestKill(t *testing.T) {
	for _, tc := range []struct {
		name         string
		stubborn     bool
		capabilities []mesos.FrameworkInfo_Capability_Type
		want         []string
		after        time.Duration
	}{
		{"ends by the signal", false, nil, []string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"}, 0},
		{
			"tells that it is killing", false,
			[]mesos.FrameworkInfo_Capability_Type{mesos.FrameworkInfo_Capability_TASK_KILLING_STATE},
			[]string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"},
			0,
		},
		{"ends after the grace period", true, nil, []string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"}, 3 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				m.stubborn = tc.stubborn
				w := m.start(nil)
				w.mustCall(launchCall(frameworkInfo(tc.capabilities...), taskInfo(t, "t1", "cpus:1;mem:32")))
				w.waitState("t1", mesos.TaskState_TASK_RUNNING)
				begun := time.Now()
				w.mustCall(killCall("t1"))
				w.waitGone("t1")
				if took := time.Since(begun); took < tc.after || took > tc.after+time.Second {
					t.Errorf("took %v, want %v", took, tc.after)
				}
				if got := w.told("t1"); !slices.Equal(got, tc.want) {
					t.Errorf("told: got %v, want %v", got, tc.want)
				}
				w.end()
			})
		})
	}
}

func TestKillOfAnUnknownTaskIsTold(t *testing.T) {
	w := newMachine(t).start(nil)
	defer w.end()
	w.mustCall(killCall("nobody"))
	w.wait("told", func() bool { return w.last("nobody") != nil })
	last := w.last("nobody")
	if last.GetState() != mesos.TaskState_TASK_LOST || last.GetReason() != mesos.TaskStatus_REASON_EXECUTOR_TERMINATED || last.Uuid != nil {
		t.Errorf("got %v", last)
	}
}

func TestUpdatesAreRepeatedUntilAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		w := m.start(&leaderSide{epoch: 1, arrived: make(chan struct{}, 1)})
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
		begun := time.Now()
		time.Sleep(20 * time.Minute)
		w.mu.Lock()
		var at []time.Duration
		for i, u := range w.updates {
			if u.GetStatus().GetState() != mesos.TaskState_TASK_STARTING {
				t.Errorf("sent %v before the first was acknowledged", u)
			}
			at = append(at, w.at[i].Sub(begun).Round(time.Second))
		}
		w.mu.Unlock()
		want := []time.Duration{0, 10, 30, 70, 150, 310, 630, 1230}
		for i := range want {
			want[i] *= time.Second
		}
		want = want[:7]
		if !slices.Equal(at, want) {
			t.Errorf("sent at %v, want %v", at, want)
		}
		// A new leader is told at once.
		n := len(at)
		if _, err := w.call(&nodeapi.Call{Epoch: 2, Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.mu.Lock()
		if len(w.updates) != n+1 {
			t.Errorf("a new leader was told %d updates", len(w.updates)-n)
		}
		w.mu.Unlock()
		w.end()
	})
}

func TestALeaderThatIsDownIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		side := &leaderSide{epoch: 1, arrived: make(chan struct{}, 1), acknowledge: true, down: true}
		w := m.start(side)
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
		w.waitState("t1", mesos.TaskState_TASK_RUNNING)
		time.Sleep(time.Hour)
		side.mu.Lock()
		side.down = false
		side.mu.Unlock()
		begun := time.Now()
		w.wait("told", func() bool { return len(w.told("t1")) == 2 })
		if took := time.Since(begun); took > backoffMax+time.Second {
			t.Errorf("told after %v", took)
		}
		w.end()
	})
}

// A new leader, or one that was restarted, may hold nothing of the agent's record: the next report carries all of it.
func TestWhoKnowsNothingIsToldTheWholeRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		w := m.start(&leaderSide{epoch: 1, arrived: make(chan struct{}, 1)})
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
		w.waitState("t1", mesos.TaskState_TASK_RUNNING)
		if _, err := w.call(&nodeapi.Call{Epoch: 2, Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.mu.Lock()
		last := w.reports[len(w.reports)-1]
		w.mu.Unlock()
		fresh := record.NewMap("reader", 1)
		if _, err := fresh.Apply(time.Now(), last.GetDelta()); err != nil {
			t.Fatal(err)
		}
		if s := fresh.Snapshot(testAgent); s == nil || last.GetEpoch() != 2 {
			t.Errorf("the new leader got a report of epoch %d with nothing of the record", last.GetEpoch())
		} else if _, ok := s.Get(catalog.KeyNode); !ok {
			t.Errorf("the new leader got a part of the record, up to version %d", s.Version())
		}
		w.end()
	})
}

func TestAHundredTasksAtOnce(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil, func(c *Config) { c.Resources = testResources(t, "cpus:100;mem:10000") })
	defer w.end()
	var tasks []*mesos.TaskInfo
	for i := range 100 {
		tasks = append(tasks, taskInfo(t, fmt.Sprintf("t%03d", i), "cpus:0.1;mem:32"))
	}
	begun := time.Now()
	w.mustCall(launchCall(frameworkInfo(), tasks...))
	answered := time.Since(begun)
	for i := range 100 {
		w.waitState(fmt.Sprintf("t%03d", i), mesos.TaskState_TASK_RUNNING)
	}
	t.Logf("answered after %v, all running after %v", answered, time.Since(begun))
	for i := range 100 {
		m.exit(fmt.Sprintf("t%03d", i), 0)
	}
	for i := range 100 {
		w.waitGone(fmt.Sprintf("t%03d", i))
	}
	t.Logf("all told and acknowledged after %v", time.Since(begun))
}

func TestShutdownFrameworkEndsAndForgets(t *testing.T) {
	m := newMachine(t)
	w := m.start(&leaderSide{epoch: 1, arrived: make(chan struct{}, 1)})
	defer w.end()
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32"), taskInfo(t, "t2", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	w.waitState("t2", mesos.TaskState_TASK_RUNNING)
	w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_ShutdownFramework{ShutdownFramework: &nodeapi.ShutdownFramework{
		FrameworkId: &mesos.FrameworkID{Value: proto.String(testFramework)},
	}}})
	w.waitGone("t1")
	w.waitGone("t2")
	if got := m.running(); got != 0 {
		t.Errorf("%d containers run", got)
	}
	w.wait("free", func() bool { return w.free().Equal(w.agent.cfg.Resources) })
}

func TestEndTasksAtStop(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil, func(c *Config) { c.EndTasksAtStop = true })
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	w.end()
	if got := m.running(); got != 0 {
		t.Errorf("%d containers run", got)
	}
}

// What executors put into updates may be much: it goes in several reports, each of which a leader takes.
func TestLargeUpdatesGoInSeveralReports(t *testing.T) {
	large := status.Update{Payload: &mesos.TaskStatus{Data: make([]byte, reportBytes/2-1024)}}
	huge := status.Update{Payload: &mesos.TaskStatus{Data: make([]byte, 2*reportBytes)}}
	streams := status.New(0, 0)
	now := time.Now()
	for i, u := range []status.Update{large, large, huge, large} {
		u.UUID = status.UUID{byte(i + 1)}
		key := status.Key{Framework: "f", Task: fmt.Sprint(i)}
		streams.Push(key, u)
		streams.Durable(now.Add(time.Duration(i)), key, u.UUID)
	}
	var got []int
	for now = now.Add(time.Second); ; {
		due := streams.Take(now, room())
		if len(due) == 0 {
			break
		}
		got = append(got, len(due))
	}
	if want := []int{2, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("updates in reports: got %v, want %v", got, want)
	}
}

// TestRunningReachesTheMeshAtOnce holds the budget from the start of a process to the record of the node. A leader that
// does not answer, and a disk that is slow, are not in the way.
func TestRunningReachesTheMeshAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		w := m.start(&leaderSide{epoch: 1, arrived: make(chan struct{}, 1), down: true})
		begun := time.Now()
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
		synctest.Wait()
		if p := w.published("t1"); p.GetState() != int32(mesos.TaskState_TASK_RUNNING) || time.Since(begun) != 0 {
			t.Errorf("after %v: %v", time.Since(begun), p)
		}
		w.end()
	})
}

// TestWithoutRootThereIsOneUser has an agent that may not change users refuse those who name another one.
func TestWithoutRootThereIsOneUser(t *testing.T) {
	m := newMachine(t)
	m.docker = true
	w := m.start(nil, func(c *Config) { c.SwitchUser, c.OnlyUser = false, "joe" })
	defer w.end()
	run := func(id, user string, container *mesos.ContainerInfo) {
		info := taskInfo(t, id, "cpus:0.1;mem:32")
		info.Container = container
		if user != "" {
			info.Command.User = &user
		}
		w.mustCall(launchCall(frameworkInfo(), info))
	}
	run("none", "", nil)
	run("same", "joe", nil)
	run("docker", "daemon", &mesos.ContainerInfo{
		Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: proto.String("web:1")},
	})
	run("other", "daemon", nil)
	for _, id := range []string{"none", "same", "docker"} {
		w.waitState(id, mesos.TaskState_TASK_RUNNING)
	}
	w.waitGone("other")
	const want = `Failed to launch container: cannot run as user "daemon": only root may change the user, the agent is "joe"`
	if last := w.last("other"); last.GetMessage() != want || last.GetState() != mesos.TaskState_TASK_FAILED {
		t.Errorf("told %v, want %q", last, want)
	}
}
