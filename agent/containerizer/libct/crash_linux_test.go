//go:build linux && cgo

package libct

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/agent/containerizer/process"
	"starling/agent/image"
	"starling/agent/network"
	"starling/master/mesos"
)

var crashes = flag.Int("crashes", 6, "how often agent and supervisor are killed in the middle of launches, each")

// crashSpec is one of a mix: every second has an image, a network and a port, and the last two of four end by themselves.
func crashSpec(dir, id string, i int) containerizer.Spec {
	script := "exec sleep 1000"
	if ends(id) {
		script = "sleep 0.1; exit 7"
	}
	spec := containerizer.Spec{
		ID: id, Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: dir,
		Command: &mesos.CommandInfo{Value: &script}, Container: isolated(),
	}
	if i%2 == 1 {
		spec.Container.Mesos = busyboxImage()
		inNetwork(spec.Container, network.DefaultName, &mesos.NetworkInfo_PortMapping{
			HostPort: proto.Uint32(uint32(21100 + i)), ContainerPort: proto.Uint32(80),
		})
	}
	return spec
}

func crashID(prefix string, i int) string {
	if i%4 > 1 {
		return fmt.Sprintf("%s-%d-ends", prefix, i)
	}
	return fmt.Sprintf("%s-%d", prefix, i)
}

func ends(id string) bool { return strings.HasSuffix(id, "-ends") }

// runAgent is an agent in a process of its own, to be killed: it launches containers and tells, a line each, of those that
// run and of those that end.
func runAgent(role, dir string) int {
	fail := func(err error) int {
		fmt.Println("error", err)
		return 1
	}
	exe, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	p, err := process.New(process.Config{
		Dir: filepath.Join(dir, "sv"), Supervisor: []string{exe}, Env: []string{roleEnv + "=supervisor"}, RecoverWithin: time.Minute,
	})
	if err != nil {
		return fail(err)
	}
	cfg := Config{Dir: filepath.Join(dir, "ct"), Launcher: []string{exe, "container"}}
	if role == "agent" {
		cfg.Images = &fakeImages{layers: layersIn(dir), image: image.Image{Env: []string{"PATH=/bin"}}}
		if cfg.Networks, err = network.New(networkConfig(dir, slog.New(slog.DiscardHandler))); err != nil {
			return fail(err)
		}
	}
	c, err := New(cfg, p)
	if err != nil {
		return fail(err)
	}
	if _, err := c.Recover(context.Background()); err != nil {
		return fail(err)
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range c.Exits() {
			fmt.Println("exit", e.ID, e.Status, e.Known)
		}
	})
	launch := func(spec containerizer.Spec) {
		if k, err := c.Launch(context.Background(), spec); err == nil {
			fmt.Println("launched", spec.ID, k.PID)
		}
	}
	if role == "terminal" {
		sandbox := filepath.Join(dir, "sandbox-tty")
		_ = os.Mkdir(sandbox, 0o755)
		spec := crashSpec(sandbox, "tty", 0)
		spec.Args[2] = `while read line; do [ "$line" = size ] && stty size; echo "got $line"; [ "$line" = end ] && exit 4; done`
		spec.Stdout, spec.Container.TtyInfo = filepath.Join(sandbox, "stdout"), &mesos.TTYInfo{}
		launch(spec)
	} else {
		for i := range 8 {
			wg.Go(func() { launch(crashSpec(dir, crashID(fmt.Sprint(os.Getpid()), i), i)) })
		}
	}
	wg.Wait()
	return 0
}

// said is what an agent tells.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(text)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (n *node) startAgent(role string) (*exec.Cmd, *said) {
	n.t.Helper()
	out := new(said)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "STARLING_TEST_DIR="+n.dir)
	cmd.Stdout = out
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	return cmd, out
}

// figures are what came of all rounds.
type figures struct{ told, found, exits, unknown int }

func (f *figures) log(t *testing.T, rounds int) {
	t.Logf("%d kills: %d containers were told to run, %d found, %d exits told once each, %d with an unknown status", rounds, f.told, f.found, f.exits, f.unknown)
}

