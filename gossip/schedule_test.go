package gossip

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"starling/gossip/memnet"
	"starling/gossip/record"
)

var (
	seed      = flag.Uint64("seed", 0, "seed of the random schedules; 0 takes one from the clock")
	schedules = flag.Int("schedules", 3, "number of random schedules of whole nodes; of up to eight nodes and an hour with -full")
)

// schedule is a random run of whole nodes: they write, delete, restart with and without their disk, are killed and cut off in one direction or
// both, and packets are lost and late. Beside it runs a plain model of what each node last said. The seed repeats these choices; what the
// goroutines of the nodes make of them may differ.
type schedule struct {
	*flock
	rng   *rand.Rand
	disks int // that were ever used
	truth []map[string]string
	gone  []bool                     // killed and not started again
	view  []map[string]record.Digest // by reader and node: the newest generation and version that was seen
	told  []string                   // what happened, for the log
	aways int                        // long absences that may still come: they cost most of the time
}

func (s *schedule) note(format string, args ...any) {
	s.told = append(s.told, fmt.Sprintf("%8v  ", time.Since(s.begun()).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (s *schedule) begun() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) } // of every bubble

func (s *schedule) write(i int) {
	if s.gone[i] {
		return
	}
	var changes []record.Assignment
	for range 1 + s.rng.IntN(4) {
		key := fmt.Sprint("task/", s.rng.IntN(12))
		switch s.rng.IntN(8) {
		case 0, 1, 2:
			changes = append(changes, record.Assignment{Key: key})
			delete(s.truth[i], key)
		case 3: // too large for a datagram
			v := fmt.Sprintf("%-*d", 1500+s.rng.IntN(3000), s.rng.Uint64())
			changes, s.truth[i][key] = append(changes, assign(key, v)), v
		default:
			v := fmt.Sprint(s.rng.Uint64())
			changes, s.truth[i][key] = append(changes, assign(key, v)), v
		}
	}
	s.nodes[i].Set(changes...)
}

// stop ends a node, with a goodbye or without.
func (s *schedule) stop(i int, kill bool) {
	if s.gone[i] {
		return
	}
	s.gone[i] = true
	if kill {
		s.nodes[i].kill()
	} else {
		s.nodes[i].stop()
	}
	if err := <-s.nodes[i].result; err != nil {
		s.t.Errorf("%s: Run: %v", s.nodes[i].Self(), err)
	}
	s.nodes[i].result <- nil
	clear(s.truth[i])
	s.view[i] = map[string]record.Digest{} // what it knew is gone
}

// life starts a node that is not running.
func (s *schedule) life(i int, wiped bool) {
	if !s.gone[i] {
		return
	}
	s.gone[i] = false
	if wiped {
		s.disks++
	}
	disk := filepath.Join(s.base, fmt.Sprint("disk-", i, "-", s.disks))
	if !wiped && s.nodes[i] != nil {
		disk = s.nodes[i].cfg.StateDir
	}
	s.start(i, func(c *Config) {
		c.StateDir = disk
		c.Log = slog.New(slog.DiscardHandler)
		c.Join = nil
		for seed := range s.nodes { // any node may be away when this one starts
			if seed != i {
				c.Join = append(c.Join, memnet.Addr(seed))
			}
		}
	})
	s.write(i)
}

// step does one thing.
func (s *schedule) step() {
	i := s.rng.IntN(len(s.nodes))
	switch s.rng.IntN(20) {
	case 0:
		kill, wiped := s.rng.IntN(2) == 0, s.rng.IntN(3) == 0
		s.note("restart %d, kill %v, wiped %v", i, kill, wiped)
		s.stop(i, kill)
		s.life(i, wiped)
	case 1:
		kill := s.rng.IntN(2) == 0
		s.note("stop %d, kill %v", i, kill)
		s.stop(i, kill)
	case 2:
		wiped := s.rng.IntN(3) == 0
		s.note("start %d, wiped %v", i, wiped)
		s.life(i, wiped)
	case 3:
		side := map[string]bool{}
		for k := range s.nodes {
			side[memnet.Addr(k)] = s.rng.IntN(2) == 0
		}
		oneWay := s.rng.IntN(2) == 0
		s.note("cut %v, one way %v", side, oneWay)
		s.net.Cut(func(from, to string) bool { return side[from] && !side[to] || !oneWay && !side[from] && side[to] })
	case 4:
		s.note("no cut")
		s.net.Cut(nil)
	case 5:
		loss := s.rng.Float64() * 0.5
		s.note("loss %.2f", loss)
		s.net.SetLoss(loss)
	case 6:
		s.net.SetLoss(0)
	case 7:
		s.net.SetLatency(time.Duration(s.rng.IntN(20))*time.Millisecond, time.Duration(s.rng.IntN(300))*time.Millisecond)
	case 8:
		d := time.Duration(s.rng.IntN(60)) * time.Second
		s.note("%v pass", d)
		s.pass(d)
	case 9:
		if s.aways == 0 {
			break
		}
		s.aways--
		// Deleted keys are forgotten after ten minutes: who was away for longer is told of by the whole record.
		away := memnet.Addr(i)
		s.note("%d is cut off for 15 minutes", i)
		s.net.Cut(func(from, to string) bool { return from == away || to == away })
		for k := range 4 * len(s.nodes) {
			s.write(k % len(s.nodes))
		}
		s.pass(15 * time.Minute)
		s.net.Cut(nil)
	default:
		s.write(i)
	}
	s.pass(time.Duration(s.rng.IntN(1500)) * time.Millisecond)
}

// pass lets time pass and holds what has to be true at every moment.
func (s *schedule) pass(d time.Duration) {
	for end := time.Now().Add(d); ; {
		s.watchViews()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, max(250*time.Millisecond, d/50)))
	}
}

