package scheduler_test

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos"
)

var (
	seeds    = flag.Int("seeds", 60, "how many random runs TestLaws makes")
	onlySeed = flag.Uint64("seed", 0, "the one run that TestLaws makes, if not 0")
)

// TestLaws lets anything happen in any order, and holds the scheduler to what must always be true:
//
//   - no task id is ever launched twice, whatever crashes and wherever;
//   - a launch never takes an app above its number of instances, plus what a running upgrade may have beyond it; tasks on
//     agents that are cut off do not count;
//   - no more instances of an app wait than may;
//   - once everything is whole again, each app comes to exactly its number, every deployment to its end, and nothing is
//     left of apps that are gone.
func TestLaws(t *testing.T) {
	if *onlySeed != 0 {
		runLaws(t, *onlySeed)
		return
	}
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprintf("seed=%d", seed+1), func(t *testing.T) { runLaws(t, seed+1) })
	}
}

type chaos struct {
	*sim
	crashIn int                 // decisions until the next crash, negative for none
	wasLost map[app.TaskID]bool // tasks whose agent was cut off once
}

func runLaws(t *testing.T, seed uint64) {
	c := newChaos(t, seed)
	c.storm(60)
	c.heal()
	c.check()
	if t.Failed() {
		t.Logf("repeat with: go test ./marathon/scheduler -run TestLaws -seed %d", seed)
	}
}

func newChaos(t *testing.T, seed uint64) *chaos {
	config := scheduler.Config{LaunchTimeout: 40 * time.Second, LaunchConfirmTimeout: 20 * time.Second}
	if seed%2 == 0 {
		config.MaxWaiting = 1 + int(seed/2%3) // so few that instances are owed all the time
	}
	c := &chaos{sim: newSimOf(t, seed, config), crashIn: -1, wasLost: make(map[app.TaskID]bool)}
	c.observe, c.tamper, c.cut = c.watch, c.mangle, c.cutOff
	for i := range 3 + c.rng.IntN(3) {
		c.cluster.Add(mastertest.Agent{
			ID: fmt.Sprintf("a%d", i), Host: fmt.Sprintf("h%d", i), CPUs: 4 + float64(c.rng.IntN(8)), Mem: 8192, Disk: 10000,
			FirstPort: 31000, LastPort: 31049,
		})
	}
	return c
}

// storm lets so many things happen.
func (c *chaos) storm(steps int) {
	c.subscribe()
	for range steps {
		c.turn()
	}
}

// turn is one thing that happens, and what follows.
func (c *chaos) turn() {
	c.step()
	c.pump()
	c.checkWaiting()
	if c.crashed {
		c.nextLeader()
	}
	if !c.crashed {
		c.advance(time.Duration(c.rng.IntN(5000)) * time.Millisecond)
	}
	if !c.crashed && !c.s.View().Connected() && c.rng.IntN(3) > 0 {
		c.subscribe()
	}
}

var ids = []app.PathID{"/a", "/b", "/g/c"}

