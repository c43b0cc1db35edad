//go:build linux

// Package dns_test measures the product's DNS server beside NSD, Unbound and Knot with the same zone, in turns in one run, on one
// processor each time. It is no part of the suite:
//
//	go test ./deploy/bench/dns -run 'Peers|Updates' -peers -v -timeout 20m
//
// The server under test runs on one processor, the loader on another. CPU an answer is user and system time of the server's
// processes, told by the system's scheduler, divided by right answers; it holds up best on a machine that does other work as well.
package dns_test

import (
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	peers     = flag.Bool("peers", false, "measure; without it only the loader is tested")
	zones     = flag.String("zones", "1000,10000", "the `numbers` of tasks")
	rounds    = flag.Int("rounds", 3, "how often each server has its turn; the tables show medians")
	lasts     = flag.Duration("lasts", time.Second, "how long each turn is")
	pace      = flag.Float64("pace", 20_000, "the moderate `rate`, in questions a second, at which latency is measured")
	only      = flag.String("only", "starling,nsd,nsd-minimal,unbound,knot", "the `servers`")
	serverCPU = flag.Int("server-cpu", 1, "the `processor` of the servers")
	loaderCPU = flag.Int("loader-cpu", 0, "the `processor` of the loader")
	first     = flag.Bool("first", false, "let servers and loader run before all else on the machine, which then stands nearly still; needs root")
	given     = flag.String("binary", "", "a `program` to measure in place of one that is built now")
	beside    = flag.String("beside", "", "another build of the `program`, to be measured in the same run")
	profile   = flag.String("profile", "", "a `folder` for what perf records of starling under load")
)

