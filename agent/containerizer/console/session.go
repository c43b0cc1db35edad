package console

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"starling/agent/containerizer"
)

// Attach connects to the relay behind a socket. Its session has no process of its own: Wait returns when the terminal has
// ended or the session is closed.
func Attach(ctx context.Context, socket string) (containerizer.Session, error) {
	// The name of a socket is short, that of a folder is not.
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return nil, fmt.Errorf("cannot find the terminal: %w", err)
	}
	defer dir.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)))
	if err != nil {
		return nil, fmt.Errorf("cannot attach to the terminal: %w", err)
	}
	return &session{conn: conn, ended: make(chan struct{})}, nil
}

type session struct {
	conn net.Conn
	// mu keeps frames whole.
	mu    sync.Mutex
	once  sync.Once
	ended chan struct{}
}

func (s *session) end() { s.once.Do(func() { close(s.ended) }) }

// Input is what the terminal reads. It closes only with the session: others may go on.
func (s *session) Input() io.WriteCloser { return input{s} }

type input struct{ s *session }

func (i input) Write(text []byte) (n int, err error) {
	i.s.mu.Lock()
	defer i.s.mu.Unlock()
	for n < len(text) {
		part := text[n:min(len(text), n+maxFrame)]
		if err := writeFrame(i.s.conn, frameInput, part); err != nil {
			return n, fmt.Errorf("%w, or it has ended: %w", ErrTaken, err)
		}
		n += len(part)
	}
	return n, nil
}

func (i input) Close() error { return nil }

func (s *session) Output() io.Reader { return output{s} }

type output struct{ s *session }

func (o output) Read(buf []byte) (int, error) {
	n, err := o.s.conn.Read(buf)
	if err != nil {
		o.s.end()
		err = io.EOF
	}
	return n, err
}

func (s *session) ErrOutput() io.Reader { return nil }

func (s *session) Resize(columns, rows uint16) error {
	var body [4]byte
	binary.BigEndian.PutUint16(body[:], columns)
	binary.BigEndian.PutUint16(body[2:], rows)
	s.mu.Lock()
	defer s.mu.Unlock()
	return writeFrame(s.conn, frameResize, body[:])
}

func (s *session) Wait(ctx context.Context) (containerizer.Exit, error) {
	select {
	case <-s.ended:
		return containerizer.Exit{At: time.Now()}, nil
	case <-ctx.Done():
		return containerizer.Exit{}, ctx.Err()
	}
}

func (s *session) Close() error {
	s.end()
	return s.conn.Close()
}
