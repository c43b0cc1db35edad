package dns

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTheNameServerHasTheAddressesThatAreAnsweredAt(t *testing.T) {
	all := interfaces(t, "127.0.0.1/8", "192.0.2.7/24", "::1/128", "fe80::1/64", "2001:db8::7/64", "172.17.0.1/16")
	for _, tc := range []struct {
		bound []string
		self  string
		want  []string
	}{
		{[]string{"127.0.0.1:53"}, "192.0.2.7", []string{"127.0.0.1"}},
		{[]string{"[::1]:53", "192.0.2.7:53"}, "192.0.2.7", []string{"192.0.2.7", "::1"}},
		{[]string{"0.0.0.0:53"}, "", []string{"172.17.0.1", "192.0.2.7"}},
		{[]string{"[::]:53", "192.0.2.7:53"}, "", []string{"172.17.0.1", "192.0.2.7", "2001:db8::7"}},
		// A bridge's address is another machine at the asker's.
		{[]string{"0.0.0.0:53"}, "192.0.2.7", []string{"192.0.2.7"}},
		{[]string{"[::]:53"}, "192.0.2.7", []string{"192.0.2.7"}},
		{[]string{"0.0.0.0:53"}, "2001:db8::7", []string{"172.17.0.1", "192.0.2.7"}},
	} {
		var bound []netip.AddrPort
		for _, b := range tc.bound {
			bound = append(bound, netip.MustParseAddrPort(b))
		}
		var got []string
		for _, a := range answersAt(bound, parseAddrs([]string{tc.self}), all) {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("bound to %v (-want +got):\n%s", tc.bound, diff)
		}
	}
	_, addr := start(t, newMesh(t))
	want(t, addr, "ns1.mesos.", "127.0.0.1")
}
