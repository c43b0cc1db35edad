package hosts

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A flock that was cut in two finds together by itself, also after memberlist has long given up on the other side, which it does
// after half a minute.
func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	for _, cut := range []time.Duration{20 * time.Second, 75 * time.Second} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			t.Parallel()
			f := NewFlock(t, 5, "--no-discover", "--join="+wireAddr(1))
			Agree(t, 20*time.Second, f.Agents...)
			minority, majority := f.Agents[:2], f.Agents[2:]
			f.Partition(f.Hosts[:2]...)
			began := time.Now()
			if cut > time.Minute {
				for _, side := range [][]*Agent{minority, majority} {
					Agree(t, 45*time.Second, side...)
				}
				t.Logf("each side knew of the cut after %v", time.Since(began).Round(100*time.Millisecond))
			}
			<-time.After(cut - time.Since(began))
			f.Mend()
			t.Logf("whole again %v after the end of a cut of %v", Agree(t, healWithin, f.Agents...).Round(100*time.Millisecond), cut)
		})
	}
}

// healWithin is the bar for finding together after a fault of minutes at most.
const healWithin = 30 * time.Second

// A node that hears nobody, and one that nobody hears, trouble nobody else: the healthy ones go on seeing each other alive, and
// the one that is cut off changes its state no more than once a minute.
func TestOneWayCutHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		cut  func(*Host)
	}{
		{"deaf", func(h *Host) { h.Deafen() }},
		{"mute", (*Host).Mute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := NewFlock(t, 5)
			Agree(t, 20*time.Second, f.Agents...)
			odd := f.Agents[2]
			healthy := without(f.Agents, odd)
			marks := markAll(f.Agents)
			tc.cut(odd.Host)
			const window = time.Minute
			During(t, healthy, alive(healthy), func() { <-time.After(window) })
			changed := countChanges(healthy, marks)
			for key, n := range changed {
				if n > 1 {
					t.Errorf("%s changed its mind about %s %d times in %v, want once at most", key.By, key.Of, n, window)
				}
				if key.Of != odd.ID {
					t.Errorf("%s changed its mind about the healthy %s", key.By, key.Of)
				}
			}
			t.Logf("changes in %v: %d", window, len(changed))
			f.Mend()
			t.Logf("whole again in %v", Agree(t, healWithin, f.Agents...).Round(100*time.Millisecond))
			for key, n := range countChanges(healthy, marks) {
				if key.Of != odd.ID || n > 2 {
					t.Errorf("after the heal: %s changed its mind about %s %d times", key.By, key.Of, n)
				}
			}
		})
	}
}

// pair is one node's opinion of another.
type pair struct{ By, Of string }

// markAll marks the ends of the agents' logs. What an agent shows is in its log a moment later: that is waited for, else it would count
// as a change after the mark.
func markAll(agents []*Agent) map[*Agent]int {
	marks := map[*Agent]int{}
	for _, a := range agents {
		eventually(a.t, 10*time.Second, viewPace, a.name+" has written down how it sees the others", func() error {
			view, err := a.Members()
			if err != nil {
				return err
			}
			marks[a] = a.Mark()
			last := map[string]string{}
			for _, c := range a.Changes(0) {
				last[c.Of] = c.State
			}
			for id, m := range view {
				if said, known := last[id]; id != a.ID && m.State != said && m.State != "suspect" && (known || m.State == "alive") {
					return fmt.Errorf("it sees %s %s, and has written %q", id, m.State, said)
				}
			}
			return nil
		})
	}
	return marks
}

// countChanges counts lasting changes of opinion since the marks.
func countChanges(agents []*Agent, marks map[*Agent]int) map[pair]int {
	count := map[pair]int{}
	for _, a := range agents {
		for _, c := range a.Changes(marks[a]) {
			count[pair{a.ID, c.Of}]++
		}
	}
	return count
}

// alive checks that all of the agents are held for alive, or at worst suspected for a moment.
func alive(agents []*Agent) func(*Agent, map[string]Member) error {
	return func(by *Agent, view map[string]Member) error {
		for _, a := range agents {
			if s := view[a.ID].State; s != "alive" && s != "suspect" {
				return fmt.Errorf("%s holds the healthy %s for %q", by.name, a.name, s)
			}
		}
		return nil
	}
}

// Where datagrams do not pass, or no large packets, every node still knows all of every other, and an operator is told.
func TestPoorLinks(t *testing.T) {
	t.Parallel()
	t.Run("UDP blocked and MTU 1280", func(t *testing.T) {
		t.Parallel()
		w := NewNetwork(t, 5)
		for _, h := range w.Hosts {
			h.Block("udp")
			h.MTU(1280)
		}
		agents := w.start(w.Hosts, "--join="+wireAddr(1))
		t.Logf("full view over streams in %v", Agree(t, time.Minute, agents...))
		Eventually(t, time.Minute, "each agent warns and counts", func() error {
			for _, a := range agents {
				if n, err := a.Metric("starling_gossip_stream_only_total"); err != nil || n == 0 {
					return fmt.Errorf("%s: starling_gossip_stream_only_total = %v, %v", a.name, n, err)
				}
				if !strings.Contains(a.Since(0), "is UDP blocked?") {
					return fmt.Errorf("%s does not warn", a.name)
				}
			}
			return nil
		})
		marks := markAll(agents)
		During(t, agents, alive(agents), func() { <-time.After(20 * time.Second) })
		if n := len(countChanges(agents, marks)); n > 0 {
			t.Errorf("%d changes of mind while nothing happened", n)
		}
	})
	t.Run("a narrow wire that hosts do not know of", func(t *testing.T) {
		t.Parallel()
		f, c := NewFlockWithTasks(t, 4)
		Agree(t, time.Minute, f.Agents...)
		late := f.Agents[3]
		late.Kill()
		// The record of the first one is far larger than a packet, so that it crosses the wire in a stream of full ones.
		c.ProbeApp("/many", 40, onlyOn(f.Agents[0]))
		c.Running("/many", 40)
		for _, h := range f.Hosts {
			h.Narrow(1280)
		}
		late.Restart()
		t.Logf("a late one has it all in %v", sameRecords(t, f.Agents[0], f.Agents, 40))
		noFalseDeath(t, f.Agents, func() { <-time.After(20 * time.Second) })
	})
	t.Run("MTU 1280", func(t *testing.T) {
		t.Parallel()
		w := NewNetwork(t, 5)
		for _, h := range w.Hosts {
			h.MTU(1280)
		}
		agents := w.start(w.Hosts)
		t.Logf("full view in %v", Agree(t, time.Minute, agents...))
	})
}
