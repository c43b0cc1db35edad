package scheduler

import (
	"testing"

	"starling/marathon/app"
)

// TestFirstMoveOfARestart are the examples of spec/marathon-runtime.md 4.4.
func TestFirstMoveOfARestart(t *testing.T) {
	for _, tc := range []struct {
		name        string
		want        int
		min, over   float64
		healthy     int // old ones
		other       int
		resident    bool
		kill, start int
	}{
		{"start all, then end one for each", 4, 1, 1, 4, 0, false, 0, 4},
		{"end half first", 4, 0.5, 0, 4, 0, false, 2, 0},
		{"one more than may be, or nothing would move", 4, 1, 0, 4, 0, false, 0, 1},
		{"end all first", 4, 0, 0, 4, 0, false, 4, 0},
		{"stop, then start", 1, 0, 0, 1, 0, false, 1, 0},
		{"start a second, then stop the first", 1, 1, 0, 1, 0, false, 0, 1},
		{"the maximum is rounded down", 3, 0.5, 0.2, 3, 0, false, 1, 0},
		{"end two, start one at once", 10, 0.8, 0.1, 10, 0, false, 2, 1},
		{"resident: below the minimum", 4, 1, 0, 4, 0, true, 1, 0},
		{"scaled down on the way", 4, 1, 1, 6, 0, false, 2, 2},
		{"most are unhealthy", 4, 1, 1, 1, 3, false, 0, 4},
		{"an unhealthy one holds the only place", 4, 1, 0, 1, 3, false, 1, 0},
		{"unhealthy ones beyond the number go", 2, 1, 0, 2, 3, false, 3, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := rollout{
				want: tc.want, resident: tc.resident, oldHealthy: tc.healthy, oldOther: tc.other,
				strategy: app.UpgradeStrategy{MinimumHealthCapacity: tc.min, MaximumOverCapacity: tc.over},
			}
			m := r.next()
			if got := m.killHealthy + m.killOther; got != tc.kill || m.start != tc.start {
				t.Errorf("ends %d and starts %d, want %d and %d", got, m.start, tc.kill, tc.start)
			}
		})
	}
}

// TestEveryRestartEnds plays restarts to their end with moves in any order that events may bring, for all small numbers:
// the bounds hold at every moment and there is always a next move.
func TestEveryRestartEnds(t *testing.T) {
	for want := 1; want <= 6; want++ {
		for old := 0; old <= 8; old++ {
			for _, s := range []app.UpgradeStrategy{{MinimumHealthCapacity: 1, MaximumOverCapacity: 1}, {MinimumHealthCapacity: 1}, {MinimumHealthCapacity: 0.5}, {}, {MinimumHealthCapacity: 0.5, MaximumOverCapacity: 0.2}} {
				for sick := 0; sick <= old; sick++ {
					r := rollout{want: want, strategy: s, oldHealthy: old - sick, oldOther: sick}
					least := min(old-sick, int(float64(want)*s.MinimumHealthCapacity+0.999))
					most := max(old, int(float64(want)*(1+s.MaximumOverCapacity))+1)
					for moves := 0; r.newArrived < want || r.oldHealthy+r.oldOther+r.leaving > 0; moves++ {
						m := r.next()
						r.oldHealthy, r.oldOther = r.oldHealthy-m.killHealthy, r.oldOther-m.killOther
						r.leaving += m.killHealthy + m.killOther
						r.newCount += m.start
						if healthy := r.oldHealthy + r.newArrived; healthy < least {
							t.Fatalf("%d of %d old, %d sick, %+v: %d healthy, least %d", want, old, sick, s, healthy, least)
						}
						if all := r.oldHealthy + r.oldOther + r.leaving + r.newCount; all > most {
							t.Fatalf("%d of %d old, %d sick, %+v: %d at once, most %d", want, old, sick, s, all, most)
						}
						switch {
						case r.leaving > 0 && moves%2 == 0:
							r.leaving--
						case r.newArrived < r.newCount:
							r.newArrived++
						case r.leaving > 0:
							r.leaving--
						case m == move{}:
							t.Fatalf("%d of %d old, %d sick, %+v: stuck at %+v", want, old, sick, s, r)
						}
						if moves > 1000 {
							t.Fatal("no end")
						}
					}
				}
			}
		}
	}
}
