package records

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Several sources give the services of one name, with few targets and different glue, so that values of one record lie on
// both sides of a border between chunks. What comes of all their changes must be what they say now, and then nothing.
func TestServicesThatManySourcesShare(t *testing.T) {
	const name = "_w._tcp.f.mesos."
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 7))
		z := NewZone(DefaultConfig(), 1)
		sources := map[string]*Task{}
		for step := range 400 {
			source := fmt.Sprint("s", rng.IntN(60))
			if rng.IntN(3) == 0 {
				delete(sources, source)
			} else {
				sources[source] = sharedTask(rng)
			}
			z.ReplaceTask(source, sources[source])
			if step%20 != 0 {
				continue
			}
			fresh := NewZone(DefaultConfig(), 1)
			for source, task := range sources {
				fresh.ReplaceTask(source, task)
			}
			got, _ := z.Lookup(name)
			want, _ := fresh.Lookup(name)
			if diff := cmp.Diff(lines(want), lines(got)); diff != "" {
				t.Fatalf("seed %d, step %d (-made anew +changed):\n%s", seed, step, diff)
			}
			compareWays(t, z, name, rng.Uint32())
		}
		for source := range sources {
			z.ReplaceTask(source, nil)
		}
		if n := z.Stats().Names; n != 1 {
			t.Fatalf("seed %d: %d names are left, want the apex alone", seed, n)
		}
	}
}

// sharedTask is one of nine by its canonical name, on nodes of few addresses.
func sharedTask(rng *rand.Rand) *Task {
	t := &Task{ID: fmt.Sprint("t", rng.IntN(9)), Name: "w", Framework: "f", AgentID: "x-S1"}
	for range 1 + rng.IntN(2) {
		t.Agent = append(t.Agent, pick(rng, netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(5))}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", rng.IntN(5)))))
	}
	for range 1 + rng.IntN(4) {
		t.HostPorts = append(t.HostPorts, uint16(31000+rng.IntN(6)))
	}
	return t
}
