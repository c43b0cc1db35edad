package gossip

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// claimEvery is the pause between two claims to one address, claimStream that between two that go over streams as well, where
	// datagrams do not pass.
	claimEvery  = 250 * time.Millisecond
	claimStream = time.Second
	// reclaimEvery and reclaimFor are for a node that moved, and has to wait until its old self is given up.
	reclaimEvery = 2 * time.Second
	reclaimFor   = 30 * time.Second
	// maxRivals bounds the addresses that are asked at once, and those that are answered over streams in a second.
	maxRivals = 16
	// claimTie is the difference in age below which two nodes are taken to have started together.
	claimTie = 2 * time.Second
)

// rivals are the addresses where other nodes of this one's name may be. One goroutine uses them.
type rivals struct {
	m   *Mesh
	all map[string]*rival
	// answered is when a claim was last answered over a stream, by the address that it named.
	answered map[string]time.Time
}

// rival is one of the addresses.
type rival struct {
	// nonce is in the claims that go there, and nowhere else: who repeats it is there.
	nonce        uint64
	next, stream time.Time // when the next claim is due, and the next one over a stream
	until        time.Time // when it is forgotten
	settled      bool      // it has answered, and need not go
}

// contest settles who may keep the name when another node claims it too: the one that has been running for longer. An
// address at which nobody answers is only the memory of an earlier life of this node, and harmless. It returns an
// error that wraps ErrDuplicate when this node has to go.
//
// Nobody goes because of what somebody says unasked. Whatever tells of a rival only has that one asked, at its address, and what it
// says counts if it repeats the nonce of the question.
func (m *Mesh) contest(ctx context.Context) error {
	r := rivals{m: m, all: map[string]*rival{}, answered: map[string]time.Time{}}
	again := time.NewTicker(reclaimEvery)
	defer again.Stop()
	var last time.Time // that a conflict was heard of
	for {
		var due <-chan time.Time
		if next := r.next(); !next.IsZero() {
			due = time.After(time.Until(next))
		}
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
		case <-due:
			r.ask(time.Now())
		case addr := <-m.conflicts:
			last = time.Now()
			r.add(last, addr)
		case msg := <-m.claims:
			if msg.kind == kindClaim {
				r.onClaim(time.Now(), msg)
			} else if addr, older := r.onHeld(msg); older {
				return fmt.Errorf("cannot be in the mesh as %q: %w, at %s", m.cfg.NodeID, ErrDuplicate, addr)
			}
		}
	}
}

// next returns when ask has something to do; zero if it has not.
func (r *rivals) next() (next time.Time) {
	for _, v := range r.all {
		at := v.until
		if !v.settled {
			at = earliest(v.next, v.until)
		}
		next = earliest(next, at)
	}
	return next
}

// add has an address asked for a while.
func (r *rivals) add(now time.Time, addr string) {
	if r.all[addr] == nil && addr != r.m.self() && len(r.all) < maxRivals {
		r.all[addr] = &rival{nonce: rand.Uint64(), next: now, stream: now, until: now.Add(contestFor)}
	}
}

// ask sends the claims that are due.
func (r *rivals) ask(now time.Time) {
	for addr, v := range r.all {
		switch {
		case !now.Before(v.until):
			delete(r.all, addr)
		case !v.settled && !now.Before(v.next):
			stream := !now.Before(v.stream)
			if stream {
				v.stream = now.Add(claimStream)
			}
			v.next = now.Add(claimEvery)
			r.send(addr, kindClaim, v.nonce, stream)
		}
	}
}

// send sends a claim, or the answer to one.
func (r *rivals) send(addr string, k kind, nonce uint64, stream bool) {
	m := r.m
	to, ok := nodeAt(m.cfg.NodeID, addr)
	if !ok {
		return
	}
	body := (&message{kind: k, node: m.cfg.NodeID, number: nonce, uptime: time.Since(m.started), addr: m.self()}).append(nil)
	_ = m.ml.Load().SendBestEffort(&to, body)
	if stream {
		m.post(to, body)
	}
}

// onClaim answers another node of this name. If it says that it was first, it is asked in turn.
func (r *rivals) onClaim(now time.Time, msg *message) {
	for _, v := range r.all {
		if v.nonce == msg.number {
			v.settled = true // this node, by another of its addresses
			return
		}
	}
	for addr, at := range r.answered {
		if now.Sub(at) >= claimStream {
			delete(r.answered, addr)
		}
	}
	_, again := r.answered[msg.addr]
	stream := !again && len(r.answered) < maxRivals
	if stream {
		r.answered[msg.addr] = now
	}
	r.send(msg.addr, kindHeld, msg.number, stream)
	if r.older(msg) {
		r.m.contested()
		r.add(now, msg.addr)
	} else if r.m.logs.due("name") {
		r.m.log.Warn("another node claims the name of this one", "addr", msg.addr)
	}
}

// onHeld takes up an answer. It tells whether the node that gave it was first, and at which address that is.
func (r *rivals) onHeld(msg *message) (addr string, older bool) {
	for addr, v := range r.all {
		if v.nonce == msg.number {
			v.settled = true
			return addr, r.older(msg)
		}
	}
	return "", false
}

// older tells whether the sender of a message was here before this node. Of two that started together, the one with the lower address
// counts as older. What took time on its way makes the sender look younger: two nodes never both go, and ask again if both stay.
func (r *rivals) older(msg *message) bool {
	d := msg.uptime - time.Since(r.m.started)
	if -claimTie < d && d < claimTie {
		return msg.addr < r.m.self()
	}
	return d > 0
}

// onClaim hands on what another node of this name says.
func (m *Mesh) onClaim(msg *message) {
	if msg.node != m.cfg.NodeID {
		return
	}
	select {
	case m.claims <- msg:
	default: // it says so again
	}
}

// rivalAt notes that others saw somebody of this node's name at an address. It does not block.
func (m *Mesh) rivalAt(n *memberlist.Node) {
	m.contested()
	select {
	case m.conflicts <- n.Address():
	default:
	}
}
