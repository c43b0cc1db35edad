// Package nolink opens what lies in folders that others may change: the sandboxes of tasks. The last part of a path is not
// the only one that its user can make a link of; where root opens, makes or mounts something, a link further up leads it
// out of the sandbox just as well, and between a look and the opening there is always a moment. So no link in any part of
// the path is followed, each folder is entered from the one above, and nothing is opened on the way that could hang or act.
//
// Paths are real ones: whoever makes them up takes the links out of the part that is the operator's (filepath.EvalSymlinks).
package nolink

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// ErrLink is returned for a path that leads through something else than a folder: to those who follow none, a link is one.
var ErrLink = errors.New("a part of the path is no folder, or a symbolic link")

// OpenRoot opens a folder as os.OpenRoot does; no part of its absolute path may be a symbolic link.
func OpenRoot(dir string) (*os.Root, error) { return openRoot(dir) }

// OpenFile opens a file or folder as os.OpenFile does; no part of its absolute path may be a symbolic link. What is to be
// told from a pipe or a device is opened with syscall.O_NONBLOCK, and looked at.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return openFile(path, flag, perm)
}

// Below opens a folder below a root as root.OpenRoot does, but for what that waits for, or sets to work, if it is a pipe or
// a device: the last part, too, is entered as a folder.
func Below(root *os.Root, name string) (*os.Root, error) { return root.OpenRoot(name + "/.") }

// Open opens a file or folder below a root; links are followed as long as they do not lead out. What is neither is not opened,
// since that alone may hang or act: info then tells what it is, and f is nil. Nothing is made.
func Open(root *os.Root, name string, flag int) (f *os.File, info fs.FileInfo, err error) {
	return open(root, name, flag)
}

// look is Open where the system has nothing better: between the look and the opening there is a moment.
func look(root *os.Root, name string, flag int) (*os.File, fs.FileInfo, error) {
	info, err := root.Stat(name)
	if err != nil || !usual(info) {
		return nil, info, err
	}
	f, err := root.OpenFile(name, flag|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil || !usual(info) {
		return nil, info, errors.Join(err, f.Close())
	}
	return f, info, nil
}

func usual(info fs.FileInfo) bool { return info.IsDir() || info.Mode().IsRegular() }

// Mkdir makes a folder below a root and gives it to a user; a negative uid leaves the owner alone. What is given away is
// a folder below the same root, never a file that has another name elsewhere, whatever lies at the path by then.
func Mkdir(root *os.Root, name string, uid, gid int) error {
	if err := root.Mkdir(name, 0o755); err != nil || uid < 0 {
		return err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chown(uid, gid), f.Close())
}
