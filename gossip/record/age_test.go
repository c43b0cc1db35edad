package record

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A change is told by n to a at once, waits there for 300 ms, and is told by a to b and from there to c. Each clock is years apart from the next.
func TestTheAgeOfAChangeAddsUp(t *testing.T) {
	n, a, b, c := NewMap("n", 1), NewMap("a", 1), NewMap("b", 1), NewMap("c", 1)
	clocks := map[*Map]time.Time{n: epoch, a: epoch.AddDate(3, 0, 0), b: epoch.AddDate(-20, 0, 0), c: epoch.AddDate(0, 1, 0)}
	wait := func(d time.Duration) {
		for m := range clocks {
			clocks[m] = clocks[m].Add(d)
		}
	}
	apply := func(to *Map, wire []byte) Result {
		t.Helper()
		res, err := to.Apply(clocks[to], wire)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	want := func(what string, res Result, aged bool, age time.Duration) {
		t.Helper()
		if res.Aged != aged || res.Age != age {
			t.Errorf("%s: aged %v, %v; want %v, %v", what, res.Aged, res.Age, aged, age)
		}
	}
	n.Set(clocks[n], set("k", "1"))
	wait(time.Hour)
	for _, m := range []*Map{a, b, c} {
		want("the first copy of a node", apply(m, n.AgedDelta(clocks[n], "n", 0)), false, 0)
	}
	n.Set(clocks[n], set("k", "2"))
	wait(20 * time.Millisecond)
	want("one hop", apply(a, n.AgedEntries(clocks[n], nil, "n", 1, []string{"k"})), true, 20*time.Millisecond)
	if got := a.Snapshot("n").Updated(); !got.Equal(clocks[a]) {
		t.Errorf("updated %v, want %v, the clock of that node", got, clocks[a])
	}
	wait(300 * time.Millisecond)
	want("two hops", apply(b, a.AgedEntries(clocks[a], nil, "n", 1, []string{"k"})), true, 320*time.Millisecond)
	want("again", apply(b, a.AgedEntries(clocks[a], nil, "n", 1, []string{"k"})), false, 0)
	wait(time.Minute)
	want("a repair over three", apply(c, b.AgedDelta(clocks[b], "n", 1)), true, time.Minute+320*time.Millisecond)
	if was := c.Snapshot("n").Updated(); !was.Equal(clocks[c]) {
		t.Errorf("updated %v, want %v", was, clocks[c])
	}

	// Whoever does not know how old a change is says nothing, and neither do those who have it from there.
	n.Set(clocks[n], set("k", "3"), set("l", "1"))
	want("from one that does not tell", apply(a, n.Entries(nil, "n", 1, []string{"k"})), false, 0)
	want("from one that was not told", apply(b, a.AgedEntries(clocks[a], nil, "n", 1, []string{"k"})), false, 0)
	// What is known already may bring something older along: its age is not told.
	want("the newest first", apply(c, n.AgedEntries(clocks[n], nil, "n", 1, []string{"l"})), true, 0)
	want("an older one behind it", apply(c, n.AgedDelta(clocks[n], "n", 2)), false, 0)

	// A node that starts anew is not a stranger.
	again := NewMap("n", 2)
	again.Set(clocks[n], set("k", "4"))
	wait(time.Second)
	want("the beginning of a new generation", apply(a, again.AgedDelta(clocks[n], "n", 0)), true, time.Second)
}

func TestWhateverAnAgeLooksLike(t *testing.T) {
	for _, c := range []struct {
		name string
		ext  []byte
		want age
	}{
		{"nothing", nil, 0},
		{"now", []byte{0}, 1},
		{"300 ms and something of a later release", []byte{0xac, 0x02, 7, 7, 7}, 301},
		{"cut off", []byte{0x80}, 0},
		{"beyond all bounds", binary.AppendUvarint(nil, 1<<63), 0},
	} {
		if got := parseAge(c.ext); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	m := NewMap("m", 1)
	mustApply(t, m, []byte{formatVersion, headerExt, 1, 'n', 1, 0, 1, 0x80, 1, 0, 1, 1, 1, 'k', 1, 'v'})
	wantContent(t, m, "n", map[string]string{"k": "v"})
	if d := newAge(-time.Hour).duration(); d != 0 {
		t.Errorf("a clock that was set back made an age of %v, want 0", d)
	}
}

// TestGoldenAge holds a delta with an age to what releases have written.
func TestGoldenAge(t *testing.T) {
	m := NewMap("n", 3)
	m.Set(epoch, set("node", "n"), set("res", "r"))
	wire := m.AgedDelta(epoch.Add(1234*time.Millisecond), "n", 1)
	file := filepath.Join("testdata", "v1-aged.hex")
	if *update {
		if err := os.WriteFile(file, []byte(hex.Dump(wire)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), hex.Dump(wire)); diff != "" {
		t.Errorf("a delta with an age (-want +got):\n%s", diff)
	}
}
