// Package resources is the arithmetic of resources: what an agent has, what an offer holds, what a task uses. It is the
// only one in the project, and pure.
//
// A [Resources] is a multiset in normal form. Scalars are whole thousandths (Mesos compares and sums them in fixed
// point with three decimals, so that many small tasks never leave a crumb that is not there); ranges and sets are sets.
// What has the same identity is one entry: the name, the kind of value, the stack of reservations, the role to which it
// is allocated, the disk, the provider, and whether it is revocable or shared. Persistent volumes, MOUNT and BLOCK disks,
// RAW disks with an id and shared resources cannot be split or merged; they are counted instead.
//
// Both formats of reservations are read (the old one in role and reservation, the refined one in reservations), either is
// written on demand; see the specification's mesos-messages.md, section 5. Values are checked where they come in, in
// [FromProto] and [Parse]; arithmetic on what came in never fails.
package resources

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"starling/master/mesos"
)

// Names with a fixed meaning and kind.
const (
	CPUs  = "cpus"
	Mem   = "mem"  // in MiB
	Disk  = "disk" // in MiB
	GPUs  = "gpus"
	Ports = "ports"
)

// AnyRole is the role of what is reserved for nobody.
const AnyRole = "*"

// Resources is a set of resources. It is a value: methods never change their receiver, and copies are independent. The
// zero value is empty.
type Resources struct {
	items []item // sorted by identity, none of them empty
}

// item is all that has the same identity.
type item struct {
	base  string          // identity without the allocation; starts with the name
	alloc string          // role that it is allocated to, "" for none
	meta  *mesos.Resource // all fields but the value and the allocation; shared, never changed
	value
	// atomic items cannot be split; copies counts equal ones. Their value is part of base.
	atomic bool
	copies int
}

func compareItems(a, b item) int {
	if c := strings.Compare(a.base, b.base); c != 0 {
		return c
	}
	return strings.Compare(a.alloc, b.alloc)
}

func (i item) empty() bool {
	if i.atomic {
		return i.copies <= 0 || i.value.empty()
	}
	return i.value.empty()
}

func (i item) plus(o item) item {
	if i.atomic {
		i.copies += o.copies
	} else {
		i.value = i.value.plus(o.value)
	}
	return i
}

func (i item) minus(o item) item {
	if i.atomic {
		i.copies -= o.copies
	} else {
		i.value = i.value.minus(o.value)
	}
	return i
}

func (i item) contains(o item) bool {
	if i.atomic {
		return i.copies >= o.copies
	}
	return i.value.contains(o.value)
}

// normal sorts and merges items, which it takes over.
func normal(items []item) Resources {
	slices.SortStableFunc(items, compareItems)
	out := items[:0]
	for _, it := range items {
		switch n := len(out); {
		case it.empty():
		case n > 0 && compareItems(out[n-1], it) == 0:
			out[n-1] = out[n-1].plus(it)
		default:
			out = append(out, it)
		}
	}
	return Resources{items: slices.Clip(out)}
}

// Empty tells whether nothing is in r.
func (r Resources) Empty() bool { return len(r.items) == 0 }

// Add gives r and o together.
func (r Resources) Add(o Resources) Resources {
	switch {
	case o.Empty():
		return r
	case r.Empty():
		return o
	}
	out := make([]item, 0, len(r.items)+len(o.items))
	a, b := r.items, o.items
	for len(a) > 0 && len(b) > 0 {
		switch c := compareItems(a[0], b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0].plus(b[0])), a[1:], b[1:]
		}
	}
	out = append(append(out, a...), b...)
	return Resources{items: out}
}

// Sub gives what is left of r without o. What r does not contain is not subtracted: ask [Resources.Contains] first.
func (r Resources) Sub(o Resources) Resources {
	if r.Empty() || o.Empty() {
		return r
	}
	out := make([]item, 0, len(r.items))
	b := o.items
	for _, it := range r.items {
		for len(b) > 0 && compareItems(b[0], it) < 0 {
			b = b[1:]
		}
		if len(b) > 0 && compareItems(b[0], it) == 0 {
			it = it.minus(b[0])
		}
		if !it.empty() {
			out = append(out, it)
		}
	}
	return Resources{items: out}
}

// Contains tells whether all of o is in r.
func (r Resources) Contains(o Resources) bool {
	a := r.items
	for _, it := range o.items {
		for len(a) > 0 && compareItems(a[0], it) < 0 {
			a = a[1:]
		}
		if len(a) == 0 || compareItems(a[0], it) != 0 || !a[0].contains(it) {
			return false
		}
	}
	return true
}

// Equal tells whether r and o hold the same.
func (r Resources) Equal(o Resources) bool {
	return slices.EqualFunc(r.items, o.items, func(a, b item) bool {
		return compareItems(a, b) == 0 && a.copies == b.copies && a.value.equal(b.value)
	})
}

