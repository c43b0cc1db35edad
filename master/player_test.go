package master_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
	"starling/master/validation"
)

// player is a framework of a sequence, with all that it was told.
type player struct {
	*mastertest.Framework
	s    *sequence
	info *mesos.FrameworkInfo
	// open is set from its subscription on, subscribed once it has been told of it; removed once its id is over.
	open, subscribed, removed bool
	offers                    map[string]*mesos.Offer // that it holds
	stale                     []string                // offers that it held
	tasks                     map[string]string       // that it tried to launch, with their agents
	ended                     map[string]bool         // that were ended by it or by the world
	over                      map[string]bool         // of which it heard an end that has to be acknowledged
	live                      map[string]bool         // of which it heard on this stream that they run
	ran                       int                     // how many did
	asked                     map[string]bool         // tasks that it may hear of without having launched them
	acks                      []*scheduler.Call_Acknowledge
	opAcks                    []*mesos.OperationStatus
	inverse                   map[string]bool            // inverse offers that it was made
	heard                     map[string]mesos.TaskState // by the answers to the last question
}

func (s *sequence) connected() []*player {
	if !s.leading {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.players), func(p *player) bool { return !p.subscribed })
}

// subscription is what concerns streams.
func (s *sequence) subscription() string {
	if !s.leading {
		return "nobody leads"
	}
	p := one(s, s.players)
	switch s.rng.IntN(6) {
	case 0, 1:
		if live := slices.DeleteFunc(slices.Clone(s.players), func(p *player) bool { return p.removed }); len(live) < maxPlayers {
			return s.enter()
		}
	case 2:
		if p != nil && p.open {
			p.Stream.Close()
			p.closed()
			return p.ID + " leaves"
		}
	case 3, 4:
		if p != nil && !p.removed && (!p.open || s.chance(4)) {
			// One whose time is over by now is told so.
			p.subscribe(p.Again())
			return p.ID + " subscribes again"
		}
	default:
		if p != nil && p.open && s.chance(3) {
			info := proto.CloneOf(p.Again())
			info.Roles = nil
			if !validation.Has(info, multiRole) {
				info.Role = proto.String(s.role())
			} else {
				info.Roles = s.roles()
			}
			p.subscribe(info)
			return p.ID + " takes itself over with other roles"
		}
	}
	return "nothing"
}

func (s *sequence) role() string { return one(s, []string{"*", "web", "web/a", "batch"}) }

func (s *sequence) roles() []string {
	all := []string{"web", "web/a", "batch"}
	s.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+s.rng.IntN(len(all))]
}

// enter lets a new framework subscribe, sometimes under an id of its own.
func (s *sequence) enter() string {
	info := &mesos.FrameworkInfo{
		User: proto.String("svc"), Name: proto.String(fmt.Sprint("p", len(s.players))),
		FailoverTimeout: proto.Float64(one(s, []float64{0, 0, 5, 60, 600})), Checkpoint: proto.Bool(s.chance(2)),
	}
	add := func(c mesos.FrameworkInfo_Capability_Type) {
		info.Capabilities = append(info.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
	}
	if s.chance(2) {
		add(multiRole)
		info.Roles = s.roles()
	} else {
		info.Role = proto.String(s.role())
	}
	if s.chance(2) {
		add(aware)
	}
	if s.chance(2) {
		add(refined)
	}
	if s.chance(6) {
		info.Id = &mesos.FrameworkID{Value: proto.String(fmt.Sprint("own-", len(s.players)))}
	}
	p := &player{
		s: s, tasks: make(map[string]string), ended: make(map[string]bool), over: make(map[string]bool), asked: make(map[string]bool),
		Framework: &mastertest.Framework{},
	}
	s.players = append(s.players, p)
	p.subscribe(info)
	return "enter " + info.GetName()
}

func (p *player) subscribe(info *mesos.FrameworkInfo) {
	p.closed()
	var suppressed []string
	if roles := validation.Roles(info); p.s.chance(4) {
		suppressed = roles[:1]
	}
	p.Framework = mastertest.TrySubscribe(p.s.t, p.s.c.Master, info, suppressed...)
	p.info, p.open = info, true
}

// closed is the end of a stream: no offer outlives it.
func (p *player) closed() {
	for id := range p.offers {
		p.stale = append(p.stale, id)
	}
	p.open, p.subscribed, p.offers, p.inverse = false, false, make(map[string]*mesos.Offer), make(map[string]bool)
	p.live = make(map[string]bool) // whether they are there when it comes back it does not know
}

// drain returns the events that are there, without waiting, and without the error that ends them.
func drain(t *testing.T, f *mastertest.Framework) []*scheduler.Event {
	t.Helper()
	now, cancel := context.WithCancel(t.Context())
	cancel()
	var events []*scheduler.Event
	for {
		event, err := f.Stream.Next(now)
		if err != nil {
			return events
		}
		events = append(events, event)
	}
}

// read lets all players read all that there is.
func (s *sequence) read() {
	now, cancel := context.WithCancel(s.t.Context())
	cancel()
	for _, p := range s.players {
		for p.open {
			event, err := p.Stream.Next(now)
			if errors.Is(err, context.Canceled) {
				break
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					s.t.Errorf("the stream of %s ends with %v", p.ID, err)
				}
				p.closed()
				break
			}
			if fault := p.hear(event); fault != "" {
				s.t.Errorf("%s was told what it must not be: %s: %s", p.ID, fault, prototext.Format(event))
			}
		}
	}
}

