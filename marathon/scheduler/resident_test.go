package scheduler_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
	"starling/marathon/state"
	"starling/marathon/task"
	"starling/master/mesos"
	"starling/master/store"
)

const residentID = app.PathID("/db/pg")

// resident is the definition of an app with a volume; more is added to it.
func resident(instances int, more string) string {
	return fmt.Sprintf(`{"id":"/db/pg","cmd":"run","role":"db","cpus":1,"mem":100,"instances":%d,"container":{"type":"MESOS","volumes":[
		{"containerPath":"data","mode":"RW","persistent":{"size":200}}]}%s}`, instances, more)
}

func newResident(t *testing.T, agents int) *sim {
	t.Helper()
	m := newSim(t, 1)
	for n := range agents {
		m.addAgent(fmt.Sprintf("a%d", n+1))
	}
	m.subscribe()
	return m
}

func (m *sim) addAgent(id string) {
	m.cluster.Add(mastertest.Agent{ID: id, Host: "host-" + id, CPUs: 4, Mem: 1000, Disk: 1000, FirstPort: 31000, LastPort: 31099})
}

// running lists the tasks that run, each as the instance's launch, its agent and its volumes.
func (m *sim) running() map[app.InstanceID]string {
	m.t.Helper()
	out := make(map[app.InstanceID]string)
	for _, one := range m.cluster.Tasks() {
		if !one.Alive || one.State != mesos.TaskState_TASK_RUNNING {
			continue
		}
		id, err := app.ParseTaskID(one.Info.GetTaskId().GetValue())
		if err != nil {
			m.t.Fatal(err)
		}
		var volumes []string
		for _, r := range one.Info.GetResources() {
			if p := r.GetDisk().GetPersistence(); p != nil {
				volumes = append(volumes, p.GetId()+" at "+r.GetDisk().GetVolume().GetContainerPath())
			}
		}
		out[id.Instance] = one.Info.GetAgentId().GetValue() + " " + strings.Join(volumes, " ")
	}
	return out
}

// only is the one task that runs.
func (m *sim) only() (app.InstanceID, string) {
	m.t.Helper()
	all := m.running()
	if len(all) != 1 {
		m.t.Fatalf("%d tasks run, want 1: %v", len(all), all)
	}
	for id, where := range all {
		return id, where
	}
	panic("unreachable")
}

// checkReleased checks that nothing is reserved anywhere, nothing stored of it, and no role kept for it.
func (m *sim) checkReleased(agents int) {
	m.t.Helper()
	if v := m.cluster.Volumes(); len(v) > 0 {
		m.t.Errorf("volumes are left: %v", v)
	}
	for n := range agents {
		a := fmt.Sprintf("a%d", n+1)
		if made := m.cluster.Made(a); made != "{}" {
			m.t.Errorf("reserved on %s: %s", a, made)
		}
	}
	if keys := m.store.Keys("marathon/discards/"); len(keys) > 0 {
		m.t.Errorf("still to be released, after all was: %v", keys)
	}
}