// Scalar sums all scalars of a name, whoever they are reserved for or allocated to.
func (r Resources) Scalar(name string) Milli {
	var sum Milli
	for _, it := range r.items {
		if it.meta.GetName() == name {
			sum = sum.plus(it.amount())
		}
	}
	return sum
}

// Scalars gives each name of a scalar with its sum, in order of names.
func (r Resources) Scalars() iter.Seq2[string, Milli] {
	return func(yield func(string, Milli) bool) {
		for i := 0; i < len(r.items); {
			name, kind := r.items[i].meta.GetName(), r.items[i].kind
			var sum Milli
			for ; i < len(r.items) && r.items[i].meta.GetName() == name && r.items[i].kind == kind; i++ {
				sum = sum.plus(r.items[i].amount())
			}
			if kind == mesos.Value_SCALAR && !yield(name, sum) {
				return
			}
		}
	}
}

// Ports gives the port ranges, sorted and merged.
func (r Resources) Ports() []Range { return r.Ranges(Ports) }

// Ranges gives all ranges of a name, sorted and merged. The slice is the caller's.
func (r Resources) Ranges(name string) []Range {
	var all []Range
	for _, it := range r.items {
		if it.meta.GetName() == name {
			all = append(all, it.ranges...)
		}
	}
	return normalRanges(all)
}

// Set gives all elements of the sets of a name, sorted, each once. The slice is the caller's.
func (r Resources) Set(name string) []string {
	var all []string
	for _, it := range r.items {
		if it.meta.GetName() == name {
			all = append(all, it.set...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Names gives the names of what is in r, sorted, each once.
func (r Resources) Names() []string {
	var names []string
	for _, it := range r.items {
		names = append(names, it.meta.GetName())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Filter gives the part of r for which keep says yes. The message that keep sees is in the refined format and is its own
// to change or keep.
func (r Resources) Filter(keep func(*mesos.Resource) bool) Resources {
	return r.where(func(it item) bool { return keep(it.proto()) })
}

func (r Resources) where(keep func(item) bool) Resources {
	var out []item
	for i, it := range r.items {
		switch ok := keep(it); {
		case ok && out != nil:
			out = append(out, it)
		case !ok && out == nil:
			out = append(make([]item, 0, len(r.items)), r.items[:i]...)
		}
	}
	if out == nil {
		return r
	}
	return Resources{items: out}
}

// role is for whom an item is reserved at last, "" for nobody.
func (i item) role() string {
	if n := len(i.meta.GetReservations()); n > 0 {
		return i.meta.Reservations[n-1].GetRole()
	}
	return ""
}

// Unreserved gives what is reserved for nobody.
func (r Resources) Unreserved() Resources {
	return r.where(func(it item) bool { return it.role() == "" })
}

// ReservedRoles lists the roles that something is reserved for, in order.
func (r Resources) ReservedRoles() []string {
	var roles []string
	for _, i := range r.items {
		if role := i.role(); role != "" {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

// ReservedFor gives what is reserved for just that role.
func (r Resources) ReservedFor(role string) Resources {
	return r.where(func(it item) bool { return it.role() == role && role != "" })
}

// AvailableTo gives what may be offered to a role: what is reserved for nobody, for the role, or for a role above it
// ("eng" is above "eng/web").
func (r Resources) AvailableTo(role string) Resources {
	return r.where(func(it item) bool {
		owner := it.role()
		return owner == "" || owner == role || IsSubRole(role, owner)
	})
}

// Revocable gives what may be taken back at any time.
func (r Resources) Revocable() Resources {
	return r.where(func(it item) bool { return it.meta.Revocable != nil })
}

// NonRevocable gives the rest of [Resources.Revocable].
func (r Resources) NonRevocable() Resources {
	return r.where(func(it item) bool { return it.meta.Revocable == nil })
}

// AllocatedTo gives all of r as allocated to a role, whatever it was allocated to before.
func (r Resources) AllocatedTo(role string) Resources {
	same := true
	for _, it := range r.items {
		same = same && it.alloc == role
	}
	if same {
		return r
	}
	out := slices.Clone(r.items)
	for i := range out {
		out[i].alloc = role
	}
	return normal(out)
}

// Unallocated gives all of r as allocated to nobody.
func (r Resources) Unallocated() Resources { return r.AllocatedTo("") }

// Allocations gives the roles that parts of r are allocated to, sorted; "" stands for parts that are not.
func (r Resources) Allocations() []string {
	var roles []string
	for _, it := range r.items {
		roles = append(roles, it.alloc)
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

// Sum adds many.
func Sum(all iter.Seq[Resources]) Resources {
	var items []item
	for r := range all {
		items = append(items, r.items...)
	}
	return normal(items)
}

// Compare orders resources in no meaningful but a stable way, for deterministic iteration.
func Compare(a, b Resources) int {
	return slices.CompareFunc(a.items, b.items, func(x, y item) int {
		return cmp.Or(compareItems(x, y), cmp.Compare(x.copies, y.copies), x.value.compare(y.value))
	})
}
