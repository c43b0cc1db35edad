package master

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
)

// The event streams of operators: a snapshot, and then every change to what it shows. Spec: mesos-operator-api.md A.4.
//
// What has been announced is marked on agents, frameworks and tasks while anyone listens, so that the events that follow
// a snapshot neither repeat it nor leave anything out, and a task is added before it is updated, whichever of the mesh,
// its agent and its framework is heard first.

// lateAfter is how long the change of a task's state in its agent's record waits for the status update that belongs to
// it. When none comes, because an earlier one is not acknowledged, say, the record alone is told.
const lateAfter = time.Second

// OperatorStream is the event stream of an operator.
type OperatorStream struct {
	events[*OperatorEvent]
	// Snapshot is the state that the events follow on.
	Snapshot *View
	// Heartbeat is the time between two heartbeats.
	Heartbeat time.Duration
}

// OperatorEvent is one event, shared by all streams: it is encoded once for each encoding.
type OperatorEvent struct {
	Message *operator.Event

	mu      sync.Mutex
	encoded map[string][]byte // by content type
}

// Encode returns the event in an encoding. The bytes are shared and must not be modified.
func (e *OperatorEvent) Encode(cd codec.Codec) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if b, ok := e.encoded[cd.ContentType()]; ok {
		return b, nil
	}
	b, err := cd.Marshal(e.Message)
	if err != nil {
		return nil, err
	}
	if e.encoded == nil {
		e.encoded = make(map[string][]byte, 2)
	}
	e.encoded[cd.ContentType()] = b
	return b, nil
}

// audience is who listens, and what the loop still owes them.
type audience struct {
	streams []*OperatorStream // oldest first
	// late are the tasks whose records tell a state that no event has told yet; timer leads to telling it.
	late  map[*task]struct{}
	timer *time.Timer
}

