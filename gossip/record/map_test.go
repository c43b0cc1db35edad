package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func set(key, value string) Assignment { return Assignment{Key: key, Value: []byte(value)} }

func del(key string) Assignment { return Assignment{Key: key} }

// content is what a reader sees of a record.
func content(s *Snapshot) map[string]string {
	if s == nil {
		return nil
	}
	got := map[string]string{}
	for k, v := range s.All() {
		got[k] = string(v)
	}
	return got
}

func mustApply(t *testing.T, m *Map, wire []byte) Result {
	t.Helper()
	res, err := m.Apply(epoch, wire)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return res
}

func wantContent(t *testing.T, m *Map, node string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, content(m.Snapshot(node))); diff != "" {
		t.Fatalf("record of %q on %q (-want +got):\n%s", node, m.Self(), diff)
	}
}

func TestSetTakesAVersionForEachRealChange(t *testing.T) {
	m := NewMap("a", 1)
	for _, step := range []struct {
		name    string
		changes []Assignment
		want    uint64
	}{
		{"first", []Assignment{set("x", "1"), set("y", "1")}, 2},
		{"the same again", []Assignment{set("x", "1")}, 2},
		{"deleting what is not there", []Assignment{del("z")}, 2},
		{"one real of two", []Assignment{set("x", "1"), set("y", "2")}, 3},
		{"delete", []Assignment{del("x")}, 4},
		{"delete again", []Assignment{del("x")}, 4},
		{"an empty value is a value", []Assignment{{Key: "e", Value: []byte{}}}, 5},
		{"an empty key is refused", []Assignment{set("", "1")}, 5},
	} {
		if got := m.Set(epoch, step.changes...); got != step.want {
			t.Errorf("%s: version %d, want %d", step.name, got, step.want)
		}
	}
	wantContent(t, m, "a", map[string]string{"y": "2", "e": ""})
	if v, ok := m.Snapshot("a").Get("e"); !ok || v == nil {
		t.Errorf("Get(e) = %v, %v, want an empty value that is not nil", v, ok)
	}
}

func TestDeltaCarriesWhatChangedSince(t *testing.T) {
	a, b := NewMap("a", 1), NewMap("b", 1)
	v := a.Set(epoch, set("x", "1"), set("y", "1"))
	if res := mustApply(t, b, a.Delta("a", 0)); res.Version != 2 || res.Gap {
		t.Fatalf("got %+v, want version 2 without a gap", res)
	}
	a.Set(epoch, del("x"), set("z", "3"))
	res := mustApply(t, b, a.Delta("a", v))
	if diff := cmp.Diff(Result{Node: "a", Generation: 1, Version: 4, Keys: []string{"x", "z"}}, res); diff != "" {
		t.Fatalf("result (-want +got):\n%s", diff)
	}
	wantContent(t, b, "a", map[string]string{"y": "1", "z": "3"})
	if d := a.Delta("a", 4); d != nil {
		t.Fatalf("a delta since the newest version: %x, want none", d)
	}
	if a.Summary()[Bucket("a")] != b.Summary()[Bucket("a")] {
		t.Error("equal records have different summaries")
	}
}

func TestADeltaOutOfOrderIsAppliedButDoesNotCount(t *testing.T) {
	a, b := NewMap("a", 1), NewMap("b", 1)
	a.Set(epoch, set("x", "1"))
	d1 := a.Delta("a", 0)
	a.Set(epoch, set("y", "2"))
	d2 := a.Delta("a", 1)
	res := mustApply(t, b, d2)
	if res.Version != 0 || !res.Gap {
		t.Fatalf("after the second alone: %+v, want version 0 and a gap", res)
	}
	wantContent(t, b, "a", map[string]string{"y": "2"})
	if res = mustApply(t, b, d1); res.Version != 2 || res.Gap {
		t.Fatalf("after both: %+v, want version 2 without a gap", res)
	}
}

func TestAHotEntryCoversWhatItReplaced(t *testing.T) {
	a, b := NewMap("a", 1), NewMap("b", 1)
	a.Set(epoch, set("x", "1"))
	mustApply(t, b, a.Delta("a", 0))
	a.Set(epoch, set("x", "2"))
	a.Set(epoch, set("x", "3"))
	if res := mustApply(t, b, a.Entries(nil, "a", 1, []string{"x"})); res.Version != 3 || res.Gap {
		t.Fatalf("got %+v, want version 3 without a gap, as nothing live is between", res)
	}
	if wire := a.Entries(nil, "a", 2, []string{"x"}); wire != nil {
		t.Errorf("entries of another generation: %x, want none", wire)
	}
}

