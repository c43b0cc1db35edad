// Package hosts runs the real binary as real processes, and looks at it from outside as its users do: over HTTP, with
// DNS queries, and by what its tasks write. Every node has an address of its own out of 127.0.0.0/8.
package hosts

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
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

// Main is the TestMain of a package that uses this one: it builds the binary, runs the tests and returns the exit code. In a
// process that was started as a task it is the task, and does not return.
func Main(m *testing.M) int {
	if dir := os.Getenv(probeVariable); dir != "" {
		probe(dir)
	}
	if drain := os.Getenv(servantVariable); drain != "" {
		servant(drain)
	}
	if pid := os.Getenv(janitorVariable); pid != "" {
		runJanitor(pid)
	}
	// Else a thread that enters a namespace might be the first one, which cannot be given up.
	runtime.LockOSThread()
	flag.Parse()
	parallel()
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
	// Built as the tests are, so with the filter of system calls where there is one.
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "-tags" {
				args = append(args, "-tags", setting.Value)
			}
		}
	}
	if out, err := exec.Command("go", append(args, "starling/cmd/starling")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the binary: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// parallel lets more tests run at once than there are processors, if nobody chose a number: those that say they can spend nearly all
// of their time waiting.
func parallel() {
	const name = "test.parallel"
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == name })
	if f := flag.Lookup(name); f != nil && !chosen {
		_ = f.Value.Set(strconv.Itoa(5 * runtime.GOMAXPROCS(0)))
	}
}

// probe serves "task-id pid", after it left an empty file in dir that is named after its task and its process. The name says all,
// so that whoever looks at any moment sees a start whole or not at all, and sees each start of a task that is started twice.
func probe(dir string) {
	name := filepath.Join(dir, fmt.Sprintf("%s.%d", os.Getenv("MESOS_TASK_ID"), os.Getpid()))
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %d", os.Getenv("MESOS_TASK_ID"), os.Getpid())
	})
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "probe_pid %d\n", os.Getpid())
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(net.JoinHostPort("", os.Getenv("PORT0")), nil))
	os.Exit(4)
}

// Process is one running role.
type Process struct {
	t    testing.TB
	name string
	args []string
	// host is where it runs; nil is this machine.
	host *Host
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

// Start runs a role and waits until health answers 200. What it printed is shown when the test fails; it is stopped at
// the end of the test, and must then exit with 0 within ten seconds.
func Start(t testing.TB, health, name string, args ...string) *Process {
	t.Helper()
	return start(t, nil, health, name, args...)
}

// Start runs a role on the host; see the function of that name.
func (h *Host) Start(health, name string, args ...string) *Process {
	h.network.t.Helper()
	return start(h.network.t, h, health, name, args...)
}

func start(t testing.TB, host *Host, health, name string, args ...string) *Process {
	t.Helper()
	p := launch(t, host, name, args...)
	p.Healthy(health)
	return p
}

// launch does what start does but wait.
func launch(t testing.TB, host *Host, name string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, name: name, args: args, host: host, out: &output{}}
	p.run()
	t.Cleanup(func() {
		p.Terminate()
		if t.Failed() {
			t.Logf("--- %s %s\n%s", name, strings.Join(args, " "), p.out)
		}
	})
	return p
}

func (p *Process) run() {
	p.t.Helper()
	p.cmd = exec.Command(binary, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	// A group of its own: a signal to the test's group must not reach it, as under an init system.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := p.cmd.Start
	if p.host != nil {
		begin = func() error { return inside(p.host.netns, p.cmd.Start) }
	}
	if err := begin(); err != nil {
		p.t.Fatalf("cannot start %s: %v", p.name, err)
	}
	cmd, done := p.cmd, make(chan struct{})
	p.done = done
	go func() { _ = cmd.Wait(); close(done) }()
}

func (p *Process) Healthy(health string) {
	p.t.Helper()
	Eventually(p.t, 60*time.Second, p.name+" is healthy", func() error {
		select {
		case <-p.done:
			p.t.Fatalf("%s ended: %v\n%s", p.name, p.cmd.ProcessState, p.out)
		default:
		}
		_, _, err := p.request("GET", health, "")
		return err
	})
}

// request does an HTTP request from where the process is.
func (p *Process) request(method, url, body string) (int, string, error) {
	if p.host != nil {
		return p.host.network.Request(method, url, body)
	}
	return Request(method, url, body)
}

// Kill ends the process as a crash would, and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *Process) Terminate() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a test that failed may have left it paused
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
			p.Kill()
		}
	}
}

