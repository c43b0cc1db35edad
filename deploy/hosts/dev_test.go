package hosts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/agent/testenv"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestOneCommandRunsTheExample(t *testing.T) {
	testenv.NeedProgram(t, "python3")
	c, p := Dev(t)
	example, err := os.ReadFile("../examples/web.json")
	if err != nil {
		t.Fatal(err)
	}
	status, body, err := Request("POST", c.Marathon+"/v2/apps", string(example))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("POST /v2/apps: %d %s %v", status, body, err)
	}
	c.Running("/web", 2)
	c.AllAnswer("web", 2)

	status, body, err = Request("PUT", c.Marathon+"/v2/apps/web", `{"instances":5}`)
	if err != nil || !strings.Contains(body, "deploymentId") {
		t.Fatalf("PUT /v2/apps/web: %d %s %v", status, body, err)
	}
	c.Running("/web", 5)
	c.AllAnswer("web", 5)

	if _, _, err := Request("DELETE", c.Marathon+"/v2/apps/web", ""); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "the app is gone", func() error {
		if status, _, _ := Request("GET", c.Marathon+"/v2/apps/web", ""); status != http.StatusNotFound {
			return fmt.Errorf("GET answers %d", status)
		}
		if names, err := c.resolver().LookupHost(t.Context(), "web.marathon.mesos."); err == nil {
			return fmt.Errorf("DNS still answers %v", names)
		}
		return nil
	})
	p.Terminate()
}

func TestKilledTaskIsReplacedAndDNSFollows(t *testing.T) {
	c, _ := Dev(t)
	c.ProbeApp("/probe", 3)
	before := c.Answers(c.Running("/probe", 3))
	c.Endpoints("probe", 3)
	var victim string
	for id, pid := range before {
		victim = id
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		break
	}
	var after map[string]int
	Eventually(t, 30*time.Second, "the task is replaced", func() error {
		a, err := c.App("/probe")
		if err != nil {
			return err
		}
		for _, Task := range a.Tasks {
			if Task.ID == victim || Task.State != "TASK_RUNNING" {
				return fmt.Errorf("tasks: %+v", a.Tasks)
			}
		}
		if len(a.Tasks) != 3 {
			return fmt.Errorf("tasks: %+v", a.Tasks)
		}
		return nil
	})
	tasks := c.Running("/probe", 3)
	after = c.Answers(tasks)
	for id, pid := range before {
		if id != victim && after[id] != pid {
			t.Errorf("task %s was process %d and is now %d: the others must not be touched", id, pid, after[id])
		}
	}
	Eventually(t, 10*time.Second, "DNS names the new task and not the old one", func() error {
		var ports []string
		for _, e := range c.Endpoints("probe", 3) {
			ports = append(ports, e[strings.LastIndex(e, ":")+1:])
		}
		return same(ports, portsOf(tasks))
	})
	c.AllAnswer("probe", 3)
	a, err := c.App("/probe")
	if err != nil || a.LastTaskFailed == nil || a.LastTaskFailed.State != "TASK_FAILED" {
		t.Errorf("lastTaskFailure = %+v, %v; want the killed task", a.LastTaskFailed, err)
	}
	c.pids()
}

func TestDevEndsItsTasksAndKeepsThemWhenAsked(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint("keep=", keep), func(t *testing.T) {
			var more []string
			if keep {
				more = append(more, "--keep-tasks")
			}
			c, p := Dev(t, more...)
			c.ProbeApp("/probe", 2)
			pids := c.Answers(c.Running("/probe", 2))
			p.Terminate()
			for id, pid := range pids {
				if keep && gone(pid) {
					t.Errorf("task %s ended with dev, want it kept", id)
				}
				if !keep {
					Eventually(t, 10*time.Second, "task "+id+" has ended", func() error {
						if !gone(pid) {
							return fmt.Errorf("process %d lives", pid)
						}
						return nil
					})
				}
			}
			if keep {
				p.run()
				p.Healthy(c.Marathon + "/health")
				for id, pid := range c.Answers(c.Running("/probe", 2)) {
					if pids[id] != pid {
						t.Errorf("task %s is process %d after the restart, was %d", id, pid, pids[id])
					}
				}
				if _, _, err := Request("DELETE", c.Marathon+"/v2/apps/probe", ""); err != nil {
					t.Fatal(err)
				}
				for id, pid := range pids {
					Eventually(t, 20*time.Second, "task "+id+" has ended", func() error {
						if !gone(pid) {
							return fmt.Errorf("process %d lives", pid)
						}
						return nil
					})
				}
			}
		})
	}
}

