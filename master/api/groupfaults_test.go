package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/codec"
	"starling/master/mesos/scheduler"
)

// Every row of what is special to groups. One fault makes the whole group invalid.
func TestGroupRows(t *testing.T) {
	t.Parallel()
	inBoth(t, func(t *testing.T, cd codec.Codec) {
		t.Parallel() // what is refused without a filter comes again after a tenth of a second
		s := start(t, nil)
		s.agent(1, "cpus:4;mem:4096;disk:1000;ports:[31000-31009]")
		s.lead()
		f := s.subscribe(cd, mastertest.Info("f", nil))
		group := func(tasks []*mesos.TaskInfo, e *mesos.ExecutorInfo) *mesos.Offer_Operation {
			return &mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
				Executor: e, TaskGroup: &mesos.TaskGroupInfo{Tasks: tasks},
			}}
		}
		executor := func(change func(*mesos.ExecutorInfo)) *mesos.ExecutorInfo {
			e := rowExecutor("g", "cpus:0.1;mem:32;disk:1")
			e.Type, e.Command = mesos.ExecutorInfo_DEFAULT.Enum(), nil
			if change != nil {
				change(e)
			}
			return e
		}
		two := func(want string, e *mesos.ExecutorInfo, change func(*mesos.TaskInfo)) row {
			second := rowTask(change)
			if second.GetTaskId().GetValue() == "row" {
				second.TaskId = &mesos.TaskID{Value: proto.String("second")}
			}
			return row{tasks: []*mesos.TaskInfo{mastertest.Task("first", "cpus:0.5;mem:32"), second}, executor: e, want: want}
		}
		f.rows("group", mesos.TaskStatus_REASON_TASK_GROUP_INVALID, map[string]row{
			"a faulty task": two("Task 'second' is invalid: Task uses no resources", executor(nil), func(t *mesos.TaskInfo) { t.Resources = nil }),
			"an id twice": two("Task 'first' is invalid: Task has duplicate ID: first", executor(nil), func(t *mesos.TaskInfo) {
				t.TaskId = &mesos.TaskID{Value: proto.String("first")}
			}),
			"no type of executor": two("'ExecutorInfo.type' must be set", executor(func(e *mesos.ExecutorInfo) {
				e.Type, e.Command = nil, &mesos.CommandInfo{Value: proto.String("x")}
			}), nil),
			"CUSTOM without a command": two("'ExecutorInfo.command' must be set for 'CUSTOM' executor", executor(func(e *mesos.ExecutorInfo) { e.Type = mesos.ExecutorInfo_CUSTOM.Enum() }), nil),
			"DEFAULT with a command":   two("'ExecutorInfo.command' must not be set for 'DEFAULT' executor", executor(func(e *mesos.ExecutorInfo) { e.Command = &mesos.CommandInfo{} }), nil),
			"DOCKER container of the executor": two("'ExecutorInfo.container.type' must be 'MESOS' for 'DEFAULT' executor", executor(func(e *mesos.ExecutorInfo) {
				e.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: proto.String("i")}}
			}), nil),
			"DOCKER container of a CUSTOM executor": two("Docker ContainerInfo is not supported on the executor", executor(func(e *mesos.ExecutorInfo) {
				e.Type, e.Command = mesos.ExecutorInfo_CUSTOM.Enum(), &mesos.CommandInfo{Value: proto.String("x")}
				e.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: proto.String("i")}}
			}), nil),
			"DOCKER container of a task": two("Task 'second' is invalid: Docker ContainerInfo is not supported on the task", executor(nil), func(t *mesos.TaskInfo) {
				t.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{Image: proto.String("i")}}
			}),
			"TCP health check in a network of its own": two("HTTP and TCP health checks are not supported for nested containers not joining parent's network", executor(nil), func(t *mesos.TaskInfo) {
				t.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mesos.NetworkInfo{{}}}
				t.HealthCheck = &mesos.HealthCheck{Tcp: &mesos.HealthCheck_TCPCheckInfo{Port: proto.Uint32(1)}}
			}),
			"another executor in a task": two("The `ExecutorInfo` of task 'second' is different from executor 'g'", executor(nil), func(t *mesos.TaskInfo) {
				t.Executor = executor(func(e *mesos.ExecutorInfo) { e.Name = proto.String("other") })
			}),
			"little CPU": two("Executor 'g' uses less CPUs (0.001) than the minimum required (0.01)", executor(func(e *mesos.ExecutorInfo) { e.Resources = parsed("cpus:0.001;mem:32;disk:1") }), nil),
			"no CPU":     two("Executor 'g' uses less CPUs (None) than the minimum required (0.01)", executor(func(e *mesos.ExecutorInfo) { e.Resources = parsed("mem:32;disk:1") }), nil),
			"little mem": two("Executor 'g' uses less memory (31MB) than the minimum required (32MB)", executor(func(e *mesos.ExecutorInfo) { e.Resources = parsed("cpus:0.1;mem:31;disk:1") }), nil),
			"no disk":    two("Executor 'g' uses no disk", executor(func(e *mesos.ExecutorInfo) { e.Resources = parsed("cpus:0.1;mem:32") }), nil),
			"too much":   two("required by task group and its executor are more than available", executor(nil), func(t *mesos.TaskInfo) { t.Resources = parsed("cpus:3.5;mem:32") }),
			"ports twice": two("There are overlapping resources in the task group's task resources", executor(func(e *mesos.ExecutorInfo) {
				e.Resources = parsed("cpus:0.1;mem:32;disk:1;ports:[31000-31001]")
			}), func(t *mesos.TaskInfo) { t.Resources = parsed("cpus:1;mem:32;ports:[31001-31001]") }),
			"cgroups shared by some": two("the value of 'share_cgroups' must be the same for all tasks", executor(nil), func(t *mesos.TaskInfo) {
				t.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), LinuxInfo: &mesos.LinuxInfo{ShareCgroups: proto.Bool(false)}}
			}),
		}, group)
		f.rows("operation", mesos.TaskStatus_REASON_TASK_GROUP_INVALID, map[string]row{"with an id": two("Operation 'id'", executor(nil), nil)},
			func(tasks []*mesos.TaskInfo, e *mesos.ExecutorInfo) *mesos.Offer_Operation {
				op := group(tasks, e)
				op.Id = &mesos.OperationID{Value: proto.String("o")}
				return op
			})
	})
}

