package agent

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	protocol "starling/master/mesos/executor"

	"starling/master/mesos"
	"starling/master/nodeapi"
)

func network(addresses ...string) *mesos.NetworkInfo {
	n := &mesos.NetworkInfo{}
	for _, a := range addresses {
		n.IpAddresses = append(n.IpAddresses, &mesos.NetworkInfo_IPAddress{IpAddress: proto.String(a)})
	}
	return n
}

func mapped(n *mesos.NetworkInfo) *mesos.NetworkInfo {
	n.PortMappings = []*mesos.NetworkInfo_PortMapping{{HostPort: proto.Uint32(31000), ContainerPort: proto.Uint32(80)}}
	return n
}

func declared(n *mesos.NetworkInfo) *mesos.NetworkInfo {
	n.Labels = &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String(labelRoutable), Value: proto.String("true")}}}
	return n
}

func TestWhichAddressesOthersReach(t *testing.T) {
	bridged := &mesos.ContainerInfo{Docker: &mesos.ContainerInfo_DockerInfo{
		PortMappings: []*mesos.ContainerInfo_DockerInfo_PortMapping{{HostPort: proto.Uint32(31000), ContainerPort: proto.Uint32(80)}},
	}}
	routed := proto.CloneOf(bridged)
	routed.NetworkInfos = []*mesos.NetworkInfo{declared(&mesos.NetworkInfo{})}
	many := make([]string, 2*maxAddresses)
	for i := range many {
		many[i] = "10.1.0." + string(rune('0'+i%10)) // the same again counts too
	}
	for _, tc := range []struct {
		name      string
		container *mesos.ContainerInfo
		networks  []*mesos.NetworkInfo
		want      []string
		published bool
	}{
		{name: "the node's own network", networks: []*mesos.NetworkInfo{network("10.0.0.1")}},
		{name: "a network of its own, both families", networks: []*mesos.NetworkInfo{network("10.9.0.2", "fd00::2")}, want: []string{"10.9.0.2", "fd00::2"}},
		{name: "two networks", networks: []*mesos.NetworkInfo{network("10.9.0.2"), network("10.8.0.2")}, want: []string{"10.9.0.2", "10.8.0.2"}},
		{name: "published ports", networks: []*mesos.NetworkInfo{mapped(network("10.9.0.2"))}, want: []string{"10.9.0.2"}, published: true},
		{name: "published ports on one of two", networks: []*mesos.NetworkInfo{mapped(network("10.9.0.2")), network("10.8.0.2")}, want: []string{"10.8.0.2"}},
		{name: "published ports on a routable network", networks: []*mesos.NetworkInfo{declared(mapped(network("10.9.0.2")))}, want: []string{"10.9.0.2"}},
		{name: "ports published by Docker", container: bridged, networks: []*mesos.NetworkInfo{network("172.17.0.2")}, want: []string{"172.17.0.2"}, published: true},
		{name: "ports published by Docker, routable", container: routed, networks: []*mesos.NetworkInfo{network("172.17.0.2")}, want: []string{"172.17.0.2"}},
		{name: "what is no address", networks: []*mesos.NetworkInfo{network("", "\xff", "x", "::ffff:10.9.0.2")}, want: []string{"10.9.0.2"}},
		{name: "too many", networks: []*mesos.NetworkInfo{network(many...)}, want: many[:maxAddresses]},
	} {
		task := &task{info: &mesos.TaskInfo{Container: tc.container}}
		got, published := task.addressesIn(tc.networks, "10.0.0.1")
		if !slices.Equal(got, tc.want) || published != tc.published {
			t.Errorf("%s: %v, published %v; want %v, %v", tc.name, got, published, tc.want, tc.published)
		}
	}
}

