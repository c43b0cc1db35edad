package api_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/scheduler"
)

// reservedJSON is a dynamic reservation as clients write it, in the older format.
func reservedJSON(name, amount, role string) string {
	return `{"name":"` + name + `","type":"SCALAR","scalar":{"value":` + amount + `},"role":"` + role + `","reservation":{"principal":"ops"}}`
}

const volumeJSON = `{"name":"disk","type":"SCALAR","scalar":{"value":10},"role":"web","reservation":{"principal":"ops"},
	"disk":{"persistence":{"id":"v1","principal":"ops"},"volume":{"mode":"RW","container_path":"d"}}}`

// form makes the body of an older call.
func form(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

const formType = "Content-Type: application/x-www-form-urlencoded"

// An operator reserves, makes a volume, and takes both back, in the older way and in that of the v1 API.
func TestOperatorsReserve(t *testing.T) {
	const agent = mastertest.MasterID + "-S1"
	v1 := func(text string) (string, string, string) { return "POST /api/v1", text, jsonType }
	older := func(path, field, list string) (string, string, string) {
		return "POST " + path, form("slaveId", agent, field, "["+list+"]"), formType
	}
	id := `"agent_id":{"value":"` + agent + `"}`
	for name, calls := range map[string][][3]string{
		"in the v1 API": {
			list(v1(`{"type":"RESERVE_RESOURCES","reserve_resources":{` + id + `,"resources":[` + reservedJSON("disk", "100", "web") + `]}}`)),
			list(v1(`{"type":"CREATE_VOLUMES","create_volumes":{` + id + `,"volumes":[` + volumeJSON + `]}}`)),
			list(v1(`{"type":"GROW_VOLUME","grow_volume":{` + id + `,"volume":` + volumeJSON + `,"addition":` + reservedJSON("disk", "10", "web") + `}}`)),
			list(v1(`{"type":"SHRINK_VOLUME","shrink_volume":{` + id + `,"volume":` + strings.Replace(volumeJSON, "10", "20", 1) + `,"subtract":{"value":10}}}`)),
			list(v1(`{"type":"DESTROY_VOLUMES","destroy_volumes":{` + id + `,"volumes":[` + volumeJSON + `]}}`)),
			list(v1(`{"type":"UNRESERVE_RESOURCES","unreserve_resources":{` + id + `,"resources":[` + reservedJSON("disk", "100", "web") + `]}}`)),
		},
		"in the older way": {
			list(older("/reserve", "resources", reservedJSON("disk", "100", "web"))),
			list(older("/master/create-volumes", "volumes", volumeJSON)),
			list(older("/destroy-volumes", "volumes", volumeJSON)),
			list(older("/master/unreserve", "resources", reservedJSON("disk", "100", "web"))),
		},
		"changing a reservation": {
			list(older("/reserve", "resources", reservedJSON("disk", "100", "web"))),
			{"POST /reserve", form("slaveId", agent, "source", "["+reservedJSON("disk", "60", "web")+"]",
				"resources", "["+reservedJSON("disk", "60", "db")+"]"), formType},
			list(older("/unreserve", "resources", reservedJSON("disk", "60", "db"))),
			list(older("/unreserve", "resources", reservedJSON("disk", "40", "web"))),
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil)
			a := s.agent(1, "cpus:4;mem:4096;disk:1000")
			s.lead()
			before := a.Total()
			for i, c := range calls {
				was := a.Total()
				if resp, text := s.do(c[0], c[1], c[2]); resp.StatusCode != http.StatusAccepted || text != "" {
					t.Fatalf("call %d: got %d %q", i, resp.StatusCode, text)
				}
				s.eventually("the agent has done it", func() bool { return !a.Total().Equal(was) })
				s.eventually("the master knows", func() bool {
					v, err := s.Master.View(t.Context())
					return err == nil && len(v.Agents) == 1 && v.Agents[0].Total.Equal(a.Total()) && len(v.Operations) == 0
				})
				if i == 0 {
					s.wantState("/state", `"reserved_resources":{"web":{`, `"disk":100.0`)
					s.wantState("/slaves", `"reserved_resources_full":{"web":[{`, `"principal":"ops"`)
				}
			}
			if got := a.Total(); !got.Equal(before) {
				t.Errorf("in the end there is %v, want %v", got, before)
			}
			if err := s.Master.Teardown(t.Context(), "none"); err == nil {
				t.Error("a framework that is not there was torn down")
			}
		})
	}
}

func list(line, body, header string) [3]string { return [3]string{line, body, header} }