func (c *chaos) step() {
	id := ids[c.rng.IntN(len(ids))]
	tasks := c.cluster.Tasks()
	agent := fmt.Sprintf("a%d", c.rng.IntN(6))
	switch n := c.rng.IntN(135); {
	case n >= 100:
		c.fault(n-100, id, agent)
	case n < 25:
		strategy := [][2]float64{{1, 1}, {0.5, 0}, {1, 0}, {0, 0}, {0.5, 0.2}}[c.rng.IntN(5)]
		c.allow(c.put(fmt.Sprintf(`{"id":%q,"cmd":"run %d","cpus":0.5,"instances":%d,"backoffSeconds":1,"maxLaunchDelaySeconds":4%s,
			"unreachableStrategy":{"inactiveAfterSeconds":%d,"expungeAfterSeconds":60},
			"upgradeStrategy":{"minimumHealthCapacity":%v,"maximumOverCapacity":%v}}`,
			id, c.rng.IntN(3), c.rng.IntN(7), c.variant(id), c.rng.IntN(30), strategy[0], strategy[1]), c.rng.IntN(2) == 0))
	case n < 40 && c.s.View().Root().App(id) != nil:
		c.allow(c.put(fmt.Sprintf(`{"id":%q,"instances":%d}`, id, c.rng.IntN(8)), c.rng.IntN(2) == 0))
	case n < 45 && c.s.View().Root().App(id) != nil:
		c.allow(c.restart(id, c.rng.IntN(2) == 0))
	case n < 50:
		c.allow(c.remove(id, c.rng.IntN(2) == 0))
	case n < 53:
		if running := c.s.View().Deployments(); len(running) > 0 {
			now := c.now
			c.tell(func(s *scheduler.Scheduler) {
				if err := s.Cancel(now, running[0].Plan.ID, ""); err != nil {
					c.t.Fatal(err)
				}
			})
		}
	case n < 70 && len(tasks) > 0:
		state := []mesos.TaskState{mesos.TaskState_TASK_FAILED, mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_KILLED}[c.rng.IntN(3)]
		// A task that is on its way out already can't end once more.
		_ = c.cluster.End(tasks[c.rng.IntN(len(tasks))].Info.GetTaskId().GetValue(), state, "")
	case n < 76:
		for _, task := range tasks {
			if id, err := app.ParseTaskID(task.Info.GetTaskId().GetValue()); err == nil && task.Info.GetAgentId().GetValue() == agent {
				c.wasLost[id] = true
			}
		}
		c.cluster.Lose(agent)
	case n < 84:
		c.cluster.Return(agent)
	case n < 88:
		c.cluster.Disconnect()
		c.pump()
		c.subscribe()
	case n < 91:
		c.cluster.Resend()
	case n < 94:
		if instances := c.s.View().Instances(id); len(instances) > 0 {
			now, kill := c.now, scheduler.KillRequest{
				Instances: []app.InstanceID{instances[c.rng.IntN(len(instances))].ID}, Wipe: c.rng.IntN(2) == 0,
			}
			c.tell(func(s *scheduler.Scheduler) { s.KillTasks(now, kill) })
		}
	default:
		c.crashIn = c.rng.IntN(12)
	}
}

// allow accepts that a change is locked out.
func (c *chaos) allow(_ string, err error) {
	if _, locked := errors.AsType[*scheduler.Locked](err); err != nil && !locked {
		c.t.Fatal(err)
	}
}

// watch sees each decision; it crashes when its time has come, and checks launches.
func (c *chaos) watch(d scheduler.Decision) bool {
	if *onlySeed != 0 && testing.Verbose() {
		c.t.Logf("%v %s", c.now.Sub(begin), spell([]scheduler.Decision{d}))
	}
	if c.crashIn == 0 {
		c.crashIn = -1
		return false
	}
	if c.crashIn > 0 {
		c.crashIn--
	}
	if accept, ok := d.(scheduler.Accept); ok {
		alive := c.alive()
		for _, info := range accept.Tasks {
			alive[info.GetName()]++
		}
		for _, id := range ids {
			launched := slices.ContainsFunc(accept.Tasks, func(i *mesos.TaskInfo) bool { return i.GetName() == id.HostName() })
			if limit := c.limit(id); launched && alive[id.HostName()] > limit {
				c.t.Errorf("%v: a launch takes %s to %d tasks, above %d\n%s", c.now.Sub(begin), id, alive[id.HostName()], limit, c.picture(id))
			}
		}
	}
	return true
}

// checkWaiting holds the scheduler to the bound on waiting instances. Those that were launched before and wait again, since
// their tasks have ended, are not made and may be more.
func (c *chaos) checkWaiting() {
	if c.config.MaxWaiting == 0 {
		return
	}
	for _, id := range ids {
		waiting := 0
		for _, i := range c.s.View().Instances(id) {
			if i.Goal == scheduler.GoalRunning && i.Condition == scheduler.Scheduled && i.Incarnation == 0 {
				waiting++
			}
		}
		if waiting > c.config.MaxWaiting {
			c.t.Errorf("%v: %d instances of %s wait, above %d", c.now.Sub(begin), waiting, id, c.config.MaxWaiting)
		}
	}
}

// alive counts the tasks of each app, leaving out those that were given up while their agent was cut off.
func (c *chaos) alive() map[string]int {
	alive := c.cluster.Alive()
	for _, task := range c.cluster.Tasks() {
		id, err := app.ParseTaskID(task.Info.GetTaskId().GetValue())
		if err != nil {
			c.t.Fatal(err)
		}
		if i := c.s.View().Instance(id.Instance); c.wasLost[id] && task.Alive && (i == nil || i.TaskID != id.String()) {
			alive[task.Info.GetName()]--
		}
	}
	return alive
}

