package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

const oneDeployment = `[{"id":"97c1-d1","version":"2026-11-21T10:00:00.000Z","affectedApps":["/web"],"affectedPods":[],
 "steps":[{"actions":[{"action":"RestartApplication","app":"/web"}]}],
 "currentActions":[{"action":"RestartApplication","app":"/web","readinessCheckResults":[{"name":"up","taskId":"t","ready":false,"lastResponse":{"status":503}}]}],
 "currentStep":1,"totalSteps":1}]`

// deploying is a Marathon that has a deployment of /web once it was asked for one.
func deploying(t *testing.T) *fakeMarathon {
	t.Helper()
	f := newFakeMarathon(t)
	f.set("GET /v2/apps/web", http.StatusOK, `{"app":`+webStatus+`}`)
	begin := func(string) (int, string) {
		f.set("GET /v2/deployments", http.StatusOK, oneDeployment)
		return http.StatusOK, `{"version":"2026-11-21T10:00:00.000Z","deploymentId":"97c1-d1"}`
	}
	for _, what := range []string{"PUT /v2/apps/web", "PATCH /v2/apps/web", "POST /v2/apps/web/restart", "DELETE /v2/apps/web", "PUT /v2/apps", "PUT /v2/groups/shop"} {
		f.answer(what, begin)
	}
	return f
}

// endOnLook ends the deployment once it has been looked at.
func (f *fakeMarathon) endOnLook(events chan<- string, event string) {
	f.answer("GET /v2/apps/web", func(string) (int, string) {
		f.set("GET /v2/deployments", http.StatusOK, "[]")
		select {
		case events <- event:
		default:
		}
		return http.StatusOK, `{"app":` + webStatus + `}`
	})
}

const (
	went = "deployment 97c1-d1, step 1 of 1: restart /web\n" +
		"/web: 2 of 3 running, 1 healthy, 1 starting, not ready: check \"up\" answers 503; waiting: 3 of 3 nodes have too few cpus, 1 of 3 nodes do not meet a constraint\n"
	succeeded = `{"eventType":"deployment_success","id":"97c1-d1"}`
	failed    = `{"eventType":"deployment_failed","id":"97c1-d1","reason":"The upgrade has been cancelled"}`
)

// untilTime takes the time away that something took.
func untilTime(out string) string {
	at := strings.LastIndex(out, ", after ")
	if at < 0 {
		return out
	}
	return out[:at] + "\n"
}

func TestChangesWaitForTheirDeployments(t *testing.T) {
	for _, tt := range []struct {
		args        []string
		asked, done string
	}{
		{[]string{"scale", "web", "5"}, `PATCH /v2/apps/web?force=false {"instances":5}`, "/web has 5 instances"},
		{[]string{"suspend", "web", "--force"}, `PATCH /v2/apps/web?force=true {"instances":0}`, "/web is suspended"},
		{[]string{"restart", "/web"}, "POST /v2/apps/web/restart?force=false", "/web is restarted"},
		{[]string{"rm", "web", "--yes"}, "DELETE /v2/apps/web?force=false", "/web is removed"},
	} {
		f := deploying(t)
		f.set("GET /v2/queue", http.StatusOK, waitingQueue)
		f.endOnLook(f.stream(), succeeded)
		out, errs, code := f.run(App, "", tt.args...)
		if code != 0 || untilTime(out) != went+tt.done+"\n" || errs != "" {
			t.Errorf("%q: code %d, %q\n%s", tt.args, code, errs, out)
		}
		if got := f.changes(); len(got) != 1 || got[0] != tt.asked {
			t.Errorf("%q asked %q", tt.args, got)
		}
	}
}

func TestADeploymentThatFailsIsAnExitCode(t *testing.T) {
	f := deploying(t)
	f.endOnLook(f.stream(), failed)
	_, errs, code := f.run(App, "", "restart", "web")
	if code != exitFailed || errs != "starling app restart: deployment 97c1-d1 has failed: The upgrade has been cancelled\n" {
		t.Errorf("code %d, %q", code, errs)
	}
	f = deploying(t)
	f.endOnLook(f.stream(), failed)
	out, errs, code := f.run(App, "", "restart", "web", "-o", "json")
	var end deploymentEnd
	if err := json.Unmarshal([]byte(out), &end); err != nil || code != exitFailed || end.State != "failed" || end.Reason == "" || !strings.Contains(errs, "step 1 of 1") {
		t.Errorf("JSON: code %d, %v, %s%s", code, err, out, errs)
	}
}

