//go:build linux

package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"google.golang.org/protobuf/proto"

	"starling/agent/network/netns"
	"starling/agent/network/resolv"
	"starling/master/mesos"
)

func TestMappedPorts(t *testing.T) {
	w := newWorld(t)
	n := w.networks(func(c *Config) { c.Control = []uint16{24051} })
	// Two containers with the same port of their own.
	a := w.attach(n, request("a", on(DefaultName, mapping(31001, 80, ""), mapping(31003, 53, "udp"))))
	trusted := request("b", on(DefaultName, mapping(31002, 80, "tcp")))
	trusted.Control = true
	b := w.attach(n, trusted)
	w.serve(a.Path, ":80", "A")
	w.serve(b.Path, ":80", "B")
	w.echo(a.Path, ":53", "A")
	w.serve("", ":24051", "control")
	w.serve("", ":24053", "node")
	w.serve(w.other, ":80", "other")

	w.want("another host", w.other, nodeIP+":31001", "A to "+otherIP)
	w.want("another host", w.other, nodeIP+":31002", "B to "+otherIP)
	w.want("the node", "", nodeIP+":31001", "A")
	w.want("the node", "", "127.0.0.1:31001", "A")
	w.want("the node", "", address(a)+":80", "A")
	w.want("another container", b.Path, nodeIP+":31001", "A")
	w.want("another container", b.Path, address(a)+":80", "A to "+address(b))
	w.want("itself", a.Path, nodeIP+":31001", "A")
	w.want("itself", a.Path, "127.0.0.1:80", "A")
	if got := w.datagram(w.other, "", nodeIP+":31003"); got != "A hello" {
		t.Errorf("a datagram from another host: got %q", got)
	}
	if got := w.datagram("", "", "127.0.0.1:31003"); got != "A hello" {
		t.Errorf("a datagram from the node: got %q", got)
	}
	if got := w.datagram(b.Path, "", nodeIP+":31003"); got != "A hello" {
		t.Errorf("a datagram from a container: got %q", got)
	}
	// Outward as the node; services of the node but those of control; no loopback of the node, no metadata.
	w.want("a container", a.Path, otherIP+":80", "other to "+nodeIP)
	w.want("a container", a.Path, nodeIP+":24053", "node")
	w.want("a container", a.Path, nodeIP+":24051", "")
	w.want("a trusted container", b.Path, nodeIP+":24051", "control")
	w.want("a container", a.Path, "169.254.169.254:80", "")
	// Unmapped, and past the mapping: nothing from outside.
	w.sh(w.other, "ip route add "+n.place.Subnet.String()+" via "+nodeIP)
	w.want("another host", w.other, address(a)+":80", "")
	w.want("another host", w.other, nodeIP+":31009", "")

	if err := n.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.want("another host", w.other, nodeIP+":31001", "")
	w.want("another host", w.other, nodeIP+":31002", "B to "+otherIP)
}

// TestLoopbackOfTheNode speaks to a loopback address of the node over the bridge, which takes a neighbour that means it.
func TestLoopbackOfTheNode(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	a := w.attach(n, request("a", on(DefaultName)))
	w.serve("", "127.0.0.1:24060", "private")
	gw := n.hardware().String()
	w.sh(a.Path, "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip addr flush dev lo; ip route add 127.0.0.1/32 dev eth0 src "+
		address(a)+"; ip neigh replace 127.0.0.1 lladdr "+gw+" dev eth0")
	w.want("a container", a.Path, "127.0.0.1:24060", "")
	// It is our rule that keeps it out: the kernel no longer does, since ports are mapped for the node's loopback address too.
	w.sh("", "iptables -t mangle -F")
	w.want("a container that no rule keeps out", a.Path, "127.0.0.1:24060", "private")
}

func TestNone(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	a := w.attach(n, request("a", on(None)))
	out := w.sh(a.Path, "ip -o link")
	if strings.Count(strings.TrimSpace(out), "\n") > 0 && strings.Contains(out, "eth0") || !strings.Contains(out, "LOOPBACK,UP") {
		t.Errorf("devices are %s", out)
	}
	if _, err := netlink.LinkByName(DefaultBridge); err == nil {
		t.Error("a bridge was made that nobody needs")
	}
	if len(a.Infos) != 1 || a.Infos[0].GetName() != None || len(a.Infos[0].GetIpAddresses()) != 0 {
		t.Errorf("told %v", a.Infos)
	}
}

