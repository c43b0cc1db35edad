package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spawner forks. It is used by many goroutines; the forks themselves come one after the other, as they do in any Go
// program.
type spawner struct {
	mark string
	// shield is our own oom_score_adj where it protects us; 0 means that it was left alone.
	shield int
	mu     sync.Mutex
}

// spawned is a process that runs.
type spawned struct {
	pid, pidfd int
	ticks      uint64
}

// spawn starts the first process of a container, or its launcher, which gets extra as further descriptors from 3 on. The
// caller keeps all others from reaping meanwhile. Errors are refusals with words for people.
func (s *spawner) spawn(spec *Spec, extra ...int) (spawned, error) {
	if err := checkDir(spec); err != nil {
		return spawned{}, err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return spawned{}, refuse("cannot_run", "cannot run %q: cannot open %s: %v", spec.Path, os.DevNull, err)
	}
	defer unix.Close(null)
	stdout, stderr := null, null
	if spec.Stdout != "" {
		if stdout, err = openOutput(spec.Stdout, spec.Credential); err != nil {
			return spawned{}, err
		}
		defer unix.Close(stdout)
	}
	if spec.Stderr != "" && spec.Stderr == spec.Stdout {
		stderr = stdout
	} else if spec.Stderr != "" {
		if stderr, err = openOutput(spec.Stderr, spec.Credential); err != nil {
			return spawned{}, err
		}
		defer unix.Close(stderr)
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   s.environ(spec),
		Files: []uintptr{uintptr(null), uintptr(stdout), uintptr(stderr)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	for _, fd := range extra {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	cgroups := spec.Cgroups
	if spec.LaunchWithin > 0 {
		cgroups = nil
	} else if c := spec.Credential; c != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
	}
	unified, legacy := splitCgroups(cgroups)
	if unified != "" {
		fd, err := unix.Open(unified, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return spawned{}, refuse("cannot_run", "cannot open cgroup %q: %v", unified, err)
		}
		defer unix.Close(fd)
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
	}
	pid, err := s.fork(spec, legacy, attr)
	if attr.Sys.UseCgroupFD && (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.E2BIG)) {
		// Before Linux 5.7 nobody is born into a cgroup: it is moved there, after a moment in which it may have forked.
		attr.Sys.UseCgroupFD = false
		if pid, err = s.fork(spec, legacy, attr); err == nil {
			err = writeFile(filepath.Join(unified, "cgroup.procs"), strconv.Itoa(pid))
			if err != nil {
				abandon(pid)
			}
		}
	}
	if err != nil {
		if pidfd >= 0 {
			unix.Close(pidfd)
		}
		return spawned{}, explain(spec, err)
	}
	p, err := readProc(pid)
	if err == nil && pidfd < 0 {
		pidfd, err = openPidfd(pid, p.ticks)
	}
	if err != nil {
		abandon(pid)
		return spawned{}, refuse("cannot_run", "cannot run %q: cannot hold on to its process: %v", spec.Path, err)
	}
	return spawned{pid: pid, pidfd: pidfd, ticks: p.ticks}, nil
}

// abandon ends a child that can't be kept.
func abandon(pid int) {
	_ = unix.Kill(-pid, unix.SIGKILL)
	_ = unix.Kill(pid, unix.SIGKILL)
	_, _ = unix.Wait4(pid, nil, 0, nil)
}

// fork starts the process from a thread that is in the given cgroups of the first version: there, a child is born where
// the thread is that forks it. The thread is thrown away afterwards, since it could not always go back.
func (s *spawner) fork(spec *Spec, legacy []string, attr *syscall.ProcAttr) (pid int, err error) {
	if len(legacy) == 0 {
		return s.forkHere(spec, attr)
	}
	done := make(chan struct{})
	var thread func()
	thread = func() {
		// Without an unlock the end of the goroutine is the end of its thread. The main thread can't end so, and owns
		// the memory of all: another goroutine gets another thread as long as this one holds it.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			again := make(chan struct{})
			inner := thread
			go func() { defer close(again); inner() }()
			<-again
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		for _, dir := range legacy {
			if err = writeFile(filepath.Join(dir, "tasks"), "0"); err != nil {
				err = refuse("cannot_run", "cannot join cgroup %q: %v", dir, cause(err))
				return
			}
		}
		pid, err = s.forkHere(spec, attr)
	}
	go thread()
	<-done
	return pid, err
}

// forkHere forks from the thread that it is called on.
func (s *spawner) forkHere(spec *Spec, attr *syscall.ProcAttr) (pid int, err error) {
	for try := range 6 {
		pid, err = s.forkOnce(spec, attr)
		// A program that was written a moment ago is busy as long as a child that the writer forked meanwhile has not
		// reached its own exec.
		if !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		time.Sleep(time.Millisecond << try)
	}
	return pid, err
}

func (s *spawner) forkOnce(spec *Spec, attr *syscall.ProcAttr) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shield != 0 {
		// The child inherits our protection from the OOM killer and could have passed it on before we changed it: so
		// we go without for the moment of the fork.
		_ = setOOMScore(0)
		defer setOOMScore(s.shield)
	}
	return syscall.ForkExec(spec.Path, spec.Args, attr)
}

