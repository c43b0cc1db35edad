package scheduler

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/event"
)

// Deployment is a plan under way, as it is stored. Step counts from 1; 0 is one that has not begun. It is never changed.
type Deployment struct {
	Plan *deployment.Plan
	Step int
}

// running is a deployment of the present.
type running struct {
	deployment *Deployment
	affected   []app.PathID
	deadline   time.Time // until when it has to be done, once; zero is never
	// restarts are the steps, from 0, in which apps are restarted; nil until they are asked for.
	restarts map[app.PathID]int
	// ended tells of each action of the present step, by its app, whether it has ended. What happens to an app takes it out:
	// then it is looked at again. So a step with many apps is not looked at as a whole whenever something happens to one.
	ended map[app.PathID]bool
}

// Locked refuses a change of apps that running deployments are at work on.
type Locked struct {
	// Deployments are the ids of those that stand in the way, oldest first.
	Deployments []string
}

func (l *Locked) Error() string {
	return "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."
}

// ErrNoDeployment is returned for a deployment that does not run.
var ErrNoDeployment = errors.New("no such deployment is running")

// TooManyDeployments refuses one deployment more than the limit.
type TooManyDeployments struct{ Limit int }

func (t *TooManyDeployments) Error() string {
	return fmt.Sprintf("Max number (%d) of running deployments is achieved. Wait for existing deployments to complete or cancel one using force=true parameter.", t.Limit)
}

// Change is a new tree of definitions and the plan that leads there.
type Change struct {
	// Root is the new tree, and Plan the way to it from the present one.
	Root *app.Group
	Plan *deployment.Plan
	// Force cancels the deployments that stand in the way.
	Force bool
	// Group is named in the event that tells of the change.
	Group app.PathID
	// Announce is told before the change is; nil is nothing.
	Announce event.Payload
	end      *ending // of the deployment that the plan undoes; nil is what follows from the plan
}

// ends is why a deployment ends that stands in the way.
func (c *Change) ends(id string) ending {
	switch {
	case c.Plan.Undoes == id && c.end == nil && c.Plan.Empty(): // a mere restart: there is nothing to go back to
		return ending{outcome: Cancelled, by: c.Plan.By}
	case c.Plan.Undoes != id:
		return ending{outcome: Cancelled, by: c.Plan.By, reason: fmt.Sprintf("deployment %s took its place by force", c.Plan.ID)}
	case c.end != nil:
		return *c.end
	}
	return ending{outcome: RolledBack, by: c.Plan.By, undoneBy: c.Plan.ID}
}

// Conflicts returns the running deployments that are at work on an app that the plan touches, and the one that it undoes, oldest
// first.
func (s *Scheduler) Conflicts(plan *deployment.Plan) []string {
	var ids []string
	for _, r := range s.deployments {
		if p := r.deployment.Plan; p.ID == plan.Undoes || len(plan.Conflicts([]*deployment.Plan{p})) > 0 {
			ids = append(ids, r.deployment.Plan.ID)
		}
	}
	return ids
}

// Deploy makes the new tree the tree of definitions and begins the deployment. It returns a *Locked or a
// *TooManyDeployments, and has changed nothing then.
func (s *Scheduler) Deploy(now time.Time, c Change) error {
	conflicts := s.Conflicts(c.Plan)
	if len(conflicts) > 0 && !c.Force {
		return &Locked{Deployments: conflicts}
	}
	affected := c.Plan.Affected()
	if len(affected) > 0 && len(s.deployments)-len(conflicts) >= s.cfg.MaxRunningDeployments {
		return &TooManyDeployments{Limit: s.cfg.MaxRunningDeployments}
	}
	for _, id := range conflicts {
		s.stop(now, s.find(id), c.ends(id))
	}
	s.adopt(c.Root, affected)
	if c.Plan.Undoes != "" {
		s.reuse(c.Plan)
	}
	r := &running{deployment: &Deployment{Plan: c.Plan}, affected: affected}
	if c.Announce != nil {
		s.publish(c.Announce)
	}
	s.publish(event.GroupChangeSuccess{GroupID: string(c.Group), Version: c.Plan.Version.String()})
	s.deployments = append(s.deployments, r)
	s.lock(r)
	s.watchDeadline(r)
	if len(affected) > 0 {
		s.out.write(Write{Kind: KindDeployment, Key: c.Plan.ID, Deployment: r.deployment})
	}
	s.onDemand(func() { s.advance(now, r) })
	return nil
}

