//go:build linux && cgo

package libct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// reader gathers what a session writes.
type reader struct {
	mu   sync.Mutex
	text strings.Builder
	done chan struct{}
}

func read(r io.Reader) *reader {
	g := &reader{done: make(chan struct{})}
	go func() {
		defer close(g.done)
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			g.mu.Lock()
			g.text.Write(buf[:n])
			g.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return g
}

func (g *reader) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

func TestExec(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	c, _ := n.begin()
	for _, image := range []bool{false, true} {
		id := fmt.Sprintf("e-%v", image)
		spec := n.shell(id, "echo secret >/tmp/of-"+id+"; echo up; sleep 1000")
		spec.Env = append(spec.Env, "OF=container")
		if image {
			spec.Container.Mesos, spec.User = busyboxImage(), "web"
			*spec.Command.Value = "echo up; sleep 1000"
		} else {
			t.Cleanup(func() { _ = os.Remove("/tmp/of-" + id) })
		}
		if _, err := c.Launch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it to be up", func() bool { return n.output(id) == "up" })
		t.Run(fmt.Sprintf("pipes-%v", image), func(t *testing.T) {
			s, err := c.Exec(t.Context(), id, containerizer.Process{
				Path: "/bin/sh", Args: []string{"sh", "-c", `echo "$OF $MINE $(id -u)"; cat; echo error >&2; grep Seccomp: /proc/self/status >&2; exit 5`}, Env: []string{"MINE=exec"},
			})
			if err != nil {
				t.Fatal(err)
			}
			out, errs := read(s.Output()), read(s.ErrOutput())
			if _, err := io.WriteString(s.Input(), "typed\n"); err != nil {
				t.Error(err)
			}
			if err := s.Input().Close(); err != nil {
				t.Error(err)
			}
			e, err := s.Wait(t.Context())
			if err != nil || !e.Known || e.Status != 5<<8 {
				t.Errorf("got %+v, %v", e, err)
			}
			<-out.done
			<-errs.done
			who := "0"
			if image {
				who = "4321"
			}
			if got := out.String(); got != "container exec "+who+"\ntyped\n" {
				t.Errorf("got %q", got)
			}
			if got := errs.String(); !strings.HasPrefix(got, "error\n") || seccompBuiltIn && !strings.Contains(got, "2") {
				t.Errorf("got %q", got)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		t.Run(fmt.Sprintf("terminal-%v", image), func(t *testing.T) {
			s, err := c.Exec(t.Context(), id, containerizer.Process{Path: "/bin/sh", Args: []string{"sh"}, Terminal: true, Columns: 91, Rows: 17})
			if err != nil {
				t.Fatal(err)
			}
			if s.ErrOutput() != nil {
				t.Error("a terminal has an output for errors")
			}
			out := read(s.Output())
			say := func(text string) {
				if _, err := io.WriteString(s.Input(), text); err != nil {
					t.Error(err)
				}
			}
			say("tty; stty size\n")
			waitFor(t, "the size", func() bool { return strings.Contains(out.String(), "17 91") })
			if !strings.Contains(out.String(), "/dev/") {
				t.Errorf("got %q", out.String())
			}
			if err := s.Resize(100, 30); err != nil {
				t.Error(err)
			}
			waitFor(t, "the other size", func() bool {
				say("stty size\n")
				return strings.Contains(out.String(), "30 100")
			})
			say("exit 3\n")
			if e, err := s.Wait(t.Context()); err != nil || e.Status != 3<<8 {
				t.Errorf("got %+v, %v", e, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		t.Run(fmt.Sprintf("closed-%v", image), func(t *testing.T) {
			before, err := c.Usage(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			s, err := c.Exec(t.Context(), id, containerizer.Process{Path: "sh", Args: []string{"sh", "-c", "trap '' TERM HUP; echo up; while :; do sleep 1; done"}})
			if err != nil {
				t.Fatal(err)
			}
			out := read(s.Output())
			waitFor(t, "it to be up", func() bool { return strings.Contains(out.String(), "up") })
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if e, err := s.Wait(t.Context()); err == nil && e.Known && syscall.WaitStatus(e.Status).Signal() != syscall.SIGKILL {
				t.Errorf("got %+v", e)
			}
			waitFor(t, "its processes to go", func() bool {
				u, err := c.Usage(t.Context(), id)
				return err == nil && u.Processes == before.Processes
			})
		})
		t.Run(fmt.Sprintf("missing-%v", image), func(t *testing.T) {
			_, err := c.Exec(t.Context(), id, containerizer.Process{Path: "/no/such"})
			if err == nil || err.Error() != `cannot run "/no/such": no such file or directory` {
				t.Errorf("got %v", err)
			}
			if _, err = c.Exec(t.Context(), id, containerizer.Process{Path: "sh", User: "ghost"}); err == nil || !strings.Contains(err.Error(), "no such user") {
				t.Errorf("got %v", err)
			}
			if _, err := c.Attach(t.Context(), id); !errors.Is(err, containerizer.ErrNoTerminal) {
				t.Errorf("got %v, want ErrNoTerminal", err)
			}
		})
	}
}

func TestTerminal(t *testing.T) {
	n := newNode(t)
	n.withBusybox()
	for _, image := range []bool{false, true} {
		t.Run(fmt.Sprint(image), func(t *testing.T) {
			c, _ := n.begin()
			id := fmt.Sprintf("t-%v", image)
			spec := n.shell(id, "tty; stty size; while read line; do echo \"got $line\"; [ \"$line\" = end ] && exit 4; done")
			spec.Container.TtyInfo = &mesos.TTYInfo{WindowSize: &mesos.TTYInfo_WindowSize{Rows: proto.Uint32(11), Columns: proto.Uint32(77)}}
			if image {
				spec.Container.Mesos = busyboxImage()
			}
			if _, err := c.Launch(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the size in its log", func() bool { return strings.Contains(n.output(id), "11 77") })
			attach := func(c *Containerizer) (containerizer.Session, *reader) {
				s, err := c.Attach(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				return s, read(s.Output())
			}
			s, out := attach(c)
			other, seen := attach(c)
			// Who attaches sees what comes once the relay has taken notice.
			waitFor(t, "the answer at both", func() bool {
				if _, err := io.WriteString(s.Input(), "hello\n"); err != nil {
					t.Fatal(err)
				}
				return strings.Contains(out.String(), "got hello") && strings.Contains(seen.String(), "got hello")
			})
			// Whoever writes second is turned away.
			if _, err := io.WriteString(other.Input(), "intruder\n"); err == nil {
				<-seen.done
			}
			if strings.Contains(n.output(id), "intruder") {
				t.Error("two write to one terminal")
			}
			_ = other.Close()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			// The relay outlives the agent.
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			c, x := n.begin()
			s, out = attach(c)
			waitFor(t, "the answer in the next life", func() bool {
				if _, err := io.WriteString(s.Input(), "again\n"); err != nil {
					// The relay had not taken notice that the one before had left, and turned this one away.
					_ = s.Close()
					s, out = attach(c)
				}
				return strings.Contains(out.String(), "got again")
			})
			if _, err := io.WriteString(s.Input(), "end\n"); err != nil {
				t.Error(err)
			}
			if e := x.await(id); !e.Known || e.Status != 4<<8 {
				t.Errorf("got %+v", e)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := s.Wait(ctx); err != nil {
				t.Error(err)
			}
			_ = s.Close()
			if got := n.output(id); !strings.Contains(got, "got hello") || !strings.Contains(got, "got again") {
				t.Errorf("its log is %q", got)
			}
			if err := c.Remove(t.Context(), id); err != nil {
				t.Error(err)
			}
			// Two lives at a time would end each other's containers.
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
