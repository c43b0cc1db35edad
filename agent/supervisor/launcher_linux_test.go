package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/testenv"
)

// launcherEnv says how the test binary behaves as a launcher.
const launcherEnv = "STARLING_TEST_LAUNCHER"

// runLauncher starts the script that follows in its arguments as a child that waits until it may run.
func runLauncher() int {
	how := os.Getenv(launcherEnv)
	l, err := OpenLauncher()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch how {
	case "says why":
		l.Failed(errors.New("there is no such image"))
		return 1
	case "says nothing":
		return 0
	case "babbles":
		_, _ = l.conn.Write([]byte("hello\n"))
		return 0
	case "reports another":
		if err := l.Started(1); err != nil {
			return 1
		}
		return 0
	}
	gate, open, err := os.Pipe()
	if err != nil {
		return 1
	}
	cmd := exec.Command("/bin/sh", "-c", "read x <&3; exec 3<&-; "+os.Args[1])
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{gate}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if os.Getenv("STARLING_TEST_PIDNS") != "" {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	}
	if err := cmd.Start(); err != nil {
		l.Failed(err)
		return 1
	}
	if how == "hangs" {
		_, _ = io.Copy(io.Discard, gate)
	}
	if err := l.Started(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return 1
	}
	switch how {
	case "hangs late":
		_, _ = io.Copy(io.Discard, gate)
	case "fails late":
		return 3
	case "reaps":
		_ = open.Close()
		_ = cmd.Wait()
	}
	return 0
}

// launched is a Spec for a launcher that starts a script.
func (n *node) launched(id, how, script string) Spec {
	s := n.shell(id, "")
	s.Path, s.Args = n.cfg.Command[0], []string{"launcher", script}
	s.Env = append(s.Env, roleEnv+"=launcher", launcherEnv+"="+how)
	s.LaunchWithin = time.Minute
	return s
}

func TestLauncherHandsOver(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	for code, script := range map[int]string{exited(7): "exit 7", 15: "kill -15 $$", exited(0): "true"} {
		id := fmt.Sprintf("s%d", code)
		k := c.start(n.launched(id, "", "echo $PPID >/dev/null; "+script))
		if k.PID <= 0 || k.Ticks == 0 || k.Started.IsZero() {
			t.Errorf("got %+v", k)
		}
		if e := c.awaitExit(id); !e.Known || e.Status != code {
			t.Errorf("%s: got %+v", script, e)
		}
	}
	// It is ours afterwards: the parent is the supervisor.
	c.start(n.launched("parent", "", "sleep 0.2; cut -d' ' -f4 /proc/$$/stat; sleep 60"))
	hello, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := n.pidsIn("parent", 1)[0]; got != hello.PID {
		t.Errorf("parent is process %d, want the supervisor %d", got, hello.PID)
	}
	if _, err := c.Kill(t.Context(), "parent"); err != nil {
		t.Error(err)
	}
}

func TestLauncherFails(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	for how, want := range map[string]string{
		"says why":        "there is no such image",
		"says nothing":    "ended without a word",
		"babbles":         "does not speak our language",
		"reports another": "which is not its child",
		"hangs":           "took longer than 300ms",
		"hangs late":      "took longer than 300ms",
		"fails late":      "ended with wait status 768",
		"reaps":           "is not ours",
	} {
		t.Run(strings.ReplaceAll(how, " ", "_"), func(t *testing.T) {
			spec := n.launched("x", how, "echo ran; sleep 100")
			switch how {
			case "hangs", "hangs late":
				spec.LaunchWithin = 300 * time.Millisecond
			case "reaps":
				spec.Args[1] = "true"
			}
			_, err := c.Start(t.Context(), spec)
			if !errors.Is(err, ErrCannotRun) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			waitFor(t, "all processes to go", func() bool { return n.marked() == 0 })
			if h, err := c.Hello(t.Context()); err != nil || h.Running+h.Ended != 0 {
				t.Errorf("hello says %+v, %v", h, err)
			}
		})
	}
}

// marked counts the processes that have the mark of the node.
func (n *node) marked() int { return len(n.having("")) }

// having lists those of them that have something in their environment.
func (n *node) having(what string) (pids []int) {
	procs, err := listProcs()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range procs {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		if !p.zombie() && strings.Contains(string(env), MarkSupervisor+"="+markOf(n.dir)) && strings.Contains(string(env), what) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// While one launcher hangs, others start, and exits are told.
func TestLauncherThatHangsHoldsUpNobody(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	given := make(chan struct{})
	go func() {
		defer close(given)
		spec := n.launched("hangs", "hangs", "true")
		if _, err := c.Start(t.Context(), spec); err == nil {
			t.Error("a launcher that hangs has started something")
		}
	}()
	waitFor(t, "the launcher", func() bool { return len(n.having(MarkContainer+"=hangs")) > 0 })
	for i := range 20 {
		id := fmt.Sprintf("o%d", i)
		c.start(n.shell(id, "exit 0"))
		c.awaitExit(id)
	}
	select {
	case <-given:
		t.Error("twenty short tasks took as long as the launcher that hangs may")
	default:
	}
	for _, pid := range n.having(MarkContainer + "=hangs") {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	<-given
}

// A supervisor that is killed in the middle of launches leaves nothing that the next one does not know.
func TestSupervisorDiesDuringLaunches(t *testing.T) {
	n := newNode(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range 12 {
		c := n.connect()
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, _ = c.Start(ctx, n.launched(fmt.Sprintf("r%d-%d", round, i), "", "exec sleep 1000"))
			})
		}
		timer := time.NewTimer(time.Duration(random.IntN(40)) * time.Millisecond)
		<-timer.C
		n.killSupervisor(c)
		wg.Wait()
		next := n.connect()
		known := next.running()
		waitFor(t, "nothing but the known to run", func() bool { return n.marked() == next.running() })
		for _, k := range next.found {
			if _, err := next.Kill(t.Context(), k.ID); err != nil {
				t.Error(err)
			}
			if err := next.Remove(t.Context(), k.ID); err != nil {
				t.Error(err)
			}
		}
		t.Logf("round %d: %d of 6 are known", round, known)
		next.Close()
	}
}

// running counts the containers that run.
func (c *client) running() int {
	h, err := c.Hello(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return h.Running
}

// The first process of a pid namespace ignores signals that it has no handler for: they end it all the same.
func TestSignalsReachTheFirstOfANamespace(t *testing.T) {
	testenv.NeedRoot(t, "for a pid namespace")
	n := newNode(t)
	c := n.connect()
	for _, tt := range []struct {
		id, script, want string
		signal           int
	}{
		{"no_handler", "echo up; while :; do sleep 0.02; done", "signal 15", 15},
		{"user_signal", "echo up; while :; do sleep 0.02; done", "signal 10", 10},
		{"handler", "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done", "exit 5", 15},
	} {
		spec := n.launched(tt.id, "", "exec 1>>"+n.out(tt.id)+"; "+tt.script)
		spec.Env = append(spec.Env, "STARLING_TEST_PIDNS=1")
		c.start(spec)
		waitFor(t, "the script", func() bool { return strings.Contains(n.output(tt.id), "up") })
		if err := c.Signal(t.Context(), tt.id, tt.signal); err != nil {
			t.Error(err)
		}
		if e := c.awaitExit(tt.id); !e.Known || statusText(e.Status) != tt.want {
			t.Errorf("%s: got %+v (%s), want %s", tt.id, e, statusText(e.Status), tt.want)
		}
	}
}
