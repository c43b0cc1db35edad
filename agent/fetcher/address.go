package fetcher

import (
	"fmt"
	"net/netip"
	"syscall"
)

// metadata are addresses at which clouds tell their machines secrets, beside those that are link-local.
var metadata = []netip.Prefix{netip.MustParsePrefix("fd00:ec2::/32"), netip.MustParsePrefix("100.100.100.200/32")}

// nat64 embeds IPv4 addresses.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// refused tells whether an address may not be fetched from: link-local ones above all, where the machine's own services
// answer whoever asks from here, as the task itself may not be able to.
func refused(a netip.Addr, allowed []netip.Prefix) bool {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, p := range allowed {
		if p.Contains(a) {
			return false
		}
	}
	for _, p := range metadata {
		if p.Contains(a) {
			return true
		}
	}
	return a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// control looks at each address at the moment it is dialled: whatever a name stood for a moment ago does not count.
func control(allowed []netip.Prefix) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("cannot read address %q: %w", address, err)
		}
		if refused(at.Addr(), allowed) {
			return fmt.Errorf("address %s is link-local or serves the machine's metadata, which tasks may not be given (--fetcher-allow-addresses)", at.Addr())
		}
		return nil
	}
}
