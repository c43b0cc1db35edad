package udp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// echo answers with the query itself, but for those that say otherwise by their first letter: w(ork), l(ong work), p(anic
// in the loop), d(rop), P(anic in a worker). Release lets long work end.
type echo struct{ begun *atomic.Int64 }

func (e echo) Begin() { e.begun.Add(1) }

func (e echo) Answer(query, buf []byte, from netip.AddrPort) ([]byte, Next) {
	switch query[0] {
	case 'w', 'P':
		return nil, Work
	case 'l':
		return nil, Wait
	case 'p':
		panic("as asked")
	case 'd':
		return nil, Drop
	}
	return append(append(buf[:0], query...), from.String()...), Send
}

// running is a server under test.
type running struct {
	*Server
	port    uint16
	release chan struct{}
	panics  atomic.Int64
	begun   atomic.Int64
	stop    func() error
}

func run(t *testing.T, addr string, loops int) *running {
	t.Helper()
	var a netip.Addr
	if addr != "" {
		a = netip.MustParseAddr(addr)
	}
	sockets, err := Listen(t.Context(), a, 0, loops)
	if err != nil {
		t.Fatal(err)
	}
	return runOn(t, sockets)
}

func runOn(t *testing.T, sockets *Sockets) *running {
	r := &running{port: sockets.Addr().Port(), release: make(chan struct{})}
	r.Server = New(Config{
		Sockets: []*Sockets{sockets},
		Handler: func() Handler { return echo{&r.begun} },
		Slow: func(ctx context.Context, query []byte, from netip.AddrPort) []byte {
			switch query[0] {
			case 'P':
				panic("as asked")
			case 'l':
				select {
				case <-r.release:
				case <-ctx.Done():
				}
			}
			return append(query, from.String()...)
		},
		MaxWork: 8, MaxWait: 2, Grace: 50 * time.Millisecond, Panicked: func(any) { r.panics.Add(1) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func (r *running) dial(t *testing.T, host string) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(host, fmt.Sprint(r.port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// ask sends a query over a connected socket, which takes an answer from the address that was asked alone.
func ask(t *testing.T, c net.Conn, query string) string {
	t.Helper()
	buf := make([]byte, 2048)
	// A full machine may lose a datagram, as any network.
	for range 5 {
		if _, err := c.Write([]byte(query)); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, err := c.Read(buf)
		if err == nil {
			return string(buf[:n])
		}
	}
	t.Fatalf("no answer to %.20q", query)
	return ""
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

func hasIPv6() bool {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err == nil {
		c.Close()
	}
	return err == nil
}

// needIPv6 skips a test where the machine has no IPv6, which CI's has.
func needIPv6(t *testing.T) {
	t.Helper()
	if hasIPv6() {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no IPv6 here")
	}
	t.Skip("no IPv6 here")
}

func TestAnswersComeFromTheAddressThatWasAsked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems choose the address themselves, and have 127.0.0.1 alone")
	}
	for _, tc := range []struct {
		bound string
		asked []string
	}{
		{"127.0.0.3", []string{"127.0.0.3"}},
		{"0.0.0.0", []string{"127.0.0.1", "127.0.0.2", "127.8.9.10"}},
		{"", []string{"127.0.0.1", "127.0.0.2", "::1"}},
		{"::1", []string{"::1"}},
		{"::", []string{"127.0.0.9", "::1"}},
	} {
		t.Run("bound to "+tc.bound, func(t *testing.T) {
			if strings.Contains(tc.bound, ":") {
				needIPv6(t)
			}
			r := run(t, tc.bound, 2)
			for _, asked := range tc.asked {
				if strings.Contains(asked, ":") && !hasIPv6() {
					continue
				}
				c := r.dial(t, asked)
				// By the loop, by workers, and by the loop again: the kernel's message is used anew each time.
				for _, query := range []string{"quick", "work", "long", "quick"} {
					if query == "long" {
						go func() { r.release <- struct{}{} }()
					}
					if got, want := ask(t, c, query), query+c.LocalAddr().String(); got != want {
						t.Errorf("asked %s %q, got %q, want %q", asked, query, got, want)
					}
				}
			}
		})
	}
}

func TestATakenPortIsSeen(t *testing.T) {
	own := "127.0.0.1"
	if runtime.GOOS == "linux" { // where an address that nobody else uses keeps others from the port after the end
		own = "127.77.0.3"
	}
	for _, bound := range []string{own, ""} {
		r := run(t, bound, 2)
		for _, addr := range []netip.Addr{netip.MustParseAddr(own), {}, netip.IPv4Unspecified()} {
			s, err := Listen(t.Context(), addr, r.port, 2)
			if !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("Listen(%v) while %q has the port: %v, want EADDRINUSE", addr, bound, err)
			}
			if err == nil {
				s.Close()
			}
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		s, err := Listen(t.Context(), netip.MustParseAddr(own), r.port, 2)
		if err != nil {
			t.Fatalf("after the end: %v", err)
		}
		s.Close()
	}
}

func TestOddDatagramsAreCountedAndHarmNothing(t *testing.T) {
	r := run(t, "127.0.0.1", 1)
	c := r.dial(t, "127.0.0.1")
	for _, size := range []int{BufferSize + 1, 9000, 60000} {
		if _, err := c.Write(bytes.Repeat([]byte("x"), size)); err != nil {
			t.Fatal(err)
		}
	}
	largest := strings.Repeat("x", BufferSize-len("127.0.0.1:65535"))
	if got := ask(t, c, largest); got[:len(largest)] != largest {
		t.Errorf("the largest query came back as %d octets", len(got))
	}
	if st := r.Stats(); st.Odd != 3 {
		t.Errorf("%d odd datagrams counted, want 3", st.Odd)
	}
}

func TestAPanicCostsItsOwnDatagram(t *testing.T) {
	r := run(t, "127.0.0.1", 1)
	c := r.dial(t, "127.0.0.1")
	for range 20 {
		for _, query := range []string{"p", "P", "p"} {
			if _, err := c.Write([]byte(query)); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := ask(t, c, "q"), "q"+c.LocalAddr().String(); got != want {
			t.Fatalf("got %q after panics, want %q", got, want)
		}
	}
	eventually(t, "60 panics counted", func() bool { return r.panics.Load() == 60 })
}

func TestBusyWorkersCostAnswersAndNotTheLoop(t *testing.T) {
	r := run(t, "127.0.0.1", 1)
	c := r.dial(t, "127.0.0.1")
	for range 10 {
		if _, err := c.Write([]byte("l")); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := ask(t, c, "q"), "q"+c.LocalAddr().String(); got != want {
		t.Errorf("got %q while workers wait, want %q", got, want)
	}
	// The other kind of worker is still there.
	if got, want := ask(t, c, "w"), "w"+c.LocalAddr().String(); got != want {
		t.Errorf("got %q of a worker while others wait, want %q", got, want)
	}
	if st := r.Stats(); st.Wait != 2 || st.Dropped != 8 || st.BusyWait != 2 {
		t.Errorf("%+v, want 2 of 10 waiting and 8 dropped", st)
	}
	close(r.release)
	eventually(t, "workers are free again", func() bool { return r.Stats().BusyWait == 0 })
}

// An ICMP error of an answer to a client that is gone must not be taken for one of the next.
func TestClientsThatAreGoneHarmNobody(t *testing.T) {
	r := run(t, "127.0.0.1", 1)
	stays := r.dial(t, "127.0.0.1")
	for range 50 {
		goes := r.dial(t, "127.0.0.1")
		if _, err := goes.Write([]byte("w")); err != nil {
			t.Fatal(err)
		}
		goes.Close()
		if got, want := ask(t, stays, "q"), "q"+stays.LocalAddr().String(); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestRunEndsAtOnceAndUnderLoad(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		r := run(t, "127.0.0.1", 4)
		flood := make(chan struct{})
		var group sync.WaitGroup
		for range 2 {
			c := r.dial(t, "127.0.0.1")
			group.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-flood:
						return
					default:
						_, _ = c.Write([]byte{"qwl"[i%3]})
					}
				}
			})
		}
		eventually(t, "the flood arrives", func() bool { return r.Stats().Received > 100 })
		at := time.Now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if d := time.Since(at); d > 20*time.Second { // the flood goes on until then
			t.Errorf("it took %v to end", d)
		}
		close(flood)
		group.Wait()
	}
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

func TestWhatWasPassedOnIsAnsweredAtTheEnd(t *testing.T) {
	r := run(t, "127.0.0.1", 1)
	c := r.dial(t, "127.0.0.1")
	if _, err := c.Write([]byte("l")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the query is with a worker", func() bool { return r.Stats().BusyWait == 1 })
	if err := r.stop(); err != nil { // long work ends with the grace
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || buf[0] != 'l' {
		t.Errorf("read %q, %v; want the answer", buf[:n], err)
	}
}

func TestASocketThatIsClosedIsAnError(t *testing.T) {
	sockets, err := Listen(t.Context(), netip.MustParseAddr("127.0.0.1"), 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Sockets: []*Sockets{sockets}, Handler: func() Handler { return echo{new(atomic.Int64)} }})
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	sockets.conns[0].Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run() = %v, want that the socket is closed", err)
	}
}

// brokenConn fails to read, again and again.
type brokenConn struct{ reads int }

func (c *brokenConn) ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error) {
	c.reads++
	return 0, netip.AddrPort{}, errors.New("no buffer space available")
}
func (c *brokenConn) WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error) { return 0, nil }
func (c *brokenConn) SetReadDeadline(time.Time) error                        { return nil }

func TestAReadErrorThatLastsIsNotSpunOn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // with more, the race detector breaks down now and then in a bubble's timers (golang.org/issue/78156)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn := &brokenConn{}
		s := New(Config{Handler: func() Handler { return echo{new(atomic.Int64)} }})
		if err := s.plain(ctx, ctx, conn, &counters{}); err != nil {
			t.Errorf("plain() = %v, want nil at the end of the context", err)
		}
		if conn.reads < 2 || conn.reads > 102 {
			t.Errorf("read %d times in a second, want one each 10 ms", conn.reads)
		}
	})
}

// The plain loop runs elsewhere; here it is tried beside the other.
func TestThePlainLoopDoesTheSame(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var begun, panics atomic.Int64
	s := New(Config{
		Handler: func() Handler { return echo{&begun} },
		Slow: func(_ context.Context, query []byte, from netip.AddrPort) []byte {
			return append(query, from.String()...)
		},
		MaxWork: 1, MaxWait: 1, Panicked: func(any) { panics.Add(1) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	n := &counters{}
	done := make(chan error, 1)
	go func() { done <- s.plain(ctx, ctx, conn, n) }()
	c, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, other := range []string{strings.Repeat("x", BufferSize+1), "p", "d"} {
		if _, err := c.Write([]byte(other)); err != nil {
			t.Fatal(err)
		}
	}
	for _, query := range []string{"q", "w"} {
		if got, want := ask(t, c, query), query+c.LocalAddr().String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.workers.wait()
	if panics.Load() != 1 || n.odd.Load() != 1 || n.fast.Load() != 1 || n.work.Load() != 1 || n.received.Load() != 5 {
		t.Errorf("panics %d, odd %d, fast %d, work %d, received %d", panics.Load(), n.odd.Load(), n.fast.Load(), n.work.Load(), n.received.Load())
	}
}
