package api

import (
	"encoding/json"
	"net"
	"slices"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"starling/agent"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/server"
)

// mesosVersion is what tools parse and switch their behaviour on; the software's own version stands beside it.
const mesosVersion = "1.11.0"

// capabilities are what frameworks may count on.
var capabilities = []string{
	"MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT", "RESIZE_VOLUME", "AGENT_OPERATION_FEEDBACK", "AGENT_DRAINING",
	"TASK_RESOURCE_LIMITS",
}

type build struct {
	Version string `json:"version"`
	Date    string `json:"build_date"`
	Time    number `json:"build_time"`
	User    string `json:"build_user"`
	Own     string `json:"starling_version"`
}

func (s *Server) build() build {
	return build{Version: mesosVersion, Date: "1970-01-01 00:00:00", Own: s.cfg.Version}
}

func (s *Server) version(c *fiber.Ctx) error { return write(c, s.build()) }

func (s *Server) flags(c *fiber.Ctx) error {
	return write(c, map[string]any{"flags": s.flagMap()})
}

func (s *Server) flagMap() map[string]string {
	if s.cfg.Flags == nil {
		return map[string]string{}
	}
	return s.cfg.Flags
}

func write(c *fiber.Ctx, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	return server.WriteJSON(c, body)
}

// stateView is the answer of /state.
type stateView struct {
	build
	StartTime    number          `json:"start_time"`
	ID           string          `json:"id"`
	PID          string          `json:"pid"`
	Hostname     string          `json:"hostname"`
	Capabilities []string        `json:"capabilities"`
	Domain       json.RawMessage `json:"domain,omitempty"`

	Resources           map[string]any               `json:"resources"`
	Reserved            map[string]map[string]any    `json:"reserved_resources"`
	ReservedFull        map[string][]json.RawMessage `json:"reserved_resources_full"`
	ReservedAllocated   map[string]map[string]any    `json:"reserved_resources_allocated"`
	Unreserved          map[string]any               `json:"unreserved_resources"`
	UnreservedFull      []json.RawMessage            `json:"unreserved_resources_full"`
	UnreservedAllocated map[string]any               `json:"unreserved_resources_allocated"`
	Providers           []struct{}                   `json:"resource_providers"`
	Attributes          map[string]any               `json:"attributes"`
	MasterHostname      string                       `json:"master_hostname,omitempty"`
	Drain               json.RawMessage              `json:"drain_config,omitempty"`
	DrainStarted        number                       `json:"estimated_drain_start_time_seconds,omitempty"`
	Flags               map[string]string            `json:"flags"`
	Problems            []string                     `json:"problems"`
	Frameworks          []frameworkView              `json:"frameworks"`
	Completed           []frameworkView              `json:"completed_frameworks"`
}

type frameworkView struct {
	ID              string         `json:"id"`
	Name            string         `json:"name"`
	User            string         `json:"user"`
	FailoverTimeout number         `json:"failover_timeout"`
	Checkpoint      bool           `json:"checkpoint"`
	Hostname        string         `json:"hostname"`
	Principal       string         `json:"principal,omitempty"`
	Role            string         `json:"role,omitempty"`
	Roles           []string       `json:"roles,omitempty"`
	Executors       []executorView `json:"executors"`
	Completed       []executorView `json:"completed_executors"`
}

type executorView struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Source    string            `json:"source"`
	Container string            `json:"container"`
	Directory string            `json:"directory"`
	Resources map[string]any    `json:"resources"`
	Role      string            `json:"role,omitempty"`
	Labels    []json.RawMessage `json:"labels,omitempty"`
	Type      string            `json:"type,omitempty"`
	Tasks     []taskView        `json:"tasks"`
	Queued    []queuedView      `json:"queued_tasks"`
	Completed []taskView        `json:"completed_tasks"`
}

type queuedView struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	AgentID    string          `json:"slave_id"`
	Resources  map[string]any  `json:"resources"`
	Role       string          `json:"role"`
	ExecutorID string          `json:"executor_id"`
	Command    json.RawMessage `json:"command,omitempty"`
	Discovery  json.RawMessage `json:"discovery,omitempty"`
}

