package gossip

import (
	"container/list"
	"math"
	"sync"
	"time"

	"starling/gossip/record"
)

// queue holds what is to be told to others: not messages but keys, whose newest values are packed when a datagram leaves.
// So a newer change of a key replaces an older one, and the queue holds no key twice. What was told less often goes first, and what
// may wait begins as if it had been told half of its times: it goes behind what is urgent, and is told half as often.
// All methods may be called from any goroutine; none blocks.
type queue struct {
	records *record.Map
	max     int // entries; beyond, those that were told most often are dropped
	// largest is the size of the largest entry that is told by datagrams.
	largest int
	bulk    func(key string) bool // keys that may wait; nil: none

	mu     sync.Mutex
	limit  int // how often an entry is sent
	items  map[entryKey]*queued
	tiers  []*list.List // of *queued, by how often they were sent
	bucket bucket
	drops  uint64
}

// entryKey names an entry; with an empty key it is a ready-made message about the node.
type entryKey struct{ node, key string }

type queued struct {
	entryKey
	generation uint64
	raw        []byte
	tier       int
	told       time.Time // when its turn came first
	element    *list.Element
}

func newQueue(records *record.Map, max, largest, rate int) *queue {
	return &queue{
		records: records, max: max, largest: largest, limit: 3, items: map[entryKey]*queued{},
		bucket: bucket{rate: float64(rate), burst: hotBurst * float64(rate), tokens: hotBurst * float64(rate)},
	}
}

// setLimit says how often an entry is sent, given the number of nodes: two rounds at the least, as in a small mesh one reaches nobody
// twice and may miss somebody.
func (q *queue) setLimit(mult, nodes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = mult * max(2, int(math.Ceil(math.Log10(float64(nodes+1)))))
}

// push puts keys of a record in the front row. It returns those that are too large for a datagram, which are not queued.
func (q *queue) push(node string, generation uint64, keys []string) (large []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, k := range keys {
		size := q.records.EntrySize(node, generation, k)
		switch {
		case size == 0:
		case size+record.HeaderSize(node) > q.largest:
			q.remove(q.items[entryKey{node, k}])
			large = append(large, k)
		default:
			it := &queued{entryKey: entryKey{node, k}, generation: generation}
			if q.bulk != nil && q.bulk(k) {
				it.tier = q.limit / 2
			}
			q.add(it)
		}
	}
	return large
}

// pushRaw queues a ready-made message about a node; a newer one replaces it.
func (q *queue) pushRaw(node string, raw []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(&queued{entryKey: entryKey{node: node}, raw: raw})
}

func (q *queue) add(it *queued) {
	if old := q.items[it.entryKey]; old != nil {
		if old.tier == it.tier {
			// It keeps its place: a key that changes faster than its turn comes would else never be told.
			old.generation, old.raw, old.told = it.generation, it.raw, time.Time{}
			return
		}
		q.remove(old)
	}
	if len(q.items) >= q.max {
		for i := len(q.tiers) - 1; i >= 0; i-- {
			if e := q.tiers[i].Front(); e != nil {
				q.remove(e.Value.(*queued))
				q.drops++
				break
			}
		}
	}
	q.items[it.entryKey] = it
	q.enlist(it)
}

func (q *queue) enlist(it *queued) {
	for len(q.tiers) <= it.tier {
		q.tiers = append(q.tiers, list.New())
	}
	it.element = q.tiers[it.tier].PushBack(it)
}

func (q *queue) remove(it *queued) {
	if it != nil {
		q.tiers[it.tier].Remove(it.element)
		delete(q.items, it.entryKey)
	}
}

const (
	// hotBurst is for how many seconds a node may save up what it may tell. Of 20 nodes 99 % know 0.6 s after six tasks of one of them began
	// that they run; with half of the credit it is 0.8 s.
	hotBurst = 4
	// maxMisses is how many entries that do not fit are looked at in each row before a datagram is closed.
	maxMisses = 8
	// minRoom is the room in a datagram below which nothing more is looked for.
	minRoom = 64
	// tellFor is for how long an entry is told after the first time. Whoever has not heard of it by then is told by anti-entropy; after more
	// changes than there was room for, what is new goes before repetitions of what is old.
	tellFor = 10 * time.Second
)

// pack makes the messages of one datagram, of at most limit bytes with overhead bytes for each. It returns nil if there is
// nothing to tell, or the rate is used up.
func (q *queue) pack(now time.Time, overhead, limit int) [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 || !q.bucket.ready(now) {
		return nil
	}
	var msgs [][]byte
	free := limit - overhead - 2
	groups := map[string][]*queued{} // by node
	var nodes []string
	var sent []*queued
	for _, tier := range q.tiers {
		misses := 0
		for e := tier.Front(); e != nil && misses < maxMisses && (free >= minRoom || len(sent) == 0); {
			it := e.Value.(*queued)
			e = e.Next()
			if it.told.IsZero() {
				it.told = now
			} else if now.Sub(it.told) > tellFor {
				q.remove(it)
				continue
			}
			if it.raw != nil {
				if size := len(it.raw) + overhead; size <= free {
					free -= size
					msgs, sent = append(msgs, it.raw), append(sent, it)
				} else {
					misses++
				}
				continue
			}
			size := q.records.EntrySize(it.node, it.generation, it.key)
			if size == 0 { // reaped, or of a generation that is gone
				q.remove(it)
				continue
			}
			group := groups[it.node]
			if group == nil {
				size += record.HeaderSize(it.node)
			} else if group[0].generation != it.generation {
				continue
			}
			if size > free {
				misses++
				continue
			}
			free -= size
			if group == nil {
				nodes = append(nodes, it.node)
			}
			groups[it.node] = append(group, it)
			sent = append(sent, it)
		}
	}
	if len(nodes) > 0 {
		msgs = append(msgs, q.encode(now, nodes, groups))
	}
	for _, it := range sent {
		q.remove(it)
		if it.tier++; it.tier < q.limit {
			q.items[it.entryKey] = it
			q.enlist(it)
		}
	}
	for _, m := range msgs {
		q.bucket.take(len(m) + overhead)
	}
	return msgs
}

func (q *queue) encode(now time.Time, nodes []string, groups map[string][]*queued) []byte {
	hot := appendHeader(make([]byte, 0, q.largest), kindHot)
	var keys []string
	var delta []byte
	for _, n := range nodes {
		keys = keys[:0]
		for _, it := range groups[n] {
			keys = append(keys, it.key)
		}
		if delta = q.records.AgedEntries(now, delta[:0], n, groups[n][0].generation, keys); len(delta) > 0 {
			hot = appendBlob(hot, delta)
		}
	}
	return hot
}

// state returns the number of entries in the queue, and how many were dropped because it was full.
func (q *queue) state() (entries int, drops uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items), q.drops
}

// bucket is a token bucket over bytes. It may be overdrawn once, by what is sent in one piece.
type bucket struct {
	rate, burst, tokens float64
	last                time.Time
}

func (b *bucket) ready(now time.Time) bool {
	if !b.last.IsZero() {
		b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.last).Seconds())
	}
	b.last = now
	return b.tokens > 0
}

func (b *bucket) take(n int) { b.tokens -= float64(n) }

// wait returns how long it takes until the bucket is ready.
func (b *bucket) wait() time.Duration {
	return time.Duration((1-b.tokens)/b.rate*float64(time.Second)) + 1
}
