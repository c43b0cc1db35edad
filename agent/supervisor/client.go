package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Client is a connection to a supervisor. All methods may be called from any goroutine. When the connection ends all
// calls return ErrDisconnected; a client does not reconnect, its owner makes another.
type Client struct {
	conn net.Conn
	dir  string
	// writing is held while a frame is written.
	writing sync.Mutex

	mu sync.Mutex
	// next is the number of the next request; waiting are those without an answer. Guarded by mu.
	next    uint64
	waiting map[uint64]chan response
	// onExit is set by Watch. Guarded by mu.
	onExit func(Container)
	err    error

	// done is closed when the connection has ended and the reader is gone.
	done chan struct{}
}

// Dial connects to the supervisor of a folder, which must run. It reads from the connection in a goroutine of its own
// until Close.
func Dial(ctx context.Context, dir string) (*Client, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the supervisor: %w", err)
	}
	c := &Client{conn: conn, dir: dir, next: 1, waiting: make(map[uint64]chan response), done: make(chan struct{})}
	go c.read()
	if _, err := c.Hello(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection and waits for the reader.
func (c *Client) Close() {
	c.conn.Close()
	<-c.done
}

// Done is closed when the connection has ended, whoever ended it.
func (c *Client) Done() <-chan struct{} { return c.done }

// read distributes what comes in.
func (c *Client) read() {
	defer close(c.done)
	var err error
	for {
		var r response
		if err = readFrame(c.conn, &r); err != nil {
			break
		}
		c.mu.Lock()
		if r.Seq == 0 {
			tell := c.onExit
			c.mu.Unlock()
			if tell != nil && r.Container != nil {
				tell(*r.Container)
			}
			continue
		}
		if answer, ok := c.waiting[r.Seq]; ok {
			delete(c.waiting, r.Seq)
			answer <- r // it has room for the one answer
		}
		c.mu.Unlock()
	}
	c.conn.Close()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = ErrDisconnected
	} else {
		err = fmt.Errorf("%w: %v", ErrDisconnected, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, answer := range c.waiting {
		close(answer)
	}
	c.waiting = nil
}

// call sends a request and waits for its answer. When ctx ends first, the request may still be obeyed.
func (c *Client) call(ctx context.Context, req request) (response, error) {
	answer := make(chan response, 1)
	c.mu.Lock()
	if c.waiting == nil {
		defer c.mu.Unlock()
		return response{}, c.err
	}
	req.Seq = c.next
	c.next++
	c.waiting[req.Seq] = answer
	c.mu.Unlock()
	forget := func() {
		c.mu.Lock()
		delete(c.waiting, req.Seq)
		c.mu.Unlock()
	}
	if err := c.write(ctx, &req); err != nil {
		forget()
		return response{}, err
	}
	select {
	case r, ok := <-answer:
		if !ok {
			c.mu.Lock()
			defer c.mu.Unlock()
			return response{}, c.err
		}
		if r.Error != nil {
			return r, r.Error
		}
		return r, nil
	case <-ctx.Done():
		forget()
		return response{}, ctx.Err()
	}
}

func (c *Client) write(ctx context.Context, req *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	frame, err := encodeFrame(req)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	// A supervisor that hangs stops reading when the socket's buffer is full.
	deadline := time.Now().Add(writeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = c.conn.SetWriteDeadline(deadline)
	n, err := c.conn.Write(frame)
	if err == nil {
		return nil
	}
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("supervisor does not read: %w", err)
	}
	// A part of the frame is out: the connection is of no more use.
	c.conn.Close()
	return fmt.Errorf("%w: %v", ErrDisconnected, err)
}

// Hello asks the supervisor about itself; it also serves to see whether it answers.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	r, err := c.call(ctx, request{Op: opHello})
	if err != nil {
		return Hello{}, err
	}
	if r.Hello == nil {
		return Hello{}, errors.New("supervisor answers without saying who it is")
	}
	return *r.Hello, nil
}

// Start starts a container. If the id is taken, the container that has it is returned, ended or not: so a Start whose
// answer was lost can be asked again. ErrCannotRun and ErrInvalid carry words for people.
func (c *Client) Start(ctx context.Context, spec Spec) (Container, error) {
	if err := spec.validate(); err != nil {
		return Container{}, err
	}
	return c.one(ctx, request{Op: opStart, ID: spec.ID, Start: spec.wire()})
}

// Signal sends a signal to the process group of the first process; it does nothing when that has ended.
func (c *Client) Signal(ctx context.Context, id string, signal int) error {
	_, err := c.call(ctx, request{Op: opSignal, ID: id, Signal: signal})
	return err
}

// Kill sends SIGKILL to all processes of a container until none is left, and returns once its exit is on disk. It takes
// the time that ctx has, at most an hour; ErrTimeout says that it was not enough.
func (c *Client) Kill(ctx context.Context, id string) (Container, error) {
	limit := time.Hour
	if d, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(d), time.Millisecond))
	}
	return c.one(ctx, request{Op: opKill, ID: id, Millis: max(limit.Milliseconds(), 1)})
}

// Remove forgets an ended container. It returns ErrRunning for one that runs, and nil for one that is not there.
func (c *Client) Remove(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{Op: opRemove, ID: id})
	return err
}

// Amend tells how a container ended, to a supervisor that does not know. What it knows already stands.
func (c *Client) Amend(ctx context.Context, id string, exit Exit) (Container, error) {
	return c.one(ctx, request{Op: opAmend, ID: id, Exit: &exit})
}

// Watch returns all containers as of now, sorted by id, and calls onExit for each that ends from now on, also if that
// is before Watch has returned. onExit must not block and must not call the client.
func (c *Client) Watch(ctx context.Context, onExit func(Container)) ([]Container, error) {
	c.mu.Lock()
	c.onExit = onExit
	c.mu.Unlock()
	r, err := c.call(ctx, request{Op: opWatch})
	return r.Containers, err
}

// Upgrade makes the supervisor execute argv, the command of a supervisor without flags, in its place; see [Config].
// No child and no exit is lost. All connections end, this one too, and the program answers to new ones. It returns nil
// once the new program does.
func (c *Client) Upgrade(ctx context.Context, argv []string) error {
	before, err := c.Hello(ctx)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, request{Op: opUpgrade, Argv: argv})
	if !errors.Is(err, ErrDisconnected) {
		return err
	}
	fresh, err := Dial(ctx, c.dir)
	if err != nil {
		return fmt.Errorf("supervisor does not answer after its re-execution: %w", err)
	}
	defer fresh.Close()
	after, err := fresh.Hello(ctx)
	if err != nil {
		return err
	}
	if after.PID != before.PID || after.Generation <= before.Generation {
		return fmt.Errorf("supervisor was replaced (process %d instead of %d) while it re-executed itself", after.PID, before.PID)
	}
	return nil
}

// Stop ends the supervisor; ErrRunning says that containers run.
func (c *Client) Stop(ctx context.Context) error {
	_, err := c.call(ctx, request{Op: opStop})
	return err
}

func (c *Client) one(ctx context.Context, req request) (Container, error) {
	r, err := c.call(ctx, req)
	if err != nil {
		return Container{}, err
	}
	if r.Container == nil {
		return Container{}, fmt.Errorf("supervisor answers %q without a container", req.Op)
	}
	return *r.Container, nil
}
