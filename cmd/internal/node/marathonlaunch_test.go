package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/cmd/internal/flags"
	"starling/marathon"
	"starling/marathon/task"
)

// applyMarathon is what flags make of the settings.
func applyMarathon(args, environ []string) (marathon.Config, error) {
	c := marathon.DefaultConfig()
	_, m, err := readMarathon(args, environ)
	if err == nil {
		err = m.launch.apply(&c, m.role)
	}
	return c, err
}

func TestMarathonLaunchFlags(t *testing.T) {
	c, err := applyMarathon(strings.Fields(`--max_instances_per_offer 3 --launch_tokens 7 --launch_token_refresh_interval 1000
		--task_launch_confirm_timeout 2000 --task_launch_timeout 3000 --scale_apps_initial_delay 4000 --scale_apps_interval 5000
		--task_lost_expunge_initial_delay 6000 --kill_chunk_size 8 --disable_suppress_offers --disable_maintenance_mode
		--draining_seconds 9 --accepted_resource_roles_default_behavior reserved --gpu_scheduling_behavior unrestricted
		--env_vars_prefix P_ --mesos_bridge_name br --default_network_name net --new_group_enforce_role top --max_apps 10
		--enable_features vips,task_killing,secrets,external_volumes,gpu_resources,maintenance_mode
		--event_stream_max_outstanding_messages 12 --webui_url http://me --mesos_leader_ui_url http://it
		--mesos_authentication_principal who --max_queued_root_group_updates 11`), []string{"MARATHON_DISABLE_CHECKPOINT="})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Scheduler
	if s.MaxInstancesPerOffer != 3 || s.LaunchTokens != 7 || s.LaunchTokenRefresh != time.Second || s.LaunchConfirmTimeout != 2*time.Second ||
		s.LaunchTimeout != 3*time.Second || s.ScaleInitialDelay != 4*time.Second || s.ScaleInterval != 5*time.Second ||
		s.ExpungeInitialDelay != 6*time.Second || s.KillsInFlight != 8 || !s.NoSuppress || !s.NoMaintenance || s.Draining != 9*time.Second {
		t.Errorf("scheduler %+v", s)
	}
	if s.Task != (task.Settings{EnvVarsPrefix: "P_", AcceptedRoles: task.Reserved, GPUsUnrestricted: true, MesosBridgeName: "br"}) {
		t.Errorf("task %+v", s.Task)
	}
	a := c.App
	if a.MesosBridgeName != "br" || a.DefaultNetworkName != "net" || !a.NewGroupEnforceRole || a.MaxApps != 10 || !a.Secrets ||
		!a.ExternalVolumes || !a.GPUResources || !c.TaskKilling || !c.GPUs {
		t.Errorf("app %+v, task killing %t, GPUs %t", a, c.TaskKilling, c.GPUs)
	}
	if c.EventQueue != 12 || c.WebUIURL != "http://me" || c.MesosUI != "http://it" || c.Principal != "who" || c.Checkpoint || c.MaxChanges != 11 {
		t.Errorf("settings %+v", c)
	}
	// Without flags everything is as the packages have it.
	c, err = applyMarathon(nil, nil)
	d := marathon.DefaultConfig()
	if err != nil || c.Scheduler.Effective().Task.MesosBridgeName != d.App.MesosBridgeName || c.App != d.App ||
		c.EventQueue != d.EventQueue || !c.Checkpoint || c.Scheduler.NoSuppress || c.Scheduler.NoMaintenance ||
		c.Scheduler.Task.AcceptedRoles != task.AnyRole {
		t.Errorf("without flags: %v, %+v", err, c)
	}
	for old, want := range map[string]task.RoleBehavior{"*": task.Unreserved, "r": task.Reserved, "*,r": task.AnyRole} {
		c, err := applyMarathon([]string{"--mesos_role=r", "--default_accepted_resource_roles=" + old}, nil)
		if err != nil || c.Scheduler.Task.AcceptedRoles != want {
			t.Errorf("%s: %s, %v; want %s", old, c.Scheduler.Task.AcceptedRoles, err, want)
		}
	}
	for _, bad := range []string{
		"--enable_features=warp", "--launch_tokens=-1", "--gpu_scheduling_behavior=x", "--new_group_enforce_role=all",
		"--accepted_resource_roles_default_behavior=x", "--default_accepted_resource_roles=other", "--draining_seconds=-1",
		"--event_stream_max_outstanding_messages=0", "--max_apps=-1", "--max_queued_root_group_updates=0",
	} {
		var usage *UsageError
		if _, err := applyMarathon([]string{bad}, nil); !errors.As(err, &usage) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// The folder of Marathon's packages counts less than the environment, and that less than the command line.
func TestMarathonSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"max_apps": "1\n", "launch_tokens": "1\n", "kill_chunk_size": "1\n", "?disable_suppress_offers": "", "?checkpoint": "", ".hidden": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set := flags.New("starling marathon", "STARLING_", "MARATHON_")
	set.EnvIgnore = []string{"MARATHON_APP_"}
	set.ConfigDirs = []string{dir}
	m := new(marathonFlags)
	m.register(set)
	err := set.Parse([]string{"--launch-tokens=3"}, []string{
		"MARATHON_LAUNCH_TOKENS=2", "MARATHON_KILL_CHUNK_SIZE=2", "MARATHON_APP_MAX_APPS=9", "MARATHON_UNHEARD_OF=1",
	})
	l := m.launch
	if err != nil || l.maxApps != 1 || l.killChunk != 2 || l.tokens != 3 || l.suppress || !l.checkpoint {
		t.Errorf("%v, %+v", err, l)
	}
}
