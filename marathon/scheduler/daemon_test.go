package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos"
)

const everywhere = `,"starling":{"daemon":true}`

// newCrew is a simulated cluster of n agents a0, a1 ..., with a session, which reports two tasks of one app on one agent.
func newCrew(t *testing.T, n int) *sim {
	t.Helper()
	m := newSimOf(t, 1, scheduler.Config{})
	for range n {
		m.join()
	}
	m.subscribe()
	m.pump()
	return m
}

// join adds the next agent.
func (m *sim) join() {
	m.agents++
	m.cluster.Add(mastertest.Agent{
		ID: fmt.Sprintf("a%d", m.agents-1), Host: fmt.Sprintf("h%d", m.agents-1), CPUs: 4, Mem: 4096, Disk: 10000, FirstPort: 31000, LastPort: 31999,
	})
}

// where lists the agents on which tasks of an app live, in order, one entry a task.
func (m *sim) where(id app.PathID) []string {
	var agents []string
	for _, task := range m.cluster.Tasks() {
		if task.Alive && task.Info.GetName() == id.HostName() {
			agents = append(agents, task.Info.GetAgentId().GetValue())
		}
	}
	slices.Sort(agents)
	return agents
}

func wantOn(t *testing.T, m *sim, when string, agents ...string) {
	t.Helper()
	if got := m.where("/d"); !slices.Equal(got, agents) {
		t.Errorf("%s it is on %v, want %v", when, got, agents)
	}
}

// neverTwo checks at each decision that no agent has two tasks of the app, and counts how few live tasks there are at least.
func neverTwo(m *sim) (least *int) {
	most := 1 << 30
	m.observe = func(scheduler.Decision) bool {
		agents := m.where("/d")
		most = min(most, len(agents))
		if len(slices.Compact(slices.Clone(agents))) != len(agents) {
			m.t.Errorf("%v: two on one agent: %v", m.now.Sub(begin), agents)
		}
		return true
	}
	return &most
}

func TestDaemonFollowsNodes(t *testing.T) {
	m := newCrew(t, 3)
	neverTwo(m)
	m.mustPut(`{"id":"/d","cmd":"x"` + everywhere + `}`)
	m.advance(time.Minute)
	wantOn(t, m, "at first", "a0", "a1", "a2")
	wantHistory(t, m, "deployment-1 succeeded 2/2")
	if queue := m.s.View().Queue(m.now); len(queue) > 0 {
		t.Errorf("%d of %s wait", queue[0].Count, queue[0].App.ID)
	}

	m.join()
	m.advance(time.Second)
	wantOn(t, m, "when a node has joined,", "a0", "a1", "a2", "a3")

	// A task that ends is launched again on its node, and the others stay.
	before := m.s.View().Instances("/d")
	if err := m.cluster.End(before[0].TaskID, mesos.TaskState_TASK_FAILED, "it broke"); err != nil {
		t.Fatal(err)
	}
	m.advance(10 * time.Second)
	wantOn(t, m, "when one has failed,", "a0", "a1", "a2", "a3")
	for _, i := range before[1:] {
		if now := m.s.View().Instance(i.ID); now == nil || now.TaskID != i.TaskID {
			t.Errorf("%s has not stayed", i.TaskID)
		}
	}

	// One that can't be reached is not replaced, for however long, and goes on when it is back.
	lost := m.s.View().Instances("/d")[0]
	m.cluster.Lose(lost.AgentID)
	m.advance(time.Hour)
	if i := m.s.View().Instance(lost.ID); i == nil || i.Condition != scheduler.Unreachable {
		t.Errorf("the one on the node that can't be reached is %+v", i)
	}
	if got := len(m.s.View().Instances("/d")); got != 4 {
		t.Errorf("there are %d instances", got)
	}
	m.cluster.Return(lost.AgentID)
	m.advance(time.Minute)
	wantOn(t, m, "when the node is back,", "a0", "a1", "a2", "a3")
	if i := m.s.View().Instance(lost.ID); i == nil || i.TaskID != lost.TaskID || i.Condition != scheduler.Running {
		t.Errorf("on the node that is back there is %+v", i)
	}

	// One that has left for good takes its instance along.
	m.cluster.Lose(lost.AgentID)
	m.advance(time.Minute)
	m.s.Handle(m.now, scheduler.Status{Status: &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: &lost.TaskID}, AgentId: &mesos.AgentID{Value: &lost.AgentID}, State: mesos.TaskState_TASK_GONE_BY_OPERATOR.Enum(),
	}})
	m.advance(time.Hour)
	if got := m.s.View().Instances("/d"); len(got) != 3 || slices.ContainsFunc(got, func(i *scheduler.Instance) bool { return i.AgentID == lost.AgentID }) {
		t.Errorf("%d instances are left", len(got))
	}
	if keys := m.store.Keys("marathon/instances/"); len(keys) != 3 {
		t.Errorf("%d instances are stored", len(keys))
	}
}

