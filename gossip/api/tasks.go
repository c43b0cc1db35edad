package api

import (
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/gossip/catalog"
	"starling/master/mesos"
)

// Task is one task as the record of its node tells of it: one that has not ended, or whose end is not acknowledged.
type Task struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	FrameworkID string `json:"framework_id"`
	Framework   string `json:"framework"`
	// ExecutorID is the task's own id for a command task.
	ExecutorID  string `json:"executor_id"`
	ContainerID string `json:"container_id"`
	// State is the newest that its agent knows, such as TASK_RUNNING.
	State string `json:"state"`
	// Healthy is absent without a health check, or a result of one. Checked is set with one that its agent runs.
	Healthy   *bool    `json:"healthy,omitempty"`
	Checked   bool     `json:"checked,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Role      string   `json:"role,omitempty"`
	// Resources is what it holds, added up.
	Resources *Resources `json:"resources,omitempty"`
	// Launched is when its agent took it.
	Launched time.Time `json:"launched,omitzero"`

	// Node is the name of its node, NodeState what is thought of that, Host its host name and APIAddress where its agent is asked.
	Node       string `json:"node"`
	NodeState  string `json:"node_state"`
	Host       string `json:"host"`
	APIAddress string `json:"api_address"`
}

// tasks lists the tasks of all nodes.
func (a *api) tasks(c *fiber.Ctx) error {
	now := time.Now()
	out := []Task{}
	for _, m := range a.mesh.Members() {
		s := a.mesh.Snapshot(m.Name)
		if s == nil {
			continue
		}
		var node catalog.Node
		_ = decode(s, catalog.KeyNode, &node)
		for key := range s.Prefix(catalog.PrefixTask) {
			var t catalog.Task
			if !decode(s, key, &t) {
				continue
			}
			one := taskOf(&t)
			one.Node, one.NodeState, one.Host = m.Name, state(now, s), node.GetHostname()
			one.APIAddress = hostPort(node.GetAddress(), node.GetPort())
			out = append(out, one)
		}
	}
	return write(c, out)
}

func taskOf(t *catalog.Task) Task {
	out := Task{
		ID: t.GetTaskId(), Name: t.GetName(), FrameworkID: t.GetFrameworkId(), Framework: t.GetFrameworkName(), ExecutorID: t.GetExecutorId(),
		ContainerID: t.GetContainerId(), State: mesos.TaskState(t.GetState()).String(), Healthy: t.Healthy, Checked: t.GetChecked(), Addresses: t.GetAddresses(),
		Role: t.GetRole(), Resources: sum(t.GetResources()),
	}
	if !strings.HasPrefix(out.State, "TASK_") { // a number that has no name
		out.State = "TASK_UNKNOWN"
	}
	if t.GetLaunched() > 0 {
		out.Launched = time.Unix(0, t.GetLaunched()).UTC()
	}
	return out
}
