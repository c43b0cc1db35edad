package agent

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"starling/agent/executor"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// Counters count what happened since the start. They only grow, but for RecoverySeconds.
type Counters struct {
	// TasksFinished and its kin count tasks by their last state.
	TasksFinished, TasksFailed, TasksKilled, TasksLost, TasksError, TasksDropped uint64
	Refused, LaunchErrors, DestroyErrors, DiskErrors, RecoveryErrors             uint64
	Calls, StaleCalls, Reports, FailedReports, DroppedUpdates                    uint64
	Acknowledgements, InvalidAcknowledgements, InvalidMessages, Updates          uint64
	// OperationsFinished and OperationsRefused count operations on reservations and volumes.
	OperationsFinished, OperationsRefused uint64
	RecoverySeconds                       float64

	retired uint64
}

// count notes a state that a task got to.
func (c *Counters) count(state mesos.TaskState) {
	c.Updates++
	switch state {
	case mesos.TaskState_TASK_FINISHED:
		c.TasksFinished++
	case mesos.TaskState_TASK_FAILED:
		c.TasksFailed++
	case mesos.TaskState_TASK_KILLED:
		c.TasksKilled++
	case mesos.TaskState_TASK_LOST:
		c.TasksLost++
	case mesos.TaskState_TASK_ERROR:
		c.TasksError++
	case mesos.TaskState_TASK_DROPPED:
		c.TasksDropped++
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_KILLING,
		mesos.TaskState_TASK_GONE, mesos.TaskState_TASK_GONE_BY_OPERATOR, mesos.TaskState_TASK_UNREACHABLE, mesos.TaskState_TASK_UNKNOWN:
	}
}

func (c *Counters) operation(state mesos.OperationState) {
	if state == mesos.OperationState_OPERATION_FINISHED {
		c.OperationsFinished++
	} else {
		c.OperationsRefused++
	}
}

// State is what an agent looked like at one moment. Messages in it are shared and must not be modified.
type State struct {
	Started time.Time
	// Leader is the hostname or address of the master that the agent knows as leader; empty for none.
	Leader string
	// Epoch is the highest that was obeyed.
	Epoch       uint64
	Total, Free resources.Resources
	// Used is what tasks hold, with their allocation roles.
	Used resources.Resources
	// Frameworks are those with tasks, Completed those without that are still remembered; both in order of ids.
	Frameworks, Completed []FrameworkState
	// Operations are those whose status is not acknowledged, oldest first.
	Operations []*mesos.Operation
	// Nested are the containers that were launched over the API, those that have ended and are kept included.
	Nested   []NestedContainer
	Problems []string
	// Degraded is why containers can't be started; empty while they can.
	Degraded string
	Counters Counters
	// Drain is set while the agent is drained, since DrainStarted.
	Drain        *mesos.DrainConfig
	DrainStarted time.Time
	// Pending is how many updates wait for their acknowledgement.
	Pending int
	// SandboxesRemoved, SandboxesFailed and SandboxesPending count the garbage collector's work.
	SandboxesRemoved, SandboxesFailed, SandboxesPending int
}

// FrameworkState is one framework and its executors.
type FrameworkState struct {
	Info *mesos.FrameworkInfo
	// Executors are live or have updates that are not acknowledged; Completed have neither, newest last.
	Executors, Completed []ExecutorState
}

// The kinds of executors, and what one that is not a command task's own does.
const (
	TypeCommand = "COMMAND"
	TypeDefault = "DEFAULT"
	TypeCustom  = "CUSTOM"

	PhaseRegistering = "REGISTERING"
	PhaseRunning     = "RUNNING"
	PhaseTerminating = "TERMINATING"
	PhaseTerminated  = "TERMINATED"
)

// ExecutorState is one executor.
type ExecutorState struct {
	ID, Name, Source string
	// Type is TypeCommand for one with one task, Task, whose container it is. Others have Info, Resources, Phase and lists of
	// tasks in place of Command, Task and Running.
	Type        string
	ContainerID string
	// Directory is the sandbox, an absolute path.
	Directory string
	PID       int
	Command   *mesos.CommandInfo
	Task      *mesos.Task
	// Running is set while a process of the task runs.
	Running bool
	Info    *mesos.ExecutorInfo
	// Resources are what the executor itself holds.
	Resources resources.Resources
	Phase     string
	// Queued are the tasks that it has not got, Tasks those that it has, Terminated those that have ended and whose end is not
	// acknowledged, Completed the last of the rest, oldest first.
	Queued, Tasks, Terminated, Completed []*mesos.Task
	// Nested are the containers of the tasks of a default executor.
	Nested []NestedState
	// Volumes are the folders of its persistent volumes, by the absolute paths at which the sandbox shows them.
	Volumes map[string]string
	// CPUs and MemBytes are the limits of the container.
	CPUs     float64
	MemBytes int64
}

// NestedState is the container of a task within its executor's.
type NestedState struct {
	// ContainerID has the executor's in front, and a dot between them.
	ContainerID, TaskID string
	Directory           string
	PID                 int
	CPUs                float64
	MemBytes            int64
}

