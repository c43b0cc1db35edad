package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"starling/agent/archive"
)

const (
	// together is how many layers of an image are brought at once.
	together = 3
	// tries is how often a layer is tried, each time as a whole.
	tries = 3
	// rounds is how often an image is looked at anew when what was there is gone: removed by hand or by another agent.
	rounds = 3
)

// have makes sure that all layers of an image are in the store. hold is called with what the image is before that is looked
// at for good, so that what it pins cannot go in between.
func (s *Store) have(ctx context.Context, asked request, hold func(context.Context, record) error) (record, error) {
	if os.Geteuid() != 0 {
		return record{}, fmt.Errorf("cannot have image %q: only root can unpack images", asked.name)
	}
	src, err := s.resolve(asked.name)
	if err != nil {
		return record{}, err
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.PullTimeout, fmt.Errorf("it took longer than %v", s.config.PullTimeout))
	defer cancel()
	done, err := s.busy.take(ctx, fmt.Sprintf("name %s %v", src.canonical, digestOf(fmt.Appendf(nil, "%#v", asked.login))))
	if err != nil {
		return record{}, fmt.Errorf("cannot have image %q: waited for another pull of it: %w", asked.name, err)
	}
	defer done()
	for range rounds {
		r, known := s.record(src.canonical)
		if known && s.usable(src, asked, r, began) {
			if err := hold(ctx, r); err != nil {
				return record{}, err
			}
			if s.whole(r) {
				s.touch(r)
				return r, nil
			}
		}
		looked := time.Now()
		if err := s.pull(ctx, src, asked, hold); err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
				err = fmt.Errorf("%w (%w)", cause, err)
			}
			return record{}, fmt.Errorf("cannot pull image %q (%s for %s): %w", asked.name, src.canonical, s.platform, err)
		}
		s.saw(src.canonical, looked)
	}
	return record{}, fmt.Errorf("cannot have image %q: what was brought is removed again and again", asked.name)
}

// usable tells whether what is known of a name may be used without a look.
func (s *Store) usable(src source, asked request, r record, began time.Time) bool {
	s.mu.Lock()
	looked := s.looked[src.canonical]
	s.mu.Unlock()
	if !looked.IsZero() && !looked.Before(began) {
		return true // somebody has looked since this was asked for
	}
	if asked.fresh {
		return false
	}
	st := src.stamp()
	return st == "" || st == r.Stamp
}

// saw notes that a name was looked up, with success, by a look that began then.
func (s *Store) saw(canonical string, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.looked) > 10_000 { // it only saves looks
		clear(s.looked)
	}
	if s.looked[canonical].Before(began) {
		s.looked[canonical] = began
	}
}

// pull looks an image up and brings the layers that lack.
func (s *Store) pull(ctx context.Context, src source, asked request, hold func(context.Context, record) error) error {
	start := time.Now()
	r, err := s.find(ctx, src, asked)
	if err != nil {
		return err
	}
	defer r.close()
	r.record.Asked = asked.name
	if n := len(r.blobs); n > s.config.MaxLayers {
		return fmt.Errorf("it has %d layers; %d are allowed", n, s.config.MaxLayers)
	}
	defer s.expect(r.record.DiffIDs)()
	if err := hold(ctx, r.record); err != nil {
		return err
	}
	missing, err := s.missing(r)
	if err != nil {
		return err
	}
	if err := s.room(ctx, missing); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(together)
	for _, b := range missing {
		g.Go(func() error { return s.bring(gctx, b) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := s.weigh(r.record); err != nil {
		return err
	}
	if err := write(s.recordPath(src.canonical), r.record, true); err != nil {
		return fmt.Errorf("cannot note what it is: %w", err)
	}
	if len(missing) > 0 {
		s.log.Info("image pulled", "image", src.canonical, "digest", r.record.Digest, "layers", len(missing), "dur", time.Since(start).Round(time.Millisecond))
	}
	return nil
}

// expect keeps the collector from layers that a pull is about to need.
func (s *Store) expect(ids []string) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.coming[id]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, id := range ids {
			if s.coming[id]--; s.coming[id] == 0 {
				delete(s.coming, id)
			}
		}
	}
}

// missing are the layers that are not in the store, each once.
func (s *Store) missing(r resolved) ([]blob, error) {
	var out []blob
	seen := map[string]bool{}
	for _, b := range r.blobs {
		hex, err := checkDigest(b.diffID)
		if err != nil {
			return nil, err
		}
		if seen[hex] {
			continue
		}
		seen[hex] = true
		if _, ok := s.layer(hex); !ok {
			out = append(out, b)
		}
	}
	return out, nil
}

// room makes sure that there is space for layers before they are brought. Unpacked they are about twice as large.
func (s *Store) room(ctx context.Context, missing []blob) error {
	need := s.config.Reserve
	for _, b := range missing {
		if b.size < 0 || b.size > s.config.MaxBytes {
			return fmt.Errorf("a layer of it has %d bytes; %d are allowed", b.size, s.config.MaxBytes)
		}
		need += 2 * b.size
	}
	free, _, err := space(s.config.Dir)
	if err != nil {
		return err
	}
	if len(missing) == 0 || free >= need {
		return nil
	}
	if _, err := s.collect(ctx, want{free: need}); err != nil {
		s.log.Warn("cannot make room for an image", "err", err)
	}
	if free, _, err = space(s.config.Dir); err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("no space: it needs about %d MiB on the disk of %q with the %d MiB that stay free, and %d MiB are free",
			need>>20, s.config.Dir, s.config.Reserve>>20, free>>20)
	}
	return nil
}

