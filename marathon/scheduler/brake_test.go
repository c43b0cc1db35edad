package scheduler_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos"
)

// site is a number of agents, a1 and so on, with one instance of /web on each of the first ones.
type site struct {
	*sim
	events []event.ReplacementBrake
}

func newSite(t *testing.T, agents, instances int, inactive int) *site {
	s := &site{sim: newSim(t, 1)}
	s.observe = func(d scheduler.Decision) bool {
		if p, ok := d.(scheduler.Publish); ok {
			if e, ok := p.Payload.(event.ReplacementBrake); ok {
				s.events = append(s.events, e)
			}
		}
		return true
	}
	for n := range agents {
		s.cluster.Add(mastertest.Agent{ID: fmt.Sprintf("a%d", n+1), Host: fmt.Sprintf("h%d", n+1), CPUs: 20, Mem: 1 << 16, Disk: 1 << 16, FirstPort: 31000, LastPort: 31999})
	}
	s.subscribe()
	constraint := ""
	if instances <= agents {
		constraint = `,"constraints":[["hostname","UNIQUE"]]`
	}
	if _, err := s.put(fmt.Sprintf(`{"id":"/web","cmd":"x","cpus":0.1,"instances":%d,"unreachableStrategy":{"inactiveAfterSeconds":%d,"expungeAfterSeconds":%d}%s}`,
		instances, inactive, inactive, constraint), false); err != nil {
		t.Fatal(err)
	}
	s.advance(10 * time.Second)
	s.have(instances)
	return s
}

func (s *site) have(alive int) {
	s.t.Helper()
	if got := s.cluster.Alive()["web"]; got != alive {
		s.t.Fatalf("%v: %d instances are alive, want %d", s.now.Sub(begin), got, alive)
	}
}

func (s *site) brake() scheduler.Brake { return s.s.View().Brake(s.now) }

// agents are those that hold an instance, in order.
func (s *site) holders() []string {
	var ids []string
	for id, n := range s.onAgents("web") {
		if n > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func TestBrakeHoldsReplacementBack(t *testing.T) {
	s := newSite(t, 5, 5, 0)
	for _, id := range []string{"a1", "a2", "a3"} { // all in one round
		s.cluster.Lose(id)
	}
	s.advance(time.Hour)
	s.have(2)
	b := s.brake()
	if !b.On || b.HeldBack != 3 || b.Agents != 5 || !slices.Equal(b.Lost, []string{"a1", "a2", "a3"}) || b.Reason() == "" {
		t.Errorf("brake is %+v", b)
	}
	if len(s.events) != 1 || !s.events[0].Engaged || s.events[0].Lost != 3 || s.events[0].Agents != 5 || s.events[0].Reason == "" {
		t.Errorf("events are %+v", s.events)
	}
	queue := s.s.View().Queue(s.now)
	if len(queue) != 1 || queue[0].HeldBack != 3 || queue[0].Count != 0 || queue[0].Since.IsZero() {
		t.Errorf("queue is %+v", queue)
	}
	// One that fails on an agent that is there is replaced as ever.
	id := s.cluster.Tasks()[0].Info.GetTaskId().GetValue()
	for _, task := range s.cluster.Tasks() {
		if task.Alive {
			id = task.Info.GetTaskId().GetValue()
		}
	}
	if err := s.cluster.End(id, mesos.TaskState_TASK_FAILED, ""); err != nil {
		t.Fatal(err)
	}
	s.advance(10 * time.Second)
	s.have(2)

	s.cluster.Return("a1") // three of five are there: no brake, and the two others are replaced at once, where that is possible
	s.advance(time.Second)
	s.have(3)
	if s.brake().On || len(s.events) != 2 || s.events[1].Engaged {
		t.Errorf("brake is %+v after events %+v", s.brake(), s.events)
	}
	if n := len(s.s.View().Queue(s.now)); n != 1 {
		t.Errorf("%d apps are in the queue, want /web, which has no place left for two", n)
	}
	s.cluster.Return("a2")
	s.cluster.Return("a3")
	s.advance(30 * time.Second)
	s.have(5)
	if twice := s.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
}

// An upgrade that has begun does not start again on the few agents that are left what runs on the others.
func TestBrakeHoldsAnUpgradeBack(t *testing.T) {
	s := newSite(t, 5, 20, 3600)
	if _, err := s.put(`{"id":"/web","cmd":"two","upgradeStrategy":{"minimumHealthCapacity":0.9,"maximumOverCapacity":0}}`, false); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Lose(id)
	}
	left := s.cluster.Alive()["web"]
	s.advance(30 * time.Minute)
	if got := s.cluster.Alive()["web"]; !s.brake().On || got > left+4 {
		t.Errorf("%d run, and %d did before, while the brake is %+v", got, left, s.brake())
	}
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Return(id)
	}
	s.advance(10 * time.Minute)
	s.have(20)
	if n := len(s.s.View().Deployments()); n > 0 {
		t.Errorf("%d deployments go on though the agents are back", n)
	}
}

