package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/cmd/internal/flags"
	"starling/master/mesos"
)

// readAgent reads the settings of an agent as it does itself.
func readAgent(args, environ []string) (*flags.Set, *agentFlags, error) {
	set, _, a := agentSettings()
	if err := set.Parse(args, environ); err != nil {
		return set, a, err
	}
	return set, a, a.containers.check()
}

// Every flag of mesos-agent is known: it sets something here, or says what does.
func TestAgentTakesEveryFlagOfMesos(t *testing.T) {
	honoured := strings.Fields(`--ip=127.0.0.1 --port=5051 --hostname=a1 --advertise_ip=10.0.0.1 --work_dir=/var/lib/mesos
		--resources=cpus:4 --attributes=rack:1 --default_role=web --containerizers=docker,mesos
		--isolation=cgroups/cpu,cgroups/mem,filesystem/linux,docker/runtime,namespaces/pid,network/cni,volume/sandbox_path,disk/du
		--image_providers=docker --image_provisioner_backend=overlay --docker_socket=/run/docker.sock --docker_remove_delay=1hrs
		--docker_kill_orphans=false --docker_stop_timeout=1secs --docker_registry=https://r.example --docker_store_dir=/store
		--default_container_dns=/dns --sandbox_directory=/mnt/box --switch_user=false --frameworks_home=/fh --hadoop_home=/hh
		--fetcher_cache_dir=/cache --fetcher_cache_size=3GB --fetcher_stall_timeout=30secs --executor_registration_timeout=5mins
		--executor_reregistration_timeout=10secs --executor_shutdown_grace_period=7secs --recovery_timeout=20mins
		--gc_delay=1days --gc_disk_headroom=0.2 --disk_watch_interval=2mins --max_completed_executors_per_framework=9
		--container_disk_watch_interval=5secs --enforce_container_disk_quota=true --cgroups_enable_cfs=true --cgroups_limit_swap=true
		--cgroups_root=mesos --network_cni_config_dir=/cni --network_cni_plugins_dir=/p1:/p2 --nvidia_gpu_devices=0,2
		--hostname_lookup=true --logging_level=INFO`)
	honoured = append(honoured, `--docker_config={"auths":{}}`, `--executor_environment_variables={"SITE":"roof"}`,
		`--default_container_info={"type":"MESOS"}`, `--domain={"fault_domain":{"region":{"name":"r1"},"zone":{"name":"z1"}}}`)
	unused := strings.Fields(`--master=zk://z/mesos --zk_session_timeout=11secs --ip_discovery_command=/bin/ip --runtime_dir=/x
		--launcher=linux --launcher_dir=/x --docker=/usr/bin/docker --docker_mesos_image=x --http_command_executor=true --recover=cleanup
		--strict=false --registration_backoff_factor=2secs --enforce_container_ports=true --cgroups_hierarchy=/x
		--cgroups_destroy_timeout=2mins --authenticatee=x --credential=/x --http_credentials=/x --acls=/x --jwt_secret_key=/x
		--authenticate_http_readonly=true --authenticate_http_readwrite=true --authenticate_http_executors=true
		--http_heartbeat_interval=10secs --http_executor_domain_sockets=true --container_logger=x --resource_estimator=x
		--qos_controller=x --oversubscribed_resources_interval=20secs --seccomp_config_dir=/x --seccomp_profile_name=x
		--systemd_enable_support=false --log_dir=/x --quiet=true --advertise_port=5052 --agent_subsystems=cpu --slave_subsystems=cpu`)
	set, a, err := readAgent(slices.Concat(honoured, unused), nil)
	if err != nil {
		t.Fatal(err)
	}
	warned := strings.Join(set.Warnings, "\n")
	for _, arg := range unused {
		name, _, _ := strings.Cut(arg, "=")
		if !strings.Contains(warned, name+" is accepted and changes nothing here: ") {
			t.Errorf("no warning of %s that says what to do in %q", name, set.Warnings)
		}
	}
	if len(set.Warnings) != len(unused) {
		t.Errorf("%d warnings, want %d: %q", len(set.Warnings), len(unused), set.Warnings)
	}
	c := a.containers
	if a.region != "r1" || a.zone != "z1" || a.defaultRole != "web" || !slices.Equal(c.containerizers, []string{"docker", "mesos"}) ||
		!c.isolates("namespaces/pid") || c.sandboxDirectory != "/mnt/box" || c.environment["SITE"] != "roof" ||
		c.defaultContainer.info.GetType() != mesos.ContainerInfo_MESOS || !c.cfs || !c.limitSwap || c.cgroupsRoot != "mesos" ||
		c.docker.socket != "/run/docker.sock" || c.docker.killOrphans || c.docker.removeDelay.Std() != time.Hour || c.docker.stopTimeout.Std() != time.Second ||
		c.images.config == "" || c.images.registry != "https://r.example" || c.images.storeDir != "/store" || c.images.backend != "overlay" ||
		c.fetcher.cacheSize != 3<<30 || c.fetcher.stall.Std() != 30*time.Second || c.fetcher.cacheDir != "/cache" ||
		c.registration.Std() != 5*time.Minute || c.reregister.Std() != 10*time.Second || c.recovery.Std() != 20*time.Minute ||
		!c.diskQuota || c.diskQuotaInterval.Std() != 5*time.Second || c.gcEvery.Std() != 2*time.Minute || c.keepExecutors != 9 ||
		c.networks.cniConfig != "/cni" || c.networks.cniPlugins != "/p1:/p2" || c.networks.dns != "/dns" {
		t.Errorf("flags did not become settings: %+v", c)
	}
	if got, err := c.gpuDevices(); err != nil || !slices.Equal(got, []int{0, 2}) {
		t.Errorf("GPUs: %v, %v", got, err)
	}
	for name, value := range shownFlags(set) {
		if strings.Contains(value, "auths") {
			t.Errorf("credentials are shown as %s", name)
		}
	}
}

