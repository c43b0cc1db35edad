package gossip

import (
	"fmt"
	"testing"
	"time"
)

func TestReturnsAreBelievedEverLater(t *testing.T) {
	d, now := newDamper(), epoch
	var holds []time.Duration
	for range 9 {
		d.died("n", 7, now)
		d.died("n", 7, now.Add(time.Second)) // told twice, counted once
		now = now.Add(10 * time.Second)
		hold := d.returned("n", 7, now)
		if again := d.returned("n", 7, now); again != hold {
			t.Errorf("told of the same return again, %v remain, want %v", again, hold)
		}
		holds = append(holds, hold)
		now = now.Add(time.Second)
	}
	s := time.Second
	if want := []time.Duration{0, 10 * s, 20 * s, 40 * s, 80 * s, lastHold, lastHold, lastHold, lastHold}; fmt.Sprint(holds) != fmt.Sprint(want) {
		t.Errorf("held down for %v, want %v", holds, want)
	}
}

// flapped returns a damper with a node that came back so many times, the last time now.
func flapped(times int) *damper {
	d := newDamper()
	for i := range times {
		at := epoch.Add(time.Duration(i-times+1) * 20 * time.Second)
		d.died("n", 7, at.Add(-10*time.Second))
		d.returned("n", 7, at)
	}
	return d
}

func TestAHoldDownEndsWithAnAnswer(t *testing.T) {
	d := flapped(3)
	if got, want := d.until("n"), epoch.Add(20*time.Second); !got.Equal(want) {
		t.Fatalf("held until %v, want %v", got, want)
	}
	if n, first := d.held(); n != 1 || !first.Equal(d.until("n")) {
		t.Errorf("%d held, the first until %v; want one, until %v", n, first, d.until("n"))
	}
	if d.answered("n", epoch.Add(19*time.Second)) || d.over(epoch.Add(19*time.Second)) != nil {
		t.Error("the hold-down ended early")
	}
	d.shaken("n", epoch.Add(19*time.Second))
	if d.over(epoch.Add(38*time.Second)) != nil {
		t.Error("a probe that was not answered did not begin the hold-down again")
	}
	if names := d.over(epoch.Add(39 * time.Second)); len(names) != 1 || names[0] != "n" {
		t.Fatalf("over for %q, want n", names)
	}
	if names := d.over(epoch.Add(39*time.Second + answerFor)); names != nil {
		t.Errorf("over for %q without an answer, want the hold-down to begin again", names)
	}
	if d.answered("n", epoch.Add(45*time.Second)) {
		t.Error("an answer in a hold-down that began again ended it")
	}
	d.over(epoch.Add(64 * time.Second))
	if !d.answered("n", epoch.Add(65*time.Second)) || !d.until("n").IsZero() {
		t.Error("the answer did not end the hold-down")
	}
	if n, _ := d.held(); n != 0 {
		t.Errorf("%d held, want none", n)
	}
}

func TestWhatIsNotDamped(t *testing.T) {
	for name, c := range map[string]struct {
		between    func(d *damper)
		generation uint64
	}{
		"a new generation":             {func(*damper) {}, 8},
		"one that was told before":     {func(d *damper) { d.renewed("n", 8) }, 8},
		"a goodbye":                    {func(d *damper) { d.forget("n") }, 7},
		"this node's own loss of most": {func(d *damper) { d.blame(epoch.Add(2 * time.Second)) }, 7},
	} {
		d := flapped(5)
		d.died("n", 7, epoch.Add(time.Second))
		c.between(d)
		if hold := d.returned("n", c.generation, epoch.Add(3*time.Second)); hold != 0 {
			t.Errorf("%s: held down for %v", name, hold)
		}
	}
	d := flapped(5)
	if !d.renewed("n", 8) || d.renewed("n", 8) || !d.until("n").IsZero() {
		t.Error("the record of a later life ends a hold-down, once")
	}
}

func TestDyingEndsAHoldDown(t *testing.T) {
	d := flapped(4)
	d.died("n", 7, epoch.Add(time.Second))
	if !d.until("n").IsZero() || d.over(epoch.Add(time.Hour)) != nil {
		t.Error("a dead node is held down")
	}
	if hold := d.returned("n", 7, epoch.Add(2*time.Hour)); hold != 0 {
		t.Errorf("held for %v after two hours, want its first return to be believed again", hold)
	}
}

func TestCalmIsRewarded(t *testing.T) {
	for calm, want := range map[time.Duration]time.Duration{
		time.Minute:    80 * time.Second,
		calmFor:        40 * time.Second,
		3 * calmFor:    firstHold,
		24 * time.Hour: 0,
	} {
		d := flapped(4)
		d.over(epoch.Add(40 * time.Second))
		back := epoch.Add(41 * time.Second)
		d.answered("n", back)
		d.died("n", 7, back.Add(calm))
		if hold := d.returned("n", 7, back.Add(calm+time.Second)); hold != want {
			t.Errorf("after %v without a death held down for %v, want %v", calm, hold, want)
		}
	}
}

func TestTheDamperIsBounded(t *testing.T) {
	d := newDamper()
	for i := range 2 * maxDamped {
		d.died(fmt.Sprint("n", i), 1, epoch)
		d.returned(fmt.Sprint("n", i), 1, epoch)
	}
	if len(d.nodes) != maxDamped {
		t.Errorf("%d nodes are looked after, want %d", len(d.nodes), maxDamped)
	}
	d.over(epoch.Add(2 * calmFor))
	if len(d.nodes) != 0 {
		t.Errorf("%d nodes are looked after once all are calm, want none", len(d.nodes))
	}
}