// Without events, what is there in the end tells.
func TestWithoutEventsTheEndIsJudgedByWhatIsThere(t *testing.T) {
	status := func(change ...string) string {
		return `{"app":` + strings.NewReplacer(change...).Replace(webStatus) + `}`
	}
	const three, third, run = `"tasksRunning":3`, `"state":"TASK_STAGING"`, `"state":"TASK_RUNNING"`
	for name, tt := range map[string]struct {
		status int
		body   string
		code   int
		said   string
	}{
		"all do": {
			http.StatusOK,
			status(`"tasksRunning":2`, three, third, run+`,"healthCheckResults":[{"alive":true}]`, `"alive":false`, `"alive":true`),
			0, "",
		},
		"all run": {http.StatusOK, status(`"tasksRunning":2`, three, third, run), exitFailed, "has failed: 1 of 3 instances of /web are healthy"},
		"old ones run": {
			http.StatusOK,
			status(`"tasksRunning":2`, three, third, run, `"version":"2026-11-21T10:00:00.000Z","health`, `"version":"2026-11-21T09:00:00.000Z","health`),
			exitFailed, "has failed: 1 of 3 instances of /web are of the new definition",
		},
		"some do":       {http.StatusOK, status(), exitFailed, "has failed: 2 of 3 instances of /web run"},
		"changed again": {http.StatusOK, status(`"version":"2026-11-21T10:00:00.000Z",`+"\n", `"version":"2026-11-21T10:00:01.000Z",`+"\n"), exitFailed, "has failed: /web was changed again meanwhile"},
		"gone":          {http.StatusNotFound, `{"message":"App '/web' does not exist"}`, exitFailed, "has failed: /web is not there any more"},
	} {
		f := deploying(t)
		f.answer("GET /v2/apps/web", func(string) (int, string) {
			f.set("GET /v2/deployments", http.StatusOK, "[]")
			return tt.status, tt.body
		})
		if _, errs, code := f.run(App, "", "restart", "web"); code != tt.code || !strings.Contains(errs, tt.said) || !strings.Contains(errs, "events can't be heard") {
			t.Errorf("%s: code %d, %q", name, code, errs)
		}
		// One that was over before anybody could look is judged by the apps of its version.
		if tt.status != http.StatusOK || name == "changed again" {
			continue
		}
		f = newFakeMarathon(t)
		f.set("POST /v2/apps/web/restart", http.StatusOK, `{"version":"2026-11-21T10:00:00.000Z","deploymentId":"97c1-d1"}`)
		f.set("GET /v2/apps", http.StatusOK, `{"apps":[`+strings.TrimSuffix(strings.TrimPrefix(tt.body, `{"app":`), "}")+`,{"id":"/other","version":"v"}]}`)
		f.set("GET /v2/apps/web", tt.status, tt.body)
		if _, errs, code := f.run(App, "", "restart", "web"); code != tt.code || !strings.Contains(errs, tt.said) {
			t.Errorf("%s, never seen: code %d, %q", name, code, errs)
		}
	}
}

func TestNotWaitingAndWaitingNoLonger(t *testing.T) {
	const watch = "starling deployment watch 97c1-d1 shows it"
	f := deploying(t)
	f.want(App, 0, "deployment 97c1-d1 has begun; "+watch+"\n", "", "restart", "web", "--detach")
	_, errs, code := f.run(App, "", "restart", "web", "--timeout", "50ms")
	if code != exitPatience || !strings.Contains(errs, "deployment 97c1-d1 has not ended within 50ms and goes on; "+watch) {
		t.Errorf("timeout: code %d, %q", code, errs)
	}
	f.want(App, 2, "", "--timeout -1s is negative", "restart", "web", "--timeout=-1s")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &notices{on: "step 1 of 1", do: cancel}
	var e bytes.Buffer
	code = App(ctx, Streams{Out: out, Err: &e}, []string{"restart", "web"}, []string{"STARLING_MARATHON=" + f.URL})
	if code != exitInterrupted || !strings.HasSuffix(e.String(), "\nstarling app restart: interrupted: deployment 97c1-d1 goes on; "+watch+"\n") {
		t.Errorf("interrupted: code %d, %q", code, e.String())
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	if code = Deployment(ctx, Streams{Out: &notices{on: "step 1 of 1", do: cancel}, Err: &e}, []string{"watch"}, []string{"STARLING_MARATHON=" + f.URL}); code != 0 {
		t.Errorf("a watch that is ended: code %d", code)
	}
}

// notices is a writer that does something once it is given a text.
type notices struct {
	on string
	do func()
	mu sync.Mutex
}

func (n *notices) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.Contains(string(p), n.on) {
		n.do()
	}
	return len(p), nil
}

