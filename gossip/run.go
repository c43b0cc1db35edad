package gossip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

// How long leaving may take at most: for the goodbye of memberlist, and for streams that are under way.
const (
	leaveTimeout = 2 * time.Second
	hangUpAfter  = 500 * time.Millisecond
	senders      = 4
)

// Run joins the mesh, keeps this node in it, and leaves gracefully when the context ends. It returns nil then, or an error that
// wraps ErrDuplicate. It can be called once.
func (m *Mesh) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return errors.New("the mesh was run already")
	}
	defer m.metrics.unregister()
	ml, err := memberlist.Create(m.conf)
	if err != nil {
		closeQuietly(closer(m.transport.close))
		return fmt.Errorf("cannot start the mesh: %w", err)
	}
	m.ml.Store(ml)
	m.log.Info("mesh started", "node", m.cfg.NodeID, "addr", ml.LocalNode().Address(), "profile", m.cfg.Profile,
		"encrypted", m.conf.EncryptionEnabled(), "generation", m.records.Snapshot(m.cfg.NodeID).Generation())

	// The senders outlive the others, so that goodbyes still go out.
	sendCtx, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	sending, _ := errgroup.WithContext(sendCtx)
	for range senders {
		sending.Go(func() error { m.send(sendCtx); return nil })
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { m.receive(groupCtx); return nil })
	group.Go(func() error { m.gossip(groupCtx); return nil })
	group.Go(func() error { m.carry(groupCtx); return nil })
	group.Go(func() error { m.synchronise(groupCtx); return nil })
	group.Go(func() error { m.watch(groupCtx); return nil })
	group.Go(func() error { m.join(groupCtx); return nil })
	group.Go(func() error { m.locate(groupCtx); return nil })
	group.Go(func() error { m.awaitSync(groupCtx); return nil })
	for range revivers {
		group.Go(func() error { m.reviveAll(groupCtx); return nil })
	}
	group.Go(func() error { return m.contest(groupCtx) })
	if m.keys != nil {
		group.Go(func() error { m.keepKeys(groupCtx); return nil })
		group.Go(func() error { m.rotate(groupCtx); return nil })
	}
	if m.cfg.Discover {
		group.Go(func() error { m.discover(groupCtx); return nil })
	}
	// A stream that does not move must not hold up the end.
	defer context.AfterFunc(groupCtx, func() { time.AfterFunc(hangUpAfter, m.transport.hangUp) })()
	err = group.Wait()

	m.leaving.Store(true)
	switch {
	case errors.Is(err, ErrDuplicate):
		m.log.Error("mesh left", "err", err)
	case m.rival.Load() != 0 && !m.announced():
		m.log.Info("mesh left")
	default: // in the other cases the goodbye would be that of another node
		m.goodbye(ml)
		m.log.Info("mesh left")
	}
	stopSending()
	m.transport.hangUp()
	_ = sending.Wait()
	if serr := ml.Shutdown(); serr != nil {
		m.log.Warn("mesh not shut down cleanly", "err", serr)
	}
	closeQuietly(closer(m.transport.close))
	if serr := m.state.savePeers(m.peers.remember()); serr != nil {
		m.log.Warn("peers not remembered", "err", serr)
	}
	return err
}

// goodbye tells the others that this node leaves on purpose, first in our words and then in memberlist's.
func (m *Mesh) goodbye(ml *memberlist.Memberlist) {
	own := m.records.Snapshot(m.cfg.NodeID)
	bye := (&message{kind: kindBye, node: own.Node(), number: own.Generation()}).append(nil)
	for _, p := range m.peers.random(2*m.profile.fanout, "") {
		_ = ml.SendBestEffort(&p, bye)
	}
	m.queue.pushRaw(own.Node(), bye)
	if err := ml.Leave(leaveTimeout); err != nil {
		m.log.Debug("goodbye not confirmed", "err", err)
	}
}

// send carries parcels over streams until the context ends.
func (m *Mesh) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-m.outbox:
			m.waiting.Add(-int64(len(p.body)))
			m.deliver(p)
		case p := <-m.bulk:
			m.deliver(p)
		}
	}
}

// deliver sends a parcel over a stream.
func (m *Mesh) deliver(p parcel) {
	if err := m.ml.Load().SendReliable(&p.to, p.body); err != nil {
		m.metrics.dropped.WithLabelValues(dropSend).Inc()
		m.log.Debug("message not sent", "peer", p.to.Name, "addr", p.to.Address(), "err", err)
		return
	}
	m.metrics.deltasOut.Inc()
}

// gossip sends hot deltas: at once when there was nothing to tell for a while, else a round at a time.
func (m *Mesh) gossip(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.kick:
		}
		for m.round() {
			if !sleep(ctx, m.profile.coalesce) {
				return
			}
		}
	}
}

// round sends one datagram of hot deltas to each of a few nodes. It tells whether there may be more to send.
func (m *Mesh) round() bool {
	peers := m.peers.random(m.profile.fanout, "")
	if len(peers) == 0 {
		return false
	}
	ml := m.ml.Load()
	for _, p := range peers {
		msgs := m.queue.pack(time.Now(), 0, m.queue.largest)
		for _, msg := range msgs {
			if err := ml.SendBestEffort(&p, msg); err != nil {
				m.metrics.dropped.WithLabelValues(dropSend).Inc()
				continue
			}
			m.metrics.deltasOut.Inc()
		}
	}
	n, _ := m.queue.state()
	return n > 0
}

// receive takes apart what memberlist received.
func (m *Mesh) receive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-m.inbox:
			m.pending.Add(-int64(len(b)))
			m.handle(b)
			wake(m.synced.progress)
		}
	}
}

// handle deals with one message. Whatever is wrong with it is counted, and goes no further than the debug log.
func (m *Mesh) handle(b []byte) {
	msg, err := parseMessage(b)
	if err != nil {
		m.metrics.refused.Inc()
		m.log.Debug("message refused", "err", err)
		return
	}
	switch msg.kind {
	case kindHot, kindRepair:
		for _, d := range msg.deltas {
			res, err := m.apply(d, msg.kind == kindHot)
			if err != nil {
				m.log.Debug("delta refused", "err", err)
			} else if msg.kind == kindRepair && len(res.Keys) > 0 {
				m.metrics.repairsIn.Add(float64(len(res.Keys)))
			}
		}
	case kindSummary:
		m.talks(msg.node)
		m.onSummary(msg)
	case kindDigests: // they answer what this node said, or came over a stream
		m.lives(msg.node)
		if msg.mask == ^uint64(0) {
			m.synced.showed(msg.digests)
		}
		m.onDigests(msg)
	case kindBye:
		m.onBye(msg, b)
	case kindClaim, kindHeld:
		m.onClaim(msg)
	case kindKeys:
		m.onKeys(msg)
	case kindAsk:
		m.onAsk(msg)
	case kindAnswer:
		if msg.number == m.nonce {
			m.lives(msg.node)
		}
	}
}
