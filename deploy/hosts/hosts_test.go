// Package hosts_test runs the real binary as real processes, and looks at it from outside as its users do: over HTTP, with
// DNS queries, and by what its tasks write. Every node has an address of its own out of 127.0.0.0/8.
package hosts_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// probeVariable makes this test binary behave as a task instead: a small HTTP server that says who it is.
const probeVariable = "STARLING_TEST_PROBE"

var binary string

func TestMain(m *testing.M) {
	if dir := os.Getenv(probeVariable); dir != "" {
		probe(dir)
	}
	os.Exit(func() int {
		tmp, err := os.MkdirTemp("", "starling-hosts-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(tmp)
		binary = filepath.Join(tmp, "starling")
		args := []string{"build", "-o", binary}
		if raceEnabled {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "../../cmd/starling")...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build the binary: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// probe serves "task-id pid", after it left a file named after its task in dir that holds its process id. A file that is
// there already means that the task was started twice, which the file then says.
func probe(dir string) {
	name := filepath.Join(dir, os.Getenv("MESOS_TASK_ID"))
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		fmt.Fprintln(f, os.Getpid())
		err = f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %d", os.Getenv("MESOS_TASK_ID"), os.Getpid())
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(net.JoinHostPort("", os.Getenv("PORT0")), nil))
	os.Exit(4)
}

// process is one running role.
type process struct {
	t    *testing.T
	name string
	args []string
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
}

// output keeps what a process prints, and may be read while it runs.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs a role and waits until health answers 200. What it printed is shown when the test fails; it is stopped at
// the end of the test, and must then exit with 0 within ten seconds.
func start(t *testing.T, health, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, args: args, out: &output{}}
	p.run()
	t.Cleanup(func() {
		p.terminate()
		if t.Failed() {
			t.Logf("--- %s %s\n%s", name, strings.Join(args, " "), p.out)
		}
	})
	p.healthy(health)
	return p
}

func (p *process) run() {
	p.t.Helper()
	p.cmd = exec.Command(binary, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	// A group of its own: a signal to the test's group must not reach it, as under an init system.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("cannot start %s: %v", p.name, err)
	}
	cmd, done := p.cmd, make(chan struct{})
	p.done = done
	go func() { _ = cmd.Wait(); close(done) }()
}

func (p *process) healthy(health string) {
	p.t.Helper()
	eventually(p.t, 60*time.Second, p.name+" is healthy", func() error {
		select {
		case <-p.done:
			p.t.Fatalf("%s ended: %v\n%s", p.name, p.cmd.ProcessState, p.out)
		default:
		}
		_, _, err := request("GET", health, "")
		return err
	})
}

// kill ends the process as a crash would, and waits until it is gone.
func (p *process) kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) terminate() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			p.t.Errorf("%s ended with code %d after SIGTERM, want 0", p.name, code)
		}
	case <-time.After(10 * time.Second):
		p.t.Errorf("%s does not end within 10 s of SIGTERM", p.name)
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			p.kill()
		}
	}
}

// eventually waits until check succeeds, and fails the test with its last complaint otherwise.
func eventually(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		time.Sleep(20 * time.Millisecond) // the pace of asking, not a wait for a result
	}
}

var httpClient = &http.Client{Timeout: 15 * time.Second}

// request does one HTTP request and returns an error unless the answer is a success.
func request(method, url, body string) (int, string, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, url, res.StatusCode, data)
	}
	return res.StatusCode, string(data), err
}

// freePorts finds ports that nobody listens on now. They are chosen below the range that the system hands out by itself, so
// that no outgoing connection takes one meanwhile.
var freePorts = func() func(t *testing.T, ip string) int {
	var mu sync.Mutex
	next := 20000 + os.Getpid()%50*200
	return func(t *testing.T, ip string) int {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		for range 2000 {
			next++
			if next >= 30900 {
				next = 20000
			}
			l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(next)))
			if err != nil {
				continue
			}
			u, err := net.ListenPacket("udp", net.JoinHostPort(ip, strconv.Itoa(next)))
			l.Close()
			if err != nil {
				continue
			}
			u.Close()
			return next
		}
		t.Fatal("no free port")
		return 0
	}
}()