// Whatever is wrong with the offers of an ACCEPT, its tasks are told as dropped, its operations as failed, and the valid
// offers go back.
func TestInvalidOfferRows(t *testing.T) {
	inBoth(t, func(t *testing.T, cd codec.Codec) {
		for _, aware := range []bool{true, false} {
			t.Run(fmt.Sprint("partition-aware: ", aware), func(t *testing.T) {
				s := start(t, nil)
				s.agent(1, "cpus:4;mem:4096")
				s.agent(2, "cpus:4;mem:4096")
				s.lead()
				capabilities, state := []mesos.FrameworkInfo_Capability_Type{mesos.FrameworkInfo_Capability_MULTI_ROLE}, mesos.TaskState_TASK_LOST
				if aware {
					capabilities, state = append(capabilities, mesos.FrameworkInfo_Capability_PARTITION_AWARE), mesos.TaskState_TASK_DROPPED
				}
				f := s.subscribe(cd, mastertest.Info("f", []string{"web"}, capabilities...))
				for name, row := range map[string]struct {
					ids  func(offers []*mesos.Offer) []string
					want string
				}{
					"none":       {func([]*mesos.Offer) []string { return nil }, "No offers specified"},
					"unknown":    {func([]*mesos.Offer) []string { return []string{"x"} }, "Offer x is no longer valid"},
					"twice":      {func(o []*mesos.Offer) []string { id := o[0].GetId().GetValue(); return []string{id, id} }, "Duplicate offer "},
					"two agents": {func(o []*mesos.Offer) []string { return []string{o[0].GetId().GetValue(), o[1].GetId().GetValue()} }, "Aggregated offers must belong to one single agent. "},
				} {
					var offers []*mesos.Offer
					for len(offers) < 2 {
						offers = append(offers, f.expect(scheduler.Event_OFFERS).GetOffers().GetOffers()...)
					}
					task := rowTask(nil)
					task.AgentId = offers[0].GetAgentId()
					grouped := rowTask(func(t *mesos.TaskInfo) { t.TaskId = &mesos.TaskID{Value: proto.String("grouped")} })
					grouped.AgentId = offers[0].GetAgentId()
					accept := &scheduler.Call_Accept{Operations: []*mesos.Offer_Operation{
						launchOp([]*mesos.TaskInfo{task}, nil),
						{Type: mesos.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
							Executor: rowExecutor("e", "cpus:1"), TaskGroup: &mesos.TaskGroupInfo{Tasks: []*mesos.TaskInfo{grouped}},
						}},
						{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{}},
						{Type: mesos.Offer_Operation_RESERVE.Enum(), Id: &mesos.OperationID{Value: proto.String("o")}, Reserve: &mesos.Offer_Operation_Reserve{}},
					}, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(1000)}}
					ids := row.ids(offers)
					for _, id := range ids {
						accept.OfferIds = append(accept.OfferIds, &mesos.OfferID{Value: proto.String(id)})
					}
					f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: accept})
					for _, id := range []string{"row", "grouped"} {
						status := f.expect(scheduler.Event_UPDATE).GetUpdate().GetStatus()
						if status.GetTaskId().GetValue() != id || status.GetState() != state || status.GetSource() != mesos.TaskStatus_SOURCE_MASTER ||
							status.GetReason() != mesos.TaskStatus_REASON_INVALID_OFFERS || len(status.GetUuid()) > 0 ||
							!strings.HasPrefix(status.GetMessage(), "Task launched with invalid offers: "+row.want) {
							t.Errorf("%s: got %s, want %q", name, prototext.Format(status), row.want)
						}
					}
					op := f.expect(scheduler.Event_UPDATE_OPERATION_STATUS).GetUpdateOperationStatus().GetStatus()
					if op.GetState() != mesos.OperationState_OPERATION_ERROR || op.GetOperationId().GetValue() != "o" || op.Uuid != nil || !strings.Contains(op.GetMessage(), row.want) {
						t.Errorf("%s: got %s, want %q", name, prototext.Format(op), row.want)
					}
					// Those that were valid come again at once, whatever the filter says; the others were never given up.
					decline := &scheduler.Call_Decline{Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)}}
					for _, o := range offers {
						if !slices.Contains(ids, o.GetId().GetValue()) {
							decline.OfferIds = append(decline.OfferIds, o.GetId())
						}
					}
					f.call(&scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: decline})
				}
			})
		}
	})
}