func TestPortConflicts(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	w.attach(n, request("a", on(DefaultName, mapping(31001, 80, ""))))
	l, err := net.Listen("tcp", "127.0.0.1:31005")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.sh("", "iptables -t nat -N DOCKER; iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 31006 -j DNAT --to-destination 172.17.0.2:80")
	for _, tc := range []struct {
		port uint32
		want string
	}{{31001, `31001/tcp is mapped to container "a"`}, {31005, "process of this node"}, {31006, "chain DOCKER"}} {
		_, err := n.Attach(t.Context(), request("b", on(DefaultName, mapping(tc.port, 80, "tcp"))))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("port %d: got %v, want %q", tc.port, err, tc.want)
		}
		if _, ok := n.Get("b"); ok {
			t.Error("something is left")
		}
		if _, err := os.Stat(n.dir("b")); err == nil {
			t.Error("a folder is left")
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, linkPrefix) {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d devices, want that of one container", count)
	}
	if err := n.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.attach(n, request("b", on(DefaultName, mapping(31001, 80, ""))))
}

func TestExhaustion(t *testing.T) {
	w := newWorld(t)
	n := w.networks(func(c *Config) { c.Subnet = "10.99.0.0/29" })
	for i := range 5 {
		w.attach(n, request(fmt.Sprint("c", i), on(DefaultName)))
	}
	_, err := n.Attach(t.Context(), request("more", on(DefaultName)))
	if err == nil || !strings.Contains(err.Error(), "10.99.0.0/29") {
		t.Errorf("got %v, want it to name the subnet", err)
	}
	if err := n.Detach(t.Context(), "c2"); err != nil {
		t.Fatal(err)
	}
	a := w.attach(n, request("more", on(DefaultName)))
	if address(a) != "10.99.0.4" {
		t.Errorf("got %s, want the one that was given back", address(a))
	}
}

