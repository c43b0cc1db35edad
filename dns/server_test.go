package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// mesh is a source that a test writes to. Each node is its own writer, whose changes are applied to one copy.
type mesh struct {
	t *testing.T
	*record.Map
	owners map[string]*record.Map
}

var epoch = time.Unix(1_700_000_000, 0)

func newMesh(t *testing.T) *mesh {
	m := &mesh{t: t, Map: record.NewMap("reader", 1), owners: map[string]*record.Map{}}
	m.SetLiveness(epoch, "reader", record.Alive)
	return m
}

func (m *mesh) set(node, key string, value proto.Message) {
	m.t.Helper()
	var data []byte
	if value != nil {
		var err error
		if data, err = proto.Marshal(value); err != nil {
			m.t.Fatal(err)
		}
	}
	m.raw(node, key, data)
}

func (m *mesh) raw(node, key string, data []byte) {
	m.t.Helper()
	owner := m.owners[node]
	if owner == nil {
		owner = record.NewMap(node, 1)
		m.owners[node] = owner
		m.SetLiveness(epoch, node, record.Alive)
	}
	owner.Set(epoch, record.Assignment{Key: key, Value: data})
	if _, err := m.Apply(epoch, owner.Delta(node, 0)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mesh) agent(node, address string) {
	m.set(node, catalog.KeyNode, &catalog.Node{Roles: []string{catalog.RoleAgent}, Address: address, Port: 5051, AgentId: node})
}

func task(id string, state int32, port uint32) *catalog.Task {
	return &catalog.Task{
		TaskId: id, FrameworkId: "f", FrameworkName: "marathon", Name: "web", State: state,
		Discovery: &catalog.Discovery{Name: "web", Ports: []*catalog.Port{{Number: port, Name: "http", Protocol: "tcp"}}},
	}
}

// start runs a server over a source, whose configuration may be changed before, and returns its address.
func start(t *testing.T, source Source, change ...func(*Config)) (*Server, string) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Source: source, Zone: records.DefaultConfig(), Listen: []*Listener{l},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range change {
		f(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s, l.Addr().String()
}

func query(t *testing.T, network, addr, name string, qtype uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(1232, false)
	m, _, err := (&dns.Client{Net: network, Timeout: 20 * time.Second}).Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return m
}

// want waits until a name has exactly these addresses, over UDP.
func want(t *testing.T, addr, name string, ips ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		got = nil
		for _, rr := range query(t, "udp", addr, name, dns.TypeA).Answer {
			got = append(got, rr.(*dns.A).A.String())
		}
		slices.Sort(got)
		if slices.Equal(got, ips) {
			return
		}
	}
	t.Fatalf("%s has %v, want %v", name, got, ips)
}

func TestNamesFollowTheMesh(t *testing.T) {
	m := newMesh(t)
	m.agent("x-S1", "10.0.0.1")
	key := catalog.TaskKey("f", "web.1")
	m.set("x-S1", key, task("web.1", taskRunning, 31000))
	s, addr := start(t, m)
	want(t, addr, "web.marathon.mesos.", "10.0.0.1") // what was there at the start
	if !s.Ready() {
		t.Error("the server answers and is not ready")
	}

	m.agent("x-S2", "10.0.0.2")
	m.set("x-S2", catalog.TaskKey("f", "web.2"), task("web.2", 6, 31000))
	want(t, addr, "slave.mesos.", "10.0.0.1", "10.0.0.2")
	want(t, addr, "web.marathon.mesos.", "10.0.0.1") // staging has no name
	m.set("x-S2", catalog.TaskKey("f", "web.2"), task("web.2", taskRunning, 31000))
	want(t, addr, "web.marathon.mesos.", "10.0.0.1", "10.0.0.2")

	m.SetLiveness(epoch, "x-S2", record.Suspect)
	want(t, addr, "web.marathon.mesos.", "10.0.0.1")
	m.SetLiveness(epoch, "x-S2", record.Alive)
	want(t, addr, "web.marathon.mesos.", "10.0.0.1", "10.0.0.2")

	m.raw("x-S1", key, nil)
	want(t, addr, "web.marathon.mesos.", "10.0.0.2")
	m.agent("x-S2", "10.0.0.9") // the node moved
	want(t, addr, "web.marathon.mesos.", "10.0.0.9")
}

func TestHealthDecidesWhereThereIsACheck(t *testing.T) {
	m := newMesh(t)
	m.agent("x-S1", "10.0.0.1")
	_, addr := start(t, m)
	key := catalog.TaskKey("f", "web.1")
	v := task("web.1", taskRunning, 31000)
	v.Checked = true
	m.set("x-S1", key, v)
	m.set("x-S1", catalog.TaskKey("f", "other"), &catalog.Task{TaskId: "other", Name: "other", FrameworkName: "marathon", State: taskRunning})
	want(t, addr, "other.marathon.mesos.", "10.0.0.1")
	want(t, addr, "web.marathon.mesos.") // no result yet
	v.Healthy = proto.Bool(true)
	m.set("x-S1", key, v)
	want(t, addr, "web.marathon.mesos.", "10.0.0.1")
	v.Healthy = proto.Bool(false)
	m.set("x-S1", key, v)
	want(t, addr, "web.marathon.mesos.")
}

func TestBadValuesCostTheirOwnNamesOnly(t *testing.T) {
	m := newMesh(t)
	m.agent("x-S1", "10.0.0.1")
	m.raw("x-S1", catalog.TaskKey("f", "bad"), []byte{0xff, 0xff})
	m.raw("x-S2", catalog.KeyNode, []byte{0xff})
	m.raw("x-S3", catalog.KeyLeader, []byte{0xff})
	m.set("x-S1", catalog.TaskKey("f", "web.1"), task("web.1", taskRunning, 31000))
	_, addr := start(t, m)
	want(t, addr, "web.marathon.mesos.", "10.0.0.1")
}

func TestLeaderIsTheOneWithTheHighestEpoch(t *testing.T) {
	m := newMesh(t)
	for i, name := range []string{"m1", "m2"} {
		ip := fmt.Sprint("10.0.1.", i+1)
		m.set(name, catalog.KeyNode, &catalog.Node{Roles: []string{catalog.RoleMaster}, Address: ip, Port: 5050})
		m.set(name, catalog.KeyLeader, &catalog.Leader{Epoch: uint64(3 + i), Address: ip, Port: 5050})
	}
	_, addr := start(t, m)
	want(t, addr, "leader.mesos.", "10.0.1.2")
	want(t, addr, "master.mesos.", "10.0.1.1", "10.0.1.2")
	m.set("m1", catalog.KeyLeader, &catalog.Leader{Epoch: 5, Address: "10.0.1.1", Port: 5050})
	want(t, addr, "leader.mesos.", "10.0.1.1")
	m.SetLiveness(epoch, "m1", record.Dead)
	want(t, addr, "leader.mesos.", "10.0.1.2")
}

func sorted(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		out = append(out, strings.ToLower(rr.String()))
	}
	slices.Sort(out)
	return out
}

