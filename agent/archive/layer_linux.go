package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Names by which a layer says what it deletes (OCI image specification, "Whiteouts"), and how overlayfs says it.
const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // what aufs kept for itself
	opaqueXattr    = "trusted.overlay.opaque"
)

// paxXattr is what the names of extended attributes begin with in a tar header.
const paxXattr = "SCHILY.xattr."

type layer struct {
	m      *meter
	t      *tree
	opaque bool
}

func (l *layer) entry(h *tar.Header, content io.Reader) error {
	name, err := l.m.limits.clean(h.Name, true)
	if err != nil {
		return err
	}
	if err := l.m.entry(); err != nil {
		return err
	}
	base := path.Base(name)
	if base == whiteoutOpaque {
		return l.hideFolder(path.Dir(name))
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		return l.hide(path.Join(path.Dir(name), hidden), hidden)
	}
	e := entry{
		perm: h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky),
		size: h.Size, modified: h.ModTime, owner: &Owner{h.Uid, h.Gid}, xattrs: xattrs(h),
	}
	if name == "." && h.Typeflag != tar.TypeDir {
		return fmt.Errorf("%w: it would replace the folder itself", ErrUnsafe)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return l.t.folder(name, e)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		if err := l.m.claim(h.Size); err != nil {
			return err
		}
		return l.t.file(name, e, l.m.content(content))
	case tar.TypeSymlink:
		if err := l.t.symlink(name, h.Linkname, e); err != nil {
			return err
		}
		return l.t.age(name, e)
	case tar.TypeLink:
		return l.t.hardlink(name, h.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return l.device(name, h, e)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("%w: of unknown type %q", ErrUnsafe, h.Typeflag)
	}
}

// xattrs are the attributes of an entry that programs see. Those of overlayfs itself would let a layer redirect names, and
// security labels are those of another machine.
func xattrs(h *tar.Header) map[string]string {
	var found map[string]string
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, paxXattr)
		if !ok || name != "security.capability" && (!strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.")) {
			continue
		}
		if found == nil {
			found = map[string]string{}
		}
		found[name] = v
	}
	return found
}

// setXattrs sets attributes. A file system without those of users does without them.
func setXattrs(f *os.File, attrs map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		err := unix.Fsetxattr(int(f.Fd()), name, []byte(attrs[name]), 0)
		if errors.Is(err, unix.ENOTSUP) && strings.HasPrefix(name, "user.") {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot set attribute %q: %w", name, err)
		}
	}
	return nil
}

// hide marks a name as deleted from the layers below. What this layer itself has at that name stays: deletions never mean
// a layer's own entries, in whatever order they come.
func (l *layer) hide(name, base string) error {
	if base == "" || base == "." || base == ".." {
		return fmt.Errorf("%w: it deletes no name", ErrUnsafe)
	}
	at, base, err := l.t.parent(name)
	if err != nil {
		return err
	}
	info, err := at.Lstat(base)
	if err == nil {
		if info.IsDir() {
			return l.t.coverFolder(at, base)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := l.t.dirFD()
	if err != nil {
		return err
	}
	if err := unix.Mknodat(dir, base, unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("cannot mark what is deleted: %w", err)
	}
	l.t.deleted[path.Join(l.t.real, base)] = true
	return nil
}

// hideFolder hides all that layers below have in a folder.
func (l *layer) hideFolder(dir string) error {
	if dir == "." {
		l.opaque = true // overlayfs does not look at its roots for this
		return nil
	}
	at, base, err := l.t.parent(dir)
	if err != nil {
		return err
	}
	if _, err := at.Lstat(base); errors.Is(err, fs.ErrNotExist) {
		if err := l.t.makeParent(at, base); err != nil {
			return err
		}
	}
	return l.t.coverFolder(at, base)
}

// uncover is called when a folder has taken the place of something: of a deletion, it hides what is below.
func (t *tree) uncover(at *os.Root, base, real string) error {
	if !t.deleted[real] {
		return nil
	}
	delete(t.deleted, real)
	return t.coverFolder(at, base)
}

// coverFolder makes a folder opaque.
func (t *tree) coverFolder(at *os.Root, base string) error {
	// Whatever else an earlier entry has made there is not to be opened: a pipe would wait, a device act.
	f, err := at.OpenFile(base, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%w: it hides what is in a folder that is none", ErrUnsafe)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fsetxattr(int(f.Fd()), opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("cannot hide what is below the folder: %w", err)
	}
	return nil
}

// dirFD is the folder that is open, for the calls that os.Root lacks. They act on one name in it and follow no link.
func (t *tree) dirFD() (int, error) {
	if t.fd == nil {
		f, err := t.at.Open(".")
		if err != nil {
			return -1, err
		}
		t.fd = f
	}
	return int(t.fd.Fd()), nil
}

// device makes a device or a pipe.
func (l *layer) device(name string, h *tar.Header, e entry) error {
	at, base, err := l.t.parent(name)
	if err != nil {
		return err
	}
	if err := l.t.clear(at, base); err != nil {
		return err
	}
	mode, dev := uint32(unix.S_IFIFO), 0
	if h.Typeflag != tar.TypeFifo {
		mode = unix.S_IFCHR
		if h.Typeflag == tar.TypeBlock {
			mode = unix.S_IFBLK
		}
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	fd, err := l.t.dirFD()
	if err != nil {
		return err
	}
	if err := unix.Mknodat(fd, base, mode|0o600, dev); err != nil {
		return err
	}
	if err := l.t.own(at, base, e); err != nil {
		return err
	}
	if err := at.Chmod(base, e.perm); err != nil {
		return err
	}
	return l.t.age(name, e)
}

// age gives something that is not to be opened its time.
func (t *tree) age(name string, e entry) error {
	if e.modified.IsZero() {
		return nil
	}
	fd, err := t.dirFD()
	if err != nil {
		return err
	}
	at := unix.NsecToTimespec(e.modified.UnixNano())
	return unix.UtimesNanoAt(fd, path.Base(name), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}
