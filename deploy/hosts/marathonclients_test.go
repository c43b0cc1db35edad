package hosts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/agent/testenv"
)

// Clients of Marathon that others wrote, unchanged, from where their users get them, Debian and npm. Of ours are the small programs
// in testdata that put them to work.

// guest is a cluster of two agents, and a host beside them for the programs of others.
type guest struct {
	*Cluster
	*Flock
	*Host
	// marathon is where Marathon answers, without the user and password that it may want.
	marathon, user, password string
}

// newGuest starts a cluster whose Marathon posts events, and wants a password if credentials are given as user:password.
func newGuest(t *testing.T, credentials string, flags ...string) *guest {
	t.Helper()
	marathon := []string{"--event-subscriber", "http_callback"}
	if credentials != "" {
		marathon = append(marathon, "--http-credentials", credentials)
	}
	f, c := newFlockWithTasks(t, 2, marathon, credentials, flags...)
	Agree(t, 20*time.Second, f.Agents...)
	g := &guest{Cluster: c, Flock: f, Host: f.Hosts[2]}
	g.marathon = "http://" + g.at(8080)
	g.user, g.password, _ = strings.Cut(credentials, ":")
	return g
}

// credentials are the user and password as arguments, none where none are wanted.
func (g *guest) credentials() []string {
	if g.user == "" {
		return nil
	}
	return []string{g.user, g.password}
}

// tour runs a program that says done when everything was as it should be, and leaves nothing behind. Each of its waits has an end; all
// of them together take long on a busy machine.
func (g *guest) tour(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	args = append([]string{"-C", dir, "timeout", "300", name}, args...)
	out, err := g.try("env", append(args, g.credentials()...)...)
	if err != nil || !strings.HasSuffix(out, "done\n") {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	for _, a := range g.Agents {
		if _, tasks := processesOf(a.Dir); len(tasks) > 0 {
			t.Errorf("processes %v are left", tasks)
		}
	}
}

// withAndWithoutPassword runs a test against a Marathon that asks for none, and one that does.
func withAndWithoutPassword(t *testing.T, f func(t *testing.T, g *guest)) {
	for name, credentials := range map[string]string{"open": "", "password": "me:s3cret"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, newGuest(t, credentials))
		})
	}
}

// Debian's marathon-python takes all of its methods to apps, groups, deployments, tasks, the queue, events and the rest.
func TestMarathonPython(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3" // Debian's own has Debian's libraries
	if _, err := os.Stat("/usr/lib/python3/dist-packages/marathon"); err != nil {
		testenv.Lacks(t, "the library marathon-python is missing (Debian: python3-marathon): %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs("testdata/marathon-python")
	if err != nil {
		t.Fatal(err)
	}
	withAndWithoutPassword(t, func(t *testing.T, g *guest) {
		g.tour(t, dir, python, "-B", "tour.py", g.marathon, "exec "+self, probeVariable, g.probes)
	})
}

// The package marathon-node does all that it can.
func TestMarathonNode(t *testing.T) {
	t.Parallel()
	dir := nodePackages(t, "marathon-npm")
	withAndWithoutPassword(t, func(t *testing.T, g *guest) { g.tour(t, dir, "node", "tour.js", g.marathon) })
}

// The package marathon-event-bus-client hears of a deployment what happens, in the order in which it does, and goes on when
// Marathon has been away.
func TestMarathonEventBusClient(t *testing.T) {
	t.Parallel()
	dir := nodePackages(t, "marathon-npm")
	withAndWithoutPassword(t, func(t *testing.T, g *guest) {
		args := []string{"ip", "netns", "exec", g.netns, "node", "follow.js", g.Addr, "8080"}
		if g.user != "" {
			args = append(args, g.user+":"+g.password)
		}
		follower := startForeign(t, dir, args)
		follower.want(`^subscribed$`)
		g.ProbeApp("/shop/web", 2, `{"healthChecks":[{"protocol":"MESOS_HTTP","path":"/","delaySeconds":0,"intervalSeconds":1}]}`)
		g.Running("/shop/web", 2)
		id := follower.want(`^deployment_success .*?"id":"([^"]*)"`)
		follower.want(`^health_status_changed_event .*"alive":true`)
		all := follower.heard()
		inOrder(t, all, "group_change_success", "deployment_info", "deployment_step_success", "deployment_info", "deployment_step_success", "deployment_success")
		inOrder(t, all, "instance_changed_event", "status_update_event TASK_STARTING", "status_update_event TASK_RUNNING", "deployment_success")
		for _, e := range all {
			if e.PlanID != "" && e.PlanID != id || e.Type == "group_change_success" && e.GroupID != "/shop" {
				t.Errorf("%+v is not of deployment %s", e, id)
			}
		}
		// What scales down tells of the end.
		follower.mark()
		g.scaleTo("/shop/web", 1)
		follower.want(`^deployment_success `)
		inOrder(t, follower.heard(), "deployment_info", "status_update_event TASK_KILLED", "deployment_success")
		follower.mark()
		if _, _, err := g.request("DELETE", g.Cluster.Marathon+"/v2/apps/shop/web", ""); err != nil {
			t.Fatal(err)
		}
		follower.want(`^app_terminated_event .*"appId":"/shop/web"`)
		follower.want(`^deployment_success `)
		// The end of a term ends the stream, and the client comes back.
		follower.mark()
		if _, _, err := g.request("DELETE", g.Cluster.Marathon+"/v2/leader", ""); err != nil {
			t.Fatal(err)
		}
		follower.want(`^event_stream_attached `)
		g.ProbeApp("/shop/web", 1)
		follower.want(`^deployment_success `)
	})
}

func (g *guest) scaleTo(id string, instances int) {
	g.Cluster.t.Helper()
	if _, _, err := g.request("PUT", g.Cluster.Marathon+"/v2/apps"+id, fmt.Sprintf(`{"instances":%d}`, instances)); err != nil {
		g.Cluster.t.Fatal(err)
	}
}

// told is an event as a follower says it.
type told struct {
	Type, PlanID, GroupID, State string
}

// heard is what a follower has said since the last mark, events alone.
func (f *foreign) heard() []told {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []told
	for _, line := range f.lines[f.from:] {
		name, data, ok := strings.Cut(line, " ")
		if !ok {
			continue
		}
		var v struct {
			EventType, GroupID, TaskStatus string
			Plan                           struct{ ID string }
		}
		if err := json.Unmarshal([]byte(data), &v); err != nil || v.EventType != name {
			f.t.Errorf("%q is not an event: %v", line, err)
		}
		all = append(all, told{name, v.Plan.ID, v.GroupID, v.TaskStatus})
	}
	return all
}

// inOrder wants some events among others, one after the other, each by its type and where it matters the state of its task.
func inOrder(t *testing.T, all []told, want ...string) {
	t.Helper()
	rest := all
	for _, w := range want {
		name, state, _ := strings.Cut(w, " ")
		i := slices.IndexFunc(rest, func(e told) bool { return e.Type == name && (state == "" || e.State == state) })
		if i < 0 {
			t.Errorf("there is no %s where it belongs in %v; all: %v", w, want, all)
			return
		}
		rest = rest[i+1:]
	}
}
