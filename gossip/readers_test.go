package gossip

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"starling/gossip/record"
)

// thousandTasks returns a map whose own record holds a thousand tasks.
func thousandTasks() *record.Map {
	m := record.NewMap("8f14e45f-ceea-467f-a8a3-6d3a5e0b3c11-S0", 1)
	value := make([]byte, 200)
	for i := range 1000 {
		m.Set(epoch, record.Assignment{Key: taskKey(i), Value: value})
	}
	return m
}

// setter returns a function that makes one change.
func setter(m *record.Map) func() {
	value, i := make([]byte, 200), uint64(0)
	return func() {
		i++
		binary.BigEndian.PutUint64(value, i)
		m.Set(epoch, record.Assignment{Key: taskKey(500), Value: value})
	}
}

// A reader that does not read costs the writer nothing, and neither does its falling behind.
func TestReadersCostTheWriterNoAllocations(t *testing.T) {
	alone := testing.AllocsPerRun(2000, setter(thousandTasks()))
	read := thousandTasks()
	feeds := make([]*record.Feed, 100)
	for i := range feeds {
		feeds[i] = read.Feed()
	}
	if with := testing.AllocsPerRun(2000, setter(read)); with > alone {
		t.Errorf("%v allocations a change with %d readers, want %v as without", with, len(feeds), alone)
	}
}

// BenchmarkReaders is one change of an own record of 1,000 tasks while readers follow its feed, or hold one without reading. Budget: 10 us,
// and with those that do not read the same allocations as without any. What those that read allocate for themselves is counted here too.
func BenchmarkReaders(b *testing.B) {
	for _, reading := range []bool{false, true} {
		for _, readers := range []int{0, 1, 10, 100} {
			if reading && readers == 0 {
				continue
			}
			b.Run(fmt.Sprintf("reading=%v/readers=%d", reading, readers), func(b *testing.B) {
				m := thousandTasks()
				ctx, cancel := context.WithCancel(b.Context())
				var group sync.WaitGroup
				for range readers {
					feed := m.Feed()
					if !reading {
						continue
					}
					group.Go(func() {
						for ctx.Err() == nil {
							_, _ = feed.Next(ctx) // a reader that lags is told so, and goes on
						}
					})
				}
				set := setter(m)
				b.ReportAllocs()
				for b.Loop() {
					set()
				}
				b.StopTimer()
				cancel()
				group.Wait()
			})
		}
	}
}

// BenchmarkMemory tells what a node holds of a mesh of 1,000 nodes with 20 tasks each. Budget: 500 bytes a task.
func BenchmarkMemory(b *testing.B) {
	before := heap()
	var m *record.Map
	for b.Loop() {
		m = stocked(b, 1000, 1200)
	}
	bytes := float64(heap() - before)
	size := 0
	for s := range m.Snapshots() {
		size += s.Size()
	}
	b.ReportMetric(bytes/1000, "bytes/record")
	b.ReportMetric(bytes/20000, "bytes/task")
	b.ReportMetric(float64(size)/20000, "keys+values/task")
}
