package master

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows some of Metrics to Prometheus, under its naming rules.
type collector struct {
	master *Master
	series []series
}

// series is one number: where it comes from and what it is called.
type series struct {
	source string // the Mesos name
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	labels []string
}

// NewCollector returns what a Prometheus registry is given to show the master's numbers.
func NewCollector(m *Master) prometheus.Collector {
	c := &collector{master: m}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	one := func(source, name, help string, kind prometheus.ValueType) {
		c.series = append(c.series, series{source: source, kind: kind, desc: prometheus.NewDesc("starling_master_"+name, help, nil, nil)})
	}
	many := func(source, name, help, label string, kind prometheus.ValueType, values ...string) {
		desc := prometheus.NewDesc("starling_master_"+name, help, []string{label}, nil)
		for _, v := range values {
			c.series = append(c.series, series{source: source + v, desc: desc, kind: kind, labels: []string{v}})
		}
	}
	one("master/elected", "elected", "1 on the leading master.", gauge)
	one("master/epoch", "epoch", "Epoch of this master's term, 0 while it does not lead.", gauge)
	one("master/uptime_secs", "uptime_seconds", "Time since the start.", gauge)
	one("master/outstanding_offers", "offers", "Offers that are out.", gauge)
	one("allocator/mesos/allocation_runs", "allocations_total", "Runs of the allocator.", counter)
	one("master/dropped_messages", "dropped_messages_total", "Messages and records that could not be used.", counter)
	one("master/messages_status_update", "status_updates_total", "Status updates received from agents.", counter)
	one("master/event_queue_dispatches", "queued", "Pieces of work that wait for the master's loop.", gauge)
	one("master/operator_event_stream_subscribers", "operator_streams", "Event streams of operators that are open.", gauge)
	one("master/http_cache_hits", "cache_hits_total", "Requests answered with what was encoded for others.", counter)
	one("master/slave_registrations", "agent_registrations_total", "Agents that were seen for the first time.", counter)
	one("master/slave_reregistrations", "agent_reregistrations_total", "Agents that were seen again.", counter)
	one("master/slave_removals", "agent_removals_total", "Agents that were given up, gone, or left.", counter)
	one("registrar/queued_operations", "documents_queued", "Writes of documents that wait for the store.", gauge)
	one("registrar/registry_size_bytes", "documents_bytes", "Size of all documents.", gauge)
	many("master/slaves_", "agents", "Agents by state; the states overlap.", "state", gauge,
		"active", "inactive", "connected", "disconnected", "unreachable")
	many("master/frameworks_", "frameworks", "Frameworks by state; the states overlap.", "state", gauge,
		"active", "inactive", "connected", "disconnected")
	many("master/tasks_", "tasks", "Tasks by state.", "state", gauge, "staging", "starting", "running", "killing", "unreachable")
	many("master/tasks_", "tasks_ended_total", "Tasks that ended, by last state.", "state", counter,
		"finished", "failed", "killed", "lost", "error", "dropped", "gone", "gone_by_operator")
	for _, r := range []struct{ name, unit string }{{"cpus", "cpus"}, {"gpus", "gpus"}, {"mem", "mem_mebibytes"}, {"disk", "disk_mebibytes"}} {
		one("master/"+r.name+"_total", r.unit, "What all agents have.", gauge)
		one("master/"+r.name+"_used", r.unit+"_used", "What tasks hold.", gauge)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	var last *prometheus.Desc
	for _, s := range c.series {
		if s.desc != last {
			out <- s.desc
		}
		last = s.desc
	}
}

// Collect implements prometheus.Collector. It shows nothing when the master does not answer in time.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	values, err := c.master.Metrics(ctx)
	if err != nil {
		return
	}
	for _, s := range c.series {
		out <- prometheus.MustNewConstMetric(s.desc, s.kind, values[s.source], s.labels...)
	}
}
