package record

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// span is a range of versions, the first one exclusive.
type span struct{ from, to uint64 }

// maxSpans bounds what is remembered about entries that came early. What is forgotten is sent again by anti-entropy.
const maxSpans = 64

// copied is the copy of one record as the Map keeps it: the newest snapshot and what only merging needs. The lock of
// the Map guards it.
type copied struct {
	snap *Snapshot
	// order holds the items of the snapshot in order of versions.
	order []*item
	// spans are covered versions beyond the contiguous version: in order, apart from each other.
	spans []span
}

func compareVersion(it *item, v uint64) int { return cmp.Compare(it.version, v) }

// after returns the index of the first item in order that is newer than v.
func (c *copied) after(v uint64) int {
	i, found := slices.BinarySearchFunc(c.order, v, compareVersion)
	if found {
		i++
	}
	return i
}

// at returns the item of exactly this version, nil if there is none.
func (c *copied) at(v uint64) *item {
	if i, found := slices.BinarySearchFunc(c.order, v, compareVersion); found {
		return c.order[i]
	}
	return nil
}

// begun tells whether the copy has the beginning of its generation: something without a gap, or the knowledge that it is empty.
func (c *copied) begun() bool {
	return c.snap.generation > 0 && (c.snap.version > 0 || len(c.order) == 0)
}

// top is the highest version of any entry held.
func (c *copied) top() uint64 {
	if n := len(c.order); n > 0 {
		return max(c.order[n-1].version, c.snap.version)
	}
	return c.snap.version
}

// from returns the oldest version, exclusive, that an entry covers by what this copy knows: nothing live is between the two.
func (c *copied) from(it *item) uint64 {
	i, _ := slices.BinarySearchFunc(c.order, it.version, compareVersion)
	low := uint64(0)
	if i > 0 {
		low = c.order[i-1].version
	}
	if it.version > c.snap.version {
		// It came early: all that is known is the span that it lies in.
		for _, s := range c.spans {
			if s.from < it.version && it.version <= s.to {
				return max(low, s.from)
			}
		}
		return it.version - 1
	}
	// Between the floor and the contiguous version every entry is held; below there may have been tombstones.
	return max(low, min(c.snap.floor, it.version-1))
}

// cover notes that everything live in the span is held, and moves the contiguous version if it can.
func cover(version uint64, spans []span, s span) (uint64, []span) {
	if s.to <= version {
		return version, spans
	}
	if s.from > version {
		i, _ := slices.BinarySearchFunc(spans, s.from, func(o span, v uint64) int { return cmp.Compare(o.from, v) })
		spans = slices.Insert(slices.Clone(spans), i, s)
		merged := spans[:1]
		for _, o := range spans[1:] {
			if l := &merged[len(merged)-1]; o.from <= l.to {
				l.to = max(l.to, o.to)
			} else {
				merged = append(merged, o)
			}
		}
		return version, merged[:min(len(merged), maxSpans)]
	}
	version = s.to
	for len(spans) > 0 && spans[0].from <= version {
		version = max(version, spans[0].to)
		spans = spans[1:]
	}
	return version, spans
}

// change is what an update makes of a copy, before it is known whether it will be kept.
type change struct {
	edit    *editor
	version uint64
	floor   uint64
	spans   []span
	news    []*item // applied, in order of versions
	removed int     // items taken out without a tombstone
	visible []string
	at      time.Time // when
}

// merge works out what a delta of the same generation makes of the copy. The copy itself stays as it is.
func (c *copied) merge(d *delta, limits *Limits) (*change, error) {
	ch := &change{edit: c.snap.table.edit(), version: c.snap.version, floor: c.snap.floor, spans: c.spans}
	for _, e := range d.entries {
		// What is not newer than the contiguous version is either held or superseded: a late message
		// must not bring back a key whose tombstone is gone already.
		if e.version > c.snap.version {
			old := ch.edit.get(e.key)
			if old == nil || old.version < e.version {
				// An owner gives a version to one key alone. One of the two was made up, and the owner's is sent
				// until it is held: the last to come wins, and nothing can once the contiguous version is past it.
				if twin := c.at(e.version); twin != nil && ch.edit.get(twin.key) == twin {
					ch.remove(twin)
				}
				ch.put(e.item, old)
			}
		}
		if !d.whole {
			ch.version, ch.spans = cover(ch.version, ch.spans, span{e.from, e.version})
		}
	}
	if d.whole && d.to > c.snap.version {
		ch.keepOnly(d)
		ch.version, ch.spans = cover(ch.version, ch.spans, span{ch.version, d.to})
	}
	if d.tail.to > 0 {
		ch.version, ch.spans = cover(ch.version, ch.spans, d.tail)
	}
	if d.floor > ch.floor && d.floor <= ch.version {
		ch.raise(d.floor)
	}
	if ch.edit.n > limits.Keys {
		return nil, fmt.Errorf("%w: node %q has %d keys, at most %d are allowed", ErrLimit, d.node, ch.edit.n, limits.Keys)
	}
	if ch.edit.bytes > limits.RecordSize {
		return nil, fmt.Errorf("%w: node %q has %d bytes, at most %d are allowed", ErrLimit, d.node, ch.edit.bytes, limits.RecordSize)
	}
	return ch, nil
}

func (ch *change) put(it, old *item) {
	ch.edit.put(it)
	ch.news = append(ch.news, it)
	if !it.deleted || old != nil && !old.deleted {
		ch.visible = append(ch.visible, it.key)
	}
}

// keepOnly removes what a whole record does not have any more.
func (ch *change) keepOnly(d *delta) {
	held := make(map[string]bool, len(d.entries))
	for _, e := range d.entries {
		held[e.key] = true
	}
	var gone []*item
	ch.edit.ascend("", func(it *item) bool {
		if it.version <= d.to && !held[it.key] {
			gone = append(gone, it)
		}
		return true
	})
	for _, it := range gone {
		ch.remove(it)
	}
}

// raise moves the floor and drops the tombstones below it.
func (ch *change) raise(floor uint64) {
	ch.floor = floor
	var gone []*item
	ch.edit.ascend("", func(it *item) bool {
		if it.deleted && it.version <= floor {
			gone = append(gone, it)
		}
		return true
	})
	for _, it := range gone {
		ch.remove(it)
	}
}

func (ch *change) remove(it *item) {
	ch.edit.remove(it.key)
	ch.removed++
	if !it.deleted {
		ch.visible = append(ch.visible, it.key)
	}
}

// commit makes the change the newest state of the copy.
func (c *copied) commit(ch *change) {
	old := &c.snap.table
	if len(ch.news) > 16 || ch.removed > 0 {
		c.order = c.order[:0:0]
		ch.edit.ascend("", func(it *item) bool { c.order = append(c.order, it); return true })
		slices.SortFunc(c.order, func(a, b *item) int { return cmp.Compare(a.version, b.version) })
	} else {
		for _, it := range ch.news {
			if o := old.get(it.key); o != nil {
				if i, found := slices.BinarySearchFunc(c.order, o.version, compareVersion); found && c.order[i] == o {
					c.order = slices.Delete(c.order, i, i+1)
				}
			}
		}
		for _, it := range ch.news {
			if ch.edit.get(it.key) != it {
				continue // a later entry of the same change has replaced it
			}
			c.order = slices.Insert(c.order, c.after(it.version), it)
		}
	}
	next := *c.snap
	next.table, next.version, next.floor = ch.edit.table, ch.version, ch.floor
	if len(ch.news) > 0 {
		next.updated = ch.at
	}
	c.snap, c.spans = &next, ch.spans
}
