package scheduler_test

import (
	"testing"
	"time"

	"starling/marathon/mastertest"
	"starling/master/mesos"
)

// goBack puts the store of an earlier time in place of the present one, which nobody tells anyone of.
func (m *sim) goBack(old *mastertest.Store) {
	m.t.Helper()
	m.cluster.Disconnect()
	m.store = old
	m.start()
	m.subscribe()
}

// Nothing is killed, and no volume destroyed, where the store is that of an earlier time.
func TestStoreGoesBackUnderneath(t *testing.T) {
	m := newResident(t, 3)
	m.mustPut(resident(1, ""))
	m.mustPut(`{"id":"/web","cmd":"run","cpus":0.1,"instances":2}`)
	m.advance(time.Minute)
	m.cluster.Disconnect()
	m.start() // another term: what it launches is not told by who made its id
	m.subscribe()
	m.advance(time.Minute)
	old := m.store.Clone()
	m.mustPut(resident(2, ""))
	m.mustPut(`{"id":"/web","instances":4}`)
	m.mustPut(`{"id":"/new","cmd":"run","cpus":0.1}`)
	m.advance(time.Minute)
	volumes, before := len(m.cluster.Volumes()), m.cluster.Alive()
	if volumes != 2 || before["web"] != 4 {
		t.Fatalf("%d volumes, and %v", volumes, before)
	}
	m.goBack(old)
	m.advance(30 * time.Minute)
	if got := m.cluster.Alive(); got["web"] != 4 || got["new"] != 1 || got["pg.db"] != 2 {
		t.Errorf("%v run, were %v", got, before)
	}
	if got := len(m.cluster.Volumes()); got != volumes {
		t.Errorf("%d volumes are left of %d", got, volumes)
	}
	if got := m.s.View().OrphanCount(); got != 4 {
		t.Errorf("%d orphans are told: %v", got, m.s.View().Orphans())
	}
	// The volume survives its task, too.
	for _, o := range m.s.View().Orphans() {
		m.s.Dismiss([]string{o.TaskID})
	}
	m.advance(30 * time.Minute)
	if got := len(m.cluster.Volumes()); got != volumes {
		t.Errorf("%d volumes are left of %d once the tasks are gone", got, volumes)
	}
	if got := m.cluster.Alive(); got["web"] != 2 || got["new"] != 0 || got["pg.db"] != 1 {
		t.Errorf("%v run after the orphans were dismissed", got)
	}
}

// A later launch of a known instance is left alone, and no other is begun while it lives; no id is used twice.
func TestLaterLaunchIsLeftAlone(t *testing.T) {
	m := newSim(t, 3)
	m.addAgent("a1")
	m.subscribe()
	m.mustPut(`{"id":"/web","cmd":"run","cpus":0.1}`)
	m.advance(time.Minute)
	old := m.store.Clone()
	if err := m.cluster.End(m.s.View().Instances("/web")[0].TaskID, mesos.TaskState_TASK_FINISHED, ""); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	m.goBack(old)
	m.advance(time.Minute)
	if got := m.cluster.Duplicates(); len(got) > 0 {
		t.Errorf("launched twice: %v", got)
	}
	if m.s.View().OrphanCount() != 1 {
		t.Fatalf("orphans are %v", m.s.View().Orphans())
	}
	if got := m.cluster.Alive()["web"]; got != 1 {
		t.Errorf("%d run beside the orphan", got-1)
	}
	if err := m.cluster.End(m.s.View().Orphans()[0].TaskID, mesos.TaskState_TASK_FINISHED, ""); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	if got := m.cluster.Alive()["web"]; got != 1 || len(m.cluster.Duplicates()) > 0 {
		t.Errorf("%d run after the orphan has ended, launched twice: %v", got, m.cluster.Duplicates())
	}
}

// What was given up in earlier terms is still killed when its agent is back, and its reservation released.
func TestStrangersOfOldAreKilled(t *testing.T) {
	m := newResident(t, 2)
	m.mustPut(resident(1, ""))
	m.mustPut(`{"id":"/web","cmd":"run","cpus":0.1,"instances":2,"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}}`)
	m.advance(time.Minute)
	m.cluster.Lose("a1")
	m.advance(time.Minute)
	if _, err := m.remove("/web", true); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	m.goBack(m.store) // just another term
	m.advance(time.Minute)
	m.cluster.Return("a1")
	m.advance(time.Minute)
	if got := m.cluster.Alive(); got["web"] != 0 || m.s.View().OrphanCount() != 0 {
		t.Errorf("%v run, and orphans are %v", got, m.s.View().Orphans())
	}
}
