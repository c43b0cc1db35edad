package node

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"starling/cmd/internal/flags"
)

// The flags of the programs that a role stands in for which are accepted and change nothing, so that service files that
// exist keep working (semantics page of the Mesos specification, section 16; Marathon's operation page, section 2). A
// name moves out of these lists when it begins to mean something here.
var (
	ignoredByMarathon = []string{
		"ha", "zk_connection_timeout", "zk_compression", "zk_compression_threshold", "zk_max_node_size",
		"zk_hosts", "zk_state", "store_cache", "internal_store_backend", "group_versions_cache_size",
		"leader_election_backend", "executor", "mesos_authentication", "mesos_authentication_secret",
		"mesos_authentication_secret_file", "reconciliation_initial_delay",
		"offer_matching_timeout", "mesos_offer_constraints", "min_mesos_offer_constraints_update_interval",
		"graceful_shutdown_timeout", "mesos_heartbeat_interval",
		"mesos_heartbeat_failure_threshold", "assets_path",
		"artifact_store", "plugin_dir", "plugin_conf", "logstash", "sentry", "sentry_tags", "metrics", "tracing",
		"reporter_datadog", "save_tasks_to_launch_timeout", "max_tasks_per_offer_cycle", "revive_offers_for_new_apps",
		"revive_offers_repetitions", "task_lost_expunge_gc", "marathon_store_timeout", "enable_metrics", "enable_tracing",
		"task_rate_limit", "task_lost_expunge_interval",
		"storage_gc_actor", "storage_gc_enabled", "storage_gc_interval", "storage_gc_scan_batch_size", "storage_gc_starting_threshold",
		"metrics_histogram_reservoir_significant_digits", "metrics_histogram_reservoir_highest_trackable_value",
		"metrics_histogram_reservoir_reset_periodically", "metrics_histogram_reservoir_resetting_interval_ms",
		"metrics_histogram_reservoir_resetting_chunks",
	}
)

// The advice that several flags share.
const (
	noRegistry = "there is no registry; the few documents that are kept are in ZooKeeper with --zk, else in --work-dir"
	openPort   = "nobody is authenticated at this port yet; keep it on a network that you trust"
	mostAway   = "while more than half of the agents are away, none is given up"
	plainMatch = "offer constraints are matched in time and space that grow with their length alone"
	onStderr   = "the log goes to standard error"
	inTheMesh  = "an agent finds the masters in the mesh, see --join"
	noModules  = "there are no modules"
	drfAlone   = "dominant resource fairness is what there is"

	builtIn        = "the command executor is a part of the agent"
	provesItself   = "with --cluster-key-file agents and masters prove to each other that they have the key"
	builtInSeccomp = "linux/seccomp in --isolation has a profile built in"
)

// unusedByBoth are the flags that mesos-master and mesos-agent share and that change nothing here, with what to do instead.
var unusedByBoth = []flags.Unused{
	{Name: "log_dir", Advice: onStderr},
	{Name: "logbufsecs", Check: bareSeconds, Usual: "0", Advice: onStderr + " at once"},
	{Name: "quiet", Switch: true, Usual: "false", Advice: "--log-level=error says little"},
	{Name: "initialize_driver_logging", Switch: true, Usual: "true"},
	{Name: "ip_discovery_command", Advice: "the first private address is found; --ip or --advertise-ip name another"},
	{Name: "modules", Advice: noModules},
	{Name: "modules_dir", Advice: noModules},
	{Name: "hooks", Advice: noModules},
	{Name: "memory_profiling", Switch: true, Usual: "false"},
	{Name: "acls", Advice: openPort},
	{Name: "authorizers", Usual: "local", Advice: openPort},
	{Name: "authenticators", Usual: "crammd5", Advice: openPort},
	{Name: "http_authenticators", Usual: "basic", Advice: openPort},
	{Name: "authenticate_http_readonly", Switch: true, Usual: "false", Advice: openPort},
	{Name: "authenticate_http_readwrite", Switch: true, Usual: "false", Advice: openPort},
	{Name: "authentication_v0_timeout", Check: duration},
	{Name: "credentials", Advice: openPort},
	{Name: "firewall_rules", Advice: "every endpoint is served"},
}

