package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/containerizer/containerizertest"
	"starling/agent/containerizer/docker/dockertest"
	"starling/agent/network/netns"
	"starling/master/mesos"
)

// ownPIDs makes a spec run in a pid namespace of its own, as it would without a word.
func ownPIDs(spec containerizer.Spec) containerizer.Spec {
	spec.Container.Docker.Parameters = nil
	return spec
}

func TestRun(t *testing.T) {
	n := newNode(t, dockertest.Options{Bridge: true})
	l := n.begin()

	// Only of what it has seen running it knows more than the engine says.
	const watched = "until [ -e /mnt/mesos/sandbox/seen ]; do usleep 10000; done; "
	seen := func(spec containerizer.Spec) {
		t.Helper()
		l.launch(spec)
		if err := os.WriteFile(filepath.Join(spec.Dir, "seen"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("exits are those of the process", func(t *testing.T) {
		for i, tt := range []struct {
			script string
			status int
		}{
			{"exit 137", 137 << 8},
			{"kill -9 $$", 9},
			{"exit 139", 139 << 8},
			{"kill -SEGV $$", 11},
			{"exit 255", 255 << 8},
		} {
			id := fmt.Sprint("exit", i)
			seen(n.run(id, watched+tt.script))
			if e := l.exits.Await(id, time.Minute); !e.Known || e.Status != tt.status || e.OOM {
				t.Errorf("%s: got %+v, want status %#x", tt.script, e, tt.status)
			}
		}
	})

	t.Run("memory", func(t *testing.T) {
		spec := ownPIDs(n.run("oom", watched+"exec tail /dev/zero"))
		spec.Limits.MemBytes = 48 << 20
		seen(spec)
		if e := l.exits.Await("oom", time.Minute); !e.Known || !e.OOM || e.MemLimit != 48<<20 || e.Status != 9 {
			t.Errorf("got %+v", e)
		}
		// At once: nobody had time to watch, and the engine, which misses it now and then, is all there is to ask.
		for try := 1; ; try++ {
			id := fmt.Sprint("oom-fast-", try)
			spec = ownPIDs(n.run(id, "exec tail /dev/zero"))
			spec.Limits.MemBytes = 32 << 20
			l.launch(spec)
			e := l.exits.Await(id, time.Minute)
			if !e.Known || !e.OOM && (e.Status != 9 || try == 5) {
				t.Errorf("got %+v", e)
			}
			if e.OOM || try == 5 {
				break
			}
		}
		// A child that is killed is not the task, unless the kernel goes on to the first process.
		spec = ownPIDs(n.run("oom-child", watched+"tail /dev/zero; exit 3"))
		spec.Limits.MemBytes = 32 << 20
		seen(spec)
		if e := l.exits.Await("oom-child", time.Minute); !e.Known || e.OOM != (e.Status == 9) || e.Status != 3<<8 && e.Status != 9 {
			t.Errorf("got %+v", e)
		}
	})

	t.Run("limits", func(t *testing.T) {
		spec := ownPIDs(n.run("limits", "while :; do :; done"))
		spec.Limits = containerizer.Limits{CPUs: 0.5, CPULimit: 0.2, MemBytes: 40 << 20, MemLimit: 80 << 20}
		l.launch(spec)
		usage := func() time.Duration {
			u, err := l.Usage(t.Context(), "limits")
			if err != nil {
				t.Fatal(err)
			}
			return u.CPUUser + u.CPUSystem
		}
		// The engine counts the same.
		counted, err := l.engine.Stats(t.Context(), "mesos-limits")
		if now := usage(); err != nil || counted.Processes != 1 || now-counted.CPUUser-counted.CPUSystem > time.Second {
			t.Errorf("the engine counts %+v (%v), the cgroups %v", counted, err, now)
		}
		begun, from := time.Now(), usage()
		containerizertest.WaitFor(t, time.Minute, "use of the CPU", func() bool { return usage()-from > 400*time.Millisecond })
		if rate := float64(usage()-from) / float64(time.Since(begun)); rate > 0.3 {
			t.Errorf("it used %.2f CPUs of 0.2", rate)
		}
		if err := l.Resize(t.Context(), "limits", containerizer.Limits{CPUs: 1, CPULimit: 0.8, MemBytes: 100 << 20}); err != nil {
			t.Error(err)
		}
		begun, from = time.Now(), usage()
		containerizertest.WaitFor(t, time.Minute, "use of the CPU", func() bool { return usage()-from > time.Second })
		t.Logf("after the change %.2f CPUs", float64(usage()-from)/float64(time.Since(begun)))
		var found []struct {
			HostConfig struct{ Memory, CpuShares, CpuQuota int64 }
		}
		raw := n.engine.Do("GET", "/containers/mesos-limits/json", nil)
		if err := json.Unmarshal([]byte("["+string(raw)+"]"), &found); err != nil {
			t.Fatal(err)
		}
		if h := found[0].HostConfig; h.Memory != 100<<20 || h.CpuShares != 1024 || h.CpuQuota != 80000 {
			t.Errorf("got %+v", h)
		}
		if err := l.Destroy(t.Context(), "limits"); err != nil {
			t.Error(err)
		}
		if err := l.Resize(t.Context(), "limits", containerizer.Limits{CPUs: 1}); err != nil {
			t.Errorf("resize of an ended container: %v", err)
		}
	})

	t.Run("ports, volumes and environment", func(t *testing.T) {
		spec := ownPIDs(n.run("web", `mkdir -p /www; env >/www/env; cat /data/word >/www/word; echo kept >/mnt/mesos/sandbox/file; exec httpd -f -p 80 -h /www`))
		volume := t.TempDir()
		if err := os.WriteFile(volume+"/word", []byte("of the node"), 0o644); err != nil {
			t.Fatal(err)
		}
		d := spec.Container.Docker
		d.Network = mesos.ContainerInfo_DockerInfo_BRIDGE.Enum()
		d.PortMappings = []*mesos.ContainerInfo_DockerInfo_PortMapping{{HostPort: proto.Uint32(22080), ContainerPort: proto.Uint32(80)}}
		spec.Container.Volumes = []*mesos.Volume{
			{ContainerPath: proto.String("/data"), HostPath: &volume, Mode: mesos.Volume_RO.Enum()},
			{ContainerPath: proto.String("cache"), HostPath: proto.String("kept/cache"), Mode: mesos.Volume_RW.Enum()},
		}
		spec.Env = []string{"COLOUR=green", "MESOS_SANDBOX=/elsewhere"}
		k := l.launch(spec)
		if len(k.Networks) != 1 || len(k.Networks[0].GetIpAddresses()) != 1 || !strings.HasPrefix(k.Networks[0].GetIpAddresses()[0].GetIpAddress(), "172.") {
			t.Errorf("networks %v", k.Networks)
		}
		var inspected []map[string]any
		if err := json.Unmarshal(k.Data, &inspected); err != nil || len(inspected) != 1 || inspected[0]["Name"] != "/mesos-web" {
			t.Errorf("data is not what docker inspect prints: %v, %.200s", err, k.Data)
		}
		get := func(path string) string {
			var answer []byte
			containerizertest.WaitFor(t, time.Minute, "answer on the mapped port", func() bool {
				conn, err := netns.DialContext(t.Context(), n.engine.Namespace(), "127.0.0.1:22080")
				if err != nil {
					return false
				}
				defer conn.Close()
				fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
				answer, err = io.ReadAll(conn)
				return err == nil && bytes.Contains(answer, []byte("200 OK"))
			})
			return string(answer)
		}
		if word := get("/word"); !strings.HasSuffix(word, "of the node") {
			t.Errorf("got %q", word)
		}
		env := get("/env")
		for _, want := range []string{"COLOUR=green\n", "MESOS_SANDBOX=/mnt/mesos/sandbox\n", "MESOS_CONTAINER_NAME=mesos-web\n"} {
			if !strings.Contains(env, want) {
				t.Errorf("environment lacks %q: %s", want, env)
			}
		}
		if got := read(t, spec.Dir+"/file"); got != "kept\n" {
			t.Errorf("got %q", got)
		}
		if _, err := os.Stat(spec.Dir + "/kept/cache"); err != nil {
			t.Error(err)
		}
		if err := l.Destroy(t.Context(), "web"); err != nil {
			t.Error(err)
		}
	})

	t.Run("exec", func(t *testing.T) {
		l.launch(ownPIDs(n.run("shell", "while :; do sleep 1; done"))) // which buries the dead
		s, err := l.Exec(t.Context(), "shell", containerizer.Process{
			Path: "sh", Args: []string{"sh", "-c", "read x; echo got $x $W; echo oops >&2; exit 5"}, Env: []string{"W=w"},
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(s.Input(), "this")
		s.Input().Close()
		var out, errOut []byte
		var wg sync.WaitGroup
		wg.Go(func() { out, _ = io.ReadAll(s.Output()) })
		wg.Go(func() { errOut, _ = io.ReadAll(s.ErrOutput()) })
		wg.Wait()
		if string(out) != "got this w\n" || string(errOut) != "oops\n" {
			t.Errorf("got %q and %q", out, errOut)
		}
		if e, err := s.Wait(t.Context()); err != nil || !e.Known || e.Status != 5<<8 {
			t.Errorf("got %+v, %v", e, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}

		s, err = l.Exec(t.Context(), "shell", containerizer.Process{Path: "sh", Terminal: true, Columns: 100, Rows: 30})
		if err != nil {
			t.Fatal(err)
		}
		if s.ErrOutput() != nil {
			t.Error("a terminal has one output")
		}
		fmt.Fprintln(s.Input(), "stty size; exit 6")
		all, _ := io.ReadAll(s.Output())
		if !strings.Contains(string(all), "30 100") {
			t.Errorf("got %q", all)
		}
		if e, err := s.Wait(t.Context()); err != nil || e.Status != 6<<8 {
			t.Errorf("got %+v, %v", e, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}

		// The end of what is typed is not the end of what is written.
		s, err = l.Exec(t.Context(), "shell", containerizer.Process{
			Path: "sh", Args: []string{"sh", "-c", "read line; sleep 0.2; echo after the end"}, Terminal: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Input().Close()
		if all, err := io.ReadAll(s.Output()); !strings.HasSuffix(string(all), "after the end\r\n") {
			t.Errorf("got %q, %v", all, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}

		// Closing ends what was started, and its children.
		s, err = l.Exec(t.Context(), "shell", containerizer.Process{Path: "sh", Args: []string{"sh", "-c", "sleep 4321 & sleep 4321"}})
		if err != nil {
			t.Fatal(err)
		}
		containerizertest.WaitFor(t, time.Minute, "processes", func() bool { u, err := l.Usage(t.Context(), "shell"); return err == nil && u.Processes >= 4 })
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		containerizertest.WaitFor(t, time.Minute, "their end", func() bool { u, err := l.Usage(t.Context(), "shell"); return err == nil && u.Processes <= 2 })
		if _, err := l.Attach(t.Context(), "shell"); !errors.Is(err, containerizer.ErrNoTerminal) {
			t.Errorf("got %v, want ErrNoTerminal", err)
		}
	})

	t.Run("terminal", func(t *testing.T) {
		spec := ownPIDs(n.run("tty", "stty size; while read line; do echo you said $line; done; exit 4"))
		spec.Container.TtyInfo = &mesos.TTYInfo{WindowSize: &mesos.TTYInfo_WindowSize{Rows: proto.Uint32(20), Columns: proto.Uint32(70)}}
		l.launch(spec)
		s, err := l.Attach(t.Context(), "tty")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Resize(80, 24); err != nil {
			t.Error(err)
		}
		fmt.Fprintln(s.Input(), "this")
		seen := make([]byte, 0, 1000)
		for buf := make([]byte, 100); !bytes.Contains(seen, []byte("you said this")); {
			k, err := s.Output().Read(buf)
			if err != nil {
				t.Fatalf("%v after %q", err, seen)
			}
			seen = append(seen, buf[:k]...)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if s, err = l.Attach(t.Context(), "tty"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Input().Write([]byte{4}); err != nil { // ^D
			t.Error(err)
		}
		if e, err := s.Wait(t.Context()); err != nil || e.Status != 4<<8 {
			t.Errorf("got %+v, %v", e, err)
		}
		s.Close()
		l.exits.Await("tty", time.Minute) // with its output
		if got := read(t, spec.Stdout); !strings.Contains(got, "you said this\r\n") || !strings.Contains(got, " ") {
			t.Errorf("stdout is %q", got)
		}
	})

	t.Run("refusals leave nothing", func(t *testing.T) {
		before := len(n.engine.Containers())
		for name, change := range map[string]func(*containerizer.Spec){
			"no such user":      func(s *containerizer.Spec) { s.Container.Docker.Parameters = parameter("user", "nosuchuser") },
			"no such network":   func(s *containerizer.Spec) { s.Container.Docker.Parameters = parameter("net", "nosuchnet") },
			"no such image":     func(s *containerizer.Spec) { s.Container.Docker.Image = proto.String("127.0.0.1:1/none:1") },
			"no such parameter": func(s *containerizer.Spec) { s.Container.Docker.Parameters = parameter("nosuch", "x") },
			"socket as a volume": func(s *containerizer.Spec) {
				s.Container.Docker.Parameters = parameter("volume", n.engine.Socket+":/s")
			},
			"port in use": func(s *containerizer.Spec) {
				s.Container.Docker.Parameters = append(parameter("net", "bridge"), parameter("publish", "22081:1")...)
				s.Container.Docker.Parameters = append(s.Container.Docker.Parameters, parameter("publish", "22081:2")...)
			},
		} {
			spec := ownPIDs(n.run("refused", "true"))
			change(&spec)
			_, err := l.Launch(t.Context(), spec)
			if err == nil {
				t.Errorf("%s: it runs", name)
			}
			t.Logf("%s: %v", name, err)
			if _, err := os.Stat(filepath.Join(n.cfg.Dir, "containers", "refused.json")); err == nil {
				t.Errorf("%s: a record is left", name)
			}
		}
		if after := len(n.engine.Containers()); after != before {
			t.Errorf("%d containers are left", after-before)
		}
	})
}

func parameter(key, value string) []*mesos.Parameter {
	return []*mesos.Parameter{{Key: &key, Value: &value}}
}

// TestOutputIsWhole ends the agent at any moment, and starts it again: no line may lack, none come twice.
func TestOutputIsWhole(t *testing.T) {
	n := newNode(t, dockertest.Options{})
	l := n.begin()
	l.launch(n.run("counts", counting))
	// A line without end, and a line longer than the engine's pieces.
	l.launch(n.run("dots", `printf start; i=0; while [ $i -lt 400 ]; do i=$((i+1)); printf .; usleep 5000; done; echo; head -c 100000 /dev/zero | tr '\0' x; echo; echo end >&2`))
	tty := n.run("tty", counting)
	tty.Container.TtyInfo = &mesos.TTYInfo{}
	l.launch(tty)
	for i := range 8 {
		inSequenceSoon(t, n, "counts")
		l.end()
		if i%2 == 1 {
			// What was written, but not noted.
			undo(t, filepath.Join(n.cfg.Dir, "containers", "counts.log"), func() { l = n.begin(); inSequenceSoon(t, n, "counts"); l.end() })
		}
		l = n.begin()
	}
	inSequenceSoon(t, n, "counts")
	for _, id := range []string{"counts", "tty"} {
		if err := l.Signal(t.Context(), id, int(syscall.SIGTERM)); err != nil {
			t.Error(err)
		}
		l.exits.Await(id, time.Minute)
	}
	l.exits.Await("dots", time.Minute)
	t.Logf("%d and %d lines", inSequence(t, n.dir+"/sandbox-counts/stdout", "out"), inSequence(t, n.dir+"/sandbox-counts/stderr", "err"))
	if got, want := read(t, n.dir+"/sandbox-dots/stdout"), "start"+strings.Repeat(".", 400)+"\n"+strings.Repeat("x", 100000)+"\n"; got != want {
		t.Errorf("got %d bytes, want %d: %.600q", len(got), len(want), got)
	}
	if got := read(t, n.dir+"/sandbox-dots/stderr"); got != "end\n" {
		t.Errorf("got %q", got)
	}
	// On a terminal both outputs are one, in order.
	lines := strings.Split(strings.TrimSuffix(read(t, n.dir+"/sandbox-tty/stdout"), "\r\n"), "\r\n")
	for i, line := range lines {
		want := fmt.Sprintf("%s %d", []string{"out", "err"}[i%2], i/2+1)
		if line != want {
			t.Fatalf("line %d of the terminal is %q, want %q", i+1, line, want)
		}
	}
	t.Logf("%d lines of a terminal", len(lines))
}

// undo runs f and puts a file back to what it was before.
func undo(t testing.TB, file string, f func()) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
