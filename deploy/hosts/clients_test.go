package hosts

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/agent/testenv"
)

// Schedulers on the libraries of others, run unchanged against real masters. The libraries come from where their users get
// them, npm and Debian, at test time; of ours are the small programs in testdata that put them to work.

// tool runs a command that makes a program ready.
func tool(dir string, env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// library is one of others, with a program of ours on it.
type library struct {
	dir string
	// command is the one for a scheduler with an id, or for a new one; the address and the id are added to it.
	command func(id string) []string
}

// nodeLibrary speaks JSON.
func nodeLibrary(t *testing.T) library {
	return library{nodePackages(t, "mesos-framework"), func(string) []string { return []string{"node", "scheduler.js"} }}
}

// nodePackages installs the packages that a folder of testdata asks for, in the versions of its package-lock.json, into a copy of it.
func nodePackages(t *testing.T, name string) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			testenv.Lacks(t, "the packages of %s need %s (Debian: nodejs, npm)", name, program)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	if err := tool(dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		testenv.Lacks(t, "cannot install the packages of %s, for which the network is needed: %v", name, err)
	}
	return dir
}

// goLibrary speaks protobuf, and JSON once it has an id.
func goLibrary(t *testing.T) library {
	const gopath = "/usr/share/gocode"
	if _, err := os.Stat(gopath + "/src/github.com/mesos/mesos-go/api/v1"); err != nil {
		testenv.Lacks(t, "the library mesos-go is missing (Debian: golang-github-mesos-mesos-go-dev): %v", err)
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "src", "scheduler")
	if err := os.CopyFS(src, os.DirFS("testdata/mesos-go")); err != nil {
		t.Fatal(err)
	}
	env := []string{"GO111MODULE=off", "GOFLAGS=", "GOPATH=" + dir + ":" + gopath}
	if err := tool(src, env, "go", "build", "-o", filepath.Join(dir, "scheduler"), "."); err != nil {
		t.Fatal(err)
	}
	return library{dir, func(id string) []string {
		codec := "protobuf"
		if id != "" {
			codec = "json"
		}
		return []string{filepath.Join(dir, "scheduler"), codec}
	}}
}

func TestSchedulerOnNodeMesosFramework(t *testing.T) { schedulerOfOthers(t, nodeLibrary(t)) }

func TestSchedulerOnMesosGo(t *testing.T) { schedulerOfOthers(t, goLibrary(t)) }

// Schedulers that ask the wrong master are sent to the right one, and find the next when that has died.
func TestSchedulersOfOthersFollowTheLeader(t *testing.T) {
	t.Parallel()
	libraries := map[string]library{"mesos-framework": nodeLibrary(t), "mesos-go": goLibrary(t)}
	m := NewMasters(t, 2, 1, 8*time.Second)
	m.ZooKeeper.Start()
	m.StartMaster()
	m.StartMaster()
	m.StartAgent().Ready()
	leader := m.Leader(leads)
	standby := m.Masters[0]
	if standby == leader {
		standby = m.Masters[1]
	}
	from := m.Network.Hosts[len(m.Network.Hosts)-1]
	running, ids := make(map[string]*foreign), make(map[string]string)
	for name, c := range libraries {
		args := append([]string{"ip", "netns", "exec", from.netns}, c.command("")...)
		f := startForeign(t, c.dir, append(args, standby.Host.Addr, "5050"))
		running[name], ids[name] = f, f.want(`^subscribed (\S+)$`)
		f.say("launch a sleep 1000")
		f.want(`^update a TASK_RUNNING \S+ uuid$`)
		f.mark()
	}
	leader.Kill()
	m.Leader(leads, leader)
	// What they know is the dead one, which sends them on once it is back.
	leader.run()
	leader.Healthy("http://" + leader.Host.at(5050) + "/health")
	for name, f := range running {
		f.want(`^subscribed ` + regexp.QuoteMeta(ids[name]) + `$`)
		f.say("reconcile")
		f.want(`^update a TASK_RUNNING REASON_RECONCILIATION -$`)
		f.say("launch b sleep 1000")
		f.want(`^update b TASK_RUNNING \S+ uuid$`)
		f.say("kill a")
		f.want(`^update a TASK_KILLED \S+ uuid$`)
		f.nothingWrong()
		f.say("teardown")
		f.want(`^error .*Framework has been removed`)
	}
}

