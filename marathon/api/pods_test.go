package api_test

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
)

const camera = `{"id":"/edge/cam","labels":{"tier":"edge"},"volumes":[{"name":"frames"}],"containers":[
	{"name":"grab","resources":{"cpus":0.2,"mem":64},"exec":{"command":{"shell":"grab"}},"volumeMounts":[{"name":"frames","mountPath":"frames"}]},
	{"name":"serve","resources":{"cpus":0.1,"mem":32},"image":{"kind":"DOCKER","id":"nginx"},
	 "endpoints":[{"name":"web","protocol":["tcp"]}],"healthCheck":{"http":{"endpoint":"web","path":"/"},"intervalSeconds":10,"timeoutSeconds":5},
	 "volumeMounts":[{"name":"frames","mountPath":"/srv","readOnly":true}]}],"scaling":{"kind":"fixed","instances":1,"more":true}}`

// cameraShown is what is shown of it, its version aside.
const cameraShown = `{"id":"/edge/cam","labels":{"tier":"edge"},"version":"V","containers":[` +
	`{"name":"grab","exec":{"command":{"shell":"grab"}},"resources":{"cpus":0.2,"mem":64,"disk":0,"gpus":0},"volumeMounts":[{"name":"frames","mountPath":"frames"}]},` +
	`{"name":"serve","resources":{"cpus":0.1,"mem":32,"disk":0,"gpus":0},"endpoints":[{"name":"web","hostPort":0,"protocol":["tcp"]}],"image":{"kind":"DOCKER","id":"nginx"},` +
	`"healthCheck":{"http":{"endpoint":"web","path":"/","scheme":"HTTP"},"gracePeriodSeconds":300,"intervalSeconds":10,"maxConsecutiveFailures":3,"timeoutSeconds":5,"delaySeconds":15},` +
	`"volumeMounts":[{"name":"frames","mountPath":"/srv","readOnly":true}]}],"volumes":[{"name":"frames"}],"networks":[{"mode":"host"}],` +
	`"scaling":{"kind":"fixed","instances":1},"scheduling":{"backoff":{"backoff":1,"backoffFactor":1.15,"maxLaunchDelay":300},` +
	`"upgrade":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"placement":{},"killSelection":"YOUNGEST_FIRST",` +
	`"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}},"executorResources":{"cpus":0.1,"mem":32,"disk":10},"role":"*"}`

// healthy lets the health checks of all containers succeed, of each once: what is reported of one task stands in a row.
func (r *rig) healthy() {
	for _, task := range r.cluster.Tasks() {
		id := task.Info.GetTaskId().GetValue()
		if task.Alive && task.Info.HealthCheck != nil && !r.well[id] {
			r.well[id] = r.cluster.Healthy(id, true) == nil // one that is over meanwhile needs no health
		}
	}
}

func versionless(body string, version any) string {
	return strings.ReplaceAll(body, version.(string), "V")
}

