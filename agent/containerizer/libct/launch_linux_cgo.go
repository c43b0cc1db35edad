//go:build linux && cgo

package libct

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/moby/sys/user"
	_ "github.com/opencontainers/cgroups/devices" // else the rules for devices are refused
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters namespaces before Go starts
	enabled "github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"starling/agent/image/overlay"
	"starling/agent/nolink"
	"starling/agent/supervisor"
)

// builtIn tells why containers can't be had with this binary; it is empty where they can.
const builtIn = ""

// seccompBuiltIn tells whether this binary can filter system calls.
const seccompBuiltIn = enabled.Enabled

// libcontainer runs this very program, with the one argument "init", as the process that becomes the container's first.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		libcontainer.Init()
	}
}

// Main is the whole of "starling container", for the supervisor and the agent alone: see the package comment. It returns
// the exit code.
func Main(args []string) int {
	logrus.SetOutput(io.Discard)
	if len(args) == 2 {
		switch args[0] {
		case "run":
			return launch(args[1])
		case "exec":
			return execute(args[1])
		case "console":
			return serveConsole(args[1])
		}
	}
	fmt.Fprintln(os.Stderr, "container: not for people; it takes run, exec or console, and one argument")
	return 2
}

// launch makes the container of a folder; see supervisor.Launcher.
func launch(folder string) int {
	// The mount namespace that is made is this thread's, and the container is forked off it.
	runtime.LockOSThread()
	sv, err := supervisor.OpenLauncher()
	if err != nil {
		fmt.Fprintln(os.Stderr, "container:", err)
		return 1
	}
	if err := start(folder, sv); err != nil {
		sv.Failed(errors.New(sentence(err)))
		return 1
	}
	return 0
}

func start(folder string, sv *supervisor.Launcher) error {
	b, err := readBundle(folder)
	if err != nil {
		return fmt.Errorf("cannot read what to start: %w", err)
	}
	if err := b.mountRoot(folder); err != nil {
		return err
	}
	if err := b.bindSources(folder); err != nil {
		return err
	}
	if b.Seccomp {
		if b.Config.Seccomp, err = defaultSeccomp(b.Config.Capabilities.Bounding); err != nil {
			return err
		}
	}
	process, err := b.process(b.Config.Rootfs)
	if err != nil {
		return err
	}
	for _, mark := range []string{supervisor.MarkContainer, supervisor.MarkSupervisor} {
		process.Env = append(process.Env, mark+"="+os.Getenv(mark))
	}
	process.Init = true
	if b.Terminal == nil {
		process.Stdin, process.Stdout, process.Stderr = os.Stdin, os.Stdout, os.Stderr
	} else {
		socket, err := startConsole(folder, b.Terminal)
		if err != nil {
			return err
		}
		defer socket.Close()
		process.ConsoleSocket, process.ConsoleWidth, process.ConsoleHeight = socket, b.Terminal.Columns, b.Terminal.Rows
	}
	container, err := b.load(folder)
	if err != nil {
		return err
	}
	err = container.Start(process)
	if err == nil {
		var pid int
		if pid, err = process.Pid(); err == nil {
			err = sv.Started(pid)
		}
	}
	if err == nil {
		err = container.Exec()
	}
	if err == nil {
		err = awaitProgram(process, b.Path)
	}
	if err != nil {
		_ = container.Signal(unix.SIGKILL)
		_ = container.Destroy()
	}
	return err
}

// programLimit is how long a process may take from being let go to its program, on a machine with much to do.
const programLimit = 10 * time.Second

// awaitProgram waits until a process that was let go is the program that was asked for: before, signals would meet
// libcontainer's part of it.
func awaitProgram(process *libcontainer.Process, path string) error {
	pid, err := process.Pid()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(programLimit); time.Now().Before(deadline); time.Sleep(200 * time.Microsecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || !strings.Contains(string(stat), "(runc:[") {
			return nil
		}
		if strings.Contains(string(stat), "]) Z ") {
			return fmt.Errorf("cannot run %q: neither a binary of this machine nor a script with an interpreter that exists", path)
		}
	}
	return nil
}

// load makes libcontainer's state of a container that is not there yet. Create would choose the cgroups; those that the
// supervisor looks into are made already, and they are all that is needed.
func (b *bundle) load(folder string) (*libcontainer.Container, error) {
	name := safeName(b.ID)
	state := filepath.Join(folder, stateName)
	dir := filepath.Join(state, name)
	// What an attempt before left.
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	text, err := json.Marshal(libcontainer.State{
		BaseState:   libcontainer.BaseState{ID: name, Config: *b.Config},
		CgroupPaths: b.Cgroups,
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "state.json"), text, 0o600); err != nil {
		return nil, err
	}
	return libcontainer.Load(state, name)
}

// process is the first process, or one beside it, of a container with the given root file system.
func (b *bundle) process(root string) (*libcontainer.Process, error) {
	o, err := b.owner(root, b.User)
	if err != nil {
		return nil, err
	}
	return &libcontainer.Process{
		Args: b.argv(root), Env: b.Env, Cwd: b.Dir, UID: o.UID, GID: o.GID, AdditionalGroups: o.Groups,
	}, nil
}