// The hot path and the general path must tell the same.
func TestUDPAndTCPAnswerAlike(t *testing.T) {
	m := newMesh(t)
	for i := range 5 {
		node := fmt.Sprint("x-S", i)
		m.agent(node, fmt.Sprint("10.0.0.", i+1))
		m.set(node, catalog.TaskKey("f", fmt.Sprint("web.", i)), task(fmt.Sprint("web.", i), taskRunning, uint32(31000+i)))
	}
	_, addr := start(t, m)
	want(t, addr, "web.marathon.mesos.", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5")
	for _, name := range []string{
		"web.marathon.mesos.", "WEB.Marathon.Mesos.", "_web._tcp.marathon.mesos.", "_http._web._tcp.marathon.mesos.",
		"nobody.marathon.mesos.", "marathon.mesos.", "mesos.", "slave.mesos.", "_slave._tcp.mesos.",
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			u, tcp := query(t, "udp", addr, name, qtype), query(t, "tcp", addr, name, qtype)
			if u.Rcode != tcp.Rcode || u.Authoritative != tcp.Authoritative || u.RecursionAvailable != tcp.RecursionAvailable || u.Truncated ||
				!slices.Equal(sorted(u.Answer), sorted(tcp.Answer)) || !slices.Equal(sorted(u.Ns), sorted(tcp.Ns)) ||
				len(u.Extra) != len(tcp.Extra) {
				t.Errorf("%s %s:\nUDP %v\nTCP %v", name, dns.TypeToString[qtype], u, tcp)
			}
		}
	}
}

func TestOddQueries(t *testing.T) {
	m := newMesh(t)
	m.agent("x-S1", "10.0.0.1")
	m.set("x-S1", catalog.TaskKey("f", "web.1"), task("web.1", taskRunning, 31000))
	_, addr := start(t, m)
	want(t, addr, "web.marathon.mesos.", "10.0.0.1")
	for _, tc := range []struct {
		name    string
		qtype   uint16
		rcode   int
		answers int
	}{
		{"mesos.", dns.TypeSOA, dns.RcodeSuccess, 1},
		{"mesos.", dns.TypeNS, dns.RcodeSuccess, 1},
		{"web.marathon.mesos.", dns.TypeSOA, dns.RcodeSuccess, 0},
		{"web.marathon.mesos.", dns.TypeTXT, dns.RcodeSuccess, 0},
		{"nobody.mesos.", dns.TypeTXT, dns.RcodeNameError, 0},
		{"web.marathon.mesos.", dns.TypeANY, dns.RcodeSuccess, 1},
		{"web.*.marathon.mesos.", dns.TypeA, dns.RcodeSuccess, 1},
		{"example.com.", dns.TypeA, dns.RcodeRefused, 0},
		{"amesos.", dns.TypeA, dns.RcodeRefused, 0},
	} {
		for _, network := range []string{"udp", "tcp"} {
			got := query(t, network, addr, tc.name, tc.qtype)
			if got.Rcode != tc.rcode || len(got.Answer) != tc.answers {
				t.Errorf("%s %s %s: %v", network, tc.name, dns.TypeToString[tc.qtype], got)
			}
		}
	}
	// Garbage gets an error where it has a header, and harms nothing.
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, garbage := range []string{"x", "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff\xff", strings.Repeat("\xc0\x0c", 400)} {
		if _, err := conn.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
	}
	want(t, addr, "web.marathon.mesos.", "10.0.0.1")
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{Zone: records.Config{Domain: ""}}); err == nil || !strings.Contains(err.Error(), "domain") || !strings.Contains(err.Error(), "source") {
		t.Errorf("New = %v, want all that lacks", err)
	}
}
