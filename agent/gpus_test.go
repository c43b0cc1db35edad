package agent

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"starling/agent/containerizer"
	"starling/agent/inventory"
	"starling/master/mesos"
)

func TestGPUs(t *testing.T) {
	m := newMachine(t)
	var mu sync.Mutex
	devices := map[string][]string{}
	m.onLaunch = func(spec containerizer.Spec) error {
		mu.Lock()
		defer mu.Unlock()
		devices[envOf(spec, "MESOS_EXECUTOR_ID")] = spec.Devices
		return nil
	}
	given := func(id, want string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if got := devices[id]; !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s got %q, want %q", id, got, want)
		}
	}
	begin := func(leader *leaderSide) *world {
		return m.start(leader, func(c *Config) {
			c.Resources = testResources(t, "cpus:8;mem:8192;gpus:2")
			var err error
			c.GPUs, err = inventory.NewAllotter(filepath.Join(m.dir, "gpus"), []inventory.GPU{{Number: 0, Path: "/g0"}, {Number: 1, Path: "/g1"}}, []string{"/ctl"})
			if err != nil {
				t.Error(err)
			}
		})
	}
	w := begin(nil)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "a", "cpus:1;mem:32;gpus:1"), taskInfo(t, "none", "cpus:1;mem:32")))
	w.waitState("a", mesos.TaskState_TASK_RUNNING)
	w.waitState("none", mesos.TaskState_TASK_RUNNING)
	given("a", "/g0 /ctl")
	given("none", "")
	w.end()
	w = begin(w.leaderSide)
	defer w.end()
	w.waitState("a", mesos.TaskState_TASK_RUNNING)
	w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "b", "cpus:1;mem:32;gpus:1")))
	w.waitState("b", mesos.TaskState_TASK_RUNNING)
	given("b", "/g1 /ctl")
}