// Eventually waits until check succeeds, and fails the test with its last complaint otherwise.
func Eventually(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	eventually(t, limit, 20*time.Millisecond, what, check)
}

// eventually is Eventually at another pace.
func eventually(t testing.TB, limit, pace time.Duration, what string, check func() error) {
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
		time.Sleep(pace) // of asking, not a wait for a result
	}
}

var httpClient = &http.Client{Timeout: 15 * time.Second}

// Request does one HTTP request and returns an error unless the answer is a success.
func Request(method, url, body string) (int, string, error) {
	return request(httpClient, method, url, body)
}

func request(client *http.Client, method, url, body string) (int, string, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
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

// FreePort finds ports that nobody listens on now. They are chosen below the range that the system hands out by itself, so
// that no outgoing connection takes one meanwhile.
func FreePort(t testing.TB, ip string) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 2000 {
		ports.next++
		if ports.next >= 30900 {
			ports.next = 20000
		}
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(ports.next)))
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", net.JoinHostPort(ip, strconv.Itoa(ports.next)))
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		return ports.next
	}
	t.Fatal("no free port")
	return 0
}

// ports counts through the range of FreePort; where it begins differs from run to run.
var ports = struct {
	sync.Mutex
	next int
}{next: 20000 + os.Getpid()%50*200}

// PID is the number of the running process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// CPU is the processor time that the running process has used.
func (p *Process) CPU() time.Duration {
	p.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		p.t.Fatal(err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	user, _ := strconv.ParseInt(string(fields[11]), 10, 64)
	system, _ := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// workDir makes a folder for a role. At the end of the test, when the role has been stopped, every process that was started
// out of it is ended: tasks outlive their agent, and must not outlive the test.
func workDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	endAll(t, dir)
	return dir
}

// endAll is workDir for a folder that is there.
func endAll(t testing.TB, dir string) {
	t.Cleanup(func() {
		left := cgroups{}
		defer left.remove()
		Eventually(t, time.Minute, "no process is left of "+dir, func() error {
			supervisors, tasks := processesOf(dir)
			for _, pid := range append(supervisors, tasks...) {
				left.note(pid)
			}
			for _, pid := range tasks {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			// A supervisor that is asked to end, and has no task any more, takes its cgroups with it.
			for _, pid := range supervisors {
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
			if len(supervisors)+len(tasks) > 0 {
				return fmt.Errorf("supervisors %v, tasks %v", supervisors, tasks)
			}
			return nil
		})
	})
}

// supervisorsOf finds the supervisor of an agent's folder.
func supervisorsOf(dir string) []int {
	supervisors, _ := processesOf(dir + "/supervisor")
	return supervisors
}

// processesOf finds the supervisors of a folder by their arguments, and the tasks by their environment.
func processesOf(dir string) (supervisors, tasks []int) {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, e := range entries {
		pid, err := strconv.Atoi(filepath.Base(e))
		if err != nil || pid == os.Getpid() {
			continue
		}
		arguments, _ := os.ReadFile(e + "/cmdline")
		environment, _ := os.ReadFile(e + "/environ")
		switch {
		case bytes.Contains(arguments, []byte(dir)):
			supervisors = append(supervisors, pid)
		case bytes.Contains(environment, []byte(dir)):
			tasks = append(tasks, pid)
		}
	}
	return supervisors, tasks
}
