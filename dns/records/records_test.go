package records

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestSanitize(t *testing.T) {
	dashes := strings.Repeat("-", 56)
	for _, tc := range []struct{ in, want, want952 string }{
		{"4abc123", "4abc123", "abc123"},
		{"-4abc123", "4abc123", "abc123"},
		{"My_App V2", "my-appv2", "my-appv2"},
		{"/a/b/c", "abc", "abc"},
		{"c.b.a", "c-b-a", "c-b-a"},
		{"89fdgsf---gs7-fgs--d7fddg---123", "89fdgsf---gs7-fgs--d7fddg---123", "fdgsf---gs7-fgs--d7fddg1"},
		{"chronos with a space AND MIXED CASE-2.0.1", "chronoswithaspaceandmixedcase-2-0-1", "chronoswithaspaceandmixe"},
		{"hello" + dashes + "f", "hello" + dashes + "f", "hellof"},
		{"hello" + dashes + "----f", "hellof", "hellof"},
		{"/", "", ""},
		{"---", "", ""},
		{"", "", ""},
		{"123", "123", ""},
		{"ünï", "n", "n"},
	} {
		if got := Sanitize(tc.in); got != tc.want {
			t.Errorf("Sanitize(%q) = %q, want %q", tc.in, got, tc.want)
		}
		if got := rules(true).label(tc.in); got != tc.want952 {
			t.Errorf("by RFC 952 %q becomes %q, want %q", tc.in, got, tc.want952)
		}
	}
	for _, tc := range []struct{ in, want, want952 string }{
		{"Team A.prod_1", "teama.prod-1", "teama.prod-1"},
		{"/eu/edge", "euedge", "euedge"},
		{"marathon-0.6.0-dev", "marathon-0.6.0-dev", "marathon-0.dev"},
		{"..", "", ""},
	} {
		if got := rules(false).dotted(tc.in); got != tc.want {
			t.Errorf("framework %q becomes %q, want %q", tc.in, got, tc.want)
		}
		if got := rules(true).dotted(tc.in); got != tc.want952 {
			t.Errorf("by RFC 952 framework %q becomes %q, want %q", tc.in, got, tc.want952)
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
		"master0.mesos. A 10.0.0.1", "master1.mesos. A 10.0.0.2", "slave.mesos. A 10.0.0.3", "_agent._tcp.mesos. SRV 5051 slave.mesos.",
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
	defer z.Commit(7)
	for i := range n {
		z.Replace(fmt.Sprint("task", i), exampleTask(i))
	}
	return z
}

func exampleTask(i int) []Record {
	return Task{
		ID: fmt.Sprint("web.", i), Name: "web", Framework: "marathon", AgentID: fmt.Sprint("x-S", i),
		Agent: addrs(fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)), Discovery: "web", Ports: []Port{{uint16(31000 + i), "http", "tcp"}},
	}.Records("mesos")
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

func TestReplaceWithTheSameChangesNothing(t *testing.T) {
	z := exampleZone(3)
	before := z.Serial()
	if z.Replace("task1", exampleTask(1)) || z.Commit(0) != before {
		t.Error("the same records count as a change")
	}
	if !z.Replace("task1", nil) || z.Commit(0) == before {
		t.Error("removal does not count as a change")
	}
}
