package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// parse reads what an operator says of the resources, entry by entry: what is there twice, or in two places, is a mistake,
// and would be offered twice. The error lists all faults.
func parse(text, defaultRole string) (resources.Resources, error) {
	all, err := resources.Parse(text, defaultRole)
	if err != nil {
		return resources.Resources{}, err
	}
	var faults []error
	var parts []resources.Resources
	for _, entry := range entries(text) {
		part, err := resources.Parse(entry, defaultRole)
		if err != nil {
			return resources.Resources{}, err
		}
		for _, other := range parts {
			faults = append(faults, clash(part, other)...)
		}
		parts = append(parts, part)
	}
	for _, r := range all.Ports() {
		if r.Begin == 0 || r.End > 65535 {
			faults = append(faults, fmt.Errorf("ports %d-%d are not between 1 and 65535", r.Begin, r.End))
		}
	}
	return all, errors.Join(faults...)
}

// entries splits a text into its entries, each of which reads alone.
func entries(text string) []string {
	var list []json.RawMessage
	if strings.HasPrefix(strings.TrimSpace(text), "[") && json.Unmarshal([]byte(text), &list) == nil {
		out := make([]string, len(list))
		for i, e := range list {
			out[i] = "[" + string(e) + "]"
		}
		return out
	}
	return strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' })
}

// clash lists what two entries have both.
func clash(a, b resources.Resources) (faults []error) {
	for _, name := range a.Names() {
		for _, x := range a.Ranges(name) {
			for _, y := range b.Ranges(name) {
				if x.Begin <= y.End && y.Begin <= x.End {
					faults = append(faults, fmt.Errorf("%s %d-%d are there twice", name, max(x.Begin, y.Begin), min(x.End, y.End)))
				}
			}
		}
		for _, x := range a.Set(name) {
			for _, y := range b.Set(name) {
				if x == y {
					faults = append(faults, fmt.Errorf("%q of %s is there twice", x, name))
				}
			}
		}
		// Two disks may be of one size; of what is a plain amount there is one for each role.
		pa, pb := a.Proto(), b.Proto()
		if len(a.Ranges(name)) == 0 && len(a.Set(name)) == 0 && pa[0].GetDisk() == nil && len(pb) > 0 && pb[0].GetDisk() == nil &&
			pb[0].GetName() == name && roleOf(a) == roleOf(b) {
			faults = append(faults, fmt.Errorf("%s is there twice: %s and %s", name, a, b))
		}
	}
	return faults
}

func roleOf(r resources.Resources) string { return strings.Join(r.ReservedRoles(), ",") }

// beyond tells of what an operator says to be there and is not. It is offered all the same: he may know better.
func (m Machine) beyond(said resources.Resources, cfg Config, gpus int) (problems []string) {
	tell := func(name, unit string, has float64, err error) {
		if want := float64(said.Scalar(name)) / 1000; err == nil && want > has {
			problems = append(problems, fmt.Sprintf("--resources offers %s:%g, and this machine has %.6g%s: tasks may get less than they are promised", name, want, has, unit))
		}
	}
	cpus := float64(m.CPUs())
	if limit, ok := m.cpuLimit(); ok && limit < cpus {
		cpus = limit
	}
	tell(resources.CPUs, "", cpus, nil)
	total, err := m.memTotal()
	if limit, ok := m.memLimit(); ok && limit < total {
		total = limit
	}
	tell(resources.Mem, " MB", float64(total)/mib, err)
	// A disk with a source is one of its own.
	disk := said.Filter(func(r *mesos.Resource) bool { return r.GetDisk().GetSource() == nil })
	size, err := m.DiskBytes(existing(cfg.WorkDir))
	if want := float64(disk.Scalar(resources.Disk)) / 1000; err == nil && want > float64(size)/mib {
		problems = append(problems, fmt.Sprintf("--resources offers disk:%g, and the file system of %q has %d MB", want, cfg.WorkDir, size/mib))
	}
	switch want := float64(said.Scalar(resources.GPUs)) / 1000; {
	case want > 0 && !cfg.GPUs:
		problems = append(problems, "--resources offers gpus, and --isolation has no gpu/nvidia: tasks get no GPU")
	case want > float64(gpus):
		problems = append(problems, fmt.Sprintf("--resources offers gpus:%g, and this machine has %d", want, gpus))
	}
	return problems
}
