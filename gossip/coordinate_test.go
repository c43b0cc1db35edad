package gossip

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/memnet"
)

// plane is a geography: each host has a place, and a round trip takes as long as two places are apart.
type plane map[string][2]float64

func newPlane(n int, seed uint64, size time.Duration) plane {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := plane{}
	for i := range n {
		p[memnet.Addr(i)] = [2]float64{rng.Float64() * float64(size), rng.Float64() * float64(size)}
	}
	return p
}

func (p plane) rtt(a, b string) time.Duration {
	x, y := p[a], p[b]
	return time.Duration(math.Hypot(x[0]-y[0], x[1]-y[1]))
}

func (p plane) oneWay(from, to string) time.Duration { return p.rtt(from, to) / 2 }

// misjudged returns the median and the 90th percentile of by how much a node misjudges the round trips between two others, or how many it
// knows nothing of. With only given, one end is always that node.
func misjudged(f *flock, p plane, only int) (median, most time.Duration, unknown int) {
	var errs []time.Duration
	for i, a := range f.nodes {
		for j, b := range f.nodes {
			if i >= j || only >= 0 && i != only && j != only {
				continue
			}
			rtt, err := f.nodes[0].RTT(a.Self(), b.Self())
			if err != nil {
				unknown++
				continue
			}
			errs = append(errs, (rtt - p.rtt(memnet.Addr(i), memnet.Addr(j))).Abs())
		}
	}
	if len(errs) == 0 {
		return 0, 0, unknown
	}
	slices.Sort(errs)
	return errs[len(errs)/2], errs[len(errs)*9/10], unknown
}

func TestDistancesAreLearned(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		p := newPlane(13, seed, 80*time.Millisecond)
		f.net.SetDistances(p.oneWay)
		f.form(12)
		check := func(what string, only int, limit time.Duration) {
			t.Helper()
			median, most, unknown := misjudged(f, p, only)
			t.Logf("%s: median error %v, 90th percentile %v", what, median, most)
			if median > limit || unknown > 0 {
				t.Errorf("%s: median error %v, want at most %v; %d pairs unknown, want none", what, median, limit, unknown)
			}
		}
		f.within(30*time.Second, "all coordinates told", func() bool { _, _, unknown := misjudged(f, p, -1); return unknown == 0 })
		time.Sleep(time.Until(f.nodes[0].started.Add(time.Minute)))
		check("after a minute", -1, 10*time.Millisecond)
		time.Sleep(4 * time.Minute)
		check("after five minutes", -1, 4*time.Millisecond)

		before := f.told()
		time.Sleep(5 * time.Minute)
		if n := f.told() - before; n > 30 {
			t.Errorf("coordinates were told %d times in five quiet minutes by 12 nodes, want at most 30", n)
		} else {
			t.Logf("coordinates were told %d times in five quiet minutes by 12 nodes", n)
		}

		f.start(12)
		took := f.within(30*time.Second, "late joiner told", func() bool { _, err := f.nodes[0].RTT("node-012", "node-001"); return err == nil })
		t.Logf("a late joiner told its coordinate after %v", took)
		time.Sleep(time.Minute)
		check("the late joiner after a minute", 12, 12*time.Millisecond)

		// The link of a node changes: it is in the far corner now, twice as far as anything was.
		f.net.SetDistances(nil)
		p[memnet.Addr(3)] = [2]float64{float64(160 * time.Millisecond), float64(160 * time.Millisecond)}
		f.net.SetDistances(p.oneWay)
		next := time.Now()
		took = f.within(10*time.Minute, "a moved node is where it is", func() bool {
			if time.Now().Before(next) {
				return false // it takes minutes, and looking takes long
			}
			next = next.Add(time.Second)
			median, _, _ := misjudged(f, p, 3)
			return median < 25*time.Millisecond
		})
		t.Logf("a node that moved by 100 to 200 ms was where it is after %v", took)
	})
}

// Where round trips are short and vary by as much as they take, coordinates wander. Nobody has to hear of that.
func TestANoisyNetworkIsNoNews(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		f.form(12)
		time.Sleep(3 * time.Minute)
		before := f.told()
		if before < 12 {
			t.Fatalf("%d coordinates were told by 12 nodes in three minutes, want one each at least", before)
		}
		time.Sleep(10 * time.Minute)
		n := f.told() - before
		t.Logf("coordinates were told %d times in ten quiet minutes by 12 nodes", n)
		if n > 30 {
			t.Errorf("coordinates were told %d times in ten quiet minutes by 12 nodes, want at most 30", n)
		}
	})
}

