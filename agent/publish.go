package agent

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/agent/status"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/nodeapi"
)

// changes is what of the record is to be written at the end of this turn.
type changes struct {
	// tasks holds those that changed; nil for one that is gone.
	tasks map[status.Key]*task
	// runs holds the executors that changed; nil for one that is gone.
	runs map[runKey]*run
	// all asks for everything, which happens once.
	all, resources, health bool
}

// publish writes what changed to the node's record, in one assignment.
func (a *Agent) publish() {
	var out []record.Assignment
	put := func(key string, m proto.Message) {
		value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			// These messages hold nothing but plain fields; only text that is no UTF-8 can do this.
			a.cfg.Log.Error("cannot publish", "key", key, "err", err)
			return
		}
		if value == nil {
			value = []byte{}
		}
		out = append(out, record.Assignment{Key: key, Value: value})
	}
	if a.changed.all {
		put(catalog.KeyNode, a.node())
		maps.Copy(a.changed.tasks, a.tasks)
		maps.Copy(a.changed.runs, a.runs)
	}
	for key, t := range a.changed.tasks {
		name := catalog.TaskKey(key.Framework, key.Task)
		if t == nil || t.forgotten && terminal(t.state) {
			out = append(out, record.Assignment{Key: name})
			continue
		}
		put(name, a.summary(t))
	}
	for key, r := range a.changed.runs {
		name := catalog.ExecutorKey(key.framework, key.executor)
		if r == nil {
			out = append(out, record.Assignment{Key: name})
			continue
		}
		put(name, a.runSummary(r))
	}
	if a.changed.all || a.changed.resources {
		a.tellOver()
		put(catalog.KeyResources, &catalog.Resources{
			Total: nodeapi.ResourcesToCatalog(a.ledger.Total()), Free: nodeapi.ResourcesToCatalog(a.ledger.Free()),
		})
	}
	if a.changed.all || a.changed.health {
		put(catalog.KeyHealth, &catalog.Health{Draining: a.draining != nil || a.leaving, Problems: slices.Sorted(maps.Values(a.problems)), Degraded: a.useless()})
	}
	clear(a.changed.tasks)
	clear(a.changed.runs)
	a.changed.all, a.changed.resources, a.changed.health = false, false, false
	if len(out) > 0 {
		slices.SortFunc(out, func(x, y record.Assignment) int { return strings.Compare(x.Key, y.Key) })
		a.cfg.Mesh.Set(out...)
	}
}

// tellOver tells of tasks that hold more than the node has: its resources were made less while they ran.
func (a *Agent) tellOver() {
	text := ""
	if over := a.ledger.Over(); !over.Empty() {
		text = fmt.Sprintf("running tasks hold %s beyond what this agent has by its present configuration: they keep it, and none of it is offered until they have ended", over)
	}
	if before := a.problems["over"]; before != text && text != "" {
		a.cfg.Log.Warn("running tasks hold more than this agent has", "over", a.ledger.Over().String(), "total", a.ledger.Total().String())
	}
	a.problem("over", text)
}

func (a *Agent) node() *catalog.Node {
	return &catalog.Node{
		Roles: a.cfg.Roles, Hostname: a.cfg.Hostname, Address: a.cfg.Address, Port: uint32(a.cfg.Port), AgentId: a.cfg.ID,
		Attributes: nodeapi.AttributesToCatalog(a.cfg.Attributes), Region: a.cfg.Region, Zone: a.cfg.Zone,
		Version: a.cfg.Version, Started: a.started.UnixNano(),
		Capabilities: []string{mesos.AgentInfo_Capability_AGENT_DRAINING.String()},
	}
}

// summary is what the mesh is told of a task, and what stands in for its intent should that not read any more.
func (a *Agent) summary(t *task) *catalog.Task {
	s := &catalog.Task{
		TaskId: t.key.Task, FrameworkId: t.key.Framework, FrameworkName: strings.ToValidUTF8(t.framework.info.GetName(), "\uFFFD"), ExecutorId: t.executorID(),
		Name: t.info.GetName(), State: int32(t.state), Discovery: nodeapi.DiscoveryToCatalog(t.info.GetDiscovery()),
		ContainerId: t.within(), Launched: t.launched.UnixNano(), Checked: t.info.GetHealthCheck() != nil,
	}
	if n := len(t.updates); n > 0 {
		s.Changed = uint32(max(0, t.updates[n-1].GetTimestamp()))
	}
	t.facts.put(s)
	if roles := t.res.Allocations(); len(roles) > 0 {
		s.Role = roles[0]
	}
	if !terminal(t.state) {
		s.Resources = nodeapi.ResourcesToCatalog(t.res)
	}
	return s
}

