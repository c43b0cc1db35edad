package cli

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// definitionFiles writes definitions, and returns where each is.
func definitionFiles(t *testing.T, texts map[string]string) func(name string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(name string) string { return filepath.Join(dir, name) }
}

// definition is an app as Marathon shows it, all defaults filled in.
func definition(id, more string) string {
	return `{"id":"` + id + `",` + more + `"cpus":1,"mem":128,"disk":0,"gpus":0,"executor":"","networks":[{"mode":"host"}],"requirePorts":false,
	"portDefinitions":[{"port":10000,"name":"default","protocol":"tcp"}],"backoffSeconds":1,"backoffFactor":1.15,"maxLaunchDelaySeconds":300,
	"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0},
	"killSelection":"YOUNGEST_FIRST","role":"*","labels":{},"version":"2026-11-21T09:00:00.000Z",
	"versionInfo":{"lastScalingAt":"2026-11-21T09:00:00.000Z","lastConfigChangeAt":"2026-11-21T09:00:00.000Z"}}`
}

// twoApps is what Marathon has: /web with three instances, and /shop/db with one.
func twoApps(t *testing.T) *fakeMarathon {
	t.Helper()
	f := newFakeMarathon(t)
	f.set("GET /v2/groups", http.StatusOK, `{"id":"/","version":"2026-11-21T09:00:00.000Z","dependencies":[],"pods":[],
		"apps":[`+definition("/web", `"cmd":"serve","env":{"A":"1","B":{"secret":"s"}},"secrets":{"s":{"source":"x"}},"instances":3,`)+`],
		"groups":[{"id":"/shop","version":"2026-11-21T09:00:00.000Z","apps":[`+definition("/shop/db", `"cmd":"db","instances":1,`)+`],"groups":[],"dependencies":[],"pods":[]}]}`)
	f.set("GET /v2/info", http.StatusOK, `{"marathon_config":{"mesos_role":"*","features":["secrets"],"local_port_min":10000,"local_port_max":20000}}`)
	return f
}

func TestPlanSaysWhatWouldChange(t *testing.T) {
	at := definitionFiles(t, map[string]string{
		"same":     `{"id":"web","cmd":"serve","env":{"A":"1","B":{"secret":"s"}},"secrets":{"s":{"source":"x"}}}`,
		"scale":    `{"id":"web","cmd":"serve","env":{"A":"1","B":{"secret":"s"}},"secrets":{"s":{"source":"x"}},"instances":5}`,
		"restart":  `{"id":"/web","cmd":"serve -v","env":{"A":"1","C":"3"},"instances":null,"labels":{"tier":"front"}}`,
		"both":     `{"id":"/web","cmd":"serve","env":{"A":"1","B":{"secret":"s"}},"secrets":{"s":{"source":"x"}},"mem":64,"instances":1}`,
		"list":     `[{"id":"/shop/db","cmd":"db"},{"id":"/new","cmd":"x","cpus":0.125,"instances":2}]`,
		"group":    `{"id":"/shop","apps":[{"id":"cache","cmd":"c","dependencies":["/web"]}],"groups":[{"id":"sub","apps":[{"id":"x","cmd":"x","instances":0}]}]}`,
		"bad":      `{"id":"/web","cmd":"serve","cpus":"much"}`,
		"bad rule": `[{"id":"/ok","cmd":"x"},{"id":"/web","instances":-1}]`,
	})
	for _, tt := range []struct {
		files     []string
		code      int
		out, errs string
	}{
		{[]string{"same"}, 0, "nothing to do\n", ""},
		{[]string{"scale"}, 2, "/web  scales from 3 to 5; what runs goes on running\nstep 1: scale /web\n", ""},
		{[]string{"restart"}, 2, "/web  restarts its 3 instances\n    /cmd: \"serve\" -> \"serve -v\"\n    /env/B: {\"secret\":\"s\"} -> (none)\n" +
			"    /env/C: (none) -> \"3\"\n    /labels/tier: (none) -> \"front\"\n    /secrets: {\"s\":{\"source\":\"x\"}} -> (none)\nstep 1: restart /web\n", ""},
		{[]string{"both"}, 2, "/web  restarts, and scales from 3 to 1\n    /mem: 128 -> 64\nstep 1: restart /web\n", ""},
		{[]string{"list", "scale"}, 2, "/new  new: 2 instances, 0.125 cpus, 128 MiB each\n/web  scales from 3 to 5; what runs goes on running\n" +
			"step 1: start /new\nstep 2: scale /new, scale /web\n", ""},
		{[]string{"group"}, 2, "/shop/cache  new: 1 instance, 1 cpus, 128 MiB each\n/shop/db     removed, with its 1 instance\n/shop/sub/x  new: 0 instances, 1 cpus, 128 MiB each\n" +
			"step 1: stop /shop/db\nstep 2: start /shop/cache, start /shop/sub/x\nstep 3: scale /shop/sub/x\nstep 4: scale /shop/cache\n", ""},
		{[]string{"bad"}, 1, "", "Invalid JSON\n  /cpus: is not a number (error.expected.jsnumber)\n"},
		{[]string{"bad rule"}, 1, "", "Invalid JSON\n  /web at /instances: is too small (error.min)\n"},
		{nil, 1, "", "expecting FILE..."},
	} {
		f := twoApps(t)
		args := []string{"plan"}
		for _, name := range tt.files {
			args = append(args, at(name))
		}
		out, errs, code := f.run(App, "", args...)
		if out != tt.out || code != tt.code || !strings.Contains(errs, tt.errs) || tt.errs == "" && errs != "" {
			t.Errorf("%q: code %d, %q\n%s\nwant\n%s", tt.files, code, errs, out, tt.out)
		}
		if got := f.changes(); len(got) != 0 {
			t.Errorf("%q: a plan asked %q", tt.files, got)
		}
	}
	f := twoApps(t)
	out, _, code := f.run(App, "", "plan", at("both"), "-o", "json")
	var p planned
	if err := json.Unmarshal([]byte(out), &struct{ Changes *[]plannedChange }{&p.Changes}); err != nil || code != exitChanges || len(p.Changes) != 1 ||
		p.Changes[0].Action != "restart" || p.Changes[0].From != 3 || p.Changes[0].To != 1 || p.Changes[0].Fields[0].Path != "/mem" {
		t.Errorf("JSON: code %d, %v, %s", code, err, out)
	}
	f.want(App, 0, "/web  restarts, and scales from 3 to 1\n    /mem: 128 -> 64\nstep 1: restart /web\n", "", "deploy", "--dry-run", at("both"))
}