func TestPods(t *testing.T) {
	r := newRig(t)
	r.want(200, "HEAD", "/v2/pods", "")
	if a := r.want(200, "GET", "/v2/pods", ""); a.body != `[]` {
		t.Errorf("no pods are %s", a.body)
	}
	next := r.listen("pod_created_event", "pod_updated_event", "pod_deleted_event")

	created := r.want(201, "POST", "/v2/pods", camera)
	first := created.json(t)["version"]
	if got := versionless(created.body, first); got != cameraShown {
		t.Errorf("shown is\n%s, want\n%s", got, cameraShown)
	}
	if created.header.Get("Location") != "/edge/cam" || created.header.Get("Marathon-Deployment-Id") == "" {
		t.Errorf("headers %v", created.header)
	}
	if e := next(); e["eventType"] != "pod_created_event" || e["uri"] != "/v2/pods" || e["clientIp"] == "" {
		t.Errorf("event %v", e)
	}
	r.want(409, "POST", "/v2/pods", camera)
	r.want(422, "POST", "/v2/apps", `{"id":"/edge/cam","cmd":"x"}`)
	r.want(404, "GET", "/v2/apps/edge/cam", "")
	r.want(404, "GET", "/v2/pods/edge/other", "")
	if a := r.want(200, "GET", "/v2/apps", ""); a.body != `{"apps":[]}` {
		t.Errorf("apps are %s", a.body)
	}

	deployments := r.want(200, "GET", "/v2/deployments", "").body
	if !strings.Contains(deployments, `"affectedApps":[],"affectedPods":["/edge/cam"]`) || !strings.Contains(deployments, `{"action":"ScalePod","pod":"/edge/cam"`) {
		t.Errorf("deployments are %s", deployments)
	}
	r.eventually("the pod is degraded", func() bool {
		return r.podStatus("/edge/cam")["status"] == "DEGRADED" && len(r.podStatus("/edge/cam")["instances"].([]any)) == 1 &&
			r.podStatus("/edge/cam")["instances"].([]any)[0].(map[string]any)["status"] == "DEGRADED"
	})
	r.healthy()
	r.settled()

	for _, path := range []string{"/v2/pods/edge/cam", "/v2/pods//edge/cam", "/v2/pods/edge/cam::versions/" + first.(string)} {
		if a := r.want(200, "GET", path, ""); versionless(a.body, first) != cameraShown {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	if a := r.want(200, "GET", "/v2/pods/edge/cam::versions", ""); a.body != `["`+first.(string)+`"]` {
		t.Errorf("versions %s", a.body)
	}
	group := r.want(200, "GET", "/v2/groups/edge", "").json(t)
	if pods := group["pods"].([]any); len(pods) != 1 || pods[0].(map[string]any)["spec"].(map[string]any)["id"] != "/edge/cam" {
		t.Errorf("group %v", group)
	}
	if group := r.want(200, "GET", "/v2/groups/edge?embed=group.apps", "").json(t); len(group["pods"].([]any)) != 0 {
		t.Errorf("group with apps alone: %v", group)
	}
	r.want(200, "PUT", "/v2/groups/edge", `{"apps":[],"groups":[]}`)
	r.want(200, "PUT", "/v2/groups", `{"groups":[]}`)
	r.want(200, "GET", "/v2/pods/edge/cam", "")
	tasks := r.want(200, "GET", "/v2/tasks", "").json(t)["tasks"].([]any)
	if len(tasks) != 2 || tasks[1].(map[string]any)["appId"] != "/edge/cam" || !strings.HasSuffix(tasks[1].(map[string]any)["id"].(string), ".serve.1") {
		t.Errorf("tasks %v", tasks)
	}

	r.want(404, "PUT", "/v2/pods/edge/other", strings.Replace(camera, "/edge/cam", "/edge/other", 1))
	if a := r.want(400, "PUT", "/v2/pods/edge/other", camera); a.body != `{"message":"'/edge/other' does not match definition's id ('/edge/cam')"}` {
		t.Errorf("mismatch: %s", a.body)
	}
	updated := r.want(200, "PUT", "/v2/pods/edge/cam", strings.Replace(camera, `"instances":1`, `"instances":2`, 1))
	if updated.header.Get("Marathon-Deployment-Id") == "" || updated.json(t)["version"] == first {
		t.Errorf("updated: %v %s", updated.header, updated.body)
	}
	if e := next(); e["eventType"] != "pod_updated_event" || e["uri"] != "/v2/pods/edge/cam" {
		t.Errorf("event %v", e)
	}
	r.eventually("the new instance is healthy", func() bool { r.healthy(); return r.podStatus("/edge/cam")["status"] == "STABLE" })
	r.settled()

	instances := r.podStatus("/edge/cam")["instances"].([]any)
	id := instances[0].(map[string]any)["id"].(string)
	r.want(404, "DELETE", "/v2/pods/edge/cam::instances/edge_cam.instance-00000000-0000-0000-0000-000000000000", "")
	r.want(422, "DELETE", "/v2/pods/edge/cam::instances", `["?"]`)
	r.want(422, "DELETE", "/v2/pods/edge/cam::instances", `{}`)
	killed := r.want(200, "DELETE", "/v2/pods/edge/cam::instances/"+id, "").json(t)
	state := killed["state"].(map[string]any)
	if killed["instanceId"] != id || state["condition"] != "Running" || state["goal"] != "Running" || state["healthy"] != true || killed["agentInfo"] == nil {
		t.Errorf("killed %v", killed)
	}
	r.eventually("it is launched again", func() bool {
		r.healthy()
		return strings.Contains(r.want(200, "GET", "/v2/tasks", "").body, id+".serve.2")
	})
	r.eventually("all is stable", func() bool { r.healthy(); return r.podStatus("/edge/cam")["status"] == "STABLE" })
	if a := r.want(200, "DELETE", "/v2/pods/edge/cam::instances?wipe=true", `["`+id+`"]`); !strings.HasPrefix(a.body, `[{"instanceId":"`+id) {
		t.Errorf("wiped %s", a.body)
	}
	r.eventually("another one has taken its place", func() bool {
		r.healthy()
		s := r.podStatus("/edge/cam")
		return s["status"] == "STABLE" && !strings.Contains(r.want(200, "GET", "/v2/pods::status", "").body, id)
	})

	restarted := r.want(200, "POST", "/v2/pods/edge/cam::restart", "").json(t)
	if restarted["deploymentId"] == nil {
		t.Errorf("restarted %v", restarted)
	}
	r.eventually("the restart is done", func() bool { r.healthy(); return r.do("GET", "/v2/deployments", "").body == "[]" })

	deleted := r.want(202, "DELETE", "/v2/pods/edge/cam", "")
	if deleted.body != "" || deleted.header.Get("Location") == "" || deleted.header.Get("Location") != deleted.header.Get("Marathon-Deployment-Id") {
		t.Errorf("deleted: %v %q", deleted.header, deleted.body)
	}
	r.settled()
	r.want(404, "GET", "/v2/pods/edge/cam::status", "")
	r.want(404, "DELETE", "/v2/pods/edge/cam", "")
	if left := r.want(200, "GET", "/v2/tasks", "").body; left != `{"tasks":[]}` {
		t.Errorf("left over: %s", left)
	}
}

func (r *rig) podStatus(id string) map[string]any {
	r.t.Helper()
	return r.want(200, "GET", "/v2/pods"+id+"::status", "").json(r.t)
}

func TestPodStatusToTheField(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/pods", camera)
	r.eventually("the pod is stable", func() bool { r.healthy(); return r.podStatus("/edge/cam")["status"] == "STABLE" })
	fields := func(v any) string { return strings.Join(slices.Sorted(maps.Keys(v.(map[string]any))), " ") }
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s has the fields %s, want %s", what, got, want)
		}
	}
	status := r.podStatus("/edge/cam")
	want("a status", fields(status), "id instances lastChanged lastUpdated spec status statusSince terminationHistory")
	instance := status["instances"].([]any)[0].(map[string]any)
	want("an instance", fields(instance), "agentHostname agentId conditions containers id lastChanged lastUpdated localVolumes networks resources role specReference status statusSince")
	if got := instance["specReference"]; got != "/v2/pods/edge/cam::versions/"+status["spec"].(map[string]any)["version"].(string) {
		t.Errorf("reference to the spec: %v", got)
	}
	if _, err := url.Parse(instance["specReference"].(string)); err != nil {
		t.Error(err)
	}
	resources, _ := json.Marshal(instance["resources"])
	if got := string(resources); got != `{"cpus":0.4,"disk":10,"gpus":0,"mem":128}` {
		t.Errorf("resources %s, want those of both containers and of the executor", got)
	}
	containers := instance["containers"].([]any)
	want("a container", fields(containers[0]), "conditions containerId endpoints lastChanged lastUpdated name resources status statusSince")
	serve := containers[1].(map[string]any)
	if serve["status"] != "TASK_RUNNING" || serve["name"] != "serve" {
		t.Errorf("container %v", serve)
	}
	condition := serve["conditions"].([]any)[0].(map[string]any)
	want("a condition", fields(condition), "lastChanged lastUpdated name reason value")
	if condition["value"] != "true" || condition["reason"] != "health-reported-by-mesos" {
		t.Errorf("condition %v", condition)
	}
	endpoint := serve["endpoints"].([]any)[0].(map[string]any)
	want("an endpoint", fields(endpoint), "allocatedHostPort healthy name")
	if endpoint["healthy"] != true || endpoint["allocatedHostPort"].(float64) < 1 {
		t.Errorf("endpoint %v", endpoint)
	}
}

