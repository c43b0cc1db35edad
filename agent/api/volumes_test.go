package api

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/nodeapi"
)

// node makes calls of the leader.
func (s *served) node(calls ...*nodeapi.Call) {
	s.t.Helper()
	client := nodeapi.NewClient(nodeapi.ClientConfig{})
	defer client.Close()
	for _, call := range calls {
		call.Epoch, call.Leader, call.AgentId = 3, "127.0.0.1:5050", agentID
		reply, err := client.Call(s.t.Context(), s.addr, call)
		if err != nil {
			s.t.Fatalf("%T: %v", call.GetCall(), err)
		}
		for _, st := range reply.GetOperations() {
			if st.GetState() != mesos.OperationState_OPERATION_FINISHED {
				s.t.Fatalf("got %v", st)
			}
		}
	}
}

// A persistent volume is shown in the state, and in the sandbox of a task that uses it; never what lies outside of it.
func TestVolumes(t *testing.T) {
	s := serve(t, nil)
	volume := &mesos.Resource{
		Name: proto.String("disk"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(60)},
		Reservations:   []*mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: proto.String("db")}},
		AllocationInfo: &mesos.Resource_AllocationInfo{Role: proto.String("db")},
		Disk: &mesos.Resource_DiskInfo{
			Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String("v1")},
			Volume:      &mesos.Volume{Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("data")},
		},
	}
	id := &mesos.FrameworkID{Value: proto.String("f1")}
	res, err := resources.Parse("cpus:1;mem:64", "*")
	if err != nil {
		t.Fatal(err)
	}
	task := &mesos.TaskInfo{
		Name: proto.String("t1"), TaskId: &mesos.TaskID{Value: proto.String("t1")}, AgentId: &mesos.AgentID{Value: proto.String(agentID)},
		Command: &mesos.CommandInfo{Value: proto.String("sleep 1000")}, Resources: append(res.AllocatedTo("db").Proto(), volume),
	}
	s.node(&nodeapi.Call{Call: &nodeapi.Call_Apply{Apply: &nodeapi.Apply{
		FrameworkId: id, Uuids: [][]byte{[]byte("0123456789abcdef")},
		Operations: []*mesos.Offer_Operation{{
			Type: mesos.Offer_Operation_CREATE.Enum(), Id: &mesos.OperationID{Value: proto.String("op1")},
			Create: &mesos.Offer_Operation_Create{Volumes: []*mesos.Resource{volume}},
		}},
	}}}, &nodeapi.Call{Call: &nodeapi.Call_Launch{Launch: &nodeapi.Launch{
		Framework: &mesos.FrameworkInfo{Id: id, Name: proto.String("demo"), User: proto.String("svc")}, Tasks: []*mesos.TaskInfo{task},
	}}})
	var dir string
	s.wait("the task runs", func() bool {
		st, err := s.agent.State(t.Context())
		if err != nil || len(st.Frameworks) != 1 || !st.Frameworks[0].Executors[0].Running {
			return false
		}
		dir = st.Frameworks[0].Executors[0].Directory
		return true
	})
	inside := filepath.Join(s.agent.Config().WorkDir, "volumes", "roles", "db", "v1")
	if err := os.WriteFile(filepath.Join(inside, "file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.agent.Config().WorkDir, filepath.Join(inside, "out")); err != nil {
		t.Fatal(err)
	}

	_, state := s.get("/state")
	for _, want := range []string{`"reserved_resources":{"db":{`, `"persistence":{"id":"v1"}`} {
		if !strings.Contains(state, want) {
			t.Errorf("the state lacks %s: %s", want, state)
		}
	}
	for path, want := range map[string]string{
		"/files/read?offset=0&path=" + url.QueryEscape(dir+"/data/file"):        `"data":"data"`,
		"/files/read?offset=0&path=" + url.QueryEscape(dir+"/x/../data/./file"): `"data":"data"`,
		"/files/browse?path=" + url.QueryEscape(dir+"/data"):                    `data/file"`,
		"/files/browse?path=" + url.QueryEscape(dir):                            `/data"`,
		"/files/download?path=" + url.QueryEscape(dir+"/data/file"):             "data",
		"/files/debug": `/data":"` + inside + `"`,
		"/files/browse?path=" + url.QueryEscape(dir+"/data/out"):                     "is inaccessible",
		"/files/read?offset=0&path=" + url.QueryEscape(dir+"/data/out/agent-id"):     "is inaccessible",
		"/files/read?offset=0&path=" + url.QueryEscape(dir+"/data/../data/out/meta"): "is inaccessible",
		"/metrics/snapshot": `"slave/operations_pending":1`,
	} {
		if _, body := s.get(path); !strings.Contains(body, want) {
			t.Errorf("%s: got %s, want %s", path, body, want)
		}
	}

	// Once the task is over its sandbox no longer leads to the volume.
	s.node(&nodeapi.Call{Call: &nodeapi.Call_ShutdownFramework{ShutdownFramework: &nodeapi.ShutdownFramework{FrameworkId: id}}})
	s.wait("the task is over", func() bool {
		st, err := s.agent.State(t.Context())
		return err == nil && len(st.Frameworks) == 0 && len(st.Operations) == 0
	})
	if _, body := s.get("/files/read?offset=0&path=" + url.QueryEscape(dir+"/data/file")); strings.Contains(body, `"data":"data"`) {
		t.Errorf("an ended task leads to the volume: %s", body)
	}
}