// weigh judges the size of a whole image.
func (s *Store) weigh(r record) error {
	var sum int64
	for _, id := range r.DiffIDs {
		hex, _ := checkDigest(id) // judged before
		if l, ok := s.layer(hex); ok {
			sum += l.Bytes
		}
	}
	if sum > s.config.MaxBytes {
		return fmt.Errorf("it has %d bytes; %d are allowed", sum, s.config.MaxBytes)
	}
	return nil
}

// bring has a layer in the store, whoever brings it. It is tried several times where trying again may help.
func (s *Store) bring(ctx context.Context, b blob) error {
	hex, err := checkDigest(b.diffID)
	if err != nil {
		return err
	}
	done, err := s.busy.take(ctx, "layer "+hex)
	if err != nil {
		return err
	}
	defer done()
	if _, ok := s.layer(hex); ok {
		return nil
	}
	for try := 1; ; try++ {
		err := s.unpack(ctx, b, hex)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("layer %s: %w", b.diffID, err)
		if try == tries || ctx.Err() != nil || lasting(err) || errors.Is(err, archive.ErrLimit) || errors.Is(err, archive.ErrUnsafe) || errors.Is(err, errFull) || errors.Is(err, syscall.ENOSPC) {
			return err
		}
		s.log.Warn("a layer is tried again", "err", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try) * 500 * time.Millisecond):
		}
	}
}

var errFull = errors.New("the disk is full")

// unpack brings a layer into tmp, checks it, and gives it its place. Nothing is left of one that fails.
func (s *Store) unpack(ctx context.Context, b blob, hex string) (err error) {
	tmp, err := os.MkdirTemp(s.tmp.Name(), "layer")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	dir := filepath.Join(tmp, "fs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	r, err := b.open()
	if err != nil {
		return err
	}
	defer r.Close()
	stats, err := archive.Layer(ctx, r, root, archive.LayerOptions{
		Limits: archive.Limits{Bytes: s.config.MaxBytes},
		Watch: func() error {
			if free, _, err := space(s.config.Dir); err == nil && free < s.config.Reserve {
				return fmt.Errorf("%w: %d MiB are free on that of %q", errFull, free>>20, s.config.Dir)
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	if stats.DiffID != b.diffID {
		return fmt.Errorf("its content is %s", stats.DiffID)
	}
	l := layerInfo{DiffID: b.diffID, Bytes: stats.Bytes, Entries: stats.Entries, Opaque: stats.Opaque}
	if err := write(filepath.Join(tmp, "layer.json"), l, false); err != nil {
		return err
	}
	return s.place(tmp, hex)
}

// place gives a layer its name once all of it is on disk.
func (s *Store) place(tmp, hex string) error {
	if err := syncFS(s.tmp); err != nil {
		return fmt.Errorf("cannot write it to disk: %w", err)
	}
	to := s.path("layers", hex)
	if err := os.Rename(tmp, to); err != nil {
		if _, ok := s.layer(hex); ok {
			return nil // another process was faster
		}
		return err
	}
	return syncDir(s.path("layers"))
}
