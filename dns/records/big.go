package records

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"
	"unsafe"
)

// big is a name with many values. They are in chunks, each a group, and those in branches, so that a change of one copies
// a chunk, a branch and the list of branches, all of them short. It does not change once a query can see it, except for
// children.
type big struct {
	flags byte
	// children is how many names there are directly below.
	children uint32
	name     string
	sets     [len(kinds)][]*branch
}

// branch is some of a name's chunks, in order; it is never empty.
type branch struct {
	n      int
	chunks [maxBranch]chunk
}

// chunk points to the first octet of a group, which knows its own length.
type chunk struct{ p *byte }

// Bounds of blocks, branches and chunks. A name that falls back to less than half of a block becomes one again; a chunk
// of little takes in the next one.
const (
	maxBlock       = 1000
	maxBranch      = 15
	maxChunk       = 512
	maxChunkValues = 64
	minChunkValues = 16
	minChunk       = maxChunk / 4
)

func newChunk(octets []byte) chunk { return chunk{unsafe.SliceData(octets)} }

// octets returns the group, whose kind must be right.
func (c chunk) octets(kind int) []byte {
	n := int(*c.p &^ counted)
	size := 1
	switch kind {
	case kindSRV:
		head := unsafe.Slice(c.p, servicesHeader)
		length, stride := int(binary.BigEndian.Uint16(head[1:])), narrowEntry
		if length&wide != 0 {
			length, stride = length&^wide, wideEntry
		}
		size = servicesHeader + length + n*stride
	case kindPTR:
		size = 3 + int(binary.BigEndian.Uint16(unsafe.Slice(c.p, 3)[1:]))
	default:
		size += n * addressLen(kind)
	}
	if *c.p&counted != 0 {
		size += 4 * n
	}
	return unsafe.Slice(c.p, size)
}

func (b *branch) list() []chunk { return b.chunks[:b.n] }

// change is one value that a source gives to a name or takes from it.
type change struct {
	kind  int
	value value
	gone  bool
}

// applyTo makes the change to values, which are in order.
func (c change) applyTo(values []value) []value {
	i := sort.Search(len(values), func(i int) bool { return compareValues(c.kind, values[i], c.value) >= 0 })
	found := i < len(values) && compareValues(c.kind, values[i], c.value) == 0
	switch {
	case found && !c.gone:
		values[i].count++
	case found && values[i].count > 1:
		values[i].count--
	case found:
		values = slices.Delete(values, i, i+1)
	case !c.gone:
		values = slices.Insert(values, i, c.value)
	}
	return values
}

// changed returns the name after the changes. The scratch is for values.
func (b *big) changed(changes []change, scratch *[]value) *big {
	next := *b
	cloned := [len(kinds)]bool{}
	for i := 0; i < len(changes); i++ {
		c := changes[i]
		set := &next.sets[c.kind]
		if !cloned[c.kind] {
			*set, cloned[c.kind] = slices.Clone(*set), true
		}
		rest := changes[i:min(i+2, len(changes))]
		at := pathTo(*set, c)
		if next := at.glued(*set, rest); next != nil {
			at.put(*set, next)
			i++
			continue
		}
		*set = at.change(*set, c, scratch)
	}
	next.flags = isBig
	for k, set := range next.sets {
		if len(set) > 0 {
			next.flags |= 1 << k
		}
	}
	return &next
}

// path says where a chunk is.
type path struct{ branch, chunk int }

// pathTo finds the chunk that a value belongs to: the last one that does not begin behind it.
func pathTo(set []*branch, c change) (at path) {
	behind := func(g chunk) bool { return g.begins(&c) > 0 }
	at.branch = max(0, sort.Search(len(set), func(i int) bool { return behind(set[i].chunks[0]) })-1)
	if len(set) > 0 {
		list := set[at.branch].list()
		at.chunk = max(0, sort.Search(len(list), func(i int) bool { return behind(list[i]) })-1)
	}
	return at
}

// before is the chunk in front of the one at a path, if there is one.
func (at path) before(set []*branch) (chunk, bool) {
	switch {
	case at.chunk > 0:
		return set[at.branch].chunks[at.chunk-1], true
	case at.branch > 0:
		b := set[at.branch-1]
		return b.chunks[b.n-1], true
	}
	return chunk{}, false
}

