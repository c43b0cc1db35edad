package hosts

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Flock is agents of one cluster on a network, one on each host.
type Flock struct {
	*Network
	Agents []*Agent
	// MasterProcess and MarathonProcess are those of a flock with tasks.
	MasterProcess, MarathonProcess *Process
}

// Agent is an agent on a host.
type Agent struct {
	*Process
	Host *Host
	// Dir is its work folder.
	Dir string
	// ID is its name in the mesh.
	ID string
}

// NewFlock starts agents on n hosts of a new network, which are told the key of their cluster and the flags given, no more.
func NewFlock(t testing.TB, n int, flags ...string) *Flock {
	t.Helper()
	f := &Flock{Network: NewNetwork(t, n)}
	f.Agents = f.start(f.Hosts, flags...)
	return f
}

// start starts agents with a key of their own on some of the hosts.
func (w *Network) start(on []*Host, flags ...string) []*Agent {
	w.t.Helper()
	flags = append([]string{"--cluster-key-file", newKey(w.t)}, flags...)
	var agents []*Agent
	for _, h := range on {
		agents = append(agents, h.Agent(workDir(w.t), flags...))
	}
	for _, a := range agents {
		a.Ready()
	}
	return agents
}

// NewFlockWithTasks is NewFlock with a master and Marathon on one more host, the last. The host names of the agents are their
// addresses.
func NewFlockWithTasks(t testing.TB, n int, flags ...string) (*Flock, *Cluster) {
	t.Helper()
	return newFlockWithTasks(t, n, nil, "", flags...)
}

// newFlockWithTasks is NewFlockWithTasks with further flags for Marathon, and the user:password that these make it ask for.
func newFlockWithTasks(t testing.TB, n int, marathon []string, credentials string, flags ...string) (*Flock, *Cluster) {
	t.Helper()
	f := &Flock{Network: NewNetwork(t, n+1)}
	key := newKey(t)
	for _, h := range f.Hosts[:n] {
		f.Agents = append(f.Agents, h.Agent(workDir(t), append([]string{
			"--cluster-key-file", key, "--hostname", h.Addr, "--resources=cpus:64;mem:65536;disk:10000;ports:[31000-32000]",
		}, flags...)...))
	}
	h := f.Hosts[n]
	c := &Cluster{
		t: t, network: f.Network, Marathon: "http://" + h.Addr + ":8080", Master: "http://" + h.Addr + ":5050",
		DNS: f.Hosts[0].Addr + ":53", probes: t.TempDir(),
	}
	f.MasterProcess = h.Start(c.Master+"/health", "master", "master", "--work-dir", t.TempDir(), "--cluster-key-file", key)
	if credentials != "" {
		c.Marathon = "http://" + credentials + "@" + h.Addr + ":8080"
	}
	f.MarathonProcess = h.Start(c.Marathon+"/health", "marathon", append([]string{
		"marathon", "--work-dir", t.TempDir(), "--hostname", h.Addr, "--master", c.Master,
	}, marathon...)...)
	for _, a := range f.Agents {
		a.Ready()
	}
	c.Has(n)
	return f, c
}

