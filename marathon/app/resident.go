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
	if !reflect.DeepEqual(persistentVolumes(old), persistentVolumes(new)) {
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
		{"portDefinitions", !slices.Equal(hostPorts(old), hostPorts(new))},
	} {
		if resource.changed {
			f.add(p.field(resource.name), "Resident Tasks may not change resource requirements!")
		}
	}
	if old.Role != new.Role && !r.Force {
		f.add(p.field("role"), "the role of a resident app can only be changed with force=true")
	}
}

func persistentVolumes(a *App) []Volume {
	if a.Container == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(a.Container.Volumes), func(v Volume) bool { return v.Persistent == nil })
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
