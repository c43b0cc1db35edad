package gossip

import (
	"context"
	"time"

	"github.com/hashicorp/memberlist"

	"starling/gossip/record"
)

// Member is one node of the mesh, as this node sees it.
type Member struct {
	Name string
	// Address and Port are where the mesh of that node listens; for a node that is only known from others both are zero.
	Address  string
	Port     int
	Liveness record.Liveness
	// Since is when Liveness last changed, by the clock of this node.
	Since time.Time
	// DampedUntil is when a node that comes and goes, and is back, will be believed again if it stays; zero for others. Until then
	// Liveness is Dead.
	DampedUntil time.Time
	// Generation and Version say how much of its record is held here.
	Generation uint64
	Version    uint64
}

// Members returns all nodes of which something is held, this one included, in order of names.
func (m *Mesh) Members() []Member {
	var members []Member
	for s := range m.records.Snapshots() {
		member := Member{
			Name: s.Node(), Liveness: s.Liveness(), Since: s.Since(), Generation: s.Generation(), Version: s.Version(),
			DampedUntil: m.damper.until(s.Node()),
		}
		if s.Node() == m.cfg.NodeID {
			member.Address, member.Port, member.Since = m.host, m.port, m.started
		} else if n, ok := m.peers.address(s.Node()); ok {
			member.Address, member.Port = n.Addr.String(), int(n.Port)
		}
		members = append(members, member)
	}
	return members
}

const (
	reconcileEvery = 5 * time.Second
	reapEvery      = time.Minute
	rememberEvery  = 30 * time.Second
)

// watch turns memberlist's opinions into liveness, and does what has to be done now and then.
func (m *Mesh) watch(ctx context.Context) {
	reconcile, reap, remember := time.NewTicker(reconcileEvery), time.NewTicker(reapEvery), time.NewTicker(rememberEvery)
	defer reconcile.Stop()
	defer reap.Stop()
	defer remember.Stop()
	alarm := time.NewTimer(reconcileEvery)
	defer alarm.Stop()
	m.reconcile()
	for {
		if next := m.nextAlarm(); !next.IsZero() {
			alarm.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case e := <-m.events:
			m.onEvent(*e)
			wake(m.synced.progress)
		case <-alarm.C:
			now := time.Now()
			for _, name := range m.damper.over(now) {
				m.suspectNode(now, name, false) // its answer ends the hold-down
			}
			m.verify(now)
			m.announce(now)
		case above := <-m.ahead:
			m.raise(above)
		case <-reconcile.C:
			m.reconcile()
		case <-reap.C:
			m.fresh.Store(0)
			if gone := m.records.Reap(time.Now(), m.cfg.ReapAfter); gone != nil {
				m.forget(gone)
				m.log.Info("nodes reaped", "nodes", gone)
			}
		case <-remember.C:
			if err := m.state.savePeers(m.peers.remember()); err != nil {
				m.log.Warn("peers not remembered", "err", err)
			}
		}
	}
}

// nextAlarm returns when a doubt, a hold-down or the own announcement wants attention; zero if nothing does.
func (m *Mesh) nextAlarm() time.Time {
	_, held := m.damper.held()
	return earliest(m.nextDoubt(), held, m.nextAnnouncement())
}

// earliest returns the earliest of some times; zero ones don't count.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if first.IsZero() || !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

