package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/testenv"
)

func TestExitsAreTrue(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	for _, tt := range []struct {
		name, script string
		want         string
	}{
		{"success", "exit 0", "exit 0"},
		{"code", "exit 7", "exit 7"},
		{"highest code", "exit 255", "exit 255"},
		{"killed", "kill -9 $$", "signal 9"},
		{"terminated", "kill -15 $$", "signal 15"},
		{"hung up, which the supervisor itself survives", "kill -1 $$", "signal 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := strings.ReplaceAll(tt.name, " ", "_")
			c.start(n.shell(id, tt.script))
			e := c.awaitExit(id)
			if got := statusText(e.Status); !e.Known || got != tt.want {
				t.Errorf("got %s (known %v), want %s", got, e.Known, tt.want)
			}
		})
	}
}

func TestCannotRunLeavesNothing(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc/hostname", link); err != nil {
		t.Fatal(err)
	}
	// Folders above an output are a task's own where its sandbox lies in that of another container.
	away := t.TempDir()
	if err := os.Symlink(away, filepath.Join(dir, "containers")); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "containers", "out")
	other := filepath.Join(dir, "other")
	if err := os.Link(write("foreign", "", 0o644), other); err != nil {
		t.Fatal(err)
	}
	// A device acts when it is opened. There is none of this number: to open it would fail, to look at it does not.
	special := filepath.Join(dir, "special")
	kind, number := uint32(unix.S_IFIFO), 0
	if os.Geteuid() == 0 {
		kind, number = unix.S_IFCHR, int(unix.Mkdev(511, 200))
	}
	if err := unix.Mknod(special, kind|0o600, number); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*Spec)
		want   string
		is     error
	}{
		"no program":         {func(s *Spec) { s.Path = "/no/such" }, `cannot run "/no/such": no such file or directory`, ErrCannotRun},
		"no execute bit":     {func(s *Spec) { s.Path = write("plain", "x", 0o644) }, "permission denied", ErrCannotRun},
		"a folder":           {func(s *Spec) { s.Path = dir }, "is a directory", ErrCannotRun},
		"no interpreter":     {func(s *Spec) { s.Path = write("script", "#!/no/such\n", 0o755) }, "interpreter", ErrCannotRun},
		"not a program":      {func(s *Spec) { s.Path = write("text", "hello", 0o755) }, "neither a binary", ErrCannotRun},
		"no folder":          {func(s *Spec) { s.Dir = "/no/such" }, `cannot use working directory "/no/such": no such file or directory`, ErrCannotRun},
		"folder is a file":   {func(s *Spec) { s.Dir = "/etc/passwd" }, "not a directory", ErrCannotRun},
		"output is a link":   {func(s *Spec) { s.Stdout = link }, "symbolic link", ErrCannotRun},
		"output by a link":   {func(s *Spec) { s.Stdout = below }, "symbolic link", ErrCannotRun},
		"output is another":  {func(s *Spec) { s.Stdout = other }, "other names", ErrCannotRun},
		"output is special":  {func(s *Spec) { s.Stdout = special }, "is not a regular file", ErrCannotRun},
		"output is a folder": {func(s *Spec) { s.Stderr = dir }, "is a directory", ErrCannotRun},
		"cgroup lacks":       {func(s *Spec) { s.Cgroups = []string{"/no/such"} }, `cannot join cgroup "/no/such": no such file or directory`, ErrCannotRun},
		"relative folder":    {func(s *Spec) { s.Dir = "x" }, "not an absolute path", ErrInvalid},
		"slash in the id":    {func(s *Spec) { s.ID = "../x" }, "not a path segment", ErrInvalid},
		"zero byte":          {func(s *Spec) { s.Env = []string{"A=\x00B"} }, "zero byte", ErrInvalid},
		"no args":            {func(s *Spec) { s.Args = nil }, "args are empty", ErrInvalid},
		"too long an id":     {func(s *Spec) { s.ID = strings.Repeat("x", 251) }, "250 are allowed", ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			spec := n.shell("x", "exit 0")
			tt.change(&spec)
			_, err := c.Start(t.Context(), spec)
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			files, _ := os.ReadDir(filepath.Join(n.dir, "containers"))
			if len(files) != 0 {
				t.Errorf("%d files are left", len(files))
			}
		})
	}
	if made, err := os.ReadDir(away); err != nil || len(made) != 0 {
		t.Errorf("output was made behind a link: %v, %v", made, err)
	}
	if h, err := c.Hello(t.Context()); err != nil || h.Running+h.Ended != 0 {
		t.Errorf("hello says %+v, %v", h, err)
	}
}

