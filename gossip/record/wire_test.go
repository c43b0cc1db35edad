package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden holds messages of every form of the format, by name.
func golden(t *testing.T) map[string][]byte {
	t.Helper()
	m := NewMap("8f14e45f-ceea-467f-a8a3-6d3a5e0b3c11-S0", 3, WithTombstoneAge(1))
	m.Set(epoch, set("node", "n"), set("res", "r"), set("task/f/1", strings.Repeat("t", 40)))
	m.Set(epoch, set("task/f/2", "second"), del("task/f/1"), Assignment{Key: "empty", Value: []byte{}})
	delta := m.Delta(m.Self(), 2)
	hot := m.Entries(nil, m.Self(), 3, []string{"res", "task/f/1", "not there"})
	m.Prune(epoch.Add(1e9))
	whole := m.Delta(m.Self(), 2)
	future := (&delta2{}).wire()
	c := NewMap("reader", 1)
	o := NewMap("n", 1)
	o.Set(epoch, set("a", "1"), set("b", "2"))
	if _, err := c.Apply(epoch, o.Delta("n", 0)); err != nil {
		t.Fatal(err)
	}
	o.Set(epoch, set("c", "3"))
	o.Set(epoch, set("b", "4"))
	if _, err := c.Apply(epoch, o.Delta("n", 3)); err != nil {
		t.Fatal(err)
	}
	tail := c.Delta("n", 0) // b of version 2 was superseded by one that came early
	return map[string][]byte{
		"delta": delta, "hot": hot, "whole": whole, "future": future, "tail": tail,
		"digests": AppendDigests(nil, []Digest{{m.Self(), 3, 6, 5}, {"other", 1 << 40, 0, 0}}),
	}
}

// delta2 is a message as a later release may send it: with extensions in the header and in an entry.
type delta2 struct{}

func (*delta2) wire() []byte {
	b := []byte{formatVersion, headerExt}
	b = appendBytes(b, "later")
	b = append(b, 1, 0)              // generation, floor
	b = appendBytes(b, "header ext") // skipped
	b = append(b, 1, entryExt, 1, 1) // one entry of version 1
	b = appendBytes(b, "key")
	b = appendBytes(b, "value")
	return appendBytes(b, "entry ext") // kept
}

