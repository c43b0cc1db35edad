package master

import (
	"strings"
	"sync/atomic"
	"time"

	"starling/master/mesos"
	"starling/master/mesos/metrics"
	"starling/master/mesos/scheduler"
)

// counters are the numbers that only grow, by Mesos' names, and the timers. Names: mesos-http-endpoints.md section 4.1.
type counters struct {
	values map[string]float64
	timers map[string]*metrics.Timing
}

func newCounters() counters {
	c := counters{values: make(map[string]float64), timers: make(map[string]*metrics.Timing)}
	for _, name := range knownCounters {
		c.values["master/"+name] = 0
	}
	for _, end := range operationEnds {
		c.values["master/operations/"+end] = 0
		for _, kind := range operationKinds {
			c.values["master/operations/"+kind+"/"+end] = 0
		}
	}
	c.values["allocator/mesos/allocation_runs"] = 0
	c.values["registrar/state_fetch_ms"] = 0
	for _, name := range []string{allocationRun, allocationLatency, stateStore} {
		c.timers[name] = &metrics.Timing{}
	}
	return c
}

// The timers.
const (
	allocationRun     = "allocator/mesos/allocation_run_ms"
	allocationLatency = "allocator/mesos/allocation_run_latency_ms"
	stateStore        = "registrar/state_store_ms"
)

// knownCounters are those that exist from the start, without the prefix "master/".
var knownCounters = []string{
	"dropped_messages", "messages_register_framework", "messages_reregister_framework", "messages_unregister_framework",
	"messages_deactivate_framework", "messages_kill_task", "messages_launch_tasks", "messages_decline_offers",
	"messages_revive_offers", "messages_suppress_offers", "messages_resource_request", "messages_reconcile_tasks",
	"messages_reconcile_operations", "messages_framework_to_executor", "messages_executor_to_framework",
	"messages_register_slave", "messages_reregister_slave", "messages_unregister_slave", "messages_update_slave",
	"messages_status_update", "messages_status_update_acknowledgement", "messages_operation_status_update",
	"messages_operation_status_update_acknowledgement", "messages_exited_executor", "messages_authenticate",
	"valid_framework_to_executor_messages", "invalid_framework_to_executor_messages",
	"valid_executor_to_framework_messages", "invalid_executor_to_framework_messages", "valid_status_updates",
	"invalid_status_updates", "valid_status_update_acknowledgements", "invalid_status_update_acknowledgements",
	"valid_operation_status_updates", "invalid_operation_status_updates",
	"valid_operation_status_update_acknowledgements", "invalid_operation_status_update_acknowledgements",
	"slave_registrations", "slave_reregistrations", "slave_removals", "slave_removals/reason_registered",
	"slave_removals/reason_unhealthy", "slave_removals/reason_unregistered", "recovery_slave_removals",
	"slave_shutdowns_scheduled", "slave_shutdowns_canceled", "slave_shutdowns_completed", "slave_unreachable_scheduled",
	"slave_unreachable_canceled", "slave_unreachable_completed", "tasks_finished", "tasks_failed", "tasks_killed",
	"tasks_lost", "tasks_error", "tasks_dropped", "tasks_gone", "tasks_gone_by_operator",
}

func (c *counters) add(name string, n float64) { c.values[name] += n }

func (c *counters) observe(name string, d time.Duration) { c.timers[name].Observe(d) }

// countPrincipal counts a message of a framework that names its principal.
func (m *Master) countPrincipal(f *framework, what string) {
	if p := f.info.GetPrincipal(); p != "" {
		m.counters.add("frameworks/"+p+"/"+what, 1)
	}
}

// forgetPrincipal lets go of the numbers of a principal whose last framework has gone.
func (m *Master) forgetPrincipal(p string) {
	for _, f := range m.frameworks {
		if f.info.GetPrincipal() == p {
			return
		}
	}
	delete(m.counters.values, "frameworks/"+p+"/messages_received")
	delete(m.counters.values, "frameworks/"+p+"/messages_processed")
}

// countStatus counts a status that is new.
func (m *Master) countStatus(s *mesos.TaskStatus) {
	state := strings.ToLower(s.GetState().String())
	if terminal(s.GetState()) {
		m.counters.add("master/"+strings.Replace(state, "task_", "tasks_", 1), 1)
	}
	if s.Source != nil && s.Reason != nil && terminal(s.GetState()) {
		m.counters.add("master/"+state+"/"+oldName(s.GetSource().String())+"/"+oldName(s.GetReason().String()), 1)
	}
}

// oldName is the name that metrics have for an enum value: an agent is a slave there.
func oldName(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "agent", "slave")
}

// frameworkMetrics count what goes to and fro between the master and one framework.
type frameworkMetrics struct {
	calls                                                       map[scheduler.Call_Type]int
	events                                                      map[scheduler.Event_Type]int
	ended                                                       map[mesos.TaskState]int
	operations                                                  map[mesos.Offer_Operation_Type]int
	beats                                                       *atomic.Int64 // heartbeats, which its streams count
	offersSent, offersAccepted, offersDeclined, offersRescinded int
}

func newFrameworkMetrics() frameworkMetrics {
	return frameworkMetrics{
		calls: make(map[scheduler.Call_Type]int), events: make(map[scheduler.Event_Type]int),
		beats: new(atomic.Int64), ended: make(map[mesos.TaskState]int), operations: make(map[mesos.Offer_Operation_Type]int),
	}
}

func (f *frameworkMetrics) call(t scheduler.Call_Type)   { f.calls[t]++ }
func (f *frameworkMetrics) event(t scheduler.Event_Type) { f.events[t]++ }

func (f *frameworkMetrics) update(s mesos.TaskState) {
	if terminal(s) {
		f.ended[s]++
	}
}

// accept counts the operations of an ACCEPT.
func (f *frameworkMetrics) accept(ops []*mesos.Offer_Operation) {
	for _, op := range ops {
		f.operations[op.GetType()]++
	}
}