func (s *site) wantState(path string, parts ...string) {
	s.t.Helper()
	_, text := s.do("GET "+path, "")
	for _, part := range parts {
		if !strings.Contains(text, part) {
			s.t.Errorf("%s lacks %q: %s", path, part, text)
		}
	}
}

// What is offered is taken from its framework, and only that; what is used is not.
func TestOperatorsReserveWhatIsOffered(t *testing.T) {
	s := start(t, nil)
	a := s.agent(1, "cpus:4;mem:4096;disk:1000")
	s.lead()
	f := s.subscribe(codec.JSON, mastertest.Info("f", []string{"web"}))
	offer := f.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
	task := mastertest.Task("t", "cpus:3;mem:32")
	task.AgentId = offer.GetAgentId()
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds:   []*mesos.OfferID{offer.GetId()},
		Operations: []*mesos.Offer_Operation{{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{task}}}},
		Filters:    &mesos.Filters{RefuseSeconds: new(float64)},
	}})
	// It may come in two parts: what the record shows as used is held for the launch as well, until its call is answered.
	rest := func(cpus string) *mesos.Offer {
		for {
			o := f.until("the rest is offered", func(e *scheduler.Event) bool { return e.GetType() == scheduler.Event_OFFERS }).GetOffers().GetOffers()[0]
			if strings.HasPrefix(sum(t, o.GetResources()), "<"+cpus+" CPUs") {
				return o
			}
		}
	}
	next := rest("1")
	reserve := func(cpus string) (int, string) {
		resp, text := s.do("POST /reserve", form("slaveId", a.ID, "resources", "["+reservedJSON("cpus", cpus, "db")+"]"), formType)
		return resp.StatusCode, text
	}
	if status, text := reserve("2"); status != http.StatusConflict || !strings.Contains(text, "does not contain") {
		t.Errorf("what a task uses: got %d %q", status, text)
	}
	if status, text := reserve("0.5"); status != http.StatusAccepted {
		t.Fatalf("what is offered: got %d %q", status, text)
	}
	rescinded := f.until("it is rescinded", func(e *scheduler.Event) bool { return e.GetType() == scheduler.Event_RESCIND })
	if got := rescinded.GetRescind().GetOfferId().GetValue(); got != next.GetId().GetValue() {
		t.Errorf("rescinded %q, want %q", got, next.GetId().GetValue())
	}
	rest("0.5")
}

