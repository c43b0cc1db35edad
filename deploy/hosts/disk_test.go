package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/checkpoint"
	"starling/agent/testenv"
)

// disk is a file system of its own, in a file.
type disk struct {
	t          testing.TB
	image, dir string
	// problems is how many the node told of while all was well: it may not like how small its disk is.
	problems float64
}

// newDisk makes an ext4 file system of a size in MiB, mounted at a work folder. more are for mkfs.
func newDisk(t testing.TB, mebibytes int, more ...string) *disk {
	t.Helper()
	testenv.NeedRoot(t, "to mount")
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "image"), dir: filepath.Join(t.TempDir(), "disk")}
	if err := errors.Join(os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, int64(mebibytes)<<20), os.Mkdir(d.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", append(append([]string{"-q", "-F"}, more...), d.image)...).CombinedOutput(); err != nil {
		testenv.Lacks(t, "mkfs.ext4: %v %s", err, out)
	}
	if err := mount(d.image, d.dir); err != nil {
		testenv.Lacks(t, "%v", err)
	}
	t.Cleanup(func() { unmount(t, d.dir) })
	endAll(t, d.dir)
	return d
}

func mount(image, dir string, options ...string) error {
	args := append(append([]string{"-o", strings.Join(append([]string{"loop"}, options...), ",")}, image), dir)
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w %s", err, out)
	}
	return nil
}

func unmount(t testing.TB, dir string) {
	t.Helper()
	Eventually(t, 20*time.Second, dir+" is unmounted", func() error {
		if err := syscall.Unmount(dir, 0); err != nil && !errors.Is(err, syscall.EINVAL) {
			return err
		}
		return nil
	})
}

// fill writes until there is no space left, for anybody.
func (d *disk) fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10, 1 << 10} {
		block := make([]byte, size)
		for err == nil {
			if _, err = f.Write(block); err == nil {
				err = f.Sync()
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatal(err)
		}
		err = nil
	}
}

// unharmed fails the test if one of the processes has ended.
func unharmed(t testing.TB, pids map[string]int) {
	t.Helper()
	for id, pid := range pids {
		if gone(pid) {
			t.Errorf("task %s (process %d) was harmed", id, pid)
		}
	}
}

