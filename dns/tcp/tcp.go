package tcp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what clients can hold. Zero values are the defaults.
type Limits struct {
	// Connections in all (1,024), and PerClient for one IPv4 address or IPv6 network of 64 bits (64).
	Connections, PerClient int
	// Queries is how many one connection may ask before it is closed (10,000); Pipeline how many of them at once (16), and
	// InFlight all connections at once (1,024), not counted those whose answers wait to be read. PerClientInFlight is how
	// many one client may have, those counted (an eighth of that).
	Queries, Pipeline, InFlight, PerClientInFlight int
	// Idle is how long a connection may rest without a query or an answer (10 s), Message how long one query may take to
	// arrive (5 s), Write how long an answer may take to be taken (10 s).
	Idle, Message, Write time.Duration
	// Grace is how long answers may still be made once the server shall end (500 ms).
	Grace time.Duration
}

func (l Limits) withDefaults() Limits {
	number := func(n *int, fallback int) {
		if *n <= 0 {
			*n = fallback
		}
	}
	duration := func(d *time.Duration, fallback time.Duration) {
		if *d <= 0 {
			*d = fallback
		}
	}
	number(&l.Connections, 1024)
	number(&l.PerClient, 64)
	number(&l.Queries, 10_000)
	number(&l.Pipeline, 16)
	number(&l.InFlight, 1024)
	number(&l.PerClientInFlight, max(1, l.InFlight/8))
	duration(&l.Idle, 10*time.Second)
	duration(&l.Message, 5*time.Second)
	duration(&l.Write, 10*time.Second)
	duration(&l.Grace, 500*time.Millisecond)
	return l
}

// maxQuery is the octets of the largest query that is taken. Nothing that this server understands comes near.
const maxQuery = 4096

// Handler answers one query. Those of one connection are answered concurrently. The
// context ends when the connection does, or some while after that of Serve.
type Handler func(ctx context.Context, q *Query)

// Stats are counts since the start, but for Open, which is how many connections there are now.
type Stats struct {
	// Open connections, and Accepted ones.
	Open, Accepted uint64
	// Refused for one client's limit or because none was idle, Displaced by a new one.
	Refused, Displaced uint64
	// TimedOut before a query or an answer was through; Malformed lengths.
	TimedOut, Malformed uint64
	// Queries that were passed to the handler.
	Queries uint64
}

// Server serves connections. Use New.
type Server struct {
	limits  Limits
	handler Handler
	slots   chan struct{} // one for each query in flight; never closed

	mu      sync.Mutex
	conns   map[*conn]bool
	clients map[netip.Addr]*client

	accepted, refused, displaced, timedOut, malformed, queries atomic.Uint64
}

// client is what one IPv4 address or IPv6 network has of the server.
type client struct {
	conns int
	slots chan struct{} // one for each query in flight; never closed
}

// New makes a Server; Serve makes it answer.
func New(l Limits, h Handler) *Server {
	l = l.withDefaults()
	return &Server{
		limits: l, handler: h, slots: make(chan struct{}, l.InFlight), conns: map[*conn]bool{}, clients: map[netip.Addr]*client{},
	}
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	return Stats{
		Open: uint64(open), Accepted: s.accepted.Load(), Refused: s.refused.Load(), Displaced: s.displaced.Load(),
		TimedOut: s.timedOut.Load(), Malformed: s.malformed.Load(), Queries: s.queries.Load(),
	}
}

// acceptPause is how long accepting rests after an error that may pass, as no file descriptor being left.
const acceptPause = 50 * time.Millisecond

// Serve accepts connections until ctx ends: then the queries that were read are answered, and everything is closed and
// ended when it returns. It closes the listeners; one that fails for good ends it with an error. It may be called once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slow, stopSlow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSlow()
	stop := context.AfterFunc(ctx, func() {
		for _, l := range listeners {
			l.Close()
		}
		for _, c := range s.all() {
			_ = c.raw.SetReadDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	var accepting, serving sync.WaitGroup
	for _, l := range listeners {
		accepting.Go(func() {
			if err := s.accept(ctx, slow, l, &serving); err != nil {
				cancel(err)
			}
		})
	}
	accepting.Wait()
	end := time.AfterFunc(s.limits.Grace, func() {
		stopSlow()
		for _, c := range s.all() {
			c.raw.Close()
		}
	})
	serving.Wait()
	end.Stop()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (s *Server) accept(ctx, slow context.Context, l net.Listener, serving *sync.WaitGroup) error {
	for {
		raw, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				raw.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("cannot accept connections at %v: %w", l.Addr(), err)
		case err != nil:
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		default:
			if c := s.admit(raw); c != nil {
				serving.Go(func() { c.serve(ctx, slow) })
			}
		}
	}
}

func (s *Server) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

// admit enters a connection in the books, or closes it and returns nil where there is no place for it.
func (s *Server) admit(raw net.Conn) *conn {
	c := &conn{server: s, raw: raw, slots: make(chan struct{}, s.limits.Pipeline)}
	if a, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		c.from = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	c.addr = c.from.Addr()
	if c.addr.Is6() {
		p, _ := c.addr.Prefix(64)
		c.addr = p.Addr()
	}
	c.idleSince.Store(time.Now().UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	c.client = s.clients[c.addr]
	if c.client == nil {
		c.client = &client{slots: make(chan struct{}, s.limits.PerClientInFlight)}
	}
	if c.client.conns >= s.limits.PerClient || len(s.conns) >= s.limits.Connections && !s.displace() {
		s.refused.Add(1)
		raw.Close()
		return nil
	}
	s.accepted.Add(1)
	s.conns[c] = true
	// Anew, since the last one of this client may just have been displaced.
	s.clients[c.addr] = c.client
	c.client.conns++
	return c
}

// displace makes room by closing the connection that has been idle, or was not read from, longest. The lock must be held.
func (s *Server) displace() bool {
	var oldest *conn
	var since int64
	now := time.Now()
	for c := range s.conns {
		if t, rests := c.restsSince(now); rests && (oldest == nil || t < since) {
			oldest, since = c, t
		}
	}
	if oldest == nil {
		return false
	}
	s.displaced.Add(1)
	s.leave(oldest)
	oldest.raw.Close()
	return true
}

// leave takes a connection out of the books, once. The lock must be held.
func (s *Server) leave(c *conn) {
	if !s.conns[c] {
		return
	}
	delete(s.conns, c)
	if c.client.conns--; c.client.conns == 0 {
		delete(s.clients, c.addr)
	}
}
