package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/nodeapi"
)

var update = flag.Bool("update", false, "write the golden files anew; commit them only if every changed line can be explained")

// volatile is what differs from run to run, and what stands for it.
var volatile = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-S0)?`), "<id>$1"},
	{regexp.MustCompile(`"uuid": "[^"]*"`), `"uuid": "<uuid>"`},
	{regexp.MustCompile(`"status_update_uuid": "[^"]*"`), `"status_update_uuid": "<uuid>"`},
	{regexp.MustCompile(`"(timestamp|start_time|estimated_drain_start_time_seconds)": [0-9.]+`), `"$1": 1.5`},
	{regexp.MustCompile(`"(executor_pid|nanoseconds)": [0-9]+`), `"$1": 7`},
	{regexp.MustCompile(`/[^" ]*/(slaves|containers)/`), "<dir>/$1/"},
}

// TestAnswersAreAsTheyWere fails for a member too many and for one too few, in any answer.
func TestAnswersAreAsTheyWere(t *testing.T) {
	s := serve(t, nil)
	s.launch(nil, "t1")
	parent := s.container()
	s.expect(`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"n1","parent":{"value":"`+parent+`"}},"command":{"value":"sleep 9"}}}`, 200, "")
	s.expect(`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"standalone"},"command":{"value":"sleep 9"}}}`, 200, "")
	for name, ask := range map[string]func() (int, string){
		"state":       func() (int, string) { return s.get("/state") },
		"containers":  func() (int, string) { return s.get("/containers?show_nested=true&show_standalone=true") },
		"statistics":  func() (int, string) { return s.get("/monitor/statistics") },
		"version":     func() (int, string) { return s.get("/version") },
		"flags":       func() (int, string) { return s.get("/flags") },
		"GET_STATE":   func() (int, string) { return s.post(`{"type":"GET_STATE"}`) },
		"GET_AGENT":   func() (int, string) { return s.post(`{"type":"GET_AGENT"}`) },
		"GET_VERSION": func() (int, string) { return s.post(`{"type":"GET_VERSION"}`) },
		"GET_CONTAINERS": func() (int, string) {
			return s.post(`{"type":"GET_CONTAINERS","get_containers":{"show_nested":true,"show_standalone":true}}`)
		},
	} {
		code, body := ask()
		if code != 200 {
			t.Errorf("%s: %d %s", name, code, body)
			continue
		}
		compareGolden(t, name, body)
	}
	// A node that is drained says so in two more members.
	if _, err := s.agent.Call(t.Context(), &nodeapi.Call{Epoch: 4, AgentId: agentID, Call: &nodeapi.Call_Drain{
		Drain: &nodeapi.Drain{MaxGracePeriod: proto.Int64(7), MarkGone: false},
	}}); err != nil {
		t.Fatal(err)
	}
	s.wait("the end of the task", func() bool { _, body := s.get("/metrics/snapshot"); return len(body) > 0 && s.killed() })
	_, body := s.get("/state")
	compareGolden(t, "state-drained", body)
	_, body = s.post(`{"type":"GET_AGENT"}`)
	compareGolden(t, "GET_AGENT-drained", body)
}

// killed tells whether the one task has been killed, as far as the agent knows.
func (s *served) killed() bool {
	st, err := s.agent.State(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range append(st.Frameworks, st.Completed...) {
		for _, e := range append(f.Executors, f.Completed...) {
			if e.Task.GetState() == mesos.TaskState_TASK_KILLED && st.Used.Empty() {
				return true
			}
		}
	}
	return false
}

func compareGolden(t *testing.T, name, body string) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(body), "", " "); err != nil {
		t.Fatalf("%s: %v in %s", name, err, body)
	}
	got := b.String() + "\n"
	for _, v := range volatile {
		got = v.pattern.ReplaceAllString(got, v.by)
	}
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
	}
}
