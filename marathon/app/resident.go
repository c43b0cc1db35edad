package app

import (
	"reflect"
	"slices"
)

// checkResidentUpdate applies the rules for a new definition of a resident app: what its reservation was made of stays.
func checkResidentUpdate(old, new *App, r Rules, p *place, f *faults) {
	if !old.Resident() {
		return
	}
	if !reflect.DeepEqual(old.PersistentVolumes(), new.PersistentVolumes()) {
		f.add(p, "Persistent volumes can not be changed!")
	}
	for _, resource := range []struct {
		name    string
		changed bool
	}{
		{"cpus", old.CPUs != new.CPUs},
		{"mem", old.Mem != new.Mem},
		{"disk", old.Disk != new.Disk},
		{"gpus", old.GPUs != new.GPUs},
		{"requirePorts", old.RequirePorts != new.RequirePorts},
		{"portDefinitions", !slices.EqualFunc(hostPorts(old), hostPorts(new), samePort(new))},
	} {
		if resource.changed {
			f.add(p.field(resource.name), "Resident Tasks may not change resource requirements!")
		}
	}
	if old.Role != new.Role && !r.Force {
		f.add(p.field("role"), "the role of a resident app can only be changed with force=true")
	}
}

// samePort compares ports of the host. With requirePorts a port that is left open gets the number that the app has had.
func samePort(new *App) func(old, now int) bool {
	return func(old, now int) bool {
		return old == now || now == 0 && old > 0 && new.HostMode() && new.RequirePorts
	}
}

// hostPorts lists what the app takes of its host: a number, 0 for any, -1 for none.
func hostPorts(a *App) []int {
	var numbers []int
	for _, port := range a.Ports() {
		if port.HostPort == nil {
			numbers = append(numbers, -1)
		} else {
			numbers = append(numbers, *port.HostPort)
		}
	}
	return numbers
}