func TestGolden(t *testing.T) {
	for name, got := range golden(t) {
		file := filepath.Join("testdata", "v1-"+name+".hex")
		if *update {
			if err := os.WriteFile(file, []byte(hex.Dump(got)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), hex.Dump(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestExtensionsOfLaterReleasesArePassedOn(t *testing.T) {
	m := NewMap("m", 1)
	mustApply(t, m, (&delta2{}).wire())
	wantContent(t, m, "later", map[string]string{"key": "value"})
	for name, wire := range map[string][]byte{"delta": m.Delta("later", 0), "hot": m.Entries(nil, "later", 1, []string{"key"})} {
		if !bytes.Contains(wire, []byte("entry ext")) {
			t.Errorf("%s lost the extension of the entry: %q", name, wire)
		}
	}
}

// Every golden file is read, and written again as it was; of an extension of the header only what this release knows.
func TestGoldenIsWrittenAgain(t *testing.T) {
	limits := DefaultLimits()
	for name, wire := range golden(t) {
		var again []byte
		switch name {
		case "future":
			continue
		case "digests":
			ds, err := ParseDigests(wire)
			if err != nil {
				t.Fatal(err)
			}
			again = AppendDigests(nil, ds)
		default:
			d, err := parseDelta(wire, &limits)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			again = d.appendWire(nil)
		}
		if !bytes.Equal(again, wire) {
			t.Errorf("%s was\n%s and is\n%s", name, hex.Dump(wire), hex.Dump(again))
		}
	}
}

// What a later release adds to an entry, and keys and values that this one does not know, pass through two nodes of this release
// byte for byte: by a delta, by a hot one and by a whole record.
func TestExtensionsSurviveTwoHops(t *testing.T) {
	for name, send := range map[string]func(m *Map) []byte{
		"delta": func(m *Map) []byte { return m.Delta("later", 0) },
		"hot":   func(m *Map) []byte { return m.AgedEntries(epoch, nil, "later", 1, []string{"key"}) },
		"whole": func(m *Map) []byte {
			c := m.records["later"]
			return (&delta{node: "later", generation: 1, whole: true, to: 1, entries: []entry{{c.order[0], 0}}}).appendWire(nil)
		},
	} {
		hops := []*Map{NewMap("first", 1), NewMap("second", 1), NewMap("third", 1)}
		mustApply(t, hops[0], (&delta2{}).wire())
		for i := range 2 {
			mustApply(t, hops[i+1], send(hops[i]))
		}
		it := hops[2].Snapshot("later").table.get("key")
		if it == nil || it.ext != "entry ext" || string(it.value) != "value" {
			t.Errorf("%s: %+v came through, want the value and its extension", name, it)
		}
		if first, last := send(hops[0]), send(hops[2]); name != "hot" && !bytes.Equal(first, last) {
			t.Errorf("%s: %x became %x", name, first, last)
		}
	}
}

func TestBadInputIsRefused(t *testing.T) {
	m := NewMap("m", 1)
	ok := []byte{formatVersion, 0, 1, 'n', 1, 0, 1, 0, 1, 1, 1, 'k', 1, 'v'}
	mustApply(t, m, ok)
	with := func(i int, b ...byte) []byte { return append(append(bytes.Clone(ok[:i]), b...), ok[i+1:]...) }
	for _, c := range []struct {
		name string
		wire []byte
		want error
	}{
		{"nothing", nil, ErrFormat},
		{"a later version", with(0, 2), ErrVersion},
		{"an unknown header flag", with(1, 8), ErrVersion},
		{"a tail of nothing", append([]byte{formatVersion, 4, 1, 'n', 1, 0, 5, 0}, ok[6:]...), ErrFormat},
		{"a tail before the end", append([]byte{formatVersion, 4, 1, 'n', 1, 0, 5, 5}, ok[6:]...), ErrFormat},
		{"no name", with(2, 0), ErrFormat},
		{"a name beyond the end", with(2, 100), ErrFormat},
		{"a name too long", with(2, 0xff, 0x7f), ErrLimit},
		{"generation 0", with(4, 0), ErrFormat},
		{"more entries than bytes", with(6, 99), ErrFormat},
		{"more entries than allowed", with(6, 0xff, 0xff, 0xff, 0x7f), ErrLimit},
		{"an unknown entry flag", with(7, 4), ErrVersion},
		{"a version that does not grow", with(8, 0), ErrFormat},
		{"covers nothing", with(9, 0), ErrFormat},
		{"covers more than there is", with(9, 2), ErrFormat},
		{"no key", with(10, 0), ErrFormat},
		{"a number without end", with(8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), ErrFormat},
		{"a version beyond all bounds", with(8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), ErrFormat},
		{"cut off", ok[:len(ok)-1], ErrFormat},
		{"too long", append(bytes.Clone(ok), 0), ErrFormat},
	} {
		before := m.Summary()
		if _, err := m.Apply(epoch, c.wire); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if m.Summary() != before {
			t.Errorf("%s: something changed", c.name)
		}
	}
	for _, wire := range [][]byte{nil, {2}, {1, 200}, {1, 1, 1, 'n', 1, 1, 2}, {1, 1, 0, 1, 1, 1, 1}, {1, 0, 0}} {
		if ds, err := ParseDigests(wire); err == nil {
			t.Errorf("digests %x: %+v, want an error", wire, ds)
		}
	}
}

// FuzzApply feeds anything to the decoder: what is accepted has to survive another round over the wire.
func FuzzApply(f *testing.F) {
	for _, wire := range golden(&testing.T{}) {
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := NewMap("m", 1)
		res, err := m.Apply(epoch, wire)
		if err != nil {
			if m.Summary() != NewMap("m", 1).Summary() {
				t.Fatal("a refused message changed something")
			}
			return
		}
		if _, err := m.Apply(epoch, wire); err != nil {
			t.Fatalf("the same once more: %v", err)
		}
		s := m.Snapshot(res.Node)
		if res.Node == "m" || s == nil {
			return
		}
		again := NewMap("again", 1)
		for _, b := range [][]byte{m.Delta(res.Node, 0), m.Entries(nil, res.Node, res.Generation, res.Keys)} {
			if b == nil {
				continue
			}
			if _, err := again.Apply(epoch, b); err != nil {
				t.Fatalf("passing on %x as %x: %v", wire, b, err)
			}
		}
		if got := again.Snapshot(res.Node); got != nil {
			if diff := cmp.Diff(content(s), content(got)); diff != "" || got.Version() != s.Version() {
				t.Fatalf("passing on %x: version %d, want %d (-want +got):\n%s", wire, got.Version(), s.Version(), diff)
			}
		}
	})
}

func FuzzParseDigests(f *testing.F) {
	f.Add(golden(&testing.T{})["digests"])
	f.Fuzz(func(t *testing.T, wire []byte) {
		ds, err := ParseDigests(wire)
		if err != nil {
			return
		}
		again, err := ParseDigests(AppendDigests(nil, ds))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ds, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
