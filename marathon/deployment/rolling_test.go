package deployment

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"starling/marathon/app"
)

func strategy(minHealth, over float64) app.UpgradeStrategy {
	return app.UpgradeStrategy{MinimumHealthCapacity: minHealth, MaximumOverCapacity: over}
}

// The table of section 4.4 of marathon-runtime.md.
func TestBounds(t *testing.T) {
	tests := []struct {
		name    string
		rolling Rolling
		want    Bounds
		// startAtOnce is how many new ones start before any old one has ended.
		startAtOnce int
	}{
		{"twice the size for a moment", Rolling{Desired: 4, Healthy: 4, All: 4, Strategy: strategy(1, 1)}, Bounds{4, 8, 0}, 4},
		{"half of them first", Rolling{Desired: 4, Healthy: 4, All: 4, Strategy: strategy(0.5, 0)}, Bounds{2, 4, 2}, 0},
		{"one extra", Rolling{Desired: 4, Healthy: 4, All: 4, Strategy: strategy(1, 0)}, Bounds{4, 5, 0}, 1},
		{"all at once", Rolling{Desired: 4, Healthy: 4, All: 4, Strategy: strategy(0, 0)}, Bounds{0, 4, 4}, 0},
		{"a single one stops first", Rolling{Desired: 1, Healthy: 1, All: 1, Strategy: strategy(0, 0)}, Bounds{0, 1, 1}, 0},
		{"a single one gets a second", Rolling{Desired: 1, Healthy: 1, All: 1, Strategy: strategy(1, 0)}, Bounds{1, 2, 0}, 1},
		{"parts of an instance", Rolling{Desired: 3, Healthy: 3, All: 3, Strategy: strategy(0.5, 0.2)}, Bounds{2, 3, 1}, 0},
		{"ten", Rolling{Desired: 10, Healthy: 10, All: 10, Strategy: strategy(0.8, 0.1)}, Bounds{8, 11, 2}, 1},
		{"resident below the minimum", Rolling{Desired: 4, Healthy: 4, All: 4, Strategy: strategy(1, 0), Resident: true}, Bounds{4, 4, 1}, 0},
		{"scaled down on the way", Rolling{Desired: 4, Healthy: 6, All: 6, Strategy: strategy(1, 1)}, Bounds{4, 8, 2}, 2},
		{"most are unhealthy", Rolling{Desired: 4, Healthy: 1, All: 4, Strategy: strategy(1, 1)}, Bounds{4, 8, 0}, 4},

		{"no crumbs of floating point", Rolling{Desired: 10, Healthy: 10, All: 10, Strategy: strategy(0.7, 0.7)}, Bounds{7, 17, 3}, 7},
		{"unhealthy ones make room", Rolling{Desired: 4, Healthy: 1, All: 4, Strategy: strategy(0.5, 0)}, Bounds{2, 4, 1}, 0},
		{"resident and unhealthy ones make room", Rolling{Desired: 4, Healthy: 4, All: 6, Strategy: strategy(1, 0), Resident: true}, Bounds{4, 4, 3}, 0},
		{"nothing is to run", Rolling{Desired: 0, Healthy: 2, All: 2, Strategy: strategy(1, 1)}, Bounds{0, 1, 2}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.rolling.Bounds()
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if start := got.StartNow(tt.rolling.Desired, 0, tt.rolling.All); start != tt.startAtOnce {
				t.Errorf("%d start at once, want %d", start, tt.startAtOnce)
			}
		})
	}
}

func TestScaling(t *testing.T) {
	tests := []struct {
		name                    string
		desired, current, named int
		kill, start             int
	}{
		{"up", 5, 2, 0, 0, 3},
		{"down", 2, 5, 0, 3, 0},
		{"nothing to do", 2, 2, 0, 0, 0},
		{"named ones that are too many anyway", 2, 5, 1, 3, 0},
		{"named ones that are replaced", 4, 4, 2, 2, 2},
		{"to nothing", 0, 3, 0, 3, 0},
		{"from nothing", 3, 0, 0, 0, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if kill, start := Scaling(tt.desired, tt.current, tt.named); kill != tt.kill || start != tt.start {
				t.Errorf("kill %d and start %d, want %d and %d", kill, start, tt.kill, tt.start)
			}
		})
	}
}

// Whatever the numbers and the order of things, a restart ends, with as many as are wanted, never leaves the bounds that
// it set itself, and never ends more healthy ones than it may.
func TestRestartsEnd(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, seed))
	for range 2000 {
		r := Rolling{
			Desired: 1 + rng.IntN(12), Strategy: strategy(float64(rng.IntN(11))/10, float64(rng.IntN(11))/10), Resident: rng.IntN(5) == 0,
		}
		if r.Resident {
			r.Strategy.MaximumOverCapacity = 0
		}
		r.All = rng.IntN(15)
		r.Healthy = rng.IntN(r.All + 1)
		if err := restart(r, rng); err != nil {
			t.Fatalf("seed %d, %+v with bounds %+v: %v", seed, r, r.Bounds(), err)
		}
	}
}

// restart plays a restart by the rules of section 4.4: it ends KillNow old ones, unhealthy first, starts what StartNow
// allows, and ends one more for each new one that becomes healthy.
func restart(r Rolling, rng *rand.Rand) error {
	b := r.Bounds()
	sick, well, ending := r.All-r.Healthy, r.Healthy, 0 // old ones
	young, fit := 0, 0                                  // new ones, not yet and already healthy
	end := func(n int) {
		for ; n > 0; n-- {
			switch {
			case sick > 0:
				sick--
			case well > 0:
				well--
			default:
				return
			}
			ending++
		}
	}
	limit := max(b.MaxCapacity, r.All)
	end(b.KillNow)
	for range 10000 {
		start := b.StartNow(r.Desired, young+fit, sick+well+ending)
		young += start
		if total := sick + well + ending + young + fit; total > limit {
			return fmt.Errorf("there are %d instances, and at most %d may be", total, limit)
		}
		if fit == r.Desired && sick+well == 0 {
			return nil
		}
		switch choice := rng.IntN(2); {
		case choice == 0 && ending > 0 || young == 0 && ending > 0:
			ending--
		case young > 0:
			young--
			fit++
			end(1)
		default:
			return fmt.Errorf("stuck with %d sick, %d well, %d ending, %d healthy new ones", sick, well, ending, fit)
		}
		if young+fit > r.Desired {
			return fmt.Errorf("%d new ones were started, %d are wanted", young+fit, r.Desired)
		}
	}
	return fmt.Errorf("does not end")
}
