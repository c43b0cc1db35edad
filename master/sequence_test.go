package master_test

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

var (
	sequences = flag.Uint64("sequences", 30, "how many random sequences are played")
	firstSeed = flag.Uint64("first-seed", 0, "the seed of the first of them")
)

// sequence is one random sequence of everything that frameworks, agents, operators and the network may do. Its players know
// what they were told and nothing else, and after each step all that they know is compared with each other, with the agents,
// and with the master's books.
type sequence struct {
	t       *testing.T
	rng     *rand.Rand
	c       *mastertest.Cluster
	agents  []*mastertest.Agent
	players []*player
	leading bool
	// disturbed agents may find that what they launch no longer fits, or end tasks by order of an operator.
	disturbed map[string]bool
	// offered has every offer that was ever made, and whose it is.
	offered map[string]*player
	tasks   int
	steps   []string
}

const (
	maxAgents  = 5
	maxPlayers = 5
)

// Whatever is done in whatever order, after each step the books add up, everybody knows the same offers, nothing is offered
// to two, no stream tells what it must not; in the end no task is lost or was started twice, and all is free again.
func TestRandomSequences(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+*sequences; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { play(t, seed) })
		})
	}
}

func play(t *testing.T, seed uint64) {
	s := &sequence{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), disturbed: make(map[string]bool), offered: make(map[string]*player),
	}
	s.c = mastertest.Start(t, nil, func(cfg *master.Config) {
		cfg.Rand = rand.New(rand.NewPCG(seed, 8))
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg.MaxCompletedFrameworks, cfg.MaxCompletedTasks, cfg.MaxUnreachableTasks = 3, 5, 4
		if s.chance(2) {
			cfg.OfferTimeout = time.Minute
		}
	})
	for range 3 {
		s.join()
	}
	s.elect()
	for range 200 {
		time.Sleep(time.Duration(s.rng.IntN(300)) * time.Millisecond)
		synctest.Wait()
		s.read()
		what := s.step()
		for range 10 {
			if what != "nothing" {
				break
			}
			what = s.step()
		}
		s.steps = append(s.steps, what)
		synctest.Wait()
		s.read()
		if err := s.check(); err != nil {
			t.Fatalf("step %d, %s: %v\nbefore: %s", len(s.steps), what, err, strings.Join(s.steps[max(0, len(s.steps)-12):], "; "))
		}
		if t.Failed() {
			t.Fatalf("after step %d, %s\nbefore: %s", len(s.steps), what, strings.Join(s.steps[max(0, len(s.steps)-12):], "; "))
		}
	}
	s.finish()
	ran := 0
	for _, p := range s.players {
		ran += p.ran
	}
	if t.Failed() {
		t.Log("all steps: " + strings.Join(s.steps, "; "))
	}
	t.Logf("%d agents, %d frameworks, %d offers, %d tasks, %d updates that one runs", len(s.agents), len(s.players), len(s.offered), s.tasks, ran)
}

// chance is true once in n times.
func (s *sequence) chance(n int) bool { return s.rng.IntN(n) == 0 }

// one picks one, or the zero value out of none.
func one[T any](s *sequence, list []T) (t T) {
	if len(list) > 0 {
		t = list[s.rng.IntN(len(list))]
	}
	return t
}

func (s *sequence) step() string {
	if !s.leading && s.chance(4) {
		return s.leadership()
	}
	switch n := s.rng.IntN(100); {
	case n < 14:
		return s.world()
	case n < 15:
		return s.leadership()
	case n < 23:
		d := time.Duration(s.rng.IntN(20000)) * time.Millisecond
		time.Sleep(d)
		return fmt.Sprint("wait ", d)
	case n < 32:
		return s.subscription()
	case n < 36 && s.leading:
		return s.decide()
	default:
		some := s.connected()
		if offered := slices.DeleteFunc(slices.Clone(some), func(p *player) bool { return len(p.offers) == 0 }); len(offered) > 0 && !s.chance(4) {
			some = offered
		}
		if p := one(s, some); p != nil {
			return p.act()
		}
		return s.subscription()
	}
}

