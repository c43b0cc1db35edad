package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"starling/gossip"
)

// ErrMoved is the end of a role whose machine got another address. Too much of a role is bound to the old one, and told others, so it
// begins anew: the caller runs the program again. Tasks of an agent go on meanwhile.
var ErrMoved = errors.New("this machine's address has changed")

const (
	moveEvery = time.Second
	// moveAfter is how many looks in a row must find the same new address in the place of the old one: a lease that is renewed may be gone for a
	// moment.
	moveAfter = 3
	// moveAside is the same for an address that was there beside the old one, for as many looks as moveAfter: that of a tunnel, or of a second
	// card. Most likely the old one is coming back, and the role would have left the better one for good.
	moveAside = 60
)

// machine is what is asked for addresses; tests have another one.
type machine struct {
	all  func() ([]net.Addr, error) // of all interfaces, also of those that are down
	best func() (netip.Addr, bool)  // the one to tell others
}

func thisMachine() machine { return machine{net.InterfaceAddrs, gossip.LocalAddr} }

// stays returns nil when ctx ends, and an error that wraps ErrMoved when the address is gone and another one has taken its place. As long as
// there is no other, the old one may come back. Addresses that come in addition change nothing.
func (m machine) stays(ctx context.Context, address string) error {
	tick := time.NewTicker(moveEvery)
	defer tick.Stop()
	beside := map[string]int{} // in how many looks in a row others were there together with the address, when that was last seen
	other, looks := "", 0
	for {
		now, err := m.addresses()
		switch {
		case err != nil:
			other, looks = "", 0
		case now[address]:
			for a := range beside {
				if !now[a] {
					delete(beside, a)
				}
			}
			for a := range now {
				beside[a]++
			}
			other, looks = "", 0
		default:
			next := ""
			if best, ok := m.best(); ok {
				next = best.String()
			}
			if next != other {
				other, looks = next, 0
			}
			looks++
			if other != "" && (looks >= moveAside || looks >= moveAfter && beside[other] < moveAfter) {
				return fmt.Errorf("%w: from %s to %s", ErrMoved, address, other)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (m machine) addresses() (map[string]bool, error) {
	list, err := m.all()
	found := map[string]bool{}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			found[n.IP.String()] = true
		}
	}
	return found, err
}
