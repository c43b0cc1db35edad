package mastertest

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// Patience is how long a Framework waits for an event; in a bubble that is virtual time.
const Patience = 20 * time.Second

// Info describes a framework with one role. The capabilities come on top of none.
func Info(name string, roles []string, capabilities ...mesos.FrameworkInfo_Capability_Type) *mesos.FrameworkInfo {
	info := &mesos.FrameworkInfo{User: proto.String("svc"), Name: proto.String(name)}
	for _, c := range capabilities {
		info.Capabilities = append(info.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
		if c == mesos.FrameworkInfo_Capability_MULTI_ROLE {
			info.Roles = roles
		}
	}
	if info.Roles == nil && len(roles) == 1 {
		info.Role = proto.String(roles[0])
	}
	return info
}

// Framework is a scheduler that talks to a master without HTTP.
type Framework struct {
	ID     string
	Master *master.Master
	Stream *master.Stream

	t    testing.TB
	info *mesos.FrameworkInfo
}

// Subscribe subscribes a framework and takes its SUBSCRIBED event. The info is used as it is, its id included.
func Subscribe(t testing.TB, m *master.Master, info *mesos.FrameworkInfo, suppressed ...string) *Framework {
	t.Helper()
	f := TrySubscribe(t, m, info, suppressed...)
	event := f.Expect(scheduler.Event_SUBSCRIBED)
	f.ID = event.GetSubscribed().GetFrameworkId().GetValue()
	return f
}

// TrySubscribe opens a stream and leaves what comes on it to the caller.
func TrySubscribe(t testing.TB, m *master.Master, info *mesos.FrameworkInfo, suppressed ...string) *Framework {
	t.Helper()
	return Open(t, m, &scheduler.Call_Subscribe{FrameworkInfo: info, SuppressedRoles: suppressed})
}

// Open opens a stream with all that a subscription may say.
func Open(t testing.TB, m *master.Master, sub *scheduler.Call_Subscribe) *Framework {
	t.Helper()
	info := sub.GetFrameworkInfo()
	stream, err := m.Subscribe(t.Context(), &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: info.GetId(), Subscribe: sub,
	}, "", netip.Addr{})
	if err != nil {
		t.Fatalf("cannot subscribe: %v", err)
	}
	t.Cleanup(stream.Close)
	return &Framework{ID: info.GetId().GetValue(), Master: m, Stream: stream, t: t, info: info}
}

// Again is the framework's description with its id, for another subscription.
func (f *Framework) Again() *mesos.FrameworkInfo {
	info := proto.CloneOf(f.info)
	info.Id = &mesos.FrameworkID{Value: proto.String(f.ID)}
	return info
}

// Next returns the next event that is no heartbeat, or the error of the stream.
func (f *Framework) Next(patience time.Duration) (*scheduler.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		event, err := f.Stream.Next(ctx)
		if err != nil || event.GetType() != scheduler.Event_HEARTBEAT {
			return event, err
		}
	}
}

// Expect returns the next event, which has to be of a type.
func (f *Framework) Expect(want scheduler.Event_Type) *scheduler.Event {
	f.t.Helper()
	event, err := f.Next(Patience)
	if err != nil {
		f.t.Fatalf("want %s, got error: %v", want, err)
	}
	if event.GetType() != want {
		f.t.Fatalf("want %s, got %s", want, prototext.Format(event))
	}
	return event
}

// ExpectOffer returns the one offer of the next event.
func (f *Framework) ExpectOffer() *mesos.Offer {
	f.t.Helper()
	offers := f.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers()
	if len(offers) != 1 {
		f.t.Fatalf("want 1 offer, got %d", len(offers))
	}
	return offers[0]
}

