package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	framework "starling/marathon"
	"starling/marathon/api"
	"starling/marathon/mastertest"
	"starling/master/mesos/server"
)

// realMarathon is one with its API over a store in memory and a simulated cluster.
func realMarathon(t *testing.T) string {
	t.Helper()
	cluster := mastertest.New(nil)
	cluster.Add(mastertest.Agent{ID: "a1", Host: "127.0.0.1", CPUs: 100, Mem: 1 << 20, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	c := framework.DefaultConfig()
	c.Masters, c.Hostname, c.Address, c.User = []string{mastertest.NewServer(t, cluster).Address()}, "127.0.0.1", ln.Addr().String(), "nobody"
	c.Store, c.Log = mastertest.NewStore(), log
	c.MinBackoff, c.MaxBackoff = 5*time.Millisecond, 50*time.Millisecond
	m, err := framework.New(c)
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
	deadline := time.After(time.Minute)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !m.Ready() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("marathon does not get ready")
		}
	}
	return "http://" + ln.Addr().String()
}

// old is what a Marathon of old shows: old and new forms side by side, status, and nulls.
const old = `{"id":"/","dependencies":[],"version":"2015-01-01T00:00:00.000Z","apps":[
 {"id":"/top","cmd":"x","cpus":0.1,"mem":16,"instances":1,"uris":["http://h/a.tgz"],"fetch":[{"uri":"http://h/a.tgz","extract":true}],
  "ports":[10001],"portDefinitions":[{"port":10001,"protocol":"tcp","labels":{}}],"args":null,"user":null,"storeUrls":[],"ipAddress":null,
  "version":"2015-01-01T00:00:00.000Z","versionInfo":{"lastScalingAt":"2015-01-01T00:00:00.000Z","lastConfigChangeAt":"2015-01-01T00:00:00.000Z"},
  "tasksStaged":0,"tasksRunning":1,"tasksHealthy":0,"tasksUnhealthy":0,"deployments":[],"residency":null}],
 "groups":[{"id":"/shop","dependencies":["/base"],"version":"2015-01-01T00:00:00.000Z","groups":[],"apps":[
  {"id":"/shop/web","cpus":0.1,"mem":16,"instances":2,"dependencies":["/shop/db"],"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0},
   "container":{"type":"DOCKER","docker":{"image":"nginx","network":"BRIDGE","portMappings":[{"containerPort":80,"hostPort":0,"servicePort":10002,"protocol":"tcp"}]},"volumes":[]},
   "ports":[10002],"portDefinitions":[{"port":10002,"protocol":"tcp","labels":{}}],"requirePorts":false,
   "healthChecks":[],"constraints":[["hostname","UNIQUE"]],"acceptedResourceRoles":null},
  {"id":"/shop/db","cmd":"x","cpus":0.1,"mem":16,"instances":1}]},
 {"id":"/base","groups":[],"apps":[],"dependencies":[]}]}`

func writeSource(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "groups.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tree asks for all apps of a Marathon, by id.
func tree(t *testing.T, at string) map[string]map[string]any {
	t.Helper()
	res, err := http.Get(at + "/v2/apps")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct{ Apps []map[string]any }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]any{}
	for _, a := range answer.Apps {
		out[a["id"].(string)] = a
	}
	return out
}

