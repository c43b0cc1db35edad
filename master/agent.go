package master

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos"
	mesosallocator "starling/master/mesos/allocator"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// agent is what the master knows of one agent: its record, read, and what is under way with it.
type agent struct {
	id         string
	node       *catalog.Node
	attributes []*mesos.Attribute
	total      resources.Resources
	free       resources.Resources // as the record says: not less offers and launches under way
	draining   bool
	// degraded is set while nothing can be started there.
	degraded   bool
	liveness   record.Liveness
	generation uint64
	// registered is when this master first heard of it, reregistered when it last came back.
	registered, reregistered time.Time
	// unreachable is when its tasks were given up; zero while they are not.
	unreachable time.Time
	giveUp      *time.Timer // leads to unreachable; nil while the agent lives

	tasks     map[taskKey]*task
	offers    map[string]*offer
	used      map[share]resources.Resources // what tasks and executors hold
	executors map[executorKey]*executor
	look      agentLook
	// nodeEntry and resourcesEntry are the entries of the record, of the mesh's own bytes, that node, total and free were
	// read from: most news of an agent change neither.
	nodeEntry, resourcesEntry []byte

	// heard is set once this leader has seen the agent alive. Until then it is one that the mesh remembers.
	heard bool
	// unread is set until its record has been read for the first time; announced while streams of operators know of it.
	unread, announced bool
	// described is set once the agent, in its present generation, has told this leader all of its tasks. Until then
	// nothing may be concluded from what its record lacks.
	described bool
	// askAgain is set when it has to be asked once more after the question that is under way.
	askAgain bool
	// launches are the batches whose calls are not over, or which were seen and wait for the rest of the record.
	launches map[*launch]bool
	// operations are those that this leader knows of, by uuid.
	operations map[string]*operation
	// ordered are the calls whose order matters; free ones may overtake.
	ordered, unordered lane
	// ending are the removed frameworks that it was told to end, so that it is told once and not at every change.
	ending map[string]bool

	// marked is set while it is being marked gone, or removed.
	marked bool
	// restriction is what an operator decided about it; nil for nothing.
	restriction *restriction
	// reactivating is set while it is told to drain no longer.
	reactivating bool
	// window is when its machine is not to be relied on; nil while none is planned.
	window *mesos.Unavailability
	// inverse are the outstanding inverse offers, answers what was said to the last ones; both by framework id.
	inverse map[string]*inverseOffer
	answers map[string]*mesosallocator.InverseOfferStatus
}

// share is who uses resources: the sum of a role's frameworks is what is fair or not.
type share struct{ framework, role string }

// alive tells whether calls may be sent to it.
func (a *agent) alive() bool {
	return a.node != nil && (a.liveness == record.Alive || a.liveness == record.Suspect)
}

// active tells whether it is offered.
func (a *agent) active() bool {
	return a.node != nil && a.liveness == record.Alive && !a.draining && !a.degraded && a.restriction == nil && !a.marked
}

// listed tells whether it is shown as registered: not given up, and seen alive by this leader.
func (a *agent) listed() bool { return a.heard && a.unreachable.IsZero() }

// address is its IP address, "" where nothing is known of it.
func (a *agent) address() string {
	if a == nil {
		return ""
	}
	return a.node.GetAddress()
}

// addr is where its node protocol is served.
func (a *agent) addr() string {
	return net.JoinHostPort(a.node.GetAddress(), strconv.Itoa(int(a.node.GetPort())))
}

// reset forgets what belongs to a term.
func (a *agent) reset() {
	a.offers = make(map[string]*offer)
	maps.DeleteFunc(a.executors, func(_ executorKey, e *executor) bool { return e.rec == nil })
	a.look.offered = false
	a.ending = make(map[string]bool)
	a.inverse = make(map[string]*inverseOffer)
	a.answers = make(map[string]*mesosallocator.InverseOfferStatus)
	a.reactivating, a.marked = false, false
	a.launches = make(map[*launch]bool)
	a.operations = make(map[string]*operation)
	a.heard = a.alive()
	a.described = false
	a.ordered.clear()
	a.unordered.clear()
	if a.giveUp != nil {
		a.giveUp.Stop()
		a.giveUp = nil
	}
	a.unreachable = time.Time{}
}

