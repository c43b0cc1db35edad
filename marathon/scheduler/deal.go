package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/constraint"
	"starling/marathon/task"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// secondLooks bounds how often, in one round and for one app, an offer is looked at again that constraints stood against:
// with each launch elsewhere that may have changed. It keeps a round short where there are many agents.
const secondLooks = 1000

// table is an offer that tasks are dealt to.
type table struct {
	offer  *mesos.Offer
	left   task.Offer // what is left of it
	accept Accept
	number int // its place among all, by chance
	// told are the apps that have said why they have no use for what is reserved for them here.
	told map[app.PathID]struct{}
	// more tells that a limit was reached while something still waited that might have fitted.
	more bool
}

// hand is an app with instances that wait, and the tables where the next one might go.
type hand struct {
	sp     *spec
	wait   []*Instance
	room   int
	tables tableHeap
	full   []*table            // these have as many tasks as one offer may
	again  []*table            // constraints stood against these, and might not any more
	seen   map[*table]struct{} // these were refused once
	looks  int
	on     map[string]int // instances of the app, by agent
}

// wants tells whether the app would take another launch.
func (h *hand) wants() bool { return h.room > 0 && (len(h.wait) > 0 || h.sp.owed > 0) }

// add adds a table to those where the next instance might go.
func (h *hand) add(t *table) { heap.Push(&h.tables, h.rate(t)) }

// rate is a table as it is now for the app.
func (h *hand) rate(t *table) rated {
	return rated{
		table: t, on: h.on[t.accept.AgentID], cpus: t.left.Resources.Scalar(resources.CPUs), mem: t.left.Resources.Scalar(resources.Mem),
	}
}

// best takes the table for the next instance of the app, nil for none.
func (h *hand) best(limit int) *table {
	for len(h.tables) > 0 {
		r := heap.Pop(&h.tables).(rated)
		if r.accept.Launches() >= limit {
			h.full = append(h.full, r.table)
			continue
		}
		// Tables only get worse; one that has since it was rated takes its new place.
		if now := h.rate(r.table); now != r {
			heap.Push(&h.tables, now)
			continue
		}
		return r.table
	}
	return nil
}

// refuse takes note that the app has no use for a table; for good, unless nothing but constraints stand against it.
func (h *hand) refuse(now time.Time, t *table, refusals []task.Refusal) {
	if _, ok := h.seen[t]; !ok {
		h.seen[t] = struct{}{}
		h.sp.queue.refused(now, t.offer, refusals)
	}
	other := func(r task.Refusal) bool { return r.Reason != task.UnfulfilledConstraint }
	if !slices.ContainsFunc(refusals, other) && h.looks < secondLooks {
		h.looks++
		h.again = append(h.again, t)
	}
}

// rated is a table with what decides between tables: the fewest instances of the app on that agent, then the most that is
// left, then chance.
type rated struct {
	*table
	on        int
	cpus, mem resources.Milli
}

// tableHeap has the best table first.
type tableHeap []rated

