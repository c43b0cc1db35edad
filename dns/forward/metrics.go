package forward

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	hits, misses, stale, prefetched, foreign, busy prometheus.Counter
}

func newMetrics(r prometheus.Registerer, f *Forwarder) *metrics {
	register := func(c prometheus.Collector) {
		if r != nil {
			r.MustRegister(c)
		}
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "starling", Subsystem: "dns_forward", Name: name, Help: help})
		register(c)
		return c
	}
	gauge := func(name, help string, value func() int) {
		register(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: "starling", Subsystem: "dns_forward", Name: name, Help: help},
			func() float64 { return float64(value()) }))
	}
	gauge("cache_bytes", "Size of the cached answers of other servers.", func() int { b, _ := f.cache.usage(); return b })
	gauge("cache_entries", "Cached answers of other servers.", func() int { _, n := f.cache.usage(); return n })
	gauge("upstream_pending_queries", "Queries under way to resolvers.", f.pending)
	register(byResolver{f})
	return &metrics{
		hits:       counter("cache_hits_total", "Foreign names answered from the cache."),
		misses:     counter("cache_misses_total", "Foreign names that a resolver had to be asked for."),
		stale:      counter("stale_answers_total", "Foreign names answered from what the cache had kept past its end."),
		prefetched: counter("prefetches_total", "Answers fetched anew before somebody had to wait for them."),
		foreign:    counter("foreign_answers_total", "Packets from a resolver's address that were no answer to the question: late, broken or forged."),
		busy:       counter("busy_refusals_total", "Queries that failed because too many others were under way."),
	}
}

// byResolver are the counts of each resolver that is configured now. One that leaves the system's list takes its counts
// along, so that there are never more than are configured.
type byResolver struct{ f *Forwarder }

func resolverDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("starling_dns_forward_"+name, help, append([]string{"resolver"}, labels...), nil)
}

var (
	upstreamDesc = resolverDesc("upstream_queries_total", "Queries sent to a resolver.")
	unheardDesc  = resolverDesc("upstream_failures_total", "Queries that a resolver did not answer.")
	worksDesc    = resolverDesc("resolver_up", "1 where the last query to a resolver was answered, 0 where it was not.", "transport")
)

// Describe is for prometheus.
func (byResolver) Describe(to chan<- *prometheus.Desc) {
	to <- upstreamDesc
	to <- unheardDesc
	to <- worksDesc
}

// Collect is for prometheus.
func (c byResolver) Collect(to chan<- prometheus.Metric) {
	type counts struct {
		queries, unheard uint64
		failing          [2]bool
	}
	all := map[netip.AddrPort]counts{} // a resolver may serve several zones
	for _, r := range c.f.everyone() {
		n := all[r.addr]
		n.queries += r.queries.Load()
		n.unheard += r.unheard.Load()
		n.failing[0] = n.failing[0] || !r.udp.works()
		n.failing[1] = n.failing[1] || !r.tcp.works()
		all[r.addr] = n
	}
	for addr, n := range all {
		resolver := addr.String()
		to <- prometheus.MustNewConstMetric(upstreamDesc, prometheus.CounterValue, float64(n.queries), resolver)
		to <- prometheus.MustNewConstMetric(unheardDesc, prometheus.CounterValue, float64(n.unheard), resolver)
		for i, failing := range n.failing {
			up := 1.0
			if failing {
				up = 0
			}
			to <- prometheus.MustNewConstMetric(worksDesc, prometheus.GaugeValue, up, resolver, transport(i == 1))
		}
	}
}
