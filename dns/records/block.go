package records

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"
)

// A name and its values are one block of octets, without a pointer in it: a zone of 10,000 tasks has some 200,000 names,
// and strings, slices and map entries of their own would take several times the memory of what they hold. A block is
//
//	flags, length of the prefix, length of the block in units of 8, number of the suffix (2)
//	the number of names directly below (4), where flagged
//	the prefix: what the name has in front of its suffix, one of those that many names share
//	for each type that is flagged, in order: a group of values
//
// and does not change once a query can see it, except for the number of names below, which queries do not read. A group is
//
//	the number of its values, 0x80 added where they are counted
//	of PTR, their length (2)
//	the values, in order: an address; or, of PTR, a target; those of SRV have a form of their own, see services
//	where counted, for each value how many sources give it (4); elsewhere that is one each
//
// and the target of a PTR is the offset in the owner at which both become equal, the length of what is in front of that,
// and that.
type block []byte

const (
	// The first flags are the types, in the order of groups.
	hasChildren = 1 << 6
	// isBig is set where the name is a *big.
	isBig = 1 << 7

	blockHeader = 5
	counted     = 0x80

	hasGlue4 = 1
	hasGlue6 = 2
)

// kinds are the types that a zone holds; their index is that of their flag.
var kinds = [4]Type{A, AAAA, SRV, PTR}

const (
	kindA = iota
	kindAAAA
	kindSRV
	kindPTR
)

// kindOf is the index of a type in kinds, -1 for those that have no values of their own.
func kindOf(t Type) int {
	switch t {
	case A:
		return kindA
	case AAAA:
		return kindAAAA
	case SRV:
		return kindSRV
	case PTR:
		return kindPTR
	}
	return -1
}

// node points to a name: the first octet of a block, or a *big. Both begin with their flags. The index keeps nothing
// more than such a pointer for each name; that is what package unsafe is here for.
type node struct{ p unsafe.Pointer }

func (n node) flags() byte { return *(*byte)(n.p) }

// big is valid where the flags say so.
func (n node) big() *big { return (*big)(n.p) }

// block is valid where the node is not big.
func (n node) block() block {
	return unsafe.Slice((*byte)(n.p), int((*[blockHeader]byte)(n.p)[2])*8)
}

func (b block) node() node { return node{unsafe.Pointer(unsafe.SliceData(b))} }

func (b block) suffix() uint16 { return binary.BigEndian.Uint16(b[3:]) }

func (b block) prefixAt() int {
	if b[0]&hasChildren != 0 {
		return blockHeader + 4
	}
	return blockHeader
}

func (b block) prefix() []byte {
	at := b.prefixAt()
	return b[at : at+int(b[1])]
}

// group returns the octets from the group of a kind on, nil where there is none.
func (b block) group(kind int) []byte {
	if b[0]&(1<<kind) == 0 {
		return nil
	}
	rest := b[b.prefixAt()+int(b[1]):]
	for k := range kind {
		if b[0]&(1<<k) != 0 {
			_, rest = readGroup(k, rest)
		}
	}
	return rest
}

// group is a number of values of one type.
type group struct {
	n int
	// values are those of all types but SRV.
	values   []byte
	services services
	// counts is nil where each value has one source.
	counts []byte
}

// readGroup returns a group and what is behind it.
func readGroup(kind int, b []byte) (g group, rest []byte) {
	g.n = int(b[0] &^ counted)
	size, at := 0, 1
	switch kind {
	case kindA, kindAAAA:
		size = addressLen(kind) * g.n
	case kindPTR:
		size, at = int(binary.BigEndian.Uint16(b[1:])), 3
	default:
		g.services, at = readServices(b)
	}
	g.values, rest = b[at:at+size], b[at+size:]
	if b[0]&counted != 0 {
		g.counts, rest = rest[:4*g.n], rest[4*g.n:]
	}
	return g, rest
}

// glueLen is how much glue there is, by what a value says it has.
var glueLen = [4]int{0, 4, 16, 20}

// valueLen is the length of the first of several values, of any type but SRV.
func valueLen(kind int, values []byte) int {
	if kind == kindPTR {
		return 2 + int(values[1])
	}
	return addressLen(kind)
}

