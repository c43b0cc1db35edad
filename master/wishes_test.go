package master_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// What frameworks may wish for of their offers, and how long that holds. Spec: mesos-scheduler-api.md sections 1 and 6.

// offersFor reads the offers that come within a time, by role.
func offersFor(t *testing.T, f *mastertest.Framework, d time.Duration) map[string]*mesos.Offer {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	got := make(map[string]*mesos.Offer)
	for _, e := range drain(t, f) {
		for _, o := range e.GetOffers().GetOffers() {
			got[o.GetAllocationInfo().GetRole()] = o
		}
	}
	return got
}

// Dropping a role by UPDATE_FRAMEWORK rescinds its offers alone; a new role is offered what comes free.
func TestUpdateDropsRole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		c.AddAgent(2, "cpus:4;mem:4096")
		info := mastertest.Info("f", []string{"a", "b"}, multiRole)
		f := mastertest.Subscribe(t, c.Master, info)
		got := offersFor(t, f, time.Second)
		if len(got) != 2 {
			t.Fatalf("got offers %v, want one for each role", got)
		}
		next := f.Again()
		next.Roles = []string{"b", "c"}
		f.Call(updateCall(next, nil))
		if id := f.Expect(scheduler.Event_RESCIND).GetRescind().GetOfferId().GetValue(); id != got["a"].GetId().GetValue() {
			t.Errorf("rescinded %s, want the offer for the role that was dropped", id)
		}
		more := offersFor(t, f, time.Second)
		if len(more) != 1 || more["c"] == nil {
			t.Errorf("got offers for %v, want one for the new role", more)
		}
		f.Launch(got["b"], 0, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running)
	})
}

// What is suppressed is what the last SUBSCRIBE, UPDATE_FRAMEWORK, SUPPRESS or REVIVE said, and nothing of before.
func TestSuppressionIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		c.AddAgent(2, "cpus:4;mem:4096")
		info := mastertest.Info("f", []string{"a", "b"}, multiRole)
		info.FailoverTimeout = proto.Float64(60)
		f := mastertest.Subscribe(t, c.Master, info, "a", "b")
		if got := offersFor(t, f, time.Minute); len(got) > 0 {
			t.Fatalf("got offers for %v", got)
		}
		f.Call(updateCall(f.Again(), []string{"a"}))
		got := offersFor(t, f, time.Second)
		if len(got) != 1 || got["b"] == nil {
			t.Fatalf("after the update got offers for %v, want b", got)
		}
		f = mastertest.Subscribe(t, c.Master, f.Again(), "b")
		if got := offersFor(t, f, time.Second); len(got) != 1 || got["a"] == nil {
			t.Errorf("after the subscription got offers for %v, want a", got)
		}
		f.Call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum(), Suppress: &scheduler.Call_Suppress{Roles: []string{"a", "nobody's"}}})
		f = mastertest.Subscribe(t, c.Master, f.Again())
		if got := offersFor(t, f, time.Second); len(got) != 2 {
			t.Errorf("without a list got offers for %v, want both", got)
		}
	})
}

// A filter holds for a second at least and, where it says nothing sensible, for five; it does not outlive the stream, nor keep
// away an offer that has grown.
func TestFilterDurations(t *testing.T) {
	for refuse, want := range map[float64]struct{ silent, offered time.Duration }{
		0.01: {900 * time.Millisecond, 2 * time.Second},
		3:    {2900 * time.Millisecond, 4 * time.Second},
		-1:   {4900 * time.Millisecond, 6 * time.Second},
	} {
		t.Run(fmt.Sprint(refuse), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, _ := leading(t, nil)
				f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
				f.Decline(refuse, f.ExpectOffer())
				declined := time.Now()
				event, err := f.Next(want.offered)
				if err != nil || event.GetType() != scheduler.Event_OFFERS {
					t.Fatalf("got %v, %v, want an offer", event, err)
				}
				if after := time.Since(declined); after < want.silent {
					t.Errorf("offered again after %v", after)
				}
			})
		})
	}
	t.Run("ends with the stream", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c, _ := leading(t, nil)
			info := mastertest.Info("f", nil)
			info.FailoverTimeout = proto.Float64(60)
			f := mastertest.Subscribe(t, c.Master, info)
			f.Decline(1e6, f.ExpectOffer())
			f.ExpectSilence(time.Minute)
			f.Stream.Close()
			synctest.Wait()
			mastertest.Subscribe(t, c.Master, f.Again()).ExpectOffer()
		})
	})
	t.Run("of less than there is now", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c, a := leading(t, nil)
			f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
			f.Launch(f.ExpectOffer(), 1e6, mastertest.Task("t", "cpus:1;mem:32"))
			f.ExpectUpdate("t", running)
			f.ExpectSilence(time.Minute)
			if err := a.Finish(t.Context(), f.ID, "t", mesos.TaskState_TASK_FINISHED); err != nil {
				t.Fatal(err)
			}
			for {
				event, err := f.Next(mastertest.Patience)
				if err != nil {
					t.Fatalf("not offered: %v", err)
				}
				if event.GetType() == scheduler.Event_OFFERS {
					break
				}
			}
		})
	})
}

// Of the frameworks that are over so many are remembered: their ids are refused, those of older ones are free.
func TestCompletedFrameworksAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.MaxCompletedFrameworks = 2 })
		var ids []string
		for n := range 3 {
			f := mastertest.Subscribe(t, c.Master, mastertest.Info(fmt.Sprint("f", n), nil))
			f.Stream.Close() // with a failover timeout of 0, this is the end
			synctest.Wait()
			ids = append(ids, f.ID)
			time.Sleep(time.Second)
		}
		view, err := c.Master.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(view.Frameworks) != 0 || len(view.Completed) != 2 {
			t.Fatalf("%d frameworks, %d completed, want 0 and 2", len(view.Frameworks), len(view.Completed))
		}
		for n, id := range ids {
			info := mastertest.Info("f", nil)
			info.Id = &mesos.FrameworkID{Value: &id}
			event, err := mastertest.TrySubscribe(t, c.Master, info).Next(mastertest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			if refused := event.GetError().GetMessage() == "Framework has been removed"; refused != (n > 0) {
				t.Errorf("framework %d comes back and is told %v", n, event)
			}
		}
	})
}
