package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"starling/agent/nolink"
)

// linkHops is how many links one name of a layer may go through, as in the kernel.
const linkHops = 40

// entry is what an archive says of a thing beside its name and content.
type entry struct {
	perm fs.FileMode // permissions; setuid, setgid and sticky where they are kept
	// size is -1 where it is not known beforehand.
	size     int64
	modified time.Time // zero for now
	// owner is nil for whoever runs.
	owner  *Owner
	xattrs map[string]string
}

// tree writes into a folder. Names are clean and relative.
type tree struct {
	root   *os.Root
	limits Limits
	owner  *Owner
	// chroot: links in the names of folders are followed, within the root, and anything may replace anything. Otherwise
	// both are refused.
	chroot bool
	// deleted are the names that a layer takes away from those below it.
	deleted map[string]bool
	// at is the folder that was used last, opened, by the name it was asked for; real is its name without links.
	dir, real string
	at        *os.Root
	fd        *os.File // of at, where it was needed
	// folders get their modes and times last: a folder may be read-only and still be filled, and filling it changes its time.
	folders map[string]entry
	order   []string
	buf     []byte
}

func newTree(root *os.Root, l Limits, owner *Owner) *tree {
	return &tree{root: root, limits: l, owner: owner, folders: map[string]entry{}, buf: make([]byte, 128<<10)}
}

func (t *tree) close() {
	t.forget()
}

// forget drops the folder that is held open: something in its path may have been replaced.
func (t *tree) forget() {
	if t.at != nil && t.at != t.root {
		t.at.Close()
	}
	if t.fd != nil {
		t.fd.Close()
	}
	t.at, t.fd, t.dir, t.real = nil, nil, "", ""
}

// parent opens the folder that a name is in, making what lacks.
func (t *tree) parent(name string) (at *os.Root, base string, err error) {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if t.at != nil && t.dir == dir {
		return t.at, base, nil
	}
	t.forget()
	at, real, err := t.walk(dir)
	if err != nil {
		return nil, "", err
	}
	t.at, t.dir, t.real = at, dir, real
	return at, base, nil
}

// walk opens a folder step by step, so that each link in its name is seen.
func (t *tree) walk(dir string) (at *os.Root, real string, err error) {
	at, real = t.root, "."
	step := func(next *os.Root, name string) {
		if at != t.root {
			at.Close()
		}
		at, real = next, name
	}
	defer func() {
		if err != nil && at != t.root {
			at.Close()
		}
	}()
	rest := strings.Split(dir, "/")
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..": // of a link's target; what went before it is no link any more
			up := path.Dir(real)
			next := t.root
			if up != "." {
				if next, err = nolink.Below(t.root, up); err != nil {
					return at, real, err
				}
			}
			step(next, up)
			continue
		}
		info, err := at.Lstat(part)
		if errors.Is(err, fs.ErrNotExist) {
			if err = t.makeParent(at, part); err != nil {
				return at, real, err
			}
		} else if err != nil {
			return at, real, err
		} else if info.Mode()&fs.ModeSymlink != 0 {
			if !t.chroot {
				return at, real, fmt.Errorf("%w: it would go through the link %s", ErrUnsafe, quote(path.Join(real, part)))
			}
			if hops++; hops > linkHops {
				return at, real, fmt.Errorf("%w: too many links in its path", ErrUnsafe)
			}
			target, err := at.Readlink(part)
			if err != nil {
				return at, real, err
			}
			if strings.HasPrefix(target, "/") {
				step(t.root, ".")
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		} else if !info.IsDir() {
			if !t.chroot {
				return at, real, fmt.Errorf("%w: %s is no folder", ErrUnsafe, quote(path.Join(real, part)))
			}
			if err := at.Remove(part); err != nil {
				return at, real, err
			}
			if err := t.makeParent(at, part); err != nil {
				return at, real, err
			}
			if err := t.uncover(at, part, path.Join(real, part)); err != nil {
				return at, real, err
			}
		}
		next, err := nolink.Below(at, part)
		if err != nil {
			return at, real, err
		}
		step(next, path.Join(real, part))
	}
	return at, real, nil
}

// makeParent makes a folder that no entry has told of.
func (t *tree) makeParent(at *os.Root, base string) error {
	if err := at.Mkdir(base, 0o755); err != nil {
		return err
	}
	if err := at.Chmod(base, 0o755); err != nil { // whatever the umask
		return err
	}
	return t.own(at, base, entry{})
}

