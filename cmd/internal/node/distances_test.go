package node

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestDistancesOfAMaster(t *testing.T) {
	answer := `[
		{"name":"m1","hostname":"one","coordinate":{"vector":[50000],"height":0,"adjustment":0,"error":10}},
		{"name":"n1","hostname":"one","agent_id":"S1","coordinate":{"vector":[0],"height":100,"adjustment":0,"error":10}},
		{"name":"n2","hostname":"two","agent_id":"S2","coordinate":{"vector":[3000],"height":100,"adjustment":0,"error":10}},
		{"name":"n3","hostname":"twin","agent_id":"S3","coordinate":{"vector":[9000],"height":0,"adjustment":0,"error":10}},
		{"name":"n4","hostname":"twin","agent_id":"S4","coordinate":{"vector":[9000],"height":0,"adjustment":0,"error":10}},
		{"name":"n5","hostname":"flat","agent_id":"S5","coordinate":{"vector":[1,2],"height":0,"adjustment":0,"error":10}},
		{"name":"n6","hostname":"liar","agent_id":"S6","coordinate":{"vector":[99000000],"height":0,"adjustment":0,"error":10}}]`
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/mesh/places" {
			t.Errorf("it asks for %s", r.URL.Path)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	master := strings.TrimPrefix(server.URL, "http://")
	d, err := askDistances(t.Context(), master)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		a, b string
		want time.Duration
		ok   bool
	}{
		{"S1", "S2", 3200 * time.Microsecond, true},
		{"S2", "n1", 3200 * time.Microsecond, true},
		{"S2", "one", 3200 * time.Microsecond, true}, // the agent, not the master beside it
		{"S1", "m1", 50100 * time.Microsecond, true},
		{"S1", "S1", 0, true},
		{"S1", "one", 0, true},
		{"S1", "twin", 0, false}, // any of two
		{"S1", "S3", 9100 * time.Microsecond, true},
		{"S1", "S5", 0, false}, // of another number of dimensions
		{"S1", "S6", 0, false}, // not on earth
		{"S1", "nobody", 0, false},
		{"", "S1", 0, false},
	} {
		if got, ok := d.Distance(tc.a, tc.b); got != tc.want || ok != tc.ok {
			t.Errorf("%s to %s: %v, %v; want %v, %v", tc.a, tc.b, got, ok, tc.want, tc.ok)
		}
	}

	status = http.StatusNotFound
	if _, err := askDistances(t.Context(), master); err == nil || !strings.Contains(err.Error(), "404 Not Found") {
		t.Errorf("a master that does not tell: %v", err)
	}
	status, answer = http.StatusOK, `{`
	if _, err := askDistances(t.Context(), master); err == nil || !strings.Contains(err.Error(), "cannot read its answer") {
		t.Errorf("a master that talks nonsense: %v", err)
	}
}
