// Package zookeeper holds one session with a ZooKeeper ensemble: it connects, authenticates, keeps everything below the path
// of a zk:// URL, and tells for how long the session is certain to live.
//
// The model: a Client looks for a server for as long as it runs, and takes a new session when the old one has expired. Its
// calls wait until there is a connection, or until their context ends. A Lease is what a leader needs: it ends before the
// ensemble could have let the session expire, counted from the last moment at which the ensemble's leader is known to have
// had it, by this machine's monotonic clock. So it ends in time also while nothing at all can be heard.
//
// All methods may be called from any goroutine. How it fails: a call whose connection broke returns ErrUncertain, as what it
// asked for may have been done or not; refusals of ZooKeeper are ErrNoNode and the like. Nothing is ever retried here but the
// connection.
package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	// DefaultSessionTimeout is that of Mesos.
	DefaultSessionTimeout = 10 * time.Second
	// minSessionTimeout is the least that makes sense: the rest is arithmetic on it.
	minSessionTimeout = 100 * time.Millisecond
	// maxCalls bounds the calls that are under way at once.
	maxCalls = 64
	// logEvery is the least time between two warnings about the connection.
	logEvery = 30 * time.Second
)

var (
	// ErrNoNode, ErrNodeExists, ErrBadVersion, ErrNotEmpty and ErrNoAuth are refusals: nothing was done. ErrNoAuth is that of a
	// node that belongs to other credentials.
	ErrNoNode     = zk.ErrNoNode
	ErrNodeExists = zk.ErrNodeExists
	ErrBadVersion = zk.ErrBadVersion
	ErrNotEmpty   = zk.ErrNotEmpty
	ErrNoAuth     = zk.ErrNoAuth
	// ErrUncertain is returned when the connection broke before the answer came: the call may have been done or not.
	ErrUncertain = errors.New("connection to ZooKeeper was lost")
	// ErrClosed is returned once Run has ended.
	ErrClosed = errors.New("ZooKeeper client is closed")
)

type (
	// Stat is what ZooKeeper knows of a node beside its data.
	Stat = zk.Stat
	// Event is what a watch tells, once: that something changed, or that the watch is over. Look again after either.
	Event = zk.Event
)

// Mode says how long a node lives, and how it is named.
type Mode int32

// Modes of nodes.
const (
	Persistent          Mode = zk.FlagPersistent
	Ephemeral           Mode = zk.FlagEphemeral
	EphemeralSequential Mode = zk.FlagEphemeralSequential
)

// Access says who may do what with a node. It matters where there are credentials; without, everybody may do all.
type Access int

const (
	// Public nodes can be read by everybody, and changed by their creator.
	Public Access = iota
	// Private nodes are their creator's alone.
	Private
)

// Config is what a client is made of.
type Config struct {
	// URL says where the ensemble is, and the path below which all is kept.
	URL URL
	// SessionTimeout is what is asked for, and bounded by the servers; 0 is DefaultSessionTimeout.
	SessionTimeout time.Duration
	// Log is told of connections and sessions; nil tells nobody.
	Log *slog.Logger
}

// Client is one session after the other. See the package comment.
type Client struct {
	cfg   Config
	log   *slog.Logger
	slots chan struct{} // holds a token for each call under way
	// dial makes the backend: ZooKeeper's, or a Fake's.
	dial func(c *Client) (backend, error)
	wake chan struct{} // holds a token when the heart should beat at once

	mu        sync.Mutex // guards what follows
	backend   backend    // nil before Run
	running   bool
	closed    bool
	authed    bool          // credentials were accepted once, and are sent again by themselves since
	link      uint64        // counts connections, so that what comes late is known as such
	connected bool          // there is a session, a connection, and the credentials are known
	session   int64         // 0: none
	greeted   time.Time     // when the present connection, if it is one, asked for the session
	timeout   time.Duration // of the session, as the servers granted it
	changed   chan struct{} // closed, and replaced, when any of these changes
	leases    map[*Lease]struct{}
	trouble   error // why there is no connection, as far as known
	warned    time.Time
	unwarned  int           // warnings left out since
	told      int64         // the session that was logged last
	up        time.Time     // when there was a connection last
	bounded   time.Duration // the timeout that was logged as not the one asked for
}

