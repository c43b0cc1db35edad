package gossip

import (
	"testing"
	"time"

	"starling/gossip/record"
)

func TestReapedNodesLeaveNothingBehind(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3, func(c *Config) { c.ReapAfter = 5 * time.Minute })
		f.nodes[1].stop()
		f.nodes[2].kill()
		for _, gone := range f.nodes[1:] {
			if err := <-gone.result; err != nil {
				t.Errorf("Run: %v", err)
			}
			gone.result <- nil
		}
		m := f.nodes[0].Mesh
		f.within(time.Minute, "one left, one dead", func() bool {
			return f.nodes[0].liveness("node-001") == record.Left && f.nodes[0].liveness("node-002") == record.Dead
		})
		if !m.saidBye("node-001") {
			t.Error("the goodbye of node-001 is not remembered before it is reaped")
		}
		f.within(10*time.Minute, "reaped", func() bool { return len(m.Members()) == 1 })
		m.mu.Lock()
		byes, doubts := len(m.byes), len(m.doubt)
		m.mu.Unlock()
		if byes != 0 || doubts != 0 {
			t.Errorf("%d goodbyes and %d doubts of nodes that were reaped", byes, doubts)
		}
		if _, known := m.peers.address("node-001"); known {
			t.Error("the address of the node that left is still there")
		}
		if _, known := m.peers.address("node-002"); !known {
			t.Error("the address of the node that died was forgotten: it may only be cut off")
		}
	})
}

func TestAGenerationBeyondReachIsNotChased(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3)
		own := f.nodes[2].Snapshot("node-002").Generation()
		forged := record.NewMap("node-002", maxGeneration+1) // the highest ones leave nothing to outbid them with
		forged.Set(time.Now(), assign("task/f/1", "forged"))
		for range 10 {
			if err := f.nodes[2].Apply(forged.Delta("node-002", 0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		if g := f.nodes[2].Snapshot("node-002").Generation(); g != own {
			t.Errorf("generation %d, want still %d: each raise costs a write to disk and wins nothing", g, own)
		}
	})
}