func TestImportTakesAnOldMarathonOver(t *testing.T) {
	target := []string{"STARLING_MARATHON=" + realMarathon(t)}
	at := strings.TrimPrefix(target[0], "STARLING_MARATHON=")
	from := writeSource(t, old)
	out, errs, code := runWith(t.Context(), App, target, "", "import", from, "--dry-run")
	for _, want := range []string{"note: /top: /uris is left out: fetch says the same", "/shop/web  new: 2 instances", "3 to take over, 0 there already, 2 groups to set"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("dry run: code %d, %s lacks %q:\n%s", code, errs, want, out)
		}
	}
	if n := len(tree(t, at)); n != 0 {
		t.Errorf("a dry run has made %d apps", n)
	}
	out, errs, code = runWith(t.Context(), App, target, "", "import", from, "-o", "json", "--suspended")
	var result importPlan
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 || len(result.Changes) != 3 || len(result.Deployments) == 0 {
		t.Fatalf("code %d, %v, %s%s", code, err, out, errs)
	}
	for _, d := range result.Deployments {
		if d.State != "done" {
			t.Errorf("a deployment is %+v", d)
		}
	}
	apps := tree(t, at)
	if len(apps) != 3 || apps["/shop/web"]["instances"] != 0.0 {
		t.Errorf("there are %v", apps)
	}
	if ports := apps["/shop/web"]["container"].(map[string]any)["portMappings"].([]any); len(ports) != 1 || ports[0].(map[string]any)["servicePort"] != 10002.0 {
		t.Errorf("ports of the container are %v", ports)
	}
	// What has instances by now keeps them, and nothing is done twice.
	if _, errs, code := runWith(t.Context(), App, target, "", "scale", "/shop/db", "1"); code != 0 {
		t.Fatalf("scale: %d %s", code, errs)
	}
	out, errs, code = runWith(t.Context(), App, target, "", "import", from, "--suspended")
	if code != 0 || !strings.Contains(out, "0 to take over, 3 there already, 0 groups to set") {
		t.Errorf("again: code %d, %s\n%s", code, errs, out)
	}
	if apps := tree(t, at); apps["/shop/db"]["instances"] != 1.0 {
		t.Errorf("/shop/db has %v instances", apps["/shop/db"]["instances"])
	}
	// What is there and is another is changed only by who says so.
	changed := writeSource(t, strings.Replace(old, `"cmd":"x","cpus":0.1,"mem":16,"instances":1}`, `"cmd":"y","cpus":0.1,"mem":16,"instances":1}`, 1))
	if _, errs, code = runWith(t.Context(), App, target, "", "import", changed, "--suspended"); code != 1 || !strings.Contains(errs, "/shop/db: is there already, and is another") {
		t.Errorf("another definition: code %d, %s", code, errs)
	}
	if _, errs, code = runWith(t.Context(), App, target, "", "import", changed, "--suspended", "--replace"); code != 0 || tree(t, at)["/shop/db"]["cmd"] != "y" {
		t.Errorf("replaced: code %d, %s", code, errs)
	}
}

// From one Marathon to another by its URL, without a stop between.
func TestImportFromAURL(t *testing.T) {
	first, second := realMarathon(t), realMarathon(t)
	from := writeSource(t, old)
	for _, step := range [][2]string{{first, from}, {second, first}} {
		if _, errs, code := runWith(t.Context(), App, []string{"STARLING_MARATHON=" + step[0]}, "", "import", step[1], "--suspended"); code != 0 {
			t.Fatalf("import from %s: code %d, %s", step[1], code, errs)
		}
	}
	a, b := tree(t, first), tree(t, second)
	for id := range a {
		for _, key := range []string{"version", "versionInfo", "deployments"} {
			delete(a[id], key)
			delete(b[id], key)
		}
		x, _ := json.Marshal(a[id])
		if y, _ := json.Marshal(b[id]); string(x) != string(y) {
			t.Errorf("%s became\n%s, was\n%s", id, y, x)
		}
	}
	out, errs, code := runWith(t.Context(), App, []string{"STARLING_MARATHON=" + second}, "", "import", first+"/v2/groups")
	if code != 0 || !strings.Contains(out, "0 to take over, 3 there already, 0 groups to set") {
		t.Errorf("again: code %d, %s%s", code, out, errs)
	}
	if _, errs, code = runWith(t.Context(), App, []string{"STARLING_MARATHON=" + second}, "", "import", "http://me:secret@127.0.0.1:1"); code != 1 || strings.Contains(errs, "secret") {
		t.Errorf("nobody there: code %d, %s", code, errs)
	}
}