// ExpectUpdate returns the next status, which has to be of that task in that state. One that wants to be acknowledged is.
func (f *Framework) ExpectUpdate(task string, want mesos.TaskState) *mesos.TaskStatus {
	f.t.Helper()
	status := f.Expect(scheduler.Event_UPDATE).GetUpdate().GetStatus()
	if status.GetTaskId().GetValue() != task || status.GetState() != want {
		f.t.Fatalf("want %s of %q, got %s", want, task, prototext.Format(status))
	}
	f.Acknowledge(status)
	return status
}

// ExpectSilence fails when an event comes within d.
func (f *Framework) ExpectSilence(d time.Duration) {
	f.t.Helper()
	if event, err := f.Next(d); err == nil {
		f.t.Fatalf("want silence, got %s", prototext.Format(event))
	}
}

// Acknowledge acknowledges a status, if it wants that.
func (f *Framework) Acknowledge(s *mesos.TaskStatus) {
	f.t.Helper()
	if len(s.GetUuid()) == 0 {
		return
	}
	f.Call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{
		AgentId: s.GetAgentId(), TaskId: s.GetTaskId(), Uuid: s.GetUuid(),
	}})
}

// TryCall makes a call in the framework's name.
func (f *Framework) TryCall(call *scheduler.Call) error {
	call.FrameworkId = &mesos.FrameworkID{Value: proto.String(f.ID)}
	return f.Master.Call(context.Background(), call, f.Stream.ID(), "")
}

// Call is TryCall that has to be accepted.
func (f *Framework) Call(call *scheduler.Call) {
	f.t.Helper()
	if err := f.TryCall(call); err != nil {
		f.t.Fatalf("%s refused: %v", call.GetType(), err)
	}
}

// Launch accepts offers with one LAUNCH.
func (f *Framework) Launch(offer *mesos.Offer, refuse float64, tasks ...*mesos.TaskInfo) {
	f.t.Helper()
	for _, task := range tasks {
		if task.AgentId == nil {
			task.AgentId = offer.GetAgentId()
		}
	}
	f.Call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{offer.GetId()},
		Operations: []*mesos.Offer_Operation{{
			Type:   mesos.Offer_Operation_LAUNCH.Enum(),
			Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks},
		}},
		Filters: &mesos.Filters{RefuseSeconds: proto.Float64(refuse)},
	}})
}

// Decline declines offers.
func (f *Framework) Decline(refuse float64, offers ...*mesos.Offer) {
	f.t.Helper()
	decline := &scheduler.Call_Decline{Filters: &mesos.Filters{RefuseSeconds: proto.Float64(refuse)}}
	for _, o := range offers {
		decline.OfferIds = append(decline.OfferIds, o.GetId())
	}
	f.Call(&scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: decline})
}

// Reconcile asks for the states of tasks; pairs of task and agent ids, the latter may be empty. No pairs ask for all.
func (f *Framework) Reconcile(pairs ...string) {
	f.t.Helper()
	r := &scheduler.Call_Reconcile{}
	for i := 0; i < len(pairs); i += 2 {
		one := &scheduler.Call_Reconcile_Task{TaskId: &mesos.TaskID{Value: proto.String(pairs[i])}}
		if pairs[i+1] != "" {
			one.AgentId = &mesos.AgentID{Value: proto.String(pairs[i+1])}
		}
		r.Tasks = append(r.Tasks, one)
	}
	f.Call(&scheduler.Call{Type: scheduler.Call_RECONCILE.Enum(), Reconcile: r})
}

// Task is a command task with resources such as "cpus:1;mem:32".
func Task(id, res string) *mesos.TaskInfo {
	parsed, err := resources.Parse(res, resources.AnyRole)
	if err != nil {
		panic(err) // a mistake in the test
	}
	return &mesos.TaskInfo{
		Name: proto.String(id), TaskId: &mesos.TaskID{Value: proto.String(id)}, Resources: parsed.ProtoPreRefinement(),
		Command: &mesos.CommandInfo{Value: proto.String("sleep 1000")},
	}
}

// SetInfo notes what the framework says of itself from now on.
func (f *Framework) SetInfo(info *mesos.FrameworkInfo) { f.info = proto.CloneOf(info) }
