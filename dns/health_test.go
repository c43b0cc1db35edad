package dns

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

func checked(id string, healthy *bool, was bool) *catalog.Task {
	t := task(id, taskRunning, 31000)
	t.Checked, t.Healthy, t.WasHealthy = true, healthy, was
	return t
}

func TestHealthDecidesWhoIsAnswered(t *testing.T) {
	good, bad := proto.Bool(true), proto.Bool(false)
	const name = "web.marathon"
	for _, tc := range []struct {
		name                      string
		tasks                     [3]*catalog.Task // on 10.0.0.1 to 10.0.0.3; nil: none
		passing, notFailing, none string
	}{
		{"no checks", [3]*catalog.Task{task("1", taskRunning, 1), task("2", taskRunning, 1), task("3", 6, 1)}, "10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"},
		{"one fails", [3]*catalog.Task{checked("1", good, true), checked("2", bad, true), nil}, "10.0.0.1", "10.0.0.1", "10.0.0.1 10.0.0.2"},
		{"one has no result yet", [3]*catalog.Task{checked("1", good, true), checked("2", nil, false), nil}, "10.0.0.1", "10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"},
		{"none has a result yet", [3]*catalog.Task{checked("1", nil, false), checked("2", nil, false), nil}, "", "10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"},
		{"all fail, two were healthy", [3]*catalog.Task{checked("1", bad, true), checked("2", bad, true), checked("3", bad, false)}, "10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2 10.0.0.3", "10.0.0.1 10.0.0.2 10.0.0.3"},
		{"all fail, one has no check", [3]*catalog.Task{checked("1", bad, true), task("2", taskRunning, 1), nil}, "10.0.0.2", "10.0.0.2", "10.0.0.1 10.0.0.2"},
		{"an executor's word without a check", [3]*catalog.Task{{TaskId: "1", FrameworkId: "f", FrameworkName: "marathon", Name: "web", State: taskRunning, Healthy: bad, WasHealthy: true}, task("2", taskRunning, 1), nil}, "10.0.0.2", "10.0.0.2", "10.0.0.1 10.0.0.2"},
	} {
		for health, want := range map[Health]string{HealthPassing: tc.passing, HealthNotFailing: tc.notFailing, HealthOff: tc.none} {
			m := newMesh(t)
			f := followed(t, m, func(c *Config) { c.Health = health })
			for i, x := range tc.tasks {
				node := string(rune('a' + i))
				m.agent(node, "10.0.0."+string(rune('1'+i)))
				if x != nil {
					m.set(node, catalog.TaskKey("f", "web."+x.TaskId), x)
				}
			}
			f.catchUp(t)
			if got := f.addrs(name); got != want {
				t.Errorf("%s, %s: %q, want %q", tc.name, health, got, want)
			}
			if health == HealthOff {
				continue
			}
			// A sound one takes the place of all others at once, and gives it back.
			m.agent("d", "10.0.0.4")
			m.set("d", catalog.TaskKey("f", "web.4"), checked("4", good, true))
			f.catchUp(t)
			m.set("d", catalog.TaskKey("f", "web.4"), nil)
			f.catchUp(t)
			if got := f.addrs(name); got != want {
				t.Errorf("%s, %s, after another one came and went: %q, want %q", tc.name, health, got, want)
			}
		}
	}
}

func TestWhoFailsOpenIsCounted(t *testing.T) {
	m := newMesh(t)
	registry := prometheus.NewRegistry()
	f := followed(t, m, func(c *Config) { c.Metrics = registry })
	m.agent("a", "10.0.0.1")
	key := catalog.TaskKey("f", "web.1")
	gauge := func(name string) float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() != "starling_dns_"+name {
				continue
			}
			for _, x := range family.Metric {
				if x.Label[0].GetValue() == "health" {
					return x.GetGauge().GetValue() + x.GetCounter().GetValue()
				}
			}
		}
		t.Fatalf("there is no metric %s", name)
		return 0
	}
	for i, step := range []struct {
		task               *catalog.Task
		addrs              string
		open, opened, live float64
	}{
		{task: checked("web.1", nil, false)},
		{task: checked("web.1", proto.Bool(true), true), addrs: "10.0.0.1"},
		{task: checked("web.1", proto.Bool(false), true), addrs: "10.0.0.1", open: 1, opened: 1},
		{task: checked("web.1", proto.Bool(true), true), addrs: "10.0.0.1", opened: 1},
		{task: checked("web.1", proto.Bool(false), true), addrs: "10.0.0.1", open: 1, opened: 2},
		{opened: 2},
	} {
		if step.task == nil {
			m.set("a", key, nil)
		} else {
			m.set("a", key, step.task)
		}
		f.catchUp(t)
		if got := f.addrs("web.marathon"); got != step.addrs || gauge("fail_open_names") != step.open || gauge("fail_open_total") != step.opened {
			t.Errorf("step %d: %q, %v open, %v opened; want %q, %v, %v", i, got, gauge("fail_open_names"), gauge("fail_open_total"), step.addrs, step.open, step.opened)
		}
	}
}

func TestHealthWords(t *testing.T) {
	for _, h := range []Health{HealthPassing, HealthNotFailing, HealthOff} {
		if got, err := ParseHealth(h.String()); got != h || err != nil {
			t.Errorf("%v reads as %v, %v", h, got, err)
		}
	}
	if _, err := ParseHealth("Passing"); err == nil {
		t.Error("an unknown word was read")
	}
}

