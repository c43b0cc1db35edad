package records

import (
	"bytes"
	"iter"
	"net/netip"
)

// Name is a name as it was when it was found, for those who need few of its many values.
type Name struct {
	node  node
	key   []byte
	owner string
}

// Find returns a dotted name, and whether it exists; it may exist without values. It waits for no update.
func (z *Zone) Find(owner string) (n Name, exists bool) {
	key, ok := appendWire(make([]byte, 0, maxName), owner)
	if !ok {
		return Name{}, false
	}
	// The owner is what was asked for; key may become another name.
	n = Name{owner: dotted(key)}
	n.node, n.key = z.find(key), key
	return n, n.node.p != nil
}

// Type is the first type of which the name has values; 0 where it has none.
func (n Name) Type() Type {
	for kind, t := range kinds {
		if g := n.groups(kind); !g.empty() {
			return t
		}
	}
	return 0
}

func (n Name) groups(kind int) groups {
	if n.node.p == nil || kind < 0 {
		return groups{}
	}
	return n.node.groups(kind)
}

// Values yields the values of one type, each once and in a stable order.
func (n Name) Values(t Type) iter.Seq[Value] {
	return func(yield func(Value) bool) {
		kind := kindOf(t)
		g := n.groups(kind)
		if g.empty() {
			return
		}
		var values []value
		var last []byte
		for p, more := (path{}), true; more; more = p != (path{}) {
			values = chunkValues(values[:0], kind, g.at(p))
			p = g.next(p)
			for _, v := range values {
				// Sources may give one service with different glue; the service is one all the same.
				if last != nil && bytes.Equal(last, v.data) {
					continue
				}
				last = v.data
				if !yield(Value{&n, t, v}) {
					return
				}
			}
		}
	}
}

// Value is one value of a name, of which a record can be made.
type Value struct {
	name  *Name
	typ   Type
	value value
}

// Record makes the record.
func (v Value) Record() Record { return recordOf(v.typ, v.value.data, v.name.key, v.name.owner) }

// Addr is the address of an A or AAAA, and of an SRV one of its target's, if the zone keeps any with it.
func (v Value) Addr() (a netip.Addr, ok bool) {
	switch v.typ {
	case A, AAAA:
		return netip.AddrFromSlice(v.value.data)
	case SRV:
		if glue := v.value.glue; len(glue) > 1 && glue[0]&hasGlue4 != 0 {
			return netip.AddrFromSlice(glue[1:5])
		} else if len(glue) > 16 {
			return netip.AddrFromSlice(glue[1:17])
		}
	}
	return netip.Addr{}, false
}
