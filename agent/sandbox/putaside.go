package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"starling/agent/nolink"
)

// openOutput opens an output file that is what it was made as. What its user has put in its place is left alone: nothing of
// it may be cut off that is not this sandbox's.
func openOutput(root *os.Root, name string) (*os.File, *syscall.Stat_t, error) {
	f, info, err := nolink.Open(root, name, os.O_RDWR)
	if err != nil {
		return nil, nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || st.Nlink != 1 {
		err = fmt.Errorf("%q is no file of the sandbox alone", name)
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, nil, err
	}
	return f, st, nil
}

// output is an output file in its sandbox, of which a number of files are kept.
type output struct {
	root  *os.Root
	name  string
	files int
	head  *Head
}

func copyName(name string) string       { return "." + name + ".rotating" }
func oldName(name string, n int) string { return fmt.Sprintf("%s.%d", name, n) }

// putAside puts aside what is too much in a file, and returns how large it was and what is left.
func (o output) putAside(most int64) (found, size int64, err error) {
	f, st, err := openOutput(o.root, o.name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) {
		return 0, 0, nil // the container has removed it, or put another in its place
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	found, size = st.Size, st.Size
	step := max(most/rotateAlign*rotateAlign, rotateAlign)
	for size > most && size > step {
		if keep := int64(o.files) * step; size > keep+step {
			// So much was written meanwhile that it would be moved out of the last file at once.
			extra := (size - keep) / step * step
			o.head.move()
			if err := collapse(f, extra); err == nil {
				o.head.moved(extra, false)
				size -= extra
				continue
			}
			o.head.moved(0, true)
		}
		if err := o.moveHead(f, st, step); err != nil {
			return found, size, err
		}
		info, err := f.Stat()
		if err != nil {
			return found, size, err
		}
		size = info.Size()
	}
	return found, size, nil
}

// moveHead puts the first step bytes of a file aside. Where the file system can't cut them off, all of the file goes.
func (o output) moveHead(f *os.File, st *syscall.Stat_t, step int64) error {
	if o.files > 1 {
		if err := o.copyHead(f, st, step); err != nil {
			return errors.Join(err, o.dropCopy())
		}
	}
	o.head.move()
	gone := step
	err := collapse(f, step)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL) {
		gone, err = o.empty(f, step)
	}
	if err != nil {
		o.head.moved(0, true)
		return errors.Join(fmt.Errorf("cannot cut it: %w", err), o.dropCopy())
	}
	if o.files > 1 {
		err = o.shift()
	}
	o.head.moved(gone, o.files > 1 && err == nil)
	return err
}

// empty takes along what was written while the file was copied, and then empties it. It returns how much was in it.
func (o output) empty(f *os.File, done int64) (int64, error) {
	if o.files == 1 {
		n, err := f.Seek(0, io.SeekEnd)
		return n, errors.Join(err, f.Truncate(0))
	}
	to, err := o.root.OpenFile(copyName(o.name), os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(to, io.NewSectionReader(f, done, 1<<62-done))
	if err = errors.Join(err, to.Close()); err != nil {
		return 0, err
	}
	return done + n, f.Truncate(0)
}

func (o output) dropCopy() error { return ignoreMissing(o.root.Remove(copyName(o.name))) }

func (o output) copyHead(f *os.File, st *syscall.Stat_t, n int64) error {
	if err := o.dropCopy(); err != nil {
		return err
	}
	to, err := o.root.OpenFile(copyName(o.name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(st.Mode).Perm())
	if err != nil {
		return err
	}
	if _, err = f.Seek(0, io.SeekStart); err == nil {
		_, err = io.CopyN(to, f, n)
	}
	if err == nil && os.Geteuid() == 0 {
		err = to.Chown(int(st.Uid), int(st.Gid))
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return fmt.Errorf("cannot copy it: %w", err)
	}
	return nil
}

// shift gives the copy its name, and those before it the next ones; the last goes.
func (o output) shift() error {
	for n := o.files - 1; n > 1; n-- {
		if err := ignoreMissing(o.root.Rename(oldName(o.name, n-1), oldName(o.name, n))); err != nil {
			return err
		}
	}
	return o.root.Rename(copyName(o.name), oldName(o.name, 1))
}

// settleCopy finds out what became of a copy that an earlier life made: where the file still begins with it, it was not cut
// off; otherwise it was, and the copy is all that there is.
func (o output) settleCopy() error {
	copied, _, err := openOutput(o.root, copyName(o.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer copied.Close()
	f, _, err := openOutput(o.root, o.name)
	if err != nil {
		return ignoreMissing(err)
	}
	defer f.Close()
	same, err := begins(f, copied)
	if err != nil {
		return err
	}
	if same {
		return o.dropCopy()
	}
	return o.shift()
}

// begins tells whether a file begins with all that is in another.
func begins(f, with io.Reader) (bool, error) {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(with, a)
		if n > 0 {
			m, errOther := io.ReadFull(f, b[:n])
			if m < n || string(a[:n]) != string(b[:n]) {
				if errOther != nil && !errors.Is(errOther, io.EOF) && !errors.Is(errOther, io.ErrUnexpectedEOF) {
					return false, errOther
				}
				return false, nil
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
