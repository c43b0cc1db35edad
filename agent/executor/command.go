package executor

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// DefaultGrace is the time between SIGTERM and the end where nobody says otherwise. Containers of the Docker engine have
// that of executors in its place.
const DefaultGrace = 3 * time.Second

// Cause tells why a task is ended before its time.
type Cause uint8

// The causes.
const (
	// Asked is a kill by the framework or an operator.
	Asked Cause = iota
	// TooLong is a max_completion_time that passed.
	TooLong
	// Unhealthy is a health check that failed too often.
	Unhealthy
	// Drained is the drain of the agent; DrainedGone that of one which is gone afterwards.
	Drained
	DrainedGone
	// Excessive is a task that uses more of its disk than it was given.
	Excessive
)

// Excess tells how a task used more than it was given.
type Excess struct {
	Message    string
	Limitation *mesos.TaskResourceLimitation
}

// Order is a kill under way.
type Order struct {
	Cause Cause
	// Grace is the time between the signal and the end; At is when the order came.
	Grace time.Duration
	At    time.Time
}

// drains tells whether the task ends because of a drain.
func (o *Order) drains() bool { return o.Cause == Drained || o.Cause == DrainedGone }

// Step is what the agent has to do after an event, in this order.
type Step struct {
	// Statuses are to be reported. They have a state, and source, reason, message and healthy where these apply; the agent
	// adds the ids.
	Statuses []*mesos.TaskStatus
	// Signal is to be sent to the container; 0 means none.
	Signal syscall.Signal
	// Destroy means that all that runs in the container has to end now.
	Destroy bool
	// Ordered is set when the order to end the task is new or another one: it has to survive the agent.
	Ordered bool
	// Forward means that the order is to be passed on to the task's executor.
	Forward bool
}

type phase uint8

const (
	launching phase = iota
	running
	killing
	ended
)

// Command is the life of one command task. It is not safe for concurrent use.
type Command struct {
	task *mesos.TaskInfo
	// what is what ended, for messages; usualGrace is that of a task that names none.
	what       string
	usualGrace time.Duration
	// tellKilling is set for frameworks that know the state TASK_KILLING, aware for those that know what can become of an agent.
	tellKilling, aware bool

	phase   phase
	started time.Time
	order   *Order
	// excess is what the order was given for, where that is Excessive and this life of the agent knows it.
	excess Excess
	// toldRunning is set once TASK_RUNNING was reported; destroyed once Destroy was asked for.
	toldRunning, destroyed bool
	// healthy is the last result of the health check, nil before the first.
	healthy *bool
	check   *mesos.CheckStatusInfo
}

// NewCommand returns the life of a task that is about to be launched.
func NewCommand(framework *mesos.FrameworkInfo, task *mesos.TaskInfo) *Command {
	c := &Command{task: task, what: "Command", usualGrace: DefaultGrace}
	for _, capability := range framework.GetCapabilities() {
		switch capability.GetType() {
		case mesos.FrameworkInfo_Capability_TASK_KILLING_STATE:
			c.tellKilling = true
		case mesos.FrameworkInfo_Capability_PARTITION_AWARE:
			c.aware = true
		}
	}
	if task.GetCheck() != nil {
		// Every update of such a task carries the last result, an empty one before the first.
		c.check = emptyCheck(task.GetCheck())
	}
	return c
}

// Command returns the life of a task that is about to be launched, as NewCommand does, with what this configuration says of
// it.
func (c Config) Command(framework *mesos.FrameworkInfo, task *mesos.TaskInfo) *Command {
	cmd := NewCommand(framework, task)
	if containerizer.IsDocker(task.GetContainer()) {
		cmd.what, cmd.usualGrace = "Container", c.ShutdownGrace
	}
	return cmd
}

// Starting returns what is reported when the launch begins.
func (c *Command) Starting() Step {
	return Step{Statuses: []*mesos.TaskStatus{c.status(mesos.TaskState_TASK_STARTING)}}
}

// Resume puts the life of a task that an earlier life of the agent knew where it was, after NewCommand: told are the
// statuses reported so far, oldest first; order is the kill under way, nil for none.
func (c *Command) Resume(told []*mesos.TaskStatus, order *Order) {
	c.order = order
	for _, status := range told {
		switch status.GetState() {
		case mesos.TaskState_TASK_RUNNING:
			c.toldRunning = true
			c.healthy = status.Healthy
			if status.GetCheckStatus() != nil {
				c.check = status.GetCheckStatus()
			}
		case mesos.TaskState_TASK_KILLING:
			c.toldRunning, c.tellKilling = true, false
		}
	}
}