// startInDoubt is start where something that is stored can't be read.
func (m *sim) startInDoubt() {
	m.t.Helper()
	st, stored, err := state.Open(context.Background(), m.store, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	if !stored.Doubt {
		m.t.Fatal("there is no doubt")
	}
	m.state, m.s = st, scheduler.New(m.config, rand.New(rand.NewPCG(1, 1)))
	m.s.Load(m.now, stored)
}

// A resident app reserves what it needs for itself, by labels, and makes its volume; each later task runs in the same place
// with the same volume: after a failure, a kill, a suspension, a change of definition, another process.
func TestResidentKeepsItsPlace(t *testing.T) {
	m := newResident(t, 3)
	m.mustPut(resident(1, ""))
	m.advance(10 * time.Second)
	id, place := m.only()
	i := m.s.View().Instance(id)
	if i.Reservation == nil || !i.Reservation.Confirmed || len(i.Reservation.Volumes) != 1 {
		t.Fatalf("the instance is stored with %+v", i.Reservation)
	}
	volume := i.Reservation.Volumes[0]
	if want := "db_pg#data#" + volume.UUID(); volume.ID != want || volume.Path != "data" || len(volume.UUID()) != 36 {
		t.Errorf("got the volume %+v, want the id %s", volume, want)
	}
	made := m.cluster.Made(i.AgentID)
	if want := "cpus(reservations: [(DYNAMIC,db)]):1; disk(reservations: [(DYNAMIC,db)])[" + volume.ID + ":data]:200; mem(reservations: [(DYNAMIC,db)]):100; ports("; !strings.HasPrefix(made, want) {
		t.Errorf("reserved is %s, want %s", made, want)
	}
	for _, r := range m.cluster.Tasks()[0].Info.GetResources() {
		labels := make(map[string]string)
		for _, label := range r.GetReservation().GetLabels().GetLabels() {
			labels[label.GetKey()] = label.GetValue()
		}
		if want := map[string]string{"marathon_framework_id": m.cluster.FrameworkID(), "marathon_task_id": id.String()}; !maps.Equal(labels, want) {
			t.Errorf("%s is reserved with the labels %v, want %v", r.GetName(), labels, want)
		}
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"the task fails", func() error { return m.cluster.End(i.TaskID, mesos.TaskState_TASK_FAILED, "x") }},
		{"the task is killed", func() error {
			m.s.KillTasks(m.now, scheduler.KillRequest{Instances: []app.InstanceID{id}})
			return nil
		}},
		{"another process", func() error {
			m.cluster.Disconnect()
			m.start()
			m.subscribe()
			return nil
		}},
		{"suspended and resumed", func() error {
			m.mustPut(`{"id":"/db/pg","instances":0}`)
			m.advance(time.Minute)
			if n := len(m.running()); n > 0 {
				return fmt.Errorf("%d tasks run of a suspended app", n)
			}
			stopped := m.s.View().Instance(id)
			if stopped == nil || stopped.Goal != scheduler.GoalStopped || stopped.Condition != scheduler.Killed {
				return fmt.Errorf("suspended, the instance is %+v", stopped)
			}
			if d := m.s.View().Deployments(); len(d) > 0 {
				return fmt.Errorf("the suspension does not end")
			}
			m.cluster.Disconnect()
			m.start()
			m.subscribe()
			m.advance(10 * time.Minute)
			m.mustPut(`{"id":"/db/pg","instances":1}`)
			return nil
		}},
		{"another command", func() error { m.mustPut(`{"id":"/db/pg","cmd":"run 2"}`); return nil }},
	}
	for n, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		m.advance(time.Minute)
		again, where := m.only()
		if again != id || where != place {
			t.Fatalf("%s: now it is %s at %s, and was %s at %s", step.name, again, where, id, place)
		}
		if now := m.s.View().Instance(id); step.name != "another process" && now.TaskID == i.TaskID {
			t.Errorf("%s: it is still the task %s", step.name, now.TaskID)
		}
		i = m.s.View().Instance(id)
		if d := m.s.View().Deployments(); len(d) > 0 {
			t.Errorf("step %d, %s: the deployment has not ended", n, step.name)
		}
	}
	if _, err := m.remove(residentID, false); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	m.checkReleased(3)
	if roles := m.s.View().Roles(); !slices.Equal(roles, []string{"*"}) {
		t.Errorf("the roles are %v, when nothing needs another than *", roles)
	}
	if twice := m.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("launched twice: %v", twice)
	}
}

