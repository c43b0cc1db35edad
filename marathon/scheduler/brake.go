package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"starling/marathon/app"
	"starling/marathon/event"
	"starling/master/mesos"
)

const (
	// brakeAgents is from how many agents on the loss of more than half of them stops replacing.
	brakeAgents = 3
	// brakeWindow is how long before the brake was put on an agent may have been lost to count as part of one loss.
	brakeWindow = time.Hour
	// agentMemory is for how long an agent without instances is remembered.
	agentMemory = time.Hour
)

// brake holds the replacement of unreachable instances back while more than half of the agents that hold instances seem
// dead. That is rather a fault on this side of the network than so many deaths, and to start everything again on the few
// that are left would make it worse. Masters may have such a brake of their own; then nothing is heard of the losses that it
// does not believe, and this one has nothing to do.
//
// An agent counts while it holds instances, and for a while after it was lost with some, so that a loss which comes to be
// known bit by bit is seen as one. An agent that was heard of since the newest loss counts as well, whatever it holds: while the
// brake is on offers are asked for, so that it lifts itself where the agents that died are few of all that there are.
type brake struct {
	on    bool
	since time.Time
}

// agentView is what is known of an agent.
type agentView struct {
	unreachable bool
	lost        time.Time // when it became unreachable
	seen        time.Time
	holds       int // active instances
	// writtenOff is an agent that does not count until it is heard of again: it is gone, or an operator has lifted the brake.
	writtenOff bool
}

// Brake is the state of the brake on mass replacement.
type Brake struct {
	On    bool
	Since time.Time
	// Lost are the agents that seem dead, sorted, of Agents that count.
	Lost   []string
	Agents int
	// HeldBack is how many instances would be replaced if it were not for the brake.
	HeldBack int
}

// Reason says in words why nothing is replaced; it is empty while the brake is off.
func (b Brake) Reason() string {
	if !b.On {
		return ""
	}
	return fmt.Sprintf("%d of %d nodes with instances seem dead at once: unreachable instances are not replaced until more than half are back, or an operator lifts the brake", len(b.Lost), b.Agents)
}

// braking tells that unreachable instances are not to be replaced.
func (s *Scheduler) braking() bool { return s.brake.on }

// lostBy tells whether the agent is part of the loss for which the brake is put on, or was, at a time.
func (a *agentView) lostBy(at time.Time) bool {
	return a.unreachable && !a.writtenOff && at.Sub(a.lost) <= brakeWindow
}

// weigh counts the agents that the brake is worked by.
func (s *Scheduler) weigh(now time.Time) (lost, all int) {
	reference := now
	if s.brake.on {
		reference = s.brake.since
	}
	var last time.Time // when the newest of the losses came to be known
	for _, a := range s.agents {
		if a.lostBy(reference) {
			lost++
			last = later(last, a.lost)
		}
	}
	all = lost
	for _, a := range s.agents {
		if !a.unreachable && !a.writtenOff && (a.holds > 0 || !a.seen.Before(last)) {
			all++
		}
	}
	return lost, all
}

// watchBrake puts the brake on or off. It is asked once a round, before anything is given up, so that agents which are
// lost in one round are lost together.
func (s *Scheduler) watchBrake(now time.Time) {
	if s.lost == 0 && !s.brake.on {
		return
	}
	lost, all := s.weigh(now)
	on := all >= brakeAgents && 2*lost > all
	if on == s.brake.on {
		return
	}
	if s.brake = (brake{on: on}); on {
		s.brake.since = now
	}
	s.publish(event.ReplacementBrake{Engaged: on, Lost: lost, Agents: all, Reason: s.brakeView(now).Reason()})
	if on {
		return
	}
	// What was held back is looked at again at once.
	var held []app.InstanceID
	for id, i := range s.instances {
		if i.Condition.unreachable() {
			held = append(held, id)
		}
	}
	slices.SortFunc(held, func(a, b app.InstanceID) int { return cmp.Compare(a.String(), b.String()) })
	for _, id := range held {
		s.timers.set(timer{at: now, kind: timerUnreachable, instance: id})
		s.touch(id.App)
	}
}

