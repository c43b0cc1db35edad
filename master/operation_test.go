package master_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

const (
	finished = mesos.OperationState_OPERATION_FINISHED
	faulted  = mesos.OperationState_OPERATION_ERROR
)

func isApply(call *nodeapi.Call) bool { return call.GetApply() != nil }

// disked is a site with one agent that leads, with a disk.
func disked(t *testing.T) (*mastertest.Cluster, *mastertest.Agent) {
	t.Helper()
	c := mastertest.Start(t, nil, nil)
	a := c.AddAgent(1, "cpus:4;mem:4096;disk:1000")
	c.Elect()
	synctest.Wait()
	return c, a
}

// accept accepts an offer with operations, and no filter for the rest.
func accept(f *mastertest.Framework, offer *mesos.Offer, ops ...*mesos.Offer_Operation) {
	for _, op := range ops {
		for _, task := range op.GetLaunch().GetTaskInfos() {
			task.AgentId = offer.GetAgentId()
		}
	}
	f.Call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{offer.GetId()}, Operations: ops, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
	}})
}

func launchOp(tasks ...*mesos.TaskInfo) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks}}
}

// expectOperation returns the next event, which has to be the status of an operation, and acknowledges it if it wants that.
func expectOperation(t *testing.T, f *mastertest.Framework, id string, want mesos.OperationState) *mesos.OperationStatus {
	t.Helper()
	st := f.Expect(scheduler.Event_UPDATE_OPERATION_STATUS).GetUpdateOperationStatus().GetStatus()
	if st.GetOperationId().GetValue() != id || st.GetState() != want {
		t.Fatalf("want %s of %q, got %v", want, id, st)
	}
	if st.GetUuid() != nil {
		f.Call(ackOperation(st))
	}
	return st
}

// inbox reads the events of a framework whose order is not settled: answers, reports and gossip overtake each other.
type inbox struct {
	*mastertest.Framework
	t    *testing.T
	kept []*scheduler.Event
}

// until returns the first event that is what is wanted, and keeps those before it.
func (b *inbox) until(what string, is func(*scheduler.Event) bool) *scheduler.Event {
	b.t.Helper()
	for i, event := range b.kept {
		if is(event) {
			b.kept = slices.Delete(b.kept, i, i+1)
			return event
		}
	}
	for {
		event, err := b.Next(mastertest.Patience)
		if err != nil {
			b.t.Fatalf("waited in vain for %s: %v", what, err)
		}
		if is(event) {
			return event
		}
		b.kept = append(b.kept, event)
	}
}

// ended takes the end of an operation, and acknowledges it.
func (b *inbox) ended(id string, want mesos.OperationState) {
	b.t.Helper()
	st := b.until("the end of "+id, func(e *scheduler.Event) bool {
		return e.GetUpdateOperationStatus().GetStatus().GetOperationId().GetValue() == id
	}).GetUpdateOperationStatus().GetStatus()
	if st.GetState() != want {
		b.t.Fatalf("want %s, got %v", want, st)
	}
	b.Call(ackOperation(st))
}

// updated takes the update of a task, and acknowledges it.
func (b *inbox) updated(task string, want mesos.TaskState) {
	b.t.Helper()
	b.Acknowledge(b.until(want.String()+" of "+task, func(e *scheduler.Event) bool {
		st := e.GetUpdate().GetStatus()
		return st.GetTaskId().GetValue() == task && st.GetState() == want
	}).GetUpdate().GetStatus())
}

// offer takes the one offer of the next event with offers.
func (b *inbox) offer() *mesos.Offer {
	b.t.Helper()
	offers := b.until("an offer", func(e *scheduler.Event) bool { return len(e.GetOffers().GetOffers()) > 0 }).GetOffers().GetOffers()
	if len(offers) != 1 {
		b.t.Fatalf("want 1 offer, got %d", len(offers))
	}
	return offers[0]
}

func offered(t *testing.T, offer *mesos.Offer) resources.Resources {
	t.Helper()
	r, err := resources.FromProto(offer.GetResources())
	if err != nil {
		t.Fatal(err)
	}
	return r.Unallocated()
}

func check(t *testing.T, c *mastertest.Cluster) {
	t.Helper()
	synctest.Wait()
	if err := c.Master.CheckBooks(t.Context()); err != nil {
		t.Error(err)
	}
}

