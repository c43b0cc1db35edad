package nodeapi

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// ResourcesToCatalog returns the plain form of resources for a node's record. What an unusual resource has beyond a
// value and reservations (disk, revocable, shared, provider) goes along in Extra. The role that resources are allocated to
// is left out: a record says it once, with the task.
func ResourcesToCatalog(rs resources.Resources) []*catalog.Resource {
	protos := rs.Proto()
	out := make([]*catalog.Resource, 0, len(protos))
	for _, r := range protos {
		c := &catalog.Resource{
			Name: r.GetName(), Kind: kindToCatalog(r.GetType()), Milli: milli(r.GetScalar()), Ranges: rangesToCatalog(r.GetRanges()),
			Items: slices.Clone(r.GetSet().GetItem()), Extra: extra(r),
		}
		for _, v := range r.GetReservations() {
			c.Reservations = append(c.Reservations, reservationToCatalog(v))
		}
		out = append(out, c)
	}
	return out
}

// ResourcesFromCatalog is the way back. A resource that is not valid is left out, as a record's value that does not
// decode is; DecodeResources tells of it.
func ResourcesFromCatalog(rs []*catalog.Resource) resources.Resources {
	out, _ := DecodeResources(rs)
	return out
}

// DecodeResources is ResourcesFromCatalog with an error for each resource that was left out.
func DecodeResources(rs []*catalog.Resource) (resources.Resources, error) {
	protos := make([]*mesos.Resource, 0, len(rs))
	var faults []error
	for _, c := range rs {
		r, err := resourceFromCatalog(c)
		if err == nil {
			// Extra is read as a part of a message, so that nothing has looked for its required fields yet.
			err = proto.CheckInitialized(r)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("resource %q: %w", c.GetName(), err))
			continue
		}
		protos = append(protos, r)
	}
	out, err := resources.FromProto(protos)
	if err == nil {
		return out, errors.Join(faults...)
	}
	// At least one is at fault: take them singly.
	out = resources.Resources{}
	for _, r := range protos {
		one, err := resources.FromProto([]*mesos.Resource{r})
		if err != nil {
			faults = append(faults, fmt.Errorf("resource %q: %w", r.GetName(), err))
			continue
		}
		out = out.Add(one)
	}
	return out, errors.Join(faults...)
}

func resourceFromCatalog(c *catalog.Resource) (*mesos.Resource, error) {
	r := new(mesos.Resource)
	if len(c.GetExtra()) > 0 {
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(c.GetExtra(), r); err != nil {
			return nil, fmt.Errorf("extra: %v", err)
		}
		// Only what extra puts there: the rest is said in plain fields, and once.
		r = &mesos.Resource{
			Disk: r.Disk, Revocable: r.Revocable, Shared: r.Shared, ProviderId: r.ProviderId, Reservations: r.Reservations,
		}
	}
	r.Name = proto.String(c.GetName())
	switch c.GetKind() {
	case catalog.Kind_SCALAR:
		r.Type = mesos.Value_SCALAR.Enum()
		r.Scalar = scalar(c.GetMilli())
	case catalog.Kind_RANGES:
		r.Type = mesos.Value_RANGES.Enum()
		r.Ranges = rangesFromCatalog(c.GetRanges())
	case catalog.Kind_SET:
		r.Type = mesos.Value_SET.Enum()
		r.Set = &mesos.Value_Set{Item: slices.Clone(c.GetItems())}
	default:
		return nil, fmt.Errorf("kind %v is none of resources", c.GetKind())
	}
	if len(r.Reservations) > 0 {
		return r, nil
	}
	for _, v := range c.GetReservations() {
		r.Reservations = append(r.Reservations, reservationFromCatalog(v))
	}
	return r, nil
}

// extra encodes what the plain fields can't hold; nil for an ordinary resource.
func extra(r *mesos.Resource) []byte {
	odd := slices.ContainsFunc(r.Reservations, func(v *mesos.Resource_ReservationInfo) bool { return !plain(v) })
	if r.Disk == nil && r.Revocable == nil && r.Shared == nil && r.ProviderId == nil && !odd {
		return nil
	}
	rest := &mesos.Resource{Disk: r.Disk, Revocable: r.Revocable, Shared: r.Shared, ProviderId: r.ProviderId}
	if odd {
		rest.Reservations = r.Reservations
	}
	b, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(rest)
	if err != nil {
		// Partial messages of our own making always encode.
		panic("nodeapi: cannot encode resource: " + err.Error())
	}
	return b
}

// plain tells whether a reservation survives the plain form, where what is empty and what is unset are the same.
func plain(v *mesos.Resource_ReservationInfo) bool {
	return proto.Equal(v, reservationFromCatalog(reservationToCatalog(v)))
}

func reservationToCatalog(v *mesos.Resource_ReservationInfo) *catalog.Reservation {
	return &catalog.Reservation{
		Role: v.GetRole(), Dynamic: v.GetType() == mesos.Resource_ReservationInfo_DYNAMIC, Principal: v.GetPrincipal(),
		Labels: labelsToCatalog(v.GetLabels()),
	}
}

func reservationFromCatalog(c *catalog.Reservation) *mesos.Resource_ReservationInfo {
	v := &mesos.Resource_ReservationInfo{
		Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: proto.String(c.GetRole()), Principal: filled(c.GetPrincipal()),
		Labels: labelsFromCatalog(c.GetLabels()),
	}
	if c.GetDynamic() {
		v.Type = mesos.Resource_ReservationInfo_DYNAMIC.Enum()
	}
	return v
}

