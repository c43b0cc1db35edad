package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	// Most is how many ended sandboxes are kept at most, however much space is left; 10,000 by default. A task that crashes again
	// and again leaves one each time.
	Most int
	// Interval between two looks at the disk; a minute by default.
	Interval time.Duration
	// Usage returns the used part of the disk, 0 to 1; that of the file system of the sandboxes by default, in bytes or in files,
	// whichever is more.
	Usage func() (float64, error)
	// Suspended returns for how long the machine has slept since its start; what the system says by default.
	Suspended func() time.Duration
	Log       *slog.Logger
}

const (
	// settle is how long nothing is removed after the machine has slept: its clocks and disks may not be themselves yet.
	settle = 30 * time.Second
	// saveEvery is how often ages are written down while sandboxes wait.
	saveEvery = 10 * time.Minute
)

// Collector removes the sandboxes of ended containers: of executors and command tasks, of containers nested in one that still
// runs, and of standalone ones. All methods may be called from any goroutine.
//
// How long ago a container ended is counted, not read from a clock: while the agent runs, by the clock that neither jumps nor
// goes on while the machine sleeps. What was counted survives the agent in the file "ended" beside the sandboxes. What is not
// in there begins anew, so that whatever goes wrong keeps a sandbox longer, never shorter.
type Collector struct {
	cfg CollectorConfig

	mu sync.Mutex
	// live holds the names of the containers whose sandboxes are needed.
	live map[string]bool
	// ended holds for how long those have ended that wait, by their paths below the work directory.
	ended map[string]time.Duration
	// dirty is set when ended holds others than the file does.
	dirty bool
	// counted is when time was last added to ended.
	counted time.Time
	// counts of removals, for the metrics.
	removed, failed, pending int

	// Run alone touches these: when ended was last saved, how long the machine had slept, and until when it is let alone.
	saved time.Time
	slept time.Duration
	quiet time.Time
}

// NewCollector returns a collector that does nothing before Run.
func NewCollector(cfg CollectorConfig) *Collector {
	if cfg.Delay <= 0 {
		cfg.Delay = 7 * 24 * time.Hour
	}
	if cfg.Headroom <= 0 {
		cfg.Headroom = 0.1
	}
	if cfg.Most <= 0 {
		cfg.Most = 10_000
	}
	if cfg.Interval <= 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Usage == nil {
		cfg.Usage = func() (float64, error) { return usage(cfg.Layout.Root()) }
	}
	if cfg.Suspended == nil {
		cfg.Suspended = suspended
	}
	c := &Collector{cfg: cfg, live: map[string]bool{}, counted: time.Now(), saved: time.Now(), slept: cfg.Suspended()}
	ended, err := loadEnded(cfg.Layout.endedFile())
	if err != nil {
		cfg.Log.Warn("cannot read how long sandboxes have waited, they wait anew", "err", err)
	}
	c.ended = ended
	return c
}

// Keep marks the sandbox of a container as needed. A nested container is named by the whole chain of ids, outermost first,
// joined by dots.
func (c *Collector) Keep(container string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live[container] = true
}

// Release marks the sandbox of a container as no longer needed: its time runs from now on.
func (c *Collector) Release(dir, container string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.live, container)
	c.count() // what has passed so far is not its time
	if rel, err := filepath.Rel(c.cfg.Layout.workDir, dir); err == nil && c.ended[rel] == 0 {
		c.ended[rel] = 0
		c.dirty = true
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
			c.save()
			return
		}
	}
}

// MaxAge is how old an ended sandbox may be on a disk that is used as given: the delay on an empty disk, nothing on one
// that has only the headroom left.
func (c *Collector) MaxAge(used float64) time.Duration {
	return time.Duration(float64(c.cfg.Delay) * max(0, 1-c.cfg.Headroom-used))
}

// waiting is a sandbox that nobody needs.
type waiting struct {
	rel string
	age time.Duration
}

