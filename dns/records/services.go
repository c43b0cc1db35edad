package records

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// services is a group of SRV as an answer needs it: the records on the wire, owned by a pointer to the question, one after
// another, so that an answer is two copies; then for each value an entry
//
//	where its record begins (2), what it shares with the value in front of it, its glue, and room up to 8 or 24 octets
//
// Values are in the order of their targets, so those of one target are beside each other. Sources may give one service
// with different glue; those values share the record.
type services struct {
	// n values make so many records.
	n, distinct int
	records     []byte
	entries     []byte
	// stride is the length of an entry.
	stride int
}

const (
	servicesHeader = 4
	// wide is added to the length of the records where entries have room for an address of IPv6.
	wide        = 0x8000
	narrowEntry = 8
	wideEntry   = 24

	sameTarget = 1
	sameRecord = 2
)

// readServices returns a group and how long it is without counts.
func readServices(b []byte) (s services, size int) {
	length := int(binary.BigEndian.Uint16(b[1:]))
	s.n, s.distinct, s.stride = int(b[0]&^counted), int(b[3]), narrowEntry
	if length&wide != 0 {
		length &^= wide
		s.stride = wideEntry
	}
	at := servicesHeader + length
	size = at + s.n*s.stride
	s.records, s.entries = b[servicesHeader:at], b[at:size]
	return s, size
}

// offset is where the record of a value begins; that of the one behind the last is the end.
func (s *services) offset(i int) int {
	if i == s.n {
		return len(s.records)
	}
	return int(binary.BigEndian.Uint16(s.entries[i*s.stride:]))
}

// shares tells what the ith value shares with the one in front of it.
func (s *services) shares(i int) byte { return s.entries[i*s.stride+2] }

func (s *services) glue(i int) []byte {
	e := s.entries[i*s.stride+3:]
	n := 1 + glueLen[e[0]&3]
	return e[:n:n]
}

func (s *services) value(i int) value {
	at := s.offset(i)
	end := at + recordLen(s.records[at:])
	return value{s.records[at:end:end], s.glue(i), 1}
}

// recordLen is the length of the first of several records that are owned by pointers.
func recordLen(b []byte) int { return rrHeader + int(binary.BigEndian.Uint16(b[rrHeader-2:])) }

// targetOf is the target of a record: a key, and the root.
func targetOf(record []byte) []byte { return record[srvTarget:] }

// compareServices orders by target, then by port, then by glue.
func compareServices(a, b value) int {
	if c := bytes.Compare(targetOf(a.data), targetOf(b.data)); c != 0 {
		return c
	}
	if c := bytes.Compare(a.data[rrHeader:srvTarget], b.data[rrHeader:srvTarget]); c != 0 {
		return c
	}
	return bytes.Compare(a.glue, b.glue)
}

// shared says what a value shares with the one in front of it.
func shared(v, before value) byte {
	switch {
	case !bytes.Equal(targetOf(v.data), targetOf(before.data)):
		return 0
	case !bytes.Equal(v.data, before.data):
		return sameTarget
	}
	return sameTarget | sameRecord
}

// strideFor is the length of entries with room for the glue.
func strideFor(values []value) int {
	for _, v := range values {
		if len(v.glue) > narrowEntry-3 {
			return wideEntry
		}
	}
	return narrowEntry
}

// servicesLen is how long a group of values is, without counts.
func servicesLen(values []value) int {
	n := servicesHeader + strideFor(values)*len(values)
	for i, v := range values {
		if i == 0 || !bytes.Equal(v.data, values[i-1].data) {
			n += len(v.data)
		}
	}
	return n
}

// appendServices appends a group, without counts.
func appendServices(b []byte, values []value) []byte {
	stride := strideFor(values)
	from := len(b)
	b = append(b, byte(len(values)), 0, 0, 0)
	for i, v := range values {
		if i == 0 || !bytes.Equal(v.data, values[i-1].data) {
			b = append(b, v.data...)
			b[from+3]++
		}
	}
	length := len(b) - from - servicesHeader
	at := 0
	for i, v := range values {
		var shares byte
		if i > 0 {
			if shares = shared(v, values[i-1]); shares&sameRecord == 0 {
				at += len(values[i-1].data)
			}
		}
		b = appendEntry(b, at, shares, v.glue, stride)
	}
	if stride == wideEntry {
		length |= wide
	}
	binary.BigEndian.PutUint16(b[from+1:], uint16(length))
	return b
}

func appendEntry(b []byte, at int, shares byte, glue []byte, stride int) []byte {
	var room [wideEntry]byte
	binary.BigEndian.PutUint16(room[:], uint16(at))
	room[2] = shares
	copy(room[3:], glue)
	return append(b, room[:stride]...)
}

// spliceServices is splice for services. It leaves all that share anything with another to others.
func (c change) spliceServices(octets, room []byte) []byte {
	s, size := readServices(octets)
	i, order := 0, -1
	for ; i < s.n; i++ {
		if order = compareServices(s.value(i), c.value); order >= 0 {
			break
		}
	}
	if c.gone != (order == 0) || c.gone && s.n == 1 || len(c.value.glue) > s.stride-3 {
		return nil
	}
	at := s.offset(i)
	grown, entry := len(c.value.data), s.stride
	b := slices.Grow(room[:0], size+grown+entry)
	b = append(append(b, octets[:servicesHeader]...), s.records[:at]...)
	if c.gone {
		if s.shares(i) != 0 || i+1 < s.n && s.shares(i+1) != 0 {
			return nil
		}
		b = append(append(b, s.records[at+grown:]...), s.entries[:i*entry]...)
		b = append(b, s.entries[(i+1)*entry:]...)
		b[0]--
		b[3]--
		grown = -grown
	} else {
		if i > 0 && shared(c.value, s.value(i-1)) != 0 || i < s.n && shared(c.value, s.value(i)) != 0 {
			return nil
		}
		b = append(append(append(b, c.value.data...), s.records[at:]...), s.entries[:i*entry]...)
		b = appendEntry(b, at, 0, c.value.glue, entry)
		b = append(b, s.entries[i*entry:]...)
		b[0]++
		b[3]++
		i++
	}
	binary.BigEndian.PutUint16(b[1:], uint16(int(binary.BigEndian.Uint16(b[1:]))+grown))
	for rest := b[servicesHeader+len(s.records)+grown+i*entry:]; len(rest) > 0; rest = rest[entry:] {
		binary.BigEndian.PutUint16(rest, uint16(int(binary.BigEndian.Uint16(rest))+grown))
	}
	return b
}

// spliceGlue is a group of services after one value has become another of other glue: one that has gone, the other of its
// record. It returns nil where it takes more.
func spliceGlue(octets []byte, changes []change, room []byte) []byte {
	if len(changes) != 2 || octets[0] >= counted {
		return nil
	}
	gone, come := changes[0], changes[1]
	if !gone.gone {
		gone, come = come, gone
	}
	if !gone.gone || come.gone || !bytes.Equal(gone.value.data, come.value.data) {
		return nil
	}
	s, size := readServices(octets)
	for i := range s.n {
		v := s.value(i)
		if !bytes.Equal(v.data, gone.value.data) {
			continue
		}
		if !bytes.Equal(v.glue, gone.value.glue) || len(come.value.glue) > s.stride-3 || i+1 < s.n && s.shares(i+1)&sameRecord != 0 {
			return nil
		}
		b := append(room[:0], octets[:size]...)
		e := b[size-(s.n-i)*s.stride:][3:s.stride]
		clear(e)
		copy(e, come.value.glue)
		return b
	}
	return nil
}
