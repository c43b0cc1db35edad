package forward

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// The uplink goes, and with it what DHCP had put into resolv.conf: that is what the cache is for.
func TestWhatIsKnownIsSaidWithoutResolvers(t *testing.T) {
	n := newNetwork()
	n.set(first, says(www))
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bubble(t, n, Config{ResolvConf: file}, func(t *testing.T, f *Forwarder) {
		exchange(t, f, "www.example.")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(systemCheck)
		if got := f.Resolvers("."); len(got) != 0 {
			t.Fatalf("the resolvers are %v, want none", got)
		}
		checkAnswer(t, exchange(t, f, "www.example."), "www.example. 297 IN A 192.0.2.80")
		time.Sleep(300 * time.Second)
		checkAnswer(t, exchange(t, f, "www.example."), "www.example. 30 IN A 192.0.2.80")
		if _, err := f.Exchange(t.Context(), query("other.example.", dns.TypeA), false); !errors.Is(err, ErrNoResolvers) {
			t.Errorf("what is not known: %v, want ErrNoResolvers", err)
		}
		if got := n.total(); got != 1 {
			t.Errorf("upstream was asked %d times, want once", got)
		}
	})
}

func TestStaleAnswers(t *testing.T) {
	for _, tc := range []struct {
		name string
		then func(q *dns.Msg) [][]byte
		// wait is how long the first query after the end of the TTL takes
		wait time.Duration
	}{
		{"no answer", silent, 1800 * time.Millisecond},
		{"trouble upstream", fails(dns.RcodeServerFailure), 0},
		{"refused", fails(dns.RcodeRefused), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNetwork()
			n.set(first, says(www))
			reg := prometheus.NewRegistry()
			bubble(t, n, Config{Metrics: reg}, func(t *testing.T, f *Forwarder) {
				exchange(t, f, "www.example.")
				n.set(first, tc.then)
				time.Sleep(300 * time.Second)
				began := time.Now()
				checkAnswer(t, exchange(t, f, "www.example."), "www.example. 30 IN A 192.0.2.80")
				if took := time.Since(began); took != tc.wait {
					t.Errorf("a stale answer took %v, want %v", took, tc.wait)
				}
				// From then on nobody waits.
				time.Sleep(10 * time.Second)
				began = time.Now()
				for range 100 {
					checkAnswer(t, exchange(t, f, "www.example."), "www.example. 30 IN A 192.0.2.80")
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("later stale answers took %v, want none to wait", took)
				}
				time.Sleep(23 * time.Hour)
				checkAnswer(t, exchange(t, f, "www.example."), "www.example. 30 IN A 192.0.2.80")
				if got := value(t, f.metrics.stale); got != 102 {
					t.Errorf("%v stale answers were counted, want 102", got)
				}
				// A day past its end it is of no use.
				time.Sleep(time.Hour)
				if m, err := f.Exchange(t.Context(), query("www.example.", dns.TypeA), false); err == nil && len(m.Answer) > 0 {
					t.Errorf("after a day: %v", m)
				}
				// And when upstream is back, it is heard.
				n.set(first, says(www))
				time.Sleep(10 * time.Second)
				checkAnswer(t, exchange(t, f, "www.example."), www)
			})
		})
	}
}

func TestUpstreamBackReplacesAStaleAnswer(t *testing.T) {
	n := newNetwork()
	n.set(first, says(www))
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		exchange(t, f, "www.example.")
		n.set(first, silent)
		time.Sleep(400 * time.Second)
		exchange(t, f, "www.example.") // stale
		time.Sleep(time.Minute)
		n.set(first, says("www.example. 300 IN A 192.0.2.81"))
		exchange(t, f, "www.example.") // stale, and asks anew meanwhile
		synctest.Wait()
		checkAnswer(t, exchange(t, f, "www.example."), "www.example. 300 IN A 192.0.2.81")
	})
}

func TestPopularAnswersAreFetchedBeforeTheyEnd(t *testing.T) {
	n := newNetwork()
	n.set(first, says(www))
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		for range 5 {
			exchange(t, f, "www.example.")
		}
		exchange(t, f, "rare.example.")
		time.Sleep(280 * time.Second)
		exchange(t, f, "www.example.")
		exchange(t, f, "rare.example.")
		synctest.Wait()
		if got := n.total(); got != 3 {
			t.Errorf("upstream was asked %d times, want once for each and once more for the popular one", got)
		}
		time.Sleep(30 * time.Second)
		checkAnswer(t, exchange(t, f, "www.example."), "www.example. 270 IN A 192.0.2.80")
		if got := n.total(); got != 3 {
			t.Errorf("upstream was asked %d times, want no more", got)
		}
	})
}

