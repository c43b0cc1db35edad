package validation

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Context is what the master knows where a task or a group is launched.
type Context struct {
	// Framework launches; its id is set.
	Framework *mesos.FrameworkInfo
	// AgentID is the agent of the offers.
	AgentID string
	// Pool is what is left of the offers, allocated to their role.
	Pool resources.Resources
	// Active tells whether the framework has a task of this id that has not ended, or whose end it has not acknowledged;
	// Unreachable whether it had one on an agent that was lost. Nil stands for no task.
	Active, Unreachable func(taskID string) bool
	// Executor returns the framework's executor of this id on the agent, nil for none. Nil stands for no executor.
	Executor func(executorID string) *mesos.ExecutorInfo
}

// The least of an executor in a group.
const (
	minCPUs = resources.Milli(10)
	minMem  = resources.Milli(32000)
)

// Task checks one task of a LAUNCH, whose blanks (allocation, framework id of the executor, type of the health check) the
// master has filled in. It returns what the task takes out of the pool: its resources, and those of its executor unless
// that runs already.
func Task(t *mesos.TaskInfo, ctx Context) (resources.Resources, error) {
	none := resources.Resources{}
	need, err := task(t, ctx)
	if err != nil {
		return none, err
	}
	if (t.Executor != nil) == (t.Command != nil) {
		return none, errors.New("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present")
	}
	total := need
	if e := t.Executor; e != nil {
		own, err := executor(e, ctx)
		if err != nil {
			return none, err
		}
		switch {
		case e.Type != nil && e.GetType() != mesos.ExecutorInfo_CUSTOM:
			return none, errors.New("'ExecutorInfo.type' must be 'CUSTOM'")
		case e.Command == nil:
			return none, errors.New("'ExecutorInfo.command' must be set")
		case hasShared(own):
			return none, fmt.Errorf("Executor resources %s should not contain any shared resources", own)
		case sharesCgroups(e.GetContainer(), false):
			return none, errors.New("The 'share_cgroups' field cannot be set to 'true' on executor containers")
		case overlap(need, own):
			return none, fmt.Errorf("There are overlapping resources in the task resources %s and executor resources %s", need, own)
		}
		if err := uniquePersistence(need, own); err != nil {
			return none, fmt.Errorf("Task and its executor use duplicate persistence ID: %w", err)
		}
		if err := unmixed(sum(need, own)); err != nil {
			return none, fmt.Errorf("Task and its executor mix revocable and non-revocable resources: %w", err)
		}
		if ctx.executor(e.GetExecutorId().GetValue()) == nil {
			total = total.Add(own)
		}
	}
	if !ctx.Pool.Contains(total) {
		return none, fmt.Errorf("Total resources %s required by task and its executor is more than available %s", total, ctx.Pool)
	}
	if l := t.GetContainer().GetLinuxInfo(); l != nil && l.ShareCgroups != nil && !l.GetShareCgroups() {
		return none, errors.New("Only tasks in a task group may have 'share_cgroups' set to 'false'")
	}
	return total, nil
}

// task checks what concerns a task of a LAUNCH or a LAUNCH_GROUP, its executor aside, and returns its resources.
func task(t *mesos.TaskInfo, ctx Context) (resources.Resources, error) {
	none := resources.Resources{}
	id := t.GetTaskId().GetValue()
	if err := ID(id); err != nil {
		return none, err
	}
	switch {
	case ctx.Active != nil && ctx.Active(id):
		return none, fmt.Errorf("Task has duplicate ID: %s", id)
	case ctx.Unreachable != nil && ctx.Unreachable(id):
		return none, fmt.Errorf("Task reuses the ID of an unreachable task: %s", id)
	case t.GetAgentId().GetValue() != ctx.AgentID:
		return none, fmt.Errorf("Task uses invalid agent %s while agent %s is expected", t.GetAgentId().GetValue(), ctx.AgentID)
	case t.GetKillPolicy().GetGracePeriod().GetNanoseconds() < 0:
		return none, errors.New("Task's 'kill_policy.grace_period' must be non-negative")
	case t.GetMaxCompletionTime().GetNanoseconds() < 0:
		return none, errors.New("Task's `max_completion_time` must be non-negative")
	}
	if t.Check != nil {
		if err := Check(t.Check); err != nil {
			return none, fmt.Errorf("Task uses invalid check: %w", err)
		}
	}
	if t.HealthCheck != nil {
		if err := HealthCheck(t.HealthCheck); err != nil {
			return none, fmt.Errorf("Task uses invalid health check: %w", err)
		}
	}
	if len(t.GetResources()) == 0 {
		return none, errors.New("Task uses no resources")
	}
	need, err := parse(t.GetResources())
	if err != nil {
		return none, fmt.Errorf("Task uses invalid resources: %w", err)
	}
	if need.Empty() {
		// All of them 0, which Mesos lets pass.
		return none, errors.New("Task uses no resources")
	}
	if err := uniquePersistence(need); err != nil {
		return none, fmt.Errorf("Task uses duplicate persistence ID: %w", err)
	}
	if err := singleRole(need); err != nil {
		return none, fmt.Errorf("Invalid task resources: %w", err)
	}
	if err := unmixed(need); err != nil {
		return none, fmt.Errorf("Task mixes revocable and non-revocable resources: %w", err)
	}
	if err := Command(t.GetCommand()); err != nil {
		return none, fmt.Errorf("Task's `CommandInfo` is invalid: %w", err)
	}
	if err := Container(t.GetContainer()); err != nil {
		return none, fmt.Errorf("Task's `ContainerInfo` is invalid: %w", err)
	}
	return need, limits(t, need)
}

