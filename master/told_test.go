package master_test

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/catalog"
	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos/scheduler"
)

// toldOf reads what a record says of frameworks: their addresses by name, and of which term they are.
func toldOf(t *testing.T, c *mastertest.Cluster, node string) (frameworks map[string]string, epoch uint64) {
	t.Helper()
	s := c.Mesh.Snapshot(node)
	frameworks = map[string]string{}
	for key, value := range s.Prefix(catalog.PrefixFramework) {
		if key == catalog.PrefixFramework {
			mark := new(catalog.Frameworks)
			if err := proto.Unmarshal(value, mark); err != nil {
				t.Fatal(err)
			}
			epoch = mark.Epoch
			defer func() {
				if int(mark.Count) != len(frameworks) {
					t.Errorf("the record counts %d frameworks and holds %v", mark.Count, frameworks)
				}
			}()
			continue
		}
		f := new(catalog.Framework)
		if err := proto.Unmarshal(value, f); err != nil {
			t.Fatal(err)
		}
		frameworks[f.Name] = fmt.Sprint(f.Addresses)
	}
	return frameworks, epoch
}

func wantTold(t *testing.T, c *mastertest.Cluster, epoch uint64, want map[string]string) {
	t.Helper()
	synctest.Wait()
	got, of := toldOf(t, c, mastertest.MasterID)
	if !maps.Equal(got, want) || of != epoch {
		t.Errorf("told %v of term %d, want %v of %d", got, of, want, epoch)
	}
}

// subscribeFrom subscribes a framework whose connection comes from an address.
func subscribeFrom(t *testing.T, c *mastertest.Cluster, name, host, peer string) (id string, stream *master.Stream) {
	t.Helper()
	info := mastertest.Info(name, nil)
	info.Hostname = &host
	forever := 1e9
	info.FailoverTimeout = &forever
	var from netip.Addr
	if peer != "" {
		from = netip.MustParseAddr(peer)
	}
	stream, err := c.Master.Subscribe(t.Context(), &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE.Enum(), Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: info},
	}, "", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stream.Close)
	event, err := stream.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return event.GetSubscribed().GetFrameworkId().GetValue(), stream
}

func TestDNSIsToldOfFrameworks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		wantTold(t, c, 1, map[string]string{})
		a.SetNode(func(n *catalog.Node) { n.Hostname, n.Address = "Edge1", "10.0.1.77" })
		if err := a.Join(c.Mesh); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		subscribeFrom(t, c, "by address", "10.0.7.1", "10.0.8.1")
		subscribeFrom(t, c, "by node", "edge1", "10.0.8.1")
		subscribeFrom(t, c, "by connection", "nobody.example", "::ffff:10.0.8.2")
		subscribeFrom(t, c, "on this machine", "", "127.0.0.1")
		subscribeFrom(t, c, "nowhere", "", "")
		id, stream := subscribeFrom(t, c, "gone soon", "", "fd00::9")
		want := map[string]string{
			"by address": "[10.0.7.1]", "by node": "[10.0.1.77]", "by connection": "[10.0.8.2]", "on this machine": "[10.0.0.1]", "nowhere": "[]",
			"gone soon": "[fd00::9]",
		}
		wantTold(t, c, 1, want)
		stream.Close() // it may come back, and its tasks run
		wantTold(t, c, 1, want)
		version := c.Mesh.Snapshot(mastertest.MasterID).Version()
		time.Sleep(time.Hour)
		synctest.Wait()
		if now := c.Mesh.Snapshot(mastertest.MasterID).Version(); now != version {
			t.Errorf("the record has changed from version %d to %d with nothing to tell", version, now)
		}
		if err := c.Master.Teardown(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		delete(want, "gone soon")
		wantTold(t, c, 1, want)

		// The end of a term takes nothing back, and the next one of this master tells the same anew.
		c.Lose()
		wantTold(t, c, 1, want)
		c.Elect()
		wantTold(t, c, 2, want)
	})
}

// A host name that several machines have, as those do that were made from one image, is nobody's: the connection tells where a scheduler is.
func TestAHostNameOfTwoMachinesIsNobodys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		called := func(a *mastertest.Agent, host, address string) {
			t.Helper()
			a.SetNode(func(n *catalog.Node) { n.Hostname, n.Address = host, address })
			if err := a.Join(c.Mesh); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		called(a, "image", "10.0.1.77")
		subscribeFrom(t, c, "before", "image", "10.0.8.1")
		b := c.AddAgent(2, "cpus:4;mem:4096")
		called(b, "image", "10.0.1.78")
		subscribeFrom(t, c, "contested", "image", "10.0.8.2")
		called(b, "other", "10.0.1.78")
		subscribeFrom(t, c, "after", "image", "10.0.8.3")
		subscribeFrom(t, c, "other", "other", "10.0.8.4")
		wantTold(t, c, 1, map[string]string{
			"before": "[10.0.1.77]", "contested": "[10.0.8.2]", "after": "[10.0.1.77]", "other": "[10.0.1.78]",
		})
	})
}

// A master that takes over tells what the mesh knew of where schedulers are until they come back; the one before it takes its own back
// when it hears of that, not before.
func TestFrameworksAreHandedOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		subscribeFrom(t, c, "f", "", "10.0.8.1")
		want := map[string]string{"f": "[10.0.8.1]"}
		wantTold(t, c, 1, want)
		c.Lose()
		other := newClaim(t, c, "other", 2)
		wantTold(t, c, 1, want) // it leads, and has not told of frameworks
		mark := func(epoch uint64) record.Assignment {
			value, err := proto.Marshal(&catalog.Frameworks{Epoch: epoch})
			if err != nil {
				t.Fatal(err)
			}
			return record.Assignment{Key: catalog.PrefixFramework, Value: value}
		}
		other.set(t, c, mark(1))
		wantTold(t, c, 1, want)
		other.set(t, c, mark(2))
		wantTold(t, c, 0, map[string]string{})

		moved, err := proto.Marshal(&catalog.Framework{Name: "f", Addresses: []string{"10.0.8.2"}})
		if err != nil {
			t.Fatal(err)
		}
		id := mastertest.MasterID + "-0000"
		other.set(t, c, record.Assignment{Key: catalog.PrefixFramework + id, Value: moved})
		stale := newClaim(t, c, "stale", 1)
		old, err := proto.Marshal(&catalog.Framework{Name: "f", Addresses: []string{"10.0.8.1"}})
		if err != nil {
			t.Fatal(err)
		}
		stale.set(t, c, record.Assignment{Key: catalog.PrefixFramework + id, Value: old})
		stale.set(t, c, mark(1))
		next := mastertest.Start(t, c.Store, func(cfg *master.Config) { cfg.Mesh = c.Mesh })
		next.Mesh = c.Mesh
		next.ElectAs(3)
		wantTold(t, next, 3, map[string]string{"f": "[10.0.8.2]"})
	})
}

func TestFrameworksThatAreToldOfAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		for i := range 1003 {
			subscribeFrom(t, c, fmt.Sprint("f", i), "", "10.0.8.1")
		}
		count := func() int {
			synctest.Wait()
			got, _ := toldOf(t, c, mastertest.MasterID)
			return len(got)
		}
		if got := count(); got != 1000 {
			t.Errorf("told of %d frameworks, want 1,000", got)
		}
		if err := c.Master.Teardown(t.Context(), mastertest.MasterID+"-0000"); err != nil {
			t.Fatal(err)
		}
		if got := count(); got != 1000 {
			t.Errorf("told of %d frameworks with one less, want 1,000", got)
		}
	})
}
