package agent

import (
	"net/netip"
	"slices"

	"starling/gossip/catalog"
	"starling/master/mesos"
)

// facts are what statuses have told of a task and what stays true when a later one does not repeat it: an executor's bare word that a task
// is healthy must not move its name to another address.
type facts struct {
	// addresses are the task's own, published is set where they are not for others; see catalog.Task.
	addresses []string
	published bool
	// mesos and docker are addresses that executors put into labels.
	mesos, docker []string
	// healthy is what was told last of the task's health, nil where nothing was.
	healthy    *bool
	wasHealthy bool
}

// The labels of statuses in which executors of Mesos tell an address.
const (
	labelMesosAddress  = "MesosContainerizer.NetworkSettings.IPAddress"
	labelDockerAddress = "Docker.NetworkSettings.IPAddress"
	// labelRoutable, on a network with the value "true", says that others reach its addresses, though ports are published as well.
	labelRoutable = "routable"
)

// learnNetworks takes up the addresses of networks that are the task's now. Those of a status of an earlier life are not for it: where a task
// had none of its own they are the node's, which may have had another address then.
func (a *Agent) learnNetworks(t *task, networks []*mesos.NetworkInfo) {
	addresses, published := t.addressesIn(networks, a.cfg.Address)
	if len(addresses) == 0 || published == t.facts.published && slices.Equal(addresses, t.facts.addresses) {
		return
	}
	t.facts.addresses, t.facts.published = addresses, published
	a.changed.tasks[t.key] = t
}

// learn takes up what a status tells beyond networks.
func (t *task) learn(st *mesos.TaskStatus) {
	for _, l := range st.GetLabels().GetLabels() {
		address, ok := addressOf(l.GetValue())
		switch {
		case ok && l.GetKey() == labelMesosAddress:
			t.facts.mesos = []string{address}
		case ok && l.GetKey() == labelDockerAddress:
			t.facts.docker = []string{address}
		}
	}
	if st.Healthy != nil {
		t.facts.healthy = st.Healthy
	}
	t.facts.wasHealthy = t.facts.wasHealthy || st.GetHealthy()
}

// addressesIn returns the addresses of networks but for the node's own, and whether others have to use the node's ports instead. Of several
// networks those without published ports, or declared routable, come alone: through them the task can be reached.
func (t *task) addressesIn(networks []*mesos.NetworkInfo, node string) (addresses []string, published bool) {
	container := t.info.GetContainer()
	if container == nil && t.run != nil {
		container = t.run.info.GetContainer()
	}
	// The Docker engine publishes ports of a container, not of one of its networks, and says nothing of labels.
	mapped := len(container.GetDocker().GetPortMappings()) > 0
	declared := slices.ContainsFunc(container.GetNetworkInfos(), routable)
	var open []string
	for _, n := range networks {
		closed := (mapped || len(n.GetPortMappings()) > 0) && !declared && !routable(n)
		for _, ip := range n.GetIpAddresses() {
			switch address, ok := addressOf(ip.GetIpAddress()); {
			case !ok || address == node || len(addresses) == maxAddresses:
				continue
			case !closed:
				open = append(open, address)
				fallthrough
			default:
				addresses = append(addresses, address)
			}
		}
	}
	if len(open) > 0 {
		return open, false
	}
	return addresses, len(addresses) > 0
}

// maxAddresses bounds what the mesh is told of one task.
const maxAddresses = 16

// addressOf returns an address in the usual form; executors may write anything.
func addressOf(text string) (address string, ok bool) {
	a, err := netip.ParseAddr(text)
	return a.Unmap().WithZone("").String(), err == nil
}

func routable(n *mesos.NetworkInfo) bool {
	return slices.ContainsFunc(n.GetLabels().GetLabels(), func(l *mesos.Label) bool {
		return l.GetKey() == labelRoutable && l.GetValue() == "true"
	})
}

// put writes the facts into what the mesh is told.
func (f *facts) put(s *catalog.Task) {
	s.Addresses, s.Published, s.MesosAddresses, s.DockerAddresses, s.WasHealthy = f.addresses, f.published, f.mesos, f.docker, f.wasHealthy
	s.Healthy = f.healthy
}

// factsOf are those of a task that was told to the mesh by an earlier life.
func factsOf(s *catalog.Task) facts {
	return facts{
		addresses: s.GetAddresses(), published: s.GetPublished(), mesos: s.GetMesosAddresses(), docker: s.GetDockerAddresses(),
		healthy: s.Healthy, wasHealthy: s.GetWasHealthy(),
	}
}