func TestDaemonAndResources(t *testing.T) {
	m := newCrew(t, 2)
	m.mustPut(`{"id":"/big","cmd":"x","cpus":3.5,"constraints":[["hostname","IS","h1"]]}`)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d","cmd":"x","cpus":1` + everywhere + `}`)
	m.advance(time.Minute)
	wantOn(t, m, "beside a large app", "a0")
	wantHistory(t, m, "deployment-2 succeeded 2/2", "deployment-1 succeeded 2/2")
	m.mustPut(`{"id":"/big","instances":0}`)
	m.advance(3 * time.Minute)
	wantOn(t, m, "when there is room", "a0", "a1")

	// What fits nowhere is in the queue, with what each node lacks.
	m.mustPut(`{"id":"/e","cmd":"x","cpus":100` + everywhere + `}`)
	m.advance(time.Minute)
	queue := m.s.View().Queue(m.now)
	if len(queue) != 1 || queue[0].App.ID != "/e" || queue[0].Count != 1 || len(queue[0].Refusals) != 2 {
		t.Fatalf("the queue is %+v", queue)
	}
	if why := queue[0].Refusals[0].Reasons[0].Why; !strings.Contains(why, "100") {
		t.Errorf("the reason is %q", why)
	}
	if m.s.View().DeploymentOf("/e") == "" {
		t.Error("the deployment of what fits nowhere has ended")
	}
}

func TestDaemonIsSuspendedAndRemoved(t *testing.T) {
	m := newCrew(t, 3)
	neverTwo(m)
	m.mustPut(`{"id":"/d","cmd":"x"` + everywhere + `}`)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d","instances":0}`)
	m.advance(time.Minute)
	wantOn(t, m, "suspended")
	m.join()
	m.advance(time.Minute)
	wantOn(t, m, "still suspended")
	m.mustPut(`{"id":"/d","instances":1}`)
	m.advance(time.Minute)
	wantOn(t, m, "again", "a0", "a1", "a2", "a3")
	if _, err := m.remove("/d", false); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	wantOn(t, m, "removed")
	if got := len(m.s.View().Deployments()); got != 0 || len(m.store.Keys("marathon/instances/")) != 0 {
		t.Errorf("%d deployments are left, and instances %v", got, m.store.Keys("marathon/instances/"))
	}
}

func TestDaemonUpgradeGoesNodeByNode(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("with another leader: %v", crash), func(t *testing.T) {
			m := newCrew(t, 4)
			m.mustPut(`{"id":"/d","cmd":"x"` + everywhere + `}`)
			m.advance(time.Minute)
			least := neverTwo(m)
			m.mustPut(`{"id":"/d","cmd":"y"}`)
			if crash {
				m.advance(4 * time.Second)
				m.again()
			}
			m.advance(2 * time.Minute)
			wantOn(t, m, "upgraded", "a0", "a1", "a2", "a3")
			wantHistory(t, m, "deployment-2 succeeded 1/1", "deployment-1 succeeded 2/2")
			if *least < 3 {
				t.Errorf("only %d of 4 ran at a time", *least)
			}
			for _, i := range m.s.View().Instances("/d") {
				if m.s.View().Definition(i).Cmd != "y" {
					t.Errorf("%s is of the old definition", i.TaskID)
				}
			}
		})
	}
}