func TestDeploySendsWholeDefinitionsAndKeepsInstances(t *testing.T) {
	at := definitionFiles(t, map[string]string{
		"web":      `{"id":"/web","cmd":"serve"}`,
		"five":     `{"id":"/web","cmd":"serve","instances":5}`,
		"list":     `[{"id":"web","cmd":"serve"},{"id":"/new","cmd":"x"}]`,
		"bad list": `[{"id":"/a","cmd":"x"},{"id":"/b","cmd":"x","upgradeStrategy":{"minimumHealthCapacity":2,"maximumOverCapacity":1}}]`,
		"group":    `{"id":"/shop","apps":[{"id":"db","cmd":"db2"},{"id":"new","cmd":"x"}],"groups":[{"id":"/shop/sub","apps":[]}]}`,
	})
	for _, tt := range []struct {
		file, asked, done string
	}{
		{"web", `PUT /v2/apps/web?force=false&partialUpdate=false {"cmd":"serve","id":"/web","instances":3}`, "/web is deployed\n"},
		{"five", `PUT /v2/apps/web?force=false&partialUpdate=false {"id":"/web","cmd":"serve","instances":5}`, "/web is deployed\n"},
		{"list", `PUT /v2/apps?force=false&partialUpdate=false [{"cmd":"serve","id":"web","instances":3},{"id":"/new","cmd":"x"}]`, "2 apps are deployed\n"},
		{"group", `PUT /v2/groups/shop?force=false {"apps":[{"cmd":"db2","id":"db","instances":1},{"id":"new","cmd":"x"}],"groups":[{"apps":[],"id":"/shop/sub"}],"id":"/shop"}`, "group /shop is deployed\n"},
	} {
		f := twoApps(t)
		for _, what := range []string{"PUT /v2/apps/web", "PUT /v2/apps", "PUT /v2/groups/shop"} {
			f.set(what, http.StatusOK, `{"version":"v","deploymentId":"d1"}`)
		}
		f.stream() <- `{"eventType":"deployment_success","id":"d1"}`
		out, errs, code := f.run(App, "", "deploy", at(tt.file))
		if code != 0 || untilTime(out) != tt.done {
			t.Errorf("%s: code %d, %s%s", tt.file, code, out, errs)
		}
		if got := f.changes(); len(got) != 1 || got[0] != tt.asked {
			t.Errorf("%s asked %q", tt.file, got)
		}
	}
	f := twoApps(t)
	f.set("PUT /v2/apps", http.StatusUnprocessableEntity, `{"message":"Object is not valid","details":[{"path":"(1)/cpus","errors":["error.min"]}]}`)
	f.want(App, 1, "", "HOST answers 422: Object is not valid\n  /new at /cpus: is too small (error.min)\n", "deploy", at("list"))
	f.set("PUT /v2/apps", http.StatusUnprocessableEntity, `{"message":"Object is not valid","details":[{"path":"/upgradeStrategy/minimumHealthCapacity","errors":["got 2.0"]}]}`)
	f.want(App, 1, "", "HOST answers 422: Object is not valid\n  /b at /upgradeStrategy/minimumHealthCapacity: ", "deploy", at("bad list"))
	f.want(App, 2, "", "--detach cannot wait between them", "deploy", at("list"), at("group"), "--detach")
}

