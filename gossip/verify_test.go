package gossip

import (
	"fmt"
	"testing"
	"time"
)

// A node that was asked for the last time keeps the time to answer, whatever it says meanwhile; and one that is deaf for a while gives up nobody
// for the answers that it did not hear.
func TestTheLastQuestionHasItsTime(t *testing.T) {
	for _, tc := range []struct {
		name  string
		begin doubt
		what  func(m *Mesh, now time.Time)
		next  time.Duration
		asked int
	}{
		{"it talks before the last question", doubt{buried: true, asked: asks - 1}, func(m *Mesh, now time.Time) { m.talked(now, "n") }, 0, asks - 1},
		{"it talks after the last question", doubt{buried: true, asked: asks}, func(m *Mesh, now time.Time) { m.talked(now, "n") }, time.Minute, asks},
		{"it talks and is suspected alone", doubt{asked: asks}, func(m *Mesh, now time.Time) { m.talked(now, "n") }, 0, asks},
		{"this node hears again", doubt{buried: true, asked: asks}, (*Mesh).hurry, 0, asks - asksAfter},
		{"this node hears again soon", doubt{buried: true, asked: 1}, (*Mesh).hurry, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := tc.begin
			d.next = epoch.Add(time.Minute)
			m := &Mesh{doubt: map[string]*doubt{"n": &d}}
			tc.what(m, epoch)
			if next := d.next.Sub(epoch); next != tc.next || d.asked != tc.asked {
				t.Errorf("after %d questions the next step is in %v, want %d and %v", d.asked, next, tc.asked, tc.next)
			}
		})
	}
}

// However many nodes are doubted at once, the questions go out a few at a time, and none is passed over.
func TestQuestionsGoOutAFewAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(1)
		m := f.nodes[0].Mesh
		due := func(now time.Time) (n int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, d := range m.doubt {
				if !now.Before(d.next) {
					n++
				}
			}
			return n
		}
		now := time.Now()
		m.mu.Lock()
		for i := range 3 * asksAtOnce {
			m.doubt[fmt.Sprint("n", i)] = &doubt{next: now}
		}
		m.mu.Unlock()
		for round := range 3 {
			m.verify(now)
			if left := due(now); left != 0 {
				t.Fatalf("round %d: %d nodes are still to be asked at once, want none", round, left)
			}
			asked := 0
			m.mu.Lock()
			for _, d := range m.doubt {
				asked += d.asked
			}
			m.mu.Unlock()
			if want := (round + 1) * asksAtOnce; asked != want {
				t.Fatalf("round %d: %d questions were put, want %d", round, asked, want)
			}
			now = now.Add(askAgain)
		}
	})
}
