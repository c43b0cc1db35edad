package record

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDelta takes a message apart and writes it again: what is read the second time is what was read the first time, and what is
// written the second time is, byte for byte, what was written the first time.
func FuzzDelta(f *testing.F) {
	for _, wire := range golden(&testing.T{}) {
		f.Add(wire)
	}
	limits := DefaultLimits()
	f.Fuzz(func(t *testing.T, wire []byte) {
		d, err := parseDelta(wire, &limits)
		subject, unnamed := Subject(wire)
		if err != nil {
			return
		}
		if unnamed != nil || subject != d.node {
			t.Fatalf("a delta about %q is taken for one about %q (%v)", d.node, subject, unnamed)
		}
		if len(d.entries) > len(wire)/minEntry {
			t.Fatalf("%d entries out of %d bytes", len(d.entries), len(wire))
		}
		once := d.appendWire(nil)
		again, err := parseDelta(once, &limits)
		if err != nil {
			t.Fatalf("%x written again as %x: %v", wire, once, err)
		}
		if diff := cmp.Diff(d, again, cmp.AllowUnexported(delta{}, entry{}, item{}, span{})); diff != "" {
			t.Fatalf("%x written again as %x (-first +second):\n%s", wire, once, diff)
		}
		if twice := again.appendWire(nil); !bytes.Equal(once, twice) {
			t.Fatalf("written as %x and then as %x", once, twice)
		}
	})
}

// FuzzTwoDeltas feeds two messages to a copy in both orders. Versions never go back, the books stay right, and what the one
// order holds for complete the other one, given the same once more, does not contradict.
func FuzzTwoDeltas(f *testing.F) {
	g := golden(&testing.T{})
	for _, a := range g {
		for _, b := range g {
			f.Add(a, b)
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		m := NewMap("m", 1)
		last := map[string]Digest{}
		for _, wire := range [][]byte{a, b, a, b} {
			_, _ = m.Apply(epoch, wire)
			for s := range m.Snapshots() {
				d := Digest{s.node, s.generation, s.version, s.floor}
				old := last[s.node]
				if d.Generation < old.Generation || d.Generation == old.Generation && (d.Version < old.Version || d.Floor < old.Floor) {
					t.Fatalf("%+v after %+v", d, old)
				}
				last[s.node] = d
				wantBooks(t, m, s.node)
			}
		}
		for _, d := range m.Digests(nil) {
			if v := m.Compare(epoch, d); v.Newer || v.Older || v.Ahead {
				t.Fatalf("a copy differs from its own digest %+v: %+v", d, v)
			}
		}
	})
}
