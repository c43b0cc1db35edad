package hosts

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Cluster is the addresses of a running one.
type Cluster struct {
	t        testing.TB
	Marathon string // base URL
	Master   string // base URL
	DNS      string // host:port
	probes   string // where probe tasks leave their files
	// network is where the cluster runs; nil is this machine.
	network *Network
}

// request does an HTTP request to a part of the cluster.
func (c *Cluster) request(method, url, body string) (int, string, error) {
	if c.network != nil {
		return c.network.Request(method, url, body)
	}
	return Request(method, url, body)
}

// transport carries frameworks' calls to the cluster.
func (c *Cluster) transport() *http.Transport {
	t := &http.Transport{IdleConnTimeout: time.Minute}
	if c.network != nil {
		t.DialContext = c.network.dial
	}
	return t
}

// App is what the tests read of an app.
type App struct {
	ID             string `json:"id"`
	Instances      int    `json:"instances"`
	TasksRunning   int    `json:"tasksRunning"`
	TasksStaged    int    `json:"tasksStaged"`
	Deployments    []any  `json:"deployments"`
	Tasks          []Task `json:"tasks"`
	LastTaskFailed *struct {
		Message string `json:"message"`
		State   string `json:"state"`
	} `json:"lastTaskFailure"`
}

type Task struct {
	ID    string `json:"id"`
	Host  string `json:"host"`
	State string `json:"state"`
	Ports []int  `json:"ports"`
	Agent string `json:"slaveId"`
}

// Has waits until the master has so many agents, no more, and offers them all. An agent says that it is ready before the master has
// heard of it, and on a busy machine before its first supervisor answers, until which it is not offered.
func (c *Cluster) Has(agents int) {
	c.t.Helper()
	Eventually(c.t, 2*time.Minute, fmt.Sprintf("the master offers %d agents", agents), func() error {
		_, body, err := c.request("GET", c.Master+"/slaves", "")
		if err != nil {
			return err
		}
		var v struct{ Slaves []struct{ Active bool } }
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			return err
		}
		active := 0
		for _, a := range v.Slaves {
			if a.Active {
				active++
			}
		}
		if active != agents {
			return fmt.Errorf("it offers %d of %d", active, len(v.Slaves))
		}
		return nil
	})
}

func (c *Cluster) App(id string) (App, error) {
	_, body, err := c.request("GET", c.Marathon+"/v2/apps"+id, "")
	if err != nil {
		return App{}, err
	}
	var v struct{ App App }
	err = json.Unmarshal([]byte(body), &v)
	return v.App, err
}

// Running waits until an app has exactly n running tasks and no deployment, and returns them.
func (c *Cluster) Running(id string, n int) []Task {
	c.t.Helper()
	var tasks []Task
	Eventually(c.t, 2*time.Minute, fmt.Sprintf("%s has %d running tasks", id, n), func() error {
		a, err := c.App(id)
		if err != nil {
			return err
		}
		tasks = a.Tasks
		ok := len(tasks) == n && len(a.Deployments) == 0 && a.TasksRunning == n
		for _, t := range tasks {
			ok = ok && t.State == "TASK_RUNNING"
		}
		if !ok {
			return fmt.Errorf("it has %+v", a)
		}
		return nil
	})
	return tasks
}

// resolver asks the cluster's DNS server alone.
func (c *Cluster) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if c.network != nil {
			return c.network.dial(ctx, network, c.DNS)
		}
		return (&net.Dialer{}).DialContext(ctx, network, c.DNS)
	}}
}