// TestDaemonUpgradeStops: a version that fails gets no further than one node, and one that does not fit there is left out.
func TestDaemonUpgradeStops(t *testing.T) {
	m := newCrew(t, 3)
	m.mustPut(`{"id":"/d","cmd":"x"` + everywhere + `}`)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d","cmd":"y","healthChecks":[{"protocol":"TCP"}]}`)
	m.advance(4 * time.Second)
	for range 40 { // what is new dies before it is healthy
		for _, i := range m.s.View().Instances("/d") {
			if m.s.View().Definition(i).Cmd == "y" && i.Condition == scheduler.Running {
				if err := m.cluster.End(i.TaskID, mesos.TaskState_TASK_FAILED, "it broke"); err != nil {
					t.Fatal(err)
				}
			}
		}
		m.advance(30 * time.Second)
	}
	old := 0
	for _, i := range m.s.View().Instances("/d") {
		if m.s.View().Definition(i).Cmd == "x" && i.Condition == scheduler.Running && i.Goal == scheduler.GoalRunning {
			old++
		}
	}
	if old != 2 {
		t.Errorf("%d of the old version run, want 2", old)
	}

	m = newCrew(t, 3)
	m.mustPut(`{"id":"/d","cmd":"x"` + everywhere + `}`)
	m.mustPut(`{"id":"/big","cmd":"x","cpus":2.5,"constraints":[["hostname","IS","h1"]]}`)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d","cpus":2}`)
	m.advance(2 * time.Minute)
	wantOn(t, m, "where there is room", "a0", "a2")
	if m.s.View().DeploymentOf("/d") != "" {
		t.Error("the upgrade has not ended")
	}
}

// TestDaemonThatFailsOnOneNode: a deployment has not succeeded while a node is without an instance since its tasks fail, for
// however long the next launch is put off.
func TestDaemonThatFailsOnOneNode(t *testing.T) {
	const checked = `,"healthChecks":[{"protocol":"TCP"}]`
	for _, c := range []struct {
		name, more string
		state      mesos.TaskState
		after      time.Duration // the launch
	}{
		{"fails", "", mesos.TaskState_TASK_FAILED, time.Second},
		{"is killed since it never gets healthy", checked, mesos.TaskState_TASK_KILLED, 20 * time.Second},
	} {
		for _, upgrade := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, upgrade: %v", c.name, upgrade), func(t *testing.T) {
				m := newCrew(t, 2)
				bad := "a1"
				if upgrade {
					m.mustPut(`{"id":"/d","cmd":"x"` + everywhere + `}`)
					m.advance(time.Minute)
				}
				asked := m.now
				id := m.mustPut(`{"id":"/d","cmd":"y","backoffSeconds":10,"starling":{"daemon":true,"deploymentDeadlineSeconds":600}` + c.more + `}`)
				if upgrade { // the last node is where it fails
					m.advance(4 * time.Second)
					for _, i := range m.s.View().Instances("/d") {
						if m.s.View().Definition(i).Cmd == "x" && i.Goal == scheduler.GoalRunning {
							bad = i.AgentID
						}
					}
				}
				launches := 0
				for m.s.View().Deployment(id) != nil && m.now.Sub(asked) < 20*time.Minute {
					m.advance(time.Second)
					for _, i := range m.s.View().Instances("/d") {
						switch {
						case m.s.View().Definition(i).Cmd != "y" || i.Condition != scheduler.Running:
						case i.AgentID != bad:
							if c.more != "" {
								m.handleInput(scheduler.HealthResult{Instance: i.ID, TaskID: i.TaskID, Alive: true})
							}
						case m.now.Sub(i.StagedAt) >= c.after:
							launches++
							if err := m.cluster.End(i.TaskID, c.state, ""); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				if launches < 5 {
					t.Errorf("only %d launches that came to nothing", launches)
				}
				if !slices.ContainsFunc(m.s.View().History(), func(e *scheduler.Ended) bool { return e.ID == id && e.Outcome == scheduler.Overdue }) {
					t.Errorf("it is not rolled back at its deadline: the history is %q", m.history())
				}
			})
		}
	}
}

