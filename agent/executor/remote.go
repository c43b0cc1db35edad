package executor

import (
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// Remote is the life of one task of an executor that is a process of its own: the executor says how the task is, and is
// asked to end it. Only what the executor can't say is said here. It is not safe for concurrent use.
//
//	launching --(intent on disk)--> queued --Give--> given --Updated, Lost, Exited--> ended
//	    \______________CancelLaunch, LaunchFailed______^___________________________________^
type Remote struct {
	task  *mesos.TaskInfo
	aware bool

	given, over bool
	order       *Order
	policy      *mesos.KillPolicy
}

// NewRemote returns the life of a task that was accepted.
func NewRemote(framework *mesos.FrameworkInfo, task *mesos.TaskInfo) *Remote {
	r := &Remote{task: task}
	for _, capability := range framework.GetCapabilities() {
		r.aware = r.aware || capability.GetType() == mesos.FrameworkInfo_Capability_PARTITION_AWARE
	}
	return r
}

// Starting returns what is reported when the launch begins: nothing, which is the executor's to say.
func (r *Remote) Starting() Step { return Step{} }

// Resume puts the life of a task that an earlier life of the agent knew where it was: whether the executor has it, only the
// executor knows, so that it counts as given.
func (r *Remote) Resume(_ []*mesos.TaskStatus, order *Order) {
	r.given, r.order = true, order
	if order != nil {
		r.policy = policyOf(order.Grace)
	}
}

// Conclude puts the life of a task whose last status was given out before at its end.
func (r *Remote) Conclude() { r.over = true }

// Give tells that the executor was handed the task.
func (r *Remote) Give() { r.given = true }

// TakeBack tells that the task did not leave the agent after all.
func (r *Remote) TakeBack() { r.given = false }

// Given tells whether the executor has the task, as far as is known.
func (r *Remote) Given() bool { return r.given }

// Launched is of containers of tasks, and this one has none.
func (r *Remote) Launched(time.Time, time.Time) Step { return Step{} }

// LaunchFailed tells that the executor can't be started, and why.
func (r *Remote) LaunchFailed(err error) Step {
	if r.over {
		return Step{}
	}
	if r.order != nil && !r.given {
		return r.CancelLaunch()
	}
	r.over = true
	return Step{Statuses: []*mesos.TaskStatus{NotLaunched(err).Status(r.task.GetTaskId())}}
}

// CancelLaunch tells that the task was killed before the executor had it.
func (r *Remote) CancelLaunch() Step {
	if r.over {
		return Step{}
	}
	r.over = true
	status := (&Refusal{
		State: mesos.TaskState_TASK_KILLED, Reason: mesos.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH,
		Message: "Killed before it was delivered to the executor",
	}).Status(r.task.GetTaskId())
	r.judge(status)
	return Step{Statuses: []*mesos.TaskStatus{status}}
}

// Kill has the executor end the task, by the policy if there is one. It may be asked again.
func (r *Remote) Kill(now time.Time, policy *mesos.KillPolicy) Step {
	grace := DefaultGrace
	if policy.GetGracePeriod() != nil {
		grace = max(0, time.Duration(policy.GetGracePeriod().GetNanoseconds()))
	}
	return r.end(Order{Cause: Asked, Grace: grace, At: now}, policy)
}

// Drain has the executor end the task because its agent is drained, or, with gone, is to be gone afterwards.
func (r *Remote) Drain(now time.Time, longest *time.Duration, gone bool) Step {
	order := Order{Cause: Drained, Grace: DefaultGrace, At: now}
	if gone {
		order.Cause = DrainedGone
	}
	policy := r.task.GetKillPolicy()
	if policy.GetGracePeriod() != nil {
		order.Grace = max(0, time.Duration(policy.GetGracePeriod().GetNanoseconds()))
	}
	if longest != nil && (order.Grace > *longest || policy == nil) {
		order.Grace = min(order.Grace, *longest)
		policy = policyOf(order.Grace)
	}
	return r.end(order, policy)
}

func (r *Remote) end(order Order, policy *mesos.KillPolicy) Step {
	if r.over {
		return Step{}
	}
	if r.order != nil {
		order.Cause = r.order.Cause // what the task is reported as does not change with a second order
	}
	r.order, r.policy = &order, policy
	return Step{Ordered: true, Forward: r.given}
}

// Policy returns what goes along with the order to end the task; nil leaves that to the task's own.
func (r *Remote) Policy() *mesos.KillPolicy { return r.policy }

// Updated takes a status from the executor. Nothing comes of one after the last.
func (r *Remote) Updated(status *mesos.TaskStatus) Step {
	if r.over {
		return Step{}
	}
	switch status.GetState() {
	case mesos.TaskState_TASK_KILLED:
		r.judge(status)
	case mesos.TaskState_TASK_KILLING:
		if r.order != nil && r.order.drains() {
			status.Reason = mesos.TaskStatus_REASON_AGENT_DRAINING.Enum()
		}
	}
	r.over = Terminal(status.GetState())
	return Step{Statuses: []*mesos.TaskStatus{status}}
}

// Lost tells that the task has ended with its executor, or that the executor never had it, in the words of a refusal.
func (r *Remote) Lost(how *Refusal) Step { return r.last(how.Status(r.task.GetTaskId())) }

func (r *Remote) last(status *mesos.TaskStatus) Step {
	if r.over {
		return Step{}
	}
	r.over = true
	r.judge(status)
	return Step{Statuses: []*mesos.TaskStatus{status}}
}

// Exited tells that the executor has ended, and the task with it.
func (r *Remote) Exited(exit containerizer.Exit) Step {
	how := &Refusal{
		State: mesos.TaskState_TASK_FAILED, Reason: mesos.TaskStatus_REASON_EXECUTOR_TERMINATED, Message: "Executor terminated",
	}
	var limitation *mesos.TaskResourceLimitation
	if exit.OOM {
		how.Reason, how.Message, limitation = mesos.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY, outOfMemory(exit), memoryLimitation(exit)
	}
	if exit.Message != "" {
		how.Message += ": " + exit.Message
	}
	status := how.Status(r.task.GetTaskId())
	status.Limitation = limitation
	return r.last(status)
}

// judge turns the end of a task of an agent that is drained into what it is reported as.
func (r *Remote) judge(status *mesos.TaskStatus) {
	if r.order == nil || !r.order.drains() {
		return
	}
	status.State, status.Reason = mesos.TaskState_TASK_KILLED.Enum(), mesos.TaskStatus_REASON_AGENT_DRAINING.Enum()
	if r.order.Cause == DrainedGone && r.aware {
		status.State = mesos.TaskState_TASK_GONE_BY_OPERATOR.Enum()
	}
}

// NextWake is of grace periods, which are the executor's to keep.
func (r *Remote) NextWake() (at time.Time, ok bool) { return at, false }

// Wake does nothing.
func (r *Remote) Wake(time.Time) Step { return Step{} }

// Order returns the kill under way, nil for none.
func (r *Remote) Order() *Order { return r.order }

// Running is false: what is to be checked of the task, the executor checks.
func (r *Remote) Running() bool { return false }

// Ended tells whether the last status was given out.
func (r *Remote) Ended() bool { return r.over }

func policyOf(grace time.Duration) *mesos.KillPolicy {
	return &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(int64(grace))}}
}

// Terminal tells whether a state is a task's last.
func Terminal(state mesos.TaskState) bool {
	switch state {
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING,
		mesos.TaskState_TASK_KILLING, mesos.TaskState_TASK_UNREACHABLE:
		return false
	}
	return true
}

// Health is nil: what is known of the task's health went with its statuses.
func (r *Remote) Health() *bool { return nil }

// Checked does nothing, as nothing is checked.
func (r *Remote) Checked(bool) Step { return Step{} }

// CheckResult does nothing, as nothing is checked.
func (r *Remote) CheckResult(*mesos.CheckStatusInfo) Step { return Step{} }

// Fail does nothing, as nothing is checked.
func (r *Remote) Fail(time.Time) Step { return Step{} }
