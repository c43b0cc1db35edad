package master

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
	"starling/master/validation"
)

// operation is one on reservations and volumes that an agent has not finished, or whose end the framework has not
// acknowledged. The agent is the truth about it.
type operation struct {
	uuid      string // 16 bytes
	framework string // empty for an operator's
	agent     string
	info      *mesos.Offer_Operation
	change    resources.Conversion
	// held is what it takes and makes, until the agent's record shows what came of it.
	held held
	// over is set once no further attempt will be made to have it carried out; asked while the agent was asked afterwards what
	// it knows.
	over, asked bool
	// awaited is set while it waits for a framework that nobody here knows.
	awaited bool
	// gone is set once nobody wants to hear of it any more: it stays listed only while something is held for it.
	gone bool
	// latest is the newest status; nil while it is pending.
	latest *mesos.OperationStatus
}

// operate has an operation of an ACCEPT carried out. What it makes is there for what follows in the same ACCEPT.
func (m *Master) operate(f *framework, a *agent, role string, p *pool, given *mesos.Offer_Operation) {
	op := proto.CloneOf(given)
	allocateOperation(op, role)
	change, err := validation.Operation(op, validation.OperationContext{
		Framework: f.info, Principal: f.info.GetPrincipal(), Pool: p.all(), Volumes: m.volumes(a), Used: m.inUse(a),
	})
	if err != nil {
		m.refuseOperation(f, a, op, err.Error())
		return
	}
	o := &operation{framework: f.id, agent: a.id, info: op, change: change, held: m.setAside(f, role, a, p.take(change.Takes))}
	switch op.GetType() {
	case mesos.Offer_Operation_GROW_VOLUME, mesos.Offer_Operation_SHRINK_VOLUME:
		// Of another size only once the agent says so.
	default:
		p.made = p.made.Add(change.Gives)
	}
	m.sendOperation(a, o)
}

// allocateOperation marks the resources of an operation as allocated to a role.
func allocateOperation(op *mesos.Offer_Operation, role string) {
	allocate(op.GetReserve().GetResources(), role)
	allocate(op.GetUnreserve().GetResources(), role)
	allocate(op.GetCreate().GetVolumes(), role)
	allocate(op.GetDestroy().GetVolumes(), role)
	if g := op.GetGrowVolume(); g != nil {
		allocate([]*mesos.Resource{g.Volume, g.Addition}, role)
	}
	if s := op.GetShrinkVolume(); s != nil {
		allocate([]*mesos.Resource{s.Volume}, role)
	}
}

// volumes are the persistent volumes of an agent once the operations under way are through.
func (m *Master) volumes(a *agent) resources.Resources {
	all := a.total.Volumes()
	for _, o := range a.operations {
		if o.latest == nil {
			gives := o.change.Gives.Unallocated().Volumes()
			all = all.Sub(o.change.Takes.Unallocated().Volumes()).Sub(gives).Add(gives)
		}
	}
	return all
}

// inUse is what tasks use on an agent, those on their way included; not allocated.
func (m *Master) inUse(a *agent) resources.Resources {
	var all resources.Resources
	for _, r := range a.used {
		all = all.Add(r.Unallocated())
	}
	for l := range a.launches {
		for _, r := range l.held {
			all = all.Add(r.Unallocated())
		}
	}
	return all
}

// sendOperation lists an operation and sends it. What it takes is held already; what it makes is held from now on, since
// the record may show it before the answer comes.
func (m *Master) sendOperation(a *agent, o *operation) {
	id := uuid.New()
	o.uuid = string(id[:])
	o.held = append(o.held, m.setAsideMade(a, o.change.Gives)...)
	m.operations[o.uuid], a.operations[o.uuid] = o, o
	apply := &nodeapi.Apply{Operations: []*mesos.Offer_Operation{o.info}, Uuids: [][]byte{id[:]}}
	if o.framework != "" {
		apply.FrameworkId = &mesos.FrameworkID{Value: proto.String(o.framework)}
	}
	e := &errand{
		call: &nodeapi.Call{Call: &nodeapi.Call_Apply{Apply: apply}}, patience: m.cfg.LaunchPatience,
		wanted: func() bool { return o.latest == nil }, // a report may tell the end before an answer does
	}
	e.done = func(err error) { m.operated(a, o, e.reply, err) }
	m.log.Info("operation sent", "framework_id", o.framework, "agent_id", a.id, "operation", o.kind(), "uuid", id.String())
	m.enqueue(a, &a.ordered, e)
}

