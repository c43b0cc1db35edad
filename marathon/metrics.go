package marathon

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/marathon/app"
	"starling/marathon/metric"
	"starling/marathon/scheduler"
	"starling/master/mesos"
)

// Names of what is timed, and of what is counted beside it, without the prefix.
const (
	timerWrite      = "persistence.write.duration.timer.seconds"
	counterGC       = "persistence.gc.runs.counter"
	timerScan       = "persistence.gc.scan.duration.timer.seconds"
	timerCompaction = "persistence.gc.compaction.duration.timer.seconds"
	timerPublish    = "debug.publishing-task-status-update-duration.timer.seconds"
	timerUnknown    = "debug.killing-unknown-task-duration.timer.seconds"
)

// touch makes all that is timed, so that it is there before it happens first.
func (m *Marathon) touch() {
	m.registry.Counter(counterGC)
	for _, name := range []string{timerWrite, timerScan, timerCompaction, timerPublish, timerUnknown} {
		m.registry.Timer(name)
	}
}

// counters are the numbers that only grow. They begin anew with each term.
type counters struct {
	deployed, dismissed                               atomic.Int64
	revives, suppresses, offers, offersUsed, declined atomic.Int64
	launched, launchOps, launchGroupOps               atomic.Int64
	reserves, creates, unreserves, destroys           atomic.Int64
	storeFailures, memoryExceeded, memoryShort        atomic.Int64

	mu      sync.Mutex
	updates map[mesos.TaskState]int64 // guarded by mu
}

