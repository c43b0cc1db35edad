package records

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Config is how a Zone answers.
type Config struct {
	// Domain is the zone's name, without a final dot; "mesos" by default.
	Domain string
	// TTL of all records, in seconds.
	TTL uint32
	// Weight of SRV records.
	Weight uint16
	// Mname and Rname are the SOA's, without final dots; ns1 and root.ns1 below the domain by default.
	Mname, Rname string
	// Refresh, Retry, Expire and Minimum are the SOA's, in seconds.
	Refresh, Retry, Expire, Minimum uint32
	// NoRecursion clears RA in answers.
	NoRecursion bool
	// NoTruncateBit leaves TC clear where not all of an answer fits, for clients that cannot deal with it.
	NoTruncateBit bool
	// SRVNoData answers SRV for a name that does not exist as Mesos-DNS does: no error, no records, no SOA.
	SRVNoData bool
	// RFC952 holds labels to 24 characters and lets none begin with a digit.
	RFC952 bool
}

// DefaultConfig has a TTL of 5 s: an edge node would rather ask its own DNS server again than a task that has gone.
func DefaultConfig() Config {
	return Config{Domain: "mesos", TTL: 5, Weight: 1, Refresh: 60, Retry: 600, Expire: 86400, Minimum: 5}
}

// Validate tells all that is wrong with the configuration.
func (c Config) Validate() error {
	var faults []error
	for _, name := range []string{c.Domain, c.Mname, c.Rname} {
		if _, err := wire(name); name != "" && err != nil {
			faults = append(faults, fmt.Errorf("%q: %w", name, err))
		}
	}
	if c.Domain == "" {
		faults = append(faults, errors.New("the domain is empty"))
	}
	return errors.Join(faults...)
}

// Stats counts what a zone holds, and what it was given and does not hold.
type Stats struct {
	// Names includes those without records, which exist because there are names below them.
	Names, Sources int
	// Unnamed is how often a task or framework was given of whose name sanitising leaves nothing, Shadowed how often one
	// whose names the domain keeps for itself, TooLong how often a name that DNS cannot hold.
	Unnamed, Shadowed, TooLong uint64
}

// Zone is the records of all sources. See the package's documentation.
type Zone struct {
	config Config
	apex   string // the domain as a key
	seed   maphash.Seed
	serial atomic.Uint32
	wire   templates

	// names and suffixes are read by queries, and written under update.
	names    index
	suffixes atomic.Pointer[[]string]
	shared   suffixes

	// The rest belongs to the updates, one at a time.
	update   sync.Mutex
	sources  map[string]source
	old, new *builder
	dirty    bool
	values   []value
	changes  []change
	packed   []byte
	octets   [2][]byte
}

// source is what one source contributes: records, or a task.
type source struct {
	records []Record
	task    packedTask
}

// NewZone returns an empty zone; the configuration must be valid.
func NewZone(c Config, serial uint32) *Zone {
	c.Domain = Lower(strings.TrimSuffix(c.Domain, "."))
	c.Mname = cmp.Or(strings.TrimSuffix(c.Mname, "."), "ns1."+c.Domain)
	c.Rname = cmp.Or(strings.TrimSuffix(c.Rname, "."), "root.ns1."+c.Domain)
	z := &Zone{config: c, seed: maphash.MakeSeed(), sources: map[string]source{}}
	z.apex, _ = wire(c.Domain)
	z.wire = newTemplates(c)
	z.startSuffixes()
	z.old, z.new = z.builder(), z.builder()
	z.serial.Store(serial)
	// The apex exists with nothing in it.
	apex := []byte(z.apex)
	z.insert(maphash.Bytes(z.seed, apex), z.block(apex, nil, 1).node())
	return z
}

func (z *Zone) builder() *builder {
	b := newBuilder(z.config.Domain, rules(z.config.RFC952))
	b.seed, b.head, b.nameserver = z.seed, z.wire.service, Lower(z.config.Mname)
	return b
}

// Config returns how the zone answers, with what was left out filled in.
func (z *Zone) Config() Config { return z.config }

// Serial returns the SOA's serial number.
func (z *Zone) Serial() uint32 { return z.serial.Load() }

// Stats returns the counts of now.
func (z *Zone) Stats() Stats {
	z.update.Lock()
	defer z.update.Unlock()
	s := z.new.stats
	s.Names, s.Sources = z.names.live, len(z.sources)
	return s
}

// Commit ends a batch of changes. If records have changed since the last one, the serial number becomes the stamp or, if
// that is not later by the arithmetic of RFC 1982, grows by one; else it stays. It returns the serial number. Zones that
// are given stamps with what they are told, such as the time at which its owner changed a task, in seconds, show the
// same number for the same content, as soon as a stamp is newer than all that they had to count by themselves.
func (z *Zone) Commit(stamp uint32) uint32 {
	z.update.Lock()
	defer z.update.Unlock()
	serial := z.serial.Load()
	if z.dirty {
		z.dirty = false
		if serial++; stamp != 0 && int32(stamp-serial) > 0 {
			serial = stamp
		}
		z.serial.Store(serial)
	}
	return serial
}

