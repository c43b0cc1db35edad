package master

import (
	"github.com/prometheus/client_golang/prometheus"

	"starling/master/mesos/metrics"
)

// NewCollector returns what a Prometheus registry is given to show the master's numbers. It shows nothing when the master does
// not answer in time.
func NewCollector(m *Master) prometheus.Collector {
	c := metrics.NewCollector("starling_master_", m.Metrics)
	c.Gauge("master/elected", "elected", "1 on the leading master.")
	c.Gauge("master/epoch", "epoch", "Epoch of this master's term, 0 while it does not lead.")
	c.Gauge("master/uptime_secs", "uptime_seconds", "Time since the start.")
	c.Gauge("master/outstanding_offers", "offers", "Offers that are out.")
	c.Counter("allocator/mesos/allocation_runs", "allocations_total", "Runs of the allocator.")
	c.Counter("master/dropped_messages", "dropped_messages_total", "Messages and records that could not be used.")
	c.Counter("master/messages_status_update", "status_updates_total", "Status updates received from agents.")
	c.Gauge("master/event_queue_dispatches", "queued", "Pieces of work that wait for the master's loop.")
	c.Gauge("master/operator_event_stream_subscribers", "operator_streams", "Event streams of operators that are open.")
	c.Counter("master/http_cache_hits", "cache_hits_total", "Requests answered with what was encoded for others.")
	c.Counter("master/slave_registrations", "agent_registrations_total", "Agents that were seen for the first time.")
	c.Counter("master/slave_reregistrations", "agent_reregistrations_total", "Agents that were seen again.")
	c.Counter("master/slave_removals", "agent_removals_total", "Agents that were given up, gone, or left.")
	c.Gauge("registrar/queued_operations", "documents_queued", "Writes of documents that wait for the store.")
	c.Gauge("registrar/registry_size_bytes", "documents_bytes", "Size of all documents.")
	c.Gauges("master/slaves_", "agents", "Agents by state; the states overlap.", "state",
		"active", "inactive", "connected", "disconnected", "unreachable")
	c.Gauges("master/frameworks_", "frameworks", "Frameworks by state; the states overlap.", "state",
		"active", "inactive", "connected", "disconnected")
	c.Gauges("master/tasks_", "tasks", "Tasks by state.", "state", "staging", "starting", "running", "killing", "unreachable")
	c.Counters("master/tasks_", "tasks_ended_total", "Tasks that ended, by last state.", "state",
		"finished", "failed", "killed", "lost", "error", "dropped", "gone", "gone_by_operator")
	for _, r := range []struct{ name, unit string }{{"cpus", "cpus"}, {"gpus", "gpus"}, {"mem", "mem_mebibytes"}, {"disk", "disk_mebibytes"}} {
		c.Gauge("master/"+r.name+"_total", r.unit, "What all agents have.")
		c.Gauge("master/"+r.name+"_used", r.unit+"_used", "What tasks hold.")
	}
	return c
}
