package allocator

import (
	"container/heap"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

// maxFilters bounds the filters between one client and one agent. Beyond it the one that would end first goes, which costs
// an offer too many.
const maxFilters = 16

// filter refuses a client what it has refused, or a part of it, on an agent.
type filter struct {
	client  *client
	agent   *agent
	refused resources.Resources
	until   time.Time
	// number makes the order of filters that end together that of their making.
	number uint64
	place  int // in the heap
}

// burst counts the returns without a filter.
type burst struct {
	until time.Time
	count int
}

// refuse adds a filter, unless one that refuses as much for as long is there; those that it covers go.
func (a *Allocator) refuse(c *client, ag *agent, rs resources.Resources, d time.Duration, now time.Time) {
	if rs.Empty() {
		return
	}
	until := now.Add(d)
	list := c.filters[ag]
	for i := 0; i < len(list); {
		f := list[i]
		if !f.until.Before(until) && f.refused.Contains(rs) {
			return
		}
		if !f.until.After(until) && rs.Contains(f.refused) {
			heap.Remove(&a.filters, f.place)
			list = slices.Delete(list, i, i+1)
			continue
		}
		i++
	}
	if len(list) >= maxFilters {
		first := 0
		for i, f := range list {
			if f.until.Before(list[first].until) {
				first = i
			}
		}
		heap.Remove(&a.filters, list[first].place)
		list = slices.Delete(list, first, first+1)
	}
	a.numbered++
	f := &filter{client: c, agent: ag, refused: rs, until: until, number: a.numbered}
	heap.Push(&a.filters, f)
	c.filters[ag] = append(list, f)
}

// rest notes a return without a filter, and makes one for the rest of the interval where there were too many.
func (a *Allocator) rest(c *client, ag *agent, rs resources.Resources, now time.Time) {
	if a.cfg.Burst <= 0 || a.cfg.Interval <= 0 {
		return
	}
	b := c.returns[ag]
	if b == nil || !now.Before(b.until) {
		b = &burst{until: now.Add(a.cfg.Interval)}
		c.returns[ag] = b
	}
	b.count++
	if b.count >= a.cfg.Burst {
		a.refuse(c, ag, rs, b.until.Sub(now), now)
	}
}

// filtered returns the filter that refuses a candidate, the one that ends last; nil for none.
func (c *client) filtered(ag *agent, rs resources.Resources) *filter {
	var found *filter
	for _, f := range c.filters[ag] {
		if (found == nil || f.until.After(found.until)) && f.refused.Contains(rs) {
			found = f
		}
	}
	return found
}

// expire ends the filters whose time has come, and has their pairs looked at.
func (a *Allocator) expire(now time.Time) {
	for len(a.filters) > 0 && !a.filters[0].until.After(now) {
		f := heap.Pop(&a.filters).(*filter)
		list := slices.DeleteFunc(f.client.filters[f.agent], func(o *filter) bool { return o == f })
		if len(list) == 0 {
			delete(f.client.filters, f.agent)
		} else {
			f.client.filters[f.agent] = list
		}
		if b := f.client.returns[f.agent]; b != nil && !now.Before(b.until) {
			delete(f.client.returns, f.agent)
		}
		a.touchPair(f.agent, f.client)
	}
}

// NextWake returns when the next filter ends, so that Allocate has something to look at again; false without filters.
func (a *Allocator) NextWake() (time.Time, bool) {
	if len(a.filters) == 0 {
		return time.Time{}, false
	}
	return a.filters[0].until, true
}

// clearFilters forgets all filters of a client.
func (a *Allocator) clearFilters(c *client) {
	for _, list := range c.filters {
		for _, f := range list {
			heap.Remove(&a.filters, f.place)
		}
	}
	clear(c.filters)
	clear(c.returns)
}

// clearAgent forgets all filters on an agent.
func (a *Allocator) clearAgent(ag *agent) {
	for _, fw := range a.frameworks {
		for _, c := range fw.clients {
			for _, f := range c.filters[ag] {
				heap.Remove(&a.filters, f.place)
			}
			delete(c.filters, ag)
			delete(c.returns, ag)
		}
	}
}

func sameAttributes(x, y []*mesos.Attribute) bool {
	return slices.EqualFunc(x, y, func(a, b *mesos.Attribute) bool { return proto.Equal(a, b) })
}

// filterHeap has the filter on top that ends first; see container/heap.
type filterHeap []*filter

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (h filterHeap) Len() int { return len(h) }

func (h filterHeap) Less(i, j int) bool {
	if c := h[i].until.Compare(h[j].until); c != 0 {
		return c < 0
	}
	return h[i].number < h[j].number
}

func (h filterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *filterHeap) Push(x any) {
	f := x.(*filter)
	f.place = len(*h)
	f.client.refusals++
	*h = append(*h, f)
}

func (h *filterHeap) Pop() any {
	last := len(*h) - 1
	f := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	f.client.refusals--
	return f
}
