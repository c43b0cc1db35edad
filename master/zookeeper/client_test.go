package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"starling/master/zookeeper/zktest"
)

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// The arithmetic of leases, in virtual time.
func TestALeaseEndsAtTwoThirdsOfTheTimeoutAfterTheLastHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(Fake)
		u, err := Parse("zk://h/x")
		must(t, err)
		c, err := f.New(Config{URL: u, SessionTimeout: 12 * time.Second})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		lease, err := c.Hold(ctx)
		must(t, err)
		time.Sleep(time.Hour)
		if !lease.Valid() {
			t.Fatalf("the lease ended while all was well: %v", lease.Err())
		}
		cut := time.Now()
		f.Disconnect(c)
		<-lease.Done()
		// The last heartbeat was up to an eighth of the timeout earlier.
		if after := time.Since(cut); after > 8*time.Second || after < 6500*time.Millisecond {
			t.Errorf("the lease ended after %v, want 6.5 to 8 s", after)
		}
		time.Sleep(time.Second)
		f.Reconnect(c)
		synctest.Wait()
		if session, _ := c.Session(); session != lease.Session() {
			t.Errorf("want session %#x to go on, got %#x", lease.Session(), session)
		}
		if lease.Valid() {
			t.Error("a lost lease came back with its session")
		}
		again, err := c.Hold(ctx)
		must(t, err)
		// What a process sees that was frozen: the time has run out, and no timer has fired yet.
		c.mu.Lock()
		again.timer.Stop()
		again.end = time.Now()
		c.mu.Unlock()
		if again.Valid() {
			t.Error("a lease whose time has run out is valid")
		}
		select {
		case <-again.Done():
		default:
			t.Error("asking ends a lease whose time has run out")
		}
		cancel()
		must(t, <-done)
	})
}

// Z4: where disks are slow a heartbeat has no answer in time. The lease goes on by the session that the next connection is given
// back, and ends as ever when there is none.
func TestALeaseOutlivesSlowDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(Fake)
		u, err := Parse("zk://h/x")
		must(t, err)
		c, err := f.New(Config{URL: u, SessionTimeout: 12 * time.Second})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		lease, err := c.Hold(ctx)
		must(t, err)
		f.Slow(true)
		time.Sleep(time.Hour)
		if !lease.Valid() {
			t.Fatalf("the lease ended though each connection was given the session back: %v", lease.Err())
		}
		cut := time.Now()
		f.Disconnect(c)
		<-lease.Done()
		// The last connection was up to a quarter and an eighth of the timeout earlier.
		if after := time.Since(cut); after > 8*time.Second || after < 3500*time.Millisecond {
			t.Errorf("the lease ended after %v, want 3.5 to 8 s", after)
		}
		f.Reconnect(c)
		synctest.Wait()
		if lease.Valid() {
			t.Error("a lost lease came back with a connection")
		}
		f.Slow(false)
		again, err := c.Hold(ctx)
		must(t, err)
		f.Slow(true)
		f.Expire(c) // the next connection is given another session
		<-again.Done()
		cancel()
		must(t, <-done)
	})
}

