package hosts

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/testenv"
	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// Executors: one that others have written, on their library and in protobuf; a small one of ours in another language, which
// has nothing but its standard library and speaks JSON, since what the package registries have of executors does not keep to
// the API (the one of npm's mesos-framework subscribes without saying so); and the one that is built in, for groups.

// mesosGoExecutor builds the example executor of mesos-go, unchanged: Debian's package has the library, and Debian's source
// package the example.
func mesosGoExecutor(t *testing.T) string {
	const gopath = "/usr/share/gocode"
	if _, err := os.Stat(gopath + "/src/github.com/mesos/mesos-go/api/v1"); err != nil {
		testenv.Lacks(t, "the library mesos-go is missing (Debian: golang-github-mesos-mesos-go-dev): %v", err)
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "src", "example-executor")
	if err := os.MkdirAll(src, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unpackSource(debianSource(t, dir, "golang-github-mesos-mesos-go"), "api/v1/cmd/example-executor/", src); err != nil {
		t.Fatal(err)
	}
	env := []string{"GO111MODULE=off", "GOFLAGS=", "GOPATH=" + dir + ":" + gopath}
	binary := filepath.Join(dir, "example-executor")
	if err := tool(src, env, "go", "build", "-o", binary, "."); err != nil {
		t.Fatal(err)
	}
	return binary
}

// debianSource fetches the upstream archive of a source package of Debian, with an apt configuration of its own.
func debianSource(t *testing.T, dir, name string) string {
	parts := filepath.Join(dir, "sources")
	if err := errors.Join(os.MkdirAll(parts, 0o755), os.MkdirAll(filepath.Join(dir, "lists", "partial"), 0o755)); err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	for i, f := range found {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "Types:") {
				lines[i] = "Types: deb-src"
			}
		}
		if err := os.WriteFile(filepath.Join(parts, fmt.Sprint(i, ".sources")), []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile("/etc/apt/sources.list"); err == nil {
		var lines []string
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "deb "); ok {
				lines = append(lines, "deb-src "+rest)
			}
		}
		if err := os.WriteFile(filepath.Join(parts, "all.list"), []byte(strings.Join(lines, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	apt := func(args ...string) error {
		return tool(dir, nil, "apt-get", append([]string{
			"-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Etc::sourceparts=" + parts, "-o", "Dir::State::lists=" + filepath.Join(dir, "lists"),
			"-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3",
		}, args...)...)
	}
	if err := apt("update"); err != nil {
		testenv.Lacks(t, "cannot read Debian's list of source packages, for which the network is needed: %v", err)
	}
	// What Debian has added to it is not needed, and not every mirror has it: the archive itself is what counts. apt has
	// checked it.
	err := apt("source", "--download-only", "--only-source", name)
	archives, _ := filepath.Glob(filepath.Join(dir, name+"_*.orig.tar.*"))
	if len(archives) != 1 {
		testenv.Lacks(t, "cannot fetch Debian's source package %s: %v", name, err)
	}
	return archives[0]
}

// unpackSource unpacks the files of one folder of an archive.
func unpackSource(archive, folder, to string) error {
	xz := exec.Command("xz", "-dc", archive)
	out, err := xz.StdoutPipe()
	if err != nil {
		return err
	}
	if err := xz.Start(); err != nil {
		return err
	}
	defer xz.Wait()
	defer out.Close()
	for r := tar.NewReader(out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, path, _ := strings.Cut(h.Name, "/")
		name, ok := strings.CutPrefix(path, folder)
		if !ok || name != filepath.Base(name) || h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o644); err != nil {
			return err
		}
	}
}

// employer is a framework that launches what tests want on an agent's executors.
type employer struct {
	*Scheduler
	r     *Roles
	began time.Time
}

func (r *Roles) employer(checkpoint bool) *employer {
	f := &Scheduler{
		t: r.t,
		client: client.New(client.Config{
			Masters: []string{strings.TrimPrefix(r.Master, "http://")}, Codec: codec.JSON, MinBackoff: 20 * time.Millisecond,
			MaxBackoff: 200 * time.Millisecond, Transport: r.transport(),
		}),
		info: &mesos.FrameworkInfo{
			User: proto.String("root"), Name: proto.String("employer"), FailoverTimeout: proto.Float64(3600), Checkpoint: &checkpoint,
			Roles: []string{"*"}, Capabilities: []*mesos.FrameworkInfo_Capability{
				{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()}, {Type: mesos.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
			},
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && f.session(ctx) {
		}
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
		f.client.Close()
	})
	return &employer{f, r, time.Now()}
}

func need(t testing.TB, text string) []*mesos.Resource {
	r, err := resources.Parse(text, resources.AnyRole)
	if err != nil {
		t.Fatal(err)
	}
	return r.AllocatedTo("*").ProtoPreRefinement()
}

// custom is an executor of this command.
func custom(t testing.TB, id, command string) *mesos.ExecutorInfo {
	return &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: &id}, Type: mesos.ExecutorInfo_CUSTOM.Enum(), Name: proto.String(id),
		Command: &mesos.CommandInfo{Value: &command}, Resources: need(t, "cpus:0.1;mem:64"),
	}
}

// accept makes an operation of the next offer that is large enough.
func (e *employer) accept(operation func(agent *mesos.AgentID) *mesos.Offer_Operation) {
	e.t.Helper()
	used := make(chan struct{})
	e.mu.Lock()
	e.use = func(o *mesos.Offer) *scheduler.Call { // e.mu is held
		have, err := resources.FromProto(o.GetResources())
		if err != nil || have.Scalar("cpus").Float() < 0.5 || have.Scalar("mem").Float() < 512 {
			return nil
		}
		e.use = nil
		close(used)
		return &scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), FrameworkId: e.info.GetId(), Accept: &scheduler.Call_Accept{
			OfferIds: []*mesos.OfferID{o.GetId()}, Operations: []*mesos.Offer_Operation{operation(o.GetAgentId())},
			Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
		}}
	}
	e.mu.Unlock()
	select {
	case <-used:
	case <-time.After(30 * time.Second):
		e.t.Fatal("no offer came")
	}
}

