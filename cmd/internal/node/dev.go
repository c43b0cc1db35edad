package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"starling/agent/inventory"
	"starling/cmd/internal/flags"
	"starling/gossip"
	"starling/master/mesos/resources"
)

// devFlags are the settings of a whole cluster in one process.
type devFlags struct {
	agents                              int
	meshPort                            flags.Port // that of the master
	masterPort, agentPort, marathonPort flags.Port
	keepTasks, ui                       bool
	agent                               agentFlags
	master                              masterFlags
	marathon                            marathonFlags
	dns                                 dnsFlags
}

// Dev runs an agent or several, a master, Marathon and DNS in one process on this machine.
func Dev(ctx context.Context, io Streams, args, environ []string) error {
	set := flags.New("starling dev", "STARLING_")
	c := common{stderr: io.Err}
	d := devFlags{masterPort: masterPort, agentPort: agentPort, marathonPort: marathonPort}
	c.register(set, "dev")
	c.ip, c.logLevel = "127.0.0.1", "warn"
	set.Lookup("ip").DefValue, set.Lookup("log-level").DefValue = "127.0.0.1", "warn"
	d.agent.mesh.register(set)
	d.agent.mesh.discover, d.agent.mesh.profile = false, gossip.ProfileLocal
	set.Lookup("discover").DefValue, set.Lookup("mesh-profile").DefValue = "false", gossip.ProfileLocal
	d.dns.register(set, dnsPortElse, "dns-config")
	d.agent.register(set)
	d.master.register(set)
	d.marathon.register(set)
	set.IntVar(&d.agents, "agents", 1, "how `many` agents; the next ones get the next ports")
	set.Var(&d.masterPort, "master-port", "the `port` of the master")
	set.Var(&d.agentPort, "agent-port", "the `port` of the first agent")
	set.Var(&d.marathonPort, "marathon-port", "the `port` of Marathon")
	set.BoolVar(&d.keepTasks, "keep-tasks", false, "leave the tasks running when this process ends; the next dev finds them again")
	set.BoolVar(&d.ui, "ui", false, "open the user interface; there is none yet, and this changes nothing")
	if err := parse(io, set, "A whole cluster in one process on this machine: no ZooKeeper, no Docker, no root needed.", args, environ); err != nil {
		return err
	}
	if d.agents < 1 || d.agents > 100 {
		return usagef("--agents: %d is not between 1 and 100", d.agents)
	}
	if d.master.zk.given() {
		return usagef("--zk: dev has one master, which leads by itself")
	}
	if err := d.dns.read(set); err != nil {
		return err
	}
	all, err := newRole("dev", set, &c)
	if err != nil {
		return err
	}
	if err := d.build(all); err != nil {
		all.abandon()
		return err
	}
	return all.run(ctx, io)
}

// part makes a role of its own inside of dev: its own folder and metrics, the rest shared.
func (r *role) part(name string, c *common) (*role, error) {
	own := *c
	own.workDir = flags.Path(filepath.Join(r.place.dir, name))
	return newRole(name, r.set, &own)
}

// take moves a part's components and listeners into the whole.
func (r *role) take(p *role) {
	r.components = append(r.components, p.components...)
	r.closers = append(r.closers, p.closers...)
	r.ready = append(r.ready, p.ready...)
	for _, l := range p.listening {
		r.listening = append(r.listening, p.name+" "+l)
	}
}