func (m *Mesh) onEvent(e event) {
	now, name := time.Now(), e.node.Name
	switch e.what {
	case eventJoin:
		m.dropDoubt(name)
		m.mu.Lock()
		if b, ok := m.byes[name]; ok {
			b.gone = false
			m.byes[name] = b
		}
		m.mu.Unlock()
		m.peers.joined(e.node, now)
		if name != m.cfg.NodeID {
			m.introduce(now)
		}
		m.returned(now, name)
		wake(m.kick)
	case eventLeave:
		if m.saidBye(name) {
			m.depart(now, name)
		} else {
			m.suspectNode(now, name, true)
		}
	case eventBye:
		if m.saidBye(name) {
			m.depart(now, name)
		}
	case eventSuspect:
		m.damper.shaken(name, now)
		m.suspectNode(now, name, false)
		if time.Since(m.started)-time.Duration(m.heard.Load()) > m.deafAfter() {
			m.doubtAll(now)
		}
	case eventAck:
		m.trust(now, name)
	case eventTalk:
		m.talked(now, name)
	case eventHear:
		m.hurry(now)
	case eventRenewed:
		if _, alive := m.peers.get(name); alive {
			m.setLiveness(now, name, record.Alive)
		}
	}
	m.queue.setLimit(m.profile.retransmit, m.peers.countAlive()+1)
}

// returned takes up that memberlist holds a node for alive, after a hold-down if it comes and goes.
func (m *Mesh) returned(now time.Time, name string) {
	generation := uint64(0)
	if s := m.records.Snapshot(name); s != nil {
		generation = s.Generation()
	}
	hold := m.damper.returned(name, generation, now)
	if hold == 0 {
		m.setLiveness(now, name, record.Alive)
		return
	}
	m.metrics.damped.Inc()
	m.flaps++
	if m.logs.due("flaps") {
		m.log.Warn("node comes and goes, and counts as dead until it stays", "peer", name, "dur", hold, "times", m.flaps)
		m.flaps = 0
	}
}

// depart takes up a goodbye.
func (m *Mesh) depart(now time.Time, name string) {
	m.dropDoubt(name)
	m.damper.forget(name)
	m.peers.left(name, now)
	m.peers.rest(name)
	m.locator.forget(name)
	m.setLiveness(now, name, record.Left)
	wake(m.rejoin)
}

// bury takes up that a node is dead: memberlist says so, and it does not answer.
func (m *Mesh) bury(now time.Time, name string) {
	m.dropDoubt(name)
	m.peers.left(name, now)
	m.locator.forget(name)
	m.setLiveness(now, name, record.Dead)
	if s := m.records.Snapshot(name); s != nil {
		m.damper.died(name, s.Generation(), now)
	}
	if m.alone() {
		m.damper.blame(now)
	}
	wake(m.rejoin)
}

// minAlone is the number of other nodes from which the loss of most of them is this node's own.
const minAlone = 3

// alone tells whether most of the others are dead.
func (m *Mesh) alone() bool {
	all, dead := 0, 0
	for s := range m.records.Snapshots() {
		switch s.Liveness() {
		case record.Dead:
			dead++
			all++
		case record.Alive, record.Suspect:
			all++
		}
	}
	return all-1 >= minAlone && 2*dead > all-1
}

// trust ends a doubt. If memberlist has buried the node, that is taken back.
func (m *Mesh) trust(now time.Time, name string) {
	if m.dropDoubt(name) {
		m.revive(name)
	}
	believed := m.damper.answered(name, now)
	if s := m.records.Snapshot(name); believed || s != nil && s.Liveness() == record.Suspect {
		m.setLiveness(now, name, record.Alive)
	}
}

func (m *Mesh) setLiveness(now time.Time, name string, l record.Liveness) {
	if name == m.cfg.NodeID {
		return
	}
	old := record.Unknown
	if s := m.records.Snapshot(name); s != nil {
		old = s.Liveness()
	}
	if old == l {
		return
	}
	m.records.SetLiveness(now, name, l)
	if l == record.Suspect || old == record.Suspect && l == record.Alive {
		m.log.Debug("node changed", "peer", name, "state", l.String(), "was", old.String())
		return
	}
	m.log.Info("node changed", "peer", name, "state", l.String(), "was", old.String())
}

