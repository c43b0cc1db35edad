package libct

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/agent/nolink"
	"starling/master/mesos"
)

// volumes resolves what is to be seen in a container beside its root file system.
type volumes struct {
	spec *containerizer.Spec
	// image is set where there is a root file system of the container's own. sandbox is where the container sees its own.
	image   bool
	sandbox string
	// parent is the sandbox of the parent on the node; empty where there is none.
	parent  string
	allowed []string
	owner   *owner

	mounts []*configs.Mount
	faults []string
}

func (v *volumes) refuse(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

// resolve makes mounts of all volumes, or notes why not.
func (v *volumes) resolve() {
	for _, m := range v.spec.Mounts {
		v.mount(m.Source, m.Target, m.ReadOnly, false)
	}
	for _, volume := range v.spec.Container.GetVolumes() {
		ro := volume.GetMode() == mesos.Volume_RO
		at := volume.GetContainerPath()
		source, slave, err := v.source(volume)
		if err != nil {
			v.refuse("volume at %q: %v", at, err)
			continue
		}
		v.mount(source, at, ro, slave)
	}
}

// source finds the folder or file of the node that a volume shows.
func (v *volumes) source(volume *mesos.Volume) (path string, slave bool, err error) {
	src := volume.GetSource()
	switch {
	case volume.HostPath != nil && src == nil && volume.GetImage() == nil:
		if !filepath.IsAbs(volume.GetHostPath()) {
			path, err = v.inside(v.spec.Dir, volume.GetHostPath(), true)
			return path, false, err
		}
		path, err = v.ofNode(volume.GetHostPath())
		return path, false, err
	case volume.GetImage() != nil:
		return "", false, errors.New("volumes of images are not supported by this agent")
	case src == nil:
		return "", false, errors.New("it has no source")
	}
	switch src.GetType() {
	case mesos.Volume_Source_HOST_PATH:
		host := src.GetHostPath()
		switch host.GetMountPropagation().GetMode() {
		case mesos.MountPropagation_BIDIRECTIONAL:
			return "", false, errors.New("bidirectional mount propagation is not supported by this agent")
		case mesos.MountPropagation_HOST_TO_CONTAINER:
			slave = true
		}
		if !filepath.IsAbs(host.GetPath()) {
			return "", false, fmt.Errorf("path %q of the node is not absolute", host.GetPath())
		}
		path, err = v.ofNode(host.GetPath())
		return path, slave, err
	case mesos.Volume_Source_SANDBOX_PATH:
		of := v.spec.Dir
		if src.GetSandboxPath().GetType() == mesos.Volume_Source_SandboxPath_PARENT {
			if of = v.parent; of == "" {
				return "", false, errors.New("there is no parent whose sandbox it could show")
			}
		}
		path, err = v.inside(of, src.GetSandboxPath().GetPath(), true)
		return path, false, err
	}
	return "", false, fmt.Errorf("volumes of type %s are not supported by this agent", src.GetType())
}

// ofNode looks whether a path of the node may be shown, and takes the links out of it.
func (v *volumes) ofNode(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("path %q does not exist on the node", path)
	}
	if err != nil {
		return "", fmt.Errorf("cannot use path %q of the node: %w", path, err)
	}
	if len(v.allowed) == 0 {
		return real, nil
	}
	for _, allowed := range v.allowed {
		if a, err := filepath.EvalSymlinks(allowed); err == nil && within(real, a) {
			return real, nil
		}
	}
	return "", fmt.Errorf("path %q of the node is not allowed on this agent", path)
}

