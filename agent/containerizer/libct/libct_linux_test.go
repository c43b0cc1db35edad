//go:build linux && cgo

package libct

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/agent/containerizer"
	"starling/agent/containerizer/containerizertest"
	"starling/agent/containerizer/process"
	"starling/agent/supervisor"
	"starling/agent/testenv"
	"starling/master/mesos"
)

// roleEnv makes the test binary run a supervisor instead of tests. As a launcher it is known by its arguments.
const roleEnv = "STARLING_TEST_ROLE"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "container" {
		os.Exit(Main(os.Args[2:]))
	}
	if os.Getenv(roleEnv) == "supervisor" {
		os.Exit(supervisor.Main(os.Args[1:]))
	}
	if role := os.Getenv(roleEnv); role == "agent" || role == "terminal" {
		os.Exit(runAgent(role, os.Getenv("STARLING_TEST_DIR")))
	}
	os.Exit(m.Run())
}

var _ containerizer.Containerizer = (*Containerizer)(nil)

// node is a machine with an agent under test.
type node struct {
	t   testing.TB
	dir string
	sv  process.Config
	cfg Config
}

func newNode(t testing.TB) *node {
	t.Helper()
	testenv.NeedRoot(t, "for containers")
	dir := t.TempDir()
	// Other users have to get to the sandbox.
	for at := dir; len(at) > len(os.TempDir()); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return nodeIn(t, dir)
}

func nodeIn(t testing.TB, dir string) *node {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	n := &node{
		t: t, dir: dir,
		sv: process.Config{
			Dir: filepath.Join(dir, "sv"), Supervisor: []string{exe}, Env: []string{roleEnv + "=supervisor"}, Log: log,
			RecoverWithin: time.Minute,
		},
		cfg: Config{Dir: filepath.Join(dir, "ct"), Launcher: []string{exe, "container"}, Log: log},
	}
	t.Cleanup(n.clean)
	return n
}

func (n *node) open() *Containerizer {
	n.t.Helper()
	p, err := process.New(n.sv)
	if err != nil {
		n.t.Fatal(err)
	}
	c, err := New(n.cfg, p)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// clean ends all containers and the supervisor, and looks for what is left.
func (n *node) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c := n.open()
	found, err := c.Recover(ctx)
	if err != nil {
		n.t.Errorf("cannot clean up: %v", err)
		return
	}
	go func() {
		for range c.Exits() {
		}
	}()
	for _, k := range found {
		if err := c.Destroy(ctx, k.ID); err != nil {
			n.t.Errorf("cannot destroy %q: %v", k.ID, err)
		}
		waitFor(n.t, "exit", func() bool { return c.Remove(ctx, k.ID) == nil })
	}
	groups, err := c.ListGroups(ctx)
	if err != nil {
		n.t.Error(err)
	}
	for _, id := range groups {
		if err := c.CloseGroup(ctx, id); err != nil {
			n.t.Error(err)
		}
	}
	if err := c.StopSupervisor(ctx); err != nil {
		n.t.Error(err)
	}
	n.nothingLeft()
}

// nothingLeft looks for mounts, folders, cgroups and processes of ours.
func (n *node) nothingLeft() {
	n.t.Helper()
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), n.dir) {
		n.t.Errorf("a mount is left:\n%s", mounts)
	}
	entries, _ := os.ReadDir(n.cfg.Dir)
	for _, e := range entries {
		n.t.Errorf("%s is left", e.Name())
	}
	waitFor(n.t, "all processes to go", func() bool { return len(n.processes()) == 0 })
	var left []byte
	n.t.Cleanup(func() {
		if n.t.Failed() && len(left) > 0 {
			n.t.Logf("cgroups are left:\n%s", left)
		}
	})
	waitFor(n.t, "all cgroups to go", func() bool {
		left, _ = exec.Command("find", "/sys/fs/cgroup", "-type", "d", "-path", "*/"+cgroupName(n.sv.Dir)+"*").Output()
		return len(left) == 0
	})
}

