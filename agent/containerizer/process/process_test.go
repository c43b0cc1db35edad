package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
	"starling/agent/testenv"
)

var _ containerizer.Containerizer = (*Containerizer)(nil)

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
	waitFor(t, "another supervisor", func() bool { return c.Check(t.Context()) == nil })
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
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if alive(k.PID) {
		t.Error("the first process lives")
	}
	// Out of its cgroup, it may have a step to go still.
	waitFor(t, "the grandchild to end", func() bool { return !alive(grandchild) })
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
	// Its end may be told before, more than once; that it is gone is told last.
	waitFor(t, "the late launch to be undone", func() bool {
		return strings.Contains(n.log.String(), `msg="launch that was given up is undone" component=containerizer container_id=late`)
	})
	if files, _ := filepath.Glob(filepath.Join(n.cfg.Dir, "containers", "late*")); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
	if err := c.Remove(t.Context(), "h"); err != nil {
		t.Error(err)
	}
}

// awaited is a context that ends as soon as somebody waits for its end: a call that is made under it has sent its question by
// then, and waits for the answer.
type awaited struct {
	context.Context
	cancel context.CancelFunc
}

func untilAwaited(ctx context.Context) awaited {
	ctx, cancel := context.WithCancel(ctx)
	return awaited{ctx, cancel}
}

func (a awaited) Done() <-chan struct{} {
	a.cancel()
	return a.Context.Done()
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
	if _, err := old.Start(untilAwaited(t.Context()), supervisor.Spec{ID: "late", Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Dir: n.dir}); err == nil {
		t.Error("a hung supervisor starts something")
	}
	old.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(n.cfg.Dir, "containers", "damaged.c"), 10); err != nil {
		t.Fatal(err)
	}
	n.cfg.RecoverWithin = 0
	begin := time.Now()
	second := n.open()
	defer second.Close()
	found, err := second.Recover(t.Context())
	// It is to take 3 s; the rest is for what else runs on the machine.
	if took := time.Since(begin); !errors.Is(err, containerizer.ErrDegraded) || took > 15*time.Second {
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
		testenv.Lacks(t, "no memory limits here: %s", c.tree.Lacks())
	}
	spec := n.shell("oom", "exec tail /dev/zero")
	spec.Limits.MemBytes, spec.Limits.CPUs = 32<<20, 0.5
	launch(t, c, spec)
	if e := x.await("oom"); !e.Known || e.Status != 9 || !e.OOM {
		t.Errorf("got %+v, want SIGKILL by the memory limit", e)
	}
	spec = n.shell("fine", "exit 0")
	spec.Limits.MemBytes = 1
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
	_, err := New(Config{Supervisor: []string{"starling"}, IdleExit: -1, CgroupParent: "/../x"})
	for _, want := range []string{"folder", "absolute path", "negative", `"/../x" is no path of a cgroup`} {
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
