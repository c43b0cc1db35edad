package docker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
)

// Exec starts a process in a running container. It ends with the session; when the engine goes away, so does the session.
func (c *Containerizer) Exec(ctx context.Context, id string, p containerizer.Process) (containerizer.Session, error) {
	e, err := c.lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	engine, over, err := e.record.Engine, isClosed(e.told), c.away
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if over {
		return nil, fmt.Errorf("container %q has ended", id)
	}
	exec, err := c.engine.ExecCreate(ctx, engine, p)
	if err != nil {
		return nil, fmt.Errorf("cannot run %q in container %q: %w", p.Path, id, err)
	}
	conn, err := c.engine.ExecStart(ctx, exec, p.Terminal)
	if err != nil {
		return nil, fmt.Errorf("cannot run %q in container %q: %w", p.Path, id, err)
	}
	s := &session{c: c, conn: conn, exec: exec, done: make(chan struct{})}
	s.resize = func(ctx context.Context, columns, rows uint16) error {
		return c.engine.ExecResize(ctx, exec, columns, rows)
	}
	if !p.Terminal {
		s.resize = nil
	}
	s.handle = c.begun(ctx, exec, engine)
	if p.Terminal && p.Columns > 0 && p.Rows > 0 {
		// One that has ended already does not mind.
		_ = s.Resize(p.Columns, p.Rows)
	}
	s.start(p.Terminal)
	return s, nil
}

