package master

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	mesosallocator "starling/master/mesos/allocator"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
	"starling/master/validation"
)

// Call takes any call but SUBSCRIBE. A nil error means that it was accepted, which promises nothing: faults of what it
// asks for appear as events. UPDATE_FRAMEWORK alone has been done by then. The error is ErrNotLeading, ErrRecovering or a
// Refusal. The call must not be modified afterwards.
func (m *Master) Call(ctx context.Context, call *scheduler.Call, streamID, principal string) error {
	var err error
	if e := m.do(ctx, func() { err = m.call(call, streamID, principal) }); e != nil {
		return e
	}
	return err
}

func (m *Master) call(call *scheduler.Call, streamID, principal string) error {
	if m.term == nil {
		return m.notLeading()
	}
	if err := validation.Call(call); err != nil {
		return refuse(Invalid, "Failed to validate scheduler::Call: %v", err)
	}
	f := m.frameworks[call.GetFrameworkId().GetValue()]
	switch {
	case f == nil:
		return refuse(Invalid, "Framework cannot be found")
	case principal != "" && principal != f.info.GetPrincipal():
		return refuse(Invalid, "Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", principal, f.info.GetPrincipal())
	case f.stream == nil || !f.connected:
		return refuse(Forbidden, "Framework is not subscribed")
	case streamID == "":
		return refuse(Invalid, "All non-subscribe calls should include the 'Mesos-Stream-Id' header")
	case streamID != f.stream.id:
		return refuse(Invalid, "The stream ID '%s' included in this request didn't match the stream ID currently associated with framework ID %s", streamID, f.id)
	}
	f.metrics.call(call.GetType())
	m.countPrincipal(f, "messages_received")
	err := m.obey(f, call)
	if m.frameworks[f.id] == f {
		m.countPrincipal(f, "messages_processed")
	}
	return err
}

// obey carries out a call that was checked.
func (m *Master) obey(f *framework, call *scheduler.Call) error {
	switch call.GetType() {
	case scheduler.Call_TEARDOWN:
		m.counters.add("master/messages_unregister_framework", 1)
		m.term.keeper.put(nil, m.removeFramework(f)...)
	case scheduler.Call_ACCEPT:
		m.counters.add("master/messages_launch_tasks", 1)
		f.metrics.accept(call.GetAccept().GetOperations())
		m.accept(f, call.GetAccept())
	case scheduler.Call_DECLINE:
		m.counters.add("master/messages_decline_offers", 1)
		m.decline(f, call.GetDecline())
	case scheduler.Call_REVIVE:
		m.counters.add("master/messages_revive_offers", 1)
		m.revive(f, call.GetRevive().GetRoles())
	case scheduler.Call_SUPPRESS:
		m.counters.add("master/messages_suppress_offers", 1)
		m.suppress(f, call.GetSuppress().GetRoles())
	case scheduler.Call_KILL:
		m.counters.add("master/messages_kill_task", 1)
		m.kill(f, call.GetKill())
	case scheduler.Call_SHUTDOWN:
		m.shutdown(f, call.GetShutdown())
	case scheduler.Call_ACKNOWLEDGE:
		m.counters.add("master/messages_status_update_acknowledgement", 1)
		m.acknowledge(f, call.GetAcknowledge())
	case scheduler.Call_RECONCILE:
		m.counters.add("master/messages_reconcile_tasks", 1)
		m.reconcile(f, call.GetReconcile())
	case scheduler.Call_RECONCILE_OPERATIONS:
		m.counters.add("master/messages_reconcile_operations", 1)
		m.reconcileOperations(f, call.GetReconcileOperations())
	case scheduler.Call_MESSAGE:
		m.counters.add("master/messages_framework_to_executor", 1)
		m.message(f, call.GetMessage())
	case scheduler.Call_REQUEST:
		// The allocator offers what there is to everyone, asked or not.
		m.counters.add("master/messages_resource_request", 1)
	case scheduler.Call_ACCEPT_INVERSE_OFFERS:
		accept := call.GetAcceptInverseOffers()
		m.answerInverse(f, accept.GetInverseOfferIds(), accept.GetFilters(), mesosallocator.InverseOfferStatus_ACCEPT)
	case scheduler.Call_DECLINE_INVERSE_OFFERS:
		decline := call.GetDeclineInverseOffers()
		m.answerInverse(f, decline.GetInverseOfferIds(), decline.GetFilters(), mesosallocator.InverseOfferStatus_DECLINE)
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		m.counters.add("master/messages_operation_status_update_acknowledgement", 1)
		m.acknowledgeOperation(f, call.GetAcknowledgeOperationStatus())
	case scheduler.Call_UPDATE_FRAMEWORK:
		return m.updateFramework(f, call.GetUpdateFramework())
	default:
		return refuse(Unsupported, "501 Not Implemented.")
	}
	return nil
}