// environ is the environment of the spec with our marks.
func (s *spawner) environ(spec *Spec) []string {
	env := make([]string, 0, len(spec.Env)+2)
	for _, v := range spec.Env {
		if !strings.HasPrefix(v, MarkContainer+"=") && !strings.HasPrefix(v, MarkSupervisor+"=") {
			env = append(env, v)
		}
	}
	return append(env, MarkContainer+"="+spec.ID, MarkSupervisor+"="+s.mark)
}

// checkDir tells of a bad working directory by its name: the error of the fork would not say what it is about.
func checkDir(spec *Spec) error {
	info, err := os.Stat(spec.Dir)
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return refuse("cannot_run", "cannot use working directory %q: %v", spec.Dir, cause(err))
	}
	return nil
}

// explain turns the error of a fork into a sentence.
func explain(spec *Spec, err error) *Error {
	var refusal *Error
	if errors.As(err, &refusal) {
		return refusal
	}
	path := spec.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(spec.Dir, path)
	}
	why := cause(err).Error()
	switch info, e := os.Stat(path); {
	case errors.Is(err, unix.ENOENT) && e == nil:
		why = "its interpreter or loader does not exist"
	case errors.Is(err, unix.EACCES) && e == nil && info.IsDir():
		why = "is a directory"
	case errors.Is(err, unix.ENOEXEC):
		why = "is neither a binary of this machine nor a script that begins with #!"
	case errors.Is(err, unix.EPERM) && spec.Credential != nil:
		why = fmt.Sprintf("not permitted to become user %d", spec.Credential.UID)
	case errors.Is(err, unix.E2BIG):
		why = "arguments and environment are too large"
	}
	return refuse("cannot_run", "cannot run %q: %s", spec.Path, why)
}

// cause takes the operation and the path off an error of the os package.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// openOutput opens a file for the output of a task. The folder, and some of those above it, may belong to the task's user,
// who may have put anything there: no link is followed, what has other names is not written to, and nothing is opened
// that could hang or act. A new file is given to that user.
func openOutput(path string, user *Credential) (int, error) {
	fail := func(err error) (int, error) {
		switch {
		case errors.Is(err, unix.ELOOP):
			err = errors.New("is a symbolic link")
		case errors.Is(err, unix.ENOTDIR):
			err = errors.New("a part of its path is no folder, or a symbolic link")
		}
		return -1, refuse("cannot_run", "cannot open output file %q: %v", path, cause(err))
	}
	dir, err := openDir(filepath.Dir(path))
	if err != nil {
		return fail(err)
	}
	defer unix.Close(dir)
	flags := unix.O_WRONLY | unix.O_APPEND | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, filepath.Base(path), flags|unix.O_CREAT|unix.O_EXCL, 0o644)
	if err == nil && user != nil {
		if err = unix.Fchown(fd, int(user.UID), int(user.GID)); err != nil {
			unix.Close(fd)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		fd, err = openExisting(dir, filepath.Base(path), path == os.DevNull, flags)
	}
	if err != nil {
		return fail(err)
	}
	// The task gets it blocking, as programs expect.
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return fd, nil
}

// openExisting looks at what there is before it opens that.
func openExisting(dir int, name string, device bool, flags int) (int, error) {
	at, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	var stat unix.Stat_t
	if err := unix.Fstat(at, &stat); err != nil {
		return -1, err
	}
	switch kind := stat.Mode & unix.S_IFMT; {
	case kind == unix.S_IFLNK:
		return -1, unix.ELOOP
	case kind == unix.S_IFDIR:
		return -1, unix.EISDIR
	case kind != unix.S_IFREG && !device:
		return -1, errors.New("is not a regular file")
	case kind == unix.S_IFREG && stat.Nlink > 1:
		return -1, errors.New("has other names, maybe outside of the sandbox")
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(at), flags, 0)
}

// openDir enters a folder step by step, so that no part of its path is a link.
func openDir(path string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Open("/", flags, 0)
	for part := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		if err != nil || part == "" {
			break
		}
		above := fd
		fd, err = unix.Openat(above, part, flags, 0)
		unix.Close(above)
	}
	return fd, err
}

func setOOMScore(score int) error {
	return writeFile("/proc/self/oom_score_adj", strconv.Itoa(score))
}
