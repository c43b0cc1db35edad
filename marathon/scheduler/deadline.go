package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"starling/marathon/app"
	"starling/marathon/deployment"
	"starling/marathon/event"
)

// watchDeadline has the deployment looked at when it has to be done. The time counts from when it was asked for, which is stored,
// so that another leader rolls it back at the same moment.
func (s *Scheduler) watchDeadline(r *running) {
	if r.deadline, _ = r.deployment.Plan.Deadline(); !r.deadline.IsZero() {
		s.timers.set(timer{at: r.deadline, kind: timerDeadline})
	}
}

// judgePatience is how long after the beginning of a session a deployment is rolled back in spite of tasks of which the master has
// said nothing yet: by then it has given up the agents that are not back.
const judgePatience = 15 * time.Minute

// deadlines rolls back the oldest deployment that is not done in time. It comes after all else had its chance to get them done,
// and takes one in a round: each comes with a tree of its own, and after an outage many may be due.
func (s *Scheduler) deadlines(now time.Time) {
	for _, r := range s.deployments {
		if r.deadline.IsZero() || r.deadline.After(now) {
			continue
		}
		if judged := s.judgedFrom(now, r); judged.After(now) {
			r.deadline = judged
			s.timers.set(timer{at: judged, kind: timerDeadline})
			continue
		}
		r.deadline = time.Time{} // what can't be rolled back is tried once a term
		s.rollBack(now, r)
		s.timers.set(timer{at: now, kind: timerDeadline})
		return
	}
}

// judgedFrom is from when on it can be known whether a deployment is done, as far as that can be said now: not before the master
// has told in this session how its tasks are, and their checks from here have had time to run again, whose results are not
// stored. What was all done before an outage is not to be undone for that.
func (s *Scheduler) judgedFrom(now time.Time, r *running) time.Time {
	again := now.Add(time.Second)
	if !s.connected {
		return again
	}
	from := s.holdUntil
	for _, id := range r.affected {
		sp := s.specs[id]
		if sp == nil {
			continue
		}
		if sp.def != nil {
			from = later(from, s.session.Add(checkTime(sp.def)))
		}
		if now.Before(s.session.Add(judgePatience)) && slices.ContainsFunc(sp.instances, s.isAsked) {
			from = later(from, again)
		}
	}
	return from
}

// checkTime is how long it may take until all checks of a running app that are made from here have had a result.
func checkTime(def *app.App) time.Duration {
	most := 0
	for _, c := range def.HealthChecks {
		if !c.Protocol.ByAgent() {
			most = max(most, c.DelaySeconds+c.IntervalSeconds+c.TimeoutSeconds)
		}
	}
	for _, c := range def.ReadinessChecks {
		most = max(most, c.IntervalSeconds+c.TimeoutSeconds)
	}
	return time.Duration(most) * time.Second
}

// rollBack puts a deployment in the place of another one that undoes it.
func (s *Scheduler) rollBack(now time.Time, r *running) {
	plan := r.deployment.Plan
	_, whose := plan.Deadline()
	seconds := plan.Change(whose).New.DeploymentDeadline() / time.Second
	why := fmt.Sprintf("it was not done within %d seconds, the deploymentDeadlineSeconds of %s", seconds, whose)
	refused := func(err error) {
		s.publish(event.GroupChangeFailed{
			GroupID: string(app.Root), Version: app.At(now).String(),
			Reason: fmt.Sprintf("deployment %s cannot be rolled back, though %s: %v", plan.ID, why, err),
		})
	}
	suspend := s.withPlaces(plan)
	root, err := app.Commit(s.root, plan.Revert(s.root, suspend...), app.Change{Now: now, Settings: s.cfg.App})
	if err != nil {
		refused(err)
		return
	}
	undo := deployment.Diff(s.ids.Next(now).String(), s.root, root, nil)
	undo.Origin = deployment.Origin{Begun: app.At(now), Undoes: plan.ID}
	e := ending{outcome: Overdue, reason: why, undoneBy: undo.ID, event: fmt.Sprintf("The deployment is rolled back by %s, since %s", undo.ID, why)}
	if len(suspend) > 0 {
		kept := "; what is new and has volumes is suspended, and keeps them: " + listed(suspend)
		e.reason, e.event = e.reason+kept, e.event+kept
	}
	if undo.Empty() {
		// A restart alone: the definition is what it was, so that there is nothing to go back to.
		e.undoneBy, e.event = "", "The deployment is cancelled, since "+why
		s.stop(now, r, e)
		return
	}
	if s.cfg.Check != nil {
		if err := s.cfg.Check(root, undo); err != nil {
			refused(err)
			return
		}
	}
	if err := s.Deploy(now, Change{Root: root, Plan: undo, Force: true, Group: app.Root, end: &e}); err != nil {
		refused(err)
	}
}

// withPlaces are the apps and pods that the deployment has added and that have volumes by now. To remove them would destroy what
// they have written, and nobody has asked for that.
func (s *Scheduler) withPlaces(plan *deployment.Plan) []app.PathID {
	var ids []app.PathID
	for _, c := range plan.Changes {
		if sp := s.specs[c.ID]; c.Old == nil && sp != nil && slices.ContainsFunc(sp.instances, (*Instance).placed) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// placed tells whether the instance has a place that an offer has shown.
func (i *Instance) placed() bool { return i.Reservation != nil && i.Reservation.Confirmed }

// listed names the first few of some apps.
func listed(ids []app.PathID) string {
	const most = 3
	var b strings.Builder
	for n, id := range ids[:min(most, len(ids))] {
		if n > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(id))
	}
	if len(ids) > most {
		fmt.Fprintf(&b, " and %d more", len(ids)-most)
	}
	return b.String()
}
