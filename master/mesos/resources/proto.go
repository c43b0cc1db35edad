package resources

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

// InvalidError lists what is wrong with resources that came from outside.
type InvalidError struct {
	// Faults are one sentence each, naming the resource and the value.
	Faults []string
}

func (e *InvalidError) Error() string { return strings.Join(e.Faults, "; ") }

// FromProto reads resources in either format, checks them and brings them into normal form. It keeps nothing of what
// it is given. The error is an *InvalidError that lists all faults.
func FromProto(rs []*mesos.Resource) (Resources, error) {
	var faults []string
	items := make([]item, 0, len(rs))
	for _, r := range rs {
		it, err := fromProto(r)
		if err != nil {
			faults = append(faults, fmt.Sprintf("resource %q: %v", r.GetName(), err))
			continue
		}
		items = append(items, it)
	}
	if faults != nil {
		return Resources{}, &InvalidError{Faults: faults}
	}
	return normal(items), nil
}

func fromProto(r *mesos.Resource) (item, error) {
	if r.GetName() == "" {
		return item{}, errors.New("the name is empty")
	}
	if strings.ContainsFunc(r.GetName(), unicode.IsControl) {
		return item{}, errors.New("the name has a control character")
	}
	v, err := checkValue(r)
	if err != nil {
		return item{}, err
	}
	reservations, err := refined(r)
	if err != nil {
		return item{}, err
	}
	if err := checkDisk(r, reservations); err != nil {
		return item{}, err
	}
	if role := r.GetAllocationInfo().GetRole(); role != "" {
		if err := CheckRole(role); err != nil {
			return item{}, fmt.Errorf("allocation: %w", err)
		}
	}
	it := item{value: v, alloc: r.GetAllocationInfo().GetRole(), copies: 1}
	if reservations == nil && r.Disk == nil && r.ProviderId == nil && r.Revocable == nil && r.Shared == nil {
		it.plain(r.GetName())
		return it, nil
	}
	it.meta = &mesos.Resource{
		Name: new(r.GetName()), Type: r.GetType().Enum(), Reservations: reservations,
		ProviderId: cloneMessage(r.ProviderId), Disk: cloneMessage(r.Disk),
	}
	if r.Revocable != nil {
		it.meta.Revocable = &mesos.Resource_RevocableInfo{}
	}
	if r.Shared != nil {
		it.meta.Shared = &mesos.Resource_SharedInfo{}
	}
	it.atomic = isAtomic(r)
	it.base, err = identity(it)
	return it, err
}

// plain makes an item one that has nothing but a name and a value.
func (i *item) plain(name string) {
	if c, ok := common[name]; ok && c.kind == i.kind {
		i.meta, i.base = c.meta, c.base
		return
	}
	i.meta = &mesos.Resource{Name: &name, Type: i.kind.Enum()}
	i.base = plainIdentity(name, i.kind)
}

// common are the items that nearly all resources consist of: all share one message for each name.
var common = func() map[string]item {
	items := make(map[string]item)
	for name, kind := range map[string]mesos.Value_Type{
		CPUs: mesos.Value_SCALAR, Mem: mesos.Value_SCALAR, Disk: mesos.Value_SCALAR, GPUs: mesos.Value_SCALAR, Ports: mesos.Value_RANGES,
	} {
		items[name] = item{
			value: value{kind: kind}, meta: &mesos.Resource{Name: &name, Type: kind.Enum()}, base: plainIdentity(name, kind),
		}
	}
	return items
}()

func plainIdentity(name string, kind mesos.Value_Type) string {
	return name + "\x00" + string('0'+rune(kind))
}

// identity tells items apart. Equal messages give equal bytes within one process, which is all that is asked of it.
func identity(it item) (string, error) {
	meta, err := proto.MarshalOptions{Deterministic: true}.Marshal(it.meta)
	if err != nil {
		return "", fmt.Errorf("cannot be told apart: %v", err)
	}
	id := plainIdentity(it.meta.GetName(), it.kind) + string(meta)
	if it.atomic {
		id += "\x00" + it.value.String()
	}
	return id, nil
}

func isAtomic(r *mesos.Resource) bool {
	if r.Shared != nil || r.GetDisk().GetPersistence() != nil {
		return true
	}
	source := r.GetDisk().GetSource()
	switch source.GetType() {
	case mesos.Resource_DiskInfo_Source_MOUNT, mesos.Resource_DiskInfo_Source_BLOCK:
		return true
	case mesos.Resource_DiskInfo_Source_RAW:
		return source.Id != nil
	}
	return false
}

