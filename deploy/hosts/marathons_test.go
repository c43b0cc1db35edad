package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// writes is the limit within which another Marathon has to take writes after its leader was killed.
const writes = 10 * time.Second

// officeSession is the timeout of the sessions of Marathons, long enough not to be lost to a busy machine.
func officeSession() time.Duration {
	if *fullRows {
		return 4 * time.Second
	}
	return 8 * time.Second
}

// The leading Marathon is killed in the middle of a deployment: another one goes on with it, and no task notices. Then
// ZooKeeper goes away for longer than a session, and no task notices that either.
func TestThreeMarathons(t *testing.T) {
	t.Parallel()
	m := NewMarathons(t, 2, officeSession())
	leader, err := m.Named(m.All[0])
	if err != nil {
		t.Fatal(err)
	}
	followers := m.but(leader)
	m.Marathon = followers[0].URL // all that follows is asked of one that does not lead
	m.ProbeApp("/probe", 4)
	before := m.Answers(m.Running("/probe", 4))
	framework := m.framework()
	m.passedOn(followers[1], leader)

	id, end := m.begin("/probe2", 5)
	Eventually(t, time.Minute, "the deployment is under way", func() error {
		if a, err := m.App("/probe2"); err != nil || a.TasksRunning == 0 || len(a.Deployments) == 0 {
			return fmt.Errorf("it has %+v, %w", a, err)
		}
		return nil
	})
	killed := time.Now()
	leader.Kill()
	var next *Instance
	eventually(t, time.Minute, 20*time.Millisecond, "another one takes writes", func() error {
		_, _, err := m.request("PUT", followers[0].URL+"/v2/apps/written", `{"cmd":"sleep 1000","cpus":0.05,"mem":32,"instances":0}`)
		return err
	})
	within(t, "from the death of the leader: the first write by the next", time.Since(killed), writes)
	Eventually(t, time.Minute, "both name the same leader", func() error {
		for _, f := range followers {
			named, err := m.Named(f)
			if err != nil {
				return err
			}
			if named == leader || next != nil && named != next {
				next = nil
				return fmt.Errorf("%s names %s", f.name, named.name)
			}
			next = named
		}
		return nil
	})
	if !m.deploys(id) {
		t.Errorf("deployment %s does not go on", id)
	}
	end()
	m.Running("/probe2", 5)
	if m.deploys(id) {
		t.Errorf("deployment %s has not ended", id)
	}
	m.untouched(before)
	if now := m.framework(); now != framework {
		t.Errorf("the framework is %s now, was %s", now, framework)
	}
	leader.run()
	leader.Healthy(leader.URL + "/health")
	m.passedOn(leader, next)

	m.Running("/probe", 4)
	before = m.pids()
	for _, server := range m.ZooKeeper.Servers[1:] {
		server.Kill()
	}
	Eventually(t, time.Minute, "the leader steps down without a quorum", func() error {
		res, err := m.Fetch(next, "GET", "/health", "")
		if err == nil && res.StatusCode == http.StatusOK {
			err = errors.New("it is healthy")
		} else if err == nil {
			return nil
		}
		return err
	})
	m.alive(before)
	for _, server := range m.ZooKeeper.Servers[1:] {
		server.Start()
	}
	m.ZooKeeper.Wait()
	m.Running("/probe", 4)
	m.Running("/probe2", 5)
	m.untouched(before)
	if now := m.framework(); now != framework {
		t.Errorf("the framework is %s now, was %s", now, framework)
	}
}

func (m *Marathons) but(leader *Instance) []*Instance {
	var others []*Instance
	for _, one := range m.All {
		if one != leader {
			others = append(others, one)
		}
	}
	return others
}

// begin begins a deployment that goes on until end is called, and returns its id: its tasks run at once, and are ready after that.
func (m *Marathons) begin(id string, instances int) (deployment string, end func()) {
	m.t.Helper()
	ready := filepath.Join(m.t.TempDir(), "ready")
	end = func() {
		if err := os.WriteFile(ready, nil, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	m.ProbeApp(id, instances, fmt.Sprintf(`{"cmd":"until test -e %s; do sleep 0.2; done; exec %s","readinessChecks":[{"portName":"http","path":"/","intervalSeconds":2,"timeoutSeconds":1}]}`, ready, self))
	_, body, err := m.request("GET", m.Marathon+"/v2/deployments", "")
	var all []struct{ ID string }
	if err == nil {
		err = json.Unmarshal([]byte(body), &all)
	}
	if err != nil || len(all) != 1 {
		m.t.Fatalf("deployments %s, %v; want one", body, err)
	}
	return all[0].ID, end
}

// deploys tells whether a deployment goes on, beside others or alone.
func (m *Marathons) deploys(id string) bool {
	m.t.Helper()
	_, body, err := m.request("GET", m.Marathon+"/v2/deployments", "")
	var all []struct{ ID string }
	if err == nil {
		err = json.Unmarshal([]byte(body), &all)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(one struct{ ID string }) bool { return one.ID == id })
}

// passedOn checks that a follower passes requests on, and sends to the leader who wants to hear events.
func (m *Marathons) passedOn(follower, leader *Instance) {
	m.t.Helper()
	res, err := m.Fetch(follower, "GET", "/v2/apps", "application/json")
	if err != nil {
		m.t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("X-Marathon-Leader") != leader.URL || res.Header.Get("X-Marathon-Via") != "1.1 "+follower.Address {
		m.t.Errorf("%s answers %d %v", follower.name, res.StatusCode, res.Header)
	}
	res, err = m.Fetch(follower, "GET", "/v2/events", "text/event-stream")
	if err != nil {
		m.t.Fatal(err)
	}
	if res.StatusCode != http.StatusFound || res.Header.Get("Location") != leader.URL+"/v2/events" {
		m.t.Errorf("%s sends to %q (%d)", follower.name, res.Header.Get("Location"), res.StatusCode)
	}
}

// untouched checks that all tasks of before run, that none was started twice, and that their processes are the same.
func (m *Marathons) untouched(before map[string]int) {
	m.t.Helper()
	m.alive(before)
	now := m.pids()
	for id, pid := range before {
		if now[id] != pid {
			m.t.Errorf("task %s is process %d now, was %d", id, now[id], pid)
		}
	}
	if len(now) != 9 {
		m.t.Errorf("%d tasks were started in all, want 9: %v", len(now), now)
	}
}

func (m *Marathons) alive(before map[string]int) {
	m.t.Helper()
	for id, pid := range before {
		if gone(pid) {
			m.t.Errorf("task %s, process %d, is gone", id, pid)
		}
	}
}
