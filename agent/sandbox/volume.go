package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"starling/agent/nolink"
)

// Volume is a persistent volume: a folder that outlives the tasks that use it,
//
//	<root>/volumes/roles/<role>/<id>/             the volume ('/' in the role becomes a blank)
//	<root>/volumes/destroyed/<name>/              one that is being removed
//	<root>/volumes/kept/<role>/<id>.<time>/       a folder that lay where a new volume was to be, with something in it
//
// or, on a MOUNT disk, all of that disk.
type Volume struct {
	// Root is the work directory, or that of a PATH disk; for a MOUNT disk the mount point, which is the volume itself.
	Root string
	// Role is for whom it is reserved; ID is the persistence id. Both must be valid.
	Role, ID string
	Mount    bool
}

// Dir is the folder with the data.
func (v Volume) Dir() string {
	if v.Mount {
		return v.Root
	}
	return filepath.Join(v.Root, "volumes", "roles", v.segment(), v.ID)
}

// segment is the role as one segment of a path: no valid role has a blank.
func (v Volume) segment() string { return strings.ReplaceAll(v.Role, "/", " ") }

func (v Volume) check() error {
	if v.Mount {
		return nil
	}
	for _, s := range []string{v.segment(), v.ID} {
		if !Safe(s) {
			return fmt.Errorf("%q is no path segment", s)
		}
	}
	return nil
}

// Make makes the folder of a new volume, empty. Something that is in its place is moved out of the way, never removed:
// kept tells where to, empty for nowhere. The folder is on disk when Make returns.
func (v Volume) Make(now time.Time) (kept string, err error) {
	if err := v.check(); err != nil {
		return "", fmt.Errorf("cannot make volume: %w", err)
	}
	found, err := os.ReadDir(v.Dir())
	found = withoutLostFound(found)
	switch {
	case v.Mount && err != nil:
		return "", fmt.Errorf("cannot make volume: %w", err)
	case v.Mount && len(found) > 0:
		return "", fmt.Errorf("cannot make volume: %q is not empty", v.Dir())
	case v.Mount:
		return "", nil
	case len(found) > 0:
		kept = filepath.Join(v.Root, "volumes", "kept", v.segment(), fmt.Sprintf("%s.%d", v.ID[:min(len(v.ID), 200)], now.UnixNano()))
		if err := move(v.Dir(), kept); err != nil {
			return "", fmt.Errorf("cannot make volume: %w", err)
		}
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("cannot make volume: %w", err)
	}
	if err := os.MkdirAll(v.Dir(), 0o755); err != nil {
		return kept, fmt.Errorf("cannot make volume: %w", err)
	}
	return kept, syncUp(v.Dir(), v.Root)
}

// withoutLostFound leaves out the folder that file systems make for themselves.
func withoutLostFound(all []os.DirEntry) []os.DirEntry {
	var out []os.DirEntry
	for _, e := range all {
		if e.Name() != "lost+found" {
			out = append(out, e)
		}
	}
	return out
}

// Exists tells whether the folder of the volume is there.
func (v Volume) Exists() bool {
	info, err := os.Stat(v.Dir())
	return err == nil && info.IsDir()
}

