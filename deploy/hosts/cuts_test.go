package hosts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// The parts of TestFaultsOfMasters in which agents are cut off from the masters, and that in which ZooKeeper ends a session.

// A leader whose session ZooKeeper ends, while it can be reached and knows nothing of it, orders nothing that is obeyed once the next
// one has begun, and learns of it soon.
func (c *council) sessionEnded() {
	leader := c.Leader(leads)
	old, err := c.Metric(leader, "master/epoch")
	if err != nil {
		c.t.Fatal(err)
	}
	mark := len(leader.out.String())
	began := time.Now()
	c.ZooKeeper.Expire("/mesos/json.info_")
	c.stepsDown(leader)
	next := c.Leader(leads)
	epoch, err := c.Metric(next, "master/epoch")
	if err != nil || epoch <= old {
		c.t.Errorf("epoch %v after %v, %v", epoch, old, err)
	}
	for _, a := range c.Agents {
		c.refuses(a, uint64(old), next)
	}
	silent, err := logged(leader.out.String()[mark:], `msg="no longer leading" component=master epoch=`+fmt.Sprint(uint64(old))+" ")
	if err != nil {
		c.t.Fatal(err)
	}
	led, err := logged(next.out.String(), "msg=leading component=master epoch="+fmt.Sprint(uint64(epoch))+" ")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("the old leader was silent %v after its session had been ended; the next led %v after that", silent.Sub(began), led.Sub(silent))
	c.judge("from the end of the session to stepping down", []time.Duration{max(0, silent.Sub(began))}, time.Second)
	c.works(began, "after-expiry")
}

// logged returns when a line was written to a log that has a part in it.
func logged(log, part string) (time.Time, error) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, part) {
			_, at, _ := strings.Cut(line, "time=")
			at, _, _ = strings.Cut(at, " ")
			return time.Parse(time.RFC3339Nano, at)
		}
	}
	return time.Time{}, fmt.Errorf("no line has %q", part)
}

// W8: what a framework runs on an agent that is cut off while it is torn down is ended when the agent can be reached again.
func (c *council) tornDownWhileCutOff(lasts time.Duration) {
	third := c.NewScheduler("third")
	third.Subscribed(c.Leader(leads), time.Time{}, leads)
	began := time.Now()
	third.Launch("t1", "t2", "t3")
	var cut *Agent
	for _, h := range third.Since(began) {
		for _, a := range c.Agents {
			if s := h.Event.GetUpdate().GetStatus(); s.GetTaskId().GetValue() == "t1" && s.GetAgentId().GetValue() == a.ID {
				cut = a
			}
		}
	}
	if cut == nil {
		c.t.Fatal("no agent runs the task")
	}
	pids := c.pids()
	c.Network.Partition(cut.Host)
	since := time.Now()
	if err := third.Call(&scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum(), FrameworkId: &mesos.FrameworkID{Value: proto.String(third.ID())}}); err != nil {
		c.t.Fatal(err)
	}
	<-time.After(time.Until(since.Add(lasts)))
	for _, id := range []string{"t1", "t2", "t3"} {
		if gone(pids[id]) {
			c.t.Errorf("task %s ended while nobody could reach its agent", id)
		}
	}
	c.Network.Mend()
	healed := time.Now()
	Eventually(c.t, leads, "the tasks of the framework end", func() error {
		for _, id := range []string{"t1", "t2", "t3"} {
			if !gone(pids[id]) {
				return fmt.Errorf("%s is process %d", id, pids[id])
			}
		}
		return nil
	})
	c.judge("from the heal to the end of a framework's tasks that was torn down", []time.Duration{time.Since(healed)}, 10*time.Second)
	// In a long cut Marathon replaced what ran there, and ends the surplus now.
	c.exactly(c.instances())
	c.forgetEnded()
}

// exactly waits until there are as many instances of the app as there have to be, and as many of their processes.
func (c *council) exactly(n int) []Task {
	c.t.Helper()
	var tasks []Task
	Eventually(c.t, leads+time.Minute, fmt.Sprintf("there are exactly %d instances", n), func() error {
		app, err := c.App("/probe")
		if err != nil {
			return err
		}
		tasks = app.Tasks
		processes := 0
		for id, pid := range c.pids() {
			if strings.HasPrefix(id, "probe.") && !gone(pid) {
				processes++
			}
		}
		if len(app.Tasks) != n || app.TasksRunning != n || processes != n {
			return fmt.Errorf("%d tasks, %d running, %d processes", len(app.Tasks), app.TasksRunning, processes)
		}
		return nil
	})
	return tasks
}

// forgetEnded removes what tasks left that have ended, so that the next part does not want them to run.
func (c *council) forgetEnded() {
	c.t.Helper()
	for id, pid := range c.pids() {
		if gone(pid) {
			if err := os.Remove(filepath.Join(c.probes, fmt.Sprintf("%s.%d", id, pid))); err != nil {
				c.t.Error(err)
			}
		}
	}
}

// away counts the agents that a master does not list as active.
func (c *council) away(m *Master) (int, error) {
	s, err := c.State(m)
	if err != nil {
		return 0, err
	}
	return len(c.Agents) - int(s.Active), nil
}

