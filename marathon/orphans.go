package marathon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"starling/marathon/scheduler"
)

const (
	// lookupTimeout bounds a question to the master, and maxLookup its answer, in bytes.
	lookupTimeout = 20 * time.Second
	maxLookup     = 512 << 20
)

// ErrLookup is returned where the master can't be asked what it knows of tasks.
var ErrLookup = errors.New("cannot ask the master about tasks")

// Adopted is what came of adopting orphans.
type Adopted struct {
	// Adopted are the ids of those that belong to their apps again; Refused says of the others why not.
	Adopted []string
	Refused map[string]string
}

// AdoptOrphans makes tasks that no instance has instances of their apps again, nil for all. Where they run and with which ports is
// asked of the master first. It returns ErrLookup where that fails.
func (m *Marathon) AdoptOrphans(ctx context.Context, ids []string) (Adopted, error) {
	m.mu.RLock()
	session := m.session
	m.mu.RUnlock()
	if session == nil {
		return Adopted{}, fmt.Errorf("%w: there is no session with it", ErrLookup)
	}
	known, err := m.lookUp(ctx, session.stream.Master())
	if err != nil {
		return Adopted{}, fmt.Errorf("%w: %w", ErrLookup, err)
	}
	var out Adopted
	err = m.await(ctx, func(now time.Time) error {
		out = Adopted{Refused: make(map[string]string)}
		if ids == nil {
			for _, o := range m.core.View().Orphans() {
				ids = append(ids, o.TaskID)
			}
		}
		var all []scheduler.Adoption
		for _, id := range ids {
			if a, ok := known[id]; ok {
				all = append(all, a)
			} else {
				out.Refused[id] = "the master knows no such task"
			}
		}
		adopted, refused := m.core.Adopt(now, all)
		out.Adopted = adopted
		maps.Copy(out.Refused, refused)
		return nil
	})
	if err == nil {
		m.log.Info("orphans adopted", "tasks", len(out.Adopted), "refused", len(out.Refused))
	}
	return out, err
}

// DismissOrphans kills tasks that no instance has, nil for all, and returns the ids of those that are none.
func (m *Marathon) DismissOrphans(ctx context.Context, ids []string) (unknown []string, err error) {
	err = m.await(ctx, func(time.Time) error {
		if ids == nil {
			for _, o := range m.core.View().Orphans() {
				ids = append(ids, o.TaskID)
			}
		}
		unknown = m.core.Dismiss(ids)
		return nil
	})
	if err == nil {
		m.log.Warn("orphans dismissed", "tasks", len(ids)-len(unknown))
	}
	return unknown, err
}

// tellOrphans writes down, now and then, how many tasks are left alone. It is called by the loop, without the lock.
func (m *Marathon) tellOrphans(now time.Time) {
	m.mu.RLock()
	n := m.core.View().OrphanCount()
	m.mu.RUnlock()
	if n == m.orphansTold || n != 0 && now.Sub(m.orphansTime) < orphansPause {
		return
	}
	if n > m.orphansTold {
		m.log.Warn("tasks of this framework are not known, and left alone; look at them with \"starling app orphans\"", "tasks", n)
	}
	m.orphansTold, m.orphansTime = n, now
}

// orphansPause is between two lines about orphans.
const orphansPause = 10 * time.Second