// readMesh reads all records anew.
func (m *Master) readMesh() {
	seen := make(map[string]bool)
	for s := range m.cfg.Mesh.Snapshots() {
		seen[s.Node()] = true
		m.readNode(s)
	}
	for id, a := range m.agents {
		if !seen[id] {
			m.reap(a)
		}
	}
	m.readOutcasts()
	for node := range m.leaders {
		if !seen[node] {
			delete(m.leaders, node)
		}
	}
	m.lookForLeader()
}

// follow brings the changes of the mesh to the loop.
func (m *Master) follow(ctx context.Context, feed *record.Feed) {
	for {
		changes, err := feed.Next(ctx)
		switch {
		case errors.Is(err, record.ErrLagged):
			m.post(m.readMesh)
		case err != nil:
			return // ctx ended
		default:
			m.post(func() { m.applyChanges(changes) })
		}
	}
}

// applyChanges takes each change as a hint of what to read again: the newest value counts, since an answer of the agent
// may have brought a newer one already.
func (m *Master) applyChanges(changes []record.Change) {
	for _, c := range changes {
		s := m.cfg.Mesh.Snapshot(c.Node)
		switch {
		case s == nil:
			if a := m.agents[c.Node]; a != nil {
				m.reap(a)
			}
			delete(m.outcasts, c.Node)
			delete(m.leaders, c.Node)
			m.lookForLeader()
		case c.Key == "" || c.Key == catalog.KeyNode:
			m.readNode(s)
		case c.Key == catalog.KeyLeader:
			m.noteLeader(s)
		case c.Key == catalog.PrefixFramework:
			m.yieldFrameworks(s)
		default:
			if a := m.agents[c.Node]; a != nil {
				m.readKey(a, s, c.Key)
			} else if m.outcasts[c.Node] != nil {
				m.readNode(s)
			}
		}
	}
}

// readNode reads a whole record.
func (m *Master) readNode(s *record.Snapshot) {
	m.noteLeader(s)
	m.yieldFrameworks(s)
	a := m.agents[s.Node()]
	entry, _ := s.Get(catalog.KeyNode)
	var node *catalog.Node
	if a != nil && entry != nil && bytes.Equal(entry, a.nodeEntry) {
		node = a.node
	} else {
		node = decodeNode(s)
	}
	if node == nil {
		// A record that came in parts may lack its node key for a moment; an agent keeps what it had.
		if a != nil {
			m.setLiveness(a, s)
		}
		return
	}
	if m.banned(s.Node(), node) {
		if a != nil {
			m.removeAgent(a, machineDown) // it was moved to a machine that is down
		}
		m.readOutcast(s, node)
		return
	}
	delete(m.outcasts, s.Node())
	if a == nil {
		a = &agent{
			id: s.Node(), registered: m.now(), generation: s.Generation(), liveness: record.Unknown,
			tasks: make(map[taskKey]*task), used: make(map[share]resources.Resources), unread: true,
			executors: make(map[executorKey]*executor),
		}
		a.reset()
		m.agents[a.id] = a
		m.reclaim(a)
		m.counters.add("master/slave_registrations", 1)
		m.counters.add("master/messages_register_slave", 1)
	}
	if a.generation != s.Generation() {
		a.generation = s.Generation()
		a.described = false
		if a.alive() { // else it does when it is seen alive
			m.reregistered(a)
		}
	}
	if a.node != node {
		m.told.hosts = nil
	}
	a.node, a.nodeEntry = node, entry
	a.restriction = m.restrictions[a.id]
	a.attributes = nodeapi.AttributesFromCatalog(node.GetAttributes())
	m.readKey(a, s, catalog.KeyResources)
	m.readKey(a, s, catalog.KeyHealth)
	m.readNodeTasks(a, s)
	m.readNodeExecutors(a, s)
	m.setLiveness(a, s)
	m.seatAgent(a)
	if m.term != nil {
		m.seatWindow(a)
	}
	m.wantDescription(a)
	a.unread = false
	m.announceAgent(a)
}

