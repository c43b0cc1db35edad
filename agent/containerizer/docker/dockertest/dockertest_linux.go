// Package dockertest starts Docker engines for tests: each with folders, a socket and a cgroup of its own, so that several
// run side by side and beside one of the machine. What an engine leaves behind is cleaned up with the test.
package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/testenv"
)

// patience is how long an engine may take for anything, on a machine that has much else to do.
const patience = 2 * time.Minute

// Options say what kind of engine is started.
type Options struct {
	// LiveRestore leaves containers alone when the engine ends.
	LiveRestore bool
	// Bridge gives the engine a network namespace of its own with a bridge in it: then there are port mappings, to be reached
	// from within (see Engine.Namespace). Otherwise there are only the networks "host" and "none", and nothing is changed on the
	// machine's.
	Bridge bool
	// Namespace is the file of a network namespace that the engine runs in; it has a bridge there too.
	Namespace string
	// Flags are added to the engine's.
	Flags []string
	// Idle does not start it; Engine.Start does.
	Idle bool
}

// Engine is a Docker engine.
type Engine struct {
	// Dir holds all that the engine has, and Socket is where it listens.
	Dir, Socket string

	t      testing.TB
	opts   Options
	cmd    *exec.Cmd
	done   chan struct{}
	shims  *exec.Cmd // containerd, which outlives the engine as on any machine
	parent string    // of its cgroups
	http   *http.Client
}

// Need skips the test where engines can't be started, and fails it with CI=true.
func Need(t testing.TB) {
	t.Helper()
	testenv.NeedRoot(t, "to start a Docker engine")
	testenv.NeedProgram(t, "dockerd", "containerd", "runc", "ip", "iptables")
	if _, err := os.Stat(busybox); err != nil {
		testenv.Lacks(t, "a static busybox is needed: %v", err)
	}
}

// Start starts an engine and waits until it answers.
func Start(t testing.TB, opts Options) *Engine {
	t.Helper()
	Need(t)
	// Not the test's folder: the path of a socket must be short, and folders of the engine may be mounted.
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{Dir: dir, Socket: filepath.Join(dir, "docker.sock"), t: t, opts: opts, parent: "starling-" + filepath.Base(dir)}
	e.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.Socket)
	}}}
	t.Cleanup(e.clean)
	e.startContainerd()
	if !opts.Idle {
		e.Start()
	}
	return e
}

// startContainerd starts what holds the containers for the engine.
func (e *Engine) startContainerd() {
	e.t.Helper()
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n",
		filepath.Join(e.Dir, "containerd"), filepath.Join(e.Dir, "run"), e.containerd())
	file := filepath.Join(e.Dir, "containerd.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		e.t.Fatal(err)
	}
	e.shims = e.command([]string{"containerd", "--config", file}, &syscall.SysProcAttr{Setpgid: true})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", e.containerd()); err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("containerd does not start:\n%s", e.Log())
		}
	}
}

func (e *Engine) containerd() string { return filepath.Join(e.Dir, "containerd.sock") }

