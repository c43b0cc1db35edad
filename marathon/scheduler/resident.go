package scheduler

import (
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/constraint"
	"starling/marathon/task"
)

// An instance of a resident app has a place: resources on one agent that are reserved for it, with its volumes. They are
// reserved with the first offer that fits; with the next one, which shows them, the first task is launched, and each later
// task on the same. The instance is stored with its reservation before that is asked for, and the reservation names the
// instance in its labels, so that whoever leads by then finds the one by the other.

// Reservation is what an instance of a resident app keeps on an agent.
type Reservation struct {
	AgentID    string            `json:"agentId"`
	Host       string            `json:"host"`
	Region     string            `json:"region,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Role       string            `json:"role"`
	// Since is when it was asked for; Confirmed tells that an offer has shown it.
	Since     time.Time `json:"since"`
	Confirmed bool      `json:"confirmed"`
	// Volumes are in the order of the definition.
	Volumes []task.Volume `json:"volumes"`
}

func (r *Reservation) place() constraint.Place {
	return constraint.Place{Hostname: r.Host, Region: r.Region, Zone: r.Zone, Attributes: r.Attributes}
}

// reserve has what an instance needs reserved for it. It is launched on that when it is offered.
func (s *Scheduler) reserve(now time.Time, sp *spec, i *Instance, def *app.App, t *table) []task.Refusal {
	owner := task.Owner{Framework: s.frameworkID, Instance: i.ID.String()}
	newID := func() string { return s.ids.Next(now).String() }
	claim, refusals := task.Reserve(t.left, s.demand(sp, i, def, t), owner, newID, s.cfg.Task, s.rng)
	if len(refusals) > 0 {
		return refusals
	}
	t.left.Resources = t.left.Resources.Sub(claim.Takes)
	t.accept.Prepare = append(t.accept.Prepare, claim.Operations...)
	t.more = true // what is reserved is to be offered at once
	next := *i
	next.Reservation = s.reservationOn(now, t, claim.Volumes)
	sp.queue.used(now)
	s.put(&next)
	s.timers.set(timer{at: now.Add(s.cfg.ReservationTimeout), kind: timerReservation, instance: i.ID})
	return nil
}

func (s *Scheduler) reservationOn(now time.Time, t *table, volumes []task.Volume) *Reservation {
	p := t.left.Place
	return &Reservation{
		AgentID: t.accept.AgentID, Host: t.offer.GetHostname(), Region: p.Region, Zone: p.Zone, Attributes: p.Attributes,
		Role: s.offerRole(t.offer), Since: now, Volumes: volumes,
	}
}

// follow looks at what the offers hold that is reserved for instances of ours: those that wait for it are launched on it, and
// what nobody will ever want again is released.
func (s *Scheduler) follow(now time.Time, tables []*table) {
	discards := s.discardsByAgent()
	for _, t := range tables {
		held := task.Reservations(t.offer.GetResources(), s.frameworkID)
		for _, h := range held {
			s.found(now, t, h)
		}
		s.settleDiscards(now, t, held, discards[t.accept.AgentID])
	}
}

// found deals with one reservation in an offer.
func (s *Scheduler) found(now time.Time, t *table, h task.Holding) {
	id, err := app.ParseInstanceID(h.Owner.Instance)
	if err != nil {
		return // not an id that any Marathon makes
	}
	i, sp := s.instances[id], s.specs[id.App]
	switch {
	case i == nil:
		_, known := s.discards[discardKey{id, t.accept.AgentID}]
		if known || !s.doubt && (sp == nil || !sp.quarantined) && !s.isLaterHolding(id, h) {
			s.releaseHolding(now, t, id, h)
		}
	case sp.quarantined:
	case i.Reservation == nil:
		_, givenUp := s.discards[discardKey{id, t.accept.AgentID}]
		switch next := s.claimed(now, sp, i, t, h); {
		case next != nil:
			s.relaunch(now, sp, next, t, h)
		case givenUp && len(h.Volumes) == 0 && !s.doubt:
			s.releaseHolding(now, t, id, h) // it came without its volumes; what is asked for next comes with its own share
		}
	case i.Reservation.AgentID != t.accept.AgentID:
		if sharesVolumes(i.Reservation, h) {
			if next := s.moved(now, i, t, h); next != nil {
				s.relaunch(now, sp, next, t, h)
			}
			return
		}
		// The instance has found another place meanwhile. None of its volumes is here.
		if i.Reservation.Confirmed && !s.doubt && !s.isLaterHolding(id, h) {
			s.releaseHolding(now, t, id, h)
		}
	default:
		s.dropDiscard(discardKey{id, t.accept.AgentID}) // it was given up here, and then asked for again
		if !i.Reservation.Confirmed {
			if !i.Reservation.within(h) {
				return // checkReservation gives it up if the volumes do not come
			}
			next, r := *i, *i.Reservation
			r.Confirmed, next.Reservation = true, &r
			s.put(&next)
			i = &next
		}
		s.relaunch(now, sp, i, t, h)
	}
}

// sharesVolumes tells whether any of a place's volumes is in a holding.
func sharesVolumes(r *Reservation, h task.Holding) bool {
	return slices.ContainsFunc(r.Volumes, func(v task.Volume) bool { return holds(h, v) })
}

// holds tells whether a volume is in a holding.
func holds(h task.Holding, v task.Volume) bool {
	return slices.ContainsFunc(h.Volumes, func(w task.Volume) bool { return v.ID == w.ID })
}

// moved takes note that an instance's place goes by another agent id: an agent that forgets its id keeps what is reserved on it, and
// the volumes. It returns nil where not all of them are here, or where the instance has a task that can be reached. One that can't be
// is over: its volumes would not be offered else.
func (s *Scheduler) moved(now time.Time, i *Instance, t *table, h task.Holding) *Instance {
	if !i.Reservation.within(h) || i.Condition.Active() && !i.Condition.unreachable() {
		return nil
	}
	next := *i
	next.Reservation = s.reservationOn(now, t, i.Reservation.Volumes)
	next.Reservation.Confirmed = true
	if !i.Condition.Active() {
		s.put(&next)
		return &next
	}
	s.release(now, &next)
	return s.instances[i.ID]
}

// within tells whether all volumes of a reservation are in what an offer holds.
func (r *Reservation) within(h task.Holding) bool {
	return !slices.ContainsFunc(r.Volumes, func(v task.Volume) bool { return !holds(h, v) })
}

// claimed gives an instance that waits without a place what it had asked for once and given up waiting for, if that has all
// of its volumes; otherwise it returns nil.
func (s *Scheduler) claimed(now time.Time, sp *spec, i *Instance, t *table, h task.Holding) *Instance {
	if !i.waits() || sp.def == nil {
		return nil
	}
	var volumes []task.Volume
	for _, v := range s.launchDefinition(sp, i).PersistentVolumes() {
		at := slices.IndexFunc(h.Volumes, func(w task.Volume) bool { return w.Path == v.ContainerPath })
		if at < 0 {
			return nil
		}
		volumes = append(volumes, h.Volumes[at])
	}
	if len(volumes) == 0 || len(volumes) != len(h.Volumes) {
		return nil
	}
	next := *i
	next.Reservation = s.reservationOn(now, t, volumes)
	next.Reservation.Confirmed = true
	s.put(&next)
	s.dropDiscard(discardKey{i.ID, t.accept.AgentID})
	return &next
}

// relaunch launches an instance that waits on what is reserved for it.
func (s *Scheduler) relaunch(now time.Time, sp *spec, i *Instance, t *table, h task.Holding) {
	if !i.waits() || s.orphaned[i.ID] > 0 || !s.ready(now, sp) {
		return
	}
	if s.full(t) {
		return
	}
	def := s.launchDefinition(sp, i)
	demand := s.demand(sp, i, def, t)
	demand.Beyond = nil // how far it is counts when a place is chosen: its data are here, and are nowhere nearer
	pick, refusals := task.Return(t.left, demand, h, i.Reservation.Volumes, s.cfg.Task, s.rng)
	if len(refusals) > 0 {
		t.tell(sp.id)
		sp.queue.refused(now, t.offer, refusals)
		return
	}
	s.launchOn(now, sp, i, def, t, pick)
}

// tell notes that an app has said why it has no use for what is reserved for it.
func (t *table) tell(id app.PathID) {
	if t.told == nil {
		t.told = make(map[app.PathID]struct{})
	}
	t.told[id] = struct{}{}
}

// tellElsewhere notes for the queue that these offers are not what an instance waits for.
func tellElsewhere(now time.Time, sp *spec, i *Instance, tables []*table) {
	for _, t := range tables {
		if _, told := t.told[sp.id]; !told {
			sp.queue.refused(now, t.offer, []task.Refusal{task.Elsewhere(i.ID, i.Reservation.Host)})
		}
	}
}

// checkReservation gives up waiting for a reservation that no offer has shown in time: the call may have been lost, or come
// too late. Should it turn up all the same it is released, unless the instance has no other place by then.
func (s *Scheduler) checkReservation(now time.Time, id app.InstanceID) {
	i := s.instances[id]
	if i == nil || i.Reservation == nil || i.Reservation.Confirmed {
		return
	}
	if due := later(i.Reservation.Since, s.session).Add(s.cfg.ReservationTimeout); due.After(now) || !s.connected {
		s.timers.set(timer{at: later(due, now.Add(time.Second)), kind: timerReservation, instance: id})
		return
	}
	if i.Goal != GoalRunning {
		s.forget(i)
		return
	}
	s.discard(i)
	next := *i
	next.Reservation = nil
	s.put(&next)
	s.role(i.Reservation.Role).again = true
}

// retire takes an instance that is one too many out of service. One that has a place keeps that: it is the first to run again
// when another one is wanted.
func (s *Scheduler) retire(now time.Time, i *Instance) {
	switch {
	case i.Reservation == nil:
		s.decommission(now, i)
	case i.Goal == GoalRunning:
		next := *i
		next.Goal = GoalStopped
		s.put(&next)
		s.unprobe(&next)
		s.kill(now, &next)
	}
}

// wake has up to n instances run again that were stopped and have no task any more, and returns how many: those that were
// stopped last before others, since their data is the newest, and before all those that this deployment itself has stopped.
func (s *Scheduler) wake(now time.Time, sp *spec, n int, deploymentID string) int {
	if n <= 0 {
		return 0
	}
	var stopped []*Instance
	for _, i := range sp.instances {
		if i.Goal == GoalStopped && !i.Condition.Active() {
			stopped = append(stopped, i)
		}
	}
	slices.SortStableFunc(stopped, func(a, b *Instance) int {
		switch first := a.stoppedBy(deploymentID); {
		case first == b.stoppedBy(deploymentID):
			return b.Since.Compare(a.Since)
		case first:
			return -1
		default:
			return 1
		}
	})
	woken := 0
	for _, i := range stopped[:min(n, len(stopped))] {
		next := i.withoutTask()
		next.Goal, next.Condition, next.Since = GoalRunning, Scheduled, now
		next.Version, next.Deployment = sp.def.Version, deploymentID
		s.put(next)
		woken++
	}
	return woken
}

// spare has up to n instances run again whose tasks have not ended yet: they are launched when they have. It returns how many.
func (s *Scheduler) spare(sp *spec, n int, deploymentID string) int {
	spared := 0
	for _, i := range slices.Clone(sp.instances) {
		if spared >= n {
			break
		}
		if i.Goal != GoalStopped || i.Condition.unreachable() {
			continue
		}
		next := *i
		next.Goal, next.Deployment = GoalRunning, deploymentID
		s.put(&next)
		spared++
	}
	return spared
}

// renew has an instance that waits in its place be launched as what replaces it.
func (s *Scheduler) renew(i *Instance, def *app.App, deploymentID string) *Instance {
	next := *i
	next.Version, next.Deployment = def.Version, deploymentID
	s.put(&next)
	return &next
}

// setAside stops an instance in order to have it run again as what the deployment wants. That is noted on it: it is not one of
// those that were parked before.
func (s *Scheduler) setAside(now time.Time, i *Instance, deploymentID string) {
	if i.Reservation != nil && i.Goal == GoalRunning {
		next := *i
		next.Deployment = deploymentID
		s.put(&next)
		i = &next
	}
	s.retire(now, i)
}

// stoppedBy tells of an instance that is not to run whether a deployment has stopped it for a while.
func (i *Instance) stoppedBy(deploymentID string) bool {
	return deploymentID != "" && i.Goal == GoalStopped && i.Deployment == deploymentID
}

// keepers counts, for a restart, instances that were stopped: those that can be woken, those that can't since their
// agent is away, and of these those that the restart itself has stopped.
type keepers struct{ ready, away, taken int }

func (k *keepers) count(i *Instance, deploymentID string) {
	switch {
	case i.Goal != GoalStopped:
	case i.Condition.unreachable():
		k.away++
		if i.stoppedBy(deploymentID) {
			k.taken++
		}
	case !i.Condition.Active():
		k.ready++
	}
}

// missing is how many of the instances that an app lacks are to come from those that are away: a restart waits for them
// rather than begin anew with empty volumes, or go on with those of a place that was parked before.
func (k *keepers) missing(lacking int) int {
	return max(0, min(k.away, lacking, max(lacking-k.ready, k.taken)))
}

// countReserved keeps the numbers of reservations by role.
func (s *Scheduler) countReserved(old, next *Instance) {
	if next != nil && next.Reservation != nil {
		s.keepRole(next.Reservation.Role, 1)
	}
	if old != nil && old.Reservation != nil {
		s.keepRole(old.Reservation.Role, -1)
	}
}

// keepRole counts something that is kept in a role; the framework has that role for as long as there is any.
func (s *Scheduler) keepRole(role string, n int) {
	s.keeps[role] += n
	if s.keeps[role] <= 0 {
		delete(s.keeps, role)
		s.updateRoles()
	}
}