// lock marks the apps of a deployment as its own.
func (s *Scheduler) lock(r *running) {
	for _, id := range r.affected {
		sp := s.spec(id)
		sp.deployment = r
		s.touch(id)
	}
}

// adopt takes over a new tree, in which only the affected apps differ from the present one, and has it stored.
func (s *Scheduler) adopt(root *app.Group, affected []app.PathID) {
	if root == s.root {
		return
	}
	change := &Tree{Root: root}
	for _, id := range affected {
		sp, next := s.spec(id), root.Spec(id)
		old := sp.def
		sp.def, sp.terminated, sp.owed = next, false, 0
		s.noteDaemon(sp)
		s.letGo(sp)
		s.wantAnew(id)
		s.touch(id)
		if next == nil {
			if old != nil && len(old.HealthChecks) > 0 {
				s.publish(event.RemoveHealthCheck{AppID: string(id)})
			}
			continue
		}
		if old == nil || old.Version != next.Version {
			change.Changed = append(change.Changed, next)
		}
		if old == nil || old.VersionInfo.LastConfigChangeAt != next.VersionInfo.LastConfigChangeAt {
			for _, check := range next.HealthChecks {
				s.publish(event.AddHealthCheck{AppID: string(id), Version: next.Version.String(), HealthCheck: checkJSON(check)})
			}
		}
		sp.versions[next.Version] = next
		sp.trimVersions()
	}
	s.root = root
	s.updateRoles()
	s.out.write(Write{Kind: KindTree, Tree: change})
}

func (s *Scheduler) find(id string) *running {
	for _, r := range s.deployments {
		if r.deployment.Plan.ID == id {
			return r
		}
	}
	return nil
}

// Announce tells of something that happened outside, in order with what happens here.
func (s *Scheduler) Announce(p event.Payload) { s.publish(p) }

// Cancel ends a deployment and leaves everything as it is by then: the definitions are those of its target, and what was
// started or killed stays so. by is who asks for it, for the history.
func (s *Scheduler) Cancel(now time.Time, id, by string) error {
	r := s.find(id)
	if r == nil {
		return fmt.Errorf("%w: %s", ErrNoDeployment, id)
	}
	s.stop(now, r, ending{outcome: Cancelled, by: by})
	return nil
}

// stop ends a deployment that is not done.
func (s *Scheduler) stop(now time.Time, r *running, e ending) {
	plan := r.deployment.Plan.Light()
	if at := r.deployment.Step; at > 0 && at <= len(plan.Steps) {
		s.publish(event.DeploymentStepFailure{Plan: plan, CurrentStep: plan.Steps[at-1]})
	}
	s.publish(event.DeploymentFailed{ID: plan.ID, Plan: plan, Reason: cmp.Or(e.event, "The upgrade has been cancelled")})
	s.rememberEnd(now, r, e)
	s.unlock(r)
}

// unlock forgets a deployment; its apps are looked after by the scale check again.
func (s *Scheduler) unlock(r *running) {
	s.deployments = slices.DeleteFunc(s.deployments, func(o *running) bool { return o == r })
	for _, id := range r.affected {
		if sp := s.specs[id]; sp != nil && sp.deployment == r {
			sp.deployment = nil
			s.touch(id)
		}
	}
	s.out.write(Write{Kind: KindDeployment, Key: r.deployment.Plan.ID})
}

