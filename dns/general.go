package dns

import (
	"math/rand/v2"
	"net"
	"strings"

	"github.com/miekg/dns"

	"starling/dns/records"
)

// slow answers what the hot path left, over UDP. It returns nil for what deserves no answer.
func (s *Server) slow(query []byte) []byte {
	s.metrics.general.Inc()
	var q dns.Msg
	if err := q.Unpack(query); err != nil {
		s.metrics.malformed.Inc()
		// A header is enough to say that the rest is not understood; an answer is never answered.
		if len(query) < 12 || query[2]&0x80 != 0 {
			return nil
		}
		m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: uint16(query[0])<<8 | uint16(query[1]), Response: true, Rcode: dns.RcodeFormatError}}
		return pack(m)
	}
	if q.Response {
		return nil
	}
	m := s.respond(&q)
	size := dns.MinMsgSize
	if o := q.IsEdns0(); o != nil {
		size = min(max(dns.MinMsgSize, int(o.UDPSize())), 1232)
	}
	rand.Shuffle(len(m.Answer), func(i, j int) { m.Answer[i], m.Answer[j] = m.Answer[j], m.Answer[i] })
	m.Truncate(size)
	return pack(m)
}

func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

func (s *Server) serveTCP(w dns.ResponseWriter, q *dns.Msg) {
	s.metrics.general.Inc()
	m := s.respond(q)
	m.Truncate(dns.MaxMsgSize)
	if err := w.WriteMsg(m); err != nil {
		s.metrics.unsent.Inc()
	}
}

// respond makes the whole answer to any query, from the same zone as the hot path.
func (s *Server) respond(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	m.Compress = true
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(1232, false)
		if o.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
		return m
	case len(q.Question) != 1:
		m.Rcode = dns.RcodeFormatError
		return m
	case q.Question[0].Qclass != dns.ClassINET && q.Question[0].Qclass != dns.ClassANY:
		m.Rcode = dns.RcodeRefused
		return m
	}
	question := q.Question[0]
	// Mesos-DNS cuts its wild card out of a name before it looks.
	name := strings.ReplaceAll(question.Name, ".*", "")
	if !s.zone.InDomain(name) {
		m.Rcode = dns.RcodeRefused
		m.RecursionAvailable = false
		return m
	}
	m.Authoritative = true
	found, exists := s.zone.Lookup(name)
	apex := dns.CountLabel(name) == dns.CountLabel(s.config.Zone.Domain+".")
	switch {
	case apex && question.Qtype == dns.TypeSOA:
		m.Answer = []dns.RR{s.soa()}
	case apex && question.Qtype == dns.TypeNS:
		m.Answer = []dns.RR{&dns.NS{Hdr: s.header(s.zone.Config().Domain+".", dns.TypeNS), Ns: s.zone.Config().Mname + "."}}
	case question.Qtype == dns.TypeANY && exists && len(found) > 0:
		// One set is a whole answer to ANY (RFC 8482, 4.1).
		m.Answer = s.answers(question.Name, found, found[0].Type)
	default:
		m.Answer = s.answers(question.Name, found, records.Type(question.Qtype))
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{s.soa()}
		if !exists {
			m.Rcode = dns.RcodeNameError
		}
		return m
	}
	m.Extra = append(s.additional(m.Answer), m.Extra...)
	return m
}

func (s *Server) header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: s.zone.Config().TTL}
}

func (s *Server) soa() dns.RR {
	c := s.zone.Config()
	h := s.header(c.Domain+".", dns.TypeSOA)
	h.Ttl = min(c.TTL, c.Minimum)
	return &dns.SOA{
		Hdr: h, Ns: c.Mname + ".", Mbox: c.Rname + ".", Serial: s.zone.Serial(),
		Refresh: c.Refresh, Retry: c.Retry, Expire: c.Expire, Minttl: c.Minimum,
	}
}

func (s *Server) answers(owner string, found []records.Record, t records.Type) []dns.RR {
	var out []dns.RR
	for _, r := range found {
		if r.Type != t {
			continue
		}
		h := s.header(owner, uint16(t))
		switch t {
		case records.A:
			out = append(out, &dns.A{Hdr: h, A: net.IP(r.Addr.AsSlice())})
		case records.AAAA:
			out = append(out, &dns.AAAA{Hdr: h, AAAA: net.IP(r.Addr.AsSlice())})
		case records.SRV:
			out = append(out, &dns.SRV{Hdr: h, Weight: s.zone.Config().Weight, Port: r.Port, Target: r.Target})
		}
	}
	return out
}

// additional gives the targets' addresses, one of each family as the hot path does.
func (s *Server) additional(answers []dns.RR) []dns.RR {
	var out []dns.RR
	done := map[string]bool{}
	for _, rr := range answers {
		srv, ok := rr.(*dns.SRV)
		if !ok || done[srv.Target] {
			continue
		}
		done[srv.Target] = true
		found, _ := s.zone.Lookup(srv.Target)
		for _, t := range []records.Type{records.A, records.AAAA} {
			if list := s.answers(srv.Target, found, t); len(list) > 0 {
				out = append(out, list[0])
			}
		}
	}
	return out
}
