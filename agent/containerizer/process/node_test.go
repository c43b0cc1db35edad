package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/agent/containerizer/containerizertest"
	"starling/agent/supervisor"
)

// roleEnv makes the test binary run a supervisor instead of tests.
const roleEnv = "STARLING_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "supervisor" {
		os.Exit(supervisor.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// node is a machine with an agent under test.
type node struct {
	t   testing.TB
	dir string
	cfg Config
	log *containerizertest.Log
}

func newNode(t testing.TB) *node {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log := containerizertest.NewLog(t)
	n := &node{t: t, dir: dir, log: log, cfg: Config{
		Dir: filepath.Join(dir, "sv"), Supervisor: []string{exe}, Env: []string{roleEnv + "=supervisor"},
		Log: slog.New(slog.NewTextHandler(log, nil)), RecoverWithin: time.Minute,
	}}
	t.Cleanup(n.clean)
	return n
}

// clean ends all containers and the supervisor.
func (n *node) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := New(n.cfg)
	if err != nil {
		n.t.Error(err)
		return
	}
	found, err := c.Recover(ctx)
	if err != nil {
		n.t.Errorf("cannot clean up: %v", err)
		return
	}
	for _, k := range found {
		if err := c.Destroy(ctx, k.ID); err != nil {
			n.t.Errorf("cannot destroy %q: %v", k.ID, err)
		}
		waitFor(n.t, "exit", func() bool { return c.Remove(ctx, k.ID) == nil })
	}
	client, err := c.await(ctx)
	if err != nil {
		n.t.Error(err)
		return
	}
	hello, err := client.Hello(ctx)
	if err != nil {
		n.t.Error(err)
	}
	if err := c.StopSupervisor(ctx); err != nil {
		n.t.Error(err)
	}
	waitFor(n.t, "the supervisor to end", func() bool { return !alive(hello.PID) })
	// The supervisor took its cgroups along, and those of its containers are gone.
	for _, dir := range c.ensure.Cgroups {
		if _, err := os.Stat(filepath.Dir(dir)); err == nil {
			n.t.Errorf("cgroup %s is left", filepath.Dir(dir))
		}
	}
}

func (n *node) shell(id, script string) containerizer.Spec {
	return containerizer.Spec{
		ID: id, Path: "sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: n.dir,
		Stdout: filepath.Join(n.dir, id+".out"), Stderr: filepath.Join(n.dir, id+".out"),
	}
}

func (n *node) output(id string) string {
	text, _ := os.ReadFile(filepath.Join(n.dir, id+".out"))
	return strings.TrimSpace(string(text))
}

func (n *node) open() *Containerizer {
	n.t.Helper()
	c, err := New(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// begin opens a life, which ends with the test at the latest.
func (n *node) begin() (*Containerizer, *exits) {
	n.t.Helper()
	c := n.open()
	if _, err := c.Recover(n.t.Context()); err != nil {
		n.t.Fatalf("recover: %v", err)
	}
	x := &exits{containerizertest.Follow(n.t, c)}
	n.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			n.t.Error(err)
		}
		<-x.Done
	})
	return c, x
}

// exits are those of one life.
type exits struct{ *containerizertest.Exits }

func (x *exits) await(id string) containerizer.Exit { return x.Await(id, time.Minute) }

func launch(t testing.TB, c *Containerizer, spec containerizer.Spec) containerizer.Container {
	t.Helper()
	k, err := c.Launch(t.Context(), spec)
	if err != nil {
		t.Fatalf("launch %q: %v", spec.ID, err)
	}
	return k
}

func (n *node) supervisorPID(c *Containerizer) int {
	n.t.Helper()
	client, err := c.await(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	h, err := client.Hello(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return h.PID
}

// freeze stops a process and waits until it is.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the process to stop", func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if text, err := os.ReadFile(task); err != nil || !strings.Contains(string(text), ") T ") {
				return false
			}
		}
		return len(tasks) > 0
	})
}

func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func waitFor(t testing.TB, what string, ready func() bool) {
	t.Helper()
	containerizertest.WaitFor(t, time.Minute, what, ready)
}

// suite runs the common suite on a node.
func suite(t *testing.T, change func(*Config)) {
	containerizertest.Run(t, func(t *testing.T) containerizertest.Harness {
		n := newNode(t)
		change(&n.cfg)
		return containerizertest.Harness{
			Open: func(*testing.T) containerizer.Containerizer { return n.open() },
			Close: func(t *testing.T, c containerizer.Containerizer) {
				if err := c.(*Containerizer).Close(); err != nil {
					t.Error(err)
				}
			},
			Ready: func(t *testing.T, id string) {
				waitFor(t, id+" to be ready", func() bool { return n.output(id) != "" })
			},
			Spec: func(t *testing.T, id string, b containerizertest.Behaviour) containerizer.Spec {
				switch {
				case b.Missing:
					spec := n.shell(id, "")
					spec.Path = "no-such-program"
					return spec
				case b.Ends:
					return n.shell(id, fmt.Sprintf("exit %d", b.ExitCode))
				case b.IgnoresTerm:
					return n.shell(id, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
				}
				return n.shell(id, "echo ready; exec sleep 1000")
			},
		}
	})
}

// processesOf lists the processes of a container by their mark.
func processesOf(t *testing.T, n *node, id string) []int {
	t.Helper()
	pids, err := supervisor.Processes(n.cfg.Dir, supervisor.Container{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return pids
}
