package docker

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"starling/agent/containerizer"
	"starling/master/mesos"
)

// The labels of a container. labelOwner tells whose it is (the state folder, and so the agent on this machine), labelAgent
// under which id that agent was known.
const (
	labelPrefix = "starling."
	labelOwner  = "starling.owner"
	labelAgent  = "starling.agent"
	labelID     = "starling.container"
	labelNote   = "starling.note"
	labelStdout = "starling.stdout"
	labelStderr = "starling.stderr"
)

// namePrefix begins the names of all containers, as tools that look for them expect.
const namePrefix = "mesos-"

const (
	minShares = 2
	minQuota  = 1000
	period    = 100_000
	minMemory = 32 << 20
)

// plan turns a spec into what the engine is asked for. It touches nothing but, for volumes within the sandbox, the sandbox.
func (c *Containerizer) plan(spec *containerizer.Spec) (*plan, error) {
	info, d := spec.Container, spec.Container.GetDocker()
	switch {
	case spec.ID == "" || strings.Trim(spec.ID, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "":
		return nil, fmt.Errorf("container id %q has characters that Docker does not allow in names", spec.ID)
	case spec.Parent != "":
		return nil, fmt.Errorf("%w: containers of Docker cannot have others within", containerizer.ErrUnsupported)
	case info.GetType() != mesos.ContainerInfo_DOCKER || d == nil:
		return nil, fmt.Errorf("container type not supported by the Docker engine: %v", info.GetType())
	case d.GetImage() == "":
		return nil, errors.New("container names no Docker image")
	case info.GetLinuxInfo() != nil:
		return nil, errors.New("linux_info is for containers of type MESOS; use the parameters of Docker")
	case len(spec.Note) > containerizer.NoteMax:
		return nil, fmt.Errorf("note of %d bytes is longer than %d", len(spec.Note), containerizer.NoteMax)
	}
	p := &plan{
		Name: namePrefix + spec.ID, Image: d.GetImage(), Hostname: info.GetHostname(), Privileged: d.GetPrivileged(),
		TTY: info.GetTtyInfo() != nil,
		Labels: map[string]string{
			labelOwner: c.owner, labelAgent: c.cfg.AgentID, labelID: spec.ID,
			labelNote: base64.StdEncoding.EncodeToString(spec.Note), labelStdout: spec.Stdout, labelStderr: spec.Stderr,
		},
	}
	p.command(spec.Command)
	p.Env = environment(spec.Env, "MESOS_SANDBOX="+c.cfg.SandboxDirectory, "MESOS_CONTAINER_NAME="+p.Name)
	l := c.limits(spec.Limits)
	p.Shares, p.Quota, p.Memory, p.Reservation, p.MemoryPlus = l.Shares, l.Quota, l.Memory, l.Reservation, l.Swap
	for _, r := range info.GetRlimitInfo().GetRlimits() {
		soft, hard := int64(-1), int64(-1)
		if r.Soft != nil && r.Hard != nil {
			soft, hard = int64(r.GetSoft()), int64(r.GetHard())
		}
		p.Ulimits = append(p.Ulimits, ulimit{strings.ToLower(strings.TrimPrefix(r.GetType().String(), "RLMT_")), soft, hard})
	}
	if err := c.volumes(p, spec); err != nil {
		return nil, err
	}
	if err := p.network(info); err != nil {
		return nil, err
	}
	if p.Network == "host" && p.Hostname != "" {
		// Mesos says so, too. The parameter is between whoever gives it and the engine, which takes it.
		return nil, errors.New("a container in the network of the node cannot have a hostname of its own")
	}
	for _, param := range d.GetParameters() {
		if err := p.parameter(param.GetKey(), param.GetValue()); err != nil {
			return nil, fmt.Errorf("Docker parameter %q with value %q: %w", param.GetKey(), param.GetValue(), err)
		}
	}
	c.nameServers(p)
	if err := c.check(p); err != nil {
		return nil, err
	}
	// What comes from the agent itself is not judged.
	if err := c.own(p, spec); err != nil {
		return nil, err
	}
	return p, nil
}

// nameServers gives the container the name servers that are set for its network, unless its parameters set any.
func (c *Containerizer) nameServers(p *plan) {
	if len(p.DNS)+len(p.DNSSearch)+len(p.DNSOptions) > 0 || p.Network == "none" || strings.HasPrefix(p.Network, "container:") {
		return
	}
	mode := "USER"
	if p.Network == "host" || p.Network == "bridge" {
		mode = strings.ToUpper(p.Network)
	}
	if d, ok := c.cfg.DNS.Docker(mode, p.Network); ok {
		p.DNS, p.DNSSearch, p.DNSOptions = d.Nameservers, d.Search, d.Options
	}
}

// own adds the sandbox, the persistent volumes and the devices that the task has as resources.
func (c *Containerizer) own(p *plan, spec *containerizer.Spec) error {
	if err := bind(&p.Binds, spec.Dir, c.cfg.SandboxDirectory, "rw"); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	p.Binds = append(p.Binds, p.sandbox...)
	for _, m := range spec.Mounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		if err := bind(&p.Binds, m.Source, c.inside(m.Target), mode); err != nil {
			return fmt.Errorf("volume %s: %w", m.Target, err)
		}
	}
	for _, path := range spec.Devices {
		p.Devices = append(p.Devices, device{path, path, "rwm"})
	}
	return nil
}

