package nodeapi

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

// DecodeCall decodes a call and checks that it is whole: it has an epoch, an agent id and a kind, and each kind has what
// it can't be carried out without, with ids that are safe as path segments. The error is an ErrMalformed with all reasons.
func DecodeCall(b []byte) (*Call, error) {
	c := new(Call)
	if err := unmarshal(b, c); err != nil {
		return nil, err
	}
	var f faults
	f.need(c.GetEpoch() > 0, "epoch")
	f.id("agent_id", c.GetAgentId())
	switch k := c.GetCall().(type) {
	case *Call_Launch:
		f.launch(k.Launch)
	case *Call_Kill:
		f.id("framework_id", k.Kill.GetFrameworkId().GetValue())
		f.id("task_id", k.Kill.GetTaskId().GetValue())
	case *Call_Acknowledge:
		f.id("framework_id", k.Acknowledge.GetFrameworkId().GetValue())
		f.id("task_id", k.Acknowledge.GetTaskId().GetValue())
		f.uuid(k.Acknowledge.GetUuid())
	case *Call_ShutdownExecutor:
		f.id("framework_id", k.ShutdownExecutor.GetFrameworkId().GetValue())
		f.id("executor_id", k.ShutdownExecutor.GetExecutorId().GetValue())
	case *Call_Message:
		f.message(k.Message)
	case *Call_ShutdownFramework:
		f.id("framework_id", k.ShutdownFramework.GetFrameworkId().GetValue())
	case *Call_Describe:
		for _, id := range k.Describe.GetFrameworkIds() {
			f.id("framework_ids", id.GetValue())
		}
	case *Call_Apply:
		f.apply(k.Apply)
	case *Call_Drain:
		f.need(k.Drain.GetMaxGracePeriod() >= 0, "drain.max_grace_period that is not negative")
	case *Call_Reactivate, *Call_Shutdown:
	case *Call_AcknowledgeOperation:
		f.id("framework_id", k.AcknowledgeOperation.GetFrameworkId().GetValue())
		f.uuid(k.AcknowledgeOperation.GetUuid())
	default:
		// A kind that this version does not know, or none: either way there is nothing to carry out.
		f.need(false, "call")
	}
	return c, f.err("call")
}

// DecodeReport decodes a report and checks that it is whole, as DecodeCall does.
func DecodeReport(b []byte) (*Report, error) {
	r := new(Report)
	if err := unmarshal(b, r); err != nil {
		return nil, err
	}
	var f faults
	f.need(r.GetEpoch() > 0, "epoch")
	f.id("agent_id", r.GetAgentId())
	for _, u := range r.GetUpdates() {
		f.id("updates.framework_id", u.GetFrameworkId().GetValue())
		f.id("updates.status.task_id", u.GetStatus().GetTaskId().GetValue())
		if len(u.GetStatus().GetUuid()) > 0 {
			f.uuid(u.GetStatus().GetUuid())
		}
	}
	for _, m := range r.GetMessages() {
		f.message(m)
	}
	for _, op := range r.GetOperations() {
		f.id("operations.framework_id", op.GetFrameworkId().GetValue())
		f.uuid(op.GetUuid().GetValue())
		f.uuid(op.GetLatestStatus().GetUuid().GetValue())
	}
	for _, e := range r.GetExits() {
		f.id("exits.framework_id", e.GetFrameworkId().GetValue())
		f.id("exits.executor_id", e.GetExecutorId().GetValue())
	}
	return r, f.err("report")
}

// DecodeReply decodes a reply. What it holds is for its reader to judge: the delta decodes by its own rules.
func DecodeReply(b []byte) (*Reply, error) {
	r := new(Reply)
	return r, unmarshal(b, r)
}

func unmarshal(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	// Unmarshal looks for required fields too, but misses some where a field came in a foreign wire type as well (found by
	// fuzzing).
	if err := proto.CheckInitialized(m); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	return nil
}

// faults collects what is wrong with one message.
type faults []error

func (f *faults) need(ok bool, field string) {
	if !ok {
		*f = append(*f, fmt.Errorf("%s is missing", field))
	}
}

func (f *faults) id(field, id string) {
	f.need(id != "", field)
	if id != "" && !safe(id) {
		*f = append(*f, fmt.Errorf("%s %q is no id", field, id))
	}
}

func (f *faults) uuid(b []byte) {
	if len(b) != 16 {
		*f = append(*f, fmt.Errorf("uuid has %d bytes instead of 16", len(b)))
	}
}

func (f *faults) message(m *ExecutorMessage) {
	f.id("framework_id", m.GetFrameworkId().GetValue())
	f.id("executor_id", m.GetExecutorId().GetValue())
}

func (f *faults) launch(l *Launch) {
	f.id("framework.id", l.GetFramework().GetId().GetValue())
	f.need(len(l.GetTasks()) > 0, "tasks")
	for _, t := range l.GetTasks() {
		f.id("tasks.task_id", t.GetTaskId().GetValue())
		if t.GetExecutor() != nil {
			f.id("tasks.executor.executor_id", t.GetExecutor().GetExecutorId().GetValue())
		}
	}
	if l.GetGroupExecutor() != nil {
		f.id("group_executor.executor_id", l.GetGroupExecutor().GetExecutorId().GetValue())
	}
}

func (f *faults) apply(a *Apply) {
	f.need(len(a.GetOperations()) > 0, "operations")
	for _, op := range a.GetOperations() {
		f.need(op.GetType() != mesos.Offer_Operation_UNKNOWN, "operations.type")
	}
	if a.GetFrameworkId() != nil {
		f.id("framework_id", a.GetFrameworkId().GetValue())
	}
	if got, want := len(a.GetUuids()), len(a.GetOperations()); got != want {
		*f = append(*f, fmt.Errorf("%d uuids came with %d operations", got, want))
	}
	for _, uuid := range a.GetUuids() {
		f.uuid(uuid)
	}
}

func (f faults) err(what string) error {
	if len(f) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", ErrMalformed, what, errors.Join(f...))
}

// safe tells whether an id can be a file name: ids become paths in an agent's work directory, and that must not hang on
// the master having looked.
func safe(id string) bool {
	if len(id) > 255 || id == "." || id == ".." {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c < ' ' || c == 0x7f || c == '/' || c == '\\' {
			return false
		}
	}
	return true
}
