package mastertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// Fault is what goes wrong with a call to an agent.
type Fault int

// The values of Fault.
const (
	// None lets a call through.
	None Fault = iota
	// Unreachable fails like a connection that is refused: nothing arrives.
	Unreachable
	// Silent obeys the call and loses the answer.
	Silent
	// Lost loses the call, in a way that the caller cannot tell from Silent.
	Lost
)

// Agent is a simulated agent. All methods may be called from any goroutine.
type Agent struct {
	// ID is the Mesos agent id and the name of the node.
	ID string
	// Report, where set, delivers reports; without it updates stay where they are.
	Report func(ctx context.Context, leader string, report *nodeapi.Report) error
	// Quiet keeps the record's news from the mesh: only answers and reports carry them.
	Quiet bool

	mesh *Mesh
	addr string

	mu         sync.Mutex
	own        *record.Map
	generation uint64
	node       *catalog.Node
	total      resources.Resources
	used       map[taskKey]resources.Resources
	tasks      map[taskKey]*runningTask
	frameworks map[string]*mesos.FrameworkInfo
	executors  map[taskKey]*mesos.ExecutorInfo // by framework and executor id
	epoch      uint64
	leader     string
	fault      func(*nodeapi.Call) Fault
	calls      []*nodeapi.Call
	started    map[taskKey]int
	messages   []*nodeapi.ExecutorMessage
	ops        operations
	draining   *nodeapi.Drain
	gone       bool
	stubborn   bool
}

type taskKey struct{ framework, task string }

type runningTask struct {
	info    *mesos.TaskInfo
	rec     *catalog.Task
	pending []*mesos.TaskStatus // not acknowledged yet, oldest first
	sent    string              // the uuid of the update that was reported last
}

// NewAgent returns an agent with resources such as "cpus:4;mem:4096", which is in no mesh yet. address is its "host:port".
func NewAgent(id, address, res string) (*Agent, error) {
	total, err := resources.Parse(res, resources.AnyRole)
	if err != nil {
		return nil, err
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of %q: %w", address, err)
	}
	a := &Agent{
		ID: id, addr: address, generation: 1, total: total,
		node: &catalog.Node{
			Roles: []string{catalog.RoleAgent}, Hostname: host, Address: host, Port: uint32(port), AgentId: id,
			Capabilities: []string{mesos.AgentInfo_Capability_AGENT_DRAINING.String()},
		},
		used: make(map[taskKey]resources.Resources), tasks: make(map[taskKey]*runningTask),
		frameworks: make(map[string]*mesos.FrameworkInfo), executors: make(map[taskKey]*mesos.ExecutorInfo), started: make(map[taskKey]int),
		ops: newOperations(),
	}
	a.own = record.NewMap(id, a.generation)
	a.publish()
	return a, nil
}

// Addr is where the agent is reached.
func (a *Agent) Addr() string { return a.addr }

// SetNode changes what the agent's record says of the node: attributes, where it stands.
func (a *Agent) SetNode(change func(*catalog.Node)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	since := a.own.Snapshot(a.ID).Version()
	change(a.node)
	a.publish()
	a.spread(since)
}

// Join puts the agent's record into a mesh, alive, and keeps it there.
func (a *Agent) Join(m *Mesh) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mesh = m
	if err := m.Apply(a.own.Delta(a.ID, 0)); err != nil {
		return err
	}
	m.SetLiveness(time.Now(), a.ID, record.Alive)
	return nil
}

// Restart begins a new generation of the record with the same tasks, as an agent does that was killed and started.
func (a *Agent) Restart() error {
	a.mu.Lock()
	a.generation++
	a.own = record.NewMap(a.ID, a.generation)
	a.publish()
	for key, t := range a.tasks {
		a.setTask(key, t)
	}
	for key, e := range a.executors {
		a.setExecutor(key, e)
	}
	m := a.mesh
	a.mu.Unlock()
	return a.Join(m)
}

// Drop makes the agent forget a task without a word, as a lost disk would.
func (a *Agent) Drop(framework, id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := taskKey{framework, id}
	delete(a.tasks, key)
	delete(a.used, key)
	since := a.own.Snapshot(a.ID).Version()
	a.own.Set(time.Now(), record.Assignment{Key: catalog.TaskKey(framework, id)})
	a.publish()
	a.spread(since)
}