// Conclude puts the life of a task whose last status was given out before at its end.
func (c *Command) Conclude() { c.phase = ended }

// Launched tells that the process runs, since the time given. It may be told again, after a restart of the agent.
func (c *Command) Launched(now, started time.Time) Step {
	if c.phase != launching {
		return Step{}
	}
	c.phase, c.started = running, started
	var step Step
	if !c.toldRunning {
		c.toldRunning = true
		step.Statuses = append(step.Statuses, c.status(mesos.TaskState_TASK_RUNNING))
	}
	if c.order != nil {
		step.add(c.begin(now))
	}
	return step
}

// LaunchFailed tells that nothing was started, and why.
func (c *Command) LaunchFailed(err error) Step {
	if c.phase == ended {
		return Step{}
	}
	if c.order != nil {
		return c.CancelLaunch()
	}
	c.phase = ended
	refusal := NotLaunched(err)
	status := c.status(refusal.State)
	status.Source = mesos.TaskStatus_SOURCE_AGENT.Enum()
	status.Reason, status.Message = refusal.Reason.Enum(), &refusal.Message
	return Step{Statuses: []*mesos.TaskStatus{status}}
}

// CancelLaunch tells that the task was killed before anything was started.
func (c *Command) CancelLaunch() Step {
	if c.phase == ended {
		return Step{}
	}
	c.phase = ended
	status := c.status(mesos.TaskState_TASK_KILLED)
	status.Source = mesos.TaskStatus_SOURCE_AGENT.Enum()
	status.Reason = mesos.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH.Enum()
	status.Message = proto.String("Killed before it was launched")
	if c.order != nil && c.order.drains() {
		c.judge(status)
		status.Source = mesos.TaskStatus_SOURCE_AGENT.Enum()
	}
	return Step{Statuses: []*mesos.TaskStatus{status}}
}

// Kill asks for the end of the task. policy may be nil: then the task's own holds. Of two orders the shorter grace period
// counts, measured from the time of its own order.
func (c *Command) Kill(now time.Time, policy *mesos.KillPolicy) Step {
	return c.end(now, Order{Cause: Asked, Grace: c.grace(policy), At: now})
}

// Drain asks for the end of the task because its agent is drained, or, with gone, is to be gone afterwards. longest is the
// longest grace period, nil for none.
func (c *Command) Drain(now time.Time, longest *time.Duration, gone bool) Step {
	order := Order{Cause: Drained, Grace: c.grace(nil), At: now}
	if gone {
		order.Cause = DrainedGone
	}
	if longest != nil {
		order.Grace = min(order.Grace, *longest)
	}
	return c.end(now, order)
}

// Fail asks for the end of the task because its health check failed too often.
func (c *Command) Fail(now time.Time) Step {
	return c.end(now, Order{Cause: Unhealthy, Grace: c.grace(nil), At: now})
}

// Exceed asks for the end of the task at once, because it uses more of its disk than it was given.
func (c *Command) Exceed(now time.Time, excess Excess) Step {
	if c.order == nil {
		c.excess = excess
	}
	return c.end(now, Order{Cause: Excessive, At: now})
}

func (c *Command) grace(policy *mesos.KillPolicy) time.Duration {
	for _, p := range []*mesos.KillPolicy{policy, c.task.GetKillPolicy()} {
		if p.GetGracePeriod() != nil {
			return max(0, time.Duration(p.GetGracePeriod().GetNanoseconds()))
		}
	}
	return c.usualGrace
}

func (c *Command) end(now time.Time, order Order) Step {
	if c.phase == ended {
		return Step{}
	}
	if old := c.order; old != nil {
		if !order.At.Add(order.Grace).Before(old.At.Add(old.Grace)) {
			return Step{}
		}
		// What the task is reported as does not change with a second order.
		order.Cause = old.Cause
	}
	c.order = &order
	step := Step{Ordered: true}
	switch c.phase {
	case running:
		step.add(c.begin(now))
	case killing:
		step.add(c.Wake(now))
	case launching, ended:
	}
	return step
}

