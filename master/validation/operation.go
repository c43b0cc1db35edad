package validation

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// OperationContext is what the master knows where an operation on reservations and volumes is carried out.
type OperationContext struct {
	// Framework asks; nil for an operator, whose resources are not allocated.
	Framework *mesos.FrameworkInfo
	// Principal is that of the asker, empty for none.
	Principal string
	// Pool is what may be changed: what is left of the offers, allocated, or what is free on the agent.
	Pool resources.Resources
	// Volumes are the persistent volumes on the agent, whoever has them, and Used what tasks use; not allocated.
	Volumes, Used resources.Resources
}

// Change is what an operation does to the pool: Takes goes, Gives comes.
type Change struct {
	Takes, Gives resources.Resources
}

// Operation checks a RESERVE, UNRESERVE, CREATE or DESTROY, whose resources the master has allocated as those of the offer
// are, and returns what it does. LAUNCH and LAUNCH_GROUP are for Task and Group; others are not supported.
func Operation(op *mesos.Offer_Operation, ctx OperationContext) (Change, error) {
	kind := op.GetType()
	if op.Id != nil {
		if err := ID(op.GetId().GetValue()); err != nil {
			return Change{}, err
		}
	}
	var change Change
	var err error
	switch kind {
	case mesos.Offer_Operation_RESERVE:
		if op.Reserve == nil {
			return Change{}, missing("reserve")
		}
		change, err = reserve(op.Reserve, ctx)
	case mesos.Offer_Operation_UNRESERVE:
		if op.Unreserve == nil {
			return Change{}, missing("unreserve")
		}
		change, err = unreserve(op.Unreserve)
	case mesos.Offer_Operation_CREATE:
		if op.Create == nil {
			return Change{}, missing("create")
		}
		change, err = create(op.Create, ctx)
	case mesos.Offer_Operation_DESTROY:
		if op.Destroy == nil {
			return Change{}, missing("destroy")
		}
		change, err = destroy(op.Destroy, ctx)
	default:
		return Change{}, fmt.Errorf("Operation %s is not supported", kind)
	}
	if err != nil {
		return Change{}, err
	}
	if !ctx.Pool.Contains(change.Takes) {
		return Change{}, fmt.Errorf("Invalid %s Operation: %s does not contain %s", kind, ctx.Pool, change.Takes)
	}
	return change, nil
}

func reserve(op *mesos.Offer_Operation_Reserve, ctx OperationContext) (Change, error) {
	none := Change{}
	if ctx.Framework != nil && len(op.GetSource()) > 0 {
		return none, errors.New("'source' field must not be set for scheduler API")
	}
	gives, list, err := operands(op.GetResources())
	if err != nil {
		return none, err
	}
	for _, r := range list {
		if !dynamic(r) {
			return none, fmt.Errorf("Resource %s is not dynamically reserved", text(r))
		}
		if r.GetDisk().GetPersistence() != nil {
			return none, fmt.Errorf("A persistent volume %s must already be reserved", text(r))
		}
		last := r.Reservations[len(r.Reservations)-1]
		if ctx.Principal != "" {
			if last.Principal == nil {
				return none, fmt.Errorf("A reserve operation was attempted by principal '%s', but there is a reserved resource in the request with no principal set", ctx.Principal)
			}
			if last.GetPrincipal() != ctx.Principal {
				return none, fmt.Errorf("A reserve operation was attempted by authenticated principal '%s', which does not match a reserved resource in the request with principal '%s'", ctx.Principal, last.GetPrincipal())
			}
		}
		if err := reservable(r, last.GetRole(), ctx.Framework); err != nil {
			return none, err
		}
	}
	if ctx.Framework != nil {
		if err := singleRole(gives); err != nil {
			return none, fmt.Errorf("Invalid reservation resources: %w", err)
		}
	}
	takes, err := convert(list, popReservation)
	return Change{Takes: takes, Gives: gives}, err
}

// reservable checks who may reserve for a role: a framework, what it was offered for one of its roles; an operator, what
// nobody was.
func reservable(r *mesos.Resource, role string, f *mesos.FrameworkInfo) error {
	allocated := r.GetAllocationInfo().GetRole()
	if f == nil {
		if r.AllocationInfo != nil {
			return errors.New("A reserve operation was attempted with an allocated resource, but the operator API only allows reservations to be made to unallocated resources")
		}
		return nil
	}
	own := Roles(f)
	switch {
	case allocated == "":
		return fmt.Errorf("A reserve operation was attempted on unallocated resource %s, but frameworks can only perform reservations on allocated resources", text(r))
	case allocated != role:
		return fmt.Errorf("A reserve operation was attempted for a resource with role '%s', but the resource was allocated to role '%s'", role, allocated)
	case !slices.Contains(own, allocated):
		return fmt.Errorf("A reserve operation was attempted for a resource allocated to role '%s', but the framework only has roles '%s'", allocated, set(own))
	}
	return nil
}

