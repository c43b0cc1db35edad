// Command mesos-go is a scheduler on the v1 library of that name, as Debian packages it. clients_test.go builds it outside of
// any module and drives it: orders come as lines on the input, what happens goes as lines with "> " in front to the output.
//
// Usage: mesos-go CODEC HOST PORT [FRAMEWORK-ID], with CODEC protobuf or json.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/backoff"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/callrules"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/controller"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/eventrules"
	"github.com/mesos/mesos-go/api/v1/lib/extras/store"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli/httpsched"
	"github.com/mesos/mesos-go/api/v1/lib/resources"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/calls"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/events"
)

const failoverTimeout = 5 * time.Minute

var output sync.Mutex

func say(words ...interface{}) {
	output.Lock()
	defer output.Unlock()
	fmt.Println(append([]interface{}{">"}, words...)...)
}

type order struct{ name, command string }

type program struct {
	caller calls.Caller

	mu      sync.Mutex
	pending []order
	agents  map[string]string // by task id
}

func main() {
	codec := codecs.ByMediaType[codecs.MediaTypeProtobuf]
	if os.Args[1] == "json" {
		codec = codecs.ByMediaType[codecs.MediaTypeJSON]
	}
	id := store.NewInMemorySingleton()
	if len(os.Args) > 4 {
		_ = id.Set(os.Args[4])
	}
	known := store.GetIgnoreErrors(id)
	p := &program{agents: make(map[string]string)}
	p.caller = callrules.New(callrules.WithFrameworkID(known)).Caller(httpsched.NewCaller(httpcli.New(
		httpcli.Endpoint("http://"+os.Args[2]+":"+os.Args[3]+"/api/v1/scheduler"), httpcli.Codec(codec),
	), httpsched.AllowReconnection(true)))

	seconds, checkpoint := failoverTimeout.Seconds(), true
	self, err := user.Current()
	if err != nil {
		panic(err)
	}
	info := &mesos.FrameworkInfo{
		User: self.Username, Name: "others", FailoverTimeout: &seconds, Checkpoint: &checkpoint, Roles: []string{"others", "more"},
		Capabilities: []mesos.FrameworkInfo_Capability{
			{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE},
			{Type: mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT},
			{Type: mesos.FrameworkInfo_Capability_PARTITION_AWARE},
		},
	}
	if known() != "" {
		info.ID = &mesos.FrameworkID{Value: known()}
	}
	go p.orders()
	_ = controller.Run(context.Background(), info, p.caller,
		controller.WithEventHandler(p.handler(id)),
		controller.WithFrameworkID(known),
		controller.WithRegistrationTokens(backoff.Notifier(200*time.Millisecond, time.Second, nil)),
		controller.WithSubscriptionTerminated(func(err error) { say("closed", err) }),
	)
}

func (p *program) handler(id store.Singleton) events.Handler {
	return eventrules.New(controller.LiftErrors()).Handle(events.Handlers{
		scheduler.Event_SUBSCRIBED: eventrules.New(
			controller.TrackSubscription(id, failoverTimeout),
		).HandleF(func(_ context.Context, e *scheduler.Event) error {
			say("subscribed", e.GetSubscribed().GetFrameworkID().GetValue())
			return nil
		}),
		scheduler.Event_OFFERS: events.HandlerFunc(p.offers),
		scheduler.Event_UPDATE: eventrules.New(controller.AckStatusUpdates(p.caller)).HandleF(p.update),
		scheduler.Event_ERROR: events.HandlerFunc(func(_ context.Context, e *scheduler.Event) error {
			say("error", e.GetError().GetMessage())
			return nil
		}),
	})
}

func (p *program) update(_ context.Context, e *scheduler.Event) error {
	s := e.GetUpdate().GetStatus()
	p.mu.Lock()
	p.agents[s.TaskID.Value] = s.GetAgentID().GetValue()
	p.mu.Unlock()
	mark := "-"
	if len(s.GetUUID()) > 0 {
		mark = "uuid"
	}
	say("update", s.TaskID.Value, s.GetState(), s.GetReason(), mark)
	return nil
}

// offers launches what is wanted out of the first offer that holds it, and declines the rest.
func (p *program) offers(ctx context.Context, e *scheduler.Event) error {
	for _, offer := range e.GetOffers().GetOffers() {
		if offer.GetAllocationInfo().GetRole() == "" {
			say("error", "offer without allocation_info")
		}
		p.mu.Lock()
		wanted := p.pending
		p.pending = nil
		p.mu.Unlock()
		left := mesos.Resources(offer.Resources)
		var tasks []mesos.TaskInfo
		for _, one := range wanted {
			need := mesos.Resources{resources.NewCPUs(0.1).Resource, resources.NewMemory(32).Resource}
			for i := range need {
				need[i].AllocationInfo = offer.Resources[0].AllocationInfo
			}
			if !resources.ContainsAll(left, need) {
				p.mu.Lock()
				p.pending = append(p.pending, one)
				p.mu.Unlock()
				continue
			}
			left = left.Minus(need...)
			command := one.command
			tasks = append(tasks, mesos.TaskInfo{
				Name: one.name, TaskID: mesos.TaskID{Value: one.name}, AgentID: offer.AgentID, Resources: need,
				Command: &mesos.CommandInfo{Value: &command},
			})
		}
		var call *scheduler.Call
		if len(tasks) == 0 {
			call = calls.Decline(offer.ID).With(calls.RefuseSeconds(time.Hour))
		} else {
			call = calls.Accept(calls.OfferOperations{calls.OpLaunch(tasks...)}.WithOffers(offer.ID)).With(calls.RefuseSeconds(time.Hour))
		}
		p.send(ctx, call)
	}
	say("offers", len(e.GetOffers().GetOffers()))
	return nil
}

func (p *program) send(ctx context.Context, call *scheduler.Call) {
	if err := calls.CallNoData(ctx, p.caller, call); err != nil {
		say("error", call.GetType(), err)
		return
	}
	say("sent", strings.ToLower(call.GetType().String()))
}

// orders takes what the test wants.
func (p *program) orders() {
	ctx := context.Background()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		word, rest, _ := cut(lines.Text())
		switch word {
		case "launch":
			name, command, _ := cut(rest)
			p.mu.Lock()
			p.pending = append(p.pending, order{name, command})
			p.mu.Unlock()
			p.send(ctx, calls.Revive())
		case "kill":
			p.mu.Lock()
			agent := p.agents[rest]
			p.mu.Unlock()
			p.send(ctx, calls.Kill(rest, agent))
		case "reconcile":
			p.send(ctx, calls.Reconcile())
		case "teardown":
			p.send(ctx, &scheduler.Call{Type: scheduler.Call_TEARDOWN})
		}
	}
}

func cut(s string) (before, after string, found bool) {
	if i := strings.IndexByte(s, ' '); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}
