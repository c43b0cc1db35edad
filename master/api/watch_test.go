package api_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/recordio"
	"starling/master/mesos/scheduler"
)

// listener reads the event stream of an operator.
type listener struct {
	t  testing.TB
	cd codec.Codec
	r  *recordio.Reader
}

func (s *site) listen(cd codec.Codec) *listener {
	s.t.Helper()
	call, err := cd.Marshal(&operator.Call{Type: operator.Call_SUBSCRIBE.Enum()})
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.addr+"/master/api/v1", strings.NewReader(string(call)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", cd.ContentType())
	req.Header.Set("Accept", cd.ContentType())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != cd.ContentType() || len(resp.TransferEncoding) != 1 || resp.Header.Get("Mesos-Stream-Id") != "" {
		s.t.Fatalf("answer: %d, %v, %v", resp.StatusCode, resp.Header, resp.TransferEncoding)
	}
	return &listener{s.t, cd, recordio.NewReader(resp.Body, 1<<20)}
}

// next returns the next event; heartbeats are skipped where another kind is wanted.
func (l *listener) next(want operator.Event_Type) *operator.Event {
	l.t.Helper()
	for {
		rec, err := l.r.Next()
		if err != nil {
			l.t.Fatalf("want %s, got %v", want, err)
		}
		e := new(operator.Event)
		if err := l.cd.Unmarshal(rec, e); err != nil {
			l.t.Fatal(err)
		}
		if e.GetType() == operator.Event_HEARTBEAT && want != operator.Event_HEARTBEAT {
			continue
		}
		if e.GetType() != want {
			l.t.Fatalf("want %s, got %s", want, prototext.Format(e))
		}
		return e
	}
}

// The stream of an operator, in both encodings: a snapshot, a heartbeat at once, and the life of a task in order.
func TestWatch(t *testing.T) {
	for _, cd := range []codec.Codec{codec.JSON, codec.Protobuf} {
		t.Run(cd.ContentType(), func(t *testing.T) {
			s := start(t, nil)
			a := s.agent(1, "cpus:4;mem:4096")
			s.lead()
			l := s.listen(cd)
			sub := l.next(operator.Event_SUBSCRIBED).GetSubscribed()
			if sub.GetHeartbeatIntervalSeconds() != 15 || len(sub.GetGetState().GetGetAgents().GetAgents()) != 1 {
				t.Errorf("snapshot: %s", prototext.Format(sub))
			}
			l.next(operator.Event_HEARTBEAT)
			f := s.subscribe(codec.JSON, mastertest.Info("f", nil))
			if got := l.next(operator.Event_FRAMEWORK_ADDED).GetFrameworkAdded().GetFramework(); !got.GetConnected() || got.GetFrameworkInfo().GetName() != "f" {
				t.Errorf("framework: %s", prototext.Format(got))
			}
			offer := f.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
			task := mastertest.Task("t", "cpus:1;mem:32")
			task.AgentId = offer.GetAgentId()
			f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
				OfferIds: []*mesos.OfferID{offer.GetId()},
				Operations: []*mesos.Offer_Operation{{
					Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{task}},
				}},
			}})
			if got := l.next(operator.Event_TASK_ADDED).GetTaskAdded().GetTask(); got.GetTaskId().GetValue() != "t" || got.GetState() != mesos.TaskState_TASK_STAGING {
				t.Errorf("task: %s", prototext.Format(got))
			}
			if got := l.next(operator.Event_TASK_UPDATED).GetTaskUpdated(); got.GetState() != mesos.TaskState_TASK_RUNNING || got.GetFrameworkId().GetValue() != f.id {
				t.Errorf("update: %s", prototext.Format(got))
			}
			s.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
			if err := s.Master.Teardown(t.Context(), f.id); err != nil {
				t.Fatal(err)
			}
			got := l.next(operator.Event_TASK_UPDATED).GetTaskUpdated()
			if got.GetState() == mesos.TaskState_TASK_RUNNING { // told again by the agent's report, where that came late
				got = l.next(operator.Event_TASK_UPDATED).GetTaskUpdated()
			}
			if got.GetState() != mesos.TaskState_TASK_KILLED {
				t.Errorf("update: %s", prototext.Format(got))
			}
			if got := l.next(operator.Event_FRAMEWORK_REMOVED).GetFrameworkRemoved(); got.GetFrameworkInfo().GetId().GetValue() != f.id {
				t.Errorf("removed: %s", prototext.Format(got))
			}
			s.Lose()
			for {
				if _, err := l.r.Next(); err != nil {
					if !errors.Is(err, io.EOF) {
						t.Errorf("end of the term: got %v, want the end of the stream", err)
					}
					break
				}
			}
		})
	}
}

// A client that leaves is forgotten, and one too many ends the first.
func TestWatchersComeAndGo(t *testing.T) {
	s := start(t, func(cfg *master.Config) { cfg.MaxOperatorStreams = 2 })
	s.lead()
	open := func() float64 {
		values, err := s.Master.Metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return values["master/operator_event_stream_subscribers"]
	}
	first, second := s.listen(codec.JSON), s.listen(codec.JSON)
	second.next(operator.Event_SUBSCRIBED)
	s.listen(codec.JSON).next(operator.Event_SUBSCRIBED)
	for {
		if _, err := first.r.Next(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the oldest: got %v, want the end", err)
			}
			break
		}
	}
	s.eventually("one has gone", func() bool { return open() == 2 })
}

