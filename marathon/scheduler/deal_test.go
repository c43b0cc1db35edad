package scheduler_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
)

// onAgents counts the tasks of each agent, of one app or of all.
func (m *sim) onAgents(name string) map[string]int {
	on := make(map[string]int)
	for _, t := range m.cluster.Tasks() {
		if name == "" || t.Info.GetName() == name {
			on[t.Info.GetAgentId().GetValue()]++
		}
	}
	return on
}

// TestDealing shows where instances go when the offers of several agents come together.
func TestDealing(t *testing.T) {
	for _, tc := range []struct {
		name   string
		agents map[string]mastertest.Agent // by id; zero values are 10 CPUs
		apps   []string
		on     map[string]map[string]int // wanted, by the name of the app or "" for all, and agent
	}{
		{
			"instances are spread over equal agents",
			map[string]mastertest.Agent{"a1": {}, "a2": {}, "a3": {}},
			[]string{`{"id":"/web","cmd":"x","cpus":0.1,"instances":6}`},
			map[string]map[string]int{"web": {"a1": 2, "a2": 2, "a3": 2}},
		},
		{
			"each of several apps is spread",
			map[string]mastertest.Agent{"a1": {}, "a2": {}, "a3": {}},
			[]string{`{"id":"/web","cmd":"x","cpus":0.1,"instances":3}`, `{"id":"/db","cmd":"x","cpus":0.1,"instances":6}`},
			map[string]map[string]int{"web": {"a1": 1, "a2": 1, "a3": 1}, "db": {"a1": 2, "a2": 2, "a3": 2}},
		},
		{
			"apps of one instance go where most is left",
			map[string]mastertest.Agent{"a1": {}, "a2": {}, "a3": {}},
			[]string{
				`{"id":"/w1","cmd":"x","cpus":1}`, `{"id":"/w2","cmd":"x","cpus":1}`, `{"id":"/w3","cmd":"x","cpus":1}`,
			},
			map[string]map[string]int{"": {"a1": 1, "a2": 1, "a3": 1}},
		},
		{
			"what does not fit on one agent goes to another",
			map[string]mastertest.Agent{"a1": {CPUs: 1}, "a2": {CPUs: 20}},
			[]string{`{"id":"/web","cmd":"x","cpus":1,"instances":6}`},
			map[string]map[string]int{"web": {"a1": 1, "a2": 5}},
		},
		{
			"an agent that constraints stood against is looked at again",
			map[string]mastertest.Agent{
				"a1": {Attributes: map[string]string{"rack": "r1"}}, "a2": {Attributes: map[string]string{"rack": "r1"}},
				"a3": {Attributes: map[string]string{"rack": "r2"}},
			},
			[]string{`{"id":"/web","cmd":"x","cpus":0.1,"instances":4,"constraints":[["rack","GROUP_BY","2"]]}`},
			map[string]map[string]int{"web": {"a1": 1, "a2": 1, "a3": 2}},
		},
		{
			"one instance a host where that is wanted",
			map[string]mastertest.Agent{"a1": {}, "a2": {}, "a3": {}},
			[]string{`{"id":"/web","cmd":"x","cpus":0.1,"instances":5,"constraints":[["hostname","UNIQUE"]]}`},
			map[string]map[string]int{"web": {"a1": 1, "a2": 1, "a3": 1}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(10) {
				m := newSim(t, seed+1)
				for _, id := range []string{"a1", "a2", "a3"} {
					a, ok := tc.agents[id]
					if !ok {
						continue
					}
					a.ID, a.Host, a.Mem, a.Disk, a.FirstPort, a.LastPort = id, "host-"+id, 8192, 10000, 31000, 31999
					if a.CPUs == 0 {
						a.CPUs = 10
					}
					m.cluster.Add(a)
				}
				m.subscribe()
				m.pump()
				for _, body := range tc.apps {
					if _, err := m.put(body, false); err != nil {
						t.Fatal(err)
					}
				}
				m.advance(2 * time.Second)
				for name, want := range tc.on {
					got := m.onAgents(name)
					maps.DeleteFunc(got, func(_ string, n int) bool { return n == 0 })
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("seed %d: %q on agents (-want +got):\n%s", seed+1, name, diff)
					}
				}
			}
		})
	}
}

// TestWhatRunsCountsForSpreading has an app that is scaled up: the new instances go where few of it are.
func TestWhatRunsCountsForSpreading(t *testing.T) {
	m := newSim(t, 1)
	add := func(id string) {
		m.cluster.Add(mastertest.Agent{ID: id, Host: id, CPUs: 10, Mem: 8192, Disk: 10000, FirstPort: 31000, LastPort: 31999})
	}
	add("a1")
	m.subscribe()
	if _, err := m.put(`{"id":"/web","cmd":"x","cpus":0.1,"instances":4}`, false); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Second)
	add("a2")
	if _, err := m.put(`{"id":"/web","instances":8}`, false); err != nil {
		t.Fatal(err)
	}
	m.advance(time.Second)
	if diff := cmp.Diff(map[string]int{"a1": 4, "a2": 4}, m.onAgents("web")); diff != "" {
		t.Errorf("on agents (-want +got):\n%s", diff)
	}
}

// TestOneOfferIsEnough has 100 instances and one agent: one offer, and no second round.
func TestOneOfferIsEnough(t *testing.T) {
	m := newSim(t, 1)
	m.cluster.Add(mastertest.Agent{ID: "a1", Host: "h1", CPUs: 50, Mem: 1 << 20, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999})
	m.subscribe()
	m.pump()
	accepts := 0
	m.observe = func(d scheduler.Decision) bool {
		if a, ok := d.(scheduler.Accept); ok {
			accepts++
			if len(a.Tasks) != 100 {
				t.Errorf("%d tasks on an offer, want 100", len(a.Tasks))
			}
		}
		return true
	}
	if _, err := m.put(`{"id":"/web","cmd":"x","cpus":0.1,"instances":100}`, false); err != nil {
		t.Fatal(err)
	}
	m.pump()
	if got := m.onAgents("web")["a1"]; accepts != 1 || got != 100 {
		t.Errorf("%d tasks on %d offers, want 100 on one", got, accepts)
	}
}

// BenchmarkDealing is one round with 200 agents and 50 apps that fit nowhere; its budget is 200 ms.
func BenchmarkDealing(b *testing.B) {
	m := newSim(b, 1)
	for n := range 200 {
		m.cluster.Add(mastertest.Agent{
			ID: fmt.Sprintf("a%d", n), Host: fmt.Sprintf("h%d", n), CPUs: 4, Mem: 8192, Disk: 10000, FirstPort: 31000, LastPort: 31999,
		})
	}
	for n := range 50 {
		if _, err := m.put(fmt.Sprintf(`{"id":"/web%d","cmd":"x","cpus":100,"instances":10}`, n), false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		m.subscribe()
		m.pump()
	}
}
