package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"starling/agent/containerizer"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/nodeapi"
)

func TestARestartedAgentFindsItsTasks(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*world)
	}{
		{"stopped in order", (*world).end},
		{"killed", (*world).kill},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			w := m.start(nil)
			w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "stays", "cpus:1;mem:32"), taskInfo(t, "fails", "cpus:1;mem:32"),
				taskInfo(t, "vanishes", "cpus:1;mem:32")))
			for _, id := range []string{"stays", "fails", "vanishes"} {
				w.waitState(id, mesos.TaskState_TASK_RUNNING)
				w.wait("running told", func() bool { return slices.Contains(w.told(id), "TASK_RUNNING") })
			}
			container := w.published("stays").GetContainerId()
			pid := m.pid(container)
			tc.end(w)
			m.exit("fails", 7<<8)
			delete(m.containers, w.published("vanishes").GetContainerId())

			w = m.start(w.leaderSide)
			defer w.end()
			w.waitGone("fails")
			w.waitGone("vanishes")
			if got := w.last("fails").GetMessage(); got != "Command exited with status 7" {
				t.Errorf("fails: got %q", got)
			}
			if last := w.last("vanishes"); last.GetState() != mesos.TaskState_TASK_FAILED ||
				last.GetReason() != mesos.TaskStatus_REASON_EXECUTOR_TERMINATED || !strings.Contains(last.GetMessage(), "could not be learned") {
				t.Errorf("vanishes: got %v", last)
			}
			w.waitState("stays", mesos.TaskState_TASK_RUNNING)
			if got := w.published("stays").GetContainerId(); got != container || m.pid(container) != pid {
				t.Errorf("stays: got container %s, want %s with pid %d", got, container, pid)
			}
			if got, want := w.free().String(), testResources(t, "cpus:3;mem:4064;disk:10240;ports:[31000-32000]").String(); got != want {
				t.Errorf("free: got %s, want %s", got, want)
			}
			for _, id := range []string{"fails", "vanishes"} {
				if got, want := w.told(id), []string{"TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"}; !slices.Equal(got, want) {
					t.Errorf("%s was told %v, want %v", id, got, want)
				}
			}
			if m.started("stays") != 1 {
				t.Errorf("started %d times", m.started("stays"))
			}
		})
	}
}

