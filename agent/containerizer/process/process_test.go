package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

var _ containerizer.Containerizer = (*Containerizer)(nil)

// node is a machine with an agent under test.
type node struct {
	t   testing.TB
	dir string
	cfg Config
	log *logBuffer
}

// logBuffer keeps a log, and shows it.
type logBuffer struct {
	mu  sync.Mutex
	to  io.Writer
	all strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all.Write(p)
	return b.to.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

func newNode(t testing.TB) *node {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log := &logBuffer{to: t.Output()}
	n := &node{t: t, dir: dir, log: log, cfg: Config{
		Dir: filepath.Join(dir, "sv"), Supervisor: []string{exe}, Env: []string{roleEnv + "=supervisor"},
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}}
	t.Cleanup(n.clean)
	return n
}

// clean ends all containers and the supervisor.
func (n *node) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
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
	x := &exits{t: n.t, got: make(map[string][]containerizer.Exit)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range c.Exits() {
			x.mu.Lock()
			x.got[e.ID] = append(x.got[e.ID], e)
			x.mu.Unlock()
		}
	}()
	n.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			n.t.Error(err)
		}
		<-done
	})
	return c, x
}

type exits struct {
	t   testing.TB
	mu  sync.Mutex
	got map[string][]containerizer.Exit
}

func (x *exits) await(id string) containerizer.Exit {
	x.t.Helper()
	var e containerizer.Exit
	waitFor(x.t, "the exit of "+id, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		if len(x.got[id]) > 1 {
			x.t.Fatalf("exit of %q was delivered %d times", id, len(x.got[id]))
		}
		if len(x.got[id]) == 1 {
			e = x.got[id][0]
			return true
		}
		return false
	})
	return e
}

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
	for deadline := time.Now().Add(15 * time.Second); !ready(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
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
				return n.shell(id, "exec sleep 1000")
			},
		}
	})
}

func TestSuite(t *testing.T) { suite(t, func(*Config) {}) }

func TestSuiteWithoutCgroups(t *testing.T) { suite(t, func(c *Config) { c.NoCgroups = true }) }

func TestSupervisorKilled(t *testing.T) {
	n := newNode(t)
	c, x := n.begin()
	const count = 20
	pids := make(map[string]int)
	for i := range count {
		id := fmt.Sprintf("k%d", i)
		pids[id] = launch(t, c, n.shell(id, fmt.Sprintf("while [ ! -e %s/go-%s ]; do sleep 0.02; done; exit %d", n.dir, id, 10+i))).PID
	}
	// Half of them end while nobody but us holds them.
	old := n.supervisorPID(c)
	freeze(t, old)
	release := func(from, to int) {
		for i := from; i < to; i++ {
			if err := os.WriteFile(fmt.Sprintf("%s/go-k%d", n.dir, i), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	release(0, count/2)
	for i := range count / 2 {
		waitFor(t, "the process to end", func() bool { return !alive(pids[fmt.Sprintf("k%d", i)]) })
	}
	begin := time.Now()
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i := range count / 2 {
		id := fmt.Sprintf("k%d", i)
		if e := x.await(id); e.Known && e.Status != (10+i)<<8 || !e.Known && kernelTells() {
			t.Errorf("%s: got %+v, want exit code %d", id, e, 10+i)
		}
	}
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("new supervisor serves after %v", time.Since(begin))
	for i := count / 2; i < count; i++ {
		if id := fmt.Sprintf("k%d", i); !alive(pids[id]) {
			t.Errorf("%s was harmed", id)
		}
	}
	release(count/2, count)
	for i := count / 2; i < count; i++ {
		id := fmt.Sprintf("k%d", i)
		if e := x.await(id); e.Known && e.Status != (10+i)<<8 || !e.Known && kernelTells() {
			t.Errorf("%s: got %+v, want exit code %d", id, e, 10+i)
		}
	}
}

// kernelTells reports whether exits of processes that others reaped can be known here: Linux 6.15 and later.
func kernelTells() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}

func TestAgentAwayAndBack(t *testing.T) {
	n := newNode(t)
	first, _ := n.begin()
	launch(t, first, n.shell("gap", fmt.Sprintf("while [ ! -e %s/go ]; do sleep 0.02; done; exit 12", n.dir)))
	stays := launch(t, first, n.shell("stays", "exec sleep 1000"))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the exit to be on disk", func() bool {
		text, _ := os.ReadFile(filepath.Join(n.cfg.Dir, "containers", "gap.c"))
		return strings.Contains(string(text), `"exit"`)
	})
	second, x := n.begin()
	if e := x.await("gap"); !e.Known || e.Status != 12<<8 {
		t.Errorf("got %+v, want exit code 12", e)
	}
	if !alive(stays.PID) {
		t.Error("a container was harmed")
	}
	if err := second.Remove(t.Context(), "gap"); err != nil {
		t.Error(err)
	}
}

