package master

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	"starling/master/nodeapi"
)

// A lane is a queue of calls to one agent. Orders (launches, kills, shutdowns) go one after the other, since a kill must
// not overtake the launch that it is for; acknowledgements may go side by side and overtake orders.
type lane struct {
	queue  []*errand
	size   int // of the calls in queue, in bytes
	flying int
	// generation grows when the lane is cleared, so that errands which come back later are not counted.
	generation int
}

const (
	// acksAtOnce is how many acknowledgements may be on the way to one agent.
	acksAtOnce = 4
	// maxLane is how many calls may wait for one agent, and maxLaneSize how many bytes they may have together: frameworks send
	// messages of any size. What does not fit is dropped: an order fails as if the agent could not be reached, an
	// acknowledgement is asked for again by the agent.
	maxLane     = 4096
	maxLaneSize = 16 << 20
	// orderPause and maxOrderPause are the first and the longest pause between two attempts of an order.
	orderPause    = 200 * time.Millisecond
	maxOrderPause = 5 * time.Second
)

// errand is one call on its way, with what is to happen afterwards. It is repeated until it succeeds, is refused for
// good, or patience ends.
type errand struct {
	call     *nodeapi.Call
	size     int // of call, in bytes, as it was queued
	patience time.Duration
	since    time.Time // monotonic
	attempts int
	// begun is set once an attempt may have reached the agent, although no answer came back.
	begun bool
	// reply is the answer, once there is one.
	reply *nodeapi.Reply
	// wanted is asked before each further attempt, and may make the call smaller then; nil means always.
	wanted func() bool
	// done runs on the loop, once.
	done func(err error)
}

var (
	// errUndelivered is the end of an errand whose call has provably not been obeyed.
	errUndelivered = errors.New("agent did not take the call")
	// errUncertain is the end of an errand whose call may have been obeyed.
	errUncertain = errors.New("agent may have taken the call")
	// errDropped is the end of an errand that nobody wants any more.
	errDropped = errors.New("call is not wanted any more")
)

// clear drops all that waits; what is on its way comes back to nobody.
func (l *lane) clear() {
	l.queue, l.size = nil, 0
	l.flying = 0
	l.generation++
}

// order queues a call that must keep its place.
func (m *Master) order(a *agent, call *nodeapi.Call, done func(error)) {
	m.enqueue(a, &a.ordered, &errand{call: call, patience: m.cfg.LaunchPatience, done: done})
}

// acknowledgeTo queues an acknowledgement.
func (m *Master) acknowledgeTo(a *agent, call *nodeapi.Call) {
	m.enqueue(a, &a.unordered, &errand{call: call, patience: m.cfg.CallTimeout, done: func(err error) {
		if err != nil {
			m.log.Debug("acknowledgement not delivered, the agent will ask again", "agent_id", a.id, "err", err)
		}
	}})
}

func (m *Master) enqueue(a *agent, l *lane, e *errand) {
	size := proto.Size(e.call)
	if len(l.queue) >= maxLane || len(l.queue) > 0 && l.size+size > maxLaneSize {
		m.log.Warn("too many calls wait for an agent, call dropped", "agent_id", a.id)
		e.done(errUndelivered)
		return
	}
	e.since, e.size = time.Now(), size
	l.queue = append(l.queue, e)
	l.size += size
	m.dispatch(a, l)
}

// dispatch sends what may be sent now.
func (m *Master) dispatch(a *agent, l *lane) {
	most := 1
	if l == &a.unordered {
		most = acksAtOnce
	}
	for m.term != nil && l.flying < most && len(l.queue) > 0 {
		e := l.queue[0]
		l.queue[0] = nil // else what was launched last is kept for as long as the agent
		l.queue = l.queue[1:]
		l.size -= e.size
		l.flying++
		m.fly(a, l, e)
	}
}

// fly makes one attempt.
func (m *Master) fly(a *agent, l *lane, e *errand) {
	t, generation := m.term, l.generation
	e.attempts++
	e.call.Epoch, e.call.Leader, e.call.AgentId = t.epoch, m.cfg.hostport(), a.id
	addr := a.addr()
	t.start(func(ctx context.Context) {
		reply, err := m.callAgent(ctx, t, addr, e.call)
		m.post(func() {
			if m.term == t && l.generation == generation {
				m.landed(a, l, e, reply, err)
			}
		})
	})
}