// Wiping forgets the instance and its data, and makes a new one; it works as well on one that has no task, such as one whose
// agent is gone for good.
func TestWipe(t *testing.T) {
	for _, suspended := range []bool{false, true} {
		m := newResident(t, 1)
		m.mustPut(resident(1, ""))
		m.advance(10 * time.Second)
		id, place := m.only()
		if suspended {
			m.mustPut(`{"id":"/db/pg","instances":0}`)
			m.advance(10 * time.Second)
		}
		m.s.KillTasks(m.now, scheduler.KillRequest{Instances: []app.InstanceID{id}, Wipe: true})
		m.advance(time.Minute)
		if m.s.View().Instance(id) != nil {
			t.Fatal("the instance is still known")
		}
		if suspended {
			m.checkReleased(1)
			continue
		}
		again, where := m.only()
		if again == id || where == place {
			t.Errorf("after the wipe it is %s at %s, as before", again, where)
		}
		if v := m.cluster.Volumes(); len(v) != 1 {
			t.Errorf("the volumes are %v, want the new one alone", v)
		}
		if keys := m.store.Keys("marathon/discards/"); len(keys) > 0 {
			t.Errorf("still to be released: %v", keys)
		}
	}
}

// While its agent is away an instance is not replaced, not even by an upgrade; that ends when the agent is back.
func TestResidentWaitsForItsAgent(t *testing.T) {
	m := newResident(t, 3)
	m.mustPut(resident(2, `,"constraints":[["hostname","UNIQUE"]]`))
	m.advance(10 * time.Second)
	before := m.running()
	if len(before) != 2 {
		t.Fatalf("%d tasks run, want 2", len(before))
	}
	var lost app.InstanceID
	for id := range before {
		lost = id
	}
	agent := m.s.View().Instance(lost).AgentID
	m.cluster.Lose(agent)
	m.advance(time.Hour)
	m.mustPut(`{"id":"/db/pg","cmd":"run 2"}`)
	m.advance(time.Hour)
	if n := len(m.running()); n != 1 {
		t.Errorf("%d tasks run while an agent of two is away, want 1", n)
	}
	if n := len(m.cluster.Volumes()); n != 2 {
		t.Errorf("there are %d volumes, want 2", n)
	}
	if len(m.s.View().Deployments()) != 1 {
		t.Error("the upgrade has ended without the instance whose agent is away")
	}
	m.cluster.Return(agent)
	m.advance(time.Minute)
	if after := m.running(); !maps.Equal(after, before) {
		t.Errorf("in the end there run %v, want %v", after, before)
	}
	if len(m.s.View().Deployments()) > 0 {
		t.Error("the upgrade has not ended")
	}
}

// An agent that has forgotten its id comes back as another one, with all that is reserved on it: the instance's place is there.
func TestResidentFollowsItsVolume(t *testing.T) {
	for _, parked := range []bool{false, true} {
		m := newResident(t, 1)
		m.mustPut(resident(1, `,"portDefinitions":[]`))
		m.advance(10 * time.Second)
		id, _ := m.only()
		if parked {
			m.mustPut(`{"id":"/db/pg","instances":0}`)
			m.advance(10 * time.Second)
		}
		volume := m.s.View().Instance(id).Reservation.Volumes[0].ID
		m.cluster.Lose("a1")
		m.advance(time.Minute)
		m.addAgent("b1")
		held := orphan(m.cluster.FrameworkID(), id.String())
		mem := proto.Clone(held[0]).(*mesos.Resource)
		mem.Name, mem.Scalar.Value = proto.String("mem"), proto.Float64(100)
		held[1].Scalar.Value = proto.Float64(200)
		held[1].Disk.Persistence.Id = proto.String(volume)
		if err := m.cluster.Reserve("b1", append(held, mem)); err != nil {
			t.Fatal(err)
		}
		if parked {
			m.mustPut(`{"id":"/db/pg","instances":1}`)
		} else {
			m.mustPut(`{"id":"/db/web","role":"db","cmd":"run","cpus":0.1}`) // has offers made
		}
		m.advance(time.Minute)
		if got := m.running()[id]; got != "b1 "+volume+" at data" {
			t.Errorf("parked %v: it runs at %q; on b1 there is %s", parked, got, m.cluster.Made("b1"))
		}
	}
}

