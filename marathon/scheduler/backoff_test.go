package scheduler_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/master/mesos"
)

// newLoop is a running app of n instances on agents with room for ten times as many. launches collects when tasks were
// launched, since the app came up.
func newLoop(t *testing.T, n int) (m *sim, launches *[]time.Duration) {
	t.Helper()
	m = newSim(t, 7)
	for i := range 4 {
		m.cluster.Add(mastertest.Agent{
			ID: fmt.Sprintf("a%d", i), Host: fmt.Sprintf("h%d", i), CPUs: float64(n), Mem: 1 << 20, Disk: 1 << 20, FirstPort: 31000, LastPort: 32999,
		})
	}
	m.subscribe()
	if _, err := m.put(fmt.Sprintf(`{"id":"/web","cmd":"run","cpus":0.1,"mem":16,"instances":%d}`, n), false); err != nil {
		t.Fatal(err)
	}
	m.advance(10 * time.Second)
	if got := m.cluster.Alive()["web"]; got != n {
		t.Fatalf("%d tasks run, want %d", got, n)
	}
	up := m.now
	launches = new([]time.Duration)
	m.observe = func(d scheduler.Decision) bool {
		if accept, ok := d.(scheduler.Accept); ok {
			for range accept.Tasks {
				*launches = append(*launches, m.now.Sub(up))
			}
		}
		return true
	}
	return m, launches
}

// end ends up to n of the app's tasks that are alive, all at this moment, those with the fewest launches behind first; n
// below 0 means all. change may add to what is told.
func (m *sim) end(n int, state mesos.TaskState, change func(*mesos.TaskStatus)) {
	m.t.Helper()
	var alive []app.TaskID
	for _, task := range m.cluster.Tasks() {
		if !task.Alive {
			continue
		}
		id, err := app.ParseTaskID(task.Info.GetTaskId().GetValue())
		if err != nil {
			m.t.Fatal(err)
		}
		alive = append(alive, id)
	}
	slices.SortStableFunc(alive, func(a, b app.TaskID) int { return a.Incarnation - b.Incarnation })
	if n >= 0 {
		alive = alive[:n]
	}
	for _, id := range alive {
		if err := m.cluster.End(id.String(), state, ""); err != nil {
			m.t.Fatal(err)
		}
	}
	events, _, _ := m.cluster.Events()
	for _, e := range events {
		if change != nil {
			change(e.GetUpdate().GetStatus())
		}
		m.handle(e)
	}
	m.pump()
}

// delay is how long launches of the app are held back from now.
func (m *sim) delay() time.Duration {
	for _, q := range m.s.View().Queue(m.now) {
		if q.App.ID == app.PathID("/web") && q.Until.After(m.now) {
			return q.Until.Sub(m.now)
		}
	}
	return 0
}

// A burst of failures is one failure: however many tasks die together, all are launched again together after one step.
func TestBurstCountsOnce(t *testing.T) {
	for _, n := range []int{1, 20, 250} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			m, launches := newLoop(t, n)
			m.end(-1, mesos.TaskState_TASK_FAILED, nil)
			if got := m.delay(); got != time.Second {
				t.Errorf("held back for %v, want 1s", got)
			}
			m.advance(3 * time.Second)
			if got := m.cluster.Alive()["web"]; got != n {
				t.Errorf("%d tasks run after 3s, want %d", got, n)
			}
			if l := *launches; len(l) != n || l[0] < time.Second || l[n-1] > time.Second+200*time.Millisecond {
				t.Errorf("%d launches, at %v; want %d within 200ms of 1s", len(l), l, n)
			}
		})
	}
}

// An app whose tasks die as soon as they are launched climbs one step a round, whether it has one instance or many, to its
// limit. From the second round on only a few are tried.
func TestCrashLoopClimbs(t *testing.T) {
	for _, n := range []int{1, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			m, launches := newLoop(t, n)
			want := time.Second
			for round := range 45 {
				m.end(-1, mesos.TaskState_TASK_FAILED, nil)
				if got := m.delay(); got != want {
					t.Fatalf("round %d: held back for %v, want %v", round, got, want)
				}
				before := len(*launches)
				m.advance(want - time.Millisecond)
				if got := len(*launches) - before; got != 0 {
					t.Fatalf("round %d: %d launches before the deadline", round, got)
				}
				m.advance(time.Second)
				tried := n
				if round > 0 {
					tried = min(n, 5)
				}
				if got := len(*launches) - before; got != tried {
					t.Fatalf("round %d: %d launches after the deadline, want %d", round, got, tried)
				}
				want = min(time.Duration(float64(want)*1.15), 300*time.Second)
			}
			if want != 300*time.Second {
				t.Errorf("climbed to %v", want)
			}
		})
	}
}

// Failures that come one after the other each wait, but those of tasks from before the last step raise nothing.
func TestOldTasksRaiseNothing(t *testing.T) {
	m, _ := newLoop(t, 10)
	for n := range 10 {
		m.end(1, mesos.TaskState_TASK_FAILED, nil)
		if got := m.delay(); got != time.Second {
			t.Errorf("failure %d: held back for %v", n, got)
		}
		m.advance(5 * time.Second)
	}
	if got := m.cluster.Alive()["web"]; got != 10 {
		t.Errorf("%d tasks run, want 10", got)
	}
}