// watchViews checks that what a reader sees of a node never goes back.
func (s *schedule) watchViews() {
	for i, n := range s.nodes {
		if s.gone[i] {
			continue
		}
		for snap := range n.Snapshots() {
			old, now := s.view[i][snap.Node()], record.Digest{Generation: snap.Generation(), Version: snap.Version()}
			if now.Generation < old.Generation || now.Generation == old.Generation && now.Version < old.Version {
				s.t.Errorf("%s's view of %s went back from %d/%d to %d/%d", n.Self(), snap.Node(), old.Generation, old.Version, now.Generation, now.Version)
			}
			s.view[i][snap.Node()] = now
		}
	}
}

// healed tells why the nodes do not agree, or nothing.
func (s *schedule) healed() string {
	for i, n := range s.nodes {
		if s.gone[i] {
			continue
		}
		for j, o := range s.nodes {
			if s.gone[j] {
				continue
			}
			if l := n.liveness(o.Self()); l != record.Alive {
				return fmt.Sprintf("%s holds %s for %v", n.Self(), o.Self(), l)
			}
			if got := tasks(n.Snapshot(o.Self())); !maps.Equal(got, s.truth[j]) {
				return fmt.Sprintf("%s's copy of %s has the keys %v, want %v", n.Self(), o.Self(), slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(s.truth[j])))
			}
		}
	}
	return ""
}

func (s *schedule) run() {
	s.aways = 1
	few := 3
	if *full {
		s.aways, few = 100, 6
	}
	for range 3 + s.rng.IntN(few) {
		s.nodes = append(s.nodes, nil)
		s.truth = append(s.truth, map[string]string{})
		s.gone = append(s.gone, true)
		s.view = append(s.view, map[string]record.Digest{})
	}
	for i := range s.nodes {
		s.disks++
		s.life(i, true)
	}
	for range 20 + s.rng.IntN(40) {
		s.step()
	}
	s.note("whole again")
	s.net.Cut(nil)
	s.net.SetLoss(0)
	s.net.SetLatency(time.Millisecond, 4*time.Millisecond)
	// Those that are away stay away in one half of the schedules.
	if s.rng.IntN(2) == 0 {
		for i := range s.nodes {
			s.life(i, s.rng.IntN(3) == 0)
		}
	}
	const limit = 3 * time.Minute // a peer that was gone is tried after pauses that double
	for start := time.Now(); s.healed() != ""; s.pass(250 * time.Millisecond) {
		if time.Since(start) > limit {
			s.t.Errorf("%v after the network was whole again: %s", limit, s.healed())
			break
		}
	}
	// And it stays so: nothing that is still on its way or in somebody's memory brings back what is gone.
	s.pass(30 * time.Second)
	if why := s.healed(); why != "" && !s.t.Failed() {
		s.t.Errorf("half a minute after all agreed: %s", why)
	}
}

// Whatever happens to nodes and network, when it is over all live nodes agree on every record, no deleted key comes back, no old generation
// shadows a new one, and what a reader sees of a node never goes back.
func TestRandomSchedulesOfNodes(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	n := *schedules
	t.Logf("seed %d, %d schedules", first, n)
	for k := range n {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				rng := rand.New(rand.NewPCG(first, uint64(k)))
				f.net = memnet.New(rng.Uint64())
				s := &schedule{flock: f, rng: rng}
				s.run()
				if t.Failed() {
					t.Logf("-seed %d, schedule %d of %d nodes:", first, k, len(s.nodes))
					for _, line := range s.told {
						t.Log(line)
					}
				}
			})
		})
	}
}