// LiftBrake has what seems dead replaced, and tells whether the brake was on. The agents that seem dead now do not count
// any more until they are heard of.
func (s *Scheduler) LiftBrake(now time.Time) bool {
	if !s.brake.on {
		return false
	}
	for _, a := range s.agents {
		if a.unreachable {
			a.writtenOff = true
		}
	}
	s.watchBrake(now)
	return true
}

func (s *Scheduler) brakeView(now time.Time) Brake {
	b := Brake{On: s.brake.on, Since: s.brake.since}
	if !b.On {
		return b
	}
	for _, id := range slices.Sorted(maps.Keys(s.agents)) {
		if a := s.agents[id]; a.lostBy(b.Since) {
			b.Lost = append(b.Lost, id)
		}
	}
	_, b.Agents = s.weigh(now)
	for _, sp := range s.specs {
		b.HeldBack += s.heldBack(now, sp)
	}
	return b
}

// heldBack is how many instances of an app the brake keeps from being replaced.
func (s *Scheduler) heldBack(now time.Time, sp *spec) int {
	if !s.brake.on || sp.quarantined {
		return 0
	}
	n := 0
	for _, i := range sp.instances {
		if def := sp.definition(i.Version); i.counted() && i.Condition == Unreachable && def != nil && !def.UnreachableStrategy.Disabled {
			inactive, _ := unreachableTimes(i, def)
			if !inactive.After(now) {
				n++
			}
		}
	}
	return n
}

// unreachableTimes are when an unreachable instance is replaced and when it is forgotten.
func unreachableTimes(i *Instance, def *app.App) (inactive, expunge time.Time) {
	strategy := def.UnreachableStrategy
	return i.UnreachableSince.Add(time.Duration(strategy.InactiveAfterSeconds) * time.Second),
		i.UnreachableSince.Add(time.Duration(strategy.ExpungeAfterSeconds) * time.Second)
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
		s.markAgent(now, id, false)
		s.agents[id].writtenOff = true
	}
}

func (s *Scheduler) agent(id string) *agentView {
	a := s.agents[id]
	if a == nil {
		a = new(agentView)
		s.agents[id] = a
	}
	return a
}

func (s *Scheduler) markAgent(now time.Time, id string, unreachable bool) {
	a := s.agent(id)
	switch {
	case unreachable && !a.unreachable:
		a.lost = now
		s.lost++
	case !unreachable && a.unreachable:
		s.lost--
		s.returned[id] = struct{}{}
	}
	if !unreachable {
		a.seen, a.writtenOff = now, false
	}
	a.unreachable = unreachable
}

// loadAgent takes over what a stored instance tells of its agent. One that has been away for long is no part of a loss of
// now; but where an instance ought to have been replaced, and was not, it may be that the brake was on.
func (s *Scheduler) loadAgent(now time.Time, sp *spec, i *Instance) {
	known := s.agent(i.AgentID).lost
	s.markAgent(now, i.AgentID, i.Condition.unreachable())
	if !i.Condition.unreachable() {
		return
	}
	lost := i.UnreachableSince
	if lost.IsZero() {
		lost = now
	}
	if def := sp.definition(i.Version); i.Condition == Unreachable && def != nil && !def.UnreachableStrategy.Disabled {
		if inactive, _ := unreachableTimes(i, def); !inactive.After(now) {
			lost = now
		}
	}
	s.agent(i.AgentID).lost = later(known, lost)
}

// countHeld keeps the number of active instances of each agent, as an instance changes.
func (s *Scheduler) countHeld(old, next *Instance) {
	if old != nil && old.AgentID != "" && old.Condition.Active() {
		s.agent(old.AgentID).holds--
	}
	if next != nil && next.AgentID != "" && next.Condition.Active() {
		s.agent(next.AgentID).holds++
	}
}

// forgetAgents drops agents that have nothing of ours and were not heard of for long, so that they do not count for ever.
func (s *Scheduler) forgetAgents(now time.Time) {
	maps.DeleteFunc(s.agents, func(_ string, a *agentView) bool {
		old := a.holds == 0 && now.Sub(a.seen) > agentMemory && now.Sub(a.lost) > agentMemory
		if old && a.unreachable {
			s.lost--
		}
		return old
	})
}
