package dns

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
)

// What has no name, or not the one that it asks for, is told of by numbers: nothing else would show it.
func TestMetricsOfNames(t *testing.T) {
	m := newMesh(t)
	m.agent("x-S0", "10.0.0.1")
	for id, set := range map[string]func(v *catalog.Task){
		"web.1":  func(v *catalog.Task) { v.Name = "web" },
		"none.1": func(v *catalog.Task) { v.Name = "!" },
		"long.1": func(v *catalog.Task) { v.Name, v.FrameworkName = "web", strings.Repeat("long-name.", 30) },
	} {
		v := task(id, taskRunning, 31000)
		v.Discovery, v.Healthy = nil, proto.Bool(true)
		set(v)
		m.set("x-S0", catalog.TaskKey("f", id), v)
	}
	m.set("m-0", catalog.PrefixFramework, &catalog.Frameworks{Epoch: 1, Count: 1})
	m.set("m-0", catalog.PrefixFramework+"f", &catalog.Framework{Name: "leader", Addresses: []string{"10.0.0.2"}})
	registry := prometheus.NewRegistry()
	f := followed(t, m, func(c *Config) { c.Metrics = registry })
	stats := f.zone.Stats()
	if stats.TooLong == 0 || stats.Names < 5 {
		t.Fatalf("the zone has %+v, want names, and some that are too long", stats)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		if x := family.Metric[0]; len(x.Label) == 0 {
			got[strings.TrimPrefix(family.GetName(), "starling_dns_")] = x.GetGauge().GetValue() + x.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"zone_names": float64(stats.Names), "zone_sources": float64(stats.Sources),
		"unnamed_total": 1, "shadowed_total": 1, "too_long_names_total": float64(stats.TooLong),
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}
