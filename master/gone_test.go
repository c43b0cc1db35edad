package master_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
	"starling/master/store"
)

const goneByOperator = mesos.TaskState_TASK_GONE_BY_OPERATOR

// An agent that is marked gone loses its tasks at once and for ever, is told as soon as it can be reached, and is nobody any
// more to this master and to later ones.
func TestMarkAgentGone(t *testing.T) {
	for name, test := range map[string]struct {
		caps   []mesos.FrameworkInfo_Capability_Type
		want   mesos.TaskState
		reason mesos.TaskStatus_Reason
	}{
		"partition aware": {[]mesos.FrameworkInfo_Capability_Type{aware}, goneByOperator, mesos.TaskStatus_REASON_AGENT_REMOVED_BY_OPERATOR},
		"not aware":       {nil, lost, mesos.TaskStatus_REASON_AGENT_REMOVED},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a, f := withTask(t, nil, test.caps...)
				ctx := context.Background()
				a.SetFault(func(*nodeapi.Call) mastertest.Fault { return mastertest.Unreachable })
				for range 2 {
					if err := c.Master.MarkAgentGone(ctx, a.ID); err != nil {
						t.Fatal(err)
					}
				}
				status := awaitStatus(t, f, "t", test.want)
				if status.GetReason() != test.reason || status.Uuid != nil || status.GetAgentId().GetValue() != a.ID {
					t.Errorf("got %v", status)
				}
				if got := await(t, f, scheduler.Event_FAILURE).GetFailure().GetAgentId().GetValue(); got != a.ID {
					t.Errorf("failure of %q", got)
				}
				f.Reconcile("t", a.ID, "never", a.ID)
				f.ExpectUpdate("t", test.want)
				f.ExpectUpdate("never", test.want)
				f.Reconcile()
				killTask(f, "t", a.ID)
				f.ExpectUpdate("t", test.want)
				f.ExpectSilence(time.Minute)
				if n := len(a.Tasks()); n != 1 {
					t.Fatalf("an agent that cannot be reached runs %d tasks", n)
				}
				if v, err := c.Master.View(ctx); err != nil || len(v.Agents) != 0 || len(v.Unreachable) != 0 || len(v.Frameworks[0].Completed) != 1 {
					t.Errorf("shown as %+v, %v", v, err)
				}

				// The next master refuses it too, and tells it once it answers.
				next := succeed(t, c, 2, a)
				again := mastertest.Subscribe(t, next.Master, f.Again())
				again.ExpectSilence(time.Minute)
				again.Reconcile("t", a.ID)
				again.ExpectUpdate("t", test.want)
				if err := next.Master.Report(ctx, &nodeapi.Report{Epoch: 2, AgentId: a.ID}); !errors.Is(err, nodeapi.ErrNotLeading) {
					t.Errorf("its report: %v", err)
				}
				a.SetFault(nil)
				time.Sleep(6 * time.Second)
				if _, told := a.Draining(); !told || len(a.Tasks()) != 0 {
					t.Errorf("told %v, runs %v", told, a.Tasks())
				}
				again.ExpectSilence(time.Minute)
				// From a backup, with all that it had: it is told again, and no task comes back.
				calls := len(a.Calls())
				if err := a.Restart(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(6 * time.Second)
				if len(a.Calls()) == calls {
					t.Error("an agent that came back from the dead was not told")
				}
				// Under another id it is as good as any.
				next.AddAgent(2, "cpus:2;mem:512")
				if got, want := held(t, again.ExpectOffer().GetResources()), "cpus:2;mem:512"; got != want {
					t.Errorf("offered %s, want %s", got, want)
				}
				checkBooks(t, next.Master)
			})
		})
	}
}

// Agents that cannot be reached can be marked gone too, also when the mesh has forgotten them: whoever waits for their tasks
// hears that they will not be back.
func TestMarkUnreachableAgentGone(t *testing.T) {
	for _, reaped := range []bool{false, true} {
		t.Run(fmt.Sprintf("forgotten %v", reaped), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a, f := withTask(t, nil, aware)
				ctx := context.Background()
				c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
				awaitStatus(t, f, "t", unreachable)
				if reaped {
					quiet(t, f, scheduler.Event_UPDATE, 25*time.Hour)
					if gone := c.Mesh.Reap(time.Now(), 24*time.Hour); len(gone) != 1 {
						t.Fatalf("reaped %q", gone)
					}
					synctest.Wait()
				}
				if err := c.Master.MarkAgentGone(ctx, a.ID); err != nil {
					t.Fatal(err)
				}
				awaitStatus(t, f, "t", goneByOperator)
				f.Reconcile("t", a.ID)
				awaitStatus(t, f, "t", goneByOperator)
				v, err := c.Master.View(ctx)
				if err != nil || len(v.Unreachable) != 0 || len(v.Frameworks[0].Unreachable) != 0 {
					t.Errorf("shown as %+v, %v", v, err)
				}
				checkBooks(t, c.Master)
			})
		})
	}
}

func TestMarkAgentGoneRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		ctx := context.Background()
		refused(t, "unknown", c.Master.MarkAgentGone(ctx, "nobody"), master.NotFound, "Agent 'nobody' not found")
		refused(t, "empty", c.Master.MarkAgentGone(ctx, ""), master.NotFound, "Agent '' not found")
		c.Lose()
		synctest.Wait()
		if err := c.Master.MarkAgentGone(ctx, a.ID); !errors.Is(err, master.ErrNotLeading) {
			t.Errorf("at a master that does not lead: %v", err)
		}
	})
}

// Nobody is told that tasks are gone before that is safe: a leader that dies over it has done nothing.
func TestMarkAgentGoneIsSafeFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil, aware)
		c.Store.SetFailure(func() error { return errors.New("the store is away") })
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Master.MarkAgentGone(ctx, a.ID); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		quiet(t, f, scheduler.Event_UPDATE, time.Minute)
		if len(a.Tasks()) != 1 {
			t.Fatal("the task was ended")
		}
		c.Stop()
		c.Store.SetFailure(nil)
		next := succeed(t, c, 2, a)
		again := mastertest.Subscribe(t, next.Master, f.Again())
		again.Reconcile("t", a.ID)
		awaitStatus(t, again, "t", running)
		await(t, again, scheduler.Event_OFFERS)
	})
}

// A drain that ends with the agent gone: states, order, and what is left.
func TestDrainThenGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil, aware)
		ctx := context.Background()
		a.SetStubborn(true)
		if err := c.Master.DrainAgent(ctx, a.ID, nil, true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if drain, _ := a.Draining(); !drain.GetMarkGone() {
			t.Errorf("told %v", drain)
		}
		// A new leader in between goes on.
		next := succeed(t, c, 2, a)
		again := mastertest.Subscribe(t, next.Master, f.Again())
		time.Sleep(time.Minute)
		if err := a.Finish(ctx, f.ID, "t", goneByOperator); err != nil {
			t.Fatal(err)
		}
		awaitStatus(t, again, "t", goneByOperator)
		await(t, again, scheduler.Event_FAILURE)
		synctest.Wait()
		if _, told := a.Draining(); !told || agentView(t, next, a.ID) != nil {
			t.Errorf("told %v, listed %v", told, agentView(t, next, a.ID))
		}
		again.Reconcile("t", a.ID)
		awaitStatus(t, again, "t", goneByOperator)
		if got, err := c.Store.List(ctx, "agents/"); err != nil || len(got) != 0 {
			t.Errorf("kept %v, %v", got, err)
		}
		checkBooks(t, next.Master)
	})
}

// A task whose end has come by over the mesh, but whose update has not, ends for its framework too: the agent repeats nothing.
func TestGoneWithUntoldEnd(t *testing.T) {
	for name, test := range map[string]struct {
		caps        []mesos.FrameworkInfo_Capability_Type
		ended, want mesos.TaskState
	}{
		"drained":                   {[]mesos.FrameworkInfo_Capability_Type{aware}, goneByOperator, goneByOperator},
		"drained, not aware":        {nil, goneByOperator, lost},
		"finished, partition aware": {[]mesos.FrameworkInfo_Capability_Type{aware}, mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_FINISHED},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a, f := withTask(t, nil, test.caps...)
				ctx := context.Background()
				a.Report = func(context.Context, string, *nodeapi.Report) error { return nil } // lost
				if err := a.Finish(ctx, f.ID, "t", test.ended); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if err := c.Master.MarkAgentGone(ctx, a.ID); err != nil {
					t.Fatal(err)
				}
				status := awaitStatus(t, f, "t", test.want)
				if status.GetSource() != mesos.TaskStatus_SOURCE_MASTER || status.Uuid != nil || status.GetAgentId().GetValue() != a.ID {
					t.Errorf("got %v", status)
				}
				await(t, f, scheduler.Event_FAILURE)
				f.ExpectSilence(time.Minute)
				checkBooks(t, c.Master)
			})
		})
	}
}

// A framework that has heard of the end is not told it again.
func TestGoneWithToldEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil, aware)
		ctx := context.Background()
		if err := a.Finish(ctx, f.ID, "t", mesos.TaskState_TASK_FINISHED); err != nil {
			t.Fatal(err)
		}
		if got := await(t, f, scheduler.Event_UPDATE).GetUpdate().GetStatus().GetState(); got != mesos.TaskState_TASK_FINISHED {
			t.Fatalf("got %v", got)
		}
		if err := c.Master.MarkAgentGone(ctx, a.ID); err != nil { // before it is acknowledged
			t.Fatal(err)
		}
		await(t, f, scheduler.Event_FAILURE)
		quiet(t, f, scheduler.Event_UPDATE, time.Minute)
		checkBooks(t, c.Master)
	})
}

// W8: what a framework left on an agent that was cut off while it was torn down is ended when the agent is back.
func TestTeardownWhileCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil, aware)
		ctx := context.Background()
		a.SetFault(func(*nodeapi.Call) mastertest.Fault { return mastertest.Unreachable })
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		time.Sleep(time.Minute)
		if err := c.Master.Teardown(ctx, f.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		next := succeed(t, c, 2, a)
		next.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		time.Sleep(time.Hour)
		a.SetFault(nil)
		next.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
		time.Sleep(10 * time.Second)
		if got := a.Tasks(); len(got) != 0 {
			t.Errorf("10 s after the agent is back it runs %v", got)
		}
		checkBooks(t, next.Master)
	})
}