// told returns how many changes of records the first node has seen; only coordinates change here.
func (f *flock) told() (n uint64) {
	for s := range f.nodes[0].Snapshots() {
		n += s.Version() - 1 // each has set one key as it was started
	}
	return n
}

// A node that says it is at the end of the world disturbs the others while it is there, and no longer.
func TestALiarLeavesNoMark(t *testing.T) {
	const nodes = 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	p := newPlane(nodes, seed, 80*time.Millisecond)
	var ls []*locator
	for range nodes {
		l, err := newLocator()
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, l)
	}
	lie := &catalog.Coordinate{}
	const most = int32(catalog.MaxDistance / time.Microsecond)
	refused := 0
	probe := func(rounds int, lies bool) {
		for range rounds {
			for i, l := range ls {
				j := rng.IntN(nodes)
				if j == i {
					continue
				}
				answer := ls[j].answer()
				if lies && j == 0 {
					lie.Vector, lie.Height, lie.Adjustment, lie.Error = nil, uint32(rng.Int32N(most+1)), rng.Int32N(2*most+1)-most, 0
					for range 8 {
						lie.Vector = append(lie.Vector, most*(2*rng.Int32N(2)-1))
					}
					answer = appendCoordinate(nil, lie)
				}
				if err := l.observe(fmt.Sprint(j), p.rtt(memnet.Addr(i), memnet.Addr(j)), answer); err != nil && j != 0 {
					refused++
				}
			}
		}
	}
	median := func() time.Duration {
		var errs []time.Duration
		for i := 1; i < nodes; i++ {
			for j := i + 1; j < nodes; j++ {
				a, _ := ls[i].news()
				b, _ := ls[j].news()
				if err := a.Check(); err != nil {
					t.Fatalf("node %d has an impossible coordinate: %v", i, err)
				}
				errs = append(errs, (a.RTT(b) - p.rtt(memnet.Addr(i), memnet.Addr(j))).Abs())
			}
		}
		slices.Sort(errs)
		return errs[len(errs)/2]
	}
	probe(300, false)
	honest := median()
	probe(300, true)
	lied := median()
	probe(300, false)
	after := median()
	t.Logf("median error of the honest: %v, with a liar among %d %v, %d probes after its end %v", honest, nodes, lied, 300, after)
	if refused > 0 {
		t.Errorf("the honest refused each other %d times", refused)
	}
	if after > honest+5*time.Millisecond {
		t.Errorf("median error %v after the liar has gone, was %v before: want it back", after, honest)
	}
}

func TestDistanceIsSerfs(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const most = int32(catalog.MaxDistance / time.Microsecond)
	random := func() *catalog.Coordinate {
		scale := int32(1) << rng.IntN(20)
		c := &catalog.Coordinate{Height: uint32(rng.Int32N(scale)), Adjustment: rng.Int32N(2*scale+1) - scale, Error: uint32(rng.IntN(catalog.MaxError))}
		for range 8 {
			c.Vector = append(c.Vector, max(-most, min(most, rng.Int32N(2*scale+1)-scale)))
		}
		return c
	}
	for range 10_000 {
		a, b := random(), random()
		got, want := a.RTT(b), toSerf(a).DistanceTo(toSerf(b))
		if min(got, want) < time.Microsecond {
			continue // where adjustments come to just nothing, rounding decides whether they count
		}
		if (got - want).Abs() > 5*time.Nanosecond {
			t.Fatalf("%v to %v: %v, want serf's %v", a, b, got, want)
		}
		if back := toCatalog(toSerf(a)); !proto.Equal(a, back) {
			t.Fatalf("%v became %v on its way through serf's form", a, back)
		}
	}
}

