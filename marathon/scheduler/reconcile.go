package scheduler

import (
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
)

const (
	// askFirst and askMost bound the pause before a task of which nothing is heard is asked for again. A master that has
	// just taken over rightly keeps silent on agents that it has not heard of yet.
	askFirst = 5 * time.Second
	askMost  = 5 * time.Minute
	// launchGrace is for how long a launch of this session is not asked for: the answer would cross it.
	launchGrace = 30 * time.Second
)

func (s *Scheduler) subscribed(now time.Time, in Subscribed) {
	s.connected = true
	s.cfg.Task.HomeRegion = in.Region
	s.offers, s.session = nil, now
	s.lookForDiscards()
	if in.FrameworkID != s.frameworkID {
		s.frameworkID = in.FrameworkID
		s.out.write(Write{Kind: KindFramework, Key: in.FrameworkID, Mark: s.mark})
	}
	if s.registered {
		s.publish(event.SchedulerReregistered{Master: in.Master})
	} else {
		s.registered = true
		s.publish(event.SchedulerRegistered{FrameworkID: in.FrameworkID, Master: in.Master})
	}
	if !slices.Equal(in.Roles, s.names) {
		s.out.act(Subscription{Roles: s.names})
	}
	for _, k := range s.kills {
		k.sent, k.next = false, now
	}
	clear(s.roles)
	// Whatever was on its way when the last session ended may be lost, launches too: ask for everything.
	clear(s.asked)
	for _, i := range s.instances {
		if i.Condition.Active() {
			s.question(i)
		}
	}
	s.ask(now)
	s.holdUntil = now.Add(askFirst)
	if s.doubt { // nothing is launched before it is known what else there is
		s.timers.set(timer{at: s.holdUntil, kind: timerRevive})
	}
	s.out.act(Reconcile{})
}

// question notes that the master is to be asked for an instance's tasks.
func (s *Scheduler) question(i *Instance) {
	for _, id := range i.Tasks() {
		s.asked[id] = TaskRef{TaskID: id, AgentID: i.AgentID}
	}
}

// isAsked tells whether the master was asked for one of an instance's tasks and has not answered.
func (s *Scheduler) isAsked(i *Instance) bool {
	return slices.ContainsFunc(i.Tasks(), func(id string) bool { _, ok := s.asked[id]; return ok })
}

func (s *Scheduler) disconnected() {
	if s.connected {
		s.connected = false
		s.offers = nil
		s.publish(event.SchedulerDisconnected{})
	}
}

// reconcileAll asks for every task, those under launch excepted.
func (s *Scheduler) reconcileAll(now time.Time) {
	for _, i := range s.instances {
		if i.Condition.Active() && (i.Condition != Provisioned || now.Sub(i.Since) > launchGrace) {
			s.question(i)
		}
	}
	if s.connected {
		s.ask(now)
		s.out.act(Reconcile{})
	}
}

// askReturned asks for tasks that are thought unreachable on agents that are not: what the agent does not have any more, or
// never had since the launch did not get through, is told by nobody else.
func (s *Scheduler) askReturned(now time.Time) {
	if len(s.returned) == 0 || !s.connected {
		return
	}
	found := false
	for _, i := range s.instances {
		if _, back := s.returned[i.AgentID]; back && i.Condition.unreachable() {
			s.question(i)
			found = true
		}
	}
	clear(s.returned)
	if found {
		s.ask(now)
	}
}

// ask sends the questions that are open, and begins to wait for the answers.
func (s *Scheduler) ask(now time.Time) {
	s.asking = askFirst
	s.sendQuestions(now)
}

func (s *Scheduler) askAgain(now time.Time) {
	if !s.connected || len(s.asked) == 0 {
		return
	}
	s.asking = min(2*s.asking, askMost)
	s.sendQuestions(now)
}

func (s *Scheduler) sendQuestions(now time.Time) {
	if len(s.asked) == 0 {
		return
	}
	tasks := make([]TaskRef, 0, len(s.asked))
	for _, id := range slices.Sorted(maps.Keys(s.asked)) {
		tasks = append(tasks, s.asked[id])
	}
	s.out.act(Reconcile{Tasks: tasks})
	s.timers.set(timer{at: now.Add(s.asking), kind: timerAsk})
}

// checkUnreachable replaces or forgets an instance that could not be reached for as long as its app says.
func (s *Scheduler) checkUnreachable(now time.Time, id app.InstanceID) {
	i := s.instances[id]
	if i == nil || !i.Condition.unreachable() {
		return
	}
	def := s.spec(id.App).definition(i.Version)
	lingers := s.lingers(i)
	if i.Goal == GoalDecommissioned {
		if !lingers {
			s.forget(i)
		}
		return
	}
	if def == nil || def.UnreachableStrategy.Disabled {
		return
	}
	if s.braking() {
		return // whatever is held back is looked at again when the brake is off
	}
	inactive, expunge := unreachableTimes(i, def)
	switch {
	case lingers && i.Condition == UnreachableInactive:
	case !lingers && !expunge.After(now):
		s.forget(i)
		return
	case i.Condition == Unreachable && !inactive.After(now):
		next := *i
		next.Condition, next.Since = UnreachableInactive, now
		s.put(&next)
		s.timers.set(timer{at: expunge, kind: timerUnreachable, instance: id})
	case i.Condition == Unreachable && inactive.Before(expunge):
		s.timers.set(timer{at: inactive, kind: timerUnreachable, instance: id})
	default:
		s.timers.set(timer{at: expunge, kind: timerUnreachable, instance: id})
	}
}
