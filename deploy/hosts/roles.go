package hosts

import (
	"fmt"
	"testing"
)

// Roles is a cluster of separate processes: a master and Marathon on 127.0.0.1, agents on 127.0.0.1, .2, .3 and so on.
type Roles struct {
	*Cluster
	MasterProcess, MarathonProcess *Process
	masterHealth                   string
	Agents                         []*Process
	// AgentDirs are the agents' work folders.
	AgentDirs   []string
	agentHealth []string
}

// Separate starts a cluster of separate processes, whose agents know one seed.
func Separate(t testing.TB, agents int) *Roles {
	t.Helper()
	dirs := make([]string, agents)
	for i := range dirs {
		dirs[i] = workDir(t)
	}
	return SeparateIn(t, dirs)
}

// SeparateIn is Separate with work folders of the agents' that are there, and further flags for them.
func SeparateIn(t testing.TB, dirs []string, flags ...string) *Roles {
	t.Helper()
	const first = "127.0.0.1"
	mesh := FreePort(t, first)
	seed := fmt.Sprintf("%s:%d", first, mesh)
	masterPort, marathonPort, dns := FreePort(t, first), FreePort(t, first), FreePort(t, first)
	r := &Roles{Cluster: &Cluster{
		t: t, Marathon: fmt.Sprintf("http://%s:%d", first, marathonPort), Master: fmt.Sprintf("http://%s:%d", first, masterPort),
		DNS: fmt.Sprintf("%s:%d", first, dns), probes: t.TempDir(),
	}}
	r.masterHealth = r.Master + "/health"
	for i, dir := range dirs {
		ip := fmt.Sprintf("127.0.0.%d", i+1)
		agentMesh, agentDNS := mesh, dns
		if i > 0 {
			agentMesh, agentDNS = FreePort(t, ip), FreePort(t, ip)
		}
		port := FreePort(t, ip)
		r.AgentDirs = append(r.AgentDirs, dir)
		health := fmt.Sprintf("http://%s:%d/health", ip, port)
		args := []string{
			"agent", "--ip", ip, "--work-dir", dir, fmt.Sprint("--port=", port), fmt.Sprint("--mesh-port=", agentMesh),
			fmt.Sprint("--dns-port=", agentDNS), "--dns-http-port=0", "--no-discover", "--mesh-profile=local",
			fmt.Sprintf("--resources=cpus:2;mem:32768;disk:1000;ports:[%d-%d]", 31000+i*300, 31299+i*300),
		}
		if i > 0 {
			args = append(args, "--join", seed)
		}
		args = append(args, flags...)
		r.Agents = append(r.Agents, Start(t, health, fmt.Sprint("agent ", i+1), args...))
		r.agentHealth = append(r.agentHealth, health)
	}
	r.MasterProcess = Start(t, r.masterHealth, "master", "master", "--ip", first, "--work-dir", t.TempDir(), fmt.Sprint("--port=", masterPort),
		fmt.Sprint("--mesh-port=", FreePort(t, first)), "--join", seed, "--no-discover", "--mesh-profile=local")
	r.MarathonProcess = Start(t, r.Marathon+"/health", "marathon", "marathon", "--work-dir", t.TempDir(), "--http-address", first,
		fmt.Sprint("--http-port=", marathonPort), "--hostname", first, fmt.Sprintf("--master=http://%s:%d", first, masterPort))
	r.Has(len(dirs))
	return r
}