// Scaling down stops the surplus, and scaling up begins with it; more than that is made anew.
func TestResidentScales(t *testing.T) {
	m := newResident(t, 4)
	m.mustPut(resident(3, ""))
	m.advance(10 * time.Second)
	three := m.running()
	for _, n := range []int{1, 3, 0, 3} {
		m.mustPut(fmt.Sprintf(`{"id":"/db/pg","instances":%d}`, n))
		m.advance(time.Minute)
		now := m.running()
		if len(now) != n || len(m.cluster.Volumes()) != 3 || len(m.s.View().Deployments()) > 0 {
			t.Fatalf("scaled to %d: %d run, with %d volumes; deployments: %d", n, len(now), len(m.cluster.Volumes()), len(m.s.View().Deployments()))
		}
		for id, where := range now {
			if three[id] != where {
				t.Errorf("scaled to %d: %s runs at %s, and was at %q", n, id, where, three[id])
			}
		}
	}
	m.mustPut(`{"id":"/db/pg","instances":4}`)
	m.advance(time.Minute)
	if len(m.running()) != 4 || len(m.cluster.Volumes()) != 4 {
		t.Errorf("scaled to 4: %d run, with %d volumes", len(m.running()), len(m.cluster.Volumes()))
	}
	// All of an upgrade takes place within the four.
	m.mustPut(`{"id":"/db/pg","cmd":"run 2"}`)
	m.advance(5 * time.Minute)
	if len(m.running()) != 4 || len(m.cluster.Volumes()) != 4 || len(m.s.View().Deployments()) > 0 {
		t.Errorf("upgraded: %d run, with %d volumes; deployments: %d", len(m.running()), len(m.cluster.Volumes()), len(m.s.View().Deployments()))
	}
}

// A reservation that does not come about is asked for again; one that turns up late is used, or released where there is
// another by then.
func TestReservationIsLost(t *testing.T) {
	m := newResident(t, 1)
	m.cluster.DropOperations(2)
	m.mustPut(resident(1, ""))
	m.advance(19 * time.Second)
	if n := len(m.running()); n > 0 {
		t.Fatalf("%d tasks run on what is not reserved", n)
	}
	m.advance(20 * time.Second)
	m.only()
	if n := len(m.cluster.Volumes()); n != 1 {
		t.Errorf("%d volumes, want 1", n)
	}
	m.advance(20 * time.Minute)
	if keys := m.store.Keys("marathon/discards/"); len(keys) > 0 {
		t.Errorf("still to be released: %v", keys)
	}
}

// orphan is what a Marathon has reserved for an instance, with a volume.
func orphan(framework, instance string) []*mesos.Resource {
	reservation := &mesos.Resource_ReservationInfo{Labels: &mesos.Labels{Labels: []*mesos.Label{
		{Key: proto.String("marathon_framework_id"), Value: proto.String(framework)},
		{Key: proto.String("marathon_task_id"), Value: proto.String(instance)},
	}}}
	scalar := func(name string, value float64) *mesos.Resource {
		return &mesos.Resource{
			Name: proto.String(name), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(value)},
			Role: proto.String("db"), Reservation: reservation,
		}
	}
	disk := scalar("disk", 50)
	disk.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String("volume of " + instance)},
		Volume:      &mesos.Volume{ContainerPath: proto.String("data"), Mode: mesos.Volume_RW.Enum()},
	}
	return []*mesos.Resource{scalar("cpus", 1), disk}
}

