package cli

import (
	"net/http"
	"strings"
	"testing"
)

const podSpec = `{"id":"/edge/cam","version":"2026-11-21T10:00:00.000Z","labels":{"tier":"edge"},"containers":[
	{"name":"grab","exec":{"command":{"shell":"g"}},"resources":{"cpus":0.2,"mem":64,"disk":0,"gpus":0}},
	{"name":"serve","exec":{"command":{"shell":"s"}},"resources":{"cpus":0.1,"mem":32,"disk":0,"gpus":0},"healthCheck":{"exec":{"command":{"shell":"true"}},
	 "gracePeriodSeconds":300,"intervalSeconds":60,"maxConsecutiveFailures":3,"timeoutSeconds":20,"delaySeconds":15}}],
	"networks":[{"mode":"host"}],"scaling":{"kind":"fixed","instances":2},"scheduling":{"backoff":{"backoff":1,"backoffFactor":1.15,"maxLaunchDelay":300},
	"upgrade":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"placement":{},"killSelection":"YOUNGEST_FIRST","unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}},
	"executorResources":{"cpus":0.1,"mem":32,"disk":10},"role":"*"}`

const podNow = `{"id":"/edge/cam","spec":` + podSpec + `,"status":"DEGRADED","instances":[
	{"id":"edge_cam.instance-1","status":"STABLE","agentHostname":"n1","specReference":"/v2/pods/edge/cam::versions/2026-11-21T10:00:00.000Z","containers":[
	 {"name":"grab","status":"TASK_RUNNING","containerId":"edge_cam.instance-1.grab.1","conditions":[],"endpoints":[]},
	 {"name":"serve","status":"TASK_RUNNING","containerId":"edge_cam.instance-1.serve.1","conditions":[{"name":"healthy","value":"true","reason":"health-reported-by-mesos"}],
	  "endpoints":[{"name":"web","allocatedHostPort":31005}]}]},
	{"id":"edge_cam.instance-2","status":"STAGING","agentHostname":"n2","specReference":"/v2/pods/edge/cam::versions/2026-11-21T10:00:00.000Z","containers":[
	 {"name":"grab","status":"TASK_STARTING","containerId":"edge_cam.instance-2.grab.1"},{"name":"serve","status":"TASK_STAGING","containerId":"edge_cam.instance-2.serve.1"}]}],
	"terminationHistory":[]}`

// says runs a command and wants a text in what it prints.
func (f *fakeMarathon) says(code int, text string, args ...string) {
	f.t.Helper()
	if out, errs, got := f.run(App, "", args...); got != code || !strings.Contains(out, text) {
		f.t.Errorf("%q: code %d, want %d\n%s%s\nwant in it: %s", args, got, code, out, errs, text)
	}
}

func onePod(t *testing.T) *fakeMarathon {
	f := newFakeMarathon(t)
	f.set("GET /v2/apps", http.StatusOK, `{"apps":[]}`)
	f.set("GET /v2/pods::status", http.StatusOK, "["+podNow+"]")
	f.set("GET /v2/pods/edge/cam::status", http.StatusOK, podNow)
	f.set("GET /v2/pods/edge/cam", http.StatusOK, podSpec)
	f.set("GET /v2/groups", http.StatusOK, `{"id":"/","apps":[],"pods":[],"groups":[{"id":"/edge","apps":[],"groups":[],"pods":[`+podNow+`]}]}`)
	return f
}

func TestPodsAreShownBesideApps(t *testing.T) {
	f := onePod(t)
	f.says(0, "/edge/cam  1 of 2   1 of 1   0.4   128 MiB", "ls")
	f.says(0, "pod of grab, serve, 1 starting", "ls", "--label", "tier==edge")
	if out, _, _ := f.run(App, "", "ls", "--label", "tier==core"); strings.Contains(out, "cam") {
		t.Errorf("ls with another label: %s", out)
	}
	f.says(0, `"pods"`, "ls", "-o", "json")
	f.says(0, "2 wanted, 1 running, 1 starting, 1 healthy", "show", "/edge/cam")
	f.says(0, "edge_cam.instance-1.serve.1  running   healthy  n1    31005", "show", "/edge/cam")
	if _, errs, code := f.run(App, "", "show", "/edge/cam2"); code != 1 || !strings.Contains(errs, "404") {
		t.Errorf("show of what is not there: code %d, %s", code, errs)
	}
}

