package hosts

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	gossipapi "starling/gossip/api"
)

// notes are what was seen first when: by what was seen. Several goroutines write to them.
type notes struct {
	mu   sync.Mutex // guards when
	when map[string]time.Time
}

func (n *notes) add(what string, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.when == nil {
		n.when = map[string]time.Time{}
	}
	if _, known := n.when[what]; !known {
		n.when[what] = at
	}
}

func (n *notes) get(what string) (time.Time, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok := n.when[what]
	return at, ok
}

// until runs f until the end of the test, and fails the test when it ends with an error before.
func until(t *testing.T, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		defer cancel()
		select {
		case err := <-done:
			t.Errorf("it ended before the test: %v", err)
		default:
			cancel()
			<-done
		}
	})
}

// followMesh notes when the agent's copy of the mesh says which task is in which state: "up ID" when it runs, and is healthy if it is
// checked, "sick ID", "down ID". It returns once it follows.
func (a *Agent) followMesh(t *testing.T) *notes {
	t.Helper()
	n, begun := &notes{}, make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	until(t, func(ctx context.Context) error {
		defer begin() // also where it comes to nothing
		client := &http.Client{Transport: &http.Transport{DialContext: a.Host.Dial, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url("/mesh/watch"), nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e gossipapi.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return fmt.Errorf("watch: %w: %s", err, lines.Bytes())
			}
			id := e.Key[strings.LastIndexByte(e.Key, '/')+1:]
			switch {
			case e.What == gossipapi.Begin:
				begin()
			case e.What == gossipapi.Lagged:
				return errors.New("watch: lagged")
			case !strings.HasPrefix(e.Key, "task/"):
			case e.What == gossipapi.Set && strings.HasPrefix(e.Summary, "TASK_RUNNING unhealthy "):
				n.add("sick "+id, e.Time)
			case e.What == gossipapi.Set && (strings.HasPrefix(e.Summary, "TASK_RUNNING healthy ") || strings.HasPrefix(e.Summary, "TASK_RUNNING plain ")):
				n.add("up "+id, e.Time)
			case e.What == gossipapi.Delete, e.What == gossipapi.Set && !strings.HasPrefix(e.Summary, "TASK_STA"):
				n.add("down "+id, e.Time)
			}
		}
		return lines.Err()
	})
	<-begun
	return n
}

// followNames notes when the agent's DNS server answers with which ports of an app: "up PORT", and "down PORT" once it does so no more.
func (a *Agent) followNames(t *testing.T, n *notes, app string, pace time.Duration) {
	t.Helper()
	from := a.Host.asker(a.Host.at(53))
	until(t, func(ctx context.Context) error {
		var before []string
		for ctx.Err() == nil {
			got, err := from.ask("_"+app+"._tcp.marathon.mesos.", dnsmessage.TypeSRV)
			if err != nil {
				return fmt.Errorf("DNS of %s: %w", a.name, err)
			}
			now := time.Now()
			if got.Truncated {
				return errors.New("too many tasks for one answer")
			}
			var ports []string
			for _, target := range got.answers {
				ports = append(ports, strings.Fields(target)[1])
			}
			for _, p := range ports {
				if !slices.Contains(before, p) {
					n.add("up "+p, now)
				}
			}
			for _, p := range before {
				if !slices.Contains(ports, p) {
					n.add("down "+p, now)
				}
			}
			before = ports
			<-time.After(pace) // of asking, not a wait for a result
		}
		return ctx.Err()
	})
}

// spread says of many durations what their middle, their 99th percentile and their largest is.
type spread []time.Duration

func (s spread) at(part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}

func (s spread) String() string {
	if len(s) == 0 {
		return "none"
	}
	r := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }
	return fmt.Sprintf("median %s ms, 99%% %s ms, at most %s ms (%d)", r(s.at(0.5)), r(s.at(0.99)), r(s.at(1)), len(s))
}

// freshness is what runs on one agent of a flock, and what that one and some others noted of it.
type freshness struct {
	*Cluster
	owner *Agent
	all   []*Agent // the owner is the first
	// mesh and names are what was noted by each, ports those of all tasks that ever were.
	mesh, names map[*Agent]*notes
	ports       map[string]string
}

// tasks waits until an app has so many running tasks, none of which is one of those named, and notes their ports.
func (f *freshness) tasks(app string, instances int, but ...string) []string {
	f.t.Helper()
	var ids []string
	Eventually(f.t, 60*time.Second, app+" is whole again", func() error {
		ids = nil
		a, err := f.App(app)
		if err != nil {
			return err
		}
		for _, task := range a.Tasks {
			if task.State != "TASK_RUNNING" || slices.Contains(but, task.ID) {
				return fmt.Errorf("there is %v", task)
			}
			ids, f.ports[task.ID] = append(ids, task.ID), fmt.Sprint(task.Ports[0])
		}
		if len(ids) != instances {
			return fmt.Errorf("there are %v", ids)
		}
		return nil
	})
	return ids
}

// becomes is what happens to a name when its task is in a state.
func becomes(what string) string {
	if what == "up" {
		return "up"
	}
	return "down"
}

