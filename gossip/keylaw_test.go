package gossip

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"starling/gossip/memnet"
)

var keySchedules = flag.Int("keyschedules", 4, "how many random schedules of rotations to run")

// TestNoRotationLosesANode plays at random: rotations from any node, forth and back, several at once, interrupted; nodes that crash, stop and
// come back; cuts and loss. However it went, when all nodes run and the network is whole, they find each other again, hold the same
// ring, and the next rotation ends.
func TestNoRotationLosesANode(t *testing.T) {
	for range *keySchedules {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { keySchedule(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func keySchedule(t *testing.T, rng *rand.Rand) {
	const nodes = 6
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 20*time.Millisecond)
		f.form(nodes, withKey("a"))
		var running []*rotating
		down := make([]bool, nodes)
		fresh := 0
		// Letters, each of a secret of its own.
		name := func(i int) string { return string(rune('b' + i)) }
		held := map[string]string{secret("a").Fingerprint(): "a"}
		pick := func(n *node) string {
			ring := n.keys.current().Fingerprints()
			if len(ring) > 1 || rng.IntN(4) == 0 {
				return held[ring[rng.IntN(len(ring))]]
			}
			letter := name(fresh % 20)
			fresh++
			held[secret(letter).Fingerprint()] = letter
			return letter
		}
		for range 25 {
			i := rng.IntN(nodes)
			n := f.nodes[i]
			switch rng.IntN(8) {
			case 0, 1, 2:
				if !down[i] {
					letter := pick(n)
					t.Logf("%v: %s rotates to %s", time.Since(f.nodes[0].started), n.Self(), letter)
					running = append(running, f.rotate(n, letter, RotateOptions{Patience: 30 * time.Second}))
				}
			case 3, 4:
				again := down[i] // it comes back
				if !down[i] {
					if again = rng.IntN(2) == 0; again { // a restart in order: longer than leftGrace, and it counts as gone for good
						n.stop()
					} else {
						n.kill()
					}
					if err := <-n.result; err != nil {
						t.Errorf("%s: %v", n.Self(), err)
					}
					n.result <- nil
					if again {
						time.Sleep(time.Duration(rng.Int64N(int64(leftGrace / 2))))
					}
				}
				if again {
					f.start(i, withKey("a")).Set(assign("node", "again"))
				}
				down[i] = !again
				t.Logf("%s down: %v", n.Self(), down[i])
			case 5:
				side := rng.IntN(1 << nodes)
				in := map[string]bool{}
				for j := range nodes {
					in[memnet.Addr(j)] = side>>j&1 == 1
				}
				t.Logf("cut %06b", side)
				f.net.Cut(func(from, to string) bool { return in[from] != in[to] })
			case 6:
				t.Log("healed")
				f.net.Cut(nil)
				f.net.SetLoss(float64(rng.IntN(3)) / 10)
			case 7:
				if len(running) > 0 {
					running[rng.IntN(len(running))].cancel()
				}
			}
			time.Sleep(time.Duration(rng.ExpFloat64() * float64(5*time.Second)))
		}
		f.net.Cut(nil)
		f.net.SetLoss(0)
		for i := range nodes {
			if down[i] {
				f.start(i, withKey("a")).Set(assign("node", "again"))
			}
		}
		for _, r := range running {
			_ = f.ends(r, 10*time.Minute) // any end will do
		}
		took := f.within(20*time.Minute, "whole, with one ring", func() bool {
			ring := newAck(f.nodes[0].keys.current())
			return whole(f.nodes) && !slices.ContainsFunc(f.nodes, func(n *node) bool { return !newAck(n.keys.current()).same(ring) })
		})
		ring := f.nodes[0].keys.current()
		last := held[ring.Fingerprints()[rng.IntN(len(ring.Secrets))]]
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := f.nodes[rng.IntN(nodes)].RotateKey(ctx, secret(last), RotateOptions{}); err != nil {
			t.Errorf("the last rotation: %v", err)
		}
		if !f.allHold(last)() {
			t.Errorf("not all hold %s", last)
		}
		t.Logf("whole after %v, serial %d", took, f.nodes[0].keys.current().Serial)
	})
}
