package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/gossip/memnet"
	"starling/gossip/record"
)

// flock is a number of nodes in one process over a network in memory.
type flock struct {
	t     *testing.T
	net   *memnet.Network
	nodes []*node
	base  string
	hosts map[int]*memnet.Transport
	// resolve answers for names of seeds, if it is set.
	resolve func(ctx context.Context, host string) ([]net.IPAddr, error)
	// cleanup is done before the nodes are stopped.
	cleanup []func()
}

// node is one of them. Its mesh is replaced when it is started again.
type node struct {
	*Mesh
	i      int
	stop   context.CancelFunc
	kill   func() // takes it off the network without a goodbye
	result chan error
}

func newFlock(t *testing.T) *flock {
	return &flock{t: t, net: memnet.New(1), base: t.TempDir(), hosts: map[int]*memnet.Transport{}}
}

// logTo sends warnings of a node to the test's log.
func logTo(w io.Writer, name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn})).With("node", name)
}

func (f *flock) config(i int) Config {
	cfg := DefaultConfig()
	cfg.NodeID = fmt.Sprintf("node-%03d", i)
	cfg.StateDir = filepath.Join(f.base, cfg.NodeID)
	cfg.Log = logTo(f.t.Output(), cfg.NodeID)
	cfg.Metrics = prometheus.NewRegistry()
	if i > 0 {
		cfg.Join = []string{memnet.Addr(0)}
	}
	return cfg
}

// start starts node i with a configuration, at the address of that number unless the configuration has a transport.
func (f *flock) start(i int, change ...func(*Config)) *node {
	f.t.Helper()
	cfg := f.config(i)
	for _, c := range change {
		c(&cfg)
	}
	if cfg.Transport == nil {
		f.hosts[i] = f.net.Host(memnet.Addr(i))
		cfg.Transport = f.hosts[i]
	}
	m, err := New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.resolve != nil {
		m.resolve = f.resolve
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	transport := cfg.Transport
	n := &node{Mesh: m, i: i, result: make(chan error, 1)}
	var once sync.Once
	n.stop = func() { once.Do(cancel) }
	n.kill = func() {
		_ = transport.Shutdown()
		n.stop()
	}
	go func() { n.result <- m.Run(ctx) }()
	for len(f.nodes) <= i {
		f.nodes = append(f.nodes, nil)
	}
	f.nodes[i] = n
	return n
}

// end stops everybody and lets memberlist's goroutines, which nobody waits for, come to their end.
func (f *flock) end() {
	for _, c := range f.cleanup {
		c()
	}
	for _, n := range f.nodes {
		if n != nil {
			n.stop()
		}
	}
	for _, n := range f.nodes {
		if n != nil {
			select {
			case err := <-n.result:
				if err != nil {
					f.t.Errorf("%s: Run: %v", n.Self(), err)
				}
			case <-time.After(30 * time.Second):
				f.t.Errorf("%s: Run does not return", n.Self())
			}
		}
	}
	time.Sleep(2 * time.Minute)
}

// within waits for a condition in virtual time.
func (f *flock) within(limit time.Duration, what string, cond func() bool) time.Duration {
	f.t.Helper()
	start := time.Now()
	for {
		synctest.Wait()
		if cond() {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			for _, n := range f.nodes {
				if n != nil {
					f.t.Logf("%s: %v", n.Self(), n.states())
				}
			}
			f.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (n *node) states() string {
	var b strings.Builder
	for i, m := range n.Members() {
		if i == 50 {
			b.WriteString("...")
			break
		}
		fmt.Fprintf(&b, "%s=%s/%d ", strings.TrimPrefix(m.Name, "node-"), m.Liveness, m.Version)
	}
	return b.String()
}

func (n *node) liveness(of string) record.Liveness {
	if s := n.Snapshot(of); s != nil {
		return s.Liveness()
	}
	return record.Unknown
}

// whole tells whether all the nodes hold all the others for alive and have the same records.
func whole(nodes []*node) bool {
	for _, n := range nodes {
		for _, o := range nodes {
			if n.liveness(o.Self()) != record.Alive || n.Snapshot(o.Self()).Version() != o.Snapshot(o.Self()).Version() {
				return false
			}
		}
	}
	return true
}

func value(n *node, of, key string) string {
	if s := n.Snapshot(of); s != nil {
		v, _ := s.Get(key)
		return string(v)
	}
	return ""
}

// everywhere tells whether all nodes hold the value.
func everywhere(nodes []*node, of, key, want string) func() bool {
	return func() bool {
		for _, n := range nodes {
			if value(n, of, key) != want {
				return false
			}
		}
		return true
	}
}

func assign(key, value string) record.Assignment {
	return record.Assignment{Key: key, Value: []byte(value)}
}

// form starts n nodes, each with something in its record, and waits until all know all.
func (f *flock) form(n int, change ...func(*Config)) {
	f.t.Helper()
	for i := range n {
		f.start(i, change...)
		f.nodes[i].Set(assign("node", fmt.Sprint("I am ", i)))
	}
	took := f.within(time.Minute, "all know all", func() bool { return whole(f.nodes) })
	f.t.Logf("%d nodes formed in %v", n, took)
}

// bubble runs a test in virtual time. It does so on one processor: with more, the race detector of Go 1.26 breaks down now and then in the
// timers of a bubble (golang.org/issue/78156), and virtual time is hardly faster.
func bubble(t *testing.T, test func(*testing.T, *flock)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		f := newFlock(t)
		defer f.end()
		test(t, f)
	})
}

func TestTwentyNodesFormAndAChangeReachesAll(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		f.form(20)
		f.nodes[7].Set(assign("task/f/1", "running"))
		t.Logf("a change reached all in %v", f.within(2*time.Second, "change everywhere", everywhere(f.nodes, "node-007", "task/f/1", "running")))

		// A burst: a hundred changes of one key and one of another.
		for i := range 100 {
			f.nodes[3].Set(assign("res", fmt.Sprint(i)))
		}
		f.nodes[3].Set(assign("task/f/2", "x"))
		t.Logf("a burst reached all in %v", f.within(3*time.Second, "burst everywhere", func() bool {
			return everywhere(f.nodes, "node-003", "res", "99")() && everywhere(f.nodes, "node-003", "task/f/2", "x")()
		}))
		f.nodes[3].Set(record.Assignment{Key: "task/f/2"})
		f.within(3*time.Second, "deletion everywhere", everywhere(f.nodes, "node-003", "task/f/2", ""))

		big := strings.Repeat("x", 20_000)
		f.nodes[5].Set(assign("big", big))
		t.Logf("a large value reached all in %v", f.within(10*time.Second, "large value everywhere", everywhere(f.nodes, "node-005", "big", big)))
		f.within(10*time.Second, "versions without gaps", func() bool { return whole(f.nodes) })
	})
}

