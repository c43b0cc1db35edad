package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes the test binary run Main instead of tests: supervisors under test are real processes.
const roleEnv = "STARLING_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "supervisor" {
		os.Exit(Main(os.Args[1:]))
	}
	if os.Getenv(roleEnv) == "launcher" {
		os.Exit(runLauncher())
	}
	os.Exit(m.Run())
}

// node is a supervisor under test and its folder.
type node struct {
	t   testing.TB
	dir string
	cfg Config
}

// newNode makes a folder whose supervisors and tasks end with the test.
func newNode(t testing.TB) *node {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sv")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, cfg: Config{Dir: dir, Command: []string{exe}, Env: []string{roleEnv + "=supervisor"}}}
	t.Cleanup(n.clean)
	return n
}

func (n *node) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := Ensure(ctx, n.cfg)
	if err != nil {
		n.t.Errorf("cannot clean up: %v", err)
		return
	}
	defer c.Close()
	all, err := c.Watch(ctx, nil)
	if err != nil {
		n.t.Errorf("cannot list at the end: %v", err)
	}
	for _, k := range all {
		if k.Exit == nil {
			if _, err := c.Kill(ctx, k.ID); err != nil {
				n.t.Errorf("cannot kill %q at the end: %v", k.ID, err)
			}
		}
	}
	hello, err := c.Hello(ctx)
	if err != nil {
		n.t.Errorf("hello: %v", err)
		return
	}
	if err := c.Stop(ctx); err != nil {
		n.t.Errorf("stop: %v", err)
	}
	waitFor(n.t, "the supervisor to end", func() bool { return !alive(hello.PID) })
	procs, err := listProcs()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range procs {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		if strings.Contains(string(env), MarkSupervisor+"="+markOf(n.dir)) {
			n.t.Errorf("process %d is left", p.pid)
		}
	}
	if n.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(n.dir, logName))
		n.t.Logf("log of the supervisor:\n%s", log)
	}
}

// client is a connection with the exits that it was told.
type client struct {
	*Client
	t     testing.TB
	mu    sync.Mutex
	exits map[string][]Exit
	found []Container
}

// ensure is Ensure with all the time that a busy machine may take for a start.
func (n *node) ensure() (*Client, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	return Ensure(ctx, n.cfg)
}

func (n *node) connect() *client {
	n.t.Helper()
	sc, err := n.ensure()
	if err != nil {
		n.t.Fatalf("ensure: %v", err)
	}
	c := &client{Client: sc, t: n.t, exits: make(map[string][]Exit)}
	n.t.Cleanup(sc.Close)
	c.found, err = sc.Watch(n.t.Context(), func(k Container) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.exits[k.ID] = append(c.exits[k.ID], *k.Exit)
	})
	if err != nil {
		n.t.Fatalf("watch: %v", err)
	}
	return c
}

func (c *client) exit(id string) (Exit, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.exits[id]) > 1 {
		c.t.Errorf("exit of %q was told %d times", id, len(c.exits[id]))
	}
	if len(c.exits[id]) == 0 {
		return Exit{}, false
	}
	return c.exits[id][0], true
}

func (c *client) awaitExit(id string) Exit {
	c.t.Helper()
	var e Exit
	waitFor(c.t, "the exit of "+id, func() (ok bool) { e, ok = c.exit(id); return ok })
	return e
}

// find returns the container as the list at the connect told it.
func (c *client) find(id string) Container {
	c.t.Helper()
	for _, k := range c.found {
		if k.ID == id {
			return k
		}
	}
	c.t.Fatalf("container %q is not among the %d found", id, len(c.found))
	return Container{}
}

// shell is a Spec that runs a script, with an output file.
func (n *node) shell(id, script string) Spec {
	return Spec{
		ID: id, Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"},
		Dir: "/", Stdout: n.out(id), Stderr: n.out(id),
	}
}

func (n *node) out(id string) string { return filepath.Join(filepath.Dir(n.dir), id+".out") }

func (n *node) output(id string) string {
	text, err := os.ReadFile(n.out(id))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (c *client) start(spec Spec) Container {
	c.t.Helper()
	k, err := c.Start(c.t.Context(), spec)
	if err != nil {
		c.t.Fatalf("start %q: %v", spec.ID, err)
	}
	return k
}

// killSupervisor kills it the hard way and waits until it is gone.
func (n *node) killSupervisor(c *client) {
	n.t.Helper()
	hello, err := c.Hello(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	if err := unix.Kill(hello.PID, unix.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	<-c.Done()
	waitFor(n.t, "the supervisor to die", func() bool { return !alive(hello.PID) })
}

// alive reports whether a process is there and not a zombie.
func alive(pid int) bool {
	p, err := readProc(pid)
	return err == nil && !p.zombie()
}

// pidsIn waits until the output of a container holds n numbers.
func (n *node) pidsIn(id string, count int) []int {
	n.t.Helper()
	var pids []int
	waitFor(n.t, fmt.Sprintf("%d pids in the output of %s", count, id), func() bool {
		pids = pids[:0]
		for _, word := range strings.Fields(n.output(id)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
		return len(pids) >= count
	})
	return pids
}

func waitFor(t testing.TB, what string, ready func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ready() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func exited(code int) int { return code << 8 }

func statusText(status int) string {
	ws := syscall.WaitStatus(status)
	if ws.Signaled() {
		return "signal " + strconv.Itoa(int(ws.Signal()))
	}
	return "exit " + strconv.Itoa(ws.ExitStatus())
}
