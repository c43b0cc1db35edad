//go:build linux

package dns_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/deploy/hosts"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
)

var (
	asked   = flag.Float64("asked", 3000, "the `rate` of questions beside which changes are measured")
	changed = flag.Float64("changed", 200, "the `rate` of changes")
)

// Budget: with 200 changes a second the 99th percentile of latency is at most twice that without, at 3,000 questions a second.
// What a change costs is that of the whole process: the mesh that brings it, its decoding, and the names.
func TestUpdates(t *testing.T) {
	if !*peers {
		t.Skip("measures for minutes; asked for by -peers")
	}
	precede(t)
	var b strings.Builder
	for _, tasks := range sizes(t) {
		t.Run(fmt.Sprint(tasks), func(t *testing.T) { b.WriteString(updates(t, tasks)) })
	}
	t.Logf("medians of %d turns of %v; load of the machine at the end %s\n%s", *rounds, *lasts, machineLoad(), b.String())
}

// updated is what was seen of one server.
type updated struct {
	calm, busy []figures
	// fresh is how long changes took from an agent to the answer, in order.
	fresh []time.Duration
}

func updates(t *testing.T, tasks int) string {
	c := newCluster(t, tasks)
	servers := []*server{c.starling(t, "starling", product(t))}
	if *beside != "" {
		servers = append(servers, c.starling(t, "beside", *beside))
	}
	questions := questionsFor("A", tasks)
	for i := range questions {
		questions[i].answers = 1 // some instances are away
	}
	seen := make([]updated, len(servers))
	changes := newChanges(c)
	for range *rounds {
		for i, s := range servers {
			f, _ := changes.turn(t, s, questions, 0)
			seen[i].calm = append(seen[i].calm, f)
			f, times := changes.turn(t, s, questions, *changed)
			seen[i].busy, seen[i].fresh = append(seen[i].busy, f), append(seen[i].fresh, times...)
		}
	}
	var b strings.Builder
	for i, s := range servers {
		fmt.Fprintf(&b, "%s, %d tasks, %.0f questions a second, %.1f MiB resident\n%s", s.name, tasks, *asked, s.resident(), seen[i].text(t))
	}
	return b.String()
}

// turn asks one server at a rate, while tasks change at another.
func (c *changes) turn(t *testing.T, s *server, questions []question, rate float64) (figures, []time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	var fresh []time.Duration
	if rate > 0 {
		wg.Go(func() { c.run(ctx, t, rate) })
		wg.Go(func() { fresh = c.watch(ctx, t, s.addr) })
	}
	ask := load{server: s.addr, questions: questions, sockets: 16, rate: *asked, lasts: time.Second, cpu: *loaderCPU}
	if _, err := ask.run(); err != nil { // until changes arrive at the rate at which they are made
		t.Fatal(err)
	}
	ask.lasts = *lasts
	before, applied := s.used(), s.counter(t, "task_updates_total")
	stop := s.record(t, fmt.Sprintf("changes%.0f", rate))
	o, err := ask.run()
	stop()
	used := s.used().since(before)
	applied = s.counter(t, "task_updates_total") - applied
	cancel()
	wg.Wait()
	if err == nil {
		err = o.wholly()
	}
	if err != nil {
		t.Fatal(err)
	}
	if rate > 0 && applied == 0 {
		t.Fatal("no change reached the names")
	}
	return figures{
		cpu: used.all.Seconds() * 1e6 / o.took.Seconds(), rate: applied / o.took.Seconds(),
		loss: float64(o.lost) / float64(o.sent), p50: o.latency.quantile(0.5), p99: o.latency.quantile(0.99),
	}, fresh
}