// callAgent calls an agent, when not too many calls are under way. It runs outside of the loop.
func (m *Master) callAgent(ctx context.Context, t *term, addr string, call *nodeapi.Call) (*nodeapi.Reply, error) {
	select {
	case t.calls <- struct{}{}:
		defer func() { <-t.calls }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	// A process that was frozen runs on for a moment before the context of its term ends.
	if err := t.holds(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.CallTimeout)
	defer cancel()
	return m.exchange(ctx, addr, call)
}

// exchange calls an agent and merges what its answer says of its record. It runs outside of the loop.
func (m *Master) exchange(ctx context.Context, addr string, call *nodeapi.Call) (*nodeapi.Reply, error) {
	reply, err := m.cfg.Client.Call(ctx, addr, call)
	if err != nil {
		return nil, err
	}
	m.merge(call.GetAgentId(), reply.GetDelta())
	return reply, nil
}

// merge takes what an agent says of its own record, if anything, in a report or an answer. What it says of another is that one's
// to say, and is refused. It runs outside of the loop.
func (m *Master) merge(agentID string, delta []byte) {
	if len(delta) == 0 {
		return
	}
	node, err := record.Subject(delta)
	switch {
	case err != nil:
	case node != agentID:
		err = fmt.Errorf("it is about node %q", node)
	default:
		err = m.cfg.Mesh.Apply(delta)
	}
	if err != nil {
		m.post(func() { m.counters.add("master/dropped_messages", 1) })
		m.log.Warn("record that an agent sent is refused", "agent_id", agentID, "err", err)
	}
}

// landed deals with the outcome of an attempt.
func (m *Master) landed(a *agent, l *lane, e *errand, reply *nodeapi.Reply, err error) {
	if err == nil {
		e.reply = reply
		m.finish(a, l, e, nil)
		return
	}
	var stale *nodeapi.StaleEpochError
	if errors.As(err, &stale) || errors.Is(err, nodeapi.ErrStaleEpoch) {
		known := m.term.epoch
		if stale != nil {
			known = stale.Known
		}
		m.stepDown(known)
		return
	}
	refused := isRefusal(err)
	if !refused && !isDialError(err) {
		e.begun = true
	}
	switch {
	case errors.Is(err, nodeapi.ErrMalformed), errors.Is(err, nodeapi.ErrTooLarge):
		// Saying it again would not help, and an agent that cannot read a call has not obeyed it.
		m.log.Error("agent cannot read a call", "agent_id", a.id, "err", err)
		m.finish(a, l, e, m.outcome(e))
		return
	case time.Since(e.since) >= e.patience:
		m.log.Warn("agent does not answer", "agent_id", a.id, "addr", a.addr(), "attempt", e.attempts, "err", err)
		m.finish(a, l, e, m.outcome(e))
		return
	}
	pause := min(orderPause<<min(e.attempts-1, 10), maxOrderPause)
	pause += time.Duration(m.rng.Int64N(int64(pause)/4 + 1))
	generation := l.generation
	m.after(pause, func() {
		switch {
		case m.term == nil || l.generation != generation:
		case e.wanted != nil && !e.wanted():
			m.finish(a, l, e, errDropped)
		default:
			m.fly(a, l, e)
		}
	})
}

func (m *Master) outcome(e *errand) error {
	if e.begun {
		return errUncertain
	}
	return errUndelivered
}

func (m *Master) finish(a *agent, l *lane, e *errand, err error) {
	l.flying--
	e.done(err)
	m.dispatch(a, l)
}

// isDialError tells whether a call has failed before a byte of it was sent.
func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isRefusal tells whether an agent answered that it did not obey.
func isRefusal(err error) bool {
	for _, class := range []error{
		nodeapi.ErrWrongAgent, nodeapi.ErrUnauthenticated, nodeapi.ErrMalformed, nodeapi.ErrTooLarge, nodeapi.ErrNotLeading,
	} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

// refresh reads, after an answer or a report, what it is sure to have changed; the feed brings the rest.
func (m *Master) refresh(a *agent, keys ...taskKey) {
	s := m.cfg.Mesh.Snapshot(a.id)
	if s == nil {
		return
	}
	m.readKey(a, s, catalog.KeyResources)
	for _, key := range keys {
		m.readTask(a, s, key)
	}
}

// describeQueue are the agents that are to be asked what their records leave out.
type describeQueue struct {
	waiting []*agent
	queued  map[*agent]bool
	flying  int
}

// describesAtOnce is how many agents are asked at once: after an election there are many, and each answer may be long.
const describesAtOnce = 32

func (q *describeQueue) clear() { *q = describeQueue{} }

// wantDescription has an agent asked for all that it runs, unless it has told already.
func (m *Master) wantDescription(a *agent) {
	if m.term == nil || a.described || !a.alive() {
		return
	}
	if m.describes.queued[a] {
		// The answer that is under way may be older than what made somebody ask.
		a.askAgain = true
		return
	}
	if m.describes.queued == nil {
		m.describes.queued = make(map[*agent]bool)
	}
	m.describes.queued[a] = true
	m.describes.waiting = append(m.describes.waiting, a)
	m.describeMore()
}

func (m *Master) describeMore() {
	for m.describes.flying < describesAtOnce && len(m.describes.waiting) > 0 {
		a := m.describes.waiting[0]
		m.describes.waiting[0] = nil
		m.describes.waiting = m.describes.waiting[1:]
		m.describes.flying++
		m.describe(a, 0)
	}
}

// describe asks one agent, and again with growing pauses while it lives and does not answer.
func (m *Master) describe(a *agent, attempt int) {
	a.askAgain = false
	t, generation := m.term, a.generation
	call := &nodeapi.Call{
		Epoch: t.epoch, Leader: m.cfg.hostport(), AgentId: a.id,
		Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}},
	}
	if s := m.cfg.Mesh.Snapshot(a.id); s != nil {
		call.GetDescribe().Generation, call.GetDescribe().Version = s.Generation(), s.Version()
	}
	// What is launched from here on need not be in the answer.
	asked := make(map[taskKey]bool)
	for key, task := range a.tasks {
		if task.launch == nil || task.launch.over {
			asked[key] = true
		}
	}
	for _, o := range a.operations {
		o.asked = o.over
	}
	addr := a.addr()
	t.start(func(ctx context.Context) {
		reply, err := m.callAgent(ctx, t, addr, call)
		m.post(func() {
			if m.term != t {
				return
			}
			m.describes.flying--
			defer m.describeMore()
			var stale *nodeapi.StaleEpochError
			switch {
			case errors.As(err, &stale):
				m.stepDown(stale.Known)
				return
			case m.agents[a.id] != a || !a.alive():
				delete(m.describes.queued, a)
				return
			case err == nil && a.generation == generation:
				delete(m.describes.queued, a)
				again := a.askAgain
				m.describedAs(a, reply.GetDescription(), asked)
				if again {
					a.described = false
					m.wantDescription(a)
				}
				return
			case err != nil && attempt == 0:
				m.log.Info("agent does not describe itself yet", "agent_id", a.id, "err", err)
			}
			m.after(min(orderPause<<min(attempt, 10), 30*time.Second), func() {
				if m.term != t {
					return
				}
				if m.agents[a.id] != a || !a.alive() {
					delete(m.describes.queued, a)
					return
				}
				m.describes.flying++
				m.describe(a, attempt+1)
			})
		})
	})
}

