package scheduler

import (
	"cmp"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/constraint"
)

// kill is the wish to end an instance's task. It is repeated until the task has ended, for ever: a kill may get lost
// wherever there is a network.
type kill struct {
	sent     bool
	next     time.Time // of the next attempt
	attempts int
	demanded bool // by somebody, and not found to be right by the scheduler itself
}

// decommission gives an instance the goal to end.
func (s *Scheduler) decommission(now time.Time, i *Instance) {
	if i.Goal == GoalDecommissioned {
		s.insist(now, i)
		return
	}
	next := *i
	next.Goal = GoalDecommissioned
	s.put(&next)
	s.unprobe(&next)
	s.kill(now, &next)
}

// kill ends an instance's task, whatever its goal. What has no task is done with at once; what can't be reached is given
// up: it is replaced now, and killed when it shows up again; unless it keeps its place, which it does until its agent is back.
func (s *Scheduler) kill(now time.Time, i *Instance) {
	switch {
	case !i.Condition.Active():
		if i.Goal == GoalDecommissioned {
			s.forget(i)
		}
	case s.lingers(i):
		if i.Goal == GoalRunning && i.Reservation == nil {
			next := *i
			next.Goal = GoalDecommissioned
			s.put(&next)
			s.unprobe(&next)
		}
	case i.Condition.unreachable():
		if i.Goal == GoalDecommissioned || i.Reservation == nil {
			s.forget(i)
		}
	case s.kills[i.ID] == nil:
		s.kills[i.ID] = &kill{next: now, demanded: s.demanded}
		s.killQ = append(s.killQ, i.ID)
	default:
		s.insist(now, i)
	}
}

// insist has a kill that is held back go on, where somebody asks for it by now.
func (s *Scheduler) insist(now time.Time, i *Instance) {
	if k := s.kills[i.ID]; k != nil && s.demanded && !k.demanded {
		k.demanded = true
		if !k.sent {
			k.next = now
		}
	}
}

// onDemand does what somebody has asked for, which may kill at any time.
func (s *Scheduler) onDemand(do func()) {
	before := s.demanded
	s.demanded = true
	do()
	s.demanded = before
}

// sendKills sends the kills that are due, oldest first, as long as not too many are under way.
func (s *Scheduler) sendKills(now time.Time) {
	s.killQ = slices.DeleteFunc(s.killQ, func(id app.InstanceID) bool { return s.kills[id] == nil })
	if !s.connected {
		return
	}
	flying := s.killsInFlight()
	for _, id := range s.killQ {
		k, i := s.kills[id], s.instances[id]
		if quiet := s.quietUntil(); !k.demanded && quiet.After(now) {
			if k.next.Before(quiet) {
				k.next = quiet
				s.timers.set(timer{at: quiet, kind: timerKill, instance: id})
			}
			continue
		}
		if k.next.After(now) || !k.sent && flying >= s.cfg.KillsInFlight {
			continue
		}
		if !k.sent {
			flying++
		}
		k.sent, k.next = true, now.Add(s.cfg.KillRetry)
		k.attempts++
		s.timers.set(timer{at: k.next, kind: timerKill, instance: id})
		for _, task := range i.Tasks() {
			s.out.act(Kill{TaskID: task, AgentID: i.AgentID})
		}
	}
}

// killsInFlight is the number of kills that were sent and have had no effect yet.
func (s *Scheduler) killsInFlight() int {
	n := 0
	for _, k := range s.kills {
		if k.sent {
			n++
		}
	}
	return n
}

// killAttempts is the number of kills sent for the instances that are being killed.
func (s *Scheduler) killAttempts() int {
	n := 0
	for _, k := range s.kills {
		n += k.attempts
	}
	return n
}

// victims picks n instances to scale an app down by: those that do not run yet first, then those with the highest numbers, so that
// those that are left have the lowest, then by killSelection; where an app is to be spread evenly, those that stand where most do.
func victims(def *app.App, candidates []*Instance, n int) []*Instance {
	if n <= 0 {
		return nil
	}
	sorted := slices.Clone(candidates)
	slices.SortStableFunc(sorted, func(a, b *Instance) int {
		if c := cmp.Compare(killRank(a.Condition), killRank(b.Condition)); c != 0 {
			return c
		}
		if def.Indexed() && a.Index != nil && b.Index != nil {
			return cmp.Compare(*b.Index, *a.Index)
		}
		c := killTime(a).Compare(killTime(b))
		if def.KillSelection != app.OldestFirst {
			c = -c
		}
		return c
	})
	n = min(n, len(sorted))
	if !slices.ContainsFunc(def.Constraints, func(c app.Constraint) bool { return c.Operator == app.GroupBy }) {
		return sorted[:n]
	}
	rules, err := constraint.Compile(def.Constraints)
	if err != nil {
		return sorted[:n] // a definition with such a constraint is refused; balance is not worth an error here
	}
	places := make([]constraint.Place, len(sorted))
	for i := range sorted {
		places[i] = sorted[i].place()
	}
	picked := make([]*Instance, 0, n)
	for _, i := range rules.Victims(places, n) {
		picked = append(picked, sorted[i])
	}
	return picked
}

// killRank orders conditions by how little is lost: what waits for an offer has nothing to lose, so it goes even before
// the unreachable.
func killRank(c Condition) int {
	switch c {
	case Scheduled:
		return 0
	case Unreachable, UnreachableInactive:
		return 1
	case Provisioned, Staging:
		return 2
	case Starting:
		return 3
	case Running:
		return 4
	default:
		return 5
	}
}

func killTime(i *Instance) time.Time {
	switch {
	case i.Condition == Staging || i.Condition == Provisioned:
		return i.StagedAt
	case i.Condition == Starting:
		return i.Since
	case !i.StartedAt.IsZero():
		return i.StartedAt
	default:
		return i.Since
	}
}

// checkLaunch kills a task that was launched long ago and still does not run.
func (s *Scheduler) checkLaunch(now time.Time, id app.InstanceID) {
	i := s.instances[id]
	if i == nil {
		return
	}
	var limit time.Duration
	switch i.Condition {
	case Provisioned:
		limit = s.cfg.LaunchConfirmTimeout
	case Staging, Starting:
		limit = s.cfg.LaunchTimeout
	default:
		return
	}
	// Time in which nothing could be heard does not count.
	since := i.StagedAt
	if since.Before(s.started) {
		since = s.started
	}
	if due := since.Add(limit); due.After(now) || !s.connected {
		s.timers.set(timer{at: later(due, now.Add(time.Second)), kind: timerLaunch, instance: id})
		return
	}
	s.kill(now, i)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
