package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"starling/master/mesos"
)

// Run collects garbage until ctx ends: what nobody has used for long, and what nobody uses when the disk is nearly full.
func (s *Store) Run(ctx context.Context) error {
	for {
		wait := s.config.GCInterval
		wait += time.Duration(rand.Int64N(int64(wait)/10 + 1))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		w := want{unusedSince: time.Now().Add(-s.config.GCAge)}
		if _, total, err := space(s.config.Dir); err == nil {
			w.free = int64(s.config.GCHeadroom * float64(total))
		}
		freed, err := s.collect(ctx, w)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("cannot collect images", "err", err)
		}
		if freed > 0 {
			s.log.Info("unused images were removed", "bytes", freed)
		}
	}
}

// Prune removes everything that no container uses, but for the images that are named (PRUNE_IMAGES).
func (s *Store) Prune(ctx context.Context, excluded []*mesos.Image) error {
	w := want{all: true, keep: map[string]bool{}}
	for _, i := range excluded {
		src, err := s.resolve(i.GetDocker().GetName())
		if err != nil {
			return fmt.Errorf("cannot prune images: %w", err)
		}
		w.keep[src.canonical] = true
	}
	freed, err := s.collect(ctx, w)
	if err != nil {
		return fmt.Errorf("cannot prune images: %w", err)
	}
	s.log.Info("images were pruned", "bytes", freed)
	return nil
}

// want says what is to go of what nobody uses.
type want struct {
	// unusedSince: what was used last before that.
	unusedSince time.Time
	// free: the oldest, until so many bytes of the disk are free.
	free int64
	// all: everything but the images of these names.
	all  bool
	keep map[string]bool
}

// collect removes what nobody uses. The layers are taken away under the lock, alone, so that none is pinned meanwhile, and
// removed after that.
func (s *Store) collect(ctx context.Context, w want) (freed int64, err error) {
	gone, freed, err := s.takeAway(ctx, w)
	if err != nil {
		return 0, err
	}
	for _, dir := range gone {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return freed, err
}

// unused is a layer that nobody uses.
type unused struct {
	hex   string
	used  time.Time
	bytes int64
}

func (s *Store) takeAway(ctx context.Context, w want) (gone []string, freed int64, err error) {
	unlock, err := s.lock(ctx, true)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	used, err := s.used(w.keep)
	if err != nil {
		return nil, 0, err
	}
	candidates, err := s.candidates(used)
	if err != nil {
		return nil, 0, err
	}
	free, _, err := space(s.config.Dir)
	if err != nil {
		return nil, 0, err
	}
	for _, u := range candidates {
		if !w.all && !u.used.Before(w.unusedSince) && free+freed >= w.free {
			continue
		}
		to := s.path("trash", fmt.Sprintf("%s-%d", u.hex, time.Now().UnixNano()))
		if err := os.Rename(s.path("layers", u.hex), to); err != nil {
			return gone, freed, err
		}
		gone = append(gone, to)
		freed += u.bytes
	}
	if len(gone) > 0 || w.all {
		s.forget(w.keep)
	}
	return gone, freed, syncDir(s.path("layers"))
}

// used are the layers that something needs: containers of any owner, pulls under way, images that are to be kept.
func (s *Store) used(keep map[string]bool) (map[string]bool, error) {
	used := map[string]bool{}
	owners, err := os.ReadDir(s.path("pins"))
	if err != nil {
		return nil, err
	}
	for _, o := range owners {
		if s.left(o.Name()) {
			continue
		}
		pins, err := s.pins(o.Name())
		if err != nil {
			return nil, err
		}
		for _, p := range pins {
			if p.torn {
				return nil, fmt.Errorf("the pin of container %q is torn, so nobody knows what it uses until it has ended", p.Container)
			}
			for _, id := range p.Record.DiffIDs {
				used[id] = true
			}
		}
	}
	s.mu.Lock()
	for id := range s.coming {
		used[id] = true
	}
	s.mu.Unlock()
	if len(keep) == 0 {
		return used, nil
	}
	return used, s.each(func(_ string, r record) error {
		if keep[r.Name] || keep[r.Asked] {
			for _, id := range r.DiffIDs {
				used[id] = true
			}
		}
		return nil
	})
}

// left removes the pins of an owner that is gone for good: its work directory lacks.
func (s *Store) left(owner string) bool {
	if owner == s.owner() {
		return false
	}
	dir := s.path("pins", owner)
	b, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err != nil || !filepath.IsAbs(string(b)) {
		return false
	}
	if _, err := os.Stat(string(b)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	s.log.Info("the pins of an agent that is gone are dropped", "work_dir", string(b))
	return os.RemoveAll(dir) == nil
}

// candidates are the layers that nobody uses, the one first that was used the longest ago.
func (s *Store) candidates(used map[string]bool) ([]unused, error) {
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return nil, err
	}
	var found []unused
	for _, e := range entries {
		hex := e.Name()
		if used["sha256:"+hex] {
			continue
		}
		l, ok := s.layer(hex)
		if !ok {
			continue
		}
		info, err := os.Stat(s.path("layers", hex, "layer.json"))
		if err != nil {
			return nil, err
		}
		found = append(found, unused{hex, info.ModTime(), l.Bytes})
	}
	slices.SortFunc(found, func(a, b unused) int { return a.used.Compare(b.used) })
	return found, nil
}

// forget drops what is known of names whose layers are not all there, unless they are to be kept.
func (s *Store) forget(keep map[string]bool) {
	err := s.each(func(path string, r record) error {
		if keep[r.Name] || s.whole(r) {
			return nil
		}
		return os.Remove(path)
	})
	if err != nil {
		s.log.Warn("cannot forget images", "err", err)
	}
}

// each goes through what is known of names.
func (s *Store) each(do func(path string, r record) error) error {
	entries, err := os.ReadDir(s.path("images"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		var r record
		p := s.path("images", e.Name())
		if s.read(p, &r) != nil {
			continue
		}
		if err := do(p, r); err != nil {
			return err
		}
	}
	return nil
}
