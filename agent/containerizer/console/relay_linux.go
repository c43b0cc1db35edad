package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// queue is how many pieces of output wait for a reader.
	queue = 256
	// maxClients is how many may be attached at a time.
	maxClients = 32
	piece      = 16 << 10
)

// relay is the process that holds a terminal.
type relay struct {
	master   *os.File
	output   *os.File
	listener net.Listener

	mu      sync.Mutex
	clients map[*client]bool
	// writer is the one whose input counts; nil while there is none.
	writer *client
	wg     sync.WaitGroup
}

type client struct {
	net.Conn
	// out is never closed; done is, when the connection ends.
	out  chan []byte
	done chan struct{}
	once sync.Once
}

func (c *client) close() {
	c.once.Do(func() {
		close(c.done)
		c.Conn.Close()
	})
}

// Relay serves a terminal until it ends. output may be nil.
func Relay(master, output *os.File, listener net.Listener) error {
	r := &relay{master: master, output: output, listener: listener, clients: make(map[*client]bool)}
	r.wg.Go(r.accept)
	err := r.copy()
	listener.Close()
	r.mu.Lock()
	all := r.clients
	r.clients = nil
	r.mu.Unlock()
	for c := range all {
		// What is queued is written first.
		close(c.out)
	}
	r.wg.Wait()
	return err
}

// copy passes the output of the terminal on until its other side is closed.
func (r *relay) copy() error {
	for {
		buf := make([]byte, piece)
		n, err := r.master.Read(buf)
		if n > 0 {
			if r.output != nil {
				// A full disk must not stop the container.
				_, _ = r.output.Write(buf[:n])
			}
			r.tell(buf[:n])
		}
		if err != nil {
			if errors.Is(err, unix.EIO) || errors.Is(err, os.ErrClosed) || n == 0 {
				return nil
			}
			return fmt.Errorf("cannot read from the terminal: %w", err)
		}
	}
}

func (r *relay) tell(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.clients {
		select {
		case c.out <- text:
		default: // it misses some
		}
	}
}

func (r *relay) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		c := &client{Conn: conn, out: make(chan []byte, queue), done: make(chan struct{})}
		r.mu.Lock()
		if r.clients == nil || len(r.clients) >= maxClients {
			r.mu.Unlock()
			conn.Close()
			continue
		}
		r.clients[c] = true
		r.mu.Unlock()
		r.wg.Go(func() { r.write(c) })
		r.wg.Go(func() { r.read(c) })
	}
}

func (r *relay) write(c *client) {
	defer c.close()
	for {
		select {
		case text, ok := <-c.out:
			if !ok {
				return
			}
			if _, err := c.Write(text); err != nil {
				return
			}
		case <-c.done:
			return
		}
	}
}

func (r *relay) read(c *client) {
	defer c.close()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.clients, c)
		if r.writer == c {
			r.writer = nil
		}
	}()
	buf := make([]byte, maxFrame)
	for {
		kind, body, err := readFrame(c, buf)
		if err != nil {
			return
		}
		switch {
		case kind == frameInput && !r.mayWrite(c):
			return
		case kind == frameInput:
			if _, err := r.master.Write(body); err != nil {
				return
			}
		case kind == frameResize && len(body) == 4:
			_ = Resize(r.master, binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]))
		default:
			return
		}
	}
}

// mayWrite makes c the writer if there is none.
func (r *relay) mayWrite(c *client) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writer == nil {
		r.writer = c
	}
	return r.writer == c
}

// Resize tells a terminal its size.
func Resize(master *os.File, columns, rows uint16) error {
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	return errors.Join(err, set)
}

// ReceiveMaster takes the master of a terminal that is sent over a socket.
func ReceiveMaster(socket *net.UnixConn) (*os.File, error) {
	name, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := socket.ReadMsgUnix(name, control)
	if err != nil {
		return nil, fmt.Errorf("cannot receive the terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.New("cannot receive the terminal: nothing was sent")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("cannot receive the terminal: no descriptor was sent")
	}
	unix.CloseOnExec(fds[0])
	// It is read by a thread that waits: it ends with its other side, and nobody closes it before.
	if err := unix.SetNonblock(fds[0], false); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
