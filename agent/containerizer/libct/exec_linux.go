package libct

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/agent/containerizer/console"
)

// The agent and the helper that starts a process in a container speak JSON, a line each: the agent sends a request, then
// sizes of the terminal; the helper answers with the pid, then with the exit, or with an error.
type execRequest struct {
	Args     []string `json:"args,omitempty"`
	Env      []string `json:"env,omitempty"`
	User     string   `json:"user,omitempty"`
	Owner    *owner   `json:"owner,omitempty"`
	Terminal bool     `json:"terminal,omitempty"`
	Columns  uint16   `json:"columns,omitempty"`
	Rows     uint16   `json:"rows,omitempty"`
}

type execAnswer struct {
	PID   int    `json:"pid,omitempty"`
	Exit  *int   `json:"exit,omitempty"`
	Error string `json:"error,omitempty"`
}

// maxLine bounds what one side takes from the other.
const maxLine = 4 << 20

func readLine(r *bufio.Reader, v any) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine {
			return err
		}
	}
	return json.Unmarshal(bytes.TrimSpace(line), v)
}

// execLimit bounds how long a process may take to start.
const execLimit = 20 * time.Second

// Exec starts a process in a container; see containerizer.Sessions.
func (c *Containerizer) Exec(ctx context.Context, id string, p containerizer.Process) (containerizer.Session, error) {
	if !c.holds(id) {
		return c.process.Exec(ctx, id, p)
	}
	if p.Path == "" {
		return nil, errors.New("no program given")
	}
	req := execRequest{Args: p.Args, Env: p.Env, User: p.User, Terminal: p.Terminal, Columns: p.Columns, Rows: p.Rows}
	if len(req.Args) == 0 {
		req.Args = []string{p.Path}
	}
	req.Args = append([]string{p.Path}, req.Args[1:]...)
	folder := c.folder(id)
	if b, err := readBundle(folder); err == nil && !b.Image && p.User != "" {
		if req.Owner, err = lookOwner(p.User); err != nil {
			return nil, err
		}
	}
	s, err := c.startExec(folder, req)
	if err != nil {
		return nil, fmt.Errorf("cannot run in container %q: %w", id, err)
	}
	s.id = id
	if err := s.begin(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// startExec starts the helper.
func (c *Containerizer) startExec(folder string, req execRequest) (*session, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "helper")
	defer theirs.Close()
	mine := os.NewFile(uintptr(fds[0]), "helper")
	conn, err := net.FileConn(mine)
	mine.Close()
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, request: req, lines: bufio.NewReader(conn), done: make(chan struct{})}
	argv := append(c.cfg.Launcher[:len(c.cfg.Launcher):len(c.cfg.Launcher)], "exec", folder)
	s.helper = exec.Command(argv[0], argv[1:]...)
	s.helper.Env = []string{"GOMAXPROCS=1"}
	s.helper.ExtraFiles = []*os.File{theirs}
	s.helper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := s.pipes(); err != nil {
		conn.Close()
		return nil, err
	}
	err = s.helper.Start()
	for _, f := range s.theirs {
		f.Close()
	}
	if err != nil {
		conn.Close()
		s.closePipes()
		return nil, err
	}
	return s, nil
}

// session is a process in a container. Its helper is a child of ours.
type session struct {
	id      string
	conn    net.Conn
	lines   *bufio.Reader
	helper  *exec.Cmd
	request execRequest
	theirs  []*os.File

	in       *os.File
	out, err *os.File

	// mu keeps lines to the helper whole.
	mu sync.Mutex
	// done is closed when exit and failed are set.
	done   chan struct{}
	exit   containerizer.Exit
	failed error
	once   sync.Once
}

// pipes makes the ends of the process' input and output. With a terminal all output is one.
func (s *session) pipes() error {
	for i := range 3 {
		if i == 2 && s.request.Terminal {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			s.closePipes()
			return err
		}
		switch i {
		case 0:
			s.in, s.helper.Stdin, s.theirs = w, r, append(s.theirs, r)
		case 1:
			s.out, s.helper.Stdout, s.theirs = r, w, append(s.theirs, w)
		case 2:
			s.err, s.helper.Stderr, s.theirs = r, w, append(s.theirs, w)
		}
	}
	return nil
}

func (s *session) closePipes() {
	for _, f := range append(s.theirs, s.in, s.out, s.err) {
		if f != nil {
			f.Close()
		}
	}
}

// begin hands the request over, waits until the process runs, and then follows it to its end.
func (s *session) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, execLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Now()) })
	var answer execAnswer
	err := json.NewEncoder(s.conn).Encode(s.request)
	if err == nil {
		err = readLine(s.lines, &answer)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	switch {
	case answer.Error != "":
		err = errors.New(answer.Error)
	case err != nil && ctx.Err() != nil:
		err = fmt.Errorf("cannot run %q: %w", s.request.Args[0], ctx.Err())
	case err != nil:
		err = fmt.Errorf("cannot run %q: %w", s.request.Args[0], err)
	}
	if err != nil {
		_ = s.helper.Process.Kill()
		_ = s.helper.Wait()
		s.failed = err
		close(s.done)
		return err
	}
	go s.follow()
	return nil
}

// follow ends with the helper, which ends with the process, or when the session is closed.
func (s *session) follow() {
	defer close(s.done)
	var answer execAnswer
	err := readLine(s.lines, &answer)
	_ = s.helper.Wait()
	s.exit = containerizer.Exit{ID: s.id, At: time.Now()}
	switch {
	case answer.Exit != nil:
		s.exit.Known, s.exit.Status = true, *answer.Exit
	case answer.Error != "":
		s.failed = errors.New(answer.Error)
	default:
		s.failed = fmt.Errorf("helper ended without an answer: %w", err)
	}
}

func (s *session) Input() io.WriteCloser { return s.in }

func (s *session) Output() io.Reader { return s.out }

func (s *session) ErrOutput() io.Reader {
	if s.err == nil {
		return nil
	}
	return s.err
}

func (s *session) Resize(columns, rows uint16) error {
	if !s.request.Terminal {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.NewEncoder(s.conn).Encode(execRequest{Columns: columns, Rows: rows})
}

func (s *session) Wait(ctx context.Context) (containerizer.Exit, error) {
	select {
	case <-s.done:
		return s.exit, s.failed
	case <-ctx.Done():
		return containerizer.Exit{}, ctx.Err()
	}
}

// closePatience is how long the helper may take to end what it started.
const closePatience = 2 * time.Second

// Close has the helper end the process, and returns once both are gone.
func (s *session) Close() error {
	s.once.Do(func() {
		// The helper reads the end of our requests; its answer comes still.
		if c, ok := s.conn.(*net.UnixConn); ok {
			_ = c.CloseWrite()
		}
		s.in.Close()
		s.out.Close()
		if s.err != nil {
			s.err.Close()
		}
		select {
		case <-s.done:
		case <-time.After(closePatience):
			_ = s.helper.Process.Kill()
			<-s.done
		}
		s.conn.Close()
	})
	return nil
}

// Attach connects to the terminal of a container; see containerizer.Sessions.
func (c *Containerizer) Attach(ctx context.Context, id string) (containerizer.Session, error) {
	if !c.holds(id) {
		return c.process.Attach(ctx, id)
	}
	b, err := readBundle(c.folder(id))
	if err != nil {
		return nil, fmt.Errorf("cannot attach to container %q: %w", id, err)
	}
	if b.Terminal == nil {
		return nil, fmt.Errorf("container %q: %w", id, containerizer.ErrNoTerminal)
	}
	return console.Attach(ctx, filepath.Join(c.folder(id), consoleName))
}
