package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/executor"
	"starling/agent/status"
	"starling/master/mesos"
	protocol "starling/master/mesos/executor"
	"starling/master/nodeapi"
)

// What an executor is told of a call that nothing comes of.
var (
	ErrUnknownFramework = errors.New("Framework cannot be found")
	ErrUnknownExecutor  = errors.New("Executor cannot be found")
	ErrNotSubscribed    = errors.New("Executor is not subscribed")
	// ErrBusy is for an update of a task that has more of them waiting for its framework than are kept.
	ErrBusy = errors.New("Too many status updates of the task are not acknowledged by its framework")
)

// unacknowledgedMax bounds the updates of a task of an executor of others that its framework has not acknowledged; the last one is
// always taken. unacknowledgedBytes bounds what is in them: all of them are written anew with each update.
const (
	unacknowledgedMax   = 256
	unacknowledgedBytes = 4 << 20
)

// SubscribeExecutor opens the stream of an executor; an earlier one of the same executor ends. Whoever gets it has to close
// it. The call was checked by executor.CheckCall.
func (a *Agent) SubscribeExecutor(ctx context.Context, call *protocol.Call) (*ExecutorStream, error) {
	var stream *ExecutorStream
	var refused error
	if err := a.do(ctx, func() { stream, refused = a.subscribe(call) }); err != nil {
		return nil, err
	}
	return stream, refused
}

// ExecutorCall carries out an UPDATE or a MESSAGE of an executor. The call was checked by executor.CheckCall.
func (a *Agent) ExecutorCall(ctx context.Context, call *protocol.Call) error {
	var refused error
	err := a.do(ctx, func() {
		var r *run
		if r, refused = a.caller(call); refused != nil {
			return
		}
		switch {
		case r.phase <= runRegistering:
			refused = ErrNotSubscribed
		case call.GetType() == protocol.Call_UPDATE:
			refused = a.updated(r, call.GetUpdate().GetStatus())
		case call.GetType() == protocol.Call_MESSAGE:
			a.reports.message(&nodeapi.ExecutorMessage{
				FrameworkId: r.framework.info.GetId(), ExecutorId: r.info.GetExecutorId(), Data: call.GetMessage().GetData(),
			}, &a.counters)
		}
	})
	return errors.Join(err, refused)
}

// caller finds the run that a call is of.
func (a *Agent) caller(call *protocol.Call) (*run, error) {
	key := runKey{call.GetFrameworkId().GetValue(), call.GetExecutorId().GetValue()}
	if f := a.frameworks[key.framework]; f == nil || f.tasks == 0 {
		return nil, ErrUnknownFramework
	}
	r := a.runs[key]
	if r == nil || r.builtin || r.phase == runEnded {
		return nil, ErrUnknownExecutor
	}
	return r, nil
}

// full tells whether no more updates are taken beside those that are not acknowledged.
func full(updates []*mesos.TaskStatus) bool {
	size := 0
	for _, st := range updates {
		size += len(st.GetData()) + len(st.GetMessage())
	}
	return len(updates) >= unacknowledgedMax || size >= unacknowledgedBytes
}

// subscribe takes a subscription: what the executor could not tell is heard, and it is given what waits for it.
func (a *Agent) subscribe(call *protocol.Call) (*ExecutorStream, error) {
	r, err := a.caller(call)
	if err != nil {
		return nil, err
	}
	a.dropStream(r)
	stream := newExecutorStream()
	stream.closed = func() { a.post(func() { a.streamClosed(r, stream) }) }
	if r.phase == runEnding || r.shutdown != nil || a.leaving {
		stream.push(&protocol.Event{Type: protocol.Event_SHUTDOWN.Enum()})
		stream.end()
		a.hear(r, call.GetSubscribe())
		return stream, nil
	}
	r.stream = stream
	if !r.subscribed {
		r.subscribed = true
		a.saveRun(r)
	}
	a.push(r, &protocol.Event{
		Type: protocol.Event_SUBSCRIBED.Enum(),
		Subscribed: &protocol.Event_Subscribed{
			ExecutorInfo: r.info, FrameworkInfo: r.framework.info, AgentInfo: a.info(), ContainerId: &mesos.ContainerID{Value: &r.container},
		},
	})
	r.phase = runActive
	a.timers.stop(r.wake)
	a.hear(r, call.GetSubscribe())
	if r.stream == nil || r.phase != runActive {
		return stream, nil
	}
	for _, t := range r.sorted() {
		if !t.queued && !t.cmd.Ended() && t.cmd.Order() != nil {
			a.forwardKill(t)
		}
	}
	if !r.used && r.live() == 0 {
		a.shutdownRun(r, nil)
		stream.end()
		return stream, nil
	}
	a.deliver(r)
	return stream, nil
}