// What is fetched early may come to nothing that is kept, or take its time: that is no reason to begin it with each hit.
func TestOneFetchAtATime(t *testing.T) {
	for name, reply := range map[string]func(q *dns.Msg) [][]byte{
		"not heard": silent, "not kept": says("www.example. 0 IN A 192.0.2.80"), "trouble": fails(dns.RcodeServerFailure),
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork()
			n.set(first, says(www))
			bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
				for range 5 {
					exchange(t, f, "www.example.")
				}
				time.Sleep(280 * time.Second)
				n.set(first, reply)
				for range 20 {
					exchange(t, f, "www.example.")
					time.Sleep(100 * time.Millisecond)
				}
				if got := value(t, f.metrics.prefetched); got != 1 {
					t.Errorf("%v fetches in two seconds were counted, want 1", got)
				}
			})
		})
	}
}

func TestEqualQuestionsShareOneQuery(t *testing.T) {
	n := newNetwork()
	n.set(first, func(q *dns.Msg) [][]byte {
		time.Sleep(time.Second / 2)
		return [][]byte{packet(q, 0, nil, www)}
	})
	bubble(t, n, Config{}, func(t *testing.T, f *Forwarder) {
		impatient, cancel := context.WithTimeout(t.Context(), time.Second/4)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.Exchange(impatient, query("www.example.", dns.TypeA), false); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one who does not wait got %v", err)
			}
		})
		synctest.Wait()
		for i := range 50 {
			wg.Go(func() {
				q := query("www.example.", dns.TypeA)
				q.Id = uint16(i)
				m, err := f.Exchange(t.Context(), q, false)
				if err != nil || m.Id != uint16(i) || len(m.Answer) != 1 {
					t.Errorf("got %v, %v", m, err)
				}
			})
		}
		wg.Wait()
		if got := n.total(); got != 1 {
			t.Errorf("upstream was asked %d times, want once", got)
		}
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	n := newNetwork()
	n.set(first, func(q *dns.Msg) [][]byte {
		return [][]byte{packet(q, 0, nil, q.Question[0].Name+" 300 IN A 192.0.2.1")}
	})
	for _, tc := range []struct {
		name           string
		config         Config
		bytes, entries int
	}{
		{"in octets", Config{CacheBytes: 10_000}, 10_000, 50},
		{"in number", Config{CacheEntries: 10}, 4 << 20, 10},
		{"to nothing", Config{CacheBytes: -1}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, n, tc.config, func(t *testing.T, f *Forwarder) {
				for i := range 1000 {
					exchange(t, f, "kept.example.")
					exchange(t, f, fmt.Sprintf("host%d.example.", i))
				}
				b, entries := f.cache.usage()
				if b > tc.bytes || entries > tc.entries || (tc.entries > 0 && entries < 5) {
					t.Errorf("the cache has %d octets in %d answers, want at most %d and %d", b, entries, tc.bytes, tc.entries)
				}
				sum := 0
				for at := f.cache.order.Front(); at != nil; at = at.Next() {
					sum += at.Value.(*entry).size()
				}
				if sum != b || entries != len(f.cache.entries) {
					t.Errorf("the books say %d octets in %d answers, there are %d in %d", b, entries, sum, len(f.cache.entries))
				}
				before := n.total()
				exchange(t, f, "kept.example.")
				if asked := n.total() > before; asked == (tc.entries > 0) {
					t.Errorf("the answer that is used most: asked for again %v", asked)
				}
			})
		})
	}
}

// Budget: 10 us and 40 allocations for a cached answer of one record.
func BenchmarkCached(b *testing.B) {
	n := newNetwork()
	n.set(first, says(www))
	f, err := New(Config{Resolvers: []netip.AddrPort{netip.MustParseAddrPort(first)}, Dial: n.dial})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	q := query("www.example.", dns.TypeA)
	b.ReportAllocs()
	for b.Loop() {
		if m, err := f.Exchange(ctx, q, false); err != nil || len(m.Answer) != 1 {
			b.Fatal(m, err)
		}
	}
}
