package master

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/allocator"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// framework is a scheduler that is subscribed, or may come back until its failover timeout ends.
type framework struct {
	id   string
	info *mesos.FrameworkInfo // with its id; replaced, never modified
	// roles are those it subscribed to; suppressed those of them that it wants no offers for.
	roles      []string
	suppressed map[string]bool
	// constraints are shown, and handed to the allocator; nil when there are none.
	constraints *scheduler.OfferConstraints
	admits      func(role string, agent *allocator.AgentSpec) bool
	caps        map[mesos.FrameworkInfo_Capability_Type]bool

	// stream is the open one, nil while disconnected. connected is set once SUBSCRIBED went out on it; active while it may
	// get offers. recovered is set for one known only from the documents or from agents.
	stream *Stream
	// peer is where the stream's, or the last one's, connection came from; not valid where nobody knows.
	peer                         netip.Addr
	connected, active, recovered bool
	announced                    bool // streams of operators know of it

	registered, reregistered, unregistered time.Time
	// disconnected is when the stream was lost; zero while there is one.
	disconnected time.Time
	failover     *time.Timer // leads to its removal; nil while connected

	tasks taskList            // those given up with their agents included
	kills map[string]heldKill // by task id; of tasks that may yet turn up
	// questions are what RECONCILE asked and the stream had no room for the answer to yet, oldest first; asked is the same.
	questions []question
	asked     map[question]bool
	offers    map[string]*offer
	look      *offersLook              // nil when it has to be made anew
	inverse   map[string]*inverseOffer // by offer id
	// inverseFilters keep it from being asked again, by agent id.
	inverseFilters map[string]*inverseFilter
	completed      history // as last shown
	metrics        frameworkMetrics
}

func newFramework(id string, info *mesos.FrameworkInfo) *framework {
	f := &framework{
		id: id, tasks: newTaskList(), kills: make(map[string]heldKill), asked: make(map[question]bool), offers: make(map[string]*offer), suppressed: make(map[string]bool),
		inverse: make(map[string]*inverseOffer), inverseFilters: make(map[string]*inverseFilter),
		metrics: newFrameworkMetrics(),
	}
	f.setInfo(info)
	return f
}

// setInfo takes a new description; the id stays.
func (f *framework) setInfo(info *mesos.FrameworkInfo) {
	info = proto.CloneOf(info)
	info.Id = &mesos.FrameworkID{Value: proto.String(f.id)}
	f.info = info
	f.caps = make(map[mesos.FrameworkInfo_Capability_Type]bool)
	for _, c := range info.GetCapabilities() {
		f.caps[c.GetType()] = true
	}
	f.roles = slices.Clone(info.GetRoles())
	if !f.multiRole() {
		f.roles = []string{info.GetRole()}
	}
}

func (f *framework) multiRole() bool {
	return f.caps[mesos.FrameworkInfo_Capability_MULTI_ROLE]
}

func (f *framework) partitionAware() bool {
	return f.caps[mesos.FrameworkInfo_Capability_PARTITION_AWARE]
}

// degrade turns a state that only partition-aware frameworks know into the one that all know.
func (f *framework) degrade(s mesos.TaskState) mesos.TaskState {
	if f.partitionAware() {
		return s
	}
	switch s {
	case mesos.TaskState_TASK_UNREACHABLE, mesos.TaskState_TASK_DROPPED, mesos.TaskState_TASK_GONE,
		mesos.TaskState_TASK_GONE_BY_OPERATOR, mesos.TaskState_TASK_UNKNOWN:
		return mesos.TaskState_TASK_LOST
	}
	return s
}

func (f *framework) suppressedRoles() []string {
	var roles []string
	for role := range f.suppressed {
		roles = append(roles, role)
	}
	slices.Sort(roles)
	return roles
}

func (f *framework) failoverTimeout() time.Duration {
	const most = 100 * 365 * 24 * time.Hour
	s := f.info.GetFailoverTimeout()
	switch {
	case !(s > 0): // a NaN too
		return 0
	case s > most.Seconds():
		return most
	}
	return time.Duration(s * float64(time.Second))
}