// N3: where the masters keep one agent of five, they believe themselves cut off: no agent is given up, which the log says, and once
// the others can be reached again all goes on.
func (c *council) fewAgentsLeft() {
	leader := c.Leader(leads)
	mark := len(leader.out.String())
	var hosts []*Host
	for _, a := range c.Agents[1:] {
		hosts = append(hosts, a.Host)
	}
	began := time.Now()
	c.Network.Partition(hosts...)
	Eventually(c.t, 2*time.Minute, "the leader says that most agents are away", func() error {
		if !strings.Contains(leader.out.String()[mark:], "none is given up until that changes") {
			return errors.New("it does not")
		}
		return nil
	})
	c.t.Logf("the alarm came %v after the cut", time.Since(began).Round(100*time.Millisecond))
	<-time.After(time.Until(began.Add(2 * time.Minute)))
	given, err := c.Metric(leader, "master/slave_removals")
	if err != nil {
		c.t.Fatal(err)
	}
	c.second.NothingFalse(began)
	c.untouched()
	if text := leader.out.String()[mark:]; strings.Contains(text, `msg="agent unreachable"`) {
		c.t.Errorf("an agent was given up:\n%s", text)
	}
	c.Network.Mend()
	healed := time.Now()
	Eventually(c.t, leads, "the leader offers all agents", func() error {
		s, err := c.State(leader)
		if err == nil {
			err = c.complete(s)
		}
		return err
	})
	Eventually(c.t, leads, "the alarm is over", func() error {
		text := leader.out.String()[mark:]
		if strings.LastIndex(text, "agents are given up again") < strings.LastIndex(text, "none is given up until that changes") {
			return errors.New("it is not")
		}
		return nil
	})
	c.judge("from the heal to the end of the alarm", []time.Duration{time.Since(healed)}, 10*time.Second)
	if after, err := c.Metric(leader, "master/slave_removals"); err != nil || after != given {
		c.t.Errorf("%v agents had been given up before, and %v after it, %v", given, after, err)
	}
	c.works(began, "after-few")
}

// N2: a minority of the agents that is cut off is given up, and its tasks are replaced; when it is back there are as many instances
// as there have to be, and what ran on the others was not touched. Where the leader is on their side, with its server of ZooKeeper,
// another one does all that, and none of the agents that the old one kept obeys it afterwards.
func (c *council) minorityCutOff(size int, withLeader bool) {
	n := c.instances()
	leader := c.Leader(leads)
	old, err := c.Metric(leader, "master/epoch")
	if err != nil {
		c.t.Fatal(err)
	}
	minority := map[string]bool{}
	var hosts []*Host
	cut := c.Agents[len(c.Agents)-size:]
	for _, a := range cut {
		hosts = append(hosts, a.Host)
		minority[a.Host.Addr] = true
	}
	if withLeader {
		hosts = append(hosts, leader.Host)
	}
	kept := map[string]bool{} // tasks of the majority
	for _, task := range c.Running("/probe", n) {
		if !minority[task.Host] {
			kept[task.ID] = true
		}
	}
	c.t.Logf("%d of %d instances are cut off", n-len(kept), n)
	began := time.Now()
	c.Network.Partition(hosts...)
	if withLeader {
		c.stepsDown(leader)
		leader = c.Leader(leads, leader)
		c.t.Logf("another master led %v after the cut", time.Since(began).Round(100*time.Millisecond))
	}
	Eventually(c.t, 3*time.Minute, "the majority runs all instances", func() error {
		app, err := c.App("/probe")
		if err != nil {
			return err
		}
		running := 0
		for _, task := range app.Tasks {
			if task.State == "TASK_RUNNING" && !minority[task.Host] {
				running++
			}
		}
		if away, err := c.away(leader); err != nil || running != n || away != size {
			return fmt.Errorf("%d of %d, and %d agents are away, %v", running, n, away, err)
		}
		return nil
	})
	c.t.Logf("all instances ran at the majority %v after the cut", time.Since(began).Round(100*time.Millisecond))
	for id := range c.before {
		if gone(c.before[id]) {
			c.t.Errorf("task %s ended by the cut", id)
		}
	}
	c.Network.Mend()
	healed := time.Now()
	tasks := c.exactly(n)
	c.judge("from the heal to exactly the instances that have to be", []time.Duration{time.Since(healed)}, 30*time.Second)
	if withLeader {
		for _, a := range cut {
			c.refuses(a, uint64(old), leader)
		}
		if now := c.Leader(leads); now != leader {
			c.t.Errorf("%s leads after the heal, before it was %s", now.name, leader.name)
		}
	}
	there := map[string]bool{}
	for _, task := range tasks {
		there[task.ID] = true
	}
	// Which of the surplus ends is Marathon's choice; a task of the small framework has to go on.
	for id, pid := range c.before {
		if !strings.HasPrefix(id, "probe.") && gone(pid) {
			c.t.Errorf("task %s of the small framework ended", id)
		}
	}
	for id := range kept {
		if !there[id] {
			c.t.Logf("task %s of the majority was among the surplus", id)
		}
	}
	c.forgetEnded()
}
