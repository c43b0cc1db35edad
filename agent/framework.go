package agent

import (
	"slices"

	"starling/master/mesos"
)

// The bounds of what is remembered for people, as in Mesos: frameworks without tasks, and tasks of one executor.
const (
	completedFrameworks = 50
	completedOfExecutor = 200
)

// framework is one whose tasks this node runs or ran.
type framework struct {
	id   string
	info *mesos.FrameworkInfo
	// tasks counts those that are not closed, and runs of executors that are not over.
	tasks int
	// completed are the last of those that are, oldest first.
	completed []*task
	// completedRuns are the last runs of executors that are over, oldest first.
	completedRuns []*run
	// idle orders the frameworks without tasks: the lowest goes first.
	idle uint64
}

func (f *framework) has(c mesos.FrameworkInfo_Capability_Type) bool {
	return slices.ContainsFunc(f.info.GetCapabilities(), func(have *mesos.FrameworkInfo_Capability) bool {
		return have.GetType() == c
	})
}

// dropped is the state of a task that was never started: frameworks that don't know the newer states get the old one.
func (f *framework) dropped() mesos.TaskState {
	if f.has(mesos.FrameworkInfo_Capability_PARTITION_AWARE) {
		return mesos.TaskState_TASK_DROPPED
	}
	return mesos.TaskState_TASK_LOST
}

// framework returns the framework of an info, which replaces the one known.
func (a *Agent) framework(info *mesos.FrameworkInfo) *framework {
	id := info.GetId().GetValue()
	f := a.frameworks[id]
	if f == nil {
		f = &framework{id: id}
		a.frameworks[id] = f
	}
	f.info = info
	return f
}

// retire notes that a task of the framework is closed.
func (a *Agent) retire(f *framework, t *task) {
	f.tasks--
	if r := t.run; r != nil {
		// It is shown with its executor.
		delete(r.tasks, t)
		if len(r.completed) == completedOfExecutor {
			r.completed = append(r.completed[:0], r.completed[1:]...)
		}
		r.completed = append(r.completed, t)
		return
	}
	f.completed = append(f.completed, t)
	if n := len(f.completed) - a.cfg.MaxCompletedExecutors; n > 0 {
		f.completed = append(f.completed[:0], f.completed[n:]...)
	}
	a.rest(f)
}

// retireRun notes that a run of an executor of the framework is over, and all its tasks with it.
func (a *Agent) retireRun(r *run) {
	f := r.framework
	f.tasks--
	f.completedRuns = append(f.completedRuns, r)
	if n := len(f.completedRuns) - a.cfg.MaxCompletedExecutors; n > 0 {
		f.completedRuns = append(f.completedRuns[:0], f.completedRuns[n:]...)
	}
	a.rest(f)
}

// rest forgets the framework that was idle longest when there are too many.
func (a *Agent) rest(f *framework) {
	a.counters.retired++
	f.idle = a.counters.retired
	idle, oldest := 0, (*framework)(nil)
	for _, other := range a.frameworks {
		if other.tasks > 0 {
			continue
		}
		idle++
		if oldest == nil || other.idle < oldest.idle {
			oldest = other
		}
	}
	if idle > completedFrameworks {
		delete(a.frameworks, oldest.id)
	}
}
