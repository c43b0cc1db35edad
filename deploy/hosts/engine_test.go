package hosts

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/agent/containerizer/docker/dockertest"
)

// engineImage is what both containerizers run in these tests; webScript is what it does.
const (
	engineImage = "starling/web:1"
	webScript   = `mkdir -p /www && echo "$0 $MESOS_TASK_ID" >/www/index.html && echo serving && exec httpd -f -p 80 -h /www`
)

// engineRig is an agent with a Docker engine and an archive of an image in the engine's store, on a host of its own; a
// master and Marathon are on another.
type engineRig struct {
	*Cluster
	agent  *Agent
	engine *dockertest.Engine
}

func newEngineRig(t *testing.T, flags ...string) *engineRig {
	t.Helper()
	dockertest.Need(t)
	w := NewNetwork(t, 2)
	at, other := w.Hosts[0], w.Hosts[1]
	engine := dockertest.Start(t, dockertest.Options{Namespace: filepath.Join(netnsDir, at.netns), LiveRestore: true})
	engine.Import(engineImage, `CMD ["sh","-c","exec sleep 1000"]`)
	images := t.TempDir()
	archive := filepath.Join(images, engineImage+".tar")
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, engine.Save(engineImage), 0o644); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	r := &engineRig{engine: engine, Cluster: &Cluster{
		t: t, network: w, Marathon: "http://" + other.Addr + ":8080", Master: "http://" + other.Addr + ":5050", DNS: at.Addr + ":53", probes: t.TempDir(),
	}}
	r.agent = at.Agent(workDir(t), append([]string{
		"--cluster-key-file", key, "--hostname", at.Addr, "--resources=cpus:16;mem:8192;disk:10000;ports:[31000-32000]",
		"--containerizers=docker,mesos", "--docker-socket=" + engine.Socket, "--docker-registry=" + images, "--docker-remove-delay=0secs",
	}, flags...)...)
	other.Start(r.Master+"/health", "master", "master", "--work-dir", t.TempDir(), "--cluster-key-file", key)
	other.Start(r.Marathon+"/health", "marathon", "marathon", "--work-dir", t.TempDir(), "--hostname", other.Addr, "--master", r.Master)
	r.agent.Ready()
	r.Has(1)
	t.Cleanup(func() {
		// Tasks of Marathon end with their apps, so that no container is left for the engine's end.
		_, body, err := r.request("GET", r.Marathon+"/v2/apps", "")
		var v struct{ Apps []App }
		if err != nil || json.Unmarshal([]byte(body), &v) != nil {
			return
		}
		for _, a := range v.Apps {
			_, _, _ = r.request("DELETE", r.Marathon+"/v2/apps"+a.ID+"?force=true", "")
		}
		Eventually(t, 20*time.Second, "no task is left", func() error {
			n, err := r.running()
			if err == nil && n > 0 {
				err = fmt.Errorf("%v tasks run", n)
			}
			return err
		})
	})
	return r
}

// running is how many tasks the agent runs.
func (r *engineRig) running() (int, error) {
	_, body, err := r.request("GET", r.agent.url("/metrics/snapshot"), "")
	if err != nil {
		return 0, err
	}
	v := map[string]float64{}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return 0, err
	}
	n, ok := v["slave/tasks_running"]
	if !ok {
		return 0, fmt.Errorf("it is not told how many tasks run")
	}
	return int(n), nil
}

// kinds are the two ways to run a Docker image.
var kinds = map[string]string{
	"docker": `"container":{"type":"DOCKER","docker":{"image":"` + engineImage + `"},"portMappings":[{"containerPort":80,"hostPort":0}]},"networks":[{"mode":"container/bridge"}]`,
	"mesos":  `"container":{"type":"MESOS","docker":{"image":"` + engineImage + `"},"portMappings":[{"containerPort":80,"hostPort":0}]},"networks":[{"mode":"container/bridge"}]`,
}

// create makes an app; more is further JSON of it.
func (r *engineRig) create(id, kind, cmd, more string) {
	r.t.Helper()
	text, _ := json.Marshal(cmd)
	body := fmt.Sprintf(`{"id":%q,"instances":1,"cpus":0.2,"mem":64,"cmd":%s,%s%s}`, id, text, kinds[kind], more)
	if _, answer, err := r.request("POST", r.Marathon+"/v2/apps", body); err != nil {
		r.t.Fatalf("cannot create %s: %v: %s", id, err, answer)
	}
}