func TestLossIsRepaired(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(10)
		f.net.SetLoss(0.4)
		f.net.SetLatency(time.Millisecond, 50*time.Millisecond)
		for i := range 200 {
			n := f.nodes[i%10]
			n.Set(assign(fmt.Sprint("task/", i%17), fmt.Sprint(i)), record.Assignment{Key: fmt.Sprint("task/", (i+5)%17)})
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("after the last change all agreed in %v", f.within(30*time.Second, "all agree under 40 % loss", func() bool {
			for _, n := range f.nodes {
				for _, o := range f.nodes {
					if n.Snapshot(o.Self()).Version() != o.Snapshot(o.Self()).Version() {
						return false
					}
				}
			}
			return true
		}))
		for _, n := range f.nodes {
			for _, o := range f.nodes {
				if l := n.liveness(o.Self()); l == record.Dead {
					t.Errorf("%s holds %s for dead", n.Self(), o.Self())
				}
			}
		}
	})
}

func TestADeadNode(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(8)
		f.nodes[3].Set(assign("task/f/1", "running"))
		f.within(2*time.Second, "change everywhere", everywhere(f.nodes, "node-003", "task/f/1", "running"))
		suspected := f.nodes[0].Feed()
		f.nodes[3].kill()
		others := append(append([]*node{}, f.nodes[:3]...), f.nodes[4:]...)
		sawSuspect := false
		took := f.within(20*time.Second, "dead everywhere", func() bool {
			dead := true
			for _, n := range others {
				l := n.liveness("node-003")
				sawSuspect = sawSuspect || l == record.Suspect
				dead = dead && l == record.Dead
			}
			return dead
		})
		t.Logf("dead everywhere after %v", took)
		if !sawSuspect {
			t.Error("nobody suspected it first: do the words of memberlist's log still match?")
		}
		if got := value(others[0], "node-003", "task/f/1"); got != "running" {
			t.Errorf("the record of the dead node has task %q, want it kept", got)
		}
		changes, err := suspected.Next(t.Context())
		if err != nil || !slices.ContainsFunc(changes, func(c record.Change) bool { return c.Node == "node-003" && c.Key == "" }) {
			t.Errorf("feed: %v, %v, want the node's change", changes, err)
		}

		// It comes back with an empty record of a higher generation.
		back := f.start(3)
		back.Set(assign("node", "again"))
		took = f.within(20*time.Second, "back everywhere", func() bool {
			return whole(f.nodes) && everywhere(f.nodes, "node-003", "node", "again")() && everywhere(f.nodes, "node-003", "task/f/1", "")()
		})
		t.Logf("back everywhere after %v", took)
	})
}

