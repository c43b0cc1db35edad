package gossip

import (
	"sync"
	"time"
)

// damper keeps nodes that come and go from being believed each time: whoever reads liveness would start and stop, offer and rescind at
// the pace of a bad link. A node that died and is back in the same generation was never restarted, so its link or its processor
// went and came. The first time that is believed at once; from the second on the node has to stay for a hold-down that doubles,
// and meanwhile still counts as dead. Calm lets returns be forgotten, one after the other.
//
// Time is handed in. All methods may be called from any goroutine.
type damper struct {
	mu    sync.Mutex
	nodes map[string]*flaps
	// blamed is when this node last lost sight of most others at once: that was its own link.
	blamed time.Time
}

// flaps is what is known about one node, in one of its lives.
type flaps struct {
	generation uint64
	returns    int // from the dead, those forgotten aside
	dead       bool
	died, back time.Time
	until      time.Time // end of the hold-down; zero without one
	asked      bool      // the hold-down is over as soon as the node answers
}

const (
	firstHold = 10 * time.Second
	lastHold  = 2 * time.Minute
	// calmFor is how long a node has to be there without dying, or away without coming back, until one of its returns is forgotten.
	calmFor = 5 * time.Minute
	// maxDamped bounds the nodes that are looked after; what comes beyond is believed at once.
	maxDamped = 4096
	// answerFor is the time for the answer that ends a hold-down.
	answerFor = 5 * time.Second
)

func newDamper() *damper { return &damper{nodes: map[string]*flaps{}} }

// died notes that a node was given up.
func (d *damper) died(name string, generation uint64, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.nodes[name]
	if f == nil || f.generation != generation {
		if f == nil && len(d.nodes) >= maxDamped {
			return
		}
		f = &flaps{generation: generation}
		d.nodes[name] = f
	}
	if !f.dead {
		f.calm(now.Sub(f.back))
	}
	f.dead, f.died, f.until, f.asked = true, now, time.Time{}, false
}

// calm forgets the returns that some time without a change makes good for.
func (f *flaps) calm(d time.Duration) { f.returns = max(0, f.returns-int(d/calmFor)) }

// blame notes that this node lost sight of most others: those that are dead by now did not come and go themselves.
func (d *damper) blame(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blamed = now
}

// returned notes that a node is back, and returns how long it is not believed yet; 0 if it is.
func (d *damper) returned(name string, generation uint64, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.nodes[name]
	switch {
	case f == nil:
		return 0
	case f.generation != generation:
		delete(d.nodes, name)
		return 0
	case !f.dead:
		return max(0, f.until.Sub(now))
	}
	f.calm(now.Sub(f.died))
	f.dead, f.back = false, now
	if !f.died.After(d.blamed) {
		return 0
	}
	if f.returns++; f.returns == 1 {
		return 0
	}
	f.until = now.Add(f.hold())
	return f.hold()
}

// hold is the hold-down that so many returns earn.
func (f *flaps) hold() time.Duration {
	hold := firstHold
	for i := 2; i < f.returns && hold < lastHold; i++ {
		hold *= 2
	}
	return min(hold, lastHold)
}

// shaken begins the hold-down of a node again that did not answer during it.
func (d *damper) shaken(name string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.nodes[name]; f != nil && !f.until.IsZero() {
		f.until, f.asked = now.Add(f.hold()), false
	}
}

// renewed forgets a node that turns out to live in a later generation: it was restarted. It tells whether it was held down.
func (d *damper) renewed(name string, generation uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.nodes[name]
	if f == nil || f.generation >= generation {
		return false
	}
	delete(d.nodes, name)
	return !f.until.IsZero()
}

// over returns the nodes that have been there for the whole of their hold-down: whoever of them answers now is believed, and the hold-down
// of the others begins again. It also forgets what has been calm for long enough.
func (d *damper) over(now time.Time) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name, f := range d.nodes {
		switch {
		case f.dead:
		case f.until.IsZero():
			if now.Sub(f.back) >= time.Duration(max(1, f.returns))*calmFor {
				delete(d.nodes, name)
			}
		case now.Before(f.until):
		case f.asked:
			f.until, f.asked = now.Add(f.hold()), false
		default:
			f.until, f.asked = now.Add(answerFor), true
			names = append(names, name)
		}
	}
	return names
}

// answered notes a sign of life, and tells whether it ends a hold-down.
func (d *damper) answered(name string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.nodes[name]
	if f == nil || !f.asked {
		return false
	}
	f.until, f.asked, f.back = time.Time{}, false, now
	return true
}

// forget drops a node that left or was reaped.
func (d *damper) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.nodes, name)
}

// until returns the end of a node's hold-down, zero without one.
func (d *damper) until(name string) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.nodes[name]; f != nil {
		return f.until
	}
	return time.Time{}
}

// held returns the number of nodes that are held down, and the end of the first hold-down.
func (d *damper) held() (n int, first time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.nodes {
		if f.until.IsZero() {
			continue
		}
		if n++; first.IsZero() || f.until.Before(first) {
			first = f.until
		}
	}
	return n, first
}
