package master_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

const (
	multiRole = mesos.FrameworkInfo_Capability_MULTI_ROLE
	aware     = mesos.FrameworkInfo_Capability_PARTITION_AWARE
	refined   = mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT

	running     = mesos.TaskState_TASK_RUNNING
	lost        = mesos.TaskState_TASK_LOST
	unreachable = mesos.TaskState_TASK_UNREACHABLE
	dropped     = mesos.TaskState_TASK_DROPPED
)

// bubble runs a story in virtual time.
func bubble(t *testing.T, story func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // with more, the race detector breaks down now and then in a bubble's timers (golang.org/issue/78156)
	synctest.Test(t, story)
}

// leading starts a master that leads a cluster of one agent with 4 CPUs and 4 GB.
func leading(t *testing.T, change func(*master.Config)) (*mastertest.Cluster, *mastertest.Agent) {
	t.Helper()
	c := mastertest.Start(t, nil, change)
	a := c.AddAgent(1, "cpus:4;mem:4096")
	c.Elect()
	synctest.Wait()
	return c, a
}

func held(t *testing.T, rs []*mesos.Resource) string {
	t.Helper()
	r, err := resources.FromProto(rs)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for name, amount := range r.Scalars() {
		parts = append(parts, name+":"+amount.String())
	}
	return strings.Join(parts, ";")
}

// The example that every paper on resource offers has: what one framework leaves is offered to the next.
func TestResourceOffer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		first := mastertest.Subscribe(t, c.Master, mastertest.Info("first", nil))
		offer := first.ExpectOffer()
		if got, want := held(t, offer.GetResources()), "cpus:4;mem:4096"; got != want {
			t.Fatalf("first offer: got %s, want %s", got, want)
		}
		second := mastertest.Subscribe(t, c.Master, mastertest.Info("second", nil))
		second.ExpectSilence(time.Second)
		first.Launch(offer, 60, mastertest.Task("a", "cpus:2;mem:1024"), mastertest.Task("b", "cpus:1;mem:2048"))
		if got, want := held(t, second.ExpectOffer().GetResources()), "cpus:1;mem:1024"; got != want {
			t.Errorf("second offer: got %s, want %s", got, want)
		}
		first.ExpectUpdate("a", running)
		first.ExpectUpdate("b", running)
	})
}

// An offer comes in the format that the framework's capabilities ask for.
func TestOfferFormats(t *testing.T) {
	for name, test := range map[string]struct {
		info           *mesos.FrameworkInfo
		role           bool // resources carry role "*"
		allocationInfo bool
	}{
		"old style":           {mastertest.Info("f", nil), true, false},
		"several roles":       {mastertest.Info("f", []string{"web"}, multiRole), true, true},
		"refined, one role":   {mastertest.Info("f", nil, refined), false, false},
		"refined and several": {mastertest.Info("f", []string{"web"}, multiRole, refined), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a := leading(t, nil)
				offer := mastertest.Subscribe(t, c.Master, test.info).ExpectOffer()
				if got := offer.AllocationInfo != nil; got != test.allocationInfo {
					t.Errorf("allocation_info on the offer: got %t, want %t", got, test.allocationInfo)
				}
				for _, r := range offer.GetResources() {
					if got := r.Role != nil; got != test.role {
						t.Errorf("role on %s: got %t, want %t", r.GetName(), got, test.role)
					}
					if got := r.AllocationInfo != nil; got != test.allocationInfo {
						t.Errorf("allocation_info on %s: got %t, want %t", r.GetName(), got, test.allocationInfo)
					}
				}
				if offer.GetAgentId().GetValue() != a.ID || offer.GetUrl().GetPath() != "/slave(1)" {
					t.Errorf("offer is not of the agent: %v", offer)
				}
			})
		})
	}
}

// A filter holds for as long as it says, REVIVE ends it, SUPPRESS keeps offers away.
func TestDeclineReviveSuppress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		begun := time.Now()
		f.Decline(10, f.ExpectOffer())
		offer := f.ExpectOffer()
		if got := time.Since(begun); got < 10*time.Second || got > 11*time.Second {
			t.Errorf("offered again after %v, want 10s", got)
		}
		f.Decline(1000, offer)
		f.ExpectSilence(15 * time.Second)
		f.Call(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
		offer = f.ExpectOffer()
		f.Call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum()})
		f.Decline(0, offer)
		f.ExpectSilence(15 * time.Second)
		f.Call(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
		f.ExpectOffer()
	})
}

func TestOfferTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.OfferTimeout = 5 * time.Second })
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		offer := f.ExpectOffer()
		rescind := f.Expect(scheduler.Event_RESCIND)
		if got, want := rescind.GetRescind().GetOfferId().GetValue(), offer.GetId().GetValue(); got != want {
			t.Errorf("rescinded %q, want %q", got, want)
		}
		f.ExpectOffer()
	})
}

// Heartbeats come right after SUBSCRIBED and then every 15 seconds, whatever else happens.
func TestHeartbeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		begun := time.Now()
		var beats []time.Duration
		for time.Since(begun) < 46*time.Second {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			event, err := f.Stream.Next(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if event.GetType() == scheduler.Event_HEARTBEAT {
				beats = append(beats, time.Since(begun).Round(time.Second))
			}
			if len(beats) == 4 {
				break
			}
		}
		for i, beat := range beats {
			if want := time.Duration(i) * 15 * time.Second; beat != want {
				t.Errorf("heartbeat %d after %v, want %v", i, beat, want)
			}
		}
	})
}

// A framework that does not read is cut, and others notice nothing. A burst alone is no reason: its reader may have had no time.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.MaxStreamEvents = 16 })
		info := mastertest.Info("slow", nil)
		info.FailoverTimeout = proto.Float64(60)
		slow := mastertest.Subscribe(t, c.Master, info)
		kill := func() error {
			return slow.TryCall(&scheduler.Call{
				Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String("nosuchtask")}},
			})
		}
		for range 20 {
			if err := kill(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second)
		if err := kill(); err != nil { // its answer is one event too many
			t.Fatal(err)
		}
		err := kill()
		if refusal := new(master.Refusal); !errors.As(err, &refusal) || refusal.Kind != master.Forbidden {
			t.Errorf("calls of a framework that was cut: got %v", err)
		}
		if _, err := slow.Next(time.Second); !errors.Is(err, master.ErrSlowReader) {
			t.Errorf("got %v, want ErrSlowReader", err)
		}
		other := mastertest.Subscribe(t, c.Master, mastertest.Info("other", nil))
		other.ExpectOffer() // what the slow one sat on
	})
}

// A framework may ask about more tasks than its stream holds events: the answers come as it reads them, once for each question
// however often it was asked, and those of a stream that ended are not told on the next.
func TestReconcileMoreThanAStreamHolds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.MaxStreamEvents, cfg.MaxStreamBytes = 16, 8<<10 })
		info := mastertest.Info("f", nil)
		info.FailoverTimeout = proto.Float64(60)
		f := mastertest.Subscribe(t, c.Master, info)
		f.ExpectOffer()
		var asked []string
		for n := range 300 {
			asked = append(asked, fmt.Sprint("t", n), "")
		}
		f.Reconcile(asked...)
		f.Reconcile(asked...)
		answers := make(map[string]int)
		for range 150 {
			answers[f.Expect(scheduler.Event_UPDATE).GetUpdate().GetStatus().GetTaskId().GetValue()]++
		}
		time.Sleep(10 * time.Second) // a reader may pause
		for len(answers) < 300 {
			answers[f.Expect(scheduler.Event_UPDATE).GetUpdate().GetStatus().GetTaskId().GetValue()]++
		}
		// What had been answered before the second call is answered again.
		again := 0
		for _, n := range answers {
			again += n - 1
		}
		if again > 16 {
			t.Errorf("%d answers came twice", again)
		}
		f.Reconcile(asked...)
		f.Reconcile(asked...)
		fresh := mastertest.Subscribe(t, c.Master, f.Again())
		fresh.ExpectOffer()
		fresh.ExpectSilence(5 * time.Second)
	})
}

