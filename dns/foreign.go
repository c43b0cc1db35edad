package dns

import (
	"context"
	"errors"
	"net/netip"

	"github.com/miekg/dns"

	"starling/dns/forward"
	"starling/dns/records"
)

// reverse answers for the name of an address that the cluster owns. Where several share the address, or it is not known,
// others may know better.
func (s *Server) reverse(m *dns.Msg, owner string) bool {
	if t := m.Question[0].Qtype; t != dns.TypePTR && t != dns.TypeANY {
		return false
	}
	name, _ := s.zone.Find(owner)
	var found []records.Record
	for v := range name.Values(records.PTR) {
		if found = append(found, v.Record()); len(found) > 1 {
			return false
		}
	}
	if len(found) == 0 {
		return false
	}
	m.Authoritative = true
	m.Answer = s.answers(m.Question[0].Name, found)
	return true
}

// Resolvers lists who is asked now for names outside of the domain that are in no zone with resolvers of its own.
func (s *Server) Resolvers() []netip.AddrPort {
	if s.general.forward == nil {
		return nil
	}
	return s.general.forward.Resolvers(".")
}

// foreign answers for a name outside of the domain, for those who may ask.
func (s *Server) foreign(ctx context.Context, q, m *dns.Msg, c client) *dns.Msg {
	switch {
	case s.general.forward == nil || meta(m.Question[0].Qtype):
		return s.refuse(m, refusedForeign)
	case !s.Allowed(c.addr):
		return s.refuse(m, refusedClient)
	}
	answer, err := s.general.forward.Exchange(ctx, q, c.tcp)
	switch {
	case errors.Is(err, forward.ErrNoResolvers):
		return s.refuse(m, refusedResolvers)
	case err != nil:
		m.Rcode = dns.RcodeServerFailure
		return m
	}
	answer.Extra = append(answer.Extra, m.Extra...) // our EDNS0 record
	s.chase(ctx, answer, m.Extra, c)
	return answer
}

// meta tells of types that are not of records but of transfers, keys of the transport and the like; ANY is one that others
// may answer.
func meta(qtype uint16) bool {
	return qtype == dns.TypeOPT || qtype >= 128 && qtype < dns.TypeANY
}

// chase ends a chain of aliases that leads into our domain. What others say of that is dropped, which is for all but us
// that there is no such name: whether there is one, and what it has, is ours to say, and so is the end of the answer. It
// has the extra records, of EDNS0, that are ours.
func (s *Server) chase(ctx context.Context, m *dns.Msg, extra []dns.RR, c client) {
	if len(m.Answer) == 0 {
		return
	}
	last, ok := m.Answer[len(m.Answer)-1].(*dns.CNAME)
	question := m.Question[0]
	if !ok || question.Qtype == dns.TypeCNAME || !s.zone.InDomain(zoneName(last.Target)) {
		return
	}
	own := &dns.Msg{Question: []dns.Question{{Name: last.Target, Qtype: question.Qtype, Qclass: question.Qclass}}, Extra: extra}
	// What is there already takes its part of the room.
	c.size -= m.Len() - own.Len()
	s.ours(ctx, own, zoneName(last.Target), c)
	m.Answer = append(m.Answer, own.Answer...)
	m.Rcode, m.Ns, m.Extra = own.Rcode, own.Ns, own.Extra
	m.Truncated = m.Truncated || own.Truncated
	m.AuthenticatedData = false
}
