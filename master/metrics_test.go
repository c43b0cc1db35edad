package master_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos/scheduler"
)

// expand writes out names in the manner of a shell: "a/{b,c}" is "a/b" and "a/c".
func expand(pattern string) []string {
	before, rest, ok := strings.Cut(pattern, "{")
	if !ok {
		return []string{pattern}
	}
	choices, after, _ := strings.Cut(rest, "}")
	var out []string
	for choice := range strings.SplitSeq(choices, ",") {
		out = append(out, expand(before+choice+after)...)
	}
	return out
}

// fixedMetrics are the names that are there from the start. Spec: mesos-http-endpoints.md section 4.1.
var fixedMetrics = []string{
	"master/{cpus,gpus,mem,disk}{,_revocable}_{total,used,percent}",
	"master/{elected,uptime_secs,outstanding_offers,operator_event_stream_subscribers,http_cache_hits}",
	"master/slaves_{active,inactive,connected,disconnected,unreachable}",
	"master/frameworks_{active,inactive,connected,disconnected}",
	"master/event_queue_{messages,dispatches,http_requests}",
	"master/tasks_{staging,starting,running,killing,unreachable,finished,failed,killed,lost,error,dropped,gone,gone_by_operator}",
	"master/dropped_messages",
	"master/messages_{register_framework,reregister_framework,unregister_framework,deactivate_framework,kill_task,launch_tasks}",
	"master/messages_{decline_offers,revive_offers,suppress_offers,resource_request,reconcile_tasks,reconcile_operations}",
	"master/messages_{framework_to_executor,executor_to_framework,register_slave,reregister_slave,unregister_slave,update_slave}",
	"master/messages_{status_update,status_update_acknowledgement,operation_status_update,operation_status_update_acknowledgement}",
	"master/messages_{exited_executor,authenticate}",
	"master/{valid,invalid}_{framework_to_executor,executor_to_framework}_messages",
	"master/{valid,invalid}_{,operation_}status_update{s,_acknowledgements}",
	"master/{slave_registrations,slave_reregistrations,slave_removals,recovery_slave_removals}",
	"master/slave_removals/reason_{registered,unhealthy,unregistered}",
	"master/slave_{shutdowns,unreachable}_{scheduled,canceled,completed}",
	"master/operations/total",
	"master/operations/{pending,recovering,unreachable,finished,failed,error,dropped,gone_by_operator}",
	"master/operations/{reserve,unreserve,create,destroy,grow_volume,shrink_volume,create_disk,destroy_disk}/total",
	"master/operations/{reserve,unreserve,create,destroy,grow_volume,shrink_volume,create_disk,destroy_disk}/{pending,recovering,unreachable,finished,failed,error,dropped,gone_by_operator}",
	"allocator/mesos/{allocation_runs,event_queue_dispatches}",
	"allocator/mesos/{allocation_run_ms,allocation_run_latency_ms}{,/count,/max,/min,/p50,/p90,/p95,/p99,/p999,/p9999}",
	"allocator/mesos/resources/{cpus,gpus,mem,disk}/{total,offered_or_allocated}",
	"registrar/{queued_operations,registry_size_bytes,state_fetch_ms,log/recovered,log/ensemble_size}",
	"registrar/state_store_ms{,/count,/max,/min,/p50,/p90,/p95,/p99,/p999,/p9999}",
	"system/{cpus_total,load_1min,load_5min,load_15min,mem_total_bytes,mem_free_bytes}",
}

// frameworkMetrics are those of one framework, behind its prefix.
var frameworkMetrics = []string{
	"{subscribed,calls,events,operations}",
	"calls/{subscribe,teardown,accept,decline,accept_inverse_offers,decline_inverse_offers,revive,kill,shutdown,acknowledge}",
	"calls/{acknowledge_operation_status,reconcile,reconcile_operations,message,request,suppress,update_framework}",
	"events/{subscribed,offers,inverse_offers,rescind,rescind_inverse_offer,update,update_operation_status,message,failure,error,heartbeat}",
	"offers/{sent,accepted,declined,rescinded}",
	"tasks/active/task_{staging,starting,running,killing,unreachable}",
	"tasks/terminal/task_{finished,failed,killed,error,lost,dropped,gone,gone_by_operator}",
	"operations/{launch,launch_group,reserve,unreserve,create,destroy,grow_volume,shrink_volume,create_disk,destroy_disk}",
	"roles/{web,db}/suppressed",
}

