package validation

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/scheduler"
)

// FuzzCall checks all of any call: nothing may panic, nothing that passes may take more than there is, and whatever is taken
// for an operation is given back in another form.
func FuzzCall(f *testing.F) {
	add := func(call *scheduler.Call) {
		b, err := proto.Marshal(call)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	task, _ := launching(f)
	withExecutor(f, func(*mesos.ExecutorInfo) {})(task)
	g, _ := launchingGroup(f)
	g.complete()
	add(&scheduler.Call{
		Type: scheduler.Call_ACCEPT.Enum(), FrameworkId: frameworkID("m-0000"),
		Accept: &scheduler.Call_Accept{Operations: []*mesos.Offer_Operation{
			{Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{task}}},
			{Type: mesos.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
				Executor: g.executor, TaskGroup: &mesos.TaskGroupInfo{Tasks: g.tasks},
			}},
			reserveOp(allocated(f, reserved)), unreserveOp(allocated(f, disk)), createOp(allocated(f, vol("v", ""))), destroyOp(allocated(f, vol("old", ""))),
		}},
	})
	add(&scheduler.Call{Type: scheduler.Call_SUBSCRIBE.Enum(), Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: webFramework()}})
	f.Fuzz(func(t *testing.T, b []byte) {
		call := new(scheduler.Call)
		if proto.Unmarshal(b, call) != nil || proto.CheckInitialized(call) != nil || Call(call) != nil {
			return
		}
		if info := call.GetSubscribe().GetFrameworkInfo(); info != nil && Framework(info) == nil {
			if err := Suppressed(info, Roles(info)); err != nil {
				t.Errorf("a framework can't suppress its own roles: %v", err)
			}
		}
		for _, op := range call.GetAccept().GetOperations() {
			_, ctx := launching(t)
			for _, info := range op.GetLaunch().GetTaskInfos() {
				if need, err := Task(info, ctx); err == nil && (!ctx.Pool.Contains(need) || need.Empty()) {
					t.Errorf("a task takes %v of %v", need, ctx.Pool)
				}
			}
			if group := op.GetLaunchGroup(); group != nil {
				if need, err := Group(group.GetExecutor(), group.GetTaskGroup().GetTasks(), ctx); err == nil && !ctx.Pool.Contains(need) {
					t.Errorf("a group takes %v of %v", need, ctx.Pool)
				}
			}
			volumes := parseText(t, vol("old", ""))
			pool := parseText(t, "cpus:4;mem:1024").Add(parseText(t, disk)).Add(volumes).AllocatedTo("web")
			change, err := Operation(op, OperationContext{Framework: ctx.Framework, Pool: pool, Volumes: volumes})
			if err != nil {
				continue
			}
			if !pool.Contains(change.Takes) {
				t.Errorf("an operation takes %v of %v", change.Takes, pool)
			}
			for name, amount := range change.Takes.Scalars() {
				if got := change.Gives.Scalar(name); got != amount {
					t.Errorf("an operation takes %v of %q and gives %v", amount, name, got)
				}
			}
		}
	})
}