// A failure does not slow down a scaling that comes after its deadline.
func TestScaleAfterFailure(t *testing.T) {
	m, launches := newLoop(t, 1)
	m.end(1, mesos.TaskState_TASK_FAILED, nil)
	m.advance(2 * time.Second)
	*launches = nil
	if _, err := m.put(`{"id":"/web","instances":30}`, false); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Second)
	if got := len(*launches); got != 29 {
		t.Errorf("%d launches within a second, want 29", got)
	}
}

// What the platform did to a task is not held against its app.
func TestPlatformFaultsCostNothing(t *testing.T) {
	for name, test := range map[string]struct {
		state  mesos.TaskState
		reason mesos.TaskStatus_Reason
		delay  time.Duration
	}{
		"agent restarted before the launch": {mesos.TaskState_TASK_DROPPED, mesos.TaskStatus_REASON_AGENT_RESTARTED, 0},
		"agent disconnected":                {mesos.TaskState_TASK_DROPPED, mesos.TaskStatus_REASON_AGENT_DISCONNECTED, 0},
		"agent removed":                     {mesos.TaskState_TASK_DROPPED, mesos.TaskStatus_REASON_AGENT_REMOVED, 0},
		"offer was gone":                    {mesos.TaskState_TASK_DROPPED, mesos.TaskStatus_REASON_INVALID_OFFERS, 0},
		"agent does not know it":            {mesos.TaskState_TASK_DROPPED, mesos.TaskStatus_REASON_RECONCILIATION, 0},
		"the same, lumped together":         {mesos.TaskState_TASK_LOST, mesos.TaskStatus_REASON_AGENT_RESTARTED, 0},
		"gone":                              {mesos.TaskState_TASK_GONE, mesos.TaskStatus_REASON_RECONCILIATION, 0},
		"gone by operator":                  {mesos.TaskState_TASK_GONE_BY_OPERATOR, mesos.TaskStatus_REASON_AGENT_REMOVED_BY_OPERATOR, 0},
		"agent drained":                     {mesos.TaskState_TASK_FAILED, mesos.TaskStatus_REASON_AGENT_DRAINING, 0},
		"dropped for its own sake":          {mesos.TaskState_TASK_DROPPED, mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED, time.Second},
		"lost by its executor":              {mesos.TaskState_TASK_LOST, mesos.TaskStatus_REASON_EXECUTOR_TERMINATED, time.Second},
		"refused as invalid":                {mesos.TaskState_TASK_ERROR, mesos.TaskStatus_REASON_TASK_INVALID, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			m, launches := newLoop(t, 40)
			m.end(39, test.state, func(s *mesos.TaskStatus) { s.Reason = test.reason.Enum() })
			if got := m.delay(); got != test.delay {
				t.Errorf("held back for %v, want %v", got, test.delay)
			}
			m.advance(test.delay + time.Second)
			if got := len(*launches); got != 39 {
				t.Errorf("%d launches, want 39", got)
			}
		})
	}
}

// Of an app with hundreds of instances that all crash only some are tried in each round; once they last all are back within
// seconds. One crash among many that are well holds up nobody.
func TestFewAreTriedAfterAllHaveCrashed(t *testing.T) {
	m, launches := newLoop(t, 400)
	m.end(-1, mesos.TaskState_TASK_FAILED, nil)
	m.advance(2 * time.Second)
	if got := m.cluster.Alive()["web"]; got != 400 {
		t.Fatalf("%d tasks run after the first crash, want 400", got)
	}
	m.end(-1, mesos.TaskState_TASK_FAILED, nil)
	for range 10 { // rounds of the backoff, the last of which comes after 20 s
		n := len(*launches)
		for len(*launches) == n {
			m.advance(100 * time.Millisecond)
		}
		if tried := len(*launches) - n; tried > 5 {
			t.Fatalf("%d tasks were launched at once, want 5 at most", tried)
		}
		m.end(-1, mesos.TaskState_TASK_FAILED, nil)
	}
	crashed := len(*launches)
	if crashed > 400+11*5 {
		t.Errorf("%d tasks were launched in ten rounds", crashed)
	}
	for m.cluster.Alive()["web"] == 0 {
		m.advance(100 * time.Millisecond)
	}
	m.advance(30 * time.Second)
	if got := m.cluster.Alive()["web"]; got != 400 {
		t.Errorf("%d tasks run 30 s after they began to last, want 400", got)
	}
	m.end(1, mesos.TaskState_TASK_FAILED, nil)
	if _, err := m.put(`{"id":"/web","instances":700}`, false); err != nil {
		t.Fatal(err)
	}
	m.advance(20 * time.Second)
	if got := m.cluster.Alive()["web"]; got != 700 {
		t.Errorf("%d tasks run after a scaling right behind one crash, want 700", got)
	}
}
