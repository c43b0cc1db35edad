package zkelection

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"starling/master/election"
	"starling/master/store/storetest"
	"starling/master/store/zkstore"
	"starling/master/zookeeper"
	"starling/master/zookeeper/zktest"
)

// contenderURL is set in the environment of a process that is a contender of a test, and contenderSession to how long its
// session lasts.
const (
	contenderURL     = "STARLING_TEST_CONTENDER"
	contenderSession = "STARLING_TEST_CONTENDER_SESSION"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(contenderURL); url != "" {
		if err := contend(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// contend stands for election for ever. While it leads, it works: it writes lines of its epoch and the time, as fast as it can.
func contend(url string) error {
	u, err := zookeeper.Parse(url)
	if err != nil {
		return err
	}
	timeout, err := time.ParseDuration(os.Getenv(contenderSession))
	if err != nil {
		return err
	}
	client, err := zookeeper.New(zookeeper.Config{URL: u, SessionTimeout: timeout})
	if err != nil {
		return err
	}
	ctx := context.Background()
	go client.Run(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // which ends with the test, however that ends
		os.Exit(0)
	}()
	c := New(Config{Client: client, Store: zkstore.New(client)})
	return c.Run(ctx, candidate("process"), func(ctx context.Context, term election.Term) error {
		for ctx.Err() == nil {
			at := time.Now().UnixNano()
			// Asked between the time and the work: work with a time of after the thaw was begun without a lease.
			if term.Holds() == nil {
				fmt.Println(term.Epoch, at)
			}
		}
		return nil
	})
}

// process is a contender in a process of its own.
type process struct {
	cmd  *exec.Cmd
	term atomic.Uint64 // the epoch of its last work

	mu   sync.Mutex
	last map[uint64]int64 // when it worked last in each term, Unix nanoseconds
}

func startProcess(t testing.TB, url string, session time.Duration) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0]), last: make(map[uint64]int64)}
	p.cmd.Env = append(os.Environ(), contenderURL+"="+url, contenderSession+"="+session.String())
	p.cmd.Stderr = os.Stderr
	_, err := p.cmd.StdinPipe() // closed by Wait
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, p.cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var epoch uint64
			var at int64
			if n, _ := fmt.Sscan(lines.Text(), &epoch, &at); n == 2 {
				p.mu.Lock()
				p.last[epoch] = at
				p.mu.Unlock()
				p.term.Store(epoch)
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may be dead already
		<-read
		_ = p.cmd.Wait()
	})
	return p
}

func TestAFrozenLeaderDoesNothingAfterItsThaw(t *testing.T) {
	e := zktest.Start(t, zktest.Options{})
	p := startProcess(t, e.URL("/mesos"), slowSession)
	await(t, "the process to lead", func() bool { return p.term.Load() == 1 })

	u := parse(t, e.URL("/mesos"))
	client, err := zookeeper.New(zookeeper.Config{URL: u, SessionTimeout: slowSession})
	runClient(t, client, err)
	two := stand(t, client, zkstore.New(client), "two")
	until(t, NewDetector(client, nil), nil, "process")

	must(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	if l := two.leads(); l.term.Epoch != 2 {
		t.Errorf("want epoch 2, got %d", l.term.Epoch)
	}
	thawed := time.Now().UnixNano()
	must(t, p.cmd.Process.Signal(syscall.SIGCONT))
	// It leads again when the other has gone; until then it must not have worked.
	two.stop()
	await(t, "the process to lead again", func() bool { return p.term.Load() > 1 })
	p.mu.Lock()
	last := p.last[1]
	p.mu.Unlock()
	if last >= thawed {
		t.Errorf("it worked %v after its thaw, in a term that was over", time.Duration(last-thawed))
	}
	if epoch := p.term.Load(); epoch != 3 {
		t.Errorf("want epoch 3, got %d", epoch)
	}
}

// BenchmarkKill measures how long nobody leads after a leader's process was killed, with a session of 2 s. Budget: 3 s.
func BenchmarkKill(b *testing.B) {
	e := zktest.Start(b, zktest.Options{Servers: 3})
	var all []time.Duration
	for b.Loop() {
		path := fmt.Sprintf("/mesos%d", len(all))
		p := startProcess(b, e.URL(path), sessionTimeout)
		await(b, "the process to lead", func() bool { return p.term.Load() == 1 })
		client, err := zookeeper.New(zookeeper.Config{URL: parse(b, e.URL(path)), SessionTimeout: sessionTimeout})
		runClient(b, client, err)
		two := stand(b, client, new(storetest.Fake), "two")
		until(b, NewDetector(client, nil), nil, "process")
		must(b, p.cmd.Process.Kill())
		killed := time.Now()
		all = append(all, two.leads().at.Sub(killed))
		two.stop()
	}
	report(b, all)
}

// lines is a log whose lines can be waited for.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default: // the test has seen enough
	}
	return len(line), nil
}

func TestWrongCredentialsAreNamed(t *testing.T) {
	e := zktest.Start(t, zktest.Options{})
	open := func(credentials string) *zookeeper.Client {
		client, err := zookeeper.New(zookeeper.Config{URL: parse(t, "zk://"+credentials+"@"+e.Hosts()+"/mesos"), SessionTimeout: slowSession})
		runClient(t, client, err)
		return client
	}
	owner := open("user:pass")
	stand(t, owner, zkstore.New(owner), "owner").leads()
	told, other := make(lines, 64), open("user:guess")
	st := stander{t: t, client: other, terms: make(chan leading, 16)}
	st.run(New(Config{Client: other, Store: zkstore.New(other), Log: slog.New(slog.NewTextHandler(told, nil))}), "other")
	late := time.After(patience)
	for {
		select {
		case line := <-told:
			if strings.Contains(line, "guess") {
				t.Fatalf("the log tells the password: %s", line)
			}
			if strings.Contains(line, "user and password") {
				return
			}
		case <-late:
			t.Fatal("the log does not tell that the credentials are wrong")
		}
	}
}

func TestRealServersMayFailInAnyWay(t *testing.T) {
	e := zktest.Start(t, zktest.Options{})
	e.Kill() // not there at the start
	client, err := zookeeper.New(zookeeper.Config{URL: parse(t, e.URL("/some/mesos")), SessionTimeout: slowSession})
	runClient(t, client, err)
	var heard atomic.Uint64
	one := stander{t: t, client: client, terms: make(chan leading, 16)}
	one.run(New(Config{Client: client, Store: zkstore.New(client), Heard: heard.Load, Log: testLog(t)}), "one")
	d := NewDetector(client, nil)
	epoch := uint64(0)
	for _, happens := range []func(){
		func() {},
		func() { e.Kill() },
		func() { e.Kill(); e.Wipe() },
	} {
		happens()
		if epoch > 0 {
			over(t, one.last)
		}
		e.Start()
		if one.last = one.leads(); one.last.term.Epoch != epoch+1 {
			t.Errorf("want epoch %d, got %d", epoch+1, one.last.term.Epoch)
		}
		epoch = one.last.term.Epoch
		heard.Store(epoch)
		until(t, d, nil, "one")
	}
	names, err := client.Children(soon(t), "")
	must(t, err)
	if all := members(names); len(all) != 1 || all[0].name != "json.info_0000000000" {
		t.Errorf("want one node, got %q", names)
	}
}
