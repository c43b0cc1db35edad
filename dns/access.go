package dns

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Permits tells whether an address is in one of the networks. It takes IPv4 addresses in both of their forms.
func Permits(networks []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Contains(a)
	})
}

// networks are addresses that are looked up fast, however many networks there are: spans in order that do not overlap.
type networks []span

type span struct{ from, to netip.Addr }

func newNetworks(list []netip.Prefix) networks {
	var all networks
	for _, p := range list {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		p = p.Masked()
		last := p.Addr().AsSlice()
		for i := p.Bits(); i < 8*len(last); i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		to, _ := netip.AddrFromSlice(last)
		all = append(all, span{p.Addr(), to})
	}
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	n := 0
	for _, next := range all {
		// Networks are nested or apart.
		if n == 0 || next.from.Compare(all[n-1].to) > 0 {
			all[n] = next
			n++
		}
	}
	return all[:n]
}

func (n networks) contain(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	i, exact := slices.BinarySearchFunc(n, a, func(s span, a netip.Addr) int { return s.from.Compare(a) })
	return exact || i > 0 && a.Compare(n[i-1].to) <= 0
}

// access is who may ask for names outside of the domain.
type access struct {
	given, more networks
	// neighbours may where nobody is given.
	neighbours *neighbours
}

func newAccess(c Config) access {
	a := access{given: newNetworks(c.Allow), more: newNetworks(c.AllowMore)}
	if c.Allow == nil {
		a.neighbours = &neighbours{interfaces: net.InterfaceAddrs}
		a.neighbours.look(time.Now())
	}
	return a
}

// Allowed tells whether a client may ask for names outside of the domain: Config.Allow and AllowMore say. Without the
// former those may that are this machine, or reach it through a private network that it is connected to, its containers'
// networks among them. It may take the time to look for a new one of those.
func (s *Server) Allowed(client netip.Addr) bool {
	a := &s.general.access
	return a.known(client) || a.neighbours != nil && mayConnect(client) && a.neighbours.again(time.Now()).contain(client)
}

// known is Allowed as far as is known already: it does not wait.
func (a *access) known(client netip.Addr) bool {
	return a.more.contain(client) || a.given.contain(client) || a.neighbours != nil && a.neighbours.known().contain(client)
}

// neighboursAge is how old the list of networks may be, strangersAge how old where a client is in none of them that might be in a new
// one: the first container on a bridge asks a moment after that has come up, and gives up when it is refused.
const (
	neighboursAge = 2 * time.Second
	strangersAge  = 50 * time.Millisecond
)

// neighbours is the networks that this machine is connected to. Interfaces come and go: the bridge of the containers is
// there when the first container is.
type neighbours struct {
	interfaces func() ([]net.Addr, error) // net.InterfaceAddrs, or what a test has

	current atomic.Pointer[networks]
	mu      sync.Mutex
	made    time.Time
}

// run keeps the list new, so that nobody who asks has to.
func (n *neighbours) run(ctx context.Context) {
	t := time.NewTicker(neighboursAge)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			n.look(time.Now())
		}
	}
}

// known is the list as it is.
func (n *neighbours) known() networks {
	if list := n.current.Load(); list != nil {
		return *list
	}
	return nil
}

// again is the list for a client that it does not have: a new one, but where another one has just made that.
func (n *neighbours) again(now time.Time) networks {
	n.mu.Lock()
	old := n.made.IsZero() || now.Sub(n.made) >= strangersAge
	n.mu.Unlock()
	if old {
		n.look(now)
	}
	return n.known()
}

func (n *neighbours) look(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.made = now
	addrs, err := n.interfaces()
	if err != nil && n.current.Load() != nil {
		return // what was true is likelier than nothing
	}
	made := newNetworks(connected(addrs))
	n.current.Store(&made)
}

// mayConnect tells whether an address is of the kind whose networks count: private, or local to a link.
func mayConnect(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// shared is the address space between carriers and their customers (RFC 6598), which container networks use too.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// connected lists loopback, the own addresses, and the networks of those that are private or local to a link.
func connected(addrs []net.Addr) []netip.Prefix {
	list := slices.Clone(Loopback)
	for _, addr := range addrs {
		p, err := netip.ParsePrefix(addr.String())
		if err != nil {
			continue
		}
		a := p.Addr().Unmap().WithZone("")
		if !mayConnect(a) {
			p = netip.PrefixFrom(a, a.BitLen())
		}
		list = append(list, p.Masked())
	}
	return list
}

// isSelf tells whether an address is one that a socket bound to another answers at: of its port, and the same address or,
// where it is bound to all of them, one of this machine's.
func isSelf(bound, asked netip.AddrPort, interfaces func() ([]net.Addr, error)) bool {
	if bound.Port() != asked.Port() {
		return false
	}
	a := asked.Addr().Unmap().WithZone("")
	if !bound.Addr().IsUnspecified() {
		return bound.Addr().Unmap().WithZone("") == a
	}
	if a.IsLoopback() {
		return true
	}
	addrs, _ := interfaces()
	return slices.ContainsFunc(addrs, func(addr net.Addr) bool {
		p, err := netip.ParsePrefix(addr.String())
		return err == nil && p.Addr().Unmap() == a
	})
}