// advance takes a deployment as far as it goes.
func (s *Scheduler) advance(now time.Time, r *running) {
	steps := r.deployment.Plan.Steps
	if at := r.deployment.Step; at > 0 && at <= len(steps) && !s.perform(now, r, steps[at-1]) {
		return
	}
	light := r.deployment.Plan.Light()
	for begun := false; ; begun = true {
		at := r.deployment.Step
		if at > 0 {
			if at <= len(steps) {
				if begun && !s.perform(now, r, steps[at-1]) {
					return
				}
				s.publish(event.DeploymentStepSuccess{Plan: light, CurrentStep: light.Steps[at-1]})
			}
			if at >= len(steps) {
				break
			}
		} else if len(steps) == 0 {
			break
		}
		r.deployment, r.ended = &Deployment{Plan: r.deployment.Plan, Step: at + 1}, nil
		s.publish(event.DeploymentInfo{Plan: light, CurrentStep: light.Steps[at]})
		for _, action := range steps[at].Actions {
			if sp := s.specs[action.App]; sp != nil && action.Kind == deployment.Restart {
				sp.backoff.reset()
			}
		}
	}
	s.publish(event.DeploymentSuccess{ID: light.ID, Plan: light})
	s.rememberEnd(now, r, ending{outcome: Succeeded})
	s.unlock(r)
}

// perform takes each action of a step as far as it goes, and tells whether all have ended.
func (s *Scheduler) perform(now time.Time, r *running, step deployment.Step) bool {
	if r.ended == nil {
		r.ended = make(map[app.PathID]bool, len(step.Actions))
	}
	done := true
	for _, action := range step.Actions {
		sp := s.spec(action.App)
		if ended, known := r.ended[action.App]; known && !sp.isDaemon() { // those depend on what nodes say, too
			done = done && ended
			continue
		}
		ended := true
		switch action.Kind {
		case deployment.Start:
		case deployment.Scale:
			s.endNamed(now, action)
			ended = s.scaleTo(now, r, sp)
		case deployment.Restart:
			ended = s.restart(now, r, sp)
		case deployment.Stop:
			ended = s.terminate(now, sp)
		}
		r.ended[action.App] = ended
		done = done && ended
	}
	return done
}

// endNamed ends the instances that a scaling was asked to end.
func (s *Scheduler) endNamed(now time.Time, action deployment.Action) {
	for _, id := range action.Kill {
		if i := s.instances[id]; i != nil && id.App == action.App {
			s.retire(now, i)
		}
	}
}

// scaleTo brings an app to its number for a deployment, and tells whether that is reached: what was to go is gone, and
// what the deployment itself has made is healthy and ready.
func (s *Scheduler) scaleTo(now time.Time, r *running, sp *spec) bool {
	if sp.def == nil {
		return true
	}
	if sp.isDaemon() {
		return s.tend(now, sp, r.deployment.Plan.ID)
	}
	s.balance(now, sp, r.deployment.Plan.ID)
	if sp.owed > 0 {
		return false
	}
	for _, i := range sp.instances {
		switch {
		case i.Goal != GoalRunning && i.Condition.unreachable(): // it ends when its agent is back
		case i.Goal != GoalRunning:
			if i.Condition.Active() {
				return false
			}
		case i.Deployment == r.deployment.Plan.ID && i.Condition != UnreachableInactive && !s.arrived(i):
			return false
		}
	}
	return true
}

// terminate ends everything of an app that was removed.
func (s *Scheduler) terminate(now time.Time, sp *spec) bool {
	for _, i := range slices.Clone(sp.instances) {
		s.decommission(now, i)
	}
	if len(sp.instances) > 0 {
		return false
	}
	if !sp.terminated {
		sp.terminated = true
		sp.backoff.reset()
		s.publish(event.AppTerminated{AppID: string(sp.id)})
	}
	return true
}

// scale is the scale check of an app that no deployment is at work on.
func (s *Scheduler) scale(now time.Time, sp *spec) {
	if sp.def == nil {
		if s.doubt {
			return
		}
		for _, i := range slices.Clone(sp.instances) {
			s.decommission(now, i)
		}
		return
	}
	if sp.isDaemon() {
		s.tend(now, sp, "")
		return
	}
	s.balance(now, sp, "")
}

