package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/master/zookeeper/zktest"
)

// ensemble is what the suite runs on: the fake, or real servers behind a proxy a client.
type ensemble interface {
	// client returns one that runs, and what breaks its connection.
	client(t *testing.T, timeout time.Duration) (*Client, link)
	stop()
	start()
	wipe() // between stop and start
}

type link interface {
	cut()
	heal()
	expire()
}

// patience is how long something may take that has to happen.
const patience = zktest.Patience

// Sessions of sessionTimeout are to expire in a test, or to be given up; those of longSession are not, however slow the
// machine is.
const (
	sessionTimeout = 4 * time.Second
	longSession    = 30 * time.Second
)

func TestOnTheFake(t *testing.T) {
	suite(t, func(*testing.T) ensemble { return &fakeEnsemble{f: new(Fake)} })
}

func TestOnRealServers(t *testing.T) {
	zktest.Need(t)
	servers := zktest.Start(t, zktest.Options{})
	suite(t, func(t *testing.T) ensemble {
		return &realEnsemble{servers, "/" + strings.Map(func(r rune) rune {
			if r < 'a' || r > 'z' {
				return '-'
			}
			return r
		}, strings.ToLower(t.Name()))}
	})
}

func run(t *testing.T, c *Client, err error) *Client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: want no error, got %v", err)
			}
		case <-time.After(patience):
			t.Error("the client does not end")
		}
	})
	return c
}

type fakeEnsemble struct{ f *Fake }

type fakeLink struct {
	f *Fake
	c *Client
}

func (e *fakeEnsemble) client(t *testing.T, timeout time.Duration) (*Client, link) {
	u, err := Parse("zk://h1/a/b")
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.f.New(Config{URL: u, SessionTimeout: timeout})
	return run(t, c, err), fakeLink{e.f, c}
}

func (e *fakeEnsemble) stop()  { e.f.Stop() }
func (e *fakeEnsemble) start() { e.f.Start() }
func (e *fakeEnsemble) wipe()  { e.f.Wipe() }
func (l fakeLink) cut()        { l.f.Disconnect(l.c) }
func (l fakeLink) heal()       { l.f.Reconnect(l.c) }
func (l fakeLink) expire()     { l.f.Expire(l.c) }

type realEnsemble struct {
	e    *zktest.Ensemble
	path string
}

type realLink struct{ *zktest.Proxy }

func (e *realEnsemble) client(t *testing.T, timeout time.Duration) (*Client, link) {
	p := zktest.NewProxy(t, e.e)
	u, err := Parse("zk://user:pass@" + p.Addr() + e.path + "/b")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{URL: u, SessionTimeout: timeout, Log: testLog(t)})
	return run(t, c, err), realLink{p}
}

func (e *realEnsemble) stop()  { e.e.Kill() }
func (e *realEnsemble) start() { e.e.Start() }
func (e *realEnsemble) wipe()  { e.e.Wipe() }
func (l realLink) cut()        { l.Cut() }
func (l realLink) heal()       { l.Heal() }
func (l realLink) expire()     { l.Expire() }

func suite(t *testing.T, open func(t *testing.T) ensemble) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, ensemble)
	}{
		{"nodes are made, read, listed and deleted", nodes},
		{"transactions do all or nothing", transactions},
		{"watches tell of changes", watches},
		{"sequential nodes count up, and ephemeral ones go with their session", ephemerals},
		{"an expired session is replaced, and its leases end", expired},
		{"a lease outlives a short cut", leases},
		{"a lease ends before a session does that is cut off for long", endings},
		{"calls wait for a connection, and end with their context", waiting},
		{"servers that stop and come back keep sessions", stopped},
		{"servers that come back empty begin anew", wiped},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("want %v, got %v", want, err)
	}
}

