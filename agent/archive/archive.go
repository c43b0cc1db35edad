// Package archive unpacks what others have packed: tar (plain, gzip, bzip2, xz, zstd) and zip, and the layers of images.
//
// Everything is written through an os.Root, so that nothing can land outside the folder whatever an archive says. Within
// it, what an archive brings is judged entry by entry: names that leave, links that leave, entries that would be written
// through a link, a folder that becomes a link, are refused; files are made anew and never written into; and the whole is
// bounded in bytes, entries, ratio, depth and length of names, so that a small file cannot fill a disk. An error names the
// entry, and is ErrUnsafe or ErrLimit where that is the reason. What was written before an error stays: the caller throws
// the folder away.
//
// Extract is for archives that a task asked for: owned by one user, no devices, no setuid. Layer (Linux) is for image
// layers: owners, devices and modes are kept, names are taken as a chroot would take them, and what a layer deletes is
// marked in the form of overlayfs.
package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
)

var (
	// ErrUnsafe is in the error for an entry that would reach beyond the folder or is of a kind that is not allowed.
	ErrUnsafe = errors.New("unsafe archive")
	// ErrLimit is in the error where an archive is larger than it may be.
	ErrLimit = errors.New("archive too large")
)

// Limits bound what an archive may become. A zero field means its default.
type Limits struct {
	// Bytes is the most that is written; 16 GiB.
	Bytes int64
	// Entries is how many there may be; 250,000.
	Entries int
	// Ratio is how many bytes may come out of one that is read, once more than 64 MiB have come; 200.
	Ratio int64
	// Depth is how many folders a name may go down; 128. Name is how many bytes it may have; 4,096.
	Depth, Name int
}

// DefaultLimits are those of an archive that a task asked for.
func DefaultLimits() Limits {
	return Limits{Bytes: 16 << 30, Entries: 250_000, Ratio: 200, Depth: 128, Name: 4096}
}

func (l Limits) or(d Limits) Limits {
	if l.Bytes == 0 {
		l.Bytes = d.Bytes
	}
	if l.Entries == 0 {
		l.Entries = d.Entries
	}
	if l.Ratio == 0 {
		l.Ratio = d.Ratio
	}
	if l.Depth == 0 {
		l.Depth = d.Depth
	}
	if l.Name == 0 {
		l.Name = d.Name
	}
	return l
}

// Owner is who is to own what is unpacked.
type Owner struct{ UID, GID int }

// Options say how Extract works.
type Options struct {
	Limits Limits
	// Owner is nil for the user that this process runs as.
	Owner *Owner
}

// Stats tell what came of an archive.
type Stats struct {
	Entries int
	// Bytes is the size of all files together.
	Bytes int64
}

type kind int

const (
	unknown kind = iota
	tarball
	zipped
	single // one compressed file
)

// suffixes are those that the fetcher of Mesos knows, and zstd.
var suffixes = []struct {
	suffix string
	kind   kind
}{
	{".tar", tarball},
	{".tgz", tarball},
	{".tar.gz", tarball},
	{".tbz2", tarball},
	{".tar.bz2", tarball},
	{".txz", tarball},
	{".tar.xz", tarball},
	{".tar.zst", tarball},
	{".zip", zipped},
	{".gz", single},
}

func kindOf(name string) (kind, string) {
	for _, s := range suffixes {
		if strings.HasSuffix(name, s.suffix) && len(name) > len(s.suffix) {
			return s.kind, strings.TrimSuffix(name, s.suffix)
		}
	}
	return unknown, name
}

// Recognised tells whether Extract knows what to do with a file of that name.
func Recognised(name string) bool {
	k, _ := kindOf(name)
	return k != unknown
}

// Extract unpacks a file into a folder by the suffix of name, which is what the file was called where it came from: tar
// archives, compressed in whatever way their first bytes tell, zip archives, and for ".gz" alone the one file, without that
// suffix. It ends with the context.
func Extract(ctx context.Context, file *os.File, name string, into *os.Root, opts Options) (Stats, error) {
	m := newMeter(ctx, opts.Limits.or(DefaultLimits()))
	t := newTree(into, m.limits, opts.Owner)
	defer t.close()
	var err error
	switch k, stem := kindOf(path.Base(name)); k {
	case tarball:
		err = untar(m, t, file)
	case zipped:
		err = unzip(m, t, file)
	case single:
		err = gunzip(m, t, file, stem)
	default:
		err = fmt.Errorf("its suffix is of no archive that is known")
	}
	if err == nil {
		err = t.finish()
	}
	if err != nil {
		return m.stats, fmt.Errorf("cannot unpack %q: %w", path.Base(name), err)
	}
	return m.stats, nil
}

func gunzip(m *meter, t *tree, file io.Reader, stem string) error {
	r, err := gzip.NewReader(bufio.NewReaderSize(&inReader{m, file}, 128<<10))
	if err != nil {
		return fmt.Errorf("cannot decompress: %w", err)
	}
	if err := m.entry(); err != nil {
		return err
	}
	return t.file(stem, entry{perm: 0o644, size: -1}, m.content(&outReader{m, r}))
}
