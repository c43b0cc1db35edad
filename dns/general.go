package dns

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"github.com/miekg/dns"

	"starling/dns/forward"
)

// general is what the general path has beside the zone.
type general struct {
	// forward asks others for foreign names; nil where those are refused.
	forward *forward.Forwarder
	access  access
	// transfers has room for those that may be under way at once, computing for those who make answers.
	transfers, computing chan struct{}
}

func newGeneral(c Config) (*general, error) {
	g := &general{access: newAccess(c), transfers: make(chan struct{}, maxTransfers), computing: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if c.Forward == nil {
		return g, nil
	}
	f := *c.Forward
	f.Domain, f.Metrics, f.Log = c.Zone.Domain, c.Metrics, c.Log
	bound := c.bound()
	f.Self = func(a netip.AddrPort) bool {
		return slices.ContainsFunc(bound, func(b netip.AddrPort) bool { return isSelf(b, a, net.InterfaceAddrs) })
	}
	var err error
	g.forward, err = forward.New(f)
	return g, err
}

// run goes on for as long as queries are answered.
func (g *general) run(ctx context.Context) error {
	var looking sync.WaitGroup
	defer looking.Wait()
	if n := g.access.neighbours; n != nil {
		looking.Go(func() { n.run(ctx) })
	}
	if g.forward == nil {
		return nil
	}
	return g.forward.Run(ctx)
}

// client is who asks, how, and for how many octets there is room.
type client struct {
	addr netip.Addr
	tcp  bool
	size int
}

// slow answers what the hot path left, over UDP. It returns nil for what deserves no answer, and may wait for resolvers.
func (s *Server) slow(ctx context.Context, query []byte, from netip.AddrPort) []byte {
	s.metrics.general.Inc()
	var q dns.Msg
	if err := q.Unpack(query); err != nil {
		s.metrics.malformed.Inc()
		return malformed(query)
	}
	if q.Response {
		return nil
	}
	size := udpSize(&q)
	m := s.respond(ctx, &q, client{addr: from.Addr(), size: size})
	s.fit(m, size)
	return pack(m)
}

// maxPayload is the largest answer over UDP, as on the hot path.
const maxPayload = 1232

func udpSize(q *dns.Msg) int {
	if o := q.IsEdns0(); o != nil {
		return min(max(dns.MinMsgSize, int(o.UDPSize())), maxPayload)
	}
	return dns.MinMsgSize
}

// malformed says that a packet is not understood, where it has at least a header; an answer is never answered. What an
// operation that we do not know looks like inside is not ours to judge.
func malformed(query []byte) []byte {
	if len(query) < 12 || query[2]&0x80 != 0 {
		return nil
	}
	m := &dns.Msg{MsgHdr: dns.MsgHdr{
		Id: uint16(query[0])<<8 | uint16(query[1]), Response: true, Opcode: int(query[2]>>3) & 0xf,
		RecursionDesired: query[2]&1 != 0, Rcode: dns.RcodeFormatError,
	}}
	if m.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeNotImplemented
	}
	return pack(m)
}

func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// fit takes records out of an answer that is too large: first the additional ones, which nobody misses, then answers from
// the end, which TC tells of.
func (s *Server) fit(m *dns.Msg, size int) {
	answers, ns, already := len(m.Answer), len(m.Ns), m.Truncated
	m.Truncate(size)
	cut := len(m.Answer) < answers || (answers == 0 && len(m.Ns) < ns)
	m.Truncated = already || cut && !s.zone.Config().NoTruncateBit
	m.Compress = true
}

// messageWriter sends messages to a client over TCP.
type messageWriter interface {
	WriteMsg(m *dns.Msg) error
}

func (s *Server) answerTCP(ctx context.Context, w messageWriter, q *dns.Msg, c client) error {
	c.size = dns.MaxMsgSize
	m := s.respond(ctx, q, c)
	if wantsTransfer(q) && m.Rcode == dns.RcodeSuccess {
		return s.transfer(ctx, w, q, m)
	}
	s.fit(m, dns.MaxMsgSize)
	return w.WriteMsg(m)
}

// respond makes the whole answer to any query; what is in the domain comes from the same zone as on the hot path. Of a
// transfer it says whether it may be.
func (s *Server) respond(ctx context.Context, q *dns.Msg, c client) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = !s.zone.Config().NoRecursion
	m.Compress = true
	opts := 0
	for _, rr := range q.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			opts++
		}
	}
	if o := q.IsEdns0(); o != nil {
		// DO is echoed (RFC 3225, 3); nothing is signed here.
		m.SetEdns0(maxPayload, o.Do())
		if o.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
		return m
	case len(q.Question) != 1 || opts > 1:
		m.Rcode = dns.RcodeFormatError
		return m
	}
	switch q.Question[0].Qclass {
	case dns.ClassINET, dns.ClassANY:
	case dns.ClassCHAOS:
		return s.chaos(m)
	default:
		return s.refuse(m, refusedClass)
	}
	name := zoneName(q.Question[0].Name)
	switch {
	case s.zone.InDomain(name):
		return s.ours(ctx, m, name, c)
	case s.reverse(m, name):
		return m
	default:
		return s.foreign(ctx, q, m, c)
	}
}

// ours answers for a name of the zone's, one of a few at once.
func (s *Server) ours(ctx context.Context, m *dns.Msg, name string, c client) *dns.Msg {
	done, ok := s.general.compute(ctx)
	if !ok {
		m.Rcode = dns.RcodeServerFailure
		return m
	}
	defer done()
	return s.inDomain(m, name, c)
}

// The reasons of a refusal, as the metric has them.
const (
	refusedClass     = "class"         // a class that nothing is known of
	refusedClient    = "client"        // one who may not ask for foreign names
	refusedForeign   = "not_forwarded" // nobody may, or not for such a type
	refusedResolvers = "no_resolvers"
	refusedTransfer  = "transfer"
)

// refuse makes an answer one that says nothing of the name.
func (s *Server) refuse(m *dns.Msg, reason string) *dns.Msg {
	s.metrics.refused.WithLabelValues(reason).Inc()
	m.Rcode = dns.RcodeRefused
	m.Authoritative, m.RecursionAvailable = false, false
	return m
}

// chaos tells who answers, to those who debug (RFC 4892).
func (s *Server) chaos(m *dns.Msg) *dns.Msg {
	q := m.Question[0]
	text := ""
	switch dns.CanonicalName(q.Name) {
	case "version.bind.", "version.server.":
		text = s.config.Version
	case "hostname.bind.", "id.server.":
		text = s.config.Hostname
	}
	if text == "" {
		return s.refuse(m, refusedClass)
	}
	m.Authoritative = true
	if q.Qtype == dns.TypeTXT || q.Qtype == dns.TypeANY {
		m.Answer = []dns.RR{&dns.TXT{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeTXT, Class: dns.ClassCHAOS}, Txt: []string{text[:min(len(text), 255)]},
		}}
	}
	return m
}