func (h tableHeap) Len() int { return len(h) }
func (h tableHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(a.on, b.on), cmp.Compare(b.cpus, a.cpus), cmp.Compare(b.mem, a.mem), cmp.Compare(a.number, b.number)) < 0
}
func (h tableHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *tableHeap) Push(x any)   { *h = append(*h, x.(rated)) }
func (h *tableHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// match launches what waits on the offers that are here. The apps take turns, one instance a turn; it goes to the offer of
// the agent that has fewest of that app, and of those to the one with the most left. So an app is spread where that is
// possible, also without constraints. No offer is kept: what is not used goes back.
func (s *Scheduler) match(now time.Time) {
	offers := s.offers
	s.offers = nil
	if !s.connected || len(offers) == 0 {
		return
	}
	s.rng.Shuffle(len(offers), func(i, j int) { offers[i], offers[j] = offers[j], offers[i] })
	tables := make([]*table, len(offers))
	byRole := make(map[string][]*table)
	var roles []string
	for i, offer := range offers {
		s.markAgent(now, offer.GetAgentId().GetValue(), false)
		tables[i] = &table{
			offer: offer, number: i, accept: Accept{OfferID: offer.GetId().GetValue(), AgentID: offer.GetAgentId().GetValue()},
		}
		left, err := resources.FromProto(offer.GetResources())
		if err != nil {
			continue // a master that offers nonsense is given it back
		}
		tables[i].left = task.Offer{
			Resources: left, Place: constraint.PlaceOf(offer.GetHostname(), offer.GetDomain(), offer.GetAttributes()),
			Maintenance: !s.cfg.NoMaintenance && task.UnderMaintenance(offer.GetUnavailability(), now, s.cfg.Draining),
		}
		role := s.offerRole(offer)
		if byRole[role] == nil {
			roles = append(roles, role)
		}
		byRole[role] = append(byRole[role], tables[i])
	}
	s.follow(now, tables)
	for _, role := range roles {
		s.dealDaemons(now, role, byRole[role])
		s.deal(now, role, byRole[role])
	}
	s.answer(tables)
}

// answer accepts the offers that tasks were dealt to, and declines the others.
func (s *Scheduler) answer(tables []*table) {
	var unused []string
	for _, t := range tables {
		if t.accept.empty() {
			unused = append(unused, t.accept.OfferID)
			continue
		}
		t.accept.Refuse = s.cfg.DeclineDuration
		if t.more {
			t.accept.Refuse = 0
			s.role(s.offerRole(t.offer)).again = true
		}
		s.out.act(t.accept)
	}
	if len(unused) > 0 {
		s.out.act(Decline{OfferIDs: unused, Refuse: s.cfg.DeclineDuration})
	}
}

// hand is an app with what waits of it, nil where nothing could be launched.
func (s *Scheduler) hand(now time.Time, sp *spec, tables []*table) *hand {
	if !s.ready(now, sp) {
		return nil
	}
	var away []*Instance
	h := &hand{sp: sp, room: s.room(now, sp), on: make(map[string]int), seen: make(map[*table]struct{})}
	for _, i := range sp.instances {
		switch {
		case i.Reservation != nil: // it was seen to if what is reserved for it is in an offer
			h.on[i.Reservation.AgentID]++
			if i.waits() {
				away = append(away, i)
			}
		case i.waits() && s.orphaned[i.ID] > 0: // a later launch of it lives
		case i.waits():
			h.wait = append(h.wait, i)
		case i.Goal == GoalRunning && i.Condition.Active():
			h.on[i.AgentID]++
		}
	}
	if len(away) > 0 && len(h.wait) == 0 {
		tellElsewhere(now, sp, away[0], tables)
		return nil
	}
	h.tables = make(tableHeap, len(tables))
	for i, t := range tables {
		h.tables[i] = h.rate(t)
	}
	heap.Init(&h.tables)
	return h
}

// deal launches what waits of a role, the apps in random order, until nothing wants or fits any more. Of apps that no turn
// comes to, since too much is launched already, nothing is looked at: there may be thousands.
func (s *Scheduler) deal(now time.Time, role string, tables []*table) {
	specs := s.launchable(role)
	s.rng.Shuffle(len(specs), func(i, j int) { specs[i], specs[j] = specs[j], specs[i] })
	var hands, playing []*hand
	for _, sp := range specs {
		if s.tokens <= 0 {
			s.starved = true
			break
		}
		h := s.hand(now, sp, tables)
		if h == nil {
			continue
		}
		hands = append(hands, h)
		if s.turn(now, h) {
			playing = append(playing, h)
		}
	}
	for len(playing) > 0 && s.tokens > 0 {
		playing = slices.DeleteFunc(playing, func(h *hand) bool { return s.tokens > 0 && !s.turn(now, h) })
	}
	for _, h := range hands {
		if !h.wants() {
			continue
		}
		if s.tokens <= 0 {
			s.starved = true
			return
		}
		for _, t := range h.full {
			t.more = true
		}
		for _, t := range h.tables { // of an app whose next instances are yet to be made
			t.more = true
		}
	}
}

// turn launches one instance of an app, and tells whether it did; if not there is no sense in another turn.
func (s *Scheduler) turn(now time.Time, h *hand) bool {
	if h.room <= 0 || len(h.wait) == 0 {
		return false
	}
	for {
		t := h.best(s.cfg.MaxInstancesPerOffer)
		if t == nil {
			return false
		}
		if refusals := s.launch(now, h.sp, h.wait[0], t); len(refusals) > 0 {
			h.refuse(now, t, refusals)
			continue
		}
		h.wait, h.room = h.wait[1:], h.room-1
		h.on[t.accept.AgentID]++
		h.add(t)
		for _, t := range h.again {
			h.add(t)
		}
		h.again = nil
		return true
	}
}
