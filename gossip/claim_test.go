package gossip

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/memnet"
)

// Whoever makes up messages ends nobody with them, neither the node that they go to nor the one that they name.
func TestMadeUpClaimsEndNobody(t *testing.T) {
	for _, secret := range []Secret{nil, Secret(strings.Repeat("k", 32))} {
		t.Run(fmt.Sprintf("key=%v", secret != nil), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.form(4, func(c *Config) { c.Key = secret })
				a := newAttacker(t, f, secret)
				a.victim = f.nodes[0].Mesh
				w := f.witness(f.nodes)
				at := func(i int) string { return memnet.Addr(i) + fmt.Sprintf(":%d", memnet.Port) }
				for range 20 {
					for _, addr := range []string{at(0), at(2), at(99), attackerAddr + fmt.Sprintf(":%d", memnet.Port), "nonsense", ""} {
						for _, nonce := range []uint64{0, 1 << 60, a.victim.nonce} {
							for _, k := range []kind{kindClaim, kindHeld} {
								a.user((&message{kind: k, node: "node-000", number: nonce, uptime: 1000 * time.Hour, addr: addr}).append(nil))
								f.settle()
							}
						}
					}
					time.Sleep(500 * time.Millisecond)
				}
				time.Sleep(time.Minute)
				for _, n := range f.nodes {
					select {
					case err := <-n.result:
						t.Fatalf("%s went: %v", n.Self(), err)
					default:
					}
				}
				if list := w.of(anybody, anybody); len(list) > 0 {
					t.Errorf("readers saw %v", list)
				}
				f.wantServing("made-up claims")
			})
		})
	}
}

// A node that is asked by itself, over another of its addresses, is not its own rival.
func TestAClaimOfItsOwnIsNoRival(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(2)
		r := rivals{m: f.nodes[1].Mesh, all: map[string]*rival{}, answered: map[string]time.Time{}}
		now := time.Now()
		const alias = "10.0.0.200:7946"
		r.add(now, alias)
		r.add(now, f.nodes[1].self())
		if len(r.all) != 1 {
			t.Fatalf("%d rivals, want the alias alone", len(r.all))
		}
		r.onClaim(now, &message{kind: kindClaim, node: "node-001", number: r.all[alias].nonce, uptime: 0, addr: f.nodes[1].self()})
		if !r.all[alias].settled || len(r.answered) > 0 {
			t.Errorf("rivals %+v, answered %v, want the alias settled and nothing answered", r.all[alias], r.answered)
		}
		for i := range 100 {
			r.add(now, fmt.Sprintf("10.0.1.%d:7946", i))
			r.onClaim(now, &message{kind: kindClaim, node: "node-001", number: 1, uptime: time.Hour, addr: fmt.Sprintf("10.0.2.%d:7946", i)})
		}
		if len(r.all) != maxRivals || len(r.answered) != maxRivals {
			t.Errorf("%d rivals and %d answers, want %d of each at most", len(r.all), len(r.answered), maxRivals)
		}
		for range 100 {
			if r.next().IsZero() {
				break
			}
			now = r.next()
			r.ask(now)
		}
		if len(r.all) > 0 {
			t.Errorf("%d rivals, want all forgotten", len(r.all))
		}
	})
}

// Of two nodes that both believe to be first at most one goes, whatever the messages between them took.
func TestTwoOfANameNeverBothGo(t *testing.T) {
	delays := []time.Duration{0, time.Millisecond, time.Second, 10 * time.Second}
	goes := func(m, other *Mesh, late time.Duration) bool {
		return (&rivals{m: m}).older(&message{uptime: time.Since(other.started) - late, addr: other.self()})
	}
	synctest.Test(t, func(t *testing.T) { // where time stands still
		for _, gap := range []time.Duration{-time.Hour, -claimTie, -time.Second, -1, 0, 1, time.Second, claimTie, time.Hour} {
			for _, there := range delays {
				for _, back := range delays {
					low, high := &Mesh{host: "10.0.0.1", port: 1}, &Mesh{host: "10.0.0.2", port: 1}
					low.started = time.Now().Add(-2 * time.Hour)
					high.started = low.started.Add(gap)
					a, b := goes(low, high, there), goes(high, low, back)
					if a && b {
						t.Errorf("gap %v, delays %v and %v: both go", gap, there, back)
					}
					if !a && !b && there == 0 && back == 0 {
						t.Errorf("gap %v: both stay", gap)
					}
				}
			}
		}
	})
}

// Nobody hears a word of the second one's record even if it comes while the first is suspected.
func TestNobodyHearsTheSecondWhileTheFirstIsSuspected(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		f.form(6)
		f.nodes[3].Set(assign("task", "mine"))
		time.Sleep(20 * time.Second)
		before := f.nodes[3].Snapshot("node-003").Generation()
		f.hosts[3].Pause(true)
		took := f.within(40*time.Second, "suspected by the seed", func() bool { return f.nodes[0].liveness("node-003").String() == "suspect" })
		t.Logf("suspected after %v", took)
		seen := f.keysSeen(slices.Concat(f.nodes[:3], f.nodes[4:]), "node-003")
		twin := f.start(6, func(c *Config) { c.NodeID, c.StateDir = "node-003", filepath.Join(f.base, "twin") })
		twin.Set(assign("task", "not mine"))
		time.Sleep(time.Second)
		f.hosts[3].Pause(false)
		select {
		case err := <-twin.result:
			if !errors.Is(err, ErrDuplicate) || !strings.Contains(err.Error(), memnet.Addr(3)) {
				t.Errorf("Run: %v, want ErrDuplicate and the address of the first", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the second node is still there after 5 s")
		}
		f.nodes = f.nodes[:6]
		time.Sleep(30 * time.Second)
		list := slices.DeleteFunc(seen(), func(s string) bool { return strings.HasSuffix(s, ": ") })
		if len(list) > 0 {
			t.Errorf("readers saw changes of the first node: %q", list)
		}
		for _, n := range f.nodes {
			if after := n.Snapshot("node-003").Generation(); after != before {
				t.Errorf("%s holds generation %d of the first node, want %d as before", n.Self(), after, before)
			}
		}
		f.within(20*time.Second, "all is as it was", func() bool { return whole(f.nodes) })
	})
}
