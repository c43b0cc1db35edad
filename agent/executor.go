package agent

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/agent/checkpoint"
	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/agent/ledger"
	"starling/agent/sandbox"
	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// runKey names an executor: of each there is one run at a time.
type runKey struct{ framework, executor string }

// phase is how far a run of an executor is.
type phase uint8

const (
	// runIntended waits for its intent to be on disk; runStarting for its container, or its group.
	runIntended phase = iota
	runStarting
	// runRegistering waits for the process to subscribe, in this life of the agent.
	runRegistering
	runActive
	// runEnding was told to end, or is being ended.
	runEnding
	// runEnded is one of which no process is left, as far as is known.
	runEnded
)

// run is one run of an executor that is not a command task's own. There are two kinds: executors that are built into the
// agent, of task groups, whose tasks each have a container in the run's group; and those of others, each a process in a
// container, who say themselves how their tasks are.
type run struct {
	key       runKey
	framework *framework
	info      *mesos.ExecutorInfo
	// builtin is set for the default executor.
	builtin bool
	// container names the run: its container, or its group, and its files.
	container, sandbox string
	// res is what it holds beside its tasks.
	res   resources.Resources
	phase phase

	// tasks are those that are not closed; queue are those that it has not got yet, each entry one task or one group.
	tasks map[*task]struct{}
	queue [][]*task
	// completed are the last of those that are closed, oldest first.
	completed []*task

	pid               int
	networks          []*mesos.NetworkInfo
	launched, started time.Time
	// grouped is set where the containerizer has the run's group.
	grouped bool
	// starting is set while a worker starts it; abandon gives that up.
	starting bool
	abandon  func()
	// early is an exit that came before the result of the launch.
	early *containerizer.Exit

	// stream is the executor's subscription; subscribed is set once there was one, used once it was given a task.
	stream           *ExecutorStream
	subscribed, used bool
	// shutdown is the order to end it. Its tasks are told to have ended of verdict; or of failed, where nothing could be
	// started; or of its exit.
	shutdown *executor.Order
	verdict  *executor.Refusal
	exit     *containerizer.Exit
	failed   error
	wake     *timer

	// durable is set once the intent is on disk. clean is set once nothing of it runs and its resources are free, removed once
	// its files are gone, retired once its last task is closed too.
	durable, clean, removed, retired bool
	destroying, forgotten            bool
	// resizing is set while its limits are being changed, resize when they have to be again.
	resizing, resize bool
	// disk are the folders beside its sandbox that hold what it writes.
	disk []string
	// diskLimit is what its sandbox may hold, where that is measured; zero before it was looked at.
	diskLimit int64
}

// group is the tasks that were launched together, on one executor.
type group struct {
	id    string
	tasks []*task
}

func (r *run) holder() ledger.Holder {
	return ledger.Holder{Framework: r.key.framework, Executor: r.key.executor}
}

// live counts the tasks that have not ended.
func (r *run) live() int {
	n := 0
	for t := range r.tasks {
		if !t.cmd.Ended() {
			n++
		}
	}
	return n
}

// sorted returns the run's tasks in order of their ids, so that what is done to all of them can be repeated.
func (r *run) sorted() []*task {
	return slices.SortedFunc(func(yield func(*task) bool) {
		for t := range r.tasks {
			if !yield(t) {
				return
			}
		}
	}, compareTasks)
}

