package catalog

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"starling/gossip/record"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// messages holds one message of each kind with every field set.
func messages() map[string]proto.Message {
	ports := []*Range{{Begin: 31000, End: 31005}, {Begin: 32000, End: 32000}}
	resources := []*Resource{
		{Name: "cpus", Milli: 4500, Reservations: []*Reservation{{Role: "a", Dynamic: true, Principal: "p", Labels: []*Label{{Key: "k", Value: "v"}}}, {Role: "a/b"}}},
		{Name: "ports", Kind: Kind_RANGES, Ranges: ports},
		{Name: "gpu-models", Kind: Kind_SET, Items: []string{"x", "y"}, Extra: []byte{1, 2}},
	}
	return map[string]proto.Message{
		"node": &Node{
			Roles: []string{RoleAgent, RoleDNS}, Hostname: "h1", Address: "10.0.0.1", Port: 5051, AgentId: "8f14e45f-S0",
			Attributes: []*Attribute{{Name: "rack", Kind: Kind_TEXT, Text: "r1"}, {Name: "slots", Milli: -1500}, {Name: "r", Kind: Kind_RANGES, Ranges: ports}, {Name: "s", Kind: Kind_SET, Items: []string{"i"}}},
			Region:     "eu", Zone: "eu-1", Version: "0.1.0", Started: 1793534400000000000, Capabilities: []string{"X"},
		},
		"resources": &Resources{Total: resources, Free: resources[:1]},
		"health":    &Health{Draining: true, Problems: []string{"the disk of /var is full"}},
		"task": &Task{
			TaskId: "web.1", FrameworkId: "f-0001", FrameworkName: "marathon", ExecutorId: "e", Name: "web", State: 1, Healthy: proto.Bool(false),
			Addresses: []string{"172.17.0.2", "fd00::2"}, Resources: resources, Role: "a/b", ContainerId: "c", Launched: 1793534400000000001, Checked: true,
			Discovery: &Discovery{Name: "web", Visibility: 2, Environment: "prod", Location: "l", Version: "1", Ports: []*Port{{Number: 31000, Name: "http", Protocol: "tcp"}}},
		},
		"task-addresses": &Task{
			TaskId: "web.1", FrameworkId: "f-0001", FrameworkName: "marathon", Name: "web", State: 1, Healthy: proto.Bool(true), Addresses: []string{"172.17.0.2"},
			Checked: true, Published: true, MesosAddresses: []string{"10.9.0.1"}, DockerAddresses: []string{"172.17.0.2", "fd00::2"},
			WasHealthy: true, Changed: 1793534400,
		},
		"framework":  &Framework{Name: "marathon", Addresses: []string{"10.0.0.9", "fd00::9"}, Port: 31500},
		"frameworks": &Frameworks{Epoch: 7, Count: 2},
		"executor": &Executor{
			FrameworkId: "f-0001", ExecutorId: "e", Resources: resources, Role: "a/b", ContainerId: "c", Launched: 1793534400000000001,
		},
		"coord":  &Coordinate{Vector: []int32{-40000, 12, 0, 1, -1, 300, 7, 40000}, Height: 10, Adjustment: -25, Error: 120},
		"keys":   &Keys{Serial: 300, Fingerprints: [][]byte{{1, 2, 3, 4, 5, 6, 7, 8}, {0xff, 2, 3, 4, 5, 6, 7, 8}}},
		"leader": &Leader{Epoch: 7, Hostname: "m1", Address: "10.0.0.9", Port: 5050, MasterId: "m"},
	}
}

// TestGolden holds the encoding of every message to what releases have written, and reads it back.
func TestGolden(t *testing.T) {
	for name, m := range messages() {
		wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", "v1-"+name+".hex")
		if *update {
			if err := os.WriteFile(file, []byte(hex.Dump(wire)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), hex.Dump(wire)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		got := m.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(wire, got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(m, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestFieldsOfLaterReleasesAreKept reads a message with a field that this release does not know, and writes it again.
func TestFieldsOfLaterReleasesAreKept(t *testing.T) {
	wire, err := proto.Marshal(&Health{Draining: true})
	if err != nil {
		t.Fatal(err)
	}
	wire = append(wire, 0xfa, 0x07, 3, 'n', 'e', 'w') // field 127, bytes
	var h Health
	if err := proto.Unmarshal(wire, &h); err != nil {
		t.Fatal(err)
	}
	again, err := proto.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(wire) {
		t.Errorf("wrote %x, want %x", again, wire)
	}
}

// The value of a later release, which has fields that this one does not know, passes through two nodes of this release byte for byte, and
// what is read of it is written again with all of them.
func TestValuesOfLaterReleasesSurviveTwoHops(t *testing.T) {
	for name, m := range messages() {
		wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, 0xfa, 0x07, 3, 'n', 'e', 'w')             // field 127, bytes
		wire = append(wire, 0xf5, 0x07, 1, 2, 3, 4, 0xf0, 0x07, 0x96) // field 126, 32 bits and a number
		wire = append(wire, 1)
		hops := []*record.Map{record.NewMap("later", 1), record.NewMap("b", 1), record.NewMap("c", 1)}
		now := time.Unix(0, 0)
		hops[0].Set(now, record.Assignment{Key: name, Value: wire})
		for i := range 2 {
			if _, err := hops[i+1].Apply(now, hops[i].Entries(nil, "later", 1, []string{name})); err != nil {
				t.Fatal(err)
			}
		}
		got, _ := hops[2].Snapshot("later").Get(name)
		if string(got) != string(wire) {
			t.Errorf("%s came through as %x, want %x", name, got, wire)
		}
		read := m.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(got, read); err != nil {
			t.Fatal(err)
		}
		if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(read); err != nil || string(again) != string(wire) {
			t.Errorf("%s was written again as %x (%v), want %x", name, again, err, wire)
		}
	}
}

func TestTaskKeys(t *testing.T) {
	key := TaskKey("f-0001", "web.1")
	if key != "task/f-0001/web.1" {
		t.Errorf("key %q", key)
	}
	for _, c := range []struct {
		key, framework, task string
		ok                   bool
	}{
		{key, "f-0001", "web.1", true},
		{"task/f/a/b", "f", "a/b", true}, // ids have no slashes; whatever comes, it is taken apart at the first
		{"task/f", "f", "", false},
		{"task", "", "", false},
		{"node", "", "", false},
		{"", "", "", false},
	} {
		framework, task, ok := ParseTaskKey(c.key)
		if framework != c.framework || task != c.task || ok != c.ok {
			t.Errorf("%q: %q, %q, %v; want %q, %q, %v", c.key, framework, task, ok, c.framework, c.task, c.ok)
		}
	}
}

func TestWhatTasksDoAndWhoLeadsDoesNotWait(t *testing.T) {
	for key, want := range map[string]bool{KeyResources: true, KeyHealth: true, KeyNode: true, KeyLeader: false, TaskKey("f", "t"): false} {
		if got := MayWait(key); got != want {
			t.Errorf("MayWait(%q) is %v, want %v", key, got, want)
		}
	}
}
