package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// mixed is what a Marathon with pods shows: apps that depend on groups of pods, groups within groups, and status beside each
// definition of a pod.
const mixed = `{"id":"/","dependencies":[],"version":"2020-01-01T00:00:00.000Z","apps":[],"pods":[],"groups":[
 {"id":"/site","dependencies":["/base"],"version":"2020-01-01T00:00:00.000Z","apps":[
   {"id":"/site/web","cmd":"x","cpus":0.1,"mem":16,"instances":2,"dependencies":["/site/api"]}],"pods":[],"groups":[
  {"id":"/site/api","dependencies":["/base/db"],"apps":[],"groups":[],"pods":[
   {"id":"/site/api/pod","status":"STABLE","statusSince":"2020-01-01T00:00:00.000Z","instances":[],"terminationHistory":[],
    "lastUpdated":"2020-01-01T00:00:00.000Z","lastChanged":"2020-01-01T00:00:00.000Z",
    "spec":{"id":"/site/api/pod","labels":{"tier":"api"},"version":"2020-01-01T00:00:00.000Z","user":"nobody","containers":[
     {"name":"one","exec":{"command":{"shell":"sleep 1000"}},"resources":{"cpus":0.1,"mem":16,"disk":0,"gpus":0}},
     {"name":"two","exec":{"command":{"shell":"sleep 1000"}},"resources":{"cpus":0.1,"mem":16,"disk":0,"gpus":0},
      "volumeMounts":[{"name":"shared","mountPath":"shared"}]}],"volumes":[{"name":"shared"}],"networks":[{"mode":"host"}],
     "scaling":{"kind":"fixed","instances":2},"executorResources":{"cpus":0.1,"mem":32,"disk":10}}}]}]},
 {"id":"/base","dependencies":[],"groups":[{"id":"/base/db","dependencies":[],"groups":[],"pods":[],"apps":[
   {"id":"/base/db/sql","cmd":"x","cpus":0.1,"mem":16,"instances":1}]}],"apps":[],"pods":[
   {"id":"/base/log","spec":{"id":"/base/log","containers":[
    {"name":"log","exec":{"command":{"shell":"sleep 1000"}},"resources":{"cpus":0.1,"mem":16}}],"scaling":{"kind":"fixed","instances":1}}}]}]}`

// getJSON reads what is at a URL.
func getJSON(t *testing.T, at string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %d, %v: %s", at, res.StatusCode, err, text)
	}
}

// unversioned takes away what is another at each Marathon.
func unversioned(value any) any {
	switch v := value.(type) {
	case map[string]any:
		delete(v, "version")
		delete(v, "versionInfo")
		for _, below := range v {
			unversioned(below)
		}
	case []any:
		for _, below := range v {
			unversioned(below)
		}
	}
	return value
}

// Pods go to /v2/pods, apps to /v2/apps, and what groups need of each other is as it was; also from one Marathon to the next.
func TestImportTakesPodsOver(t *testing.T) {
	first, second := realMarathon(t), realMarathon(t)
	for _, step := range [][2]string{{first, writeSource(t, mixed)}, {second, first}} {
		target := []string{"STARLING_MARATHON=" + step[0]}
		out, errs, code := runWith(t.Context(), App, target, "", "import", step[1], "-o", "json")
		var result importPlan
		if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 || len(result.Changes) != 4 {
			t.Fatalf("import from %s: code %d, %v, %s%s", step[1], code, err, out, errs)
		}
		for _, d := range result.Deployments {
			if d.State != "done" {
				t.Errorf("a deployment is %+v", d)
			}
		}
		var pods []struct{ ID, Status string }
		getJSON(t, step[0]+"/v2/pods::status", &pods)
		var stand []string
		for _, p := range pods {
			stand = append(stand, p.ID+" "+p.Status)
		}
		slices.Sort(stand)
		if want := "/base/log STABLE, /site/api/pod STABLE"; strings.Join(stand, ", ") != want {
			t.Errorf("pods are %q, want %s", stand, want)
		}
		var groups []string
		var visit func(at string)
		visit = func(at string) {
			var g struct {
				ID           string
				Dependencies []string
				Groups       []struct{ ID string }
			}
			getJSON(t, step[0]+"/v2/groups"+at, &g)
			groups = append(groups, g.ID+" needs "+strings.Join(g.Dependencies, " "))
			for _, below := range g.Groups {
				visit(below.ID)
			}
		}
		visit("")
		slices.Sort(groups)
		if want := []string{"/ needs ", "/base needs ", "/base/db needs ", "/site needs /base", "/site/api needs /base/db"}; !slices.Equal(groups, want) {
			t.Errorf("groups are %q, want %q", groups, want)
		}
		out, errs, code = runWith(t.Context(), App, target, "", "import", step[1])
		if code != 0 || !strings.Contains(out, "0 to take over, 4 there already, 0 groups to set") {
			t.Errorf("again: code %d, %s%s", code, out, errs)
		}
	}
	for _, path := range []string{"/v2/pods", "/v2/apps/site/web", "/v2/apps/base/db/sql"} {
		var a, b any
		getJSON(t, first+path, &a)
		getJSON(t, second+path, &b)
		if strings.HasPrefix(path, "/v2/apps/") {
			for _, one := range []any{a, b} {
				delete(one.(map[string]any)["app"].(map[string]any), "tasks")
			}
		}
		if !reflect.DeepEqual(unversioned(a), unversioned(b)) {
			t.Errorf("%s became\n%v, was\n%v", path, b, a)
		}
	}
	// A pod that is there and is another is changed only by who says so.
	changed := writeSource(t, strings.Replace(mixed, `{"tier":"api"}`, `{"tier":"other"}`, 1))
	target := []string{"STARLING_MARATHON=" + second}
	if _, errs, code := runWith(t.Context(), App, target, "", "import", changed); code != 1 || !strings.Contains(errs, "/site/api/pod: is there already, and is another") {
		t.Errorf("another definition: code %d, %s", code, errs)
	}
	if out, errs, code := runWith(t.Context(), App, target, "", "import", changed, "--replace"); code != 0 {
		t.Errorf("replaced: code %d, %s%s", code, out, errs)
	}
	var pod struct{ Labels map[string]string }
	getJSON(t, second+"/v2/pods/site/api/pod", &pod)
	if pod.Labels["tier"] != "other" {
		t.Errorf("labels are %v", pod.Labels)
	}
}