// unusedByAgent are flags of mesos-agent that change nothing here, with what to do instead.
var unusedByAgent = []flags.Unused{
	{Name: "master", Advice: inTheMesh},
	{Name: "zk", Advice: inTheMesh}, // /etc/mesos/zk is read by agents too
	{Name: "zk_session_timeout", Check: duration, Usual: "10secs", Advice: inTheMesh},
	{Name: "advertise_port", Check: port, Advice: "what is told is --port"},
	{Name: "runtime_dir", Usual: "/var/run/mesos", Advice: "what runs is known from --work-dir"},
	{Name: "launcher", Check: oneOf("linux", "posix"), Advice: "cgroups are used wherever they can be had"},
	{Name: "launcher_dir", Advice: "everything is in this one program"},
	{Name: "docker", Usual: "docker", Advice: "the engine's API is spoken to, see --docker-socket"},
	{Name: "docker_mesos_image", Advice: "executors need no container: they are a part of the agent, which tasks outlive"},
	{Name: "http_command_executor", Switch: true, Usual: "false", Advice: builtIn},
	{Name: "recover", Check: oneOf("reconnect", "cleanup"), Usual: "reconnect", Advice: "tasks go on; to end them all, drain the node or mark it gone"},
	{Name: "strict", Switch: true, Usual: "true", Advice: "a file that does not read costs what it describes and is told, whatever is said here"},
	{Name: "registration_backoff_factor", Check: duration, Usual: "1secs", Advice: inTheMesh},
	{Name: "enforce_container_ports", Switch: true, Usual: "false", Advice: "a network of their own keeps tasks off ports that they were not given, see --network-name"},
	{Name: "cgroups_hierarchy", Usual: "/sys/fs/cgroup", Advice: "hierarchies are used where they are mounted"},
	{Name: "cgroups_destroy_timeout", Check: duration, Usual: "1mins", Advice: "it is tried until it works"},
	{Name: "cgroups_net_cls_primary_handle", Advice: "traffic is not classified"},
	{Name: "cgroups_net_cls_secondary_handles", Advice: "traffic is not classified"},
	{Name: "cgroups_cpu_enable_pids_and_tids_count", Switch: true, Usual: "false", Advice: "processes are counted always"},
	{Name: "allowed_devices", Advice: "a task gets the devices of every container, and the GPUs of its resources"},
	{Name: "allowed_capabilities", Advice: "see --forbid-privileged"},
	{Name: "effective_capabilities", Advice: "a task says by linux_info what it needs"},
	{Name: "bounding_capabilities", Advice: "a task says by linux_info what it needs"},
	{Name: "authenticatee", Usual: "crammd5", Advice: provesItself},
	{Name: "authentication_backoff_factor", Check: duration, Usual: "1secs", Advice: provesItself},
	{Name: "authentication_timeout_min", Check: duration, Advice: provesItself},
	{Name: "authentication_timeout_max", Check: duration, Advice: provesItself},
	{Name: "credential", Advice: provesItself},
	{Name: "http_credentials", Advice: openPort},
	{Name: "jwt_secret_key", Advice: openPort},
	{Name: "authenticate_http_executors", Switch: true, Usual: "false", Advice: openPort},
	{Name: "executor_secret_key", Advice: openPort},
	{Name: "http_heartbeat_interval", Check: duration, Usual: "30secs", Advice: "heartbeats come as often as Mesos' own"},
	{Name: "http_executor_domain_sockets", Switch: true, Usual: "false", Advice: "executors use the agent's port"},
	{Name: "domain_socket_location", Advice: "executors use the agent's port"},
	{Name: "container_logger", Advice: "outputs are files in the sandbox, put aside by --container-log-size and --container-log-files"},
	{Name: "resource_estimator", Advice: "nothing is oversubscribed"},
	{Name: "qos_controller", Advice: "nothing is oversubscribed"},
	{Name: "qos_correction_interval_min", Check: duration, Usual: "0ns", Advice: "nothing is oversubscribed"},
	{Name: "oversubscribed_resources_interval", Check: duration, Usual: "15secs", Advice: "nothing is oversubscribed"},
	{Name: "resource_provider_config_dir", Advice: "there are no resource providers, see --resources"},
	{Name: "disallow_sharing_agent_pid_namespace", Switch: true, Usual: "false", Advice: "use --forbid-privileged, and name namespaces/pid in --isolation"},
	{Name: "disallow_sharing_agent_ipc_namespace", Switch: true, Usual: "false", Advice: "use --forbid-privileged, and name namespaces/ipc in --isolation"},
	{Name: "default_shm_size", Advice: "a task says by linux_info what it needs"},
	{Name: "seccomp_config_dir", Advice: builtInSeccomp},
	{Name: "seccomp_profile_name", Advice: builtInSeccomp},
	{Name: "systemd_enable_support", Switch: true, Usual: "true", Advice: "the unit says Delegate=yes and KillMode=process"},
	{Name: "systemd_runtime_directory", Advice: "the unit says Delegate=yes and KillMode=process"},
	{Name: "agent_subsystems", Advice: "put the agent into a cgroup by its unit"},
	{Name: "slave_subsystems", Advice: "put the agent into a cgroup by its unit"},
	{Name: "perf_duration", Check: duration, Advice: "perf events are not sampled"},
	{Name: "perf_events", Advice: "perf events are not sampled"},
	{Name: "perf_interval", Check: duration, Advice: "perf events are not sampled"},
	{Name: "gc_non_executor_container_sandboxes", Switch: true, Usual: "false", Advice: "--gc-delay holds for all sandboxes"},
	{Name: "volume_gid_range", Advice: "a volume is its task's user's"},
	{Name: "xfs_project_range", Advice: "sandboxes are measured, see --enforce-container-disk-quota"},
	{Name: "xfs_kill_containers", Switch: true, Usual: "false", Advice: "see --enforce-container-disk-quota"},
	{Name: "docker_volume_checkpoint_dir", Advice: "what is mounted is known from --work-dir"},
	{Name: "docker_ignore_runtime", Switch: true, Usual: "false", Advice: "--containerizers without docker does without the engine"},
	{Name: "docker_volume_chown", Switch: true, Usual: "false", Advice: "volumes of plugins stay as they are"},
	{Name: "image_gc_config", Advice: "see --docker-store-gc-age"},
	{Name: "appc_simple_discovery_uri_prefix", Advice: "images are those of Docker"},
	{Name: "appc_store_dir", Advice: "images are those of Docker"},
}