// processes lists those of which the environment or the arguments name our folder.
func (n *node) processes() (pids []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if filepath.Base(dir) == fmt.Sprint(os.Getpid()) {
			continue
		}
		args, _ := os.ReadFile(dir + "/cmdline")
		env, _ := os.ReadFile(dir + "/environ")
		if strings.Contains(string(args), n.dir) || strings.Contains(string(env), supervisor.MarkSupervisor+"="+markOf(n.sv.Dir)) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

// begin opens a life, which ends with the test at the latest.
func (n *node) begin() (*Containerizer, *exits) {
	n.t.Helper()
	c := n.open()
	if _, err := c.Recover(n.t.Context()); err != nil {
		n.t.Fatalf("recover: %v", err)
	}
	x := follow(n.t, c)
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

// follow gathers the exits of a life until its end.
func follow(t testing.TB, c *Containerizer) *exits { return &exits{containerizertest.Follow(t, c)} }

func (x *exits) await(id string) containerizer.Exit { return x.Await(id, time.Minute) }

func waitFor(t testing.TB, what string, ready func() bool) {
	t.Helper()
	containerizertest.WaitFor(t, time.Minute, what, ready)
}

// isolated is a container that asks for something, though not much.
func isolated() *mesos.ContainerInfo {
	return &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: &mesos.LinuxInfo{}}
}

// shell is a Spec that runs a script in a container of its own.
func (n *node) shell(id, script string) containerizer.Spec {
	n.t.Helper()
	sandbox := filepath.Join(n.dir, "sandbox-"+safeName(id))
	if err := os.MkdirAll(sandbox, 0o755); err != nil {
		n.t.Fatal(err)
	}
	return containerizer.Spec{
		ID: id, Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Dir: sandbox, Stdout: filepath.Join(sandbox, "stdout"), Stderr: filepath.Join(sandbox, "stderr"),
		Container: isolated(), Command: &mesos.CommandInfo{Value: &script},
	}
}

// An agent that finds a group of before and cannot have all of it again leaves its containers alone.
func TestAGroupThatIsThereKeepsItsContainers(t *testing.T) {
	n := newNode(t)
	c, _ := n.begin()
	group := containerizer.Group{ID: "g", Dir: n.dir}
	if _, err := c.OpenGroup(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	spec := n.shell("g.member", "echo ready; exec sleep 1000")
	spec.Parent, spec.Container = "g", nil
	if _, err := c.Launch(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the member", func() bool { return n.output(spec.ID) == "ready" })
	name := "gone"
	group.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesos.NetworkInfo{{Name: &name}}}
	if _, err := c.OpenGroup(t.Context(), group); err == nil {
		t.Error("a network that is not there was had")
	}
	if u, err := c.Usage(t.Context(), spec.ID); err != nil || u.Processes == 0 {
		t.Errorf("the member is gone: %+v, %v", u, err)
	}
	group.ID = "fresh"
	if _, err := c.OpenGroup(t.Context(), group); err == nil {
		t.Error("a network that is not there was had")
	}
	if ids, err := c.ListGroups(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("a group that could not be made is there: %v, %v", ids, err)
	}
}

func (n *node) output(id string) string {
	out, _ := os.ReadFile(filepath.Join(n.dir, "sandbox-"+safeName(id), "stdout"))
	return strings.TrimSpace(string(out))
}

func (n *node) errOutput(id string) string {
	out, _ := os.ReadFile(filepath.Join(n.dir, "sandbox-"+safeName(id), "stderr"))
	return strings.TrimSpace(string(out))
}

// run runs a container to its end and returns its output.
func (n *node) run(c *Containerizer, x *exits, spec containerizer.Spec) (string, containerizer.Exit) {
	n.t.Helper()
	if _, err := c.Launch(n.t.Context(), spec); err != nil {
		n.t.Fatalf("launch %q: %v", spec.ID, err)
	}
	e := x.await(spec.ID)
	if err := c.Remove(n.t.Context(), spec.ID); err != nil {
		n.t.Error(err)
	}
	return n.output(spec.ID), e
}

func TestSuite(t *testing.T) {
	for name, image := range map[string]bool{"node": false, "image": true} {
		t.Run(name, func(t *testing.T) {
			containerizertest.Run(t, func(t *testing.T) containerizertest.Harness {
				n := newNode(t)
				if image {
					n.withBusybox()
				}
				return containerizertest.Harness{
					AtOnce: 8, // as the agent has it: each has its time, and takes twice a start of this program
					Open:   func(*testing.T) containerizer.Containerizer { return n.open() },
					Close:  func(t *testing.T, c containerizer.Containerizer) { _ = c.(*Containerizer).Close() },
					Spec: func(_ *testing.T, id string, b containerizertest.Behaviour) containerizer.Spec {
						script := "echo up; while :; do sleep 0.02; done"
						switch {
						case b.Ends:
							script = fmt.Sprintf("exit %d", b.ExitCode)
						case b.IgnoresTerm:
							script = "trap '' TERM; " + script
						case image:
							// busybox' shell catches SIGINT to end by a signal to itself, which the first of a namespace cannot. So it is
							// another program that says that it is up.
							script = "echo up >word; exec tail -n 1 -f word"
						}
						s := n.shell(id, script)
						if b.Missing {
							s.Path, s.Args = "/no/such", []string{"/no/such"}
							s.Command = &mesos.CommandInfo{Shell: new(bool), Value: &s.Path}
						}
						if image {
							s.Container.Mesos = busyboxImage()
						}
						return s
					},
					Ready: func(t *testing.T, id string) {
						waitFor(t, "the script", func() bool { return strings.Contains(n.output(id), "up") })
					},
				}
			})
		})
	}
}
