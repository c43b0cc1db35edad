package metric_test

import (
	"math"
	"testing"
	"time"

	"starling/marathon/metric"
)

// clock is a time that moves when it is told to.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newClock() *clock { return &clock{time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)} }

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestMeterAverages(t *testing.T) {
	c := newClock()
	m := metric.NewRegistry(c.now).Meter("x")
	m.Mark(10)
	if r := m.Rates(); r.Count != 10 || r.M1 != 0 {
		t.Errorf("before the first tick: %+v", r)
	}
	c.t = c.t.Add(5 * time.Second)
	if r := m.Rates(); r.M1 != 2 || r.M5 != 2 || r.M15 != 2 || r.Mean != 2 {
		t.Errorf("after five seconds with 10 of them, 2 a second: %+v", r)
	}
	// A minute of silence leaves 1/e of the average over one minute.
	c.t = c.t.Add(time.Minute)
	r := m.Rates()
	if !near(r.M1, 2/math.E) || !near(r.M5, 2*math.Exp(-1.0/5)) || !near(r.M15, 2*math.Exp(-1.0/15)) || !near(r.Mean, 10.0/65) {
		t.Errorf("a minute later: %+v", r)
	}
	// A steady rate is approached from wherever it was, and a clock set back does no harm.
	for range 12 * 60 {
		m.Mark(15)
		c.t = c.t.Add(5 * time.Second)
	}
	c.t = c.t.Add(-time.Second)
	m.Mark(0)
	c.t = c.t.Add(time.Second)
	if r := m.Rates(); math.Abs(r.M1-3) > 1e-3 || math.Abs(r.M15-3) > 0.1 || r.Count != 10+15*12*60 {
		t.Errorf("an hour with 3 a second: %+v", r)
	}
}

func TestTimerSpread(t *testing.T) {
	c := newClock()
	r := metric.NewRegistry(c.now)
	timer := r.Timer("x")
	if s := timer.Spread(); s != (metric.Spread{}) {
		t.Errorf("nothing has happened: %+v", s)
	}
	for i := 1000; i >= 1; i-- {
		timer.Observe(time.Duration(i) * time.Millisecond)
	}
	s := timer.Spread()
	if s.Min != 0.001 || s.Max != 1 || !near(s.Mean, 0.5005) || s.P50 != 0.5 || s.P75 != 0.75 || s.P95 != 0.95 || s.P98 != 0.98 ||
		s.P99 != 0.99 || s.P999 != 0.999 || math.Abs(s.StdDev-math.Sqrt((1000*1000-1)/12.0)/1000) > 1e-9 {
		t.Errorf("1 to 1000 ms: %+v", s)
	}
	// What is kept is bounded: the oldest go.
	for range 2000 {
		timer.Observe(time.Second)
	}
	if s := timer.Spread(); s.Min != 1 || s.Max != 1 || s.StdDev != 0 || !near(s.Sum, 2000+500.5) || timer.Rates().Count != 3000 {
		t.Errorf("after 2000 more: %+v", s)
	}
	// And they are forgotten after a minute.
	c.t = c.t.Add(time.Minute)
	if s := timer.Spread(); s.Max != 0 || s.P50 != 0 || s.Sum == 0 {
		t.Errorf("a minute later: %+v", s)
	}
}

func TestRegistryBeginsAnew(t *testing.T) {
	c := newClock()
	r := metric.NewRegistry(c.now)
	r.Counter("c").Add(3)
	r.Meter("b").Mark(1)
	r.Timer("a").Observe(time.Second)
	list := r.Snapshot()
	if len(list) != 3 || list[0].Name != "a" || list[1].Rates.Count != 1 || list[2].Value != 3 || list[2].Kind != metric.KindCounter {
		t.Errorf("snapshot %+v", list)
	}
	if c := r.Counter("c"); c.Value() != 3 {
		t.Errorf("another counter under the same name, at %d", c.Value())
	}
	r.Reset()
	if list := r.Snapshot(); len(list) != 3 || list[0].Rates.Count != 0 || list[0].Spread.Sum != 0 || list[1].Rates.Count != 0 || list[2].Value != 0 {
		t.Errorf("after a reset: %+v", list)
	}
}