// Endpoints waits until SRV names exactly n endpoints, and returns them as host:port with the host resolved by DNS too.
func (c *Cluster) Endpoints(name string, n int) []string {
	c.t.Helper()
	var found []string
	Eventually(c.t, 30*time.Second, fmt.Sprintf("SRV of %s has %d endpoints", name, n), func() error {
		found = nil
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, records, err := c.resolver().LookupSRV(ctx, "", "", "_"+name+"._tcp.marathon.mesos.")
		if err != nil {
			return err
		}
		for _, r := range records {
			ips, err := c.resolver().LookupHost(ctx, r.Target)
			if err != nil {
				return err
			}
			found = append(found, net.JoinHostPort(ips[0], strconv.Itoa(int(r.Port))))
		}
		if len(found) != n {
			return fmt.Errorf("it has %v", found)
		}
		return nil
	})
	slices.Sort(found)
	return found
}

// EndpointsAt waits until SRV names exactly n endpoints of an app, all at one address.
func (c *Cluster) EndpointsAt(name, addr string, n int) []string {
	c.t.Helper()
	var found []string
	Eventually(c.t, 60*time.Second, fmt.Sprintf("the endpoints of %s are at %s", name, addr), func() error {
		found = c.Endpoints(name, n)
		for _, e := range found {
			if host, _, _ := net.SplitHostPort(e); host != addr {
				return fmt.Errorf("they are %v", found)
			}
		}
		return nil
	})
	return found
}

// ProbeApp posts an app whose tasks are probes.
func (c *Cluster) ProbeApp(id string, instances int, more ...string) {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	def := map[string]any{
		"id": id, "cmd": "exec " + self, "cpus": 0.05, "mem": 32, "instances": instances, "backoffSeconds": 1,
		"env":             map[string]string{probeVariable: c.probes},
		"portDefinitions": []map[string]any{{"port": 0, "name": "http"}},
	}
	for _, m := range more {
		if err := json.Unmarshal([]byte(m), &def); err != nil {
			c.t.Fatal(err)
		}
	}
	body, _ := json.Marshal(def)
	if _, _, err := c.request("POST", c.Marathon+"/v2/apps", string(body)); err != nil {
		c.t.Fatal(err)
	}
}

// pids reads what the probes left: task id to process id. A task that was started twice fails the test.
func (c *Cluster) pids() map[string]int {
	c.t.Helper()
	entries, err := os.ReadDir(c.probes)
	if err != nil {
		c.t.Fatal(err)
	}
	pids := map[string]int{}
	for _, e := range entries {
		dot := strings.LastIndexByte(e.Name(), '.')
		id := e.Name()[:max(dot, 0)]
		pid, err := strconv.Atoi(e.Name()[dot+1:])
		if err != nil {
			c.t.Fatalf("a probe left a file %q: %v", e.Name(), err)
		}
		if first, twice := pids[id]; twice {
			c.t.Fatalf("task %s was started more than once: processes %d and %d", id, first, pid)
		}
		pids[id] = pid
	}
	return pids
}

// pidsOf waits until tasks have left what pids reads. A task is told to run as soon as it is started, and leaves it later.
func (c *Cluster) pidsOf(ids ...string) map[string]int {
	c.t.Helper()
	var pids map[string]int
	Eventually(c.t, 30*time.Second, fmt.Sprintf("the processes of %v are known", ids), func() error {
		pids = c.pids()
		for _, id := range ids {
			if pids[id] == 0 {
				return fmt.Errorf("that of %s is not", id)
			}
		}
		return nil
	})
	return pids
}

// Answers asks every task of an app over HTTP and returns task id to process id as the tasks tell it.
func (c *Cluster) Answers(tasks []Task) map[string]int {
	c.t.Helper()
	got := map[string]int{}
	for _, t := range tasks {
		Eventually(c.t, time.Minute, "task "+t.ID+" answers", func() error {
			if len(t.Ports) != 1 {
				return fmt.Errorf("it has ports %v", t.Ports)
			}
			_, body, err := c.request("GET", fmt.Sprintf("http://%s:%d/", t.Host, t.Ports[0]), "")
			if err != nil {
				return err
			}
			id, pid, _ := strings.Cut(body, " ")
			if id != t.ID {
				return fmt.Errorf("%s answers in its place", id)
			}
			got[id], err = strconv.Atoi(pid)
			return err
		})
	}
	return got
}

