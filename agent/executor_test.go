package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/gossip/catalog"
	"starling/master/mesos"
	protocol "starling/master/mesos/executor"
	"starling/master/nodeapi"
)

// remote is an executor of others, played by a test.
type remote struct {
	w      *world
	id     string
	stream *ExecutorStream
}

func executorInfo(t *testing.T, id, res string) *mesos.ExecutorInfo {
	e := &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: &id}, FrameworkId: &mesos.FrameworkID{Value: proto.String(testFramework)},
		Type: mesos.ExecutorInfo_CUSTOM.Enum(), Command: &mesos.CommandInfo{Value: proto.String("./executor")},
	}
	if res != "" {
		e.Resources = testResources(t, res).AllocatedTo("*").Proto()
	}
	return e
}

// of makes a task one of an executor.
func of(e *mesos.ExecutorInfo, tasks ...*mesos.TaskInfo) []*mesos.TaskInfo {
	for _, info := range tasks {
		info.Executor = e
		if e.GetType() == mesos.ExecutorInfo_CUSTOM {
			info.Command = nil
		}
	}
	return tasks
}

func groupCall(f *mesos.FrameworkInfo, e *mesos.ExecutorInfo, tasks ...*mesos.TaskInfo) *nodeapi.Call {
	return &nodeapi.Call{Call: &nodeapi.Call_Launch{Launch: &nodeapi.Launch{Framework: f, Tasks: of(e, tasks...), GroupExecutor: e}}}
}

func (r *remote) call(kind protocol.Call_Type) *protocol.Call {
	return &protocol.Call{
		Type: kind.Enum(), ExecutorId: &mesos.ExecutorID{Value: &r.id}, FrameworkId: &mesos.FrameworkID{Value: proto.String(testFramework)},
	}
}

// waitExecutor waits until the container of an executor runs.
func (w *world) waitExecutor(id string) {
	w.t.Helper()
	w.wait("executor "+id+" runs", func() bool {
		w.m.mu.Lock()
		defer w.m.mu.Unlock()
		for _, c := range w.m.containers {
			if envOf(c.spec, "MESOS_EXECUTOR_ID") == id && c.exit == nil {
				return true
			}
		}
		return false
	})
}

// subscribe has an executor subscribe, with what it says of its tasks.
func (w *world) subscribe(id string, s *protocol.Call_Subscribe) *remote {
	w.t.Helper()
	r := &remote{w: w, id: id}
	call := r.call(protocol.Call_SUBSCRIBE)
	if call.Subscribe = s; s == nil {
		call.Subscribe = &protocol.Call_Subscribe{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := w.agent.SubscribeExecutor(ctx, call)
	if err != nil {
		w.t.Fatalf("subscribe %s: %v", id, err)
	}
	r.stream = stream
	return r
}

// want returns the next event, which must be of a kind.
func (r *remote) want(kind protocol.Event_Type) *protocol.Event {
	r.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e, err := r.stream.Next(ctx)
	if err != nil || e.GetType() != kind {
		r.w.t.Fatalf("executor %s got %v, %v, want %s", r.id, e, err, kind)
	}
	return e
}

func (r *remote) wantEnd() {
	r.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if e, err := r.stream.Next(ctx); !errors.Is(err, io.EOF) {
		r.w.t.Fatalf("executor %s got %v, %v, want the end", r.id, e, err)
	}
}

func newStatus(task string, state mesos.TaskState) *mesos.TaskStatus {
	id := uuid.New()
	return &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: &task}, State: state.Enum(), Uuid: id[:], Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(),
	}
}

func (r *remote) send(st *mesos.TaskStatus) error {
	call := r.call(protocol.Call_UPDATE)
	call.Update = &protocol.Call_Update{Status: st}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.w.agent.ExecutorCall(ctx, call)
}

// update tells a state, and waits for the agent to answer for it.
func (r *remote) update(task string, state mesos.TaskState) *mesos.TaskStatus {
	r.w.t.Helper()
	st := newStatus(task, state)
	if err := r.send(st); err != nil {
		r.w.t.Fatalf("update of %s: %v", task, err)
	}
	if got := r.want(protocol.Event_ACKNOWLEDGED).GetAcknowledged(); string(got.GetUuid()) != string(st.GetUuid()) || got.GetTaskId().GetValue() != task {
		r.w.t.Fatalf("acknowledged %v, want %v", got, st)
	}
	return st
}

