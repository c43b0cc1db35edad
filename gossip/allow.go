package gossip

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// networks are those that a node of the mesh talks with; none: all of them.
type networks []netip.Prefix

func (n networks) has(ip netip.Addr) bool {
	if len(n) == 0 {
		return true
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// hasAddr is has for the address of a peer, as sockets and memberlist give it. Where there is a choice of networks, what is no address is in none.
func (n networks) hasAddr(addr string) bool {
	if len(n) == 0 {
		return true
	}
	a, err := netip.ParseAddrPort(addr)
	return err == nil && n.has(a.Addr())
}

// memberlist returns them in the form that memberlist wants: it keeps nodes elsewhere out of its list, whoever tells of them.
func (n networks) memberlist() []net.IPNet {
	var nets []net.IPNet
	for _, p := range n {
		nets = append(nets, net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return nets
}

func (n networks) String() string {
	var all []string
	for _, p := range n {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// refuse is called with the address of a peer that is in none of the allowed networks. It returns the error for whoever wanted to send there.
func (m *Mesh) refuse(addr string) error {
	m.metrics.refusedNetwork.Inc()
	if n := m.elsewhere.count(time.Now()); n > 0 {
		m.log.Warn("refused what is not in an allowed network", "addr", addr, "allowed", networks(m.cfg.Allow).String(), "count", n)
	}
	return fmt.Errorf("%s is in none of the allowed networks %v", addr, networks(m.cfg.Allow))
}

// tally counts what is warned of once a minute.
type tally struct {
	mu   sync.Mutex
	n    int
	next time.Time
}

// count adds one. It returns how many there were since the last warning where the next one is due, else 0.
func (t *tally) count(now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
	if now.Before(t.next) {
		return 0
	}
	n := t.n
	t.n, t.next = 0, now.Add(foreignEvery)
	return n
}