// balance makes or ends instances until their number is right.
func (s *Scheduler) balance(now time.Time, sp *spec, deploymentID string) {
	var counted []*Instance
	for _, i := range sp.instances {
		if i.counted() {
			counted = append(counted, i)
		}
	}
	if deploymentID != "" || s.restoredAt.IsZero() { // after a restore there may rightly be more, until that is settled
		for _, i := range victims(sp.def, counted, len(counted)-sp.def.Instances) {
			s.retire(now, i)
		}
	}
	n := max(0, sp.def.Instances-len(counted))
	n -= s.wake(now, sp, n, deploymentID)
	n -= s.spare(sp, n, deploymentID)
	s.create(now, sp, n, deploymentID)
}

// create makes n instances that wait for an offer, or as many of them as may wait, and notes how many are owed. It is asked
// again whenever one of the app is launched, so the others follow.
func (s *Scheduler) create(now time.Time, sp *spec, n int, deploymentID string) {
	most := min(s.cfg.MaxWaiting, waitingApps*s.cfg.MaxWaiting-(s.waits-sp.waits))
	most = max(most, s.cfg.MaxWaiting/waitingShare, 1)
	made := max(0, min(n, most-sp.waits))
	for range made {
		s.put(&Instance{
			ID:   app.InstanceID{App: sp.id, UUID: s.ids.Next(now)},
			Goal: GoalRunning, Condition: Scheduled, Since: now, Version: sp.def.Version, Deployment: deploymentID,
		})
	}
	sp.owed = n - made
}

// restarting tells whether the deployment has come to the restart of an app.
func (r *running) restarting(id app.PathID) bool {
	begun, found := r.restart(id)
	return found && begun
}

// restart tells whether the deployment restarts an app, and whether it has come to that.
func (r *running) restart(id app.PathID) (begun, found bool) {
	if r.restarts == nil {
		r.restarts = make(map[app.PathID]int)
		for n, step := range r.deployment.Plan.Steps {
			for _, action := range step.Actions {
				if action.Kind == deployment.Restart {
					r.restarts[action.App] = n
				}
			}
		}
	}
	n, found := r.restarts[id]
	return found && n < r.deployment.Step, found
}

// launchDefinition is what a waiting instance is launched with: the present definition, unless a deployment will replace
// the app's configuration and has not come to that yet.
func (s *Scheduler) launchDefinition(sp *spec, i *Instance) *app.App {
	if r := sp.deployment; r != nil && i.Version < sp.def.VersionInfo.LastConfigChangeAt {
		if begun, found := r.restart(sp.id); found && !begun {
			return sp.definition(i.Version)
		}
	}
	return sp.def
}

const (
	// maxWaiting is how many instances of one app wait for an offer at a time. It has to be a few times what is launched in
	// a round (LaunchTokens), so that launching never waits for the making, and is not larger since each is a document and
	// an event, whose listeners have queues of about a thousand, and since nothing is gained by instances in memory that no
	// cluster has room for: a number of instances may be a slip of the keyboard.
	maxWaiting = 500
	// waitingApps is how many apps may have that many; when as many wait in all, each app has a share of one in
	// waitingShare, so that a thousand large apps at once are not half a million instances, and none is left out.
	waitingApps  = 20
	waitingShare = 50
)

// KillRequest asks for the end of the tasks of some instances.
type KillRequest struct {
	Instances []app.InstanceID
	// Wipe forgets the instances as well: what replaces them is new.
	Wipe bool
}

// KillTasks ends tasks; the apps get new ones.
func (s *Scheduler) KillTasks(now time.Time, k KillRequest) {
	s.onDemand(func() {
		for _, id := range k.Instances {
			i := s.instances[id]
			switch {
			case i == nil:
			case k.Wipe:
				s.decommission(now, i)
			default:
				s.kill(now, i)
			}
		}
	})
}

// ResetDelay ends the backoff of an app, and tells whether an instance of it waits at all.
func (s *Scheduler) ResetDelay(id app.PathID) bool {
	sp := s.specs[id]
	if sp == nil || !slices.ContainsFunc(sp.instances, (*Instance).waits) && !(sp.isDaemon() && sp.backoff.delay > 0) {
		return false
	}
	sp.backoff.reset()
	return true
}