// A framework reserves a disk, makes a volume and launches a task on it in one ACCEPT. What is left is offered with what was
// made; the task's end leaves the volume, which the next task uses, and DESTROY and UNRESERVE leave what there was.
func TestOperationsOfOneAccept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := disked(t)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}, refined))
		volume := mastertest.Volume("v1", "web", "", 60)
		onVolume := func(id string) *mesos.TaskInfo {
			task := mastertest.Task(id, "cpus:1;mem:32")
			task.Resources = append(task.Resources, proto.CloneOf(volume))
			return task
		}
		accept(f, f.ExpectOffer(),
			mastertest.Reserve("r1", "web", "", "disk:100;cpus:1"), mastertest.Create("c1", volume), launchOp(onVolume("t1")))
		// The ends of the operations, the update of the task and the offer of what is left come in any order.
		seen := map[string]bool{}
		var offer *mesos.Offer
		for len(seen) < 3 || offer == nil {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatalf("told of %v: %v", seen, err)
			}
			if st := event.GetUpdateOperationStatus().GetStatus(); st != nil {
				seen[st.GetOperationId().GetValue()] = true
				if st.GetState() != finished || len(st.GetUuid().GetValue()) != 16 || st.GetAgentId().GetValue() != a.ID || len(st.GetConvertedResources()) == 0 {
					t.Errorf("got %v", st)
				}
				f.Call(ackOperation(st))
			}
			if st := event.GetUpdate().GetStatus(); st != nil {
				seen[st.GetTaskId().GetValue()] = true
				if st.GetState() != mesos.TaskState_TASK_RUNNING {
					t.Fatalf("got %v", st)
				}
				f.Acknowledge(st)
			}
			if offers := event.GetOffers().GetOffers(); len(offers) > 0 {
				if offer != nil {
					f.Decline(0, offer)
				}
				offer = offers[len(offers)-1]
			}
		}
		if !seen["r1"] || !seen["c1"] || !seen["t1"] {
			t.Errorf("told of %v", seen)
		}
		if got := offered(t, offer); !got.ReservedFor("web").Volumes().Empty() || got.ReservedFor("web").Scalar("disk") > 40_000 {
			t.Errorf("the volume that a task uses is offered: %v", got)
		}
		check(t, c)
		if err := a.Finish(t.Context(), f.ID, "t1", mesos.TaskState_TASK_FINISHED); err != nil {
			t.Fatal(err)
		}
		f.Decline(0, offer)
		total := resources.Resources{}
		for !total.Equal(a.Total()) {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatalf("not offered again: %v of %v", total, a.Total())
			}
			if st := event.GetUpdate().GetStatus(); st != nil {
				f.Acknowledge(st)
			}
			for _, o := range event.GetOffers().GetOffers() {
				if total = offered(t, o); !total.Equal(a.Total()) {
					f.Decline(0, o)
				} else {
					offer = o
				}
			}
		}
		accept(f, offer, mastertest.Destroy("d1", volume), mastertest.Unreserve("u1", "web", "", "disk:100;cpus:1"))
		events := &inbox{Framework: f, t: t}
		events.ended("d1", finished)
		events.ended("u1", finished)
		synctest.Wait()
		if got, want := a.Total(), parse(t, "cpus:4;mem:4096;disk:1000"); !got.Equal(want) {
			t.Errorf("in the end there is %v, want %v", got, want)
		}
		if left := a.Unacknowledged(); len(left) > 0 {
			t.Errorf("not acknowledged: %v", left)
		}
		check(t, c)
	})
}

// An operation is repeated until it arrives, and has one effect, however it went wrong.
func TestOperationRepeated(t *testing.T) {
	for name, fault := range map[string]mastertest.Fault{
		"connection refused": mastertest.Unreachable, "answer lost": mastertest.Silent, "call lost": mastertest.Lost,
	} {
		for _, id := range []string{"op", ""} {
			t.Run(name+" id "+id, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c, a := disked(t)
					a.Quiet = true // only answers and reports tell
					f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}))
					n := 3
					a.SetFault(func(call *nodeapi.Call) mastertest.Fault {
						if !isApply(call) || n == 0 {
							return mastertest.None
						}
						n--
						return fault
					})
					accept(f, f.ExpectOffer(), mastertest.Reserve(id, "web", "", "cpus:1"))
					told, end := 0, time.Now().Add(time.Minute)
					for event, err := f.Next(time.Until(end)); err == nil; event, err = f.Next(time.Until(end)) {
						if st := event.GetUpdateOperationStatus().GetStatus(); st != nil {
							told++
							if id == "" || st.GetState() != finished || st.GetUuid() == nil {
								t.Errorf("got %v", st)
							}
						}
					}
					check(t, c)
					if n, err := a.Effects(); n != 1 || err != nil {
						t.Errorf("%d effects, %v", n, err)
					}
					if got := a.Total().ReservedFor("web").Scalar("cpus"); got != 1000 {
						t.Errorf("reserved: %v", got)
					}
					if id != "" && told != 1 {
						t.Errorf("told %d times", told)
					}
				})
			})
		}
	}
}

