// Package mastertest is a Mesos master with its agents, in memory: for tests of Marathon.
//
// A Cluster takes calls and gives events; it has no goroutine and no clock but the one that it is handed, so that a test
// may drive it step by step, repeatably. A Server puts it behind the v1 scheduler API over real HTTP. Tasks run nowhere:
// a launched task becomes TASK_STARTING and then TASK_RUNNING as its updates are acknowledged, and lives until it is
// killed or the test makes it end. The tasks of a group end together when one of them ends other than well, as those of the
// default executor do. What is reserved and the volumes on it are kept by agents, as the operations say; what is free is
// offered to one of the framework's roles at a time. What is not modelled: validation of tasks beyond what fits, several
// frameworks, quota, disks other than the root, other operations.
//
// The cluster also keeps the books that the invariants are checked by: how often each task id was launched.
package mastertest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// Agent describes a simulated agent. Ports are the range that it offers, both included.
type Agent struct {
	ID, Host           string
	CPUs, Mem, Disk    float64
	FirstPort          uint64
	LastPort           uint64
	Attributes         map[string]string
	Region, Zone, Role string
}

// Task is a copy of what the cluster knows of one task.
type Task struct {
	Info  *mesos.TaskInfo
	State mesos.TaskState
	// Pending is the number of status updates that wait for an acknowledgement.
	Pending int
	// Alive tells that the task is not over, and its agent not lost.
	Alive bool
}

type agent struct {
	Agent
	tasks map[string]*task
	lost  bool
	// offer is the outstanding offer of what is free here, nil for none.
	offer *mesos.Offer
	// refused is until when the framework does not want to hear of this agent, by role.
	refused map[string]time.Time
	// made is what is dynamically reserved here, with the volumes on it, whether it is used or not.
	made resources.Resources
}

type task struct {
	info    *mesos.TaskInfo
	state   mesos.TaskState // as the agent knows it
	updates []*mesos.TaskStatus
	healthy *bool
	agent   *agent
	// executor is that of a task of a group, nil for others.
	executor *mesos.ExecutorInfo
}

// Cluster is the simulated master with its agents. All methods may be called from any goroutine.
type Cluster struct {
	now func() time.Time

	mu         sync.Mutex
	agents     map[string]*agent
	order      []string
	framework  string
	frameworks int
	info       *mesos.FrameworkInfo
	removed    bool
	connected  bool
	sessions   int
	suppressed map[string]bool // by role
	events     []*scheduler.Event
	wake       chan struct{} // closed and replaced whenever there are events
	launches   map[string]int
	volumes    map[string]string // the agents of persistent volumes, by id
	dropped    int               // operations that are still to be lost
	offers     int
	uuids      uint64
	calls      []*scheduler.Call
	stop       bool // tasks stay in STAGING
	well       bool // tasks are healthy as soon as they run
}

// New returns a cluster without agents. A nil clock is the time package's.
func New(now func() time.Time) *Cluster {
	if now == nil {
		now = time.Now
	}
	return &Cluster{
		now: now, agents: make(map[string]*agent), launches: make(map[string]int), volumes: make(map[string]string),
		wake: make(chan struct{}),
	}
}

// Add adds an agent; what it has is offered at once.
func (c *Cluster) Add(a Agent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agents[a.ID] = &agent{Agent: a, tasks: make(map[string]*task), refused: make(map[string]time.Time)}
	c.order = append(c.order, a.ID)
	c.offerAll()
}

// Hold keeps tasks from going beyond STAGING until it is called with false.
func (c *Cluster) Hold(hold bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = hold
	if hold {
		return
	}
	for _, id := range c.order {
		for _, t := range c.sortedTasks(c.agents[id]) {
			if t.state == mesos.TaskState_TASK_STAGING {
				c.start(t)
			}
		}
	}
}

