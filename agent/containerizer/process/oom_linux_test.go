package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
	"starling/agent/testenv"
)

// hog is a container in which a process that is not the first one exceeds the memory limit once its gate is open.
func (n *node) hog(id string, limit int64, then string) containerizer.Spec {
	spec := n.shell(id, fmt.Sprintf("while [ ! -e %s/go-%s ]; do sleep 0.02; done; (tail /dev/zero); %s", n.dir, id, then))
	spec.Limits.MemBytes = limit
	return spec
}

func (n *node) release(id string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, "go-"+id), nil, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) beginLimited() (*Containerizer, *exits) {
	n.t.Helper()
	c, x := n.begin()
	if !c.tree.Has("memory") {
		testenv.Lacks(n.t, "no memory limits here: %s", c.tree.Lacks())
	}
	return c, x
}

func TestMemoryLimitStrikesAChild(t *testing.T) {
	n := newNode(t)
	c, x := n.beginLimited()
	for id, then := range map[string]string{"lives-on": "exec sleep 1000", "fails": "exit 3", "succeeds": "exit 0"} {
		launch(t, c, n.hog(id, 32<<20, then))
		n.release(id)
		e := x.await(id)
		if !e.Known || !e.OOM || e.MemLimit != 32<<20 || e.MemPeak < 30<<20 || e.MemPeak > e.MemLimit {
			t.Errorf("%s: got %+v, want the memory limit", id, e)
		}
		// They are killed with the first one, whose exit does not wait for them to be dead.
		waitFor(t, "the processes of "+id+" to end", func() bool { return len(processesOf(t, n, id)) == 0 })
	}
}

func TestMemoryLimitOfAGroup(t *testing.T) {
	n := newNode(t)
	c, x := n.beginLimited()
	if err := c.MakeGroup("g", containerizer.Limits{MemBytes: 48 << 20}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.RemoveGroup(t.Context(), "g"); err != nil {
			t.Error(err)
		}
	}()
	quiet := n.shell("quiet", "exec sleep 1000")
	quiet.Parent = "g"
	beside := launch(t, c, quiet)
	for id, limit := range map[string]int64{"free": 0, "wide": 1 << 30, "narrow": 32 << 20} {
		spec := n.hog(id, limit, "exec sleep 1000")
		spec.Parent = "g"
		launch(t, c, spec)
		n.release(id)
		want := int64(48 << 20)
		if id == "narrow" {
			want = limit
		}
		if e := x.await(id); !e.OOM || e.MemLimit != want || e.MemPeak < want-2<<20 {
			t.Errorf("%s: got %+v, want a limit of %d", id, e, want)
		}
		if !alive(beside.PID) {
			t.Fatalf("%s: a member ended with another one", id)
		}
	}
	for _, id := range []string{"quiet", "free", "wide", "narrow"} {
		if err := c.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
		waitFor(t, "the end of "+id, func() bool { return c.Remove(t.Context(), id) == nil })
	}
}

// TestMemoryLimitStrikesWithoutAgent has the OOM killer strike between two lives of the agent.
func TestMemoryLimitStrikesWithoutAgent(t *testing.T) {
	n := newNode(t)
	first, _ := n.beginLimited()
	k := launch(t, first, n.hog("gap", 32<<20, "exec sleep 1000"))
	other := launch(t, first, n.hog("other", 32<<20, "exec sleep 1000"))
	dirs, err := first.Cgroups(t.Context(), "gap")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	n.release("gap")
	waitFor(t, "the OOM killer", func() bool { return !alive(k.PID) || supervisor.OOMKilled(dirs, int(unix.SIGKILL)) })
	_, x := n.begin()
	if e := x.await("gap"); !e.Known || e.Status != 9 || !e.OOM || e.MemLimit != 32<<20 {
		t.Errorf("got %+v, want the memory limit", e)
	}
	if !alive(other.PID) {
		t.Fatal("a container was harmed")
	}
	// What was found again is watched again.
	n.release("other")
	if e := x.await("other"); !e.Known || e.Status != 9 || !e.OOM {
		t.Errorf("got %+v, want the memory limit", e)
	}
}

// TestMemoryLimitStrikesWithoutSupervisor has both, agent and supervisor, know of the verdict when the latter hung.
func TestMemoryLimitStrikesWithoutSupervisor(t *testing.T) {
	n := newNode(t)
	c, x := n.beginLimited()
	launch(t, c, n.hog("hung", 32<<20, "exec sleep 1000"))
	pid := n.supervisorPID(c)
	freeze(t, pid)
	defer unix.Kill(pid, unix.SIGCONT)
	n.release("hung")
	if e := x.await("hung"); !e.Known || !e.OOM || e.MemLimit != 32<<20 {
		t.Errorf("got %+v, want the memory limit", e)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the record of the supervisor", func() bool {
		found, err := supervisor.Read(n.cfg.Dir)
		return err == nil && len(found) == 1 && found[0].Exit != nil && found[0].Exit.OOM
	})
}

// endsWholeContainers reports whether the OOM killer of the kernel ends all of a container at once, in one of its cgroups.
func endsWholeContainers(cgroups []string) bool {
	return slices.ContainsFunc(cgroups, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "memory.oom.group"))
		return err == nil
	})
}

// TestAlarmsAreFalse rings where nobody was killed: nothing happens, and nobody looks for ever.
func TestAlarmsAreFalse(t *testing.T) {
	n := newNode(t)
	c, _ := n.beginLimited()
	k := launch(t, c, n.shell("false", "exec sleep 1000"))
	c.mu.Lock()
	a, cgroups := c.entries["false"].alarm, c.entries["false"].known.Cgroups
	c.mu.Unlock()
	if a == nil {
		if !endsWholeContainers(cgroups) {
			t.Fatal("nobody hears of the OOM killer")
		}
		t.Skip("the kernel ends whole containers here")
	}
	until := func() time.Time {
		c.mu.Lock()
		defer c.mu.Unlock()
		return a.until
	}
	if _, err := unix.Write(a.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "somebody to look", func() bool { return !until().IsZero() })
	c.mu.Lock()
	a.until = time.Unix(1, 0)
	c.mu.Unlock()
	waitFor(t, "the look to end", func() bool { return until().IsZero() })
	if !alive(k.PID) {
		t.Error("the container was ended")
	}
}
