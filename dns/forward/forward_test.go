package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// virtually runs a test in virtual time, on one processor: with more, the race detector of Go 1.26 breaks down now and then in the timers
// of a bubble (golang.org/issue/78156).
func virtually(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, test)
}

// bubble is virtually with a forwarder.
func bubble(t *testing.T, n *network, c Config, test func(t *testing.T, f *Forwarder)) {
	t.Helper()
	virtually(t, func(t *testing.T) {
		f, stop := start(t, n, c)
		defer stop()
		test(t, f)
	})
}

func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

const www = "www.example. 300 IN A 192.0.2.80"

func TestAnswersAreRelayedAndKept(t *testing.T) {
	n := newNetwork()
	n.set(first, says(www))
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		q := query("wWw.ExamPle.", dns.TypeA)
		q.SetEdns0(4096, false)
		q.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}}
		m, err := f.Exchange(t.Context(), q, false)
		if err != nil {
			t.Fatal(err)
		}
		checkAnswer(t, m, "wWw.ExamPle. 300 IN A 192.0.2.80")
		if m.Id != q.Id || !m.Response || !m.RecursionDesired || !m.RecursionAvailable || m.Authoritative || m.IsEdns0() != nil {
			t.Errorf("the answer is %v", m)
		}
		o := n.last.IsEdns0()
		if n.last.Id == q.Id || o == nil || len(o.Option) != 0 || o.UDPSize() != 1232 || !n.last.RecursionDesired {
			t.Errorf("upstream was asked %v: want an id and an EDNS0 record of our own, without options", n.last)
		}
		time.Sleep(100 * time.Second)
		checkAnswer(t, exchange(t, f, "www.example."), "www.example. 200 IN A 192.0.2.80")
		if got := n.total(); got != 1 {
			t.Errorf("upstream was asked %d times, want once", got)
		}
		time.Sleep(201 * time.Second)
		checkAnswer(t, exchange(t, f, "www.example."), www)
		if got := n.total(); got != 2 {
			t.Errorf("upstream was asked %d times, want again after the end of the TTL", got)
		}
	})
}

func TestQuestionsThatDifferAreKeptApart(t *testing.T) {
	n := newNetwork()
	n.set(first, says(www))
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		ask := func(change func(q *dns.Msg)) {
			q := query("www.example.", dns.TypeA)
			change(q)
			for range 2 {
				if _, err := f.Exchange(t.Context(), q, false); err != nil {
					t.Fatal(err)
				}
			}
		}
		ask(func(*dns.Msg) {})
		ask(func(q *dns.Msg) { q.SetEdns0(1232, false) }) // the same
		ask(func(q *dns.Msg) { q.Question[0].Name = "WWW.example." })
		ask(func(q *dns.Msg) { q.SetEdns0(1232, true) })
		ask(func(q *dns.Msg) { q.CheckingDisabled = true })
		ask(func(q *dns.Msg) { q.RecursionDesired = false })
		ask(func(q *dns.Msg) { q.Question[0].Qtype = dns.TypeAAAA })
		if n.total() < 5 {
			t.Errorf("upstream was asked %d times, want once for each kind of question", n.total())
		}
		// The AAAA has no SOA: it may not be kept (RFC 2308, 5).
		if got := n.total(); got != 6 {
			t.Errorf("upstream was asked %d times, want 6", got)
		}
	})
}

