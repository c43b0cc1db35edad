package forward

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// A dead resolver costs a second for as long as it is not known to be dead, and a query now and then that nobody waits for.
func TestADeadFirstResolverCostsOnce(t *testing.T) {
	n := newNetwork()
	n.set(first, silent)
	n.set(second, says(www))
	bubble(t, n, Config{CacheEntries: -1}, func(t *testing.T, f *Forwarder) {
		slow := 0
		for i := range 100 {
			began := time.Now()
			exchange(t, f, fmt.Sprintf("www%d.example.", i))
			if took := time.Since(began); took > 0 {
				slow++
				if took > 1250*time.Millisecond {
					t.Errorf("query %d took %v, which clients do not wait for", i, took)
				}
			}
			time.Sleep(3 * time.Second)
		}
		if slow != 2 { // those within its timeout of 5 s
			t.Errorf("%d queries of 100 waited, want 2", slow)
		}
		if got := n.count("udp " + second); got != 100 {
			t.Errorf("the second resolver was asked %d times, want 100", got)
		}
		// In 300 s, with pauses of 1, 2, 4, ... 60 s: some ten tries of three datagrams at most.
		if got := n.count("udp " + first); got < 9 || got > 36 {
			t.Errorf("the dead resolver got %d datagrams, want some ten tries of three", got)
		}
		n.set(first, says(www)) // it comes back
		for i := range 40 {
			exchange(t, f, fmt.Sprintf("again%d.example.", i))
			time.Sleep(3 * time.Second)
		}
		before := n.count("udp " + second)
		exchange(t, f, "last.example.")
		if n.count("udp "+second) != before {
			t.Error("the first resolver is not asked first again")
		}
	})
}

func TestOneLostDatagramIsSentAgain(t *testing.T) {
	n := newNetwork()
	var got atomic.Int32
	n.set(first, func(q *dns.Msg) [][]byte {
		if got.Add(1) == 1 {
			return nil
		}
		return [][]byte{packet(q, 0, nil, www)}
	})
	n.set(second, says("www.example. 300 IN A 192.0.2.99"))
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		began := time.Now()
		checkAnswer(t, exchange(t, f, "www.example."), www)
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v, want 1s", took)
		}
	})
}

// The next resolver is asked beside one that is silent, and the first answer counts, whoever gives it.
func TestTheNextIsAskedBesideASilentOne(t *testing.T) {
	for _, tc := range []struct {
		name          string
		first, second time.Duration // until they answer
		took          time.Duration
		want          string
	}{
		{"the first is quick", 1200 * time.Millisecond, 0, 1200 * time.Millisecond, "192.0.2.1"},
		{"the first is slow", 3 * time.Second, time.Second, 2250 * time.Millisecond, "192.0.2.2"},
		{"the second is slower", 2 * time.Second, time.Second, 2 * time.Second, "192.0.2.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			after := func(d time.Duration, addr string) func(q *dns.Msg) [][]byte {
				return func(q *dns.Msg) [][]byte {
					time.Sleep(d)
					return says("www.example. 300 IN A " + addr)(q)
				}
			}
			n := newNetwork()
			n.set(first, after(tc.first, "192.0.2.1"))
			n.set(second, after(tc.second, "192.0.2.2"))
			bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
				began := time.Now()
				checkAnswer(t, exchange(t, f, "www.example."), "www.example. 300 IN A "+tc.want)
				if took := time.Since(began); took != tc.took {
					t.Errorf("took %v, want %v", took, tc.took)
				}
				time.Sleep(10 * time.Second)
				if f.pending() != 0 || !f.given[0].udp.works() || !f.given[1].udp.works() {
					t.Errorf("%d are under way; both answered", f.pending())
				}
			})
		})
	}
}

// What is asked beside a silent one has its place among what is under way, and does without where there is none.
func TestQueriesBesideASilentOneAreBounded(t *testing.T) {
	n := newNetwork()
	for _, addr := range []string{first, second, third} {
		n.set(addr, silent)
	}
	bubble(t, n, Config{Concurrent: 4}, func(t *testing.T, f *Forwarder) {
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				_, err := f.Exchange(t.Context(), query(fmt.Sprint(i, ".example."), dns.TypeA), false)
				if !errors.Is(err, ErrUnheard) {
					t.Errorf("%v, want ErrUnheard", err)
				}
			})
		}
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if got := f.pending(); got > 4 {
				t.Fatalf("%d queries under way, want 4 at most", got)
			}
		}
		wg.Wait()
		synctest.Wait()
		if got := f.pending(); got != 0 {
			t.Errorf("%d queries are under way at the end", got)
		}
		if n.count("udp "+third) == 0 {
			t.Error("the third was not asked once there was a place")
		}
	})
}