// readNodeTasks reads all tasks of a record.
func (m *Master) readNodeTasks(a *agent, s *record.Snapshot) {
	found := make(map[taskKey]bool)
	for key := range s.Prefix(catalog.PrefixTask) {
		if k, ok := parseTaskKey(key); ok {
			found[k] = true
			m.readTask(a, s, k)
		}
	}
	for k := range a.tasks {
		if !found[k] {
			m.readTask(a, s, k)
		}
	}
}

// decodeNode returns the node entry of an agent's record; nil for other nodes, and where it cannot be read.
func decodeNode(s *record.Snapshot) *catalog.Node {
	value, ok := s.Get(catalog.KeyNode)
	if !ok {
		return nil
	}
	node := new(catalog.Node)
	if proto.Unmarshal(value, node) != nil {
		return nil
	}
	for _, role := range node.GetRoles() {
		if role == catalog.RoleAgent && (node.GetAgentId() == "" || node.GetAgentId() == s.Node()) {
			return node
		}
	}
	return nil
}

// readKey reads one entry of an agent's record.
func (m *Master) readKey(a *agent, s *record.Snapshot, key string) {
	value, _ := s.Get(key)
	switch key {
	case catalog.KeyResources:
		if value != nil && bytes.Equal(value, a.resourcesEntry) {
			m.seatAgent(a)
			return
		}
		a.resourcesEntry = value
		res := new(catalog.Resources)
		if err := proto.Unmarshal(value, res); err != nil {
			m.unreadable(a, key, err)
			res.Reset()
		}
		total := nodeapi.ResourcesFromCatalog(res.GetTotal())
		changed := !total.Equal(a.total)
		a.total = total
		a.free = nodeapi.ResourcesFromCatalog(res.GetFree())
		if changed && !a.unread {
			m.counters.add("master/messages_update_slave", 1)
		}
		m.rescindExcess(a)
		m.seatAgent(a)
	case catalog.KeyHealth:
		health := new(catalog.Health)
		if err := proto.Unmarshal(value, health); err != nil {
			m.unreadable(a, key, err)
			health.Reset()
		}
		if a.degraded != health.GetDegraded() {
			a.degraded = health.GetDegraded()
			if a.degraded {
				m.rescindAgent(a)
			}
			m.seatAgent(a)
		}
		if a.draining != health.GetDraining() {
			a.draining = health.GetDraining()
			if a.draining {
				m.rescindAgent(a)
			}
			m.seatAgent(a)
			m.syncDrain(a)
		}
	default:
		if k, ok := parseTaskKey(key); ok {
			m.readTask(a, s, k)
		} else if k, ok := parseExecutorKey(key); ok {
			m.readExecutor(a, s, k)
		}
	}
}

func (m *Master) unreadable(a *agent, key string, err error) {
	m.counters.add("master/dropped_messages", 1)
	m.log.Warn("entry of a record is unreadable", "agent_id", a.id, "key", key, "err", err)
}

