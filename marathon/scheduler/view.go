package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/task"
)

// View reads the state of a scheduler. What it returns is never changed later; the view itself is only good for as long as
// nobody is inside a method that changes the scheduler.
type View struct{ s *Scheduler }

// View returns a view of the state.
func (s *Scheduler) View() View { return View{s} }

// Root is the tree of definitions.
func (v View) Root() *app.Group { return v.s.root }

// Callbacks are the URLs that events are posted to. The list must not be changed.
func (v View) Callbacks() []string { return v.s.callbacks }

// FrameworkID is empty before the first subscription.
func (v View) FrameworkID() string { return v.s.frameworkID }

// Connected tells whether there is a session with a master.
func (v View) Connected() bool { return v.s.connected }

// Instances returns the instances of an app in the order in which they were made. The slice is the caller's.
func (v View) Instances(id app.PathID) []*Instance {
	if sp := v.s.specs[id]; sp != nil {
		return slices.Clone(sp.instances)
	}
	return nil
}

// Instance returns one instance, or nil.
func (v View) Instance(id app.InstanceID) *Instance { return v.s.instances[id] }

// Definition returns what an instance was launched with, nil where that is not known.
func (v View) Definition(i *Instance) *app.App {
	if sp := v.s.specs[i.ID.App]; sp != nil {
		return sp.definition(i.Version)
	}
	return nil
}

// Uses tells whether a version of an app is what some instance was launched with.
func (v View) Uses(id app.PathID, version app.Timestamp) bool {
	sp := v.s.specs[id]
	return sp != nil && sp.versions[version] != nil
}

// Deployments returns the deployments that run, oldest first. The slice is the caller's.
func (v View) Deployments() []*Deployment {
	deployments := make([]*Deployment, len(v.s.deployments))
	for i, r := range v.s.deployments {
		deployments[i] = r.deployment
	}
	return deployments
}

// Deployment returns a deployment that runs, or nil.
func (v View) Deployment(id string) *Deployment {
	if r := v.s.find(id); r != nil {
		return r.deployment
	}
	return nil
}

// DeploymentOf returns the id of the deployment that is at work on an app, or nothing.
func (v View) DeploymentOf(id app.PathID) string {
	if sp := v.s.specs[id]; sp != nil && sp.deployment != nil {
		return sp.deployment.deployment.Plan.ID
	}
	return ""
}

// Failure returns the newest failure of an app's tasks, or nil.
func (v View) Failure(id app.PathID) *Failure { return v.s.failures[id] }

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
func (v View) Health(i *Instance) Health {
	var out Health
	if len(i.Containers) > 0 {
		return podHealthOf(i)
	}
	h := v.s.health[i.ID]
	if h == nil || h.task != i.TaskID {
		return out
	}
	for _, c := range h.checks {
		if c.Reported() {
			out.Checks = append(out.Checks, c)
		}
	}
	out.Healthy = v.s.combined(i, v.Definition(i))
	for _, name := range slices.Sorted(maps.Keys(h.readiness)) {
		out.Readiness = append(out.Readiness, h.readiness[name])
	}
	return out
}

// Discards is the number of reservations that are still to be released.
func (v View) Discards() int { return len(v.s.discards) }

// Quarantined lists the apps whose definitions could not be read, in order.
func (v View) Quarantined() []app.PathID {
	var ids []app.PathID
	for id, sp := range v.s.specs {
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
func (v View) Counts(now time.Time) Counts {
	c := Counts{Launched: v.s.launched, Deployments: len(v.s.deployments), KillsInFlight: v.s.killsInFlight(), KillAttempts: v.s.killAttempts()}
	for _, i := range v.s.instances {
		switch i.Condition {
		case Running:
			c.Running++
		case Provisioned, Staging, Starting:
			c.Staged++
			if now.Sub(later(i.StagedAt, v.s.started)) > v.s.cfg.LaunchTimeout {
				c.Overdue++
			}
		}
	}
	return c
}

// Queued is an app that has instances waiting for an offer.
type Queued struct {
	App *app.App
	// Count is how many instances are wanted and not launched, those that are not made yet included.
	Count int
	// HeldBack is how many more would be replaced if it were not for the brake.
	HeldBack int
	Role     string
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

// Queue returns the apps with instances that wait, or that are held back by the brake, in the order of ids.
func (v View) Queue(now time.Time) []Queued {
	var queue []Queued
	apps := maps.Clone(v.s.waiting)
	for id := range v.s.daemons {
		if v.s.lacking(now, v.s.specs[id]) {
			apps[id] = struct{}{}
		}
	}
	if v.s.braking() {
		for id, sp := range v.s.specs {
			if v.s.heldBack(now, sp) > 0 {
				apps[id] = struct{}{}
			}
		}
	}
	for id := range apps {
		sp := v.s.specs[id]
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
			App: sp.def, Count: sp.waits + sp.owed, HeldBack: v.s.heldBack(now, sp), Role: sp.def.Role, Since: since,
			Processed: sp.queue.processed, Unused: sp.queue.unused, LastUnused: sp.queue.lastUnused, LastUsed: sp.queue.lastUsed,
			Attempt: maps.Clone(sp.queue.attempt),
		}
		if v.s.lacking(now, sp) {
			q.Count, q.Since = 1, sp.daemon.changed
		}
		if since.IsZero() && q.HeldBack > 0 {
			q.Since = v.s.brake.since
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

// Roles lists the roles that the framework needs, sorted. The slice is the caller's.
func (v View) Roles() []string { return slices.Clone(v.s.names) }

// Brake is the state of the brake on mass replacement.
func (v View) Brake(now time.Time) Brake { return v.s.brakeView(now) }

// Doubt tells that something stored could not be read, so that unknown tasks are left alone.
func (v View) Doubt() bool { return v.s.doubt }
