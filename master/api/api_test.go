package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master"
	"starling/master/api"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
	"starling/master/mesos/server"
	"starling/master/nodeapi"
)

// patience is how long anything may take that has to happen, on a busy machine too.
const patience = time.Minute

// site is a master behind a real port, and agents behind others.
type site struct {
	*mastertest.Cluster
	t      testing.TB
	addr   string
	node   *nodeapi.Client
	joined int // agents in the mesh
}

func start(t testing.TB, change func(*master.Config)) *site {
	t.Helper()
	return startWith(t, change, api.Config{})
}

// startWith serves with a configuration whose master and log are filled in.
func startWith(t testing.TB, change func(*master.Config), cfg api.Config) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, addr: ln.Addr().String(), node: nodeapi.NewClient(nodeapi.ClientConfig{})}
	t.Cleanup(s.node.Close)
	s.Cluster = mastertest.Start(t, nil, func(cfg *master.Config) {
		cfg.Hostname, cfg.Address, cfg.Port = "127.0.0.1", "127.0.0.1", ln.Addr().(*net.TCPAddr).Port
		cfg.Client = s.node
		cfg.Flags = map[string]string{"port": "5050"}
		cfg.Cluster = "edge"
		if change != nil {
			change(cfg)
		}
	})
	cfg.Master, cfg.Log = s.Master, slog.New(slog.NewTextHandler(t.Output(), nil))
	app := api.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, app, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server ended with: %v", err)
		}
	})
	return s
}

// lead elects the master and waits until it leads, and has heard from the mesh of the agents that joined before.
func (s *site) lead() {
	s.t.Helper()
	s.Elect()
	s.eventually("the master leads, and knows the agents", func() bool {
		if !s.Master.Standing().Leading {
			return false
		}
		v, err := s.Master.View(s.t.Context())
		return err == nil && len(v.Agents) == s.joined
	})
}

func (s *site) eventually(what string, is func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(time.Millisecond)
	}
}

// agent starts an agent that speaks the node protocol over HTTP.
func (s *site) agent(n int, res string) *mastertest.Agent {
	s.t.Helper()
	var a *mastertest.Agent
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.ServeHTTP(w, r)
		go func() { _ = a.Flush(context.Background()) }()
	}))
	s.t.Cleanup(srv.Close)
	a, err := mastertest.NewAgent(fmt.Sprintf("%s-S%d", mastertest.MasterID, n), srv.Listener.Addr().String(), res)
	if err != nil {
		s.t.Fatal(err)
	}
	a.Report = s.node.Report
	if err := a.Join(s.Mesh); err != nil {
		s.t.Fatal(err)
	}
	s.joined++
	return a
}

// framework is a scheduler of the v1 API over HTTP.
type framework struct {
	*client.Stream
	t  testing.TB
	id string
}

func (s *site) subscribe(cd codec.Codec, info *mesos.FrameworkInfo) *framework {
	s.t.Helper()
	c := client.New(client.Config{Masters: []string{s.addr}, Codec: cd})
	stream, err := c.Subscribe(s.t.Context(), &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: info.GetId(),
		Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: info},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { stream.Close(); c.Close() })
	f := &framework{Stream: stream, t: s.t}
	f.id = f.expect(scheduler.Event_SUBSCRIBED).GetSubscribed().GetFrameworkId().GetValue()
	return f
}

func (f *framework) expect(want scheduler.Event_Type) *scheduler.Event {
	f.t.Helper()
	stop := time.AfterFunc(patience, f.Close)
	defer stop.Stop()
	for {
		event, err := f.Next()
		if err != nil {
			f.t.Fatalf("want %s, got error: %v", want, err)
		}
		switch event.GetType() {
		case want:
			return event
		case scheduler.Event_HEARTBEAT:
		default:
			f.t.Fatalf("want %s, got %s", want, prototext.Format(event))
		}
	}
}

func (f *framework) call(call *scheduler.Call) {
	f.t.Helper()
	call.FrameworkId = &mesos.FrameworkID{Value: proto.String(f.id)}
	if err := f.Call(f.t.Context(), call); err != nil {
		f.t.Fatalf("%s: %v", call.GetType(), err)
	}
}

func sum(t *testing.T, rs []*mesos.Resource) string {
	t.Helper()
	r, err := resources.FromProto(rs)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("<%v CPUs, %v MB>", r.Scalar("cpus"), r.Scalar("mem"))
}