// TestDaemonInBackoff: one whose launches are put off is in the queue, though it runs elsewhere, and need not wait.
func TestDaemonInBackoff(t *testing.T) {
	m := newCrew(t, 2)
	m.mustPut(`{"id":"/d","cmd":"x","backoffSeconds":300` + everywhere + `}`)
	m.advance(time.Minute)
	if err := m.cluster.End(m.s.View().Instances("/d")[0].TaskID, mesos.TaskState_TASK_FAILED, ""); err != nil {
		t.Fatal(err)
	}
	failed := m.now
	m.advance(time.Minute)
	queue := m.s.View().Queue(m.now)
	if len(queue) != 1 || queue[0].Count != 1 || !queue[0].Since.Equal(failed) || !queue[0].Until.Equal(failed.Add(300*time.Second)) {
		t.Errorf("the queue is %+v", queue)
	}
	reset := func() (done bool) {
		m.tell(func(s *scheduler.Scheduler) { done = s.ResetDelay("/d") })
		return done
	}
	if !reset() {
		t.Error("its delay can't be reset")
	}
	m.advance(10 * time.Second)
	wantOn(t, m, "without the delay", "a0", "a1")
	if len(m.s.View().Queue(m.now)) > 0 || reset() {
		t.Error("it still waits")
	}
}

// TestDaemonAfterARestore: an agent with a task that the backup does not know gets no other, and what runs stays.
func TestDaemonAfterARestore(t *testing.T) {
	m := newCrew(t, 3)
	m.mustPut(`{"id":"/d","cmd":"x","constraints":[["hostname","LIKE","h0"]]` + everywhere + `}`)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d","cmd":"y","constraints":[["hostname","LIKE","h[01]"]]}`)
	m.pump() // and is not done
	old := m.store.Clone()
	m.advance(time.Minute)
	wantOn(t, m, "at first", "a0", "a1")
	before := m.cluster.Tasks()
	neverTwo(m)
	m.restore(old)
	m.advance(time.Hour)
	wantOn(t, m, "after the restore", "a0", "a1")
	if after := m.cluster.Tasks(); len(after) != len(before) {
		t.Errorf("there were %d tasks, and are %d", len(before), len(after))
	}
}

// TestDaemonUpgradeWithoutNode: a node that can't be reached holds nothing up, and is seen to when it is back.
func TestDaemonUpgradeWithoutNode(t *testing.T) {
	m := newCrew(t, 3)
	m.mustPut(`{"id":"/d","cmd":"x"` + everywhere + `}`)
	m.advance(time.Minute)
	neverTwo(m)
	m.cluster.Lose("a1")
	m.mustPut(`{"id":"/d","cmd":"y"}`)
	m.advance(2 * time.Minute)
	if m.s.View().DeploymentOf("/d") != "" {
		t.Error("the upgrade has not ended")
	}
	m.cluster.Return("a1")
	m.advance(time.Minute)
	wantOn(t, m, "in the end", "a0", "a1", "a2")
	for _, i := range m.s.View().Instances("/d") {
		if m.s.View().Definition(i).Cmd != "y" {
			t.Errorf("%s is of the old definition", i.TaskID)
		}
	}
}

func TestDaemonFromAnApp(t *testing.T) {
	m := newCrew(t, 2)
	m.mustPut(`{"id":"/d","cmd":"x","instances":5}`)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d"` + everywhere + `}`)
	m.advance(2 * time.Minute)
	wantOn(t, m, "made a daemon", "a0", "a1")
	m.mustPut(`{"id":"/d","starling":{},"instances":3}`)
	m.advance(2 * time.Minute)
	if got := m.where("/d"); len(got) != 3 {
		t.Errorf("made no daemon any more it is on %v", got)
	}
	if got := m.s.View().Deployments(); len(got) > 0 {
		t.Errorf("deployment %s has not ended", got[0].Plan.ID)
	}
}

