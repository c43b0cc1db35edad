package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"starling/dns/limit"
	"starling/dns/records"
	"starling/dns/tcp"
	"starling/dns/udp"
)

// A network outside of the allowed ones gets its rate, then every second query a hint to come back over TCP.
func TestForeignNetworksAreLimited(t *testing.T) {
	s, _ := start(t, crowd(t, 3), func(c *Config) {
		c.Rate, c.Allow = 10, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	})
	eventually(t, "it is ready", s.Ready)
	loop := newFast(s)
	loop.now = time.Hour
	query := pack(new(dns.Msg).SetQuestion("wEb.marathon.mesos.", dns.TypeA))
	foreign := pack(new(dns.Msg).SetQuestion("example.com.", dns.TypeA))
	buf := make([]byte, udp.BufferSize)
	ask := func(query []byte, n int, from string) (answers, passed, slips, drops int) {
		t.Helper()
		for range n {
			switch answer, next := loop.Answer(query, buf, netip.MustParseAddrPort(from)); next {
			case udp.Drop:
				drops++
			case udp.Work, udp.Wait:
				passed++
			case udp.Send:
				var m dns.Msg
				if err := m.Unpack(answer); err != nil {
					t.Fatal(err)
				}
				if !m.Truncated {
					answers++
					continue
				}
				slips++
				if len(m.Answer) != 0 || len(m.Question) != 1 || m.Question[0].Name != "wEb.marathon.mesos." && m.Question[0].Name != "example.com." || m.Id != uint16(query[0])<<8|uint16(query[1]) || !m.RecursionDesired {
					t.Errorf("told to come back with\n%v", &m)
				}
			}
		}
		return
	}
	for _, tc := range []struct {
		about                          string
		query                          []byte
		from                           string
		answers, passed, slips, misses int
	}{
		{"a foreign client", query, "198.51.100.7:53", 10, 0, 5, 5},
		{"its neighbour, in the same network", query, "198.51.100.8:4000", 0, 0, 10, 10},
		{"another network", query, "198.51.101.8:4000", 10, 0, 5, 5},
		{"IPv6", query, "[2001:db8::1]:4000", 10, 0, 5, 5},
		{"the same IPv6 network", query, "[2001:db8:0:ff::1]:4000", 0, 0, 10, 10},
		{"names outside of the domain count as well", foreign, "198.51.102.8:4000", 0, 10, 5, 5},
		{"an allowed network", query, "203.0.113.7:4000", 20, 0, 0, 0},
		{"this machine", query, "127.0.0.1:4000", 20, 0, 0, 0},
	} {
		if a, p, sl, d := ask(tc.query, 20, tc.from); a != tc.answers || p != tc.passed || sl != tc.slips || d != tc.misses {
			t.Errorf("%s: %d answers, %d passed on, %d slips, %d drops; want %d, %d, %d, %d", tc.about, a, p, sl, d, tc.answers, tc.passed, tc.slips, tc.misses)
		}
	}
	if n := value(t, s.metrics.slipped); n != 40 {
		t.Errorf("%v slips counted, want 40", n)
	}
	if n := value(t, s.metrics.limited); n != 40 {
		t.Errorf("%v drops counted, want 40", n)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

type panickingRanker struct{}

func (panickingRanker) Rank(netip.Addr) (int, time.Duration) { panic("as asked") }

func TestAPanicOnTheGeneralPathIsServfail(t *testing.T) {
	s, addr := start(t, crowd(t, 2), func(c *Config) { c.Ranker = panickingRanker{} })
	for i, network := range []string{"udp", "tcp"} {
		if m := query(t, network, addr, "web.marathon.near.mesos.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %v", network, m)
		}
		if n := value(t, s.metrics.panics); n != float64(i+1) {
			t.Errorf("%s: %v panics counted, want %d", network, n, i+1)
		}
	}
	want(t, addr, "web.marathon.mesos.", "10.0.0.1", "10.0.0.2")
}

// What was read is answered, everything has ended, and the port is free, however busy it was.
func TestRunEndsUnderLoad(t *testing.T) {
	before := runtime.NumGoroutine()
	at := "127.0.0.1"
	if runtime.GOOS == "linux" { // where an address that nobody else uses keeps others from the port between the end and the next one
		at = "127.77.0.2"
	}
	for range 5 {
		m := crowd(t, 3)
		l, err := Listen(t.Context(), at, 0)
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Source: m, Zone: records.DefaultConfig(), Listen: []*Listener{l}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		var load sync.WaitGroup
		over := make(chan struct{})
		for i, network := range []string{"udp", "udp", "tcp", "tcp"} {
			conn, err := dns.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			load.Go(func() {
				defer conn.Close()
				qtype := []uint16{dns.TypeA, dns.TypeTXT}[i%2]
				for {
					select {
					case <-over:
						return
					default:
					}
					if conn.WriteMsg(new(dns.Msg).SetQuestion("web.marathon.mesos.", qtype)) != nil {
						return
					}
					if network == "tcp" {
						if _, err := conn.ReadMsg(); err != nil {
							return
						}
					}
				}
			})
		}
		eventually(t, "the load arrives", func() bool { return s.udp.Stats().Received > 500 && s.tcp.Stats().Queries > 20 })
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Run does not end")
		}
		close(over)
		load.Wait()
		again, err := Listen(t.Context(), at, l.Port())
		if err != nil {
			t.Errorf("the port is not free after the end: %v", err)
		} else {
			again.Close()
		}
	}
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// Hundreds of clients hold connections, silent or an octet at a time; others are answered over both transports.
func TestSlowTCPClientsLockNobodyOut(t *testing.T) {
	// None of them goes by itself, however long it takes to open them all: room has to be made.
	s, addr := start(t, crowd(t, 2), func(c *Config) {
		c.TCP = tcp.Limits{Connections: 60, PerClient: 30, Message: time.Hour, Idle: time.Hour}
	})
	want(t, addr, "web.marathon.mesos.", "10.0.0.1", "10.0.0.2")
	var held []net.Conn
	for i := range 300 {
		d := net.Dialer{}
		if runtime.GOOS == "linux" { // elsewhere all are one client
			d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i%10))}
		}
		c, err := d.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("\x00\x20\xab\xcd"[:i%5]))
		held = append(held, c)
	}
	eventually(t, "all were seen", func() bool { st := s.tcp.Stats(); return st.Accepted+st.Refused >= uint64(len(held)) })
	for _, network := range []string{"udp", "tcp"} {
		if m := query(t, network, addr, "web.marathon.mesos.", dns.TypeA); len(m.Answer) != 2 {
			t.Errorf("%s: %v", network, m)
		}
	}
	if st := s.tcp.Stats(); st.Open > 60 || st.Displaced+st.Refused < 200 {
		t.Errorf("%+v, want at most 60 open", st)
	}
}

