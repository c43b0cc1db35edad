package gossip

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"starling/gossip/record"
)

// real starts a node on loopback addresses of this machine, with real sockets.
func real(t *testing.T, id, ip string, change func(*Config)) *Mesh {
	t.Helper()
	cfg := DefaultConfig()
	cfg.NodeID, cfg.BindAddr, cfg.BindPort, cfg.Profile = id, ip, 0, ProfileLocal
	cfg.Log = logTo(t.Output(), id)
	cfg.Metrics = prometheus.NewRegistry()
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s does not end", id)
		}
	})
	return m
}

// eventually waits for a condition, looking again at each change of the mesh.
func eventually(t *testing.T, m *Mesh, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for feed := m.Feed(); !cond(); {
		if _, err := feed.Next(ctx); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestRealSockets(t *testing.T) {
	key := func(c *Config) { c.Key = Secret(strings.Repeat("k", 32)); c.Cluster = "a-longer-name" }
	a := real(t, "a", "127.0.0.1", key)
	host, port := a.Address()
	seed := net.JoinHostPort(host, fmt.Sprint(port))
	a.Set(assign("node", "a"))
	b := real(t, "b", "127.0.0.2", func(c *Config) { key(c); c.Join = []string{seed} })
	c := real(t, "c", "127.0.0.3", func(c *Config) { key(c); c.Join = []string{seed} })
	for _, m := range []*Mesh{b, c} {
		eventually(t, m, "a's record", func() bool {
			s := m.Snapshot("a")
			return s != nil && s.Liveness() == record.Alive && s.Version() == a.Snapshot("a").Version()
		})
	}
	eventually(t, b, "c", func() bool { s := b.Snapshot("c"); return s != nil && s.Liveness() == record.Alive })

	// Sizes around what fits into a datagram: none may be lost without a word.
	for size := 1100; size < 1500; size += 3 {
		b.Set(assign(fmt.Sprint("size/", size), strings.Repeat("x", size)))
	}
	b.Set(assign("huge", strings.Repeat("x", 60_000)))
	want := b.Snapshot("b").Version()
	for _, m := range []*Mesh{a, c} {
		eventually(t, m, "all sizes", func() bool { return m.Snapshot("b").Version() >= want })
	}
	// Its record may come, by another node, before memberlist's word that it is there.
	eventually(t, c, "b alive", func() bool { return c.Snapshot("b").Liveness() == record.Alive })
	if ms := c.Members(); len(ms) != 3 || ms[0].Address != "127.0.0.1" || ms[0].Port != port || ms[1].Liveness != record.Alive {
		t.Errorf("members: %+v", ms)
	}

	problems, err := promlint.NewWithMetricFamilies(gather(t, a)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
	_, again, err := net.SplitHostPort(seed)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.NodeID, cfg.BindAddr, cfg.Log = "d", "127.0.0.1", logTo(t.Output(), "d")
	if _, err := fmt.Sscan(again, &cfg.BindPort); err != nil {
		t.Fatal(err)
	}
	if m, err := New(cfg); err == nil {
		t.Error("a port in use was bound twice")
		closeQuietly(m)
	} else if !strings.Contains(err.Error(), seed) {
		t.Errorf("port in use: %v, want the address named", err)
	}
}

func TestAMeshThatIsNeverRunIsClosed(t *testing.T) {
	cfg := DefaultConfig()
	cfg.NodeID, cfg.BindAddr, cfg.BindPort, cfg.Log = "a", "127.0.0.1", 0, logTo(t.Output(), "a")
	if runtime.GOOS == "linux" { // where an address that nobody else uses keeps others from the port meanwhile
		cfg.BindAddr = "127.77.0.1"
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, cfg.BindPort = m.Address()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Run(t.Context()); err == nil {
		t.Error("a closed mesh ran")
	}
	if m, err = New(cfg); err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	closeQuietly(m)
}

// TestDiscovery runs where multicast works on loopback; elsewhere it says so.
func TestDiscovery(t *testing.T) {
	cluster := fmt.Sprint(t.Name(), "-", rand.Uint64()) // the same test may run twice on this machine
	discover := func(c *Config) { c.Discover = true; c.Cluster = cluster }
	a := real(t, "a", "127.0.0.1", discover)
	b := real(t, "b", "127.0.0.2", discover)
	a.Set(assign("node", "a"))
	eventually(t, b, "a by mDNS", func() bool { return b.Snapshot("a") != nil && b.Snapshot("a").Version() >= 1 })
}

func gather(t *testing.T, m *Mesh) []*dto.MetricFamily {
	t.Helper()
	families, err := m.cfg.Metrics.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) < 10 {
		t.Errorf("only %d metrics", len(families))
	}
	return families
}
