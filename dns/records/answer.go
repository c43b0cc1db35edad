package records

import "encoding/binary"

const (
	headerLen = 12
	// maxUDP is the largest answer that is sent over UDP, whatever the asker offers: it passes every link unfragmented (DNS
	// flag day 2020).
	maxUDP = 1232
	// plainUDP is the largest answer to one who offers nothing (RFC 1035, 4.2.1).
	plainUDP = 512
	optLen   = 11
	// rrHeader is the length of a record's owner (a pointer), type, class, TTL and length of data.
	rrHeader = 12
	// srvTarget is the offset of the target in an SRV.
	srvTarget = rrHeader + 6
)

// templates are parts of answers that depend on the configuration alone.
type templates struct {
	// address and service are headers of records that are owned by the question's name.
	address [2][rrHeader]byte
	service [srvTarget]byte
	// soa and ns are records in which pointers and the serial number are yet to be set.
	soa, ns record
	// mname is the name server's name, a key.
	mname []byte
	// minimum is the TTL of an SOA that says that there is nothing.
	minimum uint32
}

// ttlAt is the offset of the TTL in a record with a pointer for an owner.
const ttlAt = 6

func header(t Type, ttl uint32, length int) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0xc0, headerLen}, uint16(t))
	b = binary.BigEndian.AppendUint16(b, 1) // class IN
	b = binary.BigEndian.AppendUint32(b, ttl)
	return binary.BigEndian.AppendUint16(b, uint16(length))
}

func newTemplates(c Config) (w templates) {
	copy(w.address[0][:], header(A, c.TTL, 4))
	copy(w.address[1][:], header(AAAA, c.TTL, 16))
	// The length comes with the target, priority is 0, and so is the port here.
	copy(w.service[:], header(SRV, c.TTL, 0))
	binary.BigEndian.PutUint16(w.service[rrHeader+2:], c.Weight)
	mname, _ := wire(c.Mname)
	rname, _ := wire(c.Rname)
	apex, _ := wire(c.Domain)
	w.ns = record{octets: header(NS, c.TTL, 0)}
	w.ns.name(mname, apex, mname)
	w.mname = []byte(mname)
	w.soa = record{octets: header(SOA, c.TTL, 0)}
	w.soa.name(mname, apex, mname)
	w.soa.name(rname, apex, mname)
	w.soa.serialAt = len(w.soa.octets)
	for _, n := range []uint32{0, c.Refresh, c.Retry, c.Expire, c.Minimum} {
		w.soa.octets = binary.BigEndian.AppendUint32(w.soa.octets, n)
	}
	for _, r := range []record{w.ns, w.soa} {
		binary.BigEndian.PutUint16(r.octets[rrHeader-2:], uint16(len(r.octets)-rrHeader))
	}
	w.minimum = min(c.TTL, c.Minimum)
	return w
}

// record is one of the zone's own records: its owner is the apex, and names in it end in pointers where they can.
type record struct {
	octets []byte
	// toApex and toFirst are where pointers to the apex in the question and to the first name in the record are.
	toApex, toFirst []int
	serialAt        int
}

// name appends a name, which may end in the apex or in the first name.
func (r *record) name(name, apex, first string) {
	at := len(r.octets)
	switch {
	case at > rrHeader && within(name, first):
		r.octets = append(r.octets, name[:len(name)-len(first)]...)
		r.toFirst = append(r.toFirst, len(r.octets))
		r.octets = append(r.octets, 0xc0, 0)
	case within(name, apex):
		r.octets = append(r.octets, name[:len(name)-len(apex)]...)
		r.toApex = append(r.toApex, len(r.octets))
		r.octets = append(r.octets, 0xc0, 0)
	default:
		r.octets = append(append(r.octets, name...), 0)
	}
}

// append appends the record to a message in which the apex is at the offset.
func (r *record) append(msg []byte, apex int) []byte {
	from := len(msg)
	msg = append(msg, r.octets...)
	binary.BigEndian.PutUint16(msg[from:], 0xc000|uint16(apex))
	for _, at := range r.toApex {
		binary.BigEndian.PutUint16(msg[from+at:], 0xc000|uint16(apex))
	}
	for _, at := range r.toFirst {
		binary.BigEndian.PutUint16(msg[from+at:], 0xc000|uint16(from+rrHeader))
	}
	return msg
}

// question is a query that the fast path answers.
type question struct {
	name []byte // a key
	typ  Type
	// end is where the question ends in the message.
	end int
	// limit is how long the answer may be, without OPT.
	limit   int
	edns    bool
	options byte // the first octet of the flags of EDNS: the DO bit
	start   uint32
}

