package process

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/agent/containerizer"
	"starling/agent/testenv"
)

// inContainer returns a containerizer with one container that runs.
func inContainer(t *testing.T) (*node, *Containerizer) {
	t.Helper()
	n := newNode(t)
	c := n.open()
	if _, err := c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for range c.Exits() {
		}
	}()
	spec := n.shell("host", "cd / && exec sleep 1000")
	spec.Env = append(spec.Env, "COLOUR=red", "SIZE=1")
	if _, err := c.Launch(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the folder", func() bool {
		dir, _ := os.Readlink("/proc/" + strconv.Itoa(c.entries["host"].known.PID) + "/cwd")
		return dir == "/"
	})
	return n, c
}

// sh is a process for a session.
func sh(script string) containerizer.Process {
	return containerizer.Process{Path: "sh", Args: []string{"sh", "-c", script}}
}

// run starts a process, feeds it, and returns what it wrote and how it ended.
func run(t *testing.T, c *Containerizer, p containerizer.Process, input string) (out, errOut string, exit containerizer.Exit) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := c.Exec(ctx, "host", p)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() {
		io.WriteString(s.Input(), input)
		s.Input().Close()
	}()
	errors := make(chan string, 1)
	go func() {
		var b bytes.Buffer
		if s.ErrOutput() != nil {
			io.Copy(&b, s.ErrOutput())
		}
		errors <- b.String()
	}()
	text, err := io.ReadAll(s.Output())
	if err != nil {
		t.Error(err)
	}
	exit, err = s.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), <-errors, exit
}

func TestSessionsAreInTheContainer(t *testing.T) {
	_, c := inContainer(t)
	p := sh(`echo $COLOUR $SIZE; pwd; cat; echo oops >&2; cat /proc/self/oom_score_adj; exit 7`)
	p.Env = []string{"SIZE=2"}
	out, errOut, exit := run(t, c, p, "said\n")
	if out != "red 2\n/\nsaid\n0\n" || errOut != "oops\n" || !exit.Known || exit.Status != 7<<8 {
		t.Errorf("got %q, %q, %+v", out, errOut, exit)
	}
	if _, _, exit := run(t, c, sh("kill -9 $$"), ""); exit.Status != int(syscall.SIGKILL) {
		t.Errorf("a signal: got %+v", exit)
	}
	cgroups, _, _ := run(t, c, sh("cat /proc/self/cgroup"), "")
	of, err := os.ReadFile("/proc/" + strconv.Itoa(c.entries["host"].known.PID) + "/cgroup")
	if err != nil || cgroups != string(of) {
		t.Errorf("cgroups: got %s\nwant %s (%v)", cgroups, of, err)
	}
	u, err := c.Usage(t.Context(), "host")
	if err != nil || u.Processes != 1 {
		t.Errorf("left in the container: %+v, %v", u, err)
	}
}

