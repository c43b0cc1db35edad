package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"starling/gossip"
	"starling/gossip/catalog"
	"starling/gossip/keyring"
	"starling/gossip/record"
	"starling/master/mesos/server"
)

// fake is a mesh without a network: records that were written by maps of their own.
type fake struct {
	*record.Map
	keyed    []gossip.NodeKeys
	rotation gossip.Rotation
	// start is StartRotation.
	start func(sealed []byte) error
}

func newFake(t testing.TB, self string, limits record.Limits) *fake {
	t.Helper()
	return &fake{Map: record.NewMap(self, 7, record.WithLimits(limits))}
}

func (f *fake) Keys() []gossip.NodeKeys           { return f.keyed }
func (f *fake) Rotation() gossip.Rotation         { return f.rotation }
func (f *fake) RotationChallenge() []byte         { return bytes.Repeat([]byte{7}, keyring.ChallengeSize) }
func (f *fake) StartRotation(sealed []byte) error { return f.start(sealed) }

// Members gives every node an address but those that were never seen.
func (f *fake) Members() []gossip.Member {
	var out []gossip.Member
	for s := range f.Snapshots() {
		m := gossip.Member{Name: s.Node(), Liveness: s.Liveness(), Since: s.Since(), Generation: s.Generation(), Version: s.Version()}
		if s.Node() == "gone" {
			m.DampedUntil = s.Since().Add(time.Hour)
		}
		if s.Liveness() != record.Unknown {
			m.Address, m.Port = "10.0.0.1", 7946
		}
		out = append(out, m)
	}
	return out
}

// RTT reads the records, as the mesh does.
func (f *fake) RTT(a, b string) (time.Duration, error) {
	return catalog.RTT(f.Snapshot(a), f.Snapshot(b))
}

// other adds the record of another node, and returns its owner's map.
func (f *fake) other(t testing.TB, name string, l record.Liveness, changes ...record.Assignment) *record.Map {
	t.Helper()
	m := record.NewMap(name, 3)
	f.change(t, m, changes...)
	if l != record.Unknown {
		f.SetLiveness(time.Now().Add(-time.Minute), name, l)
	}
	return m
}

// newsAge is how long ago the fake says that news came.
const newsAge = 10 * time.Second

// change has the owner of a record change it, and brings the news here.
func (f *fake) change(t testing.TB, m *record.Map, changes ...record.Assignment) {
	t.Helper()
	m.Set(time.Now(), changes...)
	if _, err := f.Apply(time.Now().Add(-newsAge), m.Delta(m.Self(), 0)); err != nil {
		t.Fatal(err)
	}
}

func set(t testing.TB, key string, m proto.Message) record.Assignment {
	t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return record.Assignment{Key: key, Value: value}
}

func agentNode(host string) *catalog.Node {
	return &catalog.Node{
		Roles: []string{catalog.RoleAgent}, Hostname: host, Address: "10.0.0.9", Port: 5051, AgentId: "a", Version: "1.0", Zone: "cellar",
	}
}

// serve runs the endpoints on a real listener, and returns its address and what stops it.
func serve(t testing.TB, m Mesh) (base string, stop func()) {
	t.Helper()
	app := server.NewApp(server.Options{Process: "slave(1)", Grace: time.Hour}) // what does not end by itself is not cut off
	Mount(m)(app)
	app.Use(func(*fiber.Ctx) error { return fiber.ErrNotFound })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, app, l) }()
	stop = func() {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			if err != nil {
				t.Errorf("Serve = %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not stop: something goes on")
		}
	}
	t.Cleanup(stop)
	return "http://" + l.Addr().String(), stop
}

func request(t testing.TB, method, url string, v any) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if v != nil {
		if err := json.Unmarshal(body, v); err != nil {
			t.Fatalf("%s: %v: %s", url, err, body)
		}
	}
	return res.StatusCode, string(body)
}

