package hosts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// crew is a framework whose tasks leave a mark at each start, on one agent, which is a process of its own.
type crew struct {
	*employer
	marks string // a folder: <task>.starts has a line for each start, and a task ends with the code in <task>.end
}

func newCrew(t *testing.T, r *Roles) *crew {
	t.Helper()
	c := &crew{employer: r.employer(true), marks: t.TempDir()}
	if err := os.Chmod(c.marks, 0o777); err != nil {
		t.Fatal(err)
	}
	return c
}

// in makes what fails fail this test.
func (c *crew) in(t *testing.T) *crew {
	own := *c
	e := *c.employer
	e.t = t
	own.employer = &e
	return &own
}

// hire launches tasks that wait until they are told to end, or do what command says, and waits until they run.
func (c *crew) hire(command, need string, ids ...string) {
	c.t.Helper()
	c.offer(command, need, ids...)
	for _, id := range ids {
		c.reported(id, 30*time.Second, mesos.TaskState_TASK_RUNNING)
		Eventually(c.t, 30*time.Second, id+" leaves its mark", func() error { return c.begun(id) })
	}
}

// begun tells why a task has not left its mark. The file is there a moment before there is something in it.
func (c *crew) begun(id string) error {
	data, err := os.ReadFile(filepath.Join(c.marks, id+".starts"))
	if err == nil && !bytes.HasSuffix(data, []byte("\n")) {
		err = fmt.Errorf("it is %q", data)
	}
	return err
}

// offer is hire without the wait.
func (c *crew) offer(command, resources string, ids ...string) {
	c.t.Helper()
	c.accept(func(agent *mesos.AgentID) *mesos.Offer_Operation {
		launch := &mesos.Offer_Operation_Launch{}
		for _, id := range ids {
			at := filepath.Join(c.marks, id)
			work := command
			if work == "" {
				work = fmt.Sprintf("while [ ! -e %s.end ]; do sleep 0.2; done; exit $(cat %s.end)", at, at)
			}
			launch.TaskInfos = append(launch.TaskInfos, &mesos.TaskInfo{
				Name: &id, TaskId: &mesos.TaskID{Value: &id}, AgentId: agent, Resources: need(c.t, resources),
				Command: &mesos.CommandInfo{Value: proto.String(fmt.Sprintf("echo $$ >> %s.starts; %s", at, work))},
			})
		}
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: launch}
	})
}

// reported waits until a task was reported in a state, and returns that status.
func (c *crew) reported(id string, limit time.Duration, states ...mesos.TaskState) *mesos.TaskStatus {
	c.t.Helper()
	var found *mesos.TaskStatus
	Eventually(c.t, limit, fmt.Sprintf("task %s is %v", id, states), func() error {
		_, found = c.told(id)
		if found == nil || !slices.Contains(states, found.GetState()) {
			return fmt.Errorf("it is %v", found)
		}
		return nil
	})
	return found
}

// life tells a process from all others.
type life struct {
	pid   int
	began uint64
}

// lives are the processes of tasks that run. A task that was started twice fails the test.
func (c *crew) lives(ids ...string) map[string]life {
	c.t.Helper()
	out := map[string]life{}
	for _, id := range ids {
		data, err := os.ReadFile(filepath.Join(c.marks, id+".starts"))
		lines := strings.Fields(string(data))
		if err != nil || len(lines) != 1 {
			c.t.Fatalf("task %s was started %d times (%v)", id, len(lines), err)
		}
		pid, _ := strconv.Atoi(lines[0])
		out[id] = life{pid, startTime(pid)}
		if out[id].began == 0 {
			c.t.Errorf("process %d of task %s is gone", pid, id)
		}
	}
	return out
}

// unharmed fails the test if a task is not the process that it was.
func (c *crew) unharmed(before map[string]life) {
	c.t.Helper()
	for id, l := range before {
		if now := startTime(l.pid); now != l.began {
			c.t.Errorf("task %s was harmed: process %d began at %d, now at %d", id, l.pid, l.began, now)
		}
	}
}

// end has a task end by itself.
func (c *crew) end(id string, code int) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.marks, id+".end.new"), []byte(strconv.Itoa(code)), 0o644); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(c.marks, id+".end.new"), filepath.Join(c.marks, id+".end")); err != nil {
		c.t.Fatal(err)
	}
}

// kill asks for the end of a task, with a grace period.
func (c *crew) kill(id string, grace time.Duration) {
	c.t.Helper()
	c.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{
		TaskId:     &mesos.TaskID{Value: &id},
		KillPolicy: &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(grace))}},
	}})
}

// dismiss ends tasks and waits for the word of it.
func (c *crew) dismiss(ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		c.kill(id, 0)
	}
	for _, id := range ids {
		c.reported(id, time.Minute, mesos.TaskState_TASK_KILLED)
	}
}

// url is one of the agent's.
func (c *crew) url(path string) string {
	return strings.TrimSuffix(c.r.agentHealth[0], "/health") + path
}

// shown is what the agent shows: its id, and the ids of the tasks that run.
func (c *crew) shown() (id string, tasks map[string]bool, err error) {
	_, body, err := Request("GET", c.url("/state"), "")
	if err != nil {
		return "", nil, err
	}
	var v struct {
		ID         string
		Frameworks []struct {
			Executors []struct{ Tasks []struct{ ID, State string } }
		}
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return "", nil, err
	}
	tasks = map[string]bool{}
	for _, f := range v.Frameworks {
		for _, e := range f.Executors {
			for _, t := range e.Tasks {
				tasks[t.ID] = t.State == "TASK_RUNNING"
			}
		}
	}
	return v.ID, tasks, nil
}

// supervisor is the process that is the parent of the tasks.
func (c *crew) supervisor() int {
	c.t.Helper()
	var pid int
	Eventually(c.t, 10*time.Second, "there is one supervisor", func() error {
		pids := slices.DeleteFunc(supervisorsOf(c.r.AgentDirs[0]), func(pid int) bool { return !isSupervisor(pid) })
		if len(pids) != 1 {
			return fmt.Errorf("there are %v", pids)
		}
		pid = pids[0]
		return nil
	})
	return pid
}

func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return out
}

const little = "cpus:0.001;mem:32"
