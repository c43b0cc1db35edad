package records

import (
	"bytes"
	"encoding/binary"
)

// answerServices adds as many SRV as fit and, where all did, as many addresses of their targets. Services of one target are
// not parted, so that each target has its addresses once.
func (z *Zone) answerServices(msg []byte, q *question, groups groups) []byte {
	p, n := groups.from(q.start)
	s, _ := readServices(groups.at(p))
	first := int(n % uint32(s.n))
	for first < s.n && s.shares(first) != 0 {
		first++
	}
	if first == s.n {
		first = 0
	}
	w := serviceWriter{z: z, b: msg[:maxUDP], at: len(msg), limit: q.limit}
	if groups.single() && w.at+len(s.records) <= q.limit {
		w.whole(&s, first)
	} else if !w.some(groups, p, first) {
		z.truncate(msg)
	}
	binary.BigEndian.PutUint16(msg[6:], uint16(w.answers))
	binary.BigEndian.PutUint16(msg[10:], uint16(w.more))
	return w.b[:w.at]
}

// serviceWriter writes services, and addresses of their targets, into a message.
type serviceWriter struct {
	z             *Zone
	b             []byte
	at, limit     int
	answers, more int
}

// whole writes a group of which all fits, from one value on.
func (w *serviceWriter) whole(s *services, first int) {
	w.answers = s.distinct
	cut := s.offset(first)
	front := w.at
	back := front + copy(w.b[front:], s.records[cut:])
	w.at = back + copy(w.b[back:], s.records[:cut])
	if w.glues(s, first, s.n, front-cut) {
		w.glues(s, 0, first, back)
	}
}

// glues writes the addresses of values, whose records begin in the message at the base and their offset. It tells whether
// there may be room for more.
func (w *serviceWriter) glues(s *services, i, end, base int) bool {
	b, at, limit, more := w.b[:maxUDP], w.at, w.limit, w.more
	template := &w.z.wire.address[kindA]
	for rest := s.entries[i*s.stride : end*s.stride]; len(rest) >= narrowEntry; rest = rest[s.stride:] {
		e := (*[narrowEntry]byte)(rest)
		if e[2] != 0 {
			continue
		}
		target := base + int(binary.BigEndian.Uint16(e[:])) + srvTarget
		if e[3] != hasGlue4 {
			w.at, w.more = at, more
			if !w.glue(rest[3:], target) {
				return false
			}
			at, more = w.at, w.more
			continue
		}
		if at+rrHeader+4 > limit {
			w.at, w.more = at, more
			return false
		}
		rr := (*[rrHeader + 4]byte)(b[at:])
		*(*[rrHeader]byte)(rr[:]) = *template
		*(*[4]byte)(rr[rrHeader:]) = *(*[4]byte)(e[4:])
		rr[0], rr[1] = 0xc0|byte(target>>8), byte(target)
		at += len(rr)
		more++
	}
	w.at, w.more = at, more
	return true
}

// glue writes the addresses of one target, which is in the message at an offset: the glue, or, where there is none, what
// the zone has of its name. It tells whether all fit: that some do not is not told, they are a kindness, not the answer.
func (w *serviceWriter) glue(glue []byte, target int) bool {
	has, addrs := glue[0], glue[1:]
	if has == 0 {
		var found [1 + 20]byte
		glue = w.z.addressesOf(keyAt(w.b[target:]), &found)
		has, addrs = glue[0], glue[1:]
	}
	for kind := range w.z.wire.address {
		if has&(1<<kind) == 0 {
			continue
		}
		size := addressLen(kind)
		if w.at+rrHeader+size > w.limit {
			return false
		}
		rr := w.b[w.at : w.at+rrHeader+size]
		*(*[rrHeader]byte)(rr) = w.z.wire.address[kind]
		copy(rr[rrHeader:], addrs[:size])
		binary.BigEndian.PutUint16(rr, 0xc000|uint16(target))
		w.at, addrs = w.at+len(rr), addrs[size:]
		w.more++
	}
	return true
}

// keyAt is the name at the beginning of some octets, without its root label.
func keyAt(b []byte) []byte {
	n := 0
	for b[n] != 0 {
		n += 1 + int(b[n])
	}
	return b[:n]
}

// addressesOf looks up the first address of each family of a name, and returns them as glue.
func (z *Zone) addressesOf(key []byte, found *[1 + 20]byte) (glue []byte) {
	var room [maxName]byte
	at := z.find(room[:copy(room[:], key)])
	glue = found[:1]
	for kind := range z.wire.address {
		if at.p == nil {
			break
		}
		if list := at.groups(kind); !list.empty() {
			size := addressLen(kind)
			glue[0] |= 1 << kind
			glue = append(glue, list.at(path{})[1:1+size]...)
		}
	}
	return glue
}

// answerNameserver adds the NS, and addresses of the name server where its name is the zone's.
func (z *Zone) answerNameserver(msg []byte, q *question) []byte {
	target := len(msg) + rrHeader
	msg = z.wire.ns.append(msg, headerLen)
	msg[7] = 1
	w := serviceWriter{z: z, b: msg[:maxUDP], at: len(msg), limit: q.limit}
	var found [1 + 20]byte
	if glue := z.addressesOf(z.wire.mname, &found); glue[0] != 0 {
		w.glue(glue, target)
	}
	msg[11] = byte(w.more)
	return w.b[:w.at]
}

// placed is a service in an answer whose target has not been there before: which value it is, and where its target is.
type placed struct {
	path
	value, target int
}

// maxPlaced is more than fit in any answer: a record of a service takes 20 octets at least.
const maxPlaced = maxUDP / 20

// some writes a group of which not all may fit, or one of several chunks, from one value in a chunk on, through all others,
// to what is in front of it. It tells whether all fit.
func (w *serviceWriter) some(groups groups, start path, first int) bool {
	var targets [maxPlaced]placed
	known, from := 0, w.at
	last := -1
	for p, more := start, true; more; {
		s, _ := readServices(groups.at(p))
		i, end := 0, s.n
		if p == start && last < 0 {
			i = first
		} else if p == start {
			end, more = first, false
		}
		for ; i < end; i++ {
			v := s.value(i)
			// What is shared with values of another chunk, the entry does not tell.
			if last >= 0 && (isRecord(w.b[last:w.at], v.data) || isRecord(w.b[from:w.at], v.data)) {
				continue
			}
			if w.at+len(v.data) > w.limit {
				return false
			}
			if last < 0 || !isTarget(w.b[last:w.at], v.data) && !isTarget(w.b[from:w.at], v.data) {
				targets[known] = placed{p, i, w.at + srvTarget}
				known++
			}
			last = w.at
			w.at += copy(w.b[w.at:], v.data)
			w.answers++
		}
		if p = groups.next(p); p == start && first == 0 {
			more = false
		}
	}
	for _, t := range targets[:known] {
		s, _ := readServices(groups.at(t.path))
		if !w.glue(s.glue(t.value), t.target) {
			break
		}
	}
	return true
}

// isRecord tells whether the first of several records is the one given.
func isRecord(b, record []byte) bool { return bytes.Equal(b[:recordLen(b)], record) }

// isTarget tells whether the first of several records has the target of the one given.
func isTarget(b, record []byte) bool {
	return bytes.Equal(targetOf(b[:recordLen(b)]), targetOf(record))
}
