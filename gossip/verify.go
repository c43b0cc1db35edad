package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"starling/gossip/record"
)

// A node is neither suspected because of one lost probe nor dead because memberlist says so: it is asked first, in datagrams of our own. An
// answer ends the doubt; a node that only talks, and does not hear what it is asked, is of no use to anybody and gets no credit
// for talking. Three questions without an answer make it a suspect, so many more make it dead where memberlist has buried it.

// doubt is what speaks against a node. The goroutine of watch alone changes doubts; the lock of the Mesh guards them.
type doubt struct {
	generation uint64 // which the node had when it began
	buried     bool   // memberlist holds it for dead
	asked      int    // questions without an answer
	next       time.Time
}

const (
	// asks is how many questions a node that memberlist has buried may leave without an answer; some of them may be of before. At 40 %
	// loss in both directions a healthy node is silent that often in 3 of 100 cases, where memberlist was wrong already.
	asks      = 8
	asksAfter = 2 // that have to come after the burial
	// asksSuspect make a suspect.
	asksSuspect = 3
	// asksAtOnce bounds the questions of one moment; what is left over waits for askAgain.
	asksAtOnce = 128
	askAgain   = 20 * time.Millisecond
	maxAsk     = 10 * time.Second // between two questions to one node
	// reviveShare is about how many of all nodes try a stream to one that was buried.
	reviveShare = 16
	revivers    = 4
)

// askEvery is the pause between two of the first questions.
func (m *Mesh) askEvery() time.Duration { return min(m.conf.ProbeTimeout/2, time.Second) }

// deafAfter is how long a node that is not answered by anybody waits until it doubts everybody.
func (m *Mesh) deafAfter() time.Duration { return 8 * m.conf.ProbeInterval }

