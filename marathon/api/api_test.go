package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"starling/marathon"
	"starling/marathon/api"
	"starling/marathon/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/server"
	"starling/master/store"
)

const patience = 20 * time.Second

// rig is a Marathon on HTTP, with a cluster behind it.
type rig struct {
	t       *testing.T
	url     string
	cluster *mastertest.Cluster
	store   *mastertest.Store
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, cluster: mastertest.New(nil), store: mastertest.NewStore()}
	r.cluster.Add(mastertest.Agent{
		ID: "a1", Host: "127.0.0.1", CPUs: 20, Mem: 1 << 16, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999,
		Attributes: map[string]string{"rack": "r1"},
	})
	master := mastertest.NewServer(t, r.cluster)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	c := marathon.DefaultConfig()
	c.Masters, c.Hostname, c.Address, c.User = []string{master.Address()}, "here", ln.Addr().String(), "nobody"
	c.Store, c.Log, c.Version = r.store, log, "0.1"
	c.MinBackoff, c.MaxBackoff = 5*time.Millisecond, 50*time.Millisecond
	c.StorePatience = 200 * time.Millisecond
	m, err := marathon.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- m.Run(ctx) }()
	go func() { ended <- server.Serve(ctx, api.New(api.Config{Marathon: m, Log: log}), ln) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
		}
	})
	r.url = "http://" + ln.Addr().String()
	r.eventually("ready", func() bool { return r.do("GET", "/health", "").status == 200 })
	return r
}

func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(3 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-deadline:
			r.t.Fatalf("not in time: %s", what)
		}
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return v
}

