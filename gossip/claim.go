package gossip

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// contest settles who may keep the name when another node claims it too: the one that has been running for longer. An
// address at which nobody answers is only the memory of an earlier life of this node, and harmless. It returns an
// error that wraps ErrDuplicate when this node has to go.
func (m *Mesh) contest(ctx context.Context) error {
	asked := map[string]time.Time{} // by address
	again := time.NewTicker(reclaimEvery)
	defer again.Stop()
	var last time.Time // that a conflict was heard of
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			// As long as others hold on to an earlier life of this node at another address they refuse this one. Once they
			// have given it up, it takes one exchange to tell them of this one.
			if time.Since(last) < reclaimFor {
				for _, p := range m.peers.random(1, "") {
					m.tryAll(ctx, []string{p.Address()})
				}
			}
		case addr := <-m.conflicts:
			now := time.Now()
			last = now
			for a, at := range asked {
				if now.Sub(at) > claimEvery {
					delete(asked, a)
				}
			}
			if _, recent := asked[addr]; recent || len(asked) >= maxClaims {
				continue
			}
			asked[addr] = now
			m.claim(addr, kindClaim)
		case addr := <-m.lost:
			return fmt.Errorf("cannot be in the mesh as %q: %w, at %s", m.cfg.NodeID, ErrDuplicate, addr)
		}
	}
}

const (
	claimEvery = time.Second
	// reclaimEvery and reclaimFor are for a node that moved, and has to wait until its old self is given up.
	reclaimEvery = 2 * time.Second
	reclaimFor   = 30 * time.Second
	maxClaims    = 16
	// claimTie is the difference in age below which two nodes are taken to have started together.
	claimTie = 2 * time.Second
)

// claim sends a claim, or the answer to one, to the other node of this name.
func (m *Mesh) claim(addr string, k kind) {
	host, port, err := net.SplitHostPort(addr)
	n, perr := strconv.ParseUint(port, 10, 16)
	ip := net.ParseIP(host)
	if err != nil || perr != nil || ip == nil {
		return
	}
	to := memberlist.Node{Name: m.cfg.NodeID, Addr: ip, Port: uint16(n)}
	msg := &message{
		kind: k, node: m.cfg.NodeID, number: m.nonce, uptime: time.Since(m.started),
		addr: net.JoinHostPort(m.host, strconv.Itoa(m.port)),
	}
	body := msg.append(nil)
	_ = m.ml.Load().SendBestEffort(&to, body)
	m.post(to, body) // and once more over a stream, where datagrams do not pass
}

// onClaim deals with what another node of this name says.
func (m *Mesh) onClaim(msg *message) {
	if msg.node != m.cfg.NodeID || msg.number == m.nonce {
		return
	}
	if msg.kind == kindClaim {
		age := time.Since(m.started)
		older := age > msg.uptime
		if d := age - msg.uptime; -claimTie < d && d < claimTie {
			older = m.nonce < msg.number
		}
		if older {
			m.log.Warn("another node claims the name of this one", "addr", msg.addr)
			m.claim(msg.addr, kindHeld)
			return
		}
	}
	select {
	case m.lost <- msg.addr:
	default:
	}
}
