package agent

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
	protocol "starling/master/mesos/executor"
	"starling/master/nodeapi"
)

func (l *life) OpenGroup(_ context.Context, g containerizer.Group) ([]*mesos.NetworkInfo, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.groups == nil {
		return nil, containerizer.ErrUnsupported
	}
	l.m.groups[g.ID] = g
	return nil, nil
}

func (l *life) CloseGroup(_ context.Context, id string) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.groups, id)
	for name, c := range l.m.containers {
		if c.spec.Parent == id {
			l.m.end(name, 9)
		}
	}
	return nil
}

func (l *life) ListGroups(context.Context) ([]string, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return slices.Sorted(maps.Keys(l.m.groups)), nil
}

func (l *life) Resize(_ context.Context, id string, limits containerizer.Limits) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.sizes == nil {
		return containerizer.ErrUnsupported
	}
	l.m.sizes[id] = limits
	return l.m.resizeError
}

func defaultExecutor(t *testing.T, id string) *mesos.ExecutorInfo {
	e := executorInfo(t, id, "cpus:0.1;mem:32;disk:32")
	e.Type, e.Command = mesos.ExecutorInfo_DEFAULT.Enum(), nil
	return e
}

// end ends the container of a task of a default executor.
func (m *machine) endTask(w *world, task string, status int) {
	m.t.Helper()
	container := w.published(task).GetContainerId()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.containers[container] == nil {
		m.t.Errorf("task %s has no container", task)
	}
	m.end(container, status)
}

// What an executor asks to share is not left out where there are no groups.
func TestATaskGroupThatCannotHaveWhatItAsksFor(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	e := defaultExecutor(t, "e1")
	e.Container = &mesos.ContainerInfo{
		Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: &mesos.LinuxInfo{IpcMode: mesos.LinuxInfo_PRIVATE.Enum()},
	}
	w.mustCall(groupCall(frameworkInfo(), e, taskInfo(t, "t", "cpus:0.1;mem:32")))
	w.waitGone("t")
	if st := w.last("t"); st.GetState() != mesos.TaskState_TASK_FAILED {
		t.Errorf("got %v", st)
	}
	if got := m.running(); got != 0 {
		t.Errorf("%d containers run", got)
	}
}

func TestTaskGroup(t *testing.T) {
	for _, grouped := range []bool{true, false} {
		m := newMachine(t)
		if grouped {
			m.groups = map[string]containerizer.Group{}
		}
		w := m.start(nil)
		e := defaultExecutor(t, "e1")
		f := frameworkInfo()
		shared := taskInfo(t, "a", "cpus:1;mem:32")
		shared.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: []*mesos.Volume{{
			Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("data/shared"),
			Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SANDBOX_PATH.Enum(), SandboxPath: &mesos.Volume_Source_SandboxPath{
				Type: mesos.Volume_Source_SandboxPath_PARENT.Enum(), Path: proto.String("common"),
			}},
		}}}
		w.mustCall(groupCall(f, e, shared, taskInfo(t, "b", "cpus:1;mem:32")))
		w.waitState("a", mesos.TaskState_TASK_RUNNING)
		w.waitState("b", mesos.TaskState_TASK_RUNNING)
		if got, want := w.free().String(), testResources(t, "cpus:1.9;mem:4000;disk:10208;ports:[31000-32000]").String(); got != want {
			t.Errorf("free: %s, want %s", got, want)
		}
		container := w.published("a").GetContainerId()
		parent, child, _ := strings.Cut(container, ".")
		m.mu.Lock()
		spec := m.containers[container].spec
		if _, open := m.groups[parent]; open != grouped {
			t.Errorf("group open: %v, want %v", open, grouped)
		}
		m.mu.Unlock()
		if want := map[bool]string{true: parent}[grouped]; spec.Parent != want {
			t.Errorf("parent %q, want %q", spec.Parent, want)
		}
		run := filepath.Join(m.dir, "slaves", testAgent, "frameworks", testFramework, "executors", "e1", "runs", parent)
		if spec.Dir != filepath.Join(run, "containers", child) {
			t.Errorf("sandbox %s", spec.Dir)
		}
		if spec.Limits.CPUs != 1 || spec.Limits.MemBytes != 32<<20 || len(spec.Container.GetVolumes()) != 0 {
			t.Errorf("limits %+v, container %v", spec.Limits, spec.Container)
		}
		for _, v := range []string{"MESOS_EXECUTOR_ID=e1", "MESOS_CONTAINER_IP=127.0.0.1", "MESOS_SANDBOX=" + spec.Dir} {
			if !slices.Contains(spec.Env, v) {
				t.Errorf("the environment lacks %s: %v", v, spec.Env)
			}
		}
		if err := os.WriteFile(filepath.Join(run, "tasks", "a", "data", "shared", "x"), []byte("x"), 0o644); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(run, "common", "x")); err != nil {
			t.Error(err)
		}
		w.wait("told", func() bool { return len(w.told("a")) == 2 })
		last := w.last("a")
		if id := last.GetContainerStatus().GetContainerId(); id.GetValue() != child || id.GetParent().GetValue() != parent || last.GetExecutorId().GetValue() != "e1" {
			t.Errorf("told %v", last)
		}
		// One that is done leaves the others alone; the executor takes another group.
		m.endTask(w, "a", 0)
		w.waitGone("a")
		w.mustCall(groupCall(f, e, taskInfo(t, "c", "cpus:0.1;mem:32"), taskInfo(t, "d", "cpus:0.1;mem:32")))
		w.waitState("c", mesos.TaskState_TASK_RUNNING)
		w.waitState("d", mesos.TaskState_TASK_RUNNING)
		if p, _, _ := strings.Cut(w.published("c").GetContainerId(), "."); p != parent {
			t.Errorf("another run %s of the executor, the first is %s", p, parent)
		}
		// One that fails takes its group along, and no other.
		m.endTask(w, "c", 1<<8)
		w.waitGone("d")
		for id, want := range map[string][]string{
			"a": {"TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"}, "c": {"TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"},
			"d": {"TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"}, "b": {"TASK_STARTING", "TASK_RUNNING"},
		} {
			w.wait(id+" told", func() bool { return slices.Equal(w.told(id), want) })
		}
		// After an agent's death all is as it was.
		w.kill()
		w = m.start(w.leaderSide)
		w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}})
		w.waitState("b", mesos.TaskState_TASK_RUNNING)
		if got, want := w.free().String(), testResources(t, "cpus:2.9;mem:4032;disk:10208;ports:[31000-32000]").String(); got != want {
			t.Errorf("free: %s, want %s", got, want)
		}
		// The executor ends with its last task.
		w.mustCall(killCall("b"))
		w.waitGone("b")
		w.wait("the end of the executor told", func() bool { ids, _ := w.exits(); return len(ids) > 0 })
		if ids, waits := w.exits(); len(ids) != 1 || ids[0] != "e1" || waits[0] != 0 {
			t.Errorf("told of the end of %v with %v", ids, waits)
		}
		w.wait("nothing left", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return len(m.containers) == 0 && len(m.groups) == 0 && !w.shows("e1") && w.free().Equal(testResources(t, "cpus:4;mem:4096;disk:10240;ports:[31000-32000]"))
		})
		w.end()
		files, err := filepath.Glob(filepath.Join(m.dir, "meta", "executors", "*"))
		if err != nil || len(files) > 0 {
			t.Errorf("left on disk: %v, %v", files, err)
		}
	}
}