// Queries of one connection are answered all, with their own numbers, transfers among them.
func TestPipelinedQueriesOverTCP(t *testing.T) {
	_, addr := start(t, crowd(t, 3))
	conn, err := dns.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	pending := map[uint16]uint16{}
	for i := range uint16(200) {
		q := new(dns.Msg).SetQuestion("web.marathon.mesos.", []uint16{dns.TypeA, dns.TypeSRV, dns.TypeTXT}[i%3])
		q.Id = i
		pending[i] = q.Question[0].Qtype
		if err := conn.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for len(pending) > 0 {
		m, err := conn.ReadMsg()
		if err != nil {
			t.Fatalf("%v, %d answers are still to come", err, len(pending))
		}
		if qtype, ok := pending[m.Id]; !ok || m.Question[0].Qtype != qtype || m.Rcode != dns.RcodeSuccess {
			t.Fatalf("not asked, or not so: %v", m)
		}
		delete(pending, m.Id)
	}
}

// Dead resolvers, or what else makes queries wait, must not keep the domain's own from being answered.
func TestQuestionsWithinTheDomain(t *testing.T) {
	for _, tc := range []struct {
		name, domain string
		want         bool
	}{
		{"mesos.", "mesos", true},
		{"a.MESOS.", "mesos", true},
		{"a.b.c.mesos.", "mesos", true},
		{"amesos.", "mesos", false},
		{"mesos.com.", "mesos", false},
		{".", "mesos", false},
		{"a.edge.Example.", "edge.example", true},
		{"edge.example.", "edge.example", true},
		{"example.", "edge.example", false},
		{"xedge.example.", "edge.example", false},
	} {
		query := pack(new(dns.Msg).SetQuestion(tc.name, dns.TypeTXT))
		if got := within(query, wireApex(tc.domain)); got != tc.want {
			t.Errorf("%s is within %s: %v, want %v", tc.name, tc.domain, got, tc.want)
		}
	}
	for i := range 40 { // no octet too many is looked at
		query := pack(new(dns.Msg).SetQuestion("web.marathon.mesos.", dns.TypeTXT))
		within(slices.Clip(query[:min(i, len(query))]), wireApex("mesos"))
	}
}

func TestFailureAnswersTheQuery(t *testing.T) {
	q := new(dns.Msg).SetQuestion("web.marathon.mesos.", dns.TypeA)
	q.Opcode, q.CheckingDisabled = dns.OpcodeNotify, true
	var m dns.Msg
	if err := m.Unpack(failure(pack(q), dns.RcodeServerFailure)); err != nil {
		t.Fatal(err)
	}
	if m.Id != q.Id || !m.Response || m.Opcode != q.Opcode || m.Rcode != dns.RcodeServerFailure || !m.RecursionDesired || strings.Contains(m.MsgHdr.String(), " aa") {
		t.Errorf("got %v", &m)
	}
}

// A forger gets no more octets a second with questions whose answers are large.
func TestLargeAnswersCostMoreOfTheRate(t *testing.T) {
	s := bare(t, func(c *Config) { c.Rate = 9 })
	many(s, 60)
	loop := newFast(s)
	loop.now = time.Hour
	query, err := Case{Ask: "_many._tcp.marathon.mesos. SRV", Change: edns(1232, false)}.query(t).Pack()
	if err != nil {
		t.Fatal(err)
	}
	answers := 0
	for range 30 {
		if b, _ := loop.Answer(query, make([]byte, udp.BufferSize), netip.MustParseAddrPort("198.51.100.7:53")); len(b) > 1024 {
			answers++
		}
	}
	if answers != 3 {
		t.Errorf("%d answers of three charges each at a rate of 9, want 3", answers)
	}
	// A worker's answer counts alike.
	general, err := Case{Ask: "many.marathon.mesos. ANY", Change: edns(1232, false)}.query(t).Pack()
	if err != nil {
		t.Fatal(err)
	}
	other := netip.MustParseAddrPort("198.51.101.7:53")
	for range 20 {
		s.work(t.Context(), general, other)
	}
	if v := s.limiter.Take(time.Since(s.began), other.Addr()); v == limit.Answer {
		t.Error("the workers' answers are not charged")
	}
}
