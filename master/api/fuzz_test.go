package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// Whatever bytes come in, as a call, an operator's call or a form of the older endpoints: they are answered with a status of the
// protocol, nothing panics, and the master goes on showing a state that can be read.

const (
	fuzzFramework = "fuzzed"
	fuzzOffer     = mastertest.MasterID + "-O1000000001"
	fuzzAgent     = mastertest.MasterID + "-S1"
)

// statuses are those that an answer to a request may have.
var statuses = map[int]bool{200: true, 202: true, 400: true, 403: true, 404: true, 405: true, 406: true, 409: true, 413: true, 415: true, 501: true}

// fuzzed is a leader with an agent and a framework. It outlives a request: whoever has been removed by one is replaced.
type fuzzed struct {
	*site
	net    *mastertest.Net
	agents int
	stream atomic.Pointer[client.Stream] // nil once it has ended
}

func startFuzzed(f *testing.F) *fuzzed {
	f.Helper()
	s := &fuzzed{net: mastertest.NewNet()}
	s.site = start(f, func(cfg *master.Config) {
		cfg.Client = s.net
		cfg.MaxCompletedFrameworks = 0 // else its id could not be used again
		cfg.Log = slog.New(slog.DiscardHandler)
	})
	s.lead()
	return s
}

// restore brings back what earlier requests have ended.
func (s *fuzzed) restore(t *testing.T) {
	t.Helper()
	if view, err := s.Master.View(t.Context()); err != nil {
		t.Fatal(err)
	} else if !slices.ContainsFunc(view.Agents, func(a *master.AgentView) bool { return a.Active }) && s.agents < 250 {
		s.agents++
		a, err := mastertest.NewAgent(fmt.Sprintf("%s-S%d", mastertest.MasterID, s.agents), fmt.Sprintf("10.0.1.%d:5051", s.agents), "cpus:4;mem:4096;disk:1000;ports:[31000-31009]")
		if err != nil {
			t.Fatal(err)
		}
		a.Report = func(ctx context.Context, _ string, r *nodeapi.Report) error { return s.Master.Report(ctx, r) }
		s.net.Add(a)
		if err := a.Join(s.Mesh); err != nil {
			t.Fatal(err)
		}
	}
	if s.stream.Load() != nil {
		return
	}
	info := mastertest.Info("f", []string{"web"}, mesos.FrameworkInfo_Capability_MULTI_ROLE, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT)
	info.Id, info.FailoverTimeout = &mesos.FrameworkID{Value: proto.String(fuzzFramework)}, proto.Float64(60)
	c := client.New(client.Config{Masters: []string{s.addr}})
	stream, err := c.Subscribe(context.Background(), &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: info.Id, Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: info},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.stream.Store(stream)
	go func() {
		for {
			if _, err := stream.Next(); err != nil {
				s.stream.CompareAndSwap(stream, nil)
				c.Close()
				return
			}
		}
	}()
}

// try sends a request, and looks at the answer and at what it has left behind.
func (s *fuzzed) try(t *testing.T, path, contentType string, body []byte) {
	t.Helper()
	s.restore(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if stream := s.stream.Load(); stream != nil && strings.HasSuffix(path, "/scheduler") && !subscribes(contentType, body) {
		req.Header.Set("Mesos-Stream-Id", stream.ID())
	}
	c := &http.Client{Timeout: patience}
	defer c.CloseIdleConnections()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if resp.ContentLength >= 0 { // else it is a stream
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("half an answer: %v", err)
		}
	}
	resp.Body.Close()
	if !statuses[resp.StatusCode] {
		t.Errorf("answered with %d", resp.StatusCode)
	}
	values, err := s.Master.Metrics(t.Context())
	if err != nil || values["master/panics"] != 0 {
		t.Fatalf("the loop has panicked %v times, %v", values["master/panics"], err)
	}
	resp, err = c.Get("http://" + s.addr + "/state")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if state, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !json.Valid(state) {
		t.Errorf("the state is %d %s, %v", resp.StatusCode, state, err)
	}
}

// subscribes tells whether a body is a call that opens a stream: those must not come with the id of another.
func subscribes(contentType string, body []byte) bool {
	call := new(scheduler.Call)
	if cd, ok := codec.ByContentType(contentType); ok && cd.Unmarshal(body, call) == nil {
		return call.GetType() == scheduler.Call_SUBSCRIBE
	}
	return false
}

// addBoth adds JSON, and the same as protobuf.
func addBoth(f *testing.F, text string, m proto.Message) {
	f.Helper()
	if err := codec.JSON.Unmarshal([]byte(text), m); err != nil {
		f.Fatalf("%v in %s", err, text)
	}
	binary, err := codec.Protobuf.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text), true)
	f.Add(binary, false)
}

