package scheduler_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/event"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
)

// newRig is a simulated cluster with one large agent, and a session.
func newRig(t *testing.T, config scheduler.Config) *sim {
	t.Helper()
	m := newSimOf(t, 1, config)
	m.cluster.Add(mastertest.Agent{ID: "a0", Host: "h0", CPUs: 16, Mem: 8192, Disk: 10000, FirstPort: 31000, LastPort: 31999})
	m.subscribe()
	m.pump()
	return m
}

func (m *sim) mustPut(body string) string {
	m.t.Helper()
	id, err := m.put(body, false)
	if err != nil {
		m.t.Fatalf("cannot put %s: %v", body, err)
	}
	return id
}

// undo rolls a deployment back as a user asks for it.
func (m *sim) undo(id, by string) string {
	m.t.Helper()
	v := m.s.View()
	root, err := app.Commit(v.Root(), v.Deployment(id).Plan.Revert(v.Root()), app.Change{Now: m.now, Settings: app.DefaultSettings()})
	if err != nil {
		m.t.Fatal(err)
	}
	m.plans++
	plan := deployment.Diff(fmt.Sprintf("deployment-%d", m.plans), v.Root(), root, nil)
	plan.Origin = deployment.Origin{Begun: app.At(m.now), By: by, Undoes: id}
	if err := m.s.Deploy(m.now, scheduler.Change{Root: root, Plan: plan, Force: true, Group: app.Root}); err != nil {
		m.t.Fatal(err)
	}
	return plan.ID
}

// again starts a new process on what is stored.
func (m *sim) again() {
	m.t.Helper()
	m.cluster.Disconnect()
	m.start()
	m.subscribe()
	m.pump()
}

func (m *sim) history() []string {
	var out []string
	for _, e := range m.s.View().History() {
		out = append(out, fmt.Sprintf("%s %s %d/%d", e.ID, e.Outcome, e.Step, e.TotalSteps))
	}
	return out
}

func wantHistory(t *testing.T, m *sim, want ...string) {
	t.Helper()
	if got := m.history(); strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("the history is %q, want %q", got, want)
	}
}

func TestHistoryOfDeployments(t *testing.T) {
	m := newRig(t, scheduler.Config{})
	m.mustPut(`{"id":"/a","cmd":"x"}`)
	m.advance(time.Minute)
	m.mustPut(`{"id":"/a","cpus":1000}`) // fits nowhere
	m.advance(time.Minute)
	undo := m.undo("deployment-2", "ann")
	m.advance(time.Minute)
	m.mustPut(`{"id":"/a","cpus":1000}`)
	m.advance(time.Minute)
	if _, err := m.put(`{"id":"/a","cpus":2000}`, true); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	if err := m.s.Cancel(m.now, "deployment-5", "bob"); err != nil {
		t.Fatal(err)
	}
	m.pump()
	if err := m.s.Cancel(m.now, "deployment-5", "bob"); !errors.Is(err, scheduler.ErrNoDeployment) {
		t.Errorf("cancelling it twice: %v", err)
	}
	want := []string{"deployment-5 cancelled 1/1", "deployment-4 cancelled 1/1", undo + " succeeded 1/1", "deployment-2 rolledBack 1/1", "deployment-1 succeeded 2/2"}
	wantHistory(t, m, want...)
	m.again()
	wantHistory(t, m, want...)

	list := m.s.View().History()
	if e := list[0]; e.EndedBy != "bob" || e.Reason != "" || e.EndedAt.Time().Sub(e.StartedAt.Time()) != time.Minute {
		t.Errorf("the cancelled one is %+v", e)
	}
	if e := list[1]; e.Reason != "deployment deployment-5 took its place by force" {
		t.Errorf("the one that was put aside is %+v", e)
	}
	if e := list[2]; e.StartedBy != "ann" || e.Undoes != "deployment-2" {
		t.Errorf("the way back is %+v", e)
	}
	if e := list[3]; e.UndoneBy != undo || e.EndedBy != "ann" || len(e.Actions) != 1 || e.Actions[0] != (deployment.Shown{Action: string(deployment.Restart), App: "/a"}) {
		t.Errorf("the one that was undone is %+v", e)
	}
}

