package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/testenv"
)

// kernelTells reports whether the kernel tells a pidfd's holder the exit of a process that somebody else reaped.
func kernelTells() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// Linux 6.15 tells that it knows the question, later ones say so in the mask of what they support.
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if unix.IoctlPidfdInfo(fd, &info) != nil {
		return false
	}
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 15
}

// gated is a script that ends with a code when the test opens its gate.
func (n *node) gated(id string, code int) Spec {
	return n.shell(id, fmt.Sprintf("echo $$; while [ ! -e %s ]; do sleep 0.02; done; echo on; exit %d", n.gate(id), code))
}

func (n *node) gate(id string) string { return filepath.Join(filepath.Dir(n.dir), id+".gate") }

func (n *node) open(id string) {
	n.t.Helper()
	if err := os.WriteFile(n.gate(id), nil, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func TestSupervisorDiesAndTasksLive(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	const count = 20
	pids := make([]int, count)
	for i := range count {
		pids[i] = c.start(n.gated(fmt.Sprintf("g%d", i), i)).PID
	}
	c.start(n.shell("before", "exit 77"))
	c.awaitExit("before")
	n.killSupervisor(c)
	for i, pid := range pids {
		if !alive(pid) {
			t.Errorf("task %d was harmed", i)
		}
	}
	begin := time.Now()
	c = n.connect()
	// It is to take 3 s at most; the rest is for what else runs on the machine.
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("adoption took %v", took)
	}
	if k := c.find("before"); k.Exit == nil || k.Exit.Status != exited(77) {
		t.Errorf("exit from before: got %+v", k.Exit)
	}
	for i := range count {
		id := fmt.Sprintf("g%d", i)
		if k := c.find(id); k.PID != pids[i] || k.Exit != nil {
			t.Errorf("got %+v, want process %d", k, pids[i])
		}
		n.open(id)
	}
	for i := range count {
		e := c.awaitExit(fmt.Sprintf("g%d", i))
		if e.Known && e.Status != exited(i) {
			t.Errorf("task %d: got %s", i, statusText(e.Status))
		}
		if !e.Known && kernelTells() {
			t.Errorf("task %d: exit is unknown", i)
		}
		if out := n.output(fmt.Sprintf("g%d", i)); !strings.HasSuffix(out, "on") {
			t.Errorf("task %d: output ends with %q: its files went with the supervisor", i, out)
		}
	}
}

func TestAdoptedIsSignalledAndKilled(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	c.start(n.shell("s", "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done"))
	c.start(n.shell("d", daemonizer+"while :; do sleep 1; done"))
	pids := n.pidsIn("d", 2)
	waitFor(t, "the trap", func() bool { return n.output("s") != "" })
	n.killSupervisor(c)
	c = n.connect()
	if err := c.Signal(t.Context(), "s", 15); err != nil {
		t.Error(err)
	}
	if e := c.awaitExit("s"); e.Known && e.Status != exited(5) || !e.Known && kernelTells() {
		t.Errorf("got %+v, want exit 5", e)
	}
	if k, err := c.Kill(t.Context(), "d"); err != nil || k.Exit == nil {
		t.Errorf("got %+v, %v", k, err)
	}
	for _, pid := range pids {
		waitFor(t, "the process to die", func() bool { return !alive(pid) })
	}
}

// An exit that no supervisor sees is unknown to the next one, never a success; who held the process completes it.
func TestExitInTheGap(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	k := c.start(n.gated("gap", 0))
	h, err := OpenHandle(k.PID, k.Ticks)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	n.killSupervisor(c)
	n.open("gap")
	waitFor(t, "the task to end", func() bool { _, err := readProc(k.PID); return err != nil })
	c = n.connect()
	if got := c.find("gap"); got.Exit == nil || got.Exit.Known {
		t.Fatalf("got %+v, want an unknown exit", got.Exit)
	}
	if status, known, ended := h.Exit(); !ended || known != kernelTells() || status != 0 {
		t.Errorf("handle says status %d, known %v, ended %v", status, known, ended)
	}
	for _, want := range []int{exited(3), exited(3)} {
		got, err := c.Amend(t.Context(), "gap", Exit{Known: true, Status: want, At: time.Now()})
		if err != nil || got.Exit.Status != exited(3) {
			t.Errorf("got %+v, %v", got.Exit, err)
		}
	}
	if got, err := c.Amend(t.Context(), "gap", Exit{Known: true, Status: 9, At: time.Now()}); err != nil || got.Exit.Status != exited(3) {
		t.Errorf("a known exit was changed: %+v, %v", got.Exit, err)
	}
	n.killSupervisor(c)
	if got := n.connect().find("gap"); got.Exit == nil || got.Exit.Status != exited(3) {
		t.Errorf("after another restart: got %+v", got.Exit)
	}
}

// D7: a record that names a process which is another one by now leads to no signal, in a thousand tries.
func TestReusedPIDIsLeftAlone(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	k := c.start(n.gated("victim", 4))
	n.killSupervisor(c)
	r := readRecord(t, n, "victim")
	const rounds = 125 // of four tries for each of two records
	for name, change := range map[string]func(*record){
		"other start time": func(r *record) { r.Ticks-- },
		"other boot":       func(r *record) { r.Boot = "00000000-0000-0000-0000-000000000000" },
	} {
		stale := *r
		stale.ID = strings.ReplaceAll(name, " ", "-")
		change(&stale)
		if err := n.records().write(&stale, false); err != nil {
			t.Fatal(err)
		}
	}
	c = n.connect()
	tries := 0
	for _, id := range []string{"other-start-time", "other-boot"} {
		if got := c.find(id); got.Exit == nil || got.Exit.Known {
			t.Errorf("%s: got %+v, want an unknown exit", id, got.Exit)
		}
		for _, op := range []func() error{
			func() error { return c.Signal(t.Context(), id, 9) },
			func() error { _, err := c.Kill(t.Context(), id); return err },
			func() error {
				return KillProcesses(t.Context(), n.dir, Container{ID: id, PID: k.PID, Ticks: k.Ticks - 1})
			},
			func() error {
				if h, err := OpenHandle(k.PID, k.Ticks-1); !errors.Is(err, ErrGone) {
					return fmt.Errorf("got %v, %w, want ErrGone", h, err)
				}
				return nil
			},
		} {
			for range rounds {
				tries++
				if err := op(); err != nil || !alive(k.PID) {
					t.Fatalf("%s: try %d: %v; another process lives: %v", id, tries, err, alive(k.PID))
				}
			}
		}
	}
	t.Logf("0 wrong kills in %d tries", tries)
}

func (n *node) records() records {
	return records{dir: filepath.Join(n.dir, "containers"), quarantine: filepath.Join(n.dir, "quarantine")}
}

func readRecord(t *testing.T, n *node, id string) *record {
	t.Helper()
	text, err := os.ReadFile(n.records().path(id))
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeRecord(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDamagedRecords(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	damages := map[string]func([]byte) []byte{
		"empty":   func([]byte) []byte { return nil },
		"torn":    func(b []byte) []byte { return b[:len(b)/2] },
		"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
		"flipped": func(b []byte) []byte { b[len(b)-5] ^= 4; return b },
		"garbage": func([]byte) []byte { return []byte("{\"id\": [[[") },
		"swapped": func(b []byte) []byte { return []byte(strings.Replace(string(b), "swapped", "swopped", 1)) },
		// Nothing is wrong with these.
		"healthy": func(b []byte) []byte { return b },
		"intent":  nil,
	}
	pids := make(map[string]int)
	for id := range damages {
		pids[id] = c.start(n.gated(id, 6)).PID
	}
	n.killSupervisor(c)
	for id, damage := range damages {
		if damage == nil {
			r := readRecord(t, n, id)
			r.PID, r.Ticks = 0, 0
			if err := n.records().write(r, false); err != nil {
				t.Fatal(err)
			}
			continue
		}
		path := n.records().path(id)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Records without processes, and files that are no records.
	for name, text := range map[string]string{"ghost.c": "", "half.t": "x", "README": "hello"} {
		if err := os.WriteFile(filepath.Join(n.dir, "containers", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c = n.connect()
	if got := c.find("ghost"); got.Exit == nil || got.Exit.Known {
		t.Errorf("ghost: got %+v, want an unknown exit", got.Exit)
	}
	for id := range damages {
		if got := c.find(id); got.PID != pids[id] || got.Exit != nil || !alive(pids[id]) {
			t.Errorf("%s: got %+v, want process %d, running", id, got, pids[id])
		} else if age := time.Since(got.Started); age < 0 || age > time.Minute {
			t.Errorf("%s: started %v ago", id, age)
		}
		n.open(id)
	}
	for id := range damages {
		if e := c.awaitExit(id); e.Known && e.Status != exited(6) || !e.Known && kernelTells() {
			t.Errorf("%s: got %+v, want exit 6", id, e)
		}
	}
	quarantined, err := os.ReadDir(filepath.Join(n.dir, "quarantine"))
	if err != nil || len(quarantined) != 7 {
		t.Errorf("%d files in quarantine, want 7 (%v)", len(quarantined), err)
	}
}

// An intent without a process is a start whose outcome nobody knows: it is not repeated.
func TestIntentWithoutProcess(t *testing.T) {
	n := newNode(t)
	n.killSupervisor(n.connect())
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.records().write(&record{Container: Container{ID: "i"}, Boot: boot}, false); err != nil {
		t.Fatal(err)
	}
	c := n.connect()
	if k := c.start(n.shell("i", "exit 0")); k.Exit == nil || k.Exit.Known {
		t.Errorf("got %+v, want an unknown exit", k)
	}
}

func TestUpgradeLosesNothing(t *testing.T) {
	count := 1000
	if testing.Short() {
		count = 100
	}
	n := newNode(t)
	c := n.connect()
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Adopted ones take part, too.
	adopted := c.start(n.gated("adopted", 8))
	n.killSupervisor(c)
	c = n.connect()
	if h, err = c.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Upgrade(t.Context(), []string{"/no/such"}); !errors.Is(err, ErrCannotRun) {
		t.Errorf("got %v, want ErrCannotRun", err)
	}
	if err := c.Upgrade(t.Context(), []string{"/etc/passwd"}); err == nil {
		t.Error("upgrade to something that is no program succeeds")
	}

	exits := make(map[string]Exit)
	var mu sync.Mutex
	note := func(k Container) {
		mu.Lock()
		defer mu.Unlock()
		if k.Exit != nil {
			exits[k.ID] = *k.Exit
		}
	}
	// A client that comes again and again, and another that starts under way, while the supervisor re-executes itself.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			sc, err := n.ensure()
			if err != nil {
				t.Error(err)
				return
			}
			found, err := sc.Watch(t.Context(), note)
			if err == nil {
				for _, k := range found {
					note(k)
				}
			}
			select {
			case <-sc.Done():
				sc.Close()
			case <-stop:
				sc.Close()
				return
			}
		}
	})
	// twenty re-executions or so, spread over all that happens
	next := 0
	due := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if len(exits) < next {
			return false
		}
		next = len(exits) + count/20
		return true
	}
	upgraded := make(chan int)
	go func() {
		times := 0
		defer func() { upgraded <- times }()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if !due() {
				continue
			}
			sc, err := n.ensure()
			if err != nil {
				t.Error(err)
				return
			}
			if err := sc.Upgrade(t.Context(), n.cfg.Command); err == nil {
				times++
			} else {
				t.Errorf("upgrade: %v", err)
			}
			sc.Close()
		}
	}()
	sc, err := n.ensure()
	for i := range count {
		spec := n.shell(fmt.Sprintf("u%d", i), fmt.Sprintf("exit %d", i%200))
		spec.Stdout, spec.Stderr = "", ""
		for err != nil || startOnce(t, sc, spec) != nil {
			if sc != nil {
				sc.Close()
			}
			sc, err = n.ensure()
		}
	}
	sc.Close()
	n.open("adopted")
	waitFor(t, "all exits", func() bool { mu.Lock(); defer mu.Unlock(); return len(exits) == count+1 })
	close(stop)
	times := <-upgraded
	wg.Wait()
	t.Logf("%d starts and exits during %d re-executions", count, times)
	if times == 0 {
		t.Error("no re-execution at all")
	}
	for i := range count {
		if e := exits[fmt.Sprintf("u%d", i)]; !e.Known || e.Status != exited(i%200) {
			t.Errorf("u%d: got %+v", i, e)
		}
	}
	if e := exits["adopted"]; e.Known && e.Status != exited(8) || !e.Known && kernelTells() {
		t.Errorf("adopted (process %d): got %+v", adopted.PID, e)
	}
	after, err := n.connect().Hello(t.Context())
	if err != nil || after.PID != h.PID || after.Generation < times {
		t.Errorf("got %+v, %v, want process %d", after, err, h.PID)
	}
}

func startOnce(t *testing.T, c *Client, spec Spec) error {
	_, err := c.Start(t.Context(), spec)
	if err != nil && !errors.Is(err, ErrDisconnected) {
		t.Errorf("start: %v", err)
		return nil
	}
	return err
}

// A disk that can't take an exit holds it up; it is told once it was written.
func TestExitWaitsForTheDisk(t *testing.T) {
	testenv.NeedRoot(t, "to mount")
	n := newNode(t)
	c := n.connect()
	k := c.start(n.gated("w", 5))
	dir := filepath.Join(n.dir, "containers")
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		testenv.Lacks(t, "cannot mount: %v", err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(dir, 0)
		}
	}()
	if _, err := c.Start(t.Context(), n.shell("x", "exit 0")); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("start on a read-only disk: got %v", err)
	}
	n.open("w")
	waitFor(t, "the log to tell of it", func() bool {
		log, _ := os.ReadFile(filepath.Join(n.dir, logName))
		return strings.Contains(string(log), "cannot write an exit")
	})
	if _, told := c.exit("w"); told {
		t.Error("an exit was told that is not on disk")
	}
	if p, err := readProc(k.PID); err != nil || !p.zombie() {
		t.Errorf("the process was reaped: %+v, %v", p, err)
	}
	// It is busy while the supervisor tries.
	waitFor(t, "the disk to be let go", func() bool {
		err := unix.Unmount(dir, 0)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
		return err == nil
	})
	mounted = false
	if e := c.awaitExit("w"); e.Status != exited(5) {
		t.Errorf("got %s, want exit 5", statusText(e.Status))
	}
}

func TestRemovedFolderEndsTheSupervisor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sv")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, cfg: Config{Dir: dir, Command: []string{exe}, Env: []string{roleEnv + "=supervisor"}}}
	c := n.connect()
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.start(n.gated("r", 5))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	n.open("r")
	if e := c.awaitExit("r"); e.Status != exited(5) {
		t.Errorf("got %s, want exit 5", statusText(e.Status))
	}
	waitFor(t, "the supervisor to end", func() bool { return !alive(h.PID) })
}
