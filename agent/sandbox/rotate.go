package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"starling/agent/nolink"
)

// RotatorConfig configures a Rotator.
type RotatorConfig struct {
	// MaxBytes is how large a file may become before what is in it is put aside, in bytes. At most so much and what is
	// written within a moment is in it, wherever the file system can cut a file at its head.
	MaxBytes int64
	// Files is how many are kept of each, the one that is written to included; at least 1, which keeps nothing of what is put
	// aside.
	Files int
	Log   *slog.Logger
}

const (
	// rotateFast and rotateSlow bound the time between two looks at a file: how long that is follows from how fast it grows.
	rotateFast = 50 * time.Millisecond
	rotateSlow = time.Second
	// rotateAlign is what is put aside in multiples of: whole blocks of any file system.
	rotateAlign = 64 << 10
)

// Rotator bounds the output files of containers. They are written to by the containers themselves, who hold them open for as
// long as they run: nobody stands between, and nobody can be told to open another file. So what has become too much is
// copied to NAME.1, which moves what was there to NAME.2 and so on, and then cut off the head of the file, in one step of
// the file system, while writers go on appending: no byte is lost, and none is there twice. ext4 and xfs can do that. On
// others the file is emptied after it was copied, and what is written in that moment is lost.
//
// A crash between the two steps leaves the copy under the name .NAME.rotating, by which the next life knows what was done:
// only output that repeats itself to the byte can be mistaken, and then a repetition is missing.
type Rotator struct {
	cfg RotatorConfig

	mu    sync.Mutex
	files map[watched]*growth
	// wake tells Run that there are others to look at. One is enough.
	wake chan struct{}
}

// watched is a file of a container.
type watched struct{ container, dir, name string }

// growth is what is known of one. Run alone touches it, but for the head, which is never replaced.
type growth struct {
	head     *Head
	size     int64
	seen, at time.Time
	wait     time.Duration
	begun    bool
	failed   bool
}

// NewRotator returns a rotator that does nothing before Run.
func NewRotator(cfg RotatorConfig) *Rotator {
	return &Rotator{cfg: cfg, files: map[watched]*growth{}, wake: make(chan struct{}, 1)}
}

// Watch bounds the files stdout and stderr of a container's sandbox from now on.
func (r *Rotator) Watch(container, dir string) {
	if r.cfg.MaxBytes <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range []string{"stdout", "stderr"} {
		w := watched{container, dir, name}
		if r.files[w] == nil {
			r.files[w] = &growth{head: &Head{files: r.cfg.Files}}
		}
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Unwatch leaves the files of a container alone, which has ended.
func (r *Rotator) Unwatch(container, dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range []string{"stdout", "stderr"} {
		delete(r.files, watched{container, dir, name})
	}
}

// Head returns the head of an output file of a container, for a Follower; nil for a file that nobody watches.
func (r *Rotator) Head(container, path string) *Head {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.files[watched{container, filepath.Dir(path), filepath.Base(path)}]; g != nil {
		return g.head
	}
	return nil
}

// Run rotates until ctx ends.
func (r *Rotator) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		timer.Reset(r.look(ctx))
	}
}

// look looks at the files that are due, and returns when to come back.
func (r *Rotator) look(ctx context.Context) time.Duration {
	type due struct {
		watched
		*growth
	}
	var all []due
	now := time.Now()
	next := now.Add(time.Hour)
	r.mu.Lock()
	for w, g := range r.files {
		if g.at.After(now) {
			next = earlier(next, g.at)
		} else {
			all = append(all, due{w, g})
		}
	}
	r.mu.Unlock()
	for _, d := range all {
		if ctx.Err() != nil {
			return 0
		}
		err := r.rotate(d.watched, d.growth)
		if err != nil && !d.failed {
			r.cfg.Log.Warn("cannot rotate output of a container", "container_id", d.container, "path", filepath.Join(d.dir, d.name), "err", err)
		}
		d.failed = err != nil
		next = earlier(next, d.at)
	}
	return time.Until(next)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// rotate looks at one file, puts aside what is too much, and says when to look again.
func (r *Rotator) rotate(w watched, g *growth) error {
	now := time.Now()
	g.at = now.Add(rotateSlow)
	if g.begun { // the usual way is short: one look
		info, err := os.Lstat(filepath.Join(w.dir, w.name))
		if err != nil || info.Size() <= r.cfg.MaxBytes {
			if err == nil {
				g.next(now, info.Size(), info.Size(), r.cfg.MaxBytes)
			}
			return nil
		}
	}
	// Where the sandbox lies in that of another container, its user may have put anything in its place.
	root, err := nolink.OpenRoot(w.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	o := output{root, w.name, r.cfg.Files, g.head}
	if !g.begun {
		g.begun = true
		if err := o.settleCopy(); err != nil {
			return err
		}
	}
	size, left, err := o.putAside(r.cfg.MaxBytes)
	g.next(now, size, left, r.cfg.MaxBytes)
	return err
}

// next chooses when to look again: well before the file can be full, as it has grown so far. size is what was found, left what
// is left of it.
func (g *growth) next(now time.Time, size, left, most int64) {
	g.wait = min(max(2*g.wait, rotateFast), rotateSlow)
	if passed := now.Sub(g.seen); !g.seen.IsZero() && size > g.size && passed > 0 {
		full := time.Duration(float64(most-left) / float64(size-g.size) * float64(passed))
		g.wait = min(max(full/2, rotateFast), g.wait)
	}
	g.size, g.seen, g.at = left, now, time.Now().Add(g.wait)
}
