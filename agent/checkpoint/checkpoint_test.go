package checkpoint

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/master/mesos"
)

var update = flag.Bool("update", false, "write the golden files of this version")

func open(t *testing.T, dir string, change ...func(*Options)) (*Store, *Loaded) {
	t.Helper()
	opts := Options{AgentID: "agent-1", BootID: "boot-1"}
	for _, f := range change {
		f(&opts)
	}
	s, l, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, l
}

func commit(t *testing.T, s *Store, changes ...Change) {
	t.Helper()
	for i, err := range s.Commit(changes) {
		if err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
	}
}

func sampleTask(container, id string) *Task {
	return &Task{
		ContainerId: container,
		Framework:   &mesos.FrameworkInfo{User: proto.String("svc"), Name: proto.String("demo"), Id: &mesos.FrameworkID{Value: proto.String("f1")}},
		Task: &mesos.TaskInfo{
			Name: proto.String("web"), TaskId: &mesos.TaskID{Value: &id}, AgentId: &mesos.AgentID{Value: proto.String("agent-1")},
			Command: &mesos.CommandInfo{Value: proto.String("sleep 10")},
		},
		State: sampleState(container, id, 0),
	}
}

func sampleState(container, id string, pid int64) *State {
	return &State{
		ContainerId: container, Pid: pid, Acknowledged: 1,
		Summary: &catalog.Task{TaskId: id, FrameworkId: "f1", FrameworkName: "demo", Name: "web", State: 1, Role: "web"},
		Updates: []*mesos.TaskStatus{{
			TaskId: &mesos.TaskID{Value: &id}, State: mesos.TaskState_TASK_STARTING.Enum(), Uuid: []byte("0123456789abcdef"),
		}},
		Kill: &Kill{Grace: 3e9, At: 1_700_000_000e9, Cause: Cause_UNHEALTHY},
	}
}

func sampleResources() *Resources {
	disk := &mesos.Resource{
		Name: proto.String("disk"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(100)},
		Reservations: []*mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String("web")}},
		Disk: &mesos.Resource_DiskInfo{
			Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String("v1"), Principal: proto.String("p")},
			Volume:      &mesos.Volume{Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("data")},
		},
	}
	id := &mesos.UUID{Value: []byte("0123456789abcdef")}
	return &Resources{
		Sequence: 3, Made: []*mesos.Resource{disk}, Destroyed: []*mesos.Resource{disk},
		Pending: []*mesos.Operation{{
			FrameworkId: &mesos.FrameworkID{Value: proto.String("f1")}, AgentId: &mesos.AgentID{Value: proto.String("agent-1")},
			Info:         &mesos.Offer_Operation{Id: &mesos.OperationID{Value: proto.String("op-1")}, Type: mesos.Offer_Operation_CREATE.Enum()},
			LatestStatus: &mesos.OperationStatus{State: mesos.OperationState_OPERATION_FINISHED.Enum(), Uuid: id}, Uuid: id,
		}},
		Applied: []*Applied{{Uuid: id.GetValue(), State: int32(mesos.OperationState_OPERATION_FINISHED), Message: "done"}},
	}
}