// collect removes the sandboxes that nobody needs and that are older than allowed, the oldest first, as long as the disk
// asks for it or there are too many; and the folders that became empty.
func (c *Collector) collect(ctx context.Context) {
	quiet := c.wakeUp()
	found, err := c.cfg.Layout.unneeded(c.needed)
	if err != nil {
		c.cfg.Log.Warn("cannot list sandboxes", "err", err)
		return
	}
	wait := c.ages(found)
	defer func() {
		c.mu.Lock()
		c.pending = len(wait)
		c.mu.Unlock()
		if time.Since(c.saved) >= saveEvery && len(wait) > 0 || c.changed() {
			c.save()
		}
	}()
	if quiet {
		return
	}
	var mounts []string
	for len(wait) > 0 && ctx.Err() == nil {
		used, err := c.cfg.Usage()
		if err != nil {
			c.cfg.Log.Warn("cannot measure the disk of the sandboxes", "err", err)
			return
		}
		oldest := wait[len(wait)-1]
		if oldest.age < c.MaxAge(used) && len(wait) <= c.cfg.Most {
			return
		}
		if mounts == nil {
			if mounts, err = mountPoints(); err != nil {
				c.cfg.Log.Warn("cannot see what is mounted in sandboxes", "err", err)
				return
			}
		}
		wait = wait[:len(wait)-1]
		c.expunge(oldest.rel, mounts)
	}
}

// expunge removes one sandbox, unless it is needed again.
func (c *Collector) expunge(rel string, mounts []string) {
	if c.needed(c.cfg.Layout.container(rel)) {
		return
	}
	err := c.cfg.Layout.remove(rel, mounts)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed++
		c.cfg.Log.Warn("cannot remove sandbox", "path", rel, "err", err)
		return
	}
	c.removed++
	delete(c.ended, rel)
	c.dirty = true
}

// count adds to all ages what has passed since the last time. The lock is held.
func (c *Collector) count() {
	now := time.Now()
	passed := now.Sub(c.counted)
	c.counted = now
	for rel := range c.ended {
		c.ended[rel] += passed
	}
}

// wakeUp notices that the machine has slept, and tells whether it is to be let alone.
func (c *Collector) wakeUp() bool {
	if slept := c.cfg.Suspended(); slept-c.slept > time.Second {
		c.slept, c.quiet = slept, time.Now().Add(settle)
	}
	return time.Now().Before(c.quiet)
}

// ages brings the sandboxes that wait together with their ages, the oldest last, and forgets those that are not there.
func (c *Collector) ages(found []string) []waiting {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count()
	ended := make(map[string]time.Duration, len(found))
	wait := make([]waiting, 0, len(found))
	for _, rel := range found {
		age, known := c.ended[rel]
		c.dirty = c.dirty || !known
		ended[rel] = age
		wait = append(wait, waiting{rel, age})
	}
	for rel, age := range c.ended {
		if _, ok := ended[rel]; !ok {
			// One that was released since it was looked for is not lost.
			if _, err := os.Lstat(filepath.Join(c.cfg.Layout.workDir, rel)); err == nil && !c.isLive(c.cfg.Layout.container(rel)) {
				ended[rel] = age
			} else {
				c.dirty = true
			}
		}
	}
	c.ended = ended
	slices.SortFunc(wait, func(a, b waiting) int {
		return cmp.Or(cmp.Compare(a.age, b.age), strings.Compare(a.rel, b.rel))
	})
	return wait
}

func (c *Collector) changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dirty
}

// save writes the ages down. A failure costs sandboxes that stay longer, which on a full disk goes away with them.
func (c *Collector) save() {
	c.mu.Lock()
	c.count()
	text := encodeEnded(c.ended)
	c.dirty = false
	c.mu.Unlock()
	c.saved = time.Now()
	if err := replace(c.cfg.Layout.endedFile(), text); err != nil {
		c.cfg.Log.Warn("cannot write how long sandboxes have waited", "err", err)
	}
}

func (c *Collector) needed(container string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isLive(container)
}

// isLive tells whether a container or one that is nested in it is needed. The lock is held.
func (c *Collector) isLive(container string) bool {
	if c.live[container] {
		return true
	}
	for name := range c.live {
		if strings.HasPrefix(name, container+".") {
			return true
		}
	}
	return false
}

func usage(dir string) (float64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("cannot read %q: %w", dir, err)
	}
	if st.Blocks == 0 {
		return 0, nil
	}
	used := 1 - float64(st.Bavail)/float64(st.Blocks)
	if st.Files > 0 { // some file systems have no such limit
		used = max(used, 1-float64(st.Ffree)/float64(st.Files))
	}
	return used, nil
}

// errMounted is for a sandbox in which something is mounted: to remove it would remove what is not of the sandbox.
var errMounted = errors.New("something is mounted in it")
