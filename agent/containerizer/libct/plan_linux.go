package libct

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/agent/containerizer/process"
	"starling/agent/image"
	"starling/agent/network"
	"starling/master/mesos"
)

// plan is a container in the making. What is wrong with what was asked for is gathered and told at once.
type plan struct {
	cfg  *Config
	spec *containerizer.Spec
	info *mesos.ContainerInfo
	// prepared is nil without an image.
	prepared *image.Prepared
	network  network.Attachment
	parent   family
	faults   []string
	b        *bundle
}

// family is what a container may share with its parent.
type family struct {
	// sandbox is that of the parent on the node; pid is its first process, 0 for a group, which has none.
	sandbox string
	pid     int
	// network is the file of a network namespace; empty is the node's.
	network string
	// group is set for a group, privateIPC for one whose executor asked for an IPC namespace; ipc is that, once somebody
	// shares it. shm is the folder of the node that is the parent's /dev/shm; empty where nobody else can have that.
	group, privateIPC bool
	ipc, shm          string
}

func (p *plan) refuse(format string, args ...any) {
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// make makes the bundle, but for the cgroups.
func (p *plan) make() (*bundle, error) {
	p.b = &bundle{ID: p.spec.ID, Parent: p.spec.Parent, Sandbox: p.spec.Dir, Image: p.prepared != nil}
	p.b.Config = &configs.Config{
		Version: "1.0.0", NoNewPrivileges: true, RootPropagation: unix.MS_SLAVE | unix.MS_REC,
		MaskPaths: maskedPaths, ReadonlyPaths: readonlyPaths, Namespaces: p.namespaces(), Hostname: p.hostname(),
		Cgroups: &cgroups.Cgroup{Resources: &cgroups.Resources{}},
	}
	p.rights()
	p.program()
	p.files()
	if tty := p.info.GetTtyInfo(); tty != nil {
		p.b.Terminal = &terminal{
			Columns: uint16(tty.GetWindowSize().GetColumns()), Rows: uint16(tty.GetWindowSize().GetRows()), Output: p.spec.Stdout,
		}
	}
	if len(p.faults) > 0 {
		return nil, errors.New(strings.Join(p.faults, "; "))
	}
	return p.b, nil
}

// sharesIPC tells whether the container is to be in its parent's IPC namespace: by its own word or, without an image, by
// that of its executor.
func (p *plan) sharesIPC() bool {
	switch p.info.GetLinuxInfo().GetIpcMode() {
	case mesos.LinuxInfo_SHARE_PARENT:
		return true
	case mesos.LinuxInfo_PRIVATE:
		return false
	}
	return p.parent.privateIPC && p.prepared == nil
}

// namespaces says which the container gets, and whose it joins.
func (p *plan) namespaces() configs.Namespaces {
	ns := configs.Namespaces{{Type: configs.NEWNS}, {Type: configs.NEWUTS}}
	image, linux := p.prepared != nil, p.info.GetLinuxInfo()
	ofParent := func(kind configs.NamespaceType) {
		if p.parent.pid > 0 {
			ns = append(ns, configs.Namespace{Type: kind, Path: fmt.Sprintf("/proc/%d/ns/%s", p.parent.pid, configs.NsName(kind))})
		}
	}
	switch {
	case linux.GetSharePidNamespace() && p.parent.group:
		p.refuse("share_pid_namespace: a task group has no process whose PID namespace could be shared")
	case linux.GetSharePidNamespace() && p.parent.pid == 0 && p.cfg.ForbidPrivileged:
		p.refuse("share_pid_namespace: the node's PID namespace is not allowed on this agent")
	case linux.GetSharePidNamespace():
		ofParent(configs.NEWPID)
	case image || p.cfg.isolates(isolatePID):
		ns = append(ns, configs.Namespace{Type: configs.NEWPID})
	}
	switch mode := linux.GetIpcMode(); {
	case p.parent.ipc != "":
		ns = append(ns, configs.Namespace{Type: configs.NEWIPC, Path: withoutLinks(p.parent.ipc)})
	case mode == mesos.LinuxInfo_SHARE_PARENT && p.parent.pid == 0 && p.cfg.ForbidPrivileged:
		p.refuse("ipc_mode SHARE_PARENT: the node's IPC namespace is not allowed on this agent")
	case mode == mesos.LinuxInfo_SHARE_PARENT:
		ofParent(configs.NEWIPC)
	case mode == mesos.LinuxInfo_PRIVATE, image, p.cfg.isolates(isolateIPC):
		ns = append(ns, configs.Namespace{Type: configs.NEWIPC})
	}
	switch {
	case p.network.Path != "":
		ns = append(ns, configs.Namespace{Type: configs.NEWNET, Path: p.network.Path})
	case p.parent.network != "":
		ns = append(ns, configs.Namespace{Type: configs.NEWNET, Path: p.parent.network})
	}
	return ns
}

func (p *plan) hostname() string {
	if name := p.info.GetHostname(); name != "" {
		return name
	}
	return p.network.Hostname
}

// rights are capabilities, seccomp, resource limits, user and devices.
func (p *plan) rights() {
	linux, image := p.info.GetLinuxInfo(), p.prepared != nil
	user := p.spec.User
	if user == "" && image {
		user = p.prepared.User
	}
	root := user == "" || user == "root" || user == "0"
	caps, faults := capabilities(linux, p.cfg.ForbidPrivileged, !root)
	p.faults = append(p.faults, faults...)
	p.b.Config.Capabilities = caps
	limits, faults := rlimits(p.info.GetRlimitInfo())
	p.faults = append(p.faults, faults...)
	p.b.Config.Rlimits = limits
	seccomp := linux.GetSeccomp()
	p.b.Seccomp = !seccomp.GetUnconfined()
	switch {
	case seccomp.GetUnconfined() && seccomp.GetProfileName() != "":
		p.refuse("seccomp is both unconfined and asked for by the profile %q", seccomp.GetProfileName())
	case seccomp.GetUnconfined() && p.cfg.ForbidPrivileged:
		p.refuse("containers without seccomp are not allowed on this agent")
	case seccomp.GetProfileName() != "" && seccomp.GetProfileName() != "default":
		p.refuse("seccomp profile %q is unknown", seccomp.GetProfileName())
	}
	if linux.GetShmSize() != 0 && linux.GetIpcMode() != mesos.LinuxInfo_PRIVATE {
		p.refuse("a size of /dev/shm needs a private ipc_mode")
	}
	if image {
		p.b.User = user
	} else if o, err := lookOwner(user); err != nil {
		p.refuse("%v", err)
	} else {
		p.b.Owner = o
	}
	nodes, rules, err := deviceRules(p.spec.Devices)
	if err != nil {
		p.refuse("%v", err)
	}
	p.b.Config.Devices, p.b.Config.Cgroups.Resources.Devices = nodes, rules
}

// lookOwner looks a user up on the node.
func lookOwner(name string) (*owner, error) {
	cred, err := process.LookUser(name)
	if err != nil || cred == nil {
		return &owner{UID: os.Geteuid(), GID: os.Getegid()}, err
	}
	o := &owner{UID: int(cred.UID), GID: int(cred.GID)}
	for _, g := range cred.Groups {
		o.Groups = append(o.Groups, int(g))
	}
	return o, nil
}

// program is what to run.
func (p *plan) program() {
	if p.prepared == nil {
		p.b.Env, p.b.Dir = mergeEnv(p.spec.Env), p.spec.Dir
		path, err := process.LookPath(p.spec)
		if err != nil {
			p.refuse("%v", err)
			return
		}
		p.b.Path, p.b.Args = path, slices.Clone(p.spec.Args)
		if len(p.b.Args) == 0 {
			p.b.Args = []string{path}
		}
		return
	}
	path, args, err := imageArgs(p.spec, &p.prepared.Image)
	if err != nil {
		p.refuse("%v", err)
	}
	p.b.Path, p.b.Args, p.b.Env, p.b.Dir = path, args, mergeEnv(p.prepared.Env, p.spec.Env), p.prepared.WorkingDir
	if p.b.Dir == "" {
		p.b.Dir = p.cfg.SandboxDirectory
	}
	if !filepath.IsAbs(p.b.Dir) {
		p.b.Dir = "/" + p.b.Dir
	}
}

// files are the root file system and what is mounted in it.
func (p *plan) files() {
	c := p.b.Config
	private := slices.ContainsFunc(c.Namespaces, func(ns configs.Namespace) bool { return ns.Type == configs.NEWIPC && ns.Path == "" })
	shm := "/dev/shm"
	switch {
	case private:
		shm = ""
	case p.sharesIPC() && (p.parent.group || p.parent.pid > 0):
		shm = p.parent.shm
	}
	c.Mounts = systemMounts(p.info.GetLinuxInfo().GetShmSize(), shm)
	v := &volumes{
		spec: p.spec, image: p.prepared != nil, sandbox: p.spec.Dir, parent: p.parent.sandbox, allowed: p.cfg.AllowedHostPaths, owner: p.b.Owner,
	}
	if p.prepared != nil {
		p.b.Layers, p.b.Root = p.prepared.Layers, p.prepared.Root
		v.sandbox = p.cfg.SandboxDirectory
		if owner, err := lookOwner(p.b.User); err == nil {
			v.owner = owner
		}
		c.Mounts = append(c.Mounts, bindMount(p.spec.Dir, v.sandbox, false, false))
		if p.network.Path == "" && p.parent.network == "" {
			for _, f := range []network.File{
				{Source: cmp.Or(p.cfg.ResolvConf, "/etc/resolv.conf"), Target: "/etc/resolv.conf"},
				{Source: "/etc/hosts", Target: "/etc/hosts"},
				{Source: "/etc/hostname", Target: "/etc/hostname"},
			} {
				if real, err := filepath.EvalSymlinks(f.Source); err == nil {
					c.Mounts = append(c.Mounts, bindMount(real, f.Target, true, false))
				}
			}
		}
	}
	for _, f := range p.network.Files {
		if _, err := os.Stat(f.Target); p.prepared != nil || err == nil {
			c.Mounts = append(c.Mounts, bindMount(withoutLinks(f.Source), f.Target, p.prepared == nil, false))
		}
	}
	v.resolve()
	c.Mounts = append(c.Mounts, v.mounts...)
	p.faults = append(p.faults, v.faults...)
}

// withoutLinks takes the links out of a path that is the operator's or the agent's own. What does not exist is told by the
// launcher.
func withoutLinks(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// systemMounts are those that every container has, as the Docker engine makes them. shared is the folder of the node that is
// its /dev/shm; empty is one of its own, of so many MiB.
func systemMounts(shmSize uint32, shared string) []*configs.Mount {
	const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	fs := func(kind, at string, flags int, data string) *configs.Mount {
		return &configs.Mount{Source: kind, Destination: at, Device: kind, Flags: flags, Data: data}
	}
	if shmSize == 0 {
		shmSize = defaultShm
	}
	mounts := []*configs.Mount{
		fs("proc", "/proc", strict, ""),
		fs("tmpfs", "/dev", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k"),
		fs("devpts", "/dev/pts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
		fs("sysfs", "/sys", strict|unix.MS_RDONLY, ""),
		fs("cgroup", "/sys/fs/cgroup", strict|unix.MS_RDONLY, ""),
		fs("mqueue", "/dev/mqueue", strict, ""),
	}
	if shared == "" {
		return append(mounts, fs("tmpfs", "/dev/shm", strict, fmt.Sprintf("mode=1777,size=%dm", shmSize)))
	}
	return append(mounts, bindMount(withoutLinks(shared), "/dev/shm", false, false))
}

// cgroupPaths sorts folders of cgroups by controller.
func cgroupPaths(dirs []string) map[string]string {
	paths := make(map[string]string)
	for _, dir := range dirs {
		for name, file := range map[string]string{
			"": "cgroup.events", "cpu": "cpu.shares", "cpuacct": "cpuacct.usage", "memory": "memory.limit_in_bytes",
			"devices": "devices.list", "pids": "pids.current", "freezer": "freezer.state",
		} {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
				if _, unified := os.Stat(filepath.Join(dir, "cgroup.events")); name == "" || unified != nil {
					paths[name] = dir
				}
			}
		}
	}
	return paths
}
