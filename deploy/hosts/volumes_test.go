package hosts

import (
	"fmt"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/codec"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// stateful is a framework that keeps data in a persistent volume.
type stateful struct {
	t      *testing.T
	client *client.Client
	info   *mesos.FrameworkInfo
	stream *client.Stream
}

func newStateful(t *testing.T, r *Roles) *stateful {
	t.Helper()
	f := &stateful{t: t, client: client.New(client.Config{
		Masters: []string{strings.TrimPrefix(r.Master, "http://")}, Codec: codec.JSON, Transport: r.transport(),
	})}
	t.Cleanup(f.client.Close)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	f.info = &mesos.FrameworkInfo{
		User: proto.String(me.Username), Name: proto.String("stateful"), FailoverTimeout: proto.Float64(3600), Roles: []string{"web"},
		Capabilities: []*mesos.FrameworkInfo_Capability{
			{Type: mesos.FrameworkInfo_Capability_MULTI_ROLE.Enum()},
			{Type: mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT.Enum()},
		},
	}
	f.subscribe()
	return f
}

func (f *stateful) subscribe() {
	f.t.Helper()
	Eventually(f.t, 30*time.Second, "the framework is subscribed", func() (err error) {
		f.stream, err = f.client.Subscribe(f.t.Context(), &scheduler.Call{
			Type: scheduler.Call_SUBSCRIBE.Enum(), FrameworkId: f.info.GetId(), Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: f.info},
		})
		return err
	})
	f.t.Cleanup(f.stream.Close)
	f.info.Id = f.until("SUBSCRIBED", func(e *scheduler.Event) bool { return e.GetType() == scheduler.Event_SUBSCRIBED }).GetSubscribed().GetFrameworkId()
}

func (f *stateful) call(call *scheduler.Call) {
	f.t.Helper()
	call.FrameworkId = f.info.GetId()
	if err := f.stream.Call(f.t.Context(), call); err != nil {
		f.t.Fatalf("%s: %v", call.GetType(), err)
	}
}

// until reads events up to one that is what is wanted, acknowledges all, and declines offers that are not.
func (f *stateful) until(what string, is func(*scheduler.Event) bool) *scheduler.Event {
	f.t.Helper()
	stop := time.AfterFunc(time.Minute, f.stream.Close)
	defer stop.Stop()
	for {
		event, err := f.stream.Next()
		if err != nil {
			f.t.Fatalf("waited in vain for %s: %v", what, err)
		}
		if st := event.GetUpdate().GetStatus(); len(st.GetUuid()) > 0 {
			f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE.Enum(), Acknowledge: &scheduler.Call_Acknowledge{
				AgentId: st.GetAgentId(), TaskId: st.GetTaskId(), Uuid: st.GetUuid(),
			}})
		}
		if st := event.GetUpdateOperationStatus().GetStatus(); st.GetUuid() != nil {
			f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(), AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{
				AgentId: st.GetAgentId(), Uuid: st.GetUuid().GetValue(), OperationId: st.GetOperationId(),
			}})
		}
		if is(event) {
			return event
		}
		for _, o := range event.GetOffers().GetOffers() {
			f.decline(o)
		}
	}
}

func (f *stateful) decline(o *mesos.Offer) {
	f.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_DECLINE.Enum(), Decline: &scheduler.Call_Decline{
		OfferIds: []*mesos.OfferID{o.GetId()}, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0.5)},
	}})
}

// offer waits for one that has all of something.
func (f *stateful) offer(want ...*mesos.Resource) *mesos.Offer {
	f.t.Helper()
	need, err := resources.FromProto(want)
	if err != nil {
		f.t.Fatal(err)
	}
	has := func(o *mesos.Offer) bool {
		got, err := resources.FromProto(o.GetResources())
		return err == nil && got.Unallocated().Contains(need)
	}
	event := f.until(fmt.Sprintf("an offer of %v", need), func(e *scheduler.Event) bool {
		return len(e.GetOffers().GetOffers()) == 1 && has(e.GetOffers().GetOffers()[0])
	})
	return event.GetOffers().GetOffers()[0]
}

// state waits for a task to be in a state.
func (f *stateful) state(task string, want mesos.TaskState) {
	f.t.Helper()
	f.until(fmt.Sprintf("%s of %s", want, task), func(e *scheduler.Event) bool {
		st := e.GetUpdate().GetStatus()
		if st.GetTaskId().GetValue() != task || st.GetState() == want {
			return st.GetTaskId().GetValue() == task
		}
		switch st.GetState() {
		case mesos.TaskState_TASK_FAILED, mesos.TaskState_TASK_ERROR, mesos.TaskState_TASK_LOST:
			f.t.Fatalf("got %v, want %s", st, want)
		}
		return false
	})
}