// callRoles resolves the roles of a REVIVE or SUPPRESS: none means all. ok is false when one of them is not subscribed,
// which makes the whole call a no-op.
func (m *Master) callRoles(f *framework, roles []string) (resolved []string, ok bool) {
	if len(roles) == 0 {
		return f.roles, true
	}
	for _, role := range roles {
		if !slices.Contains(f.roles, role) {
			m.log.Info("call for a role that is not subscribed ignored", "framework_id", f.id, "role", role)
			return nil, false
		}
	}
	return roles, true
}

func (m *Master) revive(f *framework, roles []string) {
	roles, ok := m.callRoles(f, roles)
	if !ok {
		return
	}
	changed := false
	for _, role := range roles {
		changed = changed || f.suppressed[role]
		delete(f.suppressed, role)
	}
	m.alloc.Revive(f.id, roles)
	m.reviveInverse(f)
	if changed {
		m.keep(f, nil)
	}
	m.wantAllocation()
}

func (m *Master) suppress(f *framework, roles []string) {
	roles, ok := m.callRoles(f, roles)
	if !ok {
		return
	}
	changed := false
	for _, role := range roles {
		changed = changed || !f.suppressed[role]
		f.suppressed[role] = true
	}
	m.alloc.Suppress(f.id, roles)
	if changed {
		m.keep(f, nil)
	}
}

func (m *Master) shutdown(f *framework, shutdown *scheduler.Call_Shutdown) {
	a := m.agents[shutdown.GetAgentId().GetValue()]
	if a == nil || !a.alive() {
		m.log.Info("shutdown for an agent that is not there ignored", "framework_id", f.id, "agent_id", shutdown.GetAgentId().GetValue())
		return
	}
	m.order(a, &nodeapi.Call{Call: &nodeapi.Call_ShutdownExecutor{ShutdownExecutor: &nodeapi.ShutdownExecutor{
		FrameworkId: f.info.GetId(), ExecutorId: shutdown.GetExecutorId(),
	}}}, func(error) {})
}

func (m *Master) message(f *framework, message *scheduler.Call_Message) {
	a := m.agents[message.GetAgentId().GetValue()]
	if a == nil || !a.alive() {
		m.counters.add("master/invalid_framework_to_executor_messages", 1)
		return
	}
	m.counters.add("master/valid_framework_to_executor_messages", 1)
	m.order(a, &nodeapi.Call{Call: &nodeapi.Call_Message{Message: &nodeapi.ExecutorMessage{
		FrameworkId: f.info.GetId(), ExecutorId: message.GetExecutorId(), Data: message.GetData(),
	}}}, func(error) {})
}

// Teardown removes a framework on an operator's behalf, and returns once that is safe. A Refusal of kind Invalid means that
// there is none of that id.
func (m *Master) Teardown(ctx context.Context, id string) error {
	return m.commit(ctx, func() ([]keptDoc, error) {
		f := m.frameworks[id]
		if f == nil {
			return nil, refuse(Invalid, "No framework found with specified ID")
		}
		return m.removeFramework(f), nil
	})
}

func agentID(id string) *mesos.AgentID { return &mesos.AgentID{Value: proto.String(id)} }
