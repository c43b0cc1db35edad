package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/task"
)

// What follows reads the state and changes nothing. What is returned is never changed later, except where it says so.

// Root is the tree of definitions.
func (s *Scheduler) Root() *app.Group { return s.root }

// FrameworkID is empty before the first subscription.
func (s *Scheduler) FrameworkID() string { return s.frameworkID }

// Connected tells whether there is a session with a master.
func (s *Scheduler) Connected() bool { return s.connected }

// Instances returns the instances of an app in the order in which they were made. The slice is the caller's.
func (s *Scheduler) Instances(id app.PathID) []*Instance {
	if sp := s.specs[id]; sp != nil {
		return slices.Clone(sp.instances)
	}
	return nil
}

// Instance returns one instance, or nil.
func (s *Scheduler) Instance(id app.InstanceID) *Instance { return s.instances[id] }

// Definition returns what an instance was launched with, nil where that is not known.
func (s *Scheduler) Definition(i *Instance) *app.App {
	if sp := s.specs[i.ID.App]; sp != nil {
		return sp.definition(i.Version)
	}
	return nil
}

// Uses tells whether a version of an app is what some instance was launched with.
func (s *Scheduler) Uses(id app.PathID, v app.Timestamp) bool {
	sp := s.specs[id]
	return sp != nil && sp.versions[v] != nil
}

// Deployments returns the deployments that run, oldest first. The slice is the caller's.
func (s *Scheduler) Deployments() []*Deployment {
	deployments := make([]*Deployment, len(s.deployments))
	for i, r := range s.deployments {
		deployments[i] = r.deployment
	}
	return deployments
}

// Deployment returns a deployment that runs, or nil.
func (s *Scheduler) Deployment(id string) *Deployment {
	if r := s.find(id); r != nil {
		return r.deployment
	}
	return nil
}

// DeploymentOf returns the id of the deployment that is at work on an app, or nothing.
func (s *Scheduler) DeploymentOf(id app.PathID) string {
	if sp := s.specs[id]; sp != nil && sp.deployment != nil {
		return sp.deployment.deployment.Plan.ID
	}
	return ""
}

// Failure returns the newest failure of an app's tasks, or nil.
func (s *Scheduler) Failure(id app.PathID) *Failure { return s.failures[id] }

// Health is what is known of an instance's health.
type Health struct {
	// Checks are those that have reported, in the order of the app's health checks.
	Checks []CheckState
	// Healthy is nil while some check has not reported, and for apps without checks.
	Healthy *bool
	// Readiness are the newest results of readiness checks, in the order of names.
	Readiness []Readiness
}

// Health returns what is known of an instance's health.
func (s *Scheduler) Health(i *Instance) Health {
	var out Health
	h := s.health[i.ID]
	if h == nil || h.task != i.TaskID {
		return out
	}
	for _, c := range h.checks {
		if c.Reported() {
			out.Checks = append(out.Checks, c)
		}
	}
	out.Healthy = s.combined(i, s.Definition(i))
	for _, name := range slices.Sorted(maps.Keys(h.readiness)) {
		out.Readiness = append(out.Readiness, h.readiness[name])
	}
	return out
}

// Quarantined lists the apps whose definitions could not be read, in order.
func (s *Scheduler) Quarantined() []app.PathID {
	var ids []app.PathID
	for id, sp := range s.specs {
		if sp.quarantined {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Counts are numbers over all apps.
type Counts struct {
	Running, Staged, Overdue int
	Deployments              int
	KillsInFlight            int
	KillAttempts             int
	// Launched are the tasks launched since the start.
	Launched int
}

// Counts returns numbers over all apps.
func (s *Scheduler) Counts(now time.Time) Counts {
	c := Counts{Launched: s.launched, Deployments: len(s.deployments), KillsInFlight: s.KillsInFlight(), KillAttempts: s.KillAttempts()}
	for _, i := range s.instances {
		switch i.Condition {
		case Running:
			c.Running++
		case Provisioned, Staging, Starting:
			c.Staged++
			if now.Sub(later(i.StagedAt, s.started)) > s.cfg.LaunchTimeout {
				c.Overdue++
			}
		}
	}
	return c
}

// Queued is an app that has instances waiting for an offer.
type Queued struct {
	App   *app.App
	Count int
	Role  string
	// Since is when the first of them began to wait.
	Since time.Time
	// Until is when launches may go on; zero when nothing holds them back.
	Until time.Time

	Processed, Unused    int
	LastUnused, LastUsed time.Time
	// Attempt counts all offers since the app began to wait, by the first reason against them.
	Attempt map[task.Reason]int
	// Refusals are the newest refused offers, one an agent, in the order of agents.
	Refusals []Refusal
}

// Queue returns the apps with waiting instances, in the order of ids.
func (s *Scheduler) Queue(now time.Time) []Queued {
	var queue []Queued
	for id := range s.waiting {
		sp := s.specs[id]
		if sp.def == nil {
			continue
		}
		var since time.Time
		for _, i := range sp.instances {
			if i.waits() && (since.IsZero() || i.Since.Before(since)) {
				since = i.Since
			}
		}
		q := Queued{
			App: sp.def, Count: sp.waits, Role: sp.def.Role, Since: since,
			Processed: sp.queue.processed, Unused: sp.queue.unused, LastUnused: sp.queue.lastUnused, LastUsed: sp.queue.lastUsed,
			Attempt: maps.Clone(sp.queue.attempt),
		}
		if until := sp.backoff.until(now, sp.def); until.After(now) {
			q.Until = until
		}
		for _, agent := range slices.Sorted(maps.Keys(sp.queue.last)) {
			q.Refusals = append(q.Refusals, sp.queue.last[agent])
		}
		queue = append(queue, q)
	}
	slices.SortFunc(queue, func(a, b Queued) int { return cmp.Compare(a.App.ID, b.App.ID) })
	return queue
}