// backend is what a client needs of a connection: the part of *zk.Conn that it uses.
type backend interface {
	Create(path string, data []byte, flags int32, acl []zk.ACL) (string, error)
	Delete(path string, version int32) error
	Get(path string) ([]byte, *zk.Stat, error)
	ExistsW(path string) (bool, *zk.Stat, <-chan zk.Event, error)
	Exists(path string) (bool, *zk.Stat, error)
	Children(path string) ([]string, *zk.Stat, error)
	ChildrenW(path string) ([]string, *zk.Stat, <-chan zk.Event, error)
	Multi(ops ...any) ([]zk.MultiResponse, error)
	Sync(path string) (string, error)
	AddAuth(scheme string, auth []byte) error
	SessionID() int64
	// drop breaks the connection, so that another server is looked for.
	drop()
	// granted is the timeout of the session, as the servers granted it.
	granted() time.Duration
	// close ends the session and the connection, and returns when nothing of it runs any more.
	close()
}

// New returns a client that does nothing until Run.
func New(cfg Config) (*Client, error) {
	return newClient(cfg, dialZooKeeper)
}

func newClient(cfg Config, dial func(*Client) (backend, error)) (*Client, error) {
	if len(cfg.URL.Hosts) == 0 || cfg.URL.Path == "" {
		return nil, errors.New("a ZooKeeper client needs a URL")
	}
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = DefaultSessionTimeout
	}
	if cfg.SessionTimeout < minSessionTimeout {
		return nil, fmt.Errorf("ZooKeeper session timeout %v is below %v", cfg.SessionTimeout, minSessionTimeout)
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		cfg: cfg, log: log.With("component", "zookeeper"), slots: make(chan struct{}, maxCalls), dial: dial,
		wake: make(chan struct{}, 1), changed: make(chan struct{}), leases: make(map[*Lease]struct{}),
		trouble: errors.New("no connection yet"),
	}, nil
}

// Run connects, and stays connected until ctx ends: it closes the session then, so that its ephemeral nodes go at once, and
// returns nil. It may be called once.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("a ZooKeeper client runs only once")
	}
	c.running = true
	b, err := c.dial(c)
	if err != nil {
		c.closed = true
		c.notify()
		c.mu.Unlock()
		return fmt.Errorf("cannot begin with ZooKeeper at %v: %w", c.cfg.URL, err)
	}
	c.backend = b
	c.mu.Unlock()
	c.beat(ctx)

	c.mu.Lock()
	c.closed, c.connected = true, false
	for l := range c.leases {
		l.lose(ErrClosed)
	}
	c.notify()
	c.mu.Unlock()
	b.close()
	return nil
}

// notify wakes all who wait for a change; c.mu is held.
func (c *Client) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// event takes up what the connection tells. It never blocks for long.
func (c *Client) event(e zk.Event) {
	if e.Type != zk.EventSession {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.State {
	case zk.StateConnected:
		c.greeted = time.Now() // it is told before the greeting is sent
	case zk.StateHasSession:
		c.link++
		session := c.backend.SessionID()
		if session != c.session {
			c.expire()
			c.session = session
		}
		c.timeout = c.backend.granted()
		c.renew(session, c.greeted.Add(leaseOf(c.timeout)))
		if c.cfg.URL.User == "" || c.authed {
			c.ready(e.Server)
			return
		}
		// The answer comes through the goroutine that we are on.
		go c.authenticate(c.backend, c.link, e.Server)
	case zk.StateExpired:
		c.link++
		c.connected = false
		if c.session != 0 {
			c.log.Warn("ZooKeeper session expired", "session", fmt.Sprintf("%#x", c.session))
		}
		c.expire()
		c.notify()
	case zk.StateDisconnected:
		c.link++
		if c.connected {
			c.connected = false
			c.warn("connection to ZooKeeper lost", "addr", e.Server)
		}
		c.notify()
	}
}

// ready marks the connection as usable; c.mu is held.
func (c *Client) ready(server string) {
	c.connected, c.trouble = true, nil
	level := slog.LevelDebug
	if c.session != c.told || c.warned.After(c.up) {
		level = slog.LevelInfo // a new session, or the end of a trouble that was told
	}
	c.told, c.up = c.session, time.Now()
	c.log.Log(context.Background(), level, "connected to ZooKeeper", "addr", server, "session", fmt.Sprintf("%#x", c.session), "timeout", c.timeout)
	if c.timeout != c.cfg.SessionTimeout && c.timeout != c.bounded {
		c.bounded = c.timeout
		c.log.Warn("ZooKeeper bounds the session timeout", "asked", c.cfg.SessionTimeout, "timeout", c.timeout)
	}
	c.kick()
	c.notify()
}

// expire ends what belonged to the session; c.mu is held.
func (c *Client) expire() {
	c.session = 0
	for l := range c.leases {
		l.lose(ErrSessionLost)
	}
}

func (c *Client) authenticate(b backend, link uint64, server string) {
	err := b.AddAuth("digest", []byte(c.cfg.URL.User+":"+c.cfg.URL.password))
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.authed = true
	}
	if c.link != link {
		return // the next connection begins anew
	}
	if err != nil {
		c.trouble = fmt.Errorf("credentials not accepted: %w", err)
		c.warn("ZooKeeper does not accept the credentials", "addr", server, "err", err)
		go b.drop() // and try again
		return
	}
	c.ready(server)
}

