package master_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	mesosallocator "starling/master/mesos/allocator"
	"starling/master/mesos/maintenance"
	"starling/master/mesos/scheduler"
)

// machineID names the machine of a simulated agent, whose hostname is its address.
func machineID(ip string) *mesos.MachineID {
	return &mesos.MachineID{Hostname: proto.String(ip), Ip: proto.String(ip)}
}

func unavailable(start int64) *mesos.Unavailability {
	return &mesos.Unavailability{
		Start: &mesos.TimeInfo{Nanoseconds: proto.Int64(start)}, Duration: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(time.Hour))},
	}
}

// window is a schedule of one window.
func window(ips ...string) *maintenance.Schedule {
	w := &maintenance.Window{Unavailability: unavailable(1)}
	for _, ip := range ips {
		w.MachineIds = append(w.MachineIds, machineID(ip))
	}
	return &maintenance.Schedule{Windows: []*maintenance.Window{w}}
}

func TestMaintenanceRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		ctx := context.Background()
		m := c.Master
		schedule := func(change func(*maintenance.Schedule)) func() error {
			return func() error {
				s := window("10.0.1.1", "10.0.1.2")
				change(s)
				return m.UpdateMaintenance(ctx, s)
			}
		}
		turn := func(f func(context.Context, []*mesos.MachineID) error, ids ...*mesos.MachineID) func() error {
			return func() error { return f(ctx, ids) }
		}
		if err := m.UpdateMaintenance(ctx, window("10.0.1.1", "10.0.1.3")); err != nil {
			t.Fatal(err)
		}
		if err := m.StartMaintenance(ctx, []*mesos.MachineID{machineID("10.0.1.3")}); err != nil {
			t.Fatal(err)
		}
		for name, test := range map[string]struct {
			call func() error
			want string
		}{
			"a window without machines": {
				schedule(func(s *maintenance.Schedule) { s.Windows[0].MachineIds = nil }), "List of machines in the maintenance window is empty",
			},
			"a negative duration": {
				schedule(func(s *maintenance.Schedule) { s.Windows[0].Unavailability.Duration.Nanoseconds = proto.Int64(-1) }),
				"Unavailability 'duration' is negative",
			},
			"a machine without a name": {
				schedule(func(s *maintenance.Schedule) { s.Windows[0].MachineIds[1] = &mesos.MachineID{} }),
				"Both 'hostname' and 'ip' for a machine are empty",
			},
			"no address": {
				schedule(func(s *maintenance.Schedule) { s.Windows[0].MachineIds[1].Ip = proto.String("10.0.0.300") }),
				"Failed to parse the IP '10.0.0.300' of a machine",
			},
			"a machine twice in one window, in other letters": {
				schedule(func(s *maintenance.Schedule) {
					s.Windows[0].MachineIds = []*mesos.MachineID{
						{Hostname: proto.String("edge"), Ip: proto.String("10.0.0.1")}, {Hostname: proto.String("EDGE"), Ip: proto.String("10.0.0.1")},
					}
				}), `Machine '{"hostname":"EDGE","ip":"10.0.0.1"}' appears more than once in the schedule`,
			},
			"a machine in two windows": {
				schedule(func(s *maintenance.Schedule) { s.Windows = append(s.Windows, s.Windows[0]) }),
				`Machine '{"hostname":"10.0.1.1","ip":"10.0.1.1"}' appears more than once in the schedule`,
			},
			"a machine that is down left out": {
				schedule(func(*maintenance.Schedule) {}),
				`Machine '{"hostname":"10.0.1.3","ip":"10.0.1.3"}' is deactivated and cannot be removed from the schedule`,
			},
			"no machine down": {turn(m.StartMaintenance), "List of machines is empty"},
			"no machine up":   {turn(m.StopMaintenance), "List of machines is empty"},
			"down twice": {
				turn(m.StartMaintenance, machineID("10.0.1.1"), machineID("10.0.1.1")),
				`Machine '{"hostname":"10.0.1.1","ip":"10.0.1.1"}' appears more than once in the schedule`,
			},
			"down and not scheduled": {
				turn(m.StartMaintenance, machineID("10.0.1.1"), machineID("10.0.1.9")),
				`Machine '{"hostname":"10.0.1.9","ip":"10.0.1.9"}' is not part of a maintenance schedule`,
			},
			"down by its address alone": {
				turn(m.StartMaintenance, &mesos.MachineID{Ip: proto.String("10.0.1.1")}),
				`Machine '{"ip":"10.0.1.1"}' is not part of a maintenance schedule`,
			},
			"down again": {
				turn(m.StartMaintenance, machineID("10.0.1.3")),
				`Machine '{"hostname":"10.0.1.3","ip":"10.0.1.3"}' is not in DRAINING mode and cannot be brought down`,
			},
			"up and not scheduled": {
				turn(m.StopMaintenance, machineID("10.0.1.9")), `Machine '{"hostname":"10.0.1.9","ip":"10.0.1.9"}' is not part of a maintenance schedule`,
			},
			"up and not down": {
				turn(m.StopMaintenance, machineID("10.0.1.1")),
				`Machine '{"hostname":"10.0.1.1","ip":"10.0.1.1"}' is not in DOWN mode and cannot be brought up`,
			},
		} {
			refused(t, name, test.call(), master.Invalid, test.want)
		}
		large := window()
		for range 20_000 {
			large.Windows[0].MachineIds = append(large.Windows[0].MachineIds, &mesos.MachineID{
				Hostname: proto.String(strings.Repeat("x", 60) + time.Duration(len(large.Windows[0].MachineIds)).String()),
			})
		}
		large.Windows[0].MachineIds = append(large.Windows[0].MachineIds, machineID("10.0.1.3"))
		if err := m.UpdateMaintenance(ctx, large); err == nil || !strings.Contains(err.Error(), "can be kept") {
			t.Errorf("a schedule that is too large: got %v", err)
		}
		if got, err := m.MaintenanceSchedule(ctx); err != nil || !proto.Equal(got, window("10.0.1.1", "10.0.1.3")) {
			t.Errorf("the schedule is %v, %v; want it as it was", got, err)
		}
	})
}

