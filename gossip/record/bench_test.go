package record

import (
	"fmt"
	"testing"
)

// big returns a map whose own record has a thousand tasks of the usual size.
func big() *Map {
	m := NewMap("8f14e45f-ceea-467f-a8a3-6d3a5e0b3c11-S0", 1)
	value := make([]byte, 200)
	for i := range 1000 {
		m.Set(epoch, Assignment{fmt.Sprintf("task/framework-0001/task.%04d", i), value})
	}
	return m
}

// BenchmarkSet is one change of an own record with 1,000 tasks, which 0 or 100 feeds could read. Budget: 10 us, whatever the number of feeds.
func BenchmarkSet(b *testing.B) {
	for _, readers := range []int{0, 100} {
		b.Run(fmt.Sprintf("feeds=%d", readers), func(b *testing.B) {
			m := big()
			for range readers {
				m.Feed()
			}
			b.ReportAllocs()
			value := make([]byte, 200)
			for i := 0; b.Loop(); i++ {
				value[0], value[1], value[2] = byte(i), byte(i>>8), byte(i>>16)
				m.Set(epoch, Assignment{"task/framework-0001/task.0500", value})
			}
		})
	}
}

// BenchmarkApply is one hot delta merged into a copy with 1,000 tasks. Budget: 10 us.
func BenchmarkApply(b *testing.B) {
	owner, reader := big(), NewMap("reader", 1)
	if _, err := reader.Apply(epoch, owner.Delta(owner.Self(), 0)); err != nil {
		b.Fatal(err)
	}
	deltas := make([][]byte, 4096)
	for i := range deltas {
		key := fmt.Sprintf("task/framework-0001/task.%04d", i%1000)
		owner.Set(epoch, Assignment{key, fmt.Append(nil, i)})
		deltas[i] = owner.Entries(nil, owner.Self(), 1, []string{key})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(deltas) == 0 {
			b.StopTimer()
			reader = NewMap("reader", 1)
			whole := big()
			if _, err := reader.Apply(epoch, whole.Delta(whole.Self(), 0)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		if _, err := reader.Apply(epoch, deltas[i%len(deltas)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDelta encodes a hot delta of one key, a delta of the newest change, and the whole of 1,000 tasks.
func BenchmarkDelta(b *testing.B) {
	m := big()
	b.Run("hot", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 1400)
		keys := []string{"task/framework-0001/task.0500"}
		for b.Loop() {
			buf = m.Entries(buf[:0], m.Self(), 1, keys)
		}
	})
	b.Run("last", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Delta(m.Self(), 999)
		}
	})
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Delta(m.Self(), 0)
		}
	})
}

// BenchmarkSnapshot reads all of a record with 1,000 tasks.
func BenchmarkSnapshot(b *testing.B) {
	m := big()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for _, v := range m.Snapshot(m.Self()).Prefix("task/") {
			n += len(v)
		}
	}
}
