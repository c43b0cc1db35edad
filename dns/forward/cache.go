package forward

import (
	"container/list"
	"sync"
	"time"
)

// entryOverhead is about what an entry costs beside its name and its answer.
const entryOverhead = 256

func (e *entry) size() int { return len(e.question.name) + cap(e.wire) + entryOverhead }

// cache is answers in the order of their last use, bounded in octets and in number.
type cache struct {
	maxBytes, maxEntries int

	mu      sync.Mutex
	entries map[question]*list.Element // of *entry
	order   *list.List                 // the newest use first
	bytes   int
}

func newCache(bytes, entries int) *cache {
	return &cache{maxBytes: bytes, maxEntries: entries, entries: map[question]*list.Element{}, order: list.New()}
}

// popular is how often an answer has to be used to be fetched again before it ends.
const popular = 3

// get returns the answer to a question, expired or not, or nil. It also tells whether it is time to fetch it anew: a fresh
// one that is popular and near its end, or a stale one that has not been asked for in a while.
func (c *cache) get(q question, now time.Time) (e *entry, refresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.entries[q]
	if at == nil {
		return nil, false
	}
	e = at.Value.(*entry)
	if !now.Before(e.expires) && !now.Before(e.staleUntil) {
		c.remove(at)
		return nil, false
	}
	c.order.MoveToFront(at)
	e.hits++
	if now.Before(e.expires) {
		return e, e.hits > popular && e.expires.Sub(now) < e.expires.Sub(e.stored)/10 && !now.Before(e.recheck)
	}
	return e, !now.Before(e.recheck)
}

// putOff puts off asking anew for an answer that can still be shown, and tells whether there is one.
func (c *cache) putOff(q question, now time.Time, pause time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.entries[q]
	if at == nil {
		return false
	}
	e := at.Value.(*entry)
	e.recheck = now.Add(pause)
	return now.Before(e.staleUntil)
}

func (c *cache) put(e *entry) {
	if e.size() > c.maxBytes || c.maxEntries <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.entries[e.question]; at != nil {
		c.remove(at)
	}
	c.entries[e.question] = c.order.PushFront(e)
	c.bytes += e.size()
	for c.bytes > c.maxBytes || c.order.Len() > c.maxEntries {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(at *list.Element) {
	e := c.order.Remove(at).(*entry)
	delete(c.entries, e.question)
	c.bytes -= e.size()
}

// usage returns how many octets and answers there are.
func (c *cache) usage() (bytes, entries int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes, c.order.Len()
}
