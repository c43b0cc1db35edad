package agent

import (
	"errors"

	"starling/agent/containerizer"
	"starling/master/mesos/resources"
)

// giveGPUs lets a container have the GPUs of its resources. Which these are is on disk before it is started.
func (a *Agent) giveGPUs(l *launching, res resources.Resources) error {
	count := int(res.Scalar(resources.GPUs) / 1000)
	if count == 0 {
		return nil
	}
	if a.cfg.GPUs == nil {
		return errors.New("this agent gives no GPUs to tasks: its --isolation has no gpu/nvidia")
	}
	if containerizer.IsDocker(l.spec.Container) {
		return errors.New("containers of the Docker engine are given no GPUs; ask for one of type MESOS")
	}
	devices, err := a.cfg.GPUs.Take(l.spec.ID, count, a.lives)
	if err != nil {
		return err
	}
	l.spec.Devices, l.before = devices, a.cfg.GPUs.Save
	return nil
}

// lives tells whether a container of a task or of an executor holds its resources still.
func (a *Agent) lives(id string) bool {
	if t := a.containers[id]; t != nil && !t.clean {
		return true
	}
	for _, r := range a.runs {
		if r.container == id {
			return true
		}
	}
	return false
}
