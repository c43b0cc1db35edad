package api_test

import (
	"slices"
	"strings"
	"testing"
)

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
	without := func(id string, n int) func() bool {
		return func() bool { now := tasks(); return len(now) == n && !slices.Contains(now, id) }
	}
	ids := tasks()
	if got := r.want(200, "DELETE", "/v2/apps/web/tasks/"+ids[0], "").json(t)["task"].(map[string]any)["id"]; got != ids[0] {
		t.Errorf("killed %v, want %s", got, ids[0])
	}
	r.eventually("replaced", without(ids[0], 3))
	r.want(404, "DELETE", "/v2/apps/web/tasks/web.instance-00000000-0000-1000-8000-000000000000._app.1", "")

	ids = tasks()
	r.want(200, "DELETE", "/v2/apps/web/tasks/"+ids[0]+"?scale=true", "")
	r.settled()
	r.eventually("two left", without(ids[0], 2))

	if got := r.want(200, "DELETE", "/v2/apps/web/tasks?host=elsewhere", "").body; got != `{"tasks":[]}` {
		t.Errorf("nothing to kill: %s", got)
	}
	ids = tasks()
	r.want(400, "POST", "/v2/tasks/delete", `{"ids":["nonsense"]}`)
	r.want(400, "POST", "/v2/tasks/delete", `{"ids":`)
	if got := r.want(200, "POST", "/v2/tasks/delete", `{"ids":["`+ids[0]+`","web.instance-00000000-0000-1000-8000-000000000000._app.1"]}`); !strings.Contains(got.body, ids[0]) {
		t.Errorf("bulk kill: %s", got.body)
	}
	r.eventually("replaced", without(ids[0], 2))
	ids = tasks()
	r.want(200, "POST", "/v2/tasks/delete?scale=true", `{"ids":["`+ids[0]+`"]}`)
	r.settled()
	r.eventually("one left", without(ids[0], 1))
	ids = tasks()
	r.want(200, "DELETE", "/v2/apps/web/tasks?wipe=true", "")
	r.eventually("a new instance", func() bool {
		now := tasks()
		return len(now) == 1 && now[0][:40] != ids[0][:40]
	})
}
