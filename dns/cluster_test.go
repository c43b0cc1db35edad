package dns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

func (m *mesh) node(name, host, address string, roles ...string) {
	m.set(name, catalog.KeyNode, &catalog.Node{Roles: roles, Hostname: host, Address: address, Port: 5050, AgentId: name})
}

func TestMastersKeepTheirNumbers(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, nil)
	for name, address := range map[string]string{"m1": "10.0.0.1", "m2": "10.0.0.2", "m3": "10.0.0.3"} {
		m.node(name, name, address, catalog.RoleMaster)
	}
	claim := func(name, address string, epoch uint64) {
		m.set(name, catalog.KeyLeader, &catalog.Leader{Epoch: epoch, Address: address, Port: 5050})
	}
	claim("m1", "10.0.0.1", 1)
	f.catchUp(t)
	f.wantAddrs(t, "all", map[string]string{"leader": "10.0.0.1", "master": "10.0.0.1 10.0.0.2 10.0.0.3", "master0": "10.0.0.1", "master2": "10.0.0.3"})
	m.SetLiveness(epoch, "m1", record.Suspect)
	f.catchUp(t)
	f.wantAddrs(t, "the leader is out of sight, and no other", map[string]string{"leader": "10.0.0.1", "master": "10.0.0.1 10.0.0.2 10.0.0.3", "master1": "10.0.0.2"})
	claim("m3", "10.0.0.3", 2)
	f.catchUp(t)
	f.wantAddrs(t, "another leads", map[string]string{"leader": "10.0.0.3", "master": "10.0.0.2 10.0.0.3", "master0": "", "master1": "10.0.0.2", "master2": "10.0.0.3"})
	for _, name := range []string{"m1", "m2", "m3"} {
		m.SetLiveness(epoch, name, record.Dead)
	}
	f.catchUp(t)
	f.wantAddrs(t, "all are dead", map[string]string{"leader": "10.0.0.3", "master": "10.0.0.1 10.0.0.2 10.0.0.3", "master0": "10.0.0.1"})
}

func TestNamesOfNodes(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, nil)
	m.node("5d7f2b7e-aaaa-S0", "edge1.example.com", "10.0.0.1", catalog.RoleAgent)
	m.node("77777777-master", "edge1", "10.0.0.1", catalog.RoleMaster) // the same machine
	m.node("6e8f3c8f-aaaa-S0", "Edge2", "fd00::2", catalog.RoleAgent)
	m.node("00000001-aaaa-S0", "10.0.0.3", "10.0.0.3", catalog.RoleAgent)
	f.catchUp(t)
	names := map[string]string{
		"edge1.node": "10.0.0.1", "edge1-5d7f2b7e.node": "10.0.0.1", "edge1-77777777.node": "10.0.0.1", "edge2.node": "fd00::2", "10-0-0-3.node": "10.0.0.3",
		"edge1-example-com.node": "",
	}
	f.wantAddrs(t, "at first", names)
	pointer := func(want string) {
		t.Helper()
		found, _ := f.zone.Lookup("1.0.0.10.in-addr.arpa.")
		got := ""
		for _, r := range found {
			got += r.Target
		}
		if got != want {
			t.Errorf("10.0.0.1 is %q, want %q", got, want)
		}
	}
	pointer("edge1.node.mesos.")
	m.node("ffffffff-aaaa-S0", "edge1", "10.0.0.4", catalog.RoleAgent)
	f.catchUp(t)
	f.wantAddrs(t, "contested", map[string]string{"edge1.node": "", "edge1-5d7f2b7e.node": "10.0.0.1", "edge1-ffffffff.node": "10.0.0.4"})
	m.SetLiveness(epoch, "ffffffff-aaaa-S0", record.Dead)
	f.catchUp(t)
	f.wantAddrs(t, "the rival is dead and may return", map[string]string{"edge1.node": "", "edge1-ffffffff.node": ""})
	m.SetLiveness(epoch, "ffffffff-aaaa-S0", record.Left)
	f.catchUp(t)
	f.wantAddrs(t, "the rival has left", names)
	pointer("edge1.node.mesos.")
}