// command starts a program whose output goes to the engine's log.
func (e *Engine) command(args []string, attr *syscall.SysProcAttr) *exec.Cmd {
	e.t.Helper()
	logs, err := os.OpenFile(filepath.Join(e.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer logs.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = logs, logs, attr
	// Nothing of the machine's own engine, nor a proxy, must get in between.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.Dir, "TMPDIR=" + os.TempDir()}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	return cmd
}

// Start starts the engine again.
func (e *Engine) Start() {
	e.t.Helper()
	args := []string{
		"dockerd", "-H", "unix://" + e.Socket, "--data-root", filepath.Join(e.Dir, "data"), "--exec-root", filepath.Join(e.Dir, "exec"),
		"-p", filepath.Join(e.Dir, "pid"), "--cgroup-parent", "/" + e.parent, "--config-file", filepath.Join(e.Dir, "none.json"),
		"--live-restore=" + strconv.FormatBool(e.opts.LiveRestore), "--shutdown-timeout", "1",
		"--containerd", e.containerd(),
	}
	if err := os.WriteFile(filepath.Join(e.Dir, "none.json"), []byte("{}"), 0o600); err != nil {
		e.t.Fatal(err)
	}
	attr := &syscall.SysProcAttr{Setpgid: true}
	switch {
	case e.opts.Namespace != "":
		args = append([]string{"nsenter", "--net=" + e.opts.Namespace}, args...)
	case e.opts.Bridge:
		attr.Cloneflags = unix.CLONE_NEWNET
		args = append([]string{"sh", "-c", `ip link set lo up && exec "$@"`, "sh"}, args...)
	default:
		args = append(args, "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
	}
	args = append(args, e.opts.Flags...)
	e.cmd = e.command(args, attr)
	e.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(e.cmd, e.done)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := e.call(ctx, http.MethodGet, "/_ping", nil)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-e.done:
			e.t.Fatalf("the engine ended:\n%s", e.Log())
		default:
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("the engine does not answer: %v\n%s", err, e.Log())
		}
	}
}

// PID is the engine's process.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Namespace is the file of the network namespace that the engine's bridge is in.
func (e *Engine) Namespace() string { return fmt.Sprintf("/proc/%d/ns/net", e.PID()) }

// Log is what the engine wrote.
func (e *Engine) Log() string {
	data, err := os.ReadFile(filepath.Join(e.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Hang stops the engine's process where it is; Resume lets it go on.
func (e *Engine) Hang() { e.signal(syscall.SIGSTOP) }

// Resume lets an engine go on that was stopped by Hang.
func (e *Engine) Resume() { e.signal(syscall.SIGCONT) }

func (e *Engine) signal(s syscall.Signal) {
	e.t.Helper()
	if err := e.cmd.Process.Signal(s); err != nil {
		e.t.Fatalf("cannot send %v to the engine: %v", s, err)
	}
}

// Stop ends the engine in order: without LiveRestore its containers end too.
func (e *Engine) Stop() { e.end(syscall.SIGTERM) }

// Kill ends the engine at once.
func (e *Engine) Kill() { e.end(syscall.SIGKILL) }

func (e *Engine) end(s syscall.Signal) {
	e.t.Helper()
	if e.cmd == nil {
		return
	}
	select {
	case <-e.done:
		return
	default:
	}
	_ = e.cmd.Process.Signal(s)
	_ = e.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-e.done:
	case <-time.After(patience):
		_ = e.cmd.Process.Kill()
		<-e.done
		e.t.Errorf("the engine did not end by %v:\n%s", s, e.Log())
	}
	e.http.CloseIdleConnections()
}

// Do makes a call of the engine's API and returns the answer, which must not be an error.
func (e *Engine) Do(method, path string, body io.Reader) []byte {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	data, err := e.call(ctx, method, path, body)
	if err != nil {
		e.t.Fatal(err)
	}
	return data
}

func (e *Engine) call(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
		if strings.HasPrefix(path, "/containers") {
			req.Header.Set("Content-Type", "application/json")
		}
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 400 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(data))
	}
	return data, err
}

// Containers lists the names of all containers, with the engine's ids.
func (e *Engine) Containers() map[string]string {
	e.t.Helper()
	var list []struct {
		ID    string `json:"Id"`
		Names []string
	}
	if err := json.Unmarshal(e.Do(http.MethodGet, "/containers/json?all=1", nil), &list); err != nil {
		e.t.Fatal(err)
	}
	found := map[string]string{}
	for _, c := range list {
		found[strings.TrimPrefix(c.Names[0], "/")] = c.ID
	}
	return found
}

// RemoveContainers removes all containers, and returns once they are gone.
func (e *Engine) RemoveContainers() {
	e.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		left := e.Containers()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			e.t.Errorf("containers are left: %v", left)
			return
		}
		for _, id := range left {
			// One that somebody is removing just now is an error to the engine, and gone a moment later.
			_, _ = e.call(context.Background(), http.MethodDelete, "/containers/"+id+"?force=1&v=1", nil)
		}
	}
}

