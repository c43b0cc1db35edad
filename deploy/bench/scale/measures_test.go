package scale_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starling/master/mesos"
)

// profile writes a profile of the process, where a folder for that is named.
func profile(t testing.TB, kind, name string) {
	dir := os.Getenv("SCALE_PROFILES")
	if dir == "" {
		return
	}
	out, err := os.Create(filepath.Join(dir, name+".pprof"))
	if err == nil {
		err = pprof.Lookup(kind).WriteTo(out, 0)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

// profiled runs f, and profiles the processor's time where a folder for that is named.
func profiled(t testing.TB, name string, f func()) {
	dir := os.Getenv("SCALE_PROFILES")
	if dir == "" {
		f()
		return
	}
	out, err := os.Create(filepath.Join(dir, name+".pprof"))
	if err == nil {
		err = pprof.StartCPUProfile(out)
	}
	if err != nil {
		t.Error(err)
	}
	f()
	pprof.StopCPUProfile()
	if err := out.Close(); err != nil {
		t.Error(err)
	}
}

// allocations measures how soon what is free is offered.
func (s *scale) allocations() {
	runs := 20
	if s.small {
		runs = 2
	}
	fw := s.fws[0]
	arrived := make(chan []*mesos.Offer, 1024)
	fw.take(func(offers []*mesos.Offer) { arrived <- offers })

	// One framework revives: it is offered every agent.
	var revive, alloc spread
	for range runs {
		begun := time.Now()
		s.must(fw.call(fw.revive()))
		var all []*mesos.Offer
		for len(all) < *agents {
			all = append(all, <-arrived...)
		}
		revive = append(revive, time.Since(begun))
		alloc = append(alloc, time.Duration(s.site.metric("allocator/mesos/allocation_run_ms")*1e6))
		s.must(fw.call(decline(all, never)))
	}
	s.row("allocation after one framework revives", alloc.String(), "")
	s.row("REVIVE until all agents are offered", revive.String(), "")

	// One agent has more free than was refused: a task ends.
	var freed spread
	alloc = nil
	for i := range runs {
		a := s.fleet.agents[i]
		key, ok := a.any()
		if !ok {
			s.t.Fatalf("agent %q has no task", a.id)
		}
		begun := time.Now()
		s.must(a.change(key, mesos.TaskState_TASK_FINISHED))
		offers := <-arrived
		freed = append(freed, time.Since(begun))
		alloc = append(alloc, time.Duration(s.site.metric("allocator/mesos/allocation_run_ms")*1e6))
		again := task(fmt.Sprintf("again-%d", i))
		s.must(fw.call(accept(offers[0], never, again)))
		eventually(s.t, "another task is launched in its place", func() bool { return a.runs(taskKey{fw.id, again.GetTaskId().GetValue()}) })
	}
	s.row("allocation after one agent's resources free up", alloc.String(), "")
	s.row("end of a task until its resources are offered", freed.String(), "")
	s.must(fw.call(fw.suppress()))
	eventually(s.t, "all updates are acknowledged", s.fleet.settled)
}

func (s *scale) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// accepts measures an ACCEPT on a quiet cluster.
func (s *scale) accepts() {
	rounds := 1000
	if s.small {
		rounds = 20
	}
	w := s.writer()
	answered, launched := w.rounds(rounds)
	w.close()
	s.row("ACCEPT until 202", answered.String(), "10 ms median")
	s.row("ACCEPT until the launch call is at the agent", launched.String(), "")
}

// writer is a framework that launches one task after the other, each of which ends at once.
type writer struct {
	s       *scale
	fw      *framework
	arrived chan []*mesos.Offer
	free    []*mesos.Offer
	n       int
}

var writers atomic.Int64

func (s *scale) writer() *writer {
	w := &writer{s: s, arrived: make(chan []*mesos.Offer, 4096)}
	name := fmt.Sprint("writer-", writers.Add(1))
	w.fw = subscribeAll(s.t, s.site.addr, wish{name: name, take: func(_ *framework, offers []*mesos.Offer) {
		w.arrived <- offers
	}})[0]
	return w
}

// rounds launches tasks and tells how long each took until it was accepted, and until it was at its agent.
func (w *writer) rounds(n int) (answered, launched spread) {
	for range n {
		a, l := w.round()
		answered, launched = append(answered, a), append(launched, l)
	}
	return answered, launched
}

func (w *writer) round() (answered, launched time.Duration) {
	s := w.s
	for len(w.free) == 0 {
		select {
		case offers := <-w.arrived:
			w.free = append(w.free, offers...)
		case <-time.After(patience):
			s.t.Fatal("no offers")
		}
	}
	offer := w.free[0]
	w.free = w.free[1:]
	w.n++
	id := fmt.Sprintf("%s-%d", w.fw.name, w.n)
	at := make(chan time.Time, 1)
	told := func(task string, t time.Time) {
		if task == id {
			at <- t
		}
	}
	s.fleet.launched.Store(&told)
	defer s.fleet.launched.Store(nil)
	call := accept(offer, 0, task(id))
	begun := time.Now()
	s.must(w.fw.call(call))
	answered = time.Since(begun)
	launched = (<-at).Sub(begun)
	// It ends once it runs for all that the framework knows.
	a := s.fleet.byID[offer.GetAgentId().GetValue()]
	key := taskKey{w.fw.id, id}
	eventually(s.t, "the task is acknowledged", func() bool { return a.runs(key) })
	s.must(a.change(key, mesos.TaskState_TASK_FINISHED))
	eventually(s.t, "the task is gone", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.tasks[key] == nil
	})
	return answered, launched
}

// hold keeps the offers that have come, as far as they are wanted, and takes no further ones.
func (w *writer) hold(wanted func(*mesos.Offer) bool) {
	for more := true; more; {
		select {
		case offers := <-w.arrived:
			w.free = append(w.free, offers...)
		default:
			more = false
		}
	}
	w.fw.take(nil)
	w.free = slices.DeleteFunc(w.free, func(o *mesos.Offer) bool { return !wanted(o) })
}

func (w *writer) close() {
	w.fw.close()
}

// readers measures /state while tasks change, and what that does to those who launch.
func (s *scale) readers() {
	pollers, changes, span := 20, 200, 20*time.Second
	if s.small {
		pollers, changes, span = 4, 50, time.Second
	}
	w := s.writer()
	defer w.close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(changes))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			a := s.fleet.agents[i*7919%len(s.fleet.agents)]
			if key, ok := a.any(); ok && key.framework != w.fw.id {
				if err := a.change(key, mesos.TaskState_TASK_RUNNING); err != nil {
					s.t.Error(err)
				}
			}
		}
	})
	alone, _ := w.rounds(max(*agents/50, 10))
	s.row(fmt.Sprintf("ACCEPT until 202, %d task changes a second", changes), alone.String(), "10 ms median")
	var mu sync.Mutex
	var reads spread
	var size atomic.Int64
	for range pollers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				took, n, err := readState(s.site.addr)
				if err != nil {
					s.t.Error(err)
					return
				}
				size.Store(n)
				mu.Lock()
				reads = append(reads, took)
				mu.Unlock()
			}
		})
	}
	var beside spread
	profiled(s.t, "cpu-readers", func() {
		for until := time.Now().Add(span); time.Now().Before(until); {
			a, _ := w.round()
			beside = append(beside, a)
		}
	})
	close(stop)
	wg.Wait()
	s.row(fmt.Sprintf("/state, %d pollers, %d changes a second, %s packed", pollers, changes, mib(uint64(size.Load()))), reads.String(), "about 1 s (Mesos)")
	s.row("ACCEPT until 202 beside them", beside.String(), "10 ms median")
	s.memory("beside readers")
	eventually(s.t, "all updates are acknowledged", s.fleet.settled)
}

