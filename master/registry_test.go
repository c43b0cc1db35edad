package master_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/store"
)

// weights is a call's list of pairs of role and weight.
func weights(pairs map[string]float64) []*mesos.WeightInfo {
	var infos []*mesos.WeightInfo
	for role, weight := range pairs {
		infos = append(infos, &mesos.WeightInfo{Role: proto.String(role), Weight: proto.Float64(weight)})
	}
	return infos
}

func setWeights(t *testing.T, m *master.Master, pairs map[string]float64) {
	t.Helper()
	if err := m.UpdateWeights(t.Context(), weights(pairs)); err != nil {
		t.Fatalf("weights %v refused: %v", pairs, err)
	}
}

func wantWeights(t *testing.T, m *master.Master, want map[string]float64) {
	t.Helper()
	if got := view(t, m).Weights; !maps.Equal(got, want) {
		t.Errorf("weights: got %v, want %v", got, want)
	}
}

func checkBooks(t *testing.T, m *master.Master) {
	t.Helper()
	if err := m.CheckBooks(t.Context()); err != nil {
		t.Error(err)
	}
}

// wantRefusal fails unless an error is a refusal of a kind with a text in it.
func wantRefusal(t *testing.T, err error, kind master.Kind, text string) {
	t.Helper()
	refusal, ok := errors.AsType[*master.Refusal](err)
	if !ok || refusal.Kind != kind || !strings.Contains(refusal.Text, text) {
		t.Errorf("want a refusal of kind %d with %q, got %v", kind, text, err)
	}
}

// takeOver stops a cluster's master and has another one lead with the same documents and agents.
func takeOver(t *testing.T, c *mastertest.Cluster, change func(*master.Config), agents ...*mastertest.Agent) *mastertest.Cluster {
	t.Helper()
	synctest.Wait() // what is on its way arrives
	c.Stop()
	next := mastertest.Start(t, c.Store, change)
	for _, a := range agents {
		next.Adopt(a)
	}
	next.ElectAs(50)
	synctest.Wait()
	return next
}

// The flag is what holds first; from the first change on the document alone counts, whichever master leads.
func TestWeightsAreKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, func(cfg *master.Config) { cfg.Weights = map[string]float64{"eng": 2, "ops": 3} })
		wantWeights(t, c.Master, map[string]float64{"eng": 2, "ops": 3})
		setWeights(t, c.Master, map[string]float64{"eng": 4, "web/front": 0.5})
		want := map[string]float64{"eng": 4, "ops": 3, "web/front": 0.5}
		wantWeights(t, c.Master, want)
		other := func(cfg *master.Config) { cfg.Weights = map[string]float64{"eng": 9, "new": 9} }
		next := takeOver(t, c, other, a)
		wantWeights(t, next.Master, want)
		// A weight of 1 is one that was set.
		setWeights(t, next.Master, map[string]float64{"ops": 1})
		want["ops"] = 1
		wantWeights(t, takeOver(t, next, other, a).Master, want)
	})
}

// What a role gets follows its weight: all offers are made anew when that of a role with frameworks changes, and stay where
// it concerns nobody.
func TestWeightsDivideAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		for n := range 8 {
			c.AddAgent(n+1, "cpus:1;mem:1024")
		}
		c.Elect()
		synctest.Wait()
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"gold/bars"}, multiRole))
		if got := len(f.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers()); got != 8 {
			t.Fatalf("alone: got %d offers, want 8", got)
		}
		g := mastertest.Subscribe(t, c.Master, mastertest.Info("g", []string{"tin"}, multiRole))
		setWeights(t, c.Master, map[string]float64{"lead": 7})
		f.ExpectSilence(time.Second)
		setWeights(t, c.Master, map[string]float64{"gold": 3})
		for range 8 {
			f.Expect(scheduler.Event_RESCIND)
		}
		gold, tin := f.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers(), g.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers()
		if len(gold) != 6 || len(tin) != 2 {
			t.Errorf("with weight 3 against 1: got %d and %d offers, want 6 and 2", len(gold), len(tin))
		}
		setWeights(t, c.Master, map[string]float64{"gold": 3})
		f.ExpectSilence(time.Second)
		checkBooks(t, c.Master)
	})
}

