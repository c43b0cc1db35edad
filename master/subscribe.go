package master

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/validation"
)

// Subscribe opens the event stream of a framework. principal is the authenticated one, empty without authentication. peer is where the
// connection comes from, as far as that is known: DNS answers with it for a framework whose host name says nothing. The
// error is ErrNotLeading, ErrRecovering, or a Refusal; faults that the protocol reports inside the stream come as its
// only event. The caller must Close the stream when its connection ends.
func (m *Master) Subscribe(ctx context.Context, call *scheduler.Call, principal string, peer netip.Addr) (*Stream, error) {
	s := newStream(uuid.NewString(), &m.cfg, m.streamGone)
	s.peer = peer.Unmap().WithZone("")
	var err error
	if e := m.do(ctx, func() { err = m.subscribe(s, call, principal) }); e != nil {
		s.Close()
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// streamGone tells the loop that a connection has ended.
func (m *Master) streamGone(s *Stream) {
	m.post(func() {
		if f := m.frameworks[s.framework]; f != nil && f.stream == s {
			m.disconnect(f, "connection closed")
		}
	})
}

func (m *Master) subscribe(s *Stream, call *scheduler.Call, principal string) error {
	if m.term == nil {
		return m.notLeading()
	}
	if err := validation.Call(call); err != nil {
		return refuse(Invalid, "Failed to validate scheduler::Call: %v", err)
	}
	m.counters.add("master/messages_register_framework", 1)
	info := proto.CloneOf(call.GetSubscribe().GetFrameworkInfo())
	if principal != "" {
		if info.GetPrincipal() == "" {
			info.Principal = proto.String(principal)
		} else if info.GetPrincipal() != principal {
			return refuse(Invalid, "Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", principal, info.GetPrincipal())
		}
	}
	id := info.GetId().GetValue()
	if err := m.checkFramework(info, call.GetSubscribe().GetSuppressedRoles(), call.GetSubscribe().GetOfferConstraints()); err != nil {
		s.fail(err.Error())
		return nil
	}
	switch f := m.frameworks[id]; {
	case id != "" && m.isCompleted(id):
		s.fail("Framework has been removed")
	case f != nil && f.info.GetPrincipal() != info.GetPrincipal():
		s.fail("Changing framework's principal is not allowed.")
	case f != nil:
		m.resubscribe(f, s, info, call.GetSubscribe())
	case m.term.keeper.full():
		return ErrBusy
	default:
		m.admit(id, s, info, call.GetSubscribe())
	}
	return nil
}

// fail sends an ERROR as the last event.
func (s *Stream) fail(message string) {
	s.push(&scheduler.Event{
		Type:  scheduler.Event_ERROR.Enum(),
		Error: &scheduler.Event_Error{Message: proto.String(message)},
	})
	s.end()
}

// admit takes a framework that is not known. It hears that it is subscribed once its document is safe: its id must never
// be given to another.
func (m *Master) admit(id string, s *Stream, info *mesos.FrameworkInfo, sub *scheduler.Call_Subscribe) {
	known := id != ""
	if !known {
		id = fmt.Sprintf("%s-%04d", m.cfg.ID, m.term.idSeq)
		m.term.idSeq++
	}
	f := newFramework(id, info)
	f.setWishes(sub.GetSuppressedRoles(), sub.GetOfferConstraints())
	f.stream, s.beats, f.peer = s, f.metrics.beats, s.peer
	s.framework = id
	if known {
		m.addFramework(f)
	} else {
		m.frameworks[id] = f
		m.seatFramework(f)
	}
	registered := m.now()
	t := m.term
	// What is written says that it is registered; here it counts as such once that is safe.
	f.registered = registered
	m.keep(f, func() {
		m.post(func() {
			if m.term == t && m.frameworks[id] == f && f.stream == s {
				m.subscribed(f)
			}
		})
	})
	m.log.Info("framework subscribed", "framework_id", id, "name", info.GetName(), "principal", info.GetPrincipal())
}

// resubscribe takes back a framework, or a new stream in place of the old one.
func (m *Master) resubscribe(f *framework, s *Stream, info *mesos.FrameworkInfo, sub *scheduler.Call_Subscribe) {
	m.counters.add("master/messages_reregister_framework", 1)
	if f.stream != nil {
		f.stream.fail("Framework failed over")
		f.dropStream()
	}
	f.stopTimer()
	for _, o := range f.offers {
		m.withdraw(o)
	}
	m.withdrawInverse(f)
	// These two silently stay what they were.
	info.User, info.Checkpoint = f.info.User, f.info.Checkpoint
	f.setInfo(info)
	f.setWishes(sub.GetSuppressedRoles(), sub.GetOfferConstraints())
	f.stream, s.framework, s.beats, f.peer = s, f.id, f.metrics.beats, s.peer
	f.disconnected = time.Time{}
	f.reregistered = m.now()
	m.keep(f, nil)
	m.log.Info("framework subscribed again", "framework_id", f.id, "name", info.GetName())
	m.subscribed(f)
}

// subscribed tells a framework that it is, and lets offers flow.
func (m *Master) subscribed(f *framework) {
	f.connected, f.active, f.recovered = true, true, false
	f.metrics.call(scheduler.Call_SUBSCRIBE)
	m.countPrincipal(f, "messages_received")
	m.countPrincipal(f, "messages_processed")
	m.send(f, &scheduler.Event{
		Type: scheduler.Event_SUBSCRIBED.Enum(),
		Subscribed: &scheduler.Event_Subscribed{
			FrameworkId:              &mesos.FrameworkID{Value: proto.String(f.id)},
			HeartbeatIntervalSeconds: proto.Float64(m.cfg.HeartbeatInterval.Seconds()),
			MasterInfo:               m.Info(),
		},
	})
	m.announceFramework(f)
	m.seatFramework(f)
	for _, a := range m.agents {
		m.wantInverse(a)
	}
	// Agents send their updates again in their own time; what is here need not wait for that.
	for _, t := range f.tasks.byID {
		if t.unacked != nil && m.sendUpdate(f, t.unacked) {
			t.forwarded = forwardedAs(t.unacked)
			m.changed(t)
		}
	}
}

// setWishes replaces what the framework said about its offers; checkFramework has found no fault in it.
func (f *framework) setWishes(suppressed []string, constraints *scheduler.OfferConstraints) {
	clear(f.suppressed)
	for _, role := range suppressed {
		f.suppressed[role] = true
	}
	f.constraints = constraints
	f.admits, _ = allocator.CompileConstraints(constraints, f.roles)
}

// updateFramework is UPDATE_FRAMEWORK: unlike at a new subscription, what must not change is an error here.
func (m *Master) updateFramework(f *framework, update *scheduler.Call_UpdateFramework) error {
	info := update.GetFrameworkInfo()
	if err := m.checkFramework(info, update.GetSuppressedRoles(), update.GetOfferConstraints()); err != nil {
		return refuse(Invalid, "'UpdateFramework.framework_info' is invalid: %v", err)
	}
	if err := validation.Update(f.info, info); err != nil {
		return refuse(Invalid, "%v", err)
	}
	before, constraints := f.info, f.constraints
	f.setInfo(info)
	f.setWishes(update.GetSuppressedRoles(), update.GetOfferConstraints())
	if !proto.Equal(before, f.info) || !proto.Equal(constraints, f.constraints) {
		m.announceFramework(f)
	}
	for _, o := range f.offers {
		if !slices.Contains(f.roles, o.role) {
			m.rescind(o)
		}
	}
	m.seatFramework(f)
	m.keep(f, nil)
	return nil
}

func (m *Master) notLeading() error {
	if m.Standing().Recovering {
		return ErrRecovering
	}
	return ErrNotLeading
}

// braces writes a set as the protocol's texts do.
func braces(items []string) string {
	return "{ " + strings.Join(items, ", ") + " }"
}