// TestBrakeSeesALossBitByBit has agents die one after the other, of which each has its instances replaced before the next
// one dies: together they are a loss of most.
func TestBrakeSeesALossBitByBit(t *testing.T) {
	s := newSite(t, 5, 20, 0)
	for _, id := range []string{"a1", "a2"} {
		s.cluster.Lose(id)
		s.advance(10 * time.Second)
	}
	s.have(20)
	if s.brake().On {
		t.Error("two of five put the brake on")
	}
	s.cluster.Lose("a3")
	s.advance(10 * time.Minute)
	if b := s.brake(); !b.On || b.HeldBack == 0 {
		t.Errorf("brake is %+v after a third", b)
	}
	if alive := s.cluster.Alive()["web"]; alive == 20 {
		t.Error("everything was replaced")
	}
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Return(id)
	}
	s.advance(30 * time.Second)
	s.have(20)
}

// TestBrakeLiftsWhereFewDied has an app on few of many agents: that most of these die is no loss of most.
func TestBrakeLiftsWhereFewDied(t *testing.T) {
	s := newSite(t, 10, 3, 0)
	s.advance(10 * time.Minute) // offers were declined long ago
	lost := s.holders()[:2]
	for _, id := range lost {
		s.cluster.Lose(id)
	}
	s.advance(5 * time.Second)
	s.have(3)
	if s.brake().On {
		t.Errorf("brake is %+v", s.brake())
	}
	s.advance(10 * time.Minute)
	s.have(3)
}

func TestBrakeIsLiftedByAnOperator(t *testing.T) {
	s := newSite(t, 4, 8, 0)
	if s.s.LiftBrake(s.now) {
		t.Error("a brake that is off was lifted")
	}
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Lose(id)
	}
	s.advance(time.Minute)
	s.have(2)
	if !s.s.LiftBrake(s.now) {
		t.Error("the brake was not on")
	}
	s.advance(10 * time.Second)
	s.have(8)
	if s.brake().On || len(s.events) != 2 {
		t.Errorf("brake is %+v after events %+v", s.brake(), s.events)
	}
	// They come back: too many for a moment, then right; and the next loss counts anew.
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Return(id)
	}
	s.advance(30 * time.Second)
	s.have(8)
	if _, err := s.put(`{"id":"/web","instances":16}`, false); err != nil {
		t.Fatal(err)
	}
	s.advance(10 * time.Second)
	for _, id := range []string{"a2", "a3", "a4"} {
		s.cluster.Lose(id)
	}
	s.advance(time.Minute)
	if !s.brake().On {
		t.Errorf("brake is %+v after a second loss", s.brake())
	}
}

