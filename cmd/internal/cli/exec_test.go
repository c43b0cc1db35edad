package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"

	"starling/agent/containerizer/containerizertest"
	"starling/agent/testenv"
)

func TestTaskExec(t *testing.T) {
	c := newCluster(t, func(p *containerizertest.FakeProcess) int {
		switch p.Process.Path {
		case "code":
			fmt.Fprintf(p.Out, "%q", p.Process.Args)
			fmt.Fprint(p.ErrOut, "oops")
			return 7 << 8
		case "signal":
			return int(syscall.SIGKILL)
		}
		n, _ := io.Copy(p.Out, p.In)
		fmt.Fprintf(p.Out, "read %d", n)
		return 0
	})
	c.want(Task, 7, `["code" "-x" "a b"]`, "oops", "exec", "web", "--", "code", "-x", "a b")
	c.want(Task, 128+9, "", "", "exec", "web", "--", "signal")
	c.want(Task, 0, "read 0", "", "exec", "web", "cat")
	if out, errs, code := c.run(Task, "some input", "exec", "-i", "web", "--", "cat"); out != "some inputread 10" || errs != "" || code != 0 {
		t.Errorf("with input: %q %q %d", out, errs, code)
	}
	long := strings.Repeat("0123456789abcde\n", 1<<16)
	if out, errs, code := c.run(Task, long, "exec", "-i", "web", "--", "cat"); out != long+"read 1048576" || errs != "" || code != 0 {
		t.Errorf("with much input: %d bytes, %q, %d", len(out), errs, code)
	}
	c.want(Task, 125, "", "failed to launch container: cannot run \"missing\": no such file or directory", "exec", "web", "--", "missing")
	c.want(Task, 2, "", "expecting TASK -- COMMAND", "exec", "web")
}

func TestTaskExecIsInterrupted(t *testing.T) {
	left := make(chan struct{})
	c := newCluster(t, func(p *containerizertest.FakeProcess) int {
		fmt.Fprint(p.Out, "on")
		<-p.Left
		close(left)
		return 0
	})
	ctx, interrupt := context.WithCancel(t.Context())
	out, ended := &lines{}, make(chan int, 1)
	go func() {
		ended <- Task(ctx, Streams{Out: out, Err: io.Discard}, []string{"exec", "web", "sleep", "--agent", c.mesh.addr}, nil)
	}()
	c.until("it runs", func() bool { return out.String() == "on" })
	interrupt()
	if code := <-ended; code != 130 {
		t.Errorf("code %d, want 130", code)
	}
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("the command goes on")
	}
}

func TestTaskExecOnATerminal(t *testing.T) {
	sizes := make(chan [2]uint16, 4)
	c := newCluster(t, func(p *containerizertest.FakeProcess) int {
		sizes <- [2]uint16{p.Process.Columns, p.Process.Rows}
		fmt.Fprintf(p.Out, "%v$ ", p.Process.Terminal)
		sizes <- <-p.Sizes
		key := make([]byte, 1)
		if _, err := io.ReadFull(p.In, key); err != nil {
			return 1 << 8
		}
		fmt.Fprintf(p.Out, "got %q", key)
		return 5 << 8
	})
	pty, slave, err := console.NewPty()
	if err != nil {
		testenv.Lacks(t, "no terminals here: %v", err)
	}
	defer pty.Close()
	if err := pty.Resize(console.WinSize{Height: 30, Width: 100}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(slave, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	out := &lines{}
	go io.Copy(out, pty) // ends when the terminal is closed
	ended := make(chan int, 1)
	go func() {
		ended <- Task(t.Context(), Streams{Out: tty, Err: tty, In: tty}, []string{"exec", "-it", "web", "--agent", c.mesh.addr, "--", "sh"}, nil)
	}()
	if got := <-sizes; got != [2]uint16{100, 30} {
		t.Errorf("the terminal begins with %v", got)
	}
	c.until("there is a prompt", func() bool { return strings.Contains(out.String(), "true$ ") })
	if err := pty.Resize(console.WinSize{Height: 31, Width: 101}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil { // it is not the terminal of this process
		t.Fatal(err)
	}
	if got := <-sizes; got != [2]uint16{101, 31} {
		t.Errorf("the terminal has become %v", got)
	}
	// Ctrl-C is a key like any other, and is not echoed.
	if _, err := pty.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != 5 {
		t.Errorf("code %d, want 5", code)
	}
	c.until("the answer is shown", func() bool { return strings.HasSuffix(out.String(), `got "\x03"`) })
	if _, err := pty.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	c.until("what is typed is echoed again", func() bool { return strings.HasSuffix(out.String(), "x") })
}

func TestOutputIsHarmlessOnATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"plain é 漢\n":            "plain é 漢\n",
		"\x1b[31mred\x1b[0m\n":   "\x1b[31mred\x1b[0m\n",
		"\x1b[1;31mred\x1b[m":    "\x1b[1;31mred\x1b[m",
		"\x1b[2Jgone":            `\x1b[2Jgone`,
		"\x1b]0;title\x07":       `\x1b]0;title\a`,
		"a\r\nb\tc":              "a\r\nb\tc",
		"over\rwritten":          `over\rwritten`,
		"\x9b2J\xff":             `\x9b2J\xff`,
		"\u009b2J\u202e":         `\u009b2J\u202e`,
		"\x00\x08\x7f":           `\x00\b\x7f`,
		strings.Repeat("é", 100): strings.Repeat("é", 100),
	} {
		for _, step := range []int{1, 2, 3, 1000} {
			var b bytes.Buffer
			h := &harmless{out: &b}
			for at := 0; at < len(text); at += step {
				if _, err := h.Write([]byte(text[at:min(len(text), at+step)])); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.flush(); err != nil {
				t.Fatal(err)
			}
			if b.String() != want {
				t.Errorf("%q in steps of %d: %q, want %q", text, step, b.String(), want)
			}
		}
	}
}

func FuzzHarmless(f *testing.F) {
	for _, seed := range []string{"a\x1b[31mb", "\x1b[", "\xe6\xbc", "\x1b[2J\u202e"} {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		cut = min(max(cut, 0), len(text))
		var b bytes.Buffer
		h := &harmless{out: &b}
		_, _ = h.Write(text[:cut])
		_, _ = h.Write(text[cut:])
		_ = h.flush()
		rest := b.String()
		for at := strings.Index(rest, "\x1b"); at >= 0; at = strings.Index(rest, "\x1b") {
			end := strings.IndexByte(rest[at:], 'm')
			if end < 0 || strings.Trim(rest[at:at+end], "\x1b[0123456789;") != "" {
				t.Fatalf("%q becomes %q", text, b.String())
			}
			rest = rest[at+end+1:]
		}
	})
}
