package gossip

import (
	"bytes"
	"errors"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls, often with its locks held: nothing here may block, keep a slice, or call memberlist.
type delegate struct{ m *Mesh }

// event is an opinion of memberlist.
type event struct {
	what eventKind
	node memberlist.Node
}

type eventKind uint8

const (
	eventJoin eventKind = iota
	eventLeave
	eventSuspect
	eventAck
	// eventTalk is a word from a node that does not prove that it hears as well.
	eventTalk
	// eventHear is the first answer to this node after a time in which nobody answered.
	eventHear
	// eventBye is a goodbye.
	eventBye
	// eventRenewed is the record of a later life of a node.
	eventRenewed
)

func (d *delegate) emit(e event) {
	select {
	case d.m.events <- &e:
	default:
		d.m.metrics.dropped.WithLabelValues(dropEvent).Inc()
	}
}

// copyNode copies what memberlist says must not be kept.
func copyNode(n *memberlist.Node) memberlist.Node {
	c := *n
	c.Addr, c.Meta = bytes.Clone(n.Addr), nil
	return c
}

// NodeMeta is unused: records carry everything.
func (d *delegate) NodeMeta(int) []byte { return nil }

// NotifyMsg queues a message of a peer.
func (d *delegate) NotifyMsg(b []byte) { d.m.take(bytes.Clone(b)) }

// take queues a message that nobody else holds.
func (m *Mesh) take(b []byte) {
	if len(b) > maxMessage || m.pending.Load() > maxPending {
		m.metrics.dropped.WithLabelValues(dropInbox).Inc()
		return
	}
	m.pending.Add(int64(len(b)))
	select {
	case m.inbox <- b:
	default:
		m.pending.Add(-int64(len(b)))
		m.metrics.dropped.WithLabelValues(dropInbox).Inc()
	}
}

// maxPending bounds the bytes in the inbox.
const maxPending = 32 << 20

// GetBroadcasts fills a datagram of memberlist's with hot deltas.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	msgs := d.m.queue.pack(time.Now(), overhead, limit)
	d.m.metrics.deltasOut.Add(float64(len(msgs)))
	return msgs
}

// LocalState is part of memberlist's exchange over streams: all digests when one of the two joins. At other times, with a thousand nodes, they
// would cost as much as all else that an idle node sends, and our own rounds come more often.
func (d *delegate) LocalState(join bool) []byte {
	if !join {
		return d.m.summary(overStream).append(nil)
	}
	return (&message{kind: kindDigests, node: d.m.cfg.NodeID, mask: ^uint64(0), digests: d.m.digests(nil)}).append(nil)
}

// MergeRemoteState is the other side of LocalState.
func (d *delegate) MergeRemoteState(b []byte, _ bool) { d.m.take(bytes.Clone(b)) }

// NotifyJoin is called when a node is there, for the first time or again.
func (d *delegate) NotifyJoin(n *memberlist.Node) {
	d.m.members.joined(copyNode(n))
	d.emit(event{eventJoin, copyNode(n)})
}

// NotifyLeave is called when a node died or left.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	d.m.members.left(n.Name)
	d.emit(event{eventLeave, copyNode(n)})
}

var (
	errMember  = errors.New("no node of this mesh")
	errMembers = errors.New("too many nodes")
)

// NotifyAlive says whether memberlist may take a node for a member. Memberlist itself takes any: without a bound, with addresses
// that are none, and with versions of its protocol that keep all others from exchanging state ever after.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	err := d.admit(n)
	if err != nil {
		d.m.metrics.refusedMembers.Inc()
	}
	return err
}

func (d *delegate) admit(n *memberlist.Node) error {
	conf := d.m.conf
	switch {
	case validName(n.Name) != nil, len(n.Addr) != 4 && len(n.Addr) != 16, n.Port == 0, len(n.Meta) > memberlist.MetaMaxSize:
		return errMember
	case n.PMin > conf.ProtocolVersion || n.PMax < conf.ProtocolVersion || n.PCur < n.PMin || n.PCur > n.PMax:
		return errMember
	case n.PCur < memberlist.ProtocolVersionMin || n.PCur > memberlist.ProtocolVersionMax:
		return errMember
	case n.DMin > conf.DelegateProtocolVersion || n.DMax < conf.DelegateProtocolVersion || n.DCur < n.DMin || n.DCur > n.DMax:
		return errMember
	}
	known, room := d.m.peers.admits(n.Name, int(d.m.fresh.Load()))
	switch {
	case known || n.Name == d.m.cfg.NodeID:
		return nil
	case !room:
		return errMembers
	}
	d.m.fresh.Add(1)
	return nil
}

// refusedBelow counts what memberlist itself refuses.
func (m *Mesh) refusedBelow(foreign bool) {
	if foreign {
		m.metrics.refusedForeign.Inc()
	} else {
		m.metrics.refusedDatagrams.Inc()
	}
}

// NotifyUpdate is unused: there is no meta data that could change.
func (d *delegate) NotifyUpdate(*memberlist.Node) {}

// NotifyConflict is called when two addresses claim one name.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	if existing.Name == d.m.cfg.NodeID {
		d.m.rivalAt(other)
	}
}

// NotifyMerge is called when this node or another one joins, with what the other one knows of all nodes. Whom that one suspects is no conflict
// to memberlist, which asks a node of this name to object instead, and this one would.
func (d *delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if n.Name == d.m.cfg.NodeID && n.State != memberlist.StateLeft && n.Address() != d.m.self() {
			d.m.rivalAt(n)
		}
	}
	return nil
}

// AckPayload goes along with the answer to a probe: where this node is.
func (d *delegate) AckPayload() []byte { return d.m.locator.answer() }

// NotifyPingComplete is called when a node answered a probe of this one.
func (d *delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, payload []byte) {
	d.m.lives(n.Name)
	if len(payload) > 0 {
		if err := d.m.locator.observe(n.Name, rtt, payload); err != nil {
			d.m.metrics.refusedCoordinates.Inc()
		}
	}
}

// lives is called with everything that proves that a node heard this one. A doubt ends with the first one: until the next probe of
// that node it may be long in a large mesh, and its names and offers are gone meanwhile.
func (m *Mesh) lives(node string) {
	now := time.Since(m.started)
	if before := time.Duration(m.heard.Swap(int64(now))); now-before > m.deafAfter() {
		(&delegate{m}).emit(event{eventHear, memberlist.Node{Name: node}})
	}
	if _, doubted := m.doubted(node); doubted {
		(&delegate{m}).emit(event{eventAck, memberlist.Node{Name: node}})
	}
}

// talks is called with what a node says by itself, heard or not.
func (m *Mesh) talks(node string) {
	if _, doubted := m.doubted(node); doubted {
		(&delegate{m}).emit(event{eventTalk, memberlist.Node{Name: node}})
	}
}

// answeredByStream is called by the log adapter too: memberlist tells nobody else of a probe that was answered in this way.
func (m *Mesh) answeredByStream(node string) {
	m.metrics.streamOnly.Inc()
	m.lives(node)
}

// suspected is called by the log adapter: a line of its log is the only way in which memberlist tells of suspicion.
func (m *Mesh) suspected(node string) {
	(&delegate{m}).emit(event{eventSuspect, memberlist.Node{Name: node}})
}