// begin sends the signal, or ends at once where there is no grace.
func (c *Command) begin(now time.Time) Step {
	c.phase = killing
	var step Step
	if c.tellKilling && c.order.Cause != Excessive {
		status := c.status(mesos.TaskState_TASK_KILLING)
		switch {
		case c.order.Cause == TooLong:
			status.Reason = mesos.TaskStatus_REASON_MAX_COMPLETION_TIME_REACHED.Enum()
		case c.order.drains():
			status.Reason = mesos.TaskStatus_REASON_AGENT_DRAINING.Enum()
		}
		step.Statuses = append(step.Statuses, status)
	}
	if c.order.Grace > 0 {
		step.Signal = syscall.SIGTERM
	}
	step.add(c.Wake(now))
	return step
}

// NextWake returns when Wake has to be called; ok is false while there is nothing to wait for.
func (c *Command) NextWake() (at time.Time, ok bool) {
	switch {
	case c.phase == killing && !c.destroyed:
		return c.order.At.Add(c.order.Grace), true
	case c.phase == running && c.task.GetMaxCompletionTime() != nil:
		return c.started.Add(c.completion()), true
	}
	return time.Time{}, false
}

func (c *Command) completion() time.Duration {
	return max(0, time.Duration(c.task.GetMaxCompletionTime().GetNanoseconds()))
}

// Wake tells that time has passed.
func (c *Command) Wake(now time.Time) Step {
	at, ok := c.NextWake()
	if !ok || now.Before(at) {
		return Step{}
	}
	if c.phase == killing {
		c.destroyed = true
		return Step{Destroy: true}
	}
	return c.end(now, Order{Cause: TooLong, At: now})
}

// Exited tells that the process ended.
func (c *Command) Exited(exit containerizer.Exit) Step {
	if c.phase == ended {
		return Step{}
	}
	c.phase = ended
	status := c.status(mesos.TaskState_TASK_FAILED)
	ws := syscall.WaitStatus(exit.Status)
	text := Describe(c.what, ws)
	switch {
	case !exit.Known:
		status.Source = mesos.TaskStatus_SOURCE_AGENT.Enum()
		status.Reason = mesos.TaskStatus_REASON_EXECUTOR_TERMINATED.Enum()
		text = fmt.Sprintf("The %s ended, and its exit status could not be learned", strings.ToLower(c.what))
	case exit.OOM:
		status.Source = mesos.TaskStatus_SOURCE_AGENT.Enum()
		status.Reason = mesos.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY.Enum()
		text = outOfMemory(exit) + "; " + text
		status.Limitation = memoryLimitation(exit)
	case ws.Exited() && ws.ExitStatus() == 0:
		status.State = mesos.TaskState_TASK_FINISHED.Enum()
	}
	if exit.Message != "" {
		text += ": " + exit.Message
	}
	status.Message = &text
	if c.order != nil {
		c.judge(status)
	}
	return Step{Statuses: []*mesos.TaskStatus{status}}
}

// outOfMemory tells of a memory limit in the words of Mesos, as far as limit and use are known.
func outOfMemory(exit containerizer.Exit) string {
	text := "Memory limit exceeded"
	if exit.MemLimit > 0 {
		text += ": Requested: " + Bytes(exit.MemLimit)
		if exit.MemPeak > 0 {
			text += " Maximum Used: " + Bytes(exit.MemPeak)
		}
	}
	return text
}

// memoryLimitation is what was used when the memory limit struck: the resource that was short. nil where that is not known.
func memoryLimitation(exit containerizer.Exit) *mesos.TaskResourceLimitation {
	used := max(exit.MemPeak, exit.MemLimit)
	if used <= 0 {
		return nil
	}
	return &mesos.TaskResourceLimitation{Resources: []*mesos.Resource{{
		Name: proto.String("mem"), Type: mesos.Value_SCALAR.Enum(),
		Scalar: &mesos.Value_Scalar{Value: proto.Float64(float64(used/(1<<10)) / (1 << 10))},
	}}}
}

