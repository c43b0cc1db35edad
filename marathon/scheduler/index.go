package scheduler

import (
	"slices"

	"starling/marathon/app"
)

// index is the number under which an instance is launched: the one that it has, else the lowest that none of the app has.
// It is found at the launch and not before, so that what takes the place of an instance gets its number where that has ended.
// One that waits for its next launch keeps its number; so does one that is being killed or can't be reached, since its task may
// still do what the number stands for.
func (sp *spec) index(i *Instance, def *app.App) *int {
	if !def.Indexed() {
		return nil
	}
	if i.Index != nil {
		return i.Index
	}
	n := sp.numbers.lowest()
	return &n
}

// numbers are those that the instances of an app have.
type numbers struct {
	held map[int]int // how many have it, which is one
	low  int         // all below are held
}

// lowest is the lowest number that is free.
func (n *numbers) lowest() int {
	for n.held[n.low] > 0 {
		n.low++
	}
	return n.low
}

// count keeps them as an instance changes.
func (n *numbers) count(old, next *Instance) {
	if next != nil && next.Index != nil {
		if n.held == nil {
			n.held = make(map[int]int)
		}
		n.held[*next.Index]++
	}
	if old == nil || old.Index == nil {
		return
	}
	if n.held[*old.Index]--; n.held[*old.Index] <= 0 {
		delete(n.held, *old.Index)
		n.low = min(n.low, *old.Index)
	}
}

// lingers tells whether an instance that can't be reached is kept though it is given up: its task may live on, and what came in
// its place would share its number with it or, of a daemon app, its node. It ends when its agent is back, or is known to be gone.
func (s *Scheduler) lingers(i *Instance) bool {
	def := s.spec(i.ID.App).def
	return i.Condition.unreachable() && def != nil && (def.Daemon() || i.Index != nil && def.Indexed())
}

// letGo forgets what was given up and kept for a definition that is no more.
func (s *Scheduler) letGo(sp *spec) {
	for _, i := range slices.Clone(sp.instances) {
		if i.Goal == GoalDecommissioned && i.Condition.unreachable() && !s.lingers(i) {
			s.forget(i)
		}
	}
}
