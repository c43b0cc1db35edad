package zookeeper

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	// firstPause and lastPause are between two rounds over all servers that did not answer.
	firstPause = 100 * time.Millisecond
	lastPause  = time.Second
	// maxAnswer bounds one answer of a server, in bytes: a long list of children comes nowhere near.
	maxAnswer = 64 << 20
)

// conn is go-zookeeper's connection with our own way of looking for servers. That library resolves names once, waits a second
// between two rounds, gives a server ten times the session's timeout to greet, and does not tell what timeout was granted.
type conn struct {
	*zk.Conn
	c       *Client
	servers *servers
	dialing context.Context // ends when the client does
	stop    context.CancelFunc
	events  <-chan zk.Event

	mu     sync.Mutex // guards socket
	socket *socket
}

func dialZooKeeper(c *Client) (backend, error) {
	z := &conn{c: c}
	z.dialing, z.stop = context.WithCancel(context.Background())
	z.servers = &servers{ctx: z.dialing}
	var err error
	z.Conn, z.events, err = zk.Connect(c.cfg.URL.Hosts, c.cfg.SessionTimeout,
		zk.WithHostProvider(z.servers), zk.WithDialer(z.dial), zk.WithEventCallback(c.event), zk.WithMaxBufferSize(maxAnswer),
		zk.WithLogger(library{c}), zk.WithLogInfo(false))
	if err != nil {
		z.stop()
		return nil, err
	}
	return z, nil
}

// dial connects to the next server, after a pause where all have been tried in vain.
func (z *conn) dial(network, address string, _ time.Duration) (net.Conn, error) {
	z.drop() // after an expired session the library leaves it open
	if err := z.servers.pause(); err != nil {
		return nil, err
	}
	// Names are resolved each time: servers move.
	timeout := min(max(z.c.cfg.SessionTimeout/3, 500*time.Millisecond), 5*time.Second)
	ctx, cancel := context.WithTimeout(z.dialing, timeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, network, address)
	if err != nil {
		z.c.failed(address, err)
		return nil, err
	}
	s := &socket{Conn: raw, patience: time.Now().Add(timeout), fresh: z.servers.lost() > z.granted()}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.socket = s
	return s, nil
}

func (z *conn) drop() {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.socket != nil {
		_ = z.socket.Close() // again, mostly
	}
}

func (z *conn) granted() time.Duration {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.socket != nil {
		if t := z.socket.granted(); t > 0 {
			return t
		}
	}
	return z.c.cfg.SessionTimeout
}

func (z *conn) close() {
	if z.State() != zk.StateHasSession {
		z.stop() // nobody to say farewell to
	}
	z.Conn.Close()
	z.stop()
	z.drop()
	for range z.events { // until the library's loop has ended
	}
}

// servers hands out the servers in a random order, over and over.
type servers struct {
	ctx context.Context // ends when the client does

	mu    sync.Mutex
	list  []string
	next  int       // index in list
	tried int       // since a connection held
	since time.Time // of the first of those
}

// Init implements zk.HostProvider; the list was shuffled.
func (s *servers) Init(list []string) error {
	s.list = list
	return nil
}

// Len implements zk.HostProvider.
func (s *servers) Len() int { return len(s.list) }

// Next implements zk.HostProvider. It says "all were tried" only to end the library's search: the pause that this causes is
// too long, and ours is made elsewhere.
func (s *servers) Next() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	server := s.list[s.next]
	if s.tried == 0 {
		s.since = time.Now()
	}
	s.tried++
	if s.next++; s.next == len(s.list) {
		s.next = 0
	}
	return server, s.ctx.Err() != nil
}

// Connected implements zk.HostProvider: there is a session.
func (s *servers) Connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = 0
}

// lost is for how long there has been no session.
func (s *servers) lost() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.since)
}

// pause waits before all servers are tried again, ever longer, and by chance, so that clients don't come in step.
func (s *servers) pause() error {
	s.mu.Lock()
	rounds := (s.tried - 1) / len(s.list)
	begins := (s.tried-1)%len(s.list) == 0
	s.mu.Unlock()
	if rounds <= 0 || !begins {
		return s.ctx.Err()
	}
	d := min(firstPause<<min(rounds-1, 10), lastPause)
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
	return s.ctx.Err()
}

// socket is a connection that reads along the greeting, which says what timeout was granted, and bounds how long it may take.
type socket struct {
	net.Conn
	patience time.Time // for the greeting
	// fresh is set when no server took us for so long that they may have lost all they had. One that was wiped hangs up on a
	// client that has seen more than there is now, for ever; so the client stops claiming that it has. What is read then could
	// be older than what was read before, until the next Sync.
	fresh bool
	wrote bool // belongs to the goroutine that greets

	mu   sync.Mutex // guards deadlines against the end of the greeting
	head []byte     // the greeting's first bytes
	got  atomic.Int64
}

// greeting is as much as is needed: its length, the protocol's version, and the timeout in milliseconds, 4 bytes each.
const greeting = 12

func (s *socket) Write(b []byte) (int, error) {
	// The client's greeting: length and version, 4 bytes each, then the last transaction seen, 8 bytes.
	if s.fresh && !s.wrote && len(b) > 16 {
		b = bytes.Clone(b)
		clear(b[8:16])
	}
	s.wrote = true
	return s.Conn.Write(b)
}

func (s *socket) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if s.got.Load() == 0 && n > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.head = append(s.head, b[:min(n, greeting-len(s.head))]...)
		if len(s.head) == greeting {
			s.got.Store(int64(binary.BigEndian.Uint32(s.head[8:])))
		}
	}
	return n, err
}

// SetReadDeadline keeps the library from waiting longer for the greeting, or for ever.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.head) < greeting && (t.IsZero() || t.After(s.patience)) {
		t = s.patience
	}
	return s.Conn.SetReadDeadline(t)
}

// granted is the session's timeout, 0 before the greeting has come or where the session had expired.
func (s *socket) granted() time.Duration { return time.Duration(s.got.Load()) * time.Millisecond }

// library takes what go-zookeeper logs: nothing that an operator needs, as a Client tells the same in its own words, but what
// explains why there is no connection. The library never shows credentials.
type library struct{ c *Client }

// Printf implements zk.Logger.
func (l library) Printf(format string, args ...any) {
	if strings.HasPrefix(format, "authentication failed") && len(args) == 1 {
		if err, ok := args[0].(error); ok && !errors.Is(err, zk.ErrSessionExpired) {
			l.c.failed("", fmt.Errorf("server does not greet: %w", err))
			return
		}
	}
	if l.c.log.Enabled(context.Background(), slog.LevelDebug) {
		l.c.log.Debug("go-zookeeper says", "reason", fmt.Sprintf(format, args...))
	}
}