func TestBelowTheFloorTheWholeRecordGoes(t *testing.T) {
	a, b, c := NewMap("a", 1, WithTombstoneAge(time.Minute)), NewMap("b", 1), NewMap("c", 1)
	a.Set(epoch, set("x", "1"), set("y", "1"))
	late := a.Entries(nil, "a", 1, []string{"x"})
	mustApply(t, b, a.Delta("a", 0))
	mustApply(t, c, a.Delta("a", 0))
	a.Set(epoch, del("x"))
	mustApply(t, c, a.Delta("a", 2))
	a.Prune(epoch.Add(2 * time.Minute))
	if got := a.Snapshot("a").floor; got != 3 {
		t.Fatalf("floor %d, want 3", got)
	}
	mustApply(t, b, a.Delta("a", 2))
	wantContent(t, b, "a", map[string]string{"y": "1"})
	c.Compare(epoch, a.Digests(nil)[0])
	if n := c.Snapshot("a").table.n; n != 1 {
		t.Errorf("c holds %d items, want the tombstone gone after the floor was told by a digest", n)
	}
	for _, m := range []*Map{b, c} {
		mustApply(t, m, late)
		wantContent(t, m, "a", map[string]string{"y": "1"})
	}
	if a.Summary()[Bucket("a")] != c.Summary()[Bucket("a")] {
		t.Error("summaries differ although records are equal")
	}
}

func TestATailCoversOnlyItself(t *testing.T) {
	o, relay, b := NewMap("o", 1), NewMap("relay", 1), NewMap("b", 1)
	o.Set(epoch, set("x", "1"), set("y", "2"))
	mustApply(t, relay, o.Delta("o", 0))
	o.Set(epoch, set("z", "3"))
	o.Set(epoch, set("y", "4"))
	mustApply(t, relay, o.Delta("o", 3))
	// The relay has x and the newest y, and knows that nothing live is between; b has nothing, and learns nothing of x.
	if res := mustApply(t, b, relay.Delta("o", 1)); res.Version != 0 {
		t.Errorf("%+v, want version 0: x is not there", res)
	}
	if res := mustApply(t, b, relay.Delta("o", 0)); res.Version != 2 {
		t.Errorf("%+v, want version 2", res)
	}
	mustApply(t, b, o.Delta("o", 2))
	wantContent(t, b, "o", map[string]string{"x": "1", "y": "4", "z": "3"})
}

func TestAWholeRecordKeepsWhatCameEarly(t *testing.T) {
	a, b := NewMap("a", 1, WithTombstoneAge(time.Minute)), NewMap("b", 1)
	a.Set(epoch, set("x", "1"), set("y", "1"))
	mustApply(t, b, a.Delta("a", 0))
	a.Set(epoch, del("x"))
	a.Prune(epoch.Add(2 * time.Minute))
	whole := a.Delta("a", 2)
	a.Set(epoch, set("z", "1"), set("early", "1"))
	mustApply(t, b, a.Delta("a", 4))
	mustApply(t, b, whole)
	wantContent(t, b, "a", map[string]string{"y": "1", "early": "1"})
}

// Of three lives of a node the newest that anything is known of counts, though only the oldest can be shown.
func TestAGenerationBetweenTwoOthersIsOld(t *testing.T) {
	b := NewMap("b", 1)
	lives := []*Map{NewMap("a", 1), NewMap("a", 2), NewMap("a", 3)}
	for i, m := range lives {
		m.Set(epoch, set("x", fmt.Sprint(i)))
		m.Set(epoch, set("y", fmt.Sprint(i)))
	}
	mustApply(t, b, lives[0].Delta("a", 0))
	mustApply(t, b, lives[2].Delta("a", 1))
	mustApply(t, b, lives[1].Delta("a", 0))
	wantContent(t, b, "a", map[string]string{"x": "0", "y": "0"})
	mustApply(t, b, lives[2].Delta("a", 0))
	wantContent(t, b, "a", map[string]string{"x": "2", "y": "2"})
}

func TestTombstonesAreBounded(t *testing.T) {
	a := NewMap("a", 1, WithLimits(Limits{Tombstones: 100}))
	for i := range 10000 {
		key := fmt.Sprintf("task/%d", i)
		a.Set(epoch, set(key, "x"))
		a.Set(epoch, del(key))
		if n := a.Snapshot("a").table.n; n > 101 {
			t.Fatalf("%d items after %d tasks, want at most 101", n, i)
		}
	}
}