func TestTaskSeesAProperWorld(t *testing.T) {
	n := newNode(t)
	// What the caller has open, the tasks must not.
	leak, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	c := n.connect()
	spec := n.shell("w", `ls /proc/self/fd | tr '\n' ' '; echo; cat /proc/self/oom_score_adj; echo "$A"; cut -d' ' -f5,6 /proc/$$/stat; echo $$
grep SigIgn /proc/$$/status; umask; ulimit -Sn; env | grep ^STARLING_CONTAINER_ID; cat; pwd`)
	spec.Env = append(spec.Env, "A=\xff\xfe", MarkContainer+"=other")
	spec.Dir = "/usr"
	if err := os.WriteFile(n.out("w"), []byte("before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	k := c.start(spec)
	if e := c.awaitExit("w"); e.Status != 0 {
		t.Errorf("got %s", statusText(e.Status))
	}
	lines := strings.Split(n.output("w"), "\n")
	score := "0"
	if own, _ := os.ReadFile("/proc/self/oom_score_adj"); os.Geteuid() != 0 {
		score = strings.TrimSpace(string(own))
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprint(k.PID)
	// Signals 32 and 33 are the C library's own. Whoever started us by its posix_spawn, as make does, ignores them for us, and
	// for a program that uses them they are set up anew.
	for i, line := range lines {
		if mask, ok := strings.CutPrefix(line, "SigIgn:\t"); ok {
			ignored, err := strconv.ParseUint(mask, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			lines[i] = fmt.Sprintf("SigIgn:\t%016x", ignored&^(3<<31))
		}
	}
	want := []string{"before", "0 1 2 3 ", score, "\xff\xfe", pid + " " + pid, pid, "SigIgn:\t0000000000000000", "0022", lines[8], "STARLING_CONTAINER_ID=w", "/usr"}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestStartIsIdempotent(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	spec := n.shell("same", "echo $$; exec sleep 100")
	var wg sync.WaitGroup
	pids := make([]int, 20)
	for i := range pids {
		wg.Go(func() {
			if k, err := c.Start(t.Context(), spec); err == nil {
				pids[i] = k.PID
			}
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if pid == 0 || pid != pids[0] {
			t.Fatalf("pids differ: %v", pids)
		}
	}
	if err := c.Remove(t.Context(), "same"); !errors.Is(err, ErrRunning) {
		t.Errorf("remove of a running container: got %v, want ErrRunning", err)
	}
	if err := c.Stop(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("stop: got %v, want ErrRunning", err)
	}
	if err := c.Signal(t.Context(), "same", 15); err != nil {
		t.Error(err)
	}
	if e := c.awaitExit("same"); e.Status != 15 {
		t.Errorf("got %s, want signal 15", statusText(e.Status))
	}
	if err := c.Signal(t.Context(), "same", 15); err != nil {
		t.Errorf("signal to an ended container: %v", err)
	}
	k := c.start(spec)
	if k.Exit == nil {
		t.Errorf("a start with an ended id runs again: %+v", k)
	}
	if err := c.Remove(t.Context(), "same"); err != nil {
		t.Error(err)
	}
	for _, op := range []func() error{
		func() error { return c.Signal(t.Context(), "same", 9) },
		func() error { _, err := c.Kill(t.Context(), "same"); return err },
	} {
		if err := op(); !errors.Is(err, ErrUnknown) {
			t.Errorf("got %v, want ErrUnknown", err)
		}
	}
	if err := c.Signal(t.Context(), "same", 99); !errors.Is(err, ErrInvalid) {
		t.Errorf("signal 99: got %v, want ErrInvalid", err)
	}
}

// daemonizer is a script that ignores TERM and leaves a double-forked process in a session of its own, which ignores it
// too. Both print their pids.
const daemonizer = `trap '' TERM; echo $$; (setsid sh -c 'trap "" TERM; echo $$; while :; do sleep 1; done' &) ; `

func TestKillReachesWhatForkedTwice(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	k := c.start(n.shell("d", daemonizer+"while :; do sleep 1; done"))
	pids := n.pidsIn("d", 2)
	if pids[0] != k.PID && pids[1] != k.PID {
		t.Fatalf("pids %v, container %d", pids, k.PID)
	}
	if err := c.Signal(t.Context(), "d", 15); err != nil {
		t.Error(err)
	}
	got, err := c.Kill(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	if got.Exit == nil || got.Exit.Status != 9 {
		t.Errorf("got %+v, want signal 9", got.Exit)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d lives", pid)
		}
	}
	waitFor(t, "orphans to be reaped", func() bool {
		for _, pid := range pids {
			if _, err := readProc(pid); err == nil {
				return false
			}
		}
		return true
	})
}

func TestWhatIsLeftBehindEndsWithTheContainer(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	neighbour := c.start(n.shell("n", "exec sleep 100"))
	c.start(n.shell("d", daemonizer+"while [ $(wc -l < "+n.out("d")+") -lt 2 ]; do sleep 0.01; done; exit 4"))
	if e := c.awaitExit("d"); e.Status != exited(4) {
		t.Errorf("got %s, want exit 4", statusText(e.Status))
	}
	for _, pid := range n.pidsIn("d", 2) {
		waitFor(t, "the leftover to die", func() bool { return !alive(pid) })
	}
	if !alive(neighbour.PID) {
		t.Error("the neighbour was killed, too")
	}
}

func TestManyStartsAtOnce(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	const count = 200
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range count {
		wg.Go(func() {
			spec := n.shell(fmt.Sprintf("m%d", i), fmt.Sprintf("exit %d", i%100))
			spec.Stdout, spec.Stderr = "", ""
			if _, err := c.Start(t.Context(), spec); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d starts in %v", count, time.Since(begin))
	for i := range count {
		if e := c.awaitExit(fmt.Sprintf("m%d", i)); e.Status != exited(i%100) {
			t.Errorf("container %d: got %s", i, statusText(e.Status))
		}
	}
	t.Logf("all exits after %v", time.Since(begin))
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		if err := c.Remove(t.Context(), fmt.Sprintf("m%d", i)); err != nil {
			t.Error(err)
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.PID))
	if err != nil {
		t.Fatal(err)
	}
	// 0, 1, 2, lock, listener, epoll, eventfd, this connection, and what the runtime has.
	if len(fds) > 16 {
		t.Errorf("supervisor has %d descriptors open", len(fds))
	}
}

func TestSecondSupervisorEnds(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	if err := launch(t.Context(), n.dir, &n.cfg); !errors.Is(err, errBusy) {
		t.Errorf("got %v, want errBusy", err)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			other, err := n.ensure()
			if err != nil {
				t.Error(err)
				return
			}
			defer other.Close()
			a, _ := c.Hello(t.Context())
			if b, err := other.Hello(t.Context()); err != nil || a.PID != b.PID {
				t.Errorf("got supervisor %d, %v, want %d", b.PID, err, a.PID)
			}
		})
	}
	wg.Wait()
}

func TestIdleSupervisorEnds(t *testing.T) {
	n := newNode(t)
	n.cfg.IdleExit = 100 * time.Millisecond
	c := n.connect()
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.start(n.shell("s", "sleep 0.5; exit 3"))
	c.Close()
	waitFor(t, "the idle supervisor to end", func() bool { return !alive(h.PID) })
	again := n.connect()
	if k := again.find("s"); k.Exit == nil || k.Exit.Status != exited(3) {
		t.Errorf("got %+v, want exit 3: it ended while the task ran", k.Exit)
	}
}

func TestLongPath(t *testing.T) {
	n := newNode(t)
	n.dir = filepath.Join(n.dir, strings.Repeat("d", 120))
	n.cfg.Dir = n.dir
	c := n.connect()
	c.start(n.shell("p", "exit 1"))
	if e := c.awaitExit("p"); e.Status != exited(1) {
		t.Errorf("got %s", statusText(e.Status))
	}
	for path, want := range map[string]os.FileMode{n.dir: 0o700, filepath.Join(n.dir, socketName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestStrangerIsRefused(t *testing.T) {
	testenv.NeedRoot(t, "to become somebody else")
	n := newNode(t)
	n.connect()
	// The modes keep strangers out already; the check of the peer must do so alone.
	for _, path := range []string{n.dir, filepath.Join(n.dir, socketName), filepath.Dir(n.dir), filepath.Dir(filepath.Dir(n.dir))} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	err := asUser(t, 65534, func() error {
		conn, err := dialPlain(n.dir)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		frame, err := encodeFrame(request{Seq: 1, Op: opHello})
		if err != nil {
			return err
		}
		_, _ = conn.Write(frame)
		var r response
		if err := readFrame(conn, &r); err == nil {
			return errors.New("was answered")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSIGTERMSparesTasks(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	h, err := c.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := c.start(n.shell("k", "exec sleep 100"))
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		if err := unix.Kill(h.PID, sig); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := c.Hello(t.Context()); err != nil || again.PID != h.PID || !alive(k.PID) {
		t.Errorf("got %+v, %v; task alive: %v", again, err, alive(k.PID))
	}
	if _, err := c.Kill(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(h.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the supervisor to obey", func() bool { return !alive(h.PID) })
}

func TestKillTimesOut(t *testing.T) {
	n := newNode(t)
	c := n.connect()
	c.start(n.shell("k", "exec sleep 100"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	if _, err := c.Kill(ctx, "k"); err == nil {
		t.Error("a kill without time succeeds")
	}
	if k, err := c.Kill(t.Context(), "k"); err != nil || k.Exit == nil {
		t.Errorf("got %+v, %v", k, err)
	}
}

func TestMainRefusesBadFlags(t *testing.T) {
	for _, args := range [][]string{{}, {"--dir="}, {"--no-such"}, {"--dir=/x", "more"}, {"--dir=/x", "--idle-exit=-1s"}, {"--dir=/x", "--idle-exit=x"}} {
		if got := Main(args); got != exitUsage {
			t.Errorf("%q: got exit code %d, want %d", args, got, exitUsage)
		}
	}
	if got := Main([]string{"--help"}); got != exitOK {
		t.Errorf("help: got exit code %d", got)
	}
}

func TestFolderMustBeOurs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	bad := []string{file, link}
	if os.Geteuid() == 0 {
		theirs := filepath.Join(dir, "theirs")
		if err := os.Mkdir(theirs, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(theirs, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		bad = append(bad, theirs)
	}
	for _, path := range bad {
		if _, err := Ensure(t.Context(), Config{Dir: path, Command: []string{"/bin/false"}}); err == nil {
			t.Errorf("%s is taken for a folder of a supervisor", path)
		}
	}
	if _, err := Ensure(t.Context(), Config{Dir: filepath.Join(dir, "sv"), Command: []string{"starling"}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("relative command: got %v, want ErrInvalid", err)
	}
	if _, err := Ensure(t.Context(), Config{Dir: filepath.Join(dir, "sv"), Command: []string{"/no/such"}}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing command: got %v", err)
	}
}
