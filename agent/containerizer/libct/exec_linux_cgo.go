//go:build linux && cgo

package libct

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"starling/agent/containerizer/console"
	"starling/agent/nolink"
)

// serveConsole is the relay of a container's terminal: it is given the socket to listen on and that which the terminal
// comes over.
func serveConsole(output string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "container console:", err)
		return 1
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return fail(err)
	}
	master, err := receive(os.NewFile(4, "socket"))
	if err != nil {
		return fail(err)
	}
	var log *os.File
	if output != "" {
		log, err = nolink.OpenFile(output, os.O_WRONLY|os.O_APPEND|unix.O_NONBLOCK, 0)
		if err != nil {
			return fail(err)
		}
	}
	// The folder belongs to whoever started us, and goes with the container.
	_ = os.Chdir("/")
	if err := console.Relay(master, log, listener); err != nil {
		return fail(err)
	}
	return 0
}

// receive takes a terminal off a socket, which it closes.
func receive(socket *os.File) (*os.File, error) {
	defer socket.Close()
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	peer, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a unix socket")
	}
	return console.ReceiveMaster(peer)
}

// listenConsole makes the socket of a terminal. The name of a socket is short, that of a folder is not.
func listenConsole(folder string) (*os.File, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	_ = os.Remove(filepath.Join(folder, consoleName))
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), consoleName), Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	defer listener.Close()
	return listener.File()
}

// execute runs a process in the container of a folder for the agent, which talks to us over descriptor 3: see execWire.
// When that is closed, the process ends.
func execute(folder string) int {
	conn, err := net.FileConn(os.NewFile(3, "agent"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "container exec:", err)
		return 1
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	out := json.NewEncoder(conn)
	status, err := executeFor(folder, lines, out)
	if err != nil {
		_ = out.Encode(execAnswer{Error: sentence(err)})
		return 1
	}
	_ = out.Encode(execAnswer{Exit: &status})
	return 0
}

func executeFor(folder string, lines *bufio.Reader, out *json.Encoder) (int, error) {
	var req execRequest
	if err := readLine(lines, &req); err != nil {
		return 0, err
	}
	b, err := readBundle(folder)
	if err != nil {
		return 0, fmt.Errorf("cannot find the container: %w", err)
	}
	container, err := libcontainer.Load(filepath.Join(folder, stateName), safeName(b.ID))
	if err != nil {
		return 0, fmt.Errorf("cannot find the container: %w", err)
	}
	state, err := container.State()
	if err != nil {
		return 0, err
	}
	if req.User != "" {
		b.User = req.User
		if req.Owner != nil {
			b.Owner = req.Owner
		}
	}
	b.Path, b.Args, b.Env = req.Args[0], req.Args, mergeEnv(b.Env, req.Env)
	process, err := b.process(fmt.Sprintf("/proc/%d/root", state.InitProcessPid))
	if err != nil {
		return 0, err
	}
	var master *os.File
	if req.Terminal {
		master, err = runOnTerminal(container, process, req)
	} else {
		process.Stdin, process.Stdout, process.Stderr = os.Stdin, os.Stdout, os.Stderr
		err = container.Run(process)
	}
	if err != nil {
		return 0, err
	}
	pid, err := process.Pid()
	if err != nil {
		return 0, err
	}
	if err := out.Encode(execAnswer{PID: pid}); err != nil {
		_ = process.Signal(unix.SIGKILL)
	}
	go func() {
		for {
			var r execRequest
			if err := readLine(lines, &r); err != nil {
				// It leads a session and a group of its own; what left these ends with the container.
				_ = unix.Kill(-pid, unix.SIGKILL)
				_ = process.Signal(unix.SIGKILL)
				return
			}
			if master != nil && r.Columns > 0 {
				_ = console.Resize(master, r.Columns, r.Rows)
			}
		}
	}()
	var copied chan struct{}
	if master != nil {
		copied = make(chan struct{})
		go func() { _, _ = io.Copy(master, os.Stdin) }()
		go func() { defer close(copied); _, _ = io.Copy(os.Stdout, master) }()
	} else {
		// Who reads the other ends is to see the end.
		os.Stdin.Close()
		os.Stdout.Close()
		os.Stderr.Close()
	}
	ended, err := process.Wait()
	if copied != nil {
		// What it has started may hold the terminal open.
		select {
		case <-copied:
		case <-time.After(lastOutput):
		}
	}
	if ended == nil {
		return 0, err
	}
	ws, _ := ended.Sys().(syscall.WaitStatus)
	return int(ws), nil
}

// lastOutput is how long the last output of a terminal may take to come after the process has ended.
const lastOutput = time.Second

// runOnTerminal starts a process with a terminal and returns the master.
func runOnTerminal(container *libcontainer.Container, process *libcontainer.Process, req execRequest) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "console")
	process.ConsoleSocket, process.ConsoleWidth, process.ConsoleHeight = theirs, req.Columns, req.Rows
	err = container.Run(process)
	theirs.Close()
	if err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return receive(os.NewFile(uintptr(fds[0]), "console"))
}
