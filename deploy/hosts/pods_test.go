package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"starling/agent/testenv"
)

// pod is what the tests read of a pod's status.
type pod struct {
	Status    string
	Instances []podInstance
	History   []struct {
		Containers []struct{ ContainerID, LastKnownState string }
	} `json:"terminationHistory"`
}

type podInstance struct {
	ID, Status, SpecReference string
	Containers                []struct {
		Name, Status, ContainerID string
		Endpoints                 []struct {
			Name              string
			AllocatedHostPort int
			Healthy           *bool
		}
	}
}

// camera is a pod of two containers: one writes into a folder, the other serves it. Whoever asks is told the version, the
// process that writes, and the task. The check has a timeout that a busy machine keeps to: one that is missed makes an instance ill.
func camera(instances int, version string) string {
	return fmt.Sprintf(`{"id":"/edge/cam","volumes":[{"name":"frames"}],"environment":{"V":%q},
		"containers":[
		 {"name":"grab","resources":{"cpus":0.1,"mem":128},
		  "exec":{"command":{"shell":"while echo $V $$ $MESOS_TASK_ID >frames/new; do mv frames/new frames/index.html; sleep 0.2; done"}},
		  "volumeMounts":[{"name":"frames","mountPath":"frames"}]},
		 {"name":"serve","resources":{"cpus":0.1,"mem":128},
		  "exec":{"command":{"shell":"cd html && exec python3 -m http.server $ENDPOINT_WEB"}},
		  "endpoints":[{"name":"web","hostPort":0,"protocol":["tcp"]}],
		  "healthCheck":{"http":{"endpoint":"web","path":"/index.html"},"intervalSeconds":5,"timeoutSeconds":4,"delaySeconds":2,"gracePeriodSeconds":30},
		  "volumeMounts":[{"name":"frames","mountPath":"html"}]}],
		"scaling":{"kind":"fixed","instances":%d},"scheduling":{"backoff":{"backoff":0},"upgrade":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0.5}}}`,
		version, instances)
}

func (c *Cluster) pod(id string) (pod, error) {
	var p pod
	status, body, err := c.request("GET", c.Marathon+"/v2/pods"+id+"::status", "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, body)
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &p)
	}
	return p, err
}

// stable waits until the pod has n stable instances and no other, and no deployment runs; and answers what each of them does
// over HTTP, by the instance, which must be of that version.
func (c *Cluster) stable(id string, n int, version string) (pod, map[string]string) {
	c.t.Helper()
	var p pod
	var answers map[string]string
	Eventually(c.t, 60*time.Second, fmt.Sprintf("%s has %d stable instances of version %s", id, n, version), func() error {
		var err error
		if p, err = c.pod(id); err != nil {
			return err
		}
		if _, body, err := c.request("GET", c.Marathon+"/v2/deployments", ""); err != nil || body != "[]" {
			return fmt.Errorf("deployments: %s %v", body, err)
		}
		if p.Status != "STABLE" || len(p.Instances) != n || slices.ContainsFunc(p.Instances, func(i podInstance) bool { return i.Status != "STABLE" }) {
			return fmt.Errorf("it is %+v", p)
		}
		answers = make(map[string]string)
		for _, i := range p.Instances {
			port := i.Containers[1].Endpoints[0].AllocatedHostPort
			_, body, err := c.request("GET", fmt.Sprintf("http://127.0.0.1:%d/", port), "")
			if err != nil {
				return err
			}
			if words := strings.Fields(body); len(words) != 3 || words[0] != version || words[2] != i.Containers[0].ContainerID {
				return fmt.Errorf("%s says %q, want version %s and task %s", i.ID, body, version, i.Containers[0].ContainerID)
			}
			answers[i.ID] = strings.Fields(body)[1]
		}
		return nil
	})
	return p, answers
}