// unusedByDNS are flags of mesos-dns that change nothing here: those of its logging.
var unusedByDNS = []flags.Unused{
	{Name: "logtostderr", Switch: true, Usual: "true", Advice: onStderr},
	{Name: "alsologtostderr", Switch: true, Advice: onStderr},
	{Name: "stderrthreshold", Advice: "see --log-level"},
	{Name: "log_dir", Advice: onStderr},
	{Name: "log_backtrace_at", Advice: "see --log-level"},
	{Name: "vmodule", Advice: "see --log-level"},
}

// unusedByMaster are the flags of mesos-master that change nothing here, with what to do instead.
var unusedByMaster = []flags.Unused{
	{Name: "quorum", Check: count, Advice: "documents are kept in ZooKeeper, whose own quorum counts"},
	{Name: "registry", Check: oneOf("replicated_log", "in_memory"), Usual: "replicated_log", Advice: noRegistry},
	{Name: "registry_gc_interval", Check: duration, Advice: noRegistry},
	{Name: "registry_max_agent_age", Check: duration, Advice: noRegistry},
	{Name: "registry_max_agent_count", Check: count, Advice: noRegistry},
	{Name: "registry_fetch_timeout", Check: duration, Advice: "documents are read again and again until that succeeds"},
	{Name: "registry_store_timeout", Check: duration, Advice: "documents are written again and again until that succeeds"},
	{Name: "log_auto_initialize", Switch: true, Usual: "true", Advice: noRegistry},
	{Name: "allocation_interval", Check: duration, Advice: "offers are made as soon as something has changed, a few milliseconds apart"},
	{Name: "allocator", Check: notEmpty, Usual: "HierarchicalDRF", Advice: drfAlone},
	{Name: "role_sorter", Check: oneOf("drf", "random"), Usual: "drf", Advice: drfAlone},
	{Name: "framework_sorter", Check: oneOf("drf", "random"), Usual: "drf", Advice: drfAlone},
	{Name: "agent_removal_rate_limit", Check: rate, Advice: mostAway},
	{Name: "recovery_agent_removal_limit", Check: percentage, Usual: "100%", Advice: mostAway},
	{Name: "require_agent_domain", Switch: true, Usual: "false", Advice: "an agent says by --region and --zone where it stands, or not at all"},
	{Name: "whitelist", Advice: "every agent of the mesh is offered; --cluster-key-file and --mesh-allow keep others out"},
	{Name: "max_executors_per_agent", Check: count, Advice: "resources alone bound what runs on an agent"},
	{Name: "webui_dir", Advice: "there is no user interface yet, and it will be part of the program"},
	{Name: "rate_limits", Advice: "what waits for a framework is bounded, how often it calls is not"},
	{Name: "authenticate", Switch: true, Usual: "false", Advice: openPort},
	{Name: "authenticate_frameworks", Switch: true, Usual: "false", Advice: openPort},
	{Name: "authenticate_agents", Switch: true, Usual: "false", Advice: "with --cluster-key-file agents and masters prove to each other that they have the key"},
	{Name: "authenticate_http_frameworks", Switch: true, Usual: "false", Advice: openPort},
	{Name: "http_framework_authenticators", Advice: openPort},
	{Name: "master_contender", Advice: "masters are elected in ZooKeeper, see --zk"},
	{Name: "master_detector", Advice: "masters are found in ZooKeeper, see --zk"},
	{Name: "offer_constraints_re2_max_mem", Advice: plainMatch},
	{Name: "offer_constraints_re2_max_program_size", Check: count, Advice: plainMatch},
}

