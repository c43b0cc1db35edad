package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// CollectorConfig configures a Collector.
type CollectorConfig struct {
	Layout Layout
	// Delay is how long an ended sandbox is kept while there is space; a week by default.
	Delay time.Duration
	// Headroom is the part of the disk, 0 to 1, to be kept free: sandboxes go the sooner the less is left. 0.1 by default.
	Headroom float64
	// Interval between two looks at the disk; a minute by default.
	Interval time.Duration
	// Usage returns the used part of the disk, 0 to 1; that of the file system of the sandboxes by default.
	Usage func() (float64, error)
	Log   *slog.Logger
	Now   func() time.Time
}

// Collector removes the sandboxes of ended containers. All methods may be called from any goroutine.
type Collector struct {
	cfg CollectorConfig

	mu sync.Mutex
	// live holds the container ids whose sandboxes are needed.
	live map[string]bool
	// counts of removals, for the metrics.
	removed, failed, pending int
}

// NewCollector returns a collector that does nothing before Run.
func NewCollector(cfg CollectorConfig) *Collector {
	if cfg.Delay <= 0 {
		cfg.Delay = 7 * 24 * time.Hour
	}
	if cfg.Headroom <= 0 {
		cfg.Headroom = 0.1
	}
	if cfg.Interval <= 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Usage == nil {
		cfg.Usage = func() (float64, error) { return usage(cfg.Layout.Root()) }
	}
	return &Collector{cfg: cfg, live: map[string]bool{}}
}

// Keep marks the sandbox of a container as needed.
func (c *Collector) Keep(container string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live[container] = true
}

// Release marks the sandbox of a container as no longer needed: its time runs from now on.
func (c *Collector) Release(dir, container string) {
	c.mu.Lock()
	delete(c.live, container)
	c.mu.Unlock()
	// The folder's own time is the record of when it ended; it survives the agent without a file of its own.
	now := c.cfg.Now()
	if err := os.Chtimes(dir, now, now); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.cfg.Log.Warn("cannot mark sandbox as ended", "container_id", container, "err", err)
	}
}

// Counts returns how many sandboxes were removed, could not be, and wait.
func (c *Collector) Counts() (removed, failed, pending int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.removed, c.failed, c.pending
}

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	ticker := time.NewTicker(c.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.collect(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// MaxAge is how old an ended sandbox may be on a disk that is used as given: the delay on an empty disk, nothing on one
// that has only the headroom left.
func (c *Collector) MaxAge(used float64) time.Duration {
	return time.Duration(float64(c.cfg.Delay) * max(0, 1-c.cfg.Headroom-used))
}

// collect removes every sandbox that nobody needs and that is older than allowed, and the folders that became empty.
func (c *Collector) collect(ctx context.Context) {
	used, err := c.cfg.Usage()
	if err != nil {
		c.cfg.Log.Warn("cannot measure the disk of the sandboxes", "err", err)
		return
	}
	allowed := c.MaxAge(used)
	runs, err := c.cfg.Layout.all()
	if err != nil {
		c.cfg.Log.Warn("cannot list sandboxes", "err", err)
		return
	}
	pending := 0
	for _, dir := range runs {
		if ctx.Err() != nil {
			return
		}
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || c.needed(filepath.Base(dir)) {
			continue
		}
		if c.cfg.Now().Sub(info.ModTime()) < allowed {
			pending++
			continue
		}
		err = remove(dir)
		c.mu.Lock()
		if err != nil {
			c.failed++
		} else {
			c.removed++
		}
		c.mu.Unlock()
		if err != nil {
			c.cfg.Log.Warn("cannot remove sandbox", "container_id", filepath.Base(dir), "err", err)
		}
	}
	c.mu.Lock()
	c.pending = pending
	c.mu.Unlock()
}

func (c *Collector) needed(container string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live[container]
}

// remove removes a run, "latest" if it pointed there, and the folders above as far as they are empty now.
func remove(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove: %w", err)
	}
	runs := filepath.Dir(dir)
	latest := filepath.Join(runs, "latest")
	if target, err := os.Readlink(latest); err == nil && target == filepath.Base(dir) {
		if err := os.Remove(latest); err != nil {
			return fmt.Errorf("cannot remove: %w", err)
		}
	}
	// runs, executor, "executors", framework: each goes only when it is empty, which Remove sees to.
	for range 4 {
		if err := os.Remove(runs); err != nil {
			return nil
		}
		runs = filepath.Dir(runs)
	}
	return nil
}

// globEscape protects the characters that mean something in a pattern.
func globEscape(path string) string {
	out := make([]byte, 0, len(path))
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, path[i])
	}
	return string(out)
}

func usage(dir string) (float64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("cannot read %q: %w", dir, err)
	}
	if st.Blocks == 0 {
		return 0, nil
	}
	return 1 - float64(st.Bavail)/float64(st.Blocks), nil
}