func (u *updated) text(t *testing.T) string {
	p99 := func(f figures) time.Duration { return f.p99 }
	cpu := func(f figures) float64 { return f.cpu }
	line := func(name string, list []figures) string {
		return fmt.Sprintf("%-14s median %v, 99%% %v, lost %.2f%%, %.1f%% of a processor\n", name,
			median(list, func(f figures) time.Duration { return f.p50 }).Round(time.Microsecond), median(list, p99).Round(time.Microsecond),
			100*median(list, func(f figures) float64 { return f.loss }), median(list, cpu)/1e4)
	}
	rate := median(u.busy, func(f figures) float64 { return f.rate })
	out := line("no changes", u.calm) + line(fmt.Sprintf("%.0f changes/s", rate), u.busy)
	out += fmt.Sprintf("the 99th percentile is %.2f times that without changes; a change costs %.0f us in the whole process\n",
		float64(median(u.busy, p99))/float64(median(u.calm, p99)), (median(u.busy, cpu)-median(u.calm, cpu))/rate)
	if len(u.fresh) == 0 {
		t.Fatal("no change was seen from its beginning to its end")
	}
	slices.Sort(u.fresh)
	return out + fmt.Sprintf("from the change at an agent to the answer elsewhere: median %v, 99%% %v of %d\n",
		u.fresh[len(u.fresh)/2].Round(100*time.Microsecond), u.fresh[len(u.fresh)*99/100].Round(100*time.Microsecond), len(u.fresh))
}

// counter is one of the server's metrics, by the end of its name; the first where several end so.
func (s *server) counter(t *testing.T, name string) float64 {
	t.Helper()
	_, body, err := hosts.Request("GET", s.http+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(body, "\n") {
		if key, value, _ := strings.Cut(line, " "); strings.HasSuffix(key, name) && !strings.HasPrefix(key, "#") {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric ends in %s", name)
	return 0
}

// changes ends tasks and brings them back, a hundred changes later.
type changes struct {
	*cluster
	random *rand.Rand
	away   [][2]int // agent, app
}

func newChanges(c *cluster) *changes {
	return &changes{cluster: c, random: rand.New(rand.NewPCG(3, 4))}
}

// run makes changes at a rate until ctx ends, each at another agent than the last.
func (c *changes) run(ctx context.Context, t *testing.T, rate float64) {
	ticker := time.NewTicker(time.Duration(1e9 / rate))
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if len(c.away) >= 100 && n%2 == 0 {
			at := c.away[0]
			c.away = c.away[1:]
			c.agents[at[0]].Set(c.change(t, at[0], at[1], true))
			continue
		}
		at := [2]int{n / 2 % agents, c.random.IntN(c.tasks / instances)}
		if slices.Contains(c.away, at) {
			continue
		}
		c.away = append(c.away, at)
		c.agents[at[0]].Set(c.change(t, at[0], at[1], false))
	}
}

// watch starts and ends one task of its own, again and again until ctx ends, and tells how long each took to be seen in the answers
// of another node.
func (c *cluster) watch(ctx context.Context, t *testing.T, addr netip.AddrPort) (times []time.Duration) {
	const name = "canary"
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	task := summary(0, 0)
	task.TaskId, task.Name, task.Discovery.Name = name, name, name
	q := newQuestion(name+".marathon."+domain, 1, false, 0, 1)
	for runs := true; ctx.Err() == nil || !runs; runs = !runs {
		task.State = int32(mesos.TaskState_TASK_FINISHED)
		if runs {
			task.State = int32(mesos.TaskState_TASK_RUNNING)
		}
		begin := time.Now()
		c.agents[0].Set(record.Assignment{Key: catalog.TaskKey(framework, name), Value: encode(t, task)})
		for exists(conn, q) != runs {
			if time.Since(begin) > 5*time.Second {
				t.Errorf("the answers do not show within 5 s that the task runs: %t", runs)
				return times
			}
			time.Sleep(200 * time.Microsecond) // the pace of asking
		}
		times = append(times, time.Since(begin))
	}
	return times
}

// exists tells whether a name has addresses. No answer is none.
func exists(conn *net.UDPConn, q question) bool {
	var buf [maxAnswer]byte
	_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := conn.Write(q.packet); err != nil {
		return false
	}
	n, err := conn.Read(buf[:])
	return err == nil && n >= 12 && buf[3]&0xf == 0 && buf[7] > 0
}
