package master_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

func isLaunch(call *nodeapi.Call) bool { return call.GetLaunch() != nil }

// faulty makes the first n launches go wrong in some way.
func faulty(fault mastertest.Fault, n int) func(*nodeapi.Call) mastertest.Fault {
	return func(call *nodeapi.Call) mastertest.Fault {
		if !isLaunch(call) || n == 0 {
			return mastertest.None
		}
		n--
		return fault
	}
}

// A launch is repeated until it arrives, and started once, however it went wrong.
func TestLaunchRepeated(t *testing.T) {
	for name, fault := range map[string]mastertest.Fault{
		"connection refused": mastertest.Unreachable, "answer lost": mastertest.Silent, "call lost": mastertest.Lost,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a := leading(t, nil)
				a.Quiet = true // only answers tell
				f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
				a.SetFault(faulty(fault, 3))
				f.Launch(f.ExpectOffer(), 0, mastertest.Task("t", "cpus:4;mem:4096"))
				f.ExpectUpdate("t", running)
				if got := a.Starts(f.ID, "t"); got != 1 {
					t.Errorf("started %d times", got)
				}
				f.ExpectSilence(10 * time.Second) // nothing is left to offer
			})
		})
	}
}

// A launch that provably never arrived is given up, and its resources come back.
func TestLaunchUndelivered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		a.SetFault(faulty(mastertest.Unreachable, -1))
		begun := time.Now()
		f.Launch(f.ExpectOffer(), 0, mastertest.Task("t", "cpus:4;mem:4096"))
		event, err := f.Next(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		status := event.GetUpdate().GetStatus()
		if status.GetState() != dropped || status.GetReason() != mesos.TaskStatus_REASON_AGENT_DISCONNECTED || status.Uuid != nil {
			t.Errorf("got %v", status)
		}
		if got := time.Since(begun); got < 30*time.Second {
			t.Errorf("given up after %v", got)
		}
		if got, want := held(t, f.ExpectOffer().GetResources()), "cpus:4;mem:4096"; got != want {
			t.Errorf("offered %s, want %s", got, want)
		}
	})
}

// A launch of which nobody knows whether it arrived is not given up before the agent itself has said so.
func TestLaunchUncertain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		deaf := true
		a.SetFault(func(*nodeapi.Call) mastertest.Fault {
			if deaf {
				return mastertest.Lost
			}
			return mastertest.None
		})
		f.Launch(f.ExpectOffer(), 1e6, mastertest.Task("t", "cpus:1;mem:32"))
		f.Reconcile("t", a.ID)
		f.ExpectUpdate("t", mesos.TaskState_TASK_STAGING) // while it is tried
		f.ExpectSilence(10 * time.Minute)
		a.SetFault(nil)
		event, err := f.Next(10 * time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if s := event.GetUpdate().GetStatus(); s.GetState() != dropped || s.GetReason() != mesos.TaskStatus_REASON_RECONCILIATION {
			t.Errorf("got %v", event)
		}
		if got := a.Starts(f.ID, "t"); got != 0 {
			t.Errorf("started %d times", got)
		}
	})
}

// While a launch is under way, what it takes is offered to nobody, also when the record's news of the task comes first.
func TestNothingOfferedTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		first := mastertest.Subscribe(t, c.Master, mastertest.Info("first", nil))
		second := mastertest.Subscribe(t, c.Master, mastertest.Info("second", nil))
		a.SetFault(faulty(mastertest.Silent, 2))
		first.Launch(first.ExpectOffer(), 0, mastertest.Task("t", "cpus:3;mem:4096"))
		deadline := time.Now().Add(time.Minute)
		for time.Now().Before(deadline) {
			for _, f := range []*mastertest.Framework{first, second} {
				event, err := f.Next(time.Second)
				if err != nil {
					continue
				}
				for _, o := range event.GetOffers().GetOffers() {
					if got := held(t, o.GetResources()); got != "cpus:1" {
						t.Errorf("offered %s", got)
					}
					f.Decline(1, o)
				}
			}
		}
	})
}

// News of a task may overtake those of the resources that it took: until an answer has brought them, too, they
// are offered to nobody.
func TestLaunchSeenBeforeItsResources(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		synctest.Wait()
		a.Quiet, a.Report = true, nil // only answers tell
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		a.SetFault(faulty(mastertest.Silent, 1))
		f.Launch(f.ExpectOffer(), 0, mastertest.Task("t", "cpus:3;mem:4096"))
		if got := held(t, f.ExpectOffer().GetResources()); got != "cpus:1" {
			t.Errorf("offered %s", got)
		}
		if err := a.TellTask(f.ID, "t"); err != nil {
			t.Fatal(err)
		}
		f.ExpectSilence(time.Minute)
		if got := tasksIn(view(t, c.Master)); len(got) != 1 {
			t.Errorf("known: %v", got)
		}
		checkBooks(t, c.Master)
	})
}

