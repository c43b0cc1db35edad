// Package scale_test measures the real master with many simulated agents: see TestScale.
package scale_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/master/mastertest"
)

var (
	agents     = flag.Int("agents", 200, "how many agents are simulated; with 1,000 and more the figures are told")
	frameworks = flag.Int("frameworks", 10, "how many frameworks are subscribed")
	tasks      = flag.Int("tasks", 5, "how many tasks run on each agent")
	only       = flag.String("only", "", "names of the phases to run, with commas between; empty runs all")
)

// TestScale runs a master with its whole HTTP API, many frameworks at it, and many agents that are simulated: each has a
// record in the master's mesh and speaks the node protocol over HTTP, but starts nothing. In the small it proves that all is
// launched, the lists agree and nothing is missing in /state, and times nothing; in the large it prints what the project
// promises beside what was measured:
//
//	go test ./deploy/bench/scale -v -agents 10000 -tasks 10 -frameworks 100 -timeout 20m
//
// Master, agents and frameworks share one process: the memory told is that of all of them, or what the master added.
func TestScale(t *testing.T) {
	s := &scale{t: t, small: *agents < 1000, docs: mastertest.NewStore()}
	s.empty = s.heap()
	s.fleet = newFleet(t, mastertest.NewMesh(mastertest.MasterID), *agents)
	s.simulated = s.heap()
	s.site = serve(t, s.fleet, s.docs)
	s.site.lead(1)

	s.fill()
	s.memory("after all launches")
	s.correct()
	for _, phase := range []struct {
		name string
		run  func()
	}{
		{"allocations", s.allocations},
		{"accepts", s.accepts},
		{"readers", s.readers},
		{"crowd", s.crowd},
		{"decliner", s.decliner},
		{"failover", s.failover},
		{"herd", s.herd},
		{"mutes", s.mutes},
	} {
		if *only == "" || slices.Contains(strings.Split(*only, ","), phase.name) {
			phase.run()
			s.correct()
		}
	}
	s.tell()
}

// scale is a run.
type scale struct {
	t     testing.TB
	small bool
	docs  *mastertest.Store
	fleet *fleet
	site  *site
	fws   []*framework
	rows  [][3]string
	// empty and simulated are the bytes of live objects before there were agents, and before there was a master.
	empty, simulated uint64
}

func (s *scale) row(what, measured, promised string) {
	s.rows = append(s.rows, [3]string{what, measured, promised})
	if !s.small {
		fmt.Fprintf(os.Stderr, "%s  %-66s %-52s %s\n", time.Now().Format("15:04:05"), what, measured, promised)
	}
}

func (s *scale) tell() {
	if s.small {
		return
	}
	var b strings.Builder
	for _, r := range s.rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r[0], r[1], r[2])
	}
	fmt.Printf("%d agents, %d tasks, %d frameworks, %d cores\n| what | measured | promised, or published |\n| --- | --- | --- |\n%s",
		*agents, *agents**tasks, *frameworks, runtime.NumCPU(), b.String())
}

func (s *scale) names() []string {
	out := make([]string, *frameworks)
	for i := range out {
		out[i] = fmt.Sprintf("fw-%04d", i)
	}
	return out
}

// fill subscribes all frameworks and has them launch all tasks.
func (s *scale) fill() {
	begun := time.Now()
	var wishes []wish
	for _, name := range s.names() {
		wishes = append(wishes, wish{name: name})
	}
	s.fws = subscribeAll(s.t, s.site.addr, wishes...)
	s.row("frameworks subscribed", ms(time.Since(begun)), "")
	begun = time.Now()
	profiled(s.t, "cpu-fill", func() { populate(s.t, s.fleet, s.fws, *tasks) })
	took := time.Since(begun)
	s.row("all tasks launched, told to be running and acknowledged", fmt.Sprintf("%v, %.0f accepts/s, %.0f updates/s", ms(took),
		float64(*agents)/took.Seconds(), float64(*agents**tasks)/took.Seconds()), "")
	s.row("longest allocation meanwhile", fmt.Sprintf("%.1f ms", s.site.metric("allocator/mesos/allocation_run_ms/max")), "1.1 s a cycle (Mesos, 1,000 frameworks)")
}

// correct fails the test when anything is missing.
func (s *scale) correct() {
	s.t.Helper()
	if want := *agents * *tasks; int(s.fleet.tasks.Load()) != want {
		s.t.Errorf("%d tasks run, want %d", s.fleet.tasks.Load(), want)
	}
	if err := s.site.complete(s.fleet); err != nil {
		s.t.Error(err)
	}
}

// heap returns the bytes of live objects.
func (s *scale) heap() uint64 {
	if s.small {
		return 0
	}
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (s *scale) memory(when string) {
	if s.small {
		return
	}
	peak := resident("VmHWM")
	heap := s.heap()
	s.row("memory "+when, fmt.Sprintf("master %s live, agents and their records %s; process %s resident, %s at most", mib(heap-s.simulated), mib(s.simulated-s.empty),
		mib(resident("VmRSS")), mib(peak)), "1 GiB resident")
	profile(s.t, "heap", "heap-"+strings.ReplaceAll(when, " ", "-"))
}

// resident reads one number of /proc/self/status, in bytes.
func resident(name string) uint64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		var kib uint64
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if _, err := fmt.Sscan(rest, &kib); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

func mib(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }

func ms(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// spread is the latencies of many.
type spread []time.Duration

func (s spread) at(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (s spread) String() string {
	return fmt.Sprintf("median %s, p99 %s, n %d", ms(s.at(0.5)), ms(s.at(0.99)), len(s))
}
