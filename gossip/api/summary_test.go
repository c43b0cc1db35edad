package api

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
)

func TestSummaries(t *testing.T) {
	no := false
	for _, tc := range []struct {
		msg  proto.Message
		want string
	}{
		{agentNode("edge1"), "agent edge1 10.0.0.9:5051 1.0 zone cellar"},
		{&catalog.Node{}, ""},
		{
			&catalog.Resources{Total: []*catalog.Resource{{Name: "cpus", Milli: 4000}, {Name: "mem", Milli: 2048000}}, Free: []*catalog.Resource{{Name: "cpus", Milli: 100}}},
			"free: cpus 0.1 of 4, mem 0 of 2048 MiB, disk 0 of 0 MiB, ports 0 of 0",
		},
		{&catalog.Resources{Total: []*catalog.Resource{{Name: "gpus", Milli: 2000}}}, "free: cpus 0 of 0, gpus 0 of 2, mem 0 of 0 MiB, disk 0 of 0 MiB, ports 0 of 0"},
		{&catalog.Health{}, "well"},
		{&catalog.Health{Draining: true, Problems: []string{"a", "b"}}, "draining; a; b"},
		{&catalog.Leader{Epoch: 3, Address: "::1", Port: 5050}, "leads with epoch 3 at [::1]:5050"},
		{&catalog.Coordinate{Error: 50}, "place in the network, unsure by 5 %"},
		{
			&catalog.Task{
				State: 1, Name: "web", FrameworkName: "marathon", Healthy: &no, Addresses: []string{"10.1.0.2"},
				Discovery: &catalog.Discovery{Ports: []*catalog.Port{{Number: 80}, {Number: 443}}},
			},
			"TASK_RUNNING unhealthy web of marathon 10.1.0.2 ports 80 443",
		},
		{&catalog.Keys{Serial: 2, Fingerprints: [][]byte{{0xab, 1}, {2}}}, "step 2, sends with ab01, accepts 02"},
		{&catalog.Task{State: 4711}, "4711"},
	} {
		if got := summary(tc.msg); got != tc.want {
			t.Errorf("summary of %v is %q, want %q", tc.msg, got, tc.want)
		}
	}
	long := summary(&catalog.Health{Problems: []string{strings.Repeat("é", maxSummary)}})
	if len(long) > maxSummary+3 || !strings.HasSuffix(long, "é...") {
		t.Errorf("a long summary is %d bytes: %q", len(long), long)
	}
}
