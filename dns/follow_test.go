package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// followed makes a follower of a mesh that a test drives by hand: nothing runs but what it calls.
func followed(t testing.TB, m Source, change func(*Config)) *follower {
	t.Helper()
	c := Config{Source: m, Self: "reader", Zone: records.DefaultConfig(), Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	f := newFollower(s)
	f.begin()
	return f
}

// catchUp takes in all that the feed has.
func (f *follower) catchUp(t testing.TB) (lagged bool) {
	t.Helper()
	now, cancel := context.WithCancel(context.Background())
	cancel() // what is there is returned all the same
	for {
		changes, err := f.feed.Next(now)
		switch {
		case errors.Is(err, record.ErrLagged):
			lagged = true
			f.readAll()
		case errors.Is(err, context.Canceled):
			return lagged
		case err != nil:
			t.Fatal(err)
		default:
			f.take(changes)
		}
	}
}

// dump lists what a zone answers, sorted.
func dump(z *records.Zone) []string {
	var list []string
	for r := range z.All() {
		list = append(list, fmt.Sprintln(r.Name, r.Type, r.Addr, r.Target, r.Port))
	}
	slices.Sort(list)
	return list
}

func (f *follower) addrs(name string) string {
	found, _ := f.zone.Lookup(name + ".mesos.")
	var list []string
	for _, r := range found {
		if r.Type == records.A || r.Type == records.AAAA {
			list = append(list, r.Addr.String())
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func (f *follower) wantAddrs(t *testing.T, when string, want map[string]string) {
	t.Helper()
	for name, addrs := range want {
		if got := f.addrs(name); got != addrs {
			t.Errorf("%s: %s has %q, want %q", when, name, got, addrs)
		}
	}
}

// restart begins a new life of a node, with what its record holds then.
func (m *mesh) restart(t testing.TB, node string, keys map[string]proto.Message) {
	t.Helper()
	generation := uint64(1)
	if s := m.Snapshot(node); s != nil {
		generation = s.Generation() + 1
	}
	owner := record.NewMap(node, generation)
	m.owners[node] = owner
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		value, err := proto.Marshal(keys[key])
		if err != nil {
			t.Fatal(err)
		}
		owner.Set(epoch, record.Assignment{Key: key, Value: value})
	}
	if _, err := m.Apply(epoch, owner.Delta(node, 0)); err != nil {
		t.Fatal(err)
	}
}

// Whatever happens in the mesh, and however far behind the follower is, its zone is the one that is made of the same records from nothing.
func TestTheZoneIsThatOfTheSnapshots(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newMesh(t)
	m.Map = record.NewMap("reader", 1, record.WithLimits(record.Limits{Changes: 10}))
	random := func(n int) string { return fmt.Sprint(rng.IntN(n)) }
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	nodeInfo := func(node string) *catalog.Node {
		return &catalog.Node{
			Roles: []string{pick(catalog.RoleAgent, catalog.RoleAgent, catalog.RoleMaster)}, Hostname: pick("edge1", "edge2.example", "10.0.0.1", node, "!"),
			Address: pick("10.0.0."+random(6), "10.0.0.9", "fd00::"+random(3), "none", ""), Port: 5050 + rng.Uint32N(2), AgentId: node, Zone: pick("", "a", "b"),
		}
	}
	anyTask := func(id string) *catalog.Task {
		x := task("web."+id, pick2(rng, taskRunning, taskRunning, taskRunning, 2, 8), 31000+rng.Uint32N(3))
		x.Name = pick("web", "db", "Web", "c.b.a", "!")
		if rng.IntN(3) == 0 {
			x.Discovery = nil
		} else {
			x.Discovery.Name = x.Name
		}
		x.Checked = rng.IntN(2) == 0
		if rng.IntN(2) == 0 {
			x.Healthy, x.WasHealthy = proto.Bool(rng.IntN(2) == 0), rng.IntN(2) == 0
		}
		if rng.IntN(3) == 0 {
			x.Addresses, x.Published = []string{"172.17.0." + random(4), "fd00:1::" + random(2)}, rng.IntN(2) == 0
		}
		return x
	}
	nodes := []string{"x-S0", "x-S1", "x-S2", "x-S3", "x-S4"}
	for _, n := range nodes {
		m.set(n, catalog.KeyNode, nodeInfo(n))
	}
	m.set("x-S0", catalog.PrefixFramework, &catalog.Frameworks{Epoch: 3})
	f := followed(t, m, nil)
	f.returnPatience = 0 // who was there before is not for a zone that is made afresh
	lags := 0
	for step := range 250 {
		for range 1 + rng.IntN(6)*rng.IntN(6) {
			node, id := nodes[rng.IntN(len(nodes))], random(5)
			key := catalog.TaskKey("f", "web."+id)
			switch rng.IntN(20) {
			case 0:
				if node != nodes[0] { // one lives always, lest the follower take itself for cut off
					m.SetLiveness(epoch, node, []record.Liveness{record.Suspect, record.Dead, record.Left}[rng.IntN(3)])
				}
			case 1, 2, 3:
				m.SetLiveness(epoch, node, record.Alive)
			case 4:
				if node != nodes[0] {
					m.restart(t, node, map[string]proto.Message{catalog.KeyNode: nodeInfo(node), key: anyTask(id)})
				}
			case 5:
				m.set(node, catalog.KeyNode, nodeInfo(node))
			case 6:
				m.set(node, catalog.KeyLeader, &catalog.Leader{Epoch: uint64(rng.IntN(100)), Address: "10.0.0." + random(4), Port: 5050})
			case 7:
				m.set(node, catalog.KeyLeader, nil)
			case 8:
				m.raw(node, key, []byte("\xff"))
			case 9, 10:
				m.set(node, key, nil)
			case 11:
				m.set("x-S0", catalog.PrefixFramework+random(3), &catalog.Framework{Name: pick("marathon", "chronos.x", ""), Addresses: []string{"10.0.5." + random(3)}})
			case 12:
				m.set("x-S0", catalog.PrefixFramework+random(3), nil)
			default:
				m.set(node, key, anyTask(id))
			}
		}
		if f.catchUp(t) {
			lags++
		}
		fresh := followed(t, m, nil)
		if got, want := dump(f.zone), dump(fresh.zone); !slices.Equal(got, want) {
			t.Fatalf("step %d: the zone has\n%v\nbut lacks\n%v", step, without(got, want), without(want, got))
		}
		if len(f.groups) != len(fresh.groups) || len(f.labels) != len(fresh.labels) || len(f.nodes) != len(fresh.nodes) || len(f.ranker.owners) != len(fresh.ranker.owners) {
			t.Fatalf("step %d: kept are %d names, %d labels, %d nodes, %d owners, want %d, %d, %d, %d", step, len(f.groups), len(f.labels), len(f.nodes),
				len(f.ranker.owners), len(fresh.groups), len(fresh.labels), len(fresh.nodes), len(fresh.ranker.owners))
		}
	}
	if lags == 0 {
		t.Error("the follower has never lagged: the test does not test that")
	}
	for _, n := range nodes {
		m.SetLiveness(epoch, n, record.Left)
	}
	m.Reap(epoch.Add(time.Hour), time.Minute)
	f.catchUp(t)
	for _, line := range dump(f.zone) {
		// The names of frameworks outlive whoever told them.
		if !strings.HasPrefix(line, "marathon.") && !strings.HasPrefix(line, "chronos.x.") {
			t.Errorf("with nobody left there is %s", line)
		}
	}
	if len(f.groups)+len(f.labels)+len(f.ranker.owners) > 0 {
		t.Errorf("with nobody left %d names, %d labels and %d owners are kept", len(f.groups), len(f.labels), len(f.ranker.owners))
	}
}

func pick2(rng *rand.Rand, list ...int32) int32 { return list[rng.IntN(len(list))] }

func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}