// The resource offer example, over HTTP, with one framework in JSON and one in protobuf: an agent has 4 CPUs and 4 GB.
// The first framework is offered all of it and launches tasks with <2 CPUs, 1 GB> and <1 CPU, 2 GB>; what is left,
// 1 CPU and 1 GB, is offered to the second.
func TestResourceOfferExample(t *testing.T) {
	s := start(t, nil)
	a := s.agent(1, "cpus:4;mem:4096")
	s.lead()
	first := s.subscribe(codec.JSON, mastertest.Info("first", nil))
	offers := first.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()
	if len(offers) != 1 || sum(t, offers[0].GetResources()) != "<4 CPUs, 4096 MB>" {
		t.Fatalf("first offers: %v", offers)
	}
	second := s.subscribe(codec.Protobuf, mastertest.Info("second", nil))
	tasks := []*mesos.TaskInfo{mastertest.Task("task1", "cpus:2;mem:1024"), mastertest.Task("task2", "cpus:1;mem:2048")}
	for _, task := range tasks {
		task.AgentId = offers[0].GetAgentId()
	}
	first.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{offers[0].GetId()},
		Operations: []*mesos.Offer_Operation{{
			Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks},
		}},
		Filters: &mesos.Filters{RefuseSeconds: proto.Float64(600)},
	}})
	rest := second.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()
	if len(rest) != 1 || sum(t, rest[0].GetResources()) != "<1 CPUs, 1024 MB>" {
		t.Errorf("second offers: %v", rest)
	}
	for range tasks {
		status := first.expect(scheduler.Event_UPDATE).GetUpdate().GetStatus()
		if status.GetState() != mesos.TaskState_TASK_RUNNING || len(status.GetUuid()) != 16 {
			t.Errorf("update: %v", status)
		}
		first.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{
			AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
		}})
	}
	// A third task, out of what the second framework was offered.
	third := mastertest.Task("task3", "cpus:1;mem:1024")
	third.AgentId = rest[0].GetAgentId()
	second.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{rest[0].GetId()},
		Operations: []*mesos.Offer_Operation{{
			Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{third}},
		}},
	}})
	if got := second.expect(scheduler.Event_UPDATE).GetUpdate().GetStatus().GetState(); got != mesos.TaskState_TASK_RUNNING {
		t.Errorf("third task: %s", got)
	}
	first.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{TaskId: tasks[0].GetTaskId()}})
	if got := first.expect(scheduler.Event_UPDATE).GetUpdate().GetStatus().GetState(); got != mesos.TaskState_TASK_KILLED {
		t.Errorf("killed task: %s", got)
	}
	for _, id := range []string{"task1", "task2"} {
		if got := a.Starts(first.id, id); got != 1 {
			t.Errorf("%s started %d times", id, got)
		}
	}
}

// do makes a request as it stands in a table: "POST /path", headers, body.
func (s *site) do(line, body string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	method, path, _ := strings.Cut(line, " ")
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	c := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(text)
}

const jsonType = "Content-Type: application/json"

