package record

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// made returns the record of a node with so many keys of 100 bytes.
func made(node string, generation uint64, keys int) *Map {
	m := NewMap(node, generation)
	for i := range keys {
		m.Set(epoch, set(fmt.Sprint("k", i), strings.Repeat("x", 100)))
	}
	return m
}

// Records of nodes that nobody has seen take half of the room at most. The other half is for nodes that are alive, and what is held stays.
func TestNamesThatAreMadeUpPushNobodyOut(t *testing.T) {
	m := NewMap("m", 1, WithLimits(Limits{Nodes: 20}))
	m.SetLiveness(epoch, "early", Alive)
	mustApply(t, m, made("early", 1, 3).Delta("early", 0))
	refused := 0
	for i := range 100 {
		node := fmt.Sprint("made-up-", i)
		if _, err := m.Apply(epoch, made(node, 1, 1).Delta(node, 0)); errors.Is(err, ErrLimit) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.Digests(nil)); n > 11 || refused < 80 {
		t.Errorf("%d records are held and %d were refused, want half of 20", n, refused)
	}
	for i := range 5 {
		node := fmt.Sprint("late-", i)
		if v := m.Compare(epoch, Digest{Node: node, Generation: 1, Version: 1}); v.Older {
			t.Errorf("%s is asked for although there is no room for it", node)
		}
		m.SetLiveness(epoch, node, Alive)
		if v := m.Compare(epoch, Digest{Node: node, Generation: 1, Version: 1}); !v.Older {
			t.Errorf("%s is alive, and not asked for", node)
		}
		mustApply(t, m, made(node, 1, 2).Delta(node, 0))
	}
	mustApply(t, m, made("early", 1, 4).Delta("early", 0))
	if got := m.Snapshot("early").Len(); got != 4 {
		t.Errorf("%d keys of a node that was there first, want 4", got)
	}
	for i := range 100 {
		m.SetLiveness(epoch, fmt.Sprint("alive-", i), Alive)
	}
	if n := len(m.records); n != 20 {
		t.Errorf("%d records, want at most 20", n)
	}
}

// All copies together are bounded; those that are held can still change, and what is reaped makes room.
func TestTheTotalIsBounded(t *testing.T) {
	const total = 100_000
	m := NewMap("m", 1, WithLimits(Limits{Total: total}))
	fill := func(prefix string, l Liveness) (held int) {
		for i := range 100 {
			node := fmt.Sprint(prefix, i)
			if l != Unknown {
				m.SetLiveness(epoch, node, l)
			}
			switch _, err := m.Apply(epoch, made(node, 1, 20).Delta(node, 0)); {
			case err == nil:
				held++
			case !errors.Is(err, ErrLimit):
				t.Fatal(err)
			}
		}
		return held
	}
	strangers := fill("stranger-", Unknown)
	if m.total > total/2 || strangers < 5 {
		t.Errorf("%d strangers take %d bytes, want at most half of %d", strangers, m.total, total)
	}
	if members := fill("member-", Alive); m.total > total || members < 5 {
		t.Errorf("%d members, and %d bytes in all, want at most %d", members, m.total, total)
	}
	// A change of the same size needs no room.
	owner := made("member-0", 1, 20)
	owner.Set(epoch, set("k3", strings.Repeat("y", 100)))
	mustApply(t, m, owner.Delta("member-0", 20))
	// A next generation does, until it takes the place of the old one.
	m.SetLiveness(epoch, "member-1", Dead)
	before := m.total
	if gone := m.Reap(epoch.Add(2), 1); len(gone) == 0 || m.total >= before {
		t.Errorf("%d bytes before and %d after %v were reaped", before, m.total, gone)
	}
	mustApply(t, m, made("member-0", 2, 20).Delta("member-0", 0))
	sum := 0
	for _, records := range []map[string]*copied{m.records, m.next} {
		for _, r := range records {
			sum += r.snap.table.cost()
		}
	}
	if m.total != sum {
		t.Errorf("%d bytes are counted, there are %d", m.total, sum)
	}
}

// A version belongs to one key. Of two that claim it one was made up, and must not outlive the owner's.
func TestTwoKeysOfOneVersion(t *testing.T) {
	m := NewMap("m", 1)
	forger, owner := NewMap("o", 1), NewMap("o", 1)
	owner.Set(epoch, set("a", "1"), set("b", "2"))
	forger.Set(epoch, set("a", "1"), set("forged", "x"))
	mustApply(t, m, forger.Entries(nil, "o", 1, []string{"forged"}))
	for range 3 {
		mustApply(t, m, owner.Delta("o", 0))
		mustApply(t, m, forger.Delta("o", 0))
		mustApply(t, m, forger.Entries(nil, "o", 1, []string{"forged"}))
	}
	wantContent(t, m, "o", map[string]string{"a": "1", "b": "2"})
	wantBooks(t, m, "o")
	mustApply(t, NewMap("next", 1), m.Delta("o", 0))
}

