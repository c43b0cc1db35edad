package supervisor

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The exit codes of Main.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitBusy: another supervisor has the folder.
	exitBusy = 3
)

// errBusy is what a second supervisor of a folder ends with.
var errBusy = errors.New("another supervisor has this folder")

// options are the flags of Main.
type options struct {
	dir      string
	idleExit time.Duration
	cgroups  string
	detach   bool
	readyFD  int
}

// Main is the whole of "starling supervisor". args are the flags, without the name of the program or the role:
//
//	--dir=DIR         the folder of the supervisor (see the package comment); required
//	--idle-exit=TIME  end after that time without containers and clients; 0, the default, is never
//	--cgroup=DIR,...  cgroups to move into, and to remove at the end
//	--detach          start the supervisor as a process of its own, return when it serves
//
// With --enter alone it is no supervisor, but a process on its way into a container: see EnterCommand.
//
// It returns the exit code. SIGTERM ends a supervisor without running containers; others ignore it.
func Main(args []string) int {
	if len(args) == 1 && args[0] == "--enter" {
		return enter()
	}
	var o options
	flags := flag.NewFlagSet("supervisor", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "`folder` of the supervisor")
	flags.DurationVar(&o.idleExit, "idle-exit", 0, "end after this `time` without containers and clients (0: never)")
	flags.StringVar(&o.cgroups, "cgroup", "", "cgroup `folders` to move into, separated by commas")
	flags.BoolVar(&o.detach, "detach", false, "start in the background, return when it serves")
	flags.IntVar(&o.readyFD, "ready-fd", -1, "internal: file `descriptor` to tell when serving")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if flags.NArg() > 0 || o.dir == "" || o.idleExit < 0 {
		fmt.Fprintln(os.Stderr, "supervisor: --dir is required, --idle-exit may not be negative, and nothing but flags is taken")
		return exitUsage
	}
	var err error
	if o.detach {
		err = detach(&o, args)
	} else {
		err = serve(&o)
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errBusy):
		fmt.Fprintf(os.Stderr, "supervisor: %v\n", err)
		return exitBusy
	default:
		fmt.Fprintf(os.Stderr, "supervisor: %v\n", err)
		return exitFailed
	}
}

// serve is the life of a supervisor. Its first lines run before anything else, hence nobody opens files meanwhile.
func serve(o *options) (err error) {
	var ready io.WriteCloser
	if o.readyFD >= 3 {
		ready = os.NewFile(uintptr(o.readyFD), "ready")
		defer func() {
			if err != nil && ready != nil {
				fmt.Fprint(ready, err)
				ready.Close()
			}
		}()
	}
	given, err := takeHandoff()
	if err != nil && !errors.Is(err, errNoHandoff) {
		return err
	}
	// Nothing that we inherited or open may reach a task.
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		closeOnExecAll()
	}
	dir, err := prepareDir(o.dir)
	if err != nil {
		return err
	}
	o.dir = dir
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("component", "supervisor")
	s, err := newServer(o, given, log)
	if err != nil {
		return err
	}
	defer s.lock.Close()
	// The main thread stays with the main goroutine: it must never be the one that joins a cgroup and is thrown away.
	runtime.LockOSThread()
	defer s.handleSignals()()
	if ready != nil {
		fmt.Fprint(ready, readyWord)
		ready.Close()
		ready = nil
	}
	log.Info("supervisor serves", "dir", dir, "pid", os.Getpid(), "generation", s.generation)
	s.run()
	s.leaveCgroups()
	return nil
}