func (f *stateful) accept(o *mesos.Offer, ops ...*mesos.Offer_Operation) {
	f.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
		OfferIds: []*mesos.OfferID{o.GetId()}, Operations: ops, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
	}})
}

func onVolume(id, script string, agent *mesos.AgentID, volume *mesos.Resource, container ...*mesos.ContainerInfo) *mesos.Offer_Operation {
	res, err := resources.Parse("cpus:0.5;mem:64", resources.AnyRole)
	if err != nil {
		panic(err) // a mistake in the test
	}
	task := &mesos.TaskInfo{
		Name: &id, TaskId: &mesos.TaskID{Value: &id}, AgentId: agent, Command: &mesos.CommandInfo{Value: &script},
		Resources: append(res.Proto(), proto.CloneOf(volume)),
	}
	for _, c := range container {
		task.Container = c
	}
	return &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_LAUNCH.Enum(), Launch: &mesos.Offer_Operation_Launch{TaskInfos: []*mesos.TaskInfo{task}},
	}
}

// A task writes into a volume of its framework; agent and master are killed and come back; the task dies, and the next one on
// the volume reads what the first one wrote. DESTROY and UNRESERVE leave nothing.
func TestAVolumeOutlivesItsTasks(t *testing.T) {
	r := Separate(t, 1)
	f := newStateful(t, r)
	disk := &mesos.Resource{
		Name: proto.String("disk"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(100)},
		Reservations: []*mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String("web")}},
	}
	volume := proto.CloneOf(disk)
	volume.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String("v1")},
		Volume:      &mesos.Volume{Mode: mesos.Volume_RW.Enum(), ContainerPath: proto.String("data")},
	}
	reserve := &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_RESERVE.Enum(), Id: &mesos.OperationID{Value: proto.String("reserve")},
		Reserve: &mesos.Offer_Operation_Reserve{Resources: []*mesos.Resource{disk}},
	}
	create := &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: []*mesos.Resource{volume}},
	}
	offer := f.offer()
	f.accept(offer, reserve, create, onVolume("writer", "echo remembered >data/file && exec sleep 1000", offer.GetAgentId(), volume))
	finished := false
	f.until("the task runs and the reservation is told", func(e *scheduler.Event) bool {
		if st := e.GetUpdateOperationStatus().GetStatus(); st != nil {
			finished = st.GetOperationId().GetValue() == "reserve" && st.GetState() == mesos.OperationState_OPERATION_FINISHED
		}
		file, _ := os.ReadFile(filepath.Join(r.AgentDirs[0], "volumes", "roles", "web", "v1", "file"))
		return finished && string(file) == "remembered\n"
	})

	r.Agents[0].Kill()
	r.Agents[0].run()
	r.Agents[0].Healthy(r.agentHealth[0])
	r.MasterProcess.Kill()
	r.MasterProcess.run()
	r.MasterProcess.Healthy(r.masterHealth)
	f.subscribe()
	f.call(&scheduler.Call{Type: scheduler.Call_KILL.Enum(), Kill: &scheduler.Call_Kill{
		TaskId: &mesos.TaskID{Value: proto.String("writer")}, AgentId: offer.GetAgentId(),
	}})
	f.state("writer", mesos.TaskState_TASK_KILLED)

	offer = f.offer(volume)
	f.accept(offer, onVolume("reader", "grep -qx remembered data/file", offer.GetAgentId(), volume))
	f.state("reader", mesos.TaskState_TASK_FINISHED)
	offer = f.offer(volume)
	destroy := &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: []*mesos.Resource{volume}},
	}
	unreserve := &mesos.Offer_Operation{
		Type: mesos.Offer_Operation_UNRESERVE.Enum(), Id: &mesos.OperationID{Value: proto.String("unreserve")},
		Unreserve: &mesos.Offer_Operation_Unreserve{Resources: []*mesos.Resource{disk}},
	}
	f.accept(offer, destroy, unreserve)
	f.until("the end of the reservation is told", func(e *scheduler.Event) bool {
		st := e.GetUpdateOperationStatus().GetStatus()
		return st.GetOperationId().GetValue() == "unreserve" && st.GetState() == mesos.OperationState_OPERATION_FINISHED
	})
	for _, url := range []string{r.Master + "/slaves", strings.TrimSuffix(r.agentHealth[0], "/health") + "/state"} {
		status, body, err := r.request("GET", url, "")
		if err != nil || status != http.StatusOK || !strings.Contains(body, `"reserved_resources":{}`) {
			t.Errorf("%s: got %d %v %s", url, status, err, body)
		}
	}
	if left, err := os.ReadDir(filepath.Join(r.AgentDirs[0], "volumes", "roles", "web")); err != nil || len(left) > 0 {
		t.Errorf("left of the volume: %v, %v", left, err)
	}
}