// An agent that becomes smaller while a launch is on its way has less to offer than it has left when that has arrived.
func TestAgentShrinksUnderLaunch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		a.SetFault(faulty(mastertest.Unreachable, 1))
		f.Launch(f.ExpectOffer(), 0, mastertest.Task("t", "cpus:1;mem:96"))
		rest := f.ExpectOffer()
		if err := a.Resize("cpus:3;mem:4096"); err != nil {
			t.Fatal(err)
		}
		if got := await(t, f, scheduler.Event_RESCIND).GetRescind().GetOfferId(); got.GetValue() != rest.GetId().GetValue() {
			t.Errorf("%v is rescinded", got)
		}
		offer := await(t, f, scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
		if got := held(t, offer.GetResources()); got != "cpus:2;mem:4000" {
			t.Errorf("offered %s", got)
		}
		f.ExpectSilence(time.Minute)
		checkBooks(t, c.Master)
	})
}

// What was seen to have been taken of a batch is not launched again when the rest of it is: by then it may have ended, and the
// agent may know nothing of it any more.
func TestSeenTasksAreNotLaunchedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		synctest.Wait()
		a.Quiet, a.Report = true, nil // only answers tell
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		a.SetFault(faulty(mastertest.Silent, 2))
		offer := f.ExpectOffer()
		f.Launch(offer, 1000, mastertest.Task("seen", "cpus:1;mem:32"), mastertest.Task("other", "cpus:1;mem:32"))
		synctest.Wait()
		if err := a.TellTask(f.ID, "seen"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.Drop(f.ID, "seen")
		time.Sleep(10 * time.Second)
		if seen, other := a.Starts(f.ID, "seen"), a.Starts(f.ID, "other"); seen != 1 || other != 1 {
			t.Errorf("started %d and %d times", seen, other)
		}
		var launches []int
		for _, call := range a.Calls() {
			if isLaunch(call) {
				launches = append(launches, len(call.GetLaunch().GetTasks()))
			}
		}
		if !slices.Equal(launches, []int{2, 1, 1}) {
			t.Errorf("launched %v tasks", launches)
		}
	})
}

// An agent has no say in the tasks of another.
func TestUpdateOfAnotherAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil)
		await(t, f, scheduler.Event_OFFERS)
		b := c.AddAgent(2, "cpus:1;mem:32")
		await(t, f, scheduler.Event_OFFERS)
		for _, of := range []*mesos.AgentID{nil, {Value: &b.ID}, {Value: &a.ID}} {
			before := metricsOf(t, c.Master)["master/invalid_status_updates"]
			status := &mesos.TaskStatus{
				TaskId: &mesos.TaskID{Value: proto.String("t")}, AgentId: of, State: mesos.TaskState_TASK_FAILED.Enum(), Uuid: []byte("0123456789abcdef"),
			}
			if err := c.Master.Report(t.Context(), &nodeapi.Report{Epoch: 1, AgentId: b.ID, Updates: []*nodeapi.StatusUpdate{{
				FrameworkId: f.Again().GetId(), Status: status, LatestState: int32(mesos.TaskState_TASK_FAILED),
			}}}); err != nil {
				t.Fatal(err)
			}
			f.ExpectSilence(time.Minute)
			if got := metricsOf(t, c.Master)["master/invalid_status_updates"] - before; got != 1 {
				t.Errorf("an update of a task on %v: %v are refused", of, got)
			}
		}
		f.Reconcile("t", "")
		f.ExpectUpdate("t", running)
	})
}

// A kill overtakes no launch, and reaches the agent when that comes back.
func TestKill(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		a.SetFault(faulty(mastertest.Unreachable, 4))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:32"))
		f.Call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{
			TaskId: mastertest.Task("t", "cpus:1").TaskId,
		}})
		f.ExpectUpdate("t", running)
		f.ExpectUpdate("t", mesos.TaskState_TASK_KILLED)
		f.Call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{
			TaskId: mastertest.Task("never", "cpus:1").TaskId,
		}})
		status := f.ExpectUpdate("never", lost)
		if status.GetReason() != mesos.TaskStatus_REASON_RECONCILIATION {
			t.Errorf("got %v", status)
		}
	})
}

// An agent that has obeyed a higher epoch obeys no longer, and the leader steps down.
func TestStaleEpoch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		offer := f.ExpectOffer()
		a.SetEpoch(7)
		f.Launch(offer, 0, mastertest.Task("t", "cpus:1;mem:32"))
		if event, err := f.Next(time.Second); err == nil {
			t.Errorf("got %v, want the end of the stream", event)
		}
		synctest.Wait()
		if c.Master.Standing().Leading {
			t.Error("still leading")
		}
		if got := a.Starts(f.ID, "t"); got != 0 {
			t.Errorf("started %d times", got)
		}
		if got := c.Master.EpochFloor(); got != 7 {
			t.Errorf("floor of epochs is %d, want 7", got)
		}
		err := f.TryCall(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
		if err != master.ErrNotLeading {
			t.Errorf("got %v, want ErrNotLeading", err)
		}
	})
}