// setLiveness takes up what the mesh thinks of the agent.
func (m *Master) setLiveness(a *agent, s *record.Snapshot) {
	old := a.liveness
	if old == s.Liveness() {
		return
	}
	a.liveness = s.Liveness()
	a.heard = a.heard || a.alive()
	m.countAway(old, -1)
	m.countAway(a.liveness, 1)
	if m.term == nil {
		return
	}
	if a.liveness != record.Alive {
		m.rescindAgent(a)
	}
	if a.liveness == record.Left {
		m.counters.add("master/messages_unregister_slave", 1)
	}
	m.seatAgent(a)
	m.wantInverse(a)
	if old != record.Unknown {
		m.log.Info("agent changed", "agent_id", a.id, "hostname", a.node.GetHostname(), "liveness", a.liveness.String())
	}
	if a.alive() && old != record.Alive && old != record.Suspect {
		m.returned(a, old)
	}
	m.watchDeaths()
	m.watch(a)
}

// countAway counts the agents that do not answer. Suspects are among them, because suspicion reaches all who are cut off
// before the first of them is declared dead.
func (m *Master) countAway(l record.Liveness, n int) {
	if l == record.Dead || l == record.Suspect {
		m.away += n
	}
}

// reregistered counts an agent that is there again.
func (m *Master) reregistered(a *agent) {
	a.reregistered = m.now()
	m.counters.add("master/slave_reregistrations", 1)
	m.counters.add("master/messages_reregister_slave", 1)
}

// returned takes an agent back, or in.
func (m *Master) returned(a *agent, from record.Liveness) {
	a.described = false
	clear(a.ending)
	a.reactivating = false
	if a.restriction != nil {
		a.restriction.told, a.restriction.telling = false, false
	}
	if from != record.Unknown {
		m.reregistered(a)
	}
	if !a.unreachable.IsZero() {
		m.log.Info("agent returned", "agent_id", a.id, "hostname", a.node.GetHostname(), "dur", m.now().Sub(a.unreachable))
		a.unreachable = time.Time{}
		m.seatAgent(a)
		m.regainExecutors(a)
	}
	m.announceAgent(a)
	for _, t := range a.tasks {
		m.taskReturned(a, t)
	}
	m.wantDescription(a)
}

// reap forgets an agent that the mesh has forgotten.
func (m *Master) reap(a *agent) {
	m.rescindAgent(a)
	m.rescindInverse(a)
	for l := range a.launches {
		m.abandon(l) // its call goes with the lane
	}
	if m.term != nil && a.unreachable.IsZero() {
		a.unreachable = m.now()
		m.giveUpTasks(a)
	}
	for key, t := range a.tasks {
		f := m.frameworks[key.framework]
		switch {
		case m.term == nil, f == nil, f.tasks.byID[key.task] != t:
			m.remove(t) // nobody would find it again
		case terminal(t.state):
			m.complete(t) // its end will not be acknowledged any more
		default:
			m.orphan(t)
			delete(a.tasks, key)
		}
	}
	m.retractAgent(a)
	m.forgetOperations(a)
	a.reset()
	delete(m.agents, a.id)
	m.told.hosts = nil
	for _, f := range m.frameworks {
		f.forgetInverse(a.id)
	}
	m.countAway(a.liveness, -1)
	m.watchDeaths()
	if m.alloc != nil {
		m.alloc.RemoveAgent(a.id)
	}
}

// url is where offers say that the agent is.
func (a *agent) url() *mesos.URL {
	return &mesos.URL{
		Scheme: proto.String("http"),
		Address: &mesos.Address{
			Hostname: proto.String(a.node.GetHostname()), Ip: proto.String(a.node.GetAddress()),
			Port: proto.Int32(int32(a.node.GetPort())),
		},
		Path: proto.String("/slave(1)"),
	}
}

func (a *agent) domain() *mesos.DomainInfo {
	if a.node.GetRegion() == "" {
		return nil
	}
	return domain(a.node.GetRegion(), a.node.GetZone())
}

func domain(region, zone string) *mesos.DomainInfo {
	return &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
		Region: &mesos.DomainInfo_FaultDomain_RegionInfo{Name: proto.String(region)},
		Zone:   &mesos.DomainInfo_FaultDomain_ZoneInfo{Name: proto.String(zone)},
	}}
}
