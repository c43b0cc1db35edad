package gossip

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

var figures = flag.Int("figures", 0, "number of nodes to measure the mesh with; 0 measures nothing")

// TestFigures measures a mesh of many nodes in virtual time: go test ./gossip -run Figures -v -figures 100. The table in the
// package's documentation comes from it. All nodes are dropped in at once, with one seed for all of them.
func TestFigures(t *testing.T) {
	if *figures == 0 {
		t.Skip("a measurement: say -figures N")
	}
	// A third less time for more memory, within bounds.
	defer debug.SetGCPercent(debug.SetGCPercent(300))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(12 << 30))
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		g := &gauge{flock: f, t: t, heap: heap()}
		g.form(*figures)
		// Until everybody has told where it is, which many at once do one after the other, the mesh is not idle.
		time.Sleep(max(30*time.Second, time.Duration(*figures)*firstSpread))
		// memberlist exchanges all members each 15 s among few and each 90 s among a thousand.
		g.measure("idle", 3*time.Minute, func() {})
		g.memory("a node, each record with one small key")
		g.spread()
		g.busy()
		g.failure()
	})
}

// gauge measures a flock.
type gauge struct {
	*flock
	t    *testing.T
	heap uint64 // before the first node
}

// heap returns the bytes of live objects.
func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// cpu returns the processor time that the process has taken.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// form drops n nodes in at once.
func (g *gauge) form(n int) {
	start, used := time.Now(), cpu()
	for i := range n {
		g.start(i, func(c *Config) { c.Log, c.Bulk = slog.New(slog.DiscardHandler), catalog.MayWait })
		g.nodes[i].Set(assign("node", fmt.Sprint("I am ", i)))
	}
	complete := 0 // nodes that know all; what was complete may be so no more, so all are looked at once more in the end
	for ; complete < n || !whole(g.nodes); time.Sleep(250 * time.Millisecond) {
		synctest.Wait()
		for complete < n && knowsAll(g.nodes[complete], g.nodes) {
			complete++
		}
		if time.Since(start) > 10*time.Minute {
			g.t.Fatalf("%d of %d nodes know all after %v", complete, n, time.Since(start))
		}
	}
	_, bytes := g.net.Traffic()
	g.t.Logf("form: %d nodes dropped in at once all knew all after %v; %d kB a node, CPU %v a node",
		n, time.Since(start), bytes/1000/uint64(n), (cpu()-used)/time.Duration(n))
}

func knowsAll(n *node, nodes []*node) bool {
	for _, o := range nodes {
		if n.liveness(o.Self()) != record.Alive || n.Snapshot(o.Self()).Version() != o.Snapshot(o.Self()).Version() {
			return false
		}
	}
	return true
}

// measure lets time pass and tells what it cost.
func (g *gauge) measure(what string, d time.Duration, during func()) {
	start, used := time.Now(), cpu()
	packets, bytes := g.net.Traffic()
	during()
	time.Sleep(time.Until(start.Add(d)))
	packets2, bytes2 := g.net.Traffic()
	per := func(x uint64) float64 { return float64(x) / d.Seconds() / float64(len(g.nodes)) }
	g.t.Logf("%s: %.0f bytes and %.1f datagrams a second a node, CPU %.0f us a second a node", what,
		per(bytes2-bytes), per(packets2-packets), float64((cpu()-used).Microseconds())/d.Seconds()/float64(len(g.nodes)))
}

func (g *gauge) memory(what string) {
	g.t.Logf("memory: %d kB of heap %s; %d goroutines", (heap()-g.heap)/1000/uint64(len(g.nodes)), what, runtime.NumGoroutine()/len(g.nodes))
}

// parts are those of the nodes for which times are told.
var parts = [...]float64{0.5, 0.99, 1}

// reach waits until all of n have come to something and returns when half, 99 % and all had.
func (g *gauge) reach(limit time.Duration, n int, count func() int) (at [len(parts)]time.Duration) {
	start := time.Now()
	for {
		synctest.Wait()
		have := count()
		for k, part := range parts {
			if at[k] == 0 && have >= int(part*float64(n)) {
				at[k] = time.Since(start)
			}
		}
		if have == n {
			return at
		}
		if time.Since(start) > limit {
			g.t.Fatalf("%d of %d within %v", have, n, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// spread measures how fast single changes get around.
func (g *gauge) spread() {
	var times [len(parts)][]time.Duration
	for i := range 10 {
		from := g.nodes[i%len(g.nodes)]
		want := fmt.Sprint("v", i)
		from.Set(assign("task/f/1", want))
		at := g.reach(30*time.Second, len(g.nodes), func() int {
			n := 0
			for _, node := range g.nodes {
				if value(node, from.Self(), "task/f/1") == want {
					n++
				}
			}
			return n
		})
		for k := range parts {
			times[k] = append(times[k], at[k])
		}
		time.Sleep(time.Second)
	}
	for k := range parts {
		slices.Sort(times[k])
	}
	g.t.Logf("a change: reached 50 %%, 99 %%, all of %d nodes in %v, %v, %v (medians of ten), %v, %v, %v (the worst)", len(g.nodes),
		times[0][5], times[1][5], times[2][5], times[0][9], times[1][9], times[2][9])
}

// busy has every node change 60 bytes once a second, and measures how old the copies are meanwhile.
func (g *gauge) busy() {
	const rounds = 20
	n := len(g.nodes)
	begun := time.Now()
	due := func(i, round int) time.Time { // no two nodes at once, as they would in life
		return begun.Add(time.Duration(round)*time.Second + time.Duration(i)*time.Second/time.Duration(n))
	}
	var ages []time.Duration
	g.measure("one change a second on each node", rounds*time.Second, func() {
		for round := range rounds {
			for i, node := range g.nodes {
				time.Sleep(time.Until(due(i, round)))
				node.Set(assign("res", fmt.Sprintf("%-60d", round)))
			}
			if round < rounds/2 {
				continue
			}
			for range 2000 {
				i := rand.IntN(n)
				var have int
				if _, err := fmt.Sscan(value(g.nodes[rand.IntN(n)], g.nodes[i].Self(), "res"), &have); err != nil {
					have = -1
				}
				age := time.Duration(0)
				if have < round {
					age = time.Since(due(i, have+1))
				}
				ages = append(ages, age)
			}
		}
	})
	slices.Sort(ages)
	g.t.Logf("age of a copy meanwhile: %v, %v (median, 99 %%)", ages[len(ages)/2].Round(time.Millisecond), ages[len(ages)*99/100].Round(time.Millisecond))
	start := time.Now()
	for !whole(g.nodes) {
		if time.Since(start) > 2*time.Minute {
			g.t.Fatal("the copies do not agree two minutes later")
		}
		time.Sleep(100 * time.Millisecond)
	}
	g.t.Logf("all copies agreed %v after the last change", time.Since(start))
}

// failure kills a node and measures how long the others take to notice.
func (g *gauge) failure() {
	victim := g.nodes[len(g.nodes)-1]
	victim.kill()
	others := g.nodes[:len(g.nodes)-1]
	start := time.Now()
	suspected := time.Duration(0)
	at := g.reach(2*time.Minute, len(others), func() int {
		dead := 0
		for _, n := range others {
			switch n.liveness(victim.Self()) {
			case record.Suspect:
				if suspected == 0 {
					suspected = time.Since(start)
				}
			case record.Dead:
				dead++
			}
		}
		return dead
	})
	g.t.Logf("a dead node: first suspected after %v, held for dead by 50 %%, 99 %%, all after %v, %v, %v", suspected, at[0], at[1], at[2])
}
