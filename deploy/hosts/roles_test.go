package hosts

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// unharmed wants the same tasks as before, as the same processes.
func (c *Cluster) unharmed(App string, before map[string]int) {
	c.t.Helper()
	after := c.Answers(c.Running(App, len(before)))
	for id, pid := range before {
		if after[id] != pid {
			c.t.Errorf("task %s was process %d and is now %d", id, pid, after[id])
		}
	}
	c.pids()
}

func TestThreeAgentsThatKnowOneSeedShareTheTasks(t *testing.T) {
	r := Separate(t, 3)
	r.ProbeApp("/probe", 9, `{"cpus":0.5}`)
	tasks := r.Running("/probe", 9)
	hosts := map[string]int{}
	for _, Task := range tasks {
		hosts[Task.Host]++
	}
	// Two CPUs an agent hold four such tasks, so nine need all three agents.
	if len(hosts) != 3 {
		t.Errorf("tasks by host: %v, want all three agents in use", hosts)
	}
	r.Answers(tasks)
	r.AllAnswer("probe", 9)

	// Small ones would all fit on one agent, and are dealt all the same.
	r.Has(3)
	r.ProbeApp("/spread", 6)
	hosts = map[string]int{}
	for _, task := range r.Running("/spread", 6) {
		hosts[task.Host]++
	}
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		if hosts[host] != 2 {
			t.Errorf("small tasks by host: %v, want two on each", hosts)
			break
		}
	}
}

func TestKilledAgentProcessHarmsNoTask(t *testing.T) {
	r := Separate(t, 2)
	r.ProbeApp("/probe", 4, `{"cpus":0.5}`)
	before := r.Answers(r.Running("/probe", 4))
	for range 2 {
		r.Agents[1].Kill()
		for id, pid := range before {
			if gone(pid) {
				t.Fatalf("task %s died with the agent process", id)
			}
		}
		r.Agents[1].run()
		r.Agents[1].Healthy(r.agentHealth[1])
		r.unharmed("/probe", before)
	}
	// And it goes on working: what it runs can be scaled, and ends when told.
	if _, _, err := Request("PUT", r.Marathon+"/v2/apps/probe", `{"instances":6}`); err != nil {
		t.Fatal(err)
	}
	six := r.Answers(r.Running("/probe", 6))
	if _, _, err := Request("DELETE", r.Marathon+"/v2/apps/probe", ""); err != nil {
		t.Fatal(err)
	}
	for id, pid := range six {
		Eventually(t, 30*time.Second, "task "+id+" has ended", func() error {
			if !gone(pid) {
				return fmt.Errorf("process %d lives", pid)
			}
			return nil
		})
	}
}

func TestKilledMasterHarmsNoTaskAndScalingWorksAfter(t *testing.T) {
	r := Separate(t, 2)
	r.ProbeApp("/probe", 3)
	before := r.Answers(r.Running("/probe", 3))
	r.MasterProcess.Kill()
	r.Endpoints("probe", 3) // DNS needs no master
	r.MasterProcess.run()
	r.MasterProcess.Healthy(r.masterHealth)
	r.unharmed("/probe", before)
	r.scales("/probe", 5, before)
}

func TestKilledMarathonHarmsNoTaskAndScalingWorksAfter(t *testing.T) {
	r := Separate(t, 2)
	r.ProbeApp("/probe", 3)
	before := r.Answers(r.Running("/probe", 3))
	r.MarathonProcess.Kill()
	r.MarathonProcess.run()
	r.MarathonProcess.Healthy(r.Marathon + "/health")
	r.unharmed("/probe", before)
	r.scales("/probe", 5, before)
}

// scales changes the number of instances, and wants those that ran before untouched.
func (c *Cluster) scales(App string, n int, before map[string]int) {
	c.t.Helper()
	Eventually(c.t, 30*time.Second, "the scale request is taken", func() error {
		_, _, err := Request("PUT", c.Marathon+"/v2/apps"+App, fmt.Sprintf(`{"instances":%d}`, n))
		return err
	})
	after := c.Answers(c.Running(App, n))
	for id, pid := range before {
		if after[id] != pid {
			c.t.Errorf("task %s was process %d and is now %d", id, pid, after[id])
		}
	}
	c.pids()
}

