package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/agent/containerizer/process"
	"starling/agent/supervisor"
	"starling/gossip/record"
	"starling/master/mesos"
)

// roleEnv makes the test binary run a supervisor instead of tests.
const roleEnv = "STARLING_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "supervisor" {
		os.Exit(supervisor.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// realNode is a node whose tasks are real processes.
type realNode struct {
	*machine
	side *leaderSide
	cfg  process.Config
}

func newRealNode(t *testing.T) *realNode {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	n := &realNode{
		machine: m, side: &leaderSide{epoch: 1, arrived: make(chan struct{}, 1), acknowledge: true},
		cfg: process.Config{
			Dir: filepath.Join(m.dir, "supervisor"), Supervisor: []string{exe}, Env: []string{roleEnv + "=supervisor"},
			NoCgroups: true, Log: slog.New(slog.DiscardHandler), RecoverWithin: time.Minute,
		},
	}
	t.Cleanup(n.clean)
	return n
}

// start starts a life of the agent; the function returned ends it.
func (n *realNode) start() (*world, func()) {
	n.t.Helper()
	containers, err := process.New(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.generation++
	mesh := fakeMesh{record.NewMap(testAgent, n.generation)}
	mesh.lead(n.t, "master-1", n.side.epoch)
	cfg := n.config(nil, mesh, n.side)
	cfg.Containerizer = containers
	cfg.Resources = testResources(n.t, "cpus:100;mem:10000;ports:[31000-32000]")
	a, err := New(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.side.mu.Lock()
	n.side.target = a
	n.side.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	w := &world{t: n.t, m: n.machine, agent: a, mesh: mesh, life: &life{}, stop: stop, ended: make(chan error, 1), leaderSide: n.side}
	go func() { w.ended <- a.Run(ctx) }()
	return w, func() {
		n.t.Helper()
		w.end()
		if err := containers.Close(); err != nil {
			n.t.Error(err)
		}
	}
}

// clean ends whatever runs and the supervisor.
func (n *realNode) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	client, err := supervisor.Dial(ctx, n.cfg.Dir)
	if err != nil {
		n.t.Errorf("cannot clean up: %v", err)
		return
	}
	defer client.Close()
	left, err := client.Watch(ctx, func(supervisor.Container) {})
	if err != nil {
		n.t.Error(err)
	}
	for _, c := range left {
		if _, err := client.Kill(ctx, c.ID); err != nil {
			n.t.Error(err)
		}
		if err := client.Remove(ctx, c.ID); err != nil {
			n.t.Error(err)
		}
	}
	if err := client.Stop(ctx); err != nil {
		n.t.Errorf("cannot stop the supervisor: %v", err)
	}
	<-client.Done()
}

func (n *realNode) pid(w *world, task string) int {
	n.t.Helper()
	s, err := w.agent.State(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range s.Frameworks {
		for _, e := range f.Executors {
			if e.ID == task {
				return e.PID
			}
		}
	}
	n.t.Fatalf("no task %q", task)
	return 0
}

func TestRealProcesses(t *testing.T) {
	n := newRealNode(t)
	w, end := n.start()
	shell := func(id, script string) *mesos.TaskInfo {
		info := taskInfo(t, id, "cpus:0.1;mem:32")
		info.Command.Value = &script
		return info
	}
	w.mustCall(launchCall(frameworkInfo(),
		shell("stays", "echo hello from $MESOS_EXECUTOR_ID; echo $$ > pid; exec sleep 1000"),
		shell("fails", "exit 3"), shell("missing", "exec /no/such/program"), shell("ends", "true")))
	w.waitState("stays", mesos.TaskState_TASK_RUNNING)
	for id, want := range map[string]string{
		"fails": "Command exited with status 3", "missing": "Command exited with status 127", "ends": "Command exited with status 0",
	} {
		w.waitGone(id)
		if got := w.last(id).GetMessage(); got != want {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
	sandbox := w.agent.layout.Dir(testFramework, "stays", w.published("stays").GetContainerId())
	w.wait("output", func() bool {
		data, err := os.ReadFile(filepath.Join(sandbox, "stdout"))
		return err == nil && string(data) == "hello from stays\n"
	})
	pid := n.pid(w, "stays")
	w.wait("its own word of its pid", func() bool {
		data, err := os.ReadFile(filepath.Join(sandbox, "pid"))
		return err == nil && strings.TrimSpace(string(data)) == fmt.Sprint(pid)
	})

	end()
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the task did not survive the agent: %v", err)
	}
	w, end = n.start()
	w.waitState("stays", mesos.TaskState_TASK_RUNNING)
	w.wait("ready", w.agent.Ready)
	if got := n.pid(w, "stays"); got != pid {
		t.Errorf("pid after the restart: got %d, want %d", got, pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.waitGone("stays")
	if got, want := w.last("stays").GetMessage(), "Command terminated with signal Killed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := w.told("stays"), []string{"TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}

	// One that goes on in the background and does not listen is gone after the grace period, with all that it started.
	w.mustCall(launchCall(frameworkInfo(), shell("stubborn", "trap '' TERM; (trap '' TERM; echo $$; sleep 1000) & echo up; while true; do sleep 1000; done")))
	w.waitState("stubborn", mesos.TaskState_TASK_RUNNING)
	stubborn := n.pid(w, "stubborn")
	sandbox = w.agent.layout.Dir(testFramework, "stubborn", w.published("stubborn").GetContainerId())
	w.wait("output", func() bool {
		data, err := os.ReadFile(filepath.Join(sandbox, "stdout"))
		return err == nil && strings.Contains(string(data), "up")
	})
	w.mustCall(killCall("stubborn"))
	w.waitGone("stubborn")
	if got := w.last("stubborn").GetState(); got != mesos.TaskState_TASK_KILLED {
		t.Errorf("stubborn: got %s", got)
	}
	w.wait("process group gone", func() bool { return syscall.Kill(-stubborn, 0) != nil })
	w.wait("free", func() bool { return w.free().Equal(w.agent.cfg.Resources) })
	end()
}

// The operator's work directory may lead through links, while those that tasks make are not followed.
func TestWorkDirectoryByALink(t *testing.T) {
	n := newRealNode(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(n.dir, link); err != nil {
		t.Fatal(err)
	}
	n.dir = link
	w, end := n.start()
	info := taskInfo(t, "greets", "cpus:0.1;mem:32")
	script := "echo hello"
	info.Command.Value = &script
	w.mustCall(launchCall(frameworkInfo(), info))
	w.waitGone("greets")
	if got := w.last("greets"); got.GetState() != mesos.TaskState_TASK_FINISHED {
		t.Errorf("got %v", got)
	}
	end()
}

// TestAHundredRealTasks also tells how long the last part of the path from a request to 100 running tasks takes.
func TestAHundredRealTasks(t *testing.T) {
	n := newRealNode(t)
	w, end := n.start()
	w.wait("ready", w.agent.Ready)
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
	begun = time.Now()
	for i := range 100 {
		w.mustCall(killCall(fmt.Sprintf("t%03d", i)))
	}
	for i := range 100 {
		w.waitGone(fmt.Sprintf("t%03d", i))
	}
	t.Logf("all killed, told and acknowledged after %v", time.Since(begun))
	end()
}