// warn logs what may happen again and again; c.mu is held.
func (c *Client) warn(message string, args ...any) {
	now := time.Now()
	if !c.warned.IsZero() && now.Sub(c.warned) < logEvery {
		c.unwarned++
		return
	}
	if c.unwarned > 0 {
		args = append(args, "left_out", c.unwarned)
	}
	c.warned, c.unwarned = now, 0
	c.log.Warn(message, args...)
}

// failed notes why a server could not be reached.
func (c *Client) failed(addr string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.trouble = err
	c.warn("cannot connect to ZooKeeper, trying on", "addr", addr, "err", err)
}

// await waits for a connection.
func (c *Client) await(ctx context.Context) (backend, error) {
	for {
		c.mu.Lock()
		b, connected, closed, changed, trouble := c.backend, c.connected, c.closed, c.changed, c.trouble
		c.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("no connection to ZooKeeper at %v (%v): %w", c.cfg.URL, trouble, context.Cause(ctx))
		case closed:
			return nil, ErrClosed
		case connected:
			return b, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Wait waits until there is a session and a connection. Its error says why there is none when ctx ends.
func (c *Client) Wait(ctx context.Context) error {
	_, err := c.await(ctx)
	return err
}

// Session returns the id of the session, as Stat.EphemeralOwner shows it, and its timeout; 0 where there is none. A session
// is there also while the connection is lost, until a server says that it has expired.
func (c *Client) Session() (id int64, timeout time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session, c.timeout
}

// call runs f on the connection. When ctx ends first, f is left to end by itself: it does when the connection breaks at the
// latest.
func call[T any](ctx context.Context, c *Client, f func(b backend) (T, error)) (T, error) {
	var none T
	b, err := c.await(ctx)
	if err != nil {
		return none, err
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("too many calls to ZooKeeper at %v wait: %w", c.cfg.URL, context.Cause(ctx))
	}
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1) // so that f never waits for somebody who left
	go func() {
		defer func() { <-c.slots }()
		var o outcome
		o.value, o.err = f(b)
		done <- o
	}()
	select {
	case o := <-done:
		return o.value, c.say(o.err)
	case <-ctx.Done():
		return none, fmt.Errorf("ZooKeeper at %v does not answer: %w", c.cfg.URL, context.Cause(ctx))
	}
}

// say puts errors of the connection into our words.
func (c *Client) say(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zk.ErrConnectionClosed), errors.Is(err, zk.ErrNoServer), errors.Is(err, zk.ErrClosing),
		errors.Is(err, zk.ErrSessionExpired), errors.Is(err, zk.ErrSessionMoved), broken(err):
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closed {
			return ErrClosed
		}
		return fmt.Errorf("%w: %v", ErrUncertain, err)
	}
	return err
}

// broken tells whether an error is that of a connection.
func broken(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}
