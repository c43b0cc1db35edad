package executor

import (
	"strings"

	"starling/agent/containerizer"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Place is where a task of a default executor runs.
type Place struct {
	// Executor is the executor's id, Group that of its group in the containerizer; empty where it has none.
	Executor, Group string
	// Address is the IP address that the tasks of the executor have.
	Address string
}

// Nested returns the container of a task of a default executor: that of a command task, within the executor's group and
// without the overhead of an executor of its own.
func (c Config) Nested(framework *mesos.FrameworkInfo, task *mesos.TaskInfo, res resources.Resources, containerID, sandbox string, place Place) containerizer.Spec {
	spec := c.Spec(framework, task, res, containerID, sandbox)
	spec.Parent = place.Group
	less := func(amount *float64, overhead float64) {
		if *amount > overhead {
			*amount -= overhead
		}
	}
	lessBytes := func(amount *int64) {
		if *amount > OverheadMem {
			*amount -= OverheadMem
		}
	}
	less(&spec.Limits.CPUs, OverheadCPUs)
	less(&spec.Limits.CPULimit, OverheadCPUs)
	lessBytes(&spec.Limits.MemBytes)
	lessBytes(&spec.Limits.MemLimit)

	own := "MESOS_EXECUTOR_ID=" + task.GetTaskId().GetValue()
	addressed := false
	for i, v := range spec.Env {
		if v == own {
			spec.Env[i] = "MESOS_EXECUTOR_ID=" + place.Executor
		}
		addressed = addressed || strings.HasPrefix(v, "MESOS_CONTAINER_IP=")
	}
	if !addressed {
		spec.Env = append(spec.Env, "MESOS_CONTAINER_IP="+place.Address)
	}
	return spec
}

// StandIn is the task as which an executor of others is launched: it has the command and the container of the executor.
func StandIn(e *mesos.ExecutorInfo) *mesos.TaskInfo {
	return &mesos.TaskInfo{
		Name: e.Name, TaskId: &mesos.TaskID{Value: e.GetExecutorId().Value}, Command: e.GetCommand(), Container: e.GetContainer(),
		Resources: e.GetResources(),
	}
}
