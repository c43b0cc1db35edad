package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"starling/marathon/app"
	"starling/marathon/mastertest"
	"starling/marathon/scheduler"
)

// TestCrashAtEveryDecision ends the process just before each single decision of the life of an app: its creation, a
// scaling, a rolling upgrade, its removal. Wherever it is cut, the next process brings it to the same end, within 30
// seconds, no task id is used twice, and never do more run than may.
func TestCrashAtEveryDecision(t *testing.T) {
	steps := []struct {
		body string
		want int
	}{
		{`{"id":"/web","cmd":"one","cpus":0.1,"instances":2,"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0.5}}`, 2},
		{`{"id":"/web","instances":4}`, 4},
		{`{"id":"/web","cmd":"two"}`, 4},
		{`{"id":"/web","instances":1}`, 1},
		{``, 0},
	}
	for n, step := range steps {
		points := 0
		for point := 0; ; point++ {
			if !crashAt(t, n, step.body, step.want, point, steps[:n]) {
				break
			}
			points++
		}
		if points < 5 {
			t.Errorf("step %d has %d decisions: nothing was tried", n, points)
		}
		t.Logf("step %d: %d points", n, points)
	}
}

// crashAt plays the steps before, and the step with a crash at its n-th decision. It reports false when there is none.
func crashAt(t *testing.T, n int, body string, want, point int, before []struct {
	body string
	want int
},
) bool {
	m := newSim(t, uint64(n*1000+point+1))
	m.cluster.Add(mastertest.Agent{ID: "a1", Host: "h1", CPUs: 10, Mem: 1 << 16, Disk: 1 << 16, FirstPort: 31000, LastPort: 31999})
	m.subscribe()
	for _, b := range before {
		if _, err := m.put(b.body, false); err != nil {
			t.Fatal(err)
		}
		m.advance(time.Minute)
	}
	most := 0
	m.observe = func(d scheduler.Decision) bool {
		if accept, ok := d.(scheduler.Accept); ok {
			most = max(most, m.cluster.Alive()["web"]+len(accept.Tasks))
		}
		point--
		return point != -1
	}
	var err error
	if body == "" {
		_, err = m.remove("/web", false)
	} else {
		_, err = m.put(body, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.pump()
	m.advance(time.Minute)
	crashed := m.crashed
	if crashed {
		m.cluster.Disconnect()
		m.start()
		m.observe = nil
		m.subscribe()
		if point == -1 && m.s.View().Root().App("/web") == nil && body != "" {
			// The crash came before the request was stored, so nobody was told that it would be done.
			return true
		}
		m.advance(30 * time.Second)
	}
	name := fmt.Sprintf("step %d, crashed %v", n, crashed)
	stored := m.s.View().Root().App("/web")
	if lost := n > 0 && crashed && unchanged(stored, before); lost {
		want = before[len(before)-1].want
	}
	if got := m.cluster.Alive()["web"]; got != want {
		t.Errorf("%s: %d tasks, want %d", name, got, want)
	}
	if got := len(m.s.View().Instances("/web")); got != want {
		t.Errorf("%s: %d instances, want %d", name, got, want)
	}
	if running := m.s.View().Deployments(); len(running) > 0 {
		t.Errorf("%s: deployment has not ended", name)
	}
	if twice := m.cluster.Duplicates(); len(twice) > 0 {
		t.Errorf("%s: launched twice: %v", name, twice)
	}
	if stored != nil && most > stored.Instances*3/2 {
		t.Errorf("%s: up to %d tasks at once", name, most)
	}
	return crashed
}

// unchanged tells whether a definition is that from before the step that crashed.
func unchanged(stored *app.App, before []struct {
	body string
	want int
},
) bool {
	last := before[len(before)-1]
	cmd := "one"
	if len(before) > 2 {
		cmd = "two"
	}
	return stored != nil && stored.Instances == last.want && stored.Cmd == cmd
}