func contentTypeOf(isJSON bool) string {
	if isJSON {
		return codec.JSON.ContentType()
	}
	return codec.Protobuf.ContentType()
}

func FuzzCall(f *testing.F) {
	const (
		id      = `"framework_id":{"value":"` + fuzzFramework + `"}`
		task    = `"task_id":{"value":"t"}`
		agent   = `"agent_id":{"value":"` + fuzzAgent + `"}`
		cpus    = `{"name":"cpus","type":"SCALAR","scalar":{"value":1}}`
		one     = `{"name":"t",` + task + `,` + agent + `,"command":{"value":"true"},"resources":[` + cpus + `]}`
		offers  = `"offer_ids":[{"value":"` + fuzzOffer + `"}]`
		disk    = `{"name":"disk","type":"SCALAR","scalar":{"value":10},"reservations":[{"type":"DYNAMIC","role":"web"}]`
		filters = `"filters":{"refuse_seconds":0.5}`
	)
	for _, text := range []string{
		`{"type":"SUBSCRIBE",` + id + `,"subscribe":{"framework_info":{"user":"svc","name":"f","id":{"value":"` + fuzzFramework + `"},"roles":["web"],"capabilities":[{"type":"MULTI_ROLE"}]},"suppressed_roles":["web"],"offer_constraints":{"role_constraints":{"web":{"groups":[{"attribute_constraints":[{"selector":{"attribute_name":"a"},"predicate":{"text_matches":{"regex":"a+"}}}]}]}}}}}`,
		`{"type":"TEARDOWN",` + id + `}`,
		`{"type":"ACCEPT",` + id + `,"accept":{` + offers + `,` + filters + `,"operations":[{"type":"LAUNCH","launch":{"task_infos":[` + one + `]}}]}}`,
		`{"type":"ACCEPT",` + id + `,"accept":{` + offers + `,"operations":[{"type":"RESERVE","id":{"value":"r"},"reserve":{"resources":[` + disk + `}]}},{"type":"CREATE","create":{"volumes":[` + disk + `,"disk":{"persistence":{"id":"v"},"volume":{"mode":"RW","container_path":"p"}}}]}}]}}`,
		`{"type":"ACCEPT",` + id + `,"accept":{` + offers + `,"operations":[{"type":"LAUNCH_GROUP","launch_group":{"executor":{"type":"DEFAULT","executor_id":{"value":"e"},"resources":[` + cpus + `]},"task_group":{"tasks":[` + one + `]}}}]}}`,
		`{"type":"DECLINE",` + id + `,"decline":{` + offers + `,` + filters + `}}`,
		`{"type":"ACCEPT_INVERSE_OFFERS",` + id + `,"accept_inverse_offers":{"inverse_offer_ids":[{"value":"x"}]}}`,
		`{"type":"REVIVE",` + id + `,"revive":{"roles":["web"]}}`,
		`{"type":"KILL",` + id + `,"kill":{` + task + `,` + agent + `,"kill_policy":{"grace_period":{"nanoseconds":1}}}}`,
		`{"type":"SHUTDOWN",` + id + `,"shutdown":{"executor_id":{"value":"e"},` + agent + `}}`,
		`{"type":"ACKNOWLEDGE",` + id + `,"acknowledge":{` + task + `,` + agent + `,"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}`,
		`{"type":"ACKNOWLEDGE_OPERATION_STATUS",` + id + `,"acknowledge_operation_status":{` + agent + `,"operation_id":{"value":"r"},"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}`,
		`{"type":"RECONCILE",` + id + `,"reconcile":{"tasks":[{` + task + `,` + agent + `}]}}`,
		`{"type":"RECONCILE_OPERATIONS",` + id + `,"reconcile_operations":{"operations":[{"operation_id":{"value":"r"},` + agent + `}]}}`,
		`{"type":"MESSAGE",` + id + `,"message":{"executor_id":{"value":"e"},` + agent + `,"data":"AAAA"}}`,
		`{"type":"REQUEST",` + id + `,"request":{"requests":[{` + agent + `,"resources":[` + cpus + `]}]}}`,
		`{"type":"SUPPRESS",` + id + `}`,
		`{"type":"UPDATE_FRAMEWORK",` + id + `,"update_framework":{"framework_info":{"user":"svc","name":"f","id":{"value":"` + fuzzFramework + `"},"roles":["web","batch"],"capabilities":[{"type":"MULTI_ROLE"}]}}}`,
	} {
		addBoth(f, text, new(scheduler.Call))
	}
	s := startFuzzed(f)
	f.Fuzz(func(t *testing.T, body []byte, isJSON bool) {
		s.try(t, "/api/v1/scheduler", contentTypeOf(isJSON), body)
	})
}

