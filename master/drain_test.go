package master_test

import (
	"context"
	"errors"
	"fmt"
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
	"starling/master/store"
)

// await returns the next event of a type, and skips those of others.
func await(t *testing.T, f *mastertest.Framework, want scheduler.Event_Type) *scheduler.Event {
	t.Helper()
	deadline := time.Now().Add(mastertest.Patience)
	for time.Now().Before(deadline) {
		event, err := f.Next(time.Until(deadline))
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if event.GetType() == want {
			return event
		}
	}
	t.Fatalf("no %s came", want)
	return nil
}

// awaitStatus returns the next status of a task, and acknowledges it.
func awaitStatus(t *testing.T, f *mastertest.Framework, task string, want mesos.TaskState) *mesos.TaskStatus {
	t.Helper()
	status := await(t, f, scheduler.Event_UPDATE).GetUpdate().GetStatus()
	if status.GetTaskId().GetValue() != task || status.GetState() != want {
		t.Fatalf("want %s of %q, got %v", want, task, status)
	}
	f.Acknowledge(status)
	return status
}

// quiet tells what came of a type within d.
func quiet(t *testing.T, f *mastertest.Framework, not scheduler.Event_Type, d time.Duration) {
	t.Helper()
	deadline := time.Now().Add(d)
	for {
		event, err := f.Next(time.Until(deadline))
		if err != nil {
			return
		}
		if event.GetType() == not {
			t.Fatalf("want no %s, got %v", not, event)
		}
	}
}

// refused checks the text and the class of a refusal.
func refused(t *testing.T, what string, err error, kind master.Kind, text string) {
	t.Helper()
	r, ok := errors.AsType[*master.Refusal](err)
	if !ok || r.Kind != kind || r.Text != text {
		t.Errorf("%s: got %v, want a refusal of kind %d that says %q", what, err, kind, text)
	}
}

func agentView(t *testing.T, c *mastertest.Cluster, id string) *master.AgentView {
	t.Helper()
	v, err := c.Master.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range v.Agents {
		if v.Agents[i].Info.GetId().GetValue() == id {
			return v.Agents[i]
		}
	}
	return nil
}

func drainState(t *testing.T, c *mastertest.Cluster, id string) mesos.DrainState {
	t.Helper()
	v := agentView(t, c, id)
	if v == nil {
		t.Fatalf("agent %q is not listed", id)
	}
	return v.Drain.GetState()
}

// withTask is a cluster whose agent runs a task.
func withTask(t *testing.T, change func(*master.Config), caps ...mesos.FrameworkInfo_Capability_Type) (*mastertest.Cluster, *mastertest.Agent, *mastertest.Framework) {
	t.Helper()
	c, a := leading(t, change)
	info := mastertest.Info("f", nil, caps...)
	info.FailoverTimeout = proto.Float64(1e6)
	f := mastertest.Subscribe(t, c.Master, info)
	f.Launch(f.ExpectOffer(), 0, mastertest.Task("t", "cpus:1;mem:32"))
	awaitStatus(t, f, "t", running)
	synctest.Wait()
	return c, a, f
}

// succeed stops a master and has another one lead over the same documents, with the same agents.
func succeed(t *testing.T, c *mastertest.Cluster, epoch uint64, agents ...*mastertest.Agent) *mastertest.Cluster {
	t.Helper()
	synctest.Wait() // what is on its way arrives
	c.Stop()
	next := mastertest.Start(t, c.Store, nil)
	for _, a := range agents {
		next.Adopt(a)
	}
	next.ElectAs(epoch)
	synctest.Wait()
	return next
}

func TestDrainAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil)
		ctx := context.Background()
		longest := 10 * time.Second
		await(t, f, scheduler.Event_OFFERS)
		a.SetStubborn(true)
		if err := c.Master.DrainAgent(ctx, a.ID, &longest, false); err != nil {
			t.Fatal(err)
		}
		await(t, f, scheduler.Event_RESCIND)
		synctest.Wait()
		drain, _ := a.Draining()
		if drain.GetMaxGracePeriod() != int64(longest) || drain.GetMarkGone() {
			t.Errorf("the agent was told %v", drain)
		}
		v := agentView(t, c, a.ID)
		if v.Drain.GetState() != mesos.DrainState_DRAINING || v.Drain.GetConfig().GetMaxGracePeriod().GetNanoseconds() != int64(longest) ||
			!v.Deactivated || v.Active || !v.DrainStart.Equal(time.Now()) {
			t.Errorf("shown as %+v", v)
		}
		f.ExpectSilence(time.Minute) // nothing is offered
		refused(t, "ReactivateAgent", c.Master.ReactivateAgent(ctx, a.ID), master.Invalid, "Agent is still in the DRAINING state")
		if err := c.Master.DeactivateAgent(ctx, a.ID); err != nil {
			t.Errorf("deactivating a draining agent: %v", err)
		}
		if err := a.Finish(ctx, f.ID, "t", mesos.TaskState_TASK_KILLED); err != nil {
			t.Fatal(err)
		}
		status := f.Expect(scheduler.Event_UPDATE).GetUpdate().GetStatus()
		synctest.Wait()
		if got := drainState(t, c, a.ID); got != mesos.DrainState_DRAINING {
			t.Errorf("%s while the end of a task is not acknowledged", got)
		}
		f.Acknowledge(status)
		synctest.Wait()
		if got := drainState(t, c, a.ID); got != mesos.DrainState_DRAINED {
			t.Errorf("%s in the end", got)
		}
		f.ExpectSilence(time.Minute)
		if err := c.Master.ReactivateAgent(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		if got, want := held(t, f.ExpectOffer().GetResources()), "cpus:4;mem:4096"; got != want {
			t.Errorf("offered %s, want %s", got, want)
		}
		if drain, _ := a.Draining(); drain != nil {
			t.Error("the agent drains still")
		}
		if v := agentView(t, c, a.ID); v.Drain != nil || v.Deactivated || !v.Active || !v.DrainStart.IsZero() {
			t.Errorf("shown as %+v", v)
		}
		if got, err := c.Store.List(ctx, "agents/"); err != nil || len(got) != 0 {
			t.Errorf("kept %v, %v", got, err)
		}
		checkBooks(t, c.Master)
	})
}

// One that has nothing to end is drained at once, and one that is to be gone afterwards is.
func TestDrainIdleAgent(t *testing.T) {
	for _, gone := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			c, a := leading(t, nil)
			if err := c.Master.DrainAgent(context.Background(), a.ID, nil, gone); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			_, told := a.Draining()
			if !gone {
				if got := drainState(t, c, a.ID); got != mesos.DrainState_DRAINED {
					t.Errorf("%s", got)
				}
			} else if v := agentView(t, c, a.ID); v != nil || !told {
				t.Errorf("listed as %+v, told %v", v, told)
			}
			checkBooks(t, c.Master)
		})
	}
}

func TestDrainRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		ctx := context.Background()
		m := c.Master
		for name, call := range map[string]func(id string) error{
			"drain":      func(id string) error { return m.DrainAgent(ctx, id, nil, false) },
			"deactivate": func(id string) error { return m.DeactivateAgent(ctx, id) },
			"reactivate": func(id string) error { return m.ReactivateAgent(ctx, id) },
		} {
			for _, id := range []string{"", "nobody", "..", "a/../b"} {
				refused(t, name+" "+id, call(id), master.Invalid, "Unknown agent")
			}
		}
		refused(t, "ReactivateAgent", m.ReactivateAgent(ctx, a.ID), master.Invalid, "Agent is not deactivated")
		negative := -time.Second
		refused(t, "DrainAgent", m.DrainAgent(ctx, a.ID, &negative, false), master.Invalid, "'max_grace_period' is negative")
		old := c.AddAgent(2, "cpus:1;mem:100")
		if err := old.SetCapabilities(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		refused(t, "DrainAgent", m.DrainAgent(ctx, old.ID, nil, false), master.Invalid, "Agent is not capable of draining")
		if err := m.DeactivateAgent(ctx, old.ID); err != nil {
			t.Error(err)
		}
		if err := m.UpdateMaintenance(ctx, window("10.0.1.1")); err != nil {
			t.Fatal(err)
		}
		refused(t, "DrainAgent", m.DrainAgent(ctx, a.ID, nil, false), master.Invalid, "Agent is part of a maintenance schedule")
		// While one call marks it gone, others wait for the outcome.
		fail := make(chan struct{})
		c.Store.SetFailure(func() error {
			select {
			case <-fail:
				return nil
			default:
				return errors.New("the store is away")
			}
		})
		marked := make(chan error, 1)
		go func() { marked <- m.MarkAgentGone(ctx, a.ID) }()
		synctest.Wait()
		refused(t, "MarkAgentGone", m.MarkAgentGone(ctx, a.ID), master.Unavailable, "Agent '"+a.ID+"' is currently being marked gone")
		refused(t, "DrainAgent", m.DrainAgent(ctx, a.ID, nil, false), master.Conflict, "Agent is currently being marked gone")
		refused(t, "ReactivateAgent", m.ReactivateAgent(ctx, a.ID), master.Conflict, "Agent is currently being marked gone")
		if v := agentView(t, c, a.ID); v == nil || v.Active {
			t.Errorf("while it is being marked gone: %+v", v)
		}
		close(fail)
		if err := <-marked; err != nil {
			t.Error(err)
		}
		refused(t, "DrainAgent", m.DrainAgent(ctx, a.ID, nil, false), master.Invalid, "Unknown agent")
	})
}

// Deactivation only stops offers, and is kept over masters.
func TestDeactivateAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil)
		ctx := context.Background()
		await(t, f, scheduler.Event_OFFERS)
		for range 2 {
			if err := c.Master.DeactivateAgent(ctx, a.ID); err != nil {
				t.Fatal(err)
			}
		}
		await(t, f, scheduler.Event_RESCIND)
		f.ExpectSilence(time.Minute)
		next := succeed(t, c, 2, a)
		again := mastertest.Subscribe(t, next.Master, f.Again())
		again.ExpectSilence(time.Minute)
		v := agentView(t, next, a.ID)
		if !v.Deactivated || v.Active || v.Drain != nil || !v.Connected {
			t.Errorf("shown as %+v", v)
		}
		if a.Starts(f.ID, "t") != 1 || len(a.Tasks()) != 1 {
			t.Error("the task was touched")
		}
		if err := next.Master.ReactivateAgent(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		if got, want := held(t, again.ExpectOffer().GetResources()), "cpus:3;mem:4064"; got != want {
			t.Errorf("offered %s, want %s", got, want)
		}
		checkBooks(t, next.Master)
	})
}

