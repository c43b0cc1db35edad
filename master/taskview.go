package master

import (
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// TaskView shows a task as it was at one moment. It is cheap to make, as nothing in it is decoded before somebody looks.
type TaskView struct {
	// State is that of the task, as its framework can understand it.
	State mesos.TaskState

	key        taskKey
	agent      string
	address    string // of the agent
	executor   string // "" where none is shown
	user       string // of the framework
	role       string
	current    mesos.TaskState // in the record
	rec        entry
	definition definition
	statuses   statuses
	forwarded  *forwarded
}

// ID, FrameworkID and AgentID are the values of the task's ids.
func (v *TaskView) ID() string { return v.key.task }

// FrameworkID is that of the framework which launched it.
func (v *TaskView) FrameworkID() string { return v.key.framework }

// AgentID is that of the agent on which it is or was.
func (v *TaskView) AgentID() string { return v.agent }

// FirstSeen is when the task was in the first of its known states, in seconds since the epoch.
func (v *TaskView) FirstSeen() float64 {
	switch {
	case len(v.statuses) > 0:
		return v.statuses[0].at
	case v.rec != nil:
		return float64(v.rec.decode().GetLaunched()/1000) / 1e6
	}
	return 0
}

// changed has a task shown anew.
func (m *Master) changed(t *task) {
	t.shown = nil
	if f := m.frameworks[t.key.framework]; f != nil && f.tasks.byID[t.key.task] == t {
		f.tasks.changed(t.key.task)
	}
}

// show returns a task as tools see it. It is made once for each change.
func (m *Master) show(t *task) *TaskView {
	if t.shown != nil {
		return t.shown
	}
	a := m.agents[t.agent]
	v := &TaskView{
		State: m.stateShown(t), key: t.key, agent: t.agent, address: a.address(), role: t.role, current: t.state, rec: t.rec,
		definition: t.definition, statuses: t.statuses, forwarded: t.forwarded,
	}
	// A command task's executor is its own, and not shown.
	if t.ownExecutor || a != nil && a.executors[executorKey{t.key.framework, t.executor}] != nil {
		v.executor = t.executor
	}
	if f := m.frameworks[t.key.framework]; f != nil {
		v.user = f.info.GetUser()
	}
	t.shown = v
	return v
}

// Message is the task as the API shows it. The message is the caller's.
func (v *TaskView) Message() *mesos.Task {
	s := new(mesos.Task)
	var rec *catalog.Task
	if v.rec != nil {
		rec = v.rec.decode()
	}
	switch {
	case v.definition != nil:
		s = v.definition.decode()
	case rec != nil:
		s.Name = proto.String(rec.GetName())
		s.Resources = nodeapi.ResourcesFromCatalog(rec.GetResources()).AllocatedTo(v.role).ProtoEndpoint()
		s.Discovery = nodeapi.DiscoveryFromCatalog(rec.GetDiscovery())
	}
	s.TaskId = &mesos.TaskID{Value: proto.String(v.key.task)}
	s.FrameworkId = &mesos.FrameworkID{Value: proto.String(v.key.framework)}
	s.AgentId = agentID(v.agent)
	s.State = v.State.Enum()
	if s.GetUser() == "" && v.user != "" {
		s.User = proto.String(v.user)
	}
	if v.executor != "" {
		s.ExecutorId = &mesos.ExecutorID{Value: proto.String(v.executor)}
	}
	s.Statuses = v.statuses.decode()
	if len(s.Statuses) == 0 && rec != nil {
		s.Statuses = []*mesos.TaskStatus{recordedStatus(v.key, v.agent, v.current, rec, v.address)}
	}
	if v.forwarded != nil {
		s.StatusUpdateState = v.forwarded.state.Enum()
		s.StatusUpdateUuid = v.forwarded.uuid
	}
	return s
}

// endpointFormat writes resources as the reading endpoints do. What was accepted is valid, so that nothing gets lost.
func endpointFormat(rs []*mesos.Resource) []*mesos.Resource {
	r, err := resources.FromProto(rs)
	if err != nil {
		return rs
	}
	return r.ProtoEndpoint()
}

// recordedStatus stands for the updates that this master has not seen. node is the agent's address.
func recordedStatus(key taskKey, agent string, state mesos.TaskState, rec *catalog.Task, node string) *mesos.TaskStatus {
	return &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: proto.String(key.task)}, State: state.Enum(), AgentId: agentID(agent),
		Timestamp: proto.Float64(float64(rec.GetLaunched()/1000) / 1e6), Healthy: rec.Healthy,
		ContainerStatus: containerStatus(rec, node),
	}
}
