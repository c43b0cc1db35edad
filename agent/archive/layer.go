package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
)

// LayerOptions say how Layer works.
type LayerOptions struct {
	// Limits are those of LayerLimits where they are zero.
	Limits Limits
	// Watch, if set, is asked about every 32 MiB whether to go on.
	Watch func() error
}

// LayerLimits are those of a layer: its digest says that it is what its maker made, so it may be larger than what a task
// fetches.
func LayerLimits() Limits {
	return Limits{Bytes: 64 << 30, Entries: 2_000_000, Ratio: 4000, Depth: 256, Name: 4096}
}

// LayerStats tell what came of a layer.
type LayerStats struct {
	Stats
	// DiffID is the digest of the uncompressed stream, "sha256:...".
	DiffID string
	// Opaque is set where a layer hides all that is below it.
	Opaque bool
}

// Layer unpacks a layer of an image, however compressed, into an empty folder: with owners, devices, setuid bits and the
// extended attributes that matter to programs, and with what it deletes in the form of overlayfs. It needs root. The stream
// is read to its end. Other than Extract, it takes names as a chroot would: absolute ones and links are within the folder,
// and later entries replace earlier ones.
func Layer(ctx context.Context, stream io.Reader, into *os.Root, opts LayerOptions) (LayerStats, error) {
	m := newMeter(ctx, opts.Limits.or(LayerLimits()))
	m.watch = opts.Watch
	t := newTree(into, m.limits, &Owner{})
	t.chroot, t.deleted = true, map[string]bool{}
	defer t.close()
	r, end, err := m.decompress(stream)
	if err != nil {
		return LayerStats{}, err
	}
	defer end()
	sum := sha256.New()
	ahead := readAhead(io.TeeReader(r, sum))
	defer ahead.Close()
	l := layer{m: m, t: t}
	err = eachEntry(m, ahead, l.entry)
	if err == nil {
		_, err = io.Copy(io.Discard, ahead)
	}
	if err == nil {
		err = t.finish()
	}
	if err != nil {
		return LayerStats{Stats: m.stats}, err
	}
	return LayerStats{Stats: m.stats, DiffID: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Opaque: l.opaque}, nil
}
