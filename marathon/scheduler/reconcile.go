package scheduler

import (
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/master/mesos"
)

const (
	// askFirst and askMost bound the pause before a task of which nothing is heard is asked for again. A master that has
	// just taken over rightly keeps silent on agents that it has not heard of yet.
	askFirst = 5 * time.Second
	askMost  = 5 * time.Minute
	// launchGrace is for how long a launch of this session is not asked for: the answer would cross it.
	launchGrace = 30 * time.Second
	// brakeAgents is from how many agents on the loss of more than half of them stops replacing.
	brakeAgents = 3
	// brakePause is when to look again.
	brakePause = 30 * time.Second
	// agentMemory is for how long an agent without instances is remembered.
	agentMemory = time.Hour
)

// agentView is what is known of an agent.
type agentView struct {
	unreachable bool
	seen        time.Time
}

func (s *Scheduler) subscribed(now time.Time, in Subscribed) {
	s.connected = true
	s.cfg.Task.HomeRegion = in.Region
	s.offers = nil
	if in.FrameworkID != s.frameworkID {
		s.frameworkID = in.FrameworkID
		s.out.write(Write{Kind: KindFramework, Key: in.FrameworkID})
	}
	if s.registered {
		s.publish(event.SchedulerReregistered{Master: in.Master})
	} else {
		s.registered = true
		s.publish(event.SchedulerRegistered{FrameworkID: in.FrameworkID, Master: in.Master})
	}
	for _, k := range s.kills {
		k.sent, k.next = false, now
	}
	clear(s.roles)
	// Whatever was on its way when the last session ended may be lost, launches too: ask for everything.
	clear(s.asked)
	for _, i := range s.instances {
		if i.Condition.Active() {
			s.asked[i.TaskID] = TaskRef{TaskID: i.TaskID, AgentID: i.AgentID}
		}
	}
	s.ask(now)
	s.holdUntil = now.Add(askFirst)
	s.out.act(Reconcile{})
}

// isAsked tells whether the master was asked for an instance's task and has not answered.
func (s *Scheduler) isAsked(i *Instance) bool {
	_, ok := s.asked[i.TaskID]
	return ok
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
			s.asked[i.TaskID] = TaskRef{TaskID: i.TaskID, AgentID: i.AgentID}
		}
	}
	if s.connected {
		s.ask(now)
		s.out.act(Reconcile{})
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
	if i.Goal == GoalDecommissioned {
		s.forget(i)
		return
	}
	if def == nil || def.UnreachableStrategy.Disabled {
		return
	}
	if s.braking() {
		s.timers.set(timer{at: now.Add(brakePause), kind: timerUnreachable, instance: id})
		return
	}
	inactive := i.UnreachableSince.Add(time.Duration(def.UnreachableStrategy.InactiveAfterSeconds) * time.Second)
	expunge := i.UnreachableSince.Add(time.Duration(def.UnreachableStrategy.ExpungeAfterSeconds) * time.Second)
	switch {
	case !expunge.After(now):
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

// braking tells that more than half of the agents seem dead. That is rather a fault on this side of the network than so
// many deaths, and replacing everything at once would make it worse: unreachable instances are kept until it is over.
func (s *Scheduler) braking() bool {
	lost := 0
	for _, a := range s.agents {
		if a.unreachable {
			lost++
		}
	}
	return len(s.agents) >= brakeAgents && 2*lost > len(s.agents)
}

// sawAgent keeps the view of an agent's health that the brake is worked by.
func (s *Scheduler) sawAgent(now time.Time, status *mesos.TaskStatus) {
	id := status.GetAgentId().GetValue()
	if id == "" {
		return
	}
	switch condition := conditionOf(status); {
	case condition == Unreachable:
		s.markAgent(now, id, true)
	case !condition.Terminal() || status.GetSource() != mesos.TaskStatus_SOURCE_MASTER:
		s.markAgent(now, id, false)
	case status.GetState() == mesos.TaskState_TASK_GONE_BY_OPERATOR:
		delete(s.agents, id)
	}
}

func (s *Scheduler) markAgent(now time.Time, id string, unreachable bool) {
	a := s.agents[id]
	if a == nil {
		s.forgetAgents(now)
		a = &agentView{}
		s.agents[id] = a
	}
	a.unreachable, a.seen = unreachable, now
}

// forgetAgents drops agents that have nothing of ours and were not heard of for long, so that they do not count for ever.
func (s *Scheduler) forgetAgents(now time.Time) {
	used := make(map[string]struct{}, len(s.agents))
	for _, i := range s.instances {
		used[i.AgentID] = struct{}{}
	}
	maps.DeleteFunc(s.agents, func(id string, a *agentView) bool {
		_, ok := used[id]
		return !ok && now.Sub(a.seen) > agentMemory
	})
}
