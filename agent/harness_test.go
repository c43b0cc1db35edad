package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer"
	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

const (
	testAgent     = "5d7f2b7e-3c4b-4c55-9f6e-7d0f3a1b2c3d-S0"
	laterAgent    = "6e8f3c8f-3c4b-4c55-9f6e-7d0f3a1b2c3d-S0"
	testFramework = "5d7f2b7e-3c4b-4c55-9f6e-7d0f3a1b2c3d-0000"
)

// patience is how long anything may take that is waited for: a machine may have much else to do.
const patience = time.Minute

// machine is what outlives an agent in a test: its disk and its containers.
type machine struct {
	t   *testing.T
	dir string

	mu         sync.Mutex
	containers map[string]*fakeContainer
	nextPID    int
	lives      []*life
	// launches counts the starts of each task, by the MESOS_EXECUTOR_ID in its environment.
	launches map[string]int
	// onLaunch may fail a launch, stubborn containers ignore SIGTERM, undying ones cannot be destroyed.
	onLaunch func(spec containerizer.Spec) error
	stubborn bool
	undying  bool
	// broken is what the containerizer says of itself.
	broken error
	// dockerBroken is what it says of its part for the Docker engine.
	dockerBroken error
	// docker makes it take containers of the Docker engine; networks, data and disk are what its containers have.
	docker bool
	// pulling, if set, keeps containers with an image from being launched until it is closed.
	pulling  chan struct{}
	networks []*mesos.NetworkInfo
	data     []byte
	disk     []string
	signals  []int
	// groups are those that are there; nil where the containerizer has none. sizes are the last limits of containers and groups,
	// and resizeError what comes of the next ones.
	groups      map[string]containerizer.Group
	sizes       map[string]containerizer.Limits
	resizeError error

	generation uint64
}

type fakeContainer struct {
	spec    containerizer.Spec
	pid     int
	started time.Time
	exit    *containerizer.Exit
}

func newMachine(t *testing.T) *machine {
	return &machine{t: t, dir: t.TempDir(), containers: map[string]*fakeContainer{}, launches: map[string]int{}, nextPID: 1000}
}

// life is the containerizer of one life of the agent.
type life struct {
	containerizer.Without

	m     *machine
	exits chan containerizer.Exit
	dead  bool
}

func (m *machine) connect() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &life{m: m, exits: make(chan containerizer.Exit, 4096)}
	m.lives = append(m.lives, l)
	return l
}

func envOf(spec containerizer.Spec, name string) string {
	for _, v := range spec.Env {
		if len(v) > len(name) && v[:len(name)+1] == name+"=" {
			return v[len(name)+1:]
		}
	}
	return ""
}

func (l *life) Recover(context.Context) ([]containerizer.Container, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	var out []containerizer.Container
	for id, c := range l.m.containers {
		out = append(out, containerizer.Container{
			ID: id, PID: c.pid, Started: c.started, Exit: c.exit, Note: c.spec.Note, Networks: l.m.networks, Data: l.m.data, Disk: l.m.disk,
		})
		if c.exit != nil {
			l.exits <- *c.exit
		}
	}
	if l.m.broken != nil {
		return out, fmt.Errorf("%w: %w", containerizer.ErrDegraded, l.m.broken)
	}
	return out, nil
}

func (l *life) Launch(ctx context.Context, spec containerizer.Spec) (containerizer.Container, error) {
	m := l.m
	if m.pulling != nil && containerizer.OwnRoot(spec.Container) {
		select {
		case <-m.pulling:
		case <-ctx.Done():
			return containerizer.Container{}, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.dead {
		return containerizer.Container{}, errors.New("the agent is dead")
	}
	if m.containers[spec.ID] != nil {
		return containerizer.Container{}, containerizer.ErrExists
	}
	if m.onLaunch != nil {
		if err := m.onLaunch(spec); err != nil {
			return containerizer.Container{}, err
		}
	}
	m.nextPID++
	m.launches[envOf(spec, "MESOS_EXECUTOR_ID")]++
	c := &fakeContainer{spec: spec, pid: m.nextPID, started: time.Now()}
	m.containers[spec.ID] = c
	return containerizer.Container{ID: spec.ID, PID: c.pid, Started: c.started, Networks: m.networks, Data: m.data, Disk: m.disk}, nil
}

func (l *life) Usable(c *mesos.ContainerInfo) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if containerizer.IsDocker(c) && !l.m.docker {
		return fmt.Errorf("%w: DOCKER", containerizer.ErrType)
	}
	if l.m.broken != nil {
		return fmt.Errorf("%w: %w", containerizer.ErrDegraded, l.m.broken)
	}
	if containerizer.IsDocker(c) && l.m.dockerBroken != nil {
		return fmt.Errorf("%w: %w", containerizer.ErrDegraded, l.m.dockerBroken)
	}
	return nil
}

func (l *life) Signal(_ context.Context, id string, signal int) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.containers[id] == nil {
		return containerizer.ErrUnknownContainer
	}
	l.m.signals = append(l.m.signals, signal)
	if !l.m.stubborn {
		l.m.end(id, signal)
	}
	return nil
}