func (o *operation) kind() string { return strings.ToLower(o.info.GetType().String()) }

// operated deals with the outcome of an operation's call.
func (m *Master) operated(a *agent, o *operation, reply *nodeapi.Reply, err error) {
	o.over = true
	switch {
	case err == nil && len(reply.GetOperations()) == 1:
		// The answer brought the record: what it shows as free now is free.
		m.refresh(a)
		m.releaseOperation(a, o)
		m.endOperation(a, o, reply.GetOperations()[0])
	case o.latest != nil:
		// So did the report that told the end.
		m.refresh(a)
		m.releaseOperation(a, o)
	case errors.Is(err, errUndelivered):
		m.releaseOperation(a, o)
		m.loseOperation(a, o, mesos.OperationState_OPERATION_DROPPED, "Agent disconnected")
	default:
		// Only the agent knows. Its description will tell.
		a.described = false
		m.wantDescription(a)
	}
}

// endOperation takes the end of an operation from an agent's answer. One with a uuid is reported as well, and told then.
func (m *Master) endOperation(a *agent, o *operation, status *mesos.OperationStatus) {
	if o.latest != nil {
		return
	}
	m.log.Info("operation ended", "framework_id", o.framework, "agent_id", a.id, "operation", o.kind(),
		"state", status.GetState().String(), "reason", status.GetMessage())
	m.countOperation(o.info, status.GetState())
	o.latest = status
	if status.GetUuid() != nil {
		return
	}
	m.dropOperation(o)
	if f := m.frameworks[o.framework]; f != nil && o.info.Id != nil {
		m.sendOperationStatus(f, status)
	}
}

// loseOperation ends an operation of which the agent knows nothing.
func (m *Master) loseOperation(a *agent, o *operation, state mesos.OperationState, message string) {
	m.endOperation(a, o, &mesos.OperationStatus{
		OperationId: o.info.GetId(), State: state.Enum(), AgentId: agentID(a.id), Message: proto.String(message),
	})
}

// dropOperation takes an operation off the lists, once it is over and nothing is held for it.
func (m *Master) dropOperation(o *operation) {
	o.gone = true
	if !o.over || len(o.held) > 0 {
		return
	}
	delete(m.operations, o.uuid)
	if a := m.agents[o.agent]; a != nil {
		delete(a.operations, o.uuid)
		m.syncDrain(a)
	}
}

// releaseOperation ends what is held for an operation that is over.
func (m *Master) releaseOperation(a *agent, o *operation) {
	o.over = true
	m.letGo(a, &o.held)
	if o.gone {
		m.dropOperation(o)
	}
}

// abandonOperations ends the attempts at an agent that was given up: whoever can reach it again asks it what it knows.
func (m *Master) abandonOperations(a *agent) {
	for _, o := range a.operations {
		m.releaseOperation(a, o)
		if f := m.frameworks[o.framework]; f != nil && o.info.Id != nil && !o.gone {
			m.sendOperationStatus(f, &mesos.OperationStatus{
				OperationId: o.info.GetId(), State: mesos.OperationState_OPERATION_UNREACHABLE.Enum(), AgentId: agentID(a.id),
				Message: proto.String("Agent " + a.node.GetHostname() + " is unreachable"),
			})
		}
	}
}

