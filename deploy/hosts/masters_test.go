package hosts

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/zookeeper/zktest"
)

// The rows of the fault matrix that are about masters and ZooKeeper, one after the other on one cluster: three masters, three
// servers of ZooKeeper, Marathon and a second framework.
func TestFaultsOfMasters(t *testing.T) {
	// The session is long enough not to be lost to a busy machine.
	agents, session, kills, frozen, away, crowd, cut := 3, 8*time.Second, 2, 10*time.Second, 10*time.Second, 20, time.Second
	if *fullRows {
		agents, session, kills, frozen, away, crowd, cut = 5, 2*time.Second, 20, 30*time.Second, time.Minute, 50, time.Minute
	} else {
		t.Parallel()
	}
	// These take five agents, or long.
	full := map[string]bool{"masters keep one agent of five": true, "two agents of five cut off": true, "leader cut off with one agent": true}
	c := newCouncil(t, agents, session)
	for _, part := range []struct {
		name string
		run  func(*council)
	}{
		{"leader killed", func(c *council) { c.leaderKilled(kills) }},
		{"leader stopped", (*council).leaderStopped},
		{"leader frozen", func(c *council) { c.leaderFrozen(frozen) }},
		{"leader cut off", (*council).leaderCutOff},
		{"one ZooKeeper server killed", (*council).oneServerKilled},
		{"quorum lost", func(c *council) { c.quorumLost(away) }},
		{"all masters killed", (*council).allKilled},
		{"ZooKeeper wiped", (*council).wiped},
		{"session ended by ZooKeeper", (*council).sessionEnded},
		{"framework torn down while an agent is cut off", func(c *council) { c.tornDownWhileCutOff(cut) }},
		{"masters keep one agent of five", (*council).fewAgentsLeft},
		{"leader cut off with one agent", func(c *council) { c.minorityCutOff(1, true) }},
		{"two agents of five cut off", func(c *council) { c.minorityCutOff(2, false) }},
		{"many frameworks return at once", func(c *council) { c.crowd(crowd) }}, // the last: they stay
	} {
		if full[part.name] && !*fullRows {
			continue
		}
		if !t.Run(part.name, func(t *testing.T) { part.run(c.in(t)) }) {
			break // what is left of the cluster would fail the others too
		}
	}
}

// A leader that is killed costs a session timeout, and nothing else.
func (c *council) leaderKilled(times int) {
	var took []time.Duration
	for n := range times {
		leader := c.Leader(leads)
		began := time.Now()
		leader.Kill()
		next := c.next(leader, began)
		offer := c.second.Offered(next, began, leads)
		took = append(took, offer)
		leader.run()
		leader.Healthy("http://" + leader.Host.at(5050) + "/health")
		if n+1 < times {
			Eventually(c.t, leads, "both frameworks are back", func() error { return c.connected(next) })
		}
		c.untouched()
		c.second.NothingFalse(began)
	}
	c.judge("from the death of a leader to the first offer of the next", took, c.Session+time.Second)
	c.works(time.Now(), fmt.Sprint("after-kill-", times))
}

// One that ends in order hands over at once.
func (c *council) leaderStopped() {
	leader := c.Leader(leads)
	began := time.Now()
	leader.Terminate()
	next := c.next(leader, began)
	c.judge("from SIGTERM to the first offer of the next", []time.Duration{c.second.Offered(next, began, leads)}, 1500*time.Millisecond)
	leader.run()
	leader.Healthy("http://" + leader.Host.at(5050) + "/health")
	c.works(began, "after-stop")
}

// A leader that was frozen for longer than its session, and goes on, orders nothing that is obeyed: neither what it had been
// asked meanwhile nor anything else.
func (c *council) leaderFrozen(lasts time.Duration) {
	leader := c.Leader(leads)
	old, err := c.Metric(leader, "master/epoch")
	if err != nil {
		c.t.Fatal(err)
	}
	offer := c.second.Hold()
	accept := c.second.Accept(offer, "stale")
	began := time.Now()
	leader.Pause()
	// It waits in the frozen one's socket, and is the first that it reads.
	answered := make(chan error, 1)
	go func() { answered <- c.second.Call(accept) }()
	next := c.next(leader, began)
	for _, a := range c.Agents {
		c.refuses(a, uint64(old), next)
	}
	// Marathon hears of the next one from ZooKeeper, while its stream from the old one is still open.
	Eventually(c.t, leads, "Marathon is back while the old leader is frozen", func() error {
		s, err := c.State(next)
		if err != nil {
			return err
		}
		for _, f := range s.Frameworks {
			if f.Name == "marathon" && f.Connected {
				return nil
			}
		}
		return fmt.Errorf("frameworks %+v", s.names())
	})
	<-time.After(time.Until(began.Add(lasts)))
	c.second.Release()
	thawed := time.Now()
	leader.Resume()
	c.stepsDown(leader)
	c.judge("from thawing to stepping down", []time.Duration{time.Since(thawed)}, time.Second)
	c.t.Logf("what it had been asked to launch in the meantime: %v", <-answered)
	c.second.Subscribed(next, began, leads)
	<-time.After(2 * time.Second) // an order would have been carried out by now
	c.works(began, "after-thaw")
}

