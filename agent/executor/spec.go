package executor

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// What the command executor of Mesos holds beside its task, and what therefore counts for limits and statistics.
const (
	OverheadCPUs = 0.1
	OverheadMem  = 32 << 20
)

// DefaultPath is the PATH of a task where nobody sets one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Config is what the containers of an agent have in common.
type Config struct {
	AgentID string
	// Address and Port are where the agent's API is reached.
	Address string
	Port    int
	// ShutdownGrace, RecoveryTimeout and SubscriptionBackoff go into the environment of executors.
	ShutdownGrace, RecoveryTimeout, SubscriptionBackoff time.Duration
	// Environment is added to what every executor gets.
	Environment map[string]string
	// SandboxDirectory is where containers with a root file system of their own see their sandbox.
	SandboxDirectory string
	// SwitchUser runs tasks as the user that they name, or that their framework names; otherwise as the agent's.
	SwitchUser bool
}

// Refusal is the error for a task that this agent does not run.
type Refusal struct {
	State   mesos.TaskState
	Reason  mesos.TaskStatus_Reason
	Message string
}

// Error returns the message.
func (r *Refusal) Error() string { return r.Message }

// Status returns what is reported of the task.
func (r *Refusal) Status(task *mesos.TaskID) *mesos.TaskStatus {
	return &mesos.TaskStatus{
		TaskId: task, State: r.State.Enum(), Reason: r.Reason.Enum(), Message: proto.String(r.Message),
		Source: mesos.TaskStatus_SOURCE_AGENT.Enum(),
	}
}