func (l *life) Destroy(_ context.Context, id string) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.containers[id] == nil {
		return containerizer.ErrUnknownContainer
	}
	if l.m.undying {
		return errors.New("a process does not die")
	}
	l.m.end(id, int(syscall.SIGKILL))
	return nil
}

func (l *life) Check(context.Context) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return errors.Join(l.m.broken, l.m.dockerBroken)
}

func (l *life) Exits() <-chan containerizer.Exit { return l.exits }

func (l *life) Remove(_ context.Context, id string) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.containers[id] == nil {
		return containerizer.ErrUnknownContainer
	}
	delete(l.m.containers, id)
	return nil
}

func (l *life) Usage(context.Context, string) (containerizer.Usage, error) {
	return containerizer.Usage{CPUUser: time.Second, MemBytes: 1 << 20, Processes: 1}, nil
}

// pid is the process id of a container that is there.
func (m *machine) pid(id string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.containers[id].pid
}

// end ends a container with a raw wait status; m.mu is held.
func (m *machine) end(id string, status int) {
	c := m.containers[id]
	if c == nil || c.exit != nil {
		return
	}
	c.exit = &containerizer.Exit{ID: id, Known: true, Status: status, At: time.Now()}
	for _, l := range m.lives {
		if !l.dead {
			l.exits <- *c.exit
		}
	}
}

// exit ends the container of a task.
func (m *machine) exit(task string, status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, c := range m.containers {
		if envOf(c.spec, "MESOS_EXECUTOR_ID") == task && c.exit == nil {
			m.end(id, status)
			return
		}
	}
	m.t.Errorf("no running container of task %q", task)
}

func (m *machine) running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.containers {
		if c.exit == nil {
			n++
		}
	}
	return n
}

// started is how often a task was started.
func (m *machine) started(task string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.launches[task]
}

// fakeMesh is a mesh of one node, plus whatever a test puts into the map.
type fakeMesh struct{ *record.Map }

func (m fakeMesh) Set(changes ...record.Assignment) uint64 { return m.Map.Set(time.Now(), changes...) }

func (m fakeMesh) Delta(since uint64) []byte { return m.Map.Delta(m.Map.Self(), since) }

// lead makes a node of the mesh say that it leads.
func (m fakeMesh) lead(t *testing.T, node string, epoch uint64) {
	t.Helper()
	value, err := proto.Marshal(&catalog.Leader{Epoch: epoch, Hostname: node, Address: "127.0.0.1", Port: 5050, MasterId: node})
	if err != nil {
		t.Fatal(err)
	}
	other := record.NewMap(node, 1)
	other.Set(time.Now(), record.Assignment{Key: catalog.KeyLeader, Value: value})
	if _, err := m.Map.Apply(time.Now(), other.Delta(node, 0)); err != nil {
		t.Fatal(err)
	}
	m.Map.SetLiveness(time.Now(), node, record.Alive)
}

// world is one running agent and the leader that it talks to.
type world struct {
	t     *testing.T
	m     *machine
	agent *Agent
	mesh  fakeMesh
	life  *life
	stop  context.CancelFunc
	ended chan error

	*leaderSide
}

// leaderSide takes reports, over several lives of an agent.
type leaderSide struct {
	mu    sync.Mutex
	epoch uint64
	down  bool
	// asked is where reports were sent to; silent are addresses that do not answer, and swallows those that take reports and do no more.
	asked    []string
	silent   map[string]bool
	swallows map[string]bool
	updates  []*nodeapi.StatusUpdate
	at       []time.Time
	reports  []*nodeapi.Report
	arrived  chan struct{}
	// acknowledge makes it acknowledge every update at once.
	acknowledge bool
	target      *Agent
}

