package master_test

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// An agent that is suspected is offered no more; one that died loses its tasks, and brings them back when it returns.
func TestAgentDiesAndReturns(t *testing.T) {
	for name, test := range map[string]struct {
		caps []mesos.FrameworkInfo_Capability_Type
		want mesos.TaskState
	}{
		"partition aware": {[]mesos.FrameworkInfo_Capability_Type{aware}, unreachable},
		"not aware":       {nil, lost},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a := leading(t, nil)
				f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, test.caps...))
				f.Launch(f.ExpectOffer(), 0, mastertest.Task("t", "cpus:1;mem:32"))
				var offer *mesos.Offer
				for offer == nil {
					event, err := f.Next(mastertest.Patience)
					if err != nil {
						t.Fatal(err)
					}
					if event.GetType() == scheduler.Event_OFFERS {
						offer = event.GetOffers().GetOffers()[0]
					} else {
						f.Acknowledge(event.GetUpdate().GetStatus())
					}
				}
				synctest.Wait()
				c.Mesh.SetLiveness(time.Now(), a.ID, record.Suspect)
				if got := f.Expect(scheduler.Event_RESCIND).GetRescind().GetOfferId().GetValue(); got != offer.GetId().GetValue() {
					t.Errorf("rescinded %q", got)
				}
				f.ExpectSilence(time.Minute)
				c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
				status := f.ExpectUpdate("t", test.want)
				if status.GetReason() != mesos.TaskStatus_REASON_AGENT_REMOVED || status.UnreachableTime == nil || status.Uuid != nil {
					t.Errorf("got %v", status)
				}
				if got := f.Expect(scheduler.Event_FAILURE).GetFailure().GetAgentId().GetValue(); got != a.ID {
					t.Errorf("failure of %q", got)
				}
				f.Reconcile("t", a.ID)
				f.ExpectUpdate("t", test.want)
				f.Reconcile()
				f.ExpectSilence(time.Second) // it is not active
				c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
				status = f.ExpectUpdate("t", running)
				if status.GetReason() != mesos.TaskStatus_REASON_AGENT_REREGISTERED {
					t.Errorf("got %v", status)
				}
				if got, want := held(t, f.ExpectOffer().GetResources()), "cpus:3;mem:4064"; got != want {
					t.Errorf("offered %s, want %s", got, want)
				}
				f.Launch(&mesos.Offer{Id: offer.GetId(), AgentId: offer.GetAgentId()}, 0, mastertest.Task("u", "cpus:1;mem:32"))
				f.Expect(scheduler.Event_UPDATE) // refused: the old offer is gone
			})
		})
	}
}

// A short absence costs offers, and nothing else.
func TestAgentAwayShortly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, func(cfg *master.Config) { cfg.UnreachableAfter = 30 * time.Second })
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		for _, l := range []record.Liveness{record.Dead, record.Alive, record.Left, record.Alive} {
			c.Mesh.SetLiveness(time.Now(), a.ID, l)
			time.Sleep(20 * time.Second)
		}
		f.Reconcile("t", "")
		for {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			if event.GetType() != scheduler.Event_UPDATE {
				continue // offers and rescinds
			}
			if got := event.GetUpdate().GetStatus(); got.GetState() != running || got.GetReason() != mesos.TaskStatus_REASON_RECONCILIATION {
				t.Errorf("got %v", got)
			}
			return
		}
	})
}

// What the mesh forgets with an agent is not kept for ever: tasks that were given up as one too many, and ends that nobody
// can acknowledge any more.
func TestAgentReaped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, func(cfg *master.Config) { cfg.MaxUnreachableTasks = 1 })
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t1", "cpus:1;mem:32"), mastertest.Task("t2", "cpus:1;mem:32"),
			mastertest.Task("ended", "cpus:1;mem:32"))
		awaitUpdates := func(n int) {
			for n > 0 {
				event, err := f.Next(mastertest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				if event.GetType() != scheduler.Event_UPDATE { // offers come and go
					continue
				}
				n--
				if status := event.GetUpdate().GetStatus(); status.GetState() == running {
					f.Acknowledge(status)
				}
			}
		}
		awaitUpdates(3)
		if err := a.Finish(t.Context(), f.ID, "ended", mesos.TaskState_TASK_FINISHED); err != nil {
			t.Fatal(err)
		}
		awaitUpdates(1)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		time.Sleep(25 * time.Hour)
		if gone := c.Mesh.Reap(time.Now(), 24*time.Hour); len(gone) != 1 {
			t.Fatalf("reaped %q", gone)
		}
		synctest.Wait()
		if err := c.Master.CheckBooks(t.Context()); err != nil {
			t.Error(err)
		}
		view, err := c.Master.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := view.Frameworks[0]
		if got.Tasks.Len() != 0 || got.Unreachable.Len() != 1 || got.Completed.Len() != 1 || got.Completed[0].Tasks[0].ID() != "ended" {
			t.Errorf("tasks %v, unreachable %v, completed %v", got.Tasks, got.Unreachable, got.Completed)
		}
	})
}

