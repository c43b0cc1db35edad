package master_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"starling/master/mastertest"
	"starling/master/mesos"
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
