package hosts

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// Scheduler is a small framework beside Marathon: it launches what it is told to on an offer that is enough, declines all
// others, and notes what it hears. It subscribes again, with its id, whenever its stream ends.
type Scheduler struct {
	t      testing.TB
	probes string
	client *client.Client
	info   *mesos.FrameworkInfo

	mu     sync.Mutex // guards what follows
	stream *client.Stream
	launch []string // ids of tasks that wait for an offer
	hold   bool     // keep offers
	// use makes the call that uses an offer, nil for one that it does not want; it goes before all else.
	use     func(*mesos.Offer) *scheduler.Call
	held    []*mesos.Offer // of this stream
	heard   []Heard
	streams int
}

// Heard is an event of a Scheduler, with the time at which it came.
type Heard struct {
	At     time.Time
	Event  *scheduler.Event
	Master string // who sent it
}

// NewScheduler subscribes a framework at one of the masters named, until the test ends.
func (m *Masters) NewScheduler(name string) *Scheduler {
	m.t.Helper()
	f := &Scheduler{
		t: m.t, probes: m.probes,
		client: client.New(client.Config{
			Masters: m.Addresses(), Codec: codec.JSON, MinBackoff: 20 * time.Millisecond, MaxBackoff: 200 * time.Millisecond,
			CallTimeout: time.Minute, // so that a frozen master may answer yet
			Transport:   &http.Transport{DialContext: m.Network.dial, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute},
		}),
		info: &mesos.FrameworkInfo{
			User: proto.String("root"), Name: proto.String(name), FailoverTimeout: proto.Float64(3600), Checkpoint: proto.Bool(true),
			Roles: []string{"*"}, Capabilities: []*mesos.FrameworkInfo_Capability{
				{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()}, {Type: mesos.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
			},
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && f.session(ctx) {
		}
	}()
	m.t.Cleanup(func() {
		cancel()
		<-done
		f.client.Close()
	})
	return f
}

// session is one subscription, from end to end. It returns false when the master ended it with an error: another one would
// fare no better.
func (f *Scheduler) session(ctx context.Context) bool {
	f.mu.Lock()
	subscribe := &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: f.info.GetId(), Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: f.info},
	}
	f.mu.Unlock()
	stream, err := f.client.Subscribe(ctx, subscribe)
	if err != nil {
		return false // ctx ended, or the master refused: then what is waited for does not come
	}
	defer stream.Close()
	f.mu.Lock()
	f.stream, f.held = stream, nil
	f.streams++
	f.mu.Unlock()
	for {
		e, err := stream.Next()
		if err != nil {
			return true
		}
		if e.GetType() == scheduler.Event_HEARTBEAT {
			continue
		}
		for _, call := range f.take(e, stream.Master()) {
			_ = stream.Call(ctx, call) // one that got lost is made up for by the next stream
		}
		if e.GetType() == scheduler.Event_ERROR {
			return false
		}
	}
}

// take notes an event, and returns the calls that answer it.
func (f *Scheduler) take(e *scheduler.Event, master string) []*scheduler.Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, Heard{time.Now(), e, master})
	switch e.GetType() {
	case scheduler.Event_SUBSCRIBED:
		info := proto.CloneOf(f.info)
		info.Id = e.GetSubscribed().GetFrameworkId()
		f.info = info
	case scheduler.Event_OFFERS:
		var calls []*scheduler.Call
		for _, o := range e.GetOffers().GetOffers() {
			if f.use != nil {
				if call := f.use(o); call != nil {
					calls = append(calls, call)
					continue
				}
			}
			switch {
			case len(f.launch) > 0 && f.enough(o, len(f.launch)):
				calls = append(calls, f.accept(o, f.launch...))
				f.launch = nil
			case f.hold && f.enough(o, 1):
				f.held = append(f.held, o)
			default:
				calls = append(calls, &scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), FrameworkId: f.info.GetId(), Decline: &scheduler.Call_Decline{
					OfferIds: []*mesos.OfferID{o.GetId()}, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(1)},
				}})
			}
		}
		return calls
	case scheduler.Event_UPDATE:
		if s := e.GetUpdate().GetStatus(); len(s.GetUuid()) > 0 {
			return []*scheduler.Call{{Type: scheduler.Call_ACKNOWLEDGE.Enum(), FrameworkId: f.info.GetId(), Acknowledge: &scheduler.Call_Acknowledge{
				AgentId: s.GetAgentId(), TaskId: s.GetTaskId(), Uuid: s.GetUuid(),
			}}}
		}
	}
	return nil
}

// accept launches tasks, which are probes, on an offer; f.mu is held.
func (f *Scheduler) accept(o *mesos.Offer, ids ...string) *scheduler.Call {
	launch := &mesos.Offer_Operation_Launch{}
	for _, id := range ids {
		launch.TaskInfos = append(launch.TaskInfos, f.task(id, o.GetAgentId()))
	}
	return &scheduler.Call{
		Type: scheduler.Call_ACCEPT.Enum(), FrameworkId: f.info.GetId(), Accept: &scheduler.Call_Accept{
			OfferIds:   []*mesos.OfferID{o.GetId()},
			Operations: []*mesos.Offer_Operation{{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: launch}},
		},
	}
}

// need is what a task takes.
func (f *Scheduler) need() resources.Resources {
	need, err := resources.Parse("cpus:0.05;mem:32", resources.AnyRole)
	if err != nil {
		f.t.Error(err)
	}
	return need.AllocatedTo(resources.AnyRole)
}

