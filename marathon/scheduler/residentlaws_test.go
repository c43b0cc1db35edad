package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/scheduler"
	"starling/marathon/task"
	"starling/master/mesos"
)

// keeper watches that data is not lost: a volume that a task has used is there for as long as the instance that it belongs to.
type keeper struct {
	*sim
	used map[string]app.InstanceID // volumes that tasks have run on
}

func (k *keeper) look() {
	k.t.Helper()
	holders := make(map[string]string)
	volumes := k.cluster.Volumes()
	for _, one := range k.cluster.Tasks() {
		for _, r := range one.Info.GetResources() {
			id := r.GetDisk().GetPersistence().GetId()
			if id == "" {
				continue
			}
			name := one.Info.GetTaskId().GetValue()
			if other := holders[id]; other != "" {
				k.t.Errorf("%v: %s and %s run on the same volume", k.now.Sub(begin), other, name)
			}
			holders[id] = name
			parsed, err := app.ParseTaskID(name)
			if err != nil {
				k.t.Fatal(err)
			}
			k.used[id] = parsed.Instance
			if volumes[id] == "" {
				k.t.Errorf("%v: %s runs on a volume that is destroyed", k.now.Sub(begin), name)
			}
		}
	}
	for id, instance := range k.used {
		i := k.s.View().Instance(instance)
		if volumes[id] != "" || i == nil || i.Goal == scheduler.GoalDecommissioned || i.Reservation == nil {
			continue
		}
		if slices.ContainsFunc(i.Reservation.Volumes, func(v task.Volume) bool { return v.ID == id }) {
			k.t.Errorf("%v: the volume %s of %s is destroyed", k.now.Sub(begin), id, instance)
			delete(k.used, id)
		}
	}
}

// settled checks that all is as it should be in the end: as many run as are wanted, each instance has one volume, and nothing is
// reserved or stored beyond that.
func (k *keeper) settled(want, agents int) {
	k.t.Helper()
	if got := len(k.running()); got != want {
		k.t.Errorf("%d tasks run in the end, want %d", got, want)
	}
	instances := k.s.View().Instances(residentID)
	if got := len(k.cluster.Volumes()); got != len(instances) || len(instances) < want {
		k.t.Errorf("there are %d volumes of %d instances, of which %d are to run", got, len(instances), want)
	}
	for _, i := range instances {
		if i.Reservation == nil || len(i.Reservation.Volumes) != 1 || k.cluster.Volumes()[i.Reservation.Volumes[0].ID] != i.Reservation.AgentID {
			k.t.Errorf("%s keeps %+v, and the volumes are %v", i.ID, i.Reservation, k.cluster.Volumes())
		}
	}
	if running := k.s.View().Deployments(); len(running) > 0 {
		k.t.Errorf("deployment %s has not ended", running[0].Plan.ID)
	}
	if keys := k.store.Keys("marathon/discards/"); len(keys) > 0 {
		k.t.Errorf("still to be released: %v", keys)
	}
	if twice := k.cluster.Duplicates(); len(twice) > 0 {
		k.t.Errorf("launched twice: %v", twice)
	}
	if len(instances) == 0 {
		k.checkReleased(agents)
	}
}

// TestResidentKilledAtEveryDecision ends the process just before each decision of the life of a resident app. Wherever that is,
// the next process finds what the last one had reserved, makes nothing twice, loses no data and leaves nothing behind.
func TestResidentKilledAtEveryDecision(t *testing.T) {
	wipe := func(m *sim) {
		for _, i := range m.s.View().Instances(residentID)[:1] {
			m.s.KillTasks(m.now, scheduler.KillRequest{Instances: []app.InstanceID{i.ID}, Wipe: true})
		}
	}
	life := []struct {
		name string
		do   func(m *sim)
		done func(a *app.App) bool
		want int
	}{
		{"create", func(m *sim) { m.mustPut(resident(2, "")) }, func(a *app.App) bool { return a != nil }, 2},
		{"scale down", func(m *sim) { m.mustPut(`{"id":"/db/pg","instances":1}`) }, func(a *app.App) bool { return a.Instances == 1 }, 1},
		{"scale up", func(m *sim) { m.mustPut(`{"id":"/db/pg","instances":2}`) }, func(a *app.App) bool { return a.Instances == 2 }, 2},
		{"upgrade", func(m *sim) { m.mustPut(`{"id":"/db/pg","cmd":"run 2"}`) }, func(a *app.App) bool { return a.Cmd == "run 2" }, 2},
		{"wipe", wipe, nil, 2},
		{"remove", func(m *sim) {
			if _, err := m.remove(residentID, false); err != nil {
				m.t.Fatal(err)
			}
		}, func(a *app.App) bool { return a == nil }, 0},
	}
	points := 0
	for n, step := range life {
		for point := 0; ; point++ {
			k := &keeper{sim: newResident(t, 2), used: make(map[string]app.InstanceID)}
			for _, before := range life[:n] {
				before.do(k.sim)
				k.advance(time.Minute)
				k.look()
			}
			left := point
			k.observe = func(scheduler.Decision) bool { left--; return left != -1 }
			step.do(k.sim)
			k.advance(time.Minute)
			crashed := k.crashed
			if crashed {
				points++
				k.cluster.Disconnect()
				k.start()
				k.observe = nil
				k.subscribe()
				if step.done != nil && !step.done(k.s.View().Root().App(residentID)) {
					step.do(k.sim) // nobody was told that it would be done
				}
				k.advance(40 * time.Minute) // what is never seen is looked for three times
			} else {
				k.advance(39 * time.Minute)
			}
			k.look()
			k.settled(step.want, 2)
			if t.Failed() {
				t.Fatalf("%s, at decision %d", step.name, point)
			}
			if !crashed {
				break
			}
		}
	}
	if points < 60 {
		t.Errorf("%d points: nothing was tried", points)
	}
	t.Logf("%d points", points)
}

