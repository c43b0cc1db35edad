package task

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Volume is a persistent volume of an instance.
type Volume struct {
	// Path is where the container sees it.
	Path string `json:"path"`
	// ID is its persistence id: "<safe id>#<path>#<uuid>".
	ID string `json:"id"`
}

// UUID is the last part of the volume's id.
func (v Volume) UUID() string { return v.ID[strings.LastIndexByte(v.ID, '#')+1:] }

// volumeID is the persistence id of a new volume.
func volumeID(id app.PathID, path, uuid string) string { return id.Safe() + "#" + path + "#" + uuid }

// takeVolumes cuts the disks of an app's persistent volumes out of the pool, in the order of the definition; the largest are
// found first. It says what there is too little of.
func (p *pool) takeVolumes(volumes []app.Volume) ([]*mesos.Resource, []Refusal) {
	order := make([]int, len(volumes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(volumes[b].Persistent.Size, volumes[a].Persistent.Size)
	})
	disks := make([]*mesos.Resource, len(volumes))
	var short []Refusal
	for _, i := range order {
		v := volumes[i]
		if disks[i] = p.takeDisk(v.Persistent); disks[i] == nil {
			short = append(short, Refusal{Reason: InsufficientDisk, Why: fmt.Sprintf("needs %d MiB of disk for the volume %q, %s",
				v.Persistent.Size, v.ContainerPath, p.disksOf(v.Persistent))})
		}
	}
	return disks, short
}

// takeDisk cuts one disk out of the pool: an amount, or all of a disk that is mounted and can't be divided. Of those that suit
// it is the smallest. Nil is none.
func (p *pool) takeDisk(v *app.PersistentVolume) *mesos.Resource {
	size := milli(float64(v.Size))
	var best *mesos.Resource
	for _, r := range p.entries {
		if !suits(r, v) || milli(r.GetScalar().GetValue()) < size {
			continue
		}
		if v.Type == "mount" && v.MaxSize != nil && milli(r.GetScalar().GetValue()) > milli(float64(*v.MaxSize)) {
			continue
		}
		if best == nil || r.GetScalar().GetValue() < best.GetScalar().GetValue() {
			best = r
		}
	}
	if best == nil {
		return nil
	}
	piece := proto.CloneOf(best)
	if v.Type == "mount" {
		p.entries = slices.DeleteFunc(p.entries, func(r *mesos.Resource) bool { return r == best })
		return piece
	}
	piece.Scalar.Value = new(size.Float())
	best.Scalar.Value = new((milli(best.GetScalar().GetValue()) - size).Float())
	return piece
}

// suits tells whether a disk is of the kind that a volume asks for.
func suits(r *mesos.Resource, v *app.PersistentVolume) bool {
	if r.GetName() != resources.Disk || r.Scalar == nil || r.GetDisk().GetPersistence() != nil || r.Shared != nil || r.ProviderId != nil {
		return false
	}
	source := r.GetDisk().GetSource()
	if source.GetProfile() != v.ProfileName {
		return false
	}
	root := ""
	switch {
	case source == nil:
		return r.Disk == nil && v.Type == "root"
	case source.GetType() == mesos.Resource_DiskInfo_Source_PATH && v.Type == "path":
		root = source.GetPath().GetRoot()
	case source.GetType() == mesos.Resource_DiskInfo_Source_MOUNT && v.Type == "mount":
		root = source.GetMount().GetRoot()
	default:
		return false
	}
	for _, c := range v.Constraints {
		pattern, err := regexp.Compile("^(?:" + c.Value + ")$")
		if err != nil || pattern.MatchString(root) != (c.Operator == app.Like) {
			return false
		}
	}
	return true
}

// disksOf says what there is of the kind that a volume asks for.
func (p *pool) disksOf(v *app.PersistentVolume) string {
	kind := "of type " + v.Type
	if v.ProfileName != "" {
		kind += " and profile " + v.ProfileName
	}
	if len(v.Constraints) > 0 {
		kind += " that its constraints allow"
	}
	var sizes []string
	for _, r := range p.entries {
		if suits(r, v) {
			sizes = append(sizes, milli(r.GetScalar().GetValue()).String())
		}
	}
	if len(sizes) == 0 {
		return "the offer has none " + kind
	}
	return fmt.Sprintf("the offer has %s MiB %s", strings.Join(sizes, " and "), kind)
}
