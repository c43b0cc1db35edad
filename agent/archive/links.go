package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// linkMax is how long the target of a link may be.
const linkMax = 4095

// symlink makes a symbolic link. Outside a chroot it must not be able to leave the folder, whatever is unpacked later.
func (t *tree) symlink(name, target string, e entry) error {
	if target == "" || len(target) > linkMax || strings.ContainsRune(target, 0) {
		return fmt.Errorf("%w: the target of the link is no path", ErrUnsafe)
	}
	at, base, err := t.parent(name)
	if err != nil {
		return err
	}
	if !t.chroot {
		if err := t.stays(target); err != nil {
			return err
		}
	}
	if err := t.clear(at, base); err != nil {
		return err
	}
	if err := at.Symlink(target, base); err != nil {
		return err
	}
	return t.own(at, base, e)
}

// stays tells whether a link in the folder that is open leads to within the root. A ".." is counted where it follows real
// folders alone: these stay what they are, since nothing here replaces a folder. After a link it would be relative to
// wherever that leads, which may change, so it is refused there.
func (t *tree) stays(target string) error {
	if strings.HasPrefix(target, "/") {
		return fmt.Errorf("%w: link to the absolute path %s", ErrUnsafe, quote(target))
	}
	at := t.real
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if at == "." {
				return fmt.Errorf("%w: link to %s, which is outside", ErrUnsafe, quote(target))
			}
			if err := t.isReal(at); err != nil {
				return fmt.Errorf("%w: link to %s, which cannot be followed safely", ErrUnsafe, quote(target))
			}
			at = path.Dir(at)
		default:
			at = path.Join(at, part)
		}
	}
	return nil
}

// isReal returns an error unless a path is made of folders alone.
func (t *tree) isReal(name string) error {
	for p := name; p != "."; p = path.Dir(p) {
		if info, err := t.root.Lstat(p); err != nil || !info.IsDir() {
			return errors.Join(err, ErrUnsafe)
		}
	}
	return nil
}

// hardlink makes a second name for what was there before.
func (t *tree) hardlink(name, target string) error {
	old, err := t.existing(target)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(target), err)
	}
	at, base, err := t.parent(name)
	if err != nil {
		return err
	}
	if path.Join(t.real, base) == old {
		return nil
	}
	if err := t.clear(at, base); err != nil {
		return err
	}
	if err := t.root.Link(old, path.Join(t.real, base)); err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(target), plain(err))
	}
	return nil
}

// existing returns the name without links of a thing that is there and may be linked to.
func (t *tree) existing(target string) (string, error) {
	name, err := t.limits.clean(target, t.chroot)
	if err != nil {
		return "", err
	}
	if dir, err := t.isThere(path.Dir(name)); err != nil || !dir {
		return "", errors.Join(err, fs.ErrNotExist)
	}
	at, base, err := t.parent(name)
	if err != nil {
		return "", err
	}
	info, err := at.Lstat(base)
	if err != nil {
		return "", plain(err)
	}
	if info.IsDir() || !t.chroot && !info.Mode().IsRegular() {
		return "", fmt.Errorf("%w: it is no file", ErrUnsafe)
	}
	return path.Join(t.real, base), nil
}

// isThere tells whether a folder is there, so that looking for a link's target makes none. In a chroot links may lead to
// it in ways that only walk can follow; there a folder too many is no harm.
func (t *tree) isThere(dir string) (bool, error) {
	if t.chroot || dir == "." {
		return true, nil
	}
	info, err := t.root.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.IsDir(), err
}