func (c *counters) reset() {
	for _, n := range []*atomic.Int64{
		&c.deployed, &c.dismissed, &c.revives, &c.suppresses, &c.offers, &c.offersUsed, &c.declined, &c.launched,
		&c.launchOps, &c.launchGroupOps, &c.reserves, &c.creates, &c.unreserves, &c.destroys,
		&c.storeFailures, &c.memoryExceeded, &c.memoryShort,
	} {
		n.Store(0)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.updates = nil
}

// Registry is where others count what Marathon itself does not see, under names without the prefix. It begins anew with each
// term, so meters and the like are to be asked for each time.
func (m *Marathon) Registry() *metric.Registry { return m.registry }

// count takes note of a decision on its way to the master.
func (m *Marathon) count(d scheduler.Decision) {
	switch d := d.(type) {
	case scheduler.Accept:
		m.offersUsed.Add(1)
		for _, op := range d.Operations() {
			switch op.GetType() {
			case mesos.Offer_Operation_LAUNCH:
				m.launchOps.Add(1)
				m.launched.Add(int64(len(op.GetLaunch().GetTaskInfos())))
			case mesos.Offer_Operation_LAUNCH_GROUP:
				m.launchGroupOps.Add(1)
				m.launched.Add(int64(len(op.GetLaunchGroup().GetTaskGroup().GetTasks())))
			case mesos.Offer_Operation_RESERVE:
				m.reserves.Add(1)
			case mesos.Offer_Operation_CREATE:
				m.creates.Add(1)
			case mesos.Offer_Operation_UNRESERVE:
				m.unreserves.Add(1)
			case mesos.Offer_Operation_DESTROY:
				m.destroys.Add(1)
			}
		}
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
		switch {
		case in.Status.Reason == nil || in.Status.GetReason() != mesos.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY:
		case m.belowLimit(in.Status):
			m.memoryShort.Add(1)
		default:
			m.memoryExceeded.Add(1)
		}
	}
}

// belowLimit tells of a task that ended for want of memory before it had used what its definition allows it above its request:
// the node had no more.
func (m *Marathon) belowLimit(status *mesos.TaskStatus) bool {
	used := 0.0
	for _, r := range status.GetLimitation().GetResources() {
		if r.GetName() == "mem" {
			used += r.GetScalar().GetValue()
		}
	}
	id, err := app.ParseTaskID(status.GetTaskId().GetValue())
	if err != nil || used <= 0 {
		return false
	}
	below := false
	_ = m.Read(func(v scheduler.View, _ time.Time) {
		i := v.Instance(id.Instance)
		if i == nil {
			return
		}
		if def := v.Definition(i); def != nil && def.ResourceLimits != nil && def.ResourceLimits.Mem != nil {
			below = used < float64(*def.ResourceLimits.Mem)
		}
	})
	return below
}

// Metrics returns all numbers, under their full names.
func (m *Marathon) Metrics() []metric.Metric {
	var counts scheduler.Counts
	var apps, pods, groups, orphans int
	var brake scheduler.Brake
	var elected time.Time
	m.mu.RLock()
	now := m.cfg.Now()
	if m.core != nil {
		view := m.core.View()
		counts, apps = view.Counts(now), view.Root().Len()
		pods = view.Root().LenPods()
		brake, orphans = view.Brake(now), view.OrphanCount()
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
	list := []metric.Metric{
		gauge("apps.active.gauge", apps),
		gauge("pods.active.gauge", pods),
		gauge("groups.active.gauge", groups),
		gauge("instances.held-back.gauge", brake.HeldBack),
		gauge("replacement-brake.engaged.gauge", ones(brake.On)),
		gauge("replacement-brake.lost-agents.gauge", len(brake.Lost)),
		gauge("instances.running.gauge", counts.Running),
		gauge("instances.staged.gauge", counts.Staged),
		gauge("instances.launch-overdue.gauge", counts.Overdue),
		gauge("instances.inflight-kills.gauge", counts.KillsInFlight),
		gauge("instances.inflight-kill-attempts.gauge", counts.KillAttempts),
		gauge("instances.orphaned.gauge", orphans),
		gauge("deployments.active.gauge", counts.Deployments),
		counter("deployments.counter", &m.deployed),
		counter("deployments.dismissed.counter", &m.dismissed),
		counter("tasks.launched.counter", &m.launched),
		counter("mesos.calls.revive.counter", &m.revives),
		counter("mesos.calls.suppress.counter", &m.suppresses),
		counter("mesos.offers.incoming.counter", &m.offers),
		counter("mesos.offers.used.counter", &m.offersUsed),
		counter("mesos.offers.declined.counter", &m.declined),
		counter("mesos.offer-operations.launch.counter", &m.launchOps),
		counter("mesos.offer-operations.launch-group.counter", &m.launchGroupOps),
		counter("mesos.offer-operations.reserve.counter", &m.reserves),
		counter("mesos.offer-operations.create.counter", &m.creates),
		counter("mesos.offer-operations.unreserve.counter", &m.unreserves),
		counter("mesos.offer-operations.destroy.counter", &m.destroys),
		counter("mesos.task.oom.memory-limit-exceeded.counter", &m.memoryExceeded),
		counter("mesos.task.oom.memory-limit-unfulfillable.counter", &m.memoryShort),
		counter("persistence.write-failures.counter", &m.storeFailures),
		{Name: "leadership.duration.gauge.seconds", Kind: metric.KindGauge, Value: leading},
		{Name: "uptime.gauge.seconds", Kind: metric.KindGauge, Value: now.Sub(m.started).Seconds()},
		{Name: "jvm.memory.heap.used.gauge.bytes", Kind: metric.KindGauge, Value: float64(memory.HeapAlloc)},
		gauge("http.requests.active.gauge", int(m.ActiveRequests.Load())),
		gauge("debug.root-group.updates.active.gauge", int(m.changing.Load())),
		gauge("jvm.threads.active.gauge", runtime.NumGoroutine()),
	}
	m.counters.mu.Lock()
	for _, state := range taskStates {
		name := strings.ReplaceAll(strings.ToLower(state.String()), "_", "-")
		list = append(list, metric.Metric{Name: "mesos.task-updates." + name + ".counter", Value: float64(m.updates[state])})
	}
	m.counters.mu.Unlock()
	list = append(list, m.registry.Snapshot()...)
	if m.cfg.MetricsPrefix != "" {
		for i := range list {
			list[i].Name = m.cfg.MetricsPrefix + "." + list[i].Name
		}
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

// ones is 1 for true.
func ones(is bool) int {
	if is {
		return 1
	}
	return 0
}

func gauge(name string, value int) metric.Metric {
	return metric.Metric{Name: name, Kind: metric.KindGauge, Value: float64(value)}
}

func counter(name string, value *atomic.Int64) metric.Metric {
	return metric.Metric{Name: name, Kind: metric.KindCounter, Value: float64(value.Load())}
}

// collector offers the numbers to Prometheus, under the names that Marathon uses there.
type collector struct{ m *Marathon }

// NewCollector returns a collector of a Marathon's numbers, to be registered where they are wanted.
func NewCollector(m *Marathon) prometheus.Collector { return collector{m} }

// Describe sends nothing: the set is what Collect sends.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends all numbers. A meter is a counter with its averages beside it, a timer a summary with what a summary lacks.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.m.Metrics() {
		name := prometheusName(m.Name)
		desc := func(suffix string) *prometheus.Desc {
			return prometheus.NewDesc(name+suffix, "Marathon's "+m.Name+".", nil, nil)
		}
		plain := func(suffix string, kind prometheus.ValueType, value float64) {
			out <- prometheus.MustNewConstMetric(desc(suffix), kind, value)
		}
		switch m.Kind {
		case metric.KindCounter:
			plain("", prometheus.CounterValue, m.Value)
		case metric.KindGauge:
			plain("", prometheus.GaugeValue, m.Value)
		case metric.KindMeter:
			plain("_count", prometheus.CounterValue, float64(m.Rates.Count))
			plain("_mean_rate", prometheus.GaugeValue, m.Rates.Mean)
			plain("_m1_rate", prometheus.GaugeValue, m.Rates.M1)
			plain("_m5_rate", prometheus.GaugeValue, m.Rates.M5)
			plain("_m15_rate", prometheus.GaugeValue, m.Rates.M15)
		case metric.KindTimer:
			s := m.Spread
			out <- prometheus.MustNewConstSummary(desc(""), uint64(m.Rates.Count), s.Sum, map[float64]float64{
				0.5: s.P50, 0.75: s.P75, 0.95: s.P95, 0.98: s.P98, 0.99: s.P99, 0.999: s.P999,
			})
			plain("_min", prometheus.GaugeValue, s.Min)
			plain("_mean", prometheus.GaugeValue, s.Mean)
			plain("_max", prometheus.GaugeValue, s.Max)
			plain("_stddev", prometheus.GaugeValue, s.StdDev)
		}
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