func TestImportRefusesWithPaths(t *testing.T) {
	target := []string{"STARLING_MARATHON=" + realMarathon(t)}
	for name, tt := range map[string]struct{ source, said string }{
		"unknown field":  {`{"id":"/","apps":[{"id":"/a","cmd":"x","color":"red"}],"groups":[]}`, "/a: /color: means nothing here"},
		"deep unknown":   {`[{"id":"/a","cmd":"x","container":{"type":"MESOS","rkt":{"image":"x"}}}]`, "/a: /container/rkt: means nothing here"},
		"rule":           {`{"apps":[{"id":"/a","cmd":"x","cpus":-1},{"id":"/b"}]}`, "/a: /cpus: "},
		"store":          {`[{"id":"/a","cmd":"x","storeUrls":["http://h/x"]}]`, "/a: /storeUrls"},
		"twice":          {`[{"id":"/a","cmd":"x"},{"id":"a","cmd":"x"}]`, "/a: is there twice"},
		"no id":          {`[{"cmd":"x"}]`, `below /: "" is not an id`},
		"no definitions": {`{"message":"no"}`, "neither groups"},
		"no JSON":        {"{\n\"id\":", "line 2: not JSON"},
		"pod":            {`{"id":"/","groups":[],"pods":[{"id":"/p","spec":{"id":"/p","containers":[{"name":"a","resources":{"cpus":-1,"mem":1}}]}}]}`, "/p: /containers"},
	} {
		_, errs, code := runWith(t.Context(), App, target, "", "import", writeSource(t, tt.source))
		if code != 1 || !strings.Contains(errs, tt.said) {
			t.Errorf("%s: code %d, %s", name, code, errs)
		}
	}
	at := strings.TrimPrefix(target[0], "STARLING_MARATHON=")
	if n := len(tree(t, at)); n != 0 {
		t.Errorf("%d apps were taken over", n)
	}
	if _, errs, code := runWith(t.Context(), App, target, "", "import", writeSource(t, `[{"id":"/a","cmd":"x","cpus":0.1,"instances":0,"color":"red"}]`), "--drop-unknown"); code != 0 || len(tree(t, at)) != 1 {
		t.Errorf("without what is unknown: code %d, %s", code, errs)
	}
}

// Wherever an import ends, another one brings everything over, and changes nothing that is there.
func TestImportIsCompletedFromAnyStep(t *testing.T) {
	var apps []string
	for n := range 250 {
		apps = append(apps, fmt.Sprintf(`{"id":"/many/g%d/a%d","cmd":"x","cpus":0.01,"mem":1,"instances":0,"dependencies":["/many/g%d/a%d"]}`, n%7, n, (n+1)%7, (n+1)%250))
	}
	apps[249] = `{"id":"/many/g4/a249","cmd":"x","cpus":0.01,"mem":1,"instances":0}`
	from := writeSource(t, `{"id":"/","apps":[`+strings.Join(apps, ",")+`],"groups":[{"id":"/empty","apps":[],"groups":[]},{"id":"/many","dependencies":["/empty"],"groups":[],"apps":[]}]}`)
	steps := 0
	for kill := 1; ; kill++ {
		at := realMarathon(t)
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		// The n-th request that changes something is lost; every second time its answer alone.
		var changes atomic.Int64
		through := httputil.NewSingleHostReverseProxy(u)
		door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && changes.Add(1) >= int64(kill) {
				if kill%2 == 0 {
					through.ServeHTTP(httptest.NewRecorder(), r)
				}
				panic(http.ErrAbortHandler)
			}
			through.ServeHTTP(w, r)
		}))
		_, errs, code := runWith(t.Context(), App, []string{"STARLING_MARATHON=" + door.URL}, "", "import", from, "--detach")
		door.CloseClientConnections()
		door.Close()
		if code == 0 {
			break
		}
		steps++
		if !strings.Contains(errs, "the same command again does the rest") {
			t.Errorf("step %d: %s", kill, errs)
		}
		before := tree(t, at)
		if _, errs, code := runWith(t.Context(), App, []string{"STARLING_MARATHON=" + at}, "", "import", from); code != 0 {
			t.Errorf("step %d, completed: code %d, %s", kill, code, errs)
		}
		after := tree(t, at)
		if len(after) != 250 {
			t.Errorf("step %d: %d apps of 250", kill, len(after))
		}
		for id, a := range before {
			if after[id]["version"] != a["version"] {
				t.Errorf("step %d: %s was there, and was changed", kill, id)
			}
		}
		if out, _, code := runWith(t.Context(), App, []string{"STARLING_MARATHON=" + at}, "", "import", from, "--dry-run"); code != 0 || !strings.Contains(out, "0 to take over, 250 there already, 0 groups to set") {
			t.Errorf("step %d: left is %s", kill, out)
		}
	}
	if steps < 4 {
		t.Errorf("%d steps were tried", steps)
	}
}

