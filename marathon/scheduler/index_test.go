package scheduler

import (
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"

	"starling/marathon/app"
)

// TestIndexOfALargeApp: to find a number does not cost more with more instances.
func TestIndexOfALargeApp(t *testing.T) {
	const all = 20_000
	s := New(Config{}, rand.New(rand.NewPCG(1, 1)))
	s.Load(s.started, &Stored{})
	sp := s.spec("/d")
	sp.def = &app.App{ID: "/d", Starling: &app.Starling{InstanceIndex: true}}
	made := make([]*Instance, all)
	for n := range made {
		made[n] = &Instance{ID: app.InstanceID{App: "/d", UUID: uuid.UUID{byte(n), byte(n >> 8)}}, Condition: Running, Index: &n}
		s.loadInstance(s.started, made[n])
	}
	next := func() int { return *sp.index(&Instance{}, sp.def) }
	if n := next(); n != all {
		t.Errorf("the next number is %d", n)
	}
	if allocations := testing.AllocsPerRun(10, func() { next() }); allocations > 2 {
		t.Errorf("%v allocations to find a number", allocations)
	}
	for _, n := range []int{700, 5, 9000} {
		s.forget(made[n])
	}
	for _, want := range []int{5, 700, 9000, all} {
		if n := next(); n != want {
			t.Errorf("the next number is %d, want %d", n, want)
		}
		s.loadInstance(s.started, &Instance{ID: app.InstanceID{App: "/d", UUID: uuid.UUID{byte(want), byte(want >> 8), 1}}, Condition: Running, Index: &want})
	}
}