// schedulerOfOthers lets a scheduler subscribe, launch, hear of its tasks, kill, die and come back, and outlive its master; then
// it is torn down.
func schedulerOfOthers(t *testing.T, c library) {
	r := Separate(t, 1)
	master, err := url.Parse(r.Master)
	if err != nil {
		t.Fatal(err)
	}
	begin := func(id string) *foreign {
		args := append(c.command(id), master.Hostname(), master.Port())
		if id != "" {
			args = append(args, id)
		}
		return startForeign(t, c.dir, args)
	}

	first := begin("")
	id := first.want(`^subscribed (\S+)$`)
	first.say("launch a sleep 1000", "launch b sleep 1000", "launch c sleep 1000")
	for _, task := range []string{"a", "b", "c"} {
		first.want(`^update ` + task + ` TASK_RUNNING \S+ uuid$`)
	}
	first.say("launch short true")
	first.want(`^update short TASK_FINISHED \S+ uuid$`)
	first.say("launch wrong false")
	first.want(`^update wrong TASK_FAILED \S+ uuid$`)
	first.say("kill a")
	first.want(`^update a TASK_KILLED \S+ uuid$`)
	r.frameworkHas(id, map[string]string{"b": "TASK_RUNNING", "c": "TASK_RUNNING"})
	first.end()

	// Its next process takes the id over, and learns how its tasks are.
	second := begin(id)
	second.want(`^subscribed ` + regexp.QuoteMeta(id) + `$`)
	second.say("reconcile")
	for _, task := range []string{"b", "c"} {
		second.want(`^update ` + task + ` TASK_RUNNING REASON_RECONCILIATION -$`)
	}
	second.say("launch d sleep 1000")
	second.want(`^update d TASK_RUNNING \S+ uuid$`)

	// And so it does when the master has died.
	second.mark()
	r.MasterProcess.Kill()
	r.MasterProcess.run()
	r.MasterProcess.Healthy(r.masterHealth)
	second.want(`^subscribed ` + regexp.QuoteMeta(id) + `$`)
	// Who asks for all is told of those that the master has heard of by then.
	r.frameworkHas(id, map[string]string{"b": "TASK_RUNNING", "c": "TASK_RUNNING", "d": "TASK_RUNNING"})
	second.say("reconcile")
	for _, task := range []string{"b", "c", "d"} {
		second.want(`^update ` + task + ` TASK_RUNNING REASON_RECONCILIATION -$`)
	}
	second.say("kill b")
	second.want(`^update b TASK_KILLED \S+ uuid$`)
	second.say("launch e sleep 1000")
	second.want(`^update e TASK_RUNNING \S+ uuid$`)
	r.frameworkHas(id, map[string]string{"c": "TASK_RUNNING", "d": "TASK_RUNNING", "e": "TASK_RUNNING"})

	first.nothingWrong()
	second.nothingWrong()
	second.say("teardown")
	Eventually(t, 30*time.Second, "the framework and its tasks are gone", func() error {
		if _, tasks := processesOf(r.AgentDirs[0]); len(tasks) > 0 {
			return fmt.Errorf("processes %v are left", tasks)
		}
		if frameworks, err := r.frameworks(); err != nil || frameworks[id] != nil {
			return fmt.Errorf("%v %w", frameworks[id], err)
		}
		return nil
	})
	// Both libraries come back whenever their stream has ended; this id is not for use again.
	second.want(`^error .*Framework has been removed`)
}

// frameworks reads the master's list: the tasks of each framework by name, with their states.
func (c *Cluster) frameworks() (map[string]map[string]string, error) {
	_, body, err := c.request("GET", c.Master+"/frameworks", "")
	if err != nil {
		return nil, err
	}
	var v struct {
		Frameworks []struct {
			ID    string
			Tasks []struct{ Name, State string }
		}
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return nil, err
	}
	found := make(map[string]map[string]string)
	for _, f := range v.Frameworks {
		found[f.ID] = make(map[string]string)
		for _, task := range f.Tasks {
			found[f.ID][task.Name] = task.State
		}
	}
	return found, nil
}

