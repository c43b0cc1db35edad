package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/constraint"
	"starling/marathon/task"
	"starling/master/mesos"
)

const (
	// reviveGap is the shortest time between two calls for offers.
	reviveGap = 50 * time.Millisecond
	// refusalsKept is of how many agents the newest refused offer is remembered, for one app.
	refusalsKept = 1000
	// shareOfTokens: once launch tokens have run out, launching goes on when one in so many is back, not for each one.
	shareOfTokens = 10
)

// role is how things stand between us and the master for one role.
type role struct {
	suppressed bool
	revived    time.Time
	repeats    int
	// demand is how many instances of which apps waited when the master was told last.
	demand map[app.PathID]int
	// again is set when an offer was left in part though something that waits would have fitted.
	again bool
}

// queue is what became of the offers that a waiting app has seen.
type queue struct {
	processed, unused    int
	lastUnused, lastUsed time.Time
	attempt              map[task.Reason]int
	last                 map[string]Refusal
}

// Refusal is an offer that an app did not use.
type Refusal struct {
	Offer   *mesos.Offer
	Reasons []task.Refusal
	At      time.Time
}

func (q *queue) used(now time.Time) {
	q.processed++
	q.lastUsed = now
}

func (q *queue) refused(now time.Time, offer *mesos.Offer, reasons []task.Refusal) {
	q.processed++
	q.unused++
	q.lastUnused = now
	if q.attempt == nil {
		q.attempt, q.last = make(map[task.Reason]int), make(map[string]Refusal)
	}
	q.attempt[reasons[0].Reason]++
	agent := offer.GetAgentId().GetValue()
	if _, known := q.last[agent]; known || len(q.last) < refusalsKept {
		q.last[agent] = Refusal{Offer: offer, Reasons: reasons, At: now}
	}
}

func (s *Scheduler) offerRole(offer *mesos.Offer) string {
	if r := offer.GetAllocationInfo().GetRole(); r != "" {
		return r
	}
	return s.cfg.Role
}

// launch launches an instance on what is left of an offer, or has that reserved for it if its app is resident. Otherwise it
// returns what is in the way.
func (s *Scheduler) launch(now time.Time, sp *spec, i *Instance, t *table) []task.Refusal {
	def := s.launchDefinition(sp, i)
	if def.Resident() {
		return s.reserve(now, sp, i, def, t)
	}
	pick, refusals := task.Match(t.left, s.demand(sp, i, def, t), s.cfg.Task, s.rng)
	if len(refusals) > 0 {
		return refusals
	}
	s.launchOn(now, sp, i, def, t, pick)
	return nil
}

// demand is what an instance wants of an offer.
func (s *Scheduler) demand(sp *spec, i *Instance, def *app.App, t *table) task.Demand {
	return task.Demand{App: def, Rules: sp.compiled(def), Counted: sp.countedPlaces(def, i), Beyond: s.tooFar(def, t.offer)}
}

// launchOn takes what was picked from an offer, stores the instance with the id of its task, and adds the launch to what is
// done on the offer.
func (s *Scheduler) launchOn(now time.Time, sp *spec, i *Instance, def *app.App, t *table, pick task.Pick) {
	offer, o := t.offer, &t.left
	o.Resources = o.Resources.Sub(pick.All())
	next := i.withoutTask()
	next.Incarnation = max(next.Incarnation, s.seen[i.ID]) + 1
	next.Version = def.Version
	id := next.provision(now, def)
	next.Condition, next.Since, next.StagedAt = Provisioned, now, now
	next.AgentID, next.Host = offer.GetAgentId().GetValue(), offer.GetHostname()
	next.Region, next.Zone, next.Attributes = o.Place.Region, o.Place.Zone, o.Place.Attributes
	next.Ports, next.Role = pick.HostPorts(), s.offerRole(offer)
	next.Index = sp.index(i, def)
	sp.versions[def.Version] = def
	sp.queue.used(now)
	s.put(next)
	s.takeToken(now)
	s.launched++
	sp.backoff.progress(now)
	s.timers.set(timer{at: now.Add(s.cfg.LaunchConfirmTimeout), kind: timerLaunch, instance: i.ID})
	if s.cfg.LaunchTimeout != s.cfg.LaunchConfirmTimeout {
		s.timers.set(timer{at: now.Add(s.cfg.LaunchTimeout), kind: timerLaunch, instance: i.ID})
	}
	enforce := false
	if top := s.root.Group(app.Root.Child(sp.id.Top())); top != nil && top.EnforceRole != nil {
		enforce = *top.EnforceRole
	}
	t.accept.launch(task.Launch{
		App: def, Task: id, AgentID: next.AgentID, Hostname: next.Host, Pick: pick, EnforceGroupRole: enforce,
		Index: next.Index,
	}, s.cfg.Task)
}

