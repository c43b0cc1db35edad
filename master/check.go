package master

import (
	"errors"
	"fmt"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

func checkCall(call *scheduler.Call) error {
	if call.Type == nil {
		return errors.New("Expecting 'type' to be present")
	}
	return nil
}
func checkInfo(info *mesos.FrameworkInfo) error            { return nil }
func checkConstraints(c *scheduler.OfferConstraints) error { return nil }

func (m *Master) checkTask(f *framework, a *agent, info *mesos.TaskInfo, pool resources.Resources) (resources.Resources, error) {
	need, err := resources.FromProto(info.GetResources())
	if err != nil {
		return need, err
	}
	if t := m.tasks[taskKey{f.id, info.GetTaskId().GetValue()}]; t != nil && !t.acknowledged {
		return need, fmt.Errorf("Task has duplicate ID: %s", info.GetTaskId().GetValue())
	}
	if !pool.Contains(need) {
		return need, fmt.Errorf("Total resources %s required by task and its executor is more than available %s", need, pool)
	}
	return need, nil
}
func (m *Master) checkGroup(f *framework, a *agent, executor *mesos.ExecutorInfo, infos []*mesos.TaskInfo, pool resources.Resources) (resources.Resources, error) {
	need, err := resources.FromProto(executor.GetResources())
	if err != nil {
		return need, err
	}
	return need, nil
}
