package api

import (
	"context"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"starling/agent"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/server"
)

// values are the agent's numbers by the names of Mesos.
func (s *Server) values(st *agent.State) map[string]float64 {
	n := st.Counters
	out := map[string]float64{
		"slave/registered": flag(st.Leader != ""), "slave/uptime_secs": s.cfg.Now().Sub(st.Started).Seconds(),
		"slave/recovery_errors": float64(n.RecoveryErrors), "slave/recovery_time_secs": n.RecoverySeconds,
		"slave/frameworks_active":    float64(len(st.Frameworks)),
		"slave/executors_preempted":  0,
		"slave/tasks_finished":       float64(n.TasksFinished),
		"slave/tasks_failed":         float64(n.TasksFailed),
		"slave/tasks_killed":         float64(n.TasksKilled),
		"slave/tasks_lost":           float64(n.TasksLost),
		"slave/tasks_gone":           0,
		"slave/tasks_error":          float64(n.TasksError),
		"slave/tasks_dropped":        float64(n.TasksDropped),
		"slave/tasks_refused":        float64(n.Refused),
		"slave/valid_status_updates": float64(n.Updates), "slave/invalid_status_updates": 0,
		"slave/valid_framework_messages": 0, "slave/invalid_framework_messages": float64(n.InvalidMessages),
		"slave/container_launch_errors":                 float64(n.LaunchErrors),
		"slave/executor_directory_max_allowed_age_secs": s.cfg.GCDelay.Seconds(),
		"containerizer/mesos/container_destroy_errors":  float64(n.DestroyErrors),
		"gc/path_removals_pending":                      float64(st.SandboxesPending),
		"gc/path_removals_succeeded":                    float64(st.SandboxesRemoved),
		"gc/path_removals_failed":                       float64(st.SandboxesFailed),
		"slave/updates_pending":                         float64(st.Pending), "slave/epoch": float64(st.Epoch),
		"slave/calls": float64(n.Calls), "slave/calls_stale": float64(n.StaleCalls),
		"slave/reports": float64(n.Reports), "slave/reports_failed": float64(n.FailedReports),
		"slave/updates_dropped": float64(n.DroppedUpdates), "slave/disk_errors": float64(n.DiskErrors),
		"slave/operations_finished": float64(n.OperationsFinished), "slave/operations_refused": float64(n.OperationsRefused),
		"slave/operations_pending": float64(len(st.Operations)),
		"slave/problems":           float64(len(st.Problems)), "slave/containerizer_answers": flag(st.Degraded == ""),
	}
	countTasks(out, st)
	for _, name := range []string{"cpus", "gpus", "mem", "disk"} {
		gauges(out, name, "", st.Total.NonRevocable(), st.Used.NonRevocable())
		gauges(out, name, "_revocable", st.Total.Revocable(), st.Used.Revocable())
	}
	return out
}

// countTasks counts tasks and executors by state.
func countTasks(out map[string]float64, st *agent.State) {
	for _, name := range []string{
		"tasks_staging", "tasks_starting", "tasks_running", "tasks_killing",
		"executors_registering", "executors_running", "executors_terminating", "executors_terminated",
	} {
		out["slave/"+name] = 0
	}
	for _, f := range st.Frameworks {
		for _, e := range f.Executors {
			switch e.Task.GetState() {
			case mesos.TaskState_TASK_STAGING:
				out["slave/tasks_staging"]++
				out["slave/executors_registering"]++
			case mesos.TaskState_TASK_STARTING:
				out["slave/tasks_starting"]++
				out["slave/executors_registering"]++
			case mesos.TaskState_TASK_RUNNING:
				out["slave/tasks_running"]++
				out["slave/executors_running"]++
			case mesos.TaskState_TASK_KILLING:
				out["slave/tasks_killing"]++
				out["slave/executors_terminating"]++
			default:
				out["slave/executors_terminated"]++
			}
		}
	}
}

