package master_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mastertest"
	"starling/master/mesos/scheduler"
)

// A node where nothing can be started would take task after task and lose them all.
func TestADegradedNodeIsNotOffered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", nil))
		f.ExpectOffer()
		own := c.Mesh.Snapshot(a.ID)
		var entries []record.Assignment
		for _, key := range []string{catalog.KeyNode, catalog.KeyResources} {
			value, _ := own.Get(key)
			entries = append(entries, record.Assignment{Key: key, Value: value})
		}
		say := func(generation uint64, degraded bool) {
			t.Helper()
			value, err := proto.Marshal(&catalog.Health{Degraded: degraded})
			if err != nil {
				t.Fatal(err)
			}
			node := record.NewMap(a.ID, own.Generation()+generation)
			node.Set(time.Now(), append(entries, record.Assignment{Key: catalog.KeyHealth, Value: value})...)
			if err := c.Mesh.Apply(node.Delta(a.ID, 0)); err != nil {
				t.Fatal(err)
			}
		}
		say(1, true)
		await(t, f, scheduler.Event_RESCIND)
		quiet(t, f, scheduler.Event_OFFERS, time.Hour)
		if v := agentView(t, c, a.ID); v == nil || v.Deactivated {
			t.Errorf("shown as %+v: nobody has deactivated it", v)
		}
		say(2, false)
		f.ExpectOffer()
		checkBooks(t, c.Master)
	})
}
