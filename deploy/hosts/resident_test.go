package hosts

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tenant is a resident app of Marathon with its data.
type tenant struct {
	*Roles
	t  *testing.T
	id string
}

// settled waits until that many tasks run and no deployment does.
func (a *tenant) settled(n int) {
	a.t.Helper()
	Eventually(a.t, time.Minute, fmt.Sprintf("%s has %d tasks and no deployment", a.id, n), func() error {
		_, body, err := a.request("GET", a.Marathon+"/v2/apps/"+a.id, "")
		if err != nil {
			return err
		}
		if !strings.Contains(body, fmt.Sprintf(`"tasksRunning":%d,`, n)) || !strings.Contains(body, `"deployments":[]`) {
			return fmt.Errorf("the app is %s", body)
		}
		return nil
	})
}

// change asks Marathon for something.
func (a *tenant) change(method, path, body string) {
	a.t.Helper()
	Eventually(a.t, 30*time.Second, method+" "+path, func() error {
		status, answer, err := a.request(method, a.Marathon+path, body)
		if err == nil && status >= 300 {
			err = fmt.Errorf("got %d %s", status, answer)
		}
		return err
	})
}

// volumes are the folders of the app's data, on whatever agent.
func (a *tenant) volumes() []string {
	var all []string
	for _, dir := range a.AgentDirs {
		found, err := filepath.Glob(filepath.Join(dir, "volumes", "roles", "db", "*"))
		if err != nil {
			a.t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// starts are the lines that the tasks have written to their volume.
func (a *tenant) starts(volume string) int {
	data, err := os.ReadFile(filepath.Join(volume, "starts"))
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

// A resident app keeps its data through everything that ends its task or the programs around it, and each task adds to what the
// one before has written; when it is wiped it begins anew, and when it is removed nothing is left.
func TestAResidentAppKeepsItsData(t *testing.T) {
	r := Separate(t, 2)
	a := &tenant{Roles: r, t: t, id: "db/pg"}
	a.change("POST", "/v2/apps", `{"id":"/db/pg","role":"db","cmd":"echo start >>data/starts && exec sleep 100000","cpus":0.1,"mem":32,
		"backoffSeconds":0,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":16}}]}}`)
	a.settled(1)
	volumes := a.volumes()
	if len(volumes) != 1 {
		t.Fatalf("the volumes are %v, want one", volumes)
	}
	volume := volumes[0]
	host := -1
	for i, dir := range r.AgentDirs {
		if strings.HasPrefix(volume, dir+"/") {
			host = i
		}
	}
	written := 1
	Eventually(t, time.Minute, "the first task has started", func() error { // a moment after it was told to run
		data, err := os.ReadFile(filepath.Join(volume, "starts"))
		if err == nil && string(data) != "start\n" {
			err = fmt.Errorf("it has written %q", data)
		}
		return err
	})
	steps := []struct {
		name string
		do   func()
		more int // tasks that are started by that
	}{
		{"suspended and resumed", func() {
			a.change("PUT", "/v2/apps/db/pg", `{"instances":0}`)
			a.settled(0)
			a.change("PUT", "/v2/apps/db/pg", `{"instances":1}`)
		}, 1},
		{"killed by hand", func() { a.change("DELETE", "/v2/apps/db/pg/tasks", "") }, 1},
		{"upgraded", func() { a.change("PUT", "/v2/apps/db/pg", `{"env":{"V":"2"}}`) }, 1},
		{"Marathon is killed, and comes back", func() {
			r.MarathonProcess.Kill()
			r.MarathonProcess.run()
			r.MarathonProcess.Healthy(r.Marathon + "/health")
		}, 0},
		{"suspended, Marathon is killed, resumed", func() {
			a.change("PUT", "/v2/apps/db/pg", `{"instances":0}`)
			r.MarathonProcess.Kill()
			r.MarathonProcess.run()
			r.MarathonProcess.Healthy(r.Marathon + "/health")
			a.settled(0)
			a.change("PUT", "/v2/apps/db/pg", `{"instances":1}`)
		}, 1},
		{"its agent is killed, and comes back", func() {
			r.Agents[host].Kill()
			r.Agents[host].run()
			r.Agents[host].Healthy(r.agentHealth[host])
		}, 0},
		{"suspended while its agent is away, resumed before that is back", func() {
			a.change("PUT", "/v2/apps/db/pg", `{"instances":0}`)
			a.settled(0)
			r.Agents[host].Kill()
			Eventually(t, time.Minute, "the master has noticed", func() error {
				_, body, err := a.request("GET", r.Master+"/slaves", "")
				if err == nil && strings.Count(body, `"active":true`) != 1 {
					err = fmt.Errorf("the agents are %s", body)
				}
				return err
			})
			a.change("PUT", "/v2/apps/db/pg", `{"instances":1}`)
			Eventually(t, time.Minute, "the queue tells that it waits for its place", func() error {
				_, body, err := a.request("GET", r.Marathon+"/v2/queue", "")
				if err == nil && !strings.Contains(body, `{"reason":"NoCorrespondingReservationFound","declined":1,`) {
					err = fmt.Errorf("the queue is %s", body)
				}
				return err
			})
			r.Agents[host].run()
			r.Agents[host].Healthy(r.agentHealth[host])
		}, 1},
		{"the master is killed, and comes back", func() {
			r.MasterProcess.Kill()
			r.MasterProcess.run()
			r.MasterProcess.Healthy(r.masterHealth)
			a.change("DELETE", "/v2/apps/db/pg/tasks", "")
		}, 1},
	}
	for _, step := range steps {
		step.do()
		Eventually(t, time.Minute, step.name+": the task has started", func() error {
			if got, want := a.starts(volume), written+step.more; got != want {
				return fmt.Errorf("%d starts are written, want %d", got, want)
			}
			return nil
		})
		a.settled(1)
		written += step.more
		if now := a.volumes(); len(now) != 1 || now[0] != volume || a.starts(volume) != written {
			t.Fatalf("%s: the volumes are %v, want %s with %d starts", step.name, now, volume, written)
		}
	}

	a.change("DELETE", "/v2/apps/db/pg/tasks?wipe=true", "")
	Eventually(t, time.Minute, "there is another volume, and the first is gone", func() error {
		now := a.volumes()
		if len(now) != 1 || now[0] == volume {
			return fmt.Errorf("the volumes are %v", now)
		}
		return nil
	})
	a.settled(1)
	a.change("DELETE", "/v2/apps/db/pg", "")
	Eventually(t, time.Minute, "nothing is left", func() error {
		if now := a.volumes(); len(now) > 0 {
			return fmt.Errorf("the volumes are %v", now)
		}
		status, body, err := r.request("GET", r.Master+"/slaves", "")
		if err != nil || status != http.StatusOK || strings.Count(body, `"reserved_resources":{}`) != 2 {
			return fmt.Errorf("got %d %v %s", status, err, body)
		}
		return nil
	})
}

// A pod's persistent volume is seen by all of its containers that mount it, and keeps their data through a suspension.
func TestAResidentPodKeepsItsData(t *testing.T) {
	r := Separate(t, 2)
	a := &tenant{Roles: r, t: t, id: "db/pod"}
	pod := func(instances int) string {
		return fmt.Sprintf(`{"id":"/db/pod","role":"db","volumes":[{"name":"store","persistent":{"size":16}}],"scaling":{"kind":"fixed","instances":%d},"containers":[
			{"name":"w","resources":{"cpus":0.1,"mem":32},"exec":{"command":{"shell":"echo start >>keep/starts && exec sleep 100000"}},"volumeMounts":[{"name":"store","mountPath":"keep"}]},
			{"name":"r","resources":{"cpus":0.1,"mem":32},"exec":{"command":{"shell":"until grep -q start its/starts; do sleep 0.1; done; touch its/seen; exec sleep 100000"}},"volumeMounts":[{"name":"store","mountPath":"its"}]}]}`, instances)
	}
	wrote := func(want string) {
		t.Helper()
		Eventually(t, time.Minute, "both containers use the volume", func() error {
			volumes := a.volumes()
			if len(volumes) != 1 {
				return fmt.Errorf("the volumes are %v, want one", volumes)
			}
			data, err := os.ReadFile(filepath.Join(volumes[0], "starts"))
			if _, seen := os.Stat(filepath.Join(volumes[0], "seen")); err != nil || seen != nil || string(data) != want {
				return fmt.Errorf("it holds %q, %v, %v", data, err, seen)
			}
			return nil
		})
	}
	a.change("POST", "/v2/pods", pod(1))
	wrote("start\n")
	volume := a.volumes()[0]
	a.change("PUT", "/v2/pods/db/pod?force=true", pod(0))
	a.change("PUT", "/v2/pods/db/pod?force=true", pod(1))
	wrote("start\nstart\n")
	if now := a.volumes()[0]; now != volume {
		t.Errorf("the volume is %s, and was %s", now, volume)
	}
	a.change("DELETE", "/v2/pods/db/pod?force=true", "")
	Eventually(t, time.Minute, "nothing is left", func() error {
		if now := a.volumes(); len(now) > 0 {
			return fmt.Errorf("the volumes are %v", now)
		}
		return nil
	})
}
