package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"starling/dns/forward"
)

// upstream is a real DNS server on loopback that knows a few names, over UDP and TCP.
func upstream(t testing.TB, asked *atomic.Int32) netip.AddrPort {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		add := func(text string) {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		switch name := q.Question[0].Name; name {
		case "www.example.":
			add("www.example. 300 IN A 192.0.2.80")
		case "app.example.":
			add("app.example. 300 IN CNAME alias.example.")
			add("alias.example. 300 IN CNAME web.marathon.mesos.")
			add("web.marathon.mesos. 300 IN A 203.0.113.66") // a lie
		case "real.example.", "none.example.", "other.example.", "near.example.":
			// What a resolver says that asks the world, which has no such top-level domain.
			target := map[string]string{"real": "web.marathon.mesos.", "none": "nobody.marathon.mesos.", "other": "marathon.mesos.", "near": "web.marathon.near.mesos."}
			add(name + " 300 IN CNAME " + target[strings.TrimSuffix(name, ".example.")])
			m.Rcode = dns.RcodeNameError
			rr, _ := dns.NewRR(". 300 IN SOA a.root. root. 1 2 3 4 60")
			m.Ns = []dns.RR{rr}
		case "big.example.":
			for i := range 100 {
				add(fmt.Sprintf("big.example. 300 IN A 192.0.2.%d", i))
			}
			if w.LocalAddr().Network() == "udp" {
				m.Truncate(int(q.IsEdns0().UDPSize()))
			}
		case "broken.example.":
			m.Rcode = dns.RcodeServerFailure
		case "9.9.0.10.in-addr.arpa.":
			add("9.9.0.10.in-addr.arpa. 300 IN PTR host.example.")
		default:
			m.Rcode = dns.RcodeNameError
			rr, _ := dns.NewRR("example. 300 IN SOA ns.example. root.example. 1 2 3 4 60")
			m.Ns = []dns.RR{rr}
		}
		_ = w.WriteMsg(m)
	})
	tcp, udp := both(t)
	for _, server := range []*dns.Server{{Listener: tcp, Handler: handler}, {PacketConn: udp, Handler: handler}} {
		started, done := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(started) }
		go func() { done <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
	return netip.MustParseAddrPort(tcp.Addr().String())
}

// both listens on one port of loopback that is free for TCP and UDP.
func both(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for try := 1; ; try++ {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp
		}
		if tcp.Close(); try == listenTries {
			t.Fatal(err)
		}
	}
}

func withUpstream(t testing.TB, change func(c *Config)) (s *Server, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	at := upstream(t, asked)
	s = bare(t, func(c *Config) {
		c.Forward = &forward.Config{Resolvers: []netip.AddrPort{at}}
		if change != nil {
			change(c)
		}
	})
	fill(s)
	return s, asked
}

func TestForeignNames(t *testing.T) {
	s, _ := withUpstream(t, func(c *Config) {
		c.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
		c.Ranker = ranks{}
	})
	for _, c := range []Case{
		{Name: "a name", Ask: "wWw.example. A", From: "10.1.2.3", Flags: "ra", Answer: []string{"wWw.example. 300 IN A 192.0.2.80"}},
		{Name: "from an IPv4 address in IPv6 form", Ask: "www.example. A", From: "::ffff:10.1.2.3", Flags: "ra", Answer: []string{"www.example. 300 IN A 192.0.2.80"}},
		{Name: "from an IPv6 address", Ask: "www.example. A", From: "fd00::1", Change: edns(1232, true), Flags: "ra", Answer: []string{"www.example. 300 IN A 192.0.2.80"}},
		{Name: "from elsewhere", Ask: "www.example. A", From: "192.0.2.1", Change: edns(1232, false), Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "from elsewhere, in IPv6", Ask: "www.example. A", From: "2001:db8::1", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "from here, when only others may", Ask: "www.example. A", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "what is ours is told to all", Ask: "web.marathon.mesos. A", From: "192.0.2.1", Answer: []string{"web.marathon.mesos. 5 IN A 10.1.0.1"}},
		{
			Name: "no name", Ask: "nobody.example. A", From: "10.1.2.3", Rcode: dns.RcodeNameError, Flags: "ra",
			Ns: []string{"example. 60 IN SOA ns.example. root.example. 0 2 3 4 60"},
		},
		{Name: "trouble upstream", Ask: "broken.example. A", From: "10.1.2.3", Rcode: dns.RcodeServerFailure, Flags: "ra"},
		{Name: "a transfer of another zone", Ask: "example. AXFR", From: "10.1.2.3", Rcode: dns.RcodeRefused, Flags: "-"},
		{
			Name: "an alias that leads to us: only we say what is there", Ask: "app.example. A", From: "10.1.2.3", Flags: "ra",
			Answer: []string{
				"app.example. 300 IN CNAME alias.example.", "alias.example. 300 IN CNAME web.marathon.mesos.", "web.marathon.mesos. 5 IN A 10.1.0.1",
			},
		},
		{
			Name: "an alias that leads to us, as the world knows it", Ask: "real.example. A", From: "10.1.2.3", Flags: "ra",
			Answer: []string{"real.example. 300 IN CNAME web.marathon.mesos.", "web.marathon.mesos. 5 IN A 10.1.0.1"},
		},
		{
			Name: "to a name that we have not", Ask: "none.example. A", From: "10.1.2.3", Rcode: dns.RcodeNameError, Flags: "ra", Change: edns(1232, false),
			Answer: []string{"none.example. 300 IN CNAME nobody.marathon.mesos."}, Ns: soaOnly(),
		},
		{
			Name: "to one without such records", Ask: "other.example. A", From: "10.1.2.3", Flags: "ra",
			Answer: []string{"other.example. 300 IN CNAME marathon.mesos."}, Ns: soaOnly(),
		},
		{
			Name: "to the nearest", Ask: "near.example. A", From: "10.1.2.3", Flags: "ra",
			Answer: []string{"near.example. 300 IN CNAME web.marathon.near.mesos.", "web.marathon.near.mesos. 5 IN A 10.1.0.1"},
		},
	} {
		c.run(t, s)
	}
	s.synced.Store(false)
	Case{
		Name: "an alias to what may be ours, before we know", Ask: "none.example. A", From: "10.1.2.3", Rcode: dns.RcodeServerFailure, Flags: "ra",
		Answer: []string{"none.example. 300 IN CNAME nobody.marathon.mesos."},
	}.run(t, s)
}

func TestRefusalsAndCodesAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	s, _ := withUpstream(t, func(c *Config) { c.Metrics = registry })
	for ask, from := range map[string]string{
		"www.example. A": "192.0.2.1", "example. AXFR": "", "mesos. AXFR": "192.0.2.1", "x.example. A HS": "", "web.marathon.mesos. TXT": "", "broken.example. A": "",
	} {
		askTCP(t, s, Case{Ask: ask}.query(t), from)
	}
	loop := newFast(s)
	for _, name := range []string{"web.marathon.mesos.", "nobody.marathon.mesos."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		loop.Answer(b, make([]byte, 1500), clientAt(""))
		s.work(t.Context(), b, clientAt(""))
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if name := f.GetName(); name == "starling_dns_refused_total" || name == "starling_dns_answers_total" {
			for _, m := range f.GetMetric() {
				got[strings.TrimPrefix(name, "starling_dns_")+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	for what, want := range map[string]float64{
		"refused_total client": 1, "refused_total not_forwarded": 1, "refused_total transfer": 1, "refused_total class": 1,
		"answers_total NOERROR": 2, "answers_total NXDOMAIN": 2,
	} {
		if got[what] != want {
			t.Errorf("%s is %v, want %v", what, got[what], want)
		}
	}
}

func TestALargeForeignAnswer(t *testing.T) {
	s, asked := withUpstream(t, nil)
	ask := Case{Ask: "big.example. A", Change: edns(1232, false)}
	if m := askUDP(t, s, ask.query(t), ""); !m.Truncated || len(m.Answer) == 0 {
		t.Errorf("over UDP: TC %v with %d answers, want what fits, and TC", m.Truncated, len(m.Answer))
	}
	if m := askTCP(t, s, ask.query(t), "")[0]; m.Truncated || len(m.Answer) != 100 {
		t.Errorf("over TCP: TC %v with %d answers, want all", m.Truncated, len(m.Answer))
	}
	before := asked.Load()
	if m := askUDP(t, s, ask.query(t), ""); !m.Truncated || asked.Load() != before {
		t.Errorf("over UDP from the cache: TC %v, asked %d times more", m.Truncated, asked.Load()-before)
	}
}

func TestWhatOthersCutIsToldAlsoWhereOurOwnIsNot(t *testing.T) {
	s, _ := withUpstream(t, func(c *Config) { c.Zone.NoTruncateBit = true })
	if m := askUDP(t, s, Case{Ask: "big.example. A", Change: edns(1232, false)}.query(t), ""); !m.Truncated {
		t.Errorf("no TC with %d answers of 100", len(m.Answer))
	}
	many(s, 200)
	if m := askUDP(t, s, Case{Ask: "many.marathon.mesos. ANY"}.query(t), ""); m.Truncated {
		t.Error("TC with what we cut, against the configuration")
	}
}

func TestNobodyAnswersForeignNames(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort(closed.LocalAddr().String())
	closed.Close()
	for _, tc := range []struct {
		name    string
		forward *forward.Config
		rcode   int
		flags   string
	}{
		{"forwarding is off", nil, dns.RcodeRefused, "-"},
		{"no resolvers", &forward.Config{Resolvers: []netip.AddrPort{}}, dns.RcodeRefused, "-"},
		{"a dead one", &forward.Config{Resolvers: []netip.AddrPort{dead}, Timeout: time.Second}, dns.RcodeServerFailure, "ra"},
	} {
		s := bare(t, func(c *Config) { c.Forward = tc.forward })
		Case{Name: tc.name, Ask: "www.example. A", Rcode: tc.rcode, Flags: tc.flags}.run(t, s)
	}
}

func TestOurselvesAreNotAsked(t *testing.T) {
	s := bare(t, func(c *Config) {
		c.Forward = &forward.Config{Resolvers: []netip.AddrPort{c.Listen[0].Addr()}}
	})
	Case{Name: "the only resolver is this server", Ask: "www.example. A", Rcode: dns.RcodeRefused, Flags: "-"}.run(t, s)
}

// Budget: 10 us for a cached foreign name from packet to packet.
func BenchmarkForeignCached(b *testing.B) {
	s, _ := withUpstream(b, nil)
	benchmarkSlow(b, s, "www.example.", dns.TypeA)
}

// Budget: 10 us for the general path's answer.
func BenchmarkGeneral(b *testing.B) {
	s := bare(b, nil)
	fill(s)
	benchmarkSlow(b, s, "_web._tcp.marathon.mesos.", dns.TypeSRV)
}

func benchmarkSlow(b *testing.B, s *Server, name string, qtype uint16) {
	b.Helper()
	query, err := new(dns.Msg).SetQuestion(name, qtype).SetEdns0(1232, false).Pack()
	if err != nil {
		b.Fatal(err)
	}
	ctx, from := context.Background(), clientAt("")
	b.ReportAllocs()
	for b.Loop() {
		if m := s.slow(ctx, query, from); m == nil || m[3]&0xf != 0 {
			b.Fatal("no answer")
		}
	}
}