func gauges(out map[string]float64, name, suffix string, total, used resources.Resources) {
	t, u := total.Scalar(name).Float(), used.Scalar(name).Float()
	prefix := "slave/" + name + suffix
	out[prefix+"_total"], out[prefix+"_used"], out[prefix+"_percent"] = t, u, 0
	if t > 0 {
		out[prefix+"_percent"] = u / t
	}
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// snapshot answers one flat object. An agent that does not answer within the timeout of the query leaves its part out.
func (s *Server) snapshot(c *fiber.Ctx) error {
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	out := map[string]number{}
	if s.agent.Ready() {
		st, err := s.agent.State(ctx)
		if err != nil {
			return unavailable(err)
		}
		for name, value := range s.values(st) {
			out[name] = number(value)
		}
	}
	return write(c, out)
}

// series is one number for Prometheus: where it comes from and what it is called.
type series struct {
	source string
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	labels []string
}

// collector shows the agent's numbers to Prometheus, under its naming rules.
type collector struct {
	server *Server
	series []series
}

func newCollector(s *Server) *collector {
	c := &collector{server: s}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	one := func(source, name, help string, kind prometheus.ValueType) {
		c.series = append(c.series, series{source: source, kind: kind, desc: prometheus.NewDesc("starling_agent_"+name, help, nil, nil)})
	}
	many := func(source, name, help, label string, kind prometheus.ValueType, values ...string) {
		desc := prometheus.NewDesc("starling_agent_"+name, help, []string{label}, nil)
		for _, v := range values {
			c.series = append(c.series, series{source: source + v, desc: desc, kind: kind, labels: []string{v}})
		}
	}
	one("slave/registered", "leader_known", "1 while the agent knows a leader.", gauge)
	one("slave/epoch", "epoch", "Highest epoch that was obeyed.", gauge)
	one("slave/uptime_secs", "uptime_seconds", "Time since the start.", gauge)
	one("slave/recovery_time_secs", "recovery_seconds", "How long recovery took.", gauge)
	one("slave/problems", "problems", "Problems that the node's health tells of.", gauge)
	one("slave/containerizer_answers", "containerizer_answers", "1 while containers can be started; 0 while the supervisor does not answer.", gauge)
	one("slave/updates_pending", "updates_pending", "Status updates that are not acknowledged.", gauge)
	one("gc/path_removals_pending", "sandboxes_pending", "Ended sandboxes that are kept for now.", gauge)
	one("slave/valid_status_updates", "updates_total", "Status updates of tasks.", counter)
	one("slave/updates_dropped", "updates_dropped_total", "Updates about unknown tasks that were given up.", counter)
	one("slave/tasks_refused", "tasks_refused_total", "Tasks that were refused at once.", counter)
	one("slave/container_launch_errors", "launch_errors_total", "Containers that could not be started.", counter)
	one("containerizer/mesos/container_destroy_errors", "destroy_errors_total", "Tries to end a container that failed.", counter)
	one("slave/disk_errors", "disk_errors_total", "Checkpoints that could not be written.", counter)
	one("slave/recovery_errors", "recovery_errors_total", "Checkpoints and containers that recovery could not use.", counter)
	one("slave/calls", "calls_total", "Calls of leaders.", counter)
	one("slave/calls_stale", "calls_stale_total", "Calls refused for their epoch.", counter)
	one("slave/reports", "reports_total", "Reports that a leader took.", counter)
	one("slave/reports_failed", "reports_failed_total", "Reports that no leader took.", counter)
	one("gc/path_removals_succeeded", "sandboxes_removed_total", "Sandboxes removed.", counter)
	many("slave/tasks_", "tasks", "Tasks by state.", "state", gauge, "staging", "starting", "running", "killing")
	many("slave/tasks_", "tasks_ended_total", "Tasks that ended, by last state.", "state", counter,
		"finished", "failed", "killed", "lost", "error", "dropped", "gone")
	for _, r := range []struct{ name, unit string }{{"cpus", "cpus"}, {"gpus", "gpus"}, {"mem", "mem_mebibytes"}, {"disk", "disk_mebibytes"}} {
		one("slave/"+r.name+"_total", r.unit, "What the node has.", gauge)
		one("slave/"+r.name+"_used", r.unit+"_used", "What tasks hold.", gauge)
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

// Collect implements prometheus.Collector. It shows nothing when the agent does not answer in time.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if !c.server.agent.Ready() {
		return
	}
	st, err := c.server.agent.State(ctx)
	if err != nil {
		return
	}
	values := c.server.values(st)
	for _, s := range c.series {
		out <- prometheus.MustNewConstMetric(s.desc, s.kind, values[s.source], s.labels...)
	}
}
