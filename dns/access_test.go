package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"starling/dns/udp"
)

func interfaces(t *testing.T, list ...string) func() ([]net.Addr, error) {
	t.Helper()
	return func() ([]net.Addr, error) {
		var out []net.Addr
		for _, text := range list {
			ip, n, err := net.ParseCIDR(text)
			if err != nil {
				t.Fatal(err)
			}
			n.IP = ip
			out = append(out, n)
		}
		return out, nil
	}
}

func TestWhoMayAskByDefault(t *testing.T) {
	n := neighbours{interfaces: interfaces(t, "127.0.0.1/8", "192.168.7.2/24", "203.0.113.5/24", "fd00:1::2/64", "2001:db8::5/64", "fe80::1/64", "100.125.3.1/20", "172.17.0.1/16")}
	n.look(time.Now())
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.3.2.1": true, "::1": true, "192.168.7.77": true, "::ffff:192.168.7.77": true, "192.168.8.1": false,
		"203.0.113.5": true, "203.0.113.6": false, // the own address, but not all of a public network
		"fd00:1::77": true, "fd00:2::77": false, "2001:db8::5": true, "2001:db8::6": false, "fe80::77%eth0": true,
		"100.125.0.9": true, "100.64.0.1": false, "172.17.9.9": true, "172.18.0.1": false, "8.8.8.8": false,
	} {
		if got := n.known().contain(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}

func TestANewNetworkIsAllowedSoon(t *testing.T) {
	bubble(t, func(t *testing.T) {
		list := atomic.Pointer[func() ([]net.Addr, error)]{}
		set := func(f func() ([]net.Addr, error)) { list.Store(&f) }
		set(interfaces(t, "127.0.0.1/8"))
		n := neighbours{interfaces: func() ([]net.Addr, error) { return (*list.Load())() }}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		n.look(time.Now())
		running.Go(func() { n.run(ctx) })
		synctest.Wait()
		bridged := netip.MustParseAddr("10.213.0.7")
		if n.known().contain(bridged) || !n.known().contain(netip.MustParseAddr("127.0.0.1")) {
			t.Error("a network that is not there is allowed, or loopback is not")
		}
		set(interfaces(t, "127.0.0.1/8", "10.213.0.1/20"))
		if n.known().contain(bridged) {
			t.Error("the interfaces are listed with every question")
		}
		time.Sleep(neighboursAge + time.Millisecond)
		if !n.known().contain(bridged) {
			t.Error("a new network is not allowed")
		}
		set(func() ([]net.Addr, error) { return nil, errors.New("no") })
		time.Sleep(neighboursAge)
		if !n.known().contain(bridged) {
			t.Error("what was known is forgotten when the interfaces cannot be listed")
		}
		cancel()
		running.Wait()
	})
}

// The loop asks who is allowed for each query over the rate; it must not list interfaces for that.
func TestTheHotPathDoesNotLookForNetworks(t *testing.T) {
	// It looks for no networks itself: what that allocates beside would be counted.
	s := bare(t, func(c *Config) { c.Rate, c.Allow = 1, []netip.Prefix{} })
	fill(s)
	looks := 0
	n := &neighbours{interfaces: func() ([]net.Addr, error) { looks++; return interfaces(t, "10.9.9.1/24")() }}
	n.look(time.Now())
	// One whose general path does not run, hence does not look by itself.
	s = &Server{zone: s.zone, limiter: s.limiter, metrics: s.metrics, apex: s.apex, began: s.began, general: &general{access: access{neighbours: n}}}
	s.synced.Store(true)
	query, err := Case{Ask: "web.marathon.mesos. A"}.query(t).Pack()
	if err != nil {
		t.Fatal(err)
	}
	f := newFast(s)
	count := func(from string) (sent int) {
		for range 100 {
			f.Begin()
			if answer, do := f.Answer(query, make([]byte, udp.BufferSize), netip.MustParseAddrPort(from)); do == udp.Send && answer[2]&2 == 0 {
				sent++
			}
		}
		return sent
	}
	if got := count("10.9.9.7:40000"); got != 100 {
		t.Errorf("%d answers of 100 for a neighbour", got)
	}
	if got := count("10.77.0.1:40000"); got > 2 {
		t.Errorf("%d answers for a stranger, want one", got)
	}
	if looks != 1 {
		t.Errorf("the loop listed interfaces %d times", looks-1)
	}
	from := netip.MustParseAddr("10.9.9.7")
	if n := testing.AllocsPerRun(100, func() { s.general.access.known(from) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNetworksContainWhatTheirPrefixesDo(t *testing.T) {
	var list []netip.Prefix
	for _, text := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.5.0.0/16", "11.0.0.0/32", "192.168.4.5/24", "fd00::/8", "fd00:1::/64", "::ffff:172.16.0.0/108", "0.0.0.0/32"} {
		list = append(list, netip.MustParsePrefix(text))
	}
	n := newNetworks(list)
	for _, text := range []string{
		"0.0.0.0", "0.0.0.1", "9.255.255.255", "10.0.0.0", "10.1.2.3", "10.9.9.9", "10.255.255.255", "11.0.0.0", "11.0.0.1", "192.168.4.255", "192.168.5.0", "::", "fcff::",
		"fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe00::", "172.15.255.255", "172.16.0.1", "172.31.255.255", "172.32.0.0", "::ffff:10.1.1.1", "fd00::1%eth0",
	} {
		a := netip.MustParseAddr(text)
		if got, want := n.contain(a), Permits(list, a); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestPrefixesInIPv6FormPermitIPv4(t *testing.T) {
	if !Permits([]netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}, netip.MustParseAddr("10.2.3.4")) {
		t.Error("::ffff:10.0.0.0/104 does not permit 10.2.3.4")
	}
}

func TestIsSelf(t *testing.T) {
	here := interfaces(t, "127.0.0.1/8", "192.168.7.2/24", "fd00::2/64")
	for _, tc := range []struct {
		bound, asked string
		want         bool
	}{
		{"0.0.0.0:53", "192.168.7.2:53", true},
		{"[::]:53", "192.168.7.2:53", true},
		{"[::]:53", "[fd00::2]:53", true},
		{"0.0.0.0:53", "127.0.0.53:53", true},
		{"0.0.0.0:53", "192.168.7.1:53", false},
		{"0.0.0.0:8053", "192.168.7.2:53", false},
		{"192.168.7.2:53", "192.168.7.2:53", true},
		{"192.168.7.2:53", "127.0.0.53:53", false}, // the stub of systemd-resolved
	} {
		if got := isSelf(netip.MustParseAddrPort(tc.bound), netip.MustParseAddrPort(tc.asked), here); got != tc.want {
			t.Errorf("bound to %s, %s is self: %v, want %v", tc.bound, tc.asked, got, tc.want)
		}
	}
}

func TestMoreThanTheDefaultMayAsk(t *testing.T) {
	s, _ := withUpstream(t, func(c *Config) { c.AllowMore = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")} })
	www := []string{"www.example. 300 IN A 192.0.2.80"}
	for _, c := range []Case{
		{Name: "this machine", Ask: "www.example. A", Flags: "ra", Answer: www},
		{Name: "those added", Ask: "www.example. A", From: "203.0.113.9", Flags: "ra", Answer: www},
		{Name: "nobody else", Ask: "www.example. A", From: "198.51.100.9", Rcode: dns.RcodeRefused, Flags: "-"},
	} {
		c.run(t, s)
	}
	if got := s.Resolvers(); len(got) != 1 {
		t.Errorf("the resolvers are %v, want the one configured", got)
	}
}

// A client that is in no network yet is worth a look at once, though not at each of its questions.
func TestNewNetworkIsAllowedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		looks, addrs := 0, interfaces(t, "127.0.0.1/8")
		n := neighbours{interfaces: func() ([]net.Addr, error) { looks++; return addrs() }}
		container := netip.MustParseAddr("10.213.0.2")
		if n.again(time.Now()).contain(container) {
			t.Error("allowed before there is such a network")
		}
		addrs = interfaces(t, "127.0.0.1/8", "10.213.0.1/20")
		time.Sleep(strangersAge)
		if !n.again(time.Now()).contain(container) {
			t.Error("refused although there is such a network now")
		}
		for range 100 {
			n.again(time.Now())
		}
		if looks != 2 {
			t.Errorf("looked %d times, want 2", looks)
		}
	})
}
