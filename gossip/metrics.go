package gossip

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"starling/gossip/record"
)

// What may be dropped.
const (
	dropInbox  = "inbox"
	dropOutbox = "outbox"
	dropEvent  = "event"
	dropSend   = "send"
	dropRepair = "repair" // what a peer lacks, while there are enough others to serve
	dropLarge  = "large"  // a value too large for a datagram
	dropAnswer = "answer" // what a peer asks for again and again
)

type metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	deltasIn, deltasOut   prometheus.Counter
	bytesIn, bytesOut     prometheus.Counter
	rounds                prometheus.Counter
	repairsIn, repairsOut prometheus.Counter
	streamOnly, damped    prometheus.Counter
	// What was refused: messages and deltas of ours, coordinates, and what comes from networks that are not allowed.
	refused, refusedCoordinates, refusedNetwork prometheus.Counter
	// Datagrams, streams and members that the gate refused, and what memberlist said is of another cluster or key.
	refusedDatagrams, refusedStreams, refusedMembers, refusedForeign prometheus.Counter
	dropped                                                          *prometheus.CounterVec
	lag                                                              prometheus.Histogram
	keyrings                                                         *prometheus.CounterVec
}

var (
	membersDesc = prometheus.NewDesc("starling_gossip_members", "Nodes of the mesh by state, as this node sees them.", []string{"state"}, nil)
	queueDesc   = prometheus.NewDesc("starling_gossip_queue_entries", "Entries that wait to be told to others.", nil, nil)
	healthDesc  = prometheus.NewDesc("starling_gossip_health_score", "How far this node is behind with probing; 0 is healthy.", nil, nil)
	sizeDesc    = prometheus.NewDesc("starling_gossip_records_bytes", "Size of all records held, keys and values.", nil, nil)
)

func newMetrics(r prometheus.Registerer, m *Mesh) (*metrics, error) {
	direction := func(name, help string) (in, out prometheus.Counter, vec *prometheus.CounterVec) {
		vec = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"direction"})
		return vec.WithLabelValues("in"), vec.WithLabelValues("out"), vec
	}
	x := &metrics{registerer: r}
	var deltas, bytes, repairs *prometheus.CounterVec
	x.deltasIn, x.deltasOut, deltas = direction("starling_gossip_deltas_total", "Deltas received, and messages with deltas sent.")
	x.bytesIn, x.bytesOut, bytes = direction("starling_gossip_network_bytes_total", "Bytes of datagrams and streams, membership included.")
	x.repairsIn, x.repairsOut, repairs = direction("starling_gossip_repairs_total", "Entries that anti-entropy brought, and messages that it sent.")
	x.rounds = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_gossip_sync_rounds_total", Help: "Rounds of anti-entropy begun."})
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_gossip_refused_total", Help: "What was malformed, beyond the limits, or from where it may not come."}, []string{"what"})
	x.refused, x.refusedCoordinates, x.refusedNetwork = refused.WithLabelValues("message"), refused.WithLabelValues("coordinate"), refused.WithLabelValues("network")
	x.refusedDatagrams, x.refusedStreams = refused.WithLabelValues("datagram"), refused.WithLabelValues("stream")
	x.refusedMembers, x.refusedForeign = refused.WithLabelValues("member"), refused.WithLabelValues("foreign")
	x.streamOnly = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_gossip_stream_only_total", Help: "Probes that were answered over a stream but not by datagrams: UDP may be blocked."})
	x.damped = prometheus.NewCounter(prometheus.CounterOpts{Name: "starling_gossip_damped_total", Help: "Returns of nodes that come and go, which were not believed at once."})
	x.dropped = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_gossip_dropped_total", Help: "What was dropped because a queue was full or a send failed."}, []string{"what"})
	x.lag = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "starling_gossip_convergence_lag_seconds",
		Help:    "How old changes of other nodes were when they arrived here: the time they spent at each node on their way, without the network.",
		Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 600},
	})
	for _, what := range []string{dropInbox, dropOutbox, dropEvent, dropSend, dropRepair, dropLarge, dropAnswer} {
		x.dropped.WithLabelValues(what)
	}
	x.keyrings = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "starling_gossip_keyrings_total", Help: "Keyrings that peers sent, by what became of them."}, []string{"result"})
	for _, result := range []string{keyringTaken, keyringOld, keyringRefused, keyringNotKept} {
		x.keyrings.WithLabelValues(result)
	}
	if r == nil {
		return x, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{deltas, bytes, repairs, x.rounds, refused, x.streamOnly, x.damped, x.dropped, x.lag, x.keyrings, &collector{m}} {
		if err := r.Register(c); err != nil {
			errs = append(errs, err)
			continue
		}
		x.collectors = append(x.collectors, c)
	}
	if errs != nil {
		x.unregister()
	}
	return x, errors.Join(errs...)
}

// unregister takes everything off the registry, so that another mesh of the same process may use it.
func (x *metrics) unregister() {
	for _, c := range x.collectors {
		x.registerer.Unregister(c)
	}
	x.collectors = nil
}

// collector works out the gauges when they are asked for.
type collector struct{ m *Mesh }

// Describe sends the descriptions of the gauges.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{membersDesc, queueDesc, healthDesc, sizeDesc, queueDropsDesc, dampedDesc} {
		ch <- d
	}
}

var dampedDesc = prometheus.NewDesc("starling_gossip_damped_members", "Nodes that are back but count as dead, because they come and go.", nil, nil)

var queueDropsDesc = prometheus.NewDesc("starling_gossip_queue_dropped_total", "Entries dropped because too many waited to be told.", nil, nil)

// Collect sends the gauges.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counts := map[record.Liveness]int{}
	size := 0
	for s := range c.m.records.Snapshots() {
		counts[s.Liveness()]++
		size += s.Size()
	}
	for l := record.Unknown; l <= record.Left; l++ {
		ch <- prometheus.MustNewConstMetric(membersDesc, prometheus.GaugeValue, float64(counts[l]), l.String())
	}
	ch <- prometheus.MustNewConstMetric(sizeDesc, prometheus.GaugeValue, float64(size))
	if c.m.queue != nil {
		entries, drops := c.m.queue.state()
		ch <- prometheus.MustNewConstMetric(queueDesc, prometheus.GaugeValue, float64(entries))
		ch <- prometheus.MustNewConstMetric(queueDropsDesc, prometheus.CounterValue, float64(drops))
	}
	damped, _ := c.m.damper.held()
	ch <- prometheus.MustNewConstMetric(dampedDesc, prometheus.GaugeValue, float64(damped))
	score := 0
	if ml := c.m.ml.Load(); ml != nil {
		score = ml.GetHealthScore()
	}
	ch <- prometheus.MustNewConstMetric(healthDesc, prometheus.GaugeValue, float64(score))
}
