package hosts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Marathons is a cluster with one master and several Marathons over one ZooKeeper of three servers: a host for each Marathon
// with a server of ZooKeeper beside it, one for the master and one for each agent.
type Marathons struct {
	*Masters
	All []*Instance
	// Backups is the folder for those of all of them, which share this machine's disk.
	Backups string
}

// Instance is one of the Marathons.
type Instance struct {
	*Process
	Host *Host
	// URL is the base of its HTTP API, Address the host:port in it.
	URL, Address string
}

// NewMarathons starts everything, and waits until one of three Marathons leads.
func NewMarathons(t testing.TB, agents int, session time.Duration) *Marathons {
	t.Helper()
	m := &Marathons{Masters: NewMasters(t, 3, agents, session), Backups: t.TempDir()}
	last := m.Network.Hosts[len(m.Network.Hosts)-1]
	m.ZooKeeper.Start()
	m.ZooKeeper.Wait()
	last.Start("http://"+last.at(5050)+"/health", "master", "master", "--work-dir", t.TempDir(), "--cluster-key-file", m.key, "--hostname", last.Addr)
	for range agents {
		h := m.Network.Hosts[3+len(m.Agents)]
		m.Agents = append(m.Agents, h.Agent(workDir(t), "--cluster-key-file", m.key, "--hostname", h.Addr, "--join", last.Addr,
			"--resources=cpus:8;mem:8192;disk:10000;ports:[31000-32000]"))
	}
	m.Marathon, m.Master = "http://"+m.Network.Hosts[0].at(8080), "http://"+last.at(5050)
	for i := range 3 {
		h := m.Network.Hosts[i]
		one := &Instance{Host: h, Address: h.at(8080), URL: "http://" + h.at(8080)}
		one.Process = h.Start(one.URL+"/health", fmt.Sprint("marathon ", i), "marathon", "--work-dir", t.TempDir(), "--hostname", h.Addr,
			"--master", last.at(5050), "--backup-location", m.Backups, "--zk", m.ZooKeeper.URL("/marathon"), "--zk_session_timeout", fmt.Sprint(session.Milliseconds()))
		m.All = append(m.All, one)
		m.framework() // those that come later remember it from their first look at the store
	}
	for _, a := range m.Agents {
		a.Ready()
	}
	m.Has(agents)
	return m
}

// Named returns who leads by what one of them says, nil where it does not know.
func (m *Marathons) Named(by *Instance) (*Instance, error) {
	_, body, err := m.request("GET", by.URL+"/v2/leader", "")
	if err != nil {
		return nil, err
	}
	var v struct{ Leader string }
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return nil, err
	}
	for _, one := range m.All {
		if one.Address == v.Leader {
			return one, nil
		}
	}
	return nil, fmt.Errorf("%q leads", v.Leader)
}

// Fetch does a request to one of them, and follows no redirect.
func (m *Marathons) Fetch(one *Instance, method, path, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(m.t.Context(), method, one.URL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	res, err := m.quick.Do(req)
	if err == nil {
		res.Body.Close()
	}
	return res, err
}