// quarantined lists what did not read.
func quarantined(t testing.TB, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "meta", "quarantine", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// well waits until the node tells of no more problems than when all was well; unwell until it tells of more.
func (d *disk) well(r *Roles) {
	d.t.Helper()
	Eventually(d.t, 20*time.Second, "the node is well", func() error {
		if n, err := r.metric("slave/problems"); err != nil || n > d.problems {
			return fmt.Errorf("%v problems, %v", n, err)
		}
		return nil
	})
}

func (d *disk) unwell(r *Roles, bar time.Duration) {
	d.t.Helper()
	began := time.Now()
	Eventually(d.t, 3*bar, "the node says that it is not well", func() error {
		if n, err := r.metric("slave/problems"); err != nil || n <= d.problems {
			return fmt.Errorf("%v problems, %v", n, err)
		}
		return nil
	})
	within(d.t, "the node says that it is not well", time.Since(began), bar)
}

// start starts a cluster whose one agent has the disk, with some tasks, and returns their processes.
func (d *disk) start(probes int, flags ...string) (*Roles, map[string]int) {
	d.t.Helper()
	r := SeparateIn(d.t, []string{d.dir}, flags...)
	r.ProbeApp("/probe", probes)
	pids := r.Answers(r.Running("/probe", probes))
	var err error
	if d.problems, err = r.metric("slave/problems"); err != nil {
		d.t.Fatal(err)
	}
	return r, pids
}

// end ends one of the tasks, takes it out of pids and returns its id.
func end(t testing.TB, pids map[string]int) string {
	t.Helper()
	for id, pid := range pids {
		killProcess(t, pid)
		delete(pids, id)
		return id
	}
	t.Fatal("there is no task")
	return ""
}

// toldOfKill waits until updates, a stream of those, have how a task was killed.
func toldOfKill(t testing.TB, updates <-chan string, id string, limit time.Duration) {
	t.Helper()
	over := time.After(limit)
	for last := "none"; ; {
		select {
		case update, ok := <-updates:
			if !ok {
				t.Fatal("the stream of events has ended")
			}
			if last = update; strings.Contains(update, id) && strings.Contains(update, "signal Killed") {
				return
			}
		case <-over:
			t.Fatalf("the exit of %s is not told after %v; the last update: %s", id, limit, last)
		}
	}
}

func (r *Roles) metric(name string) (float64, error) {
	_, body, err := Request("GET", strings.TrimSuffix(r.agentHealth[0], "/health")+"/metrics/snapshot", "")
	if err != nil {
		return 0, err
	}
	all := map[string]float64{}
	err = json.Unmarshal([]byte(body), &all)
	return all[name], err
}

// scale asks for a number of instances of an app.
func (r *Roles) scale(app string, n int) {
	r.t.Helper()
	if _, _, err := Request("PUT", r.Marathon+"/v2/apps"+app+"?force=true", fmt.Sprintf(`{"instances":%d}`, n)); err != nil {
		r.t.Fatal(err)
	}
}

// D1: with the disk of state and sandboxes full, tasks run on, an exit is told with its status, the next life of the agent
// finds them; and tasks are launched again within ten seconds of there being space.
func TestFaultsDiskFull(t *testing.T) {
	d := newDisk(t, 64)
	r, before := d.start(5)
	d.fill()
	updates := r.Events("status_update_event") // the app shows its last failure, which soon is that of the next launch
	toldOfKill(t, updates, end(t, before), 20*time.Second)
	d.unwell(r, 10*time.Second)
	unharmed(t, before)
	d.fill() // what the reserve gave
	r.Agents[0].Kill()
	unharmed(t, before)

	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil {
		t.Fatal(err)
	}
	freed := time.Now()
	r.Agents[0].run()
	r.Agents[0].Healthy(r.agentHealth[0])
	after := r.Answers(r.Running("/probe", 5))
	within(t, "all tasks run again, once there was space,", time.Since(freed), 10*time.Second)
	for id, pid := range before {
		if after[id] != pid {
			t.Errorf("task %s was process %d and is now %d", id, pid, after[id])
		}
	}
	if found := quarantined(t, d.dir); len(found) > 0 {
		t.Errorf("files were damaged: %v", found)
	}
	d.well(r)
}

// D3: a file system that has given up after an error of its disk. Tasks live, and the node says that it is not well.
func TestFaultsDiskThatFails(t *testing.T) {
	d := newDisk(t, 64)
	r, before := d.start(4)
	if out, err := exec.Command("mount", "-o", "remount,abort", d.dir).CombinedOutput(); err != nil {
		t.Fatalf("cannot have the file system give up: %v %s", err, out)
	}
	// An exit that can't be noted is not told, and its supervisor stays for that.
	t.Cleanup(func() {
		for _, pid := range supervisorsOf(d.dir) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	r.scale("/probe", 5)
	d.unwell(r, 5*time.Second)
	unharmed(t, before)
	if _, _, err := Request("GET", r.agentHealth[0], ""); err != nil {
		t.Errorf("the agent does not answer: %v", err)
	}
}

// D3: a file system without inodes. The node says that it is not well within five seconds, tasks live, exits are told, and it
// is well again by itself.
func TestFaultsDiskWithoutInodes(t *testing.T) {
	d := newDisk(t, 64, "-N", "400")
	r, before := d.start(4)
	many := filepath.Join(d.dir, "many")
	if err := os.Mkdir(many, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	for n := 0; err == nil; n++ {
		err = os.WriteFile(filepath.Join(many, fmt.Sprint(n)), nil, 0o600)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	ended := end(t, before)
	d.unwell(r, 5*time.Second)
	Eventually(t, 20*time.Second, "the exit is told", func() error {
		if running := r.runningTasks("/probe"); slices.Contains(running, ended) {
			return fmt.Errorf("running are %v", running)
		}
		return nil
	})
	unharmed(t, before)
	if err := os.RemoveAll(many); err != nil {
		t.Fatal(err)
	}
	freed := time.Now()
	after := r.Answers(r.Running("/probe", 4))
	t.Logf("all tasks run %v after there were inodes", time.Since(freed).Round(time.Millisecond))
	for id, pid := range before {
		if after[id] != pid {
			t.Errorf("task %s was process %d and is now %d", id, pid, after[id])
		}
	}
	d.well(r)
	if found := quarantined(t, d.dir); len(found) > 0 {
		t.Errorf("files were damaged: %v", found)
	}
}

// D2: a task that writes without end to its output, on a disk of its node that would not hold it: the output is rotated, the
// agent and the other tasks go on.
func TestFaultsOutputWithoutEnd(t *testing.T) {
	d := newDisk(t, 128)
	r, before := d.start(2, "--container-log-size=1MB", "--container-log-files=4")
	app := `{"id":"/loud","cmd":"i=0; while true; do i=$((i+1)); dd if=/dev/zero bs=64k count=16 2>/dev/null; sleep 0.02; done","cpus":0.1,"mem":32,"instances":1}`
	if _, _, err := Request("POST", r.Marathon+"/v2/apps", app); err != nil {
		t.Fatal(err)
	}
	r.Running("/loud", 1)
	const bound = 24 << 20 // all four files, and what is written in a moment
	var most, looks, over int64
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-time.After(100 * time.Millisecond) {
		found, err := filepath.Glob(filepath.Join(d.dir, "slaves", "*", "frameworks", "*", "executors", "loud.*", "runs", "*", "stdout*"))
		if err != nil {
			t.Fatal(err)
		}
		size := int64(0)
		for _, path := range found {
			if info, err := os.Lstat(path); err == nil && !strings.Contains(path, "/latest/") {
				size += info.Size()
			}
		}
		most = max(most, size)
		looks++
		if size > bound {
			over++
		}
	}
	t.Logf("the output had %d bytes at most, more than %d at %d of %d looks", most, bound, over, looks)
	// The agent alone cuts it: where it stands still for half a second, which it may beside other tests, there is more for a moment.
	if most < 3<<20 || most > 96<<20 || over > looks/10 || *fullRows && over > 0 {
		t.Errorf("the output had %d bytes at most, want all four files and not much more", most)
	}
	unharmed(t, before)
	r.Running("/loud", 1)
	d.well(r)
}

// D6: the power goes at random instants while tasks come and go. What the disk has at such an instant is what its file has: it
// is copied while agent and supervisor stand still, and read as the next start would.
func TestFaultsPowerCut(t *testing.T) {
	cuts := 20
	if *fullRows {
		cuts = 200
	}
	d := newDisk(t, 64, "-J", "size=4")
	r := SeparateIn(t, []string{d.dir})
	app := `{"id":"/churn","cmd":"exec sleep 1000","cpus":0.01,"mem":4,"instances":4,"taskKillGracePeriodSeconds":0,"backoffSeconds":0}`
	if _, _, err := Request("POST", r.Marathon+"/v2/apps", app); err != nil {
		t.Fatal(err)
	}
	r.Running("/churn", 4)
	framework := r.framework()
	id, ok := checkpoint.AgentID(filepath.Join(d.dir, "meta"))
	if !ok {
		t.Fatal("the agent has no id")
	}
	stop := make(chan struct{})
	var churning sync.WaitGroup
	defer churning.Wait()
	defer close(stop)
	churning.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(300)) * time.Millisecond):
				_, _, _ = Request("PUT", r.Marathon+"/v2/apps/churn?force=true", fmt.Sprintf(`{"instances":%d}`, 2+5*(n%2)))
			}
		}
	})
	copies, at := t.TempDir(), filepath.Join(t.TempDir(), "mounted")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	var opening []time.Duration
	tasks := 0
	for n := range cuts {
		<-time.After(time.Duration(rand.IntN(200)) * time.Millisecond)
		known := r.runningTasks("/churn")
		// A file of its own for each: the device of the last one may not have let go of it, nor forgotten what was in it.
		copied := filepath.Join(copies, fmt.Sprint(n))
		d.cut(r, copied)
		if err := mount(copied, at); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		store, found, err := checkpoint.Open(filepath.Join(at, "meta"), checkpoint.Options{AgentID: id, BootID: "another"})
		if err != nil {
			unmount(t, at)
			t.Fatalf("the next start fails: %v", err)
		}
		opening = append(opening, time.Since(begun))
		for _, p := range found.Problems {
			t.Errorf("a file does not read: %v", p)
		}
		kept := map[string]bool{}
		for _, item := range found.Items {
			kept[item.Task.GetTask().GetTaskId().GetValue()] = true
		}
		for _, task := range known {
			if !kept[task] && !found.Ended.Has(framework, task) {
				t.Errorf("task %s was told to run, and is lost", task)
			}
		}
		tasks += len(known)
		if !found.Rebooted {
			t.Error("a start of another boot is not seen as one")
		}
		_ = store.Close()
		unmount(t, at)
		if err := os.Remove(copied); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	slices.Sort(opening)
	t.Logf("%d cuts, %d tasks known: read in %v at most", cuts, tasks, opening[len(opening)-1].Round(time.Millisecond))
	if worst := opening[len(opening)-1]; worst > 10*time.Second {
		t.Errorf("it took %v to be read", worst)
	}
}