type taskView struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	FrameworkID string            `json:"framework_id"`
	ExecutorID  string            `json:"executor_id"`
	AgentID     string            `json:"slave_id"`
	State       string            `json:"state"`
	Resources   map[string]any    `json:"resources"`
	Limits      map[string]number `json:"limits,omitempty"`
	Role        string            `json:"role"`
	Statuses    []statusView      `json:"statuses"`
	User        string            `json:"user,omitempty"`
	Labels      []json.RawMessage `json:"labels,omitempty"`
	Discovery   json.RawMessage   `json:"discovery,omitempty"`
	Container   json.RawMessage   `json:"container,omitempty"`
	HealthCheck json.RawMessage   `json:"health_check,omitempty"`
}

type statusView struct {
	State     string            `json:"state"`
	Timestamp number            `json:"timestamp"`
	Labels    []json.RawMessage `json:"labels,omitempty"`
	Container json.RawMessage   `json:"container_status,omitempty"`
	Healthy   *bool             `json:"healthy,omitempty"`
}

func (s *Server) state(c *fiber.Ctx, st *agent.State) error {
	v := stateView{
		build: s.build(), StartTime: timestamp(st.Started), ID: s.cfg.ID,
		PID:      "slave(1)@" + net.JoinHostPort(s.cfg.Address, strconv.Itoa(s.cfg.Port)),
		Hostname: s.cfg.Hostname, Capabilities: capabilities, Domain: message(s.domain()),
		Resources: summary(st.Total), Reserved: map[string]map[string]any{}, ReservedFull: map[string][]json.RawMessage{},
		ReservedAllocated: map[string]map[string]any{}, Unreserved: summary(st.Total.Unreserved()),
		UnreservedFull:      messages(st.Total.Unreserved().ProtoEndpoint()),
		UnreservedAllocated: summary(st.Used.Unreserved()), Providers: []struct{}{}, Attributes: attributes(s.cfg.Attributes),
		MasterHostname: st.Leader, Flags: s.flagMap(), Problems: append([]string{}, st.Problems...),
		Frameworks: s.frameworks(st.Frameworks), Completed: s.frameworks(st.Completed),
	}
	if st.Drain != nil {
		v.Drain, v.DrainStarted = message(st.Drain), timestamp(st.DrainStarted)
	}
	for _, role := range reservedRoles(st.Total) {
		reserved := st.Total.ReservedFor(role)
		v.Reserved[role], v.ReservedFull[role] = summary(reserved), messages(reserved.ProtoEndpoint())
		v.ReservedAllocated[role] = summary(st.Used.ReservedFor(role))
	}
	return write(c, v)
}

// domain is where the node is, in the shape of DomainInfo.
func (s *Server) domain() *mesos.DomainInfo {
	if s.cfg.Region == "" && s.cfg.Zone == "" {
		return nil
	}
	return &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
		Region: &mesos.DomainInfo_FaultDomain_RegionInfo{Name: &s.cfg.Region},
		Zone:   &mesos.DomainInfo_FaultDomain_ZoneInfo{Name: &s.cfg.Zone},
	}}
}

