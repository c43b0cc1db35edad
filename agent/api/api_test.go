package api

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent"
	"starling/agent/containerizer/containerizertest"
	"starling/agent/inventory"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

const agentID = "5d7f2b7e-3c4b-4c55-9f6e-7d0f3a1b2c3d-S0"

type mesh struct{ *record.Map }

func (m mesh) Set(changes ...record.Assignment) uint64 { return m.Map.Set(time.Now(), changes...) }
func (m mesh) Delta(since uint64) []byte               { return m.Map.Delta(agentID, since) }

type reporter struct{}

func (reporter) Report(context.Context, string, *nodeapi.Report) error { return nil }

// served is an agent with its API on a real listener.
type served struct {
	t     testing.TB
	base  string
	addr  string
	fake  *containerizertest.Fake
	agent *agent.Agent
	// stop ends it, once.
	stop func()
}

// site is what outlives an agent: its disk, its mesh and its containers.
type site struct {
	t     testing.TB
	dir   string
	key   []byte
	level *slog.LevelVar
	mesh  mesh
	fake  *containerizertest.Fake
	lives int
	log   *slog.Logger
	// change changes the configuration of each agent.
	change func(*agent.Config)
}

func newSite(t testing.TB, key []byte) *site {
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	return &site{t: t, log: log, dir: t.TempDir(), key: key, level: new(slog.LevelVar), mesh: mesh{record.NewMap(agentID, 1)}, fake: containerizertest.NewFake()}
}

func serve(t *testing.T, key []byte) *served {
	t.Helper()
	return newSite(t, key).serve()
}