func TestMembersTellWhatIsKnown(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	f.Set(time.Now(), set(t, catalog.KeyNode, &catalog.Node{Roles: []string{catalog.RoleMaster}, Hostname: "m", Address: "10.0.0.1", Port: 5050}),
		set(t, catalog.KeyLeader, &catalog.Leader{Epoch: 4, Address: "10.0.0.1", Port: 5050}))
	f.other(t, "edge1", record.Alive, set(t, catalog.KeyNode, agentNode("edge1.example")),
		set(t, catalog.KeyResources, &catalog.Resources{
			Total: []*catalog.Resource{{Name: "cpus", Milli: 4000}, {Name: "mem", Milli: 1024000}},
			Free: []*catalog.Resource{
				{Name: "cpus", Milli: 1500},
				{Name: "cpus", Milli: 500, Reservations: []*catalog.Reservation{{Role: "db"}}},
				{Name: "cpus", Milli: 9000, Extra: []byte{1}},
				{Name: "mem", Milli: 512000},
				{Name: "disk", Milli: 7000},
				{Name: "ports", Kind: catalog.Kind_RANGES, Ranges: []*catalog.Range{{Begin: 31000, End: 31009}, {Begin: 5, End: 4}, {Begin: 0, End: 1 << 63}}},
			},
		}),
		set(t, catalog.KeyHealth, &catalog.Health{Draining: true, Problems: []string{"disk is full"}}),
		set(t, catalog.TaskKey("f", "t1"), &catalog.Task{}), set(t, catalog.TaskKey("f", "t2"), &catalog.Task{}))
	f.other(t, "heard", record.Unknown, record.Assignment{Key: catalog.KeyNode, Value: []byte{0xff}})
	long := record.NewMap("heard long ago", 3)
	long.Set(time.Now(), record.Assignment{Key: "k", Value: []byte("v")})
	if _, err := f.Apply(time.Now().Add(-heardFor), long.Delta(long.Self(), 0)); err != nil {
		t.Fatal(err)
	}
	f.other(t, "gone", record.Left)
	f.other(t, "doubt", record.Suspect)
	base, _ := serve(t, f)
	var list []Member
	if status, body := request(t, "GET", base+"/mesh/members", &list); status != 200 || len(list) != 6 {
		t.Fatalf("%d %s, want 200 and six members", status, body)
	}
	by := map[string]Member{}
	for _, m := range list {
		by[m.Name] = m
	}
	for name, want := range map[string]struct {
		state, address string
		seen           bool
		version        uint64
	}{
		"self": {"alive", "10.0.0.1:7946", true, 2}, "edge1": {"alive", "10.0.0.1:7946", true, 5}, "heard": {"suspect", "", false, 1},
		"heard long ago": {"dead", "", false, 1},
		"gone":           {"left", "10.0.0.1:7946", true, 0}, "doubt": {"suspect", "10.0.0.1:7946", true, 0},
	} {
		got := by[name]
		if got.State != want.state || got.Address != want.address || got.Seen != want.seen || got.Version != want.version || got.Self != (name == "self") {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	for name, m := range by {
		if m.Damped != (name == "gone") || m.DampedUntil.IsZero() == m.Damped {
			t.Errorf("%s is damped: %v, until %v", name, m.Damped, m.DampedUntil)
		}
	}
	e := by["edge1"]
	if e.Free == nil || *e.Free != (Resources{CPUs: 2, Mem: 512, Disk: 7, Ports: 10}) || e.Total == nil || e.Total.CPUs != 4 {
		t.Errorf("edge1 has free %+v of %+v", e.Free, e.Total)
	}
	if e.APIAddress != "10.0.0.9:5051" || e.Hostname != "edge1.example" || e.Zone != "cellar" || e.Tasks != 2 || !e.Draining || len(e.Problems) != 1 || e.Generation != 3 {
		t.Errorf("edge1 is %+v", e)
	}
	if since := time.Since(e.Since); e.Age < 10 || e.Age > 40 || since < time.Minute || since > 2*time.Minute {
		t.Errorf("edge1's age is %v s, its state of %v ago, want 10 s and a minute", e.Age, since)
	}
	if l := by["self"].Leader; l == nil || *l != (Leader{4, "10.0.0.1:5050"}) {
		t.Errorf("leader %+v, want epoch 4", l)
	}
	if by["heard"].Roles == nil || len(by["heard"].Roles) != 0 {
		t.Errorf("roles of a record that does not decode: %v, want an empty list", by["heard"].Roles)
	}
}

// However many ask, the list is not made more often than a few times a second.
func TestMembersAreEncodedForAllWhoAsk(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	a := &api{mesh: f}
	now := time.Now()
	first, err := a.encoded(now)
	if err != nil {
		t.Fatal(err)
	}
	f.other(t, "new", record.Alive)
	if again, err := a.encoded(now.Add(membersFor - 1)); err != nil || &again[0] != &first[0] {
		t.Errorf("a moment later: %s, %v, want the same answer", again, err)
	}
	if later, err := a.encoded(now.Add(membersFor)); err != nil || !strings.Contains(string(later), `"new"`) || strings.Contains(string(first), `"new"`) {
		t.Errorf("later: %s, %v, want what has changed; before: %s", later, err, first)
	}
}

func TestNodeShowsItsWholeRecord(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	yes := true
	f.other(t, "edge1-abc", record.Alive, set(t, catalog.KeyNode, agentNode("edge1.example")),
		set(t, catalog.TaskKey("f", "t1"), &catalog.Task{TaskId: "t1", Name: "web", State: 1, Healthy: &yes, FrameworkName: "marathon"}),
		record.Assignment{Key: "new", Value: []byte("abc")}, record.Assignment{Key: "large", Value: make([]byte, maxBytes+1)},
		record.Assignment{Key: catalog.KeyHealth, Value: []byte{0xff}}, record.Assignment{Key: "was", Value: []byte("x")},
		record.Assignment{Key: "was"})
	base, _ := serve(t, f)
	var n Node
	status, body := request(t, "GET", base+"/mesh/nodes/edge1-abc", &n)
	if status != 200 || n.Name != "edge1-abc" || n.Hostname != "edge1.example" || len(n.Keys) != 5 {
		t.Fatalf("%d %s", status, body)
	}
	by := map[string]Key{}
	for _, k := range n.Keys {
		by[k.Key] = k
	}
	if k := by["task/f/t1"]; k.Version != 2 || !strings.Contains(k.Summary, "TASK_RUNNING healthy web of marathon") || !strings.Contains(string(k.Value), `"task_id":"t1"`) {
		t.Errorf("task: %+v %s", k, k.Value)
	}
	if k := by["new"]; string(k.Bytes) != "abc" || k.Size != 3 || k.Value != nil {
		t.Errorf("unknown key: %+v", k)
	}
	if k := by["large"]; k.Bytes != nil || k.Size != maxBytes+1 {
		t.Errorf("large unknown key: %+v", k)
	}
	if k := by["health"]; k.Problem == "" || len(k.Bytes) != 1 {
		t.Errorf("value that does not decode: %+v", k)
	}
}

func TestNodesAreFoundByWhatPeopleType(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	f.other(t, "edge1-abc", record.Alive, set(t, catalog.KeyNode, agentNode("one.example")))
	f.other(t, "edge2", record.Alive, set(t, catalog.KeyNode, agentNode("twin.example")))
	f.other(t, "edge2-b", record.Alive, set(t, catalog.KeyNode, agentNode("twin.example")))
	f.other(t, "odd/\x1b[2Jname", record.Alive)
	base, _ := serve(t, f)
	for _, tc := range []struct {
		asked  string
		status int
		want   string
	}{
		{"edge1-abc", 200, `"name":"edge1-abc"`},
		{"edge1", 200, `"name":"edge1-abc"`},
		{"one.example", 200, `"name":"edge1-abc"`},
		{"edge2", 200, `"name":"edge2"`},
		{"odd%2F%1b%5B2Jname", 200, `"name":"odd/\u001b[2Jname"`},
		{"edge", 404, `"edge" can be any of 3 nodes; the nearest are "edge1-abc" ("one.example"), `},
		{"twin.example", 404, `"twin.example" can be any of 2 nodes; the nearest are "edge2" ("twin.example"), "edge2-b"`},
		{"edge3", 404, `no node "edge3" is known here; the nearest are "edge1-abc"`},
		{"zzz", 404, `no node "zzz" is known here`},
	} {
		if status, body := request(t, "GET", base+"/mesh/nodes/"+tc.asked, nil); status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %s; want %d with %s", tc.asked, status, body, tc.status, tc.want)
		}
	}
}

func TestRTTBetweenNodes(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	f.Set(time.Now(), set(t, catalog.KeyCoordinate, &catalog.Coordinate{Vector: []int32{0}}))
	f.other(t, "edge1", record.Alive, set(t, catalog.KeyNode, agentNode("one.example")), set(t, catalog.KeyCoordinate, &catalog.Coordinate{Vector: []int32{-4000}}))
	f.other(t, "edge2", record.Alive, set(t, catalog.KeyCoordinate, &catalog.Coordinate{Vector: []int32{8250}, Height: 50}))
	f.other(t, "new", record.Alive)
	base, _ := serve(t, f)
	for query, want := range map[string]RTT{
		"a=edge1&b=edge2":       {"edge1", "edge2", 0.0123},
		"a=one.example&b=edge2": {"edge1", "edge2", 0.0123},
		"b=edge1":               {"self", "edge1", 0.004},
		"a=edge1":               {"edge1", "self", 0.004},
		"":                      {"self", "self", 0},
	} {
		var got RTT
		if status, body := request(t, "GET", base+"/mesh/rtt?"+query, &got); status != 200 || got != want {
			t.Errorf("%q: %d %s, want %+v", query, status, body, want)
		}
	}
	var places []Place
	want := []Place{
		{Name: "edge1", Hostname: "one.example", AgentID: "a", Coordinate: json.RawMessage(`{"vector":[-4000],"height":0,"adjustment":0,"error":0}`)},
		{Name: "edge2", Coordinate: json.RawMessage(`{"vector":[8250],"height":50,"adjustment":0,"error":0}`)},
		{Name: "self", Coordinate: json.RawMessage(`{"vector":[0],"height":0,"adjustment":0,"error":0}`)},
	}
	if status, body := request(t, "GET", base+"/mesh/places", &places); status != 200 || !cmp.Equal(places, want) {
		t.Errorf("places: %d %s, want %s", status, body, want)
	}
	for query, want := range map[string]string{
		"a=edge1&b=nobody": `no node "nobody" is known here`, "a=nobody": `no node "nobody" is known here`, "b=new": "no network coordinate yet",
	} {
		if status, body := request(t, "GET", base+"/mesh/rtt?"+query, nil); status != 404 || !strings.Contains(body, want) {
			t.Errorf("%q: %d %s, want 404 with %q", query, status, body, want)
		}
	}
}

func TestOnlyReadingIsAllowed(t *testing.T) {
	base, _ := serve(t, newFake(t, "self", record.Limits{}))
	for _, path := range []string{"/mesh/members", "/mesh/nodes/self", "/mesh/rtt", "/slave(1)/mesh/members"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
			if status, body := request(t, method, base+path, nil); status != 405 || !strings.Contains(body, "405 Method Not Allowed") {
				t.Errorf("%s %s: %d %s, want 405", method, path, status, body)
			}
		}
		if status, body := request(t, "HEAD", base+path, nil); status != 200 || body != "" {
			t.Errorf("HEAD %s: %d %q, want 200 without a body", path, status, body)
		}
	}
	for _, path := range []string{"/mesh", "/mesh/", "/mesh/nodes", "/mesh/nodes/", "/mesh/else"} {
		if status, _ := request(t, "GET", base+path, nil); status != 404 {
			t.Errorf("GET %s: %d, want 404", path, status)
		}
	}
}

// BenchmarkMembers is what one look at a mesh of 1,000 agents costs the node that is asked. Budget: 20 ms, with nothing
// locked meanwhile.
func BenchmarkMembers(b *testing.B) {
	f := newFake(b, "self", record.Limits{})
	for i := range 1000 {
		f.other(b, "node"+string(rune('a'+i%26))+time.Duration(i).String(), record.Alive, set(b, catalog.KeyNode, agentNode("host.example")),
			set(b, catalog.KeyResources, &catalog.Resources{
				Total: []*catalog.Resource{{Name: "cpus", Milli: 4000}, {Name: "mem", Milli: 1024000}, {Name: "disk", Milli: 1024000}},
				Free:  []*catalog.Resource{{Name: "cpus", Milli: 4000}, {Name: "mem", Milli: 1024000}, {Name: "disk", Milli: 1024000}},
			}),
			set(b, catalog.TaskKey("f", "t1"), &catalog.Task{TaskId: "t1"}), set(b, catalog.TaskKey("f", "t2"), &catalog.Task{TaskId: "t2"}))
	}
	a := &api{mesh: f}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := encode(a.list(time.Now())); err != nil {
			b.Fatal(err)
		}
	}
}