// begin returns a client, its link, and a context for the test.
func begin(t *testing.T, e ensemble, timeout time.Duration) (*Client, link, context.Context) {
	t.Helper()
	c, l := e.client(t, timeout)
	ctx := soon(t)
	must(t, c.MakePath(ctx, Public))
	return c, l, ctx
}

func nodes(t *testing.T, e ensemble) {
	c, _, ctx := begin(t, e, longSession)
	must(t, c.MakePath(ctx, Private, "x", "x/y"))
	must(t, c.MakePath(ctx, Private, "x", "x/y")) // again
	name, err := c.Create(ctx, "x/y/z", []byte("1"), Persistent, Private)
	must(t, err)
	if name != "x/y/z" {
		t.Errorf("want x/y/z, got %q", name)
	}
	_, err = c.Create(ctx, "x/y/z", nil, Persistent, Private)
	refused(t, err, ErrNodeExists)
	_, err = c.Create(ctx, "none/z", nil, Persistent, Private)
	refused(t, err, ErrNoNode)
	data, stat, err := c.Get(ctx, "x/y/z")
	if err != nil || string(data) != "1" || stat.Version != 0 {
		t.Errorf("want 1 in version 0, got %q in version %d (%v)", data, stat.Version, err)
	}
	names, err := c.Children(ctx, "x")
	if err != nil || !slices.Equal(names, []string{"y"}) {
		t.Errorf("want y, got %q (%v)", names, err)
	}
	refused(t, c.Delete(ctx, "x/y", Any), ErrNotEmpty)
	refused(t, c.Delete(ctx, "x/y/z", 7), ErrBadVersion)
	must(t, c.Delete(ctx, "x/y/z", 0))
	refused(t, c.Delete(ctx, "x/y/z", Any), ErrNoNode)
	_, _, err = c.Get(ctx, "x/y/z")
	refused(t, err, ErrNoNode)
	_, err = c.Children(ctx, "x/y/z")
	refused(t, err, ErrNoNode)
	if _, there, err := c.Stat(ctx, "x/y/z"); there || err != nil {
		t.Errorf("the node is there after it was deleted (%v)", err)
	}
	must(t, c.Sync(ctx))
}

func transactions(t *testing.T, e ensemble) {
	c, _, ctx := begin(t, e, longSession)
	_, err := c.Multi(ctx, CreateOp("one", []byte("1"), Private), CreateOp("two", []byte("1"), Public))
	must(t, err)
	_, err = c.Multi(ctx, SetOp("one", []byte("2"), 0), SetOp("two", []byte("2"), 1))
	refused(t, err, ErrBadVersion)
	_, err = c.Multi(ctx, SetOp("one", []byte("2"), 0), CheckOp("two", 1))
	refused(t, err, ErrBadVersion)
	_, err = c.Multi(ctx, SetOp("one", []byte("2"), 0), CreateOp("two", nil, Public))
	refused(t, err, ErrNodeExists)
	_, err = c.Multi(ctx, SetOp("one", []byte("2"), 0), DeleteOp("three", Any))
	refused(t, err, ErrNoNode)
	versions, err := c.Multi(ctx, SetOp("one", []byte("2"), 0), CheckOp("two", 0), CreateOp("three", nil, Public))
	if err != nil || !slices.Equal(versions, []int32{1, 0, 0}) {
		t.Errorf("want versions 1, 0, 0, got %v (%v)", versions, err)
	}
	_, err = c.Multi(ctx, DeleteOp("one", 1), DeleteOp("two", Any), DeleteOp("three", 0))
	must(t, err)
	if names, err := c.Children(ctx, ""); err != nil || len(names) > 0 {
		t.Errorf("want nothing, got %q (%v)", names, err)
	}
}

func fires(t *testing.T, ctx context.Context, what string, watch <-chan Event) {
	t.Helper()
	select {
	case <-watch:
	case <-ctx.Done():
		t.Fatalf("the watch of %s does not fire", what)
	}
}