// newKey makes a file with a new cluster key.
func newKey(t testing.TB) string {
	t.Helper()
	key, err := exec.Command(binary, "keygen").Output()
	if err != nil {
		t.Fatalf("starling keygen: %v", err)
	}
	file := filepath.Join(t.TempDir(), "cluster.key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Agent starts an agent on the host without waiting for it; see Ready.
func (h *Host) Agent(dir string, flags ...string) *Agent {
	h.network.t.Helper()
	a := &Agent{Host: h, Dir: dir}
	a.Process = launch(h.network.t, h, fmt.Sprint("agent ", h.number), append([]string{"agent", "--work-dir", dir}, flags...)...)
	return a
}

// at is a port of the host.
func (h *Host) at(port int) string { return net.JoinHostPort(h.Addr, strconv.Itoa(port)) }

// url is that of the agent's HTTP API.
func (a *Agent) url(path string) string { return "http://" + a.Host.at(5051) + path }

// Ready waits until the agent is healthy.
func (a *Agent) Ready() {
	a.t.Helper()
	a.Healthy(a.url("/health"))
	id, err := os.ReadFile(filepath.Join(a.Dir, "agent-id"))
	if err != nil {
		a.t.Fatal(err)
	}
	a.ID = strings.TrimSpace(string(id))
}

// Restart starts the agent again, with other flags beside its work folder and key if any are given.
func (a *Agent) Restart(flags ...string) {
	a.t.Helper()
	if len(flags) > 0 {
		a.args = append(slices.Clone(a.args[:5]), flags...) // agent --work-dir DIR --cluster-key-file FILE
	}
	a.run()
	a.Ready()
}

// Member is what an agent says of a node of the mesh.
type Member struct {
	Name       string `json:"name"`
	State      string `json:"state"`
	Address    string `json:"address"`
	Version    uint64 `json:"version"`
	Generation uint64 `json:"generation"`
	Tasks      int    `json:"tasks"`
	AgentID    string `json:"agent_id"` // empty for a master
}

// Members is the agent's view of the mesh, by name.
func (a *Agent) Members() (map[string]Member, error) {
	_, body, err := a.request("GET", a.url("/mesh/members"), "")
	if err != nil {
		return nil, err
	}
	return members(body)
}

// members reads a view of the mesh.
func members(body string) (map[string]Member, error) {
	var list []Member
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return nil, err
	}
	byName := map[string]Member{}
	for _, m := range list {
		byName[m.Name] = m
	}
	return byName, nil
}

// Record is what the agent holds of a node's record: keys with their versions and values.
func (a *Agent) Record(node *Agent) (string, error) {
	_, body, err := a.request("GET", a.url("/mesh/nodes/"+node.ID), "")
	if err != nil {
		return "", err
	}
	var v struct{ Keys json.RawMessage }
	err = json.Unmarshal([]byte(body), &v)
	return string(v.Keys), err
}

// Names is what the agent's DNS server answers, all of it but its own address as a name server.
func (a *Agent) Names() (string, error) {
	_, body, err := a.request("GET", "http://"+a.Host.at(8123)+"/v1/axfr", "")
	if err != nil {
		return "", err
	}
	var v struct {
		Records map[string]map[string][]string
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return "", err
	}
	for _, byName := range v.Records { // the list has no order, so that one and the same zone is one and the same text it gets one
		delete(byName, "ns1.mesos.")
		for _, values := range byName {
			slices.Sort(values)
		}
	}
	text, err := json.Marshal(v.Records)
	return string(text), err
}

// Metric reads one of the agent's metrics, named with its labels as in name{label="value"}.
func (a *Agent) Metric(name string) (float64, error) {
	_, body, err := a.request("GET", a.url("/metrics/prometheus"), "")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// agree tells why the views of the agents are not the same and whole: each of them holds all of them for alive, at their
// addresses, with equally new records. Other agents may be remembered, if not as alive; masters are none.
func agree(agents ...*Agent) error {
	var first map[string]Member
	for _, a := range agents {
		view, err := a.Members()
		if err != nil {
			return err
		}
		for _, o := range agents {
			if m := view[o.ID]; m.State != "alive" || m.Address != o.Host.at(7946) {
				return fmt.Errorf("%s holds %s for %q at %q", a.name, o.name, m.State, m.Address)
			}
		}
		for _, m := range view {
			if slices.ContainsFunc(agents, func(o *Agent) bool { return o.ID == m.Name }) {
				continue
			}
			if m.AgentID != "" && (m.State == "alive" || m.State == "suspect") {
				return fmt.Errorf("%s holds %s for %s, who is not there", a.name, m.Name, m.State)
			}
			delete(view, m.Name)
		}
		if first == nil {
			first = view
		}
		if !maps.Equal(first, view) {
			return fmt.Errorf("%s sees %v, %s sees %v", agents[0].name, first, a.name, view)
		}
	}
	return nil
}

// viewPace is the pause between two looks at the views of a flock, which cost something under the race detector.
const viewPace = 100 * time.Millisecond

// Agree waits until the agents see each other alive, and nobody else, with equally new records.
func Agree(t testing.TB, limit time.Duration, agents ...*Agent) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, limit, viewPace, fmt.Sprintf("%d agents agree", len(agents)), func() error { return agree(agents...) })
	return time.Since(began)
}

// sees tells why not all of the agents hold a node for one of the states.
func sees(agents []*Agent, node string, states ...string) error {
	for _, a := range agents {
		view, err := a.Members()
		if err != nil {
			return err
		}
		if got := view[node].State; !slices.Contains(states, got) {
			return fmt.Errorf("%s holds it for %q", a.name, got)
		}
	}
	return nil
}

// See waits until all of the agents hold a node for one of the states.
func See(t testing.TB, limit time.Duration, agents []*Agent, node *Agent, states ...string) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, limit, viewPace, fmt.Sprintf("all hold %s for %v", node.name, states), func() error { return sees(agents, node.ID, states...) })
	return time.Since(began)
}

// without returns the agents but some.
func without(agents []*Agent, but ...*Agent) []*Agent {
	return slices.DeleteFunc(slices.Clone(agents), func(a *Agent) bool { return slices.Contains(but, a) })
}

// Change is a line of an agent's log by which another node changed to a state that lasts: alive, dead or left.
type Change struct {
	By, Of     string // ids
	State, Was string
}

// Mark is a place in the agent's log, which Changes counts from.
func (a *Agent) Mark() int { return len(a.out.String()) }

// Since returns the lines of the agent's log since a mark.
func (a *Agent) Since(mark int) string { return a.out.String()[mark:] }

// Changes returns what the agent logged since a mark of others' coming and going. Suspicions are not among it.
func (a *Agent) Changes(mark int) []Change {
	var changes []Change
	for line := range strings.Lines(a.Since(mark)) {
		if !strings.Contains(line, `msg="node changed"`) {
			continue
		}
		c := Change{By: a.ID}
		for field := range strings.FieldsSeq(line) {
			key, value, _ := strings.Cut(field, "=")
			switch key {
			case "peer":
				c.Of = value
			case "state":
				c.State = value
			case "was":
				c.Was = value
			}
		}
		changes = append(changes, c)
	}
	return changes
}

// During runs f while it asks the agents for their views again and again, and calls check with each of them. It ends with
// the first error that check returns.
func During(t testing.TB, agents []*Agent, check func(a *Agent, view map[string]Member) error, f func()) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- func() error {
			for {
				for _, a := range agents {
					view, err := a.Members()
					if err == nil {
						err = check(a, view)
					}
					if err != nil {
						return err
					}
				}
				select {
				case <-stop:
					return nil
				case <-time.After(5 * viewPace):
				}
			}
		}()
	}()
	defer func() { // also when f ends the test
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	f()
}
