package marathon_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/app"
	"starling/marathon/scheduler"
	"starling/master/store"
)

// TestLargeChangesAreStored has what is large as a whole, and small enough document by document.
func TestLargeChangesAreStored(t *testing.T) {
	label := func(n int) string { return strings.Repeat("x", n) }
	t.Run("one app with a label of 900 KB", func(t *testing.T) {
		r := newRig(t)
		r.start()
		if _, err := r.put(`{"id":"/web","cmd":"x","cpus":0.1,"labels":{"l":"` + label(900_000) + `"}}`); err != nil {
			t.Fatal(err)
		}
		r.settled("web", 1)
	})
	t.Run("twelve apps of 300 KB at the same time", func(t *testing.T) {
		r := newRig(t)
		r.start()
		var wg sync.WaitGroup
		for n := range 12 {
			wg.Go(func() {
				if _, err := r.put(fmt.Sprintf(`{"id":"/web%d","cmd":"x","cpus":0.1,"labels":{"l":"%s"}}`, n, label(300_000))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for n := range 12 {
			r.settled(fmt.Sprintf("web%d", n), 1)
		}
	})
	t.Run("400 apps of 4 KB in one change", func(t *testing.T) {
		r := newRig(t)
		r.start()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := r.m.Change(ctx, marathon.Change{Group: app.Root, Edit: func(v scheduler.View) (marathon.Edited, error) {
			root := v.Root()
			for n := range 400 {
				draft, err := app.ParseUpdate([]byte(`{"cmd":"x","cpus":0.1,"instances":0,"labels":{"l":"` + label(4000) + `"}}`))
				if err != nil {
					return marathon.Edited{}, err
				}
				id := app.PathID(fmt.Sprintf("/many/app%d", n))
				a, err := draft.Create(id, root.RulesFor(id, r.m.Config().App))
				if err != nil {
					return marathon.Edited{}, err
				}
				root = root.WithApp(a)
			}
			return marathon.Edited{Root: root}, nil
		}}); err != nil {
			t.Fatal(err)
		}
		if got := len(r.store.Keys("marathon/apps/")); got != 400 {
			t.Errorf("%d definitions are stored, want 400", got)
		}
	})
}

// TestLargeBodiesAreNotAllOneTransaction has the loop split what has piled up behind a slow write.
func TestLargeBodiesAreNotAllOneTransaction(t *testing.T) {
	r := newRig(t)
	r.start()
	var mu sync.Mutex
	largest := 0
	hold := make(chan struct{})
	r.store.Fail(func(ops []store.Op) error {
		<-hold
		mu.Lock()
		defer mu.Unlock()
		size := 0
		for _, op := range ops {
			size += len(op.Data)
		}
		largest = max(largest, size)
		return nil
	})
	var wg sync.WaitGroup
	for n := range 30 {
		wg.Go(func() {
			body := fmt.Sprintf(`{"id":"/web%d","cmd":"x","instances":0,"labels":{"l":"%s"}}`, n, strings.Repeat("x", 800_000))
			if _, err := r.put(body); err != nil {
				t.Error(err)
			}
		})
	}
	close(hold)
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if largest > 8<<20 {
		t.Errorf("a transaction of %d bytes", largest)
	}
}

// TestRefusedByTheStore has a write that the store refuses for good: whoever asked for it is told, and everything goes on
// from what is stored.
func TestRefusedByTheStore(t *testing.T) {
	for _, refusal := range []error{store.ErrTooLarge, store.ErrInvalid, store.ErrConflict} {
		t.Run(refusal.Error(), func(t *testing.T) {
			r := newRig(t)
			r.start()
			if _, err := r.put(`{"id":"/web","cmd":"x","cpus":0.1,"instances":2}`); err != nil {
				t.Fatal(err)
			}
			r.settled("web", 2)
			tasks, framework := r.taskIDs(), r.cluster.FrameworkID()
			r.store.Fail(func(ops []store.Op) error {
				for _, op := range ops {
					if strings.HasPrefix(op.Key, "marathon/apps/bad/") {
						return fmt.Errorf("%w: %q", refusal, op.Key)
					}
				}
				return nil
			})
			begun := time.Now()
			_, err := r.put(`{"id":"/bad","cmd":"x"}`)
			if !errors.Is(err, marathon.ErrNotStored) || !errors.Is(err, refusal) {
				t.Errorf("got %v, want %v", err, marathon.ErrNotStored)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("the answer took %v", took)
			}
			r.eventually("leading again", r.m.Ready)
			if err := r.m.Read(func(v scheduler.View, _ time.Time) {
				if v.Root().App("/bad") != nil || len(v.Deployments()) > 0 {
					t.Errorf("what was not stored is still there")
				}
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.put(`{"id":"/web","instances":3}`); err != nil {
				t.Fatal(err)
			}
			r.settled("web", 3)
			for id := range strings.FieldsSeq(tasks) {
				if !strings.Contains(r.taskIDs(), id) {
					t.Errorf("task %s is gone", id)
				}
			}
			if got := r.cluster.FrameworkID(); got != framework {
				t.Errorf("framework id changed from %s to %s", framework, got)
			}
		})
	}
}

// TestStoreThatTakesNothingIsNoHealth has a store that fails for long: that is seen, and requests do not wait for it.
func TestStoreThatTakesNothingIsNoHealth(t *testing.T) {
	r := newRig(t)
	r.configure = func(c *marathon.Config) { c.StorePatience = time.Second }
	r.start()
	if _, err := r.put(`{"id":"/web","cmd":"x","cpus":0.1}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 1)
	ctx := r.patientUntil(r.breakStore("marathon/instances/"))
	if err := r.m.KillTasks(ctx, r.instances("/web"), true); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	r.eventually("unhealthy", func() bool { return errors.Is(r.m.Health(), marathon.ErrStore) && !r.m.Ready() })
	if _, err := r.put(`{"id":"/web","instances":2}`); !errors.Is(err, marathon.ErrStore) {
		t.Errorf("got %v, want %v", err, marathon.ErrStore)
	}
	if err := r.m.Read(func(scheduler.View, time.Time) {}); err != nil {
		t.Errorf("reading fails: %v", err)
	}
	r.store.Fail(nil)
	r.eventually("healthy", r.m.Ready)
	if _, err := r.put(`{"id":"/web","instances":2}`); err != nil {
		t.Fatal(err)
	}
	r.settled("web", 2)
}

func (r *rig) instances(id app.PathID) []app.InstanceID {
	var ids []app.InstanceID
	if err := r.m.Read(func(v scheduler.View, _ time.Time) {
		for _, i := range v.Instances(id) {
			ids = append(ids, i.ID)
		}
	}); err != nil {
		r.t.Fatal(err)
	}
	return ids
}