// TestInstanceIndex looks at the numbers that tasks are given.
func TestInstanceIndex(t *testing.T) {
	m := newCrew(t, 3)
	numbers := func() []string { return m.numbersOf("/d") }
	want := func(when string, numbers []string, want ...string) {
		t.Helper()
		if !slices.Equal(numbers, want) {
			t.Errorf("%s the numbers are %v, want %v", when, numbers, want)
		}
	}
	const indexed = `{"id":"/d","cmd":"x","starling":{"instanceIndex":true}`
	m.mustPut(indexed + `,"instances":3}`)
	m.advance(time.Minute)
	want("at first", numbers(), "0", "1", "2")

	// A task that fails is replaced under its number.
	i := m.s.View().Instances("/d")[1]
	if err := m.cluster.End(i.TaskID, mesos.TaskState_TASK_FAILED, ""); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	want("after a failure", numbers(), "0", "1", "2")
	if now := m.s.View().Instance(i.ID); now == nil || now.TaskID == i.TaskID || *now.Index != *i.Index {
		t.Errorf("in place of %+v there is %+v", i, now)
	}
	// So is one that is killed and forgotten.
	m.s.KillTasks(m.now, scheduler.KillRequest{Instances: []app.InstanceID{i.ID}, Wipe: true})
	m.advance(time.Minute)
	want("after a wipe", numbers(), "0", "1", "2")

	// The surplus of an upgrade takes new numbers, and the next one the old ones.
	m.mustPut(`{"id":"/d","cmd":"y"}`)
	m.advance(time.Minute)
	want("after an upgrade", numbers(), "3", "4", "5")
	m.again()
	want("with another leader", numbers(), "3", "4", "5")
	m.mustPut(`{"id":"/d","cmd":"z"}`)
	m.advance(time.Minute)
	want("after the next", numbers(), "0", "1", "2")
	// Where there is no surplus the number goes from the one to the other.
	m.mustPut(`{"id":"/d","cmd":"w","upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0}}`)
	m.advance(time.Minute)
	want("after an upgrade in place", numbers(), "0", "1", "2")
	// Scaling down takes the highest numbers, whatever the age, and up again leaves no gap.
	young := m.s.View().Instances("/d")
	i = young[slices.IndexFunc(young, func(i *scheduler.Instance) bool { return *i.Index == 0 })]
	if err := m.cluster.End(i.TaskID, mesos.TaskState_TASK_FAILED, ""); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d","instances":1}`)
	m.advance(time.Minute)
	want("scaled down", numbers(), "0")
	m.mustPut(`{"id":"/d","instances":4}`)
	m.advance(time.Minute)
	want("scaled", numbers(), "0", "1", "2", "3")
	// One that can't be reached keeps its number, since its task may still use it.
	lost := m.s.View().Instances("/d")[0]
	m.cluster.Lose(lost.AgentID)
	m.advance(time.Minute)
	held := map[int]int{}
	for _, i := range m.s.View().Instances("/d") {
		held[*i.Index]++
	}
	for n, count := range held {
		if count > 1 {
			t.Errorf("number %d is held %d times", n, count)
		}
	}
	// Nobody who does not ask has one.
	m.mustPut(`{"id":"/plain","cmd":"x"}`)
	m.advance(time.Minute)
	for _, i := range m.s.View().Instances("/plain") {
		if i.Index != nil {
			t.Errorf("%s has number %d", i.TaskID, *i.Index)
		}
	}
}

