package gossip

import (
	"testing"
	"time"

	"starling/gossip/record"
)

// A node of a later release says things that this one cannot read. Each is refused and counted alone: the rest of the same message is
// taken, the sender stays a member, and what it says in words of this release is heard.
func TestALaterReleaseIsHeardInPart(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3)
		m, later := f.nodes[0].Mesh, f.nodes[1].Mesh
		to, _ := later.peerOf("node-000")
		about := func(node string, change func(wire []byte)) []byte {
			r := record.NewMap(node, 1)
			r.Set(epoch, assign("k", "v"))
			wire := r.Delta(node, 0)
			if change != nil {
				change(wire)
			}
			return wire
		}
		before := refusals(m)
		for _, body := range [][]byte{
			{messageVersion + 1, byte(kindHot), 1, 2, 3}, // a later version
			{messageVersion, 200, 1, 2, 3},               // a later kind
			(&message{kind: kindHot, deltas: [][]byte{
				about("x1", nil),
				about("x2", func(w []byte) { w[0]++ }),     // a later version of the record format
				about("x3", func(w []byte) { w[1] = 64 }),  // a flag of the header
				about("x4", func(w []byte) { w[8] |= 64 }), // a flag of an entry
				about("x5", nil),
			}}).append(nil),
			(&message{kind: kindSummary, node: "node-001", flags: 1 << 40, summary: later.records.Summary()}).append(nil), // a flag that asks for more
		} {
			if err := later.ml.Load().SendBestEffort(&to, body); err != nil {
				t.Fatal(err)
			}
			f.settle()
		}
		if n := refusals(m) - before; n != 5 {
			t.Errorf("%v were refused, want the version, the kind and three deltas", n)
		}
		for node, want := range map[string]bool{"x1": true, "x2": false, "x3": false, "x4": false, "x5": true} {
			if got := m.Snapshot(node) != nil; got != want {
				t.Errorf("the record of %s is held: %v, want %v", node, got, want)
			}
		}
		later.Set(assign("node", "in words of this release"))
		f.within(5*time.Second, "heard", everywhere(f.nodes, "node-001", "node", "in words of this release"))
		if l := f.nodes[0].liveness("node-001"); l != record.Alive {
			t.Errorf("the node of a later release is %v", l)
		}
	})
}