// SubscribeOperator opens the event stream of an operator. The oldest stream ends when there are too many. The error is
// ErrNotLeading, ErrRecovering, or that of ctx. The caller must Close the stream when its connection ends.
func (m *Master) SubscribeOperator(ctx context.Context) (*OperatorStream, error) {
	s := &OperatorStream{Heartbeat: m.cfg.HeartbeatInterval}
	beat := &OperatorEvent{Message: &operator.Event{Type: operator.Event_HEARTBEAT.Enum()}}
	s.init(&m.cfg, beat, func() { m.post(func() { m.dismiss(s) }) })
	s.beating, s.nextBeat = true, time.Now() // the snapshot goes out first, and not through the queue
	var err error
	if e := m.look(ctx, func() { err = m.seatOperator(s) }); e != nil {
		s.Close()
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// seatOperator adds a stream. Snapshot and marks are made in one step of the loop.
func (m *Master) seatOperator(s *OperatorStream) error {
	if m.term == nil {
		return m.notLeading()
	}
	for t := range m.audience.late {
		m.tellRecorded(t) // those who listen already won't see it in the snapshot
	}
	s.Snapshot = m.newestView()
	for _, a := range m.agents {
		a.announced = a.listed()
	}
	for _, f := range m.frameworks {
		f.announced = true
		for _, t := range f.tasks.byID {
			t.announced, t.told = true, m.stateShown(t)
		}
	}
	m.audience.streams = append(m.audience.streams, s)
	if over := len(m.audience.streams) - m.cfg.MaxOperatorStreams; over > 0 {
		m.log.Info("too many event streams of operators, the oldest ends", "streams", len(m.audience.streams))
		m.audience.streams[0].end()
		m.dismiss(m.audience.streams[0])
	}
	return nil
}

// dismiss forgets a stream that is over.
func (m *Master) dismiss(s *OperatorStream) {
	for i, other := range m.audience.streams {
		if other == s {
			m.audience.streams = append(m.audience.streams[:i:i], m.audience.streams[i+1:]...)
			break
		}
	}
	if !m.listened() {
		m.audience.silence()
	}
}

// dismissAll ends all streams, with the term.
func (m *Master) dismissAll() {
	for _, s := range m.audience.streams {
		s.end()
	}
	m.audience.streams = nil
	m.audience.silence()
}

func (l *audience) silence() {
	clear(l.late)
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// listened tells whether events have to be made at all.
func (m *Master) listened() bool { return len(m.audience.streams) > 0 }

func (m *Master) publish(message *operator.Event) {
	event, size := &OperatorEvent{Message: message}, proto.Size(message)
	var slow []*OperatorStream
	for _, s := range m.audience.streams {
		if !s.add(event, size) {
			slow = append(slow, s)
		}
	}
	for _, s := range slow {
		m.log.Warn("operator reads events too slowly, stream cut")
		m.dismiss(s)
	}
}

// announceAgent tells of an agent that is new, or back, and of its tasks.
func (m *Master) announceAgent(a *agent) {
	if !m.listened() || a.unread {
		return
	}
	if !a.announced && a.listed() {
		a.announced = true
		v := m.viewAgent(a)
		m.publish(&operator.Event{
			Type: operator.Event_AGENT_ADDED.Enum(), AgentAdded: &operator.Event_AgentAdded{Agent: v.Message()},
		})
	}
	for _, t := range a.tasks {
		m.announceTask(t)
	}
}

// retractAgent tells that an agent is no longer listed: given up, gone, or forgotten.
func (m *Master) retractAgent(a *agent) {
	if !m.listened() || !a.announced {
		return
	}
	a.announced = false
	m.publish(&operator.Event{
		Type: operator.Event_AGENT_REMOVED.Enum(), AgentRemoved: &operator.Event_AgentRemoved{AgentId: agentID(a.id)},
	})
}

// announceFramework tells of a framework that is new, with its tasks, or that a known one has changed.
func (m *Master) announceFramework(f *framework) {
	if !m.listened() {
		return
	}
	// Without offers and resources: they change too often to be told.
	v := FrameworkView{
		Info: f.info, Active: f.active, Connected: f.connected, Recovered: f.recovered, Registered: f.registered,
		Reregistered: f.reregistered, Unregistered: f.unregistered, Constraints: f.constraints,
	}
	if f.announced {
		m.publish(&operator.Event{
			Type: operator.Event_FRAMEWORK_UPDATED.Enum(), FrameworkUpdated: &operator.Event_FrameworkUpdated{Framework: v.Message()},
		})
		return
	}
	f.announced = true
	m.publish(&operator.Event{
		Type: operator.Event_FRAMEWORK_ADDED.Enum(), FrameworkAdded: &operator.Event_FrameworkAdded{Framework: v.Message()},
	})
	for _, t := range f.tasks.byID {
		m.announceTask(t)
	}
}

// retractFramework tells that a framework is over.
func (m *Master) retractFramework(f *framework) {
	if !m.listened() || !f.announced {
		return
	}
	f.announced = false
	m.publish(&operator.Event{
		Type: operator.Event_FRAMEWORK_REMOVED.Enum(), FrameworkRemoved: &operator.Event_FrameworkRemoved{FrameworkInfo: f.info},
	})
}

// announceTask tells of a task that is new, once its framework is known and its agent's record has been read.
func (m *Master) announceTask(t *task) {
	f := m.frameworks[t.key.framework]
	if !m.listened() || t.announced || f == nil || !f.announced || f.tasks.byID[t.key.task] != t {
		return
	}
	if a := m.agents[t.agent]; a != nil && a.unread {
		return
	}
	t.announced, t.told = true, m.stateShown(t)
	m.publish(&operator.Event{
		Type: operator.Event_TASK_ADDED.Enum(), TaskAdded: &operator.Event_TaskAdded{Task: m.show(t).Message()},
	})
}

// tellStatus tells of a status that was noted for a task: fresh when its state is not that of the one before.
func (m *Master) tellStatus(t *task, status *mesos.TaskStatus, fresh bool) {
	if !m.listened() {
		return
	}
	switch status.GetReason() {
	case mesos.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED, mesos.TaskStatus_REASON_TASK_CHECK_STATUS_UPDATED:
		fresh = true
	}
	m.announceTask(t)
	state := m.stateShown(t)
	if status.GetSource() == mesos.TaskStatus_SOURCE_MASTER {
		state = status.GetState() // which is about to become the task's
	}
	if t.announced && (fresh || state != t.told) {
		m.tell(t, status, state)
	}
}

func (m *Master) tell(t *task, status *mesos.TaskStatus, state mesos.TaskState) {
	t.told = state
	delete(m.audience.late, t)
	m.publish(&operator.Event{
		Type: operator.Event_TASK_UPDATED.Enum(),
		TaskUpdated: &operator.Event_TaskUpdated{
			FrameworkId: &mesos.FrameworkID{Value: proto.String(t.key.framework)}, Status: status, State: state.Enum(),
		},
	})
}

// noteState takes up that a task's record may have a state that no event has told.
func (m *Master) noteState(t *task) {
	if !m.listened() || !t.announced || t.told == m.stateShown(t) {
		return
	}
	if m.audience.late == nil {
		m.audience.late = make(map[*task]struct{})
	}
	m.audience.late[t] = struct{}{}
	if m.audience.timer == nil {
		m.audience.timer = m.after(lateAfter, m.tellLate)
	}
}

func (m *Master) tellLate() {
	m.audience.timer = nil
	for t := range m.audience.late {
		m.tellRecorded(t)
	}
}

// tellRecorded tells what the record says of a task, unless that has been told.
func (m *Master) tellRecorded(t *task) {
	delete(m.audience.late, t)
	state := m.stateShown(t)
	if !m.listened() || !t.announced || t.told == state || t.rec == nil {
		return
	}
	status := recordedStatus(t.key, t.agent, t.state, t.rec.decode(), m.agents[t.agent].address())
	status.State, status.Timestamp = state.Enum(), proto.Float64(seconds(m.now()))
	m.tell(t, status, state)
}
