package master

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/allocator"
	"starling/master/mesos"
	mesosallocator "starling/master/mesos/allocator"
	"starling/master/mesos/scheduler"
)

// inverseOffer asks a framework to give up what it has on an agent whose machine is going to be maintained. What it answers is
// shown to operators and has no other effect.
type inverseOffer struct {
	id        string
	framework *framework
	agent     *agent
}

// inverseFilter keeps a framework from being asked again about an agent for a while.
type inverseFilter struct {
	until time.Time // monotonic
	timer *time.Timer
}

// minInverseFilter is how long a framework is not asked again at least, so that one that answers at once does not keep this
// master busy.
const minInverseFilter = time.Second

// wantInverse has the frameworks on an agent looked at again with the next allocation.
func (m *Master) wantInverse(a *agent) {
	if m.term == nil || a.window == nil && len(a.inverse) == 0 {
		return
	}
	m.askAbout[a] = true
	m.wantAllocation()
}

// askFrameworks makes and takes back inverse offers where something has changed: frameworks that use an agent in a window, or
// are offered it, are asked; others are not.
func (m *Master) askFrameworks() {
	agents := slices.SortedFunc(maps.Keys(m.askAbout), func(x, y *agent) int { return cmp.Compare(x.id, y.id) })
	clear(m.askAbout)
	events := make(map[*framework][]*mesos.InverseOffer)
	now := time.Now()
	for _, a := range agents {
		concerned := m.concerned(a)
		for id, o := range a.inverse {
			if !concerned[id] {
				m.rescindInverseOffer(o)
			}
		}
		for _, id := range slices.Sorted(maps.Keys(concerned)) {
			f := m.frameworks[id]
			if filter := f.inverseFilters[a.id]; a.inverse[id] != nil || filter != nil && now.Before(filter.until) {
				continue
			}
			m.term.offerSeq++
			o := &inverseOffer{id: fmt.Sprintf("%s-O%d", m.cfg.ID, m.term.offerSeq), framework: f, agent: a}
			m.inverse[o.id], f.inverse[o.id], a.inverse[id] = o, o, o
			events[f] = append(events[f], o.message())
		}
	}
	for _, f := range slices.SortedFunc(maps.Keys(events), func(x, y *framework) int { return cmp.Compare(x.id, y.id) }) {
		m.send(f, &scheduler.Event{
			Type:          scheduler.Event_INVERSE_OFFERS.Enum(),
			InverseOffers: &scheduler.Event_InverseOffers{InverseOffers: events[f]},
		})
	}
}

// concerned are the ids of the connected frameworks that have something on an agent in a window.
func (m *Master) concerned(a *agent) map[string]bool {
	out := make(map[string]bool)
	if a.window == nil || !a.alive() || m.agents[a.id] != a {
		return out
	}
	add := func(id string) {
		if f := m.frameworks[id]; f != nil && f.connected {
			out[id] = true
		}
	}
	for key := range a.used {
		add(key.framework)
	}
	for _, o := range a.offers {
		add(o.framework.id)
	}
	return out
}

func (o *inverseOffer) message() *mesos.InverseOffer {
	return &mesos.InverseOffer{
		Id: &mesos.OfferID{Value: proto.String(o.id)}, Url: o.agent.url(), FrameworkId: o.framework.info.GetId(),
		AgentId: agentID(o.agent.id), Unavailability: o.agent.window,
	}
}

func (m *Master) dropInverse(o *inverseOffer) {
	delete(m.inverse, o.id)
	delete(o.framework.inverse, o.id)
	delete(o.agent.inverse, o.framework.id)
}

// rescindInverseOffer takes an inverse offer back and tells the framework.
func (m *Master) rescindInverseOffer(o *inverseOffer) {
	m.dropInverse(o)
	m.send(o.framework, &scheduler.Event{
		Type:                scheduler.Event_RESCIND_INVERSE_OFFER.Enum(),
		RescindInverseOffer: &scheduler.Event_RescindInverseOffer{InverseOfferId: &mesos.OfferID{Value: proto.String(o.id)}},
	})
}

// rescindInverse takes back all inverse offers of an agent.
func (m *Master) rescindInverse(a *agent) {
	for _, o := range a.inverse {
		m.rescindInverseOffer(o)
	}
}

// withdrawInverse ends the inverse offers of a framework whose stream is another one now, or gone: it need not hear of it.
func (m *Master) withdrawInverse(f *framework) {
	for _, o := range f.inverse {
		m.dropInverse(o)
		m.wantInverse(o.agent)
	}
	f.forgetAllInverse()
}

// answerInverse takes what a framework says to inverse offers; those that are no longer valid are ignored.
func (m *Master) answerInverse(f *framework, ids []*mesos.OfferID, filters *mesos.Filters, status mesosallocator.InverseOfferStatus_Status) {
	refuse := max(allocator.RefuseFor(filters), minInverseFilter)
	for _, id := range ids {
		o := m.inverse[id.GetValue()]
		if o == nil || o.framework != f {
			m.log.Info("answer to an inverse offer that is not valid ignored", "framework_id", f.id, "offer_id", id.GetValue())
			continue
		}
		m.dropInverse(o)
		a := o.agent
		a.answers[f.id] = &mesosallocator.InverseOfferStatus{
			Status: status.Enum(), FrameworkId: f.info.GetId(), Timestamp: timeInfo(m.now()),
		}
		f.forgetInverse(a.id)
		f.inverseFilters[a.id] = &inverseFilter{
			until: time.Now().Add(refuse), timer: m.after(refuse, func() { m.wantInverse(a) }),
		}
	}
}

// forgetInverse ends the filter about one agent.
func (f *framework) forgetInverse(agent string) {
	if filter := f.inverseFilters[agent]; filter != nil {
		filter.timer.Stop()
		delete(f.inverseFilters, agent)
	}
}

// forgetAllInverse ends the filters about all agents.
func (f *framework) forgetAllInverse() {
	for id := range f.inverseFilters {
		f.forgetInverse(id)
	}
}

// reviveInverse has a framework asked again about all agents.
func (m *Master) reviveInverse(f *framework) {
	for id := range f.inverseFilters {
		f.forgetInverse(id)
		if a := m.agents[id]; a != nil {
			m.wantInverse(a)
		}
	}
}
