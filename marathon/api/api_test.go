package api_test

import (
	"strings"
	"testing"
)

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
	console := r.want(302, "GET", "/ui/", "").header.Get("Location")
	r.want(200, "GET", console, "")
}