// TestResidentsInAStorm lets everything go wrong at random.
func TestResidentsInAStorm(t *testing.T) {
	runs := 150
	if testing.Short() {
		runs = 20
	}
	for seed := range uint64(runs) {
		k := &keeper{sim: newResident(t, 4), used: make(map[string]app.InstanceID)}
		rng := rand.New(rand.NewPCG(seed, 7))
		crashIn := -1
		k.observe = func(scheduler.Decision) bool { crashIn--; return crashIn != -1 }
		k.mustPut(resident(2, ""))
		for range 40 {
			k.disturb(rng, &crashIn)
			k.pump()
			k.look()
			if k.crashed {
				k.cluster.Disconnect()
				k.now = k.now.Add(time.Duration(rng.IntN(20)) * time.Second)
				k.start()
				k.subscribe()
			}
			k.advance(time.Duration(rng.IntN(15000)) * time.Millisecond)
			if !k.crashed {
				k.look()
			}
		}
		k.observe = nil
		if k.crashed {
			k.cluster.Disconnect()
			k.start()
		}
		for n := range 4 {
			k.cluster.Return(fmt.Sprintf("a%d", n+1))
		}
		if !k.s.View().Connected() {
			k.subscribe()
		}
		k.cluster.DropOperations(0)
		k.cluster.Resend()
		k.advance(90 * time.Minute)
		k.look()
		want := 0
		if a := k.s.View().Root().App(residentID); a != nil {
			want = a.Instances
		}
		k.settled(want, 4)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// disturb has one thing happen.
func (k *keeper) disturb(rng *rand.Rand, crashIn *int) {
	tasks, instances := k.cluster.Tasks(), k.s.View().Instances(residentID)
	known := k.s.View().Root().App(residentID) != nil
	agent := fmt.Sprintf("a%d", 1+rng.IntN(4))
	switch n := rng.IntN(100); {
	case n < 20 && known:
		_, _ = k.put(fmt.Sprintf(`{"id":"/db/pg","instances":%d}`, rng.IntN(4)), rng.IntN(2) == 0) // it may be locked
	case n < 30 && known:
		_, _ = k.put(fmt.Sprintf(`{"id":"/db/pg","cmd":"run %d"}`, rng.IntN(4)), rng.IntN(2) == 0)
	case n < 34 && known:
		_, _ = k.remove(residentID, true)
	case n < 40 && !known:
		_, _ = k.put(resident(rng.IntN(4), ""), true)
	case n < 50 && len(tasks) > 0:
		_ = k.cluster.End(tasks[rng.IntN(len(tasks))].Info.GetTaskId().GetValue(), mesos.TaskState_TASK_FAILED, "") // it may be over
	case n < 58 && len(instances) > 0:
		i := instances[rng.IntN(len(instances))]
		k.s.KillTasks(k.now, scheduler.KillRequest{Instances: []app.InstanceID{i.ID}, Wipe: rng.IntN(3) == 0})
	case n < 66:
		k.cluster.Lose(agent)
	case n < 76:
		k.cluster.Return(agent)
	case n < 80:
		k.cluster.Disconnect()
		k.pump()
		if !k.crashed {
			k.subscribe()
		}
	case n < 84:
		k.cluster.DropOperations(1 + rng.IntN(3))
	case n < 88:
		k.cluster.Resend()
	case n < 92:
		if running := k.s.View().Deployments(); len(running) > 0 {
			_ = k.s.Cancel(k.now, running[0].Plan.ID, "")
		}
	default:
		*crashIn = 1 + rng.IntN(12)
	}
}