// runFor returns the run that tasks with this executor belong to: the one that there is, or a new one, which holds its
// resources already and is entered by nothing else.
func (a *Agent) runFor(f *framework, info *mesos.ExecutorInfo, grouped bool) (*run, *executor.Refusal) {
	invalid := func(format string, args ...any) (*run, *executor.Refusal) {
		return nil, &executor.Refusal{
			State: mesos.TaskState_TASK_ERROR, Reason: mesos.TaskStatus_REASON_TASK_INVALID, Message: fmt.Sprintf(format, args...),
		}
	}
	key := runKey{f.id, info.GetExecutorId().GetValue()}
	if r := a.runs[key]; r != nil {
		switch {
		case r.phase >= runEnding || r.shutdown != nil:
			return nil, &executor.Refusal{
				State: f.dropped(), Reason: mesos.TaskStatus_REASON_EXECUTOR_TERMINATED, Message: "Executor is terminating",
			}
		case !sameExecutor(r.info, info):
			return invalid("ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID '%s'", key.executor)
		}
		return r, nil
	}
	builtin := grouped && info.GetType() == mesos.ExecutorInfo_DEFAULT
	switch {
	case !utf8.ValidString(key.executor) || !sandbox.Safe(key.executor):
		return invalid("Executor ID %q contains invalid characters", key.executor)
	case !builtin && info.GetCommand() == nil:
		return invalid("'ExecutorInfo.command' must be set")
	}
	res, err := resources.FromProto(info.GetResources())
	if err != nil {
		return invalid("Executor uses invalid resources: %v", err)
	}
	if !builtin {
		if err := executor.Check(executor.StandIn(info)); err != nil {
			return invalid("Executor is invalid: %v", err)
		}
	}
	if err := a.runsAs(info.GetCommand(), info.GetContainer()); err != nil {
		return nil, executor.NotLaunched(err)
	}
	if err := a.usable(info.GetContainer()); err != nil {
		return nil, executor.NotLaunched(err)
	}
	if _, err := a.mounts(res); err != nil {
		return nil, executor.NotLaunched(err)
	}
	r := &run{
		key: key, framework: f, info: info, builtin: builtin, container: uuid.NewString(), launched: a.cfg.Now(),
		res: res, tasks: map[*task]struct{}{},
	}
	r.sandbox = a.layout.Dir(key.framework, key.executor, r.container)
	if _, err := proto.Marshal(a.runSummary(r)); err != nil {
		return invalid("Executor contains text that is not UTF-8")
	}
	if err := a.ledger.Take(r.holder(), res); err != nil {
		return nil, &executor.Refusal{
			State: f.dropped(), Reason: mesos.TaskStatus_REASON_INVALID_OFFERS,
			Message: fmt.Sprintf("Executor does not fit on this agent: %v", err),
		}
	}
	return r, nil
}

// sameExecutor tells whether two infos are of the same executor. To whom its resources are allocated is said in many ways.
func sameExecutor(a, b *mesos.ExecutorInfo) bool { return proto.Equal(a, b) }

// enterRun puts a new run into the books, with its intent to disk; its tasks' intents follow.
func (a *Agent) enterRun(r *run) {
	a.runs[r.key], a.runIDs[r.container] = r, r
	r.framework.tasks++
	a.changed.resources = true
	a.changed.runs[r.key] = r
	intent := &checkpoint.Executor{
		ContainerId: r.container, Framework: r.framework.info, Executor: r.info, Launched: r.launched.UnixNano(),
	}
	a.committer.Submit(checkpoint.PutExecutor(intent), func(err error) {
		a.post(func() {
			if err != nil {
				a.diskFails(err)
				a.runNotStarted(r, fmt.Errorf("cannot checkpoint the executor: %w", err))
				return
			}
			r.durable = true
			a.proceed(r)
		})
	})
}

// enqueue hands a task whose intent is on disk to its run; a group goes as one once all of it is there.
func (a *Agent) enqueue(t *task) {
	t.queued = true
	r := t.run
	switch {
	case t.group == nil:
		r.queue = append(r.queue, []*task{t})
	case !slices.ContainsFunc(t.group.tasks, func(o *task) bool { return !o.queued && !o.cmd.Ended() }):
		r.queue = append(r.queue, t.group.tasks)
	}
	switch r.phase {
	case runEnding:
		a.unqueue(t)
	case runEnded:
		a.endWith(t)
	case runIntended, runStarting, runRegistering, runActive:
		a.proceed(r)
	}
}

// unqueue takes back a task that its executor has not got, and never will.
func (a *Agent) unqueue(t *task) {
	t.queued = false
	a.free(t)
	a.perform(t, t.cmd.CancelLaunch())
}

// proceed does what is next with a run.
func (a *Agent) proceed(r *run) {
	switch {
	case r.phase == runIntended && r.durable && len(r.queue) > 0:
		a.startRun(r)
	case r.phase == runActive:
		a.deliver(r)
	}
}

// startRun has a worker start the executor, or make what its tasks share.
func (a *Agent) startRun(r *run) {
	r.phase, r.starting = runStarting, true
	a.collector.Keep(r.container)
	stand := executor.StandIn(r.info)
	owner := ""
	if a.cfg.SwitchUser {
		owner = executor.User(r.framework.info, stand)
	}
	create := func(owner string) (string, error) {
		return a.layout.Create(r.key.framework, r.key.executor, r.container, owner)
	}
	if err := checkMappings(r.info.GetContainer(), heldFor(r)); err != nil {
		a.startedRun(r, containerizer.Container{}, err)
		return
	}
	if r.builtin {
		a.openGroup(r, create, owner)
		return
	}
	l := launching{
		spec: a.executor.Spec(r.framework.info, stand, r.res, r.container, r.sandbox), create: create, owner: owner,
		uris: stand.GetCommand().GetUris(),
	}
	l.spec.Limits, l.spec.Executor = a.limitsOf(r), true
	l.spec.Note = a.runNote(r)
	if err := a.furnish(&l, r.res); err != nil {
		a.startedRun(r, containerizer.Container{}, err)
		return
	}
	r.abandon = a.startContainer(l, func(c containerizer.Container, err error) { a.startedRun(r, c, err) })
}