func TestOrphansCommand(t *testing.T) {
	f := newFakeMarathon(t)
	f.set("GET /v2/orphans", http.StatusOK, `{"orphans":[{"id":"web.instance-x","appId":"/web","slaveId":"S1","state":"TASK_RUNNING","since":"2026-11-21T10:00:00Z","appDefined":false}],"restoredAt":"2026-11-21T10:00:00Z"}`)
	out, _, code := f.run(App, "", "orphans")
	for _, want := range []string{"restored from a backup at 2026-11-21T10:00:00Z", "web.instance-x  /web  running  S1", "no such app"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("code %d, lacks %q: %s", code, want, out)
		}
	}
	f.set("POST /v2/orphans/adopt", http.StatusOK, `{"adopted":["a"],"refused":{"b":"there is no app /b; define it first"}}`)
	f.want(App, 1, "a is adopted\n", "b is not adopted: there is no app /b; define it first", "orphans", "--adopt", "--all")
	f.set("POST /v2/orphans/dismiss", http.StatusOK, `{"unknown":[]}`)
	f.want(App, 0, "", "nobody has settled that", "orphans", "--dismiss", "x")
	f.want(App, 2, "", "say --adopt or --dismiss", "orphans", "x")
	f.want(App, 2, "", "name tasks, or say --all", "orphans", "--adopt")
	if got := f.changes(); len(got) != 2 || got[1] != `POST /v2/orphans/dismiss {"all":false,"ids":["x"]}` {
		t.Errorf("asked %q", got)
	}
}

func TestARestoreIsSettled(t *testing.T) {
	f := newFakeMarathon(t)
	const unsettled = `{"orphans":[],"restoredAt":"2026-11-21T10:00:00Z"}`
	const none = "ID  RUNNING  HEALTHY  CPUS  MEM  VERSION  NOTES\n"
	f.set("GET /v2/apps", http.StatusOK, `{"apps":[]}`)
	f.set("GET /v2/orphans", http.StatusOK, unsettled)
	f.want(App, 0, none, "restored from a backup at 2026-11-21T10:00:00Z, and nobody has settled that", "ls")
	f.want(App, 0, "the state was restored from a backup at 2026-11-21T10:00:00Z; what it does not know is left alone until starling app orphans --settle\n"+
		"there are no orphans\n", "", "orphans")
	f.want(App, 2, "", "there is no terminal to ask at; --yes settles without", "orphans", "--settle")
	f.want(App, 2, "", "--settle is about all that there is", "orphans", "--settle", "--all", "--yes")
	if got := f.changes(); len(got) > 0 {
		t.Errorf("asked %q", got)
	}
	f.answer("DELETE /v2/leader", func(string) (int, string) {
		f.set("GET /v2/orphans", http.StatusOK, `{"orphans":[]}`)
		return http.StatusOK, `{"message":"Leadership abdicated"}`
	})
	f.want(App, 0, "it is settled: what no app has is killed from now on\n", "", "orphans", "--settle", "--yes")
	if got := f.changes(); len(got) != 1 || got[0] != "DELETE /v2/leader?settle=true" {
		t.Errorf("asked %q", got)
	}
	f.want(App, 0, "there is nothing to settle\n", "", "orphans", "--settle", "--yes")
	f.want(App, 0, none, "", "ls")
}