// exits returns what the leader was told of executors' ends.
func (l *leaderSide) exits() (ids []string, waits []int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.reports {
		for _, e := range r.GetExits() {
			ids, waits = append(ids, e.GetExecutorId().GetValue()), append(waits, e.GetStatus())
		}
	}
	return ids, waits
}

// shows tells whether the record has an executor.
func (w *world) shows(id string) bool {
	_, ok := w.mesh.Snapshot(testAgent).Get(catalog.ExecutorKey(testFramework, id))
	return ok
}

func TestCustomExecutor(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	e := executorInfo(t, "e1", "cpus:0.5;mem:64")
	w.mustCall(launchCall(frameworkInfo(), of(e, taskInfo(t, "t1", "cpus:1;mem:32"), taskInfo(t, "t2", "cpus:1;mem:32"))...))
	w.waitExecutor("e1")
	if got, want := w.free().String(), testResources(t, "cpus:1.5;mem:3968;disk:10240;ports:[31000-32000]").String(); got != want {
		t.Errorf("free: %s, want %s", got, want)
	}
	if !w.shows("e1") || w.published("t1").GetExecutorId() != "e1" || w.published("t1").GetState() != int32(mesos.TaskState_TASK_STAGING) {
		t.Errorf("the record shows the executor %v, and %v", w.shows("e1"), w.published("t1"))
	}
	r := w.subscribe("e1", nil)
	s := r.want(protocol.Event_SUBSCRIBED).GetSubscribed()
	if !proto.Equal(s.GetExecutorInfo(), e) || s.GetFrameworkInfo().GetName() != "demo" || s.GetAgentInfo().GetId().GetValue() != testAgent || s.GetContainerId().GetValue() == "" {
		t.Errorf("subscribed: %v", s)
	}
	for _, id := range []string{"t1", "t2"} {
		if got := r.want(protocol.Event_LAUNCH).GetLaunch().GetTask(); got.GetTaskId().GetValue() != id {
			t.Errorf("launch of %v, want %s", got.GetTaskId(), id)
		}
	}
	first := r.update("t1", mesos.TaskState_TASK_RUNNING)
	w.wait("running told", func() bool { return w.last("t1") != nil })
	last := w.last("t1")
	if string(last.GetUuid()) != string(first.GetUuid()) || last.GetExecutorId().GetValue() != "e1" || last.GetAgentId().GetValue() != testAgent ||
		last.GetContainerStatus().GetContainerId().GetValue() != s.GetContainerId().GetValue() || last.GetContainerStatus().GetExecutorPid() == 0 ||
		last.GetContainerStatus().GetNetworkInfos()[0].GetIpAddresses()[0].GetIpAddress() != "127.0.0.1" {
		t.Errorf("told %v", last)
	}
	// Who wants a session in the task finds its container in the record.
	if got := w.published("t1").GetContainerId(); got != s.GetContainerId().GetValue() {
		t.Errorf("the record shows the container %q, want the executor's %q", got, s.GetContainerId().GetValue())
	}
	// The same update again is answered, and told once.
	if err := r.send(first); err != nil {
		t.Fatal(err)
	}
	r.want(protocol.Event_ACKNOWLEDGED)
	// Messages, both ways.
	message := r.call(protocol.Call_MESSAGE)
	message.Message = &protocol.Call_Message{Data: []byte("up")}
	if err := w.agent.ExecutorCall(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	w.wait("message told", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.reports, func(r *nodeapi.Report) bool {
			return slices.ContainsFunc(r.GetMessages(), func(m *nodeapi.ExecutorMessage) bool {
				return string(m.GetData()) == "up" && m.GetExecutorId().GetValue() == "e1" && m.GetFrameworkId().GetValue() == testFramework
			})
		})
	})
	w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Message{Message: &nodeapi.ExecutorMessage{
		FrameworkId: e.GetFrameworkId(), ExecutorId: e.GetExecutorId(), Data: []byte("down"),
	}}})
	if got := r.want(protocol.Event_MESSAGE).GetMessage(); string(got.GetData()) != "down" {
		t.Errorf("got %v", got)
	}
	// A kill is the executor's to do, as often as it is asked for.
	w.mustCall(killCall("t1"))
	if got := r.want(protocol.Event_KILL).GetKill(); got.GetTaskId().GetValue() != "t1" || got.GetKillPolicy() != nil {
		t.Errorf("got %v", got)
	}
	r.update("t1", mesos.TaskState_TASK_KILLED)
	w.waitGone("t1")
	if got, want := w.told("t1"), []string{"TASK_RUNNING", "TASK_KILLED"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if got, want := w.free().String(), testResources(t, "cpus:2.5;mem:4000;disk:10240;ports:[31000-32000]").String(); got != want {
		t.Errorf("free: %s, want %s", got, want)
	}
	// The end of the process is that of its tasks.
	m.exit("e1", int(syscall.SIGSEGV))
	w.waitGone("t2")
	if last := w.last("t2"); last.GetState() != mesos.TaskState_TASK_FAILED || last.GetReason() != mesos.TaskStatus_REASON_EXECUTOR_TERMINATED ||
		last.GetSource() != mesos.TaskStatus_SOURCE_AGENT {
		t.Errorf("told %v", last)
	}
	r.wantEnd()
	w.wait("the end of the executor told", func() bool { ids, _ := w.exits(); return len(ids) > 0 })
	if ids, waits := w.exits(); len(ids) != 1 || ids[0] != "e1" || waits[0] != int32(syscall.SIGSEGV) {
		t.Errorf("told of the end of %v with %v", ids, waits)
	}
	w.wait("nothing left", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.containers) == 0 && !w.shows("e1") && w.free().Equal(testResources(t, "cpus:4;mem:4096;disk:10240;ports:[31000-32000]"))
	})
}

