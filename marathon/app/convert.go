package app

import (
	"net/url"
	"slices"
	"strings"
)

// checkOldForms refuses what the forms of older versions may not be combined with.
func (d *definition) checkOldForms(p *place, f *faults) {
	if length(d.URIs) > 0 && length(d.Fetch) > 0 {
		f.add(p.field("uris"), "may not be set in conjunction with fetch")
	}
	if length(d.StoreURLs) > 0 {
		f.add(p.field("storeUrls"), "the artifact store is not enabled")
	}
	if d.Ports != nil {
		seen := make(map[int]bool)
		for _, port := range *d.Ports {
			if port != 0 && seen[port] {
				f.add(p.field("ports"), "ports must be unique")
				break
			}
			seen[port] = true
		}
		if d.PortDefinitions != nil && !slices.EqualFunc(*d.Ports, *d.PortDefinitions,
			func(port int, definition PortDefinition) bool { return port == definition.Port }) {
			f.add(p, "cannot specify both ports and port definitions")
		}
	}
	if d.IPAddress != nil {
		if length(d.Ports) > 0 || length(d.PortDefinitions) > 0 {
			f.add(p, "cannot specify both an IP address and port")
		}
		if d.Networks != nil {
			f.add(p, "must not specify both networks and ipAddress")
		}
		if discovery := d.IPAddress.Discovery; discovery != nil && len(discovery.Ports) > 0 &&
			d.Container != nil && d.Container.Type == Docker {
			f.add(p.field("ipAddress").field("discovery").field("ports"), "not supported for container type DOCKER: use portMappings")
		}
	}
	if d.Container != nil && d.Container.Docker != nil {
		d.checkOldDocker(p, f)
	}
}

func (d *definition) checkOldDocker(p *place, f *faults) {
	docker := d.Container.Docker
	at := p.field("container").field("docker")
	if docker.Network != nil {
		if *docker.Network == "NONE" {
			f.add(at.field("network"), "unsupported docker network type")
		}
		if d.Networks != nil {
			f.add(p, "must not specify both container.docker.network and networks")
		}
	}
	if docker.Credential != nil {
		f.add(at.field("credential"), "not supported: name a secret in pullConfig")
	}
	if length(docker.PortMappings) > 0 && length(d.Container.PortMappings) > 0 {
		f.add(at.field("portMappings"), "cannot be combined with container.portMappings")
	}
	if d.Container.Type == Mesos {
		if docker.Network != nil {
			f.add(at.field("network"), "not allowed for container type MESOS")
		}
		if len(docker.Parameters) > 0 {
			f.add(at.field("parameters"), "not allowed for container type MESOS")
		}
		if length(docker.PortMappings) > 0 {
			f.add(at.field("portMappings"), "not allowed for container type MESOS: use container.portMappings")
		}
	}
}

func length[E any](s *[]E) int {
	if s == nil {
		return 0
	}
	return len(*s)
}

// convert turns old forms into those of today. What needs the network mode of the whole app, the ports, is left to finish.
// Nothing that the draft points to is changed.
func (d *definition) convert(s Settings) {
	if d.URIs != nil && length(d.Fetch) == 0 {
		fetch := make([]Fetch, len(*d.URIs))
		for i, uri := range *d.URIs {
			fetch[i] = Fetch{URI: uri, Extract: isArchive(uri)}
		}
		d.Fetch = &fetch
	}
	d.URIs = nil
	if d.PortDefinitions != nil {
		d.Ports = nil // equal to them
	}

	if d.Container != nil {
		container := *d.Container
		d.Container = &container
		if container.Docker != nil {
			docker := *container.Docker
			container.Docker = &docker
			d.convertDocker(&container, &docker, s)
		}
	}
	d.convertIPAddress(s)
}

func (d *definition) convertDocker(container *containerDefinition, docker *dockerDefinition, s Settings) {
	if docker.Network != nil {
		network := Network{Mode: HostNetwork}
		switch *docker.Network {
		case "BRIDGE":
			network.Mode = BridgeNetwork
		case "USER":
			network.Mode = ContainerNetwork
			network.Name = s.DefaultNetworkName
			if d.IPAddress != nil {
				network.Labels = d.IPAddress.Labels
				if d.IPAddress.NetworkName != "" {
					network.Name = d.IPAddress.NetworkName
				}
			}
		default:
			docker.PortMappings = nil // never had an effect with HOST
		}
		d.Networks = &[]Network{network}
		d.IPAddress = nil
	}
	if container.PortMappings == nil || len(*container.PortMappings) == 0 && length(docker.PortMappings) > 0 {
		container.PortMappings = docker.PortMappings
	}
	docker.Network, docker.PortMappings = nil, nil
}

func (d *definition) convertIPAddress(s Settings) {
	if d.IPAddress == nil {
		return
	}
	network := Network{Mode: ContainerNetwork, Name: d.IPAddress.NetworkName, Labels: d.IPAddress.Labels}
	if network.Name != "" && network.Name == s.MesosBridgeName {
		network = Network{Mode: BridgeNetwork}
	}
	d.Networks = &[]Network{network}
	if d.Container == nil {
		d.Container = &containerDefinition{Type: Mesos}
	}
	if discovery := d.IPAddress.Discovery; discovery != nil && d.Container.PortMappings == nil && d.Container.Type == Mesos {
		mappings := make([]PortMapping, len(discovery.Ports))
		for i, port := range discovery.Ports {
			mappings[i] = PortMapping{ContainerPort: port.Number, Name: port.Name, Protocol: port.Protocol, Labels: port.Labels}
		}
		d.Container.PortMappings = &mappings
	}
	d.IPAddress = nil
}

// isArchive tells whether the path of a URI has an ending that the fetcher extracts.
func isArchive(uri string) bool {
	path := uri
	if parsed, err := url.Parse(uri); err == nil && parsed.Path != "" {
		path = parsed.Path
	}
	for _, ending := range []string{".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".tgz", ".tbz2", ".txz", ".zip"} {
		if strings.HasSuffix(path, ending) {
			return true
		}
	}
	return false
}
