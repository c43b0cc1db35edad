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
	// doubtFor bounds a suspicion that memberlist neither confirmed nor took back in words that we hear.
	doubtFor = time.Minute
)

// watch turns memberlist's opinions into liveness, and does what has to be done now and then.
func (m *Mesh) watch(ctx context.Context) {
	reconcile, reap, remember := time.NewTicker(reconcileEvery), time.NewTicker(reapEvery), time.NewTicker(rememberEvery)
	defer reconcile.Stop()
	defer reap.Stop()
	defer remember.Stop()
	m.reconcile()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-m.events:
			m.onEvent(*e)
		case above := <-m.ahead:
			m.raise(above)
		case <-reconcile.C:
			m.reconcile()
		case <-reap.C:
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
		m.setLiveness(now, name, record.Alive)
		wake(m.kick)
	case eventLeave:
		m.dropDoubt(name)
		m.peers.left(name, now)
		m.locator.forget(name)
		if m.saidBye(name) {
			m.setLiveness(now, name, record.Left)
		} else {
			m.setLiveness(now, name, record.Dead)
		}
		wake(m.rejoin)
	case eventSuspect:
		if s := m.records.Snapshot(name); s != nil && s.Liveness() == record.Alive {
			m.setDoubt(name, s.Generation())
			m.setLiveness(now, name, record.Suspect)
		}
	case eventAck:
		m.trust(now, name)
	}
	m.queue.setLimit(m.profile.retransmit, m.peers.countAlive()+1)
}

// trust takes a suspicion back.
func (m *Mesh) trust(now time.Time, name string) {
	m.dropDoubt(name)
	if s := m.records.Snapshot(name); s != nil && s.Liveness() == record.Suspect {
		m.setLiveness(now, name, record.Alive)
	}
}

func (m *Mesh) setDoubt(name string, generation uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doubt[name] = generation
}

func (m *Mesh) dropDoubt(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.doubt, name)
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
	for _, n := range m.ml.Load().Members() {
		members[n.Name] = true
		if n.Name == m.cfg.NodeID {
			continue
		}
		s := m.records.Snapshot(n.Name)
		if _, known := m.peers.get(n.Name); !known || s == nil || s.Liveness() != record.Alive && s.Liveness() != record.Suspect {
			if !m.saidBye(n.Name) || s != nil && m.outlived(n.Name, s.Generation()) {
				m.onEvent(event{eventJoin, copyNode(n)})
			}
		} else if s.Liveness() == record.Suspect && now.Sub(s.Since()) > doubtFor {
			m.trust(now, n.Name)
		}
	}
	for s := range m.records.Snapshots() {
		if l := s.Liveness(); !members[s.Node()] && s.Node() != m.cfg.NodeID && (l == record.Alive || l == record.Suspect) {
			m.onEvent(event{eventLeave, memberlist.Node{Name: s.Node()}})
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
	}
}

// saidBye tells whether a node left on purpose and was not seen again since.
func (m *Mesh) saidBye(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byes[name].gone
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
	m.setLiveness(time.Now(), msg.node, record.Left)
	m.queue.pushRaw(msg.node, raw)
	wake(m.kick)
}