// suspectNode begins a doubt, or carries one on, now that a probe or memberlist's word speaks against a node.
func (m *Mesh) suspectNode(now time.Time, name string, buried bool) {
	s := m.records.Snapshot(name)
	if s == nil || name == m.cfg.NodeID {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.doubt[name]
	if d == nil {
		d = &doubt{generation: s.Generation(), next: now}
		m.doubt[name] = d
	}
	if buried && !d.buried {
		d.buried, d.asked, d.next = true, min(d.asked, asks-asksAfter), now
	}
}

func (m *Mesh) dropDoubt(name string) (buried bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.doubt[name]
	delete(m.doubt, name)
	return d != nil && d.buried
}

// doubted tells whether a node is doubted, and which generation it had when that began.
func (m *Mesh) doubted(node string) (generation uint64, doubted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.doubt[node]; d != nil {
		return d.generation, true
	}
	return 0, false
}

// verify asks the nodes whose turn it is, and draws the conclusions from what they did not answer.
func (m *Mesh) verify(now time.Time) {
	var ask, suspect, dead, stream []string
	m.mu.Lock()
	for name, d := range m.doubt {
		if now.Before(d.next) {
			continue
		}
		if len(ask) >= asksAtOnce {
			d.next = now.Add(askAgain)
			continue
		}
		if d.buried && d.asked >= asks {
			dead = append(dead, name)
			continue
		}
		if d.asked == asksSuspect {
			suspect = append(suspect, name)
		}
		ask = append(ask, name)
		d.asked++
		switch {
		case d.buried && d.asked == asks:
			d.next = now.Add(m.conf.ProbeTimeout) // the last one has its full time
		case d.buried || d.asked < asks:
			d.next = now.Add(m.askEvery())
		default:
			d.next = now.Add(jitter(min(m.conf.ProbeInterval<<min(d.asked-asks, 8), maxAsk)))
		}
		if d.buried && d.asked == asks/2 {
			stream = append(stream, name)
		}
	}
	m.mu.Unlock()
	for _, name := range suspect {
		if s := m.records.Snapshot(name); s != nil && s.Liveness() == record.Alive {
			m.setLiveness(now, name, record.Suspect)
		}
	}
	for _, name := range ask {
		m.question(name)
	}
	for _, name := range dead {
		m.bury(now, name)
	}
	for _, name := range stream {
		if rand.IntN(m.peers.countAlive()+1) < reviveShare {
			m.revive(name)
		}
	}
}

// nextDoubt returns when verify has something to do again; zero if there is no doubt.
func (m *Mesh) nextDoubt() (next time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.doubt {
		if next.IsZero() || d.next.Before(next) {
			next = d.next
		}
	}
	return next
}

// hurry has all doubted nodes asked again now: this node was deaf, and hears again. Whom it would have given up for what it did not hear gets
// the questions anew that have to come after the burial.
func (m *Mesh) hurry(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.doubt {
		d.next = now
		if d.buried {
			d.asked = min(d.asked, asks-asksAfter)
		}
	}
}

// talked has a doubted node that said something asked at once, unless it has had its last question, and has time to answer that.
func (m *Mesh) talked(now time.Time, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.doubt[name]; d != nil && !(d.buried && d.asked >= asks) {
		d.next = now
	}
}

// doubtAll doubts everybody: nobody answers, so it is this node that is cut off, and it can no longer tell who lives.
func (m *Mesh) doubtAll(now time.Time) {
	for _, p := range m.peers.random(m.peers.countAlive(), "") {
		m.suspectNode(now, p.Name, false)
	}
}

// question puts the question whether it lives to a node.
func (m *Mesh) question(name string) {
	to, ok := m.peers.address(name)
	if !ok {
		return
	}
	m.askAbout(to, name)
}

// askAbout sends a question about a node to that node, or to another one.
func (m *Mesh) askAbout(to memberlist.Node, about string) {
	msg := &message{kind: kindAsk, node: m.cfg.NodeID, number: m.nonce, addr: m.self(), to: about}
	_ = m.ml.Load().SendBestEffort(&to, msg.append(nil))
}

// onAsk answers, to the address that the question names: the asker may be unknown here. Of another node all that is told is its
// goodbye, if there was one.
func (m *Mesh) onAsk(msg *message) {
	to, ok := nodeAt(msg.node, msg.addr)
	if !ok || msg.node == m.cfg.NodeID {
		return
	}
	answer := &message{kind: kindAnswer, node: m.cfg.NodeID, number: msg.number}
	if msg.to != m.cfg.NodeID {
		generation, gone := m.goodbyeOf(msg.to)
		if !gone {
			return
		}
		answer = &message{kind: kindBye, node: msg.to, number: generation}
	}
	_ = m.ml.Load().SendBestEffort(&to, answer.append(nil))
}

// self is the address of this node, as others know it.
func (m *Mesh) self() string { return net.JoinHostPort(m.host, strconv.Itoa(m.port)) }

// nodeAt makes a node of a name and a host:port; ok is false where that is none.
func nodeAt(name, addr string) (n memberlist.Node, ok bool) {
	host, text, err := net.SplitHostPort(addr)
	port, perr := strconv.ParseUint(text, 10, 16)
	ip := net.ParseIP(host)
	if err != nil || perr != nil || ip == nil {
		return n, false
	}
	return memberlist.Node{Name: name, Addr: ip, Port: uint16(port)}, true
}

// revive has a node joined that memberlist has buried, to take that back.
func (m *Mesh) revive(name string) {
	select {
	case m.buried <- name:
	default: // if it lives, reconciling with memberlist's list brings it up again
	}
}

// reviveAll exchanges state with nodes that memberlist has buried and that may live. They hear of it, object, and with
// the second exchange the objection is here, if gossip has not brought it before.
func (m *Mesh) reviveAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-m.buried:
			to, ok := m.peers.address(name)
			for range 2 {
				if !ok || m.member(name) {
					break
				}
				ok = m.exchange(ctx, to.Address()) == nil
			}
		}
	}
}

// member tells whether memberlist holds a node for alive.
func (m *Mesh) member(name string) bool {
	_, ok := m.members.get(name)
	return ok
}