// The answers of a master that has nothing to show have their lists all the same.
func TestEmptyAnswers(t *testing.T) {
	s := start(t, nil)
	s.lead()
	for call, want := range map[string]string{
		"GET_TASKS":      `"get_tasks":{"tasks":[],"unreachable_tasks":[],"completed_tasks":[]}`,
		"GET_AGENTS":     `"get_agents":{"agents":[],"recovered_agents":[]}`,
		"GET_FRAMEWORKS": `"get_frameworks":{"frameworks":[],"completed_frameworks":[]}`,
		"GET_EXECUTORS":  `"get_executors":{"executors":[]}`,
		"GET_OPERATIONS": `"get_operations":{"operations":[]}`,
		"GET_ROLES":      `"get_roles":{"roles":[]}`,
		"GET_WEIGHTS":    `"get_weights":{"weight_infos":[]}`,
		"GET_FLAGS":      `"get_flags":{"flags":[{"name":"port","value":"5050"}]}`,
		"GET_STATE": `"get_state":{"get_tasks":{"tasks":[],"unreachable_tasks":[],"completed_tasks":[]},"get_executors":{"executors":[]},` +
			`"get_frameworks":{"frameworks":[],"completed_frameworks":[]},"get_agents":{"agents":[],"recovered_agents":[]}}`,
	} {
		resp, text := s.do("POST /api/v1", `{"type":"`+call+`"}`, jsonType)
		if want = `{"type":"` + call + `",` + want + `}`; resp.StatusCode != 200 || text != want {
			t.Errorf("%s: got %d %s, want %s", call, resp.StatusCode, text, want)
		}
	}
	for body, want := range map[string]string{
		`{"type":"GET_HEALTH"}`:                   `"get_health":{"healthy":true}`,
		`{"type":"GET_VERSION"}`:                  `"version_info":{"version":"1.11.0"`,
		`{"type":"GET_MASTER"}`:                   `"get_master":{"master_info":{"id":"` + mastertest.MasterID,
		`{"type":"GET_METRICS","get_metrics":{}}`: `{"name":"master/elected","value":1.0}`,
		`{"type":"GET_METRICS","get_metrics":{"timeout":{"nanoseconds":1}}}`: `{"name":"system/cpus_total","value":`,
		`{"type":"NO_SUCH_CALL"}`: "Expecting 'type' to be present",
	} {
		if _, text := s.do("POST /api/v1", body, jsonType); !strings.Contains(text, want) {
			t.Errorf("%s: got %s, want %s in it", body, text, want)
		}
	}
}

// Which paths any master serves, and which send on to the leader, by all of their names.
func TestPathsOfAStandby(t *testing.T) {
	s := start(t, nil)
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
	for _, path := range []string{
		"state", "state.json", "state/", "state-summary", "slaves", "slaves.json", "frameworks", "frameworks/", "tasks", "tasks.json",
		"roles", "roles.json", "weights", "quota", "teardown", "api/v1", "api/v1/scheduler", "api/v1/operator",
	} {
		for _, prefix := range []string{"/", "/master/", "/%6daster/"} {
			resp, _ := s.do("POST "+prefix+path+"?a=%20b", "")
			want := "//m2.example.com:5051" + prefix + path + "?a=%20b"
			if got := resp.Header.Get("Location"); resp.StatusCode != 307 || got != want {
				t.Errorf("%s%s: got %d to %q, want %q", prefix, path, resp.StatusCode, got, want)
			}
		}
	}
	for path, status := range map[string]int{
		"health": 200, "version": 200, "version.json": 200, "flags": 200, "flags.json": 200, "metrics/snapshot": 200,
		"metrics/snapshot.json": 200, "files/debug": 200, "files/browse?path=/x": 404, "logging/toggle": 200, "system/stats.json": 200,
		"metrics/prometheus": 200, "redirect": 307, "redirect/": 307, "redirect/x": 404, "nosuch": 404, "state/..": 404,
	} {
		for _, prefix := range []string{"/", "/master/"} {
			if resp, text := s.do("GET "+prefix+path, ""); resp.StatusCode != status {
				t.Errorf("%s%s: got %d %.60q, want %d", prefix, path, resp.StatusCode, text, status)
			}
		}
	}
}

// JSON that a page of another site may call is a call of the function that it names, on every reading endpoint.
func TestJSONPEverywhere(t *testing.T) {
	s := start(t, nil)
	s.lead()
	for _, path := range []string{
		"/state", "/state-summary", "/slaves", "/frameworks", "/tasks", "/roles", "/flags", "/version", "/metrics/snapshot", "/weights",
		"/quota", "/files/debug", "/system/stats.json",
	} {
		resp, text := s.do("GET "+path+"?jsonp=a.b", "")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/javascript" || !strings.HasPrefix(text, "a.b(") || !strings.HasSuffix(text, ")") {
			t.Errorf("%s: got %d %s %.60q", path, resp.StatusCode, resp.Header.Get("Content-Type"), text)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		if resp, text := s.do(method+" /state", ""); resp.StatusCode != 200 || !strings.HasPrefix(text, `{"version"`) {
			t.Errorf("%s /state: got %d %.60q", method, resp.StatusCode, text)
		}
	}
	if resp, text := s.do("GET /teardown", ""); resp.StatusCode != 405 || text != "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'." {
		t.Errorf("GET /teardown: got %d %q", resp.StatusCode, text)
	}
}