// build makes an agent and its API, which do not run yet.
func (site *site) build() (*Server, *agent.Agent) {
	t := site.t
	t.Helper()
	cfg := agent.DefaultConfig()
	cfg.NewID = func() string { return "other-S0" }
	total, err := resources.Parse("cpus:4;mem:4096;disk:10240;disk(db):100;ports:[31000-32000]", "*")
	if err != nil {
		t.Fatal(err)
	}
	attributes, err := inventory.ParseAttributes("rack:r1;level:2")
	if err != nil {
		t.Fatal(err)
	}
	if site.lives++; site.lives > 1 {
		site.fake = site.fake.Restart()
	}
	cfg.ID, cfg.WorkDir, cfg.Hostname, cfg.Address, cfg.Port = agentID, site.dir, "edge1", "127.0.0.1", 5051
	cfg.Resources, cfg.Attributes, cfg.Region, cfg.Zone = total, attributes, "eu", "cellar"
	cfg.Mesh, cfg.Reporter, cfg.Containerizer = site.mesh, reporter{}, site.fake
	cfg.SwitchUser, cfg.DiskReserve, cfg.Version, cfg.Flags = false, 0, "0.1", map[string]string{"port": "5051"}
	cfg.Log = site.log
	if site.change != nil {
		site.change(&cfg)
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	api, err := New(a, Config{Verifier: nodeapi.NewVerifier(nodeapi.OneKey(site.key), nil), Log: cfg.Log, Level: site.level})
	if err != nil {
		t.Fatal(err)
	}
	return api, a
}

// serve starts an agent, which ends with the test at the latest.
func (site *site) serve() *served {
	t := site.t
	t.Helper()
	api, a := site.build()
	s := &served{t: t, fake: site.fake, agent: a}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	s.base = "http://" + s.addr
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.agent.Run(ctx) }()
	go func() { ended <- api.Serve(ctx, ln) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(s.stop)
	s.wait("ready", func() bool { status, _ := s.get("/health"); return status == http.StatusOK })
	return s
}

func (s *served) wait(what string, holds func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *served) get(path string) (int, string) {
	s.t.Helper()
	resp, err := http.Get(s.base + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// object reads a JSON answer.
func (s *served) object(path string, into any) {
	s.t.Helper()
	status, body := s.get(path)
	if status != http.StatusOK {
		s.t.Fatalf("%s: status %d: %s", path, status, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		s.t.Fatalf("%s: %v in %s", path, err, body)
	}
}

// launch runs a task by the node protocol, as the leader does.
func (s *served) launch(key []byte, id string) {
	s.t.Helper()
	rs, err := resources.Parse("cpus:1;mem:64;ports:[31000-31001]", "*")
	if err != nil {
		s.t.Fatal(err)
	}
	client := nodeapi.NewClient(nodeapi.ClientConfig{Signer: nodeapi.NewSigner(nodeapi.OneKey(key), nil)})
	defer client.Close()
	reply, err := client.Call(s.t.Context(), s.addr, &nodeapi.Call{
		Epoch: 3, Leader: "127.0.0.1:5050", AgentId: agentID,
		Call: &nodeapi.Call_Launch{Launch: &nodeapi.Launch{
			Framework: &mesos.FrameworkInfo{
				Id: &mesos.FrameworkID{Value: proto.String("f1")}, Name: proto.String("demo"), User: proto.String("svc"), Roles: []string{"web"},
				Capabilities: []*mesos.FrameworkInfo_Capability{{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
			},
			Tasks: []*mesos.TaskInfo{{
				Name: proto.String("web"), TaskId: &mesos.TaskID{Value: &id}, AgentId: &mesos.AgentID{Value: proto.String(agentID)},
				Resources: rs.AllocatedTo("web").Proto(), Command: &mesos.CommandInfo{Value: proto.String("sleep 100")},
				Labels: &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String("a"), Value: proto.String("b")}}},
			}},
		}},
	})
	if err != nil || len(reply.GetDelta()) == 0 {
		s.t.Fatalf("launch: %v, delta of %d bytes", err, len(reply.GetDelta()))
	}
	s.wait("running", func() bool { return len(s.fake.Running()) == 1 })
	s.wait("told to run", func() bool { _, body := s.get("/state"); return strings.Contains(body, `"state":"TASK_RUNNING"`) })
}

func TestNodeProtocol(t *testing.T) {
	key := []byte("a key that is long enough for this")
	s := serve(t, key)
	s.launch(key, "t1")
	stranger := nodeapi.NewClient(nodeapi.ClientConfig{Signer: nodeapi.NewSigner(nodeapi.OneKey([]byte("another key, as long as the other")), nil)})
	defer stranger.Close()
	call := &nodeapi.Call{Epoch: 3, AgentId: agentID, Leader: "x:1", Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}
	if _, err := stranger.Call(t.Context(), s.addr, call); err == nil {
		t.Error("a call without the key was obeyed")
	}
	client := nodeapi.NewClient(nodeapi.ClientConfig{Signer: nodeapi.NewSigner(nodeapi.OneKey(key), nil)})
	defer client.Close()
	reply, err := client.Call(t.Context(), s.addr, call)
	if err != nil || len(reply.GetDescription().GetTasks()) != 1 || len(reply.GetDescription().GetFrameworks()) != 1 {
		t.Errorf("describe: got %v, %v", reply, err)
	}
	call.Epoch = 2
	if _, err := client.Call(t.Context(), s.addr, call); err == nil || !strings.Contains(err.Error(), "epoch is stale") {
		t.Errorf("a stale call: got %v", err)
	}
	call.Epoch, call.Call = 3, &nodeapi.Call_Apply{Apply: &nodeapi.Apply{
		Operations: []*mesos.Offer_Operation{{Type: mesos.Offer_Operation_LAUNCH.Enum()}}, Uuids: [][]byte{[]byte("0123456789abcdef")},
	}}
	reply, err = client.Call(t.Context(), s.addr, call)
	if err != nil || len(reply.GetOperations()) != 1 || reply.GetOperations()[0].GetState() != mesos.OperationState_OPERATION_ERROR {
		t.Errorf("an operation: got %v, %v", reply, err)
	}
}

func TestState(t *testing.T) {
	s := serve(t, nil)
	s.launch(nil, "t1")
	for _, path := range []string{"/state", "/state.json", "/slave(1)/state", "/slave%281%29/state", "/slave(1)/state.json"} {
		var v struct {
			Version, ID, PID, Hostname string
			Resources                  map[string]any
			Unreserved                 map[string]any            `json:"unreserved_resources"`
			Reserved                   map[string]map[string]any `json:"reserved_resources"`
			Attributes                 map[string]any
			Flags                      map[string]string
			Frameworks                 []struct {
				ID, Name  string
				Roles     []string
				Executors []struct {
					ID, Name, Source, Container, Directory string
					Tasks                                  []struct {
						ID, State, Role string
						ExecutorID      *string `json:"executor_id"`
						Resources       map[string]any
						Statuses        []map[string]any
						Labels          []map[string]string
					}
				}
			}
		}
		s.object(path, &v)
		if v.ID != agentID || v.PID != "slave(1)@127.0.0.1:5051" || v.Version != "1.11.0" || v.Hostname != "edge1" || v.Flags["port"] != "5051" {
			t.Errorf("%s: got %+v", path, v)
		}
		if v.Resources["cpus"] != 4.0 || v.Resources["disk"] != 10340.0 || v.Resources["ports"] != "[31000-32000]" ||
			v.Unreserved["disk"] != 10240.0 || v.Reserved["db"]["disk"] != 100.0 || v.Resources["gpus"] != 0.0 {
			t.Errorf("%s: resources: got %v, %v, %v", path, v.Resources, v.Unreserved, v.Reserved)
		}
		if v.Attributes["rack"] != "r1" || v.Attributes["level"] != 2.0 {
			t.Errorf("%s: attributes: got %v", path, v.Attributes)
		}
		if len(v.Frameworks) != 1 || len(v.Frameworks[0].Executors) != 1 || len(v.Frameworks[0].Executors[0].Tasks) != 1 {
			t.Fatalf("%s: frameworks: got %+v", path, v.Frameworks)
		}
		e := v.Frameworks[0].Executors[0]
		task := e.Tasks[0]
		if e.ID != "t1" || e.Source != "t1" || e.Name != "Command Executor (Task: t1) (Command: sh -c 'sleep 100')" ||
			filepath.Base(e.Directory) != e.Container {
			t.Errorf("%s: executor: got %+v", path, e)
		}
		if task.State != "TASK_RUNNING" || task.Role != "web" || task.ExecutorID == nil || *task.ExecutorID != "" ||
			task.Resources["ports"] != "[31000-31001]" || len(task.Statuses) != 2 || task.Labels[0]["key"] != "a" {
			t.Errorf("%s: task: got %+v", path, task)
		}
	}
	if _, body := s.get("/state?jsonp=show"); !strings.HasPrefix(body, "show({") {
		t.Errorf("jsonp: got %.40q", body)
	}
}

func TestEndpoints(t *testing.T) {
	s := serve(t, nil)
	s.launch(nil, "t1")
	for _, tc := range []struct {
		path string
		code int
		has  []string
	}{
		{"/health", 200, nil},
		{"/slave(1)/health", 200, nil},
		{"/version", 200, []string{`"version":"1.11.0"`, `"starling_version":"0.1"`}},
		{"/flags", 200, []string{`{"flags":{"port":"5051"}}`}},
		{"/metrics/snapshot", 200, []string{`"slave/tasks_running":1.0`, `"slave/cpus_total":4.0`, `"slave/cpus_used":1.0`, `"slave/cpus_percent":0.25`, `"slave/registered":1.0`}},
		{"/metrics/prometheus", 200, []string{`starling_agent_tasks{state="running"} 1`, "starling_agent_epoch 3", "starling_agent_containerizer_answers 1"}},
		{"/containers", 200, []string{`"executor_id":"t1"`, `"cpus_user_time_secs":1.0`, `"container_id":{"value":`}},
		{"/containers?framework_id=other", 200, []string{"[]"}},
		{"/monitor/statistics.json", 200, []string{`"mem_limit_bytes":100663296`, `"cpus_limit":1.1`, `"source":"t1"`}},
		{"/nothing", 404, []string{"404 Not Found."}},
		{"/", 404, nil},
		{"/node/v1/call", 405, nil},
	} {
		code, body := s.get(tc.path)
		if code != tc.code {
			t.Errorf("%s: got %d, want %d: %s", tc.path, code, tc.code, body)
		}
		for _, text := range tc.has {
			if !strings.Contains(body, text) {
				t.Errorf("%s: no %q in %s", tc.path, text, body)
			}
		}
		if strings.HasSuffix(tc.path, "/health") && body != "" {
			t.Errorf("%s: got a body, %q", tc.path, body)
		}
	}
}

func TestFiles(t *testing.T) {
	s := serve(t, nil)
	s.launch(nil, "t1")
	spec, ok := s.fake.Launched(s.fake.Running()[0])
	if !ok {
		t.Fatal("nothing was launched")
	}
	long := strings.Repeat("x", readMax+10)
	for name, text := range map[string]string{"stdout": "hello <world>\n", "long": long, "binary": "a\xffb", "page.html": "<p>"} {
		if err := os.WriteFile(filepath.Join(spec.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	q := func(endpoint, name, rest string) string {
		return "/files/" + endpoint + "?path=" + url.QueryEscape(spec.Dir+name) + rest
	}
	for _, tc := range []struct {
		path, want string
		code       int
	}{
		{q("read", "/stdout", "&offset=0"), `{"data":"hello <world>\n","offset":0}`, 200},
		{q("read", "/stdout", "&offset=6&length=3"), `{"data":"<wo","offset":6}`, 200},
		{q("read", "/stdout", ""), `{"data":"","offset":14}`, 200},
		{q("read", "/stdout", "&offset=-1"), `{"data":"","offset":14}`, 200},
		{q("read", "/stdout", "&offset=99"), `{"data":"","offset":99}`, 200},
		{q("read", "/stdout", "&offset=-2"), "Negative offset provided: -2.", 400},
		{q("read", "/stdout", "&offset=x"), "Failed to parse offset: 'x' is not a number.", 400},
		{q("read", "/binary", "&offset=0"), `{"data":"a` + "\uFFFD" + `b","offset":0}`, 200},
		{q("read", "", "&offset=0"), "Cannot read a directory.", 400},
		{q("read", "/nothing", "&offset=0"), "404 Not Found.", 404},
		{"/files/read?path=%2Fetc%2Fpasswd&offset=0", "404 Not Found.", 404},
		{"/files/read", "Expecting 'path=value' in query.", 400},
		{"/files/browse", "Expecting 'path=value' in query.", 400},
		{q("download", "/stdout", ""), "hello <world>\n", 200},
		{q("download", "/long", ""), long, 200},
		{q("download", "", ""), "Cannot download a directory.", 400},
		{"/slave(1)" + strings.TrimPrefix(q("read", "/stdout", "&offset=0"), ""), `{"data":"hello <world>\n","offset":0}`, 200},
	} {
		code, body := s.get(tc.path)
		if code != tc.code || body != tc.want {
			t.Errorf("%s: got %d %.80q, want %d %.80q", tc.path, code, body, tc.code, tc.want)
		}
	}
	if _, body := s.get(q("read", "/long", "&offset=0")); len(body) > readMax+40 || len(body) < readMax {
		t.Errorf("a long read answered %d bytes", len(body))
	}
	var list []struct {
		Path, Mode, UID string
		Size            int64
		Links           int `json:"nlink"`
	}
	s.object("/files/browse.json?path="+url.QueryEscape("/frameworks/f1/executors/t1/runs/latest"), &list)
	if len(list) != 5 || list[4].Path != "/frameworks/f1/executors/t1/runs/latest/stdout" || list[4].Size != 14 || list[4].Mode != "-rw-r--r--" || list[4].Links != 1 {
		t.Errorf("browse: got %+v", list)
	}
	var debug map[string]string
	s.object("/files/debug", &debug)
	if debug["/frameworks/f1/executors/t1/runs/latest"] != spec.Dir {
		t.Errorf("debug: got %v", debug)
	}
	resp, err := http.Get(s.base + q("download", "/page.html", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Disposition"); got != "attachment; filename=page.html" {
		t.Errorf("disposition: got %q", got)
	}
}