// Either copy of what operations made is enough; the newer one counts.
func TestTheNewerCopyOfResourcesCounts(t *testing.T) {
	for _, old := range []string{fileResources, fileResCopy} {
		dir := t.TempDir()
		s, _ := open(t, dir)
		commit(t, s, PutResources(&Resources{Sequence: 1}))
		before, err := os.ReadFile(filepath.Join(dir, old))
		if err != nil {
			t.Fatal(err)
		}
		commit(t, s, PutResources(sampleResources()))
		s.Close()
		if err := os.WriteFile(filepath.Join(dir, old), before, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, l := open(t, dir); !proto.Equal(l.Resources, sampleResources()) {
			t.Errorf("with an older %q: got %v", old, l.Resources)
		}
	}
}

func TestWhatIsCommittedIsFoundAgain(t *testing.T) {
	dir := t.TempDir()
	s, l := open(t, dir)
	if len(l.Items) != 0 || l.Epoch != 0 || l.Rebooted {
		t.Errorf("a new folder holds %+v", l)
	}
	commit(t, s, PutTask(sampleTask("c1", "t1")), PutTask(sampleTask("c2", "t2")), PutEpoch(7))
	commit(t, s, PutState(sampleState("c1", "t1", 41)))
	commit(t, s, PutState(sampleState("c1", "t1", 42)), End("c2", "f1", "t2"))
	if _, _, err := Open(dir, Options{AgentID: "agent-1"}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second opening: got %v, want ErrLocked", err)
	}
	s.Close()

	s, l = open(t, dir)
	if l.Epoch != 7 || len(l.Items) != 1 || len(l.Problems) != 0 {
		t.Fatalf("got %+v", l)
	}
	if item := l.Items[0]; item.ContainerID != "c1" || !proto.Equal(item.Task, sampleTask("c1", "t1")) || !proto.Equal(item.State, sampleState("c1", "t1", 42)) {
		t.Errorf("got %v", item)
	}
	if !l.Ended.Has("f1", "t2") || l.Ended.Has("f1", "t1") {
		t.Error("the ids that are used up are not those that ended")
	}
	commit(t, s, PutState(sampleState("c1", "t1", 43)))
	s.Close()
	if _, l := open(t, dir, func(o *Options) { o.BootID = "boot-2" }); !l.Rebooted || l.Items[0].State.GetPid() != 43 {
		t.Errorf("after a reboot: %v %v", l.Rebooted, l.Items[0].State)
	}
	if id, ok := AgentID(dir); id != "agent-1" || !ok {
		t.Errorf("agent id: got %q", id)
	}
	if id, ok := AgentID(t.TempDir()); ok {
		t.Errorf("agent id of a new folder: got %q", id)
	}
}

func TestAFolderOfAnotherAgentIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Close()
	if _, _, err := Open(dir, Options{AgentID: "agent-2"}); !errors.Is(err, ErrOtherAgent) {
		t.Errorf("got %v, want ErrOtherAgent", err)
	}
}

