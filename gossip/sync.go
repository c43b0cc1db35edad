package gossip

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"starling/gossip/record"
)

// synchronise shows a summary of all records to a random node, again and again. If the two hold the same, as is
// usual, that one datagram is all it costs, whatever the number of nodes.
func (m *Mesh) synchronise(ctx context.Context) {
	for round := 1; sleep(ctx, m.profile.sync); round++ {
		m.records.Prune(time.Now())
		flags := uint64(0)
		if round%streamRound == 0 {
			flags = overStream
		}
		for _, p := range m.peers.random(1, "") {
			m.metrics.rounds.Inc()
			m.tell(p, m.summary(flags))
		}
	}
}

// summary makes the message that begins a round.
func (m *Mesh) summary(flags uint64) *message {
	return &message{
		kind: kindSummary, node: m.cfg.NodeID, flags: flags, summary: m.records.Summary(),
		addr: m.self(),
	}
}

// Every so many rounds one goes over streams: where datagrams do not pass, nothing else but memberlist's rare exchanges would.
const streamRound = 10

// tell sends a message in a datagram if it fits and a stream is not asked for.
func (m *Mesh) tell(to memberlist.Node, msg *message) {
	body := msg.append(nil)
	m.freight.charge(len(body))
	if len(body) > m.queue.largest || msg.flags&overStream != 0 {
		m.post(to, body)
		return
	}
	if err := m.ml.Load().SendBestEffort(&to, body); err != nil {
		m.metrics.dropped.WithLabelValues(dropSend).Inc()
	}
}

// onSummary answers with the digests of what differs, as many as fit into a datagram.
func (m *Mesh) onSummary(msg *message) {
	peer, known := m.peerOf(msg.node)
	if !known {
		// Whoever knows us and is unknown here knew an earlier life of this node, which ended too fast for anyone to notice.
		m.calledBy(msg)
		return
	}
	if !m.affords(peer.Name) {
		return
	}
	own := m.records.Summary()
	var differ uint64
	for i := range own {
		if own[i] != msg.summary[i] {
			differ |= 1 << i
		}
	}
	if differ == 0 {
		return
	}
	byBucket := make([][]record.Digest, record.Buckets)
	for _, d := range m.digests(func(n string) bool { return differ>>record.Bucket(n)&1 == 1 }) {
		b := record.Bucket(d.Node)
		byBucket[b] = append(byBucket[b], d)
	}
	reply := &message{kind: kindDigests, node: m.cfg.NodeID, flags: wantReply | msg.flags&overStream}
	free := m.queue.largest - len(m.cfg.NodeID) - 32
	// Begin anywhere, so that in time every bucket is the first one. The first goes in any case.
	for i, start := 0, rand.IntN(record.Buckets); i < record.Buckets; i++ {
		b := (start + i) % record.Buckets
		if differ>>b&1 == 0 {
			continue
		}
		size := 0
		for _, d := range byBucket[b] {
			size += d.WireSize()
		}
		if size > free && reply.mask != 0 {
			break
		}
		free -= size
		reply.mask |= 1 << b
		reply.digests = append(reply.digests, byBucket[b]...)
	}
	m.tell(peer, reply)
}

// calledBy has the sender of a summary joined, who is at the address that it names.
func (m *Mesh) calledBy(msg *message) {
	if _, err := netip.ParseAddrPort(msg.addr); err != nil || msg.node == m.cfg.NodeID {
		return
	}
	select {
	case m.callers <- msg.addr:
	default: // it calls again
	}
}

// onDigests has sent what the other side lacks, and asks for what it has more.
func (m *Mesh) onDigests(msg *message) {
	peer, known := m.peerOf(msg.node)
	if !known || !m.affords(peer.Name) {
		return
	}
	now := time.Now()
	m.past.note(now, m.records)
	var missed, flux []need
	everything := msg.mask == ^uint64(0)
	lacks := func(d record.Digest, since uint64) {
		if everything || m.past.missed(d) {
			missed = append(missed, need{d.Node, since})
		} else {
			flux = append(flux, need{d.Node, since})
		}
	}
	ask := &message{kind: kindDigests, node: m.cfg.NodeID, flags: msg.flags & overStream}
	told := make(map[string]bool, len(msg.digests))
	for _, d := range msg.digests {
		told[d.Node] = true
		v := m.records.Compare(now, d)
		if v.Ahead {
			m.outbid(d.Generation)
		}
		if v.Newer && (d.Node != m.cfg.NodeID || m.announced()) {
			lacks(d, v.Since)
		}
		if v.Older {
			ask.digests = append(ask.digests, v.Mine)
		}
	}
	if msg.mask != 0 {
		for _, d := range m.digests(func(n string) bool { return msg.mask>>record.Bucket(n)&1 == 1 && !told[n] }) {
			lacks(record.Digest{Node: d.Node}, 0)
		}
	}
	if len(ask.digests) > 0 && msg.flags&wantReply != 0 {
		m.tell(peer, ask)
	}
	stream := everything || msg.flags&overStream != 0
	for _, l := range []struct {
		needs  []need
		missed bool
	}{{missed, true}, {flux, false}} {
		if len(l.needs) > 0 && !m.freight.repair(now, peer, l.needs, stream, l.missed) {
			m.metrics.dropped.WithLabelValues(dropRepair).Inc()
		}
	}
}

// What a peer may ask for: so many answers a second, and at once. An honest one asks once or twice a second.
const (
	answerRate, answerBurst = 20, 200
	// maxAnswers bounds the peers that are kept account of at once.
	maxAnswers = 4096
)

// affords tells whether a peer may ask for more. One that cannot leave off is not answered for a while, which the others do not
// notice. Only receive may call it.
func (m *Mesh) affords(peer string) bool {
	b, ok := m.answers[peer]
	if !ok {
		if len(m.answers) >= maxAnswers {
			m.answers = nil // all begin anew
		}
		if m.answers == nil {
			m.answers = map[string]bucket{}
		}
		b = bucket{rate: answerRate, burst: answerBurst, tokens: answerBurst}
	}
	ready := b.ready(time.Now())
	if ready {
		b.take(1)
	} else {
		m.metrics.dropped.WithLabelValues(dropAnswer).Inc()
	}
	m.answers[peer] = b
	return ready
}
