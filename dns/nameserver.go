package dns

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"starling/dns/records"
)

// nameserverSource gives the zone the addresses of its own name server, which its SOA and NS records name.
const nameserverSource = "ns"

// interfacesAge is how long it may take until a new address of this machine is told.
const interfacesAge = 30 * time.Second

// tellNameserver makes the name server's addresses those at which this server answers.
func (f *follower) tellNameserver() {
	f.lookAt = time.Now().Add(interfacesAge)
	var self []netip.Addr
	if f.self != nil {
		self = f.self.addrs
	}
	addrs := answersAt(f.config.bound(), self, f.interfaces)
	f.replace(nameserverSource, records.Nameserver{Name: f.zone.Config().Mname, Addrs: addrs}.Records())
}

// answersAt lists the addresses at which a server can be asked that is bound to these. For one that is bound to all addresses it is the one at
// which other nodes find this one, as some of the machine's, of a bridge for containers say, mean something else at the asker's. Where
// that is not known, or is of another family, all of them are told.
func answersAt(bound []netip.AddrPort, self []netip.Addr, interfaces func() ([]net.Addr, error)) []netip.Addr {
	var list []netip.Addr
	for _, b := range bound {
		reached := func(a netip.Addr) bool { return a.Is4() || b.Addr().Is6() }
		switch {
		case !b.Addr().IsUnspecified():
			list = append(list, b.Addr())
			continue
		case slices.ContainsFunc(self, reached):
			list = append(list, self...)
			continue
		}
		all, _ := interfaces() // without them it has no address, which costs no other name
		for _, a := range all {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() || !reached(p.Addr()) {
				continue
			}
			list = append(list, p.Addr())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}
