package nolink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func openRoot(dir string) (*os.Root, error) {
	fd, err := walk(dir)
	if err != nil {
		return nil, refuse(dir, err)
	}
	defer unix.Close(fd)
	return os.OpenRoot(Path(fd))
}

func openFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	dir, err := walk(filepath.Dir(path))
	if err != nil {
		return nil, refuse(path, err)
	}
	defer unix.Close(dir)
	base := filepath.Base(path)
	if base == "/" {
		base = "."
	}
	fd, err := openAt(dir, base, flag|unix.O_NOFOLLOW, uint32(perm.Perm()))
	if err != nil {
		return nil, refuse(path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func refuse(path string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = ErrLink
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

// Mountable finds a file or folder for a mount, and opens nothing. What it is can be told by Path as long as the file that
// is returned is open.
func Mountable(path string) (*os.File, error) {
	f, err := openFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		err = refuse(path, unix.ELOOP)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Path names what a descriptor of ours is open for.
func Path(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func open(root *os.Root, name string, flag int) (*os.File, fs.FileInfo, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	fail := func(err error) (*os.File, fs.FileInfo, error) {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd := -1
	for range tries {
		fd, err = unix.Openat2(int(dir.Fd()), name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return look(root, name, flag) // before Linux 5.6, or a filter that does not know the call
	}
	if err != nil {
		return fail(err)
	}
	found := os.NewFile(uintptr(fd), name)
	defer found.Close()
	info, err := found.Stat()
	if err != nil || !usual(info) {
		return nil, info, err
	}
	at, err := unix.Open(Path(fd), flag|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	// By its name the os package looks at what is in a folder.
	return os.NewFile(uintptr(at), Path(at)), info, nil
}

// tries bounds how often a path is resolved anew whose folders are moved meanwhile.
const tries = 32

// walk enters a folder step by step.
func walk(dir string) (int, error) {
	if !filepath.IsAbs(dir) {
		return -1, errors.New("not an absolute path")
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW
	fd, err := openAt(unix.AT_FDCWD, "/", flags, 0)
	for part := range strings.SplitSeq(strings.Trim(filepath.Clean(dir), "/"), "/") {
		if err != nil || part == "" {
			break
		}
		var next int
		next, err = openAt(fd, part, flags, 0)
		unix.Close(fd)
		fd = next
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

func openAt(at int, name string, flags int, perm uint32) (int, error) {
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_CLOEXEC, perm)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