// TestBrakeAndTheTimesOfApps has the brake on before an instance was to be replaced anyway, and lifted after.
func TestBrakeAndTheTimesOfApps(t *testing.T) {
	s := newSite(t, 4, 8, 60)
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Lose(id)
	}
	s.advance(30 * time.Second)
	if b := s.brake(); !b.On || b.HeldBack != 0 {
		t.Errorf("brake is %+v before anything is to be replaced", b)
	}
	s.advance(time.Minute)
	if b := s.brake(); !b.On || b.HeldBack != 6 {
		t.Errorf("brake is %+v", b)
	}
	s.have(2)
	s.cluster.Return("a1")
	s.cluster.Return("a2")
	s.advance(time.Second)
	s.have(8) // six are there again, and two are replaced at once
}

// TestNoBrakeOnFewAgents has two agents, where the loss of one is half and that of both leaves nothing to do.
func TestNoBrakeOnFewAgents(t *testing.T) {
	s := newSite(t, 2, 4, 0)
	s.cluster.Lose("a1")
	s.advance(10 * time.Second)
	s.have(4)
}

// TestBrakeAfterAChangeOfLeader has the leader die while the brake is on: the next one holds back as well.
func TestBrakeAfterAChangeOfLeader(t *testing.T) {
	s := newSite(t, 5, 10, 30)
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Lose(id)
	}
	s.advance(10 * time.Minute)
	s.have(4)
	s.cluster.Disconnect()
	s.start()
	s.subscribe()
	s.advance(time.Hour)
	s.have(4)
	if b := s.brake(); !b.On || b.HeldBack != 6 {
		t.Errorf("brake of the next leader is %+v", b)
	}
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Return(id)
	}
	s.advance(30 * time.Second)
	s.have(10)
	if s.brake().On {
		t.Error("the brake stays on")
	}
}

// TestBrakeLeavesAgentsGoneForGoodOut has an operator tell the master of agents that are gone: they do not count.
func TestBrakeLeavesAgentsGoneForGoodOut(t *testing.T) {
	s := newSite(t, 5, 5, 0)
	gone := s.cluster.Tasks()
	for _, id := range []string{"a1", "a2", "a3"} {
		s.cluster.Lose(id)
	}
	s.advance(time.Minute)
	s.have(2)
	for _, task := range gone {
		if agent := task.Info.GetAgentId(); agent.GetValue() == "a1" || agent.GetValue() == "a2" {
			s.cluster.Inject(&mesos.TaskStatus{
				TaskId: task.Info.GetTaskId(), AgentId: agent, State: mesos.TaskState_TASK_GONE_BY_OPERATOR.Enum(),
				Source: mesos.TaskStatus_SOURCE_MASTER.Enum(),
			})
		}
	}
	s.advance(10 * time.Second)
	if b := s.brake(); b.On {
		t.Errorf("brake is %+v with one of three lost", b)
	}
	var unreachable int
	for _, i := range s.s.View().Instances(app.PathID("/web")) {
		if i.Condition == scheduler.Unreachable {
			unreachable++
		}
	}
	if unreachable != 0 {
		t.Errorf("%d instances are kept", unreachable)
	}
}

// TestBrakeKnowsSinceWhen has two of three agents die days apart, whose instances are never replaced: the next leader does not
// take that for a loss of most at once.
func TestBrakeKnowsSinceWhen(t *testing.T) {
	s := &site{sim: newSim(t, 1)}
	for n := range 3 {
		s.cluster.Add(mastertest.Agent{ID: fmt.Sprintf("a%d", n+1), Host: fmt.Sprintf("h%d", n+1), CPUs: 20, Mem: 1 << 16, Disk: 1 << 16, FirstPort: 31000, LastPort: 31999})
	}
	s.subscribe()
	s.mustPut(`{"id":"/web","cmd":"x","cpus":0.1,"instances":3,"unreachableStrategy":"disabled","constraints":[["hostname","UNIQUE"]]}`)
	s.advance(10 * time.Second)
	s.have(3)
	for _, id := range []string{"a1", "a2"} {
		s.cluster.Lose(id)
		s.advance(24 * time.Hour)
		if s.brake().On {
			t.Fatalf("the brake is on after %s alone", id)
		}
	}
	s.again()
	s.advance(time.Minute)
	if b := s.brake(); b.On {
		t.Errorf("brake of the next leader is %+v", b)
	}
}