// world is what agents and the network do.
func (s *sequence) world() string {
	a := one(s, s.agents)
	switch s.rng.IntN(9) {
	case 0:
		if len(s.agents) < maxAgents {
			return "join " + s.join()
		}
	case 1, 2, 3:
		if away := s.away(); len(away) > 0 && !s.chance(3) {
			a = one(s, away)
			s.c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
			return a.ID + " is back"
		}
		live := one(s, []record.Liveness{record.Alive, record.Alive, record.Alive, record.Suspect, record.Dead, record.Left})
		s.c.Mesh.SetLiveness(time.Now(), a.ID, live)
		return fmt.Sprint(a.ID, " is ", live)
	case 4:
		if gone := s.c.Mesh.Reap(time.Now(), time.Second); len(gone) > 0 {
			// The mesh takes a node that it has forgotten for the same only when that has begun anew.
			for _, a := range s.agents {
				if slices.Contains(gone, a.ID) && s.chance(2) {
					s.must(a.Restart())
				}
			}
			return fmt.Sprint("reap ", gone)
		}
	case 5:
		n, fault := s.rng.IntN(6), one(s, []mastertest.Fault{mastertest.Unreachable, mastertest.Silent, mastertest.Lost})
		a.SetFault(func(*nodeapi.Call) mastertest.Fault {
			if n--; n >= 0 {
				return fault
			}
			return mastertest.None
		})
		return fmt.Sprint(n, " calls to ", a.ID, " go wrong in way ", fault)
	case 6:
		s.must(a.Restart())
		return "restart " + a.ID
	case 7:
		res := fmt.Sprintf("cpus:%d;mem:%d;disk:1000;ports:[31000-31009]", 1+s.rng.IntN(6), 1024+s.rng.IntN(4096))
		if s.yielding(a) {
			break // it has reservations to keep
		}
		s.disturbed[a.ID] = true
		s.must(a.Resize(res))
		return "resize " + a.ID + " to " + res
	default:
		if p := one(s, s.players); p != nil {
			if id := one(s, a.Running(p.ID)); id != "" {
				p.ended[id] = true
				if s.chance(3) {
					a.Drop(p.ID, id)
					return a.ID + " loses " + id
				}
				_ = a.Finish(s.t.Context(), p.ID, id, one(s, []mesos.TaskState{mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_FAILED}))
				return id + " ends"
			}
		}
	}
	return "nothing"
}

// away are the agents that the mesh believes to be gone.
func (s *sequence) away() []*mastertest.Agent {
	return slices.DeleteFunc(slices.Clone(s.agents), func(a *mastertest.Agent) bool {
		snap := s.c.Mesh.Snapshot(a.ID)
		return snap != nil && snap.Liveness() == record.Alive
	})
}

// join adds an agent.
func (s *sequence) join() string {
	a := s.c.AddAgent(len(s.agents), "cpus:4;mem:4096;disk:1000;ports:[31000-31009]")
	s.agents = append(s.agents, a)
	return a.ID
}

// leadership is lost, won, or lost and won again.
func (s *sequence) leadership() string {
	if s.leading {
		s.leading = false
		s.c.Lose()
		synctest.Wait()
		if s.chance(3) {
			return "lose the lease"
		}
	}
	s.elect()
	return "elect"
}

func (s *sequence) elect() {
	s.c.Elect()
	synctest.Wait()
	s.leading = true
}

func (s *sequence) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// finish heals everything and finds that all agree on what runs; then all is torn down, and all is free.
func (s *sequence) finish() {
	for _, a := range s.agents {
		a.SetFault(nil)
		s.must(a.Restart())
		s.c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
	}
	s.pass(time.Minute)
	for _, p := range s.connected() {
		p.hearsOf()
	}
	// A new leader has all agents repeat what they were not told to forget: a simulated one does so on no other occasion.
	if s.leading {
		s.c.Lose()
		synctest.Wait()
		s.read()
	}
	s.elect()
	s.undecide()
	for _, p := range s.players {
		if !p.removed {
			p.subscribe(p.Again())
		}
	}
	// Launches that are repeated, questions, held updates and failovers come to their ends meanwhile.
	s.pass(2 * time.Minute)
	for _, p := range s.players {
		p.agrees()
	}
	for id := range s.listed() {
		s.must(s.c.Master.Teardown(s.t.Context(), id))
	}
	for _, p := range s.players {
		for id := range p.tasks {
			starts := 0
			for _, a := range s.agents {
				starts += a.Starts(p.ID, id)
			}
			if starts > 1 {
				s.t.Errorf("task %s was started %d times", id, starts)
			}
		}
	}
	s.pass(time.Minute)
	s.undecide() // drains have come to their ends
	s.pass(time.Minute)
	s.must(s.check())
	var want resources.Resources
	for _, a := range s.agents {
		if left := a.Tasks(); len(left) > 0 {
			s.t.Errorf("agent %s still has %v", a.ID, left)
		}
		want = want.Add(a.Free())
	}
	last := mastertest.Subscribe(s.t, s.c.Master, mastertest.Info("last", []string{"*", "web", "web/a", "batch"}, multiRole, refined))
	time.Sleep(time.Minute)
	synctest.Wait()
	var free resources.Resources
	for _, o := range drain(s.t, last) {
		for _, offer := range o.GetOffers().GetOffers() {
			free = free.Add(parsedResources(s.t, offer.GetResources()))
		}
	}
	// A reserved disk alone is not worth an offer.
	for _, name := range []string{resources.CPUs, resources.Mem} {
		if free.Scalar(name) != want.Scalar(name) {
			s.t.Errorf("in the end %v are offered, want %v", free, want)
		}
	}
}

// pass lets time go by, while everything is read and acknowledged.
func (s *sequence) pass(d time.Duration) {
	for ; d > 0; d -= 5 * time.Second {
		time.Sleep(5 * time.Second)
		synctest.Wait()
		s.read()
		for _, p := range s.connected() {
			p.acknowledgeAll()
		}
	}
}

func parsedResources(t *testing.T, rs []*mesos.Resource) resources.Resources {
	t.Helper()
	r, err := resources.FromProto(rs)
	if err != nil {
		t.Fatal(err)
	}
	return r.Unallocated()
}