func TestImpossibleCoordinatesAreRefused(t *testing.T) {
	l, err := newLocator()
	if err != nil {
		t.Fatal(err)
	}
	good := func(change func(*catalog.Coordinate)) []byte {
		c := &catalog.Coordinate{Vector: make([]int32, 8), Height: 10, Error: 1000}
		change(c)
		return appendCoordinate(nil, c)
	}
	const far = int32(catalog.MaxDistance/time.Microsecond) + 1
	fine := good(func(*catalog.Coordinate) {})
	if err := l.observe("n", time.Millisecond, fine); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	before := l.answer()
	for _, c := range []struct {
		name    string
		rtt     time.Duration
		payload []byte
	}{
		{"no time at all", -1, fine},
		{"a round trip of hours", time.Hour, fine},
		{"nothing", time.Millisecond, nil},
		{"another version", time.Millisecond, append([]byte{2}, fine[1:]...)},
		{"garbage", time.Millisecond, []byte{coordinateVersion, 0xff, 0xff}},
		{"cut off", time.Millisecond, fine[:len(fine)-1]},
		{"endless", time.Millisecond, append(slices.Clone(fine), make([]byte, maxCoordinate)...)},
		{"no dimensions", time.Millisecond, []byte{coordinateVersion}},
		{"too few dimensions", time.Millisecond, good(func(c *catalog.Coordinate) { c.Vector = c.Vector[:7] })},
		{"too many dimensions", time.Millisecond, good(func(c *catalog.Coordinate) { c.Vector = make([]int32, 40) })},
		{"beyond the moon", time.Millisecond, good(func(c *catalog.Coordinate) { c.Vector[3] = far })},
		{"beyond it on the other side", time.Millisecond, good(func(c *catalog.Coordinate) { c.Vector[3] = -far })},
		{"the smallest number", time.Millisecond, good(func(c *catalog.Coordinate) { c.Vector[0] = math.MinInt32 })},
		{"too high", time.Millisecond, good(func(c *catalog.Coordinate) { c.Height = math.MaxUint32 })},
		{"too much adjusted", time.Millisecond, good(func(c *catalog.Coordinate) { c.Adjustment = -far })},
		{"too unsure", time.Millisecond, good(func(c *catalog.Coordinate) { c.Error = catalog.MaxError + 1 })},
	} {
		if err := l.observe("n", c.rtt, c.payload); !errors.Is(err, errCoordinate) {
			t.Errorf("%s: %v, want it refused", c.name, err)
		}
	}
	if !slices.Equal(before, l.answer()) {
		t.Error("something refused has moved the coordinate")
	}
}

func FuzzParseCoordinate(f *testing.F) {
	f.Add(appendCoordinate(nil, &catalog.Coordinate{Vector: []int32{-40000, 12, 0, 1, -1, 300, 7, 40000}, Height: 10, Adjustment: -25, Error: 120}))
	f.Add([]byte{coordinateVersion})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCoordinate(b)
		if err != nil {
			return
		}
		if err := c.Check(); err != nil {
			t.Errorf("%x was taken: %v", b, err)
		}
		l, err := newLocator()
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			_ = l.observe("n", 10*time.Millisecond, b)
		}
		if mine, _ := l.news(); mine.Check() != nil {
			t.Errorf("%x leads to an impossible place: %v", b, mine)
		}
	})
}

func TestDistanceOfWhoIsNotThere(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3)
		if _, err := f.nodes[0].RTT("node-001", "nobody"); !errors.Is(err, ErrUnknownNode) || !strings.Contains(err.Error(), `"nobody"`) {
			t.Errorf("a node that is not there: %v, want ErrUnknownNode and its name", err)
		}
		if _, err := f.nodes[0].RTT("node-001", "node-002"); !errors.Is(err, catalog.ErrNoCoordinate) {
			t.Errorf("before any coordinate: %v, want ErrNoCoordinate", err)
		}
		if rtt, err := f.nodes[0].RTT("node-001", "node-001"); rtt != 0 || err != nil {
			t.Errorf("to itself: %v, %v; want 0", rtt, err)
		}
		f.within(time.Minute, "coordinates", func() bool { _, err := f.nodes[0].RTT("node-001", "node-002"); return err == nil })
		f.nodes[2].Set(assign(catalog.KeyCoordinate, "\xff garbage"))
		f.within(time.Second, "garbage in a record is no coordinate", func() bool {
			_, err := f.nodes[0].RTT("node-001", "node-002")
			return errors.Is(err, catalog.ErrNoCoordinate)
		})
	})
}

// The whole mesh tells about one coordinate a second at the most, whatever its size, once everybody has been there for a while.
func TestCoordinatesAreToldRarely(t *testing.T) {
	for _, c := range []struct {
		nodes         int
		first, steady time.Duration
	}{
		{1, 10 * time.Second, 10 * time.Second},
		{20, 10 * time.Second, 20 * time.Second},
		{1000, 100 * time.Second, 1000 * time.Second},
	} {
		pause := nextPause(0, c.nodes)
		if pause != c.first {
			t.Errorf("%d nodes: first pause %v, want %v", c.nodes, pause, c.first)
		}
		for range 10 {
			pause = nextPause(pause, c.nodes)
		}
		if pause != c.steady {
			t.Errorf("%d nodes: pause %v in the end, want %v", c.nodes, pause, c.steady)
		}
	}
}