func TestTasksNameTheirAgent(t *testing.T) {
	dir := t.TempDir()
	if ids, files, err := Agents(dir); len(ids) != 0 || files != 0 || err != nil {
		t.Errorf("a new folder: got %v %d %v", ids, files, err)
	}
	s, _ := open(t, dir)
	commit(t, s, PutTask(sampleTask("c1", "t1")), PutState(sampleState("c1", "t1", 42)), PutTask(sampleTask("c2", "t2")))
	if err := os.WriteFile(filepath.Join(dir, dirTasks, "c2"+suffixTask), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ids, files, err := Agents(dir); !slices.Equal(ids, []string{"agent-1"}) || files != 3 || err != nil {
		t.Errorf("got %v %d %v", ids, files, err)
	}
}

func TestAStateThatIsLongIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	for pid := range int64(40) {
		state := sampleState("c1", "t1", pid+1)
		state.Updates[0].Message = proto.String(strings.Repeat("x", 8000))
		commit(t, s, PutState(state))
	}
	info, err := os.Stat(filepath.Join(dir, "tasks", "c1.state"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > stateMax+9000 {
		t.Errorf("the file has %d bytes", info.Size())
	}
	s.Close()
	if _, l := open(t, dir); l.Items[0].State.GetPid() != 40 {
		t.Errorf("got pid %d", l.Items[0].State.GetPid())
	}
}

func TestDamageCostsWhatItHit(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		spoil      func([]byte) []byte
		want       string // of c1: what still reads, and the pid
		problems   int
	}{
		{"nothing", "", nil, "task state 42", 0},
		{"an empty intent", "tasks/c1.task", func([]byte) []byte { return nil }, "state 42", 1},
		{"a zeroed state", "tasks/c1.state", func(b []byte) []byte { return make([]byte, len(b)) }, "task", 1},
		{"a torn last state", "tasks/c1.state", func(b []byte) []byte { return b[:len(b)-5] }, "task state 41", 1},
		{"a flip in the first state", "tasks/c1.state", func(b []byte) []byte { b[40] ^= 1; return b }, "task state 42", 1},
		{"a length that lies", "tasks/c1.state", func(b []byte) []byte { b[8] = 0x7f; return b }, "task state 42", 1},
		{"one epoch", "epoch", func(b []byte) []byte { return b[:3] }, "task state 42", 1},
		{"a record of the ended", "ended", func(b []byte) []byte { b[3] ^= 1; return b }, "task state 42", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := open(t, dir)
			commit(t, s, PutTask(sampleTask("c1", "t1")), PutTask(sampleTask("c2", "t2")), PutTask(sampleTask("c3", "t3")), PutEpoch(7))
			commit(t, s, PutState(sampleState("c1", "t1", 41)))
			commit(t, s, PutState(sampleState("c1", "t1", 42)))
			commit(t, s, End("c3", "f1", "t3"))
			commit(t, s, End("c4", "f1", "t4"))
			s.Close()
			if tc.file != "" {
				path := filepath.Join(dir, tc.file)
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, tc.spoil(data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for round := range 2 {
				s, l := open(t, dir)
				problems := tc.problems
				if round == 1 {
					problems = 0 // it was mended
				}
				if len(l.Problems) != problems || l.Epoch != 7 || len(l.Items) != 2 || !l.Ended.Has("f1", "t4") {
					t.Errorf("round %d: problems %v, epoch %d, %d items", round, l.Problems, l.Epoch, len(l.Items))
				}
				if got := describe(l.Items[0]); got != tc.want {
					t.Errorf("round %d: got %q, want %q", round, got, tc.want)
				}
				s.Close()
			}
		})
	}
}

func describe(item Item) string {
	var out []string
	if item.Task != nil {
		out = append(out, "task")
	}
	if item.State != nil {
		out = append(out, fmt.Sprintf("state %d", item.State.GetPid()))
	}
	return strings.Join(out, " ")
}

func TestQuarantineIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range quarantineMax + 10 {
		s, _ := open(t, dir)
		s.Close()
		if err := os.WriteFile(filepath.Join(dir, "epoch"), fmt.Appendf(nil, "nonsense %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
	kept, err := os.ReadDir(filepath.Join(dir, "quarantine"))
	if err != nil || len(kept) > quarantineMax {
		t.Errorf("%d files are kept, %v", len(kept), err)
	}
}

func TestEndedIsBounded(t *testing.T) {
	var e Ended
	for i := range EndedMax + 5 {
		e.Add("f", fmt.Sprint(i))
	}
	if len(e.set) != EndedMax || e.Has("f", "0") || e.Has("f", "4") || !e.Has("f", "5") || !e.Has("f", fmt.Sprint(EndedMax+4)) {
		t.Errorf("%d are remembered", len(e.set))
	}
}

func TestTheFileOfTheEndedIsBounded(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Close()
	var full []byte
	for i := range 2 * EndedMax {
		full = digestOf("f", fmt.Sprint(i)).appendTo(full)
	}
	path := filepath.Join(dir, fileEnded)
	if err := os.WriteFile(path, full, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, dir)
	commit(t, s, End("c", "f", "one more"))
	s.Close()
	if info, err := os.Stat(path); err != nil || info.Size() != (EndedMax+1)*endedRecord {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	if _, l := open(t, dir); !l.Ended.Has("f", "one more") || !l.Ended.Has("f", fmt.Sprint(2*EndedMax-1)) || l.Ended.Has("f", "0") {
		t.Error("what is remembered are not the newest")
	}
}

func TestTheCommitterTellsEveryone(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	c := NewCommitter(s)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var mu sync.Mutex
	told := 0
	const n = 200
	for i := range n { // some before, some while it runs
		if i == n/2 {
			running.Go(func() { c.Run(ctx) })
		}
		c.Submit(PutState(sampleState("c1", "t1", int64(i+1))), func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told++
			if err != nil {
				t.Error(err)
			}
		})
	}
	cancel()
	running.Wait()
	if told != n {
		t.Errorf("%d of %d were told", told, n)
	}
	var late error
	c.Submit(PutEpoch(1), func(err error) { late = err })
	if !errors.Is(late, ErrStopped) {
		t.Errorf("after the end: got %v, want ErrStopped", late)
	}
	s.Close()
	if _, l := open(t, dir); l.Items[0].State.GetPid() != n {
		t.Errorf("on disk is %d", l.Items[0].State.GetPid())
	}
}

func TestADiskThatFailsLeavesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	commit(t, s, PutTask(sampleTask("c1", "t1")))
	// A folder in the place of the temporary file makes the write fail, whoever we are.
	if err := os.Mkdir(filepath.Join(dir, "tasks", "c2.task.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	errs := s.Commit([]Change{PutTask(sampleTask("c2", "t2")), PutTask(sampleTask("c3", "t3"))})
	if errs[0] == nil || errs[1] != nil {
		t.Errorf("got %v", errs)
	}
	s.Close()
	_, l := open(t, dir)
	if got := slices.Collect(func(yield func(string) bool) {
		for _, i := range l.Items {
			yield(i.ContainerID)
		}
	}); !slices.Equal(got, []string{"c1", "c3"}) {
		t.Errorf("found %v", got)
	}
}

func sampleDrain() *Drain {
	return &Drain{MaxGracePeriod: proto.Int64(10e9), MarkGone: true, Started: 1700000000000000000}
}

// What was told to an agent holds for that agent, until it is taken back; the one that comes after it knows the epoch and the used-up
// ids, and nothing else.
func TestStanding(t *testing.T) {
	dir := t.TempDir()
	s, l := open(t, dir)
	if l.Drain != nil || l.Gone {
		t.Errorf("new folder: %+v", l)
	}
	commit(t, s, PutDrain(sampleDrain()), PutEpoch(7), PutTask(sampleTask("c1", "t1")))
	s.Close()
	s, l = open(t, dir)
	if !proto.Equal(l.Drain, sampleDrain()) || l.Gone {
		t.Errorf("drained: %+v", l)
	}
	commit(t, s, PutDrain(nil))
	commit(t, s, PutDrain(nil))
	s.Close()
	s, l = open(t, dir)
	if l.Drain != nil {
		t.Errorf("no longer drained: %+v", l)
	}
	commit(t, s, PutDrain(sampleDrain()), PutGone("agent-1"), End("c1", "f1", "t1"))
	s.Close()
	s, l = open(t, dir)
	if l.Drain == nil || !l.Gone {
		t.Errorf("gone: %+v", l)
	}
	kept := map[string][]byte{}
	for _, name := range []string{fileDrain, fileGone} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		kept[name] = data
	}
	if err := s.Renew("agent-2"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if id, ok := AgentID(dir); !ok || id != "agent-2" {
		t.Errorf("the folder is of %q", id)
	}
	later := func(o *Options) { o.AgentID = "agent-2" }
	for _, cut := range []bool{false, true} {
		if cut { // as if the power had gone before the old files were removed
			for name, data := range kept {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		s, l = open(t, dir, later)
		s.Close()
		if l.Drain != nil || l.Gone || l.Epoch != 7 || !l.Ended.Has("f1", "t1") || len(l.Items) != 0 || len(l.Problems) != 0 {
			t.Errorf("the next agent, cut off %v: %+v", cut, l)
		}
	}
}

// TestGoldenFolders reads folders as every release that ever shipped wrote them.
func TestGoldenFolders(t *testing.T) {
	golden := filepath.Join("testdata", fmt.Sprintf("v%d", frameVersion))
	if *update {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
		s, _ := open(t, golden)
		commit(t, s, PutTask(sampleTask("c1", "t1")), PutTask(sampleTask("c2", "t2")), PutEpoch(7))
		commit(t, s, PutState(sampleState("c1", "t1", 42)))
		commit(t, s, End("c2", "f1", "t2"), PutResources(sampleResources()), PutDrain(sampleDrain()), PutGone("agent-1"))
		s.Close()
		os.Remove(filepath.Join(golden, fileLock))
		os.Remove(filepath.Join(golden, dirQuarantine))
	}
	folders, err := filepath.Glob("testdata/v*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no golden folders: %v", err)
	}
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
				t.Fatal(err)
			}
			_, l := open(t, dir)
			if len(l.Problems) != 0 || l.Epoch != 7 || len(l.Items) != 1 || !l.Ended.Has("f1", "t2") {
				t.Fatalf("got %+v", l)
			}
			if item := l.Items[0]; !proto.Equal(item.Task, sampleTask("c1", "t1")) || !proto.Equal(item.State, sampleState("c1", "t1", 42)) {
				t.Errorf("got %v", item)
			}
			if !proto.Equal(l.Resources, sampleResources()) {
				t.Errorf("got %v", l.Resources)
			}
			if !proto.Equal(l.Drain, sampleDrain()) || !l.Gone {
				t.Errorf("got %v, gone %v", l.Drain, l.Gone)
			}
		})
	}
}

func sampleExecutor() *Executor {
	return &Executor{
		ContainerId: "e1", Launched: 1793534400000000001,
		Framework: &mesos.FrameworkInfo{Id: &mesos.FrameworkID{Value: proto.String("f1")}, Name: proto.String("demo"), User: proto.String("svc")},
		Executor: &mesos.ExecutorInfo{
			ExecutorId: &mesos.ExecutorID{Value: proto.String("x1")}, Type: mesos.ExecutorInfo_CUSTOM.Enum(),
			Command: &mesos.CommandInfo{Value: proto.String("./executor")},
		},
	}
}

func sampleRun() *Run {
	return &Run{
		ContainerId: "e1", Pid: 42, Started: 1793534400000000002, Subscribed: true, Used: true, Ended: true, Forgotten: true,
		Shutdown: &Kill{Grace: 5e9, At: 1793534400000000003, Cause: Cause_KILLED},
	}
}

// TestGoldenExecutors reads executors as every release that had some wrote them.
func TestGoldenExecutors(t *testing.T) {
	golden := filepath.Join("testdata", fmt.Sprintf("executors%d", frameVersion))
	task := sampleTask("c1", "t1")
	task.ExecutorRun, task.Group = "e1", "g1"
	state := sampleState("c1", "t1", 42)
	state.ExecutorRun, state.Group = "e1", "g1"
	if *update {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
		s, _ := open(t, golden)
		commit(t, s, PutExecutor(sampleExecutor()), PutTask(task), PutRun(sampleRun()), PutState(state))
		s.Close()
		os.Remove(filepath.Join(golden, fileLock))
		os.Remove(filepath.Join(golden, dirQuarantine))
	}
	folders, err := filepath.Glob("testdata/executors*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no golden folders: %v", err)
	}
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
				t.Fatal(err)
			}
			_, l := open(t, dir)
			if len(l.Problems) != 0 || len(l.Items) != 1 || len(l.Executors) != 1 {
				t.Fatalf("got %+v", l)
			}
			if item := l.Items[0]; !proto.Equal(item.Task, task) || !proto.Equal(item.State, state) {
				t.Errorf("got %v", item)
			}
			if e := l.Executors[0]; e.ContainerID != "e1" || !proto.Equal(e.Executor, sampleExecutor()) || !proto.Equal(e.Run, sampleRun()) {
				t.Errorf("got %v", e)
			}
		})
	}
}