// Whoever uses an agent in a window, or is offered it, is told and asked; what is answered is shown; and all of it ends with
// the window.
func TestMaintenanceWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil)
		ctx := context.Background()
		m := c.Master
		await(t, f, scheduler.Event_OFFERS)
		if err := m.UpdateMaintenance(ctx, window("10.0.1.1")); err != nil {
			t.Fatal(err)
		}
		await(t, f, scheduler.Event_RESCIND)
		offer := f.ExpectOffer()
		if !proto.Equal(offer.GetUnavailability(), unavailable(1)) {
			t.Errorf("the offer says %v", offer.GetUnavailability())
		}
		asked := f.Expect(scheduler.Event_INVERSE_OFFERS).GetInverseOffers().GetInverseOffers()
		if len(asked) != 1 {
			t.Fatalf("%d inverse offers", len(asked))
		}
		inverse := asked[0]
		if inverse.GetAgentId().GetValue() != a.ID || inverse.GetFrameworkId().GetValue() != f.ID || inverse.GetUrl() == nil ||
			len(inverse.GetResources()) > 0 || !proto.Equal(inverse.GetUnavailability(), unavailable(1)) {
			t.Errorf("asked %v", inverse)
		}
		if v, err := m.View(ctx); err != nil || len(v.Frameworks[0].InverseOffers) != 1 {
			t.Errorf("the framework is shown with %v, %v", v.Frameworks[0].InverseOffers, err)
		}
		f.Decline(1e6, offer)
		f.ExpectSilence(time.Minute) // still has it

		// Another one that is not there is not asked, and an answer to nothing is ignored.
		answer := func(kind scheduler.Call_Type, refuse *float64, ids ...string) {
			t.Helper()
			var list []*mesos.OfferID
			for _, id := range ids {
				list = append(list, &mesos.OfferID{Value: proto.String(id)})
			}
			filters := &mesos.Filters{RefuseSeconds: refuse}
			if refuse == nil {
				filters = nil
			}
			call := &scheduler.Call{Type: kind.Enum()}
			if kind == scheduler.Call_ACCEPT_INVERSE_OFFERS {
				call.AcceptInverseOffers = &scheduler.Call_AcceptInverseOffers{InverseOfferIds: list, Filters: filters}
			} else {
				call.DeclineInverseOffers = &scheduler.Call_DeclineInverseOffers{InverseOfferIds: list, Filters: filters}
			}
			f.Call(call)
		}
		said := func() []*mesosallocator.InverseOfferStatus {
			t.Helper()
			status, err := m.MaintenanceStatus(ctx)
			if err != nil || len(status.GetDrainingMachines()) != 1 || len(status.GetDownMachines()) > 0 {
				t.Fatalf("status %v, %v", status, err)
			}
			return status.GetDrainingMachines()[0].GetStatuses()
		}
		if got := said(); len(got) != 0 {
			t.Errorf("answers before there was one: %v", got)
		}
		answer(scheduler.Call_ACCEPT_INVERSE_OFFERS, nil, "nothing", inverse.GetId().GetValue())
		begun := time.Now()
		if got := said(); len(got) != 1 || got[0].GetStatus() != mesosallocator.InverseOfferStatus_ACCEPT ||
			got[0].GetFrameworkId().GetValue() != f.ID || got[0].GetTimestamp().GetNanoseconds() != begun.UnixNano() {
			t.Errorf("said %v", got)
		}
		// Asked again after the usual five seconds, or after those that were given.
		next := f.Expect(scheduler.Event_INVERSE_OFFERS).GetInverseOffers().GetInverseOffers()[0]
		if took := time.Since(begun); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("asked again after %v", took)
		}
		begun = time.Now()
		answer(scheduler.Call_DECLINE_INVERSE_OFFERS, proto.Float64(15), next.GetId().GetValue())
		if got := said(); len(got) != 1 || got[0].GetStatus() != mesosallocator.InverseOfferStatus_DECLINE {
			t.Errorf("said %v", got)
		}
		next = f.Expect(scheduler.Event_INVERSE_OFFERS).GetInverseOffers().GetInverseOffers()[0]
		if took := time.Since(begun); took < 15*time.Second || took > 16*time.Second {
			t.Errorf("asked again after %v", took)
		}
		// REVIVE ends such filters, and 0 is no way to keep the master busy.
		answer(scheduler.Call_DECLINE_INVERSE_OFFERS, proto.Float64(1e6), next.GetId().GetValue())
		f.Call(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
		next = await(t, f, scheduler.Event_INVERSE_OFFERS).GetInverseOffers().GetInverseOffers()[0]
		begun = time.Now()
		answer(scheduler.Call_DECLINE_INVERSE_OFFERS, proto.Float64(0), next.GetId().GetValue())
		next = await(t, f, scheduler.Event_INVERSE_OFFERS).GetInverseOffers().GetInverseOffers()[0]
		if took := time.Since(begun); took < time.Second {
			t.Errorf("asked again after %v", took)
		}
		checkBooks(t, c.Master)

		// Another window is another question.
		later := window("10.0.1.1")
		later.Windows[0].Unavailability = unavailable(2)
		if err := m.UpdateMaintenance(ctx, later); err != nil {
			t.Fatal(err)
		}
		if got := await(t, f, scheduler.Event_RESCIND_INVERSE_OFFER).GetRescindInverseOffer().GetInverseOfferId().GetValue(); got != next.GetId().GetValue() {
			t.Errorf("taken back: %s", got)
		}
		if got := said(); len(got) != 0 {
			t.Errorf("answers to another question: %v", got)
		}
		again := await(t, f, scheduler.Event_INVERSE_OFFERS).GetInverseOffers().GetInverseOffers()[0]
		if !proto.Equal(again.GetUnavailability(), unavailable(2)) {
			t.Errorf("asked %v", again)
		}
		// The agent goes, and comes back.
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		await(t, f, scheduler.Event_RESCIND_INVERSE_OFFER)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
		await(t, f, scheduler.Event_INVERSE_OFFERS)
		// No window, no question.
		if err := m.UpdateMaintenance(ctx, &maintenance.Schedule{}); err != nil {
			t.Fatal(err)
		}
		await(t, f, scheduler.Event_RESCIND_INVERSE_OFFER)
		if offer := await(t, f, scheduler.Event_OFFERS).GetOffers().GetOffers()[0]; offer.GetUnavailability() != nil {
			t.Errorf("offered with %v", offer.GetUnavailability())
		}
		quiet(t, f, scheduler.Event_INVERSE_OFFERS, time.Minute)
		checkBooks(t, c.Master)
	})
}