// TestUndoOfARestart: there is no other definition to go back to, so that undoing it is to stop it.
func TestUndoOfARestart(t *testing.T) {
	m := newRig(t, scheduler.Config{})
	m.mustPut(`{"id":"/a","cmd":"x","cpus":0.1,"instances":4,"upgradeStrategy":{"minimumHealthCapacity":0.75,"maximumOverCapacity":0}}`)
	m.advance(time.Minute)
	id, err := m.restart("/a", false)
	if err != nil {
		t.Fatal(err)
	}
	m.undo(id, "ann")
	m.advance(time.Second)
	tasks := func() (ids []string) {
		for _, i := range m.s.View().Instances("/a") {
			ids = append(ids, i.TaskID)
		}
		return ids
	}
	if got := m.s.View().Deployments(); len(got) > 0 {
		t.Errorf("deployment %s goes on", got[0].Plan.ID)
	}
	if e := m.s.View().History()[0]; e.ID != id || e.Outcome != scheduler.Cancelled || e.EndedBy != "ann" || e.UndoneBy != "" {
		t.Errorf("the restart that was undone is %+v", e)
	}
	m.advance(time.Minute) // for what was being replaced
	before := tasks()
	m.advance(10 * time.Minute)
	if after := tasks(); !slices.Equal(after, before) || len(after) != 4 {
		t.Errorf("%v run, and later %v", before, after)
	}
}

// TestHistoryIsBounded holds it to its number of deployments, and each to its size, before and after a new process.
func TestHistoryIsBounded(t *testing.T) {
	m := newRig(t, scheduler.Config{})
	for i := range 120 {
		m.mustPut(fmt.Sprintf(`{"id":"/a","cmd":"x","instances":%d}`, i%2))
		m.advance(5 * time.Second)
	}
	check := func(when string) {
		t.Helper()
		list, keys := m.s.View().History(), m.store.Keys("marathon/history/")
		if len(list) != 100 || len(keys) != 100 || list[0].ID != "deployment-120" || list[99].ID != "deployment-21" {
			t.Errorf("%s: %d are remembered and %d stored, from %s to %s", when, len(list), len(keys), list[len(list)-1].ID, list[0].ID)
		}
	}
	check("at once")
	m.again()
	check("after a new process")

	_, err := m.change(func(root *app.Group) (*app.Group, error) {
		for i := range 400 {
			draft, err := app.ParseUpdate([]byte(`{"cmd":"x","instances":0}`))
			if err != nil {
				return nil, err
			}
			id := app.PathID(fmt.Sprintf("/%s/%d", strings.Repeat("x", 60), i))
			a, err := draft.Create(id, root.RulesFor(id, app.DefaultSettings()))
			if err != nil {
				return nil, err
			}
			root = root.WithApp(a)
		}
		return root, nil
	}, app.Change{}, false)
	if err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	e := m.s.View().History()[0]
	encoded, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != "deployment-121" || len(e.Actions)+e.MoreActions != 400 || e.MoreActions == 0 || len(encoded) > 16<<10 {
		t.Errorf("%s lists %d actions, leaves %d out, and takes %d bytes", e.ID, len(e.Actions), e.MoreActions, len(encoded))
	}
}

// failures collects what is told of deployments that end badly.
func failures(m *sim) *[]string {
	var out []string
	m.observe = func(d scheduler.Decision) bool {
		if p, ok := d.(scheduler.Publish); ok {
			switch e := p.Payload.(type) {
			case event.DeploymentFailed:
				out = append(out, e.ID+": "+e.Reason)
			case event.GroupChangeFailed:
				out = append(out, e.Reason)
			}
		}
		return true
	}
	return &out
}

const due = `,"starling":{"deploymentDeadlineSeconds":60}`

