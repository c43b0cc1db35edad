package scale_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// What each simulated agent has: room for many more tasks than it gets.
const agentResources = "cpus:32;mem:65536;disk:500000;ports:[31000-32000]"

// fleet is all simulated agents. They start nothing: a launch is noted, told in the record, and reported as running. Calls
// reach them over HTTP, at one listener that serves all; to the master each has an address, and so connections, of its own.
// What the mesh would bring comes with answers and reports, and is merged by the master. It keeps as little as it can, and
// encoded, since its memory is that of the process which is measured.
type fleet struct {
	t      testing.TB
	mesh   *mastertest.Mesh
	agents []*node
	byID   map[string]*node
	report *nodeapi.Client // from agents to the master
	server *http.Server
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)

	tasks     atomic.Int64
	describes atomic.Int64
	reports   sync.WaitGroup
	// launched, where set, is told the moment at which a launch arrives.
	launched atomic.Pointer[func(task string, at time.Time)]
}

// node is one agent.
type node struct {
	fleet *fleet
	id    string
	addr  string

	mu         sync.Mutex
	own        *record.Map
	total      resources.Resources
	used       resources.Resources
	told       uint64 // the version of the record that the last answer or report brought
	epoch      uint64
	leader     string
	tasks      map[taskKey]*running
	frameworks map[string][]byte // encoded mesos.FrameworkInfo
}

type taskKey struct{ framework, task string }

// running is a task that pretends to run.
type running struct {
	info    []byte // encoded mesos.TaskInfo
	rec     []byte // encoded catalog.Task
	held    resources.Resources
	pending []byte // encoded mesos.TaskStatus that waits for its acknowledgement
	over    bool
}

func newFleet(t testing.TB, mesh *mastertest.Mesh, n int) *fleet {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, mesh: mesh, byID: make(map[string]*node, n), report: nodeapi.NewClient(nodeapi.ClientConfig{})}
	var dialer net.Dialer
	f.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, ln.Addr().String())
	}
	f.server = &http.Server{Handler: f, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = f.server.Serve(ln) }()
	t.Cleanup(func() {
		_ = f.server.Close()
		f.reports.Wait()
		f.report.Close()
	})
	total, err := resources.Parse(agentResources, resources.AnyRole)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		id := fmt.Sprintf("%s-S%d", mastertest.MasterID, i)
		host := fmt.Sprintf("10.%d.%d.%d", 1+i>>16, i>>8&255, i&255)
		a := &node{
			fleet: f, id: id, addr: host + ":5051", own: record.NewMap(id, 1), total: total,
			tasks: make(map[taskKey]*running), frameworks: make(map[string][]byte),
		}
		a.own.Set(time.Now(), record.Assignment{Key: catalog.KeyNode, Value: encode(&catalog.Node{
			Roles: []string{catalog.RoleAgent}, Hostname: fmt.Sprintf("node-%05d.edge.example", i), Address: host, Port: 5051, AgentId: id,
			Region: "eu", Zone: fmt.Sprint("zone-", i%3),
			Attributes: []*catalog.Attribute{{Name: "rack", Kind: catalog.Kind_TEXT, Text: fmt.Sprint("r", i%200)}},
		})})
		a.publish()
		f.agents, f.byID[id] = append(f.agents, a), a
		if err := mesh.Apply(a.delta()); err != nil {
			t.Fatal(err)
		}
		mesh.SetLiveness(time.Now(), id, record.Alive)
	}
	return f
}

func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // messages of ours always encode
	}
	return b
}

// publish writes the resources into the record. The lock is held, or nobody else knows the agent yet.
func (a *node) publish() {
	a.own.Set(time.Now(), record.Assignment{Key: catalog.KeyResources, Value: encode(&catalog.Resources{
		Total: nodeapi.ResourcesToCatalog(a.total), Free: nodeapi.ResourcesToCatalog(a.total.Sub(a.used)),
	})})
}

// delta is what the record has gained since it was last told.
func (a *node) delta() []byte {
	since := a.told
	a.told = a.own.Snapshot(a.id).Version()
	return a.own.Delta(a.id, since)
}

// ServeHTTP serves the node protocol for all agents.
func (f *fleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, nodeapi.MaxBody+1))
	if err != nil {
		return
	}
	resp := nodeapi.ServeCall(r.Context(), nil, nodeapi.Request{
		Method: r.Method, Path: r.URL.Path, Header: r.Header.Get, Body: body,
	}, f.call)
	for name, value := range resp.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(resp.Status)
	_, _ = w.Write(resp.Body)
}

