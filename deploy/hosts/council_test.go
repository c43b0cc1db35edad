package hosts

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/nodeapi"
)

// leads is the limit within which a master has to lead after what keeps one from it is over. The bars are shorter; a suite on
// two busy cores must not fail by them.
const leads = 45 * time.Second

// council is a cluster with three masters that runs two frameworks with some tasks each.
type council struct {
	*Masters
	second *Scheduler
	before map[string]int // tasks and their processes
	names  []string       // the frameworks, as /state has them
}

// newCouncil starts the masters, the agents and Marathon without a ZooKeeper, looks at what they say, and starts that last.
func newCouncil(t *testing.T, agents int, session time.Duration) *council {
	c := &council{Masters: NewMasters(t, 3, agents, session)}
	c.StartMaster()
	for range agents - 1 {
		c.StartAgent()
	}
	c.StartMaster()
	c.StartMaster()
	c.StartMarathon()
	for _, m := range c.Masters.Masters {
		for path, want := range map[string]int{
			"/health": 200, "/version": 200, "/flags": 200, "/metrics/snapshot": 200, "/mesh/members": 200, "/state": 503, "/redirect": 503,
		} {
			var a Answer
			Eventually(t, leads, m.name+" answers", func() (err error) { a, err = c.Ask(m, "GET", path, ""); return err })
			if a.Status != want || want == 503 && (a.Header.Get("Retry-After") == "" || a.Body != "No leader elected") {
				t.Errorf("%s without ZooKeeper: %s answers %d %q; want %d", m.name, path, a.Status, a.Body, want)
			}
		}
		Eventually(t, leads, m.name+" says that it cannot reach ZooKeeper", func() error {
			if !strings.Contains(m.out.String(), "cannot connect to ZooKeeper") {
				return errors.New("it does not")
			}
			return nil
		})
	}
	c.StartAgent() // joins while the masters elect one of them
	began := time.Now()
	c.ZooKeeper.Start()
	leader := c.Leader(leads)
	t.Logf("ZooKeeper was up and %s led %v after ZooKeeper's start", leader.name, time.Since(began).Round(100*time.Millisecond))
	for _, a := range c.Agents {
		a.Ready()
	}
	c.ProbeApp("/probe", 2*agents)
	c.second = c.NewScheduler("second")
	c.second.Launch("s1", "s2")
	c.settle()
	return c
}

// settle takes what runs now as what has to go on.
func (c *council) settle() {
	c.t.Helper()
	app, err := c.App("/probe")
	if err != nil {
		c.t.Fatal(err)
	}
	c.Answers(c.Running("/probe", app.Instances))
	c.before = c.pids()
	leader := c.Leader(leads)
	Eventually(c.t, leads, "all masters see the agents as these see themselves", c.followed)
	Eventually(c.t, leads, "the leader knows all", func() error {
		s, err := c.State(leader)
		if err == nil {
			err = c.complete(s)
		}
		if err == nil {
			c.names = s.names()
		}
		return err
	})
}

// followed tells which master, as the next leader, would not know all yet.
func (c *council) followed() error {
	for _, a := range c.Agents {
		own, err := a.Members()
		if err != nil {
			return err
		}
		for _, m := range c.Masters.Masters {
			answer, err := c.Ask(m, "GET", "/mesh/members", "")
			if err != nil {
				return err
			}
			view, err := members(answer.Body)
			if err != nil {
				return err
			}
			if view[a.ID] != own[a.ID] {
				return fmt.Errorf("%s sees %+v, %s sees %+v", m.name, view[a.ID], a.name, own[a.ID])
			}
		}
	}
	return nil
}

// in is the council for a part of the test, which has to find it whole.
func (c *council) in(t *testing.T) *council {
	t.Helper()
	own := *c
	cluster, masters := *c.Cluster, *c.Masters
	second := c.second
	cluster.t, masters.Cluster = t, &cluster
	own.Masters = &masters
	second.t = t
	own.settle()
	return &own
}

// complete tells what /state lacks of all that there is.
func (c *council) complete(s *State) error {
	if int(s.Active) != len(c.Agents) {
		return fmt.Errorf("%v active agents, want %d", s.Active, len(c.Agents))
	}
	if len(c.names) > 0 && !slices.Equal(s.names(), c.names) {
		return fmt.Errorf("frameworks %v, want %v", s.names(), c.names)
	}
	if len(c.names) == 0 && len(s.Frameworks) != 2 || len(s.tasks()) != len(c.before) {
		return fmt.Errorf("frameworks %v with tasks %v, want those of %v", s.names(), s.tasks(), c.before)
	}
	for _, task := range s.tasks() {
		if _, id, _ := strings.Cut(task, " "); c.before[id] == 0 {
			return fmt.Errorf("task %s, want those of %v", id, c.before)
		}
	}
	return nil
}

// next waits for the first whole answer to /state of another master than one, which has to be complete already.
func (c *council) next(old *Master, since time.Time) *Master {
	c.t.Helper()
	var leader *Master
	eventually(c.t, leads, 10*time.Millisecond, "another master leads", func() error {
		for _, m := range c.Masters.Masters {
			if m == old {
				continue
			}
			s, err := c.State(m)
			if err != nil || s.Leader != s.PID {
				continue
			}
			leader = m
			c.t.Logf("the first state of %s came after %v", m.name, time.Since(since).Round(time.Millisecond))
			if err := c.complete(s); err != nil {
				c.t.Errorf("the first state of %s is not complete: %v", m.name, err)
			}
			return nil
		}
		return errors.New("none")
	})
	return leader
}

