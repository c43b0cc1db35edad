package gossip

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/gossip/record"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// received applies packed messages to a copy and returns the keys that were told, in order of the message.
func received(t *testing.T, m *record.Map, msgs [][]byte) []string {
	t.Helper()
	var keys []string
	for _, b := range msgs {
		msg, err := parseMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range msg.deltas {
			res, err := m.Apply(epoch, d)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, res.Keys...)
		}
	}
	return keys
}

func TestQueueTellsTheNewestOfEachKeyOnce(t *testing.T) {
	own := record.NewMap("n", 1)
	q := newQueue(own, 100, 1300, 1<<20)
	q.setLimit(2, 1)
	for i := range 50 {
		_, keys, _ := own.TrySet(epoch, assign("res", fmt.Sprint(i)))
		q.push("n", 1, keys)
	}
	_, keys, _ := own.TrySet(epoch, assign("task", "x"))
	q.push("n", 1, keys)
	other := record.NewMap("o", 1)
	if got := received(t, other, q.pack(epoch, 3, 1300)); !slices.Equal(got, []string{"res", "task"}) {
		t.Errorf("told %q, want each key once", got)
	}
	if v, _ := other.Snapshot("n").Get("res"); string(v) != "49" {
		t.Errorf("res is %q, want the newest", v)
	}
	if v := other.Snapshot("n").Version(); v != 51 {
		t.Errorf("version %d, want 51: what was replaced is covered", v)
	}
	// A new key goes before what was told already, and everything is told four times.
	_, keys, _ = own.TrySet(epoch, assign("new", "x"))
	q.push("n", 1, keys)
	for i, want := range []int{3, 3, 3, 1, 0} {
		msgs := q.pack(epoch, 3, 1300)
		n := 0
		for _, b := range msgs {
			m, err := parseMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range m.deltas {
				res, err := record.NewMap("fresh", 1).Apply(epoch, d)
				if err != nil {
					t.Fatal(err)
				}
				n += len(res.Keys)
			}
		}
		if n != want {
			t.Errorf("datagram %d tells %d keys, want %d", i+2, n, want)
		}
	}
}