func TestSessionsHaveTheUserOfTheContainer(t *testing.T) {
	testenv.NeedRoot(t, "to change the user")
	n, c := inContainer(t)
	if err := os.Chmod(n.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	spec := n.shell("guest", "sleep 1000")
	spec.User, spec.Dir = "nobody", "/tmp"
	spec.Stdout, spec.Stderr = "", ""
	if _, err := c.Launch(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ container, user, want string }{
		{"guest", "", "nobody"}, {"guest", "root", "root"}, {"host", "", "root"}, {"host", "nobody", "nobody"},
	} {
		p := sh("id -un")
		p.User, p.Terminal = tc.user, true
		s, err := c.Exec(t.Context(), tc.container, p)
		if err != nil {
			t.Fatalf("%+v: %v", tc, err)
		}
		out, _ := io.ReadAll(s.Output())
		if got := strings.TrimSpace(string(out)); got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
		s.Close()
	}
	if _, err := c.Exec(t.Context(), "host", containerizer.Process{Path: "true", User: "no-such-user"}); err == nil || !strings.Contains(err.Error(), "no such user") {
		t.Errorf("got %v", err)
	}
}

func TestSessionsWithATerminal(t *testing.T) {
	_, c := inContainer(t)
	p := sh(`stty size; read line; echo "got $line"; stty size; tty`)
	p.Terminal, p.Columns, p.Rows = true, 132, 43
	s, err := c.Exec(t.Context(), "host", p)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.ErrOutput() != nil {
		t.Error("a terminal has a second output")
	}
	read := func(want string) {
		t.Helper()
		var got strings.Builder
		buf := make([]byte, 1)
		for !strings.Contains(got.String(), want) {
			n, err := s.Output().Read(buf)
			got.Write(buf[:n])
			if err != nil {
				t.Fatalf("read %q, then %v; want %q", got.String(), err, want)
			}
		}
	}
	read("43 132")
	if err := s.Resize(80, 24); err != nil {
		t.Error(err)
	}
	io.WriteString(s.Input(), "hello\n")
	read("got hello")
	read("24 80")
	read("/dev/pts/")
	io.Copy(io.Discard, s.Output())
	if exit, err := s.Wait(t.Context()); err != nil || exit.Status != 0 {
		t.Errorf("got %+v, %v", exit, err)
	}

	p = sh(`echo ready; exec sleep 1000`)
	p.Terminal = true
	s, err = c.Exec(t.Context(), "host", p)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	read("ready")
	s.Input().Write([]byte{3})
	io.Copy(io.Discard, s.Output())
	if exit, err := s.Wait(t.Context()); err != nil || exit.Status != int(syscall.SIGINT) {
		t.Errorf("control-C: got %+v, %v", exit, err)
	}
}

func TestSessionsLeaveNothing(t *testing.T) {
	n, c := inContainer(t)
	left := filepath.Join(n.dir, "left")
	pidOf := func() int {
		data, _ := os.ReadFile(left)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		return pid
	}
	// What it leaves behind has its output open and ignores the signal of a hang-up.
	out, _, exit := run(t, c, sh(`(trap "" HUP TERM; echo $$ >/dev/null; exec sleep 1000) & echo $! > `+left+`; echo done`), "")
	if out != "done\n" || exit.Status != 0 {
		t.Errorf("got %q, %+v", out, exit)
	}
	waitFor(t, "what was left behind to end", func() bool { return pidOf() > 0 && !alive(pidOf()) })

	os.Remove(left)
	s, err := c.Exec(t.Context(), "host", sh(`sleep 1000 & echo $! > `+left+`; wait`))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the child", func() bool { return pidOf() > 0 })
	begun := time.Now()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begun); took > 20*time.Second || alive(pidOf()) {
		t.Errorf("close took %v, and the child runs: %v", took, alive(pidOf()))
	}
	if exit, err := s.Wait(t.Context()); err != nil || exit.Status != int(syscall.SIGKILL) {
		t.Errorf("after a close: %+v, %v", exit, err)
	}

	// The end of the containerizer is that of the sessions; the container goes on.
	os.Remove(left)
	s, err = c.Exec(t.Context(), "host", sh(`echo $$ > `+left+`; exec sleep 1000`))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the process", func() bool { return pidOf() > 0 })
	host := c.entries["host"].known.PID
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if alive(pidOf()) || !alive(host) {
		t.Errorf("after the end: session %v, container %v", alive(pidOf()), alive(host))
	}
	if len(c.sessions) != 0 {
		t.Errorf("%d sessions are counted still", len(c.sessions))
	}
	_ = s
}

func TestSessionsThatCannotBe(t *testing.T) {
	n, c := inContainer(t)
	if _, err := c.Exec(t.Context(), "nobody", sh("true")); !errors.Is(err, containerizer.ErrUnknownContainer) {
		t.Errorf("got %v", err)
	}
	for path, want := range map[string]string{
		"missing": `cannot run "missing": no such file or directory`, "/etc": "is a directory", "/no/such": "no such file or directory",
	} {
		if _, err := c.Exec(t.Context(), "host", containerizer.Process{Path: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	if _, err := c.Launch(t.Context(), n.shell("over", "exit 0")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.entries["over"].told })
	if _, err := c.Exec(t.Context(), "over", sh("true")); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("got %v", err)
	}
	if len(c.sessions) != 0 {
		t.Errorf("%d sessions are counted", len(c.sessions))
	}
}