// A framework that loses what it had is not asked any more; one that subscribes again is asked anew.
func TestInverseOffersFollowWhoHasSomething(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a, f := withTask(t, nil)
		ctx := context.Background()
		other := mastertest.Subscribe(t, c.Master, mastertest.Info("other", nil), "*")
		if err := c.Master.UpdateMaintenance(ctx, window("10.0.1.1")); err != nil {
			t.Fatal(err)
		}
		await(t, f, scheduler.Event_INVERSE_OFFERS)
		again := mastertest.Subscribe(t, c.Master, f.Again(), "*")
		await(t, again, scheduler.Event_INVERSE_OFFERS)
		if err := a.Finish(ctx, f.ID, "t", mesos.TaskState_TASK_FINISHED); err != nil {
			t.Fatal(err)
		}
		await(t, again, scheduler.Event_RESCIND_INVERSE_OFFER)
		quiet(t, again, scheduler.Event_INVERSE_OFFERS, time.Minute)
		quiet(t, other, scheduler.Event_INVERSE_OFFERS, time.Second)
		other.Call(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
		offer := await(t, other, scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
		await(t, other, scheduler.Event_INVERSE_OFFERS)
		other.Decline(1e6, offer)
		await(t, other, scheduler.Event_RESCIND_INVERSE_OFFER)
		checkBooks(t, c.Master)
	})
}