// hear takes what an executor says of its tasks when it subscribes. A task that it was given and does not know is none.
func (a *Agent) hear(r *run, s *protocol.Call_Subscribe) {
	known := map[string]bool{}
	for _, info := range s.GetUnacknowledgedTasks() {
		known[info.GetTaskId().GetValue()] = true
	}
	for _, u := range s.GetUnacknowledgedUpdates() {
		known[u.GetStatus().GetTaskId().GetValue()] = true
		if err := a.updated(r, u.GetStatus()); err != nil {
			a.cfg.Log.Warn("status of a task of an executor is not taken", "framework_id", r.key.framework, "executor_id", r.key.executor,
				"task_id", u.GetStatus().GetTaskId().GetValue(), "err", err)
		}
	}
	for _, t := range r.sorted() {
		remote, ok := t.cmd.(*executor.Remote)
		if !ok || !remote.Given() || remote.Ended() || t.state != mesos.TaskState_TASK_STAGING || known[t.key.Task] {
			continue
		}
		a.perform(t, remote.Lost(&executor.Refusal{
			State: r.framework.dropped(), Reason: mesos.TaskStatus_REASON_AGENT_RESTARTED, Message: "Task launched during agent restart",
		}))
	}
}

// dropStream ends a run's subscription. What did not leave the agent is to be given to the next one.
func (a *Agent) dropStream(r *run) {
	if r.stream == nil {
		return
	}
	unsent := r.stream.takeBack()
	r.stream = nil
	var back [][]*task
	for _, e := range unsent {
		infos := e.GetLaunchGroup().GetTaskGroup().GetTasks()
		if e.GetLaunch() != nil {
			infos = []*mesos.TaskInfo{e.GetLaunch().GetTask()}
		}
		var tasks []*task
		for _, info := range infos {
			t := a.tasks[status.Key{Framework: r.key.framework, Task: info.GetTaskId().GetValue()}]
			if remote, ok := cmdOf(t).(*executor.Remote); ok && !remote.Ended() {
				remote.TakeBack()
				if t.queued = true; t.cmd.Order() != nil {
					a.unqueue(t)
					continue
				}
				tasks = append(tasks, t)
			}
		}
		if len(tasks) > 0 {
			back = append(back, tasks)
		}
	}
	r.queue = append(back, r.queue...)
}

func cmdOf(t *task) taskLife {
	if t == nil {
		return nil
	}
	return t.cmd
}

// streamClosed notes that an executor has left: it may come back.
func (a *Agent) streamClosed(r *run, s *ExecutorStream) {
	if r.stream == s {
		a.dropStream(r)
	}
}

// push sends an event to an executor that is subscribed.
func (a *Agent) push(r *run, e *protocol.Event) {
	if r.stream != nil && !r.stream.push(e) {
		a.cfg.Log.Warn("executor does not read its events: it is cut off", "framework_id", r.key.framework, "executor_id", r.key.executor,
			"container_id", r.container)
		a.dropStream(r)
	}
}

// give hands tasks to a subscribed executor: one by itself, or a group.
func (a *Agent) give(r *run, tasks []*task) {
	for _, t := range tasks {
		t.cmd.(*executor.Remote).Give()
	}
	var e *protocol.Event
	if tasks[0].group == nil {
		e = &protocol.Event{Type: protocol.Event_LAUNCH.Enum(), Launch: &protocol.Event_Launch{Task: tasks[0].info}}
	} else {
		infos := make([]*mesos.TaskInfo, len(tasks))
		for i, t := range tasks {
			infos[i] = t.info
		}
		e = &protocol.Event{
			Type:        protocol.Event_LAUNCH_GROUP.Enum(),
			LaunchGroup: &protocol.Event_LaunchGroup{TaskGroup: &mesos.TaskGroupInfo{Tasks: infos}},
		}
	}
	if r.stream != nil && r.stream.push(e) {
		return
	}
	for _, t := range tasks {
		t.cmd.(*executor.Remote).TakeBack()
		t.queued = true
	}
	r.queue = append(r.queue, tasks)
	if r.stream != nil {
		a.cfg.Log.Warn("executor does not read its events: it is cut off", "container_id", r.container)
		a.dropStream(r)
	}
}

