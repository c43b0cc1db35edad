package records

import "encoding/binary"

// packed is the answers for one name, ready to be sent. The owner of each record is a pointer to the question, which
// therefore is echoed in the asker's case.
type packed struct {
	a, aaaa rrs
	srv     rrs
	// glue holds, for each SRV in order, its target's addresses: 0 or 4 octets, then 0 or 16.
	glue [][]byte
}

// rrs is records of one type, of equal or different lengths.
type rrs struct {
	data []byte
	// ends of the records in data
	ends []int
}

func (r *rrs) close() { r.ends = append(r.ends, len(r.data)) }

func (r *rrs) at(i int) []byte {
	if i == 0 {
		return r.data[:r.ends[0]]
	}
	return r.data[r.ends[i-1]:r.ends[i]]
}

const (
	headerLen = 12
	// maxUDP is the largest answer that is sent over UDP, whatever the asker offers: it passes every link unfragmented (DNS
	// flag day 2020).
	maxUDP = 1232
	// plainUDP is the largest answer to one who offers nothing (RFC 1035, 4.2.1).
	plainUDP = 512
	optLen   = 11
	// srvTarget is the offset of the target in a packed SRV.
	srvTarget = 2 + 10 + 6
)

func (z *Zone) header(b []byte, t Type, length int) []byte {
	b = append(b, 0xc0, headerLen)
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	b = binary.BigEndian.AppendUint16(b, 1) // class IN
	b = binary.BigEndian.AppendUint32(b, z.config.TTL)
	return binary.BigEndian.AppendUint16(b, uint16(length))
}

func (z *Zone) pack(values []value) *packed {
	p := &packed{}
	for i, v := range values {
		switch v.typ {
		case A:
			addr := v.addr.As4()
			p.a.data = append(z.header(p.a.data, A, 4), addr[:]...)
			p.a.close()
		case AAAA:
			addr := v.addr.As16()
			p.aaaa.data = append(z.header(p.aaaa.data, AAAA, 16), addr[:]...)
			p.aaaa.close()
		case SRV:
			// Sources may give one service with different glue; the service is one all the same.
			if prev := i - 1; prev >= 0 && values[prev].typ == SRV && values[prev].target == v.target && values[prev].port == v.port {
				continue
			}
			b := z.header(p.srv.data, SRV, 6+len(v.target)+1)
			b = binary.BigEndian.AppendUint16(b, 0)
			b = binary.BigEndian.AppendUint16(b, z.config.Weight)
			b = binary.BigEndian.AppendUint16(b, v.port)
			p.srv.data = append(append(b, v.target...), 0)
			p.srv.close()
			var glue []byte
			if v.glue4.IsValid() {
				addr := v.glue4.As4()
				glue = append(glue, addr[:]...)
			}
			if v.glue6.IsValid() {
				addr := v.glue6.As16()
				glue = append(glue, addr[:]...)
			}
			p.glue = append(p.glue, glue)
		}
	}
	return p
}

// Answer answers a query over UDP and returns the message in buf, which must have room for 1,232 octets. It returns nil
// for what it leaves to the general path: anything but one standard question in class IN for an A, AAAA or SRV below the
// domain, with at most a plain EDNS0 record beside it. Start rotates the order of the answers; it should differ from
// call to call. Query and buf may not overlap; nothing is allocated.
func (z *Zone) Answer(query, buf []byte, start uint32) []byte {
	if len(query) < headerLen+5 || len(buf) < maxUDP {
		return nil
	}
	// A response, another opcode, or more than one question goes the general way.
	if query[2]&0xf8 != 0 || binary.BigEndian.Uint16(query[4:]) != 1 || binary.BigEndian.Uint32(query[6:]) != 0 {
		return nil
	}
	var keyBuf [maxName]byte
	end, ok := z.question(query, &keyBuf)
	if !ok || end+5 > len(query) {
		return nil
	}
	nameLen := end - headerLen // without the root label
	key := keyBuf[:nameLen]
	qtype, class := Type(binary.BigEndian.Uint16(query[end+1:])), binary.BigEndian.Uint16(query[end+3:])
	if class != 1 || (qtype != A && qtype != AAAA && qtype != SRV) {
		return nil
	}
	limit, edns := plainUDP, false
	question := end + 5
	switch binary.BigEndian.Uint16(query[10:]) {
	case 0:
		if len(query) != question {
			return nil
		}
	case 1:
		// One OPT of version 0, with or without options, none of which we act on.
		opt := query[question:]
		if len(opt) < optLen || opt[0] != 0 || opt[1] != 0 || opt[2] != 41 || opt[6] != 0 ||
			len(opt) != optLen+int(binary.BigEndian.Uint16(opt[9:])) {
			return nil
		}
		edns = true
		limit = min(max(plainUDP, int(binary.BigEndian.Uint16(opt[3:]))), maxUDP)
	default:
		return nil
	}
	if nameLen < len(z.apex) || string(key[nameLen-len(z.apex):]) != z.apex {
		return nil
	}

	z.mu.RLock()
	n := z.names[string(key)]
	z.mu.RUnlock()

	msg := append(buf[:0], query[:question]...)
	// QR, AA, and RD as asked; RA is set as Mesos-DNS does.
	msg[2] = 0x84 | query[2]&0x01
	msg[3] = 0x80
	msg[10], msg[11] = 0, 0
	if edns {
		limit -= optLen
	}
	var p *packed
	if n != nil {
		p = n.packed.Load()
	} else if !z.hasLabelBoundary(key) {
		return nil
	}
	if p == nil {
		msg[3] |= 3 // NXDOMAIN
		msg = z.authority(msg, question, nameLen)
	} else if set := p.of(qtype); len(set.ends) == 0 {
		msg = z.authority(msg, question, nameLen)
	} else {
		msg = p.answers(msg, set, qtype, limit, start)
		if qtype == SRV && msg[2]&0x02 == 0 {
			msg = z.additional(msg, p, question, limit, start)
		}
	}
	if edns {
		msg = append(msg, 0, 0, 41, maxUDP>>8, maxUDP&0xff, 0, 0, 0, 0, 0, 0)
		binary.BigEndian.PutUint16(msg[10:], binary.BigEndian.Uint16(msg[10:])+1)
	}
	return msg
}