// What is announced costs nothing before it is there.
func TestAbsurdCountsCostNothing(t *testing.T) {
	limits := DefaultLimits()
	for name, parse := range map[string]func([]byte) error{
		"delta":   func(b []byte) error { _, err := parseDelta(b, &limits); return err },
		"digests": func(b []byte) error { _, err := ParseDigests(b); return err },
	} {
		for _, wire := range [][]byte{
			{1, 0, 1, 'n', 1, 0, 0xff, 0x7f},
			{1, 0, 1, 'n', 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
			{1, 0, 1, 'n', 1, 0, 1, 0, 1, 1, 0xff, 0xff, 0x3f, 'k'},
			{1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 'n'},
			{1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 'n', 1, 1, 1},
		} {
			if n := testing.AllocsPerRun(10, func() {
				if parse(wire) == nil {
					t.Errorf("%s: %x was read", name, wire)
				}
			}); n > 20 {
				t.Errorf("%s: %x took %.0f allocations", name, wire, n)
			}
		}
		// The densest input there is: memory is a small multiple of it.
		dense := []byte{1, 0, 1, 'n', 1, 0, 0x80, 0x80, 1}
		if name == "digests" {
			dense = []byte{1, 0x80, 0x80, 1}
		}
		for i := range 16384 {
			if name == "digests" {
				dense = append(dense, 1, 'n', 1, 1, 0)
			} else {
				dense = append(dense, 1, 1, 1, 2, byte(i), byte(i>>8))
			}
		}
		res := testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				if err := parse(dense); err != nil {
					b.Fatal(err)
				}
			}
		})
		if per := int(res.AllocedBytesPerOp()) / len(dense); per > 40 {
			t.Errorf("%s: %d bytes of memory for each byte of input", name, per)
		}
	}
}

// What is forgotten about entries that came early is not claimed: whoever gets them from here knows no more than what is there.
func TestForgottenSpansAreNotClaimed(t *testing.T) {
	const n = 4 * maxSpans
	owner, m, next := NewMap("o", 1), NewMap("m", 1), NewMap("next", 1)
	for v := range n {
		owner.Set(epoch, set(fmt.Sprint("k", v+1), "x"))
	}
	var even, odd []string
	for v := 1; v <= n; v++ {
		if key := fmt.Sprint("k", v); v%2 == 0 {
			even = append(even, key)
			mustApply(t, m, owner.Entries(nil, "o", 1, []string{key}))
		} else if v < n-20 {
			odd = append(odd, key)
		}
	}
	if got := len(m.records["o"].spans); got != maxSpans {
		t.Fatalf("%d spans are kept, want %d", got, maxSpans)
	}
	for _, key := range even {
		mustApply(t, next, m.Entries(nil, "o", 1, []string{key}))
	}
	for _, key := range odd {
		mustApply(t, next, owner.Entries(nil, "o", 1, []string{key}))
	}
	if got := next.Snapshot("o").Version(); got >= n-20 {
		t.Errorf("version %d, and the key of version %d is not there", got, n-19)
	}
	mustApply(t, next, owner.Delta("o", next.Snapshot("o").Version()))
	if got := next.Snapshot("o"); got.Version() != n || got.Len() != n {
		t.Errorf("version %d with %d keys, want %d", got.Version(), got.Len(), n)
	}
}

// Raise leaves a generation that somebody else holds, be it a higher one or this very one.
func TestRaise(t *testing.T) {
	m := NewMap("m", 5)
	m.Set(epoch, set("k", "v"))
	f := m.Feed()
	for _, c := range []struct{ above, want uint64 }{{4, 5}, {5, 6}, {3, 6}, {9, 10}} {
		if got := m.Raise(c.above); got != c.want {
			t.Errorf("raised above %d: %d, want %d", c.above, got, c.want)
		}
	}
	if changes, _, err := f.poll(); err != nil || len(changes) != 1 || changes[0].Key != "" {
		t.Errorf("feed: %+v, %v, want one change of the node as a whole", changes, err)
	}
	wantContent(t, m, "m", map[string]string{"k": "v"})
}