func TestAGracefulLeave(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(6)
		start := time.Now()
		f.nodes[2].stop()
		if err := <-f.nodes[2].result; err != nil {
			t.Errorf("Run: %v", err)
		}
		t.Logf("Run returned after %v", time.Since(start))
		f.nodes[2].result <- nil
		others := append(append([]*node{}, f.nodes[:2]...), f.nodes[3:]...)
		f.within(5*time.Second, "left everywhere", func() bool {
			for _, n := range others {
				if n.liveness("node-002") != record.Left {
					return false
				}
			}
			return true
		})
		time.Sleep(time.Minute)
		for _, n := range others {
			if l := n.liveness("node-002"); l != record.Left {
				t.Errorf("%s holds it for %v a minute later, want left", n.Self(), l)
			}
		}
	})
}

// Who joins later was not there to hear the goodbye, and is told of it.
func TestALeaveIsToldToWhoJoinsLater(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4)
		f.nodes[2].stop()
		if err := <-f.nodes[2].result; err != nil {
			t.Errorf("Run: %v", err)
		}
		f.nodes[2].result <- nil
		time.Sleep(time.Minute)
		late := f.start(4)
		f.within(3*reconcileEvery, "known to have left, to one who came later", func() bool { return late.liveness("node-002") == record.Left })
		f.start(2)
		f.within(3*reconcileEvery, "back for him as well", func() bool { return late.liveness("node-002") == record.Alive })
		time.Sleep(time.Minute)
		if l := late.liveness("node-002"); l != record.Alive {
			t.Errorf("it is %v a minute later, want alive", l)
		}
	})
}

func TestALongSplitHeals(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(6)
		side := func(ip string) bool {
			for i := range 3 {
				if ip == memnet.Addr(i) {
					return true
				}
			}
			return false
		}
		f.net.Cut(func(from, to string) bool { return side(from) != side(to) })
		took := f.within(time.Minute, "both sides hold the other for dead", func() bool {
			for _, n := range f.nodes {
				for _, o := range f.nodes {
					if want := record.Dead; (n.i < 3) != (o.i < 3) && n.liveness(o.Self()) != want {
						return false
					}
				}
			}
			return true
		})
		t.Logf("split known to all after %v", took)
		f.nodes[1].Set(assign("side", "left"))
		f.nodes[4].Set(assign("side", "right"))
		time.Sleep(20 * time.Minute)
		f.net.Cut(nil)
		took = f.within(10*time.Minute, "whole again", func() bool { return whole(f.nodes) })
		t.Logf("whole again %v after the cut had ended", took)
		if !everywhere(f.nodes, "node-001", "side", "left")() || !everywhere(f.nodes, "node-004", "side", "right")() {
			t.Error("changes of the two sides are not everywhere")
		}
	})
}

func TestAWipedDisk(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(5)
		old := f.nodes[2]
		for i := range 50 {
			old.Set(assign("task/f/1", fmt.Sprint(i)), assign("task/f/2", "old"))
		}
		for range 3 { // generations above what an empty disk begins with
			f.nodes[2].kill()
			<-f.nodes[2].result
			f.nodes[2].result <- nil
			f.start(2).Set(assign("task/f/2", "old"), assign("task/f/1", "old"))
			f.within(30*time.Second, "back", func() bool { return whole(f.nodes) })
		}
		before := f.nodes[0].Snapshot("node-002").Generation()
		f.nodes[2].kill()
		back := f.start(2, func(c *Config) { c.StateDir = filepath.Join(f.base, "wiped") })
		back.Set(assign("task/f/1", "new"))
		took := f.within(10*time.Second, "the new record wins", func() bool {
			return everywhere(f.nodes, "node-002", "task/f/1", "new")() && everywhere(f.nodes, "node-002", "task/f/2", "")()
		})
		t.Logf("the new record won after %v", took)
		if g := f.nodes[0].Snapshot("node-002").Generation(); g <= before {
			t.Errorf("generation %d, want more than %d", g, before)
		}
	})
}

