package scheduler

import (
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
	// Quarantined are apps whose definition could not be read: they are left alone, with all that runs of them.
	Quarantined []app.PathID
	// Doubt tells that something else could not be read. Then no task is killed for being unknown.
	Doubt bool
	// Problems say what could not be read, for people.
	Problems []string
}

// Load takes over what was stored. It is called once, before anything else. Deployments go on from their first step: steps
// look at what is there, so what was done already takes no time. Everything that was under way when the last run ended is
// asked for once a master is there; a launch of which nobody has heard is launched again under a new task id.
func (s *Scheduler) Load(now time.Time, st *Stored) {
	s.started = now
	s.frameworkID, s.doubt = st.FrameworkID, st.Doubt
	if st.Root != nil {
		s.root = st.Root
	}
	for a := range s.root.All() {
		sp := s.spec(a.ID)
		sp.def = a
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
	for _, i := range st.Instances {
		s.loadInstance(now, i)
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
	}
	s.timers.set(timer{at: now.Add(s.cfg.ScaleInitialDelay), kind: timerScale})
	s.timers.set(timer{at: now.Add(s.cfg.ReconcileInterval), kind: timerReconcile})
}

func (s *Scheduler) loadInstance(now time.Time, i *Instance) {
	sp := s.spec(i.ID.App)
	sp.instances = append(sp.instances, i)
	s.instances[i.ID] = i
	s.countWaiting(sp, nil, i)
	if i.AgentID != "" {
		s.markAgent(now, i.AgentID, i.Condition.unreachable())
	}
	if sp.quarantined {
		return
	}
	switch {
	case i.Goal != GoalRunning && !i.Condition.Active():
		s.forget(i)
	case i.Goal != GoalRunning && !i.Condition.unreachable():
		s.kill(now, i)
	case i.Condition.unreachable():
		s.timers.set(timer{at: now.Add(s.cfg.ExpungeInitialDelay), kind: timerUnreachable, instance: i.ID})
	case i.Condition == Provisioned || i.Condition == Staging || i.Condition == Starting:
		s.timers.set(timer{at: now.Add(s.cfg.LaunchTimeout), kind: timerLaunch, instance: i.ID})
	case i.Condition == Running:
		if def := sp.definition(i.Version); def != nil {
			s.probe(i, def)
		}
	}
}
