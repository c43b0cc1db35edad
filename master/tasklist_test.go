package master

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"starling/master/mesos/resources"
)

// Whatever comes, goes and changes, a list shows the same as a plain walk in order of ids, and only pages with changes anew.
func TestTaskListShowsAllInOrder(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l, plain := newTaskList(), make(map[string]*task)
		shown := 0
		show := func(t *task) *TaskView { shown++; return &TaskView{key: t.key} }
		res, err := resources.Parse("cpus:1;mem:32", resources.AnyRole)
		if err != nil {
			t.Fatal(err)
		}
		for step := range 2000 {
			id := fmt.Sprint("t", rng.IntN(400))
			switch old := plain[id]; {
			case old != nil && rng.IntN(3) == 0:
				delete(plain, id)
				l.remove(id)
			case old != nil && rng.IntN(2) == 0:
				old.unreachable = time.Unix(int64(rng.IntN(2)), 0).Add(-time.Second * time.Duration(rng.IntN(2)))
				l.changed(id)
			default:
				plain[id] = &task{key: taskKey{"f", id}, held: res}
				l.put(plain[id])
			}
			if step%10 > 0 {
				continue
			}
			shown = 0
			l.show(show)
			if shown > 10*pageSize+len(plain)/4 && step > 0 {
				t.Fatalf("seed %d, step %d: %d tasks are shown anew after 10 changes", seed, step, shown)
			}
			var live, gone []string
			var held resources.Resources
			for _, id := range slices.Sorted(maps.Keys(plain)) {
				held = held.Add(plain[id].held)
				if plain[id].unreachable.IsZero() {
					live = append(live, id)
				} else {
					gone = append(gone, id)
				}
			}
			if got := ids(l.live); !slices.Equal(got, live) || l.live.Len() != len(live) {
				t.Fatalf("seed %d, step %d: got active tasks %v, want %v", seed, step, got, live)
			}
			if got := ids(l.unreachable); !slices.Equal(got, gone) {
				t.Fatalf("seed %d, step %d: got unreachable tasks %v, want %v", seed, step, got, gone)
			}
			if !l.held.Equal(held) {
				t.Fatalf("seed %d, step %d: got %v held, want %v", seed, step, l.held, held)
			}
		}
	}
}

func ids(l TaskList) []string {
	var out []string
	for t := range l.All() {
		out = append(out, t.ID())
	}
	return out
}

// A history forgets the oldest tasks, and leaves alone what a view holds.
func TestHistoryForgetsTheOldest(t *testing.T) {
	var h history
	var held TaskList
	for n := range 500 {
		h.add(&TaskView{key: taskKey{"f", fmt.Sprint(n)}}, 100)
		if n == 250 {
			held = h.pages
		}
	}
	for _, test := range []struct {
		list TaskList
		last int
	}{{h.pages, 499}, {held, 250}} {
		got := ids(test.list)
		if len(got) != 100 || got[0] != fmt.Sprint(test.last-99) || got[99] != fmt.Sprint(test.last) {
			t.Errorf("got %d tasks, %v, want the 100 up to %d", len(got), got, test.last)
		}
	}
}
