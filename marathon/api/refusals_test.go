package api_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestBadInput(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/apps", `{"id":"/web","cmd":"sleep 1","cpus":0.1}`)
	r.settled()
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"not JSON", "POST", "/v2/apps", `hello`, 400, `"Invalid JSON"`},
		{"empty body", "POST", "/v2/apps", ``, 400, `"Invalid JSON"`},
		{"wrong type", "POST", "/v2/apps", `{"id":"/x","cmd":"y","cpus":"one"}`, 422, `{"path":"/cpus","errors":["error.expected.jsnumber"]}`},
		{"no id", "POST", "/v2/apps", `{"cmd":"x"}`, 422, `{"path":"/id","errors":["error.path.missing"]}`},
		{"cmd and args", "POST", "/v2/apps", `{"id":"/x","cmd":"x","args":["y"]}`, 422, `AppDefinition must either contain one of`},
		{"null everywhere", "POST", "/v2/apps", `{"id":"/x","cmd":null,"args":null,"ports":null}`, 422, `AppDefinition must either`},
		{"root as app", "POST", "/v2/apps", `{"id":"/","cmd":"x"}`, 422, `"/id"`},
		{"unknown app", "GET", "/v2/apps/none", ``, 404, `App '/none' does not exist`},
		{"invalid id in the path", "GET", "/v2/apps/No_ne", ``, 404, `App '/No_ne' does not exist`},
		{"put to an invalid id", "PUT", "/v2/apps/No_ne", `{"cmd":"x"}`, 422, `"/id"`},
		{"patch of an unknown app", "PATCH", "/v2/apps/none", `{"instances":1}`, 404, `App '/none' does not exist`},
		{"bulk patch of an unknown app", "PATCH", "/v2/apps", `[{"id":"/none","instances":1}]`, 404, `App '/none' does not exist`},
		{"bulk put without list", "PUT", "/v2/apps", `{"id":"/x"}`, 422, `Invalid JSON`},
		{"version with others", "PUT", "/v2/apps/web", `{"version":"2024-05-04T10:11:12.345Z","cmd":"x"}`, 422, `The 'version' field may only be combined with the 'id' field.`},
		{"unknown version", "PUT", "/v2/apps/web", `{"version":"2024-05-04T10:11:12.345Z"}`, 404, `App '/web' does not exist in version 2024-05-04T10:11:12.345Z`},
		{"unknown version to read", "GET", "/v2/apps/web/versions/2024-05-04T10:11:12.345Z", ``, 404, `does not exist in version`},
		{"version that is no time", "GET", "/v2/apps/web/versions/yesterday", ``, 422, `yesterday`},
		{"versions of nothing", "GET", "/v2/apps/none/versions", ``, 404, `App '/none' does not exist`},
		{"restart of nothing", "POST", "/v2/apps/none/restart", ``, 404, `App '/none' does not exist`},
		{"delete of nothing", "DELETE", "/v2/apps/none", ``, 404, `App '/none' does not exist`},
		{"tasks of nothing", "GET", "/v2/apps/none/tasks", ``, 404, `App '/none' does not exist`},
		{"kill of nothing", "DELETE", "/v2/apps/none/tasks", ``, 404, `App '/none' does not exist`},
		{"bad selector", "GET", "/v2/apps?label=!!!", ``, 422, `Can not parse label selector`},
		{"deployment of nothing", "GET", "/v2/deployments/none", ``, 404, `DeploymentPlan none does not exist`},
		{"delay of nothing", "DELETE", "/v2/queue/none/delay", ``, 404, `Application /none not found in tasks queue.`},
		{"no such path", "GET", "/v2/nothing", ``, 404, `URI not found`},
		{"path that climbs", "GET", "/v2/apps/..%2f..", ``, 404, `URI not found`},
		{"path that climbs plainly", "GET", "/v2/apps/../..", ``, 404, `URI not found`},
		{"kill without body", "POST", "/v2/tasks/delete", ``, 400, `{"details":"unexpected end of input at line 1, column 1","message":"Invalid JSON"}`},
		{"kill without ids", "POST", "/v2/tasks/delete", `{}`, 422, `{"path":"/ids","errors":["error.path.missing"]}`},
		{"kill of one", "POST", "/v2/tasks/delete", `{"ids":"x"}`, 422, `{"path":"/ids","errors":["error.expected.jsarray"]}`},
		{"kill of numbers", "POST", "/v2/tasks/delete", `{"ids":[1]}`, 422, `{"path":"/ids(0)","errors":["error.expected.jsstring"]}`},
		{"kill with a list", "POST", "/v2/tasks/delete", `[]`, 422, `error.expected.jsobject`},
		{"kill of what is no task id", "DELETE", "/v2/apps/web/tasks/nonsense", ``, 404, `Task 'nonsense' does not exist`},
		{"kill of no task of nothing", "DELETE", "/v2/apps/none/tasks/nonsense", ``, 404, `App '/none' does not exist`},
		{"kill of a task of nothing", "DELETE", "/v2/apps/none/tasks/none.instance-5a0e8c51-0a01-11ef-8b3c-0242ac110002._app.1", ``, 404, `App '/none' does not exist`},
		{"scale down nothing", "DELETE", "/v2/apps/none/tasks?scale=true", ``, 404, `Path '/none' does not exist`},
		{"scale down nothing by a task", "DELETE", "/v2/apps/none/tasks/none.instance-5a0e8c51-0a01-11ef-8b3c-0242ac110002._app.1?scale=true", ``, 404, `Path '/none' does not exist`},
		{"bulk put without id", "PUT", "/v2/apps", `[{"id":"/web"},{"cmd":"x"}]`, 422, `{"path":"(1)/id","errors":["error.path.missing"]}`},
		{"bulk put with a bad id", "PUT", "/v2/apps", `[{"id":"/web"},{"id":"/B"}]`, 422, `"path":"(1)/id"`},
		{"bulk put with several faults", "PUT", "/v2/apps", `[{"id":"/web","args":["x"]},{"id":"/w","cmd":"x"},{"id":"/v","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":2,"maximumOverCapacity":0}}]`, 422, `[{"path":"(0)","errors":["AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."]},{"path":"(2)/upgradeStrategy/minimumHealthCapacity","errors":["got 2.0, expected between 0.0 and 1.0"]}]`},
		{"enforceRole of the wrong type", "PATCH", "/v2/groups/g", `{"enforceRole":"x"}`, 422, `[{"path":"/enforceRole","errors":["error.expected.jsboolean"]}]`},
		{"enforceRole that lacks", "PATCH", "/v2/groups/g", `{}`, 422, `[{"path":"/enforceRole","errors":["error.path.missing"]}]`},
		{"enforceRole in a list", "PATCH", "/v2/groups/g", `[]`, 422, `[{"path":"/","errors":["error.expected.jsobject"]}]`},
		{"enforceRole that is no JSON", "PATCH", "/v2/groups/g", `yes`, 400, `"message":"Invalid JSON"`},
		{"enforceRole of the root", "PATCH", "/v2/groups", `{"enforceRole":true}`, 422, `{"message":"Path needs to be top-level"}`},
		{"enforceRole of no group", "PATCH", "/v2/groups/g", `{"enforceRole":true}`, 404, `Group '/g' does not exist`},
		{"adoption without JSON", "POST", "/v2/orphans/adopt", `x`, 400, `"message":"Invalid JSON"`},
		{"adoption of one", "POST", "/v2/orphans/adopt", `{"ids":"x"}`, 422, `[{"path":"/ids","errors":["error.expected.jsarray"]}]`},
		{"dismissal of perhaps all", "POST", "/v2/orphans/dismiss", `{"all":"yes"}`, 422, `[{"path":"/all","errors":["error.expected.jsboolean"]}]`},
		{"tasks as a picture", "GET", "/v2/tasks image/png", ``, 406, `Tasks are listed as application/json or text/plain`},
		{"tasks of an app as a picture", "GET", "/v2/apps/web/tasks image/png", ``, 406, `Tasks are listed as`},
		{"schema of nothing", "GET", "/v2/schemas/task", ``, 404, `URI not found`},
		{"no such path at all", "GET", "/nothing/at/all", ``, 404, `URI not found`},
		{"plugin", "GET", "/v2/plugins/none/x", ``, 404, `No plugin with this pluginId: none`},
		{"wrong method", "POST", "/v2/queue", ``, 405, `Method not allowed`},
		{"trace", "TRACE", "/v2/apps", ``, 405, ``},
		{"events without accept", "GET", "/v2/events", ``, 405, ``},
		{"broken escape", "GET", "/v2/apps/%zz", ``, 404, `App '/%zz' does not exist`},
		{"instances below zero", "PUT", "/v2/apps/web", `{"instances":-1}`, 422, `"/instances"`},
		{"group with a bad id", "PUT", "/v2/groups/BAD", `{"apps":[]}`, 422, `"/id"`},
		{"a cycle", "POST", "/v2/groups", `{"id":"/c","apps":[{"id":"a","cmd":"x","dependencies":["b"]},{"id":"b","cmd":"x","dependencies":["a"]}]}`, 422, `Dependency graph has cyclic dependencies.`},
		{"an app in the place of a group", "POST", "/v2/groups", `{"id":"/web/below","apps":[{"id":"a","cmd":"x"}]}`, 422, `may not have the same identifier`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path, accept, _ := strings.Cut(tc.path, " ")
			a := r.do(tc.method, path, tc.body, "Accept", accept)
			if a.status != tc.status || !strings.Contains(a.body, tc.want) {
				t.Errorf("%s %s %s\ngot %d %s\nwant %d with %s", tc.method, tc.path, tc.body, a.status, a.body, tc.status, tc.want)
			}
			if a.status != 200 && a.body != "" && !json.Valid([]byte(a.body)) {
				t.Errorf("body is no JSON: %s", a.body)
			}
		})
	}
	// A body that is too large to be stored, and one that is too large at all.
	huge := `{"id":"/huge","cmd":"x","labels":{"l":"` + strings.Repeat("y", 1<<20) + `"}}`
	if a := r.do("POST", "/v2/apps", huge); a.status != 422 || !strings.Contains(a.body, "too large to be stored") {
		t.Errorf("huge app: %d %.200s", a.status, a.body)
	}
	if a := r.do("GET", "/v2/apps/web", ""); a.status != 200 || r.running("web") != 1 {
		t.Errorf("after all that: %d, %d tasks", a.status, r.running("web"))
	}
}