// Each is a deployment of its own, so nothing is sent where the last one is wrong.
func TestDeployChecksAllFilesBeforeItSendsTheFirst(t *testing.T) {
	at := definitionFiles(t, map[string]string{
		"web": `{"id":"/web","cmd":"serve"}`, "bad group": `{"id":"/shop","apps":[{"id":"db","cmd":"db","cpus":"much"}]}`,
		"bad pod": `{"id":"/p","containers":[]}`, "app's id": strings.Replace(podSpec, "/edge/cam", "/web", 1),
		"group": `{"id":"/shop","apps":[{"id":"db","cmd":"db2"}]}`, "pod": strings.Replace(podSpec, "/edge/cam", "/shop/cam", 1),
	})
	for bad, want := range map[string]string{
		"bad group": "/apps(0)/cpus: is not a number", "bad pod": "/containers", "app's id": "/web",
	} {
		f := twoApps(t)
		f.want(App, 1, "", want, "deploy", at("web"), at(bad))
		if got := f.changes(); len(got) > 0 {
			t.Errorf("%s: asked %q", bad, got)
		}
	}
	f := twoApps(t)
	f.set("GET /v2/apps", http.StatusOK, `{"apps":[]}`)
	for _, what := range []string{"PUT /v2/apps/web", "PUT /v2/groups/shop", "POST /v2/pods"} {
		f.set(what, http.StatusOK, `{"version":"v","deploymentId":"d1"}`)
	}
	out, errs, code := f.run(App, "", "deploy", at("web"), at("group"), at("pod"))
	if got := f.changes(); code != 0 || len(got) != 3 || !strings.Contains(got[0], `"instances":3`) || !strings.Contains(got[1], `"instances":1`) {
		t.Errorf("code %d, %s%s\nasked %q", code, out, errs, got)
	}
}

func TestWhatIsNoDefinition(t *testing.T) {
	at := definitionFiles(t, map[string]string{
		"pod": `{"id":"p","containers":[]}`, "pod in list": `[{"id":"/p","containers":[]},{"id":"/a"}]`, "text": "{\n\"id\": \"/x\",\n nope", "number": "7", "empty": "[]", "no id": `{"cmd":"x"}`,
		"list": `[{"id":"/a"},{"cmd":"x"}]`, "no group id": `{"apps":[]}`, "group in list": `[{"id":"/g","apps":[]},{"id":"/a"}]`,
	})
	f := newFakeMarathon(t)
	for name, want := range map[string]string{
		"pod": "the id of a pod has to be absolute", "pod in list": "app 1: a pod, which has to be in a file of its own", "text": "line 3: not JSON: ", "number": "not an app, a pod, a list of apps or a group, but a JSON number",
		"empty": "there is no app in what was given", "no id": "the app has no id", "list": "app 2: the app has no id",
		"no group id": `the group has no id; the root's is "/"`, "group in list": "app 1: a group, which has to be in a file of its own",
		"missing": "no such file",
	} {
		f.want(App, 1, "", want, "deploy", at(name))
	}
	f.want(App, 2, "", "- is given twice", "deploy", "-", "-")
	f.set("PUT /v2/apps/x", http.StatusCreated, `{"version":"v","deploymentId":"d1"}`)
	if out, errs, code := f.run(App, `{"id":"x","cmd":"y"}`, "deploy", "-", "--detach"); code != 0 || !strings.Contains(out, "deployment d1 has begun") {
		t.Errorf("stdin: code %d, %s%s", code, out, errs)
	}
}
