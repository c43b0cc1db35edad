package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ratioFloor is how much may come out before the ratio counts: what is smaller than that harms nobody.
const ratioFloor = 64 << 20

// windowMax is the most memory that a zstd stream may ask for; what the zstd command refuses without a flag.
const windowMax = 128 << 20

// meter counts what goes in and comes out, and ends the work where that is too much or the context is over.
type meter struct {
	ctx    context.Context
	limits Limits
	in     int64 // bytes of the archive read so far
	out    int64 // bytes that these became, headers included
	stats  Stats
	// watch, if set, is asked now and then whether there is still room for what comes.
	watch   func() error
	watched int64
}

func newMeter(ctx context.Context, l Limits) *meter { return &meter{ctx: ctx, limits: l} }

// entry counts an entry.
func (m *meter) entry() error {
	if m.stats.Entries++; m.stats.Entries > m.limits.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, m.limits.Entries)
	}
	return m.ctx.Err()
}

// claim is called with the size that an entry says it has, before anything of it is written.
func (m *meter) claim(size int64) error {
	if size < 0 || size > m.limits.Bytes-m.stats.Bytes {
		return fmt.Errorf("%w: more than %d bytes", ErrLimit, m.limits.Bytes)
	}
	return nil
}

// content counts what is read of one entry as it is written.
func (m *meter) content(r io.Reader) io.Reader { return &contentReader{m, r} }

type contentReader struct {
	m *meter
	r io.Reader
}

func (c *contentReader) Read(p []byte) (int, error) {
	if err := c.m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.m.stats.Bytes += int64(n)
	if c.m.stats.Bytes > c.m.limits.Bytes {
		return n, fmt.Errorf("%w: more than %d bytes", ErrLimit, c.m.limits.Bytes)
	}
	if c.m.watch != nil && c.m.stats.Bytes-c.m.watched > 32<<20 {
		c.m.watched = c.m.stats.Bytes
		if err := c.m.watch(); err != nil {
			return n, err
		}
	}
	return n, err
}

type inReader struct {
	m *meter
	r io.Reader
}

func (i *inReader) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	i.m.in += int64(n)
	return n, err
}

type outReader struct {
	m *meter
	r io.Reader
}

func (o *outReader) Read(p []byte) (int, error) {
	m := o.m
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := o.r.Read(p)
	m.out += int64(n)
	// Headers and padding come on top of the content; twice is ample and still ends what never ends.
	if m.out/2 > m.limits.Bytes+1<<20 {
		return n, fmt.Errorf("%w: more than %d bytes", ErrLimit, m.limits.Bytes)
	}
	if err := m.ratio(m.out, m.in); err != nil {
		return n, err
	}
	return n, err
}

func (m *meter) ratio(out, in int64) error {
	if out > ratioFloor && out/m.limits.Ratio > in {
		return fmt.Errorf("%w: more than %d bytes come of each of its own", ErrLimit, m.limits.Ratio)
	}
	return nil
}

// decompress looks at the first bytes to learn how a stream is compressed, if at all. end gives back what the decoder holds.
func (m *meter) decompress(src io.Reader) (r io.Reader, end func(), err error) {
	b := bufio.NewReaderSize(&inReader{m, src}, 128<<10)
	magic, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	end = func() {}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		r, err = gzip.NewReader(b)
	case bytes.HasPrefix(magic, []byte("BZh")):
		r, err = bzip2.NewReader(b), nil
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		r, err = xz.NewReader(b)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowMax)); err == nil {
			r, end = d, d.Close
		}
	default:
		r, err = b, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot decompress: %w", err)
	}
	return &outReader{m, r}, end, nil
}

// clean judges a name and returns it as a path below the folder, "." for the folder itself. With chroot set a leading slash
// means the folder, as in the layers of images; otherwise it is refused.
func (l Limits) clean(name string, chroot bool) (string, error) {
	if len(name) > l.Name {
		return "", fmt.Errorf("%w: name of %d bytes", ErrLimit, len(name))
	}
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: name with a zero byte", ErrUnsafe)
	}
	if strings.HasPrefix(name, "/") {
		if !chroot {
			return "", fmt.Errorf("%w: absolute name", ErrUnsafe)
		}
		name = strings.TrimLeft(name, "/")
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "..":
			return "", fmt.Errorf("%w: name with \"..\"", ErrUnsafe)
		case "", ".":
		default:
			if depth++; depth > l.Depth {
				return "", fmt.Errorf("%w: more than %d folders deep", ErrLimit, l.Depth)
			}
			if len(part) > 255 {
				return "", fmt.Errorf("%w: name of %d bytes", ErrLimit, len(part))
			}
		}
	}
	if name == "" {
		return ".", nil
	}
	return path.Clean(name), nil
}

// quote shortens a name for an error.
func quote(name string) string {
	if len(name) > 200 {
		name = name[:200] + "..."
	}
	return fmt.Sprintf("%q", name)
}
