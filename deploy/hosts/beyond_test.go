package hosts

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// ask has Marathon change something.
func (c *Cluster) ask(method, path, body string) {
	c.t.Helper()
	if _, _, err := c.request(method, c.Marathon+path, body); err != nil {
		c.t.Fatal(err)
	}
}

// standsOn waits until an app has one running task on each of these hosts and none elsewhere, other than on those lost ones that
// cannot be reached.
func (c *Cluster) standsOn(app string, lost []string, hosts ...string) []Task {
	c.t.Helper()
	var tasks []Task
	Eventually(c.t, 60*time.Second, fmt.Sprintf("%s runs on %v, and is lost on %v", app, hosts, lost), func() error {
		a, err := c.App(app)
		if err != nil {
			return err
		}
		tasks = a.Tasks
		var running, away []string
		for _, task := range a.Tasks {
			switch task.State {
			case "TASK_RUNNING":
				running = append(running, task.Host)
			case "TASK_UNREACHABLE":
				away = append(away, task.Host)
			default:
				return fmt.Errorf("task %s is %s", task.ID, task.State)
			}
		}
		slices.Sort(running)
		if !slices.Equal(running, hosts) || !slices.Equal(away, lost) || len(a.Deployments) > 0 {
			return fmt.Errorf("it runs on %v, is lost on %v, and has %d deployments", running, away, len(a.Deployments))
		}
		return nil
	})
	return tasks
}

// A daemon app has one task on every node: on one that joins, too, on none in place of one that is lost, and on none of the lost
// one's once that is given up. An upgrade keeps all but one running.
func TestADaemonAppFollowsTheNodes(t *testing.T) {
	r := Separate(t, 3)
	const one, two, three = "127.0.0.1", "127.0.0.2", "127.0.0.3"
	r.Agents[2].Terminate()
	Eventually(t, 60*time.Second, "two agents are there, and the third is not", func() error {
		for host, active := range map[string]bool{one: true, two: true, three: false} {
			if a, err := r.agentAt(host); err != nil || a.Active != active {
				return fmt.Errorf("the master says %+v of %s, %v", a, host, err)
			}
		}
		return nil
	})
	r.ask("POST", "/v2/apps", `{"id":"/crew","cmd":"exec sleep 100000","cpus":0.1,"mem":32,"starling":{"daemon":true,"instanceIndex":true}}`)
	before := r.standsOn("/crew", nil, one, two)
	r.Agents[2].run()
	r.Agents[2].Healthy(r.agentHealth[2])
	after := r.standsOn("/crew", nil, one, two, three)
	for _, task := range before {
		if !slices.ContainsFunc(after, func(now Task) bool { return now.ID == task.ID }) {
			t.Errorf("task %s was replaced when a node joined", task.ID)
		}
	}

	r.ask("PUT", "/v2/apps/crew", `{"env":{"V":"2"}}`)
	least := 3
	Eventually(t, 60*time.Second, "the upgrade is done", func() error {
		a, err := r.App("/crew")
		if err != nil {
			return err
		}
		least = min(least, a.TasksRunning)
		if len(a.Deployments) > 0 {
			return fmt.Errorf("%d tasks run", a.TasksRunning)
		}
		return nil
	})
	if least < 2 {
		t.Errorf("only %d of 3 tasks ran during the upgrade", least)
	}
	r.standsOn("/crew", nil, one, two, three)

	lost, err := r.agentAt(two)
	if err != nil {
		t.Fatal(err)
	}
	r.Agents[1].Kill()
	r.standsOn("/crew", []string{two}, one, three)
	r.operate("MARK_AGENT_GONE", "mark_agent_gone", lost.ID, "")
	r.standsOn("/crew", nil, one, three)
}

// An app that is to be near to a node runs nowhere else; a deployment that is not done by its deadline is rolled back, though
// another Marathon leads by then; and both are told.
func TestLatencyAndDeadline(t *testing.T) {
	r := Separate(t, 2)
	r.ask("POST", "/v2/apps", `{"id":"/near","cmd":"exec sleep 100000","cpus":0.1,"mem":32,"instances":2,
		"starling":{"maxLatencyMs":{"to":"127.0.0.2","ms":0.000001}}}`)
	for _, task := range r.Running("/near", 2) {
		if task.Host != "127.0.0.2" {
			t.Errorf("task %s runs on %s", task.ID, task.Host)
		}
	}
	r.ask("PUT", "/v2/apps/near", `{"starling":{"maxLatencyMs":{"to":"127.0.0.9","ms":1000},"deploymentDeadlineSeconds":20}}`)
	Eventually(t, 15*time.Second, "the queue says why", func() error {
		_, body, err := r.request("GET", r.Marathon+"/v2/queue?embed=lastUnusedOffers", "")
		if err == nil && (!strings.Contains(body, "how far the node is from node 127.0.0.9 is not known") || !strings.Contains(body, `"ExceededMaxLatency","declined":`)) {
			err = fmt.Errorf("it says %s", body)
		}
		return err
	})
	r.MarathonProcess.Kill()
	r.MarathonProcess.run()
	r.MarathonProcess.Healthy(r.Marathon + "/health")
	Eventually(t, 40*time.Second, "the deployment is rolled back", func() error {
		_, body, err := r.request("GET", r.Marathon+"/v2/deployments/history", "")
		if err != nil {
			return err
		}
		var history []struct {
			ID, Outcome, Undoes string
			StartedAt, EndedAt  time.Time
		}
		if err := json.Unmarshal([]byte(body), &history); err != nil {
			return err
		}
		if len(history) != 3 || history[0].Outcome != "succeeded" || history[1].Outcome != "deadline" || history[0].Undoes != history[1].ID {
			return fmt.Errorf("the history is %s", body)
		}
		took := history[1].EndedAt.Sub(history[1].StartedAt)
		if took < 20*time.Second {
			t.Errorf("it was rolled back after %v, at 20 s", took)
		}
		within(t, "it was rolled back, when its deadline was over,", took-20*time.Second, 5*time.Second)
		return nil
	})
	for _, task := range r.Running("/near", 2) {
		if task.Host != "127.0.0.2" {
			t.Errorf("task %s runs on %s in the end", task.ID, task.Host)
		}
	}
}