// check looks at what is left of the plan when all have had their say: what this package keeps its hands on must not be
// taken from it, and the engine's own door is not for containers.
func (c *Containerizer) check(p *plan) error {
	if len(p.Ports) > 0 && (p.Network == "host" || p.Network == "none" || strings.HasPrefix(p.Network, "container:")) {
		return errors.New("Port mappings are only supported for bridge and user-defined networks")
	}
	if c.cfg.ForbidPrivileged {
		if right := p.right(); right != "" {
			return fmt.Errorf("%s is not allowed on this node", right)
		}
	}
	for _, bind := range p.Binds {
		if err := c.checkBind(bind); err != nil {
			return fmt.Errorf("volume %q is not allowed: %w", bind, err)
		}
	}
	for _, m := range p.Mounts {
		if err := c.checkVolume(m.Driver, m.Options); err != nil {
			return fmt.Errorf("volume %q is not allowed: %w", m.Name, err)
		}
	}
	if len(p.VolumesFrom) > 0 && len(c.cfg.AllowedHostPaths) > 0 {
		return fmt.Errorf("volumes-from=%s is not allowed: nobody knows what of the node those volumes are", p.VolumesFrom[0])
	}
	return nil
}

// right names something that a container has beyond what the engine gives to all.
func (p *plan) right() string {
	for name, mode := range map[string]string{"pid": p.PID, "ipc": p.IPC, "uts": p.UTS, "userns": p.Userns, "cgroupns": p.CgroupNS} {
		if mode == "host" || strings.HasPrefix(mode, "container:") {
			return name + "=" + mode
		}
	}
	for _, o := range p.SecurityOpt {
		if o != "no-new-privileges" && o != "no-new-privileges=true" && o != "no-new-privileges:true" {
			return "security-opt=" + o
		}
	}
	switch {
	case p.Privileged:
		return "privileged"
	case len(p.CapAdd) > 0:
		return "cap-add=" + p.CapAdd[0]
	case len(p.Devices) > 0:
		return "device=" + p.Devices[0].Host
	case len(p.DeviceRules) > 0:
		return "device-cgroup-rule=" + p.DeviceRules[0]
	case len(p.VolumesFrom) > 0:
		return "volumes-from=" + p.VolumesFrom[0]
	case p.CgroupParent != "":
		return "cgroup-parent=" + p.CgroupParent
	case p.Runtime != "":
		return "runtime=" + p.Runtime
	case p.OOMScore < 0:
		return "oom-score-adj=" + strconv.Itoa(p.OOMScore)
	case strings.HasPrefix(p.Network, "container:"):
		return "net=" + p.Network
	}
	return ""
}

