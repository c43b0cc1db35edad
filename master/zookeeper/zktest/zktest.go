// Package zktest runs real ZooKeeper servers for tests: those of Debian's package libzookeeper-java, one alone or several as an
// ensemble, each a process of its own that a test can stop, kill, freeze, wipe and start again.
//
// The servers are small (about 70 MB each) and quick: ticks of half a second, so that sessions of a second are granted. All
// of them end with the test, whatever became of them. Where ZooKeeper or Java is missing the test is skipped, with CI=true it
// fails.
package zktest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// jar names all other jars that it needs; logJar comes with it, and writes the log.
	jar    = "/usr/share/java/zookeeper.jar"
	logJar = "/usr/share/java/slf4j-simple.jar"
	// Patience is how long servers may take to answer after they were started: some seconds where nothing else runs.
	Patience = 90 * time.Second
	// DefaultTick is the length of a tick, which is also how exactly sessions expire.
	DefaultTick = 500 * time.Millisecond
)

// Options say how servers are run. The zero value is one server on loopback.
type Options struct {
	// Servers is how many there are; 0 is 1, which stands alone.
	Servers int
	// Address returns the IP address where server i, counted from 0, listens; nil: 127.0.0.1 for each.
	Address func(i int) string
	// Prefix returns what is put before the command of server i, such as "ip", "netns", "exec", NAME; nil: nothing. It must
	// become the server (exec), as signals go to it.
	Prefix func(i int) []string
	// Dial reaches the servers from the test; nil: directly.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Tick is the length of a tick; 0 is DefaultTick. Sessions last one at least, and a minute at most.
	Tick time.Duration
	// Sync makes the servers write to the disk what they promise to keep: for measurements. Without it they outlive kill -9,
	// though no power loss, and tests don't wait for the disk.
	Sync bool
}

// Ensemble is a number of servers that belong together.
type Ensemble struct {
	Servers []*Server

	t    testing.TB
	opts Options
	dir  string
}

