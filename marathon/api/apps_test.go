package api_test

import (
	"testing"
)

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
