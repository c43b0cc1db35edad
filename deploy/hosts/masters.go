package hosts

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/master/zookeeper/zktest"
)

// Masters is a cluster with several masters, which are elected in a real ZooKeeper: a host for each master with a server of
// ZooKeeper beside it, one for each agent, and one for Marathon.
type Masters struct {
	*Cluster
	Network   *Network
	ZooKeeper *zktest.Ensemble
	Masters   []*Master
	Agents    []*Agent
	// MarathonProcess is nil until StartMarathon.
	MarathonProcess *Process
	// Session is the timeout of the masters' sessions.
	Session time.Duration

	key   string // the file
	quick *http.Client
}

// Master is one of the masters.
type Master struct {
	*Process
	Host *Host
}

// NewMasters makes the hosts, and starts ZooKeeper on them for as long as it takes to know that it works: nothing runs when
// it returns.
func NewMasters(t testing.TB, masters, agents int, session time.Duration) *Masters {
	t.Helper()
	zktest.Need(t)
	w := NewNetwork(t, masters+agents+1)
	m := &Masters{Network: w, Session: session, key: newKey(t)}
	last := w.Hosts[masters+agents]
	m.Cluster = &Cluster{
		t: t, network: w, Marathon: "http://" + last.at(8080), DNS: w.Hosts[masters].at(53), probes: t.TempDir(),
	}
	m.quick = &http.Client{
		Timeout:       15 * time.Second,
		Transport:     &http.Transport{DialContext: w.dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	m.ZooKeeper = zktest.Start(t, zktest.Options{
		Servers: masters, Address: func(i int) string { return w.Hosts[i].Addr },
		Prefix: func(i int) []string { return []string{"ip", "netns", "exec", w.Hosts[i].netns} },
		Dial:   w.dial,
	})
	m.ZooKeeper.Kill()
	m.ZooKeeper.Wipe()
	return m
}

// URL is where the masters are elected.
func (m *Masters) URL() string { return m.ZooKeeper.URL("/mesos") }

// StartMaster starts the next master, and waits until it is ready, which is not to lead.
func (m *Masters) StartMaster() *Master {
	m.t.Helper()
	h := m.Network.Hosts[len(m.Masters)]
	p := h.Start("http://"+h.at(5050)+"/health", fmt.Sprint("master ", h.number), "master", "--work-dir", m.t.TempDir(), "--cluster-key-file", m.key,
		"--hostname", h.Addr, "--zk", m.URL(), "--zk_session_timeout", m.Session.String(), "--quorum=2")
	master := &Master{Process: p, Host: h}
	m.Masters = append(m.Masters, master)
	return master
}

// StartAgent starts the next agent, and does not wait for it.
func (m *Masters) StartAgent() *Agent {
	m.t.Helper()
	h := m.Network.Hosts[len(m.ZooKeeper.Servers)+len(m.Agents)]
	a := h.Agent(workDir(m.t), "--cluster-key-file", m.key, "--hostname", h.Addr, "--resources=cpus:8;mem:8192;disk:10000;ports:[31000-32000]")
	m.Agents = append(m.Agents, a)
	return a
}

// StartMarathon starts Marathon, which finds the masters in ZooKeeper, and waits until it is ready.
func (m *Masters) StartMarathon() {
	m.t.Helper()
	h := m.Network.Hosts[len(m.Network.Hosts)-1]
	m.MarathonProcess = h.Start(m.Marathon+"/health", "marathon", "marathon", "--work-dir", m.t.TempDir(), "--hostname", h.Addr, "--master", m.URL())
}

// Addresses are those of the masters.
func (m *Masters) Addresses() []string {
	var all []string
	for _, h := range m.Network.Hosts[:len(m.ZooKeeper.Servers)] {
		all = append(all, h.at(5050))
	}
	return all
}

// Answer is what a master answered.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Ask asks a master for a page, and follows no redirect.
func (m *Masters) Ask(master *Master, method, path, body string) (Answer, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+master.Host.at(5050)+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := m.quick.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	return Answer{res.StatusCode, res.Header, string(data)}, err
}

// Metric reads one of a master's metrics.
func (m *Masters) Metric(master *Master, name string) (float64, error) {
	a, err := m.Ask(master, "GET", "/metrics/snapshot", "")
	if err != nil {
		return 0, err
	}
	all := map[string]float64{}
	if err := json.Unmarshal([]byte(a.Body), &all); err != nil {
		return 0, fmt.Errorf("metrics: %d %w", a.Status, err)
	}
	value, ok := all[name]
	if !ok {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return value, nil
}

// Leader waits until one of the masters leads, and all of them name that one. Some may be left out: those that are down.
func (m *Masters) Leader(limit time.Duration, but ...*Master) *Master {
	m.t.Helper()
	var leader *Master
	Eventually(m.t, limit, "one master leads, and all say so", func() error {
		leader = nil
		for _, master := range m.Masters {
			if slices.Contains(but, master) {
				continue
			}
			leads, err := m.Metric(master, "master/elected")
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", master.name, err)
			case leads == 1 && leader != nil:
				return fmt.Errorf("both %s and %s lead", leader.name, master.name)
			case leads == 1:
				leader = master
			}
		}
		if leader == nil {
			return fmt.Errorf("nobody leads")
		}
		for _, master := range m.Masters {
			if slices.Contains(but, master) {
				continue
			}
			a, err := m.Ask(master, "GET", "/redirect", "")
			if want := "//" + leader.Host.at(5050); err != nil || a.Status != http.StatusTemporaryRedirect || a.Header.Get("Location") != want {
				return fmt.Errorf("%s sends to %q (%d, %v), want %q", master.name, a.Header.Get("Location"), a.Status, err, want)
			}
		}
		return nil
	})
	return leader
}

// State is what the tests read of /state.
type State struct {
	PID        string  `json:"pid"`
	Leader     string  `json:"leader"`
	Active     float64 `json:"activated_slaves"`
	Agents     []struct{ ID string }
	Frameworks []struct {
		ID, Name  string
		Connected bool
		Tasks     []struct{ ID, State string }
	}
	Completed []struct{ ID string } `json:"completed_frameworks"`
}

// State reads /state of a master that answers it itself.
func (m *Masters) State(master *Master) (*State, error) {
	a, err := m.Ask(master, "GET", "/state", "")
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK {
		return nil, fmt.Errorf("/state: %d %s", a.Status, a.Body)
	}
	s := &State{}
	if err := json.Unmarshal([]byte(a.Body), s); err != nil {
		return nil, err
	}
	return s, nil
}

// tasks lists the running tasks of all frameworks, in order.
func (s *State) tasks() []string {
	var all []string
	for _, f := range s.Frameworks {
		for _, t := range f.Tasks {
			if t.State == "TASK_RUNNING" {
				all = append(all, f.ID+" "+t.ID)
			}
		}
	}
	slices.Sort(all)
	return all
}

// names lists the frameworks, in order.
func (s *State) names() []string {
	var all []string
	for _, f := range s.Frameworks {
		all = append(all, f.Name+" "+f.ID)
	}
	slices.Sort(all)
	return all
}
