package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"starling/gossip/catalog"
	"starling/gossip/memnet"
	"starling/gossip/record"
)

// keysSeen returns a function that tells which changes of a node's record the readers of some nodes have seen, coordinates aside.
func (f *flock) keysSeen(nodes []*node, of string) func() []string {
	ctx, cancel := context.WithCancel(f.t.Context())
	type reader struct {
		name string
		feed *record.Feed
	}
	var readers []reader
	for _, n := range nodes {
		readers = append(readers, reader{n.Self(), n.Feed()})
	}
	return func() []string {
		cancel()
		var seen []string
		for _, r := range readers {
			for {
				changes, err := r.feed.Next(ctx) // what there is, without waiting
				if err != nil {
					break
				}
				for _, c := range changes {
					if c.Node == of && c.Key != catalog.KeyCoordinate {
						seen = append(seen, r.name+": "+c.Key)
					}
				}
			}
		}
		return seen
	}
}

// The second node of a name, with a copy of the first one's disk or an empty one, goes before anybody has seen a word of its record.
func TestNobodyHearsTheSecondOfAName(t *testing.T) {
	for name, loss := range map[string]float64{"clean": 0, "a fifth lost": 0.2} {
		for _, cloned := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cloned %t", name, cloned), func(t *testing.T) {
				bubble(t, func(t *testing.T, f *flock) {
					f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
					f.form(6)
					f.nodes[3].Set(assign("task", "mine"))
					f.within(5*time.Second, "the task is known", everywhere(f.nodes, "node-003", "task", "mine"))
					time.Sleep(20 * time.Second)
					before := f.nodes[3].Snapshot("node-003").Generation()
					f.lossy(loss)
					seen := f.keysSeen(f.nodes, "node-003")
					twin := f.start(6, func(c *Config) {
						c.NodeID = "node-003"
						c.StateDir = filepath.Join(f.base, "twin")
						if cloned {
							if err := os.CopyFS(c.StateDir, os.DirFS(filepath.Join(f.base, "node-003"))); err != nil {
								t.Fatal(err)
							}
						}
					})
					twin.Set(assign("task", "not mine"))
					start, limit := time.Now(), 5*time.Second
					if loss > 0 {
						limit = 20 * time.Second // it may not have met anybody before
					}
					select {
					case err := <-twin.result:
						if !errors.Is(err, ErrDuplicate) || !strings.Contains(err.Error(), memnet.Addr(3)) {
							t.Errorf("Run: %v, want ErrDuplicate and the address of the first", err)
						}
						t.Logf("gone after %v", time.Since(start))
					case <-time.After(limit):
						t.Errorf("the second node is still there after %v", limit)
					}
					f.nodes = f.nodes[:6]
					time.Sleep(30 * time.Second)
					list := seen()
					if loss > 0 { // it may have been suspected now and then
						list = slices.DeleteFunc(list, func(s string) bool { return strings.HasSuffix(s, ": ") })
					}
					if len(list) > 0 {
						t.Errorf("readers saw changes of the first node: %q", list)
					}
					for _, n := range f.nodes {
						if after := n.Snapshot("node-003").Generation(); after != before {
							t.Errorf("%s holds generation %d of the first node, want %d as before", n.Self(), after, before)
						}
					}
					f.lossy(0)
					f.within(20*time.Second, "all is as it was", func() bool { return whole(f.nodes) })
				})
			})
		}
	}
}

// A second node that is stopped before it knows that it is the second says no goodbye: it would be the first one's.
func TestTheSecondOfANameSaysNoGoodbye(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4)
		w := f.witness(f.nodes)
		first := memnet.Addr(3)
		f.net.Cut(func(from, to string) bool {
			return from == first && to == memnet.Addr(4) || to == first && from == memnet.Addr(4)
		})
		twin := f.start(4, func(c *Config) { c.NodeID, c.StateDir = "node-003", filepath.Join(f.base, "twin") })
		time.Sleep(time.Second)
		twin.stop()
		if err := <-twin.result; err != nil {
			t.Errorf("Run: %v", err)
		}
		f.nodes = f.nodes[:4]
		time.Sleep(time.Minute)
		if list := w.of(anybody, only("node-003")); len(list) > 0 {
			t.Errorf("the first one was said to have left: %v", list)
		}
	})
}

// livesAt tells whether all hold the node for alive at the address, with what it says of itself.
func livesAt(f *flock, i int, addr, says string) func() bool {
	name := f.nodes[i].Self()
	return func() bool {
		for _, n := range f.nodes {
			for _, m := range n.Members() {
				if m.Name == name && (m.Address != addr || m.Liveness != record.Alive) {
					return false
				}
			}
		}
		return whole(f.nodes) && everywhere(f.nodes, name, "node", says)()
	}
}

// A node that died and comes back at another address, at once or after its death was noticed, keeps its name.
func TestANewAddressIsKnownEverywhereSoon(t *testing.T) {
	for _, away := range []time.Duration{0, 3 * time.Second, 30 * time.Second} {
		t.Run(away.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
				f.form(12)
				f.nodes[3].kill()
				<-f.nodes[3].result
				time.Sleep(away)
				f.start(3, func(c *Config) { c.Transport = f.net.Host("10.9.9.9") }).Set(assign("node", "moved"))
				t.Logf("known everywhere after %v", f.within(20*time.Second, "the new address everywhere", livesAt(f, 3, "10.9.9.9", "moved")))
			})
		})
	}
}