// command says what runs: a shell with the value, or the value and the arguments after the image's entry point.
func (p *plan) command(cmd *mesos.CommandInfo) {
	switch {
	case cmd == nil:
	case cmd.GetShell() && cmd.GetValue() != "":
		p.Entrypoint, p.Command = []string{"/bin/sh"}, []string{"-c", cmd.GetValue()}
	default:
		if cmd.GetValue() != "" {
			p.Command = append(p.Command, cmd.GetValue())
		}
		p.Command = append(p.Command, cmd.GetArguments()...)
	}
}

// environment joins variables; of those with the same name the last counts.
func environment(vars []string, more ...string) []string {
	var out []string
	at := map[string]int{}
	for _, list := range [][]string{vars, more} {
		for _, v := range list {
			name, _, _ := strings.Cut(v, "=")
			if i, ok := at[name]; ok {
				out[i] = v
				continue
			}
			at[name] = len(out)
			out = append(out, v)
		}
	}
	return out
}

// limits turns limits into the engine's.
func (c *Containerizer) limits(l containerizer.Limits) limits {
	var out limits
	if l.CPUs > 0 {
		out.Shares = max(minShares, int64(1024*l.CPUs))
	}
	quota := l.CPULimit
	if quota == 0 && c.cfg.CPUQuota {
		quota = l.CPUs
	}
	if quota > 0 {
		out.Quota = max(minQuota, int64(period*quota))
	}
	limit := l.MemLimit
	if limit == 0 {
		limit = l.MemBytes
	}
	if limit > 0 {
		out.Memory = max(minMemory, limit)
		if c.cfg.LimitSwap {
			out.Swap = out.Memory
		}
	}
	if l.MemLimit != 0 && l.MemBytes > 0 {
		out.Reservation = max(minMemory, l.MemBytes)
		if out.Memory > 0 {
			out.Reservation = min(out.Reservation, out.Memory)
		}
	}
	return out
}

// network chooses the network and the ports.
func (p *plan) network(info *mesos.ContainerInfo) error {
	d := info.GetDocker()
	switch d.GetNetwork() {
	case mesos.ContainerInfo_DockerInfo_HOST:
		p.Network = "host"
	case mesos.ContainerInfo_DockerInfo_BRIDGE:
		p.Network = "bridge"
	case mesos.ContainerInfo_DockerInfo_NONE:
		p.Network = "none"
	case mesos.ContainerInfo_DockerInfo_USER:
		if n := len(info.GetNetworkInfos()); n != 1 || info.GetNetworkInfos()[0].GetName() == "" {
			return fmt.Errorf("a user network needs exactly one network info, with a name; there are %d", n)
		}
		p.Network = info.GetNetworkInfos()[0].GetName()
	default:
		return fmt.Errorf("unknown network %v", d.GetNetwork())
	}
	for _, m := range d.GetPortMappings() {
		proto := strings.ToLower(m.GetProtocol())
		switch proto {
		case "":
			proto = "tcp"
		case "tcp", "udp", "sctp":
		default:
			return fmt.Errorf("port mapping %d -> %d has the unknown protocol %q", m.GetHostPort(), m.GetContainerPort(), m.GetProtocol())
		}
		if m.GetHostPort() > 65535 || m.GetContainerPort() == 0 || m.GetContainerPort() > 65535 {
			return fmt.Errorf("port mapping %d -> %d is not between 1 and 65535", m.GetHostPort(), m.GetContainerPort())
		}
		p.Ports = append(p.Ports, port{Host: strconv.Itoa(int(m.GetHostPort())), Container: fmt.Sprintf("%d/%s", m.GetContainerPort(), proto)})
	}
	return nil
}
