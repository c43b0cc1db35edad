package nodeapi

import (
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"starling/master/mesos"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func framework() *mesos.FrameworkInfo {
	return &mesos.FrameworkInfo{
		User: proto.String("svc"), Name: proto.String("demo"), Id: &mesos.FrameworkID{Value: proto.String("m-0000")},
		Roles: []string{"web"},
	}
}

func task(id string) *mesos.TaskInfo {
	return &mesos.TaskInfo{
		Name: proto.String(id), TaskId: &mesos.TaskID{Value: proto.String(id)}, AgentId: &mesos.AgentID{Value: proto.String("m-S0")},
		Resources: []*mesos.Resource{{
			Name: proto.String("cpus"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(0.5)},
		}},
		Command: &mesos.CommandInfo{Value: proto.String("sleep 100")},
	}
}

func reserve() *mesos.Offer_Operation {
	return &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_RESERVE.Enum(), Id: &mesos.OperationID{Value: proto.String("op-1")},
		Reserve: &mesos.Offer_Operation_Reserve{Resources: task("t").Resources},
	}
}

func operation(uuid []byte) *mesos.Operation {
	return &mesos.Operation{
		FrameworkId: framework().GetId(), AgentId: task("t").GetAgentId(), Info: reserve(), Uuid: &mesos.UUID{Value: uuid},
		LatestStatus: &mesos.OperationStatus{
			OperationId: reserve().GetId(), State: mesos.OperationState_OPERATION_FINISHED.Enum(), Uuid: &mesos.UUID{Value: uuid},
			ConvertedResources: task("t").Resources,
		},
	}
}

// golden is one message of each kind, named after its file. A file is never changed once a release has written it; a new
// field gets a message of its own.
func golden() map[string]proto.Message {
	fid, tid := &mesos.FrameworkID{Value: proto.String("m-0000")}, &mesos.TaskID{Value: proto.String("t-1")}
	eid := &mesos.ExecutorID{Value: proto.String("e-1")}
	uuid := []byte("0123456789abcdef")
	call := func(c isCall_Call) *Call { return &Call{Epoch: 42, Leader: "10.0.0.1:5050", AgentId: "m-S0", Call: c} }
	return map[string]proto.Message{
		"call-launch": call(&Call_Launch{Launch: &Launch{Framework: framework(), Tasks: []*mesos.TaskInfo{task("t-1")}}}),
		"call-launch-group": call(&Call_Launch{Launch: &Launch{
			Framework: framework(), Tasks: []*mesos.TaskInfo{task("t-1"), task("t-2")},
			GroupExecutor: &mesos.ExecutorInfo{ExecutorId: eid, Type: mesos.ExecutorInfo_DEFAULT.Enum()},
		}}),
		"call-kill": call(&Call_Kill{Kill: &Kill{
			FrameworkId: fid, TaskId: tid, KillPolicy: &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: proto.Int64(3e9)}},
		}}),
		"call-acknowledge":       call(&Call_Acknowledge{Acknowledge: &Acknowledge{FrameworkId: fid, TaskId: tid, Uuid: uuid}}),
		"call-shutdown-executor": call(&Call_ShutdownExecutor{ShutdownExecutor: &ShutdownExecutor{FrameworkId: fid, ExecutorId: eid}}),
		"call-message": call(&Call_Message{Message: &ExecutorMessage{
			FrameworkId: fid, ExecutorId: eid, Data: []byte("hello"),
		}}),
		"call-shutdown-framework": call(&Call_ShutdownFramework{ShutdownFramework: &ShutdownFramework{FrameworkId: fid}}),
		"call-describe":           call(&Call_Describe{Describe: &Describe{FrameworkIds: []*mesos.FrameworkID{fid}}}),
		"call-drain":              call(&Call_Drain{Drain: &Drain{MaxGracePeriod: proto.Int64(10e9), MarkGone: true}}),
		"call-reactivate":         call(&Call_Reactivate{Reactivate: &Reactivate{}}),
		"call-shutdown":           call(&Call_Shutdown{Shutdown: &Shutdown{Gone: true}}),
		"reply":                   &Reply{Delta: []byte{1, 2, 3}},
		"call-apply-operations": call(&Call_Apply{Apply: &Apply{
			Operations: []*mesos.Offer_Operation{reserve()}, FrameworkId: fid, Uuids: [][]byte{uuid},
		}}),
		"call-acknowledge-operation": call(&Call_AcknowledgeOperation{AcknowledgeOperation: &AcknowledgeOperation{
			FrameworkId: fid, OperationId: reserve().GetId(), Uuid: uuid,
		}}),
		"call-describe-since":          call(&Call_Describe{Describe: &Describe{Generation: 3, Version: 17}}),
		"reply-operations":             &Reply{Operations: []*mesos.OperationStatus{operation(uuid).GetLatestStatus()}},
		"reply-description-operations": &Reply{Description: &Description{Operations: []*mesos.Operation{operation(uuid)}}},
		"report-operations":            &Report{Epoch: 42, AgentId: "m-S0", Operations: []*mesos.Operation{operation(uuid)}},
		"reply-description": &Reply{Description: &Description{
			Frameworks: []*mesos.FrameworkInfo{framework()},
			Tasks: []*mesos.Task{{
				Name: proto.String("t-1"), TaskId: tid, FrameworkId: fid, AgentId: &mesos.AgentID{Value: proto.String("m-S0")},
				State: mesos.TaskState_TASK_RUNNING.Enum(),
			}},
			Executors: []*Executor{{FrameworkId: fid, Info: &mesos.ExecutorInfo{ExecutorId: eid}}},
		}},
		"report": &Report{
			Epoch: 42, AgentId: "m-S0", Delta: []byte{4, 5, 6},
			Updates: []*StatusUpdate{{
				FrameworkId: fid, LatestState: int32(mesos.TaskState_TASK_FINISHED),
				Status: &mesos.TaskStatus{
					TaskId: tid, State: mesos.TaskState_TASK_RUNNING.Enum(), Source: mesos.TaskStatus_SOURCE_EXECUTOR.Enum(),
					Uuid: uuid, Timestamp: proto.Float64(1700000000.25),
				},
			}},
			Messages: []*ExecutorMessage{{FrameworkId: fid, ExecutorId: eid, Data: []byte("hello")}},
			Exits:    []*ExecutorExit{{FrameworkId: fid, ExecutorId: eid, Status: 256}},
		},
		"report-reply": &ReportReply{},
	}
}

