package scheduler

import (
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
)

// A daemon app has one instance on every node that fits. Nobody lists the nodes for this framework: what it knows of are those
// that make offers. So nothing of such an app ever waits for an offer; an instance is made when a node without one makes an offer
// that fits, and launched there in the same round. One whose task has ended is forgotten, and the next offer of its node makes
// another. That follows nodes that join and nodes that leave, and needs nothing stored but the instances.
//
// A node is an agent id. There are never two on one, since an agent counts as taken for as long as a task of the app may live
// there: while it is being killed, and while the node can't be reached, which ends when the node is back or the master gives it up.
// An app that is removed is forgotten, with what can't be reached of it; where it is made anew before the node is back, the task of
// before ends when it is heard of, which may be just after the new one was launched.

const (
	// daemonSettle is how long nothing must have been launched before all nodes that fit count as served: those without a filter
	// make their offers within a second or two.
	daemonSettle = 3 * time.Second
	// daemonPatience is how long an upgrade waits for an offer of the node whose instance it has ended. One that has left makes
	// none, and nobody tells of that.
	daemonPatience = time.Minute
)

// daemon is what is known of a daemon app beside its instances. It is not stored: after a restart of this process an upgrade waits
// for daemonSettle and goes on.
type daemon struct {
	// asks grows whenever offers are wanted anew, also of nodes that were refused.
	asks int
	// deployment is the one that was at work on the app last, changed when that began, or when something was launched or ended last.
	deployment string
	changed    time.Time
	// hole is the agent whose instance an upgrade has ended, and holeSince when; empty once that is settled.
	hole      string
	holeSince time.Time
	wake      time.Time // a timer is set for this time
}

// noteDaemon keeps the list of daemon apps.
func (s *Scheduler) noteDaemon(sp *spec) {
	if sp.isDaemon() {
		s.daemons[sp.id] = struct{}{}
		return
	}
	delete(s.daemons, sp.id)
	sp.daemon = daemon{}
}

func (sp *spec) isDaemon() bool { return sp.def != nil && sp.def.Daemon() }

// serving tells whether nodes without an instance get one now, as far as the definitions go. A deployment serves them from its own
// step on; until then the definition is not yet to be run.
func (s *Scheduler) serving(sp *spec) bool {
	return sp.isDaemon() && !sp.quarantined && sp.def.Instances > 0 && (sp.deployment == nil || sp.deployment.acting(sp.id))
}

// acting tells whether the deployment has come to the step that concerns an app.
func (r *running) acting(id app.PathID) bool {
	steps := r.deployment.Plan.Steps
	for _, step := range steps[:min(r.deployment.Step, len(steps))] {
		for _, action := range step.Actions {
			if action.App == id && action.Kind != deployment.Start {
				return true
			}
		}
	}
	return false
}

// dealDaemons launches the daemon apps of a role on the agents that have none. They come before all others, which have a choice.
func (s *Scheduler) dealDaemons(now time.Time, role string, tables []*table) {
	for _, id := range slices.Sorted(maps.Keys(s.daemons)) {
		sp := s.specs[id]
		if !s.serving(sp) || s.specRole(sp) != role || sp.backoff.pending(now, sp.def) {
			continue
		}
		taken := make(map[string]struct{}, len(sp.instances))
		for _, i := range sp.instances {
			if i.Condition.Active() {
				taken[i.AgentID] = struct{}{}
			}
		}
		for _, o := range s.orphans {
			if o.App == id {
				taken[o.AgentID] = struct{}{}
			}
		}
		for _, t := range tables {
			if _, ok := taken[t.accept.AgentID]; ok {
				continue
			}
			if s.full(t) {
				continue
			}
			if s.serve(now, sp, t) {
				taken[t.accept.AgentID] = struct{}{}
			}
		}
	}
}

// serve launches a new instance on one agent, and tells whether that fits.
func (s *Scheduler) serve(now time.Time, sp *spec, t *table) bool {
	i := &Instance{
		ID: app.InstanceID{App: sp.id, UUID: s.ids.Next(now)}, Goal: GoalRunning, Condition: Scheduled, Since: now, Version: sp.def.Version,
	}
	if sp.deployment != nil {
		i.Deployment = sp.deployment.deployment.Plan.ID
	}
	if refusals := s.launch(now, sp, i, t); len(refusals) > 0 {
		sp.queue.refused(now, t.offer, refusals)
		return false
	}
	delete(sp.queue.last, t.accept.AgentID)
	sp.daemon.changed = now
	return true
}

// wishDaemons wants offers for daemon apps for as long as there are some: the next node may join at any time.
func (s *Scheduler) wishDaemons(now time.Time, demand wishes) {
	for id := range s.daemons {
		sp := s.specs[id]
		if !s.serving(sp) || s.exhausted() {
			continue
		}
		if until := sp.backoff.until(now, sp.def); until.After(now) {
			s.wakeFor(now, sp, until)
			continue
		}
		demand.want(s.specRole(sp), id, 1+sp.daemon.asks)
	}
}

// wakeFor has the app looked at at a time.
func (s *Scheduler) wakeFor(now time.Time, sp *spec, at time.Time) {
	if w := sp.daemon.wake; !w.After(now) || w.After(at) { // else it is looked at before, and then again
		sp.daemon.wake = at
		s.timers.set(timer{at: at, kind: timerDaemon, app: sp.id})
	}
}

