package memnet

import (
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// bubble runs a test in virtual time, on one processor: with more, the race detector of Go 1.26 breaks down now and then in the timers
// of a bubble (golang.org/issue/78156).
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, f)
}

func TestPackets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := New(1)
		a, b := n.Host(Addr(0)), n.Host(Addr(1))
		n.SetLatency(10*time.Millisecond, 0)
		start := time.Now()
		buf := []byte("hello")
		if _, err := a.WriteTo(buf, b.Addr()); err != nil {
			t.Fatal(err)
		}
		copy(buf, "xxxxx") // the sender may use its buffer again
		p := <-b.PacketCh()
		if string(p.Buf) != "hello" || time.Since(start) != 10*time.Millisecond || p.From.String() != a.Addr() {
			t.Errorf("got %q from %v after %v", p.Buf, p.From, time.Since(start))
		}
		got := func(from, to *Transport) int {
			for range 1000 {
				if _, err := from.WriteTo([]byte("x"), to.Addr()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
			count := 0
			for {
				select {
				case <-to.PacketCh():
					count++
				default:
					return count
				}
			}
		}
		n.SetLoss(0.3)
		if c := got(a, b); c < 600 || c > 800 {
			t.Errorf("%d of 1,000 packets arrived at 30 %% loss", c)
		}
		n.SetLoss(0)
		n.Cut(func(from, _ string) bool { return from == Addr(0) })
		if there, back := got(a, b), got(b, a); there != 0 || back != 1000 {
			t.Errorf("%d and %d packets over a cut in one direction, want 0 and 1,000", there, back)
		}
		n.Cut(nil)
		if err := b.Shutdown(); err != nil {
			t.Fatal(err)
		}
		if c := got(a, b); c != 0 {
			t.Errorf("%d packets reached a host that is gone", c)
		}
		if _, err := b.WriteTo([]byte("x"), a.Addr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("sending from a host that is gone: %v", err)
		}
	})
}

func TestStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := New(1)
		a, b := n.Host(Addr(0)), n.Host(Addr(1))
		n.SetLatency(20*time.Millisecond, 0)
		start := time.Now()
		c, err := a.DialTimeout(b.Addr(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 40*time.Millisecond {
			t.Errorf("opening took %v, want a round trip", d)
		}
		s := <-b.StreamCh()
		if s.RemoteAddr().String() != a.Addr() {
			t.Errorf("stream from %v, want %v", s.RemoteAddr(), a.Addr())
		}
		go func() {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}()
		if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
		n.Cut(func(from, to string) bool { return to == Addr(0) }) // the answer is lost
		start = time.Now()
		var timeout net.Error
		if _, err := a.DialTimeout(b.Addr(), time.Second); !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second {
			t.Errorf("dial over a cut: %v after %v, want a time-out after a second", err, time.Since(start))
		}
		n.Cut(nil)
		if _, err := a.DialAddressTimeout(memberlist.Address{Addr: "10.9.9.9:7946"}, time.Second); !errors.Is(err, ErrRefused) {
			t.Errorf("dial to nobody: %v", err)
		}
	})
}

func TestAddressesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for i := range 70000 {
		a := Addr(i)
		if seen[a] || net.ParseIP(a) == nil {
			t.Fatalf("address %d is %q", i, a)
		}
		seen[a] = true
	}
}

func TestLossMakesStreamsSlow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := New(1)
		a, b := n.Host(Addr(0)), n.Host(Addr(1))
		n.SetStreamLoss(0.5)
		opened, failed, slow := 0, 0, 0
		for range 100 {
			start := time.Now()
			c, err := a.DialTimeout(b.Addr(), 2*time.Second)
			if err != nil {
				failed++
				if time.Since(start) != 2*time.Second {
					t.Errorf("opening failed after %v, want all of the time to have been used", time.Since(start))
				}
				continue
			}
			opened++
			s := <-b.StreamCh()
			go func() {
				_, _ = c.Write(make([]byte, 10_000))
				_ = c.Close()
			}()
			start = time.Now()
			if got, err := io.ReadAll(s); err != nil || len(got) != 10_000 {
				t.Errorf("%d bytes arrived, %v; want all of them, late", len(got), err)
			}
			if time.Since(start) > time.Second {
				slow++
			}
		}
		if opened < 20 || failed < 20 || slow < opened/2 {
			t.Errorf("of 100 streams %d opened, %d did not, %d were slow; want many of each", opened, failed, slow)
		}
		n.SetStreamLoss(0)
		c, err := a.DialTimeout(b.Addr(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		n.SetStreamLoss(1)
		if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var timeout net.Error
		if _, err := c.Write([]byte("x")); !errors.As(err, &timeout) || time.Since(start) != 3*time.Second {
			t.Errorf("writing into nothing: %v after %v, want a time-out at the deadline", err, time.Since(start))
		}
		_ = c.Close()
	})
}

func TestAPausedHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := New(1)
		a, b := n.Host(Addr(0)), n.Host(Addr(1))
		b.Pause(true)
		for range 2 * maxHeld {
			if _, err := a.WriteTo([]byte("x"), b.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.WriteTo([]byte("y"), a.Addr()); err != nil {
			t.Fatal(err)
		}
		c, err := a.DialTimeout(b.Addr(), time.Second)
		if err != nil {
			t.Fatalf("a halted process still has a socket that is connected to: %v", err)
		}
		go func() {
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}()
		time.Sleep(time.Minute)
		if len(a.PacketCh()) != 0 || len(b.PacketCh()) != 0 {
			t.Errorf("%d packets from and %d to a paused host arrived", len(a.PacketCh()), len(b.PacketCh()))
		}
		b.Pause(false)
		if got := len(b.PacketCh()); got != maxHeld {
			t.Errorf("%d packets arrived after the pause, want the %d that were held", got, maxHeld)
		}
		if got, err := io.ReadAll(<-b.StreamCh()); err != nil || string(got) != "hello" {
			t.Errorf("read %q, %v after the pause", got, err)
		}
		b.Pause(true)
		b.Pause(true)
		b.Pause(false)
		b.Pause(false)
	})
}

func TestDistances(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := New(1)
		a, b := n.Host(Addr(0)), n.Host(Addr(1))
		n.SetLatency(time.Millisecond, 0)
		n.SetDistances(func(from, _ string) time.Duration {
			if from == Addr(0) {
				return 20 * time.Millisecond
			}
			return 5 * time.Millisecond
		})
		took := func(from, to *Transport) time.Duration {
			start := time.Now()
			if _, err := from.WriteTo([]byte("x"), to.Addr()); err != nil {
				t.Fatal(err)
			}
			<-to.PacketCh()
			return time.Since(start)
		}
		if there, back := took(a, b), took(b, a); there != 21*time.Millisecond || back != 6*time.Millisecond {
			t.Errorf("%v there and %v back, want 21 and 6 ms", there, back)
		}
		n.SetDistances(nil)
		if there := took(a, b); there != time.Millisecond {
			t.Errorf("%v without distances, want 1 ms", there)
		}
	})
}