// page asks a task on its mapped port.
func (r *engineRig) page(task Task) (string, error) {
	_, body, err := r.request("GET", fmt.Sprintf("http://%s:%d/", r.agent.Host.Addr, task.Ports[0]), "")
	return body, err
}

// engineTask is a task as the master shows it.
type engineTask struct {
	ID         string
	ExecutorID string `json:"executor_id"`
	Statuses   []struct {
		State           string
		ContainerStatus struct {
			ContainerID struct{ Value string } `json:"container_id"`
			ExecutorPID int                    `json:"executor_pid"`
			Networks    []struct {
				Addresses []struct {
					Address string `json:"ip_address"`
				} `json:"ip_addresses"`
			} `json:"network_infos"`
		} `json:"container_status"`
	}
}

// known is what the master knows of a task.
func (r *engineRig) known(id string) engineTask {
	r.t.Helper()
	_, body, err := r.request("GET", r.Master+"/tasks?task_id="+id, "")
	if err != nil {
		r.t.Fatal(err)
	}
	var v struct{ Tasks []engineTask }
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		r.t.Fatal(err)
	}
	for _, t := range v.Tasks {
		if t.ID == id && len(t.Statuses) > 0 {
			return t
		}
	}
	r.t.Fatalf("the master does not know task %s: %s", id, body)
	return engineTask{}
}

// failure waits for an app's last failure to have some words in it.
func (r *engineRig) failure(id, words string) {
	r.t.Helper()
	Eventually(r.t, 60*time.Second, id+" fails with "+words, func() error {
		a, err := r.App(id)
		if err != nil {
			return err
		}
		if a.LastTaskFailed == nil || !strings.Contains(a.LastTaskFailed.Message, words) {
			return fmt.Errorf("last failure is %+v", a.LastTaskFailed)
		}
		return nil
	})
}

