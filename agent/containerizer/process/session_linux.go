package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/agent/supervisor"
)

// session is a process that was started in a container, and the files to talk to it.
type session struct {
	id       string
	terminal console.Console // nil where there is none
	in       io.WriteCloser
	out, err *output
	process  *os.Process
	// ended is closed when the process was reaped, after exit was set.
	ended chan struct{}
	exit  containerizer.Exit
	close sync.Once
}

// output is what a process writes.
type output struct {
	from io.ReadCloser
	// over is closed once all was read, or nobody reads any more.
	over chan struct{}
	once sync.Once
}

// Read ends where a terminal does as where a pipe does.
func (o *output) Read(p []byte) (int, error) {
	n, err := o.from.Read(p)
	if err != nil {
		if errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) {
			err = io.EOF
		}
		o.end()
	}
	return n, err
}

func (o *output) end() { o.once.Do(func() { close(o.over) }) }

// startSession starts the process, and what waits for it; that calls release in the end.
func (c *Containerizer) startSession(
	ctx context.Context, id string, entry *supervisor.Entry, process containerizer.Process, release func(),
) (containerizer.Session, error) {
	argv := supervisor.EnterCommand(c.cfg.Supervisor)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), c.cfg.Env...), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s := &session{id: id, ended: make(chan struct{})}
	var theirs []*os.File // descriptors that are the process's alone
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	pipe := func() (r, w *os.File, err error) { return os.Pipe() }
	fail := func(err error) (containerizer.Session, error) {
		s.hangUp()
		return nil, fmt.Errorf("cannot enter container %q: %w", id, err)
	}
	if process.Terminal {
		master, name, err := console.NewPty()
		if err != nil {
			return fail(err)
		}
		s.terminal = master
		s.out = &output{from: master, over: make(chan struct{})}
		slave, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, slave)
		if entry.Credential != nil {
			if err := slave.Chown(int(entry.Credential.UID), -1); err != nil {
				return fail(err)
			}
		}
		if process.Columns > 0 && process.Rows > 0 {
			if err := s.Resize(process.Columns, process.Rows); err != nil {
				return fail(err)
			}
		}
		s.in = keepOpen{master}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr.Setctty = true
	} else {
		inR, inW, err := pipe()
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, inR)
		s.in = inW
		outR, outW, err := pipe()
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, outW)
		s.out = &output{from: outR, over: make(chan struct{})}
		errR, errW, err := pipe()
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, errW)
		s.err = &output{from: errR, over: make(chan struct{})}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, errW
	}
	entryR, entryW, err := pipe()
	if err != nil {
		return fail(err)
	}
	defer entryW.Close()
	toldR, toldW, err := pipe()
	if err != nil {
		return fail(err)
	}
	defer toldR.Close()
	theirs = append(theirs, entryR, toldW)
	cmd.ExtraFiles = []*os.File{entryR, toldW} // EnterInput, EnterErrors

	started := make(chan error, 1)
	c.wg.Go(func() {
		defer release()
		// The process ends with the thread that it was forked from: this one, which waits for it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			s.process = cmd.Process
		}
		started <- err
		if err == nil {
			s.wait(cmd)
		}
	})
	if err := <-started; err != nil {
		return fail(err)
	}
	for _, f := range theirs {
		f.Close()
	}
	theirs = nil
	c.wg.Go(func() {
		select {
		case <-s.ended:
		case <-c.life.Done():
			s.Close()
		}
	})
	stop := context.AfterFunc(ctx, func() { toldR.SetReadDeadline(time.Now()) })
	defer stop()
	if err := entry.Encode(entryW); err == nil {
		entryW.Close()
	}
	why, err := io.ReadAll(io.LimitReader(toldR, 4096))
	if err == nil && len(why) > 0 {
		err = errors.New(string(why))
	}
	if err != nil {
		s.Close()
		<-s.ended
		return nil, err
	}
	return s, nil
}

// keepOpen leaves a terminal open when its input is at an end: what it still writes is to be read. The end is said as at a
// keyboard.
type keepOpen struct{ console.Console }

// Close says that there is no more input.
func (k keepOpen) Close() error {
	_, err := k.Write([]byte{4}) // the character that ends the input, see termios(3)
	return err
}

// wait learns how the process ended and ends what it left behind in its session, as a container does; then the outputs come
// to their end too.
func (s *session) wait(cmd *exec.Cmd) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, s.process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	// It is not reaped yet, so the number of its session is nobody else's.
	killSession(s.process.Pid)
	_ = cmd.Wait() // the state says it all
	s.exit = containerizer.Exit{ID: s.id, Known: true, Status: int(cmd.ProcessState.Sys().(syscall.WaitStatus)), At: time.Now()}
	close(s.ended)
}

// killSession ends all processes of a session but its leader, until there are none, for a second at most: one that the
// kernel can't end is not waited for.
func killSession(leader int) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		left := 0
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == leader || !inSession(pid, leader) {
				continue
			}
			// The number may be another's by the time of the signal; a descriptor stays with its process.
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			if inSession(pid, leader) {
				left++
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			unix.Close(fd)
		}
		if left == 0 {
			return
		}
	}
}

// inSession tells whether a process is of a session and not dead.
func inSession(pid, session int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	text := string(stat)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // f[0] is the state, field 3 of proc(5)
	return len(f) > 3 && f[0] != "Z" && f[0] != "X" && f[3] == strconv.Itoa(session)
}

// Input implements containerizer.Session.
func (s *session) Input() io.WriteCloser { return s.in }

// Output implements containerizer.Session.
func (s *session) Output() io.Reader { return s.out }

// ErrOutput implements containerizer.Session.
func (s *session) ErrOutput() io.Reader {
	if s.err == nil {
		return nil
	}
	return s.err
}

// Resize implements containerizer.Session.
func (s *session) Resize(columns, rows uint16) error {
	if s.terminal == nil {
		return nil
	}
	return s.terminal.Resize(console.WinSize{Width: columns, Height: rows})
}

// Wait implements containerizer.Session.
func (s *session) Wait(ctx context.Context) (containerizer.Exit, error) {
	for _, over := range []<-chan struct{}{s.ended, s.out.over, overOf(s.err)} {
		select {
		case <-over:
		case <-ctx.Done():
			return containerizer.Exit{}, ctx.Err()
		}
	}
	return s.exit, nil
}

func overOf(o *output) <-chan struct{} {
	if o == nil {
		return closed()
	}
	return o.over
}

// Close implements containerizer.Session.
func (s *session) Close() error {
	s.close.Do(func() {
		// What else is in its session is seen to before it is reaped.
		if err := s.process.Kill(); err == nil || errors.Is(err, os.ErrProcessDone) {
			<-s.ended
		}
		s.hangUp()
	})
	return nil
}

// hangUp gives back the files.
func (s *session) hangUp() {
	if s.in != nil && s.terminal == nil {
		s.in.Close()
	}
	if s.terminal != nil {
		s.terminal.Close()
	}
	for _, o := range []*output{s.out, s.err} {
		if o != nil {
			o.from.Close()
			o.end()
		}
	}
}
