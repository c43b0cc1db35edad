package api_test

import (
	"encoding/json"
	"strings"
	"testing"
)

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
	removed := func() []string { return r.store.Keys("marathon/apps/g_b/") }
	if got := removed(); len(got) != 1 {
		t.Fatalf("the definitions of /g/b are %v", got)
	}
	dry := r.want(200, "PUT", "/v2/groups/g?dryRun=true", `{"apps":[{"id":"a","cmd":"sleep 2","cpus":0.1}]}`)
	if dry.body != `{"steps":[{"actions":[{"action":"StopApplication","app":"/g/b"}]},{"actions":[{"action":"RestartApplication","app":"/g/a"}]}]}` {
		t.Errorf("dry run: %s", dry.body)
	}
	r.want(200, "GET", "/v2/apps/g/b", "")
	r.want(200, "PUT", "/v2/groups/g", `{"apps":[{"id":"a","cmd":"sleep 2","cpus":0.1}]}`)
	r.settled()
	r.want(404, "GET", "/v2/apps/g/b", "")
	// Definitions that were removed are gone, so this tree cannot come back as it was. The end of a deployment is seen before it is written.
	r.eventually("the definition is gone", func() bool { return len(removed()) == 0 })
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
	if got, there := r.want(200, "GET", "/v2/groups/g", "").json(t)["enforceRole"]; there {
		t.Errorf("enforceRole of a new group: %v, want none", got)
	}
	r.want(200, "PATCH", "/v2/groups/g", `{"enforceRole":true}`)
	if got := r.want(200, "GET", "/v2/groups/g", "").json(t)["enforceRole"]; got != true {
		t.Errorf("enforceRole: %v", got)
	}
	// A group may be named like a view: it can be changed, and seen in the one above.
	r.want(201, "POST", "/v2/groups/g/apps", `{"apps":[{"id":"x","cmd":"sleep 1","instances":0}]}`)
	r.want(200, "PUT", "/v2/groups/g/versions", `{"groups":[]}`)
	if got := r.want(200, "GET", "/v2/groups/g/apps", "").body; !strings.Contains(got, `"id":"/g/apps/x"`) {
		t.Errorf("apps of the group: %s", got)
	}
	if got := r.want(200, "GET", "/v2/groups/g", "").json(t)["groups"].([]any); len(got) != 2 {
		t.Errorf("groups of the group: %v", got)
	}
	r.want(200, "DELETE", "/v2/groups/g/apps", "")
	r.want(404, "DELETE", "/v2/apps/g/apps/x", "")
	r.want(200, "DELETE", "/v2/groups/g", "")
	r.settled()
	r.want(404, "GET", "/v2/groups/g", "")
}