// A stream is cut as well when what waits on it is too old.
func TestOldEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		info := mastertest.Info("slow", nil)
		info.FailoverTimeout = proto.Float64(600)
		slow := mastertest.Subscribe(t, c.Master, info)
		slow.Reconcile("nosuchtask", "")
		time.Sleep(31 * time.Second)
		slow.Reconcile("nosuchtask", "")
		if _, err := slow.Next(time.Second); !errors.Is(err, master.ErrSlowReader) {
			t.Errorf("got %v, want ErrSlowReader", err)
		}
	})
}

// Whoever subscribes last with an id has the stream.
func TestTakeOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		old := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		offer := old.ExpectOffer()
		fresh := mastertest.Subscribe(t, c.Master, old.Again())
		if fresh.ID != old.ID {
			t.Errorf("got id %q, want %q", fresh.ID, old.ID)
		}
		event := old.Expect(scheduler.Event_ERROR)
		if got, want := event.GetError().GetMessage(), "Framework failed over"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if _, err := old.Next(time.Second); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the end of the stream", err)
		}
		again := fresh.ExpectOffer() // no RESCIND before
		if again.GetId().GetValue() == offer.GetId().GetValue() {
			t.Error("the offer of the old stream survived")
		}
		err := old.TryCall(&scheduler.Call{Type: scheduler.Call_REVIVE.Enum()})
		if refusal := new(master.Refusal); !errors.As(err, &refusal) || !strings.Contains(refusal.Text, "didn't match the stream ID") {
			t.Errorf("call with the old stream id: got %v", err)
		}
		old.Stream.Close() // must not disconnect the new one
		fresh.Decline(0, again)
		fresh.ExpectOffer()
	})
}

// A framework that comes back in time keeps its tasks; one that does not loses them, and its id for ever.
func TestFailoverTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		info := mastertest.Info("f", nil)
		info.FailoverTimeout = proto.Float64(100)
		f := mastertest.Subscribe(t, c.Master, info)
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:100"))
		f.ExpectUpdate("t", running)
		f.Stream.Close()
		time.Sleep(99 * time.Second)
		f = mastertest.Subscribe(t, c.Master, f.Again())
		f.Decline(1000, f.ExpectOffer()) // filters end with the subscription
		f.Reconcile()
		f.ExpectUpdate("t", running)
		f.Stream.Close()
		time.Sleep(101 * time.Second)
		if got := a.Tasks(); len(got) != 0 {
			t.Errorf("tasks %v outlived their framework", got)
		}
		late := mastertest.TrySubscribe(t, c.Master, f.Again())
		if got, want := late.Expect(scheduler.Event_ERROR).GetError().GetMessage(), "Framework has been removed"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestTeardown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		f.Launch(f.ExpectOffer(), 1000, mastertest.Task("t", "cpus:1;mem:100"))
		f.ExpectUpdate("t", running)
		f.Call(&scheduler.Call{Type: scheduler.Call_TEARDOWN.Enum()})
		if event, err := f.Next(time.Second); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, %v, want the end of the stream and no event", event, err)
		}
		synctest.Wait()
		if got := a.Tasks(); len(got) != 0 {
			t.Errorf("tasks %v outlived their framework", got)
		}
		view, err := c.Master.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(view.Frameworks) != 0 || len(view.Completed) != 1 || view.Completed[0].Completed.Len() != 1 {
			t.Fatalf("got %d frameworks, completed %v", len(view.Frameworks), view.Completed)
		}
		if got := view.Completed[0].Completed[0].Tasks[0].State; got != mesos.TaskState_TASK_KILLED {
			t.Errorf("got %s, want TASK_KILLED", got)
		}
		other := mastertest.Subscribe(t, c.Master, mastertest.Info("g", nil))
		if got, want := held(t, other.ExpectOffer().GetResources()), "cpus:4;mem:4096"; got != want {
			t.Errorf("got %s, want all of it, %s", got, want)
		}
	})
}

