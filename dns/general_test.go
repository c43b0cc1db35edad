package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"starling/dns/records"
	"starling/gossip/record"
)

func emptyMesh() Source { return record.NewMap("reader", 1) }

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// fill gives a server a small cluster.
func fill(s *Server) {
	put := func(source string, list []records.Record) { s.zone.Replace(source, list) }
	put("web", records.Task{
		ID: "web.id-0", Name: "web", Framework: "marathon", AgentID: "x-S0", Agent: addrs("10.1.0.1"), HostPorts: []uint16{31000},
	}.Records("mesos"))
	put("v6", records.Task{
		ID: "v6.1", Name: "v6", Framework: "marathon", AgentID: "x-S20", Agent: addrs("2001:db8::20"), Discovery: "v6",
		Ports: []records.Port{{Number: 80, Name: "http", Protocol: "tcp"}},
	}.Records("mesos"))
	put("deep", records.Task{ID: "c.b.a.id-0", Name: "c.b.a", Framework: "marathon", AgentID: "x-S1", Agent: addrs("10.1.0.2"), Discovery: "c.b.a"}.Records("mesos"))
	put("odd", records.Task{ID: "odd.1", Name: "Ärger", Framework: "marathon", AgentID: "x-S1", Agent: addrs("10.1.0.2"), Discovery: "Ärger"}.Records("mesos"))
	at := records.Master{Addr: netip.MustParseAddr("10.0.0.1"), Port: 5050}
	put("cluster", records.Cluster{Leader: &at, Masters: []records.Master{at}}.Records("mesos"))
}

const (
	soaText  = "mesos. 5 IN SOA ns1.mesos. root.ns1.mesos. 0 60 600 86400 5"
	webHash  = "8epxj" // of the task id web.id-0
	webSlave = "web-" + webHash + "-s0.marathon.slave.mesos."
)

func soaOnly() []string { return []string{soaText} }

func edns(size uint16, do bool) func(q *dns.Msg) { return func(q *dns.Msg) { q.SetEdns0(size, do) } }

