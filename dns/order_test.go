package dns

import (
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"starling/dns/udp"
	"starling/gossip/catalog"
)

// Resolvers ask for A and AAAA in turns. Each address is first equally often all the same.
func TestEachAddressIsFirstEquallyOften(t *testing.T) {
	for _, n := range []int{2, 4, 5} {
		m := newMesh(t)
		f := followed(t, m, nil)
		for i := range n {
			node := string(rune('a' + i))
			m.agent(node, "10.0.0."+string(rune('1'+i)))
			m.set(node, catalog.TaskKey("f", node), task(node, taskRunning, 31000))
		}
		f.catchUp(t)
		loop := newFast(f.Server)
		first, second := map[string]int{}, map[string]int{}
		const rounds = 4000
		for range rounds {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				query, err := new(dns.Msg).SetQuestion("web.marathon.mesos.", qtype).Pack()
				if err != nil {
					t.Fatal(err)
				}
				packed, next := loop.Answer(query, make([]byte, 1500), netip.MustParseAddrPort("127.0.0.1:4242"))
				if next != udp.Send {
					t.Fatal("it is not answered by the loop")
				}
				if qtype != dns.TypeA {
					continue
				}
				answer := new(dns.Msg)
				if err := answer.Unpack(packed); err != nil {
					t.Fatal(err)
				}
				first[answer.Answer[0].(*dns.A).A.String()]++
				second[answer.Answer[1].(*dns.A).A.String()]++
			}
		}
		for _, count := range []map[string]int{first, second} {
			if len(count) != n {
				t.Errorf("of %d addresses %v", n, count)
			}
			for a, times := range count {
				if want := rounds / n; times < want*8/10 || times > want*12/10 {
					t.Errorf("of %d addresses %s is there %d times, want about %d", n, a, times, want)
				}
			}
		}
	}
}

// watched calls a function after each change of the zone.
type watched struct {
	prometheus.Counter
	look func()
}

func (w watched) Inc() { w.look() }

// When the last good task goes, those take its place that are left, without a moment in which the name does not exist.
func TestANameIsNotEmptyBetweenTwoTiers(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, nil)
	m.agent("a", "10.0.0.1")
	m.agent("b", "10.0.0.2")
	bad := false
	m.set("a", catalog.TaskKey("f", "good"), task("good", taskRunning, 31000))
	m.set("b", catalog.TaskKey("f", "bad"), checked("bad", &bad, true))
	f.catchUp(t)
	f.wantAddrs(t, "at first", map[string]string{"web.marathon": "10.0.0.1"})
	changes := 0
	f.metrics.updates = watched{look: func() {
		if changes++; f.addrs("web.marathon") == "" {
			t.Error("the name is empty")
		}
	}}
	m.set("a", catalog.TaskKey("f", "good"), nil)
	f.catchUp(t)
	f.wantAddrs(t, "at last", map[string]string{"web.marathon": "10.0.0.2"})
	if changes != 2 {
		t.Errorf("%d changes", changes)
	}
}

// A new address of the machine moves the serial number, though nothing else happens.
func TestTheNameServersAddressesAreContent(t *testing.T) {
	listener, err := Listen(t.Context(), "0.0.0.0", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	m := newMesh(t)
	f := followed(t, m, func(c *Config) { c.Listen = []*Listener{listener} })
	f.interfaces = func() ([]net.Addr, error) { return nil, nil }
	f.tellNameserver()
	f.settle(false)
	f.commitAt = epoch
	before := f.zone.Serial()
	f.interfaces = interfaces(t, "192.0.2.9/24")
	f.lookAt = epoch
	f.take(nil)
	if got := f.zone.Serial(); f.addrs("ns1") != "192.0.2.9" || got != before+1 {
		t.Errorf("%q under %d, was %d", f.addrs("ns1"), got, before)
	}
}
