package master

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// counters are the numbers that only grow, by Mesos' names, and the timers.
type counters struct {
	values map[string]float64
	timers map[string]*timing
}

// timing keeps the newest durations of something, in milliseconds.
type timing struct {
	count  float64
	recent []float64
}

const maxRecent = 256

func newCounters() counters {
	c := counters{values: make(map[string]float64), timers: make(map[string]*timing)}
	for _, name := range knownCounters {
		c.values["master/"+name] = 0
	}
	c.values["allocator/mesos/allocation_runs"] = 0
	for _, end := range operationEnds {
		c.values["master/operations/"+end] = 0
		for _, kind := range operationKinds {
			c.values["master/operations/"+kind+"/"+end] = 0
		}
	}
	return c
}

// knownCounters are those that exist from the start, without the prefix "master/".
var knownCounters = []string{
	"dropped_messages", "messages_register_framework", "messages_reregister_framework", "messages_unregister_framework",
	"messages_deactivate_framework", "messages_kill_task", "messages_launch_tasks", "messages_decline_offers",
	"messages_revive_offers", "messages_suppress_offers", "messages_resource_request", "messages_reconcile_tasks",
	"messages_reconcile_operations", "messages_framework_to_executor", "messages_executor_to_framework",
	"messages_status_update", "messages_status_update_acknowledgement", "messages_operation_status_update",
	"messages_operation_status_update_acknowledgement", "messages_exited_executor",
	"valid_framework_to_executor_messages", "invalid_framework_to_executor_messages",
	"valid_executor_to_framework_messages", "invalid_executor_to_framework_messages", "valid_status_updates",
	"invalid_status_updates", "valid_status_update_acknowledgements", "invalid_status_update_acknowledgements",
	"valid_operation_status_update_acknowledgements", "invalid_operation_status_update_acknowledgements",
	"slave_registrations", "slave_reregistrations", "slave_removals", "slave_removals/reason_registered",
	"slave_removals/reason_unhealthy", "slave_removals/reason_unregistered", "slave_unreachable_scheduled",
	"slave_unreachable_canceled", "slave_unreachable_completed", "tasks_finished", "tasks_failed", "tasks_killed",
	"tasks_lost", "tasks_error", "tasks_dropped", "tasks_gone", "tasks_gone_by_operator",
}

func (c *counters) add(name string, n float64) { c.values[name] += n }

func (c *counters) observe(name string, d time.Duration) {
	t := c.timers[name]
	if t == nil {
		t = &timing{}
		c.timers[name] = t
	}
	ms := float64(d.Microseconds()) / 1000
	if len(t.recent) < maxRecent {
		t.recent = append(t.recent, ms)
	} else {
		t.recent[int(t.count)%maxRecent] = ms
	}
	t.count++
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
	offersSent, offersAccepted, offersDeclined, offersRescinded int
}

func newFrameworkMetrics() frameworkMetrics {
	return frameworkMetrics{
		calls: make(map[scheduler.Call_Type]int), events: make(map[scheduler.Event_Type]int),
		ended: make(map[mesos.TaskState]int),
	}
}

func (f *frameworkMetrics) call(t scheduler.Call_Type)   { f.calls[t]++ }
func (f *frameworkMetrics) event(t scheduler.Event_Type) { f.events[t]++ }

func (f *frameworkMetrics) update(s mesos.TaskState) {
	if terminal(s) {
		f.ended[s]++
	}
}

// Metrics returns all numbers by Mesos' names.
func (m *Master) Metrics(ctx context.Context) (map[string]float64, error) {
	var out map[string]float64
	if err := m.look(ctx, func() { out = m.measure() }); err != nil {
		return nil, err
	}
	return out, nil
}

func (m *Master) measure() map[string]float64 {
	out := make(map[string]float64, len(m.counters.values)+128)
	maps.Copy(out, m.counters.values)
	for name, t := range m.counters.timers {
		t.measure(name, out)
	}
	out["master/elected"] = 0
	if m.term != nil {
		out["master/elected"] = 1
		out["master/epoch"] = float64(m.term.epoch)
	}
	out["master/uptime_secs"] = m.now().Sub(m.started).Seconds()
	out["master/outstanding_offers"] = float64(len(m.offers))
	out["master/event_queue_messages"] = float64(len(m.inbox))
	out["master/event_queue_dispatches"] = 0
	out["master/event_queue_http_requests"] = 0
	out["master/operator_event_stream_subscribers"] = float64(len(m.audience.streams))
	m.measureAgents(out)
	m.measureTasks(out)
	m.measureOperations(out)
	m.measureFrameworks(out)
	m.measureQuota(out)
	return out
}

