package api_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestSystem(t *testing.T) {
	r := newRig(t)
	a := r.want(200, "GET", "/v2/info", "")
	info := a.json(t)
	if info["name"] != "marathon" || info["elected"] != true || info["buildref"] != "starling 0.1" {
		t.Errorf("info: %s", a.body)
	}
	if got := info["marathon_config"].(map[string]any)["task_reservation_timeout"]; got != 20000.0 {
		t.Errorf("task_reservation_timeout is %v, want that of --task-reservation-timeout", got)
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
	if a := r.want(200, "OPTIONS", "/ping", ""); a.body != "" {
		t.Errorf("options have a body: %q", a.body)
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
	if got := r.abdicate(); got != `{"message":"Leadership abdicated"}` {
		t.Errorf("abdicated: %s", got)
	}
	r.want(200, "GET", "/v2/apps/web", "")
	if r.running("web") != 1 {
		t.Error("the task is gone")
	}
}
