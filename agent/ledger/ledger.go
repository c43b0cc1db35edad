// Package ledger keeps an agent's own books: what the node has, who holds what of it, and what is free.
//
// The agent has the last word on a launch, and this is where it looks: a master works on copies that may be late. All
// amounts are resources of package resources, so that reservations count: what is reserved to a role is held by tasks of
// that role only. What a holder takes carries the role that it was allocated to; the books compare without that mark.
//
// The package is pure and not safe for concurrent use: the agent's loop owns its ledger.
package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Holder is who holds resources: a task, an executor with an empty Task, or an operation that is being carried out.
type Holder struct {
	Framework, Executor, Task string
	// Operation is the uuid of an operation; the rest is empty then.
	Operation string
}

// String names the holder for people.
func (h Holder) String() string {
	if h.Operation != "" {
		return fmt.Sprintf("operation %s", h.Operation)
	}
	if h.Task != "" {
		return fmt.Sprintf("task %q of framework %q", h.Task, h.Framework)
	}
	return fmt.Sprintf("executor %q of framework %q", h.Executor, h.Framework)
}

// Lack is the error of a request that does not fit. Its text names every kind of resource that is short.
type Lack struct {
	Need, Free resources.Resources
	// Reasons has one sentence for each name that is short.
	Reasons []string
}

// Error lists all reasons.
func (l *Lack) Error() string {
	return fmt.Sprintf("needs %s but only %s is free: %s", l.Need, l.Free, strings.Join(l.Reasons, "; "))
}

// Ledger holds the books. Use New.
type Ledger struct {
	total resources.Resources
	// held is what was taken, allocation marks included; used is the sum of all of it without them.
	held map[Holder]resources.Resources
	used resources.Resources
	// overlap is set once something was adopted that did not fit: two holders may then hold the same port, which a
	// subtraction would free for both.
	overlap bool
}

// New returns books of a node that has total, all of it free.
func New(total resources.Resources) *Ledger {
	return &Ledger{total: total.Unallocated(), held: map[Holder]resources.Resources{}}
}

// Total returns what the node has.
func (l *Ledger) Total() resources.Resources { return l.total }

// SetTotal replaces what the node has. What is held stays held: where that is more than the new total, nothing of it is
// free until enough of it was released.
func (l *Ledger) SetTotal(total resources.Resources) { l.total = total.Unallocated() }

// Convert replaces takes, which must be free, by gives in what the node has: an operation was carried out.
func (l *Ledger) Convert(takes, gives resources.Resources) {
	l.total = l.total.Sub(takes.Unallocated()).Add(gives.Unallocated())
}

// Used returns the sum of what all holders hold, without allocation marks.
func (l *Ledger) Used() resources.Resources { return l.used }

// Free returns what nobody holds. Where more is held than there is, which only an adopted task or a smaller total can
// bring about, free is zero and never negative; and what is held in one role beyond what that has is not free in another
// either: a task that kept its processors while these were reserved to somebody is not offered twice.
func (l *Ledger) Free() resources.Resources {
	free := l.total.Sub(l.used)
	if over := l.Over(); !over.Empty() {
		return without(free, over)
	}
	return free
}

// Over returns what is held beyond what there is: tasks were found running that do not fit any more.
func (l *Ledger) Over() resources.Resources {
	if !l.overlap {
		return resources.Resources{}
	}
	return l.used.Sub(l.total)
}

// without takes away from free what over has of the same names, whomever either is reserved for.
func without(free, over resources.Resources) resources.Resources {
	short := map[string]float64{}
	for name, amount := range over.Scalars() {
		short[name] = amount.Float()
	}
	var kept []*mesos.Resource
	for _, r := range free.Proto() {
		name := r.GetName()
		switch {
		case r.Scalar != nil && r.Disk == nil && short[name] > 0: // a disk of its own is there or not
			less := min(short[name], r.GetScalar().GetValue())
			short[name] -= less
			if less == r.GetScalar().GetValue() {
				continue
			}
			r.Scalar = &mesos.Value_Scalar{Value: proto.Float64(r.GetScalar().GetValue() - less)}
		case r.Ranges != nil:
			for _, gone := range over.Ranges(name) {
				r.Ranges = cut(r.Ranges, gone)
			}
		case r.Set != nil:
			r.Set = &mesos.Value_Set{Item: slices.DeleteFunc(r.GetSet().GetItem(), func(item string) bool {
				return slices.Contains(over.Set(name), item)
			})}
		}
		kept = append(kept, r)
	}
	out, err := resources.FromProto(kept)
	if err != nil { // cannot be: less of what was valid
		return resources.Resources{}
	}
	return out
}