// crew is how the instances of a daemon app stand.
type crew struct {
	on      map[string]*Instance // the one that stays, by agent
	old     []*Instance          // of them, those of an older configuration that can be reached
	pending int                  // of them, those of the present configuration that have not arrived
	leaving int                  // others that have not ended yet
}

// muster finds how the instances stand, and ends those that are too many: what waits since the app was no daemon, and all but one
// on an agent. Where it may end none that nobody asks for it lets them be.
func (s *Scheduler) muster(now time.Time, sp *spec, may bool) crew {
	c := crew{on: make(map[string]*Instance)}
	end := func(i *Instance) {
		if !may && i.Condition.Active() {
			return
		}
		s.decommission(now, i)
		if i.Condition.Active() && !i.Condition.unreachable() {
			c.leaving++
		}
	}
	for _, i := range slices.Clone(sp.instances) {
		other := c.on[i.AgentID]
		switch {
		case i.Goal != GoalRunning:
			if i.Condition.Active() && !i.Condition.unreachable() {
				c.leaving++
			}
		case !i.Condition.Active() || sp.def.Instances == 0:
			end(i)
		case other == nil:
			c.on[i.AgentID] = i
		case s.better(i, other):
			end(other)
			c.on[i.AgentID] = i
		default:
			end(i)
		}
	}
	for _, agent := range slices.Sorted(maps.Keys(c.on)) {
		switch i := c.on[agent]; {
		case i.Condition.unreachable(): // seen to when it is back
		case i.Version < sp.def.VersionInfo.LastConfigChangeAt:
			c.old = append(c.old, i)
		case !s.arrived(i):
			c.pending++
		}
	}
	return c
}

// better tells which of two instances on one agent stays: the one of the newer definition, else the healthy one.
func (s *Scheduler) better(a, b *Instance) bool {
	if a.Version != b.Version {
		return a.Version > b.Version
	}
	return s.healthy(a) && !s.healthy(b)
}

// tend looks after a daemon app, and tells whether it is as a deployment wants it: every node that makes offers was served, all
// that was launched has arrived, nothing old is left. id is that of the deployment, nothing where none is at work. It takes the
// place of scaling and of restarting.
func (s *Scheduler) tend(now time.Time, sp *spec, id string) bool {
	d := &sp.daemon
	if d.deployment != id {
		d.deployment = id
		if id != "" {
			d.changed, d.hole = now, ""
			d.asks++
		}
	}
	may := id != "" || s.restoredAt.IsZero() // after a restore there may rightly be others, until that is settled
	c := s.muster(now, sp, may)
	if sp.def.Instances == 0 {
		return c.leaving == 0
	}
	if c.leaving > 0 || c.pending > 0 || !s.connected {
		return false
	}
	if !may {
		return false // whatever is old stays
	}
	// What has failed is launched again when its backoff is over: until then its node is not served.
	quiet := later(later(d.changed, s.holdUntil.Add(-askFirst)), sp.backoff.until(now, sp.def)).Add(daemonSettle)
	if len(c.old) > 0 || d.hole != "" {
		if at := s.holeSettles(now, sp, c, quiet); at.After(now) {
			s.wakeFor(now, sp, at)
			return false
		}
	}
	if len(c.old) > 0 {
		s.replace(now, sp, c)
		return false
	}
	if len(c.on) == 0 { // it fits nowhere, or waits for the end of its backoff
		return false
	}
	if quiet.After(now) {
		s.wakeFor(now, sp, quiet)
		return false
	}
	return true
}

// replace ends the next instance of an older configuration: one that is of no use anyway, else by killSelection.
func (s *Scheduler) replace(now time.Time, sp *spec, c crew) {
	candidates := slices.DeleteFunc(slices.Clone(c.old), s.healthy)
	if len(candidates) == 0 {
		candidates = c.old
	}
	for _, i := range victims(sp.def, candidates, 1) {
		sp.daemon.hole, sp.daemon.holeSince = i.AgentID, now
		s.decommission(now, i)
	}
}

// holeSettles is when the upgrade may go on to the next node: now, once the node where it was has a new instance, or it is clear
// that it gets none since it does not fit, or is away.
func (s *Scheduler) holeSettles(now time.Time, sp *spec, c crew, quiet time.Time) time.Time {
	d := &sp.daemon
	if d.hole == "" {
		return quiet // the first one, or the first that this process sees: let nodes without an instance make their offers
	}
	if i := c.on[d.hole]; i != nil && i.Version >= sp.def.VersionInfo.LastConfigChangeAt {
		return now
	}
	if a := s.agents[d.hole]; a != nil && a.unreachable {
		return now
	}
	if r, ok := sp.queue.last[d.hole]; ok && r.At.After(d.holeSince) {
		return r.At.Add(daemonSettle) // what was freed may come in another offer
	}
	// Silence says something only while offers are looked at. An app whose tasks fail does not go on to fail elsewhere.
	until := sp.backoff.until(now, sp.def)
	return later(d.holeSince, until).Add(daemonPatience)
}

// lacking tells of a daemon app that waits, so that the queue says why: it fits nowhere, or its launches are put off.
func (s *Scheduler) lacking(now time.Time, sp *spec) bool {
	return s.serving(sp) && (len(sp.instances) == 0 || sp.backoff.pending(now, sp.def))
}
