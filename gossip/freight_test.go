package gossip

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"starling/gossip/record"
)

// stocked returns a map that holds n records of 20 tasks each, of about size bytes, as a node of a large mesh does.
func stocked(t testing.TB, n, size int) *record.Map {
	t.Helper()
	m := record.NewMap("self", 1)
	for i := range n {
		owner := record.NewMap(fmt.Sprintf("8f14e45f-ceea-467f-a8a3-%012d-S0", i), 1<<40)
		for k := range 20 {
			owner.Set(epoch, assign(fmt.Sprintf("task/framework-0001/app-%02d.%08x", k, i), strings.Repeat("x", size/20)))
		}
		if _, err := m.Apply(epoch, owner.Delta(owner.Self(), 0)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// all is what somebody lacks who has nothing.
func all(m *record.Map) []need {
	var needs []need
	for s := range m.Snapshots() {
		needs = append(needs, need{node: s.Node()})
	}
	return needs
}

// However many newcomers and returning nodes ask at once, a node sends no more than its rate, never holds more than a piece in memory, and
// the peers that it serves come on evenly.
func TestFreightIsBoundedAndFair(t *testing.T) {
	const rate = 32 << 10
	m := stocked(t, 500, 4000)
	f := newFreight(m, rate, 1)
	taken := 0
	for i := range 1000 {
		if f.repair(epoch, memberlist.Node{Name: fmt.Sprint("newcomer-", i)}, all(m), true, true) {
			taken++
		}
	}
	if taken != maxJobs {
		t.Errorf("%d jobs were taken, want %d", taken, maxJobs)
	}
	if f.repair(epoch, memberlist.Node{Name: "newcomer-0"}, all(m), true, true) {
		t.Error("a second job for the same peer was taken")
	}
	got := map[string]int{}
	sent, largest := 0, 0
	now := epoch
	for now.Before(epoch.Add(missedFor)) {
		j, _, _, wait := f.take(now)
		if j == nil {
			now = now.Add(max(wait, time.Millisecond))
			continue
		}
		body := f.piece(epoch, j)
		sent, largest = sent+len(body), max(largest, len(body))
		got[j.to.Name] += len(body)
		f.done(j, len(body))
	}
	if limit := rate*int((missedBurst+missedFor)/time.Second) + maxPiece + 8000; sent > limit || sent < limit/2 {
		t.Errorf("%d bytes were sent in %v, want about %d", sent, missedFor, limit)
	}
	if largest > maxPiece+8000 {
		t.Errorf("a piece of %d bytes, want no more than one record above %d", largest, maxPiece)
	}
	least, most := 1<<30, 0
	for _, n := range got {
		least, most = min(least, n), max(most, n)
	}
	if len(got) < min(maxJobs, sent/(maxPiece+8000)) || most-least > maxPiece+16000 {
		t.Errorf("%d peers were served, with %d to %d bytes each, want all evenly", len(got), least, most)
	}
	// What nobody waits for any more is given up.
	now = now.Add(time.Minute)
	if j, _, _, _ := f.take(now); j != nil {
		t.Errorf("a job for %s is done a minute later", j.to.Name)
	}
	if !f.repair(now, memberlist.Node{Name: "newcomer-0"}, all(m), true, true) {
		t.Error("no job is taken when all others were given up")
	}
}

func TestFreightTellsTheNewestOfALargeValueOnce(t *testing.T) {
	m := record.NewMap("n", 1)
	f := newFreight(m, 128<<10, 1)
	for i := range 100 {
		m.Set(epoch, assign("big", fmt.Sprint(i)))
		if !f.news("n", 1, "big") {
			t.Fatal("a value that waits already is refused")
		}
	}
	if !f.repair(epoch, memberlist.Node{Name: "p"}, []need{{node: "n"}}, true, true) {
		t.Fatal("the repair is refused")
	}
	large, jobs := 0, 0
	for range 10 {
		j, k, generation, _ := f.take(epoch)
		switch {
		case j != nil:
			jobs++
			f.done(j, len(f.piece(epoch, j)))
		case k.node != "":
			large++
			if delta := m.Entries(nil, k.node, generation, []string{k.key}); !strings.Contains(string(delta), "99") {
				t.Errorf("told %q, want the newest value", delta)
			}
		}
	}
	if large != 1 || jobs != 1 {
		t.Errorf("the value was told %d times and %d repairs made, want one of each", large, jobs)
	}
	for i := range 2 * maxLarge {
		if got, want := f.news("n", 1, fmt.Sprint("k", i)), i < maxLarge; got != want {
			t.Fatalf("value %d is taken: %v, want %v", i, got, want)
		}
	}
}

// A single newcomer gets the four megabytes of a large mesh within two seconds.
func TestANewcomerGetsAllAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		f.form(4)
		stock := stocked(t, 1000, 4000)
		for s := range stock.Snapshots() {
			for _, n := range f.nodes {
				if s.Node() != "self" {
					if _, err := n.records.Apply(time.Now(), stock.Delta(s.Node(), 0)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		time.Sleep(20 * time.Second)
		newcomer := f.start(4)
		took := f.within(2*time.Second, "the newcomer has all", func() bool {
			for _, d := range f.nodes[0].records.Digests(nil) {
				if s := newcomer.Snapshot(d.Node); s == nil || s.Generation() != d.Generation || s.Version() != d.Version {
					return false
				}
			}
			return true
		})
		t.Logf("1,000 records of 20 tasks came within %v", took)
	})
}

// While a node has sent so much of what others missed that it has to wait for a minute, it goes on repairing what changes right now.
func TestWaitingWithLargeRepairsHoldsUpNoSmallOne(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(2)
		time.Sleep(10 * time.Second)
		helper, peer := f.nodes[0], f.nodes[1]
		to, ok := helper.peers.get(peer.Self())
		if !ok {
			t.Fatal("the peer is not known")
		}
		fr := helper.freight
		fr.mu.Lock()
		fr.missed.bucket.tokens = -60 * fr.missed.bucket.rate
		fr.mu.Unlock()
		fr.news(helper.Self(), helper.Snapshot(helper.Self()).Generation(), "node") // waits for the bucket
		time.Sleep(time.Second)
		before := countOf(helper.metrics.repairsOut)
		if !fr.repair(time.Now(), to, []need{{node: helper.Self()}}, false, false) {
			t.Fatal("the repair is refused")
		}
		f.within(100*time.Millisecond, "the repair is sent", func() bool { return countOf(helper.metrics.repairsOut) > before })
	})
}