// compiled returns the compiled constraints of a definition.
func (sp *spec) compiled(def *app.App) *constraint.Rules {
	if sp.rulesOf != def {
		// A definition that passed validation compiles; one that does not has no rules that could be held.
		sp.rules, _ = constraint.Compile(def.Constraints)
		sp.rulesOf = def
	}
	return sp.rules
}

// countedPlaces are where the other instances are that constraints count. One that keeps its place counts there always.
func (sp *spec) countedPlaces(def *app.App, self *Instance) []constraint.Place {
	if len(def.Constraints) == 0 {
		return nil
	}
	var places []constraint.Place
	for _, i := range sp.instances {
		switch {
		case i.ID == self.ID:
		case i.Reservation != nil:
			places = append(places, i.Reservation.place())
		case i.Condition.Active() && i.Version >= def.VersionInfo.LastConfigChangeAt:
			places = append(places, i.place())
		}
	}
	return places
}

// launchable returns the apps of a role that have instances waiting, in the order of ids. Whether something holds them back
// is looked at when it is their turn.
func (s *Scheduler) launchable(role string) []*spec {
	var specs []*spec
	if s.exhausted() {
		return nil
	}
	for id := range s.waiting {
		if sp := s.specs[id]; sp.def != nil && s.specRole(sp) == role {
			specs = append(specs, sp)
		}
	}
	slices.SortFunc(specs, func(a, b *spec) int { return cmp.Compare(a.id, b.id) })
	return specs
}

func (s *Scheduler) ready(now time.Time, sp *spec) bool {
	return sp.def != nil && !sp.quarantined && !sp.backoff.pending(now, sp.def) && s.room(now, sp) > 0
}

// room is how many tasks of an app may be launched before there are more than it may have: those that are being killed
// count for as long as they live. The bounds of a restart are wider; it minds them itself where it makes instances, but one
// that waited may have to wait on, if another one has come back or is made to end meanwhile. At the beginning of a session an app
// whose tasks are asked for waits for the answers: what was thought lost may be back.
func (s *Scheduler) room(now time.Time, sp *spec) int {
	if now.Before(s.holdUntil) && (s.doubt || slices.ContainsFunc(sp.instances, s.isAsked)) {
		return 0
	}
	most := sp.def.Instances
	if d := sp.deployment; d != nil {
		if d.restarting(sp.id) {
			most = sp.restartCapacity()
		} else if change := d.deployment.Plan.Change(sp.id); change != nil && change.Old != nil {
			most = max(most, change.Old.Instances) // until its step begins
		}
	}
	for _, i := range sp.instances {
		if i.Condition.Active() && !i.Condition.unreachable() {
			most--
		}
	}
	if most <= 0 {
		return most
	}
	tried, _ := s.trial(now, sp)
	return min(most, tried)
}

func (s *Scheduler) specRole(sp *spec) string { return cmp.Or(sp.def.Role, s.cfg.Role) }

// exhausted tells that nothing is launched until more of what was launched runs.
func (s *Scheduler) exhausted() bool { return s.tokens <= 0 || s.starved }

// full tells whether nothing more may be launched on an offer in this round, and if so notes that something waits for the next one.
func (s *Scheduler) full(t *table) bool {
	if !s.exhausted() && t.accept.Launches() < s.cfg.MaxInstancesPerOffer {
		return false
	}
	s.starved = s.starved || s.tokens <= 0
	t.more = true
	return true
}

// takeToken counts a launch. All tokens come back after a while, whatever becomes of the launches.
func (s *Scheduler) takeToken(now time.Time) {
	s.tokens--
	if !s.refreshing {
		s.refreshing = true
		s.timers.set(timer{at: now.Add(s.cfg.LaunchTokenRefresh), kind: timerTokens})
	}
}

// returnToken takes note that a launch has come to something.
func (s *Scheduler) returnToken() {
	s.tokens = min(s.tokens+1, s.cfg.LaunchTokens)
	if s.tokens >= max(1, s.cfg.LaunchTokens/shareOfTokens) {
		s.starved = false
	}
}

