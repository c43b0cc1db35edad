package hosts

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// The rows of the fault matrix that take long. Without the flag each runs on fewer hosts and for a shorter time.
var fullRows = flag.Bool("faults", false, "run the long rows of the fault matrix on all their hosts and for their whole time")

// within tells how long something took, and fails where that is more than the bar of its row. Beside the rest of the suite, on a
// machine that others use too, three times the bar is let pass: how soon things happen is for the long rows to say.
func within(t testing.TB, what string, took, bar time.Duration) {
	t.Helper()
	t.Logf("%s after %v, the bar is %v", what, took.Round(10*time.Millisecond), bar)
	if !*fullRows {
		bar *= 3
	}
	if took > bar {
		t.Errorf("%s after %v, want %v at most", what, took, bar)
	}
}

// row is on how many hosts a fault is, and for how long.
type row struct {
	hosts int
	lasts time.Duration
}

// size picks the size of a row. Short ones run beside others.
func size(t *testing.T, short, full row) row {
	if *fullRows {
		return full
	}
	t.Parallel()
	return short
}

// noFalseDeath lets a fault last, and fails the test when one of the healthy agents holds another one of them for dead
// meanwhile, if only for a moment.
func noFalseDeath(t testing.TB, healthy []*Agent, fault func()) {
	t.Helper()
	known := map[string]string{}
	for _, a := range healthy {
		known[a.ID] = a.name
	}
	marks := markAll(healthy)
	During(t, healthy, alive(healthy), fault)
	for key, n := range countChanges(healthy, marks) {
		if known[key.Of] != "" {
			t.Errorf("%s changed its mind about the healthy %s %d times", known[key.By], known[key.Of], n)
		}
	}
}

// A fifth of all packets lost: nobody healthy is held for dead, an app is deployed in at most three times the time, and one of 1,000
// requests over the wire fails at most.
func TestFaultsFifthOfPacketsLost(t *testing.T) {
	r := size(t, row{5, 45 * time.Second}, row{20, 10 * time.Minute})
	l := newLossy(t, r)
	clean := l.deploy("/clean")
	l.lose(0.2, func() {
		asked, failed := l.ask(l.Hosts[0], l.c.Marathon+"/v2/apps/clean", func() {
			took := l.deploy("/lossy")
			t.Logf("%d tasks deployed in %v without loss, in %v with a fifth", 2*r.hosts, clean, took)
			// Some more, as one packet that has to be sent again thrice holds up a short deployment for seconds.
			slack := 5 * time.Second
			if !*fullRows {
				slack = 20 * time.Second // for what else the machine does
			}
			if took > 3*clean+slack {
				t.Errorf("the deployment took %v, want three times %v at most, give or take %v", took, clean, slack)
			}
			<-time.After(r.lasts - took)
		})
		t.Logf("over the wire %d of %d requests failed", failed, asked)
		most := 0.001 * float64(asked)
		if !*fullRows {
			most = max(most, 1) // of a few hundred one alone says nothing of one in a thousand
		}
		if float64(failed) > most {
			t.Errorf("%d of %d requests failed, want one of 1,000 at most", failed, asked)
		}
	})
}

// Two fifths of all packets lost: still nobody healthy is held for dead, and every agent answers those who can reach it. What needs a
// stream over such a wire takes as long as TCP takes, which pauses for up to half a minute and more between two attempts.
func TestFaultsTwoFifthsOfPacketsLost(t *testing.T) {
	r := size(t, row{5, 45 * time.Second}, row{20, 2 * time.Minute})
	l := newLossy(t, r)
	l.deploy("/clean")
	l.lose(0.4, func() { <-time.After(r.lasts) })
}

// lossyFlock is a flock with tasks whose wire loses packets.
type lossyFlock struct {
	*Flock
	c *Cluster
}

func newLossy(t *testing.T, r row) *lossyFlock {
	f, c := NewFlockWithTasks(t, r.hosts)
	Agree(t, time.Minute, f.Agents...)
	return &lossyFlock{f, c}
}

// deploy starts an app of two tasks for each host, and returns how long that took.
func (l *lossyFlock) deploy(app string) time.Duration {
	l.t.Helper()
	began := time.Now()
	l.c.ProbeApp(app, 2*len(l.Agents))
	l.c.Running(app, 2*len(l.Agents))
	return time.Since(began)
}

// lose has every host lose a part of all packets while f runs. No agent may be held for dead, no task may be harmed, and all must
// agree soon after.
func (l *lossyFlock) lose(part float64, f func()) {
	t := l.t
	before := l.c.Answers(l.c.Running("/clean", 2*len(l.Agents)))
	for _, h := range l.Hosts {
		h.Lose(part, "all")
	}
	noFalseDeath(t, l.Agents, f)
	l.Mend()
	within(t, "all agree after the end", Agree(t, 3*healWithin, l.Agents...), healWithin)
	l.c.unharmed("/clean", before)
}

