package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"
)

// MeterConfig configures a Meter.
type MeterConfig struct {
	// Interval is the shortest time between two measurements of the same folder; 15 s by default.
	Interval time.Duration
	// Over is told, by the meter's goroutine, of a folder that holds more than its limit, once for each measurement that says
	// so. Amounts are in bytes.
	Over func(id string, used, limit int64)
	Log  *slog.Logger
}

// Meter measures what folders hold on disk: one after the other, in one goroutine, at its leisure. All methods may be
// called from any goroutine.
//
// What is counted are blocks, each file once however many names it has, not what links lead to, and not what is mounted
// within: that is somebody else's.
type Meter struct {
	cfg MeterConfig

	mu      sync.Mutex
	folders map[string]*folder
}

// folder is one that is measured, with others that count with it.
type folder struct {
	dir   string
	also  []string
	limit int64
	// used is what the last measurement said, -1 before the first.
	used int64
	at   time.Time
}

// NewMeter returns a meter that does nothing before Run.
func NewMeter(cfg MeterConfig) *Meter {
	if cfg.Interval <= 0 {
		cfg.Interval = 15 * time.Second
	}
	return &Meter{cfg: cfg, folders: map[string]*folder{}}
}

// Watch measures a folder from now on, in place of what had the id before. limit is in bytes; a negative one is none. What
// the folders in also hold, as far as they are there, counts with it.
func (m *Meter) Watch(id, dir string, limit int64, also ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.folders[id] = &folder{dir: dir, also: also, limit: limit, used: -1}
}

// Unwatch ends the measuring of a folder.
func (m *Meter) Unwatch(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.folders, id)
}

// Used returns what a folder held when it was last measured, and its limit, in bytes; false before that.
func (m *Meter) Used(id string) (used, limit int64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.folders[id]
	if f == nil || f.used < 0 {
		return 0, 0, false
	}
	return f.used, f.limit, true
}

// Run measures until ctx ends.
func (m *Meter) Run(ctx context.Context) {
	// Often enough that each folder is measured within its interval, and new ones soon.
	ticker := time.NewTicker(max(m.cfg.Interval/8, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			m.round(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// round measures what is due.
func (m *Meter) round(ctx context.Context) {
	type due struct {
		id string
		f  *folder
	}
	var all []due
	now := time.Now()
	m.mu.Lock()
	for id, f := range m.folders {
		if now.Sub(f.at) >= m.cfg.Interval {
			all = append(all, due{id, f})
		}
	}
	m.mu.Unlock()
	for _, d := range all {
		f := d.f
		used, err := f.measure(ctx)
		if ctx.Err() != nil {
			return
		}
		m.mu.Lock()
		if m.folders[d.id] != f {
			m.mu.Unlock()
			continue
		}
		f.at = time.Now()
		if err == nil {
			f.used = used
		}
		limit := f.limit
		m.mu.Unlock()
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			m.cfg.Log.Warn("cannot measure a folder", "path", f.dir, "err", err)
		case err == nil && limit >= 0 && used > limit:
			m.cfg.Over(d.id, used, limit)
		}
	}
}

// measure returns what the folder and those beside it hold, in bytes.
func (f *folder) measure(ctx context.Context) (int64, error) {
	sum, err := measure(ctx, f.dir)
	for _, dir := range f.also {
		if err != nil {
			return 0, err
		}
		var used int64
		if used, err = measure(ctx, dir); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		sum += used
	}
	return sum, err
}