func TestDeploymentCommands(t *testing.T) {
	f := newFakeMarathon(t)
	f.want(Deployment, 0, "no deployment is under way\n", "", "watch")
	f.want(Deployment, 1, "", `no deployment "97" is under way`, "cancel", "97")
	f.set("GET /v2/deployments", http.StatusOK, oneDeployment)
	f.want(Deployment, 0, "ID       VERSION                   AFFECTS  STEP    NOW\n97c1-d1  2026-11-21T10:00:00.000Z  /web     1 of 1  restart /web\n", "", "ls")
	f.set("DELETE /v2/deployments/97c1-d1", http.StatusAccepted, "")
	f.want(Deployment, 0, "deployment 97c1-d1 is cancelled; what it has done by now stays: /web\n", "", "cancel", "97", "--force")
	f.set("DELETE /v2/deployments/97c1-d1", http.StatusOK, `{"version":"v","deploymentId":"d2"}`)
	events := f.stream()
	events <- `{"eventType":"deployment_success","id":"d2"}`
	out, errs, code := f.run(Deployment, "", "cancel", "97c1")
	if code != 0 || untilTime(out) != "deployment 97c1-d1 is undone\n" {
		t.Errorf("cancel: code %d, %q %q", code, out, errs)
	}
	if got := f.changes(); strings.Join(got, "\n") != "DELETE /v2/deployments/97c1-d1?force=true\nDELETE /v2/deployments/97c1-d1" {
		t.Errorf("asked %q", got)
	}
	f.set("GET /v2/apps/web", http.StatusOK, `{"app":`+webStatus+`}`)
	f.endOnLook(events, failed)
	if out, errs, code := f.run(Deployment, "", "watch", "97"); code != exitFailed || !strings.Contains(out, "step 1 of 1") {
		t.Errorf("watch: code %d, %q %q", code, out, errs)
	}
}

func TestRefusalsAreToldInWords(t *testing.T) {
	for _, tt := range []struct {
		status     int
		body, said string
	}{
		{409, `{"message":"App is locked by one or more deployments.","deployments":[{"id":"97c1"}]}`, "starling app scale: locked: deployment 97c1 is at work on it. Wait for it " +
			"(starling deployment watch 97c1), undo it (starling deployment cancel 97c1), or cancel it by doing this with --force\n"},
		{
			422, `{"message":"Object is not valid","details":[{"path":"/cpus","errors":["error.min","and more"]},{"path":"/id","errors":["no\u001b"]}]}`,
			"starling app scale: HOST answers 422: Object is not valid\n  /cpus: is too small (error.min)\n  /cpus: and more\n  /id: no\\x1b\n",
		},
		{400, `{"message":"Invalid JSON","details":"Unexpected x"}`, "starling app scale: HOST answers 400: Invalid JSON\n  Unexpected x\n"},
		{401, `{"message":"Invalid username or password."}`, "starling app scale: HOST answers 401: Invalid username or password.; credentials are taken from the URL of --marathon, or from STARLING_MARATHON_AUTH\n"},
		{403, `too many`, "starling app scale: HOST answers 403: too many\n"},
		{500, ``, "starling app scale: HOST answers 500: Internal Server Error\n"},
	} {
		f := newFakeMarathon(t)
		f.set("PATCH /v2/apps/web", tt.status, tt.body)
		_, errs, code := f.run(App, "", "scale", "web", "2")
		if errs = strings.ReplaceAll(errs, f.Listener.Addr().String(), "HOST"); code != 1 || errs != tt.said {
			t.Errorf("%d: code %d, %q", tt.status, code, errs)
		}
	}
}

func TestTheNextMarathonIsAsked(t *testing.T) {
	dead, away, good := "http://"+unusedAddress(t), newFakeMarathon(t), newFakeMarathon(t)
	for what, status := range map[string]int{"GET /v2/apps": 502, "POST /v2/apps/web/restart": 504, "POST /v2/apps/db/restart": 503} {
		away.set(what, status, `{"message":"not now"}`)
	}
	good.set("GET /v2/apps", http.StatusOK, `{"apps":[{"id":"/web"}]}`)
	all := []string{"STARLING_MARATHON=" + dead + ", " + away.Listener.Addr().String() + "," + good.URL + "/"}
	if out, errs, code := runWith(t.Context(), App, all, "", "ls"); code != 0 || !strings.Contains(out, "/web ") {
		t.Errorf("ls: code %d, %s%s", code, out, errs)
	}
	// A restart that may have been done is not asked for again; one that was not delivered is, by the second address.
	for app, status := range map[string]string{"web": "504", "db": "503"} {
		if _, errs, code := runWith(t.Context(), App, all, "", "restart", app, "--detach"); code != 1 || !strings.Contains(errs, "answers "+status+": not now") || len(good.changes()) != 0 {
			t.Errorf("restart: code %d, %s; asked %q", code, errs, good.changes())
		}
	}
	none := []string{"STARLING_MARATHON=" + dead + "," + away.URL}
	if _, errs, code := runWith(t.Context(), App, none, "", "ls"); code != 1 || !strings.Contains(errs, "no Marathon answers: cannot reach ") || !strings.Contains(errs, "502: not now") {
		t.Errorf("none: code %d, %s", code, errs)
	}
}