// cut copies what the disk has, while nothing is written to it.
func (d *disk) cut(r *Roles, to string) {
	d.t.Helper()
	still := append([]int{r.Agents[0].PID()}, supervisorsOf(d.dir)...)
	for _, pid := range still {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	defer func() {
		for _, pid := range still {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}()
	// The kernel writes when it likes. A copy during which it has is of no instant.
	Eventually(d.t, 30*time.Second, "the disk is still for as long as a copy takes", func() error {
		before, flying := d.writes()
		if flying != "0" {
			return fmt.Errorf("%s writes are on their way", flying)
		}
		copyFile(d.t, d.image, to)
		if after, _ := d.writes(); after != before {
			return fmt.Errorf("writes were %s and are %s", before, after)
		}
		return nil
	})
}

// writes tells how much was written to the disk and discarded, and how much of what is asked of it is on its way.
func (d *disk) writes() (done, flying string) {
	d.t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(d.dir, &st); err != nil {
		d.t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		d.t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < 17 {
		d.t.Fatalf("the disk's numbers are %q", text)
	}
	return fmt.Sprint(fields[4:7], fields[11:14], fields[15]), fields[8]
}

func (r *Roles) framework() string {
	r.t.Helper()
	_, body, err := Request("GET", r.Marathon+"/v2/info", "")
	var info struct{ FrameworkID string }
	if err == nil {
		err = json.Unmarshal([]byte(body), &info)
	}
	if err != nil || info.FrameworkID == "" {
		r.t.Fatalf("no framework id: %v %s", err, body)
	}
	return info.FrameworkID
}

// runningTasks are those that the framework was told to run.
func (r *Roles) runningTasks(app string) []string {
	r.t.Helper()
	status, body, err := Request("GET", r.Marathon+"/v2/apps"+app+"/tasks", "")
	var all struct {
		Tasks []struct{ ID, State string }
	}
	if err == nil && status == http.StatusOK {
		err = json.Unmarshal([]byte(body), &all)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	for _, task := range all.Tasks {
		if task.State == "TASK_RUNNING" {
			ids = append(ids, task.ID)
		}
	}
	return ids
}