// enough tells whether some tasks fit on an offer. One may be of a crumb: what came free while the rest of its agent was offered to
// another framework.
func (f *Scheduler) enough(o *mesos.Offer, tasks int) bool {
	offered, err := resources.FromProto(o.GetResources())
	if err != nil {
		f.t.Error(err)
	}
	all := resources.Sum(slices.Values(slices.Repeat([]resources.Resources{f.need()}, tasks)))
	return offered.Contains(all)
}

// task is a probe that listens on a port of its own choice.
func (f *Scheduler) task(id string, agent *mesos.AgentID) *mesos.TaskInfo {
	self, err := os.Executable()
	if err != nil {
		f.t.Error(err)
	}
	return &mesos.TaskInfo{
		Name: proto.String(id), TaskId: &mesos.TaskID{Value: proto.String(id)}, AgentId: agent, Resources: f.need().ProtoPreRefinement(),
		Command: &mesos.CommandInfo{Value: proto.String("exec " + self), Environment: &mesos.Environment{
			Variables: []*mesos.Environment_Variable{
				{Name: proto.String(probeVariable), Value: proto.String(f.probes)},
				{Name: proto.String("PORT0"), Value: proto.String("0")},
				{Name: proto.String("MESOS_TASK_ID"), Value: proto.String(id)},
			},
		}},
	}
}

// Info describes the framework, with its id once it has one.
func (f *Scheduler) Info() *mesos.FrameworkInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.info
}

// ID is the framework's.
func (f *Scheduler) ID() string { return f.Info().GetId().GetValue() }

// Since returns what was heard after a moment.
func (f *Scheduler) Since(moment time.Time) []Heard {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, h := range f.heard {
		if h.At.After(moment) {
			return append([]Heard(nil), f.heard[i:]...)
		}
	}
	return nil
}

// Launch launches tasks and waits until they run, and have left their marks as probes do.
func (f *Scheduler) Launch(ids ...string) {
	f.t.Helper()
	began := time.Now()
	f.mu.Lock()
	f.launch = append(f.launch, ids...)
	f.mu.Unlock()
	Eventually(f.t, time.Minute, fmt.Sprintf("tasks %v of the small framework run", ids), func() error {
		running, last := map[string]bool{}, map[string]*mesos.TaskStatus{}
		for _, h := range f.Since(began) {
			if s := h.Event.GetUpdate().GetStatus(); s != nil {
				id := s.GetTaskId().GetValue()
				running[id], last[id] = running[id] || s.GetState() == mesos.TaskState_TASK_RUNNING, s
			}
		}
		for _, id := range ids {
			if !running[id] {
				return fmt.Errorf("%s does not, the last that was told of it: %v", id, last[id])
			}
			if left, _ := filepath.Glob(filepath.Join(f.probes, id+".*")); len(left) == 0 {
				return fmt.Errorf("%s has left no mark", id)
			}
		}
		return nil
	})
}

// Subscribed waits until the framework is subscribed at a master, after a moment, and returns how long after it was.
func (f *Scheduler) Subscribed(master *Master, after time.Time, limit time.Duration) time.Duration {
	f.t.Helper()
	return f.hears(master, after, limit, "it is subscribed", scheduler.Event_SUBSCRIBED)
}

// Offered is Subscribed for the first offer.
func (f *Scheduler) Offered(master *Master, after time.Time, limit time.Duration) time.Duration {
	f.t.Helper()
	return f.hears(master, after, limit, "it gets an offer", scheduler.Event_OFFERS)
}

func (f *Scheduler) hears(master *Master, after time.Time, limit time.Duration, what string, event scheduler.Event_Type) (took time.Duration) {
	f.t.Helper()
	Eventually(f.t, limit, what+" at "+master.name, func() error {
		heard := f.Since(after)
		for _, h := range heard {
			if h.Event.GetType() == event && h.Master == master.Host.at(5050) {
				took = h.At.Sub(after)
				return nil
			}
		}
		return fmt.Errorf("it heard %d events", len(heard))
	})
	return took
}

// NothingFalse fails the test if the framework was told anything but that its tasks run, or of an error, since a moment.
func (f *Scheduler) NothingFalse(since time.Time) {
	f.t.Helper()
	for _, h := range f.Since(since) {
		switch h.Event.GetType() {
		case scheduler.Event_UPDATE:
			switch s := h.Event.GetUpdate().GetStatus(); s.GetState() {
			case mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING:
			default:
				f.t.Errorf("%s told of a running task: %v", h.Master, s)
			}
		case scheduler.Event_ERROR, scheduler.Event_FAILURE:
			f.t.Errorf("%s told: %v", h.Master, h.Event)
		}
	}
}

// Hold makes the framework keep the offers that come from now on, and waits for one of an agent.
func (f *Scheduler) Hold() *mesos.Offer {
	f.t.Helper()
	f.mu.Lock()
	f.hold = true
	f.mu.Unlock()
	var offer *mesos.Offer
	Eventually(f.t, time.Minute, "the framework holds an offer", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.held) == 0 {
			return fmt.Errorf("it has none")
		}
		offer = f.held[0]
		return nil
	})
	return offer
}

// Accept is the call that launches tasks on an offer.
func (f *Scheduler) Accept(o *mesos.Offer, ids ...string) *scheduler.Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accept(o, ids...)
}

// Release ends Hold; what is held goes with the stream.
func (f *Scheduler) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = false
}

// Call makes a call on the present stream, and returns what came of it.
func (f *Scheduler) Call(call *scheduler.Call) error {
	f.mu.Lock()
	stream := f.stream
	f.mu.Unlock()
	return stream.Call(context.Background(), call)
}
