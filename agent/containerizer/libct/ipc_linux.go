package libct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// What the containers of a group share by SHARE_PARENT is the group's, never the node's: an IPC namespace, mounted onto a
// file as that of its network is, and a /dev/shm. Both are made when the first container asks, and go with the group.
const (
	ipcPrefix = "i-"
	ipcName   = "ipc"
	shmName   = "shm"
)

// defaultShm is the size of /dev/shm in MiB where nobody says.
const defaultShm = 64

// checkGroup tells what a group cannot have of what its executor asks for. The executor itself has no process here.
func checkGroup(linux *mesos.LinuxInfo) error {
	switch {
	case linux.GetIpcMode() == mesos.LinuxInfo_SHARE_PARENT:
		return fmt.Errorf("%w: ipc_mode SHARE_PARENT for an executor: task groups do not get the node's IPC namespace", containerizer.ErrUnsupported)
	case linux.GetSharePidNamespace():
		return fmt.Errorf("%w: share_pid_namespace for an executor: task groups do not get the node's PID namespace", containerizer.ErrUnsupported)
	case linux.GetShmSize() != 0 && linux.GetIpcMode() != mesos.LinuxInfo_PRIVATE:
		return errors.New("a size of /dev/shm needs a private ipc_mode")
	}
	return nil
}

func (c *Containerizer) ipcFolder(id string) string {
	return filepath.Join(c.cfg.Dir, ipcPrefix+safeName(id))
}

// shareIPC returns the IPC namespace and the /dev/shm of a group.
func (c *Containerizer) shareIPC(id string) (ns, shm string, err error) {
	c.ipc.Lock()
	defer c.ipc.Unlock()
	g, err := c.readGroup(id)
	if err != nil {
		return "", "", fmt.Errorf("cannot share the IPC namespace of group %q: %w", id, err)
	}
	dir := c.ipcFolder(id)
	ns, shm = filepath.Join(dir, ipcName), filepath.Join(dir, shmName)
	var st unix.Statfs_t
	if unix.Statfs(ns, &st) == nil && st.Type == unix.NSFS_MAGIC {
		return ns, shm, nil
	}
	// What an attempt before left, or an earlier boot.
	if err := dropIPC(dir); err != nil {
		return "", "", err
	}
	size := g.ShmSize
	if size == 0 {
		size = defaultShm
	}
	if err := makeIPC(ns, shm, size); err != nil {
		return "", "", errors.Join(fmt.Errorf("cannot make the IPC namespace of group %q: %w", id, err), dropIPC(dir))
	}
	return ns, shm, nil
}

// makeIPC makes a /dev/shm of so many MiB, and then a namespace.
func makeIPC(ns, shm string, size uint32) error {
	if err := os.MkdirAll(filepath.Dir(ns), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(shm, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("shm", shm, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("mode=1777,size=%dm", size)); err != nil {
		return err
	}
	if err := os.WriteFile(ns, nil, 0o400); err != nil {
		return err
	}
	done := make(chan error)
	go func() { done <- keepIPC(ns) }()
	return <-done
}

// keepIPC makes a namespace and mounts it onto a file. It has a thread for itself until that is back where it was.
func keepIPC(ns string) error {
	const own = "/proc/thread-self/ns/ipc"
	runtime.LockOSThread()
	home, err := unix.Open(own, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer unix.Close(home)
	if err = unix.Unshare(unix.CLONE_NEWIPC); err == nil {
		err = unix.Mount(own, ns, "", unix.MS_BIND, "")
	}
	if back := unix.Setns(home, unix.CLONE_NEWIPC); back != nil {
		return errors.Join(err, back) // the thread stays locked and ends with this goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// dropIPC takes away what makeIPC made, or some of it; containers that are in it keep it for as long as they run.
func dropIPC(dir string) error {
	for _, name := range []string{ipcName, shmName} {
		err := unix.Unmount(filepath.Join(dir, name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // not mounted; not there
			return fmt.Errorf("cannot give up %q: %w", filepath.Join(dir, name), err)
		}
	}
	return os.RemoveAll(dir)
}