func TestCredentialsAreSentAndNotShown(t *testing.T) {
	f := newFakeMarathon(t)
	var mu sync.Mutex
	var got []string
	inner := f.Config.Handler
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		mu.Lock()
		got = append(got, user+" "+password)
		mu.Unlock()
		inner.ServeHTTP(w, r)
	})
	host := f.Listener.Addr().String()
	for _, environ := range [][]string{
		{"STARLING_MARATHON=http://me:se%3Acret@" + host}, {"STARLING_MARATHON=" + host, "STARLING_MARATHON_AUTH=me:se:cret"},
	} {
		if _, errs, code := runWith(t.Context(), App, environ, "", "show", "x"); code != 1 || strings.Contains(errs, "cret") || strings.Contains(errs, "me:") {
			t.Errorf("code %d, %q", code, errs)
		}
	}
	if len(got) < 2 || slices.ContainsFunc(got, func(s string) bool { return s != "me se:cret" }) {
		t.Errorf("got %q", got)
	}
	for _, environ := range [][]string{{"STARLING_MARATHON=ftp://me:secret@h"}, {"STARLING_MARATHON=http://me:secret@h:x"}, {"STARLING_MARATHON_AUTH=secret"}} {
		if _, errs, code := runWith(t.Context(), App, environ, "", "ls"); code != 2 || strings.Contains(errs, "secret") {
			t.Errorf("%q: code %d, %q", environ, code, errs)
		}
	}
}

// Who does not lead sends those who listen for events to the leader, which gets the credentials only if it was named.
func TestEventsAreFollowedToTheLeader(t *testing.T) {
	for _, named := range []bool{true, false} {
		leader, follower := deploying(t), deploying(t)
		var mu sync.Mutex
		auth, inner := "none asked", leader.Config.Handler
		leader.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/events" {
				mu.Lock()
				auth = r.Header.Get("Authorization")
				mu.Unlock()
			}
			inner.ServeHTTP(w, r)
		})
		forward := follower.Config.Handler
		follower.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/events" {
				http.Redirect(w, r, leader.URL+r.RequestURI, http.StatusFound)
				return
			}
			forward.ServeHTTP(w, r)
		})
		leader.stream() <- succeeded
		urls := follower.URL
		if named {
			urls += "," + leader.URL
		}
		out, errs, code := runWith(t.Context(), App, []string{"STARLING_MARATHON=" + urls, "STARLING_MARATHON_AUTH=me:secret"}, "", "restart", "web")
		mu.Lock()
		got := auth
		mu.Unlock()
		if code != 0 || named != strings.HasPrefix(got, "Basic ") || got == "none asked" {
			t.Errorf("named %v: code %d, %q %q; credentials %q", named, code, out, errs, got)
		}
	}
}

func TestRemovingNeedsAYes(t *testing.T) {
	f := deploying(t)
	f.want(App, 2, "", "there is no terminal to ask at; --yes removes /web without", "rm", "web")
	if got := f.changes(); len(got) != 0 {
		t.Errorf("asked %q", got)
	}
}

func TestMarathonAwayForAWhileIsWaitedFor(t *testing.T) {
	f := deploying(t)
	looks := 0
	events := f.stream()
	f.answer("POST /v2/apps/web/restart", func(string) (int, string) {
		f.answer("GET /v2/deployments", func(string) (int, string) {
			if looks++; looks == 2 {
				events <- succeeded
			}
			return http.StatusServiceUnavailable, `{"message":"Marathon is starting up, or shutting down"}`
		})
		return http.StatusOK, `{"version":"v","deploymentId":"97c1-d1"}`
	})
	out, errs, code := f.run(App, "", "restart", "web")
	if code != 0 || !strings.Contains(out, "Marathon can't be asked, and is tried again: ") || !strings.Contains(out, "/web is restarted") {
		t.Errorf("code %d, %s%s", code, out, errs)
	}
}