func TestTheSecondOfANameGoes(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(5)
		f.nodes[3].Set(assign("task", "mine"))
		time.Sleep(10 * time.Second)
		twin := f.start(5, func(c *Config) {
			c.NodeID = "node-003"
			c.StateDir = filepath.Join(f.base, "twin")
		})
		twin.Set(assign("task", "not mine"))
		select {
		case err := <-twin.result:
			if !errors.Is(err, ErrDuplicate) || !strings.Contains(err.Error(), memnet.Addr(3)) {
				t.Errorf("Run: %v, want ErrDuplicate and the address of the first", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the second node is still there after 10 s")
		}
		f.nodes = f.nodes[:5]
		time.Sleep(5 * time.Second)
		f.within(20*time.Second, "the first is as it was", func() bool {
			return whole(f.nodes) && everywhere(f.nodes, "node-003", "task", "mine")()
		})
	})
}

func TestAMovedNodeKeepsItsName(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(5)
		f.nodes[3].kill()
		moved := f.start(3, func(c *Config) { c.Transport = f.net.Host("10.9.9.9") })
		moved.Set(assign("node", "moved"))
		took := f.within(40*time.Second, "the new address everywhere", func() bool {
			for _, n := range f.nodes {
				for _, m := range n.Members() {
					if m.Name == "node-003" && m.Address != "10.9.9.9" {
						return false
					}
				}
			}
			return whole(f.nodes)
		})
		t.Logf("moved in %v", took)
	})
}

func TestRememberedPeersReplaceSeeds(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4)
		time.Sleep(time.Minute)
		f.nodes[2].kill()
		<-f.nodes[2].result
		f.nodes[2].result <- nil
		f.start(2, func(c *Config) { c.Join = nil }).Set(assign("node", "back"))
		t.Logf("back without seeds in %v", f.within(20*time.Second, "back without seeds", func() bool { return whole(f.nodes) }))
	})
}

// Copies of a goodbye that come when the next life has begun, and its record is not there yet, must not end that life.
func TestALateGoodbyeEndsNoNewLife(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4)
		n := f.nodes[0]
		said := &message{kind: kindBye, node: "node-003", number: n.Snapshot("node-003").Generation()}
		liveness := func(want record.Liveness, after string) {
			t.Helper()
			if got := n.liveness("node-003"); got != want {
				t.Errorf("after %s the node is %v, want %v", after, got, want)
			}
		}
		n.onBye(said, said.append(nil))
		synctest.Wait()
		liveness(record.Left, "its goodbye")
		member, _ := n.peerOf("node-003")
		(&delegate{n.Mesh}).emit(event{eventJoin, member})
		synctest.Wait()
		liveness(record.Alive, "it was seen again")
		n.onBye(said, said.append(nil))
		synctest.Wait()
		liveness(record.Alive, "a late copy of its goodbye")
	})
}

// Nodes that stop in order and start again at once, several at a time, are all seen again by all.
func TestQuickRestartsInOrderAreSeenByAll(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(8)
		for range 12 {
			for i := range 4 {
				f.nodes[i].stop()
			}
			for i := range 4 {
				<-f.nodes[i].result
				f.nodes[i].result <- nil
				f.start(i).Set(assign("node", "again"))
			}
			f.within(20*time.Second, "whole", func() bool { return whole(f.nodes) })
		}
	})
}

// A node that was suspected and is back is believed at once, and not only when its turn to be probed comes again.
func TestASuspectThatIsBackIsBelievedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(12)
		for range 3 {
			f.nodes[3].kill()
			<-f.nodes[3].result
			f.nodes[3].result <- nil
			f.within(20*time.Second, "somebody suspects it", func() bool {
				return slices.ContainsFunc(f.nodes, func(n *node) bool { return n.i != 3 && n.liveness("node-003") == record.Suspect })
			})
			f.start(3).Set(assign("node", "again"))
			took := f.within(2*time.Second, "believed by all", func() bool {
				return !slices.ContainsFunc(f.nodes, func(n *node) bool { return n.i != 3 && n.liveness("node-003") != record.Alive })
			})
			t.Logf("believed by all after %v", took)
			f.within(30*time.Second, "whole", func() bool { return whole(f.nodes) })
		}
	})
}

