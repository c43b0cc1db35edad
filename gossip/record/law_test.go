package record

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

var (
	seed      = flag.Uint64("seed", 0, "seed of the random schedules; 0 takes one from the clock")
	schedules = flag.Int("schedules", 10000, "number of random schedules")
	only      = flag.Int("schedule", -1, "run this one of the random schedules alone")
)

// world is a random run: owners write, restart and lose their disks; messages are kept and delivered at any time, any number of
// times or never; readers hold copies, and lose them. Beside it runs a plain model: all that each owner ever wrote, by generation and version.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	now     time.Time
	maps    []*Map
	mail    [][]byte // every message ever sent: may be delivered late and again
	truth   []map[string]string
	written []map[uint64][]written // by owner and generation, one for each version
	seen    []map[string]Digest    // by map and node: the newest generation and version in view
	told    []map[string]Digest    // by map and node: the newest digest
	opinion []map[string]Liveness  // by map and node
	reaped  []map[string]reaped    // by map and node
	readers []*follower
	values  int
	hasty   bool // what has to be true at every moment is looked at later
	// What makes schedules differ: the number of keys, and how rare restarts are.
	keys, calm int
}

// written is one change of an owner's. Of one that the same call of Set superseded only the key is known.
type written struct {
	key, value          string
	deleted, superseded bool
}

// follower is a reader that knows nothing but what the feed tells it.
type follower struct {
	feed  *Feed
	holds map[string]map[string]string
}

func newWorld(t *testing.T, rng *rand.Rand, nodes int) *world {
	w := &world{t: t, rng: rng, now: epoch, keys: 2 + rng.IntN(11), calm: 1 + rng.IntN(6)}
	for i := range nodes {
		w.written = append(w.written, map[uint64][]written{1: nil})
		w.truth = append(w.truth, map[string]string{})
		w.maps, w.readers = append(w.maps, nil), append(w.readers, nil)
		w.seen, w.told, w.opinion, w.reaped = append(w.seen, nil), append(w.told, nil), append(w.opinion, nil), append(w.reaped, nil)
		w.begin(i, 1)
	}
	return w
}

// begin starts a node with an empty map. The limits are so small that they are met.
func (w *world) begin(i int, generation uint64) {
	w.maps[i] = NewMap(fmt.Sprint("n", i), generation, WithTombstoneAge(time.Minute),
		WithLimits(Limits{Tombstones: 4, Keys: 10, ValueSize: 8, RecordSize: 64, Changes: 12}))
	w.seen[i], w.told[i] = map[string]Digest{}, map[string]Digest{}
	w.opinion[i], w.reaped[i] = map[string]Liveness{w.maps[i].Self(): Alive}, map[string]reaped{}
	w.readers[i] = &follower{feed: w.maps[i].Feed()}
	w.readers[i].start(w.maps[i])
	clear(w.truth[i])
}

func (w *world) step() {
	i := w.rng.IntN(len(w.maps))
	m := w.maps[i]
	switch w.rng.IntN(18) {
	case 0, 1, 2, 3:
		w.write(i)
	case 4, 5, 6:
		w.tell(i, w.any())
	case 7: // a delta since some version, or the whole
		if s := m.Snapshot(w.any()); s != nil {
			w.send(m.Delta(s.Node(), uint64(w.rng.IntN(int(s.Version())+1))))
		}
	case 8:
		w.now = w.now.Add(time.Duration(w.rng.IntN(60)) * time.Second)
		m.Prune(w.now)
	case 9:
		if w.rng.IntN(w.calm) == 0 {
			w.restart(i)
			for range w.rng.IntN(3) { // much of what a new life says first is told before its beginning
				w.write(i)
				w.tell(i, m.Self())
			}
		}
	case 10:
		w.exchange(i, w.rng.IntN(len(w.maps)))
	case 11: // an opinion, and what follows from it
		if node := w.any(); node != m.Self() {
			w.judge(i, node, Liveness(1+w.rng.IntN(4)))
		}
		held := maps.Clone(w.seen[i])
		for _, gone := range m.Reap(w.now, 20*time.Second) {
			w.reaped[i][gone] = reaped{held[gone].Generation, w.now.Add(40 * time.Second)}
			delete(w.seen[i], gone)
			delete(w.told[i], gone)
			delete(w.opinion[i], gone)
		}
		w.check(i)
	case 12:
		w.follow(i)
	default: // deliver something, however old
		if len(w.mail) > 0 {
			w.deliver(i, w.mail[w.rng.IntN(len(w.mail))])
		}
	}
}