// begun waits until the process of an Exec is there, which may be after the engine has answered, and holds it. It gives up
// soon: a process may have ended at once.
func (c *Containerizer) begun(ctx context.Context, exec, engine string) *supervisor.Handle {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		state, err := c.engine.ExecInspect(ctx, exec)
		if err != nil {
			return nil
		}
		if state.PID > 0 {
			h, _ := hold(state.PID, engine)
			return h
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// Attach connects to the terminal of a container.
func (c *Containerizer) Attach(ctx context.Context, id string) (containerizer.Session, error) {
	e, err := c.lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	r, over, err := e.record, isClosed(e.told), c.away
	c.mu.Unlock()
	switch {
	case !r.TTY:
		return nil, fmt.Errorf("container %q: %w", id, containerizer.ErrNoTerminal)
	case err != nil:
		return nil, err
	case over:
		return nil, fmt.Errorf("container %q has ended", id)
	}
	conn, err := c.engine.Attach(ctx, r.Engine)
	if err != nil {
		return nil, fmt.Errorf("cannot attach to container %q: %w", id, err)
	}
	s := &session{c: c, conn: conn, entry: e, done: make(chan struct{})}
	s.resize = func(ctx context.Context, columns, rows uint16) error {
		return c.engine.Resize(ctx, r.Engine, columns, rows)
	}
	s.start(true)
	return s, nil
}

// session is a process that somebody talks to: one that was started for it, or with entry set the first of a container.
type session struct {
	c      *Containerizer
	conn   stream
	exec   string
	entry  *entry
	resize func(ctx context.Context, columns, rows uint16) error

	out, errOut *io.PipeReader
	// done is closed when the output has ended.
	done chan struct{}

	mu     sync.Mutex
	handle *supervisor.Handle
	closed bool
}

// start begins to read.
func (s *session) start(terminal bool) {
	out, outWriter := io.Pipe()
	s.out = out
	var errWriter *io.PipeWriter
	if !terminal {
		s.errOut, errWriter = io.Pipe()
	}
	// The end of the containerizer is the end of its sessions, whether somebody reads them or not.
	spared := context.AfterFunc(s.c.life, func() { s.hangUp() })
	if terminal {
		s.c.wg.Go(func() {
			defer close(s.done)
			defer spared()
			_, err := io.Copy(outWriter, s.conn)
			outWriter.CloseWithError(ended(err))
		})
		return
	}
	s.c.wg.Go(func() {
		defer close(s.done)
		defer spared()
		err := ended(unpack(bufio.NewReader(s.conn), outWriter, errWriter))
		outWriter.CloseWithError(err)
		errWriter.CloseWithError(err)
	})
}

// hangUp closes the connection and the outputs.
func (s *session) hangUp() error {
	err := s.conn.Close()
	s.out.Close()
	if s.errOut != nil {
		s.errOut.Close()
	}
	return err
}

// ended makes the end of a connection that we closed ourselves an end like others.
func ended(err error) error {
	if errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// unpack takes output out of the frames that the engine puts around it. What nobody reads any more is thrown away.
func unpack(in io.Reader, out, errOut *io.PipeWriter) error {
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		to := out
		if head[0] == 2 {
			to = errOut
		}
		part := io.LimitReader(in, int64(binary.BigEndian.Uint32(head[4:])))
		if _, err := io.Copy(to, part); errors.Is(err, io.ErrClosedPipe) {
			_, err = io.Copy(io.Discard, part)
			if err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
	}
}

// Input implements containerizer.Session.
func (s *session) Input() io.WriteCloser {
	switch {
	case s.errOut != nil:
		return input{s.conn}
	case s.entry == nil:
		return keyboard{s.conn}
	}
	return shared{s.conn}
}

// input is what a process without a terminal reads.
type input struct{ stream }

// Close ends the input alone.
func (i input) Close() error { return i.CloseWrite() }

// keyboard is the input of a terminal of its own. The engine takes the end of the connection's one direction for the end of
// both, and what the process still writes would be lost: so the end is said as at a keyboard.
type keyboard struct{ stream }

// Close says that there is no more input.
func (k keyboard) Close() error {
	_, err := k.Write([]byte{4}) // the character that ends the input, see termios(3)
	return err
}

// shared is the input of a terminal that is the task's: that one writer has no more to say does not end it.
type shared struct{ stream }

// Close does nothing; the connection ends with the session.
func (shared) Close() error { return nil }

// Output implements containerizer.Session.
func (s *session) Output() io.Reader { return s.out }

// ErrOutput implements containerizer.Session.
func (s *session) ErrOutput() io.Reader {
	if s.errOut == nil {
		return nil
	}
	return s.errOut
}

// Resize implements containerizer.Session.
func (s *session) Resize(columns, rows uint16) error {
	if s.resize == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.c.life, pingTimeout)
	defer cancel()
	return s.resize(ctx, columns, rows)
}

// Wait implements containerizer.Session.
func (s *session) Wait(ctx context.Context) (containerizer.Exit, error) {
	if s.entry != nil {
		select {
		case <-s.entry.told:
			s.c.mu.Lock()
			defer s.c.mu.Unlock()
			return *s.entry.record.Exit, nil
		case <-ctx.Done():
			return containerizer.Exit{}, ctx.Err()
		}
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		return containerizer.Exit{}, ctx.Err()
	}
	// The output may end before the process.
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if status, ok := s.reaped(); ok {
			return containerizer.Exit{Known: true, Status: status, At: time.Now()}, nil
		}
		state, err := s.c.engine.ExecInspect(ctx, s.exec)
		if err != nil {
			return containerizer.Exit{}, err
		}
		if !state.Running {
			exit := containerizer.Exit{Known: true, Status: waitStatus(state.ExitCode, 0), At: time.Now()}
			if status, ok := s.reaped(); ok {
				exit.Status = status
			}
			return exit, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return containerizer.Exit{}, ctx.Err()
		}
	}
}

// reaped is the status of the process by the kernel, if it tells.
func (s *session) reaped() (status int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handle == nil {
		return 0, false
	}
	status, known, ended := s.handle.Exit()
	return status, known && ended
}

// Close implements containerizer.Session. The process of an Exec is killed with its group; the engine has no call for
// that, so it is done here, where the process is to be seen.
func (s *session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var err error
	if s.handle != nil {
		if _, _, ended := s.handle.Exit(); !ended {
			err = errors.Join(s.handle.SignalGroup(syscall.SIGKILL), s.handle.Signal(syscall.SIGKILL))
		}
	}
	s.mu.Unlock()
	err = errors.Join(err, s.hangUp())
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handle != nil {
		s.handle.Close()
		s.handle = nil
	}
	return err
}