// Call carries out one call of the framework, except SUBSCRIBE.
func (c *Cluster) Call(call *scheduler.Call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, proto.Clone(call).(*scheduler.Call))
	if call.GetFrameworkId().GetValue() != c.framework || c.framework == "" {
		return fmt.Errorf("Framework cannot be found") //nolint:staticcheck // the master's own wording
	}
	if !c.connected {
		return fmt.Errorf("Framework is not subscribed") //nolint:staticcheck // the master's own wording
	}
	switch call.GetType() {
	case scheduler.Call_ACCEPT:
		c.accept(call.GetAccept())
	case scheduler.Call_DECLINE:
		for _, id := range call.GetDecline().GetOfferIds() {
			c.refuse(id.GetValue(), call.GetDecline().GetFilters())
		}
		if len(c.roles()) > 1 {
			c.offerAll() // there are others to be asked
		}
	case scheduler.Call_REVIVE:
		for _, role := range c.named(call.GetRevive().GetRoles()) {
			delete(c.suppressed, role)
			for _, a := range c.agents {
				delete(a.refused, role)
			}
		}
		c.offerAll()
	case scheduler.Call_SUPPRESS:
		for _, role := range c.named(call.GetSuppress().GetRoles()) {
			c.suppressed[role] = true
		}
	case scheduler.Call_KILL:
		c.kill(call.GetKill())
	case scheduler.Call_ACKNOWLEDGE:
		c.acknowledge(call.GetAcknowledge())
	case scheduler.Call_RECONCILE:
		c.reconcile(call.GetReconcile().GetTasks())
	case scheduler.Call_TEARDOWN:
		c.removed = true
		c.end()
	case scheduler.Call_UPDATE_FRAMEWORK:
		c.info = proto.Clone(call.GetUpdateFramework().GetFrameworkInfo()).(*mesos.FrameworkInfo)
		c.offerAll()
	default:
		return fmt.Errorf("call %v is not simulated", call.GetType())
	}
	return nil
}

// Subscribe begins a session. It returns an error where the master would answer with an ERROR event.
func (c *Cluster) Subscribe(call *scheduler.Call) error {
	_, err := c.subscribe(call)
	return err
}

// subscribe is Subscribe, and returns the number of the session.
func (c *Cluster) subscribe(call *scheduler.Call) (session int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, proto.Clone(call).(*scheduler.Call))
	info := call.GetSubscribe().GetFrameworkInfo()
	id := info.GetId().GetValue()
	switch {
	case c.removed && id == c.framework:
		return c.sessions, fmt.Errorf("Framework has been removed") //nolint:staticcheck // the master's own wording
	case id == "" && len(c.launches) > 0:
		return c.sessions, fmt.Errorf("this cluster knows one framework, %s", c.framework)
	case id == "":
		// One that has never launched anything may have forgotten its id.
		c.frameworks++
		c.framework = fmt.Sprintf("c0ffee00-0000-4000-8000-000000000000-%04d", c.frameworks)
	default:
		c.framework = id
	}
	c.end()
	c.sessions++
	c.events = nil
	c.info, c.connected, c.suppressed = proto.Clone(info).(*mesos.FrameworkInfo), true, make(map[string]bool)
	c.send(&scheduler.Event{
		Type: scheduler.Event_SUBSCRIBED.Enum(),
		Subscribed: &scheduler.Event_Subscribed{
			FrameworkId:              &mesos.FrameworkID{Value: proto.String(c.framework)},
			HeartbeatIntervalSeconds: proto.Float64(15),
			MasterInfo: &mesos.MasterInfo{
				Id: proto.String("m1"), Ip: proto.Uint32(0x0100007f), Port: proto.Uint32(5050), Hostname: proto.String("master-1"),
			},
		},
	})
	c.send(&scheduler.Event{Type: scheduler.Event_HEARTBEAT.Enum()})
	for _, id := range c.order {
		clear(c.agents[id].refused)
	}
	c.offerAll()
	c.resend()
	return c.sessions, nil
}

// Disconnect ends the session from outside, as a cut connection or a dead master does.
func (c *Cluster) Disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
}

// leave ends a session that its framework has left, unless there is a later one.
func (c *Cluster) leave(session int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions == session {
		c.end()
	}
}

func (c *Cluster) end() {
	c.connected = false
	for _, a := range c.agents {
		a.offer = nil
	}
	close(c.wake)
	c.wake = make(chan struct{})
}

// Sessions is the number of sessions so far.
func (c *Cluster) Sessions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessions
}

// EventsOf is Events for one session, which has ended for whoever asks when there is a later one.
func (c *Cluster) EventsOf(session int) ([]*scheduler.Event, bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions != session {
		return nil, false, c.wake
	}
	events := c.events
	c.events = nil
	return events, c.connected, c.wake
}

// Events returns the events that were not fetched yet, whether the session is open, and a channel that is closed when
// either changes.
func (c *Cluster) Events() ([]*scheduler.Event, bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.events
	c.events = nil
	return events, c.connected, c.wake
}

func (c *Cluster) send(e *scheduler.Event) {
	c.events = append(c.events, e)
	close(c.wake)
	c.wake = make(chan struct{})
}

// FrameworkID is the id that the framework has, empty before its first subscription.
func (c *Cluster) FrameworkID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.framework
}

// Calls returns the calls received so far.
func (c *Cluster) Calls() []*scheduler.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Duplicates lists the task ids that were launched more than once.
func (c *Cluster) Duplicates() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, n := range c.launches {
		if n > 1 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (c *Cluster) uuid() []byte {
	c.uuids++
	id := make([]byte, 16)
	binary.BigEndian.PutUint64(id[8:], c.uuids)
	return id
}