// describe answers what the record leaves out.
func (a *Agent) describe(d *nodeapi.Describe) *nodeapi.Description {
	wanted := map[string]bool{}
	for _, id := range d.GetFrameworkIds() {
		wanted[id.GetValue()] = true
	}
	awaited := map[string]bool{} // by operations whose end is not acknowledged
	for _, op := range a.made.doc.GetPending() {
		awaited[op.GetFrameworkId().GetValue()] = true
	}
	out := &nodeapi.Description{}
	for _, id := range slices.Sorted(maps.Keys(a.frameworks)) {
		if f := a.frameworks[id]; (f.tasks > 0 || awaited[id]) && (len(wanted) == 0 || wanted[id]) {
			out.Frameworks = append(out.Frameworks, f.info)
		}
	}
	for _, t := range a.sorted() {
		if len(wanted) == 0 || wanted[t.key.Framework] {
			out.Tasks = append(out.Tasks, a.proto(t))
		}
	}
	for _, r := range a.sortedRuns() {
		if a.runs[r.key] == r && (len(wanted) == 0 || wanted[r.key.framework]) {
			out.Executors = append(out.Executors, &nodeapi.Executor{FrameworkId: r.framework.info.GetId(), Info: r.info})
		}
	}
	out.Operations = a.made.doc.GetPending()
	return out
}

// sorted returns the tasks in order of their keys.
func (a *Agent) sorted() []*task {
	return slices.SortedFunc(maps.Values(a.tasks), compareTasks)
}

func compareTasks(x, y *task) int {
	return strings.Compare(x.key.Framework+"\x00"+x.key.Task, y.key.Framework+"\x00"+y.key.Task)
}

// sortedRuns returns the runs of executors in order of their keys.
func (a *Agent) sortedRuns() []*run {
	return slices.SortedFunc(maps.Values(a.runIDs), func(x, y *run) int {
		return strings.Compare(x.key.framework+"\x00"+x.key.executor+"\x00"+x.container, y.key.framework+"\x00"+y.key.executor+"\x00"+y.container)
	})
}

// proto is a task in the form of the v1 API. Its parts are shared and must not be modified.
func (a *Agent) proto(t *task) *mesos.Task {
	out := &mesos.Task{
		Name: t.info.Name, TaskId: t.info.GetTaskId(), FrameworkId: &mesos.FrameworkID{Value: &t.key.Framework},
		ExecutorId: &mesos.ExecutorID{Value: proto.String(t.executorID())}, AgentId: &mesos.AgentID{Value: &a.cfg.ID}, State: t.state.Enum(),
		Resources: t.res.Proto(), Statuses: slices.Clone(t.updates), Labels: t.info.GetLabels(), Discovery: t.info.GetDiscovery(),
		Container: t.info.GetContainer(), HealthCheck: t.info.GetHealthCheck(), KillPolicy: t.info.GetKillPolicy(), Limits: t.info.GetLimits(),
	}
	if user := t.info.GetCommand().GetUser(); user != "" {
		out.User = &user
	} else if user := t.framework.info.GetUser(); user != "" {
		out.User = &user
	}
	if head, ok := a.streams.Head(t.key); ok {
		st := head.Payload.(*mesos.TaskStatus)
		out.StatusUpdateState, out.StatusUpdateUuid = st.State, st.Uuid
	} else if n := len(t.updates); n > 0 {
		out.StatusUpdateState, out.StatusUpdateUuid = t.updates[n-1].State, t.updates[n-1].Uuid
	}
	return out
}

// keyOf reads the key from anything that names a framework and a task.
func keyOf(m interface {
	GetFrameworkId() *mesos.FrameworkID
	GetTaskId() *mesos.TaskID
},
) status.Key {
	return status.Key{Framework: m.GetFrameworkId().GetValue(), Task: m.GetTaskId().GetValue()}
}

func protocolOf(address string) mesos.NetworkInfo_Protocol {
	if ip := net.ParseIP(address); ip != nil && ip.To4() == nil {
		return mesos.NetworkInfo_IPv6
	}
	return mesos.NetworkInfo_IPv4
}