// openGroup has a worker make what the tasks of a default executor share.
func (a *Agent) openGroup(r *run, create func(owner string) (string, error), owner string) {
	shared := containerizer.Group{ID: r.container, Container: r.info.GetContainer(), Dir: r.sandbox, Limits: a.limitsOf(r)}
	volumes, err := a.mounts(r.res)
	if err != nil {
		a.startedRun(r, containerizer.Container{}, err)
		return
	}
	open := func() (networks []*mesos.NetworkInfo, grouped bool, err error) {
		ctx, cancel := a.workContext(a.cfg.LaunchTimeout)
		defer cancel()
		dir, err := create(owner)
		if err != nil {
			return nil, false, err
		}
		for _, v := range volumes {
			if err := v.Link(dir, v.path, owner); err != nil {
				return nil, false, err
			}
		}
		networks, err = a.cfg.Containerizer.OpenGroup(ctx, shared)
		asks := len(r.info.GetContainer().GetNetworkInfos()) > 0 || r.info.GetContainer().GetLinuxInfo() != nil
		if errors.Is(err, containerizer.ErrUnsupported) && !asks {
			return nil, false, nil // they share the sandbox, and the node's network as all do
		}
		return networks, err == nil, err
	}
	a.launches.run(func() {
		networks, grouped, err := open()
		a.post(func() { r.grouped = grouped; a.startedRun(r, containerizer.Container{Networks: networks}, err) })
	})
}

// startedRun goes on once the process of an executor runs, or what its tasks share is there.
func (a *Agent) startedRun(r *run, c containerizer.Container, err error) {
	r.starting, r.abandon = false, nil
	if err != nil {
		a.counters.LaunchErrors++
		a.runNotStarted(r, err)
		return
	}
	r.pid, r.started, r.networks, r.disk = c.PID, c.Started, c.Networks, c.Disk
	if r.started.IsZero() {
		r.started = a.cfg.Now()
	}
	if r.builtin {
		r.phase = runActive
		a.saveRun(r)
		a.deliver(r)
		a.tidyRun(r)
		return
	}
	a.boundRun(r)
	if r.phase == runStarting {
		r.phase = runRegistering
	} // Otherwise it has subscribed already, or was told to end.
	a.saveRun(r)
	switch {
	case r.early != nil:
		a.exitedRun(r, *r.early)
	case r.shutdown != nil && !r.subscribed:
		a.endRun(r, nil)
	case r.phase == runRegistering:
		timeout := a.cfg.ExecutorRegistrationTimeout
		r.wake = a.timers.at(time.Now().Add(timeout), func() {
			a.endRun(r, &executor.Refusal{
				State: mesos.TaskState_TASK_FAILED, Reason: mesos.TaskStatus_REASON_EXECUTOR_REGISTRATION_TIMEOUT,
				Message: "Executor did not register within " + executor.Duration(timeout),
			})
		})
	}
}

// runNotStarted ends a run of which nothing could be started.
func (a *Agent) runNotStarted(r *run, err error) {
	if r.phase == runEnded {
		return
	}
	r.failed = err
	a.over(r)
}

// limitsOf is what a run may use: what it holds, and what its tasks hold.
func (a *Agent) limitsOf(r *run) containerizer.Limits {
	sum := heldFor(r)
	return containerizer.Limits{
		CPUs: sum.Scalar("cpus").Float(), MemBytes: int64(sum.Scalar("mem").Float() * (1 << 20)),
	}
}

// heldFor is what an executor and its tasks hold.
func heldFor(r *run) resources.Resources {
	sum := r.res
	for t := range r.tasks {
		if !t.cmd.Ended() {
			sum = sum.Add(t.res)
		}
	}
	return sum
}

// fit gives a run the limits that its tasks need, and then goes on: at once where it can't be limited.
func (a *Agent) fit(r *run, then func(error)) {
	if r.builtin && !r.grouped {
		then(nil)
		return
	}
	if r.resizing {
		r.resize = true
		return
	}
	r.resizing, r.resize = true, false
	limits := a.limitsOf(r)
	a.control.run(func() {
		ctx, cancel := a.workContext(controlTimeout)
		defer cancel()
		err := a.cfg.Containerizer.Resize(ctx, r.container, limits)
		a.post(func() {
			r.resizing = false
			if errors.Is(err, containerizer.ErrUnsupported) || errors.Is(err, containerizer.ErrUnknownContainer) {
				err = nil // nothing limits it; or it has just ended, which is told by its exit
			}
			if r.phase == runEnded {
				return
			}
			if r.resize && err == nil {
				a.fit(r, then)
				return
			}
			then(err)
		})
	})
}