func unreserve(op *mesos.Offer_Operation_Unreserve) (Change, error) {
	takes, list, err := operands(op.GetResources())
	if err != nil {
		return Change{}, err
	}
	for _, r := range list {
		if !dynamic(r) {
			return Change{}, fmt.Errorf("Resource %s is not dynamically reserved", text(r))
		}
		if r.GetDisk().GetPersistence() != nil {
			return Change{}, fmt.Errorf("A dynamically reserved persistent volume %s cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource", text(r))
		}
	}
	gives, err := convert(list, popReservation)
	return Change{Takes: takes, Gives: gives}, err
}

func create(op *mesos.Offer_Operation_Create, ctx OperationContext) (Change, error) {
	none := Change{}
	gives, list, err := operands(op.GetVolumes())
	if err != nil {
		return none, err
	}
	if err := volumes(list); err != nil {
		return none, err
	}
	if err := uniquePersistence(ctx.Volumes.Unallocated(), gives.Unallocated()); err != nil {
		return none, err
	}
	for _, r := range list {
		if f := ctx.Framework; f != nil && r.Shared != nil && !Has(f, mesos.FrameworkInfo_Capability_SHARED_RESOURCES) {
			return none, fmt.Errorf("Create volume operation for '%s' has been attempted by framework '%s' with no SHARED_RESOURCES capability", text(r), f.GetId().GetValue())
		}
		p := r.GetDisk().GetPersistence()
		switch {
		case ctx.Principal == "" || p.Principal != nil && p.GetPrincipal() == ctx.Principal:
		case p.Principal == nil:
			return none, fmt.Errorf("Create volume operation attempted by principal '%s', but there is a volume in the operation with no principal set in 'disk.persistence'", ctx.Principal)
		default:
			return none, fmt.Errorf("Create volume operation attempted by authenticated principal '%s', which does not match a volume in the operation with principal '%s' set in 'disk.persistence'", ctx.Principal, p.GetPrincipal())
		}
	}
	if ctx.Framework != nil {
		if err := singleRole(gives); err != nil {
			return none, fmt.Errorf("Invalid volume resources: %w", err)
		}
	}
	takes, err := convert(list, dropVolume)
	return Change{Takes: takes, Gives: gives}, err
}

func destroy(op *mesos.Offer_Operation_Destroy, ctx OperationContext) (Change, error) {
	takes, list, err := operands(op.GetVolumes())
	if err != nil {
		return Change{}, err
	}
	if err := volumes(list); err != nil {
		return Change{}, err
	}
	if !ctx.Volumes.Unallocated().Contains(takes.Unallocated()) {
		return Change{}, errors.New("Persistent volumes not found")
	}
	used := ctx.Used.Unallocated()
	for _, r := range list {
		one, err := parse([]*mesos.Resource{r})
		if err != nil {
			return Change{}, err
		}
		if used.Contains(one.Unallocated()) {
			return Change{}, errors.New("Persistent volumes in use")
		}
	}
	gives, err := convert(list, dropVolume)
	return Change{Takes: takes, Gives: gives}, err
}

// operands reads the resources of an operation, all together and one by one in the refined format.
func operands(rs []*mesos.Resource) (resources.Resources, []*mesos.Resource, error) {
	all, err := parse(rs)
	if err != nil {
		return all, nil, err
	}
	list := all.Proto()
	for _, r := range list[:min(len(list), 1)] {
		for _, other := range list {
			if r.GetProviderId().GetValue() != other.GetProviderId().GetValue() {
				return all, nil, errors.New("Invalid resources: The resources have multiple resource providers")
			}
		}
	}
	return all, list, nil
}

// volumes checks that all are persistent volumes that can be written to.
func volumes(list []*mesos.Resource) error {
	for _, r := range list {
		switch d := r.GetDisk(); {
		case d == nil:
			return fmt.Errorf("Not a persistent volume: Resource %s does not have DiskInfo", text(r))
		case d.Persistence == nil:
			return errors.New("Not a persistent volume: 'persistence' is not set in DiskInfo")
		case d.GetVolume().GetMode() == mesos.Volume_RO:
			return errors.New("Not a persistent volume: Read-only persistent volume not supported")
		}
	}
	return nil
}

func dynamic(r *mesos.Resource) bool {
	n := len(r.GetReservations())
	return n > 0 && r.Reservations[n-1].GetType() == mesos.Resource_ReservationInfo_DYNAMIC
}

// convert changes copies of resources and reads the result.
func convert(list []*mesos.Resource, change func(*mesos.Resource)) (resources.Resources, error) {
	out := make([]*mesos.Resource, len(list))
	for i, r := range list {
		out[i] = proto.CloneOf(r)
		change(out[i])
	}
	return parse(out)
}

func popReservation(r *mesos.Resource) { r.Reservations = r.Reservations[:len(r.Reservations)-1] }

// dropVolume makes a volume the plain disk that it is on.
func dropVolume(r *mesos.Resource) {
	r.Shared = nil
	if r.Disk.Source == nil {
		r.Disk = nil
		return
	}
	r.Disk.Persistence, r.Disk.Volume = nil, nil
}

// text writes one resource.
func text(r *mesos.Resource) string {
	one, err := resources.FromProto([]*mesos.Resource{r})
	if err != nil {
		return r.GetName()
	}
	return one.String()
}
