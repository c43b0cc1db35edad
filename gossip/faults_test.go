package gossip

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/gossip/memnet"
	"starling/gossip/record"
)

// witness writes down every change of liveness that the readers of some nodes see.
type witness struct {
	mu   sync.Mutex
	seen []seen
}

type seen struct {
	at       time.Duration
	by, of   string
	was, now record.Liveness
}

func (s seen) String() string {
	return fmt.Sprintf("%7.2f s: %s holds %s for %v, before %v", s.at.Seconds(), s.by, s.of, s.now, s.was)
}

// witness begins to watch what the nodes tell their readers.
func (f *flock) witness(nodes []*node) *witness {
	w := &witness{}
	ctx, cancel := context.WithCancel(f.t.Context())
	var g sync.WaitGroup
	start := time.Now()
	for _, n := range nodes {
		feed, last := n.Feed(), map[string]record.Liveness{}
		for s := range n.Snapshots() {
			last[s.Node()] = s.Liveness()
		}
		g.Go(func() {
			for {
				changes, err := feed.Next(ctx)
				if err != nil {
					return
				}
				for _, c := range changes {
					if now := n.liveness(c.Node); now != last[c.Node] {
						w.mu.Lock()
						w.seen = append(w.seen, seen{time.Since(start), n.Self(), c.Node, last[c.Node], now})
						w.mu.Unlock()
						last[c.Node] = now
					}
				}
			}
		})
	}
	f.cleanup = append(f.cleanup, func() { cancel(); g.Wait() })
	return w
}

// of returns what was seen of some nodes by some others.
func (w *witness) of(by, of func(name string) bool) []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []seen
	for _, s := range w.seen {
		if by(s.by) && of(s.of) && s.by != s.of {
			list = append(list, s)
		}
	}
	return list
}

func count(list []seen, l record.Liveness) int {
	n := 0
	for _, s := range list {
		if s.now == l {
			n++
		}
	}
	return n
}

// worst returns the most changes between being there and being gone that one node saw of one other in any minute, and the most of any kind.
func worst(list []seen) (flips, changes int) {
	there := func(l record.Liveness) bool { return l == record.Alive || l == record.Suspect }
	for i, first := range list {
		nf, nc := 0, 0
		for _, s := range list[i:] {
			if s.by == first.by && s.of == first.of && s.at-first.at < time.Minute {
				nc++
				if there(s.was) != there(s.now) {
					nf++
				}
			}
		}
		flips, changes = max(flips, nf), max(changes, nc)
	}
	return flips, changes
}

func anybody(string) bool { return true }

func only(names ...string) func(string) bool {
	return func(n string) bool {
		for _, name := range names {
			if n == name {
				return true
			}
		}
		return false
	}
}

func but(f func(string) bool) func(string) bool { return func(n string) bool { return !f(n) } }

func (f *flock) lossy(p float64) {
	f.net.SetLoss(p)
	f.net.SetStreamLoss(p)
}

func show(t *testing.T, list []seen) {
	t.Helper()
	var b strings.Builder
	for _, s := range list[:min(len(list), 40)] {
		fmt.Fprintln(&b, s)
	}
	t.Logf("%d changes:\n%s", len(list), b.String())
}

var full = flag.Bool("full", false, "meshes of twenty nodes and the whole time in the tests of faults, not just what fits into every run")

// scale returns the number of nodes and the time of a fault: of every run, or what the bar is about.
func scale(nodes int, d time.Duration) (int, time.Duration) {
	if *full {
		return 20, d
	}
	return nodes, d * time.Duration(nodes) / 20
}

// deadEverywhere waits until all the others hold a node for dead.
func (f *flock) deadEverywhere(i int, limit time.Duration) time.Duration {
	f.t.Helper()
	return f.within(limit, "dead everywhere", func() bool {
		for _, n := range f.nodes {
			if n != nil && n.i != i && n.liveness(f.nodes[i].Self()) != record.Dead {
				return false
			}
		}
		return true
	})
}

