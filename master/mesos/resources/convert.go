package resources

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

// Conversion is what an operation makes of resources: Takes goes, Gives comes.
type Conversion struct {
	Takes, Gives Resources
}

// Convert reads what an operation on reservations and volumes does, whoever asks for it. What does not fit its kind, such
// as a RESERVE of what is not dynamically reserved, is an error, as are operations of other kinds. Whether what it takes is
// there is for the caller to see. A GROW_VOLUME or SHRINK_VOLUME makes a volume of another size out of the old one.
func Convert(op *mesos.Offer_Operation) (Conversion, error) {
	switch kind := op.GetType(); kind {
	case mesos.Offer_Operation_RESERVE:
		return convertReserve(op.GetReserve())
	case mesos.Offer_Operation_UNRESERVE:
		takes, err := FromProto(op.GetUnreserve().GetResources())
		return take(takes, err, popReservation)
	case mesos.Offer_Operation_CREATE:
		gives, err := FromProto(op.GetCreate().GetVolumes())
		back, err := take(gives, err, dropVolume)
		return Conversion{Takes: back.Gives, Gives: back.Takes}, err
	case mesos.Offer_Operation_DESTROY:
		takes, err := FromProto(op.GetDestroy().GetVolumes())
		return take(takes, err, dropVolume)
	case mesos.Offer_Operation_GROW_VOLUME:
		return convertGrow(op.GetGrowVolume())
	case mesos.Offer_Operation_SHRINK_VOLUME:
		return convertShrink(op.GetShrinkVolume())
	default:
		return Conversion{}, fmt.Errorf("%s changes no resources of an agent", kind)
	}
}

// take makes a conversion of what is taken: what is given is the same, changed one by one.
func take(takes Resources, err error, change func(*mesos.Resource) error) (Conversion, error) {
	if err != nil {
		return Conversion{}, err
	}
	list := takes.Proto()
	for _, r := range list {
		if err := change(r); err != nil {
			return Conversion{}, err
		}
	}
	gives, err := FromProto(list)
	return Conversion{Takes: takes, Gives: gives}, err
}

func convertReserve(op *mesos.Offer_Operation_Reserve) (Conversion, error) {
	gives, err := FromProto(op.GetResources())
	back, err := take(gives, err, popReservation)
	if err != nil || len(op.GetSource()) == 0 {
		return Conversion{Takes: back.Gives, Gives: gives}, err
	}
	source, err := FromProto(op.GetSource())
	if err != nil {
		return Conversion{}, err
	}
	if !source.Base().Equal(gives.Base()) {
		return Conversion{}, fmt.Errorf("%s cannot be made of %s: they differ in more than dynamic reservations", gives, source)
	}
	return Conversion{Takes: source, Gives: gives}, nil
}

func convertGrow(op *mesos.Offer_Operation_GrowVolume) (Conversion, error) {
	volume, err := oneVolume(op.GetVolume())
	if err != nil {
		return Conversion{}, err
	}
	addition, err := FromProto([]*mesos.Resource{op.GetAddition()})
	if err != nil {
		return Conversion{}, err
	}
	plain, err := take(volume, nil, dropVolume)
	if err != nil {
		return Conversion{}, err
	}
	size := addition.Scalar(Disk)
	if size <= 0 || !resized(plain.Gives, size).Equal(addition) {
		return Conversion{}, fmt.Errorf("%s cannot be added to the volume %s", addition, volume)
	}
	return Conversion{Takes: volume.Add(addition), Gives: resized(volume, volume.Scalar(Disk)+size)}, nil
}

func convertShrink(op *mesos.Offer_Operation_ShrinkVolume) (Conversion, error) {
	volume, err := oneVolume(op.GetVolume())
	if err != nil {
		return Conversion{}, err
	}
	size, err := FromFloat(op.GetSubtract().GetValue())
	if err != nil {
		return Conversion{}, fmt.Errorf("the size %w", err)
	}
	left := volume.Scalar(Disk) - size
	if size <= 0 || left <= 0 {
		return Conversion{}, fmt.Errorf("%s cannot be taken off the volume %s", size, volume)
	}
	plain, err := take(volume, nil, dropVolume)
	if err != nil {
		return Conversion{}, err
	}
	return Conversion{Takes: volume, Gives: resized(volume, left).Add(resized(plain.Gives, size))}, nil
}

// oneVolume reads a volume that can be resized.
func oneVolume(r *mesos.Resource) (Resources, error) {
	volume, err := FromProto([]*mesos.Resource{r})
	switch {
	case err != nil:
		return volume, err
	case r.GetDisk().GetPersistence() == nil:
		return volume, fmt.Errorf("%s is no persistent volume", volume)
	case r.Shared != nil:
		return volume, fmt.Errorf("%s is shared, and shared volumes keep their size", volume)
	case r.GetDisk().GetSource().GetType() == mesos.Resource_DiskInfo_Source_MOUNT:
		return volume, fmt.Errorf("%s is all of a MOUNT disk, and keeps its size", volume)
	}
	return volume, nil
}

// resized gives one scalar resource with another amount.
func resized(r Resources, size Milli) Resources {
	list := r.Proto()
	for _, p := range list {
		p.Scalar = &mesos.Value_Scalar{Value: new(size.Float())}
	}
	out, err := FromProto(list)
	if err != nil {
		return Resources{} // nothing: it equals nothing that is asked for
	}
	return out
}

// Base gives what r was made of before there were operations: without dynamic reservations, and with the plain disk that a
// volume is on. Allocations stay.
func (r Resources) Base() Resources {
	list := r.Proto()
	for _, p := range list {
		if p.GetDisk().GetPersistence() != nil {
			_ = dropVolume(p) // it is one
		}
		for isDynamic(p) {
			p.Reservations = p.Reservations[:len(p.Reservations)-1]
		}
	}
	base, err := FromProto(list)
	if err != nil {
		return r // cannot be: less is said of it than in r, which is valid
	}
	return base
}

// Made gives the part of r that operations have made: what is dynamically reserved, and persistent volumes.
func (r Resources) Made() Resources {
	return r.Filter(func(p *mesos.Resource) bool { return isDynamic(p) || p.GetDisk().GetPersistence() != nil })
}

// Volumes gives the persistent volumes in r.
func (r Resources) Volumes() Resources {
	return r.where(func(it item) bool { return it.meta.GetDisk().GetPersistence() != nil })
}

// Common gives the largest part of r that is in o.
func (r Resources) Common(o Resources) Resources { return r.Sub(r.Sub(o)) }

func isDynamic(r *mesos.Resource) bool {
	n := len(r.GetReservations())
	return n > 0 && r.Reservations[n-1].GetType() == mesos.Resource_ReservationInfo_DYNAMIC
}

// popReservation takes the newest reservation off a resource in the refined format.
func popReservation(r *mesos.Resource) error {
	if !isDynamic(r) {
		return fmt.Errorf("%q is not dynamically reserved", r.GetName())
	}
	if r.GetDisk().GetPersistence() != nil {
		return errors.New("a persistent volume keeps its reservation")
	}
	r.Reservations = r.Reservations[:len(r.Reservations)-1]
	return nil
}

// dropVolume makes a volume the plain disk that it is on.
func dropVolume(r *mesos.Resource) error {
	if r.GetDisk().GetPersistence() == nil {
		return fmt.Errorf("%q is no persistent volume", r.GetName())
	}
	r.Shared = nil
	if r.Disk.Source == nil {
		r.Disk = nil
		return nil
	}
	r.Disk = &mesos.Resource_DiskInfo{Source: proto.CloneOf(r.Disk.Source)}
	return nil
}
