//go:build linux && cgo

package libct

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/testenv"
)

const nobodyEnv = "STARLING_TEST_NOBODY"

// Who is not root has plain processes, and is told what can't be had and why.
func TestWithoutRoot(t *testing.T) {
	if dir := os.Getenv(nobodyEnv); dir != "" {
		refusals(t, dir)
		return
	}
	testenv.NeedRoot(t, "for containers")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for at := dir; len(at) > len(os.TempDir()); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Where the test binary lies others may not go.
	program, home := filepath.Join(dir, "libct.test"), filepath.Join(dir, "home")
	if out, err := exec.Command("cp", exe, program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Dir, cmd.Env = home, append(os.Environ(), nobodyEnv+"="+home, "TMPDIR="+home, "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutRoot") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// refusals is run by somebody who is not root.
func refusals(t *testing.T, dir string) {
	n := nodeIn(t, dir)
	c, x := n.begin()
	spec := n.shell("c", "true")
	spec.Container.Hostname = proto.String("own")
	spec.Container.Mesos = busyboxImage()
	spec.Container.TtyInfo = nil
	_, err := c.Launch(t.Context(), spec)
	for _, want := range []string{"image", "hostname", "cannot be had: the agent does not run as root"} {
		if !errors.Is(err, containerizer.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if _, err := c.OpenGroup(t.Context(), containerizer.Group{ID: "g", Dir: dir, Container: inNetwork(isolated(), "any")}); !errors.Is(err, containerizer.ErrUnsupported) {
		t.Errorf("a group with a network: got %v", err)
	}
	if groups, err := c.ListGroups(t.Context()); err != nil || len(groups) > 0 {
		t.Errorf("left are %v, %v", groups, err)
	}
	plain := n.shell("plain", "id -u")
	plain.Container = nil
	if out, e := n.run(c, x, plain); out != "65534" || e.Status != 0 {
		t.Errorf("a plain process: got %q, %+v", out, e)
	}
	n.cfg.Isolation = []string{isolatePID}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c, _ = n.begin()
	plain.ID = "isolated"
	if _, err := c.Launch(t.Context(), plain); !errors.Is(err, containerizer.ErrUnsupported) || !strings.Contains(err.Error(), "isolation by namespaces/pid") {
		t.Errorf("got %v", err)
	}
}

// A binary without cgo says so. It is built here, as the tests at hand are of one with it.
func TestWithoutCgo(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"vet", "."}, {"test", "-count=1", "-run", "^TestBuiltWithoutCgo$", "-v", "."}} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil || args[0] == "test" && !strings.Contains(string(out), "--- PASS: TestBuiltWithoutCgo") {
			t.Errorf("go %v: %v:\n%s", args, err, out)
		}
	}
}

// A terminal outlives agent and supervisor, and its relay ends with the container.
func TestTerminalOutlivesAgentAndSupervisor(t *testing.T) {
	n := newNode(t)
	cmd, told := n.startAgent("terminal")
	waitFor(t, "the container", func() bool { return strings.Contains(told.String(), "launched tty ") })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if len(n.relays()) != 1 {
		t.Fatalf("relays are %v", n.relays())
	}
	c, x := n.begin()
	s, err := c.Attach(t.Context(), "tty")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other, err := c.Attach(t.Context(), "tty")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	out, seen := read(s.Output()), read(other.Output())
	write := func(text string) {
		t.Helper()
		if _, err := io.WriteString(s.Input(), text+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	shown := func(want string) bool {
		return strings.Contains(out.String(), want) && strings.Contains(seen.String(), want)
	}
	say := func(text, want string) {
		t.Helper()
		write(text)
		waitFor(t, want, func() bool { return shown(want) })
	}
	// Who attaches sees what comes once the relay has taken notice.
	waitFor(t, "the answer at both", func() bool { write("one"); return shown("got one") })
	n.killSupervisor()
	waitFor(t, "another supervisor", func() bool { return c.Check(t.Context()) == nil })
	if err := s.Resize(101, 33); err != nil {
		t.Error(err)
	}
	say("size", "33 101")
	say("two", "got two")
	say("end", "got end")
	if e := x.await("tty"); !e.Known || e.Status != 4<<8 {
		t.Errorf("got %+v", e)
	}
	<-out.done
	<-seen.done
	waitFor(t, "the relay to end", func() bool { return len(n.relays()) == 0 })
	if log := n.output("tty"); !strings.Contains(log, "got one") || !strings.Contains(log, "got two") || !strings.Contains(log, "got end") {
		t.Errorf("the log is %q", log)
	}
}

// relays lists the processes that hold terminals.
func (n *node) relays() (pids []string) {
	for _, pid := range n.processes() {
		args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		if strings.Contains(string(args), "\x00console\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}