func TestAgentDefaults(t *testing.T) {
	set, a, err := readAgent(strings.Fields(`--recover=reconnect --strict=true --launcher=linux --authenticatee=crammd5 --no-http_command_executor`),
		[]string{"MESOS_SYSTEMD_ENABLE_SUPPORT=true"})
	if err != nil || len(set.Warnings) != 1 { // the launcher has no usual value: it depends on the machine
		t.Errorf("usual values: %v, warnings %q; want one", err, set.Warnings)
	}
	c := a.containers
	if !slices.Equal(c.containerizers, []string{"mesos"}) || !slices.Equal(c.isolation, []string{"posix/cpu", "posix/mem"}) ||
		c.sandboxDirectory != "/mnt/mesos/sandbox" || c.docker.removeDelay.Std() != 6*time.Hour || !c.docker.killOrphans ||
		c.fetcher.cacheSize != 2<<30 || c.registration.Std() != time.Minute || c.reregister.Std() != 2*time.Second ||
		c.recovery.Std() != 15*time.Minute || c.diskQuota || c.cfs || c.keepExecutors != 150 {
		t.Errorf("got %+v", c)
	}
}

func TestAgentRefusesSettingsThatCannotBe(t *testing.T) {
	for args, want := range map[string]string{
		"--containerizers=dokcer":                        `unknown containerizer "dokcer"; did you mean "docker"?`,
		"--containerizers=":                              "none is named",
		"--containerizers=mesos,mesos":                   "named twice",
		"--isolation=cgroup/cpu":                         `unknown isolator "cgroup/cpu"; did you mean "cgroups/cpu"?`,
		"--isolation=disk/xfs":                           "disk/du",
		"--isolation=xyz":                                `unknown isolator "xyz"`,
		"--sandbox_directory=box":                        `"box" is not the absolute path`,
		"--sandbox_directory=/":                          "below /",
		"--image_providers=appc":                         `unknown provider "appc"`,
		"--image_provisioner_backend=overlya":            `did you mean "overlay"?`,
		"--executor_reregistration_timeout=20secs":       "more than 15s",
		"--recovery_timeout=0secs":                       "too short",
		"--docker_remove_delay=-1secs":                   "too short",
		"--nvidia_gpu_devices=a":                         `"a" is not the number`,
		"--fetcher_cache_size=2XB":                       "not a size",
		"--executor_environment_variables={\"A\":1}":     "not a JSON object",
		"--executor_environment_variables={\"A=\":\"\"}": "cannot be a variable",
		"--default_container_info={\"type\":\"X\"}":      "type",
		"--default_container_info=/nowhere":              "no such file",
		"--allowed_host_paths=etc":                       "not an absolute path",
		"--container_log_files=0":                        "not between 1 and 1000",
		"--isolaton=x":                                   "did you mean --isolation?",
		"--launcher=magic":                               "neither linux nor posix",
	} {
		if _, _, err := readAgent([]string{args}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
	_, _, err := readAgent([]string{"--containerizers=x", "--isolation=y", "--sandbox_directory=z"}, nil)
	for _, flag := range []string{"containerizers", "isolation", "sandbox-directory"} {
		if err == nil || !strings.Contains(err.Error(), "--"+flag) {
			t.Errorf("all faults at once: got %v, want one of --%s", err, flag)
		}
	}
}

func TestValuesInFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vars")
	data, _ := json.Marshal(map[string]string{"A": "b"})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{path, "file://" + path, string(data)} {
		_, a, err := readAgent([]string{"--executor_environment_variables=" + value}, nil)
		if err != nil || a.containers.environment["A"] != "b" {
			t.Errorf("%s: got %v, %v", value, a.containers.environment, err)
		}
	}
}