// launch has an executor run tasks.
func (e *employer) launch(executor *mesos.ExecutorInfo, data string, ids ...string) {
	e.t.Helper()
	e.accept(func(agent *mesos.AgentID) *mesos.Offer_Operation {
		launch := &mesos.Offer_Operation_Launch{}
		for _, id := range ids {
			launch.TaskInfos = append(launch.TaskInfos, &mesos.TaskInfo{
				Name: &id, TaskId: &mesos.TaskID{Value: &id}, AgentId: agent, Resources: need(e.t, "cpus:0.01;mem:32"), Executor: executor,
				Data: []byte(data),
			})
		}
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: launch}
	})
}

// told are the states that a task was reported in, repetitions of an update left out.
func (e *employer) told(id string) (states []string, last *mesos.TaskStatus) {
	seen := map[string]bool{}
	for _, h := range e.Since(e.began) {
		s := h.Event.GetUpdate().GetStatus()
		if s.GetTaskId().GetValue() != id || seen[string(s.GetUuid())] && len(s.GetUuid()) > 0 {
			continue
		}
		seen[string(s.GetUuid())] = true
		states, last = append(states, s.GetState().String()), s
	}
	return states, last
}

// wants waits until a task was reported in these states and no others.
func (e *employer) wants(id string, states ...string) *mesos.TaskStatus {
	e.t.Helper()
	var last *mesos.TaskStatus
	Eventually(e.t, 30*time.Second, fmt.Sprintf("task %s was %v", id, states), func() error {
		got, status := e.told(id)
		if last = status; !slices.Equal(got, states) {
			return fmt.Errorf("it was %v, the last %v", got, last)
		}
		return nil
	})
	return last
}