// inside finds a path in a sandbox, and makes a folder of it where it lacks. Links that lead out are not followed: what
// was fetched may hold some.
func (v *volumes) inside(sandbox, path string, create bool) (string, error) {
	if !filepath.IsLocal(path) {
		return "", fmt.Errorf("path %q leads out of the sandbox", path)
	}
	root, err := nolink.OpenRoot(sandbox)
	if err != nil {
		return "", fmt.Errorf("cannot open the sandbox: %w", err)
	}
	defer root.Close()
	if _, err := root.Stat(path); errors.Is(err, fs.ErrNotExist) && create {
		if err := v.mkdir(root, path); err != nil {
			return "", fmt.Errorf("cannot make %q in the sandbox: %w", path, err)
		}
	} else if err != nil {
		return "", fmt.Errorf("cannot use %q in the sandbox: %w", path, err)
	}
	base := filepath.Clean(sandbox)
	real, err := filepath.EvalSymlinks(filepath.Join(base, path))
	if err != nil || !within(real, base) {
		return "", fmt.Errorf("path %q leads out of the sandbox", path)
	}
	return real, nil
}

// mkdir makes a folder and what lacks above it, for the user of the container.
func (v *volumes) mkdir(root *os.Root, path string) error {
	uid, gid := -1, -1
	if v.owner != nil {
		uid, gid = v.owner.UID, v.owner.GID
	}
	at := ""
	for part := range strings.SplitSeq(filepath.Clean(path), "/") {
		at = filepath.Join(at, part)
		if err := nolink.Mkdir(root, at, uid, gid); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// mount notes a mount of source where the container asks for it.
func (v *volumes) mount(source, target string, ro, slave bool) {
	at := target
	switch {
	case target == "" || strings.Contains(target, "\x00"):
		v.refuse("%q is no path in a container", target)
		return
	case filepath.IsAbs(target):
		at = filepath.Clean(target)
		if at == "/" {
			v.refuse("a volume cannot be mounted at the root of a container")
			return
		}
		if _, err := os.Stat(at); !v.image && err != nil {
			v.refuse("volume at %q: a container without an image sees the node's files, and there the path does not exist", target)
			return
		}
	case !filepath.IsLocal(target):
		v.refuse("volume at %q: the path leads out of the sandbox", target)
		return
	default:
		at = filepath.Join(v.sandbox, target)
		if err := v.mountpoint(source, target); err != nil {
			v.refuse("volume at %q: %v", target, err)
			return
		}
	}
	v.mounts = append(v.mounts, bindMount(source, at, ro, slave))
}

// mountpoint makes what a volume is mounted over in the sandbox: a folder, or a file for a file. A link that is there
// already, as the agent makes for persistent volumes, gives way to a folder.
func (v *volumes) mountpoint(source, target string) error {
	f, err := nolink.Mountable(source)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	root, err := nolink.OpenRoot(v.spec.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if at, err := root.Lstat(target); err == nil && at.Mode()&fs.ModeSymlink != 0 {
		if err := root.Remove(target); err != nil {
			return err
		}
	}
	if info.IsDir() {
		if at, err := root.Stat(target); err == nil && at.IsDir() {
			return nil
		}
		return v.mkdir(root, target)
	}
	if dir := filepath.Dir(target); dir != "." {
		if err := v.mkdir(root, dir); err != nil {
			return err
		}
	}
	if f, err = root.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); errors.Is(err, fs.ErrExist) {
		return nil // whatever it is, the mount will tell
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// bindMount shows a file or folder of the node. The launcher follows no link in source: those that are the operator's are
// taken out before, and what a task puts in the place of what was judged leads nowhere. What is written on it never gives rights: it has no devices, and no
// programs that change the user.
func bindMount(source, at string, ro, slave bool) *configs.Mount {
	m := &configs.Mount{
		Source: source, Destination: at, Device: "bind", Flags: unix.MS_BIND | unix.MS_REC | unix.MS_NOSUID | unix.MS_NODEV,
		PropagationFlags: []int{unix.MS_PRIVATE | unix.MS_REC},
	}
	if slave {
		m.PropagationFlags = []int{unix.MS_SLAVE | unix.MS_REC}
	}
	if ro {
		m.Flags |= unix.MS_RDONLY
		// What is mounted below is not writable either.
		m.RecAttr = &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	return m
}

// within tells whether path is dir or below it; both are clean.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
