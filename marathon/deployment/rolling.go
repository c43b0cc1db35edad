package deployment

import (
	"math"

	"starling/marathon/app"
)

// Rolling is the state of a restart that decides how many instances to end and to start.
type Rolling struct {
	// Desired is the number of instances of the new definition.
	Desired int
	// Healthy counts the instances, old and new, that are to run and are considered healthy: that run, if there is no
	// health check.
	Healthy int
	// All counts every instance that is known.
	All int
	// Strategy is that of the new definition; Resident tells whether the app keeps its place.
	Strategy app.UpgradeStrategy
	Resident bool
}

// Bounds are what a restart keeps to.
type Bounds struct {
	// MinHealthy is how many healthy instances a restart leaves alone.
	MinHealthy int
	// MaxCapacity is how many instances, old and new, may exist at once.
	MaxCapacity int
	// KillNow is how many old instances go at the beginning.
	KillNow int
}

// rounding keeps 10 * 0.7 from being 7.000000000000001.
const rounding = 1e-9

// Bounds returns what a restart that begins in this state keeps to. Its figures are those of Marathon, but
// where Marathon would wait for ever.
func (r Rolling) Bounds() Bounds {
	b := Bounds{
		MinHealthy:  int(math.Ceil(float64(r.Desired)*r.Strategy.MinimumHealthCapacity - rounding)),
		MaxCapacity: int(math.Floor(float64(r.Desired)*(1+r.Strategy.MaximumOverCapacity) + rounding)),
	}
	b.KillNow = max(0, r.Healthy-b.MinHealthy)
	if b.MinHealthy == b.MaxCapacity && b.MaxCapacity <= r.Healthy {
		// Nothing could ever move: a resident app goes below the minimum, since it cannot start elsewhere, others go above
		// the maximum.
		if r.Resident {
			b.KillNow = r.Healthy - b.MinHealthy + 1
		} else {
			b.MaxCapacity++
		}
	}
	if r.Desired < r.All {
		b.KillNow = max(r.All-r.Desired, b.KillNow)
	}
	if left := r.All - b.KillNow; r.Desired > 0 && left >= b.MaxCapacity {
		// There would be no room for the first new instance, and nothing to wait for. It happens when old ones are unhealthy:
		// they count for the capacity and not for the minimum. They go first, so no healthy one beyond the minimum is lost.
		b.KillNow = r.All - b.MaxCapacity + 1
	}
	return b
}

// StartNow returns how many new instances to start: started are those of the new version that were already, old those of
// the old that were to run at the beginning and have not ended yet, the ones that are being ended included.
func (b Bounds) StartNow(desired, started, old int) int {
	return max(0, min(desired-started, b.MaxCapacity-old-started))
}

// Scaling returns how many instances to end and to start so that desired are left: current are to run and not given up as
// unreachable, named are those that the user wants ended.
func Scaling(desired, current, named int) (kill, start int) {
	kill = max(current-desired, named, 0)
	return kill, max(0, desired-(current-kill))
}