func watches(t *testing.T, e ensemble) {
	c, _, ctx := begin(t, e, longSession)
	other, _ := e.client(t, longSession)
	_, there, made, err := c.Watch(ctx, "x")
	if must(t, err); there {
		t.Error("a node is there that nobody made")
	}
	names, came, err := c.WatchChildren(ctx, "")
	if must(t, err); len(names) > 0 {
		t.Errorf("want no children, got %q", names)
	}
	_, err = other.Create(ctx, "x", nil, Ephemeral, Public)
	must(t, err)
	fires(t, ctx, "a node that is made", made)
	fires(t, ctx, "a child that comes", came)
	_, there, gone, err := c.Watch(ctx, "x")
	if must(t, err); !there {
		t.Error("the node is not there")
	}
	must(t, other.Delete(ctx, "x", Any))
	fires(t, ctx, "a node that is deleted", gone)
	_, _, err = c.WatchChildren(ctx, "none")
	refused(t, err, ErrNoNode)
}

func ephemerals(t *testing.T, e ensemble) {
	c, l, ctx := begin(t, e, sessionTimeout)
	other, _ := e.client(t, longSession)
	first, err := c.Create(ctx, "n_", nil, EphemeralSequential, Public)
	must(t, err)
	second, err := other.Create(ctx, "n_", nil, EphemeralSequential, Public)
	must(t, err)
	if len(first) != len("n_0000000000") || first >= second {
		t.Errorf("want growing numbers of ten digits, got %q and %q", first, second)
	}
	session, timeout := c.Session()
	stat, there, err := other.Stat(ctx, first)
	if err != nil || !there || stat.EphemeralOwner != session || session == 0 {
		t.Errorf("want a node of session %#x, got one of %#x (%v)", session, stat.EphemeralOwner, err)
	}
	if timeout != sessionTimeout {
		t.Errorf("want a timeout of %v, got %v", sessionTimeout, timeout)
	}
	_, there, gone, err := other.Watch(ctx, first)
	if must(t, err); !there {
		t.Fatal("the node is not there")
	}
	l.cut()
	fires(t, ctx, "a node whose session expires", gone)
	l.heal()
	for now, _ := c.Session(); now == session || now == 0; now, _ = c.Session() {
		must(t, c.Wait(ctx))
		must(t, ctx.Err())
	}
}

func expired(t *testing.T, e ensemble) {
	c, l, ctx := begin(t, e, longSession)
	name, err := c.Create(ctx, "x", nil, Ephemeral, Public)
	must(t, err)
	lease, err := c.Hold(ctx)
	must(t, err)
	if session, _ := c.Session(); lease.Session() != session || !lease.Valid() || lease.Err() != nil {
		t.Errorf("want a valid lease of session %#x, got one of %#x: %v", session, lease.Session(), lease.Err())
	}
	_, watch, err := c.WatchChildren(ctx, "")
	must(t, err)
	l.expire()
	select {
	case <-lease.Done():
	case <-ctx.Done():
		t.Fatal("the lease does not end")
	}
	refused(t, lease.Err(), ErrSessionLost)
	fires(t, ctx, "an expired session", watch)
	again, err := c.Hold(ctx)
	must(t, err)
	defer again.Release()
	if again.Session() == lease.Session() {
		t.Errorf("session %#x goes on", lease.Session())
	}
	if _, there, err := c.Stat(ctx, name); there || err != nil {
		t.Errorf("the node outlives its session (%v)", err)
	}
}

func leases(t *testing.T, e ensemble) {
	c, l, ctx := begin(t, e, longSession)
	lease, err := c.Hold(ctx)
	must(t, err)
	defer lease.Release()
	given, err := c.Hold(ctx)
	must(t, err)
	given.Release()
	given.Release()
	refused(t, given.Err(), context.Canceled)

	l.cut()
	l.heal()
	for err := c.Sync(ctx); err != nil; err = c.Sync(ctx) {
		refused(t, err, ErrUncertain) // the cut was not yet noticed
		must(t, ctx.Err())
	}
	if !lease.Valid() {
		t.Errorf("the lease ended with the connection: %v", lease.Err())
	}
}