// Need skips the test where there is no ZooKeeper to be run, and fails it with CI=true.
func Need(t testing.TB) {
	t.Helper()
	if err := missing(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func missing() error {
	if _, err := exec.LookPath("java"); err != nil {
		return fmt.Errorf("ZooKeeper takes Java (Debian: default-jre-headless): %w", err)
	}
	if _, err := os.Stat(jar); err != nil {
		return fmt.Errorf("ZooKeeper is not installed (Debian: libzookeeper-java): %w", err)
	}
	return nil
}

// Start starts servers, and returns when all of them answer.
func Start(t testing.TB, opts Options) *Ensemble {
	t.Helper()
	Need(t)
	if opts.Servers == 0 {
		opts.Servers = 1
	}
	if opts.Address == nil {
		opts.Address = func(int) string { return "127.0.0.1" }
	}
	if opts.Prefix == nil {
		opts.Prefix = func(int) []string { return nil }
	}
	if opts.Dial == nil {
		opts.Dial = new(net.Dialer).DialContext
	}
	if opts.Tick == 0 {
		opts.Tick = DefaultTick
	}
	e := &Ensemble{t: t, opts: opts, dir: t.TempDir()}
	for i := range opts.Servers {
		e.Servers = append(e.Servers, &Server{e: e, id: i + 1, dir: filepath.Join(e.dir, strconv.Itoa(i+1)), address: opts.Address(i)})
	}
	t.Cleanup(e.end)
	// A port that was free may be taken by the time a server comes to it: then others are tried.
	for try := 1; ; try++ {
		err := e.start()
		if err == nil {
			return e
		}
		if try == 3 || !errors.Is(err, errPort) {
			t.Fatal(err)
		}
		t.Logf("trying other ports: %v", err)
		for _, s := range e.Servers {
			s.kill()
		}
	}
}

func (e *Ensemble) start() error {
	for _, s := range e.Servers {
		for i := range s.ports {
			s.ports[i] = freePort(s.address)
		}
	}
	for _, s := range e.Servers {
		if err := s.configure(); err != nil {
			return err
		}
		if err := s.launch(); err != nil {
			return err
		}
	}
	return e.wait()
}

// freePort returns a port that nobody listens on. It is below those that the kernel gives to outgoing connections, and those of
// tasks: a server must find its port free again when it is restarted.
func freePort(address string) int {
	for {
		port := 15000 + rand.IntN(5000)
		l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return port
		}
		var taken *net.OpError
		if errors.As(err, &taken) && !strings.Contains(err.Error(), "in use") {
			return port // an address in another network namespace
		}
	}
}

// Hosts is the list of servers as clients want it: "127.0.0.1:20181,127.0.0.1:21181".
func (e *Ensemble) Hosts() string {
	var hosts []string
	for _, s := range e.Servers {
		hosts = append(hosts, s.Addr())
	}
	return strings.Join(hosts, ",")
}

// URL is the zk:// URL of a path, which begins with a slash.
func (e *Ensemble) URL(path string) string { return "zk://" + e.Hosts() + path }

// Wait waits until all servers that run answer, which takes a quorum, and fails the test if they don't.
func (e *Ensemble) Wait() {
	e.t.Helper()
	if err := e.wait(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *Ensemble) wait() error {
	deadline := time.Now().Add(Patience)
	for _, s := range e.Servers {
		if !s.Running() || s.paused {
			continue
		}
		if err := s.wait(deadline); err != nil {
			return err
		}
	}
	return nil
}

// Leader returns the server that leads the ensemble, a lone one included; nil where none does.
func (e *Ensemble) Leader() *Server {
	for _, s := range e.Servers {
		if mode := s.Mode(); mode == "leader" || mode == "standalone" {
			return s
		}
	}
	return nil
}

// AwaitLeader waits until a server leads the ensemble that is none of some.
func (e *Ensemble) AwaitLeader(but ...*Server) *Server {
	e.t.Helper()
	for deadline := time.Now().Add(Patience); ; <-time.After(50 * time.Millisecond) {
		if leader := e.Leader(); leader != nil && !slices.Contains(but, leader) {
			return leader
		}
		if time.Now().After(deadline) {
			e.t.Fatal("no server of ZooKeeper leads")
		}
	}
}

// Kill kills all servers, as kill -9 does.
func (e *Ensemble) Kill() {
	for _, s := range e.Servers {
		s.Kill()
	}
}

// Start starts all servers that don't run, and waits until they answer.
func (e *Ensemble) Start() {
	e.t.Helper()
	for _, s := range e.Servers {
		if !s.Running() {
			if err := s.launch(); err != nil {
				e.t.Fatal(err)
			}
		}
	}
	e.Wait()
}

// Wipe removes what the servers have kept; they must not run.
func (e *Ensemble) Wipe() {
	e.t.Helper()
	for _, s := range e.Servers {
		s.Wipe()
	}
}

// end kills what runs, and shows the logs of a test that failed.
func (e *Ensemble) end() {
	e.Kill()
	if !e.t.Failed() {
		return
	}
	for _, s := range e.Servers {
		e.t.Logf("log of ZooKeeper server %d:\n%s", s.id, s.log(8<<10))
	}
}

// ask sends one of the four-letter words to a server, and returns its answer.
func (e *Ensemble) ask(address, word string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := e.opts.Dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(c, 1<<20))
	return string(answer), err
}

// Expire ends the session that owns the first of the ephemeral nodes whose paths begin with prefix, as the servers do with one of
// which they heard nothing: its client learns it from them, by and by.
func (e *Ensemble) Expire(prefix string) {
	e.t.Helper()
	leader := e.Leader()
	if leader == nil {
		e.t.Fatal("no server leads")
	}
	dump, err := leader.Ask("dump")
	if err != nil {
		e.t.Fatal(err)
	}
	first, owner := "", int64(0)
	var session int64
	for line := range strings.Lines(dump) {
		line = strings.TrimSpace(line)
		if id, err := strconv.ParseInt(strings.TrimSuffix(line, ":"), 0, 64); err == nil {
			session = id
		} else if strings.HasPrefix(line, prefix) && (first == "" || line < first) {
			first, owner = line, session
		}
	}
	if first == "" {
		e.t.Fatalf("no ephemeral node begins with %q:\n%s", prefix, dump)
	}
	if err := e.endSession(leader.Addr(), owner); err != nil {
		e.t.Fatalf("cannot end session %#x: %v", owner, err)
	}
}

// endSession closes a session. Its password follows from its number, for whoever knows ZooKeeper's constant.
func (e *Ensemble) endSession(address string, session int64) error {
	password := javaRandom(session^0xB3415C00, 16)
	greeting := binary.BigEndian.AppendUint64(nil, uint64(session))
	greeting = binary.BigEndian.AppendUint32(greeting, uint32(len(password)))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := e.opts.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	return closeSession(c, append(greeting, password...))
}

// javaRandom returns the first bytes of java.util.Random with a seed.
func javaRandom(seed int64, n int) []byte {
	const multiplier, mask = 0x5DEECE66D, 1<<48 - 1
	state := (seed ^ multiplier) & mask
	var out []byte
	for len(out) < n {
		state = (state*multiplier + 0xB) & mask
		for word := int32(state >> 16); len(out) < n; word >>= 8 {
			out = append(out, byte(word))
			if len(out)%4 == 0 {
				break
			}
		}
	}
	return out
}