// deliver gives an executor what waits for it, after its limits were raised.
func (a *Agent) deliver(r *run) {
	if r.phase != runActive || len(r.queue) == 0 {
		return
	}
	a.fit(r, func(err error) {
		if err != nil {
			a.cfg.Log.Error("cannot change the limits of an executor: it is ended", "framework_id", r.key.framework,
				"executor_id", r.key.executor, "container_id", r.container, "err", err)
			a.endRun(r, &executor.Refusal{
				State: r.framework.gone(), Reason: mesos.TaskStatus_REASON_CONTAINER_UPDATE_FAILED,
				Message: fmt.Sprintf("Failed to update the resources of the executor: %v", err),
			})
			return
		}
		if r.phase != runActive || !r.builtin && r.stream == nil {
			return
		}
		queue := r.queue
		r.queue = nil
		for _, tasks := range queue {
			tasks = slices.DeleteFunc(slices.Clone(tasks), func(t *task) bool { return !t.queued })
			if len(tasks) == 0 {
				continue
			}
			if !r.used {
				r.used = true
				a.saveRun(r)
			}
			for _, t := range tasks {
				t.queued = false
			}
			a.boundRun(r)
			if r.builtin {
				for _, t := range tasks {
					a.start(t)
				}
				continue
			}
			a.give(r, tasks)
		}
	})
}

// inRun does what follows for a run of what was done to one of its tasks.
func (a *Agent) inRun(t *task, step executor.Step) {
	r := t.run
	if step.Forward {
		a.forwardKill(t)
	}
	if step.Ordered && t.queued {
		a.unqueue(t)
		return
	}
	if !t.cmd.Ended() || t.counted {
		return
	}
	t.counted = true
	remote, ok := t.cmd.(*executor.Remote)
	if ok && !t.clean {
		a.free(t)
	}
	if g := t.group; g != nil && (r.builtin && t.state != mesos.TaskState_TASK_FINISHED || ok && !remote.Given()) {
		// The tasks of a group live and die together, but for one that has done its work.
		for _, o := range g.tasks {
			if o != t && !o.cmd.Ended() && o.cmd.Order() == nil {
				a.perform(o, o.cmd.Kill(time.Now(), nil))
			}
		}
	}
	if !r.builtin && !r.used && r.phase < runEnding && r.live() == 0 {
		// It was to be started for this alone.
		a.shutdownRun(r, nil)
		return
	}
	a.boundRun(r)
	if r.phase == runActive {
		a.fit(r, func(err error) {
			if err != nil {
				a.cfg.Log.Warn("cannot lower the limits of an executor", "container_id", r.container, "err", err)
			}
			a.deliver(r)
		})
	}
}

// saveRun submits how far a run is to disk.
func (a *Agent) saveRun(r *run) {
	if r.removed || !r.durable {
		return
	}
	state := &checkpoint.Run{
		ContainerId: r.container, Pid: int64(r.pid), Subscribed: r.subscribed, Used: r.used, Ended: r.clean, Forgotten: r.forgotten,
	}
	if !r.started.IsZero() {
		state.Started = r.started.UnixNano()
	}
	if o := r.shutdown; o != nil {
		state.Shutdown = &checkpoint.Kill{Grace: int64(o.Grace), At: o.At.UnixNano(), Cause: checkpoint.Cause(o.Cause)}
	}
	a.committer.Submit(checkpoint.PutRun(state), func(err error) {
		if err != nil {
			// The next life takes it for less far than it is: it asks its container.
			a.post(func() { a.diskFails(err) })
		}
	})
}

// runSummary is what the mesh is told of a run.
func (a *Agent) runSummary(r *run) *catalog.Executor {
	s := &catalog.Executor{
		FrameworkId: r.key.framework, ExecutorId: r.key.executor, Resources: nodeapi.ResourcesToCatalog(r.res),
		ContainerId: r.container, Launched: r.launched.UnixNano(),
	}
	if roles := r.res.Allocations(); len(roles) > 0 {
		s.Role = roles[0]
	}
	return s
}

// runNote is what goes along with the container of an executor.
func (a *Agent) runNote(r *run) []byte {
	note, err := proto.Marshal(&catalog.Task{FrameworkId: r.key.framework, ExecutorId: r.key.executor, ContainerId: r.container})
	if err != nil || len(note) > containerizer.NoteMax {
		return nil
	}
	return note
}
