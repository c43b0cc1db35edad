package resources

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"starling/master/mesos"
)

// CheckRole tells what is wrong with the name of a role: "*", or components separated by "/".
func CheckRole(role string) error {
	if role == AnyRole {
		return nil
	}
	bad := func(why string) error { return fmt.Errorf("role %q %s", role, why) }
	switch {
	case role == "":
		return errors.New("the role is empty")
	case strings.HasPrefix(role, "/"):
		return bad("starts with a slash")
	case strings.HasSuffix(role, "/"):
		return bad("ends with a slash")
	}
	for part := range strings.SplitSeq(role, "/") {
		switch {
		case part == "":
			return bad("has two slashes in a row")
		case part == "." || part == ".." || part == AnyRole:
			return bad(fmt.Sprintf("has the component %q", part))
		case strings.HasPrefix(part, "-"):
			return bad("has a component that starts with a dash")
		case strings.ContainsAny(part, "\t\n\v\f\r \x7f"):
			return bad("has a blank or a control character")
		}
	}
	return nil
}

// IsSubRole tells whether role is strictly below parent, as "eng/web" is below "eng".
func IsSubRole(role, parent string) bool {
	return len(role) > len(parent) && strings.HasPrefix(role, parent) && role[len(parent)] == '/'
}

// checkValue reads the value of a resource.
func checkValue(r *mesos.Resource) (value, error) {
	v := value{kind: r.GetType()}
	set := 0
	for _, is := range []bool{r.Scalar != nil, r.Ranges != nil, r.Set != nil} {
		if is {
			set++
		}
	}
	has := r.Scalar != nil && v.kind == mesos.Value_SCALAR || r.Ranges != nil && v.kind == mesos.Value_RANGES ||
		r.Set != nil && v.kind == mesos.Value_SET
	switch {
	case r.Type == nil:
		return v, errors.New("the type is missing")
	case v.kind != mesos.Value_SCALAR && v.kind != mesos.Value_RANGES && v.kind != mesos.Value_SET:
		return v, fmt.Errorf("the type %s is not one of SCALAR, RANGES and SET", r.GetType())
	case set != 1 || !has:
		return v, fmt.Errorf("type %s wants just the field '%s'", v.kind, strings.ToLower(v.kind.String()))
	}
	switch v.kind {
	case mesos.Value_SCALAR:
		return v, checkScalar(r, &v)
	case mesos.Value_RANGES:
		return v, checkRanges(r.Ranges, &v)
	}
	v.set = slices.Clone(r.Set.Item)
	slices.Sort(v.set)
	for i := 1; i < len(v.set); i++ {
		if v.set[i] == v.set[i-1] {
			return v, fmt.Errorf("the set holds %q twice", v.set[i])
		}
	}
	return v, nil
}

func checkScalar(r *mesos.Resource, v *value) error {
	f := r.Scalar.GetValue()
	m, err := FromFloat(f)
	switch {
	case err != nil:
		return fmt.Errorf("the scalar %w", err)
	case f < 0:
		return fmt.Errorf("the scalar %v is negative", f)
	case r.GetName() == GPUs && m%1000 != 0:
		return fmt.Errorf("%v is not a whole number, and there are no parts of GPUs", f)
	}
	v.scalar = m
	return nil
}

func checkRanges(ranges *mesos.Value_Ranges, v *value) error {
	for _, one := range ranges.Range {
		if one.GetBegin() > one.GetEnd() {
			return fmt.Errorf("the range %d-%d begins behind its end", one.GetBegin(), one.GetEnd())
		}
		v.ranges = append(v.ranges, Range{one.GetBegin(), one.GetEnd()})
	}
	slices.SortFunc(v.ranges, func(a, b Range) int {
		if a.Begin < b.Begin {
			return -1
		}
		return 1
	})
	for i := 1; i < len(v.ranges); i++ {
		if v.ranges[i].Begin <= v.ranges[i-1].End {
			return fmt.Errorf("the ranges %s and %s overlap", v.ranges[i-1], v.ranges[i])
		}
	}
	v.ranges = normalRanges(v.ranges)
	return nil
}

// checkDisk checks what concerns volumes, which only disks can be.
func checkDisk(r *mesos.Resource, reservations []*mesos.Resource_ReservationInfo) error {
	disk := r.Disk
	if disk == nil {
		if r.Shared != nil {
			return errors.New("only persistent volumes can be shared")
		}
		return nil
	}
	if r.GetName() != Disk {
		return errors.New("only 'disk' has a field 'disk'")
	}
	if r.Shared != nil && disk.Persistence == nil {
		return errors.New("only persistent volumes can be shared")
	}
	if disk.Persistence != nil {
		switch {
		case len(reservations) == 0:
			return errors.New("a persistent volume must be reserved for a role")
		case r.Revocable != nil:
			return errors.New("a persistent volume cannot be revocable")
		case disk.Volume == nil:
			return errors.New("a persistent volume needs the field 'volume'")
		case disk.Volume.HostPath != nil:
			return errors.New("a persistent volume has no 'host_path'")
		}
		if err := checkPersistenceID(disk.Persistence.GetId()); err != nil {
			return err
		}
	} else if disk.Volume != nil {
		return errors.New("a volume on 'disk' must be a persistent one")
	}
	source := disk.Source
	switch source.GetType() {
	case mesos.Resource_DiskInfo_Source_BLOCK, mesos.Resource_DiskInfo_Source_RAW:
		if source.Path != nil || source.Mount != nil {
			return fmt.Errorf("a %s disk has neither path nor mount", source.GetType())
		}
		if disk.Persistence != nil {
			return fmt.Errorf("a persistent volume cannot be on a %s disk", source.GetType())
		}
	case mesos.Resource_DiskInfo_Source_PATH:
		if source.Mount != nil {
			return errors.New("a PATH disk has no mount")
		}
	case mesos.Resource_DiskInfo_Source_MOUNT:
		if source.Path != nil {
			return errors.New("a MOUNT disk has no path")
		}
	default:
		if source != nil {
			return errors.New("the type of the disk's source is unknown")
		}
	}
	return nil
}

func checkPersistenceID(id string) error {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	if id == "" || len(id) > 255 || id == "." || id == ".." || strings.ContainsAny(id, `/\`) ||
		strings.IndexFunc(id, control) >= 0 {
		return fmt.Errorf("the id %q of the volume must be 1 to 255 bytes without slashes and control characters", id)
	}
	return nil
}
