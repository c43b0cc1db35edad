package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/agent"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/agent"
)

// patience bounds every wait of these tests.
const patience = time.Minute

// post sends a body to the operator API.
func (s *served) post(body string, header ...string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.base+"/api/v1", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

// expect makes a call whose answer has a status and a text; an empty text stands for an empty answer.
func (s *served) expect(body string, status int, has string) string {
	s.t.Helper()
	code, got := s.post(body)
	if code != status || (has == "") != (got == "") || !strings.Contains(got, has) {
		s.t.Errorf("%s: %d %q, want %d with %q", body, code, got, status, has)
	}
	return got
}

// container is the id of the container of the one task that runs.
func (s *served) container() string {
	s.t.Helper()
	running := s.fake.Running()
	if len(running) == 0 {
		s.t.Fatal("nothing runs")
	}
	return running[0]
}

func TestEveryCallHasARow(t *testing.T) {
	for number, name := range operator.Call_Type_name {
		row, ok := operatorCalls[operator.Call_Type(number)]
		if !ok {
			t.Errorf("%s has no row", name)
			continue
		}
		fields := (&operator.Call{}).ProtoReflect().Descriptor().Fields()
		if row.needs != "" && fields.ByName(row.needs) == nil {
			t.Errorf("%s needs %q, which calls do not have", name, row.needs)
		}
		if row.show != nil || row.ofState != nil {
			if _, ok := operator.Response_Type_value[name]; !ok {
				t.Errorf("%s is answered, and there is no such response", name)
			}
		}
	}
}

func TestOperatorCalls(t *testing.T) {
	s := serve(t, nil)
	s.launch(nil, "t1")
	dir := "/frameworks/f1/executors/t1/runs/latest"
	spec, _ := s.fake.Launched(s.container())
	if err := os.WriteFile(filepath.Join(spec.Dir, "stdout"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const invalid = "Failed to validate agent::Call: Expecting "
	for _, tc := range []struct {
		body   string
		status int
		has    string
	}{
		{`{"type":"GET_HEALTH"}`, 200, `{"type":"GET_HEALTH","get_health":{"healthy":true}}`},
		{`{"type":"GET_FLAGS"}`, 200, `"flags":[{"name":"port","value":"5051"}]`},
		{`{"type":"GET_VERSION"}`, 200, `"version":"1.11.0"`},
		{`{"type":"GET_METRICS","get_metrics":{"timeout":{"nanoseconds":5000000000}}}`, 200, `{"name":"slave/tasks_running","value":1.0}`},
		{`{"type":"GET_METRICS"}`, 400, invalid + "'get_metrics' to be present"},
		{`{"type":"GET_LOGGING_LEVEL"}`, 200, `{"level":0}`},
		{`{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":60000000000}}}`, 200, ""},
		{`{"type":"GET_LOGGING_LEVEL"}`, 200, `{"level":1}`},
		{`{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":0,"duration":{"nanoseconds":0}}}`, 200, ""},
		{`{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1}}`, 400, "Missing required fields: set_logging_level.duration"},
		{`{"type":"LIST_FILES","list_files":{"path":"` + dir + `"}}`, 200, `"path":"` + dir + `/stdout","nlink":1,"size":6`},
		{`{"type":"LIST_FILES","list_files":{"path":"/nothing"}}`, 404, "404 Not Found."},
		{`{"type":"READ_FILE","read_file":{"path":"` + dir + `/stdout","offset":1,"length":3}}`, 200, `"read_file":{"size":6,"data":"ZWxs"}`},
		{`{"type":"READ_FILE","read_file":{"path":"` + dir + `/stdout","offset":9}}`, 200, `"size":6,"data":""`},
		{`{"type":"READ_FILE","read_file":{"path":"` + dir + `","offset":0}}`, 400, "Cannot read a directory."},
		{`{"type":"GET_STATE"}`, 200, `"get_frameworks":{"frameworks":[{"framework_info":`},
		{`{"type":"GET_FRAMEWORKS"}`, 200, `"id":{"value":"f1"}`},
		{`{"type":"GET_EXECUTORS"}`, 200, `"executor_id":{"value":"t1"}`},
		{`{"type":"GET_TASKS"}`, 200, `"launched_tasks":[{`},
		{`{"type":"GET_TASKS"}`, 200, `"terminated_tasks":[]`},
		{`{"type":"GET_OPERATIONS"}`, 200, `"get_operations":{"operations":[]}`},
		{`{"type":"GET_AGENT"}`, 200, `"agent_info":{"hostname":"edge1"`},
		{`{"type":"GET_RESOURCE_PROVIDERS"}`, 200, `"get_resource_providers":{"resource_providers":[]}`},
		{`{"type":"GET_CONTAINERS"}`, 200, `"executor_id":{"value":"t1"}`},
		{`{"type":"PRUNE_IMAGES"}`, 200, ""},
		{`{"type":"ADD_RESOURCE_PROVIDER_CONFIG"}`, 400, invalid + "'add_resource_provider_config' to be present"},
		{`{"type":"MARK_RESOURCE_PROVIDER_GONE","mark_resource_provider_gone":{"resource_provider_id":{"value":"x"}}}`, 400, noProviders},
		{`{"type":"UNKNOWN"}`, 501, "501 Not Implemented."},
		{`{"type":"NONSENSE"}`, 400, invalid + "'type' to be present"},
		{`{}`, 400, invalid + "'type' to be present"},
		{`{`, 400, "Failed to parse body into JSON: "},
		{`{"type":1}`, 400, "Failed to convert JSON into Call protobuf: "},
		{`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"none"}}}`, 404, "Container cannot be found"},
		{`{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"none"}}}`, 404, "Container cannot be found"},
		{`{"type":"REMOVE_CONTAINER","remove_container":{"container_id":{"value":"none"}}}`, 200, ""},
		{`{"type":"ATTACH_CONTAINER_OUTPUT","attach_container_output":{"container_id":{"value":"none"}}}`, 404, "Container cannot be found"},
		{`{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"CONTAINER_ID"}}`, 415, "Expecting 'Content-Type' of application/recordio"},
		{`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"a.b"},"command":{"value":"true"}}}`, 400, "contains invalid characters"},
		{`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":""},"command":{"value":"true"}}}`, 400, "must be non-empty"},
		{`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"` + strings.Repeat("x", 243) + `"},"command":{"value":"true"}}}`, 400, "must not be longer than 242"},
		{`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"c"}}}`, 400, "at least one"},
		{`{"type":"LAUNCH_NESTED_CONTAINER","launch_nested_container":{"container_id":{"value":"c"},"command":{"value":"true"}}}`, 400, "parent' to be present"},
		{`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"c","parent":{"value":"none"}},"command":{"value":"true"}}}`, 400, "the parent container 'none' is not running"},
		{`{"type":"LAUNCH_NESTED_CONTAINER_SESSION","launch_nested_container_session":{"container_id":{"value":"c"},"command":{"value":"true"}}}`, 400, "'container_id.parent' must be set"},
	} {
		s.expect(tc.body, tc.status, tc.has)
	}
	for _, tc := range []struct {
		name   string
		header []string
		status int
		has    string
	}{
		{"another type", []string{"Content-Type", "text/plain"}, 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"},
		{"an answer that we do not have", []string{"Accept", "text/html"}, 406, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"},
		{"records where there are none", []string{"Accept", "application/recordio"}, 406, "this call is not answered with application/recordio"},
		{"a type of records without records", []string{"Message-Accept", "application/json"}, 406, "Expecting 'Accept' to be application/recordio"},
		{"a type of records of a plain body", []string{"Message-Content-Type", "application/json"}, 415, "Expecting 'Content-Type' to be application/recordio"},
		{"a stream without its type", []string{"Content-Type", "application/recordio"}, 400, "Expecting 'Message-Content-Type' to be set for streaming requests"},
		{"a stream of another type", []string{"Content-Type", "application/recordio", "Message-Content-Type", "text/plain"}, 415, "Expecting 'Message-Content-Type' of"},
	} {
		if code, got := s.post(`{"type":"GET_HEALTH"}`, tc.header...); code != tc.status || !strings.Contains(got, tc.has) {
			t.Errorf("%s: %d %q, want %d with %q", tc.name, code, got, tc.status, tc.has)
		}
	}
	if code, got := s.get("/slave(1)/api/v1"); code != 405 || got != "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'." {
		t.Errorf("GET: %d %q", code, got)
	}
}

func TestOperatorCallsInProtobuf(t *testing.T) {
	s := serve(t, nil)
	body, err := codec.Protobuf.Marshal(&operator.Call{Type: operator.Call_GET_AGENT.Enum()})
	if err != nil {
		t.Fatal(err)
	}
	code, got := s.post(string(body), "Content-Type", codec.TypeProtobuf, "Accept", codec.TypeProtobuf)
	answer := &operator.Response{}
	if err := codec.Protobuf.Unmarshal([]byte(got), answer); code != 200 || err != nil || answer.GetGetAgent().GetAgentInfo().GetId().GetValue() != agentID {
		t.Errorf("GET_AGENT: %d %v, %v", code, answer, err)
	}
}

func TestNestedContainer(t *testing.T) {
	s := serve(t, nil)
	s.launch(nil, "t1")
	parent := s.container()
	id := func(name string) string {
		return `"container_id":{"value":"` + name + `","parent":{"value":"` + parent + `"}}`
	}
	call := func(kind, member string) string {
		return `{"type":"` + kind + `","` + strings.ToLower(kind) + `":{` + member + `}}`
	}
	command := `,"command":{"value":"sleep 9"}`
	s.expect(call("LAUNCH_NESTED_CONTAINER", id("n1")+command), 200, "")
	s.expect(call("LAUNCH_CONTAINER", id("n1")+command), 202, "")
	spec, ok := s.fake.Launched(parent + ".n1")
	if !ok || spec.Parent != parent || !strings.HasSuffix(spec.Dir, parent+"/containers/n1") || spec.Args[2] != "sleep 9" {
		t.Fatalf("launched: %+v", spec)
	}
	if of, _ := s.fake.Launched(parent); of.Limits.MemBytes == 0 || spec.Limits != of.Limits {
		t.Errorf("limits: got %+v, want those of the task, %+v", spec.Limits, of.Limits)
	}
	s.expect(call("REMOVE_NESTED_CONTAINER", id("n1")), 500, "has not ended")
	all := s.expect(`{"type":"GET_CONTAINERS","get_containers":{"show_nested":true}}`, 200, `"parent":{"value":"`+parent+`"}`)
	if strings.Count(all, "resource_statistics") != 2 {
		t.Errorf("containers: %s", all)
	}
	if got := s.expect(`{"type":"GET_CONTAINERS"}`, 200, parent); strings.Contains(got, "n1") {
		t.Errorf("a nested container is shown unasked: %s", got)
	}
	waited := make(chan string, 1)
	go func() {
		defer close(waited)
		_, got := s.post(call("WAIT_NESTED_CONTAINER", id("n1")))
		waited <- got
	}()
	s.expect(call("KILL_NESTED_CONTAINER", id("n1")+`,"signal":15`), 200, "")
	if got, want := <-waited, `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"exit_status":15}}`; got != want {
		t.Errorf("WAIT: got %s, want %s", got, want)
	}
	s.expect(call("KILL_NESTED_CONTAINER", id("n1")), 404, "cannot be found")
	s.expect(call("WAIT_CONTAINER", id("n1")), 200, `"wait_container":{"exit_status":15}`)
	s.expect(call("REMOVE_CONTAINER", id("n1")), 200, "")
	s.expect(call("WAIT_CONTAINER", id("n1")), 404, "cannot be found")
	if _, err := os.Stat(spec.Dir); !os.IsNotExist(err) {
		t.Errorf("the sandbox is still there: %v", err)
	}

	// A nested container ends with its parent.
	s.expect(call("LAUNCH_CONTAINER", id("n2")+command), 200, "")
	if err := s.fake.Exit(parent, 0); err != nil {
		t.Fatal(err)
	}
	s.wait("the end of what was nested", func() bool { return len(s.fake.Running()) == 0 })
	s.wait("nothing known of it", func() bool { code, _ := s.post(call("WAIT_CONTAINER", id("n2"))); return code == 404 })
}

func TestStandaloneContainer(t *testing.T) {
	s := serve(t, nil)
	s.expect(`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"alone"},"command":{"shell":false,"value":"/bin/sleep","arguments":["sleep","9"]},
		"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.5}},{"name":"mem","type":"SCALAR","scalar":{"value":32}}],"limits":{"mem":{"value":64}}}}`, 200, "")
	spec, _ := s.fake.Launched("alone")
	if spec.Limits.CPUs != 0.5 || spec.Limits.MemBytes != 32<<20 || spec.Limits.MemLimit != 64<<20 || spec.Path != "/bin/sleep" || spec.Args[1] != "9" {
		t.Errorf("launched: %+v", spec)
	}
	if _, got := s.get("/containers?show_standalone=true"); !strings.Contains(got, `"container_id":"alone"`) || strings.Contains(got, "framework_id") {
		t.Errorf("/containers: %s", got)
	}
	if _, got := s.get("/containers"); got != "[]" {
		t.Errorf("/containers: %s", got)
	}
	if err := s.fake.OOM("alone"); err != nil {
		t.Fatal(err)
	}
	wait := `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"alone"}}}`
	s.expect(wait, 200, `"exit_status":9,"state":"TASK_FAILED","reason":"REASON_CONTAINER_LIMITATION_MEMORY"`)
	// What it has written can be read until it is removed.
	s.expect(`{"type":"LIST_FILES","list_files":{"path":"`+spec.Dir+`"}}`, 200, spec.Dir+"/stdout")
	s.expect(`{"type":"REMOVE_CONTAINER","remove_container":{"container_id":{"value":"alone"}}}`, 200, "")
	s.expect(wait, 404, "cannot be found")
	s.fake.LaunchErr = nil
	s.expect(`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"alone"},"command":{"value":"true"}}}`, 200, "")
}

// Nested containers outlive the agent; what ended meanwhile is told to whoever asks.
func TestNestedContainersOutliveTheAgent(t *testing.T) {
	site := newSite(t, nil)
	s := site.serve()
	s.launch(nil, "t1")
	parent := s.container()
	for _, id := range []string{`{"value":"n1","parent":{"value":"` + parent + `"}}`, `{"value":"alone"}`, `{"value":"gone"}`} {
		s.expect(`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":`+id+`,"command":{"value":"sleep 9"}}}`, 200, "")
	}
	out := s.open(launchSession(parent, "s1", false), codec.JSON)
	s.stop()
	if _, err := out.next(); err == nil {
		t.Error("a session outlives the agent")
	}
	if err := site.fake.Exit("gone", 3<<8); err != nil {
		t.Fatal(err)
	}
	s = site.serve()
	var got struct {
		GetContainers struct {
			Containers []struct {
				ContainerID struct{ Value string } `json:"container_id"`
			}
		} `json:"get_containers"`
	}
	text := s.expect(`{"type":"GET_CONTAINERS","get_containers":{"show_nested":true,"show_standalone":true}}`, 200, "n1")
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.GetContainers.Containers) != 3 {
		t.Errorf("containers: %s, %v", text, err)
	}
	s.expect(`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"gone"}}}`, 200, `"exit_status":768`)
	s.expect(`{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"alone"},"signal":9}}`, 200, "")
	s.expect(`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"alone"}}}`, 200, fmt.Sprintf(`"exit_status":%d`, syscall.SIGKILL))
	s.stop()
	s = site.serve()
	s.expect(`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"alone"}}}`, 200, `"exit_status":9`)
}

// Whoever is not root in a container is not root in what is nested in that, over restarts of the agent too.
func TestWhatIsNestedKeepsItsUser(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	site := newSite(t, nil)
	site.change = func(c *agent.Config) { c.SwitchUser = true }
	s := site.serve()
	launch := func(name, parent, command, want string) {
		t.Helper()
		s.expect(`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"`+name+`"`+parent+`},"command":{`+command+`"value":"sleep 9"}}}`, 200, "")
		if spec, ok := s.fake.Launched(want); !ok || spec.User != me.Username {
			t.Errorf("%s runs as %q", want, spec.User)
		}
	}
	launch("a", "", `"user":"`+me.Username+`",`, "a")
	launch("b", `,"parent":{"value":"a"}`, "", "a.b")
	s.stop()
	s = site.serve()
	launch("c", `,"parent":{"value":"b","parent":{"value":"a"}}`, "", "a.b.c")
	s.open(launchSession("a", "s", false), codec.JSON)
	launch("d", `,"parent":{"value":"s","parent":{"value":"a"}}`, "", "a.s.d")
}

func TestCallsWaitForRecovery(t *testing.T) {
	site := newSite(t, nil)
	api, a := site.build()
	defer a.Close()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "/api/v1", strings.NewReader(`{"type":"GET_HEALTH"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "x"
	req.Header.Set("Content-Type", "application/json")
	resp, err := api.App().Test(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 503 || string(text) != "Agent has not finished recovery" {
		t.Errorf("got %d %q", resp.StatusCode, text)
	}
}