// An operation that provably never arrived is given up, and its resources come back.
func TestOperationUndelivered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := disked(t)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}))
		a.SetFault(func(call *nodeapi.Call) mastertest.Fault {
			if isApply(call) {
				return mastertest.Unreachable
			}
			return mastertest.None
		})
		accept(f, f.ExpectOffer(), mastertest.Reserve("op", "web", "", "cpus:4;mem:4096;disk:1000"))
		event, err := f.Next(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		st := event.GetUpdateOperationStatus().GetStatus()
		if st.GetState() != mesos.OperationState_OPERATION_DROPPED || st.GetUuid() != nil || st.GetMessage() != "Agent disconnected" {
			t.Errorf("got %v", st)
		}
		if got, want := offered(t, f.ExpectOffer()), parse(t, "cpus:4;mem:4096;disk:1000"); !got.Equal(want) {
			t.Errorf("offered %v, want %v", got, want)
		}
		check(t, c)
	})
}

// An operation of which nobody knows whether it arrived is held until the agent itself has said so.
func TestOperationUncertain(t *testing.T) {
	for name, arrives := range map[string]bool{"arrived": true, "never arrived": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a := disked(t)
				a.Quiet, a.Report = true, nil
				f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}))
				deaf := true
				a.SetFault(func(call *nodeapi.Call) mastertest.Fault {
					switch {
					case isApply(call) && arrives:
						return mastertest.Silent
					case isApply(call):
						return mastertest.Lost
					case deaf && call.GetDescribe() != nil:
						return mastertest.Unreachable
					}
					return mastertest.None
				})
				accept(f, f.ExpectOffer(), mastertest.Reserve("op", "web", "", "cpus:4;mem:4096;disk:1000"))
				f.ExpectSilence(2 * time.Minute) // neither told nor offered
				check(t, c)
				deaf = false
				event, err := f.Next(2 * time.Minute)
				if !arrives {
					if got := event.GetUpdateOperationStatus().GetStatus().GetState(); got != mesos.OperationState_OPERATION_DROPPED {
						t.Errorf("got %v, %v", event, err)
					}
					event, err = f.Next(2 * time.Minute)
				}
				if err != nil || len(event.GetOffers().GetOffers()) != 1 {
					t.Fatalf("got %v, %v", event, err)
				}
				if got := offered(t, event.GetOffers().GetOffers()[0]); !got.Equal(a.Total()) || got.ReservedFor("web").Empty() == arrives {
					t.Errorf("offered %v of %v", got, a.Total())
				}
				check(t, c)
			})
		})
	}
}

// The next leader hears of the end of an operation that the last one began, tells the framework, and has it carried out
// once.
func TestOperationOverAnElection(t *testing.T) {
	for name, fault := range map[string]mastertest.Fault{"carried out": mastertest.Silent, "not carried out": mastertest.Lost} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a := disked(t)
				a.Quiet = true
				info := mastertest.Info("f", []string{"web"})
				info.FailoverTimeout = proto.Float64(3600)
				f := mastertest.Subscribe(t, c.Master, info)
				a.SetFault(func(call *nodeapi.Call) mastertest.Fault {
					if isApply(call) {
						return fault
					}
					return mastertest.None
				})
				report := a.Report
				a.Report = nil
				accept(f, f.ExpectOffer(), mastertest.Reserve("op", "web", "", "cpus:1"))
				synctest.Wait()
				c.Lose()
				synctest.Wait()
				a.SetFault(nil)
				c.Elect()
				synctest.Wait()
				f = mastertest.Subscribe(t, c.Master, f.Again())
				a.Report = report
				if err := a.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				f.Call(&scheduler.Call{Type: scheduler.Call_RECONCILE_OPERATIONS.Enum(), ReconcileOperations: &scheduler.Call_ReconcileOperations{
					Operations: []*scheduler.Call_ReconcileOperations_Operation{{
						OperationId: &mesos.OperationID{Value: proto.String("op")}, AgentId: &mesos.AgentID{Value: proto.String(a.ID)},
					}},
				}})
				want := map[bool]mesos.OperationState{true: finished, false: mesos.OperationState_OPERATION_UNKNOWN}[fault == mastertest.Silent]
				var states []mesos.OperationState
				for {
					event, err := f.Next(time.Minute)
					if err != nil {
						break
					}
					if st := event.GetUpdateOperationStatus().GetStatus(); st != nil {
						states = append(states, st.GetState())
						if st.GetUuid() != nil {
							f.Call(ackOperation(st))
						}
					}
				}
				if len(states) == 0 || slices.ContainsFunc(states, func(s mesos.OperationState) bool { return s != want }) {
					t.Errorf("told %v, want %s", states, want)
				}
				n, err := a.Effects()
				if err != nil || (n == 1) != (fault == mastertest.Silent) {
					t.Errorf("%d effects, %v", n, err)
				}
				if left := a.Unacknowledged(); len(left) > 0 {
					t.Errorf("not acknowledged: %v", left)
				}
				check(t, c)
			})
		})
	}
}

