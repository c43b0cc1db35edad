package record

import (
	"fmt"
	"slices"
	"time"
)

// Result tells what Apply made of a message.
type Result struct {
	Node       string
	Generation uint64
	// Version is the contiguous version after it.
	Version uint64
	// Keys are those whose entries were news: worth passing on. They are of the generation above.
	Keys []string
	// Gap is set where entries are missing before some that are held: ask somebody.
	Gap bool
	// Ahead is set where the message was about the own node and claims more than the own node has written: the
	// generation has to be raised (Raise) above the one given here.
	Ahead bool
	// Aged is set where the newest entry of the message was news about a node of which something was held before, and whoever sent it knew how
	// old the change is. Age is that, by the time it has spent at each node on its way; its time on the network is not in it.
	Aged bool
	Age  time.Duration
}

// Apply merges a delta or a whole record. What it knows already changes nothing. The error wraps ErrFormat, ErrVersion or ErrLimit, and
// then nothing was changed. The bytes are not kept.
func (m *Map) Apply(now time.Time, wire []byte) (Result, error) {
	d, err := parseDelta(wire, &m.limits)
	if err != nil {
		return Result{}, fmt.Errorf("cannot apply a delta of %d bytes: %w", len(wire), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	res := Result{Node: d.node, Generation: d.generation}
	if d.node == m.self {
		own := m.records[m.self].snap
		res.Version = own.version
		res.Ahead = ahead(own, d.generation, d.last())
		return res, nil
	}
	r, fresh, err := m.target(now, d)
	if r == nil || err != nil {
		return res, err
	}
	if d.age > 0 {
		born := m.clock(now) - d.age.duration()
		for _, e := range d.entries {
			e.born = born
		}
	}
	ch, err := r.merge(d, &m.limits)
	if err != nil {
		return res, fmt.Errorf("cannot apply a delta: %w", err)
	}
	if err := m.room(r, ch); err != nil {
		return res, err
	}
	if cur := m.records[d.node]; d.age > 0 && cur != nil && cur.snap.generation > 0 && len(ch.news) > 0 && ch.news[len(ch.news)-1].version == last(d.entries) {
		res.Aged, res.Age = true, d.age.duration()
	}
	ch.at = now
	if fresh {
		m.adopt(now, d.node, r)
	}
	if len(ch.news) > 0 || ch.removed > 0 || ch.version != r.snap.version || ch.floor != r.snap.floor || !slices.Equal(ch.spans, r.spans) {
		m.apply(r, ch)
	}
	for _, it := range ch.news {
		res.Keys = append(res.Keys, it.key)
	}
	// The whole of a record that was still empty is no beginning where something of later has come early.
	if n := m.next[d.node]; n == r && r.begun() && (r.snap.version > 0 || d.whole) {
		m.promote(d.node)
	}
	res.Version = r.snap.version
	res.Gap = r.top() > r.snap.version
	return res, nil
}

func (d *delta) last() uint64 {
	return max(d.to, d.tail.to, last(d.entries))
}

// ahead tells whether somebody holds more of the own record than the own node ever wrote.
func ahead(own *Snapshot, generation, version uint64) bool {
	return generation > own.generation || generation == own.generation && version > own.version
}

// target returns the copy that a delta belongs to, nil if it is of an old generation. A fresh one is not held yet.
func (m *Map) target(now time.Time, d *delta) (r *copied, fresh bool, err error) {
	if r = m.next[d.node]; r != nil && r.snap.generation == d.generation {
		return r, false, nil
	}
	cur := m.records[d.node]
	switch {
	case cur == nil && len(m.records) > m.limits.Nodes/2:
		return nil, false, fmt.Errorf("%w: node %q is one more than the %d of which nothing but a record is known", ErrLimit, d.node, m.limits.Nodes/2)
	case cur == nil && m.reaped[d.node].generation >= d.generation && now.Before(m.reaped[d.node].until):
		return nil, false, nil
	case cur != nil && cur.snap.generation == d.generation:
		return cur, false, nil
	case cur != nil && cur.snap.generation > d.generation, r != nil && r.snap.generation > d.generation:
		return nil, false, nil
	}
	return &copied{snap: &Snapshot{node: d.node, generation: d.generation, since: now}}, true, nil
}

// room tells whether a copy may grow as a change wants it to.
func (m *Map) room(r *copied, ch *change) error {
	limit := m.limits.Total
	if cur := m.records[r.snap.node]; cur == nil || cur.snap.liveness == Unknown {
		limit /= 2
	}
	if grown := ch.edit.cost() - r.snap.table.cost(); grown > 0 && m.total+grown > limit {
		return fmt.Errorf("%w: no room for %d bytes more of node %q beside %d", ErrLimit, grown, r.snap.node, m.total)
	}
	return nil
}

// adopt takes in a fresh copy. If there is an older generation, that one stays in view until the beginning of this one is there.
func (m *Map) adopt(now time.Time, node string, r *copied) {
	cur := m.records[node]
	if cur == nil {
		m.insert(node, r)
		m.history.add(node, "")
		return
	}
	b := Bucket(node)
	m.summary[b] ^= m.digest(node).hash()
	if older := m.next[node]; older != nil {
		m.total -= older.snap.table.cost()
	}
	m.next[node] = r
	m.summary[b] ^= m.digest(node).hash()
	if cur.snap.generation == 0 {
		m.promote(node) // nothing was known but the name
	}
}

// promote puts the next generation of a record into the place of the old one. The digest told it already.
func (m *Map) promote(node string) {
	r := m.next[node]
	snap := *r.snap
	old := m.records[node].snap
	m.total -= old.table.cost()
	snap.liveness, snap.since = old.liveness, old.since
	r.snap = &snap
	m.records[node] = r
	delete(m.next, node)
	m.history.add(node, "")
}

// Delta returns the wire form of what changed in a node's record since a version of its present generation: a delta, or
// the whole record where that version is below the floor. It is nil where nothing is held that is newer; a record that is still empty
// is sent all the same, as it replaces one of an older generation. The caller owns it.
func (m *Map) Delta(node string, since uint64) []byte { return m.AgedDelta(time.Time{}, node, since) }

// AgedDelta is Delta with the age of the newest change in it, for whoever measures how fast changes travel.
func (m *Map) AgedDelta(now time.Time, node string, since uint64) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[node]
	if r == nil || !r.begun() || r.snap.version <= since && r.snap.version > 0 {
		return nil
	}
	d := &delta{node: node, generation: r.snap.generation, floor: r.snap.floor}
	begin, end := r.after(since), r.after(r.snap.version)
	if since < r.snap.floor || r.snap.version == 0 {
		begin, d.whole, d.to = 0, true, r.snap.version
	}
	size := headerSize(node)
	d.entries = make([]entry, 0, end-begin)
	for _, it := range r.order[begin:end] {
		d.entries = append(d.entries, entry{it, max(since, last(d.entries))})
		size += entrySize(it)
	}
	if d.whole {
		for i := range d.entries {
			d.entries[i].from = r.from(d.entries[i].item)
		}
	} else if tail := max(since, last(d.entries)); tail < r.snap.version {
		d.tail = span{tail, r.snap.version}
	}
	d.age = m.age(now, d)
	return d.appendWire(make([]byte, 0, size))
}

// age returns how old the newest entry of a message is; 0 without a time, or where that is not known.
func (m *Map) age(now time.Time, d *delta) age {
	if n := len(d.entries); n > 0 && !now.IsZero() && d.entries[n-1].born != 0 {
		return newAge(m.clock(now) - d.entries[n-1].born)
	}
	return 0
}

// clock counts from the first time that this Map was told, so that a clock that is set in between matters as little as now lets it.
func (m *Map) clock(now time.Time) time.Duration {
	if m.began.IsZero() {
		m.began = now
	}
	return now.Sub(m.began) + 1
}

func last(es []entry) uint64 {
	if len(es) == 0 {
		return 0
	}
	return es[len(es)-1].version
}

// Entries appends the wire form of the newest entries of some keys of one generation of a node: a hot delta. Keys that
// are not held are left out, as is all of it where the generation is another one by now.
func (m *Map) Entries(dst []byte, node string, generation uint64, keys []string) []byte {
	return m.AgedEntries(time.Time{}, dst, node, generation, keys)
}

// AgedEntries is Entries with the age of the newest of them, for whoever measures how fast changes travel.
func (m *Map) AgedEntries(now time.Time, dst []byte, node string, generation uint64, keys []string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.generation(node, generation)
	if r == nil {
		return dst
	}
	d := &delta{node: node, generation: generation, floor: r.snap.floor, entries: make([]entry, 0, len(keys))}
	for _, k := range keys {
		if it := r.snap.table.get(k); it != nil {
			d.entries = append(d.entries, entry{it, r.from(it)})
		}
	}
	if len(d.entries) == 0 {
		return dst
	}
	d.sort()
	d.age = m.age(now, d)
	return d.appendWire(dst)
}

// EntrySize returns an upper bound of the bytes that Entries takes for a key, beside HeaderSize for each call; 0 where it is not held.
func (m *Map) EntrySize(node string, generation uint64, key string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.generation(node, generation); r != nil {
		if it := r.snap.table.get(key); it != nil {
			return entrySize(it)
		}
	}
	return 0
}

// HeaderSize returns an upper bound of the bytes that each call of Entries takes beside its entries.
func HeaderSize(node string) int { return headerSize(node) }

func (m *Map) generation(node string, generation uint64) *copied {
	for _, r := range [...]*copied{m.records[node], m.next[node]} {
		if r != nil && r.snap.generation == generation {
			return r
		}
	}
	return nil
}

// digest is what others are told about a node: the highest generation heard of. The lock is held.
func (m *Map) digest(node string) Digest {
	r := m.next[node]
	if r == nil {
		r = m.records[node]
	}
	return Digest{Node: node, Generation: r.snap.generation, Version: r.snap.version, Floor: r.snap.floor}
}

// Summary returns the summary of all digests.
func (m *Map) Summary() Summary {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.summary
}

// Digests returns the digests of the nodes for which keep says yes (nil: all), in order of names.
func (m *Map) Digests(keep func(node string) bool) []Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	ds := make([]Digest, 0, len(m.names))
	for _, n := range m.names {
		if keep != nil && !keep(n) {
			continue
		}
		if d := m.digest(n); d.Generation > 0 {
			ds = append(ds, d)
		}
	}
	return ds
}

