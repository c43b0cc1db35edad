package executor

import (
	"errors"
	"fmt"

	"starling/master/mesos"
	protocol "starling/master/mesos/executor"
)

// CheckCall checks that a call of an executor has what its type needs. The text follows "Failed to validate Executor::Call: ".
func CheckCall(call *protocol.Call) error {
	switch {
	case call.Type == nil:
		return expecting("type")
	case call.GetExecutorId().GetValue() == "":
		return expecting("executor_id")
	case call.GetFrameworkId().GetValue() == "":
		return expecting("framework_id")
	}
	switch call.GetType() {
	case protocol.Call_SUBSCRIBE:
		if call.Subscribe == nil {
			return expecting("subscribe")
		}
		for _, u := range call.GetSubscribe().GetUnacknowledgedUpdates() {
			if err := checkUpdate(call, u.GetStatus()); err != nil {
				return err
			}
		}
	case protocol.Call_UPDATE:
		if call.Update == nil {
			return expecting("update")
		}
		return checkUpdate(call, call.GetUpdate().GetStatus())
	case protocol.Call_MESSAGE:
		if call.Message == nil {
			return expecting("message")
		}
	case protocol.Call_HEARTBEAT, protocol.Call_UNKNOWN:
	}
	return nil
}

func expecting(field string) error { return fmt.Errorf("Expecting '%s' to be present", field) }

// statusMax is the size of a status, in bytes, that an executor may send: many of them go in one report.
const statusMax = 512 << 10

func checkUpdate(call *protocol.Call, st *mesos.TaskStatus) error {
	switch id := st.GetExecutorId(); {
	case st.GetTaskId().GetValue() == "":
		return expecting("status.task_id")
	case st.Uuid == nil:
		return expecting("status.uuid")
	case len(st.GetUuid()) != 16:
		return fmt.Errorf("Not a valid UUID: 'status.uuid' has %d bytes, 16 are expected", len(st.GetUuid()))
	case id != nil && id.GetValue() != call.GetExecutorId().GetValue():
		return fmt.Errorf("ExecutorID in Call: %s does not match ExecutorID in TaskStatus: %s", call.GetExecutorId().GetValue(), id.GetValue())
	case st.GetSource() != mesos.TaskStatus_SOURCE_EXECUTOR:
		return fmt.Errorf("Received Call from executor %s of framework %s with invalid source, expecting 'SOURCE_EXECUTOR'",
			call.GetExecutorId().GetValue(), call.GetFrameworkId().GetValue())
	case st.GetState() == mesos.TaskState_TASK_STAGING:
		return fmt.Errorf("Received TASK_STAGING from executor %s of framework %s which is not allowed",
			call.GetExecutorId().GetValue(), call.GetFrameworkId().GetValue())
	case len(st.GetData())+len(st.GetMessage()) > statusMax:
		return fmt.Errorf("'status' has more than %d bytes of data and message", statusMax)
	}
	if c := st.GetCheckStatus(); c != nil {
		return checkCheckStatus(c)
	}
	return nil
}

func checkCheckStatus(c *mesos.CheckStatusInfo) error {
	if c.Type == nil {
		return errors.New("CheckStatusInfo must specify 'type'")
	}
	given := map[mesos.CheckInfo_Type]bool{
		mesos.CheckInfo_COMMAND: c.Command != nil, mesos.CheckInfo_HTTP: c.Http != nil, mesos.CheckInfo_TCP: c.Tcp != nil,
	}
	for kind, has := range given {
		if kind == c.GetType() && !has {
			return fmt.Errorf("Expecting the part of a %s check to be set in CheckStatusInfo", kind)
		}
		if kind != c.GetType() && has {
			return fmt.Errorf("Expecting only the part of a %s check to be set in CheckStatusInfo", c.GetType())
		}
	}
	if c.GetType() == mesos.CheckInfo_UNKNOWN {
		return errors.New("'UNKNOWN' is not a valid type of a check")
	}
	return nil
}
