package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/utils"
	"github.com/prometheus/client_golang/prometheus"

	"starling/agent"
	"starling/agent/fetcher"
	"starling/master/mesos"
	"starling/master/mesos/host"
	"starling/master/mesos/metrics"
	"starling/master/mesos/resources"
	"starling/master/mesos/server"
)

// values are the agent's numbers by the names of Mesos.
func (s *Server) values(st *agent.State) map[string]float64 {
	n := st.Counters
	out := map[string]float64{
		"slave/registered": oneIf(st.Leader != ""), "slave/uptime_secs": s.cfg.Now().Sub(st.Started).Seconds(),
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
		"slave/problems":           float64(len(st.Problems)), "slave/containerizer_answers": oneIf(st.Degraded == ""),
		"slave/containers_launched_over_api": float64(len(st.Nested)),
	}
	countTasks(out, st)
	countFetches(out, s.cfg.Fetcher)
	if m, ok := s.cfg.Containerizer.(interface{ Measure(out map[string]float64) }); ok {
		m.Measure(out)
	}
	for _, name := range []string{"cpus", "gpus", "mem", "disk"} {
		gauges(out, name, "", st.Total.NonRevocable(), st.Used.NonRevocable())
		gauges(out, name, "_revocable", st.Total.Revocable(), st.Used.Revocable())
	}
	return out
}

// countFetches tells what the fetcher did; there are zeros where there is none.
func countFetches(out map[string]float64, f agent.Fetcher) {
	var n fetcher.Counts
	if counting, ok := f.(interface{ Counts() fetcher.Counts }); ok {
		n = counting.Counts()
	}
	out["containerizer/fetcher/task_fetches_succeeded"] = float64(n.Succeeded)
	out["containerizer/fetcher/task_fetches_failed"] = float64(n.Failed)
	out["containerizer/fetcher/cache_size_total_bytes"] = float64(n.CacheBytes)
	out["containerizer/fetcher/cache_size_used_bytes"] = float64(n.CacheUsed)
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
			out["slave/executors_"+phaseOf(e)]++
			tasks := tasksOf(e, false)
			for _, t := range slices.Concat(tasks.queued, tasks.launched) {
				switch t.GetState() {
				case mesos.TaskState_TASK_STAGING:
					out["slave/tasks_staging"]++
				case mesos.TaskState_TASK_STARTING:
					out["slave/tasks_starting"]++
				case mesos.TaskState_TASK_RUNNING:
					out["slave/tasks_running"]++
				case mesos.TaskState_TASK_KILLING:
					out["slave/tasks_killing"]++
				}
			}
		}
	}
}

// phaseOf is what an executor does, as the names of metrics have it; that of a command task does what its task does.
func phaseOf(e agent.ExecutorState) string {
	if e.Task == nil {
		return strings.ToLower(e.Phase)
	}
	switch e.Task.GetState() {
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING:
		return "registering"
	case mesos.TaskState_TASK_RUNNING:
		return "running"
	case mesos.TaskState_TASK_KILLING:
		return "terminating"
	}
	return "terminated"
}

func gauges(out map[string]float64, name, suffix string, total, used resources.Resources) {
	t, u := total.Scalar(name).Float(), used.Scalar(name).Float()
	prefix := "slave/" + name + suffix
	out[prefix+"_total"], out[prefix+"_used"], out[prefix+"_percent"] = t, u, 0
	if t > 0 {
		out[prefix+"_percent"] = u / t
	}
}