// What the agent refuses is told, with all that depends on it, and nothing of it is lost.
func TestOperationRefusedByTheAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := disked(t)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}))
		offer := f.ExpectOffer()
		a.Quiet = true
		giveBack := a.Take("cpus:3") // and the master does not know
		task := mastertest.Task("t", "mem:32")
		task.Resources = append(task.Resources, mastertest.Reserved("web", "", "cpus:2")...)
		accept(f, offer, mastertest.Reserve("op", "web", "", "cpus:2"), launchOp(task))
		var states []string
		for len(states) < 2 {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			if st := event.GetUpdateOperationStatus().GetStatus(); st != nil {
				states = append(states, st.GetState().String())
			}
			if st := event.GetUpdate().GetStatus(); st != nil {
				states = append(states, st.GetState().String())
				f.Acknowledge(st)
			}
		}
		slices.Sort(states)
		if want := []string{"OPERATION_DROPPED", "TASK_ERROR"}; !slices.Equal(states, want) {
			t.Errorf("told %v, want %v", states, want)
		}
		giveBack()
		if err := a.Restart(); err != nil {
			t.Fatal(err)
		}
		check(t, c)
		if n, _ := a.Effects(); n != 0 || a.Starts(f.ID, "t") != 0 {
			t.Errorf("%d effects, %d starts", n, a.Starts(f.ID, "t"))
		}
	})
}

// A reservation by one framework leaves the offers of others, and does not end where they are refused.
func TestOperationsLeaveOffersOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := disked(t)
		f := &inbox{Framework: mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"})), t: t}
		first := f.offer()
		other := &inbox{Framework: mastertest.Subscribe(t, c.Master, mastertest.Info("other", []string{"db"})), t: t}
		f.Launch(first, 5, mastertest.Task("t", "cpus:1;mem:32"))
		f.updated("t", running)
		held := other.offer()
		time.Sleep(6 * time.Second) // the filter has ended
		if err := a.Finish(t.Context(), f.ID, "t", mesos.TaskState_TASK_FINISHED); err != nil {
			t.Fatal(err)
		}
		f.updated("t", mesos.TaskState_TASK_FINISHED)
		accept(f.Framework, f.offer(), mastertest.Reserve("op", "web", "", "cpus:1"))
		f.ended("op", finished)
		other.ExpectSilence(5 * time.Second)
		accept(other.Framework, held, launchOp(mastertest.Task("t2", "cpus:3;mem:32")))
		other.updated("t2", running)
		check(t, c)
	})
}

// Each fault is told with its text where the framework wants to hear of it, and in silence otherwise; nothing is lost.
func TestOperationFaults(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := disked(t)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}, refined))
		for _, tc := range []struct {
			op   *mesos.Offer_Operation
			want string
		}{
			{mastertest.Reserve("op", "db", "", "cpus:1"), "A reserve operation was attempted for a resource with role 'db', but the resource was allocated to role 'web'"},
			{mastertest.Unreserve("op", "web", "", "cpus:1"), "Invalid UNRESERVE Operation: "},
			{mastertest.Destroy("op", mastertest.Volume("v", "web", "", 1)), "Persistent volumes not found"},
			{&mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE_DISK.Enum(), Id: &mesos.OperationID{Value: proto.String("op")}}, "Operation CREATE_DISK needs a resource provider, and agents have none"},
		} {
			accept(f, f.ExpectOffer(), tc.op)
			st := expectOperation(t, f, "op", faulted)
			if got := st.GetMessage(); st.GetUuid() != nil || st.GetAgentId().GetValue() != a.ID || len(got) < len(tc.want) || got[:len(tc.want)] != tc.want {
				t.Errorf("%s: got %v, want %q", tc.op.GetType(), st, tc.want)
			}
			tc.op.Id = nil
			accept(f, f.ExpectOffer(), tc.op)
		}
		last := f.ExpectOffer()
		f.Decline(3600, last)
		accept(f, last, mastertest.Reserve("op", "web", "", "cpus:1"))
		st := expectOperation(t, f, "op", faulted)
		if want := "Operation attempted with invalid offers: Offer " + last.GetId().GetValue() + " is no longer valid"; st.GetMessage() != want {
			t.Errorf("got %q, want %q", st.GetMessage(), want)
		}
		if n, _ := a.Effects(); n != 0 {
			t.Errorf("%d effects", n)
		}
		check(t, c)
	})
}