// A drain goes on under the next master, and with an agent that was away, or that had forgotten it.
func TestDrainGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil)
		a.SetFault(func(call *nodeapi.Call) mastertest.Fault {
			if call.GetDrain() != nil {
				return mastertest.Unreachable
			}
			return mastertest.None
		})
		if err := c.Master.DrainAgent(context.Background(), a.ID, nil, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if drain, _ := a.Draining(); drain != nil {
			t.Fatal("told although it cannot be reached")
		}
		next := succeed(t, c, 2, a)
		again := mastertest.Subscribe(t, next.Master, f.Again())
		if got := drainState(t, next, a.ID); got != mesos.DrainState_DRAINING {
			t.Errorf("%s under the next master", got)
		}
		time.Sleep(time.Minute)
		if got := len(a.Tasks()); got != 1 {
			t.Fatalf("the agent holds %d tasks", got)
		}
		next.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		awaitStatus(t, again, "t", mesos.TaskState_TASK_LOST)
		await(t, again, scheduler.Event_FAILURE) // what waits for a reader for too long ends the stream
		again.ExpectSilence(time.Minute)
		a.SetFault(nil)
		next.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
		for {
			status := await(t, again, scheduler.Event_UPDATE).GetUpdate().GetStatus()
			again.Acknowledge(status)
			if status.GetState() == mesos.TaskState_TASK_KILLED {
				break
			}
		}
		synctest.Wait()
		if got := drainState(t, next, a.ID); got != mesos.DrainState_DRAINED {
			t.Errorf("%s in the end", got)
		}
		// One more master: it is drained still, and an agent that forgot is told again.
		if err := a.Forget(); err != nil {
			t.Fatal(err)
		}
		last := succeed(t, next, 3, a)
		time.Sleep(10 * time.Second)
		if drain, _ := a.Draining(); drain == nil {
			t.Error("an agent that forgot that it is drained was not told")
		}
		if got := drainState(t, last, a.ID); got != mesos.DrainState_DRAINED {
			t.Errorf("%s under the third master", got)
		}
		checkBooks(t, last.Master)
	})
}

// An agent that drains although no operator wants that any more, as one that was away while it was reactivated, is told.
func TestDrainTakenBackWhileAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		ctx := context.Background()
		if err := c.Master.DrainAgent(ctx, a.ID, nil, false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		synctest.Wait()
		if err := c.Master.ReactivateAgent(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if drain, _ := a.Draining(); drain == nil {
			t.Fatal("a dead agent was told")
		}
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
		time.Sleep(time.Second)
		if drain, _ := a.Draining(); drain != nil {
			t.Error("it drains still")
		}
		if v := agentView(t, c, a.ID); !v.Active {
			t.Errorf("shown as %+v", v)
		}
	})
}

// What a master cannot read it neither forgets nor writes over.
func TestUnreadableDecisions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		a := c.AddAgent(1, "cpus:4;mem:4096")
		ctx := context.Background()
		keys := []string{"agents/" + a.ID, "maintenance/schedule"}
		for i := range 64 {
			keys = append(keys, fmt.Sprintf("gone/%d", i))
		}
		for _, key := range keys {
			if _, err := c.Store.Write(ctx, store.Op{Key: key, Version: store.Any, Data: []byte(`{"format":2}`)}); err != nil {
				t.Fatal(err)
			}
		}
		// What the agent does by a decision that cannot be read now, it goes on with.
		if _, err := a.Call(ctx, &nodeapi.Call{AgentId: a.ID, Call: &nodeapi.Call_Drain{Drain: &nodeapi.Drain{}}}); err != nil {
			t.Fatal(err)
		}
		c.Elect()
		synctest.Wait()
		m := c.Master
		f := mastertest.Subscribe(t, m, mastertest.Info("f", nil))
		f.ExpectSilence(time.Minute) // it stays deactivated
		for name, call := range map[string]func() error{
			"drain":      func() error { return m.DrainAgent(ctx, a.ID, nil, false) },
			"reactivate": func() error { return m.ReactivateAgent(ctx, a.ID) },
			"gone":       func() error { return m.MarkAgentGone(ctx, a.ID) },
			"schedule":   func() error { return m.UpdateMaintenance(ctx, window("10.0.1.1")) },
		} {
			if r, ok := errors.AsType[*master.Refusal](call()); !ok || r.Kind != master.Conflict {
				t.Errorf("%s: got %v", name, r)
			}
		}
		for _, key := range keys {
			if d, err := c.Store.Get(ctx, key); err != nil || string(d.Data) != `{"format":2}` {
				t.Errorf("%s: now %q, %v", key, d.Data, err)
			}
		}
		if drain, _ := a.Draining(); drain == nil {
			t.Error("the agent was told to drain no longer")
		}
		if !m.Standing().Leading {
			t.Error("the master leads no more")
		}
	})
}