// failure waits until the framework was told of the end of an executor, and returns its wait status.
func (e *employer) failure(id string) int32 {
	e.t.Helper()
	var status int32
	Eventually(e.t, 20*time.Second, "the end of executor "+id+" is told", func() error {
		for _, h := range e.Since(e.began) {
			if f := h.Event.GetFailure(); f.GetExecutorId().GetValue() == id {
				status = f.GetStatus()
				return nil
			}
		}
		return errors.New("it is not")
	})
	return status
}

// clean waits until no process of the agent's tasks is left, and nothing on disk that tells of an executor.
func (e *employer) clean() {
	e.t.Helper()
	Eventually(e.t, 10*time.Second, "nothing is left", func() error {
		if _, tasks := processesOf(e.r.AgentDirs[0]); len(tasks) > 0 {
			return fmt.Errorf("processes %v are left", tasks)
		}
		if left, _ := filepath.Glob(filepath.Join(e.r.AgentDirs[0], "meta", "executors", "*")); len(left) > 0 {
			return fmt.Errorf("%v are left on disk", left)
		}
		return nil
	})
}

// restart ends the agent as a crash does, and begins it anew.
func (e *employer) restart() {
	e.t.Helper()
	p := e.r.Agents[0]
	p.Kill()
	p.run()
	p.Healthy(e.r.agentHealth[0])
}

func (e *employer) call(call *scheduler.Call) {
	e.t.Helper()
	call.FrameworkId = e.Info().GetId()
	if err := e.Call(call); err != nil {
		e.t.Fatal(err)
	}
}

// agent is the one that tasks have run on.
func (e *employer) agent() *mesos.AgentID {
	e.t.Helper()
	for _, h := range e.Since(e.began) {
		if id := h.Event.GetUpdate().GetStatus().GetAgentId(); id != nil {
			return id
		}
	}
	e.t.Fatal("nothing has run yet")
	return nil
}

// executorProcess finds the process of a command that the agent started.
func executorProcess(t testing.TB, dir, command string) int {
	t.Helper()
	found := 0
	Eventually(t, 10*time.Second, "the executor runs", func() error {
		_, pids := processesOf(dir)
		for _, pid := range pids {
			line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			args := strings.Split(string(line), "\x00")
			if slices.ContainsFunc(args[:min(2, len(args))], func(a string) bool { return a == command }) {
				found = pid
				return nil
			}
		}
		return fmt.Errorf("of %v, none is %s", pids, command)
	})
	return found
}

// patientWithExecutors is for the agent of executors that outlive it: of the two seconds that they have otherwise to come back,
// mesos-go's waits for up to one and a half between two attempts.
const patientWithExecutors = "--executor-reregistration-timeout=10secs"

func TestExecutorOfMesosGo(t *testing.T) {
	binary := mesosGoExecutor(t)
	r := SeparateIn(t, []string{workDir(t)}, patientWithExecutors)
	e := r.employer(true)
	executor := custom(t, "example", "exec "+binary)
	e.launch(executor, "", "first")
	e.wants("first", "TASK_RUNNING", "TASK_FINISHED")
	pid := executorProcess(t, r.AgentDirs[0], binary)
	for i := range 3 {
		// Also of tasks that come while it is not there.
		e.restart()
		var ids []string
		for j := range 5 {
			ids = append(ids, fmt.Sprintf("task-%d-%d", i, j))
		}
		e.launch(executor, "", ids...)
		for _, id := range ids {
			if last := e.wants(id, "TASK_RUNNING", "TASK_FINISHED"); last.GetExecutorId().GetValue() != "example" || last.GetContainerStatus().GetExecutorPid() != uint32(pid) {
				t.Errorf("told %v", last)
			}
		}
		if gone(pid) {
			t.Fatal("the executor has ended")
		}
	}
	e.call(&scheduler.Call{Type: scheduler.Call_MESSAGE.Enum(), Message: &scheduler.Call_Message{
		AgentId: e.agent(), ExecutorId: executor.GetExecutorId(), Data: []byte("hello"),
	}})
	e.call(&scheduler.Call{Type: scheduler.Call_SHUTDOWN.Enum(), Shutdown: &scheduler.Call_Shutdown{
		AgentId: e.agent(), ExecutorId: executor.GetExecutorId(),
	}})
	if status := e.failure("example"); status != 0 {
		t.Errorf("the executor ended with %#x", status)
	}
	e.clean()
}