// TellTask puts the entry of one task alone into the mesh, ahead of all else that this was not told, as urgent news travel.
func (a *Agent) TellTask(framework, id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mesh.Apply(a.own.Entries(nil, a.ID, a.generation, []string{catalog.TaskKey(framework, id)}))
}

// SetFault decides what goes wrong with each call; nil lets all through.
func (a *Agent) SetFault(fault func(*nodeapi.Call) Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault = fault
}

// SetEpoch makes the agent have obeyed an epoch.
func (a *Agent) SetEpoch(epoch uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.epoch = epoch
}

// SetStubborn makes the tasks of the agent survive a drain, or not.
func (a *Agent) SetStubborn(stubborn bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stubborn = stubborn
}

// SetCapabilities makes the agent say that it has these and no others, and tells the mesh.
func (a *Agent) SetCapabilities(capabilities ...string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.node.Capabilities = capabilities
	since := a.own.Snapshot(a.ID).Version()
	a.publish()
	if a.mesh == nil {
		return nil
	}
	return a.mesh.Apply(a.own.Delta(a.ID, since))
}

// Forget makes the agent forget that it drains, as a lost file would, and begin a new generation of its record.
func (a *Agent) Forget() error {
	a.mu.Lock()
	a.draining = nil
	a.mu.Unlock()
	return a.Restart()
}

// Know makes the agent know a framework of which it runs nothing, and begin a new generation of its record.
func (a *Agent) Know(info *mesos.FrameworkInfo) error {
	a.mu.Lock()
	a.frameworks[info.GetId().GetValue()] = info
	a.mu.Unlock()
	return a.Restart()
}

// Draining returns the drain that the agent obeys, nil for none, and whether it was told that it is gone.
func (a *Agent) Draining() (drain *nodeapi.Drain, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.draining, a.gone
}

// Calls returns the calls that arrived, in order.
func (a *Agent) Calls() []*nodeapi.Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

// Starts returns how often a task was started; more than once is a disaster.
func (a *Agent) Starts(framework, id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.started[taskKey{framework, id}]
}

// Tasks returns the ids of the tasks that the agent holds, sorted.
func (a *Agent) Tasks() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []string
	for key := range a.tasks {
		ids = append(ids, key.task)
	}
	slices.Sort(ids)
	return ids
}

// Finish ends a task in a state, and reports it.
func (a *Agent) Finish(ctx context.Context, framework, id string, state mesos.TaskState) error {
	a.mu.Lock()
	key := taskKey{framework, id}
	t := a.tasks[key]
	if t == nil {
		a.mu.Unlock()
		return fmt.Errorf("no task %q", id)
	}
	since := a.own.Snapshot(a.ID).Version()
	a.turn(key, t, state)
	a.spread(since)
	a.mu.Unlock()
	return a.Flush(ctx)
}

// Update reports a status of a task that may have the state it had, after change has put more into it.
func (a *Agent) Update(ctx context.Context, framework, id string, state mesos.TaskState, change func(*mesos.TaskStatus)) error {
	a.mu.Lock()
	key := taskKey{framework, id}
	t := a.tasks[key]
	if t == nil {
		a.mu.Unlock()
		return fmt.Errorf("no task %q", id)
	}
	since := a.own.Snapshot(a.ID).Version()
	a.turn(key, t, state)
	change(t.pending[len(t.pending)-1])
	a.spread(since)
	a.mu.Unlock()
	return a.Flush(ctx)
}

// Flush reports the oldest update of each task that is not acknowledged, unless it has been reported under this epoch.
func (a *Agent) Flush(ctx context.Context) error {
	a.mu.Lock()
	report := &nodeapi.Report{Epoch: a.epoch, AgentId: a.ID, Delta: a.own.Delta(a.ID, 0)}
	for _, key := range a.sorted() {
		if t := a.tasks[key]; len(t.pending) > 0 && t.sent != string(t.pending[0].GetUuid()) {
			t.sent = string(t.pending[0].GetUuid())
			report.Updates = append(report.Updates, &nodeapi.StatusUpdate{
				FrameworkId: &mesos.FrameworkID{Value: proto.String(key.framework)},
				Status:      t.pending[0], LatestState: t.rec.GetState(),
			})
		}
	}
	leader, send := a.leader, a.Report
	if send != nil {
		report.Operations = a.unsent()
	}
	a.mu.Unlock()
	if send == nil || leader == "" || len(report.Updates)+len(report.Operations) == 0 {
		return nil
	}
	return send(ctx, leader, report)
}

