package dns

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"starling/dns/records"
)

// A name of thousands costs what its answer does: nothing is made of what has no room.
func TestALargeNameCostsLittle(t *testing.T) {
	// It looks for no networks: what that allocates beside would be counted.
	s := bare(t, func(c *Config) { c.Ranker, c.Allow = fixed(3), []netip.Prefix{} })
	many(s, 5000)
	for _, ask := range []struct {
		name  string
		qtype uint16
		most  uint64 // octets a query
	}{
		{"many.marathon.mesos.", dns.TypeANY, 100 << 10},
		{"many.marathon.mesos.", dns.TypePTR, 20 << 10},
		{"many.marathon.near.mesos.", dns.TypeA, 100 << 10},
		{"_many._tcp.marathon.near.mesos.", dns.TypeSRV, 150 << 10},
	} {
		query, err := new(dns.Msg).SetQuestion(ask.name, ask.qtype).SetEdns0(1232, false).Pack()
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const n = 20
		for range n {
			if m := s.slow(t.Context(), query, clientAt("")); len(m) < 12 || ask.qtype != dns.TypePTR && m[2]&2 == 0 {
				t.Fatalf("%s: no answer with TC", ask.name)
			}
		}
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / n; got > ask.most {
			t.Errorf("%s %s of 5,000: %d octets are allocated for a query, want %d at most", ask.name, dns.TypeToString[ask.qtype], got, ask.most)
		}
	}
}

// fixed ranks all addresses alike.
type fixed int

func (f fixed) Rank(netip.Addr) (int, time.Duration) { return int(f), 0 }

// What is left out is told, and what is there is as much as there is room for.
func TestAnAnswerHasAllThatFits(t *testing.T) {
	s := bare(t, func(c *Config) { c.Ranker = fixed(3) })
	many(s, 5000)
	for _, tc := range []struct {
		ask  string
		size uint16
		tcp  bool
	}{
		{"many.marathon.near.mesos. A", 1232, false},
		{"many.marathon.near.mesos. A", 512, false},
		{"many.marathon.mesos. ANY", 1232, false},
		{"_many._tcp.marathon.near.mesos. SRV", 1232, false},
		{"_many._tcp.marathon.mesos. SRV", 1232, true},
		{"many.marathon.mesos. A", 1232, true},
	} {
		q := Case{Ask: tc.ask, Change: edns(tc.size, false)}.query(t)
		var m *dns.Msg
		size := int(tc.size)
		if tc.tcp {
			m, size = askTCP(t, s, q, "")[0], dns.MaxMsgSize
		} else {
			m = askUDP(t, s, q, "")
		}
		m.Compress = true
		seen := map[string]bool{}
		for _, rr := range m.Answer {
			seen[rr.String()] = true
		}
		if !m.Truncated || len(seen) != len(m.Answer) {
			t.Errorf("%s: TC %v, %d different answers of %d", tc.ask, m.Truncated, len(seen), len(m.Answer))
		}
		last := m.Answer[len(m.Answer)-1]
		if left := size - m.Len(); left < 0 || left > dns.Len(last) {
			t.Errorf("%s: %d octets are left of %d", tc.ask, left, size)
		}
	}
}

func TestOfManyTheNearestAreChosen(t *testing.T) {
	s := bare(t, func(c *Config) { c.Ranker = ranks{"10.2.3.7": 0, "10.2.19.1": 1, "10.2.0.200": 1} })
	many(s, 5000)
	m := askUDP(t, s, Case{Ask: "many.marathon.near.mesos. A"}.query(t), "")
	var first []string
	for _, rr := range m.Answer[:3] {
		first = append(first, rr.(*dns.A).A.String())
	}
	if got := strings.Join(first, " "); got != "10.2.3.7 10.2.19.1 10.2.0.200" && got != "10.2.3.7 10.2.0.200 10.2.19.1" {
		t.Errorf("the first ones are %s", got)
	}
	m = askUDP(t, s, Case{Ask: "_many._tcp.marathon.near.mesos. SRV"}.query(t), "")
	for i, want := range []uint16{0, 1, 1, 9} {
		if got := m.Answer[i].(*dns.SRV).Priority; got != want {
			t.Errorf("the priority of answer %d is %d, want %d", i, got, want)
		}
	}
}

// gate ranks, and notes how many do at once.
type gate struct{ now, most atomic.Int32 }

func (g *gate) Rank(netip.Addr) (int, time.Duration) {
	n := g.now.Add(1)
	defer g.now.Add(-1)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
	runtime.Gosched()
	return 0, 0
}

func TestFewComputeAtOnce(t *testing.T) {
	g := &gate{}
	s := bare(t, func(c *Config) { c.Ranker = g })
	many(s, 100)
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			if i%2 == 0 {
				askUDP(t, s, Case{Ask: "many.marathon.near.mesos. A"}.query(t), "")
			} else {
				askTCP(t, s, Case{Ask: "many.marathon.near.mesos. A"}.query(t), "")
			}
		})
	}
	group.Wait()
	if got, want := g.most.Load(), int32(runtime.GOMAXPROCS(0)); got > want {
		t.Errorf("%d computed at once, want %d at most", got, want)
	}
}

func TestChoiceIsEven(t *testing.T) {
	s := bare(t, nil)
	for i := range 40 {
		s.zone.Replace(fmt.Sprint("t", i), []records.Record{{Name: "x.mesos.", Type: records.A, Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}})
	}
	name, _ := s.zone.Find("x.mesos.")
	seen := map[string]int{}
	for range 1000 {
		chosen, all := choose(name, records.A, 10, nil)
		if len(chosen) != 10 || all != 40 {
			t.Fatalf("%d of %d", len(chosen), all)
		}
		for _, c := range chosen {
			seen[c.value.Record().Addr.String()]++
		}
	}
	for addr, n := range seen {
		if n < 150 || n > 350 { // 250, and 14 for one standard deviation
			t.Errorf("%s was chosen %d times of 1,000, want about 250", addr, n)
		}
	}
	if len(seen) != 40 {
		t.Errorf("%d of 40 were ever chosen", len(seen))
	}
}
