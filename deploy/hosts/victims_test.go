package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"
)

// victims is a cluster whose leading Marathon is killed again and again, with all that has to hold whatever happens.
type victims struct {
	*Cluster
	gate *Tollgate
	// kill kills the one that made a call, or the leader for an empty address. back starts again what was killed, and returns
	// when somebody leads.
	kill func(from string)
	back func()
	// bases are the URLs of the Marathons.
	bases []string
	watch *watch
}

// rig is a cluster to kill Marathons in, and how many of its calls they are killed at.
type rig struct {
	name  string
	make  func(*testing.T) *victims
	kills int
}

// rigs are those of the long rows. The short ones have the first alone: TestThreeMarathons kills a leader among others.
func rigs() []rig {
	all := []rig{{"alone", newAlone, 100}, {"among others", newAmongOthers, 100}}
	if !*fullRows {
		return all[:1]
	}
	return all
}

// newAlone is a Marathon without others, with its state in a file, that is started again when it was killed.
func newAlone(t *testing.T) *victims {
	f, c := NewFlockWithTasks(t, 2)
	v := &victims{Cluster: c, bases: []string{c.Marathon}}
	v.gate = NewTollgate(t, f.Hosts[2], f.Hosts[2].at(5050))
	p := f.MarathonProcess
	p.Kill()
	p.throughGate(v.gate)
	v.kill = func(string) { p.Kill() }
	v.back = func() {
		p.run()
		p.Healthy(c.Marathon + "/health")
	}
	v.back()
	v.watch = newWatch(t, c)
	return v
}

// throughGate has a Marathon that is down find its master behind a gate from now on.
func (p *Process) throughGate(g *Tollgate) {
	p.args = slices.Clone(p.args)
	p.args[slices.Index(p.args, "--master")+1] = g.Address
}

// newAmongOthers are three Marathons that elect one of them in ZooKeeper.
func newAmongOthers(t *testing.T) *victims {
	m := NewMarathons(t, 2, 4*time.Second)
	v := &victims{Cluster: m.Cluster}
	last := m.Network.Hosts[len(m.Network.Hosts)-1]
	v.gate = NewTollgate(t, last, last.at(5050))
	var killed *Instance
	for _, one := range m.All {
		v.bases = append(v.bases, one.URL)
		one.Kill()
		one.throughGate(v.gate)
	}
	v.kill = func(from string) {
		for _, one := range m.All {
			if one.Host.Addr == from {
				killed = one
				one.Kill()
				return
			}
		}
		t.Errorf("a call came from %s, who is no Marathon", from)
	}
	v.back = func() {
		v.Marathon = m.but(killed)[0].URL
		Eventually(t, time.Minute, "another one leads", func() error {
			named, err := m.Named(m.but(killed)[0])
			if err == nil && named == killed {
				err = errors.New("the one that was killed does")
			}
			if err == nil {
				_, _, err = v.request("GET", v.Marathon+"/v2/deployments", "")
			}
			return err
		})
		killed.run()
		killed.Healthy(killed.URL + "/health")
	}
	for _, one := range m.All {
		one.run()
	}
	for _, one := range m.All {
		one.Healthy(one.URL + "/health")
	}
	v.watch = newWatch(t, m.Cluster)
	return v
}

// ask makes a request until it is answered with a success; one that was killed on the way is asked again, unless its effect is
// there already.
func (v *victims) ask(method, path, body string, done func() bool) {
	v.t.Helper()
	first := true
	Eventually(v.t, time.Minute, method+" "+path, func() error {
		if !first && done != nil && done() {
			return nil
		}
		first = false
		_, _, err := v.request(method, v.Marathon+path, body)
		return err
	})
}

// get reads a page until there is an answer.
func (v *victims) get(path string, into any) {
	v.t.Helper()
	Eventually(v.t, time.Minute, "GET "+path, func() error {
		_, body, err := v.request("GET", v.Marathon+path, "")
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(body), into)
	})
}

