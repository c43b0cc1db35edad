package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ErrMoved is the end of a role whose machine got another address. Too much of a role is bound to the old one, and told others, so it
// begins anew, which costs no task anything: the caller runs the program again.
var ErrMoved = errors.New("this machine's address has changed")

const (
	moveEvery = time.Second
	// moveAfter is how many looks in a row must miss the address: one that is renewed may be gone for a moment.
	moveAfter = 3
)

// machine is what is asked for addresses; tests have another one.
type machine struct {
	all     func() ([]net.Addr, error) // of all interfaces, also of those that are down
	private func() (netip.Addr, error) // the one to tell others
}

func thisMachine() machine { return machine{net.InterfaceAddrs, privateAddress} }

// stays returns nil when ctx ends, and an error that wraps ErrMoved when the address is gone and there is another one. As long as
// there is no other, the old one may come back.
func (m machine) stays(ctx context.Context, address string) error {
	tick := time.NewTicker(moveEvery)
	defer tick.Stop()
	for missed := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if has, err := m.has(address); err != nil || has {
			missed = 0
			continue
		}
		if missed++; missed < moveAfter {
			continue
		}
		if now, err := m.private(); err == nil && now.String() != address {
			return fmt.Errorf("%w: from %s to %s", ErrMoved, address, now)
		}
	}
}

func (m machine) has(address string) (bool, error) {
	addrs, err := m.all()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.String() == address {
			return true, nil
		}
	}
	return false, err
}
