package gossip

import (
	"context"
	"sync/atomic"
	"time"

	"starling/gossip/record"
)

// synced finds out when this node, that has just started, knows what is known of the mesh. Readers for whom a missing record is an answer,
// as DNS, wait for it.
type synced struct {
	// done and met are closed once each; by awaitSync alone.
	done, met chan struct{}
	// told are the digests that somebody showed when this node or that one joined: what the mesh knew then. A full one drops: any one will do.
	told chan []record.Digest
	// progress has a token when something has arrived that may be what was waited for.
	progress chan struct{}
	// unnamed is set when there was no address to try at the start; unfound when mDNS has looked for others once, or is not to.
	unnamed, unfound atomic.Bool
}

func newSynced(discover bool) *synced {
	s := &synced{done: make(chan struct{}), met: make(chan struct{}), told: make(chan []record.Digest, maxTold), progress: make(chan struct{}, 1)}
	s.unfound.Store(!discover)
	return s
}

// maxTold is how many nodes' words are kept to wait for one of them to be worked off.
const maxTold = 4

// Synced returns a channel that is closed once this node holds all that another one held when the two first met, and knows who lives; or once
// it is known that there is nobody to meet: no seed, no peer of the last run, and none that mDNS finds. While seeds do not
// answer it stays open: who waits has to say how long.
func (m *Mesh) Synced() <-chan struct{} { return m.synced.done }

// Met is Synced for those to whom a mesh of this node alone is none: it stays open until there is another one.
func (m *Mesh) Met() <-chan struct{} { return m.synced.met }

// awaitSync watches until this node is synced.
func (m *Mesh) awaitSync(ctx context.Context) {
	var offers [][]record.Digest
	// Whoever started a moment ago keeps its record to itself for a while: one that others hold nothing of is waited for that long.
	var patience <-chan time.Time
	strict, done := true, false
	for {
		select {
		case <-ctx.Done():
			return
		case digests := <-m.synced.told:
			if len(offers) < maxTold {
				offers = append(offers, digests)
			}
			if patience == nil {
				patience = time.After(contestFor + 2*announceAfter)
			}
		case <-patience:
			strict = false
		case <-m.synced.progress:
		}
		alone := m.synced.unnamed.Load() && m.synced.unfound.Load() && m.countMembers() == 0
		met := m.seesMembers(strict) && m.holdsOneOf(offers)
		if met {
			close(m.synced.met)
		}
		if !done && (alone || met) {
			close(m.synced.done)
			done = true
		}
		if met {
			return
		}
	}
}

// holdsOneOf tells whether all that one of the others had shown is here.
func (m *Mesh) holdsOneOf(offers [][]record.Digest) bool {
	now := time.Now()
offers:
	for _, digests := range offers {
		for _, d := range digests {
			if d.Node != m.cfg.NodeID && m.records.Compare(now, d).Older {
				continue offers
			}
		}
		return true
	}
	return false
}

// seesMembers tells whether it has been taken up of all members of memberlist's list that they live, and, if it is strict, whether something of
// each one's record is here.
func (m *Mesh) seesMembers(strict bool) bool {
	for _, n := range m.members.all() {
		if n.Name == m.cfg.NodeID {
			continue
		}
		if s := m.records.Snapshot(n.Name); s == nil || s.Liveness() == record.Unknown || strict && s.Generation() == 0 {
			return false
		}
	}
	return true
}

// showed takes up the digests of somebody who joined, or was joined.
func (s *synced) showed(digests []record.Digest) {
	select {
	case s.told <- digests:
	default:
	}
}
