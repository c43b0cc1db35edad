//go:build linux

package network

import (
	"fmt"
	"testing"
)

// BenchmarkAttach is the network of one container with a mapped port, made and taken away, beside as many others as there
// are; the share of a container's start that is the network's.
func BenchmarkAttach(b *testing.B) {
	for _, others := range []int{0, 200} {
		b.Run(fmt.Sprintf("beside-%d", others), func(b *testing.B) {
			w := newWorld(b)
			n := w.networks()
			for i := range others {
				w.attach(n, request(fmt.Sprint("other", i), on(DefaultName, mapping(32000+uint32(i), 80, ""))))
			}
			for b.Loop() {
				w.attach(n, request("a", on(DefaultName, mapping(31001, 80, ""))))
				b.StopTimer()
				if err := n.Detach(b.Context(), "a"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
