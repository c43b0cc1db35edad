package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/scheduler"
	call "starling/master/mesos/scheduler"
)

// probeAll answers all checks that are run from here with success.
func (m *sim) probeAll() {
	m.t.Helper()
	for id, p := range m.probes {
		for n := range p.App.HealthChecks {
			m.s.Handle(m.now, scheduler.HealthResult{Instance: id, TaskID: p.Instance.TaskID, Index: n, Alive: true})
		}
		for _, c := range p.App.ReadinessChecks {
			m.s.Handle(m.now, scheduler.ReadinessResult{Instance: id, TaskID: p.Instance.TaskID, Name: c.Name, Ready: true})
		}
	}
	m.pump()
}

// A new leader that begins after a deployment ought to be done does not undo what was done: it first finds out. Where that
// turns out not to be done it is rolled back all the same.
func TestDeadlineDuringAnOutage(t *testing.T) {
	const checks = `,"portDefinitions":[{"port":0,"name":"web"}],"healthChecks":[{"protocol":"HTTP","path":"/","portIndex":0,"intervalSeconds":20,"timeoutSeconds":5}],
		"readinessChecks":[{"name":"r","portName":"web","intervalSeconds":20,"timeoutSeconds":5}]`
	for _, well := range []bool{true, false} {
		t.Run(fmt.Sprintf("all well: %v", well), func(t *testing.T) {
			m := newRig(t, scheduler.Config{})
			m.mustPut(`{"id":"/a","cmd":"x"` + checks + due + `}`)
			m.advance(10 * time.Second)
			m.probeAll()
			m.advance(2 * time.Minute)
			wantHistory(t, m, "deployment-1 succeeded 2/2")

			m.mustPut(`{"id":"/a","cmd":"y"}`)
			m.advance(10 * time.Second)
			if len(m.probes) != 2 {
				t.Fatalf("%d instances are checked, want an old one and a new one", len(m.probes))
			}
			// The process ends before it hears of the new one's health, and nobody leads until the deadline is over.
			m.cluster.Disconnect()
			m.now = m.now.Add(5 * time.Minute)
			m.start()
			told := failures(m)
			m.advance(time.Minute) // without a master
			m.subscribe()
			m.advance(20 * time.Second)
			if len(*told) > 0 {
				t.Fatalf("it is rolled back before anything is known: %q", *told)
			}
			if well {
				m.probeAll()
			}
			m.advance(10 * time.Minute)
			done := strings.HasPrefix(m.history()[0], "deployment-2 succeeded")
			if want := map[bool]string{true: "y", false: "x"}[well]; done != well || m.s.View().Root().App("/a").Cmd != want {
				t.Errorf("the command is %q, want %q; the history is %q", m.s.View().Root().App("/a").Cmd, want, m.history())
			}
		})
	}
}

// Tasks of which the master says nothing yet are waited for, though not for ever.
func TestDeadlineWaitsForAnswers(t *testing.T) {
	for _, returns := range []bool{true, false} {
		t.Run(fmt.Sprintf("the answer comes: %v", returns), func(t *testing.T) {
			m := newRig(t, scheduler.Config{})
			silent := true
			m.tamper = func(events []*call.Event) []*call.Event {
				return slices.DeleteFunc(events, func(e *call.Event) bool { return silent && e.GetType() == call.Event_UPDATE })
			}
			m.mustPut(`{"id":"/a","cmd":"x"` + due + `}`)
			m.advance(time.Second)
			m.cluster.Disconnect()
			m.now = m.now.Add(5 * time.Minute)
			m.start()
			told := failures(m)
			m.subscribe()
			m.advance(time.Minute)
			if len(*told) > 0 {
				t.Fatalf("it is rolled back before anything is known: %q", *told)
			}
			if silent = !returns; returns {
				m.cluster.Resend()
			}
			m.advance(20 * time.Minute)
			if returns {
				wantHistory(t, m, "deployment-1 succeeded 2/2")
			} else if len(*told) == 0 {
				t.Error("it is never rolled back")
			}
		})
	}
}

// After an outage all deadlines may be over: each is a round of its own, since each is stored with a whole tree.
func TestDeadlinesOneByOne(t *testing.T) {
	m := newRig(t, scheduler.Config{})
	const apps = 5
	for n := range apps {
		m.mustPut(fmt.Sprintf(`{"id":"/a%d","cmd":"x","cpus":1000%s}`, n, due))
	}
	m.advance(10 * time.Second)
	m.cluster.Disconnect()
	m.now = m.now.Add(time.Hour)
	m.start()
	rounds, most := 0, 0
	m.observe = func(d scheduler.Decision) bool {
		if p, ok := d.(scheduler.Persist); ok {
			trees := 0
			for _, w := range p.Writes {
				if w.Kind == scheduler.KindTree {
					trees++
				}
			}
			rounds, most = rounds+min(trees, 1), max(most, trees)
		}
		return true
	}
	m.subscribe()
	m.advance(time.Minute)
	if rounds != apps || most != 1 {
		t.Errorf("%d trees at the most are stored at once, in %d rounds; want 1 in %d", most, rounds, apps)
	}
	for n := range apps {
		if id := app.PathID(fmt.Sprintf("/a%d", n)); m.s.View().Root().App(id) != nil {
			t.Errorf("%s is still there", id)
		}
	}
}
