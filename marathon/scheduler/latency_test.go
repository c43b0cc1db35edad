package scheduler_test

import (
	"strings"
	"testing"
	"time"

	"starling/marathon/scheduler"
	"starling/marathon/task"
)

// line is a network in which nodes stand on a line, in milliseconds.
type line map[string]float64

func (l line) Distance(a, b string) (time.Duration, bool) {
	from, ok := l[a]
	to, also := l[b]
	return time.Duration(max(from-to, to-from) * float64(time.Millisecond)), ok && also
}

func TestLatency(t *testing.T) {
	near := func(to string) string {
		return `{"id":"/d","cmd":"x","instances":3,"starling":{"maxLatencyMs":{"to":"` + to + `","ms":5}}}`
	}
	m := newCrew(t, 3)
	refusals := func() string {
		var why []string
		for _, q := range m.s.View().Queue(m.now) {
			for _, r := range q.Refusals {
				for _, one := range r.Reasons {
					if one.Reason == task.ExceededMaxLatency {
						why = append(why, one.Why)
					}
				}
			}
		}
		return strings.Join(why, "\n")
	}
	check := func(when, want string, agents ...string) {
		t.Helper()
		m.advance(time.Second)
		for _, agent := range m.where("/d") {
			if !strings.Contains(strings.Join(agents, " "), agent) {
				t.Errorf("%s it is on %s, which is too far", when, agent)
			}
		}
		if got := len(m.where("/d")); (got > 0) != (len(agents) > 0) {
			t.Errorf("%s there are %d", when, got)
		}
		if got := refusals(); !strings.Contains(got, want) {
			t.Errorf("%s the reasons are %q, want %q", when, got, want)
		}
	}
	if m.s.View().NeedsDistances() {
		t.Error("distances are wanted, and no app asks for them")
	}
	m.mustPut(near("/db"))
	if !m.s.View().NeedsDistances() {
		t.Error("distances are not wanted")
	}
	check("without distances", "how far nodes are from each other is not known")
	m.s.Handle(m.now, scheduler.Distances{Between: line{"a0": 0, "a1": 4, "a2": 20, "there": 22}})
	check("without the other app", "no instance of /db runs to be near to")
	m.s.Handle(m.now, scheduler.Distances{Between: line{"a1": 4, "a2": 20}})
	m.mustPut(`{"id":"/db","cmd":"x","constraints":[["hostname","IS","h0"]]}`)
	m.advance(10 * time.Second)
	m.s.Handle(m.now, scheduler.Distances{Between: line{"a1": 4, "a2": 20}})
	check("without the place of the other", "how far the node is from the 1 running instances of /db is not known")
	m.s.Handle(m.now, scheduler.Distances{Between: line{"a0": 0, "a1": 4, "a2": 20, "there": 22}})
	check("with distances", "", "a0", "a1")
	m.mustPut(`{"id":"/d","instances":20}`)
	m.advance(2 * time.Minute)
	check("when the near ones are full", "the node is 20 ms from the nearest of 1 running instances of /db, and at most 5 ms is asked for", "a0", "a1")

	if _, err := m.put(near("there"), true); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	check("near to a node", "", "a2")
	if _, err := m.put(near("nowhere"), true); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	if got := refusals(); !strings.Contains(got, "how far the node is from node nowhere is not known") {
		t.Errorf("near to nobody the reasons are %q", got)
	}
}
