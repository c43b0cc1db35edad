package hosts_test

import (
	"fmt"
	"testing"
	"time"
)

// roles is a cluster of separate processes: a master and Marathon on 127.0.0.1, agents on 127.0.0.1, .2, .3 and so on.
type roles struct {
	*cluster
	master, marathon *process
	masterHealth     string
	agents           []*process
	agentHealth      []string
}

func separate(t *testing.T, agents int) *roles {
	t.Helper()
	const first = "127.0.0.1"
	mesh := freePorts(t, first)
	seed := fmt.Sprintf("%s:%d", first, mesh)
	masterPort, marathonPort, dns := freePorts(t, first), freePorts(t, first), freePorts(t, first)
	r := &roles{cluster: &cluster{
		t: t, marathon: fmt.Sprintf("http://%s:%d", first, marathonPort), master: fmt.Sprintf("http://%s:%d", first, masterPort),
		dns: fmt.Sprintf("%s:%d", first, dns), probes: t.TempDir(),
	}}
	r.masterHealth = r.cluster.master + "/health"
	for i := range agents {
		ip := fmt.Sprintf("127.0.0.%d", i+1)
		agentMesh, agentDNS := mesh, dns
		if i > 0 {
			agentMesh, agentDNS = freePorts(t, ip), freePorts(t, ip)
		}
		port := freePorts(t, ip)
		health := fmt.Sprintf("http://%s:%d/health", ip, port)
		args := []string{
			"agent", "--ip", ip, "--work-dir", t.TempDir(), fmt.Sprint("--port=", port), fmt.Sprint("--mesh-port=", agentMesh),
			fmt.Sprint("--dns-port=", agentDNS), "--dns-http-port=0", "--no-discover", "--mesh-profile=local",
			fmt.Sprintf("--resources=cpus:2;mem:2048;disk:1000;ports:[%d-%d]", 31000+i*300, 31299+i*300),
		}
		if i > 0 {
			args = append(args, "--join", seed)
		}
		r.agents = append(r.agents, start(t, health, fmt.Sprint("agent ", i+1), args...))
		r.agentHealth = append(r.agentHealth, health)
	}
	r.master = start(t, r.masterHealth, "master", "master", "--ip", first, "--work-dir", t.TempDir(), fmt.Sprint("--port=", masterPort),
		fmt.Sprint("--mesh-port=", freePorts(t, first)), "--join", seed, "--no-discover", "--mesh-profile=local")
	r.marathon = start(t, r.cluster.marathon+"/health", "marathon", "marathon", "--work-dir", t.TempDir(), "--http-address", first,
		fmt.Sprint("--http-port=", marathonPort), "--hostname", first, fmt.Sprintf("--master=http://%s:%d", first, masterPort))
	return r
}

// unharmed wants the same tasks as before, as the same processes.
func (c *cluster) unharmed(app string, before map[string]int) {
	c.t.Helper()
	after := c.answers(c.running(app, len(before)))
	for id, pid := range before {
		if after[id] != pid {
			c.t.Errorf("task %s was process %d and is now %d", id, pid, after[id])
		}
	}
	c.pids()
}

func TestThreeAgentsThatKnowOneSeedShareTheTasks(t *testing.T) {
	r := separate(t, 3)
	r.probeApp("/probe", 9, `{"cpus":0.5}`)
	tasks := r.running("/probe", 9)
	hosts := map[string]int{}
	for _, task := range tasks {
		hosts[task.Host]++
	}
	// Two CPUs an agent hold four such tasks, so nine need all three agents.
	if len(hosts) != 3 {
		t.Errorf("tasks by host: %v, want all three agents in use", hosts)
	}
	r.answers(tasks)
	r.allAnswer("probe", 9)
}

