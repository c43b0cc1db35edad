package validation

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Framework checks a framework's description, at SUBSCRIBE and UPDATE_FRAMEWORK.
func Framework(info *mesos.FrameworkInfo) error {
	if err := roles(info); err != nil {
		return err
	}
	if id := info.GetId().GetValue(); id != "" {
		if err := ID(id); err != nil {
			return err
		}
	}
	for _, role := range slices.Sorted(maps.Keys(info.GetOfferFilters())) {
		for _, q := range info.GetOfferFilters()[role].GetMinAllocatableResources().GetQuantities() {
			if err := quantities(q.GetQuantities()); err != nil {
				return fmt.Errorf("'FrameworkInfo.offer_filters' for role '%s' are invalid: %w", role, err)
			}
		}
	}
	// It has to fit a duration in nanoseconds. Written so that a NaN fails too.
	if t := info.GetFailoverTimeout(); !(math.Abs(t)*1e9 < math.MaxInt64) {
		return fmt.Errorf("The framework failover_timeout (%v) is invalid", t)
	}
	return nil
}

// Roles returns the roles that a framework subscribes to.
func Roles(info *mesos.FrameworkInfo) []string {
	if Has(info, mesos.FrameworkInfo_Capability_MULTI_ROLE) {
		return slices.Clone(info.GetRoles())
	}
	return []string{info.GetRole()}
}

// Has tells whether a framework has a capability.
func Has(info *mesos.FrameworkInfo, want mesos.FrameworkInfo_Capability_Type) bool {
	return slices.ContainsFunc(info.GetCapabilities(), func(c *mesos.FrameworkInfo_Capability) bool {
		return c.GetType() == want
	})
}

func roles(info *mesos.FrameworkInfo) error {
	if !Has(info, mesos.FrameworkInfo_Capability_MULTI_ROLE) {
		if len(info.GetRoles()) > 0 {
			return errors.New("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable")
		}
		if err := resources.CheckRole(info.GetRole()); err != nil {
			return fmt.Errorf("'FrameworkInfo.role' is not a valid role: %w", err)
		}
		return nil
	}
	if info.Role != nil {
		return errors.New("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable")
	}
	seen := make(map[string]int)
	var twice []string
	for _, role := range info.GetRoles() {
		if seen[role]++; seen[role] == 2 {
			twice = append(twice, role)
		}
	}
	if len(twice) > 0 {
		return fmt.Errorf("'FrameworkInfo.roles' contains duplicate items: %s", set(twice))
	}
	for _, role := range info.GetRoles() {
		if err := resources.CheckRole(role); err != nil {
			return fmt.Errorf("'FrameworkInfo.roles' contains invalid role: %w", err)
		}
	}
	return nil
}

func quantities(q map[string]*mesos.Value_Scalar) error {
	for _, name := range slices.Sorted(maps.Keys(q)) {
		v := q[name].GetValue()
		if name == "" {
			return errors.New("a resource quantity has no name")
		}
		if _, err := resources.FromFloat(v); err != nil || v < 0 {
			return fmt.Errorf("the quantity %v of '%s' must not be negative", v, name)
		}
	}
	return nil
}

// Suppressed checks that a framework suppresses only roles that it subscribes to.
func Suppressed(info *mesos.FrameworkInfo, suppressed []string) error {
	own := Roles(info)
	stray := slices.DeleteFunc(slices.Clone(suppressed), func(role string) bool { return slices.Contains(own, role) })
	if len(stray) > 0 {
		return fmt.Errorf("Suppressed roles %s are not contained in the set of roles", set(stray))
	}
	return nil
}

// Update checks what may not change of a framework's description: the principal never, and with UPDATE_FRAMEWORK neither
// the user nor checkpointing. (When a framework subscribes again, those two silently stay what they were.)
func Update(old, info *mesos.FrameworkInfo) error {
	switch {
	case old.GetPrincipal() != info.GetPrincipal():
		return errors.New("Changing framework's principal is not allowed.")
	case old.GetUser() != info.GetUser():
		return fmt.Errorf("Updating 'FrameworkInfo.user' is unsupported; attempted to update from '%s' to '%s'", old.GetUser(), info.GetUser())
	case old.GetCheckpoint() != info.GetCheckpoint():
		return fmt.Errorf("Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from '%t' to '%t'", old.GetCheckpoint(), info.GetCheckpoint())
	}
	return nil
}

// set writes a set of names the way Mesos does, sorted.
func set(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	return "{ " + strings.Join(slices.Compact(names), ", ") + " }"
}