func TestPodsAreChangedLikeApps(t *testing.T) {
	began := func(f *fakeMarathon, what string, status int) {
		f.set(what, status, `{"deploymentId":"d1"}`)
	}
	at := definitionFiles(t, map[string]string{
		"known": strings.Replace(podSpec, `"scaling":{"kind":"fixed","instances":2},`, "", 1), "new": strings.Replace(podSpec, "/edge/cam", "/edge/new", 1),
	})
	for _, tt := range []struct {
		answers, asked string
		args           []string
	}{
		{"PUT /v2/pods/edge/cam", `PUT /v2/pods/edge/cam?force=false {`, []string{"scale", "/edge/cam", "5"}},
		{"PUT /v2/pods/edge/cam", `PUT /v2/pods/edge/cam?force=false {`, []string{"suspend", "edge/cam"}},
		{"POST /v2/pods/edge/cam::restart", `POST /v2/pods/edge/cam::restart?force=true`, []string{"restart", "/edge/cam", "--force"}},
		{"DELETE /v2/pods/edge/cam", `DELETE /v2/pods/edge/cam?force=false`, []string{"rm", "/edge/cam", "--yes"}},
		{"PUT /v2/pods/edge/cam", `PUT /v2/pods/edge/cam?force=false {`, []string{"deploy", at("known")}},
		{"POST /v2/pods", `POST /v2/pods?force=false {"id":"/edge/new"`, []string{"deploy", at("new")}},
	} {
		f := onePod(t)
		began(f, tt.answers, http.StatusOK)
		f.says(0, "deployment d1 has begun", append(tt.args, "--detach")...)
		got := f.changes()
		if len(got) != 1 || !strings.HasPrefix(got[0], tt.asked) {
			t.Fatalf("%q asked %q, want %s", tt.args, got, tt.asked)
		}
		if want := map[string]string{"scale": `"instances":5`, "suspend": `"instances":0`, "deploy": `"instances":2`}[tt.args[0]]; !strings.Contains(got[0], want) {
			t.Errorf("%q asked %q, want %s in it", tt.args, got, want)
		}
	}
}

// Its tasks are parts of instances: two that run are not two instances.
func TestWithoutEventsTheEndOfAPodIsJudgedByItsInstances(t *testing.T) {
	const began = `{"version":"2026-11-21T10:00:00.000Z","deploymentId":"d1"}`
	f := onePod(t)
	f.set("POST /v2/pods/edge/cam::restart", http.StatusOK, began)
	if _, errs, code := f.run(App, "", "restart", "/edge/cam"); code != exitFailed || !strings.Contains(errs, "1 of 2 instances of /edge/cam run") {
		t.Errorf("code %d, %s", code, errs)
	}
	whole := strings.NewReplacer("TASK_STARTING", "TASK_RUNNING", "TASK_STAGING", "TASK_RUNNING", `"value":"true"`, `"value":"false"`).Replace(podNow)
	f.set("GET /v2/pods::status", http.StatusOK, "["+whole+"]")
	f.set("GET /v2/pods/edge/cam::status", http.StatusOK, whole)
	if _, errs, code := f.run(App, "", "restart", "/edge/cam"); code != exitFailed || !strings.Contains(errs, "1 of 2 instances of /edge/cam are healthy") {
		t.Errorf("unhealthy: code %d, %s", code, errs)
	}
}

