package master

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
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
	Agents, Recovered []*AgentView
	Unreachable       []string
	// Operations are those that agents have not finished, or whose end is not acknowledged.
	Operations []*mesos.Operation
	// Roles are the only ones allowed, besides "*"; empty where all are.
	Roles []string
	// Frameworks and Completed are in order of ids.
	Frameworks, Completed []FrameworkView
}

// AgentView shows an agent. While nothing in it changes, views share it: what is made of it can be kept by its address.
type AgentView struct {
	Info    *mesos.AgentInfo
	PID     string
	Version string
	// Connected is set while the mesh thinks that it lives, Active while it is offered, Deactivated while an operator, or
	// draining, keeps it from that.
	Connected, Active, Deactivated bool
	// Drain is nil unless an operator, or the agent by its own record, drains it or has drained it; DrainStart is zero where it is
	// not known.
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
	Tasks, Unreachable, Completed TaskList
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

// View returns the present state. As long as nothing changes, all callers get the same; while it does, all who ask before the
// loop comes to it share one, so that a crowd of readers costs the loop no more than one of them.
func (m *Master) View(ctx context.Context) (*View, error) {
	for {
		if v := m.view.Load(); v != nil && v.Version == m.version.Load() {
			return v, nil
		}
		m.viewing.Lock()
		q := m.viewAsked
		first := q == nil
		if first {
			q = &viewRequest{done: make(chan struct{})}
			m.viewAsked = q
		}
		m.viewing.Unlock()
		if first {
			m.fetchView(ctx, q)
			return q.view, q.err
		}
		select {
		case <-q.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if q.err == nil || errors.Is(q.err, ErrStopped) {
			return q.view, q.err
		}
		// Whoever asked for all had no more time.
	}
}

// viewRequest is one view for all who asked for it before the loop began to make it.
type viewRequest struct {
	done chan struct{} // closed once view or err is set
	view *View
	err  error
}

// fetchView has the loop make what was asked for.
func (m *Master) fetchView(ctx context.Context, q *viewRequest) {
	begin := func() { // whoever asks from here on gets a later one
		m.viewing.Lock()
		defer m.viewing.Unlock()
		if m.viewAsked == q {
			m.viewAsked = nil
		}
	}
	var v *View
	err := m.look(ctx, func() {
		begin()
		v = m.newestView()
	})
	if err == nil {
		q.view = v
	} else {
		begin()
		q.err = err
	}
	close(q.done)
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
	executors, held := make(map[string][]ExecutorView), make(map[string]resources.Resources)
	for _, a := range m.agentsInOrder() {
		if !a.unreachable.IsZero() {
			v.Unreachable = append(v.Unreachable, a.id)
			continue
		}
		if m.term != nil && !a.listed() {
			v.Recovered = append(v.Recovered, m.viewAgent(a))
			continue
		}
		v.Agents = append(v.Agents, m.viewAgent(a))
		if len(a.executors) == 0 {
			continue
		}
		keys := slices.SortedFunc(maps.Keys(a.executors), func(x, y executorKey) int {
			return cmp.Or(cmp.Compare(x.framework, y.framework), cmp.Compare(x.executor, y.executor))
		})
		for _, key := range keys {
			if info := a.executors[key].info; info != nil {
				executors[key.framework] = append(executors[key.framework], ExecutorView{AgentID: a.id, Info: info})
			}
			held[key.framework] = held[key.framework].Add(a.executors[key].held)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.frameworks)) {
		fv := m.viewFramework(m.frameworks[id])
		fv.Executors, fv.Used = executors[id], fv.Used.Add(held[id])
		v.Frameworks = append(v.Frameworks, fv)
	}
	v.Operations = m.viewOperations()
	for _, f := range m.completed {
		v.Completed = append(v.Completed, m.viewFramework(f))
	}
	return v
}

// agentsInOrder lists all agents in order of their ids. They rarely come and go.
func (m *Master) agentsInOrder() []*agent {
	same := len(m.inOrder) == len(m.agents)
	for _, a := range m.inOrder {
		if !same {
			break
		}
		same = m.agents[a.id] == a
	}
	if !same {
		m.inOrder = slices.SortedFunc(maps.Values(m.agents), func(x, y *agent) int { return cmp.Compare(x.id, y.id) })
	}
	return m.inOrder
}

// agentLook is what is kept of how an agent was shown last.
type agentLook struct {
	view *AgentView
	// node is what the view's Info, PID and Capabilities were made of.
	node *catalog.Node
	// used and offered are set while the view's sums are right.
	used, offered bool
}

// viewAgent shows an agent: with the same address as before unless something changed.
func (m *Master) viewAgent(a *agent) *AgentView {
	old := a.look.view
	drain, started := m.drainShown(a)
	v := AgentView{
		Version: MesosVersion, Connected: a.alive(), Active: a.active(), Deactivated: a.draining || a.restriction != nil,
		Drain: drain, DrainStart: started,
		Registered: a.registered, Reregistered: a.reregistered, Total: a.total,
	}
	same := old != nil && a.look.node == a.node && old.Total.Equal(a.total)
	if same {
		v.Info, v.PID, v.Capabilities = old.Info, old.PID, old.Capabilities
	} else {
		v.Info = &mesos.AgentInfo{
			Hostname: proto.String(a.node.GetHostname()), Port: proto.Int32(int32(a.node.GetPort())),
			Resources: a.total.ProtoEndpoint(), Attributes: a.attributes, Id: agentID(a.id), Domain: a.domain(),
		}
		v.PID = "slave(1)@" + net.JoinHostPort(a.node.GetAddress(), strconv.Itoa(int(a.node.GetPort())))
		v.Capabilities = a.capabilities()
	}
	if same && a.look.used {
		v.Used = old.Used
	} else {
		for _, r := range a.used {
			v.Used = v.Used.Add(r)
		}
	}
	if same && a.look.offered {
		v.Offered = old.Offered
	} else {
		for _, o := range a.offers {
			v.Offered = v.Offered.Add(o.resources)
		}
	}
	same = same && a.look.offered && v.Used.Equal(old.Used) && v.Connected == old.Connected && v.Active == old.Active && v.Deactivated == old.Deactivated &&
		proto.Equal(v.Drain, old.Drain) && v.DrainStart.Equal(old.DrainStart) && v.Registered.Equal(old.Registered) && v.Reregistered.Equal(old.Reregistered)
	if same {
		a.look.used = true
		return old
	}
	shown := new(AgentView) // and not v itself, which would cost an allocation each time
	*shown = v
	a.look = agentLook{view: shown, node: a.node, used: true, offered: true}
	return shown
}

// capabilities are those of every agent of this software, and those that it tells of itself.
func (a *agent) capabilities() []*mesos.AgentInfo_Capability {
	var out []*mesos.AgentInfo_Capability
	for _, c := range []mesos.AgentInfo_Capability_Type{
		mesos.AgentInfo_Capability_MULTI_ROLE, mesos.AgentInfo_Capability_HIERARCHICAL_ROLE,
		mesos.AgentInfo_Capability_RESERVATION_REFINEMENT, mesos.AgentInfo_Capability_RESIZE_VOLUME,
		mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK,
	} {
		out = append(out, &mesos.AgentInfo_Capability{Type: c.Enum()})
	}
	for _, name := range a.node.GetCapabilities() {
		if n, ok := mesos.AgentInfo_Capability_Type_value[name]; ok {
			out = append(out, &mesos.AgentInfo_Capability{Type: mesos.AgentInfo_Capability_Type(n).Enum()})
		}
	}
	return out
}

func (m *Master) viewFramework(f *framework) FrameworkView {
	v := FrameworkView{
		Info: f.info, Roles: f.roles, Suppressed: f.suppressedRoles(), Active: f.active, Connected: f.connected,
		Recovered: f.recovered, Registered: f.registered, Reregistered: f.reregistered, Unregistered: f.unregistered,
		Completed: f.completed.pages, Constraints: f.constraints,
	}
	f.tasks.show(m.show)
	v.Tasks, v.Unreachable, v.Used = f.tasks.live, f.tasks.unreachable, f.tasks.held
	if f.look == nil {
		f.look = new(offersLook)
		for _, id := range slices.Sorted(maps.Keys(f.offers)) {
			o := f.offers[id]
			f.look.offers = append(f.look.offers, OfferView{ID: o.id, AgentID: o.agent.id, Role: o.role, Resources: o.resources, Message: o.sent})
		}
		f.look.sum = resources.Sum(func(yield func(resources.Resources) bool) {
			for _, o := range f.offers {
				if !yield(o.resources) {
					return
				}
			}
		})
	}
	v.Offers, v.Offered = f.look.offers, f.look.sum
	for _, id := range slices.Sorted(maps.Keys(f.inverse)) {
		v.InverseOffers = append(v.InverseOffers, f.inverse[id].message())
	}
	return v
}

// offersLook is what is kept of how a framework's offers were shown last.
type offersLook struct {
	offers []OfferView
	sum    resources.Resources
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
