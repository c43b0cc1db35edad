package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// errExhausted is returned when a subnet has no address left.
var errExhausted = errors.New("all addresses are in use")

// addresses hands out those of one subnet. The first is the node's own, the last for broadcasts. An address is given away
// again as late as possible: somebody may still be talking to who had it. It is not safe for concurrent use.
type addresses struct {
	subnet netip.Prefix
	used   map[netip.Addr]bool
	next   uint32
}

func newAddresses(subnet netip.Prefix) *addresses {
	return &addresses{subnet: subnet.Masked(), used: map[netip.Addr]bool{}}
}

// size is how many addresses the subnet has, those included that are not given away.
func (a *addresses) size() uint32 { return 1 << (32 - a.subnet.Bits()) }

func (a *addresses) at(i uint32) netip.Addr {
	base := a.subnet.Addr().As4()
	binary.BigEndian.PutUint32(base[:], binary.BigEndian.Uint32(base[:])+i)
	return netip.AddrFrom4(base)
}

func (a *addresses) index(addr netip.Addr) uint32 {
	base, this := a.subnet.Addr().As4(), addr.As4()
	return binary.BigEndian.Uint32(this[:]) - binary.BigEndian.Uint32(base[:])
}

// gateway is the node's own address.
func (a *addresses) gateway() netip.Addr { return a.at(1) }

// take gives an address away: the one that is wanted, or any for the zero value. inUse tells of addresses that are taken
// although nobody noted it.
func (a *addresses) take(want netip.Addr, inUse func(netip.Addr) bool) (netip.Addr, error) {
	last := a.size() - 1
	if want.IsValid() {
		if !a.subnet.Contains(want) || a.index(want) < 2 || a.index(want) >= last {
			return netip.Addr{}, fmt.Errorf("address %s is not one for containers of %s", want, a.subnet)
		}
		if a.used[want] || inUse(want) {
			return netip.Addr{}, fmt.Errorf("address %s is in use", want)
		}
		a.used[want] = true
		return want, nil
	}
	for range last {
		if a.next < 2 || a.next >= last {
			a.next = 2
		}
		addr := a.at(a.next)
		a.next++
		if !a.used[addr] && !inUse(addr) {
			a.used[addr] = true
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is left for a container: %w", a.subnet, errExhausted)
}

// hold notes an address that was given away before.
func (a *addresses) hold(addr netip.Addr) {
	if !a.subnet.Contains(addr) {
		return
	}
	a.used[addr] = true
	a.next = max(a.next, a.index(addr)+1)
}

func (a *addresses) release(addr netip.Addr) { delete(a.used, addr) }

// candidates are the subnets that the bridge of a node may get, the liked ones first: parts of each private range, none of
// them one that others give themselves by default.
func candidates() []netip.Prefix {
	var out []netip.Prefix
	for _, first := range []string{"10.213.0.0/20", "172.29.0.0/20", "192.168.208.0/20", "100.125.0.0/20"} {
		p := netip.MustParsePrefix(first)
		n := 16
		if p.Addr().As4()[0] == 192 {
			n = 3 // up to the end of 192.168
		}
		for i := range n {
			base := p.Addr().As4()
			binary.BigEndian.PutUint32(base[:], binary.BigEndian.Uint32(base[:])+uint32(i)<<12)
			out = append(out, netip.PrefixFrom(netip.AddrFrom4(base), 20))
		}
	}
	return out
}

// choose returns the first of the candidates that overlaps none of what the node has already; before them the liked one,
// if that is valid.
func choose(liked netip.Prefix, taken []netip.Prefix) (netip.Prefix, error) {
	all := candidates()
	if liked.IsValid() {
		all = append([]netip.Prefix{liked}, all...)
	}
next:
	for _, c := range all {
		for _, t := range taken {
			if c.Overlaps(t) {
				continue next
			}
		}
		return c, nil
	}
	return netip.Prefix{}, errors.New("cannot find a subnet for containers that overlaps no route of this node: say one with --network_subnet")
}