func TestPeopleHearOfResolversThatAreNotHeard(t *testing.T) {
	for name, tc := range map[string]struct {
		second func(q *dns.Msg) [][]byte
		want   []string
	}{
		"one of two":   {says(www), []string{"resolver=" + first, "no answer within 5s", "the others are asked first"}},
		"the only one": {nil, []string{"resolver=" + first, "it is the only one"}},
		"all":          {silent, []string{"none of the others is heard"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork()
			n.set(first, silent)
			if tc.second != nil {
				n.set(second, tc.second)
			}
			var log strings.Builder
			bubble(t, n, Config{CacheEntries: -1}, func(t *testing.T, f *Forwarder) {
				f.config.Log = slog.New(slog.NewTextHandler(&log, nil))
				for i := range 20 {
					_, _ = f.Exchange(t.Context(), query(fmt.Sprint(i, ".example."), dns.TypeA), false)
					time.Sleep(5 * time.Second)
				}
				silentOnes := 1
				if name == "all" {
					silentOnes = 2
				}
				text := log.String()
				if got := strings.Count(text, "level=WARN"); got != silentOnes || strings.Contains(text, "level=INFO") {
					t.Errorf("the log is\n%swant %d warnings", text, silentOnes)
				}
				for _, want := range tc.want {
					if !strings.Contains(text, want) {
						t.Errorf("the log is\n%swant %q in it", text, want)
					}
				}
				if !strings.Contains(gather(t, f), `starling_dns_forward_resolver_up{resolver="192.0.2.1:53",transport="udp"} 0`) {
					t.Errorf("the metrics are\n%s", gather(t, f))
				}
				n.set(first, says(www))
				n.set(second, says(www))
				for i := range 40 {
					_, _ = f.Exchange(t.Context(), query(fmt.Sprint("back", i, ".example."), dns.TypeA), false)
					time.Sleep(5 * time.Second)
				}
				if text = log.String(); strings.Count(text, "level=INFO") != silentOnes || strings.Count(text, "level=WARN") != silentOnes {
					t.Errorf("the log is\n%swant each to be back, once", text)
				}
				metrics := gather(t, f)
				for _, want := range []string{
					`starling_dns_forward_upstream_queries_total{resolver="192.0.2.1:53"}`, `starling_dns_forward_upstream_failures_total{resolver="192.0.2.1:53"}`,
					`starling_dns_forward_resolver_up{resolver="192.0.2.1:53",transport="udp"} 1`,
				} {
					if !strings.Contains(metrics, want) {
						t.Errorf("the metrics are\n%s\nwant %s", metrics, want)
					}
				}
			})
		})
	}
}

// gather is what Prometheus would read of the resolvers.
func gather(t *testing.T, f *Forwarder) string {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(byResolver{f})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, family := range families {
		for _, m := range family.GetMetric() {
			fmt.Fprint(&b, family.GetName(), "{")
			for i, l := range m.GetLabel() {
				fmt.Fprintf(&b, "%s%s=%q", strings.Repeat(",", min(i, 1)), l.GetName(), l.GetValue())
			}
			fmt.Fprintln(&b, "}", m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	return b.String()
}

func TestASlowAnswerIsWaitedFor(t *testing.T) {
	n := newNetwork()
	n.set(first, func(q *dns.Msg) [][]byte {
		time.Sleep(4900 * time.Millisecond)
		return [][]byte{packet(q, 0, nil, www)}
	})
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		checkAnswer(t, exchange(t, f, "www.example."), www)
		time.Sleep(5 * time.Second) // the server answers what was sent again too
	})
}

func TestAllResolversDead(t *testing.T) {
	n := newNetwork()
	n.set(first, silent)
	n.servers[second] = &fakeServer{down: true}
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		began := time.Now()
		if _, err := f.Exchange(t.Context(), query("www.example.", dns.TypeA), false); !errors.Is(err, ErrUnheard) {
			t.Errorf("Exchange = %v, want ErrUnheard", err)
		}
		// The second time the failure is remembered.
		if m, err := f.Exchange(t.Context(), query("www.example.", dns.TypeA), false); err != nil || m.Rcode != dns.RcodeServerFailure {
			t.Errorf("the remembered failure is %v, %v", m, err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v, want the timeout of the silent one, and nothing the next time", took)
		}
	})
}