func (a *Agent) sorted() []taskKey {
	return slices.SortedFunc(maps.Keys(a.tasks), func(x, y taskKey) int {
		return slices.Compare([]string{x.framework, x.task}, []string{y.framework, y.task})
	})
}

// publish writes node and resources into the record. The lock is held.
func (a *Agent) publish() {
	free := a.free()
	a.own.Set(time.Now(),
		assignment(catalog.KeyNode, a.node),
		assignment(catalog.KeyResources, &catalog.Resources{
			Total: nodeapi.ResourcesToCatalog(a.total), Free: nodeapi.ResourcesToCatalog(free),
		}),
		assignment(catalog.KeyHealth, &catalog.Health{Draining: a.draining != nil || a.gone}))
}

// free is what nobody uses. The lock is held.
func (a *Agent) free() resources.Resources {
	free := a.total
	for _, r := range a.used {
		free = free.Sub(r)
	}
	for _, e := range a.executors {
		if held, err := resources.FromProto(e.GetResources()); err == nil {
			free = free.Sub(held.Unallocated())
		}
	}
	return free
}

// setTask writes a task into the record. The lock is held.
func (a *Agent) setTask(key taskKey, t *runningTask) {
	a.own.Set(time.Now(), assignment(catalog.TaskKey(key.framework, key.task), t.rec))
}

func assignment(key string, m proto.Message) record.Assignment {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // messages of ours always encode
	}
	return record.Assignment{Key: key, Value: value}
}

// spread gossips what changed. The lock is held.
func (a *Agent) spread(since uint64) {
	if a.mesh != nil && !a.Quiet {
		_ = a.mesh.Apply(a.own.Delta(a.ID, since))
	}
}

// turn brings a task into a state, with an update to be acknowledged. The lock is held.
func (a *Agent) turn(key taskKey, t *runningTask, state mesos.TaskState) {
	id := uuid.New()
	t.pending = append(t.pending, &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: proto.String(key.task)}, State: state.Enum(),
		Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(), AgentId: &mesos.AgentID{Value: proto.String(a.ID)},
		ExecutorId: &mesos.ExecutorID{Value: proto.String(key.task)}, Uuid: id[:],
		Timestamp: proto.Float64(float64(time.Now().UnixMicro()) / 1e6),
	})
	t.rec.State = int32(state)
	switch state {
	case mesos.TaskState_TASK_STAGING, mesos.TaskState_TASK_STARTING, mesos.TaskState_TASK_RUNNING, mesos.TaskState_TASK_KILLING:
	default:
		t.rec.Resources = nil
		delete(a.used, key)
	}
	a.setTask(key, t)
	a.publish()
}

// Call obeys one call.
func (a *Agent) Call(_ context.Context, call *nodeapi.Call) (*nodeapi.Reply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fault := None
	if a.fault != nil {
		fault = a.fault(call)
	}
	switch fault {
	case Unreachable:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	case Lost:
		return nil, context.DeadlineExceeded
	}
	switch {
	case call.GetAgentId() != a.ID:
		return nil, nodeapi.ErrWrongAgent
	case call.GetEpoch() < a.epoch:
		return nil, &nodeapi.StaleEpochError{Known: a.epoch}
	}
	if call.GetEpoch() > a.epoch {
		for _, t := range a.tasks {
			t.sent = ""
		}
		clear(a.ops.sent)
	}
	a.epoch, a.leader = call.GetEpoch(), call.GetLeader()
	a.calls = append(a.calls, call)
	since := a.own.Snapshot(a.ID).Version()
	told := since // the answer tells what is newer
	if d := call.GetDescribe(); d.GetGeneration() == a.generation {
		told = min(since, d.GetVersion())
	} else if d != nil {
		told = 0
	}
	if a.knows(call) {
		told = 0 // an answer that was lost may have told of it
	}
	reply := a.obey(call)
	reply.Delta = a.own.Delta(a.ID, told)
	a.spread(since)
	if fault == Silent {
		return nil, context.DeadlineExceeded
	}
	return reply, nil
}

