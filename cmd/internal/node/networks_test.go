package node

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"starling/cmd/internal/flags"
)

func TestContainerDNS(t *testing.T) {
	for _, tc := range []struct {
		name, bind, address, advertised string
		own                             addressList
		port                            int
		node                            string
		gateway                         bool
		fault                           string
	}{
		{name: "on all addresses", address: "10.0.0.1", port: 53, node: "10.0.0.1", gateway: true},
		{name: "on all addresses, said so", bind: "0.0.0.0", address: "10.0.0.1", port: 53, node: "10.0.0.1", gateway: true},
		{name: "on one", bind: "10.0.0.2", address: "192.0.2.1", advertised: "192.0.2.1", port: 53, node: "10.0.0.2"},
		{
			name: "on some", address: "10.0.0.1", port: 53, node: "10.0.0.3",
			own: addressList{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.3")},
		},
		{name: "on one of loopback", address: "10.0.0.1", port: 53, own: addressList{netip.MustParseAddr("127.0.0.1")}, fault: "do not reach 127.0.0.1"},
		{name: "at another port", address: "10.0.0.1", port: 8053, fault: "--dns-port=8053"},
		{name: "switched off", address: "10.0.0.1", fault: "--dns-port=0"},
		{name: "on loopback", bind: "127.0.0.1", address: "127.0.0.1", port: 53, fault: "do not reach 127.0.0.1"},
		{name: "on IPv6 alone", bind: "fd00::1", address: "fd00::1", port: 53, fault: "IPv4 alone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &role{place: place{bind: tc.bind, address: tc.address, dir: t.TempDir()}, common: &common{advertiseIP: flags.IP(tc.advertised)}}
			f := &networkFlags{askNode: true}
			err := r.containerDNS(f, tc.port, tc.own)
			if tc.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fault) || !strings.Contains(err.Error(), "--") {
					t.Errorf("got %v, want it to say %q", err, tc.fault)
				}
				return
			}
			if err != nil || f.node != netip.MustParseAddr(tc.node) || f.gateway != tc.gateway {
				t.Errorf("got %v, gateway %v, %v; want %s, %v", f.node, f.gateway, err, tc.node, tc.gateway)
			}
			path, err := r.resolvConf(f)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), "nameserver "+tc.node+"\n") || strings.Count(string(text), "nameserver") != 1 {
				t.Errorf("resolv.conf is %q, %v", text, err)
			}
			d, err := f.nameServers()
			if err != nil || d.Node().Nameservers[0] != tc.node {
				t.Errorf("containers ask %v, %v", d.Node(), err)
			}
		})
	}
	r := &role{place: place{address: "10.0.0.1"}}
	f := &networkFlags{}
	if err := r.containerDNS(f, 8053, nil); err != nil || f.node.IsValid() {
		t.Errorf("unasked for: %v, %v", f.node, err)
	}
	if path, err := r.resolvConf(f); err != nil || path != "" {
		t.Errorf("unasked for: %q, %v", path, err)
	}
}