// untouched wants every task to run as the process that it was, and nothing beside them to have been started.
func (c *council) untouched() {
	c.t.Helper()
	after := c.pids()
	for id, pid := range c.before {
		if after[id] != pid || gone(pid) {
			c.t.Errorf("task %s was process %d, and is %d now (gone: %v)", id, pid, after[id], gone(pid))
		}
	}
	for id := range after {
		if c.before[id] == 0 {
			c.t.Errorf("task %s was started", id)
		}
	}
}

// works wants both frameworks to have come back with their ids and tasks, and what they order to be done.
func (c *council) works(since time.Time, task string) {
	c.t.Helper()
	leader := c.Leader(leads)
	Eventually(c.t, leads, "both frameworks are back", func() error {
		s, err := c.State(leader)
		if err == nil {
			err = c.complete(s)
		}
		if err != nil {
			return err
		}
		for _, f := range s.Frameworks {
			if !f.Connected {
				return fmt.Errorf("%s is not connected", f.Name)
			}
		}
		return nil
	})
	c.untouched()
	c.second.NothingFalse(since)
	c.second.Launch(task)
	app, err := c.App("/probe")
	if err != nil {
		c.t.Fatal(err)
	}
	n := app.Instances + 1
	Eventually(c.t, leads, "Marathon takes a change", func() error {
		_, _, err := c.request("PUT", c.Marathon+"/v2/apps/probe", fmt.Sprintf(`{"instances":%d}`, n))
		return err
	})
	c.Answers(c.Running("/probe", n))
	after := c.pids()
	for id, pid := range c.before {
		if after[id] != pid || gone(pid) {
			c.t.Errorf("task %s was process %d, and is %d after its framework came back", id, pid, after[id])
		}
	}
	if len(after) != len(c.before)+2 {
		c.t.Errorf("tasks %v were started, and before %v: want two more", after, c.before)
	}
}

// connected tells whether a framework has not come back.
func (c *council) connected(leader *Master) error {
	s, err := c.State(leader)
	if err != nil {
		return err
	}
	for _, f := range s.Frameworks {
		if !f.Connected {
			return fmt.Errorf("%s is not connected", f.Name)
		}
	}
	return nil
}

// stepsDown waits until a master does not lead.
func (c *council) stepsDown(master *Master) {
	c.t.Helper()
	Eventually(c.t, leads, master.name+" does not lead", func() error {
		leads, err := c.Metric(master, "master/elected")
		if err == nil && leads != 0 {
			err = errors.New("it leads")
		}
		return err
	})
}

func (c *council) instances() int {
	c.t.Helper()
	app, err := c.App("/probe")
	if err != nil {
		c.t.Fatal(err)
	}
	return app.Instances
}

// refuses has an agent refuse an order of an old leader, made in its name.
func (c *council) refuses(a *Agent, epoch uint64, leader *Master) {
	c.t.Helper()
	text, err := os.ReadFile(c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		c.t.Fatal(err)
	}
	old := nodeapi.NewClient(nodeapi.ClientConfig{
		Signer: nodeapi.NewSigner(func() [][]byte { return [][]byte{key} }, nil), Dial: c.Network.dial,
	})
	defer old.Close()
	id := &mesos.AgentID{Value: proto.String(a.ID)}
	call := &nodeapi.Call{Epoch: epoch, Leader: leader.Host.at(5050), AgentId: a.ID, Call: &nodeapi.Call_Launch{Launch: &nodeapi.Launch{
		Framework: c.second.Info(), Tasks: []*mesos.TaskInfo{c.second.task("stale-"+a.Host.Addr, id)},
	}}}
	Eventually(c.t, leads, a.name+" refuses the old epoch", func() error {
		described := &nodeapi.Call{Epoch: epoch, Leader: call.Leader, AgentId: a.ID, Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}
		// A question first: an agent that has not heard of the next leader yet would obey.
		if _, err := old.Call(context.Background(), a.Host.at(5051), described); !errors.Is(err, nodeapi.ErrStaleEpoch) {
			return fmt.Errorf("it answers with %w", err)
		}
		return nil
	})
	if _, err := old.Call(context.Background(), a.Host.at(5051), call); !errors.Is(err, nodeapi.ErrStaleEpoch) {
		c.t.Errorf("%s takes an order of epoch %d after the next one began: %v", a.name, epoch, err)
	}
}

// judge prints durations, and holds them to a bar: as it is where the rows are run for it, and with room on a busy machine.
func (c *council) judge(what string, took []time.Duration, bar time.Duration) {
	c.t.Helper()
	slices.Sort(took)
	worst := took[len(took)-1]
	c.t.Logf("%s: median %v, worst %v of %d, bar %v", what, took[len(took)/2].Round(time.Millisecond), worst.Round(time.Millisecond), len(took), bar)
	if !*fullRows {
		bar += 10 * time.Second
	}
	if worst > bar {
		c.t.Errorf("%s: %v, want %v", what, worst, bar)
	}
}