func endings(t *testing.T, e ensemble) {
	c, l, ctx := begin(t, e, sessionTimeout)
	other, _ := e.client(t, longSession)
	_, err := c.Create(ctx, "x", nil, Ephemeral, Public)
	must(t, err)
	lease, err := c.Hold(ctx)
	must(t, err)
	_, _, gone, err := other.Watch(ctx, "x")
	must(t, err)
	l.cut()
	fires(t, ctx, "the leased session", gone)
	if lease.Valid() {
		t.Error("the session expired before the lease ended")
	}
	refused(t, lease.Err(), ErrSessionLost)
	l.heal()
	must(t, c.Wait(ctx))
	if lease.Valid() {
		t.Error("a lost lease came back")
	}
}

func waiting(t *testing.T, e ensemble) {
	c, l, ctx := begin(t, e, longSession)
	l.cut()
	for {
		give, cancel := context.WithTimeoutCause(ctx, 100*time.Millisecond, errors.New("no more patience"))
		_, _, err := c.Get(give, "x")
		cancel()
		if err != nil && strings.Contains(err.Error(), "no more patience") {
			break
		}
		must(t, ctx.Err())
	}
	l.heal()
	_, err := c.Create(ctx, "x", nil, Persistent, Public)
	must(t, err)
}

func stopped(t *testing.T, e ensemble) {
	c, _, ctx := begin(t, e, longSession)
	_, err := c.Create(ctx, "x", nil, Ephemeral, Public)
	must(t, err)
	session, _ := c.Session()
	e.stop()
	e.start()
	ctx = soon(t) // the start took its time
	if now, _ := c.Session(); now != session {
		t.Errorf("want session %#x, got %#x", session, now)
	}
	if _, there, err := c.Stat(ctx, "x"); !there || err != nil {
		t.Errorf("the node is gone (%v)", err)
	}
}

func wiped(t *testing.T, e ensemble) {
	c, _, ctx := begin(t, e, sessionTimeout)
	_, err := c.Create(ctx, "x", nil, Persistent, Public)
	must(t, err)
	lease, err := c.Hold(ctx)
	must(t, err)
	e.stop()
	e.wipe()
	e.start()
	ctx = soon(t) // the start took its time
	select {
	case <-lease.Done():
	case <-ctx.Done():
		t.Fatal("the lease does not end")
	}
	for {
		_, err := c.Create(ctx, "y", nil, Persistent, Public)
		if err == nil {
			t.Fatal("a node was made below a path that is gone")
		}
		if errors.Is(err, ErrNoNode) {
			break
		}
		refused(t, err, ErrUncertain)
		must(t, ctx.Err())
	}
	must(t, c.MakePath(ctx, Public))
	if names, err := c.Children(ctx, ""); err != nil || len(names) > 0 {
		t.Errorf("want nothing, got %q (%v)", names, err)
	}
}

func TestAClientThatEndedSaysSo(t *testing.T) {
	f := new(Fake)
	u, err := Parse("zk://h/x")
	must(t, err)
	c, err := f.New(Config{URL: u})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	must(t, c.Wait(soon(t)))
	lease, err := c.Hold(soon(t))
	must(t, err)
	cancel()
	must(t, <-done)
	if lease.Valid() {
		t.Error("the lease outlives the client")
	}
	refused(t, c.Sync(soon(t)), ErrClosed)
	if err := c.Run(t.Context()); err == nil {
		t.Error("a second Run: want an error")
	}
	for _, cfg := range []Config{{}, {URL: u, SessionTimeout: time.Millisecond}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v: want an error", fmt.Sprint(cfg))
		}
	}
}
