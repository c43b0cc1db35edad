package record

import (
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"
)

// Map holds one record for each node: its own, which it writes, and copies of the others. It has no goroutines; all methods may be
// called from any.
type Map struct {
	self   string
	limits Limits
	maxAge time.Duration // of tombstones of the own record

	mu      sync.Mutex // guards everything below; nothing is called out while it is held
	records map[string]*copied
	names   []string // of records, sorted; replaced, never modified, so that iteration needs no lock
	// next holds records of a higher generation of which the beginning has not arrived yet.
	next    map[string]*copied
	tombs   []tomb // of the own record, in order of versions
	reaped  map[string]reaped
	summary Summary
	total   int // what the tables of records and next cost
	history history
	began   time.Time // see clock
}

var _ Reader = (*Map)(nil)

// tomb remembers when an own key was deleted.
type tomb struct {
	version uint64
	at      time.Time
}

// reaped remembers which generation of a node was reaped, lest a copy that somebody else still holds brings it back.
type reaped struct {
	generation uint64
	until      time.Time
}

// Option changes what NewMap makes.
type Option func(*Map)

// WithLimits replaces the default limits. Zero fields keep their default.
func WithLimits(l Limits) Option {
	return func(m *Map) {
		for _, f := range []struct{ to, from *int }{
			{&m.limits.Keys, &l.Keys},
			{&m.limits.KeySize, &l.KeySize},
			{&m.limits.ValueSize, &l.ValueSize},
			{&m.limits.RecordSize, &l.RecordSize},
			{&m.limits.Nodes, &l.Nodes},
			{&m.limits.Total, &l.Total},
			{&m.limits.Tombstones, &l.Tombstones},
			{&m.limits.Changes, &l.Changes},
		} {
			if *f.from > 0 {
				*f.to = *f.from
			}
		}
	}
}

// WithTombstoneAge sets after which time a deleted key of the own record is forgotten. Default 10 minutes. A copy that
// was cut off for longer gets the whole record.
func WithTombstoneAge(d time.Duration) Option { return func(m *Map) { m.maxAge = d } }

// NewMap returns a map that holds only the empty record of its own node. The generation has to be higher than that of
// every earlier start of this node, and is at least 1. Where the counter may have been lost with its disk, no two starts
// may share a generation all the same: draw its low bits at random, and use Raise when somebody turns out to hold more.
func NewMap(self string, generation uint64, opts ...Option) *Map {
	m := &Map{
		self: self, limits: DefaultLimits(), maxAge: 10 * time.Minute,
		records: map[string]*copied{}, next: map[string]*copied{}, reaped: map[string]reaped{},
	}
	for _, o := range opts {
		o(m)
	}
	m.history.max = m.limits.Changes
	m.insert(self, &copied{snap: &Snapshot{node: self, generation: max(generation, 1), liveness: Alive}})
	return m
}

// Self returns the name of the own node.
func (m *Map) Self() string { return m.self }

// Snapshot returns the newest copy of a node's record, or nil where none is held.
func (m *Map) Snapshot(node string) *Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.records[node]; r != nil {
		return r.snap
	}
	return nil
}

// Snapshots iterates over the newest copies of all records held, in order of node names.
func (m *Map) Snapshots() iter.Seq[*Snapshot] {
	return func(yield func(*Snapshot) bool) {
		m.mu.Lock()
		names := m.names
		m.mu.Unlock()
		for _, name := range names {
			if s := m.Snapshot(name); s != nil && !yield(s) {
				return
			}
		}
	}
}

// Feed returns a new feed of changes that begins now.
func (m *Map) Feed() *Feed {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Feed{m: m, next: m.history.next}
}

// check returns why a change would be refused whatever else the record holds.
func (m *Map) check(a Assignment) error {
	switch {
	case a.Key == "":
		return fmt.Errorf("%w: an empty key", ErrFormat)
	case len(a.Key) > m.limits.KeySize:
		return fmt.Errorf("%w: key %.40q... has %d bytes, at most %d are allowed", ErrLimit, a.Key, len(a.Key), m.limits.KeySize)
	case len(a.Value) > m.limits.ValueSize:
		return fmt.Errorf("%w: value of key %q has %d bytes, at most %d are allowed", ErrLimit, a.Key, len(a.Value), m.limits.ValueSize)
	}
	return nil
}

// Set changes the own record and returns its new version. What is so already takes no version. Values are copied. A
// change beyond the limits is left out; use TrySet to learn of it.
func (m *Map) Set(now time.Time, changes ...Assignment) uint64 {
	v, _, _ := m.TrySet(now, changes...)
	return v
}

// TrySet does what Set does, and tells which keys were really changed and why the first of the others that were refused was.
func (m *Map) TrySet(now time.Time, changes ...Assignment) (version uint64, changed []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[m.self]
	ch := &change{edit: r.snap.table.edit(), version: r.snap.version, floor: r.snap.floor}
	for _, a := range changes {
		old := ch.edit.get(a.Key)
		absent := old == nil || old.deleted
		e := m.check(a)
		grown := len(a.Key) + len(a.Value)
		if old != nil {
			grown -= old.size()
		}
		if e == nil && a.Value != nil && (ch.edit.n >= m.limits.Keys && old == nil || ch.edit.bytes+grown > m.limits.RecordSize) {
			e = fmt.Errorf("%w: no room for key %q beside %d keys of %d bytes", ErrLimit, a.Key, ch.edit.n, ch.edit.bytes)
		}
		switch {
		case e != nil:
			if err == nil {
				err = e
			}
			continue
		case a.Value == nil && absent:
			continue
		case a.Value != nil && !absent && string(old.value) == string(a.Value):
			continue
		}
		ch.version++
		it := &item{key: a.Key, version: ch.version, born: m.clock(now), deleted: a.Value == nil}
		if it.deleted {
			m.tombs = append(m.tombs, tomb{it.version, now})
		} else {
			it.value = append(make([]byte, 0, len(a.Value)), a.Value...)
		}
		ch.put(it, old)
	}
	if len(ch.news) == 0 {
		return r.snap.version, nil, err
	}
	ch.at = now
	m.prune(now, ch)
	m.apply(r, ch)
	for _, it := range ch.news {
		changed = append(changed, it.key)
	}
	return r.snap.version, changed, err
}

