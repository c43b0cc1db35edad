package gossip

import (
	"net"
	"net/netip"
	"testing"
)

func TestTheBestAddressIsTold(t *testing.T) {
	const up = net.FlagUp | net.FlagBroadcast | net.FlagMulticast
	on := func(name string, flags net.Flags, addrs ...string) netInterface {
		n := netInterface{name: name, flags: flags}
		for _, a := range addrs {
			n.addrs = append(n.addrs, netip.MustParseAddr(a))
		}
		return n
	}
	lo := on("lo", net.FlagUp|net.FlagLoopback, "127.0.0.1", "::1")
	const list = `20010db8000000000000000000000099 02 40 00 01 eth0
20010db8000000000000000000000098 02 40 00 20 eth0
20010db8000000000000000000000001 02 40 00 00 eth0
not a line of that list
`
	for _, tc := range []struct {
		name       string
		interfaces []netInterface
		want       string // empty for none
	}{
		{"the loopback alone is nothing", []netInterface{lo}, ""},
		{"private before public", []netInterface{lo, on("eth0", up, "192.0.2.1"), on("eth1", up, "10.0.0.1")}, "10.0.0.1"},
		{"IPv4 before IPv6", []netInterface{on("eth0", up, "2001:db8::1", "192.0.2.1")}, "192.0.2.1"},
		{"the first of two", []netInterface{on("eth0", up, "10.0.0.1"), on("eth1", up, "10.1.0.1")}, "10.0.0.1"},
		{"a tunnel after a link", []netInterface{on("wg0", net.FlagUp|net.FlagPointToPoint, "10.8.0.1"), on("eth0", up, "10.0.0.1")}, "10.0.0.1"},
		{"a tunnel where there is nothing else", []netInterface{lo, on("wg0", net.FlagUp|net.FlagPointToPoint, "10.8.0.1")}, "10.8.0.1"},
		{"no bridge of containers", []netInterface{lo, on("docker0", up, "172.17.0.1"), on("virbr0", up, "192.168.122.1")}, ""},
		{"no link that is down", []netInterface{on("eth0", net.FlagBroadcast, "10.0.0.1")}, ""},
		{"no address of the link alone", []netInterface{on("eth0", up, "fe80::1", "169.254.1.1")}, ""},
		{"no temporary or deprecated one", []netInterface{on("eth0", up, "2001:db8::99", "2001:db8::98", "2001:db8::1")}, "2001:db8::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := bestAddr(tc.interfaces, temporary(list))
			if ok != (tc.want != "") || ok && got.String() != tc.want {
				t.Errorf("address %v (%v), want %q", got, ok, tc.want)
			}
		})
	}
}