func TestFrameworksOfTheNewestTermCount(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, nil)
	tell := func(node, id, name, address string) {
		m.set(node, catalog.PrefixFramework+id, &catalog.Framework{Name: name, Addresses: []string{address}})
	}
	mark := func(node string, epoch uint64, count uint32) {
		m.set(node, catalog.PrefixFramework, &catalog.Frameworks{Epoch: epoch, Count: count})
	}
	want := func(when, marathon, chronos string) {
		t.Helper()
		f.catchUp(t)
		f.wantAddrs(t, when, map[string]string{"marathon": marathon, "chronos": chronos})
	}
	tell("m1", "1", "marathon", "10.0.1.1")
	want("without a mark", "", "")
	mark("m1", 1, 1)
	want("told", "10.0.1.1", "")
	tell("m1", "2", "chronos", "10.0.1.2")
	mark("m1", 1, 2)
	want("one more", "10.0.1.1", "10.0.1.2")
	m.SetLiveness(epoch, "m1", record.Dead)
	want("the master is dead", "10.0.1.1", "10.0.1.2")
	mark("m2", 2, 1)
	want("the next has told the mark alone", "10.0.1.1", "10.0.1.2")
	tell("m2", "1", "marathon", "10.0.1.3")
	want("the next has told all", "10.0.1.3", "")
	mark("m3", 1, 0)
	want("an older one", "10.0.1.3", "")
	m.set("m2", catalog.PrefixFramework, nil)
	m.set("m2", catalog.PrefixFramework+"1", nil)
	want("taken back before there is another", "10.0.1.3", "")
	m.raw("m1", catalog.PrefixFramework, []byte("\xff"))
	want("what does not read", "10.0.1.3", "")
	mark("m3", 3, 0)
	want("the one after that has none", "", "")
}

// A record that is wrong counts for no longer than it is there, and one that no term could have at no time.
func TestAWrongTermDoesNotStay(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, nil)
	tell := func(node, address string, term uint64) {
		m.set(node, catalog.PrefixFramework+"1", &catalog.Framework{Name: "marathon", Addresses: []string{address}})
		m.set(node, catalog.PrefixFramework, &catalog.Frameworks{Epoch: term, Count: 1})
	}
	want := func(when, marathon string) {
		t.Helper()
		f.catchUp(t)
		f.wantAddrs(t, when, map[string]string{"marathon": marathon})
	}
	m.set("m1", catalog.KeyNode, &catalog.Node{Address: "10.0.0.1", Roles: []string{catalog.RoleMaster}})
	m.set("m1", catalog.KeyLeader, &catalog.Leader{Address: "10.0.0.1", Port: 5050, Epoch: 4})
	tell("m1", "10.0.1.1", 4)
	tell("old", "10.0.1.2", 3)
	want("told", "10.0.1.1")
	tell("bad", "10.6.6.6", catalog.MaxEpoch+1)
	m.set("bad", catalog.KeyLeader, &catalog.Leader{Address: "10.6.6.6", Port: 5050, Epoch: catalog.MaxEpoch + 1})
	want("no term is so high", "10.0.1.1")
	f.wantAddrs(t, "a claim to lead too high", map[string]string{"leader": "10.0.0.1"})
	tell("bad", "10.6.6.6", catalog.MaxEpoch)
	want("the highest term", "10.6.6.6")
	m.set("bad", catalog.PrefixFramework, nil)
	m.set("bad", catalog.PrefixFramework+"1", nil)
	want("it was taken back", "10.0.1.1")

	tell("bad", "10.6.6.6", 100)
	want("again", "10.6.6.6")
	m.SetLiveness(epoch, "m1", record.Dead)
	m.set("bad", catalog.PrefixFramework, nil)
	want("taken back while nobody leads", "10.6.6.6")
	tell("m2", "10.0.1.3", 5)
	want("whoever leads next has told, and nobody knows that it leads", "10.6.6.6")
	m.set("m2", catalog.KeyLeader, &catalog.Leader{Address: "10.0.0.2", Port: 5050, Epoch: 5})
	want("it leads", "10.0.1.3")
}