func TestWhenAllHaveFailedTheyAreAskedAtOnce(t *testing.T) {
	n := newNetwork()
	for _, addr := range []string{first, second, third} {
		n.set(addr, silent)
	}
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		for i, want := range []time.Duration{7500 * time.Millisecond, 5 * time.Second, 5 * time.Second} {
			began := time.Now()
			if _, err := f.Exchange(t.Context(), query(fmt.Sprint(i, ".example."), dns.TypeA), false); !errors.Is(err, ErrUnheard) {
				t.Errorf("Exchange = %v, want ErrUnheard", err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("name %d took %v, want %v", i, took, want)
			}
		}
		n.set(third, says(www))
		began := time.Now()
		checkAnswer(t, exchange(t, f, "www.example."), www)
		exchange(t, f, "other.example.")
		if took := time.Since(began); took != 0 {
			t.Errorf("one that is back was heard after %v", took)
		}
		if f.given[0].udp.works() || f.given[1].udp.works() || !f.given[2].udp.works() {
			t.Error("it is not known which of them works")
		}
	})
}

func TestNobodyToAsk(t *testing.T) {
	f, stop := start(t, newNetwork(), Config{Resolvers: []netip.AddrPort{}})
	defer stop()
	if _, err := f.Exchange(t.Context(), query("www.example.", dns.TypeA), false); !errors.Is(err, ErrNoResolvers) {
		t.Errorf("Exchange = %v, want ErrNoResolvers", err)
	}
}

func TestZonesHaveTheirOwnResolvers(t *testing.T) {
	n := newNetwork()
	for addr, a := range map[string]string{first: "1", second: "2", third: "3"} {
		n.set(addr, func(q *dns.Msg) [][]byte {
			return [][]byte{packet(q, 0, nil, q.Question[0].Name+" 300 IN A 192.0.2."+a)}
		})
	}
	at := netip.MustParseAddrPort
	c := Config{
		Resolvers: []netip.AddrPort{at(first)},
		Zones:     map[string][]netip.AddrPort{"Corp.example": {at(second)}, "lab.corp.example.": {at(third)}},
	}
	bubble(t, n, c, func(t *testing.T, f *Forwarder) {
		for name, want := range map[string]string{
			"example.": "1", "acorp.example.": "1", "corp.example.": "2", "WWW.CORP.example.": "2", "lab.corp.example.": "3", "a.b.lab.corp.example.": "3",
		} {
			checkAnswer(t, exchange(t, f, name), name+" 300 IN A 192.0.2."+want)
		}
	})
}

func TestWeAreNoResolverOfOurs(t *testing.T) {
	at := netip.MustParseAddrPort
	n := newNetwork()
	n.set(second, says(www))
	bubble(t, n, Config{
		Resolvers: []netip.AddrPort{at(first), at(second)}, Self: func(a netip.AddrPort) bool { return a == at(first) },
		Zones: map[string][]netip.AddrPort{"loop.example": {at(first)}},
	}, func(t *testing.T, f *Forwarder) {
		if got := f.Resolvers("www.example."); !slices.Equal(got, []netip.AddrPort{at(second)}) {
			t.Errorf("the resolvers are %v", got)
		}
		if _, err := f.Exchange(t.Context(), query("www.loop.example.", dns.TypeA), false); !errors.Is(err, ErrNoResolvers) {
			t.Errorf("a zone that only we are the resolver of: %v", err)
		}
	})
}

func TestTheSystemsResolvers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("# a comment\nsearch example\nnameserver 192.0.2.1\nnameserver 127.0.0.1 # us\n  nameserver\t2001:db8::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver x\noptions edns0\n")
	self := func(a netip.AddrPort) bool { return a.Addr().IsLoopback() }
	virtually(t, func(t *testing.T) {
		f, stop := start(t, newNetwork(), Config{ResolvConf: file, Self: self})
		defer stop()
		check := func(want ...string) {
			t.Helper()
			got := fmt.Sprint(f.Resolvers("www.example."))
			if got != fmt.Sprint(want) {
				t.Errorf("the resolvers are %v, want %v", got, want)
			}
		}
		check("192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53")
		g := f.group("www.example.", time.Now())
		g[0].udp.report(time.Now(), false)
		write("nameserver 192.0.2.9\nnameserver 192.0.2.1\n")
		check("192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53") // it was looked at just now
		time.Sleep(systemCheck)
		check("192.0.2.9:53", "192.0.2.1:53")
		if f.group("www.example.", time.Now())[1].udp.works() {
			t.Error("what was known of a resolver is forgotten")
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(systemCheck)
		check("192.0.2.9:53", "192.0.2.1:53") // one that is away for a moment changes nothing
		write("search example\n")
		time.Sleep(systemCheck)
		check()
	})
}