// A leader that nobody can reach, the servers of ZooKeeper included, stops leading by itself, and another one takes over.
func (c *council) leaderCutOff() {
	leader := c.Leader(leads)
	began := time.Now()
	c.Network.Partition(leader.Host)
	c.stepsDown(leader)
	c.t.Logf("it stepped down %v after the cut", time.Since(began).Round(100*time.Millisecond))
	next := c.next(leader, began)
	c.second.Offered(next, began, leads+time.Minute) // where nothing says that a stream is dead, its heartbeats do
	c.Network.Mend()
	c.works(began, "after-cut")
}

// One server of three that dies changes nothing.
func (c *council) oneServerKilled() {
	leader := c.Leader(leads)
	epoch, err := c.Metric(leader, "master/epoch")
	if err != nil {
		c.t.Fatal(err)
	}
	began := time.Now()
	c.ZooKeeper.Wait()
	var first *zktest.Server
	Eventually(c.t, leads, "a server of ZooKeeper leads the others", func() error {
		if first = c.ZooKeeper.Leader(); first == nil {
			return errors.New("none")
		}
		return nil
	})
	for _, server := range c.ZooKeeper.Servers {
		if server == first {
			continue // without it the others stand still until they have elected another, which short sessions may not outlive
		}
		server.Kill()
		<-time.After(c.Session * 2 / 3) // for so long a leader leads that hears nothing
		server.Start()
		server.Wait()
	}
	if now := c.Leader(leads); now != leader {
		c.t.Errorf("%s leads, before it was %s", now.name, leader.name)
	}
	if now, err := c.Metric(leader, "master/epoch"); err != nil || now != epoch {
		c.t.Errorf("the epoch is %v now, and was %v (%v)", now, epoch, err)
	}
	c.works(began, "after-one-server")
}

// Without a quorum nobody leads: what reads goes on being served by who knows, what writes is refused for the time being.
func (c *council) quorumLost(lasts time.Duration) {
	leader := c.Leader(leads)
	tasks := c.Running("/probe", c.instances())
	began := time.Now()
	for _, server := range c.ZooKeeper.Servers[1:] {
		server.Kill()
	}
	c.stepsDown(leader)
	c.t.Logf("it stepped down %v after the quorum was lost", time.Since(began).Round(100*time.Millisecond))
	s, err := c.State(leader)
	if err != nil || s.Leader != "" || len(s.tasks()) != len(c.before) || int(s.Active) != len(c.Agents) {
		c.t.Errorf("the last leader shows %+v, %v; want all, and that nobody leads", s, err)
	}
	for _, m := range c.Masters.Masters {
		for _, path := range []string{"/api/v1/scheduler", "/api/v1", "/teardown"} {
			// A follower hears in the mesh that the leader is none any more.
			Eventually(c.t, 10*time.Second, "it is refused for the time being", func() error {
				a, err := c.Ask(m, "POST", path, `{"type":"TEARDOWN"}`)
				if err != nil || a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
					return fmt.Errorf("%s answers a POST to %s with %d %q, %v; want 503 with Retry-After", m.name, path, a.Status, a.Body, err)
				}
				return nil
			})
		}
		if a, err := c.Ask(m, "GET", "/health", ""); err != nil || a.Status != http.StatusOK {
			c.t.Errorf("%s answers /health with %d, %v", m.name, a.Status, err)
		}
	}
	c.Endpoints("probe", len(tasks)) // DNS goes on
	c.Answers(tasks)
	<-time.After(time.Until(began.Add(lasts)))
	c.untouched()
	for _, server := range c.ZooKeeper.Servers[1:] {
		server.Start()
	}
	c.ZooKeeper.Wait()
	back := time.Now()
	c.Leader(leads)
	c.judge("from the return of the quorum to a leader", []time.Duration{time.Since(back)}, 5*time.Second)
	c.works(began, "after-quorum")
}

