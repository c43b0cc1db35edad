package api_test

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/scheduler"
)

// operate makes an operator call, which is given as JSON, in an encoding, and returns the status and the answer: a refusal's
// text, a response as text, or nothing.
func (s *site) operate(cd codec.Codec, text string) (int, string) {
	s.t.Helper()
	call := new(operator.Call)
	if err := codec.JSON.Unmarshal([]byte(text), call); err != nil {
		s.t.Fatal(err)
	}
	body, err := cd.Marshal(call)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.addr+"/api/v1", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", cd.ContentType())
	req.Header.Set("Accept", cd.ContentType())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || len(answer) == 0 {
		return resp.StatusCode, string(answer)
	}
	message := new(operator.Response)
	if err := cd.Unmarshal(answer, message); err != nil {
		s.t.Fatal(err)
	}
	again, err := codec.JSON.Marshal(message)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(again)
}

// What operators set is shown by the calls and by the older endpoints alike, whichever of the two set it.
func TestWeightsAndQuota(t *testing.T) {
	inBoth(t, func(t *testing.T, cd codec.Codec) {
		s := start(t, func(cfg *master.Config) { cfg.Weights = map[string]float64{"flag": 4} })
		s.agent(1, "cpus:4;mem:4096;cpus(eng/web):1")
		s.lead()
		f := s.subscribe(cd, mastertest.Info("f", []string{"eng/db"}, mesos.FrameworkInfo_Capability_MULTI_ROLE))
		f.expect(scheduler.Event_OFFERS)
		call := func(text string, status int, want string) {
			t.Helper()
			if got, answer := s.operate(cd, text); got != status || !strings.Contains(answer, want) {
				t.Errorf("%s: got %d %s, want %d %s", text, got, answer, status, want)
			}
		}
		request := func(line, body string, status int, want string) {
			t.Helper()
			resp, answer := s.do(line, body)
			if resp.StatusCode != status || !regexp.MustCompile(want).MatchString(answer) {
				t.Errorf("%s %s: got %d %s, want %d %s", line, body, resp.StatusCode, answer, status, want)
			}
		}
		call(`{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"eng","weight":2.5}]}}`, 200, "")
		call(`{"type":"UPDATE_WEIGHTS","update_weights":{"weight_infos":[{"role":"eng","weight":-1}]}}`, 400, "Weights must be positive")
		call(`{"type":"UPDATE_WEIGHTS","update_weights":{}}`, 200, "")
		request("PUT /weights", `[{"role":"*","weight":0.5}]`, 200, "^$")
		request("GET /weights", "", 200, `^\[\{"weight":0.5,"role":"\*"\},\{"weight":2.5,"role":"eng"\},\{"weight":4.0,"role":"flag"\}\]$`)
		request("GET /master/weights?jsonp=cb", "", 200, `^cb\(\[`)
		call(`{"type":"GET_WEIGHTS"}`, 200, `{"type":"GET_WEIGHTS","get_weights":{"weight_infos":[{"weight":0.5,"role":"*"},{"weight":2.5,"role":"eng"},{"weight":4.0,"role":"flag"}]}}`)

		request("GET /quota", "", 200, `^\{\}$`)
		call(`{"type":"GET_QUOTA"}`, 200, `{"type":"GET_QUOTA","get_quota":{"status":{}}}`)
		call(`{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"eng","guarantees":{"cpus":{"value":2}},"limits":{"cpus":{"value":3},"mem":{"value":0}}},{"role":"ops","limits":{"cpus":{"value":1}}}]}}`, 200, "")
		f.expect(scheduler.Event_RESCIND)
		call(`{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"a"},{"role":"a/b"}]}}`, 400, "Setting quota on nested role 'a/b' is not supported yet")
		call(`{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"a","guarantees":{"cpus":{"value":9}}}]}}`, 400, "exceed cluster capacity")
		call(`{"type":"SET_QUOTA","set_quota":{"quota_request":{"role":"a","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":9}}]}}}`, 409, "Total quota guarantees 'cpus:11' exceed cluster capacity 'cpus:5;mem:4096'")
		call(`{"type":"SET_QUOTA","set_quota":{"quota_request":{"role":"a","force":true,"guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":9}}]}}}`, 200, "")
		call(`{"type":"REMOVE_QUOTA","remove_quota":{"role":"a"}}`, 200, "")
		call(`{"type":"REMOVE_QUOTA","remove_quota":{"role":"a"}}`, 400, "Role 'a' has no quota set")
		request("POST /quota", `{"role":"web","guarantee":[{"name":"mem","type":"SCALAR","scalar":{"value":64}}]}`, 200, "^$")
		request("DELETE /quota/ops", "", 200, "^$")
		request("DELETE /master/quota/ops/", "", 400, "Role 'ops' has no quota set")
		const infos = `"infos":[{"role":"eng","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":2.0},"role":"*"}]},{"role":"web","guarantee":[{"name":"mem","type":"SCALAR","scalar":{"value":64.0},"role":"*"}]}]`
		const configs = `"configs":[{"role":"eng","guarantees":{"cpus":{"value":2.0}},"limits":{"cpus":{"value":3.0},"mem":{"value":0.0}}},{"role":"web","guarantees":{"mem":{"value":64.0}},"limits":{"mem":{"value":64.0}}}]`
		call(`{"type":"GET_QUOTA"}`, 200, `{"status":{`+infos+`,`+configs+`}}`)
		request("GET /quota", "", 200, regexp.QuoteMeta(`{`+infos+`,`+configs+`}`))
		// No memory may be had, and 2 CPUs besides the one that is reserved: an offer of CPUs alone.
		const role = `{"name":"eng","weight":2.5,"quota":{"role":"eng","guarantee":{"cpus":2.0},"limit":{"cpus":3.0,"mem":0.0},"consumed":{"cpus":1.0}},"resources":{"cpus":2.0},"allocated":{},"offered":{"cpus":2.0},"reserved":{"cpus":1.0},"frameworks":[]},{"name":"eng/db","weight":1.0,`
		s.eventually("it is offered what it may have", func() bool {
			_, answer := s.do("GET /roles", "")
			return strings.Contains(answer, role)
		})
		call(`{"type":"GET_ROLES"}`, 200, `{"name":"eng/db","weight":1.0,"frameworks":[{"value":"`+f.id+`"}]`)
		for _, name := range []string{"*", "eng/web", "flag", "web"} {
			call(`{"type":"GET_ROLES"}`, 200, `{"name":"`+name+`","weight":`)
		}
		request("GET /metrics/snapshot", "", 200, `"allocator/mesos/quota/roles/eng/resources/cpus/limit":3.0`)
		request("GET /allocator/explain?framework_id="+f.id, "", 200, `^\{"framework_id":"`+f.id+`","roles":\[\{"role":"eng/db","reasons":\[\{"agents":1,"reason":"it holds an offer"\}\]\}\]\}$`)
	})
}