// Faults of a subscription come inside the stream, as the only event.
func TestSubscribeFaults(t *testing.T) {
	for name, test := range map[string]struct {
		info       *mesos.FrameworkInfo
		suppressed []string
		want       string
	}{
		"foreign role":     {mastertest.Info("f", []string{"db"}, multiRole), nil, "Roles { db } are not present in the master's --roles"},
		"bad role":         {mastertest.Info("f", []string{"a//b"}, multiRole), nil, "role"},
		"stray suppressed": {mastertest.Info("f", []string{"web"}, multiRole), []string{"x"}, "Suppressed roles { x } are not contained in the set of roles"},
		"roles without capability": {&mesos.FrameworkInfo{
			User: proto.String("u"), Name: proto.String("f"), Roles: []string{"web"},
		}, nil, "MULTI_ROLE"},
		"root": {
			&mesos.FrameworkInfo{User: proto.String("root"), Name: proto.String("f")}, nil,
			"User 'root' is not allowed to run frameworks without --root_submissions set",
		},
		"larger than a document": {&mesos.FrameworkInfo{
			User: proto.String("u"), Name: proto.String(strings.Repeat("n", 800<<10)),
		}, nil, "larger than what can be kept"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, _ := leading(t, func(cfg *master.Config) {
					cfg.Roles, cfg.RootSubmissions = []string{"web", "a"}, false
				})
				f := mastertest.TrySubscribe(t, c.Master, test.info, test.suppressed...)
				if got := f.Expect(scheduler.Event_ERROR).GetError().GetMessage(); !strings.Contains(got, test.want) {
					t.Errorf("got %q, want %q in it", got, test.want)
				}
				if _, err := f.Next(time.Second); !errors.Is(err, io.EOF) {
					t.Errorf("got %v, want the end of the stream", err)
				}
			})
		})
	}
}

// Constraints keep agents away from a role, and faulty ones fail the subscription.
func TestOfferConstraints(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		open := func(groups ...*scheduler.OfferConstraints_RoleConstraints_Group) *mastertest.Framework {
			return mastertest.Open(t, c.Master, &scheduler.Call_Subscribe{
				FrameworkInfo: mastertest.Info("f", nil),
				OfferConstraints: &scheduler.OfferConstraints{RoleConstraints: map[string]*scheduler.OfferConstraints_RoleConstraints{
					"*": {Groups: groups},
				}},
			})
		}
		hostname := func(want string) *scheduler.OfferConstraints_RoleConstraints_Group {
			return &scheduler.OfferConstraints_RoleConstraints_Group{AttributeConstraints: []*scheduler.AttributeConstraint{{
				Selector: &scheduler.AttributeConstraint_Selector{Selector: &scheduler.AttributeConstraint_Selector_PseudoattributeType_{
					PseudoattributeType: scheduler.AttributeConstraint_Selector_HOSTNAME,
				}},
				Predicate: &scheduler.AttributeConstraint_Predicate{Predicate: &scheduler.AttributeConstraint_Predicate_TextEquals_{
					TextEquals: &scheduler.AttributeConstraint_Predicate_TextEquals{Value: proto.String(want)},
				}},
			}}}
		}
		if got := open().Expect(scheduler.Event_ERROR).GetError().GetMessage(); !strings.Contains(got, "Offer constraints for role '*' are invalid") {
			t.Errorf("got %q", got)
		}
		away := open(hostname("10.0.1.2"))
		away.Expect(scheduler.Event_SUBSCRIBED)
		away.ExpectSilence(time.Minute)
		here := open(hostname("10.0.1.2"), hostname("10.0.1.1"))
		here.Expect(scheduler.Event_SUBSCRIBED)
		here.ExpectOffer()
	})
}

