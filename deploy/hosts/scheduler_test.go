package hosts

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// Tasks are not launched on an offer that cannot hold all of them: those that do not fit would be refused for good.
func TestSchedulerWaitsForAnOfferThatIsEnough(t *testing.T) {
	f := &Scheduler{t: t, info: &mesos.FrameworkInfo{}, launch: []string{"t1", "t2", "t3"}}
	for _, offer := range []struct {
		holds string
		want  scheduler.Call_Type
	}{
		{"cpus:0.05;mem:32", scheduler.Call_DECLINE},
		{"cpus:8;mem:64;disk:10000", scheduler.Call_DECLINE},
		{"disk:10000;ports:[31000-32000]", scheduler.Call_DECLINE},
		{"cpus:0.15;mem:96", scheduler.Call_ACCEPT},
		{"cpus:8;mem:8192", scheduler.Call_DECLINE}, // nothing waits any more
	} {
		res, err := resources.Parse(offer.holds, resources.AnyRole)
		if err != nil {
			t.Fatal(err)
		}
		calls := f.take(&scheduler.Event{
			Type: scheduler.Event_OFFERS.Enum(), Offers: &scheduler.Event_Offers{Offers: []*mesos.Offer{{
				Id: &mesos.OfferID{Value: proto.String("o")}, AgentId: &mesos.AgentID{Value: proto.String("a")},
				Resources: res.AllocatedTo(resources.AnyRole).Proto(),
			}}},
		}, "")
		if len(calls) != 1 || calls[0].GetType() != offer.want {
			t.Errorf("an offer of %s is answered with %v, want %v", offer.holds, calls, offer.want)
		}
		for _, c := range calls {
			for _, op := range c.GetAccept().GetOperations() {
				if n := len(op.GetLaunch().GetTaskInfos()); n != 3 {
					t.Errorf("%d tasks are launched on %s, want 3", n, offer.holds)
				}
			}
		}
	}
}