// TestExecutorsAreForgotten ends a run whose files are there, and one of which a file does not read.
func TestExecutorsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	other := sampleExecutor()
	other.ContainerId = "e2"
	commit(t, s, PutExecutor(sampleExecutor()), PutRun(sampleRun()), PutExecutor(other))
	commit(t, s, EndExecutor("e1"))
	s.Close()
	if err := os.WriteFile(filepath.Join(dir, dirExecutors, "e2"+suffixRun), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, l := open(t, dir)
	if len(l.Executors) != 1 || l.Executors[0].ContainerID != "e2" || l.Executors[0].Run != nil || len(l.Problems) != 1 {
		t.Errorf("got %v, problems %v", l.Executors, l.Problems)
	}
}

func FuzzState(f *testing.F) {
	one, err := frame(kindState, sampleState("c1", "t1", 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one)
	f.Add(append(slices.Clone(one), one...))
	f.Add(append(slices.Clone(one), one[:20]...))
	f.Add([]byte("STAR"))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := lastState(data)
		if state == nil && err == nil {
			t.Error("neither a state nor an error")
		}
		// What was written last is found behind any damage.
		again, _ := lastState(append(slices.Clone(data), one...))
		if len(data) < 1<<16 && again == nil {
			t.Error("a whole frame behind damage was not found")
		}
		if all, _ := parseEnded(data); len(all) > len(data)/endedRecord {
			t.Error("more records than there is room for")
		}
	})
}
