package dns

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"starling/dns/records"
)

// Bounds of zone transfers: how many may be under way at once, how long one may take, and about how many octets of records
// go into one message, so that names are still compressed well (they can be only in the first 16 KiB).
const (
	maxTransfers    = 4
	transferTimeout = time.Minute
	transferMessage = 16 << 10
)

// Loopback is this machine: who may transfer the zone by default.
var Loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func wantsTransfer(q *dns.Msg) bool {
	return len(q.Question) == 1 && (q.Question[0].Qtype == dns.TypeAXFR || q.Question[0].Qtype == dns.TypeIXFR)
}

// mayTransfer refuses a transfer to those who may not have it, and over UDP, where only a question for news is answered:
// with the SOA, which says that there are some over TCP (RFC 1995, 2).
func (s *Server) mayTransfer(m *dns.Msg, apex bool, c client) *dns.Msg {
	networks := s.config.Transfer
	if networks == nil {
		networks = Loopback
	}
	switch {
	case !apex || !Permits(networks, c.addr):
		return s.refuse(m, refusedTransfer)
	case !s.Synced():
		m.Rcode = dns.RcodeServerFailure
		return m
	case c.tcp:
		return m
	case m.Question[0].Qtype == dns.TypeAXFR:
		return s.refuse(m, refusedTransfer)
	}
	m.Answer = []dns.RR{s.soa(m.Question[0].Name, false)}
	return m
}

// transfer sends the whole zone (RFC 5936), also to one who asks for what is new (RFC 1995, 4): no history is kept. It
// is as of one moment, however long it takes.
func (s *Server) transfer(ctx context.Context, w messageWriter, q, m *dns.Msg) error {
	select {
	case s.general.transfers <- struct{}{}:
		defer func() { <-s.general.transfers }()
	default:
		m.Rcode = dns.RcodeServerFailure
		return w.WriteMsg(m)
	}
	s.metrics.transfers.Inc()
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	apex := s.zone.Config().Domain + "."
	serial, all := s.zone.Transfer()
	soa := s.soa(apex, false)
	soa.Serial = serial
	if current(q, serial) {
		m.Answer = []dns.RR{soa}
		return w.WriteMsg(m)
	}
	ns := s.ns(apex)
	m.Answer = []dns.RR{soa, ns}
	size := 0
	for r := range all {
		if !s.zone.InDomain(r.Name) {
			continue // the names of addresses
		}
		for _, rr := range s.answers(printable(r.Name), []records.Record{r}) {
			size += dns.Len(rr)
			m.Answer = append(m.Answer, rr)
		}
		if size < transferMessage {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.WriteMsg(m); err != nil {
			return err
		}
		m.Answer, size = m.Answer[:0], 0
	}
	m.Answer = append(m.Answer, soa)
	return w.WriteMsg(m)
}

// current tells whether one who asks for what is new has it all.
func current(q *dns.Msg, serial uint32) bool {
	if q.Question[0].Qtype != dns.TypeIXFR {
		return false
	}
	for _, rr := range q.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa.Serial == serial
		}
	}
	return false
}