// cut takes a range out of others.
func cut(ranges *mesos.Value_Ranges, gone resources.Range) *mesos.Value_Ranges {
	out := &mesos.Value_Ranges{}
	keep := func(begin, end uint64) {
		out.Range = append(out.Range, &mesos.Value_Range{Begin: &begin, End: &end})
	}
	for _, r := range ranges.GetRange() {
		begin, end := r.GetBegin(), r.GetEnd()
		if gone.End < begin || gone.Begin > end {
			keep(begin, end)
			continue
		}
		if begin < gone.Begin {
			keep(begin, gone.Begin-1)
		}
		if end > gone.End {
			keep(gone.End+1, end)
		}
	}
	return out
}

// Reserved returns the part of the total that is reserved to any role.
func (l *Ledger) Reserved() resources.Resources { return l.total.Sub(l.total.Unreserved()) }

// Held returns what a holder holds, with its allocation marks; ok is false for one that holds nothing.
func (l *Ledger) Held(h Holder) (held resources.Resources, ok bool) {
	held, ok = l.held[h]
	return held, ok
}

// Holders returns all who hold something, in order.
func (l *Ledger) Holders() []Holder {
	return slices.SortedFunc(maps.Keys(l.held), func(a, b Holder) int {
		return cmp.Or(strings.Compare(a.Framework+"\x00"+a.Executor+"\x00"+a.Task, b.Framework+"\x00"+b.Executor+"\x00"+b.Task),
			strings.Compare(a.Operation, b.Operation))
	})
}

// UsedBy returns what the tasks and executors of a framework hold, with allocation marks.
func (l *Ledger) UsedBy(framework string) resources.Resources {
	var sum resources.Resources
	for h, held := range l.held {
		if h.Framework == framework {
			sum = sum.Add(held)
		}
	}
	return sum
}

// Fits returns nil when need is free, and otherwise a *Lack with all the reasons.
func (l *Ledger) Fits(need resources.Resources) error {
	need, free := need.Unallocated(), l.Free()
	if free.Contains(need) {
		return nil
	}
	return &Lack{Need: need, Free: free, Reasons: reasons(need, free, l.total)}
}

// Take enters that a holder holds need, if it fits; a holder that holds something already is an error.
func (l *Ledger) Take(h Holder, need resources.Resources) error {
	if _, ok := l.held[h]; ok {
		return fmt.Errorf("%s already holds resources", h)
	}
	if err := l.Fits(need); err != nil {
		return err
	}
	l.held[h] = need
	l.used = l.used.Add(need.Unallocated())
	return nil
}

// Adopt enters that a holder holds what it holds, whether it fits or not: the task was found running. It replaces what
// the holder held before.
func (l *Ledger) Adopt(h Holder, held resources.Resources) {
	l.Release(h)
	l.overlap = l.overlap || l.Fits(held) != nil
	l.held[h] = held
	l.used = l.used.Add(held.Unallocated())
}

// Release frees what a holder holds and returns it; releasing twice does nothing.
func (l *Ledger) Release(h Holder) resources.Resources {
	held, ok := l.held[h]
	if !ok {
		return resources.Resources{}
	}
	delete(l.held, h)
	if !l.overlap {
		l.used = l.used.Sub(held.Unallocated())
		return held
	}
	l.used = resources.Resources{}
	for _, other := range l.held {
		l.used = l.used.Add(other.Unallocated())
	}
	return held
}
