package gossip

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"starling/gossip/memnet"
)

// gathered returns the metrics of a registry by name.
func gathered(t *testing.T, g prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*dto.MetricFamily{}
	for _, f := range all {
		byName[f.GetName()] = f
	}
	return byName
}

// counted returns the value of a counter with one label.
func counted(t *testing.T, g prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	for _, m := range gathered(t, g)[name].GetMetric() {
		if len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
			return m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s of %q", name, label)
	return 0
}

// How old a change is when it arrives is measured everywhere, whichever way it took.
func TestConvergenceLagIsMeasured(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		registries := make([]*prometheus.Registry, 8)
		f.net.SetLatency(time.Millisecond, 4*time.Millisecond)
		for i := range registries {
			registries[i] = prometheus.NewRegistry()
			f.start(i, func(c *Config) { c.Metrics = registries[i] }).Set(assign("node", "here"))
		}
		f.within(time.Minute, "all know all", func() bool { return whole(f.nodes) })
		lag := func(i int) *dto.Histogram {
			return gathered(t, registries[i])["starling_gossip_convergence_lag_seconds"].GetMetric()[0].GetHistogram()
		}
		slow := func(i int) (n uint64) { // changes that were older than 10 s
			for _, b := range lag(i).GetBucket() {
				if b.GetUpperBound() == 10 {
					return lag(i).GetSampleCount() - b.GetCumulativeCount()
				}
			}
			t.Fatal("no bucket of 10 s")
			return 0
		}
		before := make([]uint64, len(f.nodes))
		for i := range f.nodes {
			before[i] = lag(i).GetSampleCount()
		}
		f.nodes[3].Set(assign("task/f/1", "running"))
		f.within(2*time.Second, "change everywhere", everywhere(f.nodes, "node-003", "task/f/1", "running"))
		for i, n := range f.nodes {
			if grown := lag(i).GetSampleCount() > before[i]; grown != (i != 3) {
				t.Errorf("%s: a change was measured: %v, want it at all but its owner", n.Self(), grown)
			}
			if slow(i) > 0 {
				t.Errorf("%s: %d changes took more than 10 s, want none", n.Self(), slow(i))
			}
		}

		// One that is cut off while something changes hears of it by anti-entropy, and knows how late it is.
		away := memnet.Addr(5)
		f.net.Cut(func(from, to string) bool { return from == away || to == away })
		f.nodes[3].Set(assign("task/f/1", "ended"))
		time.Sleep(time.Minute)
		f.net.Cut(nil)
		f.within(5*time.Minute, "change everywhere", everywhere(f.nodes, "node-003", "task/f/1", "ended"))
		if slow(5) == 0 {
			t.Error("the node that was away has measured nothing that took more than 10 s")
		}
	})
}

// Every metric has a name of the form starling_gossip_noun_unit and a sentence of help; its labels are closed sets that exist from the start.
func TestMetricNames(t *testing.T) {
	registry := prometheus.NewRegistry()
	cfg := DefaultConfig()
	cfg.NodeID, cfg.Log, cfg.Metrics = "n", logTo(t.Output(), "n"), registry
	cfg.Transport = memnet.New(1).Host(memnet.Addr(0))
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	units := regexp.MustCompile(`^starling_gossip_[a-z_]+(_total|_bytes|_seconds|_entries|_score|_members(_[a-z]+)?)$|^starling_gossip_members$`)
	all := gathered(t, registry)
	for name, f := range all {
		if !units.MatchString(name) {
			t.Errorf("%s: no name of the form starling_gossip_noun_unit", name)
		}
		if counter := f.GetType() == dto.MetricType_COUNTER; counter != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %v: _total is for counters, and for all of them", name, f.GetType())
		}
		for _, metric := range f.GetMetric() {
			for _, l := range metric.GetLabel() {
				if slices.Contains([]string{"node", "peer", "name", "addr", "key", "id"}, l.GetName()) {
					t.Errorf("%s has a label %q: labels are small closed sets", name, l.GetName())
				}
			}
		}
		if h := f.GetHelp(); len(h) < 20 || !strings.HasSuffix(h, ".") {
			t.Errorf("%s: help %q is not a sentence", name, h)
		}
	}
	for name := range metricNames(t) {
		if all[name] == nil {
			t.Errorf("%s is in the source but not on the registry at the start", name)
		}
	}
	for _, name := range []string{
		"starling_gossip_members", "starling_gossip_health_score", "starling_gossip_queue_entries", "starling_gossip_deltas_total",
		"starling_gossip_network_bytes_total", "starling_gossip_sync_rounds_total", "starling_gossip_repairs_total",
		"starling_gossip_convergence_lag_seconds", "starling_gossip_refused_total", "starling_gossip_dropped_total",
	} {
		if all[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

// metricNames returns all names of metrics that the source of this package mentions.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	fset := token.NewFileSet()
	names := map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if s, err := strconv.Unquote(l.Value); err == nil && strings.HasPrefix(s, "starling_") {
					names[s] = true
				}
			}
			return true
		})
	}
	if len(names) < 10 {
		t.Fatalf("only %d names of metrics found: the walk is wrong", len(names))
	}
	return names
}