// A KILL of a task that turns up with its agent long after this master has settled ends it all the same, although it was
// answered meanwhile.
func TestKillLongBeforeAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := successor(t, "t")
		killTask(f, "t", a.ID)
		f.ExpectUpdate("t", mesos.TaskState_TASK_UNKNOWN)
		f.ExpectSilence(time.Minute) // and once is enough
		c.Adopt(a)
		for {
			status := await(t, f, scheduler.Event_UPDATE).GetUpdate().GetStatus()
			f.Acknowledge(status)
			if status.GetState() == mesos.TaskState_TASK_KILLED {
				break
			}
		}
		synctest.Wait()
		if got := heldKills(t, c); got != 0 {
			t.Errorf("%d kills are held in the end", got)
		}
	})
}

// As many as are remembered fit into the documents, each of which the store takes.
func TestGoneDocuments(t *testing.T) {
	largest, total := master.GoneDocuments(func(i int) string { return fmt.Sprintf("0a6d1c1e-8f0b-4c55-9f6e-%012x-S%d", i, i) })
	t.Logf("%d bytes in all, %d in the largest document", total, largest)
	if largest > store.MaxSize/4 {
		t.Errorf("the largest document has %d bytes, of %d that a store takes", largest, store.MaxSize)
	}
}

// An agent whose id does not fit into its document is not gone, however often that is asked for, and nobody is forgotten for it. The
// end of a drain that meets this is tried again.
func TestGoneThatCannotBeKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		ctx := context.Background()
		ids := c.Master.FillGone(ctx, a.ID)
		c.Master.SetMaxGone(ctx, ids) // the oldest would have to go
		for range 2 {
			wantRefusal(t, c.Master.MarkAgentGone(ctx, a.ID), master.Invalid, "can be kept")
			if listed, counted := c.Master.GoneCount(ctx); listed != ids || counted != ids {
				t.Errorf("%d are listed and %d counted, of %d", listed, counted, ids)
			}
		}
		if err := c.Master.DrainAgent(ctx, a.ID, nil, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if agentView(t, c, a.ID) == nil {
			t.Fatal("it is gone all the same")
		}
		c.Master.EmptyGone(ctx, a.ID)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, told := a.Draining(); !told || agentView(t, c, a.ID) != nil {
			t.Errorf("told %v, listed %v", told, agentView(t, c, a.ID))
		}
	})
}

// The ids that are remembered are bounded, and the oldest go first.
func TestGoneAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, first := leading(t, nil)
		ctx := context.Background()
		c.Master.SetMaxGone(ctx, 3)
		var agents []*mastertest.Agent
		for n := 2; n <= 5; n++ {
			agents = append(agents, c.AddAgent(n, "cpus:1;mem:64"))
		}
		synctest.Wait()
		for _, a := range append([]*mastertest.Agent{first}, agents[:3]...) {
			if err := c.Master.MarkAgentGone(ctx, a.ID); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		for i, a := range append([]*mastertest.Agent{first}, agents[:3]...) {
			f.Reconcile("t", a.ID)
			want := goneByOperator
			if i == 0 {
				want = mesos.TaskState_TASK_UNKNOWN
			}
			awaitStatus(t, f, "t", want)
		}
		docs, err := c.Store.List(ctx, "gone/")
		if err != nil || len(docs) == 0 {
			t.Errorf("kept %v, %v", docs, err)
		}
	})
}

// Streams of operators tell of agents that are removed, and of those that are admitted again, with their tasks.
func TestOperatorStreamTellsDecisions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil, aware)
		ctx := context.Background()
		other := c.AddAgent(2, "cpus:1;mem:64")
		synctest.Wait()
		r := mirrorOf(t, c.Master)
		step := func(what string, err error, want ...operator.Event_Type) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			synctest.Wait()
			r.seen = nil
			if err := r.read(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r.seen, want) {
				t.Errorf("%s: told %v, want %v", what, r.seen, want)
			}
			r.compare(view(t, c.Master))
		}
		machines := []*mesos.MachineID{machineID("10.0.1.2")}
		step("window", c.Master.UpdateMaintenance(ctx, window("10.0.1.2")))
		step("down", c.Master.StartMaintenance(ctx, machines), operator.Event_AGENT_REMOVED)
		step("up", c.Master.StopMaintenance(ctx, machines), operator.Event_AGENT_ADDED)
		step("deactivated", c.Master.DeactivateAgent(ctx, other.ID))
		step("gone", c.Master.MarkAgentGone(ctx, a.ID), operator.Event_TASK_UPDATED, operator.Event_AGENT_REMOVED)
		step("its record", a.Restart())
		if got := r.tasks[f.ID+" t"]; got != goneByOperator {
			t.Errorf("the task is told to be %s", got)
		}
	})
}