// One whose framework asks for no checkpoints ends with its connection, and its tasks are told of.
func TestExecutorOfMesosGoWithoutCheckpoint(t *testing.T) {
	binary := mesosGoExecutor(t)
	r := Separate(t, 1)
	e := r.employer(false)
	e.launch(custom(t, "example", "exec "+binary), "", "first")
	e.wants("first", "TASK_RUNNING", "TASK_FINISHED")
	pid := executorProcess(t, r.AgentDirs[0], binary)
	e.restart()
	Eventually(t, 10*time.Second, "it has ended", func() error {
		if !gone(pid) {
			return errors.New("it has not")
		}
		return nil
	})
	e.failure("example")
	e.clean()
}

func TestExecutorInPython(t *testing.T) {
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		testenv.Lacks(t, "python3 is missing (Debian: python3): %v", err)
	}
	script, err := filepath.Abs("testdata/executor/executor.py")
	if err != nil {
		t.Fatal(err)
	}
	r := SeparateIn(t, []string{workDir(t)}, patientWithExecutors)
	e := r.employer(true)
	executor := custom(t, "py", "exec "+python+" "+script)
	e.launch(executor, "", "a", "b", "c")
	for _, id := range []string{"a", "b", "c"} {
		e.wants(id, "TASK_RUNNING")
	}
	pid := executorProcess(t, r.AgentDirs[0], script)
	e.call(&scheduler.Call{Type: scheduler.Call_MESSAGE.Enum(), Message: &scheduler.Call_Message{
		AgentId: e.agent(), ExecutorId: executor.GetExecutorId(), Data: []byte("there and back"),
	}})
	Eventually(t, 10*time.Second, "the message is back", func() error {
		for _, h := range e.Since(e.began) {
			if string(h.Event.GetMessage().GetData()) == "there and back" {
				return nil
			}
		}
		return errors.New("it is not")
	})
	for i := range 5 {
		e.restart()
		id := fmt.Sprint("short", i)
		e.launch(executor, "finish", id)
		e.wants(id, "TASK_RUNNING", "TASK_FINISHED")
	}
	kill := func(id string) {
		e.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: &id}}})
	}
	kill("a")
	e.wants("a", "TASK_RUNNING", "TASK_KILLED")
	// A kill that comes while the agent is away, too.
	r.Agents[0].Kill()
	kill("b")
	r.Agents[0].run()
	e.wants("b", "TASK_RUNNING", "TASK_KILLED")
	if gone(pid) {
		t.Fatal("the executor has ended")
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(r.AgentDirs[0], "slaves", "latest", "frameworks", e.ID(), "executors", "py", "runs", "latest"))
	if err != nil {
		t.Fatal(err)
	}
	launched, err := os.ReadFile(filepath.Join(dir, "launched"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(launched))
	slices.Sort(got)
	if want := []string{"a", "b", "c", "short0", "short1", "short2", "short3", "short4"}; !slices.Equal(got, want) {
		t.Errorf("the executor was given %v, want each of %v once", got, want)
	}
	// P3: its death is that of its tasks, and of what they left running.
	died := time.Now()
	killProcess(t, pid)
	last := e.wants("c", "TASK_RUNNING", "TASK_FAILED")
	took := time.Since(died)
	if last.GetReason() != mesos.TaskStatus_REASON_EXECUTOR_TERMINATED || last.GetSource() != mesos.TaskStatus_SOURCE_AGENT {
		t.Errorf("told %v", last)
	}
	if status := e.failure("py"); status != 9 {
		t.Errorf("the executor ended with %#x", status)
	}
	e.clean()
	within(t, "the tasks of a killed executor are told of", took, 2*time.Second)
	within(t, "nothing is left of it", time.Since(died), 5*time.Second)
}