func (l *leaderSide) Report(_ context.Context, addr string, r *nodeapi.Report) error {
	l.mu.Lock()
	l.asked = append(l.asked, addr)
	if l.down || l.silent[addr] {
		l.mu.Unlock()
		return errors.New("connection refused")
	}
	if l.swallows[addr] {
		l.mu.Unlock()
		return nil
	}
	r = proto.CloneOf(r)
	l.reports = append(l.reports, r)
	var acks []*nodeapi.StatusUpdate
	for _, u := range r.GetUpdates() {
		l.updates, l.at = append(l.updates, u), append(l.at, time.Now())
		if l.acknowledge && len(u.GetStatus().GetUuid()) > 0 {
			acks = append(acks, u)
		}
	}
	target, epoch := l.target, l.epoch
	l.mu.Unlock()
	select {
	case l.arrived <- struct{}{}:
	default:
	}
	for _, u := range acks {
		go target.Call(context.Background(), acknowledgeCall(epoch, u))
	}
	return nil
}

// leads has it lead under an epoch from now on.
func (l *leaderSide) leads(epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch = epoch
}

func acknowledgeCall(epoch uint64, u *nodeapi.StatusUpdate) *nodeapi.Call {
	return &nodeapi.Call{Epoch: epoch, Leader: "127.0.0.1:5050", AgentId: testAgent, Call: &nodeapi.Call_Acknowledge{Acknowledge: &nodeapi.Acknowledge{
		FrameworkId: u.GetFrameworkId(), TaskId: u.GetStatus().GetTaskId(), Uuid: u.GetStatus().GetUuid(),
	}}}
}

// told returns the states that a task was reported in, repetitions of an update left out.
func (l *leaderSide) told(task string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	seen := map[string]bool{}
	for _, u := range l.updates {
		id := string(u.GetStatus().GetUuid())
		if u.GetStatus().GetTaskId().GetValue() != task || id != "" && seen[id] {
			continue
		}
		seen[id] = true
		out = append(out, u.GetStatus().GetState().String())
	}
	return out
}

// last returns the last status reported of a task.
func (l *leaderSide) last(task string) *mesos.TaskStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.updates) - 1; i >= 0; i-- {
		if l.updates[i].GetStatus().GetTaskId().GetValue() == task {
			return l.updates[i].GetStatus()
		}
	}
	return nil
}