func TestQueueRespectsTheSizeOfADatagram(t *testing.T) {
	own := record.NewMap("n", 1)
	q := newQueue(own, 1000, 1300, 1<<30)
	var keys []string
	for i := range 200 {
		key := fmt.Sprintf("task/%d", i)
		own.Set(epoch, assign(key, strings.Repeat("x", i*7)))
		keys = append(keys, key)
	}
	large := q.push("n", 1, keys)
	if len(large) == 0 || len(large) > 30 {
		t.Errorf("%d keys are too large for a datagram, want those of about 1,300 bytes or more", len(large))
	}
	other := record.NewMap("o", 1)
	told := map[string]bool{}
	for _, limit := range []int{100, 700, 1300} {
		for range 1000 {
			msgs := q.pack(epoch, 3, limit)
			size := 0
			for _, m := range msgs {
				size += len(m) + 3
			}
			if size > limit {
				t.Fatalf("%d bytes in a datagram of %d", size, limit)
			}
			for _, k := range received(t, other, msgs) {
				told[k] = true
			}
		}
	}
	if len(told) != 200-len(large) {
		t.Errorf("%d keys were told, want all but the %d large ones", len(told), len(large))
	}
	if n, _ := q.state(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

func TestQueueIsBoundedInEntriesAndRate(t *testing.T) {
	own := record.NewMap("n", 1)
	q := newQueue(own, 10, 1300, 1000)
	for i := range 100 {
		key := fmt.Sprint("k", i)
		own.Set(epoch, assign(key, strings.Repeat("x", 500)))
		q.push("n", 1, []string{key})
	}
	if n, drops := q.state(); n != 10 || drops != 90 {
		t.Errorf("%d entries, %d dropped, want 10 and 90", n, drops)
	}
	sent := 0
	for now := epoch; now.Before(epoch.Add(10 * time.Second)); now = now.Add(10 * time.Millisecond) {
		for _, m := range q.pack(now, 3, 1300) {
			sent += len(m) + 3
		}
		own.Set(now, assign("k0", now.String()+strings.Repeat("x", 500)))
		q.push("n", 1, []string{"k0"})
	}
	// Up to one datagram more: what is left of the credit may be less than the last one takes.
	if want := 1000 * (10 + hotBurst); sent < want-2000 || sent > want+1300 {
		t.Errorf("%d bytes in ten seconds, want about %d: 1,000 a second and the credit of the start", sent, want)
	}
}

func TestQueueForgetsWhatIsGone(t *testing.T) {
	own := record.NewMap("n", 1)
	q := newQueue(own, 10, 1300, 1<<20)
	own.Set(epoch, assign("k", "v"))
	q.push("n", 1, []string{"k", "never there"})
	own.Raise(1)
	if msgs := q.pack(epoch, 3, 1300); msgs != nil {
		t.Errorf("told %x of a generation that is gone", msgs)
	}
	if n, _ := q.state(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	q.pushRaw("n", []byte("goodbye"))
	q.pushRaw("n", []byte("good night"))
	if msgs := q.pack(epoch, 3, 1300); len(msgs) != 1 || string(msgs[0]) != "good night" {
		t.Errorf("told %q, want the newest message alone", msgs)
	}
}

// BenchmarkPack fills datagrams from a queue of 1,000 keys of 100 bytes. Budget: 50 us each.
func BenchmarkPack(b *testing.B) {
	own := record.NewMap("8f14e45f-ceea-467f-a8a3-6d3a5e0b3c11-S0", 1)
	q := newQueue(own, 2000, 1366, 1<<40)
	var keys []string
	for i := range 1000 {
		key := fmt.Sprintf("task/framework-0001/task.%04d", i)
		own.Set(epoch, assign(key, strings.Repeat("x", 100)))
		keys = append(keys, key)
	}
	q.setLimit(1<<30, 1)
	q.push(own.Self(), 1, keys)
	b.ReportAllocs()
	for b.Loop() {
		if q.pack(epoch, 3, 1366) == nil {
			b.Fatal("nothing to tell")
		}
	}
}

// What may wait goes behind what is urgent, however late that comes, and is told half as often.
func TestQueueTellsTheUrgentFirst(t *testing.T) {
	own := record.NewMap("n", 1)
	q := newQueue(own, 1000, 300, 1<<30)
	q.bulk = func(key string) bool { return !strings.HasPrefix(key, "task/") }
	for i := range 30 {
		key := fmt.Sprint("res/", i)
		own.Set(epoch, assign(key, strings.Repeat("x", 60)))
		q.push("n", 1, []string{key})
	}
	own.Set(epoch, assign("task/f/1", "finished"))
	q.push("n", 1, []string{"task/f/1"})
	told := map[string]int{}
	first := ""
	for range 1000 {
		for _, b := range q.pack(epoch, 3, 300) {
			m, err := parseMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range m.deltas {
				res, err := record.NewMap("fresh", 1).Apply(epoch, d)
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range res.Keys {
					told[k]++
				}
				if first == "" {
					first = strings.Join(res.Keys, " ")
				}
			}
		}
	}
	if !strings.Contains(first, "task/f/1") {
		t.Errorf("the first datagram told %q, want the task's end in it", first)
	}
	if told["task/f/1"] != 3 || told["res/0"] != 2 {
		t.Errorf("the task was told %d times and what may wait %d times, want 3 and 2", told["task/f/1"], told["res/0"])
	}
}

// A key that changes faster than its turn comes is told all the same.
func TestQueueStarvesNoBusyKey(t *testing.T) {
	own := record.NewMap("n", 1)
	q := newQueue(own, 1000, 300, 1<<30)
	told := 0
	for i := range 200 {
		for k := range 40 { // one datagram holds three of them
			key := fmt.Sprint("k", k)
			own.Set(epoch, assign(key, strings.Repeat("x", 60)+fmt.Sprint(i)))
			q.push("n", 1, []string{key})
		}
		for _, b := range q.pack(epoch, 3, 300) {
			m, err := parseMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range m.deltas {
				res, err := record.NewMap("fresh", 1).Apply(epoch, d)
				if err != nil {
					t.Fatal(err)
				}
				if slices.Contains(res.Keys, "k39") {
					told++
				}
			}
		}
	}
	if told < 5 || told > 25 {
		t.Errorf("the last of forty busy keys was told %d times in 200 datagrams of three, want its share of 15", told)
	}
}