func TestUnacknowledgedUpdatesOutliveTheAgent(t *testing.T) {
	m := newMachine(t)
	w := m.start(&leaderSide{epoch: 1, arrived: make(chan struct{}, 1)})
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	m.exit("t1", 0)
	w.waitState("t1", mesos.TaskState_TASK_FINISHED)
	w.wait("the end on disk and the container forgotten", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.containers) == 0 })
	w.kill()
	w.mu.Lock()
	w.acknowledge = true
	w.mu.Unlock()
	w = m.start(w.leaderSide)
	defer w.end()
	w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}) // tells who leads
	w.waitGone("t1")
	if got, want := w.told("t1"), []string{"TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

func TestAKillGoesOnAfterARestart(t *testing.T) {
	m := newMachine(t)
	m.stubborn = true
	w := m.start(nil)
	w.mustCall(launchCall(frameworkInfo(mesos.FrameworkInfo_Capability_TASK_KILLING_STATE), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	w.mustCall(killCall("t1"))
	w.wait("killing told", func() bool { return slices.Contains(w.told("t1"), "TASK_KILLING") })
	w.kill()
	m.mu.Lock()
	m.stubborn = false
	m.mu.Unlock()
	w = m.start(w.leaderSide)
	defer w.end()
	w.mustCall(launchCall(frameworkInfo(mesos.FrameworkInfo_Capability_TASK_KILLING_STATE), taskInfo(t, "t2", "cpus:1;mem:32")))
	w.waitGone("t1")
	if got, want := w.told("t1"), []string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

// TestDamagedCheckpoints holds D5: each file in turn torn, empty, zeroed, flipped; the agent starts, and harms no task.
func TestDamagedCheckpoints(t *testing.T) {
	damage := map[string]func([]byte) []byte{
		"torn":    func(b []byte) []byte { return b[:len(b)-5] }, // in the midst of a record, however many there are
		"empty":   func([]byte) []byte { return nil },
		"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
		"flipped": func(b []byte) []byte { b[len(b)-len(b)/3] ^= 0x10; return b },
	}
	for how, spoil := range damage {
		for _, pattern := range []string{"identity", "epoch", "epoch.copy", "ended", "tasks/*.task", "tasks/*.state"} {
			t.Run(how+" "+strings.ReplaceAll(pattern, "/", " "), func(t *testing.T) {
				m := newMachine(t)
				w := m.start(nil)
				w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t0", "cpus:1;mem:32"), taskInfo(t, "t1", "cpus:1;mem:32")))
				w.waitState("t0", mesos.TaskState_TASK_RUNNING)
				w.waitState("t1", mesos.TaskState_TASK_RUNNING)
				m.exit("t0", 0)
				w.waitGone("t0")
				w.wait("running told", func() bool { return slices.Contains(w.told("t1"), "TASK_RUNNING") })
				w.end()
				paths, err := filepath.Glob(filepath.Join(m.dir, "meta", pattern))
				if err != nil || len(paths) != 1 {
					t.Fatalf("files: %v %v", paths, err)
				}
				data, err := os.ReadFile(paths[0])
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(paths[0], spoil(data), 0o600); err != nil {
					t.Fatal(err)
				}

				w = m.start(w.leaderSide)
				defer w.end()
				w.waitState("t1", mesos.TaskState_TASK_RUNNING)
				if m.running() != 1 || m.started("t1") != 1 {
					t.Errorf("%d containers run, t1 was started %d times", m.running(), m.started("t1"))
				}
				if empty := how == "empty" && pattern == "ended"; len(w.problems()) == 0 && !empty {
					t.Error("nothing is said of it")
				}
				if got, want := w.free().String(), testResources(t, "cpus:3;mem:4064;disk:10240;ports:[31000-32000]").String(); got != want {
					t.Errorf("free: got %s, want %s", got, want)
				}
				// It is still a whole task: its end is told as it is.
				w.mustCall(killCall("t1"))
				w.waitGone("t1")
				if got, want := w.told("t1"), []string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"}; !slices.Equal(got, want) {
					t.Errorf("told %v, want %v", got, want)
				}
			})
		}
	}
}

// loseCheckpoints spoils all files of tasks of an agent that does not run.
func (m *machine) loseCheckpoints() {
	m.t.Helper()
	paths, err := filepath.Glob(filepath.Join(m.dir, "meta", "tasks", "*"))
	if err != nil || len(paths) != 2 {
		m.t.Fatalf("files: %v %v", paths, err)
	}
	for _, path := range paths {
		if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
}

// TestATaskThatLostItsCheckpointsGoesOn holds D5 and I4 where the intent and the state of a task are spoiled both: what runs
// is told, holds what it holds, and ends when its framework says so.
func TestATaskThatLostItsCheckpointsGoesOn(t *testing.T) {
	for _, tc := range []struct {
		name string
		// meanwhile happens to the container while no agent runs.
		meanwhile func(m *machine, id string)
		free      string
	}{
		{"known by its note", func(*machine, string) {}, "cpus:3;mem:4064;disk:10240;ports:[31001-32000]"},
		{"known by its sandbox", func(m *machine, id string) { m.containers[id].spec.Note = nil }, "cpus:4;mem:4096;disk:10240;ports:[31000-32000]"},
		{"a note that does not read", func(m *machine, id string) { m.containers[id].spec.Note = []byte("\xff\xff") }, "cpus:4;mem:4096;disk:10240;ports:[31000-32000]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			w := m.start(nil)
			w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32;ports:[31000-31000]")))
			w.waitState("t1", mesos.TaskState_TASK_RUNNING)
			w.wait("running told", func() bool { return slices.Contains(w.told("t1"), "TASK_RUNNING") })
			id := w.published("t1").GetContainerId()
			w.end()
			m.loseCheckpoints()
			tc.meanwhile(m, id)
			for range 2 { // the second time the files are in quarantine
				mesh := fakeMesh{record.NewMap(testAgent, m.generation+1)}
				a, err := New(m.config(m.connect(), mesh, w.leaderSide))
				if err != nil {
					t.Fatal(err)
				}
				if _, there := mesh.Snapshot(testAgent).Get(catalog.KeyNode); there && publishedIn(t, mesh.Map, "t1") == nil {
					t.Error("the record says that the task is gone before anybody has looked")
				}
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				w = m.start(w.leaderSide)
				w.waitState("t1", mesos.TaskState_TASK_RUNNING)
				if m.running() != 1 || m.started("t1") != 1 {
					t.Errorf("%d containers run, t1 was started %d times", m.running(), m.started("t1"))
				}
				if got, want := w.free().String(), testResources(t, tc.free).String(); got != want {
					t.Errorf("free: got %s, want %s", got, want)
				}
				if p := w.published("t1"); p.GetContainerId() != id || p.GetFrameworkId() != testFramework {
					t.Errorf("published: got %v", p)
				}
				w.end()
			}
			w = m.start(w.leaderSide)
			defer w.end()
			w.mustCall(killCall("t1"))
			w.waitGone("t1")
			if last := w.last("t1"); last.GetState() != mesos.TaskState_TASK_KILLED {
				t.Errorf("told last: %v", last)
			}
			if got, want := w.free().String(), testResources(t, "cpus:4;mem:4096;disk:10240;ports:[31000-32000]").String(); got != want {
				t.Errorf("free at the end: got %s, want %s", got, want)
			}
			w.wait("the container forgotten", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.containers) == 0 })
		})
	}
}

func TestLostCheckpointsAreSaid(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	w.wait("running told", func() bool { return slices.Contains(w.told("t1"), "TASK_RUNNING") })
	id := w.published("t1").GetContainerId()
	w.end()
	m.loseCheckpoints()
	m.containers[id].spec.Note = nil
	w = m.start(w.leaderSide)
	defer w.end()
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	if got := strings.Join(w.problems(), "; "); !strings.Contains(got, "known by its sandbox alone") {
		t.Errorf("problems: got %q", got)
	}
	m.exit("t1", 0)
	w.waitGone("t1")
	w.wait("that problem gone", func() bool { return !strings.Contains(strings.Join(w.problems(), "; "), "by its sandbox") })
}

func TestTheEndOfATaskThatLostItsCheckpointsIsTold(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	w.wait("running told", func() bool { return slices.Contains(w.told("t1"), "TASK_RUNNING") })
	w.kill()
	m.loseCheckpoints()
	m.exit("t1", 7<<8)
	w = m.start(w.leaderSide)
	defer w.end()
	w.wait("the end told", func() bool { return w.last("t1").GetMessage() == "Command exited with status 7" })
	w.waitGone("t1")
}

// A container that names nothing may be anybody's: in doubt it is left alone, and said.
func TestAContainerThatNamesNothingIsLeftAlone(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
	w.waitState("t1", mesos.TaskState_TASK_RUNNING)
	w.wait("running told", func() bool { return slices.Contains(w.told("t1"), "TASK_RUNNING") })
	id := w.published("t1").GetContainerId()
	w.end()
	m.loseCheckpoints()
	m.containers[id].spec.Note = nil
	if err := os.RemoveAll(filepath.Join(m.dir, "slaves")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time the files are in quarantine
		w = m.start(w.leaderSide)
		w.wait("ready", w.agent.Ready)
		if m.running() != 1 {
			t.Error("the container was ended")
		}
		if got := strings.Join(w.problems(), "; "); !strings.Contains(got, "lost its checkpoints to quarantine") {
			t.Errorf("problems: got %q", got)
		}
		w.end()
	}
}

// TestAnAgentStartsWhileTheContainerizerHangs holds P3b at the start.
func TestAnAgentStartsWhileTheContainerizerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		w := m.start(nil)
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32"), taskInfo(t, "t2", "cpus:1;mem:32")))
		for _, id := range []string{"t1", "t2"} {
			w.waitState(id, mesos.TaskState_TASK_RUNNING)
			w.wait("running told", func() bool { return slices.Contains(w.told(id), "TASK_RUNNING") })
		}
		w.end()
		m.broken = errors.New("the supervisor hangs")

		w = m.start(w.leaderSide)
		w.wait("ready", w.agent.Ready)
		w.waitState("t1", mesos.TaskState_TASK_RUNNING)
		if got := w.problems(); len(got) != 1 || !strings.Contains(got[0], "the supervisor hangs") {
			t.Errorf("problems: got %q", got)
		}
		if s, err := w.agent.State(t.Context()); err != nil || s.Degraded == "" {
			t.Errorf("state: %v, degraded is not said", err)
		}
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "late", "cpus:1;mem:32")))
		w.waitGone("late")
		if last := w.last("late"); last.GetState() != mesos.TaskState_TASK_FAILED || !strings.Contains(last.GetMessage(), "the supervisor hangs") {
			t.Errorf("told: %v", last)
		}
		w.mustCall(killCall("t2"))
		w.waitGone("t2")

		m.mu.Lock()
		m.broken = nil
		m.mu.Unlock()
		w.wait("no problem any more", func() bool { return len(w.problems()) == 0 })
		w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "new", "cpus:1;mem:32")))
		w.waitState("new", mesos.TaskState_TASK_RUNNING)
		w.waitState("t1", mesos.TaskState_TASK_RUNNING)
		w.end()
	})
}

