package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/containerizer/containerizertest"
	"starling/agent/containerizer/docker/dockertest"
)

// alive tells whether a process runs.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(data), ") Z ")
}

// counting writes numbered lines, one each 10 ms, to both outputs.
const counting = `i=0; while :; do i=$((i+1)); echo "out $i"; echo "err $i" >&2; usleep 10000; done`

// countingWithPauses does the same, and pauses while there is a file "hold" in the sandbox: then "held" has the last number.
const countingWithPauses = `cd /mnt/mesos/sandbox; i=0
while :; do
	i=$((i+1)); echo "out $i"; echo "err $i" >&2
	while [ -e hold ]; do echo $i >held.new; mv held.new held; usleep 10000; done
	usleep 10000
done`

// inSequence checks that a file has the lines 1, 2, 3 ... of an output, none missing and none twice, and returns how many.
func inSequence(t testing.TB, file, prefix string) int {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(read(t, file), "\n"), "\n")
	for i, line := range lines {
		if want := fmt.Sprintf("%s %d", prefix, i+1); line != want {
			t.Fatalf("%s: line %d is %q, want %q (of %d)", filepath.Base(file), i+1, line, want, len(lines))
		}
	}
	return len(lines)
}

func TestFaultsEngineRestartsAndContainersLive(t *testing.T) { // K1
	n := newNode(t, dockertest.Options{LiveRestore: true})
	l := n.begin()
	spec := n.run("k1", countingWithPauses)
	k := l.launch(spec)
	mortal := l.launch(n.run("mortal", "sleep 1000"))
	for _, end := range []func(){n.engine.Stop, n.engine.Kill} {
		before := inSequenceSoon(t, n, "k1")
		// What the engine has read and not written goes with it: nothing is on its way when it ends.
		hold, held := filepath.Join(spec.Dir, "hold"), filepath.Join(spec.Dir, "held")
		if err := os.WriteFile(hold, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		containerizertest.WaitFor(t, time.Minute, "all output of before", func() bool {
			last, err := os.ReadFile(held)
			want := " " + string(last)
			return err == nil && strings.HasSuffix(read(t, spec.Stdout), want) && strings.HasSuffix(read(t, spec.Stderr), want)
		})
		end()
		if err := errors.Join(os.Remove(hold), os.Remove(held)); err != nil {
			t.Fatal(err)
		}
		if !alive(k.PID) {
			t.Fatal("the container ended with the engine")
		}
		n.engine.Start()
		// The engine can do its work again, and what is written comes through.
		containerizertest.WaitFor(t, time.Minute, "output after the restart", func() bool {
			return strings.Count(read(t, n.dir+"/sandbox-k1/stdout"), "\n") > before+50
		})
	}
	if err := l.Destroy(t.Context(), "mortal"); err != nil {
		t.Error(err)
	}
	if e := l.exits.Await("mortal", time.Minute); e.Status != 9 || alive(mortal.PID) {
		t.Errorf("got %+v", e)
	}
	if e, ok := l.exits.Told("k1"); ok || !alive(k.PID) {
		t.Errorf("the container was harmed: %+v", e)
	}
	if err := l.Destroy(t.Context(), "k1"); err != nil {
		t.Error(err)
	}
	l.exits.Await("k1", time.Minute)
	inSequence(t, n.dir+"/sandbox-k1/stdout", "out")
	inSequence(t, n.dir+"/sandbox-k1/stderr", "err")
}

// inSequenceSoon waits for some output.
func inSequenceSoon(t testing.TB, n *node, id string) int {
	t.Helper()
	file := filepath.Join(n.dir, "sandbox-"+id, "stdout")
	have := strings.Count(read(t, file), "\n")
	containerizertest.WaitFor(t, time.Minute, "output", func() bool { return strings.Count(read(t, file), "\n") > have+20 })
	return have + 20
}

func TestFaultsEngineRestartsAndContainersEnd(t *testing.T) { // K2
	n := newNode(t, dockertest.Options{})
	l := n.begin()
	ids := []string{"a", "b", "c"}
	for _, id := range ids {
		l.launch(n.run(id, counting))
	}
	inSequenceSoon(t, n, "a")
	n.engine.Stop()
	begun := time.Now()
	if _, err := l.Launch(t.Context(), n.run("early", "true")); err == nil {
		t.Error("a launch succeeds without the engine")
	}
	n.engine.Start()
	up := time.Now()
	for _, id := range ids {
		// It is to take 10 s at most; the rest is for what else runs on the machine.
		if e := l.exits.Await(id, 30*time.Second); !e.Known || e.Status == 0 {
			t.Errorf("%s: got %+v, want how the engine ended it", id, e)
		}
	}
	t.Logf("engine away for %v, exits told %v after it was back", up.Sub(begun), time.Since(up))
	containerizertest.WaitFor(t, time.Minute, "a launch", func() bool {
		_, err := l.Launch(t.Context(), n.run("late", "exit 3"))
		return err == nil
	})
	if e := l.exits.Await("late", time.Minute); e.Status != 3<<8 {
		t.Errorf("got %+v", e)
	}
	for _, id := range ids {
		inSequence(t, filepath.Join(n.dir, "sandbox-"+id, "stdout"), "out")
	}
}

func TestFaultsEngineHangs(t *testing.T) { // K3
	n := newNode(t, dockertest.Options{})
	l := n.begin()
	var pids []int
	for _, id := range []string{"killed", "signalled", "ends", "stays"} {
		pids = append(pids, l.launch(n.run(id, "exec sleep 1000")).PID)
	}
	n.engine.Hang()
	resumed := false
	defer func() {
		if !resumed {
			n.engine.Resume()
		}
	}()
	begun := time.Now()
	quick := func(what string, most time.Duration, f func()) {
		t.Helper()
		begun := time.Now()
		f()
		if took := time.Since(begun); took > most {
			t.Errorf("%s took %v", what, took)
		}
	}
	quick("destroy", 10*time.Second, func() {
		if err := l.Destroy(t.Context(), "killed"); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
	if e := l.exits.Await("killed", time.Minute); e.Status != 9 || alive(pids[0]) {
		t.Errorf("got %+v", e)
	}
	containerizertest.WaitFor(t, time.Minute, "word of the hang", func() bool { return l.Usable(nil) != nil })
	// From now on nothing waits for the engine, which would take patience.
	quick("signal", patience, func() {
		if err := l.Signal(t.Context(), "signalled", int(syscall.SIGTERM)); err != nil {
			t.Errorf("signal: %v", err)
		}
	})
	containerizertest.WaitFor(t, time.Minute, "end", func() bool { return !alive(pids[1]) })
	quick("launch", patience, func() {
		if _, err := l.Launch(t.Context(), n.run("new", "true")); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("launch: got %v", err)
		}
	})
	quick("usage", patience, func() {
		if u, err := l.Usage(t.Context(), "stays"); err != nil || u.Processes != 1 || u.MemBytes == 0 {
			t.Errorf("usage: %+v, %v", u, err)
		}
	})
	quick("exec", patience, func() {
		if _, err := l.Exec(t.Context(), "stays", containerizer.Process{Path: "true"}); err == nil {
			t.Error("exec works without the engine")
		}
	})
	quick("many kills of what is not there", patience, func() {
		for i := range 100 {
			if err := l.Destroy(t.Context(), fmt.Sprint("nobody", i)); !errors.Is(err, containerizer.ErrUnknownContainer) {
				t.Error(err)
			}
		}
	})
	if err := syscall.Kill(pids[2], syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	// A life that begins now knows the containers, and can end them.
	l.end()
	l = n.begin()
	if len(l.found) != 4 || l.found["stays"].PID != pids[3] || string(l.found["stays"].Note) != "" {
		t.Errorf("the next life finds %+v", l.found)
	}
	if err := l.Signal(t.Context(), "stays", int(syscall.SIGKILL)); err != nil {
		t.Error(err)
	}
	containerizertest.WaitFor(t, time.Minute, "end", func() bool { return !alive(pids[3]) })
	t.Logf("the engine hung for %v", time.Since(begun))
	n.engine.Resume()
	resumed = true
	back := time.Now()
	for id, status := range map[string]int{"signalled": 15, "ends": 11, "stays": 9} {
		// It is to take 10 s at most; the rest is for what else runs on the machine.
		e := l.exits.Await(id, 30*time.Second)
		if got := syscall.WaitStatus(e.Status); !e.Known || !(got.Signaled() && int(got.Signal()) == status || got.ExitStatus() == 128+status) {
			t.Errorf("%s: got %+v, want signal %d", id, e, status)
		}
	}
	t.Logf("all told %v after the engine was back", time.Since(back))
	containerizertest.WaitFor(t, time.Minute, "a launch", func() bool {
		_, err := l.Launch(t.Context(), n.run("late", "exit 3"))
		return err == nil
	})
}

func TestFaultsKillsWhileTheEngineHangsAreDoneWhenItIsBack(t *testing.T) { // K3, where there is no handle
	n := newNode(t, dockertest.Options{})
	l := n.begin()
	pid := l.launch(n.run("k", "exec sleep 1000")).PID
	l.Containerizer.mu.Lock()
	l.entries["k"].release() // as with an engine in another pid namespace
	l.Containerizer.mu.Unlock()
	n.engine.Hang()
	begun := time.Now()
	if err := l.Destroy(t.Context(), "k"); err == nil {
		t.Error("destroy works without the engine")
	}
	t.Logf("destroy gave up after %v", time.Since(begun))
	n.engine.Resume()
	if e := l.exits.Await("k", time.Minute); e.Status != 9 || alive(pid) {
		t.Errorf("got %+v", e)
	}
}

func TestFaultsEngineAbsentAtStart(t *testing.T) {
	n := newNode(t, dockertest.Options{Idle: true})
	c := n.open()
	if _, err := c.Recover(t.Context()); !errors.Is(err, containerizer.ErrDegraded) || !strings.Contains(err.Error(), n.engine.Socket) {
		t.Errorf("got %v, want ErrDegraded with the address", err)
	}
	defer c.Close()
	if _, err := c.Launch(t.Context(), n.run("early", "true")); err == nil {
		t.Error("a launch succeeds without an engine")
	}
	if err := c.Check(t.Context()); err == nil {
		t.Error("the check is content without an engine")
	}
	n.engine.Start()
	n.engine.Import(testImage)
	containerizertest.WaitFor(t, time.Minute, "the engine", func() bool { return c.Usable(nil) == nil })
	if _, err := c.Launch(t.Context(), n.run("late", "exit 3")); err != nil {
		t.Error(err)
	}
	select {
	case e := <-c.Exits():
		if e.ID != "late" || e.Status != 3<<8 {
			t.Errorf("got %+v", e)
		}
	case <-time.After(time.Minute):
		t.Error("no exit")
	}
}

func TestFaultsContainerRemovedBehindOurBack(t *testing.T) { // K5
	n := newNode(t, dockertest.Options{})
	l := n.begin()
	l.launch(n.run("gone", "exec sleep 1000"))
	begun := time.Now()
	n.engine.Do(http.MethodDelete, "/containers/mesos-gone?force=1", nil)
	// It is to take 5 s at most; the rest is for what else runs on the machine.
	e := l.exits.Await("gone", 20*time.Second)
	t.Logf("told after %v: %+v", time.Since(begun), e)
	if !e.Known || e.Status != 9 {
		t.Errorf("got %+v, want SIGKILL", e)
	}
	// The same when no agent was there to see it, and the record tells that it was.
	l.launch(n.run("unseen", "exec sleep 1000"))
	l.end()
	n.engine.Do(http.MethodDelete, "/containers/mesos-unseen?force=1", nil)
	l = n.begin()
	if e := l.exits.Await("unseen", time.Minute); e.Known || e.Message == "" {
		t.Errorf("got %+v, want an end that nobody knows", e)
	}
	if e := l.exits.Await("gone", time.Minute); e.Status != 9 {
		t.Errorf("the next life is told %+v", e)
	}
}

// listenAs is a registry that answers as a test likes.
func listenAs(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return l.Addr().String()
}

func TestFaultsPullHangsOrFails(t *testing.T) { // K4
	n := newNode(t, dockertest.Options{})
	hang := make(chan struct{})
	var mu sync.Mutex
	manifests := 0
	host := listenAs(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/slow/image/") {
			mu.Lock()
			manifests++
			mu.Unlock()
		}
		switch {
		case r.URL.Path == "/v2/":
		case strings.Contains(r.URL.Path, "/slow/"):
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"this image is for members of the club"}]}`)
		}
	})
	defer close(hang)
	n.cfg.PullTimeout = 8 * time.Second // long beside what a busy machine takes for a launch
	l := n.begin()
	from := func(id, image string) containerizer.Spec {
		spec := n.run(id, "true")
		spec.Container.Docker.Image = proto.String(host + "/" + image)
		return spec
	}
	if _, err := l.Launch(t.Context(), from("refused", "club/image:1")); err == nil ||
		!strings.Contains(err.Error(), "this image is for members of the club") || !strings.Contains(err.Error(), "club/image:1") {
		t.Errorf("got %v, want the registry's words", err)
	}
	begun := time.Now()
	var wg sync.WaitGroup
	var over atomic.Int32 // pulls that ran into their time
	for i := range 10 {
		wg.Go(func() {
			_, err := l.Launch(t.Context(), from(fmt.Sprint("slow", i), "slow/image:1"))
			over.Add(1)
			if took := time.Since(begun); err == nil || took < n.cfg.PullTimeout-time.Second || took > 2*n.cfg.PullTimeout {
				t.Errorf("the hanging pull ends after %v with %v", took, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		if _, err := l.Launch(ctx, from("given-up", "slow/other:1")); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
	wg.Go(func() {
		_, err := l.Launch(t.Context(), from("killed", "slow/third:1"))
		if err == nil || over.Load() > 0 {
			t.Errorf("the launch of what is destroyed meanwhile ends after %v with %v", time.Since(begun), err)
		}
	})
	// Others are not held up.
	l.launch(n.run("other", "true"))
	if over.Load() > 0 {
		t.Errorf("another launch took %v", time.Since(begun))
	}
	cancel()
	if err := l.Destroy(t.Context(), "killed"); !errors.Is(err, containerizer.ErrUnknownContainer) {
		t.Errorf("got %v", err)
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if manifests > 2 { // by tag, with the method HEAD or GET
		t.Errorf("ten launches asked the registry %d times", manifests)
	}
	names := n.engine.Containers()
	if len(names) != 1 {
		t.Errorf("there are containers %v", names)
	}
}

func TestFaultsLeftoversAreCollectedAndOthersUntouched(t *testing.T) { // K7
	n := newNode(t, dockertest.Options{})
	l := n.begin()
	l.launch(n.run("mine", "exec sleep 1000"))
	l.end()
	create := func(name, labels string) {
		n.engine.Do(http.MethodPost, "/containers/create?name="+name, strings.NewReader(
			`{"Image":"`+testImage+`","Cmd":["sleep","1000"],"Labels":{`+labels+`},"HostConfig":{"NetworkMode":"host"}}`))
	}
	owner := `"starling.owner":"` + l.owner + `"`
	create("mesos-foreign", "")
	create("mesos-other-agent", `"starling.owner":"0000","starling.agent":"agent-1","starling.container":"other-agent"`)
	create("theirs", owner+`,"starling.agent":"agent-1","starling.container":"mine"`)
	create("mesos-half", owner+`,"starling.agent":"agent-1","starling.container":"half"`)
	create("mesos-orphan", owner+`,"starling.agent":"agent-0","starling.container":"orphan"`)
	n.engine.Do(http.MethodPost, "/containers/mesos-orphan/start", nil)
	begun := time.Now()
	l = n.begin()
	if len(l.found) != 1 || l.found["mine"].Exit != nil {
		t.Errorf("found %+v, want mine alone", l.found)
	}
	want := []string{"mesos-foreign", "mesos-mine", "mesos-other-agent", "theirs"}
	containerizertest.WaitFor(t, time.Minute, "the end of leftovers", func() bool {
		names := n.engine.Containers()
		return len(names) == len(want) && !slices.ContainsFunc(want, func(w string) bool { return names[w] == "" })
	})
	t.Logf("collected after %v", time.Since(begun))
	if l.found["mine"].PID == 0 || !alive(l.found["mine"].PID) {
		t.Error("mine does not run")
	}
}

func TestContainersStayForAWhileAfterRemove(t *testing.T) {
	n := newNode(t, dockertest.Options{})
	n.cfg.RemoveDelay = time.Hour
	l := n.begin()
	l.launch(n.run("kept", "true"))
	l.exits.Await("kept", time.Minute)
	if err := l.Remove(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	l.end()
	l = n.begin()
	if len(l.found) != 0 || n.engine.Containers()["mesos-kept"] == "" {
		t.Errorf("after remove the next life finds %v, and the engine has %v", l.found, n.engine.Containers())
	}
	l.end()
	// The delay counts from then, whatever lives come and go.
	n.cfg.RemoveDelay = time.Millisecond
	n.begin()
	containerizertest.WaitFor(t, time.Minute, "the end of the container", func() bool {
		left, err := os.ReadDir(filepath.Join(n.cfg.Dir, "containers"))
		return err == nil && len(left) == 0 && len(n.engine.Containers()) == 0
	})
}

// TestFaultsRecordsAreDamaged has the labels stand in for what was on disk.
func TestFaultsRecordsAreDamaged(t *testing.T) { // D5
	n := newNode(t, dockertest.Options{})
	for i, damage := range []func(file string, data []byte) error{
		func(file string, _ []byte) error { return os.WriteFile(file, nil, 0o600) },
		func(file string, data []byte) error { return os.WriteFile(file, data[:len(data)/2], 0o600) },
		func(file string, data []byte) error { return os.WriteFile(file, make([]byte, len(data)), 0o600) },
		func(file string, _ []byte) error { return os.Remove(file) },
	} {
		l := n.begin()
		runs, ends := fmt.Sprint("runs", i), fmt.Sprint("ends", i)
		spec := n.run(runs, "exec sleep 1000")
		spec.Note = []byte("a note")
		k := l.launch(spec)
		l.launch(n.run(ends, "exit 3"))
		l.exits.Await(ends, time.Minute)
		l.end()
		files, err := filepath.Glob(filepath.Join(n.cfg.Dir, "containers", "*"))
		if err != nil || len(files) < 2 {
			t.Fatalf("records are %v, %v", files, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err == nil {
				err = damage(file, data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		l = n.begin()
		if got := l.found[runs]; got.PID != k.PID || string(got.Note) != "a note" || !got.Started.Equal(k.Started) {
			t.Errorf("damage %d: got %+v, want %+v", i, got, k)
		}
		if e := l.exits.Await(ends, time.Minute); e.Status != 3<<8 {
			t.Errorf("damage %d: got %+v", i, e)
		}
		if err := l.Destroy(t.Context(), runs); err != nil {
			t.Error(err)
		}
		for id := range l.found {
			if err := l.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
		l.end()
	}
}
