package scale_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// framework is one at the HTTP API, in JSON as most of them.
type framework struct {
	t      testing.TB
	name   string
	id     string // set once subscribed
	client *client.Client
	stream *client.Stream
	calls  chan *scheduler.Call // sent one after the other by a goroutine
	wg     sync.WaitGroup
	// offers takes what is offered; it runs on the goroutine that reads the stream. nil holds offers.
	offers  atomic.Pointer[func([]*mesos.Offer)]
	offered atomic.Int64 // so far, and taken
	updates atomic.Int64
	closing atomic.Bool
}

const never = 365 * 24 * 3600.0

// wish is what a framework subscribes with. An empty id stands for a new framework; with take it gets offers from the
// start, without only once it revives.
type wish struct {
	name, id string
	take     func(*framework, []*mesos.Offer)
}

// subscribe opens a stream.
func subscribe(t testing.TB, addr string, w wish) (*framework, error) {
	name, id := w.name, w.id
	info := &mesos.FrameworkInfo{
		User: proto.String("svc"), Name: proto.String(name), Roles: []string{"team-" + name}, FailoverTimeout: proto.Float64(3600),
		Capabilities: []*mesos.FrameworkInfo_Capability{
			{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()}, {Type: mesos.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
		},
	}
	call := &scheduler.Call{Type: scheduler.Call_SUBSCRIBE.Enum(), Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: info}}
	if id != "" {
		info.Id = &mesos.FrameworkID{Value: proto.String(id)}
		call.FrameworkId = info.Id
	}
	f := &framework{
		t: t, name: name, calls: make(chan *scheduler.Call, 1<<16),
		client: client.New(client.Config{
			Masters: []string{addr}, Codec: codec.JSON, SubscribeTimeout: time.Minute, CallTimeout: time.Minute, MinBackoff: 10 * time.Millisecond,
			Transport: &http.Transport{MaxIdleConnsPerHost: 4},
		}),
	}
	if w.take != nil {
		f.take(func(offers []*mesos.Offer) { w.take(f, offers) })
	} else {
		call.Subscribe.SuppressedRoles = info.Roles
	}
	var err error
	if f.stream, err = f.client.Subscribe(context.Background(), call); err != nil {
		return nil, err
	}
	event, err := f.stream.Next()
	if err == nil && event.GetType() != scheduler.Event_SUBSCRIBED {
		err = fmt.Errorf("want SUBSCRIBED, got %v", event)
	}
	if err != nil {
		f.stream.Close()
		return nil, err
	}
	f.id = event.GetSubscribed().GetFrameworkId().GetValue()
	f.wg.Go(f.read)
	f.wg.Go(f.write)
	t.Cleanup(f.close)
	return f, nil
}

// subscribeAll opens many streams at once.
func subscribeAll(t testing.TB, addr string, wishes ...wish) []*framework {
	t.Helper()
	out := make([]*framework, len(wishes))
	errs := make([]error, len(wishes))
	var wg sync.WaitGroup
	for i, w := range wishes {
		wg.Go(func() { out[i], errs[i] = subscribe(t, addr, w) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return out
}

func (f *framework) take(offers func([]*mesos.Offer)) {
	if offers == nil {
		f.offers.Store(nil)
		return
	}
	f.offers.Store(&offers)
}

func (f *framework) read() {
	for {
		event, err := f.stream.Next()
		if err != nil {
			if !f.closing.Load() {
				f.t.Errorf("stream of framework %q ended: %v", f.name, err)
			}
			close(f.calls)
			return
		}
		switch event.GetType() {
		case scheduler.Event_OFFERS:
			offers := event.GetOffers().GetOffers()
			if take := f.offers.Load(); take != nil {
				(*take)(offers)
			}
			f.offered.Add(int64(len(offers)))
		case scheduler.Event_UPDATE:
			status := event.GetUpdate().GetStatus()
			if len(status.GetUuid()) > 0 {
				f.calls <- &scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{
					AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
				}}
			}
			f.updates.Add(1)
		}
	}
}

func (f *framework) write() {
	for call := range f.calls {
		if err := f.call(call); err != nil && !f.closing.Load() {
			f.t.Errorf("framework %q: %v", f.name, err)
		}
	}
}

// call makes a call now, ahead of those that wait.
func (f *framework) call(call *scheduler.Call) error {
	call.FrameworkId = &mesos.FrameworkID{Value: proto.String(f.id)}
	return f.stream.Call(context.Background(), call)
}

func (f *framework) close() {
	f.closing.Store(true)
	f.stream.Close()
	f.wg.Wait()
	f.client.Close()
}

// decline is the call that refuses offers for some seconds; nil for none.
func decline(offers []*mesos.Offer, seconds float64) *scheduler.Call {
	d := &scheduler.Call_Decline{Filters: &mesos.Filters{RefuseSeconds: proto.Float64(seconds)}}
	for _, o := range offers {
		d.OfferIds = append(d.OfferIds, o.GetId())
	}
	return &scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: d}
}

// accept is the call that launches tasks on an offer and refuses the rest of it for some seconds.
func accept(o *mesos.Offer, seconds float64, tasks ...*mesos.TaskInfo) *scheduler.Call {
	for _, t := range tasks {
		t.AgentId = o.GetAgentId()
	}
	return &scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{o.GetId()},
		Operations: []*mesos.Offer_Operation{{
			Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks},
		}},
		Filters: &mesos.Filters{RefuseSeconds: proto.Float64(seconds)},
	}}
}

