package nodeapi

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"starling/gossip/catalog"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// unusual is what an agent may have beyond plain scalars and ports, as the JSON form of a --resources flag.
const unusual = `[
 {"name":"cpus","type":"SCALAR","scalar":{"value":3.125}},
 {"name":"ports","type":"RANGES","ranges":{"range":[{"begin":31000,"end":31009},{"begin":32000,"end":32000}]}},
 {"name":"nics","type":"SET","set":{"item":["eth0","eth1"]}},
 {"name":"mem","type":"SCALAR","scalar":{"value":64},"reservations":[{"type":"STATIC","role":"eng"}]},
 {"name":"mem","type":"SCALAR","scalar":{"value":32},"reservations":[{"type":"STATIC","role":"eng"},
  {"type":"DYNAMIC","role":"eng/web","principal":"ops","labels":{"labels":[{"key":"k","value":"v"},{"key":"bare"}]}}]},
 {"name":"mem","type":"SCALAR","scalar":{"value":16},"reservations":[
  {"type":"DYNAMIC","role":"eng","principal":"","labels":{"labels":[{"key":"k","value":""}]}}]},
 {"name":"disk","type":"SCALAR","scalar":{"value":100},"reservations":[{"type":"DYNAMIC","role":"db","principal":"p"}],
  "disk":{"persistence":{"id":"vol-1","principal":"p"},"volume":{"mode":"RW","container_path":"data"}},"shared":{}},
 {"name":"disk","type":"SCALAR","scalar":{"value":500},"disk":{"source":{"type":"MOUNT","mount":{"root":"/mnt/a"}}}},
 {"name":"cpus","type":"SCALAR","scalar":{"value":2},"revocable":{}},
 {"name":"fpga","type":"SCALAR","scalar":{"value":1},"provider_id":{"value":"rp-1"}}
]`

func parse(t testing.TB, s string) resources.Resources {
	t.Helper()
	rs, err := resources.Parse(s, "*")
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestResourcesRoundTrip(t *testing.T) {
	want := parse(t, unusual)
	// Over the wire of a record, too.
	b, err := proto.Marshal(&catalog.Resources{Total: ResourcesToCatalog(want)})
	if err != nil {
		t.Fatal(err)
	}
	var rec catalog.Resources
	if err := proto.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	got, err := DecodeResources(rec.GetTotal())
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(want) {
		t.Errorf("want %v, got %v", want, got)
	}
	for _, r := range rec.GetTotal() {
		ordinary := r.GetName() == "ports" || r.GetName() == "nics" || r.GetName() == "mem" && r.GetMilli() == 64000
		if ordinary && len(r.GetExtra()) > 0 {
			t.Errorf("%q carries %d extra bytes, want none", r.GetName(), len(r.GetExtra()))
		}
	}
}

func TestAllocationStaysBehind(t *testing.T) {
	want := parse(t, "cpus:1;mem:32")
	got := ResourcesFromCatalog(ResourcesToCatalog(want.AllocatedTo("web")))
	if !got.Equal(want) {
		t.Errorf("want %v, got %v", want, got)
	}
}

func TestBadResourcesAreLeftOutAndNamed(t *testing.T) {
	cs := append(ResourcesToCatalog(parse(t, "cpus:1;mem:32")),
		&catalog.Resource{Name: "bugs", Kind: catalog.Kind_TEXT},
		&catalog.Resource{Name: "disk", Milli: 1, Extra: []byte{0xff}},
		&catalog.Resource{Name: "ports", Kind: catalog.Kind_RANGES, Ranges: []*catalog.Range{{Begin: 2, End: 1}}},
		&catalog.Resource{Name: "minus", Milli: -1},
		nil,
	)
	got, err := DecodeResources(cs)
	if want := parse(t, "cpus:1;mem:32"); !got.Equal(want) {
		t.Errorf("want %v, got %v", want, got)
	}
	for _, name := range []string{`"bugs"`, `"disk"`, `"ports"`, `"minus"`, `""`} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want %s in %v", name, err)
		}
	}
}

func TestAttributesRoundTrip(t *testing.T) {
	want := []*mesos.Attribute{
		{Name: proto.String("rack"), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String("r1")}},
		{Name: proto.String("rack"), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String("")}},
		{Name: proto.String("level"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(-1.5)}},
		{Name: proto.String("vlans"), Type: mesos.Value_RANGES.Enum(), Ranges: &mesos.Value_Ranges{Range: []*mesos.Value_Range{
			{Begin: proto.Uint64(1), End: proto.Uint64(9)},
		}}},
		{Name: proto.String("tags"), Type: mesos.Value_SET.Enum(), Set: &mesos.Value_Set{Item: []string{"a", "b"}}},
	}
	got := AttributesFromCatalog(AttributesToCatalog(want))
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
}

func TestDiscoveryRoundTrip(t *testing.T) {
	want := &mesos.DiscoveryInfo{
		Visibility: mesos.DiscoveryInfo_EXTERNAL.Enum(), Name: proto.String("web"), Environment: proto.String("prod"),
		Ports: &mesos.Ports{Ports: []*mesos.Port{{Number: proto.Uint32(80), Name: proto.String("http"), Protocol: proto.String("tcp")}, {Number: proto.Uint32(53)}}},
	}
	got := DiscoveryFromCatalog(DiscoveryToCatalog(want))
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("discovery (-want +got):\n%s", d)
	}
	if DiscoveryToCatalog(nil) != nil || DiscoveryFromCatalog(nil) != nil {
		t.Error("want nil for nil")
	}
}

func FuzzDecodeResources(f *testing.F) {
	b, err := proto.Marshal(&catalog.Resources{Total: ResourcesToCatalog(parse(f, unusual))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var rec catalog.Resources
		if proto.Unmarshal(b, &rec) != nil {
			return
		}
		got, _ := DecodeResources(rec.GetTotal())
		for _, r := range got.Proto() {
			if err := proto.CheckInitialized(r); err != nil {
				t.Fatalf("a resource that can't be sent came through: %v", err)
			}
		}
		again, err := DecodeResources(ResourcesToCatalog(got))
		if err != nil || !again.Equal(got) {
			t.Fatalf("want %v again, got %v (%v)", got, again, err)
		}
	})
}
