package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"

	"starling/cmd/internal/flags"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/agent"
	"starling/master/mesos/recordio"
)

// The exit codes of "task exec" beside those of the command.
const (
	exitCannotRun   = 125
	exitSignalled   = 128 // and the number of the signal
	exitInterrupted = 130
)

// exec is "task exec".
type exec struct {
	frameworkChoice
	terminal, interactive, both bool
}

func (e *exec) register(s *flags.Set) {
	e.frameworkChoice.register(s)
	s.BoolVar(&e.terminal, "tty", false, "give the command a terminal; short -t")
	s.Alias("tty", "t")
	s.BoolVar(&e.interactive, "interactive", false, "let the command read what is typed, or piped; short -i")
	s.Alias("interactive", "i")
	s.BoolVar(&e.both, "it", false, "short for --interactive --tty")
}

func (e *exec) run(ctx context.Context, c *call) error {
	e.terminal, e.interactive = e.terminal || e.both, e.interactive || e.both
	code, err := e.session(ctx, c)
	switch {
	case ctx.Err() != nil:
		return &exitError{exitInterrupted, errors.New("interrupted")}
	case err != nil:
		return &exitError{exitCannotRun, err}
	case code != 0:
		return &exitError{code: code}
	}
	return nil
}

func (e *exec) session(ctx context.Context, c *call) (code int, err error) {
	t, err := e.task(ctx, c, c.args[0])
	if err != nil {
		return 0, err
	}
	if !running(t.State) || t.ContainerID == "" {
		return 0, fmt.Errorf("task %q does not run: it is %s", t.ID, t.State)
	}
	agent, err := c.agentOf(t)
	if err != nil {
		return 0, err
	}
	id := &mesos.ContainerID{Value: proto.String(uuid.NewString()), Parent: containerID(t.ContainerID)}
	head, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := agent.post(head, &operator.Call{
		Type: operator.Call_LAUNCH_NESTED_CONTAINER_SESSION.Enum(),
		LaunchNestedContainerSession: &operator.Call_LaunchNestedContainerSession{
			ContainerId: id, Command: e.command(c.args[1:]), Container: e.container(c.io),
		},
	}, http.Header{"Accept": {codec.TypeRecordIO}, "Message-Accept": {codec.TypeProtobuf}})
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	restore, err := e.raw(c.io)
	if err != nil {
		return 0, err
	}
	defer restore()
	in := attach(head, agent, id)
	defer in.close()
	e.feed(head, c.io, in)
	if err := show(res.Body, c.io); err != nil {
		return 0, fmt.Errorf("the session broke off: %w", err)
	}
	return exitOf(ctx, agent, id)
}

// containerID is an id by its values, outermost first, joined by dots.
func containerID(name string) *mesos.ContainerID {
	var id *mesos.ContainerID
	for value := range strings.SplitSeq(name, ".") {
		id = &mesos.ContainerID{Value: proto.String(value), Parent: id}
	}
	return id
}

// command is what is run: a program with its arguments, and no shell.
func (e *exec) command(args []string) *mesos.CommandInfo {
	out := &mesos.CommandInfo{Shell: proto.Bool(false), Value: &args[0], Arguments: args}
	if name := os.Getenv("TERM"); e.terminal && name != "" {
		out.Environment = &mesos.Environment{Variables: []*mesos.Environment_Variable{{Name: proto.String("TERM"), Value: &name}}}
	}
	return out
}

// container asks for a terminal of the size of ours.
func (e *exec) container(s Streams) *mesos.ContainerInfo {
	if !e.terminal {
		return nil
	}
	tty := &mesos.TTYInfo{}
	if columns, rows, ok := size(s); ok {
		tty.WindowSize = window(columns, rows)
	}
	return &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), TtyInfo: tty}
}

func window(columns, rows int) *mesos.TTYInfo_WindowSize {
	return &mesos.TTYInfo_WindowSize{Columns: proto.Uint32(uint32(columns)), Rows: proto.Uint32(uint32(rows))}
}

// size is that of our terminal, if there is one.
func size(s Streams) (columns, rows int, ok bool) {
	for _, v := range []any{s.Out, s.In} {
		if f, is := v.(*os.File); is && isTerminal(v) {
			if columns, rows, err := term.GetSize(int(f.Fd())); err == nil {
				return columns, rows, true
			}
		}
	}
	return 0, 0, false
}

// raw hands every key that is typed to the command, Ctrl-C too; the function given back undoes that.
func (e *exec) raw(s Streams) (restore func(), err error) {
	f, ok := s.In.(*os.File)
	if !e.terminal || !e.interactive || !ok || !isTerminal(s.In) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("cannot set up the terminal: %w", err)
	}
	return func() { _ = term.Restore(int(f.Fd()), old) }, nil
}