// frameworkHas waits until a framework has these tasks and no other: an end that it has acknowledged is on no list.
func (c *Cluster) frameworkHas(id string, want map[string]string) {
	c.t.Helper()
	Eventually(c.t, 20*time.Second, fmt.Sprintf("framework %s has %v", id, want), func() error {
		frameworks, err := c.frameworks()
		if err != nil {
			return err
		}
		got := frameworks[id]
		for name, state := range want {
			if got[name] != state {
				return fmt.Errorf("it has %v", got)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
}

// foreign is a running program of testdata, which takes orders on its input and says on its output what happens.
type foreign struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	done chan struct{} // closed once the process has ended and all it said is in lines

	mu    sync.Mutex
	lines []string // without the mark in front
	other bytes.Buffer
	from  int // where want begins to look
}

func startForeign(t *testing.T, dir string, args []string) *foreign {
	t.Helper()
	f := &foreign{t: t, cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	f.cmd.Dir = dir
	in, err := f.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.cmd.Stderr = f.cmd.Stdout
	f.in = in
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(f.done)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			f.take(lines.Text())
		}
		_ = f.cmd.Wait()
	}()
	t.Cleanup(func() {
		f.end()
		if t.Failed() {
			f.mu.Lock()
			defer f.mu.Unlock()
			t.Logf("--- %s\n%s\n--- and beside\n%s", strings.Join(args, " "), strings.Join(f.lines, "\n"), f.other.String())
		}
	})
	return f
}

func (f *foreign) take(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if said, ok := strings.CutPrefix(line, "> "); ok {
		f.lines = append(f.lines, said)
	} else {
		f.other.WriteString(line + "\n")
	}
}

// end kills the program, as a crash would.
func (f *foreign) end() {
	_ = f.cmd.Process.Kill()
	<-f.done
}

// mark lets want look at what is said from now on.
func (f *foreign) mark() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = len(f.lines)
}

// say gives orders.
func (f *foreign) say(orders ...string) {
	f.t.Helper()
	f.mark()
	if _, err := io.WriteString(f.in, strings.Join(orders, "\n")+"\n"); err != nil {
		f.t.Fatalf("cannot say %q: %v", orders, err)
	}
}

// want waits for a line and returns what its first group holds, or all of it.
func (f *foreign) want(pattern string) string {
	f.t.Helper()
	re := regexp.MustCompile(pattern)
	var found string
	Eventually(f.t, 60*time.Second, "the scheduler says "+pattern, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, line := range f.lines[f.from:] {
			if m := re.FindStringSubmatch(line); m != nil {
				found = m[len(m)-1]
				return nil
			}
		}
		select {
		case <-f.done:
			f.t.Fatalf("it has ended: %v", f.cmd.ProcessState)
		default:
		}
		return fmt.Errorf("it has said %q", f.lines[f.from:])
	})
	return found
}

// nothingWrong looks for refusals, for what the library could not read, and for tasks that were told to be lost.
func (f *foreign) nothingWrong() {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	wrong := regexp.MustCompile(`^error|TASK_LOST|TASK_ERROR|TASK_GONE|TASK_DROPPED|TASK_UNKNOWN|TASK_UNREACHABLE`)
	// Without a master there is nothing to talk to, and one that has just begun says so.
	due := regexp.MustCompile(`problem with the request|Long-running connection was closed|No leader elected|has not finished recovery`)
	for _, line := range f.lines {
		if wrong.MatchString(line) && !due.MatchString(line) {
			f.t.Errorf("the scheduler said %q", line)
		}
	}
	if !slices.ContainsFunc(f.lines, func(line string) bool { return strings.HasPrefix(line, "sent ") || strings.HasPrefix(line, "update ") }) {
		f.t.Error("the scheduler has done nothing")
	}
}