func (a *Agent) obey(call *nodeapi.Call) *nodeapi.Reply {
	reply := &nodeapi.Reply{}
	switch c := call.GetCall().(type) {
	case *nodeapi.Call_Launch:
		a.launch(c.Launch)
	case *nodeapi.Call_Kill:
		key := taskKey{c.Kill.GetFrameworkId().GetValue(), c.Kill.GetTaskId().GetValue()}
		if t := a.tasks[key]; t != nil && t.rec.GetResources() != nil {
			a.turn(key, t, mesos.TaskState_TASK_KILLED)
		}
	case *nodeapi.Call_Acknowledge:
		a.acknowledge(c.Acknowledge)
	case *nodeapi.Call_Apply:
		reply.Operations = a.apply(c.Apply)
	case *nodeapi.Call_AcknowledgeOperation:
		a.acknowledgeOperation(c.AcknowledgeOperation)
	case *nodeapi.Call_ShutdownFramework:
		a.forgetOperations(c.ShutdownFramework.GetFrameworkId().GetValue())
		for _, key := range a.sorted() {
			if key.framework == c.ShutdownFramework.GetFrameworkId().GetValue() {
				a.forget(key)
			}
		}
		a.endExecutors(c.ShutdownFramework.GetFrameworkId().GetValue())
	case *nodeapi.Call_Drain:
		a.draining = c.Drain
		for _, key := range a.sorted() {
			if t := a.tasks[key]; t.rec.GetResources() != nil && !a.stubborn {
				a.turn(key, t, mesos.TaskState_TASK_KILLED)
			}
		}
		a.publish()
	case *nodeapi.Call_Reactivate:
		a.draining = nil
		a.publish()
	case *nodeapi.Call_Shutdown:
		for _, key := range a.sorted() {
			a.forget(key)
		}
		a.endExecutors("")
		a.gone = a.gone || c.Shutdown.GetGone()
		a.publish()
	case *nodeapi.Call_Message:
		a.messages = append(a.messages, c.Message)
	case *nodeapi.Call_Describe:
		reply.Description = a.describe()
	}
	return reply
}

func (a *Agent) launch(l *nodeapi.Launch) {
	framework := l.GetFramework().GetId().GetValue()
	a.frameworks[framework] = l.GetFramework()
	for _, info := range l.GetTasks() {
		key := taskKey{framework, info.GetTaskId().GetValue()}
		if a.tasks[key] != nil {
			continue // a repeated call
		}
		a.execute(framework, cmp.Or(l.GetGroupExecutor(), info.GetExecutor()))
		held, err := resources.FromProto(info.GetResources())
		role := "*"
		if roles := held.Allocations(); len(roles) > 0 {
			role = roles[0]
		}
		t := &runningTask{info: info, rec: &catalog.Task{
			TaskId: key.task, FrameworkId: framework, FrameworkName: l.GetFramework().GetName(), Name: info.GetName(),
			Role: role, Launched: time.Now().UnixNano(), ContainerId: uuid.NewString(),
			ExecutorId: cmp.Or(l.GetGroupExecutor(), info.GetExecutor()).GetExecutorId().GetValue(),
		}}
		a.tasks[key] = t
		if err != nil || !a.free().Contains(held.Unallocated()) {
			a.turn(key, t, mesos.TaskState_TASK_ERROR)
			continue
		}
		a.started[key]++
		a.used[key] = held.Unallocated()
		t.rec.Resources = nodeapi.ResourcesToCatalog(held.Unallocated())
		a.turn(key, t, mesos.TaskState_TASK_RUNNING)
	}
}

// execute starts an executor, if there is one to start, and it fits. It runs until its framework is shut down.
func (a *Agent) execute(framework string, e *mesos.ExecutorInfo) {
	key := taskKey{framework, e.GetExecutorId().GetValue()}
	held, err := resources.FromProto(e.GetResources())
	if e == nil || a.executors[key] != nil || err != nil || !a.free().Contains(held.Unallocated()) {
		return
	}
	a.executors[key] = e
	a.setExecutor(key, e)
	a.publish()
}

// setExecutor writes an executor into the record. The lock is held.
func (a *Agent) setExecutor(key taskKey, e *mesos.ExecutorInfo) {
	held, err := resources.FromProto(e.GetResources())
	if err != nil {
		return // it was looked at before it was entered
	}
	role := "*"
	if roles := held.Allocations(); len(roles) > 0 {
		role = roles[0]
	}
	a.own.Set(time.Now(), assignment(catalog.ExecutorKey(key.framework, key.task), &catalog.Executor{
		FrameworkId: key.framework, ExecutorId: key.task, Resources: nodeapi.ResourcesToCatalog(held.Unallocated()), Role: role,
	}))
}