// deployments are the ids of those that run.
func (v *victims) deployments() []string {
	v.t.Helper()
	var all []struct{ ID string }
	v.get("/v2/deployments", &all)
	ids := make([]string, len(all))
	for i, d := range all {
		ids[i] = d.ID
	}
	return ids
}

// env is what an app says of itself, so that it is seen which definition counts.
func (v *victims) env(id string) string {
	var a struct {
		App struct {
			Instances int
			Env       map[string]string
		}
	}
	if _, body, err := v.request("GET", v.Marathon+"/v2/apps"+id, ""); err != nil || json.Unmarshal([]byte(body), &a) != nil {
		return ""
	}
	return fmt.Sprintf("%s x %d", a.App.Env["V"], a.App.Instances)
}

// definition is an app of probes, which are checked. Version "ill" runs, and is never healthy.
func (v *victims) definition(id, version string, instances int, more ...string) map[string]any {
	v.t.Helper()
	self, err := os.Executable()
	if err != nil {
		v.t.Fatal(err)
	}
	cmd := "exec " + self
	if version == "ill" {
		cmd = fmt.Sprintf(": >%s/ill-$MESOS_TASK_ID.$$; exec sleep 1000", v.probes)
	}
	def := map[string]any{
		"id": id, "cmd": cmd, "cpus": 0.02, "mem": 32, "instances": instances, "backoffSeconds": 1,
		"env": map[string]string{probeVariable: v.probes, "V": version}, "portDefinitions": []map[string]any{{"port": 0, "name": "http"}},
		"healthChecks":    []map[string]any{{"protocol": "HTTP", "portIndex": 0, "path": "/", "intervalSeconds": 1, "gracePeriodSeconds": 120}},
		"upgradeStrategy": map[string]any{"minimumHealthCapacity": 1, "maximumOverCapacity": 0.5},
	}
	for _, m := range more {
		if err := json.Unmarshal([]byte(m), &def); err != nil {
			v.t.Fatal(err)
		}
	}
	return def
}

func text(def map[string]any) string {
	body, _ := json.Marshal(def)
	return string(body)
}

// put is a request for a definition of /web.
func (v *victims) put(version string, instances int, query string) {
	v.ask("PUT", "/v2/apps/web"+query, text(v.definition("/web", version, instances)), func() bool {
		return v.env("/web") == fmt.Sprintf("%s x %d", version, instances)
	})
}

// group is a request for one whose apps depend on each other.
func (v *victims) group(version string) {
	members := []map[string]any{
		v.definition("db", version, 2), v.definition("api", version, 2, `{"dependencies":["db"]}`), v.definition("ui", version, 1, `{"dependencies":["/g/api"]}`),
	}
	v.ask("PUT", "/v2/groups", text(map[string]any{"id": "/g", "apps": members}), func() bool { return v.env("/g/ui") == version+" x 1" })
}

// missing is whether the API says so of a page.
func (v *victims) missing(path string) func() bool {
	return func() bool {
		status, _, _ := v.request("GET", v.Marathon+path, "")
		return status == http.StatusNotFound
	}
}

// stuck brings /web to where an upgrade to tasks that are never healthy stands still.
func (v *victims) stuck(instances int) string {
	v.t.Helper()
	v.put("ill", instances, "")
	Eventually(v.t, time.Minute, "ill tasks run", func() error {
		if _, ill := v.watch.alive("web"); ill == 0 {
			return errors.New("none")
		}
		return nil
	})
	ids := v.deployments()
	if len(ids) != 1 {
		v.t.Fatalf("deployments %v, want one", ids)
	}
	return ids[0]
}

// version is that of an app's definition, as soon as there is somebody to say it.
func (v *victims) version(id string) string {
	v.t.Helper()
	var a struct{ App struct{ Version string } }
	v.get("/v2/apps"+id, &a)
	return a.App.Version
}
