// Package metric holds numbers of Marathon's kinds, and pushes them to those who do not come to fetch them.
//
// A Registry makes counters, meters (how often something happens, averaged over 1, 5 and 15 minutes, as the load of a machine
// is) and timers (how long it takes, over the latest minute) on their first use, under names that the caller chooses from a
// list of its own, never out of what a client has sent: no name is ever forgotten. Metric is one of them at one
// moment. A Pusher sends what it is given at a fixed pace to StatsD, DogStatsD, Datadog's API or Graphite; what can't be sent
// is lost, and nobody waits for it.
//
// All may be used from any goroutine. Time comes from the clock of the registry. Names follow spec/marathon-ops.md section 3.
package metric

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Kind says which fields of a Metric count.
type Kind uint8

// The kinds.
const (
	KindCounter Kind = iota // Value, which only grows
	KindGauge               // Value
	KindMeter               // Rates
	KindTimer               // Rates and Spread, in seconds
)

// Metric is one number, or family of numbers, at one moment.
type Metric struct {
	// Name is the full name, with dots, as in "marathon.apps.active.gauge".
	Name   string
	Kind   Kind
	Value  float64
	Rates  Rates
	Spread Spread
}

// Rates tell how often something has happened: Count in all, and per second since the beginning and lately.
type Rates struct {
	Count             int64
	Mean, M1, M5, M15 float64
}

// Spread tells how values lay lately.
type Spread struct {
	Min, Mean, Max, StdDev        float64
	P50, P75, P95, P98, P99, P999 float64
	// Sum is of all values since the beginning.
	Sum float64
}

// Counter only grows. The zero value is ready for use.
type Counter struct{ n atomic.Int64 }

// Add counts n more.
func (c *Counter) Add(n int64) { c.n.Add(n) }

// Value is the number so far.
func (c *Counter) Value() int64 { return c.n.Load() }

// Registry holds meters, timers and counters by name.
type Registry struct {
	now func() time.Time

	mu       sync.Mutex // guards what follows
	counters map[string]*Counter
	meters   map[string]*Meter
	timers   map[string]*Timer
}

// NewRegistry returns an empty registry that tells the time by now.
func NewRegistry(now func() time.Time) *Registry {
	return &Registry{now: now, counters: map[string]*Counter{}, meters: map[string]*Meter{}, timers: map[string]*Timer{}}
}

// Reset begins anew: all names stay, with nothing counted. Whoever holds a meter, timer or counter from before holds one that
// is not shown any more.
func (r *Registry) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.counters {
		r.counters[name] = new(Counter)
	}
	for name := range r.meters {
		r.meters[name] = newMeter(r.now)
	}
	for name := range r.timers {
		r.timers[name] = newTimer(r.now)
	}
}

// Counter returns the counter of a name.
func (r *Registry) Counter(name string) *Counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return get(r.counters, name, func() *Counter { return new(Counter) })
}

// Meter returns the meter of a name.
func (r *Registry) Meter(name string) *Meter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return get(r.meters, name, func() *Meter { return newMeter(r.now) })
}

// Timer returns the timer of a name.
func (r *Registry) Timer(name string) *Timer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return get(r.timers, name, func() *Timer { return newTimer(r.now) })
}

func get[T any](all map[string]*T, name string, fresh func() *T) *T {
	t := all[name]
	if t == nil {
		t = fresh()
		all[name] = t
	}
	return t
}

// Snapshot returns everything as it is now, sorted by name.
func (r *Registry) Snapshot() []Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Metric, 0, len(r.counters)+len(r.meters)+len(r.timers))
	for name, c := range r.counters {
		list = append(list, Metric{Name: name, Kind: KindCounter, Value: float64(c.Value())})
	}
	for name, m := range r.meters {
		list = append(list, Metric{Name: name, Kind: KindMeter, Rates: m.Rates()})
	}
	for name, t := range r.timers {
		list = append(list, Metric{Name: name, Kind: KindTimer, Rates: t.meter.Rates(), Spread: t.Spread()})
	}
	slices.SortFunc(list, func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