func TestExecutorCallsOfNobody(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	r := &remote{w: w, id: "e1"}
	if _, err := w.agent.SubscribeExecutor(t.Context(), r.call(protocol.Call_SUBSCRIBE)); !errors.Is(err, ErrUnknownFramework) {
		t.Errorf("without a framework: %v", err)
	}
	w.mustCall(launchCall(frameworkInfo(), of(executorInfo(t, "e1", ""), taskInfo(t, "t1", "cpus:1;mem:32"))...))
	w.waitExecutor("e1")
	if err := r.send(newStatus("t1", mesos.TaskState_TASK_RUNNING)); !errors.Is(err, ErrNotSubscribed) {
		t.Errorf("before its subscription: %v", err)
	}
	other := &remote{w: w, id: "e2"}
	if _, err := w.agent.SubscribeExecutor(t.Context(), other.call(protocol.Call_SUBSCRIBE)); !errors.Is(err, ErrUnknownExecutor) {
		t.Errorf("another executor: %v", err)
	}
	w.mustCall(killCall("t1"))
	w.waitGone("t1")
	if last := w.last("t1"); last.GetState() != mesos.TaskState_TASK_KILLED || last.GetReason() != mesos.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH {
		t.Errorf("told %v", last)
	}
	w.wait("the executor that nobody needs is gone", func() bool { return m.running() == 0 && !w.shows("e1") })
}

func TestExecutorThatDoesNotRegister(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil, func(c *Config) { c.ExecutorRegistrationTimeout = 50 * time.Millisecond })
	defer w.end()
	w.mustCall(launchCall(frameworkInfo(), of(executorInfo(t, "e1", ""), taskInfo(t, "t1", "cpus:1;mem:32"))...))
	w.waitGone("t1")
	if last := w.last("t1"); last.GetState() != mesos.TaskState_TASK_FAILED || last.GetReason() != mesos.TaskStatus_REASON_EXECUTOR_REGISTRATION_TIMEOUT ||
		last.GetMessage() != "Executor did not register within 50ms" {
		t.Errorf("told %v", last)
	}
	w.wait("it is gone", func() bool { return m.running() == 0 && !w.shows("e1") })
}