// dropStream forgets the stream, and what was asked to be answered on it.
func (f *framework) dropStream() {
	f.stream, f.questions = nil, nil
	clear(f.asked)
}

func (f *framework) stopTimer() {
	if f.failover != nil {
		f.failover.Stop()
		f.failover = nil
	}
}

// pruneUnreachable forgets the tasks that were given up first, where there are too many.
func (f *framework) pruneUnreachable(m *Master) {
	var gone []*task
	for _, t := range f.tasks.byID {
		if !t.unreachable.IsZero() {
			gone = append(gone, t)
		}
	}
	over := len(gone) - m.cfg.MaxUnreachableTasks
	if over <= 0 {
		return
	}
	slices.SortFunc(gone, func(a, b *task) int {
		if c := a.unreachable.Compare(b.unreachable); c != 0 {
			return c
		}
		return strings.Compare(a.key.task, b.key.task)
	})
	for _, t := range gone[:over] {
		f.tasks.remove(t.key.task)
		if m.agents[t.agent] == nil {
			m.remove(t)
		}
	}
}

// recoverFramework takes up a framework that an earlier leader knew.
func (m *Master) recoverFramework(doc *frameworkDoc) {
	f := newFramework(doc.info.GetId().GetValue(), doc.info)
	f.recovered = true
	f.registered, f.reregistered = timeFromNano(doc.Registered), timeFromNano(doc.Reregistered)
	f.disconnected, f.unregistered = timeFromNano(doc.Disconnected), timeFromNano(doc.Removed)
	for _, role := range doc.Suppressed {
		f.suppressed[role] = true
	}
	if !f.unregistered.IsZero() {
		m.addCompleted(f)
		return
	}
	m.frameworks[f.id] = f
	m.seatFramework(f)
	// While no master led, nobody could come back: give them all the time that an agent would get, but not less than
	// nothing to those that had run out of it before.
	patience := min(f.failoverTimeout(), m.cfg.ReregisterTimeout)
	if f.disconnected.IsZero() {
		f.disconnected = m.now()
		patience = max(f.failoverTimeout(), m.cfg.ReregisterTimeout)
	} else {
		patience = max(patience, f.disconnected.Add(f.failoverTimeout()).Sub(m.now()))
	}
	m.startFailover(f, patience)
}

// meetFramework takes up a framework that only an agent knows of.
func (m *Master) meetFramework(info *mesos.FrameworkInfo) {
	id := info.GetId().GetValue()
	if id == "" || m.frameworks[id] != nil || m.isCompleted(id) {
		return
	}
	f := newFramework(id, info)
	f.recovered, f.disconnected, f.registered = true, m.now(), m.now()
	m.addFramework(f)
	m.announceFramework(f)
	m.startFailover(f, max(f.failoverTimeout(), m.cfg.ReregisterTimeout))
	m.keep(f, nil)
	m.log.Info("framework known to an agent only", "framework_id", f.id)
}

// addFramework lists a framework and gives it the tasks that are there already.
func (m *Master) addFramework(f *framework) {
	m.frameworks[f.id] = f
	m.seatFramework(f)
	for key, t := range m.tasks {
		if key.framework == f.id {
			f.tasks.put(t)
		}
	}
}

func (m *Master) startFailover(f *framework, d time.Duration) {
	f.stopTimer()
	f.failover = m.after(max(d, 0), func() {
		if m.term != nil && m.frameworks[f.id] == f && f.failover != nil && f.stream == nil {
			m.log.Info("failover timeout ended", "framework_id", f.id)
			m.term.keeper.put(nil, m.removeFramework(f)...)
		}
	})
}

// disconnect deals with a lost stream.
func (m *Master) disconnect(f *framework, reason string) {
	if f.stream == nil {
		return
	}
	f.stream.end()
	f.dropStream()
	f.connected, f.active = false, false
	f.disconnected = m.now()
	for _, o := range f.offers {
		m.withdraw(o)
	}
	m.withdrawInverse(f)
	m.seatFramework(f)
	m.log.Info("framework disconnected", "framework_id", f.id, "reason", reason, "dur", f.failoverTimeout())
	m.startFailover(f, f.failoverTimeout())
	m.keep(f, nil)
}

