package scheduler

import (
	"fmt"
	"time"

	"starling/marathon/app"
	"starling/marathon/task"
	"starling/master/mesos"
)

// Between tells how long the round trip between two nodes is, as an estimate. A node goes by its agent id, its host name where
// no other node has that, or its name in the mesh. Whoever hands one over does not change it any more.
type Between interface {
	// Distance returns false where one of the two is not known, or where it is.
	Distance(a, b string) (time.Duration, bool)
}

// learnDistances takes over how far nodes are from each other, and gives apps that wait for a near one another chance.
func (s *Scheduler) learnDistances(between Between) {
	s.distances = between
	for id := range s.waiting {
		if def := s.specs[id].def; def != nil && def.MaxLatency() != nil {
			s.wantAnew(id)
		}
	}
}

// NeedsDistances tells whether an app is to be near to something, so that it pays to find out where nodes are.
func (v View) NeedsDistances() bool {
	for _, sp := range v.s.specs {
		if sp.def != nil && sp.def.MaxLatency() != nil {
			return true
		}
	}
	return false
}

// tooFar returns why an offer is too far from what the app is to be near to. What is not known is too far: the app asked for a
// bound, not for luck.
func (s *Scheduler) tooFar(def *app.App, offer *mesos.Offer) []task.Refusal {
	near := def.MaxLatency()
	if near == nil {
		return nil
	}
	refused := func(format string, args ...any) []task.Refusal {
		return []task.Refusal{{Reason: task.ExceededMaxLatency, Why: fmt.Sprintf(format, args...)}}
	}
	if s.distances == nil {
		return refused("how far nodes are from each other is not known: the master has not told it, which only a master of Starling does")
	}
	agent, limit := offer.GetAgentId().GetValue(), near.Duration()
	id, isApp := near.App()
	if !isApp {
		switch rtt, ok := s.distances.Distance(agent, near.To); {
		case !ok:
			return refused("how far the node is from node %s is not known", near.To)
		case rtt > limit:
			return refused("the node is %s from node %s, and at most %s is asked for", shown(rtt), near.To, shown(limit))
		}
		return nil
	}
	nearest, running, known := time.Duration(0), 0, 0
	if sp := s.specs[id]; sp != nil {
		for _, i := range sp.instances {
			if i.Condition != Running || i.Goal != GoalRunning {
				continue
			}
			running++
			if rtt, ok := s.distances.Distance(agent, i.AgentID); ok {
				if known++; known == 1 || rtt < nearest {
					nearest = rtt
				}
			}
		}
	}
	switch {
	case running == 0:
		return refused("no instance of %s runs to be near to", id)
	case known == 0:
		return refused("how far the node is from the %d running instances of %s is not known", running, id)
	case nearest > limit:
		return refused("the node is %s from the nearest of %d running instances of %s, and at most %s is asked for", shown(nearest), running, id, shown(limit))
	}
	return nil
}

// shown writes a round trip for people.
func shown(d time.Duration) string {
	return fmt.Sprintf("%.4g ms", float64(d)/float64(time.Millisecond))
}