func TestFrameworksAreBounded(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, nil)
	var addrs []string
	for i := range catalog.MaxFrameworkAddresses + 5 {
		addrs = append(addrs, fmt.Sprint("10.0.0.", i+1))
	}
	for i := range catalog.MaxFrameworks + 5 {
		m.set("m1", fmt.Sprint(catalog.PrefixFramework, i), &catalog.Framework{Name: fmt.Sprint("f", i), Addresses: addrs})
	}
	m.set("m1", catalog.PrefixFramework, &catalog.Frameworks{Epoch: 1})
	f.catchUp(t)
	named := 0
	for i := range catalog.MaxFrameworks + 5 {
		if list := f.addrs(fmt.Sprint("f", i)); list != "" {
			if named++; strings.Count(list, " ") != catalog.MaxFrameworkAddresses-1 {
				t.Fatalf("f%d has %s", i, list)
			}
		}
	}
	if listed := len(f.Frameworks()); named != catalog.MaxFrameworks || listed != named {
		t.Errorf("%d have names, %d are listed", named, listed)
	}
}

// The list of frameworks is of those that have names, though another record tells of others.
func TestTheListOfFrameworksIsThatOfNames(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, nil)
	m.set("m1", catalog.PrefixFramework+"1", &catalog.Framework{Name: "marathon", Addresses: []string{"10.0.1.1"}})
	m.set("m1", catalog.PrefixFramework, &catalog.Frameworks{Epoch: 1, Count: 1})
	m.set("m2", catalog.PrefixFramework, &catalog.Frameworks{Epoch: 2, Count: 1}) // not all of it is here
	f.catchUp(t)
	if got := f.Frameworks(); len(got) != 1 || got[0].Name != "marathon" || f.addrs("marathon") == "" {
		t.Errorf("it lists %v", got)
	}
}

// Framework and tasks are below the same name, also where names are held to RFC 952.
func TestFrameworksFollowTheRulesOfTheZone(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, func(c *Config) { c.Zone.RFC952 = true })
	m.agent("a", "10.0.0.1")
	x := task("1", taskRunning, 31000)
	x.FrameworkName = "marathon-0.6.0-dev"
	m.set("a", catalog.TaskKey("f", "1"), x)
	m.set("m1", catalog.PrefixFramework+"f", &catalog.Framework{Name: x.FrameworkName, Addresses: []string{"10.0.1.1"}})
	m.set("m1", catalog.PrefixFramework, &catalog.Frameworks{Epoch: 1, Count: 1})
	f.catchUp(t)
	f.wantAddrs(t, "told", map[string]string{"web.marathon-0.dev": "10.0.0.1", "marathon-0.dev": "10.0.1.1", "marathon-0.6.0-dev": ""})
}

// A task that tells of no network of its own has the node's address where no other source knows better.
func TestTheNodesAddressIsTheLastThatIsTaken(t *testing.T) {
	for _, tc := range []struct{ sources, mesos, own, want string }{
		{"netinfo mesos host", "10.9.0.3", "", "10.9.0.3"},
		{"netinfo mesos host", "10.9.0.3", "10.9.0.2", "10.9.0.2"},
		{"netinfo mesos host", "", "", "10.0.0.1"},
		{"host netinfo mesos", "10.9.0.3", "10.9.0.2", "10.0.0.1"},
		{"netinfo", "10.9.0.3", "", "10.0.0.1"},
		{"docker", "10.9.0.3", "", ""},
	} {
		m := newMesh(t)
		f := followed(t, m, func(c *Config) {
			var err error
			if c.IPSources, err = records.ParseIPSources(strings.Fields(tc.sources)); err != nil {
				t.Fatal(err)
			}
		})
		m.agent("a", "10.0.0.1")
		x := task("1", taskRunning, 31000)
		x.Addresses, x.MesosAddresses = strings.Fields(tc.own), strings.Fields(tc.mesos)
		m.set("a", catalog.TaskKey("f", "1"), x)
		f.catchUp(t)
		f.wantAddrs(t, tc.sources, map[string]string{"web.marathon": tc.want})
	}
}