// findRoles lists the roles that the framework needs to run its apps, and to have what is reserved for them offered.
func (s *Scheduler) findRoles() []string {
	names := map[string]struct{}{s.cfg.Role: {}}
	for _, sp := range s.specs {
		if sp.def != nil && sp.def.Role != "" {
			names[sp.def.Role] = struct{}{}
		}
	}
	for name := range s.keeps {
		names[name] = struct{}{}
	}
	return slices.Sorted(maps.Keys(names))
}

// updateRoles tells the master when the framework needs other roles.
func (s *Scheduler) updateRoles() {
	names := s.findRoles()
	if slices.Equal(names, s.names) {
		return
	}
	s.names = names
	if s.connected {
		s.out.act(Subscription{Roles: names})
	}
}

func (s *Scheduler) role(name string) *role {
	r := s.roles[name]
	if r == nil {
		r = &role{}
		s.roles[name] = r
	}
	return r
}

// wish tells the master whether offers are wanted. They are asked for at once when something begins to wait, and now and
// then again for as long as it waits; when nothing waits, or all is held back by backoff, they are not wanted.
func (s *Scheduler) wish(now time.Time) {
	if !s.connected {
		return
	}
	demand := make(wishes)
	waiting := s.waiting
	if s.exhausted() {
		waiting = nil // whatever waits, it has to wait on, and is looked at when more may be launched
	}
	for id := range waiting {
		sp := s.specs[id]
		if sp.def == nil || sp.quarantined {
			continue
		}
		room := s.room(now, sp)
		if room <= 0 {
			s.wakeForTrial(now, sp)
			continue
		}
		if until := sp.backoff.until(now, sp.def); until.After(now) {
			if !sp.wake.Equal(until) {
				sp.wake = until
				s.timers.set(timer{at: until, kind: timerBackoff, app: id})
			}
			continue
		}
		demand.want(s.specRole(sp), id, min(sp.waits+sp.owed, room))
	}
	if s.braking() { // an offer is a sign of life
		demand.want(s.cfg.Role, app.Root, 1)
	}
	s.wishReserved(now, demand)
	s.wishDaemons(now, demand)
	var revive, suppress []string
	for _, name := range s.names {
		switch s.role(name).next(now, demand[name], s) {
		case wishRevive:
			revive = append(revive, name)
		case wishSuppress:
			suppress = append(suppress, name)
		}
	}
	if len(suppress) > 0 {
		s.out.act(Suppress{Roles: suppress})
	}
	if len(revive) > 0 {
		s.out.act(Revive{Roles: revive})
	}
}

// wantAnew has offers asked for at once for what waits of an app: those that were refused for it may serve it now.
func (s *Scheduler) wantAnew(id app.PathID) {
	for _, r := range s.roles {
		delete(r.demand, id)
	}
}

// wishes are how much offers are wanted for each app, by role. Where more is wanted than before, they are asked for at once.
type wishes map[string]map[app.PathID]int

// want adds to what is wanted for an app.
func (w wishes) want(role string, id app.PathID, n int) {
	if w[role] == nil {
		w[role] = make(map[app.PathID]int)
	}
	w[role][id] += n
}

type wish uint8

const (
	wishNothing wish = iota
	wishRevive
	wishSuppress
)

// next decides what to tell the master about a role, given what waits.
func (r *role) next(now time.Time, demand map[app.PathID]int, s *Scheduler) wish {
	if len(demand) == 0 {
		r.demand, r.repeats, r.again = nil, 0, false
		if r.suppressed || s.cfg.NoSuppress {
			return wishNothing
		}
		r.suppressed = true
		return wishSuppress
	}
	fresh := r.again
	for id, n := range demand {
		if n > r.demand[id] {
			fresh = true
			break
		}
	}
	repeat := r.repeats > 0 && now.Sub(r.revived) >= s.cfg.MinReviveInterval
	switch {
	case !r.suppressed && fresh && now.Sub(r.revived) < reviveGap:
		s.timers.set(timer{at: r.revived.Add(reviveGap), kind: timerRevive})
		return wishNothing
	case r.suppressed || fresh:
		r.repeats = s.cfg.ReviveRepetitions
	case repeat:
		r.repeats--
	default:
		r.demand = demand
		return wishNothing
	}
	r.suppressed, r.again, r.revived, r.demand = false, false, now, demand
	if r.repeats > 0 {
		s.timers.set(timer{at: now.Add(s.cfg.MinReviveInterval), kind: timerRevive})
	}
	return wishRevive
}
