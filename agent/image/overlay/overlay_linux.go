package overlay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const opaqueXattr = "trusted.overlay.opaque"

// optionsMax is how long the options of a mount may be: one page, with its zero byte.
var optionsMax = os.Getpagesize() - 1

// Mount mounts an overlay in the mount namespace of the calling thread. Where the options would not fit in a page, or a
// path holds what separates them, folders are named by descriptors; so about 200 layers always fit.
func Mount(target, upper, work string, layers []string) error {
	if len(layers) == 0 {
		return errors.New("an overlay needs a layer")
	}
	options := "lowerdir=" + strings.Join(layers, ":") + ",upperdir=" + upper + ",workdir=" + work
	if len(options) > optionsMax || strings.Count(options, ",") > 2 || strings.Count(options, ":") > len(layers)-1 || strings.Contains(options, `\`) {
		short, release, err := byDescriptor(upper, work, layers)
		if err != nil {
			return err
		}
		defer release()
		if options = short; len(options) > optionsMax {
			return fmt.Errorf("%d layers are more than can be mounted", len(layers))
		}
	}
	if err := unix.Mount("overlay", target, "overlay", 0, options); err != nil {
		return fmt.Errorf("cannot mount overlay of %d layers: %w", len(layers), err)
	}
	return nil
}

func byDescriptor(upper, work string, layers []string) (options string, release func(), err error) {
	var open []int
	release = func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}
	names := make([]string, 0, len(layers)+2)
	for _, dir := range append(append([]string{}, layers...), upper, work) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			release()
			return "", nil, &fs.PathError{Op: "open", Path: dir, Err: err}
		}
		open = append(open, fd)
		names = append(names, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	n := len(layers)
	return "lowerdir=" + strings.Join(names[:n], ":") + ",upperdir=" + names[n] + ",workdir=" + names[n+1], release, nil
}

// Check tells whether an overlay can be mounted whose upper folder is below dir. It mounts one in a mount namespace that
// ends with it, and leaves nothing.
func Check(dir string) (err error) {
	base, err := os.MkdirTemp(dir, ".overlay-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	names := map[string]string{}
	for _, n := range []string{"lower", "upper", "work", "target"} {
		names[n] = filepath.Join(base, n)
		if err := os.Mkdir(names[n], 0o700); err != nil {
			return err
		}
	}
	result := make(chan error, 1)
	go func() {
		// The thread has a mount namespace of its own; it is not unlocked, so it ends with this goroutine, and the mount
		// with it.
		runtime.LockOSThread()
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("cannot have a mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("cannot make mounts private: %w", err)
			}
			if err := Mount(names["target"], names["upper"], names["work"], []string{names["lower"]}); err != nil {
				return err
			}
			return unix.Unmount(names["target"], unix.MNT_DETACH)
		}()
	}()
	return <-result
}

type inode struct{ dev, ino uint64 }

// linked tells whether a file has other names, and which they have in common.
func linked(info fs.FileInfo) (inode, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.IsDir() {
		return inode{}, false
	}
	return inode{uint64(st.Dev), st.Ino}, st.Nlink > 1
}

func isWhiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func isOpaque(dir string) bool {
	var b [1]byte
	n, err := unix.Lgetxattr(dir, opaqueXattr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

func makeDevice(to string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeSocket != 0 {
		return nil // a socket is nothing without its process
	}
	return unix.Mknod(to, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
}

// like gives a copy the owner, mode, attributes and times of what it is a copy of.
func like(from, to string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		if err := os.Chmod(to, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
			return err
		}
		if err := copyXattrs(from, to); err != nil {
			return err
		}
	}
	times := []unix.Timespec{{Sec: st.Atim.Sec, Nsec: st.Atim.Nsec}, {Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW)
}

// copyXattrs copies what programs see; the marks of overlayfs have done their work.
func copyXattrs(from, to string) error {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(from, list)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ERANGE) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(from, name, value)
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(to, name, value[:n], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}