// Discard takes a destroyed volume out of the way under another name, a path segment, so that one of its own may be made;
// RemoveDiscarded does the rest. On a MOUNT disk it removes what is in it. Doing it again does no harm.
func (v Volume) Discard(name string) error {
	if err := v.check(); err != nil {
		return fmt.Errorf("cannot destroy volume: %w", err)
	}
	if v.Mount {
		return v.empty()
	}
	err := move(v.Dir(), filepath.Join(v.Root, "volumes", "destroyed", name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot destroy volume: %w", err)
	}
	return nil
}

func (v Volume) empty() error {
	all, err := os.ReadDir(v.Root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot destroy volume: %w", err)
	}
	for _, e := range withoutLostFound(all) {
		if err := os.RemoveAll(filepath.Join(v.Root, e.Name())); err != nil {
			return fmt.Errorf("cannot destroy volume: %w", err)
		}
	}
	return nil
}

// Discarded lists the names of the discarded volumes below a root.
func Discarded(root string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(root, "volumes", "destroyed"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot list destroyed volumes: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// RemoveDiscarded removes what Discard left under a name.
func RemoveDiscarded(root, name string) error {
	if err := os.RemoveAll(filepath.Join(root, "volumes", "destroyed", name)); err != nil {
		return fmt.Errorf("cannot remove destroyed volume: %w", err)
	}
	return nil
}

// CheckContainerPath tells what is wrong with the place of a volume in a sandbox.
func CheckContainerPath(path string) error {
	if !filepath.IsLocal(path) || filepath.Clean(path) == "." {
		return fmt.Errorf("container_path %q does not lie below the sandbox", path)
	}
	return nil
}

// Give gives the volume to owner; empty leaves it as it is. It has to be there.
func (v Volume) Give(owner string) error {
	_, _, err := v.give(owner)
	return err
}

// give returns who owner is, in numbers, negative for nobody.
func (v Volume) give(owner string) (uid, gid int, err error) {
	if !v.Exists() {
		return 0, 0, fmt.Errorf("cannot use volume %q: its folder %q is not there", v.ID, v.Dir())
	}
	if owner == "" {
		return -1, -1, nil
	}
	if uid, gid, err = Lookup(owner); err != nil {
		return 0, 0, fmt.Errorf("cannot give volume to user: %w", err)
	}
	if err := os.Chown(v.Dir(), uid, gid); err != nil {
		return 0, 0, fmt.Errorf("cannot give volume to user: %w", err)
	}
	return uid, gid, nil
}

// Link shows the volume in a new sandbox, in which nothing has run yet, at a path relative to it. owner (empty: the agent's
// own user) gets the volume, as he has the sandbox. Doing it again does no harm.
func (v Volume) Link(dir, path, owner string) error {
	if err := CheckContainerPath(path); err != nil {
		return fmt.Errorf("cannot link volume %q: %w", v.ID, err)
	}
	uid, gid, err := v.give(owner)
	if err != nil {
		return err
	}
	// The sandbox is its user's by now, and others of his tasks may change it while we are at it.
	root, err := nolink.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("cannot link volume %q: %w", v.ID, err)
	}
	defer root.Close()
	path = filepath.Clean(path)
	if target, err := root.Readlink(path); err == nil && target == v.Dir() {
		return nil
	}
	if err := makeParents(root, path, uid, gid); err != nil {
		return fmt.Errorf("cannot link volume %q: %w", v.ID, err)
	}
	if err := root.Symlink(v.Dir(), path); err != nil {
		return fmt.Errorf("cannot link volume %q: %w", v.ID, err)
	}
	return nil
}

// makeParents makes the folders between a sandbox and a path in it. One that is a link, to another volume say, is not
// followed.
func makeParents(root *os.Root, path string, uid, gid int) error {
	parent := filepath.Dir(path)
	if parent == "." {
		return nil
	}
	at := ""
	for part := range strings.SplitSeq(parent, string(filepath.Separator)) {
		at = filepath.Join(at, part)
		info, err := root.Lstat(at)
		switch {
		case errors.Is(err, os.ErrNotExist):
			if err := nolink.Mkdir(root, at, uid, gid); err != nil {
				return err
			}
		case err != nil:
			return err
		case !info.IsDir():
			return fmt.Errorf("%q is no folder", at)
		}
	}
	return nil
}

// move renames, making the folders above the new name.
func move(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(from)), syncDir(filepath.Dir(to)))
}

// syncUp puts a new folder on disk, with those above it up to a root.
func syncUp(dir, root string) error {
	for at := dir; ; at = filepath.Dir(at) {
		if err := syncDir(at); err != nil {
			return err
		}
		if at == root || at == filepath.Dir(at) {
			return nil
		}
	}
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync folder: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot sync folder: %w", err)
	}
	return nil
}
