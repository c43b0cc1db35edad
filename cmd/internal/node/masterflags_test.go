package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/cmd/internal/flags"
	"starling/master"
)

// readMaster reads the settings of a master as it does itself.
func readMaster(args, environ []string) (*flags.Set, *masterFlags, master.Config, error) {
	set := flags.New("starling master", "STARLING_", "MESOS_")
	var c common
	m := &masterFlags{}
	c.register(set, "master")
	m.mesh.register(set)
	m.register(set)
	m.registerAlone(set)
	if err := set.Parse(args, environ); err != nil {
		return set, m, master.Config{}, err
	}
	cfg, err := m.config(set)
	return set, m, cfg, err
}

// Every flag of mesos-master is known: it sets something here, or says what does.
func TestMasterTakesEveryFlagOfMesos(t *testing.T) {
	args := strings.Fields(`--ip=127.0.0.1 --port=5050 --advertise_ip=10.0.0.1 --advertise_port=5051 --hostname=m1
		--hostname_lookup=true --ip_discovery_command=/bin/ip --zk_session_timeout=2secs --quorum=2
		--work_dir=/var/lib/mesos --cluster=c --registry=in_memory --log_dir=/var/log/mesos --external_log_file=/x --logging_level=INFO
		--quiet=true --logbufsecs=1 --roles=a,b --weights=a=2 --whitelist=/x --allocation_interval=1secs --offer_timeout=5mins
		--min_allocatable_resources=cpus:0.1|mem:10 --root_submissions=false --filter_gpu_resources=false --agent_ping_timeout=10secs
		--max_agent_ping_timeouts=3 --agent_reregister_timeout=15mins --agent_removal_rate_limit=1/10mins
		--recovery_agent_removal_limit=50% --webui_dir=/x --authenticate_frameworks=true --authenticate_agents=true
		--authenticate_http_frameworks=true --http_framework_authenticators=basic --authenticate_http_readonly=true
		--authenticate_http_readwrite=true --http_authenticators=x --authenticators=x --credentials=/x --acls=/x --authorizers=x
		--rate_limits=/x --firewall_rules=/x --max_completed_frameworks=5 --max_completed_tasks_per_framework=6
		--max_unreachable_tasks_per_framework=7 --max_operator_event_stream_subscribers=8 --publish_per_framework_metrics=false
		--registry_gc_interval=1mins --registry_max_agent_age=1weeks --registry_max_agent_count=9 --registry_fetch_timeout=1mins
		--registry_store_timeout=20secs --log_auto_initialize=false --role_sorter=random --framework_sorter=random --allocator=x
		--fair_sharing_excluded_resource_names=gpus --require_agent_domain=true --modules=x --modules_dir=x --hooks=x
		--master_contender=x --master_detector=x --offer_constraints_re2_max_mem=8KB --offer_constraints_re2_max_program_size=50
		--authentication_v0_timeout=15secs --max_executors_per_agent=5 --memory_profiling=true`)
	args = append(args, `--domain={"fault_domain":{"region":{"name":"r1"},"zone":{"name":"z1"}}}`)
	set, m, c, err := readMaster(args, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Region != "r1" || c.Zone != "z1" || c.OfferTimeout != 5*time.Minute || c.RootSubmissions || c.FilterGPUResources ||
		!c.HideFrameworkMetrics || c.MaxCompletedFrameworks != 5 || c.MaxCompletedTasks != 6 || c.MaxUnreachableTasks != 7 || c.MaxOperatorStreams != 8 ||
		c.UnreachableAfter != 30*time.Second || c.LeaveTimeout != 30*time.Second || c.ReregisterTimeout != 15*time.Minute ||
		c.Weights["a"] != 2 || len(c.Roles) != 2 || len(c.MinAllocatable) != 2 ||
		!slices.Equal(c.ExcludedResources, []string{"gpus"}) || m.advertisePort != 5051 || m.zkSession.Std() != 2*time.Second {
		t.Errorf("flags did not become settings: %+v", c)
	}
	for _, name := range []string{"quorum", "registry", "log_dir", "quiet", "allocation_interval", "authenticate_http_readwrite", "max_executors_per_agent"} {
		if !strings.Contains(strings.Join(set.Warnings, "\n"), "--"+name+" is accepted and changes nothing here") {
			t.Errorf("no warning of --%s in %q", name, set.Warnings)
		}
	}
	for _, w := range set.Warnings {
		if strings.Contains(w, "offer_timeout") || strings.Contains(w, "ping") {
			t.Errorf("a flag that counts is warned of: %s", w)
		}
	}
}

func TestMasterDefaults(t *testing.T) {
	set, _, c, err := readMaster(strings.Fields(`--registry=replicated_log --role_sorter=drf --authenticate_frameworks=false
		--recovery_agent_removal_limit=100% --no-authenticate_agents`), []string{"MESOS_LOG_AUTO_INITIALIZE=true"})
	if err != nil || len(set.Warnings) != 0 {
		t.Errorf("usual values: %v, warnings %q; want none", err, set.Warnings)
	}
	d := master.DefaultConfig()
	if c.UnreachableAfter != d.UnreachableAfter || c.LeaveTimeout != d.LeaveTimeout || c.ReregisterTimeout != d.ReregisterTimeout ||
		c.HideFrameworkMetrics || !c.RootSubmissions || len(c.MinAllocatable) != 2 {
		t.Errorf("without flags: %+v", c)
	}
	_, _, c, err = readMaster(strings.Fields("--slave_ping_timeout=20secs --slave_reregister_timeout=11mins --min_allocatable_resources="), nil)
	if err != nil || c.UnreachableAfter != 100*time.Second || c.ReregisterTimeout != 11*time.Minute || c.MinAllocatable == nil || len(c.MinAllocatable) != 0 {
		t.Errorf("old spellings: %v, %+v", err, c)
	}
}

func TestMasterRefusesWrongValues(t *testing.T) {
	for _, tc := range []struct{ arg, want string }{
		{"--weights=a=0", "--weights: "},
		{"--weights=a", "--weights: "},
		{"--weights=a//b=2", "--weights: "},
		{"--roles=a,..", "--roles: "},
		{"--min_allocatable_resources=cpus", "--min-allocatable-resources: "},
		{"--agent_ping_timeout=500ms", "--agent-ping-timeout: 500ms is less than 1s"},
		{"--agent_ping_timeout=1hrs", "is more than 15m0s"},
		{"--max_agent_ping_timeouts=0", "--max-agent-ping-timeouts: 0"},
		{"--slave_reregister_timeout=9mins", "--agent-reregister-timeout: 9m0s is less than 10m0s"},
		{"--offer_timeout=-1secs", "--offer-timeout: "},
		{"--max_completed_frameworks=-1", "--max-completed-frameworks: -1"},
		{"--zk_session_timeout=10ms", "--zk-session-timeout: 10ms is less than 1s"},
		{"--quorum=none", "--quorum: bad value"},
		{"--quorum=0", "--quorum: bad value"},
		{"--registry=etcd", "--registry: bad value"},
		{"--registry_gc_interval=x", "bad value"},
		{"--role_sorter=fair", "neither drf nor random"},
		{"--agent_removal_rate_limit=fast", "as in 1/10mins"},
		{"--recovery_slave_removal_limit=200%", "not a percentage"},
		{"--authenticate_agents=perhaps", "neither true nor false"},
		{"--zk=h1:2181", "--zk: bad value: a ZooKeeper URL begins with zk://"},
		{"--zk=zk://h1:2181", "--zk: bad value: the ZooKeeper URL has no path"},
		{"--zk=file:///does/not/exist", "--zk: cannot read the value"},
		{"--domain={}", "a region and a zone"},
		{"--domain=eu", "--domain: bad value"},
		{"--advertise_port=x", "not a port"},
		{"--max_completed_framework=1", "did you mean --max-completed-frameworks?"},
	} {
		if _, _, _, err := readMaster([]string{tc.arg}, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", tc.arg, err, tc.want)
		}
	}
}

// The password of a URL is shown nowhere: not among the settings that pages and logs show, not in errors.
func TestPasswordOfZooKeeperIsNotShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "zk")
	if err := os.WriteFile(file, []byte("zk://mesos:hunter2@h1:2181,h2/mesos\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"--zk=zk://mesos:hunter2@h1:2181,h2:2181/mesos", "--zk=file://" + file} {
		set, m, _, err := readMaster([]string{arg}, nil)
		if err != nil || !m.zk.given() || m.zk.URL.User != "mesos" {
			t.Fatalf("%s: %v, %v", arg, m.zk.URL, err)
		}
		shown := shownFlags(set)
		if want := "zk://h1:2181,h2:2181/mesos"; shown["zk"] != want {
			t.Errorf("%s: /flags shows %q, want %q", arg, shown["zk"], want)
		}
		if all := fmt.Sprint(shown, set.Effective(), set.Warnings, m.zk, &m.zk); strings.Contains(all, "hunter2") {
			t.Errorf("%s: the password is in %s", arg, all)
		}
	}
	for _, arg := range []string{"--zk=zk://mesos:hunter2@h1:port/mesos", "--zk=zk://mesos:hunter2@h1", "--zk=zk//mesos:hunter2@h1/x", "--zk=zk://mesos:hunter2@/x"} {
		if _, _, _, err := readMaster([]string{arg}, []string{"MESOS_ZK=" + arg[5:]}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want an error without the password", arg, err)
		}
	}
}

func TestMastersOfMarathon(t *testing.T) {
	for in, want := range map[string]string{
		"h1": "h1:5050", "http://h1:5051,http://h2": "h1:5051,h2:5050", "h1:1, h2:2": "h1:1,h2:2", "zk://u:hunter2@h1,h2:2182/mesos": "zk://***@h1:2181,h2:2182/mesos",
	} {
		var m mastersFlag
		if err := m.Set(in); err != nil || m.String() != want || m.zk.given() != strings.HasPrefix(in, "zk:") {
			t.Errorf("%q gives %q, %v; want %q", in, m.String(), err, want)
		}
	}
	for _, in := range []string{"", ",", "https://h1", "zk://h1", "zk:/h1/mesos"} {
		var m mastersFlag
		if err := m.Set(in); err == nil {
			t.Errorf("%q is taken as %q", in, m.String())
		}
	}
}
