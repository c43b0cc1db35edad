package master

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	mesosallocator "starling/master/mesos/allocator"
	"starling/master/mesos/maintenance"
)

// The document "maintenance/schedule" is a maintenanceDoc: when which machines are not to be relied on, and which are down.
//
// History of the format: 1, 2026-11, first version.
const (
	prefixMaintenance = "maintenance/"
	docSchedule       = prefixMaintenance + "schedule"
)

type maintenanceDoc struct {
	Format int `json:"format"`
	// Schedule is a mesos.v1.maintenance.Schedule.
	Schedule []byte       `json:"schedule"`
	Down     []machineDoc `json:"down,omitempty"`
}

type machineDoc struct {
	Hostname string `json:"hostname,omitempty"`
	IP       string `json:"ip,omitempty"`
}

// upkeep is the maintenance of machines.
type upkeep struct {
	// planned is the newest plan, which may not be safe yet; inForce is what agents are treated by.
	planned, inForce *plan
	// fault is why the document cannot be replaced; nil while it can.
	fault error
}

// recoverMaintenance takes the plan that an earlier leader kept.
func (m *Master) recoverMaintenance(others map[string][]byte) {
	p := newPlan(&maintenance.Schedule{}, nil)
	m.upkeep = upkeep{planned: p, inForce: p}
	data, kept := others[docSchedule]
	if !kept {
		return
	}
	p, err := decodePlan(data)
	if err != nil {
		m.upkeep.fault = unreadable(docSchedule, err)
		m.log.Error("document is unreadable, no maintenance is known and none can be planned", "key", docSchedule, "err", err)
		return
	}
	m.upkeep.planned, m.upkeep.inForce = p, p
}

func decodePlan(data []byte) (*plan, error) {
	doc, schedule := new(maintenanceDoc), new(maintenance.Schedule)
	if err := json.Unmarshal(data, doc); err != nil {
		return nil, err
	}
	if doc.Format != docFormat {
		return nil, fmt.Errorf("format %d is not known", doc.Format)
	}
	if err := proto.Unmarshal(doc.Schedule, schedule); err != nil {
		return nil, err
	}
	p := newPlan(schedule, func(machineKey) bool { return false })
	if err := p.checkSchedule(schedule); err != nil {
		return nil, err
	}
	for _, down := range doc.Down {
		id := &mesos.MachineID{Hostname: &down.Hostname, Ip: &down.IP}
		listed := p.machines[keyOfMachine(id)]
		if listed == nil {
			return nil, fmt.Errorf("machine %s is down and not scheduled", machineText(id))
		}
		listed.down = true
	}
	return p, nil
}

func (p *plan) encode() (keptDoc, error) {
	schedule, err := proto.Marshal(p.schedule)
	if err != nil {
		return keptDoc{}, fmt.Errorf("cannot encode schedule: %w", err)
	}
	doc := maintenanceDoc{Format: docFormat, Schedule: schedule}
	for _, machine := range p.sorted() {
		if machine.down {
			doc.Down = append(doc.Down, machineDoc{Hostname: machine.id.GetHostname(), IP: machine.id.GetIp()})
		}
	}
	return encodeDoc(docSchedule, doc)
}

// changePlan replaces the plan by what change makes of it. It has effects once it is safe.
func (m *Master) changePlan(ctx context.Context, change func(*plan) (*plan, error)) error {
	return m.commitThen(ctx, func() ([]keptDoc, func(), error) {
		if m.upkeep.fault != nil {
			return nil, nil, m.upkeep.fault
		}
		next, err := change(m.upkeep.planned)
		if err != nil {
			return nil, nil, err
		}
		doc, err := next.encode()
		if err != nil {
			return nil, nil, err
		}
		m.upkeep.planned = next
		return []keptDoc{doc}, func() { m.enforce(next) }, nil
	})
}

// UpdateMaintenance replaces the schedule of maintenance. The error may be a Refusal. The schedule must not be modified
// afterwards.
func (m *Master) UpdateMaintenance(ctx context.Context, s *maintenance.Schedule) error {
	return m.changePlan(ctx, func(p *plan) (*plan, error) {
		if err := p.checkSchedule(s); err != nil {
			return nil, err
		}
		return newPlan(s, p.isDown), nil
	})
}