// removeOperations ends the operations of an agent that is removed.
func (m *Master) removeOperations(a *agent, why removal) {
	state, message := mesos.OperationState_OPERATION_DROPPED, "Agent removed: its machine is down for maintenance"
	if why == goneByOperator {
		state, message = mesos.OperationState_OPERATION_GONE_BY_OPERATOR, "Agent removed: it was marked gone by an operator"
	}
	for _, o := range a.operations {
		if !o.gone {
			m.loseOperation(a, o, state, message)
		}
	}
	m.forgetOperations(a)
}

// forgetOperations takes all operations of an agent off the lists.
func (m *Master) forgetOperations(a *agent) {
	for _, o := range a.operations {
		m.releaseOperation(a, o)
		m.dropOperation(o)
	}
}

// operationReported takes the end of an operation from an agent's report, and forwards it.
func (m *Master) operationReported(a *agent, told *mesos.Operation) {
	m.counters.add("master/messages_operation_status_update", 1)
	if id := told.GetFrameworkId().GetValue(); m.isCompleted(id) {
		m.endFramework(a, id)
		return
	}
	o := m.adoptOperation(a, told)
	if f := m.frameworks[o.framework]; f != nil { // otherwise the agent repeats it until the framework is back
		m.sendOperationStatus(f, o.latest)
	}
}

// adoptOperation lists an operation as an agent tells of it.
func (m *Master) adoptOperation(a *agent, told *mesos.Operation) *operation {
	id := string(told.GetUuid().GetValue())
	o := a.operations[id]
	if o == nil {
		o = &operation{uuid: id, framework: told.GetFrameworkId().GetValue(), agent: a.id, info: told.GetInfo(), over: true}
		m.operations[id], a.operations[id] = o, o
	} else if o.latest == nil {
		m.countOperation(o.info, told.GetLatestStatus().GetState())
	}
	o.latest, o.gone = told.GetLatestStatus(), false
	m.awaitFramework(o)
	return o
}

// awaitFramework bounds how long the end of an operation waits for a framework that nobody here knows: the store may have been
// lost, and the agent runs none of its tasks, by which it would be met. It has as long to come back as one that is met. Then the
// end is acknowledged in its place, else it would keep the agent from being drained for ever. What the operation made stays.
func (m *Master) awaitFramework(o *operation) {
	if o.awaited || o.framework == "" || m.frameworks[o.framework] != nil || m.term == nil {
		return
	}
	o.awaited = true
	t := m.term
	m.after(m.cfg.ReregisterTimeout, func() {
		if m.term != t || m.operations[o.uuid] != o {
			return
		}
		o.awaited = false
		a := m.agents[o.agent]
		if m.frameworks[o.framework] != nil || o.gone || a == nil || !a.alive() {
			return // an agent that returns tells of it again
		}
		m.log.Warn("operation of a framework that nobody knows, acknowledged in its place", "framework_id", o.framework, "agent_id", a.id,
			"operation", o.kind(), "state", o.latest.GetState().String())
		m.acknowledgeTo(a, &nodeapi.Call{Call: &nodeapi.Call_AcknowledgeOperation{AcknowledgeOperation: &nodeapi.AcknowledgeOperation{
			FrameworkId: &mesos.FrameworkID{Value: proto.String(o.framework)}, OperationId: o.info.GetId(), Uuid: o.latest.GetUuid().GetValue(),
		}}})
		m.dropOperation(o)
	})
}

// operationsDescribed compares the list with what an agent knows of: what it does not know was not carried out, or is
// acknowledged.
func (m *Master) operationsDescribed(a *agent, told []*mesos.Operation) {
	known := make(map[string]bool)
	for _, op := range told {
		if id := op.GetFrameworkId().GetValue(); m.isCompleted(id) {
			m.endFramework(a, id)
			continue
		}
		known[string(op.GetUuid().GetValue())] = true
		m.adoptOperation(a, op)
	}
	for _, o := range a.operations {
		if !o.asked {
			continue
		}
		m.refresh(a)
		m.releaseOperation(a, o)
		switch {
		case known[o.uuid]:
		case o.latest == nil:
			m.loseOperation(a, o, mesos.OperationState_OPERATION_DROPPED, "Operation is unknown to the agent")
		default:
			m.dropOperation(o) // acknowledged, and a late report has told of it once more
		}
	}
}

