package dns

import (
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"starling/dns/records"
	"starling/dns/tcp"
	"starling/dns/udp"
)

// metrics are the server's own counts; those of its zone, loops and connections are read from where they are kept.
type metrics struct {
	general, malformed, unsent, truncated, slipped, limited, panics, transfers, updates, lagged, bad prometheus.Counter

	refused *prometheus.CounterVec

	zone func() records.Stats
	udp  func() udp.Stats
	tcp  func() tcp.Stats

	// answered are the answers of the general path, loops those of each loop.
	answered rcodes
	mu       sync.Mutex
	loops    []*rcodes
}

// rcodes counts answers by the code in their header. Each loop has its own, so that they do not wait for each other.
type rcodes struct {
	n [16]atomic.Uint64
	_ [64]byte // the next loop's are not in the same cache line
}

func (r *rcodes) count(answer []byte) {
	if len(answer) >= headerLen {
		r.n[answer[3]&0xf].Add(1)
	}
}

// loop makes the counts of one loop.
func (m *metrics) loop() *rcodes {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &rcodes{}
	m.loops = append(m.loops, r)
	return r
}

// answers sums all of them up.
func (m *metrics) answers() (sum [16]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range sum {
		sum[i] = m.answered.n[i].Load()
		for _, l := range m.loops {
			sum[i] += l.n[i].Load()
		}
	}
	return sum
}

func newMetrics(r prometheus.Registerer, z func() records.Stats, u func() udp.Stats, t func() tcp.Stats) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "starling", Subsystem: "dns", Name: name, Help: help})
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	m := &metrics{
		general:   counter("general_queries_total", "Queries answered by the general path: TCP, other types, odd packets."),
		malformed: counter("malformed_queries_total", "Packets that are no DNS query."),
		unsent:    counter("unsent_answers_total", "Answers over TCP that the client did not take."),
		truncated: counter("truncated_answers_total", "Answers over UDP that had no room for all records."),
		slipped:   counter("slipped_queries_total", "Queries over a network's rate that were told to come back over TCP."),
		limited:   counter("limited_queries_total", "Queries over a network's rate that got no answer."),
		panics:    counter("panics_total", "Queries whose answering panicked, which is a bug; they get SERVFAIL or nothing."),
		transfers: counter("zone_transfers_total", "Zone transfers that were begun."),
		updates:   counter("task_updates_total", "Changes of a task that changed its names."),
		lagged:    counter("feed_lagged_total", "Times that the change feed outran the server, which then read everything again."),
		bad:       counter("bad_values_total", "Values in the mesh that do not decode."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "starling", Subsystem: "dns", Name: "refused_total", Help: "Queries that were refused, by reason.",
		}, []string{"reason"}),
		zone: z, udp: u, tcp: t,
	}
	if r != nil {
		r.MustRegister(m, m.refused)
	}
	return m
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("starling_dns_"+name, help, labels, nil)
}

var (
	answersDesc  = desc("answers_total", "Answers by the code in their header, over UDP and TCP.", "rcode")
	fastDesc     = desc("fast_queries_total", "Queries over UDP that the loops answered themselves.")
	receivedDesc = desc("received_datagrams_total", "Datagrams that were read.")
	workDesc     = desc("passed_queries_total", "Queries over UDP that were passed on to workers, by what they may do.", "worker")
	busyDesc     = desc("busy_workers", "Workers that answer a query now.", "worker")
	droppedDesc  = desc("dropped_queries_total", "Queries over UDP for which no worker was free.")
	oddDesc      = desc("odd_datagrams_total", "Datagrams that were too large, or came from or went to where no answer goes.")
	undoneDesc   = desc("unsent_datagrams_total", "Answers over UDP that the system did not take.")
	readDesc     = desc("read_errors_total", "Failed reads of a UDP socket.")
	batchDesc    = desc("batch_datagrams", "Datagrams that were read at a time.")

	openDesc       = desc("tcp_connections", "Open TCP connections.")
	acceptedDesc   = desc("tcp_accepted_total", "TCP connections that were taken.")
	endedDesc      = desc("tcp_ended_total", "TCP connections that the server ended, or did not take, by reason.", "reason")
	tcpQueriesDesc = desc("tcp_queries_total", "Queries over TCP.")

	namesDesc    = desc("zone_names", "Names that exist.")
	sourcesDesc  = desc("zone_sources", "Tasks, frameworks and nodes that have names.")
	unnamedDesc  = desc("unnamed_total", "Times that a task or framework was told of whose name has no letter or digit, and which so is not found.")
	shadowedDesc = desc("shadowed_total", "Times that a task or framework was told of whose names the domain keeps for itself.")
	tooLongDesc  = desc("too_long_names_total", "Names made of what was told that are longer than names may be in DNS, and so are not found.")
)

// Describe is for prometheus.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		answersDesc, fastDesc, receivedDesc, workDesc, busyDesc, droppedDesc, oddDesc, undoneDesc, readDesc, batchDesc,
		openDesc, acceptedDesc, endedDesc, tcpQueriesDesc,
		namesDesc, sourcesDesc, unnamedDesc, shadowedDesc, tooLongDesc,
	} {
		to <- d
	}
}

// Collect is for prometheus.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	for rcode, n := range m.answers() {
		if name, ok := dns.RcodeToString[rcode]; ok && (n > 0 || rcode <= dns.RcodeRefused) {
			count(answersDesc, n, name)
		}
	}
	u := m.udp()
	count(fastDesc, u.Fast)
	count(receivedDesc, u.Received)
	count(workDesc, u.Work, "compute")
	count(workDesc, u.Wait, "wait")
	gauge(busyDesc, u.BusyWork, "compute")
	gauge(busyDesc, u.BusyWait, "wait")
	count(droppedDesc, u.Dropped)
	count(oddDesc, u.Odd)
	count(undoneDesc, u.Unsent)
	count(readDesc, u.ReadErrors)
	buckets, batches := map[float64]uint64{}, uint64(0)
	for i, n := range u.Batches {
		batches += n
		buckets[float64(int(1)<<i)] = batches
	}
	to <- prometheus.MustNewConstHistogram(batchDesc, batches, float64(u.Received), buckets)

	t := m.tcp()
	gauge(openDesc, int(t.Open))
	count(acceptedDesc, t.Accepted)
	count(endedDesc, t.Refused, "refused")
	count(endedDesc, t.Displaced, "displaced")
	count(endedDesc, t.TimedOut, "timeout")
	count(endedDesc, t.Malformed, "malformed")
	count(tcpQueriesDesc, t.Queries)

	z := m.zone()
	gauge(namesDesc, z.Names)
	gauge(sourcesDesc, z.Sources)
	count(unnamedDesc, z.Unnamed)
	count(shadowedDesc, z.Shadowed)
	count(tooLongDesc, z.TooLong)
}