// Each fault of a call has its status and its text, and the first one found is told.
func TestCallFaults(t *testing.T) {
	s := start(t, nil)
	s.agent(1, "cpus:4;mem:4096")
	s.lead()
	f := s.subscribe(codec.JSON, mastertest.Info("f", nil))
	id := `"framework_id":{"value":"` + f.id + `"}`
	stream := "Mesos-Stream-Id: " + f.ID()
	const path = "POST /api/v1/scheduler"
	for name, test := range map[string]struct {
		line, body string
		headers    []string
		status     int
		want       string
	}{
		"method":             {"GET /api/v1/scheduler", "", nil, 405, "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'."},
		"no content type":    {path, "{}", nil, 400, "Expecting 'Content-Type' to be present"},
		"other content type": {path, "{}", []string{"Content-Type: text/plain"}, 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"},
		"not JSON":           {path, "{", []string{jsonType}, 400, "Failed to parse body into JSON"},
		"not protobuf":       {path, "\xff", []string{"Content-Type: application/x-protobuf"}, 400, "Failed to parse body into Call protobuf"},
		"wrong type":         {path, `{"type":"KILL","kill":7}`, []string{jsonType}, 400, "Failed to convert JSON into Call protobuf"},
		"no type":            {path, `{}`, []string{jsonType}, 400, "Failed to validate scheduler::Call: Expecting 'type' to be present"},
		"no framework id":    {path, `{"type":"REVIVE"}`, []string{jsonType}, 400, "Failed to validate scheduler::Call: Expecting 'framework_id' to be present"},
		"no accept":          {path, `{"type":"ACCEPT",` + id + `}`, []string{jsonType, stream}, 400, "Failed to validate scheduler::Call: Expecting 'accept' to be present"},
		"short uuid": {
			path, `{"type":"ACKNOWLEDGE",` + id + `,"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AAAA"}}`,
			[]string{jsonType, stream},
			400, "Failed to validate scheduler::Call",
		},
		"unknown framework": {path, `{"type":"REVIVE","framework_id":{"value":"x"}}`, []string{jsonType, stream}, 400, "Framework cannot be found"},
		"no stream id":      {path, `{"type":"REVIVE",` + id + `}`, []string{jsonType}, 400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header"},
		"other stream id": {
			path, `{"type":"REVIVE",` + id + `}`,
			[]string{jsonType, "Mesos-Stream-Id: 1"},
			400,
			"The stream ID '1' included in this request didn't match the stream ID currently associated with framework ID " + f.id,
		},
		"subscribe with stream id": {
			path, `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n"}}}`,
			[]string{jsonType, stream},
			400, "Subscribe calls should not include the 'Mesos-Stream-Id' header",
		},
		"subscribe for text": {
			path, `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n"}}}`,
			[]string{jsonType, "Accept: text/plain"},
			406, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'",
		},
		"ids differ": {
			path, `{"type":"SUBSCRIBE","framework_id":{"value":"a"},"subscribe":{"framework_info":{"user":"u","name":"n","id":{"value":"b"}}}}`,
			[]string{jsonType},
			400, "Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'",
		},
		"unknown call":        {path, `{"type":"UNKNOWN",` + id + `}`, []string{jsonType, stream}, 501, "501 Not Implemented."},
		"accepted":            {path, `{"type":"REVIVE",` + id + `}`, []string{jsonType, stream}, 202, ""},
		"with prefix":         {"POST /master/api/v1/scheduler", `{"type":"SUPPRESS",` + id + `}`, []string{jsonType, stream}, 202, ""},
		"operator: no type":   {"POST /api/v1", `{}`, []string{jsonType}, 400, "Failed to validate master::Call: Expecting 'type' to be present"},
		"operator: sub":       {"POST /api/v1", `{"type":"GET_METRICS"}`, []string{jsonType}, 400, "Failed to validate master::Call: Expecting 'get_metrics' to be present"},
		"operator: accept":    {"POST /api/v1", `{"type":"GET_HEALTH"}`, []string{jsonType, "Accept: text/html"}, 406, "Expecting 'Accept'"},
		"operator: unserved":  {"POST /api/v1", `{"type":"UNKNOWN"}`, []string{jsonType}, 501, "501 Not Implemented."},
		"operator: no such":   {"POST /api/v1", `{"type":"TEARDOWN","teardown":{"framework_id":{"value":"x"}}}`, []string{jsonType}, 400, "No framework found with specified ID"},
		"operator: health":    {"POST /api/v1/operator", `{"type":"GET_HEALTH"}`, []string{jsonType}, 200, `{"type":"GET_HEALTH","get_health":{"healthy":true}}`},
		"teardown: no id":     {"POST /teardown", "x=y", nil, 400, "Missing 'frameworkId' query parameter in the request body"},
		"teardown: no such":   {"POST /master/teardown", "frameworkId=x", nil, 400, "No framework found with specified ID"},
		"no such path":        {"GET /nosuch", "", nil, 404, "404 Not Found."},
		"redirect must end":   {"GET /redirect/x", "", nil, 404, "404 Not Found."},
		"tasks: bad limit":    {"GET /tasks?limit=x", "", nil, 400, "Failed to parse query parameter 'limit'"},
		"report: unsigned ok": {"POST /node/v1/report", "\xff", nil, 400, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, text := s.do(test.line, test.body, test.headers...)
			if resp.StatusCode != test.status || !strings.Contains(text, test.want) {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, text, test.status, test.want)
			}
		})
	}
}