// hear takes an event in, and tells what is wrong with it.
func (p *player) hear(e *scheduler.Event) string {
	if !p.subscribed && e.GetType() != scheduler.Event_SUBSCRIBED && e.GetType() != scheduler.Event_ERROR {
		return "before SUBSCRIBED"
	}
	switch e.GetType() {
	case scheduler.Event_SUBSCRIBED:
		id := e.GetSubscribed().GetFrameworkId().GetValue()
		if p.subscribed || p.removed || p.ID != "" && p.ID != id {
			return "not its subscription"
		}
		p.ID, p.subscribed = id, true
	case scheduler.Event_ERROR:
		switch e.GetError().GetMessage() {
		case "Framework has been removed":
			p.removed = true
		case "Framework failed over":
			return "nobody has taken it over"
		default:
			return "it did nothing wrong"
		}
	case scheduler.Event_OFFERS:
		for _, o := range e.GetOffers().GetOffers() {
			if fault := p.offer(o); fault != "" {
				return fault
			}
		}
	case scheduler.Event_RESCIND:
		id := e.GetRescind().GetOfferId().GetValue()
		if p.offers[id] == nil {
			return "it does not hold this offer"
		}
		delete(p.offers, id)
		p.stale = append(p.stale, id)
	case scheduler.Event_INVERSE_OFFERS:
		for _, o := range e.GetInverseOffers().GetInverseOffers() {
			p.inverse[o.GetId().GetValue()] = true
		}
	case scheduler.Event_RESCIND_INVERSE_OFFER:
		delete(p.inverse, e.GetRescindInverseOffer().GetInverseOfferId().GetValue())
	case scheduler.Event_UPDATE:
		return p.update(e.GetUpdate().GetStatus())
	case scheduler.Event_UPDATE_OPERATION_STATUS:
		if status := e.GetUpdateOperationStatus().GetStatus(); status.GetUuid() != nil {
			p.opAcks = append(p.opAcks, status)
		}
	}
	return ""
}

// offer checks that an offer is new, of the form that the framework asked for, and for a role that it wants offers for.
func (p *player) offer(o *mesos.Offer) string {
	id := o.GetId().GetValue()
	if p.s.offered[id] != nil {
		return "an offer with the id of an earlier one"
	}
	p.s.offered[id] = p
	p.offers[id] = o
	multi, refines := validation.Has(p.info, multiRole), validation.Has(p.info, refined)
	if multi && !slices.Contains(p.info.GetRoles(), o.GetAllocationInfo().GetRole()) || !multi && o.AllocationInfo != nil {
		return "an offer for another role"
	}
	for _, r := range o.GetResources() {
		if (r.AllocationInfo != nil) != multi || (r.Role == nil) != refines {
			return "resources in another form"
		}
	}
	if o.GetFrameworkId().GetValue() != p.ID {
		return "an offer for another framework"
	}
	return ""
}

// update checks that an update is about a task of its own, and no update of an agent comes after one that was the last.
func (p *player) update(s *mesos.TaskStatus) string {
	id := s.GetTaskId().GetValue()
	agent, own := p.tasks[id]
	if !own && !p.asked[id] {
		return "an update for a task that it never launched"
	}
	if p.heard != nil && s.GetReason() == mesos.TaskStatus_REASON_RECONCILIATION {
		p.heard[id] = s.GetState()
	}
	if len(s.GetUuid()) == 0 {
		if s.GetSource() != mesos.TaskStatus_SOURCE_MASTER {
			return "an update without a uuid that is not the master's"
		}
		return ""
	}
	switch {
	case s.GetSource() == mesos.TaskStatus_SOURCE_MASTER:
		return "an update of the master with a uuid"
	case !own || s.GetAgentId().GetValue() != agent:
		return "an update of an agent where it launched nothing of that name"
	case p.over[id] && !terminalState(s.GetState()):
		return "an update after the last"
	case s.GetState() == mesos.TaskState_TASK_ERROR && !p.s.disturbed[agent]:
		return "the agent has not what was offered"
	}
	p.over[id] = p.over[id] || terminalState(s.GetState())
	if s.GetState() == mesos.TaskState_TASK_RUNNING {
		p.live[id] = true
		p.ran++
	}
	p.acks = append(p.acks, &scheduler.Call_Acknowledge{AgentId: s.GetAgentId(), TaskId: s.GetTaskId(), Uuid: s.GetUuid()})
	return ""
}