// TestCrash has an agent die in the midst of things: the next life finds what stood, and takes away what did not.
func TestCrash(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	a := w.attach(n, request("a", on(DefaultName, mapping(31001, 80, ""))))
	w.serve(a.Path, ":80", "A")
	w.attach(n, request("b", on(DefaultName, mapping(31002, 80, ""))))
	// Half of one: noted, namespace and device made, not finished.
	p, err := n.read(request("half", on(DefaultName, mapping(31003, 80, ""))))
	if err != nil {
		t.Fatal(err)
	}
	r, err := n.enter(t.Context(), request("half", on(DefaultName, mapping(31003, 80, ""))), p)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeNamespace(n.namespace("half")); err != nil {
		t.Fatal(err)
	}
	if err := n.plug(t.Context(), r, r.Devices[0]); err != nil {
		t.Fatal(err)
	}
	// A device of ours that no record knows, one of others on our bridge, and one of others.
	w.sh("", "ip link add stv0ad500fe type veth peer name x0; ip link set stv0ad500fe master "+n.place.Bridge+
		"; ip link add foreign0 type veth peer name x1; ip link set foreign0 master "+n.place.Bridge+"; ip link add stv01020304 type veth peer name x2")
	defer w.sh("", "ip link del foreign0; ip link del stv01020304")
	w.sh("", "iptables -A FORWARD -s 198.51.100.0/24 -j ACCEPT; iptables -t nat -A POSTROUTING -s 198.51.100.0/24 -j MASQUERADE")

	next := w.networks()
	if got, ok := next.Get("a"); !ok || address(got) != address(a) || got.Path != a.Path {
		t.Errorf("after the crash: got %v, %v", got, ok)
	}
	if _, ok := next.Get("half"); ok {
		t.Error("the half of a network is taken for a whole")
	}
	if err := next.Collect(t.Context(), func(id string) bool { return id == "a" }); err != nil {
		t.Fatal(err)
	}
	w.want("another host", w.other, nodeIP+":31001", "A to "+otherIP)
	for _, id := range []string{"b", "half"} {
		if _, err := os.Stat(next.dir(id)); err == nil || kept(next.namespace(id)) {
			t.Errorf("something is left of %q", id)
		}
	}
	out := w.sh("", "ip -o link; iptables-save")
	for text, want := range map[string]bool{
		linkOf(r.Devices[0].Address.Addr()): false, "stv0ad500fe": false, "31002": false, "31003": false,
		"foreign0": true, "stv01020304": true, "198.51.100.0/24 -j ACCEPT": true, "198.51.100.0/24 -j MASQUERADE": true, "31001": true,
	} {
		if strings.Contains(out, text) != want {
			t.Errorf("%q is there: %v, want %v", text, !want, want)
		}
	}
	// An address in use is not given to another, and one is not given back at once.
	c := w.attach(next, request("c", on(DefaultName)))
	if address(c) == address(a) {
		t.Errorf("%s was given away twice", address(c))
	}
	// What asked for it again gets what it has.
	if again := w.attach(next, request("a", on(DefaultName))); address(again) != address(a) {
		t.Errorf("got %s for what had %s", address(again), address(a))
	}
	// The last one ends: nothing of ours stays, all of others does.
	if err := next.Collect(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := next.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	out = w.sh("", "ip -o link; iptables-save; ls "+filepath.Join(next.cfg.Dir, "containers"))
	if strings.Contains(out, "STARLING") || strings.Contains(out, DefaultBridge) || !strings.Contains(out, "foreign0") || !strings.Contains(out, "198.51.100.0/24") {
		t.Errorf("in the end there is %s", out)
	}
}

// TestOtherBoot leaves records of an earlier boot: they are of nobody.
func TestOtherBoot(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	if err := n.save(&record{ID: "old", Boot: "another", Own: true, Ready: true}); err != nil {
		t.Fatal(err)
	}
	next := w.networks()
	if _, ok := next.Get("old"); ok {
		t.Error("a network of an earlier boot is there")
	}
	if _, err := os.Stat(n.dir("old")); err == nil {
		t.Error("its folder is left")
	}
}

// TestOtherBootWithPlugins has plugins give back what they remember over a boot, without a namespace, until they have.
func TestOtherBootWithPlugins(t *testing.T) {
	w := newWorld(t)
	plugins := w.cni(map[string]string{
		"bin/lease": "#!/bin/sh\ncat >/dev/null; echo \"$CNI_COMMAND $CNI_CONTAINERID <$CNI_NETNS>\" >> CALLS\n[ -e CALLS.fail ] && exit 1; exit 0\n",
	})
	n := w.networks(plugins)
	r := &record{
		ID: "old", Boot: "another", Own: true, Control: true, Ready: true, Hostname: "old", Infos: [][]byte{{}},
		Devices: []device{
			{
				Network: "leased", Name: "eth0", Address: netip.MustParsePrefix("10.66.0.9/24"), Mappings: []Mapping{{"tcp", 31001, 80}},
				CNI: &cniList{Version: "1.0.0", Name: "leased", Plugins: []json.RawMessage{json.RawMessage(`{"type":"lease"}`)}},
			},
			{Network: DefaultName, Name: "eth1", Address: netip.MustParsePrefix("10.213.0.7/20")},
		},
	}
	if err := n.save(r); err != nil {
		t.Fatal(err)
	}
	fails := filepath.Join(w.dir, "cni", "calls.fail")
	if err := os.WriteFile(fails, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	next := w.networks(plugins)
	if _, ok := next.Get("old"); ok || len(next.ports) != 0 || len(next.leaving()) != 1 {
		t.Errorf("there: %v, ports %v, to be taken away %q", ok, next.ports, next.leaving())
	}
	nobody := func(string) bool { return false }
	if err := next.Collect(t.Context(), nobody); err == nil {
		t.Error("a plugin that fails is no error")
	}
	if err := os.Remove(fails); err != nil {
		t.Fatal(err)
	}
	// A life later it is still to be done.
	last := w.networks(plugins)
	if err := last.Collect(t.Context(), nobody); err != nil {
		t.Fatal(err)
	}
	if got, want := w.calls(), []string{"DEL old <>", "DEL old <>"}; !slices.Equal(got, want) {
		t.Errorf("the plugin was called as %q, want %q", got, want)
	}
	if _, err := os.Stat(last.dir("old")); err == nil {
		t.Error("the folder is left")
	}
}

// TestOnTheNodesNetwork hands out no files of the node: who gets them may write to them.
func TestOnTheNodesNetwork(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	for _, infos := range [][]*mesos.NetworkInfo{nil, {on("")}, {on(Host)}} {
		if a := w.attach(n, request("a", infos...)); a.Path != "" || len(a.Files) != 0 {
			t.Errorf("%v: got %+v", infos, a)
		}
	}
	req := request("b", on(Host))
	req.Container.Hostname = proto.String("web")
	a := w.attach(n, req)
	if len(a.Files) != 3 || a.Path != "" {
		t.Errorf("with a hostname: got %+v", a)
	}
	for _, f := range a.Files {
		if filepath.Dir(f.Source) != n.dir("b") {
			t.Errorf("%s is the file %s", f.Target, f.Source)
		}
	}
}

// TestTornRecord keeps the namespace of a container whose record is lost, for as long as somebody wants it.
func TestTornRecord(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	a := w.attach(n, request("a", on(DefaultName)))
	if err := os.WriteFile(filepath.Join(n.dir("a"), fileRecord), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	next := w.networks()
	if err := next.Collect(t.Context(), func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if got, ok := next.Get("a"); !ok || got.Path != a.Path || !kept(a.Path) {
		t.Errorf("got %v, %v", got, ok)
	}
	if b := w.attach(next, request("b", on(DefaultName))); address(b) == address(a) {
		t.Errorf("%s was given away twice", address(b))
	}
	if err := next.Collect(t.Context(), func(id string) bool { return id == "b" }); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName(linkOf(n.records["a"].Devices[0].Address.Addr())); err == nil || kept(a.Path) {
		t.Error("it stays after its end")
	}
}

// TestPlaceIsTaken has others take bridge and subnet while no container of ours was there, as after a start of the machine.
func TestPlaceIsTaken(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	w.attach(n, request("a", on(DefaultName)))
	was := n.place
	for _, step := range []error{n.Detach(t.Context(), "a"), n.Close(t.Context())} {
		if step != nil {
			t.Fatal(step)
		}
	}
	next := w.networks()
	w.attach(next, request("a", on(DefaultName)))
	if next.place != was {
		t.Errorf("got %v, want %v again", next.place, was)
	}
	for _, step := range []error{next.Detach(t.Context(), "a"), next.Close(t.Context())} {
		if step != nil {
			t.Fatal(step)
		}
	}
	w.sh("", "ip link add "+was.Bridge+" type bridge; ip addr add 10.213.1.1/24 dev "+was.Bridge+"; ip link set "+was.Bridge+" up")
	defer w.sh("", "ip link del "+was.Bridge)
	last := w.networks()
	w.attach(last, request("a", on(DefaultName)))
	if last.place.Bridge == was.Bridge || last.place.Subnet.Overlaps(was.Subnet) {
		t.Errorf("got %v beside others that have %v", last.place, was)
	}
}

// TestNewSetting changes the subnet: it counts once no container has an address of the old one.
func TestNewSetting(t *testing.T) {
	w := newWorld(t)
	old := func(c *Config) { c.Subnet = "10.99.0.0/24" }
	n := w.networks(old)
	w.attach(n, request("a", on(DefaultName)))
	next := w.networks(func(c *Config) { c.Subnet = "10.98.0.0/24" })
	if b := w.attach(next, request("b", on(DefaultName))); !strings.HasPrefix(address(b), "10.99.0.") {
		t.Errorf("beside a container of the old subnet: got %s", address(b))
	}
	for _, id := range []string{"a", "b"} {
		if err := next.Detach(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if c := w.attach(next, request("c", on(DefaultName))); !strings.HasPrefix(address(c), "10.98.0.") {
		t.Errorf("afterwards: got %s", address(c))
	}
}

func TestRestored(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	a := w.attach(n, request("a", on(DefaultName, mapping(31001, 80, ""))))
	w.serve(a.Path, ":80", "A")
	for _, harm := range []string{
		"iptables -F FORWARD",
		"iptables -F; iptables -t nat -F",
		"iptables -t nat -D PREROUTING 1",
		"for t in nat filter mangle; do iptables -t $t -F; iptables -t $t -X; done",
		"ip link set " + n.place.Bridge + " down",
		"ip link del " + n.place.Bridge,
	} {
		w.sh("", harm)
		w.want("another host, after "+harm, w.other, nodeIP+":31001", "")
		if err := n.keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.want("another host, after "+harm+" and the cure", w.other, nodeIP+":31001", "A to "+otherIP)
	}
	before := w.sh("", "iptables-save | grep -v '^[#:]'")
	if err := n.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := w.sh("", "iptables-save | grep -v '^[#:]'"); after != before {
		t.Errorf("a second look changed\n%s\nto\n%s", before, after)
	}
	// Without a look in between, the next container brings it back too.
	w.sh("", "iptables -F; iptables -t nat -F")
	w.attach(n, request("b", on(DefaultName)))
	w.want("another host", w.other, nodeIP+":31001", "A to "+otherIP)
}

func TestTwoAgents(t *testing.T) {
	w := newWorld(t)
	one := w.networks()
	two := w.networks(func(c *Config) { c.Dir = filepath.Join(w.dir, "second") })
	a := w.attach(one, request("a", on(DefaultName, mapping(31001, 80, ""))))
	b := w.attach(two, request("a", on(DefaultName, mapping(31002, 80, ""))))
	w.serve(a.Path, ":80", "A")
	w.serve(b.Path, ":80", "B")
	w.want("another host", w.other, nodeIP+":31001", "A")
	w.want("another host", w.other, nodeIP+":31002", "B")
	if one.place.Bridge == two.place.Bridge || one.place.Subnet.Overlaps(two.place.Subnet) {
		t.Errorf("both have %v and %v", one.place, two.place)
	}
	if _, err := two.Attach(t.Context(), request("b", on(DefaultName, mapping(31001, 80, "")))); err == nil || !strings.Contains(err.Error(), "STARLING-DNA-starling0") {
		t.Errorf("a port of the other agent: got %v", err)
	}
	third := w.networks(func(c *Config) { c.Dir, c.Bridge = filepath.Join(w.dir, "third"), "uplink" })
	if _, err := third.Attach(t.Context(), request("c", on(DefaultName))); err == nil || !strings.Contains(err.Error(), "not of this agent") {
		t.Errorf("a device of others as the bridge: got %v", err)
	}
}

// TestStaleFlow has a client of UDP that never stops: it reaches the next container with that port.
func TestStaleFlow(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	for _, id := range []string{"a", "b"} {
		a := w.attach(n, request(id, on(DefaultName, mapping(31003, 53, "udp"))))
		w.echo(a.Path, ":53", id)
		if got := w.datagram(w.other, otherIP+":5353", nodeIP+":31003"); got != id+" hello" {
			t.Errorf("got %q, want the answer of %s", got, id)
		}
		if err := n.Detach(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if id == "a" {
			w.datagram(w.other, otherIP+":5353", nodeIP+":31003") // makes the kernel remember that nobody is there
		}
	}
}

func TestFiles(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	req := request("a", on(DefaultName))
	req.Container.Hostname = new(string)
	*req.Container.Hostname = "web.example"
	a := w.attach(n, req)
	got := map[string]string{}
	for _, f := range a.Files {
		data, err := os.ReadFile(f.Source)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Target] = string(data)
	}
	if a.Hostname != "web.example" || got["/etc/hostname"] != "web.example\n" {
		t.Errorf("hostname is %q, %q", a.Hostname, got["/etc/hostname"])
	}
	if !strings.Contains(got["/etc/hosts"], address(a)+"\tweb.example\n") || !strings.Contains(got["/etc/hosts"], "127.0.0.1\tlocalhost") {
		t.Errorf("hosts is %q", got["/etc/hosts"])
	}
	if conf := got["/etc/resolv.conf"]; !strings.Contains(conf, "nameserver ") || strings.Contains(conf, "nameserver 127.") {
		t.Errorf("resolv.conf is %q", conf)
	}
}

// Where the node is to be asked, its address on the bridge is in resolv.conf if it answers there, else the one that it has anyway;
// what is set for a network wins.
func TestNodeIsAsked(t *testing.T) {
	set, err := resolv.ParseDefaults(`{"mesos": [{"network_mode": "CNI", "network_name": "mesos-bridge", "dns": {"nameservers": ["9.9.9.9"]}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	node := netip.MustParseAddr("10.77.0.1")
	for _, tc := range []struct {
		name    string
		dns     *resolv.Defaults
		gateway bool
		want    string // empty is the bridge's address
	}{
		{"on all addresses", (*resolv.Defaults)(nil).AskNode(node), true, ""},
		{"on one address", (*resolv.Defaults)(nil).AskNode(node), false, "10.77.0.1"},
		{"another is set", set.AskNode(node), true, "9.9.9.9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			n := w.networks(func(c *Config) { c.DNS, c.GatewayDNS = tc.dns, tc.gateway })
			a := w.attach(n, request("a", on(DefaultName)))
			want := tc.want
			if want == "" {
				want = n.pool.gateway().String()
			}
			if got := nameServers(t, a); !slices.Equal(got, []string{want}) {
				t.Errorf("it asks %v, want %s", got, want)
			}
			if tc.want == "9.9.9.9" {
				return // that was for the bridge
			}
			req := request("b", on(Host))
			req.Container.Hostname = proto.String("web")
			if got := nameServers(t, w.attach(n, req)); !slices.Equal(got, []string{"10.77.0.1"}) {
				t.Errorf("in the node's network it asks %v", got)
			}
		})
	}
}

func nameServers(t *testing.T, a Attachment) []string {
	t.Helper()
	for _, f := range a.Files {
		if f.Target == "/etc/resolv.conf" {
			data, err := os.ReadFile(f.Source)
			if err != nil {
				t.Fatal(err)
			}
			return resolv.Parse(string(data)).Nameservers
		}
	}
	t.Fatal("there is no resolv.conf")
	return nil
}

func TestMany(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	var all sync.WaitGroup
	begun := time.Now()
	const count = 40
	for i := range count {
		all.Go(func() {
			id := fmt.Sprint("c", i)
			if _, err := n.Attach(t.Context(), request(id, on(DefaultName, mapping(31000+uint32(i), 80, "")))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("%d at once took %v", count, time.Since(begun))
	if got := strings.Count(w.sh("", "iptables-save -t nat"), "-j DNAT"); got != count {
		t.Errorf("%d ports are mapped, want %d", got, count)
	}
	begun = time.Now()
	for i := range count {
		all.Go(func() {
			if err := n.Detach(t.Context(), fmt.Sprint("c", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("%d ends at once took %v", count, time.Since(begun))
	if got := strings.Count(w.sh("", "iptables-save -t nat"), "-j DNAT"); got != 0 {
		t.Errorf("%d ports are mapped in the end", got)
	}
}

// TestRecordsAreReadWhileAnotherIsMade does what choosePlace and sweep do meanwhile; the race detector judges.
func TestRecordsAreReadWhileAnotherIsMade(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	made := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for over := false; ; {
			select {
			case <-made:
				over = true
			default:
			}
			seen := 0
			n.mu.Lock()
			for _, r := range n.records {
				if seen++; !r.onBridge() {
					t.Errorf("%+v is not on the bridge", r)
				}
			}
			n.mu.Unlock()
			if over {
				if seen == 0 {
					t.Error("no record was seen")
				}
				return
			}
		}
	})
	w.attach(n, request("a", on(DefaultName)))
	close(made)
	all.Wait()
}

// TestDeadline has a packet filter that hangs: nobody waits for it longer than his time, and nothing is left.
func TestDeadline(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	w.attach(n, request("first", on(DefaultName)))
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "iptables-save"), []byte("#!/bin/sh\nexec sleep 100\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", bin+":"+path)
	// Somebody with more patience is ahead.
	patient, giveUp := context.WithCancel(t.Context())
	var first sync.WaitGroup
	first.Go(func() { n.Attach(patient, request("patient", on(DefaultName))) })
	defer first.Wait()
	defer giveUp()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := n.Attach(ctx, request("a", on(DefaultName)))
	giveUp()
	first.Wait()
	if took := time.Since(begun); err == nil || took > time.Minute {
		t.Errorf("got %v after %v", err, took)
	}
	t.Setenv("PATH", path)
	if _, ok := n.Get("a"); ok {
		t.Error("it is there after all")
	}
	if _, err := n.Attach(t.Context(), request("a", on(DefaultName))); err != nil {
		t.Errorf("once it works again: %v", err)
	}
}

func TestDialInNamespace(t *testing.T) {
	w := newWorld(t)
	n := w.networks()
	a := w.attach(n, request("a", on(None)))
	w.serve(a.Path, "127.0.0.1:24070", "inside")
	w.want("inside", a.Path, "127.0.0.1:24070", "inside")
	w.want("the node", "", "127.0.0.1:24070", "")
	if c, err := netns.DialContext(t.Context(), a.Path, "127.0.0.1:1"); err == nil {
		c.Close()
		t.Error("connected with nobody")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	b := w.attach(n, request("b", on(DefaultName)))
	w.sh("", "iptables -A OUTPUT -d "+address(b)+" -j DROP; iptables -I FORWARD -j DROP")
	if c, err := netns.DialContext(ctx, b.Path, "192.0.2.77:80"); err == nil {
		c.Close()
		t.Error("connected with nobody")
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("gave up after %v", took)
	}
}
