package network

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"starling/master/mesos"
)

// Names of networks that are always there.
const (
	// None is a namespace with nothing but a loopback device.
	None = "none"
	// Host is the network of the node.
	Host = "host"
)

// Mapping leads a port of the node to one of a container.
type Mapping struct {
	Protocol        string `json:"protocol"`
	Host, Container uint16
}

// String names the node's side.
func (m Mapping) String() string { return fmt.Sprintf("%d/%s", m.Host, m.Protocol) }

// joining is one network that a container joins.
type joining struct {
	// network is the name; bridge tells that it is ours, else it is of CNI. Neither is set for None.
	network  string
	bridge   bool
	address  netip.Addr // asked for; the zero value is any
	mappings []Mapping
	info     *mesos.NetworkInfo
}

// plan is what a request comes to.
type plan struct {
	own      bool // a namespace of its own
	hostname string
	joins    []joining
}

// read turns a request into a plan. The error lists all faults.
func (n *Networks) read(req Request) (plan, error) {
	var p plan
	var faults []error
	p.hostname = req.Container.GetHostname()
	if p.hostname != "" && !validHostname(p.hostname) {
		faults = append(faults, fmt.Errorf("hostname %q is not made of letters, digits, dots and dashes, at most 64", p.hostname))
	}
	var own, host, none int
	ports := map[string]bool{}
	for _, info := range req.Container.GetNetworkInfos() {
		j := joining{network: info.GetName(), bridge: info.GetName() == n.cfg.Name, info: info}
		switch info.GetName() {
		case "", Host:
			host++
			if len(info.GetPortMappings()) > 0 {
				faults = append(faults, errors.New("port mappings need a network of a name: a task in the node's network listens on the node's ports"))
			}
			continue
		case None:
			none++
			if len(info.GetPortMappings()) > 0 {
				faults = append(faults, fmt.Errorf("network %q has no port mappings", None))
			}
		default:
			own++
			var err error
			if j.mappings, err = readMappings(info, ports); err != nil {
				faults = append(faults, err)
			}
			if j.address, err = readAddress(info); err != nil {
				faults = append(faults, err)
			}
			if err := n.known(j); err != nil {
				faults = append(faults, err)
			}
		}
		p.joins = append(p.joins, j)
	}
	if own+none > 0 && host > 0 || none > 0 && own > 0 || none > 1 {
		faults = append(faults, errors.New("the node's network, none, and networks of other names exclude each other"))
	}
	for i, a := range p.joins {
		for _, b := range p.joins[:i] {
			if a.network == b.network && a.network != None {
				faults = append(faults, fmt.Errorf("network %q is asked for twice", a.network))
			}
		}
	}
	p.own = own+none > 0
	if err := errors.Join(faults...); err != nil {
		return plan{}, fmt.Errorf("cannot make the network of a container: %w", err)
	}
	return p, nil
}

// known tells whether a network of that name is there and can do what is asked.
func (n *Networks) known(j joining) error {
	if j.bridge {
		return nil // whether an address is to be had is seen when it is taken
	}
	if n.cfg.CNIConfigDir == "" {
		return fmt.Errorf("network %q is unknown: this agent has %q, and no CNI networks", j.network, n.cfg.Name)
	}
	list, err := findCNI(n.cfg.CNIConfigDir, j.network)
	if err != nil {
		return err
	}
	if len(j.mappings) > 0 && !list.mapsPorts() {
		return fmt.Errorf("network %q maps no ports: none of its plugins has the capability portMappings", j.network)
	}
	return nil
}

func readMappings(info *mesos.NetworkInfo, seen map[string]bool) ([]Mapping, error) {
	var out []Mapping
	var faults []error
	for _, m := range info.GetPortMappings() {
		for _, port := range []uint32{m.GetHostPort(), m.GetContainerPort()} {
			if port == 0 || port > 65535 {
				faults = append(faults, fmt.Errorf("port mapping %d:%d: port %d is not between 1 and 65535", m.GetHostPort(), m.GetContainerPort(), port))
			}
		}
		protocol := strings.ToLower(m.GetProtocol())
		if protocol == "" {
			protocol = "tcp"
		}
		for each := range strings.SplitSeq(protocol, ",") {
			if each != "tcp" && each != "udp" {
				faults = append(faults, fmt.Errorf("port mapping %d:%d: protocol %q is neither tcp nor udp", m.GetHostPort(), m.GetContainerPort(), m.GetProtocol()))
				continue
			}
			one := Mapping{Protocol: each, Host: uint16(m.GetHostPort()), Container: uint16(m.GetContainerPort())}
			if seen[one.String()] {
				faults = append(faults, fmt.Errorf("host port %s is mapped twice", one))
			}
			seen[one.String()] = true
			out = append(out, one)
		}
	}
	return out, errors.Join(faults...)
}

// readAddress returns the address that was asked for; without one any will do.
func readAddress(info *mesos.NetworkInfo) (netip.Addr, error) {
	var out netip.Addr
	for _, a := range info.GetIpAddresses() {
		if a.GetIpAddress() == "" {
			if a.GetProtocol() == mesos.NetworkInfo_IPv6 {
				return out, fmt.Errorf("network %q has no IPv6 addresses", info.GetName())
			}
			continue
		}
		parsed, err := netip.ParseAddr(a.GetIpAddress())
		if err != nil || !parsed.Is4() {
			return out, fmt.Errorf("network %q: %q is not an IPv4 address", info.GetName(), a.GetIpAddress())
		}
		if out.IsValid() {
			return out, fmt.Errorf("network %q: more than one address is asked for", info.GetName())
		}
		out = parsed
	}
	return out, nil
}

var hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

func validHostname(name string) bool { return len(name) <= 64 && hostname.MatchString(name) }

// hostnameOf is what a container in a namespace of its own is called where nobody says: its id, made fit.
func hostnameOf(id string) string {
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, id), "-")
	if len(name) > 63 {
		name = strings.Trim(name[:63], "-")
	}
	if name == "" {
		return "container"
	}
	return name
}