// A group is started as a whole or not at all.
func TestTaskGroupThatDoesNotStart(t *testing.T) {
	m := newMachine(t)
	m.onLaunch = func(spec containerizer.Spec) error {
		if strings.HasSuffix(spec.Dir, "bad") || strings.Contains(strings.Join(spec.Args, " "), "bad") {
			return errors.New("no such program")
		}
		return nil
	}
	w := m.start(nil)
	defer w.end()
	bad := taskInfo(t, "bad", "cpus:1;mem:32")
	bad.Command.Value = proto.String("bad")
	w.mustCall(groupCall(frameworkInfo(), defaultExecutor(t, "e1"), taskInfo(t, "good", "cpus:1;mem:32"), bad))
	w.waitGone("good")
	w.waitGone("bad")
	if last := w.last("bad"); last.GetState() != mesos.TaskState_TASK_FAILED || last.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED {
		t.Errorf("told %v", last)
	}
	if last := w.last("good"); last.GetState() != mesos.TaskState_TASK_KILLED {
		t.Errorf("told %v", last)
	}
	// One that does not fit keeps the others from being started.
	w.mustCall(groupCall(frameworkInfo(), defaultExecutor(t, "e2"), taskInfo(t, "small", "cpus:1;mem:32"), taskInfo(t, "large", "cpus:4;mem:32")))
	w.waitGone("small")
	w.waitGone("large")
	for _, id := range []string{"small", "large"} {
		if last := w.last(id); last.GetState() != mesos.TaskState_TASK_LOST || last.GetReason() != mesos.TaskStatus_REASON_INVALID_OFFERS {
			t.Errorf("%s was told %v", id, last)
		}
	}
	w.wait("all is free", func() bool {
		return w.free().Equal(testResources(t, "cpus:4;mem:4096;disk:10240;ports:[31000-32000]")) && !w.shows("e1") && !w.shows("e2")
	})
}