// Each fault of a request to the older endpoints has its status and its text.
func TestRegistryRows(t *testing.T) {
	s := start(t, func(cfg *master.Config) { cfg.Roles = []string{"eng", "ops"} })
	s.agent(1, "cpus:4;mem:4096")
	s.lead()
	if err := s.Master.UpdateQuota(t.Context(), nil, false); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		line, body string
		status     int
		want       string
	}{
		"weights: not JSON":      {"PUT /weights", "[", 400, "Failed to parse update weights request JSON: unexpected end of JSON input"},
		"weights: no array":      {"PUT /weights", `{"role":"eng","weight":1}`, 400, "Failed to parse update weights request JSON: expecting an array"},
		"weights: null":          {"PUT /weights", "null", 400, "Failed to parse update weights request JSON: expecting an array"},
		"weights: not converted": {"PUT /weights", `[{"role":"eng","weight":"much"}]`, 400, "Failed to convert update weights request JSON array to weights: "},
		"weights: no weight":     {"PUT /weights", `[{"role":"eng"}]`, 400, "Missing required fields: weight"},
		"weights: role":          {"PUT /weights", `[{"role":"a b","weight":1}]`, 400, "Failed to validate update weights request JSON: Invalid role 'a b'"},
		"weights: unknown role":  {"PUT /weights", `[{"role":"web","weight":1}]`, 400, "Role 'web' is not present in the master's --roles"},
		"weights: zero":          {"PUT /weights", `[{"role":"eng","weight":0}]`, 400, "Weights must be positive"},
		"weights: method":        {"POST /weights", `[]`, 405, "405 Method Not Allowed. Expecting one of { 'GET', 'PUT' }, but received 'POST'."},
		"weights: none":          {"PUT /weights", `[]`, 200, ""},
		"quota: not JSON":        {"POST /quota", "{", 400, "Failed to parse set quota request JSON: "},
		"quota: not converted":   {"POST /quota", `{"role":7}`, 400, "Failed to validate set quota request JSON: "},
		"quota: no role":         {"POST /quota", `{}`, 400, "Failed to validate set quota request: QuotaInfo must specify a role"},
		"quota: no guarantee":    {"POST /quota", `{"role":"eng"}`, 400, "QuotaInfo with empty 'guarantee'"},
		"quota: no scalar":       {"POST /quota", `{"role":"eng","guarantee":[{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":1,"end":2}]}}]}`, 400, "QuotaInfo must not include non-scalar resources"},
		"quota: reserved":        {"POST /quota", `{"role":"eng","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"eng"}]}`, 400, "QuotaInfo must not contain any ReservationInfo"},
		"quota: twice":           {"POST /quota", `{"role":"eng","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}},{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}`, 400, "duplicate resource name 'cpus'"},
		"quota: negative":        {"POST /quota", `{"role":"eng","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":-1}}]}`, 400, "QuotaInfo with invalid resource"},
		"quota: unknown role":    {"POST /quota", `{"role":"web","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}`, 400, "Unknown role 'web'"},
		"quota: too much":        {"POST /quota", `{"role":"eng","guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":5}}]}`, 409, "Heuristic capacity check for set quota request failed: "},
		"quota: forced":          {"POST /quota", `{"role":"ops","force":true,"guarantee":[{"name":"cpus","type":"SCALAR","scalar":{"value":5}}]}`, 200, ""},
		"quota: method":          {"PUT /quota", `{}`, 405, "405 Method Not Allowed. Expecting one of { 'GET', 'POST', 'DELETE' }, but received 'PUT'."},
		"quota: remove none":     {"DELETE /quota/eng", "", 400, "Failed to remove quota for role 'eng': Role 'eng' has no quota set"},
		"quota: remove unknown":  {"DELETE /quota/web", "", 400, "Unknown role 'web'"},
		"quota: remove no role":  {"DELETE /quota", "", 400, "3 tokens ('master', 'quota', 'role') required, found 2 token(s)"},
		"quota: remove too much": {"DELETE /quota/a/b", "", 400, "3 tokens ('master', 'quota', 'role') required, found 4 token(s)"},
		"quota: bad escape":      {"DELETE /quota/%25zz", "", 400, "Unknown role '%zz'"},
		"explain: no framework":  {"GET /allocator/explain", "", 400, "Missing 'framework_id' query parameter"},
		"explain: unknown":       {"GET /allocator/explain?framework_id=x", "", 404, "No framework found with specified ID"},
		"roles: the listed ones": {"GET /roles", "", 200, `{"roles":[{"name":"*","weight":1.0,`},
		"roles: and no more":     {"GET /roles", "", 200, `"frameworks":[]},{"name":"eng","weight":1.0,`},
	} {
		t.Run(name, func(t *testing.T) {
			resp, text := s.do(test.line, test.body)
			if resp.StatusCode != test.status || !strings.Contains(text, test.want) {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, text, test.status, test.want)
			}
			if resp.StatusCode == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
}
