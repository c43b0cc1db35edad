package master

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"

	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/maintenance"
)

// machineKey names a machine: both parts must be what its agents say of themselves.
type machineKey struct{ hostname, ip string }

func keyOfMachine(id *mesos.MachineID) machineKey {
	return machineKey{strings.ToLower(id.GetHostname()), canonicalIP(id.GetIp())}
}

func machineOf(node *catalog.Node) machineKey {
	return machineKey{strings.ToLower(node.GetHostname()), canonicalIP(node.GetAddress())}
}

// canonicalIP is the one form of an address that compares with others; what is none stays what it is.
func canonicalIP(text string) string {
	if ip := net.ParseIP(text); ip != nil {
		return ip.String()
	}
	return text
}

// machineText is a machine as refusals show it.
func machineText(id *mesos.MachineID) string {
	var parts []string
	for _, member := range []struct{ name, value string }{{"hostname", id.GetHostname()}, {"ip", id.GetIp()}} {
		if member.value == "" {
			continue
		}
		value, err := json.Marshal(member.value)
		if err != nil {
			value = []byte(`"?"`) // text always encodes
		}
		parts = append(parts, fmt.Sprintf("%q:%s", member.name, value))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// plan is what operators have planned for machines. It is replaced as a whole and never modified.
type plan struct {
	schedule *maintenance.Schedule
	machines map[machineKey]*machine
}

// machine is one that is in a window. It is draining, or down.
type machine struct {
	id             *mesos.MachineID
	unavailability *mesos.Unavailability
	down           bool
}

// newPlan is the plan of a schedule without faults, with those machines down that are named.
func newPlan(schedule *maintenance.Schedule, down func(machineKey) bool) *plan {
	p := &plan{schedule: schedule, machines: make(map[machineKey]*machine)}
	for _, w := range schedule.GetWindows() {
		for _, id := range w.GetMachineIds() {
			key := keyOfMachine(id)
			p.machines[key] = &machine{id: id, unavailability: w.GetUnavailability(), down: down(key)}
		}
	}
	return p
}

// isDown tells whether a machine is down; unlisted ones are not.
func (p *plan) isDown(key machineKey) bool { m := p.machines[key]; return m != nil && m.down }

// turned is the plan with some machines in another mode: down, or, as they come up, out of the schedule.
func (p *plan) turned(ids []*mesos.MachineID, down bool) *plan {
	turned := make(map[machineKey]bool)
	for _, id := range ids {
		turned[keyOfMachine(id)] = true
	}
	if down {
		return newPlan(p.schedule, func(key machineKey) bool { return p.isDown(key) || turned[key] })
	}
	rest := &maintenance.Schedule{}
	for _, w := range p.schedule.GetWindows() {
		left := &maintenance.Window{Unavailability: w.GetUnavailability()}
		for _, id := range w.GetMachineIds() {
			if !turned[keyOfMachine(id)] {
				left.MachineIds = append(left.MachineIds, id)
			}
		}
		if len(left.GetMachineIds()) > 0 {
			rest.Windows = append(rest.Windows, left)
		}
	}
	return newPlan(rest, p.isDown)
}

// sorted returns the machines in an order that does not change from call to call.
func (p *plan) sorted() []*machine {
	out := make([]*machine, 0, len(p.machines))
	for _, m := range p.machines {
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y *machine) int { return strings.Compare(machineText(x.id), machineText(y.id)) })
	return out
}

// checkMachine finds what is wrong with the name of a machine.
func checkMachine(id *mesos.MachineID) error {
	if id.GetHostname() == "" && id.GetIp() == "" {
		return refuse(Invalid, "Both 'hostname' and 'ip' for a machine are empty")
	}
	if id.GetIp() != "" && net.ParseIP(id.GetIp()) == nil {
		return refuse(Invalid, "Failed to parse the IP '%s' of a machine", id.GetIp())
	}
	return nil
}

// checkMachines finds what is wrong with a list of machines.
func checkMachines(ids []*mesos.MachineID) error {
	if len(ids) == 0 {
		return refuse(Invalid, "List of machines is empty")
	}
	return checkUnique(ids, make(map[machineKey]bool))
}

func checkUnique(ids []*mesos.MachineID, seen map[machineKey]bool) error {
	for _, id := range ids {
		if err := checkMachine(id); err != nil {
			return err
		}
		if seen[keyOfMachine(id)] {
			return refuse(Invalid, "Machine '%s' appears more than once in the schedule", machineText(id))
		}
		seen[keyOfMachine(id)] = true
	}
	return nil
}

// checkSchedule finds what is wrong with a schedule that is to follow this plan.
func (p *plan) checkSchedule(s *maintenance.Schedule) error {
	seen := make(map[machineKey]bool)
	for _, w := range s.GetWindows() {
		if len(w.GetMachineIds()) == 0 {
			return refuse(Invalid, "List of machines in the maintenance window is empty")
		}
		if w.GetUnavailability().GetDuration().GetNanoseconds() < 0 {
			return refuse(Invalid, "Unavailability 'duration' is negative")
		}
		if err := checkUnique(w.GetMachineIds(), seen); err != nil {
			return err
		}
	}
	for _, m := range p.sorted() {
		if m.down && !seen[keyOfMachine(m.id)] {
			return refuse(Invalid, "Machine '%s' is deactivated and cannot be removed from the schedule", machineText(m.id))
		}
	}
	return nil
}