// lines is a log that a test may read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAServerThatIsNotThereIsLoggedOnceAndTheReasonTold(t *testing.T) {
	u, err := Parse("zk://user:hunter2@127.0.0.1:1/mesos") // nobody is given that port
	must(t, err)
	var log lines
	c, err := New(Config{URL: u, SessionTimeout: sessionTimeout, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	run(t, c, err)
	for deadline := time.Now().Add(patience); strings.Count(log.String(), "failed to connect") < 4; {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err = c.Wait(ctx)
		cancel()
		if time.Now().After(deadline) {
			t.Fatal("it does not go on trying")
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("want an error that tells why, got %v", err)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("want one warning, got %d:\n%s", n, log.String())
	}
	if strings.Contains(log.String()+err.Error(), "hunter2") {
		t.Errorf("the password is shown: %v\n%s", err, log.String())
	}
}

func TestTheLogTellsOfSessionsAndOfTroubleThatEnded(t *testing.T) {
	e := zktest.Start(t, zktest.Options{})
	p := zktest.NewProxy(t, e)
	u, err := Parse("zk://" + p.Addr() + "/mesos")
	must(t, err)
	var log lines
	c, err := New(Config{URL: u, SessionTimeout: 100 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))})
	run(t, c, err)
	ctx := soon(t)
	must(t, c.Wait(ctx))
	expect := func(what string, n int) {
		t.Helper()
		if got := strings.Count(log.String(), what); got != n {
			t.Errorf("want %q logged %d times, got %d:\n%s", what, n, got, log.String())
		}
	}
	expect("level=INFO", 1)
	expect(`msg="ZooKeeper bounds the session timeout" component=zookeeper asked=1m40s timeout=1m0s`, 1)
	for range 3 {
		p.Cut()
		for give := true; give; { // until the client has noticed
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			give = c.Wait(short) == nil
			cancel()
			must(t, ctx.Err())
		}
		p.Heal()
		must(t, c.Wait(ctx))
	}
	expect("connection to ZooKeeper lost", 1) // the others were too soon
	expect("level=INFO", 2)
	expect("bounds", 1)
}

func TestAServerOfIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	l.Close()
	e := zktest.Start(t, zktest.Options{Address: func(int) string { return "::1" }})
	u, err := Parse(e.URL("/mesos"))
	must(t, err)
	c, err := New(Config{URL: u, SessionTimeout: sessionTimeout, Log: testLog(t)})
	run(t, c, err)
	must(t, c.MakePath(soon(t), Public))
}

func TestAServerThatDoesNotAnswerIsLeftForOneThatDoes(t *testing.T) {
	e := zktest.Start(t, zktest.Options{})
	dead, good := zktest.NewProxy(t, e), zktest.NewProxy(t, e)
	dead.Stall()
	u, err := Parse("zk://" + dead.Addr() + "," + dead.Addr() + "," + good.Addr() + "/mesos")
	must(t, err)
	c, err := New(Config{URL: u, SessionTimeout: 15 * time.Second, Log: testLog(t)})
	run(t, c, err)
	ctx := soon(t)
	must(t, c.MakePath(ctx, Public))
	lease, err := c.Hold(ctx)
	must(t, err)
	// Silence of the connection that is in use: the lease goes on by another.
	dead.Heal()
	good.Stall()
	for err := errors.New("none"); err != nil; {
		give, cancel := context.WithTimeout(ctx, time.Second)
		err = c.Sync(give)
		cancel()
		must(t, ctx.Err())
	}
	if !lease.Valid() {
		t.Errorf("the lease ended: %v", lease.Err())
	}
}

func TestNodesBelongToTheirCredentials(t *testing.T) {
	e := zktest.Start(t, zktest.Options{})
	open := func(auth string) *Client {
		u, err := Parse("zk://" + auth + e.Hosts() + "/mesos")
		must(t, err)
		c, err := New(Config{URL: u, SessionTimeout: sessionTimeout, Log: testLog(t)})
		return run(t, c, err)
	}
	ctx := soon(t)
	owner, other, nobody := open("user:pass@"), open("user:guess@"), open("")
	must(t, owner.MakePath(ctx, Public))
	_, err := owner.Create(ctx, "public", []byte("1"), Persistent, Public)
	must(t, err)
	_, err = owner.Create(ctx, "private", []byte("1"), Persistent, Private)
	must(t, err)
	for _, c := range []*Client{other, nobody} {
		data, _, err := c.Get(ctx, "public")
		if err != nil || string(data) != "1" {
			t.Errorf("want to read a public node, got %q (%v)", data, err)
		}
		_, _, err = c.Get(ctx, "private")
		refused(t, err, ErrNoAuth)
		_, err = c.Create(ctx, "x", nil, Persistent, Public)
		refused(t, err, ErrNoAuth)
		must(t, c.MakePath(ctx, Public)) // it is there
		refused(t, c.Delete(ctx, "public", Any), ErrNoAuth)
	}
	data, _, err := open("user:pass@").Get(ctx, "private")
	if err != nil || string(data) != "1" {
		t.Errorf("want to read one's own node, got %q (%v)", data, err)
	}
}