// removeFramework ends a framework and all that it runs, for ever, and returns what has to be kept of that.
func (m *Master) removeFramework(f *framework) []keptDoc {
	if f.stream != nil {
		f.stream.end()
		f.dropStream()
	}
	f.connected, f.active = false, false
	f.unregistered = m.now()
	for _, o := range f.offers {
		m.withdraw(o)
	}
	m.withdrawInverse(f)
	for _, a := range m.agents {
		delete(a.answers, f.id)
	}
	agents := make(map[string]bool)
	// All tasks, since agents may not have heard yet which of them are acknowledged.
	for key, t := range m.tasks {
		if key.framework != f.id {
			continue
		}
		agents[t.agent] = true
		if !terminal(t.state) {
			t.state = mesos.TaskState_TASK_KILLED
			status := m.masterStatus(t.key.task, t.state, mesos.TaskStatus_REASON_FRAMEWORK_REMOVED, "Framework removed")
			status.AgentId = &mesos.AgentID{Value: proto.String(t.agent)}
			m.noteStatus(t, status)
			m.countStatus(status)
		}
		t.unreachable = time.Time{}
		m.complete(t)
	}
	for _, o := range m.operations {
		if o.framework == f.id {
			agents[o.agent] = true
			m.dropOperation(o)
		}
	}
	for _, a := range m.agents {
		for key := range a.executors {
			if key.framework == f.id {
				m.dropExecutor(a, key)
				agents[a.id] = true
			}
		}
	}
	m.retractFramework(f)
	m.dropFramework(f)
	m.addCompleted(f)
	m.log.Info("framework removed", "framework_id", f.id, "tasks", f.completed.len)
	for id := range agents {
		if a := m.agents[id]; a != nil {
			m.endFramework(a, f.id)
		}
	}
	if !m.isCompleted(f.id) {
		return []keptDoc{{key: prefixFramers + f.id}} // no ended framework is remembered
	}
	doc, err := f.encode()
	if err != nil {
		m.log.Error("cannot encode framework", "framework_id", f.id, "err", err)
		return nil
	}
	return []keptDoc{doc}
}

// dropFramework takes a framework off the lists.
func (m *Master) dropFramework(f *framework) {
	f.stopTimer()
	delete(m.frameworks, f.id)
	m.retell(f.id)
	m.forgetPrincipal(f.info.GetPrincipal())
	if m.alloc != nil {
		m.alloc.RemoveFramework(f.id)
	}
}

// addCompleted keeps a removed framework, and lets go of the oldest one.
func (m *Master) addCompleted(f *framework) {
	m.completed = append(m.completed, f)
	slices.SortStableFunc(m.completed, func(a, b *framework) int { return a.unregistered.Compare(b.unregistered) })
	for len(m.completed) > m.cfg.MaxCompletedFrameworks {
		old := m.completed[0]
		m.completed = slices.Clone(m.completed[1:])
		m.term.keeper.put(nil, keptDoc{key: prefixFramers + old.id})
		for _, a := range m.agents {
			delete(a.ending, old.id)
		}
	}
}

func (m *Master) isCompleted(id string) bool {
	return slices.ContainsFunc(m.completed, func(f *framework) bool { return f.id == id })
}

// endFramework has an agent end all that a removed framework runs there.
func (m *Master) endFramework(a *agent, id string) {
	if a.ending[id] || !a.alive() {
		return
	}
	a.ending[id] = true
	m.order(a, &nodeapi.Call{Call: &nodeapi.Call_ShutdownFramework{ShutdownFramework: &nodeapi.ShutdownFramework{
		FrameworkId: &mesos.FrameworkID{Value: proto.String(id)},
	}}}, func(err error) {
		if err != nil {
			// Its description will show again what there is to end.
			delete(a.ending, id)
			a.described = false
			m.wantDescription(a)
		}
	})
}

// send queues an event for a framework, and cuts it off when it does not read.
func (m *Master) send(f *framework, event *scheduler.Event) {
	if f.stream == nil || !f.connected {
		return
	}
	f.metrics.event(event.GetType())
	if !f.stream.push(event) {
		m.log.Warn("framework reads too slowly, stream cut", "framework_id", f.id)
		m.disconnect(f, "slow reader")
	}
}
