package master

import (
	"context"
	"maps"
	"net/url"
	"strings"

	"starling/master/mesos"
	"starling/master/mesos/host"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// Metrics returns all numbers by Mesos' names. When ctx ends before the loop has answered, those that need no waiting for
// it come with the error.
func (m *Master) Metrics(ctx context.Context) (map[string]float64, error) {
	out := host.Metrics()
	out["master/elected"] = 0
	if m.Standing().Leading {
		out["master/elected"] = 1
	}
	out["master/uptime_secs"] = m.now().Sub(m.started).Seconds()
	out["master/http_cache_hits"] = float64(m.cacheHits.Load())
	// All that the loop does comes as functions.
	out["master/event_queue_dispatches"] = float64(len(m.inbox))
	out["master/event_queue_messages"], out["master/event_queue_http_requests"] = 0, 0
	var measured map[string]float64
	if err := m.look(ctx, func() { measured = m.measure() }); err != nil {
		return out, err
	}
	maps.Copy(out, measured)
	return out, nil
}

// CountCacheHit counts a request that was answered with what had been encoded for another.
func (m *Master) CountCacheHit() { m.cacheHits.Add(1) }

func (m *Master) measure() map[string]float64 {
	out := make(map[string]float64, len(m.counters.values)+128)
	maps.Copy(out, m.counters.values)
	for name, t := range m.counters.timers {
		t.Measure(name, out)
	}
	if m.term != nil {
		out["master/epoch"] = float64(m.term.epoch)
	}
	out["master/outstanding_offers"] = float64(len(m.offers))
	out["master/operator_event_stream_subscribers"] = float64(len(m.audience.streams))
	m.measureAgents(out)
	m.measureTasks(out)
	m.measureOperations(out)
	m.measureFrameworks(out)
	m.measureQuota(out)
	m.measureAllocator(out)
	m.measureRegistrar(out)
	return out
}

// scalars are the resources that have numbers of their own.
var scalars = []string{resources.CPUs, resources.GPUs, resources.Mem, resources.Disk}

func (m *Master) measureAgents(out map[string]float64) {
	for _, state := range []string{"active", "inactive", "connected", "disconnected", "unreachable"} {
		out["master/slaves_"+state] = 0
	}
	total, used := make(map[string]resources.Milli), make(map[string]resources.Milli)
	known, taken := make(map[string]resources.Milli), make(map[string]resources.Milli)
	count := func(sums map[string]resources.Milli, r resources.Resources) {
		for name, amount := range r.Scalars() {
			sums[name] += amount
		}
	}
	split := func(sums map[string]resources.Milli, r resources.Resources) {
		count(sums, r.NonRevocable())
		for name, amount := range r.Revocable().Scalars() {
			sums[name+"_revocable"] += amount
		}
	}
	for _, a := range m.agents {
		switch {
		case !a.unreachable.IsZero():
			out["master/slaves_unreachable"]++
			continue
		case a.active():
			out["master/slaves_active"]++
		default:
			out["master/slaves_inactive"]++
		}
		if a.alive() {
			out["master/slaves_connected"]++
		} else {
			out["master/slaves_disconnected"]++
		}
		split(total, a.total)
		count(known, a.total)
		for _, r := range a.used {
			split(used, r)
			count(taken, r)
		}
		for _, o := range a.offers {
			count(taken, o.resources)
		}
	}
	for _, name := range scalars {
		for _, kind := range []string{name, name + "_revocable"} {
			t, u := total[kind].Float(), used[kind].Float()
			out["master/"+kind+"_total"], out["master/"+kind+"_used"], out["master/"+kind+"_percent"] = t, u, 0
			if t > 0 {
				out["master/"+kind+"_percent"] = u / t
			}
		}
		known[name] += 0
	}
	for name, amount := range known {
		out["allocator/mesos/resources/"+name+"/total"] = amount.Float()
		out["allocator/mesos/resources/"+name+"/offered_or_allocated"] = taken[name].Float()
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
			m.measureFramework(f, out)
		}
	}
}

func (m *Master) measureFramework(f *framework, out map[string]float64) {
	prefix := "master/frameworks/" + url.PathEscape(f.info.GetName()) + "/" + f.id + "/"
	out[prefix+"subscribed"] = 0
	if f.connected {
		out[prefix+"subscribed"] = 1
	}
	out[prefix+"calls"] = kinds(out, prefix+"calls/", scheduler.Call_Type_name, f.metrics.calls)
	f.metrics.events[scheduler.Event_HEARTBEAT] = int(f.metrics.beats.Load())
	out[prefix+"events"] = kinds(out, prefix+"events/", scheduler.Event_Type_name, f.metrics.events)
	out[prefix+"operations"] = kinds(out, prefix+"operations/", mesos.Offer_Operation_Type_name, f.metrics.operations)
	out[prefix+"offers/sent"] = float64(f.metrics.offersSent)
	out[prefix+"offers/accepted"] = float64(f.metrics.offersAccepted)
	out[prefix+"offers/declined"] = float64(f.metrics.offersDeclined)
	out[prefix+"offers/rescinded"] = float64(f.metrics.offersRescinded)
	states := make(map[mesos.TaskState]int)
	for _, t := range f.tasks.byID {
		if !terminal(t.state) {
			states[m.stateShown(t)]++
		}
	}
	for n, name := range mesos.TaskState_name {
		switch s := mesos.TaskState(n); {
		case terminal(s):
			out[prefix+"tasks/terminal/"+strings.ToLower(name)] = float64(f.metrics.ended[s])
		case s != mesos.TaskState_TASK_UNKNOWN:
			out[prefix+"tasks/active/"+strings.ToLower(name)] = float64(states[s])
		}
	}
	for _, role := range f.roles {
		out[prefix+"roles/"+role+"/suppressed"] = 0
		if f.suppressed[role] {
			out[prefix+"roles/"+role+"/suppressed"] = 1
		}
	}
}

// kinds adds a number for each value of an enum, those that never came included, and returns their sum.
func kinds[E ~int32](out map[string]float64, prefix string, names map[int32]string, counted map[E]int) float64 {
	sum := 0
	for n, name := range names {
		if name == "UNKNOWN" {
			continue
		}
		sum += counted[E(n)]
		out[prefix+strings.ToLower(name)] = float64(counted[E(n)])
	}
	return float64(sum)
}

// measureAllocator adds what the allocator knows of itself. It runs on the loop and has no queue of its own.
func (m *Master) measureAllocator(out map[string]float64) {
	out["allocator/mesos/event_queue_dispatches"] = 0
	if m.alloc == nil {
		return
	}
	for role, n := range m.alloc.Numbers() {
		out["allocator/mesos/offer_filters/roles/"+role+"/active"] = float64(n.Filters)
		out["allocator/mesos/roles/"+role+"/shares/dominant"] = n.Share
	}
}

// measureRegistrar tells of the documents. There is no replicated log: whoever holds them counts as one.
func (m *Master) measureRegistrar(out map[string]float64) {
	out["registrar/queued_operations"], out["registrar/registry_size_bytes"] = 0, 0
	out["registrar/log/recovered"], out["registrar/log/ensemble_size"] = 0, 1
	if m.term != nil {
		queued, size := m.term.keeper.measure()
		out["registrar/queued_operations"], out["registrar/registry_size_bytes"] = float64(queued), float64(size)
		out["registrar/log/recovered"] = 1
	}
}