// Each way to name offers wrongly fails the whole ACCEPT, and the valid offers in it go back.
func TestInvalidOffers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		c.AddAgent(2, "cpus:2;mem:1024")
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil, aware))
		accept := func(ids ...string) string {
			t.Helper()
			call := &scheduler.Call_Accept{Operations: []*mesos.Offer_Operation{{
				Type:   mesos.Offer_Operation_LAUNCH.Enum(),
				Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{mastertest.Task("t", "cpus:1;mem:32")}},
			}}}
			call.Operations[0].Launch.TaskInfos[0].AgentId = &mesos.AgentID{Value: proto.String("x")}
			for _, id := range ids {
				call.OfferIds = append(call.OfferIds, &mesos.OfferID{Value: proto.String(id)})
			}
			f.Call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: call})
			status := f.ExpectUpdate("t", dropped)
			if status.GetReason() != mesos.TaskStatus_REASON_INVALID_OFFERS || status.Uuid != nil {
				t.Errorf("got %v", status)
			}
			return status.GetMessage()
		}
		offers := func() []string {
			t.Helper()
			var ids []string
			for len(ids) < 2 {
				for _, o := range f.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers() {
					ids = append(ids, o.GetId().GetValue())
				}
			}
			return ids
		}
		ids := offers()
		if got, want := accept(), "Task launched with invalid offers: No offers specified"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, want := accept("nosuch"), "Task launched with invalid offers: Offer nosuch is no longer valid"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, want := accept(ids[0], ids[1]), "one single agent"; !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
		ids = offers()
		if got, want := accept(ids[0], ids[0]), "Duplicate offer"; !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
		again := f.ExpectOffer() // the one that was named twice came back
		f.Decline(0, again)
	})
}

// A task that is not valid gets TASK_ERROR, and the others of the same LAUNCH go on.
func TestInvalidTasks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		offer := f.ExpectOffer()
		elsewhere := mastertest.Task("elsewhere", "cpus:1;mem:32")
		elsewhere.AgentId = &mesos.AgentID{Value: proto.String("other")}
		f.Launch(offer, 1000,
			mastertest.Task("large", "cpus:5;mem:32"), mastertest.Task("bad/id", "cpus:1;mem:32"), elsewhere,
			mastertest.Task("good", "cpus:1;mem:32"), mastertest.Task("good", "cpus:1;mem:32"))
		for _, want := range []struct{ id, text string }{
			{"large", "is more than available"},
			{"bad/id", "contains invalid characters"},
			{"elsewhere", "Task uses invalid agent other while agent " + a.ID + " is expected"},
			{"good", "Task has duplicate ID: good"},
		} {
			status := f.ExpectUpdate(want.id, mesos.TaskState_TASK_ERROR)
			if status.GetReason() != mesos.TaskStatus_REASON_TASK_INVALID || !strings.Contains(status.GetMessage(), want.text) {
				t.Errorf("%s: got %s %q, want %q in it", want.id, status.GetReason(), status.GetMessage(), want.text)
			}
		}
		f.ExpectUpdate("good", running)
		if got := a.Starts(f.ID, "good"); got != 1 {
			t.Errorf("started %d times", got)
		}
	})
}

// What a LAUNCH did not use is offered again after the filter, and what a task held once it has ended.
func TestResourcesComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		f.Launch(f.ExpectOffer(), 0, mastertest.Task("t", "cpus:3;mem:1024"))
		for got, seen := "", 0; seen < 2; {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			if event.GetType() == scheduler.Event_OFFERS {
				if got = held(t, event.GetOffers().GetOffers()[0].GetResources()); got != "cpus:1;mem:3072" {
					t.Fatalf("rest: got %s", got)
				}
			} else {
				f.Acknowledge(event.GetUpdate().GetStatus())
			}
		}
		if err := a.Finish(t.Context(), f.ID, "t", mesos.TaskState_TASK_FINISHED); err != nil {
			t.Fatal(err)
		}
		var states, offers []string
		for len(states) < 1 || len(offers) < 1 {
			event, err := f.Next(mastertest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			switch event.GetType() {
			case scheduler.Event_UPDATE:
				states = append(states, event.GetUpdate().GetStatus().GetState().String())
				f.Acknowledge(event.GetUpdate().GetStatus())
			case scheduler.Event_OFFERS:
				offers = append(offers, held(t, event.GetOffers().GetOffers()[0].GetResources()))
			}
		}
		if offers[0] != "cpus:3;mem:1024" {
			t.Errorf("after the end: got %v", offers)
		}
		synctest.Wait()
		if got := a.Tasks(); len(got) != 0 {
			t.Errorf("agent still holds %v after the acknowledgement", got)
		}
		view, err := c.Master.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := view.Frameworks[0]; got.Tasks.Len() != 0 || got.Completed.Len() != 1 {
			t.Errorf("got tasks %v, completed %v", got.Tasks, got.Completed)
		}
	})
}

func parse(t *testing.T, text string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(text, resources.AnyRole)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
