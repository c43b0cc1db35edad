package records

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestSanitize(t *testing.T) {
	for in, want := range map[string]string{
		"4abc123": "4abc123", "-4abc123": "4abc123", "My_App V2": "my-appv2", "/a/b/c": "abc", "c.b.a": "c-b-a",
		"89fdgsf---gs7-fgs--d7fddg---123":           "89fdgsf---gs7-fgs--d7fddg---123",
		"chronos with a space AND MIXED CASE-2.0.1": "chronoswithaspaceandmixedcase-2-0-1",
		"hello" + strings.Repeat("-", 56) + "f":     "hello" + strings.Repeat("-", 56) + "f",
		"hello" + strings.Repeat("-", 60) + "f":     "hellof",
		"/":                                         "", "---": "", "": "", "ünï": "n",
	} {
		if got := Sanitize(in); got != want {
			t.Errorf("Sanitize(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"Team A.prod_1": "teama.prod-1", "/eu/edge": "euedge", "marathon-0.6.0-dev": "marathon-0.6.0-dev", "..": "",
	} {
		if got := sanitizeDotted(in); got != want {
			t.Errorf("sanitizeDotted(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestHashAndSuffix(t *testing.T) {
	if got := hash("test"); got != "iffe9" {
		t.Errorf("hash(test) = %q, want iffe9", got)
	}
	for in, want := range map[string]string{"0a6d-1c1e-S12": "s12", "plain": "plain"} {
		if got := agentSuffix(in); got != want {
			t.Errorf("agentSuffix(%q) = %q, want %q", in, got, want)
		}
	}
}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func lines(records []Record) []string {
	var out []string
	for _, r := range records {
		if r.Type == SRV {
			out = append(out, fmt.Sprintf("%s SRV %d %s", r.Name, r.Port, r.Target))
		} else {
			out = append(out, fmt.Sprintf("%s %s %s", r.Name, r.Type, r.Addr))
		}
	}
	slices.Sort(out)
	return out
}

// The worked examples of the Mesos-DNS specification, section 10.
func TestTaskRecordsAreThoseOfMesosDNS(t *testing.T) {
	exampleB := func() []string {
		var want []string
		for _, x := range []string{"c.b.a", "c-b-a"} {
			want = append(want,
				x+".marathon.mesos. A 10.200.0.1", x+"-p58z3-s1.marathon.mesos. A 10.200.0.1",
				x+".marathon.slave.mesos. A 10.1.0.2", x+"-p58z3-s1.marathon.slave.mesos. A 10.1.0.2",
				"_"+x+"._tcp.marathon.slave.mesos. SRV 31002 "+x+"-p58z3-s1.marathon.slave.mesos.",
				"_"+x+"._udp.marathon.slave.mesos. SRV 31002 "+x+"-p58z3-s1.marathon.slave.mesos.",
				"_"+x+"._tcp.marathon.mesos. SRV 31002 "+x+"-p58z3-s1.marathon.mesos.",
				"_http._"+x+"._tcp.marathon.mesos. SRV 31002 "+x+"-p58z3-s1.marathon.mesos.")
		}
		slices.Sort(want)
		return want
	}
	for _, tc := range []struct {
		name string
		task Task
		want []string
	}{
		{"without discovery info", Task{
			ID: "web.id-0", Name: "web", Framework: "marathon", AgentID: "x-S0", Agent: addrs("10.1.0.1"), HostPorts: []uint16{31000},
		}, []string{
			"_web._tcp.marathon.mesos. SRV 31000 web-8epxj-s0.marathon.slave.mesos.",
			"_web._tcp.marathon.slave.mesos. SRV 31000 web-8epxj-s0.marathon.slave.mesos.",
			"_web._udp.marathon.mesos. SRV 31000 web-8epxj-s0.marathon.slave.mesos.",
			"_web._udp.marathon.slave.mesos. SRV 31000 web-8epxj-s0.marathon.slave.mesos.",
			"web-8epxj-s0.marathon.mesos. A 10.1.0.1",
			"web-8epxj-s0.marathon.slave.mesos. A 10.1.0.1",
			"web.marathon.mesos. A 10.1.0.1",
			"web.marathon.slave.mesos. A 10.1.0.1",
		}},
		{"an app in groups, with an address of its own", Task{
			ID: "c.b.a.id-0", Name: "c.b.a", Framework: "marathon", AgentID: "x-S1", Agent: addrs("10.1.0.2"), Addrs: addrs("10.200.0.1"),
			HostPorts: []uint16{31002}, Discovery: "c.b.a", Ports: []Port{{31002, "http", "tcp"}},
		}, exampleB()},
		{"an IPv6 node", Task{ID: "v6.1", Name: "v6", Framework: "marathon", AgentID: "x-S20", Agent: addrs("2001:db8::20")}, []string{
			"v6-" + hash("v6.1") + "-s20.marathon.mesos. AAAA 2001:db8::20",
			"v6-" + hash("v6.1") + "-s20.marathon.slave.mesos. AAAA 2001:db8::20",
			"v6.marathon.mesos. AAAA 2001:db8::20",
			"v6.marathon.slave.mesos. AAAA 2001:db8::20",
		}},
		{"a name of which nothing is left", Task{ID: "x", Name: "/", Framework: "marathon", AgentID: "x-S1", Agent: addrs("10.1.0.2")}, nil},
		{"a framework of which nothing is left", Task{ID: "x", Name: "x", Framework: "/", AgentID: "x-S1", Agent: addrs("10.1.0.2")}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, lines(tc.task.Records("mesos"))); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOddDiscoveryInfo(t *testing.T) {
	task := Task{
		ID: "disc-name-only.id-0", Name: "whatever", Framework: "marathon", AgentID: "x-S3", Agent: addrs("10.1.0.4"),
		Addrs: addrs("10.200.0.2", "fd00::2"), Discovery: "Web_UI",
		Ports: []Port{{8080, "Admin_Port", "TCP"}, {8081, "", "udp,tcp"}, {8082, "x", ""}},
	}
	got := lines(task.Records("mesos"))
	for _, want := range []string{
		"web-ui.marathon.mesos. A 10.200.0.2", "web-ui.marathon.mesos. AAAA fd00::2", "web-ui-4adns-s3.marathon.mesos. A 10.200.0.2",
		"web-ui.marathon.slave.mesos. A 10.1.0.4",
		"_web-ui._tcp.marathon.mesos. SRV 8080 web-ui-4adns-s3.marathon.mesos.",
		"_web-ui._tcp.marathon.mesos. SRV 8082 web-ui-4adns-s3.marathon.mesos.",
		"_web-ui._udp.marathon.mesos. SRV 8082 web-ui-4adns-s3.marathon.mesos.",
		"_web-ui._udptcp.marathon.mesos. SRV 8081 web-ui-4adns-s3.marathon.mesos.",
		"_web-ui._tcp.marathon.mesos. SRV 8081 web-ui-4adns-s3.marathon.mesos.", // wanted difference: the list's parts resolve too
		"_admin-port._web-ui._tcp.marathon.mesos. SRV 8080 web-ui-4adns-s3.marathon.mesos.",
		"_x._web-ui._udp.marathon.mesos. SRV 8082 web-ui-4adns-s3.marathon.mesos.",
		"web_ui.marathon.mesos. A 10.200.0.2", // wanted difference: the raw twin resolves, in lower case
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks in\n%s", want, strings.Join(got, "\n"))
		}
	}
}

func TestLongNamesStillFit(t *testing.T) {
	long := strings.Repeat("a", 63)
	task := Task{ID: "x", Name: long, Framework: "marathon", AgentID: "x-S1", Agent: addrs("10.1.0.2"), HostPorts: []uint16{31000}}
	services := 0
	for _, r := range task.Records("mesos") {
		for label := range strings.SplitSeq(r.Name+r.Target, ".") {
			if len(label) > 63 {
				t.Errorf("label of %d characters in %+v", len(label), r)
			}
		}
		if r.Type == SRV {
			services++
		}
	}
	if services != 4 {
		t.Errorf("%d SRV records, want 4", services)
	}
}

func TestClusterRecords(t *testing.T) {
	c := Cluster{
		Leader:  &Master{netip.MustParseAddr("10.0.0.2"), 5050},
		Masters: []Master{{netip.MustParseAddr("10.0.0.1"), 5050}, {netip.MustParseAddr("10.0.0.2"), 5050}},
		Agents:  []Master{{netip.MustParseAddr("10.0.0.3"), 5051}},
	}
	got := lines(c.Records("mesos"))
	for _, want := range []string{
		"leader.mesos. A 10.0.0.2", "_leader._tcp.mesos. SRV 5050 leader.mesos.", "master.mesos. A 10.0.0.1", "master.mesos. A 10.0.0.2",
		"master0.mesos. A 10.0.0.1", "master1.mesos. A 10.0.0.2", "slave.mesos. A 10.0.0.3", "agent.mesos. A 10.0.0.3",
		"_slave._tcp.mesos. SRV 5051 slave.mesos.",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks in\n%s", want, strings.Join(got, "\n"))
		}
	}
}

func ask(t *testing.T, z *Zone, name string, qtype uint16, udp uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	if udp > 0 {
		q.SetEdns0(udp, false)
	}
	query, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer := z.Answer(query, make([]byte, maxUDP), 0)
	if answer == nil {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(answer); err != nil {
		t.Fatalf("answer to %s does not unpack: %v\n%x", name, err, answer)
	}
	if m.Id != q.Id || !m.Response || !m.Authoritative || len(m.Question) != 1 || m.Question[0] != q.Question[0] {
		t.Errorf("answer to %s does not fit the question: %v", name, m)
	}
	limit := plainUDP
	if udp > 0 {
		limit = min(max(plainUDP, int(udp)), maxUDP)
		if o := m.IsEdns0(); o == nil || o.UDPSize() != maxUDP {
			t.Errorf("answer to %s has no OPT of 1232: %v", name, o)
		}
	} else if m.IsEdns0() != nil {
		t.Errorf("answer to %s has an OPT that was not asked for", name)
	}
	if len(answer) > limit {
		t.Errorf("answer to %s has %d octets, more than %d", name, len(answer), limit)
	}
	return m
}

func exampleZone(n int) *Zone {
	z := NewZone(DefaultConfig(), 7)
	for i := range n {
		z.Replace(fmt.Sprint("task", i), Task{
			ID: fmt.Sprint("web.", i), Name: "web", Framework: "marathon", AgentID: fmt.Sprint("x-S", i),
			Agent: addrs(fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)), Discovery: "web", Ports: []Port{{uint16(31000 + i), "http", "tcp"}},
		}.Records("mesos"))
	}
	return z
}

func TestAnswers(t *testing.T) {
	z := exampleZone(2)
	for _, tc := range []struct {
		name    string
		qtype   uint16
		code    int
		answers int
		soa     bool
	}{
		{"web.marathon.mesos.", dns.TypeA, dns.RcodeSuccess, 2, false},
		{"WeB.marathon.MESOS.", dns.TypeA, dns.RcodeSuccess, 2, false},
		{"_http._web._tcp.marathon.mesos.", dns.TypeSRV, dns.RcodeSuccess, 2, false},
		{"web.marathon.mesos.", dns.TypeAAAA, dns.RcodeSuccess, 0, true},
		{"web.marathon.mesos.", dns.TypeSRV, dns.RcodeSuccess, 0, true},
		{"nobody.marathon.mesos.", dns.TypeA, dns.RcodeNameError, 0, true},
		{"_nobody._tcp.marathon.mesos.", dns.TypeSRV, dns.RcodeNameError, 0, true},
		{"mesos.", dns.TypeA, dns.RcodeSuccess, 0, true},
		{"_tcp.marathon.mesos.", dns.TypeA, dns.RcodeSuccess, 0, true},
	} {
		for _, udp := range []uint16{0, 100, 1232, 4096} {
			m := ask(t, z, tc.name, tc.qtype, udp)
			if m == nil {
				t.Errorf("%s is not answered", tc.name)
				continue
			}
			if m.Rcode != tc.code || len(m.Answer) != tc.answers || (len(m.Ns) == 1) != tc.soa {
				t.Errorf("%s %d: %v", tc.name, tc.qtype, m)
			}
			for _, rr := range m.Answer {
				if rr.Header().Name != tc.name || rr.Header().Ttl != 5 {
					t.Errorf("%s: answer %v", tc.name, rr)
				}
			}
			if tc.soa && (m.Ns[0].Header().Rrtype != dns.TypeSOA || !strings.EqualFold(m.Ns[0].Header().Name, "mesos.")) {
				t.Errorf("%s: authority %v", tc.name, m.Ns[0])
			}
		}
	}
	m := ask(t, z, "_web._tcp.marathon.mesos.", dns.TypeSRV, 1232)
	if len(m.Answer) != 2 || len(m.Extra) != 3 {
		t.Fatalf("SRV: %v, want two answers, two addresses and OPT", m)
	}
	for i, rr := range m.Answer {
		if got := m.Extra[i].Header().Name; got != rr.(*dns.SRV).Target {
			t.Errorf("additional %q, want the address of %q", got, rr.(*dns.SRV).Target)
		}
	}
	for _, outside := range []string{"amesos.", "example.com.", "web.marathon.amesos.", "x.xmesos.", "."} {
		if m := ask(t, z, outside, dns.TypeA, 0); m != nil {
			t.Errorf("%s is answered, want it left alone: %v", outside, m)
		}
	}
}

func TestAnswersAreRotatedAndTruncated(t *testing.T) {
	z := exampleZone(60)
	m := ask(t, z, "web.marathon.mesos.", dns.TypeA, 0)
	if !m.Truncated || len(m.Answer) != (512-12-len("web.marathon.mesos.")-1-4)/16 {
		t.Errorf("60 addresses in 512 octets: %d answers, TC %v", len(m.Answer), m.Truncated)
	}
	if m := ask(t, z, "web.marathon.mesos.", dns.TypeA, 1232); m.Truncated || len(m.Answer) != 60 {
		t.Errorf("60 addresses in 1232 octets: %d answers, TC %v", len(m.Answer), m.Truncated)
	}
	q := new(dns.Msg)
	q.SetQuestion("web.marathon.mesos.", dns.TypeA)
	query, _ := q.Pack()
	first := map[string]bool{}
	for start := range uint32(60) {
		var m dns.Msg
		if err := m.Unpack(z.Answer(query, make([]byte, maxUDP), start)); err != nil {
			t.Fatal(err)
		}
		first[m.Answer[0].String()] = true
	}
	if len(first) != 60 {
		t.Errorf("%d of 60 addresses come first at some time, want all", len(first))
	}
}

// After any sequence of changes the zone must answer as one built anew from the sources that are left.
func TestUpdatesEqualARebuild(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	z := NewZone(DefaultConfig(), 1)
	current := map[string][]Record{}
	for step := range 2000 {
		source := fmt.Sprint(rng.IntN(30))
		var records []Record
		if rng.IntN(3) > 0 {
			records = Task{
				ID: fmt.Sprint("t.", rng.IntN(40)), Name: []string{"web", "db", "a.b"}[rng.IntN(3)], Framework: []string{"marathon", "x.y"}[rng.IntN(2)],
				AgentID: fmt.Sprint("x-S", rng.IntN(3)), Agent: addrs(fmt.Sprintf("10.0.0.%d", 1+rng.IntN(3))), HostPorts: []uint16{uint16(31000 + rng.IntN(3))},
				Discovery: []string{"", "web", "c.b.a"}[rng.IntN(3)], Ports: []Port{{uint16(31000 + rng.IntN(2)), "http", "tcp"}},
			}.Records("mesos")
		}
		z.Replace(source, records)
		current[source] = records
		if step%100 != 99 {
			continue
		}
		fresh := NewZone(DefaultConfig(), 1)
		for s, r := range current {
			fresh.Replace(s, r)
		}
		if len(fresh.names) != len(z.names) {
			t.Fatalf("step %d: %d names, a rebuild has %d", step, len(z.names), len(fresh.names))
		}
		for key := range fresh.names {
			want, _ := fresh.Lookup(dotted(key))
			got, ok := z.Lookup(dotted(key))
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); !ok || diff != "" {
				t.Fatalf("step %d: %s exists %v (-rebuild +zone):\n%s", step, dotted(key), ok, diff)
			}
			if fmt.Sprint(z.names[key].packed.Load()) != fmt.Sprint(fresh.names[key].packed.Load()) {
				t.Fatalf("step %d: the packed answers of %s differ from a rebuild", step, dotted(key))
			}
		}
	}
	for s := range current {
		z.Replace(s, nil)
	}
	if len(z.names) != 1 {
		t.Errorf("%d names are left in an empty zone, want the apex", len(z.names))
	}
}

func TestReplaceWithTheSameChangesNothing(t *testing.T) {
	z := exampleZone(3)
	before := z.Serial()
	same := z.Sources()["task1"]
	if z.Replace("task1", slices.Clone(same)) || z.Serial() != before {
		t.Error("the same records count as a change")
	}
	if !z.Replace("task1", nil) || z.Serial() == before {
		t.Error("removal does not count as a change")
	}
}

func TestAnswerAllocatesNothing(t *testing.T) {
	z := exampleZone(10)
	buf := make([]byte, maxUDP)
	for _, name := range []string{"web.marathon.mesos.", "nobody.mesos."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		q.SetEdns0(1232, false)
		query, _ := q.Pack()
		if n := testing.AllocsPerRun(100, func() { z.Answer(query, buf, 3) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	z := exampleZone(40)
	for _, name := range []string{"web.marathon.mesos.", "_web._tcp.marathon.mesos.", "x.mesos.", "mesos."} {
		for _, udp := range []uint16{0, 1232} {
			q := new(dns.Msg)
			q.SetQuestion(name, dns.TypeSRV)
			if udp > 0 {
				q.SetEdns0(udp, false)
			}
			query, _ := q.Pack()
			f.Add(query)
		}
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		answer := z.Answer(query, make([]byte, maxUDP), 1)
		if answer == nil {
			return
		}
		var q, m dns.Msg
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("the answer does not unpack: %v", err)
		}
		if err := q.Unpack(query); err == nil && (m.Id != q.Id || m.Question[0] != q.Question[0]) {
			t.Fatalf("answer %v does not fit question %v", m, q)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	for _, tasks := range []int{10, 1000} {
		z := exampleZone(tasks)
		for name, qtype := range map[string]uint16{"web-" + hash("web.1") + "-s1.marathon.mesos.": dns.TypeA, "_web._tcp.marathon.mesos.": dns.TypeSRV, "nobody.mesos.": dns.TypeA} {
			q := new(dns.Msg)
			q.SetQuestion(name, qtype)
			q.SetEdns0(1232, false)
			query, _ := q.Pack()
			buf := make([]byte, maxUDP)
			b.Run(fmt.Sprintf("%d/%s", tasks, name), func(b *testing.B) {
				b.ReportAllocs()
				for i := uint32(0); b.Loop(); i++ {
					if z.Answer(query, buf, i) == nil {
						b.Fatal("no answer")
					}
				}
			})
		}
	}
}

// The names of one changed task are all that an update touches; the budget is 20 us of CPU.
func BenchmarkReplace(b *testing.B) {
	z := exampleZone(1000)
	one := Task{
		ID: "db.1", Name: "db", Framework: "marathon", AgentID: "x-S1", Agent: addrs("10.9.0.1"), Discovery: "db",
		Ports: []Port{{31000, "sql", "tcp"}},
	}
	b.ReportAllocs()
	for b.Loop() {
		z.Replace("db", one.Records("mesos"))
		z.Replace("db", nil)
	}
}
