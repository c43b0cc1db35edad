package records

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// IPSource is where addresses of a task may come from (the Mesos-DNS specification, section 4).
type IPSource string

// The sources of addresses.
const (
	// SourceNetinfo is what the task's networks say.
	SourceNetinfo IPSource = "netinfo"
	// SourceMesos and SourceDocker are labels of the task's status.
	SourceMesos  IPSource = "mesos"
	SourceDocker IPSource = "docker"
	// SourceHost is the node.
	SourceHost IPSource = "host"
)

// DefaultIPSources is what Mesos-DNS does by default.
func DefaultIPSources() []IPSource { return []IPSource{SourceNetinfo, SourceMesos, SourceHost} }

// ParseIPSources checks a list of sources: it must not be empty, nor name one twice.
func ParseIPSources(words []string) ([]IPSource, error) {
	var list []IPSource
	var faults []error
	for _, w := range words {
		switch s := IPSource(w); {
		case s != SourceNetinfo && s != SourceMesos && s != SourceDocker && s != SourceHost:
			faults = append(faults, fmt.Errorf("%q is none of netinfo, mesos, docker and host", w))
		case slices.Contains(list, s):
			faults = append(faults, fmt.Errorf("%q is there twice", w))
		default:
			list = append(list, s)
		}
	}
	if len(words) == 0 {
		faults = append(faults, errors.New("the list of IP sources is empty"))
	}
	return list, errors.Join(faults...)
}

// Addresses are all that is known of where a task is.
type Addresses struct {
	// Netinfo are those that any of its statuses told last: one without network information takes nothing back.
	Netinfo, Mesos, Docker, Host []netip.Addr
	// Published is set where ports of the task are mapped to ports of its node, as they are in a bridge network: then
	// nobody else reaches the container's own addresses, unless the network is Routable.
	Published, Routable bool
}

// Choose returns the addresses of the first source that has a valid one: all valid ones of that source, and none of the
// others. Those of a container that others cannot reach do not count.
func (a Addresses) Choose(order []IPSource) []netip.Addr {
	for _, s := range order {
		list := a.Host
		if s != SourceHost {
			if a.Published && !a.Routable {
				continue
			}
			switch s {
			case SourceNetinfo:
				list = a.Netinfo
			case SourceMesos:
				list = a.Mesos
			case SourceDocker:
				list = a.Docker
			}
		}
		var valid []netip.Addr
		for _, addr := range list {
			if addr = addr.Unmap().WithZone(""); addr.IsValid() && !addr.IsUnspecified() && !slices.Contains(valid, addr) {
				valid = append(valid, addr)
			}
		}
		if len(valid) > 0 {
			return valid
		}
	}
	return nil
}
