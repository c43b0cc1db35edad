// Package apps_test measures Marathon with many apps on a simulated master: see TestApps.
package apps_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/api"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos/server"
	"starling/master/store/boltstore"
)

var (
	apps  = flag.Int("apps", 100, "how many apps there are; with 1,000 and more the figures are told")
	each  = flag.Int("each", 4, "how many instances each of them has")
	nodes = flag.Int("nodes", 20, "how many agents are simulated")
)

const (
	groupSize = 100
	patience  = 10 * time.Minute
)

// TestApps runs a Marathon with its HTTP API and its state in a file, at a simulated master whose agents start nothing. In
// the small it proves that all is launched and found again by the next leader; in the large it prints what was measured:
//
//	go test ./deploy/bench/apps -v -apps 5000 -nodes 200 -timeout 20m
//
// Launches a second are those of the whole way: definitions over HTTP, plans, documents on disk, offers, launches, status
// updates and their acknowledgements, of Marathon and of the simulated master together in one process.
func TestApps(t *testing.T) {
	s := newSite(t, *nodes, *apps**each / *nodes * 2 + 20)
	s.start()
	total := *apps * *each
	begun, used := time.Now(), cpu()
	for first := 0; first < *apps; first += groupSize {
		var list []string
		for n := first; n < min(first+groupSize, *apps); n++ {
			list = append(list, definition(fmt.Sprintf("app-%d", n), *each))
		}
		s.do("PUT", fmt.Sprintf("/v2/groups/g%d", first/groupSize), `{"apps":[`+strings.Join(list, ",")+`]}`)
	}
	asked := time.Since(begun)
	s.await(total)
	took := time.Since(begun)
	used = cpu() - used
	s.tell("%d apps with %d tasks on %d nodes: asked for in %.1f s, all running and deployed after %.1f s, %.0f launches/s; %.1f s of CPU, %.2f ms a launch",
		*apps, total, *nodes, asked.Seconds(), took.Seconds(), float64(total)/took.Seconds(), used.Seconds(), used.Seconds()*1000/float64(total))

	for _, path := range []string{"/v2/apps?embed=apps.tasks", "/v2/apps", "/v2/tasks", "/v2/groups?embed=group.groups&embed=group.apps", "/v2/queue", "/metrics"} {
		var times []time.Duration
		size := 0
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		used := cpu()
		for range 5 {
			begun := time.Now()
			size = len(s.do("GET", path, ""))
			times = append(times, time.Since(begun))
		}
		runtime.ReadMemStats(&after)
		used = (cpu() - used) / 5
		slices.Sort(times)
		s.tell("GET %s: %d ms, %d ms of CPU, %.1f MB, %d allocations (the client's included)", path, times[2].Milliseconds(), used.Milliseconds(),
			float64(size)/1e6, (after.Mallocs-before.Mallocs)/5)
	}
	begun = time.Now()
	s.do("PUT", "/v2/apps/g0/app-0", fmt.Sprintf(`{"instances":%d}`, *each+10))
	s.await(total + 10)
	s.tell("10 more of one app: %d ms", time.Since(begun).Milliseconds())
	with := heap()

	s.stop()
	begun, used = time.Now(), cpu()
	s.start()
	ready := time.Since(begun)
	s.do("PUT", "/v2/apps/g0/app-0", fmt.Sprintf(`{"instances":%d}`, *each))
	s.await(total)
	s.tell("the next leader: answers after %d ms, has scaled an app after %d ms (%d ms of CPU)", ready.Milliseconds(), time.Since(begun).Milliseconds(),
		(cpu() - used).Milliseconds())
	if twice := s.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
	s.stop()
	s.tell("heap in use: %.0f MB, of which Marathon's %.0f MB", float64(with)/1e6, float64(with-heap())/1e6)
}