func TestWhatUpstreamSays(t *testing.T) {
	soa := "example. 900 IN SOA ns.example. root.example. 1 2 3 4 60"
	for _, tc := range []struct {
		name  string
		reply func(q *dns.Msg) [][]byte
		rcode int
		want  []string
		// asked is how often upstream is asked for three queries, two of them at once and one after a while
		asked int
		after time.Duration
	}{
		{"an answer is kept", says(www), dns.RcodeSuccess, []string{www}, 1, 299 * time.Second},
		{"not past its end", says(www), dns.RcodeSuccess, []string{www}, 2, 300 * time.Second},
		{"a TTL of zero is not kept", says("www.example. 0 IN A 192.0.2.80"), dns.RcodeSuccess, []string{"www.example. 0 IN A 192.0.2.80"}, 3, 0},
		{
			"a name that is not there, for as long as its SOA's minimum",
			func(q *dns.Msg) [][]byte { return [][]byte{packet(q, dns.RcodeNameError, nil, soa)} }, dns.RcodeNameError, nil, 1, 59 * time.Second,
		},
		{
			"and no longer",
			func(q *dns.Msg) [][]byte { return [][]byte{packet(q, dns.RcodeNameError, nil, soa)} }, dns.RcodeNameError, nil, 2, 60 * time.Second,
		},
		{"nothing of the type", says(soa), dns.RcodeSuccess, nil, 1, 59 * time.Second},
		{"nothing, and no SOA", says(), dns.RcodeSuccess, nil, 3, 0},
		{"an alias to nothing", says("www.example. 300 IN CNAME x.example.", soa), dns.RcodeSuccess, []string{"www.example. 300 IN CNAME x.example."}, 1, 30 * time.Second},
		{"trouble upstream is final, and remembered for a second", fails(dns.RcodeServerFailure), dns.RcodeServerFailure, nil, 1, 0},
		{"and then asked for again", fails(dns.RcodeServerFailure), dns.RcodeServerFailure, nil, 2, time.Second},
		{"so is a refusal", fails(dns.RcodeRefused), dns.RcodeRefused, nil, 1, 0},
		{
			"a truncated answer is passed on, not kept",
			func(q *dns.Msg) [][]byte {
				return [][]byte{packet(q, dns.RcodeSuccess, func(m *dns.Msg) { m.Truncated = true }, www)}
			}, dns.RcodeSuccess,
			[]string{www},
			3, 0,
		},
		{
			"one cut in the middle too",
			func(q *dns.Msg) [][]byte {
				b := packet(q, dns.RcodeSuccess, func(m *dns.Msg) { m.Truncated = true }, www)
				return [][]byte{b[:len(b)-20]}
			}, dns.RcodeSuccess, nil, 3, 0,
		},
		{
			"another id, another question, garbage, a query: passed over until the answer comes",
			func(q *dns.Msg) [][]byte {
				other := q.Copy()
				other.Question[0].Name = "evil.example."
				kind := q.Copy()
				kind.Question[0].Qtype = dns.TypeTXT
				return [][]byte{
					packet(q, dns.RcodeSuccess, func(m *dns.Msg) { m.Id++ }, "www.example. 300 IN A 203.0.113.1"),
					packet(other, dns.RcodeSuccess, nil, "www.example. 300 IN A 203.0.113.2"),
					packet(kind, dns.RcodeSuccess, nil, "www.example. 300 IN A 203.0.113.3"),
					packet(q, dns.RcodeSuccess, func(m *dns.Msg) { m.Response = false }, "www.example. 300 IN A 203.0.113.4"),
					packet(q, dns.RcodeSuccess, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, "www.example. 300 IN A 203.0.113.5"),
					packet(q, dns.RcodeSuccess, func(m *dns.Msg) { m.Question = nil }, "www.example. 300 IN A 203.0.113.6"),
					[]byte("x"), append(packet(q, dns.RcodeSuccess, nil)[:12], 0xff, 0xff, 0xff),
					packet(q, dns.RcodeSuccess, nil, www),
				}
			}, dns.RcodeSuccess,
			[]string{www},
			1, 0,
		},
		{
			"one who does not know EDNS0 is asked without",
			func(q *dns.Msg) [][]byte {
				if q.IsEdns0() != nil {
					return [][]byte{packet(q, dns.RcodeFormatError, func(m *dns.Msg) { m.Extra, m.Question = nil, nil })}
				}
				return [][]byte{packet(q, dns.RcodeSuccess, nil, www)}
			}, dns.RcodeSuccess,
			[]string{www},
			2, 0,
		},
		{
			"records of our own domain are not believed",
			says("www.example. 300 IN CNAME web.marathon.mesos.", "web.marathon.mesos. 300 IN A 203.0.113.1", "MESOS. 300 IN NS evil.example."),
			dns.RcodeSuccess,
			[]string{"www.example. 300 IN CNAME web.marathon.mesos."},
			3, 0,
		},
		{"a TTL beyond all bounds", says("www.example. 2000000 IN A 192.0.2.80"), dns.RcodeSuccess, []string{"www.example. 86400 IN A 192.0.2.80"}, 2, 24 * time.Hour},
		{"a negative TTL is none", says("www.example. 4294967295 IN A 192.0.2.80"), dns.RcodeSuccess, []string{"www.example. 0 IN A 192.0.2.80"}, 3, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNetwork()
			n.set(first, tc.reply)
			bubble(t, n, Config{Domain: "mesos", Stale: -1}, func(t *testing.T, f *Forwarder) {
				for range 2 {
					m := exchange(t, f, "www.example.")
					if m.Rcode != tc.rcode {
						t.Errorf("rcode %v, want %v", dns.RcodeToString[m.Rcode], dns.RcodeToString[tc.rcode])
					}
					checkAnswer(t, m, slices.Clone(tc.want)...)
				}
				time.Sleep(tc.after)
				exchange(t, f, "www.example.")
				if got := n.total(); got != tc.asked && !(strings.Contains(tc.name, "EDNS0") && got == 2) {
					t.Errorf("upstream was asked %d times, want %d", got, tc.asked)
				}
				if b, entries := f.cache.usage(); b < 0 || entries > 1 {
					t.Errorf("the cache has %d octets in %d answers", b, entries)
				}
			})
		})
	}
}