// value is one value with how many sources give it. Of an SRV the data is the record, and the glue says what it has and
// then has it.
type value struct {
	data, glue []byte
	count      uint32
}

// compareValues is the order of values in a group.
func compareValues(kind int, a, b value) int {
	if kind == kindSRV {
		return compareServices(a, b)
	}
	return bytes.Compare(a.data, b.data)
}

// appendValues appends the values of a group.
func (g group) appendValues(kind int, to []value) []value {
	rest := g.values
	for i := range g.n {
		var v value
		if kind == kindSRV {
			v = g.services.value(i)
		} else {
			n := valueLen(kind, rest)
			v, rest = value{rest[:n:n], nil, 1}, rest[n:]
		}
		if g.counts != nil {
			v.count = binary.BigEndian.Uint32(g.counts[4*i:])
		}
		to = append(to, v)
	}
	return to
}

// groupLen is how long a group of values is.
func groupLen(kind int, values []value) int {
	n := 1
	switch kind {
	case kindSRV:
		n = servicesLen(values)
	case kindPTR:
		n = 3
	}
	more := 0
	for _, v := range values {
		if kind != kindSRV {
			n += len(v.data)
		}
		if v.count > 1 {
			more = 4 * len(values)
		}
	}
	return n + more
}

func appendGroup(b []byte, kind int, values []value) []byte {
	from := len(b)
	if kind == kindSRV {
		b = appendServices(b, values)
	} else {
		b = append(b, byte(len(values)))
		if kind == kindPTR {
			b = append(b, 0, 0)
		}
		at := len(b)
		for _, v := range values {
			b = append(b, v.data...)
		}
		if kind == kindPTR {
			binary.BigEndian.PutUint16(b[from+1:], uint16(len(b)-at))
		}
	}
	many := false
	for _, v := range values {
		many = many || v.count > 1
	}
	if many {
		b[from] |= counted
		for _, v := range values {
			b = binary.BigEndian.AppendUint32(b, v.count)
		}
	}
	return b
}

// appendTarget appends the form that a target has in a value of the owner.
func appendTarget(b, owner, target []byte) []byte {
	at := 0
	for at < len(owner) {
		if shared := owner[at:]; len(target) >= len(shared) && string(target[len(target)-len(shared):]) == string(shared) {
			break
		}
		at += 1 + int(owner[at])
	}
	head := target[:len(target)-(len(owner)-at)]
	return append(append(b, byte(at), byte(len(head))), head...)
}

// record makes a record of an item.
func (it item) record(owner string) Record {
	return recordOf(it.typ, it.value.data, it.name, owner)
}

// recordOf makes a record of a value of the name, which is dotted in owner.
func recordOf(t Type, value, name []byte, owner string) Record {
	r := Record{Name: owner, Type: t}
	switch t {
	case A, AAAA:
		r.Addr, _ = netip.AddrFromSlice(value)
	case SRV:
		target := targetOf(value)
		r.Target = dotted(target[:len(target)-1])
		r.Port = binary.BigEndian.Uint16(value[srvTarget-2:])
	case PTR:
		head, tail := value[2:2+int(value[1])], name[value[0]:]
		r.Target = dotted(append(append(make([]byte, 0, maxName), head...), tail...))
	}
	return r
}

// appendReverse appends the key under which an address has its PTR (RFC 1035, 3.5; RFC 3596, 2.5).
func appendReverse(b []byte, a netip.Addr) []byte {
	const hex = "0123456789abcdef"
	if a.Is4() {
		addr := a.As4()
		for i := 3; i >= 0; i-- {
			at := len(b)
			b = strconv.AppendUint(append(b, 0), uint64(addr[i]), 10)
			b[at] = byte(len(b) - at - 1)
		}
		return append(b, "\x07in-addr\x04arpa"...)
	}
	addr := a.As16()
	for i := 15; i >= 0; i-- {
		b = append(b, 1, hex[addr[i]&15], 1, hex[addr[i]>>4])
	}
	return append(b, "\x03ip6\x04arpa"...)
}

func (b *big) node() node { return node{unsafe.Pointer(b)} }