// A node whose state is lost, or restored from a time long before, gets the better of what others remember.
func TestALostOrOldStateDirectory(t *testing.T) {
	for name, restore := range map[string]bool{"lost": false, "old": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
				f.form(6)
				dir, backup := filepath.Join(f.base, "node-002"), filepath.Join(f.base, "backup")
				if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				restart := func(change ...func(*Config)) *node {
					f.nodes[2].kill()
					<-f.nodes[2].result
					return f.start(2, change...)
				}
				for range 3 {
					restart().Set(assign("task/f/1", "old"), assign("task/f/2", "old"))
					f.nodes[2].Set(record.Assignment{Key: "task/f/2"})
					f.within(30*time.Second, "back", func() bool { return whole(f.nodes) })
				}
				before := f.nodes[0].Snapshot("node-002").Generation()
				if !restore {
					backup = filepath.Join(f.base, "nothing")
				}
				back := restart(func(c *Config) { c.StateDir = backup })
				back.Set(assign("task/f/3", "new"))
				took := f.within(10*time.Second, "the new record wins", func() bool {
					return everywhere(f.nodes, "node-002", "task/f/3", "new")() && everywhere(f.nodes, "node-002", "task/f/1", "")() && everywhere(f.nodes, "node-002", "task/f/2", "")()
				})
				t.Logf("the new record won after %v", took)
				time.Sleep(time.Minute)
				if !everywhere(f.nodes, "node-002", "task/f/2", "")() || !everywhere(f.nodes, "node-002", "task/f/1", "")() {
					t.Error("a task of an earlier life came back")
				}
				if g := f.nodes[0].Snapshot("node-002").Generation(); g <= before {
					t.Errorf("generation %d, want more than %d", g, before)
				}
			})
		})
	}
}

func TestAGenerationThatCannotBeOutbidIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3)
		forged := record.NewMap("node-002", record.MaxGeneration+1)
		forged.Set(time.Now(), assign("task/f/1", "forged"))
		before := refusedMessages(t, f.nodes[0])
		if err := f.nodes[0].Apply(forged.Delta("node-002", 0)); !errors.Is(err, record.ErrFormat) {
			t.Errorf("Apply: %v, want it refused", err)
		}
		digest := (&message{kind: kindDigests, node: "node-002", flags: wantReply, digests: forged.Digests(nil)}).append(nil)
		f.nodes[0].take(digest)
		time.Sleep(10 * time.Second)
		if got := refusedMessages(t, f.nodes[0]) - before; got != 2 {
			t.Errorf("%v messages were counted as refused, want 2", got)
		}
		for _, n := range f.nodes {
			if got := value(n, "node-002", "task/f/1"); got != "" {
				t.Errorf("%s holds the forged task %q", n.Self(), got)
			}
		}
	})
}

// refusedMessages is how many messages a node has refused.
func refusedMessages(t *testing.T, n *node) float64 {
	t.Helper()
	var m dto.Metric
	if err := n.metrics.refused.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// A seed that takes connections and says nothing does not hold up the end. How soon that is the next test holds, where time does not depend on
// what else the machine does; here nothing but the end itself ends the wait for the seed.
func TestStoppingDoesNotWaitForOthers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	cfg := DefaultConfig()
	cfg.NodeID, cfg.BindAddr, cfg.BindPort, cfg.Log = "a", "127.0.0.1", 0, logTo(io.Discard, "a")
	cfg.Join = []string{l.Addr().String()}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.conf.TCPTimeout, m.transport.timeout = time.Hour, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	select {
	case c := <-accepted:
		defer c.Close()
	case <-time.After(20 * time.Second):
		t.Fatal("the seed is not tried")
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	case <-time.After(time.Minute):
		t.Error("Run does not return")
	}
	closeQuietly(l)
	for c := range accepted {
		closeQuietly(c)
	}
}

// The same in virtual time: with one that takes connections and says nothing, and with others that cannot be reached at all.
func TestStoppingDoesNotWaitForTheSilent(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		silent := f.net.Host(memnet.Addr(0))
		n := f.start(1)
		c := <-silent.StreamCh()
		time.Sleep(100 * time.Millisecond)
		start := time.Now()
		n.stop()
		err := <-n.result
		n.result <- nil
		if took := time.Since(start); err != nil || took > 2500*time.Millisecond {
			t.Errorf("Run returned %v after %v, want nil within 2.5 s", err, took)
		}
		closeQuietly(c)
	})
}

func TestStoppingDoesNotWaitForTheUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3)
		f.net.Cut(func(from, to string) bool { return true })
		time.Sleep(40 * time.Second)
		for _, n := range f.nodes {
			start := time.Now()
			n.stop()
			err := <-n.result
			n.result <- nil
			if took := time.Since(start); err != nil || took > 2500*time.Millisecond {
				t.Errorf("Run returned %v after %v, want nil within 2.5 s", err, took)
			}
		}
	})
}
