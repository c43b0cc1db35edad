package gossip

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// remembered is a peer as it is kept on disk.
type remembered struct {
	Name string    `json:"name"`
	Addr string    `json:"addr"` // host:port
	Seen time.Time `json:"seen"` // when it was last known to be alive
}

// maxRemembered bounds the peers that are kept on disk, and the dead ones that are kept in memory.
const maxRemembered = 1000

// peer is one other node.
type peer struct {
	node  memberlist.Node
	alive bool
	seen  time.Time // when it was last known to be alive
	// resting is set for one that said goodbye: whoever looks for company may try it, nobody else does.
	resting bool
	// For peers that are not alive: when it is tried next, and how long the pause after that is.
	next  time.Time
	pause time.Duration
}

// peerBook knows the other nodes: those that memberlist holds for alive, and where the others were last seen.
// All methods may be called from any goroutine.
type peerBook struct {
	self string

	mu    sync.Mutex
	all   map[string]*peer
	alive []string // unordered
	index map[string]int
}

func newPeerBook(self string, old []remembered) *peerBook {
	b := &peerBook{self: self, all: map[string]*peer{}, index: map[string]int{}}
	for _, r := range old {
		if n, ok := nodeAt(r.Name, r.Addr); ok && r.Name != "" && r.Name != self {
			b.all[r.Name] = &peer{node: n, seen: r.Seen}
		}
	}
	return b
}

// joined notes that a node is alive.
func (b *peerBook) joined(n memberlist.Node, now time.Time) {
	if n.Name == b.self {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[n.Name] = &peer{node: n, alive: true, seen: now}
	if _, ok := b.index[n.Name]; !ok {
		b.index[n.Name] = len(b.alive)
		b.alive = append(b.alive, n.Name)
	}
}

// left notes that a node is not alive any more. One that left on purpose is only remembered; a dead one is tried again.
func (b *peerBook) left(name string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.all[name]
	if p == nil || !p.alive {
		return
	}
	p.alive, p.seen, p.pause = false, now, 0
	p.next = now.Add(jitter(firstRetry))
	i := b.index[name]
	last := b.alive[len(b.alive)-1]
	b.alive[i], b.index[last] = last, i
	b.alive = b.alive[:len(b.alive)-1]
	delete(b.index, name)
	if dead := len(b.all) - len(b.alive); dead > maxRemembered {
		b.forgetOldest()
	}
}

// rest notes that a peer which is not alive said goodbye.
func (b *peerBook) rest(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.all[name]; p != nil && !p.alive {
		p.resting = true
	}
}

// forget drops a peer that is not alive.
func (b *peerBook) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.all[name]; p != nil && !p.alive {
		delete(b.all, name)
	}
}

func (b *peerBook) forgetOldest() {
	oldest := ""
	for name, p := range b.all {
		if !p.alive && (oldest == "" || p.seen.Before(b.all[oldest].seen)) {
			oldest = name
		}
	}
	delete(b.all, oldest)
}

// get returns a peer that is alive.
func (b *peerBook) get(name string) (memberlist.Node, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.all[name]; p != nil && p.alive {
		return p.node, true
	}
	return memberlist.Node{}, false
}

// address returns where a peer is or was, alive or not.
func (b *peerBook) address(name string) (memberlist.Node, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.all[name]; p != nil {
		return p.node, true
	}
	return memberlist.Node{}, false
}

// missing returns the names of peers that are not alive and were so not long ago, of this run or the last one.
func (b *peerBook) missing(now time.Time, within time.Duration) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for name, p := range b.all {
		if !p.alive && now.Sub(p.seen) < within {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// random returns up to n different peers that are alive, without the one excepted.
func (b *peerBook) random(n int, except string) []memberlist.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	picked := make([]memberlist.Node, 0, n)
	for i := 0; i < len(b.alive) && len(picked) < n; i++ {
		// The first part of the list is shuffled as it is used.
		j := i + rand.IntN(len(b.alive)-i)
		b.alive[i], b.alive[j] = b.alive[j], b.alive[i]
		b.index[b.alive[i]], b.index[b.alive[j]] = i, j
		if b.alive[i] != except {
			picked = append(picked, b.all[b.alive[i]].node)
		}
	}
	return picked
}

func (b *peerBook) countAlive() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.alive)
}

// admits tells whether a node is known, or there is room for one more beside others that are on their way.
func (b *peerBook) admits(name string, others int) (known, room bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known = b.all[name]
	return known, len(b.alive)+others < maxMembers
}

// countGone returns the number of peers that are known and not alive.
func (b *peerBook) countGone() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all) - len(b.alive)
}

// aliveAt tells whether a live peer has the address.
func (b *peerBook) aliveAt(addr string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range b.alive {
		if n := b.all[name].node; n.Address() == addr {
			return true
		}
	}
	return false
}

const (
	// firstRetry and lastRetry bound the pause between two attempts to reach a peer that is gone; it doubles each time.
	firstRetry = 10 * time.Second
	lastRetry  = 10 * time.Minute
)

// due returns up to n peers that are not alive and are to be tried now: half of them those that were tried least often, lest one that was
// lost a moment ago wait behind a thousand that have been gone for days, and then those whose turn has been for longest. It sets the
// time of their next turn. Peers that said goodbye are among them only if so wished.
func (b *peerBook) due(now time.Time, n int, resting bool) []memberlist.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ready []*peer
	for _, p := range b.all {
		if !p.alive && !now.Before(p.next) && (resting || !p.resting) {
			ready = append(ready, p)
		}
	}
	slices.SortFunc(ready, func(a, b *peer) int { return cmp.Or(a.next.Compare(b.next), b.seen.Compare(a.seen)) })
	if len(ready) > n {
		slices.SortStableFunc(ready, func(a, b *peer) int { return cmp.Compare(a.pause, b.pause) })
		rest := ready[n/2:]
		slices.SortFunc(rest, func(a, b *peer) int { return cmp.Or(a.next.Compare(b.next), b.seen.Compare(a.seen)) })
	}
	var nodes []memberlist.Node
	for _, p := range ready[:min(n, len(ready))] {
		p.pause = min(max(2*p.pause, firstRetry), lastRetry)
		p.next = now.Add(jitter(p.pause))
		nodes = append(nodes, p.node)
	}
	return nodes
}

// remember returns what is to be kept on disk: the live peers, then those seen last.
func (b *peerBook) remember() []remembered {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]remembered, 0, len(b.all))
	now := time.Now()
	for name, p := range b.all {
		r := remembered{Name: name, Addr: p.node.Address(), Seen: p.seen}
		if p.alive {
			r.Seen = now
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b remembered) int { return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.Name, b.Name)) })
	return list[:min(len(list), maxRemembered)]
}
