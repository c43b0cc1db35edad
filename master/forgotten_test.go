package master_test

import (
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// A task that was forgotten, as one unreachable task too many, is known again when its agent returns: the framework hears of
// it, can ask for it and can kill it.
func TestForgottenTaskReturns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, func(cfg *master.Config) { cfg.MaxUnreachableTasks = 0 })
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		f.Call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum()})
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		expectUpdate(t, f, "t", unreachable)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
		expectUpdate(t, f, "t", running)
		f.Reconcile()
		expectUpdate(t, f, "t", running)
		f.Reconcile("t", a.ID)
		expectUpdate(t, f, "t", running)
		killTask(f, "t", "")
		expectUpdate(t, f, "t", mesos.TaskState_TASK_KILLED)
	})
}

// A task that was given up holds nothing, whatever news of its agent come by, and holds what it did when that is back, also after
// the mesh had forgotten it.
func TestForgottenAgentReturnsWithWhatItUses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil, aware)
		used := func() string { return held(t, view(t, c.Master).Frameworks[0].Used.Proto()) }
		before := used()
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		expectUpdate(t, f, "t", unreachable)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Left)
		synctest.Wait()
		checkBooks(t, c.Master)
		if got := used(); got != "" {
			t.Errorf("while its agent is away it holds %s", got)
		}
		time.Sleep(10 * time.Second)
		if gone := c.Mesh.Reap(time.Now(), time.Second); len(gone) != 1 {
			t.Fatalf("reaped %q", gone)
		}
		synctest.Wait()
		if err := a.Restart(); err != nil {
			t.Fatal(err)
		}
		expectUpdate(t, f, "t", running)
		checkBooks(t, c.Master)
		if got := used(); got != before || got == "" {
			t.Errorf("when its agent is back it holds %q, before %q", got, before)
		}
	})
}

// What a term gave up with an agent that the mesh has forgotten since is not there in the next: nobody would ever tell of its
// end.
func TestForgottenAgentInNextTerm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		info := mastertest.Info("f", nil, aware)
		timeout := 1e6
		info.FailoverTimeout = &timeout
		f := mastertest.Subscribe(t, c.Master, info)
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		time.Sleep(10 * time.Second)
		if gone := c.Mesh.Reap(time.Now(), time.Second); len(gone) != 1 {
			t.Fatalf("reaped %q", gone)
		}
		synctest.Wait()
		c.Lose()
		synctest.Wait()
		c.Elect()
		synctest.Wait()
		f = mastertest.Subscribe(t, c.Master, f.Again())
		f.Reconcile()
		f.ExpectSilence(time.Second)
		f.Reconcile("t", "")
		expectUpdate(t, f, "t", mesos.TaskState_TASK_UNKNOWN)
	})
}

// An agent that was forgotten returns without one of its tasks: that one is told as lost, and the other as running.
func TestForgottenAgentReturnsWithoutTask(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("kept", "cpus:1;mem:32"), mastertest.Task("lost", "cpus:1;mem:32"))
		for range 2 {
			f.Acknowledge(f.Expect(scheduler.Event_UPDATE).GetUpdate().GetStatus())
		}
		f.Call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum()})
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		time.Sleep(10 * time.Second)
		if gone := c.Mesh.Reap(time.Now(), time.Second); len(gone) != 1 {
			t.Fatalf("reaped %q", gone)
		}
		synctest.Wait()
		a.Drop(f.ID, "lost")
		if err := a.Restart(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		last := make(map[string]mesos.TaskState)
		for {
			event, err := f.Next(time.Second)
			if err != nil {
				break
			}
			if status := event.GetUpdate().GetStatus(); status != nil {
				last[status.GetTaskId().GetValue()] = status.GetState()
			}
		}
		if last["kept"] != running || last["lost"] != dropped || len(last) != 2 {
			t.Errorf("the last that is told of them is %v", last)
		}
		if err := c.Master.CheckBooks(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
