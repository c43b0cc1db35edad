package validation

import (
	"errors"
	"fmt"
	"slices"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// parse reads resources of a task, an executor or an operation.
func parse(rs []*mesos.Resource) (resources.Resources, error) {
	out, err := resources.FromProto(rs)
	if err != nil {
		return out, fmt.Errorf("Invalid resources: %w", err)
	}
	return out, nil
}

// uniquePersistence checks that no two volumes of a role have one id.
func uniquePersistence(rs ...resources.Resources) error {
	type key struct{ role, id string }
	seen := make(map[key]bool)
	for _, one := range rs {
		for _, r := range one.Proto() {
			p := r.GetDisk().GetPersistence()
			if p == nil {
				continue
			}
			k := key{role(r), p.GetId()}
			if seen[k] {
				return fmt.Errorf("Persistence ID '%s' is not unique", k.id)
			}
			seen[k] = true
		}
	}
	return nil
}

// role is for whom a resource in the refined format is reserved at last, empty for nobody.
func role(r *mesos.Resource) string {
	if n := len(r.GetReservations()); n > 0 {
		return r.Reservations[n-1].GetRole()
	}
	return ""
}

// singleRole checks that all is allocated to one role.
func singleRole(rs resources.Resources) error {
	all := rs.Allocations()
	switch {
	case len(all) > 0 && all[0] == "":
		return errors.New("The resources are not allocated to a role")
	case len(all) > 1:
		return fmt.Errorf("The resources have multiple allocation roles ('%s' and '%s') but only one allocation role is allowed", all[1], all[0])
	}
	return nil
}

// unmixed checks that nothing is both revocable and not.
func unmixed(rs resources.Resources) error {
	lasting := rs.NonRevocable().Names()
	for _, name := range rs.Revocable().Names() {
		if slices.Contains(lasting, name) {
			return fmt.Errorf("Cannot use both revocable and non-revocable '%s' at the same time", name)
		}
	}
	return nil
}

// overlap tells whether two of them claim the same ports or the same element of a set.
func overlap(rs ...resources.Resources) bool {
	var all resources.Resources
	for _, one := range rs {
		one = one.Filter(func(r *mesos.Resource) bool { return r.GetType() != mesos.Value_SCALAR })
		if !all.Sub(one).Equal(all) {
			return true
		}
		all = all.Add(one)
	}
	return false
}

// sum adds.
func sum(rs ...resources.Resources) resources.Resources {
	var all resources.Resources
	for _, one := range rs {
		all = all.Add(one)
	}
	return all
}
