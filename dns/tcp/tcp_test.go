package tcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// served is a server whose handler echoes; a query that begins with 'l' is answered when release says so.
type served struct {
	*Server
	addr    string
	release chan struct{}
	stop    func() error
}

func serve(t *testing.T, limits Limits) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, limits, l)
}

func serveOn(t *testing.T, limits Limits, l net.Listener) *served {
	t.Helper()
	s := &served{addr: l.Addr().String(), release: make(chan struct{})}
	s.Server = New(limits, func(ctx context.Context, c *Query) {
		query := c.Message
		if query[0] == 'l' {
			select {
			case <-s.release:
			case <-ctx.Done():
			}
		}
		if query[0] == 'b' {
			query = bytes.Repeat(query, 60_000/len(query))
		}
		_ = c.Send(query)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// pipes is a listener in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// bubble runs a test in virtual time, with a server that is reached in memory: what limits of time do to its clients must not depend on what else
// the machine does. It does so on one processor: with more, the race detector of Go 1.26 breaks down now and then in the timers of a
// bubble (golang.org/issue/78156).
func bubble(t *testing.T, limits Limits, test func(t *testing.T, s *served, dial func() net.Conn)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		l.close = sync.OnceFunc(func() { close(l.closed) })
		test(t, serveOn(t, limits, l), func() net.Conn {
			near, far := net.Pipe()
			t.Cleanup(func() { near.Close() })
			l.conns <- far
			return near
		})
	})
}

// rests waits until the server has nothing more to do for a connection: its answers are read a moment before that.
func (s *served) rests(t *testing.T, c net.Conn) {
	t.Helper()
	eventually(t, "a connection rests", func() bool {
		for _, v := range s.all() {
			if v.from.String() == c.LocalAddr().String() {
				return v.pending.Load() == 0
			}
		}
		return false
	})
}

func (s *served) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *served) dialFrom(t *testing.T, ip string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func message(text string) []byte {
	b := make([]byte, 2+max(12, len(text)))
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	copy(b[2:], text)
	return b
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func read(c net.Conn) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return "", err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(c, b)
	return string(bytes.TrimRight(b, "\x00")), err
}

func wantRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if got, err := read(c); err != nil || got != want {
		t.Errorf("read %q, %v; want %q", got, err, want)
	}
}