// AttributesToCatalog returns the plain form of attributes, in the same order.
func AttributesToCatalog(as []*mesos.Attribute) []*catalog.Attribute {
	out := make([]*catalog.Attribute, 0, len(as))
	for _, a := range as {
		out = append(out, &catalog.Attribute{
			Name: a.GetName(), Kind: kindToCatalog(a.GetType()), Text: a.GetText().GetValue(), Milli: milli(a.GetScalar()),
			Ranges: rangesToCatalog(a.GetRanges()), Items: slices.Clone(a.GetSet().GetItem()),
		})
	}
	return out
}

// AttributesFromCatalog is the way back. An attribute without a name is left out.
func AttributesFromCatalog(as []*catalog.Attribute) []*mesos.Attribute {
	out := make([]*mesos.Attribute, 0, len(as))
	for _, c := range as {
		if c.GetName() == "" {
			continue
		}
		a := &mesos.Attribute{Name: proto.String(c.GetName())}
		switch c.GetKind() {
		case catalog.Kind_SCALAR:
			a.Type = mesos.Value_SCALAR.Enum()
			a.Scalar = scalar(c.GetMilli())
		case catalog.Kind_RANGES:
			a.Type = mesos.Value_RANGES.Enum()
			a.Ranges = rangesFromCatalog(c.GetRanges())
		case catalog.Kind_SET:
			a.Type = mesos.Value_SET.Enum()
			a.Set = &mesos.Value_Set{Item: slices.Clone(c.GetItems())}
		default:
			a.Type = mesos.Value_TEXT.Enum()
			a.Text = &mesos.Value_Text{Value: proto.String(c.GetText())}
		}
		out = append(out, a)
	}
	return out
}

// DiscoveryToCatalog returns the plain form, nil for nil. Labels, and the visibility of a single port, stay with the agent.
func DiscoveryToCatalog(d *mesos.DiscoveryInfo) *catalog.Discovery {
	if d == nil {
		return nil
	}
	c := &catalog.Discovery{
		Name: d.GetName(), Visibility: int32(d.GetVisibility()), Environment: d.GetEnvironment(), Location: d.GetLocation(),
		Version: d.GetVersion(),
	}
	for _, p := range d.GetPorts().GetPorts() {
		c.Ports = append(c.Ports, &catalog.Port{Number: p.GetNumber(), Name: p.GetName(), Protocol: p.GetProtocol()})
	}
	return c
}

// DiscoveryFromCatalog is the way back: nil for nil, and a field that is empty comes back unset.
func DiscoveryFromCatalog(c *catalog.Discovery) *mesos.DiscoveryInfo {
	if c == nil {
		return nil
	}
	d := &mesos.DiscoveryInfo{
		Visibility: mesos.DiscoveryInfo_Visibility(c.GetVisibility()).Enum(), Name: filled(c.GetName()),
		Environment: filled(c.GetEnvironment()), Location: filled(c.GetLocation()), Version: filled(c.GetVersion()),
	}
	for _, p := range c.GetPorts() {
		if d.Ports == nil {
			d.Ports = new(mesos.Ports)
		}
		d.Ports.Ports = append(d.Ports.Ports, &mesos.Port{
			Number: proto.Uint32(p.GetNumber()), Name: filled(p.GetName()), Protocol: filled(p.GetProtocol()),
		})
	}
	return d
}

func filled(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func kindToCatalog(t mesos.Value_Type) catalog.Kind {
	switch t {
	case mesos.Value_RANGES:
		return catalog.Kind_RANGES
	case mesos.Value_SET:
		return catalog.Kind_SET
	case mesos.Value_TEXT:
		return catalog.Kind_TEXT
	}
	return catalog.Kind_SCALAR
}

// milli rounds to thousandths, the precision of all scalars.
func milli(s *mesos.Value_Scalar) int64 {
	v := math.Round(s.GetValue() * 1000)
	switch {
	case math.IsNaN(v):
		return 0
	case v >= math.MaxInt64:
		return math.MaxInt64
	case v <= math.MinInt64:
		return math.MinInt64
	}
	return int64(v)
}

func scalar(milli int64) *mesos.Value_Scalar {
	return &mesos.Value_Scalar{Value: proto.Float64(float64(milli) / 1000)}
}

func rangesToCatalog(r *mesos.Value_Ranges) []*catalog.Range {
	var out []*catalog.Range
	for _, v := range r.GetRange() {
		out = append(out, &catalog.Range{Begin: v.GetBegin(), End: v.GetEnd()})
	}
	return out
}

func rangesFromCatalog(rs []*catalog.Range) *mesos.Value_Ranges {
	out := new(mesos.Value_Ranges)
	for _, v := range rs {
		out.Range = append(out.Range, &mesos.Value_Range{Begin: proto.Uint64(v.GetBegin()), End: proto.Uint64(v.GetEnd())})
	}
	return out
}

func labelsToCatalog(ls *mesos.Labels) []*catalog.Label {
	var out []*catalog.Label
	for _, l := range ls.GetLabels() {
		out = append(out, &catalog.Label{Key: l.GetKey(), Value: l.GetValue()})
	}
	return out
}

func labelsFromCatalog(ls []*catalog.Label) *mesos.Labels {
	if len(ls) == 0 {
		return nil
	}
	out := new(mesos.Labels)
	for _, l := range ls {
		out.Labels = append(out.Labels, &mesos.Label{Key: proto.String(l.GetKey()), Value: filled(l.GetValue())})
	}
	return out
}
