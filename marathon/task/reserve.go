package task

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// The labels of a reservation say whose it is: of which framework, and of which instance. The names are those of Marathon.
const (
	frameworkLabel = "marathon_framework_id"
	instanceLabel  = "marathon_task_id"
)

// Owner is whose a reservation is.
type Owner struct {
	Framework string
	// Instance is an id from which that of the instance follows.
	Instance string
}

// ownerOf reads the owner of a resource in the refined format; the zero value is nobody of our kind.
func ownerOf(r *mesos.Resource) Owner {
	var o Owner
	n := len(r.GetReservations())
	if n == 0 || r.Reservations[n-1].GetType() != mesos.Resource_ReservationInfo_DYNAMIC {
		return o
	}
	for _, label := range r.Reservations[n-1].GetLabels().GetLabels() {
		switch label.GetKey() {
		case frameworkLabel:
			o.Framework = label.GetValue()
		case instanceLabel:
			o.Instance = label.GetValue()
		}
	}
	if o.Framework == "" || o.Instance == "" {
		return Owner{}
	}
	return o
}

// Holding is what an offer holds that is reserved for one instance.
type Holding struct {
	Owner     Owner
	Role      string
	Resources resources.Resources
	// Volumes are those among the resources, in the order of paths.
	Volumes []Volume
}

// Reservations lists what of the resources is reserved for instances of a framework, in the order of instances. What is
// reserved by anyone else, or in a way that we do not, is not in it.
func Reservations(rs []*mesos.Resource, framework string) []Holding {
	if !slices.ContainsFunc(rs, labelled) {
		return nil // nearly always: spare the reading
	}
	all, err := resources.FromProto(rs)
	if err != nil {
		return nil
	}
	parts := make(map[Owner][]*mesos.Resource)
	for _, r := range all.Proto() {
		if o := ownerOf(r); o.Framework == framework && framework != "" {
			parts[o] = append(parts[o], r)
		}
	}
	var out []Holding
	for o, part := range parts {
		held := Holding{Owner: o, Role: reservedRole(part[0])}
		if held.Resources, err = resources.FromProto(part); err != nil {
			continue // what was read once can be read again
		}
		for _, r := range part {
			if id := r.GetDisk().GetPersistence().GetId(); id != "" {
				held.Volumes = append(held.Volumes, Volume{Path: r.GetDisk().GetVolume().GetContainerPath(), ID: id})
			}
		}
		slices.SortFunc(held.Volumes, func(a, b Volume) int { return strings.Compare(a.Path+a.ID, b.Path+b.ID) })
		out = append(out, held)
	}
	slices.SortFunc(out, func(a, b Holding) int { return strings.Compare(a.Owner.Instance, b.Owner.Instance) })
	return out
}

// labelled tells whether a resource, in either format, is reserved with labels.
func labelled(r *mesos.Resource) bool {
	if r.GetReservation().GetLabels() != nil {
		return true
	}
	return slices.ContainsFunc(r.GetReservations(), func(i *mesos.Resource_ReservationInfo) bool { return i.GetLabels() != nil })
}

// Claim is what an instance of a resident app takes of an offer to keep.
type Claim struct {
	// Operations reserve the resources and create the volumes.
	Operations []*mesos.Offer_Operation
	// Takes is what the offer has less afterwards.
	Takes resources.Resources
	// Volumes are in the order of the definition.
	Volumes []Volume
}

// Reserve picks what an instance is to keep from an offer: out of what is reserved for nobody, since what is reserved already
// can't be reserved once more. Refusals are as those of Match. newID makes the uuid of a volume.
func Reserve(o Offer, d Demand, owner Owner, newID func() string, s Settings, rng *rand.Rand) (Claim, []Refusal) {
	volumes := d.App.PersistentVolumes()
	var disks []*mesos.Resource
	m := matching{
		offer: o, demand: d, settings: s, role: d.App.Role, of: []string{resources.AnyRole},
		pool: newPool(o.Resources, d.App.Role, []string{resources.AnyRole}),
	}
	// pool leaves out disks of their own, and those are what volumes may be on.
	m.volumes = func(p *pool) (short []Refusal) {
		whole := diskPool(o.Resources, d.App.Role)
		p.entries = append(p.entries, whole...)
		disks, short = p.takeVolumes(volumes)
		return short
	}
	pick, refusals := m.pick(rng)
	if len(refusals) > 0 {
		return Claim{}, refusals
	}
	reservation := &mesos.Resource_ReservationInfo{
		Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: new(d.App.Role),
		Labels: &mesos.Labels{Labels: []*mesos.Label{
			{Key: new(frameworkLabel), Value: new(owner.Framework)}, {Key: new(instanceLabel), Value: new(owner.Instance)},
		}},
	}
	if s.Principal != "" {
		reservation.Principal = new(s.Principal)
	}
	reserve := func(r *mesos.Resource) *mesos.Resource {
		r = proto.CloneOf(r)
		r.Reservations = append(r.Reservations, proto.CloneOf(reservation))
		return r
	}
	var claim Claim
	var reserved, created []*mesos.Resource
	for _, r := range pick.All().Proto() {
		reserved = append(reserved, reserve(r))
	}
	for i, disk := range disks {
		disk = reserve(disk)
		reserved = append(reserved, disk)
		v := Volume{Path: volumes[i].ContainerPath, ID: volumeID(d.App.ID, volumes[i].ContainerPath, newID())}
		claim.Volumes = append(claim.Volumes, v)
		created = append(created, onDisk(disk, v, s.Principal))
	}
	taken, err := resources.FromProto(disks)
	kept, errKept := resources.FromProto(reserved)
	made, errMade := resources.FromProto(created)
	if err != nil || errKept != nil || errMade != nil {
		return Claim{}, []Refusal{{Reason: UnfulfilledRole, Why: fmt.Sprintf("the offer cannot be divided: %v %v %v", err, errKept, errMade)}}
	}
	claim.Takes = pick.All().Add(taken)
	claim.Operations = []*mesos.Offer_Operation{
		{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Resources: protoOf(kept, s)}},
		{Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: protoOf(made, s)}},
	}
	return claim, nil
}