// tell sends a hot delta of some keys of a record that is held.
func (w *world) tell(i int, node string) {
	m := w.maps[i]
	s := m.Snapshot(node)
	if s == nil {
		return
	}
	var keys []string
	for k := range w.keys {
		if w.rng.IntN(3) == 0 {
			keys = append(keys, fmt.Sprint("k", k))
		}
	}
	generation := s.Generation()
	if next := m.next[node]; next != nil && w.rng.IntN(2) == 0 {
		generation = next.snap.generation
	}
	w.send(m.AgedEntries(w.now, nil, node, generation, keys))
}

// judge gives a map an opinion of a node.
func (w *world) judge(i int, node string, l Liveness) {
	w.maps[i].SetLiveness(w.now, node, l)
	if l == Alive || l == Suspect {
		delete(w.reaped[i], node)
	}
	if w.maps[i].Snapshot(node) != nil {
		w.opinion[i][node] = l
	}
}

func (w *world) any() string { return fmt.Sprint("n", w.rng.IntN(len(w.maps))) }

func (w *world) send(wire []byte) {
	if wire != nil {
		w.mail = append(w.mail, wire)
	}
}

// write has an owner change its record, and notes what became of it.
func (w *world) write(i int) {
	var as []Assignment
	for range 1 + w.rng.IntN(4) {
		key := fmt.Sprint("k", w.rng.IntN(w.keys))
		w.values++
		switch w.rng.IntN(8) {
		case 0, 1, 2:
			as = append(as, del(key))
		case 3:
			as = append(as, set(key, strings.Repeat("x", w.rng.IntN(12))))
		default:
			as = append(as, set(key, fmt.Sprint(w.values)))
		}
	}
	m := w.maps[i]
	self := m.Self()
	before := m.Snapshot(self)
	version, changed, err := m.TrySet(w.now, as...)
	if err != nil && !errors.Is(err, ErrLimit) {
		w.t.Fatal(err)
	}
	if int(version-before.Version()) != len(changed) {
		w.t.Fatalf("%d versions for the changes of %q", version-before.Version(), changed)
	}
	log := w.written[i][before.Generation()]
	for n, key := range changed {
		it := m.records[self].snap.table.get(key)
		c := written{key: key, superseded: it == nil || it.version != before.Version()+uint64(n)+1}
		if !c.superseded {
			c.value, c.deleted = string(it.value), it.deleted
		}
		log = append(log, c)
		if v, ok := m.Snapshot(self).Get(key); ok {
			w.truth[i][key] = string(v)
		} else {
			delete(w.truth[i], key)
		}
	}
	w.written[i][before.Generation()] = log
	w.check(i)
	w.model(i, self)
}

// restart begins a new generation with an empty record; sometimes the disk was wiped, and it counts from the beginning. As the
// package asks for, no two lives share a generation, for which the owner draws its low bits.
func (w *world) restart(i int) {
	generation := w.maps[i].Snapshot(w.maps[i].Self()).Generation() + 1<<20
	if w.rng.IntN(2) == 0 {
		generation = 1<<20 + w.rng.Uint64N(1<<20)
	}
	w.written[i][generation] = nil
	w.begin(i, generation)
}

// raise lifts an owner's generation above one that others hold: what it has written is written in that one, too.
func (w *world) raise(i int, above uint64) {
	m := w.maps[i]
	old := m.Snapshot(m.Self()).Generation()
	next := m.Raise(above + w.rng.Uint64N(1<<20))
	w.written[i][next] = slices.Clone(w.written[i][old])
}

func (w *world) deliver(i int, wire []byte) {
	m := w.maps[i]
	before := m.Summary()
	res, err := m.Apply(w.now, wire)
	switch {
	case errors.Is(err, ErrLimit): // what a copy holds of the past and of the future may be too much at once
		if m.Summary() != before {
			w.t.Fatalf("%v, and yet something changed", err)
		}
		return
	case err != nil:
		w.t.Fatalf("apply %x: %v", wire, err)
	}
	if res.Ahead {
		w.raise(i, res.Generation)
	}
	if !w.hasty {
		w.check(i)
		w.model(i, res.Node)
	}
}

// exchange is one round of anti-entropy from i to j.
func (w *world) exchange(i, j int) {
	for _, d := range w.maps[i].Digests(nil) {
		v := w.maps[j].Compare(w.now, d)
		if v.Ahead {
			w.raise(j, d.Generation)
		}
		w.model(j, d.Node) // it may have taken over the floor
		if v.Newer {
			w.deliverSome(i, w.maps[j].Delta(d.Node, v.Since))
		}
		if v.Older {
			if back := w.maps[i].Compare(w.now, v.Mine); back.Newer {
				w.deliverSome(j, w.maps[i].Delta(d.Node, back.Since))
			}
		}
	}
}