// The rows of section 6 of the specification of Mesos-DNS, as its decision changes them.
func TestAnswersInTheDomain(t *testing.T) {
	s := bare(t, func(c *Config) { c.Version, c.Hostname = "starling 1", "node-1" })
	fill(s)
	for _, c := range []Case{
		{Name: "an A", Ask: "web.marathon.mesos. A", Answer: []string{"web.marathon.mesos. 5 IN A 10.1.0.1"}},
		{Name: "an AAAA", Ask: "v6.marathon.mesos. AAAA", Answer: []string{"v6.marathon.mesos. 5 IN AAAA 2001:db8::20"}},
		{Name: "the case of the question is echoed", Ask: "wEb.MARATHON.mesoS. A", Answer: []string{"wEb.MARATHON.mesoS. 5 IN A 10.1.0.1"}},
		{Name: "the raw name of an app in groups", Ask: "c.b.a.marathon.mesos. A", Answer: []string{"c.b.a.marathon.mesos. 5 IN A 10.1.0.2"}},
		{
			Name: "an SRV, with its target's address", Ask: "_web._tcp.marathon.mesos. SRV",
			Answer: []string{"_web._tcp.marathon.mesos. 5 IN SRV 0 1 31000 " + webSlave},
			Extra:  []string{webSlave + " 5 IN A 10.1.0.1"},
		},
		{
			Name: "an SRV whose target has an AAAA alone, in the question's case", Ask: "_HTTP._v6._tcp.marathon.mesos. SRV",
			Answer: []string{"_HTTP._v6._tcp.marathon.mesos. 5 IN SRV 0 1 80 v6-weqo9-s20.marathon.mesos."},
			Extra:  []string{"v6-weqo9-s20.marathon.mesos. 5 IN AAAA 2001:db8::20"},
		},
		{
			Name: "letters outside of ASCII, which have no case", Ask: `\195\132RGER.marathon.mesos. A`,
			Answer: []string{`\195\132RGER.marathon.mesos. 5 IN A 10.1.0.2`},
		},
		{Name: "nor the same in another case of those", Ask: `\195\164rger.marathon.mesos. A`, Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "no AAAA where there is an A", Ask: "web.marathon.mesos. AAAA", Ns: soaOnly()},
		{Name: "no A where there is an AAAA", Ask: "v6.marathon.mesos. A", Ns: soaOnly()},
		{Name: "no SRV where there is an A", Ask: "web.marathon.mesos. SRV", Ns: soaOnly()},
		{Name: "no A where there is an SRV", Ask: "_web._tcp.marathon.mesos. A", Ns: soaOnly()},
		{Name: "no other type", Ask: "web.marathon.mesos. TXT", Ns: soaOnly()},
		{Name: "no DS below the apex", Ask: "marathon.mesos. DS", Ns: soaOnly()},
		{Name: "an A of no name", Ask: "nobody.marathon.mesos. A", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "an AAAA of no name", Ask: "nobody.marathon.mesos. AAAA", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "a TXT of no name", Ask: "nobody.marathon.mesos. TXT", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "an MX of no name", Ask: "nobody.mesos. MX", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "a PTR of no name", Ask: "nobody.mesos. PTR", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "an SRV of no name", Ask: "_nobody._tcp.marathon.mesos. SRV", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "the SOA at the apex", Ask: "Mesos. SOA", Answer: []string{strings.Replace(soaText, "mesos.", "Mesos.", 1)}},
		{Name: "the NS at the apex", Ask: "mesos. NS", Answer: []string{"mesos. 5 IN NS ns1.mesos."}},
		{Name: "a SOA below it", Ask: "web.marathon.mesos. SOA", Ns: soaOnly()},
		{Name: "an NS below it", Ask: "web.marathon.mesos. NS", Ns: soaOnly()},
		{Name: "a SOA of no name", Ask: "nobody.mesos. SOA", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "ANY is one set (RFC 8482)", Ask: "web.marathon.mesos. ANY", Answer: []string{"web.marathon.mesos. 5 IN A 10.1.0.1"}},
		{
			Name: "ANY of a service", Ask: "_web._tcp.marathon.mesos. ANY",
			Answer: []string{"_web._tcp.marathon.mesos. 5 IN SRV 0 1 31000 " + webSlave}, Extra: []string{webSlave + " 5 IN A 10.1.0.1"},
		},
		{Name: "ANY of no name", Ask: "nobody.mesos. ANY", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "ANY of a name in between", Ask: "marathon.mesos. ANY", Ns: soaOnly()},
		{Name: "ANY at the apex", Ask: "mesos. ANY", Answer: []string{soaText}},
		{Name: "no A at the apex", Ask: "mesos. A", Ns: soaOnly()},
		{Name: "a name in between exists", Ask: "marathon.mesos. A", Ns: soaOnly()},
		{Name: "another", Ask: "_tcp.marathon.mesos. SRV", Ns: soaOnly()},
		{Name: "the parts of a raw name too", Ask: "b.a.marathon.mesos. A", Ns: soaOnly()},
		{Name: "the wild card is cut out", Ask: "web.*.marathon.mesos. A", Answer: []string{"web.*.marathon.mesos. 5 IN A 10.1.0.1"}},
		{Name: "a star at the front is no wild card", Ask: "*.web.marathon.mesos. A", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "an escaped dot is no dot", Ask: `web\.marathon.mesos. A`, Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "DO is echoed", Ask: "web.marathon.mesos. A", Change: edns(4096, true), Answer: []string{"web.marathon.mesos. 5 IN A 10.1.0.1"}},
		{Name: "also by the general path", Ask: "web.marathon.mesos. ANY", Change: edns(4096, true), Answer: []string{"web.marathon.mesos. 5 IN A 10.1.0.1"}},
		{
			Name: "CD is not", Ask: "web.marathon.mesos. A", Change: func(q *dns.Msg) { q.CheckingDisabled = true },
			Answer: []string{"web.marathon.mesos. 5 IN A 10.1.0.1"},
		},
		{
			Name: "options are passed over, cookies too", Ask: "nobody.mesos. A", Rcode: dns.RcodeNameError, Ns: soaOnly(),
			Change: func(q *dns.Msg) {
				q.SetEdns0(512, false)
				q.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}}
			},
		},
		{Name: "class ANY is IN among others", Ask: "web.marathon.mesos. A ANY", Answer: []string{"web.marathon.mesos. 5 IN A 10.1.0.1"}},
		{Name: "another class", Ask: "web.marathon.mesos. A HS", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "class CH", Ask: "web.marathon.mesos. A CH", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "who answers", Ask: "VERSION.bind. TXT CH", Answer: []string{`VERSION.bind. 0 CH TXT "starling 1"`}},
		{Name: "the same", Ask: "version.server. TXT CH", Answer: []string{`version.server. 0 CH TXT "starling 1"`}},
		{Name: "where", Ask: "hostname.bind. ANY CH", Answer: []string{`hostname.bind. 0 CH TXT "node-1"`}},
		{Name: "where again", Ask: "id.server. TXT CH", Answer: []string{`id.server. 0 CH TXT "node-1"`}},
		{Name: "the authors are not told", Ask: "authors.bind. TXT CH", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "another operation", Ask: "mesos. SOA", Change: func(q *dns.Msg) { q.Opcode = dns.OpcodeNotify }, Rcode: dns.RcodeNotImplemented, Flags: "ra"},
		{Name: "an update", Ask: "mesos. SOA", Change: func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }, Rcode: dns.RcodeNotImplemented, Flags: "ra"},
		{Name: "no question", Ask: "mesos. SOA", Change: func(q *dns.Msg) { q.Question = nil }, Rcode: dns.RcodeFormatError, Flags: "ra"},
		{
			Name: "two questions", Ask: "mesos. SOA", Change: func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) },
			Rcode: dns.RcodeFormatError, Flags: "ra",
		},
		{
			Name: "two EDNS0 records", Ask: "mesos. SOA", Change: func(q *dns.Msg) { q.SetEdns0(512, false).SetEdns0(512, false) },
			Rcode: dns.RcodeFormatError, Flags: "ra",
		},
		{
			Name: "a later EDNS", Ask: "web.marathon.mesos. A",
			Change: func(q *dns.Msg) { q.SetEdns0(512, false); q.Extra[0].(*dns.OPT).SetVersion(1) }, Rcode: dns.RcodeBadVers, Flags: "ra",
		},
		{Name: "outside of the domain", Ask: "example.com. A", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "only its end is like the domain", Ask: "amesos. A", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "the root", Ask: ". NS", Rcode: dns.RcodeRefused, Flags: "-"},
		{Name: "nothing is near where there is no ranker", Ask: "web.marathon.near.mesos. A", Rcode: dns.RcodeNameError, Ns: soaOnly()},
	} {
		c.run(t, s)
	}
}

