package scheduler

import (
	"cmp"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
)

// Stored is what was stored by an earlier run.
type Stored struct {
	// FrameworkID is empty before the first subscription.
	FrameworkID string
	Root        *app.Group
	Instances   []*Instance
	// Definitions are those that instances were launched with.
	Definitions []*app.App
	// Deployments are those that ran, oldest first.
	Deployments []*deployment.Plan
	Failures    []*Failure
	// Discards are reservations of instances that are no more.
	Discards []*Discard
	// History are deployments that have ended, in any order.
	History []*Ended
	// Callbacks are the URLs that events are posted to.
	Callbacks []string
	// Quarantined are apps whose definition could not be read: they are left alone, with all that runs of them.
	Quarantined []app.PathID
	// Doubt tells that something else could not be read. Then no task is killed for being unknown.
	Doubt bool
	// Restored tells that this is the state of a backup: a reason to doubt.
	Restored bool
	// RestoredAt is when that was; zero where it is not known.
	RestoredAt time.Time
	// Mark is when a doubt was settled last or, if that is later, the newest moment of an instance that was forgotten: nothing
	// unknown of before is wanted any more. Zero where neither ever was.
	Mark time.Time
	// Problems say what could not be read, for people.
	Problems []string
}

// Load takes over what was stored. It is called once, before anything else. Deployments go on from their first step: steps
// look at what is there, so what was done already takes no time. Everything that was under way when the last run ended is
// asked for once a master is there; a launch of which nobody has heard is launched again under a new task id.
func (s *Scheduler) Load(now time.Time, st *Stored) {
	s.started = now
	s.frameworkID, s.doubt, s.callbacks, s.restoredAt = st.FrameworkID, st.Doubt, st.Callbacks, st.RestoredAt
	s.mark = st.Mark
	s.newest, s.firstTerm = newestOf(st), st.FrameworkID == ""
	if st.Restored && s.restoredAt.IsZero() {
		s.restoredAt = now
	}
	if st.Root != nil {
		s.root = st.Root
	}
	for a := range s.root.Specs() {
		sp := s.spec(a.ID)
		sp.def = a
		s.noteDaemon(sp)
		sp.versions[a.Version] = a
	}
	for _, a := range st.Definitions {
		s.spec(a.ID).versions[a.Version] = a
	}
	for _, id := range st.Quarantined {
		s.spec(id).quarantined = true
	}
	for _, f := range st.Failures {
		s.failures[f.App] = f
	}
	s.loadHistory(st.History)
	for _, i := range inOrder(st.Instances) {
		s.loadInstance(now, i)
	}
	for _, d := range st.Discards {
		s.keep(d)
	}
	for _, sp := range s.specs {
		sp.trimVersions()
		if sp.def == nil {
			s.touch(sp.id)
		}
	}
	s.names = s.findRoles()
	for _, plan := range st.Deployments {
		r := &running{deployment: &Deployment{Plan: plan}, affected: plan.Affected()}
		s.deployments = append(s.deployments, r)
		s.lock(r)
		s.watchDeadline(r)
	}
	s.timers.set(timer{at: now.Add(s.cfg.ScaleInitialDelay), kind: timerScale})
	s.timers.set(timer{at: now.Add(s.cfg.ReconcileInterval), kind: timerReconcile})
}

// inOrder sorts instances by when they were made, which their ids tell, though not as text.
func inOrder(all []*Instance) []*Instance {
	return slices.SortedFunc(slices.Values(all), func(a, b *Instance) int {
		return cmp.Or(cmp.Compare(a.ID.UUID.Time(), b.ID.UUID.Time()), cmp.Compare(a.ID.String(), b.ID.String()))
	})
}

func (s *Scheduler) loadInstance(now time.Time, i *Instance) {
	sp := s.spec(i.ID.App)
	sp.instances = append(sp.instances, i)
	s.instances[i.ID] = i
	s.tally(sp, nil, i)
	if r := i.Reservation; r != nil && !r.Confirmed {
		s.timers.set(timer{at: now.Add(s.cfg.ReservationTimeout), kind: timerReservation, instance: i.ID})
	}
	if i.AgentID != "" {
		s.loadAgent(now, sp, i)
	}
	if sp.quarantined {
		return
	}
	switch {
	case i.Goal == GoalDecommissioned && !i.Condition.Active():
		s.forget(i)
	case !i.Condition.Active():
	case i.Goal != GoalRunning && !i.Condition.unreachable():
		s.kill(now, i)
	case i.Condition.unreachable():
		s.timers.set(timer{at: now.Add(s.cfg.ExpungeInitialDelay), kind: timerUnreachable, instance: i.ID})
	case i.Condition == Provisioned || i.Condition == Staging || i.Condition == Starting:
		s.timers.set(timer{at: now.Add(s.cfg.LaunchTimeout), kind: timerLaunch, instance: i.ID})
	case i.Condition == Running:
		if def := sp.definition(i.Version); def != nil {
			s.remember(now, i, def)
			s.probe(i, def)
		}
	}
}