// A stream is chunked records of the asked type, with an id, SUBSCRIBED and a heartbeat at once.
func TestStreamOnTheWire(t *testing.T) {
	s := start(t, nil)
	s.lead()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr+"/api/v1/scheduler", strings.NewReader(
		"{\n \"type\": \"SUBSCRIBE\",\n \"framework_id\": null,\n \"subscribe\": {\"framework_info\": {\"user\": \"u\", \"name\": \"n\", \"id\": null}, \"suppressedRoles\": []}\n}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: got %q", got)
	}
	if len(resp.Header.Get("Mesos-Stream-Id")) != 36 || len(resp.TransferEncoding) != 1 {
		t.Errorf("header: %v, %v", resp.Header, resp.TransferEncoding)
	}
	r := bufio.NewReader(resp.Body)
	record := func() string {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if got, want := record(), `"framework_id":{"value":"`+mastertest.MasterID+`-0000"},"heartbeat_interval_seconds":15.0`; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s in it", got, want)
	}
	if got, want := record(), `{"type":"HEARTBEAT"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The state shows what DNS servers and dashboards look for, under all of its names.
func TestState(t *testing.T) {
	s := start(t, nil)
	s.agent(1, "cpus:4;mem:4096;ports:[31000-31004,31006-32000]")
	s.lead()
	f := s.subscribe(codec.JSON, mastertest.Info("f", []string{"web"}, mesos.FrameworkInfo_Capability_MULTI_ROLE))
	offer := f.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
	task := mastertest.Task("t.1", "cpus:1;mem:32;ports:[31000-31001]")
	task.AgentId = offer.GetAgentId()
	task.Labels = &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String("k"), Value: proto.String("<v>")}}}
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{offer.GetId()},
		Operations: []*mesos.Offer_Operation{{
			Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{task}},
		}},
		Filters: &mesos.Filters{RefuseSeconds: proto.Float64(600)},
	}})
	f.expect(scheduler.Event_UPDATE)
	_, text := s.do("GET /master/state.json", "")
	var state struct {
		Version, Leader, Cluster string
		Slaves                   []map[string]any
		Frameworks               []map[string]any
	}
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if state.Version != "1.11.0" || state.Leader != "master@"+s.addr || state.Cluster != "edge" {
		t.Errorf("got %+v", state)
	}
	for _, want := range []string{
		`"id":"t.1","name":"t.1","framework_id":"` + f.id + `","executor_id":"","slave_id":"` + offer.GetAgentId().GetValue() + `","state":"TASK_RUNNING"`,
		`"resources":{"cpus":1.0,"disk":0.0,"gpus":0.0,"mem":32.0,"ports":"[31000-31001]"},"role":"web"`,
		`"ports":"[31000-31004, 31006-32000]"`, `"roles":["web"]`, `"pid":"slave(1)@127.0.0.1:`, `"active":true`,
		`"orphan_tasks":[],"unregistered_frameworks":[]`, `"offer_constraints":{}`, `"labels":[{"key":"k","value":`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if _, has := state.Frameworks[0]["pid"]; has {
		t.Error("an HTTP framework has no pid")
	}
	for line, want := range map[string]string{
		"GET /state?jsonp=cb":                `^cb\(\{"version"`,
		"GET /slaves":                        `"used_resources_full":\[\{"name":"cpus"`,
		"GET /slaves?slave_id=x":             `^\{"slaves":\[\],"recovered_slaves":\[\]\}$`,
		"GET /frameworks/":                   `^\{"frameworks":\[\{"id"`,
		"GET /tasks.json":                    `^\{"tasks":\[\{"id":"t.1"`,
		"GET /tasks?task_id=x":               `^\{"tasks":\[\]\}$`,
		"GET /state-summary":                 `"TASK_RUNNING":1`,
		"GET /roles":                         `"name":"web","weight":1.0,"quota":\{"role":"web","guarantee":\{\},"limit":\{\},"consumed":\{"cpus":1.0,"mem":32.0\}\},"resources":\{"cpus":1.0,"mem":32.0\}`,
		"GET /flags":                         `^\{"flags":\{"port":"5050"\}\}$`,
		"GET /version":                       `^\{"version":"1.11.0"`,
		"GET /metrics/snapshot":              `"master/tasks_running":1.0`,
		"GET /master/metrics/snapshot":       `"master/elected":1.0`,
		"GET /metrics/prometheus":            `starling_master_tasks\{state="running"\} 1`,
		`POST /api/v1 {"type":"GET_STATE"}`:  `"task_id":\{"value":"t.1"\}`,
		`POST /api/v1 {"type":"GET_ROLES"}`:  `"name":"web"`,
		`POST /api/v1 {"type":"GET_MASTER"}`: `"elected_time":`,
		`POST /api/v1 {"type":"GET_AGENTS"}`: `"pid":"slave\(1\)@127`,
		`POST /api/v1 {"type":"GET_FLAGS"}`:  `"name":"port"`,
	} {
		line, body := cutBody(line)
		resp, text := s.do(line, body, jsonType)
		if resp.StatusCode != 200 || !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%s: got %d %s, want %s in it", line, resp.StatusCode, text, want)
		}
	}
}