// All offers are rescinded at once, however many there are: that alone cuts no stream.
func TestManyOffersRescinded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, func(cfg *master.Config) { cfg.MaxStreamEvents = 16 })
		for n := range 40 {
			c.AddAgent(n+1, "cpus:1;mem:1024")
		}
		c.Elect()
		synctest.Wait()
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"gold"}, multiRole))
		f.Expect(scheduler.Event_OFFERS)
		setWeights(t, c.Master, map[string]float64{"gold": 2})
		for range 40 {
			f.Expect(scheduler.Event_RESCIND)
		}
		if got := len(f.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers()); got != 40 {
			t.Errorf("offered anew: got %d, want 40", got)
		}
	})
}

func TestWeightsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.Roles = []string{"eng", "eng/web"} })
		for name, test := range map[string]struct {
			role   string
			weight float64
			want   string
		}{
			"no role":     {"", 1, "Failed to validate update weights request JSON: Invalid role ''"},
			"bad role":    {"a//b", 1, "Failed to validate update weights request JSON: Invalid role 'a//b'"},
			"not listed":  {"ops", 1, "Failed to validate update weights request JSON: Role 'ops' is not present in the master's --roles"},
			"below":       {"eng/db", 1, "Role 'eng/db' is not present in the master's --roles"},
			"zero":        {"eng", 0, "Weights must be positive"},
			"negative":    {"eng/web", -1, "Weights must be positive"},
			"not a value": {"eng", nan(), "Weights must be positive"},
		} {
			// All or nothing.
			err := c.Master.UpdateWeights(t.Context(), []*mesos.WeightInfo{
				{Role: proto.String("eng"), Weight: proto.Float64(5)},
				{Role: proto.String(test.role), Weight: proto.Float64(test.weight)},
			})
			t.Log(name)
			wantRefusal(t, err, master.Invalid, test.want)
		}
		wantWeights(t, c.Master, nil)
		setWeights(t, c.Master, map[string]float64{"*": 2, "eng/web": 2})
		setWeights(t, c.Master, nil)
		wantWeights(t, c.Master, map[string]float64{"*": 2, "eng/web": 2})
	})
}

func nan() float64 { z := 0.0; return z / z }

// Changes at the same time all count, each that was answered with success survives, and the last one of a role wins.
func TestConcurrentChangesAreAllKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		// The store comes and goes.
		var calls int
		c.Store.SetFailure(func() error {
			if calls++; calls%3 == 0 {
				return errors.New("no answer")
			}
			return nil
		})
		var wg sync.WaitGroup
		want := make(map[string]float64)
		for n := range 30 {
			role := fmt.Sprint("role-", n)
			want[role] = float64(n + 1)
			wg.Go(func() {
				if err := c.Master.UpdateWeights(t.Context(), weights(map[string]float64{role: float64(n + 1)})); err != nil {
					t.Errorf("%s: %v", role, err)
				}
			})
			wg.Go(func() {
				if err := c.Master.UpdateQuota(t.Context(), quotas(t, role+" limits=cpus:"+fmt.Sprint(n)), false); err != nil {
					t.Errorf("%s: %v", role, err)
				}
			})
		}
		wg.Wait()
		c.Store.SetFailure(nil)
		next := takeOver(t, c, nil, a)
		wantWeights(t, next.Master, want)
		v := view(t, next.Master)
		for n := range 30 {
			q, has := v.Quotas[fmt.Sprint("role-", n)]
			if limit, limited := q.Limit["cpus"]; !has || !limited || limit.Float() != float64(n) {
				t.Errorf("quota of role-%d: got %v", n, q)
			}
		}
	})
}

// cutStore loses the answer of a write, and with it the lease: what a crash between the two looks like.
type cutStore struct {
	store.Store
	mu  sync.Mutex
	cut func()
}

func (s *cutStore) Write(ctx context.Context, ops ...store.Op) ([]uint64, error) {
	versions, err := s.Store.Write(ctx, ops...)
	s.mu.Lock()
	cut := s.cut
	s.cut = nil
	s.mu.Unlock()
	if cut == nil {
		return versions, err
	}
	cut()
	<-ctx.Done()
	return nil, ctx.Err()
}

