// Package inventory finds out what a node has: processors, memory and disk for tasks, the default ports, the hostname,
// and what an operator says of it (resources and attributes as text).
//
// What a cgroup allows counts where it is less than what the machine has: an agent in a container must not offer the
// whole host. A part is left for the system as Mesos does it: memory less 1 GiB, disk less 5 GiB, or the half where
// that would be more than the half. What can't be measured falls back to 1 cpu, 1 GiB and 10 GiB, and is told as a
// problem; nothing here fails for it. An operator may say that there is more than was found: that is told as a problem too.
package inventory

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// DefaultPorts are offered where nobody says otherwise.
const DefaultPorts = "[31000-32000]"

const (
	mib = 1 << 20
	gib = 1 << 30
)

// Machine is where the measures come from. The zero value is not useful: see ThisMachine.
type Machine struct {
	// Proc and Sys are the roots of these file systems.
	Proc, Sys string
	// CPUs is the number of logical processors that this process may run on.
	CPUs func() int
	// DiskBytes is the size of the file system that holds a path, in bytes.
	DiskBytes func(path string) (uint64, error)
	// Dev is the root of the device files.
	Dev string
	// Device tells whether a path is a device that a container can be given.
	Device func(path string) bool
}

// ThisMachine is the one that we run on.
func ThisMachine() Machine {
	return Machine{Proc: "/proc", Sys: "/sys", CPUs: runtime.NumCPU, DiskBytes: diskBytes, Dev: "/dev", Device: isDevice}
}

// Config says what to find.
type Config struct {
	// Resources is the operator's text, "cpus:4;mem:4096;ports:[31000-32000];disk(role):100" or a JSON array. What it does
	// not name of cpus, mem, disk and ports is detected.
	Resources string
	// DefaultRole is whom resources without a role are reserved for; "*" (or empty) is nobody.
	DefaultRole string
	// WorkDir is on the file system that counts as disk. It or a parent of it exists.
	WorkDir string
	// GPUs has GPUs looked for and offered; GPUDevices are the numbers of those that may be used, nil for all.
	GPUs       bool
	GPUDevices []int
}

// Detect returns the resources of the machine. The second value lists what could not be measured, for people; the error is
// a fault in the operator's text.
func (m Machine) Detect(cfg Config) (resources.Resources, []string, error) {
	var said resources.Resources
	if strings.TrimSpace(cfg.Resources) != "" {
		var err error
		if said, err = parse(cfg.Resources, cfg.DefaultRole); err != nil {
			return resources.Resources{}, nil, fmt.Errorf("cannot read resources: %w", err)
		}
	}
	named := map[string]bool{}
	for _, name := range said.Names() {
		named[name] = true
	}
	var text, problems []string
	add := func(name string, measure func() (string, error), fallback string) {
		if named[name] || mentions(cfg.Resources, name) {
			return
		}
		value, err := measure()
		if err != nil {
			problems = append(problems, fmt.Sprintf("cannot measure %s, offering %s: %v", name, fallback, err))
			value = fallback
		}
		text = append(text, name+":"+value)
	}
	add("cpus", m.cpus, "1")
	add("mem", m.mem, "1024")
	add("disk", func() (string, error) { return m.disk(cfg.WorkDir) }, "10240")
	add("ports", func() (string, error) { return DefaultPorts, nil }, DefaultPorts)
	devices, err := m.GPUs(cfg)
	if err != nil {
		return resources.Resources{}, nil, err
	}
	if cfg.GPUs && len(devices) > 0 {
		add("gpus", func() (string, error) { return fmt.Sprint(len(devices)), nil }, "0")
	}
	problems = append(problems, m.beyond(said, cfg, len(devices))...)
	if len(text) == 0 {
		return said, problems, nil
	}
	found, err := resources.Parse(strings.Join(text, ";"), cfg.DefaultRole)
	if err != nil {
		return resources.Resources{}, problems, fmt.Errorf("cannot make resources of %q: %w", text, err)
	}
	return said.Add(found), problems, nil
}

// mentions tells whether a text names a resource even with nothing of it: "ports:[]" or "disk:0" means none, and not
// that it should be looked for.
func mentions(text, name string) bool {
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		return strings.Contains(text, `"`+name+`"`)
	}
	for entry := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		key, _, _ := strings.Cut(entry, ":")
		key, _, _ = strings.Cut(key, "(")
		if strings.TrimSpace(key) == name {
			return true
		}
	}
	return false
}

func (m Machine) cpus() (string, error) {
	cpus := float64(m.CPUs())
	if limit, ok := m.cpuLimit(); ok && limit < cpus {
		cpus = limit
	}
	if cpus <= 0 {
		return "", errors.New("there are none")
	}
	return fmt.Sprintf("%.3g", cpus), nil
}

func (m Machine) mem() (string, error) {
	total, err := m.memTotal()
	if err != nil {
		return "", err
	}
	if limit, ok := m.memLimit(); ok && limit < total {
		total = limit
	}
	return fmt.Sprint(leave(total, gib) / mib), nil
}

func (m Machine) disk(workDir string) (string, error) {
	total, err := m.DiskBytes(existing(workDir))
	if err != nil {
		return "", err
	}
	return fmt.Sprint(leave(total, 5*gib) / mib), nil
}

// leave takes away what the system needs, but never more than the half.
func leave(total, system uint64) uint64 {
	if total < 2*system {
		return total / 2
	}
	return total - system
}

// Hostname returns the name that the machine gives itself.
func Hostname() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("cannot learn the hostname: %w", err)
	}
	return name, nil
}

// ParseAttributes reads attributes as operators write them, "rack:r1;level:10;ports:[1-2]": a value that is a number is
// a scalar, one in brackets ranges, anything else text; sets, in braces, are not for attributes. It starts after the first
// colon and may contain more of them; blanks don't count; a line feed separates as a semicolon does. The error lists all
// faults.
func ParseAttributes(text string) ([]*mesos.Attribute, error) {
	var out []*mesos.Attribute
	var faults []error
	for entry := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		entry = strings.Join(strings.Fields(entry), "")
		if entry == "" {
			continue
		}
		name, value, ok := strings.Cut(entry, ":")
		if !ok || name == "" {
			faults = append(faults, fmt.Errorf("attribute %q is not of the form name:value", entry))
			continue
		}
		v, err := resources.ParseValue(value)
		if err != nil {
			faults = append(faults, fmt.Errorf("attribute %q: %w", name, err))
			continue
		}
		if v.GetType() == mesos.Value_SET {
			faults = append(faults, fmt.Errorf("attribute %q: a set is no value of an attribute", name))
			continue
		}
		if v.GetType() == mesos.Value_SCALAR && strings.HasPrefix(value, "-") {
			v = &mesos.Value{Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: &value}}
		}
		out = append(out, &mesos.Attribute{Name: &name, Type: v.Type, Scalar: v.Scalar, Ranges: v.Ranges, Text: v.Text})
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("cannot read attributes: %w", errors.Join(faults...))
	}
	return out, nil
}