func TestHungSupervisor(t *testing.T) {
	n := newNode(t)
	c, x := n.begin()
	k := launch(t, c, n.shell("h", "trap '' TERM; (setsid sh -c 'echo $$; while :; do sleep 1; done' &); while :; do sleep 1; done"))
	waitFor(t, "the grandchild", func() bool { return n.output("h") != "" })
	var grandchild int
	if _, err := fmt.Sscan(n.output("h"), &grandchild); err != nil {
		t.Fatal(err)
	}
	pid := n.supervisorPID(c)
	freeze(t, pid)
	defer unix.Kill(pid, unix.SIGCONT)
	begin := time.Now()
	if err := c.Check(t.Context()); err == nil {
		t.Error("a hung supervisor passes the check")
	}
	if err := c.Destroy(t.Context(), "h"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if alive(k.PID) || alive(grandchild) {
		t.Error("processes live")
	}
	if e := x.await("h"); !e.Known || e.Status != 9 {
		t.Errorf("got %+v, want SIGKILL", e)
	}
	// A launch meanwhile is given up, and nothing of it stays.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Launch(ctx, n.shell("late", "exec sleep 1000")); err == nil {
		t.Error("launch succeeds without a supervisor")
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the late launch to be undone", func() bool { return strings.Contains(n.log.String(), "container_id=late") })
	if files, _ := filepath.Glob(filepath.Join(n.cfg.Dir, "containers", "late*")); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
	if err := c.Remove(t.Context(), "h"); err != nil {
		t.Error(err)
	}
}

// TestHungSupervisorAtTheStart holds P3b for an agent that starts: it serves what the records say, can end containers, and
// what the supervisor was asked by the life before comes to nothing.
func TestHungSupervisorAtTheStart(t *testing.T) {
	n := newNode(t)
	first, _ := n.begin()
	note := n.shell("noted", "exec sleep 1000")
	note.Note = []byte("what it is")
	noted := launch(t, first, note)
	launch(t, first, n.shell("damaged", "exec sleep 1000"))
	ends := launch(t, first, n.shell("ends", "exec sleep 1000"))
	pid := n.supervisorPID(first)
	old, err := supervisor.Dial(t.Context(), n.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	freeze(t, pid)
	defer unix.Kill(pid, unix.SIGCONT)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	if _, err := old.Start(ctx, supervisor.Spec{ID: "late", Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Dir: n.dir}); err == nil {
		t.Error("a hung supervisor starts something")
	}
	cancel()
	old.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(n.cfg.Dir, "containers", "damaged.c"), 10); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	second := n.open()
	defer second.Close()
	found, err := second.Recover(t.Context())
	if took := time.Since(begin); !errors.Is(err, containerizer.ErrDegraded) || took > 5*time.Second {
		t.Fatalf("recover after %v: got %v, want ErrDegraded", took, err)
	}
	got := map[string]containerizer.Container{}
	for _, k := range found {
		got[k.ID] = k
	}
	if k := got["noted"]; len(got) != 3 || k.PID != noted.PID || string(k.Note) != "what it is" {
		t.Errorf("found %+v", found)
	}
	if k, ok := got["damaged"]; !ok || k.PID != 0 || k.Exit != nil {
		t.Errorf("damaged: got %+v", k)
	}
	if err := second.Check(t.Context()); err == nil {
		t.Error("a hung supervisor passes the check")
	}
	if err := second.Destroy(t.Context(), "ends"); err != nil || alive(ends.PID) {
		t.Errorf("destroy: %v", err)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the connection", func() bool { return second.Check(t.Context()) == nil })
	waitFor(t, "the late launch to be undone", func() bool {
		return strings.Contains(n.log.String(), "container_id=late") && len(processesOf(t, n, "late")) == 0
	})
	if !alive(noted.PID) || len(processesOf(t, n, "damaged")) != 1 {
		t.Error("a container was harmed")
	}
	if e := <-second.Exits(); e.ID != "ends" || !e.Known || e.Status != 9 {
		t.Errorf("got %+v, want SIGKILL of %q", e, "ends")
	}
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

func TestBadSpecs(t *testing.T) {
	n := newNode(t)
	c, _ := n.begin()
	for name, tt := range map[string]struct {
		change func(*containerizer.Spec)
		want   string
	}{
		"no program":       {func(s *containerizer.Spec) { s.Path = "" }, "no program given"},
		"program lacks":    {func(s *containerizer.Spec) { s.Path = "/no/such" }, `cannot run "/no/such": no such file or directory`},
		"not in the PATH":  {func(s *containerizer.Spec) { s.Env = []string{"PATH=/var/empty"} }, `cannot run "sh": no such file or directory`},
		"folder lacks":     {func(s *containerizer.Spec) { s.Dir = "/no/such" }, `cannot use working directory "/no/such": no such file or directory`},
		"user is unknown":  {func(s *containerizer.Spec) { s.User = "no-such-user" }, `cannot run as user "no-such-user": no such user`},
		"folder of output": {func(s *containerizer.Spec) { s.Stdout = "/no/such/file" }, `cannot open output file "/no/such/file": no such file or directory`},
	} {
		t.Run(name, func(t *testing.T) {
			spec := n.shell("bad", "exit 0")
			tt.change(&spec)
			if _, err := c.Launch(t.Context(), spec); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	if files, _ := filepath.Glob(filepath.Join(n.cfg.Dir, "containers", "*")); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}

func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if _, err := lookUser("root", os.Geteuid()); err == nil || !strings.Contains(err.Error(), "only root") {
			t.Errorf("got %v, want a refusal", err)
		}
		return
	}
	n := newNode(t)
	if err := os.Chmod(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(n.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	c, x := n.begin()
	for id, name := range map[string]string{"name": "nobody", "number": "12345"} {
		spec := n.shell(id, "id -u; id -G")
		spec.User = name
		launch(t, c, spec)
		x.await(id)
		want := "12345\n12345"
		if name == "nobody" {
			want = "65534\n65534"
		}
		if got := n.output(id); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(n.dir, id+".out"), &stat); err != nil || stat.Uid == 0 {
			t.Errorf("output belongs to %d, %v", stat.Uid, err)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	n := newNode(t)
	c, x := n.begin()
	if !c.tree.Has("memory") {
		lacking(t, "no memory limits here: %s", c.tree.Lacks())
	}
	spec := n.shell("oom", "exec tail /dev/zero")
	spec.MemBytes, spec.CPUs = 32<<20, 0.5
	launch(t, c, spec)
	if e := x.await("oom"); !e.Known || e.Status != 9 || !e.OOM {
		t.Errorf("got %+v, want SIGKILL by the memory limit", e)
	}
	spec = n.shell("fine", "exit 0")
	spec.MemBytes = 1
	launch(t, c, spec)
	if e := x.await("fine"); e.Status != 0 || e.OOM {
		t.Errorf("got %+v, want success", e)
	}
}

func TestStopSupervisorNeedsRest(t *testing.T) {
	n := newNode(t)
	c, x := n.begin()
	launch(t, c, n.shell("s", "exec sleep 1000"))
	if err := c.StopSupervisor(t.Context()); !errors.Is(err, supervisor.ErrRunning) {
		t.Errorf("got %v, want ErrRunning", err)
	}
	if err := c.Destroy(t.Context(), "s"); err != nil {
		t.Error(err)
	}
	x.await("s")
}

func TestConfig(t *testing.T) {
	_, err := New(Config{Supervisor: []string{"starling"}, IdleExit: -1})
	for _, want := range []string{"folder", "absolute path", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want something about %q", err, want)
		}
	}
}

func TestDescriptorsAreGivenBack(t *testing.T) {
	n := newNode(t)
	c, x := n.begin()
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	round := func(r int) {
		for i := range 20 {
			id := fmt.Sprintf("f%d-%d", r, i)
			launch(t, c, n.shell(id, "exec sleep 1000"))
		}
		for i := range 20 {
			id := fmt.Sprintf("f%d-%d", r, i)
			if err := c.Destroy(t.Context(), id); err != nil {
				t.Error(err)
			}
			x.await(id)
			if err := c.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	}
	round(0)
	before := count()
	round(1)
	if after := count(); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// lacking skips a test for want of something, and says why. In CI, where everything should be there, that is a failure.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