// Check returns nil for a task that the command executor can run, and a *Refusal with all reasons otherwise. What makes a
// task invalid was looked at by the master; the agent looks again at what it depends on. Whether there is a containerizer
// for it is not looked at here.
func Check(task *mesos.TaskInfo) error {
	var invalid []string
	cmd := task.GetCommand()
	unsupported := checkContainer(task.GetContainer())
	switch {
	case cmd == nil:
		invalid = append(invalid, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present")
	case cmd.GetValue() == "" && !cmd.GetShell() && containerizer.OwnRoot(task.GetContainer()):
		// It is the image that says what to run.
	case cmd.GetValue() == "":
		invalid = append(invalid, "Task's `CommandInfo` is invalid: 'value' must be set")
	case strings.Contains(cmd.GetValue(), "\x00"):
		invalid = append(invalid, "Task's `CommandInfo` is invalid: 'value' contains a NUL byte")
	}
	for _, v := range cmd.GetEnvironment().GetVariables() {
		switch {
		case v.GetName() == "" || strings.ContainsAny(v.GetName(), "=\x00"):
			invalid = append(invalid, fmt.Sprintf("Task's `CommandInfo` is invalid: environment variable name %q", v.GetName()))
		case v.GetType() == mesos.Environment_Variable_SECRET:
			unsupported = append(unsupported, fmt.Sprintf("environment variable %q is a secret: secrets are not supported by this agent", v.GetName()))
		case strings.Contains(v.GetValue(), "\x00"):
			invalid = append(invalid, fmt.Sprintf("Task's `CommandInfo` is invalid: environment variable %q contains a NUL byte", v.GetName()))
		}
	}
	for _, arg := range cmd.GetArguments() {
		if strings.Contains(arg, "\x00") {
			invalid = append(invalid, "Task's `CommandInfo` is invalid: an argument contains a NUL byte")
		}
	}
	if len(invalid) > 0 {
		return &Refusal{State: mesos.TaskState_TASK_ERROR, Reason: mesos.TaskStatus_REASON_TASK_INVALID, Message: strings.Join(invalid, "; ")}
	}
	if len(unsupported) > 0 {
		return NotLaunched(errors.New(strings.Join(unsupported, "; ")))
	}
	return nil
}

// NotLaunched is the refusal of a task whose container can't be had here.
func NotLaunched(err error) *Refusal {
	return &Refusal{
		State: mesos.TaskState_TASK_FAILED, Reason: mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED,
		Message: fmt.Sprintf("Failed to launch container: %v", err),
	}
}

// checkContainer lists what a container asks for that no containerizer here has.
func checkContainer(c *mesos.ContainerInfo) (unsupported []string) {
	for _, v := range c.GetVolumes() {
		switch {
		case v.GetImage() != nil:
			unsupported = append(unsupported, fmt.Sprintf("volume %q is an image: such volumes are not supported by this agent", v.GetContainerPath()))
		case v.GetSource().GetType() == mesos.Volume_Source_SECRET:
			unsupported = append(unsupported, fmt.Sprintf("volume %q is a secret: secrets are not supported by this agent", v.GetContainerPath()))
		case v.GetSource().GetType() == mesos.Volume_Source_CSI_VOLUME:
			unsupported = append(unsupported, fmt.Sprintf("volume %q is of CSI: such volumes are not supported by this agent", v.GetContainerPath()))
		}
	}
	return unsupported
}

// Limits returns the limits of a task's container: its resources, or what it names as limits, and the executor's overhead,
// which the Docker engine's containers do not have.
func Limits(task *mesos.TaskInfo, res resources.Resources) containerizer.Limits {
	overCPUs, overMem := OverheadCPUs, int64(OverheadMem)
	if containerizer.IsDocker(task.GetContainer()) {
		overCPUs, overMem = 0, 0
	}
	var l containerizer.Limits
	if cpus := res.Scalar("cpus").Float(); cpus > 0 {
		l.CPUs = cpus + overCPUs
	}
	if mem := res.Scalar("mem").Float(); mem > 0 {
		l.MemBytes = megabytes(mem) + overMem
	}
	if limit, ok := task.GetLimits()["cpus"]; ok {
		l.CPULimit = containerizer.Unlimited
		if v := limit.GetValue(); !math.IsInf(v, 1) {
			l.CPULimit = v + overCPUs
		}
	}
	if limit, ok := task.GetLimits()["mem"]; ok {
		l.MemLimit = containerizer.Unlimited
		if v := limit.GetValue(); !math.IsInf(v, 1) {
			l.MemLimit = megabytes(v) + overMem
		}
	}
	return l
}

// megabytes turns what Mesos calls so into bytes.
func megabytes(m float64) int64 { return int64(min(m, math.MaxInt64>>21) * (1 << 20)) }

// Shown are limits as people and statistics see them: what is enforced at most, or else what was asked for.
func Shown(l containerizer.Limits) (cpus float64, memBytes int64) {
	cpus, memBytes = l.CPUs, l.MemBytes
	if l.CPULimit > 0 {
		cpus = l.CPULimit
	}
	if l.MemLimit > 0 {
		memBytes = l.MemLimit
	}
	return cpus, memBytes
}

// Spec returns the container of a task. stdout and stderr go to files of these names in the sandbox.
func (c Config) Spec(framework *mesos.FrameworkInfo, task *mesos.TaskInfo, res resources.Resources, containerID, sandbox string) containerizer.Spec {
	cmd := task.GetCommand()
	spec := containerizer.Spec{
		ID: containerID, Dir: sandbox, Env: c.env(framework, task, res, containerID, sandbox), Container: task.GetContainer(),
		Stdout: sandbox + "/stdout", Stderr: sandbox + "/stderr", Limits: Limits(task, res),
	}
	if containerizer.OwnRoot(spec.Container) {
		spec.Command = cmd
	}
	if c.SwitchUser {
		spec.User = User(framework, task)
	}
	if cmd.GetShell() {
		// As Mesos does: the arguments of a shell command are ignored.
		spec.Path, spec.Args = "/bin/sh", []string{"sh", "-c", cmd.GetValue()}
	} else {
		spec.Path, spec.Args = cmd.GetValue(), slices.Clone(cmd.GetArguments())
		if len(spec.Args) == 0 {
			spec.Args = []string{cmd.GetValue()}
		}
	}
	return spec
}

// User returns whom a task wants to run as: the command's user, or else the framework's.
func User(framework *mesos.FrameworkInfo, task *mesos.TaskInfo) string {
	if user := task.GetCommand().GetUser(); user != "" {
		return user
	}
	return framework.GetUser()
}

// env is the whole environment, in order of names; the agent's own is not inherited.
func (c Config) env(framework *mesos.FrameworkInfo, task *mesos.TaskInfo, res resources.Resources, containerID, sandbox string) []string {
	vars := map[string]string{
		"LIBPROCESS_PORT":                      "0",
		"MESOS_FRAMEWORK_ID":                   framework.GetId().GetValue(),
		"MESOS_EXECUTOR_ID":                    task.GetTaskId().GetValue(),
		"MESOS_SLAVE_ID":                       c.AgentID,
		"MESOS_SLAVE_PID":                      "slave(1)@" + c.endpoint(),
		"MESOS_AGENT_ENDPOINT":                 c.endpoint(),
		"MESOS_DIRECTORY":                      sandbox,
		"MESOS_SANDBOX":                        sandbox,
		"MESOS_CHECKPOINT":                     "0",
		"MESOS_HTTP_COMMAND_EXECUTOR":          "0",
		"MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": Duration(c.ShutdownGrace),
	}
	if framework.GetCheckpoint() {
		vars["MESOS_CHECKPOINT"] = "1"
		vars["MESOS_RECOVERY_TIMEOUT"] = Duration(c.RecoveryTimeout)
		vars["MESOS_SUBSCRIPTION_BACKOFF_MAX"] = Duration(c.SubscriptionBackoff)
	}
	if roles := res.Allocations(); len(roles) > 0 {
		vars["MESOS_ALLOCATION_ROLE"] = roles[0]
	}
	if !containerizer.OwnRoot(task.GetContainer()) {
		vars["PATH"] = DefaultPath
	} else if c.SandboxDirectory != "" {
		vars["MESOS_SANDBOX"] = c.SandboxDirectory
	}
	if containerizer.IsDocker(task.GetContainer()) {
		vars["MESOS_CONTAINER_NAME"] = "mesos-" + containerID
	}
	maps.Copy(vars, c.Environment)
	for _, v := range task.GetCommand().GetEnvironment().GetVariables() {
		vars[v.GetName()] = v.GetValue()
	}
	out := make([]string, 0, len(vars))
	for name, value := range vars {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

func (c Config) endpoint() string { return net.JoinHostPort(c.Address, strconv.Itoa(c.Port)) }

// Duration writes a duration as Mesos does: in the largest unit in which it is whole, like "5secs" or "90secs".
func Duration(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{
		{7 * 24 * time.Hour, "weeks"},
		{24 * time.Hour, "days"},
		{time.Hour, "hrs"},
		{time.Minute, "mins"},
		{time.Second, "secs"},
		{time.Millisecond, "ms"},
		{time.Microsecond, "us"},
	} {
		if d != 0 && d%u.unit == 0 {
			return fmt.Sprintf("%d%s", d/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%dns", d)
}

// Bytes writes a size as Mesos does: in the largest unit in which it is whole, like "96MB".
func Bytes(n int64) string {
	for _, u := range []struct {
		unit int64
		name string
	}{{1 << 40, "TB"}, {1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "KB"}} {
		if n != 0 && n%u.unit == 0 {
			return fmt.Sprintf("%d%s", n/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%dB", n)
}

// Name is what the command executor of a task is shown as.
func Name(task *mesos.TaskInfo) string {
	value := task.GetCommand().GetValue()
	if !task.GetCommand().GetShell() {
		value = strings.Join(append([]string{value}, task.GetCommand().GetArguments()...), " ")
	}
	if len(value) > 15 {
		// Cut between characters.
		end := 12
		for end > 0 && value[end]&0xc0 == 0x80 {
			end--
		}
		value = value[:end] + "..."
	}
	if task.GetCommand().GetShell() {
		value = "sh -c '" + value + "'"
	}
	return fmt.Sprintf("Command Executor (Task: %s) (Command: %s)", task.GetTaskId().GetValue(), value)
}
