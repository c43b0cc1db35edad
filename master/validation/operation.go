package validation

import (
	"errors"
	"fmt"
	"slices"

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

// Unavailable is the error of an operation that would be right if what it takes were there.
type Unavailable struct{ text string }

// Error says what is not there.
func (u *Unavailable) Error() string { return u.text }

// Operation checks an operation on reservations and volumes, whose resources the master has allocated as those of the offer
// are, and returns what it does. LAUNCH and LAUNCH_GROUP are for Task and Group. The error is an *Unavailable where only the
// pool is at fault.
func Operation(op *mesos.Offer_Operation, ctx OperationContext) (resources.Conversion, error) {
	none := resources.Conversion{}
	if op.Id != nil {
		if err := ID(op.GetId().GetValue()); err != nil {
			return none, err
		}
	}
	kind := op.GetType()
	check, ok := operationChecks[kind]
	if !ok {
		return none, fmt.Errorf("Operation %s is not supported", kind)
	}
	if err := check(op, ctx); err != nil {
		return none, err
	}
	change, err := resources.Convert(op)
	if err != nil {
		return none, fmt.Errorf("Invalid %s Operation: %w", kind, err)
	}
	if !ctx.Pool.Contains(change.Takes) {
		return none, &Unavailable{fmt.Sprintf("Invalid %s Operation: %s does not contain %s", kind, ctx.Pool, change.Takes)}
	}
	return change, nil
}

var operationChecks = map[mesos.Offer_Operation_Type]func(*mesos.Offer_Operation, OperationContext) error{
	mesos.Offer_Operation_RESERVE: func(op *mesos.Offer_Operation, ctx OperationContext) error {
		return reserve(op.GetReserve(), ctx)
	},
	mesos.Offer_Operation_UNRESERVE: func(op *mesos.Offer_Operation, _ OperationContext) error {
		return unreserve(op.GetUnreserve())
	},
	mesos.Offer_Operation_CREATE: func(op *mesos.Offer_Operation, ctx OperationContext) error {
		return create(op.GetCreate(), ctx)
	},
	mesos.Offer_Operation_DESTROY: func(op *mesos.Offer_Operation, ctx OperationContext) error {
		return destroy(op.GetDestroy(), ctx)
	},
	mesos.Offer_Operation_GROW_VOLUME: func(op *mesos.Offer_Operation, ctx OperationContext) error {
		if op.GrowVolume == nil {
			return missing("grow_volume")
		}
		return resize(op.GetGrowVolume().GetVolume(), ctx)
	},
	mesos.Offer_Operation_SHRINK_VOLUME: func(op *mesos.Offer_Operation, ctx OperationContext) error {
		if op.ShrinkVolume == nil {
			return missing("shrink_volume")
		}
		return resize(op.GetShrinkVolume().GetVolume(), ctx)
	},
	mesos.Offer_Operation_CREATE_DISK:  needsProvider,
	mesos.Offer_Operation_DESTROY_DISK: needsProvider,
}

// needsProvider refuses what only a resource provider could do.
func needsProvider(op *mesos.Offer_Operation, _ OperationContext) error {
	return fmt.Errorf("Operation %s needs a resource provider, and agents have none", op.GetType())
}

func reserve(op *mesos.Offer_Operation_Reserve, ctx OperationContext) error {
	if op == nil {
		return missing("reserve")
	}
	if ctx.Framework != nil && len(op.GetSource()) > 0 {
		return errors.New("'source' field must not be set for scheduler API")
	}
	gives, list, err := operands(op.GetResources())
	if err != nil {
		return err
	}
	for _, r := range list {
		if !dynamic(r) {
			return fmt.Errorf("Resource %s is not dynamically reserved", text(r))
		}
		if r.GetDisk().GetPersistence() != nil {
			return fmt.Errorf("A persistent volume %s must already be reserved", text(r))
		}
		last := r.Reservations[len(r.Reservations)-1]
		if ctx.Principal != "" {
			if last.Principal == nil {
				return fmt.Errorf("A reserve operation was attempted by principal '%s', but there is a reserved resource in the request with no principal set", ctx.Principal)
			}
			if last.GetPrincipal() != ctx.Principal {
				return fmt.Errorf("A reserve operation was attempted by authenticated principal '%s', which does not match a reserved resource in the request with principal '%s'", ctx.Principal, last.GetPrincipal())
			}
		}
		if err := reservable(r, last.GetRole(), ctx.Framework); err != nil {
			return err
		}
	}
	if ctx.Framework != nil {
		if err := singleRole(gives); err != nil {
			return fmt.Errorf("Invalid reservation resources: %w", err)
		}
	}
	return nil
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

func unreserve(op *mesos.Offer_Operation_Unreserve) error {
	if op == nil {
		return missing("unreserve")
	}
	_, list, err := operands(op.GetResources())
	if err != nil {
		return err
	}
	for _, r := range list {
		if !dynamic(r) {
			return fmt.Errorf("Resource %s is not dynamically reserved", text(r))
		}
		if r.GetDisk().GetPersistence() != nil {
			return fmt.Errorf("A dynamically reserved persistent volume %s cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource", text(r))
		}
	}
	return nil
}

func create(op *mesos.Offer_Operation_Create, ctx OperationContext) error {
	if op == nil {
		return missing("create")
	}
	gives, list, err := operands(op.GetVolumes())
	if err != nil {
		return err
	}
	if err := volumes(list); err != nil {
		return err
	}
	if err := uniquePersistence(ctx.Volumes.Unallocated(), gives.Unallocated()); err != nil {
		return err
	}
	for _, r := range list {
		if f := ctx.Framework; f != nil && r.Shared != nil && !Has(f, mesos.FrameworkInfo_Capability_SHARED_RESOURCES) {
			return fmt.Errorf("Create volume operation for '%s' has been attempted by framework '%s' with no SHARED_RESOURCES capability", text(r), f.GetId().GetValue())
		}
		p := r.GetDisk().GetPersistence()
		switch {
		case ctx.Principal == "" || p.Principal != nil && p.GetPrincipal() == ctx.Principal:
		case p.Principal == nil:
			return fmt.Errorf("Create volume operation attempted by principal '%s', but there is a volume in the operation with no principal set in 'disk.persistence'", ctx.Principal)
		default:
			return fmt.Errorf("Create volume operation attempted by authenticated principal '%s', which does not match a volume in the operation with principal '%s' set in 'disk.persistence'", ctx.Principal, p.GetPrincipal())
		}
	}
	if ctx.Framework != nil {
		if err := singleRole(gives); err != nil {
			return fmt.Errorf("Invalid volume resources: %w", err)
		}
	}
	return nil
}

func destroy(op *mesos.Offer_Operation_Destroy, ctx OperationContext) error {
	if op == nil {
		return missing("destroy")
	}
	_, list, err := operands(op.GetVolumes())
	if err != nil {
		return err
	}
	if err := volumes(list); err != nil {
		return err
	}
	return unused(list, ctx)
}

func resize(volume *mesos.Resource, ctx OperationContext) error {
	_, list, err := operands([]*mesos.Resource{volume})
	if err != nil {
		return err
	}
	if err := volumes(list); err != nil {
		return err
	}
	return unused(list, ctx)
}

// unused checks that volumes are there and that no task uses them.
func unused(list []*mesos.Resource, ctx OperationContext) error {
	known, used := ctx.Volumes.Unallocated(), ctx.Used.Unallocated()
	all, err := parse(list)
	if err != nil {
		return err
	}
	if !known.Contains(all.Unallocated()) {
		return errors.New("Persistent volumes not found")
	}
	for _, r := range list {
		one, err := parse([]*mesos.Resource{r})
		if err != nil {
			return err
		}
		if used.Contains(one.Unallocated()) {
			return errors.New("Persistent volumes in use")
		}
	}
	return nil
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

// text writes one resource.
func text(r *mesos.Resource) string {
	one, err := resources.FromProto([]*mesos.Resource{r})
	if err != nil {
		return r.GetName()
	}
	return one.String()
}