// seen waits until everybody has noted a state of tasks.
func (f *freshness) seen(what string, ids ...string) {
	f.t.Helper()
	Eventually(f.t, 30*time.Second, fmt.Sprintf("all have noted %q of %v", what, ids), func() error {
		for _, id := range ids {
			for _, a := range f.all {
				if _, ok := f.mesh[a].get(what + " " + id); !ok {
					return fmt.Errorf("the mesh of %s has not %s", a.name, id)
				}
				if _, ok := f.names[a].get(becomes(what) + " " + f.ports[id]); !ok {
					return fmt.Errorf("DNS of %s has not %s at port %s", a.name, id, f.ports[id])
				}
			}
		}
		return nil
	})
}

// tell tells how long it took until everybody knew of a state of tasks. Beside the rest of the suite the bars say that nothing waits
// for a timer of seconds; the figures are those of the long row.
func (f *freshness) tell(what string, ids []string) {
	f.t.Helper()
	var own, carried, dns, whole spread
	for _, id := range ids {
		began, _ := f.mesh[f.owner].get(what + " " + id)
		for _, a := range f.all {
			arrived, _ := f.mesh[a].get(what + " " + id)
			answered, _ := f.names[a].get(becomes(what) + " " + f.ports[id])
			if a == f.owner {
				own = append(own, answered.Sub(began))
				continue
			}
			carried, dns, whole = append(carried, arrived.Sub(began)), append(dns, answered.Sub(arrived)), append(whole, answered.Sub(began))
		}
	}
	f.t.Logf("%s, at the same node: %v", what, own)
	f.t.Logf("%s, at others: %v", what, whole)
	f.t.Logf("%s, of that the mesh: %v", what, carried)
	f.t.Logf("%s, of that DNS: %v", what, dns)
	bars := [3]time.Duration{20 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second}
	if !*fullRows {
		bars = [3]time.Duration{time.Second, 3 * time.Second, 10 * time.Second} // the detector of races, and what else runs, are slow
	}
	within(f.t, what+": half of it at the same node", own.at(0.5), bars[0])
	within(f.t, what+": half of it at others", whole.at(0.5), bars[1])
	within(f.t, what+": 99% of it at others", whole.at(0.99), bars[2])
}

// From the moment at which an agent knows that a task runs, is ill or has ended until DNS says so, at the same node and at others.
// What the mesh takes of that, and what DNS does, is told apart.
func TestNamesAreFresh(t *testing.T) {
	const instances = 6
	// Eight of them ask all the time: in the short row no faster than its bars need, as others want the machine too.
	r, pace := size(t, row{hosts: 5, lasts: 10 * time.Second}, row{hosts: 20, lasts: time.Minute}), 25*time.Millisecond
	if *fullRows {
		pace = time.Millisecond
	}
	flock, c := NewFlockWithTasks(t, r.hosts)
	Agree(t, time.Minute, flock.Agents...)
	f := &freshness{Cluster: c, owner: flock.Agents[0], mesh: map[*Agent]*notes{}, names: map[*Agent]*notes{}, ports: map[string]string{}}
	f.all = []*Agent{f.owner, flock.Agents[1], flock.Agents[r.hosts/2], flock.Agents[r.hosts-1]}
	for _, a := range f.all {
		f.mesh[a], f.names[a] = a.followMesh(t), &notes{}
		a.followNames(t, f.names[a], "plain", pace)
		a.followNames(t, f.names[a], "checked", pace)
	}
	hospital := t.TempDir()
	c.ProbeApp("/plain", instances, onlyOn(f.owner), `{"backoffFactor":1}`)
	c.ProbeApp("/checked", instances, onlyOn(f.owner), fmt.Sprintf(`{"backoffFactor":1,"healthChecks":[{"protocol":"COMMAND","delaySeconds":0,
		"command":{"value":"test ! -e %s/$MESOS_TASK_ID"},"intervalSeconds":1,"timeoutSeconds":5,"gracePeriodSeconds":0,"maxConsecutiveFailures":0}]}`, hospital))
	plain, checked := f.tasks("/plain", instances), f.tasks("/checked", instances)
	up := slices.Concat(plain, checked)
	f.seen("up", up...)
	var ill, down []string
	deadline := time.Now().Add(r.lasts)
	for round := 0; time.Now().Before(deadline) || round < 2; round++ {
		// Half of the ones die, half of the others fall ill, and die of that later.
		victims, patients := plain[:instances/2], checked[:instances/2]
		pids := c.pidsOf(slices.Concat(victims, patients)...)
		for i := range victims {
			if err := os.WriteFile(filepath.Join(hospital, patients[i]), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			killProcess(t, pids[victims[i]])
		}
		f.seen("down", victims...)
		f.seen("sick", patients...)
		for _, id := range patients {
			killProcess(t, pids[id])
		}
		down, ill = append(down, victims...), append(ill, patients...)
		plain, checked = f.tasks("/plain", instances, victims...), f.tasks("/checked", instances, patients...)
		for _, id := range slices.Concat(plain, checked) {
			if !slices.Contains(up, id) {
				up = append(up, id)
			}
		}
		f.seen("up", up...)
	}
	t.Logf("of %d nodes", r.hosts)
	f.tell("up", up)
	f.tell("sick", ill)
	f.tell("down", down)
}
