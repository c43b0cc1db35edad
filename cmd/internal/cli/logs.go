package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/cmd/internal/flags"
	"starling/gossip/api"
	operator "starling/master/mesos/operator/agent"
)

// logs is "task logs".
type logs struct {
	frameworkChoice
	follow, stderr, raw bool
	tail                int
}

func (l *logs) register(s *flags.Set) {
	l.frameworkChoice.register(s)
	s.BoolVar(&l.follow, "follow", false, "go on with what the task writes, until it has ended; short -f")
	s.Alias("follow", "f")
	s.BoolVar(&l.stderr, "stderr", false, "print what it writes to stderr, instead of stdout")
	s.IntVar(&l.tail, "tail", -1, "begin with the last `number` of lines; all if negative")
	s.BoolVar(&l.raw, "raw", false, "print to a terminal what was written as it is; anything else gets it so anyway")
}

// readEvery is how often a file is looked at, endEvery how often the task is.
const (
	readEvery = 250 * time.Millisecond
	endEvery  = 2 * time.Second
)

func (l *logs) run(ctx context.Context, c *call) error {
	t, err := l.task(ctx, c, c.args[0])
	if err != nil {
		return err
	}
	return l.of(ctx, c, t, c.io.Out)
}

// of prints what one task writes.
func (l *logs) of(ctx context.Context, c *call, t *api.Task, to io.Writer) (err error) {
	agent, err := c.agentOf(t)
	if err != nil {
		return err
	}
	name := "stdout"
	if l.stderr {
		name = "stderr"
	}
	f := &remoteFile{client: agent}
	if err := f.find(ctx, t, name); err != nil {
		return err
	}
	if l.tail >= 0 {
		if err := f.skipTo(ctx, l.tail); err != nil {
			return err
		}
	}
	out := to
	if !l.raw && isTerminal(c.io.Out) {
		h := &harmless{out: to}
		defer func() { err = errors.Join(err, h.flush()) }()
		out = h
	}
	if err := f.copy(ctx, out); err != nil || !l.follow {
		return err
	}
	return l.goOn(ctx, c, t, f, out)
}

// goOn follows the file until the task has ended.
func (l *logs) goOn(ctx context.Context, c *call, t *api.Task, f *remoteFile, out io.Writer) error {
	look, end := time.NewTicker(readEvery), time.NewTicker(endEvery)
	defer look.Stop()
	defer end.Stop()
	ended := !running(t.State)
	for {
		err := f.copy(ctx, out)
		if errors.Is(err, errGone) {
			fmt.Fprintf(c.io.Err, "starling task logs: %v\n", err)
			err = nil
		}
		if ctx.Err() != nil {
			return nil // Ctrl-C is the way to end this
		} else if err != nil || ended {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		case <-end.C:
			tasks, err := c.tasks(ctx)
			if err != nil && ctx.Err() == nil {
				return err
			}
			ended = !slices.ContainsFunc(tasks, func(now api.Task) bool {
				return now.ID == t.ID && now.FrameworkID == t.FrameworkID && running(now.State)
			})
		}
	}
}

// remoteFile is a file in a sandbox, read from an offset on.
type remoteFile struct {
	client *client
	path   string
	offset uint64
	// older is what had been put aside before what is at the offset, the newest first; known once listed is set.
	older  []aside
	listed bool
}

// sandboxes are the paths at which the sandbox of a task may be found, by how its agent names them.
func sandboxes(t *api.Task) []string {
	executor := path.Join("/frameworks", t.FrameworkID, "executors", t.ExecutorID)
	run := path.Join(executor, "runs", "latest")
	if t.ExecutorID == t.ID {
		return []string{run}
	}
	return []string{path.Join(executor, "tasks", t.ID), run}
}

// find looks for a file of a task.
func (f *remoteFile) find(ctx context.Context, t *api.Task, name string) error {
	var last error
	for _, dir := range sandboxes(t) {
		f.path = path.Join(dir, name)
		if _, _, last = f.read(ctx, 0, 0); last == nil || !isStatus(last, http.StatusNotFound) {
			return last
		}
	}
	return fmt.Errorf("the agent has no %q of task %q: its sandbox may have been removed, or not been made yet: %w", name, t.ID, last)
}