// wantClosed waits for the server to close the connection.
func wantClosed(t *testing.T, c net.Conn) {
	t.Helper()
	if got, err := read(c); err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("read %q, %v; want the connection closed", got, err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

func TestQueriesOfOneConnectionAreAnsweredAsTheyAreReady(t *testing.T) {
	s := serve(t, Limits{})
	c := s.dial(t)
	// In one packet, and the second in pieces.
	write(t, c, append(append(message("long"), message("one")...), message("two")[:5]...))
	wantRead(t, c, "one")
	write(t, c, message("two")[5:])
	wantRead(t, c, "two")
	s.release <- struct{}{}
	wantRead(t, c, "long")
}

func TestAClientThatHasSaidAllIsAnswered(t *testing.T) {
	s := serve(t, Limits{})
	c := s.dial(t)
	write(t, c, append(message("long"), message("one")...))
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantRead(t, c, "one")
	s.release <- struct{}{}
	wantRead(t, c, "long")
	wantClosed(t, c)
}

func TestAConnectionHasSoManyQueriesAtOnce(t *testing.T) {
	s := serve(t, Limits{Pipeline: 3})
	c := s.dial(t)
	for range 10 {
		write(t, c, message("long"))
	}
	eventually(t, "three are in the making", func() bool { return s.Stats().Queries == 3 })
	other := s.dial(t)
	write(t, other, message("one"))
	wantRead(t, other, "one")
	if n := s.Stats().Queries; n != 4 {
		t.Errorf("%d queries taken, want 3 of one connection and 1 of another", n)
	}
	for range 10 {
		s.release <- struct{}{}
		wantRead(t, c, "long")
	}
}

func TestAConnectionEndsAfterSoManyQueries(t *testing.T) {
	s := serve(t, Limits{Queries: 3})
	c := s.dial(t)
	for range 3 {
		write(t, c, message("one"))
		wantRead(t, c, "one")
	}
	wantClosed(t, c)
}

func TestBadLengthsEndAConnection(t *testing.T) {
	s := serve(t, Limits{})
	for _, length := range []string{"\x00\x00", "\x00\x0b", "\xff\xff"} {
		c := s.dial(t)
		write(t, c, []byte(length+"................"))
		wantClosed(t, c)
	}
	eventually(t, "three counted", func() bool { return s.Stats().Malformed == 3 })
}

// A client that sends an octet now and then holds its connection for the time of one message, not for ever.
func TestSlowClientsAreCutOff(t *testing.T) {
	const limit, pace = 200 * time.Millisecond, 20 * time.Millisecond
	bubble(t, Limits{Idle: limit, Message: limit}, func(t *testing.T, s *served, dial func() net.Conn) {
		silent, slow, fast := dial(), dial(), dial()
		begun := time.Now()
		var group sync.WaitGroup
		group.Go(func() {
			wantClosed(t, silent)
			if d := time.Since(begun); d != limit {
				t.Errorf("who is silent was cut off after %v, want %v", d, limit)
			}
		})
		group.Go(func() {
			for _, b := range message("a query that takes its time, an octet after the other, for as long as one lets it") {
				if _, err := slow.Write([]byte{b}); err != nil {
					break
				}
				time.Sleep(pace)
			}
			if d := time.Since(begun); d < limit || d > limit+pace {
				t.Errorf("who is slow was cut off after %v, want %v", d, limit)
			}
		})
		for range 20 { // who asks steadily is not idle
			write(t, fast, message("one"))
			wantRead(t, fast, "one")
			time.Sleep(pace)
		}
		group.Wait()
		wantClosed(t, slow)
		if st := s.Stats(); st.TimedOut != 1 {
			t.Errorf("%d queries out of time counted, want the slow one", st.TimedOut)
		}
	})
}

func TestAClientThatWaitsIsNotIdle(t *testing.T) {
	bubble(t, Limits{Idle: 50 * time.Millisecond}, func(t *testing.T, s *served, dial func() net.Conn) {
		c := dial()
		write(t, c, message("long"))
		time.Sleep(300 * time.Millisecond) // the answer takes longer than an idle connection lives
		s.release <- struct{}{}
		wantRead(t, c, "long")
	})
}

// A client that asks and does not read is cut off, and holds up nobody.
func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	// One at a time: answers that wait for each other hold up virtual time.
	bubble(t, Limits{Write: 200 * time.Millisecond, Pipeline: 1}, func(t *testing.T, s *served, dial func() net.Conn) {
		deaf, other := dial(), dial()
		var group sync.WaitGroup
		group.Go(func() {
			for {
				if _, err := deaf.Write(message("big")); err != nil {
					return
				}
			}
		})
		for range 10 {
			write(t, other, message("one"))
			wantRead(t, other, "one")
			time.Sleep(30 * time.Millisecond)
		}
		group.Wait() // its writing fails once it is cut off
		if s.Stats().TimedOut == 0 {
			t.Error("no answer out of time was counted")
		}
	})
}

// Clients that ask as much as they may and read nothing hold their own share, and none of what others need.
func TestClientsThatDoNotReadHoldUpNobody(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only 127.0.0.1 is there")
	}
	// Four clients with a share of a quarter would hold all of it.
	s := serve(t, Limits{InFlight: 8, PerClientInFlight: 2, Write: time.Hour, Grace: time.Millisecond})
	var group sync.WaitGroup
	for client := range 4 {
		for range 4 {
			c := s.dialFrom(t, fmt.Sprint("127.0.0.", 2+client))
			group.Go(func() {
				for {
					if _, err := c.Write(message("big")); err != nil {
						return
					}
				}
			})
		}
	}
	eventually(t, "all of them are stuck", func() bool {
		before := s.Stats().Queries
		<-time.After(100 * time.Millisecond)
		return before >= 16 && s.Stats().Queries == before
	})
	other := s.dialFrom(t, "127.0.0.9")
	for range 10 { // not for the hour that they may take
		write(t, other, message("one"))
		wantRead(t, other, "one")
	}
	_ = s.stop()
	group.Wait()
}

func TestAClientHasItsShareOfWhatIsInFlight(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only 127.0.0.1 is there")
	}
	s := serve(t, Limits{InFlight: 8, PerClientInFlight: 3})
	for range 4 {
		c := s.dialFrom(t, "127.0.0.2")
		write(t, c, bytes.Repeat(message("long"), 4))
	}
	eventually(t, "three are in the making", func() bool { return s.Stats().Queries == 3 })
	other := s.dialFrom(t, "127.0.0.3")
	write(t, other, message("one"))
	wantRead(t, other, "one")
	if n := s.Stats().Queries; n != 4 {
		t.Errorf("%d queries taken, want 3 of one client and 1 of another", n)
	}
	for range 16 {
		s.release <- struct{}{}
	}
}