// Replace makes the records of one source those given, which the zone keeps; none at all removes it. It tells whether
// anything changed.
func (z *Zone) Replace(name string, records []Record) bool {
	z.update.Lock()
	defer z.update.Unlock()
	was := z.sources[name]
	if was.task == "" && slices.Equal(was.records, records) {
		return false
	}
	z.new.reset()
	z.new.take(records)
	z.replace(name, was, source{records: records})
	return true
}

// ReplaceTask is Replace for a task, of which the zone keeps a compact form instead of its records. Nil removes it.
func (z *Zone) ReplaceTask(name string, t *Task) bool {
	if t == nil {
		return z.Replace(name, nil)
	}
	z.update.Lock()
	defer z.update.Unlock()
	was := z.sources[name]
	z.packed = appendTask(z.packed[:0], t, name)
	if string(was.task) == string(z.packed) {
		return false
	}
	z.new.reset()
	z.new.task(t)
	z.intern(t.Framework)
	z.replace(name, was, source{task: packedTask(z.packed)})
	return true
}

// replace changes the names of one source, for which z.new has the items. What is new comes before the old goes.
func (z *Zone) replace(name string, was, now source) {
	z.old.reset()
	if was.task != "" {
		t := was.task.unpack(name)
		z.old.task(&t)
	} else {
		z.old.take(was.records)
	}
	before, after := sorted(z.old.items), sorted(z.new.items)
	z.walk(before, after, false)
	z.walk(before, after, true)
	if now.task == "" && len(now.records) == 0 {
		delete(z.sources, name)
	} else {
		z.sources[name] = now
	}
}

func (k key) compare(l key) int {
	if k.hash != l.hash {
		return cmp.Compare(k.hash, l.hash)
	}
	return bytes.Compare(k.name, l.name)
}

func compareItems(a, b item) int {
	if c := a.key.compare(b.key); c != 0 {
		return c
	}
	if a.typ != b.typ {
		return cmp.Compare(a.typ, b.typ)
	}
	return compareValues(kindOf(a.typ), a.value, b.value)
}

// sorted orders items by name and drops repetitions.
func sorted(items []item) []item {
	slices.SortFunc(items, compareItems)
	return slices.CompactFunc(items, func(a, b item) bool { return compareItems(a, b) == 0 })
}

// walk applies the difference between two lists of items, one name after the other: either names that lose something
// and gain nothing, or the others.
func (z *Zone) walk(before, after []item, losing bool) {
	for len(before)+len(after) > 0 {
		var k key
		if len(after) == 0 || len(before) > 0 && before[0].key.compare(after[0].key) < 0 {
			k = before[0].key
		} else {
			k = after[0].key
		}
		gains := false
		z.changes = z.changes[:0]
		for {
			hasOld := len(before) > 0 && before[0].key.compare(k) == 0
			hasNew := len(after) > 0 && after[0].key.compare(k) == 0
			if !hasOld && !hasNew {
				break
			}
			order := 0
			switch {
			case !hasOld:
				order = 1
			case !hasNew:
				order = -1
			default:
				order = compareItems(before[0], after[0])
			}
			if order > 0 {
				z.changes = append(z.changes, change{kindOf(after[0].typ), after[0].value, false})
				gains = true
			} else if order < 0 {
				z.changes = append(z.changes, change{kindOf(before[0].typ), before[0].value, true})
			}
			if order >= 0 {
				after = after[1:]
			}
			if order <= 0 {
				before = before[1:]
			}
		}
		if len(z.changes) > 0 && gains != losing {
			z.dirty = true
			z.apply(k, z.changes)
		}
	}
}

// apply changes the values of one name.
func (z *Zone) apply(k key, changes []change) {
	at, n := z.names.find(k.hash, k.name, &z.suffixes)
	if n.p != nil && n.flags()&isBig != 0 {
		next := n.big().changed(changes, &z.values)
		if !next.small() {
			at.store(next.node())
			return
		}
		z.become(k, at, n, z.shrunk(k.name, next).node())
		return
	}
	if n.p != nil {
		if next := n.block().spliced(changes, &z.octets); next != nil {
			at.store(next.node())
			return
		}
	}
	var children uint32
	var values [len(kinds)][]value
	scratch := z.values[:0]
	for kind := range kinds {
		from := len(scratch)
		if n.p != nil {
			if kind == 0 {
				children = n.block().children()
			}
			if b := n.block().group(kind); b != nil {
				g, _ := readGroup(kind, b)
				scratch = g.appendValues(kind, scratch)
			}
		}
		list := scratch[from:]
		for _, c := range changes {
			if c.kind == kind {
				list = c.applyTo(list)
			}
		}
		// Values that were inserted may have made another array.
		scratch = append(scratch[:from], list...)
		values[kind] = scratch[from:len(scratch):len(scratch)]
	}
	z.values = scratch
	next := z.settled(k.name, &values, children)
	if n.p == nil {
		if next.flags()&^hasChildren == 0 {
			return
		}
		z.link(k.name) // first, so that nobody takes what is above for absent (RFC 8020)
		z.insert(k.hash, next)
		return
	}
	z.become(k, at, n, next)
}