func TestADeathIsKnownEverywhereSoon(t *testing.T) {
	for profile, limit := range map[string]time.Duration{ProfileLAN: 15 * time.Second, ProfileWAN: 90 * time.Second, ProfileLocal: 15 * time.Second} {
		t.Run(profile, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				use := func(c *Config) { c.Profile = profile }
				f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
				f.form(20, use)
				for _, i := range []int{3, 7, 11} {
					time.Sleep(10 * time.Second)
					f.nodes[i].kill()
					t.Logf("dead everywhere after %v", f.deadEverywhere(i, limit))
					<-f.nodes[i].result
					f.start(i, use)
					f.within(2*time.Minute, "back", func() bool { return whole(f.nodes) })
				}
			})
		})
	}
}

// Where several nodes of a few die at once there are not enough others left to agree on it quickly.
func TestSeveralDeathsAtOnceAreKnownSoonToo(t *testing.T) {
	for _, c := range []struct{ nodes, die int }{{3, 1}, {3, 2}, {5, 2}, {8, 3}} {
		t.Run(fmt.Sprintf("%d of %d", c.die, c.nodes), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
				f.form(c.nodes)
				time.Sleep(10 * time.Second)
				for i := range c.die {
					f.nodes[c.nodes-1-i].kill()
				}
				rest := f.nodes[:c.nodes-c.die]
				took := f.within(30*time.Second, "dead everywhere", func() bool {
					for _, n := range rest {
						for i := range c.die {
							if n.liveness(f.nodes[c.nodes-1-i].Self()) != record.Dead {
								return false
							}
						}
					}
					return true
				})
				t.Logf("dead everywhere after %v", took)
				for _, n := range f.nodes[c.nodes-c.die:] {
					<-n.result
					n.result <- nil
				}
			})
		})
	}
}

func TestLossBuriesNobody(t *testing.T) {
	for _, c := range []struct {
		name string
		loss float64
		time time.Duration
	}{
		{"a fifth of all packets and segments", 0.2, 10 * time.Minute},
		{"two fifths", 0.4, 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				n, d := scale(10, c.time)
				f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
				f.form(n)
				w := f.witness(f.nodes)
				f.lossy(c.loss)
				time.Sleep(d)
				all := w.of(anybody, anybody)
				t.Logf("%d nodes, %v: %d suspicions", n, d, count(all, record.Suspect))
				if dead := count(all, record.Dead); dead > 0 {
					t.Errorf("%d times a healthy node was held for dead", dead)
					show(t, all)
				}
				f.nodes[3].kill()
				t.Logf("one that really died was dead everywhere after %v", f.deadEverywhere(3, time.Minute))
			})
		})
	}
}

// A node that hears nothing, or is not heard, or both only from one other: all others have one opinion of it, and none changes about the rest.
func TestCutsInOneDirection(t *testing.T) {
	for _, n := range []int{2, 3, 6} {
		for name, cut := range map[string]func(from, to, x, y string) bool{
			"deaf":                   func(_, to, x, _ string) bool { return to == x },
			"mute":                   func(from, _, x, _ string) bool { return from == x },
			"deaf to one other":      func(from, to, x, y string) bool { return from == y && to == x },
			"not heard by one other": func(from, to, x, y string) bool { return from == x && to == y },
		} {
			t.Run(fmt.Sprintf("%s, of %d", name, n), func(t *testing.T) {
				bubble(t, func(t *testing.T, f *flock) {
					f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
					f.form(n)
					w, x := f.witness(f.nodes), only("node-001")
					f.net.Cut(func(from, to string) bool { return cut(from, to, memnet.Addr(1), memnet.Addr(0)) })
					time.Sleep(3 * time.Minute)
					during := w.of(anybody, anybody)
					if flips, changes := worst(during); flips > 1 || changes > 2 {
						t.Errorf("a node went %d times in a minute, and changed %d times", flips, changes)
					}
					if list := w.of(but(x), but(x)); len(list) > 0 {
						t.Errorf("healthy nodes changed their minds about healthy ones: %v", list)
					}
					wide := n == 2 || !strings.Contains(name, "one other")
					if gone := count(during, record.Dead); wide != (gone > 0) || wide && f.nodes[0].liveness("node-001") != record.Dead {
						t.Errorf("%d deaths, and the first node holds it for %v; the cut is for good: %t", gone, f.nodes[0].liveness("node-001"), wide)
					}
					if wide {
						for _, o := range f.nodes {
							if l := f.nodes[1].liveness(o.Self()); o.i != 1 && l == record.Alive {
								t.Errorf("the node that is cut off holds %s for %v", o.Self(), l)
							}
						}
					}
					f.net.Cut(nil)
					took := f.within(time.Minute, "whole again", func() bool { return whole(f.nodes) })
					t.Logf("%d changes; whole again after %v", len(during), took)
					time.Sleep(time.Minute)
					if list := w.of(but(x), but(x)); len(list) > 0 {
						t.Errorf("healing had healthy nodes change their minds about healthy ones: %v", list)
					}
					if flips, _ := worst(w.of(anybody, anybody)[len(during):]); flips > 1 {
						show(t, w.of(anybody, anybody)[len(during):])
						t.Errorf("healing had a node come and go %d times", flips)
					}
				})
			})
		}
	}
}