func TestDockerAndLibcontainerSideBySide(t *testing.T) {
	r := newEngineRig(t)
	tasks := map[string]Task{}
	pages := map[string]string{}
	for kind := range kinds {
		r.create("/web-"+kind, kind, strings.ReplaceAll(webScript, "$0", kind), "")
	}
	for kind := range kinds {
		task := r.Running("/web-"+kind, 1)[0]
		tasks[kind] = task
		Eventually(t, 20*time.Second, kind+" serves on its mapped port", func() (err error) {
			pages[kind], err = r.page(task)
			return err
		})
		if want := kind + " " + task.ID + "\n"; pages[kind] != want {
			t.Errorf("got %q, want %q", pages[kind], want)
		}
		statuses := r.known(task.ID).Statuses
		last := statuses[len(statuses)-1].ContainerStatus
		if len(last.Networks) == 0 || len(last.Networks[0].Addresses) == 0 || last.Networks[0].Addresses[0].Address == r.agent.Host.Addr {
			t.Errorf("%s: the status tells no address of its own: %+v", kind, last)
		}
	}

	t.Run("both outlive the agent", func(t *testing.T) {
		before := r.engine.Containers()
		r.agent.Kill()
		for kind, task := range tasks {
			if page, err := r.page(task); err != nil || page != pages[kind] {
				t.Errorf("%s without the agent: %q, %v", kind, page, err)
			}
		}
		r.agent.Restart()
		for kind, task := range tasks {
			if now := r.Running("/web-"+kind, 1)[0]; now.ID != task.ID {
				t.Errorf("%s became %s", task.ID, now.ID)
			}
			if page, err := r.page(task); err != nil || page != pages[kind] {
				t.Errorf("%s after the restart: %q, %v", kind, page, err)
			}
		}
		if after := r.engine.Containers(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("containers were %v, are %v", before, after)
		}
	})

	t.Run("both outlive the engine", func(t *testing.T) {
		r.engine.Kill()
		r.engine.Start()
		r.create("/later", "docker", "sleep 1000", "")
		r.Running("/later", 1)
		for kind, task := range tasks {
			if kind == "docker" {
				continue // the engine's proxy of mapped ports went with it; connections from outside do without
			}
			if page, err := r.page(task); err != nil || page != pages[kind] {
				t.Errorf("%s after the engine's restart: %q, %v", kind, page, err)
			}
		}
		if n, err := r.running(); err != nil || n != 3 {
			t.Errorf("%d tasks run, %v", n, err)
		}
		if _, _, err := r.request("DELETE", r.Marathon+"/v2/apps/later", ""); err != nil {
			t.Error(err)
		}
	})

	for kind, task := range tasks {
		if _, _, err := r.request("DELETE", r.Marathon+"/v2/apps/web-"+kind, ""); err != nil {
			t.Error(err)
		}
		Eventually(t, 30*time.Second, kind+" is gone", func() error {
			if page, err := r.page(task); err == nil {
				return fmt.Errorf("it serves %q", page)
			}
			return nil
		})
	}
	Eventually(t, 20*time.Second, "the engine's containers are removed", func() error {
		if left := r.engine.Containers(); len(left) > 0 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
}

func TestLimitsOfDockerAndLibcontainer(t *testing.T) {
	r := newEngineRig(t, "--cgroups-enable-cfs")
	for kind := range kinds {
		r.create("/oom-"+kind, kind, "sleep 3; exec tail /dev/zero", `,"backoffSeconds":3600`)
		r.create("/code-"+kind, kind, "sleep 0.5; exit 7", `,"backoffSeconds":3600`)
		r.create("/busy-"+kind, kind, "while :; do :; done", "")
	}
	for kind := range kinds {
		r.failure("/oom-"+kind, "emory") // Memory limit exceeded: ...
		r.failure("/code-"+kind, "exited with status 7")
	}
	for kind := range kinds {
		task := r.Running("/busy-"+kind, 1)[0]
		// It asked for 0.2 CPUs; the executor's 0.1 may come on top.
		used := func() (cpu, at float64) {
			_, body, err := r.request("GET", r.agent.url("/monitor/statistics"), "")
			if err != nil {
				t.Fatal(err)
			}
			var v []struct {
				ExecutorID string `json:"executor_id"`
				Statistics struct {
					User   float64 `json:"cpus_user_time_secs"`
					System float64 `json:"cpus_system_time_secs"`
					At     float64 `json:"timestamp"`
					Limit  float64 `json:"cpus_limit"`
				}
			}
			if err := json.Unmarshal([]byte(body), &v); err != nil {
				t.Fatal(err)
			}
			for _, s := range v {
				if s.ExecutorID == task.ID {
					return s.Statistics.User + s.Statistics.System, s.Statistics.At
				}
			}
			t.Fatalf("no statistics of %s: %s", task.ID, body)
			return 0, 0
		}
		cpu, at := used()
		Eventually(t, 30*time.Second, kind+" uses the CPU", func() error {
			if now, _ := used(); now-cpu < 0.6 {
				return fmt.Errorf("%.2f s", now-cpu)
			}
			return nil
		})
		cpu2, at2 := used()
		if rate := (cpu2 - cpu) / (at2 - at); rate > 0.4 {
			t.Errorf("%s: %.2f CPUs are used of 0.2", kind, rate)
		} else {
			t.Logf("%s: %.2f CPUs", kind, rate)
		}
	}
}

func TestExecInDockerAndLibcontainer(t *testing.T) {
	r := newEngineRig(t)
	for kind := range kinds {
		r.create("/shell-"+kind, kind, "echo up; while :; do sleep 1; done", "")
	}
	for kind := range kinds {
		task := r.Running("/shell-"+kind, 1)[0]
		run := func(args ...string) (string, error) {
			args = append([]string{"task", "exec", "--agent=" + r.agent.Host.at(5051)}, args...)
			var out strings.Builder
			cmd := exec.Command(binary, args...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), &out, &out
			err := inside(r.agent.Host.netns, cmd.Start)
			if err == nil {
				err = cmd.Wait()
			}
			return out.String(), err
		}
		out, err := run(task.ID, "--", "sh", "-c", "echo $MESOS_TASK_ID; ls /bin/busybox; exit 3")
		if code, ok := err.(*exec.ExitError); !ok || code.ExitCode() != 3 || !strings.Contains(out, task.ID+"\n/bin/busybox\n") {
			t.Errorf("%s: got %q, %v", kind, out, err)
		}
		if out, err := run("-t", task.ID, "--", "sh", "-c", "test -t 0 && test -t 1 && echo a terminal"); err != nil || !strings.Contains(out, "a terminal\r\n") {
			t.Errorf("%s with a terminal: got %q, %v", kind, out, err)
		}
	}
}

func TestFaultsEngineHangsAndTheAgentDoesNot(t *testing.T) { // K3
	r := newEngineRig(t)
	r.create("/other", "mesos", "sleep 1000", "")
	r.create("/killed", "docker", "sleep 1000", "")
	r.create("/stays", "docker", "sleep 1000", "")
	for _, id := range []string{"/other", "/killed", "/stays"} {
		r.Running(id, 1)
	}
	stays := r.Running("/stays", 1)[0]
	r.engine.Hang()
	hangs := true
	defer func() {
		if hangs {
			r.engine.Resume()
		}
	}()
	// What nobody waits for, all through the hang. In the suite it is only to come before a client of the engine would give up;
	// how soon is for the long rows, which have the machine to themselves.
	bar := 5 * time.Second
	if *fullRows {
		bar = 200 * time.Millisecond
	}
	var slow []time.Duration
	asked := 0
	ask := func() {
		for _, path := range []string{"/health", "/state", "/containers", "/metrics/snapshot", "/monitor/statistics"} {
			begun := time.Now()
			if _, _, err := r.request("GET", r.agent.url(path), ""); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			asked++
			if took := time.Since(begun); took > bar {
				slow = append(slow, took)
			}
		}
	}
	if _, _, err := r.request("DELETE", r.Marathon+"/v2/apps/killed", ""); err != nil {
		t.Error(err)
	}
	begun := time.Now()
	for i := range 3 {
		id := fmt.Sprint("/new", i)
		r.create(id, "mesos", "sleep 1000", "")
		// Whatever waits for the engine does so for half a minute, and then in vain.
		for deadline := time.Now().Add(20 * time.Second); ; {
			ask()
			if a, err := r.App(id); err == nil && a.TasksRunning == 1 {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("libcontainer waits for the Docker engine: %+v, %v", a, err)
			}
		}
	}
	launched := time.Since(begun)
	for time.Since(begun) < 12*time.Second {
		ask()
	}
	if len(slow)*100 > asked {
		t.Errorf("%d of %d answers took more than %v: %v", len(slow), asked, bar, slow)
	}
	r.engine.Resume()
	hangs = false
	back := time.Now()
	Eventually(t, 30*time.Second, "the kill is done", func() error {
		if n, err := r.running(); err != nil || n != 5 {
			return fmt.Errorf("%d tasks run, %v", n, err)
		}
		return nil
	})
	t.Logf("%d answers, %d slower than %v (%v); three launches of libcontainer in %v; kill done %v after", asked, len(slow), bar, slow, launched, time.Since(back))
	if now := r.Running("/stays", 1)[0]; now.ID != stays.ID {
		t.Errorf("%s became %s", stays.ID, now.ID)
	}
	r.create("/after", "docker", "sleep 1000", "")
	r.Running("/after", 1)
}

func TestFaultsDockerTaskThatIgnoresTerm(t *testing.T) { // K6
	const grace = 3 * time.Second
	r := newEngineRig(t)
	own := fmt.Sprint(1000000 + os.Getpid()) // seconds that no other test sleeps on this machine
	for kind := range kinds {
		// It leaves its session and its parent, and none of its processes minds SIGTERM.
		r.create("/stubborn-"+kind, kind, fmt.Sprintf(`trap '' TERM; (setsid sh -c "trap '' TERM; setsid sleep %[1]s & sleep %[1]s" &) ; while :; do sleep 1; done`, own),
			fmt.Sprintf(`,"taskKillGracePeriodSeconds":%d`, int(grace.Seconds())))
	}
	sleepers := func() (n int) {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, l := range lines {
			if data, _ := os.ReadFile(l); string(data) == "sleep\x00"+own+"\x00" {
				n++
			}
		}
		return n
	}
	for kind := range kinds {
		r.Running("/stubborn-"+kind, 1)
	}
	Eventually(t, 30*time.Second, "all processes run", func() error {
		if n := sleepers(); n != 2*len(kinds) {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	begun := time.Now()
	for kind := range kinds {
		if _, _, err := r.request("DELETE", r.Marathon+"/v2/apps/stubborn-"+kind, ""); err != nil {
			t.Error(err)
		}
	}
	Eventually(t, 30*time.Second, "all processes are gone", func() error {
		n := sleepers()
		if early := time.Since(begun); n != 2*len(kinds) && early < grace-500*time.Millisecond {
			t.Fatalf("%d processes after %v of %v", n, early, grace)
		}
		if n != 0 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	within(t, "processes that ignore SIGTERM are gone beyond their grace", time.Since(begun)-grace, 1500*time.Millisecond)
}
