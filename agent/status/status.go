// Package status keeps the status updates of an agent's tasks until their frameworks have acknowledged them.
//
// Each task has one stream, in order. Only its head, the oldest update that is not acknowledged, is ever under way; the
// next one follows when exactly that head's uuid comes back. A head is sent again after 10 s, then after twice as long
// each time, up to 10 min, for ever; and at once when there is a new leader to tell. An acknowledged terminal update
// closes its stream (spec: status update reliability, rules of Mesos).
//
// The package is pure: time is passed in, and sending, disk and acknowledgements are the caller's. An update becomes
// due only after Durable was called for it, so that what a framework has seen is never forgotten by a crash and then
// told again under another uuid. It is not safe for concurrent use: the agent's loop owns it.
package status

import (
	"container/heap"
	"slices"
	"time"
)

// The pace of repetition that Mesos users know.
const (
	DefaultFirst = 10 * time.Second
	DefaultMax   = 10 * time.Minute
)

// Key names a task: an id is unique within its framework only.
type Key struct{ Framework, Task string }

// UUID identifies an update.
type UUID [16]byte

// Update is one status update in a stream.
type Update struct {
	UUID UUID
	// Terminal is set on the update that ends the task: once acknowledged, it closes the stream.
	Terminal bool
	// Payload is what the caller sends; the package never looks at it.
	Payload any
}

// Due is an update whose time to be sent has come.
type Due struct {
	Key     Key
	Update  Update
	Attempt int // 1 for the first time
}

// Outcome tells what an acknowledgement did.
type Outcome uint8

// The outcomes of Acknowledge.
const (
	// Ignored is an acknowledgement of something else than the head: an old one repeated, or an unknown task.
	Ignored Outcome = iota
	// Advanced means that the head is gone, and the next update, if there is one, is the head.
	Advanced
	// Closed means that the terminal update was acknowledged: the stream is gone.
	Closed
)

// Streams holds the streams of all tasks. Use New.
type Streams struct {
	first, max time.Duration
	streams    map[Key]*stream
	due        dueHeap
}

type stream struct {
	key     Key
	pending []entry
	// seen holds the uuids of everything pushed, so that an update that comes twice is kept once even after its
	// acknowledgement. A stream carries few updates: health changes are the only ones without a natural bound, hence cap.
	seen []UUID
	// interval is how long the head waits for its acknowledgement this time; attempt counts its sendings.
	interval time.Duration
	attempt  int
	// at is when the head is due; index is its place in the heap, -1 while the head may not be sent.
	at    time.Time
	index int
}

type entry struct {
	update  Update
	durable bool
}

// seenMax bounds the uuids remembered for one stream: far more than can be repeated while still in anybody's buffer.
const seenMax = 64

// New returns empty streams that repeat a head after first, then after doubled times up to most. Zero values mean the
// defaults.
func New(first, most time.Duration) *Streams {
	if first <= 0 {
		first = DefaultFirst
	}
	if most < first {
		most = max(DefaultMax, first)
	}
	return &Streams{first: first, max: most, streams: map[Key]*stream{}}
}

// Push appends an update to its task's stream. It returns false for a uuid that the stream has seen before.
func (s *Streams) Push(key Key, u Update) bool {
	st := s.streams[key]
	if st == nil {
		st = &stream{key: key, index: -1}
		s.streams[key] = st
	}
	if slices.Contains(st.seen, u.UUID) {
		return false
	}
	if len(st.seen) == seenMax {
		st.seen = append(st.seen[:0], st.seen[1:]...)
	}
	st.seen = append(st.seen, u.UUID)
	st.pending = append(st.pending, entry{update: u})
	return true
}

// Durable allows the sending of an update and of all before it in its stream.
func (s *Streams) Durable(now time.Time, key Key, uuid UUID) {
	st := s.streams[key]
	if st == nil {
		return
	}
	for i := range st.pending {
		if st.pending[i].update.UUID != uuid {
			continue
		}
		for j := range st.pending[:i+1] {
			st.pending[j].durable = true
		}
		break
	}
	s.arm(st, now)
}