// question reads the name of the question into key, lower-cased and without the root label, and returns the offset of
// that. Compressed names and names that use the wild card of Mesos-DNS are not for the hot path.
func (z *Zone) question(query []byte, key *[maxName]byte) (end int, ok bool) {
	i := headerLen
	for {
		if i >= len(query) || i-headerLen >= maxName {
			return 0, false
		}
		n := int(query[i])
		if n == 0 {
			return i, i > headerLen
		}
		if n > maxLabel || i+n+1 >= len(query) || i+n+1-headerLen >= maxName {
			return 0, false
		}
		key[i-headerLen] = byte(n)
		for _, c := range query[i+1 : i+1+n] {
			i++
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			if c == '*' {
				return 0, false
			}
			key[i-headerLen] = c
		}
		i++
	}
}

// hasLabelBoundary tells whether the apex at the end of the key begins where a label does.
func (z *Zone) hasLabelBoundary(key []byte) bool {
	at := len(key) - len(z.apex)
	i := 0
	for i < at {
		i += 1 + int(key[i])
	}
	return i == at
}

func (p *packed) of(t Type) *rrs {
	switch t {
	case A:
		return &p.a
	case AAAA:
		return &p.aaaa
	default:
		return &p.srv
	}
}

// answers copies as many records as fit, from a rotated start, and sets TC where some did not.
func (p *packed) answers(msg []byte, set *rrs, qtype Type, limit int, start uint32) []byte {
	total := len(set.ends)
	count := 0
	for i := range total {
		rr := set.at((i + int(start%uint32(total))) % total)
		if len(msg)+len(rr) > limit {
			msg[2] |= 0x02
			break
		}
		msg = append(msg, rr...)
		count++
	}
	binary.BigEndian.PutUint16(msg[6:], uint16(count))
	return msg
}

// additional adds the addresses of the targets, each owned by a pointer to the target in the answer above. What does not
// fit is left out without TC: it is a kindness, not the answer.
func (z *Zone) additional(msg []byte, p *packed, question, limit int, start uint32) []byte {
	total := len(p.srv.ends)
	at := question
	count := 0
	var last []byte // several ports of one target need its address once
	for i := range total {
		j := (i + int(start%uint32(total))) % total
		rr := p.srv.at(j)
		target := at + srvTarget
		at += len(rr)
		if string(last) == string(rr[srvTarget:]) || target >= 1<<14 {
			continue
		}
		last = rr[srvTarget:]
		glue := p.glue[j]
		for len(glue) > 0 {
			size, t := 4, A
			if len(glue)%16 == 0 {
				size, t = 16, AAAA
			}
			if len(msg)+12+size > limit {
				binary.BigEndian.PutUint16(msg[10:], uint16(count))
				return msg
			}
			from := len(msg)
			msg = append(z.header(msg, t, size), glue[:size]...)
			binary.BigEndian.PutUint16(msg[from:], 0xc000|uint16(target))
			glue = glue[size:]
			count++
		}
	}
	binary.BigEndian.PutUint16(msg[10:], uint16(count))
	return msg
}

// authority adds the SOA, owned by a pointer to the domain at the end of the question's name.
func (z *Zone) authority(msg []byte, question, nameLen int) []byte {
	msg[9] = 1
	from := len(msg)
	msg = z.header(msg, 6, len(z.soa)+4)
	binary.BigEndian.PutUint16(msg[from:], 0xc000|uint16(headerLen+nameLen-len(z.apex)))
	// The TTL of a negative answer is at most the minimum (RFC 2308, 3).
	binary.BigEndian.PutUint32(msg[from+6:], min(z.config.TTL, z.config.Minimum))
	msg = append(msg, z.soa[:z.mname]...)
	msg = binary.BigEndian.AppendUint32(msg, z.serial.Load())
	return append(msg, z.soa[z.mname:]...)
}
