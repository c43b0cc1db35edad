package marathon

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/marathon/scheduler"
	"starling/master/mesos"
)

// counters are the numbers that only grow. They begin with the process.
type counters struct {
	deployed, dismissed                               atomic.Int64
	revives, suppresses, offers, offersUsed, declined atomic.Int64
	launched, storeFailures                           atomic.Int64
	memoryExceeded                                    atomic.Int64

	mu      sync.Mutex
	updates map[mesos.TaskState]int64 // guarded by mu
}

// count takes note of a decision on its way to the master.
func (m *Marathon) count(d scheduler.Decision) {
	switch d := d.(type) {
	case scheduler.Accept:
		m.offersUsed.Add(1)
		m.launched.Add(int64(len(d.Tasks)))
	case scheduler.Decline:
		m.declined.Add(int64(len(d.OfferIDs)))
	case scheduler.Revive:
		m.revives.Add(1)
	case scheduler.Suppress:
		m.suppresses.Add(1)
	}
}

// countInput takes note of an event.
func (m *Marathon) countInput(in scheduler.Input) {
	switch in := in.(type) {
	case scheduler.Offers:
		m.offers.Add(int64(len(in.Offers)))
	case scheduler.Status:
		m.counters.mu.Lock()
		defer m.counters.mu.Unlock()
		if m.updates == nil {
			m.updates = make(map[mesos.TaskState]int64)
		}
		m.updates[in.Status.GetState()]++
		if in.Status.Reason != nil && in.Status.GetReason() == mesos.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY {
			m.memoryExceeded.Add(1)
		}
	}
}

// Metric is one number under the name that Marathon gives it.
type Metric struct {
	// Name is the full name, with dots: "marathon.apps.active.gauge".
	Name    string
	Counter bool // else a gauge
	Value   float64
}

// Metrics returns all numbers, sorted by no particular rule but always in the same order.
func (m *Marathon) Metrics() []Metric {
	var counts scheduler.Counts
	var apps, groups int
	var elected time.Time
	m.mu.RLock()
	now := m.cfg.Now()
	if m.core != nil {
		view := m.core.View()
		counts, apps = view.Counts(now), view.Root().Len()
		for range view.Root().AllGroups() {
			groups++
		}
		elected = m.elected
	}
	m.mu.RUnlock()
	leading := 0.0
	if !elected.IsZero() {
		leading = now.Sub(elected).Seconds()
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	list := []Metric{
		gauge("apps.active.gauge", apps),
		gauge("pods.active.gauge", 0),
		gauge("groups.active.gauge", groups),
		gauge("instances.running.gauge", counts.Running),
		gauge("instances.staged.gauge", counts.Staged),
		gauge("instances.launch-overdue.gauge", counts.Overdue),
		gauge("instances.inflight-kills.gauge", counts.KillsInFlight),
		gauge("instances.inflight-kill-attempts.gauge", counts.KillAttempts),
		gauge("deployments.active.gauge", counts.Deployments),
		counter("deployments.counter", &m.deployed),
		counter("deployments.dismissed.counter", &m.dismissed),
		counter("tasks.launched.counter", &m.launched),
		counter("mesos.calls.revive.counter", &m.revives),
		counter("mesos.calls.suppress.counter", &m.suppresses),
		counter("mesos.offers.incoming.counter", &m.offers),
		counter("mesos.offers.used.counter", &m.offersUsed),
		counter("mesos.offers.declined.counter", &m.declined),
		counter("mesos.offer-operations.launch.counter", &m.launched),
		counter("mesos.task.oom.memory-limit-exceeded.counter", &m.memoryExceeded),
		counter("persistence.write-failures.counter", &m.storeFailures),
		{Name: "marathon.leadership.duration.gauge.seconds", Value: leading},
		{Name: "marathon.uptime.gauge.seconds", Value: now.Sub(m.started).Seconds()},
		{Name: "marathon.jvm.memory.heap.used.gauge.bytes", Value: float64(memory.HeapAlloc)},
		gauge("jvm.threads.active.gauge", runtime.NumGoroutine()),
	}
	m.counters.mu.Lock()
	defer m.counters.mu.Unlock()
	for _, state := range taskStates {
		name := strings.ReplaceAll(strings.ToLower(state.String()), "_", "-")
		list = append(list, Metric{
			Name: "marathon.mesos.task-updates." + name + ".counter", Counter: true, Value: float64(m.updates[state]),
		})
	}
	return list
}

// taskStates are all states, so that each has a number from the start.
var taskStates = []mesos.TaskState{
	mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_KILLING,
	mesos.TaskState_TASK_FINISHED, mesos.TaskState_TASK_FAILED, mesos.TaskState_TASK_KILLED, mesos.TaskState_TASK_ERROR,
	mesos.TaskState_TASK_LOST, mesos.TaskState_TASK_DROPPED, mesos.TaskState_TASK_UNREACHABLE, mesos.TaskState_TASK_GONE,
	mesos.TaskState_TASK_GONE_BY_OPERATOR, mesos.TaskState_TASK_UNKNOWN,
}

func gauge(name string, value int) Metric {
	return Metric{Name: "marathon." + name, Value: float64(value)}
}

func counter(name string, value *atomic.Int64) Metric {
	return Metric{Name: "marathon." + name, Counter: true, Value: float64(value.Load())}
}

// collector offers the numbers to Prometheus, under the names that Marathon uses there.
type collector struct{ m *Marathon }

// NewCollector returns a collector of a Marathon's numbers, to be registered where they are wanted.
func NewCollector(m *Marathon) prometheus.Collector { return collector{m} }

// Describe sends nothing: the set is what Collect sends.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends all numbers.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, metric := range c.m.Metrics() {
		kind := prometheus.GaugeValue
		if metric.Counter {
			kind = prometheus.CounterValue
		}
		desc := prometheus.NewDesc(prometheusName(metric.Name), "Marathon's "+metric.Name+".", nil, nil)
		out <- prometheus.MustNewConstMetric(desc, kind, metric.Value)
	}
}

// prometheusName replaces what Prometheus does not allow in a name.
func prometheusName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
}