func oneIf(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// snapshot answers one flat object.
func (s *Server) snapshot(c *fiber.Ctx) error {
	ctx, cancel := context.WithTimeout(server.Context(c), callTimeout)
	defer cancel()
	var timeout time.Duration
	if text := utils.CopyString(c.Query("timeout")); text != "" {
		var err error
		if timeout, err = server.ParseDuration(text); err != nil {
			return server.Errorf(fiber.StatusBadRequest, "Invalid timeout '%s': %v", text, err)
		}
	}
	values, err := s.measure(ctx, timeout)
	if err != nil {
		return unavailable(err)
	}
	out := make(map[string]number, len(values))
	for name, value := range values {
		out[name] = number(value)
	}
	return write(c, out)
}

// measure returns the numbers. What is not there within a timeout that the client named is left out; 0 is no timeout. Before the
// agent has recovered there are those of the machine alone.
func (s *Server) measure(ctx context.Context, timeout time.Duration) (map[string]float64, error) {
	out := host.Metrics()
	if !s.agent.Ready() {
		return out, nil
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	st, err := s.agent.State(ctx)
	switch {
	case err == nil:
		maps.Copy(out, s.values(st))
	case timeout <= 0 || !errors.Is(err, context.DeadlineExceeded):
		return nil, err
	}
	return out, nil
}

// newCollector shows the agent's numbers to Prometheus. It shows nothing before the agent has recovered, or when it does not
// answer in time.
func newCollector(s *Server) prometheus.Collector {
	c := metrics.NewCollector("starling_agent_", func(ctx context.Context) (map[string]float64, error) {
		if err := s.ready(); err != nil {
			return nil, err
		}
		st, err := s.agent.State(ctx)
		if err != nil {
			return nil, err
		}
		return s.values(st), nil
	})
	c.Gauge("slave/registered", "leader_known", "1 while the agent knows a leader.")
	c.Gauge("slave/epoch", "epoch", "Highest epoch that was obeyed.")
	c.Gauge("slave/uptime_secs", "uptime_seconds", "Time since the start.")
	c.Gauge("slave/recovery_time_secs", "recovery_seconds", "How long recovery took.")
	c.Gauge("slave/problems", "problems", "Problems that the node's health tells of.")
	c.Gauge("slave/containerizer_answers", "containerizer_answers", "1 while containers can be started; 0 while the supervisor does not answer.")
	c.Gauge("slave/updates_pending", "updates_pending", "Status updates that are not acknowledged.")
	c.Gauge("gc/path_removals_pending", "sandboxes_pending", "Ended sandboxes that are kept for now.")
	c.Counter("slave/valid_status_updates", "updates_total", "Status updates of tasks.")
	c.Counter("slave/updates_dropped", "updates_dropped_total", "Updates about unknown tasks that were given up.")
	c.Counter("slave/tasks_refused", "tasks_refused_total", "Tasks that were refused at once.")
	c.Counter("slave/container_launch_errors", "launch_errors_total", "Containers that could not be started.")
	c.Counter("containerizer/mesos/container_destroy_errors", "destroy_errors_total", "Tries to end a container that failed.")
	c.Counter("slave/disk_errors", "disk_errors_total", "Checkpoints that could not be written.")
	c.Counter("slave/recovery_errors", "recovery_errors_total", "Checkpoints and containers that recovery could not use.")
	c.Counter("containerizer/fetcher/task_fetches_succeeded", "fetches_total", "Fetches for tasks that went well.")
	c.Counter("containerizer/fetcher/task_fetches_failed", "fetches_failed_total", "Fetches for tasks that failed.")
	c.Counter("containerizer/docker/image_pull_ms/count", "image_pulls_total", "Images that the Docker engine pulled.")
	c.Gauge("containerizer/fetcher/cache_size_total_bytes", "fetcher_cache_bytes", "What the cache of the fetcher may hold.")
	c.Gauge("containerizer/fetcher/cache_size_used_bytes", "fetcher_cache_used_bytes", "What the cache of the fetcher holds.")
	c.Gauge("slave/containers_launched_over_api", "api_containers", "Containers launched over the API, ended ones that are kept included.")
	c.Gauges("slave/executors_", "executors", "Executors by what they do.", "phase", "registering", "running", "terminating", "terminated")
	c.Counter("slave/calls", "calls_total", "Calls of leaders.")
	c.Counter("slave/calls_stale", "calls_stale_total", "Calls refused for their epoch.")
	c.Counter("slave/reports", "reports_total", "Reports that a leader took.")
	c.Counter("slave/reports_failed", "reports_failed_total", "Reports that no leader took.")
	c.Counter("gc/path_removals_succeeded", "sandboxes_removed_total", "Sandboxes removed.")
	c.Gauges("slave/tasks_", "tasks", "Tasks by state.", "state", "staging", "starting", "running", "killing")
	c.Counters("slave/tasks_", "tasks_ended_total", "Tasks that ended, by last state.", "state",
		"finished", "failed", "killed", "lost", "error", "dropped", "gone")
	for _, r := range []struct{ name, unit string }{{"cpus", "cpus"}, {"gpus", "gpus"}, {"mem", "mem_mebibytes"}, {"disk", "disk_mebibytes"}} {
		c.Gauge("slave/"+r.name+"_total", r.unit, "What the node has.")
		c.Gauge("slave/"+r.name+"_used", r.unit+"_used", "What tasks hold.")
	}
	return c
}
