package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeMarathon answers as the test says, by method and path; queries are recorded and do not count.
type fakeMarathon struct {
	*httptest.Server
	t       *testing.T
	mu      sync.Mutex
	answers map[string]func(body string) (int, string)
	asked   []string // method, path, query and body of what changes something
	// events has what the event stream tells; nil has no stream.
	events chan string
}

func newFakeMarathon(t *testing.T) *fakeMarathon {
	t.Helper()
	f := &fakeMarathon{t: t, answers: map[string]func(string) (int, string){}}
	stop := make(chan struct{})
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		if r.Method != http.MethodGet {
			f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.RequestURI+" "+string(body)))
		}
		answer, events := f.answers[r.Method+" "+r.URL.Path], f.events
		f.mu.Unlock()
		if r.URL.Path == "/v2/events" && events != nil {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			for {
				select {
				case data := <-events:
					fmt.Fprintf(w, "event: x\ndata: %s\n\n", data)
					_ = http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				case <-stop:
					return
				}
			}
		}
		if answer == nil {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"URI not found"}`)
			return
		}
		status, text := answer(string(body))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(func() { close(stop); f.Close() })
	f.set("GET /v2/queue", http.StatusOK, `{"queue":[]}`)
	f.set("GET /v2/deployments", http.StatusOK, `[]`)
	f.set("GET /v2/groups", http.StatusOK, `{"id":"/","apps":[],"groups":[]}`)
	f.set("GET /v2/info", http.StatusOK, `{"marathon_config":{"mesos_role":"*"}}`)
	return f
}

func (f *fakeMarathon) set(what string, status int, text string) {
	f.answer(what, func(string) (int, string) { return status, text })
}

func (f *fakeMarathon) answer(what string, answer func(body string) (int, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[what] = answer
}

// stream gives the fake an event stream.
func (f *fakeMarathon) stream() chan<- string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = make(chan string, 10)
	return f.events
}

func (f *fakeMarathon) changes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// run runs a command of a group against the fake.
func (f *fakeMarathon) run(group func(context.Context, Streams, []string, []string) int, in string, args ...string) (out, errs string, code int) {
	f.t.Helper()
	return runWith(f.t.Context(), group, []string{"STARLING_MARATHON=" + f.URL}, in, args...)
}

func runWith(ctx context.Context, group func(context.Context, Streams, []string, []string) int, environ []string, in string, args ...string) (out, errs string, code int) {
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	code = group(ctx, Streams{Out: &o, Err: &e, In: strings.NewReader(in)}, args, environ)
	return o.String(), e.String(), code
}

// want runs a command, and compares. errs is a part of what is said on the errors, or empty for nothing.
func (f *fakeMarathon) want(group func(context.Context, Streams, []string, []string) int, code int, out, errs string, args ...string) {
	f.t.Helper()
	gotOut, gotErrs, got := f.run(group, "", args...)
	gotErrs = strings.ReplaceAll(gotErrs, f.Listener.Addr().String(), "HOST")
	if got != code || gotOut != out || !strings.Contains(gotErrs, errs) || errs == "" && gotErrs != "" {
		f.t.Errorf("%q: code %d, errors %q, out\n%s\nwant %d, %q\n%s", args, got, gotErrs, gotOut, code, errs, out)
	}
}

const webStatus = `{"id":"/web","cmd":"serve\u001b[2J","instances":3,"cpus":0.125,"mem":64,"disk":0,"gpus":0,"version":"2026-11-21T10:00:00.000Z",
 "healthChecks":[{"protocol":"HTTP"}],"versionInfo":{"lastScalingAt":"2026-11-21T10:00:00.000Z","lastConfigChangeAt":"2026-11-21T10:00:00.000Z"},
 "tasksStaged":1,"tasksRunning":2,"tasksHealthy":1,"tasksUnhealthy":1,"deployments":[{"id":"d1"}],
 "lastTaskFailure":{"host":"edge1","message":"Command exited with status 3","state":"TASK_FAILED","timestamp":"2026-11-21T09:00:00.000Z"},
 "tasks":[
  {"id":"web.instance-aa-1._app.1","host":"edge1","state":"TASK_RUNNING","ports":[31000,31001],"version":"2026-11-21T10:00:00.000Z","healthCheckResults":[{"alive":true}]},
  {"id":"web.instance-bb-1._app.2","host":"edge2","state":"TASK_RUNNING","ports":[31000],"version":"2026-11-21T10:00:00.000Z","healthCheckResults":[{"alive":false,"lastFailureCause":"500 Oops"}]},
  {"id":"web.instance-cc-1._app.1","host":"edge2","state":"TASK_STAGING","ports":[],"version":"2026-11-21T10:00:00.000Z"}]}`

const waitingQueue = `{"queue":[{"app":{"id":"/web"},"count":1,"role":"*","since":"2026-11-21T09:58:00.000Z","delay":{"timeLeftSeconds":0,"overdue":true},
 "processedOffersSummary":{"processedOffersCount":9,"unusedOffersCount":9},
 "lastUnusedOffers":[
  {"offer":{"hostname":"edge1","agentId":"S1"},"reason":["InsufficientCpus"],"why":["needs 4.0 cpus, the offer has 0.9"]},
  {"offer":{"hostname":"edge2","agentId":"S2"},"reason":["UnfulfilledConstraint","InsufficientCpus"]},
  {"offer":{"hostname":"edge3","agentId":"S3"},"reason":["InsufficientCpus"],"why":["needs 4.0 cpus, the offer has 0.1"]}]}]}`

func TestAppsAreListed(t *testing.T) {
	f := newFakeMarathon(t)
	f.set("GET /v2/apps", http.StatusOK, `{"apps":[`+webStatus+`,{"id":"/db","instances":0,"cpus":1,"mem":2048,"version":"v"}]}`)
	f.set("GET /v2/queue", http.StatusOK, waitingQueue)
	f.want(App, 0, ""+
		"ID    RUNNING  HEALTHY  CPUS   MEM     VERSION                   NOTES\n"+
		"/db   0 of 0   -        1      2 GiB   v                         suspended\n"+
		"/web  2 of 3   1 of 2   0.125  64 MiB  2026-11-21T10:00:00.000Z  "+
		"deploying, 1 starting, waiting: 3 of 3 nodes have too few cpus, 1 of 3 nodes do not meet a constraint\n", "", "ls")
	out, _, code := f.run(App, "", "ls", "-o", "json", "--label", "a==b", "--id=w")
	var all struct{ Apps []map[string]any }
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || len(all.Apps) != 2 || all.Apps[0]["tasksRunning"] != 2.0 {
		t.Errorf("JSON: %d, %v, %s", code, err, out)
	}
}

func TestAppIsShown(t *testing.T) {
	f := newFakeMarathon(t)
	f.set("GET /v2/apps/web", http.StatusOK, `{"app":`+webStatus+`}`)
	out, errs, code := f.run(App, "", "show", "web")
	for _, want := range []string{
		"ID            /web\n", `COMMAND       serve\x1b[2J` + "\n", "EACH NEEDS    0.125 cpus, 64 MiB\n",
		"INSTANCES     3 wanted, 2 running, 1 starting, 1 healthy, 1 unhealthy\n", "LAST FAILURE  failed on edge1, ",
		"web.instance-aa-1._app.1  running  healthy    edge1  31000,31001  -    2026-11-21T10:00:00.000Z\n",
		"web.instance-bb-1._app.2  running  unhealthy  edge2  31000 ", "web.instance-cc-1._app.1  staging  -          edge2  - ",
	} {
		if !strings.Contains(out, want) || code != 0 || errs != "" {
			t.Errorf("code %d, %q, lacks %q:\n%s", code, errs, want, out)
		}
	}
	f.want(App, 1, "", "HOST answers 404: URI not found", "show", "none")
	f.want(App, 2, "", `"Web" is not the id of an app`, "show", "Web")
}

func TestWhy(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	var web appStatus
	if err := json.Unmarshal([]byte(webStatus), &web); err != nil {
		t.Fatal(err)
	}
	var waits struct{ Queue []*queued }
	if err := json.Unmarshal([]byte(waitingQueue), &waits); err != nil {
		t.Fatal(err)
	}
	backoff := &queued{Count: 2, Since: now.Add(-time.Minute)}
	backoff.Delay.TimeLeft = 42
	silent := &queued{Count: 1, Role: "web", Since: now.Add(-time.Minute)}
	silent.Delay.Overdue = true
	idle := appStatus{ID: "/web", Instances: 2, Running: 2}
	gated := deploymentView{ID: "d1", Apps: []string{"/web"}, Step: 1, Steps: 2, Current: []action{{
		Action: "RestartApplication", App: "/web", Readiness: []readiness{{Name: "up", TaskID: "t1"}, {Name: "up", TaskID: "t2", Ready: true}},
	}}}
	before := deploymentView{ID: "d2", Apps: []string{"/db", "/web"}, Step: 1, Steps: 2, Current: []action{{Action: "ScaleApplication", App: "/db"}}}
	for name, tt := range map[string]struct {
		app     *appStatus
		queue   *queued
		running []deploymentView
		want    []string
	}{
		"nothing":   {&idle, nil, nil, []string{"/web waits for nothing: 2 of 2 instances run."}},
		"suspended": {&appStatus{ID: "/web"}, nil, nil, []string{"/web is suspended: no instance is wanted."}},
		"too few": {&appStatus{ID: "/web", Instances: 2, Running: 1}, nil, nil, []string{
			"/web has 1 of 2 instances running, and Marathon does not say that it waits for anything.",
		}},
		"offers": {&idle, waits.Queue[0], nil, []string{
			"/web waits to launch 1 of 2 instances, for 2m.",
			"Of the nodes that made offers, 3 of 3 nodes have too few cpus, 1 of 3 nodes do not meet a constraint.",
		}},
		"backoff": {&appStatus{ID: "/web", Instances: 2, LastFailure: &taskFailure{Host: "edge1", Message: "exit 3", State: "TASK_FAILED", Timestamp: now.Add(-5 * time.Second)}}, backoff, nil, []string{
			"/web waits to launch 2 of 2 instances, for 60s.",
			"Its tasks have failed, so the next launch is put off for another 42s (backoff).",
			"The last failure of a task: failed on edge1, 5s ago: exit 3.",
		}},
		"no offers": {&idle, silent, nil, []string{
			"/web waits to launch 1 of 2 instances, for 60s.", `No node has made an offer to role "web" since.`,
			"See whether nodes have anything free, and whether a master leads: starling node ls, starling mesh members.",
		}},
		"readiness": {&idle, nil, []deploymentView{gated}, []string{
			"Deployment d1 is at step 1 of 2, and has to restart /web.", `Task t1 is not ready: check "up" has had no answer.`,
		}},
		"its turn": {&idle, nil, []deploymentView{before}, []string{
			"Deployment d2 has not come to it, or is done with it: it is at step 1 of 2, which is to scale /db.",
		}},
		"tasks": {&web, nil, nil, []string{
			"Task web.instance-bb-1._app.2 on edge2 is unhealthy: 500 Oops.",
			"Task web.instance-cc-1._app.1 is staging on edge2, for an unknown time.",
			"The last failure of a task: failed on edge1, 60m ago: Command exited with status 3.",
		}},
	} {
		if got := explain(tt.app, tt.queue, tt.running, now); strings.Join(got.Reasons, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got.Reasons, "\n"), strings.Join(tt.want, "\n"))
		}
	}
	f := newFakeMarathon(t)
	f.set("GET /v2/apps/web", http.StatusOK, `{"app":{"id":"/web","instances":1}}`)
	f.set("GET /v2/queue", http.StatusOK, waitingQueue)
	out, _, code := f.run(App, "", "why", "/web")
	if table := "NODE   WHY NOT\nedge1  needs 4.0 cpus, the offer has 0.9\nedge2  UnfulfilledConstraint; InsufficientCpus\nedge3  needs 4.0 cpus, the offer has 0.1\n"; code != 0 || !strings.HasSuffix(out, table) {
		t.Errorf("code %d\n%s", code, out)
	}
	out, _, code = f.run(App, "", "why", "/web", "-o", "json")
	var e explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 || !e.Waiting || len(e.Nodes) != 3 || e.Nodes[1].Host != "edge2" {
		t.Errorf("JSON: %d, %v, %s", code, err, out)
	}
}

const (
	versionOld = `{"id":"/web","cmd":"a","instances":1,"env":{"A":"1"},"version":"2026-11-21T08:00:00.000Z"}`
	versionMid = `{"id":"/web","cmd":"b","instances":2,"env":{"A":"1"},"version":"2026-11-21T09:00:00.000Z"}`
	versionNew = `{"id":"/web","cmd":"b","instances":2,"env":{"A":"2"},"version":"2026-11-21T10:00:00.000Z"}`
)

func versioned(f *fakeMarathon) {
	f.set("GET /v2/apps/web", http.StatusOK, `{"app":`+versionNew+`}`)
	f.set("GET /v2/apps/web/versions", http.StatusOK, `{"versions":["2026-11-21T09:00:00.000Z","2026-11-21T10:00:00.000Z","2026-11-21T08:00:00.000Z"]}`)
	f.set("GET /v2/apps/web/versions/2026-11-21T08:00:00.000Z", http.StatusOK, versionOld)
	f.set("GET /v2/apps/web/versions/2026-11-21T09:00:00.000Z", http.StatusOK, versionMid)
	f.set("GET /v2/apps/web/versions/2026-11-21T10:00:00.000Z", http.StatusOK, versionNew)
}

func TestHistoryTellsWhatChanged(t *testing.T) {
	f := newFakeMarathon(t)
	versioned(f)
	const newer = "2026-11-21T10:00:00.000Z  changed\n    /env/A: \"1\" -> \"2\"\n" +
		"2026-11-21T09:00:00.000Z  changed, and scaled from 1 to 2\n    /cmd: \"a\" -> \"b\"\n"
	f.want(App, 0, newer+"2026-11-21T08:00:00.000Z  the first that is kept\n", "", "history", "web")
	f.want(App, 0, newer+"1 more; --limit 0 shows all\n", "", "history", "web", "--limit", "2")
	f.want(App, 2, "", "--limit -1 is negative", "history", "web", "--limit=-1")
	out, _, code := f.run(App, "", "history", "web", "-o", "json")
	var list []versionChange
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 3 || list[1].Fields[0].Path != "/cmd" || list[2].Action != "create" {
		t.Errorf("JSON: %d, %v, %s", code, err, out)
	}
}

func TestAppLogsNameTheTasks(t *testing.T) {
	c := newCluster(t, nil)
	if err := os.WriteFile(filepath.Join(c.sandbox, "stdout"), []byte("one\ntwo\x1b[2J\nthree"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFakeMarathon(t)
	f.set("GET /v2/apps/web/tasks", http.StatusOK, `{"tasks":[{"id":"web-1","host":"edge1","state":"TASK_RUNNING"}]}`)
	environ := []string{"STARLING_MARATHON=" + f.URL, "STARLING_AGENT=" + c.mesh.addr}
	run := func(args ...string) (string, string, int) { return runWith(t.Context(), App, environ, "", args...) }
	if out, errs, code := run("logs", "web"); code != 0 || out != "web-1 | one\nweb-1 | two\x1b[2J\nweb-1 | three\n" {
		t.Errorf("code %d, %q %q", code, out, errs)
	}
	if out, errs, code := run("logs", "web", "--tail", "1", "-o", "json"); code != 0 || out != `{"line":"three","task":"web-1"}`+"\n" {
		t.Errorf("code %d, %q %q", code, out, errs)
	}
	if out, errs, code := run("logs", "web", "--task", "nope"); code != 1 || out != "" || !strings.Contains(errs, `/web has no task "nope" that runs`) {
		t.Errorf("code %d, %q %q", code, out, errs)
	}
	f.set("GET /v2/apps/web/tasks", http.StatusOK, `{"tasks":[{"id":"web-1"},{"id":"web-2"}]}`)
	if out, errs, code := run("logs", "web", "--tail=1"); code != 1 || out != "web-1 | three\n" || !strings.Contains(errs, `web-2: no task "web-2" is known`) {
		t.Errorf("code %d, %q %q", code, out, errs)
	}
	for id, want := range map[string]string{
		"shop_web.instance-664bba64-e58b-11f1-915a-c713be20680f._app.1": "shop_web.664bba64",
		"shop_web.instance-664bba64-e58b-11f1-915a-c713be20680f._app.3": "shop_web.664bba64.3", "other": "other",
	} {
		if got := taskName(id); got != want {
			t.Errorf("%s is named %s, want %s", id, got, want)
		}
	}
}