// arm makes a head due now that is allowed to go and was not sent yet.
func (s *Streams) arm(st *stream, now time.Time) {
	if st.index >= 0 || len(st.pending) == 0 || !st.pending[0].durable {
		return
	}
	st.interval, st.attempt, st.at = s.first, 0, now
	heap.Push(&s.due, st)
}

// Take returns the heads that are due, as long as there is room for them, and sets the time of their next repetition.
func (s *Streams) Take(now time.Time, room func(Update) bool) []Due {
	var out []Due
	for len(s.due) > 0 && !s.due[0].at.After(now) {
		st := s.due[0]
		if !room(st.pending[0].update) {
			break
		}
		st.attempt++
		st.at = now.Add(st.interval)
		st.interval = min(2*st.interval, s.max)
		heap.Fix(&s.due, 0)
		out = append(out, Due{Key: st.key, Update: st.pending[0].update, Attempt: st.attempt})
	}
	return out
}

// Retry makes a head that Take returned due again at the time given, as if it had not been sent: the leader could not
// be reached. It is ignored if the head is another one by now.
func (s *Streams) Retry(at time.Time, key Key, uuid UUID) {
	st := s.streams[key]
	if st == nil || st.index < 0 || st.pending[0].update.UUID != uuid {
		return
	}
	st.interval, st.at = s.first, at
	heap.Fix(&s.due, st.index)
}

// Resend makes all heads due at once, and begins their intervals anew: there is a new leader.
func (s *Streams) Resend(now time.Time) {
	for _, st := range s.due {
		st.interval, st.at = s.first, now
	}
	heap.Init(&s.due)
}

// Next returns when Take will next return something.
func (s *Streams) Next() (time.Time, bool) {
	if len(s.due) == 0 {
		return time.Time{}, false
	}
	return s.due[0].at, true
}

// Acknowledge tells that the framework has seen the update with this uuid. The next update of the stream, if it is
// durable, is due at once.
func (s *Streams) Acknowledge(now time.Time, key Key, uuid UUID) Outcome {
	st := s.streams[key]
	if st == nil || len(st.pending) == 0 || st.pending[0].update.UUID != uuid {
		return Ignored
	}
	terminal := st.pending[0].update.Terminal
	if st.index >= 0 {
		heap.Remove(&s.due, st.index)
	}
	if terminal {
		delete(s.streams, key)
		return Closed
	}
	st.pending = append(st.pending[:0:0], st.pending[1:]...)
	s.arm(st, now)
	return Advanced
}

// Pending returns the updates of a task that are not acknowledged, oldest first.
func (s *Streams) Pending(key Key) []Update {
	st := s.streams[key]
	if st == nil {
		return nil
	}
	out := make([]Update, len(st.pending))
	for i, e := range st.pending {
		out[i] = e.update
	}
	return out
}

// Head returns the oldest update of a task that is not acknowledged.
func (s *Streams) Head(key Key) (Update, bool) {
	st := s.streams[key]
	if st == nil || len(st.pending) == 0 {
		return Update{}, false
	}
	return st.pending[0].update, true
}

// Remove forgets a task and its updates: its framework is gone, nobody will acknowledge.
func (s *Streams) Remove(key Key) {
	st := s.streams[key]
	if st == nil {
		return
	}
	if st.index >= 0 {
		heap.Remove(&s.due, st.index)
	}
	delete(s.streams, key)
}

// Len is the number of tasks that have a stream.
func (s *Streams) Len() int { return len(s.streams) }

// dueHeap orders streams by the time at which their heads are due, ties by key so that runs repeat.
type dueHeap []*stream

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	if h[i].key.Framework != h[j].key.Framework {
		return h[i].key.Framework < h[j].key.Framework
	}
	return h[i].key.Task < h[j].key.Task
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }

func (h *dueHeap) Push(x any) {
	st := x.(*stream)
	st.index = len(*h)
	*h = append(*h, st)
}

func (h *dueHeap) Pop() any {
	old := *h
	st := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	st.index = -1
	return st
}
