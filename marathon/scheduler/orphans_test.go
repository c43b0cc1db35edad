package scheduler_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/master/mesos"
	"starling/master/store"
)

// restore puts the state of an earlier day back, as of now.
func (m *sim) restore(old *mastertest.Store) {
	m.t.Helper()
	m.cluster.Disconnect()
	mark, err := state.RestoredAt(m.now)
	if err == nil {
		_, err = old.Write(context.Background(), store.Op{Key: state.Restored, Version: store.Any, Data: mark})
	}
	for _, key := range old.Keys(state.Deployments) {
		if err == nil {
			_, err = old.Write(context.Background(), store.Op{Key: key, Version: store.Any, Delete: true})
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.store = old
	m.load(true)
	m.subscribe()
}

// For ten minutes after a restore nothing is killed that nobody asks for, whatever the backup says; what somebody asks for is done
// at once.
func TestNothingIsKilledAfterARestore(t *testing.T) {
	m := newSim(t, 1)
	m.cluster.Add(mastertest.Agent{ID: "a1", Host: "h1", CPUs: 10, Mem: 1 << 16, Disk: 1 << 16, FirstPort: 31000, LastPort: 31999})
	m.subscribe()
	put := func(body string) {
		t.Helper()
		if _, err := m.put(body, true); err != nil {
			t.Fatal(err)
		}
	}
	put(`{"id":"/web","cmd":"one","cpus":0.1,"instances":3}`)
	put(`{"id":"/db","cmd":"one","cpus":0.1,"instances":2}`)
	m.advance(time.Minute)
	// The backup is made while tasks are to go, and before they are.
	m.observe = func(d scheduler.Decision) bool { _, kills := d.(scheduler.Kill); return !kills }
	put(`{"id":"/web","instances":1}`)
	m.pump()
	if !m.crashed {
		t.Fatal("nothing was to be killed")
	}
	old := m.store.Clone()
	m.observe = nil
	put2 := func() { // the tasks are left, and one more is launched after the backup
		m.cluster.Disconnect()
		m.start()
		m.subscribe()
		if _, err := m.put(`{"id":"/db","instances":3}`, true); err != nil {
			t.Fatal(err)
		}
		m.observe = func(d scheduler.Decision) bool { _, kills := d.(scheduler.Kill); return !kills }
		m.pump()
		m.observe = nil
	}
	put2()
	alive := m.cluster.Alive()
	m.restore(old)
	kills := 0
	m.observe = func(d scheduler.Decision) bool {
		if _, ok := d.(scheduler.Kill); ok {
			kills++
		}
		return true
	}
	m.advance(9*time.Minute + 50*time.Second)
	if kills != 0 {
		t.Errorf("%d kills within ten minutes of the restore", kills)
	}
	if got := m.cluster.Alive(); got["web"] != alive["web"] || got["web"] != 3 {
		t.Errorf("%v run, were %v", got, alive)
	}
	put(`{"id":"/db","instances":1}`)
	m.advance(5 * time.Second)
	if kills == 0 {
		t.Error("what was asked for is held back")
	}
	m.advance(time.Minute)
	if got := m.cluster.Alive()["web"]; got != 1 {
		t.Errorf("%d run of the app whose tasks were on their way out", got)
	}
}

func TestOrphansAreListedAdoptedAndDismissed(t *testing.T) {
	m := newSim(t, 2)
	m.cluster.Add(mastertest.Agent{ID: "a1", Host: "h1", CPUs: 10, Mem: 1 << 16, Disk: 1 << 16, FirstPort: 31000, LastPort: 31999})
	m.subscribe()
	if _, err := m.put(`{"id":"/web","cmd":"one","cpus":0.1,"instances":1}`, false); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	old := m.store.Clone()
	if _, err := m.put(`{"id":"/web","instances":3}`, false); err != nil {
		t.Fatal(err)
	}
	if _, err := m.put(`{"id":"/new","cmd":"one","cpus":0.1}`, false); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	m.restore(old)
	m.advance(time.Minute)
	orphans := m.s.View().Orphans()
	if len(orphans) != 3 || m.s.View().OrphanCount() != 3 || m.s.View().RestoredAt().IsZero() {
		t.Fatalf("orphans are %+v", orphans)
	}
	var all []scheduler.Adoption
	for _, o := range orphans {
		if o.AgentID != "a1" || o.State != "TASK_RUNNING" {
			t.Errorf("an orphan is %+v", o)
		}
		all = append(all, scheduler.Adoption{TaskID: o.TaskID, Host: "h1", Running: true, StartedAt: m.now})
	}
	all = append(all, scheduler.Adoption{TaskID: "nobody.instance-00000000-0000-0000-0000-000000000000._app.1"})
	adopted, refused := m.s.Adopt(m.now, all)
	if len(adopted) != 2 || len(refused) != 2 {
		t.Errorf("adopted %v, refused %v", adopted, refused)
	}
	m.advance(10 * time.Minute)
	if n := len(m.s.View().Instances("/web")); n != 3 || m.cluster.Alive()["web"] != 3 {
		t.Errorf("%d instances and %d tasks after the adoption", n, m.cluster.Alive()["web"])
	}
	left := m.s.View().Orphans()
	if len(left) != 1 || !strings.HasPrefix(left[0].TaskID, "new.") {
		t.Fatalf("left are %+v", left)
	}
	if unknown := m.s.Dismiss([]string{left[0].TaskID, "x"}); len(unknown) != 1 || unknown[0] != "x" {
		t.Errorf("unknown are %v", unknown)
	}
	m.advance(time.Second)
	if m.cluster.Alive()["new"] != 0 || m.s.View().OrphanCount() != 0 {
		t.Errorf("%v run, and orphans are %v", m.cluster.Alive(), m.s.View().Orphans())
	}
	if twice := m.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
}

// A task on volumes is adopted by the instance that keeps those, and by no other.
func TestOrphanOfResidentAppIsAdopted(t *testing.T) {
	m := newResident(t, 1)
	m.mustPut(resident(1, ""))
	m.advance(10 * time.Second)
	old := m.store.Clone()
	id, place := m.only()
	kill := func() {
		now := m.now
		m.tell(func(s *scheduler.Scheduler) { s.KillTasks(now, scheduler.KillRequest{Instances: []app.InstanceID{id}}) })
	}
	kill()
	m.advance(time.Minute)
	m.restore(old)
	m.advance(time.Minute)
	orphans := m.s.View().Orphans()
	i := m.s.View().Instance(id)
	if len(orphans) != 1 || i == nil || i.Condition.Active() {
		t.Fatalf("orphans are %+v, the instance is %+v", orphans, i)
	}
	volume := i.Reservation.Volumes[0].ID
	for _, volumes := range [][]string{nil, {"other"}, {volume, "other"}, {volume}} {
		var adopted []string
		now := m.now
		m.tell(func(s *scheduler.Scheduler) {
			adopted, _ = s.Adopt(now, []scheduler.Adoption{{
				TaskID: orphans[0].TaskID, Host: "host-a1", Role: "db", Volumes: volumes, Running: true, StartedAt: now,
			}})
		})
		if want := len(volumes) == 1 && volumes[0] == volume; (len(adopted) == 1) != want {
			t.Errorf("adopted with volumes %q are %v", volumes, adopted)
		}
	}
	m.advance(time.Minute)
	if now, where := m.only(); now != id || where != place {
		t.Errorf("%s runs on %s, was %s on %s", now, where, id, place)
	}
	if i := m.s.View().Instance(id); i == nil || i.TaskID != orphans[0].TaskID || i.Condition != scheduler.Running || i.Reservation == nil {
		t.Fatalf("the instance is %+v", i)
	}
	// It goes on like any other: what takes the place of the task has the same volume.
	kill()
	m.advance(time.Minute)
	if now, where := m.only(); now != id || where != place {
		t.Errorf("after a kill %s runs on %s, was %s on %s", now, where, id, place)
	}
	if twice := m.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
}

// A task of an app whose definition can't be read is left alone, and the reason why it is not adopted is that one: the app can't be
// defined anew.
func TestOrphanOfQuarantinedAppIsNotAdopted(t *testing.T) {
	s := scheduler.New(scheduler.Config{}, rand.New(rand.NewPCG(1, 1)))
	s.Load(begin, &scheduler.Stored{Quarantined: []app.PathID{"/q"}})
	taskID, agent := "q.instance-00000000-0000-1000-8000-000000000000._app.1", "a1"
	s.Handle(begin, scheduler.Status{Status: &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: &taskID}, AgentId: &mesos.AgentID{Value: &agent}, State: mesos.TaskState_TASK_RUNNING.Enum(),
	}})
	_, refused := s.Adopt(begin, []scheduler.Adoption{{TaskID: taskID, Running: true}})
	if why := refused[taskID]; why != "the stored definition of /q can't be read" {
		t.Errorf("refused since %q", why)
	}
}
