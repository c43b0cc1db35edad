package gossip

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/gossip/memnet"
)

func prefixes(all ...string) (ps []netip.Prefix) {
	for _, s := range all {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestNetworks(t *testing.T) {
	some := networks(prefixes("10.1.0.0/16", "192.168.5.6/32", "fd00::/8"))
	for addr, want := range map[string]bool{
		"10.1.2.3:7946": true, "10.2.0.1:7946": false, "192.168.5.6:1": true, "192.168.5.7:1": false, "[::ffff:10.1.2.3]:7946": true,
		"[fd00::2%eth0]:7946": true, "[fe80::1%eth0]:7946": false, "pipe": false, "": false, "10.1.2.3": false,
	} {
		if got := some.hasAddr(addr); got != want {
			t.Errorf("%q in %v: %v, want %v", addr, some, got, want)
		}
		if !networks(nil).hasAddr(addr) {
			t.Errorf("%q is refused where all networks are allowed", addr)
		}
	}
}

// A node of another network has the key, and knows an address: nothing that it sends is read, and nobody goes there.
func TestNobodyFromElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		var warnings countingHandler
		registry := prometheus.NewRegistry()
		allow := func(c *Config) { c.Allow = prefixes("10.0.0.0/24") }
		f.start(0, allow, func(c *Config) { c.Log, c.Metrics = slog.New(&warnings), registry })
		f.start(1, allow)
		f.start(2, func(c *Config) { c.Transport = f.net.Host("10.9.9.9") }).Set(assign("node", "elsewhere"))
		f.within(10*time.Second, "those of the network are together", func() bool { return whole(f.nodes[:2]) })
		// A peer that is told of the other one does not go there either.
		if _, err := f.nodes[0].transport.DialTimeout("10.9.9.9:7946", time.Second); err == nil {
			t.Error("a stream to another network was opened")
		}
		if _, err := f.nodes[0].transport.WriteTo([]byte("x"), "10.9.9.9:7946"); err == nil || !strings.Contains(err.Error(), "10.0.0.0/24") {
			t.Errorf("a datagram to another network: %v, want an error that names the allowed ones", err)
		}
		stranger := f.net.Host("10.8.8.8")
		for range 1000 {
			if _, err := stranger.WriteTo([]byte("garbage"), memnet.Addr(0)+":7946"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(3 * time.Minute)
		for _, n := range f.nodes {
			if got, want := len(n.Members()), map[bool]int{true: 2, false: 1}[n.i < 2]; got != want {
				t.Errorf("%s sees %d members, want %d: %s", n.Self(), got, want, n.states())
			}
		}
		if n := counted(t, registry, "starling_gossip_refused_total", "network"); n < 1000 {
			t.Errorf("%v were counted, want the 1,000 datagrams at least", n)
		}
		if n := warnings.count("refused what is not in an allowed network"); n < 1 || n > 4 {
			t.Errorf("%d warnings in three minutes, want one a minute at the most", n)
		}
		if n := warnings.count("refused what has another"); n > 0 {
			t.Errorf("what came from elsewhere was read: %d warnings about its contents", n)
		}
	})
}

func TestTheOwnAddressHasToBeAllowed(t *testing.T) {
	cfg := DefaultConfig()
	cfg.NodeID, cfg.Log, cfg.BindPort = "n", logTo(t.Output(), "n"), 0
	cfg.BindAddr, cfg.Allow = "127.0.0.1", prefixes("10.0.0.0/8", "fd00::/8")
	m, err := New(cfg)
	if err == nil {
		closeQuietly(m)
	}
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1") || !strings.Contains(err.Error(), "10.0.0.0/8, fd00::/8") {
		t.Errorf("%v, want an error that names the address and the networks", err)
	}
	cfg.Allow, cfg.Join = append(prefixes("::ffff:10.0.0.0/104"), netip.Prefix{}), []string{"10.0.0.1", "seed.example"}
	err = cfg.Validate()
	for _, want := range []string{"network of IPv4", "invalid Prefix is not", "Join: 10.0.0.1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %q in: %v", want, err)
		}
	}
}