// A machine that is taken down ends its tasks and is not admitted until it is brought up; then its agent is back by itself.
func TestMachineDownAndUp(t *testing.T) {
	for name, caps := range map[string][]mesos.FrameworkInfo_Capability_Type{"not aware": nil, "partition aware": {aware}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a, f := withTask(t, nil, caps...)
				ctx := context.Background()
				m := c.Master
				machines := []*mesos.MachineID{machineID("10.0.1.1")}
				if err := m.UpdateMaintenance(ctx, window("10.0.1.1", "10.0.1.2")); err != nil {
					t.Fatal(err)
				}
				if err := m.StartMaintenance(ctx, machines); err != nil {
					t.Fatal(err)
				}
				if status := awaitStatus(t, f, "t", lost); status.GetReason() != mesos.TaskStatus_REASON_AGENT_REMOVED || status.Uuid != nil {
					t.Errorf("got %v", status)
				}
				if got := await(t, f, scheduler.Event_FAILURE).GetFailure().GetAgentId().GetValue(); got != a.ID {
					t.Errorf("failure of %q", got)
				}
				synctest.Wait()
				if got := a.Tasks(); len(got) != 0 {
					t.Errorf("the agent runs %v", got)
				}
				if agentView(t, c, a.ID) != nil {
					t.Error("it is listed")
				}
				status, err := m.MaintenanceStatus(ctx)
				if err != nil || len(status.GetDownMachines()) != 1 || len(status.GetDrainingMachines()) != 1 {
					t.Errorf("status %v, %v", status, err)
				}
				f.ExpectSilence(time.Minute)
				f.Reconcile("t", a.ID)
				want := lost
				if caps != nil {
					want = mesos.TaskState_TASK_UNKNOWN
				}
				f.ExpectUpdate("t", want)

				next := succeed(t, c, 2, a)
				again := mastertest.Subscribe(t, next.Master, f.Again())
				again.ExpectSilence(time.Minute)
				if agentView(t, next, a.ID) != nil {
					t.Error("it is listed by the next master")
				}
				if err := next.Master.StopMaintenance(ctx, machines); err != nil {
					t.Fatal(err)
				}
				offer := again.ExpectOffer()
				if got, want := held(t, offer.GetResources()), "cpus:4;mem:4096"; got != want || offer.GetUnavailability() != nil {
					t.Errorf("offered %s until %v, want %s", got, offer.GetUnavailability(), want)
				}
				if got, err := next.Master.MaintenanceSchedule(ctx); err != nil || !proto.Equal(got, window("10.0.1.2")) {
					t.Errorf("the schedule is %v, %v", got, err)
				}
				again.Launch(offer, 0, mastertest.Task("u", "cpus:1;mem:32"))
				awaitStatus(t, again, "u", running)
				checkBooks(t, next.Master)
			})
		})
	}
}

// The last machine that comes up leaves no window behind; one that was down stays so under a new schedule.
func TestScheduleOfMachinesThatAreDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		ctx := context.Background()
		m := c.Master
		machines := []*mesos.MachineID{machineID("10.0.1.1")}
		later := window("10.0.1.1")
		later.Windows[0].Unavailability = unavailable(7)
		for _, step := range []func() error{
			func() error { return m.UpdateMaintenance(ctx, window("10.0.1.1")) },
			func() error { return m.StartMaintenance(ctx, machines) },
			func() error { return m.UpdateMaintenance(ctx, later) },
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if status, err := m.MaintenanceStatus(ctx); err != nil || len(status.GetDownMachines()) != 1 {
			t.Errorf("status %v, %v", status, err)
		}
		if err := m.StopMaintenance(ctx, machines); err != nil {
			t.Fatal(err)
		}
		if got, err := m.MaintenanceSchedule(ctx); err != nil || len(got.GetWindows()) != 0 {
			t.Errorf("the schedule is %v, %v", got, err)
		}
	})
}
