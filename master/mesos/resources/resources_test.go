package resources_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

func parse(t testing.TB, s string) resources.Resources {
	t.Helper()
	r, err := resources.Parse(s, "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// protos reads resources from protobuf's text form, one a line.
func protos(t testing.TB, lines ...string) []*mesos.Resource {
	t.Helper()
	var all []*mesos.Resource
	for _, l := range lines {
		p := &mesos.Resource{}
		if err := (prototext.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(l), p); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		all = append(all, p)
	}
	return all
}

func from(t testing.TB, lines ...string) resources.Resources {
	t.Helper()
	r, err := resources.FromProto(protos(t, lines...))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func Example() {
	agent, _ := resources.Parse("cpus:4;mem:4096;ports:[31000-31009];disk(db):100", "")
	task, _ := resources.Parse("cpus:0.5;mem:128;ports:[31002-31002]", "")
	if agent.Contains(task) {
		left := agent.Sub(task)
		fmt.Println(left)
		fmt.Println(left.Unreserved().Scalar(resources.CPUs), left.Ports())
	}
	// Output:
	// cpus:3.5; disk(reservations: [(STATIC,db)]):100; mem:3968; ports:[31000-31001, 31003-31009]
	// 3.5 [31000-31001 31003-31009]
}

func TestParse(t *testing.T) {
	for _, tc := range []struct{ name, in, role, want string }{
		{"nothing", "", "", "{}"},
		{"scalars", "cpus:4;mem:4096", "", "cpus:4; mem:4096"},
		{"blanks, line feeds and empty parts", " cpus : 4 ;\n\nmem:\t 1 ; ", "", "cpus:4; mem:1"},
		{"three decimals", "cpus:0.1234;mem:0.0004", "", "cpus:0.123"},
		{"ranges", "ports:[31000 - 31001, 31002-31003,5-5]", "", "ports:[5-5, 31000-31003]"},
		{"sets", "bugs:{b, a}", "", "bugs:{a, b}"},
		{"roles", "disk(db):100;disk(*):1", "", "disk:1; disk(reservations: [(STATIC,db)]):100"},
		{"a default role", "cpus:1;mem(*):2", "web", "cpus(reservations: [(STATIC,web)]):1; mem:2"},
		{"a role with colons", "cpus(a:b):1", "", "cpus(reservations: [(STATIC,a:b)]):1"},
		{"the same twice is added", "cpus:1;cpus:2.5", "", "cpus:3.5"},
		{"nothing of something", "cpus:0;ports:[];bugs:{}", "", "{}"},
		{"JSON", `[{"name":"cpus","type":"SCALAR","scalar":{"value":2}}]`, "", "cpus:2"},
		{"JSON with the default role", `[{"name":"cpus","type":"SCALAR","scalar":{"value":2}}]`, "web", "cpus(reservations: [(STATIC,web)]):2"},
		{
			"JSON with roles of its own",
			` [{"name":"cpus","type":"SCALAR","scalar":{"value":"2"},"role":"*"},
			   {"name":"cpus","type":"SCALAR","scalar":{"value":3},"reservations":[{"type":"DYNAMIC","role":"db","principal":"ops"}]}]`,
			"web", "cpus:2; cpus(reservations: [(DYNAMIC,db,ops)]):3",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := resources.Parse(tc.in, tc.role)
			if err != nil || r.String() != tc.want {
				t.Errorf("Parse(%q, %q) = %v, %v; want %s", tc.in, tc.role, r, err, tc.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"cpus":                         `resource "cpus": expected name:value`,
		"cpus:":                        `resource "cpus:": the value is empty`,
		":4":                           `resource "": the name is empty`,
		"cpus:many":                    `resource "cpus:many": "many" is neither a number, nor ranges like [1-5], nor a set like {a,b}`,
		"cpus:-1":                      `resource "cpus": the scalar -1 is negative`,
		"cpus:1e300":                   `resource "cpus": the scalar 1e+300 is not a number up to 9007199254739`,
		"gpus:0.5":                     `resource "gpus": 0.5 is not a whole number, and there are no parts of GPUs`,
		"cpus:[1-2]":                   `resource "cpus": must be of the type SCALAR, not RANGES`,
		"ports:31000":                  `resource "ports": must be of the type RANGES, not SCALAR`,
		"ports:[31000]":                `resource "ports:[31000]": the range "31000" is not of the form 31000-32000`,
		"ports:[1-2":                   `resource "ports:[1-2": the ranges "[1-2" do not end with ']'`,
		"ports:[2-1]":                  `resource "ports": the range 2-1 begins behind its end`,
		"ports:[1-5,5-9]":              `resource "ports": the ranges 1-5 and 5-9 overlap`,
		"ports:[-5-9]":                 `resource "ports:[-5-9]": the range "-5-9" is not of the form 31000-32000`,
		"bugs:{a,a}":                   `resource "bugs": the set holds "a" twice`,
		"bugs:{a":                      `resource "bugs:{a": the set "{a" does not end with '}'`,
		"cpus(:4":                      `resource "cpus(:4": expected name(role):value`,
		"cpus():4":                     `resource "cpus():4": the role is empty`,
		"cpus(a//b):4":                 `resource "cpus(a//b):4": role "a//b" has two slashes in a row`,
		"cpus:x;mem:y":                 `resource "cpus:x": "x" is neither a number, nor ranges like [1-5], nor a set like {a,b}; resource "mem:y": "y" is neither a number, nor ranges like [1-5], nor a set like {a,b}`,
		`[{"name":"cpus"}`:             "resources are not a JSON array: unexpected end of JSON input",
		`[{"name":"cpus"}]`:            "resource 0: Missing required fields: type",
		`[{"name":"x","type":"TEXT"}]`: `resource "x": the type TEXT is not one of SCALAR, RANGES and SET`,
	} {
		r, err := resources.Parse(in, "")
		if err == nil || err.Error() != want {
			t.Errorf("Parse(%q) = %v, %v\nwant %s", in, r, err, want)
		}
		if _, ok := errors.AsType[*resources.InvalidError](err); !ok {
			t.Errorf("Parse(%q) gives a %T", in, err)
		}
	}
}

func TestFormats(t *testing.T) {
	const cpus = `name:"cpus" type:SCALAR scalar{value:1}`
	for _, tc := range []struct {
		name                     string
		in                       string
		refined, older, endpoint string
	}{
		{
			name: "unreserved, old", in: cpus + ` role:"*"`,
			refined: cpus, older: cpus + ` role:"*"`, endpoint: cpus + ` role:"*"`,
		},
		{
			name: "unreserved, refined", in: cpus,
			refined: cpus, older: cpus + ` role:"*"`, endpoint: cpus + ` role:"*"`,
		},
		{
			name: "static, old", in: cpus + ` role:"eng"`,
			refined:  cpus + ` reservations{type:STATIC role:"eng"}`,
			older:    cpus + ` role:"eng"`,
			endpoint: cpus + ` role:"eng" reservations{type:STATIC role:"eng"}`,
		},
		{
			name: "dynamic, old", in: cpus + ` role:"eng" reservation{principal:"p" labels{labels{key:"k"}}}`,
			refined:  cpus + ` reservations{type:DYNAMIC role:"eng" principal:"p" labels{labels{key:"k"}}}`,
			older:    cpus + ` role:"eng" reservation{principal:"p" labels{labels{key:"k"}}}`,
			endpoint: cpus + ` role:"eng" reservation{principal:"p" labels{labels{key:"k"}}} reservations{type:DYNAMIC role:"eng" principal:"p" labels{labels{key:"k"}}}`,
		},
		{
			name: "both at once, as operators see it", in: cpus + ` role:"eng" reservation{} reservations{type:DYNAMIC role:"eng"}`,
			refined:  cpus + ` reservations{type:DYNAMIC role:"eng"}`,
			older:    cpus + ` role:"eng" reservation{}`,
			endpoint: cpus + ` role:"eng" reservation{} reservations{type:DYNAMIC role:"eng"}`,
		},
		{
			name: "refined", in: cpus + ` reservations{type:STATIC role:"eng"} reservations{type:DYNAMIC role:"eng/web"} allocation_info{role:"eng/web"}`,
			refined:  cpus + ` reservations{type:STATIC role:"eng"} reservations{type:DYNAMIC role:"eng/web"} allocation_info{role:"eng/web"}`,
			older:    "",
			endpoint: cpus + ` reservations{type:STATIC role:"eng"} reservations{type:DYNAMIC role:"eng/web"} allocation_info{role:"eng/web"}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := from(t, tc.in)
			for what, pair := range map[string]struct {
				got  []*mesos.Resource
				want string
			}{"refined": {r.Proto(), tc.refined}, "older": {r.ProtoPreRefinement(), tc.older}, "endpoint": {r.ProtoEndpoint(), tc.endpoint}} {
				var want []*mesos.Resource
				if pair.want != "" {
					want = protos(t, pair.want)
				}
				if !slices.EqualFunc(pair.got, want, func(a, b *mesos.Resource) bool { return proto.Equal(a, b) }) {
					t.Errorf("%s: %v, want %v", what, pair.got, want)
				}
				again, err := resources.FromProto(pair.got)
				if err != nil || pair.want != "" && !again.Equal(r) {
					t.Errorf("%s reads as %v, %v; want %v", what, again, err, r)
				}
			}
		})
	}
}

func TestFromProtoRefuses(t *testing.T) {
	const cpus = `name:"cpus" type:SCALAR scalar{value:1} `
	const disk = `name:"disk" type:SCALAR scalar{value:1} `
	const volume = disk + `disk{persistence{id:"v"} volume{mode:RW container_path:"d"}} `
	for in, want := range map[string]string{
		`type:SCALAR scalar{value:1}`:                             `resource "": the name is empty`,
		"name:\"a\\nb\" type:SCALAR scalar{value:1}":              `resource "a\nb": the name has a control character`,
		`name:"x" scalar{value:1}`:                                `resource "x": the type is missing`,
		`name:"x" type:SCALAR`:                                    `resource "x": type SCALAR wants just the field 'scalar'`,
		`name:"x" type:RANGES scalar{value:1}`:                    `resource "x": type RANGES wants just the field 'ranges'`,
		cpus + `set{}`:                                            `resource "cpus": type SCALAR wants just the field 'scalar'`,
		`name:"x" type:SCALAR scalar{value:nan}`:                  `resource "x": the scalar NaN is not a number up to 9007199254739`,
		cpus + `role:"a b"`:                                       `resource "cpus": role "a b" has a blank or a control character`,
		cpus + `role:"/a"`:                                        `resource "cpus": role "/a" starts with a slash`,
		cpus + `role:"a/"`:                                        `resource "cpus": role "a/" ends with a slash`,
		cpus + `role:"a/../b"`:                                    `resource "cpus": role "a/../b" has the component ".."`,
		cpus + `role:"a/*"`:                                       `resource "cpus": role "a/*" has the component "*"`,
		cpus + `role:"a/-b"`:                                      `resource "cpus": role "a/-b" has a component that starts with a dash`,
		cpus + `reservation{}`:                                    `resource "cpus": a dynamic reservation for the role '*' is invalid`,
		cpus + `role:"a" reservation{role:"a"}`:                   `resource "cpus": reservation holds neither type nor role; they belong to reservations`,
		cpus + `role:"a" reservation{} revocable{}`:               `resource "cpus": a revocable resource cannot be dynamically reserved`,
		cpus + `reservations{role:"a"}`:                           `resource "cpus": reservation 0: the type must be STATIC or DYNAMIC`,
		cpus + `reservations{type:STATIC}`:                        `resource "cpus": reservation 0: the role is missing`,
		cpus + `reservations{type:STATIC role:"*"}`:               `resource "cpus": reservation 0: the role '*' cannot be reserved for`,
		cpus + `reservations{type:STATIC role:"a" principal:"p"}`: `resource "cpus": reservation 0: a STATIC one has no principal`,
		cpus + `reservations{type:DYNAMIC role:"a"} reservations{type:STATIC role:"a/b"}`:             `resource "cpus": reservation 1: only the first can be STATIC`,
		cpus + `reservations{type:DYNAMIC role:"a"} reservations{type:DYNAMIC role:"ab"}`:             `resource "cpus": reservation 1: role "ab" is not below role "a"`,
		cpus + `reservations{type:DYNAMIC role:"a"} reservations{type:DYNAMIC role:"a"}`:              `resource "cpus": reservation 1: role "a" is not below role "a"`,
		cpus + `role:"b" reservations{type:DYNAMIC role:"a"}`:                                         `resource "cpus": role "b" and reservations for "a" contradict each other`,
		cpus + `role:"a" reservation{principal:"p"} reservations{type:DYNAMIC role:"a"}`:              `resource "cpus": reservation and reservations contradict each other`,
		cpus + `reservations{type:DYNAMIC role:"a"} revocable{}`:                                      `resource "cpus": a revocable resource cannot be dynamically reserved`,
		cpus + `allocation_info{role:"a//b"}`:                                                         `resource "cpus": allocation: role "a//b" has two slashes in a row`,
		cpus + `disk{}`:                                                                               `resource "cpus": only 'disk' has a field 'disk'`,
		cpus + `shared{}`:                                                                             `resource "cpus": only persistent volumes can be shared`,
		disk + `shared{} disk{}`:                                                                      `resource "disk": only persistent volumes can be shared`,
		volume:                                                                                        `resource "disk": a persistent volume must be reserved for a role`,
		disk + `role:"a" disk{persistence{id:"v"}}`:                                                   `resource "disk": a persistent volume needs the field 'volume'`,
		disk + `role:"a" disk{persistence{id:"v/w"} volume{mode:RW container_path:"d"}}`:              `resource "disk": the id "v/w" of the volume must be 1 to 255 bytes without slashes and control characters`,
		disk + `role:"a" disk{persistence{id:"v"} volume{mode:RW container_path:"d" host_path:"/h"}}`: `resource "disk": a persistent volume has no 'host_path'`,
		disk + `disk{volume{mode:RW container_path:"d"}}`:                                             `resource "disk": a volume on 'disk' must be a persistent one`,
		disk + `disk{source{type:RAW path{}}}`:                                                        `resource "disk": a RAW disk has neither path nor mount`,
		disk + `disk{source{type:PATH mount{}}}`:                                                      `resource "disk": a PATH disk has no mount`,
		disk + `disk{source{type:MOUNT path{}}}`:                                                      `resource "disk": a MOUNT disk has no path`,
		disk + `disk{source{type:UNKNOWN}}`:                                                           `resource "disk": the type of the disk's source is unknown`,
		volume + `role:"a" revocable{}`:                                                               `resource "disk": a persistent volume cannot be revocable`,
	} {
		r, err := resources.FromProto(protos(t, in))
		if err == nil || err.Error() != want {
			t.Errorf("FromProto(%s) = %v, %v\nwant %s", in, r, err, want)
		}
	}
	_, err := resources.FromProto(protos(t, `type:SCALAR scalar{value:1}`, cpus, `name:"x" type:SCALAR`))
	if invalid, ok := errors.AsType[*resources.InvalidError](err); !ok || len(invalid.Faults) != 2 {
		t.Errorf("FromProto() = %v, want both faults", err)
	}
}

func TestViews(t *testing.T) {
	r := from(t,
		`name:"cpus" type:SCALAR scalar{value:1}`,
		`name:"cpus" type:SCALAR scalar{value:2} role:"eng"`,
		`name:"cpus" type:SCALAR scalar{value:4} reservations{type:DYNAMIC role:"eng"} reservations{type:DYNAMIC role:"eng/web"}`,
		`name:"cpus" type:SCALAR scalar{value:8} revocable{}`,
		`name:"ports" type:RANGES ranges{range{begin:5 end:9}} role:"eng"`,
		`name:"ports" type:RANGES ranges{range{begin:1 end:4} range{begin:20 end:20}}`,
		`name:"bugs" type:SET set{item:"b" item:"a"}`,
	)
	for _, tc := range []struct {
		name string
		got  resources.Resources
		cpus resources.Milli
	}{
		{"all", r, 15000},
		{"unreserved", r.Unreserved(), 9000},
		{"for eng", r.ReservedFor("eng"), 2000},
		{"for eng/web", r.ReservedFor("eng/web"), 4000},
		{"for nobody", r.ReservedFor(""), 0},
		{"available to eng", r.AvailableTo("eng"), 11000},
		{"available to eng/web", r.AvailableTo("eng/web"), 15000},
		{"available to engine", r.AvailableTo("engine"), 9000},
		{"revocable", r.Revocable(), 8000},
		{"not revocable", r.NonRevocable(), 7000},
		{"allocated", r.AllocatedTo("eng"), 15000},
	} {
		if got := tc.got.Scalar("cpus"); got != tc.cpus {
			t.Errorf("%s: %v CPUs, want %v", tc.name, got, tc.cpus)
		}
	}
	if diff := cmp.Diff([]resources.Range{{1, 9}, {20, 20}}, r.Ports()); diff != "" {
		t.Errorf("ports: (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"bugs", "cpus", "ports"}, r.Names()); diff != "" {
		t.Errorf("names: (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a", "b"}, r.Set("bugs")); diff != "" {
		t.Errorf("set: (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(map[string]resources.Milli{"cpus": 15000}, maps.Collect(r.Scalars())); diff != "" {
		t.Errorf("scalars: (-want +got)\n%s", diff)
	}

	a := r.AllocatedTo("eng")
	if got := a.Allocations(); !slices.Equal(got, []string{"eng"}) || !a.Unallocated().Equal(r) || a.Equal(r) || a.Contains(r) {
		t.Errorf("allocated to %v: %v", got, a)
	}
	for _, p := range a.Proto() {
		if p.GetAllocationInfo().GetRole() != "eng" {
			t.Errorf("%v is not allocated", p)
		}
	}
	both := a.Add(r.AllocatedTo("web"))
	if got := both.Allocations(); !slices.Equal(got, []string{"eng", "web"}) || both.Unallocated().Scalar("cpus") != 30000 {
		t.Errorf("two allocations: %v", both)
	}
	kept := r.Filter(func(p *mesos.Resource) bool { return p.GetName() == "bugs" })
	if kept.String() != "bugs:{a, b}" {
		t.Errorf("Filter() = %v", kept)
	}
}

// Volumes are taken whole, and shared ones can be handed out several times.
func TestVolumes(t *testing.T) {
	const volume = `name:"disk" type:SCALAR scalar{value:100} role:"db" reservation{} disk{persistence{id:"v1"} volume{mode:RW container_path:"d"}} `
	v := from(t, volume)
	half := from(t, strings.Replace(volume, "100", "50", 1))
	if v.Contains(half) || !v.Contains(v) {
		t.Error("a part of a volume is contained in it")
	}
	if got := v.Sub(half); !got.Equal(v) {
		t.Errorf("half a volume was taken away: %v", got)
	}
	if !v.Sub(v).Empty() {
		t.Error("a volume without itself is something")
	}
	s := from(t, volume+"shared{}")
	two := s.Add(s)
	if len(two.Proto()) != 2 || two.Scalar("disk") != 200_000 || !two.Contains(two) || s.Contains(two) || !two.Sub(s).Equal(s) {
		t.Errorf("two copies: %v", two)
	}
	again, err := resources.FromProto(two.Proto())
	if err != nil || !again.Equal(two) {
		t.Errorf("two copies read as %v, %v", again, err)
	}
	mount := from(t, `name:"disk" type:SCALAR scalar{value:100} disk{source{type:MOUNT mount{root:"/a"}}}`)
	if part := from(t, `name:"disk" type:SCALAR scalar{value:10} disk{source{type:MOUNT mount{root:"/a"}}}`); mount.Contains(part) {
		t.Error("a MOUNT disk is split")
	}
	path := from(t, `name:"disk" type:SCALAR scalar{value:100} disk{source{type:PATH path{root:"/a"}}}`)
	if part := from(t, `name:"disk" type:SCALAR scalar{value:10} disk{source{type:PATH path{root:"/a"}}}`); !path.Contains(part) {
		t.Error("a PATH disk is not split")
	}
	if want := "disk(reservations: [(DYNAMIC,db)])[v1:d]<SHARED><2>:100"; two.String() != want {
		t.Errorf("String() = %s, want %s", two, want)
	}
	if want := "disk[MOUNT:/a]:100"; mount.String() != want {
		t.Errorf("String() = %s, want %s", mount, want)
	}
}

// Many small tasks add up to what was there, and leave nothing.
func TestFixedPoint(t *testing.T) {
	left := parse(t, "cpus:1")
	tenth := parse(t, "cpus:0.1")
	for range 10 {
		if !left.Contains(tenth) {
			t.Fatalf("%v does not contain %v", left, tenth)
		}
		left = left.Sub(tenth)
	}
	if !left.Empty() {
		t.Errorf("%v is left", left)
	}
	m, err := resources.FromFloat(0.1 + 0.2)
	if err != nil || m != 300 || m.Float() != 0.3 || m.String() != "0.3" {
		t.Errorf("0.1 + 0.2 = %v (%d), %v", m, m, err)
	}
}

func TestEdges(t *testing.T) {
	all := from(t, fmt.Sprintf(`name:"ports" type:RANGES ranges{range{begin:0 end:%d}}`, uint64(math.MaxUint64)))
	first := parse(t, "ports:[0-0]")
	last := from(t, fmt.Sprintf(`name:"ports" type:RANGES ranges{range{begin:%d end:%d}}`, uint64(math.MaxUint64), uint64(math.MaxUint64)))
	rest := all.Sub(first).Sub(last)
	if got := rest.Ports(); len(got) != 1 || got[0] != (resources.Range{1, math.MaxUint64 - 1}) {
		t.Errorf("ports are %v", got)
	}
	if !rest.Add(first).Add(last).Equal(all) || !all.Contains(last) || rest.Contains(last) {
		t.Error("the edges are lost")
	}
	var none resources.Resources
	if none.String() != "{}" || !none.Contains(none) || !none.Add(all).Equal(all) || !none.Sub(all).Empty() || len(none.Proto()) != 0 {
		t.Error("the zero value is not empty")
	}
	// A name with two kinds is two resources.
	mixed := parse(t, "x:1;x:[1-2]")
	if mixed.Scalar("x") != 1000 || len(mixed.Ranges("x")) != 1 || len(mixed.Proto()) != 2 {
		t.Errorf("mixed is %v", mixed)
	}
}

// What is handed in or out stays the caller's.
func TestNothingIsShared(t *testing.T) {
	in := protos(t, `name:"disk" type:SCALAR scalar{value:1} role:"a" reservation{principal:"p"} disk{source{type:PATH path{root:"/a"}}}`)
	r, err := resources.FromProto(in)
	if err != nil {
		t.Fatal(err)
	}
	want := r.String()
	in[0].Disk.Source.Path.Root = new("/b")
	in[0].Reservation.Principal = new("q")
	out := r.Proto()
	out[0].Disk.Source.Path.Root = new("/c")
	out[0].Reservations[0].Principal = new("r")
	r.Filter(func(p *mesos.Resource) bool { p.Reservations[0].Role = new("z"); return true })
	if r.String() != want {
		t.Errorf("%v, want %s", r, want)
	}
}