// deliverSome delivers what anti-entropy sends, which is nothing where a generation has only begun to arrive.
func (w *world) deliverSome(i int, wire []byte) {
	if wire != nil {
		w.deliver(i, wire)
	}
}

// check holds what has to be true at every moment: what is in view and what is told never goes back, a generation is not shown without
// its beginning in the place of an older one, what was reaped stays away for its time, opinions stay what they are, and the
// summary is that of the digests.
func (w *world) check(i int) {
	m := w.maps[i]
	for s := range m.Snapshots() {
		old := w.seen[i][s.Node()]
		if s.Generation() < old.Generation || s.Generation() == old.Generation && (s.Version() < old.Version || s.floor < old.Floor) {
			w.t.Fatalf("%s's copy of %s went back from %+v to generation %d, version %d, floor %d", m.Self(), s.Node(), old, s.Generation(), s.Version(), s.floor)
		}
		if !w.hasty && old.Generation > 0 && s.Generation() > old.Generation && s.Version() == 0 && s.Len() > 0 {
			w.t.Fatalf("%s shows generation %d of %s before its beginning, in the place of %+v", m.Self(), s.Generation(), s.Node(), old)
		}
		w.seen[i][s.Node()] = Digest{s.Node(), s.Generation(), s.Version(), s.floor}
		if r, ok := w.reaped[i][s.Node()]; ok && w.now.Before(r.until) && 0 < s.Generation() && s.Generation() <= r.generation {
			w.t.Fatalf("%s has generation %d of %s again, which it has reaped", m.Self(), s.Generation(), s.Node())
		}
		if s.Liveness() != w.opinion[i][s.Node()] {
			w.t.Fatalf("%s holds %s for %v, and was told that it is %v", m.Self(), s.Node(), s.Liveness(), w.opinion[i][s.Node()])
		}
	}
	for _, d := range m.Digests(nil) {
		old := w.told[i][d.Node]
		if d.Generation < old.Generation || d.Generation == old.Generation && d.Version < old.Version {
			w.t.Fatalf("%s tells %+v after %+v", m.Self(), d, old)
		}
		w.told[i][d.Node] = d
	}
	var sum Summary
	total := 0
	for _, name := range m.names {
		sum[Bucket(name)] ^= m.digest(name).hash()
		total += m.records[name].snap.table.cost()
		if next := m.next[name]; next != nil {
			total += next.snap.table.cost()
		}
	}
	if sum != m.Summary() || total != m.total {
		w.t.Fatalf("the summary of %s is not that of its digests, or it counts %d bytes, not %d", m.Self(), m.total, total)
	}
}