func TestAHigherGenerationReplacesALowerOne(t *testing.T) {
	old, now, b := NewMap("a", 1), NewMap("a", 2), NewMap("b", 1)
	old.Set(epoch, set("x", "old"), set("y", "old"), set("z", "old"))
	mustApply(t, b, old.Delta("a", 0))

	now.Set(epoch, set("x", "new"))
	first := now.Delta("a", 0)
	now.Set(epoch, set("w", "new"))
	// The second comes first: the old record stays in view until the beginning of the new one is there.
	res := mustApply(t, b, now.Delta("a", 1))
	if !res.Gap {
		t.Errorf("got %+v, want a gap", res)
	}
	wantContent(t, b, "a", map[string]string{"x": "old", "y": "old", "z": "old"})
	if d := b.Digests(func(n string) bool { return n == "a" })[0]; d.Generation != 2 || d.Version != 0 {
		t.Errorf("digest %+v, want generation 2 at version 0", d)
	}
	mustApply(t, b, first)
	wantContent(t, b, "a", map[string]string{"x": "new", "w": "new"})

	old.Set(epoch, set("late", "old"))
	mustApply(t, b, old.Delta("a", 0))
	wantContent(t, b, "a", map[string]string{"x": "new", "w": "new"})
}

func TestTheOwnRecordIsWrittenByNobodyElse(t *testing.T) {
	lost, a, b := NewMap("a", 7), NewMap("a", 1), NewMap("b", 1)
	lost.Set(epoch, set("x", "before the disk was wiped"))
	mustApply(t, b, lost.Delta("a", 0))
	a.Set(epoch, set("x", "now"))

	res := mustApply(t, a, b.Delta("a", 0))
	if !res.Ahead {
		t.Fatalf("got %+v, want the own node to learn that it is behind", res)
	}
	if v := a.Compare(epoch, b.Digests(func(n string) bool { return n == "a" })[0]); !v.Ahead || v.Older {
		t.Fatalf("got %+v, want Ahead alone", v)
	}
	wantContent(t, a, "a", map[string]string{"x": "now"})
	if g := a.Raise(res.Generation); g != 8 {
		t.Fatalf("generation %d, want 8", g)
	}
	mustApply(t, b, a.Delta("a", 0))
	wantContent(t, b, "a", map[string]string{"x": "now"})
}

func TestLivenessAndReaping(t *testing.T) {
	a, b := NewMap("a", 1), NewMap("b", 1)
	a.Set(epoch, set("x", "1"))
	b.SetLiveness(epoch, "a", Dead)
	if b.Snapshot("a") != nil {
		t.Error("a dead node of which nothing was known got a record")
	}
	b.SetLiveness(epoch, "a", Alive)
	mustApply(t, b, a.Delta("a", 0))
	dead := epoch.Add(time.Minute)
	b.SetLiveness(dead, "a", Dead)
	b.SetLiveness(dead.Add(time.Second), "a", Dead)
	if s := b.Snapshot("a"); s.Liveness() != Dead || !s.Since().Equal(dead) || s.Len() != 1 {
		t.Errorf("%v since %v with %d keys, want dead since %v with its key", s.Liveness(), s.Since(), s.Len(), dead)
	}
	if gone := b.Reap(dead.Add(time.Hour), time.Hour); gone != nil {
		t.Errorf("reaped %v, want nobody yet", gone)
	}
	f := b.Feed()
	now := dead.Add(time.Hour + time.Second)
	if gone := b.Reap(now, time.Hour); !slices.Equal(gone, []string{"a"}) {
		t.Errorf("reaped %v, want a", gone)
	}
	changes, err := f.Next(t.Context())
	if err != nil || len(changes) != 1 || changes[0].Snapshot != nil || changes[0].Node != "a" {
		t.Errorf("feed: %v, %v, want one change without a snapshot", changes, err)
	}
	if b.Summary() != NewMap("b", 1).Summary() {
		t.Error("the summary still knows the reaped node")
	}
	if _, err := b.Apply(now, a.Delta("a", 0)); err != nil || b.Snapshot("a") != nil {
		t.Errorf("a reaped record came back from a peer (%v)", err)
	}
	b.SetLiveness(now, "a", Alive)
	mustApply(t, b, a.Delta("a", 0))
	wantContent(t, b, "a", map[string]string{"x": "1"})
}

func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMap("a", 1, WithLimits(Limits{Changes: 8}))
		f := m.Feed()
		got := make(chan []Change)
		go func() {
			c, _ := f.Next(t.Context())
			got <- c
		}()
		synctest.Wait()
		m.Set(epoch, set("x", "1"))
		if c := <-got; len(c) != 1 || c[0].Key != "x" || string(c[0].Value) != "1" || c[0].Snapshot.Version() != 1 {
			t.Fatalf("got %+v, want x=1", c)
		}
		m.Set(epoch, set("x", "2"))
		m.Set(epoch, set("y", "1"))
		m.Set(epoch, set("x", "3"), del("y"))
		c, err := f.Next(t.Context())
		if err != nil || len(c) != 2 || c[0].Key != "x" || string(c[0].Value) != "3" || c[1].Key != "y" || c[1].Value != nil {
			t.Fatalf("got %+v, %v, want the newest of x and the end of y", c, err)
		}
		for i := range 9 {
			m.Set(epoch, set("x", fmt.Sprint("v", i)))
		}
		if _, err := f.Next(t.Context()); !errors.Is(err, ErrLagged) {
			t.Fatalf("got %v, want ErrLagged", err)
		}
		m.Set(epoch, set("z", "1"))
		m.SetLiveness(epoch, "a", Suspect)
		if c, err := f.Next(t.Context()); err != nil || len(c) != 1 || c[0].Key != "" {
			t.Fatalf("got %+v, %v, want one change of the node as a whole", c, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
	})
}

