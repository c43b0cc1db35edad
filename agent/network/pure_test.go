package network

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

func mapping(host, container uint32, protocol string) *mesos.NetworkInfo_PortMapping {
	m := &mesos.NetworkInfo_PortMapping{HostPort: &host, ContainerPort: &container}
	if protocol != "" {
		m.Protocol = &protocol
	}
	return m
}

func on(name string, mappings ...*mesos.NetworkInfo_PortMapping) *mesos.NetworkInfo {
	return &mesos.NetworkInfo{Name: &name, PortMappings: mappings}
}

func request(id string, infos ...*mesos.NetworkInfo) Request {
	return Request{ID: id, Container: &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), NetworkInfos: infos}}
}

func TestRequestsAreRead(t *testing.T) {
	n, err := New(Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	wanting := func(address string, family mesos.NetworkInfo_Protocol) *mesos.NetworkInfo {
		return &mesos.NetworkInfo{Name: proto.String(DefaultName), IpAddresses: []*mesos.NetworkInfo_IPAddress{{Protocol: &family, IpAddress: &address}}}
	}
	named := request("x", on(DefaultName))
	named.Container.Hostname = proto.String("bad_name!")
	for _, tc := range []struct {
		name string
		req  Request
		own  bool
		want []string // parts of the error; none for no error
	}{
		{"nothing", Request{ID: "x"}, false, nil},
		{"no name is the node's network", request("x", &mesos.NetworkInfo{}), false, nil},
		{"the node's by name", request("x", on(Host)), false, nil},
		{"bridge", request("x", on(DefaultName, mapping(31000, 80, ""), mapping(31000, 80, "UDP"))), true, nil},
		{"both protocols", request("x", on(DefaultName, mapping(31000, 80, "udp,tcp"))), true, nil},
		{"none", request("x", on(None)), true, nil},
		{"an address", request("x", wanting("10.1.2.3", mesos.NetworkInfo_IPv4)), true, nil},
		{"unknown", request("x", on("other")), false, []string{`"other"`, DefaultName}},
		{
			"ports", request("x", on(DefaultName, mapping(0, 80, ""), mapping(31000, 70000, ""), mapping(31001, 80, "sctp"))), false,
			[]string{"port 0", "port 70000", `"sctp"`},
		},
		{"twice", request("x", on(DefaultName, mapping(31000, 80, ""), mapping(31000, 81, "tcp"))), false, []string{"31000/tcp is mapped twice"}},
		{"twice by both", request("x", on(DefaultName, mapping(31000, 80, "tcp,udp"), mapping(31000, 81, "udp"))), false, []string{"31000/udp is mapped twice"}},
		{"ports of the node", request("x", &mesos.NetworkInfo{PortMappings: on("", mapping(1, 1, "")).PortMappings}), false, []string{"need a network"}},
		{"ports of nothing", request("x", on(None, mapping(31000, 80, ""))), false, []string{"no port mappings"}},
		{"mixed", request("x", on(None), on(DefaultName)), false, []string{"exclude"}},
		{"mixed with the node's", request("x", on(Host), on(DefaultName)), false, []string{"exclude"}},
		{"same network", request("x", on(DefaultName), on(DefaultName)), false, []string{"asked for twice"}},
		{"no IPv6", request("x", wanting("", mesos.NetworkInfo_IPv6)), false, []string{"IPv6"}},
		{"no address", request("x", wanting("nonsense", mesos.NetworkInfo_IPv4)), false, []string{`"nonsense"`}},
		{"hostname", named, false, []string{"bad_name!"}},
	} {
		p, err := n.read(tc.req)
		if (err != nil) != (len(tc.want) > 0) || err == nil && p.own != tc.own {
			t.Errorf("%s: got %+v, %v", tc.name, p, err)
		}
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want it to name %s", tc.name, err, want)
			}
		}
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	_, err := New(Config{Dir: "x", Bridge: "With Blank", Subnet: "fd00::/64", Name: "none", Denied: []string{"y"}})
	for _, want := range []string{`"x"`, "With Blank", "fd00::/64", `"none"`, `"y"`, "log"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	free := func(netip.Addr) bool { return false }
	a := newAddresses(netip.MustParsePrefix("10.1.2.8/29"))
	if got := a.gateway().String(); got != "10.1.2.9" {
		t.Errorf("gateway is %s", got)
	}
	var got []string
	for range 5 {
		addr, err := a.take(netip.Addr{}, free)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, addr.String())
	}
	if want := []string{"10.1.2.10", "10.1.2.11", "10.1.2.12", "10.1.2.13", "10.1.2.14"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if addr, err := a.take(netip.Addr{}, free); !errors.Is(err, errExhausted) {
		t.Errorf("got %v, %v from an empty pool", addr, err)
	}
	a.release(netip.MustParseAddr("10.1.2.11"))
	a.release(netip.MustParseAddr("10.1.2.13"))
	if addr, err := a.take(netip.Addr{}, func(addr netip.Addr) bool { return addr.String() == "10.1.2.11" }); err != nil || addr.String() != "10.1.2.13" {
		t.Errorf("got %v, %v, want the one that nobody uses", addr, err)
	}
	if addr, err := a.take(netip.MustParseAddr("10.1.2.11"), free); err != nil || addr.String() != "10.1.2.11" {
		t.Errorf("got %v, %v for a wish", addr, err)
	}
	for _, bad := range []string{"10.1.2.11", "10.1.2.8", "10.1.2.9", "10.1.2.15", "10.9.9.9"} {
		if addr, err := a.take(netip.MustParseAddr(bad), free); err == nil {
			t.Errorf("got %v for a wish that cannot be", addr)
		}
	}
}

func TestSubnetAvoidsRoutes(t *testing.T) {
	for _, tc := range []struct {
		taken []string
		want  string
	}{
		{nil, "10.213.0.0/20"},
		{[]string{"10.213.3.0/24"}, "10.213.16.0/20"},
		{[]string{"10.0.0.0/8"}, "172.29.0.0/20"},
		{[]string{"10.0.0.0/8", "172.16.0.0/12", "192.168.208.7/32"}, "192.168.224.0/20"},
		{[]string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}, "100.125.0.0/20"},
	} {
		var taken []netip.Prefix
		for _, p := range tc.taken {
			taken = append(taken, netip.MustParsePrefix(p))
		}
		if got, err := choose(netip.Prefix{}, taken); err != nil || got.String() != tc.want {
			t.Errorf("beside %v: got %v, %v, want %s", tc.taken, got, err, tc.want)
		}
	}
	liked := netip.MustParsePrefix("10.213.64.0/20")
	if got, err := choose(liked, nil); err != nil || got != liked {
		t.Errorf("what was chosen before: got %v, %v", got, err)
	}
	if got, err := choose(liked, []netip.Prefix{netip.MustParsePrefix("10.213.65.1/32")}); err != nil || got.String() != "10.213.0.0/20" {
		t.Errorf("what was chosen before, and is taken: got %v, %v", got, err)
	}
	if got, err := choose(netip.Prefix{}, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")}); err == nil {
		t.Errorf("got %v where nothing is free", got)
	}
}

func TestChainNamesFit(t *testing.T) {
	if name := chain("DNA", strings.Repeat("x", 15)); len(name) > 28 {
		t.Errorf("%q has %d letters", name, len(name))
	}
}

// FuzzResult reads what a plugin says.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.5/16","gateway":"10.1.0.1"}],"dns":{"nameservers":["10.1.0.1"]}}`))
	f.Add([]byte(`{"ip4":{"ip":"10.1.0.5/16"}}`))
	f.Add([]byte(`{"ips":[{"address":"x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if address, _, err := readResult(data); err != nil && address.IsValid() {
			t.Errorf("got %v with %v", address, err)
		}
	})
}