// The same where the configuration wants Mesos-DNS's own ways.
func TestAnswersAsMesosDNSGivesThem(t *testing.T) {
	s := bare(t, func(c *Config) { c.Zone.SRVNoData, c.Zone.NoTruncateBit, c.Zone.NoRecursion = true, true, true })
	fill(s)
	many(s, 60)
	for _, c := range []Case{
		{Name: "an SRV of no name", Ask: "_nobody._tcp.marathon.mesos. SRV", Flags: "aa"},
		{Name: "an A of no name", Ask: "nobody.marathon.mesos. A", Flags: "aa", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "no SRV of a name that is there", Ask: "web.marathon.mesos. SRV", Flags: "aa", Ns: soaOnly()},
		{Name: "a type of no name", Ask: "nobody.marathon.mesos. TXT", Flags: "aa", Rcode: dns.RcodeNameError, Ns: soaOnly()},
	} {
		c.run(t, s)
	}
	if m := askUDP(t, s, Case{Ask: "many.marathon.mesos. A"}.query(t), ""); m.Truncated || len(m.Answer) < 20 || len(m.Answer) > 30 {
		t.Errorf("TC %v with %d answers, want what fits and no TC", m.Truncated, len(m.Answer))
	}
	if m := askUDP(t, s, Case{Ask: "many.marathon.mesos. ANY"}.query(t), ""); m.Truncated || len(m.Answer) < 20 || len(m.Answer) > 30 {
		t.Errorf("the general path: TC %v with %d answers, want what fits and no TC", m.Truncated, len(m.Answer))
	}
}

