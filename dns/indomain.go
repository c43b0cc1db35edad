package dns

import (
	"net"
	"strings"

	"github.com/miekg/dns"

	"starling/dns/records"
)

// zoneName is the name that a question means: Mesos-DNS cuts its wild card out of a name before it looks, and the zone has
// the octets themselves where miekg/dns escapes some. A dot within a label has no place there; it stays escaped, and is
// not found.
func zoneName(name string) string {
	name = strings.ReplaceAll(name, ".*", "")
	if !strings.Contains(name, `\`) {
		return name
	}
	b := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c != '\\' || i+1 == len(name) {
			b = append(b, c)
			continue
		}
		i++
		switch c = name[i]; {
		case c == '.':
			b = append(b, '\\', '.')
		case '0' <= c && c <= '9' && i+2 < len(name):
			if c = (c-'0')*100 + (name[i+1]-'0')*10 + name[i+2] - '0'; c == '.' {
				b = append(b, '\\')
			}
			b = append(b, c)
			i += 2
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

// printable is the opposite: a zone's name as miekg/dns has names.
func printable(name string) string {
	plain := true
	for i := range len(name) {
		c := name[i]
		plain = plain && (c == '-' || c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
	}
	if plain {
		return name
	}
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; c {
		case ' ', '\'', '@', ';', '(', ')', '"', '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			if c < ' ' || c > '~' {
				b.Write([]byte{'\\', '0' + c/100, '0' + c/10%10, '0' + c%10})
				continue
			}
			b.WriteByte(c)
		}
	}
	return b.String()
}

// inDomain answers for a name of the zone's.
func (s *Server) inDomain(m *dns.Msg, name string, c client) *dns.Msg {
	question := m.Question[0]
	m.Authoritative = true
	m.CheckingDisabled = false // it is not ours to set (RFC 4035, 3.1.6)
	apex := dns.CountLabel(question.Name) == dns.CountLabel(s.zone.Config().Domain+".")
	switch {
	case wantsTransfer(m):
		return s.mayTransfer(m, apex, c)
	case apex && (question.Qtype == dns.TypeSOA || question.Qtype == dns.TypeANY):
		m.Answer = []dns.RR{s.soa(question.Name, false)}
		return m
	case apex && question.Qtype == dns.TypeNS:
		ns := s.ns(question.Name)
		m.Answer, m.Extra = []dns.RR{ns}, append(s.addresses(ns.Ns, false), m.Extra...)
		return m
	}
	near := s.isNear(name)
	if near {
		name = s.far(name)
	}
	found, exists := s.zone.Find(name)
	qtype := records.Type(question.Qtype)
	if question.Qtype == dns.TypeANY {
		qtype = found.Type() // one set is a whole answer to ANY (RFC 8482, 4.1)
	}
	s.answer(m, found, qtype, near, c.size)
	if len(m.Answer) == 0 && !m.Truncated {
		// Clients that ask for A and AAAA take SERVFAIL of either for both. Where it is not known for how long the mesh will not be heard, a
		// name that is there has what it is known to have.
		if held := found.Type() != 0; !s.Synced() && !(held && s.waited.Load()) {
			return notKnown(m)
		}
		return s.nothing(m, exists)
	}
	return m
}

// notKnown is said of a name that is not known before the mesh was heard.
func notKnown(m *dns.Msg) *dns.Msg {
	m.Rcode = dns.RcodeServerFailure
	m.Authoritative = false
	return m
}

// nothing says that a name does not exist, or has nothing of the type that was asked for.
func (s *Server) nothing(m *dns.Msg, exists bool) *dns.Msg {
	switch {
	case !exists && m.Question[0].Qtype == dns.TypeSRV && s.zone.Config().SRVNoData:
		return m // as Mesos-DNS does, without a SOA
	case !exists:
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = []dns.RR{s.soa(s.zone.Config().Domain+".", true)}
	return m
}

func (s *Server) header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: s.zone.Config().TTL}
}

// soa is the SOA; in an answer that denies its TTL is that of the denial (RFC 2308, 3).
func (s *Server) soa(owner string, denies bool) *dns.SOA {
	soa := s.zone.SOA()
	h := s.header(owner, dns.TypeSOA)
	if denies {
		h.Ttl = soa.NegativeTTL
	}
	return &dns.SOA{
		Hdr: h, Ns: soa.Mname, Mbox: soa.Rname, Serial: soa.Serial,
		Refresh: soa.Refresh, Retry: soa.Retry, Expire: soa.Expire, Minttl: soa.Minimum,
	}
}

func (s *Server) ns(owner string) *dns.NS {
	return &dns.NS{Hdr: s.header(owner, dns.TypeNS), Ns: s.zone.Config().Mname + "."}
}

// answers makes records of the zone's ones, in their order.
func (s *Server) answers(owner string, list []records.Record) []dns.RR {
	out := make([]dns.RR, 0, len(list))
	for _, r := range list {
		h := s.header(owner, uint16(r.Type))
		switch r.Type {
		case records.A:
			out = append(out, &dns.A{Hdr: h, A: net.IP(r.Addr.AsSlice())})
		case records.AAAA:
			out = append(out, &dns.AAAA{Hdr: h, AAAA: net.IP(r.Addr.AsSlice())})
		case records.SRV:
			out = append(out, &dns.SRV{Hdr: h, Weight: s.zone.Config().Weight, Port: r.Port, Target: printable(r.Target)})
		case records.PTR:
			out = append(out, &dns.PTR{Hdr: h, Ptr: printable(r.Target)})
		}
	}
	return out
}
