package limit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ask has a client ask so many times, evenly over a while, and returns the verdicts' counts.
func ask(l *Limiter, from, during time.Duration, n int, client netip.Addr) (counts [3]int) {
	for i := range n {
		counts[l.Take(from+during*time.Duration(i)/time.Duration(n), client)]++
	}
	return counts
}

func TestANetworkHasASecondsWorthAndThenTheRate(t *testing.T) {
	for _, rate := range []int{1, 7, 200, 300, 1000} {
		l := New(rate)
		got := ask(l, time.Hour, 10*time.Second, 100_000, netip.MustParseAddr("192.0.2.7"))
		if want := 11 * rate; got[Answer] < want-want/100-1 || got[Answer] > want+want/100+1 {
			t.Errorf("%d answers a second: %d in ten seconds, want about %d", rate, got[Answer], want)
		}
		if d := got[Slip] - got[Drop]; d < 0 || d > 1 {
			t.Errorf("%d slipped and %d dropped, want every second of them", got[Slip], got[Drop])
		}
		// Having been silent for long gives a second's worth again, not more.
		if got := ask(l, 3*time.Hour, 0, 10*rate, netip.MustParseAddr("192.0.2.7")); got[Answer] != rate {
			t.Errorf("%d answers at once after a rest, want %d", got[Answer], rate)
		}
		// Who keeps to the rate is never limited.
		if got := ask(l, 4*time.Hour, 100*time.Second, 99*rate, netip.MustParseAddr("192.0.2.7")); got[Answer] != 99*rate {
			t.Errorf("%v for a client that keeps to the rate, want answers alone", got)
		}
	}
}

func TestLargeAnswersCostMore(t *testing.T) {
	for octets, cost := range map[int]int{100: 1, 512: 1, 513: 2, 1024: 2, 1232: 3} {
		l, a := New(200), netip.MustParseAddr("192.0.2.7")
		answers := 0
		for i := range 100_000 {
			now := time.Hour + 10*time.Second*time.Duration(i)/100_000
			if l.Take(now, a) == Answer {
				answers++
				l.Charge(now, a, octets)
			}
		}
		if want := 2200 / cost; answers < want-want/50-2 || answers > want+want/50+2 {
			t.Errorf("%d answers of %d octets in ten seconds, want about %d", answers, octets, want)
		}
		if n := testing.AllocsPerRun(10, func() { l.Charge(time.Hour, a, octets) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// However much a network owes, its bucket is full again soon.
func TestDebtIsBounded(t *testing.T) {
	l, a := New(10), netip.MustParseAddr("192.0.2.7")
	for range 10_000 {
		l.Charge(time.Hour, a, 1400)
	}
	if l.Take(time.Hour, a) == Answer {
		t.Error("no charge was taken")
	}
	if l.Take(time.Hour+3*time.Second, a) != Answer {
		t.Error("no answer after 3 s")
	}
}

func TestNetworksAreOfOneSize(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.254", true},
		{"192.0.2.1", "192.0.3.1", false},
		{"::ffff:192.0.2.1", "192.0.2.9", true},
		{"2001:db8:1:200::1", "2001:db8:1:2ff:5::9", true},
		{"2001:db8:1:200::1", "2001:db8:1:300::1", false},
		{"192.0.2.1", "c000:200::", false},
	} {
		l := New(1)
		l.Take(time.Hour, netip.MustParseAddr(tc.a))
		if limited := l.Take(time.Hour, netip.MustParseAddr(tc.b)) != Answer; limited != tc.same {
			t.Errorf("%s and %s count as one: %v, want %v", tc.a, tc.b, limited, tc.same)
		}
	}
}

// An attacker asks a hundred thousand times a second with the addresses of one network. A thousand others ask now and then.
func TestAFloodLeavesOthersAlone(t *testing.T) {
	l := New(200)
	flood, answers := netip.MustParseAddr("198.51.100.1"), 0
	limited := 0
	for tick := range 500_000 { // 10 µs each
		now := time.Hour + time.Duration(tick)*10*time.Microsecond
		if l.Take(now, flood) == Answer {
			answers++
		}
		if tick%50 == 0 {
			i := tick / 50 % 1000
			if l.Take(now, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})) != Answer {
				limited++
			}
		}
	}
	if answers > 1210 {
		t.Errorf("the flood had %d answers in 5 s, want 1,200", answers)
	}
	// Two networks are taken for one with a chance of 1 in 4,000.
	if limited > 10 {
		t.Errorf("%d of 10,000 queries of others were limited", limited)
	}
}

// More networks than there are buckets: a flood is not forgotten for that, and newcomers are answered.
func TestAFullTableRemembersWhoFloods(t *testing.T) {
	l := New(100)
	r := rand.New(rand.NewPCG(1, 2))
	flood, answers, limited := netip.MustParseAddr("203.0.113.5"), 0, 0
	const ticks = 400_000
	for tick := range ticks { // 5 s
		now := time.Hour + time.Duration(tick)*5*time.Second/ticks
		if l.Take(now, flood) == Answer {
			answers++
		}
		n := r.Uint32()
		if l.Take(now, netip.AddrFrom4([4]byte{byte(n>>24) | 1, byte(n >> 16), byte(n >> 8), 1})) != Answer {
			limited++
		}
	}
	if answers > 660 {
		t.Errorf("the flood had %d answers in 5 s, want 600", answers)
	}
	if limited > ticks/100 {
		t.Errorf("%d of %d queries from as many networks were limited", limited, ticks)
	}
}

func TestManyAtOnce(t *testing.T) {
	l := New(1000)
	var group sync.WaitGroup
	var answers atomic.Int64
	for range 8 {
		group.Go(func() {
			for i := range 10_000 {
				if l.Take(time.Hour, netip.AddrFrom4([4]byte{10, 0, byte(i % 4), 1})) == Answer {
					answers.Add(1)
				}
			}
		})
	}
	group.Wait()
	// Queries that meet may be dropped, but never is more granted than there is.
	if n := answers.Load(); n > 4000 || n < 3900 {
		t.Errorf("%d answers, want 4,000", n)
	}
}

func TestTakeAllocatesNothing(t *testing.T) {
	l := New(200)
	a := netip.MustParseAddr("2001:db8::1")
	if n := testing.AllocsPerRun(100, func() { l.Take(time.Hour, a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Budget: 50 ns.
func BenchmarkTake(b *testing.B) {
	for _, networks := range []int{1, 10_000} {
		b.Run(fmt.Sprint(networks, "_networks"), func(b *testing.B) {
			l := New(200)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				n := i % networks
				l.Take(time.Hour+time.Duration(i)*time.Microsecond, netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}))
			}
		})
	}
}
