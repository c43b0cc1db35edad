package master_test

import (
	"testing"
	"testing/synctest"
	"time"

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
