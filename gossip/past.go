package gossip

import (
	"time"

	"starling/gossip/record"
)

// past remembers what was held here a while ago, to tell peers that missed something from those that are only waiting for what is
// on its way. It belongs to one goroutine at a time.
type past struct {
	recent, older map[string]record.Digest // by node
	at            time.Time                // when recent was taken
}

// pastEvery is how far the memory reaches back: once to twice of this. It is for how long a hot delta may take under the heaviest load.
const pastEvery = 30 * time.Second

// note is called now and then.
func (p *past) note(now time.Time, records *record.Map) {
	if now.Sub(p.at) < pastEvery {
		return
	}
	held := records.Digests(nil)
	p.older, p.recent, p.at = p.recent, make(map[string]record.Digest, len(held)), now
	for _, d := range held {
		p.recent[d.Node] = d
	}
}

// missed tells whether a peer that holds no more than d lacks something that was held here a while ago.
func (p *past) missed(d record.Digest) bool {
	have := p.older[d.Node]
	return d.Generation < have.Generation || d.Generation == have.Generation && d.Version < have.Version
}
