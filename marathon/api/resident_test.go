package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"starling/marathon"
)

const volume = `"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":1}}]}`

// newResidentRig is a Marathon whose service ports are ports of the agent, and whose apps need not be of the role *.
func newResidentRig(t *testing.T) *rig {
	t.Helper()
	return newMarathonRig(t, func(c *marathon.Config) {
		c.Role, c.App.ServicePortMin, c.App.ServicePortMax = "base", 31100, 31200
	})
}

// stays tells by what a resident app is known: its task, and the volume that this has.
func (r *rig) stays(id string) string {
	r.t.Helper()
	r.settled()
	body := r.want(200, "GET", "/v2/apps"+id+"/tasks", "").json(r.t)
	tasks := body["tasks"].([]any)
	if len(tasks) != 1 {
		r.t.Fatalf("%s has tasks %v", id, tasks)
	}
	task := tasks[0].(map[string]any)
	volumes, _ := json.Marshal(task["localVolumes"])
	if !strings.Contains(string(volumes), "persistenceId") {
		r.t.Fatalf("%s has a task without volumes: %v", id, task)
	}
	return string(volumes)
}

// The definition that was sent once can be sent again, though Marathon has numbered its ports meanwhile.
func TestResidentPortsStayOpen(t *testing.T) {
	r := newResidentRig(t)
	definition := func(cmd string) string {
		return fmt.Sprintf(`{"id":"/db","cmd":%q,"cpus":0.1,"requirePorts":true,"portDefinitions":[{"port":0,"name":"sql"}],%s}`, cmd, volume)
	}
	port := func() any {
		shown := r.want(200, "GET", "/v2/apps/db", "").json(t)["app"].(map[string]any)
		return shown["portDefinitions"].([]any)[0].(map[string]any)["port"]
	}
	r.want(201, "PUT", "/v2/apps/db", definition("one"))
	before, number := r.stays("/db"), port()
	if n, _ := number.(float64); n < 31100 || n > 31200 {
		t.Fatalf("the port is %v", number)
	}
	for _, query := range []string{"", "?partialUpdate=false", "?force=true"} {
		for _, cmd := range []string{"one", "two" + query} {
			r.want(200, "PUT", "/v2/apps/db"+query, definition(cmd))
			r.settled()
		}
		if now := r.stays("/db"); now != before || port() != number {
			t.Errorf("%s: the app has %s and port %v, had %s and %v", query, now, port(), before, number)
		}
	}
	r.want(200, "PUT", "/v2/groups", `{"apps":[`+definition("group")+`]}`)
	if now := r.stays("/db"); now != before || port() != number {
		t.Errorf("by a group, the app has %s and port %v, had %s and %v", now, port(), before, number)
	}
	other := strings.Replace(definition("one"), `"port":0`, `"port":31150`, 1)
	if a := r.want(422, "PUT", "/v2/apps/db", other); !strings.Contains(a.body, "Resident Tasks may not change resource requirements!") {
		t.Errorf("another port: %s", a.body)
	}
	if a := r.want(422, "PUT", "/v2/apps/db?partialUpdate=false", strings.Replace(definition("one"), `"requirePorts":true,`, "", 1)); !strings.Contains(a.body, `"/requirePorts"`) {
		t.Errorf("ports that are no longer required: %s", a.body)
	}
}

// What is reserved is of a role, so only force changes that of what keeps volumes: by each way of changing it.
func TestResidentRoleChangesByForce(t *testing.T) {
	pod := func(role string) string {
		return fmt.Sprintf(`{"id":"/g/db","role":%q,"containers":[{"name":"a","exec":{"command":{"shell":"x"}},"resources":{"cpus":0.1,"mem":16},
			"volumeMounts":[{"name":"d","mountPath":"d"}]}],"volumes":[{"name":"d","persistent":{"size":1}}],"scaling":{"kind":"fixed","instances":1}}`, role)
	}
	def := func(role string) string {
		return fmt.Sprintf(`{"id":"/g/db","cmd":"x","cpus":0.1,"role":%q,%s}`, role, volume)
	}
	for name, way := range map[string]struct{ path, first, method, where, body, at string }{
		"an app":             {"/v2/apps", def("base"), "PUT", "/v2/apps/g/db", `{"role":"g"}`, "/role"},
		"a whole app":        {"/v2/apps", def("base"), "PUT", "/v2/apps/g/db?partialUpdate=false", def("g"), "/role"},
		"a patched app":      {"/v2/apps", def("base"), "PATCH", "/v2/apps/g/db", `{"role":"g"}`, "/role"},
		"several apps":       {"/v2/apps", def("base"), "PUT", "/v2/apps", `[` + def("g") + `]`, "/role"},
		"a group":            {"/v2/apps", def("base"), "PUT", "/v2/groups/g", `{"apps":[` + def("g") + `]}`, "/apps(0)/role"},
		"a group in a group": {"/v2/apps", def("base"), "PUT", "/v2/groups", `{"groups":[{"id":"/g","apps":[` + def("g") + `]}]}`, "/groups(0)/apps(0)/role"},
		"a pod":              {"/v2/pods", pod("base"), "PUT", "/v2/pods/g/db", pod("g"), "/role"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResidentRig(t)
			r.want(201, "POST", way.path, way.first)
			r.settled()
			a := r.want(422, way.method, way.where, way.body)
			if !strings.Contains(a.body, `can only be changed with force=true`) || !strings.Contains(a.body, way.at+`"`) {
				t.Errorf("without force: %s", a.body)
			}
			sign := "?"
			if strings.Contains(way.where, "?") {
				sign = "&"
			}
			r.want(200, way.method, way.where+sign+"force=true", way.body)
			if shown := r.want(200, "GET", way.path+"/g/db", "").body; !strings.Contains(shown, `"role":"g"`) {
				t.Errorf("with force: %s", shown)
			}
			// Force is for the role alone.
			bad := strings.Replace(way.first, `"cpus":0.1`, `"cpus":0.2`, 1)
			if a := r.want(422, "PUT", way.path+"/g/db?force=true", strings.Replace(bad, `"base"`, `"g"`, 1)); !strings.Contains(a.body, "Resident Tasks may not change resource requirements!") {
				t.Errorf("other resources: %s", a.body)
			}
			r.settled()
		})
	}
}

// An instance of a pod that only keeps its place can be wiped, and nothing else is done to it.
func TestParkedPodInstanceIsWiped(t *testing.T) {
	r := newResidentRig(t)
	pod := func(instances int) string {
		return fmt.Sprintf(`{"id":"/g/db","role":"g","containers":[{"name":"a","exec":{"command":{"shell":"x"}},"resources":{"cpus":0.1,"mem":16},
			"volumeMounts":[{"name":"d","mountPath":"d"}]}],"volumes":[{"name":"d","persistent":{"size":1}}],"scaling":{"kind":"fixed","instances":%d}}`, instances)
	}
	r.want(201, "POST", "/v2/pods", pod(1))
	r.settled()
	status := r.want(200, "GET", "/v2/pods/g/db::status", "").json(t)
	id := status["instances"].([]any)[0].(map[string]any)["id"].(string)
	r.want(200, "PUT", "/v2/pods/g/db", pod(0))
	r.settled()
	r.want(404, "DELETE", "/v2/pods/g/db::instances/"+id, "")
	if a := r.want(200, "DELETE", "/v2/pods/g/db::instances/"+id+"?wipe=true", ""); !strings.Contains(a.body, id) {
		t.Errorf("wiped %s", a.body)
	}
	r.want(404, "DELETE", "/v2/pods/g/db::instances/"+id+"?wipe=true", "")
}