// Answer answers a query over UDP and returns the message in buf, which must have room for 1,232 octets. It returns nil
// for what it leaves to the general path: anything but one standard question in class IN for a name of the domain, with
// at most an EDNS0 record beside it, whose options are passed over. Left are also transfers, ANY, names below near, and
// PTR. Start rotates the order of the answers; it should differ from call to call. Query and buf may not overlap;
// nothing is allocated.
func (z *Zone) Answer(query, buf []byte, start uint32) []byte {
	var name [nameRoom]byte
	q, ok := z.parse(query, &name)
	if !ok || len(buf) < maxUDP {
		return nil
	}
	q.start = start
	n := z.find(q.name)
	if n.p == nil && z.isNear(q.name) {
		return nil
	}
	msg := append(buf[:0], query[:q.end]...)
	// QR, AA, and RD as asked; TC where it has to be, RA as configured. AD and CD are not ours to set (RFC 4035, 3.1.6).
	msg[2] = 0x84 | query[2]&0x01
	msg[3] = 0
	if !z.config.NoRecursion {
		msg[3] = 0x80
	}
	msg[10], msg[11] = 0, 0
	msg = z.sections(msg, &q, n)
	if q.edns {
		msg = append(msg, 0, 0, 41, maxUDP>>8, maxUDP&0xff, 0, 0, q.options, 0, 0, 0)
		msg[11]++
	}
	return msg
}

// isNear tells whether a name is of the sub-domain that the general path orders by distance.
func (z *Zone) isNear(key []byte) bool {
	for len(key) > len(z.apex)+len(nearLabel) {
		key = parent(key)
	}
	return len(key) == len(z.apex)+len(nearLabel) && string(key[:len(nearLabel)]) == nearLabel
}

// nameRoom is room for a name, in words of eight octets.
const nameRoom = maxName + 1

// parse reads a query, and tells whether it is one for the fast path. The question's name is in the room given.
func (z *Zone) parse(query []byte, name *[nameRoom]byte) (q question, ok bool) {
	// A response, another opcode, or more than one question goes the general way.
	if len(query) < headerLen+5 || query[2]&0xf8 != 0 || binary.BigEndian.Uint16(query[4:]) != 1 || binary.BigEndian.Uint32(query[6:]) != 0 {
		return q, false
	}
	root := labels(query, len(z.apex), name)
	if root == 0 || root+5 > len(query) {
		return q, false
	}
	q.end = root + 5
	q.name = name[:root-headerLen]
	q.typ = Type(binary.BigEndian.Uint16(query[root+1:]))
	// Meta types, and PTR, of which there are none below the domain, are not for here.
	if binary.BigEndian.Uint16(query[root+3:]) != 1 || q.typ == 0 || q.typ == 41 || q.typ == PTR || 128 <= q.typ && q.typ < 256 {
		return q, false
	}
	if string(q.name[len(q.name)-len(z.apex):]) != z.apex {
		return q, false
	}
	rest := query[q.end:]
	q.limit = plainUDP
	switch binary.BigEndian.Uint16(query[10:]) {
	case 0:
		return q, len(rest) == 0
	case 1:
		// One OPT of version 0, with or without options, none of which we act on.
		if len(rest) < optLen || rest[0] != 0 || rest[1] != 0 || rest[2] != 41 || rest[6] != 0 ||
			len(rest) != optLen+int(binary.BigEndian.Uint16(rest[9:])) {
			return q, false
		}
		q.edns, q.options = true, rest[7]&0x80
		q.limit = min(max(plainUDP, int(binary.BigEndian.Uint16(rest[3:]))), maxUDP) - optLen
		return q, true
	}
	return q, false
}

// labels reads the name of the question, lower-cased and without the root label, and returns the offset of that. It is 0
// for names that are compressed or too long, for those that use the wild card of Mesos-DNS, and for those of which the
// last octets, as many as the apex has, are not whole labels.
func labels(query []byte, apex int, name *[nameRoom]byte) (root int) {
	root = headerLen
	for query[root] != 0 {
		n := int(query[root])
		root += 1 + n
		if n > maxLabel || root >= len(query) || root-headerLen >= maxName {
			return 0
		}
	}
	at := headerLen
	for at < root-apex {
		at += 1 + int(query[at])
	}
	if at != root-apex {
		return 0
	}
	size := copy(name[:], query[headerLen:root])
	// Eight octets at a time. Lengths of labels are below any letter, so they need no care.
	star := false
	for at := 0; at < size; at += 8 {
		w := binary.LittleEndian.Uint64(name[at:])
		binary.LittleEndian.PutUint64(name[at:], lower(w))
		star = star || has(w, '*')
	}
	if star && wild(name[:size]) {
		return 0
	}
	return root
}

