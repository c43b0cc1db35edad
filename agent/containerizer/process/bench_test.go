package process

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkLaunch is the time from Launch to the running process, one at a time and a hundred at once, with the cgroups
// that can be had here. Budget: 20 ms median and 0.7 s for the whole road from the framework.
func BenchmarkLaunch(b *testing.B) {
	for _, bb := range []struct {
		name    string
		at      int
		cgroups bool
	}{{"one", 1, true}, {"hundred", 100, true}, {"one-plain", 1, false}, {"hundred-plain", 100, false}} {
		b.Run(bb.name, func(b *testing.B) {
			n := newNode(b)
			n.cfg.NoCgroups = !bb.cgroups
			c, x := n.begin()
			var mu sync.Mutex
			var took []time.Duration
			round := 0
			for b.Loop() {
				var wg sync.WaitGroup
				for i := range bb.at {
					wg.Go(func() {
						spec := n.shell(fmt.Sprintf("b%d-%d", round, i), "")
						spec.Path, spec.Args, spec.Limits.CPUs, spec.Limits.MemBytes = "sleep", []string{"sleep", "1000"}, 0.1, 64<<20
						begin := time.Now()
						if _, err := c.Launch(b.Context(), spec); err != nil {
							b.Error(err)
						}
						mu.Lock()
						defer mu.Unlock()
						took = append(took, time.Since(begin))
					})
				}
				wg.Wait()
				b.StopTimer()
				for i := range bb.at {
					id := fmt.Sprintf("b%d-%d", round, i)
					wg.Go(func() {
						if err := c.Destroy(b.Context(), id); err != nil {
							b.Error(err)
						}
						x.await(id)
						if err := c.Remove(b.Context(), id); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
				round++
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e6, "ms-median")
			b.ReportMetric(float64(took[len(took)*99/100])/1e6, "ms-p99")
		})
	}
}
