package dns

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	fast, general, malformed, unsent, updates, lagged, bad prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "starling", Subsystem: "dns", Name: name, Help: help})
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	return &metrics{
		fast:      counter("fast_queries_total", "Queries answered from packed sets."),
		general:   counter("general_queries_total", "Queries answered by the general path: TCP, other types, odd packets."),
		malformed: counter("malformed_queries_total", "Packets that are no DNS message."),
		unsent:    counter("unsent_answers_total", "Answers that the system did not take."),
		updates:   counter("task_updates_total", "Changes of a task that changed its names."),
		lagged:    counter("feed_lagged_total", "Times that the change feed outran the server, which then read everything again."),
		bad:       counter("bad_values_total", "Values in the mesh that do not decode."),
	}
}