// With all masters down tasks run and DNS answers; when they are back, all is as it was.
func (c *council) allKilled() {
	tasks := c.Running("/probe", c.instances())
	began := time.Now()
	for _, m := range c.Masters.Masters {
		m.Kill()
	}
	c.Endpoints("probe", len(tasks))
	c.Answers(tasks)
	c.untouched()
	for _, m := range c.Masters.Masters {
		m.run()
	}
	for _, m := range c.Masters.Masters {
		m.Healthy("http://" + m.Host.at(5050) + "/health")
	}
	c.works(began, "after-all-killed")
}

// A ZooKeeper that begins anew knows no epoch and no framework. The epoch goes on from what the mesh has heard of, the
// frameworks are known to the agents and come back with their ids, and no id is given twice.
func (c *council) wiped() {
	leader := c.Leader(leads)
	old, err := c.Metric(leader, "master/epoch")
	if err != nil {
		c.t.Fatal(err)
	}
	marks := map[*Master]int{}
	for _, m := range c.Masters.Masters {
		marks[m] = len(m.out.String())
	}
	began := time.Now()
	c.ZooKeeper.Kill()
	c.ZooKeeper.Wipe()
	c.ZooKeeper.Start()
	back := time.Now()
	var next *Master
	Eventually(c.t, 2*leads, "a master leads anew", func() error {
		for _, m := range c.Masters.Masters {
			if epoch, err := c.Metric(m, "master/epoch"); err == nil && epoch > old {
				next = m
				return nil
			}
		}
		return errors.New("none")
	})
	c.t.Logf("%s led under a higher epoch %v after the new ZooKeeper was up", next.name, time.Since(back).Round(100*time.Millisecond))
	for _, m := range c.Masters.Masters {
		for line := range strings.Lines(m.out.String()[marks[m]:]) {
			if _, epoch, ok := strings.Cut(line, "msg=leading component=master epoch="); ok {
				epoch, _, _ = strings.Cut(epoch, " ")
				if n, err := strconv.ParseFloat(epoch, 64); err != nil || n <= old {
					c.t.Errorf("%s led under epoch %s after one under %v: %s", m.name, epoch, old, line)
				}
			}
		}
	}
	c.works(began, "after-wipe")
	third := c.NewScheduler("third")
	third.Subscribed(c.Leader(leads), began, leads)
	for _, name := range c.names {
		if _, id, _ := strings.Cut(name, " "); id == third.ID() {
			c.t.Errorf("a new framework has the id of %s", name)
		}
	}
	if err := third.Call(&scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum(), FrameworkId: &mesos.FrameworkID{Value: proto.String(third.ID())}}); err != nil {
		c.t.Error(err)
	}
}

// Many frameworks that lose their leader at once are all back soon, and the next one answers others meanwhile.
func (c *council) crowd(n int) {
	var all []*Scheduler
	for i := range n {
		all = append(all, c.NewScheduler(fmt.Sprint("crowd-", i)))
	}
	leader := c.Leader(leads)
	for _, f := range all {
		f.Subscribed(leader, time.Time{}, leads)
	}
	s, err := c.State(leader)
	if err != nil {
		c.t.Fatal(err)
	}
	c.names = s.names()
	began := time.Now()
	leader.Kill()
	next := c.next(leader, began)
	led := time.Now()
	stop, done := make(chan struct{}), make(chan []time.Duration)
	go func() {
		var took []time.Duration
		defer func() { done <- took }()
		for {
			asked := time.Now()
			if _, err := c.Ask(next, "GET", "/health", ""); err == nil {
				took = append(took, time.Since(asked))
			}
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	var back []time.Duration
	for _, f := range all {
		back = append(back, max(0, began.Add(f.Subscribed(next, began, leads)).Sub(led)))
	}
	<-time.After(time.Second)
	close(stop)
	health := <-done
	c.judge("frameworks back at the next leader", back, 15*time.Second)
	slices.Sort(health)
	c.judge("answers of /health, all but one of 100, meanwhile", health[:max(1, len(health)*99/100)], 200*time.Millisecond)
	leader.run()
	leader.Healthy("http://" + leader.Host.at(5050) + "/health")
}
