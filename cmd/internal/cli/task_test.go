package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent"
	agentapi "starling/agent/api"
	"starling/agent/containerizer/containerizertest"
	"starling/gossip/api"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

const (
	testAgent = "5d7f2b7e-3c4b-4c55-9f6e-7d0f3a1b2c3d-S0"
	patience  = time.Minute
)

type testMesh struct{ *record.Map }

func (m testMesh) Set(changes ...record.Assignment) uint64 { return m.Map.Set(time.Now(), changes...) }
func (m testMesh) Delta(since uint64) []byte               { return m.Map.Delta(testAgent, since) }

type silent struct{}

func (silent) Report(context.Context, string, *nodeapi.Report) error { return nil }

// cluster is a real agent with one task, and what the mesh says of both.
type cluster struct {
	t     *testing.T
	agent *agent.Agent
	fake  *containerizertest.Fake
	addr  string // of the agent
	mesh  *node
	// sandbox is the folder of the task "web-1", and container its id.
	sandbox, container string
	tasks              []api.Task
	members            []api.Member
}

func newCluster(t *testing.T, onExec func(*containerizertest.FakeProcess) int) *cluster {
	t.Helper()
	c := &cluster{t: t, fake: containerizertest.NewFake(), mesh: newNode(t)}
	c.fake.OnExec = onExec
	total, err := resources.Parse("cpus:4;mem:4096", "*")
	if err != nil {
		t.Fatal(err)
	}
	cfg := agent.DefaultConfig()
	cfg.NewID = func() string { return "other-S0" }
	cfg.ID, cfg.WorkDir, cfg.Hostname, cfg.Address, cfg.Port, cfg.Resources = testAgent, t.TempDir(), "edge1", "127.0.0.1", 5051, total
	cfg.Mesh, cfg.Reporter, cfg.Containerizer = testMesh{record.NewMap(testAgent, 1)}, silent{}, c.fake
	cfg.SwitchUser, cfg.DiskReserve, cfg.Log = false, 0, slog.New(slog.DiscardHandler)
	if c.agent, err = agent.New(cfg); err != nil {
		t.Fatal(err)
	}
	server, err := agentapi.New(c.agent, agentapi.Config{Log: cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- c.agent.Run(ctx) }()
	go func() { ended <- server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	c.launch()
	c.members = []api.Member{
		{Name: testAgent, AgentID: testAgent, Hostname: "edge1", State: "alive", Roles: []string{"agent"}, APIAddress: c.addr, Tasks: 1},
	}
	c.tell()
	return c
}

// launch runs the task, by a call of a leader.
func (c *cluster) launch() {
	c.t.Helper()
	rs, err := resources.Parse("cpus:1;mem:64", "*")
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = c.agent.Call(c.t.Context(), &nodeapi.Call{Epoch: 1, AgentId: testAgent, Call: &nodeapi.Call_Launch{Launch: &nodeapi.Launch{
		Framework: &mesos.FrameworkInfo{Id: &mesos.FrameworkID{Value: proto.String("f1")}, Name: proto.String("demo"), User: proto.String("")},
		Tasks: []*mesos.TaskInfo{{
			Name: proto.String("web"), TaskId: &mesos.TaskID{Value: proto.String("web-1")}, AgentId: &mesos.AgentID{Value: proto.String(testAgent)},
			Resources: rs.AllocatedTo("*").Proto(), Command: &mesos.CommandInfo{Value: proto.String("sleep 9")},
		}},
	}}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.until("the task runs", func() bool { return len(c.fake.Running()) == 1 })
	c.container = c.fake.Running()[0]
	spec, _ := c.fake.Launched(c.container)
	c.sandbox = spec.Dir
	c.tasks = []api.Task{{
		ID: "web-1", Name: "web", FrameworkID: "f1", Framework: "demo", ExecutorID: "web-1", ContainerID: c.container, State: "TASK_RUNNING",
		Node: testAgent, NodeState: "alive", Host: "edge1", APIAddress: c.addr, Resources: &api.Resources{CPUs: 1, Mem: 64},
	}}
	c.until("the agent says so", func() bool {
		st, err := c.agent.State(c.t.Context())
		return err == nil && len(st.Frameworks) == 1 && st.Frameworks[0].Executors[0].Running
	})
}

// tell has the mesh say what there is.
func (c *cluster) tell() {
	c.t.Helper()
	for path, v := range map[string]any{api.PathTasks: c.tasks, api.PathMembers: c.members} {
		body, err := json.Marshal(v)
		if err != nil {
			c.t.Fatal(err)
		}
		c.mesh.set(path, string(body))
	}
}

func (c *cluster) until(what string, holds func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// run runs one command of a group.
func (c *cluster) run(group func(context.Context, Streams, []string, []string) int, in string, args ...string) (out, errs string, code int) {
	c.t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	code = group(ctx, Streams{Out: &o, Err: &e, In: strings.NewReader(in)}, args, []string{"STARLING_AGENT=" + c.mesh.addr})
	return o.String(), e.String(), code
}

func (c *cluster) want(group func(context.Context, Streams, []string, []string) int, code int, out, errs string, args ...string) {
	c.t.Helper()
	gotOut, gotErrs, got := c.run(group, "", args...)
	if got != code || gotOut != out || !strings.Contains(gotErrs, errs) || errs == "" && gotErrs != "" {
		c.t.Errorf("%q: code %d, out %q, errors %q; want %d, %q, %q", args, got, gotOut, gotErrs, code, out, errs)
	}
}

func TestTaskList(t *testing.T) {
	c := newCluster(t, nil)
	c.tasks = append(c.tasks, api.Task{ID: "db\x1b[2J", Name: "db", FrameworkID: "f2", State: "TASK_STAGING", Node: "n2", NodeState: "dead", Healthy: proto.Bool(false)})
	c.tell()
	const header = "ID         NAME  STATE               HEALTH     FRAMEWORK  HOST   ADDRESS  CPUS  MEM     AGE\n"
	const db = "db\\x1b[2J  db    staging, node dead  unhealthy  f2         n2     -        -     -       -\n"
	const web = "web-1      web   running             -          demo       edge1  -        1     64 MiB  -\n"
	c.want(Task, 0, header+db+web, "", "ls")
	for _, args := range [][]string{{"--state", "running"}, {"--state=TASK_RUNNING"}, {"--node", "edge1"}, {"--node=5d7f"}, {"--framework", "demo"}, {"--framework=f1"}} {
		out, errs, code := c.run(Task, "", append([]string{"ls", "-o", "json"}, args...)...)
		var list []api.Task
		if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 1 || list[0].ID != "web-1" {
			t.Errorf("%q: code %d, %s %s", args, code, out, errs)
		}
	}
	out, errs, code := c.run(Task, "", "ls", "--state", "foo")
	if code != 2 || out != "" || !strings.Contains(errs, `--state "foo" is no state of a task; there are dropped, `) {
		t.Errorf("unknown state: code %d, %s %s", code, out, errs)
	}
}

func TestTaskIsFoundByWhatPeopleType(t *testing.T) {
	c := newCluster(t, nil)
	other := c.tasks[0]
	other.ID, other.Host = "web-10", "edge2"
	third := c.tasks[0]
	third.ID, third.Name, third.FrameworkID = "batch-1", "batch", "f2"
	c.tasks = append(c.tasks, other, third)
	var all frameworkChoice
	for asked, want := range map[string]string{"web-1": "web-1", "web-10": "web-10", "batch": "batch-1", "ba": "batch-1"} {
		if got, err := all.pick(asked, c.tasks); err != nil || got.ID != want {
			t.Errorf("%q is %+v, %v; want %s", asked, got, err, want)
		}
	}
	for asked, want := range map[string]string{
		"web": `"web" may be any of: web-1 (demo, on edge1), web-10 (demo, on edge2)`,
		"w":   `"w" may be any of: `, "none": `no task "none" is known`,
	} {
		if _, err := all.pick(asked, c.tasks); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", asked, err, want)
		}
	}
}

// A task id is unique within its framework only.
func TestTaskOfOneOfTwoFrameworks(t *testing.T) {
	c := newCluster(t, nil)
	same := c.tasks[0]
	same.FrameworkID, same.Framework = "g2", "other"
	c.tasks = append(c.tasks, same)
	var all frameworkChoice
	if _, err := all.pick("web-1", c.tasks); err == nil || !strings.HasSuffix(err.Error(), "; --framework says whose is meant") {
		t.Errorf("without a framework: %v", err)
	}
	for framework, want := range map[string]string{"other": "g2", "g": "g2", "demo": c.tasks[0].FrameworkID} {
		of := frameworkChoice{framework}
		if got, err := of.pick("web-1", c.tasks); err != nil || got.FrameworkID != want {
			t.Errorf("of %s: %+v, %v; want that of %s", framework, got, err, want)
		}
	}
	none := frameworkChoice{"none"}
	if _, err := none.pick("web-1", c.tasks); err == nil || err.Error() != `no task "web-1" of framework "none" is known` {
		t.Errorf("of a framework that there is not: %v", err)
	}
}

func TestHealthOfATask(t *testing.T) {
	for _, tc := range []struct {
		task api.Task
		want string
	}{
		{api.Task{State: "TASK_RUNNING", Checked: true, Healthy: proto.Bool(true)}, "healthy"},
		{api.Task{State: "TASK_RUNNING", Checked: true, Healthy: proto.Bool(false)}, "unhealthy"},
		{api.Task{State: "TASK_RUNNING", Checked: true}, "waiting"},
		{api.Task{State: "TASK_RUNNING"}, ""},
		{api.Task{State: "TASK_FAILED", Checked: true, Healthy: proto.Bool(true)}, ""},
		{api.Task{State: "TASK_FAILED", Checked: true}, ""},
	} {
		tc.task.NodeState = "alive"
		if row := taskRow(&tc.task, time.Now()); row[3] != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.task, row[3], tc.want)
		}
	}
}

func TestTaskFiles(t *testing.T) {
	c := newCluster(t, nil)
	if err := os.MkdirAll(filepath.Join(c.sandbox, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.sandbox, "d", "x\x1by"), []byte("a\x00b"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := c.run(Task, "", "files", "web")
	if code != 0 || !strings.Contains(out, "drwxr-xr-x") || !strings.Contains(out, "  d/\n") || !strings.Contains(out, "  stdout\n") {
		t.Errorf("code %d, %s%s", code, out, errs)
	}
	if out, _, code = c.run(Task, "", "files", "web", "d"); code != 0 || !strings.Contains(out, `d/x\x1by`) {
		t.Errorf("a folder: code %d, %s", code, out)
	}
	if out, _, code = c.run(Task, "", "files", "web", "d", "-o", "json"); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("JSON: code %d, %s", code, out)
	}
	c.want(Task, 0, "a\x00b", "", "files", "web", "/d/x\x1by", "--get")
	c.want(Task, 1, "", `task "web-1" has no "none"`, "files", "web", "none", "--get")
	c.want(Task, 2, "", "--get needs the PATH", "files", "web", "--get")
	c.want(Task, 1, "", "has no \"etc/passwd\"", "files", "web", "../../../../../../../../etc/passwd", "--get")
}

// master takes operator calls, and says how far a drain is.
type master struct {
	*httptest.Server
	mu    sync.Mutex
	calls []*operator.Call
	state string
}

func newMaster(t *testing.T) *master {
	t.Helper()
	m := &master{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if r.URL.Path == "/slaves" {
			fmt.Fprintf(w, `{"slaves":[{"drain_info":{"state":%q}}]}`, m.state)
			m.state = "DRAINED"
			return
		}
		body, _ := io.ReadAll(r.Body)
		call := &operator.Call{}
		if err := codec.Protobuf.Unmarshal(body, call); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		m.calls = append(m.calls, call)
	}))
	t.Cleanup(m.Close)
	return m
}

func TestNodeCommands(t *testing.T) {
	c := newCluster(t, nil)
	c.want(Node, 1, "", "no master leads", "drain", "edge1")
	m := newMaster(t)
	m.state = "DRAINING"
	c.members = append(c.members,
		api.Member{Name: "m", Hostname: "edge1", State: "alive", Roles: []string{"master"}, Leader: &api.Leader{Epoch: 2, Address: m.Listener.Addr().String()}},
		api.Member{Name: "old", State: "alive", Leader: &api.Leader{Epoch: 1, Address: "127.0.0.1:1"}})
	c.tell()
	c.want(Node, 0, "node "+testAgent+" (edge1) is being drained\n", "", "drain", "edge1", "--max-grace", "30s")
	c.want(Node, 0, "node "+testAgent+" (edge1) is drained\n", "", "drain", "5d7f", "--wait", "--mark-gone")
	c.want(Node, 0, "node "+testAgent+" (edge1) is given tasks again\n", "", "activate", testAgent)
	c.want(Node, 1, "", `no node that runs tasks is known as "m"`, "drain", "m")
	c.want(Node, 2, "", "--max-grace -1s is negative", "drain", "edge1", "--max-grace=-1s")
	if len(m.calls) != 3 || m.calls[0].GetDrainAgent().GetMaxGracePeriod().GetSeconds() != 30 || m.calls[0].GetDrainAgent().GetMarkGone() ||
		!m.calls[1].GetDrainAgent().GetMarkGone() || m.calls[1].GetDrainAgent().MaxGracePeriod != nil ||
		m.calls[2].GetReactivateAgent().GetAgentId().GetValue() != testAgent {
		t.Errorf("calls: %v", m.calls)
	}
	out, errs, code := c.run(Node, "", "ls")
	if code != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(out, "edge1  alive") {
		t.Errorf("ls: %d %s%s", code, out, errs)
	}
}
