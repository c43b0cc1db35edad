package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
)

func untar(m *meter, t *tree, file io.Reader) error {
	r, end, err := m.decompress(file)
	if err != nil {
		return err
	}
	defer end()
	ahead := readAhead(r)
	defer ahead.Close()
	return eachEntry(m, ahead, func(h *tar.Header, content io.Reader) error { return untarEntry(m, t, h, content) })
}

// eachEntry hands over the entries of a tar stream one by one.
func eachEntry(m *meter, r io.Reader, do func(*tar.Header, io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d entries: %w", m.stats.Entries, err)
		}
		if err := do(h, tr); err != nil {
			return fmt.Errorf("entry %s: %w", quote(h.Name), plain(err))
		}
	}
}

func untarEntry(m *meter, t *tree, h *tar.Header, content io.Reader) error {
	name, err := m.limits.clean(h.Name, false)
	if err != nil {
		return err
	}
	if err := m.entry(); err != nil {
		return err
	}
	e := entry{perm: h.FileInfo().Mode().Perm(), size: h.Size, modified: h.ModTime}
	if name == "." && h.Typeflag != tar.TypeDir {
		return fmt.Errorf("%w: it would replace the folder itself", ErrUnsafe)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		e.perm |= 0o700 // what cannot be entered cannot be used or removed by its owner
		return t.folder(name, e)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		if err := m.claim(h.Size); err != nil {
			return err
		}
		return t.file(name, e, m.content(content))
	case tar.TypeSymlink:
		return t.symlink(name, h.Linkname, e)
	case tar.TypeLink:
		return t.hardlink(name, h.Linkname)
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return fmt.Errorf("%w: a device or pipe", ErrUnsafe)
	default:
		return fmt.Errorf("%w: of unknown type %q", ErrUnsafe, h.Typeflag)
	}
}
