package master_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mesos"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// forgingClient puts a record into the answers of agents.
type forgingClient struct {
	master.NodeClient
	delta atomic.Pointer[[]byte]
}

func (c *forgingClient) Call(ctx context.Context, addr string, call *nodeapi.Call) (*nodeapi.Reply, error) {
	reply, err := c.NodeClient.Call(ctx, addr, call)
	if delta := c.delta.Load(); err == nil && delta != nil {
		reply.Delta = *delta
	}
	return reply, err
}

// An agent has no say in the record of another, nor in the master's, be it in a report or in an answer. What else it reports is
// taken.
func TestRecordOfAnotherNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := &forgingClient{}
		c, a, f := withTask(t, func(cfg *master.Config) { client.NodeClient, cfg.Client = cfg.Client, client })
		b := c.AddAgent(2, "cpus:1;mem:32")
		synctest.Wait()
		forged := func(node string, generation uint64) []byte {
			own := record.NewMap(node, generation)
			own.Set(time.Now(), record.Assignment{Key: "k", Value: []byte("forged")})
			return own.Delta(node, 0)
		}
		dropped := func() float64 {
			synctest.Wait()
			return metricsOf(t, c.Master)["master/dropped_messages"]
		}
		for name, delta := range map[string][]byte{
			"of a live agent": forged(a.ID, 1000), "of a node that nobody knows": forged("stranger", 1),
			"cut off": forged(b.ID, 1000)[:5], "of another format": {255},
		} {
			before := dropped()
			report := &nodeapi.Report{Epoch: 1, AgentId: b.ID, Delta: delta, Messages: []*nodeapi.ExecutorMessage{{
				FrameworkId: f.Again().GetId(), ExecutorId: &mesos.ExecutorID{Value: proto.String("e")}, Data: []byte("taken"),
			}}}
			if err := c.Master.Report(t.Context(), report); err != nil {
				t.Fatalf("a record %s: %v", name, err)
			}
			if got := await(t, f, scheduler.Event_MESSAGE).GetMessage().GetData(); string(got) != "taken" {
				t.Errorf("a record %s: got the message %q", name, got)
			}
			if got := dropped() - before; got != 1 {
				t.Errorf("a record %s in a report: %v are refused", name, got)
			}
		}
		delta := forged(a.ID, 1000)
		client.delta.Store(&delta)
		before := dropped()
		if err := b.Restart(); err != nil { // it is asked what it runs
			t.Fatal(err)
		}
		if got := dropped() - before; got < 1 {
			t.Errorf("in an answer: %v are refused", got)
		}
		if s := c.Mesh.Snapshot(a.ID); s.Generation() == 1000 {
			t.Error("the record of an agent was replaced by another")
		}
		if c.Mesh.Snapshot("stranger") != nil {
			t.Error("a node was made up")
		}
		f.Reconcile("t", "")
		awaitStatus(t, f, "t", running)
		own := forged(b.ID, 1000)
		if err := c.Master.Report(t.Context(), &nodeapi.Report{Epoch: 1, AgentId: b.ID, Delta: own}); err != nil {
			t.Fatal(err)
		}
		if got := c.Mesh.Snapshot(b.ID).Generation(); got != 1000 {
			t.Errorf("its own record: generation %d is held, want 1000", got)
		}
	})
}
