package dns

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"starling/gossip/catalog"
)

// The classes of distance that ranker tells.
const (
	classNode = iota
	classZone
	// classFar is the nearest of the others; those after it are farther, by farther.
	classFar
	classUnknown = classFar + len(farther) + 1
)

// farther are the round trips from which on nodes are of the next class. They grow faster than estimates are wrong, so that nodes of one
// class are about equally near, and stay in it.
var farther = [...]time.Duration{
	2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	200 * time.Millisecond,
}

// ranker tells how far away the owner of an address is. Rank may be called from any goroutine and takes no lock; the rest belongs to the
// follower. An address leads to the place of a node, and a place holds its rank: what changes of a node's place costs the same
// however many tasks it has.
type ranker struct {
	places sync.Map // netip.Addr to *place
	// owners are the nodes that have an address, for themselves or for a task.
	owners map[netip.Addr][]*node
}

// place is where a node is: its class in the highest byte, below it the round trip in nanoseconds.
type place struct{ rank atomic.Uint64 }

const rankShift = 56

func newRanker() *ranker { return &ranker{owners: map[netip.Addr][]*node{}} }

// Rank returns the class of an address: 0 on this node, 1 in its zone, or in its region where one of the two tells no zone, then more with
// each step of the estimated round trip, and last what is not known.
func (r *ranker) Rank(addr netip.Addr) (class int, rtt time.Duration) {
	v, ok := r.places.Load(addr.Unmap())
	if !ok {
		return classUnknown, 0
	}
	rank := v.(*place).rank.Load()
	return int(rank >> rankShift), time.Duration(rank & (1<<rankShift - 1))
}

// move works out anew where a node is, seen from another one; self may be nil.
func (r *ranker) move(n, self *node) {
	class, rtt := distance(n, self)
	n.place.rank.Store(uint64(class)<<rankShift | uint64(rtt))
}

func distance(n, self *node) (class int, rtt time.Duration) {
	if self == nil {
		return classUnknown, 0
	}
	if n == self || len(n.addrs) > 0 && slices.Equal(n.addrs, self.addrs) {
		return classNode, 0 // a machine may be several members of the mesh
	}
	known := n.coordinate != nil && self.coordinate != nil && len(n.coordinate.Vector) == len(self.coordinate.Vector)
	if known {
		rtt = n.coordinate.RTT(self.coordinate)
	}
	switch {
	case sameZone(n.info, self.info):
		return classZone, rtt
	case !known:
		return classUnknown, 0
	}
	class = classFar
	for _, limit := range farther {
		if rtt >= limit {
			class++
		}
	}
	return class, rtt
}

func sameZone(a, b *catalog.Node) bool {
	if a.GetRegion() != b.GetRegion() {
		return false
	}
	if a.GetZone() != "" && b.GetZone() != "" {
		return a.GetZone() == b.GetZone()
	}
	return a.GetRegion() != ""
}

// claim notes that a node has addresses, and disclaim that it has them no more, once for each claim.
func (r *ranker) claim(n *node, addrs []netip.Addr) {
	for _, a := range addrs {
		r.owners[a] = append(r.owners[a], n)
		r.settle(a)
	}
}

func (r *ranker) disclaim(n *node, addrs []netip.Addr) {
	for _, a := range addrs {
		owners := r.owners[a]
		if i := slices.Index(owners, n); i >= 0 {
			owners = slices.Delete(owners, i, i+1)
		}
		if len(owners) == 0 {
			delete(r.owners, a)
		} else {
			r.owners[a] = owners
		}
		r.settle(a)
	}
}

// settle decides whose an address is. One that containers of several machines have is nobody's: each machine has a network of that range.
func (r *ranker) settle(a netip.Addr) {
	owners := r.owners[a]
	if len(owners) == 0 || slices.ContainsFunc(owners, func(n *node) bool { return !slices.Equal(n.addrs, owners[0].addrs) }) {
		r.places.Delete(a)
		return
	}
	if v, ok := r.places.Load(a); !ok || v.(*place) != &owners[0].place {
		r.places.Store(a, &owners[0].place)
	}
}