// scratch is a folder for as long as the tests run.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	if *peers && os.Getuid() == 0 && os.Getenv(alone) == "" {
		os.Exit(again())
	}
	dir, err := os.MkdirTemp("", "starling-bench-dns-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// alone tells a process that it has a network of its own.
const alone = "STARLING_BENCH_ALONE"

// again runs this program in a network of its own: no filter of the machine's firewall costs time there, no port is taken, and
// nobody else's traffic is in the way.
func again() int {
	c := exec.Command("/bin/sh", append([]string{"-c", "ip link set lo up && exec \"$@\"", "sh", ""}, os.Args[1:]...)...)
	c.Args[4], _ = os.Executable()
	c.Env = append(os.Environ(), alone+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setsid: true}
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var loopback = netip.MustParseAddr("127.0.0.1")

// server is one that is measured.
type server struct {
	*process
	name string
	addr netip.AddrPort
	http string // starling's HTTP API
}

// questionsFor are those of one kind over all tasks of a zone.
func questionsFor(kind string, tasks int) []question {
	var all []question
	for n := range tasks / instances {
		clean := strings.ReplaceAll(app(n), ".", "-")
		switch kind {
		case "A":
			all = append(all, newQuestion(clean+".marathon."+domain, 1, false, 0, instances))
			all = append(all, newQuestion(app(n)+".marathon.slave."+domain, 1, false, 0, instances))
		case "SRV":
			all = append(all, newQuestion("_"+clean+"._tcp.marathon."+domain, 33, true, 0, instances))
		case "NXDOMAIN":
			all = append(all, newQuestion(fmt.Sprintf("nobody-%d.marathon.%s", n, domain), 1, false, 3, 0))
		}
	}
	return all
}

var kinds = []string{"A", "SRV", "NXDOMAIN"}

// cell names one figure of the tables.
type cell struct {
	tasks        int
	kind, server string
}

// figures are those of one turn.
type figures struct {
	cpu, user, rate, loss, size float64 // microseconds an answer, microseconds an answer, answers a second, share, bytes
	paced, pacedLoss            float64
	p50, p99                    time.Duration
	// As dnsperf sees it, in the first turn; 0 where that is not installed.
	perfCPU, perfRate float64
}

func median[T cmp.Ordered](list []figures, of func(figures) T) T {
	var values []T
	for _, f := range list {
		values = append(values, of(f))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func TestPeers(t *testing.T) {
	if !*peers {
		t.Skip("measures for minutes; asked for by -peers")
	}
	precede(t)
	names := strings.Split(*only, ",")
	if *beside != "" {
		names = append(names, "beside")
	}
	results, memory := map[cell][]figures{}, map[cell]float64{}
	for _, tasks := range sizes(t) {
		t.Run(fmt.Sprint(tasks), func(t *testing.T) { measure(t, tasks, names, results, memory) })
	}
	var b strings.Builder
	for _, tasks := range sizes(t) {
		for _, kind := range kinds {
			fmt.Fprintf(&b, "%d tasks, %s\n%-12s %9s %8s %10s %7s %7s | at %6.0f/s: %6s %9s %9s %7s | dnsperf: %6s %10s | %s\n", tasks, kind, "",
				"us/answer", "of user", "answers/s", "lost", "bytes", *pace, "us", "median", "99%", "lost", "us", "answers/s", "MiB")
			for _, name := range names {
				list := results[cell{tasks, kind, name}]
				if len(list) == 0 {
					continue
				}
				float := func(of func(figures) float64) float64 { return median(list, of) }
				fmt.Fprintf(&b, "%-12s %9.2f %8.2f %10.0f %6.2f%% %7.0f | %18.2f %9v %9v %6.2f%% | %15.2f %10.0f | %.1f\n", name,
					float(func(f figures) float64 { return f.cpu }), float(func(f figures) float64 { return f.user }),
					float(func(f figures) float64 { return f.rate }), 100*float(func(f figures) float64 { return f.loss }),
					float(func(f figures) float64 { return f.size }), float(func(f figures) float64 { return f.paced }),
					median(list, func(f figures) time.Duration { return f.p50 }).Round(time.Microsecond),
					median(list, func(f figures) time.Duration { return f.p99 }).Round(time.Microsecond),
					100*float(func(f figures) float64 { return f.pacedLoss }), list[0].perfCPU,
					list[0].perfRate, memory[cell{tasks, "", name}])
			}
		}
	}
	t.Logf("medians of %d turns of %v; load of the machine at the end %s\n%s", *rounds, *lasts, machineLoad(), b.String())
}

// precede lets the test run before all other sessions where -first asks for that: the system shares a processor among those first,
// whatever the niceness of one process.
func precede(t *testing.T) {
	t.Helper()
	if !*first {
		return
	}
	if err := os.WriteFile("/proc/self/autogroup", []byte("-20"), 0); err != nil {
		t.Fatalf("-first: %v", err)
	}
}

// sizes are the numbers of tasks to measure with.
func sizes(t *testing.T) (list []int) {
	for s := range strings.SplitSeq(*zones, ",") {
		var n int
		if _, err := fmt.Sscan(s, &n); err != nil || n%(agents*instances) != 0 || n > 10000 {
			t.Fatalf("-zones: %q is no multiple of 100 up to 10,000", s)
		}
		list = append(list, n)
	}
	return list
}

func machineLoad() string {
	load, _ := os.ReadFile("/proc/loadavg")
	return strings.TrimSpace(string(load))
}

// product is the program to measure.
func product(t *testing.T) string {
	if *given != "" {
		return *given
	}
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// measure gives each server its turns with a zone of a size.
func measure(t *testing.T, tasks int, names []string, results map[cell][]figures, memory map[cell]float64) {
	c := newCluster(t, tasks)
	zone := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(zone, []byte(c.text(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	var servers []*server
	for _, name := range names {
		var s *server
		switch name {
		case "starling":
			s = c.starling(t, name, product(t))
		case "beside":
			s = c.starling(t, name, *beside)
		default:
			s = peer(t, name, zone)
		}
		if s != nil {
			servers = append(servers, s)
		}
	}
	for round := range *rounds {
		for _, kind := range kinds {
			questions := questionsFor(kind, tasks)
			for i := range servers {
				// Whoever is first in one round is last in another.
				s := servers[(i+round)%len(servers)]
				at := cell{tasks, kind, s.name}
				results[at] = append(results[at], turn(t, s, kind, questions, round == 0))
			}
		}
	}
	for _, s := range servers {
		memory[cell{tasks, "", s.name}] = s.resident()
	}
}
