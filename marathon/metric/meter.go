package metric

import (
	"math"
	"slices"
	"sync"
	"time"
)

// tick is how often the averages of a meter move.
const tick = 5 * time.Second

// windows are what the rates of a meter are averaged over.
var windows = [3]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

// Meter tells how often something happens. Its averages are exponentially weighted and move every five seconds, so that old
// times count less and less.
type Meter struct {
	now func() time.Time

	mu    sync.Mutex // guards what follows
	begun time.Time
	moved time.Time // up to which the averages are right
	count int64
	fresh int64 // counted since moved
	rates [len(windows)]float64
	warm  bool // the averages have a first value
}

func newMeter(now func() time.Time) *Meter {
	t := now()
	return &Meter{now: now, begun: t, moved: t}
}

// Mark counts n more.
func (m *Meter) Mark(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.move()
	m.count += n
	m.fresh += n
}

// move brings the averages up to now. A clock that was set back moves nothing.
func (m *Meter) move() {
	ticks := int64(m.now().Sub(m.moved) / tick)
	if ticks <= 0 {
		return
	}
	m.moved = m.moved.Add(time.Duration(ticks) * tick)
	lately := float64(m.fresh) / tick.Seconds()
	m.fresh = 0
	for i, w := range windows {
		alpha := 1 - math.Exp(-tick.Seconds()/w.Seconds())
		if m.warm {
			m.rates[i] += alpha * (lately - m.rates[i])
		} else {
			m.rates[i] = lately
		}
		// Nothing has happened in the other ticks.
		m.rates[i] *= math.Pow(1-alpha, float64(ticks-1))
	}
	m.warm = true
}

// Rates tells how often it has happened.
func (m *Meter) Rates() Rates {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.move()
	r := Rates{Count: m.count, M1: m.rates[0], M5: m.rates[1], M15: m.rates[2]}
	if since := m.now().Sub(m.begun).Seconds(); since > 0 {
		r.Mean = float64(m.count) / since
	}
	return r
}

// kept is how many values of a timer are looked at, for how long at most: those are what its spread is of.
const (
	kept    = 1024
	keptFor = time.Minute
)

// Timer tells how long something takes, and how often it happens.
type Timer struct {
	now   func() time.Time
	meter *Meter

	mu     sync.Mutex // guards what follows
	values []sample   // a ring once it has its full length
	next   int        // where in the ring the next one goes
	sum    float64
}

type sample struct {
	at      time.Time
	seconds float64
}

func newTimer(now func() time.Time) *Timer { return &Timer{now: now, meter: newMeter(now)} }

// Observe notes that it took d once more.
func (t *Timer) Observe(d time.Duration) {
	t.meter.Mark(1)
	s := sample{t.now(), d.Seconds()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum += s.seconds
	if len(t.values) < kept {
		t.values = append(t.values, s)
		return
	}
	t.values[t.next] = s
	t.next = (t.next + 1) % kept
}

// Rates tells how often it has happened.
func (t *Timer) Rates() Rates { return t.meter.Rates() }

// Spread tells how long it took lately, in seconds: all zero if it has not happened in the latest minute.
func (t *Timer) Spread() Spread {
	t.mu.Lock()
	oldest := t.now().Add(-keptFor)
	out := Spread{Sum: t.sum}
	values := make([]float64, 0, len(t.values))
	for _, s := range t.values {
		if s.at.After(oldest) {
			values = append(values, s.seconds)
		}
	}
	t.mu.Unlock()
	if len(values) == 0 {
		return out
	}
	slices.Sort(values)
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	n := float64(len(values))
	out.Min, out.Mean, out.Max = values[0], sum/n, values[len(values)-1]
	for _, v := range values {
		out.StdDev += (v - out.Mean) * (v - out.Mean)
	}
	out.StdDev = math.Sqrt(out.StdDev / n)
	quantile := func(q float64) float64 { return values[max(0, int(math.Ceil(q*n))-1)] } // nearest rank
	out.P50, out.P75, out.P95 = quantile(0.5), quantile(0.75), quantile(0.95)
	out.P98, out.P99, out.P999 = quantile(0.98), quantile(0.99), quantile(0.999)
	return out
}