// State returns what the agent looks like now.
func (a *Agent) State(ctx context.Context) (*State, error) {
	var s *State
	if err := a.do(ctx, func() { s = a.state() }); err != nil {
		return nil, err
	}
	s.SandboxesRemoved, s.SandboxesFailed, s.SandboxesPending = a.collector.Counts()
	return s, nil
}

func (a *Agent) state() *State {
	s := &State{
		Started: a.started, Leader: a.leader.name, Epoch: a.epoch.obeyed, Total: a.ledger.Total(), Free: a.ledger.Free(),
		Problems: slices.Sorted(maps.Values(a.problems)), Counters: a.counters, Degraded: a.degraded,
		Operations: a.made.doc.GetPending(), Nested: a.nestedContainers(),
	}
	if s.Leader == "" {
		s.Leader = a.leader.addr
	}
	if d := a.draining; d != nil {
		s.Drain = &mesos.DrainConfig{MarkGone: &d.MarkGone}
		if d.MaxGracePeriod != nil {
			s.Drain.MaxGracePeriod = &mesos.DurationInfo{Nanoseconds: d.MaxGracePeriod}
		}
		s.DrainStarted = time.Unix(0, d.GetStarted())
	}
	for _, h := range a.ledger.Holders() {
		if h.Operation != "" {
			continue
		}
		held, _ := a.ledger.Held(h)
		s.Used = s.Used.Add(held)
	}
	executors := map[*framework][]ExecutorState{}
	for _, t := range a.sorted() {
		if t.run == nil {
			executors[t.framework] = append(executors[t.framework], a.executorState(t))
		}
		s.Pending += len(t.updates) - t.acked
	}
	for _, r := range a.sortedRuns() {
		executors[r.framework] = append(executors[r.framework], a.runState(r))
	}
	for _, id := range slices.Sorted(maps.Keys(a.frameworks)) {
		f := a.frameworks[id]
		fs := FrameworkState{Info: f.info, Executors: executors[f]}
		for _, t := range f.completed {
			fs.Completed = append(fs.Completed, a.executorState(t))
		}
		for _, r := range f.completedRuns {
			fs.Completed = append(fs.Completed, a.runState(r))
		}
		if f.tasks > 0 {
			s.Frameworks = append(s.Frameworks, fs)
		} else {
			s.Completed = append(s.Completed, fs)
		}
	}
	return s
}

func (a *Agent) executorState(t *task) ExecutorState {
	cpus, mem := executor.Shown(executor.Limits(t.info, t.res))
	mounts, err := a.mounts(t.res)
	if err != nil {
		mounts = nil // it was refused for that
	}
	volumes := map[string]string{}
	for _, v := range mounts {
		volumes[filepath.Join(t.sandbox, v.path)] = v.Dir()
	}
	return ExecutorState{
		Volumes: volumes,
		ID:      t.executorID(), Type: TypeCommand, Name: executor.Name(t.info), Source: t.key.Task, ContainerID: t.container, Directory: t.sandbox,
		PID: t.pid, Command: t.info.GetCommand(), Task: a.proto(t), Running: !terminal(t.state) && t.pid > 0,
		CPUs: cpus, MemBytes: mem,
	}
}

// runState shows an executor that is not a command task's own.
func (a *Agent) runState(r *run) ExecutorState {
	limits := a.limitsOf(r)
	e := ExecutorState{
		ID: r.key.executor, Name: r.info.GetName(), Source: r.info.GetSource(), Type: TypeCustom, ContainerID: r.container,
		Directory: r.sandbox, PID: r.pid, Info: r.info, Resources: r.res, CPUs: limits.CPUs, MemBytes: limits.MemBytes,
		Volumes: map[string]string{},
	}
	switch {
	case r.phase == runEnded:
		e.Phase = PhaseTerminated
	case r.phase == runEnding || r.shutdown != nil:
		e.Phase = PhaseTerminating
	case r.phase == runActive:
		e.Phase = PhaseRunning
	default:
		e.Phase = PhaseRegistering
	}
	volumes := func(res resources.Resources, dir string) {
		mounts, err := a.mounts(res)
		if err != nil {
			return // it was refused for that
		}
		for _, v := range mounts {
			e.Volumes[filepath.Join(dir, v.path)] = v.Dir()
		}
	}
	volumes(r.res, r.sandbox)
	if r.builtin {
		e.Type = TypeDefault
	}
	for _, t := range r.sorted() {
		switch shown := a.proto(t); {
		case t.cmd.Ended():
			e.Terminated = append(e.Terminated, shown)
		case t.queued || !t.durable:
			e.Queued = append(e.Queued, shown)
		default:
			e.Tasks = append(e.Tasks, shown)
		}
	}
	for _, t := range r.completed {
		e.Completed = append(e.Completed, a.proto(t))
	}
	if !r.builtin {
		return e
	}
	for _, t := range append(r.sorted(), r.completed...) {
		volumes(t.res, t.sandbox)
		if !t.cmd.Ended() && t.pid > 0 {
			cpus, mem := executor.Shown(a.specOf(t).Limits)
			e.Nested = append(e.Nested, NestedState{
				ContainerID: t.container, TaskID: t.key.Task, Directory: t.sandbox, PID: t.pid, CPUs: cpus, MemBytes: mem,
			})
		}
	}
	return e
}
