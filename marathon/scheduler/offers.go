package scheduler

import (
	"cmp"
	"maps"
	"math"
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

// launch takes what an instance needs from the offer, and stores the instance with the id of its task.
func (s *Scheduler) launch(now time.Time, sp *spec, i *Instance, offer *mesos.Offer, o *task.Offer) (*mesos.TaskInfo, []task.Refusal) {
	def := s.launchDefinition(sp, i)
	pick, refusals := task.Match(*o, task.Demand{App: def, Rules: sp.compiled(def), Counted: sp.countedPlaces(def)}, s.cfg.Task, s.rng)
	if len(refusals) > 0 {
		return nil, refusals
	}
	o.Resources = o.Resources.Sub(pick.All())
	next := i.withoutTask()
	next.Incarnation++
	id := i.ID.Task(next.Incarnation)
	next.TaskID, next.Version = id.String(), def.Version
	next.Condition, next.Since, next.StagedAt = Provisioned, now, now
	next.AgentID, next.Host = offer.GetAgentId().GetValue(), offer.GetHostname()
	next.Region, next.Zone, next.Attributes = o.Place.Region, o.Place.Zone, o.Place.Attributes
	next.Ports, next.Role = pick.HostPorts(), s.offerRole(offer)
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
	return task.Build(task.Launch{
		App: def, Task: id, AgentID: next.AgentID, Hostname: next.Host, Pick: pick, EnforceGroupRole: enforce,
	}, s.cfg.Task), nil
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

// countedPlaces are where the instances are that constraints count.
func (sp *spec) countedPlaces(def *app.App) []constraint.Place {
	if len(def.Constraints) == 0 {
		return nil
	}
	var places []constraint.Place
	for _, i := range sp.instances {
		if i.Condition.Active() && i.Version >= def.VersionInfo.LastConfigChangeAt {
			places = append(places, i.place())
		}
	}
	return places
}

// launchable returns the apps of a role that have instances waiting which nothing holds back, in the order of ids.
func (s *Scheduler) launchable(now time.Time, role string) []*spec {
	var specs []*spec
	if s.exhausted() {
		return nil
	}
	for id := range s.waiting {
		if sp := s.specs[id]; s.ready(now, sp) && s.specRole(sp) == role {
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
// count for as long as they live. A restart minds its own bounds, which are wider. At the beginning of a session an app
// whose tasks are asked for waits for the answers: what was thought lost may be back.
func (s *Scheduler) room(now time.Time, sp *spec) int {
	if now.Before(s.holdUntil) && slices.ContainsFunc(sp.instances, s.isAsked) {
		return 0
	}
	most := sp.def.Instances
	if d := sp.deployment; d != nil {
		if d.restarting(sp.id) {
			return math.MaxInt
		}
		if change := d.deployment.Plan.Change(sp.id); change != nil && change.Old != nil {
			most = max(most, change.Old.Instances) // until its step begins
		}
	}
	for _, i := range sp.instances {
		if i.Condition.Active() && !i.Condition.unreachable() {
			most--
		}
	}
	return most
}

func (s *Scheduler) specRole(sp *spec) string { return cmp.Or(sp.def.Role, s.cfg.Role) }

// exhausted tells that nothing is launched until more of what was launched runs.
func (s *Scheduler) exhausted() bool { return s.tokens <= 0 || s.starved }

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

// findRoles lists the roles that the framework needs to run its apps.
func (s *Scheduler) findRoles() []string {
	names := map[string]struct{}{s.cfg.Role: {}}
	for _, sp := range s.specs {
		if sp.def != nil && sp.def.Role != "" {
			names[sp.def.Role] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(names))
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
	demand := make(map[string]map[app.PathID]int)
	for id := range s.waiting {
		sp := s.specs[id]
		if sp.def == nil || sp.quarantined || s.room(now, sp) <= 0 {
			continue
		}
		if until := sp.backoff.until(now, sp.def); until.After(now) {
			if !sp.wake.Equal(until) {
				sp.wake = until
				s.timers.set(timer{at: until, kind: timerBackoff, app: id})
			}
			continue
		}
		if s.exhausted() {
			continue
		}
		name := s.specRole(sp)
		if demand[name] == nil {
			demand[name] = make(map[app.PathID]int)
		}
		demand[name][id] = min(sp.waits+sp.owed, s.room(now, sp))
	}
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
