package master_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

func killTask(f *mastertest.Framework, task, agent string) {
	kill := &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String(task)}}
	if agent != "" {
		kill.AgentId = &mesos.AgentID{Value: proto.String(agent)}
	}
	f.Call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: kill})
}

// expectUpdate is ExpectUpdate where offers come in between.
func expectUpdate(t *testing.T, f *mastertest.Framework, task string, want mesos.TaskState) {
	t.Helper()
	for {
		event, err := f.Next(mastertest.Patience)
		if err != nil {
			t.Fatalf("no update of %s: %v", task, err)
		}
		if event.GetType() != scheduler.Event_UPDATE {
			continue
		}
		status := event.GetUpdate().GetStatus()
		if status.GetTaskId().GetValue() != task || status.GetState() != want {
			t.Fatalf("got %v, want %s of %s", status, want, task)
		}
		return
	}
}

func heldKills(t *testing.T, c *mastertest.Cluster) int {
	t.Helper()
	if err := c.Master.CheckBooks(t.Context()); err != nil {
		t.Error(err)
	}
	n, err := c.Master.HeldKills(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// successor stops a master under which the task t runs on an agent, and has a new one lead that knows nothing of the agent.
func successor(t *testing.T, task string) (*mastertest.Cluster, *mastertest.Agent, *mastertest.Framework) {
	t.Helper()
	c, a := leading(t, nil)
	info := mastertest.Info("f", nil, aware)
	info.FailoverTimeout = proto.Float64(1e6)
	f := mastertest.Subscribe(t, c.Master, info)
	f.Launch(f.ExpectOffer(), 1000, mastertest.Task(task, "cpus:1;mem:32"))
	f.Acknowledge(f.ExpectUpdate(task, running))
	synctest.Wait()
	c.Stop()
	next := mastertest.Start(t, c.Store, func(cfg *master.Config) { cfg.Settle = 10 * time.Second })
	next.ElectAs(2)
	synctest.Wait()
	return next, a, mastertest.Subscribe(t, next.Master, f.Again())
}

// A KILL of a task on an agent that a new leader has not heard of yet reaches it as soon as the agent shows up.
func TestKillBeforeAgent(t *testing.T) {
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprintf("agent named %v", named), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a, f := successor(t, "t")
				agent := ""
				if named {
					agent = a.ID
				}
				killTask(f, "t", agent)
				f.ExpectSilence(2 * time.Second)
				if got := heldKills(t, c); got != 1 {
					t.Errorf("%d kills are held, want 1", got)
				}
				c.Adopt(a)
				begun := time.Now()
				expectUpdate(t, f, "t", mesos.TaskState_TASK_KILLED)
				if took := time.Since(begun); took > time.Second {
					t.Errorf("killed after %v", took)
				}
				if got := heldKills(t, c); got != 0 {
					t.Errorf("%d kills are held in the end", got)
				}
			})
		})
	}
}

// The same where the agent is there and has not described itself; what it does not have is answered then.
func TestKillBeforeDescription(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := successor(t, "t")
		a.SetFault(func(*nodeapi.Call) mastertest.Fault { return mastertest.Unreachable })
		c.Adopt(a)
		synctest.Wait()
		killTask(f, "t", a.ID)
		killTask(f, "ghost", a.ID)
		time.Sleep(2 * time.Second)
		a.SetFault(nil)
		got := map[string]mesos.TaskState{}
		for len(got) < 2 {
			event, err := f.Next(5 * time.Second)
			if err != nil {
				t.Fatalf("%v, after %v", err, got)
			}
			if status := event.GetUpdate().GetStatus(); status != nil {
				got[status.GetTaskId().GetValue()] = status.GetState()
			}
		}
		if got["t"] != mesos.TaskState_TASK_KILLED || got["ghost"] != mesos.TaskState_TASK_GONE {
			t.Errorf("got %v", got)
		}
		if got := heldKills(t, c); got != 0 {
			t.Errorf("%d kills are held in the end", got)
		}
	})
}

// A held KILL ends with an answer: when all agents are known and none has the task, or when its agent is given up.
func TestHeldKillAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := successor(t, "t")
		killTask(f, "ghost", "nowhere")
		f.ExpectSilence(5 * time.Second)
		f.ExpectUpdate("ghost", mesos.TaskState_TASK_UNKNOWN)
		c.Adopt(a)
		time.Sleep(time.Second)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		synctest.Wait()
		killTask(f, "ghost", a.ID)
		if got := heldKills(t, c); got != 1 {
			t.Errorf("%d kills are held, want 1", got)
		}
		states := map[string]mesos.TaskState{}
		for len(states) < 2 {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatalf("%v, after %v", err, states)
			}
			if status := event.GetUpdate().GetStatus(); status != nil {
				states[status.GetTaskId().GetValue()] = status.GetState()
			}
		}
		if states["t"] != unreachable || states["ghost"] != unreachable {
			t.Errorf("got %v", states)
		}
		if got := heldKills(t, c); got != 0 {
			t.Errorf("%d kills are held in the end", got)
		}
	})
}

// What is held is bounded, not kept for ever, and goes with its framework.
func TestHeldKillsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, func(cfg *master.Config) { cfg.Settle = 24 * time.Hour })
		c.Elect()
		synctest.Wait()
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		for n := range master.MaxHeldKills + 10 {
			killTask(f, fmt.Sprint("t", n), "nowhere")
		}
		if got := heldKills(t, c); got != master.MaxHeldKills {
			t.Errorf("%d kills are held, want %d", got, master.MaxHeldKills)
		}
		time.Sleep(11 * time.Minute)
		killTask(f, strings.Repeat("t", 1<<20), "nowhere") // no task has such an id
		killTask(f, "late", "nowhere")
		if got := heldKills(t, c); got != 1 {
			t.Errorf("%d kills are held later, want 1", got)
		}
		if err := c.Master.Teardown(t.Context(), f.ID); err != nil {
			t.Fatal(err)
		}
		if got := heldKills(t, c); got != 0 {
			t.Errorf("%d kills are held without a framework", got)
		}
	})
}
