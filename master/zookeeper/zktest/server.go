package zktest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errPort is the end of a server that found its port taken.
var errPort = errors.New("port is in use")

// Server is one server of an ensemble. Its methods are called from one goroutine at a time.
type Server struct {
	e       *Ensemble
	id      int // from 1
	dir     string
	address string
	ports   [3]int // for clients, for followers, for elections

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	paused bool
}

// configure writes the files of a server.
func (s *Server) configure() error {
	o := s.e.opts
	var b strings.Builder
	fmt.Fprintf(&b, "tickTime=%d\ninitLimit=20\nsyncLimit=6\n", o.Tick.Milliseconds())
	fmt.Fprintf(&b, "minSessionTimeout=%d\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n", o.Tick.Milliseconds())
	fmt.Fprintf(&b, "dataDir=%s\nclientPort=%d\nclientPortAddress=%s\n", s.data(), s.ports[0], s.address)
	// The administration's HTTP server would want the same port for each.
	fmt.Fprintf(&b, "admin.enableServer=false\n4lw.commands.whitelist=*\n")
	if len(s.e.Servers) > 1 {
		for _, o := range s.e.Servers {
			fmt.Fprintf(&b, "server.%d=%s:%d\n", o.id, net.JoinHostPort(o.address, strconv.Itoa(o.ports[1])), o.ports[2])
		}
	}
	if err := os.MkdirAll(s.data(), 0o700); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(s.dir, "zoo.cfg"), []byte(b.String()), 0o600),
		os.WriteFile(filepath.Join(s.data(), "myid"), []byte(strconv.Itoa(s.id)), 0o600),
	)
}

func (s *Server) data() string    { return filepath.Join(s.dir, "data") }
func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// Addr is where clients find the server, as "IP:port".
func (s *Server) Addr() string { return net.JoinHostPort(s.address, strconv.Itoa(s.ports[0])) }

// launch starts the process, and does not wait for it.
func (s *Server) launch() error {
	if err := s.dropHeadless(); err != nil {
		return err
	}
	out, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own
	args := append(s.e.opts.Prefix(s.id-1),
		"java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=false",
		"-Dzookeeper.jmx.log4j.disable=true", "-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-Dorg.slf4j.simpleLogger.showShortLogName=true")
	if !s.e.opts.Sync {
		args = append(args, "-Dzookeeper.forceSync=no")
	}
	args = append(args, "-cp", jar+":"+logJar, "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(s.dir, "zoo.cfg"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, out
	cmd.SysProcAttr = attributes()
	if err := launcher()(cmd); err != nil {
		return fmt.Errorf("cannot start ZooKeeper: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended does not matter: its log says why
		close(ended)
	}()
	s.cmd, s.ended, s.paused = cmd, ended, false
	return nil
}

// logHead is the size in bytes of what a log of transactions begins with.
const logHead = 16

// dropHeadless removes logs that have not even that: the server was killed as it began one, and refuses to start with it.
// Nothing was promised of what was to be in there.
func (s *Server) dropHeadless() error {
	logs, err := filepath.Glob(filepath.Join(s.data(), "version-2", "log.*"))
	if err != nil {
		return err
	}
	for _, log := range logs {
		info, err := os.Stat(log)
		if err == nil && info.Size() < logHead {
			err = os.Remove(log)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// launcher returns what starts processes on one thread that stays: a process would end with the thread that started it, and
// tests that enter network namespaces give up threads of the pool.
var launcher = sync.OnceValue(func() func(*exec.Cmd) error {
	type request struct {
		cmd  *exec.Cmd
		done chan error
	}
	requests := make(chan request)
	go func() {
		runtime.LockOSThread() // never unlocked, and the loop never ends
		for r := range requests {
			r.done <- r.cmd.Start()
		}
	}()
	return func(cmd *exec.Cmd) error {
		r := request{cmd, make(chan error)}
		requests <- r
		return <-r.done
	}
})

// wait waits until the server answers clients, which takes a quorum.
func (s *Server) wait(deadline time.Time) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for s.Mode() == "" {
		select {
		case <-s.ended:
			log := s.log(4 << 10)
			if strings.Contains(log, "Address already in use") {
				return fmt.Errorf("ZooKeeper server %d at %s: %w", s.id, s.Addr(), errPort)
			}
			return fmt.Errorf("ZooKeeper server %d ended:\n%s", s.id, log)
		case <-tick.C:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("ZooKeeper server %d at %s does not answer", s.id, s.Addr())
		}
	}
	return nil
}

// Mode is what the server says of itself: "leader", "follower" or "standalone"; empty where it serves nobody.
func (s *Server) Mode() string {
	if !s.Running() || s.paused {
		return ""
	}
	answer, err := s.e.ask(s.Addr(), "srvr")
	if err != nil {
		return ""
	}
	_, mode, _ := strings.Cut(answer, "Mode: ")
	mode, _, _ = strings.Cut(mode, "\n")
	return mode
}

// Ask sends one of ZooKeeper's four-letter words, such as mntr, cons or dump, and returns the answer.
func (s *Server) Ask(word string) (string, error) { return s.e.ask(s.Addr(), word) }

// Running tells whether the process runs, a frozen one included.
func (s *Server) Running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Start starts a server that does not run, and does not wait until it answers: it may take others to do so.
func (s *Server) Start() {
	s.e.t.Helper()
	if s.Running() {
		s.e.t.Fatalf("ZooKeeper server %d runs already", s.id)
	}
	if err := s.launch(); err != nil {
		s.e.t.Fatal(err)
	}
}

// Wait waits until the server answers clients, and fails the test if it doesn't.
func (s *Server) Wait() {
	s.e.t.Helper()
	if err := s.wait(time.Now().Add(Patience)); err != nil {
		s.e.t.Fatal(err)
	}
}

// Stop ends a server in order, as its unit does, and waits for its end.
func (s *Server) Stop() {
	s.e.t.Helper()
	s.signal(syscall.SIGTERM)
	if s.cmd == nil {
		return
	}
	select {
	case <-s.ended:
	case <-time.After(Patience):
		s.e.t.Fatalf("ZooKeeper server %d does not end", s.id)
	}
}

// Kill kills a server, if it runs, and waits for its end.
func (s *Server) Kill() { s.kill() }

func (s *Server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // an error says that it has ended
		<-s.ended
	}
}

// Restart kills a server, starts it again and waits until it answers.
func (s *Server) Restart() {
	s.e.t.Helper()
	s.Kill()
	s.Start()
	s.Wait()
}

// Pause freezes a server: its connections stay open and nothing answers.
func (s *Server) Pause() {
	s.e.t.Helper()
	s.signal(syscall.SIGSTOP)
	s.paused = true
}

// Resume lets a frozen server go on.
func (s *Server) Resume() {
	s.e.t.Helper()
	s.signal(syscall.SIGCONT)
	s.paused = false
}

func (s *Server) signal(sig syscall.Signal) {
	s.e.t.Helper()
	if !s.Running() {
		return
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.e.t.Fatalf("cannot signal ZooKeeper server %d: %v", s.id, err)
	}
}

// Wipe removes what the server has kept, as a new disk does. It must not run.
func (s *Server) Wipe() {
	s.e.t.Helper()
	if s.Running() {
		s.e.t.Fatalf("ZooKeeper server %d runs", s.id)
	}
	if err := os.RemoveAll(filepath.Join(s.data(), "version-2")); err != nil {
		s.e.t.Fatal(err)
	}
}

// log returns the last bytes of the server's log, or why there are none.
func (s *Server) log(last int) string {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-last):])
}