func TestGoldenWire(t *testing.T) {
	for name, want := range golden() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", "v1", name+".hex")
			wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(hex.Dump(wire)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(text), hex.Dump(wire)); d != "" {
				t.Errorf("wire form changed (-want +got):\n%s", d)
			}
			var got proto.Message
			switch want.(type) {
			case *Call:
				got, err = DecodeCall(wire)
			case *Report:
				got, err = DecodeReport(wire)
			case *Reply:
				got, err = DecodeReply(wire)
			default:
				got = new(ReportReply)
				err = proto.Unmarshal(wire, got)
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
				t.Errorf("message (-want +got):\n%s", d)
			}
		})
	}
	files, err := os.ReadDir(filepath.Join("testdata", "v1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if golden()[strings.TrimSuffix(f.Name(), ".hex")] == nil {
			t.Errorf("no message goes with %q", f.Name())
		}
	}
}

func TestDecodeRefusesWhatIsNotWhole(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Call)
		want   []string
	}{
		{"no epoch and no agent", func(c *Call) { c.Epoch, c.AgentId = 0, "" }, []string{"epoch is missing", "agent_id is missing"}},
		{"no kind", func(c *Call) { c.Call = nil }, []string{"call is missing"}},
		{"an empty kind", func(c *Call) { c.Call = &Call_Kill{Kill: &Kill{}} }, []string{"framework_id is missing", "task_id is missing"}},
		{"an id that climbs", func(c *Call) { c.GetKill().TaskId.Value = proto.String("..") }, []string{`task_id ".." is no id`}},
		{"an id with a slash", func(c *Call) { c.GetKill().TaskId.Value = proto.String("a/b") }, []string{`task_id "a/b" is no id`}},
		{"an id with a line break", func(c *Call) { c.GetKill().TaskId.Value = proto.String("a\nb") }, []string{`task_id "a\nb" is no id`}},
		{"an id of 256 bytes", func(c *Call) { c.GetKill().TaskId.Value = proto.String(strings.Repeat("a", 256)) }, []string{"is no id"}},
		{"an agent id with a slash", func(c *Call) { c.AgentId = "../S0" }, []string{"agent_id"}},
		{"a launch of nothing", func(c *Call) { c.Call = &Call_Launch{Launch: &Launch{Framework: framework()}} }, []string{"tasks is missing"}},
		{"a launch for nobody", func(c *Call) {
			c.Call = &Call_Launch{Launch: &Launch{Tasks: []*mesos.TaskInfo{task("t")}}}
		}, []string{"framework.id is missing"}},
		{"a short uuid", func(c *Call) {
			k := c.GetKill()
			c.Call = &Call_Acknowledge{Acknowledge: &Acknowledge{FrameworkId: k.FrameworkId, TaskId: k.TaskId, Uuid: []byte("short")}}
		}, []string{"uuid has 5 bytes instead of 16"}},
		{"an operation without a uuid", func(c *Call) {
			c.Call = &Call_Apply{Apply: &Apply{Operations: []*mesos.Offer_Operation{reserve()}}}
		}, []string{"0 uuids came with 1 operations"}},
		{"an operation with a short uuid", func(c *Call) {
			c.Call = &Call_Apply{Apply: &Apply{Operations: []*mesos.Offer_Operation{reserve()}, Uuids: [][]byte{[]byte("short")}}}
		}, []string{"uuid has 5 bytes instead of 16"}},
		{"no operations", func(c *Call) { c.Call = &Call_Apply{Apply: &Apply{}} }, []string{"operations is missing"}},
		{"an operation of no type", func(c *Call) {
			c.Call = &Call_Apply{Apply: &Apply{Operations: []*mesos.Offer_Operation{{}}}}
		}, []string{"operations.type is missing"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := killCall()
			tt.change(c)
			b, err := proto.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			_, err = DecodeCall(b)
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("want %v, got %v", ErrMalformed, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in %q", want, err)
				}
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range golden() {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeCall(b); err == nil {
			// Whatever passed has to survive being sent on.
			wire, err := proto.Marshal(c)
			if err != nil {
				t.Fatalf("cannot encode what was decoded: %v", err)
			}
			if _, err := DecodeCall(wire); err != nil {
				t.Fatalf("cannot decode what was encoded: %v", err)
			}
			if !safe(c.AgentId) {
				t.Fatalf("agent id %q passed", c.AgentId)
			}
		} else if !errors.Is(err, ErrMalformed) {
			t.Fatalf("want %v, got %v", ErrMalformed, err)
		}
		if _, err := DecodeReport(b); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("want %v, got %v", ErrMalformed, err)
		}
		if _, err := DecodeReply(b); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("want %v, got %v", ErrMalformed, err)
		}
	})
}