func TestRanks(t *testing.T) {
	m := newMesh(t)
	place := func(node, address, region, zone string, at ...int32) {
		m.set(node, catalog.KeyNode, &catalog.Node{Address: address, Region: region, Zone: zone, AgentId: node, Roles: []string{catalog.RoleAgent}})
		if at != nil {
			m.set(node, catalog.KeyCoordinate, &catalog.Coordinate{Vector: at, Error: 100})
		}
	}
	self := func(region, zone string, at ...int32) {
		t.Helper()
		info, err := proto.Marshal(&catalog.Node{Address: "10.0.0.9", Region: region, Zone: zone})
		if err != nil {
			t.Fatal(err)
		}
		where, err := proto.Marshal(&catalog.Coordinate{Vector: at, Error: 100})
		if err != nil {
			t.Fatal(err)
		}
		m.Set(epoch, record.Assignment{Key: catalog.KeyNode, Value: info}, record.Assignment{Key: catalog.KeyCoordinate, Value: where})
	}
	f := followed(t, m, nil)
	self("eu", "a", 0, 0)
	place("same machine", "10.0.0.9", "", "")
	place("same zone", "10.0.0.1", "eu", "a", 300_000, 0)
	place("other zone", "10.0.0.2", "eu", "b", 1_000, 0)
	place("region alone", "10.0.0.3", "eu", "", 4_000, 0)
	place("far", "10.0.0.4", "us", "a", 0, 60_000)
	place("very far", "10.0.0.5", "", "", 0, 900_000)
	place("nowhere", "10.0.0.6", "", "")
	place("other space", "10.0.0.7", "", "", 1)
	own := func(id string, published bool, addrs ...string) *catalog.Task {
		x := task(id, taskRunning, 31000)
		x.Addresses, x.Published = addrs, published
		return x
	}
	m.set("far", catalog.TaskKey("f", "1"), own("1", false, "192.168.0.1", "fd00::1"))
	m.set("far", catalog.TaskKey("f", "2"), own("2", true, "192.168.0.2"))
	m.set("far", catalog.TaskKey("f", "3"), own("3", false, "192.168.0.3"))
	m.set("other zone", catalog.TaskKey("f", "3"), own("3", false, "192.168.0.3"))
	check := func(when string, want map[string]int) {
		t.Helper()
		f.catchUp(t)
		for addr, class := range want {
			if got, rtt := f.ranker.Rank(parseAddrs([]string{addr})[0]); got != class {
				t.Errorf("%s: %s is of class %d (%v), want %d", when, addr, got, rtt, class)
			}
		}
	}
	check("at first", map[string]int{
		"10.0.0.9": 0, "10.0.0.1": 1, "10.0.0.2": 2, "10.0.0.3": 1, "10.0.0.4": 7, "10.0.0.5": 9, "10.0.0.6": 10, "10.0.0.7": 10, "10.7.7.7": 10,
		"192.168.0.1": 7, "fd00::1": 7, "192.168.0.2": 10, "192.168.0.3": 10,
	})
	if _, rtt := f.ranker.Rank(parseAddrs([]string{"192.168.0.1"})[0]); rtt != 60*time.Millisecond {
		t.Errorf("the round trip is %v, want 60 ms", rtt)
	}
	self("us", "a", 0, 59_000)
	m.set("other zone", catalog.TaskKey("f", "3"), nil)
	check("moved", map[string]int{"10.0.0.9": 0, "10.0.0.1": 9, "10.0.0.4": 1, "192.168.0.1": 1, "192.168.0.3": 1})
	m.set("far", catalog.TaskKey("f", "1"), task("1", 2, 31000))
	check("ended", map[string]int{"192.168.0.1": 10, "fd00::1": 10})
}