// do sends a request as it stands: Go's client would tidy the path up.
func (r *rig) do(method, path, body string, headers ...string) answer {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	extra := ""
	for i := 0; i+1 < len(headers); i += 2 {
		extra += headers[i] + ": " + headers[i+1] + "\r\n"
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nContent-Type: application/json\r\nConnection: close\r\n%s\r\n%s",
		method, path, len(body), extra, body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// want sends a request and checks the status.
func (r *rig) want(status int, method, path, body string, headers ...string) answer {
	r.t.Helper()
	a := r.do(method, path, body, headers...)
	if a.status != status {
		r.t.Fatalf("%s %s %s: %d, want %d: %s", method, path, body, a.status, status, a.body)
	}
	return a
}

func (r *rig) settled() {
	r.t.Helper()
	r.eventually("no deployment runs", func() bool { return r.do("GET", "/v2/deployments", "").body == "[]" })
}

func (r *rig) running(name string) int {
	n := 0
	for _, t := range r.cluster.Tasks() {
		if t.Info.GetName() == name && t.State == mesos.TaskState_TASK_RUNNING {
			n++
		}
	}
	return n
}

// TestAcceptanceList is the list at the end of the specification.
func TestAcceptanceList(t *testing.T) {
	r := newRig(t)
	a := r.want(201, "POST", "/v2/apps", `{"id":"/a","cmd":"sleep 100","cpus":0.1}`)
	created := a.json(t)
	if created["instances"] != 1.0 || created["mem"] != 128.0 || created["version"] == nil {
		t.Errorf("created app: %s", a.body)
	}
	deployments := created["deployments"].([]any)
	if id := deployments[0].(map[string]any)["id"]; id != a.header.Get("Marathon-Deployment-Id") || id == "" {
		t.Errorf("deployment %v in the body, %q in the header", id, a.header.Get("Marathon-Deployment-Id"))
	}
	if got := a.header.Get("Location"); got != "/a" {
		t.Errorf("location %q", got)
	}
	r.settled()
	a = r.want(409, "POST", "/v2/apps", `{"id":"/a","cmd":"sleep 100"}`)
	if a.body != `{"message":"An app with id [/a] already exists."}` {
		t.Errorf("second post: %s", a.body)
	}

	r.cluster.Hold(true)
	r.want(200, "PUT", "/v2/apps/a", `{"cmd":"sleep 200"}`)
	a = r.want(409, "PUT", "/v2/apps/a", `{"instances":2}`)
	if locked := a.json(t); locked["deployments"] == nil || !strings.HasPrefix(locked["message"].(string), "App is locked by one or more deployments.") {
		t.Errorf("locked: %s", a.body)
	}
	r.want(200, "PUT", "/v2/apps/a?force=true", `{"instances":2}`)
	r.cluster.Hold(false)
	r.settled()

	a = r.want(422, "POST", "/v2/apps", `{"id":"/A","cmd":"x"}`)
	if detail := a.json(t)["details"].([]any)[0].(map[string]any); detail["path"] != "/id" {
		t.Errorf("bad id: %s", a.body)
	}
	a = r.want(400, "POST", "/v2/apps", `{`)
	if body := a.json(t); body["message"] != "Invalid JSON" {
		t.Errorf("broken JSON: %s", a.body)
	}
	r.eventually("the same with and without slash", func() bool {
		return r.want(200, "GET", "/v2/apps/?embed=apps.tasks", "").body == r.want(200, "GET", "/v2/apps?embed=apps.tasks", "").body
	})
	if a = r.want(200, "GET", "/v2/apps?label=tier!=x", ""); a.body != `{"apps":[]}` {
		t.Errorf("label selector: %s", a.body)
	}
	r.want(400, "DELETE", "/v2/apps/a/tasks?scale=true&wipe=true", "")
	r.eventually("nothing of the app waits in the queue", func() bool { return r.do("DELETE", "/v2/queue/a/delay", "").status == 404 })
	r.want(201, "POST", "/v2/apps", `{"id":"/big","cmd":"sleep 1","cpus":1000}`)
	r.want(204, "DELETE", "/v2/queue/big/delay", "")

	r.want(201, "PUT", "/v2/apps/g/one", `{"cmd":"sleep 1","cpus":0.1,"instances":2}`)
	r.want(200, "PUT", "/v2/groups/g?force=true", `{"scaleBy":2}`)
	if got := r.want(200, "GET", "/v2/apps/g/one", "").json(t)["app"].(map[string]any)["instances"]; got != 4.0 {
		t.Errorf("scaled by 2: %v instances", got)
	}
	r.want(422, "PUT", "/v2/groups/g", `{"scaleBy":2,"apps":[]}`)

	r.eventually("plain tasks", func() bool {
		return strings.Contains(r.want(200, "GET", "/v2/tasks", "", "Accept", "text/plain").body, "a\t10000\t127.0.0.1:")
	})
	if got := r.want(200, "GET", "/v2/tasks", "", "Accept", "*/*").header.Get("Content-Type"); got != "application/json" {
		t.Errorf("tasks as %q", got)
	}
	if got := r.want(200, "GET", "/ping", "").body; got != "pong" {
		t.Errorf("ping: %q", got)
	}
	if got := r.want(302, "GET", "/", "").header.Get("Location"); got != "/ui/" {
		t.Errorf("root leads to %q", got)
	}
}

func TestAppLife(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/apps", `{"id":"/shop/web","cmd":"./serve --port $PORT0","cpus":0.25,"mem":64,"instances":2,"labels":{"tier":"front"}}`)
	r.settled()
	first := r.want(200, "GET", "/v2/apps/shop/web", "").json(t)["app"].(map[string]any)
	if first["tasksRunning"] != 2.0 || len(first["tasks"].([]any)) != 2 {
		t.Fatalf("two tasks should run: %v", first)
	}
	task := first["tasks"].([]any)[0].(map[string]any)
	for _, field := range []string{"id", "appId", "host", "slaveId", "state", "ports", "servicePorts", "ipAddresses", "stagedAt", "startedAt", "version", "healthCheckResults", "localVolumes", "role"} {
		if _, ok := task[field]; !ok {
			t.Errorf("task lacks %s: %v", field, task)
		}
	}
	// Paths as clients write them.
	for _, path := range []string{"/v2/apps//shop/web", "/v2/apps/shop/web/", "/v2/apps/%2Fshop%2Fweb", "/v2//apps/shop//web"} {
		if got := r.want(200, "GET", path, "").json(t)["app"].(map[string]any)["id"]; got != "/shop/web" {
			t.Errorf("%s gives %v", path, got)
		}
	}
	old := first["version"].(string)

	r.want(200, "PUT", "/v2/apps//shop/web", `{"instances":3}`)
	r.settled()
	r.eventually("three tasks", func() bool { return r.running("web.shop") == 3 })
	r.want(200, "PATCH", "/v2/apps/shop/web", `{"cmd":"./serve2"}`)
	r.settled()
	versions := r.want(200, "GET", "/v2/apps/shop/web/versions", "").json(t)["versions"].([]any)
	if len(versions) != 3 || versions[2] != old {
		t.Errorf("versions %v, the oldest should be %s", versions, old)
	}
	if got := r.want(200, "GET", "/v2/apps/shop/web/versions/"+old, "").json(t); got["cmd"] != "./serve --port $PORT0" || got["app"] != nil {
		t.Errorf("old version: %v", got)
	}
	r.want(200, "PUT", "/v2/apps/shop/web", `{"version":"`+old+`"}`)
	r.settled()
	back := r.want(200, "GET", "/v2/apps/shop/web", "").json(t)["app"].(map[string]any)
	if back["cmd"] != "./serve --port $PORT0" || back["instances"] != 2.0 {
		t.Errorf("rolled back to %v", back)
	}
	before := r.want(200, "GET", "/v2/apps/shop/web/tasks", "").body
	r.want(200, "POST", "/v2/apps/shop/web/restart", "")
	r.settled()
	if after := r.want(200, "GET", "/v2/apps/shop/web/tasks", "").body; after == before {
		t.Error("restart left the tasks as they were")
	}
	a := r.want(200, "DELETE", "/v2/apps/shop/web", "")
	if a.json(t)["deploymentId"] == nil || a.json(t)["version"] == nil {
		t.Errorf("delete: %s", a.body)
	}
	r.settled()
	r.want(404, "GET", "/v2/apps/shop/web", "")
	// The end of a deployment is seen before it is written.
	r.eventually("nothing of it is left in the store", func() bool { return len(r.store.Keys("marathon/apps/")) == 0 })
}

func TestKills(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/apps", `{"id":"/web","cmd":"sleep 1","cpus":0.1,"instances":3,"backoffSeconds":0}`)
	r.settled()
	tasks := func() []string {
		var ids []string
		for _, task := range r.want(200, "GET", "/v2/apps/web/tasks", "").json(t)["tasks"].([]any) {
			if task.(map[string]any)["state"] == "TASK_RUNNING" {
				ids = append(ids, task.(map[string]any)["id"].(string))
			}
		}
		return ids
	}
	ids := tasks()
	if got := r.want(200, "DELETE", "/v2/apps/web/tasks/"+ids[0], "").json(t)["task"].(map[string]any)["id"]; got != ids[0] {
		t.Errorf("killed %v, want %s", got, ids[0])
	}
	r.eventually("replaced", func() bool { return len(tasks()) == 3 && !strings.Contains(fmt.Sprint(tasks()), ids[0]) })
	r.want(404, "DELETE", "/v2/apps/web/tasks/web.instance-00000000-0000-1000-8000-000000000000._app.1", "")

	ids = tasks()
	r.want(200, "DELETE", "/v2/apps/web/tasks/"+ids[0]+"?scale=true", "")
	r.settled()
	r.eventually("two left", func() bool { return len(tasks()) == 2 && !strings.Contains(fmt.Sprint(tasks()), ids[0]) })

	if got := r.want(200, "DELETE", "/v2/apps/web/tasks?host=elsewhere", "").body; got != `{"tasks":[]}` {
		t.Errorf("nothing to kill: %s", got)
	}
	ids = tasks()
	r.want(400, "POST", "/v2/tasks/delete", `{"ids":["nonsense"]}`)
	r.want(400, "POST", "/v2/tasks/delete", `{"ids":`)
	if got := r.want(200, "POST", "/v2/tasks/delete", `{"ids":["`+ids[0]+`","web.instance-00000000-0000-1000-8000-000000000000._app.1"]}`); !strings.Contains(got.body, ids[0]) {
		t.Errorf("bulk kill: %s", got.body)
	}
	r.eventually("replaced", func() bool { return len(tasks()) == 2 && !strings.Contains(fmt.Sprint(tasks()), ids[0]) })
	r.want(200, "POST", "/v2/tasks/delete?scale=true", `{"ids":["`+tasks()[0]+`"]}`)
	r.settled()
	r.eventually("one left", func() bool { return len(tasks()) == 1 })
	ids = tasks()
	r.want(200, "DELETE", "/v2/apps/web/tasks?wipe=true", "")
	r.eventually("a new instance", func() bool {
		now := tasks()
		return len(now) == 1 && now[0][:40] != ids[0][:40]
	})
}

func TestDeploymentsAndQueue(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/apps", `{"id":"/web","cmd":"sleep 1","cpus":0.1}`)
	r.settled()
	r.cluster.Hold(true)
	id := r.want(200, "PUT", "/v2/apps/web", `{"instances":2}`).json(t)["deploymentId"].(string)
	var list []map[string]any
	if err := json.Unmarshal([]byte(r.want(200, "GET", "/v2/deployments", "").body), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0]["id"] != id || list[0]["currentStep"] != 1.0 || list[0]["totalSteps"] != 1.0 {
		t.Fatalf("deployments: %v", list)
	}
	if got := r.want(200, "GET", "/v2/deployments/"+id, "").json(t)["id"]; got != id {
		t.Errorf("deployment: %v", got)
	}
	undo := r.want(200, "DELETE", "/v2/deployments/"+id, "").json(t)["deploymentId"]
	if undo == id {
		t.Error("the way back has the id of the way there")
	}
	r.cluster.Hold(false)
	r.settled()
	if got := r.want(200, "GET", "/v2/apps/web", "").json(t)["app"].(map[string]any)["instances"]; got != 1.0 {
		t.Errorf("after the way back: %v instances", got)
	}
	r.cluster.Hold(true)
	id = r.want(200, "PUT", "/v2/apps/web", `{"instances":2}`).json(t)["deploymentId"].(string)
	if got := r.want(202, "DELETE", "/v2/deployments/"+id+"?force=true", ""); got.body != "" {
		t.Errorf("cancelled with a body: %q", got.body)
	}
	r.want(404, "DELETE", "/v2/deployments/"+id+"?force=true", "")
	r.want(404, "DELETE", "/v2/deployments/"+id, "")
	r.cluster.Hold(false)

	r.want(201, "POST", "/v2/apps", `{"id":"/big","cmd":"sleep 1","cpus":1000,"constraints":[["rack","LIKE","r2"]]}`)
	r.eventually("an offer was refused", func() bool {
		return strings.Contains(r.want(200, "GET", "/v2/queue?embed=lastUnusedOffers", "").body, `"unusedOffersCount":1`)
	})
	item := r.want(200, "GET", "/v2/queue?embed=lastUnusedOffers", "").json(t)["queue"].([]any)[0].(map[string]any)
	if item["count"] != 1.0 || item["delay"].(map[string]any)["overdue"] != true || item["app"].(map[string]any)["id"] != "/big" {
		t.Errorf("queue item: %v", item)
	}
	rows := item["processedOffersSummary"].(map[string]any)["rejectSummaryLastOffers"].([]any)
	if row := rows[1].(map[string]any); row["reason"] != "UnfulfilledConstraint" || row["declined"] != 1.0 || len(rows) != 10 {
		t.Errorf("funnel: %v", rows)
	}
	unused := item["lastUnusedOffers"].([]any)[0].(map[string]any)
	if fmt.Sprint(unused["reason"]) != "[UnfulfilledConstraint InsufficientCpus]" {
		t.Errorf("reasons: %v", unused["reason"])
	}
	if _, ok := r.want(200, "GET", "/v2/queue", "").json(t)["queue"].([]any)[0].(map[string]any)["lastUnusedOffers"]; ok {
		t.Error("unused offers are shown though nobody asked")
	}
}

func TestGroups(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/groups", `{"id":"/g","apps":[{"id":"a","cmd":"sleep 1","cpus":0.1},{"id":"b","cmd":"sleep 1","cpus":0.1,"dependencies":["a"]}]}`)
	r.settled()
	r.want(409, "POST", "/v2/groups", `{"id":"/g"}`)
	r.want(409, "POST", "/v2/groups", `{"id":"/"}`)
	r.want(409, "POST", "/v2/groups", `{"id":"/g/a"}`)
	var versions []string
	if err := json.Unmarshal([]byte(r.want(200, "GET", "/v2/groups/versions", "").body), &versions); err != nil || len(versions) != 1 {
		t.Fatalf("versions: %v, %v", versions, err)
	}
	dry := r.want(200, "PUT", "/v2/groups/g?dryRun=true", `{"apps":[{"id":"a","cmd":"sleep 2","cpus":0.1}]}`)
	if dry.body != `{"steps":[{"actions":[{"action":"StopApplication","app":"/g/b"}]},{"actions":[{"action":"RestartApplication","app":"/g/a"}]}]}` {
		t.Errorf("dry run: %s", dry.body)
	}
	r.want(200, "GET", "/v2/apps/g/b", "")
	r.want(200, "PUT", "/v2/groups/g", `{"apps":[{"id":"a","cmd":"sleep 2","cpus":0.1}]}`)
	r.settled()
	r.want(404, "GET", "/v2/apps/g/b", "")
	// Definitions that were removed are gone, so this tree cannot come back as it was.
	r.want(422, "PUT", "/v2/groups/g", `{"version":"`+versions[0]+`"}`)
	group := r.want(200, "GET", "/v2/groups/g", "").json(t)
	if group["id"] != "/g" || len(group["apps"].([]any)) != 1 || group["pods"] == nil || group["groups"] == nil {
		t.Errorf("group: %v", group)
	}
	if got := r.want(200, "GET", "/v2/apps/g/*", "").json(t)["*"].([]any); len(got) != 1 {
		t.Errorf("apps below: %v", got)
	}
	r.want(404, "GET", "/v2/apps/none/*", "")
	r.want(404, "GET", "/v2/groups/none", "")
	r.want(404, "DELETE", "/v2/groups/none", "")
	r.want(200, "PATCH", "/v2/groups/g", `{"enforceRole":true}`)
	if got := r.want(200, "GET", "/v2/groups/g", "").json(t)["enforceRole"]; got != true {
		t.Errorf("enforceRole: %v", got)
	}
	r.want(200, "DELETE", "/v2/groups/g", "")
	r.settled()
	r.want(404, "GET", "/v2/groups/g", "")
}

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
			a := r.do(tc.method, tc.path, tc.body)
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

func TestSystem(t *testing.T) {
	r := newRig(t)
	a := r.want(200, "GET", "/v2/info", "")
	info := a.json(t)
	if info["name"] != "marathon" || info["elected"] != true || info["project_version"] != "0.1" {
		t.Errorf("info: %s", a.body)
	}
	for _, h := range []string{"X-Marathon-Leader", "Cache-Control", "Pragma", "Expires", "X-Frame-Options", "X-XSS-Protection"} {
		if a.header.Get(h) == "" {
			t.Errorf("no %s", h)
		}
	}
	r.eventually("framework id", func() bool { return r.want(200, "GET", "/v2/info", "").json(t)["frameworkId"] != nil })
	if got := r.want(200, "GET", "/v2/leader", "").json(t)["leader"]; "http://"+fmt.Sprint(got) != r.url {
		t.Errorf("leader %v, want %s", got, r.url)
	}
	if got := r.want(200, "GET", "/v2/plugins", "").body; got != `{"plugins":[]}` {
		t.Errorf("plugins: %s", got)
	}
	metrics := r.want(200, "GET", "/metrics", "").json(t)
	if metrics["gauges"].(map[string]any)["marathon.apps.active.gauge"] == nil || metrics["counters"].(map[string]any)["marathon.deployments.counter"] == nil {
		t.Errorf("metrics: %v", metrics)
	}
	if got := r.want(200, "GET", "/metrics/prometheus", "").body; !strings.Contains(got, "marathon_instances_running_gauge 0") {
		t.Errorf("prometheus: %s", got)
	}
	if a := r.want(200, "OPTIONS", "/v2/apps/x", ""); a.header.Get("Allow") != "DELETE, GET, HEAD, OPTIONS, PATCH, PUT" {
		t.Errorf("allow: %q", a.header.Get("Allow"))
	}
	if a := r.want(200, "HEAD", "/v2/apps", ""); a.body != "" || a.header.Get("Content-Length") == "0" {
		t.Errorf("head: %v %q", a.header, a.body)
	}
	for accept, want := range map[string]string{"application/json": `"pong"`, "text/html": "pong", "*/*": "pong"} {
		if got := r.want(200, "GET", "/ping", "", "Accept", accept).body; got != want {
			t.Errorf("ping as %s: %q", accept, got)
		}
	}
	r.want(204, "GET", "/ping", "", "Accept", "image/png")
	r.want(201, "POST", "/v2/apps", `{"id":"/web","cmd":"sleep 1","cpus":0.1}`)
	r.settled()
	if got := r.want(200, "DELETE", "/v2/leader", "").body; got != `{"message":"Leadership abdicated"}` {
		t.Errorf("abdicated: %s", got)
	}
	r.eventually("leading again", func() bool { return r.do("GET", "/v2/apps/web", "").status == 200 })
	if r.running("web") != 1 {
		t.Error("the task is gone")
	}
}

// TestStoreTroubles has the store refuse a write for good, and then take none at all.
func TestStoreTroubles(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/apps", `{"id":"/web","cmd":"sleep 1","cpus":0.1}`)
	r.settled()
	r.store.Fail(func(ops []store.Op) error {
		for _, op := range ops {
			if strings.HasPrefix(op.Key, "marathon/apps/bad/") {
				return store.ErrInvalid
			}
		}
		return nil
	})
	if a := r.want(503, "POST", "/v2/apps", `{"id":"/bad","cmd":"x"}`); !strings.Contains(a.body, "nothing was changed") {
		t.Errorf("got %s", a.body)
	}
	r.eventually("healthy again", func() bool { return r.do("GET", "/health", "").status == 200 })
	r.want(404, "GET", "/v2/apps/bad", "")
	r.store.Fail(func([]store.Op) error { return errors.New("disk is full") })
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		r.do("PUT", "/v2/apps/web", `{"instances":2}`)
	}()
	r.eventually("unhealthy", func() bool { return r.do("GET", "/health", "").status == 503 })
	if a := r.want(503, "PUT", "/v2/apps/web", `{"instances":3}`); !strings.Contains(a.body, "has not taken a write") {
		t.Errorf("got %s", a.body)
	}
	r.want(200, "GET", "/v2/apps/web", "")
	r.store.Fail(nil)
	<-answered
	r.want(200, "GET", "/health", "")
	r.settled()
	if got := r.running("web"); got != 2 {
		t.Errorf("%d tasks run, want 2", got)
	}
}

func TestEventStream(t *testing.T) {
	r := newRig(t)
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/v2/events?event_type=event_stream_attached&event_type=status_update_event&event_type=deployment_success&event_type=api_post_event", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	lines := bufio.NewReader(resp.Body)
	next := func() (string, map[string]any) {
		t.Helper()
		var name string
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(line, "\r\n") {
				t.Fatalf("line does not end in CR LF: %q", line)
			}
			line = strings.TrimSuffix(line, "\r\n")
			if rest, ok := strings.CutPrefix(line, "event: "); ok {
				name = rest
			}
			if rest, ok := strings.CutPrefix(line, "data: "); ok {
				var data map[string]any
				if err := json.Unmarshal([]byte(rest), &data); err != nil {
					t.Fatalf("%v in %s", err, rest)
				}
				if data["eventType"] != name || data["timestamp"] == nil {
					t.Errorf("event %s with %s", name, rest)
				}
				return name, data
			}
		}
	}
	if name, _ := next(); name != "event_stream_attached" {
		t.Errorf("first event %s", name)
	}
	r.want(201, "POST", "/v2/apps", `{"id":"/web","cmd":"sleep 1","cpus":0.1}`)
	var names []string
	for len(names) < 4 {
		name, data := next()
		names = append(names, name)
		if name == "status_update_event" && (data["appId"] != "/web" || data["host"] != "127.0.0.1") {
			t.Errorf("status: %v", data)
		}
	}
	if got := strings.Join(names, " "); got != "api_post_event status_update_event status_update_event deployment_success" {
		t.Errorf("events: %s", got)
	}
}