func metricsOf(t *testing.T, m *master.Master) map[string]float64 {
	t.Helper()
	values, err := m.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// Every name that is fixed is there before anything has happened, at 0 where it counts.
func TestMetricsFromTheStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		synctest.Wait()
		values := metricsOf(t, c.Master)
		want := make(map[string]bool)
		for _, pattern := range fixedMetrics {
			for _, name := range expand(pattern) {
				want[name] = true
				value, there := values[name]
				if !there {
					t.Errorf("%s is missing", name)
				}
				if value != 0 && !strings.HasPrefix(name, "system/") && name != "registrar/log/ensemble_size" {
					t.Errorf("%s: got %v, want 0", name, value)
				}
			}
		}
		for name := range values {
			if !want[name] {
				t.Errorf("%s is not in the specification", name)
			}
		}
	})
}

// The numbers follow what happens.
func TestMetricsFollow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.Weights = map[string]float64{"web": 2} })
		info := mastertest.Info("my framework", []string{"web", "db"}, multiRole)
		info.Principal = proto.String("ops")
		f := mastertest.Subscribe(t, c.Master, info, "db")
		f.Launch(f.ExpectOffer(), 600, mastertest.Task("a", "cpus:1;mem:1024"), mastertest.Task("b", "cpus:1;mem:1024"), mastertest.Task("bad", "cpus:100"))
		for range 3 {
			f.Acknowledge(f.Expect(scheduler.Event_UPDATE).GetUpdate().GetStatus())
		}
		f.ExpectSilence(31 * time.Second) // two more heartbeats are due meanwhile
		values := metricsOf(t, c.Master)
		prefix := "master/frameworks/my%20framework/" + f.ID + "/"
		for _, pattern := range frameworkMetrics {
			for _, name := range expand(pattern) {
				if _, there := values[prefix+name]; !there {
					t.Errorf("%s%s is missing", prefix, name)
				}
			}
		}
		for name, want := range map[string]float64{
			"master/elected": 1, "master/epoch": 1, "master/cpus_total": 4, "master/cpus_used": 2, "master/cpus_percent": 0.5, "master/mem_percent": 0.5,
			"master/slaves_active": 1, "master/slaves_connected": 1, "master/frameworks_active": 1, "master/frameworks_connected": 1,
			"master/tasks_running": 2, "master/tasks_error": 1, "master/task_error/source_master/reason_task_invalid": 1,
			"master/messages_register_framework": 1, "master/messages_launch_tasks": 1, "master/messages_register_slave": 1,
			"master/slave_registrations": 1, "master/valid_status_updates": 2, "master/messages_status_update_acknowledgement": 2,
			prefix + "subscribed": 1, prefix + "calls": 4, prefix + "calls/accept": 1, prefix + "calls/acknowledge": 2, prefix + "events/update": 3, prefix + "events/heartbeat": 3,
			prefix + "offers/sent": 1, prefix + "offers/accepted": 1, prefix + "operations": 1, prefix + "operations/launch": 1,
			prefix + "tasks/active/task_running": 2, prefix + "tasks/terminal/task_error": 1,
			prefix + "roles/db/suppressed": 1, prefix + "roles/web/suppressed": 0,
			"frameworks/ops/messages_received": 4, "frameworks/ops/messages_processed": 4,
			"allocator/mesos/resources/cpus/total": 4, "allocator/mesos/resources/cpus/offered_or_allocated": 2,
			"allocator/mesos/roles/web/shares/dominant": 0.5, "allocator/mesos/offer_filters/roles/web/active": 1,
			"registrar/log/recovered": 1,
		} {
			if got, there := values[name]; !there || got != want {
				t.Errorf("%s: got %v (there: %t), want %v", name, got, there, want)
			}
		}
		for _, name := range []string{"registrar/registry_size_bytes", "registrar/state_store_ms/count", "allocator/mesos/allocation_run_ms/count", "master/uptime_secs"} {
			if values[name] <= 0 {
				t.Errorf("%s: got %v, want more than 0", name, values[name])
			}
		}
		if err := c.Master.Teardown(t.Context(), f.ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		values = metricsOf(t, c.Master)
		for name, want := range map[string]float64{
			"master/tasks_killed": 2, "master/task_killed/source_master/reason_framework_removed": 2, "master/frameworks_active": 0,
		} {
			if values[name] != want {
				t.Errorf("after the teardown, %s: got %v, want %v", name, values[name], want)
			}
		}
		for name := range values {
			if strings.Contains(name, "frameworks/ops") || strings.HasPrefix(name, prefix) {
				t.Errorf("%s outlives its framework", name)
			}
		}
	})
}

// Numbers that need no answer of the loop come even when it is stuck.
func TestMetricsOfAStuckLoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		values, err := c.Master.Metrics(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		if values["master/elected"] != 1 || values["system/cpus_total"] < 1 {
			t.Errorf("got %v", values)
		}
	})
}

func TestExpand(t *testing.T) {
	if got, want := expand("a{b,}{c,d}"), []string{"abc", "abd", "ac", "ad"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