// What an executor said once of addresses and health stays known when a later word of it does not say it again, over a restart too.
func TestFactsOutliveStatuses(t *testing.T) {
	m := newMachine(t)
	w := m.start(nil)
	launch := launchCall(frameworkInfo(), of(executorInfo(t, "e1", "cpus:0.5;mem:64"), taskInfo(t, "t1", "cpus:1;mem:32"))...)
	w.mustCall(launch)
	w.waitExecutor("e1")
	r := w.subscribe("e1", nil)
	r.want(protocol.Event_SUBSCRIBED)
	r.want(protocol.Event_LAUNCH)
	first := newStatus("t1", mesos.TaskState_TASK_RUNNING)
	first.Healthy = proto.Bool(true)
	first.Labels = &mesos.Labels{Labels: []*mesos.Label{
		{Key: proto.String(labelMesosAddress), Value: proto.String("10.9.0.3")},
		{Key: proto.String(labelDockerAddress), Value: proto.String("172.17.0.3")},
		{Key: proto.String("else"), Value: proto.String("10.9.0.4")},
	}}
	first.ContainerStatus = &mesos.ContainerStatus{NetworkInfos: []*mesos.NetworkInfo{network("10.9.0.2")}}
	bad := newStatus("t1", mesos.TaskState_TASK_RUNNING)
	bad.Healthy = proto.Bool(false)
	bad.Labels = &mesos.Labels{Labels: []*mesos.Label{{Key: proto.String(labelMesosAddress), Value: proto.String("no address \xff")}}}
	bare := newStatus("t1", mesos.TaskState_TASK_RUNNING) // takes nothing back
	for _, st := range []*mesos.TaskStatus{first, bad, bare} {
		if err := r.send(st); err != nil {
			t.Fatal(err)
		}
		r.want(protocol.Event_ACKNOWLEDGED)
	}
	check := func(when string) {
		t.Helper()
		got := w.published("t1")
		if !slices.Equal(got.GetAddresses(), []string{"10.9.0.2"}) || !slices.Equal(got.GetMesosAddresses(), []string{"10.9.0.3"}) ||
			!slices.Equal(got.GetDockerAddresses(), []string{"172.17.0.3"}) || got.GetPublished() || !got.GetWasHealthy() || got.Healthy == nil || got.GetHealthy() || got.GetChanged() == 0 {
			t.Errorf("%s: %v", when, got)
		}
	}
	check("told")
	w.end()
	w = m.start(w.leaderSide)
	defer w.end()
	check("after a restart")
}

// A task in the network of its node has no address of its own, not either where its statuses are from before the node got another one.
func TestAddressesOfMovedNode(t *testing.T) {
	for _, tc := range []struct {
		name          string
		before, after []*mesos.NetworkInfo // of the container, as its engine tells
		want          []string
	}{
		{name: "the node's network"},
		{name: "a network of its own", before: []*mesos.NetworkInfo{network("10.9.0.2")}, after: []*mesos.NetworkInfo{network("10.9.0.2")}, want: []string{"10.9.0.2"}},
		{name: "a network that the engine says nothing of any more", before: []*mesos.NetworkInfo{network("10.9.0.2")}, want: []string{"10.9.0.2"}},
		{name: "a network that was not noted", after: []*mesos.NetworkInfo{network("10.9.0.2")}, want: []string{"10.9.0.2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			m.networks = tc.before
			w := m.start(nil)
			w.mustCall(launchCall(frameworkInfo(), taskInfo(t, "t1", "cpus:1;mem:32")))
			w.waitState("t1", mesos.TaskState_TASK_RUNNING)
			w.end()
			m.networks = tc.after
			for _, address := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.1"} {
				w = m.start(w.leaderSide, func(c *Config) { c.Address = address })
				w.mustCall(&nodeapi.Call{Call: &nodeapi.Call_Describe{Describe: &nodeapi.Describe{}}}) // answered once its containers are found
				if got := w.published("t1"); !slices.Equal(got.GetAddresses(), tc.want) || got.GetPublished() {
					t.Errorf("at %s: %v, want the addresses %v", address, got, tc.want)
				}
				w.end()
			}
		})
	}
}