func terminalState(s mesos.TaskState) bool {
	switch s {
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_KILLING,
		mesos.TaskState_TASK_UNREACHABLE:
		return false
	}
	return true
}

// acknowledgeAll acknowledges what it has not.
func (p *player) acknowledgeAll() {
	for _, ack := range p.acks {
		p.s.must(p.TryCall(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: ack}))
	}
	p.acks = nil
}

// running are its tasks that run on the agents.
func (p *player) running() map[string]bool {
	running := make(map[string]bool)
	for _, a := range p.s.agents {
		for _, id := range a.Running(p.ID) {
			running[id] = true
		}
	}
	return running
}

// hearsOf asks for all tasks, and wants to hear of those that run.
func (p *player) hearsOf() {
	p.heard = make(map[string]mesos.TaskState)
	p.Reconcile()
	synctest.Wait()
	p.s.read()
	for id := range p.running() {
		if _, told := p.heard[id]; !told {
			p.s.t.Errorf("%s does not hear of %s, which runs", p.ID, id)
		}
	}
}

// agrees asks for all tasks, and wants to hear of those that run on the agents, and that those run.
func (p *player) agrees() {
	t := p.s.t
	running := p.running()
	if p.removed {
		// It may have been forgotten, as one removed framework too many, and found again with an agent that was away.
		if len(running) > 0 && !p.s.listed()[p.ID] {
			t.Errorf("%s is removed, and %v run", p.ID, running)
		}
		return
	}
	if !p.subscribed {
		t.Errorf("%s could not come back", p.ID)
		return
	}
	p.hearsOf()
	for id, state := range p.heard {
		if state == mesos.TaskState_TASK_RUNNING != running[id] {
			t.Errorf("%s hears that %s is %s, it runs: %v", p.ID, id, state, running[id])
		}
	}
	// What was launched and runs no more was ended by somebody.
	for id := range p.tasks {
		p.asked[id] = true
		p.heard = make(map[string]mesos.TaskState)
		p.Reconcile(id, "")
		synctest.Wait()
		p.s.read()
		if state, told := p.heard[id]; !told || terminalState(state) == running[id] {
			t.Errorf("%s hears of %s that it is %v (told: %v), it runs: %v", p.ID, id, state, told, running[id])
		}
		if !running[id] && p.over[id] && !p.ended[id] && !p.s.disturbed[p.tasks[id]] {
			t.Errorf("%s: %s has ended, and nobody ended it", p.ID, id)
		}
	}
	p.heard = nil
}

// listed are the frameworks that the master has on its list.
func (s *sequence) listed() map[string]bool {
	view, err := s.c.Master.View(s.t.Context())
	s.must(err)
	ids := make(map[string]bool)
	for _, f := range view.Frameworks {
		ids[f.Info.GetId().GetValue()] = true
	}
	return ids
}

// check compares all that players hold with the master's books and with the agents.
func (s *sequence) check() error {
	var faults []error
	if err := s.c.Master.CheckBooks(s.t.Context()); err != nil {
		faults = append(faults, err)
	}
	want, err := s.c.Master.OfferIDs(s.t.Context())
	if err != nil {
		return err
	}
	offered := make(map[string]resources.Resources)
	for _, p := range s.players {
		if p.ID == "" {
			continue
		}
		held := slices.Sorted(maps.Keys(p.offers))
		if !slices.Equal(held, want[p.ID]) {
			faults = append(faults, fmt.Errorf("%s holds the offers %v, and the master knows of %v", p.ID, held, want[p.ID]))
		}
		delete(want, p.ID)
		for _, o := range p.offers {
			agent := o.GetAgentId().GetValue()
			offered[agent] = offered[agent].Add(parsedResources(s.t, o.GetResources()))
		}
	}
	for id, offers := range want {
		faults = append(faults, fmt.Errorf("nobody holds %v, made to %s", offers, id))
	}
	for _, a := range s.agents {
		if free := a.Free(); !free.Contains(offered[a.ID]) {
			faults = append(faults, fmt.Errorf("agent %s: %v are offered, %v are free", a.ID, offered[a.ID], free))
		}
	}
	return errors.Join(faults...)
}

// refused wants an error that says why a call was refused.
func (p *player) refused(err error, want string) {
	p.s.t.Helper()
	if refusal, ok := errors.AsType[*master.Refusal](err); !ok || !strings.Contains(refusal.Text, want) {
		p.s.t.Errorf("%s: got %v, want %q", p.ID, err, want)
	}
}