// sendOperationStatus sends an UPDATE_OPERATION_STATUS, in the format that the framework asked for by its capabilities.
func (m *Master) sendOperationStatus(f *framework, status *mesos.OperationStatus) {
	if len(status.GetConvertedResources()) > 0 {
		if r, err := resources.FromProto(status.GetConvertedResources()); err == nil {
			status = proto.CloneOf(status)
			status.ConvertedResources = f.format(r)
		}
	}
	m.send(f, &scheduler.Event{
		Type:                  scheduler.Event_UPDATE_OPERATION_STATUS.Enum(),
		UpdateOperationStatus: &scheduler.Event_UpdateOperationStatus{Status: status},
	})
}

// acknowledgeOperation passes an acknowledgement on to the agent that waits for it.
func (m *Master) acknowledgeOperation(f *framework, ack *scheduler.Call_AcknowledgeOperationStatus) {
	a := m.agents[ack.GetAgentId().GetValue()]
	if a == nil || !a.alive() || len(ack.GetUuid()) != len(uuid.UUID{}) {
		m.counters.add("master/invalid_operation_status_update_acknowledgements", 1)
		m.log.Debug("acknowledgement ignored", "framework_id", f.id, "operation", ack.GetOperationId().GetValue(), "agent_id", ack.GetAgentId().GetValue())
		return
	}
	// One that an earlier leader forwarded may be acknowledged to this one: the agent knows what it waits for.
	m.counters.add("master/valid_operation_status_update_acknowledgements", 1)
	for _, o := range a.operations {
		if o.framework == f.id && bytes.Equal(o.latest.GetUuid().GetValue(), ack.GetUuid()) {
			m.dropOperation(o)
		}
	}
	m.acknowledgeTo(a, &nodeapi.Call{Call: &nodeapi.Call_AcknowledgeOperation{AcknowledgeOperation: &nodeapi.AcknowledgeOperation{
		FrameworkId: f.info.GetId(), OperationId: ack.GetOperationId(), Uuid: ack.GetUuid(),
	}}})
}

// reconcileOperations answers with the states of operations that have an id: of all, or of those asked for.
func (m *Master) reconcileOperations(f *framework, r *scheduler.Call_ReconcileOperations) {
	own := make(map[string]*operation)
	for _, o := range m.operations {
		if o.framework == f.id && o.info.Id != nil && !o.gone {
			own[o.info.GetId().GetValue()] = o
		}
	}
	if len(r.GetOperations()) == 0 {
		for _, id := range slices.Sorted(maps.Keys(own)) {
			m.sendOperationStatus(f, m.reconciledOperation(own[id]))
		}
		return
	}
	for _, asked := range r.GetOperations() {
		if o := own[asked.GetOperationId().GetValue()]; o != nil {
			m.sendOperationStatus(f, m.reconciledOperation(o))
			continue
		}
		state, message := m.unknownOperation(asked.GetAgentId().GetValue())
		m.sendOperationStatus(f, &mesos.OperationStatus{
			OperationId: asked.GetOperationId(), State: state.Enum(), AgentId: asked.GetAgentId(),
			ResourceProviderId: asked.GetResourceProviderId(), Message: proto.String("Reconciliation: " + message),
		})
	}
}

// reconciledOperation is the answer for an operation that is known: its latest status, which nobody has to acknowledge.
func (m *Master) reconciledOperation(o *operation) *mesos.OperationStatus {
	status := &mesos.OperationStatus{OperationId: o.info.GetId(), AgentId: agentID(o.agent), State: mesos.OperationState_OPERATION_PENDING.Enum()}
	if a := m.agents[o.agent]; o.latest != nil {
		status = proto.CloneOf(o.latest)
		status.Uuid = nil
	} else if a != nil && !a.unreachable.IsZero() {
		status.State = mesos.OperationState_OPERATION_UNREACHABLE.Enum()
	}
	status.Message = proto.String("Reconciliation: Latest operation status")
	return status
}