func TestLimits(t *testing.T) {
	small := WithLimits(Limits{Keys: 3, KeySize: 8, ValueSize: 16, RecordSize: 40, Nodes: 2})
	for _, c := range []struct {
		name    string
		changes []Assignment
	}{
		{"too many keys", []Assignment{set("a", ""), set("b", ""), set("c", ""), set("d", "")}},
		{"key too long", []Assignment{set("123456789", "")}},
		{"value too long", []Assignment{set("a", strings.Repeat("x", 17))}},
		{"record too large", []Assignment{set("a", strings.Repeat("x", 16)), set("b", strings.Repeat("x", 16)), set("c", strings.Repeat("x", 16))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			own := NewMap("a", 1, small)
			if _, _, err := own.TrySet(epoch, c.changes...); !errors.Is(err, ErrLimit) {
				t.Errorf("TrySet: %v, want ErrLimit", err)
			}
			a, b := NewMap("a", 1), NewMap("b", 1, small)
			a.Set(epoch, c.changes...)
			if _, err := b.Apply(epoch, a.Delta("a", 0)); !errors.Is(err, ErrLimit) {
				t.Errorf("Apply: %v, want ErrLimit", err)
			}
			if b.Snapshot("a") != nil {
				t.Error("a refused delta left something behind")
			}
		})
	}
	b := NewMap("b", 1, small)
	for _, n := range []string{"c", "d"} {
		m := NewMap(n, 1)
		m.Set(epoch, set("x", "1"))
		_, err := b.Apply(epoch, m.Delta(n, 0))
		if want := n == "d"; errors.Is(err, ErrLimit) != want {
			t.Errorf("node %s: %v, refused should be %v", n, err, want)
		}
	}
}

func TestSnapshotsAreImmutableAndOrdered(t *testing.T) {
	m := NewMap("m", 1)
	for i := range 1000 {
		m.Set(epoch, set(fmt.Sprintf("task/%04d", i*7%1000), "1"))
	}
	s := m.Snapshot("m")
	before := content(s)
	for i := range 1000 {
		m.Set(epoch, set(fmt.Sprintf("task/%04d", i), "2"), del(fmt.Sprintf("task/%04d", i/2)), set(fmt.Sprint("new", i), ""))
	}
	if diff := cmp.Diff(before, content(s)); diff != "" {
		t.Fatalf("an old snapshot changed:\n%s", diff)
	}
	var keys []string
	for k := range s.Prefix("task/000") {
		keys = append(keys, k)
	}
	if len(keys) != 10 || !slices.IsSorted(keys) {
		t.Errorf("prefix gave %q, want ten keys in order", keys)
	}
	if s.Len() != 1000 || m.Snapshot("m").Len() != len(content(m.Snapshot("m"))) {
		t.Errorf("%d and %d keys are counted", s.Len(), m.Snapshot("m").Len())
	}
}

func TestWritersAndReadersAtOnce(t *testing.T) {
	owner, m := NewMap("o", 1), NewMap("m", 1)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	const changes = 2000
	for range 4 {
		wg.Go(func() {
			f := m.Feed()
			for last := uint64(0); ; {
				if _, err := f.Next(ctx); err != nil && !errors.Is(err, ErrLagged) {
					return
				}
				for s := range m.Snapshots() {
					n := 0
					for range s.All() {
						n++
					}
					if n != s.Len() {
						t.Errorf("%d keys, %d are counted", n, s.Len())
					}
					if s.Node() == "o" {
						if s.Version() < last {
							t.Errorf("version %d after %d", s.Version(), last)
						}
						last = s.Version()
					}
				}
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range changes {
				m.Set(epoch, set(fmt.Sprint("k", w, i%100), fmt.Sprint(i)))
				owner.Set(epoch, set(fmt.Sprint("k", w, i%100), fmt.Sprint(i)))
				held := uint64(0) // the other writer may have come further meanwhile: such a delta is only old news
				if s := m.Snapshot("o"); s != nil {
					held = s.Version()
				}
				if _, err := m.Apply(epoch, owner.Delta("o", held/2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	cancel()
	wg.Wait()
	if got := m.Snapshot("o").Version(); got != 2*changes {
		t.Errorf("version %d, want %d", got, 2*changes)
	}
}
