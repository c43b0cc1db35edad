package containerizertest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"

	"starling/agent/containerizer"
)

// FakeProcess is what a test sees of a process that the fake was asked to run in a container, or of a terminal.
type FakeProcess struct {
	// ID is the container's; Process is empty for a terminal.
	ID      string
	Process containerizer.Process
	// In ends when the client closes the input; Out and ErrOut fail once the client has left.
	In          io.Reader
	Out, ErrOut io.Writer
	// Sizes are those that the terminal was given, columns and rows. It has room for 16; more are dropped.
	Sizes chan [2]uint16
	// Left is closed when the client closes the session.
	Left <-chan struct{}
}

// echo is what a process does unless the test says otherwise: it writes what it reads, until that ends.
func echo(p *FakeProcess) int {
	_, _ = io.Copy(p.Out, p.In)
	return 0
}

type fakeSession struct {
	terminal bool
	in       *io.PipeWriter
	inRead   *io.PipeReader
	out, err *io.PipeReader
	sizes    chan [2]uint16
	left     chan struct{}
	leave    sync.Once
	ended    chan struct{}
	status   int
}

func (f *Fake) session(id string, p containerizer.Process, terminal bool) containerizer.Session {
	run := f.OnExec
	if run == nil {
		run = echo
	}
	inRead, in := io.Pipe()
	out, outWrite := io.Pipe()
	errOut, errWrite := io.Pipe()
	s := &fakeSession{
		terminal: terminal, in: in, inRead: inRead, out: out, err: errOut, sizes: make(chan [2]uint16, 16), left: make(chan struct{}),
		ended: make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		status := run(&FakeProcess{ID: id, Process: p, In: inRead, Out: outWrite, ErrOut: errWrite, Sizes: s.sizes, Left: s.left})
		select {
		case <-s.left:
			status = int(syscall.SIGKILL)
		default:
		}
		s.status = status
		outWrite.Close()
		errWrite.Close()
		inRead.Close()
	}()
	return s
}

// running tells whether a container runs.
func (f *Fake) running(id string) (containerizer.Spec, error) {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	c, ok := f.host.containers[id]
	if !ok || c.known.Exit != nil {
		return containerizer.Spec{}, fmt.Errorf("container %q: %w", id, containerizer.ErrUnknownContainer)
	}
	return c.spec, nil
}

// Exec implements containerizer.Containerizer: what runs is OnExec, or what writes whatever it reads.
func (f *Fake) Exec(ctx context.Context, id string, p containerizer.Process) (containerizer.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := f.running(id); err != nil {
		return nil, err
	}
	if p.Path == "missing" {
		return nil, fmt.Errorf("cannot run %q: no such file or directory", p.Path)
	}
	return f.session(id, p, p.Terminal), nil
}

// Attach implements containerizer.Containerizer. Each session of a terminal is one of its own here.
func (f *Fake) Attach(_ context.Context, id string) (containerizer.Session, error) {
	spec, err := f.running(id)
	if err != nil {
		return nil, err
	}
	if spec.Container.GetTtyInfo() == nil {
		return nil, containerizer.ErrNoTerminal
	}
	return f.session(id, containerizer.Process{}, true), nil
}

// Input implements containerizer.Session.
func (s *fakeSession) Input() io.WriteCloser { return s.in }

// Output implements containerizer.Session.
func (s *fakeSession) Output() io.Reader { return s.out }

// ErrOutput implements containerizer.Session.
func (s *fakeSession) ErrOutput() io.Reader {
	if s.terminal {
		return nil
	}
	return s.err
}

// Resize implements containerizer.Session.
func (s *fakeSession) Resize(columns, rows uint16) error {
	select {
	case s.sizes <- [2]uint16{columns, rows}:
	default:
	}
	return nil
}

// Wait implements containerizer.Session.
func (s *fakeSession) Wait(ctx context.Context) (containerizer.Exit, error) {
	select {
	case <-s.ended:
		return containerizer.Exit{Known: true, Status: s.status}, nil
	case <-ctx.Done():
		return containerizer.Exit{}, ctx.Err()
	}
}

// Close implements containerizer.Session.
func (s *fakeSession) Close() error {
	s.leave.Do(func() {
		close(s.left)
		s.in.Close()
		s.out.CloseWithError(io.ErrClosedPipe)
		s.err.CloseWithError(io.ErrClosedPipe)
	})
	return nil
}