// endExecutors ends the executors of a framework; of all where that is empty.
func (a *Agent) endExecutors(framework string) {
	for key := range a.executors {
		if framework == "" || key.framework == framework {
			delete(a.executors, key)
			a.own.Set(time.Now(), record.Assignment{Key: catalog.ExecutorKey(key.framework, key.task)})
		}
	}
	a.publish()
}

// knows tells whether tasks or operations of a call were taken before.
func (a *Agent) knows(call *nodeapi.Call) bool {
	l := call.GetLaunch()
	return slices.ContainsFunc(l.GetTasks(), func(info *mesos.TaskInfo) bool {
		return a.tasks[taskKey{l.GetFramework().GetId().GetValue(), info.GetTaskId().GetValue()}] != nil
	}) || slices.ContainsFunc(call.GetApply().GetUuids(), func(id []byte) bool { return a.ops.ended[string(id)] != nil })
}

func (a *Agent) acknowledge(ack *nodeapi.Acknowledge) {
	key := taskKey{ack.GetFrameworkId().GetValue(), ack.GetTaskId().GetValue()}
	t := a.tasks[key]
	if t == nil || len(t.pending) == 0 || string(t.pending[0].GetUuid()) != string(ack.GetUuid()) {
		return
	}
	t.pending = t.pending[1:]
	if len(t.pending) == 0 && t.rec.GetResources() == nil {
		a.forget(key)
	}
}

func (a *Agent) forget(key taskKey) {
	delete(a.tasks, key)
	delete(a.used, key)
	a.own.Set(time.Now(), record.Assignment{Key: catalog.TaskKey(key.framework, key.task)})
	a.publish()
}

func (a *Agent) describe() *nodeapi.Description {
	d := &nodeapi.Description{Operations: slices.Clone(a.ops.pending)}
	for _, id := range slices.Sorted(maps.Keys(a.frameworks)) {
		d.Frameworks = append(d.Frameworks, a.frameworks[id])
	}
	for key, e := range a.executors {
		d.Executors = append(d.Executors, &nodeapi.Executor{FrameworkId: &mesos.FrameworkID{Value: proto.String(key.framework)}, Info: e})
	}
	for _, key := range a.sorted() {
		t := a.tasks[key]
		d.Tasks = append(d.Tasks, &mesos.Task{
			Name: t.info.Name, TaskId: t.info.GetTaskId(), FrameworkId: &mesos.FrameworkID{Value: proto.String(key.framework)},
			AgentId: &mesos.AgentID{Value: proto.String(a.ID)}, State: mesos.TaskState(t.rec.GetState()).Enum(),
			Resources: t.info.GetResources(), Labels: t.info.Labels, Discovery: t.info.Discovery,
		})
	}
	return d
}

// ServeHTTP serves the node protocol without authentication.
func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, nodeapi.MaxBody+1))
	if err != nil {
		return
	}
	resp := nodeapi.ServeCall(r.Context(), nil, nodeapi.Request{
		Method: r.Method, Path: r.URL.Path, Header: r.Header.Get, Body: body,
	}, a.Call)
	for name, value := range resp.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(resp.Status)
	_, _ = w.Write(resp.Body)
}

// Net is a network of agents without sockets: what a master calls them through.
type Net struct {
	mu     sync.Mutex
	agents map[string]*Agent
}

// NewNet returns an empty network.
func NewNet() *Net { return &Net{agents: make(map[string]*Agent)} }

// Add makes an agent reachable.
func (n *Net) Add(a *Agent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.agents[a.Addr()] = a
}

// Call calls the agent at an address.
func (n *Net) Call(ctx context.Context, addr string, call *nodeapi.Call) (*nodeapi.Reply, error) {
	n.mu.Lock()
	a := n.agents[addr]
	n.mu.Unlock()
	if a == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no route to host")}
	}
	// As on a wire: neither side keeps the other's memory.
	reply, err := a.Call(ctx, proto.CloneOf(call))
	go func() { _ = a.Flush(context.WithoutCancel(ctx)) }()
	return reply, err
}