// diskPool holds the unreserved disks of an offer that are disks of their own.
func diskPool(offered resources.Resources, role string) []*mesos.Resource {
	return offered.NonRevocable().Unreserved().Filter(func(r *mesos.Resource) bool {
		allocated := r.AllocationInfo.GetRole()
		return r.GetDisk().GetSource() != nil && (allocated == "" || allocated == role)
	}).Proto()
}

// onDisk makes a volume of a reserved disk.
func onDisk(disk *mesos.Resource, v Volume, principal string) *mesos.Resource {
	out := proto.CloneOf(disk)
	if out.Disk == nil {
		out.Disk = new(mesos.Resource_DiskInfo)
	}
	out.Disk.Persistence = &mesos.Resource_DiskInfo_Persistence{Id: new(v.ID)}
	if principal != "" {
		out.Disk.Persistence.Principal = new(principal)
	}
	out.Disk.Volume = &mesos.Volume{ContainerPath: new(v.Path), Mode: mesos.Volume_RW.Enum()}
	return out
}

// Return picks what an instance needs out of what is reserved for it, with its volumes. Refusals are as those of Match.
func Return(o Offer, d Demand, held Holding, volumes []Volume, s Settings, rng *rand.Rand) (Pick, []Refusal) {
	m := matching{
		offer: o, demand: d, settings: s, role: held.Role, of: []string{held.Role}, follows: true,
		pool: &pool{entries: held.Resources.Filter(func(r *mesos.Resource) bool { return r.GetDisk().GetPersistence() == nil }).Proto()},
	}
	own := make(map[string]*mesos.Resource)
	for _, r := range held.Resources.Volumes().Proto() {
		own[r.GetDisk().GetPersistence().GetId()] = r
	}
	var disks []*mesos.Resource
	for _, v := range volumes {
		if own[v.ID] == nil {
			m.missing = fmt.Sprintf("the offer holds the reservation of instance %s without its volume %q", held.Owner.Instance, v.Path)
			continue
		}
		disks = append(disks, own[v.ID])
	}
	pick, refusals := m.pick(rng)
	if len(refusals) > 0 {
		return Pick{}, refusals
	}
	all, err := resources.FromProto(disks)
	if err != nil {
		return Pick{}, []Refusal{{Reason: UnfulfilledRole, Why: fmt.Sprintf("the volumes cannot be read: %v", err)}}
	}
	pick.Volumes = all
	pick.Task = pick.Task.Add(all)
	return pick, nil
}

// Release are the operations that destroy the volumes of a reservation and end it.
func Release(held Holding, s Settings) []*mesos.Offer_Operation {
	volumes := held.Resources.Volumes()
	rest := held.Resources.Sub(volumes)
	var operations []*mesos.Offer_Operation
	if !volumes.Empty() {
		destroy := &mesos.Offer_Operation{
			Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: protoOf(volumes, s)},
		}
		change, err := resources.Convert(destroy)
		if err != nil {
			return nil // a volume that is none: leave all of it alone
		}
		operations = append(operations, destroy)
		rest = rest.Add(change.Gives)
	}
	return append(operations, &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: protoOf(rest, s)},
	})
}

// Elsewhere is the refusal of an offer by an instance that waits for what is reserved for it on another agent.
func Elsewhere(instance app.InstanceID, host string) Refusal {
	return Refusal{
		Reason: NoCorrespondingReservationFound,
		Why:    fmt.Sprintf("instance %s waits for what is reserved for it on %s, and the offer does not hold that", instance, host),
	}
}
