package records

import (
	"cmp"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// index finds names by their hash. One writer at a time changes it; readers never wait: a name appears, changes and
// goes by one store of a pointer. It is a number of small tables, so that growth is never a long pause.
type index struct {
	tables [256]atomic.Pointer[table]
	live   int // the writer's
}

// table is a hash table with open addressing. A tag that is not zero stays until the table is made anew, also when its
// node has gone: what is behind it must still be found.
type table struct {
	tags  []atomic.Uint32
	nodes []unsafe.Pointer // read and written atomically
	// tagged and live are the writer's.
	tagged, live int
}

// slot is a place in a table.
type slot struct {
	table *table
	i     int
}

// store changes the node of a slot that has one.
func (s slot) store(n node) { atomic.StorePointer(&s.table.nodes[s.i], n.p) }

// place says in which table, and with which tag, a hash is.
func place(hash uint64) (shard uint8, tag uint32) { return uint8(hash >> 56), max(uint32(hash), 1) }

// home is where a tag is looked for first: tags are spread evenly over tables of any size.
func (t *table) home(tag uint32) int {
	hi, _ := bits.Mul32(tag, uint32(len(t.tags)))
	return int(hi)
}

// find returns the node of a name and where it is. The zero slot means that there is none.
func (x *index) find(hash uint64, name []byte, suffixes *atomic.Pointer[[]string]) (slot, node) {
	shard, tag := place(hash)
	t := x.tables[shard].Load()
	if t == nil {
		return slot{}, node{}
	}
	for i := t.home(tag); ; {
		switch t.tags[i].Load() {
		case 0:
			return slot{}, node{}
		case tag:
			n := node{atomic.LoadPointer(&t.nodes[i])}
			for n.p != nil {
				is := n.is(name, suffixes)
				// A suffix may have become another one since the node has gone: what was compared counts only while the node is there.
				now := node{atomic.LoadPointer(&t.nodes[i])}
				if now == n && is {
					return slot{t, i}, n
				}
				if now == n {
					break
				}
				n = now
			}
		}
		if i++; i == len(t.tags) {
			i = 0
		}
	}
}

// is tells whether the node is that of the name.
func (n node) is(name []byte, suffixes *atomic.Pointer[[]string]) bool {
	if n.flags()&isBig != 0 {
		return n.big().name == string(name)
	}
	b := n.block()
	prefix := b.prefix()
	if len(prefix) > len(name) || string(name[:len(prefix)]) != string(prefix) {
		return false
	}
	return (*suffixes.Load())[b.suffix()] == string(name[len(prefix):])
}

// insert adds a node that is not there yet.
func (x *index) insert(hash uint64, n node) {
	shard, tag := place(hash)
	t := cmp.Or(x.tables[shard].Load(), emptyTable)
	// A quarter of the tags is free, so that searches are short and end.
	if (t.tagged+1)*4 > len(t.tags)*3 {
		t = t.grown()
		x.tables[shard].Store(t)
	}
	t.put(tag, n)
	x.live++
}

// emptyTable stands for none.
var emptyTable = &table{}

func (t *table) grown() *table {
	size := 4 + t.live*3/2
	g := &table{tags: make([]atomic.Uint32, size), nodes: make([]unsafe.Pointer, size)}
	for i, n := range t.nodes {
		if n != nil {
			g.put(t.tags[i].Load(), node{n})
		}
	}
	return g
}

func (t *table) put(tag uint32, n node) {
	i := t.home(tag)
	for t.nodes[i] != nil {
		if i++; i == len(t.tags) {
			i = 0
		}
	}
	// A reader that sees the tag too early finds no node with it, and one that sees an old tag finds another name.
	if t.tags[i].Load() == 0 {
		t.tagged++
	}
	t.tags[i].Store(tag)
	atomic.StorePointer(&t.nodes[i], n.p)
	t.live++
}

// remove takes the node of a slot away. An empty table is given up.
func (x *index) remove(hash uint64, s slot) {
	s.store(node{})
	s.table.live--
	x.live--
	shard, _ := place(hash)
	switch live := s.table.live; {
	case live == 0:
		x.tables[shard].Store(nil)
	case 4*live+16 < len(s.table.tags):
		x.tables[shard].Store(s.table.grown())
	}
}

// nodes returns all nodes. Only the writer may ask.
func (x *index) nodes() []node {
	all := make([]node, 0, x.live)
	for i := range x.tables {
		for _, p := range cmp.Or(x.tables[i].Load(), emptyTable).nodes {
			if p != nil {
				all = append(all, node{p})
			}
		}
	}
	return all
}