// What is reserved for an instance of ours that nobody knows is released, and nothing else is: not what another framework has
// reserved, nor what is labelled in another way, nor anything while it is in doubt what is stored.
func TestOrphans(t *testing.T) {
	const unknown = "db_old.instance-5a0e8c51-0a01-11ef-8b3c-0242ac110002"
	tests := []struct {
		name     string
		orphan   func(framework string) []*mesos.Resource
		doubt    bool
		released bool
	}{
		{"ours", func(f string) []*mesos.Resource { return orphan(f, unknown) }, false, true},
		{"ours, in doubt", func(f string) []*mesos.Resource { return orphan(f, unknown) }, true, false},
		{"another framework's", func(string) []*mesos.Resource { return orphan("other", unknown) }, false, false},
		{"not an instance", func(f string) []*mesos.Resource { return orphan(f, "whatever") }, false, false},
		{"without labels", func(f string) []*mesos.Resource {
			rs := orphan(f, unknown)
			for _, r := range rs {
				r.Reservation = &mesos.Resource_ReservationInfo{}
			}
			return rs
		}, false, false},
		{"another's label beside", func(f string) []*mesos.Resource {
			rs := orphan("", unknown)
			for _, r := range rs {
				r.Reservation = &mesos.Resource_ReservationInfo{Labels: &mesos.Labels{Labels: []*mesos.Label{
					{Key: proto.String("framework_id"), Value: proto.String(f)},
				}}}
			}
			return rs
		}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newResident(t, 1)
			m.pump()
			if tt.doubt {
				op := store.Op{Key: "marathon/instances/" + unknown, Version: store.Any, Data: []byte("not JSON")}
				if _, err := m.store.Write(t.Context(), op); err != nil {
					t.Fatal(err)
				}
				m.cluster.Disconnect()
				m.startInDoubt()
				m.subscribe()
			}
			if err := m.cluster.Reserve("a1", tt.orphan(m.cluster.FrameworkID())); err != nil {
				t.Fatal(err)
			}
			before := m.cluster.Made("a1")
			m.mustPut(resident(1, "")) // so that the role is there
			m.advance(time.Minute)
			made := m.cluster.Made("a1")
			if kept := len(m.cluster.Volumes()) == 2; kept == tt.released {
				t.Errorf("of %s there is left %s: released should be %v", before, made, tt.released)
			}
			m.only()
		})
	}
}

// Why an instance waits for its place is told in words.
func TestQueueTellsOfReservations(t *testing.T) {
	m := newResident(t, 2)
	m.mustPut(resident(1, ""))
	m.advance(10 * time.Second)
	id, _ := m.only()
	i := m.s.View().Instance(id)
	m.mustPut(`{"id":"/db/pg","instances":0}`)
	m.advance(10 * time.Second)
	m.cluster.Lose(i.AgentID)
	m.mustPut(`{"id":"/db/pg","instances":1}`)
	m.advance(10 * time.Second)
	queue := m.s.View().Queue(m.now)
	if len(queue) != 1 || len(queue[0].Refusals) != 1 {
		t.Fatalf("the queue is %+v", queue)
	}
	reasons := queue[0].Refusals[0].Reasons
	if len(reasons) != 1 || reasons[0].Reason != task.NoCorrespondingReservationFound || !strings.Contains(reasons[0].Why, i.Host) {
		t.Errorf("the reasons are %v", reasons)
	}
}