// lookUp asks the master about all tasks of the framework, by their ids.
func (m *Marathon) lookUp(ctx context.Context, master string) (map[string]scheduler.Adoption, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var tasks struct {
		All struct {
			Tasks []struct {
				TaskID      value         `json:"task_id"`
				AgentID     value         `json:"agent_id"`
				FrameworkID value         `json:"framework_id"`
				State       string        `json:"state"`
				Resources   []resource    `json:"resources"`
				Statuses    []stampOfTask `json:"statuses"`
				Discovery   struct {
					Ports struct {
						Ports []struct{ Number int } `json:"ports"`
					} `json:"ports"`
				} `json:"discovery"`
			} `json:"tasks"`
		} `json:"get_tasks"`
	}
	if err := m.askMaster(ctx, master, "GET_TASKS", &tasks); err != nil {
		return nil, err
	}
	var agents struct {
		All struct {
			Agents []struct {
				Info struct {
					ID         value       `json:"id"`
					Hostname   string      `json:"hostname"`
					Attributes []attribute `json:"attributes"`
					Domain     struct {
						Fault struct {
							Region named `json:"region"`
							Zone   named `json:"zone"`
						} `json:"fault_domain"`
					} `json:"domain"`
				} `json:"agent_info"`
			} `json:"agents"`
		} `json:"get_agents"`
	}
	if err := m.askMaster(ctx, master, "GET_AGENTS", &agents); err != nil {
		return nil, err
	}
	framework := ""
	if err := m.Read(func(v scheduler.View, _ time.Time) { framework = v.FrameworkID() }); err != nil {
		return nil, err
	}
	places := make(map[string]scheduler.Adoption)
	for _, a := range agents.All.Agents {
		place := scheduler.Adoption{Host: a.Info.Hostname, Region: a.Info.Domain.Fault.Region.Name, Zone: a.Info.Domain.Fault.Zone.Name}
		for _, at := range a.Info.Attributes {
			if place.Attributes == nil {
				place.Attributes = make(map[string]string)
			}
			place.Attributes[at.Name] = at.text()
		}
		places[a.Info.ID.Value] = place
	}
	out := make(map[string]scheduler.Adoption)
	for _, t := range tasks.All.Tasks {
		if t.FrameworkID.Value != framework {
			continue
		}
		a := places[t.AgentID.Value]
		a.TaskID, a.Running = t.TaskID.Value, t.State == "TASK_RUNNING"
		for _, r := range t.Resources {
			a.Role = r.role(a.Role)
			if id := r.Disk.Persistence.ID; id != "" {
				a.Volumes = append(a.Volumes, id)
			}
			if r.Name == "ports" {
				a.Ports = append(a.Ports, r.ports()...)
			}
		}
		a.StartedAt = m.cfg.Now()
		for _, s := range t.Statuses {
			if s.State == "TASK_RUNNING" && s.Timestamp > 0 {
				a.StartedAt = time.UnixMicro(int64(s.Timestamp * 1e6)).UTC()
				break
			}
		}
		slices.Sort(a.Ports)
		var told []int // in the order of the definition, where that is told
		for _, p := range t.Discovery.Ports.Ports {
			told = append(told, p.Number)
		}
		if sorted := slices.Sorted(slices.Values(told)); slices.Equal(sorted, a.Ports) {
			a.Ports = told
		}
		out[t.TaskID.Value] = a
	}
	return out, nil
}

// The parts of the operator API's answers that are of use here.
type (
	value struct {
		Value string `json:"value"`
	}
	named struct {
		Name string `json:"name"`
	}
	stampOfTask struct {
		State     string  `json:"state"`
		Timestamp float64 `json:"timestamp"`
	}
	attribute struct {
		Name   string `json:"name"`
		Text   *value `json:"text"`
		Scalar *struct {
			Value json.Number `json:"value"`
		} `json:"scalar"`
	}
	resource struct {
		Name   string `json:"name"`
		Ranges struct {
			Range []struct{ Begin, End int } `json:"range"`
		} `json:"ranges"`
		Disk struct {
			Persistence struct {
				ID string `json:"id"`
			} `json:"persistence"`
		} `json:"disk"`
		Allocation struct {
			Role string `json:"role"`
		} `json:"allocation_info"`
	}
)

func (a attribute) text() string {
	switch {
	case a.Text != nil:
		return a.Text.Value
	case a.Scalar != nil:
		return a.Scalar.Value.String()
	default:
		return ""
	}
}

// role is that which the resource was allocated to, another one where it does not say.
func (r resource) role(other string) string {
	if r.Allocation.Role != "" {
		return r.Allocation.Role
	}
	return other
}

func (r resource) ports() []int {
	var out []int
	for _, one := range r.Ranges.Range {
		for p := one.Begin; p <= one.End && p < 1<<16; p++ {
			out = append(out, p)
		}
	}
	return out
}

// askMaster makes a call of the operator API that has no arguments, and decodes the answer.
func (m *Marathon) askMaster(ctx context.Context, master, call string, answer any) error {
	body, err := json.Marshal(map[string]string{"type": call})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+master+"/api/v1", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	client := &http.Client{Transport: m.cfg.Transport}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxLookup))
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %s: %d %.200s", master, call, res.StatusCode, text)
	}
	return json.Unmarshal(text, answer)
}
