package agent

import (
	"container/heap"
	"time"
)

// timers is what the loop waits for, by time. Only the loop touches it.
type timers struct{ heap timerHeap }

// timer is one entry; f runs on the loop.
type timer struct {
	at    time.Time
	f     func()
	index int // -1 once it is out of the heap
}

// at runs f at or after the time given.
func (t *timers) at(at time.Time, f func()) *timer {
	tm := &timer{at: at, f: f}
	heap.Push(&t.heap, tm)
	return tm
}

// stop takes a timer out; nil and a timer that ran already are fine.
func (t *timers) stop(tm *timer) {
	if tm != nil && tm.index >= 0 {
		heap.Remove(&t.heap, tm.index)
	}
}

// next returns the earliest time.
func (t *timers) next() (time.Time, bool) {
	if len(t.heap) == 0 {
		return time.Time{}, false
	}
	return t.heap[0].at, true
}

// fire runs what is due.
func (t *timers) fire(now time.Time) {
	for len(t.heap) > 0 && !t.heap[0].at.After(now) {
		heap.Pop(&t.heap).(*timer).f()
	}
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }

func (h *timerHeap) Push(x any) {
	tm := x.(*timer)
	tm.index = len(*h)
	*h = append(*h, tm)
}

func (h *timerHeap) Pop() any {
	old := *h
	tm := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	tm.index = -1
	return tm
}
