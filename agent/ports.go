package agent

import (
	"errors"
	"fmt"
	"slices"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// checkMappings tells of ports of the node that a container asks for and that are not among its resources: they may be
// those of another task.
func checkMappings(c *mesos.ContainerInfo, res resources.Resources) error {
	var asked []uint32
	for _, m := range c.GetDocker().GetPortMappings() {
		asked = append(asked, m.GetHostPort())
	}
	for _, network := range c.GetNetworkInfos() {
		for _, m := range network.GetPortMappings() {
			asked = append(asked, m.GetHostPort())
		}
	}
	ports := res.Ports()
	for _, port := range asked {
		if !slices.ContainsFunc(ports, func(r resources.Range) bool { return r.Begin <= uint64(port) && uint64(port) <= r.End }) {
			text := fmt.Sprintf("Port [%d] not included in resources", port) // as Mesos says it
			return errors.New(text)
		}
	}
	return nil
}
