package scheduler_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/scheduler"
	"starling/master/mesos"
)

// An upgrade brings the places back that were in service, and not those that were parked before: their data is old. That holds
// whichever instances are stopped first, and after a change of leader.
func TestUpgradeLeavesParkedPlacesParked(t *testing.T) {
	for _, selection := range []string{"OLDEST_FIRST", "YOUNGEST_FIRST"} {
		t.Run(selection, func(t *testing.T) {
			m := newResident(t, 5)
			m.mustPut(resident(5, `,"killSelection":"`+selection+`","constraints":[["hostname","UNIQUE"]]`))
			m.advance(30 * time.Second)
			m.mustPut(`{"id":"/db/pg","instances":3}`)
			m.advance(time.Minute)
			before := m.running()
			if len(before) != 3 {
				t.Fatalf("%d run, want 3", len(before))
			}
			m.again()
			m.advance(time.Minute)
			m.mustPut(`{"id":"/db/pg","cmd":"run 2"}`)
			m.advance(10 * time.Minute)
			if after := m.running(); !maps.Equal(after, before) {
				t.Errorf("after the upgrade there run %v, and before %v", after, before)
			}
			if n := len(m.s.View().Deployments()); n > 0 {
				t.Error("the upgrade has not ended")
			}
		})
	}
}

// A place that an upgrade has stopped and whose agent is then lost is waited for: what was parked before does not take its
// place.
func TestUpgradeWaitsForThePlaceThatItStopped(t *testing.T) {
	m := newResident(t, 3)
	m.mustPut(resident(3, `,"constraints":[["hostname","UNIQUE"]],"killSelection":"OLDEST_FIRST"`))
	m.advance(30 * time.Second)
	m.mustPut(`{"id":"/db/pg","instances":1}`)
	m.advance(time.Minute)
	id, where := m.only()
	agent := m.s.View().Instance(id).AgentID
	m.cluster.Hold(true) // so that nothing comes back before the loss
	m.observe = func(d scheduler.Decision) bool {
		if k, ok := d.(scheduler.Kill); ok && k.AgentID == agent {
			m.cluster.Lose(agent)
		}
		return true
	}
	m.mustPut(`{"id":"/db/pg","cmd":"run 2"}`)
	m.advance(time.Second)
	m.observe = nil
	m.cluster.Hold(false)
	m.advance(5 * time.Minute)
	if i := m.s.View().Instance(id); i.Goal != scheduler.GoalStopped || i.Condition != scheduler.Unreachable {
		t.Fatalf("the one in service is %s, %s", i.Goal, i.Condition)
	}
	if got := m.running(); len(got) > 0 {
		t.Errorf("while it is away there run %v", got)
	}
	m.cluster.Return(agent)
	m.advance(5 * time.Minute)
	if again, at := m.only(); again != id || at != where {
		t.Errorf("in the end %s runs at %s, and before it was %s at %s", again, at, id, where)
	}
}

// The instances of an app are in the order in which they were made, also as a new process finds them.
func TestOrderOfInstances(t *testing.T) {
	m := newResident(t, 3)
	m.mustPut(`{"id":"/a","cmd":"x"}`)
	ids := func() (out []app.InstanceID) {
		for _, i := range m.s.View().Instances("/a") {
			out = append(out, i.ID)
		}
		return out
	}
	for n := range 8 { // within as many minutes the low bits of the time in an id begin anew
		m.advance(time.Minute)
		m.mustPut(`{"id":"/a","instances":` + string(rune('1'+n)) + `}`)
	}
	m.pump()
	before := ids()
	sorted := slices.IsSortedFunc(before, func(a, b app.InstanceID) int {
		return slices.Compare([]byte(a.String()), []byte(b.String()))
	})
	if len(before) != 8 || sorted {
		t.Fatalf("there are %d, and sorted as text: %v: nothing is shown by that", len(before), sorted)
	}
	m.again()
	if after := ids(); !slices.Equal(before, after) {
		t.Errorf("they are %v, and were %v", after, before)
	}
}

// What an app is to be near to has a say in where its volumes are made, and none in whether it comes back to them.
func TestResidentComesBackWithoutItsNeighbour(t *testing.T) {
	m := newResident(t, 2)
	near := line{"a1": 0, "a2": 1}
	m.s.Handle(m.now, scheduler.Distances{Between: near})
	m.mustPut(`{"id":"/web","cmd":"x"}`)
	m.advance(10 * time.Second)
	m.mustPut(resident(1, `,"starling":{"maxLatencyMs":{"to":"/web","ms":5}}`))
	m.advance(10 * time.Second)
	before := m.running()
	if len(before) != 2 {
		t.Fatalf("%d tasks run, want 2", len(before))
	}
	if _, err := m.remove("/web", false); err != nil {
		t.Fatal(err)
	}
	m.advance(10 * time.Second)
	id, where := m.only()
	if err := m.cluster.End(m.s.View().Instance(id).TaskID, mesos.TaskState_TASK_FAILED, "x"); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	if now := m.running(); len(now) != 1 || now[id] != where || before[id] != where {
		t.Errorf("without its neighbour there run %v, want %s at %s", now, id, where)
	}
}