func TestASecondAgentOnTheSameFolderIsRefused(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	if _, err := New(m.config(m.connect(), w.mesh, w.leaderSide)); err == nil || !strings.Contains(err.Error(), "another agent runs") {
		t.Errorf("got %v", err)
	}
}

// TestCrashesAtAnyPoint holds P1 and P8: tasks are launched, end and are killed while the agent dies at random moments.
// Each task is started at most once, every one is told to have ended exactly once and as it ended, and in the end
// everything is free and nothing is left on disk.
func TestCrashesAtAnyPoint(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	m := newMachine(t)
	generous := func(c *Config) { c.Resources = testResources(t, "cpus:1000;mem:100000") }
	side := &leaderSide{epoch: 1, arrived: make(chan struct{}, 1), acknowledge: true}
	status := map[string]int{}
	asked := map[string]bool{}
	var tasks []string
	crashes := 100
	if testing.Short() {
		crashes = 20
	}
	for i := range crashes {
		w := m.start(side, generous)
		var batch []*mesos.TaskInfo
		for j := range 3 {
			id := fmt.Sprintf("t%03d-%d", i, j)
			tasks = append(tasks, id)
			batch = append(batch, taskInfo(t, id, "cpus:0.1;mem:32"))
		}
		answered := make(chan bool, 1)
		go func() {
			_, err := w.call(launchCall(frameworkInfo(), batch...))
			answered <- err == nil
		}()
		done := make(chan struct{})
		go func() { // what happens on the node meanwhile
			defer close(done)
			m.mu.Lock()
			defer m.mu.Unlock()
			for id, c := range m.containers {
				if c.exit == nil && len(status) < len(tasks)/2 {
					task := envOf(c.spec, "MESOS_EXECUTOR_ID")
					status[task] = len(status) % 3 << 8
					m.end(id, status[task])
				}
			}
		}()
		time.Sleep(time.Duration(rng.IntN(40000)) * time.Microsecond) // the moment of the crash, not a wait for a result
		w.kill()
		<-done
		if !<-answered {
			for _, id := range tasks[len(tasks)-3:] {
				asked[id] = true // the leader does not know, so the task may never have come about
			}
		}
	}
	w := m.start(side, generous)
	defer w.end()
	if _, err := w.call(launchCall(frameworkInfo(), taskInfo(t, "last", "cpus:0.1;mem:32"))); err != nil {
		t.Fatal(err)
	}
	w.waitState("last", mesos.TaskState_TASK_RUNNING)
	for _, id := range append(tasks, "last") {
		if p := w.published(id); p != nil && !terminal(mesos.TaskState(p.GetState())) {
			w.mustCall(killCall(id))
		}
	}
	ends := map[string]int{}
	for _, id := range tasks {
		w.waitGone(id)
		if m.started(id) > 1 {
			t.Errorf("%s was started %d times", id, m.started(id))
		}
		told := w.told(id)
		terminals := slices.DeleteFunc(slices.Clone(told), func(s string) bool { return s == "TASK_STARTING" || s == "TASK_RUNNING" })
		if len(told) == 0 && asked[id] {
			ends["never heard of"]++
			continue
		}
		if len(terminals) != 1 || !slices.IsSortedFunc(told, order) {
			t.Errorf("%s was told %v", id, told)
			continue
		}
		ends[terminals[0]]++
		if s, ended := status[id]; ended {
			want := map[bool]string{true: "TASK_FINISHED", false: "TASK_FAILED"}[s == 0]
			if got := w.last(id); terminals[0] != want || got.GetMessage() != fmt.Sprintf("Command exited with status %d", s>>8) {
				t.Errorf("%s ended with %d and was told as %s %q", id, s>>8, terminals[0], got.GetMessage())
			}
		}
	}
	t.Logf("%d tasks: %v", len(tasks), ends)
	w.waitGone("last")
	w.wait("free", func() bool { return w.free().Equal(w.agent.cfg.Resources) })
	w.wait("clean disk", func() bool {
		left, err := os.ReadDir(filepath.Join(m.dir, "meta", "tasks"))
		return err == nil && len(left) == 0
	})
	w.wait("containers forgotten", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.containers) == 0 })
}

// order puts states in the order in which a task goes through them.
func order(a, b string) int {
	rank := func(s string) int { return slices.Index([]string{"TASK_STARTING", "TASK_RUNNING"}, s) + 3 }
	ra, rb := rank(a), rank(b)
	if ra == 2 {
		ra = 9
	}
	if rb == 2 {
		rb = 9
	}
	return ra - rb
}

var _ containerizer.Containerizer = (*life)(nil)
