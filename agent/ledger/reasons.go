package ledger

import (
	"fmt"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// reasons explains, one sentence a name, why need is not in free.
func reasons(need, free, total resources.Resources) []string {
	var out []string
	for _, name := range need.Names() {
		named := func(r *mesos.Resource) bool { return r.GetName() == name }
		wanted, left, all := need.Filter(named), free.Filter(named), total.Filter(named)
		switch {
		case left.Contains(wanted):
			continue
		case all.Empty():
			out = append(out, fmt.Sprintf("this agent has no %s", name))
		case !all.Contains(wanted):
			out = append(out, fmt.Sprintf("%s is more than this agent has of it in all: %s", wanted, all))
		case left.Empty():
			out = append(out, fmt.Sprintf("no %s is free", name))
		default:
			out = append(out, fmt.Sprintf("of %s only %s is free", wanted, left))
		}
	}
	if len(out) == 0 {
		// Each name fits by itself: the amounts fit, and the reservations or disks do not.
		out = append(out, "the reservations do not match")
	}
	return out
}