// judge turns the status of a task that was ended into what its end is reported as.
func (c *Command) judge(status *mesos.TaskStatus) {
	status.Source, status.Reason = mesos.TaskStatus_SOURCE_EXECUTOR.Enum(), nil
	switch c.order.Cause {
	case Asked:
		status.State = mesos.TaskState_TASK_KILLED.Enum()
	case Unhealthy:
		status.State = mesos.TaskState_TASK_KILLED.Enum()
		status.Healthy = proto.Bool(false)
	case Drained, DrainedGone:
		status.State = mesos.TaskState_TASK_KILLED.Enum()
		if c.order.Cause == DrainedGone && c.aware {
			status.State = mesos.TaskState_TASK_GONE_BY_OPERATOR.Enum()
		}
		status.Reason = mesos.TaskStatus_REASON_AGENT_DRAINING.Enum()
	case Excessive:
		status.State = mesos.TaskState_TASK_FAILED.Enum()
		status.Source = mesos.TaskStatus_SOURCE_AGENT.Enum()
		status.Reason = mesos.TaskStatus_REASON_CONTAINER_LIMITATION_DISK.Enum()
		status.Message, status.Limitation = proto.String("Disk usage exceeds quota"), c.excess.Limitation
		if c.excess.Message != "" {
			status.Message = proto.String(c.excess.Message)
		}
	case TooLong:
		status.State = mesos.TaskState_TASK_FAILED.Enum()
		status.Reason = mesos.TaskStatus_REASON_MAX_COMPLETION_TIME_REACHED.Enum()
	}
}

// Checked reports the result of a health check.
func (c *Command) Checked(healthy bool) Step {
	if c.phase != running {
		return Step{}
	}
	c.healthy = &healthy
	status := c.status(mesos.TaskState_TASK_RUNNING)
	status.Reason = mesos.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED.Enum()
	return Step{Statuses: []*mesos.TaskStatus{status}}
}

// CheckResult reports the result of the task's general check; it is reported only when it is another one.
func (c *Command) CheckResult(result *mesos.CheckStatusInfo) Step {
	if c.phase != running || proto.Equal(c.check, result) {
		return Step{}
	}
	c.check = result
	status := c.status(mesos.TaskState_TASK_RUNNING)
	status.Reason = mesos.TaskStatus_REASON_TASK_CHECK_STATUS_UPDATED.Enum()
	return Step{Statuses: []*mesos.TaskStatus{status}}
}

// Order returns the kill under way, nil for none.
func (c *Command) Order() *Order { return c.order }

// Health returns the last result of the health check, nil before the first.
func (c *Command) Health() *bool { return c.healthy }

// Running tells whether the process runs and was not told to end.
func (c *Command) Running() bool { return c.phase == running }

// Ended tells whether the last status was given out.
func (c *Command) Ended() bool { return c.phase == ended }

func (c *Command) status(state mesos.TaskState) *mesos.TaskStatus {
	return &mesos.TaskStatus{
		TaskId: c.task.GetTaskId(), State: state.Enum(), Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(),
		Healthy: c.healthy, CheckStatus: c.check,
	}
}

func (s *Step) add(o Step) {
	s.Statuses = append(s.Statuses, o.Statuses...)
	if o.Signal != 0 {
		s.Signal = o.Signal
	}
	s.Destroy = s.Destroy || o.Destroy
	s.Ordered = s.Ordered || o.Ordered
}

// Describe tells how something ended, a "Command" or a "Container", in the words of Mesos.
func Describe(what string, ws syscall.WaitStatus) string {
	switch {
	case ws.Signaled():
		name := ws.Signal().String()
		text := what + " terminated with signal " + strings.ToUpper(name[:1]) + name[1:]
		if ws.CoreDump() {
			text += " (core dumped)"
		}
		return text
	case ws.Exited():
		return fmt.Sprintf("%s exited with status %d", what, ws.ExitStatus())
	}
	return fmt.Sprintf("%s ended with wait status %#x", what, int(ws))
}

func emptyCheck(check *mesos.CheckInfo) *mesos.CheckStatusInfo {
	info := &mesos.CheckStatusInfo{Type: check.GetType().Enum()}
	switch check.GetType() {
	case mesos.CheckInfo_COMMAND:
		info.Command = &mesos.CheckStatusInfo_Command{}
	case mesos.CheckInfo_HTTP:
		info.Http = &mesos.CheckStatusInfo_Http{}
	case mesos.CheckInfo_TCP:
		info.Tcp = &mesos.CheckStatusInfo_Tcp{}
	case mesos.CheckInfo_UNKNOWN:
	}
	return info
}
