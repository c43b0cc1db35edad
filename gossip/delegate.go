package gossip

import (
	"bytes"
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
	return (&message{kind: kindDigests, node: d.m.cfg.NodeID, mask: ^uint64(0), digests: d.m.records.Digests(nil)}).append(nil)
}

// MergeRemoteState is the other side of LocalState.
func (d *delegate) MergeRemoteState(b []byte, _ bool) { d.m.take(bytes.Clone(b)) }

// NotifyJoin is called when a node is there, for the first time or again.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.emit(event{eventJoin, copyNode(n)}) }

// NotifyLeave is called when a node died or left.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.emit(event{eventLeave, copyNode(n)}) }

// NotifyUpdate is unused: there is no meta data that could change.
func (d *delegate) NotifyUpdate(*memberlist.Node) {}

// NotifyConflict is called when two addresses claim one name.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	if existing.Name != d.m.cfg.NodeID {
		return
	}
	select {
	case d.m.conflicts <- other.Address():
	default:
	}
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

// lives is called with every sign of life that comes from a node itself. A suspicion is taken back by the first one: until the next
// probe of that node it may be long in a large mesh, and its names and offers are gone meanwhile.
func (m *Mesh) lives(node string) {
	if _, doubted := m.doubted(node); doubted {
		(&delegate{m}).emit(event{eventAck, memberlist.Node{Name: node}})
	}
}

// doubted tells whether a node did not answer the last probe, and which generation it had then.
func (m *Mesh) doubted(node string) (generation uint64, doubted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	generation, doubted = m.doubt[node]
	return generation, doubted
}

// suspected is called by the log adapter: a line of its log is the only way in which memberlist tells of suspicion.
func (m *Mesh) suspected(node string) {
	(&delegate{m}).emit(event{eventSuspect, memberlist.Node{Name: node}})
}
