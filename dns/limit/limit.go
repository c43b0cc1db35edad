// Package limit slows down answers to networks that ask too much, so that a server whose port is open to others is no
// lever for attacks: queries over UDP bear forged sources, and answers are larger than queries.
//
// Each network (24 bits of IPv4, 56 of IPv6) has a bucket, which holds a second's worth of answers and fills at the rate.
// Of the queries that find it empty every second one is to be answered with nothing but the truncation bit: an honest
// client in the same network, whose name is being forged, then comes back over TCP, which a forger can't do.
//
// The buckets are a table of fixed size, its hash seeded at random. Where a table is too small for all who ask at a time,
// the network that has used least of its bucket gives way to a new one: one that floods cannot have itself forgotten by
// mere numbers of others, and next to nobody shares a bucket with it. The table is used by any number of goroutines without a
// lock; Take allocates nothing.
package limit

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// Verdict says how to treat a query.
type Verdict int

const (
	// Answer it as if there were no limit.
	Answer Verdict = iota
	// Slip: answer that it must be asked over TCP.
	Slip
	// Drop it.
	Drop
)

const (
	// A network's bucket is one of those of its set, which fill a cache line together.
	ways = 8
	// sets is 8,192 networks and 64 KiB.
	sets = 1 << 10

	// The state of a bucket is one word: when it will be full again, in microseconds, and above that some bits of the
	// network's hash, and one that turns with each query over the limit.
	timeBits = 48
	timeMask = 1<<timeBits - 1
	slipBit  = 1 << 63
	tagMask  = ^uint64(timeMask | slipBit)
)

// Limiter keeps the rates of all networks. Use New.
type Limiter struct {
	seed     maphash.Seed
	interval uint64 // microseconds that one answer costs
	burst    uint64 // microseconds by which a bucket may be short of full
	table    [sets][ways]atomic.Uint64
}

// New makes a limiter that grants each network so many answers a second, at least one, and so many at once, of up to Size octets each. Rates above a
// thousand are rounded up to what is a whole number of microseconds an answer.
func New(rate int) *Limiter {
	rate = min(max(rate, 1), 1_000_000)
	l := &Limiter{seed: maphash.MakeSeed(), interval: uint64(1_000_000 / rate)}
	l.burst = l.interval * uint64(rate)
	return l
}

// Take charges a client's network with one answer, if it has one left. Now is the time since any fixed moment; it should
// not go backwards, and a limiter serves for eight years.
func (l *Limiter) Take(now time.Duration, client netip.Addr) Verdict {
	hash := l.hash(client)
	set := &l.table[hash%sets]
	tag := hash & tagMask
	// One more than the time, so that no bucket in use is zero.
	t := uint64(now.Microseconds())&timeMask + 1
	for range 8 {
		b, old := find(set, tag, t)
		full := t // a bucket of another, or one that has filled up, is full now
		if old&tagMask == tag && old != 0 {
			full = max(full, old&timeMask)
		}
		if full+l.interval <= t+l.burst {
			if b.CompareAndSwap(old, old&slipBit|tag|(full+l.interval)) {
				return Answer
			}
			continue
		}
		if b.CompareAndSwap(old, old^slipBit) {
			if old&slipBit == 0 {
				return Slip
			}
			return Drop
		}
	}
	// Others of the same set are at it this very moment, as they are in a flood.
	return Drop
}

// Size is how many octets of an answer its one charge pays for; see Charge.
const Size = 512

// Charge charges a client's network for an answer as large as this, beyond what Take did for it: one for each further Size
// octets begun. Small answers are no lever, and their rate is that of queries.
func (l *Limiter) Charge(now time.Duration, client netip.Addr, octets int) {
	if octets <= Size {
		return
	}
	more := uint64((octets-1)/Size) * l.interval
	hash := l.hash(client)
	set := &l.table[hash%sets]
	tag := hash & tagMask
	t := uint64(now.Microseconds())&timeMask + 1
	for range 8 {
		b, old := find(set, tag, t)
		full := t
		if old&tagMask == tag && old != 0 {
			full = max(full, old&timeMask)
		}
		// What a network owes never keeps it waiting for longer than a bucket takes to fill.
		if b.CompareAndSwap(old, old&slipBit|tag|min(full+more, t+2*l.burst)) {
			return
		}
	}
}

// find returns the bucket of a tag, or the one that gives way to it: the one that is full soonest.
func find(set *[ways]atomic.Uint64, tag, now uint64) (*atomic.Uint64, uint64) {
	var best *atomic.Uint64
	var state, least uint64
	for i := range set {
		s := set[i].Load()
		if s != 0 && s&tagMask == tag {
			return &set[i], s
		}
		if lack := max(s&timeMask, now) - now; best == nil || lack < least {
			best, state, least = &set[i], s, lack
		}
	}
	return best, state
}

func (l *Limiter) hash(client netip.Addr) uint64 {
	var key [8]byte
	if client = client.Unmap(); client.Is4() {
		a := client.As4()
		key = [8]byte{7: 4, 0: a[0], 1: a[1], 2: a[2]}
	} else {
		a := client.As16()
		copy(key[:7], a[:7])
		key[7] = 6
	}
	return maphash.Bytes(l.seed, key[:])
}
