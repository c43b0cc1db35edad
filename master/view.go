package master

import (
	"cmp"
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// View is the state of the master at one moment. It is shared by all readers: nothing in it may be modified.
type View struct {
	// Version is that of the state: two views of the same version are the same.
	Version  uint64
	Taken    time.Time
	Standing Standing
	Info     *mesos.MasterInfo
	Started  time.Time
	// Elected is zero on a master that never led.
	Elected time.Time
	Cluster string
	Flags   map[string]string
	// Weights are those of roles that have one.
	Weights map[string]float64
	// Quotas are those of roles that have one.
	Quotas map[string]allocator.Quota
	// WeightsFault and QuotaFault tell why Weights or Quotas may not be what operators set; nil where they are.
	WeightsFault, QuotaFault error
	// Software is the version of this software.
	Software string

	// Agents, in order of ids, leave out the unreachable ones, of which only the ids are told, and Recovered: those that
	// this leader knows from the mesh's memory alone, and has not seen alive.
	Agents, Recovered []AgentView
	Unreachable       []string
	// Operations are those that agents have not finished, or whose end is not acknowledged.
	Operations []*mesos.Operation
	// Roles are the only ones allowed, besides "*"; empty where all are.
	Roles []string
	// Frameworks and Completed are in order of ids.
	Frameworks, Completed []FrameworkView
}

// AgentView shows an agent.
type AgentView struct {
	Info    *mesos.AgentInfo
	PID     string
	Version string
	// Connected is set while the mesh thinks that it lives, Active while it is offered, Deactivated while an operator, or
	// draining, keeps it from that.
	Connected, Active, Deactivated bool
	// Drain is nil unless an operator drains the agent or has drained it; DrainStart is zero where it is not known.
	Drain                    *mesos.DrainInfo
	DrainStart               time.Time
	Registered, Reregistered time.Time // the latter may be zero
	// Total is what it has, Used what tasks and executors hold, by role, and Offered what is in offers.
	Total, Used, Offered resources.Resources
	Capabilities         []*mesos.AgentInfo_Capability
}

// FrameworkView shows a framework.
type FrameworkView struct {
	Info                         *mesos.FrameworkInfo
	Roles                        []string
	Suppressed                   []string
	Active, Connected, Recovered bool
	// Registered, Reregistered and Unregistered are zero where they have not happened.
	Registered, Reregistered, Unregistered time.Time
	// Tasks are the active ones, Unreachable those given up with their agents, Completed those that are over.
	Tasks, Unreachable, Completed []*TaskView
	Offers                        []OfferView
	InverseOffers                 []*mesos.InverseOffer
	Executors                     []ExecutorView
	Used, Offered                 resources.Resources
	// Constraints is nil when there are none.
	Constraints *scheduler.OfferConstraints
}

// OfferView shows an outstanding offer.
type OfferView struct {
	ID, AgentID, Role string
	Resources         resources.Resources
	Message           *mesos.Offer
}

// ExecutorView shows an executor that is not a command task's own.
type ExecutorView struct {
	AgentID string
	Info    *mesos.ExecutorInfo
}

// View returns the present state. As long as nothing changes, all callers get the same.
func (m *Master) View(ctx context.Context) (*View, error) {
	if v := m.view.Load(); v != nil && v.Version == m.version.Load() {
		return v, nil
	}
	var v *View
	err := m.look(ctx, func() {
		v = m.newestView()
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// newestView makes a view, unless nothing has changed since the last one.
func (m *Master) newestView() *View {
	v := m.view.Load()
	if v == nil || v.Version != m.version.Load() {
		v = m.makeView()
		m.view.Store(v)
	}
	return v
}

func (m *Master) makeView() *View {
	v := &View{
		Version: m.version.Load(), Taken: m.now(), Standing: m.Standing(), Info: m.Info(), Started: m.started,
		Elected: m.elected, Cluster: m.cfg.Cluster, Flags: m.cfg.Flags, Weights: m.weights, Roles: m.cfg.Roles, Software: m.cfg.Version,
		Quotas: m.quotas, WeightsFault: m.weightsFault, QuotaFault: m.quotaFault,
	}
	used := make(map[string]resources.Resources)
	executors := make(map[string][]ExecutorView)
	for _, id := range slices.Sorted(maps.Keys(m.agents)) {
		a := m.agents[id]
		for key, r := range a.used {
			used[key.framework] = used[key.framework].Add(r)
		}
		if !a.unreachable.IsZero() {
			v.Unreachable = append(v.Unreachable, id)
			continue
		}
		if m.term != nil && !a.listed() {
			v.Recovered = append(v.Recovered, a.view())
			continue
		}
		v.Agents = append(v.Agents, a.view())
		keys := slices.SortedFunc(maps.Keys(a.executors), func(x, y executorKey) int {
			return cmp.Or(cmp.Compare(x.framework, y.framework), cmp.Compare(x.executor, y.executor))
		})
		for _, key := range keys {
			executors[key.framework] = append(executors[key.framework], ExecutorView{AgentID: id, Info: a.executors[key].info})
			used[key.framework] = used[key.framework].Add(a.executors[key].held)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.frameworks)) {
		f := m.frameworks[id]
		fv := m.viewFramework(f)
		fv.Used, fv.Executors = used[id], executors[id]
		v.Frameworks = append(v.Frameworks, fv)
	}
	v.Operations = m.viewOperations()
	for _, f := range m.completed {
		v.Completed = append(v.Completed, m.viewFramework(f))
	}
	return v
}

func (a *agent) view() AgentView {
	v := AgentView{
		Info: &mesos.AgentInfo{
			Hostname: proto.String(a.node.GetHostname()), Port: proto.Int32(int32(a.node.GetPort())),
			Resources: a.total.ProtoEndpoint(), Attributes: a.attributes, Id: agentID(a.id), Domain: a.domain(),
		},
		PID:     "slave(1)@" + net.JoinHostPort(a.node.GetAddress(), strconv.Itoa(int(a.node.GetPort()))),
		Version: MesosVersion, Connected: a.alive(), Active: a.active(), Deactivated: a.draining || a.restriction != nil, Drain: a.restriction.info(), DrainStart: a.restriction.started(),
		Registered: a.registered, Reregistered: a.reregistered, Total: a.total,
	}
	for _, r := range a.used {
		v.Used = v.Used.Add(r)
	}
	for _, e := range a.executors {
		v.Used = v.Used.Add(e.held)
	}
	for _, o := range a.offers {
		v.Offered = v.Offered.Add(o.resources)
	}
	// What every agent of this software can do.
	for _, c := range []mesos.AgentInfo_Capability_Type{
		mesos.AgentInfo_Capability_MULTI_ROLE, mesos.AgentInfo_Capability_HIERARCHICAL_ROLE,
		mesos.AgentInfo_Capability_RESERVATION_REFINEMENT, mesos.AgentInfo_Capability_RESIZE_VOLUME,
		mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK,
	} {
		v.Capabilities = append(v.Capabilities, &mesos.AgentInfo_Capability{Type: c.Enum()})
	}
	for _, name := range a.node.GetCapabilities() {
		if n, ok := mesos.AgentInfo_Capability_Type_value[name]; ok {
			v.Capabilities = append(v.Capabilities, &mesos.AgentInfo_Capability{Type: mesos.AgentInfo_Capability_Type(n).Enum()})
		}
	}
	return v
}

func (m *Master) viewFramework(f *framework) FrameworkView {
	v := FrameworkView{
		Info: f.info, Roles: f.roles, Suppressed: f.suppressedRoles(), Active: f.active, Connected: f.connected,
		Recovered: f.recovered, Registered: f.registered, Reregistered: f.reregistered, Unregistered: f.unregistered,
		Completed: f.completed, Constraints: f.constraints,
	}
	for _, id := range slices.Sorted(maps.Keys(f.tasks)) {
		if t := f.tasks[id]; t.unreachable.IsZero() {
			v.Tasks = append(v.Tasks, m.show(t))
		} else {
			v.Unreachable = append(v.Unreachable, m.show(t))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(f.offers)) {
		o := f.offers[id]
		v.Offers = append(v.Offers, OfferView{ID: o.id, AgentID: o.agent.id, Role: o.role, Resources: o.resources, Message: o.message()})
		v.Offered = v.Offered.Add(o.resources)
	}
	for _, id := range slices.Sorted(maps.Keys(f.inverse)) {
		v.InverseOffers = append(v.InverseOffers, f.inverse[id].message())
	}
	return v
}

// stateShown is the newest state of a task, or that of one given up with its agent.
func (m *Master) stateShown(t *task) mesos.TaskState {
	if t.unreachable.IsZero() {
		return t.state
	}
	if f := m.frameworks[t.key.framework]; f != nil {
		return f.degrade(mesos.TaskState_TASK_UNREACHABLE)
	}
	return mesos.TaskState_TASK_UNREACHABLE
}
