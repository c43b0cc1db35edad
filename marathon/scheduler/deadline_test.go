package scheduler_test

import (
	"strings"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/scheduler"
)

// putAll creates apps in one deployment.
func (m *sim) putAll(bodies ...string) string {
	m.t.Helper()
	id, err := m.change(func(root *app.Group) (*app.Group, error) {
		for _, body := range bodies {
			draft, err := app.ParseUpdate([]byte(body))
			if err != nil {
				return nil, err
			}
			id, err := draft.ID(app.Root)
			if err != nil {
				return nil, err
			}
			a, err := draft.Create(id, root.RulesFor(id, app.DefaultSettings()))
			if err != nil {
				return nil, err
			}
			root = root.WithApp(a)
		}
		return root, nil
	}, app.Change{}, false)
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

// TestDeadlineKeepsVolumes: what is rolled back by itself destroys no data. The app is there to be run again, on its volumes.
func TestDeadlineKeepsVolumes(t *testing.T) {
	m := newResident(t, 1)
	m.putAll(resident(1, ""), `{"id":"/db/web","cmd":"x","role":"db","cpus":1000`+due+`}`)
	m.advance(30 * time.Second)
	_, place := m.only()
	told := failures(m)
	m.advance(10 * time.Minute)
	if a := m.s.View().Root().App(residentID); a == nil || a.Instances != 0 {
		t.Fatalf("the app is %+v, want it suspended", a)
	}
	if m.s.View().Root().App("/db/web") != nil {
		t.Error("the app without volumes is still there")
	}
	if len(m.running()) > 0 || len(m.cluster.Volumes()) != 1 {
		t.Errorf("%d tasks run, and the volumes are %v", len(m.running()), m.cluster.Volumes())
	}
	if len(*told) != 1 || !strings.Contains((*told)[0], "what is new and has volumes is suspended, and keeps them: "+string(residentID)) {
		t.Errorf("what is told is %q", *told)
	}
	wantHistory(t, m, m.s.View().History()[0].ID+" succeeded 2/2", "deployment-1 deadline 2/2")

	m.mustPut(resident(1, ""))
	m.advance(time.Minute)
	if _, now := m.only(); now != place {
		t.Errorf("it runs again on %s, and was on %s", now, place)
	}
}

// TestDeadlineWithoutMaster: without one nothing is rolled back, nor as soon as there is one again.
func TestDeadlineWithoutMaster(t *testing.T) {
	m := newRig(t, scheduler.Config{})
	m.mustPut(`{"id":"/a","cmd":"x"}`)
	m.advance(30 * time.Second)
	m.cluster.Disconnect()
	m.pump()
	id := m.mustPut(`{"id":"/a","instances":2` + due + `}`)
	m.advance(5 * time.Minute)
	m.subscribe()
	m.advance(time.Minute)
	wantHistory(t, m, id+" succeeded 1/1", "deployment-1 succeeded 2/2")
}