func TestExecutorIsShutDown(t *testing.T) {
	for _, obeys := range []bool{true, false} {
		// One that obeys has all the time it needs, on a machine that is slow too.
		grace := 50 * time.Millisecond
		if obeys {
			grace = time.Minute
		}
		m := newMachine(t)
		w := m.start(nil, func(c *Config) { c.ShutdownGrace = grace })
		e := executorInfo(t, "e1", "cpus:0.1;mem:32")
		w.mustCall(launchCall(frameworkInfo(), of(e, taskInfo(t, "t1", "cpus:1;mem:32"))...))
		w.waitExecutor("e1")
		r := w.subscribe("e1", nil)
		r.want(protocol.Event_SUBSCRIBED)
		r.want(protocol.Event_LAUNCH)
		r.update("t1", mesos.TaskState_TASK_RUNNING)
		w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_ShutdownExecutor{ShutdownExecutor: &nodeapi.ShutdownExecutor{
			FrameworkId: e.GetFrameworkId(), ExecutorId: e.GetExecutorId(),
		}}})
		r.want(protocol.Event_SHUTDOWN)
		want := []string{"TASK_RUNNING", "TASK_FAILED"}
		if obeys {
			r.update("t1", mesos.TaskState_TASK_KILLED)
			m.exit("e1", 0)
			want[1] = "TASK_KILLED"
		}
		w.waitGone("t1")
		if got := w.told("t1"); !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		w.wait("it is gone", func() bool { return m.running() == 0 && !w.shows("e1") })
		w.end()
	}
}