// after is the chunk behind the one at a path, if there is one.
func (at path) after(set []*branch) (chunk, bool) {
	switch {
	case at.chunk+1 < set[at.branch].n:
		return set[at.branch].chunks[at.chunk+1], true
	case at.branch+1 < len(set):
		return set[at.branch+1].chunks[0], true
	}
	return chunk{}, false
}

// begins compares the first value of a chunk with that of a change.
func (c chunk) begins(with *change) int {
	switch with.kind {
	case kindA:
		return bytes.Compare(unsafe.Slice(c.p, 5)[1:], with.value.data)
	case kindAAAA:
		return bytes.Compare(unsafe.Slice(c.p, 17)[1:], with.value.data)
	}
	return compareValues(with.kind, firstValue(with.kind, c.octets(with.kind)), with.value)
}

// put makes a chunk another one, in a branch made anew.
func (at path) put(set []*branch, octets []byte) {
	next := *set[at.branch]
	next.chunks[at.chunk] = newChunk(octets)
	set[at.branch] = &next
}

// glued is the chunk after two changes that are one of glue alone, nil where they are not. The chunks beside it must not
// have the record too, with other glue: then its place may be in another chunk than before.
func (at path) glued(set []*branch, changes []change) []byte {
	if len(set) == 0 || changes[0].kind != kindSRV || changes[len(changes)-1].kind != kindSRV {
		return nil
	}
	record := changes[0].value.data
	if before, ok := at.before(set); ok {
		s, _ := readServices(before.octets(kindSRV))
		if bytes.Equal(s.value(s.n-1).data, record) {
			return nil
		}
	}
	if after, ok := at.after(set); ok && bytes.Equal(firstValue(kindSRV, after.octets(kindSRV)).data, record) {
		return nil
	}
	return spliceGlue(set[at.branch].chunks[at.chunk].octets(kindSRV), changes, nil)
}

// change makes one change to a set, which is the caller's to write to, in the chunk that is right for it.
func (at path) change(set []*branch, c change, scratch *[]value) []*branch {
	if len(set) == 0 {
		if c.gone {
			return set
		}
		return []*branch{{n: 1, chunks: [maxBranch]chunk{newChunk(appendGroup(nil, c.kind, []value{c.value}))}}}
	}
	old := set[at.branch]
	octets := old.chunks[at.chunk].octets(c.kind)
	if next := c.splice(octets, nil); next != nil && len(next) <= maxChunk && int(next[0]&^counted) <= maxChunkValues && !thin(len(next), int(next[0]&^counted)) {
		at.put(set, next)
		return set
	}
	to := at.chunk + 1
	values := c.applyTo(chunkValues((*scratch)[:0], c.kind, octets))
	if to < old.n && thin(groupLen(c.kind, values), len(values)) {
		values = chunkValues(values, c.kind, old.chunks[to].octets(c.kind))
		to++
	}
	*scratch = values
	list := slices.Replace(slices.Clone(old.list()), at.chunk, to, split(nil, c.kind, values)...)
	from, end := at.branch, at.branch+1
	if end < len(set) && len(list)+set[end].n <= maxBranch/2 {
		list = append(list, set[end].list()...)
		end++
	}
	return slices.Replace(set, from, end, branches(list)...)
}

// thin tells whether a chunk has so little that it should take in the next one.
func thin(size, values int) bool { return size < minChunk && values < minChunkValues }

// branches makes branches of chunks, as few as it takes and of about equal size.
func branches(list []chunk) (out []*branch) {
	for n := (len(list) + maxBranch - 1) / maxBranch; n > 0; n-- {
		b := &branch{n: len(list) / n}
		copy(b.chunks[:], list[:b.n])
		list = list[b.n:]
		out = append(out, b)
	}
	return out
}

