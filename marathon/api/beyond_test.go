package api_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDaemonAppsAreNotScaled(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/apps", `{"id":"/d","cmd":"sleep 1","cpus":0.1,"starling":{"daemon":true}}`)
	r.settled()
	const text = "a daemon app"
	for _, c := range [][3]string{
		{"PUT", "/v2/apps/d", `{"instances":3}`},
		{"PATCH", "/v2/apps/d", `{"instances":2}`},
		{"DELETE", "/v2/apps/d/tasks?scale=true", ``},
	} {
		if got := r.want(422, c[0], c[1], c[2]); !strings.Contains(got.body, text) {
			t.Errorf("%s %s: %s", c[0], c[1], got.body)
		}
	}
	r.want(200, "PUT", "/v2/groups", `{"scaleBy":3}`)
	r.settled()
	if got := r.want(200, "GET", "/v2/apps/d", "").json(t)["app"].(map[string]any)["instances"]; got != 1.0 {
		t.Errorf("scaled with its group it has %v instances", got)
	}
	r.want(200, "DELETE", "/v2/apps/d/tasks", "")
}

// TestLabelsWithoutRestart: the new labels count at once, and the task stays with those that it has.
func TestLabelsWithoutRestart(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/apps", `{"id":"/l","cmd":"sleep 1","cpus":0.1,"labels":{"v":"1"},"starling":{"labelsWithoutRestart":true}}`)
	r.settled()
	task := func() map[string]any {
		return r.want(200, "GET", "/v2/apps/l/tasks", "").json(t)["tasks"].([]any)[0].(map[string]any)
	}
	before := task()
	r.want(200, "PUT", "/v2/apps/l", `{"labels":{"v":"2"}}`)
	r.settled()
	if now := task(); now["id"] != before["id"] || now["version"] != before["version"] {
		t.Errorf("task %v of version %v is %v of %v now", before["id"], before["version"], now["id"], now["version"])
	}
	if got := r.want(200, "GET", "/v2/apps?label=v==2", "").json(t)["apps"].([]any); len(got) != 1 {
		t.Errorf("%d apps have the new label", len(got))
	}
	if got := r.want(200, "GET", "/v2/apps/l/versions", "").json(t)["versions"].([]any); len(got) != 2 {
		t.Errorf("the versions are %v", got)
	}
}

func TestDeploymentsThatHaveEnded(t *testing.T) {
	r := newRig(t)
	if got := r.want(200, "GET", "/v2/deployments/history", "").body; got != "[]" {
		t.Errorf("at first the history is %s", got)
	}
	r.want(405, "DELETE", "/v2/deployments/history", "")
	r.want(201, "POST", "/v2/apps", `{"id":"/a","cmd":"sleep 1","cpus":0.1}`)
	r.settled()
	begun := r.want(200, "PUT", "/v2/apps/a", `{"cpus":1000}`).json(t)["deploymentId"].(string)
	r.want(202, "DELETE", "/v2/deployments/"+begun+"?force=true", "")
	var history []struct {
		ID, Outcome, StartedBy, EndedBy string
		Actions                         []struct{ Action, App string }
	}
	if err := json.Unmarshal([]byte(r.want(200, "GET", "/v2/deployments/history", "").body), &history); err != nil {
		t.Fatal(err)
	}
	if len(history) != 2 || history[0].ID != begun || history[0].Outcome != "cancelled" || history[1].Outcome != "succeeded" {
		t.Fatalf("the history is %+v", history)
	}
	if e := history[0]; e.StartedBy == "" || e.EndedBy != e.StartedBy || len(e.Actions) != 1 || e.Actions[0].App != "/a" || e.Actions[0].Action != "RestartApplication" {
		t.Errorf("the cancelled one is %+v", e)
	}
}
