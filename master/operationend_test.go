package master_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// A report may have been under way while the status in it was acknowledged. What it tells of is forgotten with the next
// description of the agent at the latest.
func TestLateReportOfAnOperation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := disked(t)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"eng"}, multiRole))
		id := uuid.New()
		late := &mesos.Operation{
			FrameworkId: &mesos.FrameworkID{Value: proto.String(f.ID)}, AgentId: &mesos.AgentID{Value: proto.String(a.ID)},
			Info: mastertest.Reserve("op", "eng", "", "cpus:1"), Uuid: &mesos.UUID{Value: id[:]},
			LatestStatus: &mesos.OperationStatus{
				OperationId: &mesos.OperationID{Value: proto.String("op")}, State: finished.Enum(), Uuid: &mesos.UUID{Value: id[:]},
			},
		}
		if err := c.Master.Report(t.Context(), &nodeapi.Report{Epoch: 1, AgentId: a.ID, Operations: []*mesos.Operation{late}}); err != nil {
			t.Fatal(err)
		}
		if got := len(view(t, c.Master).Operations); got != 1 {
			t.Fatalf("%d operations are listed, want 1", got)
		}
		if err := a.Restart(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if got := len(view(t, c.Master).Operations); got != 0 {
			t.Errorf("%d operations are listed that the agent does not know", got)
		}
		checkBooks(t, c.Master)
	})
}

// The store is lost, and the agent runs nothing of a framework but knows the end of its operation. The framework
// may still come back for a while; later the agent is told to forget it, and can be drained.
func TestOperationOfAnUnknownFramework(t *testing.T) {
	for name, returns := range map[string]bool{"that returns": true, "that does not": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a := disked(t)
				f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"web"}))
				accept(f, f.ExpectOffer(), mastertest.Reserve("op", "web", "", "cpus:1"))
				f.Expect(scheduler.Event_UPDATE_OPERATION_STATUS) // not acknowledged
				c.Stop()
				c = mastertest.Start(t, nil, nil)
				c.Adopt(a)
				c.ElectAs(2)
				synctest.Wait()
				if err := c.Master.DrainAgent(t.Context(), a.ID, nil, false); err != nil {
					t.Fatal(err)
				}
				time.Sleep(8 * time.Minute)
				synctest.Wait()
				if len(a.Unacknowledged()) != 1 || drainState(t, c, a.ID) != mesos.DrainState_DRAINING {
					t.Fatalf("too early: %v wait, drain is %v", a.Unacknowledged(), drainState(t, c, a.ID))
				}
				if returns {
					mastertest.Subscribe(t, c.Master, f.Again())
					time.Sleep(8 * time.Minute)
					synctest.Wait()
					if len(a.Unacknowledged()) != 1 {
						t.Error("it is forgotten although its framework is back")
					}
					return
				}
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				if left := a.Unacknowledged(); len(left) > 0 || drainState(t, c, a.ID) != mesos.DrainState_DRAINED {
					t.Errorf("%v wait still, drain is %v", left, drainState(t, c, a.ID))
				}
				if got := len(view(t, c.Master).Operations); got != 0 {
					t.Errorf("%d operations are listed", got)
				}
				if a.Total().ReservedFor("web").Empty() {
					t.Error("the reservation is gone")
				}
				checkBooks(t, c.Master)
			})
		})
	}
}