// splice makes the change to a group, by copying what is around the value, into room if there is enough. It returns nil
// where it takes more: for what shares anything with another value, or takes counts where there are none, for a change
// that changes nothing, and where the group would be empty or too long.
func (c change) splice(octets, room []byte) []byte {
	if octets[0]&^counted == counted-1 {
		return nil
	}
	switch c.kind {
	case kindSRV:
		if octets[0]&counted != 0 {
			return nil
		}
		return c.spliceServices(octets, room)
	case kindPTR:
		return nil
	}
	size, data := addressLen(c.kind), c.value.data
	g, _ := readGroup(c.kind, octets)
	i, found := sort.Find(g.n, func(i int) int { return bytes.Compare(data, g.values[i*size:][:size]) })
	count := uint32(1)
	if found && g.counts != nil {
		count = binary.BigEndian.Uint32(g.counts[4*i:])
	}
	at := 1 + i*size
	b := append(slices.Grow(room[:0], len(octets)+size+4), octets...)
	switch {
	case found && !c.gone && g.counts != nil:
		binary.BigEndian.PutUint32(b[1+g.n*size+4*i:], count+1)
	case found && c.gone && count > 1:
		binary.BigEndian.PutUint32(b[1+g.n*size+4*i:], count-1)
	case found && c.gone && g.n > 1:
		if g.counts != nil {
			b = slices.Delete(b, 1+g.n*size+4*i, 1+g.n*size+4*i+4)
		}
		b = slices.Delete(b, at, at+size)
		b[0]--
	case !found && !c.gone:
		if g.counts != nil {
			b = slices.Insert(b, 1+g.n*size+4*i, 0, 0, 0, 1)
		}
		b = slices.Insert(b, at, data...)
		b[0]++
	default:
		return nil
	}
	return b
}

// spliceAll makes changes to a group. What it returns may be in the scratch.
func spliceAll(octets []byte, changes []change, scratch *[2][]byte) []byte {
	if changes[0].kind == kindSRV {
		if group := spliceGlue(octets, changes, scratch[0]); group != nil {
			scratch[0] = group
			return group
		}
	}
	for i, c := range changes {
		if octets = c.splice(octets, scratch[i&1]); octets == nil {
			return nil
		}
		scratch[i&1] = octets
	}
	return octets
}

// spliced is a block after changes to one type, nil where they take more than copying. The scratch is for octets.
func (b block) spliced(changes []change, scratch *[2][]byte) block {
	c := changes[0]
	octets := b.group(c.kind)
	if octets == nil || changes[len(changes)-1].kind != c.kind {
		return nil // they are in the order of types
	}
	_, rest := readGroup(c.kind, octets)
	octets = octets[:len(octets)-len(rest)]
	padding := rest
	for kind := c.kind + 1; kind < len(kinds); kind++ {
		if b[0]&(1<<kind) != 0 {
			_, padding = readGroup(kind, padding)
		}
	}
	from := len(b) - len(rest) - len(octets)
	rest = rest[:len(rest)-len(padding)]
	group := spliceAll(octets, changes, scratch)
	if group == nil || int(group[0]&^counted) > maxChunkValues {
		return nil
	}
	// Behind the last group there may be some octets that round the length up.
	size := from + len(group) + len(rest)
	units := max(2, (size+7)/8)
	if units*8 > maxBlock {
		return nil
	}
	next := make(block, 0, units*8)
	next = append(append(append(next, b[:from]...), group...), rest...)
	next[2] = byte(units)
	return next
}

func firstValue(kind int, octets []byte) value {
	if kind == kindSRV {
		s, _ := readServices(octets)
		return s.value(0)
	}
	g, _ := readGroup(kind, octets)
	return value{g.values[:valueLen(kind, g.values)], nil, 1}
}

func chunkValues(to []value, kind int, octets []byte) []value {
	g, _ := readGroup(kind, octets)
	return g.appendValues(kind, to)
}

// split appends values as chunks of equal size, as many as it takes.
func split(chunks []chunk, kind int, values []value) []chunk {
	switch n := groupLen(kind, values); {
	case len(values) == 0:
		return chunks
	case len(values) > 1 && (n > maxChunk || len(values) > maxChunkValues):
		half := len(values) / 2
		return split(split(chunks, kind, values[:half]), kind, values[half:])
	default:
		return append(chunks, newChunk(appendGroup(make([]byte, 0, n), kind, values)))
	}
}

// small tells whether the name would do with a block, of half the size that one may have.
func (b *big) small() bool {
	size := 0
	for kind, set := range b.sets {
		values := 0
		for _, br := range set {
			for _, c := range br.list() {
				octets := c.octets(kind)
				size += len(octets)
				if values += int(octets[0] &^ counted); size >= maxBlock/2 || values > maxChunkValues {
					return false
				}
			}
		}
	}
	return true
}