func TestPodInTheQueue(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/pods", strings.Replace(camera, `"cpus":0.2`, `"cpus":2000`, 1))
	item := r.want(200, "GET", "/v2/queue", "").json(t)["queue"].([]any)[0].(map[string]any)
	if item["app"] != nil || item["pod"].(map[string]any)["id"] != "/edge/cam" || item["count"] != 1.0 {
		t.Errorf("queued %v", item)
	}
	r.eventually("an offer was refused", func() bool {
		return strings.Contains(r.want(200, "GET", "/v2/queue?embed=lastUnusedOffers", "").body, "InsufficientCpus")
	})
	r.want(204, "DELETE", "/v2/queue/edge/cam/delay", "")
	status := r.podStatus("/edge/cam")
	if status["status"] != "DEGRADED" || len(status["instances"].([]any)) != 0 {
		t.Errorf("status %v: what was never launched is not listed", status)
	}
	r.want(202, "DELETE", "/v2/pods/edge/cam?force=true", "")
	r.settled()
}

func TestPodsAreLocked(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/pods", camera)
	r.want(409, "PUT", "/v2/pods/edge/cam", strings.Replace(camera, `"instances":1`, `"instances":0`, 1))
	r.want(409, "DELETE", "/v2/pods/edge/cam", "")
	r.want(200, "PUT", "/v2/pods/edge/cam?force=true", strings.Replace(camera, `"instances":1`, `"instances":0`, 1))
	r.settled()
	r.want(202, "DELETE", "/v2/pods/edge/cam", "")
	r.settled()
}

