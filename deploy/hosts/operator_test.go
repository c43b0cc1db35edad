package hosts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// agentOf is what the master says of an agent.
type agentOf struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
	Active   bool   `json:"active"`
	Drain    struct {
		State string `json:"state"`
	} `json:"drain_info"`
}

// agentAt returns what the master says of the agent of a host; empty where it lists none.
func (c *Cluster) agentAt(hostname string) (agentOf, error) {
	_, body, err := c.request("GET", c.Master+"/slaves", "")
	if err != nil {
		return agentOf{}, err
	}
	var v struct{ Slaves []agentOf }
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return agentOf{}, err
	}
	for _, a := range v.Slaves {
		if a.Hostname == hostname {
			return a, nil
		}
	}
	return agentOf{}, nil
}

// operate makes a call of the operator API that names an agent.
func (c *Cluster) operate(kind, message, agent, more string) {
	c.t.Helper()
	body := fmt.Sprintf(`{"type":%q,%q:{"agent_id":{"value":%q}%s}}`, kind, message, agent, more)
	if _, _, err := c.request("POST", c.Master+"/api/v1", body); err != nil {
		c.t.Fatal(err)
	}
}

// chosen starts an app on two agents, and picks one of these that runs some of it: its number, what the master says of it, and
// those tasks with their processes. other is the host name of the other one.
func chosen(r *Roles, app string, instances int, more string) (n int, agent agentOf, tasks map[string]int, other string) {
	r.t.Helper()
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		Eventually(r.t, 30*time.Second, "the agent of "+host+" is there", func() error {
			if a, err := r.agentAt(host); err != nil || !a.Active {
				return fmt.Errorf("the master says %+v, %v", a, err)
			}
			return nil
		})
	}
	r.ProbeApp(app, instances, more)
	running := r.Running(app, instances)
	host := running[len(running)-1].Host
	tasks = map[string]int{}
	for _, task := range running {
		if task.Host == host {
			tasks[task.ID] = r.Answers([]Task{task})[task.ID]
		}
	}
	agent, err := r.agentAt(host)
	if err != nil {
		r.t.Fatal(err)
	}
	if host == "127.0.0.1" {
		return 0, agent, tasks, "127.0.0.2"
	}
	return 1, agent, tasks, "127.0.0.1"
}

// all wants all of the tasks on one host.
func (c *Cluster) all(app string, n int, host string) {
	c.t.Helper()
	Eventually(c.t, 60*time.Second, fmt.Sprintf("all tasks of %s run on %s", app, host), func() error {
		a, err := c.App(app)
		if err != nil {
			return err
		}
		here := 0
		for _, task := range a.Tasks {
			if task.Host == host && task.State == "TASK_RUNNING" {
				here++
			}
		}
		if here != n || len(a.Tasks) != n {
			return fmt.Errorf("%d of %d tasks do", here, len(a.Tasks))
		}
		return nil
	})
}

// An agent that is drained ends its tasks within the grace period that the operator allows, though the agent is killed meanwhile,
// and the tasks run elsewhere from then on; nothing comes to it until it is reactivated.
func TestDrainedAgentGivesItsTasksAway(t *testing.T) {
	r := Separate(t, 2)
	n, agent, before, other := chosen(r, "/probe", 4, `{"cpus":0.2}`)
	r.operate("DRAIN_AGENT", "drain_agent", agent.ID, `,"max_grace_period":{"seconds":1}`)
	r.Agents[n].Kill()
	r.Agents[n].run()
	r.Agents[n].Healthy(r.agentHealth[n])
	r.all("/probe", 4, other)
	Eventually(t, 30*time.Second, "the agent is drained", func() error {
		got, err := r.agentAt(agent.Hostname)
		if err != nil || got.ID != agent.ID || got.Drain.State != "DRAINED" || got.Active {
			return fmt.Errorf("it is shown as %+v, %v", got, err)
		}
		return nil
	})
	for id, pid := range before {
		if !gone(pid) {
			t.Errorf("task %s still runs as process %d", id, pid)
		}
	}
	r.operate("REACTIVATE_AGENT", "reactivate_agent", agent.ID, "")
	if _, _, err := r.request("PUT", r.Marathon+"/v2/apps/probe", `{"instances":12}`); err != nil {
		t.Fatal(err)
	}
	hosts := map[string]int{}
	for _, task := range r.Running("/probe", 12) {
		hosts[task.Host]++
	}
	if hosts[agent.Hostname] == 0 {
		t.Errorf("tasks by host: %v, want some on the agent that was reactivated", hosts)
	}
}

// W7: an agent that is marked gone while it is cut off, and whose master is killed after that, ends what it runs and comes back as
// another one; no task does.
func TestAgentThatIsGoneComesBackAsAnother(t *testing.T) {
	r := Separate(t, 2)
	n, agent, old, other := chosen(r, "/probe", 4, `{"cpus":0.2,"taskKillGracePeriodSeconds":300}`)
	r.Agents[n].Kill()
	r.operate("MARK_AGENT_GONE", "mark_agent_gone", agent.ID, "")
	r.all("/probe", 4, other)
	for id, pid := range old {
		if gone(pid) {
			t.Fatalf("task %s ended while nobody was there to end it", id)
		}
	}
	r.MasterProcess.Kill()
	r.MasterProcess.run()
	r.MasterProcess.Healthy(r.masterHealth)

	r.Agents[n].run()
	r.Agents[n].Healthy(r.agentHealth[n])
	begun := time.Now()
	var now agentOf
	Eventually(t, 60*time.Second, "another agent stands in its place", func() error {
		var err error
		if now, err = r.agentAt(agent.Hostname); err != nil || now.ID == "" || now.ID == agent.ID || !now.Active {
			return fmt.Errorf("the master lists %+v, %v", now, err)
		}
		return nil
	})
	within(t, "the agent has another id", time.Since(begun), 5*time.Second)
	for id, pid := range old {
		if !gone(pid) {
			t.Errorf("task %s still runs as process %d", id, pid)
		}
	}
	for _, id := range []string{agent.ID, now.ID} {
		if _, err := os.Stat(filepath.Join(r.AgentDirs[n], "slaves", id)); err != nil {
			t.Errorf("the sandboxes of %s: %v", id, err)
		}
	}
	r.all("/probe", 4, other)
	r.pids() // none was started twice
	if _, _, err := r.request("PUT", r.Marathon+"/v2/apps/probe", `{"instances":12}`); err != nil {
		t.Fatal(err)
	}
	for _, task := range r.Running("/probe", 12) {
		if task.Agent == agent.ID {
			t.Errorf("task %s runs on an agent that is gone", task.ID)
		}
	}
}
