package metrics

import (
	"context"
	"errors"
	"maps"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func TestTiming(t *testing.T) {
	var timing Timing
	out := map[string]float64{}
	timing.Measure("x_ms", out)
	names := []string{"x_ms", "x_ms/count", "x_ms/max", "x_ms/min", "x_ms/p50", "x_ms/p90", "x_ms/p95", "x_ms/p99", "x_ms/p999", "x_ms/p9999"}
	if got := slices.Sorted(maps.Keys(out)); !slices.Equal(got, names) {
		t.Errorf("names %v", got)
	}
	for name, value := range out {
		if value != 0 {
			t.Errorf("before the first: %s is %v", name, value)
		}
	}
	for i := range maxRecent + 100 { // the first hundred are forgotten
		timing.Observe(time.Duration(i) * time.Millisecond)
	}
	timing.Observe(100500 * time.Microsecond)
	timing.Measure("x_ms", out)
	for name, want := range map[string]float64{"": 100.5, "/count": maxRecent + 101, "/min": 100.5, "/max": 355, "/p50": 228, "/p9999": 355} {
		if got := out["x_ms"+name]; got != want {
			t.Errorf("x_ms%s is %v, want %v", name, got, want)
		}
	}
}

func TestCollector(t *testing.T) {
	var broken error
	c := NewCollector("starling_test_", func(ctx context.Context) (map[string]float64, error) {
		if _, limited := ctx.Deadline(); !limited {
			t.Error("it may take for ever")
		}
		return map[string]float64{"a/one": 1, "a/tasks_idle": 2, "a/ends_good": 3}, broken
	})
	c.Gauge("a/one", "one", "One.")
	c.Counter("a/absent", "absent_total", "What is not there.")
	c.Gauges("a/tasks_", "tasks", "Tasks.", "state", "idle", "busy")
	c.Counters("a/ends_", "ends_total", "Ends.", "how", "good")
	registry := prometheus.NewRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		w := httptest.NewRecorder()
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Body.String()
	}
	const want = `# HELP starling_test_absent_total What is not there.
# TYPE starling_test_absent_total counter
starling_test_absent_total 0
# HELP starling_test_ends_total Ends.
# TYPE starling_test_ends_total counter
starling_test_ends_total{how="good"} 3
# HELP starling_test_one One.
# TYPE starling_test_one gauge
starling_test_one 1
# HELP starling_test_tasks Tasks.
# TYPE starling_test_tasks gauge
starling_test_tasks{state="busy"} 0
starling_test_tasks{state="idle"} 2
`
	if got := shown(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	broken = errors.New("broken")
	if got := shown(); got != "" {
		t.Errorf("numbers are shown that cannot be had:\n%s", got)
	}
}
