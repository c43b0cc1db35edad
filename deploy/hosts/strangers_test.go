package hosts

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Clusters of another name or another key on the same wire, which even name each other as seeds, stay apart: no member
// crosses, and being asked again and again costs little.
func TestStrangersStayApart(t *testing.T) {
	t.Parallel()
	w := NewNetwork(t, 6)
	first := w.start(w.Hosts[:2])
	seed := "--join=" + first[0].Host.Addr
	otherKey := w.start(w.Hosts[2:4], seed)
	otherName := make([]*Agent, 2)
	for i, h := range w.Hosts[4:] {
		otherName[i] = h.Agent(workDir(t), "--cluster-key-file", first[0].args[4], "--cluster", "other", seed)
	}
	clusters := [][]*Agent{first, otherKey, otherName}
	var all []*Agent
	for _, c := range clusters {
		for _, a := range c {
			a.Ready()
		}
		Agree(t, 30*time.Second, c...)
		all = append(all, c...)
	}

	const window = time.Minute
	marks, before := map[*Agent]int{}, map[*Agent]time.Duration{}
	for _, a := range all {
		marks[a], before[a] = a.Mark(), a.CPU()
	}
	During(t, all, func(a *Agent, view map[string]Member) error {
		if len(view) != 2 {
			return fmt.Errorf("%s sees %v, want the two of its cluster", a.name, view)
		}
		return nil
	}, func() { <-time.After(window) })
	for _, a := range all {
		lines := strings.Count(a.Since(marks[a]), "\n")
		refusals := strings.Count(a.Since(marks[a]), "another cluster key or name")
		used := a.CPU() - before[a]
		t.Logf("%s: %d lines, %d of them refusals, %v CPU", a.name, lines, refusals, used)
		// Four strangers, a line a minute each; one more where a minute ends in the window.
		if lines > 8 {
			t.Errorf("%s logged %d lines in %v, want at most one a stranger and minute:\n%s", a.name, lines, window, a.Since(marks[a]))
		}
		if limit := window * 2 / 100; used > limit {
			t.Errorf("%s used %v of CPU in %v, want at most %v", a.name, used, window, limit)
		}
	}
}