// become makes a node the next one of its name. One with neither values nor names below it is never seen: it goes at once.
func (z *Zone) become(k key, at slot, old, next node) {
	if next.flags() == 0 {
		z.prune(k, at, old)
		return
	}
	z.swap(at, old, next)
}

// insert adds a name that is not there yet.
func (z *Zone) insert(hash uint64, n node) {
	z.count(n, 1)
	z.names.insert(hash, n)
}

// swap makes a node another one of the same name.
func (z *Zone) swap(at slot, old, next node) {
	z.count(next, 1)
	at.store(next)
	z.count(old, -1)
}

// settled makes a node of values, as small as it goes.
func (z *Zone) settled(name []byte, values *[len(kinds)][]value, children uint32) node {
	size := 0
	many := false
	for kind, list := range values {
		if len(list) > 0 {
			size += groupLen(kind, list)
		}
		many = many || len(list) > maxChunkValues
	}
	if size <= maxBlock && !many {
		return z.block(name, values, children).node()
	}
	b := &big{flags: isBig, children: children, name: string(name)}
	for kind, list := range values {
		if len(list) > 0 {
			b.flags |= 1 << kind
			b.sets[kind] = branches(split(nil, kind, list))
		}
	}
	return b.node()
}

// shrunk makes a block of a name that has become small.
func (z *Zone) shrunk(name []byte, b *big) block {
	var values [len(kinds)][]value
	for kind, set := range b.sets {
		for _, br := range set {
			for _, c := range br.list() {
				values[kind] = chunkValues(values[kind], kind, c.octets(kind))
			}
		}
	}
	return z.block(name, &values, b.children)
}

// block makes a block; values may be nil.
func (z *Zone) block(name []byte, values *[len(kinds)][]value, children uint32) block {
	cut, suffix := z.cut(name)
	size := blockHeader + cut
	if children > 0 {
		size += 4
	}
	var flags byte
	if values != nil {
		for kind, list := range values {
			if len(list) > 0 {
				flags |= 1 << kind
				size += groupLen(kind, list)
			}
		}
	}
	// Blocks of less than 16 octets would share memory with others, and keep those alive.
	units := max(2, (size+7)/8)
	b := append(make(block, 0, units*8), flags, byte(cut), byte(units), byte(suffix>>8), byte(suffix))
	if children > 0 {
		b[0] |= hasChildren
		b = binary.BigEndian.AppendUint32(b, children)
	}
	b = append(b, name[:cut]...)
	if values != nil {
		for kind, list := range values {
			if len(list) > 0 {
				b = appendGroup(b, kind, list)
			}
		}
	}
	return b
}

func (b block) children() uint32 {
	if b[0]&hasChildren == 0 {
		return 0
	}
	return binary.BigEndian.Uint32(b[blockHeader:])
}

// link counts a new name at its parent, which from then on exists, and so do those above it, up to the apex, the highest
// first. Names outside of the domain are not part of a tree: what else is there, others know.
func (z *Zone) link(name []byte) {
	if !within(name, z.apex) || len(name) == len(z.apex) {
		return
	}
	name = parent(name)
	hash := maphash.Bytes(z.seed, name)
	at, n := z.names.find(hash, name, &z.suffixes)
	switch {
	case n.p == nil:
		z.link(name)
		z.insert(hash, z.block(name, nil, 1).node())
	case n.flags()&isBig != 0:
		n.big().children++
	case n.flags()&hasChildren != 0:
		b := n.block()
		binary.BigEndian.PutUint32(b[blockHeader:], b.children()+1)
	default:
		z.swap(at, n, z.copied(name, n.block(), 1).node())
	}
}

// copied makes a block with the same values and another number of children.
func (z *Zone) copied(name []byte, b block, children uint32) block {
	var values [len(kinds)][]value
	for kind := range kinds {
		if octets := b.group(kind); octets != nil {
			g, _ := readGroup(kind, octets)
			values[kind] = g.appendValues(kind, nil)
		}
	}
	return z.block(name, &values, children)
}

// prune removes a name, and then those above it that had values no more, and no other name below them.
func (z *Zone) prune(k key, at slot, n node) {
	for {
		z.names.remove(k.hash, at)
		z.count(n, -1)
		if !within(k.name, z.apex) {
			return
		}
		k.name = parent(k.name)
		k.hash = maphash.Bytes(z.seed, k.name)
		at, n = z.names.find(k.hash, k.name, &z.suffixes)
		if n.flags()&isBig != 0 {
			n.big().children--
			return
		}
		b := n.block()
		left := b.children() - 1
		binary.BigEndian.PutUint32(b[blockHeader:], left)
		if left > 0 || b[0] != hasChildren {
			return
		}
	}
}

// within compares label by label: "amesos" is not below "mesos".
func within[K string | []byte](key K, apex string) bool {
	for len(key) > len(apex) {
		key = parent(key)
	}
	return string(key) == apex
}