// The executor that is built in, with processes.
func TestTaskGroupOfProcesses(t *testing.T) {
	r := Separate(t, 1)
	e := r.employer(true)
	executor := &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: proto.String("pod")}, Type: mesos.ExecutorInfo_DEFAULT.Enum(), Resources: need(t, "cpus:0.1;mem:32;disk:10"),
	}
	group := func(commands map[string]string) {
		e.accept(func(agent *mesos.AgentID) *mesos.Offer_Operation {
			tasks := &mesos.TaskGroupInfo{}
			for id, command := range commands {
				tasks.Tasks = append(tasks.Tasks, &mesos.TaskInfo{
					Name: &id, TaskId: &mesos.TaskID{Value: &id}, AgentId: agent, Resources: need(t, "cpus:0.1;mem:32"),
					Command: &mesos.CommandInfo{Value: &command},
					Container: &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: []*mesos.Volume{{
						Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("common"),
						Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SANDBOX_PATH.Enum(), SandboxPath: &mesos.Volume_Source_SandboxPath{
							Type: mesos.Volume_Source_SandboxPath_PARENT.Enum(), Path: proto.String("common"),
						}},
					}}},
				})
			}
			return &mesos.Offer_Operation{
				Type:        mesos.Offer_Operation_LAUNCH_GROUP.Enum(),
				LaunchGroup: &mesos.Offer_Operation_LaunchGroup{Executor: executor, TaskGroup: tasks},
			}
		})
	}
	group(map[string]string{
		"writer": `echo $MESOS_CONTAINER_IP > common/said; while ! test -e common/end; do sleep 0.1; done`,
		"reader": `until test -s common/said; do sleep 0.1; done; cp common/said seen; exec sleep 1000`,
	})
	var pids []int
	for _, id := range []string{"writer", "reader"} {
		pids = append(pids, int(e.wants(id, "TASK_STARTING", "TASK_RUNNING").GetContainerStatus().GetExecutorPid()))
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(r.AgentDirs[0], "slaves", "latest", "frameworks", e.ID(), "executors", "pod", "runs", "latest"))
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, "one task sees what the other has written", func() error {
		seen, err := os.ReadFile(filepath.Join(dir, "tasks", "reader", "seen"))
		if err == nil && strings.TrimSpace(string(seen)) != "127.0.0.1" {
			err = fmt.Errorf("it is %q", seen)
		}
		return err
	})
	for range 3 {
		e.restart()
	}
	for _, pid := range pids {
		if pid == 0 || gone(pid) {
			t.Fatalf("process %d has not outlived the agent", pid)
		}
	}
	// Another group on the same executor, of which one fails.
	group(map[string]string{"bad": "until test -e common/fail; do sleep 0.1; done; exit 3", "stays": "exec sleep 1000"})
	for _, id := range []string{"bad", "stays"} {
		e.wants(id, "TASK_STARTING", "TASK_RUNNING") // else one may be ended before it has been told to run
	}
	if err := os.WriteFile(filepath.Join(dir, "common", "fail"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	last := e.wants("bad", "TASK_STARTING", "TASK_RUNNING", "TASK_FAILED")
	if !strings.Contains(last.GetMessage(), "exited with status 3") {
		t.Errorf("told %v", last)
	}
	e.wants("stays", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLED")
	// The first one is not harmed, and ends when its tasks are done.
	e.wants("reader", "TASK_STARTING", "TASK_RUNNING")
	if err := os.WriteFile(filepath.Join(dir, "common", "end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e.wants("writer", "TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED")
	e.wants("reader", "TASK_STARTING", "TASK_RUNNING")
	e.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: &mesos.TaskID{Value: proto.String("reader")}}})
	e.wants("reader", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLED")
	if status := e.failure("pod"); status != 0 {
		t.Errorf("the executor ended with %#x", status)
	}
	e.clean()
}
