package master_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master/mesos/scheduler"
	"starling/master/nodeapi"
)

// S18a: whoever holds the key of the mesh can write a record in the name of an agent, with a higher generation, that shows no task, or
// a drain, or another address. Nothing is ended because of that, and no framework is told that its task is lost.
func TestForgedRecordOfAnAgent(t *testing.T) {
	for name, forge := range map[string]func(*catalog.Node, *catalog.Health){
		"without tasks":             func(*catalog.Node, *catalog.Health) {},
		"with a drain":              func(_ *catalog.Node, h *catalog.Health) { h.Draining = true },
		"with an address of nobody": func(n *catalog.Node, _ *catalog.Health) { n.Address = "10.9.9.9" },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c, a, f := withTask(t, nil, aware)
				f.Call(&scheduler.Call{Type: scheduler.Call_SUPPRESS.Enum()})
				synctest.Wait()
				own := c.Mesh.Snapshot(a.ID)
				var forged []record.Assignment
				health := new(catalog.Health)
				node := new(catalog.Node)
				for _, key := range []string{catalog.KeyNode, catalog.KeyResources, catalog.KeyHealth} {
					value, _ := own.Get(key)
					forged = append(forged, record.Assignment{Key: key, Value: value})
				}
				if err := proto.Unmarshal(forged[0].Value, node); err != nil {
					t.Fatal(err)
				}
				forge(node, health)
				for i, m := range map[int]proto.Message{0: node, 2: health} {
					var err error
					if forged[i].Value, err = proto.Marshal(m); err != nil {
						t.Fatal(err)
					}
				}
				liar := record.NewMap(a.ID, own.Generation()+1)
				liar.Set(time.Now(), forged...)
				if err := c.Mesh.Apply(liar.Delta(a.ID, 0)); err != nil {
					t.Fatal(err)
				}
				if got := c.Mesh.Snapshot(a.ID).Generation(); got != own.Generation()+1 {
					t.Fatalf("the record in the mesh has generation %d", got)
				}
				quiet(t, f, scheduler.Event_UPDATE, 10*time.Minute)
				for _, call := range a.Calls() {
					switch call.GetCall().(type) {
					case *nodeapi.Call_Kill, *nodeapi.Call_Shutdown, *nodeapi.Call_Drain:
						t.Errorf("the agent was told %v", call)
					}
				}
				if len(a.Tasks()) != 1 || a.Starts(f.ID, "t") != 1 {
					t.Errorf("the agent runs %v", a.Tasks())
				}
				// The agent outbids whoever speaks in its name, and all is as it was.
				for range 2 {
					if err := a.Restart(); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if v := agentView(t, c, a.ID); v == nil || !v.Active {
					t.Errorf("shown as %+v", v)
				}
				f.Reconcile("t", a.ID)
				awaitStatus(t, f, "t", running)
				checkBooks(t, c.Master)
			})
		})
	}
}
