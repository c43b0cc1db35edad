package validation

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Group checks the tasks and the executor of a LAUNCH_GROUP, whose blanks the master has filled in: each task has the
// executor. One fault makes all of it invalid. It returns what the group takes out of the pool.
func Group(e *mesos.ExecutorInfo, tasks []*mesos.TaskInfo, ctx Context) (resources.Resources, error) {
	none := resources.Resources{}
	parts := make([]resources.Resources, 0, len(tasks)+1)
	ids := make(map[string]bool)
	if len(tasks) == 0 {
		// Mesos takes it and starts an executor for nobody.
		return none, errors.New("Task group contains no tasks")
	}
	for _, t := range tasks {
		id := t.GetTaskId().GetValue()
		one, err := groupTask(t, ctx)
		if err == nil && ids[id] {
			err = fmt.Errorf("Task has duplicate ID: %s", id)
		}
		if err != nil {
			return none, fmt.Errorf("Task '%s' is invalid: %w", id, err)
		}
		ids[id] = true
		parts = append(parts, one)
	}
	own, err := groupExecutor(e, tasks, ctx)
	if err != nil {
		return none, err
	}
	total := sum(parts...)
	all := append(parts, own)
	if err := uniquePersistence(all...); err != nil {
		return none, fmt.Errorf("Task group and executor use duplicate persistence ID: %w", err)
	}
	if err := unmixed(sum(all...)); err != nil {
		return none, fmt.Errorf("Task group and executor mix revocable and non-revocable resources: %w", err)
	}
	if overlap(all...) {
		return none, fmt.Errorf("There are overlapping resources in the task group's task resources %s and/or executor resources %s", total, own)
	}
	if ctx.executor(e.GetExecutorId().GetValue()) == nil {
		total = total.Add(own)
	}
	if !ctx.Pool.Contains(total) {
		return none, fmt.Errorf("Total resources %s required by task group and its executor are more than available %s", total, ctx.Pool)
	}
	if sharesCgroups(e.GetContainer(), false) {
		return none, errors.New("The 'share_cgroups' field cannot be set to 'true' on executor containers")
	}
	for _, t := range tasks {
		if sharesCgroups(t.GetContainer(), true) != sharesCgroups(tasks[0].GetContainer(), true) {
			return none, errors.New("If set, the value of 'share_cgroups' must be the same for all tasks in each task group and under a single executor")
		}
	}
	return total, nil
}

func groupTask(t *mesos.TaskInfo, ctx Context) (resources.Resources, error) {
	need, err := task(t, ctx)
	if err != nil {
		return need, err
	}
	c, kind := t.GetContainer(), t.GetHealthCheck().GetType()
	switch {
	case t.Executor == nil:
		return need, errors.New("'TaskInfo.executor' must be set")
	case len(c.GetNetworkInfos()) > 0 && t.HealthCheck != nil && kind != mesos.HealthCheck_COMMAND:
		return need, errors.New("HTTP and TCP health checks are not supported for nested containers not joining parent's network")
	case c != nil && c.GetType() == mesos.ContainerInfo_DOCKER:
		return need, errors.New("Docker ContainerInfo is not supported on the task")
	case len(t.GetLimits()) > 0 && sharesCgroups(c, true):
		return need, errors.New("Resource limits may only be set for tasks within a task group when the 'share_cgroups' field is set to 'false'.")
	}
	return need, nil
}

func groupExecutor(e *mesos.ExecutorInfo, tasks []*mesos.TaskInfo, ctx Context) (resources.Resources, error) {
	own, err := executor(e, ctx)
	if err != nil {
		return own, err
	}
	id := e.GetExecutorId().GetValue()
	switch {
	case e.Type == nil:
		return own, errors.New("'ExecutorInfo.type' must be set")
	case e.GetType() != mesos.ExecutorInfo_DEFAULT && e.GetType() != mesos.ExecutorInfo_CUSTOM:
		return own, errors.New("Unknown executor type")
	case e.Container != nil && e.GetContainer().GetType() == mesos.ContainerInfo_DOCKER:
		return own, errors.New("Docker ContainerInfo is not supported on the executor")
	}
	for _, t := range tasks {
		if !proto.Equal(t.GetExecutor(), e) {
			return own, fmt.Errorf("The `ExecutorInfo` of task '%s' is different from executor '%s'", t.GetTaskId().GetValue(), id)
		}
	}
	for _, one := range []struct {
		name, less string
		least      resources.Milli
	}{{resources.CPUs, "CPUs", minCPUs}, {resources.Mem, "memory", minMem}} {
		if has := own.Scalar(one.name); has < one.least {
			return own, fmt.Errorf("Executor '%s' uses less %s (%s) than the minimum required (%s)", id, one.less, amount(has, one.name), amount(one.least, one.name))
		}
	}
	if own.Scalar(resources.Disk) == 0 {
		return own, fmt.Errorf("Executor '%s' uses no disk", id)
	}
	return own, nil
}

// amount writes a scalar the way Mesos does: None for nothing, and memory with its unit.
func amount(m resources.Milli, name string) string {
	switch {
	case m == 0:
		return "None"
	case name == resources.Mem:
		return m.String() + "MB"
	}
	return m.String()
}