// Verdict is how the own copy stands to somebody else's.
type Verdict struct {
	// Newer is set where the own copy has what the other lacks: send Delta(node, Since).
	Newer bool
	Since uint64
	// Older is set where the other has what the own copy lacks; Mine is what to ask with.
	Older bool
	Mine  Digest
	// Ahead is set where the other claims more of the own record than the own node has written: see Result.Ahead.
	Ahead bool
}

// Compare sets the own copy of a node against somebody else's digest of it. A floor that is higher is adopted where the copy
// reaches it.
func (m *Map) Compare(now time.Time, d Digest) Verdict {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[d.Node]
	if r == nil {
		old := m.reaped[d.Node]
		return Verdict{
			Older: d.Generation > 0 && !(old.generation >= d.Generation && now.Before(old.until)) && len(m.records) <= m.limits.Nodes/2,
			Mine:  Digest{Node: d.Node},
		}
	}
	var v Verdict
	v.Mine = m.digest(d.Node)
	switch have := r.snap; {
	case have.generation > d.Generation:
		v.Newer = r.begun()
	case have.generation == d.Generation && have.version > d.Version:
		v.Newer, v.Since = true, d.Version
	}
	if d.Node == m.self {
		v.Ahead = ahead(r.snap, d.Generation, d.Version)
		return v
	}
	v.Older = d.Generation > v.Mine.Generation || d.Generation == v.Mine.Generation && d.Version > v.Mine.Version
	if have := r.snap; have.generation == d.Generation && d.Floor > have.floor && d.Floor <= have.version {
		ch := &change{edit: have.table.edit(), version: have.version, floor: have.floor, spans: r.spans}
		ch.raise(d.Floor)
		m.apply(r, ch)
	}
	return v
}
