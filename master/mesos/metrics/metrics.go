// Package metrics shows a component's numbers the two ways that they are asked for: under the names of Mesos, in one flat
// map, and to Prometheus, under its naming rules. Spec: mesos-http-endpoints.md section 4.
package metrics

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxRecent is how many durations a Timing keeps.
const maxRecent = 256

// Timing keeps the newest durations of something. Its zero value has seen none. All may use it at any time.
type Timing struct {
	mu     sync.Mutex
	count  int
	recent []float64 // in milliseconds, a ring
}

// Observe adds one.
func (t *Timing) Observe(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ms := Milliseconds(d); len(t.recent) < maxRecent {
		t.recent = append(t.recent, ms)
	} else {
		t.recent[t.count%maxRecent] = ms
	}
	t.count++
}

// Measure adds the last one under a name, in milliseconds, and below it how many there were and what the newest are like; all
// is 0 before the first.
func (t *Timing) Measure(name string, out map[string]float64) {
	t.mu.Lock()
	count, recent := t.count, slices.Clone(t.recent)
	t.mu.Unlock()
	sorted, last := []float64{0}, 0.0
	if count > 0 {
		sorted, last = slices.Sorted(slices.Values(recent)), recent[(count-1)%maxRecent]
	}
	out[name], out[name+"/count"] = last, float64(count)
	out[name+"/min"], out[name+"/max"] = sorted[0], sorted[len(sorted)-1]
	for label, q := range map[string]float64{"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "p9999": 0.9999} {
		out[name+"/"+label] = sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
	}
}

// Milliseconds is a duration as Mesos counts.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// patience is how long the numbers may take that Prometheus asks for.
const patience = 5 * time.Second

// Collector shows some of a component's numbers to Prometheus. Gauge, Counter and the like are called before it is registered.
type Collector struct {
	prefix string
	values func(ctx context.Context) (map[string]float64, error)
	series []series
}

// series is one number: the name that Mesos gives it, and what it is called here.
type series struct {
	source string
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	labels []string
}

// NewCollector returns one that shows nothing yet. prefix is what all names begin with, such as "starling_agent_". values returns
// the numbers by the names of Mesos; there is nothing to be seen while it fails.
func NewCollector(prefix string, values func(ctx context.Context) (map[string]float64, error)) *Collector {
	return &Collector{prefix: prefix, values: values}
}

// Gauge shows the number source as a gauge.
func (c *Collector) Gauge(source, name, help string) {
	c.one(source, name, help, prometheus.GaugeValue)
}

// Counter shows the number source as a counter.
func (c *Collector) Counter(source, name, help string) {
	c.one(source, name, help, prometheus.CounterValue)
}

// Gauges shows the numbers whose names are prefix and one of some values as one gauge, with the value as a label.
func (c *Collector) Gauges(prefix, name, help, label string, values ...string) {
	c.many(prefix, c.describe(name, help, label), prometheus.GaugeValue, values)
}

// Counters is Gauges for counters.
func (c *Collector) Counters(prefix, name, help, label string, values ...string) {
	c.many(prefix, c.describe(name, help, label), prometheus.CounterValue, values)
}

func (c *Collector) describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(c.prefix+name, help, labels, nil)
}

func (c *Collector) one(source, name, help string, kind prometheus.ValueType) {
	c.series = append(c.series, series{source: source, desc: c.describe(name, help), kind: kind})
}

func (c *Collector) many(prefix string, desc *prometheus.Desc, kind prometheus.ValueType, values []string) {
	for _, v := range values {
		c.series = append(c.series, series{source: prefix + v, desc: desc, kind: kind, labels: []string{v}})
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	var last *prometheus.Desc
	for _, s := range c.series {
		if s.desc != last {
			out <- s.desc
		}
		last = s.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	values, err := c.values(ctx)
	if err != nil {
		return
	}
	for _, s := range c.series {
		out <- prometheus.MustNewConstMetric(s.desc, s.kind, values[s.source], s.labels...)
	}
}