func FuzzOperatorCall(f *testing.F) {
	const (
		agent   = `"agent_id":{"value":"` + fuzzAgent + `"}`
		cpus    = `{"name":"cpus","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"DYNAMIC","role":"web"}]}`
		machine = `{"hostname":"10.0.1.1","ip":"10.0.1.1"}`
	)
	for _, text := range []string{
		`{"type":"GET_STATE"}`, `{"type":"SUBSCRIBE"}`, `{"type":"GET_METRICS","get_metrics":{"timeout":{"nanoseconds":1}}}`,
		`{"type":"LIST_FILES","list_files":{"path":"/"}}`, `{"type":"READ_FILE","read_file":{"path":"/master/log","offset":0,"length":10}}`,
		`{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":1000}}}`,
		`{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"weight":2,"role":"web"}]}}`,
		`{"type":"RESERVE_RESOURCES","reserve_resources":{` + agent + `,"resources":[` + cpus + `]}}`,
		`{"type":"UNRESERVE_RESOURCES","unreserve_resources":{` + agent + `,"resources":[` + cpus + `]}}`,
		`{"type":"CREATE_VOLUMES","create_volumes":{` + agent + `,"volumes":[` + cpus + `]}}`,
		`{"type":"DESTROY_VOLUMES","destroy_volumes":{` + agent + `,"volumes":[` + cpus + `]}}`,
		`{"type":"UPDATE_MAINTENANCE_SCHEDULE","update_maintenance_schedule":{"schedule":{"windows":[{"machine_ids":[` + machine + `],"unavailability":{"start":{"nanoseconds":1},"duration":{"nanoseconds":1}}}]}}}`,
		`{"type":"START_MAINTENANCE","start_maintenance":{"machines":[` + machine + `]}}`,
		`{"type":"STOP_MAINTENANCE","stop_maintenance":{"machines":[` + machine + `]}}`,
		`{"type":"DRAIN_AGENT","drain_agent":{` + agent + `,"max_grace_period":{"nanoseconds":1},"mark_gone":true}}`,
		`{"type":"DEACTIVATE_AGENT","deactivate_agent":{` + agent + `}}`, `{"type":"REACTIVATE_AGENT","reactivate_agent":{` + agent + `}}`,
		`{"type":"MARK_AGENT_GONE","mark_agent_gone":{` + agent + `}}`,
		`{"type":"UPDATE_QUOTA","update_quota":{"force":true,"quota_configs":[{"role":"web","guarantees":{"cpus":{"value":1}},"limits":{"cpus":{"value":2}}}]}}`,
		`{"type":"SET_QUOTA","set_quota":{"quota_request":{"force":true,"role":"web","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}}}`,
		`{"type":"REMOVE_QUOTA","remove_quota":{"role":"web"}}`,
		`{"type":"TEARDOWN","teardown":{"framework_id":{"value":"` + fuzzFramework + `"}}}`,
	} {
		addBoth(f, text, new(operator.Call))
	}
	s := startFuzzed(f)
	f.Fuzz(func(t *testing.T, body []byte, isJSON bool) {
		s.try(t, "/api/v1", contentTypeOf(isJSON), body)
	})
}

// forms are the older endpoints that take a body.
var forms = []string{
	"/teardown", "/reserve", "/unreserve", "/create-volumes", "/destroy-volumes", "/quota", "/weights", "/maintenance/schedule",
	"/machine/down", "/machine/up", "/state", "/files/read", "/nosuch",
}

func FuzzForm(f *testing.F) {
	const resource = `[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"web","reservation":{}}]`
	for i, text := range []string{
		"frameworkId=" + fuzzFramework, "slaveId=" + fuzzAgent + "&resources=" + resource, "slaveId=" + fuzzAgent + "&resources=" + resource,
		"slaveId=" + fuzzAgent + "&volumes=" + resource, "slaveId=" + fuzzAgent + "&volumes=%5B%5D",
		`{"role":"web","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}`, `[{"role":"web","weight":2}]`,
		`{"windows":[{"machine_ids":[{"hostname":"10.0.1.1"}],"unavailability":{"start":{"nanoseconds":1}}}]}`,
		`[{"hostname":"10.0.1.1","ip":"10.0.1.1"}]`, `[{"hostname":"10.0.1.1"}]`,
	} {
		f.Add(uint8(i), []byte(text))
	}
	s := startFuzzed(f)
	f.Fuzz(func(t *testing.T, at uint8, body []byte) {
		s.try(t, forms[int(at)%len(forms)], "application/x-www-form-urlencoded", body)
	})
}
