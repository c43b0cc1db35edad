package task

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"starling/marathon/app"
	"starling/marathon/constraint"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Offer is what Match looks at of an offer.
type Offer struct {
	// Resources are what is left of the offer after other tasks that are launched on it.
	Resources resources.Resources
	Place     constraint.Place
	// Maintenance tells that the agent is, or will soon be, under maintenance; see UnderMaintenance.
	Maintenance bool
}

// Demand is an instance that waits for an offer.
type Demand struct {
	App *app.App
	// Rules are the app's compiled constraints; nil is none.
	Rules *constraint.Rules
	// Counted are the places of the instances that constraints count, those matched a moment ago included.
	Counted []constraint.Place
	// Beyond are refusals that were found elsewhere: they come behind those of the constraints.
	Beyond []Refusal
}

// Match picks what the instance needs from the offer. If something is in the way it returns every refusal instead, in the
// order of Funnel, and an empty pick. rng chooses host ports. An instance of a resident app is not launched like that: see
// Reserve and Return.
func Match(o Offer, d Demand, s Settings, rng *rand.Rand) (Pick, []Refusal) {
	roles := acceptedRoles(d.App, s)
	m := matching{offer: o, demand: d, settings: s, role: d.App.Role, of: roles, pool: newPool(o.Resources, d.App.Role, roles)}
	if d.App.Resident() {
		m.missing = "the app has persistent volumes, and the offer holds no reservation for it"
	}
	return m.pick(rng)
}

// matching is the comparison of an offer with what an instance needs.
type matching struct {
	offer    Offer
	demand   Demand
	settings Settings
	role     string   // that the offer has to be made to
	of       []string // the roles whose resources are in the pool
	pool     *pool
	// missing says which reservation the offer ought to hold and does not.
	missing string
	// volumes, if not nil, cuts disks for volumes out of the pool.
	volumes func(*pool) []Refusal
	// follows is set for an instance that has no choice, since its volumes are there.
	follows bool
}

func (m *matching) pick(rng *rand.Rand) (Pick, []Refusal) {
	o, d := m.offer, m.demand
	var refusals []Refusal
	refuse := func(reason Reason, format string, args ...any) {
		refusals = append(refusals, Refusal{Reason: reason, Why: fmt.Sprintf(format, args...)})
	}
	switch allocated := o.Resources.Allocations(); {
	case len(allocated) > 0 && !slices.Contains(allocated, m.role) && !slices.Contains(allocated, ""):
		refuse(UnfulfilledRole, "the offer is to role %s, and the app runs under %s", strings.Join(allocated, " and "), m.role)
	case len(m.pool.entries) == 0 && !o.Resources.Empty():
		refuse(UnfulfilledRole, "nothing in the offer is for %s", roleNames(m.of))
	}
	if why := constraint.CheckRegion(d.App.Constraints, o.Place, m.settings.HomeRegion); why != "" {
		refuse(UnfulfilledConstraint, "%s", why)
	}
	for _, miss := range d.Rules.Check(o.Place, d.Counted, d.App.Instances) {
		refuse(UnfulfilledConstraint, "%s", miss)
	}
	refusals = append(refusals, d.Beyond...)
	if m.missing != "" {
		refuse(NoCorrespondingReservationFound, "%s", m.missing)
	}
	if o.Maintenance {
		refuse(AgentMaintenance, "the agent has a maintenance window")
	}
	pick, short := m.pool.pick(d.App, rng)
	if m.volumes != nil {
		short = append(short, m.volumes(m.pool)...)
		slices.SortStableFunc(short, func(a, b Refusal) int { return a.Reason.place() - b.Reason.place() })
	}
	for i := range short {
		short[i].Why += " for " + roleNames(m.of)
	}
	refusals = append(refusals, short...)
	if d.App.GPUs == 0 && !m.follows && !gpusUnrestricted(d.App, m.settings) && o.Resources.Scalar(resources.GPUs) > 0 {
		refuse(DeclinedScarceResources, "the agent has GPUs, and the app uses none")
	}
	if len(refusals) > 0 {
		return Pick{}, refusals
	}
	return pick, nil
}

// acceptedRoles lists the roles whose resources the app takes, the preferred first: what is reserved is used before what
// others could use as well.
func acceptedRoles(a *app.App, s Settings) []string {
	accepted := a.AcceptedResourceRoles
	if len(accepted) == 0 {
		switch s.AcceptedRoles {
		case Unreserved:
			accepted = []string{resources.AnyRole}
		case Reserved:
			accepted = []string{a.Role}
		default:
			accepted = []string{a.Role, resources.AnyRole}
		}
	}
	var roles []string
	for _, role := range accepted {
		if role != resources.AnyRole && !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
	}
	if slices.Contains(accepted, resources.AnyRole) {
		roles = append(roles, resources.AnyRole)
	}
	return roles
}

func roleNames(roles []string) string {
	if len(roles) == 1 {
		return "role " + roles[0]
	}
	return "roles " + strings.Join(roles, " and ")
}

func gpusUnrestricted(a *app.App, s Settings) bool {
	switch a.Labels["GPU_SCHEDULING_BEHAVIOR"] {
	case "unrestricted":
		return true
	case "restricted":
		return false
	}
	return s.GPUsUnrestricted
}

// UnderMaintenance tells whether a window of maintenance is open at now, or will open within draining. A window without
// duration never closes; nil is no window.
func UnderMaintenance(u *mesos.Unavailability, now time.Time, draining time.Duration) bool {
	if u == nil {
		return false
	}
	start := time.Unix(0, u.GetStart().GetNanoseconds())
	if now.Before(start.Add(-draining)) {
		return false
	}
	return u.Duration == nil || now.Before(start.Add(time.Duration(u.GetDuration().GetNanoseconds())))
}
