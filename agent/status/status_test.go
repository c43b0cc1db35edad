package status

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var (
	epoch = time.Unix(1_700_000_000, 0)
	task  = Key{Framework: "f", Task: "t"}
)

func update(n byte, terminal bool) Update { return Update{UUID: UUID{n}, Terminal: terminal} }

// push appends updates that are durable at once.
func push(s *Streams, now time.Time, key Key, updates ...Update) {
	for _, u := range updates {
		s.Push(key, u)
		s.Durable(now, key, u.UUID)
	}
}

// room is for a number of updates.
func room(n int) func(Update) bool {
	return func(Update) bool { n--; return n >= 0 }
}

func taken(due []Due) []byte {
	var out []byte
	for _, d := range due {
		out = append(out, d.Update.UUID[0])
	}
	return out
}

func TestOnlyTheHeadIsUnderWay(t *testing.T) {
	s := New(0, 0)
	push(s, epoch, task, update(1, false), update(2, false), update(3, true))
	if got := taken(s.Take(epoch, room(10))); !slices.Equal(got, []byte{1}) {
		t.Fatalf("first: got %v, want [1]", got)
	}
	if got := s.Acknowledge(epoch, task, UUID{2}); got != Ignored {
		t.Errorf("acknowledgement of what was not sent: got %v", got)
	}
	if got := s.Acknowledge(epoch, task, UUID{1}); got != Advanced {
		t.Errorf("acknowledgement of the head: got %v", got)
	}
	if got := s.Acknowledge(epoch, task, UUID{1}); got != Ignored {
		t.Errorf("the same again: got %v", got)
	}
	if got := taken(s.Take(epoch, room(10))); !slices.Equal(got, []byte{2}) {
		t.Errorf("then: got %v, want [2]", got)
	}
	s.Acknowledge(epoch, task, UUID{2})
	if got := s.Acknowledge(epoch, task, UUID{3}); got != Closed {
		t.Errorf("acknowledgement of the end: got %v", got)
	}
	if s.Len() != 0 {
		t.Errorf("%d streams left", s.Len())
	}
	if at, ok := s.Next(); ok {
		t.Errorf("something is due at %v", at)
	}
}

func TestRepetition(t *testing.T) {
	s := New(0, 0)
	push(s, epoch, task, update(1, false))
	var at []time.Duration
	for now := epoch; now.Before(epoch.Add(40 * time.Minute)); now = now.Add(time.Second) {
		for _, d := range s.Take(now, room(10)) {
			at = append(at, now.Sub(epoch)/time.Second)
			if d.Attempt != len(at) {
				t.Errorf("attempt: got %d, want %d", d.Attempt, len(at))
			}
		}
	}
	want := []time.Duration{0, 10, 30, 70, 150, 310, 630, 1230, 1830}
	if !slices.Equal(at, want) {
		t.Errorf("sent after %v seconds, want %v", at, want)
	}
}

func TestANewLeaderIsToldAtOnce(t *testing.T) {
	s := New(0, 0)
	other := Key{Framework: "f", Task: "u"}
	push(s, epoch, task, update(1, false))
	push(s, epoch, other, update(2, false))
	s.Take(epoch, room(10))
	now := epoch.Add(time.Second)
	s.Resend(now)
	if got := taken(s.Take(now, room(10))); !slices.Equal(got, []byte{1, 2}) {
		t.Errorf("resent %v", got)
	}
	if at, _ := s.Next(); at.Sub(now) != DefaultFirst {
		t.Errorf("the interval goes on at %v", at.Sub(now))
	}
}

func TestDuplicatesAndWhatIsNotOnDisk(t *testing.T) {
	s := New(0, 0)
	s.Push(task, update(1, false))
	if s.Push(task, update(1, false)) {
		t.Error("the same uuid was taken twice")
	}
	if got := s.Take(epoch, room(10)); got != nil {
		t.Errorf("sent what is not on disk: %v", got)
	}
	s.Push(task, update(2, false))
	s.Durable(epoch, task, UUID{2}) // the first with it
	if got := taken(s.Take(epoch, room(10))); !slices.Equal(got, []byte{1}) {
		t.Errorf("got %v, want [1]", got)
	}
	s.Acknowledge(epoch, task, UUID{1})
	if s.Push(task, update(1, false)) {
		t.Error("an acknowledged uuid was taken again")
	}
}

func TestAFailedReportIsRepeatedSooner(t *testing.T) {
	s := New(0, 0)
	push(s, epoch, task, update(1, false))
	s.Take(epoch, room(10))
	s.Retry(epoch.Add(time.Second), task, UUID{1})
	s.Retry(epoch, task, UUID{9}) // not the head: ignored
	if at, _ := s.Next(); at.Sub(epoch) != time.Second {
		t.Errorf("due after %v, want 1s", at.Sub(epoch))
	}
}

// TestLaws plays random events against the plain rules: order within a task, one head under way, nothing lost.
func TestLaws(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	s := New(0, 0)
	now := epoch
	pending := map[Key][]byte{}
	next := map[Key]byte{}
	keys := []Key{{"f", "a"}, {"f", "b"}, {"g", "a"}}
	for range 20000 {
		key := keys[rng.IntN(len(keys))]
		now = now.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
		switch rng.IntN(4) {
		case 0:
			if next[key] < 250 {
				next[key]++
				push(s, now, key, update(next[key], false))
				pending[key] = append(pending[key], next[key])
			}
		case 1:
			for _, d := range s.Take(now, room(2)) {
				if want := pending[d.Key]; len(want) == 0 || d.Update.UUID[0] != want[0] {
					t.Fatalf("took %d of %v, its head is %v", d.Update.UUID[0], d.Key, want)
				}
			}
		case 2:
			if len(pending[key]) > 0 {
				if got := s.Acknowledge(now, key, UUID{pending[key][0]}); got != Advanced {
					t.Fatalf("acknowledgement: got %v", got)
				}
				pending[key] = pending[key][1:]
			}
		case 3:
			s.Resend(now)
		}
		for _, key := range keys {
			if len(s.Pending(key)) != len(pending[key]) {
				t.Fatalf("pending: got %d, want %d", len(s.Pending(key)), len(pending[key]))
			}
		}
		due := 0
		for _, p := range pending {
			if len(p) > 0 {
				due++
			}
		}
		if _, ok := s.Next(); ok != (due > 0) {
			t.Fatalf("something due: %v, with %d heads", ok, due)
		}
	}
}