const ones = 0x0101010101010101

// lower makes lower case of eight octets.
func lower(w uint64) uint64 {
	low := w & (0x7f * ones)
	upper := ^w & (low + (0x80-'A')*ones) &^ (low + (0x7f-'Z')*ones) & (0x80 * ones)
	return w | upper>>2
}

// has tells whether c is among eight octets.
func has(w uint64, c byte) bool {
	w ^= uint64(c) * ones
	return (w-ones)&^w&(0x80*ones) != 0
}

// wild tells whether a label begins with the wild card.
func wild(key []byte) bool {
	for len(key) > 0 {
		if key[0] > 0 && key[1] == '*' {
			return true
		}
		key = parent(key)
	}
	return false
}

// sections adds what the node has, which may be none, to a message that holds the question.
func (z *Zone) sections(msg []byte, q *question, n node) []byte {
	switch {
	case n.p == nil:
		if q.typ == SRV && z.config.SRVNoData {
			return msg
		}
		msg[3] |= 3 // NXDOMAIN
	case q.typ == A || q.typ == AAAA:
		kind := kindA
		if q.typ == AAAA {
			kind = kindAAAA
		}
		if g := n.groups(kind); !g.empty() {
			return z.addresses(msg, q, kind, g)
		}
	case q.typ == SRV:
		if g := n.groups(kindSRV); !g.empty() {
			return z.answerServices(msg, q, g)
		}
	case q.typ == SOA && len(q.name) == len(z.apex):
		msg[7] = 1
		return z.startOfAuthority(msg, len(q.name))
	case q.typ == NS && len(q.name) == len(z.apex):
		return z.answerNameserver(msg, q)
	}
	msg[9] = 1
	from := len(msg)
	msg = z.startOfAuthority(msg, len(q.name))
	// The TTL of a negative answer is at most the minimum (RFC 2308, 3).
	binary.BigEndian.PutUint32(msg[from+ttlAt:], z.wire.minimum)
	return msg
}

// startOfAuthority adds the SOA.
func (z *Zone) startOfAuthority(msg []byte, nameLen int) []byte {
	from := len(msg)
	msg = z.wire.soa.append(msg, headerLen+nameLen-len(z.apex))
	binary.BigEndian.PutUint32(msg[from+z.wire.soa.serialAt:], z.serial.Load())
	return msg
}

// truncate says that answers did not fit.
func (z *Zone) truncate(msg []byte) {
	if !z.config.NoTruncateBit {
		msg[2] |= 0x02
	}
}

// addresses adds as many A or AAAA as fit: from a start in the middle of a chunk, through all others, to what is in front
// of the start.
func (z *Zone) addresses(msg []byte, q *question, kind int, groups groups) []byte {
	start, n := groups.from(q.start)
	first := plainValues(kind, groups.at(start))
	size := addressLen(kind)
	cut := int(n%uint32(len(first)/size)) * size
	from := len(msg)
	w := addressWriter{msg[:maxUDP], from, q.limit, &z.wire.address[kind], size}
	fits := w.write(first[cut:])
	for p := groups.next(start); fits && p != start; p = groups.next(p) {
		fits = w.write(plainValues(kind, groups.at(p)))
	}
	if !fits || !w.write(first[:cut]) {
		z.truncate(msg)
	}
	binary.BigEndian.PutUint16(msg[6:], uint16((w.at-from)/(rrHeader+w.size)))
	return w.b[:w.at]
}

// plainValues are the addresses of a group.
func plainValues(kind int, octets []byte) []byte {
	return octets[1 : 1+int(octets[0]&^counted)*addressLen(kind)]
}

// addressWriter writes records with addresses into a message up to a limit.
type addressWriter struct {
	b         []byte
	at, limit int
	header    *[rrHeader]byte
	size      int
}

// write tells whether all fit.
func (w *addressWriter) write(values []byte) bool {
	for ; len(values) > 0; values = values[w.size:] {
		if w.at+rrHeader+w.size > w.limit {
			return false
		}
		*(*[rrHeader]byte)(w.b[w.at:]) = *w.header
		w.at += rrHeader
		if w.size == 4 {
			*(*[4]byte)(w.b[w.at:]) = *(*[4]byte)(values)
		} else {
			*(*[16]byte)(w.b[w.at:]) = *(*[16]byte)(values)
		}
		w.at += w.size
	}
	return true
}

func addressLen(kind int) int {
	if kind == kindA {
		return 4
	}
	return 16
}