// A name whose tasks are all gone is gone, but where a node sees nobody any more it cannot know that.
func TestACutOffNodeKeepsWhatNobodyElseHas(t *testing.T) {
	build := func() (*mesh, *follower) {
		m := newMesh(t)
		f := followed(t, m, nil)
		for i, node := range []string{"a", "b", "c", "d"} {
			m.agent(node, "10.0.0."+string(rune('1'+i)))
			m.set(node, catalog.TaskKey("f", node), task(node, taskRunning, 31000))
		}
		own := task("own", taskRunning, 31000)
		own.Name, own.Discovery = "own", nil
		value, err := proto.Marshal(own)
		if err != nil {
			t.Fatal(err)
		}
		self, err := proto.Marshal(&catalog.Node{Roles: []string{catalog.RoleAgent}, Address: "10.0.0.9", Port: 5051, AgentId: "reader"})
		if err != nil {
			t.Fatal(err)
		}
		m.Set(epoch, record.Assignment{Key: catalog.KeyNode, Value: self}, record.Assignment{Key: catalog.TaskKey("f", "own"), Value: value})
		f.catchUp(t)
		f.wantAddrs(t, "at first", map[string]string{"web.marathon": "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4", "own.marathon": "10.0.0.9"})
		return m, f
	}
	lose := func(m *mesh, l record.Liveness, nodes ...string) {
		for _, n := range nodes {
			m.SetLiveness(epoch, n, l)
		}
	}
	m, f := build()
	lose(m, record.Suspect, "a", "b", "c")
	f.catchUp(t)
	f.wantAddrs(t, "one is left", map[string]string{"web.marathon": "10.0.0.4", "own.marathon": "10.0.0.9"})
	lose(m, record.Suspect, "d")
	f.catchUp(t)
	all := map[string]string{"web.marathon": "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4", "own.marathon": "10.0.0.9", "slave": "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.9"}
	f.wantAddrs(t, "nobody is left", all)
	lose(m, record.Dead, "a", "b", "c", "d")
	f.catchUp(t)
	f.wantAddrs(t, "they are given up", all)
	web := task("own", taskRunning, 31000)
	value, err := proto.Marshal(web)
	if err != nil {
		t.Fatal(err)
	}
	m.Set(epoch, record.Assignment{Key: catalog.TaskKey("f", "mine"), Value: value})
	f.catchUp(t)
	f.wantAddrs(t, "with one of its own", map[string]string{"web.marathon": "10.0.0.9"})
	m.Set(epoch, record.Assignment{Key: catalog.TaskKey("f", "mine")})
	lose(m, record.Alive, "b")
	f.catchUp(t)
	f.wantAddrs(t, "one is back", map[string]string{"web.marathon": "10.0.0.2"})

	m, f = build()
	f.returnPatience = 0
	lose(m, record.Left, "a", "b")
	lose(m, record.Dead, "c", "d")
	f.catchUp(t)
	f.wantAddrs(t, "two died and two left", map[string]string{"web.marathon": "", "own.marathon": "10.0.0.9"})
}

// An agent that is stopped in order leaves its tasks running: it must not be worse for their names than a crash.
func TestTasksOfANodeThatSaidGoodbyeAreTheLastResort(t *testing.T) {
	m := newMesh(t)
	f := followed(t, m, nil)
	alone := func(id string) *catalog.Task {
		x := task(id, taskRunning, 31000)
		x.Name, x.Discovery = id, nil
		return x
	}
	for i, node := range []string{"a", "b", "c"} {
		m.agent(node, "10.0.0."+string(rune('1'+i)))
		m.set(node, catalog.TaskKey("f", node), task(node, taskRunning, 31000))
	}
	m.set("a", catalog.TaskKey("f", "one"), alone("one"))
	m.set("b", catalog.TaskKey("f", "two"), alone("two"))
	f.catchUp(t)
	m.SetLiveness(epoch, "a", record.Left)
	f.catchUp(t)
	f.wantAddrs(t, "one left", map[string]string{"web.marathon": "10.0.0.2 10.0.0.3", "one.marathon": "10.0.0.1", "slave": "10.0.0.2 10.0.0.3"})
	m.SetLiveness(epoch, "a", record.Alive)
	f.catchUp(t)
	f.wantAddrs(t, "it is back", map[string]string{"web.marathon": "10.0.0.1 10.0.0.2 10.0.0.3", "one.marathon": "10.0.0.1", "slave": "10.0.0.1 10.0.0.2 10.0.0.3"})

	m.SetLiveness(epoch, "a", record.Left)
	f.catchUp(t)
	later := f.farewellAt.Add(time.Second)
	m.SetLiveness(epoch, "b", record.Left)
	f.catchUp(t)
	f.nodes["b"].returns = later.Add(time.Second)
	f.sayFarewell(later)
	f.wantAddrs(t, "the first stays away", map[string]string{"web.marathon": "10.0.0.3", "one.marathon": "", "two.marathon": "10.0.0.2"})
	m.set("c", catalog.TaskKey("f", "two"), alone("two"))
	f.catchUp(t)
	f.wantAddrs(t, "it is replaced", map[string]string{"two.marathon": "10.0.0.3"})
	m.set("c", catalog.TaskKey("f", "two"), nil)
	f.catchUp(t)
	f.sayFarewell(later.Add(2 * time.Second))
	f.wantAddrs(t, "the second stays away", map[string]string{"web.marathon": "10.0.0.3", "two.marathon": ""})
	if !f.farewellAt.IsZero() {
		t.Error("somebody is still expected")
	}
}