// Who is not read from gives way; who is in the middle of a query does not, as long as others are idle.
func TestWhoGivesWay(t *testing.T) {
	s := serve(t, Limits{Connections: 3})
	asking, idle, deaf := s.dial(t), s.dial(t), s.dial(t)
	for _, c := range []net.Conn{asking, idle, deaf} {
		write(t, c, message("one"))
		wantRead(t, c, "one")
		s.rests(t, c) // so that this is their order
	}
	write(t, asking, message("two")[:5]) // is the one whose last answer is the oldest
	eventually(t, "its query is noticed", func() bool {
		var newest, oldest int64
		for _, c := range s.all() {
			at := c.idleSince.Load()
			if newest = max(newest, at); oldest == 0 || at < oldest {
				oldest = at
			}
			if c.from.String() == asking.LocalAddr().String() && at == newest && oldest != newest {
				return true
			}
		}
		return false
	})
	first := s.dial(t)
	write(t, first, message("one"))
	wantRead(t, first, "one")
	wantClosed(t, idle)
	write(t, asking, message("two")[5:])
	wantRead(t, asking, "two")

	write(t, asking, message("long"))
	write(t, first, message("long"))
	eventually(t, "both are at work", func() bool { return s.Stats().Queries == 7 })
	var group sync.WaitGroup
	group.Go(func() {
		for {
			if _, err := deaf.Write(message("big")); err != nil {
				return
			}
		}
	})
	eventually(t, "nobody but the deaf one gives way", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		write(t, c, message("one"))
		_, err = read(c)
		return err == nil
	})
	group.Wait()
	for range 2 {
		s.release <- struct{}{}
	}
	wantRead(t, asking, "long")
	wantRead(t, first, "long")
}

func TestConnectionsAreBoundedForAClientAndInAll(t *testing.T) {
	s := serve(t, Limits{Connections: 5, PerClient: 3})
	from := func(ip string) net.Conn { t.Helper(); return s.dialFrom(t, ip) }
	if runtime.GOOS != "linux" {
		t.Skip("only 127.0.0.1 is there")
	}
	var first [3]net.Conn
	for i := range first {
		first[i] = from("127.0.0.2")
		write(t, first[i], message("one"))
		wantRead(t, first[i], "one")
		s.rests(t, first[i])
	}
	wantClosed(t, from("127.0.0.2"))
	if st := s.Stats(); st.Refused != 1 || st.Open != 3 {
		t.Errorf("%+v, want one refused of four", st)
	}
	write(t, first[0], message("long")) // is at work, and stays
	eventually(t, "it is at work", func() bool { return s.Stats().Queries == 4 })
	for i := range 3 {
		c := from(fmt.Sprint("127.0.0.", 3+i))
		write(t, c, message("one"))
		wantRead(t, c, "one")
	}
	// The first one that was idle has made room.
	wantClosed(t, first[1])
	write(t, first[2], message("two"))
	wantRead(t, first[2], "two")
	s.release <- struct{}{}
	wantRead(t, first[0], "long")
	if st := s.Stats(); st.Displaced != 1 || st.Open != 5 {
		t.Errorf("%+v, want one displaced", st)
	}
	// Places are free again when clients go.
	for _, c := range first {
		c.Close()
	}
	eventually(t, "three have left", func() bool { return s.Stats().Open == 3 })
	c := from("127.0.0.2")
	write(t, c, message("one"))
	wantRead(t, c, "one")
}

func TestThousandsOfSilentConnectionsLockNobodyOut(t *testing.T) {
	before := runtime.NumGoroutine()
	// None of them goes by itself, however long it takes to open them all: room has to be made.
	s := serve(t, Limits{Connections: 100, PerClient: 1 << 20, Idle: time.Hour, Message: time.Hour})
	for i := range 2000 {
		c := s.dial(t)
		if i%2 == 0 {
			write(t, c, []byte{0})
		}
	}
	c := s.dial(t)
	write(t, c, message("one"))
	wantRead(t, c, "one")
	if st := s.Stats(); st.Open > 100 || st.Displaced < 1800 {
		t.Errorf("%+v, want at most 100 open", st)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

func TestTheEndAnswersWhatWasRead(t *testing.T) {
	s := serve(t, Limits{Grace: time.Minute})
	c, idle := s.dial(t), s.dial(t)
	write(t, c, message("long"))
	eventually(t, "it is at work", func() bool { return s.Stats().Queries == 1 })
	done := make(chan error, 1)
	go func() { done <- s.stop() }()
	wantClosed(t, idle)
	s.release <- struct{}{}
	wantRead(t, c, "long")
	wantClosed(t, c)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheEndDoesNotWaitForEver(t *testing.T) {
	before := runtime.NumGoroutine()
	s := serve(t, Limits{Grace: 50 * time.Millisecond, Write: time.Hour, Idle: time.Hour})
	var deaf atomic.Bool
	for _, query := range []string{"long", "big"} {
		c := s.dial(t)
		go func() { // never reads
			for {
				if _, err := c.Write(message(query)); err != nil {
					return
				}
				deaf.Store(true)
			}
		}()
	}
	eventually(t, "both ask", func() bool { return deaf.Load() && s.Stats().Queries > 16 })
	begun := time.Now()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(begun); d > 30*time.Second { // and not the hour that a client may take to read
		t.Errorf("it took %v to end", d)
	}
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

func TestAListenerThatIsClosedIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := New(Limits{}, nil).Serve(t.Context(), l, other); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve() = %v, want that the listener is closed", err)
	}
}
