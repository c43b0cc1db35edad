package validation

import (
	"errors"
	"fmt"

	"starling/master/mesos/scheduler"
)

// Call checks that a call on the scheduler API has what its type needs. The text follows "Failed to validate
// scheduler::Call: ". What is inside (the framework's description, tasks, operations) is checked by the functions for it.
func Call(call *scheduler.Call) error {
	if call.Type == nil {
		return missing("type")
	}
	kind := call.GetType()
	if kind == scheduler.Call_SUBSCRIBE {
		if call.Subscribe == nil {
			return missing("subscribe")
		}
		if call.GetSubscribe().GetFrameworkInfo().GetId().GetValue() != call.GetFrameworkId().GetValue() {
			return errors.New("'framework_id' differs from 'subscribe.framework_info.id'")
		}
		return nil
	}
	if call.FrameworkId == nil {
		return missing("framework_id")
	}
	if name, has := body(call); !has {
		return missing(name)
	}
	switch kind {
	case scheduler.Call_ACKNOWLEDGE:
		return uuid(call.GetAcknowledge().GetUuid())
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		ack := call.GetAcknowledgeOperationStatus()
		if err := uuid(ack.GetUuid()); err != nil {
			return err
		}
		if ack.AgentId == nil {
			return missing("agent_id")
		}
	case scheduler.Call_UPDATE_FRAMEWORK:
		if call.GetUpdateFramework().GetFrameworkInfo().GetId().GetValue() != call.GetFrameworkId().GetValue() {
			return errors.New("'framework_id' differs from 'update_framework.framework_info.id'")
		}
	}
	return nil
}

// body names the field that goes with a call's type, and tells whether it is there. Types without a field, and unknown
// ones, have what they need.
func body(c *scheduler.Call) (name string, has bool) {
	switch c.GetType() {
	case scheduler.Call_ACCEPT:
		return "accept", c.Accept != nil
	case scheduler.Call_DECLINE:
		return "decline", c.Decline != nil
	case scheduler.Call_ACCEPT_INVERSE_OFFERS:
		return "accept_inverse_offers", c.AcceptInverseOffers != nil
	case scheduler.Call_DECLINE_INVERSE_OFFERS:
		return "decline_inverse_offers", c.DeclineInverseOffers != nil
	case scheduler.Call_KILL:
		return "kill", c.Kill != nil
	case scheduler.Call_SHUTDOWN:
		return "shutdown", c.Shutdown != nil
	case scheduler.Call_ACKNOWLEDGE:
		return "acknowledge", c.Acknowledge != nil
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		return "acknowledge_operation_status", c.AcknowledgeOperationStatus != nil
	case scheduler.Call_RECONCILE:
		return "reconcile", c.Reconcile != nil
	case scheduler.Call_RECONCILE_OPERATIONS:
		return "reconcile_operations", c.ReconcileOperations != nil
	case scheduler.Call_MESSAGE:
		return "message", c.Message != nil
	case scheduler.Call_REQUEST:
		return "request", c.Request != nil
	case scheduler.Call_UPDATE_FRAMEWORK:
		return "update_framework", c.UpdateFramework != nil
	}
	return "", true
}

func missing(field string) error { return fmt.Errorf("Expecting '%s' to be present", field) }