func TestReconcileOperations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, func(cfg *master.Config) { cfg.UnreachableAfter = time.Minute })
		a := c.AddAgent(1, "cpus:4;mem:4096")
		away := c.AddAgent(2, "cpus:4;mem:4096")
		mute := c.AddAgent(3, "cpus:4;mem:4096")
		mute.SetFault(func(*nodeapi.Call) mastertest.Fault { return mastertest.Unreachable })
		c.Elect()
		synctest.Wait()
		c.Mesh.SetLiveness(time.Now(), away.ID, record.Dead)
		time.Sleep(2 * time.Minute)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}))
		var offer *mesos.Offer
		for _, o := range f.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers() {
			if o.GetAgentId().GetValue() == a.ID {
				offer = o
			}
		}
		accept(f, offer, mastertest.Reserve("known", "web", "", "cpus:1"))
		var known *mesos.OperationStatus
		for known == nil {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			known = event.GetUpdateOperationStatus().GetStatus()
		}
		for _, tc := range []struct {
			id, agent string
			want      mesos.OperationState
		}{
			{"known", a.ID, finished},
			{"known", "", finished},
			{"other", a.ID, mesos.OperationState_OPERATION_UNKNOWN},
			{"other", away.ID, mesos.OperationState_OPERATION_UNREACHABLE},
			{"other", mute.ID, mesos.OperationState_OPERATION_RECOVERING},
			{"other", "", mesos.OperationState_OPERATION_RECOVERING},
			{"other", "nobody", mesos.OperationState_OPERATION_UNKNOWN},
		} {
			asked := &scheduler.Call_ReconcileOperations_Operation{OperationId: &mesos.OperationID{Value: proto.String(tc.id)}}
			if tc.agent != "" {
				asked.AgentId = &mesos.AgentID{Value: proto.String(tc.agent)}
			}
			f.Call(&scheduler.Call{Type: scheduler.Call_RECONCILE_OPERATIONS.Enum(), ReconcileOperations: &scheduler.Call_ReconcileOperations{
				Operations: []*scheduler.Call_ReconcileOperations_Operation{asked},
			}})
			var st *mesos.OperationStatus
			for st == nil {
				event, err := f.Next(mastertest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				st = event.GetUpdateOperationStatus().GetStatus()
			}
			if st.GetOperationId().GetValue() != tc.id || st.GetState() != tc.want || st.GetUuid() != nil {
				t.Errorf("%q on %q: got %v, want %s", tc.id, tc.agent, st, tc.want)
			}
		}
	})
}

// An agent that is given up while an operation is on its way leaves nothing held, and tells the rest when it is back.
func TestOperationOnAnAgentThatIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, func(cfg *master.Config) { cfg.UnreachableAfter = 10 * time.Second })
		a := c.AddAgent(1, "cpus:4;mem:4096")
		c.Elect()
		synctest.Wait()
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}))
		offer := f.ExpectOffer()
		a.SetFault(func(*nodeapi.Call) mastertest.Fault { return mastertest.Lost })
		accept(f, offer, mastertest.Reserve("op", "web", "", "cpus:4;mem:4096"))
		synctest.Wait()
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		time.Sleep(15 * time.Second)
		expectOperation(t, f, "op", mesos.OperationState_OPERATION_UNREACHABLE)
		f.Expect(scheduler.Event_FAILURE)
		a.SetFault(nil)
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
		// The answer to a question and the offer of what is free come in any order.
		told := false
		free := resources.Resources{}
		for !told || free.Empty() {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			if st := event.GetUpdateOperationStatus().GetStatus(); st != nil {
				told = st.GetState() == mesos.OperationState_OPERATION_DROPPED
			}
			for _, o := range event.GetOffers().GetOffers() {
				free = offered(t, o)
			}
		}
		if want := parse(t, "cpus:4;mem:4096"); !free.Equal(want) {
			t.Errorf("offered %v, want %v", free, want)
		}
		check(t, c)
	})
}
