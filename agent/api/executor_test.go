package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/executor"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// employ launches a task on an executor of its own.
func (s *served) employ(framework, id, task string) {
	s.t.Helper()
	res := func(text string) []*mesos.Resource {
		r, err := resources.Parse(text, "*")
		if err != nil {
			s.t.Fatal(err)
		}
		return r.AllocatedTo("*").Proto()
	}
	e := &mesos.ExecutorInfo{
		ExecutorId: &mesos.ExecutorID{Value: &id}, FrameworkId: &mesos.FrameworkID{Value: &framework},
		Command: &mesos.CommandInfo{Value: proto.String("./executor")}, Resources: res("cpus:0.1;mem:32"),
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	_, err := s.agent.Call(ctx, &nodeapi.Call{Epoch: 1, Leader: "127.0.0.1:5050", AgentId: agentID, Call: &nodeapi.Call_Launch{Launch: &nodeapi.Launch{
		Framework: &mesos.FrameworkInfo{Id: e.FrameworkId, Name: proto.String("demo"), User: proto.String("")},
		Tasks: []*mesos.TaskInfo{{
			Name: &task, TaskId: &mesos.TaskID{Value: &task}, AgentId: &mesos.AgentID{Value: proto.String(agentID)},
			Resources: res("cpus:0.1;mem:32"), Executor: e,
		}},
	}}})
	if err != nil {
		s.t.Fatal(err)
	}
}

// tell posts a call of an executor and returns the answer's status and text.
func (s *served) tell(cd codec.Codec, call *executor.Call) (int, string) {
	s.t.Helper()
	body, err := cd.Marshal(call)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.postTo("/slave(1)/api/v1/executor", cd.ContentType(), "", body)
}

func (s *served) postTo(path, contentType, accept string, body []byte) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.base+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// events is a subscription.
type events struct {
	t    testing.TB
	cd   codec.Codec
	body io.ReadCloser
	r    *bufio.Reader
}

func (s *served) subscribe(cd codec.Codec, call *executor.Call) *events {
	s.t.Helper()
	body, err := cd.Marshal(call)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.base+"/api/v1/executor", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", cd.ContentType())
	req.Header.Set("Accept", cd.ContentType())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != cd.ContentType() || resp.Header.Get("Mesos-Stream-Id") != "" {
		text, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("got %d %s %s", resp.StatusCode, text, resp.Header)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	return &events{s.t, cd, resp.Body, bufio.NewReader(resp.Body)}
}

// want reads the next event, which must be of a kind.
func (e *events) want(kind executor.Event_Type) *executor.Event {
	e.t.Helper()
	line, err := e.r.ReadString('\n')
	if err != nil {
		e.t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
	if err != nil {
		e.t.Fatal(err)
	}
	record := make([]byte, n)
	if _, err := io.ReadFull(e.r, record); err != nil {
		e.t.Fatal(err)
	}
	event := new(executor.Event)
	if err := e.cd.Unmarshal(record, event); err != nil {
		e.t.Fatal(err)
	}
	if event.GetType() != kind {
		e.t.Fatalf("got %v, want %s", event, kind)
	}
	return event
}

func executorCall(kind executor.Call_Type, id string) *executor.Call {
	return &executor.Call{
		Type: kind.Enum(), ExecutorId: &mesos.ExecutorID{Value: &id}, FrameworkId: &mesos.FrameworkID{Value: proto.String("f1")},
	}
}

func updateCall(id, task string) *executor.Call {
	call := executorCall(executor.Call_UPDATE, id)
	call.Update = &executor.Call_Update{Status: &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: &task}, State: mesos.TaskState_TASK_RUNNING.Enum(), Uuid: []byte("0123456789abcdef"),
		Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(),
	}}
	return call
}

func TestExecutorStream(t *testing.T) {
	for _, cd := range []codec.Codec{codec.JSON, codec.Protobuf} {
		t.Run(cd.ContentType(), func(t *testing.T) {
			s := serve(t, nil)
			s.employ("f1", "e1", "t1")
			if status, text := s.tell(cd, updateCall("e1", "t1")); status != 403 || text != "Executor is not subscribed" {
				t.Errorf("before its subscription: %d %q", status, text)
			}
			call := executorCall(executor.Call_SUBSCRIBE, "e1")
			call.Subscribe = &executor.Call_Subscribe{}
			e := s.subscribe(cd, call)
			if got := e.want(executor.Event_SUBSCRIBED).GetSubscribed(); got.GetExecutorInfo().GetExecutorId().GetValue() != "e1" ||
				got.GetFrameworkInfo().GetName() != "demo" || got.GetAgentInfo().GetId().GetValue() != agentID || got.GetAgentInfo().GetPort() != 5051 {
				t.Errorf("got %v", got)
			}
			if got := e.want(executor.Event_LAUNCH).GetLaunch().GetTask(); got.GetTaskId().GetValue() != "t1" {
				t.Errorf("got %v", got)
			}
			for range 2 { // the second is a repetition
				if status, text := s.tell(cd, updateCall("e1", "t1")); status != 202 || text != "" {
					t.Errorf("update: %d %q", status, text)
				}
				if got := e.want(executor.Event_ACKNOWLEDGED).GetAcknowledged(); string(got.GetUuid()) != "0123456789abcdef" {
					t.Errorf("got %v", got)
				}
			}
			if status, text := s.tell(cd, executorCall(executor.Call_HEARTBEAT, "e1")); status != 202 || text != "" {
				t.Errorf("heartbeat: %d %q", status, text)
			}
			// The next subscription ends this one.
			again := s.subscribe(cd, call)
			again.want(executor.Event_SUBSCRIBED)
			if _, err := e.r.ReadByte(); err == nil {
				t.Error("the first stream goes on")
			}
		})
	}
}

// TestExecutorFaults holds the order of checks and their texts.
func TestExecutorFaults(t *testing.T) {
	s := serve(t, nil)
	s.employ("f1", "e1", "t1")
	uuid := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef"))
	who := `"framework_id":{"value":"f1"},"executor_id":{"value":"e1"}`
	update := func(status string) string {
		return `{"type":"UPDATE",` + who + `,"update":{"status":{` + status + `}}}`
	}
	const prefix = "Failed to validate Executor::Call: "
	for name, row := range map[string]struct {
		body, contentType, accept string
		status                    int
		text                      string
	}{
		"no content type":   {`{}`, "", "", 400, "Expecting 'Content-Type' to be present"},
		"another one":       {`{}`, "text/plain", "", 415, "Expecting 'Content-Type' of"},
		"no JSON":           {`{`, "application/json", "", 400, "Failed to parse body into JSON"},
		"no ids":            {`{"type":"SUBSCRIBE"}`, "application/json", "", 400, ""},
		"no type":           {`{` + who + `}`, "application/json", "", 400, prefix + "Expecting 'type' to be present"},
		"no subscribe":      {`{"type":"SUBSCRIBE",` + who + `}`, "application/json", "", 400, prefix + "Expecting 'subscribe' to be present"},
		"no update":         {`{"type":"UPDATE",` + who + `}`, "application/json", "", 400, prefix + "Expecting 'update' to be present"},
		"no message":        {`{"type":"MESSAGE",` + who + `}`, "application/json", "", 400, prefix + "Expecting 'message' to be present"},
		"no uuid":           {update(`"task_id":{"value":"t1"},"state":"TASK_RUNNING","source":"SOURCE_EXECUTOR"`), "application/json", "", 400, prefix + "Expecting 'status.uuid' to be present"},
		"a short uuid":      {update(`"task_id":{"value":"t1"},"state":"TASK_RUNNING","source":"SOURCE_EXECUTOR","uuid":"AAAA"`), "application/json", "", 400, prefix + "Not a valid UUID"},
		"no source":         {update(`"task_id":{"value":"t1"},"state":"TASK_RUNNING","uuid":"` + uuid + `"`), "application/json", "", 400, "invalid source, expecting 'SOURCE_EXECUTOR'"},
		"another executor":  {update(`"task_id":{"value":"t1"},"executor_id":{"value":"e2"},"state":"TASK_RUNNING","source":"SOURCE_EXECUTOR","uuid":"` + uuid + `"`), "application/json", "", 400, "ExecutorID in Call: e1 does not match ExecutorID in TaskStatus: e2"},
		"staging":           {update(`"task_id":{"value":"t1"},"state":"TASK_STAGING","source":"SOURCE_EXECUTOR","uuid":"` + uuid + `"`), "application/json", "", 400, "TASK_STAGING"},
		"two check results": {update(`"task_id":{"value":"t1"},"state":"TASK_RUNNING","source":"SOURCE_EXECUTOR","check_status":{"type":"TCP","tcp":{},"http":{}},"uuid":"` + uuid + `"`), "application/json", "", 400, prefix},
		"not acceptable":    {`{"type":"SUBSCRIBE",` + who + `,"subscribe":{}}`, "application/json", "text/html", 406, "Expecting 'Accept' to allow"},
		"heartbeat":         {`{"type":"HEARTBEAT","framework_id":{"value":"no"},"executor_id":{"value":"no"}}`, "application/json", "", 202, ""},
		"unknown framework": {`{"type":"SUBSCRIBE","framework_id":{"value":"no"},"executor_id":{"value":"e1"},"subscribe":{}}`, "application/json", "", 400, "Framework cannot be found"},
		"unknown executor":  {`{"type":"SUBSCRIBE","framework_id":{"value":"f1"},"executor_id":{"value":"no"},"subscribe":{}}`, "application/json", "", 400, "Executor cannot be found"},
		"not subscribed":    {`{"type":"MESSAGE",` + who + `,"message":{"data":"AAAA"}}`, "application/json", "", 403, "Executor is not subscribed"},
	} {
		if status, text := s.postTo("/api/v1/executor", row.contentType, row.accept, []byte(row.body)); status != row.status || !strings.Contains(text, row.text) {
			t.Errorf("%s: got %d %q, want %d %q", name, status, text, row.status, row.text)
		}
	}
	resp, err := http.Get(s.base + "/api/v1/executor")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", resp.StatusCode)
	}
	for i := range 3 { // nothing of it has harmed anything
		if status, _ := s.postTo("/api/v1/executor", "application/x-protobuf", "", bytes.Repeat([]byte{0xff}, i*100)); status != 400 {
			t.Errorf("%s: got %d", fmt.Sprint("garbage ", i), status)
		}
	}
}