// task is one of the usual kind: a command, a few variables, labels, a port that others look for.
func task(id string) *mesos.TaskInfo {
	res, err := resources.Parse("cpus:0.1;mem:64", resources.AnyRole)
	if err != nil {
		panic(err) // a mistake in the test
	}
	info := &mesos.TaskInfo{
		Name: proto.String("web.front"), TaskId: &mesos.TaskID{Value: proto.String(id)}, Resources: res.ProtoPreRefinement(),
		Command: &mesos.CommandInfo{Value: proto.String("exec ./server --listen :$PORT0"), Environment: &mesos.Environment{}},
		Labels: &mesos.Labels{Labels: []*mesos.Label{
			{Key: proto.String("owner"), Value: proto.String("team-front")}, {Key: proto.String("version"), Value: proto.String("1.2.3")},
		}},
		Discovery: &mesos.DiscoveryInfo{
			Visibility: mesos.DiscoveryInfo_FRAMEWORK.Enum(), Name: proto.String("web.front"),
			Ports: &mesos.Ports{Ports: []*mesos.Port{{Number: proto.Uint32(8080), Name: proto.String("http"), Protocol: proto.String("tcp")}}},
		},
	}
	for _, name := range []string{"HOST", "PORT0", "MARATHON_APP_ID", "MARATHON_APP_VERSION", "MESOS_TASK_ID", "LOG_LEVEL"} {
		info.Command.Environment.Variables = append(info.Command.Environment.Variables, &mesos.Environment_Variable{
			Name: proto.String(name), Value: proto.String("value of " + name),
		})
	}
	return info
}

// populate has frameworks launch tasks on an equal part of all agents each, until every agent has its tasks. Then they want
// no more offers, and have none.
func populate(t testing.TB, f *fleet, frameworks []*framework, tasks int) {
	t.Helper()
	var mu sync.Mutex
	full := make(map[string]bool)
	most := (len(f.agents) + len(frameworks) - 1) / len(frameworks)
	for _, fw := range frameworks {
		mine := 0
		fw.take(func(offers []*mesos.Offer) {
			var rest []*mesos.Offer
			for _, o := range offers {
				agent := o.GetAgentId().GetValue()
				mu.Lock()
				use := mine < most && !full[agent]
				if use {
					full[agent] = true
				}
				mu.Unlock()
				if !use {
					rest = append(rest, o)
					continue
				}
				mine++
				infos := make([]*mesos.TaskInfo, tasks)
				for i := range infos {
					infos[i] = task(fmt.Sprintf("%s.%s.%d", fw.name, agent[strings.LastIndexByte(agent, 'S'):], i))
				}
				fw.calls <- accept(o, never, infos...)
				if mine == most {
					fw.calls <- fw.suppress()
				}
			}
			if len(rest) > 0 {
				fw.calls <- decline(rest, never)
			}
		})
	}
	for _, fw := range frameworks {
		fw.calls <- fw.revive()
	}
	eventually(t, "all tasks are launched", func() bool { return int(f.tasks.Load()) == tasks*len(f.agents) })
	eventually(t, "all updates are acknowledged", f.settled)
	for _, fw := range frameworks {
		fw.take(func(offers []*mesos.Offer) { fw.calls <- decline(offers, never) })
		// Done on return: a REVIVE that follows must not be overtaken.
		if err := fw.call(fw.suppress()); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *framework) revive() *scheduler.Call {
	return &scheduler.Call{Type: scheduler.Call_REVIVE.Enum(), Revive: &scheduler.Call_Revive{}}
}

func (f *framework) suppress() *scheduler.Call {
	return &scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum(), Suppress: &scheduler.Call_Suppress{}}
}
