package mastertest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"starling/master"
	"starling/master/nodeapi"
)

// MasterID is the id of the master of a Cluster.
const MasterID = "0a6d1c1e-8f0b-4c55-9f6e-7d0f3a1b2c3d"

// Cluster is a master with simulated agents.
type Cluster struct {
	Mesh      *Mesh
	Contender *Contender
	Store     *Store
	Net       *Net
	Master    *master.Master

	t     testing.TB
	lose  func()
	epoch uint64
	stop  func()
}

// Start runs a master that does not lead yet. change, where not nil, may change its configuration. The master stops at
// the end of the test at the latest.
func Start(t testing.TB, s *Store, change func(*master.Config)) *Cluster {
	t.Helper()
	if s == nil {
		s = NewStore()
	}
	c := &Cluster{Mesh: NewMesh(MasterID), Contender: NewContender(), Store: s, Net: NewNet(), t: t}
	cfg := master.DefaultConfig()
	cfg.ID, cfg.Hostname, cfg.Address, cfg.Port = MasterID, "m1", "10.0.0.1", 5050
	cfg.Version = "test"
	cfg.Mesh, cfg.Contender, cfg.Store, cfg.Client = c.Mesh, c.Contender, s, c.Net
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	cfg.Rand = rand.New(rand.NewPCG(1, 2))
	cfg.Settle = 0
	if change != nil {
		change(&cfg)
	}
	m, err := master.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Master = m
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	c.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("master ended with: %v", err)
		}
	}
	t.Cleanup(c.stop)
	return c
}

// Stop stops the master.
func (c *Cluster) Stop() { c.stop() }

// Elect makes the master lead, under the next epoch.
func (c *Cluster) Elect() { c.ElectAs(c.epoch + 1) }

// ElectAs makes the master lead under an epoch.
func (c *Cluster) ElectAs(epoch uint64) {
	c.epoch = epoch
	c.lose = c.Contender.Elect(epoch)
}

// Lose ends the lease.
func (c *Cluster) Lose() { c.lose() }

// AddAgent adds an agent of number n and puts it into the mesh.
func (c *Cluster) AddAgent(n int, res string) *Agent {
	c.t.Helper()
	a, err := NewAgent(fmt.Sprintf("%s-S%d", MasterID, n), fmt.Sprintf("10.0.1.%d:5051", n), res)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Adopt(a)
	return a
}

// Adopt makes an agent report to this cluster's master, and puts it into its mesh.
func (c *Cluster) Adopt(a *Agent) {
	c.t.Helper()
	a.mu.Lock() // it may be reporting to another
	a.Report = func(ctx context.Context, _ string, r *nodeapi.Report) error { return c.Master.Report(ctx, r) }
	a.mu.Unlock()
	c.Net.Add(a)
	if err := a.Join(c.Mesh); err != nil {
		c.t.Fatal(err)
	}
}
