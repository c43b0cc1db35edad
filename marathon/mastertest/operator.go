package mastertest

import (
	"encoding/json"
	"net/http"
	"slices"

	"starling/master/mesos"
)

// operate answers the few calls of the operator API that a framework makes, in JSON.
func (s *Server) operate(w http.ResponseWriter, r *http.Request) {
	var call struct{ Type string }
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var answer map[string]any
	switch call.Type {
	case "GET_TASKS":
		answer = map[string]any{"type": call.Type, "get_tasks": map[string]any{"tasks": s.toldTasks()}}
	case "GET_AGENTS":
		answer = map[string]any{"type": call.Type, "get_agents": map[string]any{"agents": s.toldAgents()}}
	default:
		http.Error(w, "no such call here", http.StatusNotImplemented)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the client may be gone
}

func (c *Cluster) toldTasks() []map[string]any {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []map[string]any
	for _, id := range c.order {
		for _, t := range c.sortedTasks(c.agents[id]) {
			if !slices.Contains([]mesos.TaskState{mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING}, t.state) {
				continue
			}
			var resources []map[string]any
			for _, r := range t.info.GetResources() {
				if r.GetName() != "ports" {
					continue
				}
				var ranges []map[string]any
				for _, one := range r.GetRanges().GetRange() {
					ranges = append(ranges, map[string]any{"begin": one.GetBegin(), "end": one.GetEnd()})
				}
				resources = append(resources, map[string]any{"name": "ports", "type": "RANGES", "ranges": map[string]any{"range": ranges}})
			}
			out = append(out, map[string]any{
				"task_id": told(t.info.GetTaskId().GetValue()), "agent_id": told(id), "framework_id": told(c.framework),
				"state": t.state.String(), "resources": resources,
			})
		}
	}
	return out
}

func (c *Cluster) toldAgents() []map[string]any {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []map[string]any
	for _, id := range c.order {
		out = append(out, map[string]any{"agent_info": map[string]any{"id": told(id), "hostname": c.agents[id].Host}})
	}
	return out
}

func told(value string) map[string]string { return map[string]string{"value": value} }