// gone tells whether a process has ended. Its number may be that of a thread of another one by now: every connection into a network
// takes a thread of its own.
func gone(pid int) bool { return errors.Is(unix.Tgkill(pid, pid, 0), syscall.ESRCH) }

func killProcess(t testing.TB, pid int) {
	t.Helper()
	// Not kill, which takes 0, of a process that is not known yet, for the group of the tests themselves.
	if err := unix.Tgkill(pid, pid, syscall.SIGKILL); err != nil {
		t.Fatalf("cannot kill process %d: %v", pid, err)
	}
}

// Dev starts a whole cluster in one process.
func Dev(t testing.TB, more ...string) (*Cluster, *Process) {
	t.Helper()
	const ip = "127.0.0.1"
	master, agent, marathon, mesh, dns, dnsHTTP := FreePort(t, ip), FreePort(t, ip), FreePort(t, ip), FreePort(t, ip), FreePort(t, ip), FreePort(t, ip)
	c := &Cluster{
		t: t, Marathon: fmt.Sprintf("http://%s:%d", ip, marathon), Master: fmt.Sprintf("http://%s:%d", ip, master),
		DNS: fmt.Sprintf("%s:%d", ip, dns), probes: t.TempDir(),
	}
	args := []string{
		"dev", "--work-dir", workDir(t), fmt.Sprint("--master-port=", master), fmt.Sprint("--agent-port=", agent),
		fmt.Sprint("--marathon-port=", marathon), fmt.Sprint("--mesh-port=", mesh), fmt.Sprint("--dns-port=", dns),
		fmt.Sprint("--dns-http-port=", dnsHTTP), "--resources=cpus:8;mem:8192;disk:10000;ports:[31000-32000]",
	}
	p := Start(t, c.Marathon+"/health", "dev", append(args, more...)...)
	for _, url := range []string{c.Master, fmt.Sprintf("http://%s:%d", ip, agent), fmt.Sprintf("http://%s:%d", ip, dnsHTTP)} {
		p.Healthy(url + "/health")
	}
	return c, p
}

// AllAnswer asks every endpoint that DNS names, and wants as many different answers.
func (c *Cluster) AllAnswer(name string, n int) {
	c.t.Helper()
	Eventually(c.t, 30*time.Second, fmt.Sprintf("all %d endpoints of %s answer", n, name), func() error {
		different := map[string]bool{}
		for _, e := range c.Endpoints(name, n) {
			_, body, err := c.request("GET", "http://"+e+"/", "")
			if err != nil {
				return err
			}
			different[body] = true
		}
		if len(different) != n {
			return fmt.Errorf("%d different answers", len(different))
		}
		return nil
	})
}

// framework waits until Marathon knows the id of its framework.
func (c *Cluster) framework() string {
	c.t.Helper()
	var info struct{ FrameworkID string }
	Eventually(c.t, time.Minute, "the framework has an id", func() error {
		_, body, err := c.request("GET", c.Marathon+"/v2/info", "")
		if err == nil {
			err = json.Unmarshal([]byte(body), &info)
		}
		if err == nil && info.FrameworkID == "" {
			err = errors.New(body)
		}
		return err
	})
	return info.FrameworkID
}

// Events opens Marathon's stream of some types of events, and returns their data. The channel is closed at the end of the stream.
func (c *Cluster) Events(types ...string) <-chan string {
	c.t.Helper()
	ctx := c.t.Context()
	req, err := http.NewRequestWithContext(ctx, "GET", c.Marathon+"/v2/events?"+url.Values{"event_type": types}.Encode(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := (&http.Client{Transport: c.transport()}).Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		defer res.Body.Close()
		scanner := bufio.NewScanner(res.Body)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			if data, ok := strings.CutPrefix(scanner.Text(), "data: "); ok {
				select {
				case lines <- data:
				case <-ctx.Done():
				}
			}
		}
	}()
	return lines
}