// The limits of an executor follow its tasks; where they can't, it ends.
func TestExecutorIsResized(t *testing.T) {
	m := newMachine(t)
	m.sizes = map[string]containerizer.Limits{}
	w := m.start(nil)
	defer w.end()
	e := executorInfo(t, "e1", "cpus:0.5;mem:64")
	w.mustCall(launchCall(frameworkInfo(), of(e, taskInfo(t, "t1", "cpus:1;mem:32"))...))
	w.waitExecutor("e1")
	r := w.subscribe("e1", nil)
	container := r.want(protocol.Event_SUBSCRIBED).GetSubscribed().GetContainerId().GetValue()
	r.want(protocol.Event_LAUNCH)
	size := func(cpus float64, mem int64) func() bool {
		return func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.sizes[container] == containerizer.Limits{CPUs: cpus, MemBytes: mem << 20}
		}
	}
	w.wait("limits of one task", size(1.5, 96))
	w.mustCall(launchCall(frameworkInfo(), of(e, taskInfo(t, "t2", "cpus:1;mem:32"))...))
	r.want(protocol.Event_LAUNCH)
	w.wait("limits of two tasks", size(2.5, 128))
	r.update("t1", mesos.TaskState_TASK_FINISHED)
	w.wait("limits of one task again", size(1.5, 96))
	m.mu.Lock()
	m.resizeError = errors.New("no such cgroup")
	m.mu.Unlock()
	w.mustCall(launchCall(frameworkInfo(), of(e, taskInfo(t, "t3", "cpus:1;mem:32"))...))
	w.waitGone("t3")
	w.waitGone("t2")
	for _, id := range []string{"t2", "t3"} {
		if last := w.last(id); last.GetState() != mesos.TaskState_TASK_LOST || last.GetReason() != mesos.TaskStatus_REASON_CONTAINER_UPDATE_FAILED {
			t.Errorf("%s was told %v", id, last)
		}
	}
}

// A group for an executor of others goes as one, and is killed as one until it has arrived.
func TestGroupOfACustomExecutor(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	defer w.end()
	e := executorInfo(t, "e1", "cpus:0.1;mem:32;disk:32")
	w.mustCall(groupCall(frameworkInfo(), e, taskInfo(t, "a", "cpus:1;mem:32"), taskInfo(t, "b", "cpus:1;mem:32")))
	w.mustCall(groupCall(frameworkInfo(), e, taskInfo(t, "c", "cpus:0.1;mem:32"), taskInfo(t, "d", "cpus:0.1;mem:32")))
	w.waitExecutor("e1")
	w.mustCall(killCall("a"))
	w.waitGone("a")
	w.waitGone("b")
	r := w.subscribe("e1", nil)
	r.want(protocol.Event_SUBSCRIBED)
	var got []string
	for _, info := range r.want(protocol.Event_LAUNCH_GROUP).GetLaunchGroup().GetTaskGroup().GetTasks() {
		got = append(got, info.GetTaskId().GetValue())
	}
	if !slices.Equal(got, []string{"c", "d"}) {
		t.Errorf("given %v", got)
	}
	w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_ShutdownFramework{ShutdownFramework: &nodeapi.ShutdownFramework{FrameworkId: e.GetFrameworkId()}}})
	for range 2 {
		r.want(protocol.Event_KILL)
	}
	r.want(protocol.Event_SHUTDOWN)
	m.exit("e1", 0)
	w.wait("nothing left", func() bool { return m.running() == 0 && !w.shows("e1") && w.published("c") == nil })
	if told := w.told("c"); len(told) > 0 {
		t.Errorf("a framework that is gone was told %v", told)
	}
}

func TestDrainOfExecutors(t *testing.T) {
	m := newMachine(t)
	m.stubborn = true
	w := m.start(nil)
	defer w.end()
	f := frameworkInfo(mesos.FrameworkInfo_Capability_PARTITION_AWARE)
	w.mustCall(launchCall(f, of(executorInfo(t, "e1", ""), taskInfo(t, "custom", "cpus:1;mem:32"))...))
	w.mustCall(groupCall(f, defaultExecutor(t, "e2"), taskInfo(t, "grouped", "cpus:1;mem:32")))
	w.waitState("grouped", mesos.TaskState_TASK_RUNNING)
	w.waitExecutor("e1")
	r := w.subscribe("e1", nil)
	r.want(protocol.Event_SUBSCRIBED)
	r.want(protocol.Event_LAUNCH)
	r.update("custom", mesos.TaskState_TASK_RUNNING)
	w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Drain{Drain: &nodeapi.Drain{MaxGracePeriod: proto.Int64(int64(20 * time.Millisecond))}}})
	if got := r.want(protocol.Event_KILL).GetKill().GetKillPolicy().GetGracePeriod().GetNanoseconds(); got != int64(20*time.Millisecond) {
		t.Errorf("grace %d", got)
	}
	r.update("custom", mesos.TaskState_TASK_KILLED)
	w.waitGone("custom")
	w.waitGone("grouped")
	for _, id := range []string{"custom", "grouped"} {
		if last := w.last(id); last.GetState() != mesos.TaskState_TASK_KILLED || last.GetReason() != mesos.TaskStatus_REASON_AGENT_DRAINING {
			t.Errorf("%s was told %v", id, last)
		}
	}
}