// The operations on offers are counted by kind: one LAUNCH for all tasks of apps on an offer, and one LAUNCH_GROUP a pod's instance.
func TestOperationsAreCounted(t *testing.T) {
	r := newRig(t)
	counted := func(name string) float64 {
		t.Helper()
		counters := r.want(200, "GET", "/metrics", "").json(t)["counters"].(map[string]any)
		n, ok := counters["marathon."+name].(map[string]any)["count"].(float64)
		if !ok {
			t.Fatalf("%s is %v", name, counters["marathon."+name])
		}
		return n
	}
	r.want(201, "POST", "/v2/pods", strings.Replace(camera, `"instances":1`, `"instances":2`, 1))
	r.eventually("the pods run", func() bool { r.healthy(); return r.podStatus("/edge/cam")["status"] == "STABLE" })
	if groups, launches := counted("mesos.offer-operations.launch-group.counter"), counted("mesos.offer-operations.launch.counter"); groups != 2 || launches != 0 {
		t.Errorf("after two instances of a pod, %v groups and %v launches were counted", groups, launches)
	}
	tasks := counted("tasks.launched.counter")
	if tasks != 4 {
		t.Errorf("two instances of two containers are %v tasks", tasks)
	}
	r.want(201, "POST", "/v2/apps", `{"id":"/a","cmd":"x","cpus":0.1,"instances":3}`)
	r.settled()
	if groups, launches := counted("mesos.offer-operations.launch-group.counter"), counted("mesos.offer-operations.launch.counter"); groups != 2 || launches < 1 || launches > 3 {
		t.Errorf("after an app of three instances, %v groups and %v launches were counted", groups, launches)
	}
	if n := counted("tasks.launched.counter"); n != tasks+3 {
		t.Errorf("after an app of three instances, %v tasks were counted", n)
	}
}
