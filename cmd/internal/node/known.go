package node

// The flags of the programs that a role stands in for which are accepted and change nothing, so that service files that
// exist keep working (semantics page of the Mesos specification, section 16; Marathon's operation page, section 2). A
// name moves out of these lists when it begins to mean something here.
var (
	ignoredByBoth = []string{
		"log_dir", "external_log_file", "logbufsecs", "quiet", "zk_session_timeout", "advertise_port", "hostname_lookup",
		"ip_discovery_command", "modules", "modules_dir", "hooks", "acls", "authenticators", "http_authenticators",
		"authenticate_http_readonly", "authenticate_http_readwrite", "authentication_v0_timeout", "authorizers",
		"firewall_rules", "memory_profiling", "initialize_driver_logging", "credentials",
	}
	ignoredByMaster = []string{
		"quorum", "registry", "webui_dir", "whitelist", "allocation_interval", "agent_ping_timeout", "slave_ping_timeout",
		"max_agent_ping_timeouts", "max_slave_ping_timeouts", "agent_reregister_timeout", "slave_reregister_timeout",
		"agent_removal_rate_limit", "slave_removal_rate_limit", "recovery_agent_removal_limit", "recovery_slave_removal_limit",
		"authenticate", "authenticate_frameworks", "authenticate_agents", "authenticate_slaves", "authenticate_http_frameworks",
		"http_framework_authenticators", "rate_limits", "max_operator_event_stream_subscribers", "publish_per_framework_metrics",
		"registry_gc_interval", "registry_max_agent_age", "registry_max_agent_count", "registry_fetch_timeout",
		"registry_store_timeout", "log_auto_initialize", "role_sorter", "framework_sorter", "allocator",
		"fair_sharing_excluded_resource_names", "require_agent_domain", "master_contender", "master_detector",
		"offer_constraints_re2_max_mem", "offer_constraints_re2_max_program_size", "max_executors_per_agent",
		"max_executors_per_slave", "min_allocatable_resources",
	}
	ignoredByAgent = []string{
		"master", "runtime_dir", "default_role", "isolation", "launcher", "launcher_dir", "image_providers",
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