// busybox is what images are made of.
const busybox = "/bin/busybox"

// Import makes an image of busybox with all its commands; changes are lines of a Dockerfile such as `CMD ["sh"]`.
func (e *Engine) Import(name string, changes ...string) {
	e.t.Helper()
	repo, tag, ok := strings.Cut(name, ":")
	if !ok {
		tag = "latest"
	}
	q := url.Values{"fromSrc": {"-"}, "repo": {repo}, "tag": {tag}, "changes": changes}
	out := e.Do(http.MethodPost, "/images/create?"+q.Encode(), bytes.NewReader(RootFS(e.t)))
	if bytes.Contains(out, []byte(`"error"`)) {
		e.t.Fatalf("cannot import an image: %s", out)
	}
}

// Save returns an image as a docker archive.
func (e *Engine) Save(name string) []byte {
	e.t.Helper()
	return e.Do(http.MethodGet, "/images/"+name+"/get", nil)
}

// RootFS is a small root file system as a tar archive: busybox, its commands as links, a few folders and users.
func RootFS(t testing.TB) []byte {
	t.Helper()
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	put := func(h *tar.Header, data []byte) {
		h.Size = int64(len(data))
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "dev", "etc", "mnt", "proc", "root", "sys", "var"} {
		put(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	put(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	put(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for name := range strings.FieldsSeq(string(list)) {
		if name != "busybox" {
			put(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	put(&tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"))
	put(&tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nnogroup:x:65534:\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// clean ends everything that the engine started and takes its traces off the machine.
func (e *Engine) clean() {
	if e.cmd != nil {
		e.end(syscall.SIGKILL)
	}
	if e.shims != nil {
		_ = e.shims.Process.Kill()
		_ = e.shims.Wait()
	}
	if e.t.Failed() {
		log := e.Log()
		e.t.Logf("the engine's last words:\n%s", log[max(0, len(log)-4000):])
	}
	// The shims and containers of an engine that was killed: all of them name its folder, or are in its cgroups.
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left := e.processes()
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			e.t.Errorf("processes of the engine are left: %v", left)
			break
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		e.t.Error(err)
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 4 && strings.HasPrefix(f[4], e.Dir+"/") {
			_ = unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
	for _, dir := range e.cgroups() {
		for _, sub := range foldersBelow(dir) {
			if err := os.Remove(sub); err != nil && !errors.Is(err, os.ErrNotExist) {
				e.t.Errorf("cgroup is left: %v", err)
			}
		}
	}
	if err := os.RemoveAll(e.Dir); err != nil {
		e.t.Errorf("folder of the engine is left: %v", err)
	}
}

// cgroups are the engine's, one a hierarchy.
func (e *Engine) cgroups() []string {
	found, _ := filepath.Glob("/sys/fs/cgroup/*/" + e.parent)
	unified, _ := filepath.Glob("/sys/fs/cgroup/" + e.parent)
	return append(found, unified...)
}

// foldersBelow lists a folder and those in it, the deepest first.
func foldersBelow(dir string) []string {
	var all []string
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if entry.IsDir() {
			all = append(all, foldersBelow(filepath.Join(dir, entry.Name()))...)
		}
	}
	return append(all, dir)
}

// processes are those of the engine and its containers.
func (e *Engine) processes() []int {
	var pids []int
	for _, top := range e.cgroups() {
		for _, dir := range foldersBelow(top) {
			data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for line := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(line); err == nil && pid != 0 {
					pids = append(pids, pid)
				}
			}
		}
	}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		for arg := range strings.SplitSeq(string(args), "\x00") {
			if strings.HasPrefix(arg, e.Dir+"/") || strings.HasPrefix(arg, "unix://"+e.Dir+"/") {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}