func (f *fleet) call(_ context.Context, call *nodeapi.Call) (*nodeapi.Reply, error) {
	at := time.Now()
	a := f.byID[call.GetAgentId()]
	if a == nil {
		return nil, nodeapi.ErrWrongAgent
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if call.GetEpoch() < a.epoch {
		return nil, &nodeapi.StaleEpochError{Known: a.epoch}
	}
	a.epoch, a.leader = call.GetEpoch(), call.GetLeader()
	since := a.told
	reply := &nodeapi.Reply{}
	switch c := call.GetCall().(type) {
	case *nodeapi.Call_Launch:
		a.launch(c.Launch, at)
	case *nodeapi.Call_Acknowledge:
		a.acknowledge(c.Acknowledge)
	case *nodeapi.Call_Describe:
		f.describes.Add(1)
		since = min(since, c.Describe.GetVersion()) // an answer may have been lost
		reply.Description = a.describe()
	}
	// What a report tells as well belongs into the answer all the same: it may arrive first.
	a.told, reply.Delta = a.own.Snapshot(a.id).Version(), a.own.Delta(a.id, since)
	return reply, nil
}

func (a *node) launch(l *nodeapi.Launch, at time.Time) {
	framework := l.GetFramework().GetId().GetValue()
	if a.frameworks[framework] == nil {
		a.frameworks[framework] = encode(l.GetFramework())
	}
	var updates []*nodeapi.StatusUpdate
	for _, info := range l.GetTasks() {
		key := taskKey{framework, info.GetTaskId().GetValue()}
		if a.tasks[key] != nil {
			continue // a repeated call
		}
		if told := a.fleet.launched.Load(); told != nil {
			(*told)(key.task, at)
		}
		held, err := resources.FromProto(info.GetResources())
		held = held.Unallocated()
		if err != nil || !a.total.Sub(a.used).Contains(held) {
			a.fleet.t.Errorf("agent %q is asked to launch %v with %v in use of %v: %v", a.id, held, a.used, a.total, err)
			continue
		}
		a.used = a.used.Add(held)
		rec := &catalog.Task{
			TaskId: key.task, FrameworkId: framework, FrameworkName: l.GetFramework().GetName(), Name: info.GetName(), ExecutorId: key.task,
			State: int32(mesos.TaskState_TASK_RUNNING), Resources: nodeapi.ResourcesToCatalog(held),
			Discovery: nodeapi.DiscoveryToCatalog(info.GetDiscovery()), Role: l.GetFramework().GetRoles()[0],
			ContainerId: uuid(), Launched: at.UnixNano(),
		}
		t := &running{info: encode(info), rec: encode(rec), held: held}
		a.tasks[key] = t
		a.fleet.tasks.Add(1)
		a.own.Set(at, record.Assignment{Key: catalog.TaskKey(framework, key.task), Value: t.rec})
		updates = append(updates, a.turn(key, t, mesos.TaskState_TASK_RUNNING))
	}
	a.publish()
	a.send(updates)
}

// turn makes the update that brings a task into a state.
func (a *node) turn(key taskKey, t *running, state mesos.TaskState) *nodeapi.StatusUpdate {
	id := newUUID()
	host, _, _ := net.SplitHostPort(a.addr)
	status := &mesos.TaskStatus{
		TaskId: &mesos.TaskID{Value: proto.String(key.task)}, State: state.Enum(), Uuid: id[:],
		Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(), AgentId: &mesos.AgentID{Value: proto.String(a.id)},
		ExecutorId: &mesos.ExecutorID{Value: proto.String(key.task)}, Timestamp: proto.Float64(float64(time.Now().UnixMicro()) / 1e6),
		ContainerStatus: &mesos.ContainerStatus{
			ContainerId: &mesos.ContainerID{Value: proto.String(key.task)}, ExecutorPid: proto.Uint32(4711),
			NetworkInfos: []*mesos.NetworkInfo{{IpAddresses: []*mesos.NetworkInfo_IPAddress{
				{Protocol: mesos.NetworkInfo_IPv4.Enum(), IpAddress: proto.String(host)},
			}}},
		},
	}
	t.pending = encode(status)
	return &nodeapi.StatusUpdate{
		FrameworkId: &mesos.FrameworkID{Value: proto.String(key.framework)}, Status: status, LatestState: int32(state),
	}
}

// send reports updates to the leader, soon. The lock is held.
func (a *node) send(updates []*nodeapi.StatusUpdate) {
	if len(updates) == 0 || a.leader == "" {
		return
	}
	report := &nodeapi.Report{Epoch: a.epoch, AgentId: a.id, Updates: updates, Delta: a.delta()}
	leader := a.leader
	a.fleet.reports.Go(func() {
		for range 100 {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			err := a.fleet.report.Report(ctx, leader, report)
			cancel()
			a.mu.Lock()
			moved := a.leader != leader || a.epoch != report.GetEpoch()
			a.mu.Unlock()
			if err == nil || moved {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// change ends a task, or toggles its health, in the record and by an update.
func (a *node) change(key taskKey, state mesos.TaskState) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[key]
	if t == nil || t.over {
		return fmt.Errorf("agent %q has no task %v", a.id, key)
	}
	rec := new(catalog.Task)
	if err := proto.Unmarshal(t.rec, rec); err != nil {
		return err
	}
	if state == mesos.TaskState_TASK_RUNNING {
		rec.Healthy = proto.Bool(!rec.GetHealthy())
	} else {
		t.over = true
		a.used = a.used.Sub(t.held)
		rec.State, rec.Resources = int32(state), nil
	}
	t.rec = encode(rec)
	a.own.Set(time.Now(), record.Assignment{Key: catalog.TaskKey(key.framework, key.task), Value: t.rec})
	update := a.turn(key, t, state)
	update.Status.Healthy = rec.Healthy
	if t.over {
		a.publish()
	}
	a.send([]*nodeapi.StatusUpdate{update})
	return nil
}

func (a *node) acknowledge(ack *nodeapi.Acknowledge) {
	key := taskKey{ack.GetFrameworkId().GetValue(), ack.GetTaskId().GetValue()}
	t := a.tasks[key]
	if t == nil || t.pending == nil {
		return
	}
	status := new(mesos.TaskStatus)
	if err := proto.Unmarshal(t.pending, status); err != nil || string(status.GetUuid()) != string(ack.GetUuid()) {
		return
	}
	t.pending = nil
	if t.over {
		delete(a.tasks, key)
		a.fleet.tasks.Add(-1)
		a.own.Set(time.Now(), record.Assignment{Key: catalog.TaskKey(key.framework, key.task)})
	}
}

func (a *node) describe() *nodeapi.Description {
	d := &nodeapi.Description{}
	for _, b := range a.frameworks {
		info := new(mesos.FrameworkInfo)
		if err := proto.Unmarshal(b, info); err != nil {
			a.fleet.t.Error(err)
		}
		d.Frameworks = append(d.Frameworks, info)
	}
	for key, t := range a.tasks {
		info, rec := new(mesos.TaskInfo), new(catalog.Task)
		if err := errors.Join(proto.Unmarshal(t.info, info), proto.Unmarshal(t.rec, rec)); err != nil {
			a.fleet.t.Error(err)
		}
		d.Tasks = append(d.Tasks, &mesos.Task{
			Name: info.Name, TaskId: info.GetTaskId(), FrameworkId: &mesos.FrameworkID{Value: proto.String(key.framework)},
			AgentId: &mesos.AgentID{Value: proto.String(a.id)}, State: mesos.TaskState(rec.GetState()).Enum(),
			Resources: info.GetResources(), Labels: info.Labels, Discovery: info.Discovery, User: proto.String("svc"),
			Statuses: []*mesos.TaskStatus{{
				TaskId: info.GetTaskId(), State: mesos.TaskState(rec.GetState()).Enum(), AgentId: &mesos.AgentID{Value: proto.String(a.id)},
				Timestamp: proto.Float64(float64(rec.GetLaunched()/1000) / 1e6), Healthy: rec.Healthy,
			}},
		})
	}
	return d
}

// settled tells whether every update was acknowledged.
func (f *fleet) settled() bool {
	for _, a := range f.agents {
		a.mu.Lock()
		waiting := slices.ContainsFunc(values(a.tasks), func(t *running) bool { return t.pending != nil })
		a.mu.Unlock()
		if waiting {
			return false
		}
	}
	return true
}

// runs tells whether a task was launched, and what was told of it is acknowledged.
func (a *node) runs(key taskKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[key]
	return t != nil && !t.over && t.pending == nil
}

// any returns a task of an agent that runs.
func (a *node) any() (taskKey, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, t := range a.tasks {
		if !t.over && t.pending == nil {
			return key, true
		}
	}
	return taskKey{}, false
}

func values[K comparable, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

var uuids atomic.Uint64

// newUUID counts instead of drawing: it has to differ, no more.
func newUUID() (id [16]byte) {
	binary.BigEndian.PutUint64(id[8:], uuids.Add(1))
	return id
}

func uuid() string {
	id := newUUID()
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
