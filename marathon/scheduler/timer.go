package scheduler

import (
	"container/heap"
	"time"

	"starling/marathon/app"
)

// timerKind says what is due. A timer is a hint to look, not an order: whoever it wakes looks at the state as it is then,
// so that timers are never taken back.
type timerKind uint8

const (
	timerReservation timerKind = iota // what was to be reserved ought to have been offered by now
	timerDiscard                      // what was to be released is looked for again
	timerLaunch                       // an instance was launched and ought to run by now
	timerUnreachable                  // an unreachable instance is to be replaced or forgotten
	timerKill                         // a kill is to be repeated
	timerBackoff                      // an app may be launched again
	timerRevive                       // offers may be asked for again
	timerTokens                       // launch tokens are given back
	timerScale                        // all numbers are to be checked
	timerReconcile                    // all tasks are to be asked for
	timerAsk                          // tasks of which nothing was heard are to be asked for again
	timerDeadline                     // a deployment has to be done
	timerDaemon                       // a daemon app is to be looked at
)

type timer struct {
	at       time.Time
	kind     timerKind
	instance app.InstanceID
	app      app.PathID
	seq      uint64 // keeps timers of the same moment in the order in which they were set
}

// timers is a heap, the earliest first.
type timers struct {
	heap timerHeap
	seq  uint64
}

func (t *timers) set(one timer) {
	t.seq++
	one.seq = t.seq
	heap.Push(&t.heap, one)
}

// due takes the earliest timer that is due.
func (t *timers) due(now time.Time) (timer, bool) {
	if len(t.heap) == 0 || t.heap[0].at.After(now) {
		return timer{}, false
	}
	return heap.Pop(&t.heap).(timer), true
}

func (t *timers) next() (time.Time, bool) {
	if len(t.heap) == 0 {
		return time.Time{}, false
	}
	return t.heap[0].at, true
}

type timerHeap []timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}
func (h timerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)   { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
