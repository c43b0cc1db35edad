package gossip

import (
	"bytes"
	"math/rand/v2"
	"time"

	"starling/gossip/catalog"
	"starling/gossip/keyring"
	"starling/gossip/record"
)

// laggard is a node that has not acknowledged the ring.
type laggard struct {
	since, next time.Time
	pause       time.Duration
}

const (
	// How often nodes are looked for that are behind, while there are some and while there are none.
	spreadBusy = 500 * time.Millisecond
	spreadIdle = 2 * time.Second
	// lagFirst and lagLast bound the pause between two attempts to tell one of them; it doubles each time.
	lagFirst = time.Second
	lagLast  = 30 * time.Second
	// lagOther is when it is tried with the other secret, too.
	lagOther = 2 * time.Second
	// spreadAtOnce bounds whom is sent to in one go, spreadHelpers is how many nodes tell each one that is behind.
	spreadAtOnce  = 32
	spreadHelpers = 3
	maxLaggards   = 4096
)

// spread sends the ring to nodes that are behind, and tells whether there are such. The node that took the step tells as many as it can, of
// the others a few: together they are as fast as any gossip, and one that never acknowledges is not stormed.
func (m *Mesh) spread(now time.Time) bool {
	k := m.keys
	ring := k.current()
	own := newAck(ring)
	said, _ := m.records.Snapshot(m.cfg.NodeID).Get(catalog.KeyKeys)
	behind := map[string]bool{}
	var due []*record.Snapshot
	for s := range m.records.Snapshots() {
		if s.Node() == m.cfg.NodeID || s.Liveness() == record.Left || ring.Serial == 0 || len(behind) >= maxLaggards {
			continue
		}
		if theirs, _ := s.Get(catalog.KeyKeys); bytes.Equal(theirs, said) {
			continue // as good as always
		}
		if a, ok := acknowledged(s); ok && !own.beats(a) {
			continue
		}
		behind[s.Node()] = true
		if l := k.laggards[s.Node()]; l == nil {
			k.laggards[s.Node()] = &laggard{since: now, pause: lagFirst}
			due = append(due, s)
		} else if !now.Before(l.next) {
			due = append(due, s)
		}
	}
	for name := range k.laggards {
		if !behind[name] {
			delete(k.laggards, name)
		}
	}
	if len(due) == 0 {
		return len(behind) > 0
	}
	body := (&message{kind: kindKeys, node: m.cfg.NodeID, number: ring.Serial, secrets: ring.Secrets}).append(nil)
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	help := float64(spreadHelpers) / float64(m.peers.countAlive()+1)
	sent := 0
	for _, s := range due {
		if sent == spreadAtOnce {
			break // the others' turn comes at once
		}
		l := k.laggards[s.Node()]
		l.next = now.Add(jitter(l.pause))
		l.pause = min(2*l.pause, lagLast)
		if k.mine || rand.Float64() < help {
			m.sendKeys(s, body, ring, now.Sub(l.since) >= lagOther)
			sent++
		}
	}
	return true
}

// sendKeys sends the ring to a node. One that is a member gets it over a stream. One that is not, or does not answer, may not understand
// the secret that is sent with: it came with an old key file, or was away; it gets datagrams, under each secret that it may know.
func (m *Mesh) sendKeys(s *record.Snapshot, body []byte, ring keyring.Ring, all bool) {
	to, ok := m.peers.address(s.Node())
	if !ok {
		return
	}
	member := s.Liveness() == record.Alive || s.Liveness() == record.Suspect
	if member {
		m.post(to, body)
	}
	if member && !all {
		return
	}
	for _, secret := range ring.Secrets {
		m.keys.under(secret, func() {
			if err := m.ml.Load().SendBestEffort(&to, body); err != nil {
				m.metrics.dropped.WithLabelValues(dropSend).Inc()
			}
		})
	}
}