// Whoever was not answered knows nothing: what was written holds under the next leader, what was not does not. What is shown
// is what the documents say.
func TestCrashBetweenWriteAndAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cut := &cutStore{}
		c, _ := leading(t, func(cfg *master.Config) { cut.Store, cfg.Store = cfg.Store, cut })
		setWeights(t, c.Master, map[string]float64{"eng": 2})
		cut.mu.Lock()
		cut.cut = c.Lose
		cut.mu.Unlock()
		err := c.Master.UpdateQuota(t.Context(), quotas(t, "eng limits=cpus:1"), false)
		if !errors.Is(err, master.ErrNotLeading) {
			t.Errorf("written, not answered: got %v, want %v", err, master.ErrNotLeading)
		}
		synctest.Wait()
		c.Elect()
		synctest.Wait()
		if got := view(t, c.Master).Quotas["eng"].Limit.String(); got != "cpus:1" {
			t.Errorf("what was written: got %q, want cpus:1", got)
		}
		c.Store.SetFailure(func() error { return errors.New("no answer") })
		time.AfterFunc(time.Second, c.Lose)
		if err = c.Master.UpdateWeights(t.Context(), weights(map[string]float64{"eng": 5})); !errors.Is(err, master.ErrNotLeading) {
			t.Errorf("not written: got %v, want %v", err, master.ErrNotLeading)
		}
		c.Store.SetFailure(nil)
		synctest.Wait()
		c.Elect()
		synctest.Wait()
		wantWeights(t, c.Master, map[string]float64{"eng": 2})
		setWeights(t, c.Master, map[string]float64{"eng": 3})
		checkBooks(t, c.Master)
	})
}

// What could not be kept is refused as a whole.
func TestTooManyWeights(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		setWeights(t, c.Master, map[string]float64{"eng": 2})
		many := make(map[string]float64)
		for n := range store.MaxSize / 20 {
			many[fmt.Sprintf("a-role-with-a-name-%d", n)] = 1
		}
		wantRefusal(t, c.Master.UpdateWeights(t.Context(), weights(many)), master.Invalid, "can be kept")
		wantWeights(t, c.Master, map[string]float64{"eng": 2})
		checkBooks(t, c.Master)
	})
}

// A document that cannot be read ends nothing and stays as it is: the master leads, and says why it refuses.
func TestUnreadableRegistry(t *testing.T) {
	for name, text := range map[string]string{
		"torn": `{"format":1,"wei`, "of the future": `{"format":7}`,
		"bad role":   `{"format":1,"quotas":{"a//b":{}},"weights":{"a//b":1}}`,
		"bad amount": `{"format":1,"quotas":{"eng":{"limits":{"cpus":-1}}},"weights":{"eng":0}}`,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := mastertest.NewStore()
				for _, key := range []string{"weights", "quota"} {
					if _, err := s.Write(t.Context(), store.Op{Key: key, Data: []byte(text)}); err != nil {
						t.Fatal(err)
					}
				}
				c := mastertest.Start(t, s, func(cfg *master.Config) { cfg.Weights = map[string]float64{"eng": 2} })
				c.AddAgent(1, "cpus:4;mem:4096")
				c.Elect()
				synctest.Wait()
				mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil)).ExpectOffer()
				wantWeights(t, c.Master, map[string]float64{"eng": 2})
				const why = "in the store cannot be read by this master"
				wantRefusal(t, c.Master.UpdateWeights(t.Context(), weights(map[string]float64{"eng": 3})), master.Conflict, why)
				wantRefusal(t, c.Master.UpdateQuota(t.Context(), quotas(t, "eng limits=cpus:1"), true), master.Conflict, why)
				wantRefusal(t, c.Master.RemoveQuota(t.Context(), "eng"), master.Conflict, why)
				if v := view(t, c.Master); v.WeightsFault == nil || v.QuotaFault == nil {
					t.Error("readers are not told")
				}
				for _, key := range []string{"weights", "quota"} {
					if d, err := s.Get(t.Context(), key); err != nil || string(d.Data) != text {
						t.Errorf("document %q: got %q, %v", key, d.Data, err)
					}
				}
			})
		})
	}
}