// A task is given once, or it is told that it is not.
func TestExecutorComesBack(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	e := executorInfo(t, "e1", "")
	var tasks []*mesos.TaskInfo
	for _, id := range []string{"known", "told", "lost", "running"} {
		tasks = append(tasks, taskInfo(t, id, "cpus:0.1;mem:32"))
	}
	w.mustCall(launchCall(frameworkInfo(), of(e, tasks...)...))
	w.waitExecutor("e1")
	r := w.subscribe("e1", nil)
	r.want(protocol.Event_SUBSCRIBED)
	for range tasks {
		r.want(protocol.Event_LAUNCH)
	}
	r.update("running", mesos.TaskState_TASK_RUNNING)
	r.stream.Close()
	// What comes while it is away waits for it.
	w.mustCall(launchCall(frameworkInfo(), of(e, taskInfo(t, "late", "cpus:0.1;mem:32"))...))
	w.mustCall(killCall("running"))
	again := w.subscribe("e1", &protocol.Call_Subscribe{
		UnacknowledgedTasks:   []*mesos.TaskInfo{tasks[0]},
		UnacknowledgedUpdates: []*protocol.Call_Update{{Status: newStatus("told", mesos.TaskState_TASK_RUNNING)}},
	})
	again.want(protocol.Event_SUBSCRIBED)
	if got := again.want(protocol.Event_KILL).GetKill().GetTaskId().GetValue(); got != "running" {
		t.Errorf("kill of %s", got)
	}
	got := map[protocol.Event_Type]string{}
	for range 2 { // in no order: one waits for the disk
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		ev, err := again.stream.Next(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		got[ev.GetType()] = ev.GetLaunch().GetTask().GetTaskId().GetValue() + ev.GetAcknowledged().GetTaskId().GetValue()
	}
	if got[protocol.Event_LAUNCH] != "late" || got[protocol.Event_ACKNOWLEDGED] != "told" {
		t.Errorf("got %v", got)
	}
	w.waitGone("lost")
	if last := w.last("lost"); last.GetState() != mesos.TaskState_TASK_LOST || last.GetReason() != mesos.TaskStatus_REASON_AGENT_RESTARTED ||
		last.GetMessage() != "Task launched during agent restart" {
		t.Errorf("told %v", last)
	}
	r.wantEnd()
}

func TestExecutorOutlivesTheAgent(t *testing.T) {
	for _, checkpoint := range []bool{true, false} {
		m := newMachine(t)
		w := m.start(nil)
		f := frameworkInfo(mesos.FrameworkInfo_Capability_PARTITION_AWARE)
		f.Checkpoint = &checkpoint
		e := executorInfo(t, "e1", "cpus:0.5;mem:64")
		launch := launchCall(f, of(e, taskInfo(t, "t1", "cpus:1;mem:32"), taskInfo(t, "t2", "cpus:1;mem:32"))...)
		w.mustCall(launch)
		w.waitExecutor("e1")
		r := w.subscribe("e1", nil)
		r.want(protocol.Event_SUBSCRIBED)
		r.want(protocol.Event_LAUNCH)
		r.want(protocol.Event_LAUNCH)
		r.update("t1", mesos.TaskState_TASK_RUNNING)
		w.kill()
		w = m.start(w.leaderSide)
		w.mustCall(launch) // repeated
		if !w.shows("e1") {
			t.Error("the executor is not shown")
		}
		if got, want := w.free().String(), testResources(t, "cpus:1.5;mem:3968;disk:10240;ports:[31000-32000]").String(); got != want {
			t.Errorf("free: %s, want %s", got, want)
		}
		again := w.subscribe("e1", &protocol.Call_Subscribe{UnacknowledgedTasks: launch.GetLaunch().GetTasks()[1:]})
		again.want(protocol.Event_SUBSCRIBED)
		again.update("t2", mesos.TaskState_TASK_FINISHED)
		again.update("t1", mesos.TaskState_TASK_FINISHED)
		w.waitGone("t1")
		w.waitGone("t2")
		if got, want := w.told("t1"), []string{"TASK_RUNNING", "TASK_FINISHED"}; !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		if m.started("e1") != 1 {
			t.Errorf("started %d times", m.started("e1"))
		}
		w.end()
	}
}

func TestExecutorThatDoesNotComeBack(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	e := executorInfo(t, "e1", "")
	w.mustCall(launchCall(frameworkInfo(mesos.FrameworkInfo_Capability_PARTITION_AWARE), of(e, taskInfo(t, "t1", "cpus:1;mem:32"))...))
	w.waitExecutor("e1")
	r := w.subscribe("e1", nil)
	r.want(protocol.Event_SUBSCRIBED)
	r.want(protocol.Event_LAUNCH)
	r.update("t1", mesos.TaskState_TASK_RUNNING)
	w.kill()
	w = m.start(w.leaderSide, func(c *Config) { c.ExecutorReregistrationTimeout = 50 * time.Millisecond })
	defer w.end()
	w.waitGone("t1")
	if last := w.last("t1"); last.GetState() != mesos.TaskState_TASK_GONE || last.GetReason() != mesos.TaskStatus_REASON_EXECUTOR_REREGISTRATION_TIMEOUT {
		t.Errorf("told %v", last)
	}
	w.wait("it is gone", func() bool { return m.running() == 0 && !w.shows("e1") })
}

// An executor that does not read is cut off, and gets what it has not read when it is back.
func TestExecutorThatDoesNotRead(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	e := executorInfo(t, "e1", "")
	w.mustCall(launchCall(frameworkInfo(), of(e, taskInfo(t, "t1", "cpus:1;mem:32"))...))
	w.waitExecutor("e1")
	r := w.subscribe("e1", nil)
	for range streamMax {
		w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Message{Message: &nodeapi.ExecutorMessage{
			FrameworkId: e.GetFrameworkId(), ExecutorId: e.GetExecutorId(), Data: []byte("x"),
		}}})
	}
	if _, err := r.stream.Next(t.Context()); !errors.Is(err, ErrSlowExecutor) {
		t.Errorf("got %v", err)
	}
	r.stream.Close()
	again := w.subscribe("e1", nil)
	again.want(protocol.Event_SUBSCRIBED)
	again.want(protocol.Event_LAUNCH)
	again.update("t1", mesos.TaskState_TASK_FINISHED)
	w.waitGone("t1")
	if got, want := w.told("t1"), []string{"TASK_FINISHED"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

func TestExecutorRefusals(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	w.mustCall(launchCall(frameworkInfo(), of(executorInfo(t, "e1", "cpus:1;mem:32"), taskInfo(t, "t1", "cpus:1;mem:32"))...))
	w.waitExecutor("e1")
	free := w.free()
	other := executorInfo(t, "e1", "cpus:1;mem:64")
	w.mustCall(launchCall(frameworkInfo(), of(other, taskInfo(t, "other", "cpus:1;mem:32"))...))
	w.waitGone("other")
	if last := w.last("other"); last.GetState() != mesos.TaskState_TASK_ERROR || !strings.Contains(last.GetMessage(), "not compatible") {
		t.Errorf("told %v", last)
	}
	w.mustCall(launchCall(frameworkInfo(), of(executorInfo(t, "e2", "cpus:4;mem:32"), taskInfo(t, "large", "cpus:0.1;mem:32"))...))
	w.waitGone("large")
	if last := w.last("large"); last.GetState() != mesos.TaskState_TASK_LOST || last.GetReason() != mesos.TaskStatus_REASON_INVALID_OFFERS {
		t.Errorf("told %v", last)
	}
	w.mustCall(launchCall(frameworkInfo(), of(executorInfo(t, "e3", "cpus:0.1;mem:32"), taskInfo(t, "larger", "cpus:4;mem:32"))...))
	w.waitGone("larger")
	if w.shows("e2") || w.shows("e3") || !w.free().Equal(free) {
		t.Errorf("free: %s, want %s", w.free(), free)
	}
}

// TestDamagedExecutors holds D5 for executors: each of their files in turn torn, empty, zeroed, gone; no task is harmed.
func TestDamagedExecutors(t *testing.T) {
	damage := map[string]func([]byte) []byte{
		"torn": func(b []byte) []byte { return b[:len(b)/2] }, "empty": func([]byte) []byte { return nil },
		"zeroed": func(b []byte) []byte { return make([]byte, len(b)) }, "gone": nil,
	}
	for how, spoil := range damage {
		for _, pattern := range []string{"executors/*.executor", "executors/*.run", "tasks/*.task", "tasks/*.state"} {
			if how == "gone" && pattern == "tasks/*.state" {
				continue // nothing tells that it was there: the task is one that was never given
			}
			t.Run(how+" "+strings.ReplaceAll(pattern, "/", " "), func(t *testing.T) {
				m := newMachine(t)
				m.groups = map[string]containerizer.Group{}
				w := m.start(nil)
				e := executorInfo(t, "e1", "cpus:0.5;mem:64")
				w.mustCall(launchCall(frameworkInfo(), of(e, taskInfo(t, "custom", "cpus:1;mem:32"))...))
				w.mustCall(groupCall(frameworkInfo(), defaultExecutor(t, "e2"), taskInfo(t, "a", "cpus:0.1;mem:32"), taskInfo(t, "b", "cpus:0.1;mem:32")))
				w.waitExecutor("e1")
				r := w.subscribe("e1", nil)
				r.want(protocol.Event_SUBSCRIBED)
				r.want(protocol.Event_LAUNCH)
				r.update("custom", mesos.TaskState_TASK_RUNNING)
				for _, id := range []string{"custom", "a", "b"} {
					w.waitState(id, mesos.TaskState_TASK_RUNNING)
					w.wait("running told", func() bool { return slices.Contains(w.told(id), "TASK_RUNNING") })
				}
				running := m.running()
				free := w.free()
				w.kill()
				files, err := filepath.Glob(filepath.Join(m.dir, "meta", pattern))
				if err != nil || len(files) == 0 {
					t.Fatalf("no files: %v", err)
				}
				for _, file := range files {
					data, err := os.ReadFile(file)
					if err == nil && spoil == nil {
						err = os.Remove(file)
					} else if err == nil {
						err = os.WriteFile(file, spoil(data), 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				w = m.start(w.leaderSide)
				again := w.subscribe("e1", nil)
				again.want(protocol.Event_SUBSCRIBED)
				if m.running() != running || !w.free().Equal(free) || !w.shows("e1") || !w.shows("e2") {
					t.Errorf("%d of %d containers run, free is %s, was %s", m.running(), running, w.free(), free)
				}
				for _, id := range []string{"custom", "a", "b"} {
					if p := w.published(id); p == nil || terminal(mesos.TaskState(p.GetState())) {
						t.Errorf("%s is %v", id, p)
					}
				}
				again.update("custom", mesos.TaskState_TASK_FINISHED)
				w.waitGone("custom")
				m.exit("e1", 0)
				m.endTask(w, "a", 1<<8)
				w.waitGone("a")
				w.waitGone("b")
				if last := w.last("b"); last.GetState() != mesos.TaskState_TASK_KILLED {
					t.Errorf("told %v", last)
				}
				w.wait("nothing left", func() bool {
					m.mu.Lock()
					defer m.mu.Unlock()
					return len(m.containers) == 0 && len(m.groups) == 0 && !w.shows("e1") && !w.shows("e2")
				})
				w.end()
			})
		}
	}
}