func TestDeadlineRollsBack(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("with another leader: %v", crash), func(t *testing.T) {
			m := newRig(t, scheduler.Config{})
			m.mustPut(`{"id":"/a","cmd":"x","instances":2` + due + `}`)
			m.advance(2 * time.Minute)
			wantHistory(t, m, "deployment-1 succeeded 2/2")
			told := failures(m)
			m.mustPut(`{"id":"/a","cpus":1000}`)
			m.advance(40 * time.Second)
			if crash {
				m.again() // the time goes on, it does not begin anew
			}
			m.advance(19 * time.Second)
			if len(*told) > 0 || m.s.View().Deployment("deployment-2") == nil {
				t.Fatalf("it is rolled back early: %q", *told)
			}
			m.advance(time.Second)
			list := m.s.View().History()
			if len(list) < 2 || list[len(list)-2].ID != "deployment-2" {
				t.Fatalf("the history is %q", m.history())
			}
			e := list[len(list)-2]
			if e.Outcome != scheduler.Overdue || !strings.Contains(e.Reason, "within 60 seconds, the deploymentDeadlineSeconds of /a") || e.EndedBy != "" {
				t.Errorf("what is remembered is %+v", e)
			}
			if len(*told) != 1 || !strings.HasPrefix((*told)[0], "deployment-2: The deployment is rolled back by "+e.UndoneBy+", since it was not done within 60 seconds") {
				t.Errorf("what is told is %q", *told)
			}
			m.advance(10 * time.Minute) // longer than the deadline of what is gone back to
			list = m.s.View().History()
			if last := list[0]; last.ID != e.UndoneBy || last.Undoes != "deployment-2" || last.Outcome != scheduler.Succeeded {
				t.Errorf("the last one is %+v", last)
			}
			if a := m.s.View().Root().App("/a"); a.CPUs != 1 || m.cluster.Alive()["a"] != 2 || len(m.s.View().Deployments()) != 0 {
				t.Errorf("in the end %v cpus are asked for, %d tasks run, and %d deployments", a.CPUs, m.cluster.Alive()["a"], len(m.s.View().Deployments()))
			}
		})
	}
}

// TestDeadlineOfWhatIsNew: what was not there before goes again.
func TestDeadlineOfWhatIsNew(t *testing.T) {
	m := newRig(t, scheduler.Config{})
	m.mustPut(`{"id":"/a","cmd":"x","cpus":1000` + due + `}`)
	m.advance(time.Minute)
	if m.s.View().Root().App("/a") != nil || len(m.s.View().Instances("/a")) > 0 {
		t.Error("the app is still there")
	}
	wantHistory(t, m, m.s.View().History()[0].ID+" succeeded 1/1", "deployment-1 deadline 2/2")
}

// TestDeadlineThatIsMet: what is done at the very moment is done.
func TestDeadlineThatIsMet(t *testing.T) {
	m := newRig(t, scheduler.Config{})
	m.cluster.Hold(true)
	m.mustPut(`{"id":"/a","cmd":"x"` + due + `}`)
	m.advance(59 * time.Second)
	m.cluster.Hold(false)
	m.advance(10 * time.Minute)
	wantHistory(t, m, "deployment-1 succeeded 2/2")
}

// TestDeadlineOfARestart: there is nothing else to go back to, so what restarts is left as it is.
func TestDeadlineOfARestart(t *testing.T) {
	m := newRig(t, scheduler.Config{})
	m.mustPut(`{"id":"/a","cmd":"x"` + due + `}`)
	m.advance(time.Minute)
	m.cluster.Hold(true)
	if _, err := m.restart("/a", false); err != nil {
		t.Fatal(err)
	}
	told := failures(m)
	m.advance(10 * time.Minute)
	wantHistory(t, m, "deployment-2 deadline 1/1", "deployment-1 succeeded 2/2")
	if len(*told) != 1 || !strings.Contains((*told)[0], "The deployment is cancelled, since it was not done within 60 seconds") {
		t.Errorf("what is told is %q", *told)
	}
}

// TestDeadlineWithoutWayBack: a deployment that can't be rolled back goes on, and that is told once.
func TestDeadlineWithoutWayBack(t *testing.T) {
	m := newRig(t, scheduler.Config{Check: func(*app.Group, *deployment.Plan) error { return errors.New("it is too large") }})
	m.mustPut(`{"id":"/a","cmd":"x","cpus":1000` + due + `}`)
	told := failures(m)
	m.advance(10 * time.Minute)
	if len(*told) != 1 || !strings.Contains((*told)[0], "deployment deployment-1 cannot be rolled back, though it was not done within 60 seconds") ||
		!strings.Contains((*told)[0], "it is too large") {
		t.Errorf("what is told is %q", *told)
	}
	if m.s.View().Deployment("deployment-1") == nil {
		t.Error("the deployment is gone")
	}
	wantHistory(t, m)
}