// Documents that the store itself cannot read keep no master from leading: they are left alone, and all else goes on. That of a
// framework is replaced once the framework is back.
func TestDamagedDocuments(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		info := mastertest.Info("f", nil)
		info.FailoverTimeout = proto.Float64(1e6)
		f, g := mastertest.Subscribe(t, c.Master, info), mastertest.Subscribe(t, c.Master, info)
		setWeights(t, c.Master, map[string]float64{"eng": 2})
		keys := []string{"agents/somebody", "frameworks/" + f.ID, "gone/5", "maintenance/schedule", "quota", "weights"}
		for _, key := range keys {
			if _, err := c.Store.Write(t.Context(), store.Op{Key: key, Version: store.Any, Data: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
			c.Store.Damage(key)
		}
		next := takeOver(t, c, nil, a)
		const why = "in the store cannot be read by this master"
		wantRefusal(t, next.Master.UpdateWeights(t.Context(), weights(map[string]float64{"eng": 3})), master.Conflict, why)
		wantRefusal(t, next.Master.UpdateQuota(t.Context(), quotas(t, "eng limits=cpus:1"), true), master.Conflict, why)
		damaged := func(want ...string) {
			t.Helper()
			synctest.Wait()
			docs, err := c.Store.List(t.Context(), "")
			if !errors.Is(err, store.ErrDamaged) {
				t.Fatalf("want %v, got %v", store.ErrDamaged, err)
			}
			var got []string
			for _, d := range docs {
				if d.Damage != nil {
					got = append(got, d.Key)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("damaged are %q, want %q", got, want)
			}
		}
		damaged(keys...)
		mastertest.Subscribe(t, next.Master, g.Again()).ExpectOffer()
		mastertest.Subscribe(t, next.Master, f.Again())
		damaged(slices.DeleteFunc(keys, func(key string) bool { return key == "frameworks/"+f.ID })...)
		if d, err := c.Store.Get(t.Context(), "frameworks/"+f.ID); err != nil || len(d.Data) == 0 {
			t.Errorf("of the framework %q is kept, %v", d.Data, err)
		}
		checkBooks(t, next.Master)
	})
}

// Whoever is told that a framework is torn down may rely on it: no later leader takes it back.
func TestTeardownIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		c.Store.SetFailure(func() error { return errors.New("no answer") })
		time.AfterFunc(time.Second, c.Lose)
		if err := c.Master.Teardown(t.Context(), f.ID); !errors.Is(err, master.ErrNotLeading) {
			t.Errorf("not written: got %v, want %v", err, master.ErrNotLeading)
		}
		c.Store.SetFailure(nil)
		synctest.Wait()
		next := takeOver(t, c, nil, a)
		if err := next.Master.Teardown(t.Context(), f.ID); err != nil {
			t.Error(err)
		}
		last := takeOver(t, next, nil, a)
		if v := view(t, last.Master); len(v.Frameworks) != 0 || len(v.Completed) != 1 {
			t.Errorf("frameworks: %d, %d ended", len(v.Frameworks), len(v.Completed))
		}
	})
}

// A master that is to remember no ended framework keeps no document of one either.
func TestNoEndedFrameworkIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.MaxCompletedFrameworks = 0 })
		for range 3 {
			f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
			if err := c.Master.Teardown(t.Context(), f.ID); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if docs, err := c.Store.List(t.Context(), "frameworks/"); err != nil || len(docs) != 0 {
			t.Errorf("%d documents are left, error %v", len(docs), err)
		}
	})
}

// What no store takes, as the id of a framework with a control character that is not ASCII, keeps nothing else from being
// stored.
func TestDocumentThatNoStoreTakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		info := mastertest.Info("f", nil)
		info.Id = &mesos.FrameworkID{Value: proto.String("next\u0085line")}
		f := mastertest.TrySubscribe(t, c.Master, info)
		if got, want := f.Expect(scheduler.Event_ERROR).GetError().GetMessage(), "'next\u0085line' contains invalid characters"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Master.UpdateWeights(ctx, weights(map[string]float64{"eng": 2})); err != nil {
			t.Error(err)
		}
		// Agents know frameworks too.
		if err := a.Know(info); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := c.Master.UpdateWeights(ctx, weights(map[string]float64{"eng": 3})); err != nil {
			t.Error(err)
		}
	})
}

// A framework whose document would be too large once it suppresses its roles is told so at once. As JSON their names may take
// six times as many bytes.
func TestFrameworkTooLargeWhenSuppressed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		var roles []string
		for n := range 1000 {
			roles = append(roles, fmt.Sprint(strings.Repeat("<", 200), n))
		}
		f := mastertest.TrySubscribe(t, c.Master, mastertest.Info("f", roles, multiRole))
		got := f.Expect(scheduler.Event_ERROR).GetError().GetMessage()
		if !strings.Contains(got, "larger than what can be kept") {
			t.Errorf("got %.100q", got)
		}
	})
}