// oldNamesOfMaster are the spellings from before "agent" was the word.
var oldNamesOfMaster = map[string]string{
	"agent_ping_timeout": "slave_ping_timeout", "max_agent_ping_timeouts": "max_slave_ping_timeouts",
	"agent_reregister_timeout": "slave_reregister_timeout", "agent_removal_rate_limit": "slave_removal_rate_limit",
	"recovery_agent_removal_limit": "recovery_slave_removal_limit", "authenticate_agents": "authenticate_slaves",
	"max_executors_per_agent": "max_executors_per_slave",
}

func duration(s string) error {
	d, err := flags.ParseDuration(s)
	if err == nil && d < 0 {
		err = errors.New("a duration is not negative")
	}
	return err
}

// bareSeconds is a number of seconds, as some flags of a logging library are.
func bareSeconds(s string) error {
	if _, err := strconv.ParseUint(s, 10, 32); err != nil {
		return errors.New("not a number of seconds")
	}
	return nil
}

func port(s string) error {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
		return errors.New("not a port")
	}
	return nil
}

func count(s string) error {
	if n, err := strconv.ParseInt(s, 10, 64); err != nil || n < 1 {
		return errors.New("not a number of 1 or more")
	}
	return nil
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("a value is needed")
	}
	return nil
}

func oneOf(values ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(values, s) {
			return fmt.Errorf("neither %s", strings.Join(values, " nor "))
		}
		return nil
	}
}

// rate is a number of things in a time, as in 1/10mins.
func rate(s string) error {
	n, per, ok := strings.Cut(s, "/")
	if !ok || count(n) != nil || duration(per) != nil {
		return errors.New("not a number per time, as in 1/10mins")
	}
	return nil
}

func percentage(s string) error {
	number, ok := strings.CutSuffix(s, "%")
	if n, err := strconv.ParseFloat(number, 64); !ok || err != nil || !(n >= 0 && n <= 100) {
		return errors.New("not a percentage from 0% to 100%")
	}
	return nil
}
