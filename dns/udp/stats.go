package udp

import (
	"math/bits"
	"sync/atomic"
)

// Stats are counts since the start, of all loops.
type Stats struct {
	// Received datagrams, Fast ones answered in the loop, Work and Wait ones passed on to workers.
	Received, Fast, Work, Wait uint64
	// Dropped are those for which no worker was free.
	Dropped uint64
	// Odd are those that were too large, or came from or went to where no answer goes: port 0, a multicast address.
	Odd uint64
	// Unsent are answers that the system did not take.
	Unsent uint64
	// ReadErrors are failed reads.
	ReadErrors uint64
	// Batches are, for each power of two from 1 on, the batches of at most so many datagrams that exceed the power before.
	Batches [MaxBatchBits + 1]uint64
	// Busy is how many workers are at work now, by kind.
	BusyWork, BusyWait int
}

// MaxBatchBits is the binary logarithm of the largest batch.
const MaxBatchBits = 6

const maxBatch = 1 << MaxBatchBits

// counters are written by one loop (unsent and by workers too) and read by anybody.
type counters struct {
	received, fast, work, wait, dropped, odd, unsent, readErrors atomic.Uint64

	batches [MaxBatchBits + 1]atomic.Uint64
	_       [64]byte // the next loop's are not in the same cache line
}

func (c *counters) batch(n int) {
	c.received.Add(uint64(n))
	c.batches[bits.Len(uint(n-1))].Add(1)
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	st := Stats{BusyWork: int(s.workers.busy[0].Load()), BusyWait: int(s.workers.busy[1].Load())}
	for _, c := range s.loops {
		st.Received += c.received.Load()
		st.Fast += c.fast.Load()
		st.Work += c.work.Load()
		st.Wait += c.wait.Load()
		st.Dropped += c.dropped.Load()
		st.Odd += c.odd.Load()
		st.Unsent += c.unsent.Load()
		st.ReadErrors += c.readErrors.Load()
		for i := range c.batches {
			st.Batches[i] += c.batches[i].Load()
		}
	}
	return st
}
