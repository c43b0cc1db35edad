package archive

import (
	"archive/zip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// indexBytes is what one entry of a zip's index may take on average: its header, its name, the usual extra fields.
const indexBytes = 256

// indexReader ends the reading of an index that is larger than the entries that are allowed could make it: all of it is
// held in memory.
type indexReader struct {
	f    io.ReaderAt
	left int64 // negative once the index has been read
}

func (i *indexReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := i.f.ReadAt(p, off)
	if i.left >= 0 {
		if i.left -= int64(n); i.left < 0 {
			return 0, fmt.Errorf("%w: too many entries", ErrLimit)
		}
	}
	return n, err
}

func unzip(m *meter, t *tree, file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	index := &indexReader{f: file, left: int64(m.limits.Entries)*indexBytes + 1<<20}
	z, err := zip.NewReader(index, info.Size())
	if err != nil {
		return fmt.Errorf("cannot read its index: %w", err)
	}
	index.left = -1
	if len(z.File) > m.limits.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, m.limits.Entries)
	}
	for _, f := range z.File {
		if err := unzipEntry(m, t, f, info.Size()); err != nil {
			return fmt.Errorf("entry %s: %w", quote(f.Name), plain(err))
		}
	}
	return nil
}

func unzipEntry(m *meter, t *tree, f *zip.File, archive int64) error {
	name, err := m.limits.clean(f.Name, false)
	if err != nil {
		return err
	}
	if err := m.entry(); err != nil {
		return err
	}
	if f.UncompressedSize64 > 1<<62 {
		return m.claim(-1)
	}
	mode := f.Mode()
	e := entry{perm: mode.Perm(), size: int64(f.UncompressedSize64), modified: f.Modified}
	folder := mode.IsDir() || strings.HasSuffix(f.Name, "/")
	if e.perm == 0 { // made where files have no modes
		e.perm = 0o644
		if folder {
			e.perm = 0o755
		}
	}
	if folder {
		e.perm |= 0o700
		return t.folder(name, e)
	}
	if name == "." {
		return fmt.Errorf("%w: it would replace the folder itself", ErrUnsafe)
	}
	if err := m.claim(e.size); err != nil {
		return err
	}
	// Entries may share their bytes in the file, so it is the size of the whole that the sum is measured by.
	if err := m.ratio(m.stats.Bytes+e.size, archive); err != nil {
		return err
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	switch {
	case mode.IsRegular():
		return t.file(name, e, m.content(r))
	case mode&fs.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(r, linkMax+1))
		if err != nil {
			return err
		}
		return t.symlink(name, string(target), e)
	default:
		return fmt.Errorf("%w: a device or pipe", ErrUnsafe)
	}
}