// limit is how many tasks of an app there may be when one is launched.
func (c *chaos) limit(id app.PathID) int {
	a := c.s.View().Root().App(id)
	if a == nil {
		return 0
	}
	limit := a.Instances
	if d := c.s.View().Deployment(c.s.View().DeploymentOf(id)); d != nil {
		over := func(a *app.App) int {
			n, s := float64(a.Instances), a.UpgradeStrategy
			most := int(math.Floor(n*(1+s.MaximumOverCapacity) + 1e-9))
			if int(math.Ceil(n*s.MinimumHealthCapacity-1e-9)) == most {
				most++
			}
			return most
		}
		limit = max(limit, over(a))
		if change := d.Plan.Change(id); change != nil && change.Old != nil {
			// A step that has not begun leaves the old number in place.
			limit = max(limit, change.Old.Instances)
		}
	}
	return limit
}

// heal makes everything whole, and gives it 30 seconds.
func (c *chaos) heal() {
	c.crashIn, c.tamper, c.cut = -1, nil, nil
	c.cluster.Hold(false)
	if c.s.View().Brake(c.now).On {
		now := c.now
		c.tell(func(s *scheduler.Scheduler) { s.LiftBrake(now) })
	}
	for i := range 6 {
		c.cluster.Return(fmt.Sprintf("a%d", i))
	}
	if c.crashed {
		c.cluster.Disconnect()
		c.start()
	}
	if !c.s.View().Connected() {
		c.subscribe()
	}
	c.cluster.Resend()
	c.pump()
	// Enough room for what was asked for at the most.
	c.cluster.Add(mastertest.Agent{ID: "big", Host: "big", CPUs: 100, Mem: 1 << 20, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999})
	for range 30 {
		c.probeAll(true)
		c.advance(time.Second)
	}
}

func (c *chaos) check() {
	if twice := c.cluster.Duplicates(); len(twice) > 0 {
		c.t.Errorf("launched more than once: %v", twice)
	}
	alive := c.cluster.Alive()
	for _, id := range ids {
		want := 0
		if a := c.s.View().Root().App(id); a != nil {
			want = a.Instances
		}
		if got := alive[id.HostName()]; got != want {
			c.t.Errorf("%s has %d tasks in the end, want %d", id, got, want)
		}
		if got := len(c.s.View().Instances(id)); got != want {
			c.t.Errorf("%s has %d instances in the end, want %d\n%s", id, got, want, c.picture(id))
		}
	}
	if running := c.s.View().Deployments(); len(running) > 0 {
		c.t.Errorf("deployment %s has not ended: step %d of %v\n%s", running[0].Plan.ID, running[0].Step, running[0].Plan.Steps, c.picture(running[0].Plan.Affected()[0]))
	}
	for _, task := range c.cluster.Tasks() {
		if task.Pending > 0 {
			c.t.Errorf("task %s has %d updates without acknowledgement", task.Info.GetTaskId().GetValue(), task.Pending)
		}
	}
	if keys := c.store.Keys("marathon/deployments/"); len(keys) > 0 {
		c.t.Errorf("deployments stay stored: %v", keys)
	}
	if got, want := len(c.store.Keys("marathon/instances/")), len(c.cluster.Tasks()); got != want {
		c.t.Errorf("%d instances are stored, and %d tasks run", got, want)
	}
}

// TestSameSeedSameRun shows that a run can be replayed.
func TestSameSeedSameRun(t *testing.T) {
	play := func() string {
		var log string
		c := &chaos{sim: newSim(t, 8), crashIn: -1, wasLost: make(map[app.TaskID]bool)}
		c.observe = func(d scheduler.Decision) bool {
			switch d := d.(type) {
			case scheduler.Accept:
				for _, info := range d.Tasks {
					log += info.GetTaskId().GetValue() + info.GetResources()[len(info.GetResources())-1].String() + "\n"
				}
			case scheduler.Kill:
				log += "kill " + d.TaskID + "\n"
			}
			return true
		}
		c.cluster.Add(mastertest.Agent{ID: "a0", Host: "h0", CPUs: 16, Mem: 8192, Disk: 10000, FirstPort: 31000, LastPort: 31049})
		c.subscribe()
		for range 40 {
			c.step()
			c.crashIn = -1
			c.pump()
			c.advance(time.Second)
		}
		return log
	}
	// The text form of a message has spaces at random, but the same in one process.
	if a, b := play(), play(); a != b || a == "" {
		t.Errorf("two runs with the same seed differ, or nothing happened:\n%s", diff(a, b))
	}
}
