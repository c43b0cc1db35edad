package hosts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A second node with the identity of a running one, from a cloned disk, ends by itself and says why; the first and everybody else
// notice nothing: neither its record nor its tasks change for anybody, not for a moment.
func TestCloneOfALivingAgentEnds(t *testing.T) {
	t.Parallel()
	f, c := NewFlockWithTasks(t, 4)
	spare := f.Agents[3]
	spare.Terminate()
	agents := f.Agents[:3]
	first := agents[1]
	c.ProbeApp("/probe", 2, onlyOn(first), notReplaced)
	before := c.Answers(c.Running("/probe", 2))
	Agree(t, time.Minute, agents...)
	// A task is told to run before it is in its agent's record.
	var was Member
	Eventually(t, 20*time.Second, "all know both tasks", func() error {
		for _, a := range agents {
			view, err := a.Members()
			if err != nil {
				return err
			}
			if was = view[first.ID]; was.Tasks != 2 {
				return fmt.Errorf("%s knows %d", a.name, was.Tasks)
			}
		}
		return nil
	})
	clone := workDir(t)
	copyFile(t, filepath.Join(first.Dir, "agent-id"), filepath.Join(clone, "agent-id"))
	copyDir(t, filepath.Join(first.Dir, "meta"), filepath.Join(clone, "meta"))
	copyDir(t, filepath.Join(first.Dir, "mesh"), filepath.Join(clone, "mesh"))
	marks := markAll(agents)
	began := time.Now()
	var second *Agent
	same := func(by *Agent, view map[string]Member) error {
		if is := view[first.ID]; is.State != "alive" && is.State != "suspect" || is.Address != was.Address || is.Generation != was.Generation || is.Tasks != 2 {
			return fmt.Errorf("to %s the first one is %+v, was %+v", by.name, is, was)
		}
		return nil
	}
	During(t, agents, same, func() {
		second = spare.Host.Agent(clone, "--cluster-key-file", first.args[4])
		select {
		case <-second.done:
		case <-time.After(time.Minute):
			t.Fatal("the second one is still there after a minute")
		}
		within(t, "the second one ended", time.Since(began), 5*time.Second)
		<-time.After(5 * time.Second)
	})
	if code := second.cmd.ProcessState.ExitCode(); code <= 0 || !strings.Contains(second.Since(0), "another node with this name is alive") {
		t.Errorf("the second one ended with code %d, want a failure with the reason:\n%s", code, second.Since(0))
	}
	for key, n := range countChanges(agents, marks) {
		t.Errorf("%s changed its mind about %s %d times", key.By, key.Of, n)
	}
	c.unharmed("/probe", before)
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// copyDir copies a folder that is in use: where a file goes while it does, it begins anew.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	Eventually(t, 10*time.Second, from+" is copied", func() error {
		return errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from)))
	})
}

// An agent whose address changes, while it runs or while it is down, keeps its name and its tasks, and is at its new place for
// everybody soon.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		name := "while down"
		if running {
			name = "while running"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, c := NewFlockWithTasks(t, 4)
			Agree(t, time.Minute, f.Agents...)
			mover := f.Agents[3]
			c.ProbeApp("/probe", 2, onlyOn(mover), notReplaced)
			before := c.Answers(c.Running("/probe", 2))
			id := mover.ID
			if !running {
				mover.Kill()
			}
			mover.Host.Move(44)
			began := time.Now()
			if !running {
				mover.Restart()
			}
			Agree(t, time.Minute, f.Agents...)
			for _, e := range c.EndpointsAt("probe", mover.Host.Addr, 2) {
				Eventually(t, 10*time.Second, e+" answers", func() error {
					_, body, err := f.Request("GET", "http://"+e, "")
					if task, pid, _ := strings.Cut(body, " "); err == nil && fmt.Sprint(before[task]) != pid {
						t.Fatalf("task %s is process %s, want %d", task, pid, before[task])
					}
					return err
				})
			}
			within(t, "the new address was everywhere, in DNS too,", time.Since(began), 20*time.Second)
			if mover.Ready(); mover.ID != id {
				t.Errorf("it is %s now, was %s", mover.ID, id)
			}
			c.pids()
		})
	}
}

// notReplaced is the part by which tasks are not replaced where a busy machine keeps their agent away for long.
const notReplaced = `{"unreachableStrategy":"disabled"}`

// onlyOn is the part of an app's definition that puts it on one agent.
func onlyOn(a *Agent) string {
	return fmt.Sprintf(`{"constraints":[["hostname","CLUSTER","%s"]]}`, a.Host.Addr)
}
