package record

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

var (
	seed      = flag.Uint64("seed", 0, "seed of the random schedules; 0 takes one from the clock")
	schedules = flag.Int("schedules", 4000, "number of random schedules")
)

// world is a random run: owners write, restart and lose their disks; messages are kept and delivered at any time, any number of
// times or never; readers hold copies. Beside it runs a plain model of what each owner last said.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	maps   []*Map
	mail   [][]byte // every message ever sent: may be delivered late and again
	truth  []map[string]string
	seen   []map[string]Digest // by map and node: the newest generation and version in view
	values int
}

func newWorld(t *testing.T, rng *rand.Rand, nodes int) *world {
	w := &world{t: t, rng: rng, now: epoch}
	for i := range nodes {
		w.maps = append(w.maps, w.newMap(i, 1))
		w.truth = append(w.truth, map[string]string{})
		w.seen = append(w.seen, map[string]Digest{})
	}
	return w
}

func (w *world) newMap(i int, generation uint64) *Map {
	return NewMap(fmt.Sprint("n", i), generation, WithTombstoneAge(time.Minute), WithLimits(Limits{Tombstones: 4}))
}

func (w *world) step() {
	i := w.rng.IntN(len(w.maps))
	m := w.maps[i]
	switch w.rng.IntN(16) {
	case 0, 1, 2, 3: // write
		var as []Assignment
		for range 1 + w.rng.IntN(4) {
			key := fmt.Sprint("k", w.rng.IntN(8))
			if w.rng.IntN(3) == 0 {
				as = append(as, del(key))
				delete(w.truth[i], key)
				continue
			}
			w.values++
			as = append(as, set(key, fmt.Sprint(w.values)))
			w.truth[i][key] = fmt.Sprint(w.values)
		}
		m.Set(w.now, as...)
	case 4, 5, 6: // a hot delta of some keys of any record held
		s := m.Snapshot(w.any())
		if s == nil {
			return
		}
		var keys []string
		for k := range 8 {
			if w.rng.IntN(3) == 0 {
				keys = append(keys, fmt.Sprint("k", k))
			}
		}
		w.send(m.Entries(nil, s.Node(), s.Generation(), keys))
	case 7: // a delta since some version, or the whole
		if s := m.Snapshot(w.any()); s != nil {
			w.send(m.Delta(s.Node(), uint64(w.rng.IntN(int(s.Version())+1))))
		}
	case 8:
		w.now = w.now.Add(time.Duration(w.rng.IntN(60)) * time.Second)
		m.Prune(w.now)
	case 9:
		if w.rng.IntN(4) == 0 {
			w.restart(i)
		}
	case 10:
		w.exchange(i, w.rng.IntN(len(w.maps)))
	default: // deliver something, however old
		if len(w.mail) > 0 {
			w.deliver(i, w.mail[w.rng.IntN(len(w.mail))])
		}
	}
}

func (w *world) any() string { return fmt.Sprint("n", w.rng.IntN(len(w.maps))) }

func (w *world) send(wire []byte) {
	if wire != nil {
		w.mail = append(w.mail, wire)
	}
}

// restart begins a new generation with an empty record; sometimes the disk was wiped, and it counts from the beginning. As the
// package asks for, no two lives share a generation, for which the owner draws its low bits.
func (w *world) restart(i int) {
	generation := w.maps[i].Snapshot(w.maps[i].Self()).Generation() + 1<<20
	if w.rng.IntN(3) == 0 {
		generation = 1<<20 + w.rng.Uint64N(1<<20)
	}
	w.maps[i] = w.newMap(i, generation)
	w.seen[i] = map[string]Digest{}
	clear(w.truth[i])
}

func (w *world) deliver(i int, wire []byte) {
	m := w.maps[i]
	res, err := m.Apply(w.now, wire)
	if err != nil {
		w.t.Fatalf("apply %x: %v", wire, err)
	}
	if res.Ahead {
		m.Raise(res.Generation + w.rng.Uint64N(1<<20))
	}
	w.check(i)
}

// exchange is one round of anti-entropy from i to j.
func (w *world) exchange(i, j int) {
	for _, d := range w.maps[i].Digests(nil) {
		v := w.maps[j].Compare(w.now, d)
		if v.Ahead {
			w.maps[j].Raise(d.Generation + w.rng.Uint64N(1<<20))
		}
		if v.Newer {
			w.deliver(i, w.maps[j].Delta(d.Node, v.Since))
		}
		if v.Older && w.maps[i].Compare(w.now, v.Mine).Newer {
			w.deliver(j, w.maps[i].Delta(d.Node, w.maps[i].Compare(w.now, v.Mine).Since))
		}
	}
}

// check holds what has to be true at every moment: what is in view never goes back.
func (w *world) check(i int) {
	for s := range w.maps[i].Snapshots() {
		old := w.seen[i][s.Node()]
		if s.Generation() < old.Generation || s.Generation() == old.Generation && s.Version() < old.Version {
			w.t.Fatalf("%s's copy of %s went back from %+v to generation %d, version %d", w.maps[i].Self(), s.Node(), old, s.Generation(), s.Version())
		}
		w.seen[i][s.Node()] = Digest{s.Node(), s.Generation(), s.Version(), s.floor}
	}
}