// owner looks a user up: on the node it was, by the agent; in a root file system of the container's own it is now.
func (b *bundle) owner(root, name string) (*owner, error) {
	if !b.Image && b.Owner != nil {
		return b.Owner, nil
	}
	// Links do not lead out of the root file system.
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	open := func(name string) io.ReadCloser {
		if f, info, err := nolink.Open(r, name, os.O_RDONLY); err == nil && f != nil && info.Mode().IsRegular() {
			return f
		} else if f != nil {
			f.Close()
		}
		return io.NopCloser(strings.NewReader(""))
	}
	passwd, group := open("etc/passwd"), open("etc/group")
	defer passwd.Close()
	defer group.Close()
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, passwd, group)
	if base, _, _ := strings.Cut(name, ":"); err != nil && base == "root" {
		// An image that is but a program has no files of users, and root in any.
		u, err = user.GetExecUser("0"+strings.TrimPrefix(name, "root"), &user.ExecUser{Home: "/"}, passwd, group)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot run as user %q: no such user in the image", name)
	}
	return &owner{UID: u.Uid, GID: u.Gid, Groups: u.Sgids}, nil
}

// mountRoot mounts the root file system, in a mount namespace of our own that ends with the container.
func (b *bundle) mountRoot(folder string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot leave the node's mounts: %w", err)
	}
	target := filepath.Join(folder, rootName)
	if b.Root != "" {
		b.Config.Rootfs = b.Root
		return nil
	}
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	b.Config.Rootfs = target
	if b.Image {
		return mountLayers(folder, target, b.Layers)
	}
	b.forgetNamespaces()
	if err := unix.Mount("/", target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot show the node's files: %w", err)
	}
	// The container gets these anew. The kernel does not mount the same over itself.
	for _, name := range []string{"proc", "sys", "dev"} {
		_ = unix.Unmount(filepath.Join(target, name), unix.MNT_DETACH)
	}
	return nil
}

// bindSources puts what is shown of the node in a place that nobody else can change, from where libcontainer mounts it by
// its path: in sandboxes, and below what operators allow, a task may make a link of any part of the path meanwhile.
func (b *bundle) bindSources(folder string) error {
	dir := filepath.Join(folder, sourcesName)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for i, m := range b.Config.Mounts {
		if m.Device != "bind" {
			continue
		}
		at := filepath.Join(dir, strconv.Itoa(i))
		if err := bindSource(m.Source, at); err != nil {
			return fmt.Errorf("cannot show files of the node at %q: %w", m.Destination, err)
		}
		m.Source = at
	}
	return nil
}

func bindSource(source, at string) error {
	f, err := nolink.Mountable(source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(at, 0o700)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return unix.Mount(nolink.Path(int(f.Fd())), at, "", unix.MS_BIND|unix.MS_REC, "")
}

// forgetNamespaces unmounts the namespaces of others: copies of their mounts would keep them for as long as we live.
func (b *bundle) forgetNamespaces() {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.Contains(line, " - nsfs ") && !b.uses(f[4]) {
			_ = unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
}

func (b *bundle) uses(path string) bool {
	for _, ns := range b.Config.Namespaces {
		if ns.Path == path {
			return true
		}
	}
	return false
}

// mountLayers puts the layers of an image, uppermost first, and what is changed in them over each other. An image may have
// none.
func mountLayers(folder, target string, layers []string) error {
	upper, work := filepath.Join(folder, upperName), filepath.Join(folder, workName)
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if len(layers) == 0 {
		// An overlay needs something below.
		if err := unix.Mount(upper, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount the empty image: %w", err)
		}
		return nil
	}
	if err := overlay.Mount(target, upper, work, layers); err != nil {
		return fmt.Errorf("cannot mount the layers of the image: %w", err)
	}
	return nil
}

// defaultSeccomp is the filter of the Docker engine; what it lets through depends on the capabilities.
func defaultSeccomp(caps []string) (*configs.Seccomp, error) {
	if !enabled.Enabled {
		return nil, nil
	}
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make the seccomp filter: %w", err)
	}
	return specconv.SetupSeccomp(profile)
}

// startConsole starts the relay for the terminal of a container. What it returns is where libcontainer sends that.
func startConsole(folder string, t *terminal) (*os.File, error) {
	fail := func(err error) (*os.File, error) { return nil, fmt.Errorf("cannot make a terminal: %w", err) }
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console")
	defer theirs.Close()
	listener, err := listenConsole(folder)
	if err != nil {
		ours.Close()
		return fail(err)
	}
	defer listener.Close()
	relay := exec.Command("/proc/self/exe", "container", "console", t.Output)
	relay.Args[0] = os.Args[0]
	relay.Env = []string{"GOMAXPROCS=1", "GOGC=50"}
	relay.ExtraFiles = []*os.File{listener, theirs}
	relay.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := relay.Start(); err != nil {
		ours.Close()
		return fail(err)
	}
	return ours, nil
}

// missing is how libcontainer tells of a program that can't be run.
var missing = regexp.MustCompile(`exec: "([^"]*)": (.*)$`)

// sentence makes of an error of libcontainer what people may read.
func sentence(err error) string {
	text := err.Error()
	if m := missing.FindStringSubmatch(text); m != nil {
		why := m[2]
		if strings.Contains(why, "not found in $PATH") || strings.HasSuffix(why, "no such file or directory") {
			why = "no such file or directory"
		}
		return fmt.Sprintf("cannot run %q: %s", m[1], why)
	}
	for _, prefix := range []string{
		"unable to start container process: ", "error during container init: ",
	} {
		text = strings.TrimPrefix(text, prefix)
	}
	if !strings.HasPrefix(text, "cannot ") {
		text = "cannot start the container: " + text
	}
	return text
}