// An agent that is killed in the middle of launches, sometimes with its supervisor, loses none that it told of, and leaves
// nothing that the next does not know.
func TestAgentDiesDuringLaunches(t *testing.T) {
	if !alone(t, fmt.Sprint("-crashes=", *crashes)) {
		return
	}
	n := newNode(t)
	n.withBusybox()
	random := newRandom(t)
	var sum figures
	for round := range *crashes {
		cmd, out := n.startAgent("agent")
		// From before it is ready until after it has told of the last.
		if many := random.IntN(10) - 1; many >= 0 {
			waitFor(t, fmt.Sprint("an agent with ", many), func() bool {
				told := out.String()
				return strings.Contains(told, "ready") && strings.Count(told, "launched") >= many
			})
		}
		pause(t, random, 200*time.Millisecond)
		if round%4 > 1 {
			n.killSupervisor()
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		n.nextLife(fmt.Sprint("round ", round), out.String(), round%4 > 1, &sum)
	}
	sum.log(t, *crashes)
}

// nextLife begins a life after a crash, compares what it finds with what the last one told, and ends it all. Statuses may be
// lost where nobody was there to see an exit.
func (n *node) nextLife(what, told string, orphaned bool, sum *figures) {
	n.t.Helper()
	n.cfg.Networks = n.realNetworks()
	c := n.open()
	found, err := c.Recover(n.t.Context())
	if err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
	x := follow(n.t, c)
	byID := make(map[string]containerizer.Container)
	for _, k := range found {
		byID[k.ID] = k
	}
	for line := range strings.Lines(told) {
		var id string
		var pid, status int
		var known bool
		switch {
		case line == "ready\n":
		case scan(line, "launched %s %d", &id, &pid):
			sum.told++
			if k, ok := byID[id]; !ok || k.PID != pid || k.Exit != nil && !ends(id) {
				n.t.Errorf("%s: container %s was told with process %d, found is %+v", what, id, pid, k)
			}
		case scan(line, "exit %s %d %t", &id, &status, &known):
			if k, ok := byID[id]; ok && (k.Exit == nil || known && (!k.Exit.Known || k.Exit.Status != status)) {
				n.t.Errorf("%s: the exit of %s was told with status %d, found is %+v", what, id, status, k.Exit)
			}
		default:
			n.t.Errorf("%s: the agent said %q", what, line)
		}
	}
	for _, k := range found {
		sum.found++
		// What ends by itself is given the time.
		if !ends(k.ID) {
			if err := c.Destroy(n.t.Context(), k.ID); err != nil {
				n.t.Errorf("%s: %v", what, err)
			}
		}
		e := x.await(k.ID)
		sum.exits++
		switch {
		case !e.Known:
			sum.unknown++
			if !orphaned {
				n.t.Errorf("%s: the status of %s is not known", what, k.ID)
			}
		case ends(k.ID) && e.Status != 7<<8, !ends(k.ID) && e.Status != int(unix.SIGKILL):
			n.t.Errorf("%s: %s ended with %d", what, k.ID, e.Status)
		}
		waitFor(n.t, "removal", func() bool { return c.Remove(n.t.Context(), k.ID) == nil })
	}
	// What the last life's supervisor was still about to start comes to light and goes again.
	waitFor(n.t, "nothing but the supervisor to run", func() bool {
		for _, pid := range n.processes() {
			args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			if !strings.Contains(string(args), "--dir="+n.sv.Dir) {
				return false
			}
		}
		return true
	})
	for kind, left := range map[string]func() string{
		"folders":  func() string { return names(n.cfg.Dir) },
		"networks": func() string { return names(filepath.Join(n.dir, "net", "containers")) },
		"mounts":   func() string { return sh(n.t, "grep -F "+n.dir+" /proc/self/mountinfo || true") },
		"cgroups":  func() string { return sh(n.t, "find /sys/fs/cgroup -path '*/"+cgroupName(n.sv.Dir)+"/*' -name 'c-*'") },
		"devices":  func() string { return sh(n.t, "ip -o link show type veth") },
		"ports":    func() string { return sh(n.t, "iptables-save -t nat | grep -e '--dport 211' || true") },
	} {
		var now string
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			if now = left(); now == "" {
				break
			}
			if time.Now().After(deadline) {
				n.t.Fatalf("%s: %s are left: %s", what, kind, now)
			}
		}
	}
	if err := c.Close(); err != nil {
		n.t.Error(err)
	}
	<-x.Done
	for id, times := range x.Counts() {
		if times != 1 {
			n.t.Errorf("%s: the exit of %s was told %d times", what, id, times)
		}
	}
}

func scan(line, format string, into ...any) bool {
	_, err := fmt.Sscanf(line, format, into...)
	return err == nil
}

func names(dir string) string {
	entries, _ := os.ReadDir(dir)
	return fmt.Sprint(entries)[1 : len(fmt.Sprint(entries))-1]
}

func sh(t testing.TB, line string) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", line).CombinedOutput()
	if err != nil && !strings.HasPrefix(line, "find ") { // folders go while it looks
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return strings.TrimSpace(string(out))
}

// A supervisor that is killed in the middle of launches harms no container that runs, and what it was about to start runs
// under the next one, or not at all.
func TestSupervisorDiesDuringLaunches(t *testing.T) {
	if !alone(t, fmt.Sprint("-crashes=", *crashes)) {
		return
	}
	n := newNode(t)
	n.withBusybox()
	random := newRandom(t)
	var sum figures
	for round := range *crashes {
		n.cfg.Networks = n.realNetworks()
		c := n.open()
		if _, err := c.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		x := follow(t, c)
		steady, err := c.Launch(t.Context(), crashSpec(n.dir, fmt.Sprintf("steady-%d", round), 1))
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		told := fmt.Sprintln("launched", steady.ID, steady.PID)
		var ended []string
		var wg sync.WaitGroup
		for i := 2; i < 8; i++ {
			wg.Go(func() {
				id := crashID(fmt.Sprint("s", round), i)
				k, err := c.Launch(t.Context(), crashSpec(n.dir, id, i))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					told += fmt.Sprintln("launched", id, k.PID)
					if ends(id) {
						ended = append(ended, id)
					}
				}
			})
		}
		pause(t, random, 150*time.Millisecond)
		n.killSupervisor()
		wg.Wait()
		if !alive(steady.PID) {
			t.Errorf("container %s was harmed", steady.ID)
		}
		waitFor(t, "another supervisor", func() bool { return c.Check(t.Context()) == nil })
		for _, id := range ended {
			e := x.await(id)
			told += fmt.Sprintln("exit", id, e.Status, e.Known)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-x.Done
		n.nextLife(fmt.Sprint("round ", round), told, true, &sum)
	}
	sum.log(t, *crashes)
}

func (n *node) killSupervisor() {
	n.t.Helper()
	for _, pid := range n.processes() {
		args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		if strings.Contains(string(args), "--dir="+n.sv.Dir) {
			var number int
			_, _ = fmt.Sscan(pid, &number)
			_ = unix.Kill(number, unix.SIGKILL)
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func newRandom(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// pause lets a random time pass, up to a limit: the moment is what the test varies.
func pause(t *testing.T, random *rand.Rand, limit time.Duration) {
	timer := time.NewTimer(time.Duration(random.Int64N(int64(limit))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