func TestBeforeTheMeshIsKnownNothingIsDenied(t *testing.T) {
	s := bare(t, nil)
	fill(s)
	s.synced.Store(false)
	for _, c := range []Case{
		{Name: "what is known is told", Ask: "web.marathon.mesos. A", TCP: true, Answer: []string{"web.marathon.mesos. 5 IN A 10.1.0.1"}},
		{Name: "a name that is not known", Ask: "nobody.mesos. A", TCP: true, Rcode: dns.RcodeServerFailure, Flags: "ra"},
		{Name: "a type that is not known", Ask: "web.marathon.mesos. TXT", TCP: true, Rcode: dns.RcodeServerFailure, Flags: "ra"},
		{Name: "the SOA", Ask: "mesos. SOA", TCP: true, Answer: []string{soaText}},
	} {
		c.run(t, s)
	}
}

func TestPacketsThatAreNoQuery(t *testing.T) {
	s := bare(t, nil)
	from := clientAt("")
	header := func(flags ...byte) []byte { return append([]byte{0x12, 0x34}, flags...) }
	for name, tc := range map[string]struct {
		packet []byte
		rcode  int // -1: no answer
	}{
		"nothing":                  {nil, -1},
		"less than a header":       {header(1, 0, 0, 1), -1},
		"garbage behind a header":  {append(header(1, 0, 0, 1, 0, 0, 0, 0, 0, 0), 0xff, 0xff, 0xff), dns.RcodeFormatError},
		"a name without an end":    {append(header(1, 0, 0, 1, 0, 0, 0, 0, 0, 0), 5, 'm', 'e'), dns.RcodeFormatError},
		"a pointer to itself":      {append(header(1, 0, 0, 1, 0, 0, 0, 0, 0, 0), 0xc0, 12, 0, 1, 0, 1), dns.RcodeFormatError},
		"an update that is broken": {append(header(0x28, 0, 0, 1, 0, 0, 0, 0, 0, 0), 0xff, 0xff), dns.RcodeNotImplemented},
		"an answer":                {header(0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0), -1},
		"an answer that is broken": {append(header(0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0), 0xff), -1},
	} {
		b := s.slow(t.Context(), tc.packet, from)
		if (b == nil) != (tc.rcode < 0) {
			t.Errorf("%s: %x", name, b)
			continue
		}
		if b == nil {
			continue
		}
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil || m.Id != 0x1234 || m.Rcode != tc.rcode || !m.Response {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

// many is a service on many agents.
func many(s *Server, n int) {
	for i := range n {
		s.zone.ReplaceTask(fmt.Sprint("many", i), &records.Task{
			ID: fmt.Sprint("many.", i), Name: "many", Framework: "marathon", AgentID: fmt.Sprint("x-S", i),
			Agent: addrs(fmt.Sprintf("10.2.%d.%d", i/250, i%250+1)), HostPorts: []uint16{uint16(31000 + i)},
		})
	}
}

func TestSizes(t *testing.T) {
	s := bare(t, nil)
	many(s, 60)
	for _, tc := range []struct {
		name      string
		ask       string
		change    func(q *dns.Msg)
		tcp, tc   bool
		min, max  int
		glueAtMax int
	}{
		{"60 addresses over plain UDP", "many.marathon.mesos. A", nil, false, true, 29, 30, 0},
		{"in 1,232 octets", "many.marathon.mesos. A", edns(4096, false), false, false, 60, 60, 0},
		{"60 services in 1,232 octets", "_many._tcp.marathon.mesos. SRV", edns(1232, false), false, true, 17, 35, 0},
		{"over TCP", "_many._tcp.marathon.mesos. SRV", edns(1232, false), true, false, 60, 60, 60},
		{"EDNS0 with less than plain UDP", "many.marathon.mesos. A", edns(100, false), false, true, 28, 29, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Case{Ask: tc.ask, Change: tc.change}
			q := c.query(t)
			var m *dns.Msg
			if tc.tcp {
				m = askTCP(t, s, q, "")[0]
			} else {
				// The general path by itself: the hot path has its own test of the same.
				b, err := q.Pack()
				if err != nil {
					t.Fatal(err)
				}
				m = new(dns.Msg)
				if err := m.Unpack(s.slow(t.Context(), b, clientAt(""))); err != nil {
					t.Fatal(err)
				}
			}
			if m.Truncated != tc.tc || len(m.Answer) < tc.min || len(m.Answer) > tc.max {
				t.Errorf("%d answers, TC %v; want %d to %d, %v", len(m.Answer), m.Truncated, tc.min, tc.max, tc.tc)
			}
			if extra := len(m.Extra) - len(q.Extra); extra != tc.glueAtMax {
				t.Errorf("%d additional records, want %d", extra, tc.glueAtMax)
			}
		})
	}
}

func TestWhatIsOnlyAdditionalIsLeftOutWithoutTC(t *testing.T) {
	s := bare(t, nil)
	many(s, 8)
	q := Case{Ask: "_many._tcp.marathon.mesos. SRV"}.query(t)
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(s.slow(t.Context(), b, clientAt(""))); err != nil {
		t.Fatal(err)
	}
	if m.Truncated || len(m.Answer) != 8 || len(m.Extra) == 8 {
		t.Errorf("TC %v with %d answers and %d additional records", m.Truncated, len(m.Answer), len(m.Extra))
	}
}

func TestAnswersAreShuffled(t *testing.T) {
	s := bare(t, nil)
	many(s, 10)
	firsts := map[string]int{}
	for range 200 {
		m := askTCP(t, s, Case{Ask: "many.marathon.mesos. A"}.query(t), "")[0]
		firsts[m.Answer[0].String()]++
	}
	if len(firsts) != 10 {
		t.Errorf("%d of 10 addresses were ever the first: %v", len(firsts), firsts)
	}
}

func TestNamesWithOddOctets(t *testing.T) {
	for _, raw := range []string{`a b.marathon.mesos.`, `a\b.marathon.mesos.`, "ü.marathon.mesos.", `a"(;)@'b.marathon.mesos.`, "plain-1._tcp.mesos."} {
		name := printable(raw)
		if _, ok := dns.IsDomainName(name); !ok {
			t.Errorf("%q: %q is no domain name", raw, name)
		}
		wire := make([]byte, 256)
		n, err := dns.PackDomainName(name, wire, 0, nil, false)
		if err != nil {
			t.Errorf("%q: %v", raw, err)
			continue
		}
		unpacked, _, err := dns.UnpackDomainName(wire[:n], 0)
		if got := zoneName(unpacked); err != nil || got != raw {
			t.Errorf("%q became %q and then %q, %v", raw, unpacked, got, err)
		}
	}
	s := bare(t, nil)
	s.zone.Replace("odd", records.Task{
		ID: "odd.1", Name: `My "App"`, Framework: "marathon", AgentID: "x-S0", Agent: addrs("10.1.0.1"), Discovery: `My "App"`,
		Ports: []records.Port{{Number: 80, Protocol: "tcp"}},
	}.Records("mesos"))
	q := new(dns.Msg).SetQuestion(`_my\ \"app\"._tcp.marathon.mesos.`, dns.TypeSRV)
	u, tcp := askUDP(t, s, q, ""), askTCP(t, s, q, "")[0]
	if len(tcp.Answer) != 1 || len(tcp.Extra) != 1 || !slices.Equal(sorted(u.Answer), sorted(tcp.Answer)) || !slices.Equal(sorted(u.Extra), sorted(tcp.Extra)) {
		t.Errorf("UDP:\n%v\nTCP:\n%v", u, tcp)
	}
}