// newServer settles into the process and the folder, takes over what runs, and listens.
func newServer(o *options, given *handoff, log *slog.Logger) (*server, error) {
	if err := checkKernel(); err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	s := &server{
		dir: o.dir, boot: boot, build: Build("/proc/self/exe"), idle: o.idleExit, log: log,
		records:    records{dir: filepath.Join(o.dir, containersName), quarantine: filepath.Join(o.dir, "quarantine")},
		spawner:    &spawner{mark: markOf(o.dir)},
		containers: make(map[string]*container),
		byPidfd:    make(map[int]*container),
		byPID:      make(map[int]*container),
		reserved:   make(map[int]bool),
		conns:      make(map[*conn]struct{}),
		pause:      make(chan pauseRequest, 1),
		stop:       make(chan struct{}),
		cgroups:    o.cgroups,
	}
	if given != nil {
		s.generation = given.Generation
		s.lock = os.NewFile(uintptr(given.Lock), "lock")
	} else if s.lock, err = takeLock(o.dir); err != nil {
		return nil, err
	}
	for _, folder := range []string{s.records.dir, s.records.quarantine} {
		if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	s.settleProcess()
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if s.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, s.wakeup, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.wakeup)}); err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	var handed map[string]handedPidfd
	if given != nil {
		handed = given.Pidfds
	}
	if err := s.adopt(handed); err != nil {
		return nil, err
	}
	if given == nil {
		s.listener, err = listen(o.dir)
	} else {
		s.listener, err = inheritListener(given.Listener)
	}
	return s, err
}

// settleProcess arranges what a process is to the kernel. What can't be had is done without, and said.
func (s *server) settleProcess() {
	// Enough for a burst of starts; more would only cost memory.
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(25)
	unix.Umask(0o022)
	_ = os.Chdir("/")
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		s.log.Warn("cannot become the reaper of our tasks' orphans", "err", err)
	}
	for dir := range strings.SplitSeq(s.cgroups, ",") {
		if dir == "" {
			continue
		}
		if err := writeFile(filepath.Join(dir, "cgroup.procs"), "0"); err != nil {
			s.log.Warn("cannot move to the cgroup", "dir", dir, "err", err)
		}
	}
	const protected = -900
	if setOOMScore(protected) == nil {
		s.spawner.shield = protected
	} else if text, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		// Whoever started us may have been protected; the tasks should not be.
		if adj, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && adj < 0 {
			s.spawner.shield = adj
		}
	}
}

// leaveTries is how often the end tries to remove a cgroup that is in use, and leavePause how long lies in between.
const (
	leaveTries = 50
	leavePause = 20 * time.Millisecond
)

// leaveCgroups takes our own cgroups with us when we end for good, and their folders if those are empty: nobody else
// could, since a process can't be in no cgroup. It is no fault if that does not work.
func (s *server) leaveCgroups() {
	for dir := range strings.SplitSeq(s.cgroups, ",") {
		if dir == "" {
			continue
		}
		above := filepath.Dir(filepath.Dir(dir))
		// In the unified hierarchy only a leaf may hold processes; the agent's is one.
		for _, to := range []string{above, filepath.Join(above, "agent")} {
			if writeFile(filepath.Join(to, "cgroup.procs"), "0") == nil {
				break
			}
		}
		// An orphan of a task may be about to end there.
		for range leaveTries {
			err := os.Remove(dir)
			if !errors.Is(err, unix.EBUSY) {
				break
			}
			_, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
			time.Sleep(leavePause)
		}
		_ = os.Remove(filepath.Dir(dir))
	}
}

// flags are those that another run of this supervisor needs.
func (s *server) flags() []string {
	flags := []string{"--dir=" + s.dir, "--idle-exit=" + s.idle.String()}
	if s.cgroups != "" {
		flags = append(flags, "--cgroup="+s.cgroups)
	}
	return flags
}

// handleSignals wakes the reaper when a child ends, and keeps terminals, shells and service managers from ending us
// while tasks run. Catching a signal, other than ignoring it, does not reach the tasks. It returns what undoes it.
func (s *server) handleSignals() func() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range signals {
			switch sig {
			case unix.SIGCHLD:
				s.wake()
			case unix.SIGTERM:
				if err := s.end(); err != nil {
					s.log.Info("SIGTERM ignored", "reason", err)
				}
			}
		}
	}()
	s.wake() // for what ended before we listened
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

// closeOnExecAll marks all descriptors where close_range can't (before Linux 5.11).
func closeOnExecAll() {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name.Name()); err == nil && fd >= 3 {
			unix.CloseOnExec(fd)
		}
	}
}

func inheritListener(fd int) (*net.UnixListener, error) {
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the listener: %w", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("cannot take over the listener: it is of another kind")
	}
	unixListener.SetUnlinkOnClose(false)
	return unixListener, nil
}
