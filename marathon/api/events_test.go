package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// listen opens a stream of some types of events, and returns what reads the next one.
func (r *rig) listen(types ...string) func() map[string]any {
	t := r.t
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	late := time.AfterFunc(patience, func() { cancel(errors.New("nothing has come in time")) }) // of each event
	t.Cleanup(func() { late.Stop(); cancel(nil) })
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/v2/events?event_type="+strings.Join(types, "&event_type="), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	late.Stop()
	lines := bufio.NewReader(resp.Body)
	return func() map[string]any {
		t.Helper()
		late.Reset(patience)
		defer late.Stop()
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
				return data
			}
		}
	}
}

func TestEventStream(t *testing.T) {
	r := newRig(t)
	events := r.listen("event_stream_attached", "status_update_event", "deployment_success", "api_post_event")
	next := func() (string, map[string]any) {
		data := events()
		return data["eventType"].(string), data
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

func TestHeadOfEventsIsNoStream(t *testing.T) {
	r := newRig(t)
	a := r.want(200, "HEAD", "/v2/events", "", "Accept", "text/event-stream")
	if got := a.header.Get("Content-Type"); got != "text/event-stream" || a.header.Get("Transfer-Encoding") != "" || a.body != "" {
		t.Errorf("%v %q", a.header, a.body)
	}
	r.want(405, "HEAD", "/v2/events", "")
}

// TestEventsOfRefusals looks at what listeners learn of changes that are refused, and of deployments that are given up.
func TestEventsOfRefusals(t *testing.T) {
	r := newRig(t)
	next := r.listen("group_change_failed", "deployment_step_failure", "deployment_failed")
	r.cluster.Hold(true)
	id := r.want(201, "POST", "/v2/apps", `{"id":"/shop/web","cmd":"sleep 1","cpus":0.1}`).header.Get("Marathon-Deployment-Id")
	refused := func(group, reason string) {
		t.Helper()
		data := next()
		if data["eventType"] != "group_change_failed" || data["groupId"] != group || data["version"] == nil || !strings.HasPrefix(fmt.Sprint(data["reason"]), reason) {
			t.Errorf("got %v, want a refusal in %s: %s", data, group, reason)
		}
	}
	r.want(409, "POST", "/v2/apps", `{"id":"/shop/web","cmd":"sleep 1"}`)
	refused("/shop", "An app with id [/shop/web] already exists.")
	r.want(422, "PUT", "/v2/apps/shop/web", `{"cmd":""}`)
	refused("/shop", "Object is not valid")
	r.want(409, "POST", "/v2/groups", `{"id":"/shop"}`)
	refused("/", "Group /shop is already created.")
	r.want(409, "PUT", "/v2/apps", `[{"id":"/shop/web","instances":3}]`)
	refused("/", "App is locked by one or more deployments.")
	r.want(422, "PUT", "/v2/groups/shop?dryRun=true", `{"apps":[{"id":"web","cmd":""}]}`) // asks what would be, and no one else
	r.want(202, "DELETE", "/v2/deployments/"+id+"?force=true", "")
	step := next()
	if got := fmt.Sprint(step["currentStep"]); step["eventType"] != "deployment_step_failure" || step["plan"].(map[string]any)["id"] != id || !strings.Contains(got, "ScaleApplication") {
		t.Errorf("step: %v", step)
	}
	failed := next()
	if failed["eventType"] != "deployment_failed" || failed["id"] != id || failed["reason"] != "The upgrade has been cancelled" {
		t.Errorf("deployment: %v", failed)
	}
}