func TestReservationFaults(t *testing.T) {
	s := start(t, nil)
	s.agent(1, "cpus:4;mem:4096;disk:1000")
	s.lead()
	const agent = mastertest.MasterID + "-S1"
	cpus := "[" + reservedJSON("cpus", "1", "web") + "]"
	for name, tc := range map[string]struct {
		line, body string
		status     int
		want       string
	}{
		"no agent":             {"POST /reserve", form("resources", cpus), 400, "Missing 'slaveId' query parameter in the request body"},
		"no resources":         {"POST /reserve", form("slaveId", agent), 400, "Missing 'resources' query parameter in the request body"},
		"no volumes":           {"POST /create-volumes", form("slaveId", agent, "resources", cpus), 400, "Missing 'volumes' query parameter in the request body"},
		"an unknown agent":     {"POST /reserve", form("slaveId", "none", "resources", cpus), 400, "No agent found with specified ID"},
		"no array":             {"POST /reserve", form("slaveId", agent, "resources", `{"name":"cpus"}`), 400, "Error in parsing 'resources' query parameter in the request body: "},
		"two arrays":           {"POST /reserve", form("slaveId", agent, "resources", `[],"source":[]`), 400, "Error in parsing 'resources' query parameter in the request body: "},
		"no JSON":              {"POST /reserve", form("slaveId", agent, "resources", "[nonsense]"), 400, "Error in parsing 'resources' query parameter in the request body: "},
		"no resource":          {"POST /reserve", form("slaveId", agent, "resources", `[{"name":"cpus"}]`), 400, "Error in parsing 'resources' query parameter in the request body: "},
		"a bad source":         {"POST /reserve", form("slaveId", agent, "resources", cpus, "source", "x"), 400, "Error in parsing 'source' query parameter in the request body: "},
		"another source":       {"POST /reserve", form("slaveId", agent, "resources", cpus, "source", "["+reservedJSON("cpus", "2", "db")+"]"), 400, "they differ in more than dynamic reservations"},
		"a bad form":           {"POST /reserve", "slaveId=%zz", 400, "Unable to decode query string"},
		"what is not reserved": {"POST /reserve", form("slaveId", agent, "resources", `[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]`), 400, "is not dynamically reserved"},
		"what is allocated": {
			"POST /unreserve", form("slaveId", agent, "resources", `[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"web","reservation":{},"allocation_info":{"role":"web"}}]`),
			400, "an operator's resources must not be allocated to a role",
		},
		"a reservation of what is allocated": {
			"POST /reserve", form("slaveId", agent, "resources", strings.Replace(cpus, `"name"`, `"allocation_info":{"role":"web"},"name"`, 1)),
			400, "the operator API only allows reservations to be made to unallocated resources",
		},
		"a reservation that is not there":  {"POST /unreserve", form("slaveId", agent, "resources", cpus), 409, "does not contain"},
		"a volume of what is not reserved": {"POST /create-volumes", form("slaveId", agent, "volumes", "["+volumeJSON+"]"), 409, "does not contain"},
		"a volume that is not there":       {"POST /destroy-volumes", form("slaveId", agent, "volumes", "["+volumeJSON+"]"), 400, "Persistent volumes not found"},
		"a volume that is none":            {"POST /destroy-volumes", form("slaveId", agent, "volumes", cpus), 400, "Not a persistent volume: "},
		"more than there is":               {"POST /reserve", form("slaveId", agent, "resources", "["+reservedJSON("cpus", "5", "web")+"]"), 409, "does not contain"},
		"a GET":                            {"GET /reserve", "", 405, ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, text := s.do(tc.line, tc.body, formType)
			if resp.StatusCode != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, text, tc.status, tc.want)
			}
		})
	}
	for name, call := range map[string]*operator.Call{
		"an unknown agent": {
			Type: operator.Call_RESERVE_RESOURCES.Enum(), ReserveResources: &operator.Call_ReserveResources{
				AgentId: &mesos.AgentID{Value: new(string)}, Resources: mastertest.Reserved("web", "", "cpus:1"),
			},
		},
		"a volume of another size": {
			Type: operator.Call_SHRINK_VOLUME.Enum(), ShrinkVolume: &operator.Call_ShrinkVolume{
				AgentId: &mesos.AgentID{Value: new(string)}, Volume: mastertest.Volume("v", "web", "", 10), Subtract: &mesos.Value_Scalar{Value: new(float64)},
			},
		},
	} {
		body, err := codec.JSON.Marshal(call)
		if err != nil {
			t.Fatal(err)
		}
		if resp, text := s.do("POST /api/v1", string(body), jsonType); resp.StatusCode != 400 || text != "No agent found with specified ID" {
			t.Errorf("%s: got %d %q", name, resp.StatusCode, text)
		}
	}
}

// Operations that have not ended are shown.
func TestGetOperations(t *testing.T) {
	s := start(t, nil)
	a := s.agent(1, "cpus:4;mem:4096;disk:1000")
	s.lead()
	f := s.subscribe(codec.JSON, mastertest.Info("f", []string{"web"}))
	offer := f.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()[0]
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{offer.GetId()}, Operations: []*mesos.Offer_Operation{mastertest.Reserve("op1", "web", "", "cpus:1")},
	}})
	status := f.until("the end is told", func(e *scheduler.Event) bool { return e.GetType() == scheduler.Event_UPDATE_OPERATION_STATUS }).GetUpdateOperationStatus().GetStatus()
	if status.GetState() != mesos.OperationState_OPERATION_FINISHED || len(status.GetConvertedResources()) != 1 || status.GetAgentId().GetValue() != a.ID {
		t.Errorf("got %v", status)
	}
	if r := status.GetConvertedResources()[0]; r.GetRole() != "web" || r.Reservation == nil || len(r.Reservations) > 0 {
		t.Errorf("not in the format of the framework: %v", r)
	}
	shown := func() []any {
		_, text := s.do("POST /api/v1", `{"type":"GET_OPERATIONS"}`, jsonType)
		var v struct {
			Operations struct{ Operations []any } `json:"get_operations"`
		}
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		return v.Operations.Operations
	}
	if got := shown(); len(got) != 1 || got[0].(map[string]any)["framework_id"].(map[string]any)["value"] != f.id {
		t.Errorf("shown: %v", got)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(), AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{
		AgentId: status.GetAgentId(), Uuid: status.GetUuid().GetValue(), OperationId: status.GetOperationId(),
	}})
	s.eventually("the agent knows of the acknowledgement", func() bool { return len(a.Unacknowledged()) == 0 })
	if got := shown(); len(got) != 0 {
		t.Errorf("shown after the acknowledgement: %v", got)
	}
	_, text := s.do("GET /metrics/snapshot", "")
	for _, want := range []string{`"master/operations/finished":1`, `"master/operations/reserve/finished":1`, `"master/operations/total":0`} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