// reconcile makes good for events that were dropped or never told: memberlist's list of members is right in the end.
func (m *Mesh) reconcile() {
	now := time.Now()
	members := map[string]bool{}
	for _, n := range m.members.all() {
		members[n.Name] = true
		if n.Name == m.cfg.NodeID {
			continue
		}
		s := m.records.Snapshot(n.Name)
		if !m.damper.until(n.Name).IsZero() {
			continue // it is there, but not believed yet
		}
		if _, known := m.peers.get(n.Name); !known || s == nil || s.Liveness() != record.Alive && s.Liveness() != record.Suspect {
			if !m.saidBye(n.Name) || s != nil && m.outlived(n.Name, s.Generation()) {
				m.onEvent(event{eventJoin, n})
			}
		} else if _, doubted := m.doubted(n.Name); s.Liveness() == record.Suspect && !doubted {
			m.trust(now, n.Name) // an event was dropped
		}
	}
	for s := range m.records.Snapshots() {
		if l := s.Liveness(); !members[s.Node()] && s.Node() != m.cfg.NodeID && (l == record.Alive || l == record.Suspect) {
			m.onEvent(event{eventLeave, memberlist.Node{Name: s.Node()}})
		}
	}
	m.inquire(now)
}

// inquire asks others about the nodes of which there is but a record, lately: one that said goodbye before this node was there to
// hear it has left, and is not dead.
func (m *Mesh) inquire(now time.Time) {
	asked := 0
	for s := range m.records.Snapshots() {
		if s.Node() == m.cfg.NodeID || s.Liveness() != record.Unknown || now.Sub(s.Since()) >= strangerFor {
			continue
		}
		for _, p := range m.peers.random(1, s.Node()) {
			m.askAbout(p, s.Node())
		}
		if asked++; asked == asksAtOnce {
			return
		}
	}
}

// forget drops what was kept of nodes that were reaped: the goodbyes, lest they fill the room for others', and the addresses of those
// that left on purpose. A node that died is still tried, in case it was only cut off.
func (m *Mesh) forget(nodes []string) {
	for _, name := range nodes {
		if m.saidBye(name) {
			m.peers.forget(name)
		}
		m.mu.Lock()
		delete(m.byes, name)
		delete(m.doubt, name)
		m.mu.Unlock()
		m.damper.forget(name)
	}
}

// saidBye tells whether a node left on purpose and was not seen again since.
func (m *Mesh) saidBye(name string) bool {
	_, gone := m.goodbyeOf(name)
	return gone
}

// goodbyeOf is saidBye, with the generation of the life that ended so.
func (m *Mesh) goodbyeOf(name string) (generation uint64, gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.byes[name]
	return b.generation, b.gone
}

// outlived tells whether a record is of a later life than the one that ended with the node's last goodbye.
func (m *Mesh) outlived(name string, generation uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return generation > m.byes[name].generation
}

// returns is called when the record of a generation has come. The first copy of a goodbye may arrive after memberlist's word that the
// node is back: then the record of the new life is what tells the two apart.
func (m *Mesh) returns(name string, generation uint64) {
	if !m.saidBye(name) || !m.outlived(name, generation) || m.ml.Load() == nil {
		return
	}
	if member, ok := m.peerOf(name); ok {
		(&delegate{m}).emit(event{eventJoin, member})
	}
}

// maxByes bounds the goodbyes that are remembered; they are forgotten with the nodes.
const maxByes = 4096

// onBye notes that a node leaves on purpose, and passes it on if it was news.
func (m *Mesh) onBye(msg *message, raw []byte) {
	s := m.records.Snapshot(msg.node)
	if s == nil || msg.node == m.cfg.NodeID || msg.number < s.Generation() {
		return
	}
	m.mu.Lock()
	old, known := m.byes[msg.node]
	news := !known && len(m.byes) < maxByes || known && old.generation < msg.number
	if news {
		m.byes[msg.node] = bye{generation: msg.number, gone: true}
	}
	m.mu.Unlock()
	if !news {
		return
	}
	(&delegate{m}).emit(event{eventBye, memberlist.Node{Name: msg.node}})
	m.queue.pushRaw(msg.node, raw)
	wake(m.kick)
}
