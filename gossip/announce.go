package gossip

import (
	"time"

	"starling/gossip/record"
)

// A node tells nothing of its own record until it knows that the name is its own: the first exchange with anybody shows whether the
// others know a live node of this name elsewhere. If so that one is asked, and given time to answer. So the second of two nodes of one
// name, a cloned disk as often as not, ends without anyone having seen a word of its record; nothing of the first one blinks.

const (
	// announceAfter is the time between the first word of another node and the own record: that exchange has been worked off by then.
	announceAfter = 200 * time.Millisecond
	// contestFor is how long another node that seems to live under this name has for saying so.
	contestFor = 3 * time.Second
)

// announced tells whether the own record may be told.
func (m *Mesh) announced() bool { return m.open.Load() }

// contested notes that another address claims the name of this node.
func (m *Mesh) contested() { m.rival.CompareAndSwap(0, max(1, int64(time.Since(m.started)))) }

// introduce begins the wait for the announcement, when the first other node is there. It belongs to watch, like announce.
func (m *Mesh) introduce(now time.Time) {
	if m.announceAt.IsZero() {
		m.announceAt = now.Add(announceAfter)
	}
}

// announce tells the own record, unless there is a rival who may still answer.
func (m *Mesh) announce(now time.Time) {
	if m.announced() || m.announceAt.IsZero() || now.Before(m.announceAt) {
		return
	}
	if first := m.rival.Load(); first != 0 {
		if until := m.started.Add(time.Duration(first) + contestFor); now.Before(until) {
			m.announceAt = until
			return
		}
	}
	m.open.Store(true)
	own := m.records.Snapshot(m.cfg.NodeID)
	var keys []string
	for key := range own.All() {
		keys = append(keys, key)
	}
	m.pass(own.Node(), own.Generation(), keys)
}

// nextAnnouncement returns when announce has to be called; zero if it need not.
func (m *Mesh) nextAnnouncement() time.Time {
	if m.announced() {
		return time.Time{}
	}
	return m.announceAt
}

// digests returns the digests of the nodes for which want says so, without the own one before that is announced; a nil want stands for all.
func (m *Mesh) digests(want func(node string) bool) []record.Digest {
	if m.announced() {
		return m.records.Digests(want)
	}
	return m.records.Digests(func(node string) bool { return node != m.cfg.NodeID && (want == nil || want(node)) })
}