func TestTheTransportOfTheClientIsUsed(t *testing.T) {
	n := newNetwork()
	n.set(first, func(q *dns.Msg) [][]byte {
		return [][]byte{packet(q, dns.RcodeSuccess, func(m *dns.Msg) { m.Truncated = n.count("tcp "+first) == 0 }, www)}
	})
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		if m := exchange(t, f, "www.example."); !m.Truncated {
			t.Error("a truncated answer was not passed on as that")
		}
		m, err := f.Exchange(t.Context(), query("www.example.", dns.TypeA), true)
		if err != nil || m.Truncated || n.count("udp "+first) != 1 || n.count("tcp "+first) != 1 {
			t.Errorf("over TCP: %v, %v; asked %v", m, err, n.asked)
		}
		// What came whole serves those over UDP too.
		if m := exchange(t, f, "www.example."); m.Truncated || n.total() != 2 {
			t.Errorf("from the cache: %v; asked %v", m, n.asked)
		}
	})
}

func TestBrokenAnswersOverTCP(t *testing.T) {
	for name, reply := range map[string]func(q *dns.Msg) [][]byte{
		"another id": func(q *dns.Msg) [][]byte { return [][]byte{packet(q, 0, func(m *dns.Msg) { m.Id++ }, www)} },
		"garbage":    func(*dns.Msg) [][]byte { return [][]byte{[]byte("nonsense, but long enough")} },
		"nothing":    func(*dns.Msg) [][]byte { return [][]byte{{}} },
		"silence":    silent,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork()
			n.set(first, reply)
			n.set(second, says(www))
			bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
				m, err := f.Exchange(t.Context(), query("www.example.", dns.TypeA), true)
				if err != nil {
					t.Fatal(err)
				}
				checkAnswer(t, m, www)
			})
		})
	}
}

func TestQueriesUnderWayAreBounded(t *testing.T) {
	n := newNetwork()
	n.set(first, silent)
	bubble(t, n, Config{Concurrent: 4, Waiting: 6}, func(t *testing.T, f *Forwarder) {
		ask := func(wg *sync.WaitGroup, name string, want error) {
			wg.Go(func() {
				if _, err := f.Exchange(t.Context(), query(name, dns.TypeA), false); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", name, err, want)
				}
			})
			synctest.Wait()
		}
		var wg sync.WaitGroup
		for i := range 4 {
			ask(&wg, fmt.Sprint(i, ".example."), ErrUnheard)
		}
		ask(&wg, "fifth.example.", ErrBusy)
		ask(&wg, "0.example.", ErrUnheard) // shares
		ask(&wg, "1.example.", ErrUnheard)
		ask(&wg, "2.example.", ErrBusy) // would share, but too many wait
		wg.Wait()
		if got := value(t, f.metrics.busy); got != 2 {
			t.Errorf("%v refusals were counted, want 2", got)
		}
		if got := f.pending(); got != 0 {
			t.Errorf("%d queries are under way at the end", got)
		}
	})
}

func TestStopEndsWhatIsUnderWay(t *testing.T) {
	n := newNetwork()
	n.set(first, silent)
	virtually(t, func(t *testing.T) {
		f, stop := start(t, n, Config{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.Exchange(t.Context(), query("www.example.", dns.TypeA), false); !errors.Is(err, ErrStopped) {
				t.Errorf("Exchange = %v, want ErrStopped", err)
			}
		})
		synctest.Wait()
		began := time.Now()
		stop()
		wg.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("the end took %v", took)
		}
		if _, err := f.Exchange(t.Context(), query("www.example.", dns.TypeA), false); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v, want ErrStopped", err)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	at := netip.MustParseAddrPort
	for name, c := range map[string]Config{
		"no DNS server":     {Resolvers: []netip.AddrPort{at("0.0.0.0:53")}},
		"given twice":       {Resolvers: []netip.AddrPort{at(first), at(first)}},
		"name of a zone":    {Zones: map[string][]netip.AddrPort{"": {at(first)}}},
		"resolvers of zone": {Zones: map[string][]netip.AddrPort{"example": {{}}}},
		"length of time":    {Timeout: -1},
		"negative":          {Waiting: -1},
	} {
		if _, err := New(c); err == nil || (!strings.Contains(err.Error(), name) && name != "no DNS server") {
			t.Errorf("%s: New = %v", name, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	q := upstreamQuery(question{name: "www.example.", qtype: dns.TypeA, class: dns.ClassINET})
	q.Id = 0x1234
	f.Add(packet(q, 0, nil, www))
	f.Add(packet(q, dns.RcodeFormatError, func(m *dns.Msg) { m.Question = nil }))
	fwd, err := New(Config{Resolvers: []netip.AddrPort{}, Domain: "mesos"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := check(data, q)
		if err != nil {
			return
		}
		k := question{name: "www.example.", qtype: dns.TypeA, class: dns.ClassINET, recursion: true}
		e, err := fwd.keep(k, m)
		if err != nil {
			return // it may hold what cannot be packed again
		}
		if _, err := e.reply(query("WWW.example.", dns.TypeA), time.Second, false); err != nil {
			t.Fatalf("what was kept is not understood: %v", err)
		}
	})
}