// When most agents seem dead, none is given up: this master may be the one that is cut off.
func TestMostAgentsDead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, first := leading(t, nil)
		agents := []*mastertest.Agent{first}
		for n := 2; n <= 5; n++ {
			agents = append(agents, c.AddAgent(n, "cpus:1;mem:64"))
		}
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		f.Call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum()})
		synctest.Wait()
		for _, a := range agents[:3] {
			c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		}
		failures := func() int {
			n := 0
			for {
				event, err := f.Next(time.Hour)
				if err != nil {
					return n
				}
				if event.GetType() == scheduler.Event_FAILURE {
					n++
				}
			}
		}
		if got := failures(); got != 0 {
			t.Errorf("%d agents given up", got)
		}
		c.Mesh.SetLiveness(time.Now(), agents[0].ID, record.Alive)
		if got := failures(); got != 2 {
			t.Errorf("%d agents given up, want 2", got)
		}
	})
}

// Tasks that an agent lost are told as lost, once the agent itself has said that it does not know them.
func TestAgentLosesTask(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		synctest.Wait()
		a.Drop(f.ID, "t")
		status := f.ExpectUpdate("t", dropped)
		if status.GetReason() != mesos.TaskStatus_REASON_RECONCILIATION {
			t.Errorf("got %v", status)
		}
	})
}

// A restarted agent brings the same tasks, and nobody hears of anything.
func TestAgentRestarts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		if err := a.Restart(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f.Reconcile("t", a.ID)
		f.ExpectUpdate("t", running)
		if got := a.Starts(f.ID, "t"); got != 1 {
			t.Errorf("started %d times", got)
		}
	})
}

// What is not known is not told: neither before the copy of the mesh has settled nor before the agent has been heard.
func TestReconciliationRules(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, func(cfg *master.Config) { cfg.Settle = time.Minute })
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		f.Reconcile("ghost", "", "ghost", "nowhere")
		f.ExpectSilence(10 * time.Second)
		f.Reconcile("t", "", "ghost", a.ID)
		f.ExpectUpdate("t", running)
		f.ExpectUpdate("ghost", mesos.TaskState_TASK_GONE) // its agent has been heard
		time.Sleep(time.Minute)
		f.Reconcile("ghost", "", "ghost", "nowhere")
		for range 2 {
			s := f.ExpectUpdate("ghost", mesos.TaskState_TASK_UNKNOWN)
			if s.GetReason() != mesos.TaskStatus_REASON_RECONCILIATION || s.GetSource() != mesos.TaskStatus_SOURCE_MASTER || s.Uuid != nil {
				t.Errorf("got %v", s)
			}
		}
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		synctest.Wait()
		f.Reconcile("ghost", a.ID)
		f.ExpectSilence(900 * time.Millisecond) // it may come back and know
	})
}

// Whoever is elected next knows frameworks and tasks at once, and keeps them.
func TestNextLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		info := mastertest.Info("f", nil)
		info.FailoverTimeout = proto.Float64(5)
		f := mastertest.Subscribe(t, c.Master, info)
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
		synctest.Wait()
		c.Stop()
		for {
			_, err := f.Next(time.Second)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("got %v, want the end of the stream", err)
			}
		}

		next := mastertest.Start(t, c.Store, nil)
		next.Adopt(a)
		next.ElectAs(2)
		synctest.Wait()
		view, err := next.Master.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(view.Frameworks) != 1 || !view.Frameworks[0].Recovered || view.Frameworks[0].Tasks.Len() != 1 {
			t.Fatalf("first view: %+v", view.Frameworks)
		}
		if got := view.Frameworks[0].Tasks[0].Tasks[0].Message(); got.GetState() != running || len(got.GetResources()) == 0 {
			t.Errorf("task as shown: %v", got)
		}
		time.Sleep(time.Minute) // well beyond the failover timeout: nobody could come back while there was no leader
		again := mastertest.Subscribe(t, next.Master, f.Again())
		if again.ID != f.ID {
			t.Errorf("got id %q, want %q", again.ID, f.ID)
		}
		if got, want := held(t, again.ExpectOffer().GetResources()), "cpus:3;mem:4064"; got != want {
			t.Errorf("offered %s, want %s", got, want)
		}
		again.Reconcile()
		again.ExpectUpdate("t", running)
		other := mastertest.Subscribe(t, next.Master, mastertest.Info("g", nil))
		if other.ID == again.ID {
			t.Errorf("id %q was given twice", other.ID)
		}
		if got := a.Starts(f.ID, "t"); got != 1 {
			t.Errorf("started %d times", got)
		}
	})
}

// A lost lease ends streams and offers; reads go on; the next term begins anew.
func TestLoseLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		offer := f.ExpectOffer()
		c.Lose()
		if event, err := f.Next(time.Second); err == nil {
			t.Errorf("got %v, want the end of the stream", event)
		}
		synctest.Wait()
		if s := c.Master.Standing(); s.Leading || !s.Led {
			t.Errorf("standing %+v", s)
		}
		view, err := c.Master.View(t.Context())
		if err != nil || len(view.Agents) != 1 || len(view.Frameworks) != 1 || len(view.Frameworks[0].Offers) != 0 {
			t.Errorf("view %+v, error %v", view, err)
		}
		c.Elect()
		synctest.Wait()
		again := mastertest.Subscribe(t, c.Master, f.Again())
		if got := again.ExpectOffer().GetId().GetValue(); got == offer.GetId().GetValue() {
			t.Errorf("offer id %q was given twice", got)
		}
		again.Launch(offer, 0, mastertest.Task("t", "cpus:1;mem:32"))
		again.ExpectUpdate("t", lost)
		if got := a.Starts(f.ID, "t"); got != 0 {
			t.Errorf("started %d times", got)
		}
	})
}