// Nodes that are halted most of the time do no harm to the others, and are not believed each time that they wake up.
func TestPausedNodesBlameNobody(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		n, d := scale(12, 5*time.Minute)
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		f.form(n)
		sick := map[string]bool{}
		for i := range max(1, n/10) {
			sick[f.nodes[2+i].Self()] = true
		}
		paused := func(name string) bool { return sick[name] }
		w := f.witness(f.nodes)
		pause := func(on bool) {
			for i := range len(sick) {
				f.hosts[2+i].Pause(on)
			}
		}
		for range int(d / (12 * time.Second)) {
			pause(true)
			time.Sleep(10 * time.Second)
			pause(false)
			time.Sleep(2 * time.Second)
		}
		if list := w.of(but(paused), but(paused)); len(list) > 0 {
			show(t, list)
			t.Error("healthy nodes changed their minds about healthy ones")
		}
		list := w.of(but(paused), paused)
		flips, _ := worst(list)
		t.Logf("%d times a paused node was held for dead by somebody; at worst %d changes a minute", count(list, record.Dead), flips)
		if flips > 3 {
			t.Errorf("a paused node came and went %d times in a minute", flips)
		}
		t.Logf("whole again after %v", f.within(lastHold+time.Minute, "whole again", func() bool { return whole(f.nodes) }))
	})
}

// A link that comes and goes is one death for readers, until it stays.
func TestAFlappingLinkIsOneDeath(t *testing.T) {
	for _, c := range []struct {
		up, down time.Duration
		deaths   int
	}{
		{5 * time.Second, 5 * time.Second, 1},
		{8 * time.Second, 25 * time.Second, 2},  // believed once, when it was back for the first time
		{15 * time.Second, 25 * time.Second, 3}, // and once more, as it stayed for ten seconds
	} {
		t.Run(fmt.Sprintf("%v up, %v down", c.up, c.down), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				n, _ := scale(6, 0)
				f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
				f.form(n)
				w, x, far := f.witness(f.nodes), only("node-002"), memnet.Addr(2)
				for range int(5 * time.Minute / (c.up + c.down)) {
					f.net.Cut(func(from, to string) bool { return from == far || to == far })
					time.Sleep(c.down)
					f.net.Cut(nil)
					time.Sleep(c.up)
				}
				if list := w.of(but(x), but(x)); len(list) > 0 {
					show(t, list)
					t.Error("healthy nodes changed their minds about healthy ones")
				}
				for _, by := range f.nodes {
					if list := w.of(only(by.Self()), x); count(list, record.Dead) > c.deaths {
						show(t, list)
						t.Errorf("%s saw it die %d times", by.Self(), count(list, record.Dead))
					}
				}
				list := w.of(but(x), x)
				t.Logf("%d deaths and %d suspicions at %d nodes", count(list, record.Dead), count(list, record.Suspect), n-1)
				took := f.within(lastHold+time.Minute, "believed again", func() bool { return whole(f.nodes) })
				t.Logf("believed again %v after the link had stayed", took)
				for _, by := range f.nodes {
					for _, m := range by.Members() {
						if !m.DampedUntil.IsZero() {
							t.Errorf("%s still damps %s", by.Self(), m.Name)
						}
					}
				}
			})
		})
	}
}
