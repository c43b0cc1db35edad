package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/executor"
	"starling/master/mesos"
)

// sandbox waits until a task runs, and returns its folder.
func (w *world) sandbox(task string) string {
	w.t.Helper()
	w.waitState(task, mesos.TaskState_TASK_RUNNING)
	found, err := filepath.Glob(filepath.Join(w.m.dir, "slaves", testAgent, "frameworks", "*", "executors", task, "runs", "latest"))
	if err != nil || len(found) != 1 {
		w.t.Fatalf("sandbox of %s: %v, %v", task, found, err)
	}
	return found[0]
}

// fill makes a file of a size, all at once for who measures.
func fill(t *testing.T, path string, size int) {
	t.Helper()
	made := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(made, []byte(strings.Repeat("x", size)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(made, path); err != nil {
		t.Fatal(err)
	}
}

// meeting is a session whose end takes until that of all others has begun.
type meeting struct {
	containerizer.Session
	all *sync.WaitGroup
}

func (m meeting) Close() error {
	m.all.Done()
	m.all.Wait()
	return nil
}

func TestSessionsAreClosedSideBySide(t *testing.T) {
	a := &Agent{nested: map[string]*nested{}}
	all := &sync.WaitGroup{}
	for _, name := range []string{"a", "b", "c"} {
		all.Add(1)
		a.nested[name] = &nested{name: name, session: &Session{Session: meeting{all: all}, cancel: func() {}}}
	}
	closed := make(chan struct{})
	go func() { defer close(closed); a.closeSessions() }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("one session waits for another")
	}
}

func TestUpdatesThatWaitAreBounded(t *testing.T) {
	status := func(n int) *mesos.TaskStatus { return &mesos.TaskStatus{Data: make([]byte, n)} }
	for _, tc := range []struct {
		updates []*mesos.TaskStatus
		want    bool
	}{
		{nil, false},
		{slices.Repeat([]*mesos.TaskStatus{status(1)}, unacknowledgedMax-1), false},
		{slices.Repeat([]*mesos.TaskStatus{status(1)}, unacknowledgedMax), true},
		{slices.Repeat([]*mesos.TaskStatus{status(512 << 10)}, 7), false},
		{slices.Repeat([]*mesos.TaskStatus{status(512 << 10)}, 8), true},
	} {
		if got := full(tc.updates); got != tc.want {
			t.Errorf("%d updates: got %v", len(tc.updates), got)
		}
	}
}

func TestATaskThatHoldsMoreOnDiskThanItWasGivenIsEnded(t *testing.T) {
	m := newMachine(t)
	enforce := func(c *Config) { c.EnforceDiskQuota, c.DiskQuotaInterval = true, 50*time.Millisecond }
	w := m.start(nil, enforce)
	killing := frameworkInfo(mesos.FrameworkInfo_Capability_TASK_KILLING_STATE)
	w.mustCall(launchCall(killing, taskInfo(t, "large", "cpus:0.1;mem:32;disk:1"), taskInfo(t, "small", "cpus:0.1;mem:32;disk:1"), taskInfo(t, "none", "cpus:0.1;mem:32")))
	put := func(task string, size int) {
		t.Helper()
		fill(t, filepath.Join(w.sandbox(task), "data"), size)
	}
	put("none", 3<<20)
	put("small", 100<<10)
	put("large", 3<<20)
	w.waitGone("large")
	if got, want := w.told("large"), []string{"TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"}; !slices.Equal(got, want) {
		t.Errorf("told: got %v, want %v", got, want)
	}
	st := w.last("large")
	if st.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LIMITATION_DISK || st.GetSource() != mesos.TaskStatus_SOURCE_AGENT ||
		!strings.HasPrefix(st.GetMessage(), "Disk usage (3") || !strings.HasSuffix(st.GetMessage(), "exceeds quota (1MB)") {
		t.Errorf("got %v", st)
	}
	if rs := st.GetLimitation().GetResources(); len(rs) != 1 || rs[0].GetName() != "disk" || rs[0].GetScalar().GetValue() < 3 {
		t.Errorf("limitation: %v", rs)
	}
	// The next life of the agent goes on watching.
	w.kill()
	w = m.start(w.leaderSide, enforce)
	defer w.end()
	put("small", 2<<20)
	w.waitGone("small")
	if got := w.last("small").GetReason(); got != mesos.TaskStatus_REASON_CONTAINER_LIMITATION_DISK {
		t.Errorf("after a restart: %v", got)
	}
	if got := m.running(); got != 1 {
		t.Errorf("%d tasks run, want the one that was given no disk", got)
	}
}

// What a container writes beside its sandbox counts as well.
func TestTheDiskOfAnImageCounts(t *testing.T) {
	m := newMachine(t)
	upper := t.TempDir()
	m.disk = []string{upper}
	enforce := func(c *Config) { c.EnforceDiskQuota, c.DiskQuotaInterval = true, 50*time.Millisecond }
	w := m.start(nil, enforce)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t", "cpus:0.1;mem:32;disk:1"), taskInfo(t, "late", "cpus:0.1;mem:32;disk:4")))
	w.sandbox("late")
	fill(t, filepath.Join(upper, "data"), 2<<20)
	w.waitGone("t")
	w.kill()
	fill(t, filepath.Join(upper, "more"), 3<<20)
	w = m.start(w.leaderSide, enforce)
	defer w.end()
	w.waitGone("late")
	if st := w.last("late"); st.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LIMITATION_DISK || !strings.HasPrefix(st.GetMessage(), "Disk usage (5") {
		t.Errorf("got %v", st)
	}
}

func TestOutputIsRotated(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil, func(c *Config) { c.LogMaxBytes, c.LogFiles = 64<<10, 2 })
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t", "cpus:0.1;mem:32")))
	out := filepath.Join(w.sandbox("t"), "stdout")
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(out, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(text)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	rotated := func() bool { info, err := os.Stat(out + ".1"); return err == nil && info.Size() > 0 }
	add(strings.Repeat("x", 100<<10))
	w.wait("rotated", rotated)
	w.kill()
	if err := os.Remove(out + ".1"); err != nil {
		t.Fatal(err)
	}
	w = m.start(w.leaderSide, func(c *Config) { c.LogMaxBytes, c.LogFiles = 64<<10, 2 })
	defer w.end()
	add(strings.Repeat("y", 100<<10))
	w.wait("rotated after a restart", rotated)
}

func TestTheEndOfATaskThatExceeds(t *testing.T) {
	task := &mesos.TaskInfo{TaskId: &mesos.TaskID{Value: proto.String("t")}}
	c := executor.NewCommand(&mesos.FrameworkInfo{}, task)
	now := time.Now()
	c.Launched(now, now)
	c.Kill(now, nil)
	// It was to end anyway: that it is reported as, but it ends now.
	if step := c.Exceed(now, executor.Excess{Message: "too much"}); !step.Destroy {
		t.Errorf("got %+v", step)
	}
	if cause := c.Order().Cause; cause != executor.Asked {
		t.Errorf("cause %v", cause)
	}
}