// StartMaintenance takes machines down: their agents end what they run, and are refused until StopMaintenance. The error may
// be a Refusal.
func (m *Master) StartMaintenance(ctx context.Context, ids []*mesos.MachineID) error {
	return m.changePlan(ctx, func(p *plan) (*plan, error) {
		if err := checkMachines(ids); err != nil {
			return nil, err
		}
		for _, id := range ids {
			switch listed := p.machines[keyOfMachine(id)]; {
			case listed == nil:
				return nil, refuse(Invalid, "Machine '%s' is not part of a maintenance schedule", machineText(id))
			case listed.down:
				return nil, refuse(Invalid, "Machine '%s' is not in DRAINING mode and cannot be brought down", machineText(id))
			}
		}
		return p.turned(ids, true), nil
	})
}

// StopMaintenance brings machines up again, and takes them out of the schedule. The error may be a Refusal.
func (m *Master) StopMaintenance(ctx context.Context, ids []*mesos.MachineID) error {
	return m.changePlan(ctx, func(p *plan) (*plan, error) {
		if err := checkMachines(ids); err != nil {
			return nil, err
		}
		for _, id := range ids {
			switch listed := p.machines[keyOfMachine(id)]; {
			case listed == nil:
				return nil, refuse(Invalid, "Machine '%s' is not part of a maintenance schedule", machineText(id))
			case !listed.down:
				return nil, refuse(Invalid, "Machine '%s' is not in DOWN mode and cannot be brought up", machineText(id))
			}
		}
		return p.turned(ids, false), nil
	})
}

// enforce treats all agents by a plan that is safe.
func (m *Master) enforce(p *plan) {
	m.upkeep.inForce = p
	for _, a := range m.agents {
		if p.isDown(machineOf(a.node)) {
			m.removeAgent(a, machineDown)
			if s := m.cfg.Mesh.Snapshot(a.id); s != nil {
				m.readNode(s)
			}
			continue
		}
		m.seatWindow(a)
	}
	m.readOutcasts()
	m.log.Info("maintenance planned", "machines", len(p.machines))
}

// seatWindow sets when an agent's machine is not to be relied on. What was offered or asked without knowing is taken back.
func (m *Master) seatWindow(a *agent) {
	var window *mesos.Unavailability
	if listed := m.upkeep.inForce.machines[machineOf(a.node)]; listed != nil {
		window = listed.unavailability
	}
	if proto.Equal(window, a.window) {
		return
	}
	m.rescindInverse(a)
	a.window = window
	clear(a.answers)
	for _, f := range m.frameworks {
		f.forgetInverse(a.id)
	}
	m.rescindAgent(a)
	m.wantInverse(a)
	m.wantAllocation()
}

// MaintenanceSchedule returns the schedule. It is shared and must not be modified.
func (m *Master) MaintenanceSchedule(ctx context.Context) (*maintenance.Schedule, error) {
	schedule := &maintenance.Schedule{}
	err := m.look(ctx, func() {
		if m.upkeep.inForce != nil {
			schedule = m.upkeep.inForce.schedule
		}
	})
	return schedule, err
}

// MaintenanceStatus returns which machines are draining, with what frameworks said to it, and which are down.
func (m *Master) MaintenanceStatus(ctx context.Context) (*maintenance.ClusterStatus, error) {
	out := &maintenance.ClusterStatus{}
	err := m.look(ctx, func() {
		if m.upkeep.inForce == nil {
			return
		}
		said := make(map[machineKey][]*mesosallocator.InverseOfferStatus)
		for _, a := range m.agents {
			if a.window == nil {
				continue
			}
			key := machineOf(a.node)
			for _, status := range a.answers {
				said[key] = append(said[key], status)
			}
		}
		for _, machine := range m.upkeep.inForce.sorted() {
			if machine.down {
				out.DownMachines = append(out.DownMachines, machine.id)
				continue
			}
			statuses := said[keyOfMachine(machine.id)]
			slices.SortFunc(statuses, func(x, y *mesosallocator.InverseOfferStatus) int {
				return cmp.Or(cmp.Compare(x.GetFrameworkId().GetValue(), y.GetFrameworkId().GetValue()),
					cmp.Compare(x.GetTimestamp().GetNanoseconds(), y.GetTimestamp().GetNanoseconds()))
			})
			out.DrainingMachines = append(out.DrainingMachines, &maintenance.ClusterStatus_DrainingMachine{Id: machine.id, Statuses: statuses})
		}
	})
	return out, err
}