// numbersOf are the numbers of the live tasks of an app, behind a partition or not, in order.
func (m *sim) numbersOf(id app.PathID) []string {
	var out []string
	for _, task := range m.cluster.Tasks() {
		if task.State != mesos.TaskState_TASK_RUNNING || task.Info.GetName() != id.HostName() {
			continue
		}
		for _, v := range task.Info.GetCommand().GetEnvironment().GetVariables() {
			if v.GetName() == "STARLING_INSTANCE_INDEX" {
				out = append(out, v.GetValue())
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestInstanceIndexBehindAPartition has tasks live on where they can't be reached, in every way in which their instances are given
// up: nothing else gets their numbers until their node is back or gone.
func TestInstanceIndexBehindAPartition(t *testing.T) {
	for name, giveUp := range map[string]func(m *sim, lost *scheduler.Instance){
		"replaced": func(*sim, *scheduler.Instance) {},
		"upgraded": func(m *sim, _ *scheduler.Instance) { m.mustPut(`{"id":"/d","cmd":"y"}`) },
		"killed": func(m *sim, lost *scheduler.Instance) {
			m.tell(func(s *scheduler.Scheduler) {
				s.KillTasks(m.now, scheduler.KillRequest{Instances: []app.InstanceID{lost.ID}})
			})
		},
		"wiped": func(m *sim, lost *scheduler.Instance) {
			m.tell(func(s *scheduler.Scheduler) {
				s.KillTasks(m.now, scheduler.KillRequest{Instances: []app.InstanceID{lost.ID}, Wipe: true})
			})
		},
		"scaled": func(m *sim, _ *scheduler.Instance) {
			m.mustPut(`{"id":"/d","instances":2}`)
			m.advance(time.Minute)
			m.mustPut(`{"id":"/d","instances":3}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newCrew(t, 4)
			m.mustPut(`{"id":"/d","cmd":"x","instances":3,"constraints":[["hostname","UNIQUE"]],"starling":{"instanceIndex":true}}`)
			m.advance(time.Minute)
			unique := func(when string) {
				t.Helper()
				if got := m.numbersOf("/d"); len(slices.Compact(slices.Clone(got))) != len(got) {
					t.Errorf("%s the numbers are %v", when, got)
				}
			}
			all := m.s.View().Instances("/d")
			lost := all[slices.IndexFunc(all, func(i *scheduler.Instance) bool { return *i.Index == 0 })]
			m.cluster.Lose(lost.AgentID)
			giveUp(m, lost)
			m.advance(time.Hour)
			unique("behind the partition")
			if got := len(m.numbersOf("/d")); got != 4 {
				t.Errorf("%d tasks live, with the one behind the partition", got)
			}
			if got := m.s.View().Deployments(); len(got) > 0 {
				t.Errorf("deployment %s has not ended", got[0].Plan.ID)
			}
			m.again()
			m.advance(time.Hour)
			unique("with another leader")
			m.cluster.Return(lost.AgentID)
			m.advance(time.Minute)
			unique("when the node is back")
			if got := m.numbersOf("/d"); len(got) != 3 {
				t.Errorf("when the node is back %v live", got)
			}
			m.cluster.Lose(m.s.View().Instances("/d")[0].AgentID)
			m.advance(time.Minute)
			if _, err := m.remove("/d", false); err != nil {
				t.Fatal(err)
			}
			m.advance(time.Minute)
			if got := m.s.View().Instances("/d"); len(got) > 0 || len(m.s.View().Deployments()) > 0 {
				t.Errorf("of the removed app %d instances and %d deployments are left", len(got), len(m.s.View().Deployments()))
			}
		})
	}
}

// TestDaemonResumedBehindAPartition suspends and resumes it while a node is away: that one never has two.
func TestDaemonResumedBehindAPartition(t *testing.T) {
	m := newCrew(t, 2)
	m.mustPut(`{"id":"/d","cmd":"x"` + everywhere + `}`)
	m.advance(time.Minute)
	neverTwo(m)
	lost := m.s.View().Instances("/d")[0]
	m.cluster.Lose(lost.AgentID)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d","instances":0}`)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/d","instances":1}`)
	m.advance(time.Minute)
	if i := m.s.View().Instance(lost.ID); i == nil || i.Goal != scheduler.GoalDecommissioned {
		t.Errorf("while its node is away it is %+v", i)
	}
	m.cluster.Return(lost.AgentID)
	m.advance(time.Minute)
	wantOn(t, m, "when the node is back,", "a0", "a1")
	if i := m.s.View().Instance(lost.ID); i != nil {
		t.Errorf("the one that was to end is %+v", i)
	}
}
