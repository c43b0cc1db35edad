package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"starling/dns/records"
)

// ranks is classes by address; those that it does not have are far.
type ranks map[string]int

func (r ranks) Rank(a netip.Addr) (int, time.Duration) {
	if class, ok := r[a.String()]; ok {
		return class, 0
	}
	return 9, 0
}

// nearServer has five tasks of one name: two far away, one on this node, two in this zone.
func nearServer(t *testing.T) *Server {
	t.Helper()
	s := bare(t, func(c *Config) {
		c.Ranker = ranks{"10.2.0.1": 4, "10.2.0.2": 1, "10.2.0.3": 0, "10.2.0.4": 1}
	})
	fill(s)
	many(s, 5)
	return s
}

func TestNearestFirst(t *testing.T) {
	s := nearServer(t)
	second := map[string]int{}
	for range 100 {
		for _, m := range []*dns.Msg{
			askUDP(t, s, Case{Ask: "Many.marathon.NEAR.mesos. A"}.query(t), ""), askTCP(t, s, Case{Ask: "Many.marathon.NEAR.mesos. A"}.query(t), "")[0],
		} {
			var got []string
			for _, rr := range m.Answer {
				if rr.Header().Name != "Many.marathon.NEAR.mesos." {
					t.Fatalf("the owner is %s", rr.Header().Name)
				}
				got = append(got, rr.(*dns.A).A.String())
			}
			if len(got) != 5 || got[0] != "10.2.0.3" || got[3] != "10.2.0.1" || got[4] != "10.2.0.5" {
				t.Fatalf("the order is %v", got)
			}
			second[got[1]]++
		}
	}
	if len(second) != 2 {
		t.Errorf("within a class the order does not change: %v", second)
	}
}

func TestNearestServices(t *testing.T) {
	s := nearServer(t)
	m := askTCP(t, s, Case{Ask: "_many._tcp.marathon.near.mesos. SRV"}.query(t), "")[0]
	if len(m.Answer) != 5 || len(m.Extra) != 5 {
		t.Fatal(m)
	}
	var priorities []uint16
	for i, rr := range m.Answer {
		srv := rr.(*dns.SRV)
		priorities = append(priorities, srv.Priority)
		if m.Extra[i].Header().Name != srv.Target {
			t.Errorf("additional record %d is of %s, want the answer's target %s", i, m.Extra[i].Header().Name, srv.Target)
		}
	}
	if want := []uint16{0, 1, 1, 4, 9}; !slices.Equal(priorities, want) {
		t.Errorf("the priorities are %v, want %v", priorities, want)
	}
}

func TestNearNamesThatAreNot(t *testing.T) {
	s := nearServer(t)
	for _, c := range []Case{
		{Name: "the sub-domain itself is empty", Ask: "near.mesos. A", Ns: soaOnly()},
		{Name: "a name in between", Ask: "marathon.near.mesos. A", Ns: soaOnly()},
		{Name: "no name", Ask: "nobody.marathon.near.mesos. A", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "another type", Ask: "many.marathon.near.mesos. AAAA", Ns: soaOnly()},
		{Name: "no SOA there", Ask: "near.mesos. SOA", Ns: soaOnly()},
		{Name: "letters outside of ASCII", Ask: `\195\132rger.marathon.near.mesos. A`, Answer: []string{`\195\132rger.marathon.near.mesos. 5 IN A 10.1.0.2`}},
		{Name: "near is no label further down", Ask: "near.marathon.mesos. A", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{Name: "nor the end of one", Ask: "web.marathonnear.mesos. A", Rcode: dns.RcodeNameError, Ns: soaOnly()},
		{
			Name: "the agent's address", Ask: "web.marathon.slave.near.mesos. ANY", Answer: []string{"web.marathon.slave.near.mesos. 5 IN A 10.1.0.1"},
		},
	} {
		c.run(t, s)
	}
}

func TestTruncationKeepsTheNearest(t *testing.T) {
	near := ranks{}
	for i := range 60 {
		near[fmt.Sprintf("10.2.0.%d", i+1)] = (i * 7) % 60
	}
	s := bare(t, func(c *Config) { c.Ranker = near })
	many(s, 60)
	for _, ask := range []string{"many.marathon.near.mesos. A", "_many._tcp.marathon.near.mesos. SRV"} {
		m := askUDP(t, s, Case{Ask: ask}.query(t), "")
		if !m.Truncated || len(m.Answer) == 0 || len(m.Answer) > 40 {
			t.Errorf("%s: TC %v with %d answers", ask, m.Truncated, len(m.Answer))
		}
		for i, rr := range m.Answer {
			class := 0
			if a, ok := rr.(*dns.A); ok {
				class = near[a.A.String()]
			} else {
				class = int(rr.(*dns.SRV).Priority)
			}
			if class != i {
				t.Errorf("%s: answer %d has class %d", ask, i, class)
			}
		}
	}
}

func TestATargetHasItsNearestAddress(t *testing.T) {
	s := bare(t, func(c *Config) { c.Ranker = ranks{"10.9.0.2": 1, "10.9.0.1": 5, "fd00::9": 3} })
	s.zone.Replace("multi", records.Task{
		ID: "multi.1", Name: "multi", Framework: "marathon", AgentID: "x-S0", Agent: addrs("10.1.0.1"), Addrs: addrs("10.9.0.1", "10.9.0.2", "fd00::8", "fd00::9"),
		Discovery: "multi", Ports: []records.Port{{Number: 80, Protocol: "tcp"}},
	}.Records("mesos"))
	m := askTCP(t, s, Case{Ask: "_multi._tcp.marathon.near.mesos. SRV"}.query(t), "")[0]
	if len(m.Answer) != 1 || m.Answer[0].(*dns.SRV).Priority != 1 || len(m.Extra) != 2 ||
		m.Extra[0].(*dns.A).A.String() != "10.9.0.2" || m.Extra[1].(*dns.AAAA).AAAA.String() != "fd00::9" {
		t.Errorf("got %v", m)
	}
}

// Budget: 2 ms of a name with 5,000 values.
func BenchmarkNear(b *testing.B) {
	for _, n := range []int{10, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := bare(b, func(c *Config) { c.Ranker = fixed(3) })
			many(s, n)
			benchmarkSlow(b, s, "_many._tcp.marathon.near.mesos.", dns.TypeSRV)
		})
	}
}