// A node that is back before anybody missed it, and was told of nobody, is called by those that knew its earlier life.
func TestARestartThatNobodyNoticed(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(2)
		time.Sleep(time.Minute)
		f.nodes[0].kill()
		<-f.nodes[0].result
		f.nodes[0].result <- nil
		f.start(0, func(c *Config) { c.Join, c.StateDir = nil, t.TempDir() }).Set(assign("node", "back"))
		took := f.within(4*time.Second, "whole again", func() bool { return whole(f.nodes) && value(f.nodes[1], "node-000", "node") == "back" })
		t.Logf("whole again in %v", took)
	})
}

func TestKeysAndClustersKeepMeshesApart(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		var warnings countingHandler
		key := Secret(strings.Repeat("k", 32))
		f.start(0, func(c *Config) { c.Key = key; c.Log = slog.New(&warnings) })
		f.start(1, func(c *Config) { c.Key = key }).Set(assign("node", "1"))
		f.start(2, func(c *Config) { c.Key = Secret(strings.Repeat("o", 32)) })
		f.start(3, func(c *Config) { c.Key = key; c.Cluster = "other" })
		f.start(4)
		f.within(10*time.Second, "those with the key are together", func() bool { return whole(f.nodes[:2]) })
		time.Sleep(3 * time.Minute)
		for i, n := range f.nodes {
			if got := len(n.Members()); i < 2 && got != 2 || i >= 2 && got != 1 {
				t.Errorf("%s sees %d members: %s", n.Self(), got, n.states())
			}
		}
		// Three strangers, one line a minute each.
		if n := warnings.count("refused what has another"); n < 3 || n > 14 {
			t.Errorf("%d warnings of strangers in three minutes, want one a minute and host", n)
		}
	})
}

// countingHandler counts log messages.
type countingHandler struct {
	mu       sync.Mutex
	messages []string
}

func (h *countingHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h *countingHandler) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, r.Message)
	return nil
}
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *countingHandler) WithGroup(string) slog.Handler      { return h }
func (h *countingHandler) count(begin string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, m := range h.messages {
		if strings.HasPrefix(m, begin) {
			n++
		}
	}
	return n
}

func TestWithoutDatagramsStreamsSuffice(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		var warnings countingHandler
		f.net.SetLoss(1)
		f.form(8, func(c *Config) { c.Log = slog.New(&warnings) })
		f.nodes[5].Set(assign("task", "x"))
		took := f.within(time.Minute, "a change everywhere", everywhere(f.nodes, "node-005", "task", "x"))
		t.Logf("a change reached all in %v", took)
		time.Sleep(2 * time.Minute)
		if !whole(f.nodes) {
			t.Error("not whole without datagrams")
		}
		for _, n := range f.nodes {
			if countOf(n.metrics.streamOnly) == 0 {
				t.Errorf("%s counts no probe that only a stream carried", n.Self())
			}
		}
		if n := warnings.count("datagrams do not pass"); n == 0 || n > 8*4 {
			t.Errorf("%d warnings of eight nodes in three minutes, want about one a minute and node", n)
		}
	})
}

func TestAForgedRecordOfTheOwnNodeIsOutbid(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(4)
		forged := record.NewMap("node-002", 1<<40)
		forged.Set(time.Now(), assign("task/f/1", "forged"))
		if err := f.nodes[0].Apply(forged.Delta("node-002", 0)); err != nil {
			t.Fatal(err)
		}
		f.within(10*time.Second, "the owner's record wins", func() bool {
			return whole(f.nodes) && everywhere(f.nodes, "node-002", "task/f/1", "")() && everywhere(f.nodes, "node-002", "node", "I am 2")()
		})
		if err := f.nodes[0].Apply([]byte("garbage")); !errors.Is(err, record.ErrVersion) {
			t.Errorf("garbage: %v, want ErrVersion", err)
		}
	})
}

func TestADeltaOverAnotherRoadIsNews(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(6)
		// What the owner tells one node directly, that one tells the others, even where the owner cannot.
		owner := memnet.Addr(4)
		since := f.nodes[4].Snapshot("node-004").Version()
		f.net.Cut(func(from, to string) bool { return from == owner })
		f.nodes[4].Set(assign("task/f/1", "running"))
		if err := f.nodes[1].Apply(f.nodes[4].Delta(since)); err != nil {
			t.Fatal(err)
		}
		f.within(3*time.Second, "news everywhere", everywhere(f.nodes, "node-004", "task/f/1", "running"))
		f.net.Cut(nil)
	})
}