func TestKilledAgentProcessHarmsNoTask(t *testing.T) {
	r := separate(t, 2)
	r.probeApp("/probe", 4, `{"cpus":0.5}`)
	before := r.answers(r.running("/probe", 4))
	for range 2 {
		r.agents[1].kill()
		for id, pid := range before {
			if gone(pid) {
				t.Fatalf("task %s died with the agent process", id)
			}
		}
		r.agents[1].run()
		r.agents[1].healthy(r.agentHealth[1])
		r.unharmed("/probe", before)
	}
	// And it goes on working: what it runs can be scaled, and ends when told.
	if _, _, err := request("PUT", r.cluster.marathon+"/v2/apps/probe", `{"instances":6}`); err != nil {
		t.Fatal(err)
	}
	six := r.answers(r.running("/probe", 6))
	if _, _, err := request("DELETE", r.cluster.marathon+"/v2/apps/probe", ""); err != nil {
		t.Fatal(err)
	}
	for id, pid := range six {
		eventually(t, 30*time.Second, "task "+id+" has ended", func() error {
			if !gone(pid) {
				return fmt.Errorf("process %d lives", pid)
			}
			return nil
		})
	}
}

func TestKilledMasterHarmsNoTaskAndScalingWorksAfter(t *testing.T) {
	r := separate(t, 2)
	r.probeApp("/probe", 3)
	before := r.answers(r.running("/probe", 3))
	r.master.kill()
	r.endpoints("probe", 3) // DNS needs no master
	r.master.run()
	r.master.healthy(r.masterHealth)
	r.unharmed("/probe", before)
	r.scales("/probe", 5, before)
}

func TestKilledMarathonHarmsNoTaskAndScalingWorksAfter(t *testing.T) {
	r := separate(t, 2)
	r.probeApp("/probe", 3)
	before := r.answers(r.running("/probe", 3))
	r.marathon.kill()
	r.marathon.run()
	r.marathon.healthy(r.cluster.marathon + "/health")
	r.unharmed("/probe", before)
	r.scales("/probe", 5, before)
}

// scales changes the number of instances, and wants those that ran before untouched.
func (c *cluster) scales(app string, n int, before map[string]int) {
	c.t.Helper()
	eventually(c.t, 30*time.Second, "the scale request is taken", func() error {
		_, _, err := request("PUT", c.marathon+"/v2/apps"+app, fmt.Sprintf(`{"instances":%d}`, n))
		return err
	})
	after := c.answers(c.running(app, n))
	for id, pid := range before {
		if after[id] != pid {
			c.t.Errorf("task %s was process %d and is now %d", id, pid, after[id])
		}
	}
	c.pids()
}

func TestTaskThatEndsWhileTheAgentIsDownIsReplaced(t *testing.T) {
	r := separate(t, 1)
	r.probeApp("/probe", 2)
	before := r.answers(r.running("/probe", 2))
	r.agents[0].kill()
	var victim string
	for id, pid := range before {
		victim = id
		killProcess(t, pid)
		break
	}
	r.agents[0].run()
	r.agents[0].healthy(r.agentHealth[0])
	eventually(t, 30*time.Second, "the ended task is replaced", func() error {
		for _, task := range r.running("/probe", 2) {
			if task.ID == victim {
				return fmt.Errorf("%s is still listed", victim)
			}
		}
		return nil
	})
	after := r.answers(r.running("/probe", 2))
	for id, pid := range before {
		if id != victim && after[id] != pid {
			t.Errorf("task %s was process %d and is now %d", id, pid, after[id])
		}
	}
	a, err := r.app("/probe")
	if err != nil || a.LastTaskFailed == nil || a.LastTaskFailed.State != "TASK_FAILED" {
		t.Errorf("lastTaskFailure = %+v, %v; want the true end of the killed task", a.LastTaskFailed, err)
	}
}

func TestEverythingKilledAtOnceComesBack(t *testing.T) {
	r := separate(t, 2)
	r.probeApp("/probe", 4)
	before := r.answers(r.running("/probe", 4))
	for _, p := range []*process{r.marathon, r.master, r.agents[0], r.agents[1]} {
		p.kill()
	}
	for i, p := range r.agents {
		p.run()
		p.healthy(r.agentHealth[i])
	}
	r.master.run()
	r.marathon.run()
	r.master.healthy(r.masterHealth)
	r.marathon.healthy(r.cluster.marathon + "/health")
	r.unharmed("/probe", before)
	r.scales("/probe", 6, before)
}