// Prune forgets deleted keys of the own record that are old enough, and which nodes were reaped long ago. It is to be called now
// and then.
func (m *Map) Prune(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, r := range m.reaped {
		if now.After(r.until) {
			delete(m.reaped, name)
		}
	}
	r := m.records[m.self]
	ch := &change{edit: r.snap.table.edit(), version: r.snap.version, floor: r.snap.floor}
	if m.prune(now, ch) {
		m.apply(r, ch)
	}
}

// prune raises the floor of the own record over tombstones that are too old or too many. It takes a good part of them at a
// time, so that the floor moves rarely.
func (m *Map) prune(now time.Time, ch *change) bool {
	n := 0
	if excess := len(m.tombs) - max(m.limits.Tombstones, ch.edit.live/2); excess > 0 {
		n = min(len(m.tombs), excess+m.limits.Tombstones/4)
	}
	if len(m.tombs) > 0 && now.Sub(m.tombs[0].at) > m.maxAge {
		for n < len(m.tombs) && now.Sub(m.tombs[n].at) > m.maxAge/2 {
			n++
		}
	}
	if n == 0 {
		return false
	}
	ch.raise(m.tombs[n-1].version)
	m.tombs = slices.Delete(m.tombs, 0, n)
	return true
}

// Raise lifts the generation of the own record above the given one, and returns what it is then. As peers may hold different
// old generations, add something random to the highest one known, lest two lives of this node meet in one. Versions and contents stay: to the
// others it is a new record that begins with all of this.
func (m *Map) Raise(above uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[m.self]
	if r.snap.generation <= above {
		next := *r.snap
		next.generation = above + 1
		m.replace(r, &next)
		m.history.add(m.self, "")
	}
	return r.snap.generation
}

// SetLiveness notes what the own node thinks of another one. Of a node without a record only Alive and Suspect are kept.
func (m *Map) SetLiveness(now time.Time, node string, l Liveness) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l == Alive {
		delete(m.reaped, node)
	}
	r := m.records[node]
	if r == nil {
		if node == "" || len(node) > maxName || l != Alive && l != Suspect || len(m.records) >= m.limits.Nodes {
			return
		}
		r = &copied{snap: &Snapshot{node: node}}
		m.insert(node, r)
	} else if r.snap.liveness == l {
		return
	}
	next := *r.snap
	next.liveness, next.since = l, now
	m.replace(r, &next)
	m.history.add(node, "")
}

// Reap removes the records of nodes that have been neither alive nor suspect for longer than after, and returns their names. For
// twice that time the same generation of a reaped node is not accepted again from others.
func (m *Map) Reap(now time.Time, after time.Duration) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var gone []string
	for name, r := range m.records {
		if name == m.self || r.snap.liveness == Alive || r.snap.liveness == Suspect || now.Sub(r.snap.since) <= after {
			continue
		}
		gone = append(gone, name)
		m.summary[Bucket(name)] ^= m.digest(name).hash()
		generation := r.snap.generation
		m.total -= r.snap.table.cost()
		if n := m.next[name]; n != nil {
			generation = n.snap.generation
			m.total -= n.snap.table.cost()
			delete(m.next, name)
		}
		delete(m.records, name)
		if len(m.reaped) < m.limits.Nodes {
			m.reaped[name] = reaped{generation, now.Add(2 * after)}
		}
		m.history.add(name, "")
	}
	if gone != nil {
		slices.Sort(gone)
		m.names = slices.DeleteFunc(slices.Clone(m.names), func(n string) bool { return m.records[n] == nil })
	}
	return gone
}

// insert adds the copy of a node that there is none of yet.
func (m *Map) insert(node string, r *copied) {
	m.records[node] = r
	i, _ := slices.BinarySearch(m.names, node)
	m.names = slices.Insert(slices.Clip(slices.Clone(m.names)), i, node)
	m.summary[Bucket(node)] ^= m.digest(node).hash()
}

// replace changes the snapshot of a copy without a change of its items.
func (m *Map) replace(r *copied, next *Snapshot) {
	b := Bucket(next.node)
	m.summary[b] ^= m.digest(next.node).hash()
	r.snap = next
	m.summary[b] ^= m.digest(next.node).hash()
}

// maxEvents is the number of keys that may change at once before readers are told to read the whole record.
const maxEvents = 64

// apply commits a change and tells the feeds.
func (m *Map) apply(r *copied, ch *change) {
	node := r.snap.node
	b := Bucket(node)
	m.summary[b] ^= m.digest(node).hash()
	m.total += ch.edit.cost() - r.snap.table.cost()
	r.commit(ch)
	m.summary[b] ^= m.digest(node).hash()
	if m.records[node] == r {
		m.announce(node, ch.visible)
	}
}

func (m *Map) announce(node string, keys []string) {
	if len(keys) > maxEvents {
		keys = []string{""}
	}
	for _, k := range keys {
		m.history.add(node, k)
	}
}