// refined gives the stack of reservations of a resource in either format, as a copy; nil for none.
func refined(r *mesos.Resource) ([]*mesos.Resource_ReservationInfo, error) {
	role := r.GetRole()
	if role == "" {
		role = AnyRole
	}
	if err := CheckRole(role); err != nil {
		return nil, err
	}
	stack := r.GetReservations()
	if len(stack) == 0 {
		return oldReservation(r, role)
	}
	out := make([]*mesos.Resource_ReservationInfo, 0, len(stack))
	for i, one := range stack {
		kind, owner := one.GetType(), one.GetRole()
		switch {
		case kind != mesos.Resource_ReservationInfo_STATIC && kind != mesos.Resource_ReservationInfo_DYNAMIC:
			return nil, fmt.Errorf("reservation %d: the type must be STATIC or DYNAMIC", i)
		case one.Role == nil:
			return nil, fmt.Errorf("reservation %d: the role is missing", i)
		case owner == AnyRole:
			return nil, fmt.Errorf("reservation %d: the role '*' cannot be reserved for", i)
		case kind == mesos.Resource_ReservationInfo_STATIC && i > 0:
			return nil, fmt.Errorf("reservation %d: only the first can be STATIC", i)
		case kind == mesos.Resource_ReservationInfo_STATIC && one.Principal != nil:
			return nil, fmt.Errorf("reservation %d: a STATIC one has no principal", i)
		case i > 0 && !IsSubRole(owner, stack[i-1].GetRole()):
			return nil, fmt.Errorf("reservation %d: role %q is not below role %q", i, owner, stack[i-1].GetRole())
		}
		if err := CheckRole(owner); err != nil {
			return nil, fmt.Errorf("reservation %d: %w", i, err)
		}
		out = append(out, proto.CloneOf(one))
	}
	last := stack[len(stack)-1]
	if r.Role != nil && r.GetRole() != last.GetRole() {
		return nil, fmt.Errorf("role %q and reservations for %q contradict each other", r.GetRole(), last.GetRole())
	}
	if old := r.Reservation; old != nil && (last.GetType() != mesos.Resource_ReservationInfo_DYNAMIC ||
		old.GetPrincipal() != last.GetPrincipal() || !proto.Equal(old.Labels, last.Labels)) {
		return nil, errors.New("reservation and reservations contradict each other")
	}
	if r.Revocable != nil && last.GetType() == mesos.Resource_ReservationInfo_DYNAMIC {
		return nil, errors.New("a revocable resource cannot be dynamically reserved")
	}
	return out, nil
}

// oldReservation turns role and reservation into a stack of at most one.
func oldReservation(r *mesos.Resource, role string) ([]*mesos.Resource_ReservationInfo, error) {
	old := r.Reservation
	switch {
	case old == nil && role == AnyRole:
		return nil, nil
	case old == nil:
		return []*mesos.Resource_ReservationInfo{
			{Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: new(role)},
		}, nil
	case role == AnyRole:
		return nil, errors.New("a dynamic reservation for the role '*' is invalid")
	case old.Type != nil || old.Role != nil:
		return nil, errors.New("reservation holds neither type nor role; they belong to reservations")
	case r.Revocable != nil:
		return nil, errors.New("a revocable resource cannot be dynamically reserved")
	}
	one := proto.CloneOf(old)
	one.Type, one.Role = mesos.Resource_ReservationInfo_DYNAMIC.Enum(), new(role)
	return []*mesos.Resource_ReservationInfo{one}, nil
}

// Proto gives r in the refined format: reservations as a stack, role unset, allocation_info where it is allocated. The
// order is stable. The messages are the caller's.
func (r Resources) Proto() []*mesos.Resource {
	return r.protos(func(*mesos.Resource) bool { return true })
}

// ProtoPreRefinement gives r in the format of frameworks without RESERVATION_REFINEMENT: role and reservation. What is
// reserved more than once cannot be said in it and is left out.
func (r Resources) ProtoPreRefinement() []*mesos.Resource {
	return r.protos(func(p *mesos.Resource) bool {
		if len(p.Reservations) > 1 {
			return false
		}
		addOldFormat(p)
		p.Reservations = nil
		return true
	})
}

// ProtoEndpoint gives r in the format of operators: reservations, and with at most one also role and reservation.
func (r Resources) ProtoEndpoint() []*mesos.Resource {
	return r.protos(func(p *mesos.Resource) bool {
		if len(p.Reservations) <= 1 {
			addOldFormat(p)
		}
		return true
	})
}

func addOldFormat(p *mesos.Resource) {
	if len(p.Reservations) == 0 {
		p.Role = new(AnyRole)
		return
	}
	one := p.Reservations[0]
	p.Role = new(one.GetRole())
	if one.GetType() == mesos.Resource_ReservationInfo_DYNAMIC {
		p.Reservation = proto.CloneOf(one)
		p.Reservation.Type, p.Reservation.Role = nil, nil
	}
}

func (r Resources) protos(shape func(*mesos.Resource) bool) []*mesos.Resource {
	out := make([]*mesos.Resource, 0, len(r.items))
	for _, it := range r.items {
		for n := 0; n < it.copies && (it.atomic || n == 0); n++ {
			if p := it.proto(); shape(p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// proto makes a message of an item: of one copy if it is atomic.
func (i item) proto() *mesos.Resource {
	p := &mesos.Resource{
		Name: new(i.meta.GetName()), Type: i.kind.Enum(),
		ProviderId: cloneMessage(i.meta.ProviderId), Disk: cloneMessage(i.meta.Disk),
		Revocable: cloneMessage(i.meta.Revocable), Shared: cloneMessage(i.meta.Shared),
	}
	for _, one := range i.meta.Reservations {
		p.Reservations = append(p.Reservations, proto.CloneOf(one))
	}
	if i.alloc != "" {
		p.AllocationInfo = &mesos.Resource_AllocationInfo{Role: new(i.alloc)}
	}
	switch i.kind {
	case mesos.Value_RANGES:
		ranges := make([]*mesos.Value_Range, len(i.ranges))
		for n, r := range i.ranges {
			ranges[n] = &mesos.Value_Range{Begin: new(r.Begin), End: new(r.End)}
		}
		p.Ranges = &mesos.Value_Ranges{Range: ranges}
	case mesos.Value_SET:
		p.Set = &mesos.Value_Set{Item: slices.Clone(i.set)}
	default:
		p.Scalar = &mesos.Value_Scalar{Value: new(i.scalar.Float())}
	}
	return p
}

// cloneMessage copies a message and leaves an unset one unset.
func cloneMessage[M interface {
	comparable
	proto.Message
}](m M) M {
	var unset M
	if m == unset {
		return unset
	}
	return proto.CloneOf(m)
}
