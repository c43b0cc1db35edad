package dns

import "github.com/prometheus/client_golang/prometheus"

// followMetrics tell of what the follower decided.
type followMetrics struct {
	// opened counts names that came to be answered with tasks that would not be otherwise, open is how many are now, by why.
	opened *prometheus.CounterVec
	open   *prometheus.GaugeVec
	cutOff prometheus.Gauge
	heard  prometheus.Gauge
}

// The reasons for that.
var openReasons = map[tier]string{tierSick: "health", tierLost: "cut_off"}

func newFollowMetrics(r prometheus.Registerer) *followMetrics {
	const namespace, subsystem = "starling", "dns"
	m := &followMetrics{
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "fail_open_total",
			Help: "Times that a name had no task left but unhealthy ones, or such of nodes out of sight, and these were answered.",
		}, []string{"reason"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "fail_open_names", Help: "Names that are answered so now.",
		}, []string{"reason"}),
		cutOff: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "cut_off", Help: "1 while this node sees none of the others, and answers for them with what it knew last.",
		}),
		heard: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "mesh_heard", Help: "1 once the mesh was heard; until then names that are not known here are answered SERVFAIL.",
		}),
	}
	for _, reason := range openReasons {
		m.opened.WithLabelValues(reason)
		m.open.WithLabelValues(reason)
	}
	if r != nil {
		r.MustRegister(m.opened, m.open, m.cutOff, m.heard)
	}
	return m
}

// leveled notes that a name is answered with another tier of tasks.
func (m *followMetrics) leveled(from, to tier) {
	if reason, ok := openReasons[from]; ok {
		m.open.WithLabelValues(reason).Dec()
	}
	if reason, ok := openReasons[to]; ok {
		m.open.WithLabelValues(reason).Inc()
		m.opened.WithLabelValues(reason).Inc()
	}
}
