package api

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
)

func TestTasks(t *testing.T) {
	f := newFake(t, "self", record.Limits{})
	f.other(t, "b", record.Alive,
		set(t, catalog.KeyNode, agentNode("edge1")),
		set(t, catalog.TaskKey("f1", "t1"), &catalog.Task{
			TaskId: "t1", FrameworkId: "f1", FrameworkName: "demo", ExecutorId: "t1", Name: "web", State: 1, Healthy: proto.Bool(true), Checked: true, Role: "r",
			ContainerId: "c1", Launched: time.Unix(1, 0).UnixNano(), Resources: []*catalog.Resource{{Name: "cpus", Milli: 1500}},
		}),
		set(t, catalog.TaskKey("f1", "t2"), &catalog.Task{TaskId: "t2", FrameworkId: "f1", State: 999}),
		record.Assignment{Key: catalog.TaskKey("f1", "broken"), Value: []byte{0xff}},
	)
	base, _ := serve(t, f)
	var got []Task
	if status, body := request(t, "GET", base+PathTasks, &got); status != 200 || len(got) != 2 {
		t.Fatalf("%d %s", status, body)
	}
	one := got[0]
	if one.ID != "t1" || one.Name != "web" || one.State != "TASK_RUNNING" || one.Host != "edge1" || one.APIAddress != "10.0.0.9:5051" ||
		one.Node != "b" || one.NodeState != "alive" || one.Resources.CPUs != 1.5 || one.Healthy == nil || !one.Checked || !one.Launched.Equal(time.Unix(1, 0)) {
		t.Errorf("a task: %+v", one)
	}
	if got[1].State != "TASK_UNKNOWN" || got[1].Healthy != nil || got[1].Checked {
		t.Errorf("a task of another version: %+v", got[1])
	}
}