func TestTaskThatEndsWhileTheAgentIsDownIsReplaced(t *testing.T) {
	r := Separate(t, 1)
	r.ProbeApp("/probe", 2)
	before := r.Answers(r.Running("/probe", 2))
	r.Agents[0].Kill()
	var victim string
	for id, pid := range before {
		victim = id
		killProcess(t, pid)
		break
	}
	r.Agents[0].run()
	r.Agents[0].Healthy(r.agentHealth[0])
	Eventually(t, 30*time.Second, "the ended task is replaced", func() error {
		for _, Task := range r.Running("/probe", 2) {
			if Task.ID == victim {
				return fmt.Errorf("%s is still listed", victim)
			}
		}
		return nil
	})
	after := r.Answers(r.Running("/probe", 2))
	for id, pid := range before {
		if id != victim && after[id] != pid {
			t.Errorf("task %s was process %d and is now %d", id, pid, after[id])
		}
	}
	a, err := r.App("/probe")
	if err != nil || a.LastTaskFailed == nil || a.LastTaskFailed.State != "TASK_FAILED" {
		t.Errorf("lastTaskFailure = %+v, %v; want the true end of the killed task", a.LastTaskFailed, err)
	}
}

// A supervisor without tasks obeys SIGTERM and takes its cgroups with it; the agent that lives on starts another.
func TestIdleSupervisorMayEnd(t *testing.T) {
	r := Separate(t, 1)
	r.ProbeApp("/probe", 1)
	r.Answers(r.Running("/probe", 1))
	if _, _, err := Request("DELETE", r.Marathon+"/v2/apps/probe", ""); err != nil {
		t.Fatal(err)
	}
	var old []int
	Eventually(t, 20*time.Second, "the supervisor has ended", func() error {
		supervisors := supervisorsOf(r.AgentDirs[0])
		if old == nil {
			old = supervisors
		}
		for _, pid := range supervisors {
			if slices.Contains(old, pid) {
				_ = syscall.Kill(pid, syscall.SIGTERM)
				return fmt.Errorf("supervisor %d lives", pid)
			}
		}
		return nil
	})
	r.ProbeApp("/again", 3)
	r.Answers(r.Running("/again", 3))
	a, err := r.App("/again")
	if err != nil || a.LastTaskFailed != nil {
		t.Errorf("lastTaskFailure = %+v, %v; want none", a.LastTaskFailed, err)
	}
}

// A crash in the middle of a burst of launches is one event, and no reason to launch the rest one by one.
func TestAgentKilledWhileScalingUpCostsOneStep(t *testing.T) {
	r := Separate(t, 1)
	r.ProbeApp("/probe", 1)
	r.Running("/probe", 1)
	if _, _, err := Request("PUT", r.Marathon+"/v2/apps/probe", `{"instances":30}`); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 30*time.Second, "some of them run", func() error {
		a, err := r.App("/probe")
		if err == nil && a.TasksRunning < 5 {
			err = fmt.Errorf("%d run", a.TasksRunning)
		}
		return err
	})
	r.Agents[0].Kill()
	r.Agents[0].run()
	r.Agents[0].Healthy(r.agentHealth[0])
	r.Answers(r.Running("/probe", 30))
	r.pids()
}

// All tasks of an app that die at once are replaced together.
func TestAllTasksKilledAtOnceAreReplacedTogether(t *testing.T) {
	r := Separate(t, 2)
	r.ProbeApp("/probe", 20)
	before := r.Answers(r.Running("/probe", 20))
	for _, pid := range before {
		killProcess(t, pid)
	}
	killed := time.Now()
	Eventually(t, time.Minute, "all are replaced", func() error {
		a, err := r.App("/probe")
		if err != nil {
			return err
		}
		for _, task := range a.Tasks {
			if _, old := before[task.ID]; old {
				return fmt.Errorf("%s is still listed", task.ID)
			}
		}
		if a.TasksRunning != 20 {
			return fmt.Errorf("%d run", a.TasksRunning)
		}
		return nil
	})
	within(t, "all are replaced", time.Since(killed), 20*time.Second) // one by one it would take more than a minute
	r.pids()
}

func TestEverythingKilledAtOnceComesBack(t *testing.T) {
	r := Separate(t, 2)
	r.ProbeApp("/probe", 4)
	before := r.Answers(r.Running("/probe", 4))
	for _, p := range []*Process{r.MarathonProcess, r.MasterProcess, r.Agents[0], r.Agents[1]} {
		p.Kill()
	}
	for i, p := range r.Agents {
		p.run()
		p.Healthy(r.agentHealth[i])
	}
	r.MasterProcess.run()
	r.MarathonProcess.run()
	r.MasterProcess.Healthy(r.masterHealth)
	r.MarathonProcess.Healthy(r.Marathon + "/health")
	r.unharmed("/probe", before)
	r.scales("/probe", 6, before)
}