// feed sends what is typed, and the sizes of our terminal as they change.
func (e *exec) feed(ctx context.Context, s Streams, in *input) {
	if e.interactive && s.In != nil {
		// Nobody waits for this one: reading a terminal cannot be broken off, and the program is about to end.
		go func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := s.In.Read(buf)
				if n > 0 && in.data(buf[:n]) != nil {
					return
				}
				if err != nil {
					_ = in.data(nil)
					return
				}
			}
		}()
	} else {
		_ = in.data(nil)
	}
	if !e.terminal {
		return
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	in.owned.Go(func() {
		defer signal.Stop(changes)
		for {
			select {
			case <-changes:
				if columns, rows, ok := size(s); ok {
					_ = in.resize(columns, rows)
				}
			case <-ctx.Done():
				return
			case <-in.ended:
				return
			}
		}
	})
}

// show prints what comes out of a session, until it ends.
func show(body io.Reader, s Streams) error {
	records := recordio.NewReader(body, 0)
	for {
		rec, err := records.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		p := &operator.ProcessIO{}
		if err := codec.Protobuf.Unmarshal(rec, p); err != nil {
			return err
		}
		to := s.Out
		if p.GetData().GetType() == operator.ProcessIO_Data_STDERR {
			to = s.Err
		}
		if data := p.GetData().GetData(); len(data) > 0 {
			if _, err := to.Write(data); err != nil {
				return err
			}
		}
	}
}

// exitTimeout bounds the wait for the exit of a command whose output has ended.
const exitTimeout = 15 * time.Second

// exitOf asks how a command has ended, as a code.
func exitOf(ctx context.Context, agent *client, id *mesos.ContainerID) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	answer, err := agent.operator(ctx, &operator.Call{
		Type: operator.Call_WAIT_CONTAINER.Enum(), WaitContainer: &operator.Call_WaitContainer{ContainerId: id},
	})
	if err != nil {
		return 0, fmt.Errorf("cannot learn how the command has ended: %w", err)
	}
	_, _ = agent.operator(ctx, &operator.Call{
		Type: operator.Call_REMOVE_CONTAINER.Enum(), RemoveContainer: &operator.Call_RemoveContainer{ContainerId: id},
	}) // it is forgotten in time anyway
	w := answer.GetWaitContainer()
	if w.ExitStatus == nil {
		return 0, fmt.Errorf("cannot learn how the command has ended: %s", w.GetMessage())
	}
	status := syscall.WaitStatus(w.GetExitStatus())
	if status.Signaled() {
		return exitSignalled + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// input is a request that carries what a command reads.
type input struct {
	w *io.PipeWriter
	// ended is closed by close; owned are the goroutines that end then.
	ended chan struct{}
	owned sync.WaitGroup
}

// attach begins to send to a session. That it cannot be is no fault of its own: the session says what is wrong.
func attach(ctx context.Context, agent *client, id *mesos.ContainerID) *input {
	r, w := io.Pipe()
	in := &input{w: w, ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(ctx)
	in.owned.Go(func() {
		defer cancel()
		defer r.Close()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+agent.nodes[0]+"/api/v1", r)
		if err != nil {
			return
		}
		req.Header.Set("Content-Type", codec.TypeRecordIO)
		req.Header.Set("Message-Content-Type", codec.TypeProtobuf)
		res, err := agent.http.Do(req)
		if err != nil {
			return
		}
		res.Body.Close()
	})
	in.owned.Go(func() {
		<-in.ended
		cancel()
	})
	_ = in.send(&operator.Call_AttachContainerInput{Type: operator.Call_AttachContainerInput_CONTAINER_ID.Enum(), ContainerId: id})
	return in
}

// send sends one record; it fails once nobody takes any more.
func (i *input) send(a *operator.Call_AttachContainerInput) error {
	rec, err := codec.Protobuf.Marshal(&operator.Call{Type: operator.Call_ATTACH_CONTAINER_INPUT.Enum(), AttachContainerInput: a})
	if err != nil {
		return err
	}
	_, err = i.w.Write(recordio.Append(nil, rec))
	return err
}

// data sends what was typed; nothing is the end of it.
func (i *input) data(data []byte) error {
	return i.process(&operator.ProcessIO{Type: operator.ProcessIO_DATA.Enum(), Data: &operator.ProcessIO_Data{
		Type: operator.ProcessIO_Data_STDIN.Enum(), Data: data,
	}})
}

func (i *input) resize(columns, rows int) error {
	return i.process(&operator.ProcessIO{Type: operator.ProcessIO_CONTROL.Enum(), Control: &operator.ProcessIO_Control{
		Type: operator.ProcessIO_Control_TTY_INFO.Enum(), TtyInfo: &mesos.TTYInfo{WindowSize: window(columns, rows)},
	}})
}

func (i *input) process(p *operator.ProcessIO) error {
	return i.send(&operator.Call_AttachContainerInput{Type: operator.Call_AttachContainerInput_PROCESS_IO.Enum(), ProcessIo: p})
}

// close ends the request.
func (i *input) close() {
	close(i.ended)
	i.w.Close()
	i.owned.Wait()
}
