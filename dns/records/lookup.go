package records

import (
	"hash/maphash"
	"iter"
	"maps"
	"slices"
)

// nearLabel and the like are labels directly above the domain, as keys.
const (
	nearLabel  = "\x04near"
	agentLabel = "\x05agent"
	slaveLabel = "\x05slave"
)

// find returns a name, which may be below agent: those are the names below slave. That changes key.
func (z *Zone) find(key []byte) node {
	if at := len(key) - len(z.apex) - len(agentLabel); at >= 0 && string(key[at:at+len(agentLabel)]) == agentLabel {
		copy(key[at:], slaveLabel)
	}
	_, n := z.names.find(maphash.Bytes(z.seed, key), key, &z.suffixes)
	return n
}

// groups are the values of one type that a name has: that of a block, or the chunks of a big name.
type groups struct {
	kind int
	one  []byte
	many []*branch
}

func (n node) groups(kind int) groups {
	if n.flags()&isBig != 0 {
		return groups{kind: kind, many: n.big().sets[kind]}
	}
	return groups{kind: kind, one: n.block().group(kind)}
}

func (g *groups) empty() bool { return g.one == nil && len(g.many) == 0 }

// single tells whether there is one chunk.
func (g *groups) single() bool { return g.one != nil }

// from says with which chunk, and which value of that, an answer starts.
func (g *groups) from(start uint32) (p path, value uint32) {
	if g.one != nil {
		return path{}, start
	}
	n := uint32(len(g.many))
	p.branch, start = int(start%n), start/n
	n = uint32(g.many[p.branch].n)
	p.chunk = int(start % n)
	return p, start / n
}

// at returns the octets of a chunk.
func (g *groups) at(p path) []byte {
	if g.one != nil {
		return g.one
	}
	return g.many[p.branch].chunks[p.chunk].octets(g.kind)
}

// next is the path of the chunk behind another one; behind the last one is the first.
func (g *groups) next(p path) path {
	if g.one != nil {
		return p
	}
	if p.chunk++; p.chunk < g.many[p.branch].n {
		return p
	}
	if p.branch++; p.branch < len(g.many) {
		return path{p.branch, 0}
	}
	return path{}
}

// Lookup returns the records of a dotted name in a stable order, and whether the name exists; it may exist without any.
// It sees a name as it was before an update or after it, and waits for none.
func (z *Zone) Lookup(owner string) (records []Record, exists bool) {
	key, ok := appendWire(make([]byte, 0, maxName), owner)
	if !ok {
		return nil, false
	}
	owner = dotted(key)
	n := z.find(key)
	if n.p == nil {
		return nil, false
	}
	return n.records(nil, key, owner), true
}

// records appends the records of a name.
func (n node) records(to []Record, key []byte, owner string) []Record {
	var values []value
	for kind, t := range kinds {
		g := n.groups(kind)
		if g.empty() {
			continue
		}
		for p, more := (path{}), true; more; more = p != (path{}) {
			values = chunkValues(values[:0], kind, g.at(p))
			p = g.next(p)
			for _, v := range values {
				// Sources may give one service with different glue; the service is one all the same.
				if r := recordOf(t, v.data, key, owner); len(to) == 0 || to[len(to)-1] != r {
					to = append(to, r)
				}
			}
		}
	}
	return to
}

// name returns the key of a node, which has one of the suffixes.
func (n node) name(suffixes []string) []byte {
	if n.flags()&isBig != 0 {
		return []byte(n.big().name)
	}
	b := n.block()
	return append(append(make([]byte, 0, maxName), b.prefix()...), suffixes[b.suffix()]...)
}

// All yields each record once, those of a name together, without SOA and NS. See Transfer.
func (z *Zone) All() iter.Seq[Record] {
	_, all := z.Transfer()
	return all
}

// Transfer returns the serial number and all records as they are at that number, as All does. They include the names
// below agent, and PTR records outside of the domain.
func (z *Zone) Transfer() (serial uint32, all iter.Seq[Record]) {
	z.update.Lock()
	nodes := z.names.nodes()
	suffixes := *z.suffixes.Load() // those of later need not be those of these nodes
	serial = z.serial.Load()
	z.update.Unlock()
	slave := slaveLabel + z.apex
	return serial, func(yield func(Record) bool) {
		var list []Record
		for _, n := range nodes {
			key := n.name(suffixes)
			list = n.records(list[:0], key, dotted(key))
			if within(key, slave) {
				twin := slices.Clone(key)
				copy(twin[len(twin)-len(slave):], agentLabel)
				list = n.records(list, key, dotted(twin))
			}
			for _, r := range list {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// Tasks yields the tasks among the sources, sorted by source. Of the ids of agents they have the last part only.
func (z *Zone) Tasks() iter.Seq2[string, Task] {
	sources := z.clone()
	return func(yield func(string, Task) bool) {
		for _, name := range slices.Sorted(maps.Keys(sources)) {
			if s := sources[name]; s.task != "" && !yield(name, s.task.unpack(name)) {
				return
			}
		}
	}
}

func (z *Zone) clone() map[string]source {
	z.update.Lock()
	defer z.update.Unlock()
	return maps.Clone(z.sources)
}

// TaskRecords lists the records that a task has in this zone, in the order of generation.
func (z *Zone) TaskRecords(t *Task) []Record {
	b := z.builder()
	b.task(t)
	return b.records()
}

// FrameworkRecords lists the records that a framework has in this zone. One whose name the domain keeps for itself has none.
func (z *Zone) FrameworkRecords(f Framework) []Record {
	z.update.Lock()
	defer z.update.Unlock()
	z.new.reset()
	z.new.framework(f)
	return z.new.records()
}

// InDomain tells whether a dotted name is the zone's own or below it.
func (z *Zone) InDomain(owner string) bool {
	key, err := wire(owner)
	return err == nil && within(key, z.apex)
}

// SOAData is what the zone's SOA record says.
type SOAData struct {
	// Mname and Rname are dotted, with a final dot.
	Mname, Rname                            string
	Serial, Refresh, Retry, Expire, Minimum uint32
	// NegativeTTL is the TTL of the record where it says that there is nothing (RFC 2308, 3).
	NegativeTTL uint32
}

// SOA returns what the zone's SOA record says now.
func (z *Zone) SOA() SOAData {
	c := z.config
	return SOAData{
		Mname: c.Mname + ".", Rname: c.Rname + ".", Serial: z.Serial(),
		Refresh: c.Refresh, Retry: c.Retry, Expire: c.Expire, Minimum: c.Minimum, NegativeTTL: min(c.TTL, c.Minimum),
	}
}