// own gives what was just made to its owner.
func (t *tree) own(at *os.Root, base string, e entry) error {
	o := e.owner
	if o == nil {
		o = t.owner
	}
	if o == nil {
		return nil
	}
	return at.Lchown(base, o.UID, o.GID)
}

// clear makes way for something that is no folder.
func (t *tree) clear(at *os.Root, base string) error {
	info, err := at.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return at.Remove(base)
	}
	if !t.chroot {
		return fmt.Errorf("%w: it would replace a folder", ErrUnsafe)
	}
	return at.RemoveAll(base)
}

func (t *tree) folder(name string, e entry) error {
	if name == "." {
		if t.chroot {
			t.later(name, e)
		}
		return nil
	}
	at, base, err := t.parent(name)
	if err != nil {
		return err
	}
	err = at.Mkdir(base, 0o700|e.perm.Perm())
	if errors.Is(err, fs.ErrExist) {
		info, serr := at.Lstat(base)
		if serr != nil {
			return serr
		}
		if !info.IsDir() {
			if !t.chroot {
				return fmt.Errorf("%w: it would replace something that is no folder", ErrUnsafe)
			}
			if err := at.Remove(base); err != nil {
				return err
			}
			if err := at.Mkdir(base, 0o700|e.perm.Perm()); err != nil {
				return err
			}
			if err := t.uncover(at, base, path.Join(t.real, base)); err != nil {
				return err
			}
		}
	} else if err != nil {
		return err
	}
	t.later(path.Join(t.real, base), e)
	return nil
}

// later remembers what a folder is to be in the end. The last word holds.
func (t *tree) later(name string, e entry) {
	if _, ok := t.folders[name]; !ok {
		t.order = append(t.order, name)
	}
	t.folders[name] = e
}

// finish gives the folders their modes and times, the inner ones first.
func (t *tree) finish() error {
	for i := len(t.order) - 1; i >= 0; i-- {
		name := t.order[i]
		if err := t.seal(name, t.folders[name]); err != nil {
			return fmt.Errorf("%s: %w", quote(name), err)
		}
	}
	return nil
}

func (t *tree) seal(name string, e entry) error {
	at, base := t.root, "."
	if name != "." {
		dir, last := path.Split(name)
		parent, err := nolink.Below(t.root, path.Clean(dir))
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) && t.chroot {
			return nil // a later entry has replaced a folder above it
		}
		if err != nil {
			return err
		}
		defer parent.Close()
		at, base = parent, last
	}
	if info, err := at.Lstat(base); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil // replaced
	}
	if err := t.own(at, base, e); err != nil {
		return err
	}
	if err := at.Chmod(base, e.perm); err != nil {
		return err
	}
	if len(e.xattrs) > 0 {
		f, err := at.Open(base)
		if err != nil {
			return err
		}
		err = setXattrs(f, e.xattrs)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if e.modified.IsZero() {
		return nil
	}
	return at.Chtimes(base, e.modified, e.modified)
}

// file makes a file anew: whatever had its name is unlinked, never written into.
func (t *tree) file(name string, e entry, content io.Reader) error {
	at, base, err := t.parent(name)
	if err != nil {
		return err
	}
	const flags = os.O_CREATE | os.O_EXCL | os.O_WRONLY
	f, err := at.OpenFile(base, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := t.clear(at, base); err != nil {
			return err
		}
		f, err = at.OpenFile(base, flags, 0o600)
	}
	if err != nil {
		return err
	}
	if err := t.fill(f, e, content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if e.modified.IsZero() {
		return nil
	}
	return at.Chtimes(base, e.modified, e.modified)
}

func (t *tree) fill(f *os.File, e entry, content io.Reader) error {
	// Hiding the file's ReadFrom keeps the one buffer in use.
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, content, t.buf)
	if err != nil {
		return err
	}
	if e.size >= 0 && n != e.size {
		return fmt.Errorf("it has %d bytes and was said to have %d", n, e.size)
	}
	o := e.owner
	if o == nil {
		o = t.owner
	}
	if o != nil { // before the mode: a change of owner takes setuid away
		if err := f.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(e.perm); err != nil {
		return err
	}
	return setXattrs(f, e.xattrs)
}

// plain takes the path out of an error that names the entry anyway.
func plain(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	if le, ok := errors.AsType[*os.LinkError](err); ok {
		return le.Err
	}
	return err
}