func (t *timing) measure(name string, out map[string]float64) {
	sorted := slices.Clone(t.recent)
	slices.Sort(sorted)
	at := func(q float64) float64 { return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)] }
	out[name] = t.recent[(int(t.count)-1)%maxRecent]
	out[name+"/count"] = t.count
	out[name+"/min"], out[name+"/max"] = sorted[0], sorted[len(sorted)-1]
	for label, q := range map[string]float64{"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "p9999": 0.9999} {
		out[name+"/"+label] = at(q)
	}
}

func (m *Master) measureAgents(out map[string]float64) {
	scalars := []string{resources.CPUs, resources.GPUs, resources.Mem, resources.Disk}
	total, used := make(map[string]float64), make(map[string]float64)
	for _, state := range []string{"active", "inactive", "connected", "disconnected", "unreachable"} {
		out["master/slaves_"+state] = 0
	}
	for _, a := range m.agents {
		if !a.unreachable.IsZero() {
			out["master/slaves_unreachable"]++
			continue
		}
		if a.active() {
			out["master/slaves_active"]++
		} else {
			out["master/slaves_inactive"]++
		}
		if a.liveness == record.Alive || a.liveness == record.Suspect {
			out["master/slaves_connected"]++
		} else {
			out["master/slaves_disconnected"]++
		}
		for _, name := range scalars {
			total[name] += a.total.Scalar(name).Float()
			for _, r := range a.used {
				used[name] += r.Scalar(name).Float()
			}
		}
	}
	for _, name := range scalars {
		out["master/"+name+"_total"], out["master/"+name+"_used"], out["master/"+name+"_percent"] = total[name], used[name], 0
		if total[name] > 0 {
			out["master/"+name+"_percent"] = used[name] / total[name]
		}
		for _, kind := range []string{"_total", "_used", "_percent"} {
			out["master/"+name+"_revocable"+kind] = 0
		}
	}
}

func (m *Master) measureTasks(out map[string]float64) {
	for _, state := range []string{"staging", "starting", "running", "killing", "unreachable"} {
		out["master/tasks_"+state] = 0
	}
	states := make(map[mesos.TaskState]int)
	for _, t := range m.tasks {
		if t.unreachable.IsZero() {
			states[t.state]++
		} else {
			states[mesos.TaskState_TASK_UNREACHABLE]++
		}
	}
	for state, n := range states {
		name := "master/" + strings.Replace(strings.ToLower(state.String()), "task_", "tasks_", 1)
		if _, shown := out[name]; shown && !terminal(state) {
			out[name] = float64(n)
		}
	}
}

func (m *Master) measureFrameworks(out map[string]float64) {
	for _, state := range []string{"active", "inactive", "connected", "disconnected"} {
		out["master/frameworks_"+state] = 0
	}
	for _, f := range m.frameworks {
		count := func(is bool, yes, no string) {
			if !is {
				yes = no
			}
			out["master/frameworks_"+yes]++
		}
		count(f.active, "active", "inactive")
		count(f.connected, "connected", "disconnected")
		if !m.cfg.HideFrameworkMetrics {
			f.measure(out)
		}
	}
}

func (f *framework) measure(out map[string]float64) {
	prefix := "master/frameworks/" + url.PathEscape(f.info.GetName()) + "/" + f.id + "/"
	out[prefix+"subscribed"] = 0
	if f.connected {
		out[prefix+"subscribed"] = 1
	}
	calls, events := 0, 0
	for t, n := range f.metrics.calls {
		calls += n
		out[prefix+"calls/"+strings.ToLower(t.String())] = float64(n)
	}
	for t, n := range f.metrics.events {
		events += n
		out[prefix+"events/"+strings.ToLower(t.String())] = float64(n)
	}
	out[prefix+"calls"], out[prefix+"events"] = float64(calls), float64(events)
	out[prefix+"offers/sent"] = float64(f.metrics.offersSent)
	out[prefix+"offers/accepted"] = float64(f.metrics.offersAccepted)
	out[prefix+"offers/declined"] = float64(f.metrics.offersDeclined)
	out[prefix+"offers/rescinded"] = float64(f.metrics.offersRescinded)
	active := make(map[mesos.TaskState]int)
	for _, t := range f.tasks {
		if !terminal(t.state) && t.unreachable.IsZero() {
			active[t.state]++
		}
	}
	for s, n := range active {
		out[prefix+"tasks/active/"+strings.ToLower(s.String())] = float64(n)
	}
	for s, n := range f.metrics.ended {
		out[prefix+"tasks/terminal/"+strings.ToLower(s.String())] = float64(n)
	}
	for _, role := range f.roles {
		out[prefix+"roles/"+role+"/suppressed"] = 0
		if f.suppressed[role] {
			out[prefix+"roles/"+role+"/suppressed"] = 1
		}
	}
}