func (d *devFlags) build(all *role) error {
	aside := func(flag string) bool { return !all.set.IsSet(flag) }
	// The master is the first member of the mesh, and everyone else's seed.
	meshPort, err := freePort(all.place.bind, int(d.agent.mesh.port))
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	if meshPort != int(d.agent.mesh.port) && !aside("mesh-port") {
		return fmt.Errorf("cannot listen for the mesh: port %d is in use", d.agent.mesh.port)
	}
	m, err := all.part("master", all.common)
	if err != nil {
		return err
	}
	d.master.mesh = d.agent.mesh
	d.master.mesh.port, d.master.port = flags.Port(meshPort), d.masterPort
	err = m.master(&d.master, aside("master-port"))
	all.take(m)
	if err != nil {
		return err
	}
	d.meshPort = flags.Port(meshPort)
	seed := net.JoinHostPort(all.place.address, strconv.Itoa(meshPort))
	d.agent.mesh.join = append(flags.List{seed}, d.agent.mesh.join...)
	for i := range d.agents {
		if err := d.addAgent(all, i, aside); err != nil {
			return err
		}
	}
	p, err := all.part("marathon", all.common)
	if err != nil {
		return err
	}
	d.master.region, d.master.zone = d.agent.region, d.agent.zone
	d.marathon.port, d.marathon.masters = d.marathonPort, mastersFlag{addresses: []string{m.httpAddress}}
	err = p.marathon(&d.marathon, aside("marathon-port"))
	all.take(p)
	return err
}

// addAgent adds one of the agents. The first one answers DNS; each has its own share of the host's ports, since tasks of
// different agents meet on one machine here.
func (d *devFlags) addAgent(all *role, i int, aside func(string) bool) error {
	part, err := all.part("agent"+suffix(i), all.common)
	if err != nil {
		return err
	}
	a := d.agent
	a.port = d.agentPort
	if a.port != 0 {
		a.port += flags.Port(i)
	}
	if a.mesh.port, err = d.agentMeshPort(all.place.bind, i); err != nil {
		return err
	}
	if i == 0 {
		a.dns = d.dns
	}
	if d.agents > 1 {
		if a.resources, err = share(a.resources, part.place.dir, i, d.agents); err != nil {
			return &UsageError{fmt.Errorf("--resources: %w", err)}
		}
	}
	err = part.agent(&a, agentOptions{
		portAside: aside("agent-port") || i > 0, dnsAside: aside("dns-port"), httpAside: aside("dns-http-port"), endTasks: !d.keepTasks,
	})
	all.take(part)
	return err
}

// agentMeshPort finds a port behind the master's that is free, and that no other part is going to want.
func (d *devFlags) agentMeshPort(ip string, i int) (flags.Port, error) {
	wanted := []flags.Port{d.masterPort, d.marathonPort, d.dns.port, d.dns.httpPort}
	for n := range d.agents {
		wanted = append(wanted, d.agentPort+flags.Port(n))
	}
	for port := d.meshPort + 1 + flags.Port(i); port < 65535; {
		free, err := freePort(ip, int(port))
		if err != nil {
			return 0, fmt.Errorf("mesh: %w", err)
		}
		if port = flags.Port(free); !slices.Contains(wanted, port) {
			return port, nil
		}
		port++
	}
	return 0, fmt.Errorf("mesh: no port is free behind %d", d.meshPort)
}

func suffix(i int) string {
	if i == 0 {
		return ""
	}
	return "-" + strconv.Itoa(i+1)
}

// share gives each of several agents on one machine an equal part of what there is.
func share(text, dir string, i, n int) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	total, _, err := inventory.ThisMachine().Detect(inventory.Config{Resources: text, WorkDir: dir})
	if err != nil {
		return "", err
	}
	var parts []string
	for _, name := range []string{"cpus", "mem", "disk", "gpus"} {
		if v := total.Scalar(name); v > 0 {
			parts = append(parts, fmt.Sprintf("%s:%.3f", name, float64(v)/1000/float64(n)))
		}
	}
	parts = append(parts, "ports:"+sharePorts(total.Ports(), i, n))
	return strings.Join(parts, ";"), nil
}

// sharePorts cuts every range into n equal pieces and returns the i-th of each.
func sharePorts(ranges []resources.Range, i, n int) string {
	text := ""
	for _, r := range ranges {
		size := (r.End - r.Begin + 1) / uint64(n)
		if size == 0 {
			continue
		}
		if text != "" {
			text += ","
		}
		begin := r.Begin + uint64(i)*size
		text += fmt.Sprintf("%d-%d", begin, begin+size-1)
	}
	return "[" + text + "]"
}
