package gossip

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

// busyAgent goes through the lives of many tasks: each starts, runs and ends, and is forgotten when fifty more have ended.
type busyAgent struct {
	n     *node
	step  int
	tasks int
}

func taskKey(i int) string {
	return catalog.TaskKey("8f14e45f-ceea-467f-a8a3-0001", fmt.Sprintf("shop_cart.instance-%08x", i))
}

// change makes one change.
func (b *busyAgent) change() {
	key := taskKey(b.tasks)
	switch b.step++; b.step {
	case 1:
		b.n.Set(assign(key, "starting; name, framework, addresses, ports and the like"))
	case 2:
		b.n.Set(assign(key, "running; name, framework, addresses, ports, health and the like"))
	case 3:
		b.n.Set(assign(key, "finished"))
	case 4:
		if b.tasks >= 50 {
			b.n.Set(record.Assignment{Key: taskKey(b.tasks - 50)})
		}
		b.step = 0
		b.tasks++
	}
}

// A thousand changes of tasks a second cost no node more than 20 KiB a second, and when they are over all nodes know the end of every
// task.
func TestAThousandTaskChangesASecond(t *testing.T) {
	const load = 25 * time.Second
	for _, c := range []struct {
		name   string
		agents int
	}{{"one node", 1}, {"twenty nodes", 20}} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
				f.form(20, func(c *Config) { c.Bulk = catalog.MayWait })
				time.Sleep(20 * time.Second)
				var agents []*busyAgent
				for i := range c.agents {
					agents = append(agents, &busyAgent{n: f.nodes[i]})
				}
				_, before := f.net.Traffic()
				start := time.Now()
				for i := 0; time.Since(start) < load; i++ {
					agents[i%len(agents)].change()
					time.Sleep(time.Until(start.Add(time.Duration(i) * time.Millisecond)))
				}
				_, after := f.net.Traffic()
				next := time.Now()
				known := 0 // pairs of an agent and a node that knows its tasks; nothing changes them any more
				took := f.within(2*time.Minute, "all know all tasks", func() bool {
					if time.Now().Before(next) {
						return false // looking takes long
					}
					next = time.Now().Add(100 * time.Millisecond)
					for ; known < len(agents)*len(f.nodes); known++ {
						a, n := agents[known/len(f.nodes)].n, f.nodes[known%len(f.nodes)]
						if !maps.Equal(tasks(n.Snapshot(a.Self())), tasks(a.Snapshot(a.Self()))) {
							return false
						}
					}
					return true
				})
				_, end := f.net.Traffic()
				for _, a := range agents {
					for key, value := range f.nodes[19].Snapshot(a.n.Self()).Prefix(catalog.PrefixTask) {
						if string(value) != "finished" && key != taskKey(a.tasks) {
							t.Errorf("task %s of %s has not ended", key, a.n.Self())
						}
					}
				}
				rate := float64(after-before) / load.Seconds() / 20
				t.Logf("%.0f bytes a second a node, all knew all %v after the last change, for %d bytes more a node", rate, took, (end-after)/20)
				if rate > 20<<10 {
					t.Errorf("%.0f bytes a second a node, want at most 20 KiB", rate)
				}
			})
		})
	}
}

func tasks(s *record.Snapshot) map[string]string {
	held := map[string]string{}
	for key, value := range s.Prefix(catalog.PrefixTask) {
		held[key] = string(value)
	}
	return held
}
