package master_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
	"starling/master/store"
)

// forget removes what a store keeps of the decisions about agents, as one does that was wiped, or is from before them.
func forget(t *testing.T, c *mastertest.Cluster) {
	t.Helper()
	docs, err := c.Store.List(t.Context(), "agents/")
	if err != nil || len(docs) == 0 {
		t.Fatalf("kept %v, %v", docs, err)
	}
	for _, d := range docs {
		if _, err := c.Store.Write(t.Context(), store.Op{Key: d.Key, Version: store.Any, Delete: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// reactivations counts how often an agent was told to drain no longer.
func reactivations(a *mastertest.Agent) int {
	n := 0
	for _, call := range a.Calls() {
		if call.GetReactivate() != nil {
			n++
		}
	}
	return n
}

// Z3: an agent that drains by its own record, though the store has forgotten why, is not offered until an operator says so, and is
// told nothing because of its record: neither to end what it runs nor to take tasks again.
func TestDrainThatTheStoreForgot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil, aware)
		ctx := context.Background()
		a.SetStubborn(true)
		longest := 10 * time.Second
		if err := c.Master.DrainAgent(ctx, a.ID, &longest, true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.Stop()
		forget(t, c)
		next := succeed(t, c, 2, a)
		again := mastertest.Subscribe(t, next.Master, f.Again())
		quiet(t, again, scheduler.Event_OFFERS, time.Minute)
		v := agentView(t, next, a.ID)
		if v.Drain.GetState() != mesos.DrainState_DRAINING || !v.Deactivated || v.Active || !v.DrainStart.IsZero() {
			t.Errorf("shown as %+v", v)
		}
		refused(t, "ReactivateAgent", next.Master.ReactivateAgent(ctx, a.ID), master.Invalid, "Agent is still in the DRAINING state")
		if err := a.Finish(ctx, f.ID, "t", mesos.TaskState_TASK_KILLED); err != nil {
			t.Fatal(err)
		}
		awaitStatus(t, again, "t", mesos.TaskState_TASK_KILLED)
		quiet(t, again, scheduler.Event_OFFERS, time.Minute)
		if got := drainState(t, next, a.ID); got != mesos.DrainState_DRAINED {
			t.Errorf("%s once nothing runs", got)
		}
		// That it was to be gone afterwards nobody knows any more. It keeps what it was told.
		if drain, gone := a.Draining(); drain.GetMaxGracePeriod() != int64(longest) || !drain.GetMarkGone() || gone || reactivations(a) != 0 {
			t.Errorf("it drains by %v, gone %v, was reactivated %d times", drain, gone, reactivations(a))
		}
		last := succeed(t, next, 3, a)
		third := mastertest.Subscribe(t, last.Master, f.Again())
		quiet(t, third, scheduler.Event_OFFERS, time.Minute)
		if err := last.Master.ReactivateAgent(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		await(t, third, scheduler.Event_OFFERS)
		if v := agentView(t, last, a.ID); v.Drain != nil || v.Deactivated || !v.Active {
			t.Errorf("reactivated it is shown as %+v", v)
		}
		if got, err := c.Store.List(ctx, "agents/"); err != nil || len(got) != 0 {
			t.Errorf("kept %v, %v", got, err)
		}
		refused(t, "ReactivateAgent", last.Master.ReactivateAgent(ctx, a.ID), master.Invalid, "Agent is not deactivated")
		checkBooks(t, last.Master)
	})
}

// What an operator was answered holds under the next master too: an agent that was away while it was reactivated hears of it then.
func TestReactivatedWhileAwayUnderTheNextMaster(t *testing.T) {
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
		a.SetFault(func(*nodeapi.Call) mastertest.Fault { return mastertest.Unreachable })
		next := succeed(t, c, 2, a)
		if v := agentView(t, next, a.ID); v.Drain != nil || v.Active {
			t.Errorf("before it heard of it, it is shown as %+v", v)
		}
		time.Sleep(time.Minute)
		a.SetFault(nil)
		time.Sleep(10 * time.Second)
		if drain, _ := a.Draining(); drain != nil {
			t.Error("it drains still")
		}
		if v := agentView(t, next, a.ID); !v.Active {
			t.Errorf("shown as %+v", v)
		}
		if got, err := c.Store.List(ctx, "agents/"); err != nil || len(got) != 0 {
			t.Errorf("kept %v, %v", got, err)
		}
		// And it can be drained again.
		if err := next.Master.DrainAgent(ctx, a.ID, nil, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // it was silent, and is not asked without end how it is
		if got := drainState(t, next, a.ID); got != mesos.DrainState_DRAINED {
			t.Errorf("drained again it is %s", got)
		}
		checkBooks(t, next.Master)
	})
}

// A store from an old backup that has an agent drained, which was reactivated since and runs tasks: these are not ended because of
// it, and the operator decides anew.
func TestDrainOfAnOldBackup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		ctx := context.Background()
		if err := c.Master.DrainAgent(ctx, a.ID, nil, false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		backup, err := c.Store.Get(ctx, "agents/"+a.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Master.ReactivateAgent(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		f.Launch(f.ExpectOffer(), 0, mastertest.Task("t", "cpus:1;mem:32"))
		awaitStatus(t, f, "t", running)
		synctest.Wait() // the acknowledgement arrives: the agent repeats no update that the next master could not forward
		c.Stop()
		if _, err := c.Store.Write(ctx, store.Op{Key: backup.Key, Version: store.Any, Data: backup.Data}); err != nil {
			t.Fatal(err)
		}
		next := succeed(t, c, 2, a)
		time.Sleep(5 * time.Minute)
		if drain, _ := a.Draining(); drain != nil || len(a.Tasks()) != 1 {
			t.Fatalf("it was told %v, and runs %v", drain, a.Tasks())
		}
		if v := agentView(t, next, a.ID); !v.Deactivated || v.Active {
			t.Errorf("shown as %+v", v)
		}
		again := mastertest.Subscribe(t, next.Master, f.Again())
		quiet(t, again, scheduler.Event_OFFERS, time.Minute)
		if err := next.Master.ReactivateAgent(ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		await(t, again, scheduler.Event_OFFERS)
		if err := next.Master.DrainAgent(ctx, a.ID, nil, false); err != nil {
			t.Fatal(err)
		}
		awaitStatus(t, again, "t", mesos.TaskState_TASK_KILLED)
		checkBooks(t, next.Master)
	})
}