func testResources(t *testing.T, text string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(text, "*")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (m *machine) config(l *life, mesh Mesh, reporter Reporter) Config {
	c := DefaultConfig()
	c.NewID = func() string { return laterAgent }
	c.ID, c.WorkDir, c.Hostname, c.Address, c.Port = testAgent, m.dir, "edge1", "127.0.0.1", 5051
	c.Resources = testResources(m.t, "cpus:4;mem:4096;disk:10240;ports:[31000-32000]")
	c.Mesh, c.Reporter, c.Containerizer = mesh, reporter, l
	c.SwitchUser, c.DiskReserve = false, 0
	c.Log = slog.New(slog.NewTextHandler(m.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	return c
}

// start starts a life of the agent; leaders and their memory may be handed from one life to the next.
func (m *machine) start(side *leaderSide, change ...func(*Config)) *world {
	m.t.Helper()
	if side == nil {
		side = &leaderSide{epoch: 1, arrived: make(chan struct{}, 1), acknowledge: true}
	}
	m.generation++
	mesh := fakeMesh{record.NewMap(testAgent, m.generation)}
	l := m.connect()
	cfg := m.config(l, mesh, side)
	for _, f := range change {
		f(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	side.mu.Lock()
	side.target = a
	epoch := side.epoch
	side.mu.Unlock()
	mesh.lead(m.t, "master-1", epoch)
	ctx, stop := context.WithCancel(context.Background())
	w := &world{t: m.t, m: m, agent: a, mesh: mesh, life: l, stop: stop, ended: make(chan error, 1), leaderSide: side}
	go func() { w.ended <- a.Run(ctx) }()
	return w
}

// end stops the agent in order.
func (w *world) end() {
	w.t.Helper()
	w.stop()
	if err := <-w.ended; err != nil {
		w.t.Errorf("run: %v", err)
	}
	w.bury()
}

// kill ends the agent as kill -9 does.
func (w *world) kill() {
	w.bury()
	close(w.agent.crash)
	<-w.ended
	w.stop()
}

func (w *world) bury() {
	w.m.mu.Lock()
	w.life.dead = true
	w.m.mu.Unlock()
}

// call makes a call and returns the answer.
func (w *world) call(c *nodeapi.Call) (*nodeapi.Reply, error) {
	c.AgentId, c.Leader = testAgent, "127.0.0.1:5050"
	if c.Epoch == 0 {
		c.Epoch = w.epoch
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return w.agent.Call(ctx, c)
}

func (w *world) mustCall(c *nodeapi.Call) *nodeapi.Reply {
	w.t.Helper()
	r, err := w.call(c)
	if err != nil {
		w.t.Fatalf("call %T: %v", c.GetCall(), err)
	}
	return r
}

func frameworkInfo(capabilities ...mesos.FrameworkInfo_Capability_Type) *mesos.FrameworkInfo {
	f := &mesos.FrameworkInfo{
		Id: &mesos.FrameworkID{Value: proto.String(testFramework)}, Name: proto.String("demo"), User: proto.String("svc"),
		Checkpoint: proto.Bool(true),
	}
	for _, c := range capabilities {
		f.Capabilities = append(f.Capabilities, &mesos.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return f
}

func taskInfo(t *testing.T, id, res string) *mesos.TaskInfo {
	return &mesos.TaskInfo{
		Name: proto.String("name-" + id), TaskId: &mesos.TaskID{Value: &id}, AgentId: &mesos.AgentID{Value: proto.String(testAgent)},
		Resources: testResources(t, res).AllocatedTo("*").Proto(),
		Command:   &mesos.CommandInfo{Value: proto.String("sleep 1000")},
	}
}

func launchCall(f *mesos.FrameworkInfo, tasks ...*mesos.TaskInfo) *nodeapi.Call {
	return &nodeapi.Call{Call: &nodeapi.Call_Launch{Launch: &nodeapi.Launch{Framework: f, Tasks: tasks}}}
}

func killCall(task string) *nodeapi.Call {
	return &nodeapi.Call{Call: &nodeapi.Call_Kill{Kill: &nodeapi.Kill{
		FrameworkId: &mesos.FrameworkID{Value: proto.String(testFramework)}, TaskId: &mesos.TaskID{Value: &task},
	}}}
}

// published returns what the record says of a task, nil for nothing.
func (w *world) published(task string) *catalog.Task {
	return publishedIn(w.t, w.mesh.Map, task)
}

func publishedIn(t *testing.T, m *record.Map, task string) *catalog.Task {
	t.Helper()
	value, ok := m.Snapshot(testAgent).Get(catalog.TaskKey(testFramework, task))
	if !ok {
		return nil
	}
	out := &catalog.Task{}
	if err := proto.Unmarshal(value, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// free returns what the record says is free.
func (w *world) free() resources.Resources {
	w.t.Helper()
	value, _ := w.mesh.Snapshot(testAgent).Get(catalog.KeyResources)
	out := &catalog.Resources{}
	if err := proto.Unmarshal(value, out); err != nil {
		w.t.Fatal(err)
	}
	return nodeapi.ResourcesFromCatalog(out.GetFree())
}

func (w *world) problems() []string { return w.health().GetProblems() }

// health is what the record says of the node.
func (w *world) health() *catalog.Health {
	w.t.Helper()
	value, _ := w.mesh.Snapshot(testAgent).Get(catalog.KeyHealth)
	out := &catalog.Health{}
	if err := proto.Unmarshal(value, out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// wait waits until a condition holds.
func (w *world) wait(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// waitState waits until the record shows a task in a state.
func (w *world) waitState(task string, state mesos.TaskState) {
	w.t.Helper()
	w.wait(fmt.Sprintf("task %s in %s", task, state), func() bool {
		p := w.published(task)
		return p != nil && p.GetState() == int32(state)
	})
}

// waitGone waits until a task is closed: acknowledged, and out of the record.
func (w *world) waitGone(task string) {
	w.t.Helper()
	w.wait("task "+task+" gone from the record", func() bool { return w.published(task) == nil })
}