// ask requests a page from a host again and again while f runs, over connections that stay open as browsers' and frameworks' do.
func (w *Network) ask(from *Host, url string, f func()) (asked, failed int64) {
	var all, bad atomic.Int64
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return from.Dial(ctx, network, address)
		},
	}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	end := func() {
		stop()
		<-done
		client.CloseIdleConnections()
	}
	defer end() // also when f ends the test
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			all.Add(1)
			if _, _, err := request(client, "GET", url, ""); err != nil {
				bad.Add(1)
				w.t.Logf("%s: %v", url, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	f()
	end()
	return all.Load(), bad.Load()
}

// Nodes that stand still for ten of every twelve seconds blame nobody else, and nobody healthy blames another one for them.
func TestFaultsPausedNodesBlameNobody(t *testing.T) {
	r := size(t, row{6, 48 * time.Second}, row{20, 3 * time.Minute})
	f := NewFlock(t, r.hosts)
	Agree(t, time.Minute, f.Agents...)
	paused := f.Agents[:max(1, r.hosts/10)]
	healthy := without(f.Agents, paused...)
	marks := markAll(f.Agents)
	noFalseDeath(t, healthy, func() {
		for end := time.Now().Add(r.lasts); time.Now().Before(end); {
			for _, a := range paused {
				a.Pause()
			}
			<-time.After(10 * time.Second)
			for _, a := range paused {
				a.Resume()
			}
			<-time.After(2 * time.Second)
		}
	})
	worst := 0
	for _, n := range countChanges(healthy, marks) {
		worst = max(worst, n)
	}
	t.Logf("lasting changes of one healthy node's mind about a paused one in %v: %d at most", r.lasts, worst)
	// Who came and went that often is believed again only after a while.
	t.Logf("all agree %v after the end", Agree(t, damped, f.Agents...).Round(100*time.Millisecond))
}

// damped is the longest that a node which came and went in these tests may be held down for.
const damped = 6 * time.Minute

// A link that comes and goes every five seconds disturbs nobody else, and does not make its own node come and go all the time.
func TestFaultsFlappingLinkIsDamped(t *testing.T) {
	r := size(t, row{5, time.Minute}, row{5, 5 * time.Minute})
	f := NewFlock(t, r.hosts)
	Agree(t, time.Minute, f.Agents...)
	odd := f.Agents[1]
	healthy := without(f.Agents, odd)
	marks := markAll(f.Agents)
	noFalseDeath(t, healthy, func() {
		for end := time.Now().Add(r.lasts); time.Now().Before(end); {
			odd.Host.Unplug()
			<-time.After(5 * time.Second)
			odd.Host.Plug()
			<-time.After(5 * time.Second)
		}
	})
	worst := 0
	for _, n := range countChanges(healthy, marks) {
		worst = max(worst, n)
	}
	t.Logf("lasting changes of one node's mind about the one that flaps in %v: %d at most", r.lasts, worst)
	if limit := int(r.lasts / time.Minute); worst > limit {
		t.Errorf("somebody changed its mind %d times about the one that flaps, want %d at most", worst, limit)
	}
	t.Logf("all agree %v after the end", Agree(t, damped, f.Agents...).Round(100*time.Millisecond))
}

// Tasks that burn every core do not make agents look dead, neither while they burn nor when a node really dies meanwhile.
func TestFaultsBurningTasks(t *testing.T) {
	r := row{5, 15 * time.Second}
	if *fullRows {
		r = row{20, 5 * time.Minute}
	}
	f, c := NewFlockWithTasks(t, r.hosts)
	Agree(t, time.Minute, f.Agents...)
	instances := max(r.hosts, 4)
	def := fmt.Sprintf(`{"id":"/burn","cmd":"while :; do :; done","cpus":2,"mem":32,"instances":%d,"constraints":[["hostname","GROUP_BY","%d"]]}`, instances, r.hosts)
	if _, _, err := c.request("POST", c.Marathon+"/v2/apps", def); err != nil {
		t.Fatal(err)
	}
	c.Running("/burn", instances)
	noFalseDeath(t, f.Agents, func() { <-time.After(r.lasts) })
	worst := 0.0
	for _, a := range f.Agents {
		score, err := a.Metric("starling_gossip_health_score")
		if err != nil {
			t.Error(err)
		}
		worst = max(worst, score)
	}
	t.Logf("the worst health score of %d agents on a burning machine is %v", r.hosts, worst)
	victim := f.Agents[r.hosts-1]
	others := without(f.Agents, victim)
	noFalseDeath(t, others, func() {
		victim.Kill()
		within(t, "the killed one was dead to all", See(t, 90*time.Second, others, victim, "dead"), 30*time.Second)
		<-time.After(r.lasts / 2)
	})
}
