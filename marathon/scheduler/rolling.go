package scheduler

import (
	"math"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
)

// rollout is how far the restart of an app has come, counted from its instances alone: so it may be looked at again after
// every event, and goes on after a restart of this process without anything else being stored.
type rollout struct {
	want     int // instances of the new configuration
	strategy app.UpgradeStrategy
	resident bool

	newCount   int // of the new configuration with the goal to run
	newArrived int // of them, healthy and ready
	oldHealthy int // of an old configuration with the goal to run, healthy
	oldOther   int // the same, not healthy
	leaving    int // any configuration, being killed, not terminal yet
}

// move is what a rollout does next: end this many healthy and other old instances, start this many new ones.
type move struct {
	killHealthy int
	killOther   int
	start       int
}

// next follows spec/marathon-runtime.md 4.4: never fewer healthy instances than the minimum, never more instances than
// the maximum, old ones that are not healthy first. Where the spec counts events (one old instance for each new one that
// becomes healthy), this compares numbers, which comes to the same as long as nothing dies by itself, and keeps to the
// bounds when something does.
func (r rollout) next() move {
	bounds := deployment.Rolling{
		Desired: r.want, Healthy: r.oldHealthy + r.newArrived, Strategy: r.strategy, Resident: r.resident,
	}.Bounds()
	spare := bounds.KillNow // without All, just what is healthy beyond the minimum; the rest is seen to below
	var m move
	surplus := max(0, r.oldHealthy+r.oldOther-r.want)
	m.killOther = min(r.oldOther, max(spare, surplus))
	m.killHealthy = min(r.oldHealthy, max(0, spare-m.killOther))
	if r.newArrived >= r.want {
		// Everything new has arrived: whatever is old may go.
		m.killOther, m.killHealthy = r.oldOther, r.oldHealthy
	}
	m.start = bounds.StartNow(r.want, r.newCount, r.oldHealthy+r.oldOther+r.leaving)
	stuck := m == move{} && r.leaving == 0 && r.newCount == r.newArrived && r.newCount < r.want
	if stuck && r.oldOther > 0 {
		// No room to start and nothing healthy to spare, but an instance that is of no use holds a place.
		m.killOther = 1
	}
	return m
}

// restartCapacity is how many instances, old and new, there may be at the most while an app is restarted.
func (sp *spec) restartCapacity() int {
	def := sp.def
	r := deployment.Rolling{Desired: def.Instances, Healthy: math.MaxInt32, Strategy: def.UpgradeStrategy, Resident: def.Resident()}
	return r.Bounds().MaxCapacity
}

// restart takes the next moves of an app's restart and tells whether it has ended.
func (s *Scheduler) restart(now time.Time, d *running, sp *spec) bool {
	def := sp.def
	if def == nil {
		return true
	}
	if def.Instances == 0 || def.Daemon() {
		return s.scaleTo(now, d, sp)
	}
	config := def.VersionInfo.LastConfigChangeAt
	r := rollout{want: def.Instances, strategy: def.UpgradeStrategy, resident: def.Resident()}
	var healthyOld, otherOld, young []*Instance
	var kept keepers
	for _, i := range slices.Clone(sp.instances) {
		current := i.Version >= config
		switch {
		case i.Goal != GoalRunning:
			if i.Condition.Active() && !i.Condition.unreachable() {
				r.leaving++
			}
			kept.count(i, d.deployment.Plan.ID)
		case current && i.Condition == UnreachableInactive:
		case current:
			young = append(young, i)
			if s.arrived(i) {
				r.newArrived++
			}
		case i.Reservation != nil && i.Condition == Scheduled:
			young = append(young, s.renew(i, def, d.deployment.Plan.ID))
		case i.Reservation != nil && i.Condition.unreachable():
			r.leaving++ // nothing takes its place; it follows when its agent is back
		case s.braking() && i.Condition.unreachable():
			r.leaving++ // what takes its place is held back, here too
		case i.Condition == Scheduled || i.Condition.unreachable():
			s.decommission(now, i) // nothing of it runs, as far as anyone can tell: nothing to wait for
		case s.healthy(i):
			healthyOld = append(healthyOld, i)
		default:
			otherOld = append(otherOld, i)
		}
	}
	for _, i := range victims(def, young, len(young)-def.Instances) {
		s.retire(now, i)
	}
	r.leaving += kept.missing(def.Instances - len(young) - len(healthyOld) - len(otherOld) - r.leaving)
	r.newCount = min(len(young), def.Instances)
	r.newArrived = min(r.newArrived, r.newCount)
	r.oldHealthy, r.oldOther = len(healthyOld), len(otherOld)
	m := r.next()
	for _, i := range victims(def, otherOld, m.killOther) {
		s.setAside(now, i, d.deployment.Plan.ID)
	}
	for _, i := range victims(def, healthyOld, m.killHealthy) {
		s.setAside(now, i, d.deployment.Plan.ID)
	}
	m.start -= s.wake(now, sp, m.start, d.deployment.Plan.ID)
	s.create(now, sp, m.start, d.deployment.Plan.ID)
	return r.newArrived == def.Instances && r.oldHealthy+r.oldOther+r.leaving == 0
}
