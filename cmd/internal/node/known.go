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
	ignoredByAgent = []string{
		"zk_session_timeout", "advertise_port", "runtime_dir", "default_role", "isolation", "launcher", "launcher_dir", "image_providers",
		"image_provisioner_backend", "docker", "docker_socket", "docker_remove_delay", "docker_kill_orphans",
		"docker_stop_timeout", "docker_mesos_image", "docker_config", "docker_registry", "docker_store_dir",
		"default_container_info", "default_container_dns", "sandbox_directory", "frameworks_home", "hadoop_home",
		"fetcher_cache_dir", "fetcher_cache_size", "fetcher_stall_timeout", "executor_registration_timeout",
		"executor_reregistration_timeout", "http_command_executor", "recover", "recovery_timeout", "strict",
		"reconfiguration_policy", "registration_backoff_factor", "disk_watch_interval", "max_completed_executors_per_framework",
		"container_disk_watch_interval", "enforce_container_disk_quota", "enforce_container_ports", "cgroups_enable_cfs",
		"cgroups_limit_swap", "cgroups_hierarchy", "cgroups_root", "cgroups_destroy_timeout", "network_cni_config_dir",
		"network_cni_plugins_dir", "nvidia_gpu_devices", "authenticatee", "credential", "http_credentials", "jwt_secret_key",
		"authenticate_http_executors", "http_heartbeat_interval", "http_executor_domain_sockets", "container_logger",
		"resource_estimator", "qos_controller", "oversubscribed_resources_interval", "seccomp_config_dir",
		"seccomp_profile_name", "systemd_enable_support", "agent_subsystems", "slave_subsystems",
	}
	ignoredByMarathon = []string{
		"ha", "zk_timeout", "zk_session_timeout", "zk_connection_timeout", "zk_max_versions", "zk_compression",
		"zk_compression_threshold", "zk_max_node_size", "zk_hosts", "zk_state", "store_cache", "internal_store_backend",
		"group_versions_cache_size", "backup_location", "leader_election_backend", "executor", "webui_url", "mesos_leader_ui_url",
		"mesos_authentication", "mesos_authentication_principal", "mesos_authentication_secret",
		"mesos_authentication_secret_file", "enable_features", "deprecated_features", "default_accepted_resource_roles",
		"accepted_resource_roles_default_behavior", "new_group_enforce_role", "reconciliation_initial_delay", "env_vars_prefix", "default_network_name", "mesos_bridge_name",
		"task_launch_confirm_timeout", "task_launch_timeout", "task_reservation_timeout", "launch_tokens",
		"launch_token_refresh_interval", "offer_matching_timeout", "mesos_offer_constraints",
		"min_mesos_offer_constraints_update_interval", "maintenance_mode", "draining_seconds", "gpu_scheduling_behavior",
		"max_apps", "kill_chunk_size", "on_elected_prepare_timeout", "graceful_shutdown_timeout", "mesos_heartbeat_interval",
		"mesos_heartbeat_failure_threshold", "https_address", "https_port", "http", "ssl_keystore_path", "ssl_keystore_password",
		"http_credentials", "http_realm", "http_compression", "http_max_concurrent_requests", "access_control_allow_origin",
		"assets_path", "leader_proxy_connection_timeout", "leader_proxy_read_timeout", "leader_proxy_max_open_connections",
		"leader_proxy_ssl_ignore_hostname", "event_stream_max_outstanding_messages", "event_subscriber", "http_endpoints",
		"http_event_callback_slow_consumer_timeout", "http_event_request_timeout", "artifact_store", "plugin_dir", "plugin_conf",
		"metrics_name_prefix", "metrics_prometheus", "metrics_statsd", "metrics_statsd_host", "metrics_statsd_port",
		"metrics_statsd_transmission_interval_ms", "metrics_datadog", "metrics_datadog_protocol", "metrics_datadog_host",
		"metrics_datadog_port", "metrics_datadog_api_key", "metrics_datadog_transmission_interval_ms", "logstash", "sentry",
		"sentry_tags", "metrics", "tracing", "reporter_graphite", "reporter_datadog", "save_tasks_to_launch_timeout",
		"max_tasks_per_offer_cycle", "revive_offers_for_new_apps", "revive_offers_repetitions", "task_lost_expunge_gc",
		"marathon_store_timeout", "enable_metrics", "enable_tracing", "task_rate_limit", "checkpoint", "suppress_offers",
		"task_lost_expunge_initial_delay", "task_lost_expunge_interval", "scale_apps_initial_delay", "scale_apps_interval",
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
	{Name: "external_log_file", Advice: onStderr},
	{Name: "master", Advice: inTheMesh},
	{Name: "zk", Advice: inTheMesh}, // /etc/mesos/zk is read by agents too
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
