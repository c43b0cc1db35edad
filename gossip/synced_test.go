package gossip

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/memnet"
	"starling/gossip/record"
)

func (n *node) isSynced() bool {
	select {
	case <-n.Synced():
		return true
	default:
		return false
	}
}

func TestWhoKnowsOfNobodyIsSyncedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		for name, change := range map[string]func(*Config){
			"no seed":               func(c *Config) { c.Join = nil },
			"itself for a seed":     func(c *Config) { c.Join = []string{memnet.Addr(0)} },
			"no seed, and no state": func(c *Config) { c.Join, c.StateDir = nil, "" },
		} {
			n := f.start(0, change)
			if took := f.within(time.Second, name, n.isSynced); took > 0 {
				t.Errorf("%s: synced after %v", name, took)
			}
			n.kill()
			<-n.result
			n.result <- nil
		}
	})
}

// To be alone is to be synced, and to have met nobody, until somebody comes.
func TestWhoIsAloneHasMetNobody(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		n := f.start(0, func(c *Config) { c.Join = nil })
		met := func() bool {
			select {
			case <-n.Met():
				return true
			default:
				return false
			}
		}
		f.within(time.Second, "synced", n.isSynced)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if met() {
			t.Fatal("it has met somebody, and there is nobody")
		}
		f.start(1)
		f.within(15*time.Second, "met", met)
	})
}

func TestSeedsThatDoNotAnswerLeaveItOpen(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		n := f.start(1)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n.isSynced() {
			t.Fatal("synced with nobody")
		}
		f.start(0)
		f.nodes[0].Set(assign("node", "here"))
		f.within(15*time.Second, "synced once the seed is there", n.isSynced)
		if got := value(n, "node-000", "node"); got != "here" {
			t.Errorf("synced, with %q of the seed's record", got)
		}
	})
}

// Whoever joins holds, once it is synced, all that the mesh held when it came, and knows that its owners live, also when that takes
// several messages and some of those are lost.
func TestSyncedIsAfterAllThatWasThere(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		f.form(5)
		var want []uint64
		for _, n := range f.nodes {
			for k := range 300 {
				n.Set(assign(fmt.Sprint("task/f/", k), fmt.Sprintf("%0200d", k)))
			}
		}
		f.within(time.Minute, "all have all", func() bool { return whole(f.nodes) })
		for _, n := range f.nodes {
			want = append(want, n.Snapshot(n.Self()).Version())
		}
		f.net.SetLoss(0.1)
		n := f.start(5)
		took := f.within(20*time.Second, "synced", n.isSynced)
		for i, o := range f.nodes[:5] {
			s := n.Snapshot(o.Self())
			if s == nil || s.Version() < want[i] || s.Liveness() != record.Alive {
				t.Errorf("synced after %v, and of %s there is %+v, want version %d", took, o.Self(), s, want[i])
			}
		}
		t.Logf("1,500 keys of 5 nodes: synced after %v", took)
		f.net.SetLoss(0)
	})
}

// A node that has been in the mesh before looks for the peers of its last run, and is not synced without them.
func TestRememberedPeersAreWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3, func(c *Config) {
			if c.NodeID == "node-002" {
				c.Join = []string{memnet.Addr(0)}
			}
		})
		for _, i := range []int{0, 1, 2} {
			f.nodes[i].stop()
			<-f.nodes[i].result
			f.nodes[i].result <- nil
		}
		n := f.start(2, func(c *Config) { c.Join = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if n.isSynced() {
			t.Fatal("synced without the peers that it remembers")
		}
		f.start(0, func(c *Config) { c.Join = nil })
		f.within(30*time.Second, "synced", n.isSynced)
	})
}