func isStatus(err error, status int) bool {
	var r *refusal
	return errors.As(err, &r) && r.status == status
}

// read returns a part of the file, and how large that is.
func (f *remoteFile) read(ctx context.Context, offset, length uint64) (data []byte, size uint64, err error) {
	answer, err := f.client.operator(ctx, &operator.Call{
		Type:     operator.Call_READ_FILE.Enum(),
		ReadFile: &operator.Call_ReadFile{Path: &f.path, Offset: &offset, Length: proto.Uint64(length)},
	})
	return answer.GetReadFile().GetData(), answer.GetReadFile().GetSize(), err
}

// readAtOnce is how much is asked for at once: agents give no more.
const readAtOnce = 64 << 10

// skipTo moves to the beginning of the last lines.
func (f *remoteFile) skipTo(ctx context.Context, lines int) error {
	_, size, err := f.read(ctx, 0, 0)
	if err != nil {
		return err
	}
	end := size
	for at := size; at > 0; {
		from := at - min(at, readAtOnce)
		data, _, err := f.read(ctx, from, at-from)
		if err != nil {
			return err
		}
		for i := len(data) - 1; i >= 0; i-- {
			// A line feed at the very end closes the last line.
			if data[i] != '\n' || from+uint64(i)+1 == end {
				continue
			}
			if lines--; lines <= 0 {
				f.offset = from + uint64(i) + 1
				if lines < 0 {
					f.offset = end
				}
				return nil
			}
		}
		at = from
	}
	if lines == 0 {
		f.offset = end
	}
	return nil
}

// harmless writes to a terminal what others have written: control characters are escaped, all but line feeds, tabs, carriage
// returns before a line feed, and the sequences that choose colours.
type harmless struct {
	out io.Writer
	// held is the beginning of what may be such a sequence, or of a character.
	held []byte
}

// heldMax is the longest sequence that is waited for.
const heldMax = 64

// Write implements io.Writer.
func (h *harmless) Write(p []byte) (int, error) {
	data := append(h.held, p...)
	h.held = nil
	var b bytes.Buffer
	for len(data) > 0 {
		n, whole := h.next(data)
		if !whole && len(data) < heldMax {
			h.held = bytes.Clone(data)
			break
		}
		switch text := string(data[:n]); {
		case text == "\n", text == "\t", text == "\r\n", n > 2 && text[0] == 0x1b:
			b.WriteString(text)
		default:
			b.WriteString(clean(text))
		}
		data = data[n:]
	}
	if _, err := h.out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what was held back, at the end.
func (h *harmless) flush() error {
	_, err := io.WriteString(h.out, clean(string(h.held)))
	h.held = nil
	return err
}

// next tells how long the first unit is that is written as a whole; whole is false where more has to come to know.
func (h *harmless) next(data []byte) (n int, whole bool) {
	switch {
	case data[0] == '\r':
		if len(data) == 1 {
			return 1, false
		}
		if data[1] == '\n' {
			return 2, true
		}
		return 1, true
	case data[0] == 0x1b:
		if len(data) == 1 {
			return 1, false
		}
		if data[1] != '[' {
			return 1, true
		}
		for i := 2; i < len(data) && i < heldMax; i++ {
			if c := data[i]; c == 'm' {
				return i + 1, true
			} else if (c < '0' || c > '9') && c != ';' {
				return 1, true
			}
		}
		return 1, len(data) >= heldMax
	case data[0] < 0x80:
		// All up to the next character that means something, so that text is not taken apart.
		for i := 1; i < len(data); i++ {
			if data[i] < 0x20 || data[i] >= 0x7f {
				return i, true
			}
		}
		if data[0] < 0x20 {
			return 1, true
		}
		return len(data), true
	}
	return decodeRune(data)
}