// describedAs takes up what an agent told of itself. asked are the tasks that it should know, if they are there at all.
func (m *Master) describedAs(a *agent, d *nodeapi.Description, asked map[taskKey]bool) {
	a.described = true
	if s := m.cfg.Mesh.Snapshot(a.id); s != nil {
		m.readNodeTasks(a, s)
		m.readNodeExecutors(a, s)
	}
	if !a.askAgain {
		m.letGoSeen(a)
	}
	for _, info := range d.GetFrameworks() {
		m.meetFramework(info)
	}
	for _, e := range d.GetExecutors() {
		key := executorKey{e.GetFrameworkId().GetValue(), e.GetInfo().GetExecutorId().GetValue()}
		if m.isCompleted(key.framework) {
			m.endFramework(a, key.framework)
			continue
		}
		m.setExecutor(a, key, e.GetInfo())
	}
	m.sweepExecutors(a)
	known := make(map[taskKey]bool)
	for _, told := range d.GetTasks() {
		key := taskKey{told.GetFrameworkId().GetValue(), told.GetTaskId().GetValue()}
		known[key] = true
		if t := m.tasks[key]; t != nil && t.agent == a.id {
			if t.batch == nil {
				t.definition = described(told)
			}
			if len(t.statuses) == 0 {
				for _, s := range told.GetStatuses() {
					t.statuses, _ = t.statuses.with(s)
				}
			}
			m.changed(t)
		}
	}
	for key := range asked {
		t := m.tasks[key]
		if t == nil || t.agent != a.id || known[key] || t.rec != nil && !t.missing {
			continue
		}
		m.lost(a, t)
	}
	m.operationsDescribed(a, d.GetOperations())
	for _, t := range a.tasks {
		if t.kill != nil {
			m.sendKill(a, t, t.kill)
		}
	}
	m.releaseKills(a.id)
	m.syncDrain(a)
}

// lost tells a framework that its task is not where it should be, and not anywhere else.
func (m *Master) lost(a *agent, t *task) {
	if f := m.frameworks[t.key.framework]; f != nil && !t.acknowledged && !terminal(t.state) {
		status := m.masterStatus(t.key.task, f.degrade(mesos.TaskState_TASK_DROPPED), mesos.TaskStatus_REASON_RECONCILIATION, "Task is unknown to the agent")
		status.AgentId = &mesos.AgentID{Value: proto.String(a.id)}
		m.noteStatus(t, status)
		t.state = status.GetState()
		m.sendUpdate(f, status)
	}
	m.complete(t)
}