// model compares the copies of a record with what its owner wrote. Up to the contiguous version they are complete: each key whose
// last change is not beyond that version is there with it, and so is each tombstone above the floor. A key that the owner
// has changed since may lag behind: what it was is covered by what comes. Nothing is there that the owner did not write.
func (w *world) model(i int, node string) {
	m := w.maps[i]
	owner, err := strconv.Atoi(strings.TrimPrefix(node, "n"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range []*copied{m.records[node], m.next[node]} {
		if r == nil || r.snap.generation == 0 {
			continue
		}
		s := r.snap
		log, known := w.written[owner][s.generation]
		if !known || s.version > uint64(len(log)) || s.floor > s.version {
			w.t.Fatalf("%s's copy of %s is of generation %d, version %d, floor %d; there were %d changes", m.Self(), node, s.generation, s.version, s.floor, len(log))
		}
		newest := map[string]uint64{} // by key, unless it is beyond the contiguous version
		for n, c := range log {
			if newest[c.key] = uint64(n) + 1; newest[c.key] > s.version {
				delete(newest, c.key)
			}
		}
		s.table.ascend("", func(it *item) bool {
			if it.version > uint64(len(log)) {
				w.t.Fatalf("%s's copy of %s has %q of version %d of %d", m.Self(), node, it.key, it.version, len(log))
			}
			if c := log[it.version-1]; c != (written{key: it.key, value: string(it.value), deleted: it.deleted}) || it.version < newest[it.key] {
				w.t.Fatalf("%s's copy of %s at version %d has %+v; %+v was written, and the newest is of version %d", m.Self(), node, s.version, *it, c, newest[it.key])
			}
			if it.deleted && it.version <= s.floor {
				w.t.Fatalf("%s's copy of %s still has the tombstone of %q, %d, below the floor %d", m.Self(), node, it.key, it.version, s.floor)
			}
			return true
		})
		for key, v := range newest {
			c := log[v-1]
			if gone := c.superseded || c.deleted && v <= s.floor; !gone && s.table.get(key) == nil {
				w.t.Fatalf("%s's copy of %s at version %d, floor %d, lacks %q of version %d: %+v", m.Self(), node, s.version, s.floor, key, v, c)
			}
		}
	}
	wantBooks(w.t, m, node)
}

// start reads all there is.
func (f *follower) start(m *Map) {
	f.holds = map[string]map[string]string{}
	for s := range m.Snapshots() {
		f.holds[s.Node()] = content(s)
	}
}

// follow has the reader of a map read its feed: then it holds what the snapshots hold, whether it lagged behind or not.
func (w *world) follow(i int) {
	m, f := w.maps[i], w.readers[i]
	switch changes, _, err := f.feed.poll(); {
	case errors.Is(err, ErrLagged):
		f.start(m)
	case err != nil:
		w.t.Fatal(err)
	default:
		for _, c := range changes {
			switch {
			case c.Snapshot == nil:
				delete(f.holds, c.Node)
			case c.Key == "":
				f.holds[c.Node] = content(c.Snapshot)
			case f.holds[c.Node] == nil:
				w.t.Fatalf("the reader of %s hears of %q of %s and never heard of that node", m.Self(), c.Key, c.Node)
			case c.Value == nil:
				delete(f.holds[c.Node], c.Key)
			default:
				f.holds[c.Node][c.Key] = string(c.Value)
			}
		}
	}
	want := map[string]map[string]string{}
	for s := range m.Snapshots() {
		want[s.Node()] = content(s)
	}
	if len(want) != len(f.holds) || !maps.EqualFunc(want, f.holds, maps.Equal) {
		w.t.Fatalf("the reader of %s (-want +got):\n%s", m.Self(), gocmp.Diff(want, f.holds))
	}
}

// settle lets everybody talk to everybody until nothing is left to say, and compares all copies with the model.
func (w *world) settle() {
	for i := range w.maps { // all are there: nothing is reaped any more, and what was may come back
		for j := range w.maps {
			if i != j {
				w.judge(i, fmt.Sprint("n", j), Alive)
			}
		}
	}
	// A wiped owner has to be above whatever is still around in somebody's copy or in the mail, as one that lives long enough
	// will be: what is delivered after the end comes from the past.
	w.deliverAll(true)
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
	w.deliverAll(false)
	for i, truth := range w.truth {
		node := w.maps[i].Self()
		for k, m := range w.maps {
			if got := content(m.Snapshot(node)); !maps.Equal(truth, got) {
				w.t.Fatalf("%s's copy of %s (-want +got):\n%s", m.Self(), node, gocmp.Diff(truth, got))
			}
			w.model(k, node)
		}
		w.follow(i)
	}
}

// deliverAll delivers every message ever sent, to everybody or to anybody.
func (w *world) deliverAll(everybody bool) {
	w.hasty = true
	for _, wire := range w.mail {
		if !everybody {
			w.deliver(w.rng.IntN(len(w.maps)), wire)
			continue
		}
		for i := range w.maps {
			w.deliver(i, wire)
		}
	}
	for i := range w.maps {
		w.check(i)
		for j := range w.maps {
			w.model(i, w.maps[j].Self())
		}
	}
	w.hasty = false
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
// owners last said, no deleted key comes back, no old generation shadows a new one, and versions only grow. On the way, no copy ever holds
// anything that its owner did not write, or lacks what its version says it has. To see one again: -seed and -schedule.
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
	schedule := 0
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("schedule %d of seed %d", schedule, s)
		}
	})
	for ; schedule < n; schedule++ {
		if *only >= 0 && schedule != *only {
			continue
		}
		rng := rand.New(rand.NewPCG(s, uint64(schedule)))
		w := newWorld(t, rng, 2+rng.IntN(3))
		for range 20 + rng.IntN(60) {
			w.step()
		}
		w.settle()
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
		if v := owner.Snapshot("o").Version(); v > 0 {
			var keys []string
			for k := range 6 {
				keys = append(keys, fmt.Sprint("k", k))
			}
			hot := NewMap("hot", 1)
			if res := mustApply(t, hot, owner.Entries(nil, "o", 1, keys)); res.Version != v || res.Gap {
				t.Fatalf("round %d: all keys at once make %+v, want version %d without a gap", round, res, v)
			}
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
