package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"starling/agent/nolink"
)

// dirContainers is where the sandboxes of nested containers lie, in that of the container that they are nested in; standalone
// ones have a folder of that name in the work directory. dirTasks is where tasks of an executor are found by their ids.
const (
	dirContainers = "containers"
	dirTasks      = "tasks"
)

// Nested is the sandbox of a container that is nested in the one whose sandbox is parentDir. container is its own part of the id.
func (l Layout) Nested(parentDir, container string) string {
	return filepath.Join(parentDir, dirContainers, container)
}

// Standalone is the sandbox of a container that belongs to nobody.
func (l Layout) Standalone(container string) string {
	return filepath.Join(l.workDir, dirContainers, container)
}

// CreateNested makes the sandbox of a nested container as Create does. What a task has put in the way in its own sandbox, links
// above all, is not followed out of it.
func (l Layout) CreateNested(parentDir, container, owner string) (dir string, err error) {
	dir = l.Nested(parentDir, container)
	if err := createBelow(parentDir, container, owner); err != nil {
		return dir, err
	}
	if err := l.admit(parentDir, owner); err != nil {
		return dir, fmt.Errorf("cannot make sandbox: %w", err)
	}
	return dir, nil
}

// CreateStandalone makes the sandbox of a standalone container as Create does.
func (l Layout) CreateStandalone(container, owner string) (dir string, err error) {
	return l.Standalone(container), createBelow(l.workDir, container, owner)
}

func createBelow(parent, container, owner string) error {
	if !Safe(container) {
		return fmt.Errorf("cannot make sandbox: id %q is no path segment", container)
	}
	uid, gid, err := ownerOf(owner)
	if err != nil {
		return err
	}
	root, err := nolink.OpenRoot(parent)
	if err != nil {
		return fmt.Errorf("cannot make sandbox: %w", err)
	}
	defer root.Close()
	dir := filepath.Join(dirContainers, container)
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make sandbox: %w", err)
	}
	box, err := nolink.Below(root, dir)
	if err != nil {
		return fmt.Errorf("cannot make sandbox: %w", err)
	}
	defer box.Close()
	if err := fill(box, uid, gid); err != nil {
		return fmt.Errorf("cannot make sandbox: %w", err)
	}
	return nil
}

// LinkTask lets a task of an executor be found by its id in the executor's sandbox, as tasks/<id>; nestedDir is the sandbox of
// its container, nested in the executor's.
func (l Layout) LinkTask(executorDir, task, nestedDir string) error {
	rel, err := filepath.Rel(executorDir, nestedDir)
	if err != nil || !filepath.IsLocal(rel) || !Safe(task) {
		return fmt.Errorf("cannot link task %q: %q does not lie below %q", task, nestedDir, executorDir)
	}
	root, err := nolink.OpenRoot(executorDir)
	if err != nil {
		return fmt.Errorf("cannot link task %q: %w", task, err)
	}
	defer root.Close()
	if err := root.MkdirAll(dirTasks, 0o755); err != nil {
		return fmt.Errorf("cannot link task %q: %w", task, err)
	}
	name, target := filepath.Join(dirTasks, task), filepath.Join("..", rel)
	if now, err := root.Readlink(name); err == nil && now == target {
		return nil
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot link task %q: %w", task, err)
	}
	if err := root.Symlink(target, name); err != nil {
		return fmt.Errorf("cannot link task %q: %w", task, err)
	}
	return nil
}

// ownerOf finds whom a sandbox is to belong to; -1 leaves the owner alone.
func ownerOf(name string) (uid, gid int, err error) {
	if name == "" {
		return -1, -1, nil
	}
	if uid, gid, err = Lookup(name); err != nil {
		return 0, 0, fmt.Errorf("cannot give sandbox to user: %w", err)
	}
	return uid, gid, nil
}

// fill makes what is in a sandbox from the start, and gives it to its user; a negative uid leaves the owner alone. What is
// given away is what was opened, and a file with other names is not: it may be somebody else's.
func fill(box *os.Root, uid, gid int) error {
	for _, name := range []string{"stdout", "stderr"} {
		f, err := box.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			if f, _, err = nolink.Open(box, name, os.O_WRONLY); err == nil && f == nil {
				err = fmt.Errorf("%q is no file", name)
			}
		}
		if err != nil {
			return err
		}
		err = give(f, uid, gid)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if uid < 0 {
		return nil
	}
	dir, err := box.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Chown(uid, gid), dir.Close())
}

func give(f *os.File, uid, gid int) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || ok && st.Nlink > 1 {
		return fmt.Errorf("%q is no file of the sandbox alone", filepath.Base(f.Name()))
	}
	if uid < 0 || ok && int(st.Uid) == uid && int(st.Gid) == gid {
		return nil
	}
	return f.Chown(uid, gid)
}