func TestPodServesIsScaledUpdatedReplacedAndDeleted(t *testing.T) {
	testenv.NeedProgram(t, "python3")
	dir := workDir(t)
	c, p := Dev(t, "--work-dir", dir)
	want := func(status int, method, path, body string) {
		t.Helper()
		if got, answer, err := Request(method, c.Marathon+path, body); err != nil || got != status {
			t.Fatalf("%s %s: %d %s %v", method, path, got, answer, err)
		}
	}
	want(http.StatusCreated, "POST", "/v2/pods", camera(1, "one"))
	c.stable("/edge/cam", 1, "one")
	if names := c.Endpoints("web._cam.edge", 1); len(names) != 1 {
		t.Errorf("DNS names %v", names)
	}

	want(http.StatusOK, "PUT", "/v2/pods/edge/cam", camera(4, "one"))
	c.stable("/edge/cam", 4, "one")

	// A new version comes in steps: at no moment are there fewer than two that serve, nor more than six groups.
	want(http.StatusOK, "PUT", "/v2/pods/edge/cam", camera(4, "two"))
	least, most := 4, 4
	Eventually(t, 90*time.Second, "the new version is there", func() error {
		p, err := c.pod("/edge/cam")
		if err != nil {
			return err
		}
		stable, all := 0, 0
		for _, i := range p.Instances {
			if i.Status == "STABLE" {
				stable++
			}
			if i.Status != "PENDING" {
				all++
			}
		}
		least, most = min(least, stable), max(most, all)
		if _, body, err := Request("GET", c.Marathon+"/v2/deployments", ""); err != nil || body != "[]" {
			return fmt.Errorf("%s %v", body, err)
		}
		return nil
	})
	if least < 2 || most > 6 {
		t.Errorf("during the update there were %d to %d instances, want 2 to 6", least, most)
	}
	before, writers := c.stable("/edge/cam", 4, "two")

	// One container of one instance dies: its neighbour goes with it, and the instance is launched again.
	victim := before.Instances[0]
	pid, err := strconv.Atoi(writers[victim.ID])
	if err != nil {
		t.Fatal(err)
	}
	killProcess(t, pid)
	Eventually(t, 60*time.Second, "the instance is launched again", func() error {
		p, err := c.pod("/edge/cam")
		if err != nil {
			return err
		}
		for _, i := range p.Instances {
			if i.ID == victim.ID && i.Status == "STABLE" && i.Containers[0].ContainerID == victim.ID+".grab.2" && i.Containers[1].ContainerID == victim.ID+".serve.2" {
				return nil
			}
		}
		return fmt.Errorf("%+v", p)
	})
	after, again := c.stable("/edge/cam", 4, "two")
	for id, pid := range writers {
		if (id == victim.ID) == (again[id] == pid) {
			t.Errorf("%s was written by process %s and is by %s: want another one where one was killed, and the same elsewhere", id, pid, again[id])
		}
	}
	if h := after.History; len(h) != 1 || h[0].Containers[0].ContainerID != victim.Containers[0].ContainerID || h[0].Containers[0].LastKnownState != "TASK_FAILED" {
		t.Errorf("terminations: %+v, want that of %s", h, victim.Containers[0].ContainerID)
	}

	want(http.StatusAccepted, "DELETE", "/v2/pods/edge/cam", "")
	Eventually(t, 60*time.Second, "nothing is left of the pod", func() error {
		if status, body, _ := Request("GET", c.Marathon+"/v2/pods/edge/cam::status", ""); status != http.StatusNotFound {
			return fmt.Errorf("status %d %s", status, body)
		}
		if _, body, err := Request("GET", c.Marathon+"/v2/tasks", ""); err != nil || body != `{"tasks":[]}` {
			return fmt.Errorf("tasks %s %v", body, err)
		}
		if _, tasks := processesOf(dir); len(tasks) > 0 {
			return fmt.Errorf("processes %v", tasks)
		}
		_, body, err := Request("GET", c.Master+"/metrics/snapshot", "")
		if err != nil {
			return err
		}
		var numbers map[string]float64
		if err := json.Unmarshal([]byte(body), &numbers); err != nil {
			return err
		}
		if numbers["master/cpus_used"] != 0 || numbers["master/disk_used"] != 0 {
			return fmt.Errorf("%v cpus and %v of disk are in use", numbers["master/cpus_used"], numbers["master/disk_used"])
		}
		if names, err := c.resolver().LookupHost(t.Context(), "cam.edge.marathon.mesos."); err == nil {
			return errors.New("DNS still answers " + strings.Join(names, " "))
		}
		return nil
	})
	p.Terminate()
}