// forwardKill passes on the order to end a task. Where nobody listens it is passed on with the next subscription.
func (a *Agent) forwardKill(t *task) {
	kill := &protocol.Event_Kill{TaskId: t.info.GetTaskId()}
	if remote, ok := t.cmd.(*executor.Remote); ok {
		kill.KillPolicy = remote.Policy()
	}
	a.push(t.run, &protocol.Event{Type: protocol.Event_KILL.Enum(), Kill: kill})
}

// updated takes a status of a task from its executor. It is acknowledged once it is on disk.
func (a *Agent) updated(r *run, st *mesos.TaskStatus) error {
	key := status.Key{Framework: r.key.framework, Task: st.GetTaskId().GetValue()}
	id := status.UUID(st.GetUuid())
	t := a.tasks[key]
	if t == nil || t.run != r {
		if !a.ended.Has(key.Framework, key.Task) {
			a.cfg.Log.Warn("executor tells of a task that it was not given", "framework_id", key.Framework, "task_id", key.Task,
				"executor_id", r.key.executor, "state", st.GetState().String())
		}
		a.acknowledgeExecutor(r, key.Task, id)
		return nil
	}
	remote, ok := t.cmd.(*executor.Remote)
	known := slices.ContainsFunc(t.updates, func(o *mesos.TaskStatus) bool { return string(o.GetUuid()) == string(id[:]) })
	switch {
	case known && slices.Contains(t.owed, id):
		return nil // it is on its way to disk
	case known || !ok || remote.Ended():
		a.acknowledgeExecutor(r, key.Task, id)
		return nil
	case !executor.Terminal(st.GetState()) && full(t.updates[t.acked:]):
		return ErrBusy
	}
	st = proto.CloneOf(st)
	if t.queued {
		// It knows of it all the same.
		t.queued = false
		remote.Give()
	}
	t.owed = append(t.owed, id)
	a.perform(t, remote.Updated(st))
	return nil
}

// acknowledgeExecutor tells an executor that the agent answers for an update from now on.
func (a *Agent) acknowledgeExecutor(r *run, task string, id status.UUID) {
	a.push(r, &protocol.Event{
		Type:         protocol.Event_ACKNOWLEDGED.Enum(),
		Acknowledged: &protocol.Event_Acknowledged{TaskId: &mesos.TaskID{Value: &task}, Uuid: id[:]},
	})
}

// settle acknowledges the updates that are on disk now.
func (a *Agent) settle(t *task, written []status.UUID) {
	for _, id := range written {
		if i := slices.Index(t.owed, id); i >= 0 {
			t.owed = slices.Delete(slices.Clone(t.owed), i, i+1)
			a.acknowledgeExecutor(t.run, t.key.Task, id)
		}
	}
}

// executorMessage passes a message of a framework on to its executor, if that listens.
func (a *Agent) executorMessage(m *nodeapi.ExecutorMessage) {
	r := a.runs[runKey{m.GetFrameworkId().GetValue(), m.GetExecutorId().GetValue()}]
	if r == nil || r.stream == nil {
		a.counters.InvalidMessages++
		return
	}
	data := m.GetData()
	if data == nil {
		data = []byte{}
	}
	a.push(r, &protocol.Event{Type: protocol.Event_MESSAGE.Enum(), Message: &protocol.Event_Message{Data: data}})
}

// info is this agent as executors see it.
func (a *Agent) info() *mesos.AgentInfo {
	return &mesos.AgentInfo{
		Hostname: &a.cfg.Hostname, Port: proto.Int32(int32(a.cfg.Port)), Id: &mesos.AgentID{Value: &a.cfg.ID},
		Resources: a.ledger.Total().ProtoEndpoint(), Attributes: a.cfg.Attributes,
	}
}

// awaitExecutors gives the executors that were found running their time to subscribe again, from now on.
func (a *Agent) awaitExecutors() {
	timeout := a.cfg.ExecutorReregistrationTimeout
	for _, r := range a.runIDs {
		if r.phase != runRegistering || r.shutdown != nil {
			continue
		}
		a.wakeRun(r, time.Now().Add(timeout), func() {
			a.endRun(r, &executor.Refusal{
				State: r.framework.gone(), Reason: mesos.TaskStatus_REASON_EXECUTOR_REREGISTRATION_TIMEOUT,
				Message: fmt.Sprintf("Executor did not reregister within %s", executor.Duration(timeout)),
			})
		})
	}
}