// What waits for its own place does not end the pause in launching that begins when launches come to nothing.
func TestResidentKeepsToTheTokens(t *testing.T) {
	m := newSimOf(t, 1, scheduler.Config{
		LaunchTokens: 20, LaunchTokenRefresh: time.Hour, NoSuppress: true, DeclineDuration: time.Second, LaunchTimeout: time.Hour, LaunchConfirmTimeout: time.Hour,
	})
	m.cluster.Add(mastertest.Agent{ID: "a1", Host: "host-a1", CPUs: 40, Mem: 1 << 16, Disk: 1 << 16, FirstPort: 31000, LastPort: 31999})
	m.subscribe()
	m.mustPut(resident(1, ""))
	m.advance(10 * time.Second)
	id, _ := m.only()
	m.cluster.Hold(true)
	m.mustPut(`{"id":"/a","cmd":"x","cpus":0.1,"mem":10,"instances":25,"maxLaunchDelaySeconds":3600,"backoffSeconds":3600}`)
	m.advance(10 * time.Second)
	if got := m.cluster.Alive()["a"]; got != 20 {
		t.Fatalf("%d are launched, want as many as there are tokens", got)
	}
	now := m.now
	m.tell(func(s *scheduler.Scheduler) { s.KillTasks(now, scheduler.KillRequest{Instances: []app.InstanceID{id}}) })
	m.mustPut(`{"id":"/b","cmd":"x","cpus":0.1,"mem":10}`)
	m.advance(10 * time.Second)
	// One token is back, and it takes two.
	for n := range 2 {
		for _, i := range m.s.View().Instances("/a") {
			if i.TaskID != "" {
				if err := m.cluster.End(i.TaskID, mesos.TaskState_TASK_FAILED, ""); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		m.advance(10 * time.Second)
		if got := m.cluster.Alive()["b"] + len(m.s.View().Instance(id).Tasks()); (got > 0) != (n > 0) {
			t.Errorf("with %d tokens %d are launched", n+1, got)
		}
	}
}

// A round with many offers looks at what is to be released on their agents, and not at all of it for each offer.
func TestManyDiscardsAndOffers(t *testing.T) {
	const discards, agents = 2000, 200
	s, ids := scheduler.New(scheduler.Config{}, rand.New(rand.NewPCG(1, 1))), app.NewUUIDs(rand.New(rand.NewPCG(1, 1)))
	var stored scheduler.Stored
	for n := range discards {
		stored.Discards = append(stored.Discards, &scheduler.Discard{
			Instance: app.InstanceID{App: residentID, UUID: ids.Next(begin)}, AgentID: fmt.Sprintf("elsewhere%d", n), Role: "db",
		})
	}
	s.Load(begin, &stored)
	s.Handle(begin, scheduler.Subscribed{FrameworkID: "f"})
	s.Ready(begin)
	allocs := testing.AllocsPerRun(1, func() {
		var offers []*mesos.Offer
		for n := range agents {
			offers = append(offers, &mesos.Offer{
				Id: &mesos.OfferID{Value: proto.String(fmt.Sprint(n))}, AgentId: &mesos.AgentID{Value: proto.String(fmt.Sprintf("a%d", n))},
			})
		}
		s.Handle(begin, scheduler.Offers{Offers: offers})
		s.Ready(begin)
	})
	if allocs > 100*(discards+agents) {
		t.Errorf("a round with %d offers allocates %v times while %d places are to be released", agents, allocs, discards)
	}
}

// A reservation whose volume is not made, as where a master allows the one and refuses the other, is no place: it is released,
// and asked for anew.
func TestReservationWithoutItsVolume(t *testing.T) {
	m := newResident(t, 1)
	refuse := true
	m.observe = func(d scheduler.Decision) bool {
		if a, ok := d.(scheduler.Accept); ok && refuse {
			for _, op := range a.Prepare {
				if op.GetType() == mesos.Offer_Operation_CREATE {
					op.Type = mesos.Offer_Operation_UNKNOWN.Enum()
				}
			}
		}
		return true
	}
	m.mustPut(resident(1, ""))
	m.advance(15 * time.Second)
	if m.cluster.Made("a1") == "{}" || len(m.cluster.Volumes()) > 0 {
		t.Fatalf("reserved is %s, with the volumes %v: nothing is shown by that", m.cluster.Made("a1"), m.cluster.Volumes())
	}
	for _, i := range m.s.View().Instances(residentID) {
		if i.Reservation == nil || i.Reservation.Confirmed {
			t.Errorf("without its volume the reservation is %+v", i.Reservation)
		}
	}
	refuse = false
	m.advance(2 * time.Minute)
	m.only()
	if made := m.cluster.Made("a1"); strings.Contains(made, "cpus(reservations: [(DYNAMIC,db)]):2") {
		t.Errorf("it is reserved twice: %s", made)
	}
	if _, err := m.remove(residentID, false); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Minute)
	m.checkReleased(1)
}