// reservedRoles are the roles that something is reserved for.
func reservedRoles(rs resources.Resources) []string {
	var out []string
	for _, r := range rs.Proto() {
		if n := len(r.GetReservations()); n > 0 {
			out = append(out, r.GetReservations()[n-1].GetRole())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *Server) frameworks(all []agent.FrameworkState) []frameworkView {
	out := make([]frameworkView, 0, len(all))
	for _, f := range all {
		v := frameworkView{
			ID: f.Info.GetId().GetValue(), Name: f.Info.GetName(), User: f.Info.GetUser(),
			FailoverTimeout: number(f.Info.GetFailoverTimeout()), Checkpoint: f.Info.GetCheckpoint(),
			Hostname: f.Info.GetHostname(), Principal: f.Info.GetPrincipal(),
			Executors: s.executors(f.Executors), Completed: s.executors(f.Completed),
		}
		if slices.ContainsFunc(f.Info.GetCapabilities(), func(c *mesos.FrameworkInfo_Capability) bool {
			return c.GetType() == mesos.FrameworkInfo_Capability_MULTI_ROLE
		}) {
			v.Roles = f.Info.GetRoles()
		} else if v.Role = f.Info.GetRole(); v.Role == "" {
			v.Role = resources.AnyRole
		}
		out = append(out, v)
	}
	return out
}

func (s *Server) executors(all []agent.ExecutorState) []executorView {
	out := make([]executorView, 0, len(all))
	for _, e := range all {
		v := executorView{
			ID: e.ID, Name: e.Name, Source: e.Source, Container: e.ContainerID, Directory: e.Directory,
			Resources: overhead, Labels: labels(e.Task.GetLabels()),
			Tasks: []taskView{}, Queued: []queuedView{}, Completed: []taskView{},
		}
		if e.Task == nil {
			out = append(out, s.executorOfTasks(e, v))
			continue
		}
		task := s.task(e.Task)
		v.Role = task.Role
		switch {
		case ended(e.Task.GetState()):
			v.Completed = append(v.Completed, task)
		case e.Running:
			v.Tasks = append(v.Tasks, task)
		default:
			v.Queued = append(v.Queued, queuedView{
				ID: task.ID, Name: task.Name, AgentID: task.AgentID, Resources: task.Resources, Role: task.Role,
				ExecutorID: task.ExecutorID, Command: message(e.Command), Discovery: task.Discovery,
			})
		}
		out = append(out, v)
	}
	return out
}

// executorOfTasks shows an executor that is not a command task's own.
func (s *Server) executorOfTasks(e agent.ExecutorState, v executorView) executorView {
	v.Resources, v.Labels = summary(e.Resources), labels(e.Info.GetLabels())
	if roles := e.Resources.Allocations(); len(roles) > 0 {
		v.Role = roles[0]
	}
	v.Type = e.Type
	for _, t := range e.Tasks {
		v.Tasks = append(v.Tasks, s.task(t))
	}
	for _, t := range e.Queued {
		task := s.task(t)
		v.Queued = append(v.Queued, queuedView{
			ID: task.ID, Name: task.Name, AgentID: task.AgentID, Resources: task.Resources, Role: task.Role, ExecutorID: e.ID,
			Discovery: task.Discovery,
		})
	}
	for _, t := range slices.Concat(e.Terminated, e.Completed) {
		v.Completed = append(v.Completed, s.task(t))
	}
	for _, tasks := range [][]taskView{v.Tasks, v.Completed} {
		for i := range tasks {
			tasks[i].ExecutorID = e.ID
		}
	}
	return v
}

// overhead is what a command executor counts as holding itself.
var overhead = map[string]any{"cpus": number(0.1), "gpus": number(0), "mem": number(32), "disk": number(0)}

func ended(state mesos.TaskState) bool {
	switch state {
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_KILLING:
		return false
	}
	return true
}

func (s *Server) task(t *mesos.Task) taskView {
	v := taskView{
		ID: t.GetTaskId().GetValue(), Name: t.GetName(), FrameworkID: t.GetFrameworkId().GetValue(),
		AgentID: t.GetAgentId().GetValue(), State: t.GetState().String(), Statuses: []statusView{}, User: t.GetUser(),
		Labels: labels(t.GetLabels()), Discovery: message(t.GetDiscovery()), Container: message(t.GetContainer()),
		HealthCheck: message(t.GetHealthCheck()),
	}
	// ExecutorID stays empty: these are command tasks.
	rs, err := resources.FromProto(t.GetResources())
	if err != nil {
		// They were valid when the task was accepted.
		s.log.Warn("task has invalid resources", "task_id", v.ID, "err", err)
	}
	v.Resources = summary(rs)
	if roles := rs.Allocations(); len(roles) > 0 {
		v.Role = roles[0]
	}
	for name, limit := range t.GetLimits() {
		if v.Limits == nil {
			v.Limits = map[string]number{}
		}
		v.Limits[name] = number(limit.GetValue())
	}
	for _, st := range t.GetStatuses() {
		v.Statuses = append(v.Statuses, statusView{
			State: st.GetState().String(), Timestamp: number(st.GetTimestamp()), Labels: labels(st.GetLabels()),
			Container: message(st.GetContainerStatus()), Healthy: st.Healthy,
		})
	}
	return v
}

func labels(l *mesos.Labels) []json.RawMessage {
	if len(l.GetLabels()) == 0 {
		return nil
	}
	return messages(l.GetLabels())
}