// failover has a second master that holds the same mesh take over.
func (s *scale) failover() {
	standby := serve(s.t, s.fleet, s.docs)
	eventually(s.t, "the standby has read the mesh", func() bool {
		values, err := standby.master.Metrics(s.t.Context())
		return err == nil && values["master/slaves_connected"] == float64(*agents)
	})
	var wishes []wish
	var once sync.Once
	var mu sync.Mutex
	held := make([][]*mesos.Offer, len(s.fws)) // what comes until declines is set; guarded by mu, as that is
	declines := false
	first := make(chan time.Time, 1)
	for i, fw := range s.fws {
		fw.closing.Store(true)
		wishes = append(wishes, wish{name: fw.name, id: fw.id, take: func(fw *framework, offers []*mesos.Offer) {
			once.Do(func() { first <- time.Now() })
			mu.Lock()
			keeps := !declines
			if keeps {
				held[i] = append(held[i], offers...)
			}
			mu.Unlock()
			if !keeps {
				fw.calls <- decline(offers, never)
			}
		}})
	}
	s.site.stop()
	for _, fw := range s.fws {
		fw.close()
	}
	s.fleet.reports.Wait()
	s.fleet.describes.Store(0)
	begun := time.Now()
	profiled(s.t, "cpu-failover", func() {
		standby.lead(2)
		s.site = standby
		s.row("elected until leading", ms(time.Since(begun)), "")
		done := make(chan []*framework)
		go func() { done <- subscribeAll(s.t, standby.addr, wishes...) }()
		s.fws = <-done
		s.row("elected until all frameworks are back", ms(time.Since(begun)), "")
		s.row("elected until the first offer", ms((<-first).Sub(begun)), "session timeout + 1 s; 4-5 s (Mesos)")
		offered := func() (n int64) {
			for _, fw := range s.fws {
				n += fw.offered.Load()
			}
			return n
		}
		eventually(s.t, "all agents are offered", func() bool { return offered() >= int64(*agents) })
		s.row("elected until all agents are offered", ms(time.Since(begun)), "")
		eventually(s.t, "all agents have described themselves", func() bool { return s.fleet.describes.Load() >= int64(*agents) })
		s.row("elected until all agents were asked to describe themselves", ms(time.Since(begun)), "")
	})
	s.row("longest allocation meanwhile", fmt.Sprintf("%.1f ms", s.site.metric("allocator/mesos/allocation_run_ms/max")), "1.1 s a cycle (Mesos)")
	s.memory("of the next leader")
	mu.Lock()
	declines = true
	mu.Unlock()
	for i, fw := range s.fws {
		s.must(fw.call(fw.suppress()))
		fw.calls <- decline(held[i], never)
	}
	s.unoffered()
}