func cutBody(line string) (request, body string) {
	if at := strings.Index(line, " {"); at > 0 {
		return line[:at], line[at+1:]
	}
	return line, ""
}

// A master that does not lead sends everyone to the one that does, and says so when there is none.
func TestNotLeading(t *testing.T) {
	s := start(t, nil)
	for _, line := range []string{"GET /state", "POST /api/v1/scheduler", "POST /api/v1", "GET /redirect", "GET /tasks"} {
		if resp, text := s.do(line, ""); resp.StatusCode != 503 || text != "No leader elected" {
			t.Errorf("%s without a leader: got %d %q", line, resp.StatusCode, text)
		}
	}
	other := record.NewMap("other", 1)
	value, err := proto.Marshal(&catalog.Leader{Epoch: 3, Hostname: "m2.example.com", Address: "10.0.0.2", Port: 5051, MasterId: "other"})
	if err != nil {
		t.Fatal(err)
	}
	other.Set(time.Now(), record.Assignment{Key: catalog.KeyLeader, Value: value})
	if err := s.Mesh.Apply(other.Delta("other", 0)); err != nil {
		t.Fatal(err)
	}
	s.Mesh.SetLiveness(time.Now(), "other", record.Alive)
	s.eventually("the leader is known", func() bool { return s.Master.Standing().Leader != nil })
	for line, want := range map[string]string{
		"GET /master/state?jsonp=x":     "//m2.example.com:5051/master/state?jsonp=x",
		"POST /api/v1/scheduler":        "//m2.example.com:5051/api/v1/scheduler",
		"GET /master/redirect":          "//m2.example.com:5051",
		"POST /master/api/v1/scheduler": "//m2.example.com:5051/master/api/v1/scheduler",
	} {
		resp, _ := s.do(line, "")
		if got := resp.Header.Get("Location"); resp.StatusCode != 307 || got != want {
			t.Errorf("%s: got %d to %q, want %q", line, resp.StatusCode, got, want)
		}
	}
	for _, line := range []string{"GET /health", "GET /master/health", "GET /version", "GET /flags", "GET /metrics/snapshot"} {
		if resp, _ := s.do(line, ""); resp.StatusCode != 200 {
			t.Errorf("%s: got %d", line, resp.StatusCode)
		}
	}
	if got := s.Master.EpochFloor(); got != 3 {
		t.Errorf("floor of epochs: got %d, want 3", got)
	}
}

// A master that has led shows what it knows until another leads, and says that it does not lead.
func TestLastLeaderGoesOnShowing(t *testing.T) {
	s := start(t, nil)
	s.agent(1, "cpus:4;mem:4096")
	s.lead()
	if resp, text := s.do("GET /state", ""); resp.StatusCode != 200 || resp.Header.Get("Warning") != "" || !strings.Contains(text, `"elected_time":`) {
		t.Errorf("the leader answers %d with Warning %q: %s", resp.StatusCode, resp.Header.Get("Warning"), text)
	}
	s.Lose()
	s.eventually("the master does not lead", func() bool { return !s.Master.Standing().Leading })
	for _, path := range []string{"/state", "/slaves", "/frameworks", "/tasks"} {
		resp, text := s.do("GET "+path, "")
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Warning"), "110 ") || strings.Contains(text, `"leader":`) || strings.Contains(text, `"elected_time":`) {
			t.Errorf("%s: got %d with Warning %q: %s", path, resp.StatusCode, resp.Header.Get("Warning"), text)
		}
	}
	for _, line := range []string{"POST /api/v1/scheduler", "POST /api/v1", "POST /teardown", "GET /redirect"} {
		if resp, text := s.do(line, ""); resp.StatusCode != 503 || text != "No leader elected" || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got %d %q", line, resp.StatusCode, text)
		}
	}
}

// A framework that leaves is noticed at once, and what it was offered goes to others.
func TestClientLeaves(t *testing.T) {
	s := start(t, nil)
	s.agent(1, "cpus:4;mem:4096")
	s.lead()
	first := s.subscribe(codec.JSON, mastertest.Info("first", nil))
	first.expect(scheduler.Event_OFFERS)
	second := s.subscribe(codec.JSON, mastertest.Info("second", nil))
	first.Close()
	second.expect(scheduler.Event_OFFERS)
}
