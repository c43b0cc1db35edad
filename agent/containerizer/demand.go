package containerizer

import (
	"fmt"

	"starling/master/mesos"
)

// IsDocker tells whether a container is one of the Docker engine.
func IsDocker(c *mesos.ContainerInfo) bool {
	return c != nil && c.GetType() == mesos.ContainerInfo_DOCKER
}

// OwnRoot tells whether a container comes with a root file system: then it does not see the node's, and an image may say
// what it runs.
func OwnRoot(c *mesos.ContainerInfo) bool {
	return IsDocker(c) || c.GetMesos().GetImage() != nil
}

// Demands lists, in words, what a container asks for that a plain process can't have. It is empty for one that may run as
// a plain process: to run others so would be worse than not at all.
func Demands(c *mesos.ContainerInfo) []string {
	if c == nil {
		return nil
	}
	if IsDocker(c) {
		return []string{"a container of type DOCKER"}
	}
	var out []string
	ask := func(asked bool, what string) {
		if asked {
			out = append(out, what)
		}
	}
	ask(c.GetMesos().GetImage() != nil, "an image")
	ask(len(c.GetVolumes()) > 0, "volumes")
	ask(c.GetHostname() != "", "a hostname")
	for _, n := range c.GetNetworkInfos() {
		ask(n.GetName() != "" || len(n.GetPortMappings()) > 0, fmt.Sprintf("network %q", n.GetName()))
	}
	ask(c.GetLinuxInfo() != nil, "linux_info")
	ask(c.GetRlimitInfo() != nil, "rlimit_info")
	ask(c.GetTtyInfo() != nil, "a terminal")
	return out
}
