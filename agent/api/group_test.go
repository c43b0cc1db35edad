package api

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/agent/containerizer/containerizertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/agent"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// TestTaskGroup shows the tasks of a default executor in all answers, and goes into the container of one.
func TestTaskGroup(t *testing.T) {
	s := serve(t, nil)
	s.fake.OnExec = func(*containerizertest.FakeProcess) int { return 3 << 8 }
	res := func(text string) []*mesos.Resource {
		rs, err := resources.Parse(text, "*")
		if err != nil {
			t.Fatal(err)
		}
		return rs.AllocatedTo("web").Proto()
	}
	task := func(id string) *mesos.TaskInfo {
		return &mesos.TaskInfo{
			Name: proto.String(id), TaskId: &mesos.TaskID{Value: &id}, AgentId: &mesos.AgentID{Value: proto.String(agentID)},
			Resources: res("cpus:0.5;mem:64"), Command: &mesos.CommandInfo{Value: proto.String("sleep 100")},
		}
	}
	if _, err := s.agent.Call(t.Context(), &nodeapi.Call{Epoch: 3, AgentId: agentID, Call: &nodeapi.Call_Launch{Launch: &nodeapi.Launch{
		Framework: &mesos.FrameworkInfo{Id: &mesos.FrameworkID{Value: proto.String("f1")}, Name: proto.String("demo"), User: proto.String("")},
		Tasks:     []*mesos.TaskInfo{task("a"), task("b")},
		GroupExecutor: &mesos.ExecutorInfo{
			Type: mesos.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mesos.ExecutorID{Value: proto.String("e")},
			FrameworkId: &mesos.FrameworkID{Value: proto.String("f1")}, Resources: res("cpus:0.1;mem:32"),
		},
	}}}); err != nil {
		t.Fatal(err)
	}
	s.wait("both run", func() bool { return len(s.fake.Running()) == 2 })
	s.wait("both are told to run", func() bool { _, body := s.get("/state"); return strings.Count(body, `"state":"TASK_RUNNING"`) >= 4 })
	group, child, ok := strings.Cut(s.fake.Running()[0], ".")
	if !ok {
		t.Fatalf("running: %v", s.fake.Running())
	}
	s.expect(`{"type":"GET_EXECUTORS"}`, 200, `"type":"DEFAULT"`)
	if got := s.expect(`{"type":"GET_TASKS"}`, 200, `"launched_tasks":[{"name":"a"`); strings.Count(got, `"executor_id":{"value":"e"}`) < 2 {
		t.Errorf("GET_TASKS: %s", got)
	}
	nested := `{"value":"` + child + `","parent":{"value":"` + group + `"}}`
	s.expect(`{"type":"GET_CONTAINERS","get_containers":{"show_nested":true}}`, 200, nested)
	if _, got := s.get("/state"); !strings.Contains(got, `"type":"DEFAULT","tasks":[{"id":"a"`) {
		t.Errorf("/state: %s", got)
	}
	if _, got := s.get("/metrics/snapshot"); !strings.Contains(got, `"slave/tasks_running":2.0`) || !strings.Contains(got, `"slave/executors_running":1.0`) {
		t.Errorf("metrics: %s", got)
	}
	call := &operator.Call{
		Type: operator.Call_LAUNCH_NESTED_CONTAINER_SESSION.Enum(),
		LaunchNestedContainerSession: &operator.Call_LaunchNestedContainerSession{
			ContainerId: &mesos.ContainerID{Value: proto.String("s"), Parent: containerIn(group, child)}, Command: &mesos.CommandInfo{Value: proto.String("x")},
		},
	}
	for out := s.open(call, codec.JSON); ; {
		if _, err := out.next(); err != nil {
			break
		}
	}
	s.expect(`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"s","parent":`+nested+`}}}`, 200, `"exit_status":768`)
	s.expect(`{"type":"KILL_CONTAINER","kill_container":{"container_id":`+nested+`,"signal":15}}`, 200, "")
	s.wait("the end of the group", func() bool { return len(s.fake.Running()) == 0 })
	s.expect(`{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"s","parent":`+nested+`}}}`, 404, "cannot be found")
}
