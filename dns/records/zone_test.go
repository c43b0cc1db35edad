package records

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestAnswerAllocatesNothing(t *testing.T) {
	z := marathonZone(100, 10)
	buf := make([]byte, maxUDP)
	for name, q := range commonQuestions() {
		query := queryFor(t, q[0].(string), q[1].(uint16))
		if n := testing.AllocsPerRun(100, func() { z.Answer(query, buf, 3) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

// A name with a thousand services is a list of chunks, and becomes a block again.
func TestANameWithManyRecordsGrowsAndShrinks(t *testing.T) {
	z := NewZone(DefaultConfig(), 1)
	const n = 1000
	source := func(i int) string { return fmt.Sprint("task/", i) }
	order := func(i int) int { return i * 389 % n }
	for i := range n {
		z.ReplaceTask(source(order(i)), marathonTask(3, order(i)))
	}
	name := "_http._app3-group3._tcp.marathon.mesos."
	for i := range n {
		if i%97 == 0 || i > n-5 {
			found, _ := z.Lookup(name)
			if len(found) != n-i {
				t.Fatalf("%d services after %d of %d have gone", len(found), i, n)
			}
			compareWays(t, z, name, uint32(i*31))
			compareWays(t, z, "app3.group3.marathon.mesos.", uint32(i))
		}
		z.ReplaceTask(source(order(i)), nil)
	}
	if s := z.Stats(); s.Names != 1 {
		t.Errorf("%d names are left, want the apex", s.Names)
	}
}

// Queries go on while everything changes, and never see a name without an address that it has before and after.
func TestQueriesDoNotSeeUpdatesHalfDone(t *testing.T) {
	z := NewZone(DefaultConfig(), 1)
	fixed := Task{ID: "db.1", Name: "db", Framework: "marathon", AgentID: "x-S1", Agent: addrs("10.9.0.1")}
	z.ReplaceTask("db", &fixed)
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	for range 2 {
		g.Go(func() {
			query, buf := queryFor(t, "db.marathon.mesos.", dns.TypeA), make([]byte, maxUDP)
			for i := uint32(0); ctx.Err() == nil; i++ {
				var m dns.Msg
				if err := m.Unpack(z.Answer(query, buf, i)); err != nil || len(m.Answer) == 0 {
					t.Errorf("answer %v, %v", &m, err)
					return
				}
				if found, _ := z.Lookup("db.marathon.mesos."); len(found) == 0 {
					t.Error("the name has no records")
					return
				}
			}
		})
	}
	for i := range 3000 {
		app := i % 300
		z.ReplaceTask(fmt.Sprint(app), marathonTask(app, i/300))
		moved := fixed
		moved.ID, moved.Agent = fmt.Sprint("db.", i%7), append(addrs("10.9.0.1"), netip.AddrFrom4([4]byte{10, 9, 1, byte(i)}))
		z.ReplaceTask("db", &moved)
		if i%3 == 0 {
			z.ReplaceTask(fmt.Sprint((app+150)%300), nil)
		}
		z.Commit(0)
	}
	cancel()
	g.Wait()
}

func TestTheSerialNumberMovesWithContent(t *testing.T) {
	z := NewZone(DefaultConfig(), 100)
	web := Task{ID: "w", Name: "web", Framework: "f", AgentID: "x-S1", Agent: addrs("10.0.0.1")}
	if got := z.Commit(500); got != 100 {
		t.Errorf("serial %d without a change, want 100", got)
	}
	z.ReplaceTask("w", &web)
	if got := z.Commit(0); got != 101 {
		t.Errorf("serial %d after a change that nobody stamped, want 101", got)
	}
	z.ReplaceTask("w", &web)
	if got := z.Commit(500); got != 101 {
		t.Errorf("serial %d after the same again, want 101", got)
	}
	z.ReplaceTask("w", nil)
	if got := z.Commit(500); got != 500 || z.Serial() != 500 {
		t.Errorf("serial %d after a change stamped 500", got)
	}
	z.ReplaceTask("w", &web)
	if got := z.Commit(400); got != 501 {
		t.Errorf("serial %d after an old stamp, want 501", got)
	}
	// What is given otherwise, and makes the same records, is no other content.
	same := web
	same.ID, same.Agent = "w2", addrs("10.0.0.2", "10.0.0.1")
	nameless := Task{ID: "n", Name: "/", Framework: "f", AgentID: "x-S1", Agent: addrs("10.0.0.1")}
	z.ReplaceTask("w2", &same)
	before := z.Commit(0)
	same.Agent = addrs("10.0.0.1", "10.0.0.2")
	z.ReplaceTask("w2", &same)
	z.ReplaceTask("n", &nameless)
	if got := z.Commit(600); got != before {
		t.Errorf("serial %d after the same in another order and a task without names, want %d", got, before)
	}
}

func TestOptionsOfAnswers(t *testing.T) {
	c := DefaultConfig()
	c.NoRecursion, c.NoTruncateBit, c.SRVNoData, c.Minimum, c.TTL = true, true, true, 7, 60
	z := NewZone(c, 1)
	for i := range 60 {
		z.ReplaceTask(fmt.Sprint(i), marathonTask(1, i))
	}
	m := ask(t, z, "app1.group1.marathon.mesos.", dns.TypeA, 0)
	if m.RecursionAvailable || m.Truncated || len(m.Answer) == 0 || len(m.Answer) >= 60 || m.Answer[0].Header().Ttl != 60 {
		t.Errorf("RA %v, TC %v, %d answers; want neither bit and some answers", m.RecursionAvailable, m.Truncated, len(m.Answer))
	}
	if m := ask(t, z, "_no._tcp.mesos.", dns.TypeSRV, 0); m.Rcode != dns.RcodeSuccess || len(m.Ns) != 0 {
		t.Errorf("SRV for an unknown name: %v, want nothing without an error", m)
	}
	if m := ask(t, z, "no.mesos.", dns.TypeA, 0); m.Rcode != dns.RcodeNameError || m.Ns[0].Header().Ttl != 7 || m.Ns[0].(*dns.SOA).Minttl != 7 {
		t.Errorf("A for an unknown name: %v, want NXDOMAIN with the minimum as TTL", m)
	}
	q := new(dns.Msg)
	q.SetQuestion("app1.group1.marathon.mesos.", dns.TypeA)
	q.SetEdns0(1232, true)
	q.CheckingDisabled, q.AuthenticatedData, q.RecursionDesired = true, true, true
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"})
	query, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var got dns.Msg
	if err := got.Unpack(z.Answer(query, make([]byte, maxUDP), 0)); err != nil {
		t.Fatal(err)
	}
	if got.CheckingDisabled || got.AuthenticatedData || !got.RecursionDesired || !got.IsEdns0().Do() || len(got.IsEdns0().Option) != 0 {
		t.Errorf("answer %v; want RD and DO as asked, neither AD nor CD, no options", &got)
	}
}

func TestTheApex(t *testing.T) {
	c := DefaultConfig()
	c.Rname = "hostmaster.example.com"
	z := NewZone(c, 77)
	z.Replace("ns", Nameserver{"ns1.mesos", addrs("10.0.0.9", "10.0.0.10", "fd00::9")}.Records())
	for _, name := range []string{"mesos.", "MeSoS."} {
		m := ask(t, z, name, dns.TypeSOA, 1232)
		if len(m.Answer) != 1 || m.Answer[0].Header().Name != name || m.Answer[0].Header().Ttl != 5 {
			t.Fatalf("SOA: %v", m)
		}
		soa := m.Answer[0].(*dns.SOA)
		if !strings.EqualFold(soa.Ns, "ns1.mesos.") || soa.Mbox != "hostmaster.example.com." || soa.Serial != 77 || soa.Refresh != 60 || soa.Retry != 600 || soa.Expire != 86400 || soa.Minttl != 5 {
			t.Errorf("SOA %v", soa)
		}
		m = ask(t, z, name, dns.TypeNS, 0)
		if len(m.Answer) != 1 || !strings.EqualFold(m.Answer[0].(*dns.NS).Ns, "ns1.mesos.") {
			t.Errorf("NS: %v", m)
		}
		if got := rrLines(m.Extra); !slices.Equal(got, []string{"ns1.mesos. A 10.0.0.9", "ns1.mesos. AAAA fd00::9"}) {
			t.Errorf("NS with %q, want an address of each family", got)
		}
	}
	for _, qtype := range []uint16{dns.TypeSOA, dns.TypeNS, dns.TypeHTTPS} {
		if m := ask(t, z, "ns1.mesos.", qtype, 0); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
			t.Errorf("type %d below the apex: %v, want NODATA", qtype, m)
		}
		if m := ask(t, z, "no.mesos.", qtype, 0); m.Rcode != dns.RcodeNameError {
			t.Errorf("type %d of an unknown name: %v, want NXDOMAIN", qtype, m)
		}
	}
	for _, qtype := range []uint16{dns.TypeANY, dns.TypeAXFR, dns.TypeIXFR, dns.TypePTR} {
		if m := ask(t, z, "mesos.", qtype, 0); m != nil {
			t.Errorf("type %d is answered: %v, want it left alone", qtype, m)
		}
	}
	for _, name := range []string{"near.mesos.", "web.marathon.NEAR.mesos.", "web.*.marathon.mesos."} {
		if m := ask(t, z, name, dns.TypeA, 0); m != nil {
			t.Errorf("%s is answered: %v, want it left alone", name, m)
		}
	}
}

// Ten services at one name, with addresses of about the usual length (section 6 and 11 of the specification).
func TestTruncation(t *testing.T) {
	z := NewZone(DefaultConfig(), 1)
	for i := range 10 {
		z.ReplaceTask(fmt.Sprint(i), &Task{
			ID: fmt.Sprint("svc.", i), Name: "svc", Framework: "marathon", AgentID: fmt.Sprint("x-S", i), Agent: addrs("10.1.0.1"),
			Addrs: addrs(fmt.Sprint("10.200.1.", i)), Discovery: "svc", Ports: []Port{{uint16(31100 + i), "http", "tcp"}},
		})
	}
	name := "_http._svc._tcp.marathon.mesos."
	for _, tc := range []struct {
		udp       uint16
		answers   int
		more      int
		truncated bool
	}{{0, 9, 0, true}, {512, 9, 0, true}, {600, 10, 4, false}, {1232, 10, 10, false}, {4096, 10, 10, false}} {
		m := ask(t, z, name, dns.TypeSRV, tc.udp)
		more := len(m.Extra)
		if tc.udp > 0 {
			more--
		}
		if len(m.Answer) != tc.answers || more != tc.more || m.Truncated != tc.truncated {
			t.Errorf("room for %d: %d answers, %d addresses, TC %v; want %+v", tc.udp, len(m.Answer), more, m.Truncated, tc)
		}
	}
}

func TestNamesBelowAgentAreThoseBelowSlave(t *testing.T) {
	z := NewZone(DefaultConfig(), 1)
	z.Replace("agent", Cluster{Agents: []Master{{netip.MustParseAddr("10.1.0.7"), 5051}}}.Records("mesos"))
	z.ReplaceTask("t", marathonTask(1, 1))
	for _, name := range []string{"app1.group1.marathon.%s.mesos.", "_app1-group1._udp.marathon.%s.mesos.", "%s.mesos."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV} {
			slave, agent := ask(t, z, fmt.Sprintf(name, "slave"), qtype, 1232), ask(t, z, fmt.Sprintf(name, "AGENT"), qtype, 1232)
			cut := func(m *dns.Msg) (out []string) {
				for _, line := range rrLines(m.Answer) {
					out = append(out, line[strings.IndexByte(line, ' '):])
				}
				return out
			}
			if diff := cmp.Diff(cut(slave), cut(agent)); diff != "" || slave.Rcode != agent.Rcode {
				t.Errorf("%s (-slave +agent):\n%s", name, diff)
			}
		}
	}
	if m := ask(t, z, "_agent._tcp.mesos.", dns.TypeSRV, 1232); len(m.Answer) != 1 || len(m.Extra) != 2 {
		t.Errorf("_agent._tcp: %v, want one service with its address", m)
	}
}

func TestReverseNames(t *testing.T) {
	z := NewZone(DefaultConfig(), 1)
	z.Replace("node/1", Node{Name: "Edge_1", Alias: "edge-1-abcd", Addrs: addrs("10.1.0.7", "2001:db8::7")}.Records("mesos"))
	task := marathonTask(1, 1)
	task.Reverse = true
	z.ReplaceTask("t", task)
	for name, want := range map[string]string{
		"7.0.1.10.in-addr.arpa.":   "edge-1.node.mesos.",
		"1.1.200.10.in-addr.arpa.": "app1-group1-" + hash(task.ID) + "-s8.marathon.mesos.",
		"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": "edge-1.node.mesos.",
	} {
		if found, ok := z.Lookup(name); !ok || len(found) != 1 || found[0].Type != PTR || found[0].Target != want {
			t.Errorf("%s is %v, want %s", name, found, want)
		}
	}
	if _, ok := z.Lookup("1.10.in-addr.arpa."); ok {
		t.Error("a name between is said to exist outside of the domain")
	}
	for _, name := range []string{"edge-1.node.mesos.", "edge-1-abcd.node.mesos."} {
		if found, _ := z.Lookup(name); len(found) != 2 {
			t.Errorf("%s is %v, want both addresses", name, found)
		}
	}
	z.Replace("node/1", nil)
	z.ReplaceTask("t", nil)
	if s := z.Stats(); s.Names != 1 {
		t.Errorf("%d names are left, want the apex", s.Names)
	}
}

func TestNamesThatTheDomainKeeps(t *testing.T) {
	z := NewZone(DefaultConfig(), 1)
	for _, framework := range []string{"near", "x.node", "Agent"} {
		task := Task{ID: "w", Name: "web", Framework: framework, AgentID: "x-S1", Agent: addrs("10.0.0.1"), HostPorts: []uint16{1}, Discovery: "web", Ports: []Port{{2, "http", ""}}}
		for _, r := range z.TaskRecords(&task) {
			if !strings.HasSuffix(r.Name, ".slave.mesos.") {
				t.Errorf("framework %q has %v", framework, r)
			}
		}
		z.ReplaceTask(framework, &task)
	}
	for _, framework := range []string{"near", "leader", "Master", "master0", "slave", "agent", "ns1", "node"} {
		if list := (Framework{framework, addrs("10.0.0.1"), 80}).Records("mesos"); len(list) != 0 {
			t.Errorf("framework %q has %v", framework, list)
		}
	}
	c := DefaultConfig()
	c.Mname, c.RFC952 = "NS.Infra.mesos", true
	own := NewZone(c, 1)
	if list := own.FrameworkRecords(Framework{"ns.infra", addrs("10.0.0.1"), 80}); len(list) != 0 {
		t.Errorf("a framework called as the name server has %v", list)
	}
	if list := lines(own.FrameworkRecords(Framework{"1ns1", addrs("10.0.0.1"), 0})); !slices.Equal(list, []string{"ns1.mesos. A 10.0.0.1"}) {
		t.Errorf("a framework that sanitises to ns1, which is nobody's here, has %v", list)
	}
	if list := lines((Framework{"Team A.mastery", addrs("10.0.0.1"), 80}).Records("mesos")); !slices.Equal(list, []string{"_framework._tcp.teama.mastery.mesos. SRV 80 teama.mastery.mesos.", "teama.mastery.mesos. A 10.0.0.1"}) {
		t.Errorf("a framework has %v", list)
	}
	if s := z.Stats(); s.Shadowed != 3 {
		t.Errorf("%d shadowed, want 3", s.Shadowed)
	}
	z.FrameworkRecords(Framework{"leader", addrs("10.0.0.1"), 80})
	z.FrameworkRecords(Framework{"$", addrs("10.0.0.1"), 80})
	if s := z.Stats(); s.Shadowed != 4 || s.Unnamed != 1 {
		t.Errorf("with frameworks %d are shadowed and %d unnamed, want 4 and 1", s.Shadowed, s.Unnamed)
	}
	z.ReplaceTask("nameless", &Task{ID: "w", Name: "/", Framework: "f", AgentID: "x-S1", Agent: addrs("10.0.0.1")})
	z.ReplaceTask("homeless", &Task{ID: "w", Name: "web", Framework: "$", AgentID: "x-S1", Agent: addrs("10.0.0.1")})
	if s := z.Stats(); s.Unnamed != 3 {
		t.Errorf("%d without a name, want 3", s.Unnamed)
	}
	long := strings.Repeat("long-name.", 30)
	z.ReplaceTask("long", &Task{ID: "w", Name: "web", Framework: long, AgentID: "x-S1", Agent: addrs("10.0.0.1")})
	if _, ok := z.Lookup("web." + long + "mesos."); ok || z.Stats().TooLong == 0 {
		t.Errorf("a name of 300 octets: exists %v, %d counted", ok, z.Stats().TooLong)
	}
}

func TestRFC952(t *testing.T) {
	c := DefaultConfig()
	c.RFC952 = true
	z := NewZone(c, 1)
	z.ReplaceTask("t", &Task{ID: "w", Name: "89fdgsf---gs7-fgs--d7fddg---123", Framework: "marathon-0.6.0-dev", AgentID: "x-S1", Agent: addrs("10.0.0.1")})
	if found, _ := z.Lookup("fdgsf---gs7-fgs--d7fddg1.marathon-0.dev.mesos."); len(found) != 1 {
		t.Errorf("found %v in %v", found, allLines(z))
	}
}

func TestIPSources(t *testing.T) {
	all := Addresses{Netinfo: addrs("10.200.0.1", "fd00::1"), Mesos: addrs("172.18.0.1"), Docker: addrs("172.17.0.1"), Host: addrs("10.1.0.1")}
	some := all
	some.Netinfo = nil
	bridged, routable := all, all
	bridged.Published, routable.Published, routable.Routable = true, true, true
	for _, tc := range []struct {
		name  string
		from  Addresses
		order string
		want  []netip.Addr
	}{
		{"all of the first that has any", all, "netinfo mesos host", addrs("10.200.0.1", "fd00::1")},
		{"the next where the first has none", some, "netinfo mesos host", addrs("172.18.0.1")},
		{"in the order given", all, "host netinfo", addrs("10.1.0.1")},
		{"none that is not listed", Addresses{Host: addrs("10.1.0.1")}, "netinfo docker", nil},
		{"the label of Docker where it is listed", some, "netinfo docker mesos", addrs("172.17.0.1")},
		{"the node where ports are published", bridged, "netinfo mesos docker host", addrs("10.1.0.1")},
		{"the container's own in a network that is routable", routable, "netinfo mesos host", addrs("10.200.0.1", "fd00::1")},
		{"no invalid ones", Addresses{Netinfo: []netip.Addr{{}, netip.IPv4Unspecified()}, Host: addrs("10.1.0.1")}, "netinfo host", addrs("10.1.0.1")},
	} {
		order, err := ParseIPSources(strings.Fields(tc.order))
		if err != nil {
			t.Fatal(err)
		}
		if got := tc.from.Choose(order); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	for _, bad := range []string{"", "netinfo netinfo", "dhcp"} {
		if _, err := ParseIPSources(strings.Fields(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestSourcesAreToldAsTheyWereGiven(t *testing.T) {
	z := NewZone(DefaultConfig(), 1)
	a, b := marathonTask(1, 1), marathonTask(2, 3)
	a.OwnOnly, b.Discovery, b.Reverse = true, "Other_Name", true
	b.Ports = append(b.Ports, Port{9, "", "udp,tcp"})
	z.ReplaceTask("b\x00task/"+b.ID, b)
	z.ReplaceTask("a", a)
	records := Framework{"marathon", addrs("10.0.0.1"), 80}.Records("mesos")
	z.Replace("framework", records)
	var names []string
	for name, task := range z.Tasks() {
		names = append(names, name)
		want := map[string]Task{"a": *a, "b\x00task/" + b.ID: *b}[name]
		want.AgentID = want.AgentID[strings.LastIndexByte(want.AgentID, '-')+1:]
		if diff := cmp.Diff(want, task, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%q (-given +told):\n%s", name, diff)
		}
		if diff := cmp.Diff(lines(want.Records("mesos")), lines(z.TaskRecords(&task))); diff != "" {
			t.Errorf("%q (-given +told):\n%s", name, diff)
		}
	}
	if !slices.Equal(names, []string{"a", "b\x00task/" + b.ID}) {
		t.Errorf("tasks %q", names)
	}
}

// FuzzAnswer holds answers to any packet to two rules: they unpack, and they are to the question that was asked, within
// the size that the asker takes.
func FuzzAnswer(f *testing.F) {
	z := marathonZone(20, 40)
	for _, q := range commonQuestions() {
		f.Add(queryFor(f, q[0].(string), q[1].(uint16)), uint32(0))
	}
	for _, name := range []string{"_http._app3-group3._tcp.marathon.mesos.", "app3.group3.marathon.agent.mesos.", "x.*.mesos.", "near.mesos.", "."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeSRV)
		query, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(query, uint32(17))
	}
	buf := make([]byte, maxUDP)
	f.Fuzz(func(t *testing.T, query []byte, start uint32) {
		answer := z.Answer(query, buf, start)
		if answer == nil {
			return
		}
		var m, q dns.Msg
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("the answer does not unpack: %v", err)
		}
		if err := q.Unpack(query); err != nil {
			// Options may be malformed, and names longer than others take; nothing else.
			return
		}
		limit := plainUDP
		if o := q.IsEdns0(); o != nil {
			limit = min(max(plainUDP, int(o.UDPSize())), maxUDP)
		}
		if m.Id != q.Id || !m.Response || m.Question[0] != q.Question[0] || len(answer) > limit || (m.IsEdns0() != nil) != (q.IsEdns0() != nil) {
			t.Fatalf("answer %v of %d octets does not fit question %v", &m, len(answer), &q)
		}
	})
}

// Frameworks come and go under new names, many more of them than there may be suffixes: nothing of them is left, and those
// that come late still share theirs. Meanwhile nobody reads one name for another.
func TestSuffixesOfFrameworksThatHaveGoneAreUsedAgain(t *testing.T) {
	z := NewZone(DefaultConfig(), 1)
	steady := marathonTask(1, 1)
	z.ReplaceTask("steady", steady)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var g sync.WaitGroup
	g.Go(func() {
		for ctx.Err() == nil {
			if found, ok := z.Lookup("app1.group1.marathon.mesos."); !ok || len(found) != 1 {
				t.Errorf("the name that stays is %v", found)
				return
			}
			for r := range z.All() {
				// Each task's port tells which framework it is of.
				if r.Type == SRV && strings.HasPrefix(r.Name, "_w._tcp.") && !strings.Contains(r.Name, fmt.Sprintf(".f%d.", r.Port)) {
					t.Errorf("%v is not the framework's", r)
					return
				}
			}
		}
	})
	const frameworks = 8000
	for i := range frameworks {
		task := &Task{ID: "w", Name: "w", Framework: fmt.Sprintf("f%d", i), AgentID: "x-S1", Agent: addrs("10.0.0.1"), HostPorts: []uint16{uint16(i)}}
		z.ReplaceTask(fmt.Sprint(i%50), task)
	}
	cancel()
	g.Wait()
	if n := len(*z.suffixes.Load()); n > 2*minSweep+50*6*2 {
		t.Errorf("%d suffixes after %d frameworks of which 50 are left", n, frameworks)
	}
	_, number := z.cut([]byte("\x01w\x05f7999\x05mesos"))
	if list := *z.suffixes.Load(); list[number] != "\x05f7999\x05mesos" {
		t.Errorf("the last framework's suffix is %q", list[number])
	}
	for i := range 50 {
		z.ReplaceTask(fmt.Sprint(i), nil)
	}
	z.ReplaceTask("steady", nil)
	for n, names := range z.shared.names {
		if list := *z.suffixes.Load(); names != 0 && list[n] != z.apex {
			t.Errorf("%d names are said to have the suffix %q", names, list[n])
		}
	}
}
