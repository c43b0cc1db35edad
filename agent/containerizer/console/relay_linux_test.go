package console

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
)

// screen is a terminal with a relay. The container is whoever has slave.
type screen struct {
	t      *testing.T
	slave  *os.File
	log    string
	socket string
	ended  chan error
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	// As ReceiveMaster has it: reads wait in a thread.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// It is to show what is written, and no more.
	mode, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	mode.Lflag &^= unix.ECHO
	mode.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, mode); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &screen{t: t, slave: slave, log: filepath.Join(dir, "log"), socket: filepath.Join(dir, "console"), ended: make(chan error, 1)}
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- Relay(master, log, listener) }()
	t.Cleanup(func() {
		s.slave.Close()
		select {
		case <-s.ended:
		case <-time.After(time.Minute):
			t.Error("the relay does not end with the terminal")
		}
		log.Close()
	})
	return s
}

// end closes the side of the container.
func (s *screen) end() {
	s.t.Helper()
	s.slave.Close()
	if err := <-s.ended; err != nil {
		s.t.Error(err)
	}
	s.ended <- nil
}

func (s *screen) attach() containerizer.Session {
	s.t.Helper()
	session, err := Attach(s.t.Context(), s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { session.Close() })
	return session
}

// show writes as the container, until somebody who is attached has seen it: who attaches is not there at once.
func (s *screen) show(text string, all ...*reading) {
	s.t.Helper()
	seen := func() bool {
		for _, r := range all {
			if !strings.Contains(r.String(), text) {
				return false
			}
		}
		return true
	}
	for deadline := time.Now().Add(time.Minute); !seen(); time.Sleep(5 * time.Millisecond) {
		if _, err := s.slave.WriteString(text); err != nil {
			s.t.Fatal(err)
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%q is not seen by all", text)
		}
	}
}

// reading gathers the output of a session.
type reading struct {
	mu   sync.Mutex
	text strings.Builder
	done chan struct{}
}

func read(s containerizer.Session) *reading {
	r := &reading{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		_, _ = io.Copy(r, s.Output())
	}()
	return r
}

func (r *reading) Write(text []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(text)
}

func (r *reading) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *reading) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// hasInput tells whether there is something for the container to read.
func (s *screen) hasInput() bool {
	s.t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.slave.Fd()), Events: unix.POLLIN}}, 0)
	if err != nil && !errors.Is(err, unix.EINTR) {
		s.t.Fatal(err)
	}
	return n > 0
}

// line reads a line as the container.
func (s *screen) line() string {
	s.t.Helper()
	buf := make([]byte, 4096)
	n, err := s.slave.Read(buf)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(buf[:n])
}

func TestAllReadAndOneWrites(t *testing.T) {
	s := newScreen(t)
	one, two := s.attach(), s.attach()
	first, second := read(one), read(two)
	s.show("hello", first, second)
	if _, err := io.WriteString(one.Input(), "typed\n"); err != nil {
		t.Fatal(err)
	}
	if got := s.line(); got != "typed\n" {
		t.Errorf("the container reads %q", got)
	}
	// Whoever writes second is turned away: its session ends, that of the other goes on.
	_, _ = io.WriteString(two.Input(), "intruder\n")
	<-second.done
	if _, err := two.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(one.Input(), "typed again\n"); err != nil {
		t.Fatal(err)
	}
	if got := s.line(); got != "typed again\n" {
		t.Errorf("the container reads %q", got)
	}
	// The next may, once the first is gone.
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	var third *reading
	for deadline := time.Now().Add(time.Minute); !s.hasInput(); {
		if time.Now().After(deadline) {
			t.Fatal("nobody else may write")
		}
		next := s.attach()
		third = read(next)
		s.show("are you there", third)
		_, _ = io.WriteString(next.Input(), "me\n")
		for !s.hasInput() && !third.ended() {
			time.Sleep(time.Millisecond)
		}
	}
	if got := s.line(); got != "me\n" {
		t.Errorf("the container reads %q", got)
	}
	s.show("still", third)
	s.end()
	if log, err := os.ReadFile(s.log); err != nil || !strings.Contains(string(log), "hello") || !strings.Contains(string(log), "still") || strings.Contains(string(log), "typed") {
		t.Errorf("the log is %q, %v", log, err)
	}
}

func TestResize(t *testing.T) {
	s := newScreen(t)
	session := s.attach()
	if err := session.Resize(123, 45); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		size, err := unix.IoctlGetWinsize(int(s.slave.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			t.Fatal(err)
		}
		if size.Col == 123 && size.Row == 45 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("size is %+v", size)
		}
	}
}

// Who does not read holds up neither the container nor its log, and is told the end.
func TestReaderThatDoesNotRead(t *testing.T) {
	s := newScreen(t)
	lazy, busy := s.attach(), s.attach()
	seen := read(busy)
	s.show("begin", seen)
	const lines, width = 4000, 1000
	text := strings.Repeat("x", width-1) + "\n"
	for range lines {
		if _, err := s.slave.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	s.slave.Close()
	got := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, lazy.Output())
		got <- err
	}()
	select {
	case err := <-got:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the end is not told")
	}
	s.end()
	if info, err := os.Stat(s.log); err != nil || info.Size() < lines*width {
		t.Errorf("the log is %v, %v: want %d bytes and more", info.Size(), err, lines*width)
	}
}

// What is no frame ends the connection, and nothing else.
func TestNonsenseIsRefused(t *testing.T) {
	s := newScreen(t)
	other := s.attach()
	seen := read(other)
	for _, text := range []string{"x\x00\x00", "i\xff\xff", "r\x00\x01a"} {
		conn, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q is taken", text)
		}
	}
	s.show("unharmed", seen)
}
