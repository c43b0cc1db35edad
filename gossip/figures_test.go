package gossip

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var figures = flag.Int("figures", 0, "number of nodes to measure the mesh with; 0 measures nothing")

// TestFigures measures a mesh of many nodes in virtual time: go test ./gossip -run Figures -v -figures 100
func TestFigures(t *testing.T) {
	if *figures == 0 {
		t.Skip("a measurement: say -figures N")
	}
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		f.form(*figures)
		time.Sleep(time.Minute)

		_, before := f.net.Traffic()
		time.Sleep(30 * time.Second)
		_, after := f.net.Traffic()
		t.Logf("idle: %d bytes a second a node", (after-before)/30/uint64(len(f.nodes)))

		var half, most, all []time.Duration
		for i := range 10 {
			n := f.nodes[i%len(f.nodes)]
			want := fmt.Sprint("v", i)
			n.Set(assign("task/f/1", want))
			var reached [3]time.Duration
			start := time.Now()
			f.within(10*time.Second, "change everywhere", func() bool {
				return spread(f, n.Self(), want, time.Since(start), &reached)
			})
			half, most, all = append(half, reached[0]), append(most, reached[1]), append(all, reached[2])
			time.Sleep(5 * time.Second)
		}
		for _, ds := range [][]time.Duration{half, most, all} {
			slices.Sort(ds)
		}
		t.Logf("a change reached 50 %%, 99 %%, all of %d nodes in %v, %v, %v (median of ten)", len(f.nodes), half[5], most[5], all[5])

		_, before = f.net.Traffic()
		for i := range 30 {
			for _, n := range f.nodes {
				n.Set(assign("res", fmt.Sprint("some sixty bytes of free resources, as an agent would tell, ", i)))
			}
			time.Sleep(time.Second)
		}
		_, after = f.net.Traffic()
		t.Logf("each node changes once a second: %d bytes a second a node", (after-before)/30/uint64(len(f.nodes)))
		stale := 0
		for _, n := range f.nodes {
			for _, o := range f.nodes {
				if n.Snapshot(o.Self()).Version() != o.Snapshot(o.Self()).Version() {
					stale++
				}
			}
		}
		t.Logf("after it %d of %d copies were behind", stale, len(f.nodes)*len(f.nodes))
		t.Logf("all agreed after %v", f.within(time.Minute, "all agree", func() bool { return whole(f.nodes) }))
	})
}

// spread notes the time at which half, 99 % and all of the nodes were first seen to hold the value.
func spread(f *flock, of, want string, at time.Duration, reached *[3]time.Duration) bool {
	n := 0
	for _, node := range f.nodes {
		if value(node, of, "task/f/1") == want {
			n++
		}
	}
	for k, part := range []int{len(f.nodes) / 2, len(f.nodes) * 99 / 100, len(f.nodes)} {
		if reached[k] == 0 && n >= part {
			reached[k] = at
		}
	}
	return n == len(f.nodes)
}