func TestBadInputIsRefusedAndHarmsNothing(t *testing.T) {
	c, _ := Dev(t)
	c.ProbeApp("/probe", 1)
	before := c.Answers(c.Running("/probe", 1))
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		text                     string
	}{
		{"not JSON", "POST", "/v2/apps", `{"id":`, 400, "Invalid JSON"},
		{"a number where text belongs", "POST", "/v2/apps", `{"id":"/x","cmd":7}`, 422, "error.expected.jsstring"},
		{"text where a number belongs", "POST", "/v2/apps", `{"id":"/x","cmd":"true","cpus":"many"}`, 422, "error.expected.jsnumber"},
		{"an id against the rules", "POST", "/v2/apps", `{"id":"/Bad_Id","cmd":"true"}`, 422, "/id"},
		{"an id with a reserved end", "POST", "/v2/apps", `{"id":"/x/restart","cmd":"true"}`, 422, "/id"},
		{"neither cmd nor args nor image", "POST", "/v2/apps", `{"id":"/x"}`, 422, ""},
		{"a negative count", "POST", "/v2/apps", `{"id":"/x","cmd":"true","instances":-1}`, 422, "/instances"},
		{"an app that exists", "POST", "/v2/apps", `{"id":"/probe","cmd":"true"}`, 409, "already exists"},
		{"an unknown app", "GET", "/v2/apps/nobody", "", 404, "App '/nobody' does not exist"},
		{"an unknown app to change", "PATCH", "/v2/apps/nobody", `{"instances":1}`, 404, "does not exist"},
		{"an unknown app to delete", "DELETE", "/v2/apps/nobody", "", 404, "does not exist"},
		{"an unknown page", "GET", "/v3/apps", "", 404, ""},
	} {
		status, body, _ := Request(tc.method, c.Marathon+tc.path, tc.body)
		if status != tc.status || !strings.Contains(body, tc.text) || (body != "" && !json.Valid([]byte(body))) {
			t.Errorf("%s: %d %s; want %d with %q as JSON", tc.name, status, body, tc.status, tc.text)
		}
	}
	for _, tc := range []struct {
		name, body string
		status     int
	}{
		{"not JSON", "{", 400},
		{"no type", "{}", 400},
		{"not subscribed", `{"type":"REVIVE","framework_id":{"value":"nobody"}}`, 400},
	} {
		if status, body, _ := Request("POST", c.Master+"/api/v1/scheduler", tc.body); status != tc.status || body == "" {
			t.Errorf("scheduler call: %s: %d %q, want %d with a reason", tc.name, status, body, tc.status)
		}
	}

	// A command that does not exist fails again and again, with a reason, and is not started faster than the backoff allows.
	if _, _, err := Request("POST", c.Marathon+"/v2/apps", `{"id":"/missing","cmd":"exec /does/not/exist","cpus":0.01,"mem":32}`); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "the failure is told", func() error {
		a, err := c.App("/missing")
		if err != nil || a.LastTaskFailed == nil {
			return fmt.Errorf("%+v %v", a, err)
		}
		if a.LastTaskFailed.State != "TASK_FAILED" || a.LastTaskFailed.Message == "" {
			t.Errorf("lastTaskFailure = %+v", a.LastTaskFailed)
		}
		return nil
	})
	// A task larger than any node waits, and the queue says why.
	if _, _, err := Request("POST", c.Marathon+"/v2/apps", `{"id":"/huge","cmd":"true","cpus":4000,"mem":32}`); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "the queue says what is missing", func() error {
		_, body, err := Request("GET", c.Marathon+"/v2/queue?embed=lastUnusedOffers", "")
		if err != nil {
			return err
		}
		if !strings.Contains(body, "/huge") || !strings.Contains(body, "InsufficientCpus") {
			return fmt.Errorf("it says %s", body)
		}
		return nil
	})
	after := c.Answers(c.Running("/probe", 1))
	for id, pid := range before {
		if after[id] != pid {
			t.Errorf("the good app was harmed: task %s was process %d, is %d", id, pid, after[id])
		}
	}
}

func TestPortInUseIsExplained(t *testing.T) {
	c, _ := Dev(t)
	taken := c.Marathon[strings.LastIndex(c.Marathon, ":")+1:]
	const ip = "127.0.0.1" // with ports of its own, so that of those only one is in use
	for _, args := range [][]string{
		{
			"dev", "--work-dir", workDir(t), "--marathon-port=" + taken, fmt.Sprint("--master-port=", FreePort(t, ip)), fmt.Sprint("--agent-port=", FreePort(t, ip)),
			fmt.Sprint("--mesh-port=", FreePort(t, ip)), fmt.Sprint("--dns-port=", FreePort(t, ip)), fmt.Sprint("--dns-http-port=", FreePort(t, ip)),
		},
		{"marathon", "--work-dir", t.TempDir(), "--http-address=127.0.0.1", "--http-port=" + taken, "--master=" + c.Master},
	} {
		out, err := exec.Command(binary, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), taken) || !strings.Contains(string(out), "in use") {
			t.Errorf("%q: %v\n%s\nwant a failure that names port %s", args, err, out, taken)
		}
	}
}

func TestWrongFlagsAreExplained(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"agent", "--jion=x"}, "did you mean --join?"},
		{[]string{"master", "--port=x"}, "--port"},
		{[]string{"fly"}, `unknown command "fly"`},
		{[]string{"mehs"}, `unknown command "mehs"; did you mean mesh?`},
		{[]string{"marathon", "--master=ftp://x"}, "--master"},
	} {
		out, err := exec.Command(binary, tc.args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tc.want) {
			t.Errorf("%q: %v %s; want a failure with %q", tc.args, err, out, tc.want)
		}
	}
}
