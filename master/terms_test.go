package master_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/store"
)

// A term may end while the answer to a launch is awaited, and the same master lead the next one: no answer comes any more,
// and what waited for it must not wait for ever.
func TestTermEndsWithLaunchUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		a.SetFault(faulty(mastertest.Silent, -1))
		f.Launch(f.ExpectOffer(), 1e6, mastertest.Task("t", "cpus:1;mem:32"))
		f.ExpectUpdate("t", running) // and acknowledges it
		synctest.Wait()
		c.Lose()
		synctest.Wait()
		a.SetFault(nil)
		c.Elect()
		synctest.Wait()
		f = mastertest.Subscribe(t, c.Master, f.Again())
		if err := a.Finish(t.Context(), f.ID, "t", mesos.TaskState_TASK_FINISHED); err != nil {
			t.Fatal(err)
		}
		f.ExpectUpdate("t", mesos.TaskState_TASK_FINISHED)
		time.Sleep(time.Second)
		if got := a.Tasks(); len(got) != 0 {
			t.Errorf("the end of a task is acknowledged, and the agent still holds %v", got)
		}
		checkBooks(t, c.Master)
	})
}

// listedStore tells when its documents are listed.
type listedStore struct {
	store.Store
	listed func()
}

func (s listedStore) List(ctx context.Context, prefix string) ([]store.Document, error) {
	s.listed()
	return s.Store.List(ctx, prefix)
}

// A master whose loop fails as its term begins does not keep others from leading.
func TestTermThatCannotBegin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var elections, faults atomic.Int32
		faults.Store(1)
		c := mastertest.Start(t, nil, func(cfg *master.Config) {
			cfg.Store = listedStore{cfg.Store, func() { elections.Add(1) }}
			cfg.Now = func() time.Time {
				if elections.Load() > 0 && faults.Add(-1) == 0 {
					panic("no clock")
				}
				return time.Now()
			}
		})
		c.Elect()
		synctest.Wait()
		if s := c.Master.Standing(); s.Leading || s.Recovering {
			t.Fatalf("after a failure: %+v", s)
		}
		c.Elect()
		synctest.Wait()
		if s := c.Master.Standing(); !s.Leading || s.Epoch != 2 {
			t.Errorf("in the next term: %+v", s)
		}
	})
}

// The document of ids is each master's own: whoever cannot read it lets another lead, where it would not help to wait.
func TestUnreadableIDs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := mastertest.NewStore()
		key := "ids/" + mastertest.MasterID
		if _, err := s.Write(t.Context(), store.Op{Key: key, Data: []byte("{")}); err != nil {
			t.Fatal(err)
		}
		c := mastertest.Start(t, s, nil)
		c.Elect()
		time.Sleep(30 * time.Second)
		if s := c.Master.Standing(); s.Leading || !s.Recovering {
			t.Errorf("while it is tried: %+v", s)
		}
		time.Sleep(time.Minute)
		if s := c.Master.Standing(); s.Leading || s.Recovering {
			t.Errorf("later: %+v", s)
		}
		if _, err := s.Write(t.Context(), store.Op{Key: key, Version: store.Any, Delete: true}); err != nil {
			t.Fatal(err)
		}
		c.Elect()
		synctest.Wait()
		if !c.Master.Standing().Leading {
			t.Error("a repaired store does not help")
		}
	})
}
