package forward

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// The pauses of a resolver that was not heard: the first, and the longest.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// resolver is one server that we ask, and how it is.
type resolver struct {
	addr netip.AddrPort
	// UDP and TCP fail apart: many small routers answer DNS over UDP alone.
	udp, tcp health
	// queries that it was sent, and those that it left unheard
	queries, unheard atomic.Uint64
}

func transport(tcp bool) string {
	if tcp {
		return "tcp"
	}
	return "udp"
}

func (r *resolver) health(tcp bool) *health {
	if tcp {
		return &r.tcp
	}
	return &r.udp
}

// health remembers whether a resolver was heard.
type health struct {
	mu sync.Mutex
	// failures since it was last heard
	failures int
	// probe is when it is tried again, although others work
	probe time.Time
	// told is whether people know that it is not heard, toldAt when they heard of that last.
	told   bool
	toldAt time.Time
}

func (h *health) works() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures == 0
}

// due tells whether it is time to try a failed resolver again, and if so puts the next such time off.
func (h *health) due(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures == 0 || now.Before(h.probe) {
		return false
	}
	h.probe = now.Add(pause(h.failures))
	return true
}

func pause(failures int) time.Duration {
	return min(firstPause<<min(failures-1, 10), longestPause)
}

// newsPause is the least time between two warnings: a name whose own servers are not heard makes a resolver look dead
// for a moment.
const newsPause = time.Minute

// report takes in how a try went, and tells whether people should hear of it: when a resolver is not heard, and when one
// of which they know that is heard again.
func (h *health) report(now time.Time, heard bool) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if heard {
		news, h.told, h.failures = h.told, false, 0
		return news
	}
	h.failures++
	h.probe = now.Add(pause(h.failures))
	if h.told || !h.toldAt.IsZero() && now.Sub(h.toldAt) < newsPause {
		return false
	}
	h.told, h.toldAt = true, now
	return true
}

// group is resolvers in the order in which they are asked.
type group []*resolver

// split tells apart those that work and those that do not, as far as is known.
func (g group) split(tcp bool) (working, failed group) {
	for _, r := range g {
		if r.health(tcp).works() {
			working = append(working, r)
		} else {
			failed = append(failed, r)
		}
	}
	return working, failed
}

// works tells whether any of the resolvers does, as far as is known.
func (g group) works(tcp bool) bool {
	for _, r := range g {
		if r.health(tcp).works() {
			return true
		}
	}
	return false
}

// newGroup makes a group of all addresses but our own, and keeps what is known of those that were in an older one.
func newGroup(addrs []netip.AddrPort, self func(netip.AddrPort) bool, old group) group {
	var g group
	for _, a := range addrs {
		if self(a) {
			continue
		}
		r := &resolver{addr: a}
		for _, o := range old {
			if o.addr == a {
				r = o
			}
		}
		g = append(g, r)
	}
	return g
}