// That there is no such app says nothing where pods can't be asked for.
func TestAPodThatCannotBeAskedForIsNotMissing(t *testing.T) {
	f := onePod(t)
	f.set("GET /v2/pods/edge/cam::status", http.StatusInternalServerError, `{"message":"no store"}`)
	for _, args := range [][]string{{"show", "/edge/cam"}, {"logs", "/edge/cam"}} {
		if _, errs, code := f.run(App, "", args...); code != 1 || !strings.Contains(errs, "500: no store") {
			t.Errorf("%q: code %d, %s", args, code, errs)
		}
	}
}

func TestPlanOfAPod(t *testing.T) {
	at := definitionFiles(t, map[string]string{
		"same": podSpec, "more": strings.Replace(podSpec, `"instances":2`, `"instances":3`, 1), "other": strings.Replace(podSpec, `"cpus":0.2`, `"cpus":0.3`, 1),
	})
	f := onePod(t)
	f.says(0, "nothing to do", "plan", at("same"))
	f.says(2, "/edge/cam  scales from 2 to 3", "plan", at("more"))
	f.says(2, "/edge/cam  restarts its 2 instances\n    /containers(0)/resources/cpus: 0.2 -> 0.3", "plan", at("other"))
}

func TestPodWhyAndHistory(t *testing.T) {
	f := onePod(t)
	f.set("GET /v2/queue", http.StatusOK, `{"queue":[{"pod":{"id":"/edge/cam"},"count":1,"delay":{"overdue":true},"processedOffersSummary":{"processedOffersCount":1},
		"lastUnusedOffers":[{"offer":{"hostname":"n3"},"reason":["InsufficientCpus"],"why":["needs 1 cpus, the offer has 0.5"]}]}]}`)
	f.says(0, "/edge/cam waits to launch 1 of 2 instances", "why", "/edge/cam")
	f.set("GET /v2/pods/edge/cam::versions", http.StatusOK, `["2026-11-21T10:00:00.000Z","2026-11-21T09:00:00.000Z"]`)
	f.set("GET /v2/pods/edge/cam::versions/2026-11-21T10:00:00.000Z", http.StatusOK, podSpec)
	f.set("GET /v2/pods/edge/cam::versions/2026-11-21T09:00:00.000Z", http.StatusOK, strings.Replace(podSpec, `"instances":2`, `"instances":1`, 1))
	f.says(0, "2026-11-21T10:00:00.000Z  scaled from 1 to 2", "history", "/edge/cam")
	f.set("PUT /v2/pods/edge/cam", http.StatusOK, `{"deploymentId":"d1"}`)
	f.want(App, 1, "", "was not undone", "rollback", "/edge/cam", "--detach") // scaling is nothing to go back from
	f.set("GET /v2/pods/edge/cam::versions/2026-11-21T09:00:00.000Z", http.StatusOK,
		strings.NewReplacer(`"instances":2`, `"instances":1`, `"cpus":0.2`, `"cpus":0.3`).Replace(podSpec))
	f.says(0, "/edge/cam  restarts its 2 instances\n    /containers(0)/resources/cpus: 0.2 -> 0.3", "rollback", "/edge/cam", "--dry-run")
	f.says(0, "deployment d1 has begun", "rollback", "/edge/cam", "--detach")
	if got := f.changes(); len(got) != 1 || !strings.Contains(got[0], `"instances":2`) || !strings.Contains(got[0], `"cpus":0.3`) {
		t.Errorf("rollback asked %q", got)
	}
}

func TestTaskNames(t *testing.T) {
	const uuid = "5a0e8c51-0a01-11ef-8b3c-0242ac110002"
	for id, want := range map[string]string{
		"web.instance-" + uuid + "._app.1": "web.5a0e8c51", "web.instance-" + uuid + "._app.3": "web.5a0e8c51.3",
		"edge_cam.instance-" + uuid + ".grab.1": "edge_cam.5a0e8c51.grab", "edge_cam.instance-" + uuid + ".grab.2": "edge_cam.5a0e8c51.grab.2", "other": "other",
	} {
		if got := taskName(id); got != want {
			t.Errorf("%s is named %s, want %s", id, got, want)
		}
	}
}