// limits checks the limits of a task against what it asks for.
func limits(t *mesos.TaskInfo, need resources.Resources) error {
	for name := range t.GetLimits() {
		if name != resources.CPUs && name != resources.Mem {
			return errors.New("Only cpus and mem may be included in a task's resource limits")
		}
	}
	for _, one := range []struct{ name, long, short string }{{resources.CPUs, "CPU", "cpu"}, {resources.Mem, "memory", "memory"}} {
		limit, ok := t.GetLimits()[one.name]
		if !ok {
			continue
		}
		asked := need.Scalar(one.name)
		if asked == 0 {
			return fmt.Errorf("When a %s limit is specified, a %s request must also be specified", one.long, one.long)
		}
		if v := limit.GetValue(); math.IsNaN(v) || v < asked.Float() {
			return fmt.Errorf("The %s limit must be greater than or equal to the %s request", one.short, one.short)
		}
	}
	return nil
}

// executor checks what concerns an executor of a LAUNCH or a LAUNCH_GROUP, and returns its resources.
func executor(e *mesos.ExecutorInfo, ctx Context) (resources.Resources, error) {
	none := resources.Resources{}
	switch e.GetType() {
	case mesos.ExecutorInfo_DEFAULT:
		switch {
		case e.Command != nil:
			return none, errors.New("'ExecutorInfo.command' must not be set for 'DEFAULT' executor")
		case e.Container != nil && e.GetContainer().GetType() != mesos.ContainerInfo_MESOS:
			return none, errors.New("'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor")
		case e.GetContainer().GetMesos().GetImage() != nil:
			return none, errors.New("'ExecutorInfo.container.mesos.image' must not be set for 'DEFAULT' executor")
		}
	case mesos.ExecutorInfo_CUSTOM:
		if e.Command == nil {
			return none, errors.New("'ExecutorInfo.command' must be set for 'CUSTOM' executor")
		}
	}
	if err := ID(e.GetExecutorId().GetValue()); err != nil {
		return none, err
	}
	if e.GetShutdownGracePeriod().GetNanoseconds() < 0 {
		return none, errors.New("ExecutorInfo's 'shutdown_grace_period' must be non-negative")
	}
	if err := Command(e.GetCommand()); err != nil {
		return none, fmt.Errorf("Executor's `CommandInfo` is invalid: %w", err)
	}
	if err := Container(e.GetContainer()); err != nil {
		return none, fmt.Errorf("Executor's `ContainerInfo` is invalid: %w", err)
	}
	want := ctx.Framework.GetId().GetValue()
	switch {
	case e.FrameworkId == nil:
		return none, errors.New("'ExecutorInfo.framework_id' must be set")
	case e.GetFrameworkId().GetValue() != want:
		return none, fmt.Errorf("ExecutorInfo has an invalid FrameworkID (Actual: %s vs Expected: %s)", e.GetFrameworkId().GetValue(), want)
	}
	own, err := parse(e.GetResources())
	if err != nil {
		return none, fmt.Errorf("Executor uses invalid resources: %w", err)
	}
	if err := uniquePersistence(own); err != nil {
		return none, fmt.Errorf("Executor uses duplicate persistence ID: %w", err)
	}
	if err := singleRole(own); err != nil {
		return none, fmt.Errorf("Invalid executor resources: %w", err)
	}
	if err := unmixed(own); err != nil {
		return none, fmt.Errorf("Executor mixes revocable and non-revocable resources: %w", err)
	}
	if old := ctx.executor(e.GetExecutorId().GetValue()); old != nil && !proto.Equal(old, e) {
		return none, fmt.Errorf("ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID '%s'", e.GetExecutorId().GetValue())
	}
	return own, nil
}

func (ctx Context) executor(id string) *mesos.ExecutorInfo {
	if ctx.Executor == nil {
		return nil
	}
	return ctx.Executor(id)
}

func hasShared(rs resources.Resources) bool {
	return !rs.Filter(func(r *mesos.Resource) bool { return r.Shared != nil }).Empty()
}

// sharesCgroups reads share_cgroups, or gives what stands for unset.
func sharesCgroups(c *mesos.ContainerInfo, unset bool) bool {
	if l := c.GetLinuxInfo(); l != nil && l.ShareCgroups != nil {
		return l.GetShareCgroups()
	}
	return unset
}
