package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
)

// waitingOf is what users are told to wait, and how many instances there are for it.
func (m *sim) waitingOf(id app.PathID) (told, made int) {
	for _, q := range m.s.View().Queue(m.now) {
		if q.App.ID == id {
			told = q.Count
		}
	}
	for _, i := range m.s.View().Instances(id) {
		if i.Goal == scheduler.GoalRunning && i.Condition == scheduler.Scheduled {
			made++
		}
	}
	return told, made
}

// TestNumberBeyondAllBounds has a number of instances that no cluster has room for: it costs nothing, launching goes on,
// and a smaller number counts at once.
func TestNumberBeyondAllBounds(t *testing.T) {
	const billion = 1_000_000_000
	m := newSim(t, 1)
	m.cluster.Add(mastertest.Agent{ID: "a1", Host: "h1", CPUs: 25, Mem: 1 << 20, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999})
	m.subscribe()
	m.pump()
	for n, step := range []struct {
		body string
		told int
	}{
		{fmt.Sprintf(`{"id":"/web","cmd":"x","cpus":0.1,"instances":%d}`, billion), billion - 250},
		{`{"id":"/web","cmd":"y"}`, billion}, // the same as a restart, for which the old ones leave no room
	} {
		if _, err := m.put(step.body, true); err != nil {
			t.Fatal(err)
		}
		m.advance(5 * time.Minute)
		if running := len(m.cluster.Tasks()); running != 250 {
			t.Errorf("%d: %d tasks run where there is room for 250", n, running)
		}
		told, made := m.waitingOf("/web")
		if told != step.told || made > 500 {
			t.Errorf("%d: %d instances wait as users see it, want %d; %d are made", n, told, step.told, made)
		}
		if got := len(m.store.Keys("marathon/instances/")); got > 1000 {
			t.Errorf("%d: %d instances are stored", n, got)
		}
		if got := len(m.s.View().Deployments()); got != 1 {
			t.Errorf("%d: %d deployments run, want 1", n, got)
		}
	}
	if _, err := m.put(`{"id":"/web","instances":3}`, false); err == nil {
		t.Error("the deployment locks nothing")
	}
	if _, err := m.put(`{"id":"/web","instances":3}`, true); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	told, made := m.waitingOf("/web")
	if tasks := len(m.cluster.Tasks()); tasks != 3 || told != 0 || made != 0 || len(m.s.View().Deployments()) != 0 {
		t.Errorf("after scaling back: %d tasks, %d told, %d made, %d deployments", tasks, told, made, len(m.s.View().Deployments()))
	}
	if twice := m.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
}

// TestManyLargeAppsWait has so many large apps that what waits is bounded over all of them, and none is left out.
func TestManyLargeAppsWait(t *testing.T) {
	m := newSim(t, 1)
	for n := range 60 {
		if _, err := m.put(fmt.Sprintf(`{"id":"/web%d","cmd":"x","cpus":0.1,"instances":2000}`, n), false); err != nil {
			t.Fatal(err)
		}
	}
	m.pump()
	total := 0
	for n := range 60 {
		told, made := m.waitingOf(app.PathID(fmt.Sprintf("/web%d", n)))
		total += made
		if told != 2000 || made == 0 {
			t.Errorf("app %d: %d wait as users see it, want 2000; %d are made", n, told, made)
		}
	}
	if total > 11_000 {
		t.Errorf("%d instances wait", total)
	}
}

// TestMoreThanMayWaitAreLaunched has an app that is several times larger than what waits at a time.
func TestMoreThanMayWaitAreLaunched(t *testing.T) {
	m := newSimOf(t, 1, scheduler.Config{MaxWaiting: 7})
	m.cluster.Add(mastertest.Agent{ID: "a1", Host: "h1", CPUs: 100, Mem: 1 << 20, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999})
	m.subscribe()
	if _, err := m.put(`{"id":"/web","cmd":"x","cpus":0.1,"instances":90}`, false); err != nil {
		t.Fatal(err)
	}
	m.advance(3 * time.Second)
	if tasks := len(m.cluster.Tasks()); tasks != 90 || len(m.s.View().Deployments()) != 0 {
		t.Errorf("%d tasks run, want 90; %d deployments", tasks, len(m.s.View().Deployments()))
	}
}