// unknownOperation is what can be said of an operation that is on no list, by the agent that it was for. Spec:
// mesos-scheduler-api.md section 6.
func (m *Master) unknownOperation(agentID string) (mesos.OperationState, string) {
	a := m.agents[agentID]
	switch {
	case agentID != "" && m.gone.has(agentID):
		return mesos.OperationState_OPERATION_GONE_BY_OPERATOR, "Agent is gone"
	case agentID == "" && !m.heardAll(), agentID != "" && a == nil && !m.settled,
		a != nil && a.unreachable.IsZero() && !a.described:
		return mesos.OperationState_OPERATION_RECOVERING, "Agent has not told its operations yet"
	case a != nil && !a.unreachable.IsZero():
		return mesos.OperationState_OPERATION_UNREACHABLE, "Agent is unreachable"
	}
	return mesos.OperationState_OPERATION_UNKNOWN, "Operation is unknown"
}

// viewOperations shows all operations, in a stable order.
func (m *Master) viewOperations() []*mesos.Operation {
	list := slices.SortedFunc(maps.Values(m.operations), func(x, y *operation) int {
		return cmp.Or(cmp.Compare(x.agent, y.agent), cmp.Compare(x.framework, y.framework),
			cmp.Compare(x.info.GetId().GetValue(), y.info.GetId().GetValue()), cmp.Compare(x.uuid, y.uuid))
	})
	var out []*mesos.Operation
	for _, o := range list {
		if o.gone {
			continue
		}
		latest := o.latest
		if latest == nil {
			latest = &mesos.OperationStatus{OperationId: o.info.GetId(), State: mesos.OperationState_OPERATION_PENDING.Enum(), AgentId: agentID(o.agent)}
		}
		shown := &mesos.Operation{
			AgentId: agentID(o.agent), Info: o.info, LatestStatus: latest, Statuses: []*mesos.OperationStatus{latest},
			Uuid: &mesos.UUID{Value: []byte(o.uuid)},
		}
		if o.framework != "" {
			shown.FrameworkId = &mesos.FrameworkID{Value: proto.String(o.framework)}
		}
		out = append(out, shown)
	}
	return out
}

// operationKinds and operationEnds are what operations are counted by.
var (
	operationKinds = []string{
		"reserve", "unreserve", "create", "destroy", "grow_volume", "shrink_volume", "create_disk", "destroy_disk",
	}
	operationEnds = []string{"finished", "failed", "error", "dropped", "gone_by_operator"}
)

// countOperation counts an operation that has ended.
func (m *Master) countOperation(op *mesos.Offer_Operation, state mesos.OperationState) {
	end := strings.ToLower(strings.TrimPrefix(state.String(), "OPERATION_"))
	m.counters.add("master/operations/"+end, 1)
	m.counters.add("master/operations/"+strings.ToLower(op.GetType().String())+"/"+end, 1)
}

// measureOperations counts those that are listed.
func (m *Master) measureOperations(out map[string]float64) {
	for _, state := range []string{"total", "pending", "recovering", "unreachable"} {
		out["master/operations/"+state] = 0
		for _, kind := range operationKinds {
			out["master/operations/"+kind+"/"+state] = 0
		}
	}
	for _, o := range m.operations {
		if o.gone {
			continue
		}
		states := []string{"total"}
		if a := m.agents[o.agent]; a != nil && !a.unreachable.IsZero() {
			states = append(states, "unreachable")
		} else if o.latest == nil {
			states = append(states, "pending")
		}
		for _, state := range states {
			out["master/operations/"+state]++
			out["master/operations/"+o.kind()+"/"+state]++
		}
	}
}