// cluster is the addresses of a running one.
type cluster struct {
	t        *testing.T
	marathon string // base URL
	master   string // base URL
	dns      string // host:port
	probes   string // where probe tasks leave their files
}

// app is what the tests read of an app.
type app struct {
	ID             string `json:"id"`
	Instances      int    `json:"instances"`
	TasksRunning   int    `json:"tasksRunning"`
	TasksStaged    int    `json:"tasksStaged"`
	Deployments    []any  `json:"deployments"`
	Tasks          []task `json:"tasks"`
	LastTaskFailed *struct {
		Message string `json:"message"`
		State   string `json:"state"`
	} `json:"lastTaskFailure"`
}

type task struct {
	ID    string `json:"id"`
	Host  string `json:"host"`
	State string `json:"state"`
	Ports []int  `json:"ports"`
	Agent string `json:"slaveId"`
}

func (c *cluster) app(id string) (app, error) {
	_, body, err := request("GET", c.marathon+"/v2/apps"+id, "")
	if err != nil {
		return app{}, err
	}
	var v struct{ App app }
	err = json.Unmarshal([]byte(body), &v)
	return v.App, err
}

// running waits until an app has exactly n running tasks and no deployment, and returns them.
func (c *cluster) running(id string, n int) []task {
	c.t.Helper()
	var tasks []task
	eventually(c.t, 60*time.Second, fmt.Sprintf("%s has %d running tasks", id, n), func() error {
		a, err := c.app(id)
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
func (c *cluster) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, c.dns)
	}}
}

// endpoints waits until SRV names exactly n endpoints, and returns them as host:port with the host resolved by DNS too.
func (c *cluster) endpoints(name string, n int) []string {
	c.t.Helper()
	var found []string
	eventually(c.t, 30*time.Second, fmt.Sprintf("SRV of %s has %d endpoints", name, n), func() error {
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

// probeApp posts an app whose tasks are probes.
func (c *cluster) probeApp(id string, instances int, more ...string) {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	def := map[string]any{
		"id": id, "cmd": "exec " + self, "cpus": 0.05, "mem": 32, "instances": instances, "backoffSeconds": 0.1,
		"env":             map[string]string{probeVariable: c.probes},
		"portDefinitions": []map[string]any{{"port": 0, "name": "http"}},
	}
	for _, m := range more {
		if err := json.Unmarshal([]byte(m), &def); err != nil {
			c.t.Fatal(err)
		}
	}
	body, _ := json.Marshal(def)
	if _, _, err := request("POST", c.marathon+"/v2/apps", string(body)); err != nil {
		c.t.Fatal(err)
	}
}

// pids reads what the probes left: task id to process id. A task that was started twice fails the test.
func (c *cluster) pids() map[string]int {
	c.t.Helper()
	entries, err := os.ReadDir(c.probes)
	if err != nil {
		c.t.Fatal(err)
	}
	pids := map[string]int{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(c.probes, e.Name()))
		if err != nil {
			c.t.Fatal(err)
		}
		lines := strings.Fields(string(data))
		if len(lines) != 1 {
			c.t.Fatalf("task %s was started %d times: processes %v", e.Name(), len(lines), lines)
		}
		pids[e.Name()], err = strconv.Atoi(lines[0])
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return pids
}

// answers asks every task of an app over HTTP and returns task id to process id as the tasks tell it.
func (c *cluster) answers(tasks []task) map[string]int {
	c.t.Helper()
	got := map[string]int{}
	for _, t := range tasks {
		eventually(c.t, 20*time.Second, "task "+t.ID+" answers", func() error {
			if len(t.Ports) != 1 {
				return fmt.Errorf("it has ports %v", t.Ports)
			}
			_, body, err := request("GET", fmt.Sprintf("http://%s:%d/", t.Host, t.Ports[0]), "")
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

// gone tells whether a process has ended.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func killProcess(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