// settle lets everybody talk to everybody until nothing is left to say, and compares all copies with the model.
func (w *world) settle() {
	// A wiped owner has to be above whatever is still around in somebody's copy or in the mail, as one that lives long enough
	// will be: what is delivered after the end comes from the past.
	for _, wire := range w.mail {
		for i := range w.maps {
			w.deliver(i, wire)
		}
	}
	for round := 0; ; round++ {
		for i := range w.maps {
			for j := range w.maps {
				w.exchange(i, j)
			}
		}
		first, same := w.maps[0].Summary(), true
		for _, m := range w.maps[1:] {
			same = same && m.Summary() == first
		}
		if same {
			break
		}
		if round > 10 {
			for _, m := range w.maps {
				w.t.Logf("%s: %+v", m.Self(), m.Digests(nil))
			}
			w.t.Fatal("anti-entropy does not end")
		}
	}
	for _, wire := range w.mail {
		for i := range w.maps {
			w.deliver(i, wire)
		}
	}
	for i, truth := range w.truth {
		node := w.maps[i].Self()
		for _, m := range w.maps {
			got := content(m.Snapshot(node))
			if len(truth) == 0 && len(got) == 0 {
				continue
			}
			if diff := gocmp.Diff(truth, got); diff != "" {
				w.t.Fatalf("%s's copy of %s (-want +got):\n%s", m.Self(), node, diff)
			}
			wantBooks(w.t, m, node)
		}
	}
}

// wantBooks compares the books of a copy with a plain count.
func wantBooks(t *testing.T, m *Map, node string) {
	t.Helper()
	for _, r := range []*copied{m.records[node], m.next[node]} {
		if r == nil {
			continue
		}
		var items []*item
		live, bytes := 0, 0
		r.snap.table.ascend("", func(it *item) bool {
			items = append(items, it)
			bytes += it.size()
			if !it.deleted {
				live++
			}
			return true
		})
		if tb := r.snap.table; tb.n != len(items) || tb.live != live || tb.bytes != bytes {
			t.Fatalf("%s's copy of %s counts %d items, %d live, %d bytes; there are %d, %d, %d", m.Self(), node, tb.n, tb.live, tb.bytes, len(items), live, bytes)
		}
		slices.SortFunc(items, func(a, b *item) int { return cmp.Compare(a.version, b.version) })
		if !slices.Equal(items, r.order) {
			t.Fatalf("%s's copy of %s: the order of versions does not match the items", m.Self(), node)
		}
		last := r.snap.version
		for _, s := range r.spans {
			if s.from <= last && last > r.snap.version || s.from < last || s.to <= s.from || len(r.spans) > maxSpans {
				t.Fatalf("%s's copy of %s: spans %v beyond version %d", m.Self(), node, r.spans, r.snap.version)
			}
			last = s.to
		}
	}
}

// TestLaws runs random schedules: whatever is lost, repeated, late, split or out of order, after anti-entropy all copies are what the
// owners last said, no deleted key comes back, no old generation shadows a new one, and versions only grow.
func TestLaws(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	n := *schedules
	if testing.Short() {
		n /= 10
	}
	t.Logf("seed %d, %d schedules", s, n)
	for i := range n {
		rng := rand.New(rand.NewPCG(s, uint64(i)))
		w := newWorld(t, rng, 2+rng.IntN(3))
		for range 20 + rng.IntN(80) {
			w.step()
		}
		w.settle()
		if t.Failed() {
			t.Fatalf("schedule %d of seed %d", i, s)
		}
	}
}

// TestOrderDoesNotMatter delivers the changes of one record in random orders, with repetitions and random splits: the result is always
// the same, gapless, without any anti-entropy.
func TestOrderDoesNotMatter(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	rng := rand.New(rand.NewPCG(s, 0))
	for round := range 500 {
		owner := NewMap("o", 1)
		var mail [][]byte
		for range 1 + rng.IntN(40) {
			key := fmt.Sprint("k", rng.IntN(6))
			before := owner.Snapshot("o").Version()
			if rng.IntN(3) == 0 {
				owner.Set(epoch, del(key))
			} else {
				owner.Set(epoch, set(key, fmt.Sprint(rng.Int())), set(fmt.Sprint("k", rng.IntN(6)), "x"))
			}
			if rng.IntN(2) == 0 {
				mail = append(mail, owner.Delta("o", before)) // later changes are covered by others
			}
			if v := owner.Snapshot("o").Version(); v > before {
				if d := owner.Delta("o", before); d != nil {
					mail = append(mail, d)
				}
			}
		}
		if rng.IntN(2) == 0 { // a split: every key on its own
			for k := range maps.Keys(content(owner.Snapshot("o"))) {
				mail = append(mail, owner.Entries(nil, "o", 1, []string{k}))
			}
		}
		mail = slices.DeleteFunc(mail, func(b []byte) bool { return b == nil })
		mail = append(mail, mail[:len(mail)/2]...)
		rng.Shuffle(len(mail), func(i, j int) { mail[i], mail[j] = mail[j], mail[i] })
		reader := NewMap("r", 1)
		for _, wire := range mail {
			mustApply(t, reader, wire)
		}
		got := reader.Snapshot("o")
		if got == nil && len(mail) == 0 {
			continue
		}
		if diff := gocmp.Diff(content(owner.Snapshot("o")), content(got)); diff != "" || got.Version() != owner.Snapshot("o").Version() {
			t.Fatalf("round %d: version %d, want %d (-want +got):\n%s", round, got.Version(), owner.Snapshot("o").Version(), diff)
		}
	}
}