// TestFiveHundred has 500 instances on 20 nodes: of one app, and of as many apps.
func TestFiveHundred(t *testing.T) {
	n := 500
	if *apps < 1000 {
		n = 50
	}
	for _, tt := range []struct{ apps, each int }{{1, n}, {n, 1}} {
		s := newSite(t, 20, 200)
		s.start()
		var list []string
		for i := range tt.apps {
			list = append(list, definition(fmt.Sprintf("app-%d", i), tt.each))
		}
		begun := time.Now()
		s.do("PUT", "/v2/groups/g", `{"apps":[`+strings.Join(list, ",")+`]}`)
		s.await(n)
		s.tell("%d apps with %d instances each on 20 nodes: %d ms", tt.apps, tt.each, time.Since(begun).Milliseconds())
		begun = time.Now()
		s.do("PUT", "/v2/groups/g", `{"scaleBy":0}`)
		s.await(0)
		s.tell("... and to none: %d ms", time.Since(begun).Milliseconds())
		s.stop()
	}
}

func definition(id string, instances int) string {
	return fmt.Sprintf(`{"id":%q,"cmd":"exec serve --port $PORT0","cpus":0.1,"mem":32,"instances":%d,"env":{"MODE":"production","REGION":"west"},
		"labels":{"team":"shop","tier":"front"},"portDefinitions":[{"name":"http","port":0}],"healthChecks":[{"protocol":"MESOS_HTTP","path":"/health"}]}`, id, instances)
}

type site struct {
	t       *testing.T
	cluster *mastertest.Cluster
	master  *mastertest.Server
	path    string
	m       *marathon.Marathon
	url     string
	stop    func()
}

func newSite(t *testing.T, nodes, room int) *site {
	s := &site{t: t, cluster: mastertest.New(nil), path: filepath.Join(t.TempDir(), "marathon.db")}
	s.cluster.AlwaysHealthy()
	s.master = mastertest.NewServer(t, s.cluster)
	for n := range nodes {
		s.cluster.Add(mastertest.Agent{
			ID: fmt.Sprintf("agent-%d", n), Host: fmt.Sprintf("node-%d", n), CPUs: float64(room) / 10, Mem: float64(room) * 32, Disk: 1 << 20,
			FirstPort: 31000, LastPort: 31000 + uint64(room) - 1,
		})
	}
	return s
}

func (s *site) tell(format string, args ...any) {
	if *apps >= 1000 {
		s.t.Logf(format, args...)
	}
}

func (s *site) start() {
	s.t.Helper()
	documents, err := boltstore.Open(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	c := marathon.DefaultConfig()
	c.Masters, c.Hostname, c.Address, c.User = []string{s.master.Address()}, "here", ln.Addr().String(), "nobody"
	c.Store, c.Log = documents, slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	if s.m, err = marathon.New(c); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	m := s.m
	go func() { ended <- m.Run(ctx) }()
	go func() {
		ended <- server.Serve(ctx, api.New(api.Config{Marathon: m, Log: c.Log}), ln)
	}()
	s.url = "http://" + ln.Addr().String()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				s.t.Errorf("ended with %v", err)
			}
		}
		if err := documents.Close(); err != nil {
			s.t.Error(err)
		}
		s.m = nil
	}
	s.t.Cleanup(s.stop)
	s.until("ready", m.Ready)
}

func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-deadline:
			s.t.Fatalf("not in time: %s", what)
		}
	}
}

// await waits until so many tasks run, as Marathon knows, and no deployment does.
func (s *site) await(tasks int) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d tasks run, and no deployment", tasks), func() bool {
		done := false
		if err := s.m.Read(func(v scheduler.View, now time.Time) {
			done = len(v.Deployments()) == 0 && v.Counts(now).Running == tasks
		}); err != nil {
			s.t.Fatal(err)
		}
		return done
	})
}

func (s *site) do(method, path, body string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	var answer bytes.Buffer
	if _, err := io.Copy(&answer, res.Body); err != nil {
		s.t.Fatal(err)
	}
	if res.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, answer.String())
	}
	return answer.String()
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
